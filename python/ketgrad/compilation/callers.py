"""Questions that are asked about tensors while a function is traced: who asks, and what it may learn.

What the traced function itself asks decides about its circuit, so it is logged or refused. Libraries that the function
uses ask on their own account: ours in order to check shapes, PennyLane in order to build operations. What they make of
the shapes is in the circuit, where it is seen; what they ask of values is listed here.
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

from .front_ends import front_ends

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_RECORDING = (__file__, os.path.join(os.path.dirname(__file__), "recorder.py"))

_OWN = (f"{_PACKAGE}circuit{os.sep}", f"{_PACKAGE}interop{os.sep}")
"""Files whose questions about tensors are none of the traced function's."""

_RUNNING = tuple(
    os.path.join(_PACKAGE, *place.split("/"))
    for place in (
        "compilation/compiled.py",
        "execution/execute_tapes.py",
        "execution/jacobian_products.py",
        "native/operators.py",
    )
)
"""Files that look at tensors in order to execute circuits."""


class Asker(NamedTuple):
    """The code that asks.

    Attributes:
        frame: in which it runs.
        module: its name.
    """

    frame: FrameType
    module: str

    @property
    def is_running(self) -> bool:
        """Whether it is about to execute circuits."""
        return self.frame.f_code.co_filename.startswith(_RUNNING)

    @property
    def is_own(self) -> bool:
        """Whether it is ketgrad's, building a circuit."""
        return self.frame.f_code.co_filename.startswith(_OWN)

    @property
    def is_torch(self) -> bool:
        """Whether it is torch's."""
        return self.frame.f_code.co_filename.startswith(_TORCH)

    @property
    def is_library(self) -> bool:
        """Whether it is a library's."""
        return _is_library(self.module)

    @property
    def checks(self) -> bool:
        """Whether a value decides only about an error."""
        # A state that is normalised on demand is left as it is where its norm is 1.
        checks = any(self._place in front_end.checks for front_end in front_ends())
        return checks and not self.frame.f_locals.get("normalize")

    def answer(self, asked: Any) -> Any:
        """What stands for a value, in the answer's kind, such that what is made of it is right of all values.

        None where there is no such answer.
        """
        answers = [front_end.simplifications.get(self._place) for front_end in front_ends()]
        answer = next((answer for answer in answers if answer is not None), None)
        if answer is not None and isinstance(asked, np.ndarray):
            return np.full_like(asked, math.nan)  # close to nothing
        return answer if isinstance(asked, bool) else None

    @property
    def _place(self) -> str:
        return f"{self.module}:{self.frame.f_code.co_qualname.partition('.<locals>')[0]}"


def answering_itself(function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """Call a traced function, which may be torch's own: a module is, and asks on its own account."""
    return function(*args, **kwargs)


def caller_of_torch() -> Asker:
    """The code that called torch, torch's own included."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename in _RECORDING:
        frame = frame.f_back
    return Asker(frame, _module(frame))


def asker() -> Asker:
    """The code on whose account torch is asked: not torch's own, and not what answers for others."""
    frame = sys._getframe(1)
    answering = tuple([name for front_end in front_ends() for name in front_end.answering])
    while frame.f_back is not None and frame.f_code is not answering_itself.__code__:
        if not (frame.f_code.co_filename.startswith((_TORCH, *_RECORDING)) or _module(frame).startswith(answering)):
            break
        frame = frame.f_back
    return Asker(frame, _module(frame))


def users_line() -> str:
    """Where the innermost frame is that is neither torch's, nor ours, nor a library's."""
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
