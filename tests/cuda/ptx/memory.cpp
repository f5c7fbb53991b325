#include "ptx/memory.h"

#include <sanitizer/asan_interface.h>

#include <bit>
#include <cstring>
#include <string>
#include <type_traits>

#include "ptx/fault.h"

namespace ketgrad::ptx {
namespace {

constexpr std::uint64_t nothing = 0xffffffffffffffffu;  // what memory that nobody wrote holds: NaN, of any size

std::size_t words(std::size_t bytes) { return (bytes + sizeof(std::uint64_t) - 1) / sizeof(std::uint64_t); }

std::string bytes_name(const Access& access) {
  return std::to_string(access.bytes) + " bytes of " + (access.space == Space::shared ? "shared" : "global") +
         " memory at " + std::to_string(access.address);
}

[[noreturn]] void refuse(int lane, const Access& access, const std::string& problem) {
  throw Misuse(lane, (access.writes ? "writes " : "reads ") + bytes_name(access) + problem);
}

}  // namespace

// --- local memory ----------------------------------------------------------------------------------------------------

std::byte* LocalMemory::add(int function, std::size_t bytes_each) {
  constexpr std::size_t alignment = 16;
  bytes_each = (bytes_each + alignment - 1) / alignment * alignment;
  // One piece more, for the alignment.
  arrays_.push_back(
      {function, bytes_each, std::vector<std::uint64_t>(words(warp_size * bytes_each + alignment), nothing)});
  return of(function, 0);
}

std::byte* LocalMemory::of(int function, int lane) const {
  for (const Array& array : arrays_) {
    if (array.function != function) continue;
    const auto begin = (reinterpret_cast<std::uintptr_t>(array.memory.data()) + 15) / 16 * 16;
    return reinterpret_cast<std::byte*>(begin + lane * array.bytes_each);
  }
  return nullptr;
}

bool LocalMemory::contains(std::uint64_t address, std::size_t bytes, int lane) const {
  for (const Array& array : arrays_) {
    const auto begin = reinterpret_cast<std::uintptr_t>(of(array.function, lane));
    if (address >= begin && address + bytes <= begin + array.bytes_each) return true;
  }
  return false;
}

// --- all memory ------------------------------------------------------------------------------------------------------

void Memory::begin_launch(const std::vector<std::uint64_t>& parameters) {
  parameters_ = &parameters;
  global_history_.begin_launch();
}

void Memory::begin_block(std::int64_t block, std::size_t shared_bytes) {
  block_ = block;
  epoch_ = 0;
  shared_bytes_ = shared_bytes;
  shared_.assign(words(shared_bytes) + 1, nothing);
  shared_history_.begin_block();
}

bool Memory::is_parameter(const Access& access) const {
  const auto begin = reinterpret_cast<std::uintptr_t>(parameters_->data());
  return access.address >= begin &&
         access.address + access.bytes <= begin + parameters_->size() * sizeof(std::uint64_t);
}

std::byte* Memory::find(const Lanes& lanes, int lane, const Access& access) {
  if (access.address % access.bytes != 0) refuse(lane, access, ", which is misaligned");
  const Actor actor{block_, epoch_, lanes.first_thread + lane};
  if (access.space == Space::shared) return find_shared(lane, actor, access);
  auto* place = reinterpret_cast<std::byte*>(access.address);
  if (access.space == Space::global || access.space == Space::constant) return find_global(lane, actor, access);
  if (lanes.local->contains(access.address, access.bytes, lane)) return place;
  if (access.space == Space::local) throw Misuse(lane, "leaves its local memory");
  if (is_parameter(access)) {
    if (access.writes) throw Misuse(lane, "writes parameters of the launch");
    return place;
  }
  if (access.space == Space::param) throw Misuse(lane, "reads beyond the parameters");
  return find_global(lane, actor, access);
}

std::byte* Memory::find_shared(int lane, const Actor& actor, const Access& access) {
  if (access.address + access.bytes > shared_bytes_)
    refuse(lane, access, ", but the launch asked for " + std::to_string(shared_bytes_));
  if (auto problem = shared_history_.access(access.address, access.bytes, actor, access.writes))
    throw Misuse(lane, *problem + " " + bytes_name(access));
  return reinterpret_cast<std::byte*>(shared_.data()) + access.address;
}

std::byte* Memory::find_global(int lane, const Actor& actor, const Access& access) {
  using Kind = GlobalHistory::Kind;
  constexpr std::uint64_t first_page = 4096;
  ++accesses_;
  auto* place = reinterpret_cast<std::byte*>(access.address);
  // Whatever the tests allocate, the address sanitizer's allocator has put a fence around.
  if (access.address < first_page || __asan_region_is_poisoned(place, access.bytes) != nullptr)
    refuse(lane, access, ", which nobody has allocated");
  const Kind kind = access.writes ? Kind::write : access.space == Space::constant ? Kind::read_constant : Kind::read;
  if (auto problem = global_history_.access(access.address, access.bytes, actor, kind))
    throw Misuse(lane, *problem + " " + bytes_name(access));
  return place;
}

// --- loads and stores ------------------------------------------------------------------------------------------------

namespace {

Access access_of(const Lanes& lanes, const Instruction& i, int lane, std::size_t element_bytes, bool writes) {
  Access access{i.space, writes, 0, element_bytes * i.count};
  if (i.address_bytes == sizeof(std::uint32_t)) {
    access.address = i.sources[0].lanes<std::uint32_t>(lanes.registers)[lane] + static_cast<std::uint32_t>(i.offset);
    access.address = static_cast<std::uint32_t>(access.address);
  } else {
    access.address = i.sources[0].lanes<std::uint64_t>(lanes.registers)[lane] + static_cast<std::uint64_t>(i.offset);
  }
  return access;
}

template <class F>
void for_each_lane(LaneMask mask, const F& f) {
  for (; mask != 0; mask &= mask - 1) f(std::countr_zero(mask));
}

// A register may be wider than what is loaded into it: it gets zeros, or signs, in front.
template <class T, class Register>
void load(Lanes& lanes, const Instruction& i, LaneMask mask) {
  for_each_lane(mask, [&](int lane) {
    const std::byte* from = lanes.memory->find(lanes, lane, access_of(lanes, i, lane, sizeof(T), false));
    for (int k = 0; k < i.count; ++k) {
      T value;
      std::memcpy(&value, from + k * sizeof(T), sizeof(T));
      reinterpret_cast<Register*>(lanes.registers + i.results[k])[lane] = static_cast<Register>(value);
    }
  });
}

template <class T>
void store(Lanes& lanes, const Instruction& i, LaneMask mask) {
  for_each_lane(mask, [&](int lane) {
    std::byte* to = lanes.memory->find(lanes, lane, access_of(lanes, i, lane, sizeof(T), true));
    for (int k = 0; k < i.count; ++k)
      std::memcpy(to + k * sizeof(T), i.sources[1 + k].lanes<T>(lanes.registers) + lane, sizeof(T));
  });
}

// Kernels add where no other thread does, so that a sum has the same bits each time: another thread's access is a race
// with this one as with any other.
template <class T>
void atomic_add(Lanes& lanes, const Instruction& i, LaneMask mask) {
  for_each_lane(mask, [&](int lane) {
    std::byte* at = lanes.memory->find(lanes, lane, access_of(lanes, i, lane, sizeof(T), true));
    T old;
    std::memcpy(&old, at, sizeof(T));
    const T sum = old + i.sources[1].lanes<T>(lanes.registers)[lane];
    std::memcpy(at, &sum, sizeof(T));
    reinterpret_cast<T*>(lanes.registers + i.results[0])[lane] = old;
  });
}

template <class T>
TableOp load_into(int register_bytes) {
  static_assert(std::is_integral_v<T>);
  switch (register_bytes) {
    case 2: return sizeof(T) <= 2 ? &load<T, std::uint16_t> : nullptr;
    case 4: return sizeof(T) <= 4 ? &load<T, std::uint32_t> : nullptr;
    case 8: return &load<T, std::uint64_t>;
    default: return nullptr;
  }
}

}  // namespace

int type_bytes(std::string_view type) {
  for (const int bits : {8, 16, 32, 64}) {
    for (const char letter : {'b', 'u', 's', 'f'}) {
      if (bits < 32 && letter == 'f') continue;
      if (type == letter + std::to_string(bits)) return bits / 8;
    }
  }
  return 0;
}

TableOp find_load(std::string_view type, int register_bytes) {
  const bool is_signed = type.starts_with('s');
  const bool is_float = type.starts_with('f');
  const int bytes = type_bytes(type);
  if (is_float && register_bytes != bytes) return nullptr;
  switch (bytes) {
    case 1: return is_signed ? load_into<std::int8_t>(register_bytes) : load_into<std::uint8_t>(register_bytes);
    case 2: return is_signed ? load_into<std::int16_t>(register_bytes) : load_into<std::uint16_t>(register_bytes);
    case 4: return is_signed ? load_into<std::int32_t>(register_bytes) : load_into<std::uint32_t>(register_bytes);
    case 8: return load_into<std::uint64_t>(register_bytes);
    default: return nullptr;
  }
}

// Not of fewer bytes than races are watched by.
TableOp find_store(std::string_view type) {
  switch (type_bytes(type)) {
    case 4: return &store<std::uint32_t>;
    case 8: return &store<std::uint64_t>;
    default: return nullptr;
  }
}

TableOp find_atomic_add(std::string_view type) { return type == "f64" ? &atomic_add<double> : nullptr; }

}  // namespace ketgrad::ptx
