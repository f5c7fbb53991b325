// Kernels of observables: O psi, <u|O|psi> and the gradients of what an observable is made of. A State may have
// tangents (states-inl.h); what comes out then has a derivative.
#pragma once

#include <algorithm>

#include "cpu/kernels/gates-inl.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// (P psi)_i = i^y (-1)^popcount(j & z) psi_j, j = i ^ x.
template <class State, class N>
void pauli_amplitude(State psi, const PauliWord& pauli_word, Index i, N& re, N& im) {
  const Index j = i ^ static_cast<Index>(pauli_word.x);
  const State a = psi + 2 * j;
  const int quarter =
      pauli_word.y_count + (odd_parity(static_cast<Mask>(j) & pauli_word.z) != pauli_word.negative ? 2 : 0);
  switch (quarter & 3) {
    case 0: re = a[0], im = a[1]; return;
    case 1: re = -a[1], im = a[0]; return;
    case 2: re = -a[0], im = -a[1]; return;
    default: re = a[1], im = -a[0]; return;
  }
}

template <class Out, class In, class N>
void add_pauli(Out out, In psi, const PauliWord& pauli_word, const N& coefficient, Index begin, Index end) {
  for (Index i = begin; i < end; ++i) {
    N re, im;
    pauli_amplitude(psi, pauli_word, i, re, im);
    out[2 * i] += coefficient * re;
    out[2 * i + 1] += coefficient * im;
  }
}

template <class Out, class In>
void write_pauli(Out out, In psi, const PauliWord& pauli_word, Index begin, Index end) {
  for (Index i = begin; i < end; ++i) {
    Number<Out> re, im;
    pauli_amplitude(psi, pauli_word, i, re, im);
    out[2 * i] = re;
    out[2 * i + 1] = im;
  }
}

// Re<u|P|psi>
template <class State, class N>
void overlap_pauli(State u, State psi, const PauliWord& pauli_word, Index begin, Index end, N* sum) {
  N total{};
  for (Index i = begin; i < end; ++i) {
    N re, im;
    pauli_amplitude(psi, pauli_word, i, re, im);
    total += u[2 * i] * re + u[2 * i + 1] * im;
  }
  sum[0] += total;
}

template <class Out, class In, class N>
void add_scaled(Out out, In in, const N& coefficient, Index begin, Index end) {
  for (Index i = 2 * begin; i < 2 * end; ++i) out[i] += coefficient * in[i];
}

template <class State, class N>
void scale(State state, const N& coefficient, Index begin, Index end) {
  for (Index i = 2 * begin; i < 2 * end; ++i) state[i] *= coefficient;
}

template <class State, class N>
void overlap_real(State u, State v, Index begin, Index end, N* sum) {
  N total{};
  for (Index i = 2 * begin; i < 2 * end; ++i) total += u[i] * v[i];
  sum[0] += total;
}

// Factors act in place on a scratch state; `values` are the lanes of the factor's input.

template <class State>
void project(State state, const PlannedFactor& f, Index begin, Index end) {
  const Index size = f.offsets.size();
  for (Index r = begin; r < end; ++r) {
    const Index base = f.groups[r];
    for (Index a = 0; a < size; ++a) {
      if (a == f.kept) continue;
      state[2 * (base ^ f.offsets[a])] = Number<State>{};
      state[2 * (base ^ f.offsets[a]) + 1] = Number<State>{};
    }
  }
}

// <phi| on the group's wires.
template <class V>
void project_amplitude(const V* phi, const V* group, Index size, V& re, V& im) {
  re = V{};
  im = V{};
  for (Index b = 0; b < size; ++b) {
    re += phi[2 * b] * group[2 * b] + phi[2 * b + 1] * group[2 * b + 1];
    im += phi[2 * b] * group[2 * b + 1] - phi[2 * b + 1] * group[2 * b];
  }
}

template <class State, class V>
void project_on_state(State state, const PlannedFactor& f, const V* phi, Index begin, Index end) {
  const Index size = f.offsets.size();
  LaneVector<V> group(2 * size);
  for (Index r = begin; r < end; ++r) {
    const Index base = f.groups[r];
    load_group(state, base, f.offsets, size, group.data());
    V re, im;
    project_amplitude(phi, group.data(), size, re, im);
    for (Index a = 0; a < size; ++a) {
      group[2 * a] = phi[2 * a] * re - phi[2 * a + 1] * im;
      group[2 * a + 1] = phi[2 * a] * im + phi[2 * a + 1] * re;
    }
    store_group(state, base, f.offsets, size, group.data());
  }
}

template <class State, class V>
void apply_sparse(State state, const PlannedFactor& f, const V* values, Index begin, Index end) {
  const Index size = f.offsets.size();
  LaneVector<V> in(2 * size);
  LaneVector<V> out(2 * size);
  for (Index r = begin; r < end; ++r) {
    const Index base = f.groups[r];
    load_group(state, base, f.offsets, size, in.data());
    std::fill(out.begin(), out.end(), V{});
    for (std::size_t k = 0; k < f.factor->rows.size(); ++k) {
      const V* a = in.data() + 2 * f.factor->columns[k];
      V* o = out.data() + 2 * f.factor->rows[k];
      o[0] += values[2 * k] * a[0] - values[2 * k + 1] * a[1];
      o[1] += values[2 * k] * a[1] + values[2 * k + 1] * a[0];
    }
    store_group(state, base, f.offsets, size, out.data());
  }
}

// (S + S^dagger) / 2 of a sparse matrix with these values: a direction of S need not be Hermitian.
template <class State, class V>
void apply_sparse_hermitian(State state, const PlannedFactor& f, const V* values, Index begin, Index end) {
  using T = Scalar<V>;
  const Index size = f.offsets.size();
  LaneVector<V> in(2 * size);
  LaneVector<V> out(2 * size);
  for (Index r = begin; r < end; ++r) {
    const Index base = f.groups[r];
    load_group(state, base, f.offsets, size, in.data());
    std::fill(out.begin(), out.end(), V{});
    for (std::size_t k = 0; k < f.factor->rows.size(); ++k) {
      const Index row = 2 * f.factor->rows[k];
      const Index column = 2 * f.factor->columns[k];
      const V re = T(0.5) * values[2 * k];
      const V im = T(0.5) * values[2 * k + 1];
      out[row] += re * in[column] - im * in[column + 1];
      out[row + 1] += re * in[column + 1] + im * in[column];
      out[column] += re * in[row] + im * in[row + 1];
      out[column + 1] += re * in[row + 1] - im * in[row];
    }
    store_group(state, base, f.offsets, size, out.data());
  }
}

// Gradients of a factor's input (in torch's convention) of Re<u|F|psi>, psi being everything else in the term applied
// to the ket.

// The derivative by a matrix: add_outer of each group.
template <class State, class Offsets, class V>
void add_group_products(State left, State right, const IndexMap& groups, const Offsets& offsets, Index size,
                        Scalar<V> sign, Index begin, Index end, V* g) {
  LaneVector<V> rows(2 * size);
  LaneVector<V> columns(2 * size);
  for (Index r = begin; r < end; ++r) {
    const Index base = groups[r];
    load_group(left, base, offsets, size, rows.data());
    load_group(right, base, offsets, size, columns.data());
    add_outer(rows.data(), columns.data(), size, sign, g);
  }
}

// d/dphi of Re<u|phi><phi|psi>: u_a conj(<phi|psi>) + psi_a conj(<phi|u>)
template <class State, class V>
void state_gradient(State u, State psi, const PlannedFactor& f, const V* phi, Index begin, Index end, V* g) {
  const Index size = f.offsets.size();
  LaneVector<V> left(2 * size);
  LaneVector<V> right(2 * size);
  for (Index r = begin; r < end; ++r) {
    const Index base = f.groups[r];
    load_group(u, base, f.offsets, size, left.data());
    load_group(psi, base, f.offsets, size, right.data());
    V s_re, s_im, t_re, t_im;  // s = <phi|psi>, t = <phi|u>
    project_amplitude(phi, right.data(), size, s_re, s_im);
    project_amplitude(phi, left.data(), size, t_re, t_im);
    for (Index a = 0; a < size; ++a) {
      g[2 * a] += left[2 * a] * s_re + left[2 * a + 1] * s_im + right[2 * a] * t_re + right[2 * a + 1] * t_im;
      g[2 * a + 1] += left[2 * a + 1] * s_re - left[2 * a] * s_im + right[2 * a + 1] * t_re - right[2 * a] * t_im;
    }
  }
}

// d/dvalue_k: u_row conj(psi_column)
template <class State, class V>
void sparse_gradient(State u, State psi, const PlannedFactor& f, Index begin, Index end, V* g) {
  for (Index r = begin; r < end; ++r) {
    const Index base = f.groups[r];
    for (std::size_t k = 0; k < f.factor->rows.size(); ++k) {
      const State a = u + 2 * (base ^ f.offsets[f.factor->rows[k]]);
      const State b = psi + 2 * (base ^ f.offsets[f.factor->columns[k]]);
      g[2 * k] += a[0] * b[0] + a[1] * b[1];
      g[2 * k + 1] += a[1] * b[0] - a[0] * b[1];
    }
  }
}

// Probabilities over kept wires, Re(conj(u) psi) summed: group r adds to every outcome a.
template <class State, class Offsets, class V>
void add_probabilities(State u, State psi, const IndexMap& groups, const Offsets& offsets, Index begin, Index end,
                       V* p) {
  const Index size = offsets.size();
  for_each_run(groups, begin, end, [&](Index first, Index length) {
    for (Index a = 0; a < size; ++a) {
      V sum{};
      for (Index i = first ^ offsets[a], end_of_run = i + length; i < end_of_run; ++i)
        sum += u[2 * i] * psi[2 * i] + u[2 * i + 1] * psi[2 * i + 1];
      p[a] += sum;
    }
  });
}

// The probability of one outcome, over all groups.
template <class State, class V>
void add_probability(State u, State psi, const IndexMap& groups, Index offset, V& p) {
  for_each_run(groups, 0, groups.size(), [&](Index first, Index length) {
    for (Index i = first ^ offset, end_of_run = i + length; i < end_of_run; ++i)
      p += u[2 * i] * psi[2 * i] + u[2 * i + 1] * psi[2 * i + 1];
  });
}

// out_i += g_a psi_i for the outcome a that i belongs to.
template <class Out, class In, class Offsets, class V>
void add_weighted(Out out, In psi, const IndexMap& groups, const Offsets& offsets, const V* g, Index begin, Index end) {
  const Index size = offsets.size();
  for_each_run(groups, begin, end, [&](Index first, Index length) {
    for (Index a = 0; a < size; ++a) {
      for (Index i = first ^ offsets[a], end_of_run = i + length; i < end_of_run; ++i) {
        out[2 * i] += g[a] * psi[2 * i];
        out[2 * i + 1] += g[a] * psi[2 * i + 1];
      }
    }
  });
}

}  // namespace
}  // namespace ketgrad
