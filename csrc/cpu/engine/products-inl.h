// Products of large matrices with the groups of a single state: out[a][b] += sum over groups of left_a conj(right_b),
// as density matrices and the derivatives by matrices are.
//
// By tiles of entries, each over all groups: of so many groups the amplitudes of a tile's rows and columns are packed,
// which the second-level cache holds; inside, the sums of four rows and a vector of columns stay in registers.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/engine/team-inl.h"
#include "cpu/kernels/observables-inl.h"
#include "cpu/kernels/simd-inl.h"
#include "runtime/buffer.h"

namespace ketgrad {
namespace {

constexpr Index product_side = 128;
// Below it a tile's sums fit the first-level cache as they are.
constexpr Index smallest_product = product_side;

template <class T>
class PackedGroups {
  using V = Row<T>;
  static constexpr int lanes = batch_lanes<T>;

 public:
  PackedGroups() : rows_(2 * product_side * summed_together), columns_(rows_.size() / lanes) {}

  // Amplitudes of groups [begin, begin + count): rows from first_row on, columns from first_column on.
  template <class Offsets>
  void load(const T* left, const T* right, const IndexMap& groups, const Offsets& offsets, Index first_row,
            Index first_column, Index begin, Index count) {
    count_ = count;
    for (Index k = 0; k < count; ++k) {
      const Index base = groups[begin + k];
      T* row = rows_.data() + 2 * product_side * k;
      for (Index a = 0; a < product_side; ++a) {
        const T* amplitude = left + 2 * (base ^ offsets[first_row + a]);
        row[2 * a] = amplitude[0];
        row[2 * a + 1] = amplitude[1];
      }
      V* column = columns_.data() + column_vectors * k;
      for (Index b = 0; b < product_side; ++b) {
        const T* amplitude = right + 2 * (base ^ offsets[first_column + b]);
        set_lane(column[2 * (b / lanes)], b % lanes, amplitude[0]);
        set_lane(column[2 * (b / lanes) + 1], b % lanes, amplitude[1]);
      }
    }
  }

  // The sums of rows [a, a + 4) and of the vector of columns.
  struct Sums {
    V re[4] = {};
    V im[4] = {};
  };

  Sums sum(Index a, Index vector) const {
    Sums s;
    const T* row = rows_.data() + 2 * a;
    const V* column = columns_.data() + 2 * vector;
    for (Index k = 0; k < count_; ++k, row += 2 * product_side, column += column_vectors) {
      for (int i = 0; i < 4; ++i) {
        s.re[i] += row[2 * i] * column[0] + row[2 * i + 1] * column[1];
        s.im[i] += row[2 * i + 1] * column[0] - row[2 * i] * column[1];
      }
    }
    return s;
  }

 private:
  static constexpr Index column_vectors = 2 * product_side / lanes;

  Index count_ = 0;
  LaneVector<T> rows_;     // [group][row][part]
  LaneVector<V> columns_;  // [group][vector][part]
};

// The imaginary parts times `sign`; the size is a multiple of product_side.
template <class T, class Offsets>
void add_matrix_product(const Team& team, const T* left, const T* right, const IndexMap& groups, const Offsets& offsets,
                        Index size, double sign, double* out) {
  constexpr int lanes = batch_lanes<T>;
  const Index side = size / product_side;
  team.for_range(side * side, product_side * product_side * groups.size(), [&](Index begin, Index end) {
    PackedGroups<T> packed;
    for (Index tile = begin; tile < end; ++tile) {
      const Index first_row = tile / side * product_side;
      const Index first_column = tile % side * product_side;
      for (Index r = 0; r < groups.size(); r += summed_together) {
        packed.load(left, right, groups, offsets, first_row, first_column, r,
                    std::min(summed_together, groups.size() - r));
        for (Index a = 0; a < product_side; a += 4) {
          for (Index v = 0; v < product_side / lanes; ++v) {
            const auto s = packed.sum(a, v);
            for (int i = 0; i < 4; ++i) {
              double* entry = out + 2 * ((first_row + a + i) * size + first_column + v * lanes);
              for (int l = 0; l < lanes; ++l) {
                entry[2 * l] += static_cast<double>(get_lane(s.re[i], l));
                entry[2 * l + 1] += sign * static_cast<double>(get_lane(s.im[i], l));
              }
            }
          }
        }
      }
    }
  });
}

// The product rule, with three products of plain matrices.
template <class T, class Offsets>
void add_dual_matrix_product(const Team& team, const DualState<T>& left, const DualState<T>& right,
                             const IndexMap& groups, const Offsets& offsets, Index size, double sign, Dual* out) {
  std::vector<double> value(2 * size * size, 0.0);
  std::vector<double> tangent(2 * size * size, 0.0);
  add_matrix_product(team, left.value, right.value, groups, offsets, size, sign, value.data());
  add_matrix_product(team, left.tangent, right.value, groups, offsets, size, sign, tangent.data());
  add_matrix_product(team, left.value, right.tangent, groups, offsets, size, sign, tangent.data());
  for (std::size_t e = 0; e < value.size(); ++e) out[e] += Dual(value[e], tangent[e]);
}

// out[a][b][lane] += sum over the groups of left_a conj(right_b), its imaginary part times `sign`.
template <class State, class Offsets>
void add_products(const Team& team, State left, State right, const IndexMap& groups, const Offsets& offsets, Index size,
                  double sign, Total<Number<State>>* out) {
  using N = Number<State>;
  if constexpr (lane_width<N> == 1) {
    if (size >= smallest_product) {
      if constexpr (is_dual<N>) {
        add_dual_matrix_product(team, left, right, groups, offsets, size, sign, out);
      } else {
        add_matrix_product(team, left, right, groups, offsets, size, sign, out);
      }
      return;
    }
  }
  team.template reduce<N>(groups.size(), 2 * size * size, out, [&](Index begin, Index end, N* g) {
    add_group_products(left, right, groups, offsets, size, static_cast<Scalar<N>>(sign), begin, end, g);
  });
}

}  // namespace
}  // namespace ketgrad
