#include <algorithm>
#include <utility>
#include <variant>

#include "plan/elements.h"
#include "plan/light_cone.h"
#include "plan/observables.h"
#include "plan/plan.h"
#include "plan/segments.h"
#include "plan/tile.h"

namespace ketgrad {

namespace {

// --- who applies the deferred scale ----------------------------------------------------------------------------------

// Calls f with an operation that carries a scale.
template <class F>
void with_carrier(TileOp& op, const F& f) {
  if (auto* block = std::get_if<RotationBlock>(&op)) {
    if (!block->half) f(*block);
  } else if (auto* phases = std::get_if<Phases>(&op)) {
    f(*phases);
  }
}

void apply_scale_in(std::vector<TileOp*>& segment) {
  if (segment.empty()) return;
  with_carrier(*segment.back(), [](auto& op) { op.applies_scale_forward = true; });
  with_carrier(*segment.front(), [](auto& op) { op.applies_scale_backward = true; });
  segment.clear();
}

void apply_scales(Plan& plan) {
  std::vector<TileOp*> segment;
  for (Pass& pass : plan.passes) {
    auto* tiles = std::get_if<TilePass>(&pass);
    if (tiles == nullptr) {
      apply_scale_in(segment);
      continue;
    }
    for (TileOp& op : tiles->operations) {
      with_carrier(op, [&](auto&) { segment.push_back(&op); });
    }
  }
  apply_scale_in(segment);
}

// `pauli_word_flips`: of the Pauli words that are measured in the end.
void plan_passes(Plan& plan, const std::vector<Element>& order, const std::vector<Mask>& pauli_word_flips) {
  Support support;
  support.everywhere =
      !plan.layout.tracks_support || plan.program->initial.kind == Preparation::state || plan.initial.everywhere != 0;
  support.origin = static_cast<Mask>(plan.initial.index);
  const Elements elements(plan, order);
  std::vector<int> segment;
  const auto finish_segment = [&](const std::vector<Mask>& next_flips) {
    SegmentPlanner(plan, elements, support, std::move(segment), next_flips).run();
    segment.clear();
  };
  for (int e = 0; e < static_cast<int>(order.size()); ++e) {
    if (elements.is_rotation(e) || elements.matrix(e).is_in_pass) {
      segment.push_back(e);
      continue;
    }
    finish_segment({});
    plan.passes.push_back(GatePass{elements.index(e), elements.matrix(e).inputs});
    support.everywhere = true;
  }
  finish_segment(pauli_word_flips);
  apply_scales(plan);
}

}  // namespace

Plan make_plan(const Program& program, const Layout& layout) {
  Lowered lowered = lower(program, layout);
  if (layout.splits_halves) split_halves(lowered);
  keep_light_cone(program, lowered);
  Plan plan;
  plan.program = &program;
  plan.layout = layout;
  plan.rotations = std::move(lowered.rotations);
  plan.gate_ops = std::move(lowered.gate_ops);
  plan.dropped = lowered.dropped;
  plan.initial = lowered.initial;
  plan.basis = lowered.wire_map.basis();
  if (program.initial.kind == Preparation::state)
    plan.initial_offsets = WireMap(program.num_wires).local(program.initial.wires);
  const PauliWordsByFlip pauli_words = plan_measurements(plan, lowered.wire_map);
  plan_passes(plan, lowered.order, layout.measures_in_passes ? flips_of(pauli_words) : std::vector<Mask>{});
  plan_observables(plan, pauli_words);
  return plan;
}

}  // namespace ketgrad
