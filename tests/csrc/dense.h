// A second way to everything: every gate as exponentials exp(-i angle G / 2), summed up as power series on the state;
// every observable as dense matrices. Slow, obvious, and shares with the kernels only the meaning of a Program. On Dual
// numbers it differentiates exactly.
#pragma once

#include <cmath>
#include <numbers>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "math/complex.h"
#include "math/dual.h"
#include "program/program.h"

namespace ketgrad::testing {

template <class R>
using Dense = std::vector<Complex<R>>;  // a state, or a row-major matrix

// Local wires and controls of a state's index.
struct Site {
  int num_wires;
  std::vector<int> wires;
  std::vector<int> controls = {};
  std::vector<bool> values = {};

  Index size() const { return Index{1} << wires.size(); }
  Index bit(Index state, int wire) const { return (state >> (num_wires - 1 - wire)) & 1; }

  bool holds(Index state) const {
    for (std::size_t j = 0; j < controls.size(); ++j) {
      if (bit(state, controls[j]) != Index{values[j]}) return false;
    }
    return true;
  }

  Index local(Index state) const {
    Index a = 0;
    for (const int w : wires) a = 2 * a + bit(state, w);
    return a;
  }

  Index with_local(Index state, Index a) const {
    for (std::size_t j = 0; j < wires.size(); ++j) {
      const Index mask = Index{1} << (num_wires - 1 - wires[j]);
      state = ((a >> (wires.size() - 1 - j)) & 1) != 0 ? state | mask : state & ~mask;
    }
    return state;
  }
};

// m psi where the controls hold, zero elsewhere. (A Complex<R> times a constant matrix is requested too: hence M.)
template <class R, class M>
Dense<R> times(const Site& site, const Dense<M>& m, const Dense<R>& psi) {
  Dense<R> out(psi.size());
  for (Index i = 0; i < static_cast<Index>(psi.size()); ++i) {
    if (!site.holds(i)) continue;
    const Complex<M>* row = m.data() + site.local(i) * site.size();
    for (Index b = 0; b < site.size(); ++b) {
      if constexpr (std::is_same_v<M, double>) {
        if (row[b].re == 0 && row[b].im == 0) continue;
      }
      out[i] += Complex<R>{R(row[b].re), R(row[b].im)} * psi[site.with_local(i, b)];
    }
  }
  return out;
}

// --- gates -----------------------------------------------------------------------------------------------------------

// The Kronecker product of Pauli matrices.
inline Dense<double> pauli(std::string_view pauli_word) {
  const Index size = Index{1} << pauli_word.size();
  Dense<double> m(size * size);
  for (Index a = 0; a < size; ++a) {
    Index b = a;
    Complex<double> value{1, 0};
    for (std::size_t j = 0; j < pauli_word.size(); ++j) {
      const Index mask = Index{1} << (pauli_word.size() - 1 - j);
      const double sign = (a & mask) != 0 ? -1 : 1;
      if (pauli_word[j] == 'X' || pauli_word[j] == 'Y') b ^= mask;
      if (pauli_word[j] == 'Z') value = sign * value;
      if (pauli_word[j] == 'Y') value = Complex<double>{0, -sign} * value;
    }
    m[a * size + b] = value;
  }
  return m;
}

inline Dense<double> combine(double s, const Dense<double>& a, double t, const Dense<double>& b) {
  Dense<double> m;
  for (std::size_t e = 0; e < a.size(); ++e) m.push_back(s * a[e] + t * b[e]);
  return m;
}

// Y between the local states low and high; `rest` on the diagonal elsewhere.
inline Dense<double> excitation_generator(int size, int low, int high, double rest) {
  Dense<double> m(size * size);
  for (int a = 0; a < size; ++a) m[a * size + a].re = a == low || a == high ? 0 : rest;
  m[low * size + high] = {0, -1};
  m[high * size + low] = {0, 1};
  return m;
}

// exp(-i angle G / 2), or a matrix as it is where there is no G.
template <class R>
struct Part {
  R angle{};
  Dense<double> generator;
  Dense<R> matrix = {};
};

// G with exp(-i pi G / 2) = U, for a U that is its own inverse.
inline Dense<double> root(const Dense<double>& u, const Dense<double>& identity) { return combine(1, u, -1, identity); }

inline Dense<double> swap_matrix() {
  return combine(0.5, combine(1, pauli("II"), 1, pauli("XX")), 0.5, combine(1, pauli("YY"), 1, pauli("ZZ")));
}

// A gate without its controls, first part first.
template <class R>
std::vector<Part<R>> parts_of(std::string_view name, const std::vector<R>& p, const std::string& pauli_word) {
  const R pi(std::numbers::pi);
  const Dense<double> one = pauli("I");
  const Dense<double> phase = combine(1, pauli("Z"), -1, one);  // PhaseShift's
  const Dense<double> exchange = combine(-0.5, pauli("XX"), -0.5, pauli("YY"));
  const Dense<double> odd = combine(1, pauli("ZZ"), -1, pauli("II"));  // -2 on |01> and |10>
  if (name == "Identity") return {};
  if (name == "X" || name == "CNOT" || name == "Toffoli") return {{pi, root(pauli("X"), one)}};
  if (name == "Y" || name == "CY") return {{pi, root(pauli("Y"), one)}};
  if (name == "Z" || name == "CZ" || name == "CCZ") return {{pi, phase}};
  if (name == "H" || name == "CH") {
    const double h = std::numbers::sqrt2 / 2;
    return {{pi, root(combine(h, pauli("X"), h, pauli("Z")), one)}};
  }
  if (name == "S") return {{R(0.5) * pi, phase}};
  if (name == "T") return {{R(0.25) * pi, phase}};
  if (name == "SX") return {{R(0.5) * pi, root(pauli("X"), one)}};
  if (name == "SWAP" || name == "CSWAP") return {{pi, root(swap_matrix(), pauli("II"))}};
  if (name == "ISWAP") return {{pi, exchange}};
  if (name == "RX" || name == "CRX") return {{p[0], pauli("X")}};
  if (name == "RY" || name == "CRY") return {{p[0], pauli("Y")}};
  if (name == "RZ" || name == "CRZ") return {{p[0], pauli("Z")}};
  if (name == "PhaseShift" || name == "U1" || name == "ControlledPhaseShift") return {{p[0], phase}};
  if (name == "Rot" || name == "CRot") return {{p[0], pauli("Z")}, {p[1], pauli("Y")}, {p[2], pauli("Z")}};
  if (name == "U2") return {{p[1], phase}, {R(0.5) * pi, pauli("Y")}, {p[0], phase}};
  if (name == "U3") return {{p[2], phase}, {p[0], pauli("Y")}, {p[1], phase}};
  if (name == "IsingXX") return {{p[0], pauli("XX")}};
  if (name == "IsingYY") return {{p[0], pauli("YY")}};
  if (name == "IsingZZ") return {{p[0], pauli("ZZ")}};
  if (name == "IsingXY") return {{p[0], exchange}};
  if (name == "SingleExcitation") return {{p[0], excitation_generator(4, 1, 2, 0)}};
  if (name == "SingleExcitationPlus") return {{p[0], excitation_generator(4, 1, 2, -1)}};
  if (name == "SingleExcitationMinus") return {{p[0], excitation_generator(4, 1, 2, 1)}};
  if (name == "DoubleExcitation") return {{p[0], excitation_generator(16, 3, 12, 0)}};
  if (name == "DoubleExcitationPlus") return {{p[0], excitation_generator(16, 3, 12, -1)}};
  if (name == "DoubleExcitationMinus") return {{p[0], excitation_generator(16, 3, 12, 1)}};
  if (name == "PSWAP") return {{p[0], odd}, {pi, root(swap_matrix(), pauli("II"))}};
  if (name == "MultiRZ") return {{p[0], pauli(std::string(pauli_word.size(), 'Z'))}};
  if (name == "PauliRot") return {{p[0], pauli(pauli_word)}};
  if (name == "GlobalPhase") return {{R(2) * p[0], pauli("")}};
  throw std::logic_error("the dense simulator lacks " + std::string(name));
}

// Generators have whole numbers as eigenvalues: their exponentials have the period 4 pi.
inline void reduce(double& angle) {
  constexpr long double period = 4 * std::numbers::pi_v<long double>;
  angle = static_cast<double>(angle - period * std::round(angle / period));
}

template <class R>
void reduce(DualOf<R>& angle) {
  reduce(angle.value);
}

template <class R>
Dense<R> exponential(const Site& site, R angle, const Dense<double>& generator, const Dense<R>& psi) {
  reduce(angle);
  Dense<R> sum = psi;
  Dense<R> term = psi;
  for (int k = 1; k <= 48; ++k) {  // enough for |angle G / 2| up to 8
    term = times(site, generator, term);
    for (Complex<R>& z : term) z = Complex<R>{R(0), R(-0.5 / k) * angle} * z;
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += term[i];
  }
  return sum;
}

template <class R>
Dense<R> adjoint(const Dense<R>& m, Index size) {
  Dense<R> out(m.size());
  for (Index a = 0; a < size; ++a) {
    for (Index b = 0; b < size; ++b) out[a * size + b] = conj(m[b * size + a]);
  }
  return out;
}

// --- the inputs of one sample ----------------------------------------------------------------------------------------

// Per input its numbers, complex ones interleaved.
template <class R>
using SampleInputs = std::vector<std::vector<R>>;

template <class R>
R slot_value(const SampleInputs<R>& inputs, const Slot& slot) {
  return R(slot.scale) * inputs[slot.input][slot.column] + R(slot.offset);
}

template <class R>
Dense<R> complex_input(const SampleInputs<R>& inputs, int input) {
  Dense<R> numbers;
  for (std::size_t e = 0; e + 1 < inputs[input].size(); e += 2)
    numbers.push_back({inputs[input][e], inputs[input][e + 1]});
  return numbers;
}

template <class R>
Dense<R> diagonal_matrix(const Dense<R>& diagonal) {
  const std::size_t size = diagonal.size();
  Dense<R> m(size * size);
  for (std::size_t a = 0; a < size; ++a) m[a * size + a] = diagonal[a];
  return m;
}

// exp(-i t D)
template <class R>
Dense<R> evolution_matrix(const R& time, const std::vector<R>& entries) {
  using std::cos;
  using std::sin;
  Dense<R> phases;
  for (const R& entry : entries) phases.push_back({cos(time * entry), -sin(time * entry)});
  return diagonal_matrix(phases);
}

template <class R>
std::vector<Part<R>> parts_of(const Gate& gate, const SampleInputs<R>& inputs) {
  const GateInfo& info = gate_info(gate.opcode);
  if (info.family == Family::matrix) return {{R(0), {}, complex_input(inputs, gate.input)}};
  if (info.family == Family::diagonal) return {{R(0), {}, diagonal_matrix(complex_input(inputs, gate.input))}};
  std::vector<R> parameters;
  for (const Slot& s : gate.slots) parameters.push_back(slot_value(inputs, s));
  if (info.family == Family::evolution) return {{R(0), {}, evolution_matrix(parameters[0], inputs[gate.input])}};
  return parts_of<R>(info.name, parameters, gate.pauli_word);
}

template <class R>
Dense<R> apply_gate(int num_wires, const Gate& gate, const SampleInputs<R>& inputs, Dense<R> psi) {
  if (gate_info(gate.opcode).family == Family::identity) return psi;
  const Site site{num_wires, gate.targets, gate.controls, gate.control_values};
  std::vector<Part<R>> parts = parts_of(gate, inputs);
  if (gate.inverse) parts = {parts.rbegin(), parts.rend()};
  for (const Part<R>& part : parts) {
    if (!part.generator.empty()) {
      psi = exponential(site, gate.inverse ? -part.angle : part.angle, part.generator, psi);
      continue;
    }
    const Dense<R> next = times(site, gate.inverse ? adjoint(part.matrix, site.size()) : part.matrix, psi);
    for (Index i = 0; i < static_cast<Index>(psi.size()); ++i) {
      if (site.holds(i)) psi[i] = next[i];
    }
  }
  return psi;
}

template <class R>
Dense<R> initial_state(const Program& program, const SampleInputs<R>& inputs) {
  const InitialState& initial = program.initial;
  const Site site{program.num_wires, initial.wires};
  Dense<R> psi(std::size_t{1} << program.num_wires);
  if (initial.kind != Preparation::state) {
    Index a = 0;
    for (const int b : initial.bits) a = 2 * a + b;
    psi[initial.kind == Preparation::basis ? site.with_local(0, a) : 0].re = R(1);
    return psi;
  }
  const Dense<R> amplitudes = complex_input(inputs, initial.input);
  for (Index a = 0; a < site.size(); ++a) psi[site.with_local(0, a)] = amplitudes[a];
  return psi;
}

template <class R>
Dense<R> run_circuit(const Program& program, const SampleInputs<R>& inputs) {
  Dense<R> psi = initial_state(program, inputs);
  for (const Gate& gate : program.gates) psi = apply_gate(program.num_wires, gate, inputs, std::move(psi));
  return psi;
}

// --- measurements ----------------------------------------------------------------------------------------------------

template <class R>
Dense<R> factor_matrix(const Factor& factor, const SampleInputs<R>& inputs) {
  const Index size = Index{1} << factor.wires.size();
  Dense<R> m(size * size);
  Index basis = 0;
  for (const int b : factor.bits) basis = 2 * basis + b;
  if (factor.kind == FactorKind::hermitian) return complex_input(inputs, factor.input);
  if (factor.kind == FactorKind::projector) {
    m[basis * (size + 1)].re = R(1);
    return m;
  }
  if (factor.kind == FactorKind::diagonal) {
    for (Index a = 0; a < size; ++a) m[a * (size + 1)].re = inputs[factor.input][a];
    return m;
  }
  const Dense<R> values = complex_input(inputs, factor.input);
  if (factor.kind == FactorKind::state_projector) {
    for (Index e = 0; e < size * size; ++e) m[e] = values[e / size] * conj(values[e % size]);
  } else {
    for (std::size_t k = 0; k < values.size(); ++k) m[factor.rows[k] * size + factor.columns[k]] += values[k];
  }
  return m;
}

template <class R>
Dense<R> apply_observable(int num_wires, const std::vector<Term>& terms, const SampleInputs<R>& inputs,
                          const Dense<R>& psi) {
  Dense<R> sum(psi.size());
  for (const Term& term : terms) {
    R coefficient(term.scale);
    for (const Slot& s : term.coefficients) coefficient = coefficient * slot_value(inputs, s);
    Dense<R> out = psi;
    for (std::size_t j = 0; j < term.pauli_word.size(); ++j) {
      out = times(Site{num_wires, {term.pauli_wires[j]}}, pauli(term.pauli_word.substr(j, 1)), out);
    }
    for (const Factor& f : term.factors) out = times(Site{num_wires, f.wires}, factor_matrix(f, inputs), out);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += coefficient * out[i];
  }
  return sum;
}

template <class R>
R real_overlap(const Dense<R>& u, const Dense<R>& v) {
  R sum(0);
  for (std::size_t i = 0; i < u.size(); ++i) sum += u[i].re * v[i].re + u[i].im * v[i].im;
  return sum;
}

// What one sample measures, in the order of the results.
template <class R>
struct DenseResults {
  std::vector<R> real;
  Dense<R> complex;
};

template <class R>
void measure_observable(const Program& program, const Measurement& m, const SampleInputs<R>& inputs,
                        const Dense<R>& psi, DenseResults<R>& results) {
  const Dense<R> once = apply_observable(program.num_wires, m.terms, inputs, psi);
  const R mean = real_overlap(psi, once);
  if (m.kind == MeasurementKind::expval) return results.real.push_back(mean);
  const Dense<R> twice = apply_observable(program.num_wires, m.terms, inputs, once);
  results.real.push_back(real_overlap(psi, twice) - mean * mean);
}

template <class R>
void measure_probs(const Site& site, const Dense<R>& psi, DenseResults<R>& results) {
  std::vector<R> p(site.size(), R(0));
  for (Index i = 0; i < static_cast<Index>(psi.size()); ++i)
    p[site.local(i)] += psi[i].re * psi[i].re + psi[i].im * psi[i].im;
  results.real.insert(results.real.end(), p.begin(), p.end());
}

template <class R>
void measure_density_matrix(const Site& site, const Dense<R>& psi, DenseResults<R>& results) {
  Dense<R> rho(site.size() * site.size());
  for (Index i = 0; i < static_cast<Index>(psi.size()); ++i) {
    for (Index b = 0; b < site.size(); ++b)
      rho[site.local(i) * site.size() + b] += psi[i] * conj(psi[site.with_local(i, b)]);
  }
  results.complex.insert(results.complex.end(), rho.begin(), rho.end());
}

template <class R>
DenseResults<R> dense_run(const Program& program, const SampleInputs<R>& inputs) {
  const Dense<R> psi = run_circuit(program, inputs);
  DenseResults<R> results;
  for (const Measurement& m : program.measurements) {
    switch (m.kind) {
      case MeasurementKind::expval:
      case MeasurementKind::var: measure_observable(program, m, inputs, psi, results); break;
      case MeasurementKind::probs: measure_probs(Site{program.num_wires, m.wires}, psi, results); break;
      case MeasurementKind::density_matrix:
        measure_density_matrix(Site{program.num_wires, m.wires}, psi, results);
        break;
      case MeasurementKind::state: results.complex.insert(results.complex.end(), psi.begin(), psi.end()); break;
    }
  }
  return results;
}

}  // namespace ketgrad::testing
