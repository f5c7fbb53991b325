// Measurements on the states of a group of samples: results, going forward, and what each cotangent adds to the bra,
// going back: |lambda> = dL/d<psi|. The kind of number N is that of lanes; of dual numbers the same rules give the
// derivatives of results, and of the bra and the gradients.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "cpu/engine/observables-inl.h"
#include "cpu/engine/pauli_sums-inl.h"

namespace ketgrad {
namespace {

template <class N>
class Measurements {
  using V = Plain<N>;
  using T = Scalar<N>;
  using State = StateOf<N>;
  using Sum = Total<N>;
  static constexpr int width = lane_width<N>;

 public:
  // `group` and `tiles` are looked at in each call.
  Measurements(const Call<T>& call, const Plan& plan, const Team& team, TileRunner<V>& tiles, const SampleGroup& group)
      : plan_(plan),
        team_(team),
        dimension_(call.dimension()),
        real_stride_(call.program().real_results()),
        complex_stride_(call.program().complex_results()),
        inputs_(call, group),
        observables_(call, team, inputs_),
        pauli_sums_(plan, tiles) {}

  // Of dual numbers, derivatives of results. `sink` may be null; it says which sums going back will ask for.
  void measure(State ket, const Results<T>& results, const GradientSink<T>* sink) {
    measure_pauli_words(ket, results, sink);
    for (const PlannedMeasurement& m : plan_.measurements) measure(ket, m, results);
  }

  // Writes the bra, and adds the gradients of what observables are made of to the sink. Of dual numbers `measure` has
  // been called for these states.
  void write_bra(State bra, State ket, const ResultCotangents<T>& c, GradientSink<T>& sink) {
    write_pauli_words_bra(bra, ket, c, sink);
    for (const PlannedMeasurement& m : plan_.measurements) add_bra(bra, ket, m, c, sink);
  }

 private:
  // --- results -------------------------------------------------------------------------------------------------------

  void measure(State ket, const PlannedMeasurement& m, const Results<T>& results) {
    switch (m.measurement->kind) {
      case MeasurementKind::expval: return measure_expval(ket, m, results);
      case MeasurementKind::var: return measure_var(ket, m, results);
      case MeasurementKind::probs: return measure_probs(ket, m, results);
      case MeasurementKind::state: return measure_state(ket, m, results);
      case MeasurementKind::density_matrix: return measure_density_matrix(ket, m, results);
    }
  }

  T* real_row(const Results<T>& results, const PlannedMeasurement& m, int lane) const {
    return results.real + inputs_.sample(lane) * real_stride_ + m.first_result;
  }

  T* complex_row(const Results<T>& results, const PlannedMeasurement& m, int lane) const {
    return results.complex + 2 * (inputs_.sample(lane) * complex_stride_ + m.first_result);
  }

  template <class X>
  static T returned(const X& number) {
    return static_cast<T>(output_part(number));
  }

  // On top of the Pauli words, those terms that have factors.
  void measure_expval(State ket, const PlannedMeasurement& m, const Results<T>& results) {
    if (m.terms.empty()) return;
    Sum mean[width] = {};
    observables_.add_expectation(ket, ket, m, mean);
    for (int l = 0; l < inputs_.count(); ++l) *real_row(results, m, l) += returned(mean[l]);
  }

  // <O O> - <O>^2, not |O psi|^2: so the gradient of a Hermitian matrix is Hermitian, and a gradient step along it
  // stays so.
  void measure_var(State ket, const PlannedMeasurement& m, const Results<T>& results) {
    const State v = observables_.applied(ket, m);
    Sum mean[width] = {};
    Sum square[width] = {};
    observables_.real_overlap(ket, v, mean);
    observables_.add_expectation(ket, v, m, square);
    for (int l = 0; l < inputs_.count(); ++l) *real_row(results, m, l) = returned(square[l] - mean[l] * mean[l]);
  }

  void measure_probs(State ket, const PlannedMeasurement& m, const Results<T>& results) {
    const Index size = m.offsets.size();
    const Index groups = m.groups.size();
    if (size > groups) return measure_many_probs(ket, m, results);
    sums_.assign(size * width, Sum(0));
    team_.template reduce<N>(groups, size, sums_.data(), [&](Index begin, Index end, N* p) {
      add_probabilities(ket, ket, m.groups, m.offsets, begin, end, p);
    });
    for (int l = 0; l < inputs_.count(); ++l) {
      for (Index a = 0; a < size; ++a) real_row(results, m, l)[a] = returned(sums_[a * width + l]);
    }
  }

  // More outcomes than amplitudes in each: outcome by outcome.
  void measure_many_probs(State ket, const PlannedMeasurement& m, const Results<T>& results) {
    team_.for_range(m.offsets.size(), m.groups.size(), [&](Index begin, Index end) {
      for (Index a = begin; a < end; ++a) {
        N p{};
        add_probability(ket, ket, m.groups, m.offsets[a], p);
        for (int l = 0; l < inputs_.count(); ++l) real_row(results, m, l)[a] = returned(get_lane(p, l));
      }
    });
  }

  void measure_state(State ket, const PlannedMeasurement& m, const Results<T>& results) const {
    for (int l = 0; l < inputs_.count(); ++l) {
      T* row = complex_row(results, m, l);
      team_.for_range(dimension_, [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) {
          const State amplitude = ket + 2 * m.offsets[i];
          row[2 * i] = returned(get_lane(N(amplitude[0]), l));
          row[2 * i + 1] = returned(get_lane(N(amplitude[1]), l));
        }
      });
    }
  }

  // The sum of psi psi^dagger over the groups.
  void measure_density_matrix(State ket, const PlannedMeasurement& m, const Results<T>& results) {
    const Index entries = m.offsets.size() * m.offsets.size();
    sums_.assign(2 * entries * width, Sum(0));
    add_products(team_, ket, ket, m.groups, m.offsets, m.offsets.size(), 1, sums_.data());
    for (int l = 0; l < inputs_.count(); ++l) {
      T* row = complex_row(results, m, l);
      for (Index e = 0; e < 2 * entries; ++e) row[e] = returned(sums_[e * width + l]);
    }
  }

  // --- the bra -------------------------------------------------------------------------------------------------------

  void add_bra(State bra, State ket, const PlannedMeasurement& m, const ResultCotangents<T>& c, GradientSink<T>& sink) {
    switch (m.measurement->kind) {
      case MeasurementKind::expval: return add_expval_bra(bra, ket, m, c, sink);
      case MeasurementKind::var: return add_var_bra(bra, ket, m, c, sink);
      case MeasurementKind::probs: return add_probs_bra(bra, ket, m, c);
      case MeasurementKind::state: return add_state_bra(bra, m, c);
      case MeasurementKind::density_matrix: return add_density_matrix_bra(bra, ket, m, c);
    }
  }

  Sum cotangent(const ResultCotangents<T>& c, Index result, int lane) const {
    const Index at = inputs_.sample(lane) * real_stride_ + result;
    const auto value = static_cast<double>(c.real[at]);
    if constexpr (is_dual<N>) {
      return {value, c.real_tangent == nullptr ? 0 : static_cast<double>(c.real_tangent[at])};
    } else {
      return value;
    }
  }

  // lambda = g O psi, of the terms that have factors
  void add_expval_bra(State bra, State ket, const PlannedMeasurement& m, const ResultCotangents<T>& c,
                      GradientSink<T>& sink) {
    if (m.terms.empty()) return;
    const auto g = [&](int l) { return cotangent(c, m.first_result, l); };
    observables_.add(bra, ket, m, g);
    observables_.coefficient_gradients(ket, ket, m, sink, g);
    observables_.factor_gradients(ket, ket, m, sink, g);
  }

  // lambda = g (O^2 - 2 <O> O) psi; what O is made of sees u = 2 g (O - <O>) psi, from either side of the product O O.
  void add_var_bra(State bra, State ket, const PlannedMeasurement& m, const ResultCotangents<T>& c,
                   GradientSink<T>& sink) {
    const auto g = [&](int l) { return cotangent(c, m.first_result, l); };
    const State v = observables_.applied(ket, m);
    Sum mean[width] = {};
    observables_.real_overlap(ket, v, mean);
    observables_.add(bra, v, m, g);
    const N back = inputs_.lanes([&](int l) { return -2.0 * g(l) * mean[l]; });
    const N twice = inputs_.lanes([&](int l) { return 2.0 * g(l); });
    team_.for_range(dimension_, [&](Index begin, Index end) {
      add_scaled(bra, v, back, begin, end);
      scale(v, twice, begin, end);
      add_scaled(v, ket, back, begin, end);
    });
    observables_.coefficient_gradients(v, ket, m, sink, [](int) { return Sum(1); });
    observables_.factor_gradients(v, ket, m, sink, [](int) { return Sum(0.5); });
    observables_.factor_gradients(ket, v, m, sink, [](int) { return Sum(0.5); });
  }

  // lambda_i = g_a psi_i
  void add_probs_bra(State bra, State ket, const PlannedMeasurement& m, const ResultCotangents<T>& c) {
    const N* g = inputs_.row(c.real, c.real_tangent, real_stride_, m.first_result, m.offsets.size());
    team_.for_range(m.groups.size(), m.offsets.size(),
                    [&](Index begin, Index end) { add_weighted(bra, ket, m.groups, m.offsets, g, begin, end); });
  }

  // lambda = c / 2
  void add_state_bra(State bra, const PlannedMeasurement& m, const ResultCotangents<T>& c) {
    const N* g = complex_cotangent(m, c, dimension_);
    team_.for_range(dimension_, [&](Index begin, Index end) {
      for (Index i = begin; i < end; ++i) {
        const State amplitude = bra + 2 * m.offsets[i];
        amplitude[0] += T(0.5) * g[2 * i];
        amplitude[1] += T(0.5) * g[2 * i + 1];
      }
    });
  }

  // lambda = (C + C^dagger) / 2 psi on the kept wires
  void add_density_matrix_bra(State bra, State ket, const PlannedMeasurement& m, const ResultCotangents<T>& c) {
    const Index size = m.offsets.size();
    N* g = complex_cotangent(m, c, size * size);
    make_hermitian(g, size);
    team_.for_range(m.groups.size(), size * size, [&](Index begin, Index end) {
      add_large_block(bra, ket, m.groups, m.offsets, size, g, begin, end);
    });
  }

  N* complex_cotangent(const PlannedMeasurement& m, const ResultCotangents<T>& c, Index numel) {
    return inputs_.row(c.complex, c.complex_tangent, 2 * complex_stride_, 2 * m.first_result, 2 * numel);
  }

  // --- Pauli words of expectation values -----------------------------------------------------------------------------
  //
  // They are summed up tile by tile, from values and tangents apart: of real and linear <P>, d<P> = 2 Re<psi|P|dpsi>.

  using Member = PauliGroup::Member;

  // <P> of each Pauli word; of dual numbers the value only if `with_values`, else zero.
  void find_pauli_sums(State ket, bool with_values) {
    if constexpr (is_dual<N>) {
      pauli_sums_.overlaps(scalars(ket.value), scalars(ket.tangent), found_);
      expectations_.resize(found_.size());
      for (std::size_t i = 0; i < found_.size(); ++i) expectations_[i] = {0, 2 * found_[i]};
      if (!with_values) return;
      pauli_sums_.overlaps(scalars(ket.value), scalars(ket.value), found_);
      for (std::size_t i = 0; i < found_.size(); ++i) expectations_[i].value = found_[i];
    } else {
      static_cast<void>(with_values);
      pauli_sums_.overlaps(scalars(ket), scalars(ket), expectations_);
    }
  }

  // Expectation values begin as the sums of their Pauli words.
  void measure_pauli_words(State ket, const Results<T>& results, const GradientSink<T>* sink) {
    find_pauli_sums(ket, any_coefficient([&](const Term& term) {
                      return inputs_.has_tangent(term) || (sink != nullptr && requests(*sink, term));
                    }));
    sums_.assign(real_stride_ * width, Sum(0));
    pauli_sums_.for_each_member([&](const Member& m, Index at) {
      for (int l = 0; l < inputs_.count(); ++l)
        sums_[m.result * width + l] += inputs_.coefficient(*m.term, l) * expectations_[at * width + l];
    });
    for (const PlannedMeasurement& m : plan_.measurements) {
      if (m.measurement->kind != MeasurementKind::expval) continue;
      for (int l = 0; l < inputs_.count(); ++l) *real_row(results, m, l) = returned(sums_[m.first_result * width + l]);
    }
  }

  void write_pauli_words_bra(State bra, State ket, const ResultCotangents<T>& c, GradientSink<T>& sink) {
    if (pauli_sums_.count() == 0) return fill_zero<N>(team_, bra, dimension_);
    weights_.assign(pauli_sums_.count() * width, Sum(0));
    pauli_sums_.for_each_member([&](const Member& m, Index at) {
      for (int l = 0; l < inputs_.count(); ++l)
        weights_[at * width + l] = cotangent(c, m.result, l) * inputs_.coefficient(*m.term, l);
    });
    write_weighted_pauli_words(bra, ket, c);
    if (!any_coefficient([&](const Term& term) { return requests(sink, term); })) return;
    if constexpr (!is_dual<N>) find_pauli_sums(ket, true);
    pauli_sums_.for_each_member([&](const Member& m, Index at) {
      for (int l = 0; l < inputs_.count(); ++l)
        observables_.add_coefficient_gradients(*m.term, l, cotangent(c, m.result, l) * expectations_[at * width + l],
                                               sink);
    });
  }

  // bra = sum of weight P ket
  void write_weighted_pauli_words(State bra, State ket, const ResultCotangents<T>& c) {
    if constexpr (is_dual<N>) {
      const auto write = [&](V* from, V* to, double Dual::* part, bool adds) {
        found_.resize(weights_.size());
        for (std::size_t i = 0; i < weights_.size(); ++i) found_[i] = weights_[i].*part;
        pauli_sums_.write_bra(scalars(from), scalars(to), found_, adds);
      };
      write(ket.value, bra.value, &Dual::value, false);
      write(ket.tangent, bra.tangent, &Dual::value, false);
      const bool vary =
          c.real_tangent != nullptr || any_coefficient([&](const Term& term) { return inputs_.has_tangent(term); });
      if (vary) write(ket.value, bra.tangent, &Dual::tangent, true);
    } else {
      static_cast<void>(c);
      pauli_sums_.write_bra(scalars(ket), scalars(bra), weights_, false);
    }
  }

  template <class F>
  bool any_coefficient(const F& holds) const {
    bool any = false;
    pauli_sums_.for_each_member([&](const Member& m, Index) { any |= holds(*m.term); });
    return any;
  }

  static bool requests(const GradientSink<T>& sink, const Term& term) {
    return std::any_of(term.coefficients.begin(), term.coefficients.end(),
                       [&](const Slot& s) { return s.input != no_input && sink.requests(s.input); });
  }

  static T* scalars(V* state) { return reinterpret_cast<T*>(state); }

  const Plan& plan_;
  const Team& team_;
  const Index dimension_;
  const Index real_stride_;  // results of a circuit
  const Index complex_stride_;
  SampleInputs<N> inputs_;
  Observables<N> observables_;
  PauliSums<V> pauli_sums_;
  std::vector<Sum> expectations_;
  std::vector<Sum> weights_;
  std::vector<Sum> sums_;
  std::vector<double> found_;
};

}  // namespace
}  // namespace ketgrad
