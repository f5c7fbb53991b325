// Any circuit, any backend: results, gradients and second derivatives of random circuits on the CPU (every instruction set,
// tiles or not, one thread or two) and on the emulated GPU, against the dense simulator. A few here; `make fuzz` goes on
// for as long as it is told, from another seed.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "cpu/level.h"
#include "emulated_run.h"
#include "tangents.h"

namespace ketgrad::testing {
namespace {

std::uint64_t first_seed = 1;
double seconds = 0;
constexpr int fewest = 60;

template <class R>
void check_everything(const Case& c, const Tangents& t, R run) {
  check_both_ways(c, run);
  check_tangents(c, t, run);
}

template <class T>
void check_on_cpu(const Case& c, const Tangents& t, int threads) {
  check_everything(c, t, Run<T>(c.program, c.values, c.batch, threads));
}

template <class T>
void check_on_gpu(const Case& c, const Tangents& t, const Setting& setting) {
  check_everything(c, t, EmulatedRun<T>(c.program, c.values, c.batch, setting));
}

Circuit any_circuit(Random& random, int n) {
  const int gates = random.below(n > 5 ? 20 : 40);  // each may bring a matrix, and the dense simulator takes its time
  if (random.chance(0.4)) return random_circuit(random, n, gates);
  return random.chance(0.3) ? word_circuit(random, n, gates) : layered_circuit(random, n, 1 + random.below(5));
}

// Small circuits cross every border: of tiles, of the scale that is carried, of what is zero still, of lanes, of threads.
Thresholds any_thresholds(Random& random) {
  Thresholds thresholds;
  if (random.chance(0.5)) thresholds.tile_bits = 2 + random.below(4);
  if (random.chance(0.7)) thresholds.scale_bits = random.below(most_scale_bits + 1);
  thresholds.support = random.chance(0.8);
  thresholds.regime = static_cast<RegimeChoice>(random.below(3));
  thresholds.spread = random.chance(0.5);
  return thresholds;
}

void check_seed(std::uint64_t seed) {
  Random random(seed);
  const int n = 1 + random.below(7);
  const Circuit circuit = any_circuit(random, n);
  const Case c = make_case(random, circuit, random.chance(0.5) ? 1 : 1 + random.below(9));
  const Tangents t = make_tangents(random, circuit, c);
  const int threads = 1 + random.below(2);
  const bool has_tiles = n >= 5 && random.chance(0.5);
  set_thresholds(any_thresholds(random));
  for_each_level([&] {
    check_on_cpu<double>(c, t, threads);
    check_on_cpu<float>(c, t, threads);
  });
  set_thresholds({});
  const Setting setting{has_tiles ? 3 + random.below(2) : 0, random.chance(0.5) ? 0 : 7};
  check_on_gpu<double>(c, t, setting);
  check_on_gpu<float>(c, t, setting);
}

TEST(random_circuits) {
  const auto start = std::chrono::steady_clock::now();
  const auto is_time = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < seconds;
  };
  int checked = 0;
  for (std::uint64_t seed = first_seed; checked < fewest || is_time(); ++seed, ++checked) {
    const int before = checks_failed;
    check_seed(seed);
    if (checks_failed != before) note("in the circuit of seed " + std::to_string(seed));
  }
  std::printf("%d circuits from seed %llu on\n", checked, static_cast<unsigned long long>(first_seed));
}

}  // namespace
}  // namespace ketgrad::testing

// test_random [SECONDS [SEED]]
int main(int count, char** arguments) {
  if (count > 1) ketgrad::testing::seconds = std::atof(arguments[1]);
  if (count > 2) ketgrad::testing::first_seed = std::strtoull(arguments[2], nullptr, 10);
  return ketgrad::testing::run_tests();
}
