"""`ExecuteTapes` and `AdjointProducts` in every pairing with PennyLane's tapes, JPCs and `ExecuteTapes`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import ketgrad as kg

qml = pytest.importorskip("pennylane")
from pennylane.workflow import jacobian_products as pl_products  # noqa: E402
from pennylane.workflow.interfaces.torch import ExecuteTapes as PennyLaneExecuteTapes  # noqa: E402


def tapes_of(x: Tensor, w: Tensor) -> tuple[Any, ...]:
    """Two structures, one of them twice; several measurements; a parameter that is used by two gates."""
    several = qml.tape.QuantumScript(
        [qml.RX(x[0], wires=0), qml.Rot(w[0], 0.2, w[1], wires=1), qml.CNOT(wires=[0, 1]), qml.CRY(x[0], wires=[1, 0])],
        [
            qml.expval(qml.Z(0) @ qml.X(1)),
            qml.probs(wires=[0, 1]),
            qml.expval(qml.Hamiltonian([0.3, 0.7], [qml.Y(0), qml.Z(1)])),
        ],
    )
    single = [qml.tape.QuantumScript([qml.RY(angle, wires="a")], [qml.expval(qml.X("a"))]) for angle in (x[1], w[2])]
    tapes = (several, *single)
    for tape in tapes:
        tape.trainable_params = qml.math.get_trainable_indices(tape.get_parameters(trainable_only=False))
    return tapes


def values() -> tuple[Tensor, Tensor]:
    return (
        torch.tensor([0.3, 0.8], dtype=torch.float64, requires_grad=True),
        torch.tensor([0.5, -0.4, 1.1], dtype=torch.float64, requires_grad=True),
    )


def run(function: Any, jpc: Any, execute_fn: Any) -> list[Tensor]:
    """Results and the gradients of a loss of them."""
    x, w = values()
    tapes = tapes_of(x, w)
    parameters = [p for t in tapes for p in t.get_parameters()]
    results = function.apply({"tapes": tapes, "execute_fn": execute_fn, "jpc": jpc}, *parameters)
    assert [type(r) for r in results] == [tuple, Tensor, Tensor]
    leaves = tree_leaves(results)
    loss = sum(((i + 1) * leaf**2).sum() for i, leaf in enumerate(leaves))
    return [*(leaf.detach() for leaf in leaves), *torch.autograd.grad(loss, [x, w])]


def pennylanes_jpcs() -> dict[str, Any]:
    device = qml.device("default.qubit")
    config = qml.devices.ExecutionConfig(gradient_method="adjoint", use_device_gradient=True)
    return {
        "param_shift": pl_products.TransformJacobianProducts(device.execute, qml.gradients.param_shift),
        "cached": pl_products.TransformJacobianProducts(
            device.execute, qml.gradients.param_shift, cache_full_jacobian=True
        ),
        "device": pl_products.DeviceJacobianProducts(device, config),
    }


def expected() -> list[Tensor]:
    jpc = pennylanes_jpcs()["param_shift"]
    return run(PennyLaneExecuteTapes, jpc, qml.device("default.qubit").execute)


def test_pennylanes_tapes_with_our_jpc() -> None:
    jpc = kg.AdjointProducts()
    torch.testing.assert_close(run(kg.ExecuteTapes, jpc, jpc.execute), expected())


@pytest.mark.parametrize("name", ["param_shift", "cached"])
def test_pennylanes_tapes_with_pennylanes_jpcs(name: str) -> None:
    found = run(kg.ExecuteTapes, pennylanes_jpcs()[name], qml.device("default.qubit").execute)
    torch.testing.assert_close(found, expected())


@pytest.mark.parametrize("jpc_name", ["param_shift", "cached", "ours"])
@pytest.mark.parametrize("execution", ["theirs", "ours"])
def test_our_tapes_with_every_jpc_and_execution(jpc_name: str, execution: str) -> None:
    x, w = values()
    tapes = [kg.Tape.from_pennylane(tape) for tape in tapes_of(x, w)]
    ours = kg.AdjointProducts()
    jpc = ours if jpc_name == "ours" else pennylanes_jpcs()[jpc_name]
    execute_fn = ours.execute if execution == "ours" else qml.device("default.qubit").execute
    parameters = [p for t in tapes for p in t.get_parameters()]
    results = kg.ExecuteTapes.apply({"tapes": tapes, "execute_fn": execute_fn, "jpc": jpc}, *parameters)
    leaves = tree_leaves(results)
    loss = sum(((i + 1) * leaf**2).sum() for i, leaf in enumerate(leaves))
    found = [*(leaf.detach() for leaf in leaves), *torch.autograd.grad(loss, [x, w])]
    torch.testing.assert_close(found, expected())


def test_our_parameters_that_pennylane_counts_otherwise_are_refused() -> None:
    c = torch.tensor([0.1, 0.2], requires_grad=True)
    tapes = [kg.Tape([kg.RX(0.1, wires=0)], [kg.expval(kg.Hamiltonian(c, [kg.Z(0), kg.X(0)]))])]
    jpc = pennylanes_jpcs()["param_shift"]
    with pytest.raises(ValueError, match="PennyLane counts 2 trainable parameters where the tape has 1"):
        kg.ExecuteTapes.apply({"tapes": tapes, "execute_fn": kg.AdjointProducts().execute, "jpc": jpc}, c)


def test_pennylanes_execute_tapes_with_our_jpc() -> None:
    jpc = kg.AdjointProducts()
    torch.testing.assert_close(run(PennyLaneExecuteTapes, jpc, jpc.execute), expected())


def test_our_execution_with_pennylanes_gradients_and_the_reverse() -> None:
    jpc = kg.AdjointProducts()
    torch.testing.assert_close(run(kg.ExecuteTapes, pennylanes_jpcs()["param_shift"], jpc.execute), expected())
    torch.testing.assert_close(run(kg.ExecuteTapes, jpc, qml.device("default.qubit").execute), expected())


def test_devices_adjoint_products_take_expectation_values() -> None:
    def build(x: Tensor) -> tuple[Any, ...]:
        tape = qml.tape.QuantumScript(
            [qml.RX(x, wires=0), qml.RY(x, wires=0)], [qml.expval(qml.Z(0)), qml.expval(qml.X(0))]
        )
        return (tape,)

    gradients = []
    for jpc in (pennylanes_jpcs()["device"], kg.AdjointProducts()):
        x = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
        tapes = build(x)
        execute_fn = qml.device("default.qubit").execute if not isinstance(jpc, kg.AdjointProducts) else jpc.execute
        ((z, y),) = kg.ExecuteTapes.apply(
            {"tapes": tapes, "execute_fn": execute_fn, "jpc": jpc}, *[p for t in tapes for p in t.get_parameters()]
        )
        gradients.append(torch.autograd.grad(z - 2 * y, x)[0])
    torch.testing.assert_close(*gradients)


def test_complex_results_under_both_conventions() -> None:
    """PennyLane conjugates cotangents before a JPC sees them."""
    found = []
    for function in (kg.ExecuteTapes, PennyLaneExecuteTapes):
        x = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
        tape = qml.tape.QuantumScript([qml.RX(x, wires=0), qml.RZ(x, wires=0)], [qml.state()])
        jpc = kg.AdjointProducts()
        (state,) = function.apply({"tapes": (tape,), "execute_fn": jpc.execute, "jpc": jpc}, x, x)
        found.append(torch.autograd.grad((state * torch.tensor([1 + 2j, 0.5j])).sum().real, x)[0])
    device = qml.device("default.qubit")
    x = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    (state,) = device.execute((qml.tape.QuantumScript([qml.RX(x, wires=0), qml.RZ(x, wires=0)], [qml.state()]),))
    found.append(torch.autograd.grad((state * torch.tensor([1 + 2j, 0.5j])).sum().real, x)[0])
    torch.testing.assert_close(found[0], found[2])
    torch.testing.assert_close(found[1], found[2])


def test_batched_tapes_of_pennylane() -> None:
    x = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)
    w = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    tape = qml.tape.QuantumScript([qml.RX(x, wires=0), qml.RY(w, wires=0)], [qml.expval(qml.X(0)), qml.probs(wires=0)])
    ((z, p),) = kg.execute([tape])
    assert (z.shape, p.shape) == ((3,), (3, 2))
    found = torch.autograd.grad(z.sum() + (p**2).sum(), [x, w])
    (z, p) = qml.device("default.qubit").execute((tape,))[0]
    torch.testing.assert_close(found, torch.autograd.grad(z.sum() + (p**2).sum(), [x, w]))


def test_jacobians_match_pennylanes() -> None:
    x, w = values()
    tapes = tapes_of(x, w)
    ours, theirs = kg.AdjointProducts(), pennylanes_jpcs()["param_shift"]
    for a, b in zip(
        tree_leaves(ours.compute_jacobian(tapes)), tree_leaves(theirs.compute_jacobian(tapes)), strict=True
    ):
        torch.testing.assert_close(a, torch.as_tensor(b).detach(), check_dtype=False)
    tangents = [
        [torch.tensor(0.1 * (i + 1), dtype=torch.float64) for i in range(len(t.trainable_params))] for t in tapes
    ]
    found, wanted = (jpc.execute_and_compute_jvp(tapes, tangents) for jpc in (ours, theirs))
    for a, b in zip(tree_leaves(found), tree_leaves(wanted), strict=True):
        torch.testing.assert_close(a, torch.as_tensor(b).detach(), check_dtype=False)
