"""The metric of circuits' states, against PennyLane and finite differences, and the optimiser that uses it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pennylane as qml
import pytest
import torch
from torch import Tensor, nn

import ketgrad as kg

F64 = torch.float64


def circuit(w: Tensor, v: Tensor) -> kg.Tape:
    operations: list[kg.Operation] = []
    for layer in w:
        operations += [kg.Rot(layer[i, 0], layer[i, 1], layer[i, 2], wires=i) for i in range(3)]
        operations += [
            kg.CNOT(wires=[0, 1]),
            kg.CRX(2 * v[0], wires=[1, 2]),
            kg.IsingZZ(v[1] * layer[0, 0], wires=[0, 2]),
        ]
    return kg.Tape(operations, [kg.expval(kg.Z(0))])


def by_hand(circuit: Callable[[Tensor, Tensor], kg.Tape], w: Tensor, v: Tensor) -> Tensor:
    def ket(w: Tensor, v: Tensor) -> Tensor:
        return torch.view_as_real(kg.execute([kg.Tape(circuit(w, v).operations, [kg.state()])])[0])

    psi = torch.view_as_complex(ket(w, v))
    parts = torch.autograd.functional.jacobian(ket, (w, v))
    j = torch.cat([torch.complex(p[:, 0], p[:, 1]).reshape(len(psi), -1) for p in parts], 1)
    overlap = psi.conj() @ j
    return (j.mH @ j - torch.outer(overlap.conj(), overlap)).real


def test_metric_of_several_weights() -> None:
    w, v = torch.randn(2, 3, 3, dtype=F64), torch.randn(2, dtype=F64, requires_grad=True)
    found = kg.metric_tensor(circuit, w, v)
    torch.testing.assert_close(found, by_hand(circuit, w, v.detach()))
    torch.testing.assert_close(kg.quantum_fisher(circuit, w, v), 4 * found)
    assert not found.requires_grad
    assert torch.linalg.eigvalsh(found).min() > -1e-12


def test_metric_is_pennylanes() -> None:
    def quantum(w: Tensor) -> Any:
        qml.RX(w[0], wires=0)
        qml.RY(w[1], wires=1)
        qml.CNOT(wires=[0, 1])
        qml.RZ(w[2], wires=1)
        return qml.expval(qml.Z(0))

    def own(w: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(w[0], 0), kg.RY(w[1], 1), kg.CNOT([0, 1]), kg.RZ(w[2], 1)], [kg.expval(kg.Z(0))])

    w = torch.randn(3, dtype=F64, requires_grad=True)
    expected = qml.adjoint_metric_tensor(qml.QNode(quantum, qml.device("default.qubit", wires=2)))(w)
    torch.testing.assert_close(kg.metric_tensor(own, w), torch.as_tensor(expected).detach())


def test_bad_metrics() -> None:
    with pytest.raises(TypeError, match="at least one"):
        kg.metric_tensor(circuit)
    with pytest.raises(TypeError, match="must return a tape"):
        kg.metric_tensor(lambda w: 3, torch.rand(2))  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="a batch of 4"):
        kg.metric_tensor(lambda w: kg.Tape([kg.RX(w, wires=0)], [kg.state()]), torch.rand(4))


def test_natural_gradients_descend() -> None:
    torch.manual_seed(1)
    w, v = (torch.nn.Parameter(torch.randn(*shape, dtype=F64)) for shape in ((2, 3, 3), (2,)))
    optimizer = kg.optim.QNG([w, v], circuit, lr=0.2, damping=1e-2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        energy = kg.execute([circuit(w, v)])[0]
        energy.backward()
        return energy  # type: ignore[no-any-return]

    first = optimizer.step(closure)
    assert first is not None
    for _ in range(60):
        last = optimizer.step(closure)
    assert last < -0.95 < first
    again = kg.optim.QNG([w, v], circuit)
    again.load_state_dict(optimizer.state_dict())
    assert again.param_groups[0]["lr"] == 0.2


def test_one_step_by_hand() -> None:
    w, v = torch.nn.Parameter(torch.randn(2, 3, 3, dtype=F64)), torch.nn.Parameter(torch.randn(2, dtype=F64))
    kg.execute([circuit(w, v)])[0].backward()
    assert w.grad is not None
    assert v.grad is not None
    gradient = torch.cat([w.grad.reshape(-1), v.grad])
    metric = by_hand(circuit, w.detach(), v.detach()) + 0.1 * torch.eye(20, dtype=F64)
    expected = torch.cat([w.detach().reshape(-1), v.detach()]) - 0.3 * torch.linalg.solve(metric, gradient)
    kg.optim.QNG([w, v], circuit, lr=0.3, damping=0.1, max_distance=math.inf).step()
    torch.testing.assert_close(torch.cat([w.detach().reshape(-1), v.detach()]), expected)


def test_long_steps_are_shortened() -> None:
    """By as much as it takes for the state to move by `max_distance`, up to what the metric tells of a finite step."""
    w = torch.nn.Parameter(torch.tensor([0.7, 0.2], dtype=F64))

    def rotations(w: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(w[0], wires=0), kg.RY(w[1], wires=1)], [kg.expval(kg.Z(0) + kg.Z(1))])

    def ket() -> Tensor:
        return kg.execute([kg.Tape(rotations(w.detach()).operations, [kg.state()])])[0]  # type: ignore[no-any-return]

    for distance in (0.01, 0.1):
        w.grad = None
        kg.execute([rotations(w)])[0].backward()
        before = ket()
        kg.optim.QNG([w], rotations, lr=100, damping=0, max_distance=distance).step()
        overlap = torch.linalg.vecdot(before, ket()).abs()
        assert torch.acos(overlap).item() == pytest.approx(distance, rel=1e-2)
    w.grad = torch.zeros_like(w)
    before = w.detach().clone()
    kg.optim.QNG([w], rotations).step()
    assert torch.equal(before, w)


class Outside(nn.Module):
    """A circuit that reads tensors from everywhere: its module, its class, what is around it."""

    scale = torch.tensor(0.7, dtype=F64)

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, dtype=F64)
        self.own = nn.Parameter(torch.rand(2, dtype=F64))
        self.angles = [torch.tensor(0.3, dtype=F64)]

    def tape(self, w: Tensor) -> kg.Tape:
        h = self.linear(w)
        gates = [kg.RX(self.scale * h[0], 0), kg.RY(h[1], 1), kg.CNOT([0, 1]), kg.RY(self.own[0], 0)]
        return kg.Tape([*gates, *[kg.CRX(w[0] + angle, [0, 1]) for angle in self.angles]], [kg.expval(kg.Z(0))])


def test_tensors_that_the_circuit_reads_from_outside() -> None:
    module, w = Outside(), torch.rand(2, dtype=F64)

    def expected() -> Tensor:
        def states(w: Tensor, _: Tensor) -> kg.Tape:
            return module.tape(w)

        return by_hand(states, w, torch.zeros(0, dtype=F64)).detach()

    layer = kg.nn.CircuitLayer(module.tape, {"w": 2}).double()
    functions = [module.tape, kg.compile(module.tape), layer, functools.partial(Outside.tape, module)]
    for function in functions:
        found = kg.metric_tensor(function, w)
        torch.testing.assert_close(found, expected())
        assert not found.requires_grad
    module.scale = torch.tensor(0.1, dtype=F64)  # hides that of the class
    module.angles.append(torch.tensor(1.1, dtype=F64))
    for function in functions:
        torch.testing.assert_close(kg.quantum_fisher(function, w), 4 * expected())
    weight = nn.Parameter(w.clone())
    optimizer = kg.optim.QNG([weight], module.tape, lr=0.1)
    kg.execute([module.tape(weight)])[0].backward()
    step = torch.linalg.solve(expected() + optimizer.defaults["damping"] * torch.eye(2, dtype=F64), weight.grad)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), w - 0.1 * step)


@dataclass(frozen=True)
class Equal:
    """Equal to all others of its kind, whatever their data."""

    data: Tensor = field(compare=False)

    def __call__(self, w: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(self.data[0], 0), kg.RY(w[0], 0), kg.RZ(w[1], 0)], [kg.expval(kg.Z(0))])


def test_circuits_that_are_equal_and_different() -> None:
    w = torch.rand(2, dtype=F64)
    for angle in (0.3, 1.2):
        circuit = Equal(torch.tensor([angle], dtype=F64))
        expected = by_hand(lambda w, _, circuit=circuit: circuit(w), w, w[:0])  # type: ignore[misc]
        torch.testing.assert_close(kg.metric_tensor(circuit, w), expected.detach())


def test_a_layer_is_a_circuit() -> None:
    layer = kg.nn.CircuitLayer(lambda w: kg.Tape([kg.RX(w[0], 0), kg.RY(w[1], 0)], [kg.expval(kg.Z(0))]), {"w": 2})
    torch.testing.assert_close(kg.metric_tensor(layer, layer.w), kg.metric_tensor(layer.circuit, layer.w))
    optimizer = kg.optim.QNG(layer.parameters(), layer)
    for _ in range(60):
        optimizer.zero_grad()
        layer().sum().backward()
        optimizer.step()
    assert layer().item() < -0.99
    embedded = kg.nn.CircuitLayer.from_blocks([kg.nn.AngleEmbedding(2), kg.nn.BasicEntangler(2)])
    with pytest.raises(TypeError, match="this layer takes inputs: give a function of the weights"):
        kg.optim.QNG(embedded.parameters(), embedded)
    with pytest.raises(TypeError, match="expected a function of weights that returns a tape, not int"):
        kg.metric_tensor(3, torch.rand(2))  # type: ignore[arg-type]


def test_bad_optimisers() -> None:
    w = torch.nn.Parameter(torch.randn(2))
    with pytest.raises(ValueError, match="max_distance must be positive"):
        kg.optim.QNG([w], circuit, max_distance=0)
    with pytest.raises(ValueError, match="max_distance must not be negative"):
        kg.optim.QNG([w], circuit, max_distance=-1)
    with pytest.raises(ValueError, match="lr must not be negative"):
        kg.optim.QNG([w], circuit, lr=-1)
    with pytest.raises(ValueError, match="one group"):
        kg.optim.QNG([{"params": [w]}, {"params": [torch.nn.Parameter(torch.randn(2))]}], circuit)  # type: ignore[list-item]
