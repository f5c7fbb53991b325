// Sums over the amplitudes of a tile, many signs at once: Hadamard transforms over a thread's rows and over a warp.
#pragma once

#include <cstdint>

#include "cuda/kernels/tile_place.h"

namespace ketgrad::cuda {

// Each warp has its own partial sum, to which one lane adds, so the sum does not depend on the order of warps.
template <class T>
KETGRAD_DEVICE void add_to_partial(Accum<T>* partials, const Place<T>& place, const T& value) {
  add_alone(partials + place.partial, static_cast<Accum<T>>(value));
}

// values[k] = sum over patterns p of (-1)^parity(k & p) values[p]
template <class T>
KETGRAD_DEVICE void hadamard(T* values) {
#pragma unroll
  for (int bit = 1; bit < thread_rows; bit *= 2) {
#pragma unroll
    for (int p = 0; p < thread_rows; ++p) {
      if ((p & bit) != 0) continue;
      const T a = values[p];
      const T b = values[p | bit];
      values[p] = a + b;
      values[p | bit] = a - b;
    }
  }
}

// The same over the lanes of a warp: lane q gets the sum over lanes l of (-1)^parity(l & q) values.
template <class T>
KETGRAD_DEVICE void warp_hadamard(T* values) {
#pragma unroll
  for (int bit = 1; bit < warp_size; bit *= 2) {
    const Real<T> sign = (warp_lane() & bit) != 0 ? -1 : 1;
#pragma unroll
    for (int p = 0; p < thread_rows; ++p) values[p] = sign * values[p] + shuffle_xor(values[p], bit);
  }
}

// After hadamard and warp_hadamard: the value of lane `from` for a pattern, which is the sum of one sign over the warp.
// The pattern may differ from lane to lane.
template <class T>
KETGRAD_DEVICE T fetch(const T* values, int pattern, int from) {
  T found = 0;
#pragma unroll
  for (int p = 0; p < thread_rows; ++p) {
    const T value = shuffle(values[p], from);
    if (p == pattern) found = value;
  }
  return found;
}

// Calls f(e, p, signs) for the elements e of a list, where p is their pattern, a constant, and the highest bit of signs
// is the sign of the element.
template <class F>
KETGRAD_DEVICE void for_each_pattern(const Patterns& list, SignBits signs, const F& f) {
  const std::uint64_t ends = list.ends;
  int e = 0;
#pragma unroll
  for (int p = 0; p < thread_rows; ++p) {
#pragma unroll 1
    for (const int end = Patterns{0, ends}.end(p); e < end; ++e, signs <<= 1) f(e, p, signs);
  }
}

}  // namespace ketgrad::cuda
