// Phases on cosets: some rows of a tile, and some lanes of each.
#pragma once

#include <type_traits>

#include "cpu/kernels/loops-inl.h"
#include "cpu/kernels/phases-inl.h"
#include "cpu/kernels/simd-inl.h"

namespace ketgrad {
namespace {

// Amplitudes in a row have at most 3 bits: that many conditions on lanes are independent.
constexpr int most_lane_conditions = 3;

// A coset in one tile.
struct CosetRows {
  const IndexMap& rows;
  Index count = 0;
  Index shift = 0;  // added to each row by XOR
  // The pattern of a row says which of its lanes are in the coset: bit j is the parity of (row's number & row_mask[j]),
  // or the other one where bit j of `pattern` is set.
  int conditions = 0;
  unsigned pattern = 0;
  Mask row_mask[most_lane_conditions] = {};

  template <bool has_conditions>
  KETGRAD_ALWAYS_INLINE unsigned pattern_of(Index number) const {
    if constexpr (!has_conditions) return 0;
    unsigned found = pattern;
    for (int j = 0; j < conditions; ++j) found ^= unsigned{odd_parity(static_cast<Mask>(number) & row_mask[j])} << j;
    return found;
  }
};

// Per pattern, 1 at the lanes of the coset and 0 at the others.
template <class T>
struct CosetLanes {
  Row<T> in[1 << most_lane_conditions];
};

// exp(-i angle/2), of cosine a and sine b, at the lanes of the coset, by pattern.
template <class Cell>
struct CosetFactors {
  using T = typename Cell::Real;
  PhaseFactor<Row<T>> of[1 << most_lane_conditions];

  CosetFactors(const Row<T>& a, const Row<T>& b, const CosetLanes<T>& lanes, int conditions) {
    for (int p = 0; p < 1 << conditions; ++p) {
      const Row<T> one = Row<T>{} + 1;
      const Row<T> im = lanes.in[p] * -b;
      of[p].re = lanes.in[p] * a + (one - lanes.in[p]);
      of[p].im = Cell::is_pair ? first_negated(im) : im;
    }
  }
};

// Calls f(pattern, row) for each row of the coset.
template <bool has_conditions, class F>
KETGRAD_ALWAYS_INLINE inline void for_each_coset_row(const CosetRows& coset, const F& f) {
  const CosetRows c = coset;
  for_each_group<1>(c.rows, c.count, [&](Index number, const Index* row) KETGRAD_ALWAYS_INLINE {
    f(c.pattern_of<has_conditions>(number), *row ^ c.shift);
  });
}

template <class F>
inline void with_conditions(const CosetRows& coset, const F& f) {
  coset.conditions > 0 ? f(std::true_type()) : f(std::false_type());
}

template <class Cell>
void apply_coset_phase(typename Cell::Real* state, const CosetFactors<Cell>& factors, const CosetRows& coset) {
  with_conditions(coset, [&](auto has_conditions) {
    for_each_coset_row<decltype(has_conditions)::value>(coset, [&](unsigned pattern, Index row) KETGRAD_ALWAYS_INLINE {
      times_phase(Cell::load(state, row), factors.of[pattern]).store(state, row);
    });
  });
}

// Multiplies ket and bra by the factors, which are the inverse's. Returns Im(conj(bra) ket) summed over the coset, lane
// by lane, before pairs are added up.
template <class Cell>
Row<typename Cell::Real> undo_coset_phase(typename Cell::Real* ket, typename Cell::Real* bra,
                                          const CosetFactors<Cell>& factors,
                                          const CosetLanes<typename Cell::Real>& lanes, const CosetRows& coset) {
  using V = Row<typename Cell::Real>;
  V sum{};
  with_conditions(coset, [&](auto has_conditions) {
    for_each_coset_row<decltype(has_conditions)::value>(coset, [&](unsigned pattern, Index row) KETGRAD_ALWAYS_INLINE {
      const Cell x = Cell::load(ket, row);
      const Cell y = Cell::load(bra, row);
      sum += lanes.in[pattern] * x.times_i().inner(y);
      times_phase(x, factors.of[pattern]).store(ket, row);
      times_phase(y, factors.of[pattern]).store(bra, row);
    });
  });
  return V{} - sum;
}

// tangent -= i weight state
template <class Cell>
void generate_coset_phase(const typename Cell::Real* state, typename Cell::Real* tangent,
                          const Row<typename Cell::Real>& weight, const CosetLanes<typename Cell::Real>& lanes,
                          const CosetRows& coset) {
  with_conditions(coset, [&](auto has_conditions) {
    for_each_coset_row<decltype(has_conditions)::value>(coset, [&](unsigned pattern, Index row) KETGRAD_ALWAYS_INLINE {
      const Cell turned = Cell::load(state, row).times_i();
      Cell::load(tangent, row).plus(turned.times(-weight * lanes.in[pattern])).store(tangent, row);
    });
  });
}

}  // namespace
}  // namespace ketgrad
