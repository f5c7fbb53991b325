// Kernels of measurements over whole states in memory: results, what they add to the bra, and the gradients of the
// inputs of observables. Pauli words of expectation values are in tiles.h.
#pragma once

#include "cuda/kernels/state_call.h"

namespace ketgrad::cuda {

// --- numbers of a sample ---------------------------------------------------------------------------------------------

// out[sample] = factor * cotangent of a real result * coefficient * mean; of a null or negative one, 1.
template <class T>
struct Weight {
  double factor = 1;
  Source<T> cotangents;  // [sample of the batch][real_results]
  Index result = 0;
  std::int32_t coefficient = -1;
  const Accum<T>* mean = nullptr;  // [sample]
};

template <class T>
void set_weights(const Queue& queue, const StateCall<T>& call, Index real_results, const Weight<T>& weight,
                 Accum<T>* out);

// total[sample] = or += factor * a[sample] * b[sample]; of a null b, 1.
template <class T>
void accumulate(const Queue& queue, const StateCall<T>& call, double factor, const Accum<T>* a, const Accum<T>* b,
                bool begins, Accum<T>* total);

// real[sample][result] += value[sample]
template <class T>
void add_to_result(const Queue& queue, const StateCall<T>& call, Index real_results, Index result,
                   const Accum<T>* value, Real<T>* real);

// out[sample] = weight[sample] * Re value[sample]
template <class T>
void multiply(const Queue& queue, const StateCall<T>& call, const Accum<T>* weight, const Complex<Accum<T>>* value,
              Accum<T>* out);

// --- states ----------------------------------------------------------------------------------------------------------

// out = P in
template <class T>
void write_pauli_word(const Queue& queue, const StateCall<T>& call, const PauliWord& pauli_word, const Complex<T>* in,
                      Complex<T>* out);

// out = scale * out + weight * in, scale and weight of each sample; a null scale is 1.
template <class T>
void add_scaled(const Queue& queue, const StateCall<T>& call, const Accum<T>* weight, const Complex<T>* in,
                const Accum<T>* scale, Complex<T>* out);

// A factor in place; `spare` has room for factor_spare_count numbers, `numel` being those of its input.
template <class T>
Index factor_spare_count(const ObservableFactor& factor, Index dimension, Index numel, Index samples);
template <class T>
void apply_factor(const Queue& queue, const StateCall<T>& call, const ObservableFactor& factor,
                  const Input<T>* host_input, Complex<T>* states, Complex<T>* spare);

// --- results ---------------------------------------------------------------------------------------------------------

// real[sample][first_result + e] = Re sums[sample][e]
template <class T>
void write_real(const Queue& queue, const StateCall<T>& call, Index real_results, Index first_result, Index count,
                const Complex<Accum<T>>* sums, Real<T>* real);

// complex[sample][first_result + e] = conj(sums[sample][e])
template <class T>
void write_complex(const Queue& queue, const StateCall<T>& call, Index complex_results, Index first_result, Index count,
                   const Complex<Accum<T>>* sums, Real<T>* complex);

template <class T>
void write_state(const Queue& queue, const StateCall<T>& call, Index complex_results, Index first_result,
                 const Map& offsets, const Complex<T>* ket, Real<T>* complex);

// The cotangents of a call's results.
template <class T>
struct CotangentSources {
  Source<T> real;     // [sample of the batch][real_results]
  Source<T> complex;  // [sample of the batch][complex_results]
};

// --- bras ------------------------------------------------------------------------------------------------------------

// bra_i += g_a ket_i of the outcome a that i belongs to
template <class T>
void add_probs_bra(const Queue& queue, const StateCall<T>& call, Index real_results, const TableMeasurement& m,
                   const Source<T>& cotangents, const Complex<T>* ket, Complex<T>* bra);

// bra += c / 2
template <class T>
void add_state_bra(const Queue& queue, const StateCall<T>& call, Index complex_results, const TableMeasurement& m,
                   const Source<T>& cotangents, Complex<T>* bra);

// bra += (C + C^dagger) / 2 ket on the kept wires
template <class T>
void add_density_bra(const Queue& queue, const StateCall<T>& call, Index complex_results, const TableMeasurement& m,
                     const Source<T>& cotangents, const Complex<T>* ket, Complex<T>* bra);

// --- gradients of factors --------------------------------------------------------------------------------------------

// Adds weight[sample] * sums[sample][e], or its conjugate, to the gradient of a complex input.
template <class T>
void add_weighted_gradient(const Queue& queue, const StateCall<T>& call, int input, bool batched, Index count,
                           const Accum<T>* weight, bool conjugate, const Complex<Accum<T>>* sums);

// Gradient sums[sample][a] of Re<u|phi><phi|psi> by phi; `scratch` has room for projector_scratch_count numbers.
Index projector_scratch_count(const ObservableFactor& factor, Index samples);
template <class T>
void state_projector_sums(const Queue& queue, const StateCall<T>& call, const ObservableFactor& factor,
                          const Complex<T>* u, const Complex<T>* psi, Complex<Accum<T>>* scratch,
                          Complex<Accum<T>>* sums);

}  // namespace ketgrad::cuda
