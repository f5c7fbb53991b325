// Lowering: the gates of a program become rotations and unfused gates, and the permutations among them become the wire
// map.
//
// A rotation is exp(-i angle/2 P) for a Pauli word P. Nearly every gate is a product of rotations, and for rotations
// there is one kernel each way, one overlap and one rule for what commutes. Rotations whose Pauli word is diagonal are
// phases; all others are brought to real matrices here, by quarter phases around them: exp(-i angle/2 X) = S^dagger
// exp(-i angle/2 Y) S. What is no product of a few rotations stays an unfused gate of its own.
//
// A rotation may act on half the amplitudes: exp(-i angle/2 P (1 - Q)/2) with a string Q of Zs that commutes with P.
// So are controlled rotations, with the control's Z for Q, and rotations between |01> and |10>, with Z Z. It is the
// product of rotations by P and by P Q, of half the angle each, but the other half of the amplitudes would come out of
// these with what rounding leaves of a rotation and its inverse: zeros would not stay zeros.
//
// Or on a coset: exp(-i angle/2) at the amplitudes where each of some parities has a given value. So are diagonal gates
// with two or more controls. As rotations by Z-strings they would be 2^k of them.
//
// In the basis of X (see wire_map.h) it is RX that is a phase. Circuits of which nothing but Pauli words is measured,
// and which begin in a basis state, are lowered to that basis where clearly fewer rotations are left in it: RX RZ RX on
// each wire and CNOT between them has half as many there.
#pragma once

#include <algorithm>
#include <vector>

#include "math/commutant.h"
#include "plan/initial_amplitudes.h"
#include "plan/layout.h"
#include "plan/wire_map.h"
#include "program/program.h"

namespace ketgrad {

// The indices whose parity under the mask is odd, or even; all of them without a mask.
struct Half {
  Mask mask = 0;
  bool even = false;

  bool is_all() const { return mask == 0; }
  PauliWord z_string() const { return {0, mask, 0, even}; }

  friend bool operator==(const Half&, const Half&) = default;
};

struct Rotation {
  PauliWord pauli_word;
  Slot angle;    // of no input where the angle is a constant
  int gate = 0;  // index into program.gates
  Half half;     // it acts there; its Pauli word maps it to itself
  // Of a phase on a coset, which is the intersection of these; its Pauli word is the identity then.
  std::vector<Half> coset;

  // The Pauli word P Q of rotations of half the amplitudes (see above).
  PauliWord other_pauli_word() const {
    return {pauli_word.x, pauli_word.z ^ half.mask, pauli_word.y_count, pauli_word.negative != half.even};
  }
};

// Whether a rotation commutes with all that narrowed the commutant, and narrowing it by a rotation: by every Pauli word
// that the rotation is a function of.
inline bool contains(const Commutant& commutant, const Rotation& rotation) {
  return commutant.contains(rotation.pauli_word) &&
         (rotation.half.is_all() || commutant.contains(rotation.other_pauli_word())) &&
         std::ranges::all_of(rotation.coset, [&](const Half& h) { return commutant.contains(h.z_string()); });
}

inline void narrow(Commutant& commutant, const Rotation& rotation) {
  commutant.narrow(rotation.pauli_word);
  if (!rotation.half.is_all()) commutant.narrow(rotation.other_pauli_word());
  for (const Half& h : rotation.coset) commutant.narrow(h.z_string());
}

enum class GateOpKind : std::uint8_t {
  dense,           // a square matrix mixes the states at `offsets`
  diagonal,        // each state at `offsets` has its own factor
  exchange,        // the two states at `offsets` trade places
  pauli_rotation,  // cos(theta/2) - i sin(theta/2) P
  evolution,       // exp(-i t D), D being a diagonal that is an input
};

// One gate, one pass over the state.
struct GateOp {
  GateOpKind kind = GateOpKind::dense;
  bool is_in_pass = false;  // a dense one that passes take
  // The groups of amplitudes that it works on, if it is not in a pass: all targets at 0 (or, of a Pauli word, one state
  // of each pair), controls at their values.
  IndexMap groups;
  std::vector<Index> offsets;  // of the amplitudes of a group, to be added by XOR
  IndexMap entries;            // likewise of an evolution, which may have as many as the state
  PauliWord pauli_word;
  std::vector<PauliWord> pauli_words;  // of which it is a polynomial
  // Of a dense one: it acts on the intersection of `coset`, and bit b of the local state is 1 on states[b].
  std::vector<Half> coset;
  std::vector<Half> states;
  int gate = 0;             // index into program.gates
  std::vector<int> inputs;  // that the gate reads, without repeats

  int size() const { return static_cast<int>(offsets.size()); }
  int state_bits() const { return static_cast<int>(states.size()); }
  // What flips a bit of the local state.
  Mask flip(int bit) const { return static_cast<Mask>(offsets[std::size_t{1} << bit] ^ offsets[0]); }
};

inline bool contains(const Commutant& commutant, const GateOp& gate_op) {
  return std::ranges::all_of(gate_op.pauli_words, [&](const PauliWord& w) { return commutant.contains(w); });
}

inline void narrow(Commutant& commutant, const GateOp& gate_op) {
  for (const PauliWord& w : gate_op.pauli_words) commutant.narrow(w);
}

// How many real numbers an unfused gate's matrix, diagonal or angle takes, and how many its overlaps of bra and ket.
Index coefficient_count(const GateOp& gate_op);
Index overlap_count(const GateOp& gate_op);

// Adds an input to a list without repeats, unless it is `no_input`.
void add_input(std::vector<int>& inputs, int input);

// One of the lowered rotations, or of the unfused gates.
struct Element {
  enum class Kind : std::uint8_t { rotation, gate_op };

  Kind kind = Kind::rotation;
  int index = 0;

  bool is_rotation() const { return kind == Kind::rotation; }
};

struct Lowered {
  std::vector<Rotation> rotations;
  std::vector<GateOp> gate_ops;
  std::vector<Element> order;
  WireMap wire_map;  // at the end of the circuit
  InitialAmplitudes initial;
  int dropped = 0;  // gates outside the light cone: see light_cone.h
};

// The layout says which gates passes take.
Lowered lower(const Program& program, const Layout& layout = {});

// Replaces each rotation of half the amplitudes by two of all of them.
void split_halves(Lowered& lowered);

}  // namespace ketgrad
