"""Diagonals from functions of bits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..native.library import _C

_TOGETHER = 1 << 16
"""Basis states of one call of the function."""


def tabulate(
    function: Callable[[Tensor], Tensor],
    num_wires: int,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """The values of a function of bits on all basis states: a diagonal for `Diagonal` and `DiagonalEvolution`.

    Args:
        function: bits → values, for many basis states at once: from an int64 tensor `(M, num_wires)` of zeros and ones,
            in which column i is wire i, to a real tensor `(M,)`. It is called with at most 65,536 of them.
        num_wires: at least 1.
        dtype: of the result, by default torch's default dtype.
        device: of the bits and of the result, by default torch's default device.

    Returns:
        `(2^num_wires,)`, in the order of the basis states, wire 0 the most significant bit. Gradients reach the tensors
        that the function computes with.

    Raises:
        TypeError: the function is not callable, or returns something else than a real tensor.
        ValueError: there are no wires, or the values are not of shape `(M,)`.
        MemoryError: the result does not fit.

    Example:
        >>> import ketgrad as kg
        >>> kg.tabulate(lambda bits: (bits[:, 0] != bits[:, 1]) + 2 * bits[:, 1], num_wires=2)
        tensor([0., 3., 1., 2.])
    """
    if not callable(function):
        raise TypeError(f"tabulate takes a function of bits, not {type(function).__name__}")
    if type(num_wires) is not int or num_wires < 1:
        raise ValueError(f"tabulate takes a number of wires, at least 1, not {num_wires!r}")
    dtype = torch.get_default_dtype() if dtype is None else dtype
    _C.require_memory(float(dtype.itemsize << min(num_wires, 1000)), f"a diagonal on {num_wires} wires")
    shifts = torch.arange(num_wires - 1, -1, -1, device=device)
    parts = []
    for first in range(0, 1 << num_wires, _TOGETHER):
        states = torch.arange(first, min(first + _TOGETHER, 1 << num_wires), device=device)
        values = function(states[:, None] >> shifts & 1)
        _require_values(values, len(states))
        parts.append(values.to(dtype))
    return torch.cat(parts)


def _require_values(values: object, count: int) -> None:
    expected = "the function of tabulate must return a real tensor (M,) for bits of shape (M, num_wires)"
    if not isinstance(values, Tensor):
        raise TypeError(f"{expected}, not {type(values).__name__}")
    if values.is_complex():
        raise TypeError(f"{expected}, not of dtype {values.dtype}")
    if values.shape != (count,):
        raise ValueError(f"{expected}: for M = {count}, not of shape {tuple(values.shape)}")
