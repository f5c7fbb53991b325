"""The results of a native call: split into those of its tapes, and their cotangents joined for the operator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .plan import NativeCall

# They are declared to return nothing.
_split_copy: Any = torch.split_with_sizes_copy
_unbind_copy: Any = torch.unbind_copy


def split(call: NativeCall, batch: int, real: Tensor, complex_: Tensor) -> tuple[Tensor, ...]:
    """The results of each tape, one a measurement, tape after tape; no views, so that they can be changed in place."""
    results = call.results
    if len(call.tapes) == 1:
        if len(results) == 1:
            return (_shaped(call, 0, complex_ if results[0].is_complex else real),)
        if call.are_scalars:
            columns = _unbind_copy(real, 1)
            return columns if call.has_batch else tuple([column.squeeze_(0) for column in columns])
    columns = _blocks(call, real, complex_)
    if len(call.tapes) == 1:
        return tuple([_shaped(call, m, column) for m, column in enumerate(columns)])
    rows = _rows(call, batch)
    blocks = [_split_copy(column, rows) for column in columns]
    return tuple([_shaped(call, m, block[t]) for t in range(len(rows)) for m, block in enumerate(blocks)])


def split_views(call: NativeCall, batch: int, real: Tensor, complex_: Tensor) -> tuple[Tensor, ...]:
    """The same by operations that torch can differentiate and transform."""
    if call.are_scalars and len(call.tapes) == 1:
        return real.unbind(1) if call.has_batch else real.squeeze(0).unbind(0)
    columns = []
    for result in call.results:
        numbers = complex_ if result.is_complex else real
        columns.append(numbers if len(call.results) == 1 else numbers.narrow(1, result.first, result.size))
    rows = _rows(call, batch)
    blocks = [(column,) if len(rows) == 1 else column.split(rows) for column in columns]
    pairs = [
        (t, count, block, shape)
        for t, count in enumerate(rows)
        for block, shape in zip(blocks, call.shapes, strict=True)
    ]
    return tuple([block[t].reshape((count, *shape) if call.has_batch else shape) for t, count, block, shape in pairs])


def _blocks(call: NativeCall, real: Tensor, complex_: Tensor) -> list[Tensor]:
    """The results of all tapes, one block (B, size) a measurement."""
    parts: dict[bool, list[Tensor]] = {}
    for is_complex, numbers in ((False, real), (True, complex_)):
        sizes = [result.size for result in call.results if result.is_complex == is_complex]
        several = len(sizes) > 1
        parts[is_complex] = list(_split_copy(numbers, sizes, 1)) if several else [numbers]
    return [parts[result.is_complex].pop(0) for result in call.results]


def _rows(call: NativeCall, batch: int) -> list[int]:
    """The number of circuits of each tape."""
    return [batch // len(call.tapes)] * len(call.tapes) if call.rows is None else list(call.rows)


def _shaped(call: NativeCall, measurement: int, numbers: Tensor) -> Tensor:
    """A block of results (B, size) in the measurement's shape; resized in place, for a view cannot be changed later."""
    shape = call.shapes[measurement]
    if not call.has_batch:
        return numbers.resize_(shape)
    return numbers if len(shape) == 1 else numbers.resize_((numbers.shape[0], *shape))


def join(
    call: NativeCall, batch: int, cotangents: Sequence[Tensor | None], like: Tensor, empty: Any
) -> tuple[Tensor, Tensor]:
    """The cotangents of all results as the operator takes them, (B, R) and (B, C).

    Args:
        cotangents: one a result, None: zero.
        like: a tensor of the call's precision and device.
        empty: what to return for a kind of which there are no results.
    """
    if not call.complex_results:
        return _joined(call, batch, cotangents, False, like), empty
    if not call.real_results:
        return empty, _joined(call, batch, cotangents, True, like)
    return _joined(call, batch, cotangents, False, like), _joined(call, batch, cotangents, True, like)


def _joined(
    call: NativeCall, batch: int, cotangents: Sequence[Tensor | None], is_complex: bool, like: Tensor
) -> Tensor:
    """The cotangents of the real or of the complex results, (B, size)."""
    size = call.complex_results if is_complex else call.real_results
    if len(cotangents) == 1 and cotangents[0] is not None:
        return cotangents[0].reshape(batch, size)
    if call.are_scalars and set(map(type, cotangents)) == {Tensor}:  # none is None
        stacked = torch.stack(cotangents, -1)  # type: ignore[arg-type]
        return stacked if call.has_batch else stacked.unsqueeze(0)
    dtype = like.dtype.to_complex() if is_complex else like.dtype
    chosen = [m for m, result in enumerate(call.results) if result.is_complex == is_complex]
    width = len(call.results)
    rows = enumerate(_rows(call, batch))
    lines = [_joined_row(call, cotangents[t * width :], chosen, count, like, dtype) for t, count in rows]
    return lines[0] if len(lines) == 1 else torch.cat(lines)


def _joined_row(
    call: NativeCall,
    cotangents: Sequence[Tensor | None],
    chosen: list[int],
    rows: int,
    like: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """The cotangents of some results of one tape, (rows, sum of their sizes)."""
    blocks = []
    for m in chosen:
        cotangent, size = cotangents[m], call.results[m].size
        if cotangent is None:
            blocks.append(like.new_zeros((rows, size), dtype=dtype))
        else:
            blocks.append(cotangent.reshape(rows, size))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)
