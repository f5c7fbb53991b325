"""Inputs of a native call for parameters that differ between its tapes: they are stacked along the batch axis."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor

from .parameters import TracedParameter
from .program_inputs import ProgramInput, ProgramInputs


class VariedInputs:
    """Adds inputs for parameters that differ between the tapes."""

    def __init__(self, inputs: ProgramInputs) -> None:
        self.inputs = inputs
        self.writer = inputs.writer
        self.tapes = inputs.tapes
        self.parameters = inputs.parameters

    def place(self, indices: Sequence[int]) -> None:
        """Add inputs for some parameters, scalars first."""
        scalars = [i for i in indices if self.inputs.is_scalar(i)]
        constant = [i for i in scalars if all(isinstance(of_tape[i].value, float) for of_tape in self.parameters)]
        if constant and not self.inputs.has_batch:
            table = self.inputs.constant([[of_tape[i].value for i in constant] for of_tape in self.parameters])
            self.inputs.add_columns(constant, "varied numbers", ProgramInput(None, table, (len(constant),), True))
            scalars = [i for i in scalars if i not in constant]
        if scalars and not self._gather(scalars):
            rows = [self._row_text([of_tape[i] for i in scalars], t) for t, of_tape in enumerate(self.parameters)]
            text = self.writer.emit(f"torch.cat([{', '.join(rows)}])")
            self.inputs.add_columns(scalars, "varied", ProgramInput(text, None, (len(scalars),), True))
        for index in indices:
            if not self.inputs.is_scalar(index):
                self._place_whole(index)

    def _row_text(self, parameters: Sequence[TracedParameter], tape: int) -> str:
        """One tape's scalars, (B, k)."""
        texts = ", ".join([self.inputs.real_text(parameter) for parameter in parameters])
        if not any(parameter.is_batched for parameter in parameters):
            return f"torch.stack([{texts}]).expand({self.tapes[tape].batch_size or 1}, {len(parameters)})"
        return f"torch.stack(torch.broadcast_tensors({texts}), -1)"

    def _gather(self, indices: Sequence[int]) -> bool:
        """Gather scalars without a batch axis from their roots in one operation; False if not all can be."""
        table = [[of_tape[i].uses for i in indices] for of_tape in self.parameters]
        if self.inputs.has_batch or any(uses is None for row in table for uses in row):
            return False
        flat = [[uses[0] for uses in row if uses] for row in table]
        roots = list(dict.fromkeys(use.root for row in flat for use in row))
        values = self.writer.trace.values
        sizes = [values[root].tensor.numel() for root in roots]
        first = dict(zip(roots, np.cumsum([0, *sizes]).tolist(), strict=False))
        index = torch.tensor([[first[use.root] + use.column for use in row] for row in flat])
        # Scales and offsets go into the slots if they are equal for all tapes.
        factors = torch.tensor([[(use.scale, use.offset) for use in row] for row in flat], dtype=torch.float64)
        in_slots = bool((factors == factors[0]).all())
        for use in chain.from_iterable(flat):
            self.writer.text(use.root, (use.column,))
        text = self._gathered(roots, index, None if in_slots else factors)
        self.inputs.add("varied", ProgramInput(text, None, (len(indices),), True, view=(-1, len(indices))))
        for column, (i, use) in enumerate(zip(indices, flat[0], strict=True)):
            self.inputs.put(i, 0, "varied", column, (use.scale, use.offset) if in_slots else (1.0, 0.0))
        return True

    def _gathered(self, roots: Sequence[int], index: Tensor, factors: Tensor | None) -> str:
        """The expression of the elements of roots at flat indices (T, k), as (T k,), each × scale + offset."""
        emit, name = self.writer.emit, self.writer.name
        parts = [f"{self.writer.text(root, ())}.reshape(-1)" for root in roots]
        flat = parts[0] if len(parts) == 1 else f"torch.cat([{', '.join(parts)}])"
        sizes = sum(self.writer.trace.values[root].tensor.numel() for root in roots)
        whole = index.numel() == sizes and torch.equal(index.reshape(-1), torch.arange(sizes))
        if whole and len(roots) == 1 and factors is None:
            return self.writer.text(roots[0], ())
        text = flat if whole else f"{flat}.index_select(0, {name(index.reshape(-1).to(self.inputs.device))})"
        if factors is not None:
            scale, offset = [f.reshape(-1).to(self.inputs.device, self.inputs.real) for f in factors.unbind(-1)]
            text = f"{text} * {name(scale)} + {name(offset)}"
        return emit(text)

    def _place_whole(self, index: int) -> None:
        """Add an input for a vector of coefficients or a dense parameter."""
        is_complex = self.inputs.is_complex_input(index)
        is_batched = self.parameters[0][index].is_batched
        shape = self.inputs.shape_of(index)
        texts = []
        for tape, of_tape in zip(self.tapes, self.parameters, strict=True):
            value = of_tape[index].value
            if isinstance(value, int):
                text = self.writer.text(value)
            else:
                text = self.writer.name(self.inputs.constant(value, is_complex))
            if not is_batched:
                text += f".expand({', '.join(map(str, (tape.batch_size or 1, *shape)))})"
            texts.append(text)
        joined = self.writer.emit(f"torch.cat([{', '.join(texts)}])")
        is_real = is_complex and not any(self.inputs.is_complex(of_tape[index]) for of_tape in self.parameters)
        given = ProgramInput(joined, None, shape, True, is_complex, is_real=is_real)
        self.inputs.add_whole(index, ("varied", index), given)
