"""Conversions between tapes and the circuits of other libraries, each in a module that imports its library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..circuit.measurements import Measurement
from ..circuit.tape import Tape
from ..compilation.front_ends import register

__all__ = ["from_openqasm", "from_qiskit"]

register("pennylane", f"{__name__}.pennylane.front_end")


def from_qiskit(
    circuit: Any,
    measurements: Iterable[Measurement] | None = None,
    parameters: Mapping[Any, Any] | None = None,
) -> Tape:
    r"""The tape of a Qiskit `QuantumCircuit`, with qubit i as wire i.

    Gates are converted to those of ketgrad, controlled gates with `ctrl`; other instructions are replaced by their
    `definition`. Global phases are kept. Barriers, delays, and resets of qubits on which no gate has acted are dropped.

    Qiskit's basis states are little-endian, ketgrad's big-endian: the amplitude of $|q_0 q_1\dots q_{n-1}\rangle$ has
    index $\sum_i q_i 2^{n-1-i}$ in `state()`, and index $\sum_i q_i 2^i$ in a Qiskit `Statevector`.

    Args:
        circuit: of gates, with state preparations and resets before any gate on their qubits, and measurements only
            at the end of a qubit.
        measurements: of the tape, instead of the circuit's. By default `probs` of the measured qubits, in the order of
            their classical bits, or `state()` if the circuit measures nothing.
        parameters: values of the circuit's unbound parameters, by `Parameter` or name: real numbers, or tensors `()` or
            `(B,)`, which get gradients through the expressions of the circuit. The value of a `ParameterVector`, or its
            name, is a tensor `(n,)` or `(B, n)`, or a sequence.

    Raises:
        ImportError: Qiskit is not installed.
        TypeError: the circuit is no `QuantumCircuit`, or a value is neither a real number nor a real tensor.
        ValueError: a parameter has no value or two, the circuit has no parameter of a name, a value has a wrong shape,
            or a measurement is of a wire that the circuit does not have.
        NotImplementedError: the circuit has mid-circuit measurements or resets, classical control, or an instruction
            without a definition.

    >>> import ketgrad as kg, torch
    >>> from qiskit import QuantumCircuit
    >>> from qiskit.circuit import Parameter
    >>> circuit = QuantumCircuit(2)
    >>> _ = circuit.ry(2 * Parameter("x"), 0)
    >>> _ = circuit.cx(0, 1)
    >>> x = torch.tensor(0.3, requires_grad=True)
    >>> tape = kg.from_qiskit(circuit, [kg.expval(kg.Z(1))], {"x": x})
    >>> print(tape)
    0: ──RY(0.60)──╭●──┤
    1: ────────────╰X──┤ ⟨Z⟩
    """
    from .qiskit import tape_from_qiskit

    return tape_from_qiskit(circuit, measurements, parameters)


def from_openqasm(
    source: str | Path,
    measurements: Iterable[Measurement] | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Tape:
    """The tape of an OpenQASM program, version 2 or 3, as Qiskit reads it.

    Args:
        source: the text of the program, or the `pathlib.Path` of a file. It should begin with its version, such as
            `OPENQASM 3.0;`; otherwise the version is inferred from its keywords, with a warning. The only file that it
            can include is the header of its version, stdgates.inc or qelib1.inc, which is built in. The limits are
            1,000 qubits, 1,000 classical bits, 4 million gates, of which 100,000 and 100 per statement may come from
            definitions of gates, and 100 levels of nested brackets or definitions.
        measurements: as in `from_qiskit`: by default `probs` of the measured qubits, or `state()`.
        parameters: values of the program's inputs (`input float theta;`), by name, as in `from_qiskit`.

    Raises:
        ImportError: Qiskit, or for version 3 qiskit-qasm3-import, is not installed.
        ValueError: the version is neither 2 nor 3, or missing and cannot be inferred; the program exceeds a limit,
            includes another file, or has an error (the message has the line or the statement); or as `from_qiskit`. The
            message begins with OpenQASM.
        NotImplementedError: the program has loops, or as `from_qiskit`. The message begins with OpenQASM.
        UserWarning: as a warning, the program does not begin with its version.

    >>> import ketgrad as kg
    >>> kg.from_openqasm('OPENQASM 2.0; include "qelib1.inc"; qreg q[2]; h q[0]; cx q[0], q[1];').operations
    (H(wires=[0]), CNOT(wires=[0, 1]))
    """
    from ._openqasm_scan import read

    text, version = read(source)  # before Qiskit is imported
    from .openqasm import tape_from_openqasm

    return tape_from_openqasm(text, version, measurements, parameters)


def __dir__() -> list[str]:
    return sorted(__all__)
