// Circuits, forward and back: the samples of one task, lane_width<V> at a time. Forward, the passes of the plan take
// the ket from the initial state to the measurements. Back, the bra begins as what the cotangents make of the ket, and
// both are undone pass by pass, while the overlaps of each gate are taken: the adjoint method.
#pragma once

#include <algorithm>
#include <optional>
#include <type_traits>
#include <variant>
#include <vector>

#include "cpu/engine.h"
#include "cpu/engine/gate_ops-inl.h"
#include "cpu/engine/initial_state-inl.h"
#include "cpu/engine/measurements-inl.h"
#include "cpu/engine/rotation_passes-inl.h"
#include "cpu/profile.h"

namespace ketgrad {
namespace {

template <class V>
class CircuitEngine {
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;

 public:
  CircuitEngine(const Call<T>& call, const Plan& plan, const SharedGateOps<T>& shared, const Task& task)
      : call_(call),
        plan_(plan),
        shared_(shared),
        task_(task),
        team_(call.parallel, task.parallel_passes, call),
        dimension_(call.dimension()),
        tiles_(call, team_),
        inputs_(call, group_),
        measurements_(call, plan, team_, tiles_, group_),
        gate_ops_(call, plan, shared, team_, group_) {}
  CircuitEngine(const CircuitEngine&) = delete;
  CircuitEngine& operator=(const CircuitEngine&) = delete;

  void forward(const Results<T>& results) {
    const bool in_place = width == 1 && results.ket != nullptr;
    const HugePageBuffer<V> state(in_place ? 0 : 2 * dimension_);
    times_.forward.resize(plan_.passes.size());
    for (Index first = task_.begin; first < task_.end; first += width) {
      start_group(first);
      V* const ket = in_place ? reinterpret_cast<V*>(results.ket) + 2 * first * dimension_ : state.data();
      if (!run(ket)) return;
      measurements_.measure(ket, results, nullptr);
      watch_.lap(times_.measure);
      if (!in_place && results.ket != nullptr) write_ket(ket, results.ket);
      if (results.rounded_ket != nullptr) write_ket(ket, results.rounded_ket);
    }
    if (watch_.on()) add_to_profile(call_.planned->id, times_);
  }

  void backward(const Cotangents<T>& cotangents, const Measured<T>* measured, TaskGradients<T>& gradients) {
    const HugePageBuffer<V> ket_buffer(2 * dimension_);
    const HugePageBuffer<V> bra_buffer(2 * dimension_, 1);
    V* const ket = ket_buffer.data();
    V* const bra = bra_buffer.data();
    const bool is_quadratic = measured != nullptr && measured->curvature != 0;
    const ResultCotangents<T> results{is_quadratic ? measured->cotangents : cotangents.real, cotangents.complex};
    times_.forward.resize(plan_.passes.size());
    times_.backward.resize(plan_.passes.size());
    for (Index first = task_.begin; first < task_.end; first += width) {
      start_group(first);
      V* source = ket;
      if (!cotangents.has_ket()) {
        if (!run(ket)) return;
        if (measured != nullptr) {
          measurements_.measure(ket, measured->results, nullptr);
          if (is_quadratic) add_curvature(cotangents, *measured);
          watch_.lap(times_.measure);
        }
      } else {
        source = read_ket(cotangents, ket);
      }
      measurements_.write_bra(bra, source, results, *gradients.sink);
      watch_.lap(times_.bra);
      if (!undo(source, ket, bra, gradients)) return;
      if (requests_initial_state(gradients)) add_initial_state_gradient<V>(call_, plan_, group_, bra, *gradients.sink);
    }
    if (watch_.on()) add_to_profile(call_.planned->id, times_);
  }

 private:
  void start_group(Index first) { group_ = {first, static_cast<int>(std::min<Index>(width, task_.end - first))}; }

  // Numbers of type S: see KetRows.
  template <class S>
  void write_ket(const V* ket, S* rows) const {
    if constexpr (width == 1) {
      S* const row = rows + 2 * group_.first * dimension_;
      team_.for_range(2 * dimension_, [&](Index begin, Index end) { std::copy(ket + begin, ket + end, row + begin); });
    } else {
      KetRows<V, S>(group_, dimension_).write(ket, rows);
    }
  }

  // Returns where the ket is: in `ket`, or where the call has it, which is read until a pass writes a copy.
  V* read_ket(const Cotangents<T>& from, V* ket) const {
    const auto read = [&](const auto* kets) {
      using S = std::remove_cvref_t<decltype(*kets)>;
      if constexpr (width == 1) {
        const S* const row = from.ket_of(group_.first, dimension_, kets);
        team_.for_range(2 * dimension_,
                        [&](Index begin, Index end) { std::copy(row + begin, row + end, ket + begin); });
      } else {
        KetRows<V, S>(group_, dimension_).read(from, kets, ket);
      }
      return ket;
    };
    if (from.rounded_ket != nullptr) return read(from.rounded_ket);
    if constexpr (width == 1) return const_cast<T*>(from.ket_of(group_.first, dimension_, from.ket));
    return read(from.ket);
  }

  // Of this group's samples.
  void add_curvature(const Cotangents<T>& cotangents, const Measured<T>& measured) const {
    const Index size = call_.program().real_results();
    measured.write_cotangents(cotangents, group_.first * size, (group_.first + group_.count) * size);
  }

  bool requests_initial_state(const TaskGradients<T>& gradients) const {
    return gradients.sink->requests(call_.program().initial.input);
  }

  // False where the call is to end early.
  bool run(V* ket) {
    prepare<V>(call_, plan_, team_, inputs_, ket);
    if (!forward_) forward_.emplace(call_, plan_, shared_, false, group_, tiles_);
    forward_->start();
    for (int p = 0; p < static_cast<int>(plan_.passes.size()); ++p) {
      if (call_.should_stop()) return false;
      if (const auto* gate = std::get_if<GatePass>(&plan_.passes[p])) {
        gate_ops_.apply(gate->gate_op, ket);
      } else {
        forward_->forward(p, scalars(ket));
      }
      watch_.lap(times_.forward[p]);
    }
    return true;
  }

  // The ket is read from `source` and undone in `ket`.
  bool undo(V* source, V* ket, V* bra, TaskGradients<T>& gradients) {
    start_backward(*gradients.sink);
    for (int p = static_cast<int>(plan_.passes.size()) - 1; p >= gradients.first_pass; --p) {
      if (call_.should_stop()) return false;
      if (source != ket && !backward_->covers_state(p)) {
        team_.for_range(dimension_, [&](Index begin, Index end) {
          std::copy(source + 2 * begin, source + 2 * end, ket + 2 * begin);
        });
        source = ket;
      }
      if (const auto* gate = std::get_if<GatePass>(&plan_.passes[p])) {
        undo_gate_ops_->undo(gate->gate_op, ket, bra, gradients);
      } else {
        const bool last = p == gradients.first_pass && !requests_initial_state(gradients);
        backward_->backward(p, scalars(source), scalars(ket), scalars(bra), last, *pass_gradients_);
        source = ket;
      }
      watch_.lap(times_.backward[p]);
    }
    pass_gradients_->add_to(gradients);
    return true;
  }

  void start_backward(const GradientSink<T>& sink) {
    if (!backward_) {
      backward_.emplace(call_, plan_, shared_, true, group_, tiles_);
      undo_gate_ops_.emplace(call_, plan_, shared_, team_, group_);
      pass_gradients_.emplace(call_, plan_, group_);
    }
    backward_->start();
    pass_gradients_->start(sink);
  }

  const Call<T>& call_;
  const Plan& plan_;
  const SharedGateOps<T>& shared_;
  const Task task_;
  const Team team_;
  const Index dimension_;
  SampleGroup group_;
  Stopwatch watch_;
  PassTimes times_;
  TileRunner<V> tiles_;
  SampleInputs<V> inputs_;
  Measurements<V> measurements_;
  GateOps<V> gate_ops_;
  std::optional<RotationPasses<V>> forward_;  // these are made when they are needed
  std::optional<RotationPasses<V>> backward_;
  std::optional<UndoGateOps<V>> undo_gate_ops_;
  std::optional<PassGradients<V>> pass_gradients_;
};

}  // namespace
}  // namespace ketgrad
