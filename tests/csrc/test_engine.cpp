// The engine, forward and backward, against the dense simulator: every gate, every kind of measurement, both
// precisions, every instruction set, batches that fill lanes and batches that do not, inputs shared and batched, one
// thread and several.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "cases.h"
#include "cpu/simd_level.h"

namespace ketgrad::testing {
namespace {

template <class T>
void check_run(const Case& c, int threads) {
  Run<T> run(c.program, c.values, c.batch, threads);
  check_both_ways(c, run);
}

void check_case(const Case& c, int threads) {
  for_each_simd_level([&] {
    check_run<float>(c, threads);
    check_run<double>(c, threads);
  });
}

// --- against the dense simulator -------------------------------------------------------------------------------------

TEST(every_gate) {
  for_each_gate_case(3, [](const Case& c) { check_case(c, 1); });
}

TEST(every_pauli_word) { check_case(pauli_word_case(), 1); }

TEST(every_measurement) {
  for_each_measurement_case([](const Case& c) { check_case(c, 1); });
}

TEST(diagonals) {
  for_each_diagonal_circuit([](Random& random, const Circuit& circuit, Index batch) {
    const Case c = make_case(random, circuit, batch);
    for (const RegimeChoice regime : {RegimeChoice::lanes, RegimeChoice::single}) {
      set_thresholds({.regime = regime});
      check_case(c, 1);
      set_thresholds({.tile_bits = 4, .regime = regime, .spread = true});
      check_case(c, 2);
    }
  });
  set_thresholds({});
}

// Batches of one, of less than a group of lanes, of an uneven number of groups.
TEST(random_circuits_in_every_batch) {
  Random random(3);
  for (const Index batch : {1, 3, 5, 17, 40}) {
    for (int n = 1; n <= 5; ++n) {
      check_case(make_case(random, random_circuit(random, n, 10), batch), 1);
    }
  }
}

TEST(circuits_in_either_basis) {
  Random random(4);
  int in_x = 0;
  for (int round = 0; round < 48; ++round) {
    const Circuit circuit = pauli_word_circuit(random, 1 + round % 6, 24);
    in_x += lower(circuit.program).wire_map.basis() == Basis::x ? 1 : 0;
    check_case(make_case(random, circuit, round % 3 == 0 ? 1 : 18), 1);
  }
  CHECK(in_x >= 10);
  CHECK(in_x < 48);
}

using MakeCircuit = Circuit (*)(Random&, int num_wires, int num_gates);
using TileBits = int (*)(int round);

// Circuits of 2 to 8 wires in either regime, of one and of several samples, whole and in tiles.
void check_in_either_regime(Random random, int rounds, MakeCircuit make, int num_gates, TileBits tile_bits) {
  for (int round = 0; round < rounds; ++round) {
    set_thresholds({.tile_bits = round % 2 == 0 ? 0 : tile_bits(round),
                    .scale_bits = round % 3 == 0 ? 2 : 24,
                    .support = round % 5 != 0,
                    .regime = round % 4 < 2 ? RegimeChoice::single : RegimeChoice::lanes});
    const Index batch = round % 4 == 1 ? 1 : 1 + round % 11;
    check_case(make_case(random, make(random, 2 + round % 7, num_gates), batch), 1 + round % 2);
  }
  set_thresholds({});
}

TEST(rotations_of_half_the_amplitudes) {
  check_in_either_regime(Random(41), 40, half_circuit, 14, [](int) { return 4; });
}

TEST(phases_on_cosets) {
  check_in_either_regime(Random(43), 60, coset_circuit, 20, [](int round) { return 2 + round % 5; });
}

// Whole states, and tiles that hold a matrix or two.
TEST(matrices_in_passes) {
  check_in_either_regime(Random(44), 60, dense_circuit, 14, [](int round) { return 3 + round % 4; });
}

Circuit brickwork_circuit(Random& random, int num_wires, int num_layers) {
  Circuit circuit = empty_circuit(num_wires);
  for (int layer = 0; layer < num_layers; ++layer) {
    for (int w = layer % 2; w + 1 < num_wires; w += 2) {
      Gate gate = make_gate("QubitUnitary", random.chance(0.5) ? std::vector{w, w + 1} : std::vector{w + 1, w});
      gate.input = circuit.add_input(Role::unitary, 2);
      gate.inverse = random.chance(0.3);
      circuit.program.gates.push_back(gate);
      if (random.chance(0.2)) circuit.program.gates.push_back(make_gate("RY", {w}, {{0, w % 4, 1, 0}}));
      if (random.chance(0.2)) circuit.program.gates.push_back(make_gate("RZ", {w}, {{1, w % 3, 1, 0}}));
      if (random.chance(0.2)) circuit.program.gates.push_back(make_gate("CNOT", {w + 1, w}));
    }
  }
  circuit.program.measurements = {{MeasurementKind::state, {}, {}}};
  circuit.program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
  return circuit;
}

TEST(brickwork_in_tiles) {
  check_in_either_regime(Random(46), 40, brickwork_circuit, 5, [](int round) { return 4 + round % 3; });
}

// The dense simulator's zeros are not exact; what else there is, is the product of a few sines.
template <class T>
void check_zeros(const Case& c) {
  Run<T> run(c.program, c.values, c.batch, 1);
  run.forward();
  for (std::size_t a = 0; a < run.complex.size(); a += 2) {
    const bool is_zero = std::hypot(c.expected_complex[a], c.expected_complex[a + 1]) < 1e-13;
    if (!CHECK((run.complex[a] == 0 && run.complex[a + 1] == 0) == is_zero))
      note("amplitude " + std::to_string(a / 2) + ", " + description(c));
  }
}

// Of gates that do not undo each other: each has an angle of its own, and those that have none come once.
Circuit zeros_circuit(Random& random, int num_wires) {
  Circuit circuit = half_circuit(random, num_wires, 9);
  circuit.program.measurements = {{MeasurementKind::state, {}, {}}};
  std::vector<Gate> gates;
  for (Gate gate : std::exchange(circuit.program.gates, {})) {
    for (Slot& slot : gate.slots) slot = {0, random.below(4), 1, 0.013 * static_cast<double>(gates.size())};
    const Formula formula = gate_info(gate.opcode).formula;
    const bool again =
        std::ranges::any_of(gates, [&](const Gate& g) { return gate_info(g.opcode).formula == formula; });
    if (again && (formula == Formula::h || formula == Formula::sx)) continue;
    gates.push_back(std::move(gate));
  }
  circuit.program.gates = std::move(gates);
  return circuit;
}

// Where a gate is the identity, or leaves zeros alone, amplitudes stay what they are, as they do under its matrix.
TEST(zeros_stay_exact) {
  Random random(42);
  for (const auto& [regime, tile_bits] :
       {std::pair{RegimeChoice::lanes, 0}, std::pair{RegimeChoice::single, 0}, std::pair{RegimeChoice::single, 4}}) {
    set_thresholds({.tile_bits = tile_bits, .regime = regime});
    for (int round = 0; round < 60; ++round) {
      const Circuit circuit = zeros_circuit(random, 2 + round % 7);
      const Index batch = 1 + round % 3;
      std::vector<Values> values = random_values(random, circuit, batch);
      for (Values& v : values) {
        for (double& x : v.rows) x = static_cast<float>(random.uniform(0.2, 1.2));
      }
      const Case c = make_case(random, circuit, batch, values);
      for_each_simd_level([&] {
        check_zeros<float>(c);
        check_zeros<double>(c);
      });
    }
  }
  set_thresholds({});
}

void add_large_matrix(Circuit& circuit) {
  Gate gate = make_gate("QubitUnitary", {5, 0, 3, 1, 2, 4});
  gate.input = circuit.add_input(Role::unitary, 6);
  circuit.program.gates.push_back(gate);
}

// A matrix larger than what lanes take sends a batch through the engine of single samples.
TEST(large_matrices) {
  Random random(4);
  Circuit circuit = empty_circuit(6);
  add_rotations(circuit);
  add_large_matrix(circuit);
  circuit.program.measurements.push_back({MeasurementKind::probs, {0, 4, 5}, {}});
  check_case(make_case(random, circuit, 5), 2);
}

TEST(no_wires_at_all) {
  Random random(5);
  Circuit circuit = empty_circuit(0);
  circuit.program.gates.push_back(make_gate("GlobalPhase", {}, {{0, 0, 1, 0}}));
  circuit.program.measurements = {{MeasurementKind::state, {}, {}}, {MeasurementKind::probs, {}, {}}};
  check_case(make_case(random, circuit, 3), 1);
}

// --- what a call may leave out ---------------------------------------------------------------------------------------

TEST(only_what_is_requested_and_without_a_ket) {
  Random random(6);
  for (int round = 0; round < 8; ++round) {
    const Case c = make_case(random, random_circuit(random, 4, 8), 1 + 4 * (round % 2));
    std::vector<bool> requested;
    for (std::size_t i = 0; i < c.values.size(); ++i) requested.push_back(random.chance(0.4));
    check_requested<float>(c, requested, [&] { return Run<float>(c.program, c.values, c.batch, 2); });
    check_requested<double>(c, requested, [&] { return Run<double>(c.program, c.values, c.batch, 2); });
  }
}

// NaN stays with the sample that has it.
TEST(nan_propagates) {
  Circuit circuit = empty_circuit(2);
  circuit.program.gates = {make_gate("RX", {0}, {{0, 0, 1, 0}}), make_gate("CNOT", {0, 1})};
  circuit.program.measurements = {{MeasurementKind::expval, {}, {{1, {}, {1}, "Z", {}}}}};
  Random random(9);
  for_each_simd_level([&] {
    std::vector<Values> values = random_values(random, circuit, 5);
    values[0] = {true, 4, random_numbers(random, 20)};
    values[0].rows[4 * 3] = std::numeric_limits<double>::quiet_NaN();
    Run<float> run(register_program(circuit.program), values, 5, 1);
    run.forward();
    run.backward({1, 1, 1, 1, 1}, {});
    for (int sample = 0; sample < 5; ++sample) {
      CHECK(std::isnan(run.real[sample]) == (sample == 3));
      CHECK(std::isnan(run.gradients[0][4 * sample]) == (sample == 3));
    }
  });
}

// --- states cut into tiles -------------------------------------------------------------------------------------------

// Tiles of a few rows, so that small states have many: every gate, and random circuits, one and several threads.
TEST(tiles_agree_with_the_dense_simulator) {
  Random random(19);
  for (const int tile_bits : {4, 5, 6}) {
    set_thresholds({.tile_bits = tile_bits});
    for (int opcode = 0; opcode < num_gates; ++opcode) {
      check_case(make_case(random, tiled_circuit(random, opcode), 1), 1);
    }
    for (int round = 0; round < 10; ++round)
      check_case(make_case(random, random_circuit(random, 6 + round % 3, 25), 2), 1);
    for (int round = 0; round < 5; ++round)
      check_case(make_case(random, pauli_word_circuit(random, 6 + round % 3, 40), 2), 1);
  }
  set_thresholds({});
}

// Samples one after the other in the same tiles: nothing of one may be left for the next.
TEST(samples_in_tiles_keep_apart) {
  Random random(22);
  set_thresholds({.tile_bits = 4});
  Circuit circuit = empty_circuit(7);
  for (int w = 0; w < 7; ++w) circuit.program.gates.push_back(make_gate("RY", {w}, {{0, w % 4, 1, 0.1 * w}}));
  circuit.program.gates.push_back(make_gate("RZ", {0}, {{1, 0, 1, 0}}));
  circuit.program.gates.push_back(make_gate("RY", {0}, {{0, 0, 1, 0}}));
  circuit.program.measurements = {{MeasurementKind::probs, {0, 1, 2, 3, 4, 5, 6}, {}}};
  for (int round = 0; round < 8; ++round) check_case(make_case(random, circuit, 3), 1);
  set_thresholds({});
}

// In a rotation or a phase, shared or not, of one state cut into tiles or of lanes: all that a NaN meets is NaN, zeros
// too.
TEST(nan_in_a_matrix_reaches_every_amplitude) {
  for (const bool batched : {false, true}) {
    set_thresholds({.tile_bits = 4, .regime = RegimeChoice::single});
    Circuit circuit = empty_circuit(7);
    Gate gate = make_gate("QubitUnitary", {0, 5});
    gate.input = circuit.add_input(Role::unitary, 2);
    circuit.program.gates = {make_gate("RY", {1}, {{0, 0, 1, 0}}), gate};
    circuit.program.measurements = {{MeasurementKind::state, {}, {}}};
    std::vector<Values> values{{false, 4, std::vector<double>(4, 0.3)},
                               {false, 3, std::vector<double>(3, 0.3)},
                               {false, 6, std::vector<double>(6, 0.3)},
                               {batched, 32, std::vector<double>(batched ? 64 : 32, 0.5)}};
    for (double& x : values[3].rows) x = std::numeric_limits<double>::quiet_NaN();
    for_each_simd_level([&] {
      Run<float> run(register_program(circuit.program), values, 2, 1);
      run.forward();
      for (const float a : run.complex) CHECK(std::isnan(a));
    });
  }
  set_thresholds({});
}

TEST(nan_reaches_every_amplitude) {
  for (const char* gate : {"RX", "RZ"}) {
    for (const bool batched : {false, true}) {
      for (const auto& [n, batch, tile_bits] : {std::tuple{6, 1, 4}, std::tuple{6, 2, 4}, std::tuple{3, 20, 0}}) {
        set_thresholds({.tile_bits = tile_bits});
        Circuit circuit = empty_circuit(n);
        circuit.program.gates = {make_gate(gate, {0}, {{0, 0, 1, 0}}), make_gate("RY", {1}, {{1, 0, 1, 0}})};
        circuit.program.measurements = {{MeasurementKind::state, {}, {}}};
        const double nan = std::numeric_limits<double>::quiet_NaN();
        const std::vector<Values> values{{batched, 4, std::vector<double>(batched ? 4 * batch : 4, nan)},
                                         {true, 3, std::vector<double>(3 * batch, 0.3)}};
        Run<float> run(register_program(circuit.program), values, batch, 1);
        run.forward();
        for (const float a : run.complex) CHECK(std::isnan(a));
      }
    }
  }
  set_thresholds({});
}

// In a rotation of half the amplitudes, all of that half; the others stay as they are.
TEST(nan_stays_in_its_half) {
  for (const auto& [n, batch, tile_bits] : {std::tuple{6, 1, 0}, std::tuple{6, 2, 4}, std::tuple{3, 20, 0}}) {
    for (int control = 0; control < n; ++control) {
      set_thresholds({.tile_bits = tile_bits});
      Circuit circuit = empty_circuit(n);
      for (int w = 0; w < n; ++w) circuit.program.gates.push_back(make_gate("H", {w}));
      circuit.program.gates.push_back(make_gate("CRY", {control, (control + 1) % n}, {{0, 0, 1, 0}}));
      circuit.program.measurements = {{MeasurementKind::state, {}, {}}};
      Run<float> run(register_program(circuit.program),
                     {{false, 4, std::vector<double>(4, std::numeric_limits<double>::quiet_NaN())}}, batch, 1);
      run.forward();
      for (std::size_t a = 0; a < run.complex.size(); ++a)
        CHECK(std::isnan(run.complex[a]) == ((a / 2 >> (n - 1 - control) & 1) != 0));
    }
  }
  set_thresholds({});
}

// Angles at which a cosine is zero or nearly so: nothing may be divided by it.
TEST(rotations_by_pi) {
  Random random(20);
  for (const int n : {3, 6}) {
    Circuit circuit = empty_circuit(n);
    for (int layer = 0; layer < 6; ++layer) {
      for (int w = 0; w < n; ++w) {
        const double angle = (layer % 2 == 0 ? 1 : -1) * (std::numbers::pi - (w % 3) * 1e-7);
        circuit.program.gates.push_back(make_gate("RY", {w}, {{0, w % 4, 0, angle}}));
        circuit.program.gates.push_back(make_gate("RZ", {w}, {{1, w % 3, 1, 0}}));
      }
    }
    circuit.program.measurements.push_back({MeasurementKind::state, {}, {}});
    circuit.program.measurements.push_back({MeasurementKind::expval, {}, {{1, {}, {0, 1}, "XZ", {}}}});
    for (const Index batch : {1, 9}) check_case(make_case(random, circuit, batch), 1);
  }
}

// Where gates repeat their angles their roundings repeat too. Norms must not take them along: what is left goes as the
// square root of the number of gates.
TEST(norms_do_not_drift) {
  constexpr int layers = 600;
  for (const auto& names : {std::pair{"RX", "RY"}, std::pair{"RY", "RZ"}, std::pair{"SX", "RY"}, std::pair{"T", "H"}}) {
    for (const int n : {1, 6}) {
      Circuit circuit = empty_circuit(n);
      for (int gate = 0; gate < 2 * layers * n; ++gate) {
        const char* name = gate / n % 2 == 0 ? names.first : names.second;
        const bool has_angle = gate_info(opcode_of(name)).num_parameters == 1;
        circuit.program.gates.push_back(
            make_gate(name, {gate % n}, has_angle ? std::vector<Slot>{{0, 0, 1, 0}} : std::vector<Slot>()));
      }
      circuit.program.measurements = {{MeasurementKind::probs, {}, {}}};
      Random random(38);
      std::vector<Values> values = random_values(random, circuit, 1);
      for (Values& v : values) std::fill(v.rows.begin(), v.rows.end(), 1.0);
      for_each_simd_level([&] {
        Run<float> run(register_program(circuit.program), values, 1, 1);
        run.forward();
        double norm = 0;
        for (const float p : run.real) norm += p;
        CHECK_NEAR(norm, 1, 5 * std::sqrt(2.0 * layers * n) * 0x1p-24);
      });
    }
  }
}

// Hundreds of Pauli words that flip the same bits, of either phase; several measurements read them.
TEST(many_pauli_words) {
  Random random(21);
  for (const int n : {3, 6, 8}) {
    Circuit circuit = empty_circuit(n);
    add_rotations(circuit);
    for (int w = 0; w + 1 < n; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w + 1, w}));
    for (int m = 0; m < 3; ++m) {
      Measurement measurement{MeasurementKind::expval, {}, {}};
      for (int t = 0; t < 60; ++t) {
        Term term{random.uniform(-1, 1), {}, random.wires(n, 1 + random.below(n)), "", {}};
        if (random.chance(0.5)) term.coefficients.push_back(random_slot(random, circuit.program));
        for (std::size_t j = 0; j < term.pauli_wires.size(); ++j) term.pauli_word += "XYZZZ"[random.below(5)];
        measurement.terms.push_back(term);
      }
      circuit.program.measurements.push_back(measurement);
    }
    for (const int tile_bits : {0, 4}) {
      set_thresholds({.tile_bits = tile_bits});
      for (const Index batch : {1, 5}) check_case(make_case(random, circuit, batch), 1);
    }
    set_thresholds({});
  }
}

// --- a batch cut into tasks ------------------------------------------------------------------------------------------

template <class T>
void check_tasks(const Case& c, int threads) {
  Run<T> alone(c.program, c.values, c.batch, 1);
  alone.forward();
  alone.backward(c.g_real, c.g_complex);
  const Index before = tasks_spread;
  Run<T> run(c.program, c.values, c.batch, threads);
  run.forward();
  run.backward(c.g_real, c.g_complex);
  CHECK(tasks_spread == before + 2 * threads);
  CHECK(run.real == alone.real);
  CHECK(run.complex == alone.complex);
  CHECK(run.ket == alone.ket);
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    for (std::size_t e = 0; e < run.gradients[i].size(); ++e) {
      check_close<T>(c, run.gradients[i][e], alone.gradients[i][e], "gradient of input", i);
    }
  }
}

// 72 samples leave the last of four tasks with nothing to do, in float and in double. One circuit goes by lanes, the
// other sample by sample.
TEST(batches_are_cut_into_tasks) {
  Random random(17);
  const Circuit lanes = random_circuit(random, 7, 60);
  Circuit solo = random_circuit(random, 7, 60);
  add_large_matrix(solo);
  for (const Circuit& circuit : {lanes, solo}) {
    const Case c = unsolved_case(random, circuit, 72);
    for_each_simd_level([&] {
      check_tasks<float>(c, 4);
      check_tasks<double>(c, 4);
    });
  }
}

TEST(tasks_agree_with_the_dense_simulator) {
  Random random(18);
  Circuit circuit = random_circuit(random, 5, 4);
  for (int layer = 0; layer < 20; ++layer) {
    for (int w = 0; w < 5; ++w)
      circuit.program.gates.push_back(make_gate("CRX", {w, (w + 1) % 5}, {{1, w % 3, 0.1, 0}}));
  }
  const Index before = tasks_spread;
  check_case(make_case(random, circuit, 49), 3);
  CHECK(tasks_spread > before);
}

// --- passes spread over threads --------------------------------------------------------------------------------------

TEST(large_states_agree_with_the_dense_simulator) {
  Random random(10);
  Circuit circuit = empty_circuit(13);
  for (int w = 0; w < 13; w += 3) circuit.program.gates.push_back(make_gate("RY", {w}, {{0, w % 4, 1, 0.3 * w}}));
  for (const char* name : {"CRX", "PauliRot", "IsingXY"}) {
    circuit.program.gates.push_back(random_gate(random, circuit, opcode_of(name), 1));
  }
  circuit.program.measurements = {
      {MeasurementKind::expval, {}, {{1, {{1, 0, 1, 0}}, {0, 5}, "ZX", {}}, {0.5, {}, {12}, "Z", {}}}},
      {MeasurementKind::probs, {1, 12}, {}}};
  check_case(make_case(random, circuit, 1), 3);
}

template <class T>
void check_same_bits(const Case& c, const std::vector<int>& thread_counts) {
  Run<T> alone(c.program, c.values, c.batch, thread_counts[0]);
  alone.forward();
  alone.backward(c.g_real, c.g_complex);
  for (std::size_t t = 1; t < thread_counts.size(); ++t) {
    const Index before = tasks_spread;
    Run<T> run(c.program, c.values, c.batch, thread_counts[t]);
    run.forward();
    run.backward(c.g_real, c.g_complex);
    CHECK(tasks_spread > before);
    CHECK(run.real == alone.real);
    CHECK(run.complex == alone.complex);
    CHECK(run.ket == alone.ket);
    CHECK(run.gradients == alone.gradients);
  }
}

// Sums are taken in chunks of the state, in order: who took which does not show.
TEST(threads_do_not_show_in_the_bits) {
  Random random(11);
  for (const int n : {13, 14}) {
    const Case c = unsolved_case(random, large_circuit(random, n), 1);
    for_each_simd_level([&] {
      check_same_bits<float>(c, {1, 2, 5});
      check_same_bits<double>(c, {1, 2, 5});
    });
  }
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
