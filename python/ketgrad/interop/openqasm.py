"""Tapes from and to OpenQASM. Qiskit parses programs, and decomposes matrices.

Importing this module imports Qiskit.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ..circuit.measurements import Measurement
from ..circuit.tape import Tape
from ._expansion import Expander
from ._openqasm_scan import prefixed, statement_ends
from .qiskit import dense_operations, measured_wires, tape_from_qiskit, with_numbers

# isort: split
from qiskit import QuantumCircuit, qasm2

__all__ = ["tape_from_openqasm", "tape_to_openqasm"]


# ---------------------------------------------------------------------------------------------------------------------
# From OpenQASM


def tape_from_openqasm(
    text: str,
    version: str,
    measurements: Iterable[Measurement] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Tape:
    """The tape of a program of version "2" or "3" that `read` has checked: see `ketgrad.from_openqasm`."""
    with _refusals(version):
        return tape_from_qiskit(_PARSERS[version](text), measurements, parameters)


@contextmanager
def _refusals(version: str) -> Iterator[None]:
    """Convert all errors of a program to ValueError or NotImplementedError with the prefix of its version."""
    try:
        yield
    except (ImportError, MemoryError, TypeError, Warning):
        raise  # TypeErrors are those of the arguments: errors of the parsers are ValueErrors by now.
    except NotImplementedError as error:
        raise NotImplementedError(prefixed(version, error)) from error
    except Exception as error:
        raise ValueError(prefixed(version, error)) from error


def _parsed2(text: str) -> QuantumCircuit:
    try:
        return _load2(text)
    except qasm2.QASM2ParseError as error:
        raise ValueError(str(error.message).removeprefix("<input>:")) from error
    except Exception as error:
        raise ValueError(f"{_first_wrong_statement(text)}: {error}") from error


def _load2(text: str) -> QuantumCircuit:
    """As lenient as `QuantumCircuit.from_qasm_str`, for which most programs are written, but without reading files."""
    return qasm2.loads(
        text,
        include_path=(),
        custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS,
        custom_classical=qasm2.LEGACY_CUSTOM_CLASSICAL,
        strict=False,
    )


def _first_wrong_statement(text: str) -> str:
    """The first statement that fails, found by bisection, for errors without a position."""

    def fails(end: int) -> bool:
        try:
            _load2(text[:end])
        except Exception:
            return True
        return False

    ends = statement_ends(text)
    index = bisect_left(ends, True, key=fails)
    statement = text[[0, *ends][index] : [*ends, len(text)][index]].strip()
    return f"in the statement {statement[:50]!r}"


def _parsed3(text: str) -> QuantumCircuit:
    try:
        from ._openqasm3 import parse
    except ImportError as error:
        hint = 'pip install "ketgrad[qiskit]"'
        raise ImportError(f"Qiskit reads OpenQASM 3 with qiskit-qasm3-import ({error}); install it: {hint}") from error
    try:
        return parse(text)
    except RecursionError:
        raise ValueError("an expression or a block is nested too deeply") from None
    except (ValueError, NotImplementedError):
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


_PARSERS: dict[str, Callable[[str], QuantumCircuit]] = {"2": _parsed2, "3": _parsed3}


# ---------------------------------------------------------------------------------------------------------------------
# To OpenQASM

# Gates that all readers define alike, in version 2 up to a global phase. Not used are u2 and u3 of stdgates.inc, whose
# global phases differ from Qiskit's, and of qelib1.inc cu3, which has two definitions, and gates that were added later.
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


def tape_to_openqasm(tape: Tape, version: Any = "3.0", precision: Any = None) -> str:
    """The text of a tape: see `Tape.to_openqasm`."""
    if not isinstance(version, str) or version not in _NAMES:
        raise ValueError(f"version must be a string, one of {', '.join(map(repr, _NAMES))}, not {version!r}")
    if precision is not None and (not isinstance(precision, int) or precision < 1):
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


# Global phases up to this are rounding errors of phases that cancel.
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
    """The shortest text that reads back as the same number, or one with `precision` significant digits."""
    text = repr(value if precision is None else float(f"{value:.{precision}g}"))
    mantissa, e, exponent = text.partition("e")
    # OpenQASM 2 requires a decimal point in real numbers.
    return text if not e or "." in mantissa else f"{mantissa}.0e{exponent}"
