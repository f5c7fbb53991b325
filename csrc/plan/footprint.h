// How much memory programs and plans take, in bytes: what bounds a cache of them.
#pragma once

#include <cstdint>

#include "plan/parts.h"
#include "plan/plan.h"
#include "program/program.h"

namespace ketgrad {

std::int64_t bytes_of(const Program& program);
std::int64_t bytes_of(const Parts& parts);  // beside their programs
std::int64_t bytes_of(const Plan& plan);

}  // namespace ketgrad
