#include <algorithm>
#include <utility>
#include <variant>

#include "plan/light_cone.h"
#include "plan/observables.h"
#include "plan/plan.h"
#include "plan/segments.h"

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
  std::vector<int> rotations;
  const auto finish_segment = [&](const std::vector<Mask>& next_flips) {
    SegmentPlanner(plan, support, std::move(rotations), next_flips).run();
    rotations.clear();
  };
  for (const Element& e : order) {
    if (e.is_rotation()) {
      rotations.push_back(e.index);
      continue;
    }
    finish_segment({});
    plan.passes.push_back(GatePass{e.index, plan.gate_ops[e.index].inputs});
    support.everywhere = true;
  }
  finish_segment(pauli_word_flips);
  apply_scales(plan);
}

}  // namespace

Plan make_plan(const Program& program, const Layout& layout) {
  Lowered lowered = lower(program, layout.unfuses_cosets);
  if (layout.splits_halves) split_halves(lowered);
  keep_light_cone(program, lowered);
  Plan plan;
  plan.program = &program;
  plan.layout = layout;
  plan.rotations = std::move(lowered.rotations);
  plan.gate_ops = std::move(lowered.gate_ops);
  for (GateOp& gate_op : plan.gate_ops) {
    if (layout.has_dense_rows) gate_op.dense_rows = dense_rows(gate_op, std::min(layout.lane_bits, program.num_wires));
  }
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
