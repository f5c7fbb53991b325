// The engine with tangents: ket and bra, and their derivatives along one direction of the inputs, go through the
// circuit together. Forward that gives the derivatives of results, and back those of gradients (forward over reverse):
// a Hessian-vector product in four states.
//
// A rotation U = exp(-i angle/2 P) takes (psi, dpsi) to (U psi, U dpsi + dangle/2 (-i P) U psi), and overlaps have the
// product rule: d Im<bra|P|ket> = Im<dbra|P|ket> + Im<bra|P|dket>. So states and tangents go by the kernels of the
// plain engine, the bra's tangent with the ket and the ket's with the bra, and what is added here are the generators.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "cpu/engine/circuit-inl.h"
#include "cpu/engine/tangent_passes-inl.h"
#include "math/dual.h"

namespace ketgrad {
namespace {

// --- unfused gates ---------------------------------------------------------------------------------------------------

// out += d in on the diagonals of the groups.
template <class V>
void add_diagonal(V* out, const V* in, const IndexMap& groups, const std::vector<Index>& offsets, const V* d,
                  Index begin, Index end) {
  for (Index r = begin; r < end; ++r) {
    const Index base = groups[r];
    for (std::size_t a = 0; a < offsets.size(); ++a) {
      const Index i = base ^ offsets[a];
      out[2 * i] += d[2 * a] * in[2 * i] - d[2 * a + 1] * in[2 * i + 1];
      out[2 * i + 1] += d[2 * a] * in[2 * i + 1] + d[2 * a + 1] * in[2 * i];
    }
  }
}

// Calls f(i, re, im) with (-i P in)_i for the amplitudes of the groups.
template <class V, class F>
void for_each_rotated(const V* in, const IndexMap& groups, const PauliWord& pauli_word, Index begin, Index end,
                      const F& f) {
  const RotationPhase phase(pauli_word);
  const auto at = [&](Index i) {
    const Index j = i ^ static_cast<Index>(pauli_word.x);
    V re, im;
    rotated(in + 2 * j, phase, odd_parity(static_cast<Mask>(j) & pauli_word.z), re, im);
    f(i, re, im);
  };
  for (Index r = begin; r < end; ++r) {
    at(groups[r]);
    if (pauli_word.x != 0) at(groups[r] ^ static_cast<Index>(pauli_word.x));
  }
}

// --- the engine ------------------------------------------------------------------------------------------------------

template <class V>
class TangentEngine : public CircuitEngine<V> {
  using Base = CircuitEngine<V>;
  using T = Scalar<V>;
  using Base::call_;
  using Base::count_;
  using Base::dimension_;
  using Base::gradients_;
  using Base::lambda_;
  using Base::plan_;
  using Base::program_;
  using Base::psi_;
  using Base::team_;
  static constexpr int width = lane_width<V>;

 public:
  TangentEngine(const Call<T>& call, const Plan& plan, const SharedGateOps<T>& shared, const Task& task)
      : Base(call, plan, shared, task),
        third_scratch_(call.resources().needs_scratch ? 2 * dimension_ : 0),
        fourth_scratch_(call.resources().needs_scratch ? 2 * dimension_ : 0) {}

  void run(const Task& task, const Directional<T>& directional, TaskGradients<T>& gradients) {
    const bool goes_back = directional.requests_gradients();
    const HugePageBuffer<V> ket(2 * dimension_);
    const HugePageBuffer<V> ket_tangent(2 * dimension_, 1);
    const HugePageBuffer<V> bra(goes_back ? 2 * dimension_ : 0, 2);
    const HugePageBuffer<V> bra_tangent(goes_back ? 2 * dimension_ : 0, 3);
    psi_ = ket.data();
    dpsi_ = ket_tangent.data();
    lambda_ = bra.data();
    dlambda_ = bra_tangent.data();
    gradients_ = &gradients;
    for (Index sample = task.begin; sample < task.end; sample += width) {
      this->start_group(sample, task.end);
      if (!run_circuit()) return;
      measure(directional.results);
      if (!goes_back) continue;
      add_bras(directional);
      if (!undo_circuit()) return;
      if (this->requests(program_.initial.input)) initial_state_gradient();
    }
  }

 private:
  // --- circuit -------------------------------------------------------------------------------------------------------

  TangentRunner<V>& started(std::optional<TangentRunner<V>>& rotations, bool inverse) {
    if (!rotations) rotations.emplace(call_, plan_, inverse, this->tiles_);
    rotations->start(this->group_);
    return *rotations;
  }

  const V* tangent_lanes(int input) { return this->input_lanes(call_.tangents[input]); }

  bool run_circuit() {
    this->prepare();
    this->fill_zero(dpsi_);
    if (const int input = program_.initial.input; call_.has_tangent(input))
      store_group(dpsi_, 0, plan_.initial_offsets, plan_.initial_offsets.size(), tangent_lanes(input));
    TangentRunner<V>& rotations = started(forward_rotations_, false);
    for (std::size_t p = 0; p < plan_.passes.size(); ++p) {
      if (call_.should_stop()) return false;
      const int s = plan_.passes[p].gate_op;
      if (s == Element::none) {
        rotations.forward(static_cast<int>(p), this->scalars(psi_), this->scalars(dpsi_));
      } else {
        run_gate_op(s, Way::forward, psi_, dpsi_);
      }
    }
    return true;
  }

  bool undo_circuit() {
    TangentRunner<V>& rotations = started(backward_rotations_, true);
    this->find_requested_rotations();
    this->rotation_overlaps_.assign(plan_.rotations.size() * width, 0.0);
    const bool initial_requested = this->requests(program_.initial.input);
    const typename TangentRunner<V>::States states{this->scalars(psi_), this->scalars(dpsi_), this->scalars(lambda_),
                                                   this->scalars(dlambda_)};
    for (int p = static_cast<int>(plan_.passes.size()) - 1; p >= gradients_->first_pass; --p) {
      if (call_.should_stop()) return false;
      const int s = plan_.passes[p].gate_op;
      if (s == Element::none) {
        const bool last = p == gradients_->first_pass && !initial_requested;
        rotations.backward(p, states, last, this->requested_rotations_, this->rotation_overlaps_);
      } else {
        undo_gate_op(s);
      }
    }
    this->collect_rotation_overlaps();
    return true;
  }

  // 2 lambda is the gradient of a prepared state, and the derivative of the one that of the other.
  void initial_state_gradient() {
    std::swap(lambda_, dlambda_);
    Base::initial_state_gradient();
    std::swap(lambda_, dlambda_);
  }

  // --- unfused gates -------------------------------------------------------------------------------------------------

  enum class Way : std::uint8_t { forward, ket_back, bra_back };

  // state' = V state, tangent' = V tangent + dV state, where V is the unfused gate's matrix, its inverse or its
  // adjoint.
  void run_gate_op(int index, Way way, V* state, V* tangent) {
    const GateOp& gate_op = plan_.gate_ops[index];
    apply_gate_op(index, way != Way::forward, tangent);
    if (call_.has_tangent(gate_op)) add_gate_op(gate_op, gate_op_tangent_lanes(gate_op, way), tangent, state);
    apply_gate_op(index, way != Way::forward, state);
  }

  void apply_gate_op(int index, bool inverse, V* state) {
    const GateOp& gate_op = plan_.gate_ops[index];
    const auto& numbers = inverse ? this->shared_.inverse : this->shared_.forward;
    if (call_.shared(gate_op)) return this->apply(state, gate_op, numbers[index].data());
    this->apply(state, gate_op, this->per_sample_coefficients(gate_op, inverse));
  }

  // The ket is undone by the inverse of a matrix, the bra by its adjoint. For a unitary they are the same, but not
  // their derivatives along a direction that leaves the unitary ones.
  const V* gate_op_tangent_lanes(const GateOp& gate_op, Way way) {
    const Index n = coefficient_count(gate_op);
    std::vector<double> coefficients(n);
    std::vector<double> tangents(n);
    tangents_.resize(n);
    for (int l = 0; l < width; ++l) {
      gate_op_tangents(call_, gate_op, this->sample(l), tangents.data());
      if (way == Way::ket_back) {
        gate_op_coefficients(call_, gate_op, this->sample(l), coefficients.data());
        invert_tangents(gate_op, coefficients.data(), tangents.data());
      } else if (way == Way::bra_back) {
        invert_coefficients(gate_op, tangents.data());
      }
      for (Index e = 0; e < n; ++e) set_lane(tangents_[e], l, static_cast<T>(tangents[e]));
    }
    return tangents_.data();
  }

  // out += (the unfused gate with other coefficients) in
  void add_gate_op(const GateOp& gate_op, const V* c, V* out, const V* in) const {
    team_.for_range(gate_op.groups.size(), work_of(gate_op), [&](Index begin, Index end) {
      switch (gate_op.kind) {
        case GateOpKind::exchange: return;
        case GateOpKind::dense:
          return add_large_block(out, in, gate_op.groups, gate_op.offsets, gate_op.size(), c, begin, end);
        case GateOpKind::diagonal: return add_diagonal(out, in, gate_op.groups, gate_op.offsets, c, begin, end);
        case GateOpKind::pauli_rotation:
          return for_each_rotated(in, gate_op.groups, gate_op.pauli_word, begin, end,
                                  [&](Index i, const V& re, const V& im) {
                                    out[2 * i] += c[0] * in[2 * i] + c[1] * re;
                                    out[2 * i + 1] += c[0] * in[2 * i + 1] + c[1] * im;
                                  });
      }
    });
  }

  // Adds the overlaps of an unfused gate, as GradientSink::contract takes them.
  void add_overlaps(const GateOp& gate_op, const V* bra, const V* ket, std::vector<double>& overlaps) const {
    if (gate_op.kind == GateOpKind::dense)  // conj(bra_a) ket_b
      return this->add_products(bra, ket, gate_op.groups, gate_op.offsets, gate_op.size(), -1, overlaps.data());
    team_.template reduce<V>(
        gate_op.groups.size(), overlap_count(gate_op), overlaps.data(), [&](Index begin, Index end, V* w) {
          if (gate_op.kind == GateOpKind::pauli_rotation) {
            return for_each_rotated(
                ket, gate_op.groups, gate_op.pauli_word, begin, end,
                [&](Index i, const V& re, const V& im) { w[0] += bra[2 * i] * re + bra[2 * i + 1] * im; });
          }
          add_diagonal_overlaps(gate_op, bra, ket, begin, end, w);
        });
  }

  static void add_diagonal_overlaps(const GateOp& gate_op, const V* bra, const V* ket, Index begin, Index end, V* w) {
    const Index size = gate_op.size();
    for (Index r = begin; r < end; ++r) {
      for (Index a = 0; a < size; ++a) {
        const Index i = 2 * (gate_op.groups[r] ^ gate_op.offsets[a]);
        add_outer(bra + i, ket + i, 1, T(-1), w + 2 * a);
      }
    }
  }

  // A block's overlaps are of the bra behind it and the ket before it, a rotation's of both at the same place.
  void undo_gate_op(int index) {
    const GateOp& gate_op = plan_.gate_ops[index];
    const bool requested = gradients_->sink->requests(gate_op);
    const Index n = requested ? overlap_count(gate_op) : 0;
    std::vector<double> overlaps(n * width, 0.0);
    std::vector<double> tangents(n * width, 0.0);
    const auto take_overlaps = [&] {
      if (!requested) return;
      add_overlaps(gate_op, lambda_, psi_, overlaps);
      add_overlaps(gate_op, dlambda_, psi_, tangents);
      add_overlaps(gate_op, lambda_, dpsi_, tangents);
    };
    const bool is_rotation = gate_op.kind == GateOpKind::pauli_rotation;
    if (is_rotation) take_overlaps();
    run_gate_op(index, Way::ket_back, psi_, dpsi_);
    if (!is_rotation) take_overlaps();
    run_gate_op(index, Way::bra_back, lambda_, dlambda_);
    if (!requested) return;
    std::vector<double> of_lane(n);
    std::vector<double> tangent_of_lane(n);
    for (int l = 0; l < count_; ++l) {
      for (Index e = 0; e < n; ++e) {
        of_lane[e] = overlaps[e * width + l];
        tangent_of_lane[e] = tangents[e * width + l];
      }
      gradients_->sink->contract_tangent(gate_op, of_lane.data(), tangent_of_lane.data(), this->sample(l));
    }
  }

  // --- observables ---------------------------------------------------------------------------------------------------

  // A term's coefficient, without one of its slots, and the derivative.
  Dual coefficient(const Term& term, Index sample, std::size_t left_out) const {
    Dual c = term.scale;
    for (std::size_t j = 0; j < term.coefficients.size(); ++j) {
      const Slot& s = term.coefficients[j];
      if (j != left_out) c = c * Dual(call_.value(s, sample), call_.tangent(s, sample));
    }
    return c;
  }

  Dual coefficient(const Term& term, Index sample) const { return coefficient(term, sample, term.coefficients.size()); }

  static bool has_tangent(const Call<T>& call, const Term& term) {
    for (const Slot& s : term.coefficients) {
      if (call.has_tangent(s.input)) return true;
    }
    return false;
  }

  // state = dF state. Of a matrix that is Hermitian, the Hermitian part of a direction is what results depend on.
  void apply_factor_tangent(V* state, const PlannedFactor& f) {
    const Index size = f.offsets.size();
    const V* d_values = tangent_lanes(f.factor->input);
    switch (f.factor->kind) {
      case FactorKind::projector: return;
      case FactorKind::hermitian:
        make_hermitian(this->values_.data(), size);
        return team_.for_range(f.groups.size(), work_of(f), [&](Index begin, Index end) {
          apply_large_block(state, f.groups, f.offsets, size, this->values_.data(), begin, end);
        });
      case FactorKind::sparse:
        return team_.for_range(f.groups.size(), work_of(f),
                               [&](Index begin, Index end) { apply_sparse_hermitian(state, f, d_values, begin, end); });
      case FactorKind::state_projector: {
        const LaneVector<V> dphi(d_values, d_values + 2 * size);  // the lanes of phi take its place
        const V* phi = this->input_lanes(f.factor->input);
        return team_.for_range(f.groups.size(), work_of(f), [&](Index begin, Index end) {
          project_on_tangent(state, f, phi, dphi.data(), begin, end);
        });
      }
    }
  }

  // Calls f(W in) for each way to take one of a term's factors, other than `left_out`, by its derivative.
  template <class F>
  void for_each_term_tangent(const V* in, const PlannedTerm& term, const PlannedFactor* left_out, const F& f) {
    for (const PlannedFactor& varied : term.factors) {
      if (&varied == left_out || !call_.has_tangent(varied.factor->input)) continue;
      V* out = fourth_scratch_.data();
      team_.for_range(dimension_, [&](Index begin, Index end) { write_pauli(out, in, term.pauli_word, begin, end); });
      for (const PlannedFactor& factor : term.factors) {
        if (&factor == &varied) {
          apply_factor_tangent(out, factor);
        } else if (&factor != left_out) {
          this->apply_factor(out, factor);
        }
      }
      f(static_cast<const V*>(out));
    }
  }

  // out += weight(lane) dO in
  template <class F>
  void add_observable_tangent(V* out, const V* in, const PlannedMeasurement& m, const F& weight) {
    for (const PlannedTerm& t : m.terms) {
      if (call_.should_stop()) return;
      if (has_tangent(call_, *t.term)) {
        const V c = this->lanes([&](int l) { return weight(l) * coefficient(*t.term, this->sample(l)).tangent; });
        V* scratch = this->second_scratch_.data();
        this->write_term(scratch, in, t);
        team_.for_range(dimension_, [&](Index begin, Index end) { add_scaled(out, scratch, c, begin, end); });
      }
      const V c = this->lanes([&](int l) { return weight(l) * coefficient(*t.term, this->sample(l)).value; });
      for_each_term_tangent(in, t, nullptr, [&](const V* w) {
        team_.for_range(dimension_, [&](Index begin, Index end) { add_scaled(out, w, c, begin, end); });
      });
    }
  }

  static double one(int) { return 1; }

  // v = O psi in the first scratch, dv = O dpsi + dO psi in the third.
  void apply_observable(const PlannedMeasurement& m) {
    this->applied_observable(m);
    V* dv = third_scratch_.data();
    this->fill_zero(dv);
    this->add_observable(dv, dpsi_, m, one);
    add_observable_tangent(dv, psi_, m, one);
  }

  // --- derivatives of results ----------------------------------------------------------------------------------------

  void measure(const Results<T>& results) {
    measure_pauli_words(results);
    for (const PlannedMeasurement& m : plan_.measurements) {
      switch (m.measurement->kind) {
        case MeasurementKind::expval: measure_expval(m, results); break;
        case MeasurementKind::var: measure_var(m, results); break;
        case MeasurementKind::probs: this->measure_probs(dpsi_, 2, m, results); break;
        case MeasurementKind::state: measure_state(m, results); break;
        case MeasurementKind::density_matrix: this->measure_density_matrix(m, results, {{psi_, dpsi_}, {dpsi_, psi_}});
      }
    }
  }

  // Of each Pauli word 2 Re<psi|P|dpsi>, and <psi|P|psi> where a coefficient has a tangent or is requested; else zeros.
  void find_pauli_word_overlaps() {
    this->pauli_words_.overlaps(this->scalars(psi_), this->scalars(dpsi_), pauli_word_tangents_);
    for (double& overlap : pauli_word_tangents_) overlap *= 2;
    bool needed = false;
    this->pauli_words_.for_each_member([&](const PauliGroup::Member& m, Index) {
      for (const Slot& s : m.term->coefficients) needed |= call_.has_tangent(s.input) || this->requests(s.input);
    });
    if (needed) return this->pauli_words_.overlaps(this->scalars(psi_), this->scalars(psi_), this->pauli_sums_);
    this->pauli_sums_.assign(pauli_word_tangents_.size(), 0.0);
  }

  void measure_pauli_words(const Results<T>& results) {
    find_pauli_word_overlaps();
    this->write_pauli_word_sums(results, [&](const PauliGroup::Member& m, Index at, int l) {
      const Dual overlap(this->pauli_sums_[at * width + l], pauli_word_tangents_[at * width + l]);
      return (coefficient(*m.term, this->sample(l)) * overlap).tangent;
    });
  }

  // d<O> = 2 Re<O psi|dpsi> + Re<psi|dO|psi> = Re<O psi|dpsi> + Re<psi|dv>
  void measure_expval(const PlannedMeasurement& m, const Results<T>& results) {
    if (m.terms.empty()) return;
    apply_observable(m);
    double d_value[width] = {};
    this->real_overlap(this->first_scratch_.data(), dpsi_, d_value);
    this->real_overlap(psi_, third_scratch_.data(), d_value);
    for (int l = 0; l < count_; ++l) *this->real_row(results, m, l) += static_cast<T>(d_value[l]);
  }

  // <O> and its derivative, of v and dv in the scratches.
  void find_mean(double* mean, double* d_value) {
    this->real_overlap(psi_, this->first_scratch_.data(), mean);
    this->real_overlap(dpsi_, this->first_scratch_.data(), d_value);
    this->real_overlap(psi_, third_scratch_.data(), d_value);
  }

  // d(<O O> - <O>^2) = 2 Re<v|dv> - 2 <O> d<O>
  void measure_var(const PlannedMeasurement& m, const Results<T>& results) {
    apply_observable(m);
    double mean[width] = {};
    double d_value[width] = {};
    double square[width] = {};
    find_mean(mean, d_value);
    this->real_overlap(this->first_scratch_.data(), third_scratch_.data(), square);
    for (int l = 0; l < count_; ++l)
      *this->real_row(results, m, l) = static_cast<T>(2 * square[l] - 2 * mean[l] * d_value[l]);
  }

  void measure_state(const PlannedMeasurement& m, const Results<T>& results) {
    V* const ket = std::exchange(psi_, dpsi_);
    Base::measure_state(m, results);
    psi_ = ket;
  }

  // --- bras: lambda, and its derivative ------------------------------------------------------------------------------

  void add_bras(const Directional<T>& directional) {
    const Cotangents<T>& c = directional.cotangents;
    const Cotangents<T> dc = directional.cotangents_tangent();
    add_pauli_words_bras(c, dc);
    for (const PlannedMeasurement& m : plan_.measurements) {
      switch (m.measurement->kind) {
        case MeasurementKind::expval: add_expval_bras(m, c, dc); break;
        case MeasurementKind::var: add_var_bras(m, c, dc); break;
        case MeasurementKind::probs:
          this->add_probs_bra(lambda_, psi_, m, c);
          this->add_probs_bra(dlambda_, dpsi_, m, c);
          if (dc.real != nullptr) this->add_probs_bra(dlambda_, psi_, m, dc);
          break;
        case MeasurementKind::state:
          this->add_state_bra(lambda_, m, c);
          if (dc.complex != nullptr) this->add_state_bra(dlambda_, m, dc);
          break;
        case MeasurementKind::density_matrix:
          this->add_density_matrix_bra(lambda_, psi_, m, c);
          this->add_density_matrix_bra(dlambda_, dpsi_, m, c);
          if (dc.complex != nullptr) this->add_density_matrix_bra(dlambda_, psi_, m, dc);
          break;
      }
    }
  }

  Dual cotangent(const Cotangents<T>& c, const Cotangents<T>& dc, Index result, int lane) const {
    const Index at = this->sample(lane) * this->real_stride_ + result;
    return {static_cast<double>(c.real[at]), dc.real == nullptr ? 0 : static_cast<double>(dc.real[at])};
  }

  void add_pauli_words_bras(const Cotangents<T>& c, const Cotangents<T>& dc) {
    if (this->pauli_words_.count() == 0) {
      this->fill_zero(lambda_);
      return this->fill_zero(dlambda_);
    }
    std::vector<double> weights(this->pauli_words_.count() * width, 0.0);
    std::vector<double> d_values(weights.size(), 0.0);
    bool some_tangent = dc.real != nullptr;
    bool requested = false;
    this->pauli_words_.for_each_member([&](const PauliGroup::Member& m, Index at) {
      some_tangent |= has_tangent(call_, *m.term);
      for (const Slot& s : m.term->coefficients) requested |= this->requests(s.input);
      for (int l = 0; l < count_; ++l) {
        const Dual weight = cotangent(c, dc, m.result, l) * coefficient(*m.term, this->sample(l));
        weights[at * width + l] = weight.value;
        d_values[at * width + l] = weight.tangent;
      }
    });
    this->pauli_words_.write_bra(this->scalars(psi_), this->scalars(lambda_), weights, false);
    this->pauli_words_.write_bra(this->scalars(dpsi_), this->scalars(dlambda_), weights, false);
    if (some_tangent) this->pauli_words_.write_bra(this->scalars(psi_), this->scalars(dlambda_), d_values, true);
    if (!requested) return;
    this->pauli_words_.for_each_member([&](const PauliGroup::Member& m, Index at) {
      for (int l = 0; l < count_; ++l) {
        const Dual overlap(this->pauli_sums_[at * width + l], pauli_word_tangents_[at * width + l]);
        add_coefficient_tangents(*m.term, this->sample(l), cotangent(c, dc, m.result, l) * overlap);
      }
    });
  }

  // Each slot sees the product of the others.
  void add_coefficient_tangents(const Term& term, Index sample, Dual overlap) {
    for (std::size_t j = 0; j < term.coefficients.size(); ++j)
      gradients_->sink->add(term.coefficients[j], sample, (coefficient(term, sample, j) * overlap).tangent);
  }

  // lambda = g O psi; dlambda = g (O dpsi + dO psi) + dg O psi
  void add_expval_bras(const PlannedMeasurement& m, const Cotangents<T>& c, const Cotangents<T>& dc) {
    if (m.terms.empty()) return;
    const auto g = [&](int l) { return cotangent(c, dc, m.first_result, l); };
    this->add_observable(lambda_, psi_, m, [&](int l) { return g(l).value; });
    this->add_observable(dlambda_, dpsi_, m, [&](int l) { return g(l).value; });
    this->add_observable(dlambda_, psi_, m, [&](int l) { return g(l).tangent; });
    add_observable_tangent(dlambda_, psi_, m, [&](int l) { return g(l).value; });
    const StateAndTangent ket{psi_, dpsi_};
    coefficient_tangents(ket, ket, m, g);
    factor_tangents(ket, ket, m, g);
  }

  // lambda = g (O v - 2 <O> v) with v = O psi; what O is made of sees u = 2 g (v - <O> psi), from either side of O O.
  void add_var_bras(const PlannedMeasurement& m, const Cotangents<T>& c, const Cotangents<T>& dc) {
    apply_observable(m);
    V* v = this->first_scratch_.data();
    V* dv = third_scratch_.data();
    double mean[width] = {};
    double d_value[width] = {};
    find_mean(mean, d_value);
    const auto g = [&](int l) { return cotangent(c, dc, m.first_result, l); };
    const auto back = [&](int l) { return -2.0 * g(l) * Dual(mean[l], d_value[l]); };
    this->add_observable(lambda_, v, m, [&](int l) { return g(l).value; });
    this->add_observable(dlambda_, dv, m, [&](int l) { return g(l).value; });
    this->add_observable(dlambda_, v, m, [&](int l) { return g(l).tangent; });
    add_observable_tangent(dlambda_, v, m, [&](int l) { return g(l).value; });
    const V back_value = this->lanes([&](int l) { return back(l).value; });
    const V d_back = this->lanes([&](int l) { return back(l).tangent; });
    const V twice = this->lanes([&](int l) { return 2 * g(l).value; });
    const V d_twice = this->lanes([&](int l) { return 2 * g(l).tangent; });
    team_.for_range(dimension_, [&](Index begin, Index end) {
      add_scaled(lambda_, v, back_value, begin, end);
      add_scaled(dlambda_, dv, back_value, begin, end);
      add_scaled(dlambda_, v, d_back, begin, end);
      scale(dv, twice, begin, end);
      add_scaled(dv, v, d_twice, begin, end);
      add_scaled(dv, dpsi_, back_value, begin, end);
      add_scaled(dv, psi_, d_back, begin, end);
      scale(v, twice, begin, end);
      add_scaled(v, psi_, back_value, begin, end);
    });
    const StateAndTangent u{v, dv};
    const StateAndTangent ket{psi_, dpsi_};
    coefficient_tangents(u, ket, m, [](int) { return Dual(1); });
    factor_tangents(u, ket, m, [](int) { return Dual(0.5); });
    factor_tangents(ket, u, m, [](int) { return Dual(0.5); });
  }

  struct StateAndTangent {
    const V* state;
    const V* tangent;
  };

  // Derivatives of what coefficient_gradients adds, and factor_gradients.
  template <class F>
  void coefficient_tangents(const StateAndTangent& u, const StateAndTangent& ket, const PlannedMeasurement& m,
                            const F& weight) {
    if (!this->requests_coefficients(m)) return;
    for (const PlannedTerm& t : m.terms) add_term_tangents(u, ket, t, weight);
  }

  template <class F>
  void factor_tangents(const StateAndTangent& u, const StateAndTangent& ket, const PlannedMeasurement& m,
                       const F& weight) {
    for (const PlannedTerm& t : m.terms) {
      const auto of_term = [&](int l) { return weight(l) * coefficient(*t.term, this->sample(l)); };
      for (const PlannedFactor& f : t.factors) {
        if (this->requests(f.factor->input)) add_factor_tangents(u, ket, t, f, of_term);
      }
    }
  }

  template <class F>
  void add_term_tangents(const StateAndTangent& u, const StateAndTangent& ket, const PlannedTerm& t, const F& weight) {
    double value[width] = {};
    double d_value[width] = {};
    V* w = this->second_scratch_.data();
    this->write_term(w, ket.state, t);
    this->real_overlap(u.state, w, value);
    this->real_overlap(u.tangent, w, d_value);
    this->write_term(w, ket.tangent, t);
    this->real_overlap(u.state, w, d_value);
    for_each_term_tangent(ket.state, t, nullptr,
                          [&](const V* varied_state) { this->real_overlap(u.state, varied_state, d_value); });
    for (int l = 0; l < count_; ++l)
      add_coefficient_tangents(*t.term, this->sample(l), weight(l) * Dual(value[l], d_value[l]));
  }

  // The gradient is linear in u, in everything else of the term applied to the ket, and in a projector's state.
  template <class F>
  void add_factor_tangents(const StateAndTangent& u, const StateAndTangent& ket, const PlannedTerm& t,
                           const PlannedFactor& f, const F& weight) {
    const auto value = [&](int l) { return weight(l).value; };
    const bool has_phi = f.factor->kind == FactorKind::state_projector;
    const auto phi = [&] { return has_phi ? this->input_lanes(f.factor->input) : nullptr; };
    V* rest = this->second_scratch_.data();
    this->write_term(rest, ket.state, t, &f);
    this->add_factor_gradient(u.state, rest, f, phi(), [&](int l) { return weight(l).tangent; });
    this->add_factor_gradient(u.tangent, rest, f, phi(), value);
    if (has_phi && call_.has_tangent(f.factor->input))
      this->add_factor_gradient(u.state, rest, f, tangent_lanes(f.factor->input), value);
    this->write_term(rest, ket.tangent, t, &f);
    this->add_factor_gradient(u.state, rest, f, phi(), value);
    for_each_term_tangent(ket.state, t, &f, [&](const V* varied_state) {
      this->add_factor_gradient(u.state, varied_state, f, phi(), value);
    });
  }

  V* dpsi_ = nullptr;
  V* dlambda_ = nullptr;
  std::optional<TangentRunner<V>> forward_rotations_;
  std::optional<TangentRunner<V>> backward_rotations_;
  LaneVector<V> tangents_;
  std::vector<double> pauli_word_tangents_;
  HugePageBuffer<V> third_scratch_;
  HugePageBuffer<V> fourth_scratch_;
};

}  // namespace
}  // namespace ketgrad
