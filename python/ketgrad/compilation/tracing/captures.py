"""Captures: where a traced function finds tensors that are not its arguments.

A tensor that a traced function uses, but does not get as an argument, is searched for in what the function refers to:
closure, globals, `self`, and the containers, modules, classes and objects reachable from there. The places where it is
found are read before each call, so that another tensor put there (`self.weight = …`) is noticed, and so is a container
that grows, shrinks or gets other keys.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import islice
from keyword import iskeyword
from types import CodeType, FunctionType, MappingProxyType, MemberDescriptorType, MethodType, ModuleType
from typing import Any, NamedTuple

from torch import Tensor, nn

from ...circuit.parsing import Immutable
from ..front_ends import front_ends, operators_front_end

_MOST_OBJECTS = 20_000
_MOST_ITEMS = 2_000

_NEAR = 4
"""Within so many steps from the function, places that are empty (None, an empty container) are guarded too."""

_GROWING = (list, dict, deque, set, tuple, MappingProxyType)

_MOST_KEYS = 64
"""Dictionaries of at most so many keys are compared by their keys, larger ones by their size."""

_OF_MODULES = ("_parameters", "_buffers", "_modules")
"""The dictionaries of a torch.nn.Module that a function may loop over."""

# Libraries whose functions refer to nothing that a user has put there.
_LIBRARIES = frozenset({"builtins", "functools", "ketgrad", "math", "numpy", "random", "scipy", "torch"})

_LEAVES = frozenset({bool, bytes, complex, float, int, str})
"""Types of what leads to nothing."""


class Location(NamedTuple):
    """The places of one tensor.

    Attributes:
        read: the present objects, one per place.
        names: the places, as expressions.
        within: the containers that lead there, as expressions.
    """

    read: Callable[[], tuple[Any, ...]]
    names: tuple[str, ...]
    within: tuple[str, ...]


class ContainerGuard(NamedTuple):
    """The guard of the containers and modules that a trace depends on.

    Attributes:
        read: the present state: keys of dictionaries, sizes of other containers, the modules themselves.
        names: the places, as expressions.
        expected: the state while tracing.
    """

    read: Callable[[], tuple[Any, ...]]
    names: tuple[str, ...]
    expected: tuple[Any, ...]


class _Place(NamedTuple):
    """An expression, over the objects in a namespace, that leads to an object.

    Attributes:
        within: the containers on the way.
        steps: from the root.
        may_fill: whether it is near and empty, so that something may be put there.
    """

    text: str
    found: Any
    within: tuple[str, ...] = ()
    steps: int = 0
    may_fill: bool = False


class Captures:
    """What is reachable from a function and other objects; searched once, when it is first needed."""

    def __init__(self, roots: Sequence[Any]) -> None:
        self._roots = roots
        self._search = _Search()
        self._found: list[_Place] | None = None
        self._tensors: dict[int, list[_Place]] = {}

    def _places(self) -> list[_Place]:
        if self._found is None:
            self._found = list(self._search.reachable(self._roots))
            self._tensors = {}
            for place in self._found:
                if isinstance(place.found, Tensor):
                    self._tensors.setdefault(id(place.found), []).append(place)
        return self._found

    def locate(self, tensor: Tensor) -> Location | None:
        """All places of a tensor, None if there is none."""
        places = self._places_of(tensor)
        if not places:
            self._found = None  # the function itself may have put it there since
            places = self._places_of(tensor)
        if not places:
            return None
        names = tuple([place.text for place in places])
        within = dict.fromkeys(container for place in places for container in place.within)
        return Location(self._reader(names), names, tuple(within))

    def _places_of(self, tensor: Tensor) -> list[_Place]:
        self._places()
        return [place for place in self._tensors.get(id(tensor), ()) if place.found is tensor]

    def modules(self) -> list[nn.Module]:
        """The reachable modules, on whose training mode the function may depend."""
        return [place.found for place in self._places() if isinstance(place.found, nn.Module)]

    def container_guard(self, locations: Iterable[Location]) -> ContainerGuard:
        """The guard of the containers on the way to the locations, of near empty places, and of modules."""
        names = dict.fromkeys(container for location in locations for container in location.within)
        names.update(dict.fromkeys(place.text for place in self._places() if place.may_fill))
        texts = [f"size({name})" for name in names]
        # Modules that the namespace itself holds cannot be replaced.
        texts += [p.text for p in self._places() if isinstance(p.found, nn.Module) and not p.text.isidentifier()]
        read = self._reader(texts)
        return ContainerGuard(read, tuple(texts), read())

    def _reader(self, texts: Sequence[str]) -> Callable[[], tuple[Any, ...]]:
        return eval(f"lambda: ({''.join([f'{text}, ' for text in texts])})", self._search.namespace)  # type: ignore[no-any-return]


def _size(container: Any) -> Any:
    if container is None:
        return None
    has_keys = isinstance(container, (dict, MappingProxyType)) and len(container) <= _MOST_KEYS
    return tuple(container) if has_keys else len(container)


def _is_empty(found: Any) -> bool:
    return found is None or (isinstance(found, _GROWING) and not found)


class _Members(NamedTuple):
    """What objects get from their class.

    Attributes:
        functions: its methods, and those of properties and the like.
        attributes: other attributes in its dictionary, by name.
        slots: the descriptors of its slots, by name.
    """

    functions: list[FunctionType]
    attributes: dict[str, Any]
    slots: dict[str, MemberDescriptorType]


class _Search:
    """A search of everything that some objects refer to.

    Attributes:
        namespace: the objects in which expressions begin, by name.
    """

    def __init__(self) -> None:
        self.namespace: dict[str, Any] = {"size": _size}
        self._members: dict[type, _Members] = {}

    def reachable(self, roots: Sequence[Any]) -> Iterator[_Place]:
        """Everything that the roots refer to, nearest first: every place of a tensor, one place of anything else."""
        waiting = deque([_Place(self.bind(root), root) for root in roots])
        seen: set[int] = set()
        self._members.clear()
        while waiting and len(seen) < _MOST_OBJECTS:
            text, found, within, steps, _ = place = waiting.popleft()
            try:
                parts = [] if isinstance(found, Tensor) or id(found) in seen else list(_parts(place, self))
                inside = (*within, text) if isinstance(found, _GROWING) else within
                may_fill = steps <= _NEAR and _is_empty(found)
            except Exception:  # an object that raises when it is inspected
                continue
            yield _Place(text, found, within, steps, may_fill)
            if not isinstance(found, Tensor):
                seen.add(id(found))
            waiting.extend([_Place(part.text, part.found, inside, steps + 1) for part in parts])

    def bind(self, found: Any) -> str:
        """A name for an object."""
        name = f"o{len(self.namespace)}"
        self.namespace[name] = found
        return name

    def members(self, kind: type) -> tuple[_Members, bool]:
        """What objects get from a class, and whether this is asked for the first time."""
        is_new = kind not in self._members
        if is_new:
            self._members[kind] = _members_of(kind)
        return self._members[kind], is_new


def _members_of(kind: type) -> _Members:
    """They are found in the dictionaries of the class and its bases, without running code."""
    found = _Members([], {}, {})
    names = set()
    for base in kind.__mro__:
        if _is_of_python(base.__module__) or _is_library(base.__module__):
            continue
        for name, value in vars(base).items():
            if name in names:
                continue
            names.add(name)
            function = _function_of(value)
            if isinstance(function, FunctionType):
                found.functions.append(function)
            elif name.startswith("__") or type(value) in _LEAVES:
                continue
            elif not hasattr(type(value), "__get__"):
                found.attributes[name] = value
            elif isinstance(value, MemberDescriptorType):
                found.slots[name] = value
    return found


def _parts(place: _Place, search: _Search) -> Iterable[_Place]:
    text, found = place.text, place.found
    if isinstance(found, MethodType):
        self_ = search.bind(found.__self__)
        return [_Place(self_, found.__self__), *_function_parts(found.__func__, search)]  # type: ignore[arg-type]
    if isinstance(found, functools.partial):
        return [_Place(f"{text}.{name}", getattr(found, name)) for name in ("func", "args", "keywords")]
    if isinstance(found, (dict, MappingProxyType)) and not _is_read_otherwise(found):
        return _items(text, islice(found.items(), _MOST_ITEMS), search)
    if isinstance(found, (list, tuple, deque)) and not _is_read_otherwise(found):
        return _items(text, islice(enumerate(found), _MOST_ITEMS), search)
    if isinstance(found, Immutable):
        names = ("parameters", "observable", "operations", "measurements")
        return [_Place(f"{text}.{name}", getattr(found, name)) for name in names if hasattr(found, name)]
    if isinstance(found, ModuleType):
        return []
    if operators_front_end(found) is not None:
        return [_Place(f"{text}.data", found.data)]
    if isinstance(found, (FunctionType, type)):
        is_users = not _is_of_python(found.__module__) and not _is_library(found.__module__)
    else:
        is_users = isinstance(found, nn.Module) or not _is_library(type(found).__module__)
    if not is_users:
        inner = getattr(found, "__dict__", {}).get("__wrapped__")  # of a compiled function
        return [] if inner is None else [_Place(f"{text}.__wrapped__", inner)]
    if isinstance(found, FunctionType):
        return _function_parts(found, search)
    if isinstance(found, type):
        return _class_parts(found, found, text, search)
    return _object_parts(found, text, search)


def _is_read_otherwise(container: Any) -> bool:
    """Whether its class has a `__getitem__` of its own."""
    standard = (dict, list, tuple, deque, MappingProxyType)
    return all(type(container).__getitem__ is not kind.__getitem__ for kind in standard)


def _object_parts(found: Any, text: str, search: _Search) -> list[_Place]:
    """An object's attributes, and those of its class."""
    attributes = list(getattr(found, "__dict__", {}).items())
    if isinstance(found, nn.Module):  # a function does not loop over the dictionaries of hooks
        attributes = [
            (n, value) for n, value in attributes if n in _OF_MODULES or not (n.startswith("_") and _is_empty(value))
        ]
    return [*_items(f"{text}.__dict__", attributes, search), *_class_parts(type(found), found, text, search)]


def _class_parts(kind: type, found: Any, text: str, search: _Search) -> list[_Place]:
    """What an object (or a class) gets from its class: attributes, slots, and what methods refer to.

    Attributes are read later as the function reads them. Functions are the same for all objects of a class.
    """
    members, is_new = search.members(kind)
    hidden: Collection[str] = () if found is kind else getattr(found, "__dict__", ())
    parts = [_Place(search.bind(function), function) for function in members.functions if is_new]
    parts += [_Place(_attribute(text, n), value) for n, value in members.attributes.items() if n not in hidden]
    if found is kind:
        return parts
    for name, slot in members.slots.items():
        with contextlib.suppress(AttributeError):  # a slot that is not filled
            parts.append(_Place(_attribute(text, name), slot.__get__(found)))
    return parts


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


def _items(text: str, items: Iterable[tuple[Any, Any]], search: _Search) -> list[_Place]:
    pairs = [(key, part) for key, part in items if type(part) not in _LEAVES and not _has_only_leaves(part)]
    return [_Place(f"{text}[{_key(key, search)}]", part) for key, part in pairs]


def _has_only_leaves(found: Any) -> bool:
    """Whether it is a tuple that leads to nothing, and will not. An empty one may be replaced."""
    return type(found) is tuple and bool(found) and _LEAVES.issuperset(map(type, found))


def _key(key: Any, search: _Search) -> str:
    return repr(key) if type(key) in (int, str) else search.bind(key)


def _function_parts(function: FunctionType, search: _Search) -> list[_Place]:
    parts = []
    for cell in function.__closure__ or ():
        try:
            found = cell.cell_contents
        except ValueError:  # not filled yet
            continue
        parts.append(_Place(f"{search.bind(cell)}.cell_contents", found))
    for values in (function.__defaults__, function.__kwdefaults__):
        if values:
            parts.append(_Place(search.bind(values), values))
    wrapped = vars(function).get("__wrapped__")
    if wrapped is not None:
        parts.append(_Place(search.bind(wrapped), wrapped))
    names = set(_names(function.__code__))
    return parts + _global_parts(function.__globals__, names, search)


def _global_parts(globals_: dict[str, Any], names: set[str], search: _Search) -> list[_Place]:
    """The globals that a function names, and those attributes that it names of modules among them."""
    parts = []
    bound = search.bind(globals_)
    for name in sorted(names & globals_.keys()):
        found = globals_[name]
        parts.append(_Place(f"{bound}[{name!r}]", found))
        if isinstance(found, ModuleType) and not _is_library(found.__name__):
            inner = vars(found)
            module = f"{bound}[{name!r}].__dict__"
            parts += [_Place(f"{module}[{n!r}]", inner[n]) for n in sorted(names & inner.keys())]
    return parts


def _names(code: CodeType) -> Iterator[str]:
    """The names that the code of a function and of its inner functions looks up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
