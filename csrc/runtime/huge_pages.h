// Memory for states and tables, kept for the next call when it is given back: fresh memory, which the system has to
// clear, would cost as much as a pass or two over the state.
//
// Large buffers come in large pages. While they are kept they are marked as free, for the system to take whenever
// it is short of memory.
#pragma once

#include <cstddef>

namespace ketgrad {

inline constexpr std::size_t line_bytes = 64;
inline constexpr std::size_t smallest_kept_buffer = std::size_t{16} << 10;
inline constexpr std::size_t smallest_large_buffer = std::size_t{4} << 20;
inline constexpr std::size_t kept_buffers_limit = std::size_t{2} << 30;  // bytes, all kept buffers together

// Aligned to a cache line, uninitialised. Throws std::bad_alloc.
void* take_buffer(std::size_t bytes);

// `buffer` came from take_buffer(bytes), or is null.
void give_back_buffer(void* buffer, std::size_t bytes) noexcept;

}  // namespace ketgrad
