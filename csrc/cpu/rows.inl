// Turns on rows. Included by walk.inl.
//
// A row is one vector of the machine: neighbouring amplitudes of a single state, as (re, im) pairs, or one part of one
// amplitude of as many samples as there are lanes. A turn is a real matrix, so it does not care which: on the rows x0,
// x1 of a pair it is x0' = a x0 - b x1, x1' = a x1 + b x0 with a = cos, b = +-sin of half the angle. `fast` leaves the
// cosine out (a = 1, b = +-tan): half the arithmetic, and as accurate, since the factor that is missing is one number
// for the whole state, which phases absorb later.

template <class T>
using Row = typename BatchLanes<T>::type;

// A row at any address that a T may have; it may alias T.
typedef float FloatRowAnywhere __attribute__((vector_size(64), aligned(4), may_alias));
typedef double DoubleRowAnywhere __attribute__((vector_size(64), aligned(8), may_alias));

inline FloatLanes load_row(const float* p) { return *reinterpret_cast<const FloatRowAnywhere*>(p); }
inline DoubleLanes load_row(const double* p) { return *reinterpret_cast<const DoubleRowAnywhere*>(p); }
inline void store_row(float* p, const FloatLanes& v) { *reinterpret_cast<FloatRowAnywhere*>(p) = v; }
inline void store_row(double* p, const DoubleLanes& v) { *reinterpret_cast<DoubleRowAnywhere*>(p) = v; }

// --- lanes ------------------------------------------------------------------------------------------------------------

// Trades the (re, im) pairs at lane l and l ^ flip.
template <int flip>
inline FloatLanes trade_lanes(const FloatLanes& v) {
  constexpr int f = 2 * flip;
  return __builtin_shufflevector(v, v, 0 ^ f, 1 ^ f, 2 ^ f, 3 ^ f, 4 ^ f, 5 ^ f, 6 ^ f, 7 ^ f, 8 ^ f, 9 ^ f, 10 ^ f,
                                 11 ^ f, 12 ^ f, 13 ^ f, 14 ^ f, 15 ^ f);
}

template <int flip>
inline DoubleLanes trade_lanes(const DoubleLanes& v) {
  constexpr int f = 2 * (flip & 3);
  return __builtin_shufflevector(v, v, 0 ^ f, 1 ^ f, 2 ^ f, 3 ^ f, 4 ^ f, 5 ^ f, 6 ^ f, 7 ^ f);
}

// Calls f with the flip as a constant, 0 included.
template <class F>
inline void with_flip(Mask flip, const F& f) {
  switch (flip) {
    case 0: return f(std::integral_constant<int, 0>());
    case 1: return f(std::integral_constant<int, 1>());
    case 2: return f(std::integral_constant<int, 2>());
    case 3: return f(std::integral_constant<int, 3>());
    case 4: return f(std::integral_constant<int, 4>());
    case 5: return f(std::integral_constant<int, 5>());
    case 6: return f(std::integral_constant<int, 6>());
    default: return f(std::integral_constant<int, 7>());
  }
}

// (re, im) -> (im, re) in each pair.
inline FloatLanes trade_parts(const FloatLanes& v) {
  return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
}
inline DoubleLanes trade_parts(const DoubleLanes& v) { return __builtin_shufflevector(v, v, 1, 0, 3, 2, 5, 4, 7, 6); }

// trade_lanes where the flip changes from row to row: one instruction where a machine has a permutation by a vector.
template <class V>
inline V trade_lanes_by(const V& v, Mask flip) {
#if defined(KETGRAD_AVX512)
  using Lane = std::conditional_t<sizeof(v[0]) == sizeof(float), std::int32_t, std::int64_t>;
  typedef Lane Lanes __attribute__((vector_size(64)));
  Lanes from;
  for (int l = 0; l < lane_width<V>; ++l) from[l] = l;
  return __builtin_shuffle(v, from ^ static_cast<Lane>(2 * flip));
#else
  V found = v;
  with_flip(flip, [&](auto f) { found = trade_lanes<f>(v); });
  return found;
#endif
}

// And where the parts of each pair trade places as well.
template <class V>
inline V trade_lanes_and_parts(const V& v, Mask flip, bool parts) {
#if defined(KETGRAD_AVX512)
  using Lane = std::conditional_t<sizeof(v[0]) == sizeof(float), std::int32_t, std::int64_t>;
  typedef Lane Lanes __attribute__((vector_size(64)));
  Lanes from;
  for (int l = 0; l < lane_width<V>; ++l) from[l] = l;
  return __builtin_shuffle(v, from ^ static_cast<Lane>(2 * flip + (parts ? 1 : 0)));
#else
  const V traded = flip == 0 ? v : trade_lanes_by(v, flip);
  return parts ? trade_parts(traded) : traded;
#endif
}

// Stores past the caches, to an address aligned to the row.
template <class T>
inline void stream_row(T* p, const Row<T>& v) {
#if defined(KETGRAD_AVX512)
  if constexpr (sizeof(T) == sizeof(float)) {
    __builtin_ia32_movntps512(p, v);
  } else {
    __builtin_ia32_movntpd512(p, v);
  }
#else
  store_row(p, v);
#endif
}

// Makes streamed rows visible to other threads.
inline void finish_streaming() {
#if defined(KETGRAD_AVX512)
  __builtin_ia32_sfence();
#endif
}

// i v for each pair of v: (re, im) -> (-im, re).
inline FloatLanes times_i(const FloatLanes& v) {
  constexpr FloatLanes sign = {-1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1};
  return sign * trade_parts(v);
}

inline DoubleLanes times_i(const DoubleLanes& v) {
  constexpr DoubleLanes sign = {-1, 1, -1, 1, -1, 1, -1, 1};
  return sign * trade_parts(v);
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
  Row<T> signs;
  for (int l = 0; l < batch_lanes<T>; ++l) signs[l] = odd_parity(static_cast<Mask>(l / 2) & lane_mask) ? -1 : 1;
  return signs;
}

// --- turns of whole rows ----------------------------------------------------------------------------------------------

// What a block turns by, in one tile.
template <class T>
struct Angles {
  bool fast = false;
  Row<T> a[TurnBlock::most];
  Row<T> b[TurnBlock::most];
};

template <int k, bool fast, class V>
inline void turn_group(V* x, const V* a, const V* b) {
  for (int j = 0; j < k; ++j) {
    for (int m = 0; m < 1 << k; ++m) {
      if ((m >> j) & 1) continue;
      const V x0 = x[m];
      const V x1 = x[m | 1 << j];
      if constexpr (fast) {
        x[m] = x0 - b[j] * x1;
        x[m | 1 << j] = x1 + b[j] * x0;
      } else {
        x[m] = a[j] * x0 - b[j] * x1;
        x[m | 1 << j] = a[j] * x1 + b[j] * x0;
      }
    }
  }
}

// Where the rows of a group stand from its first one, in numbers, to be added by XOR.
template <int k, class T>
struct GroupOffsets {
  Index at[1 << k];

  explicit GroupOffsets(const TurnBlock& block) {
    for (int m = 0; m < 1 << k; ++m) {
      at[m] = 0;
      for (int j = 0; j < k; ++j) {
        if ((m >> j) & 1) at[m] ^= block.row_flip[j] * batch_lanes<T>;
      }
    }
  }
};

// The block's angles in registers: stores to the state could otherwise alias them.
template <int k, class T>
struct LocalAngles {
  Row<T> a[k];
  Row<T> b[k];

  explicit LocalAngles(const Angles<T>& angles) {
    for (int j = 0; j < k; ++j) {
      a[j] = angles.a[j];
      b[j] = angles.b[j];
    }
  }
};

template <int k, bool fast, class T>
void turn_rows(T* rows, const TurnBlock& block, const Angles<T>& angles, Index begin, Index end) {
  const GroupOffsets<k, T> offsets(block);
  const LocalAngles<k, T> local(angles);
  for_each_index(block.groups, begin, end, [&](Index group) KETGRAD_ALWAYS_INLINE {
    const Index base = group * batch_lanes<T>;
    Row<T> x[1 << k];
    for (int m = 0; m < 1 << k; ++m) x[m] = load_row(rows + (base ^ offsets.at[m]));
    turn_group<k, fast>(x, local.a, local.b);
    for (int m = 0; m < 1 << k; ++m) store_row(rows + (base ^ offsets.at[m]), x[m]);
  });
}

// Takes a block back from ket and bra, the angles being the inverse's. With `wanted`, adds per turn Re<bra|-i P|ket> of
// its pairs, signs left out; the turns of a block commute, so all overlaps are taken before any is undone.
template <int k, bool fast, bool wanted, class T>
void undo_rows(T* ket, T* bra, const TurnBlock& block, const Angles<T>& angles, Index begin, Index end, Row<T>* sums) {
  const GroupOffsets<k, T> offsets(block);
  const LocalAngles<k, T> local(angles);
  Row<T> sum[k] = {};
  for_each_index(block.groups, begin, end, [&](Index group) KETGRAD_ALWAYS_INLINE {
    const Index base = group * batch_lanes<T>;
    Row<T> x[1 << k];
    Row<T> y[1 << k];
    for (int m = 0; m < 1 << k; ++m) {
      x[m] = load_row(ket + (base ^ offsets.at[m]));
      y[m] = load_row(bra + (base ^ offsets.at[m]));
    }
    if constexpr (wanted) {
      for (int j = 0; j < k; ++j) {
        for (int m = 0; m < 1 << k; ++m) {
          if ((m >> j) & 1) continue;
          sum[j] += y[m | 1 << j] * x[m];
          sum[j] -= y[m] * x[m | 1 << j];
        }
      }
    }
    turn_group<k, fast>(x, local.a, local.b);
    for (int m = 0; m < 1 << k; ++m) store_row(ket + (base ^ offsets.at[m]), x[m]);
    turn_group<k, fast>(y, local.a, local.b);
    for (int m = 0; m < 1 << k; ++m) store_row(bra + (base ^ offsets.at[m]), y[m]);
  });
  if constexpr (wanted) {
    for (int j = 0; j < k; ++j) sums[j] += sum[j];
  }
}

// --- turns that move amplitudes within their rows ---------------------------------------------------------------------

// x' = a x -+ b partner, the partner's lanes already in place.
template <bool fast, class V>
inline V turned(const V& x, const V& partner, bool odd, const V& a, const V& b) {
  if constexpr (fast) {
    return odd ? x + b * partner : x - b * partner;
  } else {
    return odd ? a * x + b * partner : a * x - b * partner;
  }
}

// One or two rows, the turn's pairs being among their lanes. Calls f(x, partner, odd) for each row, which returns what is
// stored.
template <int flip, class T, class F>
inline void for_row_pair(T* rows, const TurnBlock& block, Index group, const F& f) {
  T* first = rows + group * batch_lanes<T>;
  const bool odd = odd_parity(static_cast<Mask>(group) & block.row_sign);
  const Row<T> x = load_row(first);
  if (block.row_flip[0] == 0) return store_row(first, f(x, trade_lanes<flip>(x), odd));
  T* second = rows + (group ^ block.row_flip[0]) * batch_lanes<T>;
  const Row<T> y = load_row(second);
  store_row(first, f(x, trade_lanes<flip>(y), odd));
  store_row(second,
            f(y, trade_lanes<flip>(x), odd_parity(static_cast<Mask>(group ^ block.row_flip[0]) & block.row_sign)));
}

template <int flip, bool fast, class T>
void turn_lanes(T* rows, const TurnBlock& block, const Angles<T>& angles, Index begin, Index end) {
  const LocalAngles<1, T> local(angles);
  for_each_index(block.groups, begin, end, [&](Index group) KETGRAD_ALWAYS_INLINE {
    for_row_pair<flip>(rows, block, group, [&](const Row<T>& x, const Row<T>& partner, bool odd) KETGRAD_ALWAYS_INLINE {
      return turned<fast>(x, partner, odd, local.a[0], local.b[0]);
    });
  });
}

// (-i P ket) on the rows of a group is -+ the partner.
template <int flip, class T>
inline Row<T> lane_overlap(const T* ket, const T* bra, const TurnBlock& block, Index group) {
  const auto of_row = [&](Index row) KETGRAD_ALWAYS_INLINE {
    const Row<T> partner = trade_lanes<flip>(load_row(ket + (row ^ block.row_flip[0]) * batch_lanes<T>));
    const Row<T> product = load_row(bra + row * batch_lanes<T>) * partner;
    return odd_parity(static_cast<Mask>(row) & block.row_sign) ? product : -product;
  };
  const Row<T> sum = of_row(group);
  return block.row_flip[0] == 0 ? sum : sum + of_row(group ^ block.row_flip[0]);
}

template <int flip, bool fast, bool wanted, class T>
void undo_lanes(T* ket, T* bra, const TurnBlock& block, const Angles<T>& angles, Index begin, Index end, Row<T>* sums) {
  const LocalAngles<1, T> local(angles);
  Row<T> sum = {};
  for_each_index(block.groups, begin, end, [&](Index group) KETGRAD_ALWAYS_INLINE {
    if constexpr (wanted) sum += lane_overlap<flip>(ket, bra, block, group);
    for (T* state : {ket, bra}) {
      for_row_pair<flip>(state, block, group,
                         [&](const Row<T>& x, const Row<T>& partner, bool odd)
                             KETGRAD_ALWAYS_INLINE { return turned<fast>(x, partner, odd, local.a[0], local.b[0]); });
    }
  });
  if constexpr (wanted) sums[0] += sum;
}

// --- the first groups of a block, whatever its shape ------------------------------------------------------------------

// Calls f(k, fast) with both as constants.
template <class F>
inline void with_shape(std::size_t k, bool fast, const F& f) {
  const auto with_speed = [&](auto size) { fast ? f(size, std::true_type()) : f(size, std::false_type()); };
  switch (k) {
    case 1: return with_speed(std::integral_constant<int, 1>());
    case 2: return with_speed(std::integral_constant<int, 2>());
    default: return with_speed(std::integral_constant<int, 3>());
  }
}

template <class T>
void apply_turns(T* rows, const TurnBlock& block, const Angles<T>& angles, Index groups) {
  with_shape(block.turns.size(), angles.fast, [&](auto k, auto fast) {
    if constexpr (k == 1) {
      if (block.lane_flip != 0) {
        return with_flip(block.lane_flip, [&](auto flip) { turn_lanes<flip, fast>(rows, block, angles, 0, groups); });
      }
    }
    turn_rows<k, fast>(rows, block, angles, 0, groups);
  });
}

template <bool wanted, class T>
void undo_turns(T* ket, T* bra, const TurnBlock& block, const Angles<T>& angles, Index groups, Row<T>* sums) {
  with_shape(block.turns.size(), angles.fast, [&](auto k, auto fast) {
    if constexpr (k == 1) {
      if (block.lane_flip != 0) {
        return with_flip(block.lane_flip,
                         [&](auto flip) { undo_lanes<flip, fast, wanted>(ket, bra, block, angles, 0, groups, sums); });
      }
    }
    undo_rows<k, fast, wanted>(ket, bra, block, angles, 0, groups, sums);
  });
}
