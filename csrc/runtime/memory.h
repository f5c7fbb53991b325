// Checks of free memory before anything is allocated, so that a circuit on too many wires raises an error instead of
// making the machine swap.
#pragma once

#include <cstdint>
#include <new>
#include <string>

namespace ketgrad {

// A std::bad_alloc (MemoryError in Python) whose message has the bytes.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

// Bytes that this process could still allocate (on macOS: all memory); the largest integer if the system does not say.
std::int64_t available_memory();

// Bytes up to which memory is not checked: asking the system takes longer than a small call.
inline constexpr double always_fits = 64.0 * (1 << 20);

// Whether `bytes` could be allocated.
bool fits_memory(double bytes);

// Throws OutOfMemory ("`what` needs `bytes`, … are available") if `bytes` exceed the available memory.
void require_memory(double bytes, const std::string& what);

}  // namespace ketgrad
