// Sines and cosines of many angles at once, in a loop over vectors of the instruction set: one after the other, from
// the C library, those of a small batch take as long as all else.
//
// x = q pi/2 + y with |y| <= pi/4: sin x and cos x are those of y, by Taylor's series as far as doubles see them, in an
// order and with signs that q settles.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace ketgrad {
namespace {

// pi/2 in three parts; the products of the first two with whole numbers below 2^20 are exact.
constexpr double half_pi[] = {0x1.921fb544p+0, 0x1.0b4611a6p-34, 0x1.3198a2e037073p-69};
constexpr double per_half_pi = 0x1.45f306dc9c883p-1;
constexpr double farthest_angle = 0x1p20;
// Added to a number below 2^51, rounds it to a whole one, which is in the last bits then.
constexpr double rounding = 0x1.8p52;

inline void sines_and_cosines(const double* angles, double* sines, double* cosines, int count) {
  int far = 0;
  for (int i = 0; i < count; ++i) {
    const double x = angles[i];
    const double rounded = x * per_half_pi + rounding;
    const double q = rounded - rounding;
    const double y = ((x - q * half_pi[0]) - q * half_pi[1]) - q * half_pi[2];
    const double z = y * y;
    // The next terms, y^19 / 19! and y^18 / 18!, are below 10^-17.
    double s = z * (1 / 355687428096000.0) - 1 / 1307674368000.0;
    s = z * s + 1 / 6227020800.0;
    s = z * s - 1 / 39916800.0;
    s = z * s + 1 / 362880.0;
    s = z * s - 1 / 5040.0;
    s = z * s + 1 / 120.0;
    s = z * s - 1 / 6.0;
    s = y + y * z * s;
    double c = z * (1 / 20922789888000.0) - 1 / 87178291200.0;
    c = z * c + 1 / 479001600.0;
    c = z * c - 1 / 3628800.0;
    c = z * c + 1 / 40320.0;
    c = z * c - 1 / 720.0;
    c = z * c + 1 / 24.0;
    c = z * c - 0.5;
    c = 1 + z * c;
    const auto quarter = std::bit_cast<std::uint64_t>(rounded);
    const double first = (quarter & 1) != 0 ? c : s;
    const double second = (quarter & 1) != 0 ? s : c;
    sines[i] = (quarter & 2) != 0 ? -first : first;
    cosines[i] = ((quarter + 1) & 2) != 0 ? -second : second;
    far |= !(std::abs(x) < farthest_angle);  // or not a number
  }
  if (far == 0) return;
  for (int i = 0; i < count; ++i) {
    if (std::abs(angles[i]) < farthest_angle) continue;
    sines[i] = std::sin(angles[i]);
    cosines[i] = std::cos(angles[i]);
  }
}

}  // namespace
}  // namespace ketgrad
