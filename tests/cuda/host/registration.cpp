// The operators of CUDA for tensors of the CPU, beside the CPU's own: torch.ops.ketgrad_emulated.
#include <torch/csrc/stable/library.h>

#include "cuda/ops/operators.h"

STABLE_TORCH_LIBRARY(ketgrad_emulated, m) {
  m.def("execute(int program, Tensor[] inputs, int keep_ket) -> (Tensor real, Tensor complex, Tensor ket)");
  m.def(
      "execute_vjp(int program, Tensor[] inputs, Tensor ket, Tensor g_real, Tensor g_complex, int[] requested) -> "
      "Tensor[]");
  m.def(
      "execute_and_vjp(int program, Tensor[] inputs, Tensor g_real, Tensor g_complex, float curvature, int[] "
      "requested) -> (Tensor real, Tensor complex, Tensor[] gradients)");
  m.def(
      "execute_jvp(int program, Tensor[] inputs, Tensor[] tangents, int[] with_tangent) -> (Tensor real, Tensor "
      "complex)");
  m.def(
      "execute_vjp_jvp(int program, Tensor[] inputs, Tensor[] tangents, int[] with_tangent, Tensor g_real, Tensor "
      "g_complex, "
      "Tensor dg_real, Tensor dg_complex, int[] requested) -> (Tensor real, Tensor complex, Tensor[] gradients)");
}

STABLE_TORCH_LIBRARY_IMPL(ketgrad_emulated, CPU, m) {
  m.impl("execute", TORCH_BOX(&ketgrad::cuda::execute_cuda));
  m.impl("execute_vjp", TORCH_BOX(&ketgrad::cuda::execute_vjp_cuda));
  m.impl("execute_and_vjp", TORCH_BOX(&ketgrad::cuda::execute_and_vjp_cuda));
  m.impl("execute_jvp", TORCH_BOX(&ketgrad::cuda::execute_jvp_cuda));
  m.impl("execute_vjp_jvp", TORCH_BOX(&ketgrad::cuda::execute_vjp_jvp_cuda));
}
