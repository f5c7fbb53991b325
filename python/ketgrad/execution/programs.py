"""Programs: the structure of a tape becomes a native program, once; parameters stay as they come.

A program reads its parameters from a few inputs. A `ProgramBinding` says which parameter of a tape goes to which input,
so that a call only stacks tensors. Scalars share an input where they are alike: numbers, 0-d tensors, batches, each
trainable or not, because gradients are computed input by input.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from ..circuit.measurements import Measurement
from ..circuit.observables import Factor, Observable, Term
from ..circuit.operations import Operation
from ..circuit.tape import Tape
from ..circuit.types import ParameterLayout, Structure, Wire
from ..native.library import _C
from ..native.profiling import span
from .results import ResultLayout, kind_of

SCALAR_KINDS = ("angle", "coefficient")
VECTOR_KIND = "coefficients"

_LAYOUTS = {str(layout): layout for layout in ParameterLayout}


class InputBinding(NamedTuple):
    """One input of a program and the parameters of a tape that it is made of.

    Attributes:
        layout: as what the parameters were given.
        trainable: whether they are trainable parameters of the tape.
        parameters: their indices among all parameters, in the order of the input's columns.
        is_column: scalars that are stacked to columns; otherwise the one parameter is the input.
        is_complex: a matrix, diagonal, state or the values of a sparse matrix.
    """

    layout: ParameterLayout
    trainable: bool
    parameters: tuple[int, ...]
    is_column: bool
    is_complex: bool


@dataclass(frozen=True, slots=True)
class ProgramBinding:
    """A program, what its inputs are made of, in order, and where its results stand."""

    program: _C.Program
    id: int
    num_wires: int
    operations: int
    inputs: tuple[InputBinding, ...]
    result_layout: ResultLayout


class StructureCache:
    """The programs of structures that ran before, so that equal ones are neither written nor planned again.

    Those that came first go first, where all take more than `limit`. What compiled functions, layers and graphs hold is
    theirs: it neither counts nor goes. Each compiled function forgets those that it did not use for longest, where its
    own take more than `limit`.

    Example:
        >>> import ketgrad as kg
        >>> kg.structure_cache.limit // 2**20
        1024
        >>> kg.structure_cache.limit = 256 * 2**20
        >>> kg.structure_cache.clear()
        >>> len(kg.structure_cache), kg.structure_cache.bytes
        (0, 0)
        >>> kg.structure_cache.limit = 2**30
    """

    # Of a structure and its binding, which are Python's, for an operation: some of what was measured is shared.
    _BYTES_PER_OPERATION = 256

    def __init__(self, limit: int = 2**30) -> None:
        self._kept: OrderedDict[Structure, ProgramBinding] = OrderedDict()
        self._lock = threading.Lock()  # of all that adds and drops
        self._operations = 0
        self._limit = limit

    @property
    def limit(self) -> int:
        """Bytes that the programs may take in all, by default 1 GiB; the latest one stays whatever it takes.

        Raises:
            ValueError: it is set to a negative number, or to none.
        """
        return self._limit

    @limit.setter
    def limit(self, limit: int) -> None:
        if type(limit) is not int or limit < 0:
            raise ValueError(f"the limit of kg.structure_cache is a number of bytes, not {limit!r}")
        with self._lock:
            self._limit = limit
            self._make_room()

    @property
    def bytes(self) -> int:
        """About so much memory is taken."""
        return _C.cached_bytes() + self._BYTES_PER_OPERATION * self._operations

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        mib = 2**20
        return f"<{len(self)} structures in {self.bytes / mib:.1f} MiB of at most {self._limit / mib:.0f} MiB>"

    def clear(self) -> None:
        """Forget all of them."""
        with self._lock:
            while self._kept:
                self._drop_first()

    def find(self, structure: Structure) -> ProgramBinding | None:
        """What was kept for an equal structure."""
        return self._kept.get(structure)

    def keep(self, structure: Structure, binding: ProgramBinding) -> None:
        """Keep a binding, as the latest one."""
        with self._lock:
            if structure not in self._kept:  # another thread may have been as fast
                self._kept[structure] = binding
                self._operations += binding.operations
                binding.program.enter_cache()
            self._make_room()

    def _make_room(self) -> None:
        while len(self._kept) > 1 and self.bytes > self._limit:
            self._drop_first()

    def _drop_first(self) -> None:
        _, dropped = self._kept.popitem(last=False)
        self._operations -= dropped.operations
        dropped.program.leave_cache()


structure_cache = StructureCache()


class Circuit(NamedTuple):
    """What a call runs, for people to read.

    Attributes:
        wires, operations: their numbers.
        gates: one text for each operation that is no preparation, as the program numbers them.
        batch: circuits in the call.
        dtype: torch.float32 or torch.float64.
    """

    wires: int
    operations: int
    gates: tuple[str, ...]
    batch: int
    dtype: torch.dtype


def describe_circuit(tape: Tape, batch: int, dtype: torch.dtype) -> Circuit:
    """What a call of tapes of one structure runs."""
    gates = [f"{op.name} on {', '.join(map(str, op.wires))}" for op in tape.operations if not op.is_preparation]
    return Circuit(tape.num_wires, len(tape.operations), tuple(gates), batch, dtype)


@dataclass(slots=True)
class Statistics:
    """How many programs were built since the import."""

    built: int = field(default=0)


statistics = Statistics()


def build_program(tape: Tape, device_type: str = "cpu") -> ProgramBinding:
    """The binding of a tape's structure, from `structure_cache` where an equal one was built before.

    Raises:
        MemoryError: the state or a result would not fit into the memory of the CPU, if that is the device; elsewhere
            the device's allocator says so.
    """
    structure = tape.structure
    found = structure_cache.find(structure)
    if found is None:
        if device_type == "cpu":
            require_room(tape)
        with span("encode"):
            found = _build(tape)
        statistics.built += 1
        structure_cache.keep(structure, found)
    return found


def require_room(tape: Tape) -> None:
    """Raise MemoryError where the state of a tape, or one of its results, would not fit into the CPU's memory."""
    # Beyond 2^1000 bytes it does not matter how many.
    _C.require_memory(float(8 << min(tape.num_wires, 1000)), f"a state on {tape.num_wires} wires")
    layout = ResultLayout.of(tape.measurements, tape.num_wires)
    for measurement, result in zip(tape.measurements, layout.results, strict=True):
        _C.require_memory(float((8 if result.is_complex else 4) * result.size), f"the result of {measurement!r}")


def _build(tape: Tape) -> ProgramBinding:
    kinds, layouts = describe_parameters(tape)
    bindings = _bind_inputs(kinds, layouts, frozenset(tape.trainable_params))
    place = {
        parameter: (position, column)
        for position, bound in enumerate(bindings)
        for column, parameter in enumerate(bound.parameters)
    }

    def slot(parameter: int, column: int) -> _C.Slot:
        position, first = place[parameter]
        return _C.Slot(position, first + column)

    inputs = [(bound.is_complex, _input_shape(bound, tape, layouts)) for bound in bindings]
    program = write_program(tape, inputs, slot, lambda parameter: place[parameter][0])
    operations = len(tape.operations) + len(tape.measurements)
    layout = ResultLayout.of(tape.measurements, tape.num_wires)
    return ProgramBinding(program, program.id, tape.num_wires, operations, bindings, layout)


def _input_shape(bound: InputBinding, tape: Tape, layouts: list[ParameterLayout]) -> tuple[int, ...]:
    """The shape without the batch axis."""
    if bound.is_column:
        return (len(bound.parameters),)
    index = bound.parameters[0]
    shape = tuple(np.shape(tape.parameters[index]))
    return shape[1:] if layouts[index].is_batched else shape


def write_program(
    tape: Tape,
    inputs: Sequence[tuple[bool, tuple[int, ...]]],
    slot: Callable[[int, int], _C.Slot],
    input_of: Callable[[int], int],
) -> _C.Program:
    """The native program of a tape's structure.

    Args:
        tape: its parameters' values are not looked at.
        inputs: for each input whether it is complex, and its shape without the batch axis.
        slot: (parameter, column) → where a scalar, or a column of a vector of coefficients, is read from.
        input_of: parameter → the input that is a matrix, a diagonal, a state or the values of a sparse matrix.
    """
    return _ProgramWriter(tape, slot, input_of).run(inputs)


class _ProgramWriter:
    """Writes one program."""

    def __init__(self, tape: Tape, slot: Callable[[int, int], _C.Slot], input_of: Callable[[int], int]) -> None:
        self.tape = tape
        self.slot = slot
        self.input_of = input_of
        self.builder = _C.ProgramBuilder(tape.num_wires)
        self.bit: dict[Wire, int] = {wire: position for position, wire in enumerate(tape.wires)}

    def run(self, inputs: Sequence[tuple[bool, tuple[int, ...]]]) -> _C.Program:
        for is_complex, shape in inputs:
            self.builder.input(is_complex, shape)
        first = 0
        for operation in self.tape.operations:
            self.add_operation(operation, first)
            first += len(operation.parameters)
        for measurement in self.tape.measurements:
            self.add_measurement(measurement, first)
            first += len(measurement.parameters)
        return self.builder.build()

    def bits(self, wires: Sequence[Wire]) -> list[int]:
        return [self.bit[wire] for wire in wires]

    def add_operation(self, operation: Operation, first: int) -> None:
        """Add a gate or the preparation, whose parameters are those from `first` on."""
        # Its properties one by one would cost as much as all else here.
        name, base_wires, controls, values, inverse, pauli_word, basis_bits, _ = operation.structure
        wires = self.bits(base_wires)
        if operation.is_preparation:
            if operation.parameters:
                self.builder.state(wires, self.input_of(first))
            else:
                self.builder.basis_state(wires, basis_bits)
            return
        slots, matrix = [], _C.NO_INPUT
        for index, kind in enumerate(operation.parameter_kinds, first):
            if kind in SCALAR_KINDS:
                slots.append(self.slot(index, 0))
            else:
                matrix = self.input_of(index)
        if name == "MultiRZ":
            pauli_word = "Z" * len(wires)
        elif name == "GlobalPhase":
            wires = []  # it acts on all wires alike, whatever it was written on
        self.builder.gate(name, wires, self.bits(controls), values, inverse, slots, matrix, pauli_word)

    def add_measurement(self, measurement: Measurement, first: int) -> None:
        """Add a measurement whose observable has the parameters from `first` on."""
        observable = measurement.observable
        if observable is not None:
            terms = [self.term(term, observable, first) for term in observable.terms]
            self.builder.measure(measurement.kind, [], terms)
        else:
            of_all = kind_of(measurement).subject == "all_wires"
            wires = () if of_all else measurement.wires or self.tape.wires
            self.builder.measure(measurement.kind, self.bits(wires), [])

    def term(self, term: Term, observable: Observable, first: int) -> _C.ProgramTerm:
        slots = [self.slot(first + parameter, column) for parameter, column in term.coefficients]
        pauli_wires = self.bits([wire for wire, _ in term.word])
        pauli_word = "".join(letter for _, letter in term.word)
        return _C.ProgramTerm(
            term.scale, slots, pauli_wires, pauli_word, [self.factor(factor, first) for factor in term.factors]
        )

    def factor(self, factor: Factor, first: int) -> _C.ProgramFactor:
        position = _C.NO_INPUT if factor.parameter < 0 else self.input_of(first + factor.parameter)
        rows = np.frombuffer(factor.rows, np.int64).tolist()
        columns = np.frombuffer(factor.columns, np.int64).tolist()
        return _C.ProgramFactor(factor.kind, self.bits(factor.wires), position, factor.bits, rows, columns)


def describe_parameters(tape: Tape) -> tuple[list[str], list[ParameterLayout]]:
    """The kind and the layout of each parameter of a tape."""
    kinds: list[str] = []
    layouts: list[ParameterLayout] = []
    for operation in tape.operations:
        kinds += operation.parameter_kinds
        layouts += map(_LAYOUTS.__getitem__, operation.parameter_layout)
    for measurement in tape.measurements:
        if measurement.observable is not None:
            kinds += measurement.observable.parameter_kinds
            layouts += map(_LAYOUTS.__getitem__, measurement.observable.parameter_layout)
    return kinds, layouts


def _bind_inputs(
    kinds: list[str], layouts: list[ParameterLayout], trainable: frozenset[int]
) -> tuple[InputBinding, ...]:
    """Groups scalars that are alike; everything else is an input of its own. Input 0, the numbers, is always there."""
    columns: dict[tuple[ParameterLayout, bool], list[int]] = {(ParameterLayout.NUMBER, False): []}
    single = []
    for index, (kind, layout) in enumerate(zip(kinds, layouts, strict=True)):
        is_trainable = index in trainable
        if kind in SCALAR_KINDS:
            columns.setdefault((layout, is_trainable), []).append(index)
        else:
            single.append(InputBinding(layout, is_trainable, (index,), False, kind != VECTOR_KIND))
    stacked = [
        InputBinding(layout, is_trainable, tuple(found), True, False)
        for (layout, is_trainable), found in columns.items()
    ]
    return (*stacked, *single)
