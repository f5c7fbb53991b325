// A call as a whole: how it is counted, ended, and what it says about memory. (What it computes: test_engine.cpp.)
#include <atomic>
#include <cmath>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "circuits.h"
#include "cpu/simd_level.h"
#include "runtime/interrupt.h"
#include "runtime/memory.h"

namespace ketgrad::testing {
namespace {

template <class T>
void backward(Run<T>& run) {
  run.backward(std::vector<double>(run.real.size(), 1), std::vector<double>(run.complex.size(), 1));
}

TEST(an_empty_batch) {
  Random random(7);
  Circuit circuit = random_circuit(random, 3, 5);
  Run<float> run(register_program(circuit.program), random_values(random, circuit, 0), 0, 2);
  run.forward();
  run.backward({}, {});
  for (const std::vector<float>& gradient : run.gradients) {
    for (const float g : gradient) CHECK(g == 0);
  }
}

TEST(a_batch_is_one_sweep) {
  Random random(8);
  const Circuit circuit = random_circuit(random, 3, 5);
  for (const Index batch : {1, 5, 40}) {
    Run<float> run(register_program(circuit.program), random_values(random, circuit, batch), batch, 2);
    const Index before = sweep_count();
    run.forward();
    CHECK(sweep_count() == before + 1);
    backward(run);
    CHECK(sweep_count() == before + 2);
  }
}

// --- the end of a call -----------------------------------------------------------------------------------------------

int polls = 0;
int polls_allowed = 0;
bool stop_after_some() { return ++polls > polls_allowed; }

Circuit long_circuit(int num_wires) {
  Circuit circuit = empty_circuit(num_wires);
  for (int layer = 0; layer < 40; ++layer) {
    for (int w = 0; w + 1 < num_wires; ++w)
      circuit.program.gates.push_back(make_gate("CRX", {w, w + 1}, {{0, layer % 4, 1, 0}}));
  }
  circuit.program.measurements = {{MeasurementKind::probs, {num_wires - 1}, {}}};
  return circuit;
}

// The hook is asked on the calling thread only (its counters are plain ints: the thread sanitizer would see), and no
// longer than needed.
TEST(a_hook_ends_a_call) {
  Random random(12);
  for (const auto& [n, batch] : {std::pair{6, 1}, std::pair{6, 40}, std::pair{13, 1}}) {
    const Circuit circuit = long_circuit(n);
    Run<float> run(register_program(circuit.program), random_values(random, circuit, batch), batch, 3);
    run.forward();
    run.call.cancelled = stop_after_some;
    polls = 0;
    polls_allowed = 5;
    CHECK_THROWS(Interrupted, backward(run), "interrupted");
    CHECK(polls >= 6 && polls <= 9);
    run.call.stopped = false;
    polls = 0;
    CHECK_THROWS(Interrupted, run.forward(), "interrupted");
    CHECK(polls >= 6 && polls <= 9);
    run.call.stopped = false;
    polls_allowed = 1 << 30;
    run.forward();
    CHECK(polls > 10);
  }
}

// Many terms take long as well.
TEST(a_hook_ends_a_long_measurement) {
  Random random(13);
  Circuit circuit = empty_circuit(4);
  circuit.program.measurements = {{MeasurementKind::expval, {}, {}}};
  for (int t = 0; t < 100; ++t) circuit.program.measurements[0].terms.push_back({1, {}, {t % 4}, "X", {}});
  Run<double> run(register_program(circuit.program), random_values(random, circuit, 1), 1, 1);
  run.call.cancelled = stop_after_some;
  polls = 0;
  polls_allowed = 0;
  CHECK_THROWS(Interrupted, run.forward(), "interrupted");
}

bool never() { return false; }

TEST(the_hook_of_new_calls) {
  CHECK(cancel_hook() == nullptr);
  set_cancel_hook(never);
  CHECK(cancel_hook() == never);
  set_cancel_hook(nullptr);
}

TEST(simd_levels_are_named) {
  const std::vector<std::string> levels = available_simd_levels();
  CHECK(levels.at(0) == "portable");
  for_each_simd_level([] { CHECK(!current_simd_level().empty()); });
  CHECK_THROWS(std::invalid_argument, set_simd_level("sse9"), "portable");
}

// --- memory ----------------------------------------------------------------------------------------------------------

TEST(memory_that_is_not_there) {
  CHECK(available_memory() > 0);
  require_memory(1 << 20, "a small state");
  CHECK_THROWS(OutOfMemory, require_memory(0x1p80, "a batch of 3 circuits on 60 wires"),
               "a batch of 3 circuits on 60 wires needs ");
  CHECK_THROWS(OutOfMemory, require_memory(0x1p62, "it"), "4611686018427387904 bytes (4.0 EiB) of memory, ");
  CHECK_THROWS(std::bad_alloc, require_memory(0x1p62, "it"), "are available");
}

// Whichever thread it happens on; the other tasks still run.
TEST(a_failed_allocation_leaves_the_pool) {
  for (Index failing = 0; failing < 3; ++failing) {
    std::atomic<int> ran{0};
    const auto body = [&](Index task) {
      ++ran;
      if (task == failing) throw std::bad_alloc();
    };
    CHECK_THROWS(std::bad_alloc, run_parallel(on_threads, 3, body), "bad_alloc");
    CHECK(ran == 3);
  }
}

TEST(the_largest_state_says_what_it_needs) {
  Random random(14);
  Circuit circuit = empty_circuit(max_wires);
  circuit.program.gates = {make_gate("H", {0}), make_gate("CNOT", {0, 1})};
  Run<double> run(register_program(circuit.program), random_values(random, circuit, 1), 1, 1);
  CHECK(workspace_bytes(run.call, false) >= 0x1p52);
  CHECK(workspace_bytes(run.call, true) >= 0x1p53);
  run.call.batch = Index{1} << 20;  // what a regime is chosen by must not overflow
  CHECK(workspace_bytes(run.call, true) >= 0x1p53);
}

// What an engine allocates must be in its estimate: here the sums of a density matrix, in double, for each lane. The
// largest of them would be more than lanes are worth.
TEST(the_estimate_counts_density_matrices) {
  Random random(15);
  for (const auto& [num_wires, lanes] : {std::pair{6, 16}, std::pair{11, 1}}) {
    Circuit circuit = empty_circuit(num_wires);
    circuit.program.measurements = {{MeasurementKind::density_matrix, random.wires(num_wires, num_wires), {}}};
    Run<float> run(register_program(circuit.program), random_values(random, circuit, 16), 16, 1);
    const double entries = std::pow(4, num_wires);
    CHECK(workspace_bytes(run.call, false) >= lanes * 2 * entries * sizeof(double));
    CHECK(workspace_bytes(run.call, true) >= lanes * 2 * entries * sizeof(float));
  }
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
