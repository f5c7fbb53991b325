// The operators' schemas. Registrations for a device live beside that device's kernels.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(ketgrad, m) {
  // real [B, R], complex [B, C], ket [B, 2^n] (or [B, 0] where it is not kept).
  m.def("execute(int program, Tensor[] inputs, bool keep_ket) -> (Tensor real, Tensor complex, Tensor ket)");
  // Gradients of the requested inputs, in their shapes. A ket of [B, 0] is computed again.
  m.def(
      "execute_vjp(int program, Tensor[] inputs, Tensor ket, Tensor g_real, Tensor g_complex, int[] requested) -> "
      "Tensor[]");
  // Derivatives of real and complex along `tangents`, the directions of the inputs that are `with_tangent`.
  m.def(
      "execute_jvp(int program, Tensor[] inputs, Tensor[] tangents, int[] with_tangent) -> (Tensor real, Tensor "
      "complex)");
  // The same, and the derivatives of what execute_vjp returns, which depends on the cotangents too: dg_real, dg_complex
  // are their directions, without elements where they have no tangent.
  m.def(
      "execute_vjp_jvp(int program, Tensor[] inputs, Tensor[] tangents, int[] with_tangent, Tensor g_real, Tensor "
      "g_complex, "
      "Tensor dg_real, Tensor dg_complex, int[] requested) -> (Tensor real, Tensor complex, Tensor[] gradients)");
}
