// What the planner joins, what it must not, and what it makes of measurements.
#include <vector>

#include "check.h"
#include "circuits.h"
#include "core/plan.h"

namespace ketgrad::testing {
namespace {

using Groups = std::vector<std::vector<int>>;

Circuit circuit_of(int num_wires, const std::vector<Gate>& gates) {
  Circuit circuit = empty_circuit(num_wires);
  circuit.program.gates = gates;
  return circuit;
}

// Which gates each step holds.
Groups groups(const Program& program) {
  program.validate();
  Groups all;
  for (const Step& step : make_plan(program).steps) all.push_back(step.gates);
  return all;
}

Groups groups(int num_wires, const std::vector<Gate>& gates) { return groups(circuit_of(num_wires, gates).program); }

Gate rotation(const char* name, int wire, int column = 0) { return make_gate(name, {wire}, {{0, column, 1, 0}}); }

Gate controlled(Gate gate, int control) {
  gate.controls.insert(gate.controls.begin(), control);
  gate.control_values.insert(gate.control_values.begin(), true);
  return gate;
}

StepKind kind_of_first(int num_wires, const std::vector<Gate>& gates) {
  return make_plan(circuit_of(num_wires, gates).program).steps.at(0).kind;
}

TEST(gates_on_one_wire_join) {
  CHECK(groups(1, {rotation("RZ", 0), rotation("RY", 0), rotation("RZ", 0)}) == Groups({{0, 1, 2}}));
}

TEST(gates_elsewhere_do_not_close_a_step) {
  const std::vector<Gate> gates{rotation("RX", 0), rotation("RX", 1), make_gate("CNOT", {1, 2}), rotation("RY", 0),
                                make_gate("H", {2})};
  CHECK(groups(3, gates) == Groups({{0, 3}, {1}, {2}, {4}}));
}

TEST(a_gate_on_two_wires_separates_on_both) {
  CHECK(groups(2, {rotation("RX", 0), make_gate("CNOT", {0, 1}), rotation("RX", 0)}) == Groups({{0}, {1}, {2}}));
  CHECK(groups(2, {rotation("RX", 1), make_gate("CNOT", {0, 1}), rotation("RX", 1)}) == Groups({{0}, {1}, {2}}));
  CHECK(groups(2, {rotation("RX", 1), make_gate("IsingZZ", {1, 0}, {{0, 0, 1, 0}}), rotation("RX", 1)}) ==
        Groups({{0}, {1}, {2}}));
}

TEST(a_control_separates) {
  const std::vector<Gate> gates{rotation("RX", 0), controlled(rotation("RX", 1), 0), rotation("RX", 0)};
  CHECK(groups(2, gates) == Groups({{0}, {1}, {2}}));
  const Gate phase = controlled(make_gate("GlobalPhase", {}, {{0, 0, 1, 0}}), 0);
  CHECK(groups(1, {rotation("RX", 0), phase, rotation("RX", 0)}) == Groups({{0}, {1}, {2}}));
}

TEST(controlled_gates_do_not_join_each_other) {
  CHECK(groups(2, {controlled(rotation("RX", 1), 0), controlled(rotation("RX", 1), 0)}) == Groups({{0}, {1}}));
}

TEST(a_global_phase_closes_nothing) {
  CHECK(groups(1, {rotation("RX", 0), make_gate("GlobalPhase", {}, {{0, 0, 1, 0}}), rotation("RX", 0)}) ==
        Groups({{0, 2}, {1}}));
}

TEST(identities_vanish) {
  CHECK(groups(2, {rotation("RX", 0), make_gate("Identity", {0, 1}), rotation("RX", 0)}) == Groups({{0, 2}}));
  CHECK(groups(2, {make_gate("Identity", {0, 1})}).empty());
}

TEST(matrices_on_one_wire_join_and_larger_do_not) {
  Circuit circuit = empty_circuit(2);
  Gate small = make_gate("QubitUnitary", {0});
  small.input = circuit.add_input(Role::unitary, 1);
  Gate large = make_gate("QubitUnitary", {0, 1});
  large.input = circuit.add_input(Role::unitary, 2);
  Gate diagonal = make_gate("DiagonalQubitUnitary", {0});
  diagonal.input = circuit.add_input(Role::diagonal, 1);
  circuit.program.gates = {make_gate("H", {0}), small, large, rotation("RX", 0), diagonal, rotation("RX", 0)};
  CHECK(groups(circuit.program) == Groups({{0, 1}, {2}, {3}, {4}, {5}}));
  CHECK(make_plan(circuit.program).largest_block == 4);
  CHECK(make_plan(circuit.program).steps[0].inputs == std::vector<int>({small.input}));
}

// A word rotates without a matrix, on one wire too.
TEST(pauli_rotations_stay_alone) {
  Gate word = make_gate("PauliRot", {0}, {{0, 0, 1, 0}});
  word.word = "X";
  CHECK(groups(1, {rotation("RX", 0), word, rotation("RX", 0)}) == Groups({{0}, {1}, {2}}));
}

TEST(kinds_of_steps) {
  CHECK(kind_of_first(1, {rotation("RZ", 0), make_gate("S", {0}), rotation("PhaseShift", 0)}) == StepKind::diagonal);
  CHECK(kind_of_first(1, {rotation("RZ", 0), make_gate("X", {0})}) == StepKind::dense);
  CHECK(kind_of_first(1, {make_gate("X", {0}), rotation("RZ", 0)}) == StepKind::dense);
  CHECK(kind_of_first(1, {make_gate("X", {0}), make_gate("X", {0})}) == StepKind::dense);
  CHECK(kind_of_first(1, {make_gate("X", {0})}) == StepKind::exchange);
  CHECK(kind_of_first(3, {make_gate("CSWAP", {0, 1, 2})}) == StepKind::exchange);
  CHECK(kind_of_first(2, {make_gate("CZ", {0, 1})}) == StepKind::diagonal);
  CHECK(kind_of_first(2, {make_gate("CRX", {0, 1}, {{0, 0, 1, 0}})}) == StepKind::dense);
  CHECK(kind_of_first(2, {make_gate("MultiRZ", {0, 1}, {{0, 0, 1, 0}})}) == StepKind::pauli_rotation);
}

TEST(steps_know_each_input_once) {
  std::vector<Gate> gates{rotation("RX", 0), rotation("RY", 0, 1)};
  CHECK(make_plan(circuit_of(1, gates).program).steps[0].inputs == std::vector<int>({0}));
  gates = {make_gate("Rot", {0}, {{0, 0, 1, 0}, {1, 0, 1, 0}, {0, 1, 1, 0}})};
  CHECK(make_plan(circuit_of(1, gates).program).steps[0].inputs == std::vector<int>({0, 1}));
}

TEST(gates_that_read_different_inputs_stay_apart) {
  const Gate other = make_gate("RZ", {0}, {{1, 0, 1, 0}});
  CHECK(groups(1, {rotation("RX", 0), other, other, make_gate("H", {0}), rotation("RX", 0)}) ==
        Groups({{0}, {1, 2, 3}, {4}}));
}

TEST(controls_and_targets_fix_bits) {
  Gate gate = controlled(make_gate("SWAP", {3, 1}), 0);
  gate.control_values[0] = false;
  const Step step = make_plan(circuit_of(4, {gate, make_gate("CNOT", {2, 0})}).program).steps[0];
  CHECK(step.fixed.positions == std::vector<int>({0, 2, 3}));
  CHECK(step.fixed.value == 0);
  CHECK(step.offsets == std::vector<Index>({4, 1}));  // |01> and |10> of wires 3 and 1
  CHECK(make_plan(circuit_of(4, {make_gate("CNOT", {2, 0})}).program).steps[0].fixed.value == 2);
}

TEST(measurements_follow_each_other_in_the_results) {
  Program program = empty_circuit(3).program;
  program.measurements = {{MeasurementKind::probs, {0, 1}, {}},
                          {MeasurementKind::state, {}, {}},
                          {MeasurementKind::expval, {}, {{1, {}, {0}, "Z", {}}, {1, {}, {0}, "X", {}}}},
                          {MeasurementKind::density_matrix, {2}, {}},
                          {MeasurementKind::var, {}, {{1, {}, {0}, "Z", {}}}}};
  const Plan plan = make_plan(program);
  CHECK(program.real_results() == 6);
  CHECK(program.complex_results() == 12);
  std::vector<Index> first;
  for (const PlannedMeasurement& m : plan.measurements) first.push_back(m.first_result);
  CHECK(first == std::vector<Index>({0, 0, 4, 8, 5}));
  CHECK(plan.measurements[2].diagonals.size() == 1);
  CHECK(plan.measurements[2].terms.size() == 1);
  CHECK(plan.needs_scratch);
}

TEST(words_become_masks) {
  Program program = empty_circuit(4).program;
  program.measurements = {{MeasurementKind::expval, {}, {{1, {}, {3, 0, 1}, "XYZ", {}}}}};
  const PauliWord word = make_plan(program).measurements[0].terms.at(0).word;
  CHECK(word.x == 0b1001);
  CHECK(word.z == 0b1100);
  CHECK(word.y_count == 1);
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
