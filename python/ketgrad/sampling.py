"""Finite shots: samples are drawn from exact probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .tape import Tape


def exact_tapes(tape: Tape) -> tuple[Tape, ...]:
    """Tapes of one `probs` each, from which the results of a tape with shots can be drawn."""
    raise NotImplementedError(repr(tape))


def draw(tape: Tape, probabilities: Sequence[Tensor], generator: torch.Generator | None) -> Any:
    """The results of a tape with shots, from the probabilities of its `exact_tapes`."""
    raise NotImplementedError(repr(tape))
