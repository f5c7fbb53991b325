// Measurements on the states of a group of samples: results, going forward, and what each cotangent adds to the bra,
// going back: |lambda> = dL/d<psi|. The kind of number N is that of lanes; of dual numbers the same rules give the
// derivatives of results, and of the bra and the gradients.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <vector>

#include "cpu/engine/observables-inl.h"
#include "cpu/engine/pauli_expectations-inl.h"

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
  // `group` and `tiles` are kept by reference.
  Measurements(const Call<T>& call, const Plan& plan, const Team& team, TileRunner<V>& tiles, const SampleGroup& group)
      : plan_(plan),
        team_(team),
        dimension_(call.dimension()),
        real_stride_(call.program().real_results()),
        complex_stride_(call.program().complex_results()),
        inputs_(call, group),
        observables_(call, team, inputs_),
        pauli_expectations_(plan, team, tiles, real_stride_, inputs_, observables_) {}

  // Of dual numbers, derivatives of results. `sink` may be null; it says which sums `write_bra` will need.
  void measure(State ket, const Results<T>& results, const GradientSink<T>* sink) {
    pauli_expectations_.measure(ket, results, sink);
    for (const PlannedMeasurement& m : plan_.measurements) measure(ket, m, results);
  }

  // Writes the bra, and adds the gradients of what observables are made of to the sink. Of dual numbers `measure` has
  // been called for these states.
  void write_bra(State bra, State ket, const ResultCotangents<T>& c, GradientSink<T>& sink) {
    pauli_expectations_.write_bra(bra, ket, c, sink);
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

  // lambda = g O psi, of the terms that have factors
  void add_expval_bra(State bra, State ket, const PlannedMeasurement& m, const ResultCotangents<T>& c,
                      GradientSink<T>& sink) {
    if (m.terms.empty()) return;
    const auto g = [&](int l) { return real_cotangent<N>(c, inputs_.sample(l) * real_stride_ + m.first_result); };
    observables_.add(bra, ket, m, g);
    observables_.coefficient_gradients(ket, ket, m, sink, g);
    observables_.factor_gradients(ket, ket, m, sink, g);
  }

  // lambda = g (O^2 - 2 <O> O) psi; what O is made of sees u = 2 g (O - <O>) psi, from either side of the product O O.
  void add_var_bra(State bra, State ket, const PlannedMeasurement& m, const ResultCotangents<T>& c,
                   GradientSink<T>& sink) {
    const auto g = [&](int l) { return real_cotangent<N>(c, inputs_.sample(l) * real_stride_ + m.first_result); };
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

  const Plan& plan_;
  const Team& team_;
  const Index dimension_;
  const Index real_stride_;  // results of a circuit
  const Index complex_stride_;
  SampleInputs<N> inputs_;
  Observables<N> observables_;
  PauliExpectations<N> pauli_expectations_;
  std::vector<Sum> sums_;
};

}  // namespace
}  // namespace ketgrad
