"""The machine's own limit for a workload, by a formula that looks at gates and sizes only, never at anybody's plan.

Arithmetic, in real multiply-adds per complex amplitude of a state:

- a run of gates on one wire is a real 2×2 rotation between two diagonals, as RZ RY RZ is: 4;
- IsingXX mixes two amplitudes by one real and one imaginary number: 4; excitations rotate 1/2 (single) or 1/8 (double)
  of the amplitudes: 2 and 1/2; X, CNOT and SWAP only relabel: 0;
- all diagonals between two layers of rotations (RZ, IsingZZ, CZ, the outer parts of runs) are one complex product: 4;
- each of these once on the ket going forward, and on ket and bra going back; where it has parameters, half as much
  again for their overlaps: 3.5 times in all, otherwise 3;
- the bra: 2 for each set of bits that terms of the Hamiltonian flip, and 2 for the value.

Bytes, where two states do not fit the last-level cache: a pass takes tiles of 2^14 amplitudes, so one layer of
rotations on n wires takes ceil(n / 14), of which the last also begins the next layer: F = 1 + L (ceil(n / 14) − 1) for
L layers. F passes forward read and write a state, but for the first, which only writes; one makes the bra; as many go
back over ket and bra, of which the last writes nothing: (2F − 1) + 2 + (4F − 2) = 6F − 1 states. The kets of a batch of
small states that together do not fit are written once and read once.

The limit is the larger of multiply-adds over half the rate of matrix products and bytes over the bandwidth of copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from machine import Machine
from workloads import Gate, Workload

TILE_WIRES = 14
DIAGONAL = {"RZ", "IsingZZ", "CZ"}
RELABELLING = {"X", "CNOT", "SWAP"}
WORK = {"IsingXX": 4.0, "SingleExcitation": 2.0, "DoubleExcitation": 0.5}
ROTATION = 4.0
COMPLEX_PRODUCT = 4.0


@dataclass(frozen=True)
class Limit:
    """Of one value and gradient."""

    multiply_adds: float
    bytes: float
    arithmetic_ms: float
    bytes_ms: float

    @property
    def ms(self) -> float:
        """The larger one."""
        return max(self.arithmetic_ms, self.bytes_ms)


def limit(workload: Workload, machine: Machine, double: bool = False) -> Limit | None:
    """The limit on a machine; None where calls have circuits of their own, or ask for anything but a gradient."""
    if workload.kind != "gradient":
        return None
    counts = [_Layers(circuit, workload.wires) for circuit in workload.circuits]
    amplitudes = max(1, workload.batch) * 2.0**workload.wires
    bra = 2.0 * flips(workload) + 2.0
    multiply_adds = amplitudes * sum(count.multiply_adds() + bra for count in counts)
    moved = sum(bytes_moved(workload, count.levels, 16 if double else 8, machine.cache) for count in counts)
    rate = machine.matrix_double_gflop_s if double else machine.matrix_gflop_s
    return Limit(multiply_adds, moved, 2e-6 * multiply_adds / rate, 1e-6 * moved / machine.copy_gb_s)


def flips(workload: Workload) -> int:
    """How many different sets of bits the terms flip; measuring Z on each wire flips none."""
    return max(1, len({tuple(w for w, letter in word if letter != "Z") for _, word in workload.hamiltonian}))


def bytes_moved(workload: Workload, levels: int, amplitude: int, cache: int) -> float:
    """Through memory, in all passes."""
    state = amplitude * 2.0**workload.wires
    kets = max(1, workload.batch) * state
    if 2 * state > cache:
        passes = 1 + levels * (ceil(workload.wires / TILE_WIRES) - 1)
        return max(1, workload.batch) * state * (6 * passes - 1)
    return 2 * kets if workload.batch and kets > cache else 0.0


class _Layers:
    """Rotations, and the diagonals between them: each wire has a level, which rises with each rotation on it."""

    def __init__(self, gates: tuple[Gate, ...], wires: int) -> None:
        self.level = [0] * wires
        self.runs: list[list[Gate]] = [[] for _ in range(wires)]
        self.rotations = {True: 0.0, False: 0.0}
        self.diagonals: dict[int, bool] = {}
        for gate in gates:
            if len(gate.wires) == 1:
                self.runs[gate.wires[0]].append(gate)
                continue
            for w in gate.wires:
                self._end_run(w)
            self._join(gate)
        for w in range(wires):
            self._end_run(w)

    @property
    def levels(self) -> int:
        """How many layers of rotations."""
        return max(self.level)

    def multiply_adds(self) -> float:
        """Per amplitude, forward and back."""
        work = dict(self.rotations)
        for trained in self.diagonals.values():
            work[trained] += COMPLEX_PRODUCT
        return 3.5 * work[True] + 3.0 * work[False]

    def _end_run(self, w: int) -> None:
        run = [gate for gate in self.runs[w] if gate.name not in RELABELLING]
        self.runs[w] = []
        if not run:
            return
        trained = any(gate.slot for gate in run)
        if all(gate.name in DIAGONAL for gate in run):
            self._diagonal(self.level[w], trained)
            return
        if len(run) > 1:
            self._diagonal(self.level[w], trained)
            self._diagonal(self.level[w] + 1, trained)
        self.level[w] += 1
        self.rotations[trained] += ROTATION

    def _join(self, gate: Gate) -> None:
        level = max(self.level[w] for w in gate.wires)
        if gate.name in DIAGONAL:
            self._diagonal(level, gate.slot is not None)
        elif gate.name not in RELABELLING:
            level += 1
            self.rotations[gate.slot is not None] += WORK[gate.name]
        for w in gate.wires:
            self.level[w] = level

    def _diagonal(self, level: int, trained: bool) -> None:
        if level:  # before the first rotation it is a phase of |0…0⟩
            self.diagonals[level] = trained or self.diagonals.get(level, False)
