#include "ptx/symbols.h"

#include <cctype>
#include <charconv>
#include <cstring>

#include "ptx/instructions.h"

namespace ketgrad::ptx {
namespace {

std::uint32_t bytes_of_lanes(int bytes) {
  constexpr std::uint32_t alignment = 64;  // of the widest vectors
  const std::uint32_t all = bytes == predicate ? sizeof(LaneMask) : warp_size * bytes;
  return (all + alignment - 1) / alignment * alignment;
}

// The digits at the end of a name.
std::string_view number_of(std::string_view name) {
  std::size_t begin = name.size();
  while (begin > 0 && std::isdigit(static_cast<unsigned char>(name[begin - 1])) != 0) --begin;
  return name.substr(begin);
}

template <class T>
std::optional<T> parsed(std::string_view text, int base) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || end != text.data() + text.size()) return {};
  return value;
}

}  // namespace

// --- registers -------------------------------------------------------------------------------------------------------

Register RegisterNames::take(int bytes) {
  const auto place = static_cast<std::uint32_t>(bytes_);
  bytes_ += bytes_of_lanes(bytes);
  return {place, bytes};
}

void RegisterNames::declare(const std::string& name, int bytes) { scopes_.back().registers[name] = take(bytes); }

void RegisterNames::declare(const std::string& prefix, int count, int bytes) {
  const std::uint32_t stride = bytes_of_lanes(bytes);
  scopes_.back().families[prefix] = {{static_cast<std::uint32_t>(bytes_), bytes}, stride, count};
  bytes_ += std::size_t{stride} * count;
}

std::optional<Register> RegisterNames::find(std::string_view name) const {
  const std::string_view digits = number_of(name);
  const std::string_view prefix = name.substr(0, name.size() - digits.size());
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    if (const auto one = scope->registers.find(name); one != scope->registers.end()) return one->second;
    const auto family = scope->families.find(prefix);
    const auto number = parsed<int>(digits, 10);
    if (family == scope->families.end() || !number || *number >= family->second.count) continue;
    const auto& [first, stride, count] = family->second;
    return Register{first.place + stride * *number, first.bytes};
  }
  return {};
}

// --- constants -------------------------------------------------------------------------------------------------------

Operand Constants::operand(std::uint64_t value, int bytes) {
  const auto [known, is_new] = known_.try_emplace({bytes, value});
  if (is_new) {
    auto& memory = program_.constants.emplace_back(bytes_of_lanes(bytes) / sizeof(std::uint64_t));
    auto* lanes = reinterpret_cast<std::byte*>(memory.data());
    if (bytes == predicate) {
      const LaneMask mask = value != 0 ? all_lanes : 0;
      std::memcpy(lanes, &mask, sizeof mask);
    } else {
      for (int lane = 0; lane < warp_size; ++lane) std::memcpy(lanes + lane * bytes, &value, bytes);
    }
    known->second = {reinterpret_cast<std::uintptr_t>(lanes), 0};
  }
  return known->second;
}

std::optional<std::uint64_t> parse_number(std::string_view text) {
  if (text.starts_with("0d") || text.starts_with("0f") || text.starts_with("0x"))
    return parsed<std::uint64_t>(text.substr(2), 16);
  if (!text.starts_with('-')) return parsed<std::uint64_t>(text, 10);
  const auto value = parsed<std::int64_t>(text, 10);
  if (!value) return {};
  return static_cast<std::uint64_t>(*value);
}

}  // namespace ketgrad::ptx
