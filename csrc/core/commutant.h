// The Pauli words that commute with each of some others.
#pragma once

#include <vector>

#include "core/frame.h"

namespace ketgrad {

// Commuting is linear in a word, so that a basis of the others is enough.
class Commutant {
 public:
  bool contains(const PauliWord& word) const {
    for (const PauliWord& b : basis_) {
      if (!commute(b, word)) return false;
    }
    return true;
  }

  // From here on its words commute with this one too.
  void narrow(PauliWord word) {
    ++count_;
    for (const PauliWord& b : basis_) {
      const bool by_x = b.x != 0;
      if (by_x ? (word.x & b.x & -b.x) != 0 : (word.z & b.z & -b.z) != 0) {
        word.x ^= b.x;
        word.z ^= b.z;
      }
    }
    if (word.x != 0 || word.z != 0) basis_.push_back(word);
  }

  // How often it was narrowed.
  int count() const { return count_; }

 private:
  std::vector<PauliWord> basis_;
  int count_ = 0;
};

}  // namespace ketgrad
