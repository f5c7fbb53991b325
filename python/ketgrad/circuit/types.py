"""Types that the whole package shares: wires, parameters and their layout, hashable structures."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from enum import StrEnum
from typing import Any, SupportsIndex, TypeAlias

import numpy.typing as npt
import torch

Wire: TypeAlias = Hashable
"""The label of a wire: an integer, a string, or any other hashable object that is no float, bool or None."""

Wires: TypeAlias = Wire | Sequence[Wire]
"""One wire, or a sequence of distinct wires."""

Array: TypeAlias = npt.NDArray[Any]

Parameter: TypeAlias = float | Array | torch.Tensor
"""A stored parameter: Python and 0-d NumPy numbers are stored as floats, lists as arrays, tensors as they are."""

ParameterLike: TypeAlias = float | Array | torch.Tensor | Sequence[Any]
"""A parameter as constructors take it."""


class ParameterLayout(StrEnum):
    """The form of a parameter: a number, a tensor or an array, the latter two with or without a batch axis.

    The layout of several parameters is a string with a letter for each, part of the structure of their owner.
    """

    NUMBER = "n"
    TENSOR = "s"
    BATCHED_TENSOR = "b"
    ARRAY = "N"
    BATCHED_ARRAY = "B"

    @staticmethod
    def of(value: torch.Tensor | Array, is_batched: bool) -> ParameterLayout:
        """The layout of a tensor or an array."""
        if isinstance(value, torch.Tensor):
            return ParameterLayout.BATCHED_TENSOR if is_batched else ParameterLayout.TENSOR
        return ParameterLayout.BATCHED_ARRAY if is_batched else ParameterLayout.ARRAY

    @property
    def is_batched(self) -> bool:
        """Whether the first axis is the batch axis."""
        return self is ParameterLayout.BATCHED_TENSOR or self is ParameterLayout.BATCHED_ARRAY


class Structure(tuple[Any, ...]):
    """A tuple that caches its hash, so that long ones are cheap dictionary keys."""

    _hash: int

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            self._hash = super().__hash__()
            return self._hash

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # Hashes of strings differ between processes, so the cached one is not pickled.
        return Structure, (tuple(self),)
