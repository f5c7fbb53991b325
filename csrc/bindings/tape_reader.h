// Tapes become programs: `Tape.structure` is read in one go, without an object for each gate in between.
#pragma once

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

}  // namespace ketgrad
