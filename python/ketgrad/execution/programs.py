"""Programs: the structure of a tape is built into a native program, once.

A program reads parameters from a few inputs. A `ProgramBinding` says which parameters of a tape make up which input, so
that a call only stacks tensors. Scalars of one layout (numbers, 0-d tensors, batches) share an input, trainable ones
apart from others, because gradients are requested per input.
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
    """One input of a program and the parameters of a tape that it consists of.

    Attributes:
        layout: the layout of the parameters.
        trainable: whether they are trainable parameters of the tape.
        parameters: their indices in `Tape.parameters`, in the order of the input's columns.
        is_column: whether they are scalars, each a column of the input; otherwise the input is a single parameter.
        is_complex: whether it is a matrix, diagonal, state or the values of a sparse matrix.
    """

    layout: ParameterLayout
    trainable: bool
    parameters: tuple[int, ...]
    is_column: bool
    is_complex: bool


@dataclass(frozen=True, slots=True)
class ProgramBinding:
    """A program with the bindings of its inputs and the layout of its results.

    Attributes:
        program: the native program, and `id` its id.
        num_wires: of the tape.
        operations: the number of operations and measurements.
        inputs: the bindings, in the order of the program's inputs.
        result_layout: of the tape's measurements.
    """

    program: _C.Program
    id: int
    num_wires: int
    operations: int
    inputs: tuple[InputBinding, ...]
    result_layout: ResultLayout


class StructureCache:
    """A cache of the programs and plans of tapes that were executed, by structure.

    The oldest are evicted while all take more than `limit` bytes. Programs that compiled functions, layers and graphs
    hold are not in the cache and do not count. Each compiled function has a cache of its own, with the same limit,
    which evicts the least recently used.

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

    # Python objects of a structure and its binding, per operation: an upper estimate of what was measured.
    _BYTES_PER_OPERATION = 256

    def __init__(self, limit: int = 2**30) -> None:
        self._kept: OrderedDict[Structure, ProgramBinding] = OrderedDict()
        self._lock = threading.Lock()  # held while entries are added or evicted
        self._operations = 0
        self._limit = limit

    @property
    def limit(self) -> int:
        """The bytes that all entries may take together, by default 1 GiB; the newest entry is kept whatever its size.

        Raises:
            ValueError: it is set to something other than a non-negative integer.
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
        """The memory of all entries in bytes, approximately."""
        return _C.cached_bytes() + self._BYTES_PER_OPERATION * self._operations

    def __len__(self) -> int:
        return len(self._kept)

    def __repr__(self) -> str:
        mib = 2**20
        return f"<{len(self)} structures in {self.bytes / mib:.1f} MiB of at most {self._limit / mib:.0f} MiB>"

    def clear(self) -> None:
        """Evict all entries."""
        with self._lock:
            while self._kept:
                self._drop_first()

    def find(self, structure: Structure) -> ProgramBinding | None:
        """The binding of an equal structure, None if there is none."""
        return self._kept.get(structure)

    def keep(self, structure: Structure, binding: ProgramBinding) -> None:
        """Add a binding as the newest entry, and evict the oldest beyond the limit."""
        with self._lock:
            if structure not in self._kept:  # another thread may have added it
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
    """A description of the circuits of a call, for `explain`.

    Attributes:
        wires, operations: their numbers.
        gates: a text for each gate of the program, in its order.
        batch: the number of circuits in the call.
        dtype: torch.float32 or torch.float64.
    """

    wires: int
    operations: int
    gates: tuple[str, ...]
    batch: int
    dtype: torch.dtype


def describe_circuit(tape: Tape, batch: int, dtype: torch.dtype) -> Circuit:
    """The description of a call of tapes of one structure."""
    gates = [f"{op.name} on {', '.join(map(str, op.wires))}" for op in tape.operations if not op.is_preparation]
    return Circuit(tape.num_wires, len(tape.operations), tuple(gates), batch, dtype)


@dataclass(slots=True)
class Statistics:
    """The number of programs built since the import."""

    built: int = field(default=0)


statistics = Statistics()


def build_program(tape: Tape, device_type: str = "cpu") -> ProgramBinding:
    """The binding of a tape's structure, from `structure_cache` if it has one.

    Raises:
        MemoryError: the device is the CPU, and the state or a result does not fit its memory. On other devices the
            allocator raises.
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
    """Raise MemoryError if the state of a tape, or one of its results, does not fit the CPU's memory."""
    # Capped, so that the bytes do not overflow a float.
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
        tape: the values of its parameters are not read.
        inputs: for each input whether it is complex, and its shape without the batch axis.
        slot: (parameter, column) → the slot of a scalar, or of a column of a vector of coefficients.
        input_of: parameter → the input of a matrix, a diagonal, a state or the values of a sparse matrix.
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
        """Add a gate or the preparation, whose parameters begin at index `first`."""
        # The structure is unpacked because reading properties one by one would double the time of this function.
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
            wires = []  # the same operation, whatever its wires
        self.builder.gate(name, wires, self.bits(controls), values, inverse, slots, matrix, pauli_word)

    def add_measurement(self, measurement: Measurement, first: int) -> None:
        """Add a measurement; the parameters of its observable begin at index `first`."""
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
    """Bind scalars of one layout to one input, everything else to an input of its own. Input 0 has the numbers."""
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
