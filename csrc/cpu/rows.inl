// Turns on rows. Included by walk.inl.
//
// A row is one vector of the machine: neighbouring amplitudes of a single state, as (re, im) pairs, or one part of one
// amplitude of as many samples as there are lanes. A turn is a real matrix, so it does not care which: on the rows x0,
// x1 of a pair it is x0' = a x0 - b x1, x1' = a x1 + b x0 with a = cos, b = +-sin of half the angle. `fast` leaves the
// cosine out (a = 1, b = +-tan): half the arithmetic, and as accurate, since the factor that is missing is one number
// for the whole state, which phases absorb later.

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

// --- lanes ------------------------------------------------------------------------------------------------------------

// (a, b)[F::at(l)] for each lane l, the lanes of b counting on from those of a.
template <class F, class V, std::size_t... l>
inline V shuffled(const V& a, const V& b, std::index_sequence<l...>) {
  return __builtin_shufflevector(a, b, F::at(static_cast<int>(l))...);
}

template <class F, class V>
inline V shuffled(const V& a, const V& b) {
  return shuffled<F>(a, b, std::make_index_sequence<lane_width<V>>());
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
void turn_rows(T* rows, const TurnBlock& block, const Angles<T>& angles, Index groups) {
  const GroupOffsets<k, T> offsets(block);
  const LocalAngles<k, T> local(angles);
  for_each_index(block.groups, groups, [&](Index group) KETGRAD_ALWAYS_INLINE {
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
void undo_rows(T* ket, T* bra, const TurnBlock& block, const Angles<T>& angles, Index groups, Row<T>* sums) {
  const GroupOffsets<k, T> offsets(block);
  const LocalAngles<k, T> local(angles);
  Row<T> sum[k] = {};
  for_each_index(block.groups, groups, [&](Index group) KETGRAD_ALWAYS_INLINE {
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

// --- turns that trade lanes -------------------------------------------------------------------------------------------

// A turn's partner of row m of a group: row m ^ 2^j, or the row itself where no rows are traded; its lanes are traded in
// either case. The sign of b is a row's and a lane's together, so that both may be odd.
template <int k, bool in_rows, class T>
struct LaneBlock {
  static constexpr int rows = in_rows ? 1 : 1 << k;
  GroupOffsets<in_rows ? 0 : k, T> offsets;
  Mask lane_flip[k];
  Mask row_sign[k];
  unsigned odd[k];  // bit m: the row sign of row m, where that of the group's first row is even
  Row<T> a[k];
  Row<T> b[k][2];  // by the row's sign

  LaneBlock(const TurnBlock& block, const Angles<T>& angles) : offsets(block) {
    for (int j = 0; j < k; ++j) {
      lane_flip[j] = block.lane_flip[j];
      row_sign[j] = block.row_sign[j];
      odd[j] = 0;
      for (int m = 0; m < rows; ++m) {
        const auto row = static_cast<Mask>(offsets.at[m] / batch_lanes<T>);
        odd[j] |= unsigned{odd_parity(row & row_sign[j])} << m;
      }
      a[j] = angles.a[j];
      b[j][0] = -angles.b[j];
      b[j][1] = angles.b[j];
    }
  }

  static constexpr int partner(int m, int j) { return in_rows ? m : m ^ 1 << j; }

  // Bit m: the sign of row m of a group.
  unsigned signs(Index group, int j) const {
    return odd_parity(static_cast<Mask>(group) & row_sign[j]) ? ~odd[j] : odd[j];
  }

  template <bool fast>
  void turn(Row<T>* x, const unsigned* sign) const {
    for (int j = 0; j < k; ++j) {
      Row<T> traded[rows];
      for (int m = 0; m < rows; ++m) traded[m] = trade_lanes(x[m], lane_flip[j]);
      for (int m = 0; m < rows; ++m) {
        const Row<T>& factor = b[j][(sign[j] >> m) & 1];
        x[m] = (fast ? x[m] : a[j] * x[m]) + factor * traded[partner(m, j)];
      }
    }
  }
};

template <int k, bool in_rows, bool fast, class T>
void turn_lanes(T* rows, const TurnBlock& block, const Angles<T>& angles, Index groups) {
  const LaneBlock<k, in_rows, T> local(block, angles);
  for_each_index(block.groups, groups, [&](Index group) KETGRAD_ALWAYS_INLINE {
    const Index base = group * batch_lanes<T>;
    unsigned sign[k];
    for (int j = 0; j < k; ++j) sign[j] = local.signs(group, j);
    Row<T> x[local.rows];
    for (int m = 0; m < local.rows; ++m) x[m] = load_row(rows + (base ^ local.offsets.at[m]));
    local.template turn<fast>(x, sign);
    for (int m = 0; m < local.rows; ++m) store_row(rows + (base ^ local.offsets.at[m]), x[m]);
  });
}

// Overlaps as in undo_rows: (-i P ket) at a row is -+ the partner.
template <int k, bool in_rows, bool fast, bool wanted, class T>
void undo_lanes(T* ket, T* bra, const TurnBlock& block, const Angles<T>& angles, Index groups, Row<T>* sums) {
  const LaneBlock<k, in_rows, T> local(block, angles);
  const Row<T> one[2] = {Row<T>{} - T(1), Row<T>{} + T(1)};
  Row<T> sum[k] = {};
  for_each_index(block.groups, groups, [&](Index group) KETGRAD_ALWAYS_INLINE {
    const Index base = group * batch_lanes<T>;
    unsigned sign[k];
    for (int j = 0; j < k; ++j) sign[j] = local.signs(group, j);
    Row<T> x[local.rows];
    Row<T> y[local.rows];
    for (int m = 0; m < local.rows; ++m) {
      x[m] = load_row(ket + (base ^ local.offsets.at[m]));
      y[m] = load_row(bra + (base ^ local.offsets.at[m]));
    }
    if constexpr (wanted) {
      for (int j = 0; j < k; ++j) {
        for (int m = 0; m < local.rows; ++m)
          sum[j] += one[(sign[j] >> m) & 1] * y[m] * trade_lanes(x[local.partner(m, j)], local.lane_flip[j]);
      }
    }
    local.template turn<fast>(x, sign);
    for (int m = 0; m < local.rows; ++m) store_row(ket + (base ^ local.offsets.at[m]), x[m]);
    local.template turn<fast>(y, sign);
    for (int m = 0; m < local.rows; ++m) store_row(bra + (base ^ local.offsets.at[m]), y[m]);
  });
  if constexpr (wanted) {
    for (int j = 0; j < k; ++j) sums[j] += sum[j];
  }
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
    if (!block.trades_lanes()) return turn_rows<k, fast>(rows, block, angles, groups);
    if (block.stays_in_rows()) return turn_lanes<k, true, fast>(rows, block, angles, groups);
    turn_lanes<k, false, fast>(rows, block, angles, groups);
  });
}

template <bool wanted, class T>
void undo_turns(T* ket, T* bra, const TurnBlock& block, const Angles<T>& angles, Index groups, Row<T>* sums) {
  with_shape(block.turns.size(), angles.fast, [&](auto k, auto fast) {
    if (!block.trades_lanes()) return undo_rows<k, fast, wanted>(ket, bra, block, angles, groups, sums);
    if (block.stays_in_rows()) return undo_lanes<k, true, fast, wanted>(ket, bra, block, angles, groups, sums);
    undo_lanes<k, false, fast, wanted>(ket, bra, block, angles, groups, sums);
  });
}
