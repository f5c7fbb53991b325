#include "cpu/gradient_sink.h"

#include <type_traits>

#include "program/gate_matrix.h"

namespace ketgrad {

namespace {

template <class N>
using MatrixOf = std::vector<Complex<N>>;

// The overlaps of an unfused gate as a square matrix; number(k) is the k-th of them.
template <class N, class F>
MatrixOf<N> overlap_matrix(const GateOp& gate_op, const F& number) {
  const int size = gate_op.size();
  const bool diagonal = gate_op.kind == GateOpKind::diagonal;
  MatrixOf<N> w(static_cast<std::size_t>(size) * size);
  const Index entries = diagonal ? size : Index{size} * size;
  for (Index e = 0; e < entries; ++e) w[diagonal ? e * (size + 1) : e] = {number(2 * e), number(2 * e + 1)};
  return w;
}

template <class T, class N>
N parameter(const Call<T>& call, const Slot& slot, Index sample) {
  if constexpr (std::is_same_v<N, Dual>) {
    return Dual(call.value(slot, sample), call.tangent(slot, sample));
  } else {
    return call.value(slot, sample);
  }
}

}  // namespace

template <class T>
GradientSink<T>::GradientSink(const Call<T>& call, const Cotangents<T>& cotangents)
    : call_(&call), cotangents_(&cotangents), shared_(call.inputs.size()) {
  for (std::size_t i = 0; i < shared_.size(); ++i) {
    const InputView<T>& input = call.inputs[i];
    if (cotangents.gradients[i] != nullptr && call.sums_gradient(static_cast<int>(i)))
      shared_[i].resize(input.numel * (input.is_complex ? 2 : 1));
  }
}

template <class T>
bool GradientSink<T>::requests(const GateOp& gate_op) const {
  for (const int input : gate_op.inputs) {
    if (requests(input)) return true;
  }
  return false;
}

template <class T>
void GradientSink<T>::add(int input, Index element, Index sample, double value) {
  if (!requests(input)) return;
  if (call_->sums_gradient(input)) {
    shared_[input][element] += value;
  } else {
    cotangents_->gradients[input][sample * call_->inputs[input].numel + element] += static_cast<T>(value);
  }
}

template <class T>
void GradientSink<T>::add(int input, Index element, Index sample, Complex<double> value) {
  if (!requests(input)) return;
  if (call_->sums_gradient(input)) {
    shared_[input][2 * element] += value.re;
    shared_[input][2 * element + 1] += value.im;
  } else {
    T* out = cotangents_->gradients[input] + 2 * (sample * call_->inputs[input].numel + element);
    out[0] += static_cast<T>(value.re);
    out[1] += static_cast<T>(value.im);
  }
}

template <class T>
void GradientSink<T>::contract_matrix_input(const Gate& gate, Matrix overlap, int size, Index sample) {
  if (gate.inverse) overlap = conjugate_transpose(overlap, size);
  for (Index e = 0; e < static_cast<Index>(overlap.size()); ++e) add(gate.input, e, sample, 2.0 * conj(overlap[e]));
}

template <class T>
void GradientSink<T>::contract_diagonal_input(const Gate& gate, const double* overlaps, Index sample) {
  const double sign = gate.inverse ? 1 : -1;  // 2 conj(w), and once more the conjugate for the inverse
  for (Index e = 0; e < call_->inputs[gate.input].numel; ++e) {
    add(gate.input, e, sample, Complex<double>{2 * overlaps[2 * e], 2 * sign * overlaps[2 * e + 1]});
  }
}

template <class T>
template <class N>
void GradientSink<T>::contract_block(const Gate& gate, const std::vector<Complex<N>>& overlap, int size, Index sample) {
  const GateInfo& info = gate_info(gate.opcode);
  for (int j = 0; j < info.num_parameters; ++j) {
    if (!requests(gate.slots[j].input)) continue;
    DualOf<N> parameters[max_parameters];
    for (int p = 0; p < info.num_parameters; ++p)
      parameters[p] = DualOf<N>(parameter<T, N>(*call_, gate.slots[p], sample), p == j ? 1 : 0);
    Complex<DualOf<N>> m[max_block_size * max_block_size];
    block_matrix(info.formula, parameters, m);
    N gradient = 0;  // 2 Re sum_ab (dV)[a, b] W[a, b]
    for (int a = 0; a < size; ++a) {
      for (int b = 0; b < size; ++b) {
        // The derivative of V^dagger is (dV)^dagger, and Re sum conj(dV[b, a]) W[a, b] = Re sum dV[b, a] conj(W[a, b]).
        const Complex<N> w = gate.inverse ? conj(overlap[b * size + a]) : overlap[a * size + b];
        const Complex<DualOf<N>>& entry = m[a * size + b];
        gradient += entry.re.tangent * w.re - entry.im.tangent * w.im;
      }
    }
    add(gate.slots[j], sample, 2 * output_part(gradient));
  }
}

template <class T>
void GradientSink<T>::contract(const GateOp& gate_op, const double* overlaps, Index sample) {
  const Gate& gate = call_->program().gates[gate_op.gate];
  if (gate_op.kind == GateOpKind::pauli_rotation)
    return add(gate.slots[0], sample, (gate.inverse ? -1 : 1) * overlaps[0]);
  const Family family = gate_info(gate.opcode).family;
  if (family == Family::diagonal) return contract_diagonal_input(gate, overlaps, sample);
  const auto overlap = overlap_matrix<double>(gate_op, [&](Index k) { return overlaps[k]; });
  if (family == Family::matrix) return contract_matrix_input(gate, overlap, gate_op.size(), sample);
  contract_block(gate, overlap, gate_op.size(), sample);
}

template <class T>
void GradientSink<T>::contract(const GateOp& gate_op, const Dual* overlaps, Index sample) {
  const Gate& gate = call_->program().gates[gate_op.gate];
  if (gate_info(gate.opcode).family == Family::block && gate_op.kind != GateOpKind::pauli_rotation)
    return contract_block(gate, overlap_matrix<Dual>(gate_op, [&](Index k) { return overlaps[k]; }), gate_op.size(),
                          sample);
  // What is linear in the overlaps is its own derivative.
  std::vector<double> tangents(overlap_count(gate_op));
  for (std::size_t e = 0; e < tangents.size(); ++e) tangents[e] = overlaps[e].tangent;
  contract(gate_op, tangents.data(), sample);
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
