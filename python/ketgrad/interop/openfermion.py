"""Hamiltonians from OpenFermion's operators, without importing OpenFermion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..circuit.observables import Hamiltonian
from ..circuit.types import Array
from ._pauli_sums import hamiltonian

__all__ = ["hamiltonian_from_openfermion"]

_LETTERS = ("X", "Y", "Z")


def hamiltonian_from_openfermion(
    operator: Any, coefficients: Sequence[Any] | Array | Tensor | None = None
) -> Hamiltonian:
    """The Hamiltonian of a `QubitOperator`: see `Hamiltonian.from_openfermion`."""
    terms = getattr(operator, "terms", None)
    if not isinstance(terms, dict):
        raise TypeError(f"expected a QubitOperator of OpenFermion, not {type(operator).__name__}")
    for pauli_word in terms:
        if not all(isinstance(factor, tuple) and factor[1] in _LETTERS for factor in pauli_word):
            hint = "map it to qubits first, as openfermion.jordan_wigner does"
            raise TypeError(f"{type(operator).__name__} of OpenFermion has a term {pauli_word}, no Pauli word; {hint}")
    return hamiltonian(list(terms), list(terms.values()), coefficients)
