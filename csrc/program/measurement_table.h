// The measurement table: the single source of what a measurement is called, what it is of and what its result is. The
// planner, validation and Python all read it, as they read the table of gates.
#pragma once

#include <cstdint>
#include <iterator>
#include <string_view>

namespace ketgrad {

enum class MeasurementKind : std::uint8_t {
  expval,
  var,
  probs,
  state,
  density_matrix,
};

// What a measurement is of.
enum class Subject : std::uint8_t {
  observable,  // terms
  wires,       // the wires that the circuit says, the first the most significant
  all_wires,   // all wires, and their phases: every gate is in the light cone
};

struct MeasurementInfo {
  MeasurementKind kind;
  std::string_view name;
  Subject subject;
  bool is_complex;  // whether the result is complex
  // The result is an array with so many axes of length 2^k, k being the number of measured wires: 0 is a number, 1 a
  // vector, 2 a square matrix.
  std::uint8_t num_axes;
  // Of Subject::wires: whether it depends on more than the diagonal of the density matrix of the wires.
  bool beyond_diagonal = false;
};

// In the order of the enumeration.
inline constexpr MeasurementInfo measurement_table[] = {
    {MeasurementKind::expval, "expval", Subject::observable, false, 0},
    {MeasurementKind::var, "var", Subject::observable, false, 0},
    {MeasurementKind::probs, "probs", Subject::wires, false, 1},
    {MeasurementKind::state, "state", Subject::all_wires, true, 1},
    {MeasurementKind::density_matrix, "density_matrix", Subject::wires, true, 2, true},
};

inline constexpr int num_measurements = static_cast<int>(std::size(measurement_table));

constexpr bool is_in_order() {
  for (int i = 0; i < num_measurements; ++i) {
    if (static_cast<int>(measurement_table[i].kind) != i) return false;
  }
  return true;
}
static_assert(is_in_order());

constexpr const MeasurementInfo& measurement_info(MeasurementKind kind) {
  return measurement_table[static_cast<int>(kind)];
}

// The position in the table of a name, or -1.
constexpr int find_measurement(std::string_view name) {
  for (int i = 0; i < num_measurements; ++i) {
    if (measurement_table[i].name == name) return i;
  }
  return -1;
}

}  // namespace ketgrad
