// Values that kernels compute of inputs (angles, coefficients, gate parameters), and the gradients that flow back
// through them: a shared input's gradient is summed by the entries of its GradientElement.
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "cuda/tables/tables.h"

namespace ketgrad::cuda {

class ValueBuilder {
 public:
  ValueBuilder(Tables& tables, const Plan& plan) : tables_(tables), plan_(plan) {}

  // Sets angle `number` to the sum of the angles of these rotations.
  void set_angle(int number, const std::vector<int>& rotations);

  // Appends a term's coefficient and returns its number.
  int add_coefficient(const Term& term);

  // A gradient source for each slot. Returns the number of the first.
  int add_single_sources(const std::vector<Slot>& slots);

  // Writes the gradients of inputs. No angle may be added afterwards: single sources are numbered behind the angles.
  void finish();

 private:
  std::vector<GradientEntry>& entries_of(const Slot& slot) { return gradients_[{slot.input, slot.column}]; }
  bool is_negated(int rotation) const;

  Tables& tables_;
  const Plan& plan_;
  std::map<std::pair<int, int>, std::vector<GradientEntry>> gradients_;  // by input and column
};

}  // namespace ketgrad::cuda
