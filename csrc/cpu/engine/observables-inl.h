// Observables on the states of a group of samples: O psi, Re<u|O|psi>, and the gradients of what O is made of. The kind
// of number N is that of lanes; of dual numbers states have tangents, and what comes out has a derivative.
#pragma once

#include <vector>

#include "cpu/engine/diagonals-inl.h"
#include "cpu/engine/products-inl.h"
#include "cpu/engine/samples-inl.h"
#include "cpu/engine/team-inl.h"
#include "cpu/gradient_sink.h"
#include "cpu/kernels/observables-inl.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// Multiply-adds for a group of amplitudes.
inline Index work_of(const PlannedFactor& f) {
  const Index size = f.offsets.size();
  switch (f.factor->kind) {
    case FactorKind::hermitian: return size * size;
    case FactorKind::sparse: return size + static_cast<Index>(f.factor->rows.size());
    default: return size;
  }
}

// A state of numbers N in memory of its own.
template <class N>
class ScratchState {
 public:
  explicit ScratchState(Index numbers) : values_(numbers), tangents_(is_dual<N> ? numbers : 0) {}

  StateOf<N> get() const {
    if constexpr (is_dual<N>) {
      return {values_.data(), tangents_.data()};
    } else {
      return values_.data();
    }
  }

 private:
  HugePageBuffer<Plain<N>> values_;
  HugePageBuffer<Plain<N>> tangents_;
};

template <class N>
void fill_zero(const Team& team, StateOf<N> state, Index dimension) {
  team.for_range(dimension, [=](Index begin, Index end) {
    for (Index i = 2 * begin; i < 2 * end; ++i) state[i] = N{};
  });
}

template <class N>
class Observables {
  using T = Scalar<N>;
  using State = StateOf<N>;
  using Sum = Total<N>;
  static constexpr int width = lane_width<N>;

 public:
  Observables(const Call<T>& call, const Team& team, SampleInputs<N>& inputs)
      : call_(call),
        team_(team),
        inputs_(inputs),
        dimension_(call.dimension()),
        applied_(call.resources().needs_scratch ? 2 * dimension_ : 0),
        scratch_(call.resources().needs_scratch ? 2 * dimension_ : 0) {}

  // O ket, in memory of this object.
  State applied(State ket, const PlannedMeasurement& m) {
    fill_zero<N>(team_, applied_.get(), dimension_);
    add(applied_.get(), ket, m, [](int) { return Sum(1); });
    return applied_.get();
  }

  // out += weight(lane) O in
  template <class F>
  void add(State out, State in, const PlannedMeasurement& m, const F& weight) {
    for (const PlannedTerm& t : m.terms) {
      if (call_.should_stop()) return;
      const N c = inputs_.lanes([&](int l) { return weight(l) * inputs_.coefficient(*t.term, l); });
      if (t.factors.empty()) {
        team_.for_range(dimension_, [&](Index begin, Index end) { add_pauli(out, in, t.pauli_word, c, begin, end); });
      } else if (t.term->is_lone_diagonal()) {
        add_diagonal(team_, diagonal_of(t.factors[0]), c, in, out);
      } else {
        const State term = write_term(in, t);
        team_.for_range(dimension_, [&](Index begin, Index end) { add_scaled(out, term, c, begin, end); });
      }
    }
  }

  // out[lane] += Re<u|v>
  void real_overlap(State u, State v, Sum* out) const {
    team_.template reduce<N>(dimension_, 1, out,
                             [&](Index begin, Index end, N* sum) { overlap_real(u, v, begin, end, sum); });
  }

  // total[lane] += Re<u|O|ket>
  void add_expectation(State u, State ket, const PlannedMeasurement& m, Sum* total) {
    for_each_term(u, ket, m, [&](const PlannedTerm& t, const Sum* overlap) {
      for (int l = 0; l < inputs_.count(); ++l) total[l] += inputs_.coefficient(*t.term, l) * overlap[l];
    });
  }

  // Adds to `sink` the gradients of weight(lane) Re<u|O|ket> by coefficients.
  template <class F>
  void coefficient_gradients(State u, State ket, const PlannedMeasurement& m, GradientSink<T>& sink, const F& weight) {
    if (!requests_coefficients(m, sink)) return;
    for_each_term(u, ket, m, [&](const PlannedTerm& t, const Sum* overlap) {
      for (int l = 0; l < inputs_.count(); ++l) add_coefficient_gradients(*t.term, l, weight(l) * overlap[l], sink);
    });
  }

  // And by factors.
  template <class F>
  void factor_gradients(State u, State ket, const PlannedMeasurement& m, GradientSink<T>& sink, const F& weight) {
    for (const PlannedTerm& t : m.terms) {
      for (const PlannedFactor& f : t.factors) {
        if (sink.requests(f.factor->input)) factor_gradient(u, ket, t, f, sink, weight);
      }
    }
  }

  // A coefficient is a product: each of its slots sees the product of the others.
  void add_coefficient_gradients(const Term& term, int lane, const Sum& overlap, GradientSink<T>& sink) const {
    for (std::size_t j = 0; j < term.coefficients.size(); ++j) {
      const Sum others = inputs_.coefficient_without(term, j, lane);
      sink.add(term.coefficients[j], inputs_.sample(lane), output_part(others * overlap));
    }
  }

 private:
  static bool requests_coefficients(const PlannedMeasurement& m, const GradientSink<T>& sink) {
    for (const PlannedTerm& t : m.terms) {
      for (const Slot& s : t.term->coefficients) {
        if (sink.requests(s.input)) return true;
      }
    }
    return false;
  }

  // The values of a factor. Those of a Hermitian matrix may vary along a direction that is not Hermitian: results
  // depend on its Hermitian part.
  const N* values_of(const PlannedFactor& f) {
    if (f.factor->input == no_input) return nullptr;
    N* values = inputs_.complex_input(f.factor->input);
    if constexpr (is_dual<N>) {
      if (f.factor->kind == FactorKind::hermitian) make_hermitian(values, f.offsets.size());
    }
    return values;
  }

  Diagonal<N> diagonal_of(const PlannedFactor& f) const { return {inputs_, f.factor->input, f.groups, f.offsets}; }

  void apply_factor(State state, const PlannedFactor& f) {
    if (f.factor->kind == FactorKind::diagonal) return scale_by_diagonal(team_, diagonal_of(f), state);
    const N* values = values_of(f);
    team_.for_range(f.groups.size(), work_of(f), [&](Index begin, Index end) {
      switch (f.factor->kind) {
        case FactorKind::hermitian:
          return apply_large_block(state, f.groups, f.offsets, f.offsets.size(), values, begin, end);
        case FactorKind::projector: return project(state, f, begin, end);
        case FactorKind::state_projector: return project_on_state(state, f, values, begin, end);
        case FactorKind::sparse:
          if constexpr (is_dual<N>) return apply_sparse_hermitian(state, f, values, begin, end);
          return apply_sparse(state, f, values, begin, end);
        case FactorKind::diagonal: return;  // above
      }
    });
  }

  // The Pauli word and the factors of a term applied to `in`, but for the factor `left_out`; in the scratch state.
  State write_term(State in, const PlannedTerm& term, const PlannedFactor* left_out = nullptr) {
    const State out = scratch_.get();
    team_.for_range(dimension_, [&](Index begin, Index end) { write_pauli(out, in, term.pauli_word, begin, end); });
    for (const PlannedFactor& f : term.factors) {
      if (&f != left_out) apply_factor(out, f);
    }
    return out;
  }

  // Calls f(term, overlap[lanes]) with Re<u|term|ket> for every term of the observable, coefficients left out.
  template <class F>
  void for_each_term(State u, State ket, const PlannedMeasurement& m, const F& f) {
    for (const PlannedTerm& t : m.terms) {
      if (call_.should_stop()) return;
      Sum overlap[width] = {};
      if (t.factors.empty()) {
        team_.template reduce<N>(dimension_, 1, overlap, [&](Index begin, Index end, N* sum) {
          overlap_pauli(u, ket, t.pauli_word, begin, end, sum);
        });
      } else if (t.term->is_lone_diagonal()) {
        add_diagonal_overlap<RealPart>(team_, diagonal_of(t.factors[0]), u, ket, overlap);
      } else {
        real_overlap(u, write_term(ket, t), overlap);
      }
      f(t, overlap);
    }
  }

  // The gradient of weight(lane) coefficient Re<u|F|rest> by F, `rest` being all else of the term applied to the ket.
  template <class F>
  void factor_gradient(State u, State ket, const PlannedTerm& t, const PlannedFactor& f, GradientSink<T>& sink,
                       const F& weight) {
    const State rest = t.term->is_lone_diagonal() ? ket : write_term(ket, t, &f);
    const auto factor = [&](int l) { return weight(l) * inputs_.coefficient(*t.term, l); };
    const Index numel = call_.inputs[f.factor->input].numel;
    gradient_.assign(2 * numel * width, Sum(0));
    if (f.factor->kind == FactorKind::diagonal) {
      add_entry_overlaps<RealPart>(team_, diagonal_of(f), u, rest, gradient_.data());
      return add_entry_gradients(diagonal_of(f), gradient_, factor, sink);
    }
    if (f.factor->kind == FactorKind::hermitian) {
      add_products(team_, u, rest, f.groups, f.offsets, f.offsets.size(), 1, gradient_.data());
    } else {
      const N* phi = f.factor->kind == FactorKind::state_projector ? values_of(f) : nullptr;
      team_.template reduce<N>(f.groups.size(), 2 * numel, gradient_.data(), [&](Index begin, Index end, N* g) {
        if (f.factor->kind == FactorKind::sparse) return sparse_gradient(u, rest, f, begin, end, g);
        state_gradient(u, rest, f, phi, begin, end, g);
      });
    }
    for (int l = 0; l < inputs_.count(); ++l) {
      const Sum c = factor(l);
      for (Index e = 0; e < numel; ++e) {
        const Complex<double> g{output_part(c * gradient_[2 * e * width + l]),
                                output_part(c * gradient_[(2 * e + 1) * width + l])};
        sink.add(f.factor->input, e, inputs_.sample(l), g);
      }
    }
  }

  const Call<T>& call_;
  const Team& team_;
  SampleInputs<N>& inputs_;
  const Index dimension_;
  const ScratchState<N> applied_;
  const ScratchState<N> scratch_;
  std::vector<Sum> gradient_;
};

}  // namespace
}  // namespace ketgrad
