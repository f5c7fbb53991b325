"""Front ends: what `kg.compile` needs to know of other libraries whose circuits it takes.

A front end is registered by the library's name. Its module is imported once the library has been imported by someone
else: nothing here imports a library.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import torch

from ..circuit.tape import Tape


class Circuits(NamedTuple):
    """The circuits that a function returned or queued.

    Attributes:
        tapes: to be executed.
        finish: results of the tapes → what the function returns.
        dtype: the precision to compute in by default; None: that of the tapes.
    """

    tapes: Sequence[Tape]
    finish: Callable[[Sequence[Any]], Any]
    dtype: torch.dtype | None = None


class FrontEnd(Protocol):
    """What compiled functions ask of a library's front end.

    Attributes:
        title: the library's name in messages.
        libraries: top-level modules, the library's own first; what they read of tensors is not logged.
        proxies: prefixes of the names of modules that read tensors on behalf of their callers.
        checks: functions (module:qualified name) in which a value decides only whether they raise.
        simplifications: functions that treat special values separately, with the outcome of their test for general
            values, whose code is right for all values.
    """

    title: str
    libraries: frozenset[str]
    proxies: tuple[str, ...]
    checks: frozenset[str]
    simplifications: Mapping[str, bool]

    def is_circuit(self, function: Any) -> bool:
        """Whether this is a circuit with a device, which is compiled as such."""

    def require_compilable(self, circuit: Any) -> None:
        """Raise if the circuit's results are not those of exact tapes with parameters of torch."""

    def function_of(self, circuit: Any) -> Callable[..., Any]:
        """The function behind a circuit."""

    def queue(self) -> AbstractContextManager[Any]:
        """A context that collects what a function queues."""

    def has_measurements(self, returned: Any) -> bool:
        """Whether a function returned measurements of the library."""

    def circuits_of(self, function: Callable[..., Any], returned: Any, queue: Any) -> Circuits:
        """The circuits of a function or circuit, given what it returned and queued."""

    def is_operator(self, found: Any) -> bool:
        """Whether this is an operator, whose parameters are its `data`."""


_modules: dict[str, str] = {}
_loaded: dict[str, FrontEnd] = {}


def register(library: str, module: str) -> None:
    """Register the module that has a library's `FRONT_END`."""
    _modules[library] = module


def front_ends() -> Sequence[FrontEnd]:
    """The front ends of libraries that are imported."""
    for library, module in _modules.items():
        if library not in _loaded and sys.modules.get(library) is not None:
            _loaded[library] = import_module(module).FRONT_END
    return tuple(_loaded.values())


def front_end_of(function: Any) -> FrontEnd | None:
    """The front end whose circuit this is."""
    return next((front_end for front_end in front_ends() if front_end.is_circuit(function)), None)


def operators_front_end(found: Any) -> FrontEnd | None:
    """The front end whose operator this is."""
    return next((front_end for front_end in front_ends() if front_end.is_operator(found)), None)
