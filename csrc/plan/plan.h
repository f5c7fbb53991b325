// A plan: what the engine does with a program, decided once per program and layout. Both backends read it.
//
// A pass goes over the state once, tile by tile. A tile is a coset of a subspace of indices that holds whole rows of
// neighbouring amplitudes; inside it run the rotations whose Pauli words map the tile to itself, in blocks of up to
// three that work on rows in registers, and between them the phases, merged into one factor an amplitude.
//
// What decides (the cost model): a rotation costs one multiply-add a row of the vector's width and phases about eight,
// while a row that comes from beyond the caches costs as much as ten of either. So a pass takes every rotation that it
// can reach, over layers, in the order that commuting allows; phases are put off until a rotation needs them; and what
// cannot change the outcome (amplitudes outside the support, rotations whose gradient nobody requests) is not visited.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "math/inplace_vector.h"
#include "plan/layout.h"
#include "plan/lowering.h"

namespace ketgrad {

// Unnormalised rotations leave out a factor that all amplitudes have in common, the product of their cosines. The
// engine carries it as a deferred scale, which the last operation of a segment (going forward, or going back) applies.
// Rotations of half the amplitudes, phases on cosets and matrices leave nothing out and apply nothing.

// The half that a block's rotations act on: amplitudes at which the parities of tile, row and lane add up to an odd
// one, or to an even one.
struct BlockHalf {
  Mask tile_mask = 0;
  Mask lane_mask = 0;
  bool even = false;
  // Groups at whose rows the parity is odd; it is even at those of the block itself. Where a rotation takes each row to
  // one of the other parity, which the lanes make up for, it is even at the first row of all groups.
  bool cuts_groups = false;
  std::optional<IndexMap> odd_groups;
  Index num_odd_active = 0;
};

// Up to `most` rotations that trade rows, or lanes, or both: rotations that trade rows together mix the 2^k rows of a
// group.
struct RotationBlock {
  static constexpr int most = 3;

  template <class T>
  using PerRotation = InplaceVector<T, most>;

  PerRotation<int> rotations;
  IndexMap groups;                // the first row of each group
  Index num_active = 0;           // the first `num_active` groups are visited, the others are outside the support
  PerRotation<Index> row_flip;    // the partner of a row
  PerRotation<Mask> tile_sign;    // the parity of (tile's base & this) negates the angle
  PerRotation<Mask> lane_sign;    // the parity of (lane & this) too
  PerRotation<Mask> lane_flip;    // the partner of a lane; zero for all rotations or for none
  PerRotation<Mask> row_sign;     // the parity of (row & this) too; even on the first rows if no lanes are traded
  std::optional<BlockHalf> half;  // else all amplitudes
  bool applies_scale_forward = false;
  bool applies_scale_backward = false;

  bool cuts_groups() const { return half && half->cuts_groups; }
  bool trades_lanes() const { return lane_flip[0] != 0; }
  bool stays_in_rows() const { return row_flip[0] == 0; }
};

// exp(-i sum_m angle_m/2 (-1)^parity_m) over all strings m.
struct DiagonalRotation {
  Mask row_mask = 0;  // over the numbers of the rows
  Mask lane_mask = 0;
  Mask tile_mask = 0;
  bool negative = false;       // its sign on the first row
  std::vector<int> rotations;  // several rotations of one Pauli word, up to the sign
};

// Rows are numbered so that few strings change sign with each bit of a number.
struct Phases {
  IndexMap rows;
  Index num_active = 0;  // the first `num_active` are visited, the others are outside the support
  std::vector<DiagonalRotation> strings;
  bool applies_scale_forward = false;
  bool applies_scale_backward = false;
};

// The amplitudes of a tile at which each of some parities has a given value: none; or a coset of rows, which depends on
// the tile, and of each of these some lanes, which depend on the row too.
struct TileCoset {
  // Whether the parity of (tile's base & mask) is another one than this.
  struct TileSign {
    Mask mask = 0;
    bool odd = false;

    bool at(Mask base) const { return odd_parity(mask & base) != odd; }
  };
  struct RowShift {
    TileSign sign;
    Index row = 0;
    bool leaves_support = false;
  };
  // The parity of (lane & mask) is as of (number & row_mask), or the other one, by the sign.
  struct Lanes {
    TileSign sign;
    Mask mask = 0;
    Mask row_mask = 0;  // over the numbers of the rows
  };

  std::vector<TileSign> tiles;  // only tiles at which none of these holds have any
  IndexMap rows;                // to which the shifts are added by XOR whose signs hold
  Index num_active = 0;         // the first `num_active` are visited, the others are outside the support
  std::vector<RowShift> shifts;
  std::vector<Lanes> lanes;  // independent of each other
};

// exp(-i angle/2) on a coset. It neither has a part in the deferred scale nor applies it.
struct CosetPhase {
  int rotation = 0;
  TileCoset coset;
};

// A dense matrix of 2, 4 or 8 states. Some of its flips, or sums of flips, trade the rows of a group; the others trade
// lanes alone. It neither has a part in the deferred scale nor applies it.
struct TileMatrix {
  static constexpr int most_bits = 3;
  static constexpr int largest = 1 << most_bits;

  template <class T>
  using PerState = InplaceVector<T, largest>;

  // What changes from group to group: a number that is the parity of (group's number & row_mask), or the other one, by
  // the sign. Either it adds `state` to the local state, by XOR, or only lanes l are mixed where the parity of (l &
  // lane_mask) is that number.
  struct Variation {
    TileCoset::TileSign sign;
    Mask row_mask = 0;
    int state = 0;
    Mask lane_mask = 0;
  };

  int gate_op = 0;                  // index into Plan::gate_ops
  TileCoset groups;                 // the first row of each group; conditions on lanes are among the variations
  PerState<Index> row_offsets;      // of the rows of a group, to be added by XOR
  PerState<Mask> row_flips;         // how their lanes are traded before they meet those of the first row
  PerState<int> row_states;         // what they add to the local state, by XOR
  PerState<Mask> lane_flips;        // the trades of lanes, by number
  PerState<int> lane_states;        // what they add
  std::vector<std::int8_t> states;  // by lane of the first row: the local state; -1 where the lane is not mixed
  std::vector<Variation> variations;
  Index alike = 1;  // as many groups, from a multiple on, do not differ in any variation

  int rows() const { return static_cast<int>(row_offsets.size()); }
  int trades() const { return static_cast<int>(lane_flips.size()); }
  int size() const { return rows() * trades(); }
};

using TileOp = std::variant<RotationBlock, Phases, CosetPhase, TileMatrix>;

// Amplitudes that may be non-zero: origin + span.
struct Support {
  bool everywhere = false;
  Mask origin = 0;
  Span span;
};

// An unfused gate, over the whole state.
struct GatePass {
  int gate_op = 0;          // index into Plan::gate_ops
  std::vector<int> inputs;  // that it reads, without repeats
};

// Rotations, phases and matrices, tile by tile.
struct TilePass {
  Support before;              // when the pass begins
  IndexMap tiles;              // the base of each tile
  Index num_active_tiles = 0;  // the others are outside the support
  IndexMap rows;               // what a row adds to the base, lanes included
  std::vector<TileOp> operations;
  std::vector<int> inputs;  // that anything here reads, without repeats
};

using Pass = std::variant<GatePass, TilePass>;

struct PlannedFactor {
  const Factor* factor = nullptr;
  IndexMap groups;  // of amplitudes over the factor's wires
  IndexMap offsets;
  Index kept = 0;  // by a projector on a basis state, of the offsets
};

// A term with factors, or of a variance.
struct PlannedTerm {
  const Term* term = nullptr;
  PauliWord pauli_word;
  std::vector<PlannedFactor> factors;
};

struct PlannedMeasurement {
  const Measurement* measurement = nullptr;
  Index first_result = 0;          // among the real or the complex results
  std::vector<PlannedTerm> terms;  // of an expectation value those that no observable pass takes
  IndexMap groups;                 // density_matrix, probs: groups of amplitudes over the kept wires
  IndexMap offsets;                // and of a state: all wires
};

// Pauli words of expectation values that flip the same bits: P|q> = i^quarter (-1)^parity |q ^ flip>.
struct PauliGroup {
  struct Member {
    const Term* term = nullptr;
    Index result = 0;  // among the real results
    int quarter = 0;   // 0 to 3
    Mask row_mask = 0;
    Mask lane_mask = 0;
    Mask tile_mask = 0;
  };
  Index row_flip = 0;
  Mask lane_flip = 0;
  std::vector<Member> members;

  // Whether some member's phase is real, or imaginary.
  bool has(bool imaginary) const {
    for (const Member& m : members) {
      if (((m.quarter & 1) != 0) == imaginary) return true;
    }
    return false;
  }
};

// The Pauli words whose flips one tile holds.
struct ObservablePass {
  // Its tiles are those of the last pass, which measures them. Only the first of a plan may be so.
  bool in_last_pass = false;
  IndexMap tiles;
  IndexMap rows;
  std::vector<PauliGroup> groups;
};

struct Plan {
  const Program* program = nullptr;
  Layout layout;
  std::vector<Rotation> rotations;
  std::vector<GateOp> gate_ops;
  std::vector<Pass> passes;
  std::vector<PlannedMeasurement> measurements;
  std::vector<ObservablePass> observables;
  IndexMap initial_offsets;   // of a prepared state's amplitudes
  InitialAmplitudes initial;  // if no state is prepared
  Basis basis = Basis::z;
  int dropped = 0;  // gates outside the light cone of the measurements
};

// The operations of all passes over tiles, in order.
template <class F>
void for_each_tile_op(const Plan& plan, const F& f) {
  for (const Pass& pass : plan.passes) {
    if (const auto* tiles = std::get_if<TilePass>(&pass)) {
      for (const TileOp& op : tiles->operations) f(op);
    }
  }
}

// The inputs that a pass reads, without repeats.
inline const std::vector<int>& inputs_of(const Pass& pass) {
  return std::visit([](const auto& p) -> const std::vector<int>& { return p.inputs; }, pass);
}

// The first of `num_passes` passes that reads an input for which `requests` holds, inputs_of(pass) being those that it
// reads; `num_passes` where none does. A prepared state is read before the first.
template <class InputsOf, class Requests>
int first_requested_pass(int initial_input, int num_passes, const InputsOf& inputs_of, const Requests& requests) {
  if (initial_input != no_input && requests(initial_input)) return 0;
  for (int p = 0; p < num_passes; ++p) {
    for (const int input : inputs_of(p)) {
      if (requests(input)) return p;
    }
  }
  return num_passes;
}

// The program must outlive its plan.
Plan make_plan(const Program& program, const Layout& layout);

}  // namespace ketgrad
