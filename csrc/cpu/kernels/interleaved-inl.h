// Kernels for a single state, whose amplitudes are interleaved (re, im) pairs: runs of neighbours are worked on as
// vectors of pairs. A complex factor f acts on a vector v of pairs as f.re v + f.im (i v).
#pragma once

#include "cpu/kernels/gates-inl.h"

namespace ketgrad {
namespace {

// Whether the groups of an unfused gate come in runs that fill vectors of pairs.
template <class T>
bool has_vector_runs(const IndexMap& groups) {
  return groups.run_length() >= batch_lanes<T> / 2;
}

// A 2x2 matrix times the two vectors of a group of runs.
template <class T>
struct PairGroup {
  Row<T> low;
  Row<T> high;

  PairGroup times(const LocalMatrix<2, T>& m) const {
    const Row<T> i_low = times_i(low);
    const Row<T> i_high = times_i(high);
    return {m.re[0] * low + m.im[0] * i_low + m.re[1] * high + m.im[1] * i_high,
            m.re[2] * low + m.im[2] * i_low + m.re[3] * high + m.im[3] * i_high};
  }
};

template <class T>
PairGroup<T> load_pair_group(const T* state, Index low, Index high) {
  return {load_row(state + low), load_row(state + high)};
}

template <class T>
void store_pair_group(T* state, Index low, Index high, const PairGroup<T>& g) {
  store_row(state + low, g.low);
  store_row(state + high, g.high);
}

// apply_block<2> where has_vector_runs.
template <class T>
void apply_block_to_runs(T* psi, const IndexMap& groups, const Index* offsets, const T* matrix, Index begin,
                         Index end) {
  const LocalMatrix<2, T> m(matrix);
  for_each_run(groups, begin, end, [&](Index first, Index length) {
    for (Index k = 0; k < 2 * length; k += batch_lanes<T>) {
      const Index low = 2 * (first ^ offsets[0]) + k;
      const Index high = 2 * (first ^ offsets[1]) + k;
      store_pair_group(psi, low, high, load_pair_group(psi, low, high).times(m));
    }
  });
}

// undo_block<2> where has_vector_runs. Per pair, conj(bra) ket has the real part bra . ket and the imaginary part -bra
// . (i ket).
template <bool W, class T>
void undo_block_from_runs(T* psi, T* lambda, const IndexMap& groups, const Index* offsets, const T* matrix, Index begin,
                          Index end, T* overlaps) {
  const LocalMatrix<2, T> m(matrix);
  Row<T> re[4] = {};
  Row<T> im[4] = {};
  for_each_run(groups, begin, end, [&](Index first, Index length) {
    for (Index k = 0; k < 2 * length; k += batch_lanes<T>) {
      const Index low = 2 * (first ^ offsets[0]) + k;
      const Index high = 2 * (first ^ offsets[1]) + k;
      const PairGroup<T> bra = load_pair_group(lambda, low, high);
      const PairGroup<T> ket = load_pair_group(psi, low, high).times(m);
      if constexpr (W) {
        const Row<T> i_low = times_i(ket.low);
        const Row<T> i_high = times_i(ket.high);
        re[0] += bra.low * ket.low;
        re[1] += bra.low * ket.high;
        re[2] += bra.high * ket.low;
        re[3] += bra.high * ket.high;
        im[0] -= bra.low * i_low;
        im[1] -= bra.low * i_high;
        im[2] -= bra.high * i_low;
        im[3] -= bra.high * i_high;
      }
      store_pair_group(psi, low, high, ket);
      store_pair_group(lambda, low, high, bra.times(m));
    }
  });
  if constexpr (W) {
    for (int e = 0; e < 4; ++e) {
      overlaps[2 * e] += sum_lanes(re[e]);
      overlaps[2 * e + 1] += sum_lanes(im[e]);
    }
  }
}

}  // namespace
}  // namespace ketgrad
