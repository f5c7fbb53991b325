// What the planner makes of gates and measurements, and that it loses nothing.
#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstdio>
#include <string_view>
#include <vector>

#include "check.h"
#include "circuits.h"
#include "plan/light_cone.h"
#include "plan/plan.h"
#include "plan/tile.h"

namespace ketgrad::testing {
namespace {

constexpr Layout whole{0, 1, max_wires};

const Measurement measured_state{MeasurementKind::state, {}, {}};  // everything is in its light cone

Circuit circuit_of(int num_wires, const std::vector<Gate>& gates, const Measurement& measurement = measured_state) {
  Circuit circuit = empty_circuit(num_wires);
  circuit.program.gates = gates;
  circuit.program.measurements.push_back(measurement);
  return circuit;
}

Gate rotation(const char* name, int wire, int column = 0) { return make_gate(name, {wire}, {{0, column, 1, 0}}); }

Gate controlled(Gate gate, int control) {
  gate.controls.insert(gate.controls.begin(), control);
  gate.control_values.insert(gate.control_values.begin(), true);
  return gate;
}

Plan plan_of(int num_wires, const std::vector<Gate>& gates, const Layout& layout = whole) {
  static std::vector<Circuit> kept;  // a plan points into its program
  kept.reserve(1000);
  kept.push_back(circuit_of(num_wires, gates));
  kept.back().program.validate();
  return make_plan(kept.back().program, layout);
}

std::vector<const TilePass*> tile_passes(const Plan& plan) {
  std::vector<const TilePass*> found;
  for (const Pass& pass : plan.passes) {
    if (const auto* tiles = std::get_if<TilePass>(&pass)) found.push_back(tiles);
  }
  return found;
}

constexpr int coset_phase = 100;
constexpr int matrix = 200;

// Per operation: the number of rotations of a block, minus the number of strings of phases; of an unfused gate 0.
std::vector<int> shape(const Plan& plan) {
  std::vector<int> found;
  for (const Pass& pass : plan.passes) {
    const auto* tiles = std::get_if<TilePass>(&pass);
    if (tiles == nullptr) {
      found.push_back(0);
      continue;
    }
    for (const TileOp& op : tiles->operations) {
      if (const auto* block = std::get_if<RotationBlock>(&op)) {
        found.push_back(static_cast<int>(block->rotations.size()));
      } else if (std::holds_alternative<CosetPhase>(op)) {
        found.push_back(coset_phase);
      } else if (std::holds_alternative<TileMatrix>(op)) {
        found.push_back(matrix);
      } else {
        found.push_back(-static_cast<int>(std::get<Phases>(op).strings.size()));
      }
    }
  }
  return found;
}

using Shape = std::vector<int>;

// --- wire maps -------------------------------------------------------------------------------------------------------

// Wires that stay dual to each other, and Pauli words that mean what they say.
TEST(wire_maps_stay_dual) {
  Random random(1);
  for (int round = 0; round < 50; ++round) {
    WireMap wire_map(6);
    for (int g = 0; g < 12; ++g) {
      const std::vector<int> w = random.wires(6, 2);
      if (g % 3 == 0) wire_map.cnot(w[0], w[1]);
      if (g % 3 == 1) wire_map.swap(w[0], w[1]);
      if (g % 3 == 2) wire_map.flip_wire(w[0]);
    }
    for (int v = 0; v < 6; ++v) {
      for (int w = 0; w < 6; ++w) CHECK(odd_parity(wire_map.parity(v) & wire_map.flip(w)) == (v == w));
    }
    const IndexMap local = wire_map.local({2, 4});
    const IndexMap groups = wire_map.groups({2, 4});
    for (Index g = 0; g < groups.size(); ++g) {
      for (Index a = 0; a < 4; ++a) {
        const Mask index = static_cast<Mask>(groups[g] ^ local[a]);
        CHECK((odd_parity(index & wire_map.parity(2)) != wire_map.offset(2)) == (a >= 2));
        CHECK((odd_parity(index & wire_map.parity(4)) != wire_map.offset(4)) == (a % 2 == 1));
      }
    }
    const IndexMap fixed = wire_map.fixed({0, 5}, {true, false});
    for (Index r = 0; r < fixed.size(); ++r) {
      CHECK(odd_parity(static_cast<Mask>(fixed[r]) & wire_map.parity(0)) != wire_map.offset(0));
      CHECK(odd_parity(static_cast<Mask>(fixed[r]) & wire_map.parity(5)) == wire_map.offset(5));
    }
  }
}

TEST(a_wire_map_follows_cnot) {
  WireMap wire_map(2);  // bits 1 and 0
  wire_map.cnot(0, 1);
  CHECK(wire_map.parity(1) == 0b11);
  CHECK(wire_map.flip(0) == 0b11);
  CHECK(wire_map.flip(1) == 0b01);
  const PauliWord pauli_word = wire_map.pauli_word("XY", {0, 1});
  CHECK(pauli_word.x == 0b10);
  CHECK(pauli_word.z == 0b11);
  CHECK(pauli_word.y_count == 1);
}

// --- lowering --------------------------------------------------------------------------------------------------------

TEST(permutations_are_carried) {
  CHECK(plan_of(3, {make_gate("CNOT", {0, 1}), make_gate("SWAP", {1, 2}), make_gate("X", {0})}).passes.empty());
}

TEST(rotations_are_real_or_phases) {
  Random random(2);
  for (int opcode = 0; opcode < num_gates; ++opcode) {
    for (int round = 0; round < 3; ++round) {
      Circuit circuit = empty_circuit(6);
      circuit.program.gates.push_back(random_gate(random, circuit, static_cast<Opcode>(opcode), 1));
      for (const Rotation& t : lower(circuit.program).rotations)
        CHECK(t.pauli_word.is_diagonal() || t.pauli_word.is_real());
    }
  }
}

TEST(what_is_no_product_of_rotations_is_a_gate_op) {
  CHECK(shape(plan_of(3, {make_gate("Toffoli", {0, 1, 2})})) == Shape({0}));
  CHECK(shape(plan_of(4, {make_gate("DoubleExcitation", {0, 1, 2, 3}, {{0, 0, 1, 0}})})) == Shape({0}));
  CHECK(lower(circuit_of(3, {make_gate("CSWAP", {0, 1, 2})}).program).gate_ops.at(0).kind == GateOpKind::exchange);
  const Circuit diagonal = circuit_of(3, {make_gate("CCZ", {0, 1, 2})});
  CHECK(lower(diagonal.program, {.unfuses_cosets = true}).gate_ops.at(0).kind == GateOpKind::diagonal);
  const Gate twice = controlled(controlled(rotation("RX", 0), 1), 2);
  CHECK(lower(circuit_of(3, {twice}).program).gate_ops.at(0).kind == GateOpKind::dense);
}

TEST(gate_ops_know_their_groups) {
  Gate gate = controlled(make_gate("SWAP", {3, 1}), 0);
  gate.control_values[0] = false;
  const GateOp gate_op = lower(circuit_of(4, {gate}).program).gate_ops.at(0);
  CHECK(gate_op.groups.size() == 2);
  CHECK(gate_op.groups[0] == 0 && gate_op.groups[1] == 2);
  CHECK(gate_op.offsets == std::vector<Index>({4, 1}));  // |01> and |10> of wires 3 and 1
  CHECK(gate_op.gate == 0);
}

// Z flips there, X is a phase, and Y = i X Z changes its sign.
TEST(pauli_words_in_the_basis_of_x) {
  WireMap wire_map(2, Basis::x);
  wire_map.cnot(0, 1);  // Z on wire 1 becomes Z Z, X on wire 0 becomes X X
  wire_map.flip_wire(1);
  const auto same = [](const PauliWord& a, const PauliWord& b) {
    return a.x == b.x && a.z == b.z && a.y_count == b.y_count && a.negative == b.negative;
  };
  CHECK(same(wire_map.pauli_word("X", {0}), {0, 0b11, 0, false}));
  CHECK(same(wire_map.pauli_word("Z", {1}), {0b11, 0, 0, true}));
  CHECK(same(wire_map.pauli_word("Y", {0}), {0b10, 0b11, 1, true}));
  CHECK(same(wire_map.pauli_word("Y", {1}), {0b11, 0b01, 1, false}));
}

TEST(the_basis_with_fewer_rotations_is_chosen) {
  std::vector<Gate> layer;
  for (int w = 0; w < 4; ++w) {
    for (const char* name : {"RX", "RZ", "RX"}) layer.push_back(rotation(name, w));
  }
  for (int w = 0; w < 4; ++w) layer.push_back(make_gate("CNOT", {w, (w + 1) % 4}));
  std::vector<Gate> gates;
  for (int l = 0; l < 3; ++l) gates.insert(gates.end(), layer.begin(), layer.end());
  const Measurement pauli_word{MeasurementKind::expval, {}, {{1, {}, {1, 2}, "ZY", {}}}};
  const auto basis = [&](const Measurement& m) { return lower(circuit_of(4, gates, m).program).wire_map.basis(); };
  CHECK(basis(pauli_word) == Basis::x);
  CHECK(basis(measured_state) == Basis::z);
  CHECK(basis({MeasurementKind::var, {}, pauli_word.terms}) == Basis::z);
  Circuit prepared = circuit_of(4, gates, pauli_word);
  prepared.program.initial = {Preparation::state, {0}, {}, prepared.add_input(Role::state, 1)};
  CHECK(lower(prepared.program).wire_map.basis() == Basis::z);
  gates.push_back(make_gate("Toffoli", {0, 1, 2}));
  CHECK(basis(pauli_word) == Basis::z);
  gates = layer;
  CHECK(basis(pauli_word) == Basis::z);  // the first rotations have next to nothing to mix
}

// --- the light cone --------------------------------------------------------------------------------------------------

Lowered inside(int num_wires, const std::vector<Gate>& gates, const Measurement& measurement) {
  const Circuit circuit = circuit_of(num_wires, gates, measurement);
  Lowered lowered = lower(circuit.program);
  keep_light_cone(circuit.program, lowered);
  return lowered;
}

std::vector<int> gates_inside(const Lowered& lowered) {
  std::vector<int> gates;
  for (const Rotation& t : lowered.rotations) {
    if (gates.empty() || gates.back() != t.gate) gates.push_back(t.gate);
  }
  return gates;
}

TEST(gates_outside_the_light_cone_are_left_out) {
  const std::vector<Gate> chain{rotation("RY", 0),
                                rotation("RY", 1),
                                make_gate("CZ", {0, 1}),
                                rotation("RY", 0),
                                rotation("RY", 1),
                                controlled(rotation("RX", 2), 1),
                                make_gate("GlobalPhase", {}, {{}})};
  const auto seen = [&](const Measurement& m) { return gates_inside(inside(4, chain, m)); };
  CHECK(seen({MeasurementKind::probs, {0}, {}}) == Shape({0, 1, 2, 3}));
  CHECK(seen({MeasurementKind::probs, {2}, {}}) == Shape({0, 1, 2, 4, 5}));
  CHECK(seen({MeasurementKind::probs, {3}, {}}).empty());
  CHECK(seen(measured_state) == Shape({0, 1, 2, 3, 4, 5, 6}));
  CHECK(inside(4, chain, {MeasurementKind::probs, {0}, {}}).dropped == 3);
  CHECK(inside(4, chain, measured_state).dropped == 0);
}

TEST(phases_before_a_diagonal_measurement_are_outside) {
  const std::vector<Gate> gates{rotation("RY", 0), make_gate("CNOT", {0, 1}), rotation("RZ", 0), rotation("RZ", 1),
                                make_gate("CNOT", {1, 2})};
  CHECK(gates_inside(inside(3, gates, {MeasurementKind::probs, {2}, {}})) == Shape({0}));
  CHECK(gates_inside(inside(3, gates, {MeasurementKind::density_matrix, {0}, {}})) == Shape({0, 2}));
  CHECK(gates_inside(inside(3, gates, {MeasurementKind::density_matrix, {0, 1}, {}})) == Shape({0, 2, 3}));
}

TEST(gate_ops_outside_the_light_cone_are_left_out) {
  const std::vector<Gate> gates{make_gate("Toffoli", {0, 1, 2}), make_gate("CCZ", {0, 1, 3})};
  CHECK(inside(4, gates, {MeasurementKind::probs, {2}, {}}).gate_ops.size() == 1);
  CHECK(inside(4, gates, {MeasurementKind::probs, {0}, {}}).gate_ops.empty());
  CHECK(inside(4, gates, {MeasurementKind::density_matrix, {0}, {}}).gate_ops.size() == 1);
  CHECK(inside(4, gates, {MeasurementKind::density_matrix, {0}, {}}).rotations.size() == 1);
}

// A matrix that is an input may be any: its gradient has directions that leave the unitary ones.
TEST(matrices_are_inside_the_light_cone) {
  Circuit circuit = circuit_of(3, {rotation("RY", 1), rotation("RY", 2)}, {MeasurementKind::probs, {0}, {}});
  Gate matrix = make_gate("QubitUnitary", {1});
  matrix.input = circuit.add_input(Role::unitary, 1);
  circuit.program.gates.push_back(matrix);
  circuit.program.gates.push_back(rotation("RY", 1));
  Lowered lowered = lower(circuit.program);
  keep_light_cone(circuit.program, lowered);
  CHECK(lowered.gate_ops.size() == 1);
  CHECK(gates_inside(lowered) == Shape({0}));
  CHECK(lowered.dropped == 2);
}

// --- operations ------------------------------------------------------------------------------------------------------

TEST(blocks_hold_three_rotations) {
  std::vector<Gate> gates;
  for (int w = 0; w < 7; ++w) gates.push_back(rotation("RY", w));
  CHECK(shape(plan_of(7, gates)) == Shape({3, 3, 1}));
}

// Rows of four amplitudes: wires 4 and 5 are lanes.
constexpr Layout single{2, 0, max_wires};

TEST(rotations_that_trade_lanes_have_blocks_of_their_own) {
  std::vector<Gate> gates;
  for (int w = 0; w < 6; ++w) gates.push_back(rotation("RY", w));
  const Plan plan = plan_of(6, gates, single);
  CHECK(shape(plan) == Shape({3, 1, 2}));
  const RotationBlock& lanes = std::get<RotationBlock>(std::get<TilePass>(plan.passes[0]).operations[2]);
  CHECK(lanes.trades_lanes() && lanes.stays_in_rows());
  CHECK(lanes.lane_flip == (RotationBlock::PerRotation<Mask>{0b10, 0b01}));
  CHECK(lanes.groups.size() == 16);
}

// Behind CNOTs, rotations on wires 0 and 1 flip lanes as well. That on wire 2 flips another row, that on 3 the same
// lanes.
TEST(rotations_that_trade_rows_and_lanes_share_a_block) {
  std::vector<Gate> gates;
  for (int w = 0; w < 4; ++w) gates.push_back(make_gate("CNOT", {w, 4 + w % 2}));
  for (int w = 0; w < 4; ++w) gates.push_back(rotation("RY", w));
  const Plan plan = plan_of(6, gates, single);
  CHECK(shape(plan) == Shape({3, 1}));
  const RotationBlock& block = std::get<RotationBlock>(std::get<TilePass>(plan.passes[0]).operations[0]);
  CHECK(block.trades_lanes() && !block.stays_in_rows());
  CHECK(block.lane_flip == (RotationBlock::PerRotation<Mask>{0b10, 0b01, 0b10}));
  CHECK(block.groups.size() == 2);
}

TEST(controlled_rotations_act_on_half_the_amplitudes) {
  CHECK(shape(plan_of(3, {make_gate("CRY", {0, 2}, {{0, 0, 1, 0}})})) == Shape({1}));
  CHECK(shape(plan_of(3, {make_gate("CRX", {0, 2}, {{0, 0, 1, 0}})})) == Shape({-1, 1, -1}));
  CHECK(shape(plan_of(3, {make_gate("SingleExcitation", {0, 2}, {{0, 0, 1, 0}})})) == Shape({1}));
  CHECK(shape(plan_of(3, {make_gate("IsingXY", {0, 2}, {{0, 0, 1, 0}})})) == Shape({-1, 1, -1}));
  Gate gate = controlled(rotation("RY", 2), 0);
  gate.control_values[0] = false;
  const Lowered lowered = lower(circuit_of(3, {gate}).program);
  CHECK(lowered.rotations.at(0).half == (Half{0b100, true}));
  Layout layout = whole;
  layout.splits_halves = true;
  const Plan split = plan_of(3, {gate}, layout);
  CHECK(shape(split) == Shape({1, 1}));
  CHECK(split.rotations[0].half.is_all() && split.rotations[1].half.is_all());
}

// Three rotations of one control share the groups of a block; a rotation of another half has its own.
TEST(rotations_of_one_half_share_a_block) {
  std::vector<Gate> gates;
  for (int w = 1; w < 4; ++w) gates.push_back(controlled(rotation("RY", w), 0));
  CHECK(shape(plan_of(5, gates)) == Shape({3}));
  gates.push_back(controlled(rotation("RY", 4), 1));
  CHECK(shape(plan_of(5, gates)) == Shape({3, 1}));
  gates[0].control_values[0] = false;
  CHECK(shape(plan_of(5, gates)) == Shape({1, 2, 1}));
}

// All amplitudes of a block's half, each once, and no others: whatever of row, lane and tile its parity is of.
TEST(halves_are_gone_over_once) {
  Random random(7);
  int cut = 0;
  for (int round = 0; round < 400; ++round) {
    const int lane_bits = random.below(4);
    const Layout layout{lane_bits, 0, random.chance(0.5) ? max_wires : lane_bits + 1 + random.below(3)};
    std::vector<Gate> gates;
    for (int w = 0; w < 6; ++w) gates.push_back(rotation("RY", w));
    for (int g = 0; g < 5; ++g) {
      const char* name = random.chance(0.3) ? "CNOT" : random.chance(0.5) ? "CRY" : "SingleExcitation";
      gates.push_back(make_gate(name, random.wires(6, 2), std::vector<Slot>(name[1] == 'N' ? 0 : 1)));
    }
    const Plan plan = plan_of(6, gates, layout);
    for (const TilePass* pass : tile_passes(plan)) {
      for (const TileOp& op : pass->operations) {
        const auto* block = std::get_if<RotationBlock>(&op);
        if (block == nullptr || !block->half) continue;
        cut += block->cuts_groups();
        const Half& half = plan.rotations[block->rotations[0]].half;
        std::vector<int> seen(64, 0);
        for (Index tile = 0; tile < pass->tiles.size(); ++tile) {
          const auto visit = [&](const IndexMap& groups, bool odd) {
            for (Index g = 0; g < groups.size(); ++g) {
              for (Index lane = 0; lane < Index{1} << lane_bits; ++lane) {
                const Index first = pass->tiles[tile] ^ pass->rows[groups[g]] ^ lane;
                const bool is_odd = odd_parity(block->half->tile_mask & static_cast<Mask>(pass->tiles[tile])) !=
                                    (odd != odd_parity(block->half->lane_mask & static_cast<Mask>(lane)));
                CHECK(odd_parity(static_cast<Mask>(first) & half.mask) == is_odd);
                for (Index members = 0; members < Index{1} << block->rotations.size(); ++members) {
                  Index at = first;
                  for (std::size_t j = 0; j < block->rotations.size(); ++j)
                    at ^= (members >> j) & 1 ? static_cast<Index>(plan.rotations[block->rotations[j]].pauli_word.x) : 0;
                  if (block->stays_in_rows() && block->trades_lanes()) at = first;
                  seen[at] += is_odd != half.even;
                }
              }
            }
          };
          visit(block->groups, false);
          if (block->half->odd_groups) visit(*block->half->odd_groups, true);
        }
        const int each = block->stays_in_rows() ? 1 << block->rotations.size() : 1;
        for (Index i = 0; i < 64; ++i)
          CHECK(seen[i] == (odd_parity(static_cast<Mask>(i) & half.mask) != half.even ? each : 0));
      }
    }
  }
  CHECK(cut > 20);
}

TEST(rotations_of_one_wire_are_not_in_one_block) {
  CHECK(shape(plan_of(2, {rotation("RY", 0), rotation("RY", 0)})) == Shape({1, 1}));
}

TEST(rotations_that_read_different_inputs_stay_apart) {
  CHECK(shape(plan_of(2, {rotation("RY", 0), make_gate("RY", {1}, {{1, 0, 1, 0}})})) == Shape({1, 1}));
}

// RZ before, RZ after and the next layer's first RZ: two tables for two layers, not six.
TEST(phases_of_neighbouring_layers_merge) {
  std::vector<Gate> gates;
  for (int layer = 0; layer < 2; ++layer) {
    for (int w = 0; w < 3; ++w) {
      gates.push_back(rotation("RZ", w));
      gates.push_back(rotation("RY", w));
      gates.push_back(rotation("RZ", w));
    }
    for (int w = 0; w < 3; ++w) gates.push_back(make_gate("CNOT", {w, (w + 1) % 3}));
  }
  CHECK(shape(plan_of(3, gates)) == Shape({-3, 3, -6, 3, -3}));
}

TEST(phases_of_one_pauli_word_are_one_string) {
  CHECK(shape(plan_of(2, {rotation("RZ", 0), make_gate("S", {0}), rotation("PhaseShift", 0)})) == Shape({-2}));
}

// Before the first rotations there are two rows to multiply, for rows go in pairs; behind those of three wires all rows
// are.
TEST(phases_leave_out_rows_that_are_zero) {
  std::vector<Gate> gates;
  for (int w = 0; w < 6; ++w) gates.push_back(rotation("RZ", w));
  for (int w = 0; w < 3; ++w) gates.push_back(rotation("RY", w));
  for (int w = 0; w < 6; ++w) gates.push_back(rotation("RZ", w));
  const Plan plan = plan_of(6, gates, single);
  CHECK(shape(plan) == Shape({-6, 3, -3}));  // those of the other wires have no rotation to wait for
  CHECK(std::get<Phases>(std::get<TilePass>(plan.passes[0]).operations[0]).num_active == 2);
  CHECK(std::get<Phases>(std::get<TilePass>(plan.passes[0]).operations[2]).num_active == 8);
}

// The order of rows is such that independent strings change with one bit each.
TEST(phases_tell_strings_apart) {
  std::vector<Gate> gates;
  for (int w = 0; w < 6; ++w) gates.push_back(rotation("RY", w));
  for (int w = 0; w < 3; ++w) gates.push_back(make_gate("CNOT", {w, w + 1}));
  for (int w = 0; w < 4; ++w) gates.push_back(rotation("RZ", w));
  const Plan plan = plan_of(6, gates, single);
  const Phases& phases = std::get<Phases>(std::get<TilePass>(plan.passes[0]).operations.back());
  CHECK(phases.num_active == 16);
  for (const DiagonalRotation& s : phases.strings) CHECK(std::popcount(s.row_mask) == 1);
  std::vector<Index> rows;
  for (Index r = 0; r < 16; ++r) rows.push_back(phases.rows[r]);
  std::sort(rows.begin(), rows.end());
  for (Index r = 0; r < 16; ++r) CHECK(rows[r] == r);
}

// The deferred scale of unnormalised rotations is applied by phases, or by the last block.
TEST(the_last_block_applies_the_scale) {
  const Plan alone = plan_of(4, {rotation("RY", 0), rotation("RY", 1), rotation("RY", 2), rotation("RY", 3)});
  CHECK(std::get<RotationBlock>(std::get<TilePass>(alone.passes[0]).operations[0]).applies_scale_backward);
  CHECK(!std::get<RotationBlock>(std::get<TilePass>(alone.passes[0]).operations[0]).applies_scale_forward);
  CHECK(std::get<RotationBlock>(std::get<TilePass>(alone.passes[0]).operations[1]).applies_scale_forward);
  const Plan halves = plan_of(3, {rotation("RY", 0), rotation("RY", 1), make_gate("CRY", {0, 2}, {{0, 0, 1, 0}})});
  CHECK(shape(halves) == Shape({2, 1}));  // a rotation of half the amplitudes cannot
  CHECK(std::get<RotationBlock>(std::get<TilePass>(halves.passes[0]).operations[0]).applies_scale_forward);
  CHECK(!std::get<RotationBlock>(std::get<TilePass>(halves.passes[0]).operations[1]).applies_scale_forward);
  const Plan followed = plan_of(1, {rotation("RY", 0), rotation("RZ", 0)});
  CHECK(!std::get<RotationBlock>(std::get<TilePass>(followed.passes[0]).operations[0]).applies_scale_forward);
  CHECK(std::get<RotationBlock>(std::get<TilePass>(followed.passes[0]).operations[0]).applies_scale_backward);
}

// --- tiles -----------------------------------------------------------------------------------------------------------

TEST(geometry) {
  Random random(3);
  for (int round = 0; round < 100; ++round) {
    TileGeometry tile(9, 2, 5, 0);
    std::vector<Mask> held;
    for (int j = 0; j < 6; ++j) {
      const Mask flip = static_cast<Mask>(random.below(512));
      if (tile.reach(flip)) held.push_back(flip);
    }
    tile.fill();
    CHECK(tile.span().size() == 5);
    std::vector<Mask> parities;
    for (int j = 0; j < 4; ++j) parities.push_back(static_cast<Mask>(random.below(512)));
    Index num_active = 0;
    Span support;
    support.add(static_cast<Mask>(random.below(512)));
    const IndexMap tiles = tile.tiles(0, support, parities, num_active);
    const IndexMap rows = tile.rows();
    CHECK(tiles.size() * rows.size() * 4 == 512);
    std::vector<int> seen(512, 0);
    for (Index t = 0; t < tiles.size(); ++t) {
      for (Index r = 0; r < rows.size(); ++r) {
        for (Index lane = 0; lane < 4; ++lane) ++seen[tiles[t] ^ rows[r] ^ lane];
      }
    }
    CHECK(std::count(seen.begin(), seen.end(), 1) == 512);
    for (const Mask flip : held) {
      const Mask local = tile.flip(flip);
      CHECK((static_cast<Mask>(rows[static_cast<Index>(local >> 2)]) ^ (local & 3)) == flip);
      for (const Mask p : parities) CHECK(odd_parity(tile.parity(p) & local) == odd_parity(p & flip));
    }
  }
}

TEST(tiles_hold_runs_of_neighbouring_rows) {
  TileGeometry tile(9, 2, 6, 2);
  CHECK(tile.reach(unit(8)));
  CHECK(tile.reach(unit(7)));
  CHECK(!tile.reach(unit(6)));
  const IndexMap rows = tile.rows();
  CHECK(rows.size() == 16);
  for (Index r = 0; r < 4; ++r) CHECK(rows[r] == 4 * r);
}

// --- support ---------------------------------------------------------------------------------------------------------

using Amplitudes = std::vector<bool>;

// Rows of a tile that an operation visits, by their numbers in the tile.
std::vector<Index> visited_rows(const Phases& phases, int) {
  std::vector<Index> rows;
  for (Index r = 0; r < phases.num_active; ++r) rows.push_back(phases.rows[r]);
  return rows;
}

// Of rotations of half the amplitudes, those of either half: what is done there, if anything, is done in the scale that
// is met.
std::vector<Index> visited_rows(const RotationBlock& block, int part_bits) {
  std::vector<Index> rows;
  const auto visit = [&](const IndexMap& groups, Index num_active) {
    for (Index g = 0; g < num_active; ++g) {
      for (Index members = 0; members < Index{1} << block.rotations.size(); ++members) {
        Index row = groups[g];
        for (std::size_t j = 0; j < block.rotations.size(); ++j) row ^= (members >> j) & 1 ? block.row_flip[j] : 0;
        rows.push_back(row >> part_bits);
      }
    }
  };
  visit(block.groups, block.num_active);
  if (block.half && block.half->odd_groups) visit(*block.half->odd_groups, block.half->num_odd_active);
  return rows;
}

std::vector<Index> visited_rows(const CosetPhase&, int) { return {}; }
std::vector<Index> visited_rows(const TileMatrix&, int) { return {}; }

Amplitudes visited(const Plan& plan, const TilePass& pass, const TileOp& op) {
  const int n = plan.program->num_wires;
  Amplitudes found(std::size_t{1} << n, false);
  const auto rows = std::visit([&](const auto& o) { return visited_rows(o, plan.layout.part_bits); }, op);
  for (Index tile = 0; tile < pass.num_active_tiles; ++tile) {
    for (const Index row : rows) {
      for (Index lane = 0; lane < Index{1} << std::min(plan.layout.lane_bits, n); ++lane)
        found[pass.tiles[tile] ^ pass.rows[row] ^ lane] = true;
    }
  }
  return found;
}

bool includes(const Amplitudes& larger, const Amplitudes& smaller) {
  for (std::size_t i = 0; i < larger.size(); ++i) {
    if (smaller[i] && !larger[i]) return false;
  }
  return true;
}

// What an operation visits, those behind it visit too, up to the first unfused gate: whoever goes back meets nothing
// that has another scale than the rest. And rows of single states go in pairs.
void check_support(const Plan& plan) {
  Amplitudes before(std::size_t{1} << plan.program->num_wires, false);
  before[plan.initial.index] = true;
  for (const Pass& pass : plan.passes) {
    const auto* tiles = std::get_if<TilePass>(&pass);
    if (tiles == nullptr) {
      before.assign(before.size(), true);
      continue;
    }
    for (const TileOp& op : tiles->operations) {
      if (std::holds_alternative<CosetPhase>(op) || std::holds_alternative<TileMatrix>(op)) continue;
      const Amplitudes now = visited(plan, *tiles, op);
      CHECK(includes(now, before));
      before = now;
      if (const auto* phases = std::get_if<Phases>(&op))
        CHECK(plan.layout.part_bits != 0 || tiles->rows.size() == 1 || phases->num_active % 2 == 0);
    }
  }
}

TEST(supports_only_grow) {
  Random random(6);
  int local = 0;
  int elsewhere = 0;
  for (int round = 0; round < 600; ++round) {
    const int n = 2 + random.below(8);
    Circuit circuit = pauli_word_circuit(random, n, random.below(40));
    if (random.chance(0.7)) circuit.program.measurements = {measured_state};
    const int lane_bits = random.below(4);
    for (const Layout& layout : {whole, Layout{lane_bits, 0, max_wires}, Layout{lane_bits, 0, lane_bits + 1},
                                 Layout{lane_bits, 0, lane_bits + 2}, Layout{0, 0, 3}}) {
      const Plan plan = make_plan(circuit.program, layout);
      check_support(plan);
      for (const TilePass* pass : tile_passes(plan)) {
        local += pass->num_active_tiles == 1 && pass->tiles.size() > 1;
        elsewhere += pass->num_active_tiles > 1 && pass->num_active_tiles < pass->tiles.size();
      }
    }
  }
  CHECK(local > 100);
  CHECK(elsewhere > 100);
}

// --- phases on cosets ------------------------------------------------------------------------------------------------

TEST(controlled_phases_share_a_pass_with_rotations) {
  const Gate phase = controlled(controlled(rotation("RZ", 2), 1), 0);
  CHECK(shape(plan_of(5, {rotation("RY", 3), make_gate("CCZ", {0, 1, 2}), rotation("RY", 4)})) ==
        Shape({coset_phase, 2}));
  CHECK(shape(plan_of(4, {rotation("RY", 0), phase, rotation("RY", 3), rotation("RY", 0)})) ==
        Shape({2, coset_phase, coset_phase, 1}));
  CHECK(shape(plan_of(4, {rotation("RY", 0), phase}, {.tile_bits = max_wires, .unfuses_cosets = true})) ==
        Shape({1, 0}));
}

// What `coset` takes of a tile, as marks on the amplitudes of the state.
void mark(const TilePass& pass, Index tile, const TileCoset& coset, const Layout& layout, std::vector<int>& marks) {
  const auto base = static_cast<Mask>(pass.tiles[tile]);
  const auto holds = [&](const auto& sign) { return sign.at(base); };
  if (std::ranges::any_of(coset.tiles, holds)) return;
  Index shift = 0;
  for (const TileCoset::RowShift& s : coset.shifts) {
    if (holds(s.sign) && s.leaves_support) return;
    shift ^= holds(s.sign) ? s.row : 0;
  }
  for (Index number = 0; number < coset.num_active; ++number) {
    for (Mask lane = 0; lane < unit(layout.lane_bits); ++lane) {
      const bool inside = std::ranges::all_of(coset.lanes, [&](const TileCoset::Lanes& l) {
        return odd_parity(lane & l.mask) == (odd_parity(static_cast<Mask>(number) & l.row_mask) != holds(l.sign));
      });
      if (inside) ++marks[base ^ static_cast<Mask>(pass.rows[coset.rows[number] ^ shift]) ^ lane];
    }
  }
}

// Each amplitude of the coset once, as far as the operations around it go.
TEST(cosets_are_what_the_controls_say) {
  Random random(7);
  int count = 0;
  for (int round = 0; round < 400; ++round) {
    const int n = 3 + random.below(6);
    Circuit circuit = coset_circuit(random, n, random.below(20));
    circuit.program.measurements = {measured_state};
    const int lane_bits = random.below(std::min(n, 4));
    for (const Layout& layout : {Layout{0, 0, max_wires}, Layout{lane_bits, 0, max_wires},
                                 Layout{lane_bits, 0, 2 + lane_bits}, Layout{lane_bits, 0, 1 + lane_bits}}) {
      const Plan plan = make_plan(circuit.program, layout);
      for (const TilePass* pass : tile_passes(plan)) {
        std::vector<int> before(std::size_t{1} << n, 0);
        for (const TileOp& op : pass->operations) {
          const auto* phase = std::get_if<CosetPhase>(&op);
          if (phase == nullptr) {
            const Amplitudes now = visited(plan, *pass, op);
            before.assign(now.begin(), now.end());
            continue;
          }
          std::vector<int> marks(std::size_t{1} << n, 0);
          for (Index tile = 0; tile < pass->num_active_tiles; ++tile) mark(*pass, tile, phase->coset, layout, marks);
          for (std::size_t i = 0; i < marks.size(); ++i) {
            const bool inside = std::ranges::all_of(plan.rotations[phase->rotation].coset,
                                                    [&](const Half& h) { return odd_parity(i & h.mask) != h.even; });
            CHECK(marks[i] <= (inside ? 1 : 0));
            CHECK(marks[i] == 1 || !inside || before[i] == 0);
          }
          ++count;
        }
      }
    }
  }
  CHECK(count > 1000);
}

// --- matrices in passes ----------------------------------------------------------------------------------------------

Gate unitary(const std::vector<int>& wires) { return make_gate("QubitUnitary", wires); }

// A plan of gates of which those that are matrices have an input each.
Plan plan_with_matrices(int num_wires, std::vector<Gate> gates, const Layout& layout) {
  static std::vector<Circuit> kept;
  kept.reserve(1000);
  kept.push_back(circuit_of(num_wires, {}));
  for (Gate& g : gates) {
    if (gate_info(g.opcode).family == Family::matrix)
      g.input = kept.back().add_input(Role::unitary, static_cast<int>(g.targets.size()));
    kept.back().program.gates.push_back(g);
  }
  kept.back().program.validate();
  return make_plan(kept.back().program, layout);
}

TEST(matrices_share_a_pass_with_what_they_commute_with) {
  const Layout tiles{.lane_bits = 1, .tile_bits = 4, .fuses_matrices = true};
  const Layout one_tile{.lane_bits = 1, .tile_bits = max_wires, .fuses_matrices = true};
  const std::vector<Gate> gates{rotation("RY", 0), unitary({0, 1}), rotation("RY", 2), unitary({1, 2, 3}),
                                rotation("RY", 1)};
  CHECK(shape(plan_with_matrices(4, gates, one_tile)) == Shape({2, matrix, matrix, 1}));
  CHECK(shape(plan_with_matrices(4, gates, {.lane_bits = 1, .tile_bits = max_wires})) == Shape({1, 0, 1, 0, 1}));
  // Of six wires a tile holds four: what waits for wires 4 and 5 has a pass of its own.
  const std::vector<Gate> brick{unitary({0, 1}), unitary({2, 5}), unitary({3, 4}), unitary({1, 2}), unitary({0, 1})};
  const Plan plan = plan_with_matrices(6, brick, tiles);
  CHECK(shape(plan) == Shape({matrix, matrix, matrix, matrix, matrix}));
  CHECK(plan.passes.size() == 2);
  // Four wires never, and three only where a tile has room for them.
  CHECK(shape(plan_with_matrices(6, {unitary({0, 1, 2, 3})}, one_tile)) == Shape({0}));
  CHECK(shape(plan_with_matrices(6, {unitary({0, 1, 2})}, tiles)) == Shape({matrix}));
  CHECK(shape(plan_with_matrices(6, {unitary({0, 1, 2})}, {.lane_bits = 2, .tile_bits = 4, .fuses_matrices = true})) ==
        Shape({0}));
}

// The local state of a lane of row m of a group, -1 where it is left as it is, and the place of an amplitude.
struct MatrixPlace {
  const TilePass& pass;
  const TileMatrix& matrix;
  Mask base;
  Index shift = 0;
  bool is_visited = true;

  MatrixPlace(const TilePass& pass, const TileMatrix& matrix, Index tile)
      : pass(pass), matrix(matrix), base(static_cast<Mask>(pass.tiles[tile])) {
    const auto holds = [&](const auto& sign) { return sign.at(base); };
    is_visited = std::ranges::none_of(matrix.groups.tiles, holds);
    for (const TileCoset::RowShift& s : matrix.groups.shifts) {
      is_visited = is_visited && !(holds(s.sign) && s.leaves_support);
      shift ^= holds(s.sign) ? s.row : 0;
    }
  }

  int state(Index group, int m, Mask lane) const {
    int found = matrix.states[lane];
    for (const TileMatrix::Variation& v : matrix.variations) {
      const bool is_odd = odd_parity(static_cast<Mask>(group) & v.row_mask) != v.sign.at(base);
      CHECK(odd_parity(static_cast<Mask>(group & (matrix.alike - 1)) & v.row_mask) == false);
      if (v.lane_mask != 0 && odd_parity(lane & v.lane_mask) != is_odd) return -1;
      if (found >= 0 && is_odd) found ^= v.state;
    }
    return found < 0 ? -1 : found ^ matrix.row_states[m];
  }

  Mask amplitude(Index group, int m, Mask lane) const {
    const auto row = static_cast<Mask>(pass.rows[matrix.groups.rows[group] ^ shift ^ matrix.row_offsets[m]]);
    return base ^ row ^ lane ^ matrix.row_flips[m];
  }
};

// Marks what a matrix mixes in a tile; each amplitude has the local state that the gate says, and so have all terms.
void mark(const TilePass& pass, Index tile, const TileMatrix& matrix, const GateOp& gate_op, const Layout& layout,
          std::vector<int>& marks) {
  std::vector<int> states(marks.size(), -1);
  std::vector<Index> groups(marks.size(), -1);
  for (Index g = 0; g < gate_op.groups.size(); ++g) {
    for (int a = 0; a < gate_op.size(); ++a) {
      states[gate_op.groups[g] ^ gate_op.offsets[a]] = a;
      groups[gate_op.groups[g] ^ gate_op.offsets[a]] = g;
    }
  }
  const MatrixPlace place(pass, matrix, tile);
  for (Index group = 0; place.is_visited && group < matrix.groups.num_active; ++group) {
    for (int m = 0; m < matrix.rows(); ++m) {
      for (Mask lane = 0; lane < unit(layout.lane_bits); ++lane) {
        const Mask at = place.amplitude(group, m, lane);
        const int state = place.state(group, m, lane);
        CHECK(state == states[at]);
        if (state < 0) continue;
        ++marks[at];
        for (int u = 0; u < matrix.size(); ++u) {
          const int other = u / matrix.trades();
          const int trade = u % matrix.trades();
          const Mask partner = place.amplitude(group, other, lane ^ matrix.lane_flips[trade]);
          CHECK(groups[partner] == groups[at]);
          CHECK(states[partner] ==
                (state ^ matrix.row_states[m] ^ matrix.row_states[other] ^ matrix.lane_states[trade]));
        }
      }
    }
  }
}

// Each amplitude on which the gate acts once, as far as the operations before it go.
TEST(matrices_mix_what_their_gates_say) {
  Random random(8);
  int count = 0;
  int varying = 0;
  for (int round = 0; round < 300; ++round) {
    const int n = 3 + random.below(6);
    Circuit circuit = dense_circuit(random, n, 20);
    circuit.program.measurements = {measured_state};
    const Lowered unfused = lower(circuit.program);  // gates with their groups
    const int lane_bits = random.below(std::min(n, 4));
    for (const Layout& layout :
         {Layout{.lane_bits = lane_bits, .tile_bits = max_wires, .fuses_matrices = true},
          Layout{.lane_bits = lane_bits, .tile_bits = 3 + lane_bits, .fuses_matrices = true},
          Layout{.lane_bits = lane_bits, .tile_bits = 3 + lane_bits, .run_bits = 1, .fuses_matrices = true}}) {
      const Plan plan = make_plan(circuit.program, layout);
      for (const TilePass* pass : tile_passes(plan)) {
        std::vector<int> before(std::size_t{1} << n, 0);
        for (const TileOp& op : pass->operations) {
          const auto* matrix = std::get_if<TileMatrix>(&op);
          if (matrix == nullptr) {
            if (std::holds_alternative<CosetPhase>(op)) continue;
            const Amplitudes now = visited(plan, *pass, op);
            before.assign(now.begin(), now.end());
            continue;
          }
          const GateOp& gate_op = unfused.gate_ops[matrix->gate_op];
          CHECK(gate_op.gate == plan.gate_ops[matrix->gate_op].gate);
          std::vector<int> marks(std::size_t{1} << n, 0);
          for (Index tile = 0; tile < pass->num_active_tiles; ++tile)
            mark(*pass, tile, *matrix, gate_op, layout, marks);
          for (std::size_t i = 0; i < marks.size(); ++i) {
            const bool inside =
                std::ranges::all_of(gate_op.coset, [&](const Half& h) { return odd_parity(i & h.mask) != h.even; });
            CHECK(marks[i] <= (inside ? 1 : 0));
            CHECK(marks[i] == 1 || !inside || before[i] == 0);
            before[i] = std::max(before[i], marks[i]);
          }
          ++count;
          varying += matrix->variations.empty() ? 0 : 1;
        }
      }
    }
  }
  CHECK(count > 1000);
  CHECK(varying > 100);
}

int rotations_planned(const Plan& plan) {
  int count = 0;
  for (const TilePass* pass : tile_passes(plan)) {
    for (const TileOp& op : pass->operations) {
      if (const auto* block = std::get_if<RotationBlock>(&op)) count += static_cast<int>(block->rotations.size());
      if (const auto* phases = std::get_if<Phases>(&op)) {
        for (const DiagonalRotation& s : phases->strings) count += static_cast<int>(s.rotations.size());
      }
    }
  }
  return count;
}

Plan plan_in_time(const Program& program, const char* what) {
  const auto start = std::chrono::steady_clock::now();
  Plan plan = make_plan(program, {.lane_bits = 3, .tile_bits = 13, .fuses_matrices = true});
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  std::printf("planned %zu gates on 20 wires, %s, in %.1f ms, %zu passes\n", program.gates.size(), what, ms,
              plan.passes.size());
  CHECK(ms < 250);  // 10 ms is the aim; sanitizers and busy machines are slower
  return plan;
}

// 20 wires, 1,000 gates.
TEST(large_plans_are_quick_and_complete) {
  Random random(4);
  Circuit layers = circuit_of(20, {});
  for (int g = 0; g < 1000; ++g) {
    const int w = g % 20;
    layers.program.gates.push_back(g % 80 >= 60 ? make_gate("CNOT", {w, (w + 1) % 20})
                                                : rotation(g % 80 / 20 == 1 ? "RY" : "RZ", w));
  }
  const Plan plan = plan_in_time(layers.program, "in layers");
  CHECK(rotations_planned(plan) == 760);
  CHECK(static_cast<int>(plan.rotations.size()) == 760);
  CHECK(plan.passes.size() < 20);  // a pass holds rotations of many layers

  constexpr std::array<std::string_view, 6> names{"RX", "RY", "RZ", "IsingZZ", "CRX", "CNOT"};
  Circuit anywhere = circuit_of(20, {});
  for (int g = 0; g < 1000; ++g) {
    const std::string_view name = names[random.below(6)];
    anywhere.program.gates.push_back(random_gate(random, anywhere, opcode_of(name), 0));
  }
  anywhere.program.measurements = {{MeasurementKind::state, {}, {}}};
  const Plan other = plan_in_time(anywhere.program, "anywhere");
  CHECK(rotations_planned(other) == static_cast<int>(other.rotations.size()));

  Circuit brickwork = circuit_of(20, {});
  for (int g = 0; g < 500; ++g) {
    const int w = (2 * (g % 10) + g / 10 % 2) % 20;
    brickwork.program.gates.push_back(unitary({w, (w + 1) % 20}));
    brickwork.program.gates.back().input = brickwork.add_input(Role::unitary, 2);
  }
  CHECK(plan_in_time(brickwork.program, "in bricks").passes.size() < 30);
}

// --- measurements ----------------------------------------------------------------------------------------------------

TEST(measurements_follow_each_other_in_the_results) {
  Program program = empty_circuit(3).program;
  program.measurements = {{MeasurementKind::probs, {0, 1}, {}},
                          {MeasurementKind::state, {}, {}},
                          {MeasurementKind::expval, {}, {{1, {}, {0}, "Z", {}}, {1, {}, {0}, "X", {}}}},
                          {MeasurementKind::density_matrix, {2}, {}},
                          {MeasurementKind::var, {}, {{1, {}, {0}, "Z", {}}}}};
  const Plan plan = make_plan(program, whole);
  CHECK(program.real_results() == 6);
  CHECK(program.complex_results() == 12);
  std::vector<Index> first;
  for (const PlannedMeasurement& m : plan.measurements) first.push_back(m.first_result);
  CHECK(first == std::vector<Index>({0, 0, 4, 8, 5}));
  CHECK(plan.observables.size() == 1);
  CHECK(plan.observables[0].groups.size() == 2);
  CHECK(plan.observables[0].groups[0].members[0].result == 4);
  CHECK(plan.measurements[4].terms.size() == 1);
  CHECK(resource_bounds(program).needs_scratch);
}

// Pauli words that flip the same bits are one group, whatever their letters.
TEST(pauli_words_are_grouped_by_what_they_flip) {
  Program program = empty_circuit(4).program;
  Measurement m{MeasurementKind::expval, {}, {}};
  for (const char* pauli_word : {"XXII", "YYII", "XYZI", "IIZZ", "ZIII", "IIIX"}) {
    Term t{1, {}, {}, "", {}};
    for (int w = 0; w < 4; ++w) {
      if (pauli_word[w] == 'I') continue;
      t.pauli_wires.push_back(w);
      t.pauli_word += pauli_word[w];
    }
    m.terms.push_back(t);
  }
  program.measurements = {m};
  std::vector<std::size_t> sizes;
  const Plan plan = make_plan(program, whole);
  for (const PauliGroup& g : plan.observables.at(0).groups) sizes.push_back(g.members.size());
  CHECK(sizes == std::vector<std::size_t>({2, 1, 3}));
}

// Tiles know something of each rotation of a pass, so there is an end to it; nothing is lost, be there many phases or
// rotations.
TEST(a_pass_ends_where_there_is_no_end_of_rotations) {
  Layout layout;
  layout.tile_bits = 4;
  std::vector<Gate> gates;
  for (int k = 0; k < 3000; ++k) gates.push_back(rotation("RZ", k % 4));
  for (int k = 0; k < 5000; ++k) gates.push_back(rotation(k % 2 == 0 ? "RX" : "RY", k % 4));
  const Plan plan = plan_of(6, gates, layout);
  std::size_t rotations = 0;
  for (const TilePass* pass : tile_passes(plan)) {
    std::size_t of_pass = 0;
    for (const TileOp& op : pass->operations) {
      if (const auto* block = std::get_if<RotationBlock>(&op)) of_pass += block->rotations.size();
    }
    CHECK(of_pass <= 2048);
    rotations += of_pass;
  }
  CHECK(rotations == 5000);
}

// Where the layout says so, Pauli words whose flips the last tile holds have its tiles; room that is left there is for
// them.
TEST(pauli_words_are_measured_in_the_last_pass) {
  Program program = empty_circuit(10).program;
  for (int w = 0; w < 10; ++w) program.gates.push_back(make_gate("RY", {w}, {{0, 0, 1, 0}}));
  Measurement m{MeasurementKind::expval, {}, {}};
  for (int w = 0; w < 10; ++w) {
    m.terms.push_back({1, {}, {w}, "X", {}});
    m.terms.push_back({1, {}, {w}, "Z", {}});
  }
  program.measurements = {m};
  Layout layout;
  layout.tile_bits = 6;
  CHECK(!make_plan(program, layout).observables.at(0).in_last_pass);
  layout.measures_in_passes = true;
  const Plan plan = make_plan(program, layout);
  CHECK(plan.observables.at(0).in_last_pass);
  const auto& last = std::get<TilePass>(plan.passes.back());
  const ObservablePass& with_it = plan.observables.at(0);
  for (Index r = 0; r < last.rows.size(); ++r) CHECK(with_it.rows[r] == last.rows[r]);
  for (Index t = 0; t < last.tiles.size(); ++t) CHECK(with_it.tiles[t] == last.tiles[t]);
  CHECK(with_it.groups.size() == 1 + 6);
  std::size_t pauli_words = 0;
  for (const ObservablePass& pass : plan.observables) {
    for (const PauliGroup& g : pass.groups) pauli_words += g.members.size();
  }
  CHECK(pauli_words == 20);
  // Not after an unfused gate.
  program.gates.push_back(make_gate("SWAP", {0, 1}));
  program.gates.back().controls = {2};
  program.gates.back().control_values = {true};
  CHECK(!make_plan(program, layout).observables.at(0).in_last_pass);
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
