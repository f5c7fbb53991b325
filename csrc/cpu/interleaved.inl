// Kernels for a single state, whose amplitudes are interleaved (re, im) pairs: runs of neighbours are worked on as
// vectors of pairs. Included by walk.inl. A complex factor f acts on a vector v of pairs as f.re v + f.im (i v).

template <class T>
using Pairs = typename BatchLanes<T>::type;

// The same vector at any address that a T may have; it may alias T.
typedef float FloatPairsAnywhere __attribute__((vector_size(64), aligned(4), may_alias));
typedef double DoublePairsAnywhere __attribute__((vector_size(64), aligned(8), may_alias));

inline FloatLanes load_pairs(const float* p) { return *reinterpret_cast<const FloatPairsAnywhere*>(p); }
inline DoubleLanes load_pairs(const double* p) { return *reinterpret_cast<const DoublePairsAnywhere*>(p); }
inline void store_pairs(float* p, const FloatLanes& v) { *reinterpret_cast<FloatPairsAnywhere*>(p) = v; }
inline void store_pairs(double* p, const DoubleLanes& v) { *reinterpret_cast<DoublePairsAnywhere*>(p) = v; }

// i v for each pair of v: (re, im) -> (-im, re).
inline FloatLanes times_i(const FloatLanes& v) {
  constexpr FloatLanes sign = {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1};
  return sign * __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
}

inline DoubleLanes times_i(const DoubleLanes& v) {
  constexpr DoubleLanes sign = {-1, 1, -1, 1, -1, 1, -1, 1};
  return sign * __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6);
}

// Whether the groups of a step come in runs that fill vectors of pairs.
template <class T>
bool has_vector_runs(const FixedBits& fixed, Index groups) {
  return std::min(fixed.run_length(groups), groups) >= batch_lanes<T> / 2;
}

// A 2x2 matrix times the two vectors of a group of runs.
template <class T>
struct PairGroup {
  Pairs<T> low;
  Pairs<T> high;

  PairGroup times(const LocalMatrix<2, T>& m) const {
    const Pairs<T> i_low = times_i(low);
    const Pairs<T> i_high = times_i(high);
    return {m.re[0] * low + m.im[0] * i_low + m.re[1] * high + m.im[1] * i_high,
            m.re[2] * low + m.im[2] * i_low + m.re[3] * high + m.im[3] * i_high};
  }
};

template <class T>
PairGroup<T> load_pair_group(const T* state, Index low, Index high) {
  return {load_pairs(state + low), load_pairs(state + high)};
}

template <class T>
void store_pair_group(T* state, Index low, Index high, const PairGroup<T>& g) {
  store_pairs(state + low, g.low);
  store_pairs(state + high, g.high);
}

// apply_block<2> where has_vector_runs.
template <class T>
void apply_block_to_runs(T* psi, const FixedBits& fixed, const Index* offsets, const T* matrix, Index begin,
                         Index end) {
  const LocalMatrix<2, T> m(matrix);
  for_each_run(fixed, begin, end, [&](Index first, Index length) {
    for (Index k = 0; k < 2 * length; k += batch_lanes<T>) {
      const Index low = 2 * (first + offsets[0]) + k;
      const Index high = 2 * (first + offsets[1]) + k;
      store_pair_group(psi, low, high, load_pair_group(psi, low, high).times(m));
    }
  });
}

template <class T>
T sum_lanes(const Pairs<T>& v) {
  T total = 0;
  for (int l = 0; l < batch_lanes<T>; ++l) total += v[l];
  return total;
}

// undo_block<2> where has_vector_runs. Per pair, conj(bra) ket has the real part bra . ket and the imaginary part -bra
// . (i ket).
template <bool W, class T>
void undo_block_from_runs(T* psi, T* lambda, const FixedBits& fixed, const Index* offsets, const T* matrix, Index begin,
                          Index end, T* overlaps) {
  const LocalMatrix<2, T> m(matrix);
  Pairs<T> re[4] = {};
  Pairs<T> im[4] = {};
  for_each_run(fixed, begin, end, [&](Index first, Index length) {
    for (Index k = 0; k < 2 * length; k += batch_lanes<T>) {
      const Index low = 2 * (first + offsets[0]) + k;
      const Index high = 2 * (first + offsets[1]) + k;
      const PairGroup<T> bra = load_pair_group(lambda, low, high);
      const PairGroup<T> ket = load_pair_group(psi, low, high).times(m);
      if constexpr (W) {
        const Pairs<T> i_low = times_i(ket.low);
        const Pairs<T> i_high = times_i(ket.high);
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
      overlaps[2 * e] += sum_lanes<T>(re[e]);
      overlaps[2 * e + 1] += sum_lanes<T>(im[e]);
    }
  }
}
