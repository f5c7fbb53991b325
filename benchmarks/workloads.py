"""What is timed, independent of any library: gates with parameter slots, the shapes of inputs, what is computed.

Most workloads ask for the gradient of a loss. One with data has the loss "mean squared error of ⟨Z⟩ on each wire
against targets" and gradients by data and weights; one with a Hamiltonian has the loss "⟨H⟩, summed over its circuits"
and gradients by weights. Others ask for values, a state or a Jacobian. Gates have PennyLane's names and meaning.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
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
    matrix: NDArray[np.complex128] | None = field(default=None, compare=False)
    """Of a `QubitUnitary`."""


Circuit = tuple[Gate, ...]


@dataclass(frozen=True)
class Workload:
    """Circuits on the same wires that share `weights` and `data`, and what is asked of them."""

    name: str
    wires: int
    circuits: tuple[Circuit, ...]
    weights: int
    batch: int = 0
    """How many samples of data (one value for each wire); 0: no data."""
    hamiltonian: tuple[Term, ...] = ()
    result: str = "gradient"
    """"gradient": the loss and its gradient; "values": ⟨Z⟩ on the first `measured` wires; "state": the amplitudes;
    "jacobian": that of the probabilities of all wires by the weights."""
    measured: int = 0
    """On how many wires ⟨Z⟩ is measured where there is no Hamiltonian; 0: on all."""
    draw: Callable[[int], Workload] | None = field(default=None, compare=False)
    """Circuits of the same kind for each seed, where structures are what is measured."""
    is_fresh: bool = False
    """Whether each call has circuits of its own; if not, and there is `draw`, a few calls follow each drawing."""

    @property
    def kind(self) -> str:
        """What an adapter must be able to do."""
        return f"fresh {self.result}" if self.is_fresh else self.result

    @property
    def measured_wires(self) -> range:
        """Those of ⟨Z⟩."""
        return range(self.measured or self.wires)

    @property
    def circuit(self) -> Circuit:
        """The only circuit."""
        (found,) = self.circuits
        return found


@dataclass(frozen=True)
class Inputs:
    """The values of one call; `data` is empty in workloads without data, `targets` where nothing is compared."""

    data: Floats
    weights: Floats
    targets: Floats
    circuit: Circuit = ()
    """That of this call, in workloads whose calls have their own."""


def inputs(workload: Workload, seed: int) -> Inputs:
    """New values for each seed, uniform in [0, 1)."""
    rng = np.random.default_rng(seed)
    shape = (workload.batch, workload.wires)
    drawn = workload.draw(seed) if workload.draw and workload.is_fresh else workload
    return Inputs(
        rng.random(shape, dtype=np.float32),
        rng.random(drawn.weights, dtype=np.float32),
        rng.random(len(workload.measured_wires) if workload.is_fresh else shape, dtype=np.float32),
        drawn.circuit if workload.is_fresh else (),
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


ELECTRONS = {"lih": 4, "h2o": 8, "n2": 10}


def uccsd(molecule: str = "lih") -> Workload:
    """All double and single excitations of a molecule in STO-3G, active electrons and orbitals only (`molecule.py`)."""
    terms, slots = hamiltonian_of(molecule), _weights()
    n = 1 + max(w for _, word in terms for w, _ in word)
    singles, doubles = excitations(ELECTRONS[molecule], n)
    gates = [Gate("X", (w,)) for w in range(ELECTRONS[molecule])]
    gates += [Gate("DoubleExcitation", wires, next(slots)) for wires in doubles]
    gates += [Gate("SingleExcitation", wires, next(slots)) for wires in singles]
    return _workload(_named("uccsd()", "" if molecule == "lih" else molecule), n, gates, 0, terms)


@cache
def hamiltonian_of(molecule: str) -> tuple[Term, ...]:
    """The qubit Hamiltonian that `molecule.py` wrote."""
    found: list[Term] = []
    for line in (Path(__file__).parent / f"{molecule}.txt").read_text(encoding="utf-8").splitlines():
        coefficient, word = line.split()
        found.append((float(coefficient), tuple((w, letter) for w, letter in enumerate(word) if letter != "I")))
    return tuple(found)


NAMES = ("RX", "RY", "RZ", "RX", "RY", "RZ", "IsingXX", "IsingZZ", "CNOT", "CZ", "SWAP", "H")
WITHOUT_PARAMETER = {"CNOT", "CZ", "SWAP", "H"}


def _random_circuit(rng: random.Random, n: int, gates: int, slots: Iterator[Slot]) -> Circuit:
    circuit = []
    for name in rng.choices(NAMES, k=gates):
        wires = tuple(rng.sample(range(n), 1 if name[0] in "RH" else 2))
        circuit.append(Gate(name, wires, None if name in WITHOUT_PARAMETER else next(slots)))
    return tuple(circuit)


def random_tapes(n: int, gates: int, tapes: int, seed: int | None = None) -> Workload:
    """Circuits that have nothing in common but their size."""
    rng, slots = random.Random(tapes if seed is None else seed), _weights()
    circuits = tuple(_random_circuit(rng, n, gates, slots) for _ in range(tapes))
    hamiltonian = _ising(ring(tuple(range(n))), -1.0, n, -0.7)
    draw = partial(random_tapes, n, gates, tapes)
    return Workload(f"tapes({n},{gates},{tapes})", n, circuits, next(slots)[1], 0, hamiltonian, draw=draw)


def deep(n: int, gates: int, seed: int = 0) -> Workload:
    """A long random circuit, values only."""
    slots = _weights()
    circuit = _random_circuit(random.Random(seed), n, gates, slots)
    draw = partial(deep, n, gates)
    return Workload(f"deep({n},{gates})", n, (circuit,), next(slots)[1], result="values", draw=draw)


def churn(n: int, gates: int, variant: str = "", seed: int = 0) -> Workload:
    """A random circuit in each call: ⟨Z⟩ on eight wires, their mean squared error, or the values only."""
    slots = _weights()
    circuit = _random_circuit(random.Random(seed), n, gates, slots)
    return Workload(
        _named(f"churn({n},{gates})", variant),
        n,
        (circuit,),
        next(slots)[1],
        result=variant or "gradient",
        measured=min(n, 8),
        draw=lambda seed: churn(n, gates, variant, seed),
        is_fresh=True,
    )


def volume(n: int, seed: int = 0) -> Workload:
    """Quantum volume: n layers of random unitaries on random pairs of wires, new ones in each call; the state."""
    rng, gates = np.random.default_rng(seed), []
    normal = rng.standard_normal((n, n // 2, 4, 8)).view(np.complex128)
    q, r = np.linalg.qr(normal)
    phases = np.einsum("...ii->...i", r)
    unitaries = q * (phases / np.abs(phases))[..., None, :]  # as Haar's measure has them
    for layer in unitaries:
        order = rng.permutation(n).tolist()
        pairs = zip(order[::2], order[1::2], strict=False)
        gates += [Gate("QubitUnitary", pair, matrix=matrix) for pair, matrix in zip(pairs, layer, strict=True)]
    return Workload(f"volume({n})", n, (tuple(gates),), 0, result="state", draw=partial(volume, n), is_fresh=True)


def jacobian(n: int, layers: int) -> Workload:
    """The layers of vqe, and the Jacobian of all probabilities."""
    gates = _layers(n, layers, "", _weights())
    return Workload(f"jacobian({n},{layers})", n, (tuple(gates),), 3 * n * layers, result="jacobian")


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
    "deep": deep,
    "churn": churn,
    "volume": volume,
    "jacobian": jacobian,
}
VARIANTS = ("xzx", "brickwork", "shuffled")
"""RX RZ RX for RZ RY RZ; CZ and IsingXX on alternate pairs for the ring of CNOT; wires in a random order."""
SUFFIXES = {"qml": VARIANTS, "vqe": VARIANTS, "churn": ("values",), "uccsd": ("h2o", "n2")}

_TABLE = (
    *("qml(4,3,64)", "qml(8,4,256)", "qml(10,4,256)", "qml(12,4,128)"),
    *("vqe(6,2)", "vqe(12,4)", "vqe(16,4)", "vqe(20,4)", "vqe(24,2)"),
)
GROUPS: dict[str, tuple[str, ...]] = {
    "table": _TABLE,
    "more": ("reuploading(8,10,32)", "entangling(6,6,512)", "tapes(8,60,64)", "uccsd()", "qaoa(20,8)", "tfim(20,10)"),
    "structures": (
        *("churn(8,60)-values", "churn(8,60)", "churn(12,200)-values", "churn(12,200)", "volume(8)", "volume(12)"),
        *("deep(4,10000)", "deep(4,100000)", "jacobian(6,4)"),
    ),
    "molecules": ("uccsd()-h2o", "uccsd()-n2"),
    "aims": (
        *("churn(8,60)-values", "churn(12,200)-values", "churn(8,60)", "churn(12,200)", "volume(8)", "volume(12)"),
        *("tapes(8,60,64)", "deep(4,10000)", "deep(4,100000)", "qml(4,3,64)", "vqe(6,2)", "vqe(12,4)", "jacobian(6,4)"),
    ),
    **{variant: tuple(f"{name}-{variant}" for name in _TABLE) for variant in VARIANTS},
    "quick": (
        *("qml(4,3,64)", "qml(8,4,256)", "vqe(6,2)", "vqe(12,4)", "entangling(6,6,512)", "uccsd()"),
        *("churn(8,60)-values", "churn(8,60)", "volume(8)", "deep(4,10000)", "jacobian(6,4)"),
    ),
}


def find(name: str) -> Workload:
    """The workload of a name such as "vqe(12,4)-xzx", of any size.

    Raises:
        ValueError: there is none.
    """
    match = re.fullmatch(r"(\w+)\(([\d,]*)\)(?:-(\w+))?", name)
    if match is None or match[1] not in BUILDERS or (match[3] and match[3] not in SUFFIXES.get(match[1], ())):
        raise ValueError(f"no workload {name!r}: {', '.join(BUILDERS)}, with sizes, such as qml(8,4,256)-xzx")
    sizes = [int(size) for size in match[2].split(",") if size]
    return BUILDERS[match[1]](*sizes, *([match[3]] if match[3] else []))
