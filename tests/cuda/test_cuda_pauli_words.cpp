// Pauli words whose flips lead to amplitudes of other threads, with coefficients that want no gradient: the launch that
// undoes the circuit adds such Pauli words to the bra itself.
#include <string>
#include <utility>
#include <vector>

#include "cases.h"
#include "emulated_run.h"
#include "tangents.h"

namespace ketgrad::testing {
namespace {

Circuit flipping_pauli_words(int n) {
  Circuit circuit = empty_circuit(n);
  add_rotations(circuit);
  for (int w = 0; w + 1 < n; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, w + 1}));
  add_rotations(circuit);
  Measurement sum{MeasurementKind::expval, {}, {}};
  for (int w = 0; w < n; ++w) {
    sum.terms.push_back({0.5, {}, {w}, w % 2 == 0 ? "X" : "Y", {}});
    sum.terms.push_back({-0.7, {}, {w, (w + 1) % n}, "XZ", {}});
  }
  circuit.program.measurements.push_back(std::move(sum));
  return circuit;
}

template <class T>
void check_run(const Case& c, const Tangents& t, const Setting& setting) {
  EmulatedRun<T> run(c.program, c.values, c.batch, setting);
  check_both_ways(c, run);
  check_tangents(c, t, run);
}

TEST(pauli_words_are_added_by_the_launch_that_undoes) {
  Random random(43);
  for (const int n : {2, 4, 6}) {
    const Circuit circuit = flipping_pauli_words(n);
    const Case c = make_case(random, circuit, 2);
    const Tangents t = make_tangents(random, circuit, c);
    for (const int tile_bits : {0, 4}) {
      if (tile_bits >= n) continue;
      check_run<float>(c, t, {tile_bits, 0});
      check_run<double>(c, t, {tile_bits, 0});
    }
  }
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
