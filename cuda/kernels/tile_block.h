// How a thread block goes through its share of a sample's tiles.
#pragma once

#include "cuda/kernels/tile_place.h"
#include "cuda/kernels/tiles.h"

namespace ketgrad::cuda {

// A thread block and its tiles. Sums have `partials_each` partial sums for each sample; a grid with fewer leaves the
// rest untouched, which are zero.
template <class T>
class TileBlock {
 public:
  // `pass` has where the tiles are; it is not read where a tile is the state.
  template <class Pass>
  KETGRAD_DEVICE TileBlock(const TileCall<T>& c, const TileGrid& grid, int tile_bits, int states, const Pass& pass,
                           Index partials_each)
      : tile_sign_bits_(pass.tile_sign_bits),
        bits_(c.num_bits - tile_bits),
        parts_(static_cast<int>(grid.parts)),
        part_(static_cast<int>(block_index()) % parts_),
        place_{c.t,
               static_cast<int>(block_index()) / parts_,
               tile_bits,
               tile_bits >= c.num_bits,
               *c.some_nan != 0,
               {},
               0,
               {tile_bytes<T>(tile_bits, states) + product_bytes<T>,
                tile_bits >= c.num_bits ? 0 : pass.tile_sign_bits.count},
               {tile_bytes<T>(tile_bits, states), gpu_table_numbers}} {
    end_ = place_.everywhere ? 1 << bits_ : static_cast<int>(grid.tiles);
    const int warps = block_threads() / warp_size;
    place_.partial = place_.sample * partials_each + part_ * warps + thread_index() / warp_size;
    if (!place_.whole) place_.rows = RowMap::of(c.t, pass.rows, place_.thread_bits());
  }

  KETGRAD_DEVICE Place<T>& place() { return place_; }

  // Calls f() for each tile of this block, with `place` there.
  template <class F>
  KETGRAD_DEVICE void for_each_tile(const F& f) {
    for (int tile = part_; tile < end_; tile += parts_) {
      place_.first = tile == part_;
      if (!place_.whole) {
        write_signs(tile);
        barrier();
        place_.base = place_.tile_mask(tile_sign_bits_.base);
      }
      f();
      barrier();  // the next tile overwrites this one
    }
  }

 private:
  KETGRAD_DEVICE void write_signs(int tile) {
    const TileSignBits all = tile_sign_bits_;
    for (int k = thread_index(); k < all.count; k += block_threads()) {
      const SignBits* of_bits = place_.t.sign_bits + all.first + k;
      SignBits signs = of_bits[0];
      for (int b = 0; b < bits_; ++b)
        signs ^= of_bits[(b + 1) * all.count] & (0u - static_cast<SignBits>((tile >> b) & 1));
      place_.tile_sign_bits.set(k, signs);
    }
  }

  const TileSignBits& tile_sign_bits_;
  int bits_;  // of a tile's number
  int parts_;
  int part_;
  int end_ = 1;
  Place<T> place_;
};

}  // namespace ketgrad::cuda
