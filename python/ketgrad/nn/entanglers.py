"""Entanglers: blocks of trainable rotations and two-wire gates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from ..circuit.operations import CNOT, Operation, Rot
from ..circuit.parsing import _set
from ..circuit.types import Wire
from .block import Block, neighbours, positive, ring, rotation_of, wires_of


class BasicEntangler(Block):
    """Layers of one rotation per wire and a ring of CNOTs, as PennyLane's `BasicEntanglerLayers`.

    On two wires a layer has one CNOT, on one wire none.

    Args:
        wires: a number n, for the wires 0…n−1, or a sequence of labels.
        layers: the number of layers L, by default 1; weights are `(L, n)`.
        rotation: the axis, "X" (the default), "Y" or "Z".

    Raises:
        ValueError: the axis is another, layers is below 1, or there are no wires.

    >>> import torch, ketgrad as kg
    >>> block = kg.nn.BasicEntangler(3, layers=2)
    >>> block.weight_shapes
    {'weights': (2, 3)}
    >>> len(block(torch.rand(2, 3)))
    12
    """

    layers: int
    rotation: str

    def __init__(self, wires: int | Sequence[Wire], layers: int = 1, rotation: str = "X") -> None:
        own_wires = wires_of(wires, "BasicEntangler")
        count = positive(layers, "BasicEntangler: layers")
        rotation_of(rotation, "BasicEntangler: rotation")
        super().__init__(own_wires, 0, (count, len(own_wires)))
        _set(self, "layers", count)
        _set(self, "rotation", rotation)

    def __call__(self, weights: Tensor) -> list[Operation]:
        """The operations for weights `(L, n)`."""
        self._require_weights(weights)
        gate = rotation_of(self.rotation, "rotation")
        entangling = [CNOT(wires=pair) for pair in neighbours(self.wires)]
        operations: list[Operation] = []
        for layer in weights.unbind(-2):
            operations += [gate(w, wires=wire) for w, wire in zip(layer.unbind(-1), self.wires, strict=True)]
            operations += entangling
        return operations


class StronglyEntangling(Block):
    """Layers of one `Rot` per wire and a ring of two-wire gates, as PennyLane's `StronglyEntanglingLayers`.

    Args:
        wires: a number n, for the wires 0…n−1, or a sequence of labels.
        layers: the number of layers L, by default 1; weights are `(L, n, 3)`.
        ranges: for each layer the distance r of its gates, on wires i and i + r modulo n; by default 1, 2, …, n−1,
            repeated.
        imprimitive: the two-wire gate, without parameters; by default `CNOT`. A single wire has none.

    Raises:
        TypeError: `imprimitive` is no two-wire gate without parameters.
        ValueError: a range is a multiple of n, there are not L ranges, layers is below 1, or there are no wires.

    >>> import torch, ketgrad as kg
    >>> block = kg.nn.StronglyEntangling(3, layers=2)
    >>> block.ranges, block.num_parameters
    ((1, 2), 18)
    >>> print(block.draw())
    0: ──Rot──╭●──────╭X──Rot──╭●──╭X──────
    1: ──Rot──╰X──╭●──│───Rot──│───╰●──╭X──
    2: ──Rot──────╰X──╰●──Rot──╰X──────╰●──
    """

    layers: int
    ranges: tuple[int, ...]
    imprimitive: type[Operation]

    def __init__(
        self,
        wires: int | Sequence[Wire],
        layers: int = 1,
        ranges: Sequence[int] | None = None,
        imprimitive: type[Operation] = CNOT,
    ) -> None:
        own_wires = wires_of(wires, "StronglyEntangling")
        count = positive(layers, "StronglyEntangling: layers")
        if not _is_fixed_pair(imprimitive):
            raise TypeError(
                f"StronglyEntangling: imprimitive must be a gate such as kg.CNOT or kg.CZ, not {imprimitive!r}"
            )
        super().__init__(own_wires, 0, (count, len(own_wires), 3))
        _set(self, "layers", count)
        _set(self, "ranges", _ranges(ranges, count, len(own_wires)))
        _set(self, "imprimitive", imprimitive)

    def __call__(self, weights: Tensor) -> list[Operation]:
        """The operations for weights `(L, n, 3)`."""
        self._require_weights(weights)
        gate: Callable[..., Operation] = self.imprimitive
        operations: list[Operation] = []
        for layer, distance in zip(weights.unbind(-3), self.ranges, strict=True):
            for w, wire in zip(layer.unbind(-2), self.wires, strict=True):
                phi, theta, omega = w.unbind(-1)
                operations.append(Rot(phi, theta, omega, wires=wire))
            pairs = ring(self.wires, distance) if distance else []
            operations += [gate(wires=pair) for pair in pairs]
        return operations


def _is_fixed_pair(gate: Any) -> bool:
    """Whether this is a gate on two wires without parameters."""
    return isinstance(gate, type) and issubclass(gate, Operation) and gate.num_wires == 2 and not gate.parameter_kinds


def _ranges(given: Any, layers: int, wires: int) -> tuple[int, ...]:
    if given is None:
        return tuple([layer % (wires - 1) + 1 if wires > 1 else 0 for layer in range(layers)])
    found = tuple(given)
    if len(found) != layers:
        raise ValueError(f"StronglyEntangling: {len(found)} ranges for {layers} layers")
    for distance in found:
        if not isinstance(distance, int) or distance % wires == 0:
            raise ValueError(
                f"StronglyEntangling: a range must be an integer that is no multiple of {wires}, not {distance!r}"
            )
    return found


class HardwareEfficient(Block):
    """Rotations of all wires and a chain of CNOTs, as Qiskit's `efficient_su2` with its defaults.

    Each layer has a rotation of every wire about each axis, then a CNOT on each pair of neighbours, the last pair
    first. After the last layer, the rotations are repeated.

    Args:
        wires: a number n, for the wires 0…n−1, or a sequence of labels.
        layers: the number of layers L, by default 1; weights are `(L + 1, len(rotations), n)`.
        rotations: the axes of the rotations in order, as letters X, Y, Z; by default "YZ".

    Raises:
        ValueError: there are no axes, an axis is another, layers is below 1, or there are no wires.

    >>> import torch, ketgrad as kg
    >>> print(kg.nn.HardwareEfficient(3).draw())
    0: ──RY──RZ──────╭●───RY──RZ──
    1: ──RY──RZ──╭●──╰X───RY──RZ──
    2: ──RY──RZ──╰X───RY──RZ──────
    """

    layers: int
    rotations: str

    def __init__(self, wires: int | Sequence[Wire], layers: int = 1, rotations: str = "YZ") -> None:
        own_wires = wires_of(wires, "HardwareEfficient")
        count = positive(layers, "HardwareEfficient: layers")
        if not rotations:
            raise ValueError("HardwareEfficient: rotations must have at least one axis")
        for axis in rotations:
            rotation_of(axis, "HardwareEfficient: an axis of the rotations")
        super().__init__(own_wires, 0, (count + 1, len(rotations), len(own_wires)))
        _set(self, "layers", count)
        _set(self, "rotations", rotations)

    def __call__(self, weights: Tensor) -> list[Operation]:
        """The operations for weights `(L + 1, len(rotations), n)`."""
        self._require_weights(weights)
        *layers, last = weights.unbind(-3)
        entangling = [CNOT(wires=pair) for pair in reversed(list(pairwise(self.wires)))]
        operations: list[Operation] = []
        for layer in layers:
            operations += [*self._rotated(layer), *entangling]
        return operations + self._rotated(last)

    def _rotated(self, layer: Tensor) -> list[Operation]:
        operations: list[Operation] = []
        for axis, row in zip(self.rotations, layer.unbind(-2), strict=True):
            gate = rotation_of(axis, "rotation")
            operations += [gate(w, wires=wire) for w, wire in zip(row.unbind(-1), self.wires, strict=True)]
        return operations
