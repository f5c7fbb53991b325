// The passes of a plan over tiles: rotations and phases are applied to a state, or undone on ket and bra while their
// overlaps are taken.
#pragma once

#include <algorithm>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "cpu/engine/tile_parameters-inl.h"
#include "cpu/engine/tiles-inl.h"
#include "cpu/gradient_sink.h"
#include "cpu/kernels/phases-inl.h"
#include "cpu/kernels/rotations-inl.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

inline Index rotation_count(const TileOp& op) {
  if (std::holds_alternative<CosetPhase>(op)) return 1;
  if (const auto* block = std::get_if<RotationBlock>(&op)) return static_cast<Index>(block->rotations.size());
  Index count = 0;
  for (const DiagonalRotation& s : std::get<Phases>(op).strings) count += static_cast<Index>(s.rotations.size());
  return count;
}

inline void append_rotations(const TileOp& op, std::vector<int>& rotations) {
  if (const auto* block = std::get_if<RotationBlock>(&op)) {
    rotations.insert(rotations.end(), block->rotations.begin(), block->rotations.end());
    return;
  }
  if (const auto* phase = std::get_if<CosetPhase>(&op)) return rotations.push_back(phase->rotation);
  for (const DiagonalRotation& s : std::get<Phases>(op).strings)
    rotations.insert(rotations.end(), s.rotations.begin(), s.rotations.end());
}

inline bool requests_any(std::span<const int> rotations, const std::vector<char>& requested) {
  return std::any_of(rotations.begin(), rotations.end(), [&](int t) { return requested[t] != 0; });
}

inline bool requests_any(const RotationBlock& block, const std::vector<char>& requested) {
  return requests_any(block.rotations, requested);
}

inline bool requests_any(const Phases& phases, const std::vector<char>& requested) {
  return std::any_of(phases.strings.begin(), phases.strings.end(),
                     [&](const DiagonalRotation& s) { return requests_any(s.rotations, requested); });
}

// Overlaps of bra and ket as the kernels leave them, in rows and tables of signs, as overlaps of rotations:
// Im<bra|P|ket>.
template <class V>
class RotationOverlaps {
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;
  using Sums = typename TileRunner<V>::Sums;

 public:
  explicit RotationOverlaps(const Plan& plan) : plan_(plan) {}

  // sums[rotation of the block][lane] += what is found in a part of it.
  void add_of_block(const RotationBlock& block, const OpParameters<V>& n, Mask base,
                    const typename TileParameters<V>::Part& part, const Row<T>* found, double* sums) const {
    for (std::size_t j = 0; j < block.rotations.size(); ++j) {
      const double sign =
          real_sign(plan_.rotations[block.rotations[j]].pauli_word) * (odd_parity(block.tile_sign[j] & base) ? -1 : 1);
      TileRunner<V>::add_sum(part.only(found[j], 0), lane_signs<T>(block.lane_sign[j]),
                             sign * n.scale_before * n.scale_before, sums + j * width);
    }
  }

  // sums[rotation][lane] += ..., from Im(conj(bra) ket) of each amplitude, in work.products.
  void add_of_phases(const Phases& phases, const OpParameters<V>& n, Mask base, Index rows, Workspace<V>& work,
                     double* sums) const {
    hadamard(work.products.data(), static_cast<Index>(work.products.size()));
    const double factor = n.scale_before * n.scale_before;
    for (const DiagonalRotation& s : phases.strings) {
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

  // sums[lane] += Im(conj(bra) ket), summed over the coset.
  static void add_of_coset(const OpParameters<V>& n, const Row<T>& found, double* sums) {
    TileRunner<V>::add_sum(found, Row<T>{} + 1, n.scale_before * n.scale_before, sums);
  }

 private:
  const Plan& plan_;
};

// The sums of a pass's overlaps, [rotation][lane] in the order of its operations.
template <class V>
class PassSums {
  static constexpr int width = lane_width<V>;

 public:
  void start(const TilePass& pass) {
    rotations_.clear();
    for (const TileOp& op : pass.operations) append_rotations(op, rotations_);
    sums_.assign(rotations_.size() * width, 0.0);
  }

  Index size() const { return static_cast<Index>(sums_.size()); }
  double* data() { return sums_.data(); }

  // overlaps[rotation of the plan][lane]
  void add_to(std::vector<double>& overlaps) const {
    for (std::size_t j = 0; j < rotations_.size(); ++j) {
      for (int l = 0; l < width; ++l) overlaps[rotations_[j] * width + l] += sums_[j * width + l];
    }
  }

 private:
  std::vector<int> rotations_;
  std::vector<double> sums_;
};

// One direction of the sweep. V is the scalar for a single state, the vector of lanes for a batch.
template <class V>
class RotationPasses {
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;
  using Cell = typename TileRunner<V>::Cell;
  using Part = typename TileParameters<V>::Part;
  using CosetPart = typename TileParameters<V>::CosetPart;

 public:
  RotationPasses(const Call<T>& call, const Plan& plan, bool inverse, const SampleGroup& group, TileRunner<V>& tiles)
      : plan_(plan), tiles_(tiles), parameters_(call, plan, inverse, group), tile_(parameters_), overlaps_(plan) {}
  RotationPasses(const RotationPasses&) = delete;
  RotationPasses& operator=(const RotationPasses&) = delete;

  // To be called for each group of samples.
  void start() { parameters_.start(); }

  void forward(int index, T* state) {
    const auto& pass = std::get<TilePass>(plan_.passes[index]);
    tiles_.for_each(pass, tile_.tiles_to_visit(pass), 0, nullptr, [&](Index tile, Workspace<V>& work, double*) {
      const Mask base = static_cast<Mask>(pass.tiles[tile]);
      T* rows = tiles_.gather(pass, base, state, work.ket);
      for (std::size_t k = 0; k < pass.operations.size(); ++k) {
        if (pass.tiles.size() == 1 && tiles_.should_stop()) return;
        apply(pass.operations[k], parameters_[parameters_.number(index, static_cast<int>(k))], pass, base, rows, work);
      }
      tiles_.scatter(pass, base, rows, state);
    });
  }

  // Whether this pass writes every row that it is handed.
  bool covers_state(int index) const {
    const auto* pass = std::get_if<TilePass>(&plan_.passes[index]);
    return pass != nullptr && pass->tiles.size() > 1 && pass->num_active_tiles == pass->tiles.size();
  }

  // The ket is read from `source`, which is `ket` itself or, of a pass that covers the state, something else.
  // `requested[rotation]`; adds to overlaps[rotation][lane] what is requested: Im<bra|P|ket>. Nobody may need the
  // states of the `last` pass.
  void backward(int index, const T* source, T* ket, T* bra, bool last, const std::vector<char>& requested,
                std::vector<double>& overlaps) {
    const auto& pass = std::get<TilePass>(plan_.passes[index]);
    sums_.start(pass);
    const Index size = sums_.size();
    tiles_.for_each(pass, tile_.tiles_to_visit(pass), size, sums_.data(),
                    [&](Index tile, Workspace<V>& work, double* sums) {
                      const Mask base = static_cast<Mask>(pass.tiles[tile]);
                      T* ket_rows = tiles_.gather(pass, base, source, work.ket);
                      T* bra_rows = tiles_.gather(pass, base, bra, work.bra);
                      double* at = sums + size;
                      for (int k = static_cast<int>(pass.operations.size()) - 1; k >= 0; --k) {
                        if (pass.tiles.size() == 1 && tiles_.should_stop()) return;
                        at -= rotation_count(pass.operations[k]) * width;
                        undo(pass.operations[k], parameters_[parameters_.number(index, k)], pass, base, ket_rows,
                             bra_rows, work, requested, at);
                      }
                      if (last) return;
                      tiles_.scatter(pass, base, ket_rows, ket);
                      tiles_.scatter(pass, base, bra_rows, bra);
                    });
    sums_.add_to(overlaps);
  }

 private:
  void apply(const TileOp& op, const OpParameters<V>& n, const TilePass& pass, Mask base, T* rows,
             Workspace<V>& work) const {
    if (const auto* block = std::get_if<RotationBlock>(&op)) {
      return tile_.for_each_part(*block, n, base, [&](const Part& part, const Angles<T>& angles) {
        apply_rotations(rows, *block, angles, part.groups);
      });
    }
    if (const auto* phase = std::get_if<CosetPhase>(&op)) {
      return tile_.for_coset(phase->coset, base, [&](const CosetPart& part) {
        apply_coset_phase(rows, CosetFactors<Cell>(n.angles.a[0], n.angles.b[0], part.lanes, part.rows.conditions),
                          part.rows);
      });
    }
    const Phases& phases = std::get<Phases>(op);
    tile_.for_each_table(phases, n, pass, base, work, [&](const auto* table) {
      apply_phases<Cell>(rows, table, phases.rows, tile_.rows_to_visit(phases));
    });
  }

  void undo(const TileOp& op, const OpParameters<V>& n, const TilePass& pass, Mask base, T* ket, T* bra,
            Workspace<V>& work, const std::vector<char>& requested, double* sums) const {
    if (const auto* block = std::get_if<RotationBlock>(&op))
      return undo_block(*block, n, base, ket, bra, requested, sums);
    if (const auto* phase = std::get_if<CosetPhase>(&op)) {
      return tile_.for_coset(phase->coset, base, [&](const CosetPart& part) {
        const CosetFactors<Cell> factors(n.angles.a[0], n.angles.b[0], part.lanes, part.rows.conditions);
        overlaps_.add_of_coset(n, undo_coset_phase(ket, bra, factors, part.lanes, part.rows), sums);
      });
    }
    undo_phases_of(std::get<Phases>(op), n, pass, base, ket, bra, work, requested, sums);
  }

  void undo_block(const RotationBlock& block, const OpParameters<V>& n, Mask base, T* ket, T* bra,
                  const std::vector<char>& requested, double* sums) const {
    const bool any = requests_any(block, requested);
    tile_.for_each_part(block, n, base, [&](const Part& part, const Angles<T>& angles) {
      if (!any) return undo_rotations<false>(ket, bra, block, angles, part.groups, static_cast<Row<T>*>(nullptr));
      Row<T> found[RotationBlock::most] = {};
      undo_rotations<true>(ket, bra, block, angles, part.groups, found);
      overlaps_.add_of_block(block, n, base, part, found, sums);
    });
  }

  void undo_phases_of(const Phases& phases, const OpParameters<V>& n, const TilePass& pass, Mask base, T* ket, T* bra,
                      Workspace<V>& work, const std::vector<char>& requested, double* sums) const {
    const bool any = requests_any(phases, requested);
    const Index rows = tile_.rows_to_visit(phases);
    if (any) work.products.resize(rows / Cell::packed_together);
    bool left = any;
    tile_.for_each_table(phases, n, pass, base, work, [&](const auto* table) {
      if (std::exchange(left, false)) {
        undo_phases<Cell, true>(ket, bra, table, phases.rows, rows, work.products.data());
      } else {
        undo_phases<Cell, false>(ket, bra, table, phases.rows, rows, work.products.data());
      }
    });
    if (any) overlaps_.add_of_phases(phases, n, base, rows, work, sums);
  }

  const Plan& plan_;
  TileRunner<V>& tiles_;
  RotationParameters<V> parameters_;
  const TileParameters<V> tile_;
  const RotationOverlaps<V> overlaps_;
  PassSums<V> sums_;
};

// Which of a plan's rotations have a requested gradient, and the overlaps that become these gradients.
template <class V>
class RotationGradients {
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;

 public:
  RotationGradients(const Call<T>& call, const Plan& plan, const SampleGroup& group)
      : call_(call), plan_(plan), group_(group) {}

  // To be called for each group of samples.
  void start(const GradientSink<T>& sink) {
    overlaps.assign(plan_.rotations.size() * width, 0.0);
    if (!requested.empty()) return;
    for (const Rotation& t : plan_.rotations) requested.push_back(sink.requests(t.angle.input) ? 1 : 0);
  }

  // d exp(-i angle/2 P) = -i/2 P: twice the real part with the bra is the overlap itself.
  void add_to(GradientSink<T>& sink) const {
    for (std::size_t t = 0; t < plan_.rotations.size(); ++t) {
      if (!requested[t]) continue;
      const Slot& slot = plan_.rotations[t].angle;
      const double* overlap = overlaps.data() + t * width;
      if (call_.sums_gradient(slot.input)) {
        double total = 0;
        for (int l = 0; l < group_.count; ++l) total += overlap[l];
        sink.add(slot, group_.sample(0), total);
      } else {
        for (int l = 0; l < group_.count; ++l) sink.add(slot, group_.sample(l), overlap[l]);
      }
    }
  }

  std::vector<char> requested;   // per rotation
  std::vector<double> overlaps;  // [rotation][lane]

 private:
  const Call<T>& call_;
  const Plan& plan_;
  const SampleGroup& group_;
};

}  // namespace
}  // namespace ketgrad
