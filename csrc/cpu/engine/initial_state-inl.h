// Where a circuit's states come from and go to: how they begin, the gradient of a prepared state, and kets that a
// forward sweep keeps for the backward one, a row for each sample.
#pragma once

#include <algorithm>

#include "cpu/engine/samples-inl.h"
#include "cpu/engine/team-inl.h"
#include "cpu/gradient_sink.h"
#include "cpu/kernels/gates-inl.h"
#include "cpu/kernels/simd-inl.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// Sets all amplitudes to a real number.
template <class V>
void fill(const Team& team, V* state, Scalar<V> amplitude, Index dimension) {
  team.for_range(dimension, [=](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      state[2 * i] = V{} + amplitude;
      state[2 * i + 1] = V{};
    }
  });
}

// Writes the state that a circuit begins with. N: see SampleInputs.
template <class N>
void prepare(const Call<Scalar<N>>& call, const Plan& plan, const Team& team, SampleInputs<N>& inputs,
             StateOf<N> state) {
  using V = Plain<N>;
  using T = Scalar<N>;
  const Index dimension = call.dimension();
  V* values = nullptr;
  if constexpr (is_dual<N>) {
    values = state.value;
    fill(team, state.tangent, T(0), dimension);
  } else {
    values = state;
  }
  if (call.program().initial.kind != Preparation::state) {
    const InitialAmplitudes& initial = plan.initial;
    fill(team, values, static_cast<T>(initial.everywhere), dimension);
    values[2 * initial.index] = V{} + static_cast<T>(initial.amplitude(initial.index));
    return;
  }
  fill(team, values, T(0), dimension);
  const N* amplitudes = inputs.complex_input(call.program().initial.input);
  store_group(state, 0, plan.initial_offsets, plan.initial_offsets.size(), amplitudes);
}

// The gradient of a prepared state is 2 lambda, with the bra at the beginning of the circuit.
template <class N>
void add_initial_state_gradient(const Call<Scalar<N>>& call, const Plan& plan, const SampleGroup& group, StateOf<N> bra,
                                GradientSink<Scalar<N>>& sink) {
  const int input = call.program().initial.input;
  for (Index e = 0; e < plan.initial_offsets.size(); ++e) {
    const StateOf<N> amplitude = bra + 2 * plan.initial_offsets[e];
    for (int l = 0; l < group.count; ++l) {
      const auto part = [&](int p) { return 2.0 * static_cast<double>(output_part(get_lane(N(amplitude[p]), l))); };
      sink.add(input, e, group.sample(l), Complex<double>{part(0), part(1)});
    }
  }
}

// Kets in lanes, and as they lie in memory between the sweeps: a row of amplitudes for each sample, in numbers of type S,
// to which they are rounded.
template <class V, class S>
class KetRows {
  static constexpr int width = lane_width<V>;
  typedef S Stored __attribute__((vector_size(width * sizeof(S)), aligned(alignof(S)), may_alias));

 public:
  KetRows(const SampleGroup& group, Index dimension) : group_(group), numbers_(2 * dimension) {}

  void write(const V* ket, S* rows) const {
    for (Index i = 0; i < in_squares(); i += width) {
      V square[width];
      std::copy(ket + i, ket + i + width, square);
      transpose(square);
      for (int l = 0; l < group_.count; ++l)
        *reinterpret_cast<Stored*>(row(rows, l) + i) = __builtin_convertvector(square[l], Stored);
    }
    for (Index i = in_squares(); i < numbers_; ++i) {
      for (int l = 0; l < group_.count; ++l) row(rows, l)[i] = static_cast<S>(get_lane(ket[i], l));
    }
  }

  void read(const Cotangents<Scalar<V>>& from, const S* kets, V* ket) const {
    const S* rows[width];
    for (int l = 0; l < width; ++l) rows[l] = from.ket_of(group_.sample(l), numbers_ / 2, kets);
    for (Index i = 0; i < in_squares(); i += width) {
      V square[width];
      for (int l = 0; l < width; ++l)
        square[l] = __builtin_convertvector(*reinterpret_cast<const Stored*>(rows[l] + i), V);
      transpose(square);
      std::copy(square, square + width, ket + i);
    }
    for (Index i = in_squares(); i < numbers_; ++i) {
      for (int l = 0; l < width; ++l) set_lane(ket[i], l, rows[l][i]);
    }
  }

 private:
  // Numbers that are transposed in width x width squares: all, or none of a few wires.
  Index in_squares() const { return numbers_ < width ? 0 : numbers_; }

  S* row(S* rows, int lane) const { return rows + numbers_ * group_.sample(lane); }

  const SampleGroup& group_;
  const Index numbers_;  // of a sample's state
};

}  // namespace
}  // namespace ketgrad
