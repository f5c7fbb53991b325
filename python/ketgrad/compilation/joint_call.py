"""`JointCall`: the native calls of a plan as one operator call, which spreads them over threads."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..autograd import derivative_rule
from ..native import many
from .native_call import NativeCall, View

# `Any`, because torch declares that they return None.
_split_copy: Any = torch.split_with_sizes_copy
_unbind_copy: Any = torch.unbind_copy


_SMALL = 1 << 10
"""Constants of at most so many numbers are compared bit by bit."""


class JointCall(NamedTuple):
    """Native calls on one device and in one precision as one.

    It has the methods of `NativeCall`, for which a batch is the number of circuits of each call. The numbers of all
    calls are flat, call after call: (N,) and (M,).

    Attributes:
        calls: the calls.
        programs: their programs, and which of the inputs of all each of them reads.
        sources: for each view the call and the position of its tensor among those that the call takes.
        views: as in a `NativeCall`, of the inputs of all calls; what several calls read is there once.
        constants: the inputs of all calls, None for those that are views.
        batched: for each call the position of an input with a batch axis, −1 if there is none.
        has_numbers: whether there are real results, and complex ones.
        are_numbers: whether each result is one real number, without a batch axis.
    """

    calls: tuple[NativeCall, ...]
    programs: many.Programs
    sources: tuple[tuple[int, int], ...]
    views: tuple[View, ...]
    constants: tuple[Tensor | None, ...]
    batched: tuple[int, ...]
    has_numbers: tuple[bool, bool]
    are_numbers: bool

    @property
    def real(self) -> torch.dtype:
        """The dtype of real numbers."""
        return self.calls[0].real

    @property
    def device(self) -> torch.device:
        """The device."""
        return self.calls[0].device

    def take(self, passed: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """The tensors of the views, of those that the calls take."""
        return [passed[call][position] for call, position in self.sources]

    # --- inputs and results -------------------------------------------------------------------------------------------

    def batch_of(self, inputs: Sequence[Tensor]) -> list[int]:
        """The number of circuits of each call."""
        return [inputs[position].shape[0] if position >= 0 else 1 for position in self.batched]

    def split(self, real: Tensor, complex_: Tensor, batch: Sequence[int]) -> tuple[Tensor, ...]:
        """The results of all tapes, call after call, in memory of their own."""
        if self.are_numbers:
            return _unbind_copy(real)  # type: ignore[no-any-return]
        reals = _split_copy(real, self._sizes(batch, False))
        complexes = _split_copy(complex_, self._sizes(batch, True))
        results: list[Tensor] = []
        for call, size, of_real, of_complex in zip(self.calls, batch, reals, complexes, strict=True):
            layout = call.result_layout
            rows = of_real.resize_((size, layout.real_size)), of_complex.resize_((size, layout.complex_size))
            results += call.split(*rows, size)
        return tuple(results)

    def split_views(self, real: Tensor, complex_: Tensor, batch: Sequence[int]) -> tuple[Tensor, ...]:
        """The same as differentiable views."""
        if self.are_numbers:
            return real.unbind()
        reals, complexes = real.split(self._sizes(batch, False)), complex_.split(self._sizes(batch, True))
        results: list[Tensor] = []
        for call, size, of_real, of_complex in zip(self.calls, batch, reals, complexes, strict=True):
            layout = call.result_layout
            rows = of_real.view(size, layout.real_size), of_complex.view(size, layout.complex_size)
            results += call.split_views(*rows, size)
        return tuple(results)

    def real_shape(self, batch: Sequence[int]) -> tuple[int, ...]:
        """The shape of its real numbers."""
        return (sum(self._sizes(batch, False)),)

    def _sizes(self, batch: Sequence[int], is_complex: bool) -> list[int]:
        """How many real or complex numbers each call has."""
        layouts = [call.result_layout for call in self.calls]
        widths = [layout.complex_size if is_complex else layout.real_size for layout in layouts]
        return [size * width for size, width in zip(batch, widths, strict=True)]

    # --- the operators ------------------------------------------------------------------------------------------------

    def forward(
        self, inputs: Sequence[Tensor], batch: list[int], is_differentiated: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Real numbers (N,), complex numbers (M,), and kets for the way back."""
        size = sum([size * call.ket_bytes for call, size in zip(self.calls, batch, strict=True)])
        return derivative_rule.forward_many(self.programs, inputs, size, self.calls[0].kets, is_differentiated)

    def gradients(
        self,
        inputs: Sequence[Tensor],
        kets: Sequence[Tensor],
        batch: Sequence[int],
        cotangents: Sequence[Tensor | None],
        empty: Tensor | None,
        needed: Sequence[bool],
    ) -> list[Tensor | None]:
        """The gradients of the needed inputs for cotangents of the results, None for the others; differentiable."""
        joined, chosen = self._join(cotangents, batch, inputs[0], empty)
        return derivative_rule.gradients_of_many(self.programs, inputs, kets, joined, chosen, needed)

    def _join(
        self, cotangents: Sequence[Tensor | None], batch: Sequence[int], carrier: Tensor, empty: Tensor | None
    ) -> tuple[tuple[Tensor, Tensor], Sequence[int]]:
        """The cotangents of the numbers, and the positions of the calls that have any."""
        if self.are_numbers and not any(each is None for each in cotangents):
            joined = torch.stack(cotangents)  # type: ignore[arg-type]
            return (joined.to(self.real), carrier.new_empty(0, dtype=self.real.to_complex())), range(len(self.calls))
        first, chosen, reals, complexes = 0, [], [], []
        for position, (call, size) in enumerate(zip(self.calls, batch, strict=True)):
            own = cotangents[first : (first := first + len(call.tapes) * len(call.result_layout.results))]
            if any(each is not None for each in own):
                chosen.append(position)
            g_real, g_complex = call.join(own, size, carrier, None)
            reals.append(g_real.reshape(-1))
            complexes.append(g_complex.reshape(-1))
        return (torch.cat(reals), torch.cat(complexes)), chosen

    def vjp(
        self,
        inputs: Sequence[Tensor],
        kets: Sequence[Tensor],
        cotangents: tuple[Tensor, Tensor],
        requested: Sequence[int],
    ) -> Sequence[Tensor]:
        """The gradients of the requested inputs for cotangents of the numbers."""
        return many.run_execute_vjp_many(self.programs, inputs, kets, cotangents, range(len(self.calls)), requested)

    def forward_and_vjp(
        self,
        inputs: Sequence[Tensor],
        cotangents: tuple[Tensor, Tensor],
        curvature: float,
        requested: Sequence[int],
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Real numbers and what `vjp` returns; the curvature is that of a sum, 0."""
        assert curvature == 0
        real, _, gradients = many.run_execute_and_vjp_many(self.programs, inputs, cotangents, requested)
        return real, gradients


Unit = NativeCall | JointCall
"""What a plan calls at once."""


def units_of(calls: Sequence[NativeCall], texts: Sequence[Sequence[str]]) -> tuple[Unit, ...]:
    """Several calls on one device and in one precision as a joint call; others as they are.

    Args:
        calls: the calls of a plan.
        texts: for each of them the expressions of its tensors in the plan's code.
    """
    if len(calls) < 2 or len({(call.device, call.real) for call in calls}) > 1:
        return tuple(calls)
    joint = _Inputs()
    for position, (call, of_call) in enumerate(zip(calls, texts, strict=True)):
        joint.add(position, call, of_call)
    sizes = [(len(call.constants), call.result_layout.real_size, call.result_layout.complex_size) for call in calls]
    joined = JointCall(
        calls=tuple(calls),
        programs=many.Programs(tuple([call.id for call in calls]), tuple(joint.places), tuple(sizes)),
        sources=tuple(joint.sources),
        views=tuple(joint.views),
        constants=tuple(joint.constants),
        batched=tuple(joint.batched),
        has_numbers=(any(call.has_numbers[0] for call in calls), any(call.has_numbers[1] for call in calls)),
        are_numbers=all(call.result_layout.are_numbers and not call.has_batch for call in calls),
    )
    return (joined,)


class _Inputs:
    """The inputs of a joint call: those of its calls, each once."""

    def __init__(self) -> None:
        self.known: dict[Hashable, int] = {}
        self.constants: list[Tensor | None] = []
        self.views: list[View] = []
        self.sources: list[tuple[int, int]] = []
        self.places: list[int] = []
        self.batched: list[int] = []

    def add(self, position: int, call: NativeCall, texts: Sequence[str]) -> None:
        """Add the inputs of the call at a position."""
        views = {view.input: (i, view) for i, view in enumerate(call.views)}
        places = []
        for own, constant in enumerate(call.constants):
            if constant is not None:
                key: Hashable = _content(constant)
            else:
                i, view = views[own]
                key = (texts[i], *view[1:])
            if key not in self.known:
                place = self.known[key] = len(self.constants)
                self.constants.append(constant)
                if constant is None:
                    self.views.append(view._replace(input=place))
                    self.sources.append((position, i))
            places.append(self.known[key])
        self.places += places
        self.batched.append(places[call.batched] if call.batched >= 0 else -1)


def _content(constant: Tensor) -> Hashable:
    """What is equal for equal constants that are small, and for the same ones."""
    if constant.device.type != "cpu" or constant.numel() > _SMALL:
        return id(constant)
    return constant.dtype, tuple(constant.shape), constant.resolve_conj().numpy().tobytes()
