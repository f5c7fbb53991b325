// Segments: the rotations and matrices between two unfused gates become passes over tiles.
#pragma once

#include <vector>

#include "plan/elements.h"
#include "plan/plan.h"
#include "plan/tile.h"
#include "plan/tile_ops.h"
#include "plan/waiting.h"

namespace ketgrad {

// Plans the passes of one segment, until none of its elements is left.
class SegmentPlanner {
 public:
  // Adds passes to the plan; `support` is where amplitudes may be non-zero, before and, in the end, after the segment.
  // `next_flips`: flips that the last tile holds too, if it has room.
  SegmentPlanner(Plan& plan, const Elements& elements, Support& support, std::vector<int> segment,
                 std::vector<Mask> next_flips);

  void run();

 private:
  using Window = std::vector<int>;  // elements, in order

  bool reaches(const TileGeometry& tile, int e) const;
  bool reach(TileGeometry& tile, int e) const;
  void plan_pass();
  const int* choose_tile(TileGeometry& tile) const;
  std::vector<Window> schedule(const TileGeometry& tile, const int* end);
  template <class F>
  Window take(const int* end, const F& eligible);
  void visit_a_pair(const TileGeometry& tile, const std::vector<Window>& rounds);
  void visit_all(const TileGeometry& tile);
  void add_operations(TilePass& pass, const TileGeometry& tile, bool is_local, const Window& round);
  void add_phases(TilePass& pass, const TileOpBuilder& builder, const Window& round);

  Plan& plan_;
  const Elements& elements_;
  Support& support_;
  // What an operation visits, all that come after it visit too: support_.origin + this, which holds the support.
  // Otherwise, going back, amplitudes that one of them left out would have another deferred scale than the rest, and
  // rounding errors of ket and bra there would enter the overlaps of the operations before it.
  Span visited_;
  Waiting remaining_;
  std::ptrdiff_t mixing_left_;  // those among them that are no phases
  const std::vector<Mask> next_flips_;
  const int num_bits_;
};

}  // namespace ketgrad
