// All measurements of a call but the Pauli words of expectation values: results, bras, and gradients of the inputs of
// observables. Formulas are those of the CPU's engine.
#pragma once

#include "cuda/engine/context.h"
#include "cuda/kernels/measurements.h"

namespace ketgrad::cuda {

template <class T>
class DeviceObservables {
 public:
  explicit DeviceObservables(Context<T>& context) : c_(context) {}

  // Results of all measurements, on top of those of Pauli words.
  void measure(const Complex<T>* ket, const Results<Real<T>>& results) {
    ket_ = ket;
    for (const TableMeasurement& m : c_.tables().measurements) measure(m, results);
  }

  // Adds the cotangents' bras to the bra and the gradients of factors to the inputs', and sets
  // terms[coefficient][sample] for the coefficients whose gradients are requested.
  void add_bras(const Complex<T>* ket, const CotangentSources<T>& cotangents, Complex<T>* bra, Accum<T>* terms) {
    ket_ = ket;
    cotangents_ = &cotangents;
    bra_ = bra;
    terms_ = terms;
    for (const TableMeasurement& m : c_.tables().measurements) add_bra(m);
  }

  // Numbers that a factor needs beside the states.
  Index spare_count(const ObservableFactor& f, Index samples) const {
    const Index numel = f.input == no_input ? 0 : c_.inputs()[f.input].numel;
    return factor_spare_count<T>(f, c_.dimension(), numel, samples);
  }

 private:
  // --- measurements --------------------------------------------------------------------------------------------------

  void measure(const TableMeasurement& m, const Results<Real<T>>& results) {
    switch (m.kind) {
      case MeasurementKind::expval: return measure_expval(m, results);
      case MeasurementKind::var: return measure_var(m, results);
      case MeasurementKind::probs:
        return write_real(c_.queue(), c_.state_call(), c_.tables().real_results, m.first_result, m.offsets.size(),
                          group_sums(m, {Entries::Kind::diagonal, m.offsets.size(), {}, {}}), results.real);
      case MeasurementKind::state:
        return write_state(c_.queue(), c_.state_call(), c_.tables().complex_results, m.first_result, m.offsets, ket_,
                           results.complex);
      case MeasurementKind::density_matrix: {
        const Index entries = m.offsets.size() * m.offsets.size();
        return write_complex(c_.queue(), c_.state_call(), c_.tables().complex_results, m.first_result, entries,
                             group_sums(m, {Entries::Kind::all, entries, {}, {}}), results.complex);
      }
    }
  }

  // Sums are taken in double, of all terms, and rounded once: a variance is a small difference of large numbers.
  void measure_expval(const TableMeasurement& m, const Results<Real<T>>& results) {
    if (m.terms.empty()) return;
    add_terms(m, ket_, true);
    add_total(m, results);
  }

  // <O O> - <O>^2 with v = O psi: Re<v|O|psi> - <psi|v>^2.
  void measure_var(const TableMeasurement& m, const Results<Real<T>>& results) {
    const Complex<T>* v = observed(m);
    mean_of(v);
    accumulate(c_.queue(), c_.state_call(), -1.0, mean_, mean_, true, c_.numbers_of_chunk(total_, 1));
    add_terms(m, v, false);
    add_total(m, results);
  }

  // Adds coefficient * Re<u|term|ket> of each term to the total.
  void add_terms(const TableMeasurement& m, const Complex<T>* u, bool begins) {
    for (const ObservableTerm& term : m.terms) {
      const Complex<T>* applied = written_term(ket_, term);
      Weight<T> coefficient;
      coefficient.coefficient = term.coefficient;
      real_overlap(u, applied, weights(coefficient), c_.numbers_of_chunk(overlap_, 1));
      accumulate(c_.queue(), c_.state_call(), 1.0, overlap_, static_cast<const Accum<T>*>(nullptr), begins,
                 c_.numbers_of_chunk(total_, 1));
      begins = false;
    }
  }

  void add_total(const TableMeasurement& m, const Results<Real<T>>& results) {
    add_to_result(c_.queue(), c_.state_call(), c_.tables().real_results, m.first_result,
                  static_cast<const Accum<T>*>(total_), results.real);
  }

  // v = O psi
  Complex<T>* observed(const TableMeasurement& m) {
    Complex<T>* v = c_.own(first_scratch_);
    c_.zero_states(v);
    add_observable(v, ket_, m, one());
    return v;
  }

  void mean_of(const Complex<T>* v) {
    c_.numbers_of_chunk(mean_, 1);
    real_overlap(ket_, v, weights(one()), mean_);
  }

  static Weight<T> one() { return {}; }

  // Numbers of a sample, valid until the next.
  const Accum<T>* weights(const Weight<T>& weight) {
    set_weights(c_.queue(), c_.state_call(), c_.tables().real_results, weight, c_.numbers_of_chunk(weights_, 1));
    return weights_;
  }

  const Complex<Accum<T>>* group_sums(const TableMeasurement& m, const Entries& entries) {
    return c_.sum_groups(m.groups, Offsets::of(m.offsets), entries, ket_, ket_);
  }

  // The term's Pauli word and factors applied to `in`, all but the factor `left_out`.
  Complex<T>* written_term(const Complex<T>* in, const ObservableTerm& term,
                           const ObservableFactor* left_out = nullptr) {
    Complex<T>* out = c_.own(second_scratch_);
    write_pauli_word(c_.queue(), c_.state_call(), term.pauli_word, in, out);
    for (const ObservableFactor& f : term.factors) {
      if (&f == left_out) continue;
      const Input<T>* input = f.input == no_input ? nullptr : &c_.inputs()[f.input];
      apply_factor(c_.queue(), c_.state_call(), f, input, out, c_.room_for_factor(spare_count(f, c_.samples().count)));
    }
    return out;
  }

  // out += weight * coefficient * term in, over all terms.
  void add_observable(Complex<T>* out, const Complex<T>* in, const TableMeasurement& m, Weight<T> weight) {
    for (const ObservableTerm& term : m.terms) {
      weight.coefficient = term.coefficient;
      const Complex<T>* applied = written_term(in, term);
      add_scaled(c_.queue(), c_.state_call(), weights(weight), applied, static_cast<const Accum<T>*>(nullptr), out);
    }
  }

  // out[sample] = weight[sample] * Re<u|v>
  void real_overlap(const Complex<T>* u, const Complex<T>* v, const Accum<T>* weight, Accum<T>* out) {
    const Map everything{0, c_.tables().identity};
    const Complex<Accum<T>>* sums =
        c_.sum_groups(everything, Offsets::of(Map{}), {Entries::Kind::diagonal, 1, {}, {}}, u, v);
    multiply(c_.queue(), c_.state_call(), weight, sums, out);
  }

  // --- bras ----------------------------------------------------------------------------------------------------------

  void add_bra(const TableMeasurement& m) {
    switch (m.kind) {
      case MeasurementKind::expval: return add_expval_bra(m);
      case MeasurementKind::var: return add_var_bra(m);
      case MeasurementKind::probs:
        return add_probs_bra(c_.queue(), c_.state_call(), c_.tables().real_results, m, cotangents_->real, ket_, bra_);
      case MeasurementKind::state:
        return add_state_bra(c_.queue(), c_.state_call(), c_.tables().complex_results, m, cotangents_->complex, bra_);
      case MeasurementKind::density_matrix:
        return add_density_bra(c_.queue(), c_.state_call(), c_.tables().complex_results, m, cotangents_->complex, ket_,
                               bra_);
    }
  }

  Weight<T> cotangent_of(const TableMeasurement& m, double factor = 1) const {
    return {factor, cotangents_->real, m.first_result, -1, nullptr};
  }

  // bra += g O psi, of the terms that have factors
  void add_expval_bra(const TableMeasurement& m) {
    if (m.terms.empty()) return;
    add_observable(bra_, ket_, m, cotangent_of(m));
    add_term_gradients(ket_, m, cotangent_of(m));
    add_factor_gradients(ket_, ket_, m, cotangent_of(m));
  }

  // bra += g (O^2 - 2 <O> O) psi; what O is made of sees u = 2 g (O - <O>) psi, from either side of the product O O.
  void add_var_bra(const TableMeasurement& m) {
    Complex<T>* v = observed(m);
    mean_of(v);
    add_observable(bra_, v, m, cotangent_of(m));
    Weight<T> back = cotangent_of(m, -2);
    back.mean = mean_;
    const Accum<T>* minus = weights(back);
    const Accum<T>* twice = c_.numbers_of_chunk(twice_, 1);
    set_weights(c_.queue(), c_.state_call(), c_.tables().real_results, cotangent_of(m, 2), twice_);
    add_scaled(c_.queue(), c_.state_call(), minus, static_cast<const Complex<T>*>(v),
               static_cast<const Accum<T>*>(nullptr), bra_);
    add_scaled(c_.queue(), c_.state_call(), minus, ket_, twice, v);
    Weight<T> half;
    half.factor = 0.5;
    add_term_gradients(v, m, one());
    add_factor_gradients(v, ket_, m, half);
    add_factor_gradients(ket_, v, m, half);
  }

  // terms_[coefficient] = weight * Re<u|term|ket>
  void add_term_gradients(const Complex<T>* u, const TableMeasurement& m, const Weight<T>& weight) {
    for (const ObservableTerm& term : m.terms) {
      if (!c_.requests(c_.tables().coefficients[term.coefficient].values)) continue;
      Accum<T>* out = terms_ + term.coefficient * c_.samples().count;
      const Complex<T>* applied = written_term(ket_, term);
      real_overlap(u, applied, weights(weight), out);
    }
  }

  void add_factor_gradients(const Complex<T>* u, const Complex<T>* in, const TableMeasurement& m, Weight<T> weight) {
    for (const ObservableTerm& term : m.terms) {
      for (const ObservableFactor& f : term.factors) {
        if (!c_.requests(f.input)) continue;
        weight.coefficient = term.coefficient;
        add_factor_gradient(u, written_term(in, term, &f), f, weights(weight));
      }
    }
  }

  void add_factor_gradient(const Complex<T>* u, const Complex<T>* rest, const ObservableFactor& f,
                           const Accum<T>* weight) {
    const bool batched = c_.inputs()[f.input].batched != 0;
    const Index count = c_.inputs()[f.input].numel;
    const bool of_state = f.kind == FactorKind::state_projector;
    const Complex<Accum<T>>* sums = of_state ? projector_sums(u, rest, f, count) : matrix_sums(u, rest, f, count);
    add_weighted_gradient(c_.queue(), c_.state_call(), f.input, batched, count, weight, !of_state, sums);
  }

  const Complex<Accum<T>>* projector_sums(const Complex<T>* u, const Complex<T>* rest, const ObservableFactor& f,
                                          Index count) {
    Complex<Accum<T>>* sums = c_.room_for_sums(count * c_.samples().count);
    Complex<Accum<T>>* scratch = c_.room_for_partials(projector_scratch_count(f, c_.samples().count));
    state_projector_sums(c_.queue(), c_.state_call(), f, u, rest, scratch, sums);
    return sums;
  }

  static Entries::Kind kind_of(FactorKind kind) {
    switch (kind) {
      case FactorKind::sparse: return Entries::Kind::listed;
      case FactorKind::diagonal: return Entries::Kind::diagonal;
      default: return Entries::Kind::all;
    }
  }

  const Complex<Accum<T>>* matrix_sums(const Complex<T>* u, const Complex<T>* rest, const ObservableFactor& f,
                                       Index count) {
    const auto kind = kind_of(f.kind);
    return c_.sum_groups(f.groups, Offsets::of(f.offsets), {kind, count, f.entry_rows, f.entry_columns}, u, rest);
  }

  Context<T>& c_;
  const Complex<T>* ket_ = nullptr;
  const CotangentSources<T>* cotangents_ = nullptr;
  Complex<T>* bra_ = nullptr;
  Accum<T>* terms_ = nullptr;
  Complex<T>* first_scratch_ = nullptr;
  Complex<T>* second_scratch_ = nullptr;
  Accum<T>* weights_ = nullptr;
  Accum<T>* twice_ = nullptr;
  Accum<T>* mean_ = nullptr;
  Accum<T>* overlap_ = nullptr;
  Accum<T>* total_ = nullptr;
};

}  // namespace ketgrad::cuda
