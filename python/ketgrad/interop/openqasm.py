"""Tapes from and to OpenQASM; Qiskit parses, and decomposes matrices.

Importing this module imports Qiskit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..measurements import Measurement
from ..tape import Tape
from ._expansion import Expander
from .qiskit import (  # first: it says how to install Qiskit where it is missing
    dense_operations,
    measured_wires,
    tape_from_qiskit,
    with_numbers,
)

# isort: split
from qiskit import QuantumCircuit, qasm2, qasm3

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
_NAMES_IN_BOTH = {
    ("Identity", 0, False): "id",
    ("X", 0, False): "x",
    ("Y", 0, False): "y",
    ("Z", 0, False): "z",
    ("H", 0, False): "h",
    ("S", 0, False): "s",
    ("S", 0, True): "sdg",
    ("T", 0, False): "t",
    ("T", 0, True): "tdg",
    ("RX", 0, False): "rx",
    ("RY", 0, False): "ry",
    ("RZ", 0, False): "rz",
    ("X", 1, False): "cx",
    ("Y", 1, False): "cy",
    ("Z", 1, False): "cz",
    ("H", 1, False): "ch",
    ("RZ", 1, False): "crz",
    ("X", 2, False): "ccx",
}
_NAMES = {
    "2.0": {
        **_NAMES_IN_BOTH,
        ("PhaseShift", 0, False): "u1",
        ("U1", 0, False): "u1",
        ("U2", 0, False): "u2",
        ("U3", 0, False): "u3",
        ("PhaseShift", 1, False): "cu1",
    },
    "3.0": {
        **_NAMES_IN_BOTH,
        ("PhaseShift", 0, False): "p",
        ("U1", 0, False): "p",
        ("SX", 0, False): "sx",
        ("RX", 1, False): "crx",
        ("RY", 1, False): "cry",
        ("PhaseShift", 1, False): "cp",
        ("SWAP", 0, False): "swap",
        ("SWAP", 1, False): "cswap",
    },
}
_MEASURE = {"2.0": "measure {} -> {};", "3.0": "{1} = measure {0};"}


def tape_to_openqasm(tape: Tape, version: str = "3.0", precision: int | None = None) -> str:
    """The text of a tape: see `Tape.to_openqasm`."""
    if version not in _NAMES:
        raise ValueError(f"version must be one of {', '.join(map(repr, _NAMES))}, not {version!r}")
    if precision is not None and precision < 1:
        raise ValueError(f"precision is a number of significant digits, 1 or more, or None, not {precision!r}")
    qubits = {wire: f"q[{index}]" for index, wire in enumerate(tape.wires)}
    expander = Expander(_NAMES[version], dense_operations)
    lines: list[str] = []
    phase = 0.0
    for op in tape.operations:
        for gate in expander.gates(with_numbers(op)):
            if gate.name:
                lines.append(_statement(gate.name, gate.angles, [qubits[wire] for wire in gate.wires], precision))
            else:
                phase += gate.angles[0]
    phase = math.remainder(phase, 2 * math.pi)
    if version == "3.0" and abs(phase) > _ROUNDING:
        lines.insert(0, f"gphase({_number(phase, precision)});")
    measured = measured_wires(tape)
    lines += [_MEASURE[version].format(qubits[wire], f"c[{bit}]") for bit, wire in enumerate(measured)]
    return "\n".join([*_header(len(qubits), len(measured), version), *lines, ""])


# What sums of phases that cancel leave.
_ROUNDING = 1e-14


def _header(qubits: int, bits: int, version: str) -> list[str]:
    if version == "3.0":
        lines = ['include "stdgates.inc";', f"qubit[{qubits}] q;", f"bit[{bits}] c;"]
    else:
        lines = ['include "qelib1.inc";', f"qreg q[{qubits}];", f"creg c[{bits}];"]
    return [f"OPENQASM {version};", *lines[: 3 if bits else 2]]


def _statement(name: str, angles: Sequence[float], qubits: Sequence[str], precision: int | None) -> str:
    numbers = ", ".join(_number(angle, precision) for angle in angles)
    return f"{name}{f'({numbers})' if numbers else ''} {', '.join(qubits)};"


def _number(value: float, precision: int | None) -> str:
    """As short as it can be for the number to come back the same, or with so many significant digits."""
    text = repr(value if precision is None else float(f"{value:.{precision}g}"))
    mantissa, e, exponent = text.partition("e")
    # OpenQASM 2 wants a point in every real number.
    return text if not e or "." in mantissa else f"{mantissa}.0e{exponent}"
