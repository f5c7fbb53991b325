#include "cuda/tables/value_builder.h"

#include <algorithm>

#include "cuda/tables/affine.h"

namespace ketgrad::cuda {

namespace {

// Single sources follow the angles, whose count is not known before finish().
constexpr std::int32_t single_source(int number) { return -1 - number; }

}  // namespace

void ValueBuilder::set_angle(int number, const std::vector<int>& rotations) {
  std::vector<Slot> values;
  for (const int r : rotations) {
    const Slot& slot = plan_.rotations[r].angle;
    const double sign = is_negated(r) ? -1 : 1;
    values.push_back({slot.input, slot.column, sign * slot.scale, sign * slot.offset});
    if (slot.input != no_input) entries_of(slot).push_back({number, sign * slot.scale});
  }
  const bool constant = std::all_of(values.begin(), values.end(), [](const Slot& v) { return v.input == no_input; });
  tables_.angles[number] = {append(tables_.values, values), constant ? 1 : 0};
}

// -i P is a real matrix that takes an even row to its partner times +1 or -1; a diagonal P has only a sign of its own.
bool ValueBuilder::is_negated(int rotation) const {
  const PauliWord& pauli_word = plan_.rotations[rotation].pauli_word;
  return (!pauli_word.is_diagonal() && pauli_word.y_count % 4 == 3) != pauli_word.negative;
}

int ValueBuilder::add_coefficient(const Term& term) {
  const Range values = append(tables_.values, term.coefficients);
  tables_.coefficients.push_back({term.scale, values, add_single_sources(term.coefficients)});
  return static_cast<int>(tables_.coefficients.size()) - 1;
}

int ValueBuilder::add_single_sources(const std::vector<Slot>& slots) {
  const int first = tables_.single_sources;
  for (const Slot& s : slots) entries_of(s).push_back({single_source(tables_.single_sources++), s.scale});
  return first;
}

void ValueBuilder::finish() {
  const auto angles = static_cast<std::int32_t>(tables_.angles.size());
  for (auto& [place, entries] : gradients_) {
    if (place.first == no_input) continue;
    for (GradientEntry& e : entries) e.source = e.source < 0 ? angles - 1 - e.source : e.source;
    tables_.elements.push_back({place.first, place.second, append(tables_.gradient_entries, entries)});
  }
}

}  // namespace ketgrad::cuda
