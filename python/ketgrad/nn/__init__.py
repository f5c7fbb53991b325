"""Circuits as layers of torch.nn, and blocks of gates to build them from."""

from __future__ import annotations

from .block import Block
from .embeddings import AmplitudeEmbedding, AngleEmbedding, IQPEmbedding
from .entanglers import BasicEntangler, HardwareEfficient, StronglyEntangling
from .layer import CircuitLayer
from .reuploading import QAOA, DataReuploading

__all__ = [
    "QAOA",
    "AmplitudeEmbedding",
    "AngleEmbedding",
    "BasicEntangler",
    "Block",
    "CircuitLayer",
    "DataReuploading",
    "HardwareEfficient",
    "IQPEmbedding",
    "StronglyEntangling",
]


def __dir__() -> list[str]:
    return sorted(__all__)
