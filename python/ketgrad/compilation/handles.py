"""Objects by names, which is how a graph of `torch.compile` holds what it calls."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

# A graph holds names, no objects (and no numbers, which could become symbols): for as long as somebody else holds what
# they are of.
_by_handle: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
_handles = itertools.count()


def handle_of(target: Any) -> str:
    """A new name for an object, which is forgotten with it."""
    handle = str(next(_handles))
    _by_handle[handle] = target
    return handle


def of_handle(handle: str) -> Any:
    """The object of a name."""
    return _by_handle[handle]
