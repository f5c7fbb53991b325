"""What tests turn on the native library, each for the length of a ``with``: instruction set, thresholds, threads.

Every border inside the library lies where real circuits cross it: at 2^-24 of a state's norm, at 2^15 amplitudes. With
``thresholds`` it lies where circuits of a few wires and gates do.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import torch

from ketgrad._library import _C

LEVELS: list[str] = _C.available_levels()

# Values for ``thresholds``, the default first.
TILE_BITS = (0, 4, 5, 6)
SCALE_BITS = (24, 0, 1, 3, 8, 40)
SUPPORT = (True, False)
REGIMES = ("auto", "lanes", "single")


@contextmanager
def level(name: str) -> Iterator[None]:
    """An instruction set."""
    before = _C.current_level()
    _C.set_level(name)
    try:
        yield
    finally:
        _C.set_level(before)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def current() -> str:
    return f"{_C.current_level()}, {torch.get_num_threads()} threads"


@contextmanager
def thresholds(
    tile_bits: int = TILE_BITS[0],
    scale_bits: int = SCALE_BITS[0],
    support: bool = SUPPORT[0],
    regime: str = REGIMES[0],
) -> Iterator[None]:
    """Where the library changes its ways.

    Args:
        tile_bits: amplitudes in a tile, as a power of two; 0 for the default.
        scale_bits: what rotations leave out is taken back when it falls below 2^-scale_bits.
        support: whether amplitudes that are zero still are left out.
        regime: "lanes" for samples in the lanes of a vector, "single" for one state at a time, "auto" by size.
    """
    if not hasattr(_C, "set_thresholds"):
        _C.set_tile_bits(tile_bits)
        try:
            yield
        finally:
            _C.set_tile_bits(0)
        return
    _C.set_thresholds(tile_bits, scale_bits, support, regime)
    try:
        yield
    finally:
        _C.set_thresholds()


def random_thresholds(random: Random) -> dict[str, Any]:
    """Arguments for ``thresholds``: each is the default half of the time, so that it is met alone and with others."""

    def some(values: tuple[Any, ...]) -> Any:
        return values[0] if random.random() < 0.5 else random.choice(values[1:])

    return {
        "tile_bits": some(TILE_BITS),
        "scale_bits": some(SCALE_BITS),
        "support": some(SUPPORT),
        "regime": some(REGIMES),
    }
