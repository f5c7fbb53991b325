"""The trace of a function: its tensors, its torch calls, and the properties of tensors that it read.

`recorder` writes it, `lowering` makes a plan of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        number: its position among the values of the trace.
        tensor: the tensor in the traced run.
        affine: the tensor as an affine value of another one; None: it is a root itself.
        is_constant: whether it is the same in every call: it depends on no argument, captured tensor or random number.
        version, grad_fn: those of the tensor when it was recorded.
    """

    number: int
    tensor: Tensor
    affine: Affine | None
    is_constant: bool
    version: int
    grad_fn: Any


class Ref(NamedTuple):
    """A tensor among a node's arguments, by its number."""

    number: int


@dataclass(slots=True)
class Node:
    """A torch call.

    Attributes:
        args, kwargs: with a `Ref` for each tensor.
        inputs: the numbers of these tensors, in order.
        outputs: each is the number of a value, and the indices that lead to it in the call's result.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: Sequence[int]
    outputs: list[tuple[int, tuple[int, ...]]]
    has_grad: bool


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
        mutates: whether a node changes a tensor in place.
        log: the properties of tensors (shapes, dtypes) that the function read, in order.
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
    _roots: dict[int, Affine] = field(default_factory=dict)

    def number_of(self, tensor: Tensor) -> int | None:
        """The number of a tensor, None if it is not in the trace."""
        return self._numbers.get(id(tensor))

    def add(self, tensor: Tensor, affine: Affine | None = None, is_constant: bool = False) -> Value:
        """Add a value for a tensor."""
        value = Value(len(self.values), tensor, affine, is_constant, version(tensor), tensor.grad_fn)
        self.values.append(value)
        self._numbers[id(tensor)] = value.number
        return value

    def affine(self, number: int) -> Affine:
        """A value as an affine value of its root; a root of itself."""
        value = self.values[number]
        if value.affine is not None and not self.mutates:
            return value.affine
        return self._root(number)

    def is_view_of_places(self, places: Tensor, root: int) -> bool:
        """Whether places in a root are a view of those of the whole root, in which each place is at its own offset."""
        return places.untyped_storage().data_ptr() == self._root(root).places.untyped_storage().data_ptr()

    def _root(self, number: int) -> Affine:
        root = self._roots.get(number)
        if root is None:
            tensor = self.values[number].tensor
            places = torch.arange(tensor.numel()).view(tensor.shape)
            root = self._roots[number] = Affine(number, places, 1.0, 0.0)
        return root


def guard_of(tensor: Tensor) -> tuple[Any, ...]:
    """The guard of a tensor: the properties that a trace depends on."""
    return tensor.shape, tensor.dtype, tensor.requires_grad, tensor.device, tensor.layout


def version(tensor: Tensor) -> int:
    """The version counter of a tensor, which changes in place increment; −1 for inference tensors, which have none."""
    return -1 if tensor.is_inference() else version_of(tensor)


def name_of(function: Any) -> str:
    """The name of a function that a torch function mode gets; for the getter of a property, the property's name."""
    name: str = getattr(function, "__name__", "")
    if name == "__get__":
        return str(function.__self__.__name__)
    return f"assignment to {function.__self__.__name__}" if name == "__set__" else name


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())
