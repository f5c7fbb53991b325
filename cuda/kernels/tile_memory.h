// A tile on its way from and to the state in global memory, of which only the rows in the support count.
#pragma once

#include "cuda/kernels/tile_place.h"
#include "plan/initial_amplitudes.h"

namespace ketgrad::cuda {

// Which rows of a tile may be non-zero.
template <class T>
class SupportRows {
 public:
  KETGRAD_DEVICE SupportRows(const Place<T>& place, const SupportMap& support)
      : place_(place), everywhere_(place.whole || place.everywhere || support.everywhere != 0) {
    if (everywhere_) return;
    map_ = RowMap::of(place.t, support.rows, place.thread_bits());
    base_ = place.tile_mask(support.tile);
  }

  // Calls f(u, slot, index, in_support) for the rows of a round.
  template <class F>
  KETGRAD_DEVICE void for_each(const Round& round, const F& f) const {
    const RowValues index = indices(place_, round);
    const auto is_in_tile = [&](Local row) { return row < place_.size(); };
    if (everywhere_) {
      for_each_row(round, [&](int u, Local row, Local s) { f(u, s, static_cast<Index>(index[u]), is_in_tile(row)); });
    } else {
      const RowValues outside = map_.in_round(place_.t, base_, place_.thread_bits(), round.number);
      for_each_row(round, [&](int u, Local row, Local s) {
        f(u, s, static_cast<Index>(index[u]), outside[u] == 0 && is_in_tile(row));
      });
    }
  }

 private:
  const Place<T>& place_;
  bool everywhere_;
  RowMap map_;
  Mask base_ = 0;
};
// Rows outside the support are zero, whatever is in memory.
template <class T>
KETGRAD_DEVICE void load_tile(const Place<T>& place, const SupportMap& support, const Complex<T>* state,
                              Tile<T>& tile) {
  const SupportRows<T> support_rows(place, support);
  for_each_round(place, [&](const Round& round) {
    Complex<T> rows[thread_rows];
    support_rows.for_each(
        round, [&](int u, Local, Index index, bool in_support) { rows[u] = in_support ? state[index] : Complex<T>{}; });
    for_each_row(round, [&](int u, Local, Local s) { tile.set(s, rows[u]); });
  });
}

template <class T>
KETGRAD_DEVICE void store_tile(const Place<T>& place, const SupportMap& support, const Tile<T>& tile, Real<T> sign,
                               Complex<T>* state) {
  const SupportRows<T> support_rows(place, support);
  for_each_round(place, [&](const Round& round) {
    support_rows.for_each(round, [&](int, Local s, Index index, bool in_support) {
      const Complex<T> row = tile.get(s);
      if (in_support) state[index] = {sign * row.re, sign * row.im};
    });
  });
}

template <class T>
KETGRAD_DEVICE void prepare_tile(const Place<T>& place, const InitialAmplitudes& initial, Tile<T>& tile) {
  for_each_round(place, [&](const Round& round) {
    const RowValues index = indices(place, round);
    for_each_row(round, [&](int u, Local row, Local s) {
      const double amplitude = row < place.size() ? initial.amplitude(static_cast<Index>(index[u])) : 0;
      tile.set(s, {static_cast<T>(amplitude), T(0)});
    });
  });
}

}  // namespace ketgrad::cuda
