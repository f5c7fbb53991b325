// Rotations on rows.
//
// A row is one vector of the machine: neighbouring amplitudes of a single state, as (re, im) pairs, or one part of one
// amplitude of as many samples as there are lanes. A rotation is a real matrix, so it does not care which: on the rows
// x0, x1 of a pair it is x0' = a x0 - b x1, x1' = a x1 + b x0 with a = cos, b = +-sin of half the angle. `unnormalised`
// leaves the cosine out (a = 1, b = +-tan): half the arithmetic, and as accurate, since the factor that is missing is
// one number for the whole state, which phases apply later.
#pragma once

#include <type_traits>
#include <utility>

#include "cpu/kernels/loops-inl.h"
#include "cpu/kernels/simd-inl.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// --- rotations of whole rows -----------------------------------------------------------------------------------------

// The rotations of a block in one tile: cosine and sine of half of each angle.
template <class T>
struct Angles {
  bool unnormalised = false;
  Row<T> a[RotationBlock::most];
  Row<T> b[RotationBlock::most];
};

// Offsets of a group's rows from its first one, in numbers, to be added by XOR.
template <int k, class T>
struct GroupOffsets {
  Index at[1 << k];

  explicit GroupOffsets(const RotationBlock& block) {
    for (int m = 0; m < 1 << k; ++m) {
      at[m] = 0;
      for (int j = 0; j < k; ++j) {
        if ((m >> j) & 1) at[m] ^= block.row_flip[j] * batch_lanes<T>;
      }
    }
  }
};

// --- blocks: what is done with the rows of a group -------------------------------------------------------------------
//
// Three kinds with one interface. All numbers are copied: stores to the state could otherwise alias them.

// A block that trades rows only. Of the rows of a group, the one is first at which all signs are even.
template <int k, class T>
struct RowBlock {
  static constexpr int rotations = k;
  static constexpr int rows = 1 << k;
  struct Signs {};
  GroupOffsets<k, T> offsets;
  Row<T> a[k];
  Row<T> b[k];

  RowBlock(const RotationBlock& block, const Angles<T>& angles) : offsets(block) {
    for (int j = 0; j < k; ++j) {
      a[j] = angles.a[j];
      b[j] = angles.b[j];
    }
  }

  KETGRAD_ALWAYS_INLINE Signs signs(Index) const { return {}; }

  template <bool unnormalised>
  KETGRAD_ALWAYS_INLINE void rotate(Row<T>* x, Signs) const {
    for_each_pair([&](int j, int m, int partner) KETGRAD_ALWAYS_INLINE {
      const Row<T> x0 = x[m];
      const Row<T> x1 = x[partner];
      x[m] = (unnormalised ? x0 : a[j] * x0) - b[j] * x1;
      x[partner] = (unnormalised ? x1 : a[j] * x1) + b[j] * x0;
    });
  }

  // sum[j] += Re<y|-i P_j|x>, signs left out.
  KETGRAD_ALWAYS_INLINE void add_overlaps(const Row<T>* x, const Row<T>* y, Signs, Row<T>* sum) const {
    for_each_pair([&](int j, int m, int partner) KETGRAD_ALWAYS_INLINE {
      sum[j] += y[partner] * x[m];
      sum[j] -= y[m] * x[partner];
    });
  }

  // d += sum_j b_j (-i P_j) x
  KETGRAD_ALWAYS_INLINE void generate(const Row<T>* x, Row<T>* d, Signs) const {
    for_each_pair([&](int j, int m, int partner) KETGRAD_ALWAYS_INLINE {
      d[m] -= b[j] * x[partner];
      d[partner] += b[j] * x[m];
    });
  }

 private:
  template <class F>
  static KETGRAD_ALWAYS_INLINE inline void for_each_pair(const F& f) {
#pragma GCC unroll 3
    for (int j = 0; j < k; ++j) {
#pragma GCC unroll 8
      for (int m = 0; m < rows; ++m) {
        if (((m >> j) & 1) == 0) f(j, m, m | 1 << j);
      }
    }
  }
};

// A block that trades lanes. A rotation's partner of row m of a group is row m ^ 2^j, or the row itself where no rows
// are traded; its lanes are traded in either case. The sign of b is a row's and a lane's together, so that both may be
// odd.
template <int k, bool in_rows, class T>
struct LaneBlock {
  static constexpr int rotations = k;
  static constexpr int rows = in_rows ? 1 : 1 << k;
  // Of a group: bit m, per rotation, is the sign of row m.
  struct Signs {
    unsigned of[k];
  };
  GroupOffsets<in_rows ? 0 : k, T> offsets;
  Mask lane_flip[k];
  Mask row_sign[k];
  unsigned odd[k];  // bit m: the row sign of row m, where that of the group's first row is even
  Row<T> a[k];
  Row<T> b[k][2];  // by the row's sign
  const Row<T> one[2] = {Row<T>{} - T(1), Row<T>{} + T(1)};

  LaneBlock(const RotationBlock& block, const Angles<T>& angles) : offsets(block) {
    for (int j = 0; j < k; ++j) {
      lane_flip[j] = block.lane_flip[j];
      row_sign[j] = block.row_sign[j];
      odd[j] = 0;
      for (int m = 0; m < rows; ++m) {
        const auto row = static_cast<Mask>(offsets.at[m] / batch_lanes<T>);
        odd[j] |= unsigned{odd_parity(row & row_sign[j])} << m;
      }
      a[j] = angles.a[j];
      b[j][0] = -angles.b[j];
      b[j][1] = angles.b[j];
    }
  }

  KETGRAD_ALWAYS_INLINE Signs signs(Index group) const {
    Signs found;
    for (int j = 0; j < k; ++j) found.of[j] = odd_parity(static_cast<Mask>(group) & row_sign[j]) ? ~odd[j] : odd[j];
    return found;
  }

  template <bool unnormalised>
  KETGRAD_ALWAYS_INLINE void rotate(Row<T>* x, const Signs& signs) const {
    for (int j = 0; j < k; ++j) {
      Row<T> traded[rows];
      for (int m = 0; m < rows; ++m) traded[m] = trade_lanes(x[m], lane_flip[j]);
      for (int m = 0; m < rows; ++m)
        x[m] = (unnormalised ? x[m] : a[j] * x[m]) + b[j][odd_at(signs, m, j)] * traded[partner(m, j)];
    }
  }

  // As of RowBlock: (-i P x) at a row is -+ the partner.
  KETGRAD_ALWAYS_INLINE void add_overlaps(const Row<T>* x, const Row<T>* y, const Signs& signs, Row<T>* sum) const {
    for (int j = 0; j < k; ++j) {
      for (int m = 0; m < rows; ++m)
        sum[j] += one[odd_at(signs, m, j)] * y[m] * trade_lanes(x[partner(m, j)], lane_flip[j]);
    }
  }

  KETGRAD_ALWAYS_INLINE void generate(const Row<T>* x, Row<T>* d, const Signs& signs) const {
    for (int j = 0; j < k; ++j) {
      for (int m = 0; m < rows; ++m) d[m] += b[j][odd_at(signs, m, j)] * trade_lanes(x[partner(m, j)], lane_flip[j]);
    }
  }

 private:
  static constexpr int partner(int m, int j) { return in_rows ? m : m ^ 1 << j; }
  static unsigned odd_at(const Signs& signs, int m, int j) { return (signs.of[j] >> m) & 1; }
};

// One rotation that trades rows and lanes, of half of the amplitudes, where the row and its partner have other lanes in
// that half. Lanes are traded where the partner is read and written, so that a and b are those of the first row's lanes
// for both.
template <class T>
struct CutBlock {
  static constexpr int rotations = 1;
  static constexpr int rows = 2;
  using Signs = unsigned;  // whether the first row's is odd
  GroupOffsets<1, T> offsets;
  Mask lane_flip;
  Mask row_sign;
  Row<T> a;
  Row<T> b[2];
  const Row<T> one[2] = {Row<T>{} - T(1), Row<T>{} + T(1)};

  CutBlock(const RotationBlock& block, const Angles<T>& angles)
      : offsets(block), lane_flip(block.lane_flip[0]), row_sign(block.row_sign[0]), a(angles.a[0]) {
    b[0] = -angles.b[0];
    b[1] = angles.b[0];
  }

  KETGRAD_ALWAYS_INLINE Signs signs(Index group) const { return odd_parity(static_cast<Mask>(group) & row_sign); }

  template <bool>
  KETGRAD_ALWAYS_INLINE void rotate(Row<T>* x, Signs odd) const {
    const Row<T> x0 = x[0];
    const Row<T> x1 = trade_lanes(x[1], lane_flip);
    x[0] = a * x0 + b[odd] * x1;
    x[1] = trade_lanes(a * x1 - b[odd] * x0, lane_flip);
  }

  KETGRAD_ALWAYS_INLINE void add_overlaps(const Row<T>* x, const Row<T>* y, Signs odd, Row<T>* sum) const {
    const Row<T> ahead = y[0] * trade_lanes(x[1], lane_flip);
    const Row<T> back = trade_lanes(y[1], lane_flip) * x[0];
    sum[0] += one[odd] * (ahead - back);
  }

  KETGRAD_ALWAYS_INLINE void generate(const Row<T>* x, Row<T>* d, Signs odd) const {
    d[0] += b[odd] * trade_lanes(x[1], lane_flip);
    d[1] -= trade_lanes(b[odd] * x[0], lane_flip);
  }
};

template <class Block, class T>
KETGRAD_ALWAYS_INLINE inline void load_rows(const Block& local, const T* state, Index base, Row<T>* x) {
  for (int m = 0; m < Block::rows; ++m) x[m] = load_row(state + (base ^ local.offsets.at[m]));
}

template <class Block, class T>
KETGRAD_ALWAYS_INLINE inline void store_rows(const Block& local, T* state, Index base, const Row<T>* x) {
  for (int m = 0; m < Block::rows; ++m) store_row(state + (base ^ local.offsets.at[m]), x[m]);
}

// --- over groups of a block ------------------------------------------------------------------------------------------

// The first of some groups.
struct Groups {
  const IndexMap& all;
  Index count;
};

// Calls f(the kind of block, whether its rotations are unnormalised), both as types.
template <class T, class F>
inline void with_kind(const RotationBlock& block, bool unnormalised, const F& f) {
  const auto with_speed = [&](auto kind) { unnormalised ? f(kind, std::true_type()) : f(kind, std::false_type()); };
  if (block.cuts_groups()) return f(std::type_identity<CutBlock<T>>(), std::false_type());
  const auto with_size = [&](auto size) {
    constexpr int k = decltype(size)::value;
    if (!block.trades_lanes()) return with_speed(std::type_identity<RowBlock<k, T>>());
    if (block.stays_in_rows()) return with_speed(std::type_identity<LaneBlock<k, true, T>>());
    with_speed(std::type_identity<LaneBlock<k, false, T>>());
  };
  switch (block.rotations.size()) {
    case 1: return with_size(std::integral_constant<int, 1>());
    case 2: return with_size(std::integral_constant<int, 2>());
    default: return with_size(std::integral_constant<int, 3>());
  }
}

template <class Block, bool unnormalised, class T>
void rotate_groups(T* state, const RotationBlock& block, const Angles<T>& angles, const Groups& groups) {
  const Block local(block, angles);
  for_each_index(groups.all, groups.count, [&](Index group) KETGRAD_ALWAYS_INLINE {
    const Index base = group * batch_lanes<T>;
    const auto signs = local.signs(group);
    Row<T> x[Block::rows];
    load_rows(local, state, base, x);
    local.template rotate<unnormalised>(x, signs);
    store_rows(local, state, base, x);
  });
}

// Takes a block back from ket and bra, the angles being the inverse's. With `requested`, adds per rotation Re<bra|-i
// P|ket>, signs left out; the rotations of a block commute, so all overlaps are taken before any is undone.
template <class Block, bool unnormalised, bool requested, class T>
void undo_groups(T* ket, T* bra, const RotationBlock& block, const Angles<T>& angles, const Groups& groups,
                 Row<T>* sums) {
  const Block local(block, angles);
  Row<T> sum[Block::rotations] = {};
  for_each_index(groups.all, groups.count, [&](Index group) KETGRAD_ALWAYS_INLINE {
    const Index base = group * batch_lanes<T>;
    const auto signs = local.signs(group);
    Row<T> x[Block::rows];
    Row<T> y[Block::rows];
    load_rows(local, ket, base, x);
    load_rows(local, bra, base, y);
    if constexpr (requested) local.add_overlaps(x, y, signs, sum);
    local.template rotate<unnormalised>(x, signs);
    store_rows(local, ket, base, x);
    local.template rotate<unnormalised>(y, signs);
    store_rows(local, bra, base, y);
  });
  if constexpr (requested) {
    for (int j = 0; j < Block::rotations; ++j) sums[j] += sum[j];
  }
}

template <class T>
void apply_rotations(T* state, const RotationBlock& block, const Angles<T>& angles, const Groups& groups) {
  with_kind<T>(block, angles.unnormalised, [&](auto kind, auto unnormalised) {
    rotate_groups<typename decltype(kind)::type, decltype(unnormalised)::value>(state, block, angles, groups);
  });
}

template <bool requested, class T>
void undo_rotations(T* ket, T* bra, const RotationBlock& block, const Angles<T>& angles, const Groups& groups,
                    Row<T>* sums) {
  with_kind<T>(block, angles.unnormalised, [&](auto kind, auto unnormalised) {
    undo_groups<typename decltype(kind)::type, decltype(unnormalised)::value, requested>(ket, bra, block, angles,
                                                                                         groups, sums);
  });
}

}  // namespace
}  // namespace ketgrad
