// Runs the rotations of a plan.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "cpu/engine.h"
#include "cpu/engine/tiles-inl.h"
#include "cpu/kernels/rotations-inl.h"
#include "cpu/kernels/sines-inl.h"
#include "cpu/thresholds.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// The samples that go through the engine together.
struct SampleGroup {
  Index first = 0;
  int count = 1;

  // Lanes beyond the last sample go along with it; nothing of theirs is kept.
  Index sample(int lane) const { return first + std::min(lane, count - 1); }
};

// One direction of the sweep through a plan's rotations: the parameters of each operation, and what is done with them.
// V is the scalar for a single state, the vector of lanes for a batch.
template <class V>
class PassRunner {
 protected:
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;
  static constexpr bool single = width == 1;
  using Cell = typename TileRunner<V>::Cell;
  using Sums = typename TileRunner<V>::Sums;
  using Factor = typename Workspace<V>::Factor;
  using Lanes = decltype(Row<T>{} < Row<T>{});

 public:
  PassRunner(const Call<T>& call, const Plan& plan, bool inverse, TileRunner<V>& tiles)
      : call_(call), plan_(plan), inverse_(inverse), tiles_(tiles) {
    int operations = 0;
    first_operation_.reserve(plan.passes.size());
    for (const Pass& pass : plan.passes) {
      first_operation_.push_back(operations);
      operations += static_cast<int>(pass.operations.size());
    }
    parameters_.resize(operations);
    auto n = parameters_.begin();
    for (const Pass& pass : plan.passes) {
      for (const TileOp& op : pass.operations) {
        n->per_sample = reads_batched(op);
        n->first_string = static_cast<int>(strings_.size());
        strings_.resize(strings_.size() + per_sample_strings(op));
        n->end_string = static_cast<int>(strings_.size());
        n->first_angle = static_cast<int>(halves_.size());
        halves_.resize(halves_.size() + per_sample_angles(op) * n->lanes());
        some_per_sample_ |= n->per_sample;
        ++n;
      }
    }
    sines_.resize(halves_.size());
    cosines_.resize(halves_.size());
  }

  // Computes the parameters for a group of samples; those that all samples share, only once.
  void start(const SampleGroup& group) {
    group_ = group;
    if (started_ && !some_per_sample_) return;
    version_ = tiles_.next_version();
    find_sines();
    double scale = 1;
    const int passes = static_cast<int>(plan_.passes.size());
    for (int i = 0; i < passes; ++i) {
      const int p = inverse_ ? passes - 1 - i : i;
      const std::vector<TileOp>& operations = plan_.passes[p].operations;
      const int count = static_cast<int>(operations.size());
      for (int k = 0; k < count; ++k) {
        const int at = inverse_ ? count - 1 - k : k;
        prepare(operations[at], parameters_[first_operation_[p] + at], scale);
      }
    }
    started_ = true;
    some_nan_ = std::any_of(parameters_.begin(), parameters_.end(), [](const OpParameters& n) { return n.some_nan; });
  }

  void forward(int index, T* state) {
    const Pass& pass = plan_.passes[index];
    tiles_.for_each(pass, some_nan_ ? pass.tiles.size() : pass.num_active_tiles, 0, nullptr,
                    [&](Index tile, Workspace<V>& work, double*) {
                      const Mask base = static_cast<Mask>(pass.tiles[tile]);
                      T* rows = tiles_.gather(pass, base, state, work.ket);
                      for (std::size_t k = 0; k < pass.operations.size(); ++k) {
                        if (pass.tiles.size() == 1 && tiles_.should_stop()) return;
                        apply(pass.operations[k], parameters_[first_operation_[index] + static_cast<int>(k)], pass,
                              base, rows, work);
                      }
                      tiles_.scatter(pass, base, rows, state);
                    });
  }

  // Whether this pass writes every row that it is handed.
  bool covers_state(int index) const {
    const Pass& pass = plan_.passes[index];
    return pass.gate_op == Element::none && pass.tiles.size() > 1 && pass.num_active_tiles == pass.tiles.size();
  }

  // The ket is read from `source`, which is `ket` itself or, of a pass that covers the state, something else.
  // `requested[rotation]`; adds to overlaps[rotation][lane] what is requested: Im<bra|P|ket>. Nobody may need the
  // states of the `last` pass.
  void backward(int index, const T* source, T* ket, T* bra, bool last, const std::vector<char>& requested,
                std::vector<double>& overlaps) {
    const Pass& pass = plan_.passes[index];
    rotations_.clear();
    for (const TileOp& op : pass.operations) append_rotations(op, rotations_);
    sums_.assign(rotations_.size() * width, 0.0);
    const Index size = static_cast<Index>(sums_.size());
    tiles_.for_each(pass, some_nan_ ? pass.tiles.size() : pass.num_active_tiles, size, sums_.data(),
                    [&](Index tile, Workspace<V>& work, double* sums) {
                      const Mask base = static_cast<Mask>(pass.tiles[tile]);
                      T* ket_rows = tiles_.gather(pass, base, source, work.ket);
                      T* bra_rows = tiles_.gather(pass, base, bra, work.bra);
                      double* at = sums + size;
                      for (int k = static_cast<int>(pass.operations.size()) - 1; k >= 0; --k) {
                        if (pass.tiles.size() == 1 && tiles_.should_stop()) return;
                        at -= rotation_count(pass.operations[k]) * width;
                        undo(pass.operations[k], parameters_[first_operation_[index] + k], pass, base, ket_rows,
                             bra_rows, work, requested, at);
                      }
                      if (last) return;
                      tiles_.scatter(pass, base, ket_rows, ket);
                      tiles_.scatter(pass, base, bra_rows, bra);
                    });
    for (std::size_t j = 0; j < rotations_.size(); ++j) {
      for (int l = 0; l < width; ++l) overlaps[rotations_[j] * width + l] += sums_[j * width + l];
    }
  }

 protected:
  struct OpParameters {
    int lanes() const { return per_sample ? width : 1; }  // that parameters are found for

    bool per_sample = false;  // some sample has its own
    bool ready = false;
    bool some_nan = false;    // of any sample so far
    double scale_before = 1;  // true state = this times the state in memory, before the operation
    double scale_after = 1;
    int first_angle = 0;  // of the halved angles, with a row of lanes each, if they are per sample
    Angles<T> angles;     // of a block, tile signs left out
    // Of phases: the strings of which samples have their own, and those that lanes share, with one table made once.
    int first_string = 0;
    int end_string = 0;
    LaneVector<PhaseParameters<double>> shared_strings;
    double shared_scale = 1;
    LaneVector<PhaseFactor<T>> shared_factors;
    double factor_scale = 1;
  };

  // --- parameters ----------------------------------------------------------------------------------------------------

  bool reads_batched(int rotation) const {
    const int input = plan_.rotations[rotation].angle.input;
    return input != no_input && call_.inputs[input].batched;
  }

  bool reads_batched(const std::vector<int>& rotations) const {
    return std::any_of(rotations.begin(), rotations.end(), [&](int t) { return reads_batched(t); });
  }

  bool reads_batched(const TileOp& op) const {
    if (const auto* block = std::get_if<RotationBlock>(&op)) return reads_batched(block->rotations);
    const auto& strings = std::get<Phases>(op).strings;
    return std::any_of(strings.begin(), strings.end(),
                       [&](const PhaseString& s) { return reads_batched(s.rotations); });
  }

  bool is_per_sample(const PhaseString& s) const { return single || reads_batched(s.rotations); }

  std::size_t per_sample_strings(const TileOp& op) const {
    const auto* phases = std::get_if<Phases>(&op);
    if (phases == nullptr) return 0;
    const auto& strings = phases->strings;
    return std::count_if(strings.begin(), strings.end(), [&](const PhaseString& s) { return is_per_sample(s); });
  }

  // Of the rotations of a block, or of strings with factors of their own.
  std::size_t per_sample_angles(const TileOp& op) const {
    const auto* block = std::get_if<RotationBlock>(&op);
    return block != nullptr ? block->rotations.size() : per_sample_strings(op);
  }

  // Of all operations at once, so that the sines are those of many angles.
  void find_sines() {
    auto n = parameters_.begin();
    for (const Pass& pass : plan_.passes) {
      for (const TileOp& op : pass.operations) find_halves(op, *n++);
    }
    sines_and_cosines(halves_.data(), sines_.data(), cosines_.data(), static_cast<int>(halves_.size()));
  }

  void find_halves(const TileOp& op, const OpParameters& n) {
    if (n.ready && !n.per_sample) return;
    const int lanes = n.lanes();
    double* half = halves_.data() + n.first_angle;
    const auto add = [&](const auto& angle_in) {
      for (int l = 0; l < lanes; ++l) *half++ = 0.5 * angle_in(l);
    };
    if (const auto* block = std::get_if<RotationBlock>(&op)) {
      for (const int t : block->rotations) add([&](int l) { return angle(t, l); });
    } else {
      for (const PhaseString& s : std::get<Phases>(op).strings) {
        if (is_per_sample(s)) add([&](int l) { return string_angle(s, l); });
      }
    }
  }

  double angle(int rotation, int lane) const {
    const Slot& slot = plan_.rotations[rotation].angle;
    const double value = slot.input == no_input ? slot.offset : call_.value(slot, group_.sample(lane));
    return inverse_ ? -value : value;
  }

  // -i P of a real Pauli word is +-1 times what the kernels take it for, by i^y_count and the wire map's offset.
  static double sign_of(const PauliWord& pauli_word) {
    return (pauli_word.y_count % 4 == 3) != pauli_word.negative ? -1 : 1;
  }

  // Goes over an operation in the order of the sweep; `scale` is what the state in memory lacks.
  void prepare(const TileOp& op, OpParameters& n, double& scale) {
    // In lanes, what has parameters of its own adds nothing to the scale of all.
    if (!n.ready || n.per_sample || single) {
      n.scale_before = scale;
      if (const auto* block = std::get_if<RotationBlock>(&op)) {
        prepare_block(*block, n);
      } else {
        prepare_phases(std::get<Phases>(op), n);
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

  void prepare_block(const RotationBlock& block, OpParameters& n) {
    const std::size_t k = block.rotations.size();
    double cosines = n.scale_before;
    const int lanes = n.lanes();
    const double* cosine = cosines_.data() + n.first_angle;
    const double* sine = sines_.data() + n.first_angle;
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
      const double sign = sign_of(plan_.rotations[block.rotations[j]].pauli_word);
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

  static double square_length(T x, T y) {
    return static_cast<double>(x) * static_cast<double>(x) + static_cast<double>(y) * static_cast<double>(y);
  }

  void prepare_phases(const Phases& phases, OpParameters& n) {
    if constexpr (single) {
      n.factor_scale = apply_scale(phases, n, prepare_per_sample_strings(phases, n));
    } else {
      prepare_per_sample_strings(phases, n);
      if (!n.ready) prepare_shared_strings(phases, n);
    }
  }

  // `square`: how long the factors are in the numbers that they are rounded to, squared. Returns what they are to be
  // multiplied by.
  double apply_scale(const Phases& phases, OpParameters& n, double square) const {
    const double lacking = n.scale_before / std::sqrt(square);
    const double taken = scale_to_apply(lacking, applies_scale(phases));
    n.scale_after = applies_scale(phases) ? 1 : lacking / taken;
    return taken;
  }

  // Returns the mean square of the factors of a single state, up to roundings that differ from row to row.
  double prepare_per_sample_strings(const Phases& phases, OpParameters& n) {
    PhaseParameters<Row<T>>* own = strings_.data() + n.first_string;
    int at = n.first_angle;
    PhaseFactor<Row<T>> start{Row<T>{} + 1, Row<T>{}};
    double square = 1;
    for (const PhaseString& s : phases.strings) {
      if (!is_per_sample(s)) continue;
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
  void prepare_shared_strings(const Phases& phases, OpParameters& n) {
    for (const PhaseString& s : phases.strings) {
      if (is_per_sample(s)) continue;
      const double half = 0.5 * string_angle(s, 0);
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
  double mean_square_of_shared(const OpParameters& n) const {
    if constexpr (std::is_same_v<T, double>) return n.shared_scale * n.shared_scale;
    double squares = 0;
    for (const PhaseFactor<double>& f : exact_factors_)
      squares += square_length(static_cast<T>(n.shared_scale * f.re), static_cast<T>(n.shared_scale * f.im));
    return squares / static_cast<double>(call_.dimension());
  }

  // Tables for all phases of a long circuit could take more than its states; then each is made when it is used.
  bool keeps_tables() const {
    const double bytes = static_cast<double>(parameters_.size() * call_.dimension()) * sizeof(PhaseFactor<T>);
    return bytes <= static_cast<double>(largest_tables);
  }

  // Products are formed in double and rounded once, so that both factors of a string are equally long.
  void fill_shared(const OpParameters& n, LaneVector<PhaseFactor<double>>& exact) const {
    exact.resize(call_.dimension());
    LaneVector<VaryingFactor<double>> varying;
    fill_phases(exact.data(), call_.program().num_wires, std::span<const PhaseParameters<double>>(n.shared_strings),
                1.0, varying);
  }

  static void round_shared(const OpParameters& n, const LaneVector<PhaseFactor<double>>& exact,
                           LaneVector<PhaseFactor<T>>& table) {
    table.resize(exact.size());
    for (std::size_t r = 0; r < exact.size(); ++r)
      table[r] = {static_cast<T>(n.shared_scale * exact[r].re), static_cast<T>(n.shared_scale * exact[r].im)};
  }

  double string_angle(const PhaseString& s, int lane) const {
    double total = 0;
    for (const int t : s.rotations)
      total += plan_.rotations[t].pauli_word.negative != s.negative ? -angle(t, lane) : angle(t, lane);
    return total;
  }

  // `at` is the place of its half angles.
  PhaseParameters<Row<T>> per_sample_parameters(const PhaseString& s, int at) const {
    PhaseParameters<Row<T>> n;
    n.row_mask = s.row_mask;
    for (int l = 0; l < batch_lanes<T>; ++l) {
      const int from = single ? at : at + l;
      const PhaseParameters<T> one = phase_parameters<T>(s.row_mask, cosines_[from], sines_[from]);
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

  // --- a tile --------------------------------------------------------------------------------------------------------

  // Groups of a block that are gone over together, and the lanes that it rotates there.
  struct Part {
    Groups groups;
    const Lanes* lanes = nullptr;  // all of them

    // The vector at the lanes that are rotated, and a number at the others.
    Row<T> only(const Row<T>& v, T otherwise) const {
      return lanes == nullptr ? v : (*lanes ? v : Row<T>{} + otherwise);
    }
  };

  // NaN is NaN even where it meets zeros.
  Groups groups_to_visit(const IndexMap& groups, Index num_active) const {
    return {groups, some_nan_ ? groups.size() : num_active};
  }

  Angles<T> angles_in_tile(const RotationBlock& block, const OpParameters& n, Mask base, const Part& part) const {
    Angles<T> angles = n.angles;
    for (std::size_t j = 0; j < block.rotations.size(); ++j) {
      if (odd_parity(block.tile_sign[j] & base)) angles.b[j] = -angles.b[j];
      if (part.lanes == nullptr) continue;
      angles.a[j] = part.only(angles.a[j], 1);
      angles.b[j] = part.only(angles.b[j], 0);
    }
    return angles;
  }

  // Calls f(part, angles) for what a block rotates in a tile.
  template <class F>
  void for_each_part(const RotationBlock& block, const OpParameters& n, Mask base, const F& f) const {
    const auto visit = [&](const Part& part) { f(part, angles_in_tile(block, n, base, part)); };
    const Groups groups = groups_to_visit(block.groups, block.num_active);
    if (!block.half) return visit({groups});
    const BlockHalf& half = *block.half;
    const auto visit_half = [&](const Groups& some, bool odd) {
      const bool is_odd = odd_parity(half.tile_mask & base) != (odd != half.even);
      if (half.lane_mask == 0) return is_odd ? visit({some}) : void();
      const Lanes lanes = lanes_of_parity<T>(half.lane_mask, is_odd);
      visit({some, &lanes});
    };
    visit_half(groups, false);
    if (half.odd_groups) visit_half(groups_to_visit(*half.odd_groups, half.num_odd_active), true);
  }

  Index rows_to_visit(const Phases& phases) const { return some_nan_ ? phases.rows.size() : phases.num_active; }

  // The factors of strings of their own, for this tile.
  const Factor* factors(const Phases& phases, const OpParameters& n, const Pass& pass, Mask base,
                        Workspace<V>& work) const {
    const bool varies = pass.tiles.size() > 1;
    if (varies) {
      work.signs.clear();
      for (const PhaseString& s : phases.strings) work.signs.push_back(odd_parity(s.tile_mask & base) ? 1 : 0);
      if (work.filled_for == &n && work.filled_version == version_ && work.filled_signs == work.signs)
        return work.factors.data();
      work.strings.assign(strings_.begin() + n.first_string, strings_.begin() + n.end_string);
      for (std::size_t m = 0; m < work.signs.size(); ++m) {
        if (work.signs[m] == 0) continue;
        work.strings[m].start = conj(work.strings[m].start);
        work.strings[m].odd = conj(work.strings[m].odd);
      }
      work.filled_signs.swap(work.signs);
    }
    const Index rows = rows_to_visit(phases);
    work.factors.resize(rows);
    const int row_bits = std::countr_zero(static_cast<Mask>(rows));
    const std::span<const PhaseParameters<Row<T>>> own{strings_.begin() + n.first_string,
                                                       strings_.begin() + n.end_string};
    fill_phases(work.factors.data(), row_bits, varies ? std::span<const PhaseParameters<Row<T>>>(work.strings) : own,
                Row<T>{} + static_cast<T>(n.factor_scale), work.varying);
    work.filled_for = varies ? &n : nullptr;
    work.filled_version = version_;
    return work.factors.data();
  }

  // Calls f(table) for what a tile is multiplied by: factors that all samples share, and the others.
  template <class F>
  void for_each_table(const Phases& phases, const OpParameters& n, const Pass& pass, Mask base, Workspace<V>& work,
                      const F& f) const {
    if constexpr (!single) {
      if (!n.shared_strings.empty()) {
        if (n.shared_factors.empty()) {
          fill_shared(n, work.exact_factors);
          round_shared(n, work.exact_factors, work.shared_factors);
        }
        f((n.shared_factors.empty() ? work.shared_factors : n.shared_factors).data());
      }
    }
    if (n.first_string != n.end_string || n.factor_scale != 1) f(factors(phases, n, pass, base, work));
  }

  void apply(const TileOp& op, const OpParameters& n, const Pass& pass, Mask base, T* rows, Workspace<V>& work) const {
    if (const auto* block = std::get_if<RotationBlock>(&op)) {
      return for_each_part(*block, n, base, [&](const Part& part, const Angles<T>& angles) {
        apply_rotations(rows, *block, angles, part.groups);
      });
    }
    const Phases& phases = std::get<Phases>(op);
    for_each_table(phases, n, pass, base, work,
                   [&](const auto* table) { apply_phases<Cell>(rows, table, phases.rows, rows_to_visit(phases)); });
  }

  static Index rotation_count(const TileOp& op) {
    if (const auto* block = std::get_if<RotationBlock>(&op)) return static_cast<Index>(block->rotations.size());
    Index count = 0;
    for (const PhaseString& s : std::get<Phases>(op).strings) count += static_cast<Index>(s.rotations.size());
    return count;
  }

  static void append_rotations(const TileOp& op, std::vector<int>& rotations) {
    if (const auto* block = std::get_if<RotationBlock>(&op)) {
      rotations.insert(rotations.end(), block->rotations.begin(), block->rotations.end());
      return;
    }
    for (const PhaseString& s : std::get<Phases>(op).strings)
      rotations.insert(rotations.end(), s.rotations.begin(), s.rotations.end());
  }

  void undo(const TileOp& op, const OpParameters& n, const Pass& pass, Mask base, T* ket, T* bra, Workspace<V>& work,
            const std::vector<char>& requested, double* sums) const {
    if (const auto* block = std::get_if<RotationBlock>(&op))
      return undo_block(*block, n, base, ket, bra, requested, sums);
    undo_phases_of(std::get<Phases>(op), n, pass, base, ket, bra, work, requested, sums);
  }

  void undo_block(const RotationBlock& block, const OpParameters& n, Mask base, T* ket, T* bra,
                  const std::vector<char>& requested, double* sums) const {
    const bool any =
        std::any_of(block.rotations.begin(), block.rotations.end(), [&](int t) { return requested[t] != 0; });
    for_each_part(block, n, base, [&](const Part& part, const Angles<T>& angles) {
      if (!any) return undo_rotations<false>(ket, bra, block, angles, part.groups, static_cast<Row<T>*>(nullptr));
      Row<T> found[RotationBlock::most] = {};
      undo_rotations<true>(ket, bra, block, angles, part.groups, found);
      add_block_sums(block, n, base, part, found, sums);
    });
  }

  void add_block_sums(const RotationBlock& block, const OpParameters& n, Mask base, const Part& part,
                      const Row<T>* found, double* sums) const {
    for (std::size_t j = 0; j < block.rotations.size(); ++j) {
      const double sign =
          sign_of(plan_.rotations[block.rotations[j]].pauli_word) * (odd_parity(block.tile_sign[j] & base) ? -1 : 1);
      TileRunner<V>::add_sum(part.only(found[j], 0), lane_signs<T>(block.lane_sign[j]),
                             sign * n.scale_before * n.scale_before, sums + j * width);
    }
  }

  void undo_phases_of(const Phases& phases, const OpParameters& n, const Pass& pass, Mask base, T* ket, T* bra,
                      Workspace<V>& work, const std::vector<char>& requested, double* sums) const {
    const bool any = requests_any(phases, requested);
    const Index rows = rows_to_visit(phases);
    if (any) work.products.resize(rows / Cell::packed_together);
    bool left = any;
    for_each_table(phases, n, pass, base, work, [&](const auto* table) {
      if (std::exchange(left, false)) {
        undo_phases<Cell, true>(ket, bra, table, phases.rows, rows, work.products.data());
      } else {
        undo_phases<Cell, false>(ket, bra, table, phases.rows, rows, work.products.data());
      }
    });
    if (any) add_phase_sums(phases, n, base, rows, work, sums);
  }

  static bool requests_any(const Phases& phases, const std::vector<char>& requested) {
    bool any = false;
    for (const PhaseString& s : phases.strings) {
      for (const int t : s.rotations) any |= requested[t] != 0;
    }
    return any;
  }

  void add_phase_sums(const Phases& phases, const OpParameters& n, Mask base, Index rows, Workspace<V>& work,
                      double* sums) const {
    hadamard(work.products.data(), static_cast<Index>(work.products.size()));
    const double factor = n.scale_before * n.scale_before;
    for (const PhaseString& s : phases.strings) {
      const Mask place = Sums::place(s.row_mask & static_cast<Mask>(rows - 1), s.lane_mask);
      const Row<T> signs = Sums::signs(place);
      const Row<T>& sum = work.products[Sums::vector(place)];
      for (const int t : s.rotations) {
        const bool negative = (plan_.rotations[t].pauli_word.negative != s.negative) != odd_parity(s.tile_mask & base);
        TileRunner<V>::add_sum(sum, signs, negative ? -factor : factor, sums);
        sums += width;
      }
    }
  }

  const Call<T>& call_;
  const Plan& plan_;
  const bool inverse_;
  const double smallest_scale_ = std::ldexp(1.0, -thresholds().scale_bits);
  TileRunner<V>& tiles_;
  SampleGroup group_;
  bool started_ = false;
  bool some_per_sample_ = false;
  bool some_nan_ = false;
  Index version_ = 0;  // of the parameters
  std::vector<int> first_operation_;
  LaneVector<OpParameters> parameters_;
  std::vector<double> halves_;  // angles, with their sines and cosines
  std::vector<double> sines_;
  std::vector<double> cosines_;
  LaneVector<PhaseParameters<Row<T>>> strings_;  // of all operations
  LaneVector<PhaseFactor<double>> exact_factors_;
  std::vector<int> rotations_;  // of a pass
  std::vector<double> sums_;
};

}  // namespace
}  // namespace ketgrad
