#include "cuda/tables/pass_builder.h"

#include <algorithm>
#include <variant>
#include <vector>

#include "cuda/tables/affine.h"

namespace ketgrad::cuda {

void PassBuilder::run() {
  reserve_angles();
  for (std::size_t p = 0; p < plan_.passes.size(); ++p) add_pass(p);
  for (const GateOp& gate_op : plan_.gate_ops) add_gate_op(gate_op);
  tables_.last_pass_measures = last_pass_measures();
}

// The angles of rotations come first, those of Z-strings are appended as they find a slot.
void PassBuilder::reserve_angles() {
  for_each_tile_op(plan_, [&](const TileOp& op) {
    if (const auto* rotation_block = std::get_if<RotationBlock>(&op))
      tables_.rotations += static_cast<std::int32_t>(rotation_block->rotations.size());
  });
  tables_.angles.resize(tables_.rotations);
}

void PassBuilder::add_pass(std::size_t number) {
  const Pass& pass = plan_.passes[number];
  TablePass found;
  if (const auto* gate = std::get_if<GatePass>(&pass)) {
    found.gate_op = gate->gate_op;
    after_gate_op_ = true;
  } else {
    add_tile_pass(number, std::get<TilePass>(pass), found);
  }
  tables_.passes.push_back(found);
  tables_.pass_inputs.push_back(inputs_of(pass));
}

void PassBuilder::add_tile_pass(std::size_t number, const TilePass& pass, TablePass& found) {
  found.tile_bits = bits_of(pass.rows);
  found.tiles = pass.num_active_tiles;
  found.rows = append(tables_.vectors, basis_of(pass.rows));
  signs_.begin(AffineMap::of(pass.tiles));
  found.before = support_map(pass.before, pass);
  // After an unfused gate, and before measurements, all of a state is in memory.
  const auto* next = number + 1 < plan_.passes.size() ? std::get_if<TilePass>(&plan_.passes[number + 1]) : nullptr;
  if (next != nullptr) found.after = support_map(next->before, pass);
  found.operations = operations_.add_operations(pass);
  Range groups;
  const bool measures = last_pass_measures() && number + 1 == plan_.passes.size();
  if (measures) groups = pauli_words_.add_flip_groups(plan_.observables[0]);
  found.tile_sign_bits = signs_.finish();
  if (measures)
    tables_.pauli_word_passes.push_back({found.tile_bits, pass.tiles.size(), found.rows, found.tile_sign_bits, groups});
  tables_.covered |= !after_gate_op_ && pass.num_active_tiles == pass.tiles.size();
}

// In the coordinates of a pass.
SupportMap PassBuilder::support_map(const Support& support, const TilePass& pass) {
  SupportMap map;
  map.everywhere = support.everywhere || pass.tiles.size() == 1 ? 1 : 0;
  if (map.everywhere != 0) return map;
  map.tile = signs_.add_tile_mask([&](Mask base) { return support.span.reduce(base ^ support.origin); });
  std::vector<Mask> rows;
  for (const Mask v : basis_of(pass.rows)) rows.push_back(support.span.reduce(v));
  map.rows = append(tables_.vectors, rows);
  return map;
}

void PassBuilder::add_gate_op(const GateOp& gate_op) {
  const Gate& gate = plan_.program->gates[gate_op.gate];
  const GateInfo& info = gate_info(gate.opcode);
  TableGateOp found;
  found.kind = gate_op.kind;
  found.size = gate_op.size();
  found.groups = append_map(tables_, gate_op.groups);
  found.offsets = append(tables_.vectors, std::vector<Mask>(gate_op.offsets.begin(), gate_op.offsets.end()));
  found.entries = append_map(tables_, gate_op.entries);
  found.pauli_word = gate_op.pauli_word;
  found.formula = info.formula;
  found.family = info.family;
  found.inverse = gate.inverse ? 1 : 0;
  found.values = append(tables_.values, gate.slots);
  found.input = gate.input;
  found.first_source = values_.add_single_sources(gate.slots);
  if (gate_op.kind == GateOpKind::dense) tables_.largest_gate_op = std::max(tables_.largest_gate_op, found.size);
  tables_.gate_ops.push_back(found);
}

}  // namespace ketgrad::cuda
