// The kernels on tiles, and their launches. What a kernel does is in the headers tile_*.h, one for each room.
#include "cuda/kernels/tiles.h"

#include <algorithm>

#include "cuda/kernels/tile_block.h"
#include "cuda/kernels/tile_memory.h"
#include "cuda/kernels/tile_ops.h"
#include "cuda/kernels/tile_pauli_words.h"
#include "cuda/kernels/tile_place.h"

namespace ketgrad::cuda {

namespace {

// --- kernels ---------------------------------------------------------------------------------------------------------

template <class T>
KETGRAD_KERNEL KETGRAD_BOUNDS(most_tile_threads, blocks_held<T>)
    forward_kernel(TileCall<T> c, TileGrid grid, ForwardTiles<T> f, int tile_bits, Range groups) {
  const TablesView& t = c.t;
  const TablePass& pass = t.passes[f.first_pass];
  TileBlock<T> block(c, grid, tile_bits, 1, pass, f.partials_each);
  Place<T>& place = block.place();
  const Index state = static_cast<Index>(place.sample) << c.num_bits;
  const SampleParameters<T> parameters{c.rotations + static_cast<Index>(place.sample) * t.rotations,
                                       c.phases + place.sample * c.strings};
  block.for_each_tile([&] {
    Tile<T> ket(0, place.padded_size());
    if (f.prepares) {
      prepare_tile(place, f.initial, ket);
    } else {
      load_tile(place, pass.before, static_cast<const Complex<T>*>(f.ket) + state, ket);
    }
    Real<T> sign = 1;
    for (int p = f.first_pass; p < f.end_pass; ++p) {
      const Range operations = t.passes[p].operations;
      for (int k = operations.first; k < operations.first + operations.count; ++k)
        apply(t.operations[k], parameters, place, ket, sign);
    }
    barrier();
    if (f.into != nullptr) store_tile(place, SupportMap{}, ket, sign, f.into + state);
    if (f.measures) add_pauli_word_values(groups, place, ket, f.partials, c.samples.count * f.partials_each);
  });
}

template <class T>
KETGRAD_KERNEL KETGRAD_BOUNDS(most_tile_threads, blocks_held<T>)
    backward_kernel(TileCall<T> c, TileGrid grid, BackwardTiles<T> b, int tile_bits, Range groups,
                    Index num_pauli_words) {
  const TablesView& t = c.t;
  const TablePass& pass = t.passes[b.first_pass];
  TileBlock<T> block(c, grid, tile_bits, 2, pass, b.overlap_partials);
  Place<T>& place = block.place();
  const Index state = static_cast<Index>(place.sample) << c.num_bits;
  const Index stride = c.samples.count * b.overlap_partials;
  const SampleParameters<T> parameters{c.rotations + static_cast<Index>(place.sample) * t.rotations,
                                       c.phases + place.sample * c.strings};
  block.for_each_tile([&] {
    Tile<T> ket(0, place.padded_size());
    Tile<T> bra(tile_bytes<T>(tile_bits, 1), place.padded_size());
    load_tile(place, pass.after, b.source + state, ket);
    if (b.reads_bra) load_tile(place, pass.after, static_cast<const Complex<T>*>(b.bra) + state, bra);
    if (b.weights != nullptr) {
      barrier();
      for_each_round(place, [&](const Round& round) {
        Complex<T> rows[thread_rows];
        pauli_word_rows(groups, place, round, ket, b.weights + place.sample * num_pauli_words, rows);
        for_each_row(round, [&](int u, Local, Local s) { bra.set(s, b.reads_bra ? bra.get(s) + rows[u] : rows[u]); });
      });
    }
    Real<T> sign = 1;
    for (int p = b.end_pass - 1; p >= b.first_pass; --p) {
      const Range operations = t.passes[p].operations;
      for (int k = operations.first + operations.count - 1; k >= operations.first; --k)
        undo(t.operations[k], parameters, place, ket, bra, sign, b.overlaps, stride);
    }
    barrier();
    // Rows that earlier passes do not visit need not be written.
    if (b.ket != nullptr) store_tile(place, pass.before, ket, sign, b.ket + state);
    if (b.writes_bra) store_tile(place, pass.before, bra, sign, b.bra + state);
  });
}

template <class T>
KETGRAD_KERNEL KETGRAD_BOUNDS(most_tile_threads, blocks_held<T>)
    measure_kernel(TileCall<T> c, TileGrid grid, PauliWordPass pass, const Complex<T>* kets, Accum<T>* partials,
                   Index partials_each) {
  TileBlock<T> block(c, grid, pass.tile_bits, 1, pass, partials_each);
  Place<T>& place = block.place();
  block.for_each_tile([&] {
    Tile<T> ket(0, place.padded_size());
    load_tile(place, SupportMap{}, kets + (static_cast<Index>(place.sample) << c.num_bits), ket);
    barrier();
    add_pauli_word_values(pass.groups, place, ket, partials, c.samples.count * partials_each);
  });
}

template <class T>
KETGRAD_KERNEL KETGRAD_BOUNDS(most_tile_threads, blocks_held<T>)
    bra_kernel(TileCall<T> c, TileGrid grid, PauliWordPass pass, const Complex<T>* kets, Complex<T>* bras,
               const T* weights, Index num_pauli_words, bool begins) {
  TileBlock<T> block(c, grid, pass.tile_bits, 1, pass, grid.partials());
  Place<T>& place = block.place();
  const Index state = static_cast<Index>(place.sample) << c.num_bits;
  block.for_each_tile([&] {
    Tile<T> ket(0, place.padded_size());
    load_tile(place, SupportMap{}, kets + state, ket);
    barrier();
    for_each_round(place, [&](const Round& round) {
      Complex<T> rows[thread_rows];
      pauli_word_rows(pass.groups, place, round, ket, weights + place.sample * num_pauli_words, rows);
      const RowValues index = indices(place, round);
      if (!begins) {
        Complex<T> found[thread_rows];
        for_each_row(round, [&](int u, Local row, Local) {
          found[u] = row < place.size() ? bras[state + static_cast<Index>(index[u])] : Complex<T>{};
        });
#pragma unroll
        for (int u = 0; u < thread_rows; ++u) rows[u] += found[u];
      }
      for_each_row(round, [&](int u, Local row, Local) {
        if (row < place.size()) bras[state + static_cast<Index>(index[u])] = rows[u];
      });
    });
  });
}

Range all_groups(const Tables& tables) {
  return tables.pauli_word_passes.empty() ? Range{} : tables.pauli_word_passes[0].groups;
}

// The tiles that a launch goes through, and how many sign bits each has.
struct TileShape {
  int tile_bits = 0;
  Index tiles = 1;
  int sign_bits = 0;

  template <class Pass>
  static TileShape of(const Tables& tables, const Pass& pass) {
    return {pass.tile_bits, pass.tiles, pass.tile_bits < tables.num_wires ? pass.tile_sign_bits.count : 0};
  }

  // Of the passes from `first` on; whole states if there are none.
  static TileShape of(const Tables& tables, int first, int end) {
    return first < end ? of(tables, tables.passes[first]) : TileShape{tables.num_wires};
  }

  // Of shared memory, for tiles of this many states.
  template <class T>
  std::size_t bytes(int states) const {
    return tile_bytes<T>(tile_bits, states) + product_bytes<T> + sign_bits * sizeof(SignBits);
  }
};

// A launch on tiles of this many states.
template <class T, class... Parameters, class... Arguments>
void launch_tiles(const Queue& queue, const TileCall<T>& call, const TileShape& shape, int states,
                  void (*kernel)(Parameters...), const Arguments&... arguments) {
  const TileGrid grid = grid_of(shape.tile_bits, shape.tiles, call.chunk, call.multiprocessors);
  launch(queue, call.samples.count * grid.parts, grid.threads, shape.bytes<T>(states), kernel, call, grid,
         arguments...);
}

}  // namespace

template <class T>
std::size_t most_shared_bytes(const Tables& tables) {
  std::size_t most = 0;
  for (const TablePass& pass : tables.passes) {
    if (pass.gate_op == no_gate_op) most = std::max(most, TileShape::of(tables, pass).bytes<T>(2));
  }
  for (const PauliWordPass& pass : tables.pauli_word_passes)
    most = std::max(most, TileShape::of(tables, pass).bytes<T>(1));
  return most;
}

TileGrid grid_of(int tile_bits, Index tiles, Index samples, int multiprocessors) {
  // A multiple of the blocks that a multiprocessor holds, one to three, so that all end together.
  constexpr Index blocks_each = 6;
  TileGrid grid;
  grid.tiles = tiles;
  grid.parts = std::clamp<Index>(blocks_each * multiprocessors / std::max<Index>(samples, 1), 1, grid.tiles);
  grid.threads = threads_of(tile_bits);
  return grid;
}

template <class T>
void run_forward(const Queue& queue, const Tables& tables, const TileCall<T>& call, const ForwardTiles<T>& f) {
  const TileShape shape = TileShape::of(tables, f.first_pass, f.end_pass);
  launch_tiles(queue, call, shape, 1, forward_kernel<T>, f, shape.tile_bits, all_groups(tables));
}

template <class T>
void run_backward(const Queue& queue, const Tables& tables, const TileCall<T>& call, const BackwardTiles<T>& b) {
  const TileShape shape = TileShape::of(tables, b.first_pass, b.end_pass);
  launch_tiles(queue, call, shape, 2, backward_kernel<T>, b, shape.tile_bits, all_groups(tables),
               static_cast<Index>(tables.pauli_words.size()));
}

template <class T>
void measure_pauli_words(const Queue& queue, const Tables& tables, const TileCall<T>& call, int pauli_word_pass,
                         const Complex<T>* ket, Accum<T>* partials, Index partial_stride) {
  const PauliWordPass& pass = tables.pauli_word_passes[pauli_word_pass];
  launch_tiles(queue, call, TileShape::of(tables, pass), 1, measure_kernel<T>, pass, ket, partials, partial_stride);
}

template <class T>
void add_pauli_words(const Queue& queue, const Tables& tables, const TileCall<T>& call, int pauli_word_pass,
                     const Complex<T>* ket, Complex<T>* bra, const T* weights, bool begins) {
  const PauliWordPass& pass = tables.pauli_word_passes[pauli_word_pass];
  launch_tiles(queue, call, TileShape::of(tables, pass), 1, bra_kernel<T>, pass, ket, bra, weights,
               static_cast<Index>(tables.pauli_words.size()), begins);
}

#define KETGRAD_TILES(T)                                                                                              \
  template std::size_t most_shared_bytes<T>(const Tables&);                                                           \
  template void run_forward(const Queue&, const Tables&, const TileCall<T>&, const ForwardTiles<T>&);                 \
  template void run_backward(const Queue&, const Tables&, const TileCall<T>&, const BackwardTiles<T>&);               \
  template void measure_pauli_words(const Queue&, const Tables&, const TileCall<T>&, int, const Complex<T>*,          \
                                    Accum<T>*, Index);                                                                \
  template void add_pauli_words(const Queue&, const Tables&, const TileCall<T>&, int, const Complex<T>*, Complex<T>*, \
                                const T*, bool);
KETGRAD_FOR_NUMBERS(KETGRAD_TILES)
#undef KETGRAD_TILES

}  // namespace ketgrad::cuda
