"""The oracle: against PennyLane (matrices, results, gradients), and what it promises by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import ketgrad as kg
import oracle
from cases import (
    CASES,
    OPERATIONS,
    TABLE,
    Case,
    Leaves,
    OperationEntry,
    contract,
    gradients,
    layer,
    random_tape,
)
from strategies import tapes

pytestmark = pytest.mark.slow

try:
    import pennylane as qml
except ImportError:  # optional: what the oracle promises by itself is tested all the same
    qml = None
needs_pennylane = pytest.mark.skipif(qml is None, reason="PennyLane is not installed")

# Both sides compute in double precision: a few hundred operations on numbers of size 1.
TOLERANCE = 1e-12
# Gradients sum over some hundred amplitudes and cotangents of size 1.
GRADIENT_TOLERANCE = 1e-11

# ---- PennyLane's form of a tape, one sample of a batch at a time

Pick = Callable[[Any, str], Any]


def sample(index: int) -> Pick:
    """Reads one sample of a parameter: of those with a batch axis, the entry; of all others, themselves."""
    return lambda value, letter: value[index] if letter in "bB" else value


FIRST = sample(0)


def values(owner: Any, pick: Pick) -> list[Any]:
    return [pick(value, letter) for value, letter in zip(owner.parameters, owner.parameter_layout, strict=True)]


def to_operation(operation: kg.Operation, pick: Pick = FIRST) -> Any:
    wires = list(operation.base_wires)
    own = values(operation, pick)
    names = {"H": "Hadamard", "DiagonalEvolution": "DiagonalQubitUnitary"}
    gate = getattr(qml, names.get(operation.name, operation.name))
    if operation.name == "DiagonalEvolution":
        time, diagonal = map(torch.as_tensor, own)
        found = gate(torch.exp(-1j * time * diagonal), wires=wires)
    elif operation.name == "PauliRot":
        found = gate(*own, operation.word, wires=wires)
    elif operation.name == "BasisState":
        found = gate(list(operation.bits), wires=wires)
    elif operation.name == "GlobalPhase" and not wires:
        found = gate(*own)
    else:
        found = gate(*own, wires=wires)
    if operation.inverse:
        found = qml.adjoint(found)
    if operation.control_wires:
        found = qml.ctrl(found, control=list(operation.control_wires), control_values=list(operation.control_values))
    return found


def to_observable(observable: Any, pick: Pick) -> Any:
    """A sum of Pauli words; where there are matrices, one Hermitian, which PennyLane measures without diagonalising."""
    own = values(observable, pick)
    found = qml.sum(*[to_term(term, own, observable) for term in observable.terms])
    if any(term.factors for term in observable.terms):
        return qml.Hermitian(to_matrix(found), wires=found.wires)
    return found


def to_matrix(observable: Any) -> Tensor:
    return torch.as_tensor(qml.matrix(observable, wire_order=observable.wires)).to(torch.complex128)


def to_term(term: Any, own: Sequence[Any], observable: Any) -> Any:
    factors = [getattr(qml, letter)(wire) for wire, letter in term.word]
    factors += [to_factor(factor, own) for factor in term.factors]
    product = qml.prod(*factors) if factors else qml.Identity(observable.wires[0])
    coefficient = term.scale
    for index, column in term.coefficients:
        vector = observable.parameter_kinds[index] == "coefficients"
        coefficient = coefficient * (own[index][column] if vector else own[index])
    return qml.s_prod(coefficient, product)


def to_factor(factor: Any, own: Sequence[Any]) -> Any:
    wires = list(factor.wires)
    if factor.kind == "projector":
        return qml.Projector(list(factor.bits), wires=wires)
    if factor.kind == "hermitian":
        return qml.Hermitian(own[factor.parameter], wires=wires)
    if factor.kind == "sparse":
        return qml.Hermitian(from_coordinates(factor, torch.as_tensor(own[factor.parameter])), wires=wires)
    if factor.kind == "diagonal":
        return qml.Hermitian(torch.diag(torch.as_tensor(own[factor.parameter])), wires=wires)
    # PennyLane's projector on a state loses the gradient of the state.
    state = torch.as_tensor(own[factor.parameter])
    return qml.Hermitian(torch.outer(state, state.conj()), wires=wires)


def from_coordinates(factor: Any, entries: Tensor) -> Tensor:
    rows, columns = (torch.frombuffer(bytearray(index), dtype=torch.int64) for index in (factor.rows, factor.columns))
    size = 2 ** len(factor.wires)
    return torch.sparse_coo_tensor(
        torch.stack([rows, columns]), entries, (size, size), check_invariants=True
    ).to_dense()


def to_measurements(measurement: kg.Measurement, pick: Pick) -> list[Any]:
    """PennyLane's measurement. A variance becomes the expectation values of O and of O squared.

    PennyLane diagonalises for a variance, and where eigenvalues coincide its gradients are not finite.
    """
    if measurement.kind == "var":
        observable = to_observable(measurement.observable, pick)
        matrix, wires = to_matrix(observable), observable.wires
        return [qml.expval(qml.Hermitian(power, wires=wires)) for power in (matrix, matrix @ matrix)]
    if measurement.kind == "expval":
        return [qml.expval(to_observable(measurement.observable, pick))]
    if measurement.kind == "state":
        return [qml.state()]
    return [getattr(qml, measurement.kind)(wires=list(measurement.wires) or None)]


def from_results(measurement: kg.Measurement, found: list[Any]) -> Tensor:
    mean, *square = [torch.as_tensor(each) for each in found]
    return square[0] - mean**2 if square else mean


def run_pennylane(tape: kg.Tape, pick: Pick) -> list[Tensor]:
    """Results of one sample from default.qubit, differentiable by backpropagation."""
    operations = [to_operation(operation, pick) for operation in tape.operations]
    measurements = [to_measurements(each, pick) for each in tape.measurements]
    script = qml.tape.QuantumScript(operations, [each for group in measurements for each in group])
    device = qml.device("default.qubit", wires=list(tape.wires))
    (found,) = qml.execute([script], device, diff_method="backprop", interface="torch")
    flat = list(found) if len(script.measurements) > 1 else [found]
    return [
        from_results(measurement, [flat.pop(0) for _ in group])
        for measurement, group in zip(tape.measurements, measurements, strict=True)
    ]


def pennylane_results(tape: kg.Tape) -> Any:
    if tape.batch_size is None:
        found = run_pennylane(tape, FIRST)
    else:
        samples = [run_pennylane(tape, sample(index)) for index in range(tape.batch_size)]
        found = [torch.stack(column) for column in zip(*samples, strict=True)]
    return found[0] if len(found) == 1 else tuple(found)


# ---- comparisons


def assert_equal(found: Any, expected: Any, tolerance: float) -> None:
    if isinstance(expected, tuple | list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other, tolerance)
    else:
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, check_dtype=False)


def check_against_pennylane(tape: kg.Tape) -> None:
    ours, theirs = oracle.execute(tape), pennylane_results(tape)
    assert_equal(ours, theirs, TOLERANCE)
    assert_equal(gradients(tape, ours), gradients(tape, theirs), GRADIENT_TOLERANCE)


# ---- matrices


@needs_pennylane
@pytest.mark.parametrize("entry", [entry for entry in OPERATIONS if not entry.is_preparation], ids=str)
def test_matrix_is_pennylanes(entry: OperationEntry) -> None:
    operation = entry.build(Leaves(), Leaves().order(entry.num_wires))
    theirs = qml.matrix(to_operation(operation), wire_order=list(operation.wires))
    ours = oracle.matrix(operation)
    torch.testing.assert_close(ours, torch.as_tensor(theirs).to(ours.dtype), rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("entry", [entry for entry in OPERATIONS if not entry.is_preparation], ids=str)
def test_matrix_is_unitary(entry: OperationEntry) -> None:
    matrix = oracle.matrix(entry.build(Leaves(batch=2), range(entry.num_wires)))
    one = torch.eye(2**entry.num_wires, dtype=matrix.dtype).expand_as(matrix)
    torch.testing.assert_close(matrix @ matrix.mH, one, rtol=TOLERANCE, atol=TOLERANCE)


def test_matrix_of_a_batch_stacks_the_samples() -> None:
    angles = torch.tensor([0.1, -0.7, 2.0], dtype=torch.float64)
    stacked = torch.stack([oracle.matrix(kg.CRot(angle, 0.3, angle, wires=[0, 1])) for angle in angles])
    torch.testing.assert_close(oracle.matrix(kg.CRot(angles, 0.3, angles, wires=[0, 1])), stacked)


def test_preparation_has_no_matrix() -> None:
    with pytest.raises(ValueError, match="BasisState prepares a state"):
        oracle.matrix(kg.BasisState([1], wires=0))


# ---- results and gradients


def spread(cases: Sequence[Case]) -> list[Case]:
    """Every plain case, and each seventh of those with a batch, which PennyLane runs a sample at a time."""
    batched = [case for case in cases if case.name.endswith(("-batch", "-in-batch", "-in-shared"))]
    return [case for case in cases if case not in batched] + batched[::7]


# One circuit at a time there: a batch of 37 is too slow, and one of 0 is nothing.
@needs_pennylane
@pytest.mark.parametrize("case", [c for c in spread(CASES) if c.name not in ("empty-batch", "large-batch")], ids=str)
def test_results_and_gradients_are_pennylanes(case: Case) -> None:
    check_against_pennylane(case.tape())


@needs_pennylane
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(tape=tapes())
def test_random_tapes_are_pennylanes(tape: kg.Tape) -> None:
    check_against_pennylane(tape)


@needs_pennylane
def test_variance_of_a_word_is_pennylanes() -> None:
    """Against PennyLane's own variance, which the conversion above does without."""
    angle = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    tape = kg.Tape([kg.RX(angle, wires=0), kg.CNOT(wires=[0, 1])], [kg.var(kg.Z(0) @ kg.X(1))])
    script = qml.tape.QuantumScript(
        [qml.RX(angle, wires=0), qml.CNOT(wires=[0, 1])], [qml.var(qml.prod(qml.Z(0), qml.X(1)))]
    )
    (theirs,) = qml.execute([script], qml.device("default.qubit"), diff_method="backprop", interface="torch")
    assert_equal(oracle.execute(tape), theirs, TOLERANCE)


# ---- conventions


def test_first_wire_is_the_most_significant_bit() -> None:
    tape = kg.Tape([kg.X(1), kg.Identity(0)], [kg.state()])
    assert oracle.execute(tape).abs().tolist() == [0, 1, 0, 0]


@needs_pennylane
@pytest.mark.parametrize("wires", [[2, 0, 1], [1, 2, 0], [9, 2, 5], ["b", "a", 3], [1, 2, 3]], ids=str)
def test_order_of_wires_is_pennylanes(wires: list[Any]) -> None:
    tape = kg.Tape(layer(Leaves(), wires), [kg.state(), kg.probs()])
    operations = [to_operation(operation) for operation in tape.operations]
    script = qml.tape.QuantumScript(operations, [qml.state(), qml.probs()])
    # No wires are given to the device: PennyLane decides about their order.
    (theirs,) = qml.execute([script], qml.device("default.qubit"), diff_method="backprop", interface="torch")
    assert_equal(oracle.execute(tape), theirs, TOLERANCE)


def test_probabilities_and_density_matrix_follow_the_order_asked_for() -> None:
    tape = kg.Tape([kg.X(2), kg.Identity([0, 1])], [kg.probs(wires=[2, 0]), kg.density_matrix(wires=[2, 1])])
    probabilities, density = oracle.execute(tape)
    assert probabilities.tolist() == [0, 0, 1, 0]
    assert density.diagonal().real.tolist() == [0, 0, 1, 0]


def test_results_nest_like_pennylanes() -> None:
    one = kg.Tape([kg.H(0)], [kg.expval(kg.Z(0))])
    two = kg.Tape([kg.H(0)], [kg.expval(kg.Z(0)), kg.probs(wires=0)])
    alone, pair = oracle.execute([one, two])
    assert isinstance(alone, Tensor)
    assert isinstance(pair, tuple)
    assert [each.shape for each in pair] == [(), (2,)]
    assert isinstance(oracle.execute([one]), tuple)
    torch.testing.assert_close(oracle.execute(one), alone)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_batch_leads_every_result(batch: int) -> None:
    gates = layer(Leaves(batch=batch), range(2))
    tape = kg.Tape(gates, [kg.expval(kg.Z(0)), kg.var(kg.Z(1)), kg.probs(), kg.state(), kg.density_matrix(wires=[1])])
    shapes = [(batch,), (batch,), (batch, 4), (batch, 4), (batch, 2, 2)]
    assert [each.shape for each in oracle.execute(tape)] == shapes


@pytest.mark.parametrize(("dtype", "state"), [(torch.float32, torch.complex64), (torch.float64, torch.complex128)])
def test_dtype_is_the_one_asked_for(dtype: torch.dtype, state: torch.dtype) -> None:
    tape = kg.Tape(layer(Leaves(), range(2)), [kg.expval(kg.Z(0)), kg.state()])
    assert [each.dtype for each in oracle.execute(tape, dtype)] == [dtype, state]
    assert oracle.state(tape, dtype).dtype == state
    assert_equal(oracle.execute(tape, dtype)[0].double(), oracle.execute(tape)[0], 1e-6)


def test_default_dtype_is_double_whatever_the_parameters() -> None:
    angle = torch.tensor(0.1, dtype=torch.float32)
    assert oracle.execute(kg.Tape([kg.RX(angle, wires=0)], [kg.expval(kg.Z(0))])).dtype == torch.float64
    with pytest.raises(TypeError, match="float16"):
        oracle.execute(kg.Tape([kg.RX(angle, wires=0)], [kg.state()]), torch.float16)


def test_shots_are_refused() -> None:
    with pytest.raises(ValueError, match="analytic"):
        oracle.execute(kg.Tape([kg.H(0)], [kg.sample()], shots=10))


# ---- derivatives beyond the first


def test_second_derivatives() -> None:
    leaves = Leaves()
    angles = [leaves.angle(), leaves.with_batch(2).angle(), leaves.angle()]

    def run(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        gates = [kg.RX(a, wires=0), kg.CRot(a, b, c, wires=[0, 1]), kg.SingleExcitation(b, wires=[1, 0])]
        return contract(oracle.execute(kg.Tape(gates, [kg.expval(c * kg.X(0) @ kg.Y(1)), kg.state()])))

    assert torch.autograd.gradcheck(run, angles)
    assert torch.autograd.gradgradcheck(run, angles)


def test_third_derivative() -> None:
    angle = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    value = oracle.execute(kg.Tape([kg.RX(angle, wires=0)], [kg.expval(kg.Z(0))]))
    for _ in range(3):
        (value,) = torch.autograd.grad(value, angle, create_graph=True)
    assert value.item() == pytest.approx(math.sin(0.3), abs=TOLERANCE)


# ---- the registry itself


def test_registry_has_every_operation() -> None:
    names = {type(entry.build(Leaves(), range(entry.num_wires))).__name__ for entry in OPERATIONS}
    assert names == set(kg.operations.OPERATIONS)


def test_names_in_the_registry_are_distinct() -> None:
    names = [case.name for case in [*CASES, *TABLE]]
    assert len(set(names)) == len(names)


def test_a_seed_means_the_same_circuit_in_every_precision() -> None:
    case = CASES[len(CASES) // 2]
    double, again, single = case.tape(), case.tape(), case.tape(dtype=torch.float32)
    assert double.structure == again.structure == single.structure
    for a, b, c in zip(*(tape.get_parameters() for tape in (double, again, single)), strict=True):
        assert torch.equal(a, b)
        assert c.dtype in (torch.float32, torch.complex64)
        torch.testing.assert_close(c, a.to(c.dtype))


def test_random_tapes_vary() -> None:
    assert len({random_tape(Random(seed), seed).structure for seed in range(20)}) == 20
