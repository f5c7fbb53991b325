"""Jacobians of a native call: a copy of the circuits for each number of a circuit's results, in one call.

The circuits of a batch are independent, so one cotangent gives a row for all of them: there are as many copies as
numbers in the results of one circuit, for any batch size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..native import operators
from ..native.library import _C


def jacobian_rows(
    program: int, inputs: Sequence[Tensor], ket: Tensor, sizes: tuple[int, int], requested: Sequence[int]
) -> list[Tensor]:
    """The derivatives of all results by the requested inputs, without autograd.

    Args:
        program, inputs, ket, requested: as in `operators.run_execute_vjp`.
        sizes: the numbers of a circuit's real results, R, and of its complex ones, C.

    Returns:
        For each requested input (K, B, *shape of one of its rows), of shared inputs too, with K = R + 2 C: gradients of
        the real results, of the complex results' real parts, and of their imaginary parts.

    Raises:
        MemoryError: the rows do not fit.
    """
    real, complex_ = sizes
    found = _C.find_program(program)
    batch, axes = operators.batch_size(found, inputs), found.input_axes()
    count = real + 2 * complex_
    if inputs[0].device.type == "cpu":  # elsewhere torch's allocator raises
        row = [inputs[i].shape[inputs[i].dim() - axes[i] :].numel() * inputs[i].itemsize for i in requested]
        bytes_each = count * inputs[0].itemsize + sum(row)
        _C.require_memory(float(count * batch * bytes_each), f"a Jacobian of {count} rows")
    units = torch.eye(count, real, dtype=inputs[0].dtype, device=inputs[0].device)
    cotangents = [g.unsqueeze(1).expand(count, batch, -1) for g in (units, _complex_units(units, complex_))]
    return operators.run_execute_vjp(program, inputs, ket, cotangents[0], cotangents[1], requested)


def _complex_units(units: Tensor, size: int) -> Tensor:
    """The cotangents of `size` complex results that go with those of the real ones, (R + 2 C, R): then 1, then i."""
    count, first = units.shape
    cotangents = units.new_zeros((count, size), dtype=units.dtype.to_complex())
    cotangents[first : first + size].fill_diagonal_(1)
    cotangents[first + size :].fill_diagonal_(1j)
    return cotangents


def of_circuits(rows: Tensor, is_batched: bool) -> Tensor:
    """Rows (K, B, …) of an input as derivatives of the results of each circuit, (B, K, …).

    By a batched input it is (B, K, B, …): circuit b depends on the input's row b alone.
    """
    rows = rows.movedim(1, 0)
    if not is_batched:
        return rows
    batch, count, *rest = rows.shape
    found = rows.new_zeros((batch, count, batch, *rest))
    found.diagonal(0, 0, 2).copy_(rows.movedim(0, -1))
    return found
