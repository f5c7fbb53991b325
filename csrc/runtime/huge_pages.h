// A pool of buffers for states and tables: buffers that are given back are kept for the next call. Fresh memory, which
// the system has to clear, costs as much as one or two passes over the state.
//
// Large buffers are in huge pages. While in the pool they are marked MADV_FREE, so that the system may reclaim them.
#pragma once

#include <cstddef>

namespace ketgrad {

inline constexpr std::size_t line_bytes = 64;
// In bytes. Buffers below the first are kept in size classes; the limit is for all others together.
inline constexpr std::size_t smallest_kept_buffer = std::size_t{16} << 10;
inline constexpr std::size_t smallest_large_buffer = std::size_t{4} << 20;
inline constexpr std::size_t kept_buffers_limit = std::size_t{2} << 30;

// Aligned to a cache line, uninitialised. Throws std::bad_alloc.
void* take_buffer(std::size_t bytes);

// `buffer` is from take_buffer(bytes), or null.
void give_back_buffer(void* buffer, std::size_t bytes) noexcept;

}  // namespace ketgrad
