"""The PennyLane device `ketgrad.qubit` against default.qubit: results, gradients, nesting, shots, configuration.

Everything runs in double where not said otherwise. What default.qubit computes with torch and backpropagation is the
expectation for all three interfaces.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import ketgrad as kg

qml = pytest.importorskip("pennylane")

from pennylane import measurements as mp  # noqa: E402
from pennylane import numpy as pnp  # noqa: E402
from pennylane.devices import ExecutionConfig, MCMConfig  # noqa: E402
from pennylane.exceptions import AllocationError, DeviceError, QuantumFunctionError, WireError  # noqa: E402
from pennylane.tape import QuantumScript  # noqa: E402

from ketgrad.interop.pennylane import conversion  # noqa: E402
from ketgrad.interop.pennylane import device as pennylane_device  # noqa: E402
from ketgrad.interop.pennylane import execution as pennylane_execution  # noqa: E402
from ketgrad.interop.pennylane.device import KetgradQubit  # noqa: E402
from ketgrad.native import operators  # noqa: E402

NAME = "ketgrad.qubit"
# Two simulators in double precision; entropies take logarithms of small eigenvalues.
TOLERANCE = 1e-9
# A fixed seed decides; five standard deviations leave room for another generator.
DEVIATIONS = 5


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(0.1, 1.1, shape)


def tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.tensor(numbers(*shape, seed=seed), requires_grad=True)


def node(
    function: Callable[..., Any], device: Any = NAME, *, wires: Any = None, shots: Any = None, **kwargs: Any
) -> Any:
    """A QNode on a device, by default a new one that is seeded."""
    if isinstance(device, str):
        device = qml.device(device, wires=wires, seed=1)
    qnode = qml.QNode(function, device, **kwargs)
    return qnode if shots is None else qml.set_shots(qnode, shots)


def script(measurements: Any, *gates: Any, shots: Any = None) -> Any:
    found = QuantumScript(gates, measurements, shots=shots)
    found.trainable_params = qml.math.get_trainable_indices(found.get_parameters(trainable_only=False))
    return found


# --- loss and gradients in each interface ----------------------------------------------------------------------------


def contract(results: Any) -> Any:
    """A real number of every entry of nested results, with fixed weights."""
    total = 0.0
    for k, leaf in enumerate(pytree.tree_leaves(results)):
        shape = qml.math.shape(leaf)
        phases = 1.3 * k + np.arange(math.prod(shape)).reshape(shape)
        cosines, sines = (qml.math.convert_like(np.asarray(f(phases)), leaf) for f in (np.cos, np.sin))
        total = total + qml.math.sum(qml.math.real(leaf) * qml.math.real(cosines))
        if "complex" in qml.math.get_dtype_name(leaf):
            total = total + qml.math.sum(qml.math.imag(leaf) * qml.math.real(sines))
    return total


def by_torch(qnode: Any, args: Any) -> tuple[Any, list[Any]]:
    tensors = [torch.tensor(each, requires_grad=True) for each in args]
    results = qnode(*tensors)
    loss = contract(results)
    if not (isinstance(loss, Tensor) and loss.requires_grad):
        return results, [np.zeros_like(each) for each in args]
    found = torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
    return results, [each.resolve_conj().numpy() for each in found]


def by_autograd(qnode: Any, args: Any) -> tuple[Any, list[Any]]:
    arrays = [pnp.array(each, requires_grad=True) for each in args]
    found = qml.grad(lambda *given: contract(qnode(*given)), argnums=list(range(len(args))))(*arrays)
    return qnode(*arrays), list(found)


def by_jax(qnode: Any, args: Any) -> tuple[Any, list[Any]]:
    jax = pytest.importorskip("jax")
    arrays = [jax.numpy.array(each) for each in args]
    found = jax.grad(lambda *given: contract(qnode(*given)), argnums=list(range(len(args))))(*arrays)
    return qnode(*arrays), list(found)


INTERFACES = {"torch": by_torch, "autograd": by_autograd, "jax": by_jax}


@pytest.fixture
def jax() -> Iterator[Any]:
    """JAX in double precision."""
    found = pytest.importorskip("jax")
    before = found.config.jax_enable_x64
    found.config.update("jax_enable_x64", True)
    yield found
    found.config.update("jax_enable_x64", before)


@pytest.fixture
def interface(request: pytest.FixtureRequest) -> str:
    if request.param == "jax":
        request.getfixturevalue("jax")
    return str(request.param)


def as_array(value: Any) -> Any:
    return value.detach().resolve_conj().numpy() if isinstance(value, Tensor) else np.asarray(value)


def assert_alike(found: Any, expected: Any, tolerance: float = TOLERANCE) -> None:
    """Equal nesting and values."""
    found_leaves, found_nesting = pytree.tree_flatten(found)
    expected_leaves, expected_nesting = pytree.tree_flatten(expected)
    assert found_nesting == expected_nesting
    for one, other in zip(map(as_array, found_leaves), map(as_array, expected_leaves), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def compare(
    function: Callable[..., Any], *args: Any, wires: Any = None, interface: str = "torch", **kwargs: Any
) -> None:
    """The same results and gradients as default.qubit."""
    expected, expected_gradients = by_torch(node(function, "default.qubit", wires=wires), args)
    found, found_gradients = INTERFACES[interface](node(function, wires=wires, **kwargs), args)
    assert_alike(found, expected)
    assert_alike(found_gradients, expected_gradients)


@contextmanager
def native_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the native operators that are called, in order."""
    calls: list[str] = []
    with monkeypatch.context() as patch:
        for name in ("run_execute", "run_execute_vjp"):
            run = getattr(operators, name)
            patch.setattr(operators, name, lambda *a, run=run, name=name: (calls.append(name), run(*a))[1])
        yield calls


# --- circuits --------------------------------------------------------------------------------------------------------


def z(wire: Any = 0) -> Any:
    return qml.expval(qml.Z(wire))


def layers(x: Any) -> None:
    """A state of three wires without symmetries, of three angles."""
    for wire in range(3):
        qml.RX(x[..., wire], wires=wire)
        qml.RY(0.3 + 0.2 * wire, wires=wire)
    qml.CNOT(wires=[0, 1])
    qml.IsingXX(x[..., 0], wires=[1, 2])
    qml.CRZ(x[..., 1], wires=[2, 0])


def measured(function: Callable[..., Any]) -> Callable[..., Any]:
    """Layers, then measurements."""

    def circuit(x: Any, *args: Any) -> Any:
        layers(x)
        return function(*args)

    return circuit


def gates(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gates, then something to measure."""

    def circuit(*args: Any) -> Any:
        function(*args)
        return z(), qml.probs(wires=[0, 1]), qml.expval(qml.X(0) @ qml.Y(1))

    return circuit


def rotations(x: Any) -> None:
    qml.RX(x[0], wires=0)
    qml.Rot(x[1], x[2], x[3], wires=1)
    qml.CRY(x[4], wires=[0, 1])
    qml.PhaseShift(x[5], wires=0)
    qml.IsingXY(x[6], wires=[1, 0])
    qml.MultiRZ(x[7], wires=[0, 1])
    qml.PauliRot(x[8], "XY", wires=[1, 0])
    qml.SingleExcitation(x[9], wires=[0, 1])
    qml.U3(x[10], x[11], x[12], wires=0)
    qml.GlobalPhase(x[13])
    qml.DoubleExcitation(x[14], wires=range(4))


class OnlyAMatrix(qml.operation.Operation):  # type: ignore[misc]
    """exp(−iφX/2), of which PennyLane knows nothing else."""

    num_params, num_wires, ndim_params = 1, 1, (0,)

    @staticmethod
    def compute_matrix(phi: Any) -> Any:
        return qml.RX.compute_matrix(phi)


def overlap(x: Any, y: Any) -> None:
    qml.AmplitudeEmbedding(x, [0, 1], normalize=True)
    qml.adjoint(qml.AmplitudeEmbedding)(y, [0, 1], normalize=True)


def prepared_as_unitaries(x: Any) -> None:
    unit = x / qml.math.norm(x)
    qml.RX(x[0], 2)
    qml.ctrl(qml.StatePrep(unit, [0, 1]), 2)
    qml.RY(x[1], 2)
    qml.adjoint(qml.ctrl(qml.adjoint(qml.StatePrep(unit, [1, 0])), 2, control_values=0))
    qml.adjoint(qml.BasisState([1, 0], [0, 2]))
    qml.ctrl(qml.BasisEmbedding(1, [1]), [0, 2], control_values=[0, 1])
    qml.adjoint(lambda: (qml.CosineWindow([0, 1]), qml.RX(x[2], 0)))()


def block_encoded(x: Any) -> None:
    observable = qml.dot([0.3, 0.7], [qml.Z(1), qml.X(1)])
    qml.RX(x[0], 1)
    qml.PrepSelPrep(observable, control=[0])
    qml.RY(x[1], 0)
    qml.adjoint(qml.PrepSelPrep(observable, control=[0]))
    qml.ctrl(qml.Qubitization(observable, control=[0]), 2, control_values=0)


def selected(x: Any) -> None:
    qml.RX(x[0], 0)
    qml.QROM(["01", "10"], [0], [1, 2], [3])
    qml.Select([qml.BasisState([1, 0], [1, 2]), qml.StatePrep(x / qml.math.norm(x), [1, 2])], control=[0])
    qml.adjoint(qml.QROM(["11", "10"], [0], [1, 2], [3]))


def prepared_several_times(x: Any) -> None:
    qml.BasisState([1], wires=[0])
    qml.StatePrep(x / qml.math.norm(x), wires=[1, 2])
    qml.CNOT(wires=[1, 0])
    qml.BasisState([1, 0], wires=[3, 4])
    qml.CRX(x[0], wires=[3, 0])


def halfway(x: Any) -> Any:
    """Measurements, conditions and a reset on the way."""
    qml.RX(x[0], wires=0)
    m0 = qml.measure(0, reset=True)
    qml.cond(m0, qml.RY, qml.RX)(x[1], wires=1)
    m1 = qml.measure(1)
    qml.cond(m0 & ~m1, qml.RY)(x[2], wires=0)
    return qml.expval(m0 + 2 * m1), qml.probs(op=[m0, m1]), qml.var(m1), z(0), qml.probs(wires=[0, 1])


def postselected(x: Any) -> Any:
    layers(x)
    qml.measure(1, postselect=1)
    qml.RX(x[0], wires=1)
    return z(1), qml.probs(wires=[0, 2])


def hermitian(a: Any) -> Any:
    parts = (np.array([[1.0, 0.5], [0.5, -0.3]]), np.array([[0.0, -1.0j], [1.0j, 0.0]]))
    return sum(a[k] * qml.math.convert_like(part.astype(complex), a) for k, part in enumerate(parts))


WORDS = (qml.X(0) @ qml.Z(1), qml.Y(1), qml.Z(0), qml.Identity(2))
HERMITIAN = np.array([[1.0, 0.3 - 0.2j], [0.3 + 0.2j, -0.5]])
HAMILTONIAN = qml.Hamiltonian([0.5, 0.3, -0.2, 0.1], WORDS)


class Case(NamedTuple):
    """A quantum function and its arguments, for every interface."""

    function: Callable[..., Any]
    args: tuple[Any, ...]


GATES: dict[str, Case] = {
    "rotations": Case(gates(rotations), (numbers(15),)),
    "adjoint, ctrl and pow": Case(
        gates(
            lambda x: (
                qml.RY(0.4, 1),
                qml.ctrl(qml.adjoint(qml.Rot(x[0], x[1], x[2], 0)), control=[1, 2], control_values=[1, 0]),
                qml.adjoint(qml.IsingXX)(x[0], wires=[0, 1]),
                qml.pow(qml.RX(x[1], 0), 3),
                qml.ctrl(qml.adjoint(qml.S(0)), 1),
            )
        ),
        (numbers(3),),
    ),
    "AngleEmbedding": Case(gates(lambda x: qml.AngleEmbedding(x, range(3), rotation="Y")), (numbers(3),)),
    "StronglyEntanglingLayers": Case(gates(lambda w: qml.StronglyEntanglingLayers(w, range(3))), (numbers(2, 3, 3),)),
    "BasicEntanglerLayers": Case(gates(lambda w: qml.BasicEntanglerLayers(w, range(3))), (numbers(2, 3),)),
    "IQPEmbedding": Case(gates(lambda x: qml.IQPEmbedding(x, range(3), n_repeats=2)), (numbers(3),)),
    "QFT": Case(gates(lambda x: (qml.AngleEmbedding(x, range(3)), qml.QFT(range(3)))), (numbers(3),)),
    "Trotter": Case(gates(lambda t: (qml.RY(t, 1), qml.ApproxTimeEvolution(HAMILTONIAN, t, 2))), (numbers(),)),
    "exponentials": Case(
        gates(
            lambda t: (
                qml.RY(t, 1),
                qml.exp(qml.X(0) @ qml.Z(1), -0.5j * t),
                qml.evolve(qml.Y(0) @ qml.X(1), t),
                qml.evolve(HAMILTONIAN, t),
                qml.exp(qml.Z(0) @ qml.Z(1), -0.25j),
            )
        ),
        (numbers(),),
    ),
    "phase estimation": Case(
        gates(lambda x: qml.QuantumPhaseEstimation(qml.RX(x, 0), estimation_wires=[1, 2])), (numbers(),)
    ),
    "UCCSD": Case(
        gates(lambda w: qml.UCCSD(w, range(4), [[0, 1, 2]], [[[0, 1], [2, 3]]], np.array([1, 1, 0, 0]))), (numbers(2),)
    ),
    "a matrix only": Case(gates(lambda x: (OnlyAMatrix(x, wires=0), qml.CNOT([0, 1]))), (numbers(),)),
    "StatePrep": Case(gates(lambda x: qml.StatePrep(x / qml.math.norm(x), wires=[1, 0])), (numbers(4),)),
    "AmplitudeEmbedding": Case(gates(lambda x: qml.AmplitudeEmbedding(x, [0, 1], normalize=True)), (numbers(4),)),
    "several preparations": Case(gates(prepared_several_times), (numbers(4),)),
    "overlap of embeddings": Case(gates(overlap), (numbers(4), numbers(4, seed=1))),
    "batch: overlap of embeddings": Case(gates(overlap), (numbers(3, 4), numbers(3, 4, seed=1))),
    "adjoint and ctrl of preparations": Case(gates(prepared_as_unitaries), (numbers(4),)),
    "PrepSelPrep and Qubitization": Case(gates(block_encoded), (numbers(2),)),
    "QROM and Select": Case(gates(selected), (numbers(4),)),
    "QubitUnitary": Case(
        gates(lambda x: qml.QubitUnitary(qml.matrix(qml.RX(x[0], 0) @ qml.RY(x[1], 0)), wires=0)), (numbers(2),)
    ),
    "ControlledQubitUnitary": Case(
        gates(lambda x: (qml.H(1), qml.ControlledQubitUnitary(qml.RX.compute_matrix(x), wires=[1, 0]))), (numbers(),)
    ),
    "DiagonalQubitUnitary": Case(
        gates(lambda x: (qml.H(0), qml.H(1), qml.DiagonalQubitUnitary(qml.MultiRZ.compute_eigvals(x, 2), [0, 1]))),
        (numbers(),),
    ),
}

MEASUREMENTS: dict[str, Case] = {
    "expectations": Case(
        measured(lambda: (z(), qml.expval(qml.X(0) @ qml.Y(2)), qml.expval(HAMILTONIAN))), (numbers(3),)
    ),
    "variances": Case(
        measured(lambda: (qml.var(qml.Z(0)), qml.var(qml.X(0) @ qml.Y(2)), qml.var(HAMILTONIAN))), (numbers(3),)
    ),
    "probabilities": Case(measured(lambda: (qml.probs(), qml.probs(wires=[2, 0]))), (numbers(3),)),
    "probabilities of observables": Case(
        measured(lambda: (qml.probs(op=qml.X(0)), qml.probs(op=qml.Y(2) @ qml.H(1)))), (numbers(3),)
    ),
    "state": Case(measured(lambda: qml.state()), (numbers(3),)),
    "density matrices": Case(measured(lambda: (qml.density_matrix([1]), qml.density_matrix([2, 0]))), (numbers(3),)),
    "coefficients": Case(
        measured(lambda c: (qml.expval(qml.Hamiltonian(c, WORDS)), qml.expval(qml.dot(c, WORDS)))),
        (numbers(3), numbers(4)),
    ),
    "nested sums": Case(
        measured(lambda c: (qml.expval(c[0] * (c[1] * qml.X(0) + qml.Z(1)) @ qml.Y(2)), qml.var(c[0] * qml.Z(0)))),
        (numbers(3), numbers(2)),
    ),
    "Hermitian": Case(measured(lambda a: qml.expval(qml.Hermitian(hermitian(a), 1))), (numbers(3), numbers(2))),
    "projectors": Case(
        measured(
            lambda: (
                qml.expval(qml.Projector([1, 0], [2, 0])),
                qml.expval(qml.Projector([0.6, 0.0, 0.0, 0.8j], [1, 0])),
            )
        ),
        (numbers(3),),
    ),
    "observables by their matrices": Case(
        measured(
            lambda: (
                qml.expval(qml.prod(qml.X(0), qml.Hermitian(HERMITIAN, 0), qml.X(0))),
                qml.var(qml.prod(qml.Hermitian(HERMITIAN, 0), qml.Hermitian(HERMITIAN, 0))),
                qml.expval(qml.adjoint(qml.Hermitian(HERMITIAN, 1))),
                qml.expval(qml.ops.Exp(qml.Z(0), -0.3)),
            )
        ),
        (numbers(3),),
    ),
    "eigenvalues": Case(
        measured(
            lambda: (
                mp.ExpectationMP(eigvals=[0.5, -2.0], wires=qml.wires.Wires(1)),
                mp.VarianceMP(eigvals=[0.5, -2.0, 0.0, 1.0], wires=qml.wires.Wires([2, 0])),
            )
        ),
        (numbers(3),),
    ),
    "entropies": Case(
        measured(lambda: (qml.purity([0]), qml.vn_entropy([0, 1]), qml.mutual_info([0], [1, 2]), qml.purity([2, 1]))),
        (numbers(3),),
    ),
    "halfway": Case(halfway, (numbers(3),)),
    "many": Case(
        measured(lambda: (z(), qml.probs(wires=[1]), qml.var(qml.X(2)), qml.state(), qml.purity([0]), z(1))),
        (numbers(3),),
    ),
}

BATCHES: dict[str, Case] = {
    "angles beside shared ones": Case(
        lambda x, w: (qml.RX(x, 0), qml.RY(w, 1), qml.CRX(x, [0, 1]), z(1), qml.var(qml.X(0)), qml.probs())[3:],
        (numbers(5), numbers()),
    ),
    "embedding and layers": Case(
        gates(lambda x, w: (qml.AngleEmbedding(x, range(3)), qml.StronglyEntanglingLayers(w, range(3)))),
        (numbers(5, 3), numbers(2, 3, 3)),
    ),
    "batched layers": Case(gates(lambda w: qml.BasicEntanglerLayers(w, range(3))), (numbers(5, 2, 3),)),
    "states and density matrices": Case(
        measured(lambda: (qml.state(), qml.density_matrix([2, 0]), qml.probs(op=qml.Y(1)))), (numbers(5, 3),)
    ),
    "entropies": Case(measured(lambda: (qml.purity([0]), qml.vn_entropy([1]))), (numbers(5, 3),)),
    "amplitudes": Case(gates(lambda x: qml.AmplitudeEmbedding(x, [0, 1], normalize=True)), (numbers(5, 4),)),
    "matrices": Case(gates(lambda x: qml.QubitUnitary(qml.RX.compute_matrix(x), wires=0)), (numbers(5),)),
    "a batch of one": Case(measured(lambda: (z(), qml.probs(wires=[0]))), (numbers(1, 3),)),
}

CASES = GATES | MEASUREMENTS | {f"batch: {name}": case for name, case in BATCHES.items()}
# One of a kind for the interfaces where tracing takes its time.
EVERYWHERE = [
    "rotations",
    "adjoint, ctrl and pow",
    "StronglyEntanglingLayers",
    "a matrix only",
    "several preparations",
    "overlap of embeddings",
    "QubitUnitary",
    "expectations",
    "variances",
    "probabilities of observables",
    "state",
    "density matrices",
    "coefficients",
    "Hermitian",
    "observables by their matrices",
    "entropies",
    "halfway",
    "many",
    "batch: angles beside shared ones",
    "batch: embedding and layers",
    "batch: states and density matrices",
    "batch: amplitudes",
    "batch: a batch of one",
]


# default.qubit multiplies tensors and NumPy arrays.
@pytest.mark.filterwarnings(
    "ignore:__array_wrap__ must accept context:DeprecationWarning", "ignore:Casting complex values"
)
@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    compare(CASES[name].function, *CASES[name].args)


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:__array_wrap__ must accept context:DeprecationWarning", "ignore:Casting complex values"
)
@pytest.mark.parametrize("interface", ["autograd", "jax"], indirect=True)
@pytest.mark.parametrize("name", EVERYWHERE)
def test_case_in_other_interfaces(name: str, interface: str) -> None:
    compare(CASES[name].function, *CASES[name].args, interface=interface)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: (qml.RX(x, 0), [z(), qml.probs(wires=0)])[1],
        lambda x: (qml.RX(x, 0), [z()])[1],
        lambda x: (qml.RX(x, 0), (z(),))[1],
        lambda x: (qml.RX(x, 0), {"z": z(), "rest": [qml.state(), (qml.var(qml.X(0)), z())]})[1],
        lambda x: (qml.RX(x, 0), z())[1],
    ],
    ids=["list", "list of one", "tuple of one", "dictionary", "one"],
)
def test_results_nest_as_the_function_returns_them(function: Callable[..., Any]) -> None:
    compare(function, numbers())
    compare(function, numbers(3))


def test_what_is_no_parameter_may_be_anything() -> None:
    qnode = node(lambda x, *, wire: (qml.RX(x, wires=wire), z(wire))[1])
    assert qnode(0.3, wire="a") == pytest.approx(np.cos(0.3))
    assert qnode([0.3, 0.4], wire=0) == pytest.approx(np.cos([0.3, 0.4]))


# PennyLane's own warning about the order of the eigenvalues.
@pytest.mark.filterwarnings("ignore:Using qp.probs with a Hermitian observable")
def test_probabilities_of_matrices_that_differ_in_values_only() -> None:
    other = HERMITIAN.conj() + np.diag([0.2, 0.0])
    compare(measured(lambda: [qml.probs(op=qml.Hermitian(a, 1)) for a in (HERMITIAN, other)]), numbers(3))


def test_sparse_matrices_are_those_that_are_dense() -> None:
    """default.qubit does not multiply them with torch's tensors."""
    matrix = scipy.sparse.csr_matrix(qml.RX.compute_matrix(0.3))
    sparse, dense = [
        by_torch(node(gates(lambda x, m=m: (qml.RY(x, 0), qml.QubitUnitary(m, wires=0)))), [numbers()])
        for m in (matrix, matrix.toarray())
    ]
    assert_alike(sparse, dense)


def test_sparse_hamiltonians() -> None:
    compare(
        measured(lambda: qml.expval(qml.SparseHamiltonian(HAMILTONIAN.sparse_matrix(range(3)), range(3)))), numbers(3)
    )


# --- configuration ---------------------------------------------------------------------------------------------------


def test_entry_point() -> None:
    (found,) = entry_points(group="pennylane.plugins", name=NAME)
    assert found.load() is KetgradQubit
    device = qml.device(NAME, wires=2)
    assert type(device) is KetgradQubit
    assert device.name == NAME
    assert repr(device).startswith("<ketgrad.qubit device (wires=2)")


def test_wires_are_a_number_labels_or_none() -> None:
    assert qml.device(NAME).wires is None
    assert qml.device(NAME, wires=3).wires.tolist() == [0, 1, 2]
    assert qml.device(NAME, wires=["a", 4]).wires.tolist() == ["a", 4]


CAPABILITIES = tomllib.loads(Path(KetgradQubit.config_filepath).read_text(encoding="utf-8"))


def name_of(theirs: type) -> str:
    """PennyLane's name of an operator."""
    return {"BasisStateProjector": "Projector", "StateVectorProjector": "Projector"}.get(
        theirs.__name__, theirs.__name__
    )


def test_capabilities_are_what_is_converted() -> None:
    gates = CAPABILITIES["operators"]["gates"]
    symbolic = set(conversion._SYMBOLIC) - {qml.ControlledQubitUnitary, qml.MultiControlledX}
    assert set(gates) == {name_of(theirs) for theirs in set(conversion._OPERATIONS) - symbolic} | {"Snapshot"}
    for theirs in set(conversion._OPERATIONS) - symbolic:
        properties = set(gates[name_of(theirs)].get("properties", []))
        is_state = issubclass(theirs, qml.operation.StatePrepBase)
        does_nothing = theirs in (qml.Barrier, qml.WireCut)
        assert ("differentiable" in properties) == (not does_nothing and theirs not in conversion._OF_BITS)
        assert ({"invertible", "controllable"} <= properties) == (not is_state and not does_nothing)
    observables = {*conversion._OBSERVABLES, *conversion._LETTERS}
    assert set(CAPABILITIES["operators"]["observables"]) == {name_of(theirs) for theirs in observables}


def test_capabilities_name_measurements_that_run() -> None:
    names = set(CAPABILITIES["measurement_processes"])
    assert {theirs.__name__ for theirs in conversion._KINDS} <= names
    of_wire = {"wires": qml.wires.Wires(0)}
    made: dict[str, dict[str, Any]] = {
        "MutualInfoMP": {"wires": [qml.wires.Wires(0), qml.wires.Wires(1)]},
        "ShadowExpvalMP": {"H": qml.Z(0)},
        "ExpectationMP": {"obs": qml.Z(0)},
        "VarianceMP": {"obs": qml.Z(0)},
        "StateMP": {},
    }
    for name in names:
        conditions = CAPABILITIES["measurement_processes"][name].get("conditions", ["analytic", "finiteshots"])
        for shots, condition in ((None, "analytic"), (3, "finiteshots")):
            measurement = getattr(mp, name)(**made.get(name, of_wire))
            qnode = node(lambda m=measurement: (qml.H(0), qml.CNOT([0, 1]), qml.apply(m))[-1], shots=shots)
            if condition in conditions:
                qnode()
            else:
                with pytest.raises(DeviceError, match="not accepted"):
                    qnode()


def test_capabilities_of_the_class_are_those_of_the_file() -> None:
    capabilities = KetgradQubit.capabilities
    assert set(capabilities.operations) == set(CAPABILITIES["operators"]["gates"])
    assert set(CAPABILITIES["compilation"]["supported_mcm_methods"]) == set(pennylane_device._MCM_METHODS)
    assert capabilities.initial_state_prep
    assert not capabilities.qjit_compatible


@pytest.mark.parametrize("method", ["adjoint", "backprop", "best", "device"])
def test_methods_that_mean_the_adjoint_method(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["many"]
    compare(*[case.function, *case.args], diff_method=method)
    qnode = node(lambda x: (layers(x), z(), qml.probs(wires=1))[1:], diff_method=method)
    with native_calls(monkeypatch) as calls:
        contract(qnode(tensor(3))).backward()
    assert calls == ["run_execute", "run_execute_vjp"]


@pytest.mark.parametrize("interface", ["torch", "autograd", "jax"], indirect=True)
@pytest.mark.parametrize("method", ["adjoint", "backprop", "best", "device", "parameter-shift", "finite-diff"])
def test_every_method_in_every_interface(method: str, interface: str) -> None:
    function = measured(lambda: (z(), qml.probs(wires=[0, 1])))
    expected = by_torch(node(function, "default.qubit"), [numbers(3)])
    found = INTERFACES[interface](node(function, diff_method=method), [numbers(3)])
    assert_alike(found, expected, 1e-5 if method == "finite-diff" else TOLERANCE)


@pytest.mark.parametrize("method", ["hadamard", "spsa"])
def test_methods_of_pennylane_alone(method: str) -> None:
    """What PennyLane makes of a circuit runs here; spsa averages over random directions."""

    def circuit(x: Tensor) -> Any:
        qml.RX(x[0], 0)
        qml.CRY(x[1], [0, 1])
        qml.RZ(x[0] * x[1], 1)
        qml.CNOT([0, 1])
        return qml.expval(qml.Z(1)), qml.probs(wires=0)

    own = {"spsa": {"num_directions": 400, "sampler_rng": 1}, "hadamard": {"aux_wire": 2}}
    options = {"gradient_kwargs": own[method]}
    expected = by_torch(node(circuit, "default.qubit"), [numbers(2)])
    found = by_torch(node(circuit, diff_method=method, **options), [numbers(2)])
    assert_alike(found, expected, 0.2 if method == "spsa" else TOLERANCE)


def test_without_a_method_there_are_no_gradients() -> None:
    assert_alike(
        node(measured(z), diff_method=None)(tensor(3)), node(measured(z), "default.qubit", diff_method=None)(tensor(3))
    )


def test_the_configuration_is_filled_in() -> None:
    device = qml.device(NAME)
    for given in ("best", "adjoint", "device", "backprop"):
        config = device.setup_execution_config(ExecutionConfig(gradient_method=given, interface="torch"))
        assert (config.gradient_method, config.use_device_gradient) == ("backprop", True)
        assert config.use_device_jacobian_product is False
        assert config.convert_to_numpy is False
        config = device.setup_execution_config(ExecutionConfig(gradient_method=given, interface="jax"))
        assert (config.gradient_method, config.use_device_jacobian_product) == ("backprop", False)
        config = device.setup_execution_config(
            ExecutionConfig(gradient_method=given, interface="torch", derivative_order=2)
        )
        assert config.gradient_method is qml.gradients.param_shift
        assert config.use_device_gradient is False
    assert device.setup_execution_config(ExecutionConfig(gradient_method="spsa")).gradient_method == "spsa"


def test_the_configuration_chooses_how_to_measure_halfway() -> None:
    device = qml.device(NAME)

    def chosen(method: str | None, shots: int | None) -> Any:
        config = ExecutionConfig(mcm_config=MCMConfig(mcm_method=method))
        return device.setup_execution_config(config, script([z()], shots=shots)).mcm_config.mcm_method

    assert chosen(None, None) == "deferred"
    assert chosen(None, 10) == "one-shot"
    assert chosen("device", 10) == "deferred"
    assert chosen("deferred", 10) == "deferred"


def test_what_is_differentiable_natively() -> None:
    device = qml.device(NAME)
    exact, sampled = script([z()]), script([z()], shots=10)
    collapsed = script([z()], qml.Projector([0], 0))
    for supports in (device.supports_derivatives, device.supports_vjp, device.supports_jvp):
        assert supports()
        for method in ("best", "adjoint", "device", "backprop"):
            config = ExecutionConfig(gradient_method=method, interface="jax")
            assert supports(config)
            assert supports(config, exact)
            assert not supports(config, sampled)
            assert supports(config, collapsed)
            assert not supports(ExecutionConfig(gradient_method=method, interface="autograd"), collapsed)
        assert not supports(ExecutionConfig(gradient_method="parameter-shift"), exact)
        assert supports(ExecutionConfig(gradient_method="best", interface="torch"), collapsed)


# --- precision -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("c_dtype", "given", "real"),
    [
        (None, torch.float32, torch.float32),
        (None, torch.float64, torch.float64),
        (np.complex64, torch.float64, torch.float32),
        (torch.complex64, torch.float64, torch.float32),
        ("complex128", torch.float32, torch.float64),
        (torch.complex128, torch.float32, torch.float64),
        (None, torch.bfloat16, torch.float32),
    ],
    ids=str,
)
def test_precision_is_that_of_the_tensors_or_the_devices(c_dtype: Any, given: torch.dtype, real: torch.dtype) -> None:
    qnode = node(measured(lambda: (z(), qml.state())), qml.device(NAME, c_dtype=c_dtype))
    x = tensor(3).detach().to(given).requires_grad_()
    expectation, state = qnode(x)
    assert (expectation.dtype, state.dtype) == (real, real.to_complex())
    contract((expectation, state)).backward()
    assert x.grad.dtype == given
    assert_alike(expectation, node(measured(z), "default.qubit")(x.double()), 1e-5)


def test_mixed_precision_is_double() -> None:
    qnode = node(lambda x, w: (qml.RX(x, 0), qml.RY(w, 0), z())[2])
    x, w = torch.tensor(0.3, requires_grad=True), torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    result = qnode(x, w)
    result.backward()
    assert result.dtype == torch.float64
    assert (x.grad.dtype, w.grad.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(result, torch.cos(x.double()) * torch.cos(w))


def test_numbers_and_arrays_run_in_double() -> None:
    assert node(measured(z))(numbers(3)).dtype == np.float64
    assert node(measured(z), qml.device(NAME, c_dtype=np.complex64))(numbers(3)).dtype == np.float32
    assert isinstance(node(measured(z), interface="numpy")(numbers(3)), np.float64)


# --- tensors reach the operator as they are --------------------------------------------------------------------------


def test_tensors_are_the_parameters_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the function and autograd's node for the tapes nothing is copied, detached or converted."""
    given: list[Any] = []
    apply = pennylane_execution.ExecuteTapes.apply
    monkeypatch.setattr(
        pennylane_execution.ExecuteTapes, "apply", lambda kwargs, *p: (given.append((kwargs, p)), apply(kwargs, *p))[1]
    )
    x, w, u = tensor(4), tensor(), torch.eye(2, dtype=torch.complex128, requires_grad=True)

    def circuit(x: Tensor, w: Tensor, u: Tensor) -> Any:
        qml.RX(x, wires=0)
        qml.CRot(w, x, w, wires=[0, 1])
        qml.ctrl(qml.adjoint(qml.RY(w, wires=1)), control=0)
        qml.QubitUnitary(u, wires=1)
        return qml.expval(w * qml.X(0)), qml.probs(wires=1)

    node(circuit)(x, w, u)
    ((kwargs, parameters),) = given
    expected = (x, w, x, w, w, u, w)
    assert len(parameters) == len(expected)
    assert all(one is other for one, other in zip(parameters, expected, strict=True))
    (tape,) = kwargs["tapes"]
    assert [op.name for op in tape.operations] == ["RX", "CRot", "RY", "QubitUnitary"]


@pytest.mark.parametrize("method", ["best", "adjoint", "backprop"])
def test_no_tensor_leaves_its_device(method: str) -> None:
    """Tensors without values: NumPy, and any look at a number, would raise."""

    def circuit(x: Tensor, w: Tensor) -> Any:
        qml.AngleEmbedding(x, wires=range(3))
        qml.StronglyEntanglingLayers(w, wires=range(3))
        return z(), qml.probs(wires=[0]), qml.state(), qml.var(qml.X(1))

    x = torch.empty(5, 3, device="meta", requires_grad=True)
    w = torch.empty(2, 3, 3, device="meta", requires_grad=True)
    results = node(circuit, diff_method=method)(x, w)
    assert [result.device.type for result in results] == ["meta"] * 4
    assert [result.dtype for result in results] == [torch.float32] * 2 + [torch.complex64, torch.float32]
    assert [tuple(result.shape) for result in results] == [(5,), (5, 2), (5, 8), (5,)]
    gradients = torch.autograd.grad(sum(result.abs().sum() for result in results), [x, w])
    assert [(each.device.type, each.shape) for each in gradients] == [("meta", x.shape), ("meta", w.shape)]


def test_circuits_run_on_the_gpu(cuda: torch.device) -> None:
    case = CASES["batch: embedding and layers"]
    args = [torch.tensor(each, device=cuda, requires_grad=True) for each in case.args]
    results = node(case.function)(*args)
    assert {result.device for result in results} == {cuda}
    expected, gradients = by_torch(node(case.function, "default.qubit"), case.args)
    assert_alike([result.cpu() for result in results], list(expected))
    found = torch.autograd.grad(contract([result.cpu() for result in results]), args)
    assert_alike([each.cpu() for each in found], gradients)


def instance(theirs: type) -> Any:
    """An operation with parameters and wires that fit."""
    wires = {qml.ControlledQubitUnitary: 2, qml.MultiControlledX: 3}.get(theirs, theirs.num_wires) or 2
    labels = list(range(wires))
    special: dict[type, Callable[[], Any]] = {
        qml.QubitUnitary: lambda: theirs(np.eye(2**wires), wires=labels),
        qml.ControlledQubitUnitary: lambda: theirs(np.eye(2), wires=labels),
        qml.DiagonalQubitUnitary: lambda: theirs(np.ones(2**wires), wires=labels),
        qml.PauliRot: lambda: theirs(0.3, "XY", wires=labels),
        qml.BasisState: lambda: theirs([1, 0], wires=labels),
        qml.BasisEmbedding: lambda: theirs([1, 0], wires=labels),
        qml.StatePrep: lambda: theirs(np.array([0, 1, 0, 0]), wires=labels),
        qml.AmplitudeEmbedding: lambda: theirs(np.array([0, 1, 0, 0]), wires=labels),
    }
    make = special.get(theirs)
    return make() if make else theirs(*[0.1 * (k + 1) for k in range(theirs.num_params)], wires=labels)


NATIVE = sorted(set(conversion._OPERATIONS) - set(conversion._SYMBOLIC), key=lambda theirs: theirs.__name__)


@pytest.mark.parametrize("theirs", [*NATIVE, qml.ControlledQubitUnitary, qml.MultiControlledX], ids=name_of)
def test_native_operations_are_not_decomposed(theirs: type) -> None:
    device = qml.device(NAME)
    (preprocess, config) = device.preprocess()
    found = [instance(theirs)]
    if not isinstance(found[0], qml.operation.StatePrepBase):
        found += [qml.adjoint(found[0], lazy=True)]
        if theirs not in (qml.Barrier, qml.WireCut):
            found += [
                qml.ops.Controlled(found[0], 7),
                qml.ops.Controlled(qml.adjoint(found[0], lazy=True), [7, 8], [0, 1]),
            ]
    (processed,), _ = preprocess([script([qml.probs()], *found)])
    assert len(processed.operations) == len(found)
    assert all(one is other for one, other in zip(processed.operations, found, strict=True))
    assert config.gradient_method is None


def test_templates_are_decomposed_into_native_operations() -> None:
    preprocess, _ = qml.device(NAME).preprocess()
    templates = [qml.StronglyEntanglingLayers(numbers(2, 3, 3), range(3)), qml.QFT(range(3))]
    (processed,), _ = preprocess([script([z()], *templates)])
    assert {op.name for op in processed.operations} == {"Rot", "CNOT", "Hadamard", "ControlledPhaseShift", "SWAP"}


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_one_native_call(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["batch: embedding and layers"]
    qnode = node(case.function)
    with native_calls(monkeypatch) as calls:
        contract(qnode(*[torch.tensor(each, requires_grad=True) for each in case.args])).backward()
    assert calls == ["run_execute", "run_execute_vjp"]


def test_scripts_of_equal_structure_are_one_native_call(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = [script([z()], qml.RX(tensor(seed=seed), 0)) for seed in range(4)]
    with native_calls(monkeypatch) as calls:
        results = qml.execute(scripts, qml.device(NAME), diff_method="best")
    assert calls == ["run_execute"]
    assert_alike(results, qml.execute(scripts, qml.device("default.qubit"), diff_method="best"))


# --- derivatives -----------------------------------------------------------------------------------------------------


def test_the_variance_of_a_trainable_matrix() -> None:
    """By finite differences: what default.qubit's backpropagation gives is not the derivative."""

    def variance(a: Tensor) -> Any:
        return node(lambda a: (qml.RX(0.4, 1), qml.var(qml.Hermitian(hermitian(a), 1)))[1])(a)

    torch.autograd.gradcheck(variance, tensor(2))


def test_fidelities_are_differentiable() -> None:
    states = node(lambda x: (layers(x), qml.state())[1])
    mixed = node(lambda x: (layers(x), qml.density_matrix([0, 1]))[1])
    other = mixed(tensor(3, seed=1)).detach()
    torch.autograd.gradcheck(lambda x: qml.math.fidelity_statevector(states(x), states(0.5 * x)), tensor(3))
    torch.autograd.gradcheck(lambda x: qml.math.purity(mixed(x), [0]), tensor(3))
    torch.autograd.gradcheck(lambda x: qml.math.trace_distance(mixed(x), other), tensor(3))


def curved(x: Any) -> Any:
    qml.RX(x[0], wires=0)
    qml.RY(x[1], wires=1)
    qml.CNOT(wires=[0, 1])
    qml.RX(x[0], wires=1)
    return qml.expval(qml.Z(0) @ qml.X(1))


@pytest.mark.parametrize("method", ["best", "adjoint", "backprop"])
def test_hessians_by_parameter_shifts(method: str, jax: Any) -> None:
    expected = torch.autograd.functional.hessian(node(curved, "default.qubit"), tensor(2)).numpy()
    qnode = node(curved, diff_method=method, max_diff=2)
    found = {
        "torch": torch.autograd.functional.hessian(qnode, tensor(2)).numpy(),
        "autograd": qml.jacobian(qml.grad(qnode))(pnp.array(numbers(2), requires_grad=True)),
        "jax": jax.hessian(qnode)(jax.numpy.array(numbers(2))),
    }
    for each in found.values():
        np.testing.assert_allclose(each, expected, atol=TOLERANCE)


def test_second_derivatives_of_torch_are_native() -> None:
    x = tensor(2).double()
    found = torch.autograd.functional.hessian(node(curved), x)
    expected = torch.autograd.functional.hessian(qml.QNode(curved, qml.device("default.qubit", wires=2)), x)
    torch.testing.assert_close(found, expected)


def test_other_second_derivatives_are_refused(jax: Any) -> None:
    qnode = node(curved)
    with pytest.raises(NotImplementedError, match="max_diff=2"):
        qml.jacobian(qml.grad(qnode))(pnp.array(numbers(2), requires_grad=True))
    with pytest.raises(NotImplementedError, match="max_diff=2"):  # the inner gradient is no constant either
        qml.grad(lambda x: qml.grad(lambda y: qnode(y) ** 2)(x).sum())(pnp.array(numbers(2), requires_grad=True))
    with pytest.raises(NotImplementedError, match="max_diff=2"):  # by what the circuit itself does not have
        qml.grad(lambda w: qml.grad(lambda x: w * qnode(x))(pnp.array(numbers(2), requires_grad=True)).sum())(
            pnp.array(0.4, requires_grad=True)
        )
    with pytest.raises(NotImplementedError, match="max_diff=2"):
        jax.hessian(qnode)(jax.numpy.array(numbers(2)))


def of_two(x: Any, w: Any) -> Any:
    qml.RX(x, wires=0)
    qml.RY(w, wires=0)
    return z()


def test_mixed_second_derivatives_are_refused(jax: Any) -> None:
    """By two parameters of a circuit, each of which is the variable of one derivative only."""
    qnode = node(of_two)
    w = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    x = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(qnode(x, w), x, create_graph=True)
    assert torch.autograd.grad(gradient, w)[0].item() == pytest.approx(np.sin(0.3) * np.sin(0.5))  # native in torch
    x, w = (pnp.array(each, requires_grad=True) for each in (0.3, 0.5))
    with pytest.raises(NotImplementedError, match="max_diff=2"):
        qml.grad(lambda w: qml.grad(lambda x: qnode(x, w))(x))(w)
    with pytest.raises(NotImplementedError, match="max_diff=2"):
        qml.grad(lambda x: qml.grad(lambda w: qnode(x, w))(w))(x)
    x, w = jax.numpy.array(0.3), jax.numpy.array(0.5)
    with pytest.raises(NotImplementedError, match="max_diff=2"):
        jax.grad(jax.grad(qnode, argnums=0), argnums=1)(x, w)


def test_mixed_second_derivatives_by_parameter_shifts(jax: Any) -> None:
    qnode = node(of_two, max_diff=2)
    expected = np.sin(0.3) * np.sin(0.5)
    x, w = (pnp.array(each, requires_grad=True) for each in (0.3, 0.5))
    assert qml.grad(lambda w: qml.grad(lambda x: qnode(x, w))(x))(w) == pytest.approx(expected)
    mixed = jax.grad(jax.grad(qnode, argnums=0), argnums=1)(jax.numpy.array(0.3), jax.numpy.array(0.5))
    assert float(mixed) == pytest.approx(expected)
    x, w = (torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in (0.3, 0.5))
    (gradient,) = torch.autograd.grad(qnode(x, w), x, create_graph=True)
    assert torch.autograd.grad(gradient, w)[0].item() == pytest.approx(expected)


def test_first_derivatives_beside_other_variables_are_not_refused() -> None:
    qnode = node(of_two)
    x, w = (pnp.array(each, requires_grad=True) for each in (0.3, 0.5))
    assert qml.grad(qnode, argnums=[0, 1])(x, w) == pytest.approx(
        (-np.sin(0.3) * np.cos(0.5), -np.cos(0.3) * np.sin(0.5))
    )
    outer = qml.grad(lambda a: a * qml.grad(lambda x: qnode(x, 0.5))(x))(pnp.array(2.0, requires_grad=True))
    assert outer == pytest.approx(-np.sin(0.3) * np.cos(0.5))


@pytest.mark.slow
def test_jax_transforms(jax: Any) -> None:
    x = jax.numpy.array(numbers(3))
    function = measured(lambda: (z(), qml.probs(wires=[0, 1])))
    qnode, reference = node(function), node(function, "default.qubit")
    for transform in (jax.jit, jax.jacrev, lambda f: jax.jit(jax.jacrev(f))):
        assert_alike(transform(qnode)(x), transform(reference)(x))
    batch = jax.numpy.array(numbers(4, 3))
    assert_alike(jax.vmap(qnode)(batch), reference(batch))
    beside = CASES["batch: embedding and layers"]
    _, expected = by_torch(node(beside.function, "default.qubit"), beside.args)
    gradient = jax.grad(lambda *given: contract(node(beside.function)(*given)), argnums=(0, 1))
    assert_alike(list(jax.jit(gradient)(*map(jax.numpy.array, beside.args))), expected)
    one = node(measured(z))
    whole = torch.tensor(numbers(4, 3), requires_grad=True)
    node(measured(z), "default.qubit")(whole).sum().backward()
    assert_alike(jax.jit(jax.grad(lambda x: one(x).sum()))(batch), whole.grad)


@pytest.mark.parametrize("run", [lambda f: node(f), lambda f: node(f, "default.qubit"), lambda f: kg.compile(node(f))])
def test_gates_of_ketgrad_are_refused_by_name(run: Callable[[Any], Any]) -> None:
    def circuit(gate: Callable[[], Any]) -> Any:
        gate()
        return z()

    for gate in (lambda: kg.RX(0.3, 0), lambda: kg.ctrl(kg.RX(0.3, 0), 1), lambda: kg.Rot(*tensor(3), 0)):
        with pytest.raises(TypeError, match=r"(RX|Rot) on wire 0 is ketgrad's.* write pennylane\.(RX|Rot)"):
            run(circuit)(gate)
    with pytest.raises(TypeError, match=r"H on wire 0 .* write pennylane.H"):
        run(circuit)(lambda: kg.adjoint([kg.H(0)]))


def test_gates_of_ketgrad_that_are_run_within_a_circuit() -> None:
    inner = node(lambda: (qml.RX(0.3, 0), z())[1])

    def circuit() -> Any:
        (angle,) = kg.execute([kg.Tape([kg.RX(0.3, 0)], [kg.expval(kg.Z(0))])])
        qml.RX(angle, 0)
        qml.RX(inner(), 0)
        qml.QubitUnitary(kg.matrix([kg.RX(0.1, 0)]), 0)
        return z()

    assert node(circuit)() == pytest.approx(np.cos(2 * np.cos(0.3) + 0.1))


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.coo_matrix, scipy.sparse.csc_array])
def test_sparse_states(kind: Any) -> None:
    state = kind([[0.0, 0.6j, 0.0, 0.8]])
    expected = [0, 0.6j, 0, 0.8]
    for prepare in (qml.StatePrep, qml.AmplitudeEmbedding):
        for run in (lambda f: node(f, wires=2), lambda f: kg.compile(node(f, wires=2))):
            found = run(lambda prepare=prepare: (prepare(state, wires=[0, 1]), qml.state())[1])()
            np.testing.assert_allclose(found, expected)


@pytest.mark.parametrize("run", [node, lambda f: kg.compile(node(f))])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: qml.dot([0.3, 0.4], [qml.X(0), qml.Z(1)]), r"0.3 \* X\(0\) \+ 0.4 \* Z\(1\), which acts as a gate"),
        (lambda: 2 * qml.X(0), r"2 \* X\(0\), which acts as a gate"),
        (lambda: qml.Hamiltonian([1.0, 2.0], [qml.X(0), qml.Z(1)]), r"X\(0\) \+ 2.0 \* Z\(1\), which acts"),
        (lambda: qml.exp(qml.X(0), 0.3), "Exp"),
    ],
)
def test_what_is_not_unitary_is_refused_by_its_name(run: Any, make: Callable[[], Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"must be unitary; .* it is the matrix of .*{name}"):
        run(lambda: (make(), z())[1])()


def test_a_pulse_that_is_solved_too_roughly_is_refused(jax: Any) -> None:
    drift = qml.pulse.constant * qml.X(0) + (lambda p, t: p * jax.numpy.sin(t)) * qml.Z(0)

    def circuit(p: Any) -> Any:
        qml.evolve(drift, atol=1e-2, rtol=1e-2)([p, p], t=20.0)
        return z()

    for run in (node(circuit), jax.jit(node(circuit))):
        with pytest.raises(Exception, match=r"ParametrizedEvolution, .* smaller atol and rtol"):
            run(jax.numpy.array(3.0))


def test_jax_differentiates_by_numbers(jax: Any) -> None:
    def circuit(x: Any, y: Any) -> Any:
        qml.RX(x, wires=0)
        qml.RY(2 * y, wires=0)
        qml.RZ(0.3, wires=0)
        return qml.expval(qml.Z(0))

    for transform in (jax.grad, lambda f, **kw: jax.jit(jax.grad(f, **kw)), jax.value_and_grad):
        gradient = transform(node(circuit), argnums=(0, 1))
        assert_alike(gradient(0.4, 0.1), transform(node(circuit, "default.qubit"), argnums=(0, 1))(0.4, 0.1))


def test_autograds_jacobians() -> None:
    function = measured(lambda: (z(), qml.probs(wires=[0, 1])))

    def jacobian(name: str, x: Any) -> Any:
        qnode = node(function, name)

        def joined(x: Any) -> Any:
            expectation, probabilities = qnode(x)
            return qml.math.concatenate([expectation[..., None], probabilities], -1)

        return qml.jacobian(joined)(x)

    for shape in ((3,), (4, 3)):
        x = pnp.array(numbers(*shape), requires_grad=True)
        assert_alike(jacobian(NAME, x), jacobian("default.qubit", x))


def rotated(*measurements: Any) -> Any:
    return script(
        measurements, qml.RX(pnp.array(0.3), 0), qml.RY(pnp.array(0.7), 1), qml.CNOT([0, 1]), qml.RZ(pnp.array(0.2), 1)
    )


def test_derivatives_vjps_and_jvps_of_the_device() -> None:
    device, reference = qml.device(NAME), qml.device("default.qubit")
    config = ExecutionConfig(gradient_method="adjoint")
    one, several = rotated(qml.expval(qml.Z(1))), rotated(qml.expval(qml.Z(1)), qml.expval(qml.X(0) @ qml.Y(1)))
    circuits, cotangents, tangents = (one, several), (0.4, (0.2, -1.1)), ((1.0, 0.5, 2.0), (0.3, 0.0, 1.0))
    for name, *given in (
        ("compute_derivatives",),
        ("execute_and_compute_derivatives",),
        ("compute_vjp", cotangents),
        ("execute_and_compute_vjp", cotangents),
        ("compute_jvp", tangents),
        ("execute_and_compute_jvp", tangents),
    ):
        found, expected = [getattr(each, name)(circuits, *given, config) for each in (device, reference)]
        assert_alike(found, expected)
    assert_alike(device.compute_derivatives(one, config), reference.compute_derivatives(one, config))


def test_products_of_torchs_tensors_have_one_gradient_for_each_parameter() -> None:
    """Bits, which are parameters to PennyLane, have zeros."""
    x = torch.tensor(0.3, dtype=torch.float64)
    circuit = script([qml.expval(qml.Z(0))], qml.BasisState(torch.tensor([1]), 0), qml.RX(x, 0))
    circuit.trainable_params = [0, 1]
    bits, gradient = qml.device(NAME).compute_vjp(circuit, torch.tensor(2.0, dtype=torch.float64))
    assert torch.equal(bits, torch.zeros_like(bits))
    torch.testing.assert_close(gradient, 2 * torch.sin(x))


def test_products_with_several_cotangents() -> None:
    device, circuit = qml.device(NAME), rotated(qml.expval(qml.Z(1)), qml.probs(wires=[0]))
    dy = (numbers(5), numbers(5, 2))
    found = device.compute_vjp(circuit, dy)
    rows = [device.compute_vjp(circuit, (dy[0][k], dy[1][k])) for k in range(5)]
    assert_alike(found, tuple(np.stack(each) for each in zip(*rows, strict=True)))


def test_derivatives_of_samples_are_refused() -> None:
    circuit = script([z()], qml.RX(pnp.array(0.3), 0), shots=10)
    for name, *given in (("compute_derivatives",), ("compute_vjp", 1.0), ("compute_jvp", (1.0,))):
        with pytest.raises(QuantumFunctionError, match="leave the shots out"):
            getattr(qml.device(NAME), name)(circuit, *given)


# --- wires -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wires", [[0, 1, 2], [2, 0, 1], ["a", 1, "b"], [1, 2, 0, 5], [3.14, "a", 0], None], ids=str)
def test_the_order_of_wires(wires: Any) -> None:
    a, b, c = (wires or [4, 1, 7])[:3]

    def circuit(x: Any) -> Any:
        qml.Barrier([c])
        qml.RX(x[0], wires=b)
        qml.CRY(x[1], wires=[b, a])
        qml.RY(0.3, wires=c)
        return qml.state(), qml.probs(), qml.probs(wires=[c, b]), qml.vn_entropy([b]), qml.mutual_info([c], [a])

    compare(circuit, numbers(2), wires=wires)


def test_wires_of_the_device_and_allocated_ones() -> None:
    def allocates(x: Any) -> Any:
        with qml.allocate(1) as (wire,):
            qml.RX(x[0], wire)
            qml.CNOT([wire, 0])
        return z(0), z(1)

    compare(allocates, numbers(1), wires=3)
    with pytest.raises(WireError, match="not found on the device"):
        node(lambda: z(5), wires=2)()
    with pytest.raises(AllocationError):
        node(allocates, wires=2)(numbers(1))


# --- shots -----------------------------------------------------------------------------------------------------------


SHOTS = 20_000


def within(found: Any, expected: Any, shots: int = SHOTS) -> None:
    np.testing.assert_allclose(found, expected, atol=DEVIATIONS / math.sqrt(shots))


def test_statistics_of_samples() -> None:
    def circuit(x: Any) -> Any:
        layers(x)
        return (
            z(),
            qml.expval(HAMILTONIAN),
            qml.probs(wires=[2, 0]),
            qml.probs(op=qml.X(1)),
            mp.ExpectationMP(eigvals=[0.5, -2.0], wires=qml.wires.Wires(1)),
            qml.expval(qml.ops.Exp(qml.Z(0), -0.3)),
        )

    exact = node(circuit, "default.qubit")(numbers(3))
    for one, other in zip(node(circuit, shots=SHOTS)(numbers(3)), exact, strict=True):
        within(one, other)
    for one, other in zip(
        node(circuit, shots=SHOTS)(numbers(2, 3)), node(circuit, "default.qubit")(numbers(2, 3)), strict=True
    ):
        within(one, other)


def test_samples_and_counts_have_pennylanes_shapes() -> None:
    def circuit() -> Any:
        qml.X(1)
        return (
            qml.sample(),
            qml.sample(wires=[1]),
            qml.sample(qml.Z(0)),
            qml.sample(wires=[1, 0], dtype=np.uint8),
            qml.counts(),
            qml.counts(wires=[1], all_outcomes=True),
            qml.counts(qml.Z(1)),
            qml.counts(qml.Z(1), all_outcomes=True),
        )

    for shots in (1, 5, (3, 2), ((2, 2), 3)):
        found, expected = [node(circuit, name, wires=2, shots=shots)() for name in (NAME, "default.qubit")]
        assert_alike(found, expected)


def test_shot_vectors_are_independent() -> None:
    qnode = node(lambda: (qml.H(0), z(), qml.sample(wires=0))[1:], shots=(SHOTS, (3, 4), SHOTS))
    first, *small, last = qnode()
    assert [each[1].shape for each in (first, *small, last)] == [(SHOTS, 1), *[(3, 1)] * 4, (SHOTS, 1)]
    assert first[0] != last[0]
    within([first[0], last[0]], [0, 0])


def test_equal_parts_of_a_shot_vector_are_drawn_anew() -> None:
    one, other = node(lambda: (qml.H(0), qml.sample(wires=0))[1], shots=((50, 2),))()
    assert not np.array_equal(one, other)


def test_seeds() -> None:
    def samples(seed: Any) -> Any:
        qnode = node(lambda: (qml.H(0), qml.sample(wires=0))[1], qml.device(NAME, seed=seed), shots=50)
        return np.concatenate([qnode(), qnode()])

    assert np.array_equal(samples(3), samples(3))
    assert not np.array_equal(samples(3), samples(4))
    assert not np.array_equal(samples(None), samples(None))
    np.random.seed(1)  # noqa: NPY002
    first = samples("global")
    np.random.seed(1)  # noqa: NPY002
    assert np.array_equal(first, samples("global"))
    halves = samples(3)
    assert not np.array_equal(halves[:50], halves[50:])


def test_gradients_of_samples_by_parameter_shifts() -> None:
    x = tensor(2)
    node(curved, shots=SHOTS)(x).backward()
    _, (expected,) = by_torch(node(curved, "default.qubit"), [numbers(2)])
    within(x.grad, expected)


def test_classical_shadows() -> None:
    bits, recipes = node(lambda: (qml.H(0), qml.CNOT([0, 1]), qml.classical_shadow([0, 1]))[2], shots=SHOTS)()
    shadow = qml.ClassicalShadow(bits, recipes)
    within(shadow.expval(qml.X(0) @ qml.X(1)), 1, SHOTS / 100)
    found = node(lambda: (qml.H(0), qml.CNOT([0, 1]), qml.shadow_expval(qml.Z(0) @ qml.Z(1)))[2], shots=SHOTS)()
    within(found, 1, SHOTS / 100)


def test_classical_shadows_are_those_of_the_seeds() -> None:
    def drawn(seed: int) -> list[Any]:
        device = qml.device(NAME, wires=2, seed=seed)

        def circuit(measure: Callable[[], Any]) -> Any:
            qml.H(0)
            qml.RY(0.4, 1)
            return measure()

        qnode = node(circuit, device, shots=30)
        shadow = qnode(lambda: qml.classical_shadow(wires=[0, 1], seed=42))
        again = qnode(lambda: qml.classical_shadow(wires=[0, 1], seed=42))
        assert not np.array_equal(shadow[0], again[0])  # a device goes on drawing
        assert np.array_equal(shadow[1], again[1])
        return [*shadow, float(qnode(lambda: qml.shadow_expval(qml.Z(0), seed=42)))]

    for one, other in zip(drawn(7), drawn(7), strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(drawn(7)[0], drawn(8)[0])


def test_keys_of_jax_are_seeds(jax: Any) -> None:
    def drawn(seed: Any) -> list[int]:
        qnode = node(lambda: (qml.H(0), qml.sample(wires=0))[1], qml.device(NAME, seed=seed), shots=60)
        return np.ravel(qnode()).tolist()  # type: ignore[no-any-return]

    assert drawn(jax.random.PRNGKey(1)) == drawn(jax.random.key(1)) != drawn(jax.random.key(2))
    with pytest.raises(TypeError, match=r"make the device outside of jax\.jit"):
        jax.jit(drawn)(jax.random.PRNGKey(1))


# --- measurements halfway --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["deferred", "one-shot"])
def test_measurements_halfway_with_shots(method: str) -> None:
    expected = node(halfway, "default.qubit")(numbers(3))
    for one, other in zip(node(halfway, mcm_method=method, shots=SHOTS)(numbers(3)), expected, strict=True):
        within(one, other, SHOTS / 4)


def test_single_shots_take_a_state_for_each_history(monkeypatch: pytest.MonkeyPatch) -> None:
    def circuit() -> Any:
        qml.H(0)
        m = qml.measure(0)
        qml.cond(m, qml.X)(1)
        return qml.counts([m]), qml.counts(wires=[0, 1])

    with native_calls(monkeypatch) as calls:
        counts, of_wires = node(circuit, mcm_method="one-shot", shots=1000)()
    assert len(calls) <= 3
    assert sum(counts.values()) == 1000
    assert set(of_wires) == {"00", "11"}


def test_shots_cannot_be_filled_with_what_does_not_happen() -> None:
    qnode = node(
        lambda: (qml.measure(0, postselect=1), qml.probs(wires=1))[1],
        mcm_method="deferred",
        postselect_mode="fill-shots",
        shots=10,
    )
    with pytest.raises(ValueError, match=r"postselected outcome \{0: 1\} has probability 0"):
        qnode()


@pytest.mark.parametrize(
    ("method", "mode"), [("deferred", "hw-like"), ("deferred", "fill-shots"), ("one-shot", "hw-like")]
)
def test_postselection_with_shots(method: str, mode: str) -> None:
    """What comes before the measurement that is postselected is weighed by its outcome."""

    def circuit() -> Any:
        qml.RX(0.9, 0)
        m0 = qml.measure(0)
        qml.RX(0.8, 1)
        qml.cond(m0, qml.RX)(1.1, 1)
        qml.measure(1, postselect=1)
        return qml.expval(m0), z(1), qml.probs(op=m0), qml.sample(wires=0)

    *found, samples = node(circuit, mcm_method=method, postselect_mode=mode, shots=SHOTS)()
    weights = np.array([np.cos(0.45) * np.sin(0.4), np.sin(0.45) * np.sin(0.95)]) ** 2
    probabilities = weights / weights.sum()
    for one, other in zip(found, (probabilities[1], -1, probabilities), strict=True):
        within(one, other, SHOTS / 10)
    if mode == "fill-shots":
        assert len(samples) == SHOTS
    else:
        within(len(samples) / SHOTS, weights.sum())


def test_postselection_is_differentiable_by_torch() -> None:
    compare(postselected, numbers(3))


def test_nothing_left_after_postselection() -> None:
    def circuit() -> Any:
        qml.measure(0, postselect=1)
        return z(0), qml.probs(wires=0)

    expectation, probabilities = node(circuit, mcm_method="deferred", shots=10)()
    assert np.isnan(expectation)
    assert np.isnan(probabilities).all()
    assert probabilities.shape == (2,)


# --- what PennyLane shows of circuits --------------------------------------------------------------------------------


def test_snapshots() -> None:
    def circuit(x: Any) -> Any:
        qml.Snapshot("before")
        qml.RX(x, wires=0)
        qml.Snapshot(measurement=qml.expval(qml.Z(0)))
        qml.CNOT([0, 1])
        qml.Snapshot("entropy", measurement=qml.vn_entropy([0]))
        return qml.probs(wires=1)

    found, expected = [qml.snapshots(node(circuit, name))(0.4) for name in (NAME, "default.qubit")]
    assert list(found) == list(expected)
    for key in expected:
        np.testing.assert_allclose(found[key], expected[key], atol=TOLERANCE)
    assert_alike(node(circuit)(0.4), node(circuit, "default.qubit")(0.4))

    def sampled() -> Any:
        qml.H(0)
        qml.Snapshot("drawn", measurement=qml.counts(wires=0), shots=50)
        return z()

    assert sum(qml.snapshots(node(sampled))()["drawn"].values()) == 50

    def measured_as_the_rest() -> Any:
        qml.RX(0.9, wires=0)
        qml.Snapshot("z", measurement=z())
        qml.Snapshot("state")
        return z()

    found = qml.snapshots(node(measured_as_the_rest, shots=5))()
    assert np.isclose(found["z"], [-1, -0.6, -0.2, 0.2, 0.6, 1]).any()
    np.testing.assert_allclose(found["state"], [np.cos(0.45), -1j * np.sin(0.45)], atol=TOLERANCE)


def test_specs_and_drawings_are_default_qubits() -> None:
    own, theirs = node(halfway, wires=3), node(halfway, "default.qubit", wires=3)
    assert qml.draw(own)(numbers(3)) == qml.draw(theirs)(numbers(3))
    assert qml.specs(own)(numbers(3))["resources"] == qml.specs(theirs)(numbers(3))["resources"]


def test_tracker() -> None:
    totals = []
    for name in (NAME, "default.qubit"):
        device = qml.device(name)
        with qml.Tracker(device) as tracker:
            node(measured(z), device)(numbers(3))
            node(measured(z), device, shots=10)(numbers(3))
        totals.append(
            {k: v for k, v in tracker.totals.items() if k in ("batches", "executions", "simulations", "shots")}
        )
    assert totals[0] == totals[1]
    device = qml.device(NAME)
    with qml.Tracker(device) as tracker:
        qml.grad(node(measured(z), device))(pnp.array(numbers(3), requires_grad=True))
    assert (tracker.totals["vjp_batches"], tracker.totals["vjps"]) == (1, 1)


def test_layers_of_torch() -> None:
    function = lambda inputs, w: (  # noqa: E731
        qml.AngleEmbedding(inputs, range(2)),
        qml.BasicEntanglerLayers(w, range(2)),
        [z(0), z(1)],
    )[2]
    layer = qml.qnn.TorchLayer(node(function), {"w": (3, 2)})
    model = torch.nn.Sequential(torch.nn.Linear(4, 2), layer, torch.nn.Linear(2, 1))
    model(torch.rand(5, 4)).sum().backward()
    assert layer.w.grad.abs().sum() > 0
    expected = qml.qnn.TorchLayer(node(function, "default.qubit"), {"w": (3, 2)}, init_method={"w": layer.w.detach()})
    inputs = torch.rand(5, 2)
    torch.testing.assert_close(layer(inputs), expected(inputs).to(torch.float32))


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "kwargs", "error", "message"),
    [
        (lambda x: (qml.DepolarizingChannel(x, 0), z())[1], {}, DeviceError, "does not provide a decomposition"),
        (lambda x: (qml.RX(x, 0), qml.expval(qml.S(0)))[1], {}, DeviceError, "not Hermitian"),
        (lambda x: (qml.QubitUnitary(np.diag([1, 2]), 0), z())[1], {}, ValueError, "must be unitary"),
        (lambda x: (qml.RX(x, 0), qml.sample())[1], {}, DeviceError, "not accepted for analytic simulation"),
        (lambda x: (qml.RX(x, 0), qml.state())[1], {"shots": 10}, DeviceError, "not accepted with finite shots"),
        (lambda x: (qml.RX(x, 0), z())[1], {"shots": 10, "diff_method": "adjoint"}, QuantumFunctionError, "adjoint"),
        (halfway, {"mcm_method": "tree-traversal"}, DeviceError, "tree-traversal is not supported"),
        (
            halfway,
            {"mcm_method": "one-shot", "postselect_mode": "fill-shots", "shots": 9},
            DeviceError,
            "mcm_method='deferred' only",
        ),
    ],
)
def test_refusals(function: Callable[..., Any], kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        node(function, **kwargs)(numbers(3) if function is halfway else 0.3)


def test_precisions_and_options_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="c_dtype must be complex64 or complex128, not float"):
        qml.device(NAME, c_dtype="float64")
    with pytest.raises(DeviceError, match="has no device options"):
        qml.device(NAME).setup_execution_config(ExecutionConfig(device_options={"max_workers": 2}))
