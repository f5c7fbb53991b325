"""The sweep: a few circuits of it, other ones each day; that it meets every regime, and notices what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import oracle
import sweep
from cases import FRESH_SEED


def test_circuits_of_the_day() -> None:
    report = sweep.sweep(40, 1000 * FRESH_SEED)
    assert report.circuits == 40
    assert report.failures == []


def test_no_regime_is_empty() -> None:
    """Nor is any pair of two, in as many circuits as `make sweep` runs by default or a few times more."""
    report = sweep.Report()
    for seed in range(8000):
        chosen = sweep.draw(seed)
        for level in sweep.AXES["level"]:
            for precision in chosen.precisions():
                report.add(chosen.regimes(level, precision), 0.0)
    assert report.empty() == []
    assert report.empty_pairs() == []


def test_what_is_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One entry of many, by as little as single precision would not see."""
    execute = oracle.execute

    def wrong(tape: Any) -> Any:
        results = execute(tape)
        first = results[0] if isinstance(results, tuple) else results
        step = torch.zeros(first.numel(), dtype=first.dtype)
        step[-1:] = 1e-9
        changed = first + step.reshape(first.shape)
        return (changed, *results[1:]) if isinstance(results, tuple) else changed

    monkeypatch.setattr(oracle, "execute", wrong)
    seed = next(seed for seed in range(100) if sweep.draw(seed).mixture == "uniform" and sweep.draw(seed).num_wires < 4)
    assert sweep.main(["--circuits", "1", "--seed", str(seed)]) == 1
    assert f"make sweep CIRCUITS=1 SEED={seed}" in capsys.readouterr().out


def test_errors_are_judged_by_entry() -> None:
    large, small = torch.tensor([1e6, 1.0]), torch.tensor([1e6, 1.001])
    assert sweep.error([small], [large]) == pytest.approx(1e-3, rel=1e-3)
    assert sweep.error([torch.tensor([1e6 + 10, 1.0])], [large]) == pytest.approx(1e-5, rel=1e-3)
    assert sweep.error([torch.tensor([1e6, torch.nan])], [large]) == float("inf")
    assert sweep.error([torch.ones(3)], [torch.ones(1)]) == float("inf")
