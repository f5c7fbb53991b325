"""Hamiltonians from Pauli words and coefficients, the form in which other libraries have sums of Pauli words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..circuit.observables import Hamiltonian, pauli_word
from ..circuit.types import Array, Wire

PauliWord = tuple[tuple[Wire, str], ...]
"""Letters "X", "Y", "Z" with their wires, which are distinct; `()` is the identity."""

# Imaginary parts up to this fraction of the largest coefficient are rounding errors, as of fermionic transformations.
_TOLERANCE = 1e-10


def hamiltonian(
    pauli_words: Sequence[PauliWord], coefficients: Any, given: Sequence[Any] | Array | Tensor | None = None
) -> Hamiltonian:
    """The sum of the Pauli words, with the `given` coefficients, or the operator's own if that is None.

    Raises:
        TypeError: the operator's own coefficients are no numbers.
        ValueError: one of them is not real, or coefficients and Pauli words differ in number.
    """
    chosen = _real(pauli_words, coefficients) if given is None else given
    return Hamiltonian(chosen, [pauli_word(letters) for letters in pauli_words])


def _real(pauli_words: Sequence[PauliWord], coefficients: Any) -> Array:
    try:
        values = np.asarray(coefficients, dtype=np.complex128)
    except (TypeError, ValueError, RuntimeError):
        hint = "bind its parameters, or give their values as coefficients=…"
        raise TypeError(f"the operator has coefficients that are no numbers; {hint}") from None
    imaginary = np.abs(values.imag)
    largest = np.abs(values).max(initial=0.0)
    if (imaginary > _TOLERANCE * largest).any():
        worst = int(imaginary.argmax())
        raise ValueError(
            f"the coefficient of {_shown(pauli_words[worst])} is {values[worst]:.6g}; "
            "those of a Hamiltonian must be real"
        )
    return values.real.copy()


def _shown(letters: PauliWord) -> str:
    return " @ ".join(f"{letter}({wire!r})" for wire, letter in letters) or "the identity"
