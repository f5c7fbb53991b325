// Kernels that hold tiles of states in shared memory and run the operations of passes on them: rotations, phases, Pauli
// words. Where one tile holds the whole state, a launch runs any number of passes and what is measured after them.
#pragma once

#include "cuda/kernels/arithmetic.h"

namespace ketgrad::cuda {

// The arguments of every tile kernel.
template <class T>
struct TileCall {
  TablesView t;
  Samples samples;
  int num_bits = 0;
  Index strings = 0;
  const ShearRotation<T>* rotations = nullptr;  // [sample][t.rotations]
  const Complex<Accum<T>>* phases = nullptr;    // [sample][strings]: exp(-i angle/2)
  // Whether some angle is not a number: then amplitudes outside the support are visited too, since they become NaN.
  const std::int32_t* some_nan = nullptr;
  int multiprocessors = 1;
  Index chunk = 1;  // samples of the largest chunk: it sets the grid, so that every chunk of a call has the same
};

// How many blocks share a sample's tiles, and how many partial sums each of its sums has. Block `part` of `parts` takes
// every parts-th of the tiles that may be non-zero.
struct TileGrid {
  Index tiles = 1;
  Index parts = 1;
  int threads = warp_size;

  KETGRAD_HOST_DEVICE Index partials() const { return parts * (threads / warp_size); }
};

TileGrid grid_of(int tile_bits, Index tiles, Index samples, int multiprocessors);

// Shared memory that the most demanding launch for these tables asks for: signs of very many Pauli words may take more
// than there is.
template <class T>
std::size_t most_shared_bytes(const Tables& tables);

template <class T>
struct ForwardTiles {
  int first_pass = 0;
  int end_pass = 0;
  bool prepares = false;  // begin with `initial`; else with what `ket` holds
  InitialAmplitudes initial;
  Complex<T>* ket = nullptr;     // [sample][2^n]; null if it is neither read nor needed later
  Complex<T>* into = nullptr;    // where the ket is written; null: nowhere
  bool measures = false;         // the Pauli words of the first pass over them, of the same tiles
  Accum<T>* partials = nullptr;  // [Pauli word][sample][partials_each]
  Index partials_each = 1;
};

template <class T>
void run_forward(const Queue& queue, const Tables& tables, const TileCall<T>& call, const ForwardTiles<T>& f);

template <class T>
struct BackwardTiles {
  int first_pass = 0;  // the passes from end_pass - 1 down to first_pass
  int end_pass = 0;
  const Complex<T>* source = nullptr;  // the ket is read from here
  Complex<T>* ket = nullptr;           // and written here, as is the bra; null: not needed
  Complex<T>* bra = nullptr;           // [sample][2^n]
  bool reads_bra = true;               // else it begins as zero
  const T* weights =
      nullptr;  // [sample][Pauli word]: the Pauli words of the first pass over them are added to it; null: none
  Accum<T>* overlaps = nullptr;  // [angle][sample][overlap_partials], to which this adds
  Index overlap_partials = 0;
  bool writes_bra = true;
};

template <class T>
void run_backward(const Queue& queue, const Tables& tables, const TileCall<T>& call, const BackwardTiles<T>& b);

// partials[Pauli word][sample][partials of the pass's own grid], for the Pauli words of one pass over states of several
// tiles.
template <class T>
void measure_pauli_words(const Queue& queue, const Tables& tables, const TileCall<T>& call, int pauli_word_pass,
                         const Complex<T>* ket, Accum<T>* partials, Index partial_stride);

// bra = or += sum of weight * P psi
template <class T>
void add_pauli_words(const Queue& queue, const Tables& tables, const TileCall<T>& call, int pauli_word_pass,
                     const Complex<T>* ket, Complex<T>* bra, const T* weights, bool begins);

}  // namespace ketgrad::cuda
