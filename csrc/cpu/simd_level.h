// Instruction sets: which of them this machine has, and the engine compiled for the one in use.
#pragma once

#include <string>
#include <vector>

#include "cpu/engine.h"

namespace ketgrad {

// The levels that this build has and this machine can run, slowest first: "portable", "avx2", "avx512".
std::vector<std::string> available_simd_levels();

// The one in use: the last of the available, or what KETGRAD_CPU_LEVEL named at first use, or set_simd_level's choice.
std::string current_simd_level();

// Throws std::invalid_argument for a level that is not available, naming those that are.
void set_simd_level(const std::string& name);

const EngineSet& current_engines();

}  // namespace ketgrad
