// What an operation's parameters are in one tile: the base of a tile negates some angles, and some factors are
// conjugated.
#pragma once

#include <algorithm>
#include <bit>
#include <span>
#include <type_traits>
#include <vector>

#include "cpu/engine/rotation_parameters-inl.h"
#include "cpu/kernels/cosets-inl.h"
#include "cpu/kernels/matrices-inl.h"

namespace ketgrad {
namespace {

template <class V>
class TileParameters {
  using T = Scalar<V>;
  static constexpr bool single = lane_width<V> == 1;
  using Factor = typename Workspace<V>::Factor;
  using Lanes = decltype(Row<T>{} < Row<T>{});

 public:
  explicit TileParameters(const RotationParameters<V>& parameters) : parameters_(parameters) {}

  Index tiles_to_visit(const TilePass& pass) const {
    return parameters_.some_nan() ? pass.tiles.size() : pass.num_active_tiles;
  }

  // Groups of a block with the same lanes in its half of the amplitudes.
  struct Part {
    Groups groups;
    const Lanes* lanes = nullptr;  // all of them

    // The vector at the lanes that are rotated, and a number at the others.
    Row<T> only(const Row<T>& v, T otherwise) const {
      return lanes == nullptr ? v : (*lanes ? v : Row<T>{} + otherwise);
    }
  };

  // Calls f(part, angles) for what a block rotates in a tile.
  template <class F>
  void for_each_part(const RotationBlock& block, const OpParameters<V>& n, Mask base, const F& f) const {
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

  // A phase on a coset in one tile.
  struct CosetPart {
    CosetRows rows;
    CosetLanes<T> lanes;
  };

  // Calls f(part), if any of the tile's amplitudes are in the coset.
  template <class F>
  void for_coset(const TileCoset& coset, Mask base, const F& f) const {
    CosetPart part{{coset.rows}, {}};
    if (!find_rows(coset, base, part.rows.count, part.rows.shift)) return;
    part.rows.conditions = static_cast<int>(coset.lanes.size());
    for (int j = 0; j < part.rows.conditions; ++j) {
      part.rows.row_mask[j] = coset.lanes[j].row_mask;
      part.rows.pattern |= unsigned{coset.lanes[j].sign.at(base)} << j;
    }
    for (int p = 0; p < 1 << part.rows.conditions; ++p) part.lanes.in[p] = lanes_of_pattern(coset, p);
    f(part);
  }

  // Calls f(variant, groups) for the groups of a matrix that are visited in a tile, those together that are alike.
  template <class F>
  void for_each_variant(const TileMatrix& matrix, Mask base, const F& f) const {
    Index count = 0;
    Index shift = 0;
    if (!find_rows(matrix.groups, base, count, shift)) return;
    const IndexMap& rows = matrix.groups.rows;
    for (Index first = 0; first < count; first += matrix.alike) {
      unsigned variant = 0;
      for (std::size_t j = 0; j < matrix.variations.size(); ++j) {
        const TileMatrix::Variation& v = matrix.variations[j];
        const bool is_odd = odd_parity(static_cast<Mask>(first) & v.row_mask) != v.sign.at(base);
        variant |= unsigned{is_odd} << j;
      }
      f(variant, MatrixGroups{rows, matrix.alike, shift ^ rows[first] ^ rows[0]});
    }
  }

  Index rows_to_visit(const Phases& phases) const {
    return parameters_.some_nan() ? phases.rows.size() : phases.num_active;
  }

  // Calls f(table) for each table of factors of a tile: those that all samples share, and those per sample.
  template <class F>
  void for_each_table(const Phases& phases, const OpParameters<V>& n, const TilePass& pass, Mask base,
                      Workspace<V>& work, const F& f) const {
    if constexpr (!single) {
      if (!n.shared_strings.empty()) {
        if (n.shared_factors.empty()) {
          parameters_.fill_shared(n, work.exact_factors);
          parameters_.round_shared(n, work.exact_factors, work.shared_factors);
        }
        f((n.shared_factors.empty() ? work.shared_factors : n.shared_factors).data());
      }
    }
    if (n.first_string != n.end_string || n.factor_scale != 1) f(factors(phases, n, pass, base, work));
  }

 private:
  // How many rows of a coset are visited in a tile, and what is added to each; false where there are none.
  bool find_rows(const TileCoset& coset, Mask base, Index& count, Index& shift) const {
    if (std::ranges::any_of(coset.tiles, [&](const TileCoset::TileSign& sign) { return sign.at(base); })) return false;
    const bool some_nan = parameters_.some_nan();
    count = some_nan ? coset.rows.size() : coset.num_active;
    for (const TileCoset::RowShift& s : coset.shifts) {
      if (!s.sign.at(base)) continue;
      if (s.leaves_support && !some_nan) return false;
      shift ^= s.row;
    }
    return true;
  }

  static Row<T> lanes_of_pattern(const TileCoset& coset, int pattern) {
    Row<T> in = Row<T>{} + 1;
    for (std::size_t j = 0; j < coset.lanes.size(); ++j) {
      const T sign = (pattern >> j) & 1 ? -1 : 1;
      in *= (lane_signs<T>(coset.lanes[j].mask) * sign + 1) * T(0.5);
    }
    return in;
  }

  // With NaN among the parameters, zeros become NaN too.
  Groups groups_to_visit(const IndexMap& groups, Index num_active) const {
    return {groups, parameters_.some_nan() ? groups.size() : num_active};
  }

  Angles<T> angles_in_tile(const RotationBlock& block, const OpParameters<V>& n, Mask base, const Part& part) const {
    Angles<T> angles = n.angles;
    for (std::size_t j = 0; j < block.rotations.size(); ++j) {
      if (odd_parity(block.tile_sign[j] & base)) angles.b[j] = -angles.b[j];
      if (part.lanes == nullptr) continue;
      angles.a[j] = part.only(angles.a[j], 1);
      angles.b[j] = part.only(angles.b[j], 0);
    }
    return angles;
  }

  // The factors of strings that have factors per sample, for this tile.
  const Factor* factors(const Phases& phases, const OpParameters<V>& n, const TilePass& pass, Mask base,
                        Workspace<V>& work) const {
    const bool varies = pass.tiles.size() > 1;
    const std::span<const PhaseParameters<Row<T>>> own = parameters_.strings(n);
    if (varies) {
      work.signs.clear();
      for (const DiagonalRotation& s : phases.strings) work.signs.push_back(odd_parity(s.tile_mask & base) ? 1 : 0);
      if (work.filled_for == &n && work.filled_version == parameters_.version() && work.filled_signs == work.signs)
        return work.factors.data();
      work.strings.assign(own.begin(), own.end());
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
    fill_phases(work.factors.data(), row_bits, varies ? std::span<const PhaseParameters<Row<T>>>(work.strings) : own,
                Row<T>{} + static_cast<T>(n.factor_scale), work.varying);
    work.filled_for = varies ? &n : nullptr;
    work.filled_version = parameters_.version();
    return work.factors.data();
  }

  const RotationParameters<V>& parameters_;
};

}  // namespace
}  // namespace ketgrad
