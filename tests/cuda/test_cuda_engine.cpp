// The CUDA engine under the emulation, forward and backward, against the dense simulator: every gate, every
// measurement, both precisions, whole states and tiles, batches in one chunk and in several, and any order of threads
// and blocks.
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cases.h"
#include "emulated_run.h"

namespace ketgrad::testing {
namespace {

template <class T>
void check_run(const Case& c, const Setting& setting) {
  EmulatedRun<T> run(c.program, c.values, c.batch, setting);
  check_both_ways(c, run);
}

void check_case(const Case& c, const Setting& setting = {}) {
  check_run<float>(c, setting);
  check_run<double>(c, setting);
}

// --- against the dense simulator -------------------------------------------------------------------------------------

TEST(every_gate) {
  for_each_gate_case(2, [](const Case& c) { check_case(c); });
}

TEST(every_pauli_word) { check_case(pauli_word_case()); }

TEST(every_measurement) {
  for_each_measurement_case([](const Case& c) { check_case(c); });
}

TEST(diagonals) {
  for_each_diagonal_circuit([](Random& random, const Circuit& circuit, Index batch) {
    const Case c = make_case(random, circuit, batch);
    check_case(c);
    if (batch > 1) check_case(c, {0, 10});  // a sample or two at a time
  });
}

TEST(random_circuits_in_every_batch) {
  Random random(3);
  for (const Index batch : {1, 3, 5}) {
    for (int n = 1; n <= 5; ++n) {
      const Case c = make_case(random, random_circuit(random, n, 10), batch);
      check_case(c);
      check_case(c, {0, 7});  // a sample or two at a time
    }
  }
}

TEST(circuits_in_either_basis) {
  Random random(4);
  for (int round = 0; round < 12; ++round)
    check_case(make_case(random, pauli_word_circuit(random, 1 + round % 6, 24), 1 + round % 3));
}

TEST(no_wires_and_no_gates) {
  Random random(5);
  Circuit circuit = empty_circuit(0);
  circuit.program.gates.push_back(make_gate("GlobalPhase", {}, {{0, 0, 1, 0}}));
  circuit.program.measurements = {{MeasurementKind::state, {}, {}}, {MeasurementKind::probs, {}, {}}};
  check_case(make_case(random, circuit, 3));
  circuit = empty_circuit(3);
  circuit.program.measurements = {{MeasurementKind::expval, {}, {{1, {{1, 0, 1, 0}}, {0, 2}, "ZZ", {}}}},
                                  {MeasurementKind::state, {}, {}}};
  check_case(make_case(random, circuit, 2));
  check_case(make_case(random, circuit, 2), {2, 0});
  circuit.program.measurements.pop_back();
  check_case(make_case(random, circuit, 2));
  // Pauli words in tiles, and not a rotation that would say so.
  for (int round = 0; round < 10; ++round) {
    circuit = empty_circuit(6);
    circuit.program.initial = random_initial(random, circuit);
    for (int m = 0; m < 2; ++m)
      circuit.program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
    check_case(make_case(random, circuit, 2), {3, 0});
  }
}

// --- tiles -----------------------------------------------------------------------------------------------------------

TEST(tiles_agree_with_the_dense_simulator) {
  Random random(19);
  for (const int tile_bits : {4, 6}) {
    for (int opcode = 0; opcode < num_gates; ++opcode) {
      check_case(make_case(random, tiled_circuit(random, opcode), 1), {tile_bits, 0});
    }
    for (int round = 0; round < 4; ++round)
      check_case(make_case(random, random_circuit(random, 6 + round % 3, 25), 3), {tile_bits, round % 2 == 0 ? 0 : 13});
    for (int round = 0; round < 2; ++round)
      check_case(make_case(random, pauli_word_circuit(random, 6 + round, 40), 3), {tile_bits, 0});
  }
}

// Angles of pi and 2 pi, and next to them: sines and cosines that are zero, or as good as.
TEST(rotations_by_any_angle) {
  Random random(37);
  Circuit circuit = empty_circuit(3);
  for (int w = 0; w < 3; ++w) {
    circuit.program.gates.push_back(make_gate("RY", {w}, {{0, w, 1, 0}}));
    circuit.program.gates.push_back(make_gate("RX", {w}, {{0, w, -1, 0.5}}));
    circuit.program.gates.push_back(make_gate("IsingXX", {w, (w + 1) % 3}, {{0, w, 2, 0}}));
  }
  circuit.program.measurements = {{MeasurementKind::expval, {}, {{1, {}, {0, 1}, "ZX", {}}}},
                                  {MeasurementKind::state, {}, {}}};
  constexpr double pi = 3.14159265358979323846;
  for (int quarter = -4; quarter <= 4; ++quarter) {
    for (const double off : {0.0, 1e-9, -1e-4}) {
      std::vector<Values> values = random_values(random, circuit, 1);
      std::fill(values[0].rows.begin(), values[0].rows.end(), static_cast<float>(quarter * pi / 2 + off));
      check_case(make_case(random, circuit, 1, std::move(values)));
    }
  }
}

// More Pauli words of one flip, and more strings between two rotations, than one operation takes.
TEST(many_pauli_words_and_strings_of_a_kind) {
  Random random(31);
  Circuit circuit = empty_circuit(6);
  add_rotations(circuit);
  const auto bits_of = [](int number) {
    std::vector<int> bits;
    for (int b = 0; b < 6; ++b) {
      if (((number >> b) & 1) != 0) bits.push_back(b);
    }
    return bits;
  };
  for (int number = 1; number < 64; ++number) {
    Gate gate = make_gate("PauliRot", bits_of(number), {random_slot(random, circuit.program)});
    gate.pauli_word = std::string(gate.targets.size(), 'Z');
    circuit.program.gates.push_back(std::move(gate));
  }
  add_rotations(circuit);
  for (const char letter : {'Z', 'X', 'Y'}) {
    Measurement sum{MeasurementKind::expval, {}, {}};
    for (int number = 1; number < 64; ++number) {
      std::string pauli_word(bits_of(number).size(), 'Z');
      if (number % 2 != 0) pauli_word[0] = letter;
      sum.terms.push_back({1, {{0, number % 4, 1, 0}}, bits_of(number), pauli_word, {}});
    }
    circuit.program.measurements.push_back(std::move(sum));
  }
  const Case c = make_case(random, circuit, 2);
  check_case(c);
  check_case(c, {4, 0});
}

// --- tiles of many warps, against the kernels of the CPU -------------------------------------------------------------

// Blocks of 256 threads that go through a tile once and several times.
TEST(large_tiles_agree_with_the_cpu) {
  Random random(23);
  for (const int n : {11, 12}) {
    Circuit circuit = empty_circuit(n);
    for (int layer = 0; layer < 3; ++layer) {
      add_rotations(circuit);
      for (int w = 0; w < n; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, (w + 1) % n}));
      for (int w = 0; w + 1 < n; ++w)
        circuit.program.gates.push_back(make_gate("IsingZZ", {w, w + 1}, {random_slot(random, circuit.program)}));
    }
    circuit.program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
    for (int w = 0; w < n; ++w)
      circuit.program.measurements.push_back({MeasurementKind::expval, {}, {{1, {{0, w % 4, 1, 0}}, {w}, "Z", {}}}});
    const Case c = unsolved_case(random, circuit, 2);
    check_like_cpu<float>(c, {0, 0, hopper_shared_bytes});
    check_like_cpu<double>(c, {0, 0, hopper_shared_bytes});
    check_like_cpu<double>(c, {10, 0, hopper_shared_bytes});
  }
}

// Several parts of a sample's tiles, sums over groups in several partial sums, and every kind of unfused gate and
// measurement.
TEST(large_states_agree_with_the_cpu) {
  Random random(24);
  const Case c = unsolved_case(random, large_circuit(random, 13), 1);
  check_like_cpu<double>(c, {});
}

// --- what a call may leave out ---------------------------------------------------------------------------------------

TEST(only_what_is_requested_and_without_a_ket) {
  Random random(6);
  for (int round = 0; round < 8; ++round) {
    const Case c = make_case(random, random_circuit(random, 4, 8), 1 + 2 * (round % 2));
    std::vector<bool> requested;
    for (std::size_t i = 0; i < c.values.size(); ++i) requested.push_back(random.chance(0.4));
    const Setting setting{round % 3 == 0 ? 3 : 0, 0};
    check_requested<float>(c, requested, [&] { return EmulatedRun<float>(c.program, c.values, c.batch, setting); });
    check_requested<double>(c, requested, [&] { return EmulatedRun<double>(c.program, c.values, c.batch, setting); });
  }
}

// NaN stays with the sample that has it, and reaches every amplitude there.
TEST(nan_propagates) {
  for (const char* gate : {"RX", "RZ"}) {
    for (const int tile_bits : {0, 3}) {
      Circuit circuit = empty_circuit(5);
      circuit.program.gates = {make_gate(gate, {0}, {{0, 0, 1, 0}}), make_gate("RY", {1}, {{1, 0, 1, 0}})};
      circuit.program.measurements = {{MeasurementKind::probs, {0, 1, 2, 3, 4}, {}},
                                      {MeasurementKind::expval, {}, {{1, {}, {1}, "Z", {}}}},
                                      {MeasurementKind::state, {}, {}}};
      Random random(9);
      std::vector<Values> values = random_values(random, circuit, 3);
      values[0] = {true, 4, random_numbers(random, 12)};
      values[0].rows[4] = std::numeric_limits<double>::quiet_NaN();
      EmulatedRun<float> run(register_program(circuit.program), values, 3, {tile_bits, 0});
      run.forward();
      run.backward(std::vector<double>(3 * 33, 1.0), std::vector<double>(3 * 64, 1.0));
      for (int e = 0; e < 3 * 33; ++e) CHECK(std::isnan(run.real[e]) == (e / 33 == 1));
      for (int sample = 0; sample < 3; ++sample) CHECK(std::isnan(run.gradients[0][4 * sample]) == (sample == 1));
    }
  }
}

// --- the GPU's freedoms ----------------------------------------------------------------------------------------------

TEST(order_does_not_show_in_the_bits) {
  Random random(11);
  Circuit circuit = large_circuit(random, 8);
  const Case c = unsolved_case(random, circuit, 2);
  for (const int tile_bits : {0, 5}) {
    check_any_order(c, {tile_bits, 0}, [&](EmulatedRun<float>& run) {
      run.forward();
      run.backward(c.g_real, c.g_complex);
    });
  }
}

// A circuit of rotations, phases and Pauli words is one launch forward and one backward, and a few small ones around
// them.
TEST(whole_circuits_take_few_launches) {
  Random random(12);
  Circuit circuit = empty_circuit(6);
  for (int layer = 0; layer < 5; ++layer) {
    add_rotations(circuit);
    for (int w = 0; w < 6; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, (w + 1) % 6}));
  }
  circuit.program.measurements = {{MeasurementKind::expval, {}, {{1, {}, {0}, "Z", {}}}}};
  const Case c = make_case(random, circuit, 3);
  EmulatedRun<float> run(c.program, c.values, c.batch, {});
  const Index start = cuda::launch_count();
  run.forward();
  CHECK(cuda::launch_count() - start == 4);  // inputs, angles, the circuit, results
  run.backward(c.g_real, c.g_complex);
  CHECK(cuda::launch_count() - start <= 4 + 6);  // inputs, angles, weights, the circuit, gradients of two inputs
  check_gradients(c, run.gradients);
}

// The signs of Pauli words lie beside the tile, and there may be more than there is room for.
TEST(too_many_pauli_words_for_a_gpu_are_refused) {
  Random random(14);
  const Case c = make_case(random, pauli_word_circuit(random, 6, 20), 1);
  constexpr std::size_t tiles_and_tables = (2 * 256 + 512) * sizeof(Complex<float>);
  EmulatedRun<float> fits(c.program, c.values, 1, {4, 0, tiles_and_tables + 1024});
  fits.forward();
  EmulatedRun<float> run(c.program, c.values, 1, {4, 0, tiles_and_tables + 4});
  CHECK_THROWS(std::invalid_argument, run.forward(), "more shared memory than this GPU has");
}

// Of a state in tiles a launch for each pass, where the last one's tiles hold all Pauli words.
TEST(pauli_words_in_the_last_tiles_take_no_launch) {
  Random random(13);
  Circuit circuit = empty_circuit(7);
  for (int w = 0; w < 7; ++w) circuit.program.gates.push_back(make_gate("RY", {w}, {{0, w % 4, 1, 0}}));
  circuit.program.measurements = {{MeasurementKind::expval, {}, {}}};
  for (int w = 0; w < 7; ++w) circuit.program.measurements[0].terms.push_back({1, {}, {w}, "Z", {}});
  const Case c = make_case(random, circuit, 2);
  const Setting setting{4, 0};
  EmulatedRun<float> run(c.program, c.values, c.batch, setting);
  const auto passes = static_cast<Index>(run.tables().passes.size());
  CHECK(passes > 1);
  const Index start = cuda::launch_count();
  run.forward();
  CHECK(cuda::launch_count() - start == 3 + passes);  // inputs, angles, results
  run.backward(c.g_real, c.g_complex);
  CHECK(cuda::launch_count() - start == 3 + passes + 4 + passes);  // inputs, angles, weights, gradients of one input
  check_gradients(c, run.gradients);
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
