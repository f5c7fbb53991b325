// The passes of a plan over tiles of states and their tangents (see tangents-inl.h).
#pragma once

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "cpu/engine/dual_coefficients-inl.h"
#include "cpu/engine/rotation_passes-inl.h"

namespace ketgrad {
namespace {

// --- rotations -------------------------------------------------------------------------------------------------------
//
// A rotation takes states and tangents alike; then a tangent gets a multiple of what the generator makes of its state.
// All is done while the rows of a group are at hand: bringing them costs more than what is done with them.

template <class Block, bool unnormalised, class T>
void rotate_tangent_groups(T* state, T* tangent, const RotationBlock& block, const Angles<T>& angles,
                           const Angles<T>& weights, const Groups& groups) {
  const Block local(block, angles);
  const Block generators(block, weights);
  for_each_index(groups.all, groups.count, [&](Index group) KETGRAD_ALWAYS_INLINE {
    const Index base = group * batch_lanes<T>;
    const auto signs = local.signs(group);
    Row<T> x[Block::rows];
    Row<T> d[Block::rows];
    load_rows(local, state, base, x);
    load_rows(local, tangent, base, d);
    local.template rotate<unnormalised>(x, signs);
    store_rows(local, state, base, x);
    local.template rotate<unnormalised>(d, signs);
    generators.generate(x, d, signs);
    store_rows(local, tangent, base, d);
  });
}

template <class T>
struct TangentStates {
  T* ket;
  T* ket_tangent;
  T* bra;
  T* bra_tangent;
};

// Back, as undo_groups. With `requested`, adds the derivatives of what that adds.
template <class Block, bool unnormalised, bool requested, class T>
void undo_tangent_groups(const TangentStates<T>& states, const RotationBlock& block, const Angles<T>& angles,
                         const Angles<T>& weights, const Groups& groups, Row<T>* sums) {
  const Block local(block, angles);
  const Block generators(block, weights);
  Row<T> sum[Block::rotations] = {};
  for_each_index(groups.all, groups.count, [&](Index group) KETGRAD_ALWAYS_INLINE {
    const Index base = group * batch_lanes<T>;
    const auto signs = local.signs(group);
    Row<T> x[Block::rows];
    Row<T> y[Block::rows];
    Row<T> dx[Block::rows];
    Row<T> dy[Block::rows];
    load_rows(local, states.ket, base, x);
    load_rows(local, states.bra_tangent, base, dy);
    if constexpr (requested) local.add_overlaps(x, dy, signs, sum);
    local.template rotate<unnormalised>(x, signs);
    store_rows(local, states.ket, base, x);
    local.template rotate<unnormalised>(dy, signs);
    load_rows(local, states.ket_tangent, base, dx);
    load_rows(local, states.bra, base, y);
    if constexpr (requested) local.add_overlaps(dx, y, signs, sum);
    local.template rotate<unnormalised>(dx, signs);
    generators.generate(x, dx, signs);
    store_rows(local, states.ket_tangent, base, dx);
    local.template rotate<unnormalised>(y, signs);
    store_rows(local, states.bra, base, y);
    generators.generate(y, dy, signs);
    store_rows(local, states.bra_tangent, base, dy);
  });
  if constexpr (requested) {
    for (int j = 0; j < Block::rotations; ++j) sums[j] += sum[j];
  }
}

template <class T>
void apply_tangent_rotations(T* state, T* tangent, const RotationBlock& block, const Angles<T>& angles,
                             const Angles<T>& weights, const Groups& groups) {
  with_kind<T>(block, angles.unnormalised, [&](auto kind, auto unnormalised) {
    rotate_tangent_groups<typename decltype(kind)::type, decltype(unnormalised)::value>(state, tangent, block, angles,
                                                                                        weights, groups);
  });
}

template <bool requested, class T>
void undo_tangent_rotations(const TangentStates<T>& states, const RotationBlock& block, const Angles<T>& angles,
                            const Angles<T>& weights, const Groups& groups, Row<T>* sums) {
  with_kind<T>(block, angles.unnormalised, [&](auto kind, auto unnormalised) {
    undo_tangent_groups<typename decltype(kind)::type, decltype(unnormalised)::value, requested>(states, block, angles,
                                                                                                 weights, groups, sums);
  });
}

// --- phases ----------------------------------------------------------------------------------------------------------

// tangent -= i f state, f(r) being a real function of the rows' numbers.
template <class Cell, class F>
void generate_phases(const typename Cell::Real* state, typename Cell::Real* tangent, const F& function,
                     const IndexMap& rows, Index end) {
  for_each_group<1>(rows, end, [&](Index r, const Index* row) KETGRAD_ALWAYS_INLINE {
    const Cell weighted = Cell::load(state, *row).times_i().times(function(r));
    Cell::load(tangent, *row).plus(weighted.times(Row<typename Cell::Real>{} - 1)).store(tangent, *row);
  });
}

// --- passes ----------------------------------------------------------------------------------------------------------

// Half of the angles' tangents, with which the generators of rotations are weighted.
template <class V>
class GeneratorWeights {
  using T = Scalar<V>;
  static constexpr bool single = lane_width<V> == 1;
  using Sums = typename TileRunner<V>::Sums;
  using Part = typename TileParameters<V>::Part;

 public:
  GeneratorWeights(const Call<T>& call, const Plan& plan, bool inverse, const SampleGroup& group,
                   const RotationParameters<V>& parameters)
      : call_(call),
        plan_(plan),
        inverse_(inverse),
        group_(group),
        parameters_(parameters),
        first_weight_(parameters.count(), -1),
        shared_functions_(single ? 0 : parameters.count()) {}

  // Computes the weights for the present group of samples, after its parameters.
  void start() {
    weights_.clear();
    std::size_t at = 0;
    for_each_tile_op(plan_, [&](const TileOp& op) { first_weight_[at++] = add_weights(op); });
  }

  // Whether an angle of the operation has a tangent.
  bool any(int operation) const { return first_weight_[operation] >= 0; }

  Angles<T> in_tile(const RotationBlock& block, int operation, Mask base, const Part& part) const {
    const int first = first_weight_[operation];
    Angles<T> weights{};
    for (std::size_t j = 0; j < block.rotations.size(); ++j) {
      const Row<T>& w = weights_[first + j];
      weights.b[j] = part.only(odd_parity(block.tile_sign[j] & base) ? -w : w, 0);
    }
    return weights;
  }

  // Of a phase on a coset; zero where its angle has no tangent.
  Row<T> of_coset(int operation) const {
    const int first = first_weight_[operation];
    return first < 0 ? Row<T>{} : weights_[first];
  }

  // Calls f with the sum over strings of weight (-1)^parity, a function of the rows, if an angle has a tangent. Where
  // all lanes share it, it is made once, of numbers.
  template <class F>
  void with_phase_function(const Phases& phases, int at, Mask base, Index rows, Workspace<V>& work, const F& f) const {
    const int first = first_weight_[at];
    if (first < 0) return;
    if constexpr (!single) {
      if (!parameters_[at].per_sample && parameters_.keeps_tables()) {
        LaneVector<T>& function = shared_functions_[at];
        if (static_cast<Index>(function.size()) != rows) fill_function(phases, first, rows, function);
        return f([&](Index r) { return Row<T>{} + function[r]; });
      }
    }
    const Row<T>* function = phase_function(phases, first, base, rows, work);
    f([&](Index r) { return Sums::function_at(function, r); });
  }

 private:
  bool has_tangent(int rotation) const { return call_.has_tangent(plan_.rotations[rotation].angle.input); }

  Row<T> weight(int rotation, double sign) const {
    const Slot& slot = plan_.rotations[rotation].angle;
    Row<T> w{};
    for (int l = 0; l < batch_lanes<T>; ++l) {
      const double tangent = call_.tangent(slot, group_.sample(single ? 0 : l));
      w[l] = static_cast<T>(0.5 * sign * (inverse_ ? -tangent : tangent));
    }
    return w;
  }

  // One weight a rotation of a block or a coset, one a string of phases. Returns where they begin, -1 where nothing has a tangent.
  int add_weights(const TileOp& op) {
    bool any = false;
    for_each_rotation(op, [&](int t) { any |= has_tangent(t); });
    if (!any) return -1;
    const int first = static_cast<int>(weights_.size());
    if (const auto* block = std::get_if<RotationBlock>(&op)) {
      for (std::size_t j = 0; j < block->rotations.size(); ++j) {
        const int t = block->rotations[j];
        const Row<T> w = weight(t, real_sign(plan_.rotations[t].pauli_word));
        weights_.push_back(single ? w * lane_signs<T>(block->lane_sign[j]) : w);
      }
      return first;
    }
    if (const auto* phase = std::get_if<CosetPhase>(&op)) {
      weights_.push_back(weight(phase->rotation, 1));
      return first;
    }
    for (const DiagonalRotation& s : std::get<Phases>(op).strings) {
      Row<T> total{};
      for (const int t : s.rotations) {
        if (has_tangent(t)) total += weight(t, plan_.rotations[t].pauli_word.negative != s.negative ? -1 : 1);
      }
      weights_.push_back(total);
    }
    return first;
  }

  const Row<T>* phase_function(const Phases& phases, int first, Mask base, Index rows, Workspace<V>& work) const {
    work.products.assign(Sums::vectors(rows), Row<T>{});
    for (std::size_t j = 0; j < phases.strings.size(); ++j) {
      const DiagonalRotation& s = phases.strings[j];
      const Mask place = Sums::place(s.row_mask & static_cast<Mask>(rows - 1), s.lane_mask);
      const Row<T> w = weights_[first + j] * Sums::signs(place);
      work.products[Sums::vector(place)] += odd_parity(s.tile_mask & base) ? -w : w;
    }
    hadamard(work.products.data(), static_cast<Index>(work.products.size()));
    return work.products.data();
  }

  void fill_function(const Phases& phases, int first, Index rows, LaneVector<T>& function) const {
    function.assign(rows, T(0));
    for (std::size_t j = 0; j < phases.strings.size(); ++j)
      function[phases.strings[j].row_mask & static_cast<Mask>(rows - 1)] += weights_[first + j][0];
    hadamard(function.data(), rows);
  }

  const Call<T>& call_;
  const Plan& plan_;
  const bool inverse_;
  const SampleGroup& group_;
  const RotationParameters<V>& parameters_;
  std::vector<int> first_weight_;  // per operation
  LaneVector<Row<T>> weights_;
  mutable std::vector<LaneVector<T>> shared_functions_;  // per operation, of what lanes share
};

// One direction of the sweep with tangents; see RotationPasses.
template <class V>
class TangentPasses {
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;
  using Cell = typename TileRunner<V>::Cell;
  using Part = typename TileParameters<V>::Part;
  using CosetPart = typename TileParameters<V>::CosetPart;

 public:
  using States = TangentStates<T>;
  using Gradients = PassGradients<DualOf<V>>;

  TangentPasses(const Call<T>& call, const Plan& plan, const SharedGateOps<T>& shared, bool inverse,
                const SampleGroup& group, TileRunner<V>& tiles)
      : plan_(plan),
        tiles_(tiles),
        parameters_(call, plan, shared, inverse, group),
        tile_(parameters_),
        weights_(call, plan, inverse, group, parameters_),
        overlaps_(plan),
        derivatives_(call, plan, group) {}
  TangentPasses(const TangentPasses&) = delete;
  TangentPasses& operator=(const TangentPasses&) = delete;

  // To be called for each group of samples.
  void start() {
    if (parameters_.start()) weights_.start();
  }

  void forward(int index, T* state, T* tangent) {
    const auto& pass = std::get<TilePass>(plan_.passes[index]);
    start_matrices(index, GateForm::itself, GateForm::itself);
    tiles_.for_each(pass, tile_.tiles_to_visit(pass), 0, nullptr, [&](Index tile, Workspace<V>& work, double*) {
      const Mask base = static_cast<Mask>(pass.tiles[tile]);
      T* rows = tiles_.gather(pass, base, state, work.ket);
      T* tangents = tiles_.gather(pass, base, tangent, work.ket_tangent);
      for (std::size_t k = 0; k < pass.operations.size(); ++k) {
        if (pass.tiles.size() == 1 && tiles_.should_stop()) return;
        apply(pass, k, parameters_.number(index, static_cast<int>(k)), base, rows, tangents, work);
      }
      tiles_.scatter(pass, base, rows, state);
      tiles_.scatter(pass, base, tangents, tangent);
    });
  }

  // Adds the derivatives of what the plain engine adds.
  void backward(int index, const States& states, bool last, Gradients& gradients) {
    const auto& pass = std::get<TilePass>(plan_.passes[index]);
    start_matrices(index, GateForm::inverse, GateForm::adjoint);
    const Index size = Gradients::count(pass);
    sums_.assign(size, 0.0);
    tiles_.for_each(pass, tile_.tiles_to_visit(pass), size, sums_.data(),
                    [&](Index tile, Workspace<V>& work, double* sums) {
                      const Mask base = static_cast<Mask>(pass.tiles[tile]);
                      const States rows{tiles_.gather(pass, base, states.ket, work.ket),
                                        tiles_.gather(pass, base, states.ket_tangent, work.ket_tangent),
                                        tiles_.gather(pass, base, states.bra, work.bra),
                                        tiles_.gather(pass, base, states.bra_tangent, work.bra_tangent)};
                      double* at = sums + size;
                      for (std::size_t k = pass.operations.size(); k-- > 0;) {
                        if (pass.tiles.size() == 1 && tiles_.should_stop()) return;
                        at -= Gradients::count(pass.operations[k]);
                        undo(pass, k, parameters_.number(index, static_cast<int>(k)), base, rows, work, gradients, at);
                      }
                      if (last) return;
                      tiles_.scatter(pass, base, rows.ket, states.ket);
                      tiles_.scatter(pass, base, rows.ket_tangent, states.ket_tangent);
                      tiles_.scatter(pass, base, rows.bra, states.bra);
                      tiles_.scatter(pass, base, rows.bra_tangent, states.bra_tangent);
                    });
    gradients.add(pass, sums_.data());
  }

 private:
  // Computes the factors of a pass's matrices and of the derivatives of their forms, by which first states are taken on:
  // the ket, and going back the bra.
  void start_matrices(int index, GateForm form, GateForm bra_form) {
    const auto& pass = std::get<TilePass>(plan_.passes[index]);
    const std::span<const OpParameters<V>> parameters = parameters_.of_pass(index);
    factors_.start(pass, 1, [&](std::size_t k, const TileMatrix&) { return parameters[k].entries; });
    const auto derivatives_of = [&](GateForm f) {
      return [this, f](std::size_t, const TileMatrix& matrix) { return derivatives_.of(matrix.gate_op, f); };
    };
    ket_derivatives_.start(pass, 0, derivatives_of(form));
    if (bra_form != form) bra_derivatives_.start(pass, 0, derivatives_of(bra_form));
  }

  // `derivatives` are those of the matrix's form.
  void apply_matrix_to(const TileMatrix& matrix, std::size_t k, unsigned variant, const MatrixGroups& groups,
                       const PassFactors<T>& derivatives, T* state, T* tangent) const {
    const Row<T>* factors = factors_.of(matrix, k, variant);
    if (derivatives_.any(matrix.gate_op))
      return apply_with_derivative(state, tangent, matrix, factors, derivatives.of(matrix, k, variant), groups);
    apply_matrix(state, matrix, factors, groups);
    apply_matrix(tangent, matrix, factors, groups);
  }

  void undo_matrix(const TileMatrix& matrix, std::size_t k, const OpParameters<V>& n, Mask base, const States& rows,
                   const Gradients& gradients, double* sums) const {
    double* const tangents = sums + entry_numbers(matrix);
    tile_.for_each_variant(matrix, base, [&](unsigned variant, const MatrixGroups& groups) {
      apply_matrix_to(matrix, k, variant, groups, ket_derivatives_, rows.ket, rows.ket_tangent);
      if (gradients.requests(matrix)) {
        overlaps_.add_of_matrix(matrix, n, variant, groups, rows.ket, rows.bra, sums);
        overlaps_.add_of_matrix(matrix, n, variant, groups, rows.ket, rows.bra_tangent, tangents);
        overlaps_.add_of_matrix(matrix, n, variant, groups, rows.ket_tangent, rows.bra, tangents);
      }
      apply_matrix_to(matrix, k, variant, groups, bra_derivatives_, rows.bra, rows.bra_tangent);
    });
  }

  void apply(const TilePass& pass, std::size_t k, int at, Mask base, T* rows, T* tangents, Workspace<V>& work) const {
    const TileOp& op = pass.operations[k];
    const OpParameters<V>& n = parameters_[at];
    if (const auto* matrix = std::get_if<TileMatrix>(&op)) {
      return tile_.for_each_variant(*matrix, base, [&](unsigned variant, const MatrixGroups& groups) {
        apply_matrix_to(*matrix, k, variant, groups, ket_derivatives_, rows, tangents);
      });
    }
    if (const auto* block = std::get_if<RotationBlock>(&op)) return apply_block(*block, at, base, rows, tangents);
    if (const auto* phase = std::get_if<CosetPhase>(&op)) {
      return tile_.for_coset(phase->coset, base, [&](const CosetPart& part) {
        const CosetFactors<Cell> factors(n.angles.a[0], n.angles.b[0], part.lanes, part.rows.conditions);
        apply_coset_phase(rows, factors, part.rows);
        apply_coset_phase(tangents, factors, part.rows);
        generate_coset_phase<Cell>(rows, tangents, weights_.of_coset(at), part.lanes, part.rows);
      });
    }
    const Phases& phases = std::get<Phases>(op);
    const Index visited = tile_.rows_to_visit(phases);
    tile_.for_each_table(phases, n, pass, base, work, [&](const auto* table) {
      apply_phases<Cell>(rows, table, phases.rows, visited);
      apply_phases<Cell>(tangents, table, phases.rows, visited);
    });
    weights_.with_phase_function(phases, at, base, visited, work, [&](const auto& function) {
      generate_phases<Cell>(rows, tangents, function, phases.rows, visited);
    });
  }

  void undo(const TilePass& pass, std::size_t k, int at, Mask base, const States& rows, Workspace<V>& work,
            const Gradients& gradients, double* sums) const {
    const TileOp& op = pass.operations[k];
    if (const auto* matrix = std::get_if<TileMatrix>(&op))
      return undo_matrix(*matrix, k, parameters_[at], base, rows, gradients, sums);
    if (const auto* block = std::get_if<RotationBlock>(&op)) return undo_block(*block, at, base, rows, gradients, sums);
    if (const auto* phase = std::get_if<CosetPhase>(&op)) return undo_coset_phase_of(*phase, at, base, rows, sums);
    undo_phases_of(std::get<Phases>(op), at, pass, base, rows, work, gradients, sums);
  }

  void undo_coset_phase_of(const CosetPhase& phase, int at, Mask base, const States& rows, double* sums) const {
    const OpParameters<V>& n = parameters_[at];
    tile_.for_coset(phase.coset, base, [&](const CosetPart& part) {
      const CosetFactors<Cell> factors(n.angles.a[0], n.angles.b[0], part.lanes, part.rows.conditions);
      const Row<T> first = undo_coset_phase(rows.ket, rows.bra_tangent, factors, part.lanes, part.rows);
      const Row<T> second = undo_coset_phase(rows.ket_tangent, rows.bra, factors, part.lanes, part.rows);
      overlaps_.add_of_coset(n, first + second, sums);
      generate_coset_phase<Cell>(rows.ket, rows.ket_tangent, weights_.of_coset(at), part.lanes, part.rows);
      generate_coset_phase<Cell>(rows.bra, rows.bra_tangent, weights_.of_coset(at), part.lanes, part.rows);
    });
  }

  void apply_block(const RotationBlock& block, int at, Mask base, T* rows, T* tangents) const {
    tile_.for_each_part(block, parameters_[at], base, [&](const Part& part, const Angles<T>& angles) {
      if (weights_.any(at)) {
        const Angles<T> weights = weights_.in_tile(block, at, base, part);
        return apply_tangent_rotations(rows, tangents, block, angles, weights, part.groups);
      }
      apply_rotations(rows, block, angles, part.groups);
      apply_rotations(tangents, block, angles, part.groups);
    });
  }

  void undo_block(const RotationBlock& block, int at, Mask base, const States& rows, const Gradients& gradients,
                  double* sums) const {
    const OpParameters<V>& n = parameters_[at];
    const bool any = gradients.requests(block);
    tile_.for_each_part(block, n, base, [&](const Part& part, const Angles<T>& angles) {
      Row<T> found[RotationBlock::most] = {};
      any ? undo_block_as<true>(block, at, base, rows, angles, part, found)
          : undo_block_as<false>(block, at, base, rows, angles, part, found);
      if (any) overlaps_.add_of_block(block, n, base, part, found, sums);
    });
  }

  template <bool requested>
  void undo_block_as(const RotationBlock& block, int at, Mask base, const States& rows, const Angles<T>& angles,
                     const Part& part, Row<T>* found) const {
    if (weights_.any(at)) {
      const Angles<T> weights = weights_.in_tile(block, at, base, part);
      return undo_tangent_rotations<requested>(rows, block, angles, weights, part.groups, found);
    }
    undo_rotations<requested>(rows.ket, rows.bra_tangent, block, angles, part.groups, found);
    undo_rotations<requested>(rows.ket_tangent, rows.bra, block, angles, part.groups, found);
  }

  void undo_phases_of(const Phases& phases, int at, const TilePass& pass, Mask base, const States& rows,
                      Workspace<V>& work, const Gradients& gradients, double* sums) const {
    const OpParameters<V>& n = parameters_[at];
    const bool any = gradients.requests(phases);
    const Index visited = tile_.rows_to_visit(phases);
    const Index products = visited / Cell::packed_together;
    if (any) {
      work.products.resize(products);
      work.more_products.resize(products);
    }
    bool left = any;
    tile_.for_each_table(phases, n, pass, base, work, [&](const auto* table) {
      Row<T>* first = work.products.data();
      Row<T>* second = work.more_products.data();
      if (std::exchange(left, false)) {
        undo_phases<Cell, true>(rows.ket, rows.bra_tangent, table, phases.rows, visited, first);
        undo_phases<Cell, true>(rows.ket_tangent, rows.bra, table, phases.rows, visited, second);
      } else {
        undo_phases<Cell, false>(rows.ket, rows.bra_tangent, table, phases.rows, visited, first);
        undo_phases<Cell, false>(rows.ket_tangent, rows.bra, table, phases.rows, visited, second);
      }
    });
    if (any) {
      for (Index i = 0; i < products; ++i) work.products[i] += work.more_products[i];
      overlaps_.add_of_phases(phases, n, base, visited, work, sums);
    }
    weights_.with_phase_function(phases, at, base, visited, work, [&](const auto& function) {
      generate_phases<Cell>(rows.ket, rows.ket_tangent, function, phases.rows, visited);
      generate_phases<Cell>(rows.bra, rows.bra_tangent, function, phases.rows, visited);
    });
  }

  const Plan& plan_;
  TileRunner<V>& tiles_;
  RotationParameters<V> parameters_;
  const TileParameters<V> tile_;
  GeneratorWeights<V> weights_;
  const PassOverlaps<V> overlaps_;
  MatrixDerivatives<V> derivatives_;
  PassFactors<T> factors_;
  PassFactors<T> ket_derivatives_;
  PassFactors<T> bra_derivatives_;
  std::vector<double> sums_;
};

}  // namespace
}  // namespace ketgrad
