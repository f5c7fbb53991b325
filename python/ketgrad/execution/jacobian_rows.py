"""Jacobians of a tape's results, and gradients for several cotangents: one native call with copies of the circuits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..autograd import derivative_rule
from ..autograd.jacobian import jacobian_rows, of_circuits
from ..circuit.tape import Tape
from .batching import Group, join_cotangents, like_parameter
from .programs import InputBinding
from .results import Result, ResultLayout


def jacobians(tape: Tape, group: Group, ket: Tensor) -> list[list[Tensor]]:
    """For each result its derivative by each trainable parameter, (*result shape, *parameter shape).

    Args:
        tape: the tape.
        group: the group of this tape alone.
        ket: the final states of the group, `(B, 2^n)`.

    Raises:
        MemoryError: the rows, one for each number of a circuit's results, do not fit.
    """
    layout, inputs = group.binding.result_layout, group.binding.inputs
    requested = [i for i, bound in enumerate(inputs) if bound.trainable]
    sizes = layout.real_size, layout.complex_size
    rows = jacobian_rows(group.binding.id, group.inputs, ket, sizes, requested)
    found: dict[int, Tensor] = {}
    for i, of_input in zip(requested, rows, strict=True):
        found.update(_split_rows(inputs[i], of_circuits(of_input, inputs[i].layout.is_batched), tape))
    return [[_of_result(found[i], r, layout, tape, i) for i in tape.trainable_params] for r in layout.results]


def gradient_rows(
    tape: Tape, group: Group, ket: Tensor, cotangents: Sequence[Tensor | None], copies: int
) -> list[Tensor]:
    """For each trainable parameter its gradients for `copies` sets of cotangents, (copies, *parameter shape)."""
    joined = join_cotangents(group._replace(rows=(copies * group.batch,)), [cotangents])
    found: dict[int, Tensor] = {}
    if joined is not None:
        g_real, g_complex = (g.reshape(copies, group.batch, g.shape[-1]) for g in joined)
        needed = [bound.trainable for bound in group.binding.inputs]
        gradients = derivative_rule.gradients(group.binding.id, group.inputs, ket, (g_real, g_complex), needed)
        for bound, gradient in zip(group.binding.inputs, gradients, strict=True):
            if gradient is not None:
                found.update(_split_rows(bound, gradient if bound.layout.is_batched else gradient.sum(1), tape))
    zeros = group.inputs[0].new_zeros
    return [found[i] if i in found else zeros((copies, *shape_of(tape, i))) for i in tape.trainable_params]


def along(rows: list[Tensor], tangents: Sequence[Any], result: Tensor) -> Tensor:
    """Σ over parameters of ∂result/∂parameter · tangent; Re(c* t) if the parameter is complex and the result real."""
    total = torch.zeros_like(result)
    for row, tangent in zip(rows, tangents, strict=True):
        direction = torch.as_tensor(tangent, dtype=row.dtype, device=row.device)
        change = (row.conj() * direction).real if is_complex(row) and not result.is_complex() else row * direction
        total += change.flatten(result.dim()).sum(-1) if direction.dim() else change
    return total


def shape_of(tape: Tape, index: int) -> tuple[int, ...]:
    """The shape of a parameter."""
    value = tape.parameters[index]
    return () if isinstance(value, float) else tuple(value.shape)


def is_complex(parameter: Any) -> bool:
    """Whether a parameter is a complex tensor."""
    return isinstance(parameter, Tensor) and parameter.is_complex()


def _split_rows(bound: InputBinding, rows: Tensor, tape: Tape) -> dict[int, Tensor]:
    """Rows of an input, (…, *input shape), split into those of its parameters."""
    columns = rows.unbind(-1) if bound.is_column else (rows,)
    return {i: like_parameter(c, tape.parameters[i]) for i, c in zip(bound.parameters, columns, strict=True)}


def _of_result(rows: Tensor, result: Result, layout: ResultLayout, tape: Tape, index: int) -> Tensor:
    """The derivative of one result by one parameter, from that of all results, (B, K, *parameter shape)."""
    shape = (*result.batched_shape(tape.batch_size), *shape_of(tape, index))
    if not result.is_complex:
        return rows.narrow(1, result.first, result.size).reshape(shape).contiguous()
    first = layout.real_size + result.first
    real, imaginary = (rows.narrow(1, first + part * layout.complex_size, result.size) for part in (0, 1))
    return torch.complex(real.contiguous(), imaginary.contiguous()).reshape(shape)
