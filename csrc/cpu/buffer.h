// Memory for lanes: aligned to a cache line, which a vector of lanes fills.
#pragma once

#include <cstddef>
#include <vector>

#include "core/bits.h"
#include "core/blocks.h"

namespace ketgrad {

// std::allocator does not see the alignment of a vector type once it is a template argument.
template <class V>
struct LineAllocator {
  using value_type = V;

  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}  // NOLINT: allocators convert

  V* allocate(std::size_t n) { return static_cast<V*>(take_block(n * sizeof(V))); }
  void deallocate(V* p, std::size_t n) { give_back_block(p, n * sizeof(V)); }

  friend bool operator==(const LineAllocator&, const LineAllocator&) { return true; }
};

template <class V>
using LaneVector = std::vector<V, LineAllocator<V>>;

// A state, left uninitialised.
template <class V>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index size)
      : bytes_(static_cast<std::size_t>(size) * sizeof(V)), data_(static_cast<V*>(take_block(bytes_))) {}
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { give_back_block(data_, bytes_); }

  V* data() const { return data_; }

 private:
  std::size_t bytes_ = 0;
  V* data_ = nullptr;
};

}  // namespace ketgrad
