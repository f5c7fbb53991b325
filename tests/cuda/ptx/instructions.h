// The instructions that work on registers alone, by their opcode with all that belongs to it. What is not in the table
// is not known.
#pragma once

#include <string_view>
#include <vector>

#include "ptx/program.h"

namespace ketgrad::ptx {

// The registers that an opcode takes, results first: how many bytes each has per lane.
inline constexpr int predicate = 0;

struct Form {
  TableOp run = nullptr;
  std::vector<int> results;
  std::vector<int> sources;
};

// Null where the opcode is not known.
const Form* find_form(std::string_view opcode);

// What instructions find the registers of a warp by. Memory knows more.
struct Lanes {
  std::byte* registers = nullptr;
  class Memory* memory = nullptr;
  const class LocalMemory* local = nullptr;
  int first_thread = 0;  // of the warp, in its block
};

}  // namespace ketgrad::ptx
