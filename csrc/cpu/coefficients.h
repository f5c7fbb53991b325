// The coefficients of an unfused gate: the matrix of its gate, in double, from the parameters of one sample.
#pragma once

#include <vector>

#include "cpu/call.h"
#include "math/complex.h"

namespace ketgrad {

using Matrix = std::vector<Complex<double>>;  // row-major, square

Matrix transpose(const Matrix& a, int size);
Matrix conjugate_transpose(const Matrix& a, int size);

// The matrix of one gate of family block or matrix, inverted where the gate says so.
template <class T>
Matrix gate_matrix(const Call<T>& call, const Gate& gate, Index sample);

// Writes coefficient_count(gate_op) numbers: re, im of the gate's matrix (dense) or of its diagonal; cos, sin of half
// the angle (pauli_rotation); none (exchange).
template <class T>
void gate_op_coefficients(const Call<T>& call, const GateOp& gate_op, Index sample, double* out);

// Writes the derivatives of these coefficients along the call's tangents, where `call.has_tangent(gate_op)`.
template <class T>
void gate_op_tangents(const Call<T>& call, const GateOp& gate_op, Index sample, double* out);

// Replaces an unfused gate's coefficients by those of its inverse: the conjugate transpose, or the angle's sign.
void invert_coefficients(const GateOp& gate_op, double* coefficients);

// Replaces the derivatives of the coefficients of a unitary gate by those of its inverse: dV becomes -V^-1 dV V^-1.
// That is the derivative of V^dagger too where V stays unitary along the direction; a matrix that is an input need not.
void invert_tangents(const GateOp& gate_op, const double* coefficients, double* tangents);

}  // namespace ketgrad
