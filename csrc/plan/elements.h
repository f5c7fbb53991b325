// The elements of a lowered circuit, by their places in its order.
#pragma once

#include <algorithm>
#include <vector>

#include "plan/plan.h"

namespace ketgrad {

// What the planner of passes asks of a rotation or of a matrix that passes take.
class Elements {
 public:
  // Both are kept by reference.
  Elements(const Plan& plan, const std::vector<Element>& order) : plan_(plan), order_(order) {}

  bool is_rotation(int e) const { return order_[e].is_rotation(); }
  int index(int e) const { return order_[e].index; }  // of the rotation or the unfused gate
  const Rotation& rotation(int e) const { return plan_.rotations[order_[e].index]; }
  const GateOp& matrix(int e) const { return plan_.gate_ops[order_[e].index]; }

  bool is_phase(int e) const { return is_rotation(e) && rotation(e).pauli_word.is_diagonal(); }

  // Calls f(flip) for each that a tile must hold.
  template <class F>
  void for_each_flip(int e, const F& f) const {
    if (is_rotation(e)) return f(rotation(e).pauli_word.x);
    for (int bit = 0; bit < matrix(e).state_bits(); ++bit) f(matrix(e).flip(bit));
  }

  // Calls f(parity) for each whose sign something depends on.
  template <class F>
  void for_each_parity(int e, const F& f) const {
    if (is_rotation(e)) {
      f(rotation(e).pauli_word.z);
      if (!rotation(e).half.is_all()) f(rotation(e).half.mask);
      return;
    }
    for (const Half& h : matrix(e).states) f(h.mask);
    for (const Half& h : matrix(e).coset) f(h.mask);
  }

  template <class F>
  void for_each_input(int e, const F& f) const {
    if (is_rotation(e)) return f(rotation(e).angle.input);
    for (const int input : matrix(e).inputs) f(input);
  }

  // Whether an element commutes with all that narrowed the commutant, and narrowing it by one.
  bool commutes(const Commutant& commutant, int e) const {
    return is_rotation(e) ? contains(commutant, rotation(e)) : contains(commutant, matrix(e));
  }
  void narrow(Commutant& commutant, int e) const {
    is_rotation(e) ? ketgrad::narrow(commutant, rotation(e)) : ketgrad::narrow(commutant, matrix(e));
  }

 private:
  const Plan& plan_;
  const std::vector<Element>& order_;
};

}  // namespace ketgrad
