// Kernels over whole states in memory: how a state begins, the gates that are passes of their own, and sums over groups
// of amplitudes, from which their gradients come.
#pragma once

#include "cuda/kernels/arithmetic.h"

namespace ketgrad::cuda {

// States of a chunk of samples, [sample][2^num_bits].
template <class T>
struct StateCall {
  TablesView t;
  Samples samples;
  int num_bits = 0;
  const Input<T>* inputs = nullptr;
};

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

// --- sums over groups ------------------------------------------------------------------------------------------------

// Which entries (a, b) of sum over groups r of conj(x[r, a]) y[r, b] are requested: all, those of the diagonal, or a
// list.
struct Entries {
  enum class Kind : std::int32_t { all, diagonal, listed } kind = Kind::all;
  Index count = 0;
  Range rows;  // of a list: where a, and b, are in TablesView::entries
  Range columns;
};

// Where a group's amplitudes are: a map, or (of a gate_op) a list among TablesView::vectors.
struct Offsets {
  Map map;
  Range list;
  std::int32_t is_list = 0;
  Index size = 0;

  static Offsets of(const Map& map) { return {map, {}, 0, map.size()}; }
  static Offsets of(const Range& list) { return {{}, list, 1, list.count}; }
};

// sums[sample][entry]; `scratch` has room for sum_scratch_count numbers.
template <class T>
void sum_over_groups(const Queue& queue, const StateCall<T>& call, const Map& groups, const Offsets& offsets,
                     const Entries& entries, const Complex<T>* x, const Complex<T>* y, Complex<Accum<T>>* sums,
                     Complex<Accum<T>>* scratch);
Index sum_scratch_count(Index groups, Index entries, Index samples);

// to[sample][e] = sum over p of from[sample][e][p]
template <class N>
void fold_sums(const Queue& queue, Index count, Index samples, Index partials, const Complex<N>* from, Complex<N>* to);

// sums[sample][0] = Re<bra| -i P |ket> over the unfused gate's groups.
template <class T>
void sum_rotation(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op, const Complex<T>* bra,
                  const Complex<T>* ket, Complex<Accum<T>>* sums, Complex<Accum<T>>* scratch);

}  // namespace ketgrad::cuda
