// What is done to a tile in one pass: how its rotations and matrices become operations on rows and lanes.
#pragma once

#include <bit>
#include <vector>

#include "plan/elements.h"
#include "plan/plan.h"
#include "plan/tile.h"

namespace ketgrad {

// Makes the operations of one pass.
class TileOpBuilder {
 public:
  // All are kept by reference. `is_local`: all that is visited lies in the first tile, at support.origin +
  // visited.
  TileOpBuilder(const Plan& plan, const Elements& elements, const TilePass& pass, const TileGeometry& tile,
                const Support& support, const Span& visited, bool is_local);

  // Of diagonal rotations.
  Phases phases(const std::vector<int>& round) const;

  // The intersection of the halves.
  TileCoset coset(const std::vector<Half>& halves) const;

  // The blocks that elements which trade rows or lanes form: of rotations, or of one matrix.
  std::vector<std::vector<int>> blocks(const std::vector<int>& round) const;
  RotationBlock rotation_block(const std::vector<int>& rotations) const;
  TileMatrix matrix(int e) const;

 private:
  // Rows of a tile: origin + span of the basis. Those in the span of its first `num_visited` are visited.
  struct Rows {
    Mask origin = 0;
    Vectors basis;
    int num_visited = 0;
  };

  // What a rotation trades: only rotations of the same kind share a block.
  struct Flip {
    Mask row;
    Mask lane;

    bool is_like(const Flip& o) const { return (row == 0) == (o.row == 0) && (lane == 0) == (o.lane == 0); }
  };

  const Rotation& rotation(int e) const { return elements_.rotation(e); }
  const PauliWord& pauli_word(int e) const { return rotation(e).pauli_word; }
  const Half& half(int e) const { return rotation(e).half; }
  int row_bits() const { return tile_.span().size() - lane_bits(); }
  int lane_bits() const;

  Mask lanes_of(Mask local) const { return local & (unit(lane_bits()) - 1); }
  Mask rows_of(Mask local) const { return local >> lane_bits(); }

  Rows visited_rows() const;
  TileCoset coset(const std::vector<Half>& halves, const Rows& rows) const;
  Flip flip(int rotation) const;
  bool has_room(const std::vector<int>& block) const;
  bool may_join(const std::vector<int>& block, int t) const;
  Mask half_rows(int rotation) const;
  bool cuts_groups(int rotation) const;
  void enumerate_groups(RotationBlock& block, Mask half_sign) const;

  // A flip of a matrix, or a sum of them: what it trades, and what it adds to the local state.
  struct MatrixFlip {
    Mask row;
    Mask lane;
    int state;

    // Bits of the local state that a flip of rows alone adds are those of its row.
    bool is_pure() const { return lane == 0; }
    int highest() const { return static_cast<int>(std::bit_floor(static_cast<unsigned>(state))); }
  };
  // A matrix in coordinates of the tile.
  struct MatrixCoordinates {
    InplaceVector<Mask, TileMatrix::most_bits> states;  // the parity that is each bit of the local state
    InplaceVector<MatrixFlip, TileMatrix::most_bits> row_flips;
    InplaceVector<MatrixFlip, TileMatrix::most_bits> lane_flips;  // that trade no rows

    int state_of(Mask local) const;
  };

  MatrixCoordinates coordinates_of(const GateOp& gate_op) const;
  Rows first_rows(const MatrixCoordinates& matrix) const;
  void add_variations(TileMatrix& matrix, const MatrixCoordinates& coordinates) const;
  static void shift_first_rows(TileMatrix& matrix, const MatrixCoordinates& coordinates);
  void drop_constants(TileMatrix& matrix) const;
  static void sort_groups(TileMatrix& matrix);

  const Plan& plan_;
  const Elements& elements_;
  const TilePass& pass_;
  const TileGeometry& tile_;
  const Support& support_;
  const Span& visited_;
  const bool is_local_;
  const int num_bits_;
};

}  // namespace ketgrad
