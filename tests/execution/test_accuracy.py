"""Errors stay below what docs/accuracy.md promises, in both precisions, batched or not, at each instruction set."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"

FAMILIES = [
    *("random angles", "one angle", "product state", "quarter phases"),
    *("Trotter steps", "near π", "controlled", "unfused"),
]
MODES = ["single", "own", "shared"]
PRECISIONS = ["complex64", "complex128"]
PAIRS = ["RX RY", "RY RZ", "RY", "IsingXX RZ", "SX RY"]


@pytest.fixture(scope="module")
def accuracy() -> Iterator[ModuleType]:
    """The script that measures; what is right is computed once for each case."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        module = importlib.import_module("accuracy")
        patch.setattr(module, "extended", cache(module.extended))
        yield module
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


def exceeding(module: ModuleType, case: Any) -> dict[str, str]:
    """What is larger than promised; NaN is."""
    off = module.errors(case)
    assert off is not None
    limits = {quantity: module.bound(quantity, case.gates, case.drifts) for quantity in off}
    return {q: f"{off[q]:.0f} u, above {limits[q]:.0f} u" for q in off if not off[q] <= limits[q]}


def test_every_family_and_mode_is_tested(accuracy: ModuleType) -> None:
    assert list(accuracy.FAMILIES) == FAMILIES
    assert list(accuracy.MODES) == MODES
    assert list(accuracy.PRECISIONS) == PRECISIONS
    assert list(accuracy.PAIRS) == PAIRS


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("family", FAMILIES)
def test_errors_are_below_the_bound(accuracy: ModuleType, family: str, mode: str, precision: str, level: str) -> None:
    assert exceeding(accuracy, accuracy.Case(family, 4, 200, mode, precision)) == {}


@pytest.mark.parametrize("family", ["random angles", "one angle", "quarter phases"])
def test_errors_of_long_circuits_are_below_the_bound(accuracy: ModuleType, family: str) -> None:
    assert exceeding(accuracy, accuracy.Case(family, 2, 10_000, "single", "complex64")) == {}


@pytest.mark.parametrize("mode", MODES)
def test_errors_of_sums_over_many_amplitudes_are_below_the_bound(accuracy: ModuleType, mode: str, level: str) -> None:
    """One RY on each wire: amplitudes are alike, and so are the roundings of their sums."""
    assert exceeding(accuracy, accuracy.Case("product state", 14, 14, mode, "complex64")) == {}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("mode", MODES)
def test_norms_of_many_amplitudes_are_below_the_bound(accuracy: ModuleType, mode: str, precision: str) -> None:
    """What is computed about all factors of a state, such as their length, must not be off by more for being many."""
    case = accuracy.Case("one angle", 15, 30, mode, precision)
    norms = accuracy.answer(case, precision).norms
    off = accuracy.largest(norms, np.ones_like(norms)) / accuracy.ROUNDOFF[precision]
    assert off <= accuracy.bound("norm", case.gates, case.drifts)


# --- norms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS)
def test_single_precision_keeps_the_norm(accuracy: ModuleType, pair: str, level: str) -> None:
    """Where all gates are rounded alike no more is lost than by a random walk, 2 √N u.

    Without fused multiply-adds products are rounded as well: twice as much.
    """
    allowed = 400 if level == "portable" else 200
    assert abs(accuracy.pair_excess(pair, 10_000, "single")) <= allowed * accuracy.ROUNDOFF["complex64"]


# --- what is compared with --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_longer_numbers_agree(accuracy: ModuleType, family: str) -> None:
    """mpmath and longdouble, by as much as the shorter of them rounds."""
    case = accuracy.Case(family, 4, 12, "single", "complex128")
    short, long = accuracy.extended(case, accuracy.LONGDOUBLE), accuracy.extended(case, accuracy.LONG)
    for ours, theirs in zip(short[:2], long[:2], strict=True):
        upper = theirs.astype(np.float64)
        lower = (theirs - upper).astype(np.float64)
        assert np.abs(ours - upper - lower).max() < 100 * 2.0**-accuracy.LONGDOUBLE.bits


def test_the_page_states_the_bound(accuracy: ModuleType) -> None:
    page = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (value|gradient|norm) \|(.*)\|$", page, flags=re.MULTILINE))
    stated = {quantity: tuple(float(cell) for cell in row.split("|")) for quantity, row in rows.items()}
    assert stated == {quantity: tuple(map(float, numbers)) for quantity, numbers in accuracy.PROMISED.items()}
