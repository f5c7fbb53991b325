#include "ptx/warp.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "ptx/fault.h"

namespace ketgrad::ptx {
namespace {

constexpr std::align_val_t alignment{64};

template <class T>
void fill(std::byte* registers, std::uint32_t place, T value) {
  for (int lane = 0; lane < warp_size; ++lane) reinterpret_cast<T*>(registers + place)[lane] = value;
}

}  // namespace

void Warp::Aligned::operator()(std::byte* memory) const { ::operator delete(memory, alignment); }

void Warp::begin(const Program& program, int kernel, int number, const Grid& grid, std::int64_t block,
                 const void* parameters) {
  number_ = number;
  grid_ = grid;
  block_ = block;
  parameters_ = parameters;
  in_shuffle = at_barrier = ended = 0;
  pc_.fill(program.functions[kernel].first);
  for (std::vector<int>& callers : callers_) callers.clear();
  local_.clear();
  active_ = 0;
  add_function(program, kernel);
}

// Registers are NaN at first, of any type.
void Warp::add_function(const Program& program, int number) {
  const Function& function = program.functions[number];
  if (functions_.size() == active_) functions_.emplace_back();
  Active& num_active = functions_[active_++];
  num_active.function = number;
  Registers& registers = num_active.registers;
  if (registers.bytes < function.register_bytes) {
    registers.bytes = function.register_bytes;
    registers.memory.reset(static_cast<std::byte*>(::operator new(registers.bytes, alignment)));
  }
  std::byte* places = registers.memory.get();
  std::memset(places, 0xff, function.register_bytes);
  fill(places, special::ntid, grid_.threads);
  fill(places, special::ctaid, static_cast<std::int32_t>(block_));
  fill(places, special::nctaid, static_cast<std::int32_t>(grid_.blocks));
  fill(places, special::param_base, reinterpret_cast<std::uint64_t>(parameters_));
  if (function.local_bytes != 0) local_.add(number, function.local_bytes);
  for (int lane = 0; lane < warp_size; ++lane) {
    reinterpret_cast<std::int32_t*>(places + special::tid)[lane] = number_ * warp_size + lane;
    reinterpret_cast<std::uint64_t*>(places + special::local_base)[lane] =
        reinterpret_cast<std::uint64_t>(local_.of(number, lane));
  }
}

LaneMask Warp::lanes_at(int pc, LaneMask among) const {
  LaneMask found = 0;
  for (int lane = 0; lane < warp_size; ++lane) found |= LaneMask{pc_[lane] == pc} << lane;
  return found & among;
}

void Warp::put(LaneMask lanes, int pc) {
  for (; lanes != 0; lanes &= lanes - 1) pc_[std::countr_zero(lanes)] = pc;
}

Lanes Warp::lanes(int function, Memory& memory) {
  const auto num_active = std::find_if(functions_.begin(), functions_.begin() + static_cast<std::ptrdiff_t>(active_),
                                       [&](const Active& a) { return a.function == function; });
  return {num_active->registers.memory.get(), &memory, &local_, number_ * warp_size};
}

void Warp::enter(const Program& program, int lane, const Call& call, int from) {
  for (const int caller : callers_[lane]) {
    // Registers are those of a function, not of a call.
    if (program.code[caller].function == call.callee) throw Misuse(lane, "enters a function that it is in");
  }
  const auto end = functions_.begin() + static_cast<std::ptrdiff_t>(active_);
  if (std::none_of(functions_.begin(), end, [&](const Active& a) { return a.function == call.callee; }))
    add_function(program, call.callee);
  copy(local_, lane, program.code[from].function, call.callee, call.arguments);
  callers_[lane].push_back(from);
  pc_[lane] = program.functions[call.callee].first;
}

bool Warp::leave(const Program& program, int lane) {
  if (callers_[lane].empty()) return false;
  const int from = callers_[lane].back();
  const Call& call = program.calls[program.code[from].target];
  callers_[lane].pop_back();
  copy(local_, lane, call.callee, program.code[from].function, call.results);
  pc_[lane] = from + 1;
  return true;
}

void Warp::copy(const LocalMemory& local, int lane, int from, int to, const std::vector<Copy>& copies) {
  for (const Copy& c : copies) std::memcpy(local.of(to, lane) + c.to, local.of(from, lane) + c.from, c.bytes);
}

}  // namespace ketgrad::ptx
