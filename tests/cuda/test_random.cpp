// Any circuit, any backend: results, gradients and second derivatives of random circuits on the CPU (every instruction
// set, tiles or not, one thread or two) and on the emulated GPU, against the dense simulator. A few here; `make fuzz`
// goes on for as long as it is told, from another seed.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "cpu/simd_level.h"
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
  if (random.chance(0.25)) return random_circuit(random, n, gates);
  if (random.chance(0.3)) return half_circuit(random, n, gates);
  if (random.chance(0.2)) return coset_circuit(random, n, gates);
  return random.chance(0.15) ? pauli_word_circuit(random, n, gates) : layered_circuit(random, n, 1 + random.below(6));
}

// Small circuits cross every border: of tiles, of the scale that is carried, of the support, of lanes, of
// threads.
Thresholds any_thresholds(Random& random) {
  Thresholds thresholds;
  if (random.chance(0.5)) thresholds.tile_bits = 2 + random.below(4);
  if (random.chance(0.5)) thresholds.scale_bits = random.below(most_scale_bits + 1);
  thresholds.support = random.chance(0.8);
  if (random.chance(0.6)) thresholds.regime = random.chance(0.6) ? RegimeChoice::single : RegimeChoice::lanes;
  thresholds.spread = random.chance(0.5);
  return thresholds;
}

// How often what was crossed: none should be empty.
std::map<std::string, int> tally;

void count_regime(const Case& c, int threads) {
  const Thresholds& t = thresholds();
  const CallPlan call = plan_call<float>(*c.program, c.batch, threads);
  const Plan& plan = *call.plan;
  const bool is_cut = std::ranges::any_of(plan.passes, [](const Pass& p) {
    const auto* tiles = std::get_if<TilePass>(&p);
    return tiles != nullptr && tiles->tiles.size() > 1;
  });
  const auto count = [](const char* what, bool holds) { tally[what] += holds ? 1 : 0; };
  tally[current_simd_level()] += 1;
  count("lanes", call.lanes);
  count("single states", !call.lanes);
  count("cut into tiles", is_cut);
  count("passes spread over threads", call.parallel_passes && threads > 1);
  count("several tasks", call.tasks > 1);
  const auto* first = plan.passes.empty() ? nullptr : std::get_if<TilePass>(&plan.passes[0]);
  count("support tracked", t.support && first != nullptr && !first->before.everywhere);
  count("support not tracked", !t.support);
  count("scale kept above 1/16", t.scale_bits < 4);
  count("scale kept above 2^-24 or less", t.scale_bits >= 24);
  count("rotations of half the amplitudes",
        std::ranges::any_of(plan.rotations, [](const Rotation& t) { return !t.half.is_all(); }));
  count("basis of X", plan.basis == Basis::x);
  count("gate_ops", !plan.gate_ops.empty());
  count("batches", c.batch > 1);
}

void check_cpu(Random& random, const Case& c, const Tangents& t, Given given) {
  const int threads = 1 + random.below(2);
  const std::string before = current_simd_level();
  const std::vector<std::string> levels = available_simd_levels();
  set_thresholds(any_thresholds(random));
  set_simd_level(levels[random.below(static_cast<int>(levels.size()))]);
  count_regime(c, threads);
  check_on_cpu<double>(c, t, threads);
  if (given == Given::as_float) check_on_cpu<float>(c, t, threads);
  set_simd_level(before);
  set_thresholds({});
}

void check_gpu(Random& random, const Case& c, const Tangents& t, Given given) {
  const bool has_tiles = c.program->program.num_wires >= 5 && random.chance(0.5);
  const Setting setting{has_tiles ? 3 + random.below(2) : 0, random.chance(0.5) ? 0 : 7};
  tally[has_tiles ? "GPU, tiles" : "GPU, whole states"] += 1;
  check_on_gpu<double>(c, t, setting);
  if (given == Given::as_float) check_on_gpu<float>(c, t, setting);
}

void check_seed(std::uint64_t seed) {
  Random random(seed);
  const int n = random.chance(0.3) ? 1 + random.below(4) : 5 + random.below(4);
  const Circuit circuit = any_circuit(random, n);
  const Index batch = random.chance(0.7) ? 1 : 1 + random.below(9);
  const Given given = random.chance(0.7) ? Given::as_float : Given::as_double;
  const Case c = make_case(random, circuit, batch, random_values(random, circuit, batch, given));
  const Tangents t = make_tangents(random, circuit, c);
  check_cpu(random, c, t, given);
  if (random.chance(0.4)) check_gpu(random, c, t, given);
}

TEST(random_circuits) {
  const auto start = std::chrono::steady_clock::now();
  const auto passed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  int checked = 0;
  for (std::uint64_t seed = first_seed; checked < fewest || passed() < seconds; ++seed, ++checked) {
    const int before = checks_failed;
    check_seed(seed);
    if (checks_failed != before) note("in the circuit of seed " + std::to_string(seed));
  }
  std::printf("%d circuits from seed %llu on\n", checked, static_cast<unsigned long long>(first_seed));
  for (const auto& [what, count] : tally) {
    std::printf("%6d %s\n", count, what.c_str());
    CHECK(count > 0);
  }
}

}  // namespace
}  // namespace ketgrad::testing

// test_random [SECONDS [SEED]]
int main(int count, char** arguments) {
  if (count > 1) ketgrad::testing::seconds = std::atof(arguments[1]);
  if (count > 2) ketgrad::testing::first_seed = std::strtoull(arguments[2], nullptr, 10);
  return ketgrad::testing::run_tests();
}
