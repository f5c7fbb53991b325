// Where torch finds the operators for CUDA tensors.
#include <torch/csrc/stable/library.h>

#include "cuda/ops/operators.h"

STABLE_TORCH_LIBRARY_IMPL(ketgrad, CUDA, m) {
  m.impl("execute", TORCH_BOX(&ketgrad::cuda::execute_cuda));
  m.impl("execute_vjp", TORCH_BOX(&ketgrad::cuda::execute_vjp_cuda));
  m.impl("execute_and_vjp", TORCH_BOX(&ketgrad::cuda::execute_and_vjp_cuda));
  m.impl("execute_jvp", TORCH_BOX(&ketgrad::cuda::execute_jvp_cuda));
  m.impl("execute_vjp_jvp", TORCH_BOX(&ketgrad::cuda::execute_vjp_jvp_cuda));
}
