// The operators' schemas. Registrations for a device live beside that device's kernels.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(ketgrad, m) {
  // real [B, R], complex [B, C], ket [B, 2^n] (or [B, 0] where it is not kept).
  m.def("execute(int program, Tensor[] inputs, bool keep_ket) -> (Tensor real, Tensor complex, Tensor ket)");
  // Gradients of the wanted inputs, in their shapes. A ket of [B, 0] is computed again.
  m.def(
      "execute_vjp(int program, Tensor[] inputs, Tensor ket, Tensor g_real, Tensor g_complex, int[] wanted) -> "
      "Tensor[]");
}
