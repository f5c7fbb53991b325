// Cases: random circuits with what the dense simulator says of them, which every backend is compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "check.h"
#include "circuits.h"
#include "dense.h"

namespace ketgrad::testing {

// float: a few dozen roundings of 6e-8 each, added up over some hundred numbers of a direction. double: the same, of
// 1e-16.
template <class T>
inline constexpr double tolerance = sizeof(T) == sizeof(float) ? 1e-4 : 1e-11;

// --- the dense side --------------------------------------------------------------------------------------------------

struct Case {
  ProgramHandle program;
  Index batch = 1;
  std::vector<Values> values;
  std::vector<double> g_real;
  std::vector<double> g_complex;
  std::vector<double> expected_real;
  std::vector<double> expected_complex;
  std::vector<std::vector<double>> directions;  // per input, a number for each of its entries
  std::vector<std::vector<double>>
      expected_gradients;  // per input and row, the tangent of the loss along the direction
};

// The inputs of one sample, displaced along the direction of input `moved`.
inline SampleInputs<Dual> sample_inputs(const Case& c, Index sample, std::size_t moved) {
  SampleInputs<Dual> inputs;
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    const Values& values = c.values[i];
    inputs.emplace_back();
    for (Index e = values.row_of(sample); e < values.row_of(sample) + values.row_size; ++e) {
      inputs[i].push_back(Dual(values.rows[e], i == moved ? c.directions[i][e] : 0));
    }
  }
  return inputs;
}

// The cotangents are those of the loss sum g_real x + Re sum conj(g_complex) z.
inline double tangent_of_loss(const Case& c, const DenseResults<Dual>& results, Index sample) {
  double tangent = 0;
  const double* g = c.g_real.data() + sample * static_cast<Index>(results.real.size());
  for (const Dual& x : results.real) tangent += *g++ * x.tangent;
  g = c.g_complex.data() + 2 * sample * static_cast<Index>(results.complex.size());
  for (const Complex<Dual>& z : results.complex) {
    tangent += *g++ * z.re.tangent;
    tangent += *g++ * z.im.tangent;
  }
  return tangent;
}

inline void keep_values(Case& c, const DenseResults<Dual>& results) {
  for (const Dual& x : results.real) c.expected_real.push_back(x.value);
  for (const Complex<Dual>& z : results.complex) {
    c.expected_complex.push_back(z.re.value);
    c.expected_complex.push_back(z.im.value);
  }
}

inline void solve(Case& c) {
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    c.expected_gradients.emplace_back(c.values[i].batched ? c.batch : 1, 0.0);
    for (Index sample = 0; sample < c.batch; ++sample) {
      const DenseResults<Dual> results = dense_run(c.program->program, sample_inputs(c, sample, i));
      if (i == 0) keep_values(c, results);
      c.expected_gradients[i][c.values[i].batched ? sample : 0] += tangent_of_loss(c, results, sample);
    }
  }
}

// Of real numbers often a single entry in each row, so that small ones are not lost beside large ones.
inline std::vector<double> random_direction(Random& random, const InputSpec& spec, const Values& values) {
  if (spec.is_complex || random.chance(0.5)) return random_numbers(random, static_cast<Index>(values.rows.size()));
  std::vector<double> direction(values.rows.size(), 0.0);
  for (Index row = 0; row < static_cast<Index>(direction.size()); row += values.row_size)
    direction[row + random.below(static_cast<int>(values.row_size))] = 1;
  return direction;
}

// Without the dense side: for comparisons of the engine with itself.
inline Case unsolved_case(Random& random, const Circuit& circuit, Index batch, std::vector<Values> values) {
  Case c;
  c.program = register_program(circuit.program);
  c.batch = batch;
  c.values = std::move(values);
  c.g_real = random_numbers(random, batch * circuit.program.real_results());
  c.g_complex = random_numbers(random, 2 * batch * circuit.program.complex_results());
  for (std::size_t i = 0; i < c.values.size(); ++i)
    c.directions.push_back(random_direction(random, circuit.program.inputs[i], c.values[i]));
  return c;
}

inline Case unsolved_case(Random& random, const Circuit& circuit, Index batch) {
  return unsolved_case(random, circuit, batch, random_values(random, circuit, batch));
}

inline Case make_case(Random& random, const Circuit& circuit, Index batch, std::vector<Values> values) {
  Case c = unsolved_case(random, circuit, batch, std::move(values));
  solve(c);
  return c;
}

inline Case make_case(Random& random, const Circuit& circuit, Index batch) {
  return make_case(random, circuit, batch, random_values(random, circuit, batch));
}

// --- comparing -------------------------------------------------------------------------------------------------------

inline std::string description(const Case& c) {
  std::string text = "batch " + std::to_string(c.batch) + ", level " + current_simd_level() + ", " +
                     std::to_string(c.program->program.num_wires) + " wires, gates:";
  for (const Gate& g : c.program->program.gates) {
    text += " " + std::string(gate_info(g.opcode).name) + (g.inverse ? "^-1" : "");
  }
  return text;
}

// Angles of gates that commute are added up in double before anything is made of them, and of huge ones that rounds.
inline double rounding_of_angles(const Case& c) {
  double largest = 0;
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    if (c.program->program.inputs[i].is_complex) continue;
    for (const double value : c.values[i].rows) largest = std::max(largest, std::abs(value));
  }
  return 0x1p-52 * largest * static_cast<double>(1 + c.program->program.gates.size());
}

// Gradients are sums over all gates that read an input, of numbers as large as the cotangents.
inline double size_of_gradients(const Case& c) {
  double square = 0;
  for (const double g : c.g_real) square += g * g;
  for (const double g : c.g_complex) square += g * g;
  const double per_sample = square / static_cast<double>(c.batch);
  return std::max(1.0, 0.01 * std::sqrt(per_sample) * static_cast<double>(c.program->program.gates.size()));
}

template <class T>
void check_close(const Case& c, double value, double expected, const char* what, std::size_t index, double size = 1) {
  const double allowed = size * tolerance<T> + rounding_of_angles(c);
  if (CHECK_NEAR(value, expected, allowed * std::max(1.0, std::abs(expected)))) return;
  note(std::string(what) + " " + std::to_string(index) + ", " + description(c));
}

template <class T>
void check_results(const Case& c, const std::vector<T>& results, const std::vector<double>& expected,
                   const char* what) {
  CHECK(results.size() == expected.size());
  for (std::size_t e = 0; e < expected.size(); ++e) check_close<T>(c, results[e], expected[e], what, e);
}

template <class T>
void check_gradients(const Case& c, const std::vector<std::vector<T>>& gradients,
                     const std::vector<std::vector<double>>& expected) {
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    const Index size = c.values[i].row_size;
    for (std::size_t row = 0; row < expected[i].size(); ++row) {
      double tangent = 0;
      for (Index e = static_cast<Index>(row) * size; e < static_cast<Index>(row + 1) * size; ++e) {
        tangent += gradients[i][e] * c.directions[i][e];
      }
      check_close<T>(c, tangent, expected[i][row], "gradient of input", i, size_of_gradients(c));
    }
  }
}

template <class T>
void check_gradients(const Case& c, const std::vector<std::vector<T>>& gradients) {
  check_gradients(c, gradients, c.expected_gradients);
}

// A run of any backend, forward and backward.
template <class R>
void check_both_ways(const Case& c, R& run) {
  run.forward();
  check_results(c, run.real, c.expected_real, "real result");
  check_results(c, run.complex, c.expected_complex, "complex result");
  run.backward(c.g_real, c.g_complex);
  check_gradients(c, run.gradients);
}

// Gradients of the requested inputs alone are those of all inputs, with a ket that is kept and without one. `make_run`
// returns a run of the case.
template <class T, class MakeRun>
void check_requested(const Case& c, const std::vector<bool>& requested, const MakeRun& make_run) {
  auto all = make_run();
  all.forward(false);
  all.backward(c.g_real, c.g_complex);
  check_gradients(c, all.gradients);
  auto some = make_run();
  some.forward();
  some.backward(c.g_real, c.g_complex, requested);
  for (std::size_t i = 0; i < requested.size(); ++i) {
    if (!requested[i]) continue;
    for (std::size_t e = 0; e < all.gradients[i].size(); ++e) {
      check_close<T>(c, some.gradients[i][e], all.gradients[i][e], "gradient of requested input", i);
    }
  }
}

// Two backends at the same case.
template <class T>
void check_alike(const Case& c, const CallMemory<T>& found, const CallMemory<T>& expected) {
  check_results(c, found.real, {expected.real.begin(), expected.real.end()}, "real result");
  check_results(c, found.complex, {expected.complex.begin(), expected.complex.end()}, "complex result");
  for (std::size_t i = 0; i < expected.gradients.size(); ++i) {
    for (std::size_t e = 0; e < expected.gradients[i].size(); ++e)
      check_close<T>(c, found.gradients[i][e], expected.gradients[i][e], "gradient of input", i);
  }
}

// --- circuits that several tests have --------------------------------------------------------------------------------

inline void add_rotations(Circuit& circuit) {
  const char* names[] = {"RX", "RY", "RZ"};
  for (int w = 0; w < circuit.program.num_wires; ++w) {
    circuit.program.gates.push_back(make_gate(names[w % 3], {w}, {{0, w % 4, 1, 0.3 * w}}));
    circuit.program.gates.push_back(make_gate(names[(w + 1) % 3], {w}, {{1, w % 3, 0.7, 0.1 * w}}));
  }
}

inline std::vector<std::string> pauli_words_of(std::string_view letters, std::size_t length) {
  std::vector<std::string> pauli_words{""};
  for (std::size_t j = 0; j < length; ++j) {
    std::vector<std::string> longer;
    for (const std::string& pauli_word : pauli_words) {
      for (const char letter : letters) longer.push_back(pauli_word + letter);
    }
    pauli_words = std::move(longer);
  }
  return pauli_words;
}

// Every kind of unfused gate and measurement on a state large enough that its passes are spread.
inline Circuit large_circuit(Random& random, int num_wires) {
  Circuit circuit = empty_circuit(num_wires);
  add_rotations(circuit);
  for (const char* name : {"CNOT", "CRX", "MultiRZ", "PauliRot", "PauliRot", "QubitUnitary", "DiagonalQubitUnitary",
                           "DiagonalEvolution", "SWAP", "Toffoli", "IsingXY", "DoubleExcitation", "GlobalPhase"}) {
    circuit.program.gates.push_back(random_gate(random, circuit, opcode_of(name), 1));
  }
  add_rotations(circuit);
  for (int kind = 0; kind < num_measurements; ++kind) {
    circuit.program.measurements.push_back(random_measurement(random, circuit, static_cast<MeasurementKind>(kind)));
  }
  std::vector<int> most(num_wires - 1);
  for (int w = 1; w < num_wires; ++w) most[w - 1] = w;
  circuit.program.measurements.push_back({MeasurementKind::probs, most, {}});
  circuit.program.measurements.push_back({MeasurementKind::probs, {num_wires - 1, 0}, {}});
  return circuit;
}

// Evolutions by diagonals of `size` wires, and diagonals measured, alone and beside other factors.
inline Circuit diagonal_circuit(Random& random, int num_wires, int size, int max_controls) {
  Circuit circuit = empty_circuit(num_wires);
  Program& program = circuit.program;
  const auto add_evolution = [&](bool inverse) {
    const std::vector<int> wires = random.wires(num_wires, num_wires);
    Gate gate =
        make_gate("DiagonalEvolution", {wires.begin(), wires.begin() + size}, {random_slot(random, circuit.program)});
    for (int j = 0; j < std::min(max_controls, num_wires - size); ++j) {
      gate.controls.push_back(wires[size + j]);
      gate.control_values.push_back(random.chance(0.5));
    }
    gate.inverse = inverse;
    gate.input = circuit.add_input(Role::entries, size);
    program.gates.push_back(gate);
  };
  add_rotations(circuit);
  add_evolution(false);
  for (int w = 0; w + 1 < num_wires; ++w) program.gates.push_back(make_gate("CNOT", {w, w + 1}));
  add_rotations(circuit);
  add_evolution(true);
  add_rotations(circuit);
  for (const MeasurementKind kind : {MeasurementKind::expval, MeasurementKind::var}) {
    const std::vector<int> wires = random.wires(num_wires, num_wires);
    Factor diagonal{FactorKind::diagonal, {wires.begin(), wires.begin() + size}, no_input, {}, {}, {}};
    diagonal.input = circuit.add_input(Role::entries, size);
    Term alone{0.5, {random_slot(random, program)}, {}, "", {diagonal}};
    diagonal.input = circuit.add_input(Role::entries, size);
    Term beside{-0.7, {}, {}, "", {diagonal}};
    if (size < num_wires) beside.pauli_wires = {wires.back()}, beside.pauli_word = "Y";
    program.measurements.push_back({kind, {}, {alone, beside}});
  }
  return circuit;
}

// A gate between layers, on a state large enough to be cut into small tiles.
inline Circuit tiled_circuit(Random& random, int opcode) {
  Circuit circuit = empty_circuit(7);
  add_rotations(circuit);
  for (int w = 0; w < 7; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, (w + 1) % 7}));
  circuit.program.gates.push_back(random_gate(random, circuit, static_cast<Opcode>(opcode), 2));
  add_rotations(circuit);
  circuit.program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
  circuit.program.measurements.push_back(
      random_measurement(random, circuit, static_cast<MeasurementKind>(opcode % num_measurements)));
  return circuit;
}

// --- cases that every backend runs -----------------------------------------------------------------------------------

// Each gate alone between layers of rotations: as it is and inverted, with and without further controls.
template <class F>
void for_each_gate_case(int rounds, const F& f) {
  Random random(1);
  for (int opcode = 0; opcode < num_gates; ++opcode) {
    for (int round = 0; round < rounds; ++round) {
      const int own = std::max<int>(gate_info(static_cast<Opcode>(opcode)).num_wires, 1);
      Circuit circuit = empty_circuit(std::max(own + round, 2));
      add_rotations(circuit);
      circuit.program.gates.push_back(random_gate(random, circuit, static_cast<Opcode>(opcode), round));
      circuit.program.gates.back().inverse = round == 1;
      add_rotations(circuit);
      circuit.program.measurements.push_back({MeasurementKind::state, {}, {}});
      f(make_case(random, circuit, 1 + 2 * round));
    }
  }
}

// Every number of Y up to four, which each bring their own power of i.
inline Case pauli_word_case() {
  Random random(16);
  Circuit circuit = empty_circuit(4);
  add_rotations(circuit);
  circuit.program.measurements = {{MeasurementKind::expval, {}, {}}};
  for (const std::string& pauli_word : pauli_words_of("IXYZ", 4)) {
    if (pauli_word[0] != 'Y' && pauli_word[3] != 'I') continue;
    Gate gate = make_gate("PauliRot", random.wires(4, 4), {random_slot(random, circuit.program)});
    gate.pauli_word = pauli_word;
    gate.inverse = random.chance(0.5);
    circuit.program.gates.push_back(gate);
  }
  for (const std::string& pauli_word : pauli_words_of("XYZ", 4)) {
    circuit.program.measurements[0].terms.push_back(
        {random.uniform(-1, 1), {{0, 0, 1, 0}}, random.wires(4, 4), pauli_word, {}});
  }
  return make_case(random, circuit, 3);
}

// Of fewer entries than kernels take together, of as many, and of more; with and without other wires.
template <class F>
void for_each_diagonal_circuit(const F& f) {
  Random random(51);
  for (const auto& [num_wires, size] : {std::pair{3, 3}, {6, 2}, {6, 5}, {7, 7}, {8, 7}, {8, 8}, {9, 8}}) {
    for (const Index batch : {1, 3}) f(random, diagonal_circuit(random, num_wires, size, batch / 3), batch);
  }
}

template <class F>
void for_each_measurement_case(const F& f) {
  Random random(2);
  for (int kind = 0; kind < num_measurements; ++kind) {
    for (int n = 1; n <= 5; ++n) {
      Circuit circuit = empty_circuit(n);
      add_rotations(circuit);
      for (int w = 0; w + 1 < n; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, w + 1}));
      circuit.program.measurements.push_back(random_measurement(random, circuit, static_cast<MeasurementKind>(kind)));
      f(make_case(random, circuit, n));
    }
  }
}

}  // namespace ketgrad::testing
