"""Tensors on their way to a native call enter each folder of the package once, and come back as they went."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor

import ketgrad as kg

PACKAGE = os.path.dirname(kg.__file__) + os.sep
QUESTIONS = ("is_", "refuse_", "require_", "span")
"""Beginnings of the names of functions that look at tensors and pass nothing on."""


def tape_of(x: Tensor, w: Tensor) -> kg.Tape:
    return kg.Tape([kg.RX(x, wires=0), kg.RY(w[0], wires=0)], [kg.expval(kg.Z(0)), kg.probs(wires=0)])


def folders_entered(function: Callable[[], Any]) -> tuple[list[str], Any]:
    """The folders that calls with tensors enter from another folder, and what the function returns."""
    inside: list[str] = [""]
    entered = []

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if not code.co_filename.startswith(PACKAGE):
            return
        if event == "return":
            inside.pop()
        elif event == "call":
            folder = os.path.relpath(code.co_filename, PACKAGE).split(os.sep)[0]
            arguments = code.co_varnames[: code.co_argcount + bool(code.co_flags & 4)]
            has_tensors = any(is_tensors(frame.f_locals.get(name)) for name in arguments)
            if folder != inside[-1] and has_tensors and not code.co_name.startswith(QUESTIONS):
                entered.append(folder)
            inside.append(folder)

    sys.setprofile(watch)
    try:
        return entered, function()
    finally:
        sys.setprofile(None)


def is_tensors(found: Any) -> bool:
    if isinstance(found, (list, tuple)):
        return any(map(is_tensors, found))
    return isinstance(found, (Tensor, kg.Tape))


@pytest.mark.parametrize("way", ["execute", "compile"])
@pytest.mark.parametrize("is_trained", [False, True])
def test_each_folder_is_entered_once(way: str, is_trained: bool) -> None:
    x, w = torch.rand(4), torch.rand(3, requires_grad=is_trained)
    tape, compiled = tape_of(x, w), kg.compile(tape_of)
    run = (lambda: kg.execute([tape])[0]) if way == "execute" else lambda: compiled(x, w)
    run()
    down, (z, p) = folders_entered(run)
    outermost = "execution" if way == "execute" else "compilation"
    results = [] if way == "execute" else ["execution"]  # whose layout of results compiled functions use
    assert [folder for folder in down if folder != "circuit"] == [outermost, "autograd", "native", *results]
    if not is_trained:
        return
    with torch.autograd.set_multithreading_enabled(False):  # a profile function is that of a thread
        back, _ = folders_entered(lambda: (z.sum() + p[:, 0].sum()).backward())
    assert back == [outermost, *results, "autograd", "native"]
