// What names mean within a function, while it is parsed.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ptx/program.h"

namespace ketgrad::ptx {

struct Register {
  std::uint32_t place = 0;
  int bytes = 0;  // of a lane; `predicate` of a predicate
};

// Registers by name, in scopes of which the inner ones come first.
class RegisterNames {
 public:
  explicit RegisterNames(std::size_t& bytes) : bytes_(bytes), scopes_(1) {}

  void open_scope() { scopes_.emplace_back(); }
  void close_scope() { scopes_.pop_back(); }
  std::size_t depth() const { return scopes_.size(); }

  void declare(const std::string& name, int bytes);
  // prefix0, prefix1 and so on
  void declare(const std::string& prefix, int count, int bytes);
  std::optional<Register> find(std::string_view name) const;

 private:
  struct Family {
    Register first;
    std::uint32_t stride = 0;
    int count = 0;
  };
  struct Scope {
    std::map<std::string, Register, std::less<>> registers;
    std::map<std::string, Family, std::less<>> families;
  };

  Register take(int bytes);

  std::size_t& bytes_;  // of the function's registers so far
  std::vector<Scope> scopes_;
};

// Constants as operands: each is written down once, for all lanes.
class Constants {
 public:
  explicit Constants(Program& program) : program_(program) {}

  Operand operand(std::uint64_t value, int bytes);

 private:
  Program& program_;
  std::map<std::pair<int, std::uint64_t>, Operand> known_;
};

// The bits of a number as PTX writes it: 17, -1, 0f3F800000, 0d3FF0000000000000.
std::optional<std::uint64_t> parse_number(std::string_view text);

// An address: what one of the registers in `special` holds, or a constant, and an offset from there.
struct Symbol {
  std::optional<std::uint32_t> base;
  std::uint64_t offset = 0;
};

using Symbols = std::map<std::string, Symbol, std::less<>>;

}  // namespace ketgrad::ptx
