"""How the results of tapes nest: autograd functions take and return flat tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from ..native.torch_private import pytree


class Nesting(NamedTuple):
    """The nesting of the results of several tapes.

    Attributes:
        widths: for each tape the length of its tuple of tensors, −1 for a tensor.
        spec: pytree's description if a result is anything else; otherwise None.
    """

    widths: tuple[int, ...]
    spec: pytree.TreeSpec | None

    def nest(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """Leaves, nested as the results were."""
        if self.spec is not None:
            return pytree.tree_unflatten(leaves, self.spec)  # type: ignore[no-any-return]
        found: list[Any] = []
        first = 0
        for width in self.widths:
            last = first + abs(width)
            found.append(leaves[first] if width < 0 else tuple(leaves[first:last]))
            first = last
        return tuple(found)


def flatten(results: Sequence[Any]) -> tuple[list[Any], Nesting]:
    """The leaves of the results of tapes, and their nesting.

    Nearly every tape has a tensor or a tuple of tensors; pytree, which takes ten times as long, is for the others.
    """
    leaves: list[Any] = []
    widths = []
    for result in results:
        if isinstance(result, Tensor):
            leaves.append(result)
            widths.append(-1)
        elif type(result) is tuple and all(isinstance(each, Tensor) for each in result):
            leaves += result
            widths.append(len(result))
        else:
            found, spec = pytree.tree_flatten(tuple(results))
            return found, Nesting((), spec)
    return leaves, Nesting(tuple(widths), None)
