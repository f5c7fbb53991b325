// The number type of the engine: one real number per lane, each lane a sample of its own.
//
// An engine over a batch uses a vector of samples, so that a kernel needs no shuffles whatever wires it acts on; one
// over a single circuit uses the plain scalar. The kernels are written once for both. A state is V[2^n][2]: real and
// imaginary part of each amplitude.
#pragma once

#include <type_traits>

#include "math/dual.h"

namespace ketgrad {

// A vector of `bytes` bytes; instruction sets differ in their size.
template <class T, int bytes>
struct VectorOf {
  typedef T type __attribute__((vector_size(bytes)));
};

template <class V>
struct LaneTraits {
  using Scalar = std::remove_cvref_t<decltype(V{}[0])>;
  static constexpr int width = sizeof(V) / sizeof(Scalar);
};

template <>
struct LaneTraits<float> {
  using Scalar = float;
  static constexpr int width = 1;
};

template <>
struct LaneTraits<double> {
  using Scalar = double;
  static constexpr int width = 1;
};

template <class V>
struct LaneTraits<DualOf<V>> : LaneTraits<V> {};

template <class V>
inline constexpr int lane_width = LaneTraits<V>::width;

template <class V>
using Scalar = typename LaneTraits<V>::Scalar;

template <class V>
inline Scalar<V> get_lane(const V& v, int lane) {
  if constexpr (lane_width<V> == 1) {
    return v;
  } else {
    return v[lane];
  }
}

template <class V>
inline void set_lane(V& v, int lane, Scalar<V> value) {
  if constexpr (lane_width<V> == 1) {
    v = value;
  } else {
    v[lane] = value;
  }
}

template <class V>
inline DualOf<Scalar<V>> get_lane(const DualOf<V>& v, int lane) {
  return {get_lane(v.value, lane), get_lane(v.tangent, lane)};
}

template <class V>
inline void set_lane(DualOf<V>& v, int lane, const DualOf<Scalar<V>>& x) {
  set_lane(v.value, lane, x.value);
  set_lane(v.tangent, lane, x.tangent);
}

// What sums of numbers of kind N are taken in, a lane at a time: double, or a dual of doubles.
template <class N>
using Total = std::conditional_t<is_dual<N>, Dual, double>;

}  // namespace ketgrad
