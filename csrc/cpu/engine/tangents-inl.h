// Circuits with tangents: ket and bra, and their derivatives along one direction of the inputs, go through the circuit
// together. Forward that gives the derivatives of results, and back those of gradients (forward over reverse): a
// Hessian-vector product in four states.
//
// Unfused gates, measurements and observables are those of the plain engine on dual numbers. Rotations and phases are
// not: a rotation U = exp(-i angle/2 P) takes (psi, dpsi) to (U psi, U dpsi + dangle/2 (-i P) U psi), and overlaps have
// the product rule, d Im<bra|P|ket> = Im<dbra|P|ket> + Im<bra|P|dket>. So states and tangents go by the kernels of the
// plain engine, the bra's tangent with the ket and the ket's with the bra, and what is added are the generators
// (tangent_passes-inl.h). On dual numbers rotations could not be unnormalised, for a deferred scale would have a
// tangent of its own: blocks of one, two and three rotations were measured to take 1.07, 1.6 and 2.2 times as long
// (AVX2, float, rows in the first-level cache, November 2026).
#pragma once

#include <optional>
#include <variant>
#include <vector>

#include "cpu/engine.h"
#include "cpu/engine/dual_coefficients-inl.h"
#include "cpu/engine/gate_ops-inl.h"
#include "cpu/engine/initial_state-inl.h"
#include "cpu/engine/measurements-inl.h"
#include "cpu/engine/rotation_passes-inl.h"
#include "cpu/engine/tangent_passes-inl.h"
#include "math/dual.h"

namespace ketgrad {
namespace {

template <class V>
class DualGateOps {
  using T = Scalar<V>;
  using State = DualState<V>;
  static constexpr int width = lane_width<V>;

 public:
  DualGateOps(const Call<T>& call, const Plan& plan, const SharedGateOps<T>& shared, const Team& team,
              const SampleGroup& group)
      : call_(call),
        plan_(plan),
        shared_(shared),
        team_(team),
        group_(group),
        coefficients_(call, group),
        dual_coefficients_(call, group) {}

  void apply(int index, GateForm form, State psi) {
    const GateOp& gate_op = plan_.gate_ops[index];
    if (gate_op.kind == GateOpKind::evolution) return Evolution<DualOf<V>>(call_, group_, team_, gate_op).apply(psi);
    const bool inverse = form != GateForm::itself;
    if (call_.has_tangent(gate_op)) return apply_gate_op(team_, psi, gate_op, dual_coefficients_.of(gate_op, form));
    if (call_.shared(gate_op))
      return apply_gate_op(team_, psi, gate_op, (inverse ? shared_.inverse : shared_.forward)[index].data());
    apply_gate_op(team_, psi, gate_op, coefficients_.of(gate_op, inverse));
  }

  // The overlaps of a matrix are of the bra behind it and the ket before it, a rotation's of both at the same place.
  void undo(int index, State ket, State bra, GradientSink<T>& sink) {
    const GateOp& gate_op = plan_.gate_ops[index];
    if (gate_op.kind == GateOpKind::evolution)
      return Evolution<DualOf<V>>(call_, group_, team_, gate_op).undo(ket, bra, sink);
    const Index n = sink.requests(gate_op) ? overlap_count(gate_op) : 0;
    const bool is_rotation = gate_op.kind == GateOpKind::pauli_rotation;
    std::vector<Dual> overlaps(n * width, Dual(0));
    const auto take_overlaps = [&] {
      if (n > 0) add_overlaps(team_, gate_op, bra, ket, overlaps.data());
    };
    if (is_rotation) take_overlaps();
    apply(index, GateForm::inverse, ket);
    if (!is_rotation) take_overlaps();
    apply(index, GateForm::adjoint, bra);
    std::vector<Dual> of_lane(n);
    for (int l = 0; n > 0 && l < group_.count; ++l) {
      for (Index e = 0; e < n; ++e) of_lane[e] = overlaps[e * width + l];
      sink.contract(gate_op, of_lane.data(), group_.sample(l));
    }
  }

 private:
  const Call<T>& call_;
  const Plan& plan_;
  const SharedGateOps<T>& shared_;
  const Team& team_;
  const SampleGroup& group_;
  PerSampleCoefficients<V> coefficients_;
  DualCoefficients<V> dual_coefficients_;
};

template <class V>
class TangentEngine {
  using T = Scalar<V>;
  using N = DualOf<V>;
  using State = DualState<V>;
  static constexpr int width = lane_width<V>;

 public:
  TangentEngine(const Call<T>& call, const Plan& plan, const SharedGateOps<T>& shared, const Task& task)
      : call_(call),
        plan_(plan),
        shared_(shared),
        task_(task),
        team_(call.parallel, task.parallel_passes, call),
        tiles_(call, team_),
        inputs_(call, group_),
        measurements_(call, plan, team_, tiles_, group_),
        gate_ops_(call, plan, shared, team_, group_),
        pass_gradients_(call, plan, group_) {}
  TangentEngine(const TangentEngine&) = delete;
  TangentEngine& operator=(const TangentEngine&) = delete;

  void run(const Directional<T>& directional, TaskGradients<T>& gradients) {
    const bool goes_back = directional.requests_gradients();
    const Index numbers = 2 * call_.dimension();
    const HugePageBuffer<V> ket(numbers);
    const HugePageBuffer<V> ket_tangent(numbers, 1);
    const HugePageBuffer<V> bra(goes_back ? numbers : 0, 2);
    const HugePageBuffer<V> bra_tangent(goes_back ? numbers : 0, 3);
    const State psi{ket.data(), ket_tangent.data()};
    const State lambda{bra.data(), bra_tangent.data()};
    const ResultCotangents<T> cotangents{directional.cotangents.real, directional.cotangents.complex,
                                         directional.real_tangent, directional.complex_tangent};
    for (Index first = task_.begin; first < task_.end; first += width) {
      group_ = {first, static_cast<int>(std::min<Index>(width, task_.end - first))};
      if (!forward(psi)) return;
      measurements_.measure(psi, directional.results, goes_back ? gradients.sink : nullptr);
      if (!goes_back) continue;
      measurements_.write_bra(lambda, psi, cotangents, *gradients.sink);
      if (!backward(psi, lambda, gradients)) return;
      if (requests_initial_state(gradients))
        add_initial_state_gradient<N>(call_, plan_, group_, lambda, *gradients.sink);
    }
  }

 private:
  bool requests_initial_state(const TaskGradients<T>& gradients) const {
    return gradients.sink->requests(call_.program().initial.input);
  }

  // False where the call is to end early.
  bool forward(State psi) {
    prepare<N>(call_, plan_, team_, inputs_, psi);
    if (!forward_) forward_.emplace(call_, plan_, shared_, false, group_, tiles_);
    forward_->start();
    for (int p = 0; p < static_cast<int>(plan_.passes.size()); ++p) {
      if (call_.should_stop()) return false;
      if (const auto* gate = std::get_if<GatePass>(&plan_.passes[p])) {
        gate_ops_.apply(gate->gate_op, GateForm::itself, psi);
      } else {
        forward_->forward(p, scalars(psi.value), scalars(psi.tangent));
      }
    }
    return true;
  }

  bool backward(State psi, State lambda, TaskGradients<T>& gradients) {
    if (!backward_) backward_.emplace(call_, plan_, shared_, true, group_, tiles_);
    backward_->start();
    pass_gradients_.start(*gradients.sink);
    const typename TangentPasses<V>::States states{scalars(psi.value), scalars(psi.tangent), scalars(lambda.value),
                                                   scalars(lambda.tangent)};
    for (int p = static_cast<int>(plan_.passes.size()) - 1; p >= gradients.first_pass; --p) {
      if (call_.should_stop()) return false;
      if (const auto* gate = std::get_if<GatePass>(&plan_.passes[p])) {
        gate_ops_.undo(gate->gate_op, psi, lambda, *gradients.sink);
      } else {
        const bool last = p == gradients.first_pass && !requests_initial_state(gradients);
        backward_->backward(p, states, last, pass_gradients_);
      }
    }
    pass_gradients_.add_to(gradients);
    return true;
  }

  const Call<T>& call_;
  const Plan& plan_;
  const SharedGateOps<T>& shared_;
  const Task task_;
  const Team team_;
  SampleGroup group_;
  TileRunner<V> tiles_;
  SampleInputs<N> inputs_;
  Measurements<N> measurements_;
  DualGateOps<V> gate_ops_;
  PassGradients<N> pass_gradients_;
  std::optional<TangentPasses<V>> forward_;  // these are made when they are needed
  std::optional<TangentPasses<V>> backward_;
};

}  // namespace
}  // namespace ketgrad
