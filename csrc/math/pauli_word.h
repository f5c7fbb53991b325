// Pauli words.
#pragma once

#include "math/bits.h"

namespace ketgrad {

// A Pauli word P as masks on indices: P|i> = +-i^y_count (-1)^popcount(i & z) |i ^ x>.
struct PauliWord {
  Mask x = 0;
  Mask z = 0;
  int y_count = 0;
  bool negative = false;

  bool is_diagonal() const { return x == 0; }
  // Whether -i P is a real matrix.
  bool is_real() const { return (y_count & 1) != 0; }
};

inline bool commute(const PauliWord& a, const PauliWord& b) { return !odd_parity((a.x & b.z) ^ (a.z & b.x)); }

}  // namespace ketgrad
