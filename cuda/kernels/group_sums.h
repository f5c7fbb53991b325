// Sums over groups of amplitudes: the overlaps that gradients come from, and what measurements sum up.
#pragma once

#include "cuda/kernels/state_call.h"

namespace ketgrad::cuda {

// Which entries (a, b) of sum over groups r of conj(x[r, a]) y[r, b] are requested: all, those of the diagonal, or a
// list.
struct Entries {
  enum class Kind : std::int32_t { all, diagonal, listed } kind = Kind::all;
  Index count = 0;
  Range rows;  // of a list: where a, and b, are in TablesView::entries
  Range columns;
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

// sums[sample][0] = sum of D_a 2 Im<bra_a|psi_a> over the entries of an evolution.
template <class T>
void sum_evolution(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op, const Complex<T>* bra,
                   const Complex<T>* ket, Complex<Accum<T>>* sums, Complex<Accum<T>>* scratch);

}  // namespace ketgrad::cuda
