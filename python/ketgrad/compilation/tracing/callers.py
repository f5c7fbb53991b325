"""Caller policy: which code reads a property or a value of a tensor during a trace, and what it may learn.

The circuit can depend on what the traced function reads, so properties (shapes, dtypes) are logged, and values refused.
Reads by ketgrad, to check shapes, and by PennyLane, to build operations, are not logged: their effect is visible in the
circuit, and the functions that read values are listed in the front end (see `front_ends`).
"""

from __future__ import annotations

import contextlib
import linecache
import math
import os
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import torch

from ..front_ends import front_ends

_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))) + os.sep
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_TRACING = (__file__, os.path.join(os.path.dirname(__file__), "recorder.py"))

_BUILDING = (f"{_PACKAGE}circuit{os.sep}", f"{_PACKAGE}interop{os.sep}")
"""Files of ketgrad that build circuits: what they read is not logged."""

_EXECUTING = tuple(f"{_PACKAGE}{folder}{os.sep}" for folder in ("compilation", "execution", "native"))
"""Files of ketgrad that execute circuits, which a traced function must not do; those in `_TRACING` do not."""


class Caller(NamedTuple):
    """The code that reads a property or a value of a tensor.

    Attributes:
        frame: its frame.
    """

    frame: FrameType

    @property
    def executes_circuits(self) -> bool:
        """Whether it is code of ketgrad that executes circuits."""
        file = self.frame.f_code.co_filename
        return file.startswith(_EXECUTING) and file not in _TRACING

    @property
    def builds_circuits(self) -> bool:
        """Whether it is code of ketgrad that builds circuits."""
        return self.frame.f_code.co_filename.startswith(_BUILDING)

    @property
    def is_torch(self) -> bool:
        """Whether it is torch's."""
        return self.frame.f_code.co_filename.startswith(_TORCH)

    @property
    def is_library(self) -> bool:
        """Whether it belongs to a library of a front end."""
        return _is_library(_module(self.frame))

    @property
    def only_checks(self) -> bool:
        """Whether a value that it reads decides only whether it raises."""
        # With `normalize`, such a function also decides whether to normalise the state.
        is_check = any(self._place in front_end.checks for front_end in front_ends())
        return is_check and not self.frame.f_locals.get("normalize")

    def substitute(self, value: Any) -> Any:
        """A substitute for a value, of the same type, with which it builds what is right for all values.

        None if there is none.
        """
        answers = [front_end.simplifications.get(self._place) for front_end in front_ends()]
        answer = next((answer for answer in answers if answer is not None), None)
        if answer is not None and isinstance(value, np.ndarray):
            return np.full_like(value, math.nan)  # close to no special value
        return answer if isinstance(value, bool) else None

    @property
    def _place(self) -> str:
        return f"{_module(self.frame)}:{self.frame.f_code.co_qualname.partition('.<locals>')[0]}"


def call_traced(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Call the traced function. Its reads are its own even if it is code of torch, such as a module."""
    return function(*args, **kwargs)


def direct_caller() -> Caller:
    """The code that called torch, which may be torch's own."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in _TRACING:
        frame = frame.f_back
    return Caller(frame)


def responsible_caller() -> Caller:
    """The code on whose behalf torch was called: the innermost that is neither torch nor a proxy."""
    frame = sys._getframe(1)
    proxies = tuple([name for front_end in front_ends() for name in front_end.proxies])
    while frame.f_back is not None and frame.f_code is not call_traced.__code__:
        if not (frame.f_code.co_filename.startswith((_TORCH, *_TRACING)) or _module(frame).startswith(proxies)):
            break
        frame = frame.f_back
    return Caller(frame)


def users_line() -> str:
    """The file and line of the innermost frame outside torch, ketgrad and the libraries of front ends."""
    frame: FrameType | None = sys._getframe(1)
    libraries = (_TORCH, _PACKAGE, contextlib.__file__)
    while frame is not None:
        code = frame.f_code
        if not code.co_filename.startswith(libraries) and not _is_library(_module(frame)):
            line = linecache.getline(code.co_filename, frame.f_lineno, frame.f_globals).strip()
            shown = f", `{line}`" if line else ""
            return f"{code.co_filename}, line {frame.f_lineno}{shown}: "
        frame = frame.f_back
    return ""


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__"))


def _is_library(module: str) -> bool:
    top = module.partition(".")[0]
    return any(top in front_end.libraries for front_end in front_ends())
