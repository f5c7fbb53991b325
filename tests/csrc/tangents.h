// Second derivatives: cases with directions in which everything has a tangent, and what the dense simulator, on duals
// of duals, says of them.
#pragma once

#include <vector>

#include "cases.h"

namespace ketgrad::testing {

using SecondDual = DualOf<Dual>;  // tangents: along the case's tangents, and along the direction of one input

// What has a tangent besides a case's own directions, and the derivatives along it of what the case expects.
struct Tangents {
  std::vector<std::vector<double>> inputs;  // per input; empty where it has no tangent
  std::vector<double> g_real;               // empty where cotangents have no tangent
  std::vector<double> g_complex;
  std::vector<double> expected_real;
  std::vector<double> expected_complex;
  std::vector<std::vector<double>> expected_gradients;  // as Case::expected_gradients
};

// A direction of an observable's matrix is Hermitian: the dense simulator takes no Hermitian parts.
inline std::vector<double> random_tangent(Random& random, Role role, const InputSpec& spec, const Values& values) {
  if (role != Role::hermitian && role != Role::sparse)
    return random_numbers(random, static_cast<Index>(values.rows.size()));
  std::vector<double> rows;
  while (rows.size() < values.rows.size()) append_random_row(random, role, spec, rows);
  return rows;
}

// Now and then an input has no tangent, or the cotangents have none.
inline Tangents unsolved_tangents(Random& random, const Circuit& circuit, const Case& c) {
  Tangents t;
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    t.inputs.emplace_back();
    if (random.chance(0.8))
      t.inputs[i] = random_tangent(random, circuit.roles[i], circuit.program.inputs[i], c.values[i]);
  }
  if (random.chance(0.8)) {
    t.g_real = random_numbers(random, static_cast<Index>(c.g_real.size()));
    t.g_complex = random_numbers(random, static_cast<Index>(c.g_complex.size()));
  }
  return t;
}

inline SampleInputs<SecondDual> sample_inputs(const Case& c, const Tangents& t, Index sample, std::size_t moved) {
  SampleInputs<SecondDual> inputs;
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    const Values& values = c.values[i];
    inputs.emplace_back();
    for (Index e = values.row_of(sample); e < values.row_of(sample) + values.row_size; ++e) {
      const Dual value(values.rows[e], t.inputs[i].empty() ? 0 : t.inputs[i][e]);
      inputs[i].push_back(SecondDual(value, i == moved ? c.directions[i][e] : 0));
    }
  }
  return inputs;
}

inline double tangent_of_loss_tangent(const Case& c, const Tangents& t, const DenseResults<SecondDual>& results,
                                      Index sample) {
  Dual tangent;
  const auto add = [&](const std::vector<double>& g, const std::vector<double>& dg, Index e, const SecondDual& x) {
    tangent += Dual(g[e], dg.empty() ? 0 : dg[e]) * x.tangent;
  };
  Index e = sample * static_cast<Index>(results.real.size());
  for (const SecondDual& x : results.real) add(c.g_real, t.g_real, e++, x);
  e = 2 * sample * static_cast<Index>(results.complex.size());
  for (const Complex<SecondDual>& z : results.complex) {
    add(c.g_complex, t.g_complex, e++, z.re);
    add(c.g_complex, t.g_complex, e++, z.im);
  }
  return tangent.tangent;
}

inline Tangents make_tangents(Random& random, const Circuit& circuit, const Case& c) {
  Tangents t = unsolved_tangents(random, circuit, c);
  for (std::size_t i = 0; i < c.values.size(); ++i) {
    t.expected_gradients.emplace_back(c.values[i].batched ? c.batch : 1, 0.0);
    for (Index sample = 0; sample < c.batch; ++sample) {
      const DenseResults<SecondDual> results = dense_run(c.program->program, sample_inputs(c, t, sample, i));
      t.expected_gradients[i][c.values[i].batched ? sample : 0] += tangent_of_loss_tangent(c, t, results, sample);
      if (i > 0) continue;
      for (const SecondDual& x : results.real) t.expected_real.push_back(x.value.tangent);
      for (const Complex<SecondDual>& z : results.complex) {
        t.expected_complex.push_back(z.re.value.tangent);
        t.expected_complex.push_back(z.im.value.tangent);
      }
    }
  }
  return t;
}

// A run of any backend: derivatives of results alone, then with those of gradients.
template <class R>
void check_tangents(const Case& c, const Tangents& t, R& run) {
  for (const bool goes_back : {false, true}) {
    run.tangents(c.g_real, c.g_complex, t.inputs, t.g_real, t.g_complex, goes_back);
    check_results(c, run.real, t.expected_real, "tangent of real result");
    check_results(c, run.complex, t.expected_complex, "tangent of complex result");
  }
  check_gradients(c, run.gradients, t.expected_gradients);
}

// Cases for a backend: every gate and measurement, and circuits of everything.
template <class F>
void for_each_tangent_case(const F& f) {
  Random random(31);
  const auto run = [&](const Circuit& circuit, Index batch) {
    const Case c = unsolved_case(random, circuit, batch);
    f(c, make_tangents(random, circuit, c));
  };
  for (int opcode = 0; opcode < num_gates; ++opcode) {
    const int own = std::max<int>(gate_info(static_cast<Opcode>(opcode)).num_wires, 1);
    Circuit circuit = empty_circuit(std::max(own + opcode % 2, 2));
    add_rotations(circuit);
    circuit.program.gates.push_back(random_gate(random, circuit, static_cast<Opcode>(opcode), opcode % 2));
    add_rotations(circuit);
    circuit.program.measurements.push_back({MeasurementKind::state, {}, {}});
    run(circuit, 1 + opcode % 3);
  }
  for (int kind = 0; kind < num_measurements; ++kind) {
    for (int n = 1; n <= 4; ++n) {
      Circuit circuit = empty_circuit(n);
      add_rotations(circuit);
      for (int w = 0; w + 1 < n; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, w + 1}));
      for (int j = 0; j < 3; ++j)
        circuit.program.measurements.push_back(random_measurement(random, circuit, static_cast<MeasurementKind>(kind)));
      run(circuit, n);
    }
  }
  for (const Index batch : {1, 3, 5}) {
    for (int n = 1; n <= 4; ++n) run(random_circuit(random, n, 10), batch);
    for (int n = 2; n <= 5; ++n) run(pauli_word_circuit(random, n, 16), batch);
    for (int n = 2; n <= 5; ++n) run(half_circuit(random, n, 12), batch);
  }
}

}  // namespace ketgrad::testing
