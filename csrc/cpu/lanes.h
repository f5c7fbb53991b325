// The number type of the walk: one real number per lane, each lane a sample of its own.
//
// A walk over a batch uses a vector of samples, so that a kernel needs no shuffles whatever wires it acts on; a walk
// over a single circuit uses the plain scalar. The kernels are written once for both. A state is V[2^n][2]: real and
// imaginary part of each amplitude.
#pragma once

#include <cstdint>

namespace ketgrad {

typedef float FloatLanes __attribute__((vector_size(64)));
typedef double DoubleLanes __attribute__((vector_size(64)));

template <class V>
struct LaneTraits;

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

template <>
struct LaneTraits<FloatLanes> {
  using Scalar = float;
  static constexpr int width = 16;
};

template <>
struct LaneTraits<DoubleLanes> {
  using Scalar = double;
  static constexpr int width = 8;
};

template <class T>
struct BatchLanes;

template <>
struct BatchLanes<float> {
  using type = FloatLanes;
};

template <>
struct BatchLanes<double> {
  using type = DoubleLanes;
};

template <class T>
inline constexpr int batch_lanes = LaneTraits<typename BatchLanes<T>::type>::width;

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

}  // namespace ketgrad
