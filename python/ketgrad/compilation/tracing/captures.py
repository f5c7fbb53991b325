"""Captures: where a traced function finds tensors that are not its arguments.

A tensor that a traced function uses, but does not get as an argument, is searched for in what the function refers to:
closure, globals, `self`, and the containers, modules, classes and objects reachable from there. The places where it is
found are read before each call, so that another tensor put there (`self.weight = …`) is noticed, and so is a container
that grows, shrinks or gets other keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

from .search import Namespace, Place, Search

_MOST_KEYS = 64
"""Dictionaries of at most so many keys are compared by their keys, larger ones by their size."""


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


class Captures:
    """What is reachable from a function and other objects; searched once, when it is first needed."""

    def __init__(self, roots: Sequence[Any]) -> None:
        self._roots = roots
        self._namespace: Namespace = {"size": _size}
        self._found: list[Place] | None = None
        self._tensors: dict[int, list[Place]] = {}

    def _places(self) -> list[Place]:
        if self._found is None:
            self._found = list(Search(self._namespace).places(self._roots))
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

    def _places_of(self, tensor: Tensor) -> list[Place]:
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
        return eval(f"lambda: ({''.join([f'{text}, ' for text in texts])})", self._namespace)  # type: ignore[no-any-return]


def _size(container: Any) -> Any:
    if container is None:
        return None
    has_keys = isinstance(container, (dict, MappingProxyType)) and len(container) <= _MOST_KEYS
    return tuple(container) if has_keys else len(container)
