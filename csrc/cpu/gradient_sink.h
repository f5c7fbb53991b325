// Where gradients go, and how the overlaps of an unfused gate become gradients of its parameters.
#pragma once

#include <vector>

#include "cpu/call.h"
#include "cpu/coefficients.h"
#include "math/dual.h"

namespace ketgrad {

// The gradients that one task collects. Those of one sample are written in place; what samples add to together
// (Call::sums_gradient) is summed here in double, task by task, so that the result does not depend on which thread ran
// what.
template <class T>
class GradientSink {
 public:
  GradientSink(const Call<T>& call, const Cotangents<T>& cotangents);

  bool requests(int input) const { return input != no_input && cotangents_->gradients[input] != nullptr; }
  bool requests(const GateOp& gate_op) const;

  void add(int input, Index element, Index sample, double value);
  void add(int input, Index element, Index sample, Complex<double> value);
  void add(const Slot& slot, Index sample, double value) { add(slot.input, slot.column, sample, slot.scale * value); }

  // From the overlaps of an unfused gate, for one sample, or for all samples at once where the unfused gate is shared:
  // overlap_count(gate_op) numbers, re and im of W[a, b] = sum_r conj(lambda_out[a, r]) psi_in[b, r] (dense) or of its
  // diagonal (diagonal), Im<lambda|P|psi> (pauli_rotation).
  void contract(const GateOp& gate_op, const double* overlaps, Index sample);

  // The derivative of `contract` along the call's tangents, of overlaps with their derivatives.
  void contract(const GateOp& gate_op, const Dual* overlaps, Index sample);

  // Adds the shared sums to the gradients themselves; called once per sink, in order.
  void flush();

 private:
  void contract_matrix_input(const Gate& gate, Matrix overlap, int size, Index sample);
  void contract_diagonal_input(const Gate& gate, const double* overlaps, Index sample);
  template <class N>
  void contract_block(const Gate& gate, const std::vector<Complex<N>>& overlap, int size, Index sample);

  const Call<T>* call_;
  const Cotangents<T>* cotangents_;
  std::vector<std::vector<double>> shared_;  // per input, empty where not requested or not summed
};

}  // namespace ketgrad
