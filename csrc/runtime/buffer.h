// Memory for vectors of lanes, aligned to a cache line: the size of the longest vector.
#pragma once

#include <cstddef>
#include <vector>

#include "math/bits.h"
#include "runtime/huge_pages.h"

namespace ketgrad {

// A vector type loses its alignment attribute as a template argument, so std::allocator would not align to it.
template <class V>
struct LineAllocator {
  using value_type = V;

  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}  // NOLINT: allocators convert

  V* allocate(std::size_t n) { return static_cast<V*>(take_buffer(n * sizeof(V))); }
  void deallocate(V* p, std::size_t n) { give_back_buffer(p, n * sizeof(V)); }

  friend bool operator==(const LineAllocator&, const LineAllocator&) { return true; }
};

template <class V>
using LaneVector = std::vector<V, LineAllocator<V>>;

inline constexpr int place_bytes = 16 * static_cast<int>(line_bytes);

// Uninitialised memory for a state. `place` numbers the states that a sweep uses together and shifts each by some cache
// lines: rows of a group are powers of two apart and share a cache set, and those of ket and bra would share it too.
template <class V>
class HugePageBuffer {
 public:
  HugePageBuffer() = default;
  explicit HugePageBuffer(Index size, int place = 0)
      : shift_(static_cast<std::size_t>(place) * place_bytes),
        bytes_(static_cast<std::size_t>(size) * sizeof(V) + shift_),
        buffer_(static_cast<std::byte*>(take_buffer(bytes_))) {}
  HugePageBuffer(const HugePageBuffer&) = delete;
  HugePageBuffer& operator=(const HugePageBuffer&) = delete;
  ~HugePageBuffer() { give_back_buffer(buffer_, bytes_); }

  V* data() const { return reinterpret_cast<V*>(buffer_ + shift_); }

 private:
  std::size_t shift_ = 0;
  std::size_t bytes_ = 0;
  std::byte* buffer_ = nullptr;
};

}  // namespace ketgrad
