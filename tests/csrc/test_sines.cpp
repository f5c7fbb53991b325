// Sines and cosines, against the C library's in long double.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.h"
#include "circuits.h"
#include "cpu/kernels/sines-inl.h"

namespace ketgrad::testing {
namespace {

struct Found {
  std::vector<double> sines;
  std::vector<double> cosines;

  explicit Found(const std::vector<double>& angles) : sines(angles.size()), cosines(angles.size()) {
    sines_and_cosines(angles.data(), sines.data(), cosines.data(), static_cast<int>(angles.size()));
  }
};

// In units of the last place of 1.
double error(double found, long double right) {
  return static_cast<double>(std::abs(static_cast<long double>(found) - right)) /
         std::numeric_limits<double>::epsilon();
}

void check_sines(const std::vector<double>& angles) {
  const Found found(angles);
  for (std::size_t i = 0; i < angles.size(); ++i) {
    CHECK(error(found.sines[i], std::sin(static_cast<long double>(angles[i]))) < 1);
    CHECK(error(found.cosines[i], std::cos(static_cast<long double>(angles[i]))) < 1);
  }
}

TEST(angles_of_all_sizes) {
  Random random(1);
  for (const double size : {1e-12, 1e-3, 1.0, 10.0, 1e3, 1e5, 1e6, 2e6, 1e9, 1e18}) {
    std::vector<double> angles;
    for (int i = 0; i < 1000; ++i) angles.push_back(size * random.uniform(-1, 1));
    check_sines(angles);
  }
}

TEST(multiples_of_pi_over_4) {
  std::vector<double> angles;
  for (int k = -4000; k <= 4000; ++k) {
    const double angle = k * std::acos(-1.0) / 4;
    for (const double next : {std::nextafter(angle, -1e9), angle, std::nextafter(angle, 1e9)}) angles.push_back(next);
  }
  check_sines(angles);
}

TEST(no_rotation_is_exact) {
  const Found found({0, -0.0});
  for (int i = 0; i < 2; ++i) {
    CHECK(found.sines[i] == 0);
    CHECK(found.cosines[i] == 1);
  }
}

TEST(what_is_no_number_stays_none_and_spoils_no_neighbour) {
  const double infinity = std::numeric_limits<double>::infinity();
  const Found found({0.5, std::nan(""), infinity, -infinity, 0.5});
  for (int i = 1; i < 4; ++i) {
    CHECK(std::isnan(found.sines[i]));
    CHECK(std::isnan(found.cosines[i]));
  }
  for (const int i : {0, 4}) {
    CHECK(error(found.sines[i], std::sin(0.5L)) < 1);
    CHECK(error(found.cosines[i], std::cos(0.5L)) < 1);
  }
}

}  // namespace
}  // namespace ketgrad::testing

int main() { return ketgrad::testing::run_tests(); }
