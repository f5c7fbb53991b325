"""Types that the whole package shares, and the hashable description of a structure."""

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
"""A stored parameter: Python and 0-d NumPy numbers become floats, lists become arrays, tensors stay as they came."""

ParameterLike: TypeAlias = float | Array | torch.Tensor | Sequence[Any]
"""What a constructor takes for a parameter."""


class ParameterLayout(StrEnum):
    """As what a parameter was given: a number, a tensor or an array, the latter two with a batch axis or without.

    A layout of several parameters is a string of one letter each; the structure of what has parameters holds it.
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
        """Whether the first axis is the batch."""
        return self is ParameterLayout.BATCHED_TENSOR or self is ParameterLayout.BATCHED_ARRAY


class Structure(tuple[Any, ...]):
    """A tuple whose hash is computed once, so that a long description stays cheap as a dictionary key."""

    _hash: int

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            self._hash = super().__hash__()
            return self._hash

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        # The hash of a string differs between processes: a cached one must not be pickled.
        return Structure, (tuple(self),)
