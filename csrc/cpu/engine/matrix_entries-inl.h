// The entries of matrices in passes.
#pragma once

#include <span>
#include <vector>

#include "cpu/coefficients.h"
#include "cpu/engine.h"
#include "cpu/engine/samples-inl.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// Those of a plan, re and im.
template <class T>
class MatrixEntries {
 public:
  // The group is looked at in each call.
  MatrixEntries(const Call<T>& call, const Plan& plan, const SharedGateOps<T>& shared, bool inverse,
                const SampleGroup& group)
      : call_(call), plan_(plan), shared_(inverse ? shared.inverse : shared.forward), inverse_(inverse), group_(group) {
    own_.resize(plan.gate_ops.size());
  }

  // They are those of the present sample, until the next call.
  std::span<const T> of(int gate_op) {
    const GateOp& op = plan_.gate_ops[gate_op];
    if (call_.shared(op)) return shared_[gate_op];
    numbers_.resize(coefficient_count(op));
    gate_op_coefficients(call_, op, group_.sample(0), numbers_.data());
    if (inverse_) invert_coefficients(op, numbers_.data());
    own_[gate_op].assign(numbers_.begin(), numbers_.end());
    return own_[gate_op];
  }

 private:
  const Call<T>& call_;
  const Plan& plan_;
  const std::vector<std::vector<T>>& shared_;
  const bool inverse_;
  const SampleGroup& group_;
  std::vector<std::vector<T>> own_;
  std::vector<double> numbers_;
};

template <class T>
bool are_finite(std::span<const T> numbers) {
  int others = 0;  // counted, which is vectorised, unlike a search
  for (const T x : numbers) others += x - x == 0 ? 0 : 1;
  return others == 0;
}

}  // namespace
}  // namespace ketgrad
