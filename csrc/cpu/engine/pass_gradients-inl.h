// From the overlaps of passes over tiles to gradients.
#pragma once

#include <algorithm>
#include <span>
#include <variant>
#include <vector>

#include "cpu/engine.h"
#include "cpu/engine/samples-inl.h"
#include "cpu/gradient_sink.h"
#include "cpu/kernels/matrices-inl.h"
#include "cpu/kernels/states-inl.h"
#include "math/dual.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// Calls f(rotation) for each rotation of an operation, in the order of their overlaps.
template <class F>
void for_each_rotation(const TileOp& op, const F& f) {
  if (const auto* block = std::get_if<RotationBlock>(&op)) {
    for (const int t : block->rotations) f(t);
  } else if (const auto* phase = std::get_if<CosetPhase>(&op)) {
    f(phase->rotation);
  } else if (const auto* phases = std::get_if<Phases>(&op)) {
    for (const DiagonalRotation& s : phases->strings) {
      for (const int t : s.rotations) f(t);
    }
  }
}

// How many they are.
inline Index rotation_count(const TileOp& op) {
  if (const auto* block = std::get_if<RotationBlock>(&op)) return static_cast<Index>(block->rotations.size());
  Index count = 0;
  for_each_rotation(op, [&](int) { ++count; });
  return count;
}

// What of a plan's passes over tiles has a requested gradient, and the overlaps that become these gradients. N is the
// kind of number of a state: of duals, the overlaps of rotations are tangents, those of matrices values and tangents.
template <class N>
class PassGradients {
  using V = Plain<N>;
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;

 public:
  PassGradients(const Call<T>& call, const Plan& plan, const SampleGroup& group)
      : call_(call), plan_(plan), group_(group), first_of_matrix_(plan.gate_ops.size(), not_requested) {}

  // To be called for each group of samples.
  void start(const GradientSink<T>& sink) {
    if (!is_started_) find_requested(sink);
    is_started_ = true;
    overlaps_.assign(plan_.rotations.size() * width, 0.0);
    matrix_overlaps_.assign(num_matrix_overlaps_, 0.0);
  }

  bool requests(int rotation) const { return requested_[rotation] != 0; }
  bool requests(const RotationBlock& block) const { return requests_any(block.rotations); }
  bool requests(const Phases& phases) const {
    return std::ranges::any_of(phases.strings, [&](const DiagonalRotation& s) { return requests_any(s.rotations); });
  }
  bool requests(const TileMatrix& matrix) const { return first_of_matrix_[matrix.gate_op] != not_requested; }

  // How many numbers the overlaps of an operation are: [rotation][lane], or of a matrix all values, then all tangents.
  static Index count(const TileOp& op) {
    if (const auto* matrix = std::get_if<TileMatrix>(&op)) return entry_numbers(*matrix) * (is_dual<N> ? 2 : 1);
    return rotation_count(op) * width;
  }

  static Index count(const TilePass& pass) {
    Index all = 0;
    for (const TileOp& op : pass.operations) all += count(op);
    return all;
  }

  // `sums` are the overlaps of a pass, in the order of its operations.
  void add(const TilePass& pass, const double* sums) {
    for (const TileOp& op : pass.operations) {
      const double* next = sums;
      for_each_rotation(op, [&](int t) {
        for (int l = 0; l < width; ++l) overlaps_[t * width + l] += *next++;
      });
      const auto* matrix = std::get_if<TileMatrix>(&op);
      if (matrix != nullptr && requests(*matrix)) {
        double* overlaps = matrix_overlaps_.data() + first_of_matrix_[matrix->gate_op];
        for (Index e = 0; e < count(op); ++e) overlaps[e] += next[e];
      }
      sums += count(op);
    }
  }

  // d exp(-i angle/2 P) = -i/2 P: twice the real part with the bra is the overlap itself.
  void add_to(TaskGradients<T>& gradients) const {
    GradientSink<T>& sink = *gradients.sink;
    for (std::size_t t = 0; t < plan_.rotations.size(); ++t) {
      if (!requested_[t]) continue;
      const Slot& slot = plan_.rotations[t].angle;
      const double* overlap = overlaps_.data() + t * width;
      if (call_.sums_gradient(slot.input)) {
        double total = 0;
        for (int l = 0; l < group_.count; ++l) total += overlap[l];
        sink.add(slot, group_.sample(0), total);
      } else {
        for (int l = 0; l < group_.count; ++l) sink.add(slot, group_.sample(l), overlap[l]);
      }
    }
    for (std::size_t m = 0; m < first_of_matrix_.size(); ++m) {
      if (first_of_matrix_[m] != not_requested) add_matrix_to(gradients, m);
    }
  }

 private:
  static constexpr Index not_requested = -1;

  void find_requested(const GradientSink<T>& sink) {
    for (const Rotation& t : plan_.rotations) requested_.push_back(sink.requests(t.angle.input) ? 1 : 0);
    for_each_tile_op(plan_, [&](const TileOp& op) {
      const auto* matrix = std::get_if<TileMatrix>(&op);
      if (matrix == nullptr || !sink.requests(plan_.gate_ops[matrix->gate_op])) return;
      first_of_matrix_[matrix->gate_op] = num_matrix_overlaps_;
      num_matrix_overlaps_ += count(op);
    });
  }

  bool requests_any(std::span<const int> rotations) const {
    return std::ranges::any_of(rotations, [&](int t) { return requests(t); });
  }

  // Overlaps of a matrix that all samples share, gradients included, add up first and are contracted once, at the end of the task. Those of
  // duals are contracted with derivatives of the matrix, sample by sample.
  void add_matrix_to(TaskGradients<T>& gradients, std::size_t number) const {
    const GateOp& gate_op = plan_.gate_ops[number];
    const double* found = matrix_overlaps_.data() + first_of_matrix_[number];
    const Index size = overlap_count(gate_op);
    if constexpr (is_dual<N>) {
      std::vector<Dual> duals;
      for (Index e = 0; e < size; ++e) duals.emplace_back(found[e], found[size + e]);
      gradients.sink->contract(gate_op, duals.data(), group_.sample(0));
    } else if (call_.has_copies || !call_.shared(gate_op)) {
      gradients.sink->contract(gate_op, found, group_.sample(0));
    } else {
      for (Index e = 0; e < size; ++e) gradients.overlaps[number][e] += found[e];
    }
  }

  const Call<T>& call_;
  const Plan& plan_;
  const SampleGroup& group_;
  bool is_started_ = false;
  std::vector<char> requested_;         // per rotation
  std::vector<double> overlaps_;        // [rotation][lane]
  std::vector<Index> first_of_matrix_;  // per unfused gate: where the overlaps of a matrix in a pass begin
  Index num_matrix_overlaps_ = 0;
  std::vector<double> matrix_overlaps_;
};

}  // namespace
}  // namespace ketgrad
