// Second derivatives by the CUDA engine under the emulation, against the dense simulator on duals of duals, and where
// that takes too long against the CPU's engine.
#include <vector>

#include "emulated_run.h"
#include "tangents.h"

namespace ketgrad::testing {
namespace {

template <class T>
void check_run(const Case& c, const Tangents& t, const Setting& setting) {
  EmulatedRun<T> run(c.program, c.values, c.batch, setting);
  check_tangents(c, t, run);
}

void check_case(const Case& c, const Tangents& t, const Setting& setting = {}) {
  check_run<float>(c, t, setting);
  check_run<double>(c, t, setting);
}

TEST(every_gate_and_measurement) {
  for_each_tangent_case([](const Case& c, const Tangents& t) {
    check_case(c, t);
    if (c.batch > 1) check_case(c, t, {0, 11});  // a sample or two at a time
  });
}

TEST(diagonals) {
  for_each_diagonal_circuit([](Random& random, const Circuit& circuit, Index batch) {
    const Case c = unsolved_case(random, circuit, batch);
    check_tangents_like_cpu<double>(c, unsolved_tangents(random, circuit, c), {});
  });
}

TEST(tiles) {
  Random random(33);
  for (int opcode = 0; opcode < num_gates; opcode += 3) {
    const Circuit circuit = tiled_circuit(random, opcode);
    const Case c = unsolved_case(random, circuit, 1);
    check_case(c, make_tangents(random, circuit, c), {opcode % 2 == 0 ? 4 : 6, 0});
  }
}

// Pauli words in tiles, and not a rotation that would say so.
TEST(tiles_without_rotations) {
  Random random(37);
  for (int round = 0; round < 10; ++round) {
    Circuit circuit = empty_circuit(6);
    circuit.program.initial = random_initial(random, circuit);
    for (int m = 0; m < 2; ++m)
      circuit.program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
    const Case c = unsolved_case(random, circuit, 1 + round % 3);
    check_case(c, make_tangents(random, circuit, c), {3, 0});
  }
}

// Every kind of unfused gate and measurement on states of several tiles, which several blocks share.
TEST(large_states_agree_with_the_cpu) {
  Random random(34);
  const Circuit circuit = large_circuit(random, 12);
  const Case c = unsolved_case(random, circuit, 1);
  check_tangents_like_cpu<double>(c, unsolved_tangents(random, circuit, c), {});
}

// Directions that leave the Hermitian matrices: results depend on their Hermitian parts, as on the CPU.
TEST(any_direction_of_an_observable) {
  Random random(35);
  for (int round = 0; round < 40; ++round) {
    const int n = 1 + round % 4;
    Circuit circuit = empty_circuit(n);
    add_rotations(circuit);
    const auto kind = round % 2 == 0 ? MeasurementKind::expval : MeasurementKind::var;
    for (int m = 0; m < 2; ++m) circuit.program.measurements.push_back(random_measurement(random, circuit, kind));
    const Case c = unsolved_case(random, circuit, 1 + round % 3);
    Tangents t;
    for (const Values& v : c.values) t.inputs.push_back(random_numbers(random, static_cast<Index>(v.rows.size())));
    check_tangents_like_cpu<double>(c, t, {});
  }
}

TEST(order_does_not_show_in_the_bits) {
  Random random(36);
  const Circuit circuit = large_circuit(random, 7);
  const Case c = unsolved_case(random, circuit, 2);
  const Tangents t = unsolved_tangents(random, circuit, c);
  check_any_order(c, {5, 0}, [&](EmulatedRun<float>& run) {
    run.tangents(c.g_real, c.g_complex, t.inputs, t.g_real, t.g_complex, true);
  });
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
