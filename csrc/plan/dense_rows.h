// Small dense matrices on the rows of a single state.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "math/bits.h"

namespace ketgrad {

struct GateOp;

// How a matrix of 2, 4 or 8 states mixes whole rows: each of its flips trades either rows or lanes. Bits of a local
// state whose flips trade rows number the rows of a group, the others the ways in which lanes are traded.
struct DenseRows {
  IndexMap groups;                  // the first row of each group
  std::vector<Index> row_offsets;   // of the rows of a group, to be added by XOR
  std::vector<Mask> lane_flips;     // by the number of the trade
  std::vector<int> row_states;      // what a row's number adds to the local state, by XOR
  std::vector<int> lane_states;     // and what a trade's number adds
  std::vector<std::int8_t> states;  // [row of the group][lane]: the local state, -1 where the controls forbid any

  int rows() const { return static_cast<int>(row_offsets.size()); }
  int trades() const { return static_cast<int>(lane_flips.size()); }
  int size() const { return rows() * trades(); }
};

// Of a dense gate on rows of 2^lane_bits amplitudes; nothing where its matrix is larger, where a flip trades both, or
// where the local states of lanes differ from group to group.
std::optional<DenseRows> dense_rows(const GateOp& gate_op, int lane_bits);

}  // namespace ketgrad
