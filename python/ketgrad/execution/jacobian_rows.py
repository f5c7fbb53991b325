"""Jacobians of a tape's results, all rows in one native batch: a copy of the circuit for each element of a result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..autograd import derivative_rule
from ..circuit.tape import Tape
from ..native.library import _C
from .batching import Group, join_cotangents, like_parameter
from .programs import InputBinding


def jacobians(tape: Tape, group: Group, ket: Tensor, results: list[Tensor]) -> list[list[Tensor]]:
    """For each result its derivative by each trainable parameter, (*result shape, *parameter shape).

    Args:
        tape: the tape.
        group: the group of this tape alone.
        ket: the final states of the group, `(B, 2^n)`.
        results: the results of the tape, one per measurement.

    Raises:
        MemoryError: a copy of the state for each element of the results does not fit.
    """
    sizes = [r.numel() * (2 if r.is_complex() else 1) for r in results]
    _require_room(group, results, sum(sizes))
    found = gradient_rows(tape, group, ket, _unit_cotangents(results, sum(sizes)), sum(sizes))
    rows = [of_parameter.split(sizes) for of_parameter in found]
    return [[_to_result(of[m], result) for of in rows] for m, result in enumerate(results)]


def gradient_rows(
    tape: Tape, group: Group, ket: Tensor, cotangents: Sequence[Tensor | None], copies: int
) -> list[Tensor]:
    """For each trainable parameter its gradients for `copies` sets of cotangents, (copies, *parameter shape)."""
    wide = _repeat(group, copies)
    joined = join_cotangents(wide, [cotangents])
    needed = [bound.trainable for bound in wide.binding.inputs]
    found: dict[int, Tensor] = {}
    if joined is not None and copies:
        gradients = derivative_rule.gradients(wide.binding.id, wide.inputs, ket.repeat(copies, 1), joined, needed)
        for bound, gradient in zip(wide.binding.inputs, gradients, strict=True):
            if gradient is not None:
                found.update(_split_rows(bound, gradient, tape, copies))
    zeros = wide.inputs[0].new_zeros
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


def _repeat(group: Group, copies: int) -> Group:
    """The group's one tape `copies` times in one batch, without shared inputs."""
    tape, batch = group.tapes[0], group.batch
    pairs = zip(group.binding.inputs, group.inputs, strict=True)
    inputs = [repeat_input(tensor, bound.layout.is_batched, copies, batch) for bound, tensor in pairs]
    return group._replace(inputs=inputs, rows=(copies * batch,), tapes=(tape,))


def repeat_input(tensor: Tensor, is_batched: bool, copies: int, batch: int) -> Tensor:
    """An input of `batch` circuits, with a batch axis or without, for `copies` of each: (copies · batch, …)."""
    if is_batched:
        return tensor.repeat(copies, *[1] * (tensor.dim() - 1))
    return tensor.expand(copies * batch, *tensor.shape)


def _require_room(group: Group, results: Sequence[Tensor], rows: int) -> None:
    """Raise MemoryError if kets, cotangents and gradients of so many rows do not fit."""
    if results[0].is_cuda:  # there torch's allocator raises
        return
    real = group.inputs[0].itemsize
    kets = 2 * real * group.batch * group.binding.ket_size
    cotangents = sum(r.numel() * r.itemsize for r in results)
    gradients = sum(
        i.numel() * i.itemsize for i, s in zip(group.inputs, group.binding.inputs, strict=True) if s.trainable
    )
    _C.require_memory(float(rows * (kets + cotangents + gradients)), f"a Jacobian of {rows} rows")


def _unit_cotangents(results: list[Tensor], copies: int) -> list[Tensor]:
    """For each measurement its cotangents in all copies: in each copy another element is 1 (or i), all others are 0."""
    found, first = [], 0
    for result in results:
        block = result.new_zeros((copies, result.numel()))
        for unit in (1, 1j) if result.is_complex() else (1,):
            block[first : first + result.numel()].fill_diagonal_(unit)
            first += result.numel()
        found.append(block)
    return found


def _split_rows(bound: InputBinding, gradient: Tensor, tape: Tape, copies: int) -> dict[int, Tensor]:
    """The gradient of a repeated group's input, split into those of its parameters, (copies, *parameter shape)."""
    per_copy = gradient.view(copies, -1, *gradient.shape[1:])
    if not bound.layout.is_batched:
        per_copy = per_copy.sum(1)
    columns = per_copy.unbind(-1) if bound.is_column else (per_copy,)
    return {i: like_parameter(c, tape.parameters[i]) for i, c in zip(bound.parameters, columns, strict=True)}


def _to_result(rows: Tensor, result: Tensor) -> Tensor:
    """The derivatives of one result from its rows: those of cotangents 1 are its real part's, of i its imaginary's."""
    shape = (*result.shape, *rows.shape[1:])
    if not result.is_complex():
        return rows.reshape(shape)
    real, imaginary = rows.split(result.numel())
    return torch.complex(real, imaginary).reshape(shape)
