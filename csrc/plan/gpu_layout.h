// How states are cut into tiles on a GPU. Decided here, so that a machine without one can say what a plan would be.
#pragma once

#include <cstddef>

#include "plan/plan.h"

namespace ketgrad {

// Bytes in shared memory of one tile each of `states` states.
constexpr std::size_t gpu_tile_bytes(int tile_bits, int states, int number_bytes) {
  return static_cast<std::size_t>(2 * states * number_bytes) << tile_bits;
}

// Shared memory is not all for tiles: kernels keep tables of complex numbers beside them, and a block needs some
// itself.
inline constexpr int gpu_table_numbers = 512;
inline constexpr std::size_t reserved_shared_bytes = 1024;

// Whether a block's shared memory holds ket and bra in tiles of this size.
constexpr bool gpu_holds(int tile_bits, int number_bytes, std::size_t shared_bytes) {
  const std::size_t tables = static_cast<std::size_t>(2 * gpu_table_numbers) * number_bytes;
  return gpu_tile_bytes(tile_bits, 2, number_bytes) + tables + reserved_shared_bytes <= shared_bytes;
}

// A state is one tile where ket and bra fit into the shared memory of a block: a whole circuit is one launch. A larger
// one is cut into tiles that leave room for a second block, which loads while the first one computes; 128 neighbouring
// bytes, one memory transaction, stay together.
Layout gpu_layout(int num_wires, int number_bytes, std::size_t shared_bytes);

}  // namespace ketgrad
