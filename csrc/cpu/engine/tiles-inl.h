// Loops over the tiles of a state: rows are gathered, worked on, and scattered.
#pragma once

#include <algorithm>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include "cpu/engine/team-inl.h"
#include "cpu/kernels/phases-inl.h"

namespace ketgrad {
namespace {

// The rows of a tile. `place` is that of HugePageBuffer.
template <class T>
class TileRows {
 public:
  explicit TileRows(int place) : shift_(place * place_bytes / row_bytes) {}

  T* of_size(Index rows) {
    rows_.resize(rows + shift_);
    return reinterpret_cast<T*>(rows_.data() + shift_);
  }

 private:
  Index shift_;
  LaneVector<Row<T>> rows_;
};

// What one thread needs to work on a tile. V is the scalar for a single state, the vector of lanes for a batch.
template <class V>
struct Workspace {
  using T = Scalar<V>;
  static constexpr bool single = lane_width<V> == 1;
  using Cell = std::conditional_t<single, PairCell<T>, LaneCell<T>>;
  using Factor = std::conditional_t<single, PairCell<T>, PhaseFactor<Row<T>>>;

  TileRows<T> ket{0};  // a tile of each, where the state has several
  TileRows<T> bra{1};
  TileRows<T> ket_tangent{2};
  TileRows<T> bra_tangent{3};
  LaneVector<Factor> factors;
  LaneVector<PhaseFactor<T>> shared_factors;
  LaneVector<PhaseFactor<double>> exact_factors;
  LaneVector<Row<T>> products;
  LaneVector<Row<T>> more_products;
  // What `factors` holds: of which operation, version of its parameters, and signs of the tile.
  const void* filled_for = nullptr;
  Index filled_version = 0;
  std::vector<char> filled_signs;
  // Used while factors are computed.
  std::vector<char> signs;
  LaneVector<PhaseParameters<Row<T>>> strings;
  LaneVector<VaryingFactor<Row<T>>> varying;
};

// A pool of workspaces, one per thread that works on a pass; kept for the next pass.
template <class V>
class Workshop {
 public:
  Workspace<V>* take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) {
      all_.push_back(std::make_unique<Workspace<V>>());
      return all_.back().get();
    }
    Workspace<V>* found = free_.back();
    free_.pop_back();
    return found;
  }

  void give_back(Workspace<V>* workspace) {
    const std::lock_guard lock(mutex_);
    free_.push_back(workspace);
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace<V>>> all_;
  std::vector<Workspace<V>*> free_;
};

// The most chunks of tiles. Each has partial sums of its own, whatever the number of threads, so sums do not depend on
// it.
constexpr Index max_chunks = 32;

// V is the scalar for a single state, the vector of lanes for a batch, whose states are never cut into tiles.
template <class V>
class TileRunner {
  using T = Scalar<V>;

 public:
  static constexpr bool single = Workspace<V>::single;
  using Cell = typename Workspace<V>::Cell;
  using Sums = SignSums<Cell>;

  TileRunner(const Call<T>& call, const Team& team) : call_(call), team_(team) {}

  // Adds factor * sum of a vector's lanes, or lane by lane.
  static void add_sum(const Row<T>& v, const Row<T>& signs, double factor, double* out) {
    if constexpr (single) {
      out[0] += factor * static_cast<double>(sum_lanes(v * signs));
    } else {
      for (int l = 0; l < lane_width<V>; ++l) out[l] += factor * static_cast<double>(v[l]);
    }
  }

  // For long work on one tile. Polls every eighth time, because polling costs as much as a small operation.
  bool should_stop() { return (++asked_ & 7) == 0 && call_.should_stop(); }

  // Stops early when the call shall end. f(tile, workspace, sums) for tiles [0, count); the sums, `size` numbers, are
  // added to `out`.
  template <class F>
  void for_each(const auto& pass, Index count, Index size, double* out, const F& f) {
    const Index chunks = pass.tiles.size() == 1 ? 1 : std::min(count, max_chunks);
    std::vector<double> partial(chunks > 1 ? chunks * size : 0, 0.0);
    const auto chunk = [&](Index p) {
      Workspace<V>* work = workshop_.take();
      double* sums = chunks > 1 ? partial.data() + p * size : out;
      for (Index tile = p * count / chunks; tile < (p + 1) * count / chunks && !call_.should_stop(); ++tile)
        f(tile, *work, sums);
      workshop_.give_back(work);
    };
    if (chunks == 1) return chunk(0);
    team_.for_each(chunks, chunk);
    for (Index p = 0; p < chunks; ++p) {
      for (Index e = 0; e < size; ++e) out[e] += partial[p * size + e];
    }
  }

  // The rows of a tile: where they are, if it is the whole state, else copied to `tile`.
  T* gather(const auto& pass, Mask base, const T* state, TileRows<T>& tile) const {
    if (pass.tiles.size() == 1) return const_cast<T*>(state);
    T* const first = tile.of_size(pass.rows.size());
    T* out = first;
    // Rows are scattered, so hardware does not prefetch them; the indices of the first table wrap around.
    const Mask* const low = pass.rows.low_table();
    const Index last = std::min<Index>(pass.rows.size(), IndexMap::table_size) - 1;
    Index ahead = rows_ahead;
    for_each_index(pass.rows, pass.rows.size(), [&](Index offset) KETGRAD_ALWAYS_INLINE {
      const Mask index = static_cast<Mask>(offset) ^ base;
      __builtin_prefetch(state + 2 * ((low[ahead++ & last] ^ base) & ~lanes));
      store_row(out, trade_lanes(load_row(state + 2 * (index & ~lanes)), index & lanes));
      out += batch_lanes<T>;
    });
    return first;
  }

  void scatter(const auto& pass, Mask base, const T* rows, T* state) const {
    if (pass.tiles.size() == 1) return;
    const bool streams = pass.tiles.size() * pass.rows.size() * Index{sizeof(Row<T>)} >= smallest_streamed_state &&
                         reinterpret_cast<std::uintptr_t>(state) % sizeof(Row<T>) == 0;
    if (streams) {
      scatter_by(pass, base, rows, state, [](T* p, const Row<T>& v) { stream_row<T>(p, v); });
      finish_streaming();
    } else {
      scatter_by(pass, base, rows, state, [](T* p, const Row<T>& v) { store_row(p, v); });
    }
  }

  // A tile of zeros, instead of gathering zeros.
  T* zeros(const auto& pass, T* state, TileRows<T>& tile) const {
    const bool is_cut = pass.tiles.size() > 1;
    T* const first = is_cut ? tile.of_size(pass.rows.size()) : state;
    std::fill(first, first + pass.rows.size() * (is_cut || Cell::is_pair ? 1 : 2) * batch_lanes<T>, T(0));
    return first;
  }

 private:
  // In bytes. Larger states are in no cache when the next pass reads them.
  static constexpr Index smallest_streamed_state = Index{64} << 20;

  static constexpr Mask lanes = unit(Sums::lane_bits) - 1;

  static constexpr Index rows_ahead = 24;

  void scatter_by(const auto& pass, Mask base, const T* rows, T* state, const auto& store) const {
    for_each_index(pass.rows, pass.rows.size(), [&](Index offset) KETGRAD_ALWAYS_INLINE {
      const Mask index = static_cast<Mask>(offset) ^ base;
      store(state + 2 * (index & ~lanes), trade_lanes(load_row(rows), index & lanes));
      rows += batch_lanes<T>;
    });
  }

  const Call<T>& call_;
  const Team& team_;
  Workshop<V> workshop_;
  unsigned asked_ = 0;
};

}  // namespace
}  // namespace ketgrad
