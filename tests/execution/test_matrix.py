"""`kg.matrix`: against the reference's basis states, PennyLane's matrices, and finite differences."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import ketgrad as kg
import oracle
from cases import angle_rounding
from strategies import tapes


def by_columns(operations: list[Any], wires: list[Any], batch: int | None) -> Tensor:
    """The reference's matrix, column by column: it prepares each basis state in turn."""
    columns = []
    for index in range(2 ** len(wires)):
        bits = [int(bit) for bit in format(index, f"0{len(wires)}b")]
        tape = kg.Tape([kg.BasisState(bits, wires=wires), *operations], [kg.state()])
        columns.append(oracle.execute([tape])[0])
    return torch.stack(columns, -1)


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(tapes(max_wires=4, max_gates=12))
def test_random_circuits(tape: kg.Tape) -> None:
    operations = [op for op in tape.operations if not op.is_preparation]
    if not operations or not any(op.wires for op in operations):
        return
    one = kg.Tape(operations, [kg.state()])
    found = kg.matrix(one, dtype=torch.float64)
    expected = by_columns(operations, list(one.wires), one.batch_size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12 + angle_rounding(one))


@pytest.mark.filterwarnings("default")
def test_agrees_with_pennylane() -> None:
    qml = pytest.importorskip("pennylane")
    x = 0.7
    ours = [
        kg.RX(x, wires="a"),
        kg.CRot(x, 2 * x, 0.1, wires=["b", "a"]),
        kg.DoubleExcitation(x, wires=["a", "b", 1, 2]),
    ]
    theirs = [qml.RX(x, "a"), qml.CRot(x, 2 * x, 0.1, ["b", "a"]), qml.DoubleExcitation(x, ["a", "b", 1, 2])]
    script = qml.tape.QuantumScript(theirs, [qml.state()])
    for order in (None, [2, "b", 1, "a"], ["more", "a", "b", 1, 2]):
        expected = torch.as_tensor(qml.matrix(script, wire_order=order or script.wires))
        torch.testing.assert_close(kg.matrix(ours, order), expected, rtol=0, atol=1e-12)


def test_numbers_come_out_as_they_are() -> None:
    for dtype in (torch.float32, torch.float64):
        assert kg.matrix(kg.X(0), dtype=dtype).tolist() == [[0, 1], [1, 0]]
        assert kg.matrix(kg.CSWAP([2, 0, 1]), [2, 0, 1], dtype=dtype).real.diagonal().tolist() == [
            1,
            1,
            1,
            1,
            1,
            0,
            0,
            1,
        ]


def test_the_default_order_of_wires_is_the_tapes() -> None:
    tape = kg.Tape([kg.CNOT(wires=[1, 0])], [kg.expval(kg.Z(2))])
    assert kg.matrix(tape).shape == (8, 8)
    assert torch.equal(kg.matrix(tape), kg.matrix(kg.CNOT(wires=[1, 0]), [0, 1, 2]))
    assert torch.equal(kg.matrix(kg.CNOT(wires=[1, 0])), kg.matrix(kg.CNOT(wires=[1, 0]), [0, 1]))
    assert torch.equal(kg.matrix([], [0, 1]), torch.eye(4, dtype=torch.complex128))
    assert torch.equal(kg.matrix(kg.GlobalPhase(0.0), ["a"]), torch.eye(2, dtype=torch.complex128))


def test_precision_batch_and_gradients() -> None:
    angles = torch.rand(3, dtype=torch.float32, requires_grad=True)
    found = kg.matrix([kg.RX(angles, wires=0), kg.RY(0.3, wires=1)])
    assert found.dtype is torch.complex64
    assert found.shape == (3, 4, 4)
    x = torch.rand(2, dtype=torch.float64, requires_grad=True)

    def numbers(x: Tensor) -> Tensor:
        operations = [kg.Rot(x[0], x[1], 2 * x[0], wires=0), kg.IsingXX(x[1], wires=[1, 0]), kg.CRX(x[0], wires=[0, 1])]
        return torch.view_as_real(kg.matrix(operations))

    assert torch.autograd.gradcheck(numbers, (x,))
    assert torch.autograd.gradgradcheck(numbers, (x,))


def test_learns_a_gate() -> None:
    """Descend to the SX gate, up to a phase, from the matrix of three rotations."""
    w = torch.tensor([0.1, 1.0, 0.2], dtype=torch.float64, requires_grad=True)
    target = kg.matrix(kg.SX(0))
    optimizer = torch.optim.Adam([w], lr=0.1)
    for _ in range(150):
        loss = 1 - (target.mH @ kg.matrix(kg.Rot(*w, wires=0))).diagonal().sum().abs() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-3


def test_what_has_no_matrix() -> None:
    with pytest.raises(TypeError, match="takes a tape or operations of ketgrad, not Hamiltonian"):
        kg.matrix(kg.Hamiltonian([1.0], [kg.Z(0)]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not str"):
        kg.matrix([kg.X(0), "CNOT"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="BasisState prepares a state and is no unitary"):
        kg.matrix([kg.BasisState([1], wires=0), kg.X(0)])
    with pytest.raises(ValueError, match=r"wire_order \[0\] lacks the wires \['a', 2\] of the circuit"):
        kg.matrix([kg.X("a"), kg.X(0), kg.X(2)], [0])
    with pytest.raises(ValueError, match="wire 0 is repeated"):
        kg.matrix(kg.X(0), [0, 0])
    with pytest.raises(ValueError, match="wire_order is empty"):
        kg.matrix([], [])
    with pytest.raises(ValueError, match="no wires"):
        kg.matrix([])
    with pytest.raises(MemoryError, match=f"a matrix on 20 wires needs {16 * 4**20}"):
        kg.matrix(kg.X(0), range(20))
