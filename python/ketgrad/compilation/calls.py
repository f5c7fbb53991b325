"""A compiled plan at run time: its arithmetic, and its native calls under autograd.

Each native call is one autograd node, which also reshapes inputs, splits results and joins cotangents. It saves the
tensors of the call, not the packed inputs, and packs them again in the backward pass; otherwise it follows
`autograd/derivative_rule`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from ..autograd import derivative_rule, functions, interpreter_levels
from ..native import operators
from ..native.profiling import span
from ..native.torch_private import apply_of
from .modes import is_watched
from .plan import CompiledPlan, NativeCall


@torch.no_grad()
def batch_sizes(plan: CompiledPlan, tensors: Sequence[Tensor]) -> list[int]:
    """The number of circuits in each native call."""
    passed = plan.arithmetic(*tensors)
    pairs = zip(plan.calls, passed, strict=False)
    return [batch_size_of(call, pack_inputs(call, of_call)) for call, of_call in pairs]


def run_plan(plan: CompiledPlan, tensors: Sequence[Tensor]) -> Any:
    """What the function returns, given its argument tensors and the captured ones."""
    passed = plan.arithmetic(*tensors)
    if len(plan.calls) == 1:
        return plan.finish(*passed[1], *_run_call(plan.calls[0], passed[0]))
    results = [result for call, tensors in zip(plan.calls, passed, strict=False) for result in _run_call(call, tensors)]
    return plan.finish(*passed[-1], *results)


def with_visible_constants(plan: CompiledPlan) -> CompiledPlan:
    """The plan with its constants lifted for active modes: to fake tensors, or to constants of a graph."""
    lift = torch.ops.aten.lift_fresh_copy.default
    objects = {name: lift(found) if isinstance(found, Tensor) else found for name, found in plan.objects.items()}
    calls = [
        call._replace(constants=tuple([None if constant is None else lift(constant) for constant in call.constants]))
        for call in plan.calls
    ]

    def rebound(code: Any) -> FunctionType:
        return FunctionType(code.__code__, {**code.__globals__, **objects})

    arithmetic, finish = rebound(plan.arithmetic), rebound(plan.finish)
    return plan._replace(arithmetic=arithmetic, finish=finish, objects=objects, calls=tuple(calls))


@interpreter_levels.not_for_dynamo
class _NativeCallNode(torch.autograd.Function):
    """(call, *tensors) → the results of the call's tapes, tape after tape."""

    @staticmethod
    def forward(ctx: Any, call: NativeCall, *tensors: Tensor) -> tuple[Tensor, ...]:
        results, ket, batch, empty = _forward(call, tensors, True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(ket, *tensors)
        ctx.rest = call, batch, empty
        return results

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        call, batch, empty = ctx.rest
        ket, *tensors = ctx.saved_tensors
        if all(c is None for c in cotangents):
            return (None,) * len(ctx.needs_input_grad)
        needed = [False] * len(call.constants)
        for view, is_needed in zip(call.views, ctx.needs_input_grad[1:], strict=True):
            needed[view.input] = is_needed
        with span("pack"):
            inputs = pack_inputs(call, tensors)
            joined = call.result_layout.join(cotangents, rows_of(call, batch), call.has_batch, inputs[0], empty)
        found = derivative_rule.gradients(call.id, inputs, ket, joined, needed)
        gradients: list[Tensor | None] = [None]
        for view, tensor in zip(call.views, tensors, strict=True):
            gradient = found[view.input]
            if gradient is not None and view.is_real:
                gradient = gradient.real
            # Autograd converts a gradient to its tensor's dtype, but does not reshape it.
            gradients.append(gradient if gradient is None or view.shape is None else gradient.view(tensor.shape))
        return tuple(gradients)


_apply = apply_of(_NativeCallNode)  # without support for transforms, which `_run_in_torch` has


def _run_call(call: NativeCall, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The results of a call's tapes, tape after tape."""
    if operators.is_transforming() or is_watched():
        return _run_in_torch(call, tensors)
    operators.refuse_legacy_vmap(tensors)
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor.requires_grad:
                return _apply(call, *tensors)  # type: ignore[no-any-return]
    with torch.no_grad():
        return _forward(call, tensors, False)[0]


def _forward(
    call: NativeCall, tensors: Sequence[Tensor], is_differentiated: bool
) -> tuple[tuple[Tensor, ...], Tensor, int, Tensor | None]:
    """The results of a call's tapes, its ket, its batch size, and an empty tensor if real or complex ones are empty."""
    with span("pack"):
        inputs = pack_inputs(call, tensors)
    batch = batch_size_of(call, inputs)
    size = batch * call.ket_bytes
    real, complex_, ket = derivative_rule.forward(call.id, inputs, size, call.recompute, is_differentiated)
    # Empty results serve as their own cotangents. Others must not be saved on the node: a reference cycle.
    layout = call.result_layout
    empty = real if not layout.real_size else complex_ if not layout.complex_size else None
    with span("unpack"):
        return layout.split(real, complex_, rows_of(call, batch), call.has_batch), ket, batch, empty


def _run_in_torch(call: NativeCall, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same by operations that torch can differentiate, transform and trace."""
    inputs = pack_inputs(call, tensors)
    batch = batch_size_of(call, inputs)
    keep = derivative_rule.keeps_state(batch * call.ket_bytes, call.device, call.recompute)
    real, complex_ = functions.execute_program(call.id, inputs, keep)
    return call.result_layout.split_views(real, complex_, rows_of(call, batch), call.has_batch)


def batch_size_of(call: NativeCall, inputs: Sequence[Tensor]) -> int:
    """The number of circuits in a call."""
    return inputs[call.batched].shape[0] if call.batched >= 0 else 1


def rows_of(call: NativeCall, batch: int) -> Sequence[int]:
    """The number of circuits of each tape."""
    return [batch // len(call.tapes)] * len(call.tapes) if call.rows is None else call.rows


def pack_inputs(call: NativeCall, tensors: Sequence[Tensor]) -> list[Any]:
    """The inputs of the program."""
    inputs: list[Any] = list(call.constants)
    for (position, shape, dtype, _), tensor in zip(call.views, tensors, strict=True):
        if tensor.dtype is not dtype:
            tensor = tensor.to(dtype)
        inputs[position] = tensor if shape is None else tensor.reshape(shape)
    return inputs
