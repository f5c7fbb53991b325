"""The trace of a function: the tensors that it met, the torch calls that it made, and what it read of tensors.

`recorder` writes it, `lowering` turns it into a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...native.torch_private import version_of
from .captures import Location


class Affine(NamedTuple):
    """A tensor whose elements are scale × an element of its root + offset.

    Attributes:
        root: the number of the value that it comes from.
        places: in the tensor's shape, the flat index of each element in the root (int64).
    """

    root: int
    places: Tensor
    scale: float
    offset: float


@dataclass(slots=True)
class Value:
    """A tensor of a trace.

    Attributes:
        number: its name in the trace.
        tensor: as it was while tracing.
        affine: where its elements come from; None: it is a root itself.
        is_constant: the same in every call: it depends on no argument, no captured tensor and no random numbers.
        version, grad_fn: the tensor's own when it was recorded.
    """

    number: int
    tensor: Tensor
    affine: Affine | None
    is_constant: bool
    version: int
    grad_fn: Any


class Ref(NamedTuple):
    """A tensor among a node's arguments."""

    number: int


@dataclass(slots=True)
class Node:
    """A torch call. Each output is a value's number and the indices that lead to it in the call's result."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[tuple[int, tuple[int, ...]]]
    has_grad: bool

    def inputs(self) -> Iterator[int]:
        """The values that it reads."""
        return refs((self.args, self.kwargs))


@dataclass(slots=True)
class Captured:
    """A captured tensor: it comes from outside the function, and is read anew from its places before each call.

    Attributes:
        guard: `guard_of` the tensor while tracing; another tensor is accepted if it has the same.
    """

    number: int
    location: Location
    guard: tuple[Any, ...]


@dataclass(slots=True)
class Trace:
    """One run of a function.

    Attributes:
        arguments: the values of its tensor arguments.
        captured: the tensors that it reads from outside.
        mutates: some node changes a tensor in place.
        log: what the function read of tensors (shapes, dtypes), in order.
        largest: the largest integer among the arguments of its torch calls.
    """

    values: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    arguments: list[int] = field(default_factory=list)
    captured: list[Captured] = field(default_factory=list)
    mutates: bool = False
    log: list[Any] = field(default_factory=list)
    largest: int = 0
    _numbers: dict[int, int] = field(default_factory=dict)
    _indices: dict[int, Tensor] = field(default_factory=dict)

    def number_of(self, tensor: Tensor) -> int | None:
        """The number of a tensor that is known."""
        return self._numbers.get(id(tensor))

    def add(self, tensor: Tensor, affine: Affine | None = None, is_constant: bool = False) -> Value:
        """A new value."""
        value = Value(len(self.values), tensor, affine, is_constant, version(tensor), tensor.grad_fn)
        self.values.append(value)
        self._numbers[id(tensor)] = value.number
        return value

    def affine(self, number: int) -> Affine:
        """Where the elements of a value come from; those of a root from itself."""
        value = self.values[number]
        if value.affine is not None and not self.mutates:
            return value.affine
        index = self._indices.get(number)
        if index is None:
            index = self._indices[number] = torch.arange(value.tensor.numel()).view(value.tensor.shape)
        return Affine(number, index, 1.0, 0.0)


def guard_of(tensor: Tensor) -> tuple[Any, ...]:
    """The guard of a tensor, in Dynamo's sense: all of it that a trace depends on."""
    return tensor.shape, tensor.dtype, tensor.requires_grad, tensor.device, tensor.layout


def version(tensor: Tensor) -> int:
    """How often a tensor was changed in place; -1 of an inference tensor, which has no such count."""
    return -1 if tensor.is_inference() else version_of(tensor)


def refs(item: Any) -> Iterator[int]:
    """The numbers of all tensors among a node's arguments."""
    if isinstance(item, Ref):
        yield item.number
    elif isinstance(item, (tuple, list)):
        for part in item:
            yield from refs(part)
    elif isinstance(item, dict):
        yield from refs(list(item.values()))
    elif isinstance(item, slice):
        yield from refs((item.start, item.stop, item.step))


def name_of(function: Any) -> str:
    """The name of what a torch function mode is given to call; of a property's getter, the property's."""
    name: str = getattr(function, "__name__", "")
    if name == "__get__":
        return str(function.__self__.__name__)
    return f"assignment to {function.__self__.__name__}" if name == "__set__" else name


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())
