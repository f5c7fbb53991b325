#include "cuda/tiles.h"

#include <algorithm>

#include "core/gpu_layout.h"

namespace ketgrad::cuda {

namespace {

constexpr int most_threads = threads_of(30);
// Blocks that a multiprocessor shall hold: with more, or with more threads, the way back would not fit into registers.
template <class T>
constexpr int blocks_held = sizeof(T) <= 4   ? 3
                            : sizeof(T) <= 8 ? 2
                                             : 1;

template <class T>
using Tile = Shared<Complex<T>>;

// A tile of the state of one sample, as one block sees it.
struct Place {
  Index sample = 0;
  Mask base = 0;
  int tile_bits = 0;
  bool whole = false;  // the tile is the state, and coordinates are indices
  Map rows;
  Index piece = 0;     // of sums, this warp's
  bool first = false;  // no piece has been written before

  KETGRAD_DEVICE Local size() const { return Local{1} << tile_bits; }
  KETGRAD_DEVICE Index index(const TablesView& t, Local r) const {
    return whole ? static_cast<Index>(r) : static_cast<Index>(base) ^ at(t, rows, r);
  }
};

// This thread's rows of one round through the tile: first + u * threads, u < own_rows. The two have no bit in common.
struct Rows {
  Local first = 0;
  Local threads = 0;

  KETGRAD_DEVICE Local row(int u) const { return first + static_cast<Local>(u) * threads; }
};

template <class F>
KETGRAD_DEVICE void for_each_rows(const Place& place, const F& f) {
  const auto threads = static_cast<Local>(block_threads());
  for (Local start = 0; start < place.size(); start += own_rows * threads)
    f(Rows{start + static_cast<Local>(thread_index()), threads}, start == 0);
}

// Calls f(row, index, u) for those of a round's rows that the tile has. A row's index is that of the first plus a vector
// for each bit of u.
template <class F>
KETGRAD_DEVICE void for_each_index(const TablesView& t, const Place& place, const Rows& mine, const F& f) {
  const int first_bit = thread_bits_of(place.tile_bits);
  Index vectors[own_row_bits];
#pragma unroll
  for (int b = 0; b < own_row_bits; ++b) {
    vectors[b] = place.whole ? static_cast<Index>(mine.threads) << b : 0;
    if (!place.whole && first_bit + b < place.rows.vectors.count)
      vectors[b] = static_cast<Index>(t.vectors[place.rows.vectors.first + first_bit + b]);
  }
  const Index first = place.index(t, mine.first);
#pragma unroll
  for (int u = 0; u < own_rows; ++u) {
    Index index = first;
#pragma unroll
    for (int b = 0; b < own_row_bits; ++b) index ^= ((u >> b) & 1) != 0 ? vectors[b] : 0;
    if (mine.row(u) < place.size()) f(mine.row(u), index, u);
  }
}

// The same for all of this thread's rows.
template <class F>
KETGRAD_DEVICE void for_each_index(const TablesView& t, const Place& place, const F& f) {
  for_each_rows(place, [&](const Rows& mine, bool) { for_each_index(t, place, mine, f); });
}

// Each warp has a piece of its own, so nothing depends on the order of warps. One lane sets it.
template <class T>
KETGRAD_DEVICE void set_piece(Wide<T>* pieces, const Place& place, const T& value, bool begins) {
  Wide<T>& piece = pieces[place.piece];
  piece = (begins ? Wide<T>(0) : piece) + static_cast<Wide<T>>(value);
}

// The sum over the warp.
template <class T>
KETGRAD_DEVICE void add_piece(Wide<T>* pieces, const Place& place, const T& value, bool begins) {
  const T total = warp_sum(value);
  if (thread_index() % warp_size == 0) set_piece(pieces, place, total, begins);
}

// Operations begin with what does not look at the tile, and then wait for the one before them to end: there is a barrier
// in each.

// --- turns ------------------------------------------------------------------------------------------------------------

// A tile at whose base a turn's sign is odd turns the other way.
template <class T>
KETGRAD_DEVICE Real<T> sign_in(const Operation& op, int turn, Mask base) {
  return odd(op.tile_sign[turn] & base) ? Real<T>(-1) : Real<T>(1);
}

// The rotations of a block's turns in a tile.
template <class T, int turns>
KETGRAD_DEVICE void load_rotations(const Operation& op, const Rotation<T>* rotations, Mask base, Rotation<T>* turn) {
#pragma unroll
  for (int j = 0; j < turns; ++j) {
    turn[j] = rotations[op.first_angle + j];
    turn[j].sine = sign_in<T>(op, j, base) * turn[j].sine;
  }
}

// The slot of row k of a group, the first row's left out.
template <int turns>
KETGRAD_DEVICE Local row_slot(const Operation& op, int k) {
  Local s = 0;
#pragma unroll
  for (int j = 0; j < turns; ++j) s ^= ((k >> j) & 1) != 0 ? op.flip[j] : 0;
  return s;
}

template <class T, int turns>
KETGRAD_DEVICE void load_group(const Tile<T>& tile, const Operation& op, Local first, Complex<T>* rows) {
#pragma unroll
  for (int k = 0; k < 1 << turns; ++k) rows[k] = tile.get(first ^ row_slot<turns>(op, k));
}

template <class T, int turns>
KETGRAD_DEVICE void store_group(Tile<T>& tile, const Operation& op, Local first, const Complex<T>* rows) {
#pragma unroll
  for (int k = 0; k < 1 << turns; ++k) tile.set(first ^ row_slot<turns>(op, k), rows[k]);
}

// (a, b) -> (c a - s b, c b + s a) on the pairs of turn j
template <class T, int turns>
KETGRAD_DEVICE void turn_pairs(Complex<T>* rows, int j, const T& c, const T& s) {
#pragma unroll
  for (int k = 0; k < 1 << turns; ++k) {
    if (((k >> j) & 1) != 0) continue;
    const Complex<T> a = rows[k];
    const Complex<T> b = rows[k ^ (1 << j)];
    rows[k] = {c * a.re - s * b.re, c * a.im - s * b.im};
    rows[k ^ (1 << j)] = {c * b.re + s * a.re, c * b.im + s * a.im};
  }
}

// Re<bra| -i P |ket> on the pairs of turn j: Re(conj(bra_b) ket_a - conj(bra_a) ket_b)
template <class T, int turns>
KETGRAD_DEVICE T overlap_pairs(const Complex<T>* ket, const Complex<T>* bra, int j) {
  T sum = 0;
#pragma unroll
  for (int k = 0; k < 1 << turns; ++k) {
    if (((k >> j) & 1) != 0) continue;
    const int partner = k ^ (1 << j);
    sum += bra[partner].re * ket[k].re + bra[partner].im * ket[k].im;
    sum -= bra[k].re * ket[partner].re + bra[k].im * ket[partner].im;
  }
  return sum;
}

template <class T, int turns>
KETGRAD_DEVICE void apply_turns(const TablesView& t, const Operation& op, const Rotation<T>* rotations,
                                const Place& place, Tile<T>& ket) {
  Rotation<T> turn[turns];
  load_rotations<T, turns>(op, rotations, place.base, turn);
  const Local groups = place.size() >> turns;
  barrier();
  for (Local g = static_cast<Local>(thread_index()); g < groups; g += static_cast<Local>(block_threads())) {
    const Local first = t.slots[op.groups + g];
    Complex<T> rows[1 << turns];
    load_group<T, turns>(ket, op, first, rows);
#pragma unroll
    for (int j = 0; j < turns; ++j) turn_pairs<T, turns>(rows, j, turn[j].cosine, turn[j].sine);
    store_group<T, turns>(ket, op, first, rows);
  }
}

template <class T, int turns>
KETGRAD_DEVICE void undo_turns(const TablesView& t, const Operation& op, const Rotation<T>* rotations,
                               const Place& place, Tile<T>& ket, Tile<T>& bra, Wide<T>* overlaps, Index stride) {
  Rotation<T> turn[turns];
  load_rotations<T, turns>(op, rotations, place.base, turn);
  const Local groups = place.size() >> turns;
  T sums[turns] = {};
  barrier();
  for (Local g = static_cast<Local>(thread_index()); g < groups; g += static_cast<Local>(block_threads())) {
    const Local first = t.slots[op.groups + g];
    Complex<T> of_ket[1 << turns];
    Complex<T> of_bra[1 << turns];
    load_group<T, turns>(ket, op, first, of_ket);
    load_group<T, turns>(bra, op, first, of_bra);
#pragma unroll
    for (int j = 0; j < turns; ++j) {
      sums[j] += overlap_pairs<T, turns>(of_ket, of_bra, j);
      turn_pairs<T, turns>(of_ket, j, turn[j].cosine, -turn[j].sine);
      turn_pairs<T, turns>(of_bra, j, turn[j].cosine, -turn[j].sine);
    }
    store_group<T, turns>(ket, op, first, of_ket);
    store_group<T, turns>(bra, op, first, of_bra);
  }
#pragma unroll
  for (int j = 0; j < turns; ++j) {
    const int number = op.first_angle + j;
    if (t.angles[number].is_constant == 0)
      add_piece(overlaps + number * stride, place, sign_in<T>(op, j, place.base) * sums[j], place.first);
  }
}

// --- phases -----------------------------------------------------------------------------------------------------------

// values[step] = sum over patterns p of (-1)^parity(step & p) values[p]
template <class T>
KETGRAD_DEVICE void hadamard(T* values) {
#pragma unroll
  for (int bit = 1; bit < own_rows; bit *= 2) {
#pragma unroll
    for (int p = 0; p < own_rows; ++p) {
      if ((p & bit) != 0) continue;
      const T a = values[p];
      const T b = values[p | bit];
      values[p] = a + b;
      values[p | bit] = a - b;
    }
  }
}

// The same over the lanes of a warp: lane q gets the sum over lanes l of (-1)^parity(l & q) value.
template <class T>
KETGRAD_DEVICE T lane_hadamard(T value) {
  for (int bit = 1; bit < warp_size; bit *= 2) {
    const T other = shuffle_xor(value, bit);
    value = (thread_index() & bit) != 0 ? other - value : value + other;
  }
  return value;
}

// Calls f(e, p) for the elements e of a list, p being their pattern, a constant.
template <class F>
KETGRAD_DEVICE void for_each_pattern(const Patterns& list, const F& f) {
  int e = list.first;
#pragma unroll
  for (int p = 0; p < own_rows; ++p) {
    for (; e < list.end[p]; ++e) f(e, p);
  }
}

// The rests of the angles of strings: NaN is the same for all rows, slopes are not.
template <class T>
struct Rests {
  T all = 0;

  KETGRAD_DEVICE void add(int, bool, const T& rest) { all += rest; }
  KETGRAD_DEVICE void transform() {}
  KETGRAD_DEVICE Complex<T> factor(int, T cosine, T sine) const { return {cosine + all, -sine}; }
};

template <class R>
struct Rests<DualOf<R>> {
  R all = 0;
  R slopes[own_rows] = {};

  KETGRAD_DEVICE void add(int pattern, bool negative, const DualOf<R>& rest) {
    all += rest.value;
    slopes[pattern] += negative ? -rest.slope : rest.slope;
  }
  KETGRAD_DEVICE void transform() { hadamard(slopes); }
  // d exp(-i phi) = -i dphi exp(-i phi)
  KETGRAD_DEVICE Complex<DualOf<R>> factor(int u, R cosine, R sine) const {
    return {{cosine + all, -slopes[u] * sine}, {-sine, -slopes[u] * cosine}};
  }
};

// exp(-i sum_s angle_s/2 (-1)^parity_s) of each row of mine.
template <class T>
KETGRAD_DEVICE void phase_factors(const TablesView& t, const Operation& op, const PhaseAngle<T>* phases,
                                  const Place& place, const Rows& mine, Complex<T>* factors) {
  using Unsigned = typename FixedPoint<Real<T>>::Unsigned;
  using Signed = typename FixedPoint<Real<T>>::Signed;
  Unsigned fraction[own_rows] = {};
  Rests<T> rests;
  for_each_pattern(op.strings, [&](int s, int pattern) {
    const ZString string = t.strings[s];
    const PhaseAngle<T> angle = phases[s];
    const bool negative = odd(string.tile_mask & place.base) != odd(string.row_mask & mine.first);
    fraction[pattern] += negative ? Unsigned{0} - angle.fraction : angle.fraction;
    rests.add(pattern, negative, angle.rest);
  });
  hadamard(fraction);
  rests.transform();
  // A fraction of 1/2 is an angle of pi.
  constexpr auto half = static_cast<Real<T>>(Unsigned{1} << (4 * sizeof(Unsigned)));
  constexpr Real<T> unit = Real<T>(2) / half / half;
#pragma unroll
  for (int u = 0; u < own_rows; ++u) {
    Real<T> sine, cosine;
    sine_cosine_pi(static_cast<Real<T>>(static_cast<Signed>(fraction[u])) * unit, sine, cosine);
    factors[u] = rests.factor(u, cosine, sine);
  }
}

template <class T>
KETGRAD_DEVICE void apply_phases(const TablesView& t, const Operation& op, const PhaseAngle<T>* phases,
                                 const Place& place, Tile<T>& ket) {
  for_each_rows(place, [&](const Rows& mine, bool is_first) {
    Complex<T> factors[own_rows];
    phase_factors(t, op, phases, place, mine, factors);
    if (is_first) barrier();
#pragma unroll
    for (int u = 0; u < own_rows; ++u) {
      if (mine.row(u) >= place.size()) continue;
      const Local s = slot(mine.row(u));
      ket.set(s, factors[u] * ket.get(s));
    }
  });
}

// With w = Im(conj(bra) ket), the overlap of a string is the sum of +-w. The sums of all signs at once are a transform,
// over own_rows in registers and over lanes by shuffles: the sum of a string's signs ends up in the lane of its mask.
template <class T>
KETGRAD_DEVICE void add_string_overlaps(const TablesView& t, const Operation& op, const Place& place, const Rows& mine,
                                        bool is_first, T* w, Wide<T>* overlaps, Index stride) {
  hadamard(w);
#pragma unroll
  for (int p = 0; p < own_rows; ++p) w[p] = lane_hadamard(w[p]);
  constexpr Local lanes = warp_size - 1;
  const Local warp = mine.first & ~lanes;
  for_each_pattern(op.strings, [&](int s, int pattern) {
    const ZString string = t.strings[s];
    const int number = t.rotations + s;
    if ((string.row_mask & lanes) != (mine.first & lanes) || t.angles[number].is_constant != 0) return;
    const bool negative = odd(string.tile_mask & place.base) != odd(string.row_mask & warp);
    set_piece(overlaps + number * stride, place, negative ? -w[pattern] : w[pattern], place.first && is_first);
  });
}

template <class T>
KETGRAD_DEVICE void undo_phases(const TablesView& t, const Operation& op, const PhaseAngle<T>* phases,
                                const Place& place, Tile<T>& ket, Tile<T>& bra, Wide<T>* overlaps, Index stride) {
  for_each_rows(place, [&](const Rows& mine, bool is_first) {
    Complex<T> factors[own_rows];
    phase_factors(t, op, phases, place, mine, factors);
    T w[own_rows];
    if (is_first) barrier();
#pragma unroll
    for (int u = 0; u < own_rows; ++u) {
      w[u] = 0;
      if (mine.row(u) >= place.size()) continue;
      const Local s = slot(mine.row(u));
      const Complex<T> psi = ket.get(s);
      const Complex<T> lambda = bra.get(s);
      w[u] = lambda.re * psi.im - lambda.im * psi.re;
      ket.set(s, inner(factors[u], psi));
      bra.set(s, inner(factors[u], lambda));
    }
    add_string_overlaps(t, op, place, mine, is_first, w, overlaps, stride);
  });
}

// --- words ------------------------------------------------------------------------------------------------------------

// <P> is the sum over rows q of Re(i^quarter (-1)^parity(q) conj(psi_(q ^ flip)) psi_q).
template <class T>
KETGRAD_DEVICE void add_word_values(const TablesView& t, const Range& groups, const Place& place, const Tile<T>& ket,
                                    Wide<T>* pieces, Index stride) {
  for_each_rows(place, [&](const Rows& mine, bool is_first) {
    for (int g = groups.first; g < groups.first + groups.count; ++g) {
      const FlipGroup& group = t.flip_groups[g];
      T real[own_rows];
      T imaginary[own_rows];
#pragma unroll
      for (int u = 0; u < own_rows; ++u) {
        Complex<T> product{};
        const Local r = mine.row(u);
        if (r < place.size()) product = inner(ket.get(slot(r ^ group.flip)), ket.get(slot(r)));
        real[u] = product.re;
        imaginary[u] = -product.im;
      }
      const auto add = [&](const Patterns& list, T* sums) {
        hadamard(sums);
        for_each_pattern(list, [&](int m, int pattern) {
          const Word word = t.words[m];
          const bool negative =
              (odd(word.tile_mask & place.base) != odd(word.row_mask & mine.first)) != (word.quarter >= 2);
          add_piece(pieces + m * stride, place, negative ? -sums[pattern] : sums[pattern], place.first && is_first);
        });
      };
      add(group.real, real);
      add(group.imaginary, imaginary);
    }
  });
}

// The rows of a round of sum_w weight_w P_w psi: row r has i^quarter (-1)^parity(q) psi_q of q = r ^ flip.
template <class T>
KETGRAD_DEVICE void word_rows(const TablesView& t, const Range& groups, const Place& place, const Rows& mine,
                              const Tile<T>& ket, const T* weights, Complex<T>* rows) {
#pragma unroll
  for (int u = 0; u < own_rows; ++u) rows[u] = {};
  for (int g = groups.first; g < groups.first + groups.count; ++g) {
    const FlipGroup& group = t.flip_groups[g];
    T real[own_rows] = {};
    T imaginary[own_rows] = {};
    const auto add = [&](const Patterns& list, T* sums) {
      for_each_pattern(list, [&](int m, int pattern) {
        const Word word = t.words[m];
        const bool negative =
            (odd(word.tile_mask & place.base) != odd(word.row_mask & (mine.first ^ group.flip))) != (word.quarter >= 2);
        sums[pattern] += negative ? -weights[m] : weights[m];
      });
      hadamard(sums);
    };
    add(group.real, real);
    add(group.imaginary, imaginary);
#pragma unroll
    for (int u = 0; u < own_rows; ++u) {
      if (mine.row(u) >= place.size()) continue;
      rows[u] += Complex<T>{real[u], imaginary[u]} * ket.get(slot(mine.row(u) ^ group.flip));
    }
  }
}

// --- kernels ----------------------------------------------------------------------------------------------------------

// Calls f(place) for each tile of this block. Sums have `pieces_each` pieces a sample; a grid of fewer leaves the others
// alone, which are zero.
template <class F>
KETGRAD_DEVICE void for_each_tile(const TablesView& t, const TileGrid& grid, const Map& tiles, const Map& rows,
                                  int tile_bits, Index pieces_each, const F& f) {
  Place place;
  place.sample = block_index() / grid.parts;
  const Index part = block_index() % grid.parts;
  place.tile_bits = tile_bits;
  place.whole = grid.tiles == 1;
  place.rows = rows;
  place.piece = place.sample * pieces_each + part * (block_threads() / warp_size) + thread_index() / warp_size;
  for (Index tile = part; tile < grid.tiles; tile += grid.parts) {
    place.base = place.whole ? 0 : static_cast<Mask>(at(t, tiles, tile));
    place.first = tile == part;
    f(place);
    barrier();  // the next tile goes where this one is
  }
}

template <class T>
KETGRAD_DEVICE void load_tile(const TablesView& t, const Place& place, const Complex<T>* state, Tile<T>& tile) {
  for_each_index(t, place, [&](Local r, Index i, int) { tile.set(slot(r), state[i]); });
}

template <class T>
KETGRAD_DEVICE void store_tile(const TablesView& t, const Place& place, const Tile<T>& tile, Complex<T>* state) {
  for_each_index(t, place, [&](Local r, Index i, int) { state[i] = tile.get(slot(r)); });
}

template <class T>
KETGRAD_DEVICE void apply(const TablesView& t, const Operation& op, const Rotation<T>* rotations,
                          const PhaseAngle<T>* phases, const Place& place, Tile<T>& ket) {
  switch (op.turns) {
    case 0: return apply_phases(t, op, phases, place, ket);
    case 1: return apply_turns<T, 1>(t, op, rotations, place, ket);
    case 2: return apply_turns<T, 2>(t, op, rotations, place, ket);
    default: return apply_turns<T, 3>(t, op, rotations, place, ket);
  }
}

template <class T>
KETGRAD_DEVICE void undo(const TablesView& t, const Operation& op, const Rotation<T>* rotations,
                         const PhaseAngle<T>* phases, const Place& place, Tile<T>& ket, Tile<T>& bra, Wide<T>* overlaps,
                         Index stride) {
  switch (op.turns) {
    case 0: return undo_phases(t, op, phases, place, ket, bra, overlaps, stride);
    case 1: return undo_turns<T, 1>(t, op, rotations, place, ket, bra, overlaps, stride);
    case 2: return undo_turns<T, 2>(t, op, rotations, place, ket, bra, overlaps, stride);
    default: return undo_turns<T, 3>(t, op, rotations, place, ket, bra, overlaps, stride);
  }
}

template <class T>
KETGRAD_KERNEL KETGRAD_BOUNDS(most_threads, blocks_held<T>)
    forward_kernel(TileCall<T> c, ForwardTiles<T> f, TileGrid grid, int tile_bits, Range groups) {
  const TablesView& t = c.t;
  const bool some = f.first_pass < f.end_pass;
  const TilePass pass = some ? t.passes[f.first_pass] : TilePass{};
  for_each_tile(t, grid, pass.tiles, pass.rows, tile_bits, grid.pieces(), [&](const Place& place) {
    Tile<T> ket(0, place.size());
    const Index state = place.sample << c.num_bits;
    if (f.prepares) {
      for_each_index(t, place,
                     [&](Local r, Index i, int) { ket.set(slot(r), {static_cast<T>(f.start.amplitude(i)), T(0)}); });
    } else {
      load_tile(t, place, f.ket + state, ket);
    }
    for (int p = f.first_pass; p < f.end_pass; ++p) {
      const Range operations = t.passes[p].operations;
      for (int k = operations.first; k < operations.first + operations.count; ++k) {
        apply(t, t.operations[k], c.rotations + place.sample * t.rotations, c.phases + place.sample * c.strings, place,
              ket);
      }
    }
    barrier();
    if (f.into != nullptr) store_tile(t, place, ket, f.into + state);
    if (f.measures) add_word_values(t, groups, place, ket, f.pieces, c.samples.count * grid.pieces());
  });
}

template <class T>
KETGRAD_KERNEL KETGRAD_BOUNDS(most_threads, blocks_held<T>)
    backward_kernel(TileCall<T> c, BackwardTiles<T> b, TileGrid grid, int tile_bits, Range groups, Index words) {
  const TablesView& t = c.t;
  const bool some = b.first_pass < b.end_pass;
  const TilePass pass = some ? t.passes[b.first_pass] : TilePass{};
  const Index stride = c.samples.count * b.overlap_pieces;
  for_each_tile(t, grid, pass.tiles, pass.rows, tile_bits, b.overlap_pieces, [&](const Place& place) {
    Tile<T> ket(0, place.size());
    Tile<T> bra(sizeof(Complex<T>) << place.tile_bits, place.size());
    const Index state = place.sample << c.num_bits;
    load_tile(t, place, b.source + state, ket);
    if (b.weights != nullptr) {
      barrier();
      for_each_rows(place, [&](const Rows& mine, bool) {
        Complex<T> rows[own_rows];
        word_rows(t, groups, place, mine, ket, b.weights + place.sample * words, rows);
#pragma unroll
        for (int u = 0; u < own_rows; ++u) {
          if (mine.row(u) < place.size()) bra.set(slot(mine.row(u)), rows[u]);
        }
      });
    } else {
      load_tile(t, place, static_cast<const Complex<T>*>(b.bra) + state, bra);
    }
    for (int p = b.end_pass - 1; p >= b.first_pass; --p) {
      const Range operations = t.passes[p].operations;
      for (int k = operations.first + operations.count - 1; k >= operations.first; --k) {
        undo(t, t.operations[k], c.rotations + place.sample * t.rotations, c.phases + place.sample * c.strings, place,
             ket, bra, b.overlaps, stride);
      }
    }
    barrier();
    if (b.ket != nullptr) store_tile(t, place, ket, b.ket + state);
    if (b.writes_bra) store_tile(t, place, bra, b.bra + state);
  });
}

template <class T>
KETGRAD_KERNEL KETGRAD_BOUNDS(most_threads, blocks_held<T>)
    measure_kernel(TileCall<T> c, WordPass pass, TileGrid grid, const Complex<T>* kets, Wide<T>* pieces,
                   Index pieces_each) {
  for_each_tile(c.t, grid, pass.tiles, pass.rows, pass.tile_bits, pieces_each, [&](const Place& place) {
    Tile<T> ket(0, place.size());
    load_tile(c.t, place, kets + (place.sample << c.num_bits), ket);
    barrier();
    add_word_values(c.t, pass.groups, place, ket, pieces, c.samples.count * pieces_each);
  });
}

template <class T>
KETGRAD_KERNEL KETGRAD_BOUNDS(most_threads, blocks_held<T>)
    bra_kernel(TileCall<T> c, WordPass pass, TileGrid grid, const Complex<T>* kets, Complex<T>* bras, const T* weights,
               Index words, bool begins) {
  for_each_tile(c.t, grid, pass.tiles, pass.rows, pass.tile_bits, grid.pieces(), [&](const Place& place) {
    Tile<T> ket(0, place.size());
    const Index state = place.sample << c.num_bits;
    load_tile(c.t, place, kets + state, ket);
    barrier();
    for_each_rows(place, [&](const Rows& mine, bool) {
      Complex<T> rows[own_rows];
      word_rows(c.t, pass.groups, place, mine, ket, weights + place.sample * words, rows);
      for_each_index(c.t, place, mine, [&](Local, Index i, int u) {
        Complex<T>& out = bras[state + i];
        out = begins ? rows[u] : out + rows[u];
      });
    });
  });
}

Range all_groups(const Tables& tables) { return tables.word_passes.empty() ? Range{} : tables.word_passes[0].groups; }

// Whole states where there is no pass to say otherwise.
int tile_bits_of(const Tables& tables, int first_pass, int end_pass) {
  return first_pass < end_pass ? tables.passes[first_pass].tile_bits : tables.num_wires;
}

}  // namespace

TileGrid grid_of(int tile_bits, int num_bits, Index samples, int multiprocessors) {
  // So many blocks keep a multiprocessor busy while some of them wait for memory.
  constexpr Index blocks_each = 8;
  TileGrid grid;
  grid.tiles = Index{1} << (num_bits - tile_bits);
  grid.parts = std::clamp<Index>(blocks_each * multiprocessors / std::max<Index>(samples, 1), 1, grid.tiles);
  grid.threads = threads_of(tile_bits);
  return grid;
}

template <class T>
void run_forward(const Queue& queue, const Tables& tables, const TileCall<T>& call, const ForwardTiles<T>& f) {
  const int tile_bits = tile_bits_of(tables, f.first_pass, f.end_pass);
  const TileGrid grid = grid_of(tile_bits, call.num_bits, call.chunk, call.multiprocessors);
  launch(queue, call.samples.count * grid.parts, grid.threads, gpu_tile_bytes(tile_bits, 1, sizeof(T)),
         forward_kernel<T>, call, f, grid, tile_bits, all_groups(tables));
}

template <class T>
void run_backward(const Queue& queue, const Tables& tables, const TileCall<T>& call, const BackwardTiles<T>& b) {
  const int tile_bits = tile_bits_of(tables, b.first_pass, b.end_pass);
  const TileGrid grid = grid_of(tile_bits, call.num_bits, call.chunk, call.multiprocessors);
  launch(queue, call.samples.count * grid.parts, grid.threads, gpu_tile_bytes(tile_bits, 2, sizeof(T)),
         backward_kernel<T>, call, b, grid, tile_bits, all_groups(tables), static_cast<Index>(tables.words.size()));
}

template <class T>
void measure_words(const Queue& queue, const Tables& tables, const TileCall<T>& call, int word_pass,
                   const Complex<T>* ket, Wide<T>* pieces, Index piece_stride) {
  const WordPass& pass = tables.word_passes[word_pass];
  const TileGrid grid = grid_of(pass.tile_bits, call.num_bits, call.chunk, call.multiprocessors);
  launch(queue, call.samples.count * grid.parts, grid.threads, gpu_tile_bytes(pass.tile_bits, 1, sizeof(T)),
         measure_kernel<T>, call, pass, grid, ket, pieces, piece_stride);
}

template <class T>
void add_words(const Queue& queue, const Tables& tables, const TileCall<T>& call, int word_pass, const Complex<T>* ket,
               Complex<T>* bra, const T* weights, bool begins) {
  const WordPass& pass = tables.word_passes[word_pass];
  const TileGrid grid = grid_of(pass.tile_bits, call.num_bits, call.chunk, call.multiprocessors);
  launch(queue, call.samples.count * grid.parts, grid.threads, gpu_tile_bytes(pass.tile_bits, 1, sizeof(T)),
         bra_kernel<T>, call, pass, grid, ket, bra, weights, static_cast<Index>(tables.words.size()), begins);
}

#define KETGRAD_TILES(T)                                                                                         \
  template void run_forward(const Queue&, const Tables&, const TileCall<T>&, const ForwardTiles<T>&);            \
  template void run_backward(const Queue&, const Tables&, const TileCall<T>&, const BackwardTiles<T>&);          \
  template void measure_words(const Queue&, const Tables&, const TileCall<T>&, int, const Complex<T>*, Wide<T>*, \
                              Index);                                                                            \
  template void add_words(const Queue&, const Tables&, const TileCall<T>&, int, const Complex<T>*, Complex<T>*,  \
                          const T*, bool);
KETGRAD_FOR_NUMBERS(KETGRAD_TILES)
#undef KETGRAD_TILES

}  // namespace ketgrad::cuda
