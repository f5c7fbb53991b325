"""The search behind captures: what is reachable from a function, by which expressions.

It looks into containers, objects, classes and functions without running code of theirs.
"""

from __future__ import annotations

import functools
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from keyword import iskeyword
from types import CodeType, FunctionType, MappingProxyType, MemberDescriptorType, MethodType, ModuleType, NoneType
from typing import Any, NamedTuple

from torch import Tensor, nn

from ...circuit.parsing import Immutable
from ..front_ends import front_ends, operators_front_end

_MOST_OBJECTS = 20_000
_MOST_ITEMS = 2_000

_NEAR = 4
"""Within so many steps from the function, places that are empty (None, an empty container) are guarded too."""

_GROWING = (list, dict, deque, set, tuple, MappingProxyType)

_STANDARD_READS = tuple([kind.__getitem__ for kind in (dict, list, tuple, deque, MappingProxyType)])

_LEAVES = frozenset({bool, bytes, complex, float, int, str})
"""Classes of objects that refer to nothing and never stand where a tensor is found."""

_FAR_LEAVES = _LEAVES | {NoneType}

_OF_MODULES = ("_parameters", "_buffers", "_modules")
"""The dictionaries of a torch.nn.Module that a function may loop over."""

# Libraries whose functions refer to nothing that a user has put there.
_LIBRARIES = frozenset({"builtins", "functools", "ketgrad", "math", "numpy", "random", "scipy", "torch"})

Namespace = dict[str, Any]

_Part = tuple[str, Any]
"""An expression, and the object that it leads to."""


class Place(NamedTuple):
    """An expression, over the objects in a namespace, that leads to a tensor, a module or nothing yet.

    Attributes:
        within: the containers on the way.
        may_fill: whether it is near and empty, so that something may be put there.
    """

    text: str
    found: Any
    within: tuple[str, ...]
    may_fill: bool


class Search:
    """One search from some roots. What depends on the class of an object only is found once.

    Args:
        namespace: gets the objects that expressions begin with.
    """

    def __init__(self, namespace: Namespace) -> None:
        self._namespace = namespace
        self._leaves = _LEAVES
        self._attributes: dict[tuple[type, tuple[str, ...]], list[tuple[str, Any]]] = {}
        self._is_library = functools.cache(_is_library)

    def places(self, roots: Sequence[Any]) -> Iterator[Place]:
        """Every place of a tensor or a module, and what is near and empty; nearest first."""
        waiting: deque[tuple[str, Any, tuple[str, ...], int]] = deque(
            [(self._bind(root), root, (), 0) for root in roots]
        )
        seen: dict[int, Any] = {}  # kept alive: another object could get its id
        while waiting and len(seen) < _MOST_OBJECTS:
            text, found, within, steps = waiting.popleft()
            self._leaves = _LEAVES if steps < _NEAR else _FAR_LEAVES
            try:
                is_tensor = isinstance(found, Tensor)
                may_fill = steps <= _NEAR and _is_empty(found)
                is_place = is_tensor or may_fill or isinstance(found, nn.Module)
                inner = (*within, text) if isinstance(found, _GROWING) else within
                parts = [] if is_tensor or id(found) in seen else self._parts(text, found)
            except Exception:  # an object that raises when it is inspected
                continue
            if is_place:
                yield Place(text, found, within, may_fill)
            if not is_tensor:
                seen[id(found)] = found
            waiting.extend([(of_part, part, inner, steps + 1) for of_part, part in parts])

    def _bind(self, found: Any) -> str:
        name = f"o{len(self._namespace)}"
        self._namespace[name] = found
        return name

    def _bound(self, found: Any) -> _Part:
        return self._bind(found), found

    def _parts(self, text: str, found: Any) -> list[_Part]:
        if isinstance(found, (dict, MappingProxyType)) and not _is_read_otherwise(found):
            return self._items(text, islice(found.items(), _MOST_ITEMS))
        if isinstance(found, (list, tuple, deque)) and not _is_read_otherwise(found):
            return self._items(text, islice(enumerate(found), _MOST_ITEMS))
        if isinstance(found, MethodType):
            return [self._bound(found.__self__), *self._function_parts(found.__func__)]  # type: ignore[arg-type]
        if isinstance(found, functools.partial):
            return [(f"{text}.{name}", getattr(found, name)) for name in ("func", "args", "keywords")]
        if isinstance(found, Immutable):
            names = ("parameters", "observable", "operations", "measurements")
            return [(f"{text}.{name}", getattr(found, name)) for name in names if hasattr(found, name)]
        if isinstance(found, ModuleType):
            return []
        if operators_front_end(found) is not None:
            return [(f"{text}.data", found.data)]
        if not self._is_users(found):
            inner = getattr(found, "__dict__", {}).get("__wrapped__")  # of a compiled function
            return [] if inner is None else [(f"{text}.__wrapped__", inner)]
        if isinstance(found, FunctionType):
            return self._function_parts(found)
        if isinstance(found, type):
            return self._class_parts(found, found, text)
        return self._object_parts(found, text)

    def _is_users(self, found: Any) -> bool:
        """Whether it may refer to something of a user's."""
        if isinstance(found, (FunctionType, type)):
            return not _is_of_python(found.__module__) and not self._is_library(found.__module__)
        return isinstance(found, nn.Module) or not self._is_library(type(found).__module__)

    def _items(self, text: str, items: Iterable[tuple[Any, Any]]) -> list[_Part]:
        return [(f"{text}[{self._key(key)}]", part) for key, part in items if not self._is_leaf(part)]

    def _is_leaf(self, part: Any) -> bool:
        """Whether it refers to nothing, as a tuple of numbers does."""
        if type(part) is tuple and part:
            return self._leaves.issuperset(map(type, part))
        return type(part) in self._leaves

    def _key(self, key: Any) -> str:
        return repr(key) if type(key) in (int, str) else self._bind(key)

    def _object_parts(self, found: Any, text: str) -> list[_Part]:
        """An object's attributes, and those of its class."""
        attributes = list(getattr(found, "__dict__", {}).items())
        if isinstance(found, nn.Module):  # a function does not loop over the dictionaries of hooks
            attributes = [
                (n, value)
                for n, value in attributes
                if n in _OF_MODULES or not (n.startswith("_") and _is_empty(value))
            ]
        return [*self._items(f"{text}.__dict__", attributes), *self._class_parts(type(found), found, text)]

    def _class_parts(self, kind: type, found: Any, text: str) -> list[_Part]:
        """What an object (or a class) gets from its class: attributes, slots, and what methods refer to.

        Attributes are found in the class's dictionary, without running code, and read later as the function reads them.
        """
        hidden = () if found is kind else tuple(getattr(found, "__dict__", ()))
        parts: list[_Part] = []
        if (kind, hidden) not in self._attributes:
            functions, self._attributes[kind, hidden] = self._of_class(kind, hidden)
            parts += map(self._bound, functions)  # once: they are not the object's own
        for name, value in self._attributes[kind, hidden]:
            if not isinstance(value, MemberDescriptorType):
                parts.append((_attribute(text, name), value))
            elif found is not kind:
                parts += self._slot(found, name, value, text)
        return parts

    def _of_class(self, kind: type, hidden: Iterable[str]) -> tuple[list[FunctionType], list[tuple[str, Any]]]:
        """The functions of a class's methods and properties, and its other attributes, with the slots."""
        functions, attributes, names = [], [], set(hidden)
        for base in kind.__mro__:
            if _is_of_python(base.__module__) or self._is_library(base.__module__):
                continue
            for name, value in vars(base).items():
                if name in names:
                    continue
                names.add(name)
                function = _function_of(value)
                if isinstance(function, FunctionType):
                    functions.append(function)
                elif name.startswith("__"):
                    continue
                elif isinstance(value, MemberDescriptorType) or not hasattr(type(value), "__get__"):
                    attributes.append((name, value))
        return functions, attributes

    def _slot(self, found: Any, name: str, slot: MemberDescriptorType, text: str) -> list[_Part]:
        try:
            value = slot.__get__(found)
        except AttributeError:  # not filled
            return []
        return [] if self._is_leaf(value) else [(_attribute(text, name), value)]

    def _function_parts(self, function: FunctionType) -> list[_Part]:
        parts = []
        for cell in function.__closure__ or ():
            try:
                found = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            parts.append((f"{self._bind(cell)}.cell_contents", found))
        parts += [self._bound(values) for values in (function.__defaults__, function.__kwdefaults__) if values]
        wrapped = vars(function).get("__wrapped__")
        if wrapped is not None:
            parts.append(self._bound(wrapped))
        names = set(_names(function.__code__))
        return parts + self._global_parts(function.__globals__, names)

    def _global_parts(self, globals_: dict[str, Any], names: set[str]) -> list[_Part]:
        """The globals that a function names, and those attributes that it names of modules among them."""
        parts = []
        bound = self._bind(globals_)
        for name in sorted(names & globals_.keys()):
            found = globals_[name]
            parts.append((f"{bound}[{name!r}]", found))
            if isinstance(found, ModuleType) and not self._is_library(found.__name__):
                inner = vars(found)
                module = f"{bound}[{name!r}].__dict__"
                parts += [(f"{module}[{n!r}]", inner[n]) for n in sorted(names & inner.keys())]
        return parts


def _is_empty(found: Any) -> bool:
    return found is None or (isinstance(found, _GROWING) and not found)


def _is_read_otherwise(container: Any) -> bool:
    """Whether its class has a `__getitem__` of its own."""
    return type(container).__getitem__ not in _STANDARD_READS


def _attribute(text: str, name: str) -> str:
    return f"{text}.{name}" if name.isidentifier() and not iskeyword(name) else f"getattr({text}, {name!r})"


def _function_of(value: Any) -> Any:
    """The function of a method, property or cached property."""
    if isinstance(value, property):
        return value.fget
    if isinstance(value, functools.cached_property):
        return value.func
    return value.__func__ if isinstance(value, (staticmethod, classmethod)) else value


def _is_library(module: str | None) -> bool:
    top = (module or "").split(".")[0]
    return top in _LIBRARIES or any(top in front_end.libraries for front_end in front_ends())


def _is_of_python(module: str | None) -> bool:
    """Whether it is in the standard library, whose functions and classes (not objects) refer to nothing of a user's."""
    return (module or "").split(".")[0] in sys.stdlib_module_names and module != "__main__"


def _names(code: CodeType) -> Iterator[str]:
    """The names that the code of a function and of its inner functions looks up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
