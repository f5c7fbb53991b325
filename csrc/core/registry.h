// Programs by name: an operator call carries one integer, whatever the length of the circuit.
//
// The name is a 63-bit hash of the content, so that it means the same in every process (a compiled graph that is read
// back from disk names the same program). A program lives while a handle refers to it or it is pinned; of the others
// only the latest stay.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "core/plan.h"
#include "core/program.h"

namespace ketgrad {

struct PlannedProgram {
  std::int64_t id = 0;
  Program program;
  Extent extent;

  // Made at the first call that asks for the layout, kept from then on.
  const Plan& plan(const Layout& layout) const;

 private:
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<const Plan>> plans_;
};

using ProgramHandle = std::shared_ptr<const PlannedProgram>;

// Validates, plans and names a program; an equal one that is still known is returned instead. Throws what
// Program::validate throws.
ProgramHandle register_program(Program program);

// Throws std::out_of_range for an unknown id.
ProgramHandle find_program(std::int64_t id);

// Keeps a program for the life of the process: a compiled graph holds its id as a constant, which is no reference.
// Throws std::out_of_range for an unknown id.
void pin_program(std::int64_t id);

inline constexpr std::size_t unreferenced_programs_kept = 1024;

}  // namespace ketgrad
