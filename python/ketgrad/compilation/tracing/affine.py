"""Affine values: results of torch calls that are slices and views of one tensor, times a number plus a number.

Programs read them from that tensor itself, so that plans do not repeat the calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .trace import Affine, Node, Ref, Trace, Value, names

_MOVES = names(
    "__getitem__ T mT broadcast_to chunk clone contiguous diagonal expand flatten flip hsplit moveaxis movedim narrow "
    "permute ravel repeat reshape roll select split split_with_sizes squeeze swapaxes swapdims t tensor_split tile "
    "transpose unbind unflatten unsqueeze view vsplit"
)
"""Calls whose results consist of elements of their tensor."""

_SCALINGS: dict[str, Callable[[float, float, float, bool], tuple[float, float]]] = {
    "add": lambda s, o, c, _: (s, o + c),
    "sub": lambda s, o, c, first: (s, o - c) if first else (-s, c - o),
    "rsub": lambda s, o, c, _: (-s, c - o),
    "mul": lambda s, o, c, _: (s * c, o * c),
    "div": lambda s, o, c, first: (s / c, o / c) if first and c else (math.nan, math.nan),
    "neg": lambda s, o, c, _: (-s, -o),
}
"""(scale, offset, number, whether the tensor is the left operand) → the scale and offset of the result."""

_ALIASES = {
    "__add__": "add", "__radd__": "add", "__sub__": "sub", "__rsub__": "rsub", "__mul__": "mul", "__rmul__": "mul",
    "__truediv__": "div", "true_divide": "div", "divide": "div", "multiply": "mul", "subtract": "sub",
    "negative": "neg", "__neg__": "neg",
}  # fmt: skip

_LARGEST_ROOT = 1 << 24
"""The most elements of a tensor whose slices are tracked."""

Output = tuple[Tensor, tuple[int, ...]]
"""A tensor among the results of a torch call, and the indices that lead to it."""


def affines_of(trace: Trace, node: Node, name: str, outputs: Sequence[Output]) -> list[Affine | None]:
    """The outputs of a torch call as affine values of its input's root; None for one that is no affine value.

    Args:
        trace: with the values before the call.
        node, name: the call, and the name of its function.
        outputs: each with the indices that lead to it in the call's result.
    """
    nothing: list[Affine | None] = [None] * len(outputs)
    if len(set(node.inputs)) != 1 or trace.mutates:
        return nothing
    value = trace.values[node.inputs[0]]
    source = value.tensor
    if source.layout is not torch.strided or source.is_complex() or source.numel() > _LARGEST_ROOT:
        return nothing
    like_source = [_is_like(tensor, source) for tensor, _ in outputs]
    if not any(like_source):
        return nothing
    if name in _MOVES and len(node.inputs) == 1 and node.args and isinstance(node.args[0], Ref):
        start = trace.affine(value.number)
        found = _moved(start, node.function(start.places, *node.args[1:], **node.kwargs), outputs)  # one call for all
    else:
        found = [_scaled(trace, node, name, value)] * len(outputs)
    return [affine if is_like else None for affine, is_like in zip(found, like_source, strict=True)]


def _is_like(tensor: Tensor, source: Tensor) -> bool:
    """Whether an output is neither detached nor converted."""
    return tensor.requires_grad == source.requires_grad and tensor.dtype is source.dtype


def _moved(start: Affine, moved: Any, outputs: Sequence[Output]) -> list[Affine | None]:
    """The outputs of a call that moves elements, given what it makes of their places."""
    found: list[Affine | None] = []
    for tensor, path in outputs:
        places = moved
        for step in path:
            places = places[step]
        keeps_elements = places.dtype is torch.int64 and places.shape == tensor.shape
        found.append(Affine(start.root, places, start.scale, start.offset) if keeps_elements else None)
    return found


def _scaled(trace: Trace, node: Node, name: str, value: Value) -> Affine | None:
    """A tensor times, divided by, plus or minus a number."""
    change = _SCALINGS.get(_ALIASES.get(name, name))
    args = node.args
    if change is None or node.kwargs or value.tensor.dtype not in (torch.float32, torch.float64):
        return None
    numbers = [a for a in args if not isinstance(a, Ref)]
    if len(args) > 2 or len(numbers) != len(args) - 1 or any(type(n) is bool for n in numbers):
        return None
    if not all(isinstance(n, (int, float)) for n in numbers) or (len(args) == 1) != (change is _SCALINGS["neg"]):
        return None
    start = trace.affine(value.number)
    number = float(numbers[0]) if numbers else 0.0
    scale, offset = change(start.scale, start.offset, number, isinstance(args[0], Ref))
    is_finite = math.isfinite(scale) and math.isfinite(offset)
    return Affine(start.root, start.places, scale, offset) if is_finite else None
