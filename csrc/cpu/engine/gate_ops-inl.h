// Unfused gates on the states of a group of samples. Forward they are applied; going back, the plain engine undoes ket
// and bra at once and takes their overlaps on the way (UndoGateOps), and the engine with tangents does one after the
// other, because the derivatives of a matrix's inverse and of its adjoint may differ.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/coefficients.h"
#include "cpu/engine.h"
#include "cpu/engine/diagonals-inl.h"
#include "cpu/engine/products-inl.h"
#include "cpu/engine/samples-inl.h"
#include "cpu/engine/team-inl.h"
#include "cpu/gradient_sink.h"
#include "cpu/kernels/gates-inl.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// Multiply-adds for a group of amplitudes.
inline Index work_of(const GateOp& gate_op) {
  const Index size = std::max(gate_op.size(), 1);  // a rotation has no offsets
  return gate_op.kind == GateOpKind::dense ? size * size : size;
}

// psi = V psi; c are the coefficients of V (see gate_op_coefficients).
template <class State, class C>
void apply_gate_op(const Team& team, State psi, const GateOp& gate_op, const C* c) {
  const IndexMap& groups = gate_op.groups;
  const Index* offsets = gate_op.offsets.data();
  team.for_range(groups.size(), work_of(gate_op), [&](Index begin, Index end) {
    switch (gate_op.kind) {
      case GateOpKind::dense:
        if (gate_op.size() == 2) return apply_block<2>(psi, groups, offsets, c, begin, end);
        if (gate_op.size() == 4) return apply_block<4>(psi, groups, offsets, c, begin, end);
        return apply_large_block(psi, groups, offsets, gate_op.size(), c, begin, end);
      case GateOpKind::diagonal: return apply_diagonal(psi, groups, gate_op.offsets, c, begin, end);
      case GateOpKind::exchange: return exchange(psi, groups, gate_op.offsets, begin, end);
      case GateOpKind::pauli_rotation:
        return rotate_pauli<false, false>(psi, psi, groups, gate_op.pauli_word, c[0], c[1], begin, end,
                                          static_cast<Number<State>*>(nullptr));
      case GateOpKind::evolution: return;  // has no coefficients: see Evolution
    }
  });
}

// out[overlap][lane] += the overlaps of bra and ket that GradientSink::contract takes.
template <class State>
void add_overlaps(const Team& team, const GateOp& gate_op, State bra, State ket, Total<Number<State>>* out) {
  using N = Number<State>;
  const IndexMap& groups = gate_op.groups;
  if (gate_op.kind == GateOpKind::dense)  // conj(bra_a) ket_b
    return add_products(team, bra, ket, groups, gate_op.offsets, gate_op.size(), -1, out);
  team.template reduce<N>(groups.size(), overlap_count(gate_op), out, [&](Index begin, Index end, N* w) {
    if (gate_op.kind == GateOpKind::pauli_rotation)
      return overlap_rotation(bra, ket, groups, gate_op.pauli_word, begin, end, w);
    overlap_diagonal(bra, ket, groups, gate_op.offsets, begin, end, w);
  });
}

// The coefficients of a gate of which samples have their own.
template <class V>
class PerSampleCoefficients {
  using T = Scalar<V>;

 public:
  PerSampleCoefficients(const Call<T>& call, const SampleGroup& group) : call_(call), group_(group) {}

  const V* of(const GateOp& gate_op, bool inverse) {
    const Index n = coefficient_count(gate_op);
    numbers_.resize(n);
    coefficients_.resize(n);
    for (int l = 0; l < lane_width<V>; ++l) {
      gate_op_coefficients(call_, gate_op, group_.sample(l), numbers_.data());
      if (inverse) invert_coefficients(gate_op, numbers_.data());
      for (Index e = 0; e < n; ++e) set_lane(coefficients_[e], l, static_cast<T>(numbers_[e]));
    }
    return coefficients_.data();
  }

 private:
  const Call<T>& call_;
  const SampleGroup& group_;
  std::vector<double> numbers_;
  LaneVector<V> coefficients_;
};

template <class V>
class GateOps {
  using T = Scalar<V>;

 public:
  GateOps(const Call<T>& call, const Plan& plan, const SharedGateOps<T>& shared, const Team& team,
          const SampleGroup& group)
      : call_(call), plan_(plan), shared_(shared), team_(team), group_(group), coefficients_(call, group) {}

  void apply(int index, V* psi) {
    const GateOp& gate_op = plan_.gate_ops[index];
    if (gate_op.kind == GateOpKind::evolution) return Evolution<V>(call_, group_, team_, gate_op).apply(psi);
    if (call_.shared(gate_op)) return apply_gate_op(team_, psi, gate_op, shared_.forward[index].data());
    apply_gate_op(team_, psi, gate_op, coefficients_.of(gate_op, false));
  }

 private:
  const Call<T>& call_;
  const Plan& plan_;
  const SharedGateOps<T>& shared_;
  const Team& team_;
  const SampleGroup& group_;
  PerSampleCoefficients<V> coefficients_;
};

// Undoes gates on ket and bra, and takes their overlaps at the same time.
template <class V>
class UndoGateOps {
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;

 public:
  UndoGateOps(const Call<T>& call, const Plan& plan, const SharedGateOps<T>& shared, const Team& team,
              const SampleGroup& group)
      : call_(call), plan_(plan), shared_(shared), team_(team), group_(group), coefficients_(call, group) {}

  void undo(int index, V* psi, V* lambda, TaskGradients<T>& gradients) {
    const GateOp& gate_op = plan_.gate_ops[index];
    if (gate_op.kind == GateOpKind::evolution)
      return Evolution<V>(call_, group_, team_, gate_op).undo(psi, lambda, *gradients.sink);
    const bool requested = gradients.sink->requests(gate_op);
    const Index n = overlap_count(gate_op);
    overlaps_.assign(requested ? n * width : 0, 0.0);
    const bool shared = call_.shared(gate_op);
    if (shared) {
      undo_with(gate_op, psi, lambda, shared_.inverse[index].data(), requested);
    } else {
      undo_with(gate_op, psi, lambda, coefficients_.of(gate_op, true), requested);
    }
    const bool sums = shared && !call_.has_copies;
    if (requested) collect(gate_op, n, sums ? gradients.overlaps[index].data() : nullptr, *gradients.sink);
  }

 private:
  template <class C>
  void undo_with(const GateOp& gate_op, V* psi, V* lambda, const C* c, bool requested) {
    const Index groups = gate_op.groups.size();
    if constexpr (width == 1) {
      if (gate_op.kind == GateOpKind::dense && gate_op.size() >= smallest_product)
        return undo_by_products(gate_op, psi, lambda, c, requested);
    }
    if (requested) {
      team_.template reduce<V>(groups, overlap_count(gate_op), overlaps_.data(), [&](Index begin, Index end, V* w) {
        undo_range<true>(gate_op, psi, lambda, c, begin, end, w);
      });
    } else {
      team_.for_range(groups, work_of(gate_op), [&](Index begin, Index end) {
        undo_range<false>(gate_op, psi, lambda, c, begin, end, static_cast<V*>(nullptr));
      });
    }
  }

  // A large matrix in three passes, of which each is a product of matrices.
  void undo_by_products(const GateOp& gate_op, V* psi, V* lambda, const T* c, bool requested) {
    apply_gate_op(team_, psi, gate_op, c);
    if (requested) add_overlaps(team_, gate_op, lambda, psi, overlaps_.data());
    apply_gate_op(team_, lambda, gate_op, c);
  }

  template <bool W, class C>
  static void undo_range(const GateOp& gate_op, V* psi, V* lambda, const C* c, Index begin, Index end, V* w) {
    const IndexMap& groups = gate_op.groups;
    const Index* offsets = gate_op.offsets.data();
    switch (gate_op.kind) {
      case GateOpKind::dense:
        if (gate_op.size() == 2) return undo_block<2, W>(psi, lambda, groups, offsets, c, begin, end, w);
        if (gate_op.size() == 4) return undo_block<4, W>(psi, lambda, groups, offsets, c, begin, end, w);
        return undo_large_block<W>(psi, lambda, groups, offsets, gate_op.size(), c, begin, end, w);
      case GateOpKind::diagonal: return undo_diagonal<W>(psi, lambda, groups, gate_op.offsets, c, begin, end, w);
      case GateOpKind::exchange:
        exchange(psi, groups, gate_op.offsets, begin, end);
        return exchange(lambda, groups, gate_op.offsets, begin, end);
      case GateOpKind::pauli_rotation:
        return rotate_pauli<W, true>(psi, lambda, groups, gate_op.pauli_word, c[0], c[1], begin, end, w);
      case GateOpKind::evolution: return;  // see Evolution
    }
  }

  // Overlaps of an unfused gate that all samples share, gradients included, add up first and are contracted once, at the
  // end of the task.
  void collect(const GateOp& gate_op, Index n, double* shared_sum, GradientSink<T>& sink) {
    if (shared_sum != nullptr) {
      for (Index e = 0; e < n; ++e) {
        for (int l = 0; l < group_.count; ++l) shared_sum[e] += overlaps_[e * width + l];
      }
      return;
    }
    numbers_.resize(n);
    for (int l = 0; l < group_.count; ++l) {
      for (Index e = 0; e < n; ++e) numbers_[e] = overlaps_[e * width + l];
      sink.contract(gate_op, numbers_.data(), group_.sample(l));
    }
  }

  const Call<T>& call_;
  const Plan& plan_;
  const SharedGateOps<T>& shared_;
  const Team& team_;
  const SampleGroup& group_;
  PerSampleCoefficients<V> coefficients_;
  std::vector<double> overlaps_;
  std::vector<double> numbers_;
};

}  // namespace
}  // namespace ketgrad
