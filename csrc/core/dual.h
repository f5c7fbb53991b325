// Dual numbers: a value and one directional derivative.
//
// What is written once for any kind of number gives its derivative too when it is evaluated on duals, so the two cannot
// disagree: a gate's matrix (gate_matrix.h), or a whole walk on a GPU (cuda/). Duals of duals have second derivatives.
#pragma once

#include <cmath>

#include "core/host_device.h"

namespace ketgrad {

// Both parts are on one boundary, so that a GPU moves them as one.
template <class R>
struct alignas(sizeof(R) <= sizeof(double) ? 2 * sizeof(R) : alignof(R)) DualOf {
  R value{};
  R slope{};

  constexpr DualOf() = default;
  constexpr DualOf(R v, R s = R{}) : value(v), slope(s) {}  // NOLINT: a constant is a dual of slope 0

  template <class S>
  explicit constexpr DualOf(const DualOf<S>& other)
      : value(static_cast<R>(other.value)), slope(static_cast<R>(other.slope)) {}

  friend constexpr DualOf operator+(const DualOf& a, const DualOf& b) { return {a.value + b.value, a.slope + b.slope}; }
  friend constexpr DualOf operator-(const DualOf& a, const DualOf& b) { return {a.value - b.value, a.slope - b.slope}; }
  friend constexpr DualOf operator-(const DualOf& a) { return {-a.value, -a.slope}; }
  friend constexpr DualOf operator*(const DualOf& a, const DualOf& b) {
    return {a.value * b.value, a.value * b.slope + a.slope * b.value};
  }
  friend constexpr DualOf operator/(const DualOf& a, const DualOf& b) {
    const R quotient = a.value / b.value;
    return {quotient, (a.slope - quotient * b.slope) / b.value};
  }
  friend constexpr DualOf operator*(const R& s, const DualOf& a) { return {s * a.value, s * a.slope}; }
  friend constexpr DualOf& operator+=(DualOf& a, const DualOf& b) { return a = a + b; }
  friend constexpr DualOf& operator-=(DualOf& a, const DualOf& b) { return a = a - b; }
  friend constexpr DualOf& operator*=(DualOf& a, const DualOf& b) { return a = a * b; }
};

using Dual = DualOf<double>;

// What is given back of a number: itself, of one that moves its derivative.
template <class R>
KETGRAD_HOST_DEVICE constexpr R answer(const R& x) {
  return x;
}

template <class R>
KETGRAD_HOST_DEVICE constexpr R answer(const DualOf<R>& x) {
  return x.slope;
}

template <class R>
KETGRAD_HOST_DEVICE DualOf<R> sin(const DualOf<R>& a) {
  using std::cos;
  using std::sin;
  return {sin(a.value), cos(a.value) * a.slope};
}

template <class R>
KETGRAD_HOST_DEVICE DualOf<R> cos(const DualOf<R>& a) {
  using std::cos;
  using std::sin;
  return {cos(a.value), -sin(a.value) * a.slope};
}

}  // namespace ketgrad
