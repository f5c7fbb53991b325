"""Circuits in more digits than float64 has, as plainly as NumPy allows: the reference of accuracy.py.

Numbers are `numpy.longdouble` (a mantissa of 64 bits on x86) or mpmath's, of any length. A gate is a fixed matrix, or
exp(-i angle/2 G) for a Hermitian G with entries 0, ±1 and ±i whose square is a projector on basis states. Gradients
come by the adjoint method: that of ⟨O⟩ by the angle is Im⟨λ|G|ψ⟩, where ψ is the state after the gate and λ is U† O U ψ
with U all that follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

from workloads import Gate

Array = NDArray[Any]
Entries = dict[tuple[int, int], Any]
"""A matrix without its zeros; an entry is a number, or one for each sample."""
Word = tuple[tuple[int, str], ...]
"""A Pauli word, as (wire, "X" | "Y" | "Z")."""

PAULIS: dict[str, Entries] = {
    "X": {(0, 1): 1, (1, 0): 1},
    "Y": {(0, 1): -1j, (1, 0): 1j},
    "Z": {(0, 0): 1, (1, 1): -1},
}


@dataclass(frozen=True)
class Numbers:
    """A kind of real and complex numbers.

    Attributes:
        name: for people.
        bits: of the mantissa.
        dtype: of arrays of complex numbers.
        real: makes real numbers of float64, exactly.
        cosine, sine, imaginary: of arrays.
        root_half: √½.
    """

    name: str
    bits: int
    dtype: Any
    real: Callable[[Any], Array]
    cosine: Callable[[Array], Array]
    sine: Callable[[Array], Array]
    imaginary: Callable[[Array], Array]
    root_half: Any


LONGDOUBLE = Numbers(
    "longdouble",
    np.finfo(np.longdouble).nmant + 1,
    np.clongdouble,
    lambda values: np.asarray(values, dtype=np.longdouble),
    np.cos,
    np.sin,
    np.imag,
    np.sqrt(np.longdouble(0.5)),
)


def arbitrary(bits: int) -> Numbers:
    """Numbers of mpmath with a mantissa of so many bits."""
    context = mpmath.MPContext()
    context.prec = bits
    return Numbers(
        "mpmath",
        bits,
        object,
        np.frompyfunc(context.mpf, 1, 1),
        np.frompyfunc(context.cos, 1, 1),
        np.frompyfunc(context.sin, 1, 1),
        np.frompyfunc(lambda z: context.mpc(z).imag, 1, 1),
        context.sqrt(context.mpf(0.5)),
    )


# --- gates ------------------------------------------------------------------------------------------------------------


def product(letters: str) -> Entries:
    """A product of Pauli matrices."""
    found: Entries = {(0, 0): 1}
    for letter in letters:
        found = {(2 * a + c, 2 * b + d): x * y for (a, b), x in found.items() for (c, d), y in PAULIS[letter].items()}
    return found


GENERATORS: dict[str, Entries] = {
    "RX": PAULIS["X"],
    "RY": PAULIS["Y"],
    "RZ": PAULIS["Z"],
    "IsingXX": product("XX"),
    "IsingZZ": product("ZZ"),
    "CRX": {(2, 3): 1, (3, 2): 1},
    "DoubleExcitation": {(0b0011, 0b1100): -1j, (0b1100, 0b0011): 1j},
}


def fourier(root_half: Any) -> Entries:
    """The Fourier transform of two wires, whose entries ±½ and ±i/2 no precision rounds."""
    return {(a, b): 0.5 * 1j ** (a * b % 4) for a in range(4) for b in range(4)}


def permutation(targets: Sequence[int]) -> Entries:
    """|b⟩ → |targets[b]⟩."""
    return {(a, b): 1 for b, a in enumerate(targets)}


FIXED: dict[str, Callable[[Any], Entries]] = {
    "H": lambda r: {(0, 0): r, (0, 1): r, (1, 0): r, (1, 1): -r},
    "S": lambda r: {(0, 0): 1, (1, 1): 1j},
    "T": lambda r: {(0, 0): 1, (1, 1): r * (1 + 1j)},
    "SX": lambda r: {(0, 0): 0.5 + 0.5j, (0, 1): 0.5 - 0.5j, (1, 0): 0.5 - 0.5j, (1, 1): 0.5 + 0.5j},
    "CNOT": lambda r: permutation([0, 1, 3, 2]),
    "CZ": lambda r: {(0, 0): 1, (1, 1): 1, (2, 2): 1, (3, 3): -1},
    "Toffoli": lambda r: permutation([0, 1, 2, 3, 4, 5, 7, 6]),
    "QubitUnitary": fourier,
}
"""Matrices, from √½."""


def rotation(generator: Entries, size: int, cosine: Any, sine: Any) -> Entries:
    """exp(-i angle/2 G) from the cosine and sine of half the angle: G² is 1 on the rows of G, 0 on the others."""
    rows = {a for a, _ in generator}
    found: Entries = {(a, a): cosine if a in rows else 1 for a in range(size)}
    for place, entry in generator.items():
        found[place] = found.get(place, 0) - 1j * entry * sine
    return found


def inverse(matrix: Entries) -> Entries:
    """Of a unitary matrix."""
    return {(b, a): np.conjugate(entry) for (a, b), entry in matrix.items()}


# --- states -----------------------------------------------------------------------------------------------------------


def applied(matrix: Entries, state: Array, wires: Sequence[int]) -> Array:
    """A matrix on some wires of a state (2, …, 2, B)."""
    k = len(wires)
    front = np.moveaxis(state, wires, range(k))
    rows = front.reshape(2**k, *front.shape[k:])
    out = np.zeros_like(rows)
    for (a, b), entry in matrix.items():
        out[a] = out[a] + entry * rows[b]
    return np.moveaxis(out.reshape(front.shape), range(k), wires)


def overlap(left: Array, right: Array) -> Array:
    """⟨left|right⟩ of each sample."""
    products = np.conjugate(left) * right
    return products.reshape(-1, products.shape[-1]).sum(axis=0)


def times_word(word: Word, state: Array) -> Array:
    """A Pauli word times a state."""
    for wire, letter in word:
        state = applied(PAULIS[letter], state, [wire])
    return state


class Circuit:
    """Gates on |0…0⟩.

    Args:
        gates: with slots into `angles` or `data`.
        wires: how many.
        inputs: for each source of a slot its values, (count, B) in float64, taken to be exact.
        numbers: what to compute in.
    """

    def __init__(self, gates: Sequence[Gate], wires: int, inputs: dict[str, Array], numbers: Numbers) -> None:
        self.gates, self.numbers = gates, numbers
        self.halves = {source: numbers.real(values) / 2 for source, values in inputs.items()}
        batch = max(values.shape[-1] for values in inputs.values())
        self.state = np.zeros((*[2] * wires, batch), dtype=numbers.dtype)
        self.state[(0,) * wires] = 1
        for gate in gates:
            self.state = applied(self.matrix(gate), self.state, gate.wires)

    def matrix(self, gate: Gate) -> Entries:
        """Of a gate."""
        if gate.slot is None:
            return FIXED[gate.name](self.numbers.root_half)
        half = self.halves[gate.slot[0]][gate.slot[1]]
        size = 2 ** len(gate.wires)
        return rotation(GENERATORS[gate.name], size, self.numbers.cosine(half), self.numbers.sine(half))

    def values(self, words: Sequence[Word]) -> Array:
        """⟨P⟩ of each word, (words, B)."""
        # What is imaginary of i ⟨P⟩ is ⟨P⟩.
        found = [overlap(self.state, times_word(word, self.state)) for word in words]
        return np.stack([self.numbers.imaginary(1j * value) for value in found])

    def gradient(self, observable: Sequence[tuple[float, Word]], source: str) -> Array:
        """Of the expectation value of a sum of words, by one input, for each sample: (count, B)."""
        ket = self.state
        bra = sum(coefficient * times_word(word, ket) for coefficient, word in observable)
        found = np.zeros_like(self.halves[source], shape=(len(self.halves[source]), ket.shape[-1]))
        for gate in reversed(self.gates):
            if gate.slot is not None and gate.slot[0] == source:
                generated = applied(GENERATORS[gate.name], ket, gate.wires)
                found[gate.slot[1]] = self.numbers.imaginary(overlap(bra, generated))
            back = inverse(self.matrix(gate))
            ket, bra = applied(back, ket, gate.wires), applied(back, bra, gate.wires)
        return found
