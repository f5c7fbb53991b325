#include "plan/tile_ops.h"

#include <algorithm>
#include <bit>
#include <map>
#include <utility>

#include "math/commutant.h"
#include "plan/waiting.h"

namespace ketgrad {

namespace {

// Changes a basis into one of the same span on whose vectors few parities are odd: as many parities as are
// independent are odd on one vector each.
void tell_apart(Vectors& basis, const std::vector<Mask>& parities) {
  std::size_t told = 0;
  for (const Mask p : parities) {
    const auto odd = [&](Mask v) { return odd_parity(v & p); };
    const auto found = std::find_if(basis.begin() + told, basis.end(), odd);
    if (found == basis.end()) continue;
    std::swap(basis[told], *found);
    for (std::size_t k = 0; k < basis.size(); ++k) basis[k] ^= k != told && odd(basis[k]) ? basis[told] : 0;
    ++told;
  }
}

void complete(Vectors& basis, int bits) {
  Span taken(basis);
  for (int b = 0; b < bits; ++b) {
    if (taken.add(unit(b))) basis.push_back(unit(b));
  }
}

// Moves the groups at which the half's sign is odd, if there are any, from a block's groups (origin + span of the
// basis) to its odd groups.
void take_odd_groups(RotationBlock& block, Mask sign, Mask& origin, Vectors& basis) {
  const auto odd = [&](Mask v) { return odd_parity(v & sign); };
  const auto first = std::find_if(basis.begin(), basis.end(), odd);
  if (first == basis.end()) return;
  const Mask shift = *first;
  const bool splits_active = Index{1} << (first - basis.begin()) < block.num_active;
  basis.erase(first);
  for (Mask& v : basis) v ^= odd(v) ? shift : 0;
  Index num_active[] = {block.num_active, 0};  // of the groups at the origin, and of the others
  if (splits_active) num_active[0] = num_active[1] = block.num_active / 2;
  const bool is_odd = odd(origin);
  if (is_odd) origin ^= shift;
  block.num_active = num_active[is_odd ? 1 : 0];
  block.half->num_odd_active = num_active[is_odd ? 0 : 1];
  block.half->odd_groups = IndexMap(origin ^ shift, basis);
}

}  // namespace

TileOpBuilder::TileOpBuilder(const Plan& plan, const Elements& elements, const TilePass& pass, const TileGeometry& tile,
                             const Support& support, const Span& visited, bool is_local)
    : plan_(plan),
      elements_(elements),
      pass_(pass),
      tile_(tile),
      support_(support),
      visited_(visited),
      is_local_(is_local),
      num_bits_(plan.program->num_wires) {}

int TileOpBuilder::lane_bits() const { return std::min(plan_.layout.lane_bits, num_bits_); }

// --- phases ----------------------------------------------------------------------------------------------------------

Phases TileOpBuilder::phases(const std::vector<int>& round) const {
  Phases found;
  std::vector<Mask> parities;
  std::map<Mask, std::size_t> position;
  for (const int t : round) {
    const Mask z = pauli_word(t).z;
    const auto [at, is_new] = position.try_emplace(z, found.strings.size());
    if (is_new) {
      const Mask local = tile_.parity(z);
      parities.push_back(rows_of(local));
      found.strings.push_back({0, lanes_of(local), z, false, {}});
    }
    found.strings[at->second].rotations.push_back(elements_.index(t));
  }
  Rows rows = visited_rows();
  Vectors& basis = rows.basis;
  // Larger states are visited in the order of memory, which hardware prefetches.
  if (pass_.tiles.size() == 1 && plan_.layout.part_bits == 0) tell_apart(basis, parities);
  complete(basis, row_bits());
  found.num_active = Index{1} << rows.num_visited;
  found.rows = IndexMap(rows.origin, basis);
  for (std::size_t m = 0; m < parities.size(); ++m) {
    DiagonalRotation& s = found.strings[m];
    s.negative = odd_parity(rows.origin & parities[m]);
    for (std::size_t i = 0; i < basis.size(); ++i) s.row_mask |= Mask{odd_parity(basis[i] & parities[m])} << i;
  }
  return found;
}

TileOpBuilder::Rows TileOpBuilder::visited_rows() const {
  Rows rows;
  if (!is_local_) {
    complete(rows.basis, row_bits());
    rows.num_visited = row_bits();
    return rows;
  }
  rows.origin = rows_of(tile_.flip(support_.origin ^ static_cast<Mask>(pass_.tiles[0])));
  Span span;
  for (const Mask v : visited_.basis()) span.add(rows_of(tile_.flip(v)));
  rows.basis = span.basis();
  rows.num_visited = span.size();
  std::ranges::sort(rows.basis);
  return rows;
}

// --- cosets ----------------------------------------------------------------------------------------------------------

namespace {

// An equation: the parity of (row's number and lane & local) is 1 where the sign holds.
struct Equation {
  TileCoset::TileSign sign;
  Mask local = 0;  // lanes, then bits of the number

  Mask pivot() const { return local & -local; }

  void add(const Equation& o) {
    local ^= o.local;
    sign.mask ^= o.sign.mask;
    sign.odd = sign.odd != o.sign.odd;
  }
};

// Makes the lowest bit of each equation its pivot, which no other has; those without any bit left come last.
void eliminate(std::vector<Equation>& equations) {
  for (Equation& e : equations) {
    for (const Equation& o : equations) {
      if (&o != &e && (e.local & o.pivot()) != 0 && &o < &e) e.add(o);
    }
    for (Equation& o : equations) {
      if (&o < &e && (o.local & e.pivot()) != 0) o.add(e);
    }
  }
}

}  // namespace

TileCoset TileOpBuilder::coset(const std::vector<Half>& halves) const {
  Rows rows = visited_rows();
  complete(rows.basis, row_bits());
  return coset(halves, rows);
}

// Of some of a tile's rows.
TileCoset TileOpBuilder::coset(const std::vector<Half>& halves, const Rows& rows) const {
  const Vectors& basis = rows.basis;
  const auto num_bits = static_cast<int>(basis.size());
  std::vector<Equation> equations;
  for (const Half& h : halves) {
    const Mask local = tile_.parity(h.mask);
    const Mask row_mask = rows_of(local);
    Equation e{{h.mask, h.even == odd_parity(rows.origin & row_mask)}, lanes_of(local)};
    for (int i = 0; i < num_bits; ++i) e.local |= Mask{odd_parity(basis[i] & row_mask)} << (i + lane_bits());
    equations.push_back(e);
  }
  eliminate(equations);
  TileCoset found;
  // What each bit of a row's number adds, to the number that `basis` counts, where it is no pivot.
  Vectors numbers;
  for (int bit = 0; bit < num_bits; ++bit) numbers.push_back(unit(bit));
  Mask pivots = 0;
  for (const Equation& e : equations) {
    const int bit = e.local == 0 ? -1 : std::countr_zero(e.local) - lane_bits();
    if (e.local == 0) found.tiles.push_back(e.sign);
    if (e.local == 0 || bit < 0) continue;
    found.shifts.push_back({e.sign, static_cast<Index>(basis[bit]), bit >= rows.num_visited});
    pivots |= unit(bit);
    for (int other = bit + 1; other < num_bits; ++other) {
      if ((rows_of(e.local) >> other) & 1) numbers[other] |= unit(bit);
    }
  }
  Vectors free;
  int num_active_free = 0;
  for (int bit = 0; bit < num_bits; ++bit) {
    if ((pivots >> bit) & 1) continue;
    free.push_back(numbers[bit]);
    num_active_free += bit < rows.num_visited ? 1 : 0;
  }
  for (const Equation& e : equations) {
    if (lanes_of(e.local) == 0) continue;
    Mask row_mask = 0;
    for (std::size_t j = 0; j < free.size(); ++j) row_mask |= Mask{odd_parity(free[j] & rows_of(e.local))} << j;
    found.lanes.push_back({e.sign, lanes_of(e.local), row_mask});
  }
  for (Mask& v : free) {
    Mask row = 0;
    for (int i = 0; i < num_bits; ++i) row ^= (v >> i) & 1 ? basis[i] : 0;
    v = row;
  }
  found.num_active = Index{1} << num_active_free;
  found.rows = IndexMap(rows.origin, free);
  return found;
}

// --- blocks ----------------------------------------------------------------------------------------------------------

TileOpBuilder::Flip TileOpBuilder::flip(int rotation) const {
  const Mask local = tile_.flip(pauli_word(rotation).x);
  return {rows_of(local), lanes_of(local)};
}

// Whether a rotation may join a block: neither changes the signs of the other, their row flips are independent, they
// act on the same half of the amplitudes, and they read the same input, because at a call one input may be batched and
// another shared.
bool TileOpBuilder::may_join(const std::vector<int>& block, int t) const {
  if (!elements_.is_rotation(t) || !elements_.is_rotation(block[0])) return false;
  const Flip own = flip(t);
  if (static_cast<int>(block.size()) == RotationBlock::most || !own.is_like(flip(block[0]))) return false;
  if (half(t) != half(block[0]) || cuts_groups(t) || cuts_groups(block[0])) return false;
  Span rows;
  for (const int b : block) {
    if (rotation(b).angle.input != rotation(t).angle.input) return false;
    if (odd_parity(pauli_word(b).x & pauli_word(t).z) || odd_parity(pauli_word(b).z & pauli_word(t).x)) return false;
    rows.add(flip(b).row);
  }
  return own.row == 0 || rows.add(own.row);
}

bool TileOpBuilder::has_room(const std::vector<int>& block) const {
  return block.empty() || (elements_.is_rotation(block[0]) && block.size() < RotationBlock::most);
}

std::vector<std::vector<int>> TileOpBuilder::blocks(const std::vector<int>& round) const {
  std::vector<std::vector<int>> found;
  Waiting left(round);
  while (!left.empty()) {
    std::vector<int> block;
    Commutant free(num_bits_);  // commutes with all elements that wait
    left.take(
        left.end(),
        [&](int e) {
          const bool joins = block.empty() || (elements_.commutes(free, e) && may_join(block, e));
          joins ? block.push_back(e) : elements_.narrow(free, e);
          return joins;
        },
        [&] { return has_room(block) && free.count() <= most_waiting; });
    found.push_back(std::move(block));
  }
  return found;
}

RotationBlock TileOpBuilder::rotation_block(const std::vector<int>& rotations) const {
  RotationBlock block;
  const int parts = plan_.layout.part_bits;
  for (const int t : rotations) {
    block.rotations.push_back(elements_.index(t));
    const Flip traded = flip(t);
    const Mask parity = tile_.parity(pauli_word(t).z);
    block.row_flip.push_back(static_cast<Index>(traded.row << parts));
    block.lane_flip.push_back(traded.lane);
    block.lane_sign.push_back(lanes_of(parity));
    block.row_sign.push_back(rows_of(parity) << parts);
    block.tile_sign.push_back(pauli_word(t).z);
  }
  if (const Half& h = half(rotations[0]); !h.is_all())
    block.half = {h.mask, lanes_of(tile_.parity(h.mask)), h.even, cuts_groups(rotations[0]), {}, 0};
  enumerate_groups(block, half_rows(rotations[0]) << parts);
  return block;
}

Mask TileOpBuilder::half_rows(int rotation) const { return rows_of(tile_.parity(half(rotation).mask)); }

// Whether a rotation takes rows to others that have other lanes in its half.
bool TileOpBuilder::cuts_groups(int rotation) const {
  return !half(rotation).is_all() && odd_parity(half_rows(rotation) & flip(rotation).row);
}

// Numbers the groups by one row each, those that are visited first: the row of the group at which all row signs are
// even, unless lanes are traded too. `half_sign` is that of its half.
void TileOpBuilder::enumerate_groups(RotationBlock& block, Mask half_sign) const {
  const int parts = plan_.layout.part_bits;
  const Rows rows = visited_rows();
  Span flips;
  for (const Index f : block.row_flip) flips.add(static_cast<Mask>(f));
  Span taken = flips;
  Vectors basis;
  const auto take = [&](Mask v) {
    v = flips.reduce(v);
    if (taken.add(v)) basis.push_back(v);
  };
  Mask origin = rows.origin << parts;
  if (parts != 0) take(1);
  for (const Mask v : rows.basis) take(v << parts);
  block.num_active = Index{1} << basis.size();
  for (int b = 0; b < row_bits() + parts; ++b) take(unit(b));
  const auto make_even = [&](Mask sign, Index row_flip) {
    const auto other = static_cast<Mask>(row_flip);
    for (Mask& v : basis) v ^= odd_parity(v & sign) ? other : 0;
    origin ^= odd_parity(origin & sign) ? other : 0;
  };
  for (std::size_t j = 0; j < block.rotations.size() && !block.trades_lanes(); ++j)
    make_even(block.row_sign[j], block.row_flip[j]);
  if (block.half) {
    if (block.cuts_groups()) make_even(half_sign, block.row_flip[0]);
    take_odd_groups(block, half_sign, origin, basis);
  }
  block.groups = IndexMap(origin, basis);
}

}  // namespace ketgrad
