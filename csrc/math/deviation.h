// How far numbers are from what they must be. NaN and infinities count as no deviation: they propagate, as in torch.
#pragma once

#include <algorithm>
#include <cmath>

#include "math/bits.h"
#include "math/complex.h"

namespace ketgrad {

using ComplexDouble = Complex<double>;

inline double square(const ComplexDouble& a) { return a.re * a.re + a.im * a.im; }

// Number i of interleaved real and imaginary parts.
template <class T>
ComplexDouble entry(const T* x, Index i) {
  return {static_cast<double>(x[2 * i]), static_cast<double>(x[2 * i + 1])};
}

// The largest deviation.
class Worst {
 public:
  void see(double deviation) {
    if (std::isfinite(deviation)) worst_ = std::max(worst_, deviation);
  }
  double value() const { return worst_; }

 private:
  double worst_ = 0;
};

// The largest modulus among the entries of U U^dagger - 1, U being given row by row.
template <class T>
double unitary_deviation(const T* x, Index size) {
  Worst worst;
  for (Index r = 0; r < size; ++r) {
    for (Index c = 0; c <= r; ++c) {
      ComplexDouble sum{r == c ? -1.0 : 0.0, 0};
      for (Index k = 0; k < size; ++k) sum += entry(x, r * size + k) * conj(entry(x, c * size + k));
      worst.see(square(sum));
    }
  }
  return std::sqrt(worst.value());
}

}  // namespace ketgrad
