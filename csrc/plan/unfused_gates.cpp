#include "plan/unfused_gates.h"

#include <algorithm>

#include "plan/plan.h"
#include "plan/tile.h"

namespace ketgrad {

Half half_of(const WireMap& wire_map, const WireParity& p) {
  if (p.wires == 0) return {};
  const PauliWord parity = wire_map.pauli_word({0, p.wires});
  return {parity.z, parity.negative == p.odd};
}

std::vector<Half> halves_of(const WireMap& wire_map, const std::vector<WireParity>& parities) {
  std::vector<Half> found;
  found.reserve(parities.size());
  for (const WireParity& p : parities) found.push_back(half_of(wire_map, p));
  return found;
}

namespace {

GateOpKind kind_of(const GateInfo& info) {
  switch (info.family) {
    case Family::pauli_rotation: return GateOpKind::pauli_rotation;
    case Family::diagonal: return GateOpKind::diagonal;
    case Family::evolution: return GateOpKind::evolution;
    default: break;
  }
  if (info.formula == Formula::x) return GateOpKind::exchange;
  return is_diagonal(info.formula) ? GateOpKind::diagonal : GateOpKind::dense;
}

std::vector<Index> block_offsets(const GateInfo& info, const IndexMap& local) {
  switch (info.subspace) {
    case Subspace::swap: return {local[1], local[2]};
    case Subspace::double_swap: return {local[3], local[12]};
    case Subspace::all: break;
  }
  std::vector<Index> all;
  all.reserve(static_cast<std::size_t>(local.size()));
  for (Index a = 0; a < local.size(); ++a) all.push_back(local[a]);
  return all;
}

// Pauli words of which a gate that is not dense is a polynomial.
std::vector<PauliWord> pauli_words_of(const Gate& gate, GateOpKind kind, const WireMap& wire_map) {
  std::vector<PauliWord> pauli_words;
  for (const int w : gate.controls) pauli_words.push_back(wire_map.pauli_word("Z", {w}));
  if (kind == GateOpKind::pauli_rotation) {
    pauli_words.push_back(wire_map.pauli_word(gate.pauli_word, gate.targets));
    return pauli_words;
  }
  for (const int w : gate.targets) {
    pauli_words.push_back(wire_map.pauli_word("Z", {w}));
    if (kind != GateOpKind::diagonal && kind != GateOpKind::evolution)
      pauli_words.push_back(wire_map.pauli_word("X", {w}));
  }
  return pauli_words;
}

// The basis states on which a block acts, the controls included.
std::vector<WireParity> coset_of(const Gate& gate, Subspace subspace) {
  std::vector<WireParity> found;
  for (std::size_t j = 0; j < gate.controls.size(); ++j)
    found.push_back({unit(gate.controls[j]), gate.control_values[j]});
  const auto add = [&](int a, int b, bool odd) {
    found.push_back({unit(gate.targets[a]) | unit(gate.targets[b]), odd});
  };
  if (subspace == Subspace::swap) add(0, 1, true);
  if (subspace == Subspace::double_swap) {
    add(0, 1, false);
    add(2, 3, false);
    add(0, 2, true);
  }
  return found;
}

// The parities that are the bits of a block's local state, the lowest first (see block_offsets).
std::vector<WireParity> states_of(const Gate& gate, Subspace subspace) {
  if (subspace != Subspace::all) return {{unit(gate.targets[0])}};
  std::vector<WireParity> found;
  for (auto w = gate.targets.rbegin(); w != gate.targets.rend(); ++w) found.push_back({unit(*w)});
  return found;
}

// Of a dense gate. A tile that holds its flips varies in all that it does not commute with: no phase that is put off
// holds it up.
void add_states(GateOp& gate_op, const Gate& gate, Subspace subspace, const WireMap& wire_map) {
  gate_op.coset = halves_of(wire_map, coset_of(gate, subspace));
  gate_op.states = halves_of(wire_map, states_of(gate, subspace));
  gate_op.pauli_words.reserve(gate_op.coset.size() + 2 * gate_op.states.size());
  for (const Half& h : gate_op.coset) gate_op.pauli_words.push_back(h.z_string());
  for (const Half& h : gate_op.states) gate_op.pauli_words.push_back(h.z_string());
  for (int bit = 0; bit < gate_op.state_bits(); ++bit) gate_op.pauli_words.push_back({gate_op.flip(bit), 0, 0, false});
}

// Whether a tile can hold what a dense gate mixes.
bool fits_tile(const GateOp& gate_op, int num_wires, const Layout& layout) {
  if (!layout.fuses_matrices || gate_op.kind != GateOpKind::dense || gate_op.size() > TileMatrix::largest) return false;
  Vectors flips;
  for (int bit = 0; bit < gate_op.state_bits(); ++bit) flips.push_back(gate_op.flip(bit));
  return TileGeometry(num_wires, layout.lane_bits, layout.tile_bits, layout.run_bits).reach_all(flips);
}

// The groups fix a gate's controls at their values and its targets where `local` starts from.
void add_groups(GateOp& gate_op, const Gate& gate, const WireMap& wire_map) {
  std::vector<int> wires = gate.controls;
  std::vector<bool> bits = gate.control_values;
  const auto fix = [&](int wire) {
    wires.push_back(wire);
    bits.push_back(wire_map.offset(wire));  // an even parity
  };
  if (gate_op.kind == GateOpKind::pauli_rotation) {
    const std::size_t flipped = gate.pauli_word.find_first_of("XY");
    if (flipped != std::string::npos) fix(gate.targets[flipped]);  // one amplitude of each pair (i, i ^ x)
  } else {
    for (const int w : gate.targets) fix(w);
  }
  gate_op.groups = wire_map.fixed(wires, bits);
  for (const Index offset : gate_op.offsets) gate_op.groups.shorten_runs(static_cast<Mask>(offset));
  gate_op.entries.shorten_runs(gate_op.groups);
  gate_op.groups.shorten_runs(gate_op.entries);
}

}  // namespace

GateOp gate_op_of(const Program& program, int index, const WireMap& wire_map, const Layout& layout) {
  const Gate& gate = program.gates[index];
  const GateInfo& info = gate_info(gate.opcode);
  GateOp gate_op;
  gate_op.kind = kind_of(info);
  gate_op.gate = index;
  switch (gate_op.kind) {
    case GateOpKind::pauli_rotation: gate_op.pauli_word = wire_map.pauli_word(gate.pauli_word, gate.targets); break;
    case GateOpKind::evolution: gate_op.entries = wire_map.local(gate.targets); break;
    default: gate_op.offsets = block_offsets(info, wire_map.local(gate.targets)); break;
  }
  if (gate_op.kind == GateOpKind::dense) {
    add_states(gate_op, gate, info.subspace, wire_map);
  } else {
    gate_op.pauli_words = pauli_words_of(gate, gate_op.kind, wire_map);
  }
  gate_op.is_in_pass = fits_tile(gate_op, program.num_wires, layout);
  if (!gate_op.is_in_pass) add_groups(gate_op, gate, wire_map);
  for (const Slot& s : gate.slots) add_input(gate_op.inputs, s.input);
  add_input(gate_op.inputs, gate.input);
  return gate_op;
}

Index coefficient_count(const GateOp& gate_op) {
  switch (gate_op.kind) {
    case GateOpKind::dense: return Index{2} * gate_op.size() * gate_op.size();
    case GateOpKind::diagonal: return Index{2} * gate_op.size();
    case GateOpKind::exchange:
    case GateOpKind::evolution: return 0;
    case GateOpKind::pauli_rotation: return 2;
  }
  return 0;
}

Index overlap_count(const GateOp& gate_op) {
  return gate_op.kind == GateOpKind::pauli_rotation ? 1 : coefficient_count(gate_op);
}

void add_input(std::vector<int>& inputs, int input) {
  if (input != no_input && std::find(inputs.begin(), inputs.end(), input) == inputs.end()) inputs.push_back(input);
}

}  // namespace ketgrad
