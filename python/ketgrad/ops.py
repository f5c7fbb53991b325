"""The operators `torch.ops.ketgrad.*` as typed functions, with the way in which each is differentiated.

Routes (design: one derivative, native; what differs is how torch gets there):

- eager: `_Execute`, an old-style `autograd.Function`, the cheapest;
- `torch.compile` and `torch.export`: the operator itself, with its fake kernel and `register_autograd`;
- functorch transforms and forward-mode differentiation are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from ._library import _C

SECOND_DERIVATIVE = (
    "ketgrad has no second derivatives yet: the gradient of a circuit was differentiated again "
    "(create_graph=True, a Hessian or a gradient penalty)"
)

_execute = torch.ops.ketgrad.execute.default
_execute_vjp = torch.ops.ketgrad.execute_vjp.default


# What autograd would do with an operator is Python, and slow; where there is nothing for it to do it is left out.
_BelowAutograd = torch._C._AutoDispatchBelowAutograd


def _raise_interrupt() -> None:
    """Raise what a signal handler raised (Ctrl-C) while a native function ran, if that is why it ended."""
    raised = _C.take_interrupt()
    if raised is not None:
        raise raised from None


def _raise_as_users_know_it(error: RuntimeError | MemoryError, inputs: Sequence[Tensor]) -> NoReturn:
    """Raise what ended a native function: an interrupt, a GPU's lack of memory as torch reports it, or the error."""
    _raise_interrupt()
    if isinstance(error, MemoryError) and inputs[0].is_cuda:
        raise torch.OutOfMemoryError(str(error)) from None
    raise error


def has_kernels(device_type: str) -> bool:
    """Whether this build has the operators for a kind of device, "cpu" or "cuda"."""
    return torch._C._dispatch_has_kernel_for_dispatch_key("ketgrad::execute", device_type.upper())


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
        program: the id of an encoded program.
        inputs: one tensor per input of the program, each in the program's shape or behind a batch axis (B, …).
        keep_ket: whether to return the final states, which `run_execute_vjp` otherwise computes again.

    Returns:
        Real results (B, R), complex results (B, C) and the kets (B, 2^n), or (B, 0) where they are not kept.

    Raises:
        ValueError: an input of a wrong shape, dtype or device.
        MemoryError: states and results do not fit; the message has the bytes. On a GPU it is torch.OutOfMemoryError.
        IndexError: no such program.
    """
    try:
        with _BelowAutograd():
            return _execute(program, inputs, keep_ket)  # type: ignore[no-any-return]
    except (RuntimeError, MemoryError) as error:
        _raise_as_users_know_it(error, inputs)


def run_execute_vjp(
    program: int, inputs: Sequence[Tensor], ket: Tensor, g_real: Tensor, g_complex: Tensor, wanted: Sequence[int]
) -> list[Tensor]:
    """Gradients of a real loss by the adjoint method, without autograd.

    Args:
        program, inputs: as in `run_execute`.
        ket: what `run_execute` returned; it is not written to. (B, 0): it is computed again.
        g_real: cotangents (B, R) of the real results.
        g_complex: cotangents (B, C) of the complex results, ∂L/∂Re z + i ∂L/∂Im z.
        wanted: the inputs whose gradients are wanted; the walk goes back only as far as they need.

    Returns:
        The gradients of the wanted inputs, each in its input's shape, summed over the batch where the input is shared.

    Raises:
        ValueError, MemoryError, IndexError: as in `run_execute`.
    """
    try:
        with _BelowAutograd():
            return _execute_vjp(program, inputs, ket, g_real, g_complex, wanted)  # type: ignore[no-any-return]
    except (RuntimeError, MemoryError) as error:
        _raise_as_users_know_it(error, inputs)


def execute(program: int, inputs: Sequence[Tensor], keep_ket: bool = True) -> tuple[Tensor, Tensor]:
    """Run a batch of circuits; differentiable once in every input.

    Args:
        program: the id of an encoded program.
        inputs: see `run_execute`.
        keep_ket: keep the final states for the backward pass (B · 2^n complex numbers) rather than compute them again.

    Returns:
        Real results (B, R) and complex results (B, C).

    Raises:
        NotImplementedError: under a functorch transform (`torch.func`, `vmap`) or forward-mode differentiation, and on
            the second derivative.
        ValueError, MemoryError, IndexError: see `run_execute`.
    """
    if torch.compiler.is_compiling():
        real, complex_, _ = _execute(program, list(inputs), keep_ket)
        return real, complex_
    refuse_transforms(inputs)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return _Execute.apply(program, keep_ket, *inputs)  # type: ignore[no-any-return, no-untyped-call]
    real, complex_, _ = run_execute(program, inputs, keep_ket=False)
    return real, complex_


def is_transforming() -> bool:
    """Whether a functorch transform or a level of forward-mode differentiation is active."""
    return torch._C._functorch.maybe_current_level() is not None or forward_ad._current_level >= 0


def refuse_transforms(tensors: Sequence[Tensor]) -> None:
    """Raise where a derivative would be taken by a route that has none: it would be zero in silence.

    Raises:
        NotImplementedError: a functorch transform is active, or a tensor carries a tangent.
    """
    functorch = torch._C._functorch
    # `is_grads_batched` and `vectorize` of torch.autograd use the older vmap, which is known by its tensors only.
    if functorch.maybe_current_level() is not None or any(map(functorch.is_legacy_batchedtensor, tensors)):
        raise NotImplementedError(
            "ketgrad does not run under torch.func transforms (grad, vmap, jvp, jacrev, hessian) yet; "
            "batch parameters along their first axis instead of vmap, and use torch.autograd for gradients"
        )
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in tensors):
        raise NotImplementedError(
            "ketgrad has no forward-mode derivatives yet; use reverse mode (backward, autograd.grad)"
        )


class _Execute(torch.autograd.Function):
    """The eager route."""

    @staticmethod
    def forward(ctx: Any, program: int, keep_ket: bool, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        real, complex_, ket = run_execute(program, inputs, keep_ket)
        ctx.program = program
        ctx.save_for_backward(ket, *inputs)
        return real, complex_

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        ket, *inputs = ctx.saved_tensors
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
        gradients: list[Tensor | None] = [None] * len(inputs)
        with torch.no_grad():
            found = run_execute_vjp(ctx.program, inputs, ket, cotangents[0], cotangents[1], wanted)
        for i, gradient in zip(wanted, refuse_second_derivative(found, inputs), strict=True):
            gradients[i] = gradient
        return (None, None, *gradients)


class _Refuse(torch.autograd.Function):
    """Passes gradients on and raises when they are differentiated."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError(SECOND_DERIVATIVE)


def refuse_second_derivative(gradients: Sequence[Tensor], parameters: Sequence[Tensor]) -> Sequence[Tensor]:
    """Under `create_graph=True`, ties gradients to what they depend on, so that differentiating them raises.

    Without this, torch would take them for constants: the second derivative would be zero in silence.
    """
    if not torch.is_grad_enabled() or not gradients:
        return gradients
    return _Refuse.apply(len(gradients), *gradients, *parameters)  # type: ignore[no-any-return, no-untyped-call]


# --- under torch.compile ----------------------------------------------------------------------------------------------


def _batch_size(program: _C.Program, inputs: Sequence[Tensor]) -> Any:
    """B as a possibly symbolic integer: of the first input that has one axis more than the program says."""
    for tensor, axes in zip(inputs, program.input_axes(), strict=True):
        if tensor.dim() > axes:
            return tensor.shape[0]
    return 1


@torch.library.register_fake("ketgrad::execute")  # type: ignore[untyped-decorator]
def _execute_fake(program: int, inputs: list[Tensor], keep_ket: bool) -> tuple[Tensor, Tensor, Tensor]:
    _C.pin_program(program)  # a traced graph keeps the id as a constant, which is no reference to the program
    found = _C.find_program(program)
    shape = found.describe()
    batch = _batch_size(found, inputs)
    complex_dtype = inputs[0].dtype.to_complex()
    real = inputs[0].new_empty((batch, shape["real_results"]))
    complex_ = inputs[0].new_empty((batch, shape["complex_results"]), dtype=complex_dtype)
    ket = inputs[0].new_empty((batch, (1 << shape["num_wires"]) if keep_ket else 0), dtype=complex_dtype)
    return real, complex_, ket


@torch.library.register_fake("ketgrad::execute_vjp")  # type: ignore[untyped-decorator]
def _execute_vjp_fake(
    program: int, inputs: list[Tensor], ket: Tensor, g_real: Tensor, g_complex: Tensor, wanted: list[int]
) -> list[Tensor]:
    return [torch.empty_like(inputs[i], memory_format=torch.contiguous_format) for i in wanted]


def _setup_execute(ctx: Any, inputs: tuple[int, list[Tensor], bool], output: tuple[Tensor, Tensor, Tensor]) -> None:
    program, tensors, _ = inputs
    ket = output[2]
    ctx.program = program
    ctx.mark_non_differentiable(ket)
    ctx.save_for_backward(ket, *tensors)


def _backward_execute(
    ctx: Any, g_real: Tensor, g_complex: Tensor, _: Tensor | None
) -> tuple[None, list[Tensor | None], None]:
    ket, *inputs = ctx.saved_tensors
    wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1]) if needed]
    gradients: list[Tensor | None] = [None] * len(inputs)
    found = _execute_vjp(ctx.program, inputs, ket, g_real, g_complex, wanted)
    for i, gradient in zip(wanted, found, strict=True):
        gradients[i] = gradient
    return None, gradients, None


def _backward_execute_vjp(ctx: Any, *cotangents: Any) -> None:
    raise NotImplementedError(SECOND_DERIVATIVE)


torch.library.register_autograd("ketgrad::execute", _backward_execute, setup_context=_setup_execute)
torch.library.register_autograd(
    "ketgrad::execute_vjp", _backward_execute_vjp, setup_context=lambda ctx, inputs, output: None
)
