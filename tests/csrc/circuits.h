// Random circuits, values for their inputs, and calls of the kernels: what several tests share.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "cpu/execute.h"
#include "cpu/simd_level.h"
#include "cpu/thresholds.h"
#include "math/complex.h"
#include "plan/lowering.h"
#include "plan/registry.h"
#include "program/program.h"

namespace ketgrad::testing {

// The same numbers on every machine: the standard's distributions are not.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}

  double uniform(double low, double high) {
    return low + (high - low) * static_cast<double>(engine_() >> 11) * 0x1p-53;
  }
  double sign() { return chance(0.5) ? 1 : -1; }

  double common_angle() { return uniform(-std::numbers::pi, std::numbers::pi); }

  // Wherever kernels take another way: at multiples of pi/2 and next to them, where sines or cosines vanish, and where
  // they say nothing any more. Huge ones are for gates alone; as coefficients they would leave no digits.
  double angle(bool may_be_huge = true) {
    const double quarter = std::numbers::pi / 2 * (below(17) - 8);
    switch (below(may_be_huge ? 10 : 9)) {
      case 0:
      case 1: return quarter;
      case 2:
      case 3: return quarter + sign() * std::pow(10.0, -1 - below(12));
      case 4: return 0;
      case 5: return sign() * (chance(0.3) ? 1e-300 : std::pow(10.0, -below(20)));
      case 6: return sign() * std::ldexp(1.0, below(8) - 5);
      case 9: return std::round(uniform(-16e6, 16e6)) / 4;  // float has the digits
      default: return common_angle();
    }
  }
  Complex<double> complex() { return {uniform(-1, 1), uniform(-1, 1)}; }
  int below(int n) { return static_cast<int>(engine_() % static_cast<std::uint64_t>(n)); }
  bool chance(double probability) { return uniform(0, 1) < probability; }

  // `count` distinct wires of `num_wires`.
  std::vector<int> wires(int num_wires, int count) {
    std::vector<int> all(num_wires);
    for (int w = 0; w < num_wires; ++w) all[w] = w;
    for (int j = 0; j < count; ++j) std::swap(all[j], all[j + below(num_wires - j)]);
    all.resize(count);
    return all;
  }

 private:
  std::mt19937_64 engine_;
};

// --- circuits --------------------------------------------------------------------------------------------------------

// What an input's values must be like.
enum class Role { angles, gate_angles, entries, unitary, diagonal, state, hermitian, sparse };

struct Circuit {
  Program program;
  std::vector<Role> roles;  // of the inputs

  // `size` counts columns (angles) or wires. A sparse matrix has the entries (a, b), (b, a), (c, c).
  int add_input(Role role, int size) {
    const Index dimension = Index{1} << size;
    roles.push_back(role);
    switch (role) {
      case Role::angles:
      case Role::gate_angles: program.inputs.push_back({false, {size}}); break;
      case Role::entries: program.inputs.push_back({false, {dimension}}); break;
      case Role::diagonal:
      case Role::state: program.inputs.push_back({true, {dimension}}); break;
      case Role::sparse: program.inputs.push_back({true, {3}}); break;
      case Role::unitary:
      case Role::hermitian: program.inputs.push_back({true, {dimension, dimension}}); break;
    }
    return static_cast<int>(program.inputs.size()) - 1;
  }
};

inline Opcode opcode_of(std::string_view name) {
  const int opcode = find_gate(name);
  if (opcode < 0) throw std::logic_error("no gate " + std::string(name));
  return static_cast<Opcode>(opcode);
}

// `wires` as a person gives them: the gate's own controls first.
inline Gate make_gate(std::string_view name, const std::vector<int>& wires, std::vector<Slot> slots = {}) {
  const GateInfo& info = gate_info(opcode_of(name));
  Gate gate;
  gate.opcode = opcode_of(name);
  gate.controls.assign(wires.begin(), wires.begin() + info.num_controls);
  gate.targets.assign(wires.begin() + info.num_controls, wires.end());
  gate.control_values.assign(info.num_controls, true);
  gate.slots = std::move(slots);
  gate.pauli_word = info.pauli_word;
  if (name == "MultiRZ") gate.pauli_word.assign(wires.size(), 'Z');
  return gate;
}

inline int random_column(Random& random, const Program& program, int input) {
  return random.below(static_cast<int>(program.inputs[input].shape[0]));
}

// Of a coefficient.
inline Slot random_slot(Random& random, const Program& program) {
  const int input = random.below(2);
  return {input, random_column(random, program, input), random.uniform(-0.4, 0.4), random.uniform(-1, 1)};
}

// Of a gate. Most are values as they are, which are those that matter; huge ones are not rounded on their way.
inline Slot random_angle(Random& random, const Program& program) {
  const int input = random.below(3);
  const int column = random_column(random, program, input);
  if (input == 2 || random.chance(0.6)) return {input, column, random.chance(0.8) ? 1.0 : -2.0, 0};
  return {input, column, random.chance(0.5) ? 0 : random.uniform(-1.5, 1.5), random.angle(false)};
}

inline int own_wires(Random& random, const GateInfo& info, int num_wires) {
  if (info.formula == Formula::global_phase) return 0;
  return info.num_wires == any_wires ? 1 + random.below(std::min(num_wires, 3)) : info.num_wires;
}

// The gate on random wires, perhaps inverted, with up to `max_controls` further controls. There must be wires enough.
inline Gate random_gate(Random& random, Circuit& circuit, Opcode opcode, int max_controls) {
  const GateInfo& info = gate_info(opcode);
  const int n = circuit.program.num_wires;
  const int own = own_wires(random, info, n);
  const int added = std::min(n - own, random.below(max_controls + 1));
  const std::vector<int> wires = random.wires(n, own + added);
  Gate gate = make_gate(info.name, {wires.begin() + added, wires.end()});
  gate.controls.insert(gate.controls.begin(), wires.begin(), wires.begin() + added);
  for (int j = 0; j < added; ++j) gate.control_values.insert(gate.control_values.begin(), random.chance(0.5));
  gate.inverse = random.chance(0.5);
  const bool is_evolution = info.family == Family::evolution;  // whose angles are multiplied once more
  for (int j = 0; j < info.num_parameters; ++j)
    gate.slots.push_back(is_evolution ? random_slot(random, circuit.program) : random_angle(random, circuit.program));
  if (info.name == "PauliRot") {
    for (int j = 0; j < own; ++j) gate.pauli_word += "IXYZ"[random.below(4)];
  }
  if (info.family == Family::matrix) gate.input = circuit.add_input(Role::unitary, own);
  if (info.family == Family::diagonal) gate.input = circuit.add_input(Role::diagonal, own);
  if (is_evolution) gate.input = circuit.add_input(Role::entries, own);
  return gate;
}

inline Factor random_factor(Random& random, Circuit& circuit, std::vector<int> wires) {
  const int k = static_cast<int>(wires.size());
  Factor factor;
  factor.kind = static_cast<FactorKind>(random.below(static_cast<int>(std::size(factor_names))));
  factor.wires = std::move(wires);
  switch (factor.kind) {
    case FactorKind::hermitian: factor.input = circuit.add_input(Role::hermitian, k); break;
    case FactorKind::state_projector: factor.input = circuit.add_input(Role::state, k); break;
    case FactorKind::projector:
      for (int j = 0; j < k; ++j) factor.bits.push_back(random.below(2));
      break;
    case FactorKind::sparse: {
      const int a = random.below(1 << k);
      const int b = random.below(1 << k);
      const int c = random.below(1 << k);
      factor.input = circuit.add_input(Role::sparse, k);
      factor.rows = {a, b, c};
      factor.columns = {b, a, c};
      break;
    }
    case FactorKind::diagonal: factor.input = circuit.add_input(Role::entries, k); break;
  }
  return factor;
}

// A Pauli word on some wires, factors on one or two wires each on some of the others.
inline Term random_term(Random& random, Circuit& circuit) {
  const int n = circuit.program.num_wires;
  const std::vector<int> wires = random.wires(n, n);
  Term term;
  term.scale = random.uniform(-1, 1);
  for (int j = random.below(3); j > 0; --j) term.coefficients.push_back(random_slot(random, circuit.program));
  const char* letters = random.chance(0.4) ? "ZZZ" : "XYZ";
  auto next = wires.begin();
  for (int j = random.below(n + 1); j > 0; --j) {
    term.pauli_wires.push_back(*next++);
    term.pauli_word += letters[random.below(3)];
  }
  while (next != wires.end() && random.chance(0.4)) {
    const auto first = next;
    next += std::min<std::ptrdiff_t>(1 + random.below(2), wires.end() - next);
    term.factors.push_back(random_factor(random, circuit, {first, next}));
  }
  return term;
}

inline Measurement random_measurement(Random& random, Circuit& circuit, MeasurementKind kind) {
  const int n = circuit.program.num_wires;
  Measurement measurement{kind, {}, {}};
  switch (kind) {
    case MeasurementKind::expval:
    case MeasurementKind::var:
      for (int j = 1 + random.below(4); j > 0; --j) measurement.terms.push_back(random_term(random, circuit));
      break;
    case MeasurementKind::probs: measurement.wires = random.wires(n, random.below(n + 1)); break;
    case MeasurementKind::density_matrix: measurement.wires = random.wires(n, random.below(std::min(n, 3) + 1)); break;
    case MeasurementKind::state: break;
  }
  return measurement;
}

inline InitialState random_initial(Random& random, Circuit& circuit) {
  const int n = circuit.program.num_wires;
  InitialState initial;
  initial.kind = static_cast<Preparation>(random.below(3));
  if (initial.kind == Preparation::zero) return initial;
  initial.wires = random.wires(n, 1 + random.below(std::min(n, 4)));
  const int k = static_cast<int>(initial.wires.size());
  if (initial.kind == Preparation::state) {
    initial.input = circuit.add_input(Role::state, k);
  } else {
    for (int j = 0; j < k; ++j) initial.bits.push_back(random.below(2));
  }
  return initial;
}

// Inputs 0 and 1 are real vectors that many gates and coefficients share, input 2 one of gates alone.
inline Circuit empty_circuit(int num_wires) {
  Circuit circuit;
  circuit.program.num_wires = num_wires;
  circuit.add_input(Role::angles, 4);
  circuit.add_input(Role::angles, 3);
  circuit.add_input(Role::gate_angles, 6);
  return circuit;
}

// Every kind of gate, preparation and measurement.
inline Circuit random_circuit(Random& random, int num_wires, int num_gates) {
  Circuit circuit = empty_circuit(num_wires);
  Program& program = circuit.program;
  program.initial = random_initial(random, circuit);
  while (static_cast<int>(program.gates.size()) < num_gates) {
    const auto opcode = static_cast<Opcode>(random.below(ketgrad::num_gates));
    if (gate_info(opcode).num_wires <= num_wires) program.gates.push_back(random_gate(random, circuit, opcode, 2));
  }
  program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
  for (int j = random.below(3); j > 0; --j) {
    const auto kind = static_cast<MeasurementKind>(random.below(num_measurements));
    program.measurements.push_back(random_measurement(random, circuit, kind));
  }
  return circuit;
}

// Rotations and permutations alone, most of them RX, and nothing but Pauli words measured: most of these are run in the
// basis of X.
inline Circuit pauli_word_circuit(Random& random, int num_wires, int num_gates) {
  Circuit circuit = empty_circuit(num_wires);
  Program& program = circuit.program;
  program.initial = random_initial(random, circuit);
  if (program.initial.kind == Preparation::state) program.initial = {};
  const Opcode rx = make_gate("RX", {0}).opcode;
  while (static_cast<int>(program.gates.size()) < num_gates) {
    const Opcode opcode = random.chance(0.7) ? rx : static_cast<Opcode>(random.below(ketgrad::num_gates));
    const GateInfo& info = gate_info(opcode);
    const bool has_input =
        info.family == Family::matrix || info.family == Family::diagonal || info.family == Family::evolution;
    if (info.num_wires > num_wires || has_input) continue;
    program.gates.push_back(random_gate(random, circuit, opcode, 1));
    if (!lower(program, {.unfuses_cosets = true}).gate_ops.empty()) program.gates.pop_back();
  }
  for (int m = 0; m < 2; ++m) {
    program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
    for (Term& term : program.measurements.back().terms) term.factors.clear();
  }
  return circuit;
}

// Some basis state, on all wires.
inline InitialState random_basis_state(Random& random, int num_wires) {
  InitialState found{Preparation::basis, random.wires(num_wires, num_wires), {}, no_input};
  for (int w = 0; w < num_wires; ++w) found.bits.push_back(random.below(2));
  return found;
}

// Gates that are the identity on half of the amplitudes, among few others; from a basis state on.
inline Circuit half_circuit(Random& random, int num_wires, int num_gates) {
  constexpr std::string_view halves[] = {"CRX", "CRY",     "CRot",     "CH", "SingleExcitation", "SingleExcitationPlus",
                                         "RX",  "IsingXY", "PauliRot", "RY", "SingleExcitation", "SX"};
  constexpr std::string_view others[] = {"RY", "RZ", "X", "CNOT", "SWAP", "ControlledPhaseShift", "ISWAP"};
  Circuit circuit = empty_circuit(num_wires);
  Program& program = circuit.program;
  program.initial = random_basis_state(random, num_wires);
  while (static_cast<int>(program.gates.size()) < num_gates) {
    const bool is_half = random.chance(0.75);
    const Opcode opcode = opcode_of(is_half ? halves[random.below(12)] : others[random.below(7)]);
    if (gate_info(opcode).num_wires > num_wires) continue;
    const int controls = is_half && gate_info(opcode).num_wires == 1 ? 2 : 1;
    Gate gate = random_gate(random, circuit, opcode, controls);
    if (gate.controls.size() <= 1) program.gates.push_back(std::move(gate));
  }
  program.measurements = {{MeasurementKind::state, {}, {}}};
  program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
  return circuit;
}

// Diagonal gates with up to five controls, among rotations and permutations; from a basis state on.
inline Circuit coset_circuit(Random& random, int num_wires, int num_gates) {
  constexpr std::string_view diagonals[] = {"Z",       "S",   "T",  "RZ", "PhaseShift", "GlobalPhase",
                                            "MultiRZ", "CCZ", "CZ", "Z",  "CRZ",        "ControlledPhaseShift"};
  constexpr std::string_view others[] = {"RY", "RX", "H", "X", "CNOT", "SWAP", "RZ", "CRX", "IsingXX", "Rot"};
  Circuit circuit = empty_circuit(num_wires);
  Program& program = circuit.program;
  program.initial = random_basis_state(random, num_wires);
  while (static_cast<int>(program.gates.size()) < num_gates) {
    const bool is_diagonal = random.chance(0.4);
    const Opcode opcode = opcode_of(is_diagonal ? diagonals[random.below(12)] : others[random.below(10)]);
    if (gate_info(opcode).num_wires > num_wires) continue;
    program.gates.push_back(random_gate(random, circuit, opcode, is_diagonal ? 5 : 0));
  }
  program.measurements = {{MeasurementKind::state, {}, {}}};
  program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
  return circuit;
}

// Matrices of one to three wires, and gates that become matrices, with and without controls, among permutations.
inline Circuit dense_circuit(Random& random, int num_wires, int num_gates) {
  constexpr std::string_view names[] = {"QubitUnitary",
                                        "QubitUnitary",
                                        "QubitUnitary",
                                        "SWAP",
                                        "X",
                                        "CNOT",
                                        "CNOT",
                                        "CNOT",
                                        "CRX",
                                        "CRY",
                                        "RY",
                                        "RZ",
                                        "DoubleExcitation",
                                        "SingleExcitationPlus"};
  Circuit circuit = empty_circuit(num_wires);
  Program& program = circuit.program;
  const int kinds = random.chance(0.5) ? 5 : 14;
  while (static_cast<int>(program.gates.size()) < num_gates) {
    const Opcode opcode = opcode_of(names[random.below(kinds)]);
    if (gate_info(opcode).num_wires > num_wires) continue;
    program.gates.push_back(random_gate(random, circuit, opcode, random.chance(0.3) ? 3 : 0));
  }
  program.measurements = {{MeasurementKind::state, {}, {}}};
  program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
  return circuit;
}

// Circuits of few kinds, which random ones seldom are: layers of one kind of gate, runs without a phase or without a
// rotation, each gate or each layer with an angle of its own or all with the same; phases before anything else.
inline Circuit layered_circuit(Random& random, int num_wires, int num_layers) {
  Circuit circuit = empty_circuit(num_wires);
  Program& program = circuit.program;
  const std::vector<const char*> kinds = random.chance(0.4)   ? std::vector<const char*>{"RY"}
                                         : random.chance(0.3) ? std::vector<const char*>{"RX", "RZ"}
                                         : random.chance(0.5)
                                             ? std::vector<const char*>{"RX", "RY", "RZ", "PhaseShift", "SX", "H"}
                                             : std::vector<const char*>{"RZ", "PhaseShift", "T", "RY"};
  const bool is_shared = random.chance(0.3);
  const Slot shared = random_angle(random, program);
  const auto add = [&](const char* name, const std::vector<int>& wires) {
    Gate gate = make_gate(name, wires);
    for (int j = 0; j < gate_info(gate.opcode).num_parameters; ++j)
      gate.slots.push_back(is_shared ? shared : random_angle(random, program));
    program.gates.push_back(std::move(gate));
  };
  if (random.chance(0.85)) {
    for (int w = 0; w < num_wires; ++w) add("RZ", {w});
  }
  for (int layer = 0; layer < num_layers; ++layer) {
    const char* kind = kinds[random.below(static_cast<int>(kinds.size()))];
    for (int w = 0; w < num_wires; ++w) add(kind, {w});
    if (num_wires == 1 || random.chance(0.2)) continue;
    constexpr const char* rotations[] = {"IsingZZ", "IsingXX", "CRY", "SingleExcitation"};
    const char* pair = random.chance(0.6) ? "CNOT" : rotations[random.below(4)];
    for (int w = random.below(2); w + 1 < num_wires; ++w) add(pair, {w, w + 1});
  }
  for (int m = 0; m < 2; ++m)
    program.measurements.push_back(
        random_measurement(random, circuit, static_cast<MeasurementKind>(random.below(num_measurements))));
  return circuit;
}

// --- values ----------------------------------------------------------------------------------------------------------

// An input's values: one row, or one a sample. Complex numbers are interleaved.
struct Values {
  bool batched = false;
  Index row_size = 0;
  std::vector<double> rows;

  Index row_of(Index sample) const { return batched ? sample * row_size : 0; }
};

inline void normalise(Complex<double>* row, Index size, Index stride) {
  double norm = 0;
  for (Index i = 0; i < size; ++i)
    norm += row[i * stride].re * row[i * stride].re + row[i * stride].im * row[i * stride].im;
  for (Index i = 0; i < size; ++i) row[i * stride] = (1 / std::sqrt(norm)) * row[i * stride];
}

// Gram-Schmidt on the rows of a random matrix.
inline void make_unitary(std::vector<Complex<double>>& m, Index size) {
  for (Index a = 0; a < size; ++a) {
    for (Index b = 0; b < a; ++b) {
      Complex<double> overlap;
      for (Index i = 0; i < size; ++i) overlap += conj(m[b * size + i]) * m[a * size + i];
      for (Index i = 0; i < size; ++i) m[a * size + i] = m[a * size + i] - overlap * m[b * size + i];
    }
    normalise(&m[a * size], size, 1);
  }
}

inline void make_hermitian(std::vector<Complex<double>>& m, Index size) {
  for (Index a = 0; a < size; ++a) {
    m[a * size + a].im = 0;
    for (Index b = 0; b < a; ++b) m[a * size + b] = conj(m[b * size + a]);
  }
}

inline std::vector<Complex<double>> random_complex_row(Random& random, Role role, const InputSpec& spec) {
  std::vector<Complex<double>> row(spec.numel());
  for (Complex<double>& z : row) z = random.complex();
  switch (role) {
    case Role::unitary: make_unitary(row, spec.shape[0]); break;
    case Role::hermitian: make_hermitian(row, spec.shape[0]); break;
    case Role::state: normalise(row.data(), spec.numel(), 1); break;
    case Role::sparse: row[1] = conj(row[0]), row[2].im = 0; break;
    case Role::diagonal:
      for (Complex<double>& z : row) normalise(&z, 1, 1);
      break;
    case Role::angles:
    case Role::gate_angles:
    case Role::entries: break;
  }
  return row;
}

// Real numbers as double has them, or rounded to what float has, so that either precision is given the same.
enum class Given { as_double, as_float };

inline void append_random_row(Random& random, Role role, const InputSpec& spec, std::vector<double>& rows,
                              Given given = Given::as_float) {
  if (!spec.is_complex) {
    // All equal, all anywhere, or each of another kind.
    const int kind = random.below(5);
    const bool may_be_huge = role == Role::gate_angles;
    const double equal = random.angle(may_be_huge);
    for (Index e = 0; e < spec.numel(); ++e) {
      const double angle = kind == 0 ? equal : kind <= 2 ? random.common_angle() : random.angle(may_be_huge);
      rows.push_back(given == Given::as_float ? static_cast<float>(angle) : angle);
    }
    return;
  }
  for (const Complex<double>& z : random_complex_row(random, role, spec)) {
    rows.push_back(z.re);
    rows.push_back(z.im);
  }
}

// Each input carries a batch axis or not, as it falls.
inline std::vector<Values> random_values(Random& random, const Circuit& circuit, Index batch,
                                         Given given = Given::as_float) {
  std::vector<Values> all;
  for (std::size_t i = 0; i < circuit.roles.size(); ++i) {
    const InputSpec& spec = circuit.program.inputs[i];
    Values values{random.chance(0.5), spec.numel() * (spec.is_complex ? 2 : 1), {}};
    for (Index row = values.batched ? batch : 1; row > 0; --row)
      append_random_row(random, circuit.roles[i], spec, values.rows, given);
    all.push_back(std::move(values));
  }
  return all;
}

// --- calls -----------------------------------------------------------------------------------------------------------

// Tasks that the pool below was handed: whether a call did spread is its own choice.
inline std::atomic<Index> tasks_spread{0};

// A pool without torch, whose threads the thread sanitizer sees. The caller takes part, as it does in torch's.
inline void on_threads(Index tasks, void (*body)(void*, Index), void* context) {
  tasks_spread += tasks;
  std::atomic<Index> next{1};
  const auto work = [&] {
    for (Index task = next++; task < tasks; task = next++) body(context, task);
  };
  std::vector<std::thread> threads;
  for (Index t = 1; t < std::min<Index>(tasks, 3); ++t) threads.emplace_back(work);
  body(context, 0);
  work();
  for (std::thread& thread : threads) thread.join();
}

// The memory of a call, each piece exactly as large as the kernels may take it to be.
template <class T>
class CallMemory {
 public:
  std::vector<T> real;
  std::vector<T> complex;
  std::vector<T> ket;
  std::vector<std::vector<T>> gradients;

 protected:
  CallMemory(ProgramHandle program, const std::vector<Values>& values, Index batch)
      : program_(std::move(program)), batch_(batch) {
    for (const Values& v : values) inputs_.emplace_back(v.rows.begin(), v.rows.end());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const InputSpec& spec = program_->program.inputs[i];
      views_.push_back({inputs_[i].data(), values[i].batched, spec.is_complex, spec.numel()});
    }
  }

  Results<T> results(bool keep_ket) {
    const Program& program = program_->program;
    real.assign(batch_ * program.real_results(), T(-7));
    complex.assign(2 * batch_ * program.complex_results(), T(-7));
    ket.assign(keep_ket ? 2 * batch_ << program.num_wires : 0, T(-7));
    return {real.data(), complex.data(), keep_ket ? ket.data() : nullptr};
  }

  // Uses the ket of `results` where that kept it. An empty `requested` requests every input.
  Cotangents<T> cotangents(const std::vector<double>& g_real, const std::vector<double>& g_complex,
                           const std::vector<bool>& requested) {
    g_real_.assign(g_real.begin(), g_real.end());
    g_complex_.assign(g_complex.begin(), g_complex.end());
    Cotangents<T> found{ket.empty() ? nullptr : ket.data(), g_real_.data(), g_complex_.data(), {}};
    gradients.clear();
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      gradients.emplace_back(requested.empty() || requested[i] ? inputs_[i].size() : 0, T(0));
      found.gradients.push_back(gradients[i].empty() ? nullptr : gradients[i].data());
    }
    return found;
  }

  // The directions of inputs, null where one has no tangent.
  std::vector<const T*> directions(const std::vector<std::vector<double>>& tangents) {
    tangents_.clear();
    std::vector<const T*> found;
    for (const std::vector<double>& tangent : tangents) {
      tangents_.emplace_back(tangent.begin(), tangent.end());
      found.push_back(tangent.empty() ? nullptr : tangents_.back().data());
    }
    return found;
  }

  Directional<T> directional(const std::vector<double>& g_real, const std::vector<double>& g_complex,
                             const std::vector<double>& dg_real, const std::vector<double>& dg_complex,
                             bool goes_back) {
    dg_real_.assign(dg_real.begin(), dg_real.end());
    dg_complex_.assign(dg_complex.begin(), dg_complex.end());
    Directional<T> found;
    found.results = results(false);
    found.cotangents = cotangents(g_real, g_complex, std::vector<bool>(goes_back ? 0 : inputs_.size(), false));
    found.real_tangent = dg_real.empty() ? nullptr : dg_real_.data();
    found.complex_tangent = dg_complex.empty() ? nullptr : dg_complex_.data();
    return found;
  }

  ProgramHandle program_;
  const Index batch_;
  std::vector<std::vector<T>> inputs_;
  std::vector<InputView<T>> views_;

 private:
  std::vector<std::vector<T>> tangents_;
  std::vector<T> dg_real_;
  std::vector<T> dg_complex_;
  std::vector<T> g_real_;
  std::vector<T> g_complex_;
};

// A call of the CPU's kernels.
template <class T>
class Run : public CallMemory<T> {
 public:
  Call<T> call;

  Run(ProgramHandle program, const std::vector<Values>& values, Index batch, int threads)
      : CallMemory<T>(std::move(program), values, batch) {
    call.planned = this->program_.get();
    call.batch = batch;
    call.inputs = this->views_;
    call.parallel = on_threads;
    call.threads = threads;
  }

  void forward(bool keep_ket = true) { execute<T>(call, this->results(keep_ket)); }

  void backward(const std::vector<double>& g_real, const std::vector<double>& g_complex,
                const std::vector<bool>& requested = {}) {
    execute_vjp<T>(call, this->cotangents(g_real, g_complex, requested));
  }

  void tangents(const std::vector<double>& g_real, const std::vector<double>& g_complex,
                const std::vector<std::vector<double>>& inputs, const std::vector<double>& dg_real,
                const std::vector<double>& dg_complex, bool goes_back) {
    const std::vector<const T*> directions = this->directions(inputs);
    call.tangents = call.inputs;
    for (std::size_t i = 0; i < directions.size(); ++i) call.tangents[i].data = directions[i];
    execute_tangents<T>(call, this->directional(g_real, g_complex, dg_real, dg_complex, goes_back));
  }
};

inline std::vector<double> random_numbers(Random& random, Index count) {
  std::vector<double> numbers;
  for (Index i = 0; i < count; ++i) numbers.push_back(random.uniform(-1, 1));
  return numbers;
}

// Calls f with each instruction set in use, one after the other.
template <class F>
void for_each_simd_level(const F& f) {
  const std::string before = current_simd_level();
  for (const std::string& level : available_simd_levels()) {
    set_simd_level(level);
    f();
  }
  set_simd_level(before);
}

}  // namespace ketgrad::testing
