// Index arithmetic on basis states. Wire 0 is the most significant bit, so wire w of n lives at bit position n - 1 - w.
//
// Sets of amplitudes are affine subspaces over GF(2): bit masks are vectors, their sum is XOR, and the parity of
// (a & b) is the product of a functional with a vector.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace ketgrad {

using Index = std::int64_t;
using Mask = std::uint64_t;

constexpr bool odd_parity(Mask bits) { return (std::popcount(bits) & 1) != 0; }

constexpr int bit_of_wire(int wire, int num_wires) { return num_wires - 1 - wire; }

constexpr Mask unit(int bit) { return Mask{1} << bit; }

// A linear subspace, kept as a basis in which every vector has a lowest bit (its pivot) that no other has.
class Span {
 public:
  Span() = default;
  explicit Span(const std::vector<Mask>& vectors) {
    for (const Mask v : vectors) add(v);
  }

  // The one vector of v + span without any pivot.
  Mask reduce(Mask v) const {
    for (const Mask b : basis_) {
      if (v & (b & -b)) v ^= b;
    }
    return v;
  }

  bool contains(Mask v) const { return reduce(v) == 0; }

  // False where v was in the span already.
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
  const std::vector<Mask>& basis() const { return basis_; }

  // The pivots of all basis vectors.
  Mask pivots() const {
    Mask all = 0;
    for (const Mask b : basis_) all |= b & -b;
    return all;
  }

 private:
  std::vector<Mask> basis_;
};

// Coordinates in the basis that is added vector by vector.
class Coordinates {
 public:
  // False, and nothing added, where v depends on the vectors before it.
  bool add(Mask v) {
    Mask own = unit(static_cast<int>(reduced_.size()));
    own ^= eliminate(v);
    if (v == 0) return false;
    reduced_.push_back({v, own});
    return true;
  }

  // Bit j of the result: whether the j-th basis vector takes part in v, which must be in the span.
  Mask of(Mask v) const { return eliminate(v); }

 private:
  struct Reduced {
    Mask vector;
    Mask combination;  // of the basis as it was added
  };

  // Takes multiples of the basis off v; returns which.
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

  std::vector<Reduced> reduced_;
};

// The index of r + sum of basis[j] over the bits j of r, by tables of at most 2^12 entries.
class IndexMap {
 public:
  IndexMap() = default;
  IndexMap(Mask origin, const std::vector<Mask>& basis)
      : bits_(static_cast<int>(basis.size())),
        low_(combinations(0, basis, 0)),
        high_(combinations(origin, basis, table_bits)),
        beyond_(basis.begin() + std::min(bits_, 2 * table_bits), basis.end()) {
    while (run_bits_ < bits_ && basis[run_bits_] == unit(run_bits_)) ++run_bits_;
    // A run is neighbours in memory only if nothing else touches its bits.
    for (int j = run_bits_; j < bits_; ++j) shorten_runs(basis[j]);
    shorten_runs(origin);
  }

  static constexpr int table_bits = 12;
  static constexpr Index table_size = Index{1} << table_bits;

  Index operator[](Index r) const { return static_cast<Index>(high_part(r) ^ low_[r & (table_size - 1)]); }

  // The two parts of an index: of the bits of r above and below the table's.
  Mask high_part(Index r) const {
    Mask index = high_[(r >> table_bits) & (table_size - 1)];
    for (std::size_t j = 0; j < beyond_.size(); ++j) index ^= (r >> (2 * table_bits + j)) & 1 ? beyond_[j] : 0;
    return index;
  }
  const Mask* low_table() const { return low_.data(); }

  Index size() const { return Index{1} << bits_; }

  // Memory beside the map itself.
  std::size_t table_bytes() const { return sizeof(Mask) * (low_.size() + high_.size() + beyond_.size()); }

  // The length of runs: this many consecutive r, from a multiple of it on, have neighbouring indices.
  Index run_length() const { return Index{1} << run_bits_; }

  // Shortens runs so that indices of a run plus `vector` are neighbours too.
  void shorten_runs(Mask vector) {
    if (vector != 0) run_bits_ = std::min(run_bits_, std::countr_zero(vector));
  }

 private:
  static std::vector<Mask> combinations(Mask origin, const std::vector<Mask>& basis, int first) {
    std::vector<Mask> all{origin};
    for (int j = first; j < std::min(first + table_bits, static_cast<int>(basis.size())); ++j) {
      const std::size_t half = all.size();
      for (std::size_t i = 0; i < half; ++i) all.push_back(all[i] ^ basis[j]);
    }
    return all;
  }

  int bits_ = 0;
  int run_bits_ = 0;
  std::vector<Mask> low_{0};
  std::vector<Mask> high_{0};
  std::vector<Mask> beyond_;
};

}  // namespace ketgrad
