"""How far values, gradients and norms are off as circuits grow, in complex64 and complex128.

Families of circuits, some of which round every gate alike, are run as a single circuit, as a batch whose samples have
their own angles, and as a batch that shares all angles but one. complex64 is compared with complex128, and that with a
reference in longer numbers (extended.py): mpmath on two wires and up to 1,000 gates, else the machine's longdouble,
where it has one. The folder --out gets results.json, results.md and accuracy.png (what docs/accuracy.md shows).

    python benchmarks/accuracy.py --quick
    python benchmarks/accuracy.py
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import ketgrad as kg
from extended import LONGDOUBLE, Circuit, Numbers, Word, arbitrary
from ketgrad.native.library import _C
from machine import cpu_name
from workloads import Gate, ring

ROOT = Path(__file__).resolve().parents[1]
PICTURE = "accuracy.png"
PRECISIONS = {"complex64": torch.float32, "complex128": torch.float64}
ROUNDOFF = {"complex64": 2.0**-24, "complex128": 2.0**-53}
"""u: the largest relative error of one rounding."""
QUANTITIES = ("value", "gradient", "norm")
MODES = ("single", "own", "shared")
"""A single circuit; a batch whose samples have their own angles; one that shares all angles but the first."""
BATCH = 16
LONG = arbitrary(120)
FEW_WIRES = (2, 6, 10)
GATES = (10, 100, 1000, 10000)
WIRES = (2, 4, 6, 8, 10, 12, 14, 15, 16, 18, 20, 22, 24)
GATES_PER_WIRE = (1, 12)
"""Of the circuits that grow in wires. After a gate on each, many amplitudes are alike, and so are roundings of sums."""
BATCHED_WIRES = 15
"""Up to here a batch runs with its samples side by side."""
PASS_WIRES = 20
"""Up to here gates that take a pass each take seconds."""

Array = NDArray[Any]
Draw = Callable[[float, float], Array]
"""Angles of one gate, one for each sample or one for all, uniform between two numbers."""
Steps = Iterator[tuple[str, tuple[int, ...], Array | None]]


# --- families ---------------------------------------------------------------------------------------------------------


def random_angles(wires: int, draw: Draw, precision: str) -> Steps:
    """RX, RY and RZ by random angles on each wire, a ring of CNOT."""
    while True:
        for wire in range(wires):
            for name in ("RX", "RY", "RZ"):
                yield name, (wire,), draw(0, 2 * math.pi)
        yield from (("CNOT", pair, None) for pair in ring(tuple(range(wires))))


def one_angle(wires: int, draw: Draw, precision: str) -> Steps:
    """RY and RZ by the worst angle on each wire, a ring of CNOT."""
    angle = worst_angle(precision)
    while True:
        for wire in range(wires):
            yield "RY", (wire,), draw(angle, angle)
            yield "RZ", (wire,), draw(angle, angle)
        yield from (("CNOT", pair, None) for pair in ring(tuple(range(wires))))


def product_state(wires: int, draw: Draw, precision: str) -> Steps:
    """RY by the worst angle on each wire: the amplitudes of many basis states are alike."""
    angle = worst_angle(precision)
    while True:
        yield from (("RY", (wire,), draw(angle, angle)) for wire in range(wires))


def quarter_phases(wires: int, draw: Draw, precision: str) -> Steps:
    """RX and IsingXX by random angles, SX, H, S, T and CZ: what multiplies by powers of exp(iπ/4)."""
    while True:
        for wire in range(wires):
            yield "RX", (wire,), draw(0, 2 * math.pi)
            yield from ((name, (wire,), None) for name in ("SX", "T", "H", "S"))
        for pair in ring(tuple(range(wires))):
            yield "IsingXX", pair, draw(0, 2 * math.pi)
            yield "CZ", pair, None


def trotter(wires: int, draw: Draw, precision: str) -> Steps:
    """Small steps of the transverse-field Ising model: IsingZZ by 0.02 on a chain, RX by 0.014 on each wire."""
    while True:
        yield from (("IsingZZ", (wire, wire + 1), draw(0.02, 0.02)) for wire in range(wires - 1))
        yield from (("RX", (wire,), draw(0.014, 0.014)) for wire in range(wires))


def near_pi(wires: int, draw: Draw, precision: str) -> Steps:
    """RX, RY and RZ by angles within 0.001 of π, whose halves have cosines near 0; IsingXX likewise."""
    while True:
        for wire in range(wires):
            for name in ("RY", "RZ", "RX"):
                yield name, (wire,), draw(math.pi - 1e-3, math.pi + 1e-3)
        yield from (("IsingXX", pair, draw(math.pi - 1e-3, math.pi + 1e-3)) for pair in ring(tuple(range(wires))))


def controlled(wires: int, draw: Draw, precision: str) -> Steps:
    """CRX by random angles on neighbours, RY by random angles on each wire."""
    while True:
        yield from (("RY", (wire,), draw(0, 2 * math.pi)) for wire in range(wires))
        yield from (("CRX", pair, draw(0, 2 * math.pi)) for pair in ring(tuple(range(wires))))


def unfused(wires: int, draw: Draw, precision: str) -> Steps:
    """Gates that are no rotations, QubitUnitary, Toffoli and DoubleExcitation, between RY and RX by the worst angle."""
    angle = worst_angle(precision)
    for layer in itertools.count():
        for name, size in (("QubitUnitary", 2), ("Toffoli", 3), ("DoubleExcitation", 4)):
            if size <= wires:
                on = tuple((layer + i) % wires for i in range(size))
                yield name, on, draw(angle, angle) if name == "DoubleExcitation" else None
                yield "RY", on[:1], draw(angle, angle)
                yield "RX", on[-1:], draw(angle, angle)


FAMILIES: dict[str, Callable[[int, Draw, str], Steps]] = {
    "random angles": random_angles,
    "one angle": one_angle,
    "product state": product_state,
    "quarter phases": quarter_phases,
    "Trotter steps": trotter,
    "near π": near_pi,
    "controlled": controlled,
    "unfused": unfused,
}


@cache
def worst_angle(precision: str) -> float:
    """Of 1,000 angles, which float32 holds exactly, the one whose cosine and sine are rounded worst.

    That is: cos² + sin² of half the angle is farthest from 1 once both are rounded. Gates that repeat it lose or gain
    as much of the norm each time.
    """
    angles = np.random.default_rng(0).uniform(0, 2 * math.pi, 1000).astype(np.float32)
    halves = LONG.real(angles.astype(np.float64)) / 2
    dtype = {"complex64": np.float32, "complex128": np.float64}[precision]
    cosines, sines = (LONG.real(f(halves).astype(dtype).astype(np.float64)) for f in (LONG.cosine, LONG.sine))
    excess = np.abs(cosines**2 + sines**2 - 1)
    return float(angles[int(np.argmax(excess))])


class Case(NamedTuple):
    """What is run.

    Attributes:
        family: of `FAMILIES`.
        wires, gates: how many.
        mode: of `MODES`.
        precision: of `PRECISIONS`.
    """

    family: str
    wires: int
    gates: int
    mode: str
    precision: str

    @property
    def drifts(self) -> bool:
        """Whether roundings that are alike add up: no scale takes in what they do to the norm."""
        return self.precision == "complex128" or self.mode == "own"


PROMISED = {"value": (100, 2, 5), "gradient": (100, 2, 5), "norm": (100, 2, 8)}
"""Of each quantity: c₀, c₁ of cases that do not drift, and c₁ of those that do."""


def bound(quantity: str, gates: int, drifts: bool) -> float:
    """What docs/accuracy.md promises, (c₀ + c₁ N) u, in units of the roundoff u."""
    constant, steady, drifting = PROMISED[quantity]
    return constant + (drifting if drifts else steady) * gates


@lru_cache(maxsize=2)
def circuit_of(case: Case) -> tuple[list[Gate], dict[str, Array]]:
    """Gates and the values of their inputs, (count, B) each, which float32 holds exactly; B = 1 without a batch."""
    rng = np.random.default_rng(len(case.family) + case.wires)
    samples = BATCH if case.mode == "own" else 1

    def draw(low: float, high: float) -> Array:
        return rng.uniform(low, high, samples)

    gates: list[Gate] = []
    weights: list[Array] = []
    for name, wires, angle in itertools.islice(FAMILIES[case.family](case.wires, draw, case.precision), case.gates):
        gates.append(Gate(name, wires, None if angle is None else ("weights", len(weights))))
        weights += [] if angle is None else [angle]
    inputs = {"weights": np.array(weights).reshape(len(weights), samples)}
    if case.mode == "shared":
        gates = [Gate("RY", (0,), ("data", 0)), *gates]
        inputs["data"] = rng.uniform(0, 2 * math.pi, (1, BATCH))
    return gates, {source: values.astype(np.float32).astype(np.float64) for source, values in inputs.items()}


def words_of(wires: int) -> list[Word]:
    """What is measured: Z and X on the first and the last wire, and products on the first two."""
    ends = [((wire, letter),) for wire in sorted({0, wires - 1}) for letter in "ZX"]
    return [*ends, ((0, "Z"), (1, "Z")), ((0, "X"), (1, "X"))]


def observable_of(wires: int) -> list[tuple[float, Word]]:
    """What is differentiated: coefficients whose absolute values add up to 1."""
    return [(0.5, ((0, "X"),)), (0.5, ((0, "Z"), (1, "Z")))]


# --- results ----------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a circuit gives.

    Attributes:
        values: of the words, (words, B).
        gradient: of the observable by the weights, (weights, B); the mean over the batch where that shares them.
        norms: the squared norm of the state, and the sum of all probabilities, of each sample.
    """

    values: Array
    gradient: Array
    norms: Array


def operation(gate: Gate, inputs: dict[str, Sequence[torch.Tensor]], dtype: torch.dtype) -> kg.Operation:
    """A gate as ketgrad's."""
    wires = gate.wires[0] if len(gate.wires) == 1 else gate.wires
    if gate.name == "QubitUnitary":
        powers = torch.tensor([[a * b % 4 for a in range(4)] for b in range(4)])
        unit = torch.tensor([1, 1j, -1, -1j], dtype=dtype.to_complex())
        return kg.QubitUnitary(0.5 * unit[powers], wires=wires)
    parameters = [] if gate.slot is None else [inputs[gate.slot[0]][gate.slot[1]]]
    return getattr(kg, gate.name)(*parameters, wires=wires)


def word(letters: Word) -> kg.Observable:
    """A Pauli word as ketgrad's."""
    first, *others = [getattr(kg, letter)(wire) for wire, letter in letters]
    for other in others:
        first = first @ other
    return first


def answer(case: Case, precision: str) -> Answer:
    """What ketgrad gives in a precision; norms are summed in longer numbers."""
    gates, values = circuit_of(case)
    dtype = PRECISIONS[precision]
    leaves = {
        source: torch.tensor(x if x.shape[-1] > 1 else x[:, 0], dtype=dtype, requires_grad=source == "weights")
        for source, x in values.items()
    }
    inputs = {source: leaf.unbind(0) for source, leaf in leaves.items()}
    operations = [operation(gate, inputs, dtype) for gate in gates]
    terms = observable_of(case.wires)
    energy = kg.Hamiltonian([coefficient for coefficient, _ in terms], [word(letters) for _, letters in terms])
    measured = [kg.expval(word(letters)) for letters in words_of(case.wires)]
    wires = range(case.wires)
    # Identities, so that every wire is the tape's however short the circuit is.
    tape = kg.Tape(
        [*operations, kg.Identity(wires=wires)], [kg.expval(energy), *measured, kg.probs(wires=wires), kg.state()]
    )
    (results,) = kg.execute([tape], dtype=dtype)
    mean, *found, probabilities, state = results
    loss = mean.mean() if case.mode == "shared" else mean.sum()
    (gradient,) = torch.autograd.grad(loss, leaves["weights"])
    parts = torch.view_as_real(state.detach()).flatten(-2).numpy().astype(np.longdouble)
    norms = [np.square(parts).sum(-1), probabilities.detach().numpy().astype(np.longdouble).sum(-1)]
    columns = (torch.stack(found).detach().numpy(), gradient.numpy(), np.stack(norms))
    return Answer(*(column.reshape(len(column), -1) for column in columns))


def extended(case: Case, numbers: Numbers) -> Answer:
    """What the reference gives."""
    gates, inputs = circuit_of(case)
    circuit = Circuit(gates, case.wires, inputs, numbers)
    gradient = circuit.gradient(observable_of(case.wires), "weights")
    if case.mode == "shared":
        gradient = gradient.sum(axis=1, keepdims=True) / BATCH
    return Answer(circuit.values(words_of(case.wires)), gradient, np.ones((2, 1)))


def reference_numbers(case: Case) -> Numbers | None:
    """What the reference of complex128 computes in: what is long enough, and takes seconds."""
    work = case.gates * 2**case.wires * (1 if case.mode == "single" else BATCH)
    if LONGDOUBLE.bits < 64:
        return LONG if work <= 60_000 else None
    return LONG if work <= 4000 else LONGDOUBLE if work <= 20_000_000 else None


def errors(case: Case) -> dict[str, float] | None:
    """The largest errors, in units of u; None where there is no reference.

    Values and entries of gradients are compared with max(1, |what is right|), norms with 1.
    """
    if case.precision == "complex64":
        right = answer(case, "complex128")
    elif numbers := reference_numbers(case):
        right = extended(case, numbers)
    else:
        return None
    found = answer(case, case.precision)
    off = {
        "value": largest(found.values, right.values),
        "gradient": largest(found.gradient, right.gradient),
        "norm": largest(found.norms, np.ones_like(found.norms)),
    }
    return {quantity: error / ROUNDOFF[case.precision] for quantity, error in off.items()}


def largest(found: Array, right: Array) -> float:
    """The largest deviation; in numbers as long as those of what is right. NaN is off by infinity."""
    off = (np.abs(found.astype(right.dtype) - right) / np.maximum(np.abs(right), 1)).astype(np.float64)
    return float(np.max(np.where(np.isnan(off), np.inf, off), initial=0.0))


# --- pairs of gates, again and again --------------------------------------------------------------------------------


PAIRS: dict[str, tuple[Gate, ...]] = {
    "RX RY": (Gate("RX", (0,), ("weights", 0)), Gate("RY", (0,), ("weights", 0))),
    "RY RZ": (Gate("RY", (0,), ("weights", 0)), Gate("RZ", (0,), ("weights", 0))),
    "RY": (Gate("RY", (0,), ("weights", 0)),),
    "IsingXX RZ": (Gate("IsingXX", (0, 1), ("weights", 0)), Gate("RZ", (0,), ("weights", 0))),
    "SX RY": (Gate("SX", (0,)), Gate("RY", (0,), ("weights", 0))),
}
PAIR_ANGLE = float(np.float32(0.3))


def repeated(name: str, gates: int) -> list[Gate]:
    """So many gates."""
    return list(itertools.islice(itertools.cycle(PAIRS[name]), gates))


def pair_excess(name: str, gates: int, mode: str) -> float:
    """What all probabilities together are above 1, in complex64: of the sample that is farthest off."""
    angle = torch.full([BATCH] if mode == "own" else [], PAIR_ANGLE)
    operations = [operation(gate, {"weights": [angle]}, torch.float32) for gate in repeated(name, gates)]
    if mode == "shared":
        operations.insert(0, kg.RY(torch.linspace(0, 3, BATCH), wires=0))
    wires = sorted({wire for gate in PAIRS[name] for wire in gate.wires})
    (probabilities,) = kg.execute([kg.Tape(operations, [kg.probs(wires=wires)])], diff_method=None)
    return max((probabilities.double().sum(-1) - 1).reshape(-1).tolist(), key=abs)


def lightning_excess(name: str, gates: int) -> float | None:
    """The same of lightning.qubit; None where it is not installed."""
    try:
        import pennylane as qml
        import pennylane_lightning.lightning_qubit  # noqa: F401
    except ImportError:
        return None
    wires = range(max(wire for gate in PAIRS[name] for wire in gate.wires) + 1)
    operations = [
        getattr(qml, gate.name)(*([] if gate.slot is None else [PAIR_ANGLE]), wires=gate.wires)
        for gate in repeated(name, gates)
    ]
    tape = qml.tape.QuantumScript(operations, [qml.probs(wires=wires)])
    found = qml.device("lightning.qubit", wires=len(wires), c_dtype=np.complex64).execute(tape)
    return float(np.asarray(found, dtype=np.float64).sum() - 1)


def pair_excesses(gates: int) -> dict[str, dict[str, float | None]]:
    """Of all pairs, by mode, and of Lightning."""
    return {
        name: {mode: pair_excess(name, gates, mode) for mode in MODES}
        | {"lightning.qubit": lightning_excess(name, gates)}
        for name in PAIRS
    }


# --- the report -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """A case and its largest errors, in u."""

    case: Case
    errors: dict[str, float]

    def share(self, quantity: str) -> float:
        """Of the bound."""
        return self.errors[quantity] / bound(quantity, self.case.gates, self.case.drifts)


def growing_gates(families: Sequence[str], gates: Sequence[int]) -> list[Case]:
    """On few wires."""
    return [
        Case(family, wires, count, mode, precision)
        for family, wires, count, mode, precision in itertools.product(families, FEW_WIRES, gates, MODES, PRECISIONS)
    ]


def growing_wires(families: Sequence[str], wires: Sequence[int]) -> list[Case]:
    """Few gates for each wire."""
    return [
        Case(family, n, gates * n, mode, precision)
        for family, n, gates, mode, precision in itertools.product(families, wires, GATES_PER_WIRE, MODES, PRECISIONS)
        if n <= (PASS_WIRES if family == "unfused" else max(WIRES)) and (n <= BATCHED_WIRES or mode == "single")
    ]


def worst(measured: Iterable[Measured], quantity: str, **wanted: Any) -> float | None:
    """The largest error, in u, among the cases with these attributes, if there are some."""
    found = [
        m.errors[quantity] for m in measured if all(getattr(m.case, name) == value for name, value in wanted.items())
    ]
    return max(found, default=None)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def error_table(measured: Sequence[Measured], attribute: str, **wanted: Any) -> str:
    """Absolute errors, a row for each value of an attribute."""
    columns = list(itertools.product(PRECISIONS, QUANTITIES))
    rows = []
    for value in dict.fromkeys(getattr(m.case, attribute) for m in measured):
        row = [f"{value:,}" if isinstance(value, int) else value]
        for precision, quantity in columns:
            off = worst(measured, quantity, precision=precision, **{attribute: value}, **wanted)
            row.append("" if off is None else f"{off * ROUNDOFF[precision]:.1e}")
        rows.append(row)
    return table([attribute, *(f"{precision} {quantity}" for precision, quantity in columns)], rows)


GROUPS = {False: "complex64, single or shared", True: "complex128, or own"}
"""Cases, by whether they drift."""


def share_table(measured: Sequence[Measured]) -> str:
    """The largest share of the bound that an error takes, and where."""
    rows = []
    for (drifts, group), quantity in itertools.product(GROUPS.items(), QUANTITIES):
        most = max((m for m in measured if m.case.drifts == drifts), key=lambda m: m.share(quantity))
        family, wires, gates, mode, precision = most.case
        where = f"{family}, {gates:,} gates on {wires} wires, {mode}, {precision}"
        rows.append([group, quantity, f"{most.share(quantity):.0%}", where])
    return table(["circuits", "quantity", "largest share", "where"], rows)


def pair_table(excesses: dict[str, dict[str, float | None]]) -> str:
    """What is above 1, a row for each pair."""
    rows = [
        [name, *("" if off is None else f"{off:.1e}" for off in found.values())] for name, found in excesses.items()
    ]
    return table(["gates", *next(iter(excesses.values()))], rows)


def markdown(
    by_gates: Sequence[Measured],
    by_wires: Sequence[Measured],
    excesses: dict[str, dict[str, float | None]],
    header: str,
) -> str:
    """All tables."""
    most = max(m.case.gates for m in by_gates)
    few = ", ".join(map(str, FEW_WIRES))
    parts = [
        header,
        f"![Errors of values, gradients and norms by gates and by wires, below the bound]({PICTURE})\n",
        "Largest shares of the bound:\n",
        share_table([*by_gates, *by_wires]),
        f"Largest errors after {most:,} gates on {few} wires, by family:\n",
        error_table(by_gates, "family", gates=most),
        "By mode:\n",
        error_table(by_gates, "mode", gates=most),
        "By the number of gates:\n",
        error_table(by_gates, "gates"),
        f"By the number of wires, with {GATES_PER_WIRE[0]} or {GATES_PER_WIRE[-1]} gates for each:\n",
        error_table(by_wires, "wires"),
        f"Of {most:,} gates by the angle {PAIR_ANGLE:.1g}, one or two of them again and again, what all probabilities "
        "together are above 1 in complex64:\n",
        pair_table(excesses),
    ]
    return "\n".join(parts)


def picture(by_gates: Sequence[Measured], by_wires: Sequence[Measured], path: Path) -> None:
    """Errors in u: filled for cases that do not drift, hollow for others, a colour for each family; bounds in black."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, len(QUANTITIES), figsize=(12, 7.5), sharey=True, layout="constrained")
    colours = dict(zip(FAMILIES, plt.get_cmap("tab10").colors, strict=False))
    for row, (measured, attribute) in zip(axes, ((by_gates, "gates"), (by_wires, "wires")), strict=True):
        xs = sorted({getattr(m.case, attribute) for m in measured})
        gates = xs if attribute == "gates" else [GATES_PER_WIRE[-1] * x for x in xs]
        for axis, quantity in zip(row, QUANTITIES, strict=True):
            for (family, colour), drifts in itertools.product(colours.items(), GROUPS):
                wanted = {"family": family, "drifts": drifts}
                errors = {x: worst(measured, quantity, **wanted, **{attribute: x}) for x in xs}
                curve = [(x, off) for x, off in errors.items() if off is not None]
                axis.plot(
                    [x for x, _ in curve],
                    [off for _, off in curve],
                    marker="s" if drifts else "o",
                    markersize=4,
                    markerfacecolor="white" if drifts else colour,
                    linestyle=":" if drifts else "-",
                    linewidth=1,
                    color=colour,
                    label=None if drifts else family,
                )
            for drifts, style in ((False, "-"), (True, ":")):
                axis.plot(xs, [bound(quantity, count, drifts) for count in gates], style, color="black", linewidth=2)
            axis.set_xscale("log" if attribute == "gates" else "linear")
            axis.set_yscale("log")
            axis.grid(color="0.92")
            for side in ("top", "right"):
                axis.spines[side].set_visible(False)
            axis.set_xlabel(
                "gates" if attribute == "gates" else f"wires, with up to {GATES_PER_WIRE[-1]} gates for each"
            )
        row[0].set_ylabel("largest error, in u")
    for axis, quantity in zip(axes[0], QUANTITIES, strict=True):
        axis.set_title(quantity)
    for drifts, group in GROUPS.items():
        style = {"marker": "s" if drifts else "o", "markerfacecolor": "white" if drifts else "0.3"}
        axes[0][0].plot([], [], ":" if drifts else "-", color="0.3", linewidth=1, label=group, **style)
        axes[0][0].plot([], [], ":" if drifts else "-", color="black", linewidth=2, label="its bound")
    entries = axes[0][0].get_legend_handles_labels()
    figure.legend(*entries, loc="outside upper center", ncols=6, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gates", nargs="+", type=int, default=GATES, help="numbers of gates, on few wires")
    parser.add_argument("--wires", nargs="+", type=int, default=WIRES, help="numbers of wires, with few gates")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=FAMILIES, metavar="NAME")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="1,000 gates and 12 wires at most: a minute")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "accuracy", metavar="FOLDER")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.quick:
        options.gates = [count for count in options.gates if count <= 1000]
        options.wires = [count for count in options.wires if count <= 12]
    options.out.mkdir(parents=True, exist_ok=True)
    groups = {
        "gates": growing_gates(options.families, options.gates),
        "wires": growing_wires(options.families, options.wires),
    }
    found: dict[str, list[Measured]] = {name: [] for name in groups}
    bar = tqdm(total=sum(map(len, groups.values())), unit="case", disable=None)  # on a terminal only
    for name, group in groups.items():
        for case in group:
            bar.set_postfix_str(f"{case.family}, {case.gates} gates on {case.wires} wires")
            if off := errors(case):
                found[name].append(Measured(case, off))
            bar.update()
    bar.close()
    excesses = pair_excesses(max(options.gates))
    longest = f"mpmath with {LONG.bits} bits and longdouble with {LONGDOUBLE.bits}"
    header = (
        f"{cpu_name()}, level {_C.current_simd_level()}, torch {torch.__version__}, {datetime.now(UTC):%d %B %Y}; "
        f"the reference of complex128 is {longest}.\n"
    )
    everything = {name: [m.case._asdict() | m.errors for m in group] for name, group in found.items()}
    (options.out / "results.json").write_text(
        json.dumps({"header": header} | everything | {"pairs": excesses}, indent=1), encoding="utf-8"
    )
    (options.out / "results.md").write_text(
        markdown(found["gates"], found["wires"], excesses, header), encoding="utf-8"
    )
    picture(found["gates"], found["wires"], options.out / PICTURE)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
