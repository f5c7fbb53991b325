// How states are cut into tiles on a GPU. Decided here, so that a machine without one can say what a plan would be.
#pragma once

#include <cstddef>

#include "core/plan.h"

namespace ketgrad {

// Shared memory is not all for tiles.
inline constexpr std::size_t reserved_shared_bytes = 1024;

// Bytes that tiles of so many states take in shared memory.
constexpr std::size_t gpu_tile_bytes(int tile_bits, int states, int number_bytes) {
  return static_cast<std::size_t>(2 * states * number_bytes) << tile_bits;
}

// A state is one tile where ket and bra fit into the shared memory of a block: a whole circuit is one launch. A larger
// one is cut into tiles that leave room for a second block, which loads while the first one computes; 128 neighbouring
// bytes, which memory hands out at once, stay together.
Layout gpu_layout(int num_wires, int number_bytes, std::size_t shared_bytes);

}  // namespace ketgrad
