#include "plan/dense_rows.h"

#include <algorithm>

#include "plan/lowering.h"

namespace ketgrad {

namespace {

constexpr int largest = 8;

// What the bits of a group's number add to its index.
std::vector<Mask> basis_of(const IndexMap& map) {
  std::vector<Mask> basis;
  for (Index r = 1; r < map.size(); r <<= 1) basis.push_back(static_cast<Mask>(map[r] ^ map[0]));
  return basis;
}

// All sums of some vectors.
template <class V>
std::vector<V> sums_of(const std::vector<V>& vectors) {
  std::vector<V> all{V(0)};
  for (const V v : vectors) {
    const std::size_t half = all.size();
    for (std::size_t i = 0; i < half; ++i) all.push_back(all[i] ^ v);
  }
  return all;
}

}  // namespace

std::optional<DenseRows> dense_rows(const GateOp& gate_op, int lane_bits) {
  if (gate_op.kind != GateOpKind::dense || gate_op.size() > largest) return {};
  const Mask lanes = unit(lane_bits) - 1;
  const Mask origin = static_cast<Mask>(gate_op.groups[0] ^ gate_op.offsets[0]);
  std::vector<Index> row_flips;
  std::vector<Mask> lane_flips;
  std::vector<int> row_states;
  std::vector<int> lane_states;
  std::vector<Mask> flips;
  for (int state = 1; state < gate_op.size(); state <<= 1) {
    const Mask flip = static_cast<Mask>(gate_op.offsets[state] ^ gate_op.offsets[0]);
    const bool in_lanes = (flip >> lane_bits) == 0;
    if (!in_lanes && (flip & lanes) != 0) return {};
    (in_lanes ? lane_states : row_states).push_back(state);
    in_lanes ? lane_flips.push_back(flip) : row_flips.push_back(static_cast<Index>(flip >> lane_bits));
    flips.push_back(flip);
  }
  // Groups whose rows differ, but not their lanes.
  const std::vector<Mask> within = basis_of(gate_op.groups);
  Span all(within);
  Span of_rows;
  for (const Mask v : all.basis()) {
    if ((v & lanes) == 0) of_rows.add(v >> lane_bits);
  }
  for (const Mask f : flips) all.add(f);
  Span projected;
  for (const Mask v : all.basis()) projected.add(v >> lane_bits);
  Span rows = of_rows;
  for (const Index f : row_flips) {
    if (!rows.add(static_cast<Mask>(f))) return {};
  }
  if (rows.size() != projected.size()) return {};
  DenseRows found;
  std::vector<Mask> basis = of_rows.basis();
  std::ranges::sort(basis, {}, [](Mask v) { return v & -v; });
  found.groups = IndexMap(origin >> lane_bits, basis);
  found.row_offsets = sums_of(row_flips);
  found.lane_flips = sums_of(lane_flips);
  found.row_states = sums_of(row_states);
  found.lane_states = sums_of(lane_states);
  // The flips come first, so that their coordinates are the local state.
  Coordinates coordinates;
  for (const Mask f : flips) coordinates.add(f);
  for (const Mask v : within) coordinates.add(v);
  for (const Index row : found.row_offsets) {
    for (Mask lane = 0; lane <= lanes; ++lane) {
      const Mask v = (static_cast<Mask>(row) << lane_bits | lane) ^ (origin & lanes);
      const Mask state = coordinates.of(v) & static_cast<Mask>(gate_op.size() - 1);
      found.states.push_back(all.contains(v) ? static_cast<std::int8_t>(state) : std::int8_t{-1});
    }
  }
  return found;
}

}  // namespace ketgrad
