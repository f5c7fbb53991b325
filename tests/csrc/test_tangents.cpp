// Second derivatives on the CPU against the dense simulator on duals of duals: every gate, every kind of measurement,
// both precisions, every instruction set.
#include "tangents.h"

#include "cpu/simd_level.h"

namespace ketgrad::testing {
namespace {

template <class T>
void check_run(const Case& c, const Tangents& t) {
  Run<T> run(c.program, c.values, c.batch, 2);
  check_tangents(c, t, run);
}

TEST(every_gate_and_measurement) {
  for_each_tangent_case([](const Case& c, const Tangents& t) {
    for_each_simd_level([&] {
      check_run<float>(c, t);
      check_run<double>(c, t);
    });
  });
}

TEST(diagonals) {
  for_each_diagonal_circuit([](Random& random, const Circuit& circuit, Index batch) {
    if (batch > 1 && circuit.program.num_wires > 6) return;
    const Case c = unsolved_case(random, circuit, batch);
    const Tangents t = make_tangents(random, circuit, c);
    check_run<float>(c, t);
    check_run<double>(c, t);
  });
}

// Adds a random anti-Hermitian matrix to each row.
void add_anti_hermitian(Random& random, std::vector<double>& rows, Index size) {
  for (std::size_t row = 0; row < rows.size(); row += 2 * size * size) {
    const auto entry = [&](Index a, Index b) { return rows.data() + row + 2 * (a * size + b); };
    for (Index a = 0; a < size; ++a) {
      entry(a, a)[1] += random.uniform(-1, 1);
      for (Index b = 0; b < a; ++b) {
        const double re = random.uniform(-1, 1);
        const double im = random.uniform(-1, 1);
        entry(a, b)[0] += re;
        entry(a, b)[1] += im;
        entry(b, a)[0] -= re;
        entry(b, a)[1] += im;
      }
    }
  }
}

// Derivatives along a direction of a Hermitian matrix are those along its Hermitian part.
TEST(directions_of_hermitian_matrices) {
  Random random(33);
  int count = 0;
  for_each_tangent_case([&](const Case& c, const Tangents& t) {
    Tangents other = t;
    const Program& program = c.program->program;
    bool any = false;
    for (const Measurement& m : program.measurements) {
      for (const Term& term : m.terms) {
        for (const Factor& f : term.factors) {
          if (f.kind != FactorKind::hermitian || other.inputs[f.input].empty()) continue;
          add_anti_hermitian(random, other.inputs[f.input], program.inputs[f.input].shape[0]);
          any = true;
        }
      }
    }
    if (!any) return;
    ++count;
    for_each_simd_level([&] {
      check_run<float>(c, other);
      check_run<double>(c, other);
    });
  });
  CHECK(count > 3);
}

// Tiles of a few rows, so that small states have many.
TEST(tiles) {
  Random random(32);
  set_thresholds({.tile_bits = 4});
  const auto check = [&](const Circuit& circuit) {
    const Case c = unsolved_case(random, circuit, 1);
    const Tangents t = make_tangents(random, circuit, c);
    for_each_simd_level([&] {
      check_run<float>(c, t);
      check_run<double>(c, t);
    });
  };
  for (int opcode = 0; opcode < num_gates; opcode += 3) check(tiled_circuit(random, opcode));
  for (int round = 0; round < 8; ++round) check(half_circuit(random, 7, 10));
  for (int round = 0; round < 8; ++round) check(coset_circuit(random, 7, 14));
  for (int round = 0; round < 16; ++round) {
    set_thresholds({.tile_bits = 4 + round % 4, .regime = RegimeChoice::single});
    check(dense_circuit(random, 5 + round % 4, 12));
  }
  set_thresholds({});
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
