// Expectation values of Pauli words, which are summed up tile by tile, from values and tangents apart: as <P> is real
// and P linear, d<P> = 2 Re<psi|P|dpsi>.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/engine/observables-inl.h"
#include "cpu/engine/pauli_sums-inl.h"
#include "cpu/engine/samples-inl.h"

namespace ketgrad {
namespace {

template <class N>
class PauliExpectations {
  using V = Plain<N>;
  using T = Scalar<N>;
  using State = StateOf<N>;
  using Sum = Total<N>;
  using Member = PauliGroup::Member;
  static constexpr int width = lane_width<N>;

 public:
  // All are kept by reference; `real_stride` is the number of real results of a circuit.
  PauliExpectations(const Plan& plan, const Team& team, TileRunner<V>& tiles, Index real_stride,
                    const SampleInputs<N>& inputs, const Observables<N>& observables)
      : plan_(plan),
        team_(team),
        real_stride_(real_stride),
        inputs_(inputs),
        observables_(observables),
        pauli_sums_(plan, tiles) {}

  // Expectation values begin as the sums of their Pauli words.
  void measure(State ket, const Results<T>& results, const GradientSink<T>* sink) {
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
      for (int l = 0; l < inputs_.count(); ++l)
        results.real[inputs_.sample(l) * real_stride_ + m.first_result] =
            static_cast<T>(output_part(sums_[m.first_result * width + l]));
    }
  }

  void write_bra(State bra, State ket, const ResultCotangents<T>& c, GradientSink<T>& sink) {
    if (pauli_sums_.count() == 0) return fill_zero<N>(team_, bra, Index{1} << plan_.program->num_wires);
    weights_.assign(pauli_sums_.count() * width, Sum(0));
    pauli_sums_.for_each_member([&](const Member& m, Index at) {
      for (int l = 0; l < inputs_.count(); ++l)
        weights_[at * width + l] =
            real_cotangent<N>(c, inputs_.sample(l) * real_stride_ + m.result) * inputs_.coefficient(*m.term, l);
    });
    write_weighted_pauli_words(bra, ket, c);
    if (!any_coefficient([&](const Term& term) { return requests(sink, term); })) return;
    if constexpr (!is_dual<N>) find_pauli_sums(ket, true);
    pauli_sums_.for_each_member([&](const Member& m, Index at) {
      for (int l = 0; l < inputs_.count(); ++l)
        observables_.add_coefficient_gradients(
            *m.term, l,
            real_cotangent<N>(c, inputs_.sample(l) * real_stride_ + m.result) * expectations_[at * width + l], sink);
    });
  }

 private:
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
                       [&](const Slot& s) { return sink.requests(s.input); });
  }

  const Plan& plan_;
  const Team& team_;
  const Index real_stride_;
  const SampleInputs<N>& inputs_;
  const Observables<N>& observables_;
  PauliSums<V> pauli_sums_;
  std::vector<Sum> expectations_;
  std::vector<Sum> weights_;
  std::vector<Sum> sums_;
  std::vector<double> found_;
};

}  // namespace
}  // namespace ketgrad
