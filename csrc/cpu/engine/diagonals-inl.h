// Real diagonals that are inputs, on the states of a group of samples: exp(-i t D) as a gate, D as an observable. They
// may have as many entries as the state, so that nothing of their size is kept: phases are computed block by block, on
// the way, and each amplitude is visited once.
#pragma once

#include <algorithm>
#include <vector>

#include "cpu/engine/samples-inl.h"
#include "cpu/engine/team-inl.h"
#include "cpu/gradient_sink.h"
#include "cpu/kernels/diagonals-inl.h"
#include "cpu/kernels/gates-inl.h"
#include "cpu/kernels/sines-inl.h"
#include "plan/plan.h"

namespace ketgrad {
namespace {

// An input's entries, and where the amplitudes of each are.
template <class N>
struct Diagonal {
  const SampleInputs<N>& inputs;
  int input;
  const IndexMap& groups;
  const IndexMap& entries;

  // Amplitudes that are worked on together: of a few entries in several groups, or of one group.
  static constexpr int most = lane_width<N> == 1 ? 128 : 16;
  static_assert(summed_together % most == 0);

  // The amplitudes, of which loops take ranges that begin at multiples of `most`.
  Index size() const { return groups.size() * entries.size(); }

  // f(block, values) for each block of a range.
  template <class F>
  void for_each_block(Index begin, Index end, const F& f) const {
    const Index count = std::min<Index>(most, entries.size());
    N values[most];
    for (; begin < end; begin += most) {
      const Index first = begin % entries.size();
      const Index group = begin / entries.size();
      const Index end_group = std::min(groups.size(), group + most / count);
      inputs.real_entries(input, first, count, values);
      f(DiagonalBlock{groups, entries, first, static_cast<int>(count), group, end_group}, values);
    }
  }
};

// Multiply-adds for an amplitude; powers of two, so that ranges begin where they must.
constexpr Index diagonal_work = 4;
constexpr Index evolution_work = 32;

// --- observables -----------------------------------------------------------------------------------------------------

// psi = D psi
template <class N>
void scale_by_diagonal(const Team& team, const Diagonal<N>& diagonal, StateOf<N> psi) {
  team.for_range(diagonal.size(), diagonal_work, [&](Index begin, Index end) {
    diagonal.for_each_block(begin, end, [&](const DiagonalBlock& block, const N* values) {
      block.for_each([&](Index i, int a) {
        psi[2 * i] *= values[a];
        psi[2 * i + 1] *= values[a];
      });
    });
  });
}

// out += c D in
template <class N>
void add_diagonal(const Team& team, const Diagonal<N>& diagonal, const N& c, StateOf<N> in, StateOf<N> out) {
  team.for_range(diagonal.size(), diagonal_work, [&](Index begin, Index end) {
    diagonal.for_each_block(begin, end, [&](const DiagonalBlock& block, const N* values) {
      N scaled[Diagonal<N>::most];
      for (int a = 0; a < block.count; ++a) scaled[a] = c * values[a];
      block.for_each([&](Index i, int a) {
        out[2 * i] += scaled[a] * in[2 * i];
        out[2 * i + 1] += scaled[a] * in[2 * i + 1];
      });
    });
  });
}

// out[lane] += sum of D_a part(<u_a|v_a>), u_a and v_a being the amplitudes of entry a.
template <class Part, class N>
void add_diagonal_overlap(const Team& team, const Diagonal<N>& diagonal, StateOf<N> u, StateOf<N> v, Total<N>* out) {
  team.template reduce<N>(diagonal.size(), 1, out, [&](Index begin, Index end, N* sum) {
    diagonal.for_each_block(begin, end, [&](const DiagonalBlock& block, const N* values) {
      sum[0] += weighted_overlap<Part, N>(block, values, u, v);
    });
  });
}

// out[a][lane] += part(<u_a|v_a>)
template <class Part, class N>
void add_entry_overlaps(const Team& team, const Diagonal<N>& diagonal, StateOf<N> u, StateOf<N> v, Total<N>* out) {
  const IndexMap& groups = diagonal.groups;
  const IndexMap& entries = diagonal.entries;
  if (entries.size() <= Diagonal<N>::most) {
    return team.template reduce<N>(groups.size(), entries.size(), out, [&](Index begin, Index end, N* sums) {
      for (Index a = 0; a < entries.size(); ++a)
        sums[a] += entry_overlap<Part, N>(groups, entries[a], u, v, begin, end);
    });
  }
  constexpr int width = lane_width<N>;
  team.for_range(entries.size(), groups.size(), [&](Index begin, Index end) {
    for (Index a = begin; a < end; ++a) {
      for (Index r = 0; r < groups.size(); r += summed_together) {
        const N sum = entry_overlap<Part, N>(groups, entries[a], u, v, r, std::min(groups.size(), r + summed_together));
        for (int l = 0; l < width; ++l) out[a * width + l] += static_cast<Total<N>>(get_lane(sum, l));
      }
    }
  });
}

// Adds factor(lane) * overlaps[a][lane] to the gradient of each entry.
template <class N, class F>
void add_entry_gradients(const Diagonal<N>& diagonal, const std::vector<Total<N>>& overlaps, const F& factor,
                         GradientSink<Scalar<N>>& sink) {
  constexpr int width = lane_width<N>;
  for (int l = 0; l < diagonal.inputs.count(); ++l) {
    const Total<N> c = factor(l);
    for (Index a = 0; a < diagonal.entries.size(); ++a)
      sink.add(diagonal.input, a, diagonal.inputs.sample(l), output_part(c * overlaps[a * width + l]));
  }
}

// --- evolutions ------------------------------------------------------------------------------------------------------

// exp(-i t D), or its inverse. Since t and D are real, and so are their tangents, its inverse is its adjoint along any
// direction.
template <class N>
class Evolution {
  using T = Scalar<N>;
  using State = StateOf<N>;
  static constexpr int width = lane_width<N>;

 public:
  Evolution(const Call<T>& call, const SampleGroup& group, const Team& team, const GateOp& gate_op)
      : gate_(call.program().gates[gate_op.gate]),
        team_(team),
        inputs_(call, group),
        diagonal_{inputs_, gate_.input, gate_op.groups, gate_op.entries} {
    for (int l = 0; l < width; ++l) times_[l] = sign() * inputs_.value(gate_.slots[0], l);
  }
  Evolution(const Evolution&) = delete;
  Evolution& operator=(const Evolution&) = delete;

  void apply(State psi) const {
    team_.for_range(diagonal_.size(), evolution_work, [&](Index begin, Index end) {
      diagonal_.for_each_block(begin, end, [&](const DiagonalBlock& block, const N* values) {
        const Factors factors(*this, values, block.count, false);
        factors.multiply(block, psi);
      });
    });
  }

  // Takes ket and bra back, with the gradients by t and by D. exp(-i phi_a) has d/dphi_a 2 Re<bra|psi> =
  // 2 Im<bra_a|psi_a>, behind it and before it.
  void undo(State ket, State bra, GradientSink<T>& sink) const {
    if (sink.requests(gate_.input)) {
      std::vector<Total<N>> overlaps(diagonal_.entries.size() * width, Total<N>(0));
      add_entry_overlaps<ImaginaryPart>(team_, diagonal_, bra, ket, overlaps.data());
      add_entry_gradients(diagonal_, overlaps, [&](int l) { return 2.0 * times_[l]; }, sink);
    }
    if (!sink.requests(gate_.slots[0].input)) return undo(ket, bra);
    Total<N> overlap[width] = {};
    team_.template reduce<N>(diagonal_.size(), 1, overlap, [&](Index begin, Index end, N* sum) {
      diagonal_.for_each_block(begin, end, [&](const DiagonalBlock& block, const N* values) {
        sum[0] += weighted_overlap<ImaginaryPart, N>(block, values, bra, ket);
        undo(block, values, ket, bra);
      });
    });
    for (int l = 0; l < inputs_.count(); ++l)
      sink.add(gate_.slots[0], inputs_.sample(l), output_part(2 * sign() * overlap[l]));
  }

 private:
  static constexpr int most = Diagonal<N>::most;

  double sign() const { return gate_.inverse ? -1 : 1; }

  void undo(State ket, State bra) const {
    team_.for_range(diagonal_.size(), 2 * evolution_work, [&](Index begin, Index end) {
      diagonal_.for_each_block(begin, end,
                               [&](const DiagonalBlock& block, const N* values) { undo(block, values, ket, bra); });
    });
  }

  void undo(const DiagonalBlock& block, const N* values, State ket, State bra) const {
    const Factors factors(*this, values, block.count, true);
    factors.multiply(block, ket);
    factors.multiply(block, bra);
  }

  // exp(-i t D_a) for a block of entries; angles are products in double.
  class Factors {
   public:
    // Not inlined: it is long, and each loop over blocks would have a copy.
    [[gnu::noinline]] Factors(const Evolution& evolution, const N* values, int count, bool inverse) {
      double angles[most * width] = {};  // as many as there are: compilers warn of the rest
      double sines[most * width];
      double cosines[most * width];
      double rates[is_dual<N> ? most * width : 1];  // tangents of the angles
      for (int a = 0; a < count; ++a) {
        for (int l = 0; l < width; ++l) {
          const Total<N> angle = evolution.times_[l] * Total<N>(get_lane(values[a], l));
          if constexpr (is_dual<N>) {
            angles[a * width + l] = angle.value;
            rates[a * width + l] = angle.tangent;
          } else {
            angles[a * width + l] = angle;
          }
        }
      }
      sines_and_cosines(angles, sines, cosines, count * width);
      const double sign = inverse ? 1 : -1;
      for (int a = 0; a < count; ++a) {
        for (int l = 0; l < width; ++l) {
          const double c = cosines[a * width + l];
          const double s = sign * sines[a * width + l];
          if constexpr (is_dual<N>) {
            const double rate = sign * rates[a * width + l];
            set_lane(numbers_[2 * a], l, DualOf<T>(Dual(c, -rate * s)));
            set_lane(numbers_[2 * a + 1], l, DualOf<T>(Dual(s, rate * c)));
          } else {
            set_lane(numbers_[2 * a], l, static_cast<T>(c));
            set_lane(numbers_[2 * a + 1], l, static_cast<T>(s));
          }
        }
      }
    }

    [[gnu::noinline]] void multiply(const DiagonalBlock& block, State psi) const {
      block.for_each([&](Index i, int a) { ketgrad::multiply(psi + 2 * i, numbers_[2 * a], numbers_[2 * a + 1]); });
    }

   private:
    N numbers_[2 * most];
  };

  const Gate& gate_;
  const Team& team_;
  const SampleInputs<N> inputs_;
  const Diagonal<N> diagonal_;
  Total<N> times_[width];
};

}  // namespace
}  // namespace ketgrad
