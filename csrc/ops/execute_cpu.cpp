// The operators on the CPU: checks what torch hands over, allocates results, calls the walk.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "core/blocks.h"
#include "core/interrupt.h"
#include "core/memory.h"
#include "core/registry.h"
#include "cpu/execute.h"

namespace ketgrad {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

std::string shape_text(const std::vector<Index>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::vector<Index> shape_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return {sizes.begin(), sizes.end()};
}

template <class T>
constexpr ScalarType real_type = sizeof(T) == sizeof(float) ? ScalarType::Float : ScalarType::Double;
template <class T>
constexpr ScalarType complex_type = sizeof(T) == sizeof(float) ? ScalarType::ComplexFloat : ScalarType::ComplexDouble;

// `message` is a function: to put the text together would take longer than a small circuit.
template <class F>
void require(bool condition, const F& message) {
  if (!condition) throw std::invalid_argument("ketgrad: " + message());
}

// What a message calls a tensor.
std::string input_name(std::size_t position) { return "input " + std::to_string(position); }

// The tensor itself where it is contiguous already, without asking torch for it.
Tensor as_contiguous(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

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

template <class T>
T* data(const Tensor& tensor) {
  return static_cast<T*>(tensor.data_ptr());
}

void parallel(Index tasks, void (*body)(void*, Index), void* context) {
  torch::stable::parallel_for(0, tasks, 1, [&](Index begin, Index end) {
    for (Index task = begin; task < end; ++task) body(context, task);
  });
}

// A call and what keeps its memory alive.
template <class T>
struct PreparedCall {
  ProgramHandle program;
  std::vector<Tensor> inputs;  // contiguous
  Call<T> call;
};

// The batch axis is there or not: shape, or (B,) + shape.
template <class T>
void add_input(PreparedCall<T>& prepared, const Tensor& tensor, const InputSpec& spec, std::size_t position) {
  require(tensor.is_cpu(), [&] { return input_name(position) + " is not on the CPU, as the first input is"; });
  const ScalarType type = spec.is_complex ? complex_type<T> : real_type<T>;
  require(tensor.scalar_type() == type,
          [&] { return input_name(position) + " has another dtype than the first input's precision asks for"; });
  const auto shape = tensor.sizes();
  const bool batched = shape.size() == spec.shape.size() + 1;
  const bool fits = (batched || shape.size() == spec.shape.size()) &&
                    std::equal(spec.shape.begin(), spec.shape.end(), shape.begin() + (batched ? 1 : 0));
  require(fits, [&] {
    return input_name(position) + " has shape " + shape_text(shape_of(tensor)) + ", the program needs " +
           shape_text(spec.shape) + " or that behind a batch axis";
  });
  Call<T>& call = prepared.call;
  if (batched) {
    require(call.batch < 0 || call.batch == shape[0], [&] {
      return input_name(position) + " has batch size " + std::to_string(shape[0]) + ", another input has " +
             std::to_string(call.batch);
    });
    call.batch = shape[0];
  }
  prepared.inputs.push_back(as_contiguous(tensor));
  call.inputs.push_back({data<const T>(prepared.inputs.back()), batched, spec.is_complex, spec.numel()});
}

template <class T>
void prepare(PreparedCall<T>& prepared, ProgramHandle program, const std::vector<Tensor>& inputs) {
  prepared.program = std::move(program);
  const std::vector<InputSpec>& specs = prepared.program->program.inputs;
  require(inputs.size() == specs.size(),
          [&] { return std::to_string(inputs.size()) + " inputs, the program needs " + std::to_string(specs.size()); });
  Call<T>& call = prepared.call;
  call.planned = prepared.program.get();
  call.batch = -1;
  for (std::size_t i = 0; i < inputs.size(); ++i) add_input(prepared, inputs[i], specs[i], i);
  if (call.batch < 0) call.batch = 1;
  call.parallel = parallel;
  call.threads = static_cast<int>(torch::stable::get_num_threads());
  call.cancelled = cancel_hook();
}

std::string call_text(const PlannedProgram& program, Index batch) {
  const std::string circuits = batch == 1 ? "a circuit" : "a batch of " + std::to_string(batch) + " circuits";
  return circuits + " on " + std::to_string(program.program.num_wires) + " wires";
}

void require_room(double bytes, const PlannedProgram& program, Index batch, const char* what) {
  if (bytes > always_fits) require_memory(bytes, what + call_text(program, batch));
}

using Executed = std::tuple<Tensor, Tensor, Tensor>;

template <class T>
Executed execute_as(ProgramHandle program, const std::vector<Tensor>& inputs, bool keep_ket) {
  PreparedCall<T> prepared;
  prepare(prepared, std::move(program), inputs);
  const Call<T>& call = prepared.call;
  const Index reals = call.program().real_results();
  const Index complexes = call.program().complex_results();
  const double results =
      static_cast<double>(call.batch) * (reals + 2.0 * complexes + (keep_ket ? 2.0 * call.dimension() : 0)) * sizeof(T);
  require_room(results + workspace_bytes(call, false, keep_ket), *prepared.program, call.batch, "");
  Tensor real = empty({call.batch, reals}, real_type<T>);
  Tensor complex = empty({call.batch, complexes}, complex_type<T>);
  Tensor ket = empty_ket<T>(call.batch, keep_ket ? call.dimension() : 0);
  execute<T>(call, {data<T>(real), data<T>(complex), keep_ket ? data<T>(ket) : nullptr});
  return {real, complex, ket};
}

Tensor cotangent(const Tensor& tensor, const std::vector<Index>& shape, ScalarType type, const char* what) {
  require(tensor.is_cpu(), [&] { return std::string(what) + " is not on the CPU, as the first input is"; });
  require(tensor.scalar_type() == type, [&] { return std::string(what) + " has another dtype than its result"; });
  require(shape_of(tensor) == shape, [&] {
    return std::string(what) + " has shape " + shape_text(shape_of(tensor)) + ", its result has " + shape_text(shape);
  });
  return as_contiguous(tensor);
}

template <class T>
std::vector<Tensor> execute_vjp_as(ProgramHandle program, const std::vector<Tensor>& inputs, const Tensor& ket,
                                   const Tensor& g_real, const Tensor& g_complex, const std::vector<Index>& wanted) {
  PreparedCall<T> prepared;
  prepare(prepared, std::move(program), inputs);
  const Call<T>& call = prepared.call;
  const bool has_ket = ket.numel() != 0;
  const Tensor kept = has_ket ? cotangent(ket, {call.batch, call.dimension()}, complex_type<T>, "the ket") : ket;
  const Tensor real =
      cotangent(g_real, {call.batch, call.program().real_results()}, real_type<T>, "the real cotangent");
  const Tensor complex =
      cotangent(g_complex, {call.batch, call.program().complex_results()}, complex_type<T>, "the complex cotangent");
  require_room(workspace_bytes(call, true), *prepared.program, call.batch, "the gradient of ");
  Cotangents<T> cotangents{has_ket ? data<const T>(kept) : nullptr, data<const T>(real), data<const T>(complex), {}};
  cotangents.gradients.resize(inputs.size(), nullptr);
  std::vector<Tensor> gradients;
  for (const Index input : wanted) {
    require(input >= 0 && input < static_cast<Index>(inputs.size()),
            [&] { return "no input " + std::to_string(input) + " to differentiate"; });
    require(cotangents.gradients[input] == nullptr,
            [&] { return "input " + std::to_string(input) + " is wanted twice"; });
    Tensor gradient = empty(shape_of(inputs[input]), inputs[input].scalar_type());
    cotangents.gradients[input] = data<T>(gradient);
    const Index numbers = gradient.numel() * (call.inputs[input].is_complex ? 2 : 1);
    std::fill(cotangents.gradients[input], cotangents.gradients[input] + numbers, T(0));
    gradients.push_back(gradient);
  }
  // Memory of no elements has no address; nothing is written there, but null would read as "not wanted".
  static T nothing[2];
  for (const Index input : wanted) {
    if (cotangents.gradients[input] == nullptr) cotangents.gradients[input] = nothing;
  }
  execute_vjp<T>(call, cotangents);
  return gradients;
}

bool is_single(const std::vector<Tensor>& inputs) {
  require(!inputs.empty(), [] { return std::string("a call needs its first input, which settles dtype and device"); });
  const ScalarType type = inputs[0].scalar_type();
  require(type == ScalarType::Float || type == ScalarType::Double,
          [] { return std::string("the first input must be float32 or float64"); });
  return type == ScalarType::Float;
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
}  // namespace ketgrad

STABLE_TORCH_LIBRARY_IMPL(ketgrad, CPU, m) {
  m.impl("execute", TORCH_BOX(&ketgrad::execute_cpu));
  m.impl("execute_vjp", TORCH_BOX(&ketgrad::execute_vjp_cpu));
}
