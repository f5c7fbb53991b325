"""Tapes as callers give them: ketgrad's are taken as they are, PennyLane's converted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..circuit.tape import Tape


def as_tapes(tapes: Iterable[Any]) -> tuple[Tape, ...]:
    """Ketgrad's tapes as they are, PennyLane's converted.

    Raises:
        TypeError: the argument is a single tape, or no sequence of tapes.
        NotImplementedError: a PennyLane tape has an operation or a measurement that ketgrad does not have.
    """
    return tuple([tape if isinstance(tape, Tape) else _convert(tape) for tape in _as_tuple(tapes)])


def _as_tuple(tapes: Iterable[Any]) -> tuple[Any, ...]:
    if type(tapes) in (list, tuple):
        return tuple(tapes)
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
    """The tapes of `as_tapes`, checked for gradients, which are matched to trainable parameters by position.

    Raises:
        ValueError: a PennyLane tape has more trainable parameters than its conversion.
        TypeError, NotImplementedError: as `as_tapes`.
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
