"""Differentiable calls of programs, and errors for derivatives that do not exist.

The rule itself, and who differentiates when, are in `derivative_rule`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..native import operators
from ..native.operators import KeepKet
from . import derivative_rule, interpreter_levels, torch_library

NO_SECOND_DERIVATIVE = (
    "this gradient of a circuit has no second derivatives, and was differentiated again (create_graph=True, a Hessian "
    "or a gradient penalty): it came from a JacobianProductCalculator that gives first derivatives only, or went to "
    "other tensors than the tapes hold"
)


def execute_program(
    program: int, inputs: Sequence[Tensor], keep_ket: KeepKet = operators.EXACT_KET
) -> tuple[Tensor, Tensor]:
    """Run a batch of circuits; twice differentiable in every input.

    Args:
        program: the id of a program.
        inputs: see `operators.run_execute`.
        keep_ket: what is kept of the final states (B, 2^n) for the backward pass; by default all.

    Returns:
        Real results (B, R) and complex results (B, C).

    Raises:
        NotImplementedError: third derivatives, and second ones under torch.compile.
        ValueError, MemoryError, IndexError: see `operators.run_execute`.
    """
    if torch.compiler.is_compiling():
        return torch_library.execute_in_graph(program, inputs, keep_ket)
    operators.refuse_legacy_vmap(inputs)
    keep = keep_ket if interpreter_levels.are_differentiated(inputs) else operators.NO_KET
    real, complex_, _ = interpreter_levels.apply(derivative_rule.Execute, program, keep, *inputs)
    return real, complex_


@interpreter_levels.not_for_dynamo
class _Refuse(torch.autograd.Function):
    """The identity; its backward raises."""

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
    """Under `create_graph=True`, make tensors depend on parameters by a node that raises in its backward.

    Without it, torch would treat them as constants, and their derivative would silently be zero. None stays None.
    """
    present = [tensor for tensor in tensors if tensor is not None]
    if not torch.is_grad_enabled() or not present:
        return list(tensors)
    tied = iter(_Refuse.apply(message, len(present), *present, *parameters))  # type: ignore[no-untyped-call]
    return [None if tensor is None else next(tied) for tensor in tensors]
