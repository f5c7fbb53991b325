#include "plan/lowering.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string_view>

#include "plan/unfused_gates.h"

namespace ketgrad {

namespace {

constexpr double pi = std::numbers::pi;

Slot constant(double angle) { return {no_input, 0, 0, angle}; }

Slot times(double factor, const Slot& s) { return {s.input, s.column, factor * s.scale, factor * s.offset}; }

// The parts of a gate: rotations and permutations.
struct Primitive {
  enum class Kind : std::uint8_t { rotation, flip, cnot, swap } kind = Kind::rotation;
  WireWord word{};
  Slot angle{};
  Mask odd = 0;  // a rotation's: it acts where the parity of these wires is odd; everywhere without any
  std::vector<WireParity> coset{};  // a phase's
  int wire = 0;                     // that is flipped, or the control, or the first of two that are swapped
  int other_wire = 0;
};

// Adds the primitives of one gate, in the order of the circuit, to an empty list; none where there is no short list.
class GateLowering {
 public:
  // `mixing_in_x` is raised by what mixes amplitudes in the basis of X.
  GateLowering(const Gate& gate, Basis basis, bool unfuses_cosets, std::vector<Primitive>& list, int& mixing_in_x)
      : gate_(gate),
        info_(gate_info(gate.opcode)),
        basis_(basis),
        unfuses_cosets_(unfuses_cosets),
        list_(list),
        mixing_in_x_(mixing_in_x) {}

  void run() {
    if (gate_.controls.size() > 1) return phases_on_cosets();
    if (!known()) return;
    if (info_.family == Family::pauli_rotation) {
      rotate(wire_word(gate_.pauli_word, gate_.targets), gate_.slots[0]);
    } else if (info_.subspace == Subspace::swap || gate_.targets.size() == 2) {
      on_two_wires();
    } else {
      on_one_wire();
    }
    if (list_.empty()) return;
    if (!gate_.controls.empty() && !gate_.control_values[0]) {
      flip(gate_.controls[0]);
      list_.insert(list_.begin(), list_.back());
    }
    if (gate_.inverse) invert();
  }

 private:
  // Of a diagonal gate with any number of controls.
  void phases_on_cosets() {
    if (unfuses_cosets_ || basis_ == Basis::x) return;
    if (info_.family == Family::pauli_rotation) {
      const WireWord word = wire_word(gate_.pauli_word, gate_.targets);
      if (!word.is_diagonal()) return;
      controlled_z_rotation(word.z, gate_.slots[0]);
    } else if (info_.family == Family::block && is_diagonal(info_.formula)) {
      controlled_diagonal();
    }
    if (gate_.inverse) invert();
  }

  void controlled_diagonal() {
    const Mask targets = wire_mask(gate_.targets);
    switch (info_.formula) {
      case Formula::z: return phase_on_coset(targets, constant(-2 * pi));
      case Formula::s: return phase_on_coset(targets, constant(-pi));
      case Formula::t: return phase_on_coset(targets, constant(-pi / 2));
      case Formula::phase: return phase_on_coset(targets, times(-2, gate_.slots[0]));
      case Formula::global_phase: return phase_on_coset(0, times(2, gate_.slots[0]));
      case Formula::rz: return controlled_z_rotation(targets, gate_.slots[0]);
      default: return;
    }
  }

  // exp(-i angle/2) where the parity of the wires is even, exp(i angle/2) where it is odd.
  void controlled_z_rotation(Mask wires, const Slot& angle) {
    phase_on_coset(0, angle);
    if (wires != 0) phase_on_coset(wires, times(-2, angle));
  }

  // exp(-i angle/2) where the controls have their values and the parity of the wires, if there are any, is odd.
  void phase_on_coset(Mask odd, const Slot& angle) {
    Primitive phase{.angle = angle};
    for (std::size_t j = 0; j < gate_.controls.size(); ++j)
      phase.coset.push_back({unit(gate_.controls[j]), gate_.control_values[j]});
    if (odd != 0) phase.coset.push_back({odd, true});
    list_.push_back(std::move(phase));
  }

  bool known() const {
    if (info_.family == Family::pauli_rotation) return true;
    if (info_.family != Family::block || info_.subspace == Subspace::double_swap) return false;
    return gate_.targets.size() <= 1 || (gate_.targets.size() == 2 && gate_.controls.empty());
  }

  // A rotation, controlled where the gate is.
  void rotate(const WireWord& word, const Slot& angle) {
    if (gate_.controls.empty()) return add_real_rotation(word, angle);
    const Mask control = unit(gate_.controls[0]);
    rotate_where_odd(control, word, {word.x, word.z | control}, 1, angle);
  }

  // By a letter on the only target, or by two on the two targets.
  void rotate(std::string_view letters, const Slot& angle) { rotate(wire_word(letters, gate_.targets), angle); }

  // Rotations by P where Q, a Z on each of the wires `odd`, is -1; `sign` times the other Pauli word is P Q. In the
  // basis of X that is no half of the amplitudes, and phases are added up anyway: exp(-i a/4 P) exp(+i a/4 P Q).
  void rotate_where_odd(Mask odd, const WireWord& word, const WireWord& other, double sign, const Slot& angle) {
    if (basis_ == Basis::z && !word.is_diagonal()) return add_real_rotation(word, angle, odd);
    add_real_rotation(word, times(0.5, angle));
    add_real_rotation(other, times(-0.5 * sign, angle));
  }

  // A rotation by a Pauli word whose -i P is real, or by a phase: quarter phases on one wire trade an X for a Y or
  // back. In the basis of X, where phases are those of X, a Z for a Y: and from Z to Y it is the other way around X
  // than from X to Y around Z.
  void add_real_rotation(WireWord word, const Slot& angle, Mask odd = 0) {
    if (word.z != 0) ++mixing_in_x_;
    const bool in_z = basis_ == Basis::z;
    const Mask flips = in_z ? word.x : word.z;
    const Mask ys = word.x & word.z;
    if (odd_parity(ys) || flips == 0) return list_.push_back({.word = word, .angle = angle, .odd = odd});
    const Mask candidates = flips != ys ? flips ^ ys : ys;
    const Mask traded = candidates & -candidates;
    const double quarter = (in_z ? pi / 2 : -pi / 2) * ((ys & traded) != 0 ? -1 : 1);
    (in_z ? word.z : word.x) ^= traded;
    const WireWord phase = in_z ? WireWord{0, traded} : WireWord{traded, 0};
    list_.push_back({.word = phase, .angle = constant(quarter)});
    list_.push_back({.word = word, .angle = angle, .odd = odd});
    list_.push_back({.word = phase, .angle = constant(-quarter)});
  }

  // exp(i factor * angle) on everything, or where the control is 1.
  void phase(double factor, const Slot& angle) {
    if (gate_.controls.empty()) return add_real_rotation({}, times(-2 * factor, angle));
    add_real_rotation({0, unit(gate_.controls[0])}, times(factor, angle));
    add_real_rotation({}, times(-factor, angle));
  }

  // diag(1, exp(i angle))
  void phase_shift(const Slot& angle) {
    rotate("Z", angle);
    phase(0.5, angle);
  }

  void flip(int wire) { list_.push_back({.kind = Primitive::Kind::flip, .wire = wire}); }

  void exchange() {
    if (gate_.controls.empty()) return flip(gate_.targets[0]);
    list_.push_back({.kind = Primitive::Kind::cnot, .wire = gate_.controls[0], .other_wire = gate_.targets[0]});
  }

  void on_one_wire() {
    const std::vector<Slot>& p = gate_.slots;
    switch (info_.formula) {
      case Formula::x: return exchange();
      case Formula::y:  // S X S^dagger
        add_real_rotation(wire_word("Z", gate_.targets), constant(-pi / 2));
        exchange();
        return add_real_rotation(wire_word("Z", gate_.targets), constant(pi / 2));
      case Formula::z: return phase_shift(constant(pi));
      case Formula::s: return phase_shift(constant(pi / 2));
      case Formula::t: return phase_shift(constant(pi / 4));
      case Formula::phase: return phase_shift(p[0]);
      case Formula::h: phase_shift(constant(pi)); return rotate("Y", constant(pi / 2));
      case Formula::sx: rotate("X", constant(pi / 2)); return phase(1, constant(pi / 4));
      case Formula::rx: return rotate("X", p[0]);
      case Formula::ry: return rotate("Y", p[0]);
      case Formula::rz: return rotate("Z", p[0]);
      case Formula::rot:
        rotate("Z", p[0]);
        rotate("Y", p[1]);
        return rotate("Z", p[2]);
      case Formula::u2:
        phase_shift(p[1]);
        rotate("Y", constant(pi / 2));
        return phase_shift(p[0]);
      case Formula::u3:
        phase_shift(p[2]);
        rotate("Y", p[0]);
        return phase_shift(p[1]);
      case Formula::global_phase: return phase(-1, p[0]);
      default: return;
    }
  }

  void on_two_wires() {
    const auto word = [&](std::string_view letters) { return wire_word(letters, gate_.targets); };
    const auto swap = [&] {
      list_.push_back({.kind = Primitive::Kind::swap, .wire = gate_.targets[0], .other_wire = gate_.targets[1]});
    };
    const Slot angle = gate_.slots.empty() ? Slot{} : gate_.slots[0];
    switch (info_.formula) {
      case Formula::x: return swap();
      case Formula::i_x:  // SWAP exp(i pi/4 (1 - Z Z)): i on |01> and |10>
        rotate("ZZ", constant(pi / 2));
        phase(1, constant(pi / 4));
        return swap();
      case Formula::phase_x:
        rotate("ZZ", angle);
        phase(0.5, angle);
        return swap();
      case Formula::rx_back:  // exp(i angle/4 (XX + YY)), and YY = -XX ZZ
        return rotate_where_odd(wire_mask(gate_.targets), word("XX"), word("YY"), -1, times(-1, angle));
      case Formula::ry: return excitation(0);
      case Formula::single_excitation_plus: return excitation(1);
      case Formula::single_excitation_minus: return excitation(-1);
      default: return;
    }
  }

  // exp(-i angle/4 (YX - XY)) rotates |01> into |10>, and XY = YX ZZ; exp(i sign angle/4 (1 + Z Z)) is the phase of
  // the others.
  void excitation(double sign) {
    const Mask odd = wire_mask(gate_.targets);
    rotate_where_odd(odd, wire_word("YX", gate_.targets), wire_word("XY", gate_.targets), 1, gate_.slots[0]);
    if (sign == 0) return;
    rotate("ZZ", times(-0.5 * sign, gate_.slots[0]));
    phase(0.25 * sign, gate_.slots[0]);
  }

  // Backwards, with negative angles: the permutations are their own inverses.
  void invert() {
    std::reverse(list_.begin(), list_.end());
    for (Primitive& p : list_) p.angle = times(-1, p.angle);
  }

  const Gate& gate_;
  const GateInfo& info_;
  const Basis basis_;
  const bool unfuses_cosets_;
  std::vector<Primitive>& list_;
  int& mixing_in_x_;
};

class Lowering {
 public:
  Lowering(const Program& program, Basis basis, const Layout& layout)
      : program_(program), layout_(layout), found_{{}, {}, {}, WireMap(program.num_wires, basis), {}, 0} {}

  Lowered run() {
    begin();
    std::vector<Primitive> list;
    for (int i = 0; i < static_cast<int>(program_.gates.size()); ++i) {
      const Gate& gate = program_.gates[i];
      if (gate_info(gate.opcode).family == Family::identity) continue;
      list.clear();
      GateLowering(gate, found_.wire_map.basis(), layout_.unfuses_cosets, list, mixing_in_x_).run();
      if (list.empty()) {
        found_.order.push_back({Element::Kind::gate_op, static_cast<int>(found_.gate_ops.size())});
        found_.gate_ops.push_back(gate_op_of(program_, i, found_.wire_map, layout_));
      }
      for (const Primitive& p : list) add(p, i);
    }
    return std::move(found_);
  }

  // At least so many rotations mix amplitudes in the basis of X.
  int mixing_in_x() const { return mixing_in_x_; }

 private:
  // In the basis of X, |0...0> is all of its states alike, and a 1 is a sign.
  void begin() {
    const InitialState& initial = program_.initial;
    if (found_.wire_map.basis() == Basis::x) found_.initial.everywhere = std::exp2(-0.5 * program_.num_wires);
    for (std::size_t j = 0; j < initial.bits.size(); ++j) {
      if (!initial.bits[j]) continue;
      if (found_.wire_map.basis() == Basis::x) {
        found_.wire_map.flip_wire(initial.wires[j]);
      } else {
        found_.initial.index |= found_.wire_map.flip(initial.wires[j]);
      }
    }
  }

  void add(const Primitive& p, int gate) {
    switch (p.kind) {
      case Primitive::Kind::flip: return found_.wire_map.flip_wire(p.wire);
      case Primitive::Kind::cnot: return found_.wire_map.cnot(p.wire, p.other_wire);
      case Primitive::Kind::swap: return found_.wire_map.swap(p.wire, p.other_wire);
      case Primitive::Kind::rotation:
        found_.order.push_back({Element::Kind::rotation, static_cast<int>(found_.rotations.size())});
        found_.rotations.push_back({found_.wire_map.pauli_word(p.word), p.angle, gate,
                                    half_of(found_.wire_map, {p.odd}), halves_of(found_.wire_map, p.coset)});
    }
  }

  const Program& program_;
  const Layout& layout_;
  Lowered found_;
  int mixing_in_x_ = 0;
};

// Whether only Pauli words are measured.
bool needs_pauli_words_only(const Program& program) {
  if (program.initial.kind == Preparation::state) return false;
  return std::all_of(program.measurements.begin(), program.measurements.end(), [](const Measurement& m) {
    const auto is_pauli_word = [](const Term& t) { return t.factors.empty(); };
    return m.kind == MeasurementKind::expval && std::all_of(m.terms.begin(), m.terms.end(), is_pauli_word);
  });
}

// The number of rotations that mix amplitudes, each weighted with the share of amplitudes in the support: if the
// circuit begins in one basis state, it doubles with every new flip.
double count_mixing(const Lowered& lowered) {
  Span flips;
  int missing = lowered.initial.everywhere != 0 ? 0 : lowered.wire_map.num_wires();
  double total = 0;
  for (const Rotation& t : lowered.rotations) {
    if (t.pauli_word.is_diagonal()) continue;
    if (flips.add(t.pauli_word.x) && missing > 0) --missing;
    total += std::exp2(-missing);
  }
  return total;
}

// How many fewer rotations the basis of X must have, because there even the first passes visit all of a state: on 24
// wires two layers of RX RZ RX, 48 rotations instead of 52, took 1.7 times as long, and on 12 to 20 wires four layers,
// 0.64 of the rotations, 0.8 to 0.95 times as long.
constexpr double least_gain = 0.7;

}  // namespace

void split_halves(Lowered& lowered) {
  std::vector<Rotation> rotations;
  std::vector<Element> order;
  for (const Element& e : lowered.order) {
    if (!e.is_rotation()) {
      order.push_back(e);
      continue;
    }
    const auto add = [&](const PauliWord& pauli_word, const Slot& angle) {
      order.push_back({Element::Kind::rotation, static_cast<int>(rotations.size())});
      rotations.push_back({pauli_word, angle, lowered.rotations[e.index].gate, {}, {}});
    };
    const Rotation& rotation = lowered.rotations[e.index];
    add(rotation.pauli_word, rotation.half.is_all() ? rotation.angle : times(0.5, rotation.angle));
    if (!rotation.half.is_all()) add(rotation.other_pauli_word(), times(-0.5, rotation.angle));
  }
  lowered.rotations = std::move(rotations);
  lowered.order = std::move(order);
}

Lowered lower(const Program& program, const Layout& layout) {
  Lowering lowering(program, Basis::z, layout);
  Lowered found = lowering.run();
  const bool has_cosets = std::ranges::any_of(found.rotations, [](const Rotation& r) { return !r.coset.empty(); });
  if (!found.gate_ops.empty() || has_cosets || !needs_pauli_words_only(program)) return found;
  if (lowering.mixing_in_x() >= least_gain * count_mixing(found)) return found;
  Lowered other = Lowering(program, Basis::x, layout).run();
  if (count_mixing(other) < least_gain * count_mixing(found)) return other;
  return found;
}

}  // namespace ketgrad
