"""Gates as Pauli rotations, excitations among them, for libraries that have no such gates."""

from __future__ import annotations

import itertools


def pauli_rotations(size: int) -> list[tuple[str, float]]:
    """Words P and factors f such that the excitation of `size` wires by θ is the product of exp(-i f θ P / 2).

    The generator, i(|0…01…1⟩⟨1…10…0| − h.c.), is a sum of commuting words of X and Y with an odd number of Y; each Y
    brings a factor ±i, by the half of the wires on which it stands.
    """
    half, found = size // 2, []
    for letters in itertools.product("XY", repeat=size):
        ys = letters.count("Y")
        if ys % 2:
            phase = (1j * (-1j) ** letters[:half].count("Y") * 1j ** letters[half:].count("Y")).real
            found.append(("".join(letters), 2 * phase / 2**size))
    return found


LETTERS = {"X": 1, "Y": 2, "Z": 3}
"""The numbers of Pauli letters, in Qulacs and scaluq."""

WORDS: dict[str, list[tuple[str, float]]] = {
    "IsingXX": [("XX", 1.0)],
    "IsingZZ": [("ZZ", 1.0)],
    "SingleExcitation": pauli_rotations(2),
    "DoubleExcitation": pauli_rotations(4),
}
"""The words and factors of a gate, as `pauli_rotations` has them."""
