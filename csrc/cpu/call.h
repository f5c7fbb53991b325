// One operator call as the engine gets it: a program, its inputs, and the pool to run on.
#pragma once

#include <atomic>
#include <exception>
#include <new>
#include <thread>
#include <vector>

#include "plan/registry.h"
#include "program/call.h"
#include "runtime/interrupt.h"

namespace ketgrad {

// Runs body(context, task) for each task in [0, tasks), on whatever pool the host program has. Bodies do not throw.
using ParallelFor = void (*)(Index tasks, void (*body)(void* context, Index task), void* context);

// Runs body(task) for each task in [0, tasks) on the pool. A failed allocation in a body, which must not leave its
// thread, is thrown here.
template <class Body>
void run_parallel(ParallelFor parallel, Index tasks, const Body& body) {
  struct Shared {
    const Body& body;
    std::atomic<bool> out_of_memory{false};
  } shared{body};
  parallel(
      tasks,
      [](void* context, Index task) {
        Shared& s = *static_cast<Shared*>(context);
        try {
          s.body(task);
        } catch (const std::exception&) {  // bad_alloc, or a vector's length_error
          s.out_of_memory = true;
        }
      },
      &shared);
  if (shared.out_of_memory) throw std::bad_alloc();
}

// Whether a call shall end early. The calling thread polls the hook, all threads see the flag.
struct Cancellation {
  CancelHook cancelled = nullptr;
  std::thread::id caller = std::this_thread::get_id();
  mutable std::atomic<bool> stopped{false};

  bool should_stop() const {
    if (stopped.load(std::memory_order_relaxed)) return true;
    if (cancelled == nullptr || std::this_thread::get_id() != caller || !cancelled()) return false;
    stopped.store(true, std::memory_order_relaxed);
    return true;
  }
};

template <class T>
struct Call : Cancellation {
  const PlannedProgram* planned = nullptr;
  Index batch = 0;
  std::vector<InputView<T>> inputs;
  std::vector<InputView<T>> tangents;  // of the inputs, null where one has no tangent; empty where none has one
  bool has_copies = false;  // each sample has its own gradients and tangents, of inputs too that all of them share
  ParallelFor parallel = nullptr;
  int threads = 1;

  const Program& program() const { return planned->program; }
  const ResourceBounds& resources() const { return planned->resources; }
  Index dimension() const { return Index{1} << program().num_wires; }

  // The value of a slot for one sample: scale * input[column] + offset.
  double value(const Slot& slot, Index sample) const {
    return slot.scale * static_cast<double>(inputs[slot.input].of_sample(sample)[slot.column]) + slot.offset;
  }

  bool has_tangent(int input) const {
    return input != no_input && !tangents.empty() && tangents[input].data != nullptr;
  }

  bool has_tangent(const GateOp& gate_op) const {
    for (const int input : gate_op.inputs) {
      if (has_tangent(input)) return true;
    }
    return false;
  }

  // The derivative of `value` along the direction of the call.
  double tangent(const Slot& slot, Index sample) const {
    return has_tangent(slot.input)
               ? slot.scale * static_cast<double>(tangents[slot.input].of_sample(sample)[slot.column])
               : 0;
  }

  bool shared(const GateOp& gate_op) const {
    for (const int input : gate_op.inputs) {
      if (inputs[input].batched) return false;
    }
    return true;
  }

  // Whether all samples add to one gradient of an input.
  bool sums_gradient(int input) const { return !has_copies && !inputs[input].batched; }

  // Whether samples may differ in an input's value or tangent.
  bool is_per_sample(int input) const {
    return input != no_input && (inputs[input].batched || (has_copies && has_tangent(input)));
  }

  bool is_per_sample(const GateOp& gate_op) const {
    for (const int input : gate_op.inputs) {
      if (is_per_sample(input)) return true;
    }
    return false;
  }
};

}  // namespace ketgrad
