// Kernels over whole states in memory: how a state begins, and unfused gates. The sums that their gradients come from
// are in group_sums.h.
#pragma once

#include "cuda/kernels/state_call.h"

namespace ketgrad::cuda {

// |index>
template <class T>
void begin_states(const Queue& queue, const StateCall<T>& call, const InitialAmplitudes& initial, Complex<T>* states);

// Scatters an input's amplitudes into states of zeros; and takes the gradient, 2 bra, of the same places.
template <class T>
void load_initial_state(const Queue& queue, const StateCall<T>& call, int input, const Map& offsets,
                        Complex<T>* states);
template <class T>
void add_initial_gradient(const Queue& queue, const StateCall<T>& call, const Input<T>& host_input, int input,
                          const Map& offsets, const Complex<T>* bra);

// --- unfused gates ---------------------------------------------------------------------------------------------------

// Complex numbers that an unfused gate's coefficients take: its matrix, its diagonal, or (cosine, sine).
Index coefficient_count(const TableGateOp& gate_op);
// Complex numbers of the overlaps of bra and ket that its gradients come from.
Index overlap_count(const TableGateOp& gate_op);

// Coefficients of `rows` samples (1 where all share them), of the gate or of its adjoint.
template <class T>
void set_coefficients(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op, bool adjoint,
                      Index rows, Complex<T>* coefficients);

// The coefficients of a gate's inverse from those of its adjoint, which differ in the tangents of a matrix, or
// diagonal, that is an input and whose tangent leaves the unitary ones. `spare` is memory like theirs.
template <class R>
void invert_tangents(const Queue& queue, const TableGateOp& gate_op, Index rows, const Complex<DualOf<R>>* adjoint,
                     Complex<DualOf<R>>* inverse, Complex<DualOf<R>>* spare);

// `stride`: from the coefficients of one sample to those of the next; 0 where all share them.
template <class T>
void apply_gate_op(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op,
                   const Complex<T>* coefficients, Index stride, Complex<T>* states);

// A square matrix on groups of amplitudes, in place.
template <class T>
void apply_matrix(const Queue& queue, const StateCall<T>& call, const Map& groups, const Map& offsets,
                  const Complex<T>* matrix, Index stride, Complex<T>* states);

// Gradients of an unfused gate's parameters, into single sources, and of its matrix or diagonal, into the input's
// gradient, from sums[sample][overlap_count].
template <class T>
void set_gate_op_sources(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op,
                         const Complex<Accum<T>>* sums, Accum<T>* single);
template <class T>
void add_matrix_gradient(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op, bool batched,
                         const Complex<Accum<T>>* sums);

// An evolution, whose phases are computed on the way, or its adjoint; and the gradient of its diagonal, from the sums
// of its entries <bra_a|psi_a>, [sample][entry].
template <class T>
void apply_evolution(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op, bool adjoint,
                     Complex<T>* states);
template <class T>
void add_entry_gradient(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op, bool batched,
                        const Complex<Accum<T>>* sums);

}  // namespace ketgrad::cuda
