#include "ptx/machine.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>

#include "ptx/fault.h"

namespace ketgrad::ptx {
namespace {

constexpr int never = std::numeric_limits<int>::max();

// One time in so many a warp goes on with any of its threads, not with those that are furthest behind.
constexpr int disorder = 8;

std::string thread_name(const Warp& warp, int lane) {
  return "thread " + std::to_string(warp.number() * warp_size + lane);
}

}  // namespace

Machine::Machine(const Program& program) : program_(program), reached_(program.code.size()) {}

// --- launches --------------------------------------------------------------------------------------------------------

void Machine::launch(int kernel, const Grid& grid, const void* const* arguments) {
  kernel_ = kernel;
  grid_ = grid;
  require_possible(grid);
  const Function& function = program_.functions[kernel];
  parameters_.assign(function.parameter_bytes / sizeof(std::uint64_t) + 1, 0);
  auto* bytes = reinterpret_cast<std::byte*>(parameters_.data());
  for (std::size_t k = 0; k < function.parameters.size(); ++k)
    std::memcpy(bytes + function.parameters[k].offset, arguments[k], function.parameters[k].bytes);
  ++counts_.launches;
  memory_.begin_launch(parameters_);
  std::vector<std::int64_t> blocks(static_cast<std::size_t>(grid.blocks));
  std::iota(blocks.begin(), blocks.end(), 0);
  std::shuffle(blocks.begin(), blocks.end(), random_);
  for (const std::int64_t block : blocks) run_block(block);
}

void Machine::require_possible(const Grid& grid) const {
  constexpr std::int64_t most_blocks = 0x7fffffff;
  constexpr std::size_t most_parameters = 4096;
  const Function& function = program_.functions[kernel_];
  const auto refuse = [&](const std::string& what) { throw Fault(kernel_name() + " is launched with " + what); };
  if (grid.threads <= 0 || grid.threads % warp_size != 0 || grid.threads > function.max_threads)
    refuse("blocks of " + std::to_string(grid.threads) + " threads: whole warps of 32, at most " +
           std::to_string(function.max_threads));
  if (grid.blocks <= 0 || grid.blocks > most_blocks) refuse(std::to_string(grid.blocks) + " blocks");
  if (function.parameter_bytes > most_parameters)
    refuse(std::to_string(function.parameter_bytes) + " bytes of parameters");
}

// --- blocks ----------------------------------------------------------------------------------------------------------

void Machine::run_block(std::int64_t block) {
  block_ = block;
  memory_.begin_block(block, grid_.shared_bytes);
  num_warps_ = grid_.threads / warp_size;
  if (static_cast<int>(warps_.size()) < num_warps_) warps_.resize(num_warps_);
  for (int w = 0; w < num_warps_; ++w) warps_[w].begin(program_, kernel_, w, grid_, block, parameters_.data());
  std::vector<int> ready;
  for (;;) {
    ready.clear();
    for (int w = 0; w < num_warps_; ++w) {
      if (warps_[w].ready() != 0) ready.push_back(w);
    }
    if (!ready.empty()) {
      run(warps_[ready[random_() % ready.size()]]);
    } else if (all_wait()) {
      pass_barrier();
    } else {
      break;
    }
  }
  require_all_ended();
}

bool Machine::all_wait() const {
  return std::all_of(warps_.begin(), warps_.begin() + num_warps_,
                     [](const Warp& warp) { return warp.at_barrier == all_lanes; });
}

void Machine::pass_barrier() {
  ++counts_.barriers;
  memory_.pass_barrier();
  for (int w = 0; w < num_warps_; ++w) {
    Warp& warp = warps_[w];
    warp.put(all_lanes, warp.pc(0) + 1);
    warp.at_barrier = 0;
  }
}

// Who waits in vain, if anybody does.
void Machine::require_all_ended() const {
  for (int w = 0; w < num_warps_; ++w) {
    const Warp& warp = warps_[w];
    const LaneMask waiting = warp.in_shuffle | warp.at_barrier;
    if (waiting == 0) continue;
    const int lane = std::countr_zero(waiting);
    fail(warp, lane, warp.pc(lane),
         warp.in_shuffle != 0 ? "waits in a shuffle that another thread of its warp does not come to"
                              : "waits at a barrier that another thread of its block does not come to");
  }
}

// --- warps -----------------------------------------------------------------------------------------------------------

void Machine::run(Warp& warp) { execute(warp, choose(warp)); }

// Mostly those that are furthest behind, up to where others wait: so that threads that parted come together again.
Machine::Group Machine::choose(const Warp& warp) {
  const LaneMask ready = warp.ready();
  Group group{0, 0, never, quantum_ == 0 ? never : 1 + static_cast<int>(random_() % quantum_)};
  int first = never;
  for (LaneMask m = ready; m != 0; m &= m - 1) first = std::min(first, warp.pc(std::countr_zero(m)));
  group.pc = first;
  group.lanes = warp.lanes_at(first, ready);
  if (quantum_ != 0 && random_() % disorder == 0) {
    int lane = static_cast<int>(random_() % warp_size);
    while (((ready >> lane) & 1) == 0) lane = (lane + 1) % warp_size;
    group.pc = warp.pc(lane);
    group.lanes = warp.lanes_at(group.pc, ready) & (static_cast<LaneMask>(random_()) | LaneMask{1} << lane);
    return group;
  }
  for (LaneMask m = ready & ~group.lanes; m != 0; m &= m - 1)
    group.meets = std::min(group.meets, warp.pc(std::countr_zero(m)));
  return group;
}

LaneMask Machine::num_active(const Lanes& lanes, const Instruction& i, LaneMask group) const {
  if (!i.has_guard) return group;
  const LaneMask guard = *reinterpret_cast<const LaneMask*>(lanes.registers + i.guard);
  return group & (i.guard_negated ? ~guard : guard);
}

void Machine::execute(Warp& warp, Group group) {
  const int function = program_.code[group.pc].function;
  Lanes lanes = warp.lanes(function, memory_);
  const int width = std::popcount(group.lanes);
  try {
    for (; group.budget > 0 && group.pc < group.meets; --group.budget) {
      const Instruction& i = program_.code[group.pc];
      const LaneMask mask = num_active(lanes, i, group.lanes);
      reached_[group.pc] = 1;
      counts_.instructions += width;
      if (i.control == Control::none) {
        if (mask != 0) i.run(lanes, i, mask);
        ++group.pc;
      } else if (mask == 0) {
        ++group.pc;
      } else if (i.control == Control::branch && mask == group.lanes) {
        group.pc = i.target;
      } else if (i.control == Control::shuffle && mask == all_lanes) {
        exchange(lanes, i);
        ++group.pc;
      } else {
        return part(warp, group, mask);
      }
    }
  } catch (const Misuse& misuse) {
    fail(warp, misuse.lane, group.pc, misuse.what());
  }
  warp.put(group.lanes, group.pc);
}

// The threads of `taken` do what the instruction says, the others go on behind it.
void Machine::part(Warp& warp, Group group, LaneMask taken) {
  const Instruction& i = program_.code[group.pc];
  warp.put(group.lanes & ~taken, group.pc + 1);
  warp.put(taken, group.pc);
  group.lanes = taken;
  switch (i.control) {
    case Control::branch: return warp.put(taken, i.target);
    case Control::call: return call(warp, group);
    case Control::leave: return leave(warp, group);
    case Control::barrier: return wait(warp, group, warp.at_barrier);
    case Control::shuffle: return shuffle(warp, group);
    case Control::none: return;
  }
}

void Machine::call(Warp& warp, const Group& group) {
  const Call& call = program_.calls[program_.code[group.pc].target];
  if (!program_.functions[call.callee].is_defined)
    throw Misuse(std::countr_zero(group.lanes), "calls a function that has no code");
  for (LaneMask m = group.lanes; m != 0; m &= m - 1) warp.enter(program_, std::countr_zero(m), call, group.pc);
}

void Machine::leave(Warp& warp, const Group& group) {
  for (LaneMask m = group.lanes; m != 0; m &= m - 1) {
    const int lane = std::countr_zero(m);
    if (!warp.leave(program_, lane)) warp.ended |= LaneMask{1} << lane;
  }
}

// --- shuffles and barriers -------------------------------------------------------------------------------------------

// All of a warp that wait must do so at one place.
void Machine::wait(Warp& warp, const Group& group, LaneMask& waiting) const {
  const LaneMask elsewhere = waiting & ~warp.lanes_at(group.pc, all_lanes);
  if (elsewhere != 0)
    throw Misuse(std::countr_zero(group.lanes), "comes to another barrier or shuffle than the one where " +
                                                    thread_name(warp, std::countr_zero(elsewhere)) + " waits");
  waiting |= group.lanes;
}

void Machine::shuffle(Warp& warp, const Group& group) {
  wait(warp, group, warp.in_shuffle);
  if (warp.in_shuffle != all_lanes) return;
  const Instruction& i = program_.code[group.pc];
  exchange(warp.lanes(i.function, memory_), i);
  warp.in_shuffle = 0;
  warp.put(all_lanes, group.pc + 1);
}

// Each lane gets another one's value.
void Machine::exchange(const Lanes& lanes, const Instruction& i) const {
  const auto source = [&](int k) { return i.sources[k].lanes<std::uint32_t>(lanes.registers); };
  std::uint32_t values[warp_size];
  for (int lane = 0; lane < warp_size; ++lane) {
    if (source(2)[lane] != warp_size - 1 || source(3)[lane] != all_lanes)
      throw Misuse(lane, "shuffles within less than a warp");
    const std::uint32_t other = i.by_xor ? lane ^ source(1)[lane] : source(1)[lane];
    values[lane] = source(0)[other % warp_size];
  }
  std::memcpy(lanes.registers + i.results[0], values, sizeof values);
  std::memcpy(lanes.registers + i.results[1], &all_lanes, sizeof all_lanes);
}

void Machine::fail(const Warp& warp, int lane, int pc, const std::string& what) const {
  const Instruction& i = program_.code[pc];
  const Location& location = program_.locations[i.location];
  const std::string inlined = location.inlined_at.empty() ? "" : " (inlined at " + location.inlined_at + ")";
  const std::string source = location.place.empty() ? "" : location.place + inlined + ", ";
  throw Fault(kernel_name() + ", " + source + "line " + std::to_string(i.line) +
              " of the PTX: " + thread_name(warp, lane) + " of block " + std::to_string(block_) + " " + what);
}

}  // namespace ketgrad::ptx
