"""Modes of torch: which are active around a call, and how a function is traced outside of them.

Autocast and the default device change what is computed, and are part of a trace. All others (fake tensors, graphs,
counters, transforms) only observe or replace tensors: plans do not depend on them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from ..native.torch_private import (
    DeviceContext,
    EnableTorchFunction,
    len_dispatch_stack,
    len_function_stack,
    pop_function_mode,
    push_function_mode,
    saved_tensors_hooks_enabled,
    temporarily_clear_interpreter_stack,
    without_dispatch_modes,
)

_HAS_CUDA = torch.version.cuda is not None


def is_watched() -> bool:
    """Whether a dispatch mode is active: fake tensors, tracing of a graph, counters."""
    return len_dispatch_stack() > 0


def is_autocast() -> bool:
    """Whether autocast is on for a device type of this build of torch."""
    return torch.is_autocast_enabled("cpu") or (_HAS_CUDA and torch.is_autocast_enabled("cuda"))


def autocast_state() -> tuple[Any, ...]:
    """Whether autocast is on, and its dtype, for each device type of this build of torch."""
    kinds = ("cpu", "cuda") if _HAS_CUDA else ("cpu",)
    return tuple([(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds])


@contextlib.contextmanager
def outside_of_modes() -> Iterator[None]:
    """Run with plain tensors and gradients on, without any active mode but autocast and the default device."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(temporarily_clear_interpreter_stack())  # transforms
        stack.enter_context(without_dispatch_modes())
        stack.enter_context(EnableTorchFunction())
        stack.enter_context(_without_function_modes())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if saved_tensors_hooks_enabled():
            stack.enter_context(saved_tensors_hooks(_identity, _identity))  # checkpointing counts saved tensors
        yield


@contextlib.contextmanager
def _without_function_modes() -> Iterator[None]:
    modes = [pop_function_mode() for _ in range(len_function_stack())]
    kept = [mode for mode in modes if isinstance(mode, DeviceContext)]
    for mode in reversed(kept):
        push_function_mode(mode)
    try:
        yield
    finally:
        for _ in kept:
            pop_function_mode()
        for mode in reversed(modes):
            push_function_mode(mode)


def _identity(tensor: Tensor) -> Tensor:
    return tensor
