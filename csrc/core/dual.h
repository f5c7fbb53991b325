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

}  // namespace ketgrad
