#include "plan/cone.h"

#include <algorithm>
#include <utility>

namespace ketgrad {

namespace {

// Of the only target of a block.
Letter formula_letter(Formula formula) {
  if (is_diagonal(formula)) return Letter::z;
  switch (formula) {
    case Formula::x:
    case Formula::sx:
    case Formula::rx: return Letter::x;
    case Formula::y:
    case Formula::ry: return Letter::y;
    default: return Letter::all;
  }
}

Letter target_letter(const Gate& gate, const GateInfo& info, std::size_t target) {
  if (info.family == Family::pauli_rotation) return letter_of(gate.pauli_word[target]);
  if (info.family != Family::block || gate.targets.size() != 1) return Letter::all;
  return formula_letter(info.formula);
}

void add_all(std::vector<WireLetter>& seen, const std::vector<int>& wires, Letter letter) {
  for (const int w : wires) seen.push_back({w, letter});
}

}  // namespace

std::vector<WireLetter> seen_by(const Term& term) {
  std::vector<WireLetter> seen;
  for (std::size_t k = 0; k < term.pauli_wires.size(); ++k)
    seen.push_back({term.pauli_wires[k], letter_of(term.pauli_word[k])});
  for (const Factor& f : term.factors) add_all(seen, f.wires, is_diagonal(f.kind) ? Letter::z : Letter::all);
  return seen;
}

std::vector<WireLetter> seen_by(const Measurement& measurement) {
  std::vector<WireLetter> seen;
  add_all(seen, measurement.wires, measurement_info(measurement.kind).beyond_diagonal ? Letter::all : Letter::z);
  for (const Term& t : measurement.terms) {
    const std::vector<WireLetter> of_term = seen_by(t);
    seen.insert(seen.end(), of_term.begin(), of_term.end());
  }
  return seen;
}

bool has_fixed_inside(const Program& program) {
  return program.initial.kind == Preparation::state ||
         std::any_of(program.gates.begin(), program.gates.end(), [](const Gate& g) { return g.input != no_input; });
}

ConeFinder::ConeFinder(const Program& program)
    : last_(program.num_wires, -1), letters_(program.num_wires, Letter::none), is_queued_(program.gates.size(), 0) {
  first_.reserve(program.gates.size() + 1);
  const auto touch = [&](int wire, Letter letter, int gate) {
    if (letter == Letter::none) return;
    touches_.push_back({wire, letter, last_[wire]});
    last_[wire] = gate;
  };
  for (std::size_t i = 0; i < program.gates.size(); ++i) {
    const Gate& gate = program.gates[i];
    const GateInfo& info = gate_info(gate.opcode);
    const int position = static_cast<int>(i);
    first_.push_back(touches_.size());
    if (info.family == Family::identity) continue;
    for (const int w : gate.controls) touch(w, Letter::z, position);
    for (std::size_t k = 0; k < gate.targets.size(); ++k)
      touch(gate.targets[k], target_letter(gate, info, k), position);
    if (gate.input != no_input) fixed_.push_back(position);
  }
  first_.push_back(touches_.size());
  if (program.initial.kind == Preparation::state) prepared_ = program.initial.wires;
}

void ConeFinder::queue(int gate) {
  if (gate < 0 || is_queued_[gate] != 0) return;
  is_queued_[gate] = 1;
  heap_.push_back(gate);
  std::push_heap(heap_.begin(), heap_.end());
}

void ConeFinder::see(int wire, Letter letter) {
  if (letters_[wire] == Letter::none) wires_.push_back(wire);
  letters_[wire] = join(letters_[wire], letter);
}

bool ConeFinder::is_inside(int gate) const {
  return std::any_of(begin(gate), end(gate), [&](const Touch& t) {
    const Letter inside = letters_[t.wire];
    return inside != Letter::none && (inside == Letter::all || inside != t.letter);
  });
}

Cone ConeFinder::find(const std::vector<WireLetter>& seen) {
  Cone cone;
  for (const WireLetter& s : seen) {
    if (s.letter == Letter::none) continue;
    see(s.wire, s.letter);
    queue(last_[s.wire]);
  }
  for (const int gate : fixed_) queue(gate);
  std::vector<int> visited;
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const int gate = heap_.back();
    heap_.pop_back();
    visited.push_back(gate);
    if (std::binary_search(fixed_.begin(), fixed_.end(), gate) || is_inside(gate)) {
      cone.gates.push_back(gate);
      for (const Touch* t = begin(gate); t != end(gate); ++t) see(t->wire, t->letter);
    }
    for (const Touch* t = begin(gate); t != end(gate); ++t) {
      if (letters_[t->wire] != Letter::none) queue(t->previous);
    }
  }
  for (const int w : prepared_) see(w, Letter::all);
  for (const int gate : visited) is_queued_[gate] = 0;
  for (const int w : wires_) letters_[w] = Letter::none;
  visited_ += static_cast<Index>(visited.size());
  std::reverse(cone.gates.begin(), cone.gates.end());
  cone.wires = std::exchange(wires_, {});
  std::sort(cone.wires.begin(), cone.wires.end());
  return cone;
}

}  // namespace ketgrad
