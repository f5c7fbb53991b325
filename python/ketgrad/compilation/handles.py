"""Handles: strings by which a graph of `torch.compile` refers to compiled functions."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

# A graph can hold strings, but no objects; integers could become symbols. The references are weak: a graph does not
# keep the function alive.
_by_handle: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_handles = itertools.count()


def handle_of(target: Any) -> str:
    """A new handle for an object, which is dropped with it."""
    handle = str(next(_handles))
    _by_handle[handle] = target
    return handle


def of_handle(handle: str) -> Any:
    """The object of a handle."""
    return _by_handle[handle]
