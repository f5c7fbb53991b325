"""Value and gradient of a compiled function in one call, without a node of autograd for its circuits.

Where the value is the sum of all results, or linear or quadratic in those of one native call (its only number,
`MeanSquaredError`), its cotangents are known without torch: one operator goes forward and back. Otherwise the native
calls go forward, torch differentiates what becomes of their results, which are small, and the native calls go back.
Parameters that torch computes are differentiated by torch in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..execution.batching import like_parameter
from .joint_call import Unit
from .losses import MeanSquaredError
from .native_call import NativeCall, View, pack_inputs
from .plan import CompiledPlan

Loss = Callable[[Any], Tensor]
"""What a compiled function returned → one real number."""


class RequestedInput(NamedTuple):
    """Where a requested input of a native call, or of a joint one, comes from.

    Attributes:
        tensor: its tensor, among those that the call takes.
        leaf: the differentiated tensor that this is, among all of them; None: torch computes it.
        is_same: whether the gradient of the input is that of the tensor; otherwise shape or dtype differ.
    """

    tensor: int
    leaf: int | None
    is_same: bool


class Numbers(NamedTuple):
    """The results of a native or joint call where they are real, and the function returns nothing but results.

    Attributes:
        shape: of what the function returns, if that is the results of one tape; several are stacked in a last axis.
        rows: as the operators have them, (B, R), or (N,) of a joint call.
        is_summed: whether Python's `sum` of what the function returns adds up just these numbers, of each call.
        ones: cotangents of all, in the shape `rows`.
        no_complex: the cotangents of no complex results, (B, 0) or (0,).
    """

    shape: tuple[int, ...] | None
    rows: tuple[int, ...]
    is_summed: bool
    ones: Tensor
    no_complex: Tensor

    def of_squared_error(self, targets: Tensor) -> tuple[Tensor, float] | None:
        """Cotangents g + c · numbers of `MeanSquaredError`, as g and c; None where torch must find them."""
        size = self.ones.numel()
        is_known = targets.shape == self.shape and targets.dtype is self.ones.dtype
        if not is_known or targets.device != self.ones.device or targets.requires_grad or not size:
            return None
        rows = targets if self.shape == self.rows else targets.reshape(self.rows)
        return torch.mul(rows, -2 / size), 2 / size


class GradientPlan(NamedTuple):
    """A plan, and how some of the tensors that it takes are differentiated.

    Attributes:
        plan: the plan.
        leaves: the positions of the differentiated tensors among those that the plan takes.
        requested: for each of the plan's `units` the inputs whose gradients it computes, and `sources` where they come
            from.
        is_direct: whether torch computes nothing of the differentiated tensors.
        numbers: of each unit, if the function returns nothing but real results; otherwise empty.
    """

    plan: CompiledPlan
    leaves: tuple[int, ...]
    requested: tuple[tuple[int, ...], ...]
    sources: tuple[tuple[RequestedInput, ...], ...]
    is_direct: bool
    numbers: tuple[Numbers, ...]

    @property
    def bytes(self) -> int:
        """Approximately the memory that it takes."""
        return self.plan.bytes

    def cotangents(self, loss: Loss | None) -> list[tuple[Tensor, float]] | None:
        """Those of the value, for each unit g and c, where they are g + c · numbers; otherwise None."""
        numbers = self.numbers
        if loss is sum:
            return [(each.ones, 0.0) for each in numbers] if numbers and numbers[0].is_summed else None
        if len(numbers) != 1 or numbers[0].shape is None:
            return None
        if loss is None:
            return [(numbers[0].ones, 0.0)] if numbers[0].shape == () else None
        known = numbers[0].of_squared_error(loss.targets) if type(loss) is MeanSquaredError else None
        return None if known is None else [known]


def gradient_plan(plan: CompiledPlan, tensors: Sequence[Tensor], leaves: tuple[int, ...]) -> GradientPlan:
    """How the tensors at the positions `leaves`, among those that a plan takes, are differentiated."""
    copies = as_leaves(tensors, leaves)
    with torch.inference_mode(False), torch.enable_grad():
        *passed, kept = plan.arithmetic(*copies)
        passed_to_units = plan.passed_to_units([*passed, kept])
        numbers = _numbers(plan, passed_to_units)
    index = {id(copies[position]): i for i, position in enumerate(leaves)}
    requested, sources = [], []
    for unit, of_unit in zip(plan.units, passed_to_units, strict=True):
        trained = [i for i, tensor in enumerate(of_unit) if tensor.requires_grad]
        requested.append(tuple([unit.views[i].input for i in trained]))
        sources.append(
            tuple([_requested_input(unit.views[i], i, of_unit[i], index.get(id(of_unit[i]))) for i in trained])
        )
    is_read = all(each.leaf is not None for of_unit in sources for each in of_unit)
    is_direct = is_read and not any(tensor.requires_grad for tensor in kept)
    return GradientPlan(plan, leaves, tuple(requested), tuple(sources), is_direct, numbers)


def _requested_input(view: View, i: int, tensor: Tensor, leaf: int | None) -> RequestedInput:
    return RequestedInput(i, leaf, view.shape is None and view.dtype is tensor.dtype)


def _numbers(plan: CompiledPlan, passed: Sequence[Sequence[Tensor]]) -> tuple[Numbers, ...]:
    if plan.returns_tuple is None or any(call.result_layout.complex_size for call in plan.calls):
        return ()
    are_summed = all(_is_summed(call, plan.returns_tuple) for call in plan.calls)
    found = []
    for unit, of_unit in zip(plan.units, passed, strict=True):
        batch: Any = unit.batch_of(pack_inputs(unit.views, unit.constants, of_unit))
        ones = torch.ones(unit.real_shape(batch), dtype=unit.real, device=unit.device)
        no_complex = torch.empty((*ones.shape[:-1], 0), dtype=unit.real.to_complex(), device=unit.device)
        found.append(Numbers(_shape_of_one_tape(plan, batch), ones.shape, are_summed, ones, no_complex))
    return tuple(found)


def _is_summed(call: NativeCall, returns_tuple: bool) -> bool:
    layout = call.result_layout
    is_flat = layout.are_numbers if returns_tuple else len(layout.results[0].shape) == 1
    return is_flat and not call.has_batch


def _shape_of_one_tape(plan: CompiledPlan, batch: int) -> tuple[int, ...] | None:
    call, layout = plan.calls[0], plan.calls[0].result_layout
    if len(plan.calls) > 1 or len(call.tapes) > 1 or (plan.returns_tuple and not layout.are_numbers):
        return None
    shape = (layout.real_size,) if plan.returns_tuple else layout.results[0].shape
    return (batch, *shape) if call.has_batch else shape


def value_and_gradients(
    found: GradientPlan, tensors: Sequence[Tensor], loss: Loss | None, accumulates: bool
) -> tuple[Tensor, list[Tensor | None]]:
    """The value, and its gradients by the differentiated tensors in their shapes and dtypes; neither has a graph.

    A gradient is None where nothing depends on the tensor.

    Args:
        found, tensors: the plan, and what it takes.
        loss: of what the function returns; None: the function returns the value.
        accumulates: whether other tensors that the loss depends on get their gradients into `.grad`.

    Raises:
        ValueError: the value is not one real number, or no operation of torch leads to it from the results.
    """
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False):
            return value_and_gradients(found, tensors, loss, accumulates)
    if found.is_direct:
        passed = found.plan.arithmetic(*tensors)
    else:
        tensors = as_leaves(tensors, found.leaves)
        with torch.enable_grad():
            passed = found.plan.arithmetic(*tensors)
    gradients = _Gradients(found, [tensors[position] for position in found.leaves])
    of_units = found.plan.passed_to_units(passed)
    known = found.cotangents(loss)
    if known is not None:
        reals = []
        for unit, of_unit, requested, sources, numbers, (cotangents, curvature) in zip(
            found.plan.units, of_units, found.requested, found.sources, found.numbers, known, strict=True
        ):
            inputs = pack_inputs(unit.views, unit.constants, of_unit)
            joined = (cotangents, numbers.no_complex)
            real, of_inputs = unit.forward_and_vjp(inputs, joined, curvature, requested)
            gradients.add(sources, of_unit, of_inputs)
            reals.append(real)
        return _value(reals, found.numbers[0], loss), gradients.total()
    sweeps = [_Sweep(unit, of_unit) for unit, of_unit in zip(found.plan.units, of_units, strict=True)]
    with torch.enable_grad():
        returned = found.plan.finish(*passed[-1], *[result for sweep in sweeps for result in sweep.results()])
        value = returned if loss is None else loss(returned)
    require_number(value)
    roots = [root for sweep in sweeps for root in sweep.numbers]
    cotangents_left = gradients.of_value(value, roots, accumulates)
    for sweep, of_unit, requested, sources in zip(sweeps, of_units, found.requested, found.sources, strict=True):
        given = [cotangents_left.pop(0) for _ in sweep.numbers]
        if requested and any(cotangent is not None for cotangent in given):
            gradients.add(sources, of_unit, sweep.back(given, requested))
    return value.detach(), gradients.total()


def _value(reals: list[Tensor], numbers: Numbers, loss: Loss | None) -> Tensor:
    """The value of known cotangents, from the results of the calls."""
    if loss is sum:
        return reals[0].sum() if len(reals) == 1 else torch.cat([real.reshape(-1) for real in reals]).sum()
    assert numbers.shape is not None
    returned = reals[0] if numbers.shape == numbers.rows else reals[0].view(numbers.shape)
    return returned if loss is None else loss(returned)


def require_number(value: Any) -> None:
    """Raise ValueError where a value is not one real number."""
    if not isinstance(value, Tensor) or value.dim() or not value.is_floating_point():
        found = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ValueError(
            f"value and gradient are of one real number, of shape (), not of {found}; give a `loss` that makes one of "
            "it, or use value_and_jacobian"
        )


def as_leaves(tensors: Sequence[Tensor], leaves: Sequence[int]) -> list[Tensor]:
    """The tensors without their graphs; those at the positions `leaves` begin a new one."""
    with torch.inference_mode(False):
        plain = [tensor.clone() if tensor.is_inference() else tensor.detach() for tensor in tensors]
        for position in leaves:
            plain[position].requires_grad_()
    return plain


class _Sweep:
    """A native call, or a joint one, forward and back.

    Attributes:
        numbers: its real and its complex results, those of them that there are: leaves of torch's graph.
    """

    def __init__(self, unit: Unit, tensors: Sequence[Tensor]) -> None:
        self.unit = unit
        with torch.no_grad():
            self.inputs = pack_inputs(unit.views, unit.constants, tensors)
        batch: Any = unit.batch_of(self.inputs)
        self.batch = batch
        self.real, self.complex, self.kets = unit.forward(self.inputs, batch, True)
        both = zip((self.real, self.complex), unit.has_numbers, strict=True)
        self.numbers = [each.requires_grad_() for each, has_numbers in both if has_numbers]

    def results(self) -> tuple[Tensor, ...]:
        """The results of its tapes, tape after tape."""
        return self.unit.split_views(self.real, self.complex, self.batch)

    def back(self, cotangents: list[Tensor | None], requested: Sequence[int]) -> Sequence[Tensor]:
        """The gradients of some inputs, for cotangents of its numbers."""
        given = iter(cotangents)
        joined = []
        for each, has_numbers in zip((self.real, self.complex), self.unit.has_numbers, strict=True):
            cotangent = next(given) if has_numbers else None
            joined.append(torch.zeros_like(each) if cotangent is None else cotangent)
        g_real, g_complex = joined
        return self.unit.vjp(self.inputs, self.kets, (g_real, g_complex), requested)


class _Gradients:
    """Adds up gradients of the differentiated tensors.

    Args:
        found: the plan.
        leaves: the differentiated tensors, leaves of torch's graph where it computes something of them.
    """

    def __init__(self, found: GradientPlan, leaves: list[Tensor]) -> None:
        self.is_direct = found.is_direct
        self.leaves = leaves
        self.found: list[Tensor | None] = [None] * len(leaves)
        self.computed: list[tuple[Tensor, Tensor]] = []

    def of_value(self, value: Tensor, roots: list[Tensor], accumulates: bool) -> list[Tensor | None]:
        """The cotangents of the roots; adds what the leaves change in the value past them."""
        if not value.requires_grad:
            raise ValueError("the value does not depend on the results by operations that torch differentiates")
        leaves = [] if self.is_direct else self.leaves
        if accumulates:
            torch.autograd.backward(value, retain_graph=not self.is_direct)
            cotangents = [tensor.grad for tensor in (*roots, *leaves)]
        else:
            given = (*roots, *leaves)
            cotangents = list(torch.autograd.grad(value, given, retain_graph=not self.is_direct, allow_unused=True))
        if leaves:
            self.found = cotangents[len(roots) :]
        return cotangents[: len(roots)]

    def add(self, sources: Sequence[RequestedInput], tensors: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Add gradients of inputs, whose tensors are among `tensors`."""
        for (position, leaf, is_same), gradient in zip(sources, gradients, strict=True):
            if not is_same:
                gradient = like_parameter(gradient, tensors[position]).reshape(tensors[position].shape)
            if leaf is None:
                self.computed.append((tensors[position], gradient))
            else:
                before = self.found[leaf]
                self.found[leaf] = gradient if before is None else before + gradient

    def total(self) -> list[Tensor | None]:
        """The gradients, None where nothing depends on a tensor."""
        found = self.found
        if self.computed:
            outputs, cotangents = zip(*self.computed, strict=True)
            more: Sequence[Tensor | None] = torch.autograd.grad(outputs, self.leaves, cotangents, allow_unused=True)
            found = [a if b is None else b if a is None else a + b for a, b in zip(found, more, strict=True)]
        return found
