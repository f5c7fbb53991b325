// A plan: what the walk does with a program, decided once. Both backends read it.
//
// Strategy so far: runs of gates on one wire that read the same inputs become one 2x2 block; every other gate is one
// pass of the cheapest fitting kernel.
#pragma once

#include <vector>

#include "core/bits.h"
#include "core/program.h"

namespace ketgrad {

enum class StepKind : std::uint8_t {
  dense,           // a square matrix mixes the states at `offsets`
  diagonal,        // each state at `offsets` has its own factor
  exchange,        // the two states at `offsets` trade places
  pauli_rotation,  // cos(theta/2) - i sin(theta/2) P
};

// A Pauli word as masks: P|i> = i^y_count (-1)^popcount(i & z) |i ^ x>, Y counted in both masks.
struct PauliWord {
  Mask x = 0;
  Mask z = 0;
  int y_count = 0;
};

// One pass over the state.
struct Step {
  StepKind kind = StepKind::dense;
  // What every group of amplitudes has in common: target bits (or the pivot), controls and their values.
  FixedBits fixed;
  std::vector<Index> offsets;  // of the amplitudes of a group
  PauliWord word;
  std::vector<int> gates;   // indices into program.gates, in the order of the circuit
  std::vector<int> inputs;  // that any of these gates reads, without repeats

  int size() const { return static_cast<int>(offsets.size()); }
};

// How many real numbers a step's matrix, diagonal or angle takes, and how many its overlaps of bra and ket.
Index coefficient_count(const Step& step);
Index overlap_count(const Step& step);

struct PlannedFactor {
  const Factor* factor = nullptr;
  FixedBits fixed;  // groups of amplitudes over the factor's wires
  LocalOffsets offsets;
  Mask mask = 0;  // of a projector: index & mask == value stays
  Mask value = 0;
};

struct PlannedTerm {
  const Term* term = nullptr;
  PauliWord word;
  std::vector<PlannedFactor> factors;
};

struct PlannedMeasurement {
  const Measurement* measurement = nullptr;
  Index first_result = 0;              // among the real or the complex results
  std::vector<PlannedTerm> terms;      // those with an x-mask or a factor
  std::vector<PlannedTerm> diagonals;  // words of Z alone: all of them share one pass
  FixedBits fixed;                     // density_matrix, probs: groups of amplitudes over the kept wires
  LocalOffsets offsets;
};

struct Plan {
  const Program* program = nullptr;
  std::vector<Step> steps;
  std::vector<PlannedMeasurement> measurements;
  LocalOffsets initial_offsets;  // of a prepared state's amplitudes
  Index initial_index = 0;       // of |bits>
  int largest_block = 1;         // rows of the largest matrix in a step
  Index largest_sum = 1;         // numbers in the largest sum over amplitudes: overlaps, outcomes, a density matrix
  Index passes = 0;              // over the state, forward
  bool needs_scratch = false;    // some measurement needs a state of its own
};

// The program must outlive its plan.
Plan make_plan(const Program& program);

}  // namespace ketgrad
