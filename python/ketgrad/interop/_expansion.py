"""Decomposition of operations into the gates of another library.

A controlled gate is decomposed in two steps. If it is V† M V, only M needs the controls (`conjugated`); that leaves
one-wire gates and phases with controls. These are decomposed into rotations, phases and Toffoli gates
(arXiv:quant-ph/9503016, lemmas 7.2 to 7.5 and 7.9): a rotation into a number of gates that is linear in the number of
controls, a phase into a quadratic one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from ..circuit.operations import (
    CNOT,
    RX,
    RY,
    RZ,
    SWAP,
    U3,
    GlobalPhase,
    H,
    Operation,
    PauliRot,
    PhaseShift,
    Rot,
    S,
    Toffoli,
    X,
    Y,
    Z,
    adjoint,
    ctrl,
)
from ..circuit.parsing import restore
from ..circuit.types import Wire

__all__ = ["Expander", "Gate", "conjugated"]


class Gate(NamedTuple):
    """A gate of the library; a global phase has no name and no wires."""

    name: str
    angles: tuple[Any, ...]
    wires: tuple[Wire, ...]


@dataclass(frozen=True)
class Expander:
    """Decomposes operations whose parameters are numbers, or arrays without a batch.

    Attributes:
        library: (name of an operation without controls, number of controls, whether it is inverted) → name of a gate.
            It must have X with one and two controls, PhaseShift with none and one, H, RY and RZ.
        dense: decomposes a matrix, a diagonal or a state.
    """

    library: Mapping[tuple[str, int, bool], str]
    dense: Callable[[Operation], Sequence[Operation]]

    def gates(self, op: Operation) -> Iterator[Gate]:
        """The gates whose product is the operation, in the order in which they act."""
        flips = [X(wire) for wire, value in zip(op.control_wires, op.control_values, strict=True) if not value]
        yield from self._all(flips)
        for each in _upright(_without_controls(op)):
            yield from self._controlled(each, op.control_wires)
        yield from self._all(flips)

    def _all(self, operations: Iterable[Operation]) -> Iterator[Gate]:
        for each in operations:
            yield from self.gates(each)

    def _controlled(self, op: Operation, controls: tuple[Wire, ...]) -> Iterator[Gate]:
        """The gates of an operation that has no added controls, under the given controls on 1."""
        built_in, op = _built_in(op)
        controls += built_in
        name = self.library.get((op.name, len(controls), op.inverse))
        if op.name == "Identity":
            yield from (Gate("id", (), (wire,)) for wire in controls + op.wires)
        elif name is not None:
            yield Gate(name, op.parameters, controls + op.wires)
        elif op.name == "GlobalPhase" and not controls:
            yield Gate("", (-op.parameters[0],), ())
        else:
            yield from self._all(self._product(op, controls))

    def _product(self, op: Operation, controls: tuple[Wire, ...]) -> list[Operation]:
        if op.name == "BasisState":
            return [X(wire) for wire, bit in zip(op.wires, op.bits, strict=True) if bit]
        if op.name in _COUNTED:
            return _COUNTED[op.name](op, controls)
        if op.name in _ON_ONE_WIRE:
            outer, middle = _ON_ONE_WIRE[op.name](op)
        else:
            outer, middle = _conjugation(op) or ([], list(self.dense(op)))
        return _conjugated(outer, _ctrl(middle, controls))


def conjugated(op: Operation) -> list[Operation]:
    """A controlled operation as V, M, V†, where only M has controls, built-in ones included.

    Without such a form, the operation itself.
    """
    inner = _upright(_without_controls(op))
    if len(inner) > 1:
        return [op]
    controls, base = _built_in(inner[0])
    outer, middle = _conjugation(base) or ([], [base])
    values = (*op.control_values, *(True for _ in controls))
    return _conjugated(outer, [ctrl(each, op.control_wires + controls, values) for each in middle])


def _built_in(op: Operation) -> tuple[tuple[Wire, ...], Operation]:
    """The built-in controls of an operation, and the operation without them."""
    if op.name not in _BUILT_IN:
        return (), op
    kind, count = _BUILT_IN[op.name]
    return op.wires[:count], kind(*op.parameters, op.wires[count:])


def _without_controls(op: Operation) -> Operation:
    name, own, _, _, *rest = op.structure
    values = {"parameters": op.parameters, "batch_size": op.batch_size, "wires": own}
    return restore(type(op), {**values, "structure": (name, own, (), (), *rest)})


def _ctrl(operations: Iterable[Operation], controls: Sequence[Wire]) -> list[Operation]:
    return [ctrl(each, list(controls)) if controls else each for each in operations]


def _conjugated(outer: Sequence[Operation], middle: Sequence[Operation]) -> list[Operation]:
    return [*outer, *middle, *(adjoint(each) for each in reversed(outer))]


# ---------------------------------------------------------------------------------------------------------------------
# Inverses

DENSE = ("QubitUnitary", "DiagonalQubitUnitary", "DiagonalEvolution", "StatePrep")
_INVERTED = ("S", "T", "ISWAP", *DENSE)


def _upright(op: Operation) -> list[Operation]:
    """An operation without controls as ones that are not inverted, except those in `_INVERTED`."""
    if not op.inverse or op.name in _INVERTED:
        return [op]
    angles: list[Any] = [-angle for angle in reversed(op.parameters)]
    if op.name == "SX":
        return [RX(-math.pi / 2, wires=op.wires), GlobalPhase(math.pi / 4)]
    if op.name == "U2":
        return [U3(-math.pi / 2, angles[0], angles[1], op.wires)]
    if op.name == "U3":
        return [U3(angles[2], angles[0], angles[1], op.wires)]
    if op.name == "PauliRot":
        return [PauliRot(angles[0], op.word, op.wires)]
    kind: Any = type(op)
    return [kind(*angles, wires=op.wires)]


# ---------------------------------------------------------------------------------------------------------------------
# Gates on several wires

Conjugation = tuple[list[Operation], list[Operation]]

_BUILT_IN: dict[str, tuple[Callable[..., Operation], int]] = {
    "CNOT": (X, 1),
    "CY": (Y, 1),
    "CZ": (Z, 1),
    "CH": (H, 1),
    "CRX": (RX, 1),
    "CRY": (RY, 1),
    "CRZ": (RZ, 1),
    "CRot": (Rot, 1),
    "ControlledPhaseShift": (PhaseShift, 1),
    "Toffoli": (X, 2),
    "CCZ": (Z, 2),
    "CSWAP": (SWAP, 1),
}


def _conjugation(op: Operation) -> Conjugation | None:
    """V and M of an operation V† M V, or None if it has no such form."""
    if op.name in _WORDS:
        return _rotation(op.parameters[0], op.word or _WORDS[op.name] * len(op.wires), op.wires)
    if op.name == "SWAP":
        a, b = op.wires
        return [CNOT([b, a])], [CNOT([a, b])]
    if op.name in _BETWEEN:
        return _between("01", op.wires, _BETWEEN[op.name](op))
    if op.name in _EXCITATIONS:
        return _excitation(op)
    return None


_WORDS = {"PauliRot": "", "MultiRZ": "Z", "IsingXX": "X", "IsingYY": "Y", "IsingZZ": "Z"}


def _rotation(angle: Any, pauli_word: str, wires: tuple[Wire, ...]) -> Conjugation:
    """A rotation by a Pauli word: every letter is changed to Z, and CNOTs compute the parity on the last wire."""
    letters = [(wire, letter) for wire, letter in zip(wires, pauli_word, strict=True) if letter != "I"]
    if not letters:
        return [], [GlobalPhase(angle / 2)]
    if len(letters) == 1:
        ((wire, letter),) = letters
        return [], [{"X": RX, "Y": RY, "Z": RZ}[letter](angle, wires=wire)]
    outer: list[Operation] = []
    for wire, letter in letters:
        outer += [adjoint(S(wire))] if letter == "Y" else []
        outer += [H(wire)] if letter in "XY" else []
    outer += [CNOT([one[0], other[0]]) for one, other in pairwise(letters)]
    return outer, [RZ(angle, wires=letters[-1][0])]


def _between(bits: str, wires: tuple[Wire, ...], gates: Sequence[Operation]) -> Conjugation:
    """One-wire gates on the span of |bits⟩ and its complement, as |0⟩ and |1⟩.

    CNOTs from the first wire map the complement of |bits⟩ to |bits⟩ with the first bit flipped, and |bits⟩ to itself.
    """
    first, *rest = wires
    values = [int(bit) for bit in bits[1:]]
    return [CNOT([first, wire]) for wire in rest], [ctrl(gate, rest, values) for gate in gates]


_BETWEEN: dict[str, Callable[[Any], list[Operation]]] = {
    "ISWAP": lambda op: [X(op.wires[0]), GlobalPhase(math.pi / 2 if op.inverse else -math.pi / 2)],
    "PSWAP": lambda op: [X(op.wires[0]), GlobalPhase(-op.parameters[0])],
    "IsingXY": lambda op: [RX(-op.parameters[0], wires=op.wires[0])],
}
# The basis state that an excitation mixes with its complement, and the phase of all others in units of the angle.
_EXCITATIONS = {
    "SingleExcitation": ("01", 0.0),
    "SingleExcitationPlus": ("01", 0.5),
    "SingleExcitationMinus": ("01", -0.5),
    "DoubleExcitation": ("0011", 0.0),
    "DoubleExcitationPlus": ("0011", 0.5),
    "DoubleExcitationMinus": ("0011", -0.5),
}


def _excitation(op: Any) -> Conjugation:
    bits, rest = _EXCITATIONS[op.name]
    (angle,) = op.parameters
    turn = RY(angle, wires=op.wires[0])
    if not rest:
        return _between(bits, op.wires, [turn])
    outer, middle = _between(bits, op.wires, [turn, GlobalPhase(rest * angle)])
    return outer, [*middle, GlobalPhase(-rest * angle)]


# ---------------------------------------------------------------------------------------------------------------------
# Gates on one wire, with any number of controls


def _phases(op: Any, controls: tuple[Wire, ...]) -> list[Operation]:
    """PhaseShift with two or more controls: ab = (a + b − a ⊕ b)/2, with half the angle for each of the three terms."""
    *rest, last = controls
    one, other = (PhaseShift(sign * op.parameters[0] / 2, wires=op.wires) for sign in (1, -1))
    flip = _toffolis(rest, last, op.wires)
    return [ctrl(one, last), *flip, ctrl(other, last), *flip, ctrl(one, rest)]


def _rotations(op: Any, controls: tuple[Wire, ...]) -> list[Operation]:
    """RY or RZ with one or more controls: half the angle, and minus half between controlled Xs, which negate it."""
    *rest, last = controls
    one, other = (type(op)(sign * op.parameters[0] / 2, wires=op.wires) for sign in (1, -1))
    if not rest:
        return [one, CNOT([last, op.wires[0]]), other, CNOT([last, op.wires[0]])]
    flip = _toffolis(rest, op.wires[0], [last])
    return [ctrl(one, last), *flip, ctrl(other, last), *flip]


def _toffolis(controls: Sequence[Wire], target: Wire, borrowed: Sequence[Wire]) -> list[Operation]:
    """X with controls, using at least one borrowed wire, in any state, which is restored."""
    count = len(controls)
    if count <= 2:
        return [ctrl(X(target), list(controls))]
    if len(borrowed) < count - 2:
        first, second = controls[: (count + 1) // 2], controls[(count + 1) // 2 :]
        flip = _toffolis(first, borrowed[0], [*second, target])
        return [*flip, *(rest := _toffolis([*second, borrowed[0]], target, first)), *flip, *rest]
    # A ladder: each borrowed wire is flipped by the product of the controls below it, and controls the next one.
    chain = [*borrowed[: count - 2], target]
    rungs = [Toffoli([controls[i + 1], chain[i - 1], chain[i]]) for i in range(1, count - 1)]
    bottom = Toffoli([controls[0], controls[1], chain[0]])
    flip = [*reversed(rungs), bottom, *rungs]
    return [*flip, *flip[1:-1]]


_ON_ONE_WIRE: dict[str, Callable[[Any], Conjugation]] = {
    "Y": lambda op: ([adjoint(S(op.wires))], [X(op.wires)]),
    "H": lambda op: ([RY(-math.pi / 4, wires=op.wires)], [Z(op.wires)]),
    "S": lambda op: ([], [PhaseShift(-math.pi / 2 if op.inverse else math.pi / 2, wires=op.wires)]),
    "T": lambda op: ([], [PhaseShift(-math.pi / 4 if op.inverse else math.pi / 4, wires=op.wires)]),
    "SX": lambda op: ([], [RX(math.pi / 2, wires=op.wires), GlobalPhase(-math.pi / 4)]),
    "RX": lambda op: ([H(op.wires)], [RZ(op.parameters[0], op.wires)]),
    "U1": lambda op: ([], [PhaseShift(op.parameters[0], op.wires)]),
    "U2": lambda op: ([], [U3(math.pi / 2, op.parameters[0], op.parameters[1], op.wires)]),
    "U3": lambda op: ([], _u3(op.parameters, op.wires)),
    "Rot": lambda op: ([], _rot(op.parameters, op.wires)),
}


def _rot(angles: Sequence[Any], wires: tuple[Wire, ...]) -> list[Operation]:
    phi, theta, omega = angles
    return [RZ(phi, wires=wires), RY(theta, wires=wires), RZ(omega, wires=wires)]


def _u3(angles: Sequence[Any], wires: tuple[Wire, ...]) -> list[Operation]:
    theta, phi, delta = angles
    return [*_rot((delta, theta, phi), wires), GlobalPhase(-(phi + delta) / 2)]


def _x(op: Operation, controls: tuple[Wire, ...]) -> list[Operation]:
    return _conjugated([H(op.wires)], _ctrl([PhaseShift(math.pi, wires=op.wires)], controls))


def _z(op: Operation, controls: tuple[Wire, ...]) -> list[Operation]:
    if len(controls) > 2:
        return _ctrl([PhaseShift(math.pi, wires=op.wires)], controls)
    return _conjugated([H(op.wires)], _ctrl([X(op.wires)], controls))


def _global_phase(op: Any, controls: tuple[Wire, ...]) -> list[Operation]:
    return _ctrl([PhaseShift(-op.parameters[0], wires=controls[-1])], controls[:-1])


# Operations whose decomposition depends on the number of controls.
_COUNTED: dict[str, Callable[[Operation, tuple[Wire, ...]], list[Operation]]] = {
    "X": _x,
    "Z": _z,
    "PhaseShift": _phases,
    "RY": _rotations,
    "RZ": _rotations,
    "GlobalPhase": _global_phase,
}
