"""Embeddings: blocks that encode features in a state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import torch
from torch import Tensor

from ..circuit.operations import RZ, H, MultiRZ, Operation, StatePrep
from ..circuit.parsing import _set, parse_wires
from ..circuit.types import Wire
from .block import Block, positive, rotation_of, wires_of


class AngleEmbedding(Block):
    """A rotation of each wire by a feature, as PennyLane's `AngleEmbedding`. It takes one feature per wire.

    Args:
        wires: a number n, for the wires 0…n−1, or a sequence of labels.
        rotation: the axis, "X" (the default), "Y" or "Z".

    Raises:
        ValueError: the axis is another, or there are no wires.

    >>> import torch, ketgrad as kg
    >>> embedding = kg.nn.AngleEmbedding(2)
    >>> print(kg.Tape(embedding(torch.tensor([0.1, 0.2])), [kg.expval(kg.Z(0))]))
    0: ──RX(0.10)──┤ ⟨Z⟩
    1: ──RX(0.20)──┤
    """

    rotation: str

    def __init__(self, wires: int | Sequence[Wire], rotation: str = "X") -> None:
        own_wires = wires_of(wires, "AngleEmbedding")
        rotation_of(rotation, "AngleEmbedding: rotation")
        super().__init__(own_wires, len(own_wires), None)
        _set(self, "rotation", rotation)

    def __call__(self, inputs: Tensor) -> list[Operation]:
        """The operations for inputs `(n,)` or `(B, n)`."""
        gate = rotation_of(self.rotation, "rotation")
        return [gate(x, wires=wire) for x, wire in zip(self._features(inputs), self.wires, strict=True)]


class AmplitudeEmbedding(Block):
    """Features as the amplitudes of a state, as PennyLane's `AmplitudeEmbedding`. Only as the first block.

    Without `normalize`, the norm of the features must be 1. This is checked if a tape is built from values on the CPU:
    in `kg.execute`, and in the first call of a compiled function or layer, but not in later calls.

    Args:
        wires: a number n, for the wires 0…n−1, or a sequence of labels.
        features: the number of features; by default 2^n.
        pad_with: the amplitude of the basis states without a feature.
        normalize: whether to divide the padded vector by its norm, differentiably; by default not.

    Raises:
        ValueError: there are more than 2^n features, fewer without `pad_with`, or no wires.

    >>> import torch, ketgrad as kg
    >>> embedding = kg.nn.AmplitudeEmbedding(2, features=3, pad_with=0.0, normalize=True)
    >>> tape = kg.Tape(embedding(torch.tensor([1.0, 1.0, 2.0])), [kg.probs()])
    >>> kg.execute([tape])[0]
    tensor([0.1667, 0.1667, 0.6667, 0.0000])
    """

    pad_with: float | None
    normalize: bool

    def __init__(
        self,
        wires: int | Sequence[Wire],
        features: int | None = None,
        pad_with: float | None = None,
        normalize: bool = False,
    ) -> None:
        own_wires = wires_of(wires, "AmplitudeEmbedding")
        most = 1 << len(own_wires)
        count = most if features is None else positive(features, "AmplitudeEmbedding: features")
        if count > most:
            raise ValueError(f"AmplitudeEmbedding: {len(own_wires)} wires hold {most} features, not {count}")
        if count < most and pad_with is None:
            raise ValueError(
                f"AmplitudeEmbedding: {count} features for {most} amplitudes; give pad_with=0.0 for the rest"
            )
        super().__init__(own_wires, count, None)
        _set(self, "pad_with", pad_with)
        _set(self, "normalize", normalize)

    def __call__(self, inputs: Tensor) -> list[Operation]:
        """The operations for inputs `(features,)` or `(B, features)`."""
        self._require_features(inputs)
        state, missing = inputs, (1 << len(self.wires)) - self.num_features
        if missing and self.pad_with is not None:
            state = torch.nn.functional.pad(state, (0, missing), value=self.pad_with)
        if self.normalize:
            state = state / torch.linalg.vector_norm(state, dim=-1, keepdim=True)
        return [StatePrep(state, wires=self.wires)]


class IQPEmbedding(Block):
    """Hadamards, then diagonal rotations by features and products of two features, as PennyLane's `IQPEmbedding`.

    Args:
        wires: a number n, for the wires 0…n−1, or a sequence of labels. It takes one feature per wire.
        repeats: how often the gates are repeated; by default once.
        pattern: the pairs of wires whose features are multiplied; by default all pairs, in order.

    Raises:
        ValueError: an item of the pattern is no pair of the wires, repeats is below 1, or there are no wires.

    >>> import torch, ketgrad as kg
    >>> print(kg.nn.IQPEmbedding(2).draw())
    0: ──H──RZ──╭MultiRZ──
    1: ──H──RZ──╰MultiRZ──
    """

    repeats: int
    pattern: tuple[tuple[Wire, ...], ...]

    def __init__(
        self, wires: int | Sequence[Wire], repeats: int = 1, pattern: Iterable[Sequence[Wire]] | None = None
    ) -> None:
        own_wires = wires_of(wires, "IQPEmbedding")
        pairs = (
            combinations(own_wires, 2) if pattern is None else [parse_wires(pair, "IQPEmbedding") for pair in pattern]
        )
        super().__init__(own_wires, len(own_wires), None)
        _set(self, "repeats", positive(repeats, "IQPEmbedding: repeats"))
        _set(self, "pattern", tuple(pairs))
        for pair in self.pattern:
            if len(pair) != 2 or not set(pair) <= set(own_wires):
                raise ValueError(
                    f"IQPEmbedding: the pattern has {pair}, which is no pair of the wires {list(own_wires)}"
                )

    def __call__(self, inputs: Tensor) -> list[Operation]:
        """The operations for inputs `(n,)` or `(B, n)`."""
        features = dict(zip(self.wires, self._features(inputs), strict=True))
        products = [(features[one] * features[other], [one, other]) for one, other in self.pattern]
        operations: list[Operation] = []
        for _ in range(self.repeats):
            for wire, x in features.items():
                operations += [H(wires=wire), RZ(x, wires=wire)]
            operations += [MultiRZ(product, wires=pair) for product, pair in products]
        return operations
