// Matrices of 2, 4 or 8 states on the rows of a single state. A complex factor f acts on a row v of (re, im) pairs as
// f.re v + f.im (i v), and each lane of a row has the factors of its own local state.
#pragma once

#include <type_traits>

#include "cpu/kernels/loops-inl.h"
#include "cpu/kernels/simd-inl.h"
#include "plan/dense_rows.h"

namespace ketgrad {
namespace {

// What row m of a group becomes is the sum of its factors times the terms of the group: its rows, with lanes traded in
// each of the ways.
template <int rows, int trades, class T>
struct RowMatrix {
  static constexpr int terms = rows * trades;
  using V = Row<T>;
  Index offsets[rows];
  Mask lane_flips[trades];
  V re[rows][terms];
  V im[rows][terms];  // (-im, im), so that it acts on pairs whose parts are traded

  RowMatrix(const DenseRows& dense, const T* matrix) {
    for (int m = 0; m < rows; ++m) offsets[m] = dense.row_offsets[m] * batch_lanes<T>;
    for (int s = 0; s < trades; ++s) lane_flips[s] = dense.lane_flips[s];
    for (int m = 0; m < rows; ++m) {
      for (int u = 0; u < terms; ++u) {
        for (int l = 0; l < batch_lanes<T>; ++l) set_factor(dense, matrix, m, u, l);
      }
    }
  }

  KETGRAD_ALWAYS_INLINE void load(const T* state, Index base, V* x) const {
    for (int m = 0; m < rows; ++m) x[m] = load_row(state + (base ^ offsets[m]));
  }

  KETGRAD_ALWAYS_INLINE void store(T* state, Index base, const V* x) const {
    for (int m = 0; m < rows; ++m) store_row(state + (base ^ offsets[m]), x[m]);
  }

  // The terms of a group, and the same with the parts of each pair traded.
  KETGRAD_ALWAYS_INLINE void make_terms(const V* x, V* y, V* traded) const {
    for (int m = 0; m < rows; ++m) {
      for (int s = 0; s < trades; ++s) {
        y[m * trades + s] = s == 0 ? x[m] : trade_lanes(x[m], lane_flips[s]);
        traded[m * trades + s] = trade_parts(y[m * trades + s]);
      }
    }
  }

  KETGRAD_ALWAYS_INLINE void times(const V* y, const V* traded, V* out) const {
#pragma GCC unroll 8
    for (int m = 0; m < rows; ++m) {
      V sum = re[m][0] * y[0] + im[m][0] * traded[0];
#pragma GCC unroll 8
      for (int u = 1; u < terms; ++u) sum += re[m][u] * y[u] + im[m][u] * traded[u];
      out[m] = sum;
    }
  }

  // Which entry of the matrix a lane's factor is: its row, or -1, and what the column is from there, by XOR.
  static int state_of(const DenseRows& dense, int m, int l) { return dense.states[m * (batch_lanes<T> / 2) + l / 2]; }
  static int flip_of(const DenseRows& dense, int m, int u) {
    return dense.row_states[m ^ (u / trades)] ^ dense.lane_states[u % trades];
  }

 private:
  void set_factor(const DenseRows& dense, const T* matrix, int m, int u, int l) {
    const int state = state_of(dense, m, l);
    const int flip = flip_of(dense, m, u);
    if (state < 0) {
      re[m][u][l] = flip == 0 ? 1 : 0;
      im[m][u][l] = 0;
      return;
    }
    const T* entry = matrix + 2 * (state * terms + (state ^ flip));
    re[m][u][l] = entry[0];
    im[m][u][l] = (l & 1) == 0 ? -entry[1] : entry[1];
  }
};

template <int rows, int trades, class T>
void apply_to_rows(T* psi, const IndexMap& groups, const RowMatrix<rows, trades, T>& matrix, Index begin, Index end) {
  const RowMatrix<rows, trades, T> local = matrix;  // stores to the state cannot alias it
  using V = Row<T>;
  for_each_run(groups, begin, end, [&](Index first, Index length) {
    for (Index group = first; group < first + length; ++group) {
      const Index base = group * batch_lanes<T>;
      V x[rows];
      V y[rows * trades];
      V traded[rows * trades];
      local.load(psi, base, x);
      local.make_terms(x, y, traded);
      local.times(y, traded, x);
      local.store(psi, base, x);
    }
  });
}

// Takes a matrix back from ket and bra, `matrix` being its inverse. With W, adds W[a, b] += conj(lambda_out[a])
// psi_in[b]: per pair, conj(bra) ket has the real part bra . ket and the imaginary part bra . (ket with its parts
// traded), the second minus the first.
template <bool W, int rows, int trades, class T>
void undo_from_rows(T* psi, T* lambda, const DenseRows& dense, const RowMatrix<rows, trades, T>& matrix, Index begin,
                    Index end, T* overlaps) {
  using Matrix = RowMatrix<rows, trades, T>;
  const Matrix local = matrix;
  using V = Row<T>;
  constexpr int terms = rows * trades;
  V re[rows][terms] = {};
  V im[rows][terms] = {};
  for_each_run(dense.groups, begin, end, [&](Index first, Index length) {
    for (Index group = first; group < first + length; ++group) {
      const Index base = group * batch_lanes<T>;
      V ket[rows];
      V bra[rows];
      V y[terms];
      V traded[terms];
      local.load(psi, base, ket);
      local.make_terms(ket, y, traded);
      local.times(y, traded, ket);
      local.store(psi, base, ket);
      local.load(lambda, base, bra);
      if constexpr (W) {
        local.make_terms(ket, y, traded);
        for (int m = 0; m < rows; ++m) {
          for (int u = 0; u < terms; ++u) {
            re[m][u] += bra[m] * y[u];
            im[m][u] += bra[m] * traded[u];
          }
        }
      }
      local.make_terms(bra, y, traded);
      local.times(y, traded, bra);
      local.store(lambda, base, bra);
    }
  });
  if constexpr (W) {
    for (int m = 0; m < rows; ++m) {
      for (int u = 0; u < terms; ++u) {
        for (int l = 0; l < batch_lanes<T>; ++l) {
          const int state = Matrix::state_of(dense, m, l);
          if (state < 0) continue;
          T* out = overlaps + 2 * (state * terms + (state ^ Matrix::flip_of(dense, m, u)));
          out[0] += re[m][u][l];
          out[1] += (l & 1) == 0 ? im[m][u][l] : -im[m][u][l];
        }
      }
    }
  }
}

// Calls f with the RowMatrix of a matrix.
template <class T, class F>
void with_row_matrix(const DenseRows& dense, const T* matrix, const F& f) {
  const auto with_size = [&](auto rows, auto trades) {
    f(RowMatrix<decltype(rows)::value, decltype(trades)::value, T>(dense, matrix));
  };
  const auto with_trades = [&](auto rows) {
    constexpr int r = decltype(rows)::value;
    if constexpr (r > 1) {
      if (dense.trades() == 1) return with_size(rows, std::integral_constant<int, 1>());
    }
    if constexpr (r < 8) {
      if (dense.trades() == 2) return with_size(rows, std::integral_constant<int, 2>());
    }
    if constexpr (r < 4) {
      if (dense.trades() == 4) return with_size(rows, std::integral_constant<int, 4>());
    }
    if constexpr (r == 1) with_size(rows, std::integral_constant<int, 8>());
  };
  switch (dense.rows()) {
    case 1: return with_trades(std::integral_constant<int, 1>());
    case 2: return with_trades(std::integral_constant<int, 2>());
    case 4: return with_trades(std::integral_constant<int, 4>());
    default: return with_trades(std::integral_constant<int, 8>());
  }
}

}  // namespace
}  // namespace ketgrad
