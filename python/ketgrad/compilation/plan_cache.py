"""`PlanCache`: the compiled plans of a function."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..execution.programs import structure_cache
from .arguments import Key


class _HasBytes(Protocol):
    @property
    def bytes(self) -> int:
        """Approximately the memory that a plan takes."""


_Plan = TypeVar("_Plan", bound=_HasBytes)


class PlanCache(Generic[_Plan]):
    """Plans by key; the least recently used are evicted while all take more than `structure_cache.limit` bytes."""

    _OF_KEY = 1024
    """Approximate bytes that a key takes."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Key, _Plan] = OrderedDict()
        self._lock = threading.Lock()
        self._next_check = 0

    def __len__(self) -> int:
        return len(self._kept)

    def values(self) -> list[_Plan]:
        """The plans, each once."""
        with self._lock:
            return self._plans()

    def has(self, plan: _Plan) -> bool:
        """Whether a plan is cached under any key."""
        return any(plan is kept for kept in self.values())

    def find(self, key: Key) -> _Plan | None:
        """The plan of a key, None if there is none; it becomes the most recently used."""
        with self._lock:
            plan = self._kept.get(key)
            if plan is not None:
                self._kept.move_to_end(key)
            return plan

    def items(self) -> list[tuple[Key, _Plan]]:
        """The keys and their plans."""
        with self._lock:
            return list(self._kept.items())

    def keep(self, key: Key, plan: _Plan) -> _Plan:
        """Add a plan as the most recently used. The limit is checked whenever the number of plans grew by an eighth."""
        with self._lock:
            self._kept[key] = plan
            if len(self._kept) >= self._next_check:
                while len(self._kept) > 1 and self._bytes() > structure_cache.limit:
                    for _ in range(1 + len(self._kept) // 8):
                        self._kept.popitem(last=False)
                self._next_check = 1 + len(self._kept) + len(self._kept) // 8
        return plan

    def drop(self, is_dropped: Callable[[_Plan], bool]) -> None:
        """Remove the plans that satisfy a condition."""
        for key, plan in self.items():
            if is_dropped(plan):
                with self._lock:
                    self._kept.pop(key, None)

    def _plans(self) -> list[_Plan]:
        return list({id(plan): plan for plan in self._kept.values()}.values())

    def _bytes(self) -> int:
        return self._OF_KEY * len(self._kept) + sum(plan.bytes for plan in self._plans())
