// Operator calls on the CPU: a program with checked inputs on torch's threads, memory, results.
#pragma once

#include <torch/csrc/stable/library.h>

#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/call.h"
#include "ops/checks.h"
#include "runtime/huge_pages.h"
#include "runtime/interrupt.h"
#include "runtime/memory.h"

namespace ketgrad::ops {

// Real and complex results, and the ket.
using Executed = std::tuple<Tensor, Tensor, Tensor>;
// Real and complex results, or derivatives of them, and gradients.
using ResultsAndGradients = std::tuple<Tensor, Tensor, std::vector<Tensor>>;

inline Tensor empty(const std::vector<Index>& shape, ScalarType type) {
  return empty_on(torch::stable::Device(torch::headeronly::DeviceType::CPU), shape, type);
}

// The kets that a call keeps, if any: `size` amplitudes in each of `batch` rows.
template <class T>
class KeptKets {
 public:
  KeptKets(KeepKet keep, Index batch, Index size)
      : shape_{batch, keep == KeepKet::no ? 0 : size},
        is_rounded_(sizeof(T) == sizeof(double) && keep == KeepKet::rounded) {}

  // Whether the engine may leave its own states there.
  bool are_exact() const { return shape_[1] != 0 && !is_rounded_; }

  std::size_t bytes() const {
    return 2 * (is_rounded_ ? sizeof(float) : sizeof(T)) * static_cast<std::size_t>(shape_[0] * shape_[1]);
  }

  // Large ones are in memory from the pool, which the next call reuses.
  Tensor allocate() const {
    const ScalarType type = ket_type<T>(is_rounded_);
    if (bytes() < smallest_large_buffer) return empty(shape_, type);
    const std::vector<Index> strides{shape_[1], 1};
    const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
    const auto give_back = [size = bytes()](void* block) { give_back_buffer(block, size); };
    return torch::stable::from_blob(take_buffer(bytes()), shape_, strides, cpu, type, give_back);
  }

 private:
  std::vector<Index> shape_;
  bool is_rounded_;
};

inline void parallel(Index tasks, void (*body)(void*, Index), void* context) {
  torch::stable::parallel_for(0, tasks, 1, [&](Index begin, Index end) {
    for (Index task = begin; task < end; ++task) body(context, task);
  });
}

// A call and the tensors that own its memory.
template <class T>
struct PreparedCall {
  Arguments<T> arguments;
  Call<T> call;

  PreparedCall(ProgramHandle program, const std::vector<Tensor>& inputs)
      : arguments(check_arguments<T>(std::move(program), inputs)) {
    call.planned = arguments.program.get();
    call.batch = arguments.batch;
    call.inputs = std::move(arguments.views);
    call.parallel = parallel;
    call.threads = static_cast<int>(torch::stable::get_num_threads());
    call.cancelled = cancel_hook();
  }

  // Copies of all circuits, copy after copy, which read the same inputs.
  void copy(std::optional<Index> copies) {
    arguments.copies = copies;
    if (!copies.has_value()) return;
    call.has_copies = true;
    call.batch = arguments.samples();
    for (InputView<T>& view : call.inputs) {
      view.batched = view.batched && arguments.batch > 1;  // all samples share the values of one circuit
      view.period = *copies > 1 ? arguments.batch : 0;
    }
  }

  void move(const std::vector<const T*>& tangents) {
    call.tangents = call.inputs;
    for (std::size_t i = 0; i < tangents.size(); ++i) {
      InputView<T>& view = call.tangents[i];
      view.data = tangents[i];
      if (call.has_copies) view.batched = true;
      view.period = 0;
    }
  }
};

inline void require_room(double bytes, const PlannedProgram& program, Index batch, const char* what) {
  if (bytes > always_fits) require_memory(bytes, what + call_text(program, batch));
}

template <class T>
double result_bytes(const Call<T>& call) {
  const Program& program = call.program();
  const Index numbers = program.real_results() + 2 * program.complex_results();
  return static_cast<double>(call.batch) * static_cast<double>(numbers) * sizeof(T);
}

}  // namespace ketgrad::ops
