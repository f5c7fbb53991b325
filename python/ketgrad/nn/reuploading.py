"""Data re-uploading: blocks that encode the features again before each trainable layer."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..circuit.operations import RX, H, MultiRZ, Operation
from ..circuit.parsing import _set
from ..circuit.types import Wire
from .block import Block, neighbours, positive, rotation_of, wires_of
from .embeddings import AngleEmbedding
from .entanglers import StronglyEntangling


class DataReuploading(Block):
    """An `AngleEmbedding` before each layer of a `StronglyEntangling`.

    Args:
        wires: a number n, for the wires 0…n−1, or a sequence of labels. It takes one feature per wire.
        layers: the number of layers L, by default 1; weights are `(L, n, 3)`.
        rotation: the axis of the embedding, "X" (the default), "Y" or "Z".

    Raises:
        ValueError: the axis is another, layers is below 1, or there are no wires.

    >>> import torch, ketgrad as kg
    >>> block = kg.nn.DataReuploading(2, layers=2)
    >>> print(block.draw())
    0: ──RX──Rot──╭●──╭X──RX──Rot──╭●──╭X──
    1: ──RX──Rot──╰X──╰●──RX──Rot──╰X──╰●──
    >>> len(block(torch.rand(2), torch.rand(2, 2, 3)))
    12
    """

    layers: int
    rotation: str

    def __init__(self, wires: int | Sequence[Wire], layers: int = 1, rotation: str = "X") -> None:
        own_wires = wires_of(wires, "DataReuploading")
        rotation_of(rotation, "DataReuploading: rotation")
        count = positive(layers, "DataReuploading: layers")
        super().__init__(own_wires, len(own_wires), (count, len(own_wires), 3))
        _set(self, "layers", count)
        _set(self, "rotation", rotation)

    def __call__(self, inputs: Tensor, weights: Tensor) -> list[Operation]:
        """The operations for inputs `(n,)` or `(B, n)` and weights `(L, n, 3)`."""
        self._require_features(inputs)
        self._require_weights(weights)
        embedding = AngleEmbedding(self.wires, self.rotation)(inputs)
        entangling = StronglyEntangling(self.wires, self.layers)(weights)
        size = len(entangling) // self.layers
        operations: list[Operation] = []
        for start in range(0, len(entangling), size):
            operations += [*embedding, *entangling[start : start + size]]
        return operations


class QAOA(Block):
    """An embedding with layers like those of QAOA, as PennyLane's `QAOAEmbedding`; not the ansatz of a cost function.

    Each layer encodes the features by RX, with H on wires without a feature, then applies weights: a `MultiRZ` per pair
    of neighbours on the ring (one pair on two wires, none on one) and a rotation per wire. After the last layer, the
    features are encoded once more.

    Args:
        wires: a number n, for the wires 0…n−1, or a sequence of labels.
        layers: the number of layers L, by default 1; weights are `(L, 2n)`, those of the pairs first: `(L, 3)` for two
            wires, `(L, 1)` for one.
        features: the number of features, of the first wires; by default n.
        local_field: the axis of the rotations by weights, "X", "Y" (the default) or "Z".

    Raises:
        ValueError: there are more features than wires, the axis is another, layers is below 1, or there are no wires.

    >>> import torch, ketgrad as kg
    >>> block = kg.nn.QAOA(2, features=1)
    >>> block.weight_shapes
    {'weights': (1, 3)}
    >>> print(block.draw())
    0: ──RX──╭MultiRZ──RY──RX──
    1: ──H───╰MultiRZ──RY──H───
    """

    layers: int
    local_field: str

    def __init__(
        self, wires: int | Sequence[Wire], layers: int = 1, features: int | None = None, local_field: str = "Y"
    ) -> None:
        own_wires = wires_of(wires, "QAOA")
        count = positive(layers, "QAOA: layers")
        rotation_of(local_field, "QAOA: local_field")
        taken = len(own_wires) if features is None else positive(features, "QAOA: features")
        if taken > len(own_wires):
            raise ValueError(f"QAOA: {len(own_wires)} wires take {len(own_wires)} features or fewer, not {taken}")
        super().__init__(own_wires, taken, (count, len(neighbours(own_wires)) + len(own_wires)))
        _set(self, "layers", count)
        _set(self, "local_field", local_field)

    def __call__(self, inputs: Tensor, weights: Tensor) -> list[Operation]:
        """The operations for inputs `(features,)` or `(B, features)` and weights as in `weight_shapes`."""
        features = self._features(inputs)
        self._require_weights(weights)
        embedding: list[Operation] = [RX(x, wires=wire) for x, wire in zip(features, self.wires, strict=False)]
        embedding += [H(wires=wire) for wire in self.wires[len(features) :]]
        operations: list[Operation] = []
        for layer in weights.unbind(-2):
            operations += [*embedding, *self._trained(layer.unbind(-1))]
        return operations + embedding

    def _trained(self, weights: Sequence[Tensor]) -> list[Operation]:
        gate, pairs = rotation_of(self.local_field, "local_field"), neighbours(self.wires)
        operations: list[Operation] = [MultiRZ(w, wires=pair) for w, pair in zip(weights, pairs, strict=False)]
        rest = weights[len(pairs) :]
        return operations + [gate(w, wires=wire) for w, wire in zip(rest, self.wires, strict=True)]
