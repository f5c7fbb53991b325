#include "cuda/kernels/tiles.h"

#include <algorithm>

#include "plan/gpu_layout.h"

namespace ketgrad::cuda {

namespace {

constexpr int most_threads = threads_of(30);
// HugePages that a multiprocessor shall hold: with more, or with more threads, the way back would not fit into
// registers.
template <class T>
constexpr int blocks_held = sizeof(T) <= 4   ? 3
                            : sizeof(T) <= 8 ? 2
                                             : 1;

template <class T>
using Tile = Shared<Complex<T>>;

// Shared memory has tiles, then two tables of products of phases, then the words of the tile.
template <class T>
KETGRAD_HOST_DEVICE constexpr std::size_t tile_bytes(int tile_bits, int states) {
  return gpu_tile_bytes(padded_bits(tile_bits), states, sizeof(T));
}
static_assert(2 * most_layers * layer_products == gpu_table_numbers);
template <class T>
constexpr std::size_t product_bytes = gpu_table_numbers * sizeof(Complex<T>);

// --- where a thread is -----------------------------------------------------------------------------------------------

KETGRAD_DEVICE Local thread() { return static_cast<Local>(thread_index()); }
KETGRAD_DEVICE Local threads() { return static_cast<Local>(block_threads()); }
KETGRAD_DEVICE Local lane() { return thread() % warp_size; }

// base + the sum of own[b] over the bits b of u
template <class V>
KETGRAD_DEVICE V thread_row_sum(V base, const V* own, int u) {
#pragma unroll
  for (int b = 0; b < thread_row_bits; ++b) base ^= ((u >> b) & 1) != 0 ? own[b] : 0;
  return base;
}

// In a round through a tile a thread has the rows `first row of the round` + thread + u * threads, u < thread_rows. A
// linear map of coordinates at those rows: at the first, and what the bits of u add.
struct RowValues {
  Mask first = 0;
  Mask own[thread_row_bits] = {};

  KETGRAD_DEVICE Mask operator[](int u) const { return thread_row_sum(first, own, u); }
};

// Such a map: where all rounds begin is found once for all tiles of a block.
struct RowMap {
  Range vectors;
  Mask first = 0;  // of this thread's row in the first round

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
  bool everywhere = false;  // rows outside the support are visited as well
  RowMap rows;
  Mask base = 0;  // the index of coordinate zero
  Shared<std::uint32_t> tile_words;
  Shared<Complex<T>> products;  // of phases, of this operation and of the one before
  int products_begin = 0;
  Index partial = 0;   // of sums, this warp's
  bool first = false;  // no partial sum has been written before

  KETGRAD_DEVICE Local size() const { return Local{1} << tile_bits; }
  KETGRAD_DEVICE Local padded_size() const { return Local{1} << padded_bits(tile_bits); }
  KETGRAD_DEVICE int thread_bits() const { return thread_bits_of(tile_bits); }

  KETGRAD_DEVICE std::uint32_t word(int number) const { return whole ? 0 : tile_words.get(number); }
  KETGRAD_DEVICE Mask wide_word(int number) const { return word(number) | static_cast<Mask>(word(number + 1)) << 32; }

  // Signs that are the same all over a warp's groups, and those of one group.
  KETGRAD_DEVICE std::uint32_t signs_of_warp(const Signs& s, Local group) const {
    return t.words_of_bits[s.warps + group / warp_size] ^ word(s.tile);
  }
  KETGRAD_DEVICE std::uint32_t signs_of(const Signs& s, Local group) const {
    return t.words_of_bits[s.lanes + group % warp_size] ^ signs_of_warp(s, group);
  }
};

// The rows of one round.
struct Round {
  int number = 0;
  Local first = 0;  // this thread's first row
  Local group = 0;  // and the number of the group they are
};

template <class T, class F>
KETGRAD_DEVICE void for_each_round(const Place<T>& place, const F& f) {
  const Local rounds = place.padded_size() / (thread_rows * threads());
  for (Local n = 0; n < rounds; ++n)
    f(Round{static_cast<int>(n), n * thread_rows * threads() + thread(), n * threads() + thread()});
}

// Calls f(u, row, slot) for the rows of a round, those that fill up the tile included. Whoever asks memory for them
// asks for all before he looks at one.
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

template <class T>
KETGRAD_DEVICE RowValues indices(const Place<T>& place, const Round& round) {
  if (!place.whole) return place.rows.in_round(place.t, place.base, place.thread_bits(), round.number);
  RowValues rows;
  rows.first = round.first;
#pragma unroll
  for (int b = 0; b < thread_row_bits; ++b) rows.own[b] = threads() << b;
  return rows;
}

// Which of the rows of a tile may be other than zero.
template <class T>
class SupportRows {
 public:
  KETGRAD_DEVICE SupportRows(const Place<T>& place, const SupportMap& support)
      : place_(place), everywhere_(place.whole || place.everywhere || support.everywhere != 0) {
    if (everywhere_) return;
    map_ = RowMap::of(place.t, support.rows, place.thread_bits());
    base_ = place.wide_word(support.tile);
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

// --- sums ------------------------------------------------------------------------------------------------------------

// Each warp has a partial sum of its own, so nothing depends on the order of warps; one lane adds to it.
template <class T>
KETGRAD_DEVICE void add_to_partial(Accum<T>* partials, const Place<T>& place, const T& value) {
  add_alone(partials + place.partial, static_cast<Accum<T>>(value));
}

// values[k] = sum over patterns p of (-1)^parity(k & p) values[p]
template <class T>
KETGRAD_DEVICE void hadamard(T* values) {
#pragma unroll
  for (int bit = 1; bit < thread_rows; bit *= 2) {
#pragma unroll
    for (int p = 0; p < thread_rows; ++p) {
      if ((p & bit) != 0) continue;
      const T a = values[p];
      const T b = values[p | bit];
      values[p] = a + b;
      values[p | bit] = a - b;
    }
  }
}

// The same over the lanes of a warp: lane q gets the sum over lanes l of (-1)^parity(l & q) values.
template <class T>
KETGRAD_DEVICE void lane_hadamard(T* values) {
#pragma unroll
  for (int bit = 1; bit < warp_size; bit *= 2) {
    const Real<T> sign = (lane() & bit) != 0 ? -1 : 1;
#pragma unroll
    for (int p = 0; p < thread_rows; ++p) values[p] = sign * values[p] + shuffle_xor(values[p], bit);
  }
}

// What a lane has for a pattern, of hadamard and lane_hadamard: the sum of one sign over a warp. Patterns may differ
// from lane to lane.
template <class T>
KETGRAD_DEVICE T fetch(const T* values, int pattern, int from) {
  T found = 0;
#pragma unroll
  for (int p = 0; p < thread_rows; ++p) {
    const T value = shuffle(values[p], from);
    if (p == pattern) found = value;
  }
  return found;
}

// Calls f(e, p, signs) for the elements e of a list, p being their pattern, a constant; the highest sign is the
// element's.
template <class F>
KETGRAD_DEVICE void for_each_pattern(const Patterns& list, std::uint32_t signs, const F& f) {
  const std::uint64_t ends = list.ends;
  int e = 0;
#pragma unroll
  for (int p = 0; p < thread_rows; ++p) {
#pragma unroll 1
    for (const int end = Patterns{0, ends}.end(p); e < end; ++e, signs <<= 1) f(e, p, signs);
  }
}

// --- groups ----------------------------------------------------------------------------------------------------------

// The slots of a group: that of its first row, and what the bits of a row's number add.
struct Group {
  Local first = 0;
  Local flips[thread_row_bits];

  KETGRAD_DEVICE explicit Group(const TableOp& op) : flips{op.flip[0], op.flip[1], op.flip[2]} {}

  template <class T>
  KETGRAD_DEVICE void load(const Tile<T>& tile, Complex<T>* rows) const {
#pragma unroll
    for (int k = 0; k < thread_rows; ++k) rows[k] = tile.get(thread_row_sum(first, flips, k));
  }
  template <class T>
  KETGRAD_DEVICE void store(Tile<T>& tile, const Complex<T>* rows) const {
#pragma unroll
    for (int k = 0; k < thread_rows; ++k) tile.set(thread_row_sum(first, flips, k), rows[k]);
  }
};

// Groups that an operation visits.
template <class T>
KETGRAD_DEVICE Local groups_of(const TableOp& op, const Place<T>& place) {
  return place.everywhere ? Local{1} << group_bits_of(place.tile_bits) : static_cast<Local>(op.num_active);
}

// --- rotations -------------------------------------------------------------------------------------------------------

// The rotations of an operation in a tile; at a base where a rotation's sign is odd, the angle is negated.
template <class T>
KETGRAD_DEVICE void load_rotations(const TableOp& op, const ShearRotation<T>* table, std::uint32_t signs, bool inverse,
                                   ShearRotation<T>* rotations) {
#pragma unroll
  for (int j = 0; j < RotationBlock::most; ++j) {
    if (j >= op.rotations) continue;
    const bool other_way = (((signs >> j) & 1) != 0) != inverse;
    rotations[j] = table[op.first_angle + j];
    rotations[j].shear = other_way ? -rotations[j].shear : rotations[j].shear;
    rotations[j].sine = other_way ? -rotations[j].sine : rotations[j].sine;
  }
}

// What rotations leave out is one sign for all of a tile: the true state is `sign` times what is in shared memory.
// Phases take it in.
template <class T>
KETGRAD_DEVICE Real<T> sign_after(const TableOp& op, const ShearRotation<T>* rotations, Real<T> sign) {
#pragma unroll
  for (int j = 0; j < RotationBlock::most; ++j) {
    if (j < op.rotations) sign *= rotations[j].sign;
  }
  return sign;
}

template <class T>
KETGRAD_DEVICE void shear(Complex<T>& a, const T& t, const Complex<T>& b) {
  a.re += t * b.re;
  a.im += t * b.im;
}

template <class T>
KETGRAD_DEVICE void rotate_pairs(Complex<T>* rows, int j, const ShearRotation<T>& rotation) {
#pragma unroll
  for (int k = 0; k < thread_rows; ++k) {
    if (((k >> j) & 1) != 0) continue;
    Complex<T>& a = rows[k];
    Complex<T>& b = rows[k ^ (1 << j)];
    shear(a, -rotation.shear, b);
    shear(b, rotation.sine, a);
    shear(a, -rotation.shear, b);
  }
}

// Re<bra| -i P |ket> on the pairs of rotation j: Re(conj(bra_b) ket_a - conj(bra_a) ket_b)
template <class T>
KETGRAD_DEVICE T overlap_pairs(const Complex<T>* ket, const Complex<T>* bra, int j) {
  T sum = 0;
#pragma unroll
  for (int k = 0; k < thread_rows; ++k) {
    if (((k >> j) & 1) != 0) continue;
    const int partner = k ^ (1 << j);
    sum += bra[partner].re * ket[k].re + bra[partner].im * ket[k].im;
    sum -= bra[k].re * ket[partner].re + bra[k].im * ket[partner].im;
  }
  return sum;
}

// --- phases ----------------------------------------------------------------------------------------------------------

// Products of the phases of the strings of one pattern, for each way in which their signs may fall. An operation begins
// with it, while others still look at those of the one before. They are rounded once: the phases of many equal angles
// would be off to the same side.
template <class T>
KETGRAD_DEVICE void write_products(const TableOp& op, const Complex<Accum<T>>* phases, Place<T>& place) {
  place.products_begin ^= most_layers * layer_products;
  for (int e = thread_index(); e < op.layers * layer_products; e += block_threads()) {
    const StringSlot* strings = place.t.strings + op.first_string + (e >> pattern_strings) * pattern_strings;
    Complex<Accum<T>> product{1, 0};
#pragma unroll
    for (int j = 0; j < pattern_strings; ++j) {
      const int s = strings[j].string;
      if (s < 0) continue;
      const Complex<Accum<T>> phase = phases[s];
      const auto signs = static_cast<std::uint32_t>(e) << (most_signs - 1 - j);
      product = product * Complex<Accum<T>>{phase.re, with_sign(phase.im, signs)};
    }
    place.products.set(place.products_begin + e, narrowed<T>(product));
  }
}

// sign * exp(-i sum_s angle_s/2 (-1)^parity_s) of each row of a group: products of those of patterns, or of their
// conjugates, which is a transform like hadamard.
template <class T>
KETGRAD_DEVICE void phase_factors(const TableOp& op, const Place<T>& place, Local group, Real<T> sign,
                                  Complex<T>* factors) {
  constexpr std::uint32_t all = (1 << pattern_strings) - 1;
#pragma unroll
  for (int l = 0; l < most_layers; ++l) {
    if (l >= op.layers) continue;
    const std::uint32_t signs = place.signs_of(op.signs[l], group);
    const int begin = place.products_begin + l * layer_products;
#pragma unroll
    for (int p = 0; p < thread_rows; ++p) {
      const std::uint32_t e = (p << pattern_strings) + ((signs >> (p * pattern_strings)) & all);
      const Complex<T> product = place.products.get(begin + static_cast<int>(e));
      factors[p] = l == 0 ? product : factors[p] * product;
    }
  }
  factors[0] = {sign * factors[0].re, sign * factors[0].im};
#pragma unroll
  for (int bit = 1; bit < thread_rows; bit *= 2) {
#pragma unroll
    for (int p = 0; p < thread_rows; ++p) {
      if ((p & bit) != 0) continue;
      const Complex<T> a = factors[p];
      const Complex<T> b = factors[p | bit];
      factors[p] = a * b;
      factors[p | bit] = inner(b, a);
    }
  }
}

// With w = Im(conj(bra) ket), the overlap of a string is the sum of +-w. The sums of all signs at once are a transform,
// over the rows of groups and over lanes; from where its sum ends up, the lane of the string's slot fetches it.
template <class T>
KETGRAD_DEVICE void add_string_overlaps(const TableOp& op, const Place<T>& place, Local group, T* w, Accum<T>* overlaps,
                                        Index stride) {
  hadamard(w);
  lane_hadamard(w);
  for (int l = 0; l < op.layers; ++l) {
    const StringSlot slot = place.t.strings[op.first_string + l * layer_strings + lane()];
    const T sum = fetch(w, static_cast<int>(lane()) / pattern_strings, slot.lane);
    const int number = place.t.rotations + slot.string;
    if (slot.string < 0 || place.t.angles[number].is_constant != 0) continue;
    const std::uint32_t signs = place.signs_of_warp(op.signs[l], group) << (most_signs - 1 - lane());
    add_to_partial(overlaps + number * stride, place, with_sign(sum, signs));
  }
}

// --- operations ------------------------------------------------------------------------------------------------------

// What the operations of a sample are given: its rotations and its phases.
template <class T>
struct SampleParameters {
  const ShearRotation<T>* rotations = nullptr;
  const Complex<Accum<T>>* phases = nullptr;
};

template <class T>
KETGRAD_DEVICE void apply(const TableOp& op, const SampleParameters<T>& parameters, Place<T>& place, Tile<T>& ket,
                          Real<T>& sign) {
  const bool has_strings = op.layers > 0;
  if (has_strings) write_products(op, parameters.phases, place);
  barrier();
  ShearRotation<T> rotations[RotationBlock::most];
  load_rotations(op, parameters.rotations, place.word(op.rotation_signs), false, rotations);
  const Local groups = groups_of(op, place);
  Group group(op);
  for (Local g = thread(); g < groups; g += threads()) {
    group.first = place.t.slots[op.groups + g];
    Complex<T> rows[thread_rows];
    if (has_strings) {
      Complex<T> factors[thread_rows];
      phase_factors(op, place, g, sign, factors);
      group.load(ket, rows);
#pragma unroll
      for (int k = 0; k < thread_rows; ++k) rows[k] = factors[k] * rows[k];
    } else {
      group.load(ket, rows);
    }
#pragma unroll
    for (int j = 0; j < RotationBlock::most; ++j) {
      if (j < op.rotations) rotate_pairs(rows, j, rotations[j]);
    }
    group.store(ket, rows);
  }
  sign = sign_after(op, rotations, has_strings ? Real<T>(1) : sign);
}

template <class T>
KETGRAD_DEVICE void undo(const TableOp& op, const SampleParameters<T>& parameters, Place<T>& place, Tile<T>& ket,
                         Tile<T>& bra, Real<T>& sign, Accum<T>* overlaps, Index stride) {
  const bool has_strings = op.layers > 0;
  if (has_strings) write_products(op, parameters.phases, place);
  barrier();
  const std::uint32_t signs = place.word(op.rotation_signs);
  ShearRotation<T> rotations[RotationBlock::most];
  load_rotations(op, parameters.rotations, signs, true, rotations);
  T sums[RotationBlock::most] = {};
  sign = sign_after(op, rotations, sign);
  const Local groups = groups_of(op, place);
  Group group(op);
  // Whole warps go on together: those of its lanes that have no group add zeros.
  for (Local g = thread(); g - lane() < groups; g += threads()) {
    const bool has_group = g < groups;
    Complex<T> of_ket[thread_rows] = {};
    Complex<T> of_bra[thread_rows] = {};
    if (has_group) {
      group.first = place.t.slots[op.groups + g];
      group.load(ket, of_ket);
      group.load(bra, of_bra);
    }
#pragma unroll
    for (int j = 0; j < RotationBlock::most; ++j) {
      if (j < op.rotations) {
        sums[j] += overlap_pairs(of_ket, of_bra, j);
        rotate_pairs(of_ket, j, rotations[j]);
        rotate_pairs(of_bra, j, rotations[j]);
      }
    }
    if (has_strings) {
      T w[thread_rows];
#pragma unroll
      for (int k = 0; k < thread_rows; ++k) w[k] = of_bra[k].re * of_ket[k].im - of_bra[k].im * of_ket[k].re;
      add_string_overlaps(op, place, g, w, overlaps, stride);
      Complex<T> factors[thread_rows];
      phase_factors(op, place, g, sign, factors);
#pragma unroll
      for (int k = 0; k < thread_rows; ++k) {
        of_ket[k] = inner(factors[k], of_ket[k]);
        of_bra[k] = inner(factors[k], of_bra[k]);
      }
    }
    if (has_group) {
      group.store(ket, of_ket);
      group.store(bra, of_bra);
    }
  }
#pragma unroll
  for (int j = 0; j < RotationBlock::most; ++j) {
    const int number = op.first_angle + j;
    if (j >= op.rotations || place.t.angles[number].is_constant != 0) continue;
    const T sum = warp_sum(sums[j]);
    if (lane() == 0) add_to_partial(overlaps + number * stride, place, with_sign(sum, signs << (most_signs - 1 - j)));
  }
  if (has_strings) sign = 1;
}

// --- words -----------------------------------------------------------------------------------------------------------

// Beyond so many words of a list the sums of all signs at once cost less than one sum each.
constexpr int few_words = 6;

// The sums over a warp of +-values in the words of a list, each in the lane of its number.
template <class T>
KETGRAD_DEVICE T word_sums(const WordList& list, const Place<T>& place, Local group, T* values) {
  hadamard(values);
  if (list.words.count() <= few_words) {
    T own = 0;
    const std::uint32_t signs = place.signs_of(list.signs, group) ^ list.of_values;
    for_each_pattern(list.words, signs, [&](int m, int pattern, std::uint32_t left) {
      const T sum = warp_sum(with_sign(values[pattern], left));
      if (static_cast<int>(lane()) == m) own = sum;
    });
    return own;
  }
  lane_hadamard(values);
  const int last = list.words.count() - 1;
  const Word word =
      place.t.words[list.words.first + (static_cast<int>(lane()) < last ? static_cast<int>(lane()) : last)];
  const T own = fetch(values, word.pattern, word.lane);
  return with_sign(own, (place.signs_of_warp(list.signs, group) ^ list.of_values) << lane());
}

// <P> is the sum over rows q of Re(i^quarter (-1)^parity(q) conj(psi_(q ^ flip)) psi_q).
template <class T>
KETGRAD_DEVICE void add_word_values(const Range& groups, const Place<T>& place, const Tile<T>& ket, Accum<T>* partials,
                                    Index stride) {
  for_each_round(place, [&](const Round& round) {
    const auto add = [&](const WordList& list, T* values) {
      const T sum = word_sums(list, place, round.group, values);
      if (static_cast<int>(lane()) >= list.words.count()) return;
      Accum<T>* partial = partials + (list.words.first + lane()) * stride;
      if (place.first && round.number == 0) partial[place.partial] = 0;
      add_to_partial(partial, place, sum);
    };
    Complex<T> rows[thread_rows];
    for_each_row(round, [&](int u, Local, Local s) { rows[u] = ket.get(s); });
    for (int g = groups.first; g < groups.first + groups.count; ++g) {
      const FlipGroup& group = place.t.flip_groups[g];
      const Local flip = group.flip;
      Complex<T> partners[thread_rows];
      for_each_row(round, [&](int u, Local, Local s) { partners[u] = flip == 0 ? rows[u] : ket.get(s ^ flip); });
      T values[thread_rows];
      if (group.real.words.count() > 0) {
#pragma unroll
        for (int u = 0; u < thread_rows; ++u) values[u] = inner(partners[u], rows[u]).re;
        add(group.real, values);
      }
      if (group.imaginary.words.count() > 0) {
#pragma unroll
        for (int u = 0; u < thread_rows; ++u) values[u] = -inner(partners[u], rows[u]).im;
        add(group.imaginary, values);
      }
    }
  });
}

// The rows of a round of sum_w weight_w P_w psi: row r has i^quarter (-1)^parity(q) psi_q of q = r ^ flip.
template <class T>
KETGRAD_DEVICE void word_rows(const Range& groups, const Place<T>& place, const Round& round, const Tile<T>& ket,
                              const T* weights, Complex<T>* rows) {
#pragma unroll
  for (int u = 0; u < thread_rows; ++u) rows[u] = {};
  for (int g = groups.first; g < groups.first + groups.count; ++g) {
    const FlipGroup& group = place.t.flip_groups[g];
    const Local flip = group.flip;
    T real[thread_rows] = {};
    T imaginary[thread_rows] = {};
    const auto add = [&](const WordList& list, T* sums) {
      if (list.words.count() == 0) return;
      const std::uint32_t signs = place.signs_of(list.signs, round.group) ^ list.of_rows;
      const T* weight = weights + list.words.first;
      for_each_pattern(list.words, signs,
                       [&](int, int pattern, std::uint32_t left) { sums[pattern] += with_sign(*weight++, left); });
      hadamard(sums);
    };
    add(group.real, real);
    add(group.imaginary, imaginary);
    for_each_row(round,
                 [&](int u, Local, Local s) { rows[u] += Complex<T>{real[u], imaginary[u]} * ket.get(s ^ flip); });
  }
}

// --- tiles -----------------------------------------------------------------------------------------------------------

// What a block needs to go through its tiles. Sums have `partials_each` partials a sample; a grid of fewer leaves the
// others alone, which are zero.
template <class T>
class Block {
 public:
  // `pass` says where tiles are; nobody looks at it where a tile is the state.
  template <class Pass>
  KETGRAD_DEVICE Block(const TileCall<T>& c, const TileGrid& grid, int tile_bits, int states, const Pass& pass,
                       Index partials_each)
      : words_(pass.tile_words),
        bits_(c.num_bits - tile_bits),
        parts_(static_cast<int>(grid.parts)),
        part_(static_cast<int>(block_index()) % parts_),
        place_{
            c.t,
            static_cast<int>(block_index()) / parts_,
            tile_bits,
            tile_bits >= c.num_bits,
            *c.some_nan != 0,
            {},
            0,
            {tile_bytes<T>(tile_bits, states) + product_bytes<T>, tile_bits >= c.num_bits ? 0 : pass.tile_words.count},
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
        write_words(tile);
        barrier();
        place_.base = place_.wide_word(words_.base);
      }
      f();
      barrier();  // the next tile goes where this one is
    }
  }

 private:
  KETGRAD_DEVICE void write_words(int tile) {
    const TileWords words = words_;
    for (int w = thread_index(); w < words.count; w += block_threads()) {
      const std::uint32_t* of_bits = place_.t.words_of_bits + words.first + w;
      std::uint32_t word = of_bits[0];
      for (int b = 0; b < bits_; ++b)
        word ^= of_bits[(b + 1) * words.count] & (0u - static_cast<std::uint32_t>((tile >> b) & 1));
      place_.tile_words.set(w, word);
    }
  }

  const TileWords& words_;
  int bits_;  // of a tile's number
  int parts_;
  int part_;
  int end_ = 1;
  Place<T> place_;
};

// Rows outside the support are zero, and not in memory.
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

// --- kernels ---------------------------------------------------------------------------------------------------------

template <class T>
KETGRAD_KERNEL KETGRAD_BOUNDS(most_threads, blocks_held<T>)
    forward_kernel(TileCall<T> c, TileGrid grid, ForwardTiles<T> f, int tile_bits, Range groups) {
  const TablesView& t = c.t;
  const TilePass& pass = t.passes[f.first_pass];
  Block<T> block(c, grid, tile_bits, 1, pass, f.partials_each);
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
    if (f.measures) add_word_values(groups, place, ket, f.partials, c.samples.count * f.partials_each);
  });
}

template <class T>
KETGRAD_KERNEL KETGRAD_BOUNDS(most_threads, blocks_held<T>)
    backward_kernel(TileCall<T> c, TileGrid grid, BackwardTiles<T> b, int tile_bits, Range groups, Index words) {
  const TablesView& t = c.t;
  const TilePass& pass = t.passes[b.first_pass];
  Block<T> block(c, grid, tile_bits, 2, pass, b.overlap_partials);
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
        word_rows(groups, place, round, ket, b.weights + place.sample * words, rows);
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
    // What earlier passes do not look at need not be written.
    if (b.ket != nullptr) store_tile(place, pass.before, ket, sign, b.ket + state);
    if (b.writes_bra) store_tile(place, pass.before, bra, sign, b.bra + state);
  });
}

template <class T>
KETGRAD_KERNEL KETGRAD_BOUNDS(most_threads, blocks_held<T>)
    measure_kernel(TileCall<T> c, TileGrid grid, WordPass pass, const Complex<T>* kets, Accum<T>* partials,
                   Index partials_each) {
  Block<T> block(c, grid, pass.tile_bits, 1, pass, partials_each);
  Place<T>& place = block.place();
  block.for_each_tile([&] {
    Tile<T> ket(0, place.padded_size());
    load_tile(place, SupportMap{}, kets + (static_cast<Index>(place.sample) << c.num_bits), ket);
    barrier();
    add_word_values(pass.groups, place, ket, partials, c.samples.count * partials_each);
  });
}

template <class T>
KETGRAD_KERNEL KETGRAD_BOUNDS(most_threads, blocks_held<T>)
    bra_kernel(TileCall<T> c, TileGrid grid, WordPass pass, const Complex<T>* kets, Complex<T>* bras, const T* weights,
               Index words, bool begins) {
  Block<T> block(c, grid, pass.tile_bits, 1, pass, grid.partials());
  Place<T>& place = block.place();
  const Index state = static_cast<Index>(place.sample) << c.num_bits;
  block.for_each_tile([&] {
    Tile<T> ket(0, place.padded_size());
    load_tile(place, SupportMap{}, kets + state, ket);
    barrier();
    for_each_round(place, [&](const Round& round) {
      Complex<T> rows[thread_rows];
      word_rows(pass.groups, place, round, ket, weights + place.sample * words, rows);
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

Range all_groups(const Tables& tables) { return tables.word_passes.empty() ? Range{} : tables.word_passes[0].groups; }

// The tiles that a launch goes through, and how many words each has.
struct Shape {
  int tile_bits = 0;
  Index tiles = 1;
  int words = 0;

  template <class Pass>
  static Shape of(const Tables& tables, const Pass& pass) {
    return {pass.tile_bits, pass.tiles, pass.tile_bits < tables.num_wires ? pass.tile_words.count : 0};
  }

  // Of the passes from `first` on: whole states where there is none.
  static Shape of(const Tables& tables, int first, int end) {
    return first < end ? of(tables, tables.passes[first]) : Shape{tables.num_wires};
  }

  // Of shared memory, for tiles of so many states.
  template <class T>
  std::size_t bytes(int states) const {
    return tile_bytes<T>(tile_bits, states) + product_bytes<T> + words * sizeof(std::uint32_t);
  }
};

// A launch of tiles of so many states.
template <class T, class... Parameters, class... Arguments>
void launch_tiles(const Queue& queue, const TileCall<T>& call, const Shape& shape, int states,
                  void (*kernel)(Parameters...), const Arguments&... arguments) {
  const TileGrid grid = grid_of(shape.tile_bits, shape.tiles, call.chunk, call.multiprocessors);
  launch(queue, call.samples.count * grid.parts, grid.threads, shape.bytes<T>(states), kernel, call, grid,
         arguments...);
}

}  // namespace

template <class T>
std::size_t most_shared_bytes(const Tables& tables) {
  std::size_t most = 0;
  for (const TilePass& pass : tables.passes) {
    if (pass.gate_op == Element::none) most = std::max(most, Shape::of(tables, pass).bytes<T>(2));
  }
  for (const WordPass& pass : tables.word_passes) most = std::max(most, Shape::of(tables, pass).bytes<T>(1));
  return most;
}

TileGrid grid_of(int tile_bits, Index tiles, Index samples, int multiprocessors) {
  // A multiple of how many blocks a multiprocessor holds, one to three, so that they end together.
  constexpr Index blocks_each = 6;
  TileGrid grid;
  grid.tiles = tiles;
  grid.parts = std::clamp<Index>(blocks_each * multiprocessors / std::max<Index>(samples, 1), 1, grid.tiles);
  grid.threads = threads_of(tile_bits);
  return grid;
}

template <class T>
void run_forward(const Queue& queue, const Tables& tables, const TileCall<T>& call, const ForwardTiles<T>& f) {
  const Shape shape = Shape::of(tables, f.first_pass, f.end_pass);
  launch_tiles(queue, call, shape, 1, forward_kernel<T>, f, shape.tile_bits, all_groups(tables));
}

template <class T>
void run_backward(const Queue& queue, const Tables& tables, const TileCall<T>& call, const BackwardTiles<T>& b) {
  const Shape shape = Shape::of(tables, b.first_pass, b.end_pass);
  launch_tiles(queue, call, shape, 2, backward_kernel<T>, b, shape.tile_bits, all_groups(tables),
               static_cast<Index>(tables.words.size()));
}

template <class T>
void measure_words(const Queue& queue, const Tables& tables, const TileCall<T>& call, int word_pass,
                   const Complex<T>* ket, Accum<T>* partials, Index partial_stride) {
  const WordPass& pass = tables.word_passes[word_pass];
  launch_tiles(queue, call, Shape::of(tables, pass), 1, measure_kernel<T>, pass, ket, partials, partial_stride);
}

template <class T>
void add_words(const Queue& queue, const Tables& tables, const TileCall<T>& call, int word_pass, const Complex<T>* ket,
               Complex<T>* bra, const T* weights, bool begins) {
  const WordPass& pass = tables.word_passes[word_pass];
  launch_tiles(queue, call, Shape::of(tables, pass), 1, bra_kernel<T>, pass, ket, bra, weights,
               static_cast<Index>(tables.words.size()), begins);
}

#define KETGRAD_TILES(T)                                                                                          \
  template std::size_t most_shared_bytes<T>(const Tables&);                                                       \
  template void run_forward(const Queue&, const Tables&, const TileCall<T>&, const ForwardTiles<T>&);             \
  template void run_backward(const Queue&, const Tables&, const TileCall<T>&, const BackwardTiles<T>&);           \
  template void measure_words(const Queue&, const Tables&, const TileCall<T>&, int, const Complex<T>*, Accum<T>*, \
                              Index);                                                                             \
  template void add_words(const Queue&, const Tables&, const TileCall<T>&, int, const Complex<T>*, Complex<T>*,   \
                          const T*, bool);
KETGRAD_FOR_NUMBERS(KETGRAD_TILES)
#undef KETGRAD_TILES

}  // namespace ketgrad::cuda
