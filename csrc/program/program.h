// A program: the structure of one circuit as flat data, without parameter values. Those are the inputs of a call.
//
// Input 0 is real and always present: it determines dtype and device of a call. The others are real vectors, complex
// vectors or complex square matrices. In a call each may have a leading batch axis.
#pragma once

#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "math/bits.h"
#include "program/gate_table.h"
#include "program/measurement_table.h"

namespace ketgrad {

// A parameter of a gate or a coefficient: scale * input[column] + offset.
struct Slot {
  std::int32_t input = 0;
  std::int32_t column = 0;
  double scale = 1;
  double offset = 0;
};

struct InputSpec {
  bool is_complex = false;
  std::vector<Index> shape;  // without the batch axis

  Index numel() const {
    Index n = 1;
    for (const Index s : shape) n *= s;
    return n;
  }
};

inline constexpr int no_input = -1;

struct Gate {
  Opcode opcode = 0;
  bool inverse = false;
  std::vector<int> targets;   // wires, controls excluded
  std::vector<int> controls;  // wires, the gate's own controls included
  std::vector<bool> control_values;
  std::vector<Slot> slots;
  int input = no_input;    // the matrix or diagonal that the family's gates take
  std::string pauli_word;  // of a Pauli rotation, one letter per target
};

enum class Preparation : std::uint8_t { zero, basis, state };

// |bits> or the input's state on some wires, |0> on the others.
struct InitialState {
  Preparation kind = Preparation::zero;
  std::vector<int> wires;
  std::vector<int> bits;
  int input = no_input;
};

enum class FactorKind : std::uint8_t { hermitian, projector, state_projector, sparse, diagonal };

// Whether its matrix is diagonal for all parameters.
constexpr bool is_diagonal(FactorKind kind) { return kind == FactorKind::projector || kind == FactorKind::diagonal; }

// In the order of the enumeration.
inline constexpr std::string_view factor_names[] = {"hermitian", "projector", "state_projector", "sparse", "diagonal"};
static_assert(std::size(factor_names) == static_cast<std::size_t>(FactorKind::diagonal) + 1);

// A factor of an observable's term that is no Pauli word.
struct Factor {
  FactorKind kind = FactorKind::hermitian;
  std::vector<int> wires;
  int input = no_input;            // matrix, state, values of a sparse matrix, or real diagonal
  std::vector<int> bits;           // of a projector on a basis state
  std::vector<std::int64_t> rows;  // of a sparse matrix
  std::vector<std::int64_t> columns;
};

// scale * product of coefficients * Pauli word * factors, all on distinct wires.
struct Term {
  double scale = 1;
  std::vector<Slot> coefficients;
  std::vector<int> pauli_wires;
  std::string pauli_word;
  std::vector<Factor> factors;

  // Whether it can be measured without a copy of the state.
  bool is_lone_diagonal() const {
    return pauli_wires.empty() && factors.size() == 1 && factors[0].kind == FactorKind::diagonal;
  }
};

struct Measurement {
  MeasurementKind kind = MeasurementKind::expval;
  std::vector<int> wires;   // of Subject::wires
  std::vector<Term> terms;  // of Subject::observable
};

struct Program {
  int num_wires = 0;
  std::vector<InputSpec> inputs;
  InitialState initial;
  std::vector<Gate> gates;
  std::vector<Measurement> measurements;

  // Throws std::invalid_argument or std::out_of_range, naming what is wrong. Kernels do not access memory out of bounds
  // with a validated program.
  void validate() const;

  // The content as bytes: programs are equal if and only if their bytes are.
  std::string serialise() const;

  // The inverse, without validation. Throws std::invalid_argument if the bytes are no program.
  static Program deserialise(std::string_view bytes);

  Index real_results() const;     // elements of all real results of one circuit
  Index complex_results() const;  // elements of all complex ones

  // Per measurement the position of its result, among the real or the complex results.
  std::vector<Index> first_results() const;

  // Whether some measurement is of all wires: every gate is in its light cone.
  bool measures_all_wires() const;
};

// Elements of one measurement's result, complex ones counted once.
Index result_size(const Measurement& measurement, int num_wires);

// Of one state: with more, index arithmetic could overflow; memory runs out long before. A program may have more wires if
// none of its measurements depends on more (plan/parts.h).
inline constexpr int max_wires = 48;

}  // namespace ketgrad
