"""The inputs of a native call under construction, and the position of each parameter of its tapes in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...circuit.tape import Tape
from ...execution.programs import REAL_DIAGONAL_KIND, SCALAR_KINDS, VECTOR_KIND, Place, Slot
from ..native_call import View
from .code_writer import CodeWriter
from .parameters import TracedParameter


class ProgramInput(NamedTuple):
    """One input.

    Attributes:
        text: the expression of its tensor in the plan's code; None for a constant.
        constant: the tensor of a constant; None otherwise.
        shape: without the batch axis.
        view: the shape that the tensor is reshaped to; None if it needs none.
        is_real: whether the input is complex and its tensor real.
    """

    text: str | None
    constant: Tensor | None
    shape: tuple[int, ...]
    is_batched: bool
    is_complex: bool = False
    view: tuple[int, ...] | None = None
    is_real: bool = False


class ProgramInputs:
    """The inputs of a call, by key. Real inputs come first, because input 0 determines the precision.

    Args:
        writer: of the plan's code.
        members: the tapes of the call, with their parameters.
        real: the real dtype of the call.
        device: the device of the call.
    """

    def __init__(
        self,
        writer: CodeWriter,
        members: Sequence[tuple[Tape, list[TracedParameter]]],
        real: torch.dtype,
        device: torch.device,
    ) -> None:
        self.writer = writer
        self.tapes = [tape for tape, _ in members]
        self.parameters = [found for _, found in members]
        self.real = real
        self.device = device
        self.has_batch = self.tapes[0].batch_size is not None
        self._reals: dict[Any, ProgramInput] = {}
        self._denses: dict[Any, ProgramInput] = {}
        self._numbers: list[float] = []
        self._slots: dict[tuple[int, int], tuple[Any, int, float, float]] = {}
        self._sources: dict[int, Any] = {}

    # Queries.

    def all(self) -> dict[Any, ProgramInput]:
        """The inputs, in order."""
        return {**self._reals, **self._denses}

    def places(self) -> list[Place]:
        """The argument `places` of `write_program`: where each parameter is read from."""
        position = {key: i for i, key in enumerate(self.all())}

        def slot(parameter: int, column: int) -> Slot:
            key, at, scale, offset = self._slots[parameter, column]
            return position[key], at, scale, offset

        def place(parameter: int) -> Place:
            if self.is_dense(parameter):
                return position[self._sources[parameter]], 0
            if self.is_scalar(parameter):
                return slot(parameter, 0)
            return [slot(parameter, column) for column in range(self.shape_of(parameter)[0])]

        return [place(parameter) for parameter in range(len(self.parameters[0]))]

    def views(self) -> tuple[tuple[View, ...], list[str]]:
        """The views of the inputs that are no constants, and the expressions of their tensors."""
        computed = [(i, each) for i, each in enumerate(self.all().values()) if each.text is not None]
        views = tuple([View(i, each.view, self.dtype_of(each), each.is_real) for i, each in computed])
        return views, [str(each.text) for _, each in computed]

    def dtype_of(self, given: ProgramInput) -> torch.dtype:
        """The dtype of an input."""
        return self.real.to_complex() if given.is_complex else self.real

    # Parameters of the tapes.

    def is_scalar(self, index: int) -> bool:
        """Whether a parameter is a scalar."""
        return self.parameters[0][index].kind in SCALAR_KINDS

    def is_dense(self, index: int) -> bool:
        """Whether a parameter is a matrix, a diagonal, a state or the values of a sparse matrix."""
        return self.parameters[0][index].kind not in (*SCALAR_KINDS, VECTOR_KIND)

    def is_complex_input(self, index: int) -> bool:
        """Whether the input of a parameter is complex: that of a dense one, unless it is a real diagonal."""
        return self.is_dense(index) and self.parameters[0][index].kind != REAL_DIAGONAL_KIND

    def is_complex(self, parameter: TracedParameter) -> bool:
        """Whether a parameter is computed, and complex."""
        value = parameter.value
        return isinstance(value, int) and self.writer.trace.values[value].tensor.is_complex()

    def shape_of(self, index: int) -> tuple[int, ...]:
        """The shape of a parameter without the batch axis."""
        shape = tuple(np.shape(self.tapes[0].parameters[index]))
        return shape[1:] if self.parameters[0][index].is_batched else shape

    def constant(self, value: Any, is_complex: bool = False) -> Tensor:
        """A constant in the call's precision, on its device."""
        dtype = self.real.to_complex() if is_complex else self.real
        given = value if isinstance(value, Tensor) else np.asarray(value)
        return torch.as_tensor(given, dtype=dtype, device=self.device).contiguous()

    def real_text(self, parameter: TracedParameter) -> str:
        """A parameter's expression, in the call's precision."""
        value = parameter.value
        if not isinstance(value, int):
            return self.writer.name(self.constant(value))
        text = self.writer.text(value)
        if self.writer.trace.values[value].tensor.dtype is self.real:
            return text
        return f"{text}.to({self.writer.name(self.real)})"

    # Adding inputs.

    def add(self, key: Any, given: ProgramInput) -> None:
        """Add a real input."""
        self._reals[key] = given

    def has(self, key: Any) -> bool:
        """Whether there is a real input under a key."""
        return key in self._reals

    def put(self, parameter: int, column: int, key: Any, at: int, factors: tuple[float, float] = (1.0, 0.0)) -> None:
        """Set a column of a parameter to scale × column `at` of an input + offset; `factors` are (scale, offset)."""
        self._slots[parameter, column] = (key, at, *factors)

    def add_columns(self, indices: Sequence[int], key: Any, given: ProgramInput) -> None:
        """Add an input whose columns are scalars."""
        self.add(key, given)
        for column, index in enumerate(indices):
            self.put(index, 0, key, column)

    def add_whole(self, index: int, key: Any, given: ProgramInput) -> None:
        """Add an input that is one parameter: a vector of coefficients, or a dense one (see `is_dense`)."""
        if self.is_dense(index):
            (self._denses if given.is_complex else self._reals)[key] = given
            self._sources[index] = key
        else:
            self.add(key, given)
            for column in range(given.shape[0]):
                self.put(index, column, key, column)

    def add_number(self, index: int, value: float) -> None:
        """Add a constant scalar to the input of numbers, which `close` makes."""
        self.put(index, 0, "numbers", len(self._numbers))
        self._numbers.append(value)

    def close(self, batch: int | None) -> None:
        """Add the input of numbers.

        Args:
            batch: the length of its batch axis; None: it has none.
        """
        if self._numbers or batch is not None or not self._reals:
            values = torch.tensor(self._numbers, dtype=self.real, device=self.device)
            shaped = values if batch is None else values.expand(batch, -1).contiguous()
            self.add("numbers", ProgramInput(None, shaped, (len(self._numbers),), batch is not None))
