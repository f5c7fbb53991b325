// The gate table and its formulas: unitary, differentiated rightly, and the gates that their names say.
#include <set>
#include <string>

#include "check.h"
#include "circuits.h"
#include "dense.h"
#include "program/gate_matrix.h"

namespace ketgrad::testing {
namespace {

constexpr double eps = 1e-6;

bool is_block(const GateInfo& info) { return info.family == Family::block; }

std::vector<double> random_parameters(Random& random, const GateInfo& info) {
  std::vector<double> p;
  for (int j = 0; j < info.num_parameters; ++j) p.push_back(2 * random.common_angle());
  return p;
}

Dense<double> matrix_of(const GateInfo& info, const std::vector<double>& p) {
  const int size = block_size(info);
  Dense<double> m(size * size);
  block_matrix(info.formula, p.data(), m.data());
  return m;
}

void check_unitary(const Dense<double>& m, int size) {
  for (int a = 0; a < size; ++a) {
    for (int b = 0; b < size; ++b) {
      Complex<double> sum;
      for (int c = 0; c < size; ++c) sum += m[a * size + c] * conj(m[b * size + c]);
      CHECK_NEAR(sum.re, a == b, 1e-14);
      CHECK_NEAR(sum.im, 0, 1e-14);
    }
  }
}

void check_entry(const Complex<double>& value, double re, double im) {
  CHECK_NEAR(value.re, re, 1e-15);
  CHECK_NEAR(value.im, im, 1e-15);
}

TEST(names_are_unique_and_found) {
  std::set<std::string_view> names;
  for (int g = 0; g < num_gates; ++g) {
    names.insert(gate_table[g].name);
    CHECK(find_gate(gate_table[g].name) == g);
  }
  CHECK(static_cast<int>(names.size()) == num_gates);
  CHECK(find_gate("RXX") == -1);
  CHECK(find_gate("") == -1);
}

TEST(table_fits_the_kernels_buffers) {
  for (const GateInfo& info : gate_table) {
    CHECK(info.num_parameters <= max_parameters);
    if (is_block(info)) CHECK(block_size(info) <= max_block_size);
    if (is_block(info)) CHECK(info.formula != Formula::none);
    if (!info.pauli_word.empty()) CHECK(static_cast<int>(info.pauli_word.size()) == info.num_wires);
  }
}

TEST(every_formula_is_unitary) {
  Random random(1);
  for (const GateInfo& info : gate_table) {
    if (!is_block(info)) continue;
    for (int round = 0; round < 5; ++round)
      check_unitary(matrix_of(info, random_parameters(random, info)), block_size(info));
  }
}

TEST(diagonal_formulas_are_diagonal) {
  Random random(2);
  for (const GateInfo& info : gate_table) {
    if (!is_block(info)) continue;
    const int size = block_size(info);
    const Dense<double> m = matrix_of(info, random_parameters(random, info));
    bool diagonal = true;
    for (int e = 0; e < size * size; ++e) diagonal &= e % (size + 1) == 0 || (m[e].re == 0 && m[e].im == 0);
    CHECK(diagonal == is_diagonal(info.formula));
  }
}

void check_tangents(const GateInfo& info, const std::vector<double>& p, int seeded) {
  std::vector<Dual> duals(p.begin(), p.end());
  duals[seeded].tangent = 1;
  std::vector<double> above = p;
  std::vector<double> below = p;
  above[seeded] += eps;
  below[seeded] -= eps;
  const Dense<double> up = matrix_of(info, above);
  const Dense<double> down = matrix_of(info, below);
  const Dense<double> here = matrix_of(info, p);
  std::vector<Complex<Dual>> m(here.size());
  block_matrix(info.formula, duals.data(), m.data());
  for (std::size_t e = 0; e < m.size(); ++e) {
    check_entry(here[e], m[e].re.value, m[e].im.value);
    CHECK_NEAR(m[e].re.tangent, (up[e].re - down[e].re) / (2 * eps), 1e-9);
    CHECK_NEAR(m[e].im.tangent, (up[e].im - down[e].im) / (2 * eps), 1e-9);
  }
}

TEST(duals_differentiate_every_formula) {
  Random random(3);
  for (const GateInfo& info : gate_table) {
    if (!is_block(info)) continue;
    for (int j = 0; j < info.num_parameters; ++j) check_tangents(info, random_parameters(random, info), j);
  }
}

// The matrix that a block stands for on all targets of its gate.
Dense<double> embedded(const GateInfo& info, const Dense<double>& block) {
  if (info.subspace == Subspace::all) return block;
  const int size = 1 << (info.num_wires - info.num_controls);
  const int low = info.subspace == Subspace::swap ? 1 : 3;
  const int high = info.subspace == Subspace::swap ? 2 : 12;
  Dense<double> m = diagonal_matrix(Dense<double>(size, {1, 0}));
  m[low * size + low] = block[0];
  m[low * size + high] = block[1];
  m[high * size + low] = block[2];
  m[high * size + high] = block[3];
  return m;
}

TEST(blocks_are_the_exponentials_of_their_generators) {
  Random random(4);
  for (const GateInfo& info : gate_table) {
    if (!is_block(info)) continue;
    const int k = info.num_wires == any_wires ? 0 : info.num_wires - info.num_controls;
    const std::vector<double> p = random_parameters(random, info);
    const Dense<double> m = embedded(info, matrix_of(info, p));
    const int size = 1 << k;
    for (int column = 0; column < size; ++column) {
      Dense<double> psi(size);
      psi[column].re = 1;
      Site all{k, {}};
      for (int w = 0; w < k; ++w) all.wires.push_back(w);
      for (const Part<double>& part : parts_of<double>(info.name, p, {}))
        psi = exponential(all, part.angle, part.generator, psi);
      for (int row = 0; row < size; ++row) {
        const Complex<double> off = m[row * size + column] - psi[row];
        if (!CHECK(std::hypot(off.re, off.im) < 1e-13)) note("in " + std::string(info.name));
      }
    }
  }
}

TEST(matrices_written_by_hand) {
  const double t = 0.7;
  const double c = std::cos(t / 2);
  const double s = std::sin(t / 2);
  const Dense<double> rx = matrix_of(gate_info(opcode_of("RX")), {t});
  check_entry(rx[0], c, 0);
  check_entry(rx[1], 0, -s);
  const Dense<double> ry = matrix_of(gate_info(opcode_of("RY")), {t});
  check_entry(ry[1], -s, 0);
  check_entry(ry[2], s, 0);
  const Dense<double> rz = matrix_of(gate_info(opcode_of("RZ")), {t});
  check_entry(rz[0], c, -s);
  check_entry(rz[3], c, s);
  const Dense<double> phase = matrix_of(gate_info(opcode_of("PhaseShift")), {t});
  check_entry(phase[0], 1, 0);
  check_entry(phase[3], std::cos(t), std::sin(t));
  const Dense<double> sx = matrix_of(gate_info(opcode_of("SX")), {});
  check_entry(sx[0], 0.5, 0.5);
  check_entry(sx[1], 0.5, -0.5);
  const Dense<double> u3 = matrix_of(gate_info(opcode_of("U3")), {t, 0.2, 0.5});
  check_entry(u3[1], -s * std::cos(0.5), -s * std::sin(0.5));
  check_entry(u3[2], s * std::cos(0.2), s * std::sin(0.2));
  const Dense<double> rot = matrix_of(gate_info(opcode_of("Rot")), {0.2, t, 0.5});
  check_entry(rot[0], c * std::cos(0.35), -c * std::sin(0.35));
  check_entry(rot[1], -s * std::cos(0.15), s * std::sin(0.15));
  check_entry(matrix_of(gate_info(opcode_of("GlobalPhase")), {t})[0], std::cos(t), -std::sin(t));
  check_entry(matrix_of(gate_info(opcode_of("ISWAP")), {})[1], 0, 1);
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
