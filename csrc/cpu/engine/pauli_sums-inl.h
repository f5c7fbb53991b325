// Pauli words of expectation values: their overlaps, and what they add to a bra.
//
// Pauli words that flip the same bits differ by signs only: <u|P|psi> = i^quarter sum_q (-1)^parity conj(u_(q^flip))
// psi_q. So the products of a group are formed once, and the sums for all its members are one Walsh-Hadamard transform
// of them; the other way round, the coefficients of all members become one real function of q by the same transform.
// Where a group has few members of a phase, they are lone Pauli words, and a sweep over the rows serves several of
// those.
#pragma once

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "cpu/engine/tiles-inl.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

template <class V>
class PauliSums {
  using T = Scalar<V>;
  static constexpr int width = lane_width<V>;
  static constexpr bool single = width == 1;
  using Cell = typename TileRunner<V>::Cell;
  using Sums = typename TileRunner<V>::Sums;

 public:
  PauliSums(const Plan& plan, TileRunner<V>& tiles) : plan_(plan), tiles_(tiles) {
    for (const ObservablePass& pass : plan.observables) {
      for (const PauliGroup& group : pass.groups) count_ += static_cast<Index>(group.members.size());
    }
  }

  // Members of all groups, in order.
  Index count() const { return count_; }

  template <class F>
  void for_each_member(const F& f) const {
    Index at = 0;
    for (const ObservablePass& pass : plan_.observables) {
      for (const PauliGroup& group : pass.groups) {
        for (const PauliGroup::Member& m : group.members) f(m, at++);
      }
    }
  }

  // overlaps[member][lane] = Re<u|P|ket>
  void overlaps(const T* u, const T* ket, std::vector<double>& found) {
    found.assign(count_ * width, 0.0);
    Index first = 0;
    for (const ObservablePass& pass : plan_.observables) {
      const Index size = members(pass) * width;
      tiles_.for_each(
          pass, pass.tiles.size(), size, found.data() + first, [&](Index tile, Workspace<V>& work, double* sums) {
            const Mask base = static_cast<Mask>(pass.tiles[tile]);
            const T* rows = tiles_.gather(pass, base, ket, work.ket);
            const T* u_rows = u == ket ? rows : tiles_.gather(pass, base, u, work.bra);
            for_each_part(
                pass, [&](const Part& p) { group_overlaps(p, base, u_rows, rows, pass.rows.size(), work, sums); },
                [&](const Lone* lone, int count) {
                  lone_overlaps(lone, count, base, u_rows, rows, pass.rows.size(), sums);
                });
          });
      first += size;
    }
  }

  // bra = sum over members of weights[member][lane] P ket, or added to the bra
  void write_bra(const T* ket, T* bra, const std::vector<double>& weights, bool adds) {
    Index first = 0;
    for (const ObservablePass& pass : plan_.observables) {
      tiles_.for_each(pass, pass.tiles.size(), 0, nullptr, [&](Index tile, Workspace<V>& work, double*) {
        const Mask base = static_cast<Mask>(pass.tiles[tile]);
        const T* ket_rows = tiles_.gather(pass, base, ket, work.ket);
        const bool is_first = !adds && &pass == &plan_.observables.front();
        T* bra_rows = is_first ? tiles_.zeros(pass, bra, work.bra) : tiles_.gather(pass, base, bra, work.bra);
        const double* at = weights.data() + first;
        for_each_part(
            pass, [&](const Part& p) { add_group(p, base, ket_rows, bra_rows, pass.rows.size(), work, at); },
            [&](const Lone* lone, int count) {
              add_lone(lone, count, base, ket_rows, bra_rows, pass.rows.size(), at);
            });
        tiles_.scatter(pass, base, bra_rows, bra);
      });
      first += members(pass) * width;
    }
  }

 private:
  using Member = PauliGroup::Member;

  // Those members of a group whose phase is real, or imaginary. `first`: the number of the group's first member.
  struct Part {
    const PauliGroup& group;
    bool imaginary;
    Index first;
  };

  struct Lone {
    Index row_flip;
    Mask lane_flip;
    Member member;
    Index number;
  };

  // A transform costs as much as so many lone Pauli words.
  static constexpr int few = 6;
  // Lone Pauli words of a sweep: their sums stay in registers.
  static constexpr int most_in_sweep = 8;

  // Calls of_part for the parts with many members, of_lone for up to most_in_sweep of the others at a time.
  template <class F, class G>
  void for_each_part(const ObservablePass& pass, const F& of_part, const G& of_lone) {
    Lone lone[most_in_sweep];
    int waiting = 0;
    Index first = 0;
    for (const PauliGroup& group : pass.groups) {
      if (pass.tiles.size() == 1 && tiles_.should_stop()) return;
      for (const bool imaginary : {false, true}) {
        const int count = count_of(group, imaginary);
        if (count > few) {
          of_part(Part{group, imaginary, first});
          continue;
        }
        for (std::size_t j = 0; count > 0 && j < group.members.size(); ++j) {
          if (is_imaginary(group.members[j]) != imaginary) continue;
          lone[waiting++] = {group.row_flip, group.lane_flip, group.members[j], first + static_cast<Index>(j)};
          if (waiting == most_in_sweep) of_lone(lone, std::exchange(waiting, 0));
        }
      }
      first += static_cast<Index>(group.members.size());
    }
    if (waiting > 0) of_lone(lone, waiting);
  }

  static Index members(const ObservablePass& pass) {
    Index count = 0;
    for (const PauliGroup& group : pass.groups) count += static_cast<Index>(group.members.size());
    return count;
  }

  static bool is_imaginary(const Member& m) { return (m.quarter & 1) != 0; }

  // With products of conj(u) and i psi for the imaginary members, only a sign is left of i^quarter.
  static double sign(const Member& m, Mask base) { return (m.quarter >= 2) != odd_parity(m.tile_mask & base) ? -1 : 1; }

  static int count_of(const PauliGroup& group, bool imaginary) {
    int count = 0;
    for (const Member& m : group.members) count += is_imaginary(m) == imaginary;
    return count;
  }

  static Row<T> weight(const double* weights) {
    Row<T> w{};
    for (int l = 0; l < batch_lanes<T>; ++l) w[l] = static_cast<T>(weights[single ? 0 : l]);
    return w;
  }

  // --- lone Pauli words ----------------------------------------------------------------------------------------------

  // The row of psi or i psi that a Pauli word brings to a row, up to the signs below.
  static KETGRAD_ALWAYS_INLINE Cell source(const Lone& lone, const T* ket, Index row) {
    const Cell x = Cell::load(ket, row ^ lone.row_flip);
    if constexpr (single) {
      return {trade_lanes_and_parts(x.v, lone.lane_flip, is_imaginary(lone.member))};
    } else {
      return is_imaginary(lone.member) ? x.times_i() : x;
    }
  }

  // The signs of those lanes: of the places that they come from, and of i, which takes (re, im) to (-im, re).
  static Row<T> source_signs(const Lone& lone) {
    if constexpr (single) {
      const Row<T> at_source = lane_signs<T>(lone.member.lane_mask);
      const bool flipped = odd_parity(lone.lane_flip & lone.member.lane_mask);
      const Row<T> signs = flipped ? -at_source : at_source;
      return is_imaginary(lone.member) ? signs * times_i(Row<T>{} + T(1)) : signs;
    } else {
      return Row<T>{} + T(1);
    }
  }

  static bool odd_source(const Lone& lone, Index row) {
    return odd_parity(static_cast<Mask>(row ^ lone.row_flip) & lone.member.row_mask);
  }

  // Calls f with the count as a constant, so that sums stay in registers: rounded up to a power of two, the Pauli words
  // in excess being the first one again, for nobody.
  template <class F>
  static void with_count(int count, const F& f) {
    if (count == 1) return f(std::integral_constant<int, 1>());
    if (count == 2) return f(std::integral_constant<int, 2>());
    if (count <= 4) return f(std::integral_constant<int, 4>());
    return f(std::integral_constant<int, most_in_sweep>());
  }

  static void lone_overlaps(const Lone* lone, int count, Mask base, const T* u, const T* ket, Index rows,
                            double* sums) {
    with_count(count, [&](auto size) {
      Lone pauli_words[size];
      for (int j = 0; j < size; ++j) pauli_words[j] = lone[j < count ? j : 0];
      const Row<T> signs[2] = {Row<T>{} + T(1), Row<T>{} - T(1)};
      Row<T> total[size] = {};
      for (Index first = 0; first < rows; first += summed_together) {
        Row<T> sum[size] = {};
        for (Index r = first; r < std::min(rows, first + summed_together); ++r) {
          const Cell x = Cell::load(u, r);
          for (int j = 0; j < size; ++j)
            sum[j] += signs[odd_source(pauli_words[j], r)] * x.inner(source(pauli_words[j], ket, r));
        }
        for (int j = 0; j < size; ++j) total[j] += sum[j];
      }
      for (int j = 0; j < count; ++j)
        TileRunner<V>::add_sum(total[j], source_signs(pauli_words[j]), sign(pauli_words[j].member, base),
                               sums + pauli_words[j].number * width);
    });
  }

  static void add_lone(const Lone* lone, int count, Mask base, const T* ket, T* bra, Index rows,
                       const double* weights) {
    with_count(count, [&](auto size) {
      Lone pauli_words[size];
      Row<T> w[size][2];  // by the parity of the place that a row comes from
      for (int j = 0; j < size; ++j) {
        pauli_words[j] = lone[j < count ? j : 0];
        w[j][0] = j < count ? static_cast<T>(sign(pauli_words[j].member, base)) *
                                  weight(weights + pauli_words[j].number * width) * source_signs(pauli_words[j])
                            : Row<T>{};
        w[j][1] = -w[j][0];
      }
      for (Index r = 0; r < rows; ++r) {
        Cell total = Cell::load(bra, r);
        for (int j = 0; j < size; ++j)
          total = total.plus(source(pauli_words[j], ket, r).times(w[j][odd_source(pauli_words[j], r)]));
        total.store(bra, r);
      }
    });
  }

  // --- many Pauli words that flip the same bits ----------------------------------------------------------------------

  // Per cell: the partner's conjugate times psi or i psi.
  static Row<T> product(const Part& part, const T* u, const T* ket, Index row) {
    const Cell x = Cell::load(ket, row);
    const Cell partner = trade(Cell::load(u, row ^ part.group.row_flip), part.group.lane_flip);
    return partner.inner(part.imaginary ? x.times_i() : x);
  }

  void group_overlaps(const Part& part, Mask base, const T* u, const T* ket, Index rows, Workspace<V>& work,
                      double* sums) const {
    work.products.resize(Sums::vectors(rows));
    write_products(part, u, ket, rows, work.products.data());
    hadamard(work.products.data(), static_cast<Index>(work.products.size()));
    double* at = sums + part.first * width;
    for (const Member& m : part.group.members) {
      if (is_imaginary(m) == part.imaginary) {
        const Mask place = Sums::place(m.row_mask, m.lane_mask);
        TileRunner<V>::add_sum(work.products[Sums::vector(place)], Sums::signs(place), sign(m, base), at);
      }
      at += width;
    }
  }

  static void write_products(const Part& part, const T* u, const T* ket, Index rows, Row<T>* out) {
    if constexpr (single) {
      for (Index r = 0; r < rows; r += 2) {
        const Row<T> first = product(part, u, ket, r);
        const Row<T> second = product(part, u, ket, r + 1);
        out[r / 2] = even_lanes(first, second) + odd_lanes(first, second);
      }
    } else {
      for (Index r = 0; r < rows; ++r) out[r] = product(part, u, ket, r);
    }
  }

  // The weights as a function on the amplitudes: it is that of the members' signs, transformed.
  void add_group(const Part& part, Mask base, const T* ket, T* bra, Index rows, Workspace<V>& work,
                 const double* weights) const {
    const Index size = Sums::vectors(rows);
    work.products.assign(size, Row<T>{});
    const double* at = weights + part.first * width;
    for (const Member& m : part.group.members) {
      if (is_imaginary(m) == part.imaginary) {
        const Mask place = Sums::place(m.row_mask, m.lane_mask);
        work.products[Sums::vector(place)] += static_cast<T>(sign(m, base)) * weight(at) * Sums::signs(place);
      }
      at += width;
    }
    hadamard(work.products.data(), size);
    for (Index r = 0; r < rows; ++r) {
      const Cell x = Cell::load(ket, r);
      const Cell weighted = (part.imaginary ? x.times_i() : x).times(Sums::function_at(work.products.data(), r));
      const Index partner = r ^ part.group.row_flip;
      Cell::load(bra, partner).plus(trade(weighted, part.group.lane_flip)).store(bra, partner);
    }
  }

  const Plan& plan_;
  TileRunner<V>& tiles_;
  Index count_ = 0;
};

}  // namespace
}  // namespace ketgrad
