"""Circuits as text: one line per wire, time from left to right, measurements at the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from .measurements import Measurement
from .observables import Observable, describe, factor_label
from .operations import Operation
from .types import Parameter, ParameterLayout, Wire

if TYPE_CHECKING:
    from .tape import Tape

_CONTROLS = {"CNOT": 1, "CY": 1, "CZ": 1, "CH": 1, "CSWAP": 1, "Toffoli": 2, "CCZ": 2}
_CONTROLS |= {"CRX": 1, "CRY": 1, "CRZ": 1, "CRot": 1, "ControlledPhaseShift": 1}

_LABELS = {"CNOT": "X", "CY": "Y", "CZ": "Z", "CH": "H", "CSWAP": "×", "Toffoli": "X", "CCZ": "Z", "SWAP": "×"}
_LABELS |= {"CRX": "RX", "CRY": "RY", "CRZ": "RZ", "CRot": "Rot", "ControlledPhaseShift": "P", "PhaseShift": "P"}
_LABELS |= {"Identity": "I", "QubitUnitary": "U", "DiagonalQubitUnitary": "D", "StatePrep": "|ψ⟩"}
_LABELS |= {"DiagonalEvolution": "D"}

# Gates on several wires that are symmetric in them.
_SYMMETRIC = {"SWAP", "ISWAP", "PSWAP", "IsingXX", "IsingYY", "IsingZZ", "IsingXY", "MultiRZ", "GlobalPhase"}

_MEASUREMENTS = {"probs": "Probs", "state": "State", "density_matrix": "DensityMatrix", "var": "Var"}
_MEASUREMENTS |= {"sample": "Sample", "counts": "Counts"}


class _Item(NamedTuple):
    """One operation or measurement: texts by row, and whether a vertical line joins them."""

    texts: dict[int, str]
    joined: bool


class _Column(NamedTuple):
    """One time step: by row a joint ("╭", "├", "│" or "╰") and a text."""

    joints: dict[int, str]
    texts: dict[int, str]
    measured: bool


def draw(tape: Tape, decimals: int | None = 2, width: int = 100) -> str:
    """The tape as text.

    A batch of angles is shown by its size, such as RX([32]), and an angle without a value, such as one on the meta
    device, as "?". Controls are ● (on 1) and ○ (on 0). A gate whose wires are not in the order of the rows numbers
    them, as in U[0], U[1]. An observable that is not one plain product has a name and a line below the circuit.

    Args:
        tape: the circuit.
        decimals: the decimals of an angle; None shows no angles.
        width: the most characters of a line; longer circuits continue in a new block.
    """
    rows = {wire: row for row, wire in enumerate(tape.wires)}
    names = _named_observables(tape.measurements)
    columns = _packed((_operation(op, rows, decimals) for op in tape.operations), measured=False)
    columns += _packed((_measurement(m, rows, names) for m in tape.measurements), measured=True)
    heads = _aligned([f"{wire}: " for wire in tape.wires])
    blocks = _blocks([_rendered(column, len(rows)) for column in columns], len(heads[0]), width)
    pictures = [_picture(heads, block, i > 0, i + 1 < len(blocks)) for i, block in enumerate(blocks)]
    legend = [f"{name} = {describe(observable)}" for observable, name in names.values()]
    return "\n\n".join([*pictures, "\n".join(legend)] if legend else pictures)


# ---------------------------------------------------------------------------------------------------------------------
# Operations


def _operation(op: Operation, rows: dict[Wire, int], decimals: int | None) -> _Item:
    if op.name in ("Identity", "BasisState") and not op.control_wires:
        bits = op.bits or [None] * len(op.wires)
        return _Item({rows[w]: "I" if b is None else f"|{b}⟩" for w, b in zip(op.wires, bits, strict=True)}, False)
    texts = {rows[w]: "●" if value else "○" for w, value in zip(op.control_wires, op.control_values, strict=True)}
    gate_rows = [rows[wire] for wire in op.base_wires]
    built_in = _CONTROLS.get(op.name, 0)
    texts |= dict.fromkeys(gate_rows[:built_in], "●")
    targets = gate_rows[built_in:]
    label, values = _label(op), _values(op, decimals)
    for row, text in zip(targets, _target_texts(op, label, targets), strict=True):
        texts[row] = text + (values if row == min(targets) else "")
    if not targets:
        # A global phase is drawn on its first control, or on the first row.
        first = min(texts, default=0)
        texts[first] = texts.get(first, "") + label + values
    return _Item(texts, len(texts) > 1)


def _label(op: Operation) -> str:
    return _LABELS.get(op.name, op.name) + ("†" if op.inverse else "")


def _target_texts(op: Operation, label: str, targets: list[int]) -> list[str]:
    if op.word:
        return [f"R{'†' if op.inverse else ''}·{letter}" for letter in op.word]
    if op.name in _SYMMETRIC or op.name == "CSWAP" or targets == sorted(targets):
        return [label] * len(targets)
    return [f"{label}[{place}]" for place in range(len(targets))]


def _values(op: Operation, decimals: int | None) -> str:
    if decimals is None:
        return ""
    batched = [ParameterLayout(letter).is_batched for letter in op.parameter_layout]
    shown = [
        f"[{len(value)}]" if is_batched else _angle(value, decimals)  # type: ignore[arg-type]
        for value, kind, is_batched in zip(op.parameters, op.parameter_kinds, batched, strict=True)
        if kind == "angle" or is_batched
    ]
    return f"({', '.join(shown)})" if shown else ""


def _angle(value: Parameter, decimals: int) -> str:
    try:
        return f"{float(value.detach() if isinstance(value, Tensor) else value):.{decimals}f}"
    except RuntimeError:  # a tensor without a value: on the meta device, or under tracing or a transform
        return "?"


# ---------------------------------------------------------------------------------------------------------------------
# Measurements


def _named_observables(measurements: Iterable[Measurement]) -> dict[int, tuple[Observable, str]]:
    """A name for each observable that is not one plain product, by its `id`."""
    found: dict[int, tuple[Observable, str]] = {}
    for measurement in measurements:
        observable = measurement.observable
        if observable is not None and not _is_product(observable) and id(observable) not in found:
            found[id(observable)] = observable, f"O{len(found) + 1}"
    return found


def _is_product(observable: Observable) -> bool:
    terms = observable.terms
    return len(terms) == 1 and terms[0].scale == 1 and not terms[0].coefficients


def _measurement(measurement: Measurement, rows: dict[Wire, int], names: dict[int, tuple[Observable, str]]) -> _Item:
    observable = measurement.observable
    wires = measurement.wires or tuple(rows)
    if observable is None:
        texts = dict.fromkeys((rows[wire] for wire in wires), _MEASUREMENTS[measurement.kind])
    elif id(observable) in names:
        text = _bracketed(measurement.kind, names[id(observable)][1])
        texts = dict.fromkeys((rows[wire] for wire in wires), text)
    else:
        texts = {rows[wire]: _bracketed(measurement.kind, "I") for wire in wires}
        for wire, letter in observable.terms[0].word:
            texts[rows[wire]] = _bracketed(measurement.kind, letter)
        for factor in observable.terms[0].factors:
            texts |= {rows[wire]: _bracketed(measurement.kind, factor_label(factor)) for wire in factor.wires}
    return _Item(texts, len(texts) > 1)


def _bracketed(kind: str, text: str) -> str:
    return f"⟨{text}⟩" if kind == "expval" else f"{_MEASUREMENTS[kind]}[{text}]"


# ---------------------------------------------------------------------------------------------------------------------
# Layout


def _packed(items: Iterable[_Item], measured: bool) -> list[_Column]:
    """The items in columns, each in the first column where its rows are free."""
    columns: list[_Column] = []
    free: dict[int, int] = {}
    for texts, joined in items:
        first, last = min(texts), max(texts)
        covered = range(first, last + 1) if joined else list(texts)
        at = max(free.get(row, 0) for row in covered)
        if at == len(columns):
            columns.append(_Column({}, {}, measured))
        columns[at].texts.update(texts)
        if joined:
            joints = {row: "├" if row in texts else "│" for row in covered}
            columns[at].joints.update({**joints, first: "╭", last: "╰"})
        free.update(dict.fromkeys(covered, at + 1))
    return columns


def _rendered(column: _Column, count: int) -> tuple[list[str], bool]:
    """The column's text for each row, padded to one width, and whether it is measured."""
    fill = " " if column.measured else "─"
    blank = fill if column.joints else ""
    cells = [column.joints.get(row, blank) + column.texts.get(row, "") for row in range(count)]
    return _aligned(cells, fill), column.measured


def _aligned(cells: list[str], fill: str = " ") -> list[str]:
    width = max(map(len, cells))
    return [cell.ljust(width, fill) for cell in cells]


_Cells = tuple[list[str], bool]


def _blocks(columns: list[_Cells], head: int, width: int) -> list[list[_Cells]]:
    """The columns in blocks of at most the given width, with at least one column each."""
    blocks: list[list[_Cells]] = [[]]
    room = width - head - 11  # for "···──" before, "┤ " and " ···" after the columns
    used = 0
    for column in columns:
        size = len(column[0][0]) + 2
        if blocks[-1] and used + size > room:
            blocks.append([])
            used = 0
        blocks[-1].append(column)
        used += size
    return blocks


def _picture(heads: list[str], block: list[_Cells], continued: bool, continues: bool) -> str:
    return "\n".join(_lines(heads, block, continued, continues))


def _lines(heads: list[str], block: list[_Cells], continued: bool, continues: bool) -> Iterator[str]:
    gates = [cells for cells, measured in block if not measured]
    ends = [cells for cells, measured in block if measured]
    for row, head in enumerate(heads):
        text = head + ("···" if continued else "") + "──" + "".join(cells[row] + "──" for cells in gates)
        if ends:
            text += "┤ " + "  ".join(cells[row] for cells in ends)
        yield (text + " ···" if continues else text).rstrip()
