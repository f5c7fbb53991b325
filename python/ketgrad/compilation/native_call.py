"""`NativeCall`: the operator call by which a compiled plan runs its tapes of one structure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..autograd import derivative_rule
from ..execution.results import ResultLayout
from ..native import operators
from ..native.library import _C


class View(NamedTuple):
    """How a tensor of the plan becomes an input of a native call.

    Attributes:
        input: its position among the inputs of the program.
        shape: the shape that the tensor is reshaped to; None if it needs none.
        dtype: of the input.
        is_real: whether the tensor is real and the input complex.
    """

    input: int
    shape: tuple[int, ...] | None
    dtype: torch.dtype
    is_real: bool


class NativeCall(NamedTuple):
    """One operator call, for tapes of one structure.

    Attributes:
        program: keeps the program alive; `id` is its id.
        real: the dtype of its real numbers.
        views: one for each tensor that the plan's code passes to the call.
        constants: the inputs of the program, None for those that are views.
        batched: the position of an input with a batch axis, −1 if there is none.
        ket_bytes: of one final state.
        kets: what is kept of the final states for the backward pass.
        tapes: the positions of its tapes among those that the function returned.
        result_layout: of one tape.
        has_numbers: whether there are real results, and complex ones.
        has_batch: whether the tapes have a batch axis.
        rows: the number of circuits of each tape; None: equal for all tapes.

    What is called a batch here is the number of circuits of all its tapes; `JointCall` has the same methods.
    """

    program: _C.Program
    id: int
    device: torch.device
    real: torch.dtype
    views: tuple[View, ...]
    constants: tuple[Tensor | None, ...]
    batched: int
    ket_bytes: int
    kets: derivative_rule.KetPolicy
    tapes: tuple[int, ...]
    result_layout: ResultLayout
    has_numbers: tuple[bool, bool]
    has_batch: bool
    rows: tuple[int, ...] | None

    # --- inputs and results -------------------------------------------------------------------------------------------

    def batch_of(self, inputs: Sequence[Tensor]) -> int:
        """The number of circuits, given the inputs of the program."""
        return inputs[self.batched].shape[0] if self.batched >= 0 else 1

    def rows_of(self, batch: int) -> Sequence[int]:
        """The number of circuits of each tape."""
        return [batch // len(self.tapes)] * len(self.tapes) if self.rows is None else self.rows

    def split(self, real: Tensor, complex_: Tensor, batch: int) -> tuple[Tensor, ...]:
        """The results of its tapes, tape after tape; see `ResultLayout.split`."""
        return self.result_layout.split(real, complex_, self.rows_of(batch), self.has_batch)

    def split_views(self, real: Tensor, complex_: Tensor, batch: int) -> tuple[Tensor, ...]:
        """The same as differentiable views."""
        return self.result_layout.split_views(real, complex_, self.rows_of(batch), self.has_batch)

    def join(
        self, cotangents: Sequence[Tensor | None], batch: int, carrier: Tensor, empty: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The cotangents of its numbers; see `ResultLayout.join`."""
        return self.result_layout.join(cotangents, self.rows_of(batch), self.has_batch, carrier, empty)

    def real_shape(self, batch: int) -> tuple[int, ...]:
        """The shape of its real numbers."""
        return batch, self.result_layout.real_size

    # --- the operators ------------------------------------------------------------------------------------------------

    def forward(
        self, inputs: Sequence[Tensor], batch: int, is_differentiated: bool
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Real numbers (B, R), complex numbers (B, C), and kets for the way back."""
        size = batch * self.ket_bytes
        real, complex_, ket = derivative_rule.forward(self.id, inputs, size, self.kets, is_differentiated)
        return real, complex_, (ket,)

    def gradients(
        self,
        inputs: Sequence[Tensor],
        kets: Sequence[Tensor],
        batch: int,
        cotangents: Sequence[Tensor | None],
        empty: Tensor | None,
        needed: Sequence[bool],
    ) -> list[Tensor | None]:
        """The gradients of the needed inputs for cotangents of the results, None for the others; differentiable."""
        joined = self.join(cotangents, batch, inputs[0], empty)
        return derivative_rule.gradients(self.id, inputs, kets[0], joined, needed)

    def vjp(
        self,
        inputs: Sequence[Tensor],
        kets: Sequence[Tensor],
        cotangents: tuple[Tensor, Tensor],
        requested: Sequence[int],
    ) -> Sequence[Tensor]:
        """The gradients of the requested inputs for cotangents of the numbers."""
        return operators.run_execute_vjp(self.id, inputs, kets[0], *cotangents, requested)

    def forward_and_vjp(
        self,
        inputs: Sequence[Tensor],
        cotangents: tuple[Tensor, Tensor],
        curvature: float,
        requested: Sequence[int],
    ) -> tuple[Tensor, Sequence[Tensor]]:
        """Real numbers and what `vjp` returns; see `operators.run_execute_and_vjp`."""
        real, _, gradients = operators.run_execute_and_vjp(self.id, inputs, *cotangents, curvature, requested)
        return real, gradients


def pack_inputs(views: Sequence[View], constants: Sequence[Tensor | None], tensors: Sequence[Tensor]) -> list[Any]:
    """The inputs of a call: its constants, and tensors seen as its views say."""
    inputs: list[Any] = list(constants)
    for (position, shape, dtype, _), tensor in zip(views, tensors, strict=True):
        if tensor.dtype is not dtype:
            tensor = tensor.to(dtype)
        inputs[position] = tensor if shape is None else tensor.reshape(shape)
    return inputs
