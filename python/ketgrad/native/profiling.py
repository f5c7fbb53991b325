"""Spans in `torch.profiler` for the work around the operators."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from .torch_private import profiler_enabled as is_profiling

__all__ = ["is_profiling", "span"]

_NOTHING = nullcontext()


def span(name: str) -> AbstractContextManager[Any]:
    """A context whose time a profiler shows as `ketgrad::name`; takes 0.2 µs without a profiler."""
    return torch.profiler.record_function(f"ketgrad::{name}") if is_profiling() else _NOTHING
