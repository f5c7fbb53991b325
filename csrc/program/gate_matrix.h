// The matrices of the gate table's formulas, generic in the number type: double, or Dual for a derivative.
// Conventions and parameter order are PennyLane's: R_P(theta) = exp(-i theta P / 2).
#pragma once

#include <cmath>
#include <numbers>

#include "math/complex.h"
#include "math/dual.h"
#include "math/host_device.h"
#include "program/gate_table.h"

namespace ketgrad {

namespace formulas {

template <class R>
KETGRAD_HOST_DEVICE Complex<R> phase(R angle) {  // exp(i angle)
  using std::cos;
  using std::sin;
  return {cos(angle), sin(angle)};
}

template <class R>
KETGRAD_HOST_DEVICE R cos_half(R angle) {
  using std::cos;
  return cos(R(0.5) * angle);
}

template <class R>
KETGRAD_HOST_DEVICE R sin_half(R angle) {
  using std::sin;
  return sin(R(0.5) * angle);
}

template <class R>
KETGRAD_HOST_DEVICE void fill2(Complex<R>* m, Complex<R> a, Complex<R> b, Complex<R> c, Complex<R> d) {
  m[0] = a;
  m[1] = b;
  m[2] = c;
  m[3] = d;
}

// RY(theta) on the span of the local states `low` and `high`, the phase exp(sign * i theta/2) on all others.
template <class R>
KETGRAD_HOST_DEVICE void excitation(Complex<R>* m, R theta, int size, int low, int high, double sign) {
  const Complex<R> other = phase(R(0.5 * sign) * theta);
  for (int i = 0; i < size * size; ++i) m[i] = {};
  for (int i = 0; i < size; ++i) m[i * size + i] = other;
  const R c = cos_half(theta);
  const R s = sin_half(theta);
  m[low * size + low] = {c, R(0)};
  m[low * size + high] = {-s, R(0)};
  m[high * size + low] = {s, R(0)};
  m[high * size + high] = {c, R(0)};
}

}  // namespace formulas

// Writes the row-major block_size x block_size matrix of a formula at parameters p.
template <class R>
KETGRAD_HOST_DEVICE void block_matrix(Formula formula, const R* p, Complex<R>* m) {
  using namespace formulas;
  using C = Complex<R>;
  const C zero{};
  const C one{R(1), R(0)};
  const C i{R(0), R(1)};
  switch (formula) {
    case Formula::none: return;
    case Formula::x: return fill2(m, zero, one, one, zero);
    case Formula::y: return fill2(m, zero, C{R(0), R(-1)}, i, zero);
    case Formula::z: return fill2(m, one, zero, zero, C{R(-1), R(0)});
    case Formula::h: {
      const R h(std::numbers::sqrt2 / 2);
      return fill2(m, C{h, R(0)}, C{h, R(0)}, C{h, R(0)}, C{-h, R(0)});
    }
    case Formula::s: return fill2(m, one, zero, zero, i);
    case Formula::t: return fill2(m, one, zero, zero, C{R(std::numbers::sqrt2 / 2), R(std::numbers::sqrt2 / 2)});
    case Formula::sx: {
      const C plus{R(0.5), R(0.5)};
      const C minus{R(0.5), R(-0.5)};
      return fill2(m, plus, minus, minus, plus);
    }
    case Formula::i_x: return fill2(m, zero, i, i, zero);
    case Formula::rx: {
      const C c{cos_half(p[0]), R(0)};
      const C s{R(0), -sin_half(p[0])};
      return fill2(m, c, s, s, c);
    }
    case Formula::rx_back: {  // RX(-theta)
      const C c{cos_half(p[0]), R(0)};
      const C s{R(0), sin_half(p[0])};
      return fill2(m, c, s, s, c);
    }
    case Formula::ry: {
      const R c = cos_half(p[0]);
      const R s = sin_half(p[0]);
      return fill2(m, C{c, R(0)}, C{-s, R(0)}, C{s, R(0)}, C{c, R(0)});
    }
    case Formula::rz: return fill2(m, phase(R(-0.5) * p[0]), zero, zero, phase(R(0.5) * p[0]));
    case Formula::phase: return fill2(m, one, zero, zero, phase(p[0]));
    case Formula::rot: {  // RZ(omega) RY(theta) RZ(phi), p = (phi, theta, omega)
      const C sum = phase(R(0.5) * (p[0] + p[2]));
      const C difference = phase(R(0.5) * (p[0] - p[2]));
      const R c = cos_half(p[1]);
      const R s = sin_half(p[1]);
      return fill2(m, c * conj(sum), -s * difference, s * conj(difference), c * sum);
    }
    case Formula::u2: {  // p = (phi, delta)
      const R h(std::numbers::sqrt2 / 2);
      return fill2(m, C{h, R(0)}, -h * phase(p[1]), h * phase(p[0]), h * phase(p[0] + p[1]));
    }
    case Formula::u3: {  // p = (theta, phi, delta)
      const R c = cos_half(p[0]);
      const R s = sin_half(p[0]);
      return fill2(m, C{c, R(0)}, -s * phase(p[2]), s * phase(p[1]), c * phase(p[1] + p[2]));
    }
    case Formula::phase_x: {  // exp(i phi) X
      const C e = phase(p[0]);
      return fill2(m, zero, e, e, zero);
    }
    case Formula::global_phase: m[0] = phase(-p[0]); return;
    case Formula::single_excitation_plus: return excitation(m, p[0], 4, 1, 2, 1.0);
    case Formula::single_excitation_minus: return excitation(m, p[0], 4, 1, 2, -1.0);
    case Formula::double_excitation_plus: return excitation(m, p[0], 16, 3, 12, 1.0);
    case Formula::double_excitation_minus: return excitation(m, p[0], 16, 3, 12, -1.0);
  }
}

inline constexpr int max_parameters = 3;
inline constexpr int max_block_size = 16;

}  // namespace ketgrad
