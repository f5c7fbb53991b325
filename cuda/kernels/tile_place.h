// Where a thread is in a tile: which rows it has in each round, their indices and slots, and the signs of its groups.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/kernels/arithmetic.h"
#include "cuda/kernels/device.h"
#include "cuda/tables/tables.h"
#include "plan/gpu_layout.h"

namespace ketgrad::cuda {

inline constexpr int most_tile_threads = threads_of(30);
// Blocks that a multiprocessor shall hold: with more, or with more threads, the backward kernel would not fit into
// registers.
template <class T>
inline constexpr int blocks_held = sizeof(T) <= 4   ? 3
                                   : sizeof(T) <= 8 ? 2
                                                    : 1;

template <class T>
using Tile = Shared<Complex<T>>;

// Shared memory has tiles, then two tables of products of phases, then the tile's sign bits.
template <class T>
KETGRAD_HOST_DEVICE constexpr std::size_t tile_bytes(int tile_bits, int states) {
  return gpu_tile_bytes(padded_bits(tile_bits), states, sizeof(T));
}
static_assert(2 * most_layers * layer_products == gpu_table_numbers);
template <class T>
inline constexpr std::size_t product_bytes = gpu_table_numbers * sizeof(Complex<T>);

// --- where a thread is
// -------------------------------------------------------------------------------------------------

KETGRAD_DEVICE Local thread() { return static_cast<Local>(thread_index()); }
KETGRAD_DEVICE Local threads() { return static_cast<Local>(block_threads()); }
KETGRAD_DEVICE Local warp_lane() { return thread() % warp_size; }

// base + the sum of own[b] over the bits b of u
template <class V>
KETGRAD_DEVICE V thread_row_sum(V base, const V* own, int u) {
#pragma unroll
  for (int b = 0; b < thread_row_bits; ++b) base ^= ((u >> b) & 1) != 0 ? own[b] : 0;
  return base;
}

// In a round through a tile a thread has the rows `first row of the round` + thread + u * threads, u < thread_rows. The
// values of a linear map of coordinates at these rows: at the first, and what the bits of u add.
struct RowValues {
  Mask first = 0;
  Mask own[thread_row_bits] = {};

  KETGRAD_DEVICE Mask operator[](int u) const { return thread_row_sum(first, own, u); }
};

// Such a map; its value at this thread's first row is computed once for all tiles of a block.
struct RowMap {
  Range vectors;
  Mask first = 0;  // at this thread's first row in the first round

  KETGRAD_DEVICE static RowMap of(const TablesView& t, const Range& vectors, int thread_bits) {
    const int count = thread_bits < vectors.count ? thread_bits : vectors.count;
    return {vectors, combine(t.vectors + vectors.first, count, thread())};
  }

  KETGRAD_DEVICE RowValues in_round(const TablesView& t, Mask base, int thread_bits, int round) const {
    const Mask* above = t.vectors + vectors.first + thread_bits;
    RowValues values;
    values.first = base ^ first;
    if (round != 0)
      values.first ^= combine(above + thread_row_bits, vectors.count - thread_bits - thread_row_bits, round);
#pragma unroll
    for (int b = 0; b < thread_row_bits; ++b) values.own[b] = thread_bits + b < vectors.count ? above[b] : 0;
    return values;
  }
};

// A tile of the state of one sample, as one thread of its block sees it.
template <class T>
struct Place {
  TablesView t;
  int sample = 0;  // of the chunk; there are fewer blocks than 2^31
  int tile_bits = 0;
  bool whole = false;       // the tile is the state: coordinates are indices, and no sign depends on the tile
  bool everywhere = false;  // rows outside the support are visited too
  RowMap rows;
  Mask base = 0;  // the index of coordinate zero
  Shared<SignBits> tile_sign_bits;
  Shared<Complex<T>> products;  // of phases: those of this operation and of the previous one
  int products_begin = 0;
  Index partial = 0;   // this warp's, of each sum
  bool first = false;  // this is the block's first tile: no partial sum has been written

  KETGRAD_DEVICE Local size() const { return Local{1} << tile_bits; }
  KETGRAD_DEVICE Local padded_size() const { return Local{1} << padded_bits(tile_bits); }
  KETGRAD_DEVICE int thread_bits() const { return thread_bits_of(tile_bits); }

  // One of the pass's TileSignBits, and two of them as one mask.
  KETGRAD_DEVICE SignBits tile_signs(int number) const { return whole ? 0 : tile_sign_bits.get(number); }
  KETGRAD_DEVICE Mask tile_mask(int number) const {
    return tile_signs(number) | static_cast<Mask>(tile_signs(number + 1)) << 32;
  }

  // Signs that all groups of a warp share, and those of one group.
  KETGRAD_DEVICE SignBits signs_of_warp(const GroupSigns& s, Local group) const {
    return t.sign_bits[s.warps + group / warp_size] ^ tile_signs(s.tile);
  }
  KETGRAD_DEVICE SignBits signs_of(const GroupSigns& s, Local group) const {
    return t.sign_bits[s.warp_lanes + group % warp_size] ^ signs_of_warp(s, group);
  }
};

// The rows of one round.
struct Round {
  int number = 0;
  Local first = 0;  // this thread's first row
  Local group = 0;  // the number of the group that its rows are
};

template <class T, class F>
KETGRAD_DEVICE void for_each_round(const Place<T>& place, const F& f) {
  const Local rounds = place.padded_size() / (thread_rows * threads());
  for (Local n = 0; n < rounds; ++n)
    f(Round{static_cast<int>(n), n * thread_rows * threads() + thread(), n * threads() + thread()});
}

// Calls f(u, row, slot) for the rows of a round, padding included. Callers issue the loads of all rows before using the
// first.
template <class F>
KETGRAD_DEVICE void for_each_row(const Round& round, const F& f) {
  Local slots[thread_row_bits];
#pragma unroll
  for (int b = 0; b < thread_row_bits; ++b) slots[b] = slot(threads() << b);
  const Local first = slot(round.first);
#pragma unroll
  for (int u = 0; u < thread_rows; ++u)
    f(u, round.first + static_cast<Local>(u) * threads(), thread_row_sum(first, slots, u));
}

// The indices of the rows of a round.
template <class T>
KETGRAD_DEVICE RowValues indices(const Place<T>& place, const Round& round) {
  if (!place.whole) return place.rows.in_round(place.t, place.base, place.thread_bits(), round.number);
  RowValues rows;
  rows.first = round.first;
#pragma unroll
  for (int b = 0; b < thread_row_bits; ++b) rows.own[b] = threads() << b;
  return rows;
}

}  // namespace ketgrad::cuda
