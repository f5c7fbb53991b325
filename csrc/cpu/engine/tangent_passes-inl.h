// Runs the rotations of a plan on states and their tangents (see tangents-inl.h). after
// CircuitEngine.
#pragma once

#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

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

template <class V>
class TangentRunner : public PassRunner<V> {
  using Base = PassRunner<V>;
  using T = Scalar<V>;
  using typename Base::Cell;
  using typename Base::OpParameters;
  using typename Base::Part;
  using typename Base::Sums;

 public:
  TangentRunner(const Call<T>& call, const Plan& plan, bool inverse, TileRunner<V>& tiles)
      : Base(call, plan, inverse, tiles),
        first_weight_(this->parameters_.size(), -1),
        shared_functions_(Base::single ? 0 : this->parameters_.size()) {}

  void start(const SampleGroup& group) {
    const bool is_known = this->started_ && !this->some_per_sample_;
    Base::start(group);
    if (is_known) return;
    weights_.clear();
    std::size_t at = 0;
    for (const Pass& pass : this->plan_.passes) {
      for (const TileOp& op : pass.operations) first_weight_[at++] = add_weights(op);
    }
  }

  void forward(int index, T* state, T* tangent) {
    const Pass& pass = this->plan_.passes[index];
    this->tiles_.for_each(pass, tiles_to_visit(pass), 0, nullptr, [&](Index tile, Workspace<V>& work, double*) {
      const Mask base = static_cast<Mask>(pass.tiles[tile]);
      T* rows = this->tiles_.gather(pass, base, state, work.ket);
      T* tangents = this->tiles_.gather(pass, base, tangent, work.ket_tangent);
      for (std::size_t k = 0; k < pass.operations.size(); ++k) {
        if (pass.tiles.size() == 1 && this->tiles_.should_stop()) return;
        const int at = this->first_operation_[index] + static_cast<int>(k);
        apply(pass.operations[k], at, pass, base, rows, tangents, work);
      }
      this->tiles_.scatter(pass, base, rows, state);
      this->tiles_.scatter(pass, base, tangents, tangent);
    });
  }

  using States = TangentStates<T>;

  // Adds to overlaps[rotation][lane] the derivative of what the plain engine adds.
  void backward(int index, const States& states, bool last, const std::vector<char>& requested,
                std::vector<double>& overlaps) {
    constexpr int width = Base::width;
    const Pass& pass = this->plan_.passes[index];
    this->rotations_.clear();
    for (const TileOp& op : pass.operations) Base::append_rotations(op, this->rotations_);
    this->sums_.assign(this->rotations_.size() * width, 0.0);
    const Index size = static_cast<Index>(this->sums_.size());
    this->tiles_.for_each(
        pass, tiles_to_visit(pass), size, this->sums_.data(), [&](Index tile, Workspace<V>& work, double* sums) {
          const Mask base = static_cast<Mask>(pass.tiles[tile]);
          const States rows{this->tiles_.gather(pass, base, states.ket, work.ket),
                            this->tiles_.gather(pass, base, states.ket_tangent, work.ket_tangent),
                            this->tiles_.gather(pass, base, states.bra, work.bra),
                            this->tiles_.gather(pass, base, states.bra_tangent, work.bra_tangent)};
          double* at = sums + size;
          for (int k = static_cast<int>(pass.operations.size()) - 1; k >= 0; --k) {
            if (pass.tiles.size() == 1 && this->tiles_.should_stop()) return;
            at -= Base::rotation_count(pass.operations[k]) * width;
            undo(pass.operations[k], this->first_operation_[index] + k, pass, base, rows, work, requested, at);
          }
          if (last) return;
          this->tiles_.scatter(pass, base, rows.ket, states.ket);
          this->tiles_.scatter(pass, base, rows.ket_tangent, states.ket_tangent);
          this->tiles_.scatter(pass, base, rows.bra, states.bra);
          this->tiles_.scatter(pass, base, rows.bra_tangent, states.bra_tangent);
        });
    for (std::size_t j = 0; j < this->rotations_.size(); ++j) {
      for (int l = 0; l < width; ++l) overlaps[this->rotations_[j] * width + l] += this->sums_[j * width + l];
    }
  }

 private:
  Index tiles_to_visit(const Pass& pass) const { return this->some_nan_ ? pass.tiles.size() : pass.num_active_tiles; }

  // --- what the generators are weighted with: half the angles' derivatives -------------------------------------------

  bool has_tangent(int rotation) const { return this->call_.has_tangent(this->plan_.rotations[rotation].angle.input); }

  Row<T> weight(int rotation, double sign) const {
    const Slot& slot = this->plan_.rotations[rotation].angle;
    Row<T> w{};
    for (int l = 0; l < batch_lanes<T>; ++l) {
      const double tangent = this->call_.tangent(slot, this->group_.sample(Base::single ? 0 : l));
      w[l] = static_cast<T>(0.5 * sign * (this->inverse_ ? -tangent : tangent));
    }
    return w;
  }

  // One weight a rotation of a block, one a string of phases. Returns where they begin, -1 where nothing has a tangent.
  int add_weights(const TileOp& op) {
    std::vector<int> rotations;
    Base::append_rotations(op, rotations);
    if (std::none_of(rotations.begin(), rotations.end(), [&](int t) { return has_tangent(t); })) return -1;
    const int first = static_cast<int>(weights_.size());
    if (const auto* block = std::get_if<RotationBlock>(&op)) {
      for (std::size_t j = 0; j < block->rotations.size(); ++j) {
        const int t = block->rotations[j];
        const Row<T> w = weight(t, Base::sign_of(this->plan_.rotations[t].pauli_word));
        weights_.push_back(Base::single ? w * lane_signs<T>(block->lane_sign[j]) : w);
      }
      return first;
    }
    for (const PhaseString& s : std::get<Phases>(op).strings) {
      Row<T> total{};
      for (const int t : s.rotations) {
        if (has_tangent(t)) total += weight(t, this->plan_.rotations[t].pauli_word.negative != s.negative ? -1 : 1);
      }
      weights_.push_back(total);
    }
    return first;
  }

  Angles<T> weights_in_tile(const RotationBlock& block, int first, Mask base, const Part& part) const {
    Angles<T> weights{};
    for (std::size_t j = 0; j < block.rotations.size(); ++j) {
      const Row<T>& w = weights_[first + j];
      weights.b[j] = part.only(odd_parity(block.tile_sign[j] & base) ? -w : w, 0);
    }
    return weights;
  }

  // sum over strings of weight (-1)^parity, at every row.
  const Row<T>* phase_function(const Phases& phases, int first, Mask base, Index rows, Workspace<V>& work) const {
    work.products.assign(Sums::vectors(rows), Row<T>{});
    for (std::size_t j = 0; j < phases.strings.size(); ++j) {
      const PhaseString& s = phases.strings[j];
      const Mask place = Sums::place(s.row_mask & static_cast<Mask>(rows - 1), s.lane_mask);
      const Row<T> w = weights_[first + j] * Sums::signs(place);
      work.products[Sums::vector(place)] += odd_parity(s.tile_mask & base) ? -w : w;
    }
    hadamard(work.products.data(), static_cast<Index>(work.products.size()));
    return work.products.data();
  }

  // Calls f with that function, if anything has a tangent. Where all lanes share it, it is made once, of numbers.
  template <class F>
  void with_phase_function(const Phases& phases, int at, Mask base, Index rows, Workspace<V>& work, const F& f) const {
    const int first = first_weight_[at];
    if (first < 0) return;
    if constexpr (!Base::single) {
      if (!this->parameters_[at].per_sample && this->keeps_tables()) {
        LaneVector<T>& function = shared_functions_[at];
        if (static_cast<Index>(function.size()) != rows) fill_function(phases, first, rows, function);
        return f([&](Index r) { return Row<T>{} + function[r]; });
      }
    }
    const Row<T>* function = phase_function(phases, first, base, rows, work);
    f([&](Index r) { return Sums::function_at(function, r); });
  }

  void fill_function(const Phases& phases, int first, Index rows, LaneVector<T>& function) const {
    function.assign(rows, T(0));
    for (std::size_t j = 0; j < phases.strings.size(); ++j)
      function[phases.strings[j].row_mask & static_cast<Mask>(rows - 1)] += weights_[first + j][0];
    hadamard(function.data(), rows);
  }

  // --- a tile --------------------------------------------------------------------------------------------------------

  void apply(const TileOp& op, int at, const Pass& pass, Mask base, T* rows, T* tangents, Workspace<V>& work) const {
    const OpParameters& n = this->parameters_[at];
    if (const auto* block = std::get_if<RotationBlock>(&op)) return apply_block(*block, at, base, rows, tangents);
    const Phases& phases = std::get<Phases>(op);
    const Index visited = this->rows_to_visit(phases);
    this->for_each_table(phases, n, pass, base, work, [&](const auto* table) {
      apply_phases<Cell>(rows, table, phases.rows, visited);
      apply_phases<Cell>(tangents, table, phases.rows, visited);
    });
    with_phase_function(phases, at, base, visited, work, [&](const auto& function) {
      generate_phases<Cell>(rows, tangents, function, phases.rows, visited);
    });
  }

  void undo(const TileOp& op, int at, const Pass& pass, Mask base, const States& rows, Workspace<V>& work,
            const std::vector<char>& requested, double* sums) const {
    if (const auto* block = std::get_if<RotationBlock>(&op)) return undo_block(*block, at, base, rows, requested, sums);
    undo_phases_of(std::get<Phases>(op), at, pass, base, rows, work, requested, sums);
  }

  void apply_block(const RotationBlock& block, int at, Mask base, T* rows, T* tangents) const {
    const int first = first_weight_[at];
    this->for_each_part(block, this->parameters_[at], base, [&](const Part& part, const Angles<T>& angles) {
      if (first >= 0) {
        const Angles<T> weights = weights_in_tile(block, first, base, part);
        return apply_tangent_rotations(rows, tangents, block, angles, weights, part.groups);
      }
      apply_rotations(rows, block, angles, part.groups);
      apply_rotations(tangents, block, angles, part.groups);
    });
  }

  void undo_block(const RotationBlock& block, int at, Mask base, const States& rows, const std::vector<char>& requested,
                  double* sums) const {
    const OpParameters& n = this->parameters_[at];
    const bool any =
        std::any_of(block.rotations.begin(), block.rotations.end(), [&](int t) { return requested[t] != 0; });
    this->for_each_part(block, n, base, [&](const Part& part, const Angles<T>& angles) {
      Row<T> found[RotationBlock::most] = {};
      any ? undo_block_as<true>(block, at, base, rows, angles, part, found)
          : undo_block_as<false>(block, at, base, rows, angles, part, found);
      if (any) this->add_block_sums(block, n, base, part, found, sums);
    });
  }

  template <bool requested>
  void undo_block_as(const RotationBlock& block, int at, Mask base, const States& rows, const Angles<T>& angles,
                     const Part& part, Row<T>* found) const {
    const int first = first_weight_[at];
    if (first >= 0) {
      const Angles<T> weights = weights_in_tile(block, first, base, part);
      return undo_tangent_rotations<requested>(rows, block, angles, weights, part.groups, found);
    }
    undo_rotations<requested>(rows.ket, rows.bra_tangent, block, angles, part.groups, found);
    undo_rotations<requested>(rows.ket_tangent, rows.bra, block, angles, part.groups, found);
  }

  void undo_phases_of(const Phases& phases, int at, const Pass& pass, Mask base, const States& rows, Workspace<V>& work,
                      const std::vector<char>& requested, double* sums) const {
    const OpParameters& n = this->parameters_[at];
    const bool any = Base::requests_any(phases, requested);
    const Index visited = this->rows_to_visit(phases);
    const Index products = visited / Cell::packed_together;
    if (any) {
      work.products.resize(products);
      work.more_products.resize(products);
    }
    bool left = any;
    this->for_each_table(phases, n, pass, base, work, [&](const auto* table) {
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
      this->add_phase_sums(phases, n, base, visited, work, sums);
    }
    with_phase_function(phases, at, base, visited, work, [&](const auto& function) {
      generate_phases<Cell>(rows.ket, rows.ket_tangent, function, phases.rows, visited);
      generate_phases<Cell>(rows.bra, rows.bra_tangent, function, phases.rows, visited);
    });
  }

  std::vector<int> first_weight_;  // per operation
  LaneVector<Row<T>> weights_;
  mutable std::vector<LaneVector<T>> shared_functions_;  // per operation, of what lanes share
};

}  // namespace
}  // namespace ketgrad
