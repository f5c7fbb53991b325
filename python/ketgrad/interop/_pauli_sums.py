"""Hamiltonians from words and coefficients, which is how other libraries hold sums of Pauli words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..circuit.observables import Hamiltonian, pauli_word
from ..circuit.types import Array, Wire

Word = tuple[tuple[Wire, str], ...]
"""Letters "X", "Y", "Z" with their wires, which are distinct; `()` is the identity."""

# Of the largest coefficient: what transformations of fermions leave of imaginary parts that cancel.
_TOLERANCE = 1e-10


def hamiltonian(words: Sequence[Word], own: Any, given: Sequence[Any] | Array | Tensor | None = None) -> Hamiltonian:
    """The sum of the words, with given coefficients or else with the operator's own.

    Raises:
        TypeError: the operator's own coefficients are no numbers.
        ValueError: one of them is not real, or coefficients and words differ in number.
    """
    coefficients = _real(words, own) if given is None else given
    return Hamiltonian(coefficients, [pauli_word(word) for word in words])


def _real(words: Sequence[Word], own: Any) -> Array:
    try:
        values = np.asarray(own, dtype=np.complex128)
    except (TypeError, ValueError, RuntimeError):
        hint = "bind its parameters, or give their values as coefficients=…"
        raise TypeError(f"the operator has coefficients that are no numbers; {hint}") from None
    imaginary = np.abs(values.imag)
    largest = np.abs(values).max(initial=0.0)
    if (imaginary > _TOLERANCE * largest).any():
        worst = int(imaginary.argmax())
        raise ValueError(
            f"the coefficient of {_shown(words[worst])} is {values[worst]:.6g}; those of a Hamiltonian must be real"
        )
    return values.real.copy()


def _shown(word: Word) -> str:
    return " @ ".join(f"{letter}({wire!r})" for wire, letter in word) or "the identity"
