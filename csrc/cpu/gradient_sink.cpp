#include "cpu/gradient_sink.h"

#include "core/gate_matrix.h"

namespace ketgrad {

namespace {

Matrix overlap_matrix(const Step& step, const double* overlaps) {
  const int size = step.size();
  const bool diagonal = step.kind == StepKind::diagonal;
  Matrix w(static_cast<std::size_t>(size) * size);
  const Index entries = diagonal ? size : Index{size} * size;
  for (Index e = 0; e < entries; ++e) w[diagonal ? e * (size + 1) : e] = {overlaps[2 * e], overlaps[2 * e + 1]};
  return w;
}

}  // namespace

template <class T>
GradientSink<T>::GradientSink(const Call<T>& call, const Cotangents<T>& cotangents)
    : call_(&call), cotangents_(&cotangents), shared_(call.inputs.size()) {
  for (std::size_t i = 0; i < shared_.size(); ++i) {
    const InputView<T>& input = call.inputs[i];
    if (cotangents.gradients[i] != nullptr && !input.batched)
      shared_[i].resize(input.numel * (input.is_complex ? 2 : 1));
  }
}

template <class T>
bool GradientSink<T>::wants(const Step& step) const {
  for (const int input : step.inputs) {
    if (wants(input)) return true;
  }
  return false;
}

template <class T>
void GradientSink<T>::add(int input, Index element, Index sample, double value) {
  if (!wants(input)) return;
  const InputView<T>& view = call_->inputs[input];
  if (view.batched) {
    cotangents_->gradients[input][sample * view.numel + element] += static_cast<T>(value);
  } else {
    shared_[input][element] += value;
  }
}

template <class T>
void GradientSink<T>::add(int input, Index element, Index sample, Complex<double> value) {
  if (!wants(input)) return;
  const InputView<T>& view = call_->inputs[input];
  if (view.batched) {
    T* out = cotangents_->gradients[input] + 2 * (sample * view.numel + element);
    out[0] += static_cast<T>(value.re);
    out[1] += static_cast<T>(value.im);
  } else {
    shared_[input][2 * element] += value.re;
    shared_[input][2 * element + 1] += value.im;
  }
}

template <class T>
void GradientSink<T>::contract_gate(const Gate& gate, Matrix overlap, int size, Index sample) {
  // The derivative of V^dagger is (dV)^dagger, and Re sum conj(dV[b, a]) W[a, b] = Re sum dV[b, a] conj(W[a, b]).
  if (gate.inverse) overlap = conjugate_transpose(overlap, size);
  const GateInfo& info = gate_info(gate.opcode);
  if (info.family == Family::matrix) {
    for (Index e = 0; e < static_cast<Index>(overlap.size()); ++e) add(gate.input, e, sample, 2.0 * conj(overlap[e]));
    return;
  }
  for (int j = 0; j < info.num_parameters; ++j) {
    if (!wants(gate.slots[j].input)) continue;
    Dual parameters[max_parameters];
    for (int p = 0; p < info.num_parameters; ++p)
      parameters[p] = Dual(call_->value(gate.slots[p], sample), p == j ? 1 : 0);
    Complex<Dual> m[max_block_size * max_block_size];
    block_matrix(info.formula, parameters, m);
    double gradient = 0;  // 2 Re sum_ab (dV)[a, b] W[a, b]
    for (int e = 0; e < size * size; ++e) gradient += m[e].re.slope * overlap[e].re - m[e].im.slope * overlap[e].im;
    add(gate.slots[j], sample, 2 * gradient);
  }
}

template <class T>
void GradientSink<T>::contract_diagonal_input(const Gate& gate, const double* overlaps, Index sample) {
  const double sign = gate.inverse ? 1 : -1;  // 2 conj(w), and once more the conjugate for the inverse
  for (Index e = 0; e < call_->inputs[gate.input].numel; ++e) {
    add(gate.input, e, sample, Complex<double>{2 * overlaps[2 * e], 2 * sign * overlaps[2 * e + 1]});
  }
}

template <class T>
void GradientSink<T>::contract(const Step& step, const double* overlaps, Index sample) {
  const Gate& gate = call_->program().gates[step.gate];
  if (step.kind == StepKind::pauli_rotation) return add(gate.slots[0], sample, (gate.inverse ? -1 : 1) * overlaps[0]);
  if (gate_info(gate.opcode).family == Family::diagonal) return contract_diagonal_input(gate, overlaps, sample);
  contract_gate(gate, overlap_matrix(step, overlaps), step.size(), sample);
}

template <class T>
void GradientSink<T>::contract_gate_tangent(const Gate& gate, Matrix overlap, Matrix tangent, int size, Index sample) {
  if (gate.inverse) {
    overlap = conjugate_transpose(overlap, size);
    tangent = conjugate_transpose(tangent, size);
  }
  const GateInfo& info = gate_info(gate.opcode);
  for (int j = 0; j < info.num_parameters; ++j) {
    if (!wants(gate.slots[j].input)) continue;
    HyperDual parameters[max_parameters];
    for (int p = 0; p < info.num_parameters; ++p)
      parameters[p] =
          HyperDual(call_->value(gate.slots[p], sample), p == j ? 1 : 0, call_->tangent(gate.slots[p], sample));
    Complex<HyperDual> m[max_block_size * max_block_size];
    block_matrix(info.formula, parameters, m);
    double gradient = 0;  // 2 Re sum_ab (d_j V)[a, b] dW[a, b] + (d d_j V)[a, b] W[a, b]
    for (int e = 0; e < size * size; ++e) {
      gradient += m[e].re.first * tangent[e].re - m[e].im.first * tangent[e].im;
      gradient += m[e].re.both * overlap[e].re - m[e].im.both * overlap[e].im;
    }
    add(gate.slots[j], sample, 2 * gradient);
  }
}

template <class T>
void GradientSink<T>::contract_tangent(const Step& step, const double* overlaps, const double* tangents, Index sample) {
  const Gate& gate = call_->program().gates[step.gate];
  const Family family = gate_info(gate.opcode).family;
  // What is linear in the overlaps is its own derivative.
  if (family != Family::block) return contract(step, tangents, sample);
  contract_gate_tangent(gate, overlap_matrix(step, overlaps), overlap_matrix(step, tangents), step.size(), sample);
}

template <class T>
void GradientSink<T>::flush() {
  for (std::size_t i = 0; i < shared_.size(); ++i) {
    for (std::size_t e = 0; e < shared_[i].size(); ++e) cotangents_->gradients[i][e] += static_cast<T>(shared_[i][e]);
  }
}

template class GradientSink<float>;
template class GradientSink<double>;

}  // namespace ketgrad
