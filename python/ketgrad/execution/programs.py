"""Programs: the structure of a tape is built into a native program, once.

A program reads parameters from a few inputs. A `ProgramBinding` says which parameters of a tape make up which input, so
that a call only stacks tensors. Scalars of one layout (numbers, 0-d tensors, batches) share an input, trainable ones
apart from others, because gradients are requested per input.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple, TypeAlias

import torch

from ..circuit.measurements import Measurement
from ..circuit.observables import Observable
from ..circuit.operations import Operation
from ..circuit.tape import Tape
from ..circuit.types import ParameterLayout, Structure
from ..native.library import _C
from ..native.profiling import span
from .results import ResultLayout

SCALAR_KINDS = ("angle", "coefficient")
VECTOR_KIND = "coefficients"
REAL_DIAGONAL_KIND = "entries"

Slot: TypeAlias = tuple[int, int] | tuple[int, int, float, float]
"""Where a scalar is read from: (input, column), or scale × input[column] + offset as (input, column, scale, offset)."""

Place: TypeAlias = Slot | list[Slot]
"""Where a parameter is read from: a scalar's slot, those of a vector's columns; (input, 0) of an input of its own."""


class InputBinding(NamedTuple):
    """One input of a program and the parameters of a tape that it consists of.

    Attributes:
        layout: the layout of the parameters.
        trainable: whether they are trainable parameters of the tape.
        parameters: their indices in `Tape.parameters`, in the order of the input's columns.
        is_column: whether they are scalars, each a column of the input; otherwise the input is a single parameter.
        is_complex: whether it is a matrix, the diagonal of one, a state or the values of a sparse matrix.
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
        ket_size: amplitudes of the final state that is kept for gradients, none where there are parts.
        operations: the number of operations and measurements.
        inputs: the bindings, in the order of the program's inputs.
        result_layout: of the tape's measurements.
    """

    program: _C.Program
    id: int
    ket_size: int
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
        with span("encode"):
            found = _build(tape)
        if device_type == "cpu":
            require_room(tape, found.program, found.result_layout)
        statistics.built += 1
        structure_cache.keep(structure, found)
    return found


def require_room(tape: Tape, program: _C.Program, layout: ResultLayout) -> None:
    """Raise MemoryError if a state of a tape's program, or one of its results, does not fit the CPU's memory."""
    measured = program.measured_wires()
    if not _C.fits_memory(_state_bytes(max(measured))):
        has_parts = bool(program.parts())
        for measurement, wires in zip(tape.measurements, measured, strict=True):
            _require_state(measurement if has_parts else None, wires, tape.num_wires)
    if not _C.fits_memory(float(4 * layout.real_size + 8 * layout.complex_size)):
        for measurement, result in zip(tape.measurements, layout.results, strict=True):
            size = float((8 if result.is_complex else 4) * result.size)
            if not _C.fits_memory(size):
                _C.require_memory(size, f"the result of {measurement!r}")


def _state_bytes(wires: int) -> float:
    """Of a state in single precision; capped, so that they do not overflow a float."""
    return float(8 << min(wires, 1000))


def _require_state(measurement: Measurement | None, wires: int, of: int) -> None:
    """Raise MemoryError if a state on some of a tape's wires does not fit; `measurement`: what depends on them."""
    size = _state_bytes(wires)
    if _C.fits_memory(size):
        return
    what = f"a state on {wires} wires"
    if measurement is not None:
        what = f"{measurement!r} depends on {wires} of {of} wires: {what}"
    _C.require_memory(size, what)


def write_program(tape: Tape, inputs: Sequence[tuple[bool, tuple[int, ...]]], places: Sequence[Place]) -> _C.Program:
    """The native program of a tape's structure, whose inputs the caller arranges; see `_C.write_program`.

    Raises:
        MemoryError: a measurement depends on more wires than are possible.
    """
    with _names_measurements(tape):
        return _C.write_program(tape.structure, inputs, places)


@contextmanager
def _names_measurements(tape: Tape) -> Iterator[None]:
    """MemoryErrors of the native library, which does not know the measurements, say which of a tape's it is."""
    try:
        yield
    except MemoryError as error:
        if len(error.args) == 3:
            _, measurement, wires = error.args
            _require_state(tape.measurements[measurement] if measurement >= 0 else None, wires, tape.num_wires)
        raise


def _build(tape: Tape) -> ProgramBinding:
    with _names_measurements(tape):
        program, inputs = _C.bind_program(tape.structure, tape.parameters)
    bindings = tuple([InputBinding(_LAYOUTS[each[0]], *each[1:]) for each in inputs])
    operations = len(tape.operations) + len(tape.measurements)
    layout = ResultLayout.of(tape.measurements, tape.num_wires)
    return ProgramBinding(program, program.id, program.ket_size, operations, bindings, layout)


_LAYOUTS = {layout.value: layout for layout in ParameterLayout}


def describe_parameters(tape: Tape) -> tuple[list[str], str]:
    """The kind of each parameter of a tape, and the letters of their layouts."""
    owners: list[Operation | Observable] = [operation for operation in tape.operations if operation.parameters]
    owners += [measurement.observable for measurement in tape.measurements if measurement.observable is not None]
    kinds = list(chain.from_iterable([owner.parameter_kinds for owner in owners]))
    return kinds, "".join([owner.parameter_layout for owner in owners])
