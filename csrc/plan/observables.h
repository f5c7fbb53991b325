// Measurements of a plan: the Pauli words of expectation values are gathered into passes over tiles, all others are
// planned one by one.
#pragma once

#include <map>
#include <vector>

#include "plan/plan.h"
#include "plan/wire_map.h"

namespace ketgrad {

// A Pauli word of an expectation value, and its term.
struct ObservedPauliWord {
  const Term* term;
  Index result;
  PauliWord pauli_word;
};

// By the bits that they flip.
using PauliWordsByFlip = std::map<Mask, std::vector<ObservedPauliWord>>;

std::vector<Mask> flips_of(const PauliWordsByFlip& pauli_words);

// Plans the measurements of the plan's program; returns the Pauli words that are left to passes.
PauliWordsByFlip plan_measurements(Plan& plan, const WireMap& wire_map);

// Plans the passes that measure Pauli words, after all other passes.
void plan_observables(Plan& plan, const PauliWordsByFlip& pauli_words);

}  // namespace ketgrad
