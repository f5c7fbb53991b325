// Small kernels before and after the passes: parameters of rotations, Z-strings and Pauli words; results; gradients.
#pragma once

#include "cuda/kernels/arithmetic.h"

namespace ketgrad::cuda {

// Writes `count` inputs, and clears some_nan. Addresses are passed as arguments of launches, of which a CUDA graph
// keeps a copy.
inline constexpr int inputs_in_launch = 32;
template <class T>
void set_inputs(const Queue& queue, const Input<T>* from, int count, Input<T>* to, std::int32_t* some_nan);

// Of every angle, for every sample: rotations[sample][rotation] and phases[sample][string]. Sets some_nan if an
// angle is not a number.
template <class T>
void set_angles(const Queue& queue, const TablesView& t, Index angles, const Input<T>* inputs, const Samples& samples,
                ShearRotation<T>* rotations, Complex<Accum<T>>* phases, std::int32_t* some_nan);

// weights[sample][Pauli word] = cotangent of its result * its coefficient
template <class T>
void set_pauli_word_weights(const Queue& queue, const TablesView& t, Index pauli_words, Index real_results,
                            const Input<T>* inputs, const Samples& samples, const Source<T>& cotangents, T* weights);

// Sums of partial sums [Pauli word][sample][partials_each] into those `results` that are sums of Pauli words.
template <class T>
void finish_pauli_words(const Queue& queue, const TablesView& t, Index results, Index real_results,
                        const Input<T>* inputs, const Samples& samples, const Accum<T>* partials, Index partials_each,
                        Real<T>* real);

// terms[term of the Pauli word][sample] = cotangent * the Pauli word's value: the coefficient's gradient comes from it.
template <class T>
void set_pauli_word_terms(const Queue& queue, const TablesView& t, Index pauli_words, Index real_results,
                          const Samples& samples, const Accum<T>* partials, Index partials_each,
                          const Source<T>& cotangents, Accum<T>* terms);

// single[source][sample] of every coefficient's values, from terms[coefficient][sample].
template <class T>
void set_coefficient_sources(const Queue& queue, const TablesView& t, Index coefficients, const Input<T>* inputs,
                             const Samples& samples, const Accum<T>* terms, Accum<T>* single);

// Adds overlaps [angle][sample][partials_each] and single sources [source][sample] to the gradients of real inputs.
template <class T>
void collect_gradients(const Queue& queue, const TablesView& t, const std::vector<GradientElement>& elements,
                       Index angles, const Input<T>* inputs, const std::vector<Input<T>>& host_inputs,
                       const Samples& samples, const Accum<T>* overlaps, Index partials_each, const Accum<T>* single);

}  // namespace ketgrad::cuda
