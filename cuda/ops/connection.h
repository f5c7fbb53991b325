// Programs live in the other extension, ketgrad._C; this one is handed its lookup.
#pragma once

#include "plan/registry.h"

namespace ketgrad::cuda {

using FindProgram = ProgramHandle (*)(std::int64_t);

void connect(FindProgram find);

// Throws std::logic_error before connect(), std::out_of_range for an unknown id.
ProgramHandle connected_program(std::int64_t id);

}  // namespace ketgrad::cuda
