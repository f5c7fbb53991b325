// The matrices of a pass.
#include <algorithm>
#include <bit>
#include <ranges>
#include <utility>
#include <vector>

#include "plan/tile_ops.h"

namespace ketgrad {

namespace {

// Groups per part, as a power of two: sums of a part are of as many.
constexpr int most_alike_bits = 7;

// Writes all sums of a part of some flips, by XOR.
template <class V, class Flips, class F, class P>
void write_sums(const Flips& flips, P F::* part, TileMatrix::PerState<V>& all) {
  all = {V(0)};
  for (const F& f : flips) {
    const std::size_t half = all.size();
    for (std::size_t i = 0; i < half; ++i) all.push_back(all[i] ^ static_cast<V>(f.*part));
  }
}

// Adds one sign to another, by XOR.
void add_sign(TileCoset::TileSign& to, const TileCoset::TileSign& sign) {
  to.mask ^= sign.mask;
  to.odd = to.odd != sign.odd;
}

bool is_constant(const TileCoset::TileSign& sign, const IndexMap& tiles) {
  return std::ranges::none_of(basis_of(tiles), [&](Mask v) { return odd_parity(sign.mask & v); });
}

// A row of a group's number, and in which variations it is odd.
struct VaryingRow {
  Mask row = 0;
  Mask odd = 0;
};

using VaryingRows = InplaceVector<VaryingRow, 64>;

// Changes rows into others of the same span, the first `num_active` among themselves, so that as few as possible are odd
// somewhere; those come last in either part. Returns how many active ones come before them.
int even_rows_first(VaryingRows& rows, std::size_t num_active) {
  VaryingRows odd;
  const auto reduce = [&](VaryingRow& r) {
    for (const VaryingRow& o : odd) {
      if (r.odd & (o.odd & -o.odd)) r = {r.row ^ o.row, r.odd ^ o.odd};
    }
    return r.odd == 0;
  };
  const auto settle = [&](auto first, auto last) {
    VaryingRows late;
    auto next = first;
    for (auto r = first; r != last; ++r) {
      if (reduce(*r)) {
        *next++ = *r;
        continue;
      }
      odd.push_back(*r);
      late.push_back(*r);
    }
    std::ranges::copy(late, next);
  };
  const auto middle = rows.begin() + num_active;
  settle(rows.begin(), middle);
  settle(middle, rows.end());
  const auto first = std::ranges::find_if(rows, [](const VaryingRow& r) { return r.odd != 0; });
  return static_cast<int>(std::min(first, middle) - rows.begin());
}

}  // namespace

int TileOpBuilder::MatrixCoordinates::state_of(Mask local) const {
  int state = 0;
  for (std::size_t bit = 0; bit < states.size(); ++bit) state |= int{odd_parity(local & states[bit])} << bit;
  return state;
}

TileOpBuilder::MatrixCoordinates TileOpBuilder::coordinates_of(const GateOp& gate_op) const {
  MatrixCoordinates found;
  for (int bit = 0; bit < gate_op.state_bits(); ++bit) {
    found.states.push_back(tile_.parity(gate_op.states[bit].mask));
    const Mask local = tile_.flip(gate_op.flip(bit));
    MatrixFlip flip{rows_of(local), lanes_of(local), 1 << bit};
    for (const MatrixFlip& o : found.row_flips) {
      if (flip.row & (o.row & -o.row)) flip = {flip.row ^ o.row, flip.lane ^ o.lane, flip.state ^ o.state};
    }
    (flip.row != 0 ? found.row_flips : found.lane_flips).push_back(flip);
  }
  return found;
}

// One row of each group: the one at which the bits of the local state that rows number are even.
TileOpBuilder::Rows TileOpBuilder::first_rows(const MatrixCoordinates& matrix) const {
  const Rows rows = visited_rows();
  Span taken;
  for (const MatrixFlip& f : matrix.row_flips) taken.add(f.row);
  const auto first_of = [&](Mask row) {
    for (const MatrixFlip& f : matrix.row_flips | std::views::reverse) {
      if (f.is_pure() && (matrix.state_of(row << lane_bits()) & f.highest()) != 0) row ^= f.row;
    }
    return row;
  };
  Rows found{first_of(rows.origin), {}, 0};
  const auto take = [&](Mask row) {
    if (taken.add(row)) found.basis.push_back(first_of(row));
  };
  for (const Mask v : rows.basis) take(v);
  found.num_visited = static_cast<int>(found.basis.size());
  for (int b = 0; b < row_bits(); ++b) take(unit(b));
  return found;
}

TileMatrix TileOpBuilder::matrix(int e) const {
  const MatrixCoordinates coordinates = coordinates_of(elements_.matrix(e));
  TileMatrix found;
  found.gate_op = elements_.index(e);
  found.states.reserve(std::size_t{1} << lane_bits());
  found.groups = coset(elements_.matrix(e).coset, first_rows(coordinates));
  write_sums(coordinates.row_flips, &MatrixFlip::row, found.row_offsets);
  write_sums(coordinates.row_flips, &MatrixFlip::lane, found.row_flips);
  write_sums(coordinates.row_flips, &MatrixFlip::state, found.row_states);
  write_sums(coordinates.lane_flips, &MatrixFlip::lane, found.lane_flips);
  write_sums(coordinates.lane_flips, &MatrixFlip::state, found.lane_states);
  for (Mask lane = 0; lane < unit(lane_bits()); ++lane)
    found.states.push_back(static_cast<std::int8_t>(coordinates.state_of(lane)));
  add_variations(found, coordinates);
  drop_constants(found);
  sort_groups(found);
  return found;
}

// One for each bit of the local state, and one for each condition on lanes.
void TileOpBuilder::add_variations(TileMatrix& matrix, const MatrixCoordinates& coordinates) const {
  const GateOp& gate_op = plan_.gate_ops[matrix.gate_op];
  TileCoset& groups = matrix.groups;
  const Vectors basis = basis_of(groups.rows);
  for (int bit = 0; bit < gate_op.state_bits(); ++bit) {
    const Mask parity = rows_of(coordinates.states[bit]);
    const auto is_odd = [&](auto row) { return odd_parity(static_cast<Mask>(row) & parity); };
    const Half& half = gate_op.states[bit];
    TileMatrix::Variation v{{half.mask, half.even != is_odd(groups.rows[0])}, 0, 1 << bit, 0};
    for (std::size_t j = 0; j < basis.size(); ++j) v.row_mask |= Mask{is_odd(basis[j])} << j;
    for (const TileCoset::RowShift& s : groups.shifts) {
      if (is_odd(s.row)) add_sign(v.sign, s.sign);
    }
    matrix.variations.push_back(v);
  }
  shift_first_rows(matrix, coordinates);
  for (const TileCoset::Lanes& l : groups.lanes) matrix.variations.push_back({l.sign, l.row_mask, 0, l.mask});
  groups.lanes.clear();
}

// Another first row of all groups makes up for what a tile's base adds to the bits that rows number.
void TileOpBuilder::shift_first_rows(TileMatrix& matrix, const MatrixCoordinates& coordinates) {
  for (const MatrixFlip& f : coordinates.row_flips | std::views::reverse) {
    if (!f.is_pure()) continue;
    const TileCoset::TileSign sign = matrix.variations[std::countr_zero(static_cast<unsigned>(f.highest()))].sign;
    matrix.groups.shifts.push_back({sign, static_cast<Index>(f.row), false});
    for (TileMatrix::Variation& v : matrix.variations) {
      if ((f.state & v.state) != 0) add_sign(v.sign, sign);
    }
  }
}

// What is the same in all tiles and groups is part of the lanes' states.
void TileOpBuilder::drop_constants(TileMatrix& matrix) const {
  std::erase_if(matrix.variations, [&](const TileMatrix::Variation& v) {
    if (v.row_mask != 0 || !is_constant(v.sign, pass_.tiles)) return false;
    const bool is_odd = v.sign.at(static_cast<Mask>(pass_.tiles[0]));
    for (std::size_t lane = 0; lane < matrix.states.size(); ++lane) {
      std::int8_t& state = matrix.states[lane];
      if (v.lane_mask != 0 && odd_parity(lane & v.lane_mask) != is_odd) state = -1;
      if (state >= 0 && is_odd) state = static_cast<std::int8_t>(state ^ v.state);
    }
    return true;
  });
  std::erase_if(matrix.groups.shifts, [&](const TileCoset::RowShift& s) {
    return is_constant(s.sign, pass_.tiles) && !s.sign.at(static_cast<Mask>(pass_.tiles[0]));
  });
}

// Groups that do not differ in any variation become neighbours.
void TileOpBuilder::sort_groups(TileMatrix& matrix) {
  TileCoset& groups = matrix.groups;
  VaryingRows rows;
  for (const Mask row : basis_of(groups.rows)) {
    VaryingRow r{row};
    for (std::size_t j = 0; j < matrix.variations.size(); ++j)
      r.odd |= ((matrix.variations[j].row_mask >> rows.size()) & 1) << j;
    rows.push_back(r);
  }
  const int num_active = std::countr_zero(static_cast<Mask>(groups.num_active));
  matrix.alike = Index{1} << std::min(even_rows_first(rows, num_active), most_alike_bits);
  Vectors basis;
  for (TileMatrix::Variation& v : matrix.variations) v.row_mask = 0;
  for (const VaryingRow& r : rows) {
    for (std::size_t j = 0; j < matrix.variations.size(); ++j)
      matrix.variations[j].row_mask |= ((r.odd >> j) & 1) << basis.size();
    basis.push_back(r.row);
  }
  groups.rows = IndexMap(static_cast<Mask>(groups.rows[0]), basis);
}

}  // namespace ketgrad
