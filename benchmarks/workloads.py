"""What is timed, independent of any library: gates with parameter slots, the shapes of inputs, a loss.

A workload with data has the loss "mean squared error of ⟨Z⟩ on each wire against targets" and gradients by data and
weights; one without has the loss "⟨H⟩, summed over its circuits" and gradients by weights. Gates have PennyLane's names
and meaning.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Wires = tuple[int, ...]
Slot = tuple[str, int]
"""Which input ("data" or "weights") and which of its columns a parameter is."""
Term = tuple[float, tuple[tuple[int, str], ...]]
"""A coefficient and a Pauli word, as (wire, "X" | "Y" | "Z")."""


@dataclass(frozen=True)
class Gate:
    """A gate of PennyLane's name; `slot` is its parameter, if it has one."""

    name: str
    wires: Wires
    slot: Slot | None = None


@dataclass(frozen=True)
class Workload:
    """Circuits on the same wires that share `weights` and `data`, and their loss."""

    name: str
    wires: int
    circuits: tuple[tuple[Gate, ...], ...]
    weights: int
    batch: int = 0
    """How many samples of data (one value for each wire); 0: no data."""
    hamiltonian: tuple[Term, ...] = ()

    @property
    def circuit(self) -> tuple[Gate, ...]:
        """The only circuit."""
        (found,) = self.circuits
        return found


@dataclass(frozen=True)
class Inputs:
    """The values of one call; `data` and `targets` are empty in workloads without data."""

    data: Floats
    weights: Floats
    targets: Floats


def inputs(workload: Workload, seed: int) -> Inputs:
    """New values for each seed, uniform in [0, 1)."""
    rng = np.random.default_rng(seed)
    shape = (workload.batch, workload.wires)
    return Inputs(
        rng.random(shape, dtype=np.float32),
        rng.random(workload.weights, dtype=np.float32),
        rng.random(shape, dtype=np.float32),
    )


# --- pieces ----------------------------------------------------------------------------------------------------------


def ring(wires: Wires) -> list[Wires]:
    """Neighbours on a ring."""
    return [(wires[i], wires[(i + 1) % len(wires)]) for i in range(len(wires))]


def _weights() -> Iterator[Slot]:
    return (("weights", index) for index in itertools.count())


def _encoding(n: int) -> list[Gate]:
    return [Gate("RX", (w,), ("data", w)) for w in range(n)]


def _rotations(names: str, wires: Wires, slots: Iterator[Slot]) -> list[Gate]:
    return [Gate(f"R{letter}", (w,), next(slots)) for w in wires for letter in names]


def _brickwork(wires: Wires, slots: Iterator[Slot]) -> list[Gate]:
    pairs = ring(wires)
    return [Gate("CZ", pair) for pair in pairs[::2]] + [Gate("IsingXX", pair, next(slots)) for pair in pairs[1::2]]


def _layers(n: int, layers: int, variant: str, slots: Iterator[Slot]) -> list[Gate]:
    """RZ RY RZ on each wire and a ring of CNOT, or a variant of it."""
    wires = tuple(random.Random(n).sample(range(n), n)) if variant == "shuffled" else tuple(range(n))
    found: list[Gate] = []
    for _ in range(layers):
        found += _rotations("XZX" if variant == "xzx" else "ZYZ", wires, slots)
        if variant == "brickwork":
            found += _brickwork(wires, slots)
        else:
            found += [Gate("CNOT", pair) for pair in ring(wires)]
    return found


def _ising(pairs: Iterable[Wires], zz: float, n: int, x: float) -> tuple[Term, ...]:
    """Zz Σ Z_a Z_b over pairs + x Σ X."""
    terms: list[Term] = [(zz, tuple((w, "Z") for w in sorted(pair))) for pair in pairs]
    return tuple(terms + [(x, ((w, "X"),)) for w in range(n) if x])


def _workload(
    name: str, n: int, gates: list[Gate], batch: int = 0, hamiltonian: tuple[Term, ...] = (), weights: int | None = None
) -> Workload:
    used = {gate.slot[1] for gate in gates if gate.slot and gate.slot[0] == "weights"}
    return Workload(name, n, (tuple(gates),), len(used) if weights is None else weights, batch, hamiltonian)


# --- the workloads ---------------------------------------------------------------------------------------------------


def qml(n: int, layers: int, batch: int, variant: str = "") -> Workload:
    """RX(data) on each wire, then layers of shared weights."""
    gates = _encoding(n) + _layers(n, layers, variant, _weights())
    return _workload(_named(f"qml({n},{layers},{batch})", variant), n, gates, batch)


def vqe(n: int, layers: int, variant: str = "") -> Workload:
    """The same layers, and the transverse-field Ising Hamiltonian on a ring."""
    hamiltonian = _ising(ring(tuple(range(n))), -1.0, n, -0.7)
    gates = _layers(n, layers, variant, _weights())
    return _workload(_named(f"vqe({n},{layers})", variant), n, gates, 0, hamiltonian)


def reuploading(n: int, layers: int, batch: int) -> Workload:
    """RX(data) before every layer."""
    slots = _weights()
    gates = [gate for _ in range(layers) for gate in _encoding(n) + _layers(n, 1, "", slots)]
    return _workload(f"reuploading({n},{layers},{batch})", n, gates, batch)


def strongly_entangling(n: int, layers: int, batch: int) -> Workload:
    """RX(data), then layers whose CNOTs reach one wire further each time."""
    slots = _weights()
    gates = _encoding(n)
    for layer in range(layers):
        reach = layer % (n - 1) + 1
        gates += _rotations("ZYZ", tuple(range(n)), slots)
        gates += [Gate("CNOT", (w, (w + reach) % n)) for w in range(n)]
    return _workload(f"entangling({n},{layers},{batch})", n, gates, batch)


def regular_graph(n: int, degree: int, seed: int) -> list[Wires]:
    """The edges of a random regular graph."""
    rng = random.Random(seed)
    while True:
        ends = [node for node in range(n) for _ in range(degree)]
        rng.shuffle(ends)
        edges = {(min(pair), max(pair)) for pair in zip(ends[::2], ends[1::2], strict=True)}
        if len(edges) == n * degree // 2 and all(a != b for a, b in edges):
            return sorted(edges)


def qaoa(n: int, rounds: int) -> Workload:
    """MaxCut on a random 3-regular graph; the two weights of a round are shared by all its gates."""
    edges = regular_graph(n, 3, seed=n)
    gates = [Gate("H", (w,)) for w in range(n)]
    for p in range(rounds):
        gates += [Gate("IsingZZ", edge, ("weights", 2 * p)) for edge in edges]
        gates += [Gate("RX", (w,), ("weights", 2 * p + 1)) for w in range(n)]
    return _workload(f"qaoa({n},{rounds})", n, gates, 0, _ising(edges, 0.5, n, 0.0))


def tfim(n: int, layers: int) -> Workload:
    """The transverse-field Ising ansatz: a chain of RZZ, RX on each wire."""
    slots = _weights()
    chain = [(w, w + 1) for w in range(n - 1)]
    gates = [Gate("H", (w,)) for w in range(n)]
    for _ in range(layers):
        gates += [Gate("IsingZZ", pair, next(slots)) for pair in chain]
        gates += [Gate("RX", (w,), next(slots)) for w in range(n)]
    return _workload(f"tfim({n},{layers})", n, gates, 0, _ising(chain, -1.0, n, -1.0))


def excitations(electrons: int, orbitals: int) -> tuple[list[Wires], list[Wires]]:
    """Single and double excitations of spin orbitals (even: up, odd: down) that conserve the spin."""
    occupied, empty = range(electrons), range(electrons, orbitals)
    singles = [(i, a) for i in occupied for a in empty if (i - a) % 2 == 0]
    doubles = [
        (i, j, a, b)
        for i, j in itertools.combinations(occupied, 2)
        for a, b in itertools.combinations(empty, 2)
        if i % 2 + j % 2 == a % 2 + b % 2
    ]
    return singles, doubles


def uccsd() -> Workload:
    """All double and single excitations of lithium hydride (STO-3G: 4 electrons, 12 spin orbitals)."""
    n, slots = 12, _weights()
    singles, doubles = excitations(4, n)
    gates = [Gate("X", (w,)) for w in range(4)]
    gates += [Gate("DoubleExcitation", wires, next(slots)) for wires in doubles]
    gates += [Gate("SingleExcitation", wires, next(slots)) for wires in singles]
    return _workload("uccsd()", n, gates, 0, lithium_hydride())


@cache
def lithium_hydride() -> tuple[Term, ...]:
    """The qubit Hamiltonian that `molecule.py` wrote."""
    found: list[Term] = []
    for line in (Path(__file__).parent / "lih.txt").read_text(encoding="utf-8").splitlines():
        coefficient, word = line.split()
        found.append((float(coefficient), tuple((w, letter) for w, letter in enumerate(word) if letter != "I")))
    return tuple(found)


def random_tapes(n: int, gates: int, tapes: int) -> Workload:
    """Circuits that have nothing in common but their size."""
    rng, slots = random.Random(tapes), _weights()
    names = ["RX", "RY", "RZ", "RX", "RY", "RZ", "IsingXX", "IsingZZ", "CNOT", "CZ", "SWAP", "H"]
    circuits = []
    for _ in range(tapes):
        circuit = []
        for name in rng.choices(names, k=gates):
            wires = tuple(rng.sample(range(n), 1 if name[0] in "RH" else 2))
            circuit.append(Gate(name, wires, None if name in {"CNOT", "CZ", "SWAP", "H"} else next(slots)))
        circuits.append(tuple(circuit))
    hamiltonian = _ising(ring(tuple(range(n))), -1.0, n, -0.7)
    return Workload(f"tapes({n},{gates},{tapes})", n, tuple(circuits), next(slots)[1], 0, hamiltonian)


def _named(name: str, variant: str) -> str:
    return f"{name}-{variant}" if variant else name


BUILDERS: dict[str, Callable[..., Workload]] = {
    "qml": qml,
    "vqe": vqe,
    "reuploading": reuploading,
    "entangling": strongly_entangling,
    "tapes": random_tapes,
    "uccsd": uccsd,
    "qaoa": qaoa,
    "tfim": tfim,
}
VARIANTS = ("xzx", "brickwork", "shuffled")
"""RX RZ RX for RZ RY RZ; CZ and IsingXX on alternate pairs for the ring of CNOT; wires in a random order."""

_TABLE = (
    *("qml(4,3,64)", "qml(8,4,256)", "qml(10,4,256)", "qml(12,4,128)"),
    *("vqe(6,2)", "vqe(12,4)", "vqe(16,4)", "vqe(20,4)", "vqe(24,2)"),
)
GROUPS: dict[str, tuple[str, ...]] = {
    "table": _TABLE,
    "more": ("reuploading(8,10,32)", "entangling(6,6,512)", "tapes(8,60,64)", "uccsd()", "qaoa(20,8)", "tfim(20,10)"),
    **{variant: tuple(f"{name}-{variant}" for name in _TABLE) for variant in VARIANTS},
    "quick": ("qml(4,3,64)", "qml(8,4,256)", "vqe(6,2)", "vqe(12,4)", "entangling(6,6,512)", "uccsd()"),
}


def find(name: str) -> Workload:
    """The workload of a name such as "vqe(12,4)-xzx", of any size.

    Raises:
        ValueError: there is none.
    """
    match = re.fullmatch(r"(\w+)\(([\d,]*)\)(?:-(\w+))?", name)
    if match is None or match[1] not in BUILDERS or (match[3] and match[3] not in VARIANTS):
        raise ValueError(f"no workload {name!r}: {', '.join(BUILDERS)}, with sizes, such as qml(8,4,256)-xzx")
    sizes = [int(size) for size in match[2].split(",") if size]
    return BUILDERS[match[1]](*sizes, *([match[3]] if match[3] else []))
