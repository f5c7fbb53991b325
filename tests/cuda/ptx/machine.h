// Runs launches. Blocks come one after the other in random order; within a block a random warp goes on, with those of
// its threads that are at one place, for a random number of instructions.
#pragma once

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "ptx/memory.h"
#include "ptx/program.h"
#include "ptx/warp.h"

namespace ketgrad::ptx {

class Machine {
 public:
  // What it has done so far.
  struct Counts {
    std::int64_t launches = 0;
    std::int64_t instructions = 0;  // by the threads that execute them
    std::int64_t barriers = 0;
  };

  explicit Machine(const Program& program);

  // The orders are those of this seed from here on. A warp goes on for at most `quantum` instructions, or, where that
  // is zero, until it waits.
  void seed(std::uint64_t seed) { random_.seed(seed); }
  void set_quantum(int quantum) { quantum_ = quantum; }

  // Throws a Fault.
  void launch(int kernel, const Grid& grid, const void* const* arguments);

  const Counts& counts() const { return counts_; }
  std::int64_t global_accesses() const { return memory_.accesses(); }

  // By instruction: whether any thread got there, whatever its guard said.
  const std::vector<std::uint8_t>& reached() const { return reached_; }

 private:
  // Threads of a warp that are at one place.
  struct Group {
    LaneMask lanes = 0;
    int pc = 0;
    int meets = 0;   // the first place further on where others of the warp wait for company
    int budget = 0;  // instructions
  };

  void require_possible(const Grid& grid) const;
  void run_block(std::int64_t block);
  void run(Warp& warp);
  Group choose(const Warp& warp);
  void execute(Warp& warp, Group group);
  void part(Warp& warp, Group group, LaneMask taken);
  void call(Warp& warp, const Group& group);
  void leave(Warp& warp, const Group& group);
  void wait(Warp& warp, const Group& group, LaneMask& waiting) const;
  void shuffle(Warp& warp, const Group& group);
  void exchange(const Lanes& lanes, const Instruction& instruction) const;
  void pass_barrier();
  bool all_wait() const;
  void require_all_ended() const;

  LaneMask num_active(const Lanes& lanes, const Instruction& instruction, LaneMask group) const;
  std::string kernel_name() const { return readable_name(program_.functions[kernel_].name); }
  [[noreturn]] void fail(const Warp& warp, int lane, int pc, const std::string& what) const;

  const Program& program_;
  std::mt19937_64 random_;
  int quantum_ = 0;
  Counts counts_;
  std::vector<std::uint8_t> reached_;

  // The launch and the block.
  int kernel_ = 0;
  Grid grid_;
  std::vector<std::uint64_t> parameters_;
  std::int64_t block_ = 0;
  Memory memory_;
  std::vector<Warp> warps_;  // kept; the block has the first `num_warps_`
  int num_warps_ = 0;
};

}  // namespace ketgrad::ptx
