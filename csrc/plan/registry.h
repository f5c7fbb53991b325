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

#include "plan/parts.h"
#include "plan/plan.h"
#include "plan/resources.h"
#include "program/program.h"

namespace ketgrad {

class PlannedProgram {
 public:
  PlannedProgram(std::int64_t id, Program program, Decomposition decomposition, std::string content);
  PlannedProgram(const PlannedProgram&) = delete;
  PlannedProgram& operator=(const PlannedProgram&) = delete;
  ~PlannedProgram();

  const std::int64_t id;
  const Program program;      // what is planned: without the wires that nothing depends on
  const std::string content;  // of the circuit, as Program::serialise writes it
  const ResourceBounds resources;
  const Parts parts;             // where there are any, they are run instead of the program
  const std::vector<int> gates;  // per gate of `program`, of the circuit; empty: the same
  const int num_left_out;        // gates of the circuit that are in neither

  bool has_parts() const { return !parts.parts.empty(); }

  // Amplitudes of the final state that a call keeps for its gradients. Those of parts are computed again.
  Index ket_size() const { return has_parts() ? 0 : Index{1} << program.num_wires; }

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

// Of all programs that caches hold; plans that are made later count as soon as they are there.
std::int64_t cached_bytes();

// Validates and names a program; an equal one that is alive is returned instead. Throws what Program::validate and
// `decompose` throw.
ProgramHandle register_program(Program program);

// Throws std::out_of_range for an unknown id.
ProgramHandle find_program(std::int64_t id);

// Keeps a program for the life of the process: a compiled graph holds its id as a constant, which is no reference.
// Throws std::out_of_range for an unknown id.
void pin_program(std::int64_t id);

}  // namespace ketgrad
