// One circuit after the other, or a sample per lane: forward, and back.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <vector>

#include "cpu/coefficients.h"
#include "cpu/engine.h"
#include "cpu/engine/pauli_sums-inl.h"
#include "cpu/engine/products-inl.h"
#include "cpu/engine/rotation_passes-inl.h"
#include "cpu/gradient_sink.h"
#include "cpu/kernels/interleaved-inl.h"
#include "cpu/kernels/observables-inl.h"
#include "cpu/profile.h"

namespace ketgrad {
namespace {

// Multiply-adds for a group of amplitudes.
inline Index work_of(const GateOp& gate_op) {
  const Index size = std::max(gate_op.size(), 1);  // a rotation has no offsets
  return gate_op.kind == GateOpKind::dense ? size * size : size;
}

inline Index work_of(const PlannedFactor& f) {
  const Index size = f.offsets.size();
  switch (f.factor->kind) {
    case FactorKind::hermitian: return size * size;
    case FactorKind::sparse: return size + static_cast<Index>(f.factor->rows.size());
    default: return size;
  }
}

// Runs the samples of one task, lane_width<V> at a time.
template <class V>
class CircuitEngine {
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;

 public:
  CircuitEngine(const Call<T>& call, const Plan& plan, const SharedGateOps<T>& shared, const Task& task)
      : call_(call),
        program_(call.program()),
        plan_(plan),
        shared_(shared),
        team_(call.parallel, task.parallel_passes, call),
        dimension_(call.dimension()),
        real_stride_(program_.real_results()),
        complex_stride_(program_.complex_results()),
        tiles_(call, team_),
        pauli_words_(plan_, tiles_),
        first_scratch_(call.resources().needs_scratch ? 2 * dimension_ : 0),
        second_scratch_(call.resources().needs_scratch ? 2 * dimension_ : 0) {}

  void forward(const Task& task, const Results<T>& results) {
    const bool in_place = width == 1 && results.ket != nullptr;
    const HugePageBuffer<V> state(in_place ? 0 : 2 * dimension_);
    times_.forward.resize(plan_.passes.size());
    for (Index sample = task.begin; sample < task.end; sample += width) {
      start_group(sample, task.end);
      psi_ = in_place ? reinterpret_cast<V*>(results.ket) + 2 * sample * dimension_ : state.data();
      if (!run_circuit()) return;
      measure_pauli_words(results);
      for (const PlannedMeasurement& m : plan_.measurements) measure(m, results);
      watch_.lap(times_.measure);
      if constexpr (width > 1) {
        if (results.ket != nullptr) keep_ket(results.ket);
      }
    }
    if (watch_.on()) add_to_profile(call_.planned->id, times_);
  }

  void backward(const Task& task, const Cotangents<T>& cotangents, TaskGradients<T>& gradients) {
    const HugePageBuffer<V> ket(2 * dimension_);
    const HugePageBuffer<V> bra(2 * dimension_, 1);
    lambda_ = bra.data();
    gradients_ = &gradients;
    times_.forward.resize(plan_.passes.size());
    times_.backward.resize(plan_.passes.size());
    for (Index sample = task.begin; sample < task.end; sample += width) {
      start_group(sample, task.end);
      psi_ = ket.data();
      if (cotangents.ket == nullptr) {
        if (!run_circuit()) return;
      } else if constexpr (width == 1) {
        psi_ = const_cast<T*>(cotangents.ket) + 2 * sample * dimension_;  // read there until a pass writes a copy
      } else {
        read_ket(cotangents.ket);
      }
      add_pauli_words_bra(cotangents);
      for (const PlannedMeasurement& m : plan_.measurements) add_bra(m, cotangents);
      watch_.lap(times_.bra);
      if (!undo_circuit(ket.data())) return;
      if (requests(program_.initial.input)) initial_state_gradient();
    }
    if (watch_.on()) add_to_profile(call_.planned->id, times_);
  }

 protected:
  // --- samples and their parameters ----------------------------------------------------------------------------------

  void start_group(Index first, Index end) {
    count_ = static_cast<int>(std::min<Index>(width, end - first));
    group_ = {first, count_};
  }

  Index sample(int lane) const { return group_.sample(lane); }

  bool requests(int input) const { return input != no_input && gradients_->sink->requests(input); }

  double coefficient(const Term& term, Index sample) const {
    double c = term.scale;
    for (const Slot& s : term.coefficients) c *= call_.value(s, sample);
    return c;
  }

  template <class F>
  V lanes(const F& of_lane) const {
    V v{};
    for (int l = 0; l < width; ++l) set_lane(v, l, static_cast<T>(of_lane(l)));
    return v;
  }

  // A complex input, lane by lane.
  const V* input_lanes(int input) { return input_lanes(call_.inputs[input]); }

  const V* input_lanes(const InputView<T>& view) {
    values_.resize(2 * view.numel);
    for (int l = 0; l < width; ++l) {
      const T* data = view.of_sample(sample(l));
      for (Index e = 0; e < 2 * view.numel; ++e) set_lane(values_[e], l, data[e]);
    }
    return values_.data();
  }

  // `size` numbers a sample, from rows of `stride` numbers.
  const V* row_lanes(const T* rows, Index stride, Index first, Index size) {
    values_.resize(size);
    for (int l = 0; l < width; ++l) {
      const T* row = rows + sample(l) * stride + first;
      for (Index e = 0; e < size; ++e) set_lane(values_[e], l, row[e]);
    }
    return values_.data();
  }

  // --- states --------------------------------------------------------------------------------------------------------

  void fill_zero(V* state) const { fill(state, 0); }

  // With a real amplitude.
  void fill(V* state, T amplitude) const {
    team_.for_range(dimension_, [=](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        state[2 * i] = V{} + amplitude;
        state[2 * i + 1] = V{};
      }
    });
  }

  // OpParameters of a state that are transposed in width x width squares: all, or none of a few wires.
  Index in_squares() const { return 2 * dimension_ < width ? 0 : 2 * dimension_; }

  // The ket as it lies in memory, one row a sample.
  void keep_ket(T* rows) const {
    const auto row = [&](int l) { return rows + 2 * sample(l) * dimension_; };
    for (Index i = 0; i < in_squares(); i += width) {
      V square[width];
      std::copy(psi_ + i, psi_ + i + width, square);
      transpose(square);
      for (int l = 0; l < count_; ++l) store_row(row(l) + i, square[l]);
    }
    for (Index i = in_squares(); i < 2 * dimension_; ++i) {
      for (int l = 0; l < count_; ++l) row(l)[i] = get_lane(psi_[i], l);
    }
  }

  void read_ket(const T* rows) {
    const auto row = [&](int l) { return rows + 2 * sample(l) * dimension_; };
    for (Index i = 0; i < in_squares(); i += width) {
      V square[width];
      for (int l = 0; l < width; ++l) square[l] = load_row(row(l) + i);
      transpose(square);
      std::copy(square, square + width, psi_ + i);
    }
    for (Index i = in_squares(); i < 2 * dimension_; ++i) {
      for (int l = 0; l < width; ++l) set_lane(psi_[i], l, row(l)[i]);
    }
  }

  void prepare() {
    if (program_.initial.kind != Preparation::state) {
      const InitialAmplitudes& initial = plan_.initial;
      fill(psi_, static_cast<T>(initial.everywhere));
      psi_[2 * initial.index] = V{} + static_cast<T>(initial.amplitude(initial.index));
      return;
    }
    fill_zero(psi_);
    const V* amplitudes = input_lanes(program_.initial.input);
    store_group(psi_, 0, plan_.initial_offsets, plan_.initial_offsets.size(), amplitudes);
  }

  // --- passes --------------------------------------------------------------------------------------------------------

  T* scalars(V* state) const { return reinterpret_cast<T*>(state); }

  // One direction's rotations, with the parameters of the present samples.
  PassRunner<V>& started(std::optional<PassRunner<V>>& rotations, bool inverse) {
    if (!rotations) rotations.emplace(call_, plan_, inverse, tiles_);
    rotations->start(group_);
    return *rotations;
  }

  bool run_circuit() {
    prepare();
    PassRunner<V>& rotations = started(forward_rotations_, false);
    for (std::size_t p = 0; p < plan_.passes.size(); ++p) {
      if (call_.should_stop()) return false;
      const int s = plan_.passes[p].gate_op;
      if (s == Element::none) {
        rotations.forward(static_cast<int>(p), scalars(psi_));
      } else if (call_.shared(plan_.gate_ops[s])) {
        apply(psi_, plan_.gate_ops[s], shared_.forward[s].data());
      } else {
        apply(psi_, plan_.gate_ops[s], per_sample_coefficients(plan_.gate_ops[s], false));
      }
      watch_.lap(times_.forward[p]);
    }
    return true;
  }

  // From psi_ on, in `ket`.
  bool undo_circuit(V* ket) {
    PassRunner<V>& rotations = started(backward_rotations_, true);
    find_requested_rotations();
    rotation_overlaps_.assign(plan_.rotations.size() * width, 0.0);
    const bool initial_requested = requests(program_.initial.input);
    for (int p = static_cast<int>(plan_.passes.size()) - 1; p >= gradients_->first_pass; --p) {
      if (call_.should_stop()) return false;
      if (psi_ != ket && !rotations.covers_state(p)) {
        team_.for_range(dimension_,
                        [&](Index begin, Index end) { std::copy(psi_ + 2 * begin, psi_ + 2 * end, ket + 2 * begin); });
        psi_ = ket;
      }
      const int s = plan_.passes[p].gate_op;
      if (s == Element::none) {
        const bool last = p == gradients_->first_pass && !initial_requested;
        rotations.backward(p, scalars(psi_), scalars(ket), scalars(lambda_), last, requested_rotations_,
                           rotation_overlaps_);
        psi_ = ket;
      } else {
        undo(s);
      }
      watch_.lap(times_.backward[p]);
    }
    collect_rotation_overlaps();
    return true;
  }

  // What is requested of rotations is found once, as it is of all samples.
  void find_requested_rotations() {
    if (!requested_rotations_.empty()) return;
    for (const Rotation& t : plan_.rotations) requested_rotations_.push_back(requests(t.angle.input));
  }

  // d exp(-i angle/2 P) = -i/2 P: twice the real part with the bra is the overlap itself.
  void collect_rotation_overlaps() {
    for (std::size_t t = 0; t < plan_.rotations.size(); ++t) {
      if (!requested_rotations_[t]) continue;
      const Slot& slot = plan_.rotations[t].angle;
      const double* overlap = rotation_overlaps_.data() + t * width;
      if (call_.inputs[slot.input].batched) {
        for (int l = 0; l < count_; ++l) gradients_->sink->add(slot, sample(l), overlap[l]);
      } else {
        double total = 0;
        for (int l = 0; l < count_; ++l) total += overlap[l];
        gradients_->sink->add(slot, sample(0), total);
      }
    }
  }

  // --- unfused gates -------------------------------------------------------------------------------------------------

  // The coefficients of an unfused gate whose samples have their own.
  const V* per_sample_coefficients(const GateOp& gate_op, bool inverse) {
    const Index n = coefficient_count(gate_op);
    numbers_.resize(n);
    coefficients_.resize(n);
    for (int l = 0; l < width; ++l) {
      gate_op_coefficients(call_, gate_op, sample(l), numbers_.data());
      if (inverse) invert_coefficients(gate_op, numbers_.data());
      for (Index e = 0; e < n; ++e) set_lane(coefficients_[e], l, static_cast<T>(numbers_[e]));
    }
    return coefficients_.data();
  }

  template <class C>
  void apply(V* psi, const GateOp& gate_op, const C* c) {
    const IndexMap& groups = gate_op.groups;
    const Index* offsets = gate_op.offsets.data();
    team_.for_range(groups.size(), work_of(gate_op), [&](Index begin, Index end) {
      switch (gate_op.kind) {
        case GateOpKind::dense:
          if (gate_op.size() == 2) return apply_pair_block(psi, gate_op, c, begin, end);
          if (gate_op.size() == 4) return apply_block<4>(psi, groups, offsets, c, begin, end);
          return apply_large_block(psi, groups, offsets, gate_op.size(), c, begin, end);
        case GateOpKind::diagonal: return apply_diagonal(psi, groups, gate_op.offsets, c, begin, end);
        case GateOpKind::exchange: return exchange(psi, groups, gate_op.offsets, begin, end);
        case GateOpKind::pauli_rotation:
          return rotate_pauli<false, false>(psi, psi, groups, gate_op.pauli_word, c[0], c[1], begin, end, psi);
      }
    });
  }

  template <class C>
  void apply_pair_block(V* psi, const GateOp& gate_op, const C* c, Index begin, Index end) const {
    if constexpr (width == 1) {
      if (has_vector_runs<T>(gate_op.groups))
        return apply_block_to_runs(psi, gate_op.groups, gate_op.offsets.data(), c, begin, end);
    }
    apply_block<2>(psi, gate_op.groups, gate_op.offsets.data(), c, begin, end);
  }

  template <bool W, class C>
  void undo_pair_block(const GateOp& gate_op, const C* c, Index begin, Index end, V* w) const {
    if constexpr (width == 1) {
      if (has_vector_runs<T>(gate_op.groups))
        return undo_block_from_runs<W>(psi_, lambda_, gate_op.groups, gate_op.offsets.data(), c, begin, end, w);
    }
    undo_block<2, W>(psi_, lambda_, gate_op.groups, gate_op.offsets.data(), c, begin, end, w);
  }

  void undo(int index) {
    const GateOp& gate_op = plan_.gate_ops[index];
    const bool requested = gradients_->sink->requests(gate_op);
    const Index n = overlap_count(gate_op);
    overlaps_.assign(requested ? n * width : 0, 0.0);
    const bool shared = call_.shared(gate_op);
    if (shared) {
      undo_with(gate_op, shared_.inverse[index].data(), requested);
    } else {
      undo_with(gate_op, per_sample_coefficients(gate_op, true), requested);
    }
    if (requested) collect_overlaps(gate_op, n, shared ? gradients_->overlaps[index].data() : nullptr);
  }

  template <class C>
  void undo_with(const GateOp& gate_op, const C* c, bool requested) {
    const Index groups = gate_op.groups.size();
    if constexpr (width == 1) {
      if (gate_op.kind == GateOpKind::dense && gate_op.size() >= smallest_product)
        return undo_by_products(gate_op, c, requested);
    }
    if (requested) {
      team_.template reduce<V>(groups, overlap_count(gate_op), overlaps_.data(),
                               [&](Index begin, Index end, V* w) { undo_range<true>(gate_op, c, begin, end, w); });
    } else {
      team_.for_range(groups, work_of(gate_op), [&](Index begin, Index end) {
        undo_range<false>(gate_op, c, begin, end, static_cast<V*>(nullptr));
      });
    }
  }

  // A large matrix in three passes, of which each is a product of matrices.
  void undo_by_products(const GateOp& gate_op, const T* c, bool requested) {
    apply(psi_, gate_op, c);
    if (requested)  // conj(bra_a) ket_b
      add_products(lambda_, psi_, gate_op.groups, gate_op.offsets, gate_op.size(), -1, overlaps_.data());
    apply(lambda_, gate_op, c);
  }

  template <bool W, class C>
  void undo_range(const GateOp& gate_op, const C* c, Index begin, Index end, V* w) const {
    const IndexMap& groups = gate_op.groups;
    const Index* offsets = gate_op.offsets.data();
    switch (gate_op.kind) {
      case GateOpKind::dense:
        if (gate_op.size() == 2) return undo_pair_block<W>(gate_op, c, begin, end, w);
        if (gate_op.size() == 4) return undo_block<4, W>(psi_, lambda_, groups, offsets, c, begin, end, w);
        return undo_large_block<W>(psi_, lambda_, groups, offsets, gate_op.size(), c, begin, end, w);
      case GateOpKind::diagonal: return undo_diagonal<W>(psi_, lambda_, groups, gate_op.offsets, c, begin, end, w);
      case GateOpKind::exchange:
        exchange(psi_, groups, gate_op.offsets, begin, end);
        return exchange(lambda_, groups, gate_op.offsets, begin, end);
      case GateOpKind::pauli_rotation:
        return rotate_pauli<W, true>(psi_, lambda_, groups, gate_op.pauli_word, c[0], c[1], begin, end, w);
    }
  }

  // Overlaps of an unfused gate that all samples share add up first and are contracted once, at the end of the task.
  void collect_overlaps(const GateOp& gate_op, Index n, double* shared_sum) {
    if (shared_sum != nullptr) {
      for (Index e = 0; e < n; ++e) {
        for (int l = 0; l < count_; ++l) shared_sum[e] += overlaps_[e * width + l];
      }
      return;
    }
    numbers_.resize(n);
    for (int l = 0; l < count_; ++l) {
      for (Index e = 0; e < n; ++e) numbers_[e] = overlaps_[e * width + l];
      gradients_->sink->contract(gate_op, numbers_.data(), sample(l));
    }
  }

  void initial_state_gradient() {
    const int input = program_.initial.input;
    for (Index e = 0; e < plan_.initial_offsets.size(); ++e) {
      const V* amplitude = lambda_ + 2 * plan_.initial_offsets[e];
      for (int l = 0; l < count_; ++l) {
        const Complex<double> value{2.0 * get_lane(amplitude[0], l), 2.0 * get_lane(amplitude[1], l)};
        gradients_->sink->add(input, e, sample(l), value);
      }
    }
  }

  // out[a][b] += sum over the groups of left_a conj(right_b), its imaginary part times `sign`.
  template <class Offsets>
  void add_products(const V* left, const V* right, const IndexMap& groups, const Offsets& offsets, Index size,
                    double sign, double* out) const {
    if constexpr (width == 1) {
      if (size >= smallest_product) return add_matrix_product(team_, left, right, groups, offsets, size, sign, out);
    }
    team_.template reduce<V>(groups.size(), 2 * size * size, out, [&](Index begin, Index end, V* g) {
      add_group_products(left, right, groups, offsets, size, static_cast<T>(sign), begin, end, g);
    });
  }

  // --- observables ---------------------------------------------------------------------------------------------------

  void apply_factor(V* state, const PlannedFactor& f) {
    const V* values = f.factor->input == no_input ? nullptr : input_lanes(f.factor->input);
    team_.for_range(f.groups.size(), work_of(f), [&](Index begin, Index end) {
      switch (f.factor->kind) {
        case FactorKind::hermitian:
          return apply_large_block(state, f.groups, f.offsets, f.offsets.size(), values, begin, end);
        case FactorKind::projector: return project(state, f, begin, end);
        case FactorKind::state_projector: return project_on_state(state, f, values, begin, end);
        case FactorKind::sparse: return apply_sparse(state, f, values, begin, end);
      }
    });
  }

  // out = Pauli word and factors applied to `in`; the factor `left_out` is left out.
  void write_term(V* out, const V* in, const PlannedTerm& term, const PlannedFactor* left_out = nullptr) {
    team_.for_range(dimension_, [&](Index begin, Index end) { write_pauli(out, in, term.pauli_word, begin, end); });
    for (const PlannedFactor& f : term.factors) {
      if (&f != left_out) apply_factor(out, f);
    }
  }

  // out += weight(lane) O in. Terms with factors go through the second scratch.
  template <class F>
  void add_observable(V* out, const V* in, const PlannedMeasurement& m, const F& weight) {
    const auto lanes_of = [&](const PlannedTerm& t) {
      return lanes([&](int l) { return weight(l) * coefficient(*t.term, sample(l)); });
    };
    for (const PlannedTerm& t : m.terms) {
      if (call_.should_stop()) return;
      const V c = lanes_of(t);
      if (t.factors.empty()) {
        team_.for_range(dimension_, [&](Index begin, Index end) { add_pauli(out, in, t.pauli_word, c, begin, end); });
      } else {
        V* scratch = second_scratch_.data();
        write_term(scratch, in, t);
        team_.for_range(dimension_, [&](Index begin, Index end) { add_scaled(out, scratch, c, begin, end); });
      }
    }
  }

  void real_overlap(const V* u, const V* v, double* out) const {
    team_.template reduce<V>(dimension_, 1, out,
                             [&](Index begin, Index end, V* sum) { overlap_real(u, v, begin, end, sum); });
  }

  // Calls f(term, overlap[lanes]) with Re<u|P|ket> for every term of the observable.
  template <class F>
  void for_each_term(const V* u, const V* ket, const PlannedMeasurement& m, const F& f) {
    for (const PlannedTerm& t : m.terms) {
      if (call_.should_stop()) return;
      overlaps_.assign(width, 0.0);
      if (t.factors.empty()) {
        team_.template reduce<V>(dimension_, 1, overlaps_.data(), [&](Index begin, Index end, V* sum) {
          overlap_pauli(u, ket, t.pauli_word, begin, end, sum);
        });
      } else {
        write_term(second_scratch_.data(), ket, t);
        real_overlap(u, second_scratch_.data(), overlaps_.data());
      }
      f(t, overlaps_.data());
    }
  }

  // Re<u|O|ket>, lane by lane.
  void add_expectation(const V* u, const V* ket, const PlannedMeasurement& m, double* total) {
    for_each_term(u, ket, m, [&](const PlannedTerm& t, const double* overlap) {
      for (int l = 0; l < count_; ++l) total[l] += coefficient(*t.term, sample(l)) * overlap[l];
    });
  }

  // v = O psi in the first scratch.
  V* applied_observable(const PlannedMeasurement& m) {
    V* v = first_scratch_.data();
    fill_zero(v);
    add_observable(v, psi_, m, [](int) { return 1.0; });
    return v;
  }

  // --- Pauli words of expectation values -----------------------------------------------------------------------------

  // Expectation values begin as the sums of their Pauli words.
  void measure_pauli_words(const Results<T>& results) {
    pauli_words_.overlaps(scalars(psi_), scalars(psi_), pauli_sums_);
    write_pauli_word_sums(results, [&](const PauliGroup::Member& m, Index at, int l) {
      return coefficient(*m.term, sample(l)) * pauli_sums_[at * width + l];
    });
  }

  // f(member, number, lane) is what a Pauli word gives.
  template <class F>
  void write_pauli_word_sums(const Results<T>& results, const F& f) {
    std::vector<double>& totals = overlaps_;
    totals.assign(real_stride_ * width, 0.0);
    pauli_words_.for_each_member([&](const PauliGroup::Member& m, Index at) {
      for (int l = 0; l < count_; ++l) totals[m.result * width + l] += f(m, at, l);
    });
    for (const PlannedMeasurement& m : plan_.measurements) {
      if (m.measurement->kind != MeasurementKind::expval) continue;
      for (int l = 0; l < count_; ++l) *real_row(results, m, l) = static_cast<T>(totals[m.first_result * width + l]);
    }
  }

  void add_pauli_words_bra(const Cotangents<T>& c) {
    if (pauli_words_.count() == 0) return fill_zero(lambda_);
    pauli_sums_.assign(pauli_words_.count() * width, 0.0);
    bool requested = false;
    pauli_words_.for_each_member([&](const PauliGroup::Member& m, Index at) {
      for (const Slot& s : m.term->coefficients) requested |= requests(s.input);
      for (int l = 0; l < count_; ++l)
        pauli_sums_[at * width + l] = pauli_word_cotangent(m, c, l) * coefficient(*m.term, sample(l));
    });
    pauli_words_.write_bra(scalars(psi_), scalars(lambda_), pauli_sums_, false);
    if (!requested) return;
    pauli_words_.overlaps(scalars(psi_), scalars(psi_), pauli_sums_);
    pauli_words_.for_each_member([&](const PauliGroup::Member& m, Index at) {
      for (int l = 0; l < count_; ++l)
        add_coefficient_gradients(*m.term, sample(l), pauli_word_cotangent(m, c, l) * pauli_sums_[at * width + l]);
    });
  }

  double pauli_word_cotangent(const PauliGroup::Member& m, const Cotangents<T>& c, int lane) const {
    return static_cast<double>(c.real[sample(lane) * real_stride_ + m.result]);
  }

  // --- measurements, forward -----------------------------------------------------------------------------------------

  void measure(const PlannedMeasurement& m, const Results<T>& results) {
    switch (m.measurement->kind) {
      case MeasurementKind::expval: return measure_expval(m, results);
      case MeasurementKind::var: return measure_var(m, results);
      case MeasurementKind::probs: return measure_probs(psi_, 1, m, results);
      case MeasurementKind::state: return measure_state(m, results);
      case MeasurementKind::density_matrix: return measure_density_matrix(m, results, {{psi_, psi_}});
    }
  }

  T* real_row(const Results<T>& results, const PlannedMeasurement& m, int lane) const {
    return results.real + sample(lane) * real_stride_ + m.first_result;
  }

  // On top of the Pauli words, those terms that have factors.
  void measure_expval(const PlannedMeasurement& m, const Results<T>& results) {
    if (m.terms.empty()) return;
    double mean[width] = {};
    add_expectation(psi_, psi_, m, mean);
    for (int l = 0; l < count_; ++l) *real_row(results, m, l) += static_cast<T>(mean[l]);
  }

  void measure_state(const PlannedMeasurement& m, const Results<T>& results) const {
    for (int l = 0; l < count_; ++l) {
      T* row = results.complex + 2 * (sample(l) * complex_stride_ + m.first_result);
      team_.for_range(dimension_, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) {
          const V* amplitude = psi_ + 2 * m.offsets[i];
          row[2 * i] = get_lane(amplitude[0], l);
          row[2 * i + 1] = get_lane(amplitude[1], l);
        }
      });
    }
  }

  // <O O> - <O>^2, not |O psi|^2: so the gradient of a Hermitian matrix is Hermitian, and a gradient step along it
  // stays so.
  void measure_var(const PlannedMeasurement& m, const Results<T>& results) {
    const V* v = applied_observable(m);
    double mean[width] = {};
    double square[width] = {};
    real_overlap(psi_, v, mean);
    add_expectation(psi_, v, m, square);
    for (int l = 0; l < count_; ++l) *real_row(results, m, l) = static_cast<T>(square[l] - mean[l] * mean[l]);
  }

  // factor * Re(conj(u) psi), outcome by outcome.
  void measure_probs(const V* u, T factor, const PlannedMeasurement& m, const Results<T>& results) {
    const Index size = m.offsets.size();
    const Index groups = m.groups.size();
    if (size > groups) return measure_many_probs(u, factor, m, results);
    overlaps_.assign(size * width, 0.0);
    team_.template reduce<V>(groups, size, overlaps_.data(), [&](Index begin, Index end, V* p) {
      add_probabilities(u, psi_, m.groups, m.offsets, begin, end, p);
    });
    for (int l = 0; l < count_; ++l) {
      for (Index a = 0; a < size; ++a) real_row(results, m, l)[a] = factor * static_cast<T>(overlaps_[a * width + l]);
    }
  }

  // More outcomes than amplitudes in each: outcome by outcome.
  void measure_many_probs(const V* u, T factor, const PlannedMeasurement& m, const Results<T>& results) {
    team_.for_range(m.offsets.size(), m.groups.size(), [&](Index begin, Index end) {
      for (Index a = begin; a < end; ++a) {
        V p{};
        add_probability(u, psi_, m.groups, m.offsets[a], p);
        for (int l = 0; l < count_; ++l) real_row(results, m, l)[a] = factor * get_lane(p, l);
      }
    });
  }

  struct Product {
    const V* left;
    const V* right;
  };

  // The sum of left right^dagger over the groups, of all products.
  void measure_density_matrix(const PlannedMeasurement& m, const Results<T>& results,
                              std::initializer_list<Product> products) {
    const Index entries = m.offsets.size() * m.offsets.size();
    overlaps_.assign(2 * entries * width, 0.0);
    for (const Product& p : products)
      add_products(p.left, p.right, m.groups, m.offsets, m.offsets.size(), 1, overlaps_.data());
    for (int l = 0; l < count_; ++l) {
      T* row = results.complex + 2 * (sample(l) * complex_stride_ + m.first_result);
      for (Index e = 0; e < 2 * entries; ++e) row[e] = static_cast<T>(overlaps_[e * width + l]);
    }
  }

  // --- measurements, backward: |lambda> = sum of what each cotangent asks for ----------------------------------------

  void add_bra(const PlannedMeasurement& m, const Cotangents<T>& c) {
    switch (m.measurement->kind) {
      case MeasurementKind::expval: return add_expval_bra(m, c);
      case MeasurementKind::var: return add_var_bra(m, c);
      case MeasurementKind::probs: return add_probs_bra(lambda_, psi_, m, c);
      case MeasurementKind::state: return add_state_bra(lambda_, m, c);
      case MeasurementKind::density_matrix: return add_density_matrix_bra(lambda_, psi_, m, c);
    }
  }

  double real_cotangent(const PlannedMeasurement& m, const Cotangents<T>& c, int lane) const {
    return static_cast<double>(c.real[sample(lane) * real_stride_ + m.first_result]);
  }

  // lambda = g O psi, of the terms that have factors
  void add_expval_bra(const PlannedMeasurement& m, const Cotangents<T>& c) {
    if (m.terms.empty()) return;
    const auto g = [&](int l) { return real_cotangent(m, c, l); };
    add_observable(lambda_, psi_, m, g);
    coefficient_gradients(psi_, m, g);
    factor_gradients(psi_, psi_, m, g);
  }

  // lambda = g (O^2 - 2 <O> O) psi; what O is made of sees u = 2 g (O - <O>) psi, from either side of the product O O.
  void add_var_bra(const PlannedMeasurement& m, const Cotangents<T>& c) {
    const auto g = [&](int l) { return real_cotangent(m, c, l); };
    V* v = applied_observable(m);
    double mean[width] = {};
    real_overlap(psi_, v, mean);
    add_observable(lambda_, v, m, g);
    const V back = lanes([&](int l) { return -2 * g(l) * mean[l]; });
    const V twice = lanes([&](int l) { return 2 * g(l); });
    team_.for_range(dimension_, [&](Index begin, Index end) {
      add_scaled(lambda_, v, back, begin, end);
      scale(v, twice, begin, end);
      add_scaled(v, psi_, back, begin, end);
    });
    coefficient_gradients(v, m, [](int) { return 1.0; });
    factor_gradients(v, psi_, m, [](int) { return 0.5; });
    factor_gradients(psi_, v, m, [](int) { return 0.5; });
  }

  // lambda_i = g_a psi_i
  void add_probs_bra(V* bra, const V* ket, const PlannedMeasurement& m, const Cotangents<T>& c) {
    const V* g = row_lanes(c.real, real_stride_, m.first_result, m.offsets.size());
    team_.for_range(m.groups.size(), m.offsets.size(),
                    [&](Index begin, Index end) { add_weighted(bra, ket, m.groups, m.offsets, g, begin, end); });
  }

  // lambda = c / 2
  void add_state_bra(V* bra, const PlannedMeasurement& m, const Cotangents<T>& c) {
    const V* g = row_lanes(c.complex, 2 * complex_stride_, 2 * m.first_result, 2 * dimension_);
    team_.for_range(dimension_, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        V* amplitude = bra + 2 * m.offsets[i];
        amplitude[0] += T(0.5) * g[2 * i];
        amplitude[1] += T(0.5) * g[2 * i + 1];
      }
    });
  }

  // lambda = (C + C^dagger) / 2 psi on the kept wires
  void add_density_matrix_bra(V* bra, const V* ket, const PlannedMeasurement& m, const Cotangents<T>& c) {
    const Index size = m.offsets.size();
    row_lanes(c.complex, 2 * complex_stride_, 2 * m.first_result, 2 * size * size);
    make_hermitian(values_.data(), size);
    team_.for_range(m.groups.size(), size * size, [&](Index begin, Index end) {
      add_large_block(bra, ket, m.groups, m.offsets, size, values_.data(), begin, end);
    });
  }

  // weight(lane) d Re<u|O|psi> / d coefficients
  template <class F>
  void coefficient_gradients(const V* u, const PlannedMeasurement& m, const F& weight) {
    if (!requests_coefficients(m)) return;
    for_each_term(u, psi_, m, [&](const PlannedTerm& t, const double* overlap) {
      for (int l = 0; l < count_; ++l) add_coefficient_gradients(*t.term, sample(l), weight(l) * overlap[l]);
    });
  }

  // weight(lane) d Re<u|O|ket> / d factors
  template <class F>
  void factor_gradients(const V* u, const V* ket, const PlannedMeasurement& m, const F& weight) {
    for (const PlannedTerm& t : m.terms) {
      for (const PlannedFactor& f : t.factors) {
        if (requests(f.factor->input)) factor_gradient(u, ket, t, f, weight);
      }
    }
  }

  bool requests_coefficients(const PlannedMeasurement& m) const {
    for (const PlannedTerm& t : m.terms) {
      for (const Slot& s : t.term->coefficients) {
        if (requests(s.input)) return true;
      }
    }
    return false;
  }

  // The coefficient is a product: each of its slots sees the product of the others.
  void add_coefficient_gradients(const Term& term, Index sample, double overlap) {
    for (std::size_t j = 0; j < term.coefficients.size(); ++j) {
      double others = term.scale;
      for (std::size_t i = 0; i < term.coefficients.size(); ++i) {
        if (i != j) others *= call_.value(term.coefficients[i], sample);
      }
      gradients_->sink->add(term.coefficients[j], sample, others * overlap);
    }
  }

  template <class F>
  void factor_gradient(const V* u, const V* ket, const PlannedTerm& t, const PlannedFactor& f, const F& weight) {
    V* rest = second_scratch_.data();
    write_term(rest, ket, t, &f);
    const V* phi = f.factor->kind == FactorKind::state_projector ? input_lanes(f.factor->input) : nullptr;
    add_factor_gradient(u, rest, f, phi, [&](int l) { return weight(l) * coefficient(*t.term, sample(l)); });
  }

  // weight(lane) d Re<u|F|rest> / dF; a projector's state is `phi`.
  template <class F>
  void add_factor_gradient(const V* u, const V* rest, const PlannedFactor& f, const V* phi, const F& weight) {
    const Index numel = call_.inputs[f.factor->input].numel;
    overlaps_.assign(2 * numel * width, 0.0);
    if (f.factor->kind == FactorKind::hermitian) {
      add_products(u, rest, f.groups, f.offsets, f.offsets.size(), 1, overlaps_.data());
    } else {
      team_.template reduce<V>(f.groups.size(), 2 * numel, overlaps_.data(), [&](Index begin, Index end, V* g) {
        if (f.factor->kind == FactorKind::sparse) return sparse_gradient(u, rest, f, begin, end, g);
        state_gradient(u, rest, f, phi, begin, end, g);
      });
    }
    for (int l = 0; l < count_; ++l) {
      const double c = weight(l);
      for (Index e = 0; e < numel; ++e) {
        const Complex<double> g{overlaps_[2 * e * width + l], overlaps_[(2 * e + 1) * width + l]};
        gradients_->sink->add(f.factor->input, e, sample(l), c * g);
      }
    }
  }

  const Call<T>& call_;
  const Program& program_;
  const Plan& plan_;
  const SharedGateOps<T>& shared_;
  const Team team_;
  const Index dimension_;
  const Index real_stride_;  // results of a circuit
  const Index complex_stride_;

  SampleGroup group_;
  int count_ = 0;  // lanes in use
  Stopwatch watch_;
  PassTimes times_;
  V* psi_ = nullptr;
  V* lambda_ = nullptr;
  TaskGradients<T>* gradients_ = nullptr;

  TileRunner<V> tiles_;
  std::optional<PassRunner<V>> forward_rotations_;  // made when they are needed
  std::optional<PassRunner<V>> backward_rotations_;
  PauliSums<V> pauli_words_;

  // Grown once, on first use; the engine itself allocates no state.
  HugePageBuffer<V> first_scratch_;
  HugePageBuffer<V> second_scratch_;
  LaneVector<V> values_;
  LaneVector<V> coefficients_;
  std::vector<double> numbers_;
  std::vector<double> overlaps_;
  std::vector<double> pauli_sums_;
  std::vector<double> rotation_overlaps_;
  std::vector<char> requested_rotations_;
};

}  // namespace
}  // namespace ketgrad
