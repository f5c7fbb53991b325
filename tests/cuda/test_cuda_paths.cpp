// What the CUDA engine does on a GPU of full size alone, under the emulation: sums of large states that come in many
// partial sums, blocks of several warps that add up, a batch of many samples; and angles that are rare: huge
// ones, and those next to multiples of pi/2, on states that are zero in part.
#include <cmath>
#include <numbers>
#include <utility>
#include <vector>

#include "cuda/kernels/tiles.h"
#include "emulated_run.h"
#include "tangents.h"

namespace ketgrad::testing {
namespace {

// --- many partial sums and many warps --------------------------------------------------------------------------------

// Rotations, phases and CNOT, and Pauli words of Z and X whose coefficients are inputs (`trains`), or numbers.
Circuit circuit_of_pauli_words(Random& random, int num_wires, bool trains) {
  Circuit circuit = empty_circuit(num_wires);
  for (int layer = 0; layer < 2; ++layer) {
    add_rotations(circuit);
    for (int w = 0; w < num_wires; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, (w + 1) % num_wires}));
    for (int w = 0; w + 1 < num_wires; ++w)
      circuit.program.gates.push_back(make_gate("IsingZZ", {w, w + 1}, {random_slot(random, circuit.program)}));
  }
  for (int w = 0; w < num_wires; ++w) {
    std::vector<Slot> coefficients;
    if (trains) coefficients.push_back({0, w % 4, 1, 0});
    const Term one{0.5 + w, coefficients, {w}, w % 2 == 0 ? "Z" : "X", {}};
    const Term two{-1, {}, {w, (w + 1) % num_wires}, "ZZ", {}};
    circuit.program.measurements.push_back({MeasurementKind::expval, {}, {one, two}});
  }
  return circuit;
}

// Tiles of one warp and of four. The blocks that add up the partial sums have eight warps.
TEST(sums_in_many_partials) {
  struct Size {
    int wires;
    int tile_bits;
  };
  for (const Size size : {Size{11, 6}, Size{13, 10}}) {
    const cuda::TileGrid grid =
        cuda::grid_of(size.tile_bits, Index{1} << (size.wires - size.tile_bits), 2, hopper_multiprocessors);
    CHECK(grid.partials() >= cuda::warp_size);
    for (const bool trains : {false, true}) {
      Random random(23);
      const Circuit circuit = circuit_of_pauli_words(random, size.wires, trains);
      const Case c = unsolved_case(random, circuit, 2);
      const Setting hopper{size.tile_bits, 0, hopper_shared_bytes, hopper_multiprocessors};
      check_like_cpu<float>(c, hopper);
      check_like_cpu<double>(c, hopper);
      if (size.wires == 11) check_tangents_like_cpu<double>(c, unsolved_tangents(random, circuit, c), hopper);
    }
  }
}

// Which of them is first, or which of the warps, does not show in the bits.
TEST(order_does_not_show_in_the_bits) {
  Random random(24);
  const Circuit circuit = circuit_of_pauli_words(random, 10, true);
  const Case c = unsolved_case(random, circuit, 1);
  check_any_order(c, {5, 0, hopper_shared_bytes, hopper_multiprocessors}, [&](EmulatedRun<float>& run) {
    run.forward();
    run.backward(c.g_real, c.g_complex);
  });
}

// Projectors on states of 256 amplitudes and more: a group of amplitudes has a block of eight warps, which goes through
// it once or twice.
TEST(projectors_on_many_wires) {
  for (const int wires : {8, 9}) {
    for (const MeasurementKind kind : {MeasurementKind::expval, MeasurementKind::var}) {
      Random random(31 + wires);
      Circuit circuit = empty_circuit(10);
      add_rotations(circuit);
      for (int w = 0; w < 9; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, w + 1}));
      Factor factor;
      factor.kind = FactorKind::state_projector;
      for (int w = 0; w < wires; ++w) factor.wires.push_back((3 * w + 1) % 10);
      factor.input = circuit.add_input(Role::state, wires);
      circuit.program.measurements.push_back({kind, {}, {Term{0.7, {}, {}, "", {factor}}}});
      const Case c = unsolved_case(random, circuit, 2);
      check_like_cpu<float>(c, {});
      check_like_cpu<double>(c, {});
      check_tangents_like_cpu<double>(c, unsolved_tangents(random, circuit, c), {});
    }
  }
}

// Gradients of shared inputs are sums over more samples than a block has threads.
TEST(many_samples) {
  Random random(51);
  Circuit circuit = empty_circuit(5);
  add_rotations(circuit);
  circuit.program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
  constexpr Index batch = 700;
  std::vector<Values> values = random_values(random, circuit, batch);
  values[0] = {false, 4, random_numbers(random, 4)};
  values[1] = {true, 3, random_numbers(random, 3 * batch)};
  const Case c = unsolved_case(random, circuit, batch, std::move(values));
  check_like_cpu<float>(c, {});
  check_like_cpu<double>(c, {0, 300, hopper_shared_bytes, hopper_multiprocessors});
}

// --- rare angles -----------------------------------------------------------------------------------------------------

// A layer: RZ, RY or RX on each wire, then CNOT down the wires or around them.
void add_layer(Random& random, Circuit& circuit, int angles, int& column) {
  const int n = circuit.program.num_wires;
  const auto rotate = [&](const char* name) {
    for (int w = 0; w < n; ++w) circuit.program.gates.push_back(make_gate(name, {w}, {{angles, column++, 1, 0}}));
  };
  if (random.chance(0.8)) rotate("RZ");
  rotate(random.chance(0.7) ? "RY" : "RX");
  if (random.chance(0.3)) rotate("RZ");
  const int links = random.chance(0.5) ? n : n - 1;
  for (int w = 0; w < links; ++w) circuit.program.gates.push_back(make_gate("CNOT", {w, (w + 1) % n}));
}

// At a multiple of pi/2, next to one, tiny or like any other; as a float, which both precisions have.
double rare_angle(Random& random) {
  const double off = std::pow(10.0, -1 - random.below(12)) * (random.chance(0.5) ? 1 : -1);
  const double multiple = (random.below(9) - 4) * std::numbers::pi / 2;
  const double angles[] = {multiple, multiple, multiple + off, multiple + off, 0, off, off, random.angle()};
  return static_cast<float>(angles[random.below(8)]);
}

Circuit layers(Random& random, int num_wires) {
  Circuit circuit = empty_circuit(num_wires);
  const int depth = 1 + random.below(3);
  const int angles = circuit.add_input(Role::angles, 3 * num_wires * depth);
  int column = 0;
  for (int layer = 0; layer < depth; ++layer) add_layer(random, circuit, angles, column);
  for (int m = 0; m < 2; ++m)
    circuit.program.measurements.push_back(random_measurement(random, circuit, MeasurementKind::expval));
  if (random.chance(0.5)) circuit.program.measurements.push_back({MeasurementKind::probs, {0, 1}, {}});
  return circuit;
}

std::vector<Values> rare_values(Random& random, const Circuit& circuit, Index batch) {
  std::vector<Values> values = random_values(random, circuit, batch);
  const bool equal = random.chance(0.3);
  const double one = rare_angle(random);
  for (double& angle : values[2].rows) angle = equal ? one : rare_angle(random);
  return values;
}

template <class T>
void check_everything(const Case& c, const Tangents& t, const Setting& setting) {
  EmulatedRun<T> run(c.program, c.values, c.batch, setting);
  check_both_ways(c, run);
  check_tangents(c, t, run);
}

// Tiles outside of the support of a state are neither visited nor written, and rotations leave out signs that others
// take in: whatever derivatives read must have been written, with all signs.
TEST(angles_next_to_multiples_of_half_pi) {
  Random random(61);
  for (int round = 0; round < 40; ++round) {
    const int before = checks_failed;
    const Circuit circuit = layers(random, 4 + round % 3);
    const Index batch = 1 + random.below(2);
    const Case c = make_case(random, circuit, batch, rare_values(random, circuit, batch));
    const Tangents t = make_tangents(random, circuit, c);
    const int tile_bits = 2 + random.below(2);
    check_everything<double>(c, t, {});
    check_everything<double>(c, t, {tile_bits, 0});
    check_everything<float>(c, t, {tile_bits, 0});
    if (checks_failed != before) note("in round " + std::to_string(round));
  }
}

// Sines of angles for which the period must be taken off with care: each rotates by one Pauli word alone, so that no
// sum is rounded. The dense simulator's exponentials are series, which do not reach so far.
TEST(huge_angles) {
  Random random(41);
  Circuit circuit = empty_circuit(4);
  const int angles = circuit.add_input(Role::angles, 8);
  for (int w = 0; w < 4; ++w) {
    circuit.program.gates.push_back(make_gate("RX", {w}, {{angles, w, 1, 0}}));
    circuit.program.gates.push_back(make_gate("RZ", {w}, {{angles, 4 + w, 1, 0}}));
    circuit.program.gates.push_back(make_gate("RY", {w}, {{0, w, 1, 0}}));
  }
  circuit.program.measurements = {{MeasurementKind::probs, {0, 1, 2}, {}},
                                  {MeasurementKind::expval, {}, {{1, {}, {2}, "Y", {}}}}};
  std::vector<Values> values = random_values(random, circuit, 2);
  values[2] = {false, 8, {0x1.8p17, -0x1.2p24, 0x1.fp31, 0x1.4p40, 0x1.6p53, 0x1.2p60, -0x1.ap80, 0x1.1p120}};
  const Case c = unsolved_case(random, circuit, 2, std::move(values));
  const Tangents t = unsolved_tangents(random, circuit, c);
  for (const int tile_bits : {0, 2}) {
    check_like_cpu<float>(c, {tile_bits, 0});
    check_like_cpu<double>(c, {tile_bits, 0});
    check_tangents_like_cpu<double>(c, t, {tile_bits, 0});
  }
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
