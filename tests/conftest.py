"""Fixtures that several test files share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ketgrad._library import _C

LEVELS = _C.available_levels()


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine has, in use for the length of a test."""
    before = _C.current_level()
    _C.set_level(request.param)
    yield request.param
    _C.set_level(before)


@pytest.fixture(params=[4, 5, 0], ids=["tiles of 16", "tiles of 32", "whole states"])
def tile_bits(request: pytest.FixtureRequest) -> Iterator[int]:
    """Sizes of tiles so small that a state of a few wires is cut into many, and the default."""
    _C.set_tile_bits(request.param)
    yield request.param
    _C.set_tile_bits(0)
