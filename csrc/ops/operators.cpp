// The operators on the CPU: check the tensors, allocate the results, call the engine.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "cpu/execute.h"
#include "cpu/values.h"
#include "ops/checks.h"
#include "ops/cpu_call.h"

namespace ketgrad::ops {
namespace {

template <class T>
Executed execute_as(ProgramHandle program, const std::vector<Tensor>& inputs, KeepKet keep_ket) {
  const PreparedCall<T> prepared(std::move(program), inputs);
  const Call<T>& call = prepared.call;
  check_values(call);
  const KeptKets<T> kets(keep_ket, call.batch, call.planned->ket_size());
  require_room(result_bytes(call) + static_cast<double>(kets.bytes()) + workspace_bytes(call, false, kets.are_exact()),
               *call.planned, call.batch, "");
  Tensor real = empty({call.batch, call.program().real_results()}, real_type<T>);
  Tensor complex = empty({call.batch, call.program().complex_results()}, complex_type<T>);
  Tensor ket = kets.allocate();
  Results<T> results{data<T>(real), data<T>(complex)};
  set_ket<T>(results, ket, 0);
  execute<T>(call, results);
  return {real, complex, ket};
}

// Bytes of the gradients of the requested inputs.
template <class T>
double gradient_bytes(const Call<T>& call, const std::vector<Index>& requested) {
  double numbers = 0;
  for (const Index input : requested) {
    const InputView<T>& view = call.inputs[input];
    numbers += (view.is_complex ? 2.0 : 1.0) * static_cast<double>(view.numel) *
               static_cast<double>(call.sums_gradient(static_cast<int>(input)) ? 1 : call.batch);
  }
  return numbers * sizeof(T);
}

// A gradient of zeros, whose address is set in `cotangents`.
template <class T>
Tensor empty_gradient(const PreparedCall<T>& prepared, Index input, Cotangents<T>& cotangents) {
  const Arguments<T>& arguments = prepared.arguments;
  Tensor gradient = empty(arguments.gradient_shape(input), arguments.inputs[input].scalar_type());
  T* address = gradient_address<T>(gradient);
  std::fill_n(address, gradient.numel() * (prepared.call.inputs[input].is_complex ? 2 : 1), T(0));
  cotangents.gradients[input] = address;
  return gradient;
}

template <class T>
std::vector<Tensor> execute_vjp_as(ProgramHandle program, const std::vector<Tensor>& inputs, const Tensor& ket,
                                   const Tensor& g_real, const Tensor& g_complex, const std::vector<Index>& requested) {
  PreparedCall<T> prepared(std::move(program), inputs);
  prepared.copy(copies_of(g_real, 2));
  const Call<T>& call = prepared.call;
  const CheckedCotangents<T> checked(prepared.arguments, inputs[0], ket, g_real, g_complex);
  check_requested(requested, inputs.size());
  require_room(workspace_bytes(call, true) + gradient_bytes(call, requested), *call.planned, call.batch,
               "the gradient of ");
  Cotangents<T> cotangents = checked.view(inputs.size());
  std::vector<Tensor> gradients;
  for (const Index input : requested) {
    gradients.push_back(empty_gradient(prepared, input, cotangents));
  }
  execute_vjp<T>(call, cotangents);
  return gradients;
}

template <class T>
ResultsAndGradients execute_and_vjp_as(ProgramHandle program, const std::vector<Tensor>& inputs, const Tensor& g_real,
                                       const Tensor& g_complex, double curvature, const std::vector<Index>& requested) {
  const PreparedCall<T> prepared(std::move(program), inputs);
  const Call<T>& call = prepared.call;
  check_values(call);
  const Tensor no_ket = empty({call.batch, 0}, complex_type<T>);
  const CheckedCotangents<T> checked(prepared.arguments, inputs[0], no_ket, g_real, g_complex);
  check_requested(requested, inputs.size());
  require_room(workspace_bytes(call, true) + result_bytes(call) + gradient_bytes(call, requested), *call.planned,
               call.batch, "value and gradient of ");
  const Tensor real = empty({call.batch, call.program().real_results()}, real_type<T>);
  const Tensor complex = empty({call.batch, call.program().complex_results()}, complex_type<T>);
  Cotangents<T> cotangents = checked.view(inputs.size());
  std::vector<Tensor> gradients;
  for (const Index input : requested) {
    gradients.push_back(empty_gradient(prepared, input, cotangents));
  }
  const Tensor sums = empty({curvature == 0 ? 0 : call.batch, call.program().real_results()}, real_type<T>);
  execute_and_vjp<T>(call, {{data<T>(real), data<T>(complex), nullptr}, static_cast<T>(curvature), data<T>(sums)},
                     cotangents);
  return {real, complex, gradients};
}

template <class T>
ResultsAndGradients execute_tangents_as(ProgramHandle program, const std::vector<Tensor>& inputs,
                                        const std::vector<Tensor>& tangents, const std::vector<Index>& with_tangent,
                                        const std::vector<Tensor>& cotangents, const std::vector<Index>& requested) {
  PreparedCall<T> prepared(std::move(program), inputs);
  prepared.copy(requested.empty() ? copies_of(prepared.arguments, tangents, with_tangent)
                                  : copies_of(cotangents[0], 2));
  const CheckedTangents<T> directions(prepared.arguments, tangents, with_tangent);
  prepared.move(directions.of_inputs);
  const Call<T>& call = prepared.call;
  CheckedDirectional<T> checked(prepared.arguments, inputs[0], requested.empty() ? std::vector<Tensor>{} : cotangents);
  Directional<T>& directional = checked.directional;
  check_requested(requested, inputs.size());
  require_room(
      tangents_workspace_bytes(call, !requested.empty()) + result_bytes(call) + gradient_bytes(call, requested),
      *call.planned, call.batch, "the derivatives of ");
  const Tensor real = empty(prepared.arguments.of_samples({call.program().real_results()}), real_type<T>);
  const Tensor complex = empty(prepared.arguments.of_samples({call.program().complex_results()}), complex_type<T>);
  directional.results = {data<T>(real), data<T>(complex), nullptr};
  std::vector<Tensor> gradients;
  for (const Index input : requested) {
    gradients.push_back(empty_gradient(prepared, input, directional.cotangents));
  }
  execute_tangents<T>(call, directional);
  return {real, complex, gradients};
}

ResultsAndGradients execute_tangents(int64_t program, const std::vector<Tensor>& inputs,
                                     const std::vector<Tensor>& tangents, const std::vector<int64_t>& with_tangent,
                                     const std::vector<Tensor>& cotangents, const std::vector<int64_t>& requested) {
  const std::vector<Index> inputs_with_tangent(with_tangent.begin(), with_tangent.end());
  const std::vector<Index> requested_inputs(requested.begin(), requested.end());
  return is_single(inputs) ? execute_tangents_as<float>(find_program(program), inputs, tangents, inputs_with_tangent,
                                                        cotangents, requested_inputs)
                           : execute_tangents_as<double>(find_program(program), inputs, tangents, inputs_with_tangent,
                                                         cotangents, requested_inputs);
}

std::tuple<Tensor, Tensor> execute_jvp_cpu(int64_t program, std::vector<Tensor> inputs, std::vector<Tensor> tangents,
                                           std::vector<int64_t> with_tangent) {
  const ResultsAndGradients found = execute_tangents(program, inputs, tangents, with_tangent, {}, {});
  return {std::get<0>(found), std::get<1>(found)};
}

ResultsAndGradients execute_vjp_jvp_cpu(int64_t program, std::vector<Tensor> inputs, std::vector<Tensor> tangents,
                                        std::vector<int64_t> with_tangent, const Tensor& g_real,
                                        const Tensor& g_complex, const Tensor& dg_real, const Tensor& dg_complex,
                                        std::vector<int64_t> requested) {
  return execute_tangents(program, inputs, tangents, with_tangent, {g_real, g_complex, dg_real, dg_complex}, requested);
}

Executed execute_cpu(int64_t program, std::vector<Tensor> inputs, int64_t keep_ket) {
  const KeepKet keep = check_keep_ket(keep_ket);
  return is_single(inputs) ? execute_as<float>(find_program(program), inputs, keep)
                           : execute_as<double>(find_program(program), inputs, keep);
}

std::vector<Tensor> execute_vjp_cpu(int64_t program, std::vector<Tensor> inputs, const Tensor& ket,
                                    const Tensor& g_real, const Tensor& g_complex, std::vector<int64_t> requested) {
  const std::vector<Index> list(requested.begin(), requested.end());
  return is_single(inputs) ? execute_vjp_as<float>(find_program(program), inputs, ket, g_real, g_complex, list)
                           : execute_vjp_as<double>(find_program(program), inputs, ket, g_real, g_complex, list);
}

ResultsAndGradients execute_and_vjp_cpu(int64_t program, std::vector<Tensor> inputs, const Tensor& g_real,
                                        const Tensor& g_complex, double curvature, std::vector<int64_t> requested) {
  const std::vector<Index> list(requested.begin(), requested.end());
  return is_single(inputs)
             ? execute_and_vjp_as<float>(find_program(program), inputs, g_real, g_complex, curvature, list)
             : execute_and_vjp_as<double>(find_program(program), inputs, g_real, g_complex, curvature, list);
}

}  // namespace
}  // namespace ketgrad::ops

STABLE_TORCH_LIBRARY_IMPL(ketgrad, CPU, m) {
  m.impl("execute", TORCH_BOX(&ketgrad::ops::execute_cpu));
  m.impl("execute_vjp", TORCH_BOX(&ketgrad::ops::execute_vjp_cpu));
  m.impl("execute_and_vjp", TORCH_BOX(&ketgrad::ops::execute_and_vjp_cpu));
  m.impl("execute_jvp", TORCH_BOX(&ketgrad::ops::execute_jvp_cpu));
  m.impl("execute_vjp_jvp", TORCH_BOX(&ketgrad::ops::execute_vjp_jvp_cpu));
}
