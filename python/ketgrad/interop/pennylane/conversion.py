"""Tapes from and to PennyLane's scripts.

Operations are converted one to one: nothing is decomposed, and operations that the other side does not have raise an
error. Parameters are the same objects in the same order, so that gradients of one are gradients of the other.

Importing this module imports PennyLane.
"""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, reduce
from heapq import merge
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from ...circuit.measurements import Measurement
from ...circuit.observables import (
    Factor,
    Hamiltonian,
    Hermitian,
    Observable,
    Projector,
    SparseHamiltonian,
    Term,
    as_observable,
    pauli_word,
)
from ...circuit.operations import (
    OPERATIONS,
    Composable,
    DiagonalEvolution,
    H,
    Identity,
    Operation,
    PauliRot,
    QubitUnitary,
    StatePrep,
    X,
    Y,
    Z,
    _watchers,
    adjoint,
    ctrl,
)
from ...circuit.parsing import place
from ...circuit.tape import Tape
from ...circuit.types import Wire
from .._pauli_sums import hamiltonian

try:
    import pennylane as qml
    from pennylane import measurements as mp
    from pennylane.operation import Operator, StatePrepBase
    from pennylane.ops import op_math
    from pennylane.ops.mid_measure import MidMeasure
    from pennylane.ops.op_math.adjoint import AdjointOperation
    from pennylane.ops.qubit.observables import BasisStateProjector, StateVectorProjector
    from pennylane.tape import QuantumScript
    from scipy.sparse import issparse  # PennyLane depends on it
except ImportError as error:
    raise ImportError(
        f'PennyLane cannot be imported ({error}); install it: pip install "ketgrad[pennylane]"'
    ) from error

__all__ = ["is_supported", "observable_from_pennylane", "tape_from_pennylane", "tape_to_pennylane"]


# ---------------------------------------------------------------------------------------------------------------------
# From PennyLane


def tape_from_pennylane(script: QuantumScript) -> Tape:
    """The tape of a PennyLane script.

    The tape's parameters are the script's, the same objects in the same order, and so are its `trainable_params`. The
    exception are bits (of a `BasisState`, or of a `Projector` on a basis state): to PennyLane they are parameters, by
    default trainable ones, but the tape has no parameters and no gradients for them. `Barrier` and `WireCut` are
    dropped. The order of wires is PennyLane's; if it differs in a measurement of all wires, the tape's wires are
    PennyLane's standard ones, 0…n−1.

    Args:
        script: with operations and measurements that ketgrad has under PennyLane's names, `adjoint` and `ctrl` of them
            included, and one number of shots, or none.

    Raises:
        TypeError: the argument is no script (such as a QNode), or a parameter is neither a number nor of torch or
            NumPy.
        NotImplementedError: ketgrad does not have an operation, observable or measurement, or shots are a vector.
        ValueError: trainable parameters are not in order, or as for `Tape` and the operations.
    """
    if not isinstance(script, QuantumScript):
        hint = "; of a QNode: pennylane.workflow.construct_tape(qnode)(*args)" if isinstance(script, qml.QNode) else ""
        raise TypeError(f"expected a QuantumScript of PennyLane, not {type(script).__name__}{hint}")
    if script.shots.has_partitioned_shots:
        raise NotImplementedError(f"shot vectors are not supported: {script.shots}; give one number of shots")
    return build_tape(script, script.shots.total_shots, script.trainable_params)


def build_tape(script: QuantumScript, shots: int | None, trainable: Sequence[int] | None) -> Tape:
    """The tape of a script, with the given shots and trainable parameters instead of the script's.

    Args:
        script: as for `tape_from_pennylane`; also with a state on wires that include the circuit's, in any order.
        shots: of the tape.
        trainable: indices into the script's parameters; None: the torch tensors that require grad.
    """
    if any(isinstance(label, float) for label in script.wires):  # PennyLane allows floats as labels
        (script,), _ = qml.map_wires(script, {label: place for place, label in enumerate(script.wires)})
    for measurement in script.measurements:
        if type(measurement) is mp.StateMP and measurement.wires:
            return _tape_in_order(script, shots, trainable, measurement.wires.labels)
    tape = _tape(script, shots, trainable)
    if any(measurement.obs is None and not measurement.wires for measurement in script.measurements):
        return _in_pennylanes_order(script, tape, trainable)
    return tape


def is_supported(op: Any) -> bool:
    """Whether ketgrad has an operation of PennyLane; a stopping condition for PennyLane's `decompose`.

    >>> import pennylane as qml
    >>> script = qml.tape.QuantumScript([qml.QFT(wires=[0, 1])], [qml.probs()])
    >>> (script,), _ = qml.transforms.decompose(script, stopping_condition=is_supported)
    """
    base = op
    while type(base) in _SYMBOLIC:
        base = base.base
    return type(base) in _OPERATIONS and (base is op or not isinstance(base, StatePrepBase))


def is_supported_observable(op: Any) -> bool:
    """Whether ketgrad has an observable of PennyLane."""
    kind = type(op)
    if kind in _LETTERS:
        return True
    if kind is op_math.SProd:
        return is_supported_observable(op.base)
    if kind in _COMPOSED:
        # Matrices on common wires cannot be multiplied.
        apart = kind is not op_math.Prod or _are_letters(op) or len(op.wires) == sum(len(o.wires) for o in op.operands)
        return apart and all(map(is_supported_observable, op.operands))
    return kind in _OBSERVABLES


def _are_letters(op: Any) -> bool:
    return all(type(operand) in _LETTERS for operand in op.operands)


def is_supported_measurement(measurement: Any) -> bool:
    """Whether ketgrad has a measurement of PennyLane."""
    kind = _KINDS.get(type(measurement))
    if kind is None or measurement.mv is not None or measurement._eigvals is not None:
        return False
    if (kind == "counts" and measurement.all_outcomes) or (kind == "sample" and measurement._dtype is not None):
        return False
    if measurement.obs is None:
        return kind not in ("expval", "var")
    return kind != "probs" and is_supported_observable(measurement.obs)


def _tape(script: Any, shots: int | None, trainable: Sequence[int] | None, wires: Sequence[Wire] = ()) -> Tape:
    """The script's tape, with identities on those of the given wires that it does not use."""
    operations = [found for op in script.operations if (found := _operation(op)) is not None]
    used = {wire for op in operations for wire in op.wires}
    if idle := [wire for wire in wires if wire not in used]:
        operations.append(Identity(idle))
    measurements = [_measurement(measurement) for measurement in script.measurements]
    own = None if trainable is None else _trainable(script, trainable, operations, measurements)
    return Tape(operations, measurements, shots, own)


def _trainable(
    script: Any, given: Sequence[int], operations: Sequence[Operation], measurements: Sequence[Measurement]
) -> Sequence[int]:
    """A script's trainable parameters as indices into the tape's parameters, which have no bits."""
    if any(one >= other for one, other in pairwise(given)):
        raise ValueError(f"trainable_params {given} are not in order; script.trainable_params = … sorts them")
    bits = any(op.bits for op in operations[:1])
    if not bits and not any(_has_bits(m.observable) for m in measurements if m.observable is not None):
        return given
    kept = has_gradient(script)
    places = list(accumulate(kept, initial=0))
    return [places[index] for index in given if kept[index]]


def has_gradient(script: Any) -> list[bool]:
    """For each parameter of a script, whether it is a parameter of the tape; bits are not."""
    owners = [*script.operations, *(m.obs for m in script.measurements if m.obs is not None)]
    return [keep for owner in owners for keep in _kept(owner)]


def _has_bits(observable: Observable) -> bool:
    # In the products, not the terms: terms of scale 0 are dropped, but PennyLane counts their bits as parameters.
    return any(factor.parameter < 0 for product in observable._products for factor in product.factors)


def _kept(op: Any) -> Iterator[bool]:
    """For each parameter of a PennyLane operator, whether ketgrad has it as a parameter."""
    if type(op) in _OF_BITS:
        yield False
    elif isinstance(op, op_math.CompositeOp):
        for operand in op.operands:
            yield from _kept(operand)
    elif isinstance(op, op_math.SProd):
        yield True
        yield from _kept(op.base)
    else:
        yield from [True] * len(op.data)


def _in_pennylanes_order(script: Any, tape: Tape, trainable: Sequence[int] | None) -> Tape:
    """The script's tape, on PennyLane's standard wires if PennyLane orders the wires differently.

    The orders can only differ if there are wires on which no operation acts.
    """
    used = {wire for op in tape.operations for wire in op.wires}
    if len(used) == tape.num_wires:
        return tape
    acting = script.copy(operations=[op for op in script.operations if _operation(op) is not None])
    if _order(acting) == tape.wires:
        return tape
    return _tape(acting.map_to_standard_wires(), tape.shots, trainable)


def _tape_in_order(script: Any, shots: int | None, trainable: Sequence[int] | None, order: tuple[Wire, ...]) -> Tape:
    """The script's tape on exactly these wires, in this order, relabelled if necessary."""
    if missing := [wire for wire in script.wires.labels if wire not in order]:
        raise NotImplementedError(
            f"state is measured on wires {list(order)}, but the circuit acts on {missing} too; measure their "
            "density_matrix, or leave the wires out"
        )
    tape = _tape(script, shots, trainable, order)
    if tape.wires == order:
        return tape
    (standard,), _ = qml.map_wires(script, {wire: place for place, wire in enumerate(order)})
    return _tape(standard, shots, trainable, range(len(order)))


def _order(script: Any) -> tuple[Wire, ...]:
    """The wires of a script in the order of PennyLane's results, the most significant first."""
    places = dict(zip(script.wires.labels, script.map_to_standard_wires().wires.labels, strict=True))
    return tuple(sorted(places, key=lambda wire: places[wire]))


# ---- operations

_Convert = Callable[[Any], Operation | None]
_Labels = Callable[[Any], tuple[Wire, ...]]


def _operation(op: Any) -> Operation | None:
    """The operation, None for a barrier or wire cut."""
    convert = _OPERATIONS.get(type(op))
    if convert is None:
        _refuse(op)
    return convert(op)


def _refuse(op: Any) -> NoReturn:
    hint = _HINTS.get(type(op))
    if hint is None:
        hint = (
            "decompose the script first: pennylane.transforms.decompose(script, "
            "stopping_condition=ketgrad.interop.pennylane.is_supported)"
        )
    raise NotImplementedError(f"{place(op.name, op.wires.labels)} of PennyLane is not supported; {hint}")


def _labels(op: Any) -> tuple[Wire, ...]:
    return op.wires.labels  # type: ignore[no-any-return]


def _labels_of_controlled(op: Any) -> tuple[Wire, ...]:
    """The labels of `op.wires` for CNOT and the like, ten times as fast as that property, which joins wires anew."""
    return op.control_wires.labels + op.base.wires.labels  # type: ignore[no-any-return]


def _fixed(gate: type[Operation], labels: _Labels) -> _Convert:
    """Cached, because training steps repeat the same gates on the same wires, and operations are immutable."""
    cached: Callable[..., Operation] = lru_cache(maxsize=4096)(gate)
    return lambda op: cached(labels(op))


def _parametrised(gate: Callable[..., Operation], labels: _Labels) -> _Convert:
    return lambda op: gate(*op.data, labels(op))


def _unitary_matrix(op: Any) -> Operation:
    """A unitary, which may be a SciPy sparse matrix; `origin`, if there is one, is the operation that it is from."""
    matrix = op.data[0]
    try:
        return QubitUnitary(matrix.toarray() if issparse(matrix) else matrix, op.wires.labels)
    except ValueError as error:
        origin = op.hyperparameters.get("origin")
        if origin is None:
            raise
        raise ValueError(f"{error}; it is the matrix of {origin}") from error


def _state(op: Any) -> Operation:
    """A state, which may be a SciPy sparse matrix, with two axes."""
    state = op.data[0]
    return StatePrep(state.toarray().reshape(-1) if issparse(state) else state, op.wires.labels)


def _pauli_rot(op: Any) -> Operation:
    return PauliRot(op.data[0], op.hyperparameters["pauli_word"], op.wires.labels)


def _adjoint(op: Any) -> Operation | None:
    base = _unitary(op)
    return None if base is None else adjoint(base)


def _controlled(op: Any) -> Operation | None:
    base = _unitary(op)
    return None if base is None else ctrl(base, op.control_wires.labels, op.control_values)


def _unitary(op: Any) -> Operation | None:
    """The base of an adjoint or a control; preparations are refused: only in decompositions they are unitary."""
    if isinstance(op.base, StatePrepBase):
        _refuse(op)
    return _operation(op.base)


def _nothing(op: Any) -> None:
    """Barriers and wire cuts are instructions to compilers, not operations."""


# All but those that PennyLane does not have.
COMMON_OPERATIONS = {name: gate for name, gate in OPERATIONS.items() if gate is not DiagonalEvolution}


def _operation_table() -> dict[type, _Convert]:
    table: dict[type, _Convert] = {}
    for name, gate in COMMON_OPERATIONS.items():
        theirs = getattr(qml, name)
        labels = _labels_of_controlled if issubclass(theirs, op_math.Controlled) else _labels
        has_data = bool(gate.parameter_kinds) or gate.is_preparation
        table[theirs] = (_parametrised if has_data else _fixed)(gate, labels)
    table[qml.QubitUnitary] = _unitary_matrix
    table[qml.PauliRot] = _pauli_rot
    table[qml.BasisEmbedding] = table[qml.BasisState]
    table[qml.AmplitudeEmbedding] = table[qml.StatePrep] = _state
    table[qml.Barrier] = table[qml.WireCut] = _nothing
    return table | _SYMBOLIC


_SYMBOLIC: dict[type, _Convert] = {
    op_math.Adjoint: _adjoint,
    AdjointOperation: _adjoint,
    op_math.Controlled: _controlled,
    op_math.ControlledOp: _controlled,
    qml.ControlledQubitUnitary: _controlled,
    qml.MultiControlledX: _controlled,
}
_OPERATIONS = _operation_table()
_OF_BITS = {qml.BasisState, qml.BasisEmbedding, BasisStateProjector}
_HINTS = {
    qml.Snapshot: "remove it",
    MidMeasure: "apply pennylane.defer_measurements first",
    op_math.Conditional: "apply pennylane.defer_measurements first",
}


# ---- observables


def observable_from_pennylane(op: Operator) -> Observable:
    """An observable that is in no script: see `Hamiltonian.from_pennylane`."""
    if not isinstance(op, Operator):
        raise TypeError(f"expected an operator of PennyLane, not {type(op).__name__}")
    sentence = op.pauli_rep
    if not sentence:
        return _observable(op)
    # Without a script, parameters need not match those of the operator, so its Pauli representation is used.
    pauli_words = [tuple(letters.items()) for letters in sentence]
    coefficients = [_scalar(value) for value in sentence.values()]
    if any(isinstance(value, Tensor) for value in coefficients):
        return Hamiltonian(coefficients, [pauli_word(letters) for letters in pauli_words])
    return hamiltonian(pauli_words, coefficients)


def _observable(op: Any) -> Observable:
    key = _key(op)
    if key is not None:
        return _constant(key)
    convert = _OBSERVABLES.get(type(op))
    if convert is None:
        raise NotImplementedError(
            f"{op} of PennyLane is not supported as an observable; supported are Pauli operators, Hadamard, Identity, "
            "Hermitian, Projector, SparseHamiltonian and their products, multiples and sums"
        )
    return convert(op)


def _key(op: Any) -> tuple[Any, ...] | None:
    """A hashable description of an observable of Pauli operators and numbers; None for any other."""
    kind = type(op)
    if kind in _LETTERS:
        return _LETTERS[kind], op.wires.labels
    if kind is op_math.SProd:
        scalar, base = _scalar(op.scalar), _key(op.base)
        return None if base is None or type(scalar) is not float else (scalar, base)
    if kind in _COMPOSED:
        parts = []
        for operand in op.operands:
            part = _key(operand)
            if part is None:
                return None
            parts.append(part)
        return _COMPOSED[kind], *parts
    return None


def _scalar(value: Any) -> Any:
    """A coefficient: numbers as floats, unless they have an imaginary part, and tensors as they are."""
    if isinstance(value, (float, int)):
        return float(value)
    if isinstance(value, numbers.Number) or (isinstance(value, np.ndarray) and value.ndim == 0):
        number = complex(value)  # type: ignore[arg-type]
        return value if number.imag else number.real
    return value


def _constant(key: tuple[Any, ...]) -> Observable:
    """An observable from its key, cached.

    Training steps repeat the same observables, with up to thousands of terms: so they are built, and their structure
    hashed, once. The cache has many products but few sums, which are large and may have new coefficients in each step.
    """
    return _constant_sum(key) if key[0] == "+" else _constant_word(key)


@lru_cache(maxsize=4096)
def _constant_word(key: tuple[Any, ...]) -> Observable:
    return as_observable(_composed(key))


@lru_cache(maxsize=32)
def _constant_sum(key: tuple[Any, ...]) -> Observable:
    return as_observable(_composed(key))


def _composed(key: tuple[Any, ...]) -> Composable:
    head, *rest = key
    if isinstance(head, float):
        return _composed(rest[0]) * head
    if isinstance(head, str):
        parts = [_composed(part) for part in rest]
        return _product(parts) if head == "@" else _sum(parts)
    return head(rest[0])  # type: ignore[no-any-return]


def _product(parts: Sequence[Composable]) -> Composable:
    return reduce(operator.matmul, parts)


def _sum(parts: Sequence[Composable]) -> Composable:
    """The sum, by halves: one by one, n terms would be copied n times."""
    if len(parts) == 1:
        return parts[0]
    middle = len(parts) // 2
    return _sum(parts[:middle]) + _sum(parts[middle:])


def _linear_combination(op: Any) -> Observable:
    scaled = op.operands
    return Hamiltonian([_scalar(each.scalar) for each in scaled], [_observable(each.base) for each in scaled])


_LETTERS: dict[type, type[Composable]] = {qml.X: X, qml.Y: Y, qml.Z: Z, qml.Hadamard: H, qml.Identity: Identity}
_COMPOSED = {op_math.Prod: "@", op_math.Sum: "+", qml.ops.LinearCombination: "+"}
_OBSERVABLES: dict[type, Callable[[Any], Observable]] = {
    op_math.Prod: lambda op: as_observable(_product([_observable(each) for each in op.operands])),
    op_math.Sum: lambda op: as_observable(_sum([_observable(each) for each in op.operands])),
    op_math.SProd: lambda op: _observable(op.base) * _scalar(op.scalar),
    qml.ops.LinearCombination: _linear_combination,
    qml.Hermitian: lambda op: Hermitian(op.data[0], op.wires.labels),
    qml.SparseHamiltonian: lambda op: SparseHamiltonian(op.data[0], op.wires.labels),
    BasisStateProjector: lambda op: Projector(op.data[0], op.wires.labels),
    StateVectorProjector: lambda op: Projector(op.data[0], op.wires.labels),
}


# ---- measurements

_KINDS: dict[type, str] = {
    mp.ExpectationMP: "expval",
    mp.VarianceMP: "var",
    mp.ProbabilityMP: "probs",
    mp.StateMP: "state",
    mp.DensityMatrixMP: "density_matrix",
    mp.SampleMP: "sample",
    mp.CountsMP: "counts",
}


def _measurement(measurement: Any) -> Measurement:
    kind = _KINDS.get(type(measurement))
    if kind is None:
        _refuse_measurement(measurement, f"supported are {', '.join(_KINDS.values())}")
    if measurement.mv is not None:
        _refuse_measurement(measurement, "apply pennylane.defer_measurements first")
    if measurement._eigvals is not None:
        _refuse_measurement(measurement, "measure an observable instead of eigenvalues")
    if kind == "counts" and measurement.all_outcomes:
        _refuse_measurement(measurement, "counts come without all_outcomes")
    if kind == "sample" and measurement._dtype is not None:
        _refuse_measurement(measurement, "samples come without a dtype")
    if measurement.obs is None:
        return Measurement(kind, wires=() if kind == "state" else measurement.wires.labels)
    if kind == "probs":
        _refuse_measurement(measurement, "probs takes wires; append the observable's diagonalizing_gates() instead")
    return Measurement(kind, _observable(measurement.obs))


def _refuse_measurement(measurement: Any, hint: str) -> NoReturn:
    raise NotImplementedError(f"the measurement {measurement} of PennyLane is not supported; {hint}")


# ---------------------------------------------------------------------------------------------------------------------
# Gates of ketgrad in quantum functions of PennyLane


class _Stray:
    """A gate of ketgrad, in no tape, in a queue of PennyLane; raises when a script is made of the queue."""

    def __init__(self, gate: Operation) -> None:
        self.gate = gate

    @property
    def _queue_category(self) -> NoReturn:
        raise TypeError(
            f"{place(self.gate.name, self.gate.wires)} is ketgrad's, and was made in a quantum function of PennyLane; "
            f"write pennylane.{self.gate.name}(…) there, or return a ketgrad.Tape from a function without a QNode"
        )


class _Strays:
    def on_gate(self, gate: Operation) -> None:
        if qml.QueuingManager.recording():
            qml.QueuingManager.append(_Stray(gate))

    def on_tape(self) -> None:
        """Remove stray gates from the queue: they are for a tape, which may be executed in a quantum function."""
        if queue := qml.QueuingManager.active_context():
            for found in [each for each in queue.queue if isinstance(each, _Stray)]:
                queue.remove(found)


_watchers.append(_Strays())


# ---------------------------------------------------------------------------------------------------------------------
# To PennyLane


def tape_to_pennylane(tape: Tape) -> QuantumScript:
    """The same circuit as a PennyLane script.

    Parameters of operations and observables are the same objects in the same order: a coefficient, a matrix or a state
    is one parameter of the script. The exceptions are due to PennyLane: a vector of coefficients, or a coefficient of a
    sum, becomes a scalar per term, indexed by torch; sparse matrices and diagonals become dense (`Hermitian`) if they
    are trainable, a part of an observable, or in a variance; a `DiagonalEvolution` becomes a `DiagonalQubitUnitary`.
    `trainable_params` are the parameters that come from trainable ones of the tape. An `Identity` is added if PennyLane
    would otherwise order the wires differently.

    Raises:
        NotImplementedError: an observable has a batch of coefficients or matrices.
    """
    trainable: list[bool] = []
    of_tape = set(tape.trainable_params)
    first = 0
    operations, measurements = [], []
    with qml.QueuingManager.stop_recording():
        for op in tape.operations:
            operations.append(_to_operation(op))
            own = _own(op, first, of_tape)
            trainable += _are_trainable(op, own)
            first += len(op.parameters)
        for measurement in tape.measurements:
            own = _own(measurement, first, of_tape)
            found, sources = _to_measurement(measurement, own)
            measurements.append(found)
            trainable += [source in own for source in sources]
            first += len(measurement.parameters)
        script = _ordered(tape, operations, measurements)
    script.trainable_params = [index for index, is_trainable in enumerate(trainable) if is_trainable]
    return script


def _are_trainable(op: Operation, own: set[int]) -> list[bool]:
    """For each parameter of PennyLane's operation whether it comes from one of ours that are trainable, `own`."""
    if isinstance(op, DiagonalEvolution):
        return [bool(own)]
    return [False] if op.bits else [index in own for index in range(len(op.parameters))]


def _own(owner: Operation | Measurement, first: int, of_tape: set[int]) -> set[int]:
    """The trainable parameters of an operation or measurement, as indices among its own."""
    return {index for index in range(len(owner.parameters)) if first + index in of_tape}


def _ordered(tape: Tape, operations: list[Any], measurements: list[Any]) -> Any:
    """A script with the tape's order of wires, if a measurement depends on it."""
    script = QuantumScript(operations, measurements, shots=tape.shots)
    of_all_wires = any(m.observable is None and not m.wires for m in tape.measurements)
    if not of_all_wires or _order(script) == tape.wires:
        return script
    preparations = [op for op in operations if isinstance(op, qml.operation.StatePrepBase)]
    gates = operations[len(preparations) :]
    return QuantumScript([*preparations, qml.Identity(tape.wires), *gates], measurements, shots=tape.shots)


def _to_operation(op: Operation) -> Any:
    if isinstance(op, DiagonalEvolution):
        found = qml.DiagonalQubitUnitary(_phases(*op.parameters), wires=op.base_wires)
    elif op.name == "PauliRot":
        found = qml.PauliRot(*op.parameters, op.word, wires=op.base_wires)
    elif op.name == "BasisState":
        found = qml.BasisState(np.array(op.bits), wires=op.base_wires)
    else:
        found = getattr(qml, op.name)(*op.parameters, wires=op.base_wires)
    if op.inverse:
        found = qml.adjoint(found)
    if op.control_wires:
        # Not qml.ctrl, which would replace some gates by others: a controlled X by CNOT.
        found = op_math.Controlled(found, op.control_wires, control_values=op.control_values)
    return found


def _phases(time: Any, diagonal: Any) -> Any:
    """exp(−itD), entry by entry."""
    if isinstance(time, Tensor) or isinstance(diagonal, Tensor):
        return torch.exp(-1j * torch.as_tensor(time)[..., None] * torch.as_tensor(diagonal))
    return np.exp(-1j * np.asarray(time)[..., None] * diagonal)


def _to_measurement(measurement: Measurement, trainable: set[int]) -> tuple[Any, list[int]]:
    """PennyLane's measurement, and for each of its parameters the index among those of our observable, or −1."""
    kind, observable = measurement.kind, measurement.observable
    measure = getattr(qml, kind)
    if observable is None:
        if kind == "state":
            return measure(), []
        return measure(wires=measurement.wires or None), []
    if observable.batch_size is not None:
        where = place(kind, observable.wires)
        raise NotImplementedError(f"{where}: PennyLane has no batches of coefficients or matrices in observables")
    if kind == "expval" and _is_sparse(observable) and 0 not in trainable:
        factor = observable.terms[0].factors[0]
        return measure(_to_sparse(factor, observable.parameters[0])), [0]
    found, sources = _to_observable(observable)
    return measure(found), sources


def _is_sparse(observable: Observable) -> bool:
    """Whether the observable is a single sparse matrix, or a diagonal."""
    if len(observable.terms) != 1 or len(observable.parameters) != 1:
        return False
    (term,) = observable.terms
    return (
        term.scale == 1
        and not term.word
        and [factor.kind in ("sparse", "diagonal") for factor in term.factors] == [True]
    )


def _to_observable(observable: Observable) -> tuple[Any, list[int]]:
    found = [_to_term(term, observable) for term in _with_hadamards(observable)]
    sources = [source for _, of_term in found for source in of_term]
    return (found[0][0] if len(found) == 1 else qml.sum(*[term for term, _ in found])), sources


class _Element(NamedTuple):
    """A part of a product.

    Attributes:
        value: an operator of PennyLane, or a coefficient.
        parameter: the index of our parameter that it has, −1 for none.
        place: the position of an operator's first wire among the observable's wires.
        is_coefficient: whether `value` is a coefficient.
    """

    value: Any
    parameter: int
    place: int = 0
    is_coefficient: bool = False


def _to_term(term: Term, observable: Observable) -> tuple[Any, list[int]]:
    operands: list[Any] = []
    sources: list[int] = []
    for element in reversed(_elements(term, observable)):
        if element.is_coefficient:
            operands = [qml.s_prod(element.value, _to_product(operands, observable))]
            sources = [element.parameter, *sources]
        else:
            operands = [element.value, *operands]
            # Letters have no data, matrices one item, and so have bits: a parameter in PennyLane only.
            sources = [element.parameter] * len(element.value.data) + sources
    product = _to_product(operands, observable)
    return (product, sources) if term.scale == 1 else (qml.s_prod(term.scale, product), [-1, *sources])


def _to_product(operands: Sequence[Any], observable: Observable) -> Any:
    if not operands:
        return qml.Identity(observable.wires)
    return operands[0] if len(operands) == 1 else qml.prod(*operands)


def _elements(term: Term, observable: Observable) -> list[_Element]:
    """A term's parts from left to right, with the parameters in our order.

    Letters and matrices are merged by the positions of their wires. A coefficient follows the parts whose parameters
    come before it.
    """
    places = {wire: index for index, wire in enumerate(observable.wires)}
    letters = [_Element(_TO_LETTERS[letter](wire), -1, places[wire]) for wire, letter in term.word]
    factors = [_Element(_to_factor(each, observable), each.parameter, places[each.wires[0]]) for each in term.factors]
    found = list(merge(letters, factors, key=lambda element: element.place))
    for index, column in sorted(term.coefficients):
        value: Any = observable.parameters[index]
        scalar = value[column] if observable.parameter_kinds[index] == "coefficients" else value
        position = max((i + 1 for i, element in enumerate(found) if 0 <= element.parameter < index), default=0)
        found.insert(position, _Element(scalar, index, is_coefficient=True))
    return found


_TO_LETTERS = {"X": qml.X, "Y": qml.Y, "Z": qml.Z, "H": qml.Hadamard}


def _to_factor(factor: Factor, observable: Observable) -> Any:
    if factor.kind == "projector":
        return qml.Projector(np.array(factor.bits), wires=factor.wires)
    value: Any = observable.parameters[factor.parameter]
    if factor.kind == "state_projector":
        return qml.Projector(value, wires=factor.wires)
    return qml.Hermitian(value if factor.kind == "hermitian" else _to_dense(factor, value), wires=factor.wires)


def _indices(factor: Factor) -> tuple[Any, Any]:
    if factor.kind == "diagonal":
        every = np.arange(1 << len(factor.wires))
        return every, every
    return np.frombuffer(factor.rows, np.int64), np.frombuffer(factor.columns, np.int64)


def _to_dense(factor: Factor, values: Any) -> Any:
    rows, columns = _indices(factor)
    size = 1 << len(factor.wires)
    if not isinstance(values, Tensor):
        dense = np.zeros((size, size), values.dtype)
        dense[rows, columns] = values
        return dense
    flat = torch.as_tensor(rows * size + columns, device=values.device)
    return values.new_zeros(size * size).index_put((flat,), values).reshape(size, size)


def _to_sparse(factor: Factor, values: Any) -> Any:
    from scipy.sparse import csr_matrix  # a dependency of PennyLane, not of ketgrad

    numpy_values = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    size = 1 << len(factor.wires)
    return qml.SparseHamiltonian(csr_matrix((numpy_values, _indices(factor)), shape=(size, size)), wires=factor.wires)


# ---- Hadamards: H is (X + Z)/√2 in an observable's terms, but the factors √½ would be parameters in PennyLane


def _with_hadamards(observable: Observable) -> Sequence[Term]:
    """The terms, with the pairs that come from an H merged again, under the letter "H"."""
    terms: Sequence[Term] = observable.terms
    for wire in observable.wires:
        if all(term.scale.is_integer() for term in terms):
            break
        terms = _paired(terms, wire)
    return terms


def _paired(terms: Sequence[Term], wire: Wire) -> list[Term]:
    found: dict[Any, Term] = {}
    for term in terms:
        letters = dict(term.word)
        letter = letters.get(wire)
        key = (term.coefficients, term.factors, frozenset(letters.items()))
        if letter in ("X", "Z") and not term.scale.is_integer():
            partner = (term.coefficients, term.factors, frozenset({**letters, wire: "XZ"[letter == "X"]}.items()))
            if partner in found and math.isclose(found[partner].scale, term.scale):
                found[partner] = _hadamard(found[partner], wire)
                continue
        found[key] = term
    return list(found.values())


def _hadamard(term: Term, wire: Wire) -> Term:
    scale = term.scale * math.sqrt(2)
    whole = float(round(scale))
    letters = tuple((each, "H" if each == wire else letter) for each, letter in term.word)
    return term._replace(scale=whole if math.isclose(scale, whole, rel_tol=1e-12) else scale, word=letters)
