"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import torch

from ketgrad._library import _C, NO_CUDA
from ketgrad.ops import has_kernels

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
    _C.set_thresholds(tile_bits=request.param)
    yield request.param
    _C.set_thresholds()


def why_no_cuda() -> str:
    """Why circuits do not run on a GPU here; "" where they do."""
    if NO_CUDA:
        return NO_CUDA
    if not torch.cuda.is_available():
        return "no GPU is visible"
    return "" if has_kernels("cuda") else "the extension has no operators for CUDA"


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    """The first GPU. Tests that take it are skipped where there is none, or fail where KETGRAD_REQUIRE_CUDA is 1."""
    if reason := why_no_cuda():
        (pytest.fail if os.environ.get("KETGRAD_REQUIRE_CUDA") == "1" else pytest.skip)(f"no CUDA: {reason}")
    return torch.device("cuda", 0)
