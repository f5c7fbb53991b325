"""The operators `torch.ops.ketgrad.*` as typed functions, without autograd, and what every route to them asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
_execute_jvp = torch.ops.ketgrad.execute_jvp.default
_execute_vjp_jvp = torch.ops.ketgrad.execute_vjp_jvp.default


# What autograd would do with an operator is Python, and slow; where there is nothing for it to do it is left out.


def _native(operator: Any, program: int, inputs: Sequence[Tensor], *others: Any) -> Any:
    """Call an operator without autograd; a GPU's lack of memory is raised as torch raises it."""
    if is_profiling():
        _plan_by_name(program, inputs)
    try:
        with BelowAutograd():
            return operator(program, inputs, *others)
    except MemoryError as error:
        if inputs[0].is_cuda:
            raise torch.OutOfMemoryError(str(error)) from None
        raise


def _plan_by_name(program: int, inputs: Sequence[Tensor]) -> None:
    """Have the plan of a call made now, under a name of its own; otherwise the operator's first call makes it."""
    found = _C.find_program(program)
    is_well_formed = len(inputs) == len(found.input_axes())  # if it is not, the operator says so
    if is_well_formed and inputs[0].device.type == "cpu":
        with span("plan"):
            found.make_plan(batch_size(found, inputs), inputs[0].dtype is torch.float64, torch.get_num_threads())


def batch_size(program: _C.Program, inputs: Sequence[Tensor]) -> Any:
    """B, in graphs a symbolic integer perhaps: of the first input that has one axis more than the program says."""
    for tensor, axes in zip(inputs, program.input_axes(), strict=True):
        if tensor.dim() > axes:
            return tensor.shape[0]
    return 1


def has_kernels(device_type: str) -> bool:
    """Whether this build has the operators for a kind of device, "cpu" or "cuda"."""
    return has_kernel_for_dispatch_key("ketgrad::execute", device_type.upper())


def require_kernels(device: torch.device) -> None:
    """Raise where a device has no kernels in this build.

    Raises:
        NotImplementedError: names the device and what would be right.
    """
    if device.type not in ("cpu", "meta") and not has_kernels(device.type):
        raise NotImplementedError(
            f"parameters are on {device}, for which this build of ketgrad has no kernels; move them to the CPU "
            "(`python -m ketgrad info` says what the build has)"
        )


def run_execute(program: int, inputs: Sequence[Tensor], keep_ket: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Run a batch of circuits, without autograd.

    Args:
        program: the id of a program.
        inputs: one tensor per input of the program, each in the program's shape or behind a batch axis (B, …).
        keep_ket: whether to return the final states, which `run_execute_vjp` otherwise computes again.

    Returns:
        Real results (B, R), complex results (B, C) and the kets (B, 2^n), or (B, 0) where they are not kept.

    Raises:
        ValueError: an input of a wrong shape, dtype or device.
        MemoryError: states and results do not fit; the message has the bytes. On a GPU it is torch.OutOfMemoryError.
        IndexError: no such program.
    """
    return _native(_execute, program, inputs, keep_ket)  # type: ignore[no-any-return]


def run_execute_vjp(
    program: int, inputs: Sequence[Tensor], ket: Tensor, g_real: Tensor, g_complex: Tensor, requested: Sequence[int]
) -> list[Tensor]:
    """Gradients of a real loss by the adjoint method, without autograd.

    Args:
        program, inputs: as in `run_execute`.
        ket: what `run_execute` returned; it is not written to. (B, 0): it is computed again.
        g_real: cotangents (B, R) of the real results.
        g_complex: cotangents (B, C) of the complex results, ∂L/∂Re z + i ∂L/∂Im z.
        requested: the inputs whose gradients are computed; the backward sweep ends where they need no more.

    Returns:
        The gradients of the requested inputs, each in its input's shape; of a shared input summed over the batch.

    Raises:
        ValueError, MemoryError, IndexError: as in `run_execute`.
    """
    return _native(_execute_vjp, program, inputs, ket, g_real, g_complex, requested)  # type: ignore[no-any-return]


def run_execute_jvp(
    program: int, inputs: Sequence[Tensor], tangents: Sequence[Tensor], tangent_inputs: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Derivatives of the results along a direction, without autograd.

    Args:
        program, inputs: as in `run_execute`.
        tangents: the tangent of each input of `tangent_inputs`, in its shape.
        tangent_inputs: the inputs that have a tangent.

    Returns:
        The derivatives of the real results (B, R) and of the complex results (B, C).

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
    """Derivatives of results and gradients along a direction (forward over reverse), without autograd.

    Args:
        program, inputs, tangents, tangent_inputs: as in `run_execute_jvp`.
        cotangents: of the real and of the complex results, as in `run_execute_vjp`.
        cotangent_tangents: their tangents; without elements where they have none.
        requested: the inputs, the derivatives of whose gradients are computed.

    Returns:
        What `run_execute_jvp` returns, and the derivatives of what `run_execute_vjp` returns.

    Raises:
        ValueError, MemoryError, IndexError: as in `run_execute`.
    """
    cotangent_pairs = (*cotangents, *cotangent_tangents)
    return _native(_execute_vjp_jvp, program, inputs, tangents, tangent_inputs, *cotangent_pairs, requested)  # type: ignore[no-any-return]


def is_transforming() -> bool:
    """Whether a functorch transform or forward-mode differentiation is active."""
    return maybe_current_level() is not None or forward_mode_level() >= 0


def refuse_transforms(tensors: Sequence[Tensor]) -> None:
    """Raise where a derivative would be taken by a route that has none: it would be zero in silence.

    Raises:
        NotImplementedError: a functorch transform is active, or a tensor carries a tangent.
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
    """Raise under `is_grads_batched` and `vectorize` of torch.autograd, which use a vmap of their own.

    Raises:
        NotImplementedError: a tensor is batched by it.
    """
    for tensor in tensors:
        if is_legacy_batchedtensor(tensor):
            raise NotImplementedError(
                "ketgrad does not run under is_grads_batched=True and vectorize=True of torch.autograd; use "
                "torch.func.jacrev, jacfwd or vmap"
            )
