// Unfused gates, each of which is a pass over states in memory: applied, undone, and the gradients of their parameters.
#pragma once

#include "cuda/engine/context.h"
#include "cuda/kernels/gate_ops.h"
#include "cuda/kernels/group_sums.h"

namespace ketgrad::cuda {

template <class T>
class UnfusedGates {
 public:
  explicit UnfusedGates(Context<T>& context) : c_(context) {}

  void apply(const TableGateOp& gate_op, Complex<T>* states) {
    if (is_evolution(gate_op)) return apply_evolution(c_.queue(), c_.state_call(), gate_op, false, states);
    apply(gate_op, set_gate_op(gate_op, false), states);
  }

  // The overlaps are of the bra after the gate and the ket before it; those of a rotation, or an evolution, which
  // commute with their generators, of both on the same side. `single` has the gradients of parameters.
  void undo(const TableGateOp& gate_op, Complex<T>* ket, Complex<T>* bra, Accum<T>* single) {
    if (is_evolution(gate_op)) return undo_evolution(gate_op, ket, bra, single);
    const Coefficients adjoint = set_gate_op(gate_op, true);
    const bool is_rotation = gate_op.kind == GateOpKind::pauli_rotation;
    apply(gate_op, inverse_of(gate_op, adjoint), ket);
    if (!is_rotation) add_gradients(gate_op, ket, bra, single);
    apply(gate_op, adjoint, bra);
    if (is_rotation) add_gradients(gate_op, ket, bra, single);
  }

 private:
  static bool is_evolution(const TableGateOp& gate_op) { return gate_op.kind == GateOpKind::evolution; }

  void undo_evolution(const TableGateOp& gate_op, Complex<T>* ket, Complex<T>* bra, Accum<T>* single) {
    if (c_.requests(gate_op.values)) {
      const Index amplitudes = gate_op.groups.size() * gate_op.entries.size();
      Complex<Accum<T>>* sums = c_.room_for_sums(c_.samples().count);
      Complex<Accum<T>>* partials = c_.room_for_partials(sum_scratch_count(amplitudes, 1, c_.samples().count));
      sum_evolution(c_.queue(), c_.state_call(), gate_op, static_cast<const Complex<T>*>(bra),
                    static_cast<const Complex<T>*>(ket), sums, partials);
      set_gate_op_sources(c_.queue(), c_.state_call(), gate_op, static_cast<const Complex<Accum<T>>*>(sums), single);
    }
    if (c_.requests(gate_op.input)) {
      const Entries entries{Entries::Kind::diagonal, gate_op.entries.size(), {}, {}};
      add_entry_gradient(c_.queue(), c_.state_call(), gate_op, c_.inputs()[gate_op.input].batched != 0,
                         c_.sum_groups(gate_op.groups, Offsets::of(gate_op.entries), entries, bra, ket));
    }
    apply_evolution(c_.queue(), c_.state_call(), gate_op, true, ket);
    apply_evolution(c_.queue(), c_.state_call(), gate_op, true, bra);
  }

  // The coefficients of a gate, valid until the next one's.
  struct Coefficients {
    Complex<T>* data = nullptr;
    Index rows = 1;    // one for each sample, or one for all
    Index stride = 0;  // from one sample's to the next one's
  };

  Coefficients set_gate_op(const TableGateOp& gate_op, bool adjoint) {
    const bool batched = is_batched(gate_op);
    const Index count = coefficient_count(gate_op);
    const Index rows = batched ? c_.samples().count : 1;
    const Coefficients found{c_.room_for_coefficients(rows * count), rows, batched ? count : 0};
    set_coefficients(c_.queue(), c_.state_call(), gate_op, adjoint, rows, found.data);
    return found;
  }

  bool is_batched(const TableGateOp& gate_op) const {
    const auto is_batched_input = [&](int input) { return input != no_input && c_.inputs()[input].batched != 0; };
    for (int j = 0; j < gate_op.values.count; ++j) {
      if (is_batched_input(c_.tables().values[gate_op.values.first + j].input)) return true;
    }
    return is_batched_input(gate_op.input);
  }

  void apply(const TableGateOp& gate_op, const Coefficients& coefficients, Complex<T>* states) {
    apply_gate_op(c_.queue(), c_.state_call(), gate_op, static_cast<const Complex<T>*>(coefficients.data),
                  coefficients.stride, states);
  }

  // The ket is undone by the inverse, the bra by the adjoint: these may differ in the tangents of a matrix that is an
  // input.
  Coefficients inverse_of(const TableGateOp& gate_op, const Coefficients& adjoint) {
    if constexpr (is_dual<T>) {
      if (c_.has_tangent(gate_op.input)) {
        const Index count = adjoint.rows * coefficient_count(gate_op);
        Complex<T>* inverse = c_.room_for_factor(2 * count);
        invert_tangents(c_.queue(), gate_op, adjoint.rows, adjoint.data, inverse, inverse + count);
        return {inverse, adjoint.rows, adjoint.stride};
      }
    }
    return adjoint;
  }

  void add_gradients(const TableGateOp& gate_op, const Complex<T>* ket, const Complex<T>* bra, Accum<T>* single) {
    const bool requests_matrix = c_.requests(gate_op.input);
    if (!requests_matrix && !c_.requests(gate_op.values)) return;
    const Complex<Accum<T>>* sums = sum_overlaps(gate_op, ket, bra);
    set_gate_op_sources(c_.queue(), c_.state_call(), gate_op, sums, single);
    if (requests_matrix)
      add_matrix_gradient(c_.queue(), c_.state_call(), gate_op, c_.inputs()[gate_op.input].batched != 0, sums);
  }

  const Complex<Accum<T>>* sum_overlaps(const TableGateOp& gate_op, const Complex<T>* ket, const Complex<T>* bra) {
    if (gate_op.kind == GateOpKind::pauli_rotation) {
      Complex<Accum<T>>* sums = c_.room_for_sums(c_.samples().count);
      Complex<Accum<T>>* partials =
          c_.room_for_partials(sum_scratch_count(gate_op.groups.size(), 1, c_.samples().count));
      sum_rotation(c_.queue(), c_.state_call(), gate_op, bra, ket, sums, partials);
      return sums;
    }
    const auto kind = gate_op.kind == GateOpKind::diagonal ? Entries::Kind::diagonal : Entries::Kind::all;
    return c_.sum_groups(gate_op.groups, Offsets::of(gate_op.offsets), {kind, overlap_count(gate_op), {}, {}}, bra,
                         ket);
  }

  Context<T>& c_;
};

}  // namespace ketgrad::cuda
