// Expectation values of Pauli words on a tile of the ket, and the rows of a weighted sum of them applied to it.
#pragma once

#include "cuda/kernels/tile_sums.h"

namespace ketgrad::cuda {

// Beyond this many Pauli words in a list, one transform for all signs costs less than a sum for each.
inline constexpr int few_pauli_words = 6;

// The sums over a warp of +-values for the Pauli words of a list; lane e has that of element e.
template <class T>
KETGRAD_DEVICE T pauli_word_sums(const PauliWordList& list, const Place<T>& place, Local group, T* values) {
  hadamard(values);
  if (list.pauli_words.count() <= few_pauli_words) {
    T own = 0;
    const SignBits signs = place.signs_of(list.signs, group) ^ list.of_values;
    for_each_pattern(list.pauli_words, signs, [&](int m, int pattern, SignBits left) {
      const T sum = warp_sum(with_sign(values[pattern], left));
      if (static_cast<int>(warp_lane()) == m) own = sum;
    });
    return own;
  }
  warp_hadamard(values);
  const int last = list.pauli_words.count() - 1;
  const TablePauliWord pauli_word =
      place.t.pauli_words[list.pauli_words.first +
                          (static_cast<int>(warp_lane()) < last ? static_cast<int>(warp_lane()) : last)];
  const T own = fetch(values, pauli_word.pattern, pauli_word.warp_lane);
  return with_sign(own, (place.signs_of_warp(list.signs, group) ^ list.of_values) << warp_lane());
}

// <P> is the sum over rows q of Re(i^quarter (-1)^parity(q) conj(psi_(q ^ flip)) psi_q).
template <class T>
KETGRAD_DEVICE void add_pauli_word_values(const Range& groups, const Place<T>& place, const Tile<T>& ket,
                                          Accum<T>* partials, Index stride) {
  for_each_round(place, [&](const Round& round) {
    const auto add = [&](const PauliWordList& list, T* values) {
      const T sum = pauli_word_sums(list, place, round.group, values);
      if (static_cast<int>(warp_lane()) >= list.pauli_words.count()) return;
      Accum<T>* partial = partials + (list.pauli_words.first + warp_lane()) * stride;
      if (place.first && round.number == 0) partial[place.partial] = 0;
      add_to_partial(partial, place, sum);
    };
    Complex<T> rows[thread_rows];
    for_each_row(round, [&](int u, Local, Local s) { rows[u] = ket.get(s); });
    for (int g = groups.first; g < groups.first + groups.count; ++g) {
      const FlipGroup& group = place.t.flip_groups[g];
      const Local flip = group.flip;
      Complex<T> partners[thread_rows];
      for_each_row(round, [&](int u, Local, Local s) { partners[u] = flip == 0 ? rows[u] : ket.get(s ^ flip); });
      T values[thread_rows];
      if (group.real.pauli_words.count() > 0) {
#pragma unroll
        for (int u = 0; u < thread_rows; ++u) values[u] = inner(partners[u], rows[u]).re;
        add(group.real, values);
      }
      if (group.imaginary.pauli_words.count() > 0) {
#pragma unroll
        for (int u = 0; u < thread_rows; ++u) values[u] = -inner(partners[u], rows[u]).im;
        add(group.imaginary, values);
      }
    }
  });
}

// The rows of a round of sum_w weight_w P_w psi: row r has i^quarter (-1)^parity(q) psi_q of q = r ^ flip.
template <class T>
KETGRAD_DEVICE void pauli_word_rows(const Range& groups, const Place<T>& place, const Round& round, const Tile<T>& ket,
                                    const T* weights, Complex<T>* rows) {
#pragma unroll
  for (int u = 0; u < thread_rows; ++u) rows[u] = {};
  for (int g = groups.first; g < groups.first + groups.count; ++g) {
    const FlipGroup& group = place.t.flip_groups[g];
    const Local flip = group.flip;
    T real[thread_rows] = {};
    T imaginary[thread_rows] = {};
    const auto add = [&](const PauliWordList& list, T* sums) {
      if (list.pauli_words.count() == 0) return;
      const SignBits signs = place.signs_of(list.signs, round.group) ^ list.of_rows;
      const T* weight = weights + list.pauli_words.first;
      for_each_pattern(list.pauli_words, signs,
                       [&](int, int pattern, SignBits left) { sums[pattern] += with_sign(*weight++, left); });
      hadamard(sums);
    };
    add(group.real, real);
    add(group.imaginary, imaginary);
    for_each_row(round,
                 [&](int u, Local, Local s) { rows[u] += Complex<T>{real[u], imaginary[u]} * ket.get(s ^ flip); });
  }
}

}  // namespace ketgrad::cuda
