// The sizes that decide how a call runs. Tests set them so that small circuits reach every code path.
#pragma once

namespace ketgrad {

// A sample per lane, or one after the other; `automatic` is by sizes.
enum class RegimeChoice { automatic, lanes, single };

// Results do not depend on any of it, beyond rounding.
struct Thresholds {
  int tile_bits = 0;    // amplitudes in a tile of a single state, as a power of two; 0: by its size
  int scale_bits = 24;  // the deferred scale stays above 2^-scale_bits
  bool support = true;  // amplitudes outside the support are left out
  RegimeChoice regime = RegimeChoice::automatic;  // where states and matrices allow for it
  bool spread = false;                            // over the threads, however small passes and batches are
};

// Overlaps contain the square of the deferred scale; the exponent of a float must hold it together with the cotangents.
inline constexpr int most_scale_bits = 40;

// Those in use.
const Thresholds& thresholds();

// Not while a call runs. Throws std::invalid_argument where bits are negative or too many.
void set_thresholds(const Thresholds& thresholds);

}  // namespace ketgrad
