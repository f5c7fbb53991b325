// Programs by name: the same content has the same id, what is used stays, and threads do not disturb each other.
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"
#include "circuits.h"
#include "core/registry.h"

namespace ketgrad::testing {
namespace {

// A different program for each number.
Program numbered(int number) {
  Program program = empty_circuit(2).program;
  program.gates.push_back(make_gate("RX", {0}, {{0, 0, 1, static_cast<double>(number)}}));
  program.measurements.push_back({MeasurementKind::probs, {0}, {}});
  return program;
}

bool known(std::int64_t id) {
  try {
    return find_program(id)->id == id;
  } catch (const std::out_of_range&) {
    return false;
  }
}

// Enough registrations that nothing unreferenced from before survives.
void flood(int first) {
  for (int i = 0; i < 3 * static_cast<int>(unreferenced_programs_kept); ++i) register_program(numbered(first + i));
}

TEST(equal_content_shares_an_id_and_a_plan) {
  const ProgramHandle a = register_program(numbered(1));
  const ProgramHandle b = register_program(numbered(1));
  CHECK(a == b);
  CHECK(a->id == find_program(a->id)->id);
  CHECK(a->id >= 0);
  CHECK(register_program(numbered(2))->id != a->id);
  const Layout layout{3, 0, 13};
  CHECK(a->plan(layout).program == &a->program);
  CHECK(&a->plan(layout) == &b->plan(layout));
  CHECK(&a->plan({0, 1, max_wires}) != &a->plan(layout));
}

TEST(malformed_programs_are_not_registered) {
  Program program = numbered(1);
  program.gates[0].targets = {2};
  CHECK_THROWS(std::out_of_range, register_program(program), "wire 2");
}

TEST(unknown_ids_throw) {
  CHECK_THROWS(std::out_of_range, find_program(12345), "12345");
  CHECK_THROWS(std::out_of_range, find_program(-1), "-1");
}

TEST(eviction_keeps_what_is_referenced_or_pinned) {
  const ProgramHandle held = register_program(numbered(1000));
  const std::int64_t pinned = register_program(numbered(1001))->id;
  const std::int64_t idle = register_program(numbered(1002))->id;
  pin_program(pinned);
  CHECK(known(idle));
  flood(10000);
  CHECK(known(held->id));
  CHECK(known(pinned));
  CHECK(!known(idle));
  CHECK(find_program(held->id) == held);
}

TEST(the_latest_stay) {
  flood(20000);
  const std::int64_t latest = register_program(numbered(1003))->id;
  for (int i = 0; i < static_cast<int>(unreferenced_programs_kept) / 2 - 1; ++i) register_program(numbered(30000 + i));
  CHECK(known(latest));
}

TEST(an_evicted_program_comes_back_under_its_id) {
  const std::int64_t before = register_program(numbered(1004))->id;
  flood(40000);
  CHECK(!known(before));
  CHECK(register_program(numbered(1004))->id == before);
}

TEST(many_threads) {
  constexpr int threads = 4;
  const std::int64_t shared = register_program(numbered(2000))->id;
  const ProgramHandle held = find_program(shared);
  std::vector<std::vector<std::int64_t>> ids(threads);
  std::vector<std::thread> pool;
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&ids, t, shared] {
      for (int i = 0; i < 1500; ++i) {
        const ProgramHandle own = register_program(numbered(50000 + 10000 * t + i));
        const ProgramHandle common = register_program(numbered(3000 + i));
        CHECK(find_program(own->id) == own);
        CHECK(find_program(shared)->id == shared);
        ids[t].push_back(common->id);
      }
    });
  }
  for (std::thread& thread : pool) thread.join();
  for (int t = 1; t < threads; ++t) CHECK(ids[t] == ids[0]);
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
