// The operators on CUDA, as they are registered.
#pragma once

#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <tuple>
#include <vector>

namespace ketgrad::cuda {

// Real and complex results, or derivatives of them, and gradients.
using TensorsAndGradients =
    std::tuple<torch::stable::Tensor, torch::stable::Tensor, std::vector<torch::stable::Tensor>>;
using ForwardTensors = std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor>;

ForwardTensors execute_cuda(std::int64_t program, std::vector<torch::stable::Tensor> inputs, std::int64_t keep_ket);

std::vector<torch::stable::Tensor> execute_vjp_cuda(std::int64_t program, std::vector<torch::stable::Tensor> inputs,
                                                    const torch::stable::Tensor& ket,
                                                    const torch::stable::Tensor& g_real,
                                                    const torch::stable::Tensor& g_complex,
                                                    std::vector<std::int64_t> requested);

TensorsAndGradients execute_and_vjp_cuda(std::int64_t program, std::vector<torch::stable::Tensor> inputs,
                                         const torch::stable::Tensor& g_real, const torch::stable::Tensor& g_complex,
                                         double curvature, std::vector<std::int64_t> requested);

std::tuple<torch::stable::Tensor, torch::stable::Tensor> execute_jvp_cuda(std::int64_t program,
                                                                          std::vector<torch::stable::Tensor> inputs,
                                                                          std::vector<torch::stable::Tensor> tangents,
                                                                          std::vector<std::int64_t> with_tangent);

TensorsAndGradients execute_vjp_jvp_cuda(std::int64_t program, std::vector<torch::stable::Tensor> inputs,
                                         std::vector<torch::stable::Tensor> tangents,
                                         std::vector<std::int64_t> with_tangent, const torch::stable::Tensor& g_real,
                                         const torch::stable::Tensor& g_complex, const torch::stable::Tensor& dg_real,
                                         const torch::stable::Tensor& dg_complex, std::vector<std::int64_t> requested);

}  // namespace ketgrad::cuda
