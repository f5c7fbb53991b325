#include "cpu/coefficients.h"

#include <cmath>
#include <utility>

#include "program/gate_matrix.h"

namespace ketgrad {

Matrix transpose(const Matrix& a, int size) {
  Matrix c(a.size());
  for (int i = 0; i < size; ++i) {
    for (int j = 0; j < size; ++j) c[i * size + j] = a[j * size + i];
  }
  return c;
}

Matrix conjugate_transpose(const Matrix& a, int size) {
  Matrix c = transpose(a, size);
  for (Complex<double>& entry : c) entry = conj(entry);
  return c;
}

namespace {

template <class T>
Complex<double> complex_at(const T* data, Index i) {
  return {static_cast<double>(data[2 * i]), static_cast<double>(data[2 * i + 1])};
}

template <class T>
Matrix read_input(const InputView<T>& input, Index sample) {
  Matrix m(static_cast<std::size_t>(input.numel));
  for (Index i = 0; i < input.numel; ++i) m[i] = complex_at(input.of_sample(sample), i);
  return m;
}

// A gate's matrix, or diagonal, from an input or an input's tangent; inverted where the gate is.
template <class T>
Matrix matrix_input(const InputView<T>& input, const Gate& gate, Index sample) {
  const Matrix m = read_input(input, sample);
  return gate.inverse ? conjugate_transpose(m, 1 << gate.targets.size()) : m;
}

template <class T>
Matrix diagonal_input(const InputView<T>& input, const Gate& gate, Index sample) {
  Matrix d = read_input(input, sample);
  for (Complex<double>& entry : d) {
    if (gate.inverse) entry = conj(entry);
  }
  return d;
}

Matrix diagonal_of(const Matrix& m, int size) {
  Matrix d;
  for (int i = 0; i < size; ++i) d.push_back(m[i * (size + 1)]);
  return d;
}

template <class T>
const Gate& gate_of(const Call<T>& call, const GateOp& gate_op) {
  return call.program().gates[gate_op.gate];
}

template <class T>
Matrix gate_op_diagonal(const Call<T>& call, const GateOp& gate_op, Index sample) {
  const Gate& gate = gate_of(call, gate_op);
  if (gate_info(gate.opcode).family == Family::diagonal) return diagonal_input(call.inputs[gate.input], gate, sample);
  return diagonal_of(gate_matrix(call, gate, sample), gate_op.size());
}

}  // namespace

template <class T>
Matrix gate_matrix(const Call<T>& call, const Gate& gate, Index sample) {
  const GateInfo& info = gate_info(gate.opcode);
  if (info.family == Family::matrix) return matrix_input(call.inputs[gate.input], gate, sample);
  double parameters[max_parameters];
  for (std::size_t j = 0; j < gate.slots.size(); ++j) parameters[j] = call.value(gate.slots[j], sample);
  const int size = block_size(info);
  Matrix m(static_cast<std::size_t>(size * size));
  block_matrix(info.formula, parameters, m.data());
  return gate.inverse ? conjugate_transpose(m, size) : m;
}

namespace {

// The derivative of a gate's matrix along the call's tangents; some input of the gate has one.
template <class T>
Matrix gate_tangent(const Call<T>& call, const Gate& gate, Index sample) {
  const GateInfo& info = gate_info(gate.opcode);
  if (info.family == Family::matrix) return matrix_input(call.tangents[gate.input], gate, sample);
  Dual parameters[max_parameters];
  for (std::size_t j = 0; j < gate.slots.size(); ++j)
    parameters[j] = Dual(call.value(gate.slots[j], sample), call.tangent(gate.slots[j], sample));
  const int size = block_size(info);
  Complex<Dual> duals[max_block_size * max_block_size];
  block_matrix(info.formula, parameters, duals);
  Matrix m(static_cast<std::size_t>(size * size));
  for (std::size_t i = 0; i < m.size(); ++i) m[i] = {duals[i].re.tangent, duals[i].im.tangent};
  return gate.inverse ? conjugate_transpose(m, size) : m;
}

template <class T>
Matrix diagonal_tangent(const Call<T>& call, const GateOp& gate_op, Index sample) {
  const Gate& gate = gate_of(call, gate_op);
  if (gate_info(gate.opcode).family == Family::diagonal) return diagonal_input(call.tangents[gate.input], gate, sample);
  return diagonal_of(gate_tangent(call, gate, sample), gate_op.size());
}

void write_numbers(const Matrix& m, double* out) {
  for (std::size_t i = 0; i < m.size(); ++i) {
    out[2 * i] = m[i].re;
    out[2 * i + 1] = m[i].im;
  }
}

Matrix read_numbers(const double* numbers, Index count) {
  Matrix m(static_cast<std::size_t>(count));
  for (Index i = 0; i < count; ++i) m[i] = {numbers[2 * i], numbers[2 * i + 1]};
  return m;
}

Matrix product(const Matrix& a, const Matrix& b, Index size) {
  Matrix c(a.size());
  for (Index i = 0; i < size; ++i) {
    for (Index k = 0; k < size; ++k) {
      for (Index j = 0; j < size; ++j) c[i * size + j] += a[i * size + k] * b[k * size + j];
    }
  }
  return c;
}

}  // namespace

template <class T>
void gate_op_coefficients(const Call<T>& call, const GateOp& gate_op, Index sample, double* out) {
  if (coefficient_count(gate_op) == 0) return;
  if (gate_op.kind == GateOpKind::pauli_rotation) {
    const Gate& gate = gate_of(call, gate_op);
    const double half = 0.5 * (gate.inverse ? -1 : 1) * call.value(gate.slots[0], sample);
    out[0] = std::cos(half);
    out[1] = std::sin(half);
    return;
  }
  const Matrix m = gate_op.kind == GateOpKind::dense ? gate_matrix(call, gate_of(call, gate_op), sample)
                                                     : gate_op_diagonal(call, gate_op, sample);
  write_numbers(m, out);
}

template <class T>
void gate_op_tangents(const Call<T>& call, const GateOp& gate_op, Index sample, double* out) {
  switch (gate_op.kind) {
    case GateOpKind::exchange:
    case GateOpKind::evolution: return;
    case GateOpKind::pauli_rotation: {
      const Gate& gate = gate_of(call, gate_op);
      const double sign = gate.inverse ? -0.5 : 0.5;
      const double half = sign * call.value(gate.slots[0], sample);
      const double rate = sign * call.tangent(gate.slots[0], sample);
      out[0] = -rate * std::sin(half);
      out[1] = rate * std::cos(half);
      return;
    }
    case GateOpKind::diagonal: return write_numbers(diagonal_tangent(call, gate_op, sample), out);
    case GateOpKind::dense: return write_numbers(gate_tangent(call, gate_of(call, gate_op), sample), out);
  }
}

void invert_tangents(const GateOp& gate_op, const double* coefficients, double* tangents) {
  const Index size = gate_op.size();
  switch (gate_op.kind) {
    case GateOpKind::exchange:
    case GateOpKind::evolution: return;
    case GateOpKind::pauli_rotation: tangents[1] = -tangents[1]; return;
    case GateOpKind::diagonal: {
      const Matrix d = read_numbers(coefficients, size);
      Matrix d_matrix = read_numbers(tangents, size);
      for (Index a = 0; a < size; ++a) d_matrix[a] = -1.0 * (conj(d[a]) * d_matrix[a] * conj(d[a]));
      return write_numbers(d_matrix, tangents);
    }
    case GateOpKind::dense: {
      const Matrix inverse = conjugate_transpose(read_numbers(coefficients, size * size), static_cast<int>(size));
      Matrix d_matrix = product(product(inverse, read_numbers(tangents, size * size), size), inverse, size);
      for (Complex<double>& entry : d_matrix) entry = -1.0 * entry;
      return write_numbers(d_matrix, tangents);
    }
  }
}

void invert_coefficients(const GateOp& gate_op, double* c) {
  const Index size = gate_op.size();
  switch (gate_op.kind) {
    case GateOpKind::exchange:
    case GateOpKind::evolution: return;
    case GateOpKind::pauli_rotation: c[1] = -c[1]; return;
    case GateOpKind::diagonal:
      for (Index a = 0; a < size; ++a) c[2 * a + 1] = -c[2 * a + 1];
      return;
    case GateOpKind::dense:
      for (Index a = 0; a < size; ++a) {
        for (Index b = 0; b <= a; ++b) {
          double* lower = c + 2 * (a * size + b);
          double* upper = c + 2 * (b * size + a);
          std::swap(lower[0], upper[0]);
          const double im = lower[1];
          lower[1] = -upper[1];
          upper[1] = -im;
        }
      }
  }
}

template Matrix gate_matrix(const Call<float>&, const Gate&, Index);
template Matrix gate_matrix(const Call<double>&, const Gate&, Index);
template void gate_op_tangents(const Call<float>&, const GateOp&, Index, double*);
template void gate_op_tangents(const Call<double>&, const GateOp&, Index, double*);
template void gate_op_coefficients(const Call<float>&, const GateOp&, Index, double*);
template void gate_op_coefficients(const Call<double>&, const GateOp&, Index, double*);

}  // namespace ketgrad
