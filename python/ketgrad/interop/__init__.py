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

    A gate that ketgrad has becomes that gate, a controlled gate the `ctrl` of it; any other instruction stands for its
    `definition`. Global phases are kept. Barriers and delays do nothing here and are left out, and so is a reset of a
    qubit on which nothing has acted yet.

    Qiskit prints bits from the last qubit to the first, ketgrad from the first to the last: the amplitude of
    $|q_0 q_1\dots q_{n-1}\rangle$ is number $\sum_i q_i 2^{n-1-i}$ of `state()`, and number $\sum_i q_i 2^i$ of a
    Qiskit `Statevector`.

    Args:
        circuit: of gates, with state preparations and resets before anything else acts on their qubits, and
            measurements only where nothing follows on the qubit.
        measurements: of the tape, in place of those of the circuit. By default `probs` of the measured qubits in the
            order of their classical bits, bit 0 first, or `state()` where the circuit measures nothing.
        parameters: values of the circuit's unbound parameters, by `Parameter` or by name: real numbers, and tensors
            `()` or `(B,)`, to which gradients flow through the expressions of the circuit. A `ParameterVector`, or its
            name, takes all its entries at once: a tensor `(n,)` or `(B, n)`, or a sequence.

    Raises:
        ImportError: Qiskit is not installed.
        TypeError: the circuit is no `QuantumCircuit`, or a value is neither a real number nor a real tensor.
        ValueError: a parameter has no value or two, a name is none of the circuit's, a value has a wrong shape, or a
            measurement is of a wire beyond the circuit.
        NotImplementedError: a measurement or reset in the middle of the circuit, classical control, or an instruction
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
        source: the text of the program, or the `pathlib.Path` of a file. It should name its version: `OPENQASM 3.0;`.
            One that does not is read as what its words tell, with a warning. The only file that it can include is the
            header of its version, stdgates.inc or qelib1.inc, which is built in. At most 1,000 qubits, 1,000 classical
            bits and 4 million gates, of which definitions may make 100,000 and 100 more for each statement; brackets
            and definitions up to 100 deep.
        measurements: as in `from_qiskit`: by default `probs` of the measured qubits, or `state()`.
        parameters: values of the program's inputs (`input float theta;`), by name, as in `from_qiskit`.

    Raises:
        ImportError: Qiskit, or for version 3 qiskit-qasm3-import, is not installed.
        ValueError: the program has no version and nothing that tells it, or one that is neither 2 nor 3; it is beyond
            the limits or includes another file; it cannot be read, with the line or the statement; whatever
            `from_qiskit` refuses. The message begins with OpenQASM.
        NotImplementedError: loops, and see `from_qiskit`. The message begins with OpenQASM.
        UserWarning: as a warning, the program does not name its version.

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
