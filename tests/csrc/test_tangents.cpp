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
  set_thresholds({});
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
