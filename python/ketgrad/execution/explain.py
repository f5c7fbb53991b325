"""`explain`: the plan of a tape as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from ..circuit.tape import Tape
from ..native import operators
from ..native.library import _C
from .batching import Group, group_tapes
from .programs import Circuit, describe_circuit

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BINARY = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


@dataclass(frozen=True)
class PassReport:
    """One pass over the state of one circuit.

    Attributes:
        what: what the pass does, in words.
        tiles: the number of tiles of the state; 1 if it fits the cache.
        active_tiles: the number of tiles in the support of the state; the others are zero and not visited.
        rotations: the number of rotations.
        blocks: the number of blocks of up to three rotations that are applied together in registers.
        phases: the number of tables of merged diagonal rotations.
        strings: the number of Z-strings in these tables.
        coset_phases: the number of phases at those basis states where several wires have given values.
        matrices: the number of matrices of up to three wires.
        multiply_adds: expected multiply-adds of real numbers, forward and backward.
        bytes: expected bytes between cache and memory, forward and backward.
        seconds: measured, forward and backward, summed over all circuits and threads; None without `measure=True`.
    """

    what: str
    tiles: int
    active_tiles: int
    rotations: int
    blocks: int
    phases: int
    strings: int
    coset_phases: int
    matrices: int
    multiply_adds: tuple[float, float]
    bytes: tuple[float, float]
    seconds: tuple[float, float] | None


@dataclass(frozen=True)
class Explanation:
    """The plan of a tape; `str` gives it as text.

    Attributes:
        wires: the number of wires.
        gates: the number of operations.
        dropped: the number of gates outside the light cone of the measurements, which are not run.
        basis: "Z" or "X", the basis of the amplitudes: the one in which more rotations are diagonal; "Z" unless only
            Pauli words are measured.
        batch: the number of circuits.
        dtype: torch.complex64 or torch.complex128, of the state.
        regime: how the batch is run, in words.
        tile_bits: a tile has 2^tile_bits amplitudes.
        passes: the passes over the state, in order; those of the observables are the last. None where there are parts.
        parts: what runs instead, if that takes less: circuits on fewer wires whose results add up, each with its gates,
            its wires and a batch of its own. The wires of a part are numbered anew.
    """

    wires: int
    gates: int
    dropped: int
    basis: str
    batch: int
    dtype: torch.dtype
    regime: str
    tile_bits: int
    passes: tuple[PassReport, ...]
    parts: tuple[Explanation, ...] = ()

    @property
    def multiply_adds(self) -> tuple[float, float]:
        """Expected multiply-adds of all passes of one circuit, forward and backward."""
        return self._total([p.multiply_adds for p in self.passes], [p.multiply_adds for p in self.parts])

    @property
    def bytes(self) -> tuple[float, float]:
        """Expected bytes between cache and memory in all passes of one circuit, forward and backward."""
        return self._total([p.bytes for p in self.passes], [p.bytes for p in self.parts])

    def _total(self, of_passes: list[tuple[float, float]], of_parts: list[tuple[float, float]]) -> tuple[float, float]:
        copies = [part.batch / self.batch if self.batch else 0.0 for part in self.parts]
        forward, backward = (
            sum([each[way] for each in of_passes])
            + sum([count * each[way] for count, each in zip(copies, of_parts, strict=True)])
            for way in (0, 1)
        )
        return forward, backward

    def __str__(self) -> str:
        if self.parts:
            texts = [f"part {i}: {part}" for i, part in enumerate(self.parts)]
            costs = f"{_pair(self.multiply_adds, _decimal)} multiply-adds, {_pair(self.bytes, _binary)} bytes"
            return "\n\n".join([self._title(), *texts, f"total: {costs}, of one circuit"])
        measured = any(p.seconds is not None for p in self.passes)
        head = ["pass", "tiles", "work", "multiply-adds", "bytes"] + (["ms"] if measured else [])
        rows = [head, *[_row(i, p) for i, p in enumerate(self.passes)]]
        total = ["total", "", "", _pair(self.multiply_adds, _decimal), _pair(self.bytes, _binary)]
        if measured:
            seconds = [p.seconds or (0.0, 0.0) for p in self.passes]
            total.append(_pair((sum(s[0] for s in seconds), sum(s[1] for s in seconds)), _milliseconds))
        rows.append(total)
        note = (
            "multiply-adds, bytes"
            + (", ms" if measured else "")
            + ": forward / backward"
            + ("; ms of all circuits and threads, the rest of one circuit" if measured else ", of one circuit")
        )
        return "\n".join([self._title(), "", *_table(rows), "", note])

    def _title(self) -> str:
        precision = str(self.dtype).removeprefix("torch.")
        gates = _counted(self.gates, "gate") + (f" ({self.dropped} outside the light cone)" if self.dropped else "")
        counts = (_counted(self.batch, "circuit"), _counted(self.wires, "wire"), gates)
        basis = "" if self.basis == "Z" else f", in the basis of {self.basis}"
        return f"{', '.join(counts)}, {precision}: {self.regime}{basis}"


@dataclass(frozen=True)
class StructureExplanation:
    """The compiled plan of a function for one structure of its arguments.

    Attributes:
        arguments: the structure, in words.
        before: the code that torch runs before the native calls; may be empty.
        calls: the plan of each native call.
        after: the code that torch runs on their results; may be empty.
    """

    arguments: str
    before: str
    calls: tuple[Explanation, ...]
    after: str

    def __str__(self) -> str:
        parts = [f"arguments: {self.arguments}", f"before, by torch:{_code(self.before)}"]
        parts += [f"native call: {call}" for call in self.calls]
        return "\n\n".join([*parts, f"after, by torch:{_code(self.after)}"])


@dataclass(frozen=True)
class CompiledExplanation:
    """The compiled plans of a function; `str` gives them as text.

    Attributes:
        name: of the function.
        structures: one for each traced structure of its arguments.
    """

    name: str
    structures: tuple[StructureExplanation, ...]

    def __str__(self) -> str:
        return "\n\n".join([f"{self.name}, {_counted(len(self.structures), 'structure')}", *map(str, self.structures)])


# The most shared memory of a thread block on an H100, in bytes; used if no GPU is visible.
_H100_SHARED_BYTES = 227 * 1024


def explain(
    tape: Tape,
    dtype: torch.dtype | None = None,
    measure: bool = False,
    device: torch.device | str | None = None,
) -> Explanation:
    """The plan of a tape: passes over the state, tiles, rotations, and their expected cost.

    Args:
        tape: a tape of ketgrad, without shots.
        dtype: torch.float32 or torch.float64, the precision to plan for; by default that of the tape's parameters.
        measure: whether to run the tape forward and backward, by every parameter, and measure the time of each pass;
            by default not.
        device: "cpu" or "cuda", the device to plan for; by default that of the tape's parameters. If no GPU is visible,
            a plan for "cuda" is that of an H100.

    Raises:
        TypeError: the argument is no tape of ketgrad.
        ValueError: the tape has shots, the device is of another type, or as `execute` for the tape's parameters.
        NotImplementedError: `measure` on a GPU; `torch.profiler` shows the kernels there.

    >>> import ketgrad as kg
    >>> layer = [kg.RY(0.1 * w, wires=w) for w in range(6)] + [kg.CNOT(wires=[w, w + 1]) for w in range(5)]
    >>> print(kg.explain(kg.Tape(layer, [kg.expval(kg.Z(5))])))
    1 circuit, 6 wires, 11 gates, complex128: ...
    <BLANKLINE>
    pass  tiles  work ...
    >>> layer = kg.Tape([kg.RX(0.1, wires=w) for w in range(20)], [kg.probs()])
    >>> plan = kg.explain(layer, dtype=torch.float32, device="cuda")
    >>> sum(p.rotations > 0 for p in plan.passes)
    2
    >>> print(kg.explain(kg.Tape([kg.RX(0.1, wires=0), kg.RX(0.1, wires=1)], [kg.expval(kg.Z(0))])))
    1 circuit, 2 wires, 2 gates (1 outside the light cone), complex128: ...
    >>> chain = [kg.RX(0.1, wires=w) for w in range(90)] + [kg.CNOT(wires=[w, w + 1]) for w in range(0, 89, 2)]
    >>> print(kg.explain(kg.Tape(chain, [kg.expval(kg.Z(w)) for w in range(90)])))
    1 circuit, 90 wires, 135 gates, complex128: in ... parts
    ...
    """
    if not isinstance(tape, Tape):
        raise TypeError(f"explain takes a tape of ketgrad, not {type(tape).__name__}")
    if tape.shots is not None:
        raise ValueError("explain takes a tape without shots: its samples are drawn from exact probabilities")
    (group,) = group_tapes([tape], dtype)
    binding = group.binding
    where = group.inputs[0].device if device is None else torch.device(device)
    if where.type not in ("cpu", "cuda"):
        raise ValueError(f"explain plans for 'cpu' or 'cuda', not for {str(where)!r}")
    if measure and where.type != "cpu":
        raise NotImplementedError("passes are measured on the CPU only; on a GPU, torch.profiler shows each kernel")
    times = _measure(group) if measure else None
    circuit = describe_circuit(tape, group.batch, group.inputs[0].dtype)
    return explain_program(binding.program, circuit, where, times)


def explain_program(
    program: _C.Program, circuit: Circuit, device: torch.device, times: Callable[[int], dict[str, Any]] | None = None
) -> Explanation:
    """The plan of a program.

    Args:
        program: the program.
        circuit: a description of the circuits that it runs.
        device: the device to plan for.
        times: id of a program that runs → its times, as `_C.take_profile` returns them; None: not measured.
    """
    if device.type == "cpu" and program.parts():
        return _explain_parts(program, circuit, device, times)
    return _explain_state(program, circuit, device, times and times(program.id))


def _explain_parts(
    program: _C.Program, circuit: Circuit, device: torch.device, times: Callable[[int], dict[str, Any]] | None
) -> Explanation:
    parts = [
        explain_program(part, _circuit_of_part(part, copies * circuit.batch, circuit.dtype), device, times)
        for part, copies in _leaves(program)
    ]
    return Explanation(
        wires=circuit.wires,
        gates=circuit.operations,
        dropped=program.describe()["left_out"],
        basis="Z",
        batch=circuit.batch,
        dtype=circuit.dtype.to_complex(),
        regime=f"in {_counted(len(parts), 'part')}",
        tile_bits=max(part.tile_bits for part in parts),
        passes=(),
        parts=tuple(parts),
    )


def _leaves(program: _C.Program, copies: int = 1) -> list[tuple[_C.Program, int]]:
    """The programs that run in the end, and how many circuits each of them is for one of the whole."""
    parts = program.parts()
    if not parts:
        return [(program, copies)]
    return [leaf for part, members in parts for leaf in _leaves(part, copies * members)]


def _circuit_of_part(part: _C.Program, batch: int, dtype: torch.dtype) -> Circuit:
    names = tuple(part.gate_names())
    return Circuit(part.describe()["num_wires"], len(names), names, batch, dtype)


def _explain_state(
    program: _C.Program, circuit: Circuit, device: torch.device, times: dict[str, Any] | None
) -> Explanation:
    is_double = circuit.dtype is torch.float64
    if device.type == "cpu":
        plan = program.describe_plan(circuit.batch, is_double, torch.get_num_threads())
        regime = _regime(plan)
    else:
        plan = program.describe_gpu_plan(is_double, _shared_bytes(device))
        regime = _gpu_regime(plan)
    passes = [_pass_report(circuit, i, p, times) for i, p in enumerate(plan["passes"])]
    observables = plan["observables"]
    for i, p in enumerate(observables):
        # The time of all observables is measured together, and shown with the last of their passes.
        seconds = (times["measure"], times["bra"]) if times and i == len(observables) - 1 else None
        passes.append(_observable_report(p, seconds or ((0.0, 0.0) if times else None)))
    return Explanation(
        wires=circuit.wires,
        gates=circuit.operations,
        dropped=plan["dropped"],
        basis=plan["basis"],
        batch=circuit.batch,
        dtype=circuit.dtype.to_complex(),
        regime=regime,
        tile_bits=plan["tile_bits"],
        passes=tuple(passes),
    )


def _measure(group: Group) -> Callable[[int], dict[str, Any]]:
    """Program → seconds per pass of one forward and one backward sweep of the group, after a warm-up."""
    program = group.binding.id
    requested = list(range(len(group.inputs)))

    def times_of(measured: int) -> dict[str, Any]:
        for _ in range(2):
            _C.start_profile()
            real, complex_, ket = operators.run_execute(program, group.inputs, operators.EXACT_KET)
            operators.run_execute_vjp(
                program, group.inputs, ket, torch.ones_like(real), torch.ones_like(complex_), requested
            )
            times = _C.take_profile(measured)
        return times

    return times_of


def _regime(plan: dict[str, Any]) -> str:
    if plan["lanes"]:
        return "a circuit in each lane of the vectors" + _tasks(plan["tasks"])
    cut = any(p["tiles"] > 1 for p in plan["passes"])
    layout = f"tiles of 2^{plan['tile_bits']} amplitudes" if cut else "states within the caches"
    return f"one circuit at a time, {layout}" + (
        ", on all threads" if plan["parallel_passes"] else _tasks(plan["tasks"])
    )


def _shared_bytes(device: torch.device) -> int:
    if not torch.cuda.is_available():
        return _H100_SHARED_BYTES
    return int(getattr(torch.cuda.get_device_properties(device), "shared_memory_per_block_optin"))  # noqa: B009 (no stub has it)


def _gpu_regime(plan: dict[str, Any]) -> str:
    if all(p["tiles"] == 1 for p in plan["passes"]):
        return "a block of threads for each circuit, its states in shared memory"
    return f"tiles of 2^{plan['tile_bits']} amplitudes in shared memory, a launch for each pass"


def _tasks(tasks: int) -> str:
    return f", {tasks} tasks" if tasks > 1 else ""


def _pass_report(circuit: Circuit, index: int, found: dict[str, Any], times: dict[str, Any] | None) -> PassReport:
    costs = found["costs"]
    what = _rotations(found) if found["gate"] is None else f"{circuit.gates[found['gate']]} by itself"
    return PassReport(
        what=what,
        tiles=found["tiles"],
        active_tiles=found["active_tiles"],
        rotations=found["rotations"],
        blocks=found["blocks"],
        phases=found["phases"],
        strings=found["strings"],
        coset_phases=found["coset_phases"],
        matrices=found["matrices"],
        multiply_adds=(costs[0], costs[2]),
        bytes=(costs[1], costs[3]),
        seconds=None if times is None else (times["forward"][index], times["backward"][index]),
    )


def _rotations(found: dict[str, Any]) -> str:
    parts = []
    if found["rotations"]:
        parts.append(f"{_counted(found['rotations'], 'rotation')} in {_counted(found['blocks'], 'block')}")
    if found["phases"]:
        parts.append(f"{_counted(found['strings'], 'phase')} in {_counted(found['phases'], 'table')}")
    if found["coset_phases"]:
        parts.append(_counted(found["coset_phases"], "phase on a coset", "phases on cosets"))
    if found["matrices"]:
        parts.append(_counted(found["matrices"], "matrix", "matrices"))
    return ", ".join(parts)


def _observable_report(found: dict[str, Any], seconds: tuple[float, float] | None) -> PassReport:
    costs = found["costs"]
    where = ", in the tiles of the last pass" if found["in_last_pass"] else ""
    what = f"{_counted(found['words'], 'Pauli word')} in {_counted(found['groups'], 'group')}{where}"
    return PassReport(
        what, found["tiles"], found["tiles"], 0, 0, 0, 0, 0, 0, (costs[0], costs[2]), (costs[1], costs[3]), seconds
    )


# --- text -------------------------------------------------------------------------------------------------------------


def _code(text: str) -> str:
    return f"\n{text}" if text else " nothing"


def _counted(number: int, noun: str, plural: str | None = None) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {plural or noun + 's'}"


def _row(index: int, report: PassReport) -> list[str]:
    tiles = str(report.tiles) if report.active_tiles == report.tiles else f"{report.active_tiles} of {report.tiles}"
    cells = [str(index), tiles, report.what, _pair(report.multiply_adds, _decimal), _pair(report.bytes, _binary)]
    return cells + ([_pair(report.seconds, _milliseconds)] if report.seconds is not None else [])


def _pair(values: tuple[float, float], text: Any) -> str:
    return f"{text(values[0])} / {text(values[1])}"


def _decimal(value: float) -> str:
    for size, unit in _UNITS:
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _binary(value: float) -> str:
    for size, unit in _BINARY:
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
