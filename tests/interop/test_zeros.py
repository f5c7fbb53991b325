"""Amplitudes that a gate leaves alone are left as they are: those that are zero on default.qubit are zero here.

Circuits begin in a basis state. Their angles are anything but special, so that what is not zero is far from it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

import hooks

qml = pytest.importorskip("pennylane")

Make = Callable[[list[Any], list[int]], Any]  # of angles and wires


def gate(name: str, **keywords: Any) -> Make:
    return lambda angles, wires: getattr(qml, name)(*angles, wires=wires, **keywords)


def controlled(name: str, values: list[int], **keywords: Any) -> Make:
    """By the first wires, which have these values."""

    def make(angles: list[Any], wires: list[int]) -> Any:
        target = getattr(qml, name)(*angles, wires=wires[len(values) :], **keywords)
        return qml.ctrl(target, control=wires[: len(values)], control_values=values)

    return make


# The number of angles and wires of each.
GATES: dict[str, tuple[Make, int, int]] = {
    "SingleExcitation": (gate("SingleExcitation"), 1, 2),
    "SingleExcitationPlus": (gate("SingleExcitationPlus"), 1, 2),
    "SingleExcitationMinus": (gate("SingleExcitationMinus"), 1, 2),
    "DoubleExcitation": (gate("DoubleExcitation"), 1, 4),
    "IsingXY": (gate("IsingXY"), 1, 2),
    "IsingXX": (gate("IsingXX"), 1, 2),
    "IsingYY": (gate("IsingYY"), 1, 2),
    "IsingZZ": (gate("IsingZZ"), 1, 2),
    "PSWAP": (gate("PSWAP"), 1, 2),
    "ISWAP": (gate("ISWAP"), 0, 2),
    "CRX": (gate("CRX"), 1, 2),
    "CRY": (gate("CRY"), 1, 2),
    "CRZ": (gate("CRZ"), 1, 2),
    "CRot": (gate("CRot"), 3, 2),
    "ControlledPhaseShift": (gate("ControlledPhaseShift"), 1, 2),
    "CH": (gate("CH"), 0, 2),
    "CY": (gate("CY"), 0, 2),
    "CNOT": (gate("CNOT"), 0, 2),
    "CSWAP": (gate("CSWAP"), 0, 3),
    "Toffoli": (gate("Toffoli"), 0, 3),
    "RX where 0": (controlled("RX", [0]), 1, 2),
    "RY where 0": (controlled("RY", [0]), 1, 2),
    "RY where 1 and 0": (controlled("RY", [1, 0]), 1, 3),
    "U3 where 0": (controlled("U3", [0]), 3, 2),
    "SX where 1": (controlled("SX", [1]), 0, 2),
    "H where 0": (controlled("Hadamard", [0]), 0, 2),
    "IsingXX where 0": (controlled("IsingXX", [0]), 1, 3),
    "XYZ where 1": (controlled("PauliRot", [1], pauli_word="XYZ"), 1, 4),
    "SingleExcitation where 1": (controlled("SingleExcitation", [1]), 1, 3),
}
ONCE = {"CH", "H where 0", "SX where 1"}  # some of these undo each other, up to rounding


def random_circuit(random: Random, num_wires: int, names: list[str], batch: int | None) -> tuple[Any, torch.Tensor]:
    """A circuit of these gates as a function of its angles, and the angles."""
    places = []
    count = 0
    for name in names:
        _, num_angles, own = GATES[name]
        if own <= num_wires:
            places.append((name, range(count, count + num_angles), random.sample(range(num_wires), own)))
            count += num_angles
    bits = [random.randrange(2) for _ in range(num_wires)]
    inverted = [random.random() < 0.3 for _ in places]
    shape = (max(count, 1),) if batch is None else (max(count, 1), batch)
    angles = torch.tensor(np.random.default_rng(random.randrange(1000)).uniform(0.3, 1.2, shape))

    def circuit(x: torch.Tensor) -> Any:
        qml.BasisState(np.array(bits), wires=range(num_wires))
        for (name, columns, wires), is_inverted in zip(places, inverted, strict=True):
            make = GATES[name][0]
            if is_inverted:
                qml.adjoint(make)([x[k] for k in columns], wires)
            else:
                make([x[k] for k in columns], wires)
        return qml.state()

    return circuit, angles


def state(device: str, circuit: Any, angles: torch.Tensor, num_wires: int) -> np.ndarray[Any, Any]:
    found = qml.QNode(circuit, qml.device(device, wires=num_wires))(angles)
    return np.asarray(found.numpy() if isinstance(found, torch.Tensor) else found)


def check(circuit: Any, angles: torch.Tensor, num_wires: int) -> None:
    """default.qubit gets one circuit after the other; its own dust, of products of matrices, is not held against it."""
    rows = [angles] if angles.ndim == 1 else list(angles.T)
    expected = np.abs(np.squeeze([state("default.qubit", circuit, row, num_wires) for row in rows]))
    for dtype in (torch.float64, torch.float32):
        found = state("ketgrad.qubit", circuit, angles.to(dtype), num_wires)
        assert (expected > 1e-12).tolist() == (found != 0).tolist()
        assert np.abs(np.abs(found) - expected).max() < (1e-12 if dtype is torch.float64 else 1e-5)


@pytest.mark.parametrize("regime", ["lanes", "single"])
@pytest.mark.parametrize("name", GATES)
def test_each_gate_keeps_zeros(name: str, regime: str, tile_bits: int) -> None:
    random = Random(name)
    with hooks.thresholds(tile_bits=tile_bits, regime=regime):
        for num_wires in (4, 7):
            circuit, angles = random_circuit(random, num_wires, [name], None)
            check(circuit, angles, num_wires)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 5], ids=str)
@pytest.mark.parametrize("num_wires", [3, 5, 6, 8, 10, 12])
def test_circuits_keep_zeros(num_wires: int, batch: int | None, seeds: list[int], level: str) -> None:
    """Wherever controls and targets lie: in a vector, in rows of a tile, or in tiles."""
    for seed in seeds:
        random = Random(f"{seed} {num_wires} {batch}")
        for tile_bits, regime in ((0, "auto"), (0, "lanes"), (4, "single"), (0, "single")):
            names = ["CRY", *(random.choice(list(GATES)) for _ in range(8))]
            names = [name for k, name in enumerate(names) if name not in ONCE or not ONCE & set(names[:k])]
            circuit, angles = random_circuit(random, num_wires, names, batch)
            with hooks.thresholds(tile_bits=tile_bits, regime=regime):
                check(circuit, angles, num_wires)


@pytest.mark.parametrize("device", ["default.qubit", "ketgrad.qubit"])
def test_excitations_of_a_basis_state_reach_few_others(device: str) -> None:
    @qml.qnode(qml.device(device, wires=3))  # type: ignore[untyped-decorator, unused-ignore]
    def circuit(x: float, y: float) -> Any:
        qml.BasisState([1, 0, 0], wires=range(3))
        qml.SingleExcitation(x, [0, 1])
        qml.SingleExcitation(y, [0, 2])
        return qml.state()

    assert np.flatnonzero(circuit(0.3, 0.5) != 0).tolist() == [1, 2, 4]
