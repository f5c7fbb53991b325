"""Classification of a tape's parameters in a trace: constants, elements of tensors that slots read, computed values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...circuit.tape import Tape
from ...circuit.types import Array, ParameterLayout
from ...execution.programs import SCALAR_KINDS, VECTOR_KIND, describe_parameters
from ..plan import are_same
from ..tracing.trace import Node, Ref, Trace
from .vectorise import Use

_BATCHED = frozenset([layout.value for layout in ParameterLayout if layout.is_batched])
"""The letters of layouts with a batch axis."""


class TracedParameter(NamedTuple):
    """A parameter of a tape in the traced run.

    Attributes:
        kind: see `Operation.parameter_kinds`.
        is_batched: whether it has a batch axis.
        value: the number of its value in the trace; for a constant its value, a float, array or tensor.
        uses: of a scalar or a vector of coefficients, one per column, if slots can read it; otherwise None.
    """

    kind: str
    is_batched: bool
    value: int | float | Array | Tensor
    uses: tuple[Use, ...] | None

    @property
    def is_constant(self) -> bool:
        """Whether it is the same in every call."""
        return type(self.value) is not int

    def same(self, other: TracedParameter) -> bool:
        """Whether it is equal to another tape's parameter in every call."""
        if self.uses is not None or other.uses is not None:
            return self.uses == other.uses
        return are_same(self.value, other.value)


class ParameterReader:
    """Finds the parameters of tapes in a trace.

    Args:
        trace: of the function that returned the tapes.
        number: a tensor → its number in the trace.
    """

    def __init__(self, trace: Trace, number: Callable[[Tensor], int]) -> None:
        self.trace = trace
        self.number = number

    def parameters(self, tape: Tape) -> list[TracedParameter]:
        """The parameters of a tape, in order."""
        kinds, layouts = describe_parameters(tape)
        trainable = frozenset(tape.trainable_params)
        found = []
        for index, (kind, letter, value) in enumerate(zip(kinds, layouts, tape.parameters, strict=True)):
            is_batched = letter in _BATCHED
            if isinstance(value, Tensor):
                found.append(self.parameter(kind, is_batched, value, index in trainable))
            else:
                found.append(TracedParameter(kind, is_batched, value, None))
        return found

    def parameter(self, kind: str, is_batched: bool, tensor: Tensor, is_trainable: bool) -> TracedParameter:
        """A parameter that is a tensor."""
        number = self.number(tensor)
        value = self.trace.values[number]
        if value.is_constant and not self.trace.mutates:
            plain = tensor.detach().clone()
            is_number = kind in SCALAR_KINDS and not is_batched
            return TracedParameter(kind, is_batched, float(plain) if is_number else plain, None)
        if tensor.requires_grad and not is_trainable:  # excluded by the tape's trainable_params
            detached = self.trace.add(tensor.detach())
            self.trace.nodes.append(Node(Tensor.detach, (Ref(number),), {}, [number], [(detached.number, ())], True))
            number = detached.number
        is_real = kind in SCALAR_KINDS or kind == VECTOR_KIND
        return TracedParameter(kind, is_batched, number, self.uses(number, is_batched) if is_real else None)

    def uses(self, number: int, is_batched: bool) -> tuple[Use, ...] | None:
        """How slots read a scalar or a vector, with or without a batch axis; None if they cannot."""
        root, index, scale, offset = self.trace.affine(number)
        tensor = self.trace.values[root].tensor
        if not is_batched:
            return tuple([Use(root, False, column, scale, offset) for column in index.reshape(-1).tolist()])
        batch = index.shape[0]
        if not batch or not tensor.dim() or tensor.shape[0] != batch:
            return None
        row = tensor.numel() // batch
        rows = index.reshape(batch, -1)
        columns = rows[0].tolist()
        if max(columns, default=0) >= row or not self._are_alike(rows, root, row):
            return None
        return tuple([Use(root, True, column, scale, offset) for column in columns])

    def _are_alike(self, rows: Tensor, root: int, row: int) -> bool:
        """Whether each row of places is the one before it, one row of the root further."""
        if self.trace.is_view_of_places(rows, root):  # a view's places are its strides: no need to read them
            return len(rows) == 1 or rows.stride(0) == row
        return torch.equal(rows, rows[0] + row * torch.arange(len(rows))[:, None])

    def batched_arguments(self, tapes: Sequence[Tape], parameters: Sequence[list[TracedParameter]]) -> tuple[int, ...]:
        """The arguments on which batched parameters depend and whose first axis has the length of the batch."""
        sizes = {tape.batch_size for tape in tapes}
        if len(sizes) != 1 or sizes == {None}:
            return ()
        batched = [p.value for of_tape in parameters for p in of_tape if p.is_batched and not p.is_constant]
        reached = self.reached({number for number in batched if isinstance(number, int)})
        (size,) = sizes
        found = []
        for position, number in enumerate(self.trace.arguments):
            shape = self.trace.values[number].tensor.shape
            if number in reached and len(shape) and shape[0] == size:
                found.append(position)
        return tuple(found)

    def reached(self, numbers: set[int]) -> set[int]:
        """Some values and all values on which they depend."""
        found = set(numbers)
        for node in reversed(self.trace.nodes):
            if any(number in found for number, _ in node.outputs):
                found.update(node.inputs)
        return found
