// Signs of the groups of a pass's tiles: parities of masks with an amplitude's index, as the kernels look them up.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "cuda/tables/affine.h"
#include "cuda/tables/tables.h"

namespace ketgrad::cuda {

// A mask whose parity with an index is a sign: over the coordinates of a tile, and over its base.
struct SignMask {
  Local row = 0;
  Mask tile = 0;
};

class SignBuilder {
 public:
  explicit SignBuilder(Tables& tables) : tables_(tables) {}

  // What is added from here on belongs to the tiles of one pass, up to finish().
  void begin(AffineMap tiles);
  TileSignBits finish();

  // Bit i is the sign of masks[i] at the base of a tile. Returns its place among the pass's TileSignBits; equal ones
  // share one.
  std::int32_t add_tile_signs(const std::vector<SignMask>& masks);

  // f(base), an affine map from a tile's base to 64 bits, takes two places: the low half and the high half.
  template <class F>
  std::int32_t add_tile_mask(const F& f) {
    tile_bits_.push_back(affine([&](Mask base) { return f(base) & 0xffffffff; }));
    tile_bits_.push_back(affine([&](Mask base) { return f(base) >> 32; }));
    return count() - 2;
  }

  // Bit i is the sign of masks[i], at the first rows of `groups`.
  GroupSigns add_group_signs(const std::vector<SignMask>& masks, const AffineMap& groups);

 private:
  std::int32_t count() const { return static_cast<std::int32_t>(tile_bits_.size()); }

  // f at the origin, and what each vector adds to it.
  template <class F>
  std::vector<SignBits> affine(const F& f) const {
    std::vector<SignBits> values{static_cast<SignBits>(f(tiles_.origin))};
    for (const Mask v : tiles_.basis) values.push_back(static_cast<SignBits>(f(tiles_.origin ^ v)) ^ values[0]);
    return values;
  }

  Tables& tables_;
  AffineMap tiles_;
  std::vector<std::vector<SignBits>> tile_bits_;  // [place][origin, bits of a tile's number]
  std::map<std::vector<SignBits>, std::int32_t> known_;
};

}  // namespace ketgrad::cuda
