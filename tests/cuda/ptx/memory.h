// Loads and stores, and the memory that a block can see: what is wrong with an access is found here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "ptx/instructions.h"
#include "ptx/program.h"
#include "ptx/races.h"

namespace ketgrad::ptx {

// The memory of each thread of a warp in the functions that it has entered.
class LocalMemory {
 public:
  // The first thread's; the next ones follow, each with as many bytes.
  std::byte* add(int function, std::size_t bytes_each);
  std::byte* of(int function, int lane) const;
  bool contains(std::uint64_t address, std::size_t bytes, int lane) const;
  void clear() { arrays_.clear(); }

 private:
  struct Array {
    int function;
    std::size_t bytes_each;
    std::vector<std::uint64_t> memory;
  };

  std::vector<Array> arrays_;
};

// What a thread asks memory for.
struct Access {
  Space space = Space::generic;
  bool writes = false;
  std::uint64_t address = 0;
  std::size_t bytes = 0;
};

class Memory {
 public:
  void begin_launch(const std::vector<std::uint64_t>& parameters);
  void begin_block(std::int64_t block, std::size_t shared_bytes);
  void pass_barrier() { ++epoch_; }

  // Where the bytes are. Throws a Misuse.
  std::byte* find(const Lanes& lanes, int lane, const Access& access);

  std::int64_t accesses() const { return accesses_; }

 private:
  std::byte* find_shared(int lane, const Actor& actor, const Access& access);
  std::byte* find_global(int lane, const Actor& actor, const Access& access);
  bool is_parameter(const Access& access) const;

  const std::vector<std::uint64_t>* parameters_ = nullptr;
  std::int64_t block_ = 0;
  std::int32_t epoch_ = 0;
  std::size_t shared_bytes_ = 0;
  std::vector<std::uint64_t> shared_;
  SharedHistory shared_history_;
  GlobalHistory global_history_;
  std::int64_t accesses_ = 0;
};

// What an opcode's type means for a load into a register of so many bytes; null where there is no such load.
TableOp find_load(std::string_view type, int register_bytes);
TableOp find_store(std::string_view type);
TableOp find_atomic_add(std::string_view type);

// Bytes of a type's register, as stores and parameters have it; 0 where the type is not known.
int type_bytes(std::string_view type);

}  // namespace ketgrad::ptx
