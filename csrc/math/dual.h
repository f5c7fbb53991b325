// Dual numbers: a value and one directional derivative.
//
// Code that is generic in the number type computes derivatives when it is instantiated with duals: a gate's matrix
// (gate_matrix.h), or a whole sweep on a GPU (cuda/). Duals of duals give second derivatives.
#pragma once

#include <cmath>
#include <type_traits>

#include "math/host_device.h"

namespace ketgrad {

// Aligned like Complex, so that a GPU loads and stores both parts at once.
template <class R>
struct alignas(sizeof(R) <= sizeof(double) ? 2 * sizeof(R) : alignof(R)) DualOf {
  R value{};
  R tangent{};

  constexpr DualOf() = default;
  constexpr DualOf(R v, R s = R{}) : value(v), tangent(s) {}  // NOLINT: a constant is a dual of tangent 0

  template <class S>
  explicit constexpr DualOf(const DualOf<S>& other)
      : value(static_cast<R>(other.value)), tangent(static_cast<R>(other.tangent)) {}

  friend constexpr DualOf operator+(const DualOf& a, const DualOf& b) {
    return {a.value + b.value, a.tangent + b.tangent};
  }
  friend constexpr DualOf operator-(const DualOf& a, const DualOf& b) {
    return {a.value - b.value, a.tangent - b.tangent};
  }
  friend constexpr DualOf operator-(const DualOf& a) { return {-a.value, -a.tangent}; }
  friend constexpr DualOf operator*(const DualOf& a, const DualOf& b) {
    return {a.value * b.value, a.value * b.tangent + a.tangent * b.value};
  }
  friend constexpr DualOf operator/(const DualOf& a, const DualOf& b) {
    const R quotient = a.value / b.value;
    return {quotient, (a.tangent - quotient * b.tangent) / b.value};
  }
  friend constexpr DualOf operator*(const R& s, const DualOf& a) { return {s * a.value, s * a.tangent}; }
  friend constexpr DualOf& operator+=(DualOf& a, const DualOf& b) { return a = a + b; }
  friend constexpr DualOf& operator-=(DualOf& a, const DualOf& b) { return a = a - b; }
  friend constexpr DualOf& operator*=(DualOf& a, const DualOf& b) { return a = a * b; }
};

using Dual = DualOf<double>;

template <class N>
struct IsDual : std::false_type {};
template <class R>
struct IsDual<DualOf<R>> : std::true_type {};

template <class N>
inline constexpr bool is_dual = IsDual<N>::value;

// A vector of lanes: a compiler's vector type, which is neither a class nor arithmetic.
template <class R>
concept VectorOfNumbers = !std::is_class_v<R> && !std::is_arithmetic_v<R>;

// A scalar times a dual of vectors.
template <class S, VectorOfNumbers R>
  requires std::is_arithmetic_v<S>
constexpr DualOf<R> operator*(S s, const DualOf<R>& a) {
  return {s * a.value, s * a.tangent};
}

template <class S, VectorOfNumbers R>
  requires std::is_arithmetic_v<S>
constexpr DualOf<R> operator*(const DualOf<S>& s, const DualOf<R>& a) {
  return {s.value * a.value, s.value * a.tangent + s.tangent * a.value};
}

// The part of a number that a call returns: of a dual its tangent, of a plain number the number itself.
template <class R>
KETGRAD_HOST_DEVICE constexpr R output_part(const R& x) {
  return x;
}

template <class R>
KETGRAD_HOST_DEVICE constexpr R output_part(const DualOf<R>& x) {
  return x.tangent;
}

template <class R>
KETGRAD_HOST_DEVICE DualOf<R> sin(const DualOf<R>& a) {
  using std::cos;
  using std::sin;
  return {sin(a.value), cos(a.value) * a.tangent};
}

template <class R>
KETGRAD_HOST_DEVICE DualOf<R> cos(const DualOf<R>& a) {
  using std::cos;
  using std::sin;
  return {cos(a.value), -sin(a.value) * a.tangent};
}

}  // namespace ketgrad
