// The parameters of a plan's passes over tiles for one group of samples and one direction of the sweep: cosines and
// sines, factors of phases, entries of matrices, and the deferred scale before and after each operation.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <type_traits>
#include <variant>
#include <vector>

#include "cpu/engine.h"
#include "cpu/engine/matrix_entries-inl.h"
#include "cpu/engine/samples-inl.h"
#include "cpu/engine/tiles-inl.h"
#include "cpu/kernels/phases-inl.h"
#include "cpu/kernels/rotations-inl.h"
#include "cpu/kernels/sines-inl.h"
#include "cpu/thresholds.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// -i P of a real Pauli word is +-1 times what the kernels take it for, by i^y_count and the wire map's offset.
inline double real_sign(const PauliWord& pauli_word) {
  return (pauli_word.y_count % 4 == 3) != pauli_word.negative ? -1 : 1;
}

// The parameters of one operation. V is the scalar for a single state, the vector of lanes for a batch.
template <class V>
struct OpParameters {
  using T = Scalar<V>;

  int lanes() const { return per_sample ? lane_width<V> : 1; }  // that parameters are found for

  bool per_sample = false;  // some sample has its own
  bool ready = false;
  bool some_nan = false;    // of any sample so far
  double scale_before = 1;  // true state = this times the state in memory, before the operation
  double scale_after = 1;
  int first_angle = 0;  // of the halved angles, with a row of lanes each, if they are per sample
  Angles<T> angles;     // of a block, tile signs left out; of a phase on a coset the first
  // Of phases: the strings of which samples have their own, and those that lanes share, with one table made once.
  int first_string = 0;
  int end_string = 0;
  LaneVector<PhaseParameters<double>> shared_strings;
  double shared_scale = 1;
  LaneVector<PhaseFactor<T>> shared_factors;
  double factor_scale = 1;
  const T* entries = nullptr;  // of a matrix
};

// Half of each angle of a plan's rotations, with sine and cosine, of all operations at once: so that they are found for
// many angles together.
template <class V>
class HalfAngles {
  static constexpr int width = lane_width<V>;
  static constexpr bool single = width == 1;
  using T = Scalar<V>;

 public:
  // The group is looked at in each call.
  HalfAngles(const Call<T>& call, const Plan& plan, bool inverse, const SampleGroup& group)
      : call_(call), plan_(plan), inverse_(inverse), group_(group) {
    for (int i = 0; i < static_cast<int>(call.inputs.size()); ++i) some_per_sample_ |= call.is_per_sample(i);
  }

  // Makes room for `lanes` of each angle of an operation; returns where the first is.
  int add(const TileOp& op, int lanes) {
    const int first = static_cast<int>(halves_.size());
    halves_.resize(halves_.size() + per_sample_angles(op) * lanes);
    sines_.resize(halves_.size());
    cosines_.resize(halves_.size());
    return first;
  }

  // Writes the angles of an operation, from the place that `add` returned on.
  void set(const TileOp& op, int first, int lanes) {
    double* half = halves_.data() + first;
    const auto write = [&](const auto& angle_in) {
      for (int l = 0; l < lanes; ++l) *half++ = 0.5 * angle_in(l);
    };
    if (const auto* block = std::get_if<RotationBlock>(&op)) {
      for (const int t : block->rotations) write([&](int l) { return of_rotation(t, l); });
    } else if (const auto* phase = std::get_if<CosetPhase>(&op)) {
      write([&](int l) { return of_rotation(phase->rotation, l); });
    } else if (const auto* phases = std::get_if<Phases>(&op)) {
      for (const DiagonalRotation& s : phases->strings) {
        if (is_per_sample(s)) write([&](int l) { return of_string(s, l); });
      }
    }
  }

  void find_sines() {
    sines_and_cosines(halves_.data(), sines_.data(), cosines_.data(), static_cast<int>(halves_.size()));
  }

  const double* sines() const { return sines_.data(); }
  const double* cosines() const { return cosines_.data(); }

  bool reads_batched(int rotation) const { return call_.is_per_sample(plan_.rotations[rotation].angle.input); }

  bool reads_batched(std::span<const int> rotations) const {
    return std::any_of(rotations.begin(), rotations.end(), [&](int t) { return reads_batched(t); });
  }

  bool reads_batched(const TileOp& op) const {
    if (!some_per_sample_) return false;
    if (const auto* block = std::get_if<RotationBlock>(&op)) return reads_batched(block->rotations);
    if (const auto* phase = std::get_if<CosetPhase>(&op)) return reads_batched(phase->rotation);
    if (const auto* matrix = std::get_if<TileMatrix>(&op)) return call_.is_per_sample(plan_.gate_ops[matrix->gate_op]);
    const auto& strings = std::get<Phases>(op).strings;
    return std::any_of(strings.begin(), strings.end(),
                       [&](const DiagonalRotation& s) { return reads_batched(s.rotations); });
  }

  bool is_per_sample(const DiagonalRotation& s) const { return single || reads_batched(s.rotations); }

  std::size_t per_sample_strings(const TileOp& op) const {
    const auto* phases = std::get_if<Phases>(&op);
    if (phases == nullptr) return 0;
    const auto& strings = phases->strings;
    return std::count_if(strings.begin(), strings.end(), [&](const DiagonalRotation& s) { return is_per_sample(s); });
  }

  // The whole angle of a Z-string.
  double of_string(const DiagonalRotation& s, int lane) const {
    double total = 0;
    for (const int t : s.rotations)
      total += plan_.rotations[t].pauli_word.negative != s.negative ? -of_rotation(t, lane) : of_rotation(t, lane);
    return total;
  }

 private:
  // Of the rotations of a block, of strings with factors of their own, or of a phase on a coset.
  std::size_t per_sample_angles(const TileOp& op) const {
    if (std::holds_alternative<CosetPhase>(op)) return 1;
    const auto* block = std::get_if<RotationBlock>(&op);
    return block != nullptr ? block->rotations.size() : per_sample_strings(op);
  }

  double of_rotation(int rotation, int lane) const {
    const Slot& slot = plan_.rotations[rotation].angle;
    const double value = slot.input == no_input ? slot.offset : call_.value(slot, group_.sample(lane));
    return inverse_ ? -value : value;
  }

  const Call<T>& call_;
  const Plan& plan_;
  const bool inverse_;
  const SampleGroup& group_;
  bool some_per_sample_ = false;  // of the inputs
  std::vector<double> halves_;
  std::vector<double> sines_;
  std::vector<double> cosines_;
};

template <class T>
double square_length(T x, T y) {
  return static_cast<double>(x) * static_cast<double>(x) + static_cast<double>(y) * static_cast<double>(y);
}

// One direction of the sweep. Phases of a single state, and those that read a batched input, have factors per sample;
// the others have factors that all lanes share.
template <class V>
class RotationParameters {
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;
  static constexpr bool single = width == 1;

 public:
  RotationParameters(const Call<T>& call, const Plan& plan, const SharedGateOps<T>& shared, bool inverse,
                     const SampleGroup& group)
      : call_(call),
        plan_(plan),
        inverse_(inverse),
        angles_(call, plan, inverse, group),
        entries_(call, plan, shared, inverse, group) {
    int operations = 0;
    first_operation_.reserve(plan.passes.size());
    for (const Pass& pass : plan.passes) {
      first_operation_.push_back(operations);
      if (const auto* tiles = std::get_if<TilePass>(&pass)) operations += static_cast<int>(tiles->operations.size());
    }
    parameters_.resize(operations);
    auto n = parameters_.begin();
    for_each_tile_op(plan, [&](const TileOp& op) {
      n->per_sample = angles_.reads_batched(op);
      n->first_string = static_cast<int>(strings_.size());
      strings_.resize(strings_.size() + angles_.per_sample_strings(op));
      n->end_string = static_cast<int>(strings_.size());
      n->first_angle = angles_.add(op, n->lanes());
      some_per_sample_ |= n->per_sample;
      ++n;
    });
  }

  // Computes the parameters for the present group of samples; those that all samples share, only once. Says whether any
  // are new.
  bool start() {
    if (started_ && !some_per_sample_) return false;
    ++version_;
    find_sines();
    double scale = 1;
    const int passes = static_cast<int>(plan_.passes.size());
    for (int i = 0; i < passes; ++i) {
      const int p = inverse_ ? passes - 1 - i : i;
      const auto* tiles = std::get_if<TilePass>(&plan_.passes[p]);
      const int count = tiles == nullptr ? 0 : static_cast<int>(tiles->operations.size());
      for (int k = 0; k < count; ++k) {
        const int at = inverse_ ? count - 1 - k : k;
        prepare(tiles->operations[at], parameters_[first_operation_[p] + at], scale);
      }
    }
    started_ = true;
    some_nan_ = std::any_of(parameters_.begin(), parameters_.end(), [](const auto& n) { return n.some_nan; });
    return true;
  }

  // Operations are numbered through all passes.
  int number(int pass, int operation) const { return first_operation_[pass] + operation; }
  int count() const { return static_cast<int>(parameters_.size()); }
  std::span<const OpParameters<V>> of_pass(int pass) const {
    return std::span(parameters_).subspan(first_operation_[pass]);
  }
  const OpParameters<V>& operator[](int number) const { return parameters_[number]; }

  // Whether any parameter is NaN: then amplitudes outside the support are visited too, for it makes them NaN.
  bool some_nan() const { return some_nan_; }

  // Of what was computed last.
  Index version() const { return version_; }

  // The Z-strings of phases that have factors per sample.
  std::span<const PhaseParameters<Row<T>>> strings(const OpParameters<V>& n) const {
    return {strings_.begin() + n.first_string, strings_.begin() + n.end_string};
  }

  // Tables for all phases of a long circuit could take more than its states; then each is made when it is used.
  bool keeps_tables() const {
    const double bytes = static_cast<double>(parameters_.size() * call_.dimension()) * sizeof(PhaseFactor<T>);
    return bytes <= static_cast<double>(largest_tables);
  }

  // The factors that lanes share. Products are formed in double and rounded once, so that both factors of a string are
  // equally long.
  void fill_shared(const OpParameters<V>& n, LaneVector<PhaseFactor<double>>& exact) const {
    exact.resize(call_.dimension());
    LaneVector<VaryingFactor<double>> varying;
    fill_phases(exact.data(), call_.program().num_wires, std::span<const PhaseParameters<double>>(n.shared_strings),
                1.0, varying);
  }

  static void round_shared(const OpParameters<V>& n, const LaneVector<PhaseFactor<double>>& exact,
                           LaneVector<PhaseFactor<T>>& table) {
    table.resize(exact.size());
    for (std::size_t r = 0; r < exact.size(); ++r)
      table[r] = {static_cast<T>(n.shared_scale * exact[r].re), static_cast<T>(n.shared_scale * exact[r].im)};
  }

 private:
  void find_sines() {
    auto n = parameters_.begin();
    for_each_tile_op(plan_, [&](const TileOp& op) {
      if (!n->ready || n->per_sample) angles_.set(op, n->first_angle, n->lanes());
      ++n;
    });
    angles_.find_sines();
  }

  // Goes over an operation in the order of the sweep; `scale` is what the state in memory lacks.
  void prepare(const TileOp& op, OpParameters<V>& n, double& scale) {
    // In lanes, what has parameters of its own adds nothing to the scale of all.
    if (!n.ready || n.per_sample || single) {
      n.scale_before = scale;
      if (const auto* block = std::get_if<RotationBlock>(&op)) {
        prepare_block(*block, n);
      } else if (const auto* phases = std::get_if<Phases>(&op)) {
        prepare_phases(*phases, n);
      } else if (const auto* matrix = std::get_if<TileMatrix>(&op)) {
        prepare_matrix(*matrix, n);
      } else {
        prepare_coset_phase(n);
      }
      n.ready = true;
    }
    scale = n.scale_after;
  }

  bool applies_scale(const auto& op) const { return inverse_ ? op.applies_scale_backward : op.applies_scale_forward; }

  // The part of the deferred scale that an operation applies: all of it where the plan says so; else its power of two,
  // which rounds nothing.
  static double scale_to_apply(double scale, bool all) {
    if (all) return scale;
    int exponent = 0;
    static_cast<void>(std::frexp(scale, &exponent));
    return std::ldexp(1.0, exponent);
  }

  void prepare_block(const RotationBlock& block, OpParameters<V>& n) {
    const std::size_t k = block.rotations.size();
    double cosines = n.scale_before;
    const int lanes = n.lanes();
    const double* cosine = angles_.cosines() + n.first_angle;
    const double* sine = angles_.sines() + n.first_angle;
    for (std::size_t j = 0; j < k; ++j) {
      for (int l = 0; l < lanes; ++l) n.some_nan |= std::isnan(cosine[j * lanes + l]);
      cosines *= cosine[j * lanes];
    }
    // Lanes that have angles of their own share no scale, nor do the halves of the amplitudes.
    const bool carries = lanes == 1 && !block.half;
    n.angles.unnormalised = carries && !applies_scale(block) && std::abs(cosines) >= smallest_scale_;
    const double taken = n.angles.unnormalised || !(carries || applies_scale(block))
                             ? 1
                             : scale_to_apply(n.scale_before, applies_scale(block));
    double square = 1;  // how long rotations are in the numbers that they are rounded to, squared
    for (std::size_t j = 0; j < k; ++j, cosine += lanes, sine += lanes) {
      Row<T> a{};
      Row<T> b{};
      const double scale = j == 0 ? taken : 1;
      const double sign = real_sign(plan_.rotations[block.rotations[j]].pauli_word);
      if (lanes == 1) {
        const auto x = static_cast<T>(n.angles.unnormalised ? 1 : scale * *cosine);
        const auto y = static_cast<T>(sign * (n.angles.unnormalised ? *sine / *cosine : scale * *sine));
        square *= square_length(x, y);
        a += x;
        b += y;
      } else {
        for (int l = 0; l < width; ++l) {
          a[l] = static_cast<T>(scale * cosine[l]);
          b[l] = static_cast<T>(sign * scale * sine[l]);
        }
      }
      n.angles.a[j] = a;
      n.angles.b[j] = single ? b * lane_signs<T>(block.lane_sign[j]) : b;
    }
    n.scale_after = applies_scale(block) ? 1 : n.scale_before;
    if (carries && !applies_scale(block))
      n.scale_after /= (n.angles.unnormalised && cosines * n.scale_before < 0 ? -1 : 1) * std::sqrt(square);
  }

  void prepare_coset_phase(OpParameters<V>& n) {
    const int lanes = n.lanes();
    for (int l = 0; l < batch_lanes<T>; ++l) {
      const int at = n.first_angle + (lanes == 1 ? 0 : l);
      n.angles.a[0][l] = static_cast<T>(angles_.cosines()[at]);
      n.angles.b[0][l] = static_cast<T>(angles_.sines()[at]);
      n.some_nan |= std::isnan(angles_.cosines()[at]);
    }
    n.scale_after = n.scale_before;
  }

  void prepare_matrix(const TileMatrix& matrix, OpParameters<V>& n) {
    const std::span<const T> entries = entries_.of(matrix.gate_op);
    n.entries = entries.data();
    n.some_nan |= !are_finite(entries);
    n.scale_after = n.scale_before;
  }

  void prepare_phases(const Phases& phases, OpParameters<V>& n) {
    if constexpr (single) {
      n.factor_scale = apply_scale(phases, n, prepare_per_sample_strings(phases, n));
    } else {
      prepare_per_sample_strings(phases, n);
      if (!n.ready) prepare_shared_strings(phases, n);
    }
  }

  // `square`: how long the factors are in the numbers that they are rounded to, squared. Returns what they are to be
  // multiplied by.
  double apply_scale(const Phases& phases, OpParameters<V>& n, double square) const {
    const double lacking = n.scale_before / std::sqrt(square);
    const double taken = scale_to_apply(lacking, applies_scale(phases));
    n.scale_after = applies_scale(phases) ? 1 : lacking / taken;
    return taken;
  }

  // Returns the mean square of the factors of a single state, up to roundings that differ from row to row.
  double prepare_per_sample_strings(const Phases& phases, OpParameters<V>& n) {
    PhaseParameters<Row<T>>* own = strings_.data() + n.first_string;
    int at = n.first_angle;
    PhaseFactor<Row<T>> start{Row<T>{} + 1, Row<T>{}};
    double square = 1;
    for (const DiagonalRotation& s : phases.strings) {
      if (!angles_.is_per_sample(s)) continue;
      *own = per_sample_parameters(s, at);
      for (int l = 0; l < width; ++l) n.some_nan |= std::isnan(own->start.re[l]);
      if constexpr (single) {
        start = times_phase(start, own->start);
        const bool varies = (s.row_mask & static_cast<Mask>(phases.num_active - 1)) != 0;
        if (varies) square *= 0.5 + 0.5 * square_length(own->odd.re[0], own->odd.im[0]);
      }
      at += n.lanes();
      ++own;
    }
    double squares = 0;
    for (int l = 0; l < batch_lanes<T>; ++l) squares += square_length(start.re[l], start.im[l]);
    return square * squares / batch_lanes<T>;
  }

  // Of lanes, which share a scale.
  void prepare_shared_strings(const Phases& phases, OpParameters<V>& n) {
    for (const DiagonalRotation& s : phases.strings) {
      if (angles_.is_per_sample(s)) continue;
      const double half = 0.5 * angles_.of_string(s, 0);
      n.shared_strings.push_back(phase_parameters<double>(s.row_mask, std::cos(half), std::sin(half)));
      n.some_nan |= std::isnan(n.shared_strings.back().start.re);
    }
    if (n.shared_strings.empty()) {
      n.factor_scale = apply_scale(phases, n, 1);
      return;
    }
    fill_shared(n, exact_factors_);
    // The larger part of the first factor is made 1: that of a lone string's other factor then is 1 as well, and
    // quarter phases are 1 -+ i. Multiplying by these rounds less.
    n.shared_scale = 1 / std::max(std::abs(exact_factors_[0].re), std::abs(exact_factors_[0].im));
    n.shared_scale *= apply_scale(phases, n, mean_square_of_shared(n));
    if (keeps_tables()) round_shared(n, exact_factors_, n.shared_factors);
  }

  // Of the factors as they are rounded to T; double does not see what it rounds itself.
  double mean_square_of_shared(const OpParameters<V>& n) const {
    if constexpr (std::is_same_v<T, double>) return n.shared_scale * n.shared_scale;
    double squares = 0;
    for (const PhaseFactor<double>& f : exact_factors_)
      squares += square_length(static_cast<T>(n.shared_scale * f.re), static_cast<T>(n.shared_scale * f.im));
    return squares / static_cast<double>(call_.dimension());
  }

  // `at` is the place of its half angles.
  PhaseParameters<Row<T>> per_sample_parameters(const DiagonalRotation& s, int at) const {
    PhaseParameters<Row<T>> n;
    n.row_mask = s.row_mask;
    for (int l = 0; l < batch_lanes<T>; ++l) {
      const int from = single ? at : at + l;
      const PhaseParameters<T> one = phase_parameters<T>(s.row_mask, angles_.cosines()[from], angles_.sines()[from]);
      // Of a pair cell, imaginary parts alternate in sign (see PhaseFactor).
      const T sign =
          (single && (l & 1) == 0 ? -1 : 1) * (single && odd_parity(static_cast<Mask>(l / 2) & s.lane_mask) ? -1 : 1);
      n.start.re[l] = one.start.re;
      n.start.im[l] = sign * one.start.im;
      n.odd.re[l] = one.odd.re;
      n.odd.im[l] = sign * one.odd.im;
    }
    return n;
  }

  const Call<T>& call_;
  const Plan& plan_;
  const bool inverse_;
  const double smallest_scale_ = std::ldexp(1.0, -thresholds().scale_bits);
  HalfAngles<V> angles_;
  MatrixEntries<T> entries_;
  bool started_ = false;
  bool some_per_sample_ = false;
  bool some_nan_ = false;
  Index version_ = 0;
  std::vector<int> first_operation_;
  LaneVector<OpParameters<V>> parameters_;
  LaneVector<PhaseParameters<Row<T>>> strings_;  // of all operations
  LaneVector<PhaseFactor<double>> exact_factors_;
};

}  // namespace
}  // namespace ketgrad
