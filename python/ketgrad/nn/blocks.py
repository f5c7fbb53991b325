"""Blocks that variational circuits are made of, with the conventions of PennyLane's templates of the same names.

A block is called with inputs (…, features) and its weights, and returns operations on wires 0…n−1. `CircuitLayer.of`
makes a layer of several.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from ..measurements import state
from ..operations import CNOT, CZ, RX, RY, RZ, H, MultiRZ, Operation, Rot, StatePrep
from ..tape import Tape

Axis = Literal["X", "Y", "Z"]
_ROTATIONS: dict[str, Callable[..., Operation]] = {"X": RX, "Y": RY, "Z": RZ}


def _rotation(axis: str) -> Callable[..., Operation]:
    if axis not in _ROTATIONS:
        raise ValueError(f"the axis of a rotation is 'X', 'Y' or 'Z', not {axis!r}")
    return _ROTATIONS[axis]


@dataclass(frozen=True)
class Block:
    """Some operations of a circuit, which inputs and weights decide.

    Attributes:
        wires: how many it acts on, 0…wires−1.
        features: how many numbers it takes from the last axis of the inputs; 0: it takes none.
        weight_shape: of its weights; None: it has none.

    Raises:
        ValueError: fewer than one wire or layer.
    """

    wires: int

    def __post_init__(self) -> None:
        for name in ("wires", "layers", "repeats"):
            count = getattr(self, name, 1)
            if not isinstance(count, int) or count < 1:
                raise ValueError(f"{name} of {type(self).__name__} must be an integer from 1 on, not {count!r}")

    @property
    def features(self) -> int:
        return 0

    @property
    def weight_shape(self) -> tuple[int, ...] | None:
        return None

    @property
    def num_parameters(self) -> int:
        """How many weights it has."""
        return 0 if self.weight_shape is None else math.prod(self.weight_shape)

    def operations(self, inputs: Tensor | None, weights: Tensor | None) -> list[Operation]:
        """The operations, in order.

        Args:
            inputs: (features,) or (B, features); not looked at by a block without features.
            weights: in `weight_shape`; None for a block without.
        """
        raise NotImplementedError

    def __call__(self, inputs: Tensor | None = None, weights: Tensor | None = None) -> list[Operation]:
        return self.operations(inputs, weights)

    def draw(self) -> str:
        """A drawing, as of a tape, of the block for features of one and weights of zero."""
        weights = None if self.weight_shape is None else torch.zeros(self.weight_shape)
        drawn = str(Tape(self.operations(torch.ones(self.features), weights), [state()]))
        return "\n".join(line.partition("┤")[0] + "┤" * ("┤" in line) for line in drawn.splitlines())


@dataclass(frozen=True)
class AngleEmbedding(Block):
    """A rotation on each wire by one feature each.

    Example:
        >>> import ketgrad as kg
        >>> print(kg.nn.AngleEmbedding(2, axis="Y").draw())
        0: ──RY(1.00)──┤
        1: ──RY(1.00)──┤
    """

    axis: Axis = "X"

    def __post_init__(self) -> None:
        super().__post_init__()
        _rotation(self.axis)

    @property
    def features(self) -> int:
        return self.wires

    def operations(self, inputs: Tensor | None, weights: Tensor | None) -> list[Operation]:
        assert inputs is not None
        return [_rotation(self.axis)(inputs[..., w], wires=w) for w in range(self.wires)]


@dataclass(frozen=True)
class AmplitudeEmbedding(Block):
    """The features as the amplitudes of a state, divided by their norm; `pad_with` fills up to 2^wires.

    Args:
        size: how many features there are; None: 2^wires.
        pad_with: the amplitude of the others.
    """

    size: int | None = None
    pad_with: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.features <= 2**self.wires:
            raise ValueError(f"{self.features} amplitudes for {self.wires} wires, which have 1 to {2**self.wires}")

    @property
    def features(self) -> int:
        return 2**self.wires if self.size is None else self.size

    def operations(self, inputs: Tensor | None, weights: Tensor | None) -> list[Operation]:
        assert inputs is not None
        missing = 2**self.wires - self.features
        if missing:
            inputs = torch.nn.functional.pad(inputs, (0, missing), value=self.pad_with)
        state = inputs / torch.linalg.vector_norm(inputs, dim=-1, keepdim=True)
        return [StatePrep(state, wires=range(self.wires))]


@dataclass(frozen=True)
class BasicEntangler(Block):
    """Layers of one rotation on each wire and a ring of CNOTs; weights (layers, wires)."""

    layers: int = 1
    axis: Axis = "X"

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.layers, self.wires)

    def operations(self, inputs: Tensor | None, weights: Tensor | None) -> list[Operation]:
        assert weights is not None
        found: list[Operation] = []
        for layer in weights:
            found += [_rotation(self.axis)(layer[w], wires=w) for w in range(self.wires)]
            found += _ring(self.wires)
        return found


def _ring(wires: int) -> list[Operation]:
    if wires <= 2:  # a ring of two would undo itself
        return [CNOT(wires=[0, 1])] if wires == 2 else []
    return [CNOT(wires=[w, (w + 1) % wires]) for w in range(wires)]


def _entangled(angles: Tensor, index: int, wires: int) -> list[Operation]:
    """One layer: `Rot` on each wire, CNOTs to a wire that is further away with each layer."""
    found: list[Operation] = [Rot(angles[w, 0], angles[w, 1], angles[w, 2], wires=w) for w in range(wires)]
    if wires > 1:
        distance = index % (wires - 1) + 1
        found += [CNOT(wires=[w, (w + distance) % wires]) for w in range(wires)]
    return found


@dataclass(frozen=True)
class StronglyEntangling(Block):
    """Layers of `Rot` on each wire and CNOTs of growing range (arXiv:1804.00633); weights (layers, wires, 3).

    Example:
        >>> import ketgrad as kg
        >>> kg.nn.StronglyEntangling(4, layers=2).num_parameters
        24
    """

    layers: int = 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.layers, self.wires, 3)

    def operations(self, inputs: Tensor | None, weights: Tensor | None) -> list[Operation]:
        assert weights is not None
        return [op for index, layer in enumerate(weights) for op in _entangled(layer, index, self.wires)]


@dataclass(frozen=True)
class DataReuploading(Block):
    """The inputs again before each strongly entangling layer (arXiv:1907.02085); weights (layers, wires, 3)."""

    layers: int = 1
    axis: Axis = "X"

    @property
    def features(self) -> int:
        return self.wires

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.layers, self.wires, 3)

    def operations(self, inputs: Tensor | None, weights: Tensor | None) -> list[Operation]:
        assert weights is not None
        found: list[Operation] = []
        for index, layer in enumerate(weights):
            found += AngleEmbedding(self.wires, self.axis).operations(inputs, None)
            found += _entangled(layer, index, self.wires)
        return found


@dataclass(frozen=True)
class QAOAEmbedding(Block):
    """Layers in the manner of QAOA (arXiv:2001.03622): features as X rotations, an Ising ring and a local field.

    Weights are (layers, 2 · wires), of two wires (layers, 3), of one (layers, 1). The features come again at the end.
    """

    layers: int = 1
    local_field: Axis = "Y"

    @property
    def features(self) -> int:
        return self.wires

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.layers, {1: 1, 2: 3}.get(self.wires, 2 * self.wires))

    def operations(self, inputs: Tensor | None, weights: Tensor | None) -> list[Operation]:
        assert weights is not None
        features = AngleEmbedding(self.wires).operations(inputs, None)
        pairs = {1: [], 2: [[0, 1]]}.get(self.wires, [[w, (w + 1) % self.wires] for w in range(self.wires)])
        found: list[Operation] = []
        for layer in weights:
            found += features
            found += [MultiRZ(layer[j], wires=pair) for j, pair in enumerate(pairs)]
            field = _rotation(self.local_field)
            found += [field(layer[len(pairs) + w], wires=w) for w in range(self.wires)]
        return [*found, *features]


@dataclass(frozen=True)
class HardwareEfficient(Block):
    """Layers of RY and RZ on each wire and a chain of CZs (arXiv:1704.05018); weights (layers, wires, 2)."""

    layers: int = 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return (self.layers, self.wires, 2)

    def operations(self, inputs: Tensor | None, weights: Tensor | None) -> list[Operation]:
        assert weights is not None
        found: list[Operation] = []
        for layer in weights:
            for w in range(self.wires):
                found += [RY(layer[w, 0], wires=w), RZ(layer[w, 1], wires=w)]
            found += [CZ(wires=[w, w + 1]) for w in range(self.wires - 1)]
        return found


@dataclass(frozen=True)
class IQPEmbedding(Block):
    """Diagonal gates between Hadamards, of the features and their products by pairs (arXiv:1804.11326)."""

    repeats: int = 1

    @property
    def features(self) -> int:
        return self.wires

    def operations(self, inputs: Tensor | None, weights: Tensor | None) -> list[Operation]:
        assert inputs is not None
        found: list[Operation] = []
        for _ in range(self.repeats):
            for w in range(self.wires):
                found += [H(wires=w), RZ(inputs[..., w], wires=w)]
            for a, b in combinations(range(self.wires), 2):
                found.append(MultiRZ(inputs[..., a] * inputs[..., b], wires=[a, b]))
        return found
