// The measurement table: name, subject and result of each measurement, in one place. Validation, planner and Python
// read it.
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

// What is measured.
enum class Subject : std::uint8_t {
  observable,  // terms
  wires,       // the wires that the circuit lists, the first the most significant
  all_wires,   // all wires, phases included: every gate is in the light cone
};

struct MeasurementInfo {
  MeasurementKind kind;
  std::string_view name;
  Subject subject;
  bool is_complex;  // whether the result is complex
  // Axes of the result, each of length 2^k for k measured wires: 0 is a number, 1 a vector, 2 a square matrix.
  std::uint8_t num_axes;
  // Of Subject::wires: whether it depends on off-diagonal entries of the wires' reduced density matrix.
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

// The position of a name in the table, or -1.
constexpr int find_measurement(std::string_view name) {
  for (int i = 0; i < num_measurements; ++i) {
    if (measurement_table[i].name == name) return i;
  }
  return -1;
}

}  // namespace ketgrad
