// What a plan is expected to cost, for people to read: the arithmetic that is done and the bytes that move.
#pragma once

#include "core/plan.h"

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

// Of one circuit; numbers are of `number_bytes` each. Backward: ket and bra are undone and every overlap is taken.
Cost forward_cost(const Plan& plan, const Pass& pass, int number_bytes);
Cost backward_cost(const Plan& plan, const Pass& pass, int number_bytes);
Cost forward_cost(const Plan& plan, const ObservablePass& pass, int number_bytes);
Cost backward_cost(const Plan& plan, const ObservablePass& pass, int number_bytes);

}  // namespace ketgrad
