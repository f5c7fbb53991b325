#include "plan/cost.h"

#include <algorithm>
#include <cmath>

namespace ketgrad {

namespace {

double amplitudes(const Plan& plan) { return std::ldexp(1.0, plan.program->num_wires); }

// Bytes of reading or writing `states` states.
double moved(const Plan& plan, const IndexMap& tiles, double states, const Traffic& traffic) {
  return tiles.size() == 1 ? 0 : states * amplitudes(plan) * 2 * traffic.number_bytes;
}

// The share of amplitudes in tiles that are visited, and of those that may be non-zero when the pass begins.
double visited_share(const TilePass& pass) {
  return static_cast<double>(pass.num_active_tiles) / static_cast<double>(pass.tiles.size());
}

double moved_share(const Plan& plan, const TilePass& pass, const Traffic& traffic) {
  if (traffic.moves_zeros || pass.before.everywhere) return visited_share(pass);
  return std::min(visited_share(pass), std::ldexp(1.0, pass.before.span.size() - plan.program->num_wires));
}

// Multiply-adds per amplitude: a real rotation two of the amplitude's parts by one; a complex factor four.
constexpr double rotation = 2;
constexpr double factor = 4;

double share_of(const IndexMap& groups, Index num_active) {
  return static_cast<double>(num_active) / static_cast<double>(groups.size());
}

// The share of groups that are visited; twice that for half the amplitudes, whose rotations are not unnormalised.
double share_of(const RotationBlock& block) {
  const double all = share_of(block.groups, block.num_active);
  if (!block.half) return all;
  if (!block.half->odd_groups) return block.half->lane_mask != 0 ? 2 * all : all;
  const double both = all + share_of(*block.half->odd_groups, block.half->num_odd_active);
  return block.half->lane_mask != 0 ? both : both / 2;
}

// The share of a tile's amplitudes in a coset, over all tiles; a condition on lanes saves nothing.
double share_of(const TileCoset& coset) {
  return share_of(coset.rows, coset.num_active) *
         std::ldexp(1.0, -static_cast<int>(coset.tiles.size() + coset.shifts.size()));
}

// Multiply-adds of a direction of the sweep: `per_rotation` for each rotation of a block, `per_phases` for phases as a
// whole, `per_factor` for each complex factor of an amplitude by a matrix, per amplitude.
struct PassWork {
  double per_rotation = 0;
  double per_phases = 0;
  double per_factor = 0;
};

// `states` are read and written.
Cost pass_cost(const Plan& plan, const TilePass& pass, const PassWork& work, double states, const Traffic& traffic) {
  const double visited = amplitudes(plan) * visited_share(pass);
  // Going forward, tiles are written as a whole; going back, they are read so, as far as the pass behind has them.
  Cost cost;
  cost.bytes = moved(plan, pass.tiles, states * (visited_share(pass) + moved_share(plan, pass, traffic)), traffic);
  for (const TileOp& op : pass.operations) {
    if (const auto* block = std::get_if<RotationBlock>(&op)) {
      cost.multiply_adds +=
          visited * share_of(*block) * work.per_rotation * static_cast<double>(block->rotations.size());
    } else if (const auto* phase = std::get_if<CosetPhase>(&op)) {
      cost.multiply_adds += visited * share_of(phase->coset) * 2 * work.per_rotation;
    } else if (const auto* matrix = std::get_if<TileMatrix>(&op)) {
      cost.multiply_adds += visited * share_of(matrix->groups) * work.per_factor * matrix->size();
    } else {
      cost.multiply_adds += visited * work.per_phases;
    }
  }
  return cost;
}

// An unfused gate works on the groups that its controls leave, each a matrix of so many rows.
Cost gate_op_cost(const Plan& plan, const GateOp& gate_op, double times, double states, const Traffic& traffic) {
  double each = 0;
  switch (gate_op.kind) {
    case GateOpKind::dense: each = 4.0 * gate_op.size() * gate_op.size(); break;
    case GateOpKind::diagonal: each = 4.0 * gate_op.size(); break;
    case GateOpKind::exchange: each = 0; break;
    case GateOpKind::evolution: each = 20.0 * static_cast<double>(gate_op.entries.size()); break;
    case GateOpKind::pauli_rotation: each = gate_op.pauli_word.is_diagonal() ? 4 : 8; break;
  }
  const double groups = static_cast<double>(gate_op.groups.size());
  const bool in_caches = plan.layout.tile_bits >= plan.program->num_wires;
  return {times * groups * each, in_caches ? 0 : states * amplitudes(plan) * 2 * traffic.number_bytes};
}

double transform(const Plan& plan) { return std::min(plan.program->num_wires, plan.layout.tile_bits); }

// Of the Pauli words of one observable pass: two multiply-adds an amplitude each, or a transform for many of a kind.
double pauli_word_work(const Plan& plan, const ObservablePass& pass) {
  double work = 0;
  for (const PauliGroup& g : pass.groups)
    work += std::min(2.0 * static_cast<double>(g.members.size()), transform(plan) + 2);
  return work;
}

}  // namespace

Cost forward_cost(const Plan& plan, const Pass& pass, const Traffic& traffic) {
  if (const auto* gate = std::get_if<GatePass>(&pass))
    return gate_op_cost(plan, plan.gate_ops[gate->gate_op], 1, 2, traffic);
  return pass_cost(plan, std::get<TilePass>(pass), {rotation, 2 * factor, factor}, 1, traffic);
}

Cost backward_cost(const Plan& plan, const Pass& pass, const Traffic& traffic) {
  if (const auto* gate = std::get_if<GatePass>(&pass))
    return gate_op_cost(plan, plan.gate_ops[gate->gate_op], 3, 4, traffic);
  return pass_cost(plan, std::get<TilePass>(pass), {3 * rotation, 3 * factor + 2 + transform(plan), 3 * factor}, 2,
                   traffic);
}

Cost forward_cost(const Plan& plan, const ObservablePass& pass, const Traffic& traffic) {
  const double states = pass.in_last_pass ? 0 : 1;
  return {amplitudes(plan) * pauli_word_work(plan, pass), moved(plan, pass.tiles, states, traffic)};
}

Cost backward_cost(const Plan& plan, const ObservablePass& pass, const Traffic& traffic) {
  // The first that is a pass of its own only writes the bra.
  const auto first = std::ranges::find(plan.observables, false, &ObservablePass::in_last_pass);
  const double states = pass.in_last_pass ? 0 : &pass == &*first ? 2 : 3;
  return {amplitudes(plan) * pauli_word_work(plan, pass), moved(plan, pass.tiles, states, traffic)};
}

}  // namespace ketgrad
