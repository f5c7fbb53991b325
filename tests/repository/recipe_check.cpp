// What docs/recipes.md adds, the last gate and the last measurement of the tables, on the CPU and on the emulated GPU:
// results, gradients and second derivatives against the dense simulator. Compiled by test_recipes.py.
#include "emulated_run.h"
#include "tangents.h"

namespace ketgrad::testing {
namespace {

template <class T>
void check(const Case& c, const Tangents& t) {
  Run<T> on_cpu(c.program, c.values, c.batch, 2);
  check_both_ways(c, on_cpu);
  check_tangents(c, t, on_cpu);
  for (const Setting& setting : {Setting{}, Setting{.tile_bits = 3}}) {
    EmulatedRun<T> on_gpu(c.program, c.values, c.batch, setting);
    check_both_ways(c, on_gpu);
    check_tangents(c, t, on_gpu);
  }
}

void check(Random& random, const Circuit& circuit, Index batch) {
  const Case c = make_case(random, circuit, batch);
  const Tangents t = make_tangents(random, circuit, c);
  check<float>(c, t);
  check<double>(c, t);
}

TEST(the_gate_with_controls_and_inverted) {
  Random random(1);
  for (int controls = 0; controls < 3; ++controls) {
    Circuit circuit = empty_circuit(4);
    add_rotations(circuit);
    circuit.program.gates.push_back(random_gate(random, circuit, num_gates - 1, controls));
    circuit.program.gates.back().inverse = controls == 1;
    add_rotations(circuit);
    circuit.program.measurements.push_back({MeasurementKind::state, {}, {}});
    check(random, circuit, 1 + controls);
  }
}

TEST(the_measurement_of_any_wires) {
  Random random(2);
  for (int n = 1; n <= 4; ++n) {
    Circuit circuit = empty_circuit(n);
    add_rotations(circuit);
    for (int w = 0; w + 1 < n; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, w + 1}));
    circuit.program.gates.push_back(make_gate("X", {n - 1}));
    for (int j = 0; j < 2; ++j) {
      const auto kind = static_cast<MeasurementKind>(num_measurements - 1);
      circuit.program.measurements.push_back(random_measurement(random, circuit, kind));
    }
    check(random, circuit, n);
  }
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
