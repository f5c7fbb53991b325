// Programs that are made of some gates and wires of another one.
#pragma once

#include <vector>

#include "plan/cone.h"
#include "program/program.h"

namespace ketgrad {

// The gates of a cone on its wires alone, with the same inputs, and with measurements on wires of the whole.
Program subprogram(const Program& whole, const Cone& cone, std::vector<Measurement> measurements);

// Where the inputs of a program are read from that were those of another one.
struct CompactInputs {
  std::vector<int> inputs;                // per input
  std::vector<std::vector<int>> columns;  // per input, if it is a vector of numbers: which of its columns
};

// Leaves out inputs, and columns of vectors, that a program does not read; those that it reads are numbered in the order
// in which it reads them. Input 0 stays.
CompactInputs compact_inputs(Program& program);

}  // namespace ketgrad
