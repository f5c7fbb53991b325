// The Pauli words that commute with all of a set.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "math/pauli_word.h"

namespace ketgrad {

// Two Pauli words commute if their symplectic product over GF(2) is 0, so a basis of the set is enough. If it spans all
// Pauli words, only the identity commutes. The hottest query of the planner.
class Commutant {
 public:
  explicit Commutant(int num_bits) : most_(2 * num_bits) { basis_.reserve(most_); }

  bool contains(const PauliWord& pauli_word) const {
    if (is_trivial()) return pauli_word.x == 0 && pauli_word.z == 0;
    for (const PauliWord& b : basis_) {
      if (!commute(b, pauli_word)) return false;
    }
    return true;
  }

  // Adds a Pauli word to the set.
  void narrow(PauliWord pauli_word) {
    ++count_;
    if (is_trivial()) return;
    if (reduce(pauli_word, &PauliWord::x, by_x_) || reduce(pauli_word, &PauliWord::z, by_z_))
      basis_.push_back(pauli_word);
  }

  // How many Pauli words were added.
  int count() const { return count_; }

  // Whether only the identity is left.
  bool is_trivial() const { return static_cast<int>(basis_.size()) == most_; }

 private:
  // Positions in the basis by pivot bit; `bits` is the mask of pivots.
  struct Pivots {
    Mask bits = 0;
    std::array<std::uint8_t, 64> at{};
  };

  // Clears bits from the lowest up, which changes only higher bits. True if the Pauli word is not in the span; its
  // lowest bit becomes a pivot.
  bool reduce(PauliWord& pauli_word, Mask PauliWord::* part, Pivots& pivots) const {
    while (pauli_word.*part != 0) {
      const int lowest = std::countr_zero(pauli_word.*part);
      if ((pivots.bits & unit(lowest)) == 0) {
        pivots.bits |= unit(lowest);
        pivots.at[lowest] = static_cast<std::uint8_t>(basis_.size());
        return true;
      }
      const PauliWord& b = basis_[pivots.at[lowest]];
      pauli_word.x ^= b.x;
      pauli_word.z ^= b.z;
    }
    return false;
  }

  const int most_;
  std::vector<PauliWord> basis_;
  Pivots by_x_;
  Pivots by_z_;
  int count_ = 0;
};

}  // namespace ketgrad
