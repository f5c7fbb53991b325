"""Results and their Jacobian in one call: a row for each number of a circuit's results, all rows as one native batch.

The circuits of a batch are independent, so one cotangent gives a row for all of them: there are as many rows as numbers
in the results of one circuit, for any batch size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..autograd import derivative_rule
from ..execution.jacobian_rows import repeat_input
from ..native import operators
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
    real, complex_, ket = derivative_rule.forward(call.id, inputs, batch * call.ket_bytes, call.recompute, True)
    leaves = [tensors[position] for position in found.leaves]
    rows = _rows(found, call, inputs, ket, real, leaves)
    layout = call.result_layout
    axis = int(call.has_batch)
    jacobian = []
    for result in layout.results:
        blocks = [each.narrow(axis, result.first, result.size) for each in rows]
        shape = result.batched_shape(batch if call.has_batch else None)
        jacobian.append([each.reshape(*shape, *leaf.shape) for each, leaf in zip(blocks, leaves, strict=True)])
    returned = found.plan.finish(*kept, *call.split(real, complex_, batch))
    return returned, jacobian


def _rows(
    found: GradientPlan, call: NativeCall, inputs: list[Tensor], ket: Tensor, real: Tensor, leaves: list[Tensor]
) -> list[Tensor]:
    """The derivatives of all R numbers by each leaf, (R, *leaf) or (B, R, *leaf)."""
    batch, count = real.shape
    (requested,), (sources,) = found.requested, found.sources
    axes = call.program.input_axes()
    is_batched = [tensor.dim() > axis for tensor, axis in zip(inputs, axes, strict=True)]
    # A shared input stays shared unless its gradient is requested.
    wide = [
        repeat_input(tensor, is_batched[i], count, batch) if is_batched[i] or i in requested else tensor
        for i, tensor in enumerate(inputs)
    ]
    keep = derivative_rule.keeps_state(count * batch * call.ket_bytes, call.device, call.recompute) and ket.numel()
    kets = ket.repeat(count, 1) if keep else ket.new_empty((count * batch, 0))
    units = torch.eye(count, dtype=real.dtype, device=real.device).repeat_interleave(batch, 0)
    none = ket.new_empty((count * batch, 0))
    gradients = operators.run_execute_vjp(call.id, wide, kets, units, none, requested)
    lead = (batch, count) if call.has_batch else (count,)
    totals = [leaf.new_zeros((*lead, *leaf.shape)) for leaf in leaves]
    for source, i, gradient in zip(sources, requested, gradients, strict=True):
        assert source.leaf is not None  # of a plan that `has_rows`
        leaf, total = leaves[source.leaf], totals[source.leaf]
        of_leaf = gradient.real if gradient.is_complex() else gradient
        if is_batched[i]:  # only circuit b depends on row b of the leaf
            rows = of_leaf.reshape(count, batch, *leaf.shape[1:]).movedim(1, 0)
            total.diagonal(0, 0, 2).add_(rows.movedim(0, -1))
        else:
            rows = of_leaf.reshape(count, batch, *leaf.shape)
            total.add_(rows.movedim(1, 0).reshape(*lead, *leaf.shape))
    return totals
