// The operators on the CPU: checks what torch hands over, allocates results, calls the walk.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <string>
#include <tuple>
#include <vector>

#include "core/blocks.h"
#include "core/interrupt.h"
#include "core/memory.h"
#include "cpu/execute.h"
#include "ops/arguments.h"

namespace ketgrad::ops {
namespace {

Tensor empty(std::vector<Index> shape, ScalarType type) { return torch::stable::empty(shape, type); }

// Kets of a large state lie in memory that the next call uses again.
template <class T>
Tensor empty_ket(Index batch, Index size) {
  const std::size_t bytes = 2 * sizeof(T) * static_cast<std::size_t>(batch * size);
  if (bytes < smallest_large_block) return empty({batch, size}, complex_type<T>);
  const std::vector<Index> shape{batch, size};
  const std::vector<Index> strides{size, 1};
  const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
  const auto give_back = [bytes](void* block) { give_back_block(block, bytes); };
  return torch::stable::from_blob(take_block(bytes), shape, strides, cpu, complex_type<T>, give_back);
}

void parallel(Index tasks, void (*body)(void*, Index), void* context) {
  torch::stable::parallel_for(0, tasks, 1, [&](Index begin, Index end) {
    for (Index task = begin; task < end; ++task) body(context, task);
  });
}

// A call and what keeps its memory alive.
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
};

void require_room(double bytes, const PlannedProgram& program, Index batch, const char* what) {
  if (bytes > always_fits) require_memory(bytes, what + call_text(program, batch));
}

using Executed = std::tuple<Tensor, Tensor, Tensor>;

template <class T>
Executed execute_as(ProgramHandle program, const std::vector<Tensor>& inputs, bool keep_ket) {
  const PreparedCall<T> prepared(std::move(program), inputs);
  const Call<T>& call = prepared.call;
  const Index reals = call.program().real_results();
  const Index complexes = call.program().complex_results();
  const double results =
      static_cast<double>(call.batch) * (reals + 2.0 * complexes + (keep_ket ? 2.0 * call.dimension() : 0)) * sizeof(T);
  require_room(results + workspace_bytes(call, false, keep_ket), *call.planned, call.batch, "");
  Tensor real = empty({call.batch, reals}, real_type<T>);
  Tensor complex = empty({call.batch, complexes}, complex_type<T>);
  Tensor ket = empty_ket<T>(call.batch, keep_ket ? call.dimension() : 0);
  execute<T>(call, {data<T>(real), data<T>(complex), keep_ket ? data<T>(ket) : nullptr});
  return {real, complex, ket};
}

template <class T>
std::vector<Tensor> execute_vjp_as(ProgramHandle program, const std::vector<Tensor>& inputs, const Tensor& ket,
                                   const Tensor& g_real, const Tensor& g_complex, const std::vector<Index>& wanted) {
  const PreparedCall<T> prepared(std::move(program), inputs);
  const Call<T>& call = prepared.call;
  const CheckedCotangents<T> checked(prepared.arguments, inputs[0], ket, g_real, g_complex);
  check_wanted(wanted, inputs.size());
  require_room(workspace_bytes(call, true), *call.planned, call.batch, "the gradient of ");
  Cotangents<T> cotangents = checked.view(inputs.size());
  std::vector<Tensor> gradients;
  for (const Index input : wanted) {
    gradients.push_back(empty(shape_of(inputs[input]), inputs[input].scalar_type()));
    T* address = gradient_address<T>(gradients.back());
    std::fill_n(address, gradients.back().numel() * (call.inputs[input].is_complex ? 2 : 1), T(0));
    cotangents.gradients[input] = address;
  }
  execute_vjp<T>(call, cotangents);
  return gradients;
}

Executed execute_cpu(int64_t program, std::vector<Tensor> inputs, bool keep_ket) {
  return is_single(inputs) ? execute_as<float>(find_program(program), inputs, keep_ket)
                           : execute_as<double>(find_program(program), inputs, keep_ket);
}

std::vector<Tensor> execute_vjp_cpu(int64_t program, std::vector<Tensor> inputs, const Tensor& ket,
                                    const Tensor& g_real, const Tensor& g_complex, std::vector<int64_t> wanted) {
  const std::vector<Index> list(wanted.begin(), wanted.end());
  return is_single(inputs) ? execute_vjp_as<float>(find_program(program), inputs, ket, g_real, g_complex, list)
                           : execute_vjp_as<double>(find_program(program), inputs, ket, g_real, g_complex, list);
}

}  // namespace
}  // namespace ketgrad::ops

STABLE_TORCH_LIBRARY_IMPL(ketgrad, CPU, m) {
  m.impl("execute", TORCH_BOX(&ketgrad::ops::execute_cpu));
  m.impl("execute_vjp", TORCH_BOX(&ketgrad::ops::execute_vjp_cpu));
}
