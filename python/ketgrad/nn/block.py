"""`Block`: the base class of ready-made blocks of gates."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from ..circuit.drawing import draw
from ..circuit.operations import RX, RY, RZ, Operation
from ..circuit.parsing import Immutable, _set, parse_wires, restore
from ..circuit.tape import Tape
from ..circuit.types import Wire

ROTATIONS: dict[str, type[RX | RY | RZ]] = {"X": RX, "Y": RY, "Z": RZ}


class Block(Immutable):
    """Gates on some wires with angles from features, weights or both. Immutable and without tensors.

    A call of a block returns a list of operations: `block(inputs)`, `block(weights)` or `block(inputs, weights)`, with
    features `(num_features,)` or a batch of them `(B, num_features)`, and weights of the shape in `weight_shapes`,
    which may have a leading batch axis too.

    Attributes:
        wires: the wires, in order. Blocks take a number n, for the wires 0…n−1, or a sequence of labels.
        num_features: the number of features; 0 if the block takes no inputs.

    Raises:
        TypeError: in a call, inputs or weights are no tensor.
        ValueError: in a call, they have another shape.
    """

    wires: tuple[Wire, ...]
    num_features: int
    _shape: tuple[int, ...] | None

    def __init__(self, wires: int | Sequence[Wire], num_features: int, shape: tuple[int, ...] | None) -> None:
        _set(self, "wires", wires)
        _set(self, "num_features", num_features)
        _set(self, "_shape", shape)

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of the weights by the name "weights"; empty if the block has no weights."""
        return {} if self._shape is None else {"weights": self._shape}

    @property
    def num_parameters(self) -> int:
        """The number of elements of the weights."""
        return 0 if self._shape is None else prod(self._shape)

    def __call__(self, *args: Any, **kwargs: Any) -> list[Operation]:
        """The operations, given inputs, weights, or both."""
        raise NotImplementedError

    def draw(self, width: int = 100) -> str:
        """The gates as text, without angles.

        Args:
            width: the most characters of a line; longer circuits continue in a new block.
        """
        inputs = [torch.empty(self.num_features, device="meta")] if self.num_features else []
        weights = [torch.empty(shape, device="meta") for shape in self.weight_shapes.values()]
        operations = tuple(self(*inputs, *weights))
        return draw(restore(Tape, {"operations": operations, "measurements": (), "wires": self.wires}), None, width)

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={_shown(value)}" for name, value in vars(self).items() if name[0] != "_")
        return f"{type(self).__name__}({options})"

    def _features(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The features as separate tensors, `()` or `(B,)` each."""
        self._require_features(inputs)
        return inputs.unbind(-1)

    def _require_features(self, inputs: Tensor) -> None:
        count = self.num_features
        self._require_tensor(inputs, "inputs")
        if len(inputs.shape) not in (1, 2) or inputs.shape[-1] != count:
            shapes = f"({count},) or (B, {count})"
            raise ValueError(f"{self._name}: inputs must have shape {shapes}, not {tuple(inputs.shape)}")

    def _require_weights(self, weights: Tensor) -> None:
        shape = self._shape or ()
        self._require_tensor(weights, "weights")
        axes = len(weights.shape) - len(shape)
        if axes not in (0, 1) or tuple(weights.shape[axes:]) != shape:
            raise ValueError(f"{self._name}: weights must have shape {shape}, not {tuple(weights.shape)}")

    def _require_tensor(self, given: Any, what: str) -> None:
        if not isinstance(given, Tensor):
            raise TypeError(f"{self._name}: {what} must be a tensor, not {type(given).__name__}")

    @property
    def _name(self) -> str:
        return f"{type(self).__name__} on {len(self.wires)} wire{'' if len(self.wires) == 1 else 's'}"


def _shown(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else repr(value)


_MOST_WIRES = 1000


def wires_of(wires: int | Sequence[Wire], name: str) -> tuple[Wire, ...]:
    """The wires of a block: 0…n−1 for a number n.

    Raises:
        TypeError: an item is no valid label of a wire.
        ValueError: there are no wires, more than 1000, or one is repeated.
    """
    is_number = isinstance(wires, int) and not isinstance(wires, bool)
    if is_number and wires > _MOST_WIRES:  # type: ignore[operator]
        raise ValueError(f"{name}: {wires} wires are more than any state has; a list of labels names the wires")
    found = tuple(range(wires)) if is_number else parse_wires(wires, name)  # type: ignore[arg-type]
    if not found:
        raise ValueError(f"{name} needs at least one wire, not wires={wires!r}")
    return found


def positive(number: Any, name: str) -> int:
    """The number, if it is a positive integer.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(f"{name} must be a positive integer, not {number!r}")
    return int(number)


def rotation_of(axis: str, name: str) -> type[RX | RY | RZ]:
    """The rotation about an axis.

    Raises:
        ValueError: the axis is not "X", "Y" or "Z".
    """
    if axis not in ("X", "Y", "Z"):
        raise ValueError(f'{name} must be "X", "Y" or "Z", not {axis!r}')
    return ROTATIONS[axis]


def ring(wires: Sequence[Wire], distance: int = 1) -> list[tuple[Wire, Wire]]:
    """The pairs (wire i, wire i + distance modulo n)."""
    count = len(wires)
    return [(wires[i], wires[(i + distance) % count]) for i in range(count)]


def neighbours(wires: Sequence[Wire]) -> list[tuple[Wire, Wire]]:
    """The pairs of neighbours on the ring of all wires; one pair for two wires, none for one."""
    return ring(wires)[: len(wires) if len(wires) > 2 else len(wires) - 1]
