"""A compiled plan at run time: its arithmetic, and its native calls under autograd.

Native calls that are made jointly, or one of them, are an autograd node, which also reshapes inputs, splits results and
joins cotangents. It saves the tensors of the calls, not the packed inputs, and packs them again in the backward pass;
otherwise it follows `autograd/derivative_rule`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from ..autograd import functions, interpreter_levels
from ..native import operators
from ..native.profiling import span
from ..native.torch_private import apply_of
from .joint_call import Unit
from .modes import is_watched
from .native_call import NativeCall, pack_inputs
from .plan import CompiledPlan


@torch.no_grad()
def batch_sizes(plan: CompiledPlan, tensors: Sequence[Tensor]) -> list[int]:
    """The number of circuits in each native call."""
    passed = plan.arithmetic(*tensors)
    pairs = zip(plan.calls, passed, strict=False)
    return [call.batch_of(pack_inputs(call.views, call.constants, of_call)) for call, of_call in pairs]


def run_plan(plan: CompiledPlan, tensors: Sequence[Tensor]) -> Any:
    """What the function returns, given its argument tensors and the captured ones."""
    passed = plan.arithmetic(*tensors)
    if operators.is_transforming() or is_watched():
        pairs: Any = zip(plan.calls, passed, strict=False)
        results: Any = [result for call, of_call in pairs for result in _run_in_torch(call, of_call)]
    elif len(plan.calls) == 1:
        results = _run_unit(plan.calls[0], passed[0])
    else:
        pairs = zip(plan.units, plan.passed_to_units(passed), strict=True)
        results = [result for unit, of_unit in pairs for result in _run_unit(unit, of_unit)]
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
    """(native call or joint call, *tensors) → the results of its tapes, tape after tape."""

    @staticmethod
    def forward(ctx: Any, unit: Unit, *tensors: Tensor) -> tuple[Tensor, ...]:
        results, kets, batch, empty = _forward(unit, tensors, True)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*kets, *tensors)
        ctx.rest = unit, len(kets), batch, empty
        return results

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        unit, count, batch, empty = ctx.rest
        saved = ctx.saved_tensors
        kets, tensors = saved[:count], saved[count:]
        if all(c is None for c in cotangents):
            return (None,) * len(ctx.needs_input_grad)
        needed = [False] * len(unit.constants)
        for view, is_needed in zip(unit.views, ctx.needs_input_grad[1:], strict=True):
            needed[view.input] = is_needed
        with span("pack"):
            inputs = pack_inputs(unit.views, unit.constants, tensors)
        found = unit.gradients(inputs, kets, batch, cotangents, empty, needed)
        gradients: list[Tensor | None] = [None]
        for view, tensor in zip(unit.views, tensors, strict=True):
            gradient = found[view.input]
            if gradient is not None and view.is_real:
                gradient = gradient.real
            # Autograd converts a gradient to its tensor's dtype, but does not reshape it.
            gradients.append(gradient if gradient is None or view.shape is None else gradient.view(tensor.shape))
        return tuple(gradients)


_apply = apply_of(_NativeCallNode)  # without support for transforms, which `_run_in_torch` has


def _run_unit(unit: Unit, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The results of the unit's tapes, tape after tape."""
    operators.refuse_legacy_vmap(tensors)
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor.requires_grad:
                return _apply(unit, *tensors)  # type: ignore[no-any-return]
    with torch.no_grad():
        return _forward(unit, tensors, False)[0]


def _forward(
    unit: Unit, tensors: Sequence[Tensor], is_differentiated: bool
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Any, Tensor | None]:
    """The results of the unit's tapes, its kets, its batch, and an empty tensor if real or complex results are none."""
    with span("pack"):
        inputs = pack_inputs(unit.views, unit.constants, tensors)
    batch: Any = unit.batch_of(inputs)
    real, complex_, kets = unit.forward(inputs, batch, is_differentiated)
    # Empty results serve as their own cotangents. Others must not be saved on the node: a reference cycle.
    has_real, has_complex = unit.has_numbers
    empty = real if not has_real else complex_ if not has_complex else None
    with span("unpack"):
        return unit.split(real, complex_, batch), kets, batch, empty


def _run_in_torch(call: NativeCall, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same of a native call, by operations that torch can differentiate, transform and trace."""
    inputs = pack_inputs(call.views, call.constants, tensors)
    batch = call.batch_of(inputs)
    keep = call.kets.keep(batch * call.ket_bytes, inputs[0])
    real, complex_ = functions.execute_program(call.id, inputs, keep)
    return call.split_views(real, complex_, batch)
