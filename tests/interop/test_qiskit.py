"""Tapes from and to Qiskit's circuits, compared with Qiskit's own states and matrices."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import ketgrad as kg
import oracle
from cases import CASES, Case

pytest.importorskip("qiskit")

from qiskit import QuantumCircuit
from qiskit.circuit import (
    AnnotatedOperation,
    ClassicalRegister,
    ControlModifier,
    Gate,
    InverseModifier,
    Parameter,
    ParameterVector,
    PowerModifier,
    QuantumRegister,
)
from qiskit.circuit import library as lib
from qiskit.circuit.random import random_circuit
from qiskit.quantum_info import Operator, Pauli, SparsePauliOp, Statevector, random_unitary

from ketgrad.interop.qiskit import tape_to_qiskit

pytestmark = [
    # Of Gate.control without the argument, which Qiskit's own methods leave out too.
    pytest.mark.filterwarnings("ignore:.*argument ``annotated`` is deprecated:DeprecationWarning"),
    # Of the matrix of a PauliEvolutionGate.
    pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning"),
]

# Both sides compute in double precision; what Qiskit synthesises from matrices adds a few hundred operations.
TOLERANCE = 1e-11


def tensor(*values: Any) -> Tensor:
    return torch.tensor(values[0] if len(values) == 1 else values, dtype=torch.float64, requires_grad=True)


def state_of(tape: kg.Tape) -> Tensor:
    return oracle.execute(kg.Tape(tape.operations, [kg.state()])).detach()


def of_qiskit(circuit: QuantumCircuit) -> Tensor:
    """Qiskit's state with the first qubit as the most significant bit."""
    return torch.from_numpy(Statevector(circuit).reverse_qargs().data)


def scrambled(qubits: int) -> QuantumCircuit:
    """A circuit whose state has all amplitudes different, so that no error in a gate after it cancels."""
    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        circuit.ry(0.7 + 0.4 * qubit, qubit)
        circuit.rz(0.3 - 0.5 * qubit, qubit)
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubit + 1)
        circuit.rx(0.9 - 0.2 * qubit, qubit)
    return circuit


def assert_same_state(circuit: QuantumCircuit) -> kg.Tape:
    tape = kg.from_qiskit(circuit)
    torch.testing.assert_close(state_of(tape), of_qiskit(circuit), rtol=0, atol=TOLERANCE)
    return tape


# ---- instructions

ONE_TO_ONE: dict[str, tuple[Gate, str]] = {
    "id": (lib.IGate(), "Identity"),
    "x": (lib.XGate(), "X"),
    "y": (lib.YGate(), "Y"),
    "z": (lib.ZGate(), "Z"),
    "h": (lib.HGate(), "H"),
    "s": (lib.SGate(), "S"),
    "sdg": (lib.SdgGate(), "S"),
    "t": (lib.TGate(), "T"),
    "tdg": (lib.TdgGate(), "T"),
    "sx": (lib.SXGate(), "SX"),
    "sxdg": (lib.SXdgGate(), "SX"),
    "rx": (lib.RXGate(0.3), "RX"),
    "ry": (lib.RYGate(0.3), "RY"),
    "rz": (lib.RZGate(0.3), "RZ"),
    "p": (lib.PhaseGate(0.3), "PhaseShift"),
    "u": (lib.UGate(0.3, 0.5, 0.8), "U3"),
    "u1": (lib.U1Gate(0.3), "U1"),
    "u2": (lib.U2Gate(0.3, 0.5), "U2"),
    "u3": (lib.U3Gate(0.3, 0.5, 0.8), "U3"),
    "cx": (lib.CXGate(), "CNOT"),
    "cx-0": (lib.CXGate(ctrl_state=0), "X"),
    "cy": (lib.CYGate(), "CY"),
    "cz": (lib.CZGate(), "CZ"),
    "ch": (lib.CHGate(), "CH"),
    "ch-0": (lib.CHGate(ctrl_state=0), "H"),
    "cs": (lib.CSGate(), "S"),
    "csdg": (lib.CSdgGate(), "S"),
    "csx": (lib.CSXGate(), "SX"),
    "crx": (lib.CRXGate(0.3), "CRX"),
    "cry": (lib.CRYGate(0.3), "CRY"),
    "crz": (lib.CRZGate(0.3), "CRZ"),
    "crz-0": (lib.CRZGate(0.3, ctrl_state=0), "RZ"),
    "cp": (lib.CPhaseGate(0.3), "ControlledPhaseShift"),
    "cu1": (lib.CU1Gate(0.3), "ControlledPhaseShift"),
    "cu3": (lib.CU3Gate(0.3, 0.5, 0.8), "U3"),
    "swap": (lib.SwapGate(), "SWAP"),
    "iswap": (lib.iSwapGate(), "ISWAP"),
    "rxx": (lib.RXXGate(0.3), "IsingXX"),
    "ryy": (lib.RYYGate(0.3), "IsingYY"),
    "rzz": (lib.RZZGate(0.3), "IsingZZ"),
    "rzx": (lib.RZXGate(0.3), "PauliRot"),
    "ccx": (lib.CCXGate(), "Toffoli"),
    "ccx-1": (lib.CCXGate(ctrl_state=1), "X"),
    "ccx-2": (lib.CCXGate(ctrl_state=2), "X"),
    "ccz": (lib.CCZGate(), "CCZ"),
    "cswap": (lib.CSwapGate(), "CSWAP"),
    "cswap-0": (lib.CSwapGate(ctrl_state=0), "SWAP"),
    "mcx": (lib.MCXGate(3), "X"),
    "mcx-5": (lib.MCXGate(3, ctrl_state=5), "X"),
    "c3sx": (lib.C3SXGate(), "SX"),
    "mcp": (lib.MCPhaseGate(0.3, 3), "PhaseShift"),
    "control": (lib.RYGate(0.3).control(2, ctrl_state=1, annotated=False), "RY"),
    "control-annotated": (lib.RYGate(0.3).control(3, ctrl_state=3, annotated=True), "RY"),
    "control-unitary": (lib.UnitaryGate(random_unitary(4, seed=1)).control(1, annotated=False), "QubitUnitary"),
    "global_phase": (lib.GlobalPhaseGate(0.3), "GlobalPhase"),
    "control-global_phase": (lib.GlobalPhaseGate(0.3).control(2, ctrl_state=1), "PhaseShift"),
    "unitary": (lib.UnitaryGate(random_unitary(8, seed=2)), "QubitUnitary"),
    "diagonal": (lib.DiagonalGate(np.exp(1j * np.arange(8)).tolist()), "DiagonalQubitUnitary"),
}
SEVERAL: dict[str, Gate] = {
    "cu": lib.CUGate(0.3, 0.5, 0.8, 1.1),
    "cu-0": lib.CUGate(0.3, 0.5, 0.8, 1.1, ctrl_state=0),
    "cu-control": lib.CUGate(0.3, 0.5, 0.8, 1.1).control(1, ctrl_state=0, annotated=False),
    "cu-annotated": lib.CUGate(0.3, 0.5, 0.8, 1.1).control(1, annotated=True),
    "r": lib.RGate(0.3, 0.5),
    "dcx": lib.DCXGate(),
    "ecr": lib.ECRGate(),
    "ecr-control": lib.ECRGate().control(1, annotated=False),
    "rccx": lib.RCCXGate(),
    "rcccx": lib.RC3XGate(),
    "xx_plus_yy": lib.XXPlusYYGate(0.3, 0.5),
    "xx_minus_yy": lib.XXMinusYYGate(0.3, 0.5),
    "xx_minus_yy-control": lib.XXMinusYYGate(0.3, 0.5).control(2, ctrl_state=2, annotated=False),
    "pauli": lib.PauliGate("XYZ"),
    "permutation": lib.PermutationGate([2, 0, 3, 1]),
    "evolution": lib.PauliEvolutionGate(Pauli("XYIZ"), 0.3),
    "qft": lib.QFTGate(3),
    "ucry": lib.UCRYGate([0.1, 0.2, 0.3, 0.4]),
    "state_preparation_dg": lib.StatePreparation([0.6, 0.8j]).inverse(),
    "state_preparation-control": lib.StatePreparation([0.6, 0.8j]).control(1, annotated=False),
    "inverse-annotated": AnnotatedOperation(lib.ECRGate(), [InverseModifier(), ControlModifier(1, 0)]),
    "control-control": AnnotatedOperation(
        lib.SXGate(), [ControlModifier(1, 0), InverseModifier(), ControlModifier(2, 1)]
    ),
}


def appended(gate: Gate, qubits: int = 4) -> QuantumCircuit:
    """The gate on qubits that are not in order."""
    circuit = scrambled(qubits)
    circuit.append(gate, [3, 0, 2, 1][: gate.num_qubits])
    return circuit


@pytest.mark.parametrize("name", ONE_TO_ONE)
def test_instruction_is_one_operation(name: str) -> None:
    gate, expected = ONE_TO_ONE[name]
    tape = assert_same_state(appended(gate))
    before = len(kg.from_qiskit(scrambled(4)).operations)
    if name == "control-global_phase":
        return
    assert [op.name for op in tape.operations[before:]] == [expected]


@pytest.mark.parametrize("name", SEVERAL)
def test_instruction_is_several_operations(name: str) -> None:
    assert_same_state(appended(SEVERAL[name]))


@pytest.mark.parametrize("seed", range(20))
def test_random_circuit(seed: int) -> None:
    circuit = random_circuit(4, 8, max_operands=4, seed=seed)
    circuit.global_phase = 0.1 * seed
    assert_same_state(circuit)


def test_every_standard_gate_of_qiskit_is_tested() -> None:
    standard = {gate.name for gate in lib.get_standard_gate_name_mapping().values() if isinstance(gate, Gate)}
    assert standard <= {gate.name for gate, _ in ONE_TO_ONE.values()} | {gate.name for gate in SEVERAL.values()}


def test_nested_definitions_with_phases() -> None:
    inner = QuantumCircuit(2, global_phase=0.4)
    inner.sx(1)
    inner.crz(0.3, 1, 0)
    middle = QuantumCircuit(3, global_phase=-0.2)
    middle.append(inner.to_gate().control(1, ctrl_state=0), [2, 0, 1])
    middle.append(inner.to_gate(), [1, 2])
    circuit = scrambled(4)
    circuit.append(middle.to_gate().control(1), [3, 1, 0, 2])
    circuit.append(middle.to_instruction(), [2, 0, 3])
    circuit.global_phase = 1.2
    assert_same_state(circuit)


def test_box() -> None:
    circuit = scrambled(3)
    with circuit.box():
        circuit.cx(2, 0)
        circuit.sx(0)
    assert [repr(op) for op in kg.from_qiskit(circuit).operations[-2:]] == ["CNOT(wires=[2, 0])", "SX(wires=[0])"]


def test_ancillas_of_a_controlled_gate() -> None:
    with pytest.warns(DeprecationWarning, match="MCXVChain"):
        gate = lib.MCXVChain(3, dirty_ancillas=True)
    circuit = scrambled(5)
    circuit.append(gate, [4, 0, 2, 1, 3])
    assert_same_state(circuit)


def test_what_does_nothing_is_left_out() -> None:
    circuit = QuantumCircuit(2)
    circuit.reset([0, 1])
    circuit.h(0)
    circuit.barrier()
    circuit.delay(100, 1)
    circuit.reset(1)
    circuit.x(1)
    assert [op.name for op in kg.from_qiskit(circuit).operations] == ["H", "X"]


def test_qubits_keep_their_numbers() -> None:
    circuit = QuantumCircuit(QuantumRegister(2, "a"), QuantumRegister(2, "b"))
    circuit.x(3)
    circuit.h(1)
    assert [op.wires for op in kg.from_qiskit(circuit).operations] == [(3,), (1,), (0, 2)]
    tape = assert_same_state(circuit)
    assert tape.wires == (0, 1, 2, 3)
    # Without a measurement of all wires, idle qubits would only take memory.
    assert kg.from_qiskit(circuit, [kg.probs(wires=[3, 1])]).num_wires == 2


# ---- preparations

STATE = np.array([0.1, 0.2j, -0.3, 0.4, 0.5, 0.1, 0.2, -0.6j]) / math.sqrt(0.96)


@pytest.mark.parametrize("kind", [lib.Initialize, lib.StatePreparation])
@pytest.mark.parametrize("state", [STATE, "1r-", 5], ids=["vector", "letters", "integer"])
def test_preparation(kind: Any, state: Any) -> None:
    preparation = kind(state, 3) if isinstance(state, int) else kind(state)
    circuit = QuantumCircuit(4)
    circuit.h(2)
    circuit.append(preparation, [3, 0, 1])
    circuit.cx(2, 3)
    tape = kg.from_qiskit(circuit)
    expected = QuantumCircuit(4)
    expected.h(2)
    expected.append(
        lib.StatePreparation(state, 3) if isinstance(state, int) else lib.StatePreparation(state), [3, 0, 1]
    )
    expected.cx(2, 3)
    torch.testing.assert_close(state_of(tape), of_qiskit(expected), rtol=0, atol=TOLERANCE)
    assert (tape.operations[0].name == "StatePrep") == isinstance(state, np.ndarray)


def test_second_preparation_becomes_gates() -> None:
    circuit = QuantumCircuit(3)
    circuit.initialize([0.6, 0.8j], 2)
    circuit.initialize([0.8, 0, 0, -0.6], [1, 0])
    circuit.append(lib.StatePreparation([0.6, 0.8]), [2])
    tape = kg.from_qiskit(circuit)
    assert [op.is_preparation for op in tape.operations[:2]] == [True, False]
    unitary = QuantumCircuit(3)
    unitary.append(lib.StatePreparation([0.6, 0.8j]), [2])
    unitary.append(lib.StatePreparation([0.8, 0, 0, -0.6]), [1, 0])
    unitary.append(lib.StatePreparation([0.6, 0.8]), [2])
    torch.testing.assert_close(state_of(tape), of_qiskit(unitary), rtol=0, atol=TOLERANCE)


# ---- measurements


def test_without_measurements_the_state_is_measured() -> None:
    (measurement,) = kg.from_qiskit(scrambled(2)).measurements
    assert measurement.kind == "state"


def test_final_measurements_become_probabilities_in_the_order_of_the_bits() -> None:
    circuit = scrambled(3)
    circuit.add_register(ClassicalRegister(3, "c"))
    circuit.measure(0, 2)
    circuit.barrier()
    circuit.measure(2, 0)
    tape = kg.from_qiskit(circuit)
    assert [m.wires for m in tape.measurements] == [(2, 0)]
    (found,) = kg.execute([tape])
    # Of Qiskit the first of the qubits is the lowest bit.
    expected = Statevector(scrambled(3)).probabilities([2, 0]).reshape(2, 2).T.ravel()
    torch.testing.assert_close(found, torch.from_numpy(expected.copy()), rtol=0, atol=TOLERANCE)


def test_given_measurements_take_the_place_of_the_circuits() -> None:
    circuit = scrambled(2)
    circuit.measure_all()
    tape = kg.from_qiskit(circuit, [kg.expval(kg.Z(1))])
    assert [m.kind for m in tape.measurements] == ["expval"]
    (found,) = kg.execute([tape])
    expected = Statevector(scrambled(2)).expectation_value(Pauli("ZI")).real
    assert found.item() == pytest.approx(expected, abs=TOLERANCE)


# ---- parameters

A, B = Parameter("a"), Parameter("b \\beta")
V = ParameterVector("θ", 3)

EXPRESSIONS: dict[str, Any] = {
    "itself": A,
    "linear": 2 * A - B / 3 + 0.5,
    "product": A * B,
    "power": A**3 + 1 / B + B**0.5 + A**-2,
    "functions": A.sin() + B.cos() * A.tan() + (A / 2).exp() + B.log(),
    "inverse functions": (A / 2).arcsin() + (B / 2).arccos() + A.arctan(),
    "kinks": (-A).abs() * A.sign() + A.conjugate(),
    "cancelled": A - A + B,
    "cancelled vector": V[0] * 0 + V[2],
    "cancelled number": B - B + 0.4,
    "of vectors": V[0] * V[2] - V[1],
}


def values(expression: Any) -> dict[str, Tensor]:
    given = {"a": tensor(0.4), "b \\beta": tensor(0.9), "θ[0]": tensor(0.2), "θ[1]": tensor(0.5), "θ[2]": tensor(1.1)}
    names = {each.name for each in expression.parameters}
    return {name: value for name, value in given.items() if name in names}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expression_of_parameters(name: str) -> None:
    expression = EXPRESSIONS[name]
    circuit = scrambled(2)
    circuit.crx(expression, 0, 1)
    given = values(expression)
    bound = circuit.assign_parameters({key: value.item() for key, value in given.items()})
    torch.testing.assert_close(state_of(kg.from_qiskit(circuit, None, given)), of_qiskit(bound), rtol=0, atol=TOLERANCE)

    def z(*angles: Tensor) -> Tensor:
        tape = kg.from_qiskit(circuit, [kg.expval(kg.Z(1))], dict(zip(given, angles, strict=True)))
        return kg.execute([tape])[0]

    torch.autograd.gradcheck(z, tuple(given.values()))


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_expression_of_numbers_is_a_number(name: str) -> None:
    expression = EXPRESSIONS[name]
    circuit = scrambled(2)
    circuit.rx(expression, 0)
    numbers = {key: value.item() for key, value in values(expression).items()}
    tape = kg.from_qiskit(circuit, None, numbers)
    assert all(isinstance(value, float) for value in tape.parameters)
    torch.testing.assert_close(state_of(tape), of_qiskit(circuit.assign_parameters(numbers)), rtol=0, atol=TOLERANCE)


def test_parameters_everywhere_in_a_circuit() -> None:
    inner = QuantumCircuit(2, global_phase=A)
    inner.rx(2 * B, 1)
    inner.cu(A, B, 0.3, A * B, 1, 0)
    circuit = scrambled(3)
    circuit.append(inner.to_gate().control(1, annotated=True), [2, 0, 1])
    circuit.append(lib.RZGate(A).control(2), [1, 0, 2])
    circuit.append(lib.PauliEvolutionGate(SparsePauliOp(["XX", "ZZ"], [0.3, 0.5]), A), [2, 1])
    circuit.global_phase = A + B
    given = {A: tensor(0.4), B: 0.9}
    bound = circuit.assign_parameters({A: 0.4, B: 0.9})
    torch.testing.assert_close(state_of(kg.from_qiskit(circuit, None, given)), of_qiskit(bound), rtol=0, atol=TOLERANCE)


def test_one_expression_is_one_tensor() -> None:
    circuit = QuantumCircuit(2)
    circuit.rx(A, 0)
    circuit.rx(A, 1)
    circuit.ry(2 * A, 0)
    circuit.ry(2 * A, 1)
    a = tensor(0.4)
    one, other, twice, again = kg.from_qiskit(circuit, None, {"a": a}).parameters
    assert one is a
    assert other is a
    assert twice is again


def test_batches_and_dtypes() -> None:
    circuit = QuantumCircuit(1)
    circuit.ry(2 * A + B, 0)
    batch = torch.tensor([0.1, 0.2, 0.3], requires_grad=True)
    shared = torch.tensor(0.5, requires_grad=True)
    (z,) = kg.execute([kg.from_qiskit(circuit, [kg.expval(kg.Z(0))], {A: batch, B: shared})])
    assert z.dtype == torch.float32
    torch.testing.assert_close(z, torch.cos(2 * batch + shared))
    z.sum().backward()
    assert batch.grad.shape == (3,)
    assert shared.grad.shape == ()


def test_vector_of_parameters() -> None:
    circuit = QuantumCircuit(1)
    circuit.rx(V[0] + V[2], 0)
    expected = torch.cos(torch.tensor([0.6, 1.4], dtype=torch.float64))
    for key in (V, "θ"):
        for given in (tensor([0.2, 9.0, 0.4]), [0.2, 9, 0.4], np.array([0.2, 9, 0.4])):
            (z,) = kg.execute([kg.from_qiskit(circuit, [kg.expval(kg.Z(0))], {key: given})])
            torch.testing.assert_close(z, expected[0])
    rows = tensor([[0.2, 9.0, 0.4], [1.0, 9.0, 0.4]])
    (z,) = kg.execute([kg.from_qiskit(circuit, [kg.expval(kg.Z(0))], {"θ": rows})])
    torch.testing.assert_close(z, expected)
    z.sum().backward()
    assert rows.grad[:, 1].tolist() == [0, 0]
    assert (rows.grad[:, 0] != 0).all()


def test_inside_a_compiled_function() -> None:
    circuit = scrambled(2)
    circuit.rx(2 * V[0], 0)
    circuit.ry(V[1].sin(), 1)
    circuit.rz(V[2], 1)

    @kg.compile
    def compiled(theta: Tensor) -> kg.Tape:
        return kg.from_qiskit(circuit, [kg.expval(kg.Z(0) @ kg.X(1))], {"θ": theta})

    theta = tensor([0.1, 0.2, 0.3])
    (expected,) = kg.execute([kg.from_qiskit(circuit, [kg.expval(kg.Z(0) @ kg.X(1))], {"θ": theta})])
    torch.testing.assert_close(compiled(theta), expected)
    gradients = [torch.autograd.grad(each, theta)[0] for each in (compiled(theta), expected)]
    torch.testing.assert_close(*gradients)
    assert compiled.traces == 1


PARAMETRISED = QuantumCircuit(1)
PARAMETRISED.rx(A, 0)
PARAMETRISED.rx(V[0] + V[1], 0)


@pytest.mark.parametrize(
    ("given", "exception", "message"),
    [
        (None, ValueError, r"have none: 'a', 'θ\[0\]', 'θ\[1\]'; give parameters="),
        ({"a": 1.0, V[0]: 1}, ValueError, r"have none: 'θ\[1\]'"),
        (
            {"a": 1.0, "θ": [1, 2, 3], "b": 2},
            ValueError,
            r"no parameter 'b'; its parameters are: 'a', 'θ\[0\]', 'θ\[1\]'",
        ),
        ({"a": 1.0, "θ": [1, 2, 3], V[1]: 2}, ValueError, r"'θ\[1\]' is given twice"),
        ({"a": 1.0, "θ": torch.ones(2)}, ValueError, r"'θ' must have shape \(3,\) or \(B, 3\), not \(2,\)"),
        ({"a": 1.0, "θ": [1, 2]}, ValueError, "'θ' takes a tensor"),
        ({"a": 1.0, "θ": 1}, ValueError, "'θ' takes a tensor"),
        ({"a": torch.ones(2, 2), "θ": [1, 2, 3]}, ValueError, r"'a' must be a scalar \(\) or a batch \(B,\), not of"),
        ({"a": 1j, "θ": [1, 2, 3]}, TypeError, "'a' must be a real number or a real tensor, not 1j of complex"),
        ({"a": torch.tensor(1j), "θ": [1, 2, 3]}, TypeError, "not a tensor of torch.complex64"),
        ({"a": "0.3", "θ": [1, 2, 3]}, TypeError, "not '0.3' of str"),
        ({"a": [0.3], "θ": [1, 2, 3]}, TypeError, "of list"),
        ([0.1, 0.2], TypeError, "must be a mapping from names to values, not list"),
    ],
)
def test_wrong_parameters(given: Any, exception: type[Exception], message: str) -> None:
    with pytest.raises(exception, match=message):
        kg.from_qiskit(PARAMETRISED, None, given)


def test_complex_expressions_are_refused() -> None:
    circuit = QuantumCircuit(1)
    circuit.rx(1j * A, 0)
    for given in (0.3, tensor(0.3)):
        with pytest.raises(ValueError, match="an expression of the circuit's parameters is not real, but contains"):
            kg.from_qiskit(circuit, None, {A: given})


# ---- what is refused


def mid_measurement() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 2)
    circuit.measure(0, 0)
    circuit.cx(1, 0)
    return circuit


def measured_twice() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 2)
    circuit.measure([0, 0], [0, 1])
    return circuit


def overwritten() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 1)
    circuit.measure([0, 1], [0, 0])
    return circuit


def mid_reset() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.h(1)
    circuit.reset(1)
    return circuit


def mid_initialize() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.cx(0, 1)
    circuit.initialize([0.6, 0.8], 1)
    return circuit


def reset_of_a_measured_qubit() -> QuantumCircuit:
    circuit = QuantumCircuit(1, 1)
    circuit.measure(0, 0)
    circuit.reset(0)
    return circuit


def conditional() -> QuantumCircuit:
    circuit = QuantumCircuit(2, 1)
    circuit.measure(0, 0)
    with circuit.if_test((0, 1)):
        circuit.x(1)
    return circuit


def loop() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    with circuit.for_loop(range(3)):
        circuit.x(0)
    return circuit


def nested_measurement() -> QuantumCircuit:
    inner = QuantumCircuit(1, 1)
    inner.measure(0, 0)
    inner.x(0)
    circuit = QuantumCircuit(2, 1)
    circuit.append(inner.to_instruction(), [1], [0])
    return circuit


def opaque() -> QuantumCircuit:
    circuit = QuantumCircuit(2)
    circuit.append(Gate("magic", 2, []), [1, 0])
    return circuit


def power() -> QuantumCircuit:
    circuit = QuantumCircuit(1)
    circuit.append(AnnotatedOperation(lib.RXGate(0.3), PowerModifier(0.5)), [0])
    return circuit


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (mid_measurement, r"^cx on qubits \[1, 0\]: qubit 0 is measured before.*pennylane.defer_measurements"),
        (measured_twice, "^measure on qubit 0: qubit 0 is measured before"),
        (
            overwritten,
            "^measure on qubit 1: classical bit 0 already holds the outcome of qubit 0; measure into another",
        ),
        (mid_reset, "^reset on qubit 1: qubit 1 has had a gate; resets in the middle.*pennylane.defer_measurements"),
        (mid_initialize, "^initialize on qubit 1: qubit 1 has had a gate"),
        (reset_of_a_measured_qubit, "^reset on qubit 0: qubit 0 is measured before"),
        (conditional, "^if_else on qubit 1: classical control is not supported; pennylane.from_qiskit"),
        (loop, "^for_loop on qubit 0: classical control is not supported; unroll it first"),
        (nested_measurement, "^x on qubit 1: qubit 1 is measured before"),
        (opaque, r"^magic on qubits \[1, 0\]: it has no definition; leave it out, or apply qiskit.transpile"),
        (power, "PowerModifier.* is not supported; apply qiskit.transpile"),
    ],
)
def test_refused(build: Callable[[], QuantumCircuit], message: str) -> None:
    with pytest.raises(NotImplementedError, match=message):
        kg.from_qiskit(build())


def test_other_things_than_circuits() -> None:
    with pytest.raises(TypeError, match="expected a QuantumCircuit of Qiskit, not str"):
        kg.from_qiskit("circuit")
    with pytest.raises(TypeError, match=r"not SparsePauliOp; Hamiltonian\.from_qiskit takes operators"):
        kg.from_qiskit(SparsePauliOp("X"))
    with pytest.raises(ValueError, match=r"expval on wires \[0, 2\]: the circuit has no qubit 2, it has 2, from 0"):
        kg.from_qiskit(scrambled(2), [kg.expval(kg.Z(0) @ kg.Z(2))])
    with pytest.raises(TypeError, match="measurement 0 of the tape"):
        kg.from_qiskit(scrambled(2), [kg.Z(0)])


# ---- Hamiltonians


def test_hamiltonian_has_the_values_of_qiskit() -> None:
    op = SparsePauliOp(["XIZ", "IYY", "III", "ZZZ", "XIZ"], [0.5, -1.2, 0.3, 2.0, 0.25])
    tape = kg.from_qiskit(scrambled(3), [kg.expval(kg.Hamiltonian.from_qiskit(op))])
    expected = Statevector(scrambled(3)).expectation_value(op).real
    assert kg.execute([tape])[0].item() == pytest.approx(expected, abs=TOLERANCE)


def test_hamiltonian_with_trainable_coefficients() -> None:
    op = SparsePauliOp(["XI", "ZZ"], np.array([Parameter("u"), 1.0]))
    coefficients = tensor([0.5, 2.0])
    observable = kg.Hamiltonian.from_qiskit(op, coefficients)
    (energy,) = kg.execute([kg.Tape([kg.RY(0.3, 1)], [kg.expval(observable)])])
    (gradient,) = torch.autograd.grad(energy, coefficients)
    torch.testing.assert_close(gradient, torch.tensor([math.sin(0.3), math.cos(0.3)], dtype=torch.float64))
    with pytest.raises(TypeError, match=r"coefficients that are no numbers; bind its parameters, or give"):
        kg.Hamiltonian.from_qiskit(op)
    with pytest.raises(ValueError, match="3 coefficients for 2 observables"):
        kg.Hamiltonian.from_qiskit(op, torch.ones(3))


def test_wrong_operators() -> None:
    with pytest.raises(ValueError, match=r"the coefficient of X\(0\) @ Z\(1\) is 1\+0\.5j; those of a Hamiltonian"):
        kg.Hamiltonian.from_qiskit(SparsePauliOp(["ZX", "II"], [1 + 0.5j, 1]))
    with pytest.raises(ValueError, match="the coefficient of the identity is"):
        kg.Hamiltonian.from_qiskit(SparsePauliOp(["II"], [1e-3j]))
    with pytest.raises(TypeError, match=r"expected a SparsePauliOp of Qiskit, not Pauli; SparsePauliOp\(op\)"):
        kg.Hamiltonian.from_qiskit(Pauli("XX"))
    rounded = kg.Hamiltonian.from_qiskit(SparsePauliOp(["X", "Z"], [1 + 1e-15j, 2]))
    assert rounded.parameters[0].tolist() == [1, 2]


def test_a_thousand_terms_take_milliseconds() -> None:
    generator = np.random.default_rng(0)
    words = ["".join(generator.choice(list("IXYZ"), 16)) for _ in range(1000)]
    op = SparsePauliOp(words, generator.standard_normal(1000))
    kg.Hamiltonian.from_qiskit(op)
    start = time.perf_counter()
    observable = kg.Hamiltonian.from_qiskit(op)
    assert time.perf_counter() - start < 0.25  # it takes 15 ms
    assert len(observable.terms) == 1000


# ---- to Qiskit

GATES = {
    case.name: case
    for case in CASES
    if all(op.batch_size is None for op in case.tape().operations) and any(op.wires for op in case.tape().operations)
}
# A tenth of the cases, and one of every gate, plain, inverted and controlled.
CHOSEN: dict[Any, Case] = {}
for case in GATES.values():
    for op in case.tape().operations:
        CHOSEN.setdefault((op.name, op.inverse, bool(op.control_wires), all(op.control_values)), case)
CONVERTED = sorted({case.name: case for case in CHOSEN.values()}.values(), key=lambda case: case.name)


def in_double(tape: kg.Tape) -> Tensor:
    return kg.execute([kg.Tape(tape.operations, [kg.state()])], dtype=torch.float64)[0].detach()


@pytest.mark.parametrize("case", CONVERTED, ids=str)
def test_case_is_the_same_circuit_in_qiskit(case: Case) -> None:
    tape = case.tape()
    circuit = tape_to_qiskit(kg.Tape(tape.operations, [kg.state()]))
    expected = in_double(tape)
    # Single precision keeps 7 digits of matrices.
    single = any(isinstance(p, Tensor) and p.dtype in (torch.float32, torch.complex64) for p in tape.parameters)
    tolerance = 1e-6 if single else TOLERANCE
    torch.testing.assert_close(of_qiskit(circuit), expected, rtol=0, atol=tolerance)
    torch.testing.assert_close(in_double(kg.from_qiskit(circuit)), expected, rtol=0, atol=tolerance)


def test_every_gate_is_converted() -> None:
    names = {name for name, *_ in CHOSEN}
    assert names == set(kg.operations.OPERATIONS)


def test_gates_come_back_as_they_were() -> None:
    operations = [
        kg.H(0),
        kg.CNOT(wires=[0, 1]),
        kg.adjoint(kg.S(1)),
        kg.IsingXX(0.3, wires=[2, 0]),
        kg.ctrl(kg.RX(0.4, wires=0), [1, 2], [0, 1]),
        kg.QubitUnitary(np.kron(np.eye(2), np.array([[0, 1], [1j, 0]])), wires=[2, 1]),
        kg.GlobalPhase(0.2),
    ]
    back = kg.from_qiskit(tape_to_qiskit(kg.Tape(operations, [kg.state()])))
    assert [repr(op) for op in back.operations] == [repr(op) for op in operations]


def test_wires_and_measurements_of_a_tape() -> None:
    tape = kg.Tape([kg.X("b"), kg.CNOT(["b", "a"])], [kg.probs(wires=["a"]), kg.expval(kg.Z("b")), kg.probs(wires="b")])
    circuit = tape_to_qiskit(tape)
    assert [(i.operation.name, [circuit.find_bit(q).index for q in i.qubits]) for i in circuit.data] == [
        ("x", [0]),
        ("cx", [0, 1]),
        ("measure", [1]),
        ("measure", [0]),
    ]
    everything = tape_to_qiskit(kg.Tape([kg.X(0), kg.X(1)], [kg.sample()], shots=3))
    assert everything.num_clbits == 2
    assert tape_to_qiskit(kg.Tape([kg.X(0)], [kg.state()])).num_clbits == 0


def test_values_that_qiskit_has_none_of() -> None:
    with pytest.raises(ValueError, match="RX on wire 1 has a batch of 3, and Qiskit and OpenQASM have none"):
        tape_to_qiskit(kg.Tape([kg.X(0), kg.RX(torch.ones(3), wires=1)], [kg.state()]))
    with pytest.raises(ValueError, match="RY on wire 0 has a parameter that is not finite: nan"):
        tape_to_qiskit(kg.Tape([kg.RY(math.nan, wires=0)], [kg.state()]))


def test_trained_tensors_are_written_as_their_values() -> None:
    half = torch.tensor(0.5, dtype=torch.bfloat16)
    conjugate = torch.diag(torch.tensor([1, 1j], requires_grad=True)).mH
    operations = [kg.RX(tensor(0.3), wires=0), kg.RY(half, wires=0), kg.QubitUnitary(conjugate, wires=0)]
    found = [each.operation.params for each in tape_to_qiskit(kg.Tape(operations, [kg.state()])).data]
    assert found[:2] == [[0.3], [0.5]]
    np.testing.assert_allclose(found[2][0], np.diag([1, -1j]))


def test_operator_of_a_controlled_excitation() -> None:
    """On all states, not only on one."""
    gate = kg.ctrl(kg.DoubleExcitationPlus(0.7, wires=[0, 1, 2, 3]), 4, 0)
    circuit = tape_to_qiskit(kg.Tape([gate], [kg.probs(wires=range(5))])).remove_final_measurements(inplace=False)
    matrix = Operator(circuit.reverse_bits()).data
    expected = np.eye(32, dtype=complex)
    excited = np.exp(0.35j) * np.eye(16, dtype=complex)
    excited[np.ix_([3, 12], [3, 12])] = [[math.cos(0.35), -math.sin(0.35)], [math.sin(0.35), math.cos(0.35)]]
    expected[::2, ::2] = excited
    np.testing.assert_allclose(matrix, expected, atol=TOLERANCE)


# ---- imports


def test_missing_qiskit_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qiskit", None)
    monkeypatch.delitem(sys.modules, "ketgrad.interop.qiskit")
    with pytest.raises(
        ImportError, match=r'Qiskit cannot be imported \(.*\); install it: pip install "ketgrad\[qiskit\]"'
    ):
        kg.from_qiskit(QuantumCircuit(1))
