// Memory for states and tables, kept for the next call when it is given back: fresh memory, which the system has to
// clear, would cost as much as a pass or two over the state.
//
// Large blocks come in large pages. While they are kept they are marked as free, for the system to take whenever it is
// short of memory.
#pragma once

#include <cstddef>

namespace ketgrad {

inline constexpr std::size_t line_bytes = 64;
inline constexpr std::size_t smallest_kept_block = std::size_t{16} << 10;
inline constexpr std::size_t smallest_large_block = std::size_t{4} << 20;
inline constexpr std::size_t kept_blocks_limit = std::size_t{2} << 30;  // bytes, all kept blocks together

// Aligned to a cache line, uninitialised. Throws std::bad_alloc.
void* take_block(std::size_t bytes);

// `block` came from take_block(bytes), or is null.
void give_back_block(void* block, std::size_t bytes) noexcept;

}  // namespace ketgrad
