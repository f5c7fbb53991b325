// The gates and wires that a measurement depends on, of a program on any number of wires.
//
// Backwards from what is measured, a gate is outside if it commutes with all that is inside. Here that is settled wire
// by wire: a gate is made of one Pauli letter on a wire (RZ and a control of Z, RX and the target of a CNOT of X), or of
// all of them. Where all that is inside has the same letter as the gate, on each wire that they share, they commute.
// light_cone.h decides by whole Pauli words, which finds more, but only among wires that fit into a mask. Gates and
// states whose numbers are an input are inside always, as there.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "program/program.h"

namespace ketgrad {

enum class Letter : std::uint8_t { none, x, y, z, all };

// What of both is, on one wire.
constexpr Letter join(Letter a, Letter b) {
  if (a == Letter::none) return b;
  return b == Letter::none || a == b ? a : Letter::all;
}

constexpr Letter letter_of(char pauli) {
  return pauli == 'X' ? Letter::x : pauli == 'Y' ? Letter::y : pauli == 'Z' ? Letter::z : Letter::none;
}

struct WireLetter {
  int wire = 0;
  Letter letter = Letter::none;

  friend bool operator==(const WireLetter&, const WireLetter&) = default;
};

struct Cone {
  std::vector<int> wires;  // ascending
  std::vector<int> gates;  // of the program, ascending

  // The number of a wire among those of the cone.
  int local(int wire) const {
    return static_cast<int>(std::lower_bound(wires.begin(), wires.end(), wire) - wires.begin());
  }
};

// What is seen of a measurement's wires, or of a term's; a wire may stand there twice.
std::vector<WireLetter> seen_by(const Measurement& measurement);
std::vector<WireLetter> seen_by(const Term& term);

// Whether a program has matrices, diagonals or states that are inputs of its gates or of its preparation.
bool has_fixed_inside(const Program& program);

class ConeFinder {
 public:
  explicit ConeFinder(const Program& program);

  // Time grows with what is inside, not with the program.
  Cone find(const std::vector<WireLetter>& seen);

  // What a gate is made of on each of its wires.
  struct Touch {
    int wire = 0;
    Letter letter = Letter::none;
    int previous = -1;  // gate on the wire
  };
  const Touch* begin(int gate) const { return touches_.data() + first_[gate]; }
  const Touch* end(int gate) const { return touches_.data() + first_[gate + 1]; }

  // Gates looked at so far.
  Index visited() const { return visited_; }

 private:
  void see(int wire, Letter letter);
  void queue(int gate);
  bool is_inside(int gate) const;

  std::vector<Touch> touches_;
  std::vector<std::size_t> first_;  // per gate, of its touches
  std::vector<int> last_;           // per wire, the last gate on it
  std::vector<int> fixed_;          // gates that are always inside
  std::vector<int> prepared_;       // wires of a state that is an input
  std::vector<Letter> letters_;     // per wire, of what is inside; none between calls
  std::vector<int> wires_;          // with a letter
  std::vector<int> heap_;           // of gates, the latest first
  std::vector<std::uint8_t> is_queued_;
  Index visited_ = 0;
};

}  // namespace ketgrad
