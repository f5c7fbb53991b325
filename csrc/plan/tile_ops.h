// What is done to a tile in one pass: how its rotations become operations on rows and lanes.
#pragma once

#include <vector>

#include "plan/plan.h"
#include "plan/tile.h"

namespace ketgrad {

// Makes the operations of one pass.
class TileOpBuilder {
 public:
  // All are kept by reference. `is_local`: all that is visited lies in the first tile, at support.origin +
  // visited.
  TileOpBuilder(const Plan& plan, const TilePass& pass, const TileGeometry& tile, const Support& support,
                const Span& visited, bool is_local);

  // Of diagonal rotations.
  Phases phases(const std::vector<int>& round) const;

  // The intersection of the halves.
  TileCoset coset(const std::vector<Half>& halves) const;

  // The blocks that rotations which trade rows or lanes form.
  std::vector<std::vector<int>> blocks(const std::vector<int>& round) const;
  RotationBlock rotation_block(const std::vector<int>& rotations) const;

 private:
  // Rows of a tile that are visited: origin + span of `visited`.
  struct Rows {
    Mask origin = 0;
    std::vector<Mask> visited;
  };

  // What a rotation trades: only rotations of the same kind share a block.
  struct Flip {
    Mask row;
    Mask lane;

    bool is_like(const Flip& o) const { return (row == 0) == (o.row == 0) && (lane == 0) == (o.lane == 0); }
  };

  const Rotation& rotation(int number) const { return plan_.rotations[number]; }
  const PauliWord& pauli_word(int rotation) const { return plan_.rotations[rotation].pauli_word; }
  const Half& half(int rotation) const { return plan_.rotations[rotation].half; }
  int row_bits() const { return tile_.span().size() - lane_bits(); }
  int lane_bits() const;

  Rows visited_rows() const;
  Flip flip(int rotation) const;
  bool may_join(const std::vector<int>& block, int t) const;
  Mask half_rows(int rotation) const;
  bool cuts_groups(int rotation) const;
  void enumerate_groups(RotationBlock& block) const;

  const Plan& plan_;
  const TilePass& pass_;
  const TileGeometry& tile_;
  const Support& support_;
  const Span& visited_;
  const bool is_local_;
  const int num_bits_;
};

}  // namespace ketgrad
