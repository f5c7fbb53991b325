// The gate table: name, wires, parameters and action of each gate, in one place. Validation, planner, engines and
// Python read it.
#pragma once

#include <cstdint>
#include <string_view>

namespace ketgrad {

// How a gate acts on its wires.
enum class Family : std::uint8_t {
  identity,        // does nothing
  block,           // a small matrix (gate_matrix.h) on a subspace of the local basis states
  pauli_rotation,  // exp(-i theta P / 2), P a Pauli word: no matrix is formed
  matrix,          // the matrix is an input
  diagonal,        // the diagonal is an input
  evolution,       // exp(-i t D): t is a parameter, the real diagonal D an input
};

// The formulas of gate_matrix.h. CNOT, Toffoli and SWAP use that of X, with other controls or another subspace.
enum class Formula : std::uint8_t {
  none,
  x,
  y,
  z,
  h,
  s,
  t,
  sx,
  i_x,
  rx,
  rx_back,
  ry,
  rz,
  phase,
  rot,
  u2,
  u3,
  phase_x,
  global_phase,
  single_excitation_plus,
  single_excitation_minus,
  double_excitation_plus,
  double_excitation_minus,
};

// The basis states of the targets on which a block acts; it is the identity on the others.
enum class Subspace : std::uint8_t {
  all,
  swap,         // |01>, |10>
  double_swap,  // |0011>, |1100>
};

inline constexpr int any_wires = -1;

struct GateInfo {
  std::string_view name;
  std::int16_t num_wires;     // controls included; any_wires: any number
  std::int16_t num_controls;  // leading wires that are controls on |1>
  std::int16_t num_parameters;
  Family family;
  Formula formula = Formula::none;
  Subspace subspace = Subspace::all;
  std::string_view pauli_word = {};  // of a Pauli rotation; empty if the circuit gives it
};

using Opcode = std::uint8_t;

inline constexpr GateInfo gate_table[] = {
    {"Identity", any_wires, 0, 0, Family::identity},
    {"X", 1, 0, 0, Family::block, Formula::x},
    {"Y", 1, 0, 0, Family::block, Formula::y},
    {"Z", 1, 0, 0, Family::block, Formula::z},
    {"H", 1, 0, 0, Family::block, Formula::h},
    {"S", 1, 0, 0, Family::block, Formula::s},
    {"T", 1, 0, 0, Family::block, Formula::t},
    {"SX", 1, 0, 0, Family::block, Formula::sx},
    {"RX", 1, 0, 1, Family::block, Formula::rx},
    {"RY", 1, 0, 1, Family::block, Formula::ry},
    {"RZ", 1, 0, 1, Family::block, Formula::rz},
    {"PhaseShift", 1, 0, 1, Family::block, Formula::phase},
    {"Rot", 1, 0, 3, Family::block, Formula::rot},
    {"U1", 1, 0, 1, Family::block, Formula::phase},
    {"U2", 1, 0, 2, Family::block, Formula::u2},
    {"U3", 1, 0, 3, Family::block, Formula::u3},
    {"CNOT", 2, 1, 0, Family::block, Formula::x},
    {"CY", 2, 1, 0, Family::block, Formula::y},
    {"CZ", 2, 1, 0, Family::block, Formula::z},
    {"CH", 2, 1, 0, Family::block, Formula::h},
    {"SWAP", 2, 0, 0, Family::block, Formula::x, Subspace::swap},
    {"ISWAP", 2, 0, 0, Family::block, Formula::i_x, Subspace::swap},
    {"Toffoli", 3, 2, 0, Family::block, Formula::x},
    {"CCZ", 3, 2, 0, Family::block, Formula::z},
    {"CSWAP", 3, 1, 0, Family::block, Formula::x, Subspace::swap},
    {"CRX", 2, 1, 1, Family::block, Formula::rx},
    {"CRY", 2, 1, 1, Family::block, Formula::ry},
    {"CRZ", 2, 1, 1, Family::block, Formula::rz},
    {"CRot", 2, 1, 3, Family::block, Formula::rot},
    {"ControlledPhaseShift", 2, 1, 1, Family::block, Formula::phase},
    {"IsingXX", 2, 0, 1, Family::pauli_rotation, Formula::none, Subspace::all, "XX"},
    {"IsingYY", 2, 0, 1, Family::pauli_rotation, Formula::none, Subspace::all, "YY"},
    {"IsingZZ", 2, 0, 1, Family::pauli_rotation, Formula::none, Subspace::all, "ZZ"},
    {"IsingXY", 2, 0, 1, Family::block, Formula::rx_back, Subspace::swap},
    {"SingleExcitation", 2, 0, 1, Family::block, Formula::ry, Subspace::swap},
    {"SingleExcitationPlus", 2, 0, 1, Family::block, Formula::single_excitation_plus},
    {"SingleExcitationMinus", 2, 0, 1, Family::block, Formula::single_excitation_minus},
    {"DoubleExcitation", 4, 0, 1, Family::block, Formula::ry, Subspace::double_swap},
    {"DoubleExcitationPlus", 4, 0, 1, Family::block, Formula::double_excitation_plus},
    {"DoubleExcitationMinus", 4, 0, 1, Family::block, Formula::double_excitation_minus},
    {"PSWAP", 2, 0, 1, Family::block, Formula::phase_x, Subspace::swap},
    {"MultiRZ", any_wires, 0, 1, Family::pauli_rotation},
    {"PauliRot", any_wires, 0, 1, Family::pauli_rotation},
    {"GlobalPhase", any_wires, 0, 1, Family::block, Formula::global_phase},
    {"QubitUnitary", any_wires, 0, 0, Family::matrix},
    {"DiagonalQubitUnitary", any_wires, 0, 0, Family::diagonal},
    {"DiagonalEvolution", any_wires, 0, 1, Family::evolution},
};

inline constexpr int num_gates = static_cast<int>(sizeof(gate_table) / sizeof(gate_table[0]));

constexpr const GateInfo& gate_info(Opcode opcode) { return gate_table[opcode]; }

// The opcode of a gate name, or -1.
constexpr int find_gate(std::string_view name) {
  for (int i = 0; i < num_gates; ++i) {
    if (gate_table[i].name == name) return i;
  }
  return -1;
}

// Whether the matrix is diagonal for all parameters.
constexpr bool is_diagonal(Formula f) {
  return f == Formula::z || f == Formula::s || f == Formula::t || f == Formula::rz || f == Formula::phase ||
         f == Formula::global_phase;
}

// Rows of a block's matrix.
constexpr int block_size(const GateInfo& info) {
  if (info.formula == Formula::global_phase) return 1;
  if (info.subspace != Subspace::all) return 2;
  return 1 << (info.num_wires - info.num_controls);
}

}  // namespace ketgrad
