"""Hamiltonians from OpenFermion's operators, and from those of PennyLane that belong to no script."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import ketgrad as kg


class QubitOperator:
    """What is read of OpenFermion's class of this name."""

    def __init__(self, terms: dict[Any, Any]) -> None:
        self.terms = terms


class FermionOperator(QubitOperator):
    """Its terms are made of (orbital, 0 | 1), where 1 creates."""


TERMS = {
    (): -0.8,
    ((0, "Z"), (1, "Z")): 0.5,
    ((2, "X"), (0, "Y"), (3, "Y")): 0.25 + 1e-14j,
    ((1, "X"),): 2,
}
BY_HAND = -0.8 * kg.Identity() + 0.5 * kg.Z(0) @ kg.Z(1) + 0.25 * kg.X(2) @ kg.Y(0) @ kg.Y(3) + 2.0 * kg.X(1)


def energy(observable: kg.Observable) -> torch.Tensor:
    operations = [kg.RY(0.3 + 0.4 * wire, wires=wire) for wire in range(4)]
    operations += [kg.CNOT(wires=[0, 1]), kg.RX(0.7, wires=1), kg.CNOT(wires=[1, 2]), kg.SX(2), kg.CNOT(wires=[2, 3])]
    return kg.execute([kg.Tape(operations, [kg.expval(observable)])])[0]


# ---- OpenFermion


def test_qubit_operator() -> None:
    observable = kg.Hamiltonian.from_openfermion(QubitOperator(TERMS))
    assert isinstance(observable, kg.Hamiltonian)
    torch.testing.assert_close(energy(observable), energy(BY_HAND))
    assert [term.word for term in observable.terms] == [tuple(word) for word in TERMS]


def test_trainable_coefficients() -> None:
    coefficients = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64, requires_grad=True)
    found = energy(kg.Hamiltonian.from_openfermion(QubitOperator(TERMS), coefficients))
    (gradient,) = torch.autograd.grad(found, coefficients)
    each = [energy(kg.Hamiltonian.from_openfermion(QubitOperator({word: 1.0}))) for word in TERMS]
    torch.testing.assert_close(gradient, torch.stack(each))
    batch = torch.ones(5, 4, dtype=torch.float64)
    assert energy(kg.Hamiltonian.from_openfermion(QubitOperator(TERMS), batch)).shape == (5,)


@pytest.mark.parametrize(
    ("operator", "exception", "message"),
    [
        (
            FermionOperator({((0, 1), (1, 0)): 1.0}),
            TypeError,
            r"FermionOperator of OpenFermion has a term \(\(0, 1\), .*jordan_wigner",
        ),
        (FermionOperator({(0, 1): 1.0}), TypeError, "map it to qubits first"),
        (
            QubitOperator({((0, "X"), (2, "Z")): 1j}),
            ValueError,
            r"the coefficient of X\(0\) @ Z\(2\) is 0\+1j; those of",
        ),
        (QubitOperator({(): "c"}), TypeError, "coefficients that are no numbers"),
        (QubitOperator({}), ValueError, "Hamiltonian needs at least one observable"),
        ("X0 Y1", TypeError, "expected a QubitOperator of OpenFermion, not str"),
    ],
)
def test_wrong_operators(operator: Any, exception: type[Exception], message: str) -> None:
    with pytest.raises(exception, match=message):
        kg.Hamiltonian.from_openfermion(operator)


def test_operators_of_openfermion_itself() -> None:
    openfermion = pytest.importorskip("openfermion")
    fermions = openfermion.FermionOperator("0^ 3", 0.4) + openfermion.FermionOperator("3^ 0", 0.4)
    with pytest.raises(TypeError, match="jordan_wigner"):
        kg.Hamiltonian.from_openfermion(fermions)
    observable = kg.Hamiltonian.from_openfermion(openfermion.jordan_wigner(fermions))
    by_hand = 0.2 * kg.X(0) @ kg.Z(1) @ kg.Z(2) @ kg.X(3) + 0.2 * kg.Y(0) @ kg.Z(1) @ kg.Z(2) @ kg.Y(3)
    torch.testing.assert_close(energy(observable), energy(by_hand))


# ---- PennyLane


def test_observable_of_pennylane() -> None:
    qml = pytest.importorskip("pennylane")
    words = [qml.Identity(0), qml.Z(0) @ qml.Z(1), qml.X(2) @ qml.Y(0) @ qml.Y(3), qml.X(1)]
    coefficients = [-0.8, 0.5, 0.25, 2]
    scaled = [c * word for c, word in zip(coefficients, words, strict=True)]
    for op in (qml.Hamiltonian(coefficients, words), qml.sum(*scaled)):
        observable = kg.Hamiltonian.from_pennylane(op)
        torch.testing.assert_close(energy(observable), energy(BY_HAND))
        assert [parameter.shape for parameter in observable.parameters] == [(4,)]
    matrix = torch.tensor([[1, 2j], [-2j, 3]], requires_grad=True)
    observable = kg.Hamiltonian.from_pennylane(0.5 * qml.Hermitian(matrix, 1) @ qml.X(0))
    assert any(parameter is matrix for parameter in observable.parameters)
    torch.testing.assert_close(energy(observable), energy(0.5 * kg.Hermitian(matrix, 1) @ kg.X(0)))


def test_tensors_in_an_observable_of_pennylane_keep_their_gradients() -> None:
    qml = pytest.importorskip("pennylane")
    coefficients = torch.tensor([0.3, 0.4], dtype=torch.float64, requires_grad=True)
    op = qml.Hamiltonian(coefficients, [qml.Z(0), qml.X(1) @ qml.X(2)])
    (gradient,) = torch.autograd.grad(energy(kg.Hamiltonian.from_pennylane(op)), coefficients)
    torch.testing.assert_close(gradient, torch.stack([energy(kg.Z(0)), energy(kg.X(1) @ kg.X(2))]))


def test_wrong_operators_of_pennylane() -> None:
    qml = pytest.importorskip("pennylane")
    with pytest.raises(TypeError, match="expected an operator of PennyLane, not str"):
        kg.Hamiltonian.from_pennylane("X")
    with pytest.raises(
        NotImplementedError, match=r"RX\(0\.3, wires=\[0\]\) of PennyLane is not supported as an observable"
    ):
        kg.Hamiltonian.from_pennylane(qml.RX(0.3, 0))
    with pytest.raises(ValueError, match=r"the coefficient of Z\(0\) is 0\+1j; those of a Hamiltonian must be real"):
        kg.Hamiltonian.from_pennylane(qml.X(0) @ qml.Y(0))
