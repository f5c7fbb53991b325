#include "cuda/kernels/parameters.h"

#include <algorithm>
#include <cmath>

namespace ketgrad::cuda {

namespace {

constexpr int threads = 128;
// Of a block that sums over a whole batch, or over the partial sums of a large state.
constexpr int many_threads = 256;

constexpr Index blocks_for(Index items) { return (items + threads - 1) / threads; }

// The number of this thread in its launch.
KETGRAD_DEVICE Index item() { return block_index() * block_threads() + thread_index(); }

template <class T>
struct SomeInputs {
  Input<T> inputs[inputs_in_launch];
};

template <class T>
KETGRAD_KERNEL write_inputs(SomeInputs<T> some, int count, Input<T>* to, std::int32_t* some_nan) {
  if (thread_index() == 0) *some_nan = 0;
  if (thread_index() < count) to[thread_index()] = some.inputs[thread_index()];
}

template <class T>
KETGRAD_DEVICE ShearRotation<T> rotation_of(const Accum<T>& cosine, const Accum<T>& sine) {
  const double sign = plain(cosine) < 0 ? -1 : 1;
  const Accum<T> s = sign * sine;
  return {static_cast<T>(s / (Accum<T>(1) + sign * cosine)), static_cast<T>(s), static_cast<Real<T>>(sign)};
}

template <class T>
KETGRAD_KERNEL write_angles(TablesView t, Index angles, const Input<T>* inputs, Samples samples,
                            ShearRotation<T>* rotations, Complex<Accum<T>>* phases, std::int32_t* some_nan) {
  if (item() >= angles * samples.count) return;
  const Index sample = item() / angles;
  const Index number = item() % angles;
  const Angle angle = t.angles[number];
  Accum<T> total = 0;
  for (int j = 0; j < angle.values.count; ++j)
    total += value_of(t.values[angle.values.first + j], inputs, samples.first + sample);
  using std::cos;
  using std::sin;
  const Accum<T> cosine = cos(0.5 * total);
  const Accum<T> sine = sin(0.5 * total);
  if (!(plain(total) - plain(total) == 0)) *some_nan = 1;  // a benign race: all write the same
  if (number < t.rotations) {
    rotations[sample * t.rotations + number] = rotation_of<T>(cosine, sine);
  } else {
    phases[sample * (angles - t.rotations) + number - t.rotations] = {cosine, Accum<T>(0) - sine};
  }
}

template <class T>
KETGRAD_KERNEL write_pauli_word_weights(TablesView t, Index pauli_words, Index real_results, const Input<T>* inputs,
                                        Samples samples, Source<T> cotangents, T* weights) {
  if (item() >= pauli_words * samples.count) return;
  const Index sample = samples.first + item() / pauli_words;
  const TablePauliWord& pauli_word = t.pauli_words[item() % pauli_words];
  const auto g = static_cast<Accum<T>>(cotangents.at(sample * real_results + pauli_word.result));
  weights[item()] = static_cast<T>(g * coefficient_of(t, t.coefficients[pauli_word.term], inputs, sample));
}

// A block for each result of each sample.
template <class T>
KETGRAD_KERNEL write_pauli_word_results(TablesView t, Index real_results, const Input<T>* inputs, Samples samples,
                                        const Accum<T>* partials, Index partials_each, Real<T>* real) {
  const PauliWordResult& result = t.pauli_word_results[block_index() / samples.count];
  const Index sample = block_index() % samples.count;
  Accum<T> total = 0;
  for (Index p = thread_index(); p < result.pauli_words.count * partials_each; p += block_threads()) {
    const int w = t.pauli_word_lists[result.pauli_words.first + p / partials_each];
    total += coefficient_of(t, t.coefficients[t.pauli_words[w].term], inputs, samples.first + sample) *
             partials[(w * samples.count + sample) * partials_each + p % partials_each];
  }
  total = block_sum(total);
  if (thread_index() == 0)
    real[(samples.first + sample) * real_results + result.result] = output_part(static_cast<T>(total));
}

// A warp for each Pauli word of each sample.
template <class T>
KETGRAD_KERNEL write_pauli_word_terms(TablesView t, Index real_results, Samples samples, const Accum<T>* partials,
                                      Index partials_each, Source<T> cotangents, Accum<T>* terms) {
  const Index w = block_index() / samples.count;
  const Index sample = block_index() % samples.count;
  Accum<T> total = 0;
  for (Index p = thread_index(); p < partials_each; p += warp_size)
    total += partials[block_index() * partials_each + p];
  total = warp_sum(total);
  if (thread_index() != 0) return;
  const auto g =
      static_cast<Accum<T>>(cotangents.at((samples.first + sample) * real_results + t.pauli_words[w].result));
  terms[t.pauli_words[w].term * samples.count + sample] = g * total;
}

// A coefficient is a product: the derivative by a value is the product of the others.
template <class T>
KETGRAD_KERNEL write_coefficient_sources(TablesView t, Index coefficients, const Input<T>* inputs, Samples samples,
                                         const Accum<T>* terms, Accum<T>* single) {
  if (item() >= coefficients * samples.count) return;
  const Index sample = item() % samples.count;
  const Coefficient& c = t.coefficients[item() / samples.count];
  for (int j = 0; j < c.values.count; ++j) {
    Accum<T> others = c.scale * terms[item()];
    for (int i = 0; i < c.values.count; ++i) {
      if (i != j) others *= value_of(t.values[c.values.first + i], inputs, samples.first + sample);
    }
    single[(c.first_source + j) * samples.count + sample] = others;
  }
}

// A block for each element of a shared input, over all samples, and a warp for each element and sample of a batched
// one.
template <class T>
KETGRAD_KERNEL add_to_gradients(TablesView t, Index first_element, Index angles, const Input<T>* inputs,
                                Samples samples, const Accum<T>* overlaps, Index partials_each,
                                const Accum<T>* single) {
  const GradientElement element = t.elements[first_element + block_index()];
  const Input<T>& input = inputs[element.input];
  Accum<T> total = 0;
  for (int k = 0; k < element.entries.count; ++k) {
    const GradientEntry entry = t.gradient_entries[element.entries.first + k];
    const bool is_overlap = entry.source < angles;
    const Index partials = is_overlap ? samples.count * partials_each : samples.count;
    const Accum<T>* from =
        is_overlap ? overlaps + entry.source * partials : single + (entry.source - angles) * partials;
    Accum<T> sum = 0;
    for (Index p = thread_index(); p < partials; p += block_threads()) sum += from[p];
    total += entry.weight * sum;
  }
  total = block_sum(total);
  if (thread_index() == 0) input.gradient[element.column] += output_part(static_cast<T>(total));
}

template <class T>
KETGRAD_KERNEL add_to_batched_gradients(TablesView t, Index first_element, Index angles, const Input<T>* inputs,
                                        Samples samples, const Accum<T>* overlaps, Index partials_each,
                                        const Accum<T>* single) {
  const GradientElement element = t.elements[first_element + block_index() / samples.count];
  const Index sample = block_index() % samples.count;
  const Input<T>& input = inputs[element.input];
  Accum<T> total = 0;
  for (int k = 0; k < element.entries.count; ++k) {
    const GradientEntry entry = t.gradient_entries[element.entries.first + k];
    if (entry.source < angles) {
      const Accum<T>* from = overlaps + (entry.source * samples.count + sample) * partials_each;
      Accum<T> sum = 0;
      for (Index p = thread_index(); p < partials_each; p += warp_size) sum += from[p];
      total += entry.weight * sum;
    } else if (thread_index() == 0) {
      total += entry.weight * single[(entry.source - angles) * samples.count + sample];
    }
  }
  total = warp_sum(total);
  if (thread_index() == 0)
    input.gradient[input.row(samples.first + sample) + element.column] += output_part(static_cast<T>(total));
}

}  // namespace

template <class T>
void set_inputs(const Queue& queue, const Input<T>* from, int count, Input<T>* to, std::int32_t* some_nan) {
  int first = 0;
  do {
    SomeInputs<T> some;
    const int these = std::min(count - first, inputs_in_launch);
    std::copy(from + first, from + first + these, some.inputs);
    launch(queue, 1, warp_size, 0, write_inputs<T>, some, these, to + first, some_nan);
    first += inputs_in_launch;
  } while (first < count);
}

template <class T>
void set_angles(const Queue& queue, const TablesView& t, Index angles, const Input<T>* inputs, const Samples& samples,
                ShearRotation<T>* rotations, Complex<Accum<T>>* phases, std::int32_t* some_nan) {
  launch(queue, blocks_for(angles * samples.count), threads, 0, write_angles<T>, t, angles, inputs, samples, rotations,
         phases, some_nan);
}

template <class T>
void set_pauli_word_weights(const Queue& queue, const TablesView& t, Index pauli_words, Index real_results,
                            const Input<T>* inputs, const Samples& samples, const Source<T>& cotangents, T* weights) {
  launch(queue, blocks_for(pauli_words * samples.count), threads, 0, write_pauli_word_weights<T>, t, pauli_words,
         real_results, inputs, samples, cotangents, weights);
}

template <class T>
void finish_pauli_words(const Queue& queue, const TablesView& t, Index results, Index real_results,
                        const Input<T>* inputs, const Samples& samples, const Accum<T>* partials, Index partials_each,
                        Real<T>* real) {
  const int block = partials_each < warp_size ? warp_size : many_threads;
  launch(queue, results * samples.count, block, many_threads / warp_size * sizeof(Accum<T>),
         write_pauli_word_results<T>, t, real_results, inputs, samples, partials, partials_each, real);
}

template <class T>
void set_pauli_word_terms(const Queue& queue, const TablesView& t, Index pauli_words, Index real_results,
                          const Samples& samples, const Accum<T>* partials, Index partials_each,
                          const Source<T>& cotangents, Accum<T>* terms) {
  launch(queue, pauli_words * samples.count, warp_size, 0, write_pauli_word_terms<T>, t, real_results, samples,
         partials, partials_each, cotangents, terms);
}

template <class T>
void set_coefficient_sources(const Queue& queue, const TablesView& t, Index coefficients, const Input<T>* inputs,
                             const Samples& samples, const Accum<T>* terms, Accum<T>* single) {
  launch(queue, blocks_for(coefficients * samples.count), threads, 0, write_coefficient_sources<T>, t, coefficients,
         inputs, samples, terms, single);
}

template <class T>
void collect_gradients(const Queue& queue, const TablesView& t, const std::vector<GradientElement>& elements,
                       Index angles, const Input<T>* inputs, const std::vector<Input<T>>& host_inputs,
                       const Samples& samples, const Accum<T>* overlaps, Index partials_each, const Accum<T>* single) {
  // Elements are in the order of their inputs: a launch for each run of elements of one input.
  const auto end = static_cast<Index>(elements.size());
  for (Index first = 0, next = 0; first < end; first = next) {
    while (next < end && elements[next].input == elements[first].input) ++next;
    const Input<T>& input = host_inputs[elements[first].input];
    if (input.gradient == nullptr) continue;
    const Index count = next - first;
    if (input.batched != 0) {
      launch(queue, count * samples.count, warp_size, 0, add_to_batched_gradients<T>, t, first, angles, inputs, samples,
             overlaps, partials_each, single);
    } else {
      launch(queue, count, many_threads, many_threads / warp_size * sizeof(Accum<T>), add_to_gradients<T>, t, first,
             angles, inputs, samples, overlaps, partials_each, single);
    }
  }
}

#define KETGRAD_NUMBERS(T)                                                                                             \
  template void set_inputs(const Queue&, const Input<T>*, int, Input<T>*, std::int32_t*);                              \
  template void set_angles(const Queue&, const TablesView&, Index, const Input<T>*, const Samples&, ShearRotation<T>*, \
                           Complex<Accum<T>>*, std::int32_t*);                                                         \
  template void set_pauli_word_weights(const Queue&, const TablesView&, Index, Index, const Input<T>*, const Samples&, \
                                       const Source<T>&, T*);                                                          \
  template void finish_pauli_words(const Queue&, const TablesView&, Index, Index, const Input<T>*, const Samples&,     \
                                   const Accum<T>*, Index, Real<T>*);                                                  \
  template void set_pauli_word_terms(const Queue&, const TablesView&, Index, Index, const Samples&, const Accum<T>*,   \
                                     Index, const Source<T>&, Accum<T>*);                                              \
  template void set_coefficient_sources(const Queue&, const TablesView&, Index, const Input<T>*, const Samples&,       \
                                        const Accum<T>*, Accum<T>*);                                                   \
  template void collect_gradients(const Queue&, const TablesView&, const std::vector<GradientElement>&, Index,         \
                                  const Input<T>*, const std::vector<Input<T>>&, const Samples&, const Accum<T>*,      \
                                  Index, const Accum<T>*);
KETGRAD_FOR_NUMBERS(KETGRAD_NUMBERS)
#undef KETGRAD_NUMBERS

}  // namespace ketgrad::cuda
