// What calls of a program need, for regimes and estimates of memory.
#pragma once

#include "program/program.h"

namespace ketgrad {

// What a call needs beside the states, whatever the layout.
struct ResourceBounds {
  int largest_block = 1;       // rows of the largest matrix
  Index largest_sum = 1;       // numbers in the largest sum over amplitudes: overlaps, outcomes, a density matrix
  Index work = 0;              // gates and terms
  bool needs_scratch = false;  // some measurement needs states of its own
};

ResourceBounds resource_bounds(const Program& program);

}  // namespace ketgrad
