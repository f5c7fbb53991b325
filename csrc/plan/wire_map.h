// The wire map: how amplitudes lie in memory while permutation gates are carried along instead of being performed.
//
// X, CNOT and SWAP map basis states to basis states by an affine map over GF(2). The state in memory stays as it is;
// the wire map says where things are: the bit of a wire is the parity of (index & parity(w)), plus offset(w), and
// flipping that bit alone is adding flip(w) to the index. parity(v) and flip(w) are dual: their product is 1 for v = w,
// else 0.
//
// In the basis of X, amplitudes are those of |+> and |-> on each wire: Z flips them there and X is a phase, so the
// masks change roles, and Y = i X Z changes its sign. All the rest, which needs no more than Pauli words, is the same.
#pragma once

#include <bit>
#include <string_view>
#include <vector>

#include "math/bits.h"
#include "math/pauli_word.h"

namespace ketgrad {

enum class Basis : std::uint8_t { z, x };

// A Pauli word as masks of wires: bit w of x stands for an X on wire w, of z for a Z, of both for a Y.
struct WireWord {
  Mask x = 0;
  Mask z = 0;

  bool is_diagonal() const { return x == 0; }
};

// `letters[j]` of IXYZ acts on wires[j].
WireWord wire_word(std::string_view letters, const std::vector<int>& wires);

// The mask of some wires.
Mask wire_mask(const std::vector<int>& wires);

// f(wire) for each wire of a mask, from the lowest on.
template <class F>
void for_each_wire(Mask wires, const F& f) {
  for (; wires != 0; wires &= wires - 1) f(std::countr_zero(wires));
}

class WireMap {
 public:
  explicit WireMap(int num_wires, Basis basis = Basis::z);

  void flip_wire(int wire) { offsets_ ^= unit(wire); }
  void cnot(int control, int target);
  void swap(int a, int b);

  Mask flip(int wire) const { return flip_[wire]; }
  Mask parity(int wire) const { return parity_[wire]; }
  bool offset(int wire) const { return ((offsets_ >> wire) & 1) != 0; }
  Basis basis() const { return basis_; }
  int num_wires() const { return static_cast<int>(flip_.size()); }

  PauliWord pauli_word(const WireWord& word) const;
  PauliWord pauli_word(std::string_view letters, const std::vector<int>& wires) const {
    return pauli_word(wire_word(letters, wires));
  }

  // The rest is of the basis of Z alone.

  // The indices at which the wires have the given bits, in ascending order where the wire map allows.
  IndexMap fixed(const std::vector<int>& wires, const std::vector<bool>& bits) const;

  // The index of local basis state a of the wires, the first wire its most significant bit, is the sum of
  // local(wires)[a] and of one of groups(wires), which are the places where all the wires' parities are even.
  IndexMap local(const std::vector<int>& wires) const;
  IndexMap groups(const std::vector<int>& wires) const;

 private:
  IndexMap coset(const std::vector<int>& wires, Mask origin) const;

  Basis basis_;
  std::vector<Mask> flip_;
  std::vector<Mask> parity_;
  Mask offsets_ = 0;  // bit w: that of wire w
};

}  // namespace ketgrad
