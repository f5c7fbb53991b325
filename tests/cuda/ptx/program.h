// PTX as the machine runs it: instructions whose operands are places in the registers of a warp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace ketgrad::ptx {

inline constexpr int warp_size = 32;

// A bit for each lane of a warp.
using LaneMask = std::uint32_t;
inline constexpr LaneMask all_lanes = 0xffffffffu;

// The registers of a warp in one function begin with those that no PTX declares. Each register has its 32 lanes side
// by side; a predicate is one LaneMask.
namespace special {
inline constexpr std::uint32_t bytes_each = warp_size * 4;
inline constexpr std::uint32_t tid = 0;
inline constexpr std::uint32_t ntid = tid + bytes_each;
inline constexpr std::uint32_t ctaid = ntid + bytes_each;
inline constexpr std::uint32_t nctaid = ctaid + bytes_each;
inline constexpr std::uint32_t carry = nctaid + bytes_each;
inline constexpr std::uint32_t local_base = carry + bytes_each;  // addresses: twice the bytes
inline constexpr std::uint32_t param_base = local_base + 2 * bytes_each;
inline constexpr std::uint32_t discarded = param_base + 2 * bytes_each;  // results that nobody wants
inline constexpr std::uint32_t end = discarded + 2 * bytes_each;
}  // namespace special

// Where an instruction reads: a register of the warp, or a constant that is the same for all warps. Which of the two is
// a mask and not a condition, because every instruction asks.
struct Operand {
  std::uintptr_t place = 0;         // from the first register on, or an address
  std::uintptr_t in_registers = 0;  // all ones, or zero

  template <class T>
  const T* lanes(const std::byte* registers) const {
    return reinterpret_cast<const T*>(place + (in_registers & reinterpret_cast<std::uintptr_t>(registers)));
  }
};

enum class Space : std::uint8_t { generic, global, constant, shared, local, param };

// What the machine does itself, because it concerns more than registers and memory.
enum class Control : std::uint8_t { none, branch, call, leave, shuffle, barrier };

struct Instruction;
struct Lanes;

// Does its work for the lanes of the mask.
using TableOp = void (*)(Lanes& lanes, const Instruction& instruction, LaneMask mask);

struct Instruction {
  TableOp run = nullptr;
  Control control = Control::none;
  Space space = Space::generic;
  bool has_guard = false;
  bool guard_negated = false;
  bool by_xor = false;     // a shuffle: the other lane's number is xor-ed, not given
  std::uint8_t count = 1;  // elements of a load or store
  std::uint8_t address_bytes = 8;
  int function = 0;
  int target = 0;    // of a branch an instruction, of a call its place among the program's calls
  int line = 0;      // of the PTX
  int location = 0;  // of the source
  std::uint32_t guard = 0;
  std::uint32_t results[4]{};
  Operand sources[5];
  std::int64_t offset = 0;  // added to an address
};

// Bytes that a call copies between the local memories of caller and callee.
struct Copy {
  std::size_t from = 0;
  std::size_t to = 0;
  std::size_t bytes = 0;
};

struct Call {
  int callee = 0;
  std::vector<Copy> arguments;
  std::vector<Copy> results;
};

struct Parameter {
  std::string name;
  std::size_t offset = 0;
  std::size_t bytes = 0;
};

struct Function {
  std::string name;
  bool is_kernel = false;
  bool is_defined = false;
  int first = 0;  // its instructions
  int end = 0;
  std::vector<Parameter> parameters;
  std::vector<Parameter> results;
  std::size_t parameter_bytes = 0;  // of a kernel
  std::size_t register_bytes = special::end;
  std::size_t local_bytes = 0;  // arrays, arguments of calls, and of a function its own parameters and results
  int max_threads = 1024;
};

// A line of the source, and the line that it was inlined at: the innermost one outside of device.h comes first.
struct Location {
  std::string place;  // "tiles.cu:619"
  std::string inlined_at;
};

// Everything that was read, of all files.
struct Program {
  std::vector<Function> functions;
  std::vector<Instruction> code;
  std::vector<Call> calls;
  std::vector<Location> locations{{"", ""}};
  std::map<std::string, int> kernels;  // by name

  // Memory that addresses in instructions point to: whatever is added later, it stays where it is.
  std::deque<std::vector<std::uint64_t>> constants;
};

// A name as people write it: demangled, without parameters and without the namespaces that all kernels share.
std::string readable_name(const std::string& mangled);

// The same without the arguments of templates.
std::string source_name(const std::string& mangled);

// Takes the barriers of a source line out of a kernel, all its instances: to see whether anybody misses them. Throws a
// Fault where there is none.
void remove_barriers(Program& program, const std::string& kernel, const std::string& place);

}  // namespace ketgrad::ptx
