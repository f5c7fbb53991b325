"""Tapes: a circuit with its measurements, the unit of execution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any, NoReturn

import numpy as np
from torch import Tensor

from ..native.torch_private import DisableTorchFunction
from .drawing import draw
from .measurements import Measurement
from .operations import OPERATIONS, Composable, Operation, gates_instead, tell_watchers_of_a_tape
from .parsing import Immutable, _set, place, restore
from .types import Parameter, Structure, Wire

_SHOTS_NEEDED = ("sample", "counts")
_SHOTS_REFUSED = ("state", "density_matrix")
_MOST_SHOTS = 2**40


class Tape(Immutable):
    """Operations and measurements, immutable.

    Args:
        operations: gates in the order in which they act; a preparation may only be the first.
        measurements: at least one.
        shots: the number of shots; None (the default) for exact results.
        trainable_params: indices of the trainable parameters in `parameters`; by default those of the torch tensors
            that require grad.

    Attributes:
        wires: all wires, the most significant first: if the labels are exactly 0…n−1, in that order, otherwise in order
            of first appearance, in operations, then in measurements.
        batch_size: B if a parameter has a leading batch axis, else None.
        has_default_trainable: whether `trainable_params` was not given.
        parameters: all parameters, trainable or not: the operations' in order, then the measured observables'.

    Raises:
        TypeError: an item is no operation or no measurement, or shots or trainable_params are no integers.
        ValueError: there are no measurements or no wires, a preparation is not the first operation, batch sizes differ,
            `sample` or `counts` has no shots, `state` or `density_matrix` has shots, there are less than 1 or more than
            2^40 shots, or an index of a trainable parameter is out of range.

    >>> import ketgrad as kg
    >>> tape = kg.Tape([kg.RX(0.5, wires=0), kg.CNOT(wires=[0, 1])], [kg.expval(kg.Z(0) @ kg.Z(1)), kg.probs(wires=1)])
    >>> print(tape)
    0: ──RX(0.50)──╭●──┤ ╭⟨Z⟩
    1: ────────────╰X──┤ ╰⟨Z⟩  Probs
    """

    __slots__ = (
        "_structure",
        "batch_size",
        "has_default_trainable",
        "measurements",
        "operations",
        "parameters",
        "shots",
        "trainable_params",
        "wires",
    )

    _structure: Structure | None
    batch_size: int | None
    has_default_trainable: bool
    measurements: tuple[Measurement, ...]
    operations: tuple[Operation, ...]
    parameters: tuple[Parameter, ...]
    shots: int | None
    trainable_params: tuple[int, ...]
    wires: tuple[Wire, ...]

    def __init__(
        self,
        operations: Iterable[Operation],
        measurements: Iterable[Measurement],
        shots: int | None = None,
        trainable_params: Sequence[int] | None = None,
    ) -> None:
        ops, found = _operations(operations), _measurements(measurements)
        tell_watchers_of_a_tape()
        parameters = tuple(chain(*[op.parameters for op in ops], *[m.parameters for m in found]))
        _set(self, "operations", ops)
        _set(self, "measurements", found)
        _set(self, "parameters", parameters)
        _set(self, "shots", _shots(shots, found))
        _set(self, "wires", _wires(ops, found))
        _set(self, "batch_size", _batch_size(ops, found))
        _set(self, "trainable_params", _trainable(parameters, trainable_params))
        _set(self, "has_default_trainable", trainable_params is None)
        _set(self, "_structure", None)

    @property
    def num_wires(self) -> int:
        """The number of wires."""
        return len(self.wires)

    @property
    def structure(self) -> Structure:
        """Everything but the values of the parameters, hashable: tapes of equal structure run the same program."""
        if self._structure is None:
            found = Structure(
                (
                    tuple([op.structure for op in self.operations]),
                    tuple([measurement.structure for measurement in self.measurements]),
                    self.wires,
                    self.shots is None,
                    self.trainable_params,
                )
            )
            _set(self, "_structure", found)
        return self._structure  # type: ignore[return-value]

    def get_parameters(self, trainable_only: bool = True) -> list[Parameter]:
        """The parameters of the operations in order, then those of the observables; by default the trainable ones."""
        if trainable_only:
            return [self.parameters[index] for index in self.trainable_params]
        return list(self.parameters)

    def draw(self, decimals: int | None = 2, width: int = 100) -> str:
        """The circuit as text.

        Args:
            decimals: the decimals of an angle; None shows no angles.
            width: the most characters of a line; longer circuits continue in a new block.

        Raises:
            TypeError: decimals is no non-negative integer and not None, or width is no integer.
        """
        if decimals is not None and (not _is_integer(decimals) or decimals < 0):
            raise TypeError(f"decimals must be 0, 1, 2, … or None, not {decimals!r}")
        if not _is_integer(width):
            raise TypeError(f"width must be an integer, not {width!r}")
        return draw(self, decimals, width)

    @classmethod
    def from_pennylane(cls, script: Any) -> Tape:
        """The tape of a PennyLane `QuantumScript`, with the script's parameters: the same objects in the same order.

        Raises:
            ImportError: PennyLane is not installed.
            TypeError: the argument is no script, or a parameter is neither a number nor of torch or NumPy.
            ValueError: trainable parameters are not in order, or as for `Tape` and the operations.
            NotImplementedError: ketgrad does not have an operation, observable or measurement, or shots are a vector.
        """
        from ..interop.pennylane import tape_from_pennylane

        return tape_from_pennylane(script)

    def to_pennylane(self) -> Any:
        """The same circuit as a PennyLane `QuantumScript`.

        Raises:
            ImportError: PennyLane is not installed.
            NotImplementedError: an observable has a batch of coefficients or matrices.
        """
        from ..interop.pennylane import tape_to_pennylane

        return tape_to_pennylane(self)

    def to_openqasm(self, version: str = "3.0", precision: int | None = None) -> str:
        """The circuit as OpenQASM text, with the gates of stdgates.inc (3.0) or qelib1.inc (2.0).

        Other gates are decomposed; matrices, diagonals and states by Qiskit. Wire i of the tape is `q[i]`; tensors are
        written as their values. Wires that `probs`, `sample` or `counts` measure are measured into `c`, in their order.
        OpenQASM has no observables: other measurements are left out, and so is the number of shots.

        Args:
            version: "3.0" (the default) or "2.0". OpenQASM 2 has no global phase: the text is the circuit up to one.
            precision: significant digits of the angles; by default enough to read back the same numbers.

        Raises:
            ImportError: Qiskit is not installed.
            ValueError: the version is another, the precision is below 1, or a parameter has a batch axis or is not
                finite.

        >>> import ketgrad as kg
        >>> print(kg.Tape([kg.RX(0.5, wires=0), kg.CNOT(wires=[0, 1])], [kg.probs(wires=1)]).to_openqasm())
        OPENQASM 3.0;
        include "stdgates.inc";
        qubit[2] q;
        bit[1] c;
        rx(0.5) q[0];
        cx q[0], q[1];
        c[0] = measure q[1];
        """
        from ..interop.openqasm import tape_to_openqasm

        return tape_to_openqasm(self, version, precision)

    def __str__(self) -> str:
        return self.draw()

    def __repr__(self) -> str:
        counted = f"{_counted(len(self.operations), 'operation')}, {_counted(len(self.measurements), 'measurement')}"
        batch = "" if self.batch_size is None else f", batch of {self.batch_size}"
        shots = "" if self.shots is None else f", {_counted(self.shots, 'shot')}"
        return f"<Tape: {_counted(self.num_wires, 'wire')}, {counted}{batch}{shots}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return restore, (Tape, {**{name: getattr(self, name) for name in Tape.__slots__}, "_structure": None})


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _operations(given: Iterable[Operation]) -> tuple[Operation, ...]:
    operations: tuple[Operation, ...] = _as_tuple(given, "operations")
    # By class: there are few, and tapes are built anew in every step of a training.
    if not all(issubclass(kind, Operation) for kind in set(map(type, operations))):
        _refuse_operation(operations)
    later = operations[1:]
    kinds: set[type[Operation]] = {op.__class__ for op in later}
    if any(kind.is_preparation for kind in kinds):
        index, op = next((i, op) for i, op in enumerate(later, 1) if op.is_preparation)
        rule = f"a preparation is only allowed as the first; as a gate, {gates_instead(op)}"
        raise ValueError(f"{place(op.name, op.wires)} is operation {index} of the tape; {rule}")
    return operations


def _refuse_operation(operations: tuple[Any, ...]) -> NoReturn:
    index, op = next((i, op) for i, op in enumerate(operations) if not isinstance(op, Operation))
    found = f"{op!r} of type {type(op).__name__}"
    raise TypeError(f"operation {index} of the tape is {found}, not an operation of ketgrad{_hint(op)}")


def _measurements(measurements: Iterable[Measurement]) -> tuple[Measurement, ...]:
    found = _as_tuple(measurements, "measurements")
    if not found:
        raise ValueError("a tape needs at least one measurement, such as expval(Z(0))")
    for index, measurement in enumerate(found):
        if not isinstance(measurement, Measurement):
            given = f"{measurement!r} of type {type(measurement).__name__}"
            hint = "; measure it, as in expval(…)" if isinstance(measurement, Composable) else _hint(measurement)
            raise TypeError(f"measurement {index} of the tape is {given}, not a measurement of ketgrad{hint}")
    return found


def _hint(item: Any) -> str:
    """A hint for messages: what to write instead of a class, or of an object of PennyLane."""
    if isinstance(item, type):
        return f"; it needs arguments, such as {item.__name__}(wires=0)"
    kind = type(item)
    if kind.__module__.partition(".")[0] != "pennylane":
        return ""
    is_known = kind.__name__ in OPERATIONS
    instead = f"write ketgrad.{kind.__name__}(…), or " if is_known else ""
    return f" but of PennyLane; {instead}convert a whole QuantumScript: Tape.from_pennylane(script)"


def _as_tuple(given: Any, what: str) -> tuple[Any, ...]:
    try:
        return tuple(given)
    except TypeError:
        hint = f"; for one write [{given!r}]" if isinstance(given, (Composable, Operation, Measurement)) else ""
        raise TypeError(f"the {what} of a tape must be a list, not {type(given).__name__}{hint}") from None


def _shots(shots: Any, measurements: tuple[Measurement, ...]) -> int | None:
    refused = _SHOTS_NEEDED if shots is None else _SHOTS_REFUSED
    for measurement in measurements:
        if measurement.kind in refused:
            rule = "needs shots: give the tape shots=1000" if shots is None else "is exact: leave the shots out"
            raise ValueError(f"{measurement.kind} {rule}")
    if shots is None:
        return None
    if not _is_integer(shots):
        raise TypeError(f"shots must be a positive integer or None, not {shots!r} of type {type(shots).__name__}")
    if shots < 1:
        raise ValueError(f"shots must be a positive integer or None, not {shots}")
    if shots > _MOST_SHOTS:
        raise ValueError(f"shots must be at most {_MOST_SHOTS}, not {shots}: each is a number in memory")
    return int(shots)


def _wires(operations: tuple[Operation, ...], measurements: tuple[Measurement, ...]) -> tuple[Wire, ...]:
    found = dict.fromkeys(chain(*[op.wires for op in operations], *[m.wires for m in measurements]))
    if not found:
        raise ValueError("the tape has no wires: none of its operations and measurements acts on one")
    ordered = range(len(found))
    # n distinct labels are exactly 0…n−1 if every one of 0…n−1 is among them.
    return tuple(ordered) if all(map(found.__contains__, ordered)) else tuple(found)


def _batch_size(operations: tuple[Operation, ...], measurements: tuple[Measurement, ...]) -> int | None:
    sizes: set[int | None] = {*map(_batch_size_of, operations), *map(_batch_size_of, measurements)} - {None}
    if len(sizes) < 2:
        return next(iter(sizes), None)
    all_items: list[Operation | Measurement] = [*operations, *measurements]
    items = [item for item in all_items if item.batch_size is not None]
    first, other = items[0], next(item for item in items if item.batch_size != items[0].batch_size)
    raise ValueError(
        f"{_named(first)} has a batch of {first.batch_size}, {_named(other)} a batch of {other.batch_size}; "
        "they must agree"
    )


_batch_size_of = attrgetter("batch_size")


def _named(item: Operation | Measurement) -> str:
    return place(item.name if isinstance(item, Operation) else item.kind, item.wires)


def _trainable(parameters: tuple[Parameter, ...], given: Sequence[int] | None) -> tuple[int, ...]:
    if given is None:
        numbered = [(i, value) for i, value in enumerate(parameters) if type(value) is not float]
        with DisableTorchFunction():  # a trace of kg.compile need not see what is read here
            return tuple([i for i, value in numbered if isinstance(value, Tensor) and value.requires_grad])
    if not isinstance(given, Iterable):
        raise TypeError(f"trainable_params must be a list of integers, not {given!r}; for one write [{given!r}]")
    found = set()
    for index in given:
        if not _is_integer(index):
            raise TypeError(f"trainable_params must be integers, not {index!r} of type {type(index).__name__}")
        if not 0 <= index < len(parameters):
            raise ValueError(f"trainable_params: {index} is no index into the {len(parameters)} parameters of the tape")
        found.add(int(index))
    return tuple(sorted(found))
