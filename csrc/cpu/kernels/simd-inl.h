// Rows: vectors of the instruction set that this is compiled for, and how their numbers change places.
//
// KETGRAD_ROW_BYTES is the size of the set's vectors; KETGRAD_VECTOR_PERMUTES says that one instruction permutes a
// vector by another. Without them this is the portable set, which is also what an editor reads.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "cpu/kernels/loops-inl.h"
#include "cpu/lanes.h"
#include "math/bits.h"

#ifndef KETGRAD_ROW_BYTES
#define KETGRAD_ROW_BYTES 16
#endif

namespace ketgrad {
namespace {

constexpr int row_bytes = KETGRAD_ROW_BYTES;

template <class T>
using Row = typename VectorOf<T, row_bytes>::type;

// Numbers in a row: lanes of a batch.
template <class T>
constexpr int batch_lanes = row_bytes / static_cast<int>(sizeof(T));

// A row at any address that a T may have; it may alias T.
typedef float FloatRowAnywhere __attribute__((vector_size(row_bytes), aligned(4), may_alias));
typedef double DoubleRowAnywhere __attribute__((vector_size(row_bytes), aligned(8), may_alias));

inline Row<float> load_row(const float* p) { return *reinterpret_cast<const FloatRowAnywhere*>(p); }
inline Row<double> load_row(const double* p) { return *reinterpret_cast<const DoubleRowAnywhere*>(p); }
inline void store_row(float* p, const Row<float>& v) { *reinterpret_cast<FloatRowAnywhere*>(p) = v; }
inline void store_row(double* p, const Row<double>& v) { *reinterpret_cast<DoubleRowAnywhere*>(p) = v; }

// --- lanes -----------------------------------------------------------------------------------------------------------

// (a, b)[F::at(l)] for each lane l, the lanes of b counting on from those of a.
template <class F, class V, std::size_t... l>
inline V shuffled(const V& a, const V& b, std::index_sequence<l...>) {
  return __builtin_shufflevector(a, b, F::at(static_cast<int>(l))...);
}

template <class F, class V>
inline V shuffled(const V& a, const V& b) {
  return shuffled<F>(a, b, std::make_index_sequence<lane_width<V>>());
}

// What two rows that are `distance` apart become where the distance's bit of the row and of the lane change places.
template <int distance, int width, bool upper>
struct Exchanged {
  static constexpr int at(int l) {
    const bool from_upper = (l & distance) != 0;
    return from_upper ? width + l - (upper ? 0 : distance) : l + (upper ? distance : 0);
  }
};

// rows[i][l] -> rows[l][i], bit by bit.
template <int distance = 1, class V>
KETGRAD_ALWAYS_INLINE inline void transpose(V* rows) {
  constexpr int width = lane_width<V>;
  if constexpr (distance < width) {
#pragma GCC unroll 16
    for (int i = 0; i < width; ++i) {
      if ((i & distance) != 0) continue;
      const V a = rows[i];
      const V b = rows[i + distance];
      rows[i] = shuffled<Exchanged<distance, width, false>>(a, b);
      rows[i + distance] = shuffled<Exchanged<distance, width, true>>(a, b);
    }
    transpose<2 * distance>(rows);
  }
}

template <int flip>
struct Flipped {
  static constexpr int at(int l) { return l ^ flip; }
};

// (re, im) -> (im, re) in each pair.
template <class V>
inline V trade_parts(const V& v) {
  return shuffled<Flipped<1>>(v, v);
}

struct First {
  static constexpr int at(int l) { return l & ~1; }
};

struct Second {
  static constexpr int at(int l) { return l | 1; }
};

// (re, im) -> (re, re) and (im, im).
template <class V>
inline V first_parts(const V& v) {
  return shuffled<First>(v, v);
}

template <class V>
inline V second_parts(const V& v) {
  return shuffled<Second>(v, v);
}

// v[l ^ flip] for each number l: one instruction where a machine has a permutation by a vector.
template <class V>
inline V flipped(const V& v, Mask flip) {
#if defined(KETGRAD_VECTOR_PERMUTES)
  using Lane = std::conditional_t<sizeof(v[0]) == sizeof(float), std::int32_t, std::int64_t>;
  typedef Lane Lanes __attribute__((vector_size(row_bytes)));
  Lanes from{};
  for (int l = 0; l < lane_width<V>; ++l) from[l] = l;
  return __builtin_shuffle(v, from ^ static_cast<Lane>(flip));
#else
  constexpr int last = lane_width<V> - 1;
  V found = v;
  if ((flip & 1) != 0) found = shuffled<Flipped<1 & last>>(found, found);
  if ((flip & 2) != 0) found = shuffled<Flipped<2 & last>>(found, found);
  if ((flip & 4) != 0) found = shuffled<Flipped<4 & last>>(found, found);
  if ((flip & 8) != 0) found = shuffled<Flipped<8 & last>>(found, found);
  return found;
#endif
}

// Trades the (re, im) pairs at lane l and l ^ flip.
template <class V>
inline V trade_lanes(const V& v, Mask flip) {
  return flipped(v, 2 * flip);
}

// And the parts of each pair as well.
template <class V>
inline V trade_lanes_and_parts(const V& v, Mask flip, bool parts) {
  return flipped(v, 2 * flip + (parts ? 1 : 0));
}

// Stores past the caches, to an address aligned to the row.
template <class T>
inline void stream_row(T* p, const Row<T>& v) {
#if KETGRAD_ROW_BYTES == 64
  if constexpr (sizeof(T) == sizeof(float)) {
    __builtin_ia32_movntps512(p, v);
  } else {
    __builtin_ia32_movntpd512(p, v);
  }
#elif KETGRAD_ROW_BYTES == 32
  if constexpr (sizeof(T) == sizeof(float)) {
    __builtin_ia32_movntps256(p, v);
  } else {
    __builtin_ia32_movntpd256(p, v);
  }
#else
  store_row(p, v);
#endif
}

// Makes streamed rows visible to other threads.
inline void finish_streaming() {
#if KETGRAD_ROW_BYTES > 16
  __builtin_ia32_sfence();
#endif
}

// (re, im) -> (-re, im) in each pair.
template <class V>
inline V first_negated(const V& v) {
  V sign{};
  for (int l = 0; l < lane_width<V>; ++l) sign[l] = (l & 1) == 0 ? -1 : 1;
  return sign * v;
}

// i v for each pair of v: (re, im) -> (-im, re).
template <class V>
inline V times_i(const V& v) {
  return first_negated(trade_parts(v));
}

template <class V>
inline Scalar<V> sum_lanes(const V& v) {
  Scalar<V> total = 0;
  for (int l = 0; l < lane_width<V>; ++l) total += v[l];
  return total;
}

// 1 or -1 for each pair of a row, by the parity of its lane's bits under the mask.
template <class T>
Row<T> lane_signs(Mask lane_mask) {
  Row<T> signs{};
  for (int l = 0; l < batch_lanes<T>; ++l) signs[l] = odd_parity(static_cast<Mask>(l / 2) & lane_mask) ? -1 : 1;
  return signs;
}

// Which numbers of a row belong to pairs whose lane's bits under the mask are odd, or even.
template <class T>
auto lanes_of_parity(Mask lane_mask, bool even) {
  const Row<T> signs = lane_signs<T>(lane_mask);
  return even ? signs > Row<T>{} : signs < Row<T>{};
}

}  // namespace
}  // namespace ketgrad
