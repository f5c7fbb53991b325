// Programs by name: an operator call carries one integer, whatever the length of the circuit.
//
// The name is a 63-bit hash of the content, so that it means the same in every process (a compiled graph that is read
// back from disk names the same program). A program lives while a handle refers to it or it is pinned.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "plan/resources.h"
#include "program/program.h"

namespace ketgrad {

class PlannedProgram {
 public:
  PlannedProgram(std::int64_t id, Program program, std::string content);
  PlannedProgram(const PlannedProgram&) = delete;
  PlannedProgram& operator=(const PlannedProgram&) = delete;
  ~PlannedProgram();

  const std::int64_t id;
  const Program program;
  const std::string content;  // as Program::serialise writes it
  const ResourceBounds resources;

  // Made at the first call that asks for the layout, kept from then on.
  const Plan& plan(const Layout& layout) const;

  // About so much memory is taken by the program and its plans so far.
  std::int64_t bytes() const;

  // A cache holds this program from here on, or does so no longer; several may.
  void enter_cache() const;
  void leave_cache() const;

 private:
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<const Plan>> plans_;
  mutable std::int64_t bytes_;
  mutable int caches_ = 0;
  std::atomic<std::int64_t>& in_caches_;  // of the library that made this, while another may call `plan`
};

using ProgramHandle = std::shared_ptr<const PlannedProgram>;

// Of all programs that caches hold; plans that are made later count as soon as they are there.
std::int64_t cached_bytes();

// Validates and names a program; an equal one that is alive is returned instead. Throws what Program::validate throws.
ProgramHandle register_program(Program program);

// Throws std::out_of_range for an unknown id.
ProgramHandle find_program(std::int64_t id);

// Keeps a program for the life of the process: a compiled graph holds its id as a constant, which is no reference.
// Throws std::out_of_range for an unknown id.
void pin_program(std::int64_t id);

}  // namespace ketgrad
