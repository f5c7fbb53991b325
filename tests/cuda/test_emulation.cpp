// The emulated device: that it runs kernels as a GPU would, and finds what a GPU would not say.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "check.h"
#include "cuda/kernels/device.h"
#include "math/complex.h"

namespace ketgrad::cuda {
namespace {

// Whatever the order, a finding is found. Leaves the default seed behind.
void for_all_seeds(const std::function<void()>& run) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    seed_emulation(seed);
    run();
  }
  seed_emulation(0);
}

template <class T>
KETGRAD_DEVICE T warp_sum(T value) {
  for (int mask = warp_size / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

// Sums `rounds` slices of the input, one after the other in the same shared memory.
template <class T>
KETGRAD_KERNEL block_sums(const T* input, T* sums, int rounds) {
  Shared<T> partial(0, block_threads() / warp_size);
  for (int round = 0; round < rounds; ++round) {
    const Index slice = block_index() * rounds + round;
    const T warps = warp_sum(input[slice * block_threads() + thread_index()]);
    if (thread_index() % warp_size == 0) partial.set(thread_index() / warp_size, warps);
    barrier();
    if (thread_index() == 0) {
      T sum{};
      for (int w = 0; w < block_threads() / warp_size; ++w) sum += partial.get(w);
      sums[slice] = sum;
    }
    barrier();
  }
}

TEST(block_sums_are_the_plain_sums) {
  const int blocks = 5;
  const int rounds = 3;
  for (const int threads : {32, 64, 256, 1024}) {
    std::vector<Complex<double>> input;
    for (int i = 0; i < blocks * rounds * threads; ++i) input.push_back({i * 0.5, 1.0 - i});
    std::vector<Complex<double>> sums(blocks * rounds);
    launch(Queue{}, blocks, threads, threads / warp_size * sizeof(Complex<double>), block_sums<Complex<double>>,
           input.data(), sums.data(), rounds);
    for (int slice = 0; slice < blocks * rounds; ++slice) {
      Complex<double> sum;
      for (int t = 0; t < threads; ++t) sum += input[slice * threads + t];
      CHECK(sums[slice].re == sum.re && sums[slice].im == sum.im);
    }
  }
}

KETGRAD_KERNEL count_visits(int* visits) { ++visits[block_index() * block_threads() + thread_index()]; }

TEST(every_thread_of_every_block_runs_once) {
  std::vector<int> visits(7 * 96);
  launch(Queue{}, 7, 96, 0, count_visits, visits.data());
  CHECK(std::ranges::count(visits, 1) == 7 * 96);
}

KETGRAD_KERNEL record_order(Index* order, int* next) {
  order[(*next)++] = block_index() * block_threads() + thread_index();
}

std::vector<Index> order_of_seed(std::uint64_t seed, Index blocks, int threads) {
  std::vector<Index> order(static_cast<std::size_t>(blocks * threads));
  int next = 0;
  seed_emulation(seed);
  launch(Queue{}, blocks, threads, 0, record_order, order.data(), &next);
  seed_emulation(0);
  return order;
}

TEST(orders_are_the_seeds) {
  std::set<std::vector<Index>> of_threads;
  std::set<std::vector<Index>> of_blocks;
  std::set<Index> first_blocks;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    of_threads.insert(order_of_seed(seed, 1, 32));
    std::vector<Index> blocks;
    for (const Index place : order_of_seed(seed, 20, 32)) blocks.push_back(place / 32);
    first_blocks.insert(blocks[0]);
    of_blocks.insert(blocks);
    CHECK(std::ranges::adjacent_find(blocks, [](Index a, Index b) { return a != b; }) == blocks.begin() + 31);
  }
  CHECK(of_threads.size() == 20);
  CHECK(of_blocks.size() == 20);
  CHECK(first_blocks.size() > 5);
  CHECK(order_of_seed(3, 4, 64) == order_of_seed(3, 4, 64));
}

// Each thread reads what its neighbour wrote, maybe twice.
KETGRAD_KERNEL pass_on(int* result, int rounds, bool barrier_before, bool barrier_after) {
  Shared<int> passed(16, block_threads());
  passed.set(thread_index(), 0);
  barrier();
  for (int round = 0; round < rounds; ++round) {
    passed.set(thread_index(), thread_index() + round);
    if (barrier_before) barrier();
    result[thread_index()] = passed.get((thread_index() + 1) % block_threads());
    if (barrier_after) barrier();
  }
}

void run_pass_on(int rounds, bool barrier_before, bool barrier_after) {
  std::vector<int> result(64);
  launch(Queue{}, 1, 64, 16 + 64 * sizeof(int), pass_on, result.data(), rounds, barrier_before, barrier_after);
  for (int t = 0; t < 64; ++t) CHECK(result[t] == (t + 1) % 64 + rounds - 1);
}

TEST(missing_barriers_are_found) {
  for_all_seeds([] {
    CHECK_THROWS(std::logic_error, run_pass_on(1, false, true), "without a barrier between them");
    CHECK_THROWS(std::logic_error, run_pass_on(2, true, false), "without a barrier between them");
    run_pass_on(1, true, false);
    run_pass_on(2, true, true);
  });
}

// What is at stake in a single pair among many accesses that are fine.
KETGRAD_KERNEL exchange_of_two(int writer, int reader, bool with_barrier) {
  Shared<double> cells(0, 2);
  if (thread_index() == writer) cells.set(0, 0.0), cells.set(1, 0.0);
  barrier();
  if (thread_index() == writer) cells.set(1, 1.0);
  if (with_barrier) barrier();
  if (thread_index() == reader) cells.get(1);
}

std::string finding_of_two(bool with_barrier) {
  try {
    launch(Queue{}, 1, 64, 16, exchange_of_two, 5, 40, with_barrier);
  } catch (const std::logic_error& e) {
    return e.what();
  }
  return {};
}

// The earlier one first, so that both orders are to be seen.
TEST(findings_name_threads_and_place) {
  std::set<std::string> findings;
  for_all_seeds([&] {
    findings.insert(finding_of_two(false));
    CHECK(finding_of_two(true).empty());
  });
  const std::string start = "ketgrad emulation: in block 0, threads ";
  const std::string end = " byte 8 of shared memory (element 1 of the array at 0) without a barrier between them";
  CHECK(findings == std::set({start + "5 and 40 write and read" + end, start + "40 and 5 read and write" + end}));
}

// No shuffle stands for a barrier.
KETGRAD_KERNEL shuffle_between() {
  Shared<int> cell(0, 1);
  if (thread_index() == 0) cell.set(0, 1);
  shuffle_xor(0, 1);
  cell.get(0);
}

KETGRAD_KERNEL write_together() { Shared<int>(0, 1).set(0, 7); }

// A double of one array is two floats of the other.
KETGRAD_KERNEL overlap() {
  Shared<double> doubles(0, 8);
  Shared<float> floats(16, 12);
  if (thread_index() == 1) doubles.set(3, 1.0);
  if (thread_index() == 2) floats.set(3, 1.0f);
}

// Many may read together; one of them, maybe the first, must not write.
KETGRAD_KERNEL read_together(int writer) {
  Shared<float> cell(4, 1);
  if (thread_index() == 0) cell.set(0, 1.0f);
  barrier();
  for (int i = 0; i < 3; ++i) cell.get(0);
  shuffle_xor(0, 1);
  if (thread_index() == writer) cell.set(0, 2.0f);
}

TEST(races_of_all_kinds_are_found) {
  for_all_seeds([] {
    CHECK_THROWS(std::logic_error, launch(Queue{}, 1, 32, 4, shuffle_between), "without a barrier between them");
    CHECK_THROWS(std::logic_error, launch(Queue{}, 3, 32, 4, write_together), "both write");
    CHECK_THROWS(std::logic_error, launch(Queue{}, 1, 32, 64, overlap), "without a barrier between them");
    CHECK_THROWS(std::logic_error, launch(Queue{}, 1, 32, 8, read_together, 9), "without a barrier between them");
    launch(Queue{}, 1, 32, 8, read_together, -1);
  });
}

KETGRAD_KERNEL skip_shuffle(int skipping) {
  if (thread_index() != skipping) shuffle_xor(1.0, 16);
}

KETGRAD_KERNEL shuffle_or_barrier(int apart) {
  if (thread_index() == apart) {
    barrier();
  } else {
    shuffle_xor(1.0f, 1);
  }
}

KETGRAD_KERNEL barrier_of_some(int without) {
  if (thread_index() != without) barrier();
}

KETGRAD_KERNEL shuffle_of_one_warp() {
  if (thread_index() < warp_size) shuffle_xor(1, 31);
  barrier();
}

KETGRAD_KERNEL shuffle_of_two_types() {
  if (thread_index() % 2 == 0) {
    shuffle_xor(1.0f, 1);
  } else {
    shuffle_xor(1.0, 1);
  }
}

KETGRAD_KERNEL shuffle_beyond(int mask) { shuffle_xor(1, mask); }

TEST(absent_threads_are_found) {
  for_all_seeds([] {
    CHECK_THROWS(std::logic_error, launch(Queue{}, 1, 64, 0, skip_shuffle, 37),
                 "thread 32 waits in a shuffle, but thread 37 of its warp has ended");
    CHECK_THROWS(std::logic_error, launch(Queue{}, 1, 64, 0, shuffle_or_barrier, 37),
                 "thread 32 waits in a shuffle, but thread 37 of its warp waits at the barrier");
    CHECK_THROWS(std::logic_error, launch(Queue{}, 1, 64, 0, barrier_of_some, 37),
                 "thread 0 waits at the barrier, but thread 37 has ended");
    CHECK_THROWS(std::logic_error, launch(Queue{}, 1, 32, 0, shuffle_of_two_types), "different types");
    CHECK_THROWS(std::logic_error, launch(Queue{}, 1, 32, 0, shuffle_beyond, 32), "beyond its warp");
    launch(Queue{}, 2, 96, 0, shuffle_of_one_warp);
  });
}

KETGRAD_KERNEL access(std::size_t byte_offset, Index count, Index i, bool write) {
  Shared<double> array(byte_offset, count);
  if (thread_index() == 3) write ? array.set(i, 1.0) : static_cast<void>(array.get(i));
}

TEST(misplaced_accesses_are_found) {
  const auto run = [](std::size_t byte_offset, Index count, Index i) {
    launch(Queue{}, 1, 32, 40, access, byte_offset, count, i, true);
  };
  CHECK_THROWS(std::logic_error, run(0, 4, 4), "thread 3 accesses element 4 of the array of 4 at byte 0: out of range");
  CHECK_THROWS(std::logic_error, run(0, 4, -1), "out of range");
  CHECK_THROWS(std::logic_error, run(8, 5, 4), "the launch asked for 40 bytes");
  CHECK_THROWS(std::logic_error, run(4, 2, 0), "aligned");
  run(8, 5, 3);
}

// Also what another block wrote is nothing that this one did.
KETGRAD_KERNEL read_after_other_blocks() {
  Shared<int> cell(0, 1);
  if (thread_index() != 0) return;
  if (block_index() < 4) cell.set(0, 1);
  cell.get(0);
}

TEST(reads_of_nothing_are_found) {
  for_all_seeds([] {
    CHECK_THROWS(std::logic_error, launch(Queue{}, 1, 32, 8, access, std::size_t{0}, Index{1}, Index{0}, false),
                 "no thread of the block has written");
    CHECK_THROWS(std::logic_error, launch(Queue{}, 5, 32, 4, read_after_other_blocks), "in block 4, thread 0 reads");
    launch(Queue{}, 4, 32, 4, read_after_other_blocks);
  });
}

int guards_alive = 0;

struct Guard {
  Guard() { ++guards_alive; }
  ~Guard() { --guards_alive; }
};

KETGRAD_KERNEL throw_in(int thread) {
  const Guard guard;
  const std::vector<int> something(100, thread);
  shuffle_xor(1, 1);
  if (thread_index() == thread) throw std::out_of_range("thrown by " + std::to_string(thread));
  barrier();
}

TEST(exceptions_arrive_and_leave_nothing_behind) {
  for_all_seeds([] {
    CHECK_THROWS(std::out_of_range, launch(Queue{}, 3, 64, 0, throw_in, 50), "thrown by 50");
    CHECK(guards_alive == 0);
    launch(Queue{}, 3, 64, 0, throw_in, -1);
  });
}

KETGRAD_KERNEL swallow() {
  for (int i = 0; i < 3; ++i) {
    try {
      Shared<int>(0, 1).get(0);
    } catch (...) {
    }
  }
}

TEST(kernels_cannot_swallow_a_finding) {
  CHECK_THROWS(std::logic_error, launch(Queue{}, 1, 32, 4, swallow), "no thread of the block has written");
}

KETGRAD_KERNEL launch_within() { launch(Queue{}, 1, 32, 0, shuffle_of_one_warp); }

TEST(impossible_launches_are_refused) {
  for (const int threads : {-32, 0, 1, 33, 1056}) {
    CHECK_THROWS(std::invalid_argument, launch(Queue{}, 1, threads, 0, shuffle_of_one_warp),
                 "a block of " + std::to_string(threads) + " threads");
  }
  CHECK_THROWS(std::invalid_argument, launch(Queue{}, -1, 32, 0, shuffle_of_one_warp), "no GPU launches -1 blocks");
  CHECK_THROWS(std::invalid_argument, launch(Queue{}, 1, 32, 300 << 10, shuffle_of_one_warp), "of shared memory");
  CHECK_THROWS(std::logic_error, launch(Queue{}, 1, 32, 0, launch_within), "a launch within a kernel");
  CHECK_THROWS(std::logic_error, barrier(), "within a launch");
  CHECK_THROWS(std::logic_error, thread_index(), "within a launch");
}

TEST(launches_are_counted) {
  const Index before = launch_count();
  launch(Queue{}, 3, 32, 0, shuffle_of_one_warp);
  launch(Queue{}, 0, 32, 0, shuffle_of_one_warp);
  launch(Queue{}, 1, 32, 0, shuffle_of_one_warp);
  CHECK(launch_count() == before + 2);
}

TEST(parities_and_signs) {
  CHECK(odd(Mask{1} << 47) && !odd(Mask{5}));
  CHECK(with_sign(1.5f, 0x80000000u) == -1.5f && with_sign(1.5f, 0x7fffffffu) == 1.5f);
  CHECK(with_sign(-2.5, 0xffffffffu) == 2.5 && with_sign(-2.5, 0) == -2.5);
}

// Lane l of each warp has what lane sources[l] had, and sums up what it is given.
KETGRAD_KERNEL fetch_and_add(const int* sources, double* sums) {
  const int lane = thread_index() % warp_size;
  const int found = shuffle(10 * thread_index(), sources[lane]);
  add_alone(sums + thread_index(), found);
  add_alone(sums + thread_index(), 0.5);
}

TEST(lanes_fetch_from_any_other) {
  std::vector<int> sources(warp_size);
  for (int lane = 0; lane < warp_size; ++lane) sources[lane] = (7 * lane * lane + 3) % warp_size;
  std::vector<double> sums(64, 1.0);
  launch(Queue{}, 1, 64, 0, fetch_and_add, sources.data(), sums.data());
  for (int t = 0; t < 64; ++t) CHECK(sums[t] == 1.5 + 10 * (t / warp_size * warp_size + sources[t % warp_size]));
}

}  // namespace
}  // namespace ketgrad::cuda

int main() { return ketgrad::testing::run_tests(); }
