// Programs by name: the same content has the same id, what is used stays, and threads do not disturb each other.
#include <stdexcept>
#include <thread>
#include <vector>

#include "check.h"
#include "circuits.h"
#include "plan/footprint.h"
#include "plan/registry.h"

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

TEST(programs_live_while_they_are_held_or_pinned) {
  ProgramHandle held = register_program(numbered(1000));
  const std::int64_t id = held->id;
  const std::int64_t pinned = register_program(numbered(1001))->id;
  CHECK(!known(pinned));  // nobody kept the handle
  {
    const ProgramHandle again = register_program(numbered(1001));
    CHECK(again->id == pinned);
    pin_program(pinned);
  }
  CHECK(known(id));
  CHECK(known(pinned));
  held.reset();
  CHECK(!known(id));
  CHECK(known(pinned));
  CHECK_THROWS(std::out_of_range, pin_program(id), "no program has the id");
}

TEST(ids_of_programs_that_have_gone_are_forgotten_and_come_back) {
  const std::int64_t before = register_program(numbered(1004))->id;
  for (int i = 0; i < 5000; ++i) register_program(numbered(40000 + i));
  CHECK(!known(before));
  CHECK(register_program(numbered(1004))->id == before);
}

TEST(caches_are_told_what_they_hold) {
  const std::int64_t nothing = cached_bytes();
  ProgramHandle program = register_program(numbered(1005));
  CHECK(program->bytes() > static_cast<std::int64_t>(sizeof(PlannedProgram)) / 2);
  CHECK(cached_bytes() == nothing);
  program->enter_cache();
  CHECK(cached_bytes() == nothing + program->bytes());
  const std::int64_t without_plan = program->bytes();
  program->plan({3, 0, 13});
  CHECK(program->bytes() > without_plan);
  CHECK(cached_bytes() == nothing + program->bytes());
  program->enter_cache();
  CHECK(cached_bytes() == nothing + program->bytes());
  program->leave_cache();
  CHECK(cached_bytes() == nothing + program->bytes());
  program->leave_cache();
  CHECK(cached_bytes() == nothing);
  program->enter_cache();
  program.reset();
  CHECK(cached_bytes() == nothing);
}

// A table of 2^12 indices, and what a gate's lists hold.
TEST(footprints_grow_with_what_there_is) {
  const auto bytes = [](const Program& program, const Layout& layout) {
    return bytes_of(make_plan(program, layout)) - static_cast<std::int64_t>(sizeof(Plan));
  };
  Program program = numbered(1);
  const std::int64_t small = bytes_of(program);
  for (int i = 0; i < 100; ++i) program.gates.push_back(program.gates[0]);
  CHECK(bytes_of(program) >= small + 100 * static_cast<std::int64_t>(sizeof(Gate)));
  Program wide = empty_circuit(16).program;
  wide.measurements.push_back({MeasurementKind::probs, {0}, {}});
  CHECK(bytes(wide, {0, 1, 13}) > (1 << 12) * static_cast<std::int64_t>(sizeof(Mask)));
}

TEST(many_threads) {
  constexpr int threads = 4;
  const ProgramHandle held = register_program(numbered(2000));
  const std::int64_t shared = held->id;
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
