// What a plan is expected to cost, for people to read: the arithmetic that is done and the bytes that move.
#pragma once

#include "plan/plan.h"

namespace ketgrad {

struct Cost {
  double multiply_adds = 0;  // of real numbers
  double bytes = 0;          // between the caches and what lies beyond: none where the state is a single tile

  Cost& operator+=(const Cost& other) {
    multiply_adds += other.multiply_adds;
    bytes += other.bytes;
    return *this;
  }
};

// What decides how many bytes move.
struct Traffic {
  int number_bytes = 8;      // of a real number
  bool moves_zeros = false;  // tiles are read and written as a whole, amplitudes that must be zero included
};

// Of one circuit. Backward: ket and bra are undone and every overlap is taken.
Cost forward_cost(const Plan& plan, const Pass& pass, const Traffic& traffic);
Cost backward_cost(const Plan& plan, const Pass& pass, const Traffic& traffic);
Cost forward_cost(const Plan& plan, const ObservablePass& pass, const Traffic& traffic);
Cost backward_cost(const Plan& plan, const ObservablePass& pass, const Traffic& traffic);

}  // namespace ketgrad
