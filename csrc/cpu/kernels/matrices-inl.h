// Matrices of 2, 4 or 8 states on the rows of a single state. A complex factor f acts on a row v of (re, im) pairs as
// f.re v + i (f.im v), and each lane of a row has the factors of its own local state.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <type_traits>
#include <utility>

#include "cpu/kernels/loops-inl.h"
#include "cpu/kernels/simd-inl.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// A matrix in one variation (see TileMatrix::variations). What a row of a group becomes is the sum of its factors times
// the terms of the group: its rows, with lanes traded in each of the ways.
class MatrixVariant {
 public:
  // Bit j of `variant`: the number of variation j.
  MatrixVariant(const TileMatrix& matrix, unsigned variant) : matrix_(matrix) {
    std::ranges::copy(matrix.states, states_);
    for (std::size_t j = 0; j < matrix.variations.size(); ++j) {
      const TileMatrix::Variation& v = matrix.variations[j];
      const bool is_odd = ((variant >> j) & 1) != 0;
      for (std::size_t lane = 0; lane < matrix.states.size(); ++lane) {
        const bool is_mixed = v.lane_mask == 0 || odd_parity(lane & v.lane_mask) == is_odd;
        states_[lane] = !is_mixed || states_[lane] < 0 ? -1 : states_[lane] ^ (is_odd ? v.state : 0);
      }
    }
    are_alike_ = std::ranges::all_of(states_, states_ + matrix.states.size(), [&](int s) { return s == states_[0]; });
  }

  // Whether all lanes of a row are mixed, and have the same local state.
  bool lanes_are_alike() const { return are_alike_ && states_[0] >= 0; }

  // The row of the matrix that makes a lane of row m; -1 where the lane is left as it is.
  int state(int m, int lane) const { return states_[lane] < 0 ? -1 : states_[lane] ^ matrix_.row_states[m]; }

 private:
  static constexpr int most_lanes = row_bytes / 8;

  const TileMatrix& matrix_;
  int states_[most_lanes];
  bool are_alike_;
};

// Numbers of its entries, or of its overlaps.
inline Index entry_numbers(const TileMatrix& matrix) { return Index{2} * matrix.size() * matrix.size(); }

// Rows of factors in one variant, and of the sums of its overlaps: two for each row and term of a group.
inline Index factor_rows(const TileMatrix& matrix) { return Index{2} * matrix.rows() * matrix.size(); }

// Calls f(row, flip) for each row of a group and each of its terms, in order: the flip, added by XOR, leads from the row
// of the matrix to the term's column.
template <class F>
KETGRAD_ALWAYS_INLINE inline void for_each_term(const TileMatrix& matrix, const F& f) {
  for (int m = 0; m < matrix.rows(); ++m) {
    for (const int row_state : matrix.row_states) {
      for (const int lane_state : matrix.lane_states) f(m, matrix.row_states[m] ^ row_state ^ lane_state);
    }
  }
}

// Writes re and im of each factor, by row and term; im as (im, -im), so that i times the product is the product with the
// parts of each pair traded. Lanes that are not mixed are multiplied by `otherwise`: 1, or 0 of a derivative.
template <class T>
void write_factors(const TileMatrix& matrix, unsigned variant, const T* entries, T otherwise, Row<T>* factors) {
  const MatrixVariant local(matrix, variant);
  const bool alike = local.lanes_are_alike();
  const int size = matrix.size();
  const Row<T> signs = first_negated(Row<T>{} - 1);
  for_each_term(matrix, [&](int m, int flip) KETGRAD_ALWAYS_INLINE {
    const auto entry_of = [&](int state) { return entries + 2 * (state * size + (state ^ flip)); };
    if (alike) {
      const T* entry = entry_of(local.state(m, 0));
      factors[0] = Row<T>{} + entry[0];
      factors[1] = signs * entry[1];
    }
    for (int l = 0; l < batch_lanes<T> && !alike; ++l) {
      const int state = local.state(m, l / 2);
      const T* entry = state < 0 ? nullptr : entry_of(state);
      factors[0][l] = entry != nullptr ? entry[0] : flip == 0 ? otherwise : 0;
      factors[1][l] = entry != nullptr ? signs[l] * entry[1] : 0;
    }
    factors += 2;
  });
}

// Which rows and lanes a matrix trades, those of all rows as they meet those of the first.
template <int rows, int trades, class T>
struct MatrixTerms {
  static constexpr int terms = rows * trades;
  using V = Row<T>;
  Index offsets[rows];
  Mask lane_flips[trades];

  explicit MatrixTerms(const TileMatrix& matrix) {
    for (int m = 0; m < rows; ++m) offsets[m] = matrix.row_offsets[m] * batch_lanes<T>;
    for (int s = 0; s < trades; ++s) lane_flips[s] = matrix.lane_flips[s];
  }

  // Row m of a group.
  KETGRAD_ALWAYS_INLINE V load(const T* state, Index base, int m) const {
    return load_row(state + (base ^ offsets[m]));
  }

  KETGRAD_ALWAYS_INLINE void store(T* state, Index base, int m, const V& x) const {
    store_row(state + (base ^ offsets[m]), x);
  }

  // Terms u of some of a group.
  template <int first, int count>
  KETGRAD_ALWAYS_INLINE void load_terms(const T* state, Index base, V* y) const {
    for (int u = first; u < first + count; ++u) {
      const V x = load(state, base, u / trades);
      y[u - first] = u % trades == 0 ? x : trade_lanes(x, lane_flips[u % trades]);
    }
  }

  // Row m of the product of factors and terms, of `together` groups at a time.
  template <int together>
  KETGRAD_ALWAYS_INLINE static void times(const V* factors, const V (*y)[terms], int m, V* out) {
    const V* f = factors + 2 * m * terms;
    V re[together];
    V im[together];
    for (int t = 0; t < together; ++t) {
      re[t] = f[0] * y[t][0];
      im[t] = f[1] * y[t][0];
    }
    for (int u = 1; u < terms; ++u) {
      for (int t = 0; t < together; ++t) {
        re[t] += f[2 * u] * y[t][u];
        im[t] += f[2 * u + 1] * y[t][u];
      }
    }
    for (int t = 0; t < together; ++t) out[t] = re[t] + trade_parts(im[t]);
  }
};

// Groups of one variant: the first `count` of all, their rows shifted.
struct MatrixGroups {
  const IndexMap& all;
  Index count = 0;
  Index shift = 0;  // added to each row by XOR
};

// Calls f with the bases of `together` groups at a time.
template <int together, class T, class F>
KETGRAD_ALWAYS_INLINE inline void for_each_base(const MatrixGroups& groups, const F& f) {
  const Index shift = groups.shift;
  for_each_group<together>(groups.all, groups.count, [&](Index, const Index* rows) KETGRAD_ALWAYS_INLINE {
    Index base[together];
    for (int t = 0; t < together; ++t) base[t] = (rows[t] ^ shift) * batch_lanes<T>;
    f(base);
  });
}

// How many groups' terms fit the registers beside what is made of them. Each factor that is loaded serves as many.
template <int terms>
constexpr int groups_together = terms <= 4 ? 2 : 1;

template <int together, int rows, int trades, class T>
[[gnu::noinline]] void apply_to_groups(T* psi, MatrixTerms<rows, trades, T> matrix, const Row<T>* __restrict factors,
                                       const MatrixGroups& groups) {
  for_each_base<together, T>(groups, [&](const Index* base) KETGRAD_ALWAYS_INLINE {
    Row<T> y[together][rows * trades];
    Row<T> x[rows][together];
    for (int t = 0; t < together; ++t) matrix.template load_terms<0, rows * trades>(psi, base[t], y[t]);
#pragma GCC unroll 8
    for (int m = 0; m < rows; ++m) matrix.template times<together>(factors, y, m, x[m]);
    for (int t = 0; t < together; ++t) {
      for (int m = 0; m < rows; ++m) matrix.store(psi, base[t], m, x[m][t]);
    }
  });
}

// tangent += derivative psi
template <int rows, int trades, class T>
void add_to_groups(const T* psi, T* tangent, MatrixTerms<rows, trades, T> matrix, const Row<T>* __restrict derivative,
                   const MatrixGroups& groups) {
  for_each_base<1, T>(groups, [&](const Index* base) KETGRAD_ALWAYS_INLINE {
    Row<T> y[1][rows * trades];
    matrix.template load_terms<0, rows * trades>(psi, *base, y[0]);
    for (int m = 0; m < rows; ++m) {
      Row<T> x;
      matrix.template times<1>(derivative, y, m, &x);
      matrix.store(tangent, *base, m, matrix.load(tangent, *base, m) + x);
    }
  });
}

// The overlaps of bra and ket by row and term, as sums of bra . ket, and of (bra with its parts traded) . ket. At a time
// those of one row of the bra and of four terms at most: their sums fit the registers, if nothing else is in the function.
template <int m, int first, int rows, int trades, class T>
[[gnu::noinline]] void sum_overlaps(const T* psi, const T* lambda, MatrixTerms<rows, trades, T> matrix,
                                    const MatrixGroups& groups, Row<T>* sums) {
  constexpr int count = std::min(rows * trades, 4);
  Row<T> re[count];
  Row<T> im[count];
  for (int u = 0; u < count; ++u) re[u] = im[u] = Row<T>{};  // = {} writes to memory, which takes as long as a row
  for_each_base<1, T>(groups, [&](const Index* base) KETGRAD_ALWAYS_INLINE {
    Row<T> y[count];
    matrix.template load_terms<first, count>(psi, *base, y);
    const Row<T> bra = matrix.load(lambda, *base, m);
    const Row<T> traded = trade_parts(bra);
    for (int u = 0; u < count; ++u) {
      re[u] += bra * y[u];
      im[u] += traded * y[u];
    }
  });
  for (int u = 0; u < count; ++u) {
    sums[2 * (m * rows * trades + first + u)] = re[u];
    sums[2 * (m * rows * trades + first + u) + 1] = im[u];
  }
}

// Adds such sums to the overlaps of the matrix, re and im of W[a, b] = sum conj(lambda_out[a]) psi_in[b], times a
// factor: of the second sum the part at imaginary parts of the ket less the one at real parts.
template <class T>
void add_overlaps_of(const TileMatrix& matrix, unsigned variant, const Row<T>* sums, double factor, double* overlaps) {
  const MatrixVariant local(matrix, variant);
  const int size = matrix.size();
  for_each_term(matrix, [&](int m, int flip) KETGRAD_ALWAYS_INLINE {
    for (int l = 0; l < batch_lanes<T>; l += 2) {
      const int state = local.state(m, l / 2);
      if (state < 0) continue;
      double* out = overlaps + 2 * (state * size + (state ^ flip));
      out[0] += factor * (static_cast<double>(sums[0][l]) + static_cast<double>(sums[0][l + 1]));
      out[1] += factor * (static_cast<double>(sums[1][l + 1]) - static_cast<double>(sums[1][l]));
    }
    sums += 2;
  });
}

// Trades the lanes of a group's rows so that they meet those of the first; twice changes nothing.
template <class T>
void trade_lanes_of_rows(T* state, const TileMatrix& matrix, const MatrixGroups& groups) {
  for (int m = 1; m < matrix.rows(); ++m) {
    if (matrix.row_flips[m] == 0) continue;
    for_each_base<1, T>(groups, [&](const Index* base) KETGRAD_ALWAYS_INLINE {
      T* const row = state + (*base ^ matrix.row_offsets[m] * batch_lanes<T>);
      store_row(row, trade_lanes(load_row(row), matrix.row_flips[m]));
    });
  }
}

// Calls f with the MatrixTerms of a matrix.
template <class T, class F>
void with_terms(const TileMatrix& matrix, const F& f) {
  const auto with_size = [&](auto rows, auto trades) {
    f(MatrixTerms<decltype(rows)::value, decltype(trades)::value, T>(matrix));
  };
  const auto with_trades = [&](auto rows) {
    constexpr int r = decltype(rows)::value;
    if constexpr (r > 1) {
      if (matrix.trades() == 1) return with_size(rows, std::integral_constant<int, 1>());
    }
    if constexpr (r < 8) {
      if (matrix.trades() == 2) return with_size(rows, std::integral_constant<int, 2>());
    }
    if constexpr (r < 4) {
      if (matrix.trades() == 4) return with_size(rows, std::integral_constant<int, 4>());
    }
    if constexpr (r == 1) with_size(rows, std::integral_constant<int, 8>());
  };
  switch (matrix.rows()) {
    case 1: return with_trades(std::integral_constant<int, 1>());
    case 2: return with_trades(std::integral_constant<int, 2>());
    case 4: return with_trades(std::integral_constant<int, 4>());
    default: return with_trades(std::integral_constant<int, 8>());
  }
}

// Calls f(MatrixTerms) while the lanes of the states' rows meet.
template <class T, class F>
void on_groups(const TileMatrix& matrix, const MatrixGroups& groups, std::initializer_list<T*> states, const F& f) {
  for (T* state : states) trade_lanes_of_rows(state, matrix, groups);
  with_terms<T>(matrix, f);
  for (T* state : states) trade_lanes_of_rows(state, matrix, groups);
}

template <class T>
void apply_matrix(T* psi, const TileMatrix& matrix, const Row<T>* factors, const MatrixGroups& groups) {
  on_groups(matrix, groups, {psi}, [&](const auto& terms) {
    constexpr int together = groups_together<std::decay_t<decltype(terms)>::terms>;
    if (groups.count >= together) return apply_to_groups<together>(psi, terms, factors, groups);
    apply_to_groups<1>(psi, terms, factors, groups);
  });
}

// Of a state and its tangent: the tangent becomes the matrix times it plus the derivative times the state.
template <class T>
void apply_with_derivative(T* psi, T* tangent, const TileMatrix& matrix, const Row<T>* factors,
                           const Row<T>* derivative, const MatrixGroups& groups) {
  apply_matrix(tangent, matrix, factors, groups);
  on_groups(matrix, groups, {psi, tangent},
            [&](const auto& terms) { add_to_groups(psi, tangent, terms, derivative, groups); });
  apply_matrix(psi, matrix, factors, groups);
}

// Writes the sums of the overlaps of bra and ket, as many rows as factors; the states are as before in the end.
template <class T>
void take_overlaps(T* psi, T* lambda, const TileMatrix& matrix, const MatrixGroups& groups, Row<T>* sums) {
  on_groups(matrix, groups, {psi, lambda}, [&]<int rows, int trades>(const MatrixTerms<rows, trades, T>& terms) {
    const auto of_row = [&]<int m>(std::integral_constant<int, m>) {
      sum_overlaps<m, 0>(psi, lambda, terms, groups, sums);
      if constexpr (rows * trades > 4) sum_overlaps<m, 4>(psi, lambda, terms, groups, sums);
    };
    [&]<int... m>(std::integer_sequence<int, m...>) {
      (of_row(std::integral_constant<int, m>()), ...);
    }(std::make_integer_sequence<int, rows>());
  });
}

}  // namespace
}  // namespace ketgrad
