"""The operators `torch.ops.ketgrad.*` as typed functions, without autograd, and checks that all callers need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .library import _C
from .profiling import is_profiling, span
from .torch_private import (
    BelowAutograd,
    forward_mode_level,
    has_kernel_for_dispatch_key,
    is_legacy_batchedtensor,
    maybe_current_level,
)

_execute = torch.ops.ketgrad.execute.default
_execute_vjp = torch.ops.ketgrad.execute_vjp.default
_execute_and_vjp = torch.ops.ketgrad.execute_and_vjp.default
_execute_jvp = torch.ops.ketgrad.execute_jvp.default
_execute_vjp_jvp = torch.ops.ketgrad.execute_vjp_jvp.default


KeepKet = Literal[0, 1, 2]
"""What the operators return of the final states."""

NO_KET: KeepKet = 0
EXACT_KET: KeepKet = 1
ROUNDED_KET: KeepKet = 2
"""In complex64, on the CPU."""


# The autograd kernels of the operators are Python, and slow: calls that need no derivatives skip them.


def _native(operator: Any, program: int, inputs: Sequence[Tensor], *others: Any) -> Any:
    """Call an operator below autograd; MemoryError on a GPU becomes torch.OutOfMemoryError."""
    if is_profiling():
        plan_by_name(program, inputs)
    try:
        with BelowAutograd():
            return operator(program, inputs, *others)
    except MemoryError as error:
        if inputs[0].is_cuda:
            raise torch.OutOfMemoryError(str(error)) from None
        raise


def plan_by_name(program: int, inputs: Sequence[Tensor]) -> None:
    """Make the plan of a call now, so that a profiler shows it by name; otherwise the operator's first call does."""
    found = _C.find_program(program)
    is_well_formed = len(inputs) == len(found.input_axes())  # otherwise the operator raises
    if is_well_formed and inputs[0].device.type == "cpu":
        with span("plan"):
            found.make_plan(batch_size(found, inputs), inputs[0].dtype is torch.float64, torch.get_num_threads())


def batch_size(program: _C.Program, inputs: Sequence[Tensor]) -> Any:
    """The batch size B: that of the first input with a batch axis, else 1. In graphs it may be a symbolic integer."""
    for tensor, axes in zip(inputs, program.input_axes(), strict=True):
        if tensor.dim() > axes:
            return tensor.shape[0]
    return 1


def has_kernels(device_type: str) -> bool:
    """Whether this build has the operators for a device type, "cpu" or "cuda"."""
    return has_kernel_for_dispatch_key("ketgrad::execute", device_type.upper())


def require_kernels(device: torch.device) -> None:
    """Check that this build has kernels for a device.

    Raises:
        NotImplementedError: it has none.
    """
    if device.type not in ("cpu", "meta") and not has_kernels(device.type):
        raise NotImplementedError(
            f"parameters are on {device}, for which this build of ketgrad has no kernels; move them to the CPU "
            "(`python -m ketgrad info` says what the build has)"
        )


def run_execute(program: int, inputs: Sequence[Tensor], keep_ket: KeepKet) -> tuple[Tensor, Tensor, Tensor]:
    """Run a batch of circuits, without autograd.

    Args:
        program: the id of a program.
        inputs: one tensor per input of the program, in the input's shape or with a leading batch axis (B, …). The first
            is float32 or float64, the others of that precision, real or complex.
        keep_ket: what to return of the final states; without them `run_execute_vjp` recomputes them.

    Returns:
        Real results (B, R), complex results (B, C) and the ket (B, 2^n), or (B, 0) if it is not kept.

    Raises:
        ValueError: an input has a wrong shape, dtype or device.
        MemoryError: states and results do not fit; the message has the bytes. On a GPU it is torch.OutOfMemoryError.
        IndexError: no such program.
    """
    return _native(_execute, program, inputs, keep_ket)  # type: ignore[no-any-return]


def run_execute_vjp(
    program: int, inputs: Sequence[Tensor], ket: Tensor, g_real: Tensor, g_complex: Tensor, requested: Sequence[int]
) -> list[Tensor]:
    """Gradients of a real loss by the adjoint method, without autograd.

    With **copies** of the circuits, one call computes the gradients of K losses, such as the rows of a Jacobian.

    Args:
        program, inputs: as in `run_execute`.
        ket: that of `run_execute`, rounded or not, which is not modified; (B, 0): it is recomputed.
        g_real: cotangents (B, R) of the real results; with copies (K, B, R).
        g_complex: cotangents (B, C) of the complex results, ∂L/∂Re z + i ∂L/∂Im z; with copies (K, B, C).
        requested: the inputs whose gradients are computed; the backward sweep stops once none of them is left.

    Returns:
        The gradients of the requested inputs, each in its input's shape; of a shared input summed over the batch. With
        copies each is (K, B, …), of shared inputs too.

    Raises:
        ValueError, MemoryError, IndexError: as in `run_execute`.
    """
    return _native(_execute_vjp, program, inputs, ket, g_real, g_complex, requested)  # type: ignore[no-any-return]


def run_execute_and_vjp(
    program: int,
    inputs: Sequence[Tensor],
    g_real: Tensor,
    g_complex: Tensor,
    curvature: float,
    requested: Sequence[int],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Results r and gradients in one call, of a loss that is linear or quadratic in the results, without autograd.

    Args:
        program, inputs: as in `run_execute`.
        g_real, g_complex, requested: as in `run_execute_vjp`.
        curvature: c, of a loss Σ ½ c r² + g r; the cotangents of the real results are g_real + c r.

    Returns:
        Real results (B, R), complex results (B, C), and what `run_execute_vjp` returns.

    Raises:
        ValueError, MemoryError, IndexError: as in `run_execute`.
    """
    return _native(_execute_and_vjp, program, inputs, g_real, g_complex, curvature, requested)  # type: ignore[no-any-return]


def run_execute_jvp(
    program: int, inputs: Sequence[Tensor], tangents: Sequence[Tensor], tangent_inputs: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Derivatives of the results along tangents of the inputs, without autograd.

    Args:
        program, inputs: as in `run_execute`.
        tangents: the tangent of each input of `tangent_inputs`, in its shape; with copies (K, B, …), of shared inputs
            too.
        tangent_inputs: the inputs that have a tangent.

    Returns:
        The derivatives of the real results (B, R) and of the complex results (B, C); with copies (K, B, R) and
        (K, B, C).

    Raises:
        ValueError, MemoryError, IndexError: as in `run_execute`.
    """
    return _native(_execute_jvp, program, inputs, tangents, tangent_inputs)  # type: ignore[no-any-return]


def run_execute_vjp_jvp(
    program: int,
    inputs: Sequence[Tensor],
    tangents: Sequence[Tensor],
    tangent_inputs: Sequence[int],
    cotangents: tuple[Tensor, Tensor],
    cotangent_tangents: tuple[Tensor, Tensor],
    requested: Sequence[int],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Derivatives of results and gradients along tangents (forward over reverse), without autograd.

    Args:
        program, inputs, tangents, tangent_inputs: as in `run_execute_jvp`.
        cotangents: of the real and of the complex results, as in `run_execute_vjp`.
        cotangent_tangents: the tangents of the cotangents; (0,) for a zero tangent.
        requested: the inputs whose gradients' derivatives are computed.

    Tangents and cotangents all have copies, or none of them.

    Returns:
        The derivatives of `run_execute_jvp`, and those of the gradients of `run_execute_vjp`.

    Raises:
        ValueError, MemoryError, IndexError: as in `run_execute`.
    """
    cotangent_pairs = (*cotangents, *cotangent_tangents)
    return _native(_execute_vjp_jvp, program, inputs, tangents, tangent_inputs, *cotangent_pairs, requested)  # type: ignore[no-any-return]


def is_transforming() -> bool:
    """Whether a functorch transform or forward-mode differentiation is active."""
    return maybe_current_level() is not None or forward_mode_level() >= 0


def refuse_transforms(tensors: Sequence[Tensor]) -> None:
    """Check that no derivative is taken on a path that does not support it, where it would silently be zero.

    Raises:
        NotImplementedError: a functorch transform is active, or a tensor has a tangent.
    """
    if maybe_current_level() is not None:
        raise NotImplementedError(
            "this function does not run under torch.func transforms (grad, vmap, jvp, jacrev, hessian); use "
            "kg.execute, or what kg.compile returns, without a JacobianProductCalculator of your own"
        )
    refuse_legacy_vmap(tensors)
    if forward_mode_level() >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise NotImplementedError(
            "this function has no forward-mode derivatives; use kg.execute, or what kg.compile returns, without a "
            "JacobianProductCalculator of your own"
        )


def refuse_legacy_vmap(tensors: Sequence[Tensor]) -> None:
    """Check for the legacy vmap, which `is_grads_batched` and `vectorize` of torch.autograd use.

    Raises:
        NotImplementedError: a tensor is batched by it.
    """
    for tensor in tensors:
        if is_legacy_batchedtensor(tensor):
            raise NotImplementedError(
                "ketgrad does not run under is_grads_batched=True and vectorize=True of torch.autograd; use "
                "torch.func.jacrev, jacfwd or vmap"
            )
