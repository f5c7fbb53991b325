// Memory for lanes: aligned to a cache line, which a vector of lanes fills.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "core/bits.h"

namespace ketgrad {

inline constexpr std::align_val_t line_alignment{64};

// std::allocator does not see the alignment of a vector type once it is a template argument.
template <class V>
struct LineAllocator {
  using value_type = V;

  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}  // NOLINT: allocators convert

  V* allocate(std::size_t n) { return static_cast<V*>(::operator new(n * sizeof(V), line_alignment)); }
  void deallocate(V* p, std::size_t) { ::operator delete(p, line_alignment); }

  friend bool operator==(const LineAllocator&, const LineAllocator&) { return true; }
};

template <class V>
using LaneVector = std::vector<V, LineAllocator<V>>;

// Asks for large pages: tiles gather rows from all over a state, and each would miss the translation of its address.
// Advice only; call it before the memory is touched.
inline void advise_large_pages(void* memory, std::size_t bytes) {
#if defined(__linux__)
  constexpr std::uintptr_t page = std::uintptr_t{1} << 21;
  const std::uintptr_t first = (reinterpret_cast<std::uintptr_t>(memory) + page - 1) & ~(page - 1);
  const std::uintptr_t last = (reinterpret_cast<std::uintptr_t>(memory) + bytes) & ~(page - 1);
  if (first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#else
  (void)memory;
  (void)bytes;
#endif
}

// A state, left uninitialised.
template <class V>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index size)
      : data_(static_cast<V*>(::operator new(static_cast<std::size_t>(size) * sizeof(V), line_alignment))) {
    advise_large_pages(data_, static_cast<std::size_t>(size) * sizeof(V));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { ::operator delete(data_, line_alignment); }

  V* data() const { return data_; }

 private:
  V* data_ = nullptr;
};

}  // namespace ketgrad
