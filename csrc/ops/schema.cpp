// The operators' schemas. Implementations are registered in operators.cpp and, for CUDA, in cuda/.
#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY(ketgrad, m) {
  // real [B, R], complex [B, C], ket [B, 2^n]: as keep_ket, a KeepKet, says. If the ket is not kept, it is [B, 0].
  m.def("execute(int program, Tensor[] inputs, int keep_ket) -> (Tensor real, Tensor complex, Tensor ket)");
  // Gradients of the requested inputs, in their shapes. A ket of [B, 0] is recomputed. Cotangents of [K, B, ...] are of
  // K copies of all circuits: inputs and ket are as without, and gradients [K, B, ...], of shared inputs too.
  m.def(
      "execute_vjp(int program, Tensor[] inputs, Tensor ket, Tensor g_real, Tensor g_complex, int[] requested) -> "
      "Tensor[]");
  // Both in one sweep, without a ket. The cotangent of real is g_real + curvature * real.
  m.def(
      "execute_and_vjp(int program, Tensor[] inputs, Tensor g_real, Tensor g_complex, float curvature, int[] "
      "requested) -> (Tensor real, Tensor complex, Tensor[] gradients)");
  // Derivatives of real and complex along `tangents`: those of the inputs `with_tangent`, in their shapes. Tangents
  // [K, B, ...] are of K copies of all circuits, as are the derivatives.
  m.def(
      "execute_jvp(int program, Tensor[] inputs, Tensor[] tangents, int[] with_tangent) -> (Tensor real, Tensor "
      "complex)");
  // The same, and the derivatives of the gradients of execute_vjp, along the tangents of the inputs and dg_real and
  // dg_complex, the tangents of the cotangents, which have no elements if they are zero. All or none have copies.
  m.def(
      "execute_vjp_jvp(int program, Tensor[] inputs, Tensor[] tangents, int[] with_tangent, Tensor g_real, Tensor "
      "g_complex, "
      "Tensor dg_real, Tensor dg_complex, int[] requested) -> (Tensor real, Tensor complex, Tensor[] gradients)");
  // Several programs at once, on the CPU. `places` are those of the inputs of one program after the other among `inputs`.
  // Results are flat, one program's rows after the other's; the ket is [1, K], or [1, 0] if it is not kept.
  m.def(
      "execute_many(int[] programs, Tensor[] inputs, int[] places, int keep_ket) -> (Tensor real, Tensor complex, "
      "Tensor ket)");
  // Gradients of the requested inputs, each summed over the programs `chosen` that read it.
  m.def(
      "execute_vjp_many(int[] programs, Tensor[] inputs, int[] places, Tensor ket, Tensor g_real, Tensor g_complex, "
      "int[] chosen, int[] requested) -> Tensor[]");
  m.def(
      "execute_and_vjp_many(int[] programs, Tensor[] inputs, int[] places, Tensor g_real, Tensor g_complex, int[] "
      "requested) -> (Tensor real, Tensor complex, Tensor[] gradients)");
}
