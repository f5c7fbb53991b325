"""Inputs of a native call for parameters that its tapes share, or for all parameters if it has one tape."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from .program_inputs import ProgramInput, ProgramInputs
from .vectorise import Use, Vectoriser


class SharedInputs:
    """Adds inputs for shared parameters.

    Args:
        inputs: the inputs that they are added to.
        vectoriser: of the trace.
        outside: the values that are arguments or captured tensors.
    """

    def __init__(self, inputs: ProgramInputs, vectoriser: Vectoriser, outside: AbstractSet[int]) -> None:
        self.inputs = inputs
        self.writer = inputs.writer
        self.parameters = inputs.parameters[0]
        self.vectoriser = vectoriser
        self.outside = outside

    def place(self, indices: Sequence[int]) -> None:
        """Add inputs for some parameters, scalars first."""
        self._place_scalars([i for i in indices if self.inputs.is_scalar(i)])
        for index in indices:
            if not self.inputs.is_scalar(index):
                self._place_whole(index)

    def _place_scalars(self, indices: Sequence[int]) -> None:
        columns: dict[int, set[int]] = {}
        for index in indices:
            for use in self.parameters[index].uses or ():
                columns.setdefault(use.root, set()).add(use.column)
        computed: dict[bool, list[int]] = {False: [], True: []}
        for index in indices:
            parameter = self.parameters[index]
            if parameter.is_constant:
                self._place_constant(index)
            elif parameter.uses is not None and self._is_read_directly(parameter.uses[0].root, columns):
                self._place_use(index, 0, parameter.uses[0])
            else:
                computed[parameter.is_batched].append(index)
        for is_batched, together in computed.items():
            rest = self._place_alike(together, is_batched)
            if rest:
                self._place_stacked(rest, is_batched)

    def _is_read_directly(self, root: int, columns: dict[int, set[int]]) -> bool:
        """Whether slots read a root itself: an argument, a captured tensor, or one of which several elements are read.

        Other scalars are stacked to one input.
        """
        return root in self.outside or len(columns[root]) > 1

    def _place_constant(self, index: int) -> None:
        value = self.parameters[index].value
        if isinstance(value, float):
            self.inputs.add_number(index, value)
        else:  # a batch
            column = self.inputs.constant(value).reshape(-1, 1)
            self.inputs.add_columns([index], ("constant", index), ProgramInput(None, column, (1,), True))

    def _place_use(self, index: int, column: int, use: Use) -> None:
        key = ("root", use.root, use.is_batched)
        if not self.inputs.has(key):
            self.inputs.add(key, self._root_input(use.root, use.is_batched))
        self.writer.text(use.root, (use.column,))
        self.inputs.put(index, column, key, use.column, (use.scale, use.offset))

    def _root_input(self, root: int, is_batched: bool) -> ProgramInput:
        tensor = self.writer.trace.values[root].tensor
        axes, text = tensor.dim(), self.writer.text(root, ())
        if not is_batched:
            return ProgramInput(text, None, (tensor.numel(),), False, view=None if axes == 1 else (-1,))
        row = tensor.numel() // tensor.shape[0]
        return ProgramInput(text, None, (row,), True, view=None if axes == 2 else (-1, row))

    def _place_alike(self, indices: Sequence[int], is_batched: bool) -> list[int]:
        """Vectorise scalars that are computed alike; returns the others."""
        batch = self.inputs.tapes[0].batch_size if is_batched else None
        numbers = [int(self.parameters[i].value) for i in indices]
        left = dict.fromkeys(indices)
        for group in self.vectoriser.groups(numbers, batch):
            text, columns = self.vectoriser.write([numbers[i] for i in group], batch)
            key = ("alike", text)
            self.inputs.add(key, ProgramInput(text, None, (max(columns) + 1,), is_batched))
            for i, column in zip(group, columns, strict=True):
                self.inputs.put(indices[i], 0, key, column)
                del left[indices[i]]
        return list(left)

    def _place_stacked(self, indices: Sequence[int], is_batched: bool) -> None:
        """Stack scalars that are separate tensors."""
        different = {parameter.value: parameter for parameter in [self.parameters[i] for i in indices]}
        texts = [self.inputs.real_text(parameter) for parameter in different.values()]
        if len(texts) == 1:
            text, view = texts[0], (-1, 1) if is_batched else (-1,)
        else:
            text, view = self.writer.emit(f"torch.stack([{', '.join(texts)}], -1)"), None
        key = ("stacked", is_batched)
        self.inputs.add(key, ProgramInput(text, None, (len(texts),), is_batched, view=view))
        column = {value: position for position, value in enumerate(different)}
        for index in indices:
            self.inputs.put(index, 0, key, column[self.parameters[index].value])

    def _place_whole(self, index: int) -> None:
        """Add an input for a vector of coefficients or a dense parameter."""
        parameter = self.parameters[index]
        is_complex = self.inputs.is_complex_input(index)
        if parameter.uses is not None:
            for column, use in enumerate(parameter.uses):
                self._place_use(index, column, use)
            return
        text, constant = None, None
        if parameter.is_constant:
            constant = self.inputs.constant(parameter.value, is_complex)
        else:
            text = self.writer.text(parameter.value)
        key = ("whole", index) if parameter.is_constant else ("whole", parameter.value, parameter.is_batched)
        is_real = is_complex and not self.inputs.is_complex(parameter)
        shape = self.inputs.shape_of(index)
        given = ProgramInput(text, constant, shape, parameter.is_batched, is_complex, is_real=is_real)
        self.inputs.add_whole(index, key, given)
