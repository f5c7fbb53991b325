// The coefficients of unfused gates, and their derivatives along the tangents of a call.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/coefficients.h"
#include "cpu/engine/samples-inl.h"
#include "math/dual.h"

namespace ketgrad {
namespace {

// The ket is undone by the inverse of a matrix, the bra by its adjoint. For a unitary they are the same, but not their
// derivatives along a direction that leaves the unitary ones.
enum class GateForm : std::uint8_t { itself, inverse, adjoint };

// The coefficients of a gate and their derivatives, a lane for each sample.
template <class V>
class DualCoefficients {
  using T = Scalar<V>;

 public:
  DualCoefficients(const Call<T>& call, const SampleGroup& group) : call_(call), group_(group) {}

  const DualOf<V>* of(const GateOp& gate_op, GateForm form) {
    const Index n = coefficient_count(gate_op);
    std::vector<double> values(n);
    std::vector<double> tangents(n);
    coefficients_.resize(n);
    for (int l = 0; l < lane_width<V>; ++l) {
      const Index sample = group_.sample(l);
      gate_op_coefficients(call_, gate_op, sample, values.data());
      gate_op_tangents(call_, gate_op, sample, tangents.data());
      if (form == GateForm::inverse) invert_tangents(gate_op, values.data(), tangents.data());
      if (form == GateForm::adjoint) invert_coefficients(gate_op, tangents.data());
      if (form != GateForm::itself) invert_coefficients(gate_op, values.data());
      for (Index e = 0; e < n; ++e)
        set_lane(coefficients_[e], l, {static_cast<T>(values[e]), static_cast<T>(tangents[e])});
    }
    return coefficients_.data();
  }

 private:
  const Call<T>& call_;
  const SampleGroup& group_;
  LaneVector<DualOf<V>> coefficients_;
};

// The derivatives of the entries of matrices in passes.
template <class V>
class MatrixDerivatives {
  using T = Scalar<V>;

 public:
  MatrixDerivatives(const Call<T>& call, const Plan& plan, const SampleGroup& group)
      : call_(call), plan_(plan), coefficients_(call, group) {}

  bool any(int gate_op) const { return call_.has_tangent(plan_.gate_ops[gate_op]); }

  // re and im, until the next call; null where there is none. There are matrices in passes of single states alone.
  const T* of(int gate_op, GateForm form) {
    if constexpr (lane_width<V> == 1) {
      if (!any(gate_op)) return nullptr;
      const GateOp& op = plan_.gate_ops[gate_op];
      const DualOf<V>* duals = coefficients_.of(op, form);
      entries_.clear();
      for (Index e = 0; e < coefficient_count(op); ++e) entries_.push_back(duals[e].tangent);
      return entries_.data();
    } else {
      return nullptr;
    }
  }

 private:
  const Call<T>& call_;
  const Plan& plan_;
  DualCoefficients<V> coefficients_;
  std::vector<T> entries_;
};

}  // namespace
}  // namespace ketgrad
