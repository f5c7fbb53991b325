// What is measured besides Pauli words: observables with factors, outcomes, states.
#pragma once

#include <vector>

#include "cuda/tables/tables.h"
#include "cuda/tables/value_builder.h"

namespace ketgrad::cuda {

class MeasurementBuilder {
 public:
  MeasurementBuilder(Tables& tables, ValueBuilder& values) : tables_(tables), values_(values) {}

  void add(const PlannedMeasurement& m);

 private:
  ObservableFactor factor_of(const PlannedFactor& f);
  void add_sparse(ObservableFactor& found, const Factor& factor, Index size);
  void add_lines(const std::vector<Index>& line_of, Index size, Range& starts, Range& entries);

  Tables& tables_;
  ValueBuilder& values_;
};

}  // namespace ketgrad::cuda
