"""Tapes from and to Qiskit's circuits, and Hamiltonians from its operators.

Qubit i is wire i. Indices of basis states differ: here the first wire is the most significant bit, in Qiskit the last
qubit. Matrices, diagonals and states are therefore converted with their wires reversed.

Importing this module imports Qiskit.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, reduce
from typing import Any, NoReturn

import numpy as np
import sympy  # a dependency of torch
import torch
from torch import Tensor

from ..circuit.measurements import Measurement, probs, state
from ..circuit.observables import Hamiltonian
from ..circuit.operations import (
    CCZ,
    CH,
    CNOT,
    CRX,
    CRY,
    CRZ,
    CSWAP,
    CY,
    CZ,
    ISWAP,
    RX,
    RY,
    RZ,
    SWAP,
    SX,
    U1,
    U2,
    U3,
    ControlledPhaseShift,
    DiagonalQubitUnitary,
    GlobalPhase,
    H,
    Identity,
    IsingXX,
    IsingYY,
    IsingZZ,
    Operation,
    PauliRot,
    PhaseShift,
    QubitUnitary,
    S,
    StatePrep,
    T,
    Toffoli,
    X,
    Y,
    Z,
    adjoint,
    ctrl,
)
from ..circuit.parsing import place, restore
from ..circuit.tape import Tape
from ..circuit.types import Array, Wire
from ._expansion import DENSE, conjugated
from ._pauli_sums import hamiltonian

try:
    from qiskit import QuantumCircuit, generate_preset_pass_manager
    from qiskit.circuit import (
        AnnotatedOperation,
        Barrier,
        BoxOp,
        ControlFlowOp,
        ControlledGate,
        Delay,
        Gate,
        Measure,
        ParameterExpression,
        Reset,
    )
    from qiskit.circuit import library as lib
    from qiskit.circuit.annotated_operation import ControlModifier, InverseModifier
    from qiskit.circuit.parametervector import ParameterVectorElement
    from qiskit.quantum_info import Pauli, SparsePauliOp
    from qiskit.synthesis import synth_permutation_basic
except ImportError as error:
    raise ImportError(f'Qiskit cannot be imported ({error}); install it: pip install "ketgrad[qiskit]"') from error

__all__ = ["hamiltonian_from_qiskit", "tape_from_qiskit", "tape_to_qiskit"]


# ---------------------------------------------------------------------------------------------------------------------
# From Qiskit


def tape_from_qiskit(
    circuit: QuantumCircuit,
    measurements: Iterable[Measurement] | None = None,
    parameters: Mapping[Any, Any] | None = None,
) -> Tape:
    """The tape of a circuit: see `ketgrad.from_qiskit`."""
    if not isinstance(circuit, QuantumCircuit):
        hint = "; Hamiltonian.from_qiskit takes operators" if isinstance(circuit, SparsePauliOp) else ""
        raise TypeError(f"expected a QuantumCircuit of Qiskit, not {type(circuit).__name__}{hint}")
    if isinstance(measurements, Measurement):
        raise TypeError(f"measurements must be a list; for one write [{measurements!r}]")
    reader = _CircuitReader(_Values(circuit, {} if parameters is None else parameters))
    reader.read(circuit, range(circuit.num_qubits), range(circuit.num_clbits))
    found = reader.default_measurements() if measurements is None else tuple(measurements)
    return Tape([*reader.operations, *_idle(circuit, reader.operations, found)], found)


def _idle(
    circuit: QuantumCircuit, operations: Sequence[Operation], measurements: Sequence[Measurement]
) -> list[Operation]:
    """An `Identity` on the qubits without a gate, if a measurement is of all wires."""
    qubits = range(circuit.num_qubits)
    of_all = False
    for measurement in measurements:
        if isinstance(measurement, Measurement):  # `Tape` refuses others
            of_all = of_all or (measurement.observable is None and not measurement.wires)
            beyond = [wire for wire in measurement.wires if wire not in qubits]
            if beyond:
                where = place(measurement.kind, measurement.wires)
                raise ValueError(f"{where}: the circuit has no qubit {beyond[0]!r}, it has {len(qubits)}, from 0")
    used = {wire for op in operations for wire in op.wires}
    idle = [qubit for qubit in qubits if qubit not in used]
    return [Identity(idle)] if of_all and idle else []


# ---- parameters


class _Values:
    """The values of a circuit's parameters, and of expressions of them."""

    def __init__(self, circuit: QuantumCircuit, given: Mapping[Any, Any]) -> None:
        self._known = _assigned(circuit, given)
        # Equal expressions in several gates are one tensor, and one parameter of the program.
        self._evaluated: dict[Any, Any] = {}

    def __call__(self, value: Any) -> Any:
        """The value of an expression; numbers, matrices and labels are returned as they are."""
        if not isinstance(value, ParameterExpression):
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"an angle is {value}; angles must be finite")
            return value
        if value not in self._evaluated:
            # Negated, because for an expression that simplifies to one of its parameters, such as a - a + b, Qiskit 2.6
            # may return another of them.
            self._evaluated[value] = self._walk(-sympy.sympify((-value).sympify()))
        return self._evaluated[value]

    def _walk(self, node: sympy.Basic) -> Any:
        if node.is_Symbol:
            if node.name not in self._known:
                _refuse_missing([node.name])
            return self._known[node.name]
        if node.is_Atom:
            return _real(node)
        arguments = [self._walk(each) for each in node.args]
        if not any(isinstance(each, Tensor) for each in arguments):
            return _real(node.func(*arguments))
        function = _FUNCTIONS.get(node.func)
        if function is None:
            raise NotImplementedError(f"the function {node.func.__name__} of a parameter is not supported")
        return function(*arguments)


def _real(number: sympy.Basic) -> float:
    try:
        return float(number)
    except TypeError:
        raise ValueError(f"an expression of the circuit's parameters is not real, but contains {number}") from None


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    sympy.Add: lambda *terms: reduce(operator.add, terms),
    sympy.Mul: lambda *factors: reduce(operator.mul, factors),
    sympy.Pow: operator.pow,
    sympy.exp: torch.exp,
    sympy.log: torch.log,
    sympy.sin: torch.sin,
    sympy.cos: torch.cos,
    sympy.tan: torch.tan,
    sympy.asin: torch.asin,
    sympy.acos: torch.acos,
    sympy.atan: torch.atan,
    sympy.Abs: torch.abs,
    sympy.sign: torch.sign,
    sympy.conjugate: lambda real: real,
}


def _assigned(circuit: QuantumCircuit, given: Mapping[Any, Any]) -> dict[str, Any]:
    """The value of each of the circuit's parameters, by name."""
    if not isinstance(given, Mapping):
        raise TypeError(f"parameters must be a mapping from names to values, not {type(given).__name__}")
    needed = [each.name for each in circuit.parameters]
    found: dict[str, Any] = {}
    for key, value in given.items():
        for name, own in _entries(circuit, key, value).items():
            if name in found:
                raise ValueError(f"the parameter {name!r} is given twice")
            found[name] = _checked(name, own)
    missing = [name for name in needed if name not in found]
    if missing:
        _refuse_missing(missing)
    return found


def _entries(circuit: QuantumCircuit, key: Any, value: Any) -> dict[str, Any]:
    """The values of the parameters that a key names: one parameter, or those of a vector."""
    name = str(key if isinstance(key, str) else getattr(key, "name", key))
    if any(each.name == name for each in circuit.parameters):
        return {name: value}
    of_vectors = [each for each in circuit.parameters if isinstance(each, ParameterVectorElement)]
    elements = [each for each in of_vectors if each.vector.name == name]
    if not elements:
        known = ", ".join(repr(each.name) for each in circuit.parameters) or "none"
        raise ValueError(f"the circuit has no parameter {name!r}; its parameters are: {known}")
    column = _columns(elements[0].vector, value)
    return {each.name: column(each.index) for each in elements}


def _columns(vector: Any, value: Any) -> Callable[[int], Any]:
    count = len(vector)
    if isinstance(value, Tensor):
        if value.dim() not in (1, 2) or value.shape[-1] != count:
            shape = tuple(value.shape)
            raise ValueError(f"the vector {vector.name!r} must have shape ({count},) or (B, {count}), not {shape}")
        return lambda index: value[..., index]
    if not isinstance(value, (Sequence, np.ndarray)) or len(value) != count:
        raise ValueError(f"the vector {vector.name!r} takes a tensor ({count},) or (B, {count}), or {count} values")
    return lambda index: value[index]


def _checked(name: str, value: Any) -> Any:
    if isinstance(value, numbers.Real):
        try:
            return float(value)
        except OverflowError:
            raise ValueError(f"the parameter {name!r} is beyond the largest number in double precision") from None
    if isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iuf":
        return float(value)
    if not isinstance(value, Tensor) or value.is_complex():
        found = f"a tensor of {value.dtype}" if isinstance(value, Tensor) else f"{value!r} of {type(value).__name__}"
        raise TypeError(f"the parameter {name!r} must be a real number or a real tensor, not {found}")
    if value.dim() > 1:
        shape = tuple(value.shape)
        raise ValueError(f"the parameter {name!r} must be a scalar () or a batch (B,), not of shape {shape}")
    return value


def _refuse_missing(names: Sequence[str]) -> NoReturn:
    listed = ", ".join(map(repr, names))
    raise ValueError(f"the circuit's parameters need values, and these have none: {listed}; give parameters={{…}}")


# ---- instructions

_DEFER = "pennylane.from_qiskit converts such circuits, and pennylane.defer_measurements moves measurements to the end"
_HINTS = {"for_loop": "unroll it first, as qiskit.transpiler.passes.UnrollForLoops does"}


class _CircuitReader:
    """Collects the operations of a circuit and of its definitions.

    Attributes:
        operations: those found so far.
        touched: the qubits on which an operation has acted.
        measured: for each classical bit the qubit that is measured into it.
    """

    def __init__(self, values: _Values, touched: Iterable[int] = ()) -> None:
        self.values = values
        self.operations: list[Operation] = []
        self.touched = set(touched)
        self.measured: dict[int, int] = {}

    def read(self, circuit: QuantumCircuit, qubits: Sequence[int], clbits: Sequence[int]) -> None:
        """Add a circuit on the given qubits and classical bits of the whole circuit."""
        for each in circuit.data:
            own = [qubits[circuit.find_bit(qubit).index] for qubit in each.qubits]
            bits = [clbits[circuit.find_bit(bit).index] for bit in each.clbits]
            self.add(each.operation, own, bits)
        phase = self.values(circuit.global_phase)
        if isinstance(phase, Tensor) or phase:
            self.operations.append(GlobalPhase(-phase))

    def default_measurements(self) -> tuple[Measurement, ...]:
        if not self.measured:
            return (state(),)
        return (probs(wires=[self.measured[bit] for bit in sorted(self.measured)]),)

    def add(self, op: Any, qubits: list[int], clbits: list[int]) -> None:
        # Gates without parameters are of private singleton classes.
        kind = getattr(op, "base_class", type(op))
        if kind in (Barrier, Delay):
            return
        self._require_possible(op, kind, qubits)
        if kind is Measure:
            self._measure(op, qubits[0], clbits[0])
        elif kind is not Reset:
            self._apply(op, kind, qubits, clbits)
            self.touched.update(qubits)

    def _require_possible(self, op: Any, kind: type, qubits: list[int]) -> None:
        measured = [qubit for qubit in qubits if qubit in self.measured.values()]
        if measured:
            _refuse(
                op, qubits, f"qubit {measured[0]} is measured before; only final measurements are supported", _DEFER
            )
        touched = [qubit for qubit in qubits if qubit in self.touched]
        if touched and kind in (Reset, lib.Initialize):
            _refuse(op, qubits, f"qubit {touched[0]} has had a gate; resets in the middle are not supported", _DEFER)
        if isinstance(op, ControlFlowOp) and kind is not BoxOp:
            _refuse(op, qubits, "classical control is not supported", _HINTS.get(op.name, _DEFER))

    def _measure(self, op: Any, qubit: int, clbit: int) -> None:
        if clbit in self.measured:
            held = f"classical bit {clbit} already holds the outcome of qubit {self.measured[clbit]}"
            _refuse(op, [qubit], held, "measure into another bit")
        self.measured[clbit] = qubit

    def _apply(self, op: Any, kind: type, qubits: list[int], clbits: list[int]) -> None:
        if kind is lib.StatePreparation and self._prepares(op, qubits):
            # No operation has acted on its qubits, so it can be the first operation, as a tape requires.
            self.operations.insert(0, StatePrep(np.array(op.params), wires=qubits[::-1]))
        elif kind in _GATES and _is_plain(op):
            self.operations.append(_GATES[kind](*map(self.values, op.params), wires=qubits))
        elif isinstance(op, ControlledGate) and len(qubits) == op.num_ctrl_qubits + op.base_gate.num_qubits:
            self.operations += self._controlled(op, qubits)
        elif isinstance(op, AnnotatedOperation):
            self.operations += self._annotated(op, op.modifiers, qubits)
        elif (definition := _definition(op)) is not None:
            self.read(definition, qubits, clbits)
        else:
            _refuse(
                op, qubits, "it has no definition", "leave it out, or apply qiskit.transpile with basis_gates first"
            )

    def _prepares(self, op: Any, qubits: list[int]) -> bool:
        """Whether this is a state vector for qubits in |0⟩, and the tape has no preparation yet.

        Otherwise its definition is used, which consists of gates.
        """
        is_vector = len(op.params) == 1 << len(qubits) and op.name == "state_preparation"
        is_first = not any(each.is_preparation for each in self.operations[:1])
        return is_vector and is_first and self.touched.isdisjoint(qubits)

    def _controlled(self, op: Any, qubits: list[int]) -> Iterator[Operation]:
        base, parameters = op.base_gate, op.params
        extra: list[Operation] = []
        if len(parameters) == 4 and isinstance(base, lib.UGate):
            # CUGate has a fourth parameter, a controlled phase that is no part of the base gate.
            base, extra = lib.UGate(*parameters[:3]), [GlobalPhase(-self.values(parameters[3]))]
        count = op.num_ctrl_qubits
        for each in [*self._inner(base, qubits[count:]), *extra]:
            yield ctrl(each, qubits[:count], _bits(op.ctrl_state, count))

    def _annotated(self, op: Any, modifiers: Sequence[Any], qubits: list[int]) -> list[Operation]:
        """The base operation with its modifiers, the last of them outermost."""
        if not modifiers:
            return self._inner(op.base_op, qubits)
        *rest, modifier = modifiers
        if isinstance(modifier, ControlModifier):
            count = modifier.num_ctrl_qubits
            values = _bits(modifier.ctrl_state, count)
            return [ctrl(each, qubits[:count], values) for each in self._annotated(op, rest, qubits[count:])]
        if isinstance(modifier, InverseModifier):
            return [adjoint(each) for each in reversed(self._annotated(op, rest, qubits))]
        _refuse(op, qubits, f"{modifier} is not supported", "apply qiskit.transpile with basis_gates first")

    def _inner(self, op: Any, qubits: list[int]) -> list[Operation]:
        """The operations of an instruction, read separately."""
        reader = _CircuitReader(self.values, qubits)
        reader.add(op, qubits, [])
        return reader.operations


def _definition(op: Any) -> QuantumCircuit | None:
    if isinstance(op, BoxOp):
        return op.body
    # The only gate of Qiskit's library whose definition is left to the transpiler.
    if isinstance(op, lib.PermutationGate):
        return synth_permutation_basic(op.pattern)
    try:
        return getattr(op, "definition", None)
    except Exception as error:  # definitions are computed on access, from what a program contains
        raise ValueError(f"the definition of the gate {op.name} is wrong: {error}") from error


def _bits(state: int, count: int) -> list[int]:
    """The control values, the first control being the lowest bit."""
    return [state >> index & 1 for index in range(count)]


def _is_plain(op: Any) -> bool:
    """Whether every control is on 1."""
    return not isinstance(op, ControlledGate) or op.ctrl_state == (1 << op.num_ctrl_qubits) - 1


def _refuse(op: Any, qubits: Sequence[int], reason: str, hint: str) -> NoReturn:
    where = f"qubit {qubits[0]}" if len(qubits) == 1 else f"qubits {list(qubits)}"
    raise NotImplementedError(f"{op.name} on {where}: {reason}; {hint}")


_GATES: dict[type, Callable[..., Operation]] = {
    lib.IGate: Identity,
    lib.XGate: X,
    lib.YGate: Y,
    lib.ZGate: Z,
    lib.HGate: H,
    lib.SGate: S,
    lib.TGate: T,
    lib.SXGate: SX,
    lib.SdgGate: lambda wires: adjoint(S(wires)),
    lib.TdgGate: lambda wires: adjoint(T(wires)),
    lib.SXdgGate: lambda wires: adjoint(SX(wires)),
    lib.RXGate: RX,
    lib.RYGate: RY,
    lib.RZGate: RZ,
    lib.PhaseGate: PhaseShift,
    lib.U1Gate: U1,
    lib.U2Gate: U2,
    lib.U3Gate: U3,
    lib.UGate: U3,
    lib.CXGate: CNOT,
    lib.CYGate: CY,
    lib.CZGate: CZ,
    lib.CHGate: CH,
    lib.CRXGate: CRX,
    lib.CRYGate: CRY,
    lib.CRZGate: CRZ,
    lib.CPhaseGate: ControlledPhaseShift,
    lib.CU1Gate: ControlledPhaseShift,
    lib.SwapGate: SWAP,
    lib.iSwapGate: ISWAP,
    lib.CCXGate: Toffoli,
    lib.CCZGate: CCZ,
    lib.CSwapGate: CSWAP,
    lib.RXXGate: IsingXX,
    lib.RYYGate: IsingYY,
    lib.RZZGate: IsingZZ,
    lib.RZXGate: lambda angle, wires: PauliRot(angle, "ZX", wires),
    lib.GlobalPhaseGate: lambda angle, wires: GlobalPhase(-angle),
    lib.UnitaryGate: lambda matrix, wires: QubitUnitary(matrix, wires[::-1]),
    lib.DiagonalGate: lambda *diagonal, wires: DiagonalQubitUnitary(np.array(diagonal), wires[::-1]),
}


# ---- operators


def hamiltonian_from_qiskit(
    op: SparsePauliOp, coefficients: Sequence[Any] | Array | Tensor | None = None
) -> Hamiltonian:
    """The Hamiltonian of a `SparsePauliOp`: see `Hamiltonian.from_qiskit`."""
    if not isinstance(op, SparsePauliOp):
        hint = "SparsePauliOp(op) makes one of a Pauli, SparsePauliOp.from_operator of a matrix"
        raise TypeError(f"expected a SparsePauliOp of Qiskit, not {type(op).__name__}; {hint}")
    terms = op.to_sparse_list()
    pauli_words = [tuple(zip(wires, letters, strict=True)) for letters, wires, _ in terms]
    return hamiltonian(pauli_words, [own for _, _, own in terms], coefficients)


# ---------------------------------------------------------------------------------------------------------------------
# To Qiskit


def tape_to_qiskit(tape: Tape) -> QuantumCircuit:
    """The operations of a tape as a Qiskit circuit, with wire i of the tape as qubit i.

    Tensors are written as their values. Qiskit tolerates smaller rounding errors of matrices, diagonals and states than
    ketgrad, so they are replaced by the nearest ones that are unitary or of norm 1. Wires that `probs`, `sample` or
    `counts` measure are measured into classical bits, in order; other measurements have no counterpart in a circuit.

    Raises:
        ValueError: a parameter has a batch axis, or is not finite.
    """
    places = {wire: index for index, wire in enumerate(tape.wires)}
    measured = measured_wires(tape)
    circuit = QuantumCircuit(tape.num_wires, len(measured))
    for op in tape.operations:
        for gate, wires in _to_instructions(op):
            circuit.append(gate, [places[wire] for wire in wires])
    for bit, wire in enumerate(measured):
        circuit.measure(places[wire], bit)
    return circuit


def measured_wires(tape: Tape) -> tuple[Wire, ...]:
    """The wires that `probs`, `sample` or `counts` measure, in the order of the measurements."""
    of_wires = [m for m in tape.measurements if m.kind in ("probs", "sample", "counts") and m.observable is None]
    return tuple(dict.fromkeys(wire for m in of_wires for wire in m.wires or tape.wires))


def _to_instructions(op: Operation) -> Iterator[tuple[Any, tuple[Wire, ...]]]:
    """Instructions of Qiskit with their wires."""
    if op.name == "Identity":
        yield from ((lib.IGate(), (wire,)) for wire in op.wires)
    elif op.name == "BasisState":
        yield from ((lib.XGate(), (wire,)) for wire, bit in zip(op.base_wires, op.bits, strict=True) if bit)
    elif op.control_wires:
        # Not gate.control() of all gates: Qiskit 2.6 synthesises many of them wrongly with three or more controls.
        yield from (_to_instruction(each) for each in conjugated(op))
    else:
        yield _to_instruction(op)


def _to_instruction(op: Operation) -> tuple[Any, tuple[Wire, ...]]:
    gate = _to_gate(op)
    if op.inverse:
        gate = gate.inverse()
    controls = op.control_wires
    if controls:
        values = sum(value << index for index, value in enumerate(op.control_values))
        gate = gate.control(len(controls), ctrl_state=values, annotated=True)
    wires = () if op.name == "GlobalPhase" else op.base_wires
    return gate, controls + (wires[::-1] if op.name in DENSE else wires)


def _to_gate(op: Operation) -> Gate:
    """The gate without controls and inverse."""
    parameters = [_number(value, op) for value in op.parameters]
    if op.name == "PauliRot":
        return _pauli_rotation(op.word, *parameters)
    if op.name == "MultiRZ":
        return _pauli_rotation("Z" * len(op.base_wires), *parameters)
    return _TO_GATES[op.name](*parameters)


def _number(value: Any, op: Operation) -> Any:
    where = place(op.name, op.wires)
    if op.batch_size is not None:
        raise ValueError(
            f"{where} has a batch of {op.batch_size}, and Qiskit and OpenQASM have none; make a tape of each"
        )
    array = _to_numpy(value) if isinstance(value, Tensor) else np.asarray(value)
    if not np.isfinite(array).all():
        raise ValueError(f"{where} has a parameter that is not finite: {value}")
    return array if array.ndim else float(array)


def _to_numpy(value: Tensor) -> Array:
    # As float64, because NumPy has no bfloat16.
    double = value.detach().cpu().to(torch.complex128 if value.is_complex() else torch.float64)
    return double.resolve_conj().resolve_neg().numpy()


def with_numbers(op: Operation) -> Operation:
    """The operation with its parameters as numbers, or arrays in double precision.

    Raises:
        ValueError: a parameter has a batch axis, or is not finite.
    """
    return restore(
        type(op),
        {
            "parameters": tuple([_number(value, op) for value in op.parameters]),
            "batch_size": None,
            "wires": op.wires,
            "structure": op.structure,
        },
    )


def dense_operations(op: Operation) -> list[Operation]:
    """Qiskit's decomposition of a matrix, a diagonal or a state without controls."""
    circuit = QuantumCircuit(len(op.wires))
    gate, _ = _to_instruction(op)
    circuit.append(gate, range(len(op.wires))[::-1])
    gates = tape_from_qiskit(_synthesis().run(circuit), [state()]).operations
    return [_moved(each, op.wires) for each in gates if each.name != "Identity"]


@cache
def _synthesis() -> Any:
    return generate_preset_pass_manager(optimization_level=0, basis_gates=["p", "h", "rx", "ry", "rz", "cx"])


def _moved(op: Operation, wires: Sequence[Wire]) -> Operation:
    """A gate without controls with its wires renamed: wire i becomes `wires[i]`."""
    return type(op)(*op.parameters, wires=[wires[wire] for wire in op.wires])  # type: ignore[call-arg, call-overload]


def _pauli_rotation(pauli_word: str, angle: float) -> Gate:
    return lib.PauliEvolutionGate(Pauli(pauli_word[::-1]), angle / 2)


def _rot(phi: float, theta: float, omega: float) -> Gate:
    circuit = QuantumCircuit(1, name="rot")
    circuit.rz(phi, 0)
    circuit.ry(theta, 0)
    circuit.rz(omega, 0)
    return circuit.to_gate()


def _between(bits: str, *gates: Gate, phase: float = 0.0) -> Gate:
    """One-qubit gates on the span of |bits⟩ and its complement, as |0⟩ and |1⟩, and a global phase.

    CNOTs from the first qubit map the complement of |bits⟩ to |bits⟩ with the first bit flipped, and |bits⟩ to itself.
    """
    controls = range(1, len(bits))
    values = int(bits[:0:-1], 2)
    circuit = QuantumCircuit(len(bits), name="between", global_phase=phase)
    for qubit in controls:
        circuit.cx(0, qubit)
    for gate in gates:
        controlled = gate.control(len(controls), ctrl_state=values, annotated=True)
        circuit.append(controlled, [*controls, 0][: controlled.num_qubits])
    for qubit in controls:
        circuit.cx(0, qubit)
    return circuit.to_gate()


def _excitation(bits: str, rest: float = 0.0) -> Callable[[float], Gate]:
    """RY between two basis states, and the phase `rest` × angle on all others."""

    def gate(angle: float) -> Gate:
        return _between(bits, lib.RYGate(angle), lib.GlobalPhaseGate(-rest * angle), phase=rest * angle)

    return gate


def _nearest_unitary(matrix: Array) -> Gate:
    left, _, right = np.linalg.svd(matrix.astype(np.complex128))
    return lib.UnitaryGate(left @ right)


_TO_GATES: dict[str, Callable[..., Gate]] = {
    "X": lib.XGate,
    "Y": lib.YGate,
    "Z": lib.ZGate,
    "H": lib.HGate,
    "S": lib.SGate,
    "T": lib.TGate,
    "SX": lib.SXGate,
    "RX": lib.RXGate,
    "RY": lib.RYGate,
    "RZ": lib.RZGate,
    "PhaseShift": lib.PhaseGate,
    "U1": lib.U1Gate,
    "U2": lib.U2Gate,
    "U3": lib.U3Gate,
    "Rot": _rot,
    "CNOT": lib.CXGate,
    "CY": lib.CYGate,
    "CZ": lib.CZGate,
    "CH": lib.CHGate,
    "CRX": lib.CRXGate,
    "CRY": lib.CRYGate,
    "CRZ": lib.CRZGate,
    "CRot": lambda phi, theta, omega: lib.CUGate(theta, omega, phi, -(phi + omega) / 2),
    "ControlledPhaseShift": lib.CPhaseGate,
    "SWAP": lib.SwapGate,
    "ISWAP": lib.iSwapGate,
    "PSWAP": lambda angle: _between("01", lib.XGate(), lib.GlobalPhaseGate(angle)),
    "Toffoli": lib.CCXGate,
    "CCZ": lib.CCZGate,
    "CSWAP": lib.CSwapGate,
    "IsingXX": lib.RXXGate,
    "IsingYY": lib.RYYGate,
    "IsingZZ": lib.RZZGate,
    "IsingXY": lambda angle: _between("01", lib.RXGate(-angle)),
    "SingleExcitation": _excitation("01"),
    "SingleExcitationPlus": _excitation("01", 0.5),
    "SingleExcitationMinus": _excitation("01", -0.5),
    "DoubleExcitation": _excitation("0011"),
    "DoubleExcitationPlus": _excitation("0011", 0.5),
    "DoubleExcitationMinus": _excitation("0011", -0.5),
    "GlobalPhase": lambda angle: lib.GlobalPhaseGate(-angle),
    "QubitUnitary": _nearest_unitary,
    "DiagonalEvolution": lambda time, diagonal: lib.DiagonalGate(np.exp(-1j * time * diagonal).tolist()),
    "DiagonalQubitUnitary": lambda diagonal: lib.DiagonalGate((diagonal / np.abs(diagonal)).tolist()),
    "StatePrep": lambda state: lib.StatePreparation(state / np.linalg.norm(state)),
}
