"""Tapes from and to PennyLane: what they mean on either side, and whether parameters stay in line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import HealthCheck, assume, given, settings
from torch import Tensor

import ketgrad as kg
import oracle
from cases import CASES, Case
from strategies import tapes

qml = pytest.importorskip("pennylane")

from pennylane import numpy as pnp  # noqa: E402
from pennylane.tape import QuantumScript  # noqa: E402

from ketgrad.interop.pennylane.conversion import is_supported, tape_from_pennylane, tape_to_pennylane  # noqa: E402

# Both sides compute in double precision: a few hundred operations on numbers of size 1.
TOLERANCE = 1e-12
# PennyLane gets a variance from eigenvalues, and its sums differ in order from ours.
VARIANCE_TOLERANCE = 1e-10


def tensor(*values: Any) -> Tensor:
    return torch.tensor(values[0] if len(values) == 1 else values, dtype=torch.float64, requires_grad=True)


def run_pennylane(script: Any) -> list[Any]:
    (found,) = qml.execute([script], qml.device("default.qubit"), diff_method=None)
    return list(found) if len(script.measurements) > 1 else [found]


def run_reference(tape: kg.Tape) -> list[Tensor]:
    found = oracle.execute(tape)
    return list(found) if len(tape.measurements) > 1 else [found]


def assert_equal(found: list[Tensor], expected: list[Any], tolerance: float = TOLERANCE) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        other = torch.as_tensor(other).detach()
        torch.testing.assert_close(one.detach(), other, rtol=tolerance, atol=tolerance, check_dtype=False)


def assert_same_results(script: Any, tolerance: float = TOLERANCE) -> None:
    assert_equal(run_reference(tape_from_pennylane(script)), run_pennylane(script), tolerance)


def is_same(one: Any, other: Any) -> bool:
    return one is other or (isinstance(one, float) and one == other) or bool(np.array_equal(one, other))


# ---- the registry of circuits, to PennyLane and back

CONVERTIBLE = [
    case
    for case in CASES
    if all(m.observable is None or m.observable.batch_size is None for m in case.tape().measurements)
]
# PennyLane broadcasts these over NumPy's identity, and reshapes with -1.
BEYOND_PENNYLANE = {f"GlobalPhase{k}-{b}" for k in ("", "-2") for b in ("batch", "batch-in-shared")} | {"empty-batch"}
# What PennyLane lacks: vectors of coefficients, coefficients of sums, trainable sparse matrices, real diagonals.
INEXACT = ("hamiltonian-vector", "hamiltonian-matrices", "nested", "sparse", "only-a-coefficient-trainable", "diagonal")
INEXACT += ("DiagonalEvolution",)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CONVERTIBLE if case.name not in BEYOND_PENNYLANE], ids=str)
def test_case_runs_alike_in_pennylane(case: Case) -> None:
    tape = case.tape()
    variance = any(m.kind == "var" for m in tape.measurements)
    assert_equal(run_reference(tape), run_pennylane(tape.to_pennylane()), VARIANCE_TOLERANCE if variance else TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("case", CONVERTIBLE, ids=str)
def test_case_comes_back(case: Case) -> None:
    tape = case.tape()
    script = tape.to_pennylane()
    back = kg.Tape.from_pennylane(script)
    assert_equal(run_reference(back), run_reference(tape))
    assert all(is_same(p, q) for p, q in zip(back.get_parameters(), script.get_parameters(), strict=True))
    if not any(name in case.name for name in INEXACT):
        assert back == tape or back.structure == tape.structure
        assert back.trainable_params == tape.trainable_params
        assert all(is_same(p, q) for p, q in zip(back.parameters, tape.parameters, strict=True))


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tape=tapes(max_wires=5))
def test_random_tape_runs_alike(tape: kg.Tape) -> None:
    assume(all(m.observable is None or m.observable.batch_size is None for m in tape.measurements))
    assume(not any(op.name == "GlobalPhase" and op.batch_size is not None for op in tape.operations))
    script = tape.to_pennylane()
    assert_equal(run_reference(tape), run_pennylane(script), VARIANCE_TOLERANCE)
    assert_equal(run_reference(kg.Tape.from_pennylane(script)), run_reference(tape))


def test_batch_in_an_observable_is_refused() -> None:
    for observable in (kg.Z(0) * tensor([1.0, 2.0]), kg.Hermitian(np.stack([np.eye(2)] * 3), 0)):
        tape = kg.Tape([kg.X(0)], [kg.expval(observable)])
        with pytest.raises(NotImplementedError, match="expval on wire 0: PennyLane has no batches"):
            tape_to_pennylane(tape)


# ---- operations, built as people build them in PennyLane

U = torch.linalg.qr(torch.randn(4, 4, dtype=torch.complex128, generator=torch.Generator().manual_seed(3)))[0]
PHASES = np.exp(1j * np.arange(4))

OPERATIONS: dict[str, Callable[[], Any]] = {
    "PauliX": lambda: qml.PauliX(0),
    "adjoint-S": lambda: qml.adjoint(qml.S(0)),
    "adjoint-adjoint": lambda: qml.adjoint(qml.adjoint(qml.T(1))),
    "adjoint-of-function": lambda: qml.adjoint(qml.RX)(tensor(0.3), wires=1),
    "adjoint-eager": lambda: qml.adjoint(qml.RX(tensor(0.3), 1), lazy=False),
    "adjoint-unitary": lambda: qml.adjoint(qml.QubitUnitary(U, wires=[2, 0])),
    "ctrl-RX": lambda: qml.ctrl(qml.RX(tensor(0.3), 0), 1),
    "ctrl-H": lambda: qml.ctrl(qml.Hadamard(0), 1, control_values=[False]),
    "ctrl-0-X": lambda: qml.ctrl(qml.X(0), 1, control_values=[0]),
    "ctrl-many-X": lambda: qml.ctrl(qml.X(3), [1, 0, 2], control_values=[1, 0, 0]),
    "MultiControlledX": lambda: qml.MultiControlledX([0, 1, 2], control_values=[False, True]),
    "MultiControlledX-work": lambda: qml.MultiControlledX([0, 1, 2], work_wires=[7, 8]),
    "ctrl-PhaseShift": lambda: qml.ctrl(qml.PhaseShift(tensor(0.4), 0), [1, 2]),
    "ctrl-work-wires": lambda: qml.ctrl(qml.S(0), [1, 2], work_wires=[9]),
    "ctrl-ctrl": lambda: qml.ctrl(qml.ctrl(qml.IsingXX(tensor(0.4), [0, 1]), 2, control_values=[0]), 3),
    "ctrl-CNOT": lambda: qml.ctrl(qml.CNOT([0, 1]), 2),
    "ctrl-adjoint": lambda: qml.ctrl(qml.adjoint(qml.S(0)), 3),
    "adjoint-ctrl": lambda: qml.adjoint(qml.ctrl(qml.SX(0), 3, control_values=[0])),
    "ctrl-GlobalPhase": lambda: qml.ctrl(qml.GlobalPhase(tensor(0.4)), 1),
    "ctrl-Identity": lambda: qml.ctrl(qml.Identity(0), 1),
    "ctrl-SWAP": lambda: qml.ctrl(qml.SWAP([0, 1]), 2),
    "ctrl-Rot": lambda: qml.ctrl(qml.Rot(0.1, tensor(0.2), 0.3, 0), 2),
    # Of a torch matrix PennyLane 0.45 itself gets something else than its own qml.matrix of this.
    "ControlledQubitUnitary": lambda: qml.ControlledQubitUnitary(U.numpy(), [0, 3, 1, 2], control_values=[0, 1]),
    "ctrl-QubitUnitary": lambda: qml.ctrl(qml.QubitUnitary(U, [3, 1]), 0),
    "C": lambda: qml.ops.op_math.Controlled(qml.RZ(0.5, 2), [1]),
    "CPhase": lambda: qml.CPhase(tensor(0.4), [3, 1]),
    "Toffoli": lambda: qml.Toffoli([2, 3, 0]),
    "CCZ": lambda: qml.CCZ([2, 3, 0]),
    "CSWAP": lambda: qml.CSWAP([2, 3, 0]),
    "CRot": lambda: qml.CRot(0.3, tensor(0.2), 0.7, [2, 3]),
    "I": lambda: qml.I(),
    "I-wires": lambda: qml.I([0, 2]),
    "GlobalPhase": lambda: qml.GlobalPhase(tensor(0.7)),
    "PauliRot": lambda: qml.PauliRot(tensor(0.7), "XIYZ", wires=[1, 3, 0, 2]),
    "MultiRZ": lambda: qml.MultiRZ(tensor(0.7), wires=[1, 3, 0]),
    "DiagonalQubitUnitary": lambda: qml.DiagonalQubitUnitary(PHASES, wires=[3, 0]),
    "DoubleExcitation": lambda: qml.DoubleExcitationMinus(tensor(0.7), wires=[3, 0, 1, 2]),
}


def around(op: Any) -> list[Any]:
    return [*(qml.RY(0.3 + wire, wires=wire) for wire in range(4)), op, *(qml.RX(0.2 + w, wires=w) for w in range(4))]


@pytest.mark.parametrize("build", OPERATIONS.values(), ids=OPERATIONS)
def test_operation_means_the_same(build: Callable[[], Any]) -> None:
    script = QuantumScript(around(build()), [qml.state()])
    assert is_supported(build())
    assert_same_results(script)
    tape = tape_from_pennylane(script)
    assert len(tape.parameters) == len(script.get_parameters(trainable_only=False))


@pytest.mark.parametrize(
    "prepare",
    [
        lambda: qml.BasisState(np.array([1, 0]), wires=[2, 0]),
        lambda: qml.BasisState(torch.tensor([1, 0]), wires=[2, 0]),
        lambda: qml.BasisState(2, wires=[2, 0]),
        lambda: qml.BasisEmbedding([1, 0], wires=[2, 0]),
        lambda: qml.StatePrep(tensor([0.6, 0.0, 0.8, 0.0]), wires=[2, 0]),
        lambda: qml.StatePrep(tensor([3.0, 4.0]), wires=[2, 0], pad_with=0.0, normalize=True),
        lambda: qml.AmplitudeEmbedding(tensor([[1.0, 2.0], [0.0, 3.0]]), wires=[3], normalize=True),
    ],
)
def test_preparation_means_the_same(prepare: Callable[[], Any]) -> None:
    script = QuantumScript([prepare(), *around(qml.CNOT([1, 2]))], [qml.state()])
    script.trainable_params = []
    assert_same_results(script)


def test_barriers_and_wire_cuts_are_left_out() -> None:
    gates = [qml.Barrier([2, 1]), qml.RX(0.3, 1), qml.WireCut(0), qml.adjoint(qml.Barrier([1])), qml.RY(0.2, 0)]
    script = QuantumScript(gates, [qml.state()])
    tape = tape_from_pennylane(script)
    assert [op.name for op in tape.operations] == ["RX", "RY"]
    assert_same_results(script)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (lambda: qml.Snapshot("here"), "Snapshot of PennyLane is not supported; remove it"),
        (lambda: qml.QFT([0, 1]), r"QFT on wires \[0, 1\] of PennyLane is not supported; decompose"),
        (lambda: qml.PCPhase(0.3, 1, [0]), "PCPhase on wire 0"),
        (lambda: qml.OrbitalRotation(0.3, [0, 1, 2, 3]), "OrbitalRotation"),
        (lambda: qml.SISWAP([0, 1]), "SISWAP"),
        (lambda: qml.ctrl(qml.SISWAP([0, 1]), 2), r"SISWAP on wires \[0, 1\]"),
        (lambda: qml.pow(qml.RX(0.3, 0), 0.5), r"RX\*\*0.5"),
        (lambda: qml.exp(qml.X(0), 1j), "Exp"),
        (lambda: qml.measure(0).measurements[0], "defer_measurements"),
        (lambda: qml.DepolarizingChannel(0.1, 0), "DepolarizingChannel"),
        (lambda: qml.adjoint(qml.StatePrep([0.6, 0.8], 0)), r"Adjoint\(StatePrep\) on wire 0 .*; decompose"),
        (lambda: qml.ctrl(qml.StatePrep([0.6, 0.8], 0), 1), r"C\(StatePrep\) on wires \[1, 0\] .*; decompose"),
        (lambda: qml.adjoint(qml.adjoint(qml.BasisState([1], 0)), lazy=True), r"Adjoint\(BasisState\) on wire 0"),
    ],
)
def test_unknown_operation_is_refused_by_name(op: Callable[[], Any], message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        tape_from_pennylane(QuantumScript([op()], [qml.state()]))
    assert not is_supported(op())


def test_decomposing_leaves_what_is_supported() -> None:
    gates = [qml.H(0), qml.QFT(wires=[0, 1, 2]), qml.SISWAP([0, 1]), qml.Rot(0.1, 0.2, 0.3, wires=2)]
    script = QuantumScript(gates, [qml.state()])
    (decomposed,), _ = qml.transforms.decompose(script, stopping_condition=is_supported)
    assert_equal(run_reference(tape_from_pennylane(decomposed)), run_pennylane(script))


# ---- parameters


def test_parameters_are_the_same_objects_in_the_same_order() -> None:
    x, w, c, d = tensor(0.1), tensor([0.2, 0.3]), tensor(1.5), tensor([0.5, -0.2])
    unitary, matrix, ket = U.clone().requires_grad_(), torch.eye(2, dtype=torch.float64), tensor([0.6, 0.8])
    gates = [
        qml.StatePrep(ket, wires=0),
        qml.Rot(x, 0.3, w, wires=0),
        qml.CRX(np.float64(0.7), wires=[0, 1]),
        qml.adjoint(qml.QubitUnitary(unitary, wires=[0, 1])),
        qml.ctrl(qml.RZ(x, wires=0), [1, 2], control_values=[0, 1]),
    ]
    observables = [
        qml.sum(qml.s_prod(c, qml.Z(0)), qml.s_prod(2.0, qml.X(1) @ qml.Hermitian(matrix, 0))),
        qml.s_prod(c, qml.sum(qml.Hermitian(matrix, 2) @ qml.s_prod(x, qml.Z(1)), qml.Projector(ket, 0))),
        qml.Hamiltonian(d, [qml.Z(0), qml.X(1)]),
    ]
    script = QuantumScript(gates, [qml.expval(observable) for observable in observables])
    theirs = script.get_parameters(trainable_only=False)
    assert len(theirs) == 16
    tape = tape_from_pennylane(script)
    for one, other in zip(tape.parameters, theirs, strict=True):
        assert one is other or (isinstance(one, float) and one == other)
    assert tape.trainable_params == tuple(range(16))
    for trainable in ([], [0], [1, 3, 15], [5, 6, 7, 12]):
        script.trainable_params = trainable
        tape = tape_from_pennylane(script)
        assert list(tape.trainable_params) == trainable
        assert all(map(is_same, tape.get_parameters(), script.get_parameters()))


def test_gradients_are_in_line() -> None:
    a, b, c, d = tensor(0.1), tensor(0.4), tensor(0.7), tensor(-0.3)
    matrix = tensor([[1.0, 0.5], [0.5, -2.0]])
    gates = [qml.RX(a, 0), qml.RY(0.3, 1), qml.CNOT([0, 1]), qml.CRot(b, 0.2, a, [1, 0])]
    # In a sum or a product, PennyLane's gradient of the matrix would be missing.
    words = qml.sum(qml.s_prod(c, qml.X(0)), qml.s_prod(d, qml.X(0) @ qml.Z(1)), qml.Y(1))
    script = QuantumScript(gates, [qml.expval(qml.Hermitian(matrix, 0)), qml.expval(words)])
    script.trainable_params = [0, 2, 4, 5, 6, 7]
    assert all(map(is_same, script.get_parameters(), [a, b, a, matrix, c, d]))
    tape = tape_from_pennylane(script)
    (theirs,) = qml.execute([script], qml.device("default.qubit"), diff_method="backprop", interface="torch")
    # a is there twice: the gradient of both uses together, under either index.
    found = torch.autograd.grad(sum(oracle.execute(tape)), tape.get_parameters())
    expected = torch.autograd.grad(sum(theirs), script.get_parameters())
    assert_equal(list(found), list(expected))


def test_tapes_of_pennylane_are_differentiated_by_ours() -> None:
    leaves = [tensor(0.1), tensor(0.4), tensor(0.7)]

    def script(x: Any, w: Any, c: Any) -> Any:
        gates = [qml.RX(x, 0), qml.RY(0.3, 1), qml.IsingXY(w, [0, 1])]
        found = QuantumScript(gates, [qml.expval(qml.s_prod(c, qml.Z(0)) + qml.X(1)), qml.probs(wires=[1])])
        found.trainable_params = [0, 2, 3]
        return found

    jpc = kg.AdjointProducts()
    batch = [script(*leaves), script(leaves[1], leaves[0], leaves[2])]
    parameters = [p for each in batch for p in each.get_parameters()]
    results = kg.ExecuteTapes.apply({"tapes": batch, "execute_fn": jpc.execute, "jpc": jpc}, *parameters)
    theirs = qml.execute(batch, qml.device("default.qubit"), diff_method="backprop", interface="torch")
    weights = tensor([0.3, -0.8])
    ours_loss = sum(value + (weights * chances).sum() for value, chances in results)
    their_loss = sum(value + (weights * chances).sum() for value, chances in theirs)
    assert_equal(list(torch.autograd.grad(ours_loss, leaves)), list(torch.autograd.grad(their_loss, leaves)))


def test_numbers_of_other_libraries_are_numbers() -> None:
    coefficients = pnp.array([0.5, -1.5], requires_grad=True)
    gates = [qml.RX(pnp.array(0.3), 0), qml.RY(np.float64(0.5), 1), qml.RZ(2, 0), qml.RX(pnp.array([0.1, 0.2]), 1)]
    hamiltonian = qml.Hamiltonian(coefficients, [qml.Z(0), qml.X(1)])
    script = QuantumScript(gates, [qml.expval(hamiltonian), qml.expval(qml.s_prod(0.5 + 0j, qml.Z(0)))])
    tape = tape_from_pennylane(script)
    assert [type(value) for value in tape.parameters] == [float, float, float, np.ndarray, float, float, float]
    assert_same_results(script)


def test_complex_coefficient_is_refused() -> None:
    with pytest.raises(TypeError, match="must be real"):
        tape_from_pennylane(QuantumScript([qml.X(0)], [qml.expval(qml.s_prod(1j, qml.Z(0)))]))


def test_trainable_parameters_out_of_order_are_refused() -> None:
    script = QuantumScript([qml.RX(0.1, 0), qml.RY(0.2, 0)], [qml.probs()], trainable_params=[1, 0])
    with pytest.raises(ValueError, match=r"trainable_params \[1, 0\] are not in order"):
        tape_from_pennylane(script)


def test_bits_are_no_parameters() -> None:
    x, c = tensor(0.3), tensor(1.5)
    observable = qml.sum(qml.s_prod(c, qml.Projector([0, 1], [0, 1])), qml.s_prod(x, qml.Z(1)))
    gates = [qml.BasisState(np.array([1, 0]), [0, 1]), qml.RX(x, 0), qml.RY(0.7, 1)]
    script = QuantumScript(gates, [qml.expval(observable), qml.expval(qml.Projector([1], [0]) @ qml.Z(1))])
    assert len(script.get_parameters(trainable_only=False)) == 7  # three of them bits
    script.trainable_params = [1, 3, 5]
    tape = tape_from_pennylane(script)
    assert tape.trainable_params == (0, 2, 3)
    assert [p is q for p, q in zip(tape.get_parameters(), [x, c, x], strict=True)] == [True] * 3
    assert_same_results(script)
    back = tape.to_pennylane()
    assert back.trainable_params == [1, 3, 5]


@pytest.mark.parametrize("trainable", [[0, 1], [1, 2], [0, 1, 2, 3]])
def test_trainable_bits_are_left_out(trainable: list[int]) -> None:
    observable = qml.s_prod(1.5, qml.Z(1)) @ qml.Projector([0], [0])
    gates = [qml.BasisState(np.array([1, 0]), [0, 1]), qml.RX(0.3, 0)]
    script = QuantumScript(gates, [qml.expval(observable)])
    script.trainable_params = trainable
    kept = [index for index in trainable if index in (1, 2)]
    assert list(tape_from_pennylane(script).trainable_params) == [index - 1 for index in kept]


def test_trainable_bits_are_refused_where_gradients_are_lined_up_with_parameters() -> None:
    script = QuantumScript([qml.BasisState(np.array([1]), [0]), qml.RX(tensor(0.3), 0)], [qml.expval(qml.Z(0))])
    with pytest.raises(ValueError, match=r"bits .* script\.trainable_params"):
        kg.AdjointProducts().compute_vjp([script], [torch.ones(())])
    assert kg.execute([script], diff_method=None)[0].item() == pytest.approx(-np.cos(0.3))


def test_bits_of_a_term_that_vanishes_are_counted() -> None:
    x = tensor(0.3)
    left, right = qml.X(1) @ qml.Y(1), qml.Y(1) @ qml.X(1)
    nothing = qml.sum(qml.prod(left, qml.Projector([0], [0])), qml.prod(right, qml.Projector([0], [0])))
    script = QuantumScript([qml.RX(x, 0)], [qml.expval(qml.sum(nothing, qml.s_prod(x, qml.Z(0))))])
    script.trainable_params = [0, 3]
    tape = tape_from_pennylane(script)
    assert tape.trainable_params == (0, 1)
    assert tape.get_parameters() == [x, x]


def test_coefficients_within_products_stay_in_order() -> None:
    c, d, matrix = tensor(1.5), tensor(0.5), tensor([[1.0, 0.0], [0.0, 2.0]])
    observable = kg.Hermitian(matrix, 1) @ (c * kg.X(0)) @ (d * kg.Identity(2))
    tape = kg.Tape([kg.RY(0.3, 0), kg.RX(0.5, 1)], [kg.expval(observable)])
    script = tape.to_pennylane()
    assert [p is q for p, q in zip(script.get_parameters(), [matrix, c, d], strict=True)] == [True] * 3
    assert script.trainable_params == [2, 3, 4]
    assert_equal(run_reference(tape), run_pennylane(script))


def test_constants_stay_out_of_pennylanes_parameters() -> None:
    observable = kg.H(0) @ kg.Z(1) @ kg.H(2)
    script = kg.Tape([kg.RX(0.3, 0)], [kg.expval(observable), kg.var(kg.H(0))]).to_pennylane()
    assert script.measurements[0].obs == qml.H(0) @ qml.Z(1) @ qml.H(2)
    assert script.measurements[1].obs == qml.H(0)
    assert script.get_parameters(trainable_only=False) == [0.3]


def test_a_sign_is_a_constant_to_pennylane() -> None:
    x, c = tensor(0.3), tensor(0.8)
    observable = (kg.X(0) @ kg.Y(1)) @ (kg.X(1) @ kg.Y(0)) * c + kg.H(1) + kg.X(1)
    tape = kg.Tape([kg.RX(x, 0), kg.RY(x, 1)], [kg.expval(observable), kg.expval(c * kg.Z(0))])
    script = tape.to_pennylane()
    assert [p is q for p, q in zip(script.get_parameters(), [x, x, c, c], strict=True)] == [True] * 4
    assert_equal(run_reference(tape), run_pennylane(script))


# ---- observables and measurements

SPARSE = scipy.sparse.csr_matrix(np.array([[1.0, 0, 0, 2j], [0, 0, 0, 0], [0, 0, -1, 0], [-2j, 0, 0, 3]]))
MATRIX = np.array([[1.0, 1j], [-1j, 2.0]])

OBSERVABLES: dict[str, Callable[[], Any]] = {
    "X": lambda: qml.X(0),
    "Y": lambda: qml.Y("a"),
    "Z": lambda: qml.PauliZ(1),
    "H": lambda: qml.Hadamard(1),
    "Identity": lambda: qml.Identity(1),
    "Identity-2": lambda: qml.Identity([1, 0]),
    "Prod": lambda: qml.X(0) @ qml.Y(1) @ qml.Z("a"),
    "SProd": lambda: qml.s_prod(tensor(2.5), qml.X(0) @ qml.Z(1)),
    "SProd-number": lambda: 2 * qml.X(0),
    "SProd-nested": lambda: qml.s_prod(2.0, qml.s_prod(tensor(0.5), qml.X(0))),
    "Sum": lambda: qml.sum(qml.X(0), qml.Y(1) @ qml.Z(0), qml.I(0), qml.Hadamard("a")),
    "Sum-one": lambda: qml.sum(qml.X(0) + qml.Y(1), qml.s_prod(0.3, qml.Z("a"))),
    "difference": lambda: qml.X(0) - 0.5 * qml.Y(1),
    "dot": lambda: qml.dot([0.3, 0.7], [qml.X(0), qml.Y(1) @ qml.X(0)]),
    "Hamiltonian": lambda: qml.Hamiltonian([0.3, 0.7, -1], [qml.X(0), qml.Y(1) @ qml.X(0), qml.I(1)]),
    "Hamiltonian-tensor": lambda: qml.Hamiltonian(tensor([0.3, 0.7]), [qml.X(0), qml.Y(1) @ qml.X(0)]),
    "Hamiltonian-matrix": lambda: qml.Hamiltonian(tensor([0.3, 2.0]), [qml.Hermitian(MATRIX, "a"), qml.Z(0)]),
    "Hermitian": lambda: qml.Hermitian(np.kron(MATRIX, MATRIX), wires=["a", 0]),
    "Hermitian-product": lambda: qml.X(1) @ qml.Hermitian(MATRIX, wires="a") @ qml.Y(0),
    "Projector": lambda: qml.Projector([1, 0], wires=[1, "a"]),
    "Projector-state": lambda: qml.Projector(np.array([0.6, 0.8j]), wires=1),
    "Projector-sum": lambda: qml.s_prod(0.3, qml.Projector([1], wires=0)) + qml.Projector([0], wires="a") @ qml.X(1),
}


def state_of_three_wires() -> list[Any]:
    gates = [qml.RX(0.4 + place, wires=wire) for place, wire in enumerate(["a", 0, 1])]
    return [*gates, qml.CNOT([0, 1]), qml.CRY(0.8, [1, "a"]), qml.RZ(0.3, 0)]


@pytest.mark.parametrize("build", OBSERVABLES.values(), ids=OBSERVABLES)
def test_observable_means_the_same(build: Callable[[], Any]) -> None:
    script = QuantumScript(state_of_three_wires(), [qml.expval(build()), qml.var(build())], trainable_params=[])
    assert_same_results(script, VARIANCE_TOLERANCE)
    theirs = script.get_parameters(trainable_only=False)
    bits = sum(isinstance(value, (tuple, np.ndarray)) and np.asarray(value).dtype == int for value in theirs)
    assert len(tape_from_pennylane(script).parameters) == len(theirs) - bits


@pytest.mark.parametrize(
    "build",
    [
        lambda: qml.prod(qml.X(0) @ qml.Y(1), qml.Hadamard("a") @ qml.I(0)),
        lambda: qml.prod(qml.X(0), qml.Y(0), qml.Z(0), qml.X(1), qml.Y(1), qml.Z(1)),
    ],
)
def test_product_with_a_wire_used_again_means_the_same(build: Callable[[], Any]) -> None:
    """Against PennyLane's matrix: from the eigenvalues of such a product default.qubit gets something else."""
    gates, wires = state_of_three_wires(), ["a", 0, 1]
    (ket,) = run_pennylane(QuantumScript(gates, [qml.state()]))
    expected = np.vdot(ket, qml.matrix(build(), wire_order=wires) @ ket).real
    script = QuantumScript(gates, [qml.expval(build())])
    assert_equal(run_reference(tape_from_pennylane(script)), [expected])


def test_sparse_hamiltonian_means_the_same() -> None:
    script = QuantumScript(state_of_three_wires(), [qml.expval(qml.SparseHamiltonian(SPARSE, wires=["a", 1]))])
    assert_same_results(script)
    tape = tape_from_pennylane(script)
    assert tape.measurements[0].observable.parameter_kinds == ("values",)
    assert tape.trainable_params == tuple(script.trainable_params)
    constant = kg.Tape(tape.operations, tape.measurements, trainable_params=[])
    assert isinstance(constant.to_pennylane().measurements[0].obs, qml.SparseHamiltonian)
    assert isinstance(tape.to_pennylane().measurements[0].obs, qml.Hermitian)


def test_sparse_matrix_is_only_alone_sparse_in_pennylane() -> None:
    sparse = kg.SparseHamiltonian(SPARSE, wires=["a", 1])
    gates = tape_from_pennylane(QuantumScript(state_of_three_wires(), [qml.state()])).operations
    words = [sparse @ kg.Z(0), sparse @ kg.X(0) @ kg.Y(2) @ kg.X(2) @ kg.Y(0) @ kg.Z(0) @ kg.Z(2), 2.0 * sparse]
    tape = kg.Tape(gates, [kg.expval(word) for word in words], trainable_params=[])
    assert_equal(run_reference(tape), run_pennylane(tape.to_pennylane()))


@pytest.mark.parametrize(
    "measure",
    [
        lambda: qml.probs(),
        lambda: qml.probs(wires="a"),
        lambda: qml.probs(wires=[1, "a"]),
        lambda: qml.state(),
        lambda: qml.density_matrix(wires=[1]),
        lambda: qml.density_matrix(wires=[1, "a"]),
    ],
)
def test_measurement_of_wires_means_the_same(measure: Callable[[], Any]) -> None:
    assert_same_results(QuantumScript(state_of_three_wires(), [measure()]))


@pytest.mark.parametrize(
    ("measure", "message"),
    [
        (lambda: qml.probs(op=qml.X(0)), "probs takes wires"),
        (lambda: qml.purity(wires=[0]), "PurityMP|purity"),
        (lambda: qml.vn_entropy(wires=[0]), "not supported; supported are expval, var, probs"),
        (lambda: qml.classical_shadow(wires=[0]), "not supported"),
        (lambda: qml.expval(qml.measure(0)), "defer_measurements"),
        (lambda: qml.measurements.ExpectationMP(eigvals=[1, -1], wires=qml.wires.Wires(0)), "eigenvalues"),
        (lambda: qml.expval(qml.X(0) ** 0.5), r"X\(0\)\*\*0.5 of PennyLane is not supported as an observable"),
        (lambda: qml.expval(qml.X(0) @ qml.RX(0.3, 1)), "RX"),
        (lambda: qml.counts(all_outcomes=True), "all_outcomes"),
        (lambda: qml.sample(wires=0, dtype=float), "without a dtype"),
        (lambda: qml.measurements.StateMP(wires=qml.wires.Wires([2, 1])), r"state is measured on wires \[2, 1\]"),
        (lambda: qml.measurements.StateMP(wires=qml.wires.Wires([1])), "leave the wires out"),
    ],
)
def test_unknown_measurement_is_refused(measure: Callable[[], Any], message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        tape_from_pennylane(QuantumScript([qml.RX(0.1, 0)], [qml.probs(), measure()]))


def test_state_on_exactly_the_tapes_wires_is_a_state() -> None:
    """As PennyLane's devices rewrite it."""
    measurement = qml.measurements.StateMP(wires=qml.wires.Wires([0, 1]))
    script = QuantumScript([qml.X(1), qml.RY(0.2, 0)], [measurement])
    assert_equal(run_reference(tape_from_pennylane(script)), run_pennylane(script))


def test_products_that_pennylane_leaves_to_matrices_are_refused() -> None:
    observable = qml.prod(qml.Hermitian(MATRIX, 0), qml.X(0))
    with pytest.raises(ValueError, match="cannot be multiplied"):
        tape_from_pennylane(QuantumScript([], [qml.expval(observable)]))


# ---- wires

WIRES: dict[str, Callable[[], tuple[list[Any], list[Any]]]] = {
    "by-value": lambda: ([qml.RX(0.1, 2), qml.RY(0.2, 0), qml.CRX(0.9, [2, 1])], []),
    "by-appearance": lambda: ([qml.RX(0.1, 7), qml.RY(0.2, 3), qml.CRX(0.9, [7, 5])], []),
    "strings": lambda: ([qml.RX(0.1, "b"), qml.RY(0.2, "a")], []),
    "measured-after": lambda: ([qml.RX(0.1, 1), qml.RY(0.2, 0)], [qml.expval(qml.Z(3) @ qml.X(2))]),
    "measured-before": lambda: ([qml.RX(0.1, 1)], [qml.expval(qml.Z(0))]),
    "measured-between": lambda: ([qml.RX(0.1, 2), qml.RY(0.5, 0)], [qml.probs(wires=[1])]),
    "measured-gap": lambda: ([qml.RX(0.1, 5)], [qml.expval(qml.Z(16)), qml.expval(qml.Z(2))]),
    "measured-string": lambda: ([qml.RX(0.1, "b")], [qml.expval(qml.Z("a"))]),
    "barrier": lambda: ([qml.Barrier(1), qml.RX(0.1, 2)], [qml.expval(qml.Z(0)), qml.expval(qml.Z(1))]),
}


@pytest.mark.parametrize("build", WIRES.values(), ids=WIRES)
def test_wires_are_in_pennylanes_order(build: Callable[[], tuple[list[Any], list[Any]]]) -> None:
    operations, measurements = build()
    script = QuantumScript(operations, [*measurements, qml.state(), qml.probs()])
    assert_same_results(script)
    tape = tape_from_pennylane(script)
    assert all(map(is_same, tape.parameters, script.get_parameters(trainable_only=False)))
    assert tape.trainable_params == tuple(script.trainable_params)


@pytest.mark.parametrize("labels", [[0, 1], [1, 0], [2, 0, 1], ["b", "a"], [5, 16, 2]], ids=str)
def test_wires_of_a_tape_are_in_order_in_pennylane(labels: list[Any]) -> None:
    first, *others = labels
    measured = [kg.expval(kg.Z(wire)) for wire in others]
    for gates in ([kg.RX(0.7, first)], [kg.StatePrep([0.6, 0.8], first), kg.RX(0.7, first)]):
        tape = kg.Tape(gates, [*measured, kg.state(), kg.probs()])
        assert_equal(run_reference(tape), run_pennylane(tape.to_pennylane()))


# ---- shots


def test_shots_are_carried_over() -> None:
    measurements = [qml.sample(wires=[1, 0]), qml.sample(qml.Z(1)), qml.counts(), qml.counts(qml.Z(0)), qml.probs()]
    script = QuantumScript([qml.X(1), qml.I(0)], measurements, shots=7)
    tape = tape_from_pennylane(script)
    assert tape.shots == 7
    assert [m.kind for m in tape.measurements] == ["sample", "sample", "counts", "counts", "probs"]
    assert [m.wires for m in tape.measurements] == [(1, 0), (1,), (), (0,), ()]
    found = run_pennylane(tape.to_pennylane())
    assert found[0].tolist() == [[1, 0]] * 7
    assert found[1].tolist() == [-1] * 7
    assert {str(key): int(count) for key, count in found[2].items()} == {"01": 7}
    assert tape_from_pennylane(tape.to_pennylane()).structure == tape.structure


def test_shot_vectors_are_refused() -> None:
    with pytest.raises(NotImplementedError, match="shot vectors"):
        tape_from_pennylane(QuantumScript([qml.X(1)], [qml.sample()], shots=(10, 20)))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (lambda: ([qml.RX(0.3, 0)], [kg.probs()]), r"but of PennyLane; write ketgrad.RX\(…\), or convert a whole"),
        (lambda: ([qml.QFT([0, 1])], [kg.probs()]), r"but of PennyLane; convert a whole QuantumScript: Tape.from_"),
        (lambda: ([kg.X(0)], [qml.probs(0)]), r"not a measurement of ketgrad but of PennyLane; convert a whole"),
    ],
)
def test_what_is_pennylanes_in_a_tape_is_refused(items: Callable[[], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        kg.Tape(*items())


def test_what_a_tape_refuses_is_refused() -> None:
    with pytest.raises(ValueError, match="sample needs shots"):
        tape_from_pennylane(QuantumScript([qml.X(1)], [qml.sample()]))
    with pytest.raises(ValueError, match="at least one measurement"):
        tape_from_pennylane(QuantumScript([qml.X(1)], []))
    script = QuantumScript([qml.X(1), qml.BasisState([1], 0)], [qml.state()], trainable_params=[])
    with pytest.raises(ValueError, match="BasisState on wire 0 is operation 1"):
        tape_from_pennylane(script)


# ---- other


def test_a_qnode_is_no_script() -> None:
    @qml.qnode(qml.device("default.qubit"))
    def circuit(x: Any) -> Any:
        qml.RX(x, wires=0)
        return qml.expval(qml.Z(0))

    with pytest.raises(TypeError, match="construct_tape"):
        tape_from_pennylane(circuit)
    with pytest.raises(TypeError, match="not list"):
        tape_from_pennylane([qml.X(0)])
    angle = tensor(0.3)
    tape = tape_from_pennylane(qml.workflow.construct_tape(circuit)(angle))
    assert tape.parameters == (angle,)


def test_conversion_does_not_queue() -> None:
    tape = kg.Tape([kg.ctrl(kg.adjoint(kg.S(0)), 1)], [kg.expval(0.5 * kg.Z(0) @ kg.X(1))])
    with qml.queuing.AnnotatedQueue() as queue:
        tape.to_pennylane()
    assert len(queue) == 0


def test_what_does_not_change_is_converted_once() -> None:
    """Every step of a training brings new scripts of the same structure."""

    def convert(angle: float) -> kg.Tape:
        words = [qml.Z(0) @ qml.Z(1), qml.X(0)]
        measurements = [qml.expval(qml.Hamiltonian([0.5, 0.7], words)), qml.expval(qml.Z(0) @ qml.Z(1))]
        return tape_from_pennylane(QuantumScript([qml.RX(angle, 0), qml.CNOT([0, 1])], measurements))

    first, second = convert(0.1), convert(0.2)
    assert first.structure == second.structure
    assert first.operations[1] is second.operations[1]
    for one, other in zip(first.measurements, second.measurements, strict=True):
        assert one.observable is other.observable


def test_without_pennylane_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("ketgrad.interop.pennylane")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pennylane", None)
    with pytest.raises(ImportError, match=r'pip install "ketgrad\[pennylane\]"'):
        kg.Tape([kg.X(0)], [kg.state()]).to_pennylane()
