"""Results and gradients of random tapes against the oracle; what fails is made smaller by hypothesis."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings

import cases
import hooks
import ketgrad as kg
from test_execute import check, on_more_wires


def tapes(**sizes: Any) -> st.SearchStrategy[kg.Tape]:
    """Of every kind; keywords as for ``cases.random_tape``. Structure shrinks, values come from a seed."""
    return st.builds(
        lambda random, seed, kind: cases.random_tape(random, seed, kind=kind, **sizes),
        st.randoms(use_true_random=False),
        st.integers(0, 2**32 - 1),
        st.sampled_from(cases.CIRCUIT_KINDS),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(tapes(max_wires=8, max_gates=20))
def test_random_tape(tape: kg.Tape) -> None:
    check(tape)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(tapes(max_wires=8, max_gates=40))
def test_random_tape_in_tiles(tape: kg.Tape) -> None:
    with hooks.thresholds(tile_bits=4):
        check(on_more_wires(tape, 7))
