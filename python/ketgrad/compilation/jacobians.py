"""Results of a compiled function and their Jacobian in one call, of which all rows are one native call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..autograd import derivative_rule
from ..autograd.jacobian import jacobian_rows, of_circuits
from .gradients import GradientPlan
from .native_call import NativeCall, pack_inputs


def has_rows(found: GradientPlan, tensors: Sequence[Tensor]) -> bool:
    """Whether `value_and_rows` computes the Jacobian.

    It does if the function returns the real results of one tape, and torch computes none of its parameters.
    """
    plan = found.plan
    is_one_tape = len(plan.calls) == len(plan.calls[0].tapes) == 1
    is_real = not plan.calls[0].result_layout.complex_size
    are_real = not any(tensors[position].is_complex() for position in found.leaves)
    return found.is_direct and is_one_tape and is_real and are_real and plan.returns_tuple is not None


@torch.no_grad()
def value_and_rows(found: GradientPlan, tensors: Sequence[Tensor]) -> tuple[Any, list[list[Tensor]]]:
    """What the function returns, and for each of its results the derivatives by each differentiated tensor.

    Args:
        found, tensors: a plan that `has_rows`, and what it takes.

    Returns:
        The results, and derivatives (*shape of the result, *shape of the tensor).
    """
    call = found.plan.calls[0]
    passed, kept = found.plan.arithmetic(*tensors)
    inputs = pack_inputs(call.views, call.constants, passed)
    batch = call.batch_of(inputs)
    real, complex_, ket = derivative_rule.forward(call.id, inputs, batch * call.ket_bytes, call.kets, True)
    leaves = [tensors[position] for position in found.leaves]
    layout = call.result_layout
    rows = _rows(found, call, inputs, ket, real, leaves)
    jacobian = []
    for result in layout.results:
        blocks = [each.narrow(1, result.first, result.size) for each in rows]
        shape = result.batched_shape(batch if call.has_batch else None)
        jacobian.append([each.reshape(*shape, *leaf.shape) for each, leaf in zip(blocks, leaves, strict=True)])
    returned = found.plan.finish(*kept, *call.split(real, complex_, batch))
    return returned, jacobian


def _rows(
    found: GradientPlan, call: NativeCall, inputs: list[Tensor], ket: Tensor, real: Tensor, leaves: list[Tensor]
) -> list[Tensor]:
    """The derivatives of all R numbers by each leaf, (B, R, *leaf)."""
    (requested,), (sources,) = found.requested, found.sources
    axes = call.program.input_axes()
    gradients = jacobian_rows(call.id, inputs, ket, (real.shape[1], 0), requested)
    totals: list[Tensor | None] = [None] * len(leaves)
    for source, i, gradient in zip(sources, requested, gradients, strict=True):
        assert source.leaf is not None  # of a plan that `has_rows`
        leaf, total = leaves[source.leaf], totals[source.leaf]
        is_batched = inputs[i].dim() > axes[i]
        of_leaf = (gradient.real if gradient.is_complex() else gradient).to(leaf.dtype)
        rows = of_circuits(of_leaf.reshape(*gradient.shape[:2], *leaf.shape[int(is_batched) :]), is_batched)
        totals[source.leaf] = rows if total is None else total + rows
    pairs = zip(leaves, totals, strict=True)
    return [leaf.new_zeros((*real.shape, *leaf.shape)) if total is None else total for leaf, total in pairs]
