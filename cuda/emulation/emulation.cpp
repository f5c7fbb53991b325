#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "cuda/emulation/fiber.h"
#include "cuda/emulation/shared_memory.h"
#include "cuda/kernels/device.h"

namespace ketgrad::cuda {
namespace emulation {
namespace {

class DrawnOrder {
 public:
  explicit DrawnOrder(std::uint64_t seed) : state_((seed ^ 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u) {
    if (state_ == 0) state_ = 1;  // the one state that xorshift does not leave
    for (int i = 0; i < 8; ++i) next();
  }

  std::size_t below(std::size_t n) { return static_cast<std::size_t>(next() % n); }

 private:
  std::uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }

  std::uint64_t state_;
};

// In the order of `whereabouts`.
enum class State { ready, in_shuffle, at_barrier, ended };

constexpr const char* whereabouts[] = {"is ready", "waits in a shuffle", "waits at the barrier", "has ended"};

struct Thread {
  Thread(int number, void (*body)()) : index(number), fiber(body) {}

  bool waits() const { return state == State::in_shuffle || state == State::at_barrier; }

  int index;
  Fiber fiber;
  State state = State::ended;

  // Of the shuffle that it waits in.
  int source = 0;
  std::size_t size = 0;
  alignas(shuffle_bytes) std::byte value[shuffle_bytes]{};
};

// Ends the threads of a block that has failed, from wherever they wait.
struct Abandoned {};

class Machine {
 public:
  void seed(std::uint64_t seed) { random_ = DrawnOrder(seed); }
  Index launches() const { return launches_; }
  Index block() const { return block_; }
  int threads() const { return grid_.threads; }
  int thread() const { return self().index; }

  void run(const Grid& grid, const std::function<void()>& kernel);
  void barrier();
  void exchange(void* value, std::size_t size, int warp_lane);
  void load(const Array& array, Index i, void* value);
  void store(const Array& array, Index i, const void* value);

  // Runs the kernel in one block.
  void live();

 private:
  Thread& self() const {
    if (running_ == nullptr) throw std::logic_error("ketgrad emulation: this is for kernels, within a launch");
    return *running_;
  }
  std::string where() const { return "ketgrad emulation: in block " + std::to_string(block_) + ", "; }

  void run_block(Index block);
  void make_ready(Thread& thread);
  void wait(State state);
  void go_on();
  void exchange_within_warp(int first);
  void fail(const std::exception_ptr& error);
  void require(const std::string& error);
  std::string deadlock() const;

  DrawnOrder random_{0};
  Index launches_ = 0;

  // The launch.
  Grid grid_{};
  const std::function<void()>* kernel_ = nullptr;
  std::exception_ptr failure_;  // the first one

  // The block.
  std::recursive_mutex mutex_;  // one launch at a time; recursive, to report a launch within a kernel
  Index block_ = 0;
  Index epoch_ = 0;
  SharedMemory memory_;
  std::vector<std::unique_ptr<Thread>> all_threads_;  // kept; the block has the first grid_.threads of them
  std::vector<Thread*> ready_;                        // without the running one
  std::vector<int> in_shuffle_;                       // how many threads wait in one, by warp
  int at_barrier_ = 0;
  int ended_ = 0;

  Thread* running_ = nullptr;
  Fiber host_;
};

Machine& machine() {
  static Machine machine;
  return machine;
}

[[noreturn]] void live_forever() {
  for (;;) machine().live();
}

// Refuses launches that no GPU makes.
void require_possible(const Grid& grid) {
  constexpr int most_threads = 1024;
  constexpr Index most_blocks = 0x7fffffff;
  constexpr std::size_t most_shared_bytes = std::size_t{227} << 10;
  const auto refuse = [](const std::string& what) {
    throw std::invalid_argument("ketgrad emulation: no GPU launches " + what);
  };
  if (grid.threads <= 0 || grid.threads > most_threads || grid.threads % warp_size != 0)
    refuse("a block of " + std::to_string(grid.threads) + " threads: whole warps of 32, at most 1024");
  if (grid.blocks < 0 || grid.blocks > most_blocks) refuse(std::to_string(grid.blocks) + " blocks");
  if (grid.shared_bytes > most_shared_bytes)
    refuse("blocks with " + std::to_string(grid.shared_bytes) + " bytes of shared memory");
}

void Machine::run(const Grid& grid, const std::function<void()>& kernel) {
  const std::lock_guard lock(mutex_);
  if (running_ != nullptr) throw std::logic_error("ketgrad emulation: a launch within a kernel");
  require_possible(grid);
  if (grid.blocks == 0) return;
  ++launches_;
  grid_ = grid;
  kernel_ = &kernel;
  while (static_cast<int>(all_threads_.size()) < grid.threads)
    all_threads_.push_back(std::make_unique<Thread>(static_cast<int>(all_threads_.size()), &live_forever));
  std::vector<Index> blocks;
  for (Index b = 0; b < grid.blocks; ++b) blocks.push_back(b);
  while (!blocks.empty() && !failure_) {
    std::swap(blocks[random_.below(blocks.size())], blocks.back());
    run_block(blocks.back());
    blocks.pop_back();
  }
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
}

void Machine::run_block(Index block) {
  block_ = block;
  epoch_ = 0;
  memory_.clear(grid_.shared_bytes);
  in_shuffle_.assign(static_cast<std::size_t>(grid_.threads / warp_size), 0);
  at_barrier_ = 0;
  ended_ = 0;
  for (int t = 0; t < grid_.threads; ++t) make_ready(*all_threads_[t]);
  go_on();
}

void Machine::make_ready(Thread& thread) {
  thread.state = State::ready;
  ready_.push_back(&thread);
}

// Switches from the running fiber, whose state is set, to one that is ready, maybe itself.
void Machine::go_on() {
  if (ready_.empty() && ended_ < grid_.threads) fail(std::make_exception_ptr(std::logic_error(where() + deadlock())));
  Fiber& from = running_ != nullptr ? running_->fiber : host_;
  if (ready_.empty()) {
    running_ = nullptr;
  } else {
    std::swap(ready_[random_.below(ready_.size())], ready_.back());
    running_ = ready_.back();
    ready_.pop_back();
  }
  Fiber& to = running_ != nullptr ? running_->fiber : host_;
  if (&from != &to) from.leave_for(to);
}

void Machine::live() {
  try {
    if (!failure_) (*kernel_)();
  } catch (const Abandoned&) {
  } catch (...) {
    fail(std::current_exception());
  }
  running_->state = State::ended;
  ++ended_;
  go_on();
}

// Threads that wait are made ready, so that they end.
void Machine::fail(const std::exception_ptr& error) {
  if (failure_) return;
  failure_ = error;
  for (int t = 0; t < grid_.threads; ++t) {
    if (all_threads_[t]->waits()) make_ready(*all_threads_[t]);
  }
}

void Machine::require(const std::string& error) {
  if (!error.empty()) fail(std::make_exception_ptr(std::logic_error(where() + error)));
  if (failure_) throw Abandoned{};
}

// Names a thread that waits, and the thread that it waits for in vain.
std::string Machine::deadlock() const {
  const auto begin = all_threads_.begin();
  const auto end = begin + grid_.threads;
  const auto in_shuffle = [](const auto& t) { return t->state == State::in_shuffle; };
  const auto waiting = std::find_if(begin, end, in_shuffle);
  if (waiting == end) {
    const auto waits = std::find_if(begin, end, [](const auto& t) { return t->waits(); });
    const auto missing = std::find_if(begin, end, [](const auto& t) { return !t->waits(); });
    return thread_name((*waits)->index) + " waits at the barrier, but " + thread_name((*missing)->index) + " has ended";
  }
  const auto warp = begin + (*waiting)->index / warp_size * warp_size;
  const Thread& missing = **std::find_if_not(warp, warp + warp_size, in_shuffle);
  return thread_name((*waiting)->index) + " waits in a shuffle, but " + thread_name(missing.index) + " of its warp " +
         whereabouts[static_cast<int>(missing.state)];
}

void Machine::wait(State state) {
  running_->state = state;
  go_on();
  require({});
}

void Machine::barrier() {
  self();
  require({});
  if (++at_barrier_ < grid_.threads) return wait(State::at_barrier);
  at_barrier_ = 0;
  ++epoch_;
  for (int t = 0; t < grid_.threads; ++t) make_ready(*all_threads_[t]);
  wait(State::ready);
}

void Machine::exchange(void* value, std::size_t size, int warp_lane) {
  Thread& thread = self();
  require({});
  if (warp_lane < 0 || warp_lane >= warp_size)
    require(thread_name(thread.index) + " shuffles with lane " + std::to_string(warp_lane) + ", beyond its warp");
  std::memcpy(thread.value, value, size);
  thread.size = size;
  thread.source = warp_lane;
  const int warp = thread.index / warp_size;
  if (++in_shuffle_[warp] < warp_size) {
    wait(State::in_shuffle);
  } else {
    in_shuffle_[warp] = 0;
    exchange_within_warp(warp * warp_size);
    wait(State::ready);
  }
  std::memcpy(value, thread.value, size);
}

// Done by the last lane for all of them: others may have shuffled again before a lane reads its value.
void Machine::exchange_within_warp(int first) {
  std::byte values[warp_size][shuffle_bytes];
  for (int warp_lane = 0; warp_lane < warp_size; ++warp_lane) {
    const Thread& thread = *all_threads_[first + warp_lane];
    const Thread& other = *all_threads_[first + thread.source];
    if (thread.size != other.size)
      require("threads " + std::to_string(thread.index) + " and " + std::to_string(other.index) +
              " meet in shuffles of different types");
    std::memcpy(values[warp_lane], other.value, shuffle_bytes);
  }
  for (int warp_lane = 0; warp_lane < warp_size; ++warp_lane) {
    Thread& thread = *all_threads_[first + warp_lane];
    std::memcpy(thread.value, values[warp_lane], shuffle_bytes);
    make_ready(thread);
  }
}

void Machine::load(const Array& array, Index i, void* value) {
  require(memory_.load(array, i, self().index, epoch_, value));
}

void Machine::store(const Array& array, Index i, const void* value) {
  require(memory_.store(array, i, self().index, epoch_, value));
}

}  // namespace

void run(const Grid& grid, const std::function<void()>& kernel) { machine().run(grid, kernel); }
void load(const Array& array, Index i, void* value) { machine().load(array, i, value); }
void store(const Array& array, Index i, const void* value) { machine().store(array, i, value); }
void exchange(void* value, std::size_t size, int warp_lane) { machine().exchange(value, size, warp_lane); }

}  // namespace emulation

int thread_index() { return emulation::machine().thread(); }
int block_threads() { return emulation::machine().threads(); }
Index block_index() { return emulation::machine().block(); }
void barrier() { emulation::machine().barrier(); }
void seed_emulation(std::uint64_t seed) { emulation::machine().seed(seed); }
Index launch_count() { return emulation::machine().launches(); }

}  // namespace ketgrad::cuda
