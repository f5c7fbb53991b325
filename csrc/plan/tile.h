// The geometry of a tile: a subspace of indices that holds whole rows, and coordinates inside it.
#pragma once

#include <span>
#include <vector>

#include "plan/wire_map.h"

namespace ketgrad {

// Coordinates of the tile: lane bits first, then row bits.
class TileGeometry {
 public:
  TileGeometry(int num_bits, int lane_bits, int tile_bits, int run_bits);

  // Adds a flip to the tile's subspace; false if the tile is full.
  bool reach(Mask flip);
  // Adds all of some flips; false, and none is added, if there is no room for them.
  bool reach_all(std::span<const Mask> flips);
  bool reaches(Mask flip) const { return span_.contains(flip); }

  // Fills the room that is left with the lowest bits; the geometry is final then.
  void fill();

  // A flip in the tile and a functional on it, in coordinates.
  Mask flip(Mask physical) const { return are_bits_ ? physical : coordinates_.of(physical); }
  Mask parity(Mask physical) const;

  IndexMap rows() const { return IndexMap(0, row_vectors_); }

  // The bases of all tiles. Those in origin + `support` come first; `num_active` is their number. Bases are chosen so
  // that as many of `parities` as possible are even on them all.
  IndexMap tiles(Mask origin, const Span& support, const std::vector<Mask>& parities, Index& num_active) const;

  const Span& span() const { return span_; }

 private:
  int num_bits_;
  int lane_bits_;
  int tile_bits_;
  Span span_;
  Coordinates coordinates_;
  Vectors row_vectors_;
  bool are_bits_ = false;  // the coordinates of the final geometry are the lowest bits themselves
};

}  // namespace ketgrad
