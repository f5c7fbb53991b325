"""Closures: where a function finds a tensor that is none of its arguments.

A tensor that a traced function uses without being given it is found in what the function refers to: closure, globals,
`self`, and the containers, modules and objects reached from there. Its places are read anew before each call, so that
another tensor put there (`self.weight = …`) is noticed.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

from torch import Tensor, nn

from ._parsing import Immutable

_MOST_OBJECTS = 20_000
_MOST_ITEMS = 2_000

# Whose functions refer to nothing that a user could have put there.
_LIBRARIES = frozenset({"builtins", "functools", "ketgrad", "math", "numpy", "random", "scipy", "torch", "pennylane"})

_Namespace = dict[str, Any]


class Location(NamedTuple):
    """The places of one tensor: `read` gives what is there now, a tuple with one object a place."""

    read: Callable[[], tuple[Any, ...]]
    names: tuple[str, ...]


class _Place(NamedTuple):
    """An expression, over the objects in a namespace, that leads to an object."""

    text: str
    found: Any


class Surroundings:
    """What is reached from a function and other objects; looked through once, when the first tensor is asked for."""

    def __init__(self, roots: Sequence[Any]) -> None:
        self._roots = roots
        self._namespace: _Namespace = {}
        self._places: dict[int, list[_Place]] | None = None

    def locate(self, tensor: Tensor) -> Location | None:
        """All places at which a tensor is reached, None where there is none."""
        if self._places is None:
            self._places = {}
            for place in _reachable(self._roots, self._namespace):
                if isinstance(place.found, Tensor):
                    self._places.setdefault(id(place.found), []).append(place)
        texts = [place.text for place in self._places.get(id(tensor), ()) if place.found is tensor]
        if not texts:
            return None
        return Location(eval("lambda: (" + ", ".join(texts) + ",)", self._namespace), tuple(texts))


def modules_of(roots: Sequence[Any]) -> list[nn.Module]:
    """The modules that are reached, on whose training mode a function may depend."""
    return [place.found for place in _reachable(roots, {}) if isinstance(place.found, nn.Module)]


def _reachable(roots: Sequence[Any], namespace: _Namespace) -> Iterator[_Place]:
    """Everything that the roots refer to, nearest first; every place of a tensor, one of anything else."""
    waiting = deque([_Place(_bind(namespace, root), root) for root in roots])
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_OBJECTS:
        place = waiting.popleft()
        yield place
        if isinstance(place.found, Tensor) or id(place.found) in seen:
            continue
        seen.add(id(place.found))
        waiting.extend(_parts(place, namespace))


def _bind(namespace: _Namespace, found: Any) -> str:
    name = f"o{len(namespace)}"
    namespace[name] = found
    return name


def _parts(place: _Place, namespace: _Namespace) -> Iterable[_Place]:
    text, found = place
    if isinstance(found, FunctionType):
        return [] if _is_library(found.__module__) else _function_parts(found, namespace)
    if isinstance(found, MethodType):
        self_ = _bind(namespace, found.__self__)
        return [_Place(self_, found.__self__), *_function_parts(found.__func__, namespace)]  # type: ignore[arg-type]
    if isinstance(found, functools.partial):
        return [_Place(f"{text}.{name}", getattr(found, name)) for name in ("func", "args", "keywords")]
    if isinstance(found, dict):
        return _items(text, list(found.items())[:_MOST_ITEMS], namespace)
    if isinstance(found, (list, tuple)):
        return _items(text, list(enumerate(found[:_MOST_ITEMS])), namespace)
    if isinstance(found, Immutable):
        names = ("parameters", "observable", "operations", "measurements")
        return [_Place(f"{text}.{name}", getattr(found, name)) for name in names if hasattr(found, name)]
    if isinstance(found, (type, ModuleType)) or not hasattr(found, "__dict__"):
        return []
    if is_operator(found):
        return [_Place(f"{text}.data", found.data)]
    if _is_library(type(found).__module__) and not isinstance(found, nn.Module):
        inner = vars(found).get("__wrapped__")  # of a compiled function
        return [] if inner is None else [_Place(f"{text}.__wrapped__", inner)]
    return _object_parts(found, text, namespace)


def is_operator(found: Any) -> bool:
    """Whether this is an operator of PennyLane, which is loaded where there is one."""
    pennylane = sys.modules.get("pennylane")
    return pennylane is not None and isinstance(found, pennylane.operation.Operator)


def _object_parts(found: Any, text: str, namespace: _Namespace) -> list[_Place]:
    """An object's attributes, and what its class's methods refer to."""
    parts = [_Place(f"{text}.__dict__", vars(found))]
    for kind in type(found).__mro__:
        if not _is_library(kind.__module__):
            methods = [m.fget if isinstance(m, property) else m for m in vars(kind).values()]
            parts += [_Place(_bind(namespace, m), m) for m in methods if isinstance(m, FunctionType)]
    return parts


def _is_library(module: str | None) -> bool:
    return (module or "").split(".")[0] in _LIBRARIES


def _items(text: str, items: list[tuple[Any, Any]], namespace: _Namespace) -> list[_Place]:
    return [_Place(f"{text}[{_key(key, namespace)}]", part) for key, part in items]


def _key(key: Any, namespace: _Namespace) -> str:
    return repr(key) if type(key) in (int, str) else _bind(namespace, key)


def _function_parts(function: FunctionType, namespace: _Namespace) -> list[_Place]:
    parts = []
    for cell in function.__closure__ or ():
        try:
            found = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        parts.append(_Place(f"{_bind(namespace, cell)}.cell_contents", found))
    for values in (function.__defaults__, function.__kwdefaults__):
        if values:
            parts.append(_Place(_bind(namespace, values), values))
    wrapped = vars(function).get("__wrapped__")
    if wrapped is not None:
        parts.append(_Place(_bind(namespace, wrapped), wrapped))
    names = set(_names(function.__code__))
    return parts + _global_parts(function.__globals__, names, namespace)


def _global_parts(globals_: dict[str, Any], names: set[str], namespace: _Namespace) -> list[_Place]:
    """The globals that a function names, and what it names of modules among them."""
    parts = []
    own = _bind(namespace, globals_)
    for name in sorted(names & globals_.keys()):
        found = globals_[name]
        parts.append(_Place(f"{own}[{name!r}]", found))
        if isinstance(found, ModuleType) and not _is_library(found.__name__):
            inner = vars(found)
            module = f"{own}[{name!r}].__dict__"
            parts += [_Place(f"{module}[{n!r}]", inner[n]) for n in sorted(names & inner.keys())]
    return parts


def _names(code: CodeType) -> Iterator[str]:
    """The names that a function's code looks up, its inner functions' included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
