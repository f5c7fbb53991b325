// The shape of a tile on a GPU: how many threads a block has, which rows a thread holds, where they lie in shared
// memory.
//
// A row is one amplitude. In a tile it has coordinates (bits of a number below 2^tile_bits) and a slot in shared
// memory.
#pragma once

#include <cstdint>

#include "math/host_device.h"

namespace ketgrad::cuda {

using Local = std::uint32_t;  // coordinates, slots and masks within a tile

// A thread holds this many amplitudes at a time: a group of rows. Three bits number the rows of a group.
inline constexpr int thread_row_bits = 3;
inline constexpr int thread_rows = 1 << thread_row_bits;

// A warp has 2^5 lanes.
inline constexpr int warp_lane_bits = 5;

// Groups of a tile. A tile of fewer rows than a thread holds is one group, padded with zeros.
KETGRAD_HOST_DEVICE constexpr int group_bits_of(int tile_bits) {
  return tile_bits < thread_row_bits ? 0 : tile_bits - thread_row_bits;
}

// Threads of a block, as a power of two: whole warps, and no more than leave each enough registers for the backward
// pass.
KETGRAD_HOST_DEVICE constexpr int thread_bits_of(int tile_bits) {
  return group_bits_of(tile_bits) < warp_lane_bits ? warp_lane_bits
         : group_bits_of(tile_bits) > 8            ? 8
                                                   : group_bits_of(tile_bits);
}
KETGRAD_HOST_DEVICE constexpr int threads_of(int tile_bits) { return 1 << thread_bits_of(tile_bits); }

// Rows in shared memory: a tile, padded with zeros to as many as the threads of a block hold.
KETGRAD_HOST_DEVICE constexpr int padded_bits(int tile_bits) {
  const int held = thread_bits_of(tile_bits) + thread_row_bits;
  return tile_bits < held ? held : tile_bits;
}

// Where coordinates lie in shared memory, a linear map over GF(2). The threads of a warp access coordinates that differ
// in any few bits, and the lowest four bits of a slot choose the bank: the other bits are folded onto these by
// different multiples in the field of 16 elements, so that no two bits, and few sums of bits, map to the same bank.
KETGRAD_HOST_DEVICE constexpr Local slot(Local coordinates) {
  // Nibble v is v times 3, 5 and 15, modulo x^4 + x + 1.
  constexpr std::uint64_t by_3 = 0x2147ed8b9afc5630;
  constexpr std::uint64_t by_5 = 0x63c914be8d27fa50;
  constexpr std::uint64_t by_15 = 0xa5783ce1b4692df0;
  const auto folded = [](std::uint64_t multiples, Local nibble) {
    return static_cast<Local>(multiples >> (4 * (nibble & 15))) & 15;
  };
  return coordinates ^ folded(by_3, coordinates >> 4) ^ folded(by_5, coordinates >> 8) ^
         folded(by_15, coordinates >> 12);
}

}  // namespace ketgrad::cuda
