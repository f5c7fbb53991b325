// Index arithmetic on basis states. Wire 0 is the most significant bit: wire w of n is bit n - 1 - w of an index.
//
// Sets of amplitudes are affine subspaces over GF(2): masks are vectors, addition is XOR, and the parity of (a & b) is
// the inner product.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "math/inplace_vector.h"

namespace ketgrad {

using Index = std::int64_t;
using Mask = std::uint64_t;

constexpr bool odd_parity(Mask bits) { return (std::popcount(bits) & 1) != 0; }

constexpr int bit_of_wire(int wire, int num_wires) { return num_wires - 1 - wire; }

constexpr Mask unit(int bit) { return Mask{1} << bit; }

// Linearly independent vectors, in the planner's inner loops: a planner that allocates them spends half its time there.
using Vectors = InplaceVector<Mask, 64>;

// A linear subspace, as a reduced basis: the lowest bit of each vector (its pivot) is set in no other.
class Span {
 public:
  Span() = default;
  explicit Span(std::span<const Mask> vectors) {
    for (const Mask v : vectors) add(v);
  }

  // The representative of the coset v + span that has no pivot bit.
  Mask reduce(Mask v) const {
    for (const Mask b : basis_) {
      if (v & (b & -b)) v ^= b;
    }
    return v;
  }

  bool contains(Mask v) const { return reduce(v) == 0; }

  // False if v is in the span already.
  bool add(Mask v) {
    v = reduce(v);
    if (v == 0) return false;
    const Mask pivot = v & -v;
    for (Mask& b : basis_) {
      if (b & pivot) b ^= v;
    }
    basis_.push_back(v);
    return true;
  }

  int size() const { return static_cast<int>(basis_.size()); }
  const Vectors& basis() const { return basis_; }

  // The mask of all pivot bits.
  Mask pivots() const {
    Mask all = 0;
    for (const Mask b : basis_) all |= b & -b;
    return all;
  }

 private:
  Vectors basis_;
};

// Coordinates of vectors with respect to a basis that is added vector by vector.
class Coordinates {
 public:
  // False, and v is not added, if it is linearly dependent on the vectors before it.
  bool add(Mask v) {
    Mask own = unit(static_cast<int>(reduced_.size()));
    own ^= eliminate(v);
    if (v == 0) return false;
    reduced_.push_back({v, own});
    return true;
  }

  // Bit j of the result is the coefficient of basis vector j in v, which must be in the span.
  Mask of(Mask v) const { return eliminate(v); }

 private:
  struct Reduced {
    Mask vector;
    Mask combination;  // its coordinates in the basis as added
  };

  // Reduces v by the basis; returns the coordinates of what was subtracted.
  Mask eliminate(Mask& v) const {
    Mask taken = 0;
    for (const Reduced& r : reduced_) {
      if (v & (r.vector & -r.vector)) {
        v ^= r.vector;
        taken ^= r.combination;
      }
    }
    return taken;
  }

  InplaceVector<Reduced, 64> reduced_;
};

// The affine map r -> origin XOR the sum of basis[j] over the set bits j of r, by two tables of at most 2^12 entries.
class IndexMap {
 public:
  IndexMap() = default;
  IndexMap(Mask origin, std::span<const Mask> basis)
      : bits_(static_cast<int>(basis.size())),
        low_(combinations(0, basis, 0)),
        high_(combinations(origin, basis, table_bits)),
        beyond_(basis.begin() + std::min(bits_, 2 * table_bits), basis.end()) {
    while (run_bits_ < bits_ && basis[run_bits_] == unit(run_bits_)) ++run_bits_;
    // The indices of a run are consecutive only if no other basis vector and not the origin has one of its bits.
    for (int j = run_bits_; j < bits_; ++j) shorten_runs(basis[j]);
    shorten_runs(origin);
  }

  static constexpr int table_bits = 12;
  static constexpr Index table_size = Index{1} << table_bits;

  Index operator[](Index r) const { return static_cast<Index>(high_part(r) ^ low_[r & (table_size - 1)]); }

  // An index is high_part(r) ^ low_table()[r mod table_size].
  Mask high_part(Index r) const {
    Mask index = high_[(r >> table_bits) & (table_size - 1)];
    for (std::size_t j = 0; j < beyond_.size(); ++j) index ^= (r >> (2 * table_bits + j)) & 1 ? beyond_[j] : 0;
    return index;
  }
  const Mask* low_table() const { return low_.data(); }

  Index size() const { return Index{1} << bits_; }

  // Heap memory of the tables, in bytes.
  std::size_t table_bytes() const { return sizeof(Mask) * (low_.size() + high_.size() + beyond_.size()); }

  // The length of runs: r from k * run_length() to (k + 1) * run_length() - 1 have consecutive indices.
  Index run_length() const { return Index{1} << run_bits_; }

  // Shortens runs so that the indices of a run stay consecutive when `vector` is added to them.
  void shorten_runs(Mask vector) {
    if (vector != 0) run_bits_ = std::min(run_bits_, std::countr_zero(vector));
  }

  // And when any index of `other` is added.
  void shorten_runs(const IndexMap& other) {
    shorten_runs(static_cast<Mask>(other[0]));
    for (Index r = 1; r < other.size(); r *= 2) shorten_runs(static_cast<Mask>(other[r] ^ other[0]));
  }

 private:
  static std::vector<Mask> combinations(Mask origin, std::span<const Mask> basis, int first) {
    const int last = std::min(first + table_bits, static_cast<int>(basis.size()));
    std::vector<Mask> all(std::size_t{1} << std::max(last - first, 0));
    all[0] = origin;
    for (int j = first; j < last; ++j) {
      const std::size_t half = std::size_t{1} << (j - first);
      for (std::size_t i = 0; i < half; ++i) all[half + i] = all[i] ^ basis[j];
    }
    return all;
  }

  int bits_ = 0;
  int run_bits_ = 0;
  std::vector<Mask> low_{0};
  std::vector<Mask> high_{0};
  std::vector<Mask> beyond_;
};

// What the bits of r add to an index, by XOR.
inline Vectors basis_of(const IndexMap& map) {
  Vectors basis;
  for (Index r = 1; r < map.size(); r <<= 1) basis.push_back(static_cast<Mask>(map[r] ^ map[0]));
  return basis;
}

}  // namespace ketgrad
