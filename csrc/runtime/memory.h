// Does it fit? Asked before anything is allocated, so that a circuit on too many wires gets an answer instead of a
// swapping machine.
#pragma once

#include <cstdint>
#include <new>
#include <string>

namespace ketgrad {

// A std::bad_alloc (MemoryError in Python) that says how much was asked for.
class OutOfMemory : public std::bad_alloc {
 public:
  explicit OutOfMemory(std::string message) : message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  std::string message_;
};

// Bytes that this process could still take; the largest integer where the system does not tell.
std::int64_t available_memory();

// Asking the system costs more than a small call; what is this small fits anywhere. Bytes.
inline constexpr double always_fits = 64.0 * (1 << 20);

// Throws OutOfMemory, naming `what` (which "needs" them), where `bytes` are more than there are.
void require_memory(double bytes, const std::string& what);

}  // namespace ketgrad
