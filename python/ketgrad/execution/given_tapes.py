"""The tapes that callers give: ketgrad's as they are, PennyLane's converted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..circuit.tape import Tape


def as_tapes(tapes: Iterable[Any]) -> tuple[Tape, ...]:
    """Ketgrad's tapes as they are, PennyLane's converted.

    Raises:
        TypeError: a single tape instead of a sequence, or items that are no tapes.
        NotImplementedError: a PennyLane tape with an operation or a measurement that ketgrad does not know.
    """
    return tuple([tape if isinstance(tape, Tape) else _convert(tape) for tape in _as_tuple(tapes)])


def _as_tuple(tapes: Iterable[Any]) -> tuple[Any, ...]:
    if isinstance(tapes, Tape):
        raise TypeError("tapes must be a sequence; put a single tape in a list: [tape]")
    if not isinstance(tapes, Iterable):
        raise TypeError(f"tapes must be a sequence of tapes, not {type(tapes).__name__}")
    return tuple(tapes)


def _convert(tape: Any) -> Tape:
    if not hasattr(tape, "measurements"):
        raise TypeError(f"expected tapes of ketgrad or PennyLane, found {tape!r} of type {type(tape).__name__}")
    return Tape.from_pennylane(tape)


def as_aligned_tapes(tapes: Iterable[Any]) -> tuple[Tape, ...]:
    """Tapes as by `as_tapes`, for gradients, which go to trainable parameters by position.

    Raises:
        ValueError: a PennyLane tape has other trainable parameters than its conversion; and what `as_tapes` raises.
    """
    given = _as_tuple(tapes)
    converted = as_tapes(given)
    for tape, copy in zip(given, converted, strict=True):
        if len(tape.trainable_params) != len(copy.trainable_params):
            raise ValueError(
                "the bits of a BasisState or a Projector are among the trainable parameters of a PennyLane tape, but "
                "have no gradient: set script.trainable_params to the others"
            )
    return converted
