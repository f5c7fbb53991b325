#include "cuda/kernels/measurements.h"

#include <algorithm>
#include <bit>

#include "cuda/kernels/gate_ops.h"
#include "cuda/kernels/grid.h"
#include "cuda/kernels/group_sums.h"

namespace ketgrad::cuda {

namespace {

// --- numbers of a sample ---------------------------------------------------------------------------------------------

template <class T>
KETGRAD_KERNEL weights_kernel(Index each, Index samples, StateCall<T> c, Index real_results, Weight<T> w,
                              Accum<T>* out) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index sample = c.samples.first + item.sample;
  Accum<T> value = w.factor;
  if (w.cotangents.values != nullptr) value *= static_cast<Accum<T>>(w.cotangents.at(sample * real_results + w.result));
  if (w.coefficient >= 0) value *= coefficient_of(c.t, c.t.coefficients[w.coefficient], c.inputs, sample);
  if (w.mean != nullptr) value *= w.mean[item.sample];
  out[item.sample] = value;
}

template <class N>
KETGRAD_KERNEL accumulate_kernel(Index each, Index samples, double factor, const N* a, const N* b, bool begins,
                                 N* total) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const N product = factor * a[item.sample] * (b == nullptr ? N(1) : b[item.sample]);
  total[item.sample] = (begins ? N(0) : total[item.sample]) + product;
}

template <class T>
KETGRAD_KERNEL add_result_kernel(Index each, Index samples, StateCall<T> c, Index real_results, Index result,
                                 const Accum<T>* value, Real<T>* real) {
  const Item item = Item::of(each, samples);
  if (item.exists)
    real[(c.samples.first + item.sample) * real_results + result] += output_part(static_cast<T>(value[item.sample]));
}

template <class N>
KETGRAD_KERNEL multiply_kernel(Index each, Index samples, const N* weight, const Complex<N>* value, N* out) {
  const Item item = Item::of(each, samples);
  if (item.exists) out[item.sample] = weight[item.sample] * value[item.sample].re;
}

// --- states ----------------------------------------------------------------------------------------------------------

template <class T>
KETGRAD_KERNEL pauli_word_kernel(Index each, Index samples, PauliWord pauli_word, const Complex<T>* in,
                                 Complex<T>* out) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index from = item.number ^ static_cast<Index>(pauli_word.x);
  const int quarter = pauli_word.y_count + (odd(static_cast<Mask>(from) & pauli_word.z) != pauli_word.negative ? 2 : 0);
  out[item.sample * each + item.number] = times_quarter(in[item.sample * each + from], quarter);
}

template <class T>
KETGRAD_KERNEL add_scaled_kernel(Index each, Index samples, const Accum<T>* weight, const Complex<T>* in,
                                 const Accum<T>* scale, Complex<T>* out) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index i = item.sample * each + item.number;
  const T before = scale == nullptr ? T(1) : static_cast<T>(scale[item.sample]);
  out[i] = before * out[i] + static_cast<T>(weight[item.sample]) * in[i];
}

template <class T>
KETGRAD_KERNEL project_kernel(Index each, Index samples, StateCall<T> c, Map groups, Map offsets, Index kept,
                              Complex<T>* states) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index a = item.number / groups.size();
  if (a == kept) return;
  const Index place = at(c.t, groups, item.number % groups.size()) ^ at(c.t, offsets, a);
  states[(item.sample << c.num_bits) + place] = {};
}

template <class T>
KETGRAD_KERNEL scale_kernel(Index each, Index samples, StateCall<T> c, int input, Map groups, Map offsets,
                            Complex<T>* states) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index a = item.number / groups.size();
  const Index place = at(c.t, groups, item.number % groups.size()) ^ at(c.t, offsets, a);
  Complex<T>& amplitude = states[(item.sample << c.num_bits) + place];
  amplitude = real_at(c.inputs[input], c.samples.first + item.sample, a) * amplitude;
}

// <phi|state> on one group, the same for all threads of the block.
template <class T>
KETGRAD_DEVICE Complex<Accum<T>> project_amplitude(const StateCall<T>& c, int input, Index sample, Index base,
                                                   const Map& offsets, const Complex<T>* state) {
  Complex<Accum<T>> sum{};
  for (Index a = thread_index(); a < offsets.size(); a += block_threads())
    sum += widened(inner(complex_at(c.inputs[input], c.samples.first + sample, a), state[base ^ at(c.t, offsets, a)]));
  return block_sum(sum);
}

// Block (sample, group).
template <class T>
KETGRAD_KERNEL project_on_state_kernel(StateCall<T> c, int input, Map groups, Map offsets, Complex<T>* states) {
  const Index sample = block_index() / groups.size();
  const Index base = at(c.t, groups, block_index() % groups.size());
  Complex<T>* state = states + (sample << c.num_bits);
  const Complex<T> amplitude = narrowed<T>(project_amplitude(c, input, sample, base, offsets, state));
  for (Index a = thread_index(); a < offsets.size(); a += block_threads())
    state[base ^ at(c.t, offsets, a)] = complex_at(c.inputs[input], c.samples.first + sample, a) * amplitude;
}

// What a kernel needs of a sparse factor.
struct Sparse {
  std::int32_t input = 0;
  Map groups;
  Map offsets;
  Range rows;
  Range columns;
  Range row_starts;
  Range row_entries;
  Range column_starts;
  Range column_entries;
};

// The tangent of an observable's matrix need not be Hermitian, but results depend only on its Hermitian part: half the
// sum of it and its adjoint.
template <class R>
KETGRAD_DEVICE Complex<DualOf<R>> hermitian_part(const Complex<DualOf<R>>& a, const Complex<DualOf<R>>& mirrored) {
  const R half = 0.5;
  return {{a.re.value, half * (a.re.tangent + mirrored.re.tangent)},
          {a.im.value, half * (a.im.tangent - mirrored.im.tangent)}};
}

template <class T>
KETGRAD_KERNEL sparse_rows_kernel(Index each, Index samples, StateCall<T> c, Sparse f, const Complex<T>* in,
                                  Complex<T>* out) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index a = item.number / f.groups.size();
  const Index base = (item.sample << c.num_bits) + at(c.t, f.groups, item.number % f.groups.size());
  Complex<T> sum{};
  // Adds value(entry) * in for the entries in row a, or those in column a.
  const auto add = [&](const Range& starts, const Range& entries, const Range& others, const auto& value) {
    for (Index k = c.t.entries[starts.first + a]; k < c.t.entries[starts.first + a + 1]; ++k) {
      const Index entry = c.t.entries[entries.first + k];
      const Complex<T> z = complex_at(c.inputs[f.input], c.samples.first + item.sample, entry);
      sum += value(z) * in[base ^ at(c.t, f.offsets, c.t.entries[others.first + entry])];
    }
  };
  if constexpr (is_dual<T>) {
    add(f.row_starts, f.row_entries, f.columns, [](const Complex<T>& z) { return hermitian_part(z, {}); });
    add(f.column_starts, f.column_entries, f.rows, [](const Complex<T>& z) { return hermitian_part({}, z); });
  } else {
    add(f.row_starts, f.row_entries, f.columns, [](const Complex<T>& z) { return z; });
  }
  out[base ^ at(c.t, f.offsets, a)] = sum;
}

template <class R>
KETGRAD_KERNEL hermitian_kernel(Index each, Index rows, StateCall<DualOf<R>> c, int input, Index size,
                                Complex<DualOf<R>>* matrix) {
  const Item item = Item::of(each, rows);
  if (!item.exists) return;
  const auto entry = [&](Index e) { return complex_at(c.inputs[input], c.samples.first + item.sample, e); };
  const Index mirrored = item.number % size * size + item.number / size;
  matrix[item.sample * each + item.number] = hermitian_part(entry(item.number), entry(mirrored));
}

template <class T>
KETGRAD_KERNEL copy_kernel(Index each, Index samples, const Complex<T>* in, Complex<T>* out) {
  const Item item = Item::of(each, samples);
  if (item.exists) out[item.sample * each + item.number] = in[item.sample * each + item.number];
}

// --- results ---------------------------------------------------------------------------------------------------------

template <class T>
KETGRAD_KERNEL real_kernel(Index each, Index samples, StateCall<T> c, Index real_results, Index first_result,
                           const Complex<Accum<T>>* sums, Real<T>* real) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  real[(c.samples.first + item.sample) * real_results + first_result + item.number] =
      output_part(static_cast<T>(sums[item.sample * each + item.number].re));
}

template <class T>
KETGRAD_DEVICE void write_number(Real<T>* complex, Index at, const Complex<T>& z) {
  complex[2 * at] = output_part(z.re);
  complex[2 * at + 1] = output_part(z.im);
}

template <class T>
KETGRAD_KERNEL complex_kernel(Index each, Index samples, StateCall<T> c, Index complex_results, Index first_result,
                              const Complex<Accum<T>>* sums, Real<T>* complex) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  write_number(complex, (c.samples.first + item.sample) * complex_results + first_result + item.number,
               narrowed<T>(conj(sums[item.sample * each + item.number])));
}

template <class T>
KETGRAD_KERNEL state_kernel(Index each, Index samples, StateCall<T> c, Index complex_results, Index first_result,
                            Map offsets, const Complex<T>* ket, Real<T>* complex) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  write_number(complex, (c.samples.first + item.sample) * complex_results + first_result + item.number,
               ket[item.sample * each + at(c.t, offsets, item.number)]);
}

// --- bras ------------------------------------------------------------------------------------------------------------

template <class T>
KETGRAD_KERNEL probs_bra_kernel(Index each, Index samples, StateCall<T> c, Index real_results, Index first_result,
                                Map groups, Map offsets, Source<T> cotangents, const Complex<T>* ket, Complex<T>* bra) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index a = item.number / groups.size();
  const Index i = (item.sample << c.num_bits) + (at(c.t, groups, item.number % groups.size()) ^ at(c.t, offsets, a));
  bra[i] += cotangents.at((c.samples.first + item.sample) * real_results + first_result + a) * ket[i];
}

template <class T>
KETGRAD_KERNEL state_bra_kernel(Index each, Index samples, StateCall<T> c, Index complex_results, Index first_result,
                                Map offsets, Source<T> cotangents, Complex<T>* bra) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index from = (c.samples.first + item.sample) * complex_results + first_result + item.number;
  bra[item.sample * each + at(c.t, offsets, item.number)] += T(0.5) * cotangents.complex_at(from);
}

template <class T>
KETGRAD_KERNEL density_bra_kernel(Index each, Index samples, StateCall<T> c, Index complex_results, Index first_result,
                                  Map groups, Map offsets, Source<T> cotangents, const Complex<T>* ket,
                                  Complex<T>* bra) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index size = offsets.size();
  const Index a = item.number / groups.size();
  const Index base = (item.sample << c.num_bits) + at(c.t, groups, item.number % groups.size());
  const Index first = (c.samples.first + item.sample) * complex_results + first_result;
  Complex<T> sum{};
  for (Index b = 0; b < size; ++b) {
    const Complex<T> hermitian =
        cotangents.complex_at(first + a * size + b) + conj(cotangents.complex_at(first + b * size + a));
    sum += hermitian * ket[base ^ at(c.t, offsets, b)];
  }
  bra[base ^ at(c.t, offsets, a)] += T(0.5) * sum;
}

// --- gradients -------------------------------------------------------------------------------------------------------

template <class T>
KETGRAD_KERNEL weighted_gradient_kernel(Index each, Index rows, StateCall<T> c, int input, bool batched,
                                        const Accum<T>* weight, bool conjugate, const Complex<Accum<T>>* sums) {
  const Item item = Item::of(each, rows);
  if (!item.exists) return;
  const auto sum = [&](Index s) { return sums[s * each + item.number]; };
  if (c.inputs[input].is_complex == 0) {
    return add_real_gradient(c.inputs[input], c.samples, item, batched, [&](Index s) { return weight[s] * sum(s).re; });
  }
  add_complex_gradient(c.inputs[input], c.samples, item, batched,
                       [&](Index s) { return weight[s] * (conjugate ? conj(sum(s)) : sum(s)); });
}

// Block (sample, group): <phi|psi> and <phi|u>.
template <class T>
KETGRAD_KERNEL inner_products_kernel(StateCall<T> c, int input, Map groups, Map offsets, const Complex<T>* u,
                                     const Complex<T>* psi, Complex<Accum<T>>* products) {
  const Index sample = block_index() / groups.size();
  const Index base = (sample << c.num_bits) + at(c.t, groups, block_index() % groups.size());
  const Complex<Accum<T>> of_psi = project_amplitude(c, input, sample, base, offsets, psi);
  barrier();
  const Complex<Accum<T>> of_u = project_amplitude(c, input, sample, base, offsets, u);
  if (thread_index() != 0) return;
  products[2 * block_index()] = of_psi;
  products[2 * block_index() + 1] = of_u;
}

// u_a conj(<phi|psi>) + psi_a conj(<phi|u>), over one of `partials` of the groups: sums[sample][a][partial].
template <class T>
KETGRAD_KERNEL projector_gradient_kernel(Index each, Index samples, StateCall<T> c, Map groups, Map offsets,
                                         Index partials, const Complex<T>* u, const Complex<T>* psi,
                                         const Complex<Accum<T>>* products, Complex<Accum<T>>* sums) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index offset = at(c.t, offsets, item.number / partials);
  const Index length = groups.size() / partials;
  const Index first = item.number % partials * length;
  Complex<Accum<T>> total{};
  for (Index r = first; r < first + length; ++r) {
    const Index i = (item.sample << c.num_bits) + (at(c.t, groups, r) ^ offset);
    const Complex<Accum<T>>* of_group = products + 2 * (item.sample * groups.size() + r);
    total += widened(u[i]) * conj(of_group[0]) + widened(psi[i]) * conj(of_group[1]);
  }
  sums[item.sample * each + item.number] = total;
}

// Partial sums of a sum over groups: about ten thousand threads take part, with a few groups each.
Index projector_partials(const ObservableFactor& f) {
  const Index requested = std::min((Index{1} << 14) / f.offsets.size(), f.groups.size() / 16);
  return std::bit_floor(static_cast<Mask>(std::max<Index>(requested, 1)));
}

// Of a block for one group.
int group_threads(const ObservableFactor& f) { return f.offsets.size() < item_threads ? warp_size : item_threads; }

template <class T>
constexpr std::size_t sum_bytes = item_threads / warp_size * sizeof(Accum<T>);

template <class T>
Index dimension(const StateCall<T>& call) {
  return Index{1} << call.num_bits;
}

}  // namespace

template <class T>
void set_weights(const Queue& queue, const StateCall<T>& call, Index real_results, const Weight<T>& weight,
                 Accum<T>* out) {
  launch_items(queue, 1, call.samples.count, weights_kernel<T>, call, real_results, weight, out);
}

template <class T>
void accumulate(const Queue& queue, const StateCall<T>& call, double factor, const Accum<T>* a, const Accum<T>* b,
                bool begins, Accum<T>* total) {
  launch_items(queue, 1, call.samples.count, accumulate_kernel<Accum<T>>, factor, a, b, begins, total);
}

template <class T>
void add_to_result(const Queue& queue, const StateCall<T>& call, Index real_results, Index result,
                   const Accum<T>* value, Real<T>* real) {
  launch_items(queue, 1, call.samples.count, add_result_kernel<T>, call, real_results, result, value, real);
}

template <class T>
void multiply(const Queue& queue, const StateCall<T>& call, const Accum<T>* weight, const Complex<Accum<T>>* value,
              Accum<T>* out) {
  launch_items(queue, 1, call.samples.count, multiply_kernel<Accum<T>>, weight, value, out);
}

template <class T>
void write_pauli_word(const Queue& queue, const StateCall<T>& call, const PauliWord& pauli_word, const Complex<T>* in,
                      Complex<T>* out) {
  launch_items(queue, dimension(call), call.samples.count, pauli_word_kernel<T>, pauli_word, in, out);
}

template <class T>
void add_scaled(const Queue& queue, const StateCall<T>& call, const Accum<T>* weight, const Complex<T>* in,
                const Accum<T>* scale, Complex<T>* out) {
  launch_items(queue, dimension(call), call.samples.count, add_scaled_kernel<T>, weight, in, scale, out);
}

template <class T>
void apply_hermitian(const Queue& queue, const StateCall<T>& call, const ObservableFactor& f,
                     const Input<T>& host_input, Complex<T>* states, Complex<T>* spare) {
  const Index stride = host_input.batched != 0 ? host_input.numel : 0;
  if constexpr (is_dual<T>) {
    launch_items(queue, host_input.numel, stride == 0 ? 1 : call.samples.count, hermitian_kernel<Real<T>>, call,
                 f.input, f.offsets.size(), spare);
    apply_matrix(queue, call, f.groups, f.offsets, static_cast<const Complex<T>*>(spare), stride, states);
  } else {
    const auto* matrix = reinterpret_cast<const Complex<T>*>(host_input.data.values) + call.samples.first * stride;
    apply_matrix(queue, call, f.groups, f.offsets, matrix, stride, states);
  }
}

template <class T>
Index factor_spare_count(const ObservableFactor& f, Index dimension, Index numel, Index samples) {
  switch (f.kind) {
    case FactorKind::hermitian: return is_dual<T> ? numel * samples : 0;
    case FactorKind::sparse: return dimension * samples;
    default: return 0;
  }
}

template <class T>
void apply_factor(const Queue& queue, const StateCall<T>& call, const ObservableFactor& f, const Input<T>* host_input,
                  Complex<T>* states, Complex<T>* spare) {
  const Index samples = call.samples.count;
  switch (f.kind) {
    case FactorKind::hermitian: return apply_hermitian(queue, call, f, *host_input, states, spare);
    case FactorKind::projector:
      return launch_items(queue, dimension(call), samples, project_kernel<T>, call, f.groups, f.offsets, f.kept,
                          states);
    case FactorKind::state_projector:
      return launch(queue, samples * f.groups.size(), group_threads(f), sum_bytes<T>, project_on_state_kernel<T>, call,
                    f.input, f.groups, f.offsets, states);
    case FactorKind::sparse: {
      const Sparse sparse{f.input,      f.groups,      f.offsets,       f.entry_rows,    f.entry_columns,
                          f.row_starts, f.row_entries, f.column_starts, f.column_entries};
      launch_items(queue, dimension(call), samples, copy_kernel<T>, states, spare);
      return launch_items(queue, dimension(call), samples, sparse_rows_kernel<T>, call, sparse, spare, states);
    }
    case FactorKind::diagonal:
      return launch_items(queue, dimension(call), samples, scale_kernel<T>, call, f.input, f.groups, f.offsets, states);
  }
}

template <class T>
void write_real(const Queue& queue, const StateCall<T>& call, Index real_results, Index first_result, Index count,
                const Complex<Accum<T>>* sums, Real<T>* real) {
  launch_items(queue, count, call.samples.count, real_kernel<T>, call, real_results, first_result, sums, real);
}

template <class T>
void write_complex(const Queue& queue, const StateCall<T>& call, Index complex_results, Index first_result, Index count,
                   const Complex<Accum<T>>* sums, Real<T>* complex) {
  launch_items(queue, count, call.samples.count, complex_kernel<T>, call, complex_results, first_result, sums, complex);
}

template <class T>
void write_state(const Queue& queue, const StateCall<T>& call, Index complex_results, Index first_result,
                 const Map& offsets, const Complex<T>* ket, Real<T>* complex) {
  launch_items(queue, dimension(call), call.samples.count, state_kernel<T>, call, complex_results, first_result,
               offsets, ket, complex);
}

template <class T>
void add_probs_bra(const Queue& queue, const StateCall<T>& call, Index real_results, const TableMeasurement& m,
                   const Source<T>& cotangents, const Complex<T>* ket, Complex<T>* bra) {
  launch_items(queue, dimension(call), call.samples.count, probs_bra_kernel<T>, call, real_results, m.first_result,
               m.groups, m.offsets, cotangents, ket, bra);
}

template <class T>
void add_state_bra(const Queue& queue, const StateCall<T>& call, Index complex_results, const TableMeasurement& m,
                   const Source<T>& cotangents, Complex<T>* bra) {
  launch_items(queue, dimension(call), call.samples.count, state_bra_kernel<T>, call, complex_results, m.first_result,
               m.offsets, cotangents, bra);
}

template <class T>
void add_density_bra(const Queue& queue, const StateCall<T>& call, Index complex_results, const TableMeasurement& m,
                     const Source<T>& cotangents, const Complex<T>* ket, Complex<T>* bra) {
  launch_items(queue, dimension(call), call.samples.count, density_bra_kernel<T>, call, complex_results, m.first_result,
               m.groups, m.offsets, cotangents, ket, bra);
}

template <class T>
void add_weighted_gradient(const Queue& queue, const StateCall<T>& call, int input, bool batched, Index count,
                           const Accum<T>* weight, bool conjugate, const Complex<Accum<T>>* sums) {
  launch_items(queue, count, batched ? call.samples.count : 1, weighted_gradient_kernel<T>, call, input, batched,
               weight, conjugate, sums);
}

Index projector_scratch_count(const ObservableFactor& f, Index samples) {
  return samples * (2 * f.groups.size() + projector_partials(f) * f.offsets.size());
}

template <class T>
void state_projector_sums(const Queue& queue, const StateCall<T>& call, const ObservableFactor& f, const Complex<T>* u,
                          const Complex<T>* psi, Complex<Accum<T>>* scratch, Complex<Accum<T>>* sums) {
  const Index samples = call.samples.count;
  const Index partials = projector_partials(f);
  Complex<Accum<T>>* products = scratch;
  Complex<Accum<T>>* parts = scratch + 2 * samples * f.groups.size();
  launch(queue, samples * f.groups.size(), group_threads(f), sum_bytes<T>, inner_products_kernel<T>, call, f.input,
         f.groups, f.offsets, u, psi, products);
  launch_items(queue, f.offsets.size() * partials, samples, projector_gradient_kernel<T>, call, f.groups, f.offsets,
               partials, u, psi, products, parts);
  fold_sums<Accum<T>>(queue, f.offsets.size(), samples, partials, parts, sums);
}

#define KETGRAD_MEASUREMENTS(T)                                                                                        \
  template void set_weights(const Queue&, const StateCall<T>&, Index, const Weight<T>&, Accum<T>*);                    \
  template void accumulate(const Queue&, const StateCall<T>&, double, const Accum<T>*, const Accum<T>*, bool,          \
                           Accum<T>*);                                                                                 \
  template void add_to_result(const Queue&, const StateCall<T>&, Index, Index, const Accum<T>*, Real<T>*);             \
  template void multiply(const Queue&, const StateCall<T>&, const Accum<T>*, const Complex<Accum<T>>*, Accum<T>*);     \
  template void write_pauli_word(const Queue&, const StateCall<T>&, const PauliWord&, const Complex<T>*, Complex<T>*); \
  template void add_scaled(const Queue&, const StateCall<T>&, const Accum<T>*, const Complex<T>*, const Accum<T>*,     \
                           Complex<T>*);                                                                               \
  template Index factor_spare_count<T>(const ObservableFactor&, Index, Index, Index);                                  \
  template void apply_factor(const Queue&, const StateCall<T>&, const ObservableFactor&, const Input<T>*, Complex<T>*, \
                             Complex<T>*);                                                                             \
  template void write_real(const Queue&, const StateCall<T>&, Index, Index, Index, const Complex<Accum<T>>*,           \
                           Real<T>*);                                                                                  \
  template void write_complex(const Queue&, const StateCall<T>&, Index, Index, Index, const Complex<Accum<T>>*,        \
                              Real<T>*);                                                                               \
  template void write_state(const Queue&, const StateCall<T>&, Index, Index, const Map&, const Complex<T>*, Real<T>*); \
  template void add_probs_bra(const Queue&, const StateCall<T>&, Index, const TableMeasurement&, const Source<T>&,     \
                              const Complex<T>*, Complex<T>*);                                                         \
  template void add_state_bra(const Queue&, const StateCall<T>&, Index, const TableMeasurement&, const Source<T>&,     \
                              Complex<T>*);                                                                            \
  template void add_density_bra(const Queue&, const StateCall<T>&, Index, const TableMeasurement&, const Source<T>&,   \
                                const Complex<T>*, Complex<T>*);                                                       \
  template void add_weighted_gradient(const Queue&, const StateCall<T>&, int, bool, Index, const Accum<T>*, bool,      \
                                      const Complex<Accum<T>>*);                                                       \
  template void state_projector_sums(const Queue&, const StateCall<T>&, const ObservableFactor&, const Complex<T>*,    \
                                     const Complex<T>*, Complex<Accum<T>>*, Complex<Accum<T>>*);
KETGRAD_FOR_NUMBERS(KETGRAD_MEASUREMENTS)
#undef KETGRAD_MEASUREMENTS

}  // namespace ketgrad::cuda
