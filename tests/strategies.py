"""Random tapes as hypothesis draws them: what fails is made smaller."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st

import cases
import ketgrad as kg


def tapes(**sizes: Any) -> st.SearchStrategy[kg.Tape]:
    """Of every kind; keywords as for ``cases.random_tape``. Structure shrinks, values come from a seed."""
    return st.builds(
        lambda random, seed, kind: cases.random_tape(random, seed, kind=kind, **sizes),
        st.randoms(use_true_random=False),
        st.integers(0, 2**32 - 1),
        st.sampled_from(cases.CIRCUIT_KINDS),
    )
