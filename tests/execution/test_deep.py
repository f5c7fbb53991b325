"""Deep circuits, and those of one kind of gate: where the planner looks at a part of what waits only."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
import torch

import hooks
import ketgrad as kg
from comparisons import check

WIRES = 5
GATES = 900
"""More than the planner lets wait."""


def angle(random: Random) -> torch.Tensor:
    return torch.tensor(random.uniform(-3, 3), dtype=torch.float64, requires_grad=True)


def one_gate(gate: type[kg.Operation], wires: list[int]) -> Callable[[Random], list[kg.Operation]]:
    return lambda random: [gate(angle(random), wires=wires) for _ in range(GATES)]


def on_each_wire(gate: type[kg.Operation]) -> Callable[[Random], list[kg.Operation]]:
    return lambda random: [gate(angle(random), wires=i % WIRES) for i in range(GATES)]


def ising(random: Random) -> list[kg.Operation]:
    """All of it commutes with X on every wire."""
    found: list[kg.Operation] = []
    for layer in range(GATES // 10):
        found += [kg.IsingZZ(angle(random), wires=[w, (w + 1 + layer % 2) % WIRES]) for w in range(WIRES)]
        found += [kg.RX(angle(random), wires=w) for w in range(WIRES)]
    return found


def phases_first(random: Random) -> list[kg.Operation]:
    return [
        *[kg.RZ(angle(random), wires=WIRES - 1) for _ in range(GATES // 2)],
        *[kg.RX(angle(random), wires=i % WIRES) for i in range(GATES // 2)],
        *[kg.RZ(angle(random), wires=i % WIRES) for i in range(20)],
        *[kg.RY(angle(random), wires=i % WIRES) for i in range(20)],
    ]


def anything(random: Random) -> list[kg.Operation]:
    found: list[kg.Operation] = []
    for _ in range(GATES):
        one, other = random.sample(range(WIRES), 2)
        found += random.choice(
            [
                [kg.RX(angle(random), wires=one)],
                [kg.RY(angle(random), wires=one)],
                [kg.RZ(angle(random), wires=one)],
                [kg.CNOT(wires=[one, other])],
                [kg.CRY(angle(random), wires=[one, other])],
                [kg.IsingXX(angle(random), wires=[one, other])],
                [kg.H(one)],
            ]
        )
    return found


CIRCUITS: dict[str, Callable[[Random], list[kg.Operation]]] = {
    "RX on a wire": one_gate(kg.RX, [0]),
    "RZ on a wire": one_gate(kg.RZ, [3]),
    "XX on two wires": one_gate(kg.IsingXX, [1, 3]),
    "RY everywhere": on_each_wire(kg.RY),
    "RZ everywhere": on_each_wire(kg.RZ),
    "Ising": ising,
    "phases first": phases_first,
    "anything": anything,
}


@pytest.mark.parametrize("name", CIRCUITS)
def test_deep_circuits_are_right_whatever_the_tile(name: str) -> None:
    operations = CIRCUITS[name](Random(7))
    measured = [kg.expval(kg.Z(0) @ kg.Y(1) + 0.5 * kg.X(3)), kg.probs(wires=[1, 4])]
    settings = {
        "whole": lambda: hooks.thresholds(),
        "tiles of 16": lambda: hooks.thresholds(tile_bits=4),
        "tiles of 8": lambda: hooks.thresholds(tile_bits=3),
    }
    check(kg.Tape(operations, measured), 1e-9, under=settings)
