#include "plan/subprogram.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace ketgrad {

namespace {

// Numbers wires by their place among those of a cone.
class Renumbering {
 public:
  explicit Renumbering(const Cone& cone) : cone_(cone) {}

  int operator()(int wire) const { return cone_.local(wire); }
  bool has(int wire) const { return std::binary_search(cone_.wires.begin(), cone_.wires.end(), wire); }

  void apply(std::vector<int>& wires) const {
    for (int& w : wires) w = (*this)(w);
  }

 private:
  const Cone& cone_;
};

InitialState initial_on(const InitialState& whole, const Renumbering& number) {
  InitialState part = whole;
  if (whole.kind == Preparation::basis) {
    part.wires.clear();
    part.bits.clear();
    for (std::size_t k = 0; k < whole.wires.size(); ++k) {
      if (!number.has(whole.wires[k])) continue;
      part.wires.push_back(number(whole.wires[k]));
      part.bits.push_back(whole.bits[k]);
    }
  } else {
    number.apply(part.wires);
  }
  return part;
}

// A gate on the wires of a cone. Where the letter of its Pauli word is I it acts on nothing, and the wire may be outside.
Gate gate_on(const Gate& whole, const Renumbering& number) {
  Gate part = whole;
  number.apply(part.controls);
  part.targets.clear();
  part.pauli_word.clear();
  for (std::size_t k = 0; k < whole.targets.size(); ++k) {
    if (!whole.pauli_word.empty() && whole.pauli_word[k] == 'I') continue;
    part.targets.push_back(number(whole.targets[k]));
    if (!whole.pauli_word.empty()) part.pauli_word += whole.pauli_word[k];
  }
  return part;
}

// f(slot) for all slots of a program, in order.
template <class F>
void for_each_slot(Program& program, const F& f) {
  for (Gate& g : program.gates) {
    for (Slot& s : g.slots) f(s);
  }
  for (Measurement& m : program.measurements) {
    for (Term& t : m.terms) {
      for (Slot& s : t.coefficients) f(s);
    }
  }
}

// f(input) for all inputs that are read as a whole: matrices, diagonals, states and values of sparse matrices.
template <class F>
void for_each_whole_input(Program& program, const F& f) {
  const auto see = [&](int& input) {
    if (input != no_input) f(input);
  };
  see(program.initial.input);
  for (Gate& g : program.gates) see(g.input);
  for (Measurement& m : program.measurements) {
    for (Term& t : m.terms) {
      for (Factor& factor : t.factors) see(factor.input);
    }
  }
}

}  // namespace

Program subprogram(const Program& whole, const Cone& cone, std::vector<Measurement> measurements) {
  const Renumbering number(cone);
  Program part;
  part.num_wires = static_cast<int>(cone.wires.size());
  part.inputs = whole.inputs;
  part.initial = initial_on(whole.initial, number);
  part.gates.reserve(cone.gates.size());
  for (const int g : cone.gates) part.gates.push_back(gate_on(whole.gates[g], number));
  part.measurements = std::move(measurements);
  for (Measurement& m : part.measurements) {
    number.apply(m.wires);
    for (Term& t : m.terms) {
      number.apply(t.pauli_wires);
      for (Factor& f : t.factors) number.apply(f.wires);
    }
  }
  return part;
}

CompactInputs compact_inputs(Program& program) {
  CompactInputs compact;
  std::vector<InputSpec> kept;
  std::vector<int> place(program.inputs.size(), -1);
  std::vector<std::unordered_map<int, int>> columns(program.inputs.size());
  const auto keep = [&](int input) {
    if (place[input] >= 0) return place[input];
    place[input] = static_cast<int>(kept.size());
    kept.push_back(program.inputs[input]);
    compact.inputs.push_back(input);
    compact.columns.emplace_back();
    return place[input];
  };
  const auto keep_column = [&](int input, int column) {
    const int to = keep(input);
    auto [at, is_new] = columns[input].try_emplace(column, static_cast<int>(compact.columns[to].size()));
    if (is_new) compact.columns[to].push_back(column);
    return at->second;
  };
  keep(0);
  // Real ones before the slots, so that their columns stay in order.
  for_each_whole_input(program, [&](int& input) {
    const InputSpec& spec = program.inputs[input];
    for (int c = 0; !spec.is_complex && c < static_cast<int>(spec.numel()); ++c) keep_column(input, c);
    input = keep(input);
  });
  for_each_slot(program, [&](Slot& s) {
    s.column = keep_column(s.input, s.column);
    s.input = place[s.input];
  });
  for (std::size_t i = 0; i < kept.size(); ++i) {
    if (!kept[i].is_complex) kept[i].shape = {static_cast<Index>(compact.columns[i].size())};
  }
  program.inputs = std::move(kept);
  return compact;
}

}  // namespace ketgrad
