"""Value and gradient of a compiled function in one call, without a node of autograd for its circuits.

Where the value is the sum of all results, or linear or quadratic in those of one native call (its only number,
`MeanSquaredError`), its cotangents are known without torch: one operator goes forward and back, `run_execute_and_vjp`.
Otherwise the native calls go forward, torch differentiates what becomes of their results, which are small, and the
native calls go back.
Parameters that torch computes are differentiated by torch in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..autograd import derivative_rule
from ..execution.batching import like_parameter
from ..native import operators
from .calls import batch_size_of, pack_inputs, rows_of
from .losses import MeanSquaredError
from .plan import CompiledPlan, NativeCall

Loss = Callable[[Any], Tensor]
"""What a compiled function returned → one real number."""


class RequestedInput(NamedTuple):
    """Where a requested input of a native call comes from.

    Attributes:
        tensor: its tensor, among those that the call takes.
        leaf: the differentiated tensor that this is, among all of them; None: torch computes it.
        is_same: whether the gradient of the input is that of the tensor; otherwise shape or dtype differ.
    """

    tensor: int
    leaf: int | None
    is_same: bool


class Numbers(NamedTuple):
    """The results of a native call where they are real, and the function returns nothing but results.

    Attributes:
        shape: of what the function returns, if that is the results of one tape; several are stacked in a last axis.
        rows: as the operators have them, (B, R).
        is_summed: whether Python's `sum` of what the function returns adds up just these numbers, of each call.
        ones: cotangents of all, (B, R).
        no_complex: the cotangents of no complex results, (B, 0).
    """

    shape: tuple[int, ...] | None
    rows: tuple[int, int]
    is_summed: bool
    ones: Tensor
    no_complex: Tensor

    def of_squared_error(self, targets: Tensor) -> tuple[Tensor, float] | None:
        """Cotangents g + c · numbers of `MeanSquaredError`, as g and c; None where torch must find them."""
        size = self.rows[0] * self.rows[1]
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
        requested: for each native call the inputs whose gradients it computes, and `sources` where they come from.
        is_direct: whether torch computes nothing of the differentiated tensors.
        numbers: of each native call, if the function returns nothing but real results; otherwise empty.
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
        """Those of the value, for each call g and c, where they are g + c · numbers; otherwise None."""
        numbers = self.numbers
        if loss is sum:
            return [(each.ones, 0.0) for each in numbers] if numbers and numbers[0].is_summed else None
        if len(numbers) != 1:
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
        numbers = _numbers(plan, passed)
    index = {id(copies[position]): i for i, position in enumerate(leaves)}
    requested, sources = [], []
    for call, of_call in zip(plan.calls, passed, strict=True):
        trained = [i for i, tensor in enumerate(of_call) if tensor.requires_grad]
        requested.append(tuple([call.views[i].input for i in trained]))
        sources.append(tuple([_requested_input(call, i, of_call[i], index.get(id(of_call[i]))) for i in trained]))
    is_read = all(each.leaf is not None for of_call in sources for each in of_call)
    is_direct = is_read and not any(tensor.requires_grad for tensor in kept)
    return GradientPlan(plan, leaves, tuple(requested), tuple(sources), is_direct, numbers)


def _requested_input(call: NativeCall, i: int, tensor: Tensor, leaf: int | None) -> RequestedInput:
    view = call.views[i]
    return RequestedInput(i, leaf, view.shape is None and view.dtype is tensor.dtype)


def _numbers(plan: CompiledPlan, passed: Sequence[Sequence[Tensor]]) -> tuple[Numbers, ...]:
    if plan.returns_tuple is None or any(call.result_layout.complex_size for call in plan.calls):
        return ()
    are_summed = all(_is_summed(call, plan.returns_tuple) for call in plan.calls)
    found = []
    for call, of_call in zip(plan.calls, passed, strict=True):
        batch = batch_size_of(call, pack_inputs(call, of_call))
        rows = (batch, call.result_layout.real_size)
        ones = torch.ones(rows, dtype=call.real, device=call.device)
        no_complex = torch.empty((batch, 0), dtype=call.real.to_complex(), device=call.device)
        found.append(Numbers(_shape_of_one_tape(plan, batch), rows, are_summed, ones, no_complex))
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
    known = found.cotangents(loss)
    if known is not None:
        reals = []
        for i, (call, numbers) in enumerate(zip(found.plan.calls, found.numbers, strict=True)):
            cotangents, curvature = known[i]
            real, _, of_inputs = operators.run_execute_and_vjp(
                call.id, pack_inputs(call, passed[i]), cotangents, numbers.no_complex, curvature, found.requested[i]
            )
            gradients.add(found.sources[i], passed[i], of_inputs)
            reals.append(real)
        return _value(reals, found.numbers[0], loss), gradients.total()
    sweeps = [_Sweep(call, of_call) for call, of_call in zip(found.plan.calls, passed, strict=False)]
    with torch.enable_grad():
        returned = found.plan.finish(*passed[-1], *[result for sweep in sweeps for result in sweep.results()])
        value = returned if loss is None else loss(returned)
    require_number(value)
    roots = [root for sweep in sweeps for root in sweep.numbers]
    cotangents_left = gradients.of_value(value, roots, accumulates)
    for sweep, of_call, requested, sources in zip(sweeps, passed, found.requested, found.sources, strict=False):
        given = [cotangents_left.pop(0) for _ in sweep.numbers]
        if requested and any(cotangent is not None for cotangent in given):
            gradients.add(sources, of_call, sweep.back(given, requested))
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
    """A native call, forward and back.

    Attributes:
        numbers: its real and its complex results, those of them that there are: leaves of torch's graph.
    """

    def __init__(self, call: NativeCall, tensors: Sequence[Tensor]) -> None:
        self.call = call
        with torch.no_grad():
            self.inputs = pack_inputs(call, tensors)
        self.batch = batch_size_of(call, self.inputs)
        size = self.batch * call.ket_bytes
        self.real, self.complex, self.ket = derivative_rule.forward(call.id, self.inputs, size, call.recompute, True)
        layout = call.result_layout
        self.has_numbers = (bool(layout.real_size), bool(layout.complex_size))
        both = zip((self.real, self.complex), self.has_numbers, strict=True)
        self.numbers = [each.requires_grad_() for each, has_numbers in both if has_numbers]

    def results(self) -> tuple[Tensor, ...]:
        """The results of its tapes, tape after tape."""
        call = self.call
        return call.result_layout.split_views(self.real, self.complex, rows_of(call, self.batch), call.has_batch)

    def back(self, cotangents: list[Tensor | None], requested: Sequence[int]) -> Sequence[Tensor]:
        """The gradients of some inputs, for cotangents of its numbers."""
        given = iter(cotangents)
        joined = []
        for each, has_numbers in zip((self.real, self.complex), self.has_numbers, strict=True):
            cotangent = next(given) if has_numbers else None
            joined.append(torch.zeros_like(each) if cotangent is None else cotangent)
        g_real, g_complex = joined
        return operators.run_execute_vjp(self.call.id, self.inputs, self.ket, g_real, g_complex, requested)


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
