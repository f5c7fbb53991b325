"""Results: shapes and positions of the measurements' results, splitting of results and joining of cotangents.

An operator call returns two arrays: real results (B, R) and complex results (B, C), with the measurements of a circuit
one after the other in each row. The native measurement table has the result of each kind of measurement; a
`ResultLayout` has those of the measurements of a tape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..circuit.measurements import Measurement
from ..native.library import _C

# `Any`, because torch declares that they return None.
_split_copy: Any = torch.split_with_sizes_copy
_unbind_copy: Any = torch.unbind_copy


class ResultKind(NamedTuple):
    """The result of a kind of measurement: a row of the native measurement table.

    Attributes:
        name: of the measurement.
        subject: what is measured: "observable", "wires" (those that it lists, or all) or "all_wires".
        is_complex: whether the result is complex.
        axes: the number of axes of the result, each of length 2^k for k measured wires.
    """

    name: str
    subject: str
    is_complex: bool
    axes: int


RESULT_KINDS = {row[0]: ResultKind(*row) for row in _C.measurement_table()}
"""By the names of measurements, without those that are sampled."""


class Result(NamedTuple):
    """The position of a measurement's result in the rows of an operator's results.

    Attributes:
        kind: the name of the measurement.
        is_complex: whether it is in the complex results.
        first: its first column there.
        size: its number of columns.
        shape: its shape, without the batch axis.
    """

    kind: str
    is_complex: bool
    first: int
    size: int
    shape: tuple[int, ...]

    def batched_shape(self, batch_size: int | None) -> tuple[int, ...]:
        """The shape, with a leading batch axis unless `batch_size` is None."""
        return self.shape if batch_size is None else (batch_size, *self.shape)


@dataclass(frozen=True, slots=True)
class ResultLayout:
    """The results of one circuit, one per measurement.

    Attributes:
        results: in the order of the measurements.
        real_size, complex_size: columns of the real results (R), and of the complex ones (C).
        are_numbers: whether each result is one real number.
    """

    results: tuple[Result, ...]
    real_size: int
    complex_size: int
    are_numbers: bool

    @staticmethod
    def of(measurements: Sequence[Measurement], num_wires: int) -> ResultLayout:
        """The layout of the results of measurements on `num_wires` wires.

        Raises:
            ValueError: a measurement is sampled, and so no result of a program.
        """
        return _layout(tuple([(kind_of(each), len(each.wires)) for each in measurements]), num_wires)

    # --- results, as the operators return them ------------------------------------------------------------------------

    def split(self, real: Tensor, complex_: Tensor, rows: Sequence[int], has_batch: bool) -> tuple[Tensor, ...]:
        """The results of each tape, tape after tape: no views, so that users may change them in place.

        Args:
            real, complex_: (B, R) and (B, C); their memory may be reused for a result.
            rows: the batch size of each tape, 1 without a batch.
            has_batch: whether results have a batch axis.
        """
        if len(rows) == 1 and len(self.results) == 1:
            result = self.results[0]
            return (_shaped(result, complex_ if result.is_complex else real, has_batch),)
        if self.are_numbers and not has_batch:
            return _unbind_copy(real.reshape(-1))  # type: ignore[no-any-return]
        if self.are_numbers and len(rows) == 1:
            return _unbind_copy(real, 1)  # type: ignore[no-any-return]
        columns = self._columns(real, complex_)
        if len(rows) == 1:
            blocks = [(column,) for column in columns]
        else:
            blocks = [_split_copy(column, rows) for column in columns]
        pairs = list(zip(self.results, blocks, strict=True))
        return tuple([_shaped(result, block[t], has_batch) for t in range(len(rows)) for result, block in pairs])

    def split_views(self, real: Tensor, complex_: Tensor, rows: Sequence[int], has_batch: bool) -> tuple[Tensor, ...]:
        """The same as differentiable views, by operations that functorch can transform."""
        if self.are_numbers and len(rows) == 1:
            return real.unbind(1) if has_batch else real.squeeze(0).unbind(0)
        columns = []
        for result in self.results:
            numbers = complex_ if result.is_complex else real
            columns.append(numbers if len(self.results) == 1 else numbers.narrow(1, result.first, result.size))
        blocks = [(column,) if len(rows) == 1 else column.split(list(rows)) for column in columns]
        pairs = list(zip(self.results, blocks, strict=True))
        return tuple(
            [
                block[t].reshape(result.batched_shape(count if has_batch else None))
                for t, count in enumerate(rows)
                for result, block in pairs
            ]
        )

    def _columns(self, real: Tensor, complex_: Tensor) -> list[Tensor]:
        """The results of all tapes, one block (B, size) per measurement."""
        parts: dict[bool, list[Tensor]] = {}
        for is_complex, numbers in ((False, real), (True, complex_)):
            sizes = [result.size for result in self.results if result.is_complex == is_complex]
            parts[is_complex] = list(_split_copy(numbers, sizes, 1)) if len(sizes) > 1 else [numbers]
        return [parts[result.is_complex].pop(0) for result in self.results]

    # --- cotangents, as the operators take them -----------------------------------------------------------------------

    def join(
        self,
        cotangents: Sequence[Tensor | None],
        rows: Sequence[int],
        has_batch: bool,
        carrier: Tensor,
        empty: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The cotangents of all results as the operators take them, (B, R) and (B, C).

        Args:
            cotangents: one per result, in the order of `split`; None if the result was not used. Other shapes with the
                same number of elements are allowed.
            rows, has_batch: as in `split`.
            carrier: a real tensor with the call's dtype and device.
            empty: returned instead of a new tensor if there are no real, or no complex, results.
        """
        return (
            self._join_side(False, cotangents, rows, has_batch, carrier, empty),
            self._join_side(True, cotangents, rows, has_batch, carrier, empty),
        )

    def _join_side(
        self,
        is_complex: bool,
        cotangents: Sequence[Tensor | None],
        rows: Sequence[int],
        has_batch: bool,
        carrier: Tensor,
        empty: Tensor | None,
    ) -> Tensor:
        """The cotangents of the real or of the complex results."""
        size = self.complex_size if is_complex else self.real_size
        if not size and empty is not None:
            return empty
        dtype = carrier.dtype.to_complex() if is_complex else carrier.dtype
        if not size:
            return carrier.new_empty((sum(rows), 0), dtype=dtype)
        if len(cotangents) == 1 and cotangents[0] is not None:
            joined = cotangents[0].reshape(rows[0], size)
        elif self.are_numbers and len(rows) == 1 and _have_axes(cotangents, int(has_batch)):
            joined = torch.stack(cotangents, -1)  # type: ignore[arg-type]
            joined = joined if has_batch else joined.unsqueeze(0)
        else:
            joined = self._join_lines(is_complex, cotangents, rows, carrier, dtype)
        return joined if joined.dtype is dtype else joined.to(dtype)

    def _join_lines(
        self,
        is_complex: bool,
        cotangents: Sequence[Tensor | None],
        rows: Sequence[int],
        carrier: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        """The general case: block by block, each (rows of a tape, size of a result)."""
        chosen = [(m, result.size) for m, result in enumerate(self.results) if result.is_complex == is_complex]
        width = len(self.results)
        lines = []
        for t, count in enumerate(rows):
            blocks = []
            for m, size in chosen:
                cotangent = cotangents[t * width + m]
                if cotangent is None:
                    blocks.append(carrier.new_zeros((count, size), dtype=dtype))
                else:
                    blocks.append(cotangent.reshape(count, size))
            lines.append(blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1))
        return lines[0] if len(lines) == 1 else torch.cat(lines)


def kind_of(measurement: Measurement) -> ResultKind:
    """The kind of a measurement's result.

    Raises:
        ValueError: the measurement is sampled, and so no result of a program.
    """
    try:
        return RESULT_KINDS[measurement.kind]
    except KeyError:
        raise ValueError(f"{measurement.kind} is drawn from probabilities, it is no result of a program") from None


def is_complex_kind(kind: str) -> bool:
    """Whether a kind of measurement, sampled ones included, has a complex result."""
    return kind in RESULT_KINDS and RESULT_KINDS[kind].is_complex


@lru_cache(maxsize=1024)
def _layout(measured: tuple[tuple[ResultKind, int], ...], num_wires: int) -> ResultLayout:
    """The layout of results of some kinds, each of a number of wires; kept, for circuits differ more than these do."""
    results: list[Result] = []
    filled = {False: 0, True: 0}
    for kind, wires in measured:
        shape = _shape(kind, wires, num_wires)
        size = 1 if not shape else shape[0] ** kind.axes
        results.append(Result(kind.name, kind.is_complex, filled[kind.is_complex], size, shape))
        filled[kind.is_complex] += size
    are_numbers = not filled[True] and all(result.shape == () for result in results)
    return ResultLayout(tuple(results), filled[False], filled[True], are_numbers)


def _shape(kind: ResultKind, wires: int, num_wires: int) -> tuple[int, ...]:
    measured = num_wires if kind.subject == "all_wires" else wires or num_wires
    return (1 << measured,) * kind.axes


def _shaped(result: Result, numbers: Tensor, has_batch: bool) -> Tensor:
    """A block of results (B, size) in the shape of the result; resized in place, because results must not be views."""
    if not has_batch:
        return numbers.resize_(result.shape)
    return numbers if len(result.shape) == 1 else numbers.resize_((numbers.shape[0], *result.shape))


def _have_axes(cotangents: Sequence[Tensor | None], axes: int) -> bool:
    """Whether no cotangent is None and each has so many axes."""
    for cotangent in cotangents:  # noqa: SIM110  (a generator is slower)
        if cotangent is None or cotangent.dim() != axes:
            return False
    return True
