// Kernels of unfused gates, over a range of groups of amplitudes.
//
// V is the lane type of the state, C that of the coefficients: V where samples have their own, the scalar where all
// share them. Where a kernel takes a State, that may have tangents (states-inl.h). A group is the amplitudes at
// groups[r] ^ offsets; [begin, end) are values of r (see IndexMap).
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/kernels/loops-inl.h"
#include "cpu/kernels/simd-inl.h"
#include "cpu/kernels/states-inl.h"
#include "math/pauli_word.h"
#include "runtime/buffer.h"

namespace ketgrad {
namespace {

// The matrix of a small block is copied to locals: stores to the state could otherwise alias it, and it would be
// reloaded each time.
template <int D, class C>
struct LocalMatrix {
  C re[D * D];
  C im[D * D];

  explicit LocalMatrix(const C* m) {
    for (int e = 0; e < D * D; ++e) {
      re[e] = m[2 * e];
      im[e] = m[2 * e + 1];
    }
  }
};

template <int D, class V>
struct Group {
  V re[D];
  V im[D];

  template <class State>
  void load(State state, Index base, const Index* offsets) {
    for (int a = 0; a < D; ++a) {
      re[a] = state[2 * (base ^ offsets[a])];
      im[a] = state[2 * (base ^ offsets[a]) + 1];
    }
  }

  template <class State>
  void store(State state, Index base, const Index* offsets) const {
    for (int a = 0; a < D; ++a) {
      state[2 * (base ^ offsets[a])] = re[a];
      state[2 * (base ^ offsets[a]) + 1] = im[a];
    }
  }

  template <class C>
  Group times(const LocalMatrix<D, C>& m) const {
    Group out;
    for (int a = 0; a < D; ++a) {
      out.re[a] = m.re[a * D] * re[0] - m.im[a * D] * im[0];
      out.im[a] = m.re[a * D] * im[0] + m.im[a * D] * re[0];
      for (int b = 1; b < D; ++b) {
        out.re[a] += m.re[a * D + b] * re[b] - m.im[a * D + b] * im[b];
        out.im[a] += m.re[a * D + b] * im[b] + m.im[a * D + b] * re[b];
      }
    }
    return out;
  }
};

template <int D, class State, class C>
void apply_block(State psi, const IndexMap& groups, const Index* offsets, const C* matrix, Index begin, Index end) {
  const LocalMatrix<D, C> m(matrix);
  for_each_run(groups, begin, end, [&](Index first, Index length) {
    for (Index i = first; i < first + length; ++i) {
      Group<D, Number<State>> g;
      g.load(psi, i, offsets);
      g.times(m).store(psi, i, offsets);
    }
  });
}

// Takes a block back from ket and bra, `matrix` being its inverse. With W, adds W[a, b] += conj(lambda_out[a])
// psi_in[b].
template <int D, bool W, class V, class C>
void undo_block(V* psi, V* lambda, const IndexMap& groups, const Index* offsets, const C* matrix, Index begin,
                Index end, V* overlaps) {
  const LocalMatrix<D, C> m(matrix);
  V w[2 * D * D] = {};
  for_each_run(groups, begin, end, [&](Index first, Index length) {
    for (Index i = first; i < first + length; ++i) {
      Group<D, V> ket;
      Group<D, V> bra;
      ket.load(psi, i, offsets);
      bra.load(lambda, i, offsets);
      ket = ket.times(m);
      if constexpr (W) {
        for (int a = 0; a < D; ++a) {
          for (int b = 0; b < D; ++b) {
            w[2 * (a * D + b)] += bra.re[a] * ket.re[b] + bra.im[a] * ket.im[b];
            w[2 * (a * D + b) + 1] += bra.re[a] * ket.im[b] - bra.im[a] * ket.re[b];
          }
        }
      }
      ket.store(psi, i, offsets);
      bra.times(m).store(lambda, i, offsets);
    }
  });
  if constexpr (W) {
    for (int e = 0; e < 2 * D * D; ++e) overlaps[e] += w[e];
  }
}

// The same for blocks of any size: `rows` rows of out from `first` on, whose sums are independent of each other.
template <int rows, class V, class C>
void times_rows(const V* in, V* out, const C* m, Index size, Index first) {
  V re[rows] = {};
  V im[rows] = {};
  for (Index b = 0; b < size; ++b) {
    for (int a = 0; a < rows; ++a) {
      const C* e = m + 2 * ((first + a) * size + b);
      re[a] += e[0] * in[2 * b] - e[1] * in[2 * b + 1];
      im[a] += e[0] * in[2 * b + 1] + e[1] * in[2 * b];
    }
  }
  for (int a = 0; a < rows; ++a) {
    out[2 * (first + a)] = re[a];
    out[2 * (first + a) + 1] = im[a];
  }
}

template <class V, class C>
void times_matrix(const V* in, V* out, const C* m, Index size) {
  if (size < 4) {
    for (Index a = 0; a < size; ++a) times_rows<1>(in, out, m, size, a);
  } else {
    for (Index a = 0; a < size; a += 4) times_rows<4>(in, out, m, size, a);
  }
}

template <class State, class Offsets, class N>
void load_group(State state, Index base, const Offsets& offsets, Index size, N* group) {
  for (Index a = 0; a < size; ++a) {
    group[2 * a] = state[2 * (base ^ offsets[a])];
    group[2 * a + 1] = state[2 * (base ^ offsets[a]) + 1];
  }
}

template <class State, class Offsets, class N>
void store_group(State state, Index base, const Offsets& offsets, Index size, const N* group) {
  for (Index a = 0; a < size; ++a) {
    state[2 * (base ^ offsets[a])] = group[2 * a];
    state[2 * (base ^ offsets[a]) + 1] = group[2 * a + 1];
  }
}

template <class N>
struct InLanes {
  using type = Row<N>;
};

template <class T>
struct InLanes<DualOf<T>> {
  using type = DualOf<Row<T>>;
};

// Several groups of a single state, one in each lane, so that a matrix is read once for all of them.
template <class N>
struct GroupsInLanes {
  using V = typename InLanes<N>::type;
  static constexpr int most = lane_width<V>;

  int count;
  Index bases[most];

  GroupsInLanes(const IndexMap& groups, Index begin, Index end)
      : count(static_cast<int>(std::min<Index>(most, end - begin))) {
    for (int l = 0; l < count; ++l) bases[l] = groups[begin + l];
  }

  template <class State, class Offsets>
  void load(State state, const Offsets& offsets, Index size, V* lanes) const {
    for (Index a = 0; a < size; ++a) {
      for (int l = 0; l < count; ++l) {
        const State amplitude = state + 2 * (bases[l] ^ offsets[a]);
        set_lane(lanes[2 * a], l, amplitude[0]);
        set_lane(lanes[2 * a + 1], l, amplitude[1]);
      }
    }
  }

  // f(amplitude, re, im)
  template <class State, class Offsets, class F>
  void write(State state, const Offsets& offsets, Index size, const V* lanes, const F& f) const {
    for (Index a = 0; a < size; ++a) {
      for (int l = 0; l < count; ++l)
        f(state + 2 * (bases[l] ^ offsets[a]), get_lane(lanes[2 * a], l), get_lane(lanes[2 * a + 1], l));
    }
  }
};

// Writes m in to `out`, group by group, by f(amplitude, re, im).
template <class Out, class In, class C, class Offsets, class F>
void multiply_groups(Out out, In in, const IndexMap& groups, const Offsets& offsets, Index size, const C* m,
                     Index begin, Index end, const F& f) {
  using N = Number<Out>;
  if constexpr (lane_width<N> == 1) {
    using Lanes = typename GroupsInLanes<N>::V;
    LaneVector<Lanes> from(2 * size);
    LaneVector<Lanes> to(2 * size);
    for (Index r = begin; r < end; r += GroupsInLanes<N>::most) {
      const GroupsInLanes<N> lanes(groups, r, end);
      lanes.load(in, offsets, size, from.data());
      times_matrix(from.data(), to.data(), m, size);
      lanes.write(out, offsets, size, to.data(), f);
    }
  } else {
    LaneVector<N> from(2 * size);
    LaneVector<N> to(2 * size);
    for (Index r = begin; r < end; ++r) {
      const Index base = groups[r];
      load_group(in, base, offsets, size, from.data());
      times_matrix(from.data(), to.data(), m, size);
      for (Index a = 0; a < size; ++a) f(out + 2 * (base ^ offsets[a]), to[2 * a], to[2 * a + 1]);
    }
  }
}

template <class State, class C, class Offsets>
void apply_large_block(State psi, const IndexMap& groups, const Offsets& offsets, Index size, const C* m, Index begin,
                       Index end) {
  multiply_groups(psi, psi, groups, offsets, size, m, begin, end, [](auto amplitude, const auto& re, const auto& im) {
    amplitude[0] = re;
    amplitude[1] = im;
  });
}

// out += m in, on the wires of the offsets.
template <class Out, class In, class C, class Offsets>
void add_large_block(Out out, In in, const IndexMap& groups, const Offsets& offsets, Index size, const C* m,
                     Index begin, Index end) {
  multiply_groups(out, in, groups, offsets, size, m, begin, end, [](auto amplitude, const auto& re, const auto& im) {
    amplitude[0] += re;
    amplitude[1] += im;
  });
}

// m = (m + m^dagger) / 2
template <class V>
void make_hermitian(V* m, Index size) {
  using T = Scalar<V>;
  for (Index a = 0; a < size; ++a) {
    for (Index b = 0; b <= a; ++b) {
      V* lower = m + 2 * (a * size + b);
      V* upper = m + 2 * (b * size + a);
      const V re = T(0.5) * (lower[0] + upper[0]);
      const V im = T(0.5) * (lower[1] - upper[1]);
      lower[0] = upper[0] = re;
      upper[1] = -im;
      lower[1] = im;
    }
  }
}

// w[a, b] += left[a] conj(right[b]), of the imaginary part `sign` times as much: with -1 it is conj(left[a]) right[b].
template <class V>
void add_outer(const V* left, const V* right, Index size, Scalar<V> sign, V* w) {
  for (Index a = 0; a < size; ++a) {
    for (Index b = 0; b < size; ++b) {
      V* e = w + 2 * (a * size + b);
      e[0] += left[2 * a] * right[2 * b] + left[2 * a + 1] * right[2 * b + 1];
      e[1] += sign * (left[2 * a + 1] * right[2 * b] - left[2 * a] * right[2 * b + 1]);
    }
  }
}

template <bool W, class V, class C>
void undo_large_block(V* psi, V* lambda, const IndexMap& groups, const Index* offsets, Index size, const C* m,
                      Index begin, Index end, V* w) {
  LaneVector<V> ket_out(2 * size);
  LaneVector<V> ket_in(2 * size);
  LaneVector<V> bra_out(2 * size);
  LaneVector<V> bra_in(2 * size);
  for (Index r = begin; r < end; ++r) {
    const Index base = groups[r];
    load_group(psi, base, offsets, size, ket_out.data());
    load_group(lambda, base, offsets, size, bra_out.data());
    times_matrix(ket_out.data(), ket_in.data(), m, size);
    times_matrix(bra_out.data(), bra_in.data(), m, size);
    store_group(psi, base, offsets, size, ket_in.data());
    store_group(lambda, base, offsets, size, bra_in.data());
    if constexpr (W) add_outer(bra_out.data(), ket_in.data(), size, Scalar<V>(-1), w);
  }
}

template <class State, class C>
void multiply(State amplitude, const C& re, const C& im) {
  const Number<State> x = amplitude[0];
  const Number<State> y = amplitude[1];
  amplitude[0] = re * x - im * y;
  amplitude[1] = re * y + im * x;
}

template <class State, class C>
void apply_diagonal(State psi, const IndexMap& groups, const std::vector<Index>& offsets, const C* d, Index begin,
                    Index end) {
  for_each_run(groups, begin, end, [&](Index first, Index length) {
    for (std::size_t a = 0; a < offsets.size(); ++a) {
      const C re = d[2 * a];
      const C im = d[2 * a + 1];
      for (Index i = first ^ offsets[a], end_of_run = i + length; i < end_of_run; ++i) multiply(psi + 2 * i, re, im);
    }
  });
}

// w[a] += conj(bra_a) ket_a
template <class State, class N>
void overlap_diagonal(State bra, State ket, const IndexMap& groups, const std::vector<Index>& offsets, Index begin,
                      Index end, N* w) {
  for (Index r = begin; r < end; ++r) {
    const Index base = groups[r];
    for (std::size_t a = 0; a < offsets.size(); ++a) {
      const Index i = 2 * (base ^ offsets[a]);
      w[2 * a] += bra[i] * ket[i] + bra[i + 1] * ket[i + 1];
      w[2 * a + 1] += bra[i] * ket[i + 1] - bra[i + 1] * ket[i];
    }
  }
}

// `d` is the inverse. With W, adds w[a] += conj(lambda_out[a]) psi_in[a].
template <bool W, class V, class C>
void undo_diagonal(V* psi, V* lambda, const IndexMap& groups, const std::vector<Index>& offsets, const C* d,
                   Index begin, Index end, V* w) {
  for_each_run(groups, begin, end, [&](Index first, Index length) {
    for (std::size_t a = 0; a < offsets.size(); ++a) {
      const C re = d[2 * a];
      const C im = d[2 * a + 1];
      V sum_re{};
      V sum_im{};
      for (Index i = first ^ offsets[a], end_of_run = i + length; i < end_of_run; ++i) {
        V* ket = psi + 2 * i;
        V* bra = lambda + 2 * i;
        multiply(ket, re, im);
        if constexpr (W) {
          sum_re += bra[0] * ket[0] + bra[1] * ket[1];
          sum_im += bra[0] * ket[1] - bra[1] * ket[0];
        }
        multiply(bra, re, im);
      }
      if constexpr (W) {
        w[2 * a] += sum_re;
        w[2 * a + 1] += sum_im;
      }
    }
  });
}

template <class State>
void exchange(State psi, const IndexMap& groups, const std::vector<Index>& offsets, Index begin, Index end) {
  for_each_run(groups, begin, end, [&](Index first, Index length) {
    const State a = psi + 2 * (first ^ offsets[0]);
    const State b = psi + 2 * (first ^ offsets[1]);
    for (Index i = 0; i < 2 * length; ++i) {
      const Number<State> t = a[i];
      a[i] = b[i];
      b[i] = t;
    }
  });
}

// A Pauli word enters its rotation as -i P |j> = f (-1)^popcount(j & z) |j ^ x> with f = -i i^y: real for an odd number
// of Y, else imaginary.
struct RotationPhase {
  bool real;
  bool negative;

  explicit RotationPhase(const PauliWord& pauli_word)
      : real((pauli_word.y_count & 1) != 0),
        negative((pauli_word.y_count % 4 == 0 || pauli_word.y_count % 4 == 3) != pauli_word.negative) {}
};

// f (-1)^parity times an amplitude.
template <class State, class N>
void rotated(State amplitude, const RotationPhase& phase, bool odd, N& re, N& im) {
  const bool minus = phase.negative != odd;
  if (phase.real) {
    re = minus ? N(-amplitude[0]) : N(amplitude[0]);
    im = minus ? N(-amplitude[1]) : N(amplitude[1]);
  } else {
    re = minus ? N(amplitude[1]) : N(-amplitude[1]);
    im = minus ? N(-amplitude[0]) : N(amplitude[0]);
  }
}

// w += Im<bra|P|ket> = Re<bra|-i P|ket> over the pairs (i, i ^ x), or single amplitudes where the Pauli word is
// diagonal.
template <class State, class N>
void overlap_rotation(State bra, State ket, const IndexMap& groups, const PauliWord& pauli_word, Index begin, Index end,
                      N* w) {
  const RotationPhase phase(pauli_word);
  N sum{};
  const auto add = [&](Index i) {
    const Index j = i ^ static_cast<Index>(pauli_word.x);
    N re, im;
    rotated(ket + 2 * j, phase, odd_parity(static_cast<Mask>(j) & pauli_word.z), re, im);
    sum += bra[2 * i] * re + bra[2 * i + 1] * im;
  };
  for (Index r = begin; r < end; ++r) {
    add(groups[r]);
    if (pauli_word.x != 0) add(groups[r] ^ static_cast<Index>(pauli_word.x));
  }
  w[0] += sum;
}

// psi' = c psi + s (-i P) psi on the pairs (i, i ^ x), or on single amplitudes where the Pauli word is diagonal. With
// W, adds Im<lambda|P|psi> = Re<lambda|-i P|psi>, which is the same before and after, as P commutes with its rotation.
template <bool W, bool two, class State, class C, class N>
void rotate_pauli(State psi, State lambda, const IndexMap& groups, const PauliWord& pauli_word, C c, C s, Index begin,
                  Index end, N* w) {
  const RotationPhase phase(pauli_word);
  const bool y_odd = (pauli_word.y_count & 1) != 0;
  N sum{};
  const auto rotate = [&](State state, Index i, Index j, bool odd_i, bool odd_j) {
    N from_i_re, from_i_im, from_j_re, from_j_im;
    rotated(state + 2 * i, phase, odd_i, from_i_re, from_i_im);
    rotated(state + 2 * j, phase, odd_j, from_j_re, from_j_im);
    const auto write = [&](State amplitude, const N& re, const N& im) {
      const N x = amplitude[0];
      const N y = amplitude[1];
      amplitude[0] = c * x + s * re;
      amplitude[1] = c * y + s * im;
    };
    write(state + 2 * i, from_j_re, from_j_im);
    if (i != j) write(state + 2 * j, from_i_re, from_i_im);
  };
  for_each_run(groups, begin, end, [&](Index first, Index length) {
    for (Index i = first; i < first + length; ++i) {
      const Index j = i ^ static_cast<Index>(pauli_word.x);
      const bool odd_i = odd_parity(static_cast<Mask>(i) & pauli_word.z);
      const bool odd_j = odd_i != y_odd;
      if constexpr (W) {
        N re, im;
        rotated(psi + 2 * j, phase, odd_j, re, im);
        sum += lambda[2 * i] * re + lambda[2 * i + 1] * im;
        if (i != j) {
          rotated(psi + 2 * i, phase, odd_i, re, im);
          sum += lambda[2 * j] * re + lambda[2 * j + 1] * im;
        }
      }
      rotate(psi, i, j, odd_i, odd_j);
      if constexpr (two) rotate(lambda, i, j, odd_i, odd_j);
    }
  });
  if constexpr (W) w[0] += sum;
}

}  // namespace
}  // namespace ketgrad
