"""The operators `torch.ops.ketgrad.*` as typed functions, with the way in which each is differentiated.

Routes (design: one derivative, native; what differs is how torch gets there):

- eager: `_Execute`, an old-style `autograd.Function`, the cheapest; differentiated again, `_ExecuteVjp`;
- functorch transforms and forward-mode differentiation: `transforms.py`;
- `torch.compile` and `torch.export`: the operator itself, with its fake kernel and `register_autograd`.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import once_differentiable

from ._library import _C
from ._profiling import is_profiling, span

THIRD_DERIVATIVE = (
    "ketgrad has first and second derivatives: a second derivative of a circuit was differentiated again "
    "(create_graph=True twice, or three nested transforms)"
)
COMPILED_SECOND_DERIVATIVE = (
    "ketgrad has no second derivatives inside torch.compile: the gradient of a circuit was differentiated again; "
    "take them in eager mode"
)
NO_SECOND_DERIVATIVE = (
    "this gradient of a circuit has no second derivatives, and was differentiated again (create_graph=True, a Hessian "
    "or a gradient penalty): it came from a JacobianProductCalculator that gives first derivatives only, or went to "
    "other tensors than the tapes hold"
)

_execute = torch.ops.ketgrad.execute.default
_execute_vjp = torch.ops.ketgrad.execute_vjp.default
_execute_jvp = torch.ops.ketgrad.execute_jvp.default
_execute_vjp_jvp = torch.ops.ketgrad.execute_vjp_jvp.default


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


def _native(operator: Any, program: int, inputs: Sequence[Tensor], *others: Any) -> Any:
    """Call an operator without autograd; errors as users know them."""
    if is_profiling():
        _plan_by_name(program, inputs)
    try:
        with _BelowAutograd():
            return operator(program, inputs, *others)
    except (RuntimeError, MemoryError) as error:
        _raise_as_users_know_it(error, inputs)


def _plan_by_name(program: int, inputs: Sequence[Tensor]) -> None:
    """Have the plan of a call made now, under a name of its own; otherwise the operator's first call makes it."""
    found = _C.find_program(program)
    axes = found.input_axes()
    batch = next((t.shape[0] for t, own in zip(inputs, axes, strict=False) if t.dim() > own), 1)
    if inputs and inputs[0].device.type == "cpu":
        with span("plan"):
            found.make_plan(batch, inputs[0].dtype is torch.float64, torch.get_num_threads())


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
    return _native(_execute, program, inputs, keep_ket)  # type: ignore[no-any-return]


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
    return _native(_execute_vjp, program, inputs, ket, g_real, g_complex, wanted)  # type: ignore[no-any-return]


def _require_tangents(inputs: Sequence[Tensor]) -> None:
    device = inputs[0].device.type
    if not torch._C._dispatch_has_kernel_for_dispatch_key("ketgrad::execute_jvp", device.upper()):
        raise NotImplementedError(
            f"second derivatives and forward-mode derivatives of circuits are not there for {device} yet; move the "
            "parameters to the CPU"
        )


def run_execute_jvp(
    program: int, inputs: Sequence[Tensor], tangents: Sequence[Tensor], moving: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Derivatives of the results along a direction, without autograd.

    Args:
        program, inputs: as in `run_execute`.
        tangents: the direction of each input that moves, in its shape.
        moving: which inputs these are.

    Returns:
        The derivatives of the real results (B, R) and of the complex results (B, C).

    Raises:
        NotImplementedError: the device has no such kernels.
        ValueError, MemoryError, IndexError: as in `run_execute`.
    """
    _require_tangents(inputs)
    return _native(_execute_jvp, program, inputs, tangents, moving)  # type: ignore[no-any-return]


def run_execute_vjp_jvp(
    program: int,
    inputs: Sequence[Tensor],
    tangents: Sequence[Tensor],
    moving: Sequence[int],
    cotangents: tuple[Tensor, Tensor],
    cotangent_tangents: tuple[Tensor, Tensor],
    wanted: Sequence[int],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Derivatives of results and gradients along a direction (forward over reverse), without autograd.

    Args:
        program, inputs, tangents, moving: as in `run_execute_jvp`.
        cotangents: of the real and of the complex results, as in `run_execute_vjp`.
        cotangent_tangents: their directions; without elements where they stand still.
        wanted: the inputs, the derivatives of whose gradients are wanted.

    Returns:
        What `run_execute_jvp` returns, and the derivatives of what `run_execute_vjp` returns.

    Raises:
        NotImplementedError, ValueError, MemoryError, IndexError: as in `run_execute_jvp`.
    """
    _require_tangents(inputs)
    cotangent_pairs = (*cotangents, *cotangent_tangents)
    return _native(_execute_vjp_jvp, program, inputs, tangents, moving, *cotangent_pairs, wanted)  # type: ignore[no-any-return]


def execute(program: int, inputs: Sequence[Tensor], keep_ket: bool = True) -> tuple[Tensor, Tensor]:
    """Run a batch of circuits; twice differentiable in every input.

    Args:
        program: the id of an encoded program.
        inputs: see `run_execute`.
        keep_ket: keep the final states for the backward pass (B · 2^n complex numbers) rather than compute them again.

    Returns:
        Real results (B, R) and complex results (B, C).

    Raises:
        NotImplementedError: on the third derivative; on the second under torch.compile, and on a device without it.
        ValueError, MemoryError, IndexError: see `run_execute`.
    """
    if torch.compiler.is_exporting():
        return _execute_exported(_content(program), list(inputs))  # type: ignore[no-any-return]
    if torch.compiler.is_compiling():
        real, complex_, _ = _execute(program, list(inputs), keep_ket)
        return real, complex_
    if is_transforming():
        from .transforms import Execute

        real, complex_, _ = Execute.apply(program, keep_ket, *inputs)  # type: ignore[no-untyped-call]
        return real, complex_
    refuse_legacy_vmap(inputs)
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
    if torch._C._functorch.maybe_current_level() is not None:
        raise NotImplementedError(
            "this function does not run under torch.func transforms (grad, vmap, jvp, jacrev, hessian); use "
            "kg.execute, or what kg.compile returns, without a JacobianProductCalculator of your own"
        )
    refuse_legacy_vmap(tensors)
    if forward_ad._current_level >= 0 and any(forward_ad.unpack_dual(t).tangent is not None for t in tensors):
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
        if torch._C._functorch.is_legacy_batchedtensor(tensor):
            raise NotImplementedError(
                "ketgrad does not run under is_grads_batched=True and vectorize=True of torch.autograd; use "
                "torch.func.jacrev, jacfwd or vmap"
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
        found = execute_vjp(ctx.program, inputs, ket, cotangents[0], cotangents[1], wanted)
        return (None, None, *spread(found, wanted, len(inputs)))


def spread(found: Sequence[Tensor], wanted: Sequence[int], count: int) -> list[Tensor | None]:
    """The gradients of the wanted inputs among those of all, None for the others."""
    gradients: list[Tensor | None] = [None] * count
    for i, gradient in zip(wanted, found, strict=True):
        gradients[i] = gradient
    return gradients


def execute_vjp(
    program: int, inputs: Sequence[Tensor], ket: Tensor, g_real: Tensor, g_complex: Tensor, wanted: Sequence[int]
) -> Sequence[Tensor]:
    """`run_execute_vjp` in a backward pass in eager mode: under `create_graph=True` it can be differentiated."""
    if is_transforming():  # of a result that an outer level computed
        from .transforms import ExecuteVjp

        return ExecuteVjp.apply(program, tuple(wanted), ket, g_real, g_complex, *inputs)  # type: ignore[no-any-return, no-untyped-call]
    refuse_legacy_vmap((g_real, g_complex))
    if torch.is_grad_enabled():
        return _ExecuteVjp.apply(program, wanted, ket, g_real, g_complex, *inputs)  # type: ignore[no-any-return, no-untyped-call]
    return run_execute_vjp(program, inputs, ket, g_real, g_complex, wanted)


class _ExecuteVjp(torch.autograd.Function):
    """`run_execute_vjp` with its derivative by inputs and cotangents; that by the ket is part of it.

    For v, the cotangent of the gradients J^T g: the derivative of <v, J^T g> by g is J v, that by the inputs is the
    derivative of J^T g along v, because second derivatives commute.
    """

    @staticmethod
    def forward(
        ctx: Any, program: int, wanted: Sequence[int], ket: Tensor, g_real: Tensor, g_complex: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.call = program, wanted
        ctx.save_for_backward(g_real, g_complex, *inputs)
        return tuple(run_execute_vjp(program, inputs, ket, g_real, g_complex, wanted))

    @staticmethod
    @torch.no_grad()
    def _derivatives(ctx: Any, directions: Sequence[Tensor | None]) -> list[Tensor | None]:
        program, wanted = ctx.call
        g_real, g_complex, *inputs = ctx.saved_tensors
        refuse_legacy_vmap([v for v in directions if v is not None])
        moving = [i for i, v in zip(wanted, directions, strict=True) if v is not None]
        tangents = [v for v in directions if v is not None]
        needed = [i for i, is_needed in enumerate(ctx.needs_input_grad[5:]) if is_needed]
        gradients: Sequence[Tensor] = ()
        if needed:
            still = (g_real.new_empty(0), g_complex.new_empty(0))
            real, complex_, gradients = run_execute_vjp_jvp(
                program, inputs, tangents, moving, (g_real, g_complex), still, needed
            )
        else:
            real, complex_ = run_execute_jvp(program, inputs, tangents, moving)
        return [real, complex_, *spread(gradients, needed, len(inputs))]

    @staticmethod
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
        if all(v is None for v in directions):
            return (None,) * len(ctx.needs_input_grad)
        found = _ExecuteVjp._derivatives(ctx, directions)
        if torch.is_grad_enabled():
            present = [f for f in found if f is not None]
            on = [*ctx.saved_tensors, *[v for v in directions if v is not None]]
            refused = iter(refuse_derivative(present, on, THIRD_DERIVATIVE))
            found = [None if f is None else next(refused) for f in found]
        return (None, None, None, *found)


class _Refuse(torch.autograd.Function):
    """Passes tensors on and raises when they are differentiated."""

    @staticmethod
    def forward(ctx: Any, message: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.message = message
        return tuple(tensor.view_as(tensor) for tensor in tensors[:count])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError(ctx.message)


def refuse_derivative(tensors: Sequence[Tensor], parameters: Sequence[Tensor], message: str) -> Sequence[Tensor]:
    """Under `create_graph=True`, ties tensors to what they depend on, so that differentiating them raises.

    Without this, torch would take them for constants: the derivative would be zero in silence.
    """
    if not torch.is_grad_enabled() or not tensors:
        return tensors
    return _Refuse.apply(message, len(tensors), *tensors, *parameters)  # type: ignore[no-any-return, no-untyped-call]


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
    return None, _gradients(ctx, ctx.program, inputs, ket, g_real, g_complex), None


def _gradients(
    ctx: Any, program: int, inputs: Sequence[Tensor], ket: Tensor, g_real: Tensor, g_complex: Tensor
) -> list[Tensor | None]:
    """The gradients of a graph's inputs, which are its operator's second argument."""
    wanted = [i for i, needed in enumerate(ctx.needs_input_grad[1]) if needed]
    found = _execute_vjp(program, inputs, ket, g_real, g_complex, wanted)
    return spread(found, wanted, len(inputs))


def _refuse_compiled(ctx: Any, *cotangents: Any) -> None:
    raise NotImplementedError(COMPILED_SECOND_DERIVATIVE)


def _no_context(ctx: Any, inputs: Any, output: Any) -> None:
    """Nothing is kept for a backward pass that raises."""


@torch.library.register_fake("ketgrad::execute_jvp")  # type: ignore[untyped-decorator]
def _execute_jvp_fake(
    program: int, inputs: list[Tensor], tangents: list[Tensor], moving: list[int]
) -> tuple[Tensor, Tensor]:
    real, complex_, _ = _execute_fake(program, inputs, False)
    return real, complex_


@torch.library.register_fake("ketgrad::execute_vjp_jvp")  # type: ignore[untyped-decorator]
def _execute_vjp_jvp_fake(
    program: int,
    inputs: list[Tensor],
    tangents: list[Tensor],
    moving: list[int],
    g_real: Tensor,
    g_complex: Tensor,
    dg_real: Tensor,
    dg_complex: Tensor,
    wanted: list[int],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    real, complex_, _ = _execute_fake(program, inputs, False)
    return real, complex_, [torch.empty_like(inputs[i], memory_format=torch.contiguous_format) for i in wanted]


# --- under torch.export -----------------------------------------------------------------------------------------------

# An exported graph runs in processes that know none of this one's programs: it has the content in place of an id.

_FORMAT = "ketgrad1:"

torch.library.define("ketgrad::execute_exported", "(str program, Tensor[] inputs) -> (Tensor real, Tensor complex)")
_execute_exported = torch.ops.ketgrad.execute_exported.default


def _content(program: int) -> str:
    return _FORMAT + base64.b64encode(_C.find_program(program).serialise()).decode()


@functools.lru_cache(maxsize=1024)
def _program_of(content: str) -> _C.Program:
    if not content.startswith(_FORMAT):
        raise ValueError("a circuit of an exported program was written by a version of ketgrad that this one is not")
    return _C.load_program(base64.b64decode(content.removeprefix(_FORMAT)))


@torch.library.impl("ketgrad::execute_exported", "CompositeExplicitAutograd")
def _run_exported(program: str, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    real, complex_, _ = run_execute(_program_of(program).id, inputs, False)
    return real, complex_


@torch.library.register_fake("ketgrad::execute_exported")  # type: ignore[untyped-decorator]
def _execute_exported_fake(program: str, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    real, complex_, _ = _execute_fake(_program_of(program).id, inputs, False)
    return real, complex_


def _setup_exported(ctx: Any, inputs: tuple[str, list[Tensor]], output: tuple[Tensor, Tensor]) -> None:
    ctx.program = _program_of(inputs[0])
    ctx.save_for_backward(*inputs[1])


def _backward_exported(ctx: Any, g_real: Tensor, g_complex: Tensor) -> tuple[None, list[Tensor | None]]:
    no_ket = g_complex.new_empty((g_complex.shape[0], 0))
    return None, _gradients(ctx, ctx.program.id, ctx.saved_tensors, no_ket, g_real, g_complex)


torch.library.register_autograd("ketgrad::execute_exported", _backward_exported, setup_context=_setup_exported)
torch.library.register_autograd("ketgrad::execute", _backward_execute, setup_context=_setup_execute)
for _name in ("execute_vjp", "execute_jvp", "execute_vjp_jvp"):
    torch.library.register_autograd(f"ketgrad::{_name}", _refuse_compiled, setup_context=_no_context)
