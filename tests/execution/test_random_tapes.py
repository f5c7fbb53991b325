"""Results and gradients of random tapes against the oracle; what fails is made smaller by hypothesis."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings

import hooks
import ketgrad as kg
from cases import on_more_wires
from comparisons import check
from strategies import tapes


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(tapes(max_wires=8, max_gates=20))
def test_random_tape(tape: kg.Tape) -> None:
    check(tape)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tapes(max_wires=8, max_gates=40))
def test_random_tape_in_tiles(tape: kg.Tape) -> None:
    with hooks.thresholds(tile_bits=4):
        check(on_more_wires(tape, 7))
