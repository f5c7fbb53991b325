// Affine maps over GF(2) while tables are made: an origin, and vectors of which any subset is added to it.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <stdexcept>
#include <tuple>
#include <type_traits>
#include <vector>

#include "cuda/tables/tables.h"
#include "math/bits.h"

namespace ketgrad::cuda {

// Appends to one of the arrays of Tables.
template <class E>
Range append(std::vector<E>& array, const std::type_identity_t<std::span<const E>>& more) {
  if (array.size() + more.size() > std::numeric_limits<std::int32_t>::max())
    throw std::invalid_argument("ketgrad: a circuit of more parts than a GPU's tables can count; run it on the CPU");
  const Range range{static_cast<std::int32_t>(array.size()), static_cast<std::int32_t>(more.size())};
  array.insert(array.end(), more.begin(), more.end());
  return range;
}

inline Map append_map(Tables& tables, const IndexMap& map) {
  return {static_cast<Mask>(map[0]), append(tables.vectors, basis_of(map))};
}

inline int bits_of(const IndexMap& map) { return std::countr_zero(static_cast<Mask>(map.size())); }

// An affine map from numbers: bit b of a number adds basis[b] to the origin.
struct AffineMap {
  Mask origin = 0;
  std::vector<Mask> basis;

  static AffineMap of(const IndexMap& map) {
    const Vectors basis = basis_of(map);
    return {static_cast<Mask>(map[0]), {basis.begin(), basis.end()}};
  }

  bool operator<(const AffineMap& o) const { return std::tie(origin, basis) < std::tie(o.origin, o.basis); }
};

// Calls f(sum) for the numbers 0, 1, 2, ...
template <class E, class F>
void for_each_sum(E origin, const std::vector<E>& basis, const F& f) {
  E sum = origin;
  for (std::size_t number = 0; number < std::size_t{1} << basis.size(); ++number) {
    f(sum);
    // Counting up flips the low bits, up to the lowest one that is 0.
    const int changed = std::countr_zero(number + 1);
    for (int b = 0; b <= changed && b < static_cast<int>(basis.size()); ++b) sum ^= basis[b];
  }
}

// Bit b is the parity of `mask` with vectors[b]: the mask over the numbers of an affine map.
inline Local parities(Mask mask, std::span<const Mask> vectors) {
  Local found = 0;
  for (std::size_t b = 0; b < vectors.size(); ++b) found |= Local{odd_parity(mask & vectors[b])} << b;
  return found;
}

}  // namespace ketgrad::cuda
