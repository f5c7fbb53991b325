"""Tapes from and to OpenQASM, through Qiskit's parsers and its decompositions.

Importing this module imports Qiskit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..measurements import Measurement
from ..tape import Tape
from .qiskit import tape_from_qiskit, tape_to_qiskit  # first: it says how to install Qiskit where it is missing

# isort: split
from qiskit import QuantumCircuit, generate_preset_pass_manager, qasm2, qasm3

__all__ = ["tape_from_openqasm", "tape_to_openqasm"]


# ---------------------------------------------------------------------------------------------------------------------
# From OpenQASM


def tape_from_openqasm(
    source: str | Path,
    measurements: Iterable[Measurement] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Tape:
    """The tape of a program: see `ketgrad.from_openqasm`."""
    text = source.read_text(encoding="utf-8") if isinstance(source, Path) else source
    if not isinstance(text, str):
        raise TypeError(f"an OpenQASM program is a string or the pathlib.Path of a file, not {type(source).__name__}")
    return tape_from_qiskit(_PARSERS[_version(text)](text), measurements, parameters)


def _version(text: str) -> str:
    header = re.match(r"(?:\s|//.*|/\*[\s\S]*?\*/)*OPENQASM\s+(\d+(?:\.\d+)?)\s*;", text)
    if header is None:
        raise ValueError("the program must begin with its version, such as OPENQASM 3.0; (a file is given as a Path)")
    major = header[1].split(".")[0]
    if major not in _PARSERS:
        raise ValueError(f"OpenQASM {header[1]} is not supported, only versions 2 and 3")
    return major


def _parsed2(text: str) -> QuantumCircuit:
    try:
        # As lenient as Qiskit has always been, which is what most programs were written for.
        return QuantumCircuit.from_qasm_str(text)
    except qasm2.QASM2ParseError as error:
        raise ValueError(f"OpenQASM 2: {error.message}") from error


def _parsed3(text: str) -> QuantumCircuit:
    try:
        import qiskit_qasm3_import  # noqa: F401  (what qasm3.loads needs)
        from openqasm3.parser import QASM3ParsingError
    except ImportError as error:
        hint = 'pip install "ketgrad[qiskit]"'
        raise ImportError(f"Qiskit reads OpenQASM 3 with qiskit-qasm3-import ({error}); install it: {hint}") from error
    try:
        return qasm3.loads(text)
    except qasm3.QASM3ImporterError as error:
        raise ValueError(f"OpenQASM 3: {error.message}") from error
    except QASM3ParsingError as error:
        raise ValueError(f"OpenQASM 3: {str(error) or _unexpected(error)}") from error


def _unexpected(error: Exception) -> str:
    """Where the parser gave up, of an error that does not say it."""
    causes = error.__cause__.args if error.__cause__ else ()
    token = getattr(causes[0], "offendingToken", None) if causes else None
    return "the syntax is wrong" if token is None else f"{token.line},{token.column}: unexpected {token.text!r}"


_PARSERS: dict[str, Callable[[str], QuantumCircuit]] = {"2": _parsed2, "3": _parsed3}


# ---------------------------------------------------------------------------------------------------------------------
# To OpenQASM

# Gates that mean the same, up to a global phase in version 2, to every reader. Left out of stdgates.inc are u2 and u3,
# whose global phases are not those of Qiskit, and of qelib1.inc cu3, of which there are two, and what came later.
_LIBRARIES = {
    "2.0": "u1 u2 u3 id x y z h s sdg t tdg rx ry rz cx cy cz ch ccx crz cu1",
    "3.0": "p id x y z h s sdg t tdg sx rx ry rz cx cy cz cp crx cry crz ch swap ccx cswap",
}
_GATES = {version: names.split() for version, names in _LIBRARIES.items()}
_MEASURE = {"2.0": "measure {} -> {};", "3.0": "{1} = measure {0};"}


def tape_to_openqasm(tape: Tape, version: str = "3.0", precision: int | None = None) -> str:
    """The text of a tape: see `Tape.to_openqasm`."""
    if version not in _GATES:
        raise ValueError(f"version must be one of {', '.join(map(repr, _GATES))}, not {version!r}")
    if precision is not None and precision < 1:
        raise ValueError(f"precision is a number of significant digits, 1 or more, or None, not {precision!r}")
    circuit = tape_to_qiskit(tape)
    lines: list[str] = []
    phase = 0.0
    for each in circuit.data:
        qubits = [f"q[{circuit.find_bit(qubit).index}]" for qubit in each.qubits]
        bits = [f"c[{circuit.find_bit(bit).index}]" for bit in each.clbits]
        if bits:
            lines.append(_MEASURE[version].format(*qubits, *bits))
            continue
        expanded = _expanded(each.operation, version)
        phase += expanded.global_phase
        for part in expanded.data:
            own = [qubits[expanded.find_bit(qubit).index] for qubit in part.qubits]
            lines.append(_statement(part.operation, own, precision))
    phase = math.remainder(phase, 2 * math.pi)
    if version == "3.0" and abs(phase) > _ROUNDING:
        lines.insert(0, f"gphase({_number(phase, precision)});")
    return "\n".join([*_header(circuit, version), *lines, ""])


# What sums of phases that cancel leave.
_ROUNDING = 1e-14


def _header(circuit: QuantumCircuit, version: str) -> list[str]:
    library, qubit, bit = ("qelib1.inc", "qreg q[{}]", "creg c[{}]")
    if version == "3.0":
        library, qubit, bit = ("stdgates.inc", "qubit[{}] q", "bit[{}] c")
    lines = [f"OPENQASM {version};", f'include "{library}";', qubit.format(circuit.num_qubits) + ";"]
    return [*lines, bit.format(circuit.num_clbits) + ";"] if circuit.num_clbits else lines


def _expanded(op: Any, version: str) -> QuantumCircuit:
    """The operation in gates of the library: one by one, so that the text follows the tape."""
    circuit = QuantumCircuit(op.num_qubits)
    if op.name == "global_phase":
        circuit.global_phase = op.params[0]
        return circuit
    circuit.append(op, range(op.num_qubits))
    return circuit if op.name in _GATES[version] else _expander(version).run(circuit)


@cache
def _expander(version: str) -> Any:
    return generate_preset_pass_manager(optimization_level=0, basis_gates=_GATES[version])


def _statement(op: Any, qubits: list[str], precision: int | None) -> str:
    angles = ", ".join(_number(float(angle), precision) for angle in op.params)
    return f"{op.name}{f'({angles})' if angles else ''} {', '.join(qubits)};"


def _number(value: float, precision: int | None) -> str:
    """As short as it can be for the number to come back the same, or with so many significant digits."""
    text = repr(value if precision is None else float(f"{value:.{precision}g}"))
    mantissa, e, exponent = text.partition("e")
    # OpenQASM 2 wants a point in every real number.
    return text if not e or "." in mantissa else f"{mantissa}.0e{exponent}"
