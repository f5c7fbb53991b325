// Cells, phases and sign sums.
//
// A cell is what one row of a tile holds: neighbouring amplitudes of a single state (one vector of (re, im) pairs), or
// one amplitude of as many samples as there are lanes (a vector of real and a vector of imaginary parts).
#pragma once

#include <algorithm>
#include <bit>
#include <span>

#include "cpu/kernels/loops-inl.h"
#include "cpu/kernels/simd-inl.h"
#include "runtime/buffer.h"

namespace ketgrad {
namespace {

// What returns a pair cell must be inlined. Out of line it comes back in a vector register, and GCC 12.2 was seen to
// clear the upper part of that (vzeroupper) before the return: results were wrong, or not, by what else was inlined.

template <class T>
struct PairCell {
  using Real = T;
  using V = Row<T>;
  static constexpr bool is_pair = true;
  static constexpr int packed_together = 2;  // rows whose real numbers, one an amplitude, fill a vector
  V v;

  static KETGRAD_ALWAYS_INLINE PairCell load(const T* state, Index row) {
    return {load_row(state + row * batch_lanes<T>)};
  }
  void store(T* state, Index row) const { store_row(state + row * batch_lanes<T>, v); }
  KETGRAD_ALWAYS_INLINE PairCell times_i() const { return {ketgrad::times_i(v)}; }
  KETGRAD_ALWAYS_INLINE PairCell times(const V& s) const { return {s * v}; }
  KETGRAD_ALWAYS_INLINE PairCell plus(const PairCell& o) const { return {v + o.v}; }
  // Re(conj(this) o), before the pairs are added up.
  V inner(const PairCell& o) const { return v * o.v; }
};

template <class T>
struct LaneCell {
  using Real = T;
  using V = Row<T>;
  static constexpr bool is_pair = false;
  static constexpr int packed_together = 1;
  V re;
  V im;

  static LaneCell load(const T* state, Index row) {
    return {load_row(state + 2 * row * batch_lanes<T>), load_row(state + (2 * row + 1) * batch_lanes<T>)};
  }
  void store(T* state, Index row) const {
    store_row(state + 2 * row * batch_lanes<T>, re);
    store_row(state + (2 * row + 1) * batch_lanes<T>, im);
  }
  LaneCell times_i() const { return {-im, re}; }
  LaneCell times(const V& s) const { return {s * re, s * im}; }
  LaneCell plus(const LaneCell& o) const { return {re + o.re, im + o.im}; }
  V inner(const LaneCell& o) const { return re * o.re + im * o.im; }
};

template <class T>
KETGRAD_ALWAYS_INLINE inline PairCell<T> trade(const PairCell<T>& cell, Mask flip) {
  return {trade_lanes(cell.v, flip)};
}

template <class T>
inline LaneCell<T> trade(const LaneCell<T>& cell, Mask) {
  return cell;
}

// A factor re + i im. Of a pair cell both parts stand twice, the imaginary one as (-im, im): products of such factors
// are such factors, and times_i's sign is in them already.
template <class C>
struct PhaseFactor {
  C re;
  C im;
};

template <class T>
KETGRAD_ALWAYS_INLINE inline PairCell<T> times_phase(const PairCell<T>& x, const PhaseFactor<Row<T>>& f) {
  return {f.re * x.v + f.im * trade_parts(x.v)};
}

template <class T, class C>
inline LaneCell<T> times_phase(const LaneCell<T>& x, const PhaseFactor<C>& f) {
  return {f.re * x.re - f.im * x.im, f.re * x.im + f.im * x.re};
}

template <class C>
inline PhaseFactor<C> times_phase(const PhaseFactor<C>& x, const PhaseFactor<C>& f) {
  return {x.re * f.re - x.im * f.im, x.re * f.im + x.im * f.re};
}

// Tables hold factors of lane cells as they are, those of pair cells in half the space, as pairs themselves.

template <class C>
inline void pack_factor(const PhaseFactor<C>& f, PhaseFactor<C>& packed) {
  packed = f;
}

template <class T>
inline void pack_factor(const PhaseFactor<Row<T>>& f, PairCell<T>& packed) {
  for (int l = 0; l < batch_lanes<T>; ++l) packed.v[l] = (l & 1) == 0 ? f.re[l] : f.im[l];
}

template <class C>
inline PhaseFactor<C> unpack_factor(const PhaseFactor<C>& f) {
  return f;
}

template <class T>
inline PhaseFactor<Row<T>> unpack_factor(const PairCell<T>& f) {
  return {first_parts(f.v), first_negated(second_parts(f.v))};
}

// --- tables of factors -----------------------------------------------------------------------------------------------

// A string in numbers: exp(-i angle/2) at even places, and what that is multiplied by at odd ones, exp(+i angle).
template <class C>
struct PhaseParameters {
  Mask row_mask = 0;
  PhaseFactor<C> start;
  PhaseFactor<C> odd;
};

// Of a string with this half angle.
template <class T>
inline PhaseParameters<T> phase_parameters(Mask row_mask, double cosine, double sine) {
  return {row_mask,
          {static_cast<T>(cosine), static_cast<T>(-sine)},
          {static_cast<T>((cosine - sine) * (cosine + sine)), static_cast<T>(2 * cosine * sine)}};
}

template <class C>
inline PhaseFactor<C> conj(const PhaseFactor<C>& f) {
  return {f.re, -f.im};
}

// A factor by which rows are multiplied, or by its conjugate where (row & mask) is odd.
template <class C>
struct VaryingFactor {
  Mask mask = 0;
  PhaseFactor<C> even;
};

// Factors that are taken together: their product is formed first, for each pattern of parities.
constexpr int most_varying = 6;

// table[rows + r] = source[r] * common * the varying factors.
template <class F, class C>
void multiply_varying(F* table, Index rows, const F* source, const VaryingFactor<C>* varying, int count,
                      const PhaseFactor<C>& common) {
  PhaseFactor<C> product[1 << most_varying];
  product[0] = common;
  for (int j = 0; j < count; ++j) {
    for (int p = 0; p < 1 << j; ++p) {
      product[p | 1 << j] = times_phase(product[p], conj(varying[j].even));
      product[p] = times_phase(product[p], varying[j].even);
    }
  }
  const auto pattern = [&](Index row) {
    unsigned found = 0;
    for (int j = 0; j < count; ++j) found |= unsigned{odd_parity(static_cast<Mask>(row) & varying[j].mask)} << j;
    return found;
  };
  constexpr Index run = 16;
  unsigned low[run];
  for (Index i = 0; i < run; ++i) low[i] = pattern(i);
  for (Index first = 0; first < rows; first += run) {
    const unsigned high = pattern(first);
    for (Index i = 0; i < std::min(run, rows); ++i)
      table[rows + first + i] = times_phase(source[first + i], product[high ^ low[i]]);
  }
}

// Factors of all 2^row_bits rows, bit by bit: a row with the bit differs from the row without it by the strings that
// contain the bit, with a sign that depends on the lower bits of each. Strings with equal lower bits are taken
// together.
template <class F, class C>
void fill_phases(F* table, int row_bits, std::span<const PhaseParameters<C>> strings, const C& scale,
                 LaneVector<VaryingFactor<C>>& varying) {
  PhaseFactor<C> start{scale, C{}};
  for (const PhaseParameters<C>& s : strings) start = times_phase(start, s.start);
  pack_factor(start, table[0]);
  for (int bit = 0; bit < row_bits; ++bit) {
    PhaseFactor<C> common{C{} + 1, C{}};
    varying.clear();
    for (const PhaseParameters<C>& s : strings) {
      if (((s.row_mask >> bit) & 1) == 0) continue;
      const Mask lower = s.row_mask & (unit(bit) - 1);
      if (lower == 0) {
        common = times_phase(common, s.odd);
        continue;
      }
      const auto same = std::find_if(varying.begin(), varying.end(), [&](const auto& v) { return v.mask == lower; });
      if (same == varying.end()) {
        varying.push_back({lower, s.odd});
      } else {
        same->even = times_phase(same->even, s.odd);
      }
    }
    const Index rows = Index{1} << bit;
    const F* source = table;
    const PhaseFactor<C> one{C{} + 1, C{}};
    // Patterns must be far fewer than rows.
    const int most = std::clamp(bit - 3, 1, most_varying);
    const int count = static_cast<int>(varying.size());
    for (int j = 0; j == 0 || j < count; j += most) {
      multiply_varying(table, rows, source, varying.data() + j, std::min(most, count - j), j == 0 ? common : one);
      source = table + rows;
    }
  }
}

// Multiplies the rows with numbers in [0, end) by the factors of these numbers.
template <class Cell, class F>
void apply_phases(typename Cell::Real* state, const F* table, const IndexMap& rows, Index end) {
  for_each_group<1>(rows, end, [&](Index r, const Index* row) KETGRAD_ALWAYS_INLINE {
    times_phase(Cell::load(state, *row), unpack_factor(table[r])).store(state, *row);
  });
}

// --- sums with signs -------------------------------------------------------------------------------------------------

// What is written for the cells of a tile, a real number an amplitude: of pair cells as packed vectors, of lane cells
// as a vector of samples each.

template <int first, int step_num, int step_den>
struct Strided {
  static constexpr int at(int l) { return first + l * step_num / step_den; }
};

template <class V>
inline V even_lanes(const V& a, const V& b) {
  return shuffled<Strided<0, 2, 1>>(a, b);
}

template <class V>
inline V odd_lanes(const V& a, const V& b) {
  return shuffled<Strided<1, 2, 1>>(a, b);
}

// Duplicates each lane of the lower, or upper, half.
template <class V>
inline V low_pairs(const V& v) {
  return shuffled<Strided<0, 1, 2>>(v, v);
}

template <class V>
inline V high_pairs(const V& v) {
  return shuffled<Strided<lane_width<V> / 2, 1, 2>>(v, v);
}

// Im(conj(bra) ket) of the amplitudes of two pair cells.
template <class T>
inline Row<T> imaginary_products(const PairCell<T>* bra, const PairCell<T>* ket) {
  const Row<T> first = bra[0].v * trade_parts(ket[0].v);
  const Row<T> second = bra[1].v * trade_parts(ket[1].v);
  return even_lanes(first, second) - odd_lanes(first, second);
}

// And of one lane cell.
template <class T>
inline Row<T> imaginary_products(const LaneCell<T>* bra, const LaneCell<T>* ket) {
  return bra->re * ket->im - bra->im * ket->re;
}

// Multiplies ket and bra by the factors, which are the inverse's. With `requested`, writes Im(conj(bra) ket) of each
// amplitude, which no phase changes.
template <class Cell, bool requested, class F>
void undo_phases(typename Cell::Real* ket, typename Cell::Real* bra, const F* table, const IndexMap& rows, Index end,
                 Row<typename Cell::Real>* products) {
  constexpr int together = Cell::packed_together;
  for_each_group<together>(rows, end, [&](Index r, const Index* row) KETGRAD_ALWAYS_INLINE {
    Cell x[together];
    Cell y[together];
    for (int i = 0; i < together; ++i) {
      x[i] = Cell::load(ket, row[i]);
      y[i] = Cell::load(bra, row[i]);
    }
    if constexpr (requested) products[r / together] = imaginary_products(y, x);
    for (int i = 0; i < together; ++i) {
      const auto factor = unpack_factor(table[r + i]);
      times_phase(x[i], factor).store(ket, row[i]);
      times_phase(y[i], factor).store(bra, row[i]);
    }
  });
}

// The Walsh-Hadamard transform: out[m] = sum_r (-1)^popcount(r & m) in[r]. In place, up to three bits at a time.
template <int k, class V>
void hadamard_pass(V* v, Index size, Index stride) {
  for (Index block = 0; block < size; block += stride << k) {
    for (Index i = block; i < block + stride; ++i) {
      V x[1 << k];
      for (int m = 0; m < 1 << k; ++m) x[m] = v[i + m * stride];
      for (int j = 0; j < k; ++j) {
        for (int m = 0; m < 1 << k; ++m) {
          if ((m >> j) & 1) continue;
          const V a = x[m];
          x[m] = a + x[m | 1 << j];
          x[m | 1 << j] = a - x[m | 1 << j];
        }
      }
      for (int m = 0; m < 1 << k; ++m) v[i + m * stride] = x[m];
    }
  }
}

template <class V>
void hadamard(V* v, Index size) {
  Index stride = 1;
  for (; stride * 8 <= size; stride *= 8) hadamard_pass<3>(v, size, stride);
  if (stride * 4 <= size) {
    hadamard_pass<2>(v, size, stride);
  } else if (stride * 2 <= size) {
    hadamard_pass<1>(v, size, stride);
  }
}

// How numbers of a tile's amplitudes are laid out for these sums: `vector` says in which vector a mask's sum is after
// the transform, `signs` how its lanes are to be added up.
template <class Cell>
struct SignSums {
  using T = typename Cell::Real;
  using V = Row<T>;
  // Bits of an amplitude's place that lie within a vector: lane bits and one row bit.
  static constexpr int packed_bits = Cell::is_pair ? std::bit_width(static_cast<unsigned>(batch_lanes<T>)) - 1 : 0;
  static constexpr int lane_bits = Cell::is_pair ? packed_bits - 1 : 0;

  static Index vectors(Index rows) { return Cell::is_pair ? rows / 2 : rows; }
  static Mask place(Mask row_mask, Mask lane_mask) { return row_mask << lane_bits | lane_mask; }
  static Index vector(Mask place) { return static_cast<Index>(place >> packed_bits); }

  static V signs(Mask place) {
    V found{};
    for (int l = 0; l < batch_lanes<T>; ++l)
      found[l] = Cell::is_pair && odd_parity(static_cast<Mask>(l) & place) ? -1 : 1;
    return found;
  }

  // The value, at the amplitudes of a row, of a real function that is laid out in this way.
  static V function_at(const V* function, Index row) {
    if constexpr (Cell::is_pair) {
      return (row & 1) == 0 ? low_pairs(function[row / 2]) : high_pairs(function[row / 2]);
    } else {
      return function[row];
    }
  }
};

}  // namespace
}  // namespace ketgrad
