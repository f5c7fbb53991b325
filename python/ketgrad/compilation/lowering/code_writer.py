"""The Python code of a plan: the torch calls of a trace on which native calls and returned values depend."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...circuit.types import Array
from ..tracing.trace import Node, Ref, Trace


class Ending(NamedTuple):
    """The code of `CompiledPlan.finish`, and the values that it takes from `arithmetic`."""

    source: str
    kept: tuple[int, ...]


class CodeWriter:
    """Writes the code of a plan.

    Values of the trace are named v0, v1, …, objects k0, k1, …, and the targets of `emit` w0, w1, ….

    Args:
        trace: of the function.
        number: a tensor → its number in the trace.

    Attributes:
        objects: the objects, by name.
    """

    def __init__(self, trace: Trace, number: Callable[[Tensor], int]) -> None:
        self.trace = trace
        self.number = number
        self.objects: dict[str, Any] = {"torch": torch}
        self._needed: set[int] = set()
        self._whole: set[int] = set()
        self._columns: dict[int, set[int]] = {}
        self._tail: list[str] = []

    def text(self, value: int | float | Array | Tensor, columns: Iterable[int] | None = None) -> str:
        """The expression of a parameter's tensor; `columns` are the elements that are read, None: all."""
        if not isinstance(value, int):
            return self.name(torch.as_tensor(value))
        self._needed.add(value)
        if columns is None:
            self._whole.add(value)
        else:
            self._columns.setdefault(value, set()).update(columns)
        return f"v{value}"

    def unread(self, batched: Sequence[int]) -> dict[int, tuple[int, ...]]:
        """See `CompiledPlan`; `batched` are the batched arguments."""
        found = {}
        for position, number in enumerate(self.trace.arguments):
            tensor = self.trace.values[number].tensor
            if number not in self._whole:
                size = tensor.numel() // tensor.shape[0] if position in batched else tensor.numel()
                columns = set(range(size)).difference(self._columns.get(number, ()))
                found[position] = tuple(sorted(columns))
        return {position: columns for position, columns in found.items() if columns}

    def emit(self, expression: str) -> str:
        """Append an assignment to the function's own arithmetic; returns the name of its target."""
        name = f"w{len(self._tail)}"
        self._tail.append(f"    {name} = {expression}")
        return name

    def name(self, found: Any) -> str:
        """A new name for an object."""
        name = f"k{len(self.objects)}"
        self.objects[name] = found
        return name

    def arithmetic(self, boundary: int, passed: Sequence[Sequence[str]], kept: Sequence[int]) -> str:
        """The code of `CompiledPlan.arithmetic`.

        Args:
            boundary: the number of nodes before the native calls.
            passed: for each call the expressions of the tensors that it takes.
            kept: the values that `finish` takes.
        """
        numbers = [*self.trace.arguments, *[captured.number for captured in self.trace.captured]]
        self._needed.update(kept)
        self._whole.update(kept)
        lines = [f"def arithmetic({', '.join(f'v{number}' for number in numbers)}):"]
        lines += self.body(self.needed_nodes(self.trace.nodes[:boundary], self._needed))
        lines += self._tail
        tuples = [*passed, [f"v{number}" for number in kept]]
        lines.append("    return (" + "".join(f"{_tuple(texts)}, " for texts in tuples) + ")")
        return "\n".join(lines)

    def ending(self, returned: Any, boundary: int, results: Sequence[int]) -> Ending:
        """The code that computes what the function returns from the values of the results."""
        leaves: list[int] = []
        text = self.returned_text(returned, leaves)
        nodes = self.needed_nodes(self.trace.nodes[boundary:], set(leaves))
        computed = {number for node in nodes for number, _ in node.outputs}.union(results)
        used = [*leaves, *[number for node in nodes for number in node.inputs]]
        kept = tuple(dict.fromkeys(number for number in used if number not in computed))
        lines = [f"def finish({', '.join(f'v{number}' for number in [*kept, *results])}):"]
        lines += [*self.body(nodes), f"    return {text}"]
        return Ending("\n".join(lines), kept)

    def returned_text(self, item: Any, leaves: list[int]) -> str:
        """The expression of what the function returns; the numbers of its tensors are appended to `leaves`."""
        if isinstance(item, Tensor):
            leaves.append(self.number(item))
            return f"v{leaves[-1]}"
        if type(item) is dict:
            parts = "".join(f"{self.literal(k)}: {self.returned_text(part, leaves)}, " for k, part in item.items())
            return f"{{{parts}}}"
        if type(item) is list:
            return "[" + "".join(f"{self.returned_text(part, leaves)}, " for part in item) + "]"
        if isinstance(item, tuple):
            parts = "".join(f"{self.returned_text(part, leaves)}, " for part in item)
            return f"{self.name(type(item))}({parts})" if hasattr(item, "_fields") else f"({parts})"
        if item is None or isinstance(item, (bool, int, float, complex, str, np.generic, np.ndarray)):
            return self.name(item)
        raise NotImplementedError(
            f"a compiled function returns tensors in lists, tuples and dictionaries, not in a {type(item).__name__}"
        )

    def needed_nodes(self, nodes: Sequence[Node], values: set[int]) -> Sequence[Node]:
        """The nodes on which some values depend; all nodes if the trace changes tensors in place."""
        if self.trace.mutates:
            return nodes
        needed, kept = set(values), []
        for node in reversed(nodes):
            if not node.outputs or any(number in needed for number, _ in node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        return kept[::-1]

    def body(self, nodes: Sequence[Node]) -> list[str]:
        """The code of nodes."""
        lines = []
        has_grad = True
        for node in nodes:
            self._whole.update(node.inputs)
            if node.has_grad != has_grad:
                has_grad = node.has_grad
                if not has_grad:
                    lines.append("    with torch.no_grad():")
            indent = "    " if has_grad else "        "
            lines += [indent + line for line in self.lines(node)]
        return lines

    def lines(self, node: Node) -> list[str]:
        """The code of a node."""
        arguments = [self.literal(a) for a in node.args]
        arguments += [f"{key}={self.literal(a)}" for key, a in node.kwargs.items()]
        call = f"{self.name(node.function)}({', '.join(arguments)})"
        if not node.outputs:
            return [call]
        if len(node.outputs) == 1 and not node.outputs[0][1]:
            return [f"v{node.outputs[0][0]} = {call}"]
        paths = [(number, "".join(f"[{step}]" for step in path)) for number, path in node.outputs]
        return [f"found = {call}", *[f"v{number} = found{path}" for number, path in paths]]

    def literal(self, item: Any) -> str:
        """An argument of a torch call as Python text."""
        if isinstance(item, Ref):
            return f"v{item.number}"
        if item is None or type(item) in (bool, int, str) or (type(item) is float and math.isfinite(item)):
            return repr(item)
        if item is Ellipsis:
            return "..."
        if isinstance(item, slice):
            return f"slice({', '.join(self.literal(part) for part in (item.start, item.stop, item.step))})"
        if isinstance(item, (tuple, list)):
            parts = "".join(f"{self.literal(part)}, " for part in item)
            return f"({parts})" if isinstance(item, tuple) else f"[{parts}]"
        if type(item) is dict:
            return "{" + ", ".join(f"{key!r}: {self.literal(part)}" for key, part in item.items()) + "}"
        return self.name(item)


def _tuple(texts: Sequence[str]) -> str:
    return "(" + "".join(f"{text}, " for text in texts) + ")"
