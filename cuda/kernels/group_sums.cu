#include "cuda/kernels/group_sums.h"

#include <algorithm>

#include "cuda/kernels/grid.h"

namespace ketgrad::cuda {

namespace {

// A sum over more groups than this is split into partial sums, one for each block.
constexpr Index groups_in_partial = 4096;
// With fewer groups than this, one thread sums an entry.
constexpr Index few_groups = 64;

constexpr Index partials_of(Index groups) {
  return std::min<Index>(std::max<Index>(groups / groups_in_partial, 1), 256);
}

struct Entry {
  Index a = 0;
  Index b = 0;
};

KETGRAD_DEVICE Entry entry_at(const TablesView& t, const Entries& entries, const Offsets& offsets, Index e) {
  switch (entries.kind) {
    case Entries::Kind::all: return {offset_at(t, offsets, e / offsets.size), offset_at(t, offsets, e % offsets.size)};
    case Entries::Kind::diagonal: return {offset_at(t, offsets, e), offset_at(t, offsets, e)};
    default:
      return {offset_at(t, offsets, t.entries[entries.rows.first + e]),
              offset_at(t, offsets, t.entries[entries.columns.first + e])};
  }
}

template <class T>
KETGRAD_DEVICE Complex<Accum<T>> sum_of_groups(const StateCall<T>& c, const Map& groups, const Entry& entry,
                                               const Complex<T>* x, const Complex<T>* y, Index first, Index stride,
                                               Index end) {
  Complex<Accum<T>> sum{};
  for (Index r = first; r < end; r += stride) {
    const Index base = at(c.t, groups, r);
    sum += widened(inner(x[base ^ entry.a], y[base ^ entry.b]));
  }
  return sum;
}

template <class T>
KETGRAD_KERNEL few_sums_kernel(Index each, Index samples, StateCall<T> c, Map groups, Offsets offsets, Entries entries,
                               const Complex<T>* x, const Complex<T>* y, Complex<Accum<T>>* sums) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index state = item.sample << c.num_bits;
  const Entry entry = entry_at(c.t, entries, offsets, item.number);
  sums[item.sample * each + item.number] = sum_of_groups(c, groups, entry, x + state, y + state, 0, 1, groups.size());
}

// Block (sample, entry, partial).
template <class T>
KETGRAD_KERNEL sums_kernel(StateCall<T> c, Map groups, Offsets offsets, Entries entries, Index partials,
                           const Complex<T>* x, const Complex<T>* y, Complex<Accum<T>>* sums) {
  const Index partial = block_index() % partials;
  const Index number = block_index() / partials % entries.count;
  const Index state = (block_index() / partials / entries.count) << c.num_bits;
  const Entry entry = entry_at(c.t, entries, offsets, number);
  const Index length = groups.size() / partials;
  const Complex<Accum<T>> sum =
      block_sum(sum_of_groups(c, groups, entry, x + state, y + state, partial * length + thread_index(),
                              block_threads(), (partial + 1) * length));
  if (thread_index() == 0) sums[block_index()] = sum;
}

template <class T>
KETGRAD_KERNEL rotation_sums_kernel(StateCall<T> c, Map groups, PauliWord pauli_word, Index partials,
                                    const Complex<T>* bra, const Complex<T>* ket, Complex<Accum<T>>* sums) {
  const Index partial = block_index() % partials;
  const Index state = (block_index() / partials) << c.num_bits;
  const Index length = groups.size() / partials;
  Accum<T> sum = 0;
  for (Index r = partial * length + thread_index(); r < (partial + 1) * length; r += block_threads()) {
    const Index i = at(c.t, groups, r);
    const Index j = i ^ static_cast<Index>(pauli_word.x);
    sum += inner(widened(bra[state + i]), widened(generated(pauli_word, j, ket[state + j]))).re;
    if (i != j) sum += inner(widened(bra[state + j]), widened(generated(pauli_word, i, ket[state + i]))).re;
  }
  sum = block_sum(sum);
  if (thread_index() == 0) sums[block_index()] = {sum, 0};
}

template <class T>
KETGRAD_KERNEL evolution_sums_kernel(StateCall<T> c, TableGateOp gate_op, Index partials, const Complex<T>* bra,
                                     const Complex<T>* ket, Complex<Accum<T>>* sums) {
  const Map& groups = gate_op.groups;
  const Index partial = block_index() % partials;
  const Index sample = block_index() / partials;
  const Index state = sample << c.num_bits;
  const Index length = groups.size() * gate_op.entries.size() / partials;
  Accum<T> sum = 0;
  for (Index e = partial * length + thread_index(); e < (partial + 1) * length; e += block_threads()) {
    const Index a = e / groups.size();
    const Index i = state + (at(c.t, groups, e % groups.size()) ^ at(c.t, gate_op.entries, a));
    const Accum<T> d = static_cast<Accum<T>>(real_at(c.inputs[gate_op.input], c.samples.first + sample, a));
    sum += 2.0 * d * inner(widened(bra[i]), widened(ket[i])).im;
  }
  sum = block_sum(sum);
  if (thread_index() == 0) sums[block_index()] = {sum, 0};
}

template <class N>
KETGRAD_KERNEL fold_kernel(Index each, Index samples, Index partials, const Complex<N>* from, Complex<N>* to) {
  const Item item = Item::of(each, samples);
  if (!item.exists) return;
  const Index e = item.sample * each + item.number;
  Complex<N> total{};
  for (Index p = 0; p < partials; ++p) total += from[e * partials + p];
  to[e] = total;
}

}  // namespace

template <class N>
void fold_sums(const Queue& queue, Index count, Index samples, Index partials, const Complex<N>* from, Complex<N>* to) {
  launch_items(queue, count, samples, fold_kernel<N>, partials, from, to);
}

Index sum_scratch_count(Index groups, Index entries, Index samples) {
  const Index partials = partials_of(groups);
  return partials == 1 ? 0 : partials * entries * samples;
}

template <class T>
void sum_over_groups(const Queue& queue, const StateCall<T>& call, const Map& groups, const Offsets& offsets,
                     const Entries& entries, const Complex<T>* x, const Complex<T>* y, Complex<Accum<T>>* sums,
                     Complex<Accum<T>>* scratch) {
  if (entries.count == 0) return;
  if (groups.size() < few_groups) {
    return launch_items(queue, entries.count, call.samples.count, few_sums_kernel<T>, call, groups, offsets, entries, x,
                        y, sums);
  }
  const Index partials = partials_of(groups.size());
  launch(queue, call.samples.count * entries.count * partials, item_threads,
         item_threads / warp_size * sizeof(Accum<T>), sums_kernel<T>, call, groups, offsets, entries, partials, x, y,
         partials == 1 ? sums : scratch);
  if (partials > 1) fold_sums<Accum<T>>(queue, entries.count, call.samples.count, partials, scratch, sums);
}

template <class T>
void sum_rotation(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op, const Complex<T>* bra,
                  const Complex<T>* ket, Complex<Accum<T>>* sums, Complex<Accum<T>>* scratch) {
  const Index partials = partials_of(gate_op.groups.size());
  launch(queue, call.samples.count * partials, item_threads, item_threads / warp_size * sizeof(Accum<T>),
         rotation_sums_kernel<T>, call, gate_op.groups, gate_op.pauli_word, partials, bra, ket,
         partials == 1 ? sums : scratch);
  if (partials > 1) fold_sums<Accum<T>>(queue, 1, call.samples.count, partials, scratch, sums);
}

template <class T>
void sum_evolution(const Queue& queue, const StateCall<T>& call, const TableGateOp& gate_op, const Complex<T>* bra,
                   const Complex<T>* ket, Complex<Accum<T>>* sums, Complex<Accum<T>>* scratch) {
  const Index partials = partials_of(gate_op.groups.size() * gate_op.entries.size());
  launch(queue, call.samples.count * partials, item_threads, item_threads / warp_size * sizeof(Accum<T>),
         evolution_sums_kernel<T>, call, gate_op, partials, bra, ket, partials == 1 ? sums : scratch);
  if (partials > 1) fold_sums<Accum<T>>(queue, 1, call.samples.count, partials, scratch, sums);
}

#define KETGRAD_GROUP_SUMS(T)                                                                                  \
  template void sum_over_groups(const Queue&, const StateCall<T>&, const Map&, const Offsets&, const Entries&, \
                                const Complex<T>*, const Complex<T>*, Complex<Accum<T>>*, Complex<Accum<T>>*); \
  template void sum_rotation(const Queue&, const StateCall<T>&, const TableGateOp&, const Complex<T>*,         \
                             const Complex<T>*, Complex<Accum<T>>*, Complex<Accum<T>>*);                       \
  template void sum_evolution(const Queue&, const StateCall<T>&, const TableGateOp&, const Complex<T>*,        \
                              const Complex<T>*, Complex<Accum<T>>*, Complex<Accum<T>>*);
KETGRAD_FOR_NUMBERS(KETGRAD_GROUP_SUMS)
#undef KETGRAD_GROUP_SUMS

template void fold_sums(const Queue&, Index, Index, Index, const Complex<double>*, Complex<double>*);
template void fold_sums(const Queue&, Index, Index, Index, const Complex<Dual>*, Complex<Dual>*);

}  // namespace ketgrad::cuda
