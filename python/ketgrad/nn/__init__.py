"""Quantum circuits as layers of torch.nn: `CircuitLayer`, and blocks to make circuits of."""

from .blocks import (
    AmplitudeEmbedding,
    AngleEmbedding,
    BasicEntangler,
    Block,
    DataReuploading,
    HardwareEfficient,
    IQPEmbedding,
    QAOAEmbedding,
    StronglyEntangling,
)
from .layer import CircuitLayer

__all__ = [
    "AmplitudeEmbedding",
    "AngleEmbedding",
    "BasicEntangler",
    "Block",
    "CircuitLayer",
    "DataReuploading",
    "HardwareEfficient",
    "IQPEmbedding",
    "QAOAEmbedding",
    "StronglyEntangling",
]
