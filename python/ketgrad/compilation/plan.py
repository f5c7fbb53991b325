"""`CompiledPlan`: what runs in place of a traced function, and the comparison of two plans."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..execution.programs import Circuit
from .joint_call import JointCall, Unit
from .native_call import NativeCall
from .tracing.captures import ContainerGuard
from .tracing.trace import Captured, guard_of, name_of


class CompiledPlan(NamedTuple):
    """What runs in place of a function for arguments of one structure.

    Attributes:
        arithmetic: (arguments, captured tensors) → for each call the tensors of its views, then those that `finish`
            takes.
        finish: (tensors from `arithmetic`, then the results of the calls) → what the function returns.
        source, ending: the code of `arithmetic` and of `finish`.
        objects: the objects of the names in the code.
        calls: the native calls.
        units: what is called at once: all of them as one `JointCall`, or one after the other.
        circuits: the circuits of each call while tracing.
        captured: the tensors that the function reads from outside.
        containers: the guard of the containers outside it; None: it depends on none.
        arguments: the tensors among the arguments, in words.
        batched_arguments: the arguments whose first axis is the tapes' batch axis, according to the trace.
        unread: by the position of an argument, its elements that no result depends on (of each row, if it is batched).
    """

    arithmetic: Callable[..., tuple[tuple[Tensor, ...], ...]]
    finish: Callable[..., Any]
    source: str
    ending: str
    objects: dict[str, Any]
    calls: tuple[NativeCall, ...]
    units: tuple[Unit, ...]
    circuits: tuple[Circuit, ...]
    captured: tuple[Captured, ...]
    containers: ContainerGuard | None
    arguments: str
    batched_arguments: tuple[int, ...]
    unread: dict[int, tuple[int, ...]]

    def passed_to_units(self, passed: Sequence[Sequence[Tensor]]) -> Sequence[Sequence[Tensor]]:
        """The tensors that each unit takes, of what `arithmetic` returned."""
        units = self.units
        return (units[0].take(passed),) if units and isinstance(units[0], JointCall) else passed[:-1]

    @property
    def returns_tuple(self) -> bool | None:
        """Whether the function returns all results, in order and as they are: False its only one, True several.

        None: it returns something else.
        """
        found = re.fullmatch(r"def finish\((.*)\):\n    return (?:(v\d+)|[(\[](.*), [)\]])", self.ending)
        count = sum(len(call.tapes) * len(call.result_layout.results) for call in self.calls)
        if found is None or found[1] not in found.groups()[1:] or found[1].count(",") + 1 != count:
            return None
        return found[2] is None

    @property
    def bytes(self) -> int:
        """The approximate memory, with that of its programs and their native plans made so far."""
        operations = sum(circuit.operations for circuit in self.circuits)
        return 4096 + 256 * operations + sum(call.program.bytes for call in self.calls)  # slightly more than measured

    def describe(self, source: str) -> str:
        """Its code with objects written out, for `explain`; empty if it computes nothing."""
        if source.count("\n") == 1:
            return ""
        return re.sub(r"\bk\d+\b", lambda found: _described(self.objects[found[0]]), source)

    def captured_now(self) -> tuple[Tensor, ...] | None:
        """The present captured tensors; None if a guard of a tensor or of a container fails."""
        try:
            return self._read_captured()
        except Exception:  # a place is gone, or has an object of another type
            return None

    def _read_captured(self) -> tuple[Tensor, ...] | None:
        if self.containers is not None and self.containers.read() != self.containers.expected:
            return None
        found = []
        for captured in self.captured:
            tensor, *others = captured.location.read()
            if not isinstance(tensor, Tensor) or captured.guard != guard_of(tensor):
                return None
            for other in others:
                if other is not tensor:
                    return None
            found.append(tensor)
        return tuple(found)

    @property
    def is_stale(self) -> bool:
        """Whether a guard of what is outside the function fails now."""
        return self.containers is not None and self.captured_now() is None


def _described(found: Any) -> str:
    """The text of an object in the code that `explain` shows."""
    if isinstance(found, Tensor):
        return f"<{describe_tensor(found)}>"
    return name_of(found) or repr(found)


def describe_tensor(tensor: Tensor) -> str:
    """A tensor's structure in words."""
    grad = ", requires grad" if tensor.requires_grad else ""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}{grad}"


def are_same_plans(one: CompiledPlan, other: CompiledPlan) -> bool:
    """Whether two plans compute the same."""
    if (one.source, one.ending) != (other.source, other.ending) or one.objects.keys() != other.objects.keys():
        return False
    if not all(are_same(found, other.objects[name]) for name, found in one.objects.items()):
        return False
    if [c.location.names for c in one.captured] != [c.location.names for c in other.captured]:
        return False
    return len(one.calls) == len(other.calls) and all(map(_are_same_calls, one.calls, other.calls))


def _are_same_calls(one: NativeCall, other: NativeCall) -> bool:
    if not all(are_same(a, b) for a, b in zip(one.constants, other.constants, strict=False)):
        return False
    return one._replace(program=other.program, constants=other.constants) == other


def are_same(one: Any, other: Any) -> bool:
    """Whether two objects in a plan's code are equal; tensors and arrays by dtype and values."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype is other.dtype and not one.is_meta and torch.equal(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one is other or (type(one) is type(other) and bool(one == other))
