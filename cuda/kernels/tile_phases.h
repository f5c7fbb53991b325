// Phases of the rows that a thread holds, exp(-i sum_s angle_s/2 Z-string_s), and the overlaps that are their
// gradients.
#pragma once

#include <cstdint>

#include "cuda/kernels/tile_sums.h"

namespace ketgrad::cuda {

// Products of the phases of the Z-strings of one pattern, for each choice of their signs. An operation begins with
// these, while other threads may still read those of the previous operation. They are rounded once: rounding errors of
// many equal phases would all have the same sign.
template <class T>
KETGRAD_DEVICE void write_products(const TableOp& op, const Complex<Accum<T>>* phases, Place<T>& place) {
  place.products_begin ^= most_layers * layer_products;
  for (int e = thread_index(); e < op.layers * layer_products; e += block_threads()) {
    const ZStringSlot* slots = place.t.z_strings + op.first_string + (e >> pattern_strings) * pattern_strings;
    Complex<Accum<T>> product{1, 0};
#pragma unroll
    for (int j = 0; j < pattern_strings; ++j) {
      const int s = slots[j].string;
      if (s < 0) continue;
      const Complex<Accum<T>> phase = phases[s];
      const auto signs = static_cast<SignBits>(e) << (most_signs - 1 - j);
      product = product * Complex<Accum<T>>{phase.re, with_sign(phase.im, signs)};
    }
    place.products.set(place.products_begin + e, narrowed<T>(product));
  }
}

// sign * exp(-i sum_s angle_s/2 (-1)^parity_s) for each row of a group: the products over patterns of the patterns'
// products or their conjugates, which is a multiplicative Hadamard transform.
template <class T>
KETGRAD_DEVICE void phase_factors(const TableOp& op, const Place<T>& place, Local group, Real<T> sign,
                                  Complex<T>* factors) {
  constexpr std::uint32_t all = (1 << pattern_strings) - 1;
#pragma unroll
  for (int l = 0; l < most_layers; ++l) {
    if (l >= op.layers) continue;
    const SignBits signs = place.signs_of(op.signs[l], group);
    const int begin = place.products_begin + l * layer_products;
#pragma unroll
    for (int p = 0; p < thread_rows; ++p) {
      const std::uint32_t e = (p << pattern_strings) + ((signs >> (p * pattern_strings)) & all);
      const Complex<T> product = place.products.get(begin + static_cast<int>(e));
      factors[p] = l == 0 ? product : factors[p] * product;
    }
  }
  factors[0] = {sign * factors[0].re, sign * factors[0].im};
#pragma unroll
  for (int bit = 1; bit < thread_rows; bit *= 2) {
#pragma unroll
    for (int p = 0; p < thread_rows; ++p) {
      if ((p & bit) != 0) continue;
      const Complex<T> a = factors[p];
      const Complex<T> b = factors[p | bit];
      factors[p] = a * b;
      factors[p | bit] = inner(b, a);
    }
  }
}

// With w = Im(conj(bra) ket), the overlap of a Z-string is the sum of +-w. A Hadamard transform over the rows of groups
// and over the lanes of a warp gives the sums for all signs; each lane then fetches the sum of its Z-string.
template <class T>
KETGRAD_DEVICE void add_string_overlaps(const TableOp& op, const Place<T>& place, Local group, T* w, Accum<T>* overlaps,
                                        Index stride) {
  hadamard(w);
  warp_hadamard(w);
  for (int l = 0; l < op.layers; ++l) {
    const ZStringSlot slot = place.t.z_strings[op.first_string + l * layer_strings + warp_lane()];
    const T sum = fetch(w, static_cast<int>(warp_lane()) / pattern_strings, slot.warp_lane);
    const int number = place.t.rotations + slot.string;
    if (slot.string < 0 || place.t.angles[number].is_constant != 0) continue;
    const SignBits signs = place.signs_of_warp(op.signs[l], group) << (most_signs - 1 - warp_lane());
    add_to_partial(overlaps + number * stride, place, with_sign(sum, signs));
  }
}

}  // namespace ketgrad::cuda
