#include "cuda/kernels/gate_ops.h"

#include <algorithm>
#include <cmath>

#include "cuda/kernels/grid.h"
#include "program/gate_matrix.h"

namespace ketgrad::cuda {

namespace {

// --- beginnings ------------------------------------------------------------------------------------------------------

template <class T>
KETGRAD_KERNEL begin_kernel(Index each, Index samples, InitialAmplitudes initial, Complex<T>* states) {
  const Item item = Item::of(each, samples);
  if (item.exists) states[item.sample * each + item.number] = {static_cast<T>(initial.amplitude(item.number)), T(0)};
}

template <class T>
KETGRAD_KERNEL load_initial_kernel(Index each, Index samples, StateCall<T> c, int input, Map offsets,
                                   Complex<T>* states) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  states[(item.sample << c.num_bits) + at(c.t, offsets, item.number)] =
      complex_at(c.inputs[input], c.samples.first + item.sample, item.number);
}

template <class T>
KETGRAD_KERNEL initial_gradient_kernel(Index each, Index samples, StateCall<T> c, int input, Map offsets, bool batched,
                                       const Complex<T>* bra) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index place = at(c.t, offsets, item.number);
  add_complex_gradient(c.inputs[input], c.samples, item, batched,
                       [&](Index s) { return Accum<T>(2) * widened(bra[(s << c.num_bits) + place]); });
}

// --- coefficients ----------------------------------------------------------------------------------------------------

template <class T>
KETGRAD_DEVICE Accum<T> parameter(const StateCall<T>& c, const TableGateOp& gate_op, int j, Index sample) {
  return value_of(c.t.values[gate_op.values.first + j], c.inputs, sample);
}

// Entry e of the row-major matrix, or of the diagonal, of an input.
template <class T>
KETGRAD_KERNEL copy_matrix_kernel(Index each, Index rows, StateCall<T> c, TableGateOp gate_op, bool dagger,
                                  Complex<T>* coefficients) {
  const Item item = Item::of(each, rows);
  if (!item.exists) return;
  Index from = item.number;
  if (dagger && gate_op.kind == GateOpKind::dense)
    from = (item.number % gate_op.size) * gate_op.size + item.number / gate_op.size;
  const Complex<T> z = complex_at(c.inputs[gate_op.input], c.samples.first + item.sample, from);
  coefficients[item.sample * each + item.number] = dagger ? conj(z) : z;
}

template <class R>
KETGRAD_DEVICE Complex<R> value_of(const Complex<DualOf<R>>& z) {
  return {z.re.value, z.im.value};
}

template <class R>
KETGRAD_DEVICE Complex<R> tangent_of(const Complex<DualOf<R>>& z) {
  return {z.re.tangent, z.im.tangent};
}

// Of a matrix V with the adjoint A and the tangent dV, the tangent of the inverse is -A dV A: first dV A, then A times
// that.
template <class R>
KETGRAD_KERNEL tangent_products_kernel(Index each, Index rows, Index size, const Complex<DualOf<R>>* adjoint,
                                       Complex<R>* products) {
  const Item item = Item::of(each, rows);
  if (!item.exists) return;
  const Complex<DualOf<R>>* a = adjoint + item.sample * each;
  const Index row = item.number / size;
  const Index column = item.number % size;
  Complex<R> sum{};
  for (Index k = 0; k < size; ++k) sum += conj(tangent_of(a[k * size + row])) * value_of(a[k * size + column]);
  products[item.sample * each + item.number] = sum;
}

template <class R>
KETGRAD_DEVICE Complex<DualOf<R>> with_tangent(const Complex<DualOf<R>>& z, const Complex<R>& tangent) {
  return {{z.re.value, tangent.re}, {z.im.value, tangent.im}};
}

template <class R>
KETGRAD_KERNEL invert_tangents_kernel(Index each, Index rows, Index size, const Complex<DualOf<R>>* adjoint,
                                      const Complex<R>* products, Complex<DualOf<R>>* inverse) {
  const Item item = Item::of(each, rows);
  if (!item.exists) return;
  const Complex<DualOf<R>>* a = adjoint + item.sample * each;
  const Complex<R>* p = products + item.sample * each;
  const Index row = item.number / size;
  const Index column = item.number % size;
  Complex<R> sum{};
  for (Index k = 0; k < size; ++k) sum += value_of(a[row * size + k]) * p[k * size + column];
  inverse[item.sample * each + item.number] = with_tangent(a[item.number], Complex<R>{-sum.re, -sum.im});
}

template <class R>
KETGRAD_KERNEL invert_diagonal_tangents_kernel(Index each, Index rows, const Complex<DualOf<R>>* adjoint,
                                               Complex<DualOf<R>>* inverse) {
  const Item item = Item::of(each, rows);
  if (!item.exists) return;
  const Complex<DualOf<R>> a = adjoint[item.sample * each + item.number];
  const Complex<R> tangent = value_of(a) * conj(tangent_of(a)) * value_of(a);
  inverse[item.sample * each + item.number] = with_tangent(a, Complex<R>{-tangent.re, -tangent.im});
}

// The matrix of a formula. No formula mixes more than two rows: the excitations with a phase on all others have 4 or 16
// rows, but rotate two of them as RY does. So a thread holds the 2 x 2 matrix of these two and the phase: the 16 rows
// of a double excitation would take kilobytes of local memory, which the driver reserves for every thread that fits a
// GPU.
template <class R>
class FormulaMatrix {
 public:
  KETGRAD_DEVICE FormulaMatrix(Formula formula, int size, const R* p) : mixed_rows_(size < 2 ? size : 2) {
    switch (formula) {
      case Formula::single_excitation_plus: excite(1, 2, 0.5, p); break;
      case Formula::single_excitation_minus: excite(1, 2, -0.5, p); break;
      case Formula::double_excitation_plus: excite(3, 12, 0.5, p); break;
      case Formula::double_excitation_minus: excite(3, 12, -0.5, p); break;
      default: block_matrix(formula, p, mixed_);
    }
  }

  KETGRAD_DEVICE Complex<R> at(int a, int b) const {
    if (mixes(a) && mixes(b)) return mixed_[(a == high_ ? mixed_rows_ : 0) + (b == high_ ? 1 : 0)];
    return a == b ? others_ : Complex<R>{};
  }

 private:
  KETGRAD_DEVICE void excite(int low, int high, double phase, const R* p) {
    low_ = low;
    high_ = high;
    block_matrix(Formula::ry, p, mixed_);
    others_ = formulas::phase(R(phase) * p[0]);
  }
  KETGRAD_DEVICE bool mixes(int a) const { return a == low_ || a == high_; }

  int mixed_rows_;
  int low_ = 0;
  int high_ = 1;
  Complex<R> mixed_[4];
  Complex<R> others_{};
};

template <class T>
KETGRAD_KERNEL formula_kernel(Index each, Index rows, StateCall<T> c, TableGateOp gate_op, bool dagger,
                              Complex<T>* coefficients) {
  const Item item = Item::of(each, rows);
  if (!item.exists) return;
  const Index sample = c.samples.first + item.sample;
  if (gate_op.kind == GateOpKind::pauli_rotation) {
    using std::cos;
    using std::sin;
    const Accum<T> half = (dagger ? -0.5 : 0.5) * parameter(c, gate_op, 0, sample);
    coefficients[item.sample] = {static_cast<T>(cos(half)), static_cast<T>(sin(half))};
    return;
  }
  Accum<T> p[max_parameters];
  for (int j = 0; j < gate_op.values.count; ++j) p[j] = parameter(c, gate_op, j, sample);
  const int size = gate_op.size;
  const FormulaMatrix<Accum<T>> m(gate_op.formula, size, p);
  if (gate_op.kind == GateOpKind::diagonal) {
    Complex<T>* out = coefficients + item.sample * size;
    for (int a = 0; a < size; ++a) out[a] = narrowed<T>(dagger ? conj(m.at(a, a)) : m.at(a, a));
    return;
  }
  Complex<T>* out = coefficients + item.sample * size * size;
  for (int a = 0; a < size; ++a) {
    for (int b = 0; b < size; ++b) out[a * size + b] = narrowed<T>(dagger ? conj(m.at(b, a)) : m.at(a, b));
  }
}

// --- application -----------------------------------------------------------------------------------------------------

// A block takes as many groups as it has threads for their amplitudes, at least one.
template <class T>
KETGRAD_KERNEL matrix_kernel(StateCall<T> c, Map groups, Offsets offsets, const Complex<T>* matrix, Index stride,
                             Index groups_in_block, Complex<T>* states) {
  const Index blocks = (groups.size() + groups_in_block - 1) / groups_in_block;
  const Index sample = block_index() / blocks;
  const Index first = block_index() % blocks * groups_in_block;
  Complex<T>* state = states + (sample << c.num_bits);
  const Complex<T>* m = matrix + sample * stride;
  const Index size = offsets.size;
  const Index here = (groups.size() - first < groups_in_block ? groups.size() - first : groups_in_block) * size;
  Shared<Complex<T>> rows(0, groups_in_block * size);
  const auto place = [&](Index e) { return at(c.t, groups, first + e / size) ^ offset_at(c.t, offsets, e % size); };
  for (Index e = thread_index(); e < here; e += block_threads()) rows.set(e, state[place(e)]);
  barrier();
  for (Index e = thread_index(); e < here; e += block_threads()) {
    const Index group = e / size * size;
    const Complex<T>* row = m + e % size * size;
    Complex<T> sum{};
    for (Index b = 0; b < size; ++b) sum += row[b] * rows.get(group + b);
    state[place(e)] = sum;
  }
}

template <class T>
KETGRAD_KERNEL diagonal_kernel(Index each, Index samples, StateCall<T> c, Map groups, Offsets offsets,
                               const Complex<T>* diagonal, Index stride, Complex<T>* states) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index a = item.number / groups.size();
  const Index place = at(c.t, groups, item.number % groups.size()) ^ offset_at(c.t, offsets, a);
  Complex<T>& amplitude = states[(item.sample << c.num_bits) + place];
  amplitude = diagonal[item.sample * stride + a] * amplitude;
}

template <class T>
KETGRAD_KERNEL exchange_kernel(Index each, Index samples, StateCall<T> c, Map groups, Offsets offsets,
                               Complex<T>* states) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  Complex<T>* state = states + (item.sample << c.num_bits);
  const Index base = at(c.t, groups, item.number);
  Complex<T>& a = state[base ^ offset_at(c.t, offsets, 0)];
  Complex<T>& b = state[base ^ offset_at(c.t, offsets, 1)];
  const Complex<T> before = a;
  a = b;
  b = before;
}

template <class T>
KETGRAD_KERNEL rotation_kernel(Index each, Index samples, StateCall<T> c, Map groups, PauliWord pauli_word,
                               const Complex<T>* coefficients, Index stride, Complex<T>* states) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  Complex<T>* state = states + (item.sample << c.num_bits);
  const Complex<T> cs = coefficients[item.sample * stride];
  const Index i = at(c.t, groups, item.number);
  const Index j = i ^ static_cast<Index>(pauli_word.x);
  const Complex<T> at_i = state[i];
  const Complex<T> at_j = state[j];
  state[i] = cs.re * at_i + cs.im * generated(pauli_word, j, at_j);
  if (i != j) state[j] = cs.re * at_j + cs.im * generated(pauli_word, i, at_i);
}

// The time of an evolution, negative where it is inverted.
template <class T>
KETGRAD_DEVICE Accum<T> time_of(const StateCall<T>& c, const TableGateOp& gate_op, Index sample) {
  return (gate_op.inverse != 0 ? -1.0 : 1.0) * parameter(c, gate_op, 0, sample);
}

// exp(-i t D), or its adjoint. Its inverse is the same along any tangent, for t and D are real.
template <class T>
KETGRAD_KERNEL evolution_kernel(Index each, Index samples, StateCall<T> c, TableGateOp gate_op, bool adjoint,
                                Complex<T>* states) {
  using std::cos;
  using std::sin;
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index sample = c.samples.first + item.sample;
  const Index a = item.number / gate_op.groups.size();
  const Index place = at(c.t, gate_op.groups, item.number % gate_op.groups.size()) ^ at(c.t, gate_op.entries, a);
  const Accum<T> time = (adjoint ? 1.0 : -1.0) * time_of(c, gate_op, sample);
  const Accum<T> angle = time * static_cast<Accum<T>>(real_at(c.inputs[gate_op.input], sample, a));
  Complex<T>& amplitude = states[(item.sample << c.num_bits) + place];
  amplitude = Complex<T>{static_cast<T>(cos(angle)), static_cast<T>(sin(angle))} * amplitude;
}

// --- gradients -------------------------------------------------------------------------------------------------------

// 2 Re sum_ab (dV)[a, b] W[a, b]; of V^dagger, whose derivative is (dV)^dagger, with conj(W[b, a]) instead.
template <class N>
KETGRAD_DEVICE N contracted(const TableGateOp& gate_op, const FormulaMatrix<DualOf<N>>& m, const Complex<N>* w) {
  const int size = gate_op.size;
  N total = 0;
  for (int a = 0; a < size; ++a) {
    for (int b = 0; b < size; ++b) {
      if (gate_op.kind == GateOpKind::diagonal && a != b) continue;
      const Complex<DualOf<N>> entry = m.at(a, b);
      const Index at = gate_op.kind == GateOpKind::diagonal ? a : gate_op.inverse != 0 ? b * size + a : a * size + b;
      const Complex<N> overlap = gate_op.inverse != 0 ? conj(w[at]) : w[at];
      total += entry.re.tangent * overlap.re - entry.im.tangent * overlap.im;
    }
  }
  return 2 * total;
}

template <class T>
KETGRAD_KERNEL gate_op_sources_kernel(Index each, Index samples, StateCall<T> c, TableGateOp gate_op, Index count,
                                      const Complex<Accum<T>>* sums, Accum<T>* single) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const auto j = static_cast<int>(item.number);
  const Complex<Accum<T>>* w = sums + item.sample * count;
  Accum<T>& out = single[(gate_op.first_source + j) * samples + item.sample];
  if (gate_op.kind == GateOpKind::pauli_rotation || gate_op.kind == GateOpKind::evolution) {
    out = (gate_op.inverse != 0 ? -1.0 : 1.0) * w[0].re;
    return;
  }
  using AlongParameter = DualOf<Accum<T>>;  // along parameter j
  AlongParameter p[max_parameters];
  for (int k = 0; k < gate_op.values.count; ++k)
    p[k] = AlongParameter(parameter(c, gate_op, k, c.samples.first + item.sample), k == j ? 1.0 : 0.0);
  out = contracted(gate_op, FormulaMatrix<AlongParameter>(gate_op.formula, gate_op.size, p), w);
}

// torch's gradient of the matrix itself is 2 conj(W), of one that is inverted 2 W^T.
template <class T>
KETGRAD_KERNEL matrix_gradient_kernel(Index each, Index rows, StateCall<T> c, TableGateOp gate_op, bool batched,
                                      const Complex<Accum<T>>* sums) {
  const Item item = Item::of(each, rows);
  if (!item.exists) return;
  const bool transposes = gate_op.inverse != 0 && gate_op.kind == GateOpKind::dense;
  const Index from = transposes ? item.number % gate_op.size * gate_op.size + item.number / gate_op.size : item.number;
  add_complex_gradient(c.inputs[gate_op.input], c.samples, item, batched, [&](Index s) {
    const Complex<Accum<T>> w = sums[s * each + from];
    return Accum<T>(2) * (gate_op.inverse != 0 ? w : conj(w));
  });
}

// d/dD_a = 2 t Im<bra_a|psi_a>, from sums[sample][a] = <bra_a|psi_a>.
template <class T>
KETGRAD_KERNEL entry_gradient_kernel(Index each, Index rows, StateCall<T> c, TableGateOp gate_op, bool batched,
                                     const Complex<Accum<T>>* sums) {
  const Item item = Item::of(each, rows);
  if (!item.exists) return;
  add_real_gradient(c.inputs[gate_op.input], c.samples, item, batched, [&](Index s) {
    return Accum<T>(2) * time_of(c, gate_op, c.samples.first + s) * sums[s * each + item.number].im;
  });
}

}  // namespace

// --- launches --------------------------------------------------------------------------------------------------------

template <class T>
void begin_states(const Queue& queue, const StateCall<T>& call, const InitialAmplitudes& initial, Complex<T>* states) {
  launch_items(queue, Index{1} << call.num_bits, call.samples.count, begin_kernel<T>, initial, states);
}

template <class T>
void load_initial_state(const Queue& queue, const StateCall<T>& call, int input, const Map& offsets,
                        Complex<T>* states) {
  launch_items(queue, offsets.size(), call.samples.count, load_initial_kernel<T>, call, input, offsets, states);
}

template <class T>
void add_initial_gradient(const Queue& queue, const StateCall<T>& call, const Input<T>& host_input, int input,
                          const Map& offsets, const Complex<T>* bra) {
  const bool batched = host_input.batched != 0;
  launch_items(queue, offsets.size(), batched ? call.samples.count : 1, initial_gradient_kernel<T>, call, input,
               offsets, batched, bra);
}

Index coefficient_count(const TableGateOp& gate_op) {
  switch (gate_op.kind) {
    case GateOpKind::dense: return Index{gate_op.size} * gate_op.size;
    case GateOpKind::diagonal: return gate_op.size;
    case GateOpKind::exchange:
    case GateOpKind::evolution: return 0;
    case GateOpKind::pauli_rotation: return 1;
  }
  return 0;
}

Index overlap_count(const TableGateOp& gate_op) {
  return gate_op.kind == GateOpKind::evolution ? 1 : coefficient_count(gate_op);
}

template <class T>
void set_coefficients(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op, bool adjoint,
                      Index rows, Complex<T>* coefficients) {
  if (gate_op.kind == GateOpKind::exchange) return;
  const bool dagger = adjoint != (gate_op.inverse != 0);
  if (gate_op.input != no_input) {
    launch_items(queue, coefficient_count(gate_op), rows, copy_matrix_kernel<T>, call, gate_op, dagger, coefficients);
  } else {
    launch_items(queue, 1, rows, formula_kernel<T>, call, gate_op, dagger, coefficients);
  }
}

template <class R>
void invert_tangents(const Queue& queue, const TableGateOp& gate_op, Index rows, const Complex<DualOf<R>>* adjoint,
                     Complex<DualOf<R>>* inverse, Complex<DualOf<R>>* spare) {
  const Index count = coefficient_count(gate_op);
  if (gate_op.kind == GateOpKind::diagonal)
    return launch_items(queue, count, rows, invert_diagonal_tangents_kernel<R>, adjoint, inverse);
  auto* products = reinterpret_cast<Complex<R>*>(spare);
  launch_items(queue, count, rows, tangent_products_kernel<R>, Index{gate_op.size}, adjoint, products);
  launch_items(queue, count, rows, invert_tangents_kernel<R>, Index{gate_op.size}, adjoint, products, inverse);
}

namespace {

template <class T>
void launch_matrix(const Queue& queue, const StateCall<T>& call, const Map& groups, const Offsets& offsets,
                   const Complex<T>* matrix, Index stride, Complex<T>* states) {
  const Index groups_in_block = std::max<Index>(item_threads / offsets.size, 1);
  const Index blocks = (groups.size() + groups_in_block - 1) / groups_in_block;
  launch(queue, call.samples.count * blocks, item_threads, groups_in_block * offsets.size * sizeof(Complex<T>),
         matrix_kernel<T>, call, groups, offsets, matrix, stride, groups_in_block, states);
}

}  // namespace

template <class T>
void apply_gate_op(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op,
                   const Complex<T>* coefficients, Index stride, Complex<T>* states) {
  const Offsets offsets = Offsets::of(gate_op.offsets);
  const Index groups = gate_op.groups.size();
  switch (gate_op.kind) {
    case GateOpKind::dense: return launch_matrix(queue, call, gate_op.groups, offsets, coefficients, stride, states);
    case GateOpKind::diagonal:
      return launch_items(queue, groups * gate_op.size, call.samples.count, diagonal_kernel<T>, call, gate_op.groups,
                          offsets, coefficients, stride, states);
    case GateOpKind::exchange:
      return launch_items(queue, groups, call.samples.count, exchange_kernel<T>, call, gate_op.groups, offsets, states);
    case GateOpKind::pauli_rotation:
      return launch_items(queue, groups, call.samples.count, rotation_kernel<T>, call, gate_op.groups,
                          gate_op.pauli_word, coefficients, stride, states);
    case GateOpKind::evolution: return;  // has no coefficients: see apply_evolution
  }
}

template <class T>
void apply_evolution(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op, bool adjoint,
                     Complex<T>* states) {
  launch_items(queue, gate_op.groups.size() * gate_op.entries.size(), call.samples.count, evolution_kernel<T>, call,
               gate_op, adjoint, states);
}

template <class T>
void apply_matrix(const Queue& queue, const StateCall<T>& call, const Map& groups, const Map& offsets,
                  const Complex<T>* matrix, Index stride, Complex<T>* states) {
  launch_matrix(queue, call, groups, Offsets::of(offsets), matrix, stride, states);
}

template <class T>
void set_gate_op_sources(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op,
                         const Complex<Accum<T>>* sums, Accum<T>* single) {
  if (gate_op.values.count == 0) return;
  launch_items(queue, gate_op.values.count, call.samples.count, gate_op_sources_kernel<T>, call, gate_op,
               overlap_count(gate_op), sums, single);
}

template <class T>
void add_matrix_gradient(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op, bool batched,
                         const Complex<Accum<T>>* sums) {
  launch_items(queue, overlap_count(gate_op), batched ? call.samples.count : 1, matrix_gradient_kernel<T>, call,
               gate_op, batched, sums);
}

template <class T>
void add_entry_gradient(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op, bool batched,
                        const Complex<Accum<T>>* sums) {
  launch_items(queue, gate_op.entries.size(), batched ? call.samples.count : 1, entry_gradient_kernel<T>, call, gate_op,
               batched, sums);
}

#define KETGRAD_GATE_OPS(T)                                                                                          \
  template void begin_states(const Queue&, const StateCall<T>&, const InitialAmplitudes&, Complex<T>*);              \
  template void load_initial_state(const Queue&, const StateCall<T>&, int, const Map&, Complex<T>*);                 \
  template void add_initial_gradient(const Queue&, const StateCall<T>&, const Input<T>&, int, const Map&,            \
                                     const Complex<T>*);                                                             \
  template void set_coefficients(const Queue&, const StateCall<T>&, const TableGateOp&, bool, Index, Complex<T>*);   \
  template void apply_gate_op(const Queue&, const StateCall<T>&, const TableGateOp&, const Complex<T>*, Index,       \
                              Complex<T>*);                                                                          \
  template void apply_matrix(const Queue&, const StateCall<T>&, const Map&, const Map&, const Complex<T>*, Index,    \
                             Complex<T>*);                                                                           \
  template void set_gate_op_sources(const Queue&, const StateCall<T>&, const TableGateOp&, const Complex<Accum<T>>*, \
                                    Accum<T>*);                                                                      \
  template void add_matrix_gradient(const Queue&, const StateCall<T>&, const TableGateOp&, bool,                     \
                                    const Complex<Accum<T>>*);                                                       \
  template void apply_evolution(const Queue&, const StateCall<T>&, const TableGateOp&, bool, Complex<T>*);           \
  template void add_entry_gradient(const Queue&, const StateCall<T>&, const TableGateOp&, bool,                      \
                                   const Complex<Accum<T>>*);
KETGRAD_FOR_NUMBERS(KETGRAD_GATE_OPS)
#undef KETGRAD_GATE_OPS

template void invert_tangents(const Queue&, const TableGateOp&, Index, const Complex<DualOf<float>>*,
                              Complex<DualOf<float>>*, Complex<DualOf<float>>*);
template void invert_tangents(const Queue&, const TableGateOp&, Index, const Complex<Dual>*, Complex<Dual>*,
                              Complex<Dual>*);

}  // namespace ketgrad::cuda
