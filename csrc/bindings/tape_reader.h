// Tapes become programs: `Tape.structure` is read in one go, without an object for each gate in between.
#pragma once

#include <vector>

#include "bindings/pybind.h"
#include "program/program.h"

namespace ketgrad {

// The program of a tape's structure, not validated.
//
// `structure`: (operations, measurements, wires, ...) as `Tape.structure` has them. `inputs`: (is_complex, shape) of
// each. `places`: per parameter of the tape, in order, where it is read from: of a scalar (input, column[, scale,
// offset]), of a vector of coefficients a list of those of its columns, of what is an input of its own (input, 0).
//
// Throws what Python's own indexing does where a structure is none, and std::invalid_argument for unknown names.
Program read_tape(const py::tuple& structure, const py::sequence& inputs, const py::sequence& places);

// One input and the parameters of a tape that it consists of: scalars, each a column, or a single one of another kind.
struct BoundInput {
  char layout = 'n';  // the letter of the parameters' layout
  bool is_trainable = false;
  bool is_column = false;
  bool is_complex = false;
  std::vector<int> parameters;
};

struct BoundTape {
  Program program;
  std::vector<BoundInput> inputs;
};

// A program that reads each parameter of a tape from one place: scalars of one layout share an input, trainable ones
// apart from others, because gradients are requested per input; everything else is an input of its own, after these.
// Input 0 has the numbers, and is always there.
//
// `structure`: (operations, measurements, wires, whether it is exact, trainable parameters). `parameters`: the tape's,
// of which the shapes are read where they are no scalars.
BoundTape bind_tape(const py::tuple& structure, const py::tuple& parameters);

}  // namespace ketgrad
