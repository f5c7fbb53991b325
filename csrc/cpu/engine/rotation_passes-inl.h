// The passes of a plan over tiles: rotations, phases and matrices are applied to a state, or undone on ket and bra while
// their overlaps are taken.
#pragma once

#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "cpu/engine/pass_factors-inl.h"
#include "cpu/engine/pass_gradients-inl.h"
#include "cpu/engine/tile_parameters-inl.h"
#include "cpu/engine/tiles-inl.h"
#include "cpu/kernels/matrices-inl.h"
#include "cpu/kernels/phases-inl.h"
#include "cpu/kernels/rotations-inl.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// Overlaps of bra and ket as the kernels leave them, in rows and tables of signs, as overlaps of rotations, Im<bra|P|ket>,
// and of matrices.
template <class V>
class PassOverlaps {
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;
  using Sums = typename TileRunner<V>::Sums;

 public:
  explicit PassOverlaps(const Plan& plan) : plan_(plan) {}

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

  // sums[entry] += conj(bra) ket, summed over some groups.
  static void add_of_matrix(const TileMatrix& matrix, const OpParameters<V>& n, unsigned variant,
                            const MatrixGroups& groups, T* ket, T* bra, double* sums) {
    Row<T> found[2 * TileMatrix::largest * TileMatrix::largest];
    take_overlaps(ket, bra, matrix, groups, found);
    add_overlaps_of<T>(matrix, variant, found, n.scale_before * n.scale_before, sums);
  }

 private:
  const Plan& plan_;
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
  RotationPasses(const Call<T>& call, const Plan& plan, const SharedGateOps<T>& shared, bool inverse,
                 const SampleGroup& group, TileRunner<V>& tiles)
      : plan_(plan),
        tiles_(tiles),
        parameters_(call, plan, shared, inverse, group),
        tile_(parameters_),
        overlaps_(plan) {}
  RotationPasses(const RotationPasses&) = delete;
  RotationPasses& operator=(const RotationPasses&) = delete;

  // To be called for each group of samples.
  void start() { parameters_.start(); }

  void forward(int index, T* state) {
    const auto& pass = std::get<TilePass>(plan_.passes[index]);
    const std::span<const OpParameters<V>> parameters = parameters_.of_pass(index);
    factors_.start(pass, 1, [&](std::size_t k, const TileMatrix&) { return parameters[k].entries; });
    tiles_.for_each(pass, tile_.tiles_to_visit(pass), 0, nullptr, [&](Index tile, Workspace<V>& work, double*) {
      const Mask base = static_cast<Mask>(pass.tiles[tile]);
      T* rows = tiles_.gather(pass, base, state, work.ket);
      for (std::size_t k = 0; k < pass.operations.size(); ++k) {
        if (pass.tiles.size() == 1 && tiles_.should_stop()) return;
        apply(pass, k, parameters[k], base, rows, work);
      }
      tiles_.scatter(pass, base, rows, state);
    });
  }

  // Whether this pass writes every row that it is handed.
  bool covers_state(int index) const {
    const auto* pass = std::get_if<TilePass>(&plan_.passes[index]);
    return pass != nullptr && pass->tiles.size() > 1 && pass->num_active_tiles == pass->tiles.size();
  }

  // The ket is read from `source`, which is `ket` itself or, of a pass that covers the state, something else. Adds the
  // overlaps that are requested. Nobody may need the states of the `last` pass.
  void backward(int index, const T* source, T* ket, T* bra, bool last, PassGradients<V>& gradients) {
    const auto& pass = std::get<TilePass>(plan_.passes[index]);
    const std::span<const OpParameters<V>> parameters = parameters_.of_pass(index);
    factors_.start(pass, 1, [&](std::size_t k, const TileMatrix&) { return parameters[k].entries; });
    const Index size = PassGradients<V>::count(pass);
    sums_.assign(size, 0.0);
    tiles_.for_each(pass, tile_.tiles_to_visit(pass), size, sums_.data(),
                    [&](Index tile, Workspace<V>& work, double* sums) {
                      const Mask base = static_cast<Mask>(pass.tiles[tile]);
                      T* ket_rows = tiles_.gather(pass, base, source, work.ket);
                      T* bra_rows = tiles_.gather(pass, base, bra, work.bra);
                      double* at = sums + size;
                      for (std::size_t k = pass.operations.size(); k-- > 0;) {
                        if (pass.tiles.size() == 1 && tiles_.should_stop()) return;
                        at -= PassGradients<V>::count(pass.operations[k]);
                        undo(pass, k, parameters[k], base, ket_rows, bra_rows, work, gradients, at);
                      }
                      if (last) return;
                      tiles_.scatter(pass, base, ket_rows, ket);
                      tiles_.scatter(pass, base, bra_rows, bra);
                    });
    gradients.add(pass, sums_.data());
  }

 private:
  void apply(const TilePass& pass, std::size_t k, const OpParameters<V>& n, Mask base, T* rows,
             Workspace<V>& work) const {
    const TileOp& op = pass.operations[k];
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
    if (const auto* matrix = std::get_if<TileMatrix>(&op)) {
      return tile_.for_each_variant(*matrix, base, [&](unsigned variant, const MatrixGroups& groups) {
        apply_matrix(rows, *matrix, factors_.of(*matrix, k, variant), groups);
      });
    }
    const Phases& phases = std::get<Phases>(op);
    tile_.for_each_table(phases, n, pass, base, work, [&](const auto* table) {
      apply_phases<Cell>(rows, table, phases.rows, tile_.rows_to_visit(phases));
    });
  }

  void undo(const TilePass& pass, std::size_t k, const OpParameters<V>& n, Mask base, T* ket, T* bra,
            Workspace<V>& work, const PassGradients<V>& gradients, double* sums) const {
    const TileOp& op = pass.operations[k];
    if (const auto* block = std::get_if<RotationBlock>(&op))
      return undo_block(*block, n, base, ket, bra, gradients, sums);
    if (const auto* matrix = std::get_if<TileMatrix>(&op))
      return undo_matrix(*matrix, k, n, base, ket, bra, gradients.requests(*matrix) ? sums : nullptr);
    if (const auto* phase = std::get_if<CosetPhase>(&op)) {
      return tile_.for_coset(phase->coset, base, [&](const CosetPart& part) {
        const CosetFactors<Cell> factors(n.angles.a[0], n.angles.b[0], part.lanes, part.rows.conditions);
        overlaps_.add_of_coset(n, undo_coset_phase(ket, bra, factors, part.lanes, part.rows), sums);
      });
    }
    undo_phases_of(std::get<Phases>(op), n, pass, base, ket, bra, work, gradients, sums);
  }

  // Without `sums` no gradient is requested. Overlaps are of the bra behind the matrix and the ket before it.
  void undo_matrix(const TileMatrix& matrix, std::size_t k, const OpParameters<V>& n, Mask base, T* ket, T* bra,
                   double* sums) const {
    tile_.for_each_variant(matrix, base, [&](unsigned variant, const MatrixGroups& groups) {
      const Row<T>* factors = factors_.of(matrix, k, variant);
      apply_matrix(ket, matrix, factors, groups);
      if (sums != nullptr) overlaps_.add_of_matrix(matrix, n, variant, groups, ket, bra, sums);
      apply_matrix(bra, matrix, factors, groups);
    });
  }

  void undo_block(const RotationBlock& block, const OpParameters<V>& n, Mask base, T* ket, T* bra,
                  const PassGradients<V>& gradients, double* sums) const {
    const bool any = gradients.requests(block);
    tile_.for_each_part(block, n, base, [&](const Part& part, const Angles<T>& angles) {
      if (!any) return undo_rotations<false>(ket, bra, block, angles, part.groups, static_cast<Row<T>*>(nullptr));
      Row<T> found[RotationBlock::most] = {};
      undo_rotations<true>(ket, bra, block, angles, part.groups, found);
      overlaps_.add_of_block(block, n, base, part, found, sums);
    });
  }

  void undo_phases_of(const Phases& phases, const OpParameters<V>& n, const TilePass& pass, Mask base, T* ket, T* bra,
                      Workspace<V>& work, const PassGradients<V>& gradients, double* sums) const {
    const bool any = gradients.requests(phases);
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
  const PassOverlaps<V> overlaps_;
  PassFactors<T> factors_;
  std::vector<double> sums_;
};

}  // namespace
}  // namespace ketgrad
