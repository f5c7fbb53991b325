"""Names in `torch.profiler`: what a step of training is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import ketgrad as kg
from ketgrad.native import profiling


def tape(x: torch.Tensor) -> kg.Tape:
    return kg.Tape([kg.RX(x, wires=0), kg.CNOT(wires=[0, 1])], [kg.expval(kg.Z(1)), kg.var(kg.Z(0))])


def names_of(step: Callable[[], Any]) -> dict[str, int]:
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    return {event.key: event.count for event in found.key_averages() if event.key.startswith("ketgrad::")}


def test_a_compiled_function() -> None:
    x = torch.rand(7, requires_grad=True)
    circuit = kg.compile(tape)

    def step() -> None:
        torch.stack(circuit(x)).sum().backward()

    first = names_of(step)
    assert first.pop("ketgrad::trace") == 1
    every = {"execute": 1, "execute_vjp": 1, "pack": 2, "unpack": 1, "plan": 2}
    assert first == {f"ketgrad::{name}": count for name, count in every.items()}
    assert names_of(step) == first  # traced once
    with torch.no_grad():
        assert names_of(lambda: circuit(x)) == {f"ketgrad::{name}": 1 for name in ("execute", "pack", "unpack", "plan")}


def test_tapes() -> None:
    x = torch.tensor(0.3, requires_grad=True)

    def step() -> None:
        operations = [kg.RX(x, wires="of this test alone"), kg.RY(x, wires=0)]
        torch.stack(kg.execute([kg.Tape(operations, [kg.expval(kg.Z(0))])])).sum().backward()

    first = names_of(step)
    assert first.pop("ketgrad::encode") == 1
    every = {"execute": 1, "execute_vjp": 1, "pack": 2, "unpack": 2, "plan": 2}
    assert first == {f"ketgrad::{name}": count for name, count in every.items()}
    assert names_of(step) == first


def test_errors_stay_what_they_are() -> None:
    with profile(activities=[ProfilerActivity.CPU]):
        with pytest.raises(IndexError, match="no program"):
            torch.ops.ketgrad.execute(7, [torch.zeros(1)], False)
        with pytest.raises(ValueError, match="different devices"):
            kg.execute(
                [kg.Tape([kg.RX(torch.rand(2), wires=0), kg.RY(torch.rand(2, device="meta"), wires=0)], [kg.probs()])]
            )


def test_nothing_is_recorded_without_a_profiler() -> None:
    assert not profiling.is_profiling()
    assert profiling.span("pack") is profiling.span("unpack")
