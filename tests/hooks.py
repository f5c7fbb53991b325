"""What tests turn on the native library, each for the length of a ``with``: instruction set, thresholds, threads.

Every border inside the library lies where real circuits cross it: at 2^-24 of a state's norm, at 2^15 amplitudes. With
``thresholds`` it lies where circuits of a few wires and gates do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from random import Random
from typing import Any, TypeAlias

import torch

import ketgrad as kg
from ketgrad.native.library import _C

LEVELS: list[str] = _C.available_simd_levels()

# Sizes of tiles so small that a state of a few wires is cut into many, and the default.
TILE_BITS = (4, 5, 0)

# Values for ``thresholds``, the default first.
THRESHOLDS: dict[str, tuple[Any, ...]] = {
    "tile_bits": (0, 4, 5, 6),
    "scale_bits": (24, 0, 1, 3, 8, 40),
    "support": (True, False),
    "regime": ("auto", "lanes", "single"),
    "spread": (False, True),
}


@contextmanager
def setting(read: Callable[[], Any], write: Callable[[Any], Any], value: Any) -> Iterator[None]:
    """Another value of what holds for the whole process."""
    before = read()
    write(value)
    try:
        yield
    finally:
        write(before)


def level(name: str) -> AbstractContextManager[None]:
    """An instruction set."""
    return setting(_C.current_simd_level, _C.set_simd_level, name)


def threads(count: int) -> AbstractContextManager[None]:
    return setting(torch.get_num_threads, torch.set_num_threads, count)


def current() -> str:
    return f"{_C.current_simd_level()}, {torch.get_num_threads()} threads"


@contextmanager
def thresholds(**values: Any) -> Iterator[None]:
    """Where the library changes its ways; what is not given has its default.

    Args:
        values: those of csrc/cpu/thresholds.h: ``tile_bits``, ``scale_bits``, ``support``, ``regime``, ``spread``.
    """
    _C.set_thresholds(**values)
    try:
        yield
    finally:
        _C.set_thresholds()


@contextmanager
def parts_of_any_size() -> Iterator[None]:
    """Programs that are built here fall into parts, and are cut, wherever that is possible."""
    kg.structure_cache.clear()
    _C.set_part_costs(of_part=0, of_cut=-1e300, least_gain=1e-300, most_kept=0)
    try:
        yield
    finally:
        _C.set_part_costs()
        kg.structure_cache.clear()


Setting: TypeAlias = Callable[[], AbstractContextManager[None]]
"""What is in force from its ``with`` to the end of it."""

AS_IT_IS: dict[str, Setting] = {"": nullcontext}
EVERY_LEVEL: dict[str, Setting] = {f"on {name}": partial(level, name) for name in LEVELS}


def in_tiles(tile_bits: int, name: str) -> Setting:
    """Tiles of this size, on an instruction set."""

    @contextmanager
    def both() -> Iterator[None]:
        with thresholds(tile_bits=tile_bits), level(name):
            yield

    return both


IN_TILES_ON_EVERY_LEVEL: dict[str, Setting] = {
    f"in tiles of {bits} bits on {name}": in_tiles(bits, name) for bits in TILE_BITS for name in LEVELS
}


def random_thresholds(random: Random) -> dict[str, Any]:
    """Arguments for ``thresholds``: each is the default half of the time, so that it is met alone and with others."""

    def some(values: tuple[Any, ...]) -> Any:
        return values[0] if random.random() < 0.5 else random.choice(values[1:])

    return {name: some(values) for name, values in THRESHOLDS.items()}
