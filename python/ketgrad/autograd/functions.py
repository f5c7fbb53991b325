"""How torch differentiates a circuit: the choice of a route, and the eager one.

Derivatives are native, once; what differs is how torch gets there:

- eager: `_Execute`, an old-style `autograd.Function`, the cheapest; differentiated again, `_ExecuteVjp`;
- functorch transforms and forward-mode differentiation: `functorch.py`;
- `torch.compile` and `torch.export`: `torch_library.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..native import operators
from ..native.library import _C
from . import functorch, interpreter_levels, torch_library

NO_SECOND_DERIVATIVE = (
    "this gradient of a circuit has no second derivatives, and was differentiated again (create_graph=True, a Hessian "
    "or a gradient penalty): it came from a JacobianProductCalculator that gives first derivatives only, or went to "
    "other tensors than the tapes hold"
)


def execute(program: int, inputs: Sequence[Tensor], keep_ket: bool = True) -> tuple[Tensor, Tensor]:
    """Run a batch of circuits; twice differentiable in every input.

    Args:
        program: the id of a program.
        inputs: see `operators.run_execute`.
        keep_ket: keep the final states for the backward pass (B · 2^n complex numbers) rather than compute them again.

    Returns:
        Real results (B, R) and complex results (B, C).

    Raises:
        NotImplementedError: on the third derivative; on the second under torch.compile.
        ValueError, MemoryError, IndexError: see `operators.run_execute`.
    """
    if torch.compiler.is_compiling():
        return torch_library.execute(program, inputs, keep_ket)
    if operators.is_transforming():
        keep = keep_ket and interpreter_levels.are_differentiated(inputs)
        real, complex_, _ = interpreter_levels.apply(functorch.Execute, program, keep, *inputs)
        return real, complex_
    operators.refuse_legacy_vmap(inputs)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs):
        return _Execute.apply(program, keep_ket, *inputs)  # type: ignore[no-any-return, no-untyped-call]
    real, complex_, _ = operators.run_execute(program, inputs, keep_ket=False)
    return real, complex_


@interpreter_levels.not_for_dynamo
class _Execute(torch.autograd.Function):
    """The eager route."""

    @staticmethod
    def forward(ctx: Any, program: int, keep_ket: bool, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        real, complex_, ket = operators.run_execute(program, inputs, keep_ket)
        ctx.program = _C.find_program(program)  # which lives as long as the graph
        ctx.save_for_backward(ket, *inputs)
        return real, complex_

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        ket, *inputs = ctx.saved_tensors
        wanted = [i for i, needed in enumerate(ctx.needs_input_grad[2:]) if needed]
        found = execute_vjp(ctx.program.id, inputs, ket, cotangents[0], cotangents[1], wanted)
        return (None, None, *operators.spread(found, wanted, len(inputs)))


def execute_vjp(
    program: int, inputs: Sequence[Tensor], ket: Tensor, g_real: Tensor, g_complex: Tensor, wanted: Sequence[int]
) -> Sequence[Tensor]:
    """`run_execute_vjp` in a backward pass in eager mode: under `create_graph=True` it can be differentiated."""
    if operators.is_transforming():  # of a result that an outer level computed
        return interpreter_levels.apply(functorch.ExecuteVjp, program, tuple(wanted), ket, g_real, g_complex, *inputs)
    operators.refuse_legacy_vmap((g_real, g_complex))
    if torch.is_grad_enabled():
        return _ExecuteVjp.apply(program, wanted, ket, g_real, g_complex, *inputs)  # type: ignore[no-any-return, no-untyped-call]
    return operators.run_execute_vjp(program, inputs, ket, g_real, g_complex, wanted)


@interpreter_levels.not_for_dynamo
class _ExecuteVjp(torch.autograd.Function):
    """`operators.run_execute_vjp` with its derivative by inputs and cotangents; that by the ket is part of it.

    For v, the cotangent of the gradients J^T g: the derivative of <v, J^T g> by g is J v, that by the inputs is the
    derivative of J^T g along v, because second derivatives commute.
    """

    @staticmethod
    def forward(
        ctx: Any, program: int, wanted: Sequence[int], ket: Tensor, g_real: Tensor, g_complex: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.call = _C.find_program(program), wanted
        ctx.save_for_backward(g_real, g_complex, *inputs)
        return tuple(operators.run_execute_vjp(program, inputs, ket, g_real, g_complex, wanted))

    @staticmethod
    @torch.no_grad()
    def _derivatives(ctx: Any, directions: Sequence[Tensor | None]) -> list[Tensor | None]:
        program, wanted = ctx.call[0].id, ctx.call[1]
        g_real, g_complex, *inputs = ctx.saved_tensors
        operators.refuse_legacy_vmap([v for v in directions if v is not None])
        moving = [i for i, v in zip(wanted, directions, strict=True) if v is not None]
        tangents = [v for v in directions if v is not None]
        needed = [i for i, is_needed in enumerate(ctx.needs_input_grad[5:]) if is_needed]
        gradients: Sequence[Tensor] = ()
        if needed:
            still = (g_real.new_empty(0), g_complex.new_empty(0))
            real, complex_, gradients = operators.run_execute_vjp_jvp(
                program, inputs, tangents, moving, (g_real, g_complex), still, needed
            )
        else:
            real, complex_ = operators.run_execute_jvp(program, inputs, tangents, moving)
        return [real, complex_, *operators.spread(gradients, needed, len(inputs))]

    @staticmethod
    def backward(ctx: Any, *directions: Tensor | None) -> tuple[Tensor | None, ...]:
        if all(v is None for v in directions):
            return (None,) * len(ctx.needs_input_grad)
        found = _ExecuteVjp._derivatives(ctx, directions)
        if torch.is_grad_enabled():
            on = [*ctx.saved_tensors, *[v for v in directions if v is not None]]
            found = refuse_derivative(found, on, operators.THIRD_DERIVATIVE)
        return (None, None, None, *found)


@interpreter_levels.not_for_dynamo
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


def refuse_derivative(
    tensors: Sequence[Tensor | None], parameters: Sequence[Tensor], message: str
) -> list[Tensor | None]:
    """Under `create_graph=True`, ties tensors to what they depend on, so that differentiating them raises.

    Without this, torch would take them for constants: the derivative would be zero in silence. None stays None.
    """
    present = [tensor for tensor in tensors if tensor is not None]
    if not torch.is_grad_enabled() or not present:
        return list(tensors)
    tied = iter(_Refuse.apply(message, len(present), *present, *parameters))  # type: ignore[no-untyped-call]
    return [None if tensor is None else next(tied) for tensor in tensors]
