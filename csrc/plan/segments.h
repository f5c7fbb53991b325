// Segments: the rotations between two unfused gates become passes over tiles.
#pragma once

#include <vector>

#include "plan/plan.h"
#include "plan/tile.h"
#include "plan/waiting.h"

namespace ketgrad {

// Plans the passes of one segment, until none of its rotations is left.
class SegmentPlanner {
 public:
  // Adds passes to the plan; `support` is where amplitudes may be non-zero, before and, in the end, after the segment.
  // `next_flips`: flips that the last tile holds too, if it has room.
  SegmentPlanner(Plan& plan, Support& support, std::vector<int> rotations, std::vector<Mask> next_flips);

  void run();

 private:
  using Window = std::vector<int>;  // rotations, in order

  const Rotation& rotation(int number) const { return plan_.rotations[number]; }
  bool is_phase(int rotation) const { return pauli_word(rotation).is_diagonal(); }
  const PauliWord& pauli_word(int rotation) const { return plan_.rotations[rotation].pauli_word; }
  const Half& half(int rotation) const { return plan_.rotations[rotation].half; }

  void plan_pass();
  const int* choose_tile(TileGeometry& tile) const;
  std::vector<Window> schedule(const TileGeometry& tile, const int* end);
  template <class F>
  Window take(const int* end, const F& eligible);
  void visit_a_pair(const TileGeometry& tile, const std::vector<Window>& rounds);
  void visit_all(const TileGeometry& tile);
  void add_operations(TilePass& pass, const TileGeometry& tile, bool is_local, const Window& round);

  Plan& plan_;
  Support& support_;
  // What an operation visits, all that come after it visit too: support_.origin + this, which holds the support.
  // Otherwise, going back, amplitudes that one of them left out would have another deferred scale than the rest, and
  // rounding errors of ket and bra there would enter the overlaps of the operations before it.
  Span visited_;
  Waiting remaining_;
  std::ptrdiff_t mixing_left_;  // rotations among them that are no phases
  const std::vector<Mask> next_flips_;
  const int num_bits_;
};

}  // namespace ketgrad
