// Dual numbers: a value and one directional derivative.
//
// A gate's matrix is written once (gate_matrix.h); evaluated on duals, the same formula gives its derivative, so the
// two cannot disagree.
#pragma once

#include <cmath>

#include "core/host_device.h"

namespace ketgrad {

struct Dual {
  double value = 0;
  double slope = 0;

  constexpr Dual() = default;
  constexpr Dual(double v, double s = 0) : value(v), slope(s) {}  // NOLINT: a constant is a dual of slope 0
};

constexpr Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.slope + b.slope}; }
constexpr Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.slope - b.slope}; }
constexpr Dual operator-(Dual a) { return {-a.value, -a.slope}; }
constexpr Dual operator*(Dual a, Dual b) { return {a.value * b.value, a.value * b.slope + a.slope * b.value}; }
constexpr Dual& operator+=(Dual& a, Dual b) { return a = a + b; }

KETGRAD_HOST_DEVICE inline Dual sin(Dual a) { return {std::sin(a.value), a.slope * std::cos(a.value)}; }
KETGRAD_HOST_DEVICE inline Dual cos(Dual a) { return {std::cos(a.value), -a.slope * std::sin(a.value)}; }

// A value, its derivatives along two directions, and the one along both.
struct HyperDual {
  double value = 0;
  double first = 0;
  double second = 0;
  double both = 0;

  constexpr HyperDual() = default;
  constexpr HyperDual(double v, double a = 0, double b = 0, double ab = 0)  // NOLINT: a constant has no derivatives
      : value(v), first(a), second(b), both(ab) {}
};

constexpr HyperDual operator+(HyperDual a, HyperDual b) {
  return {a.value + b.value, a.first + b.first, a.second + b.second, a.both + b.both};
}
constexpr HyperDual operator-(HyperDual a) { return {-a.value, -a.first, -a.second, -a.both}; }
constexpr HyperDual operator-(HyperDual a, HyperDual b) { return a + (-b); }
constexpr HyperDual operator*(HyperDual a, HyperDual b) {
  return {a.value * b.value, a.value * b.first + a.first * b.value, a.value * b.second + a.second * b.value,
          a.value * b.both + a.first * b.second + a.second * b.first + a.both * b.value};
}
constexpr HyperDual& operator+=(HyperDual& a, HyperDual b) { return a = a + b; }

// f(a) from f and its first two derivatives at a's value.
constexpr HyperDual chain(HyperDual a, double f, double slope, double curvature) {
  return {f, slope * a.first, slope * a.second, slope * a.both + curvature * a.first * a.second};
}

inline HyperDual sin(HyperDual a) { return chain(a, std::sin(a.value), std::cos(a.value), -std::sin(a.value)); }
inline HyperDual cos(HyperDual a) { return chain(a, std::cos(a.value), -std::sin(a.value), -std::cos(a.value)); }

}  // namespace ketgrad
