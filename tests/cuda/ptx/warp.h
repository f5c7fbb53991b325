// Where the threads of a warp are, and their registers. They need not be at one place: those that are go on together.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ptx/instructions.h"
#include "ptx/memory.h"
#include "ptx/program.h"

namespace ketgrad::ptx {

// What a block is launched as.
struct Grid {
  std::int64_t blocks = 0;
  int threads = 0;
  std::size_t shared_bytes = 0;
};

class Warp {
 public:
  // Before the first instruction of a kernel.
  void begin(const Program& program, int kernel, int number, const Grid& grid, std::int64_t block,
             const void* parameters);

  int number() const { return number_; }
  LaneMask ready() const { return ~(in_shuffle | at_barrier | ended); }
  LaneMask lanes_at(int pc, LaneMask among) const;
  int pc(int lane) const { return pc_[lane]; }
  void put(LaneMask lanes, int pc);
  void put(int lane, int pc) { pc_[lane] = pc; }

  // Registers of a function; they are kept, so that a thread that comes back finds those of the caller.
  Lanes lanes(int function, Memory& memory);

  // To a function and back; `leave` returns false where there is nothing to go back to.
  void enter(const Program& program, int lane, const Call& call, int from);
  bool leave(const Program& program, int lane);

  LaneMask in_shuffle = 0;
  LaneMask at_barrier = 0;
  LaneMask ended = 0;

 private:
  struct Aligned {
    void operator()(std::byte* memory) const;
  };
  struct Registers {
    std::size_t bytes = 0;
    std::unique_ptr<std::byte, Aligned> memory;
  };
  struct Active {
    int function = 0;
    Registers registers;
  };

  void add_function(const Program& program, int function);
  static void copy(const LocalMemory& local, int lane, int from, int to, const std::vector<Copy>& copies);

  int number_ = 0;
  Grid grid_;
  std::int64_t block_ = 0;
  const void* parameters_ = nullptr;
  std::array<int, warp_size> pc_{};
  std::array<std::vector<int>, warp_size> callers_;  // of each lane, the calls that it has not come back from
  LocalMemory local_;
  std::size_t active_ = 0;
  std::vector<Active> functions_;  // the first `active_` of them; the first one is the kernel's
};

}  // namespace ketgrad::ptx
