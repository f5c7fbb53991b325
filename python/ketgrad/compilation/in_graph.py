"""Calls of compiled functions that `torch.compile` and `torch.export` trace.

This module imports Dynamo and with it sympy, so it is itself imported only when one of them traces.
"""

from __future__ import annotations

from typing import Any

from ..native.torch_private import nonstrict_trace
from .handles import of_handle


@nonstrict_trace
def call_in_graph(handle: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call with fake tensors: the graph gets the plan's arithmetic and the operators, no Python of ketgrad."""
    return of_handle(handle)._call_fake(args, kwargs)
