"""Vectorisation of the arithmetic on scalars of a trace.

A circuit that reads `w[l, q] * x[:, q]` in each gate makes hundreds of small torch calls, each with its own backward.
Scalars that are computed alike, by the same elementwise functions of elements of the same tensors, become columns of
one tensor: their elements are gathered, and the functions are called once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..tracing.trace import Node, Ref, Trace, name_of, names
from .code_writer import CodeWriter

_ELEMENTWISE = names(
    """
    __add__ __mul__ __neg__ __pow__ __radd__ __rdiv__ __rmul__ __rpow__ __rsub__ __rtruediv__ __sub__ __truediv__ abs
    acos add arccos arcsin arctan arctan2 asin atan atan2 clamp cos cosh div divide erf exp log maximum minimum mul
    multiply neg negative pow reciprocal relu rsqrt rsub sigmoid sin sinh sqrt square sub subtract tan tanh true_divide
    """
)
_CONSTANTS = (int, float, bool, str, type(None))

_MOST_FUNCTIONS = 16
"""Functions in the arithmetic of one scalar; with more, common subexpressions would be computed too often."""


class Use(NamedTuple):
    """A scalar that is scale × an element of a value + offset: element `column` of all, or of each row of a batch."""

    root: int
    is_batched: bool
    column: int
    scale: float
    offset: float


class _Elementwise(NamedTuple):
    """A scalar that is an elementwise function of scalars and constants; `size` counts the functions."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    kwargs: tuple[tuple[str, Any], ...]
    size: int


class _Computed(NamedTuple):
    """A scalar that is computed in any other way."""

    number: int
    is_batched: bool


_ScalarForm = Use | _Elementwise | _Computed


class Vectoriser:
    """Finds scalars of a trace that are computed alike and writes their common arithmetic."""

    def __init__(self, trace: Trace, uses: Callable[[int, bool], Sequence[Use] | None], writer: CodeWriter) -> None:
        self.trace = trace
        self.uses = uses
        self.writer = writer
        self.known: dict[int | None, dict[int, _ScalarForm]] = {}

    def groups(self, numbers: Sequence[int], batch: int | None) -> list[list[int]]:
        """The positions of scalars that are computed alike, in groups with at least two different scalars."""
        found: dict[Hashable, dict[_ScalarForm, list[int]]] = {}
        for position, number in enumerate(numbers):
            scalar = self.scalar(number, batch)
            if isinstance(scalar, _Elementwise):
                found.setdefault(_kind(scalar), {}).setdefault(scalar, []).append(position)
        groups = [same for same in found.values() if len(same) > 1]
        return [[position for positions in same.values() for position in positions] for same in groups]

    def write(self, numbers: Sequence[int], batch: int | None) -> tuple[str, list[int]]:
        """The expression of scalars that are computed alike as columns (k,) or (B, k), and the column of each."""
        scalars = [self.scalar(number, batch) for number in numbers]
        column = {scalar: i for i, scalar in enumerate(dict.fromkeys(scalars))}
        text = self.writer.emit(self._joint(list(column)))
        return text, [column[scalar] for scalar in scalars]

    def scalar(self, number: int, batch: int | None) -> _ScalarForm:
        """How a scalar () or a batch (B,) of the trace is computed."""
        if batch not in self.known:
            known = self.known[batch] = {}
            for node in self.trace.nodes:  # in order, so that the inputs of each node are known
                if len(node.outputs) == 1 and not node.outputs[0][1]:
                    known[node.outputs[0][0]] = self._scalar(node.outputs[0][0], batch, node)
        found = self.known[batch].get(number)
        return self._scalar(number, batch, None) if found is None else found

    def _scalar(self, number: int, batch: int | None, node: Node | None) -> _ScalarForm:
        tensor = self.trace.values[number].tensor
        is_batched = tensor.dim() == 1
        other = _Computed(number, is_batched)
        if self.trace.mutates or tensor.dim() > 1 or (is_batched and tensor.shape[0] != batch):
            return other
        affine = self.trace.values[number].affine
        is_elementwise = affine is not None and isinstance(self.known[batch].get(affine.root), _Elementwise)
        if node is None or (affine is not None and not is_elementwise):
            uses = self.uses(number, is_batched)
            return uses[0] if uses is not None and len(uses) == 1 else other
        if name_of(node.function) not in _ELEMENTWISE or not node.has_grad:
            return other
        arguments = [self._argument(argument, batch) for argument in node.args]
        kwargs = tuple(sorted(node.kwargs.items()))
        size = 1 + sum(argument.size for argument in arguments if isinstance(argument, _Elementwise))
        constant = all(isinstance(value, _CONSTANTS) for _, value in kwargs)
        if size > _MOST_FUNCTIONS or not constant or any(argument is _UNKNOWN for argument in arguments):
            return other
        return _Elementwise(node.function, tuple(arguments), kwargs, size)

    def _argument(self, argument: Any, batch: int | None) -> Any:
        if isinstance(argument, Ref):
            tensor = self.trace.values[argument.number].tensor
            fits = tensor.dim() == 0 or (tensor.dim() == 1 and tensor.shape[0] == batch)
            return self.scalar(argument.number, batch) if fits else _UNKNOWN
        return _Constant(argument) if isinstance(argument, _CONSTANTS) else _UNKNOWN

    def _joint(self, scalars: Sequence[Any]) -> str:
        """The expression of scalars of one kind."""
        first = scalars[0]
        if isinstance(first, _Constant):
            return repr(first.value)
        if isinstance(first, Use):
            return self._gathered(scalars)
        if isinstance(first, _Computed):
            return self._stacked(scalars)
        arguments = [self._joint([s.arguments[i] for s in scalars]) for i in range(len(first.arguments))]
        arguments += [f"{key}={value!r}" for key, value in first.kwargs]
        return f"{self.writer.name(first.function)}({', '.join(arguments)})"

    def _gathered(self, uses: Sequence[Use]) -> str:
        root = self.trace.values[uses[0].root].tensor
        columns = [use.column for use in uses]
        text = self.writer.text(uses[0].root, columns)
        if uses[0].is_batched:
            width = root.numel() // root.shape[0]
            text += "" if root.dim() == 2 else f".reshape(-1, {width})"
            axis = 1
        else:
            width, axis = root.numel(), 0
            text += "" if root.dim() == 1 else ".reshape(-1)"
        return self._scaled(text + self._chosen(columns, width, axis, root.device), uses, root)

    def _chosen(self, columns: list[int], width: int, axis: int, device: torch.device) -> str:
        """The expression that selects columns of a tensor with `width` columns; a view of equal or consecutive ones."""
        first, count = columns[0], len(columns)
        if columns == list(range(first, first + count)):
            return "" if count == width else f".narrow({axis}, {first}, {count})"
        if set(columns) == {first}:
            one = "" if width == 1 else f".narrow({axis}, {first}, 1)"
            return f"{one}.expand({'-1, ' * axis}{count})"
        return f".index_select({axis}, {self.writer.name(torch.tensor(columns, device=device))})"

    def _scaled(self, text: str, uses: Sequence[Use], root: Tensor) -> str:
        scales, offsets = [use.scale for use in uses], [use.offset for use in uses]
        if set(scales) != {1.0}:
            text = f"({text} * {self._factors(scales, root)})"
        if set(offsets) != {0.0}:
            text = f"({text} + {self._factors(offsets, root)})"
        return text

    def _factors(self, values: Sequence[float], root: Tensor) -> str:
        if len(set(values)) == 1:
            return repr(values[0])
        return self.writer.name(torch.tensor(values, dtype=root.dtype, device=root.device))

    def _stacked(self, others: Sequence[_Computed]) -> str:
        texts = [self.writer.text(other.number) for other in others]
        if len(set(texts)) == 1:
            return f"{texts[0]}.unsqueeze(-1)"
        return f"torch.stack([{', '.join(texts)}], -1)"


class _Constant(NamedTuple):
    """A number among the arguments of a function."""

    value: Any


class _Unknown:
    """An argument that cannot be vectorised."""


_UNKNOWN = _Unknown()


def _kind(scalar: Any) -> Hashable:
    """A key that is equal for scalars that are computed alike."""
    if isinstance(scalar, _Elementwise):
        return scalar.function, tuple([_kind(a) for a in scalar.arguments]), scalar.kwargs
    if isinstance(scalar, Use):
        return scalar.root, scalar.is_batched
    if isinstance(scalar, _Computed):
        return "other", scalar.is_batched
    return "constant", type(scalar.value), scalar.value
