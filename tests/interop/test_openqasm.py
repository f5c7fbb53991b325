"""Tapes from and to OpenQASM: what is read, what is written, and that what is written is read as the same."""

from __future__ import annotations

import math
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_qiskit import CONVERTED, Case
from torch import Tensor

import ketgrad as kg
from cases import angle_rounding
from strategies import tapes

pytest.importorskip("qiskit_qasm3_import")

from qiskit import QuantumCircuit, generate_preset_pass_manager, qasm2, qasm3
from qiskit.circuit.random import random_circuit
from qiskit.quantum_info import Operator, Statevector

from ketgrad.interop.qiskit import tape_to_qiskit

# What Qiskit's own reader of OpenQASM 3 calls for `ctrl @`.
pytestmark = pytest.mark.filterwarnings("ignore:.*argument ``annotated`` is deprecated:DeprecationWarning")

# Hundreds of gates for a matrix on three wires, in double precision; of single precision 7 digits of a matrix.
TOLERANCE = 1e-11
SINGLE = 1e-6

VERSIONS = ("2.0", "3.0")


def state_of(tape: kg.Tape) -> Tensor:
    return kg.execute([kg.Tape(tape.operations, [kg.state()])], dtype=torch.float64)[0].detach()


def with_state(tape: kg.Tape) -> kg.Tape:
    return kg.Tape(tape.operations, [kg.state()])


def tolerance_of(tape: kg.Tape) -> float:
    single = any(isinstance(p, Tensor) and p.dtype in (torch.float32, torch.complex64) for p in tape.parameters)
    return (SINGLE if single else TOLERANCE) + angle_rounding(tape)  # Qiskit's decompositions add angles up too


def assert_same(found: Tensor, expected: Tensor, version: str, tolerance: float = TOLERANCE) -> None:
    """Equal, in version 2 up to a global phase."""
    if version == "2.0":
        overlap = torch.vdot(found, expected)
        found = found * (overlap / overlap.abs())
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


# ---- round trips


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("case", CONVERTED, ids=str)
def test_case_comes_back(case: Case, version: str) -> None:
    tape = with_state(case.tape())
    back = kg.from_openqasm(tape.to_openqasm(version))
    assert_same(state_of(back), state_of(tape), version, tolerance_of(tape))


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tape=tapes(max_wires=4))
def test_random_tape_comes_back(tape: kg.Tape) -> None:
    assume(all(op.batch_size is None for op in tape.operations) and any(op.wires for op in tape.operations))
    tape = with_state(tape)
    for version in VERSIONS:
        back = kg.from_openqasm(tape.to_openqasm(version))
        assert_same(state_of(back), state_of(tape), version, tolerance_of(tape))


# One of each gate, for `controlled`: {name: (constructor's arguments before the wires, number of wires)}
UNITARY = torch.linalg.matrix_exp(1j * torch.tensor([[0.3, 0.5 - 0.2j], [0.5 + 0.2j, -0.7]], dtype=torch.complex128))
ANGLES = {name: (0.7, -1.1, 2.3)[: len(gate.parameter_kinds)] for name, gate in kg.operations.OPERATIONS.items()}
ARGUMENTS: dict[str, tuple[tuple[Any, ...], int]] = {
    **{name: (ANGLES[name], gate.num_wires or 2) for name, gate in kg.operations.OPERATIONS.items()},
    "PauliRot": ((0.7, "XIYZ"), 4),
    "MultiRZ": ((0.7,), 3),
    "QubitUnitary": ((torch.kron(UNITARY, UNITARY @ UNITARY),), 2),
    "DiagonalEvolution": ((0.7, torch.arange(4.0, dtype=torch.float64)), 2),
    "DiagonalQubitUnitary": ((torch.exp(1j * torch.arange(4.0, dtype=torch.float64)),), 2),
}
CONTROLLED = [name for name, gate in kg.operations.OPERATIONS.items() if not gate.is_preparation]


def controlled(name: str, count: int, inverse: bool) -> kg.Operation:
    """A gate with its first wires in an odd order, and controls of which every third one is at 0."""
    arguments, wires = ARGUMENTS[name]
    op = kg.operations.OPERATIONS[name](*arguments, wires=[count + (wire + 1) % wires for wire in range(wires)])
    op = kg.adjoint(op) if inverse else op
    return kg.ctrl(op, list(range(count)), [index % 3 != 1 for index in range(count)]) if count else op


def matrix_of(operations: Sequence[kg.Operation], wires: int) -> Tensor:
    order = range(wires)
    return kg.matrix(kg.Tape([kg.Identity(order), *operations], [kg.state()]), wire_order=order).detach()


@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", CONTROLLED)
def test_controlled_gates_come_back(name: str, version: str) -> None:
    for count in range(6):
        for inverse in (False, True):
            op = controlled(name, count, inverse)
            wires = max(op.wires) + 1
            tape = kg.Tape([kg.Identity(range(wires)), op], [kg.state()])
            back = kg.from_openqasm(tape.to_openqasm(version))
            found, expected = (matrix_of(operations, wires) for operations in (back.operations, [op]))
            assert_same(found.reshape(-1), expected.reshape(-1), version)


@pytest.mark.parametrize("name", CONTROLLED)
def test_qiskit_synthesises_controlled_gates_right(name: str) -> None:
    synthesis = generate_preset_pass_manager(optimization_level=1, basis_gates=["u", "cx"])
    for count in (1, 3, 4):
        op = controlled(name, count, inverse=count == 3)
        wires = max(op.wires) + 1
        if wires < 8:  # Operators of more take seconds.
            circuit = synthesis.run(tape_to_qiskit(kg.Tape([kg.Identity(range(wires)), op], [kg.state()])))
            found = torch.from_numpy(Operator(circuit.reverse_bits()).data)
            torch.testing.assert_close(found, matrix_of([op], wires), rtol=0, atol=TOLERANCE)


def test_number_of_gates_grows_slowly_with_controls() -> None:
    """Twice the controls are twice the gates of a rotation, and four times those of others."""
    for op in (kg.RX(0.7, wires=20), kg.DoubleExcitation(0.7, wires=[20, 21, 22, 23]), kg.X(20), kg.ISWAP([20, 21])):
        few, many = (
            kg.Tape([kg.ctrl(op, list(range(count)))], [kg.state()]).to_openqasm().count("\n") for count in (10, 20)
        )
        assert many < 6 * few


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("version", VERSIONS)
def test_what_qiskit_writes_is_read(seed: int, version: str) -> None:
    circuit = random_circuit(4, 5, max_operands=3, seed=seed)
    text = qasm2.dumps(circuit) if version == "2.0" else qasm3.dumps(circuit)
    expected = torch.from_numpy(Statevector(circuit).reverse_qargs().data)
    # Qiskit's writers leave out the global phases of gates that they define, and round fractions of π.
    assert_same(state_of(kg.from_openqasm(text)), expected, "2.0", 1e-7)


@pytest.mark.parametrize("version", VERSIONS)
def test_common_gates_come_back_as_they_were(version: str) -> None:
    operations = [
        kg.H(0),
        kg.RX(0.1 + 0.2, wires=1),
        kg.RY(-1e-13, wires=0),
        kg.RZ(math.pi / 3 + 1e-12, wires=1),
        kg.CNOT(wires=[1, 0]),
        kg.CZ(wires=[0, 2]),
        kg.CRZ(2.5e300, wires=[0, 2]),
        kg.adjoint(kg.T(1)),
        kg.Toffoli(wires=[2, 0, 1]),
    ]
    back = kg.from_openqasm(kg.Tape(operations, [kg.state()]).to_openqasm(version))
    assert [op.structure for op in back.operations] == [op.structure for op in operations]
    assert back.parameters == kg.Tape(operations, [kg.state()]).parameters


# ---- text


def test_text_of_version_3() -> None:
    operations = [kg.RX(0.5, wires="a"), kg.PhaseShift(1e-20, wires="b"), kg.CNOT(["a", "b"]), kg.GlobalPhase(-0.25)]
    assert kg.Tape(operations, [kg.probs(wires=["b"]), kg.expval(kg.Z("a"))]).to_openqasm() == (
        "OPENQASM 3.0;\n"
        'include "stdgates.inc";\n'
        "qubit[2] q;\n"
        "bit[1] c;\n"
        "gphase(0.25);\n"
        "rx(0.5) q[0];\n"
        "p(1.0e-20) q[1];\n"
        "cx q[0], q[1];\n"
        "c[0] = measure q[1];\n"
    )


def test_text_of_version_2() -> None:
    operations = [kg.RX(0.5, wires=0), kg.U1(1e-20, wires=1), kg.CNOT(wires=[0, 1]), kg.GlobalPhase(-0.25)]
    assert kg.Tape(operations, [kg.counts()], shots=10).to_openqasm("2.0") == (
        "OPENQASM 2.0;\n"
        'include "qelib1.inc";\n'
        "qreg q[2];\n"
        "creg c[2];\n"
        "rx(0.5) q[0];\n"
        "u1(1.0e-20) q[1];\n"
        "cx q[0], q[1];\n"
        "measure q[0] -> c[0];\n"
        "measure q[1] -> c[1];\n"
    )


def test_strict_readers_read_version_2() -> None:
    for case in CONVERTED:
        qasm2.loads(with_state(case.tape()).to_openqasm("2.0"), strict=True)


def test_precision() -> None:
    tape = kg.Tape([kg.RX(math.pi, wires=0), kg.RX(1e-7 / 3, wires=0), kg.GlobalPhase(1 / 3)], [kg.state()])
    text = tape.to_openqasm(precision=3)
    assert "rx(3.14) " in text
    assert "rx(3.33e-08) " in text
    assert "gphase(-0.333);" in text
    with pytest.raises(ValueError, match="precision is a number of significant digits, 1 or more, or None, not 0"):
        tape.to_openqasm(precision=0)


def test_measurements_come_back() -> None:
    tape = kg.Tape([kg.H(0), kg.CNOT(wires=[0, 2])], [kg.probs(wires=[2, 0])])
    for version in VERSIONS:
        back = kg.from_openqasm(tape.to_openqasm(version))
        torch.testing.assert_close(kg.execute([back]), kg.execute([tape]))
        assert [m.kind for m in back.measurements] == ["probs"]


def test_trained_tensors_are_written_as_their_values() -> None:
    tape = kg.Tape([kg.RX(torch.tensor(0.5, requires_grad=True), wires=0)], [kg.state()])
    assert "rx(0.5) q[0];" in tape.to_openqasm()


def test_what_cannot_be_written() -> None:
    tape = kg.Tape([kg.RX(torch.ones(3), wires=0)], [kg.state()])
    with pytest.raises(ValueError, match="RX on wire 0 has a batch of 3, and Qiskit and OpenQASM have none"):
        tape.to_openqasm()
    with pytest.raises(ValueError, match=r"version must be a string, one of '2\.0', '3\.0', not '1\.0'"):
        tape.to_openqasm("1.0")


# ---- reading

PROGRAM_2 = """
// A comment before the header.
OPENQASM 2.0;
include "qelib1.inc";
gate both(a) x, y { rx(a / 2) x; cx x, y; rzz(2 * a) x, y; }
qreg q[2];
creg c[2];
both(pi / 5) q[1], q[0];
barrier q;
measure q[0] -> c[1];
measure q[1] -> c[0];
"""
PROGRAM_3 = """
/* A comment
   before the header. */
OPENQASM 3.0;
include "stdgates.inc";
input float[64] theta;
input angle unused;
gate both(a) x, y { rx(a / 2) x; cx x, y; gphase(a); }
qubit[2] q;
qubit r;
both(2 * theta) q[1], q[0];
ctrl @ both(theta) r, q[0], q[1];
negctrl @ ctrl @ ry(0.7) r, q[0], q[1];
inv @ s q[0];
ctrl(2) @ gphase(0.3) q[0], q[1];
"""


def test_program_of_version_2() -> None:
    tape = kg.from_openqasm(PROGRAM_2)
    assert [op.name for op in tape.operations] == ["RX", "CNOT", "IsingZZ"]
    assert [op.wires for op in tape.operations] == [(1,), (1, 0), (1, 0)]
    assert tape.parameters == (math.pi / 10, 2 * math.pi / 5)
    assert [m.wires for m in tape.measurements] == [(1, 0)]


def test_program_of_version_3() -> None:
    theta = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    given = {"theta": theta, "unused": 1.0}
    half = [kg.RX(theta, wires=1), kg.CNOT(wires=[1, 0]), kg.GlobalPhase(-2 * theta)]
    controlled = [kg.ctrl(op, 2) for op in (kg.RX(theta / 2, wires=0), kg.CNOT(wires=[0, 1]), kg.GlobalPhase(-theta))]
    rest = [
        kg.ctrl(kg.RY(0.7, wires=1), [2, 0], [0, 1]),
        kg.adjoint(kg.S(0)),
        kg.ctrl(kg.PhaseShift(0.3, wires=1), 0),
    ]
    expected = kg.Tape([*half, *controlled, *rest], [kg.state()])
    found = kg.from_openqasm(PROGRAM_3, None, given)
    torch.testing.assert_close(state_of(found), state_of(expected), rtol=0, atol=TOLERANCE)
    gradients = []
    for operations in (found.operations, expected.operations):
        (z,) = kg.execute([kg.Tape(operations, [kg.expval(kg.Z(0) @ kg.Z(2))])])
        gradients.append(torch.autograd.grad(z, theta)[0])
    torch.testing.assert_close(*gradients)
    with pytest.raises(ValueError, match="have none: 'theta', 'unused'"):
        kg.from_openqasm(PROGRAM_3)


def test_file(tmp_path: Path) -> None:
    file = tmp_path / "circuit.qasm"
    file.write_text(PROGRAM_2, encoding="utf-8")
    assert kg.from_openqasm(file).structure == kg.from_openqasm(PROGRAM_2).structure


def test_given_measurements() -> None:
    (measurement,) = kg.from_openqasm(PROGRAM_2, [kg.expval(kg.Z(1))]).measurements
    assert measurement.kind == "expval"


@pytest.mark.parametrize(
    ("source", "exception", "message"),
    [
        (
            "circuit.qasm",
            ValueError,
            r"^OpenQASM: .* must begin with its version, such as OPENQASM 3\.0; \(a file is given as a pathlib.Path\)",
        ),
        ("OPENQASM 1.0; qreg q[1];", ValueError, r"^OpenQASM: 1,0: version 1\.0 is not supported, only 2 and 3"),
        ("OPENQASM three;", ValueError, "^OpenQASM: 1,0: the version must be a number"),
        ("OPENQASM 2.0;\n/* no */ qreg q[1];", ValueError, r"^OpenQASM 2: 2,0: version 2 has no comments in /\*"),
        ("OPENQASM 3.0; /* qubit q;", ValueError, "^OpenQASM: 1,14: the comment has no end"),
        ("OPENQASM 3.0;\nqubit q; ?", ValueError, r"^OpenQASM: 2,9: unexpected '\?'"),
        ("OPENQASM 2.0;\nqreg q[2];\nfoo q;", ValueError, "^OpenQASM 2: .*3,0: 'foo' is not defined"),
        ("OPENQASM 2.0;\nqreg q[2;", ValueError, r"^OpenQASM 2: .*2,8: needed '\]', but instead saw ;"),
        ("OPENQASM 3.0;\nqubit q;\nfoo q;", ValueError, "^OpenQASM 3: 3,0: gate 'foo' is not defined"),
        ("OPENQASM 3.0;\nqubit[ q;\n", ValueError, "^OpenQASM 3: 2,8: unexpected ';'"),
        ("OPENQASM 3.0;\nint x = 3;", ValueError, "^OpenQASM 3: 2,0: declarations of type 'int' are not supported"),
        (b"OPENQASM 3.0;", TypeError, "a string or the pathlib.Path of a file, not bytes"),
    ],
)
def test_what_cannot_be_read(source: Any, exception: type[Exception], message: str) -> None:
    with pytest.raises(exception, match=message):
        kg.from_openqasm(source)


def test_classical_control_is_refused() -> None:
    text = 'OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; creg c[1]; measure q[0] -> c[0]; if (c == 1) x q[1];'
    with pytest.raises(
        NotImplementedError, match=r"^OpenQASM 2: if_else on qubit 1: classical control is not supported"
    ):
        kg.from_openqasm(text)


def test_circuits_that_from_qasm_str_reads_are_read() -> None:
    """Qiskit has more in qelib1.inc than its strict reader takes."""
    gates = "h q; sx q[0]; cp(0.3) q[0], q[1]; rxx(0.4) q[1], q[2]; csx q[0], q[2];"
    text = f'OPENQASM 2.0; include "qelib1.inc"; qreg q[3]; {gates}'
    circuit = QuantumCircuit.from_qasm_str(text)
    expected = torch.from_numpy(Statevector(circuit).reverse_qargs().data)
    torch.testing.assert_close(state_of(kg.from_openqasm(text)), expected, rtol=0, atol=TOLERANCE)


def test_missing_parser_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "qiskit_qasm3_import", None)
    monkeypatch.setitem(sys.modules, "qiskit_qasm3_import.converter", None)
    monkeypatch.delitem(sys.modules, "ketgrad.interop._openqasm3", raising=False)
    with pytest.raises(
        ImportError, match=r'reads OpenQASM 3 with qiskit-qasm3-import .*pip install "ketgrad\[qiskit\]"'
    ):
        kg.from_openqasm("OPENQASM 3.0; qubit q;")


# ---- wrong programs

HEADER_2 = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\n'
HEADER_3 = 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[3] a;\n'


def doubling(version: str, levels: int) -> str:
    """Each gate is the one before twice."""
    header = HEADER_3.replace("a;", "q;") if version == "3" else HEADER_2
    gates = [f"gate g{level} a {{ {f'g{level - 1} a; ' * 2 if level else 'h a; '}}}" for level in range(levels)]
    return header + "\n".join([*gates, f"g{levels - 1} q[0];"])


@pytest.mark.parametrize(
    ("program", "exception", "message"),
    [
        (HEADER_3 + "for int i in [0:2] { h a[i]; }", NotImplementedError, "3: 4,0: loops are not supported"),
        (HEADER_3 + "x a[3];", ValueError, "3: 4,0: index out of range"),
        (HEADER_3 + "rx a[0];", ValueError, "3: 4,0: the gate rx takes 1 angles, not 0"),
        (HEADER_3 + "rx(0.1,0.2) a[0];", ValueError, "3: 4,0: the gate rx takes 1 angles, not 2"),
        (HEADER_3 + "gate g(t) q { rx(t) q; } g a[0];", ValueError, "3: 4,25: the gate g takes 1 angles, not 0"),
        (HEADER_3 + "cx a[0],a[0];", ValueError, "3: 4,0: .*duplicate"),
        (HEADER_3 + "rx(1/0) a[0];", ValueError, "3: 4,0: .*division"),
        (HEADER_3 + "rx(1e300*1e300) a[0];", ValueError, "3: an angle is inf; angles must be finite"),
        (HEADER_3 + "\nrx(1e400) a[0];", ValueError, "3: 5,3: the number 1e400 is too large"),
        (HEADER_2 + "rx(1e400) q[0];", ValueError, "2: 4,3: the number 1e400 is too large"),
        (HEADER_2 + f"rx({'9' * 400}) q[0];", ValueError, "2: 4,3: the number 9{20}… of 400 digits is too large"),
        (HEADER_3 + f"rx(0x{'9' * 400}) a[0];", ValueError, "3: 4,3: the number 0x9{18}… of 402 digits is too large"),
        (HEADER_2 + "x q[99999999999999999999];", ValueError, "2: 4,4: 9{20} is too large for an index"),
        (HEADER_2 + "rx q[0];", ValueError, "2: in the statement 'rx q.0.;': RXGate"),
        (HEADER_2 + "gate g a { rx a; } g q[0];", ValueError, "2: the definition of the gate g is wrong: RXGate"),
        (HEADER_2 + "foo q[0];", ValueError, "2: 4,0: 'foo' is not defined"),
        ("OPENQASM 2.0; qreg q[1001];", ValueError, "2: 1,14: 1001 qubits are beyond the limit of 1000"),
        ("OPENQASM 2.0; qreg q[1]; creg c[999999999];", ValueError, "2: 1,25: 999999999 classical bits are beyond"),
        ("OPENQASM 3.0; qubit[600] a; qubit[600] b;", ValueError, "3: 1,28: 1200 qubits are beyond the limit of 1000"),
        ("OPENQASM 3.0; qubit[100*100] a;", ValueError, "3: 1,19: 10000 is beyond the limit of 1000"),
        ("OPENQASM 3.0; x $99999;", ValueError, r"3: 1,16: the qubit \$99999 is beyond the limit of 1000 qubits"),
        (HEADER_3 + "ctrl(99999999999) @ x a[0], a[1];", ValueError, "3: 4,5: 99999999999 is beyond the limit of 1000"),
        (HEADER_3 + f"rx({'(' * 200}1{')' * 200}) a[0];", ValueError, "3: 4,102: brackets or signs are nested more"),
        (HEADER_2 + f"rx({'-' * 20000}1) q[0];", ValueError, "2: 4,103: brackets or signs are nested more than 100"),
        (HEADER_2 + f"rx({'2^' * 20000}1) q[0];", ValueError, "2: .* an expression has more than 1000 operators"),
        (HEADER_3 + f"rx({'1+' * 900}1) a[0];", ValueError, "3: .*(recursion|too deeply)"),
        (doubling("2", 60), ValueError, "2: 21,20: the gate g17 stands for more than the limit of 112300 gates"),
        (doubling("3", 60), ValueError, "3: 21,20: the gate g17 stands for more than the limit of 112300 gates"),
        (
            doubling("2", 17) + "g16 q[0];",
            ValueError,
            "2: 21,9: up to here these are more than the limit of 10\\d{4} gates",
        ),
        (
            "OPENQASM 2.0; qreg q[999]; " + "U(0,0,0) q; " * 5000,
            ValueError,
            "2: .*more than the limit of 4000000 gates",
        ),
        (
            HEADER_2
            + "".join(f"gate g{i} a {{ {f'g{i - 1}' if i else 'h'} a; }}\n" for i in range(200))
            + "g199 q[0];",
            ValueError,
            "2: .*definitions of gates are nested more than 100 deep",
        ),
    ],
)
def test_wrong_programs_say_where(program: str, exception: type[Exception], message: str) -> None:
    start = time.process_time()
    with pytest.raises(exception, match=f"^OpenQASM {message}"):
        kg.from_openqasm(program)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize("version", ["2", "3"])
def test_programs_within_the_limits_are_read(version: str) -> None:
    assert len(kg.from_openqasm(doubling(version, 11)).operations) == 1024 + 1  # an Identity
    header = HEADER_3 if version == "3" else HEADER_2.replace("q[", "a[")
    assert len(kg.from_openqasm(header + "h a[0];\n" * 2000).operations) == 2000 + 1


def test_only_the_standard_headers_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("secret.inc", "qelib1.inc", "stdgates.inc"):
        (tmp_path / name).write_text("password", encoding="utf-8")
    for name in ("secret.inc", "/etc/passwd", str(tmp_path / "secret.inc"), "../stdgates.inc"):
        for version, header in (("2.0", "qelib1.inc"), ("3.0", "stdgates.inc")):
            refusal = rf'^OpenQASM {version[0]}: 2,8: only "{header}" is included, which is built in'
            with pytest.raises(ValueError, match=refusal) as found:
                kg.from_openqasm(f'OPENQASM {version};\ninclude "{name}";')
            assert "password" not in str(found.value)
    for header in (HEADER_2 + "h q;", HEADER_3 + "h a;"):
        assert kg.from_openqasm(header).operations[0].name == "H"


def test_wrong_arguments() -> None:
    text = "OPENQASM 3.0; input float t; qubit q; U(t,0,0) q;"
    single: Any = kg.expval(kg.Z(0))
    with pytest.raises(TypeError, match=r"measurements must be a list; for one write \[expval\(Z\(0\)\)\]"):
        kg.from_openqasm(text, single, {"t": 0.1})
    with pytest.raises(ValueError, match=r"^OpenQASM 3: the parameter 't' is beyond the largest number in double"):
        kg.from_openqasm(text, parameters={"t": 10**400})


def test_files_that_are_no_text(tmp_path: Path) -> None:
    file = tmp_path / "circuit.qasm"
    file.write_bytes(b"OPENQASM 2.0;\xff")
    with pytest.raises(ValueError, match=r"^OpenQASM: the file .* is no text in UTF-8"):
        kg.from_openqasm(file)


def test_byte_order_mark(tmp_path: Path) -> None:
    file = tmp_path / "circuit.qasm"
    file.write_text(PROGRAM_2, encoding="utf-8-sig")
    for source in (file, "\ufeff" + PROGRAM_2):
        assert kg.from_openqasm(source).structure == kg.from_openqasm(PROGRAM_2).structure


@pytest.mark.parametrize(
    ("program", "version", "word"),
    [
        ('include "qelib1.inc"; qreg q[2]; h q[0];', "2", '"qelib1.inc"'),
        ("qreg q[2]; U(0,0,0) q[0];", "2", "qreg"),
        ('include "stdgates.inc"; qubit[2] q; h q[0];', "3", '"stdgates.inc"'),
        ('include "stdgates.inc"; qreg q[2]; h q[0];', "3", '"stdgates.inc"'),
        ("/* no header */ qubit q; U(0,0,0) q;", "3", "qubit"),
    ],
)
def test_programs_without_a_version(program: str, version: str, word: str) -> None:
    with pytest.warns(UserWarning, match=f"no version, and is read as OpenQASM {version} because of {word};") as found:
        tape = kg.from_openqasm(program)
    assert found[0].filename == __file__
    assert len(tape.operations[0].wires) == 1


@pytest.mark.parametrize("text", ["/* a */\n" * 1000 + "qreg q[1];", "/**/" * 1000 + "x", "//a*/" * 1000, "/*" * 1000])
@pytest.mark.filterwarnings("ignore:the program names no version")
def test_texts_of_comments_are_refused_at_once(text: str) -> None:
    seconds = []
    for _ in range(3):  # Python's garbage collection takes as long in a process that has run many tests
        start = time.process_time()
        with pytest.raises(ValueError, match=r"^OpenQASM"):
            kg.from_openqasm(text)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.1


@pytest.mark.parametrize("version", ["2", "3"])
def test_angles_of_defined_gates_go_by_their_place(version: str) -> None:
    """Qiskit's reader of version 3 takes them in the order of the alphabet."""
    header = HEADER_3.replace("] a", "] q") if version == "3" else HEADER_2
    text = header + "gate g(b, a, unused) t { rx(a) t; rz(b) t; } g(0.1, 0.2, 0.3) q[0];"
    assert kg.from_openqasm(text).parameters == (0.2, 0.1)


MUTANTS = [PROGRAM_2, PROGRAM_3, HEADER_2 + "creg c[2]; if(c==1) x q[0]; barrier q; u3(1,2,3) q[0];"]
PIECES = ["", ";", "(", ")", "[", "]", "{", "}", "0", "-1", "1e9", "/", "*", "q", "theta", "ctrl @ ", "$0", "\x00", ","]


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutants_are_read_or_refused(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(MUTANTS))
    for _ in range(data.draw(st.integers(1, 2))):
        start = data.draw(st.integers(0, len(text)))
        text = text[:start] + data.draw(st.sampled_from(PIECES)) + text[start + data.draw(st.integers(0, 4)) :]
    begin = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kg.from_openqasm(text, parameters={"theta": 0.1, "unused": 0.2} if "input" in text else None)
    except (ValueError, NotImplementedError) as error:
        assert str(error).startswith("OpenQASM")  # noqa: PT017
    assert time.process_time() - begin < 1.0
