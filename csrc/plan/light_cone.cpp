#include "plan/light_cone.h"

#include <algorithm>
#include <utility>

#include "math/commutant.h"

namespace ketgrad {

namespace {

class Pruning {
 public:
  Pruning(const Program& program, Lowered& lowered)
      : program_(program), lowered_(lowered), outside_(program.num_wires) {
    for (const Measurement& m : program.measurements) see(m);
  }

  Lowered run() {
    std::vector<Element> inside;
    for (auto e = lowered_.order.rbegin(); e != lowered_.order.rend(); ++e) {
      if (e->is_rotation() ? sees(lowered_.rotations[e->index]) : sees(lowered_.gate_ops[e->index]))
        inside.push_back(*e);
    }
    std::reverse(inside.begin(), inside.end());
    return kept(inside);
  }

 private:
  // By the Pauli words of which what is measured is a polynomial.
  void see(const Measurement& m) {
    see_all(m.wires, measurement_info(m.kind).beyond_diagonal);
    for (const Term& t : m.terms) {
      outside_.narrow(lowered_.wire_map.pauli_word(t.pauli_word, t.pauli_wires));
      for (const Factor& f : t.factors) see_all(f.wires, !is_diagonal(f.kind));
    }
  }

  void see_all(const std::vector<int>& wires, bool beyond_diagonal) {
    for (const int w : wires) {
      outside_.narrow(lowered_.wire_map.pauli_word("Z", {w}));
      if (beyond_diagonal) outside_.narrow(lowered_.wire_map.pauli_word("X", {w}));
    }
  }

  bool sees(const Rotation& rotation) {
    if (contains(outside_, rotation)) return false;
    narrow(outside_, rotation);
    return true;
  }

  bool sees(const GateOp& gate_op) {
    const bool takes_matrix = program_.gates[gate_op.gate].input != no_input;
    if (!takes_matrix && contains(outside_, gate_op)) return false;
    narrow(outside_, gate_op);
    return true;
  }

  std::ptrdiff_t count_gates(const std::vector<Element>& elements) const {
    std::vector<bool> has(program_.gates.size(), false);
    for (const Element& e : elements)
      has[e.is_rotation() ? lowered_.rotations[e.index].gate : lowered_.gate_ops[e.index].gate] = true;
    return std::count(has.begin(), has.end(), true);
  }

  Lowered kept(const std::vector<Element>& inside) {
    const auto dropped = static_cast<int>(count_gates(lowered_.order) - count_gates(inside));
    Lowered found{{}, {}, {}, lowered_.wire_map, lowered_.initial, dropped};
    for (const Element& e : inside) {
      if (e.is_rotation()) {
        found.order.push_back({Element::Kind::rotation, static_cast<int>(found.rotations.size())});
        found.rotations.push_back(lowered_.rotations[e.index]);
      } else {
        found.order.push_back({Element::Kind::gate_op, static_cast<int>(found.gate_ops.size())});
        found.gate_ops.push_back(std::move(lowered_.gate_ops[e.index]));
      }
    }
    return found;
  }

  const Program& program_;
  Lowered& lowered_;
  Commutant outside_;
};

}  // namespace

void keep_light_cone(const Program& program, Lowered& lowered) {
  if (program.measures_all_wires()) return;
  lowered = Pruning(program, lowered).run();
}

}  // namespace ketgrad
