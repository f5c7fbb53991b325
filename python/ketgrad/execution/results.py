"""Results: what a measurement yields, where its numbers stand, and how they are taken apart and joined.

An operator call has two arrays of results: real numbers (B, R) and complex numbers (B, C), of each circuit those of one
measurement after the other. What a kind of measurement yields is said by the native table of measurements alone; a
`ResultLayout` says it of the measurements of a tape, for whoever splits results or joins their cotangents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..circuit.measurements import Measurement
from ..native.library import _C

# They are declared to return nothing.
_split_copy: Any = torch.split_with_sizes_copy
_unbind_copy: Any = torch.unbind_copy


class ResultKind(NamedTuple):
    """What a kind of measurement yields: a row of the native table.

    Attributes:
        name: of the measurement.
        subject: what it is of: "observable", "wires" (those that it names, or all), "all_wires".
        is_complex: whether the numbers are complex.
        axes: the result is an array with so many axes of length 2^k, of k measured wires.
    """

    name: str
    subject: str
    is_complex: bool
    axes: int


RESULT_KINDS = {row[0]: ResultKind(*row) for row in _C.measurement_table()}
"""By the names of measurements; those that are drawn from probabilities are none of them."""


class Result(NamedTuple):
    """Where a measurement's numbers stand: `size` of them from `first` on, in the real or the complex results.

    Attributes:
        kind: the name of the measurement.
        shape: without the batch axis.
    """

    kind: str
    is_complex: bool
    first: int
    size: int
    shape: tuple[int, ...]

    def batched_shape(self, batch_size: int | None) -> tuple[int, ...]:
        """The shape, the batch axis leading where there is one."""
        return self.shape if batch_size is None else (batch_size, *self.shape)


@dataclass(frozen=True, slots=True)
class ResultLayout:
    """The results of one circuit, one a measurement.

    Attributes:
        results: in the order of the measurements.
        real_size, complex_size: numbers in all real results, and in all complex ones.
        are_numbers: whether each result is one real number.
    """

    results: tuple[Result, ...]
    real_size: int
    complex_size: int
    are_numbers: bool

    @staticmethod
    def of(measurements: Sequence[Measurement], num_wires: int) -> ResultLayout:
        """The layout of what is measured on so many wires.

        Raises:
            ValueError: a measurement is drawn from probabilities.
        """
        results: list[Result] = []
        filled = {False: 0, True: 0}
        for measurement in measurements:
            kind = kind_of(measurement)
            shape = _shape(kind, measurement, num_wires)
            size = 1 if not shape else shape[0] ** kind.axes
            results.append(Result(kind.name, kind.is_complex, filled[kind.is_complex], size, shape))
            filled[kind.is_complex] += size
        are_numbers = not filled[True] and all(result.shape == () for result in results)
        return ResultLayout(tuple(results), filled[False], filled[True], are_numbers)

    # --- results, as the operators return them ------------------------------------------------------------------------

    def split(self, real: Tensor, complex_: Tensor, rows: Sequence[int], has_batch: bool) -> tuple[Tensor, ...]:
        """The results of each tape, tape after tape: fresh tensors, no views, so that they may be changed in place.

        Args:
            real, complex_: (B, R) and (B, C); they may be taken for results.
            rows: how many circuits each tape stands for.
            has_batch: whether tapes are batches, whose results have a batch axis.
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
        """The same by operations that torch differentiates and transforms."""
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
        """The results of all tapes, one block (B, size) a measurement."""
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
            cotangents: one for each result, tape after tape, as `split` orders them; None: the result was not used.
            rows, has_batch: as in `split`; a cotangent may have further axes if its numbers are as many.
            carrier: a real tensor of the call's precision and device.
            empty: for a side without numbers, if it is at hand.
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
        """Block by block, each (rows of a tape, size of a result)."""
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
    """What a measurement yields.

    Raises:
        ValueError: it is drawn from probabilities.
    """
    try:
        return RESULT_KINDS[measurement.kind]
    except KeyError:
        raise ValueError(f"{measurement.kind} is drawn from probabilities, it is no result of a program") from None


def is_complex_kind(kind: str) -> bool:
    """Whether a kind of measurement yields complex numbers; those that are drawn from probabilities do not."""
    return kind in RESULT_KINDS and RESULT_KINDS[kind].is_complex


def _shape(kind: ResultKind, measurement: Measurement, num_wires: int) -> tuple[int, ...]:
    measured = num_wires if kind.subject == "all_wires" else len(measurement.wires) or num_wires
    return (1 << measured,) * kind.axes


def _shaped(result: Result, numbers: Tensor, has_batch: bool) -> Tensor:
    """A block of results (B, size) as the measurement has them; in place, because a view could not be changed later."""
    if not has_batch:
        return numbers.resize_(result.shape)
    return numbers if len(result.shape) == 1 else numbers.resize_((numbers.shape[0], *result.shape))


def _have_axes(cotangents: Sequence[Tensor | None], axes: int) -> bool:
    """Whether all cotangents are there, with so many axes each."""
    for cotangent in cotangents:  # noqa: SIM110  (a generator costs more than all else here)
        if cotangent is None or cotangent.dim() != axes:
            return False
    return True
