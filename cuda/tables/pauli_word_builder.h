// Expectation values of Pauli words: passes over tiles, in each of which the Pauli words of one flip are measured
// together.
#pragma once

#include <vector>

#include "cuda/tables/sign_builder.h"
#include "cuda/tables/tables.h"
#include "cuda/tables/value_builder.h"

namespace ketgrad::cuda {

class PauliWordBuilder {
 public:
  PauliWordBuilder(Tables& tables, SignBuilder& signs, ValueBuilder& values)
      : tables_(tables), signs_(signs), values_(values) {}

  // The Pauli words of a pass, whose tiles are those that `signs` has begun with.
  Range add_flip_groups(const ObservablePass& pass);

  // All passes that no pass of the circuit measures, and what each result sums up.
  void add_remaining(const std::vector<ObservablePass>& passes);

 private:
  using Members = std::vector<PauliGroup::Member>;

  void append_flip_groups(std::vector<FlipGroup>& groups, const PauliGroup& group, const ObservablePass& pass);
  PauliWordList add_list(const Members& members, Local flip, const ObservablePass& pass);
  void add_results();

  Tables& tables_;
  SignBuilder& signs_;
  ValueBuilder& values_;
};

}  // namespace ketgrad::cuda
