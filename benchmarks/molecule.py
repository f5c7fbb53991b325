"""Writes the qubit Hamiltonians of molecules in STO-3G that workloads read, by PennyLane's qchem.

    python benchmarks/molecule.py lih > benchmarks/lih.txt
    python benchmarks/molecule.py h2o > benchmarks/h2o.txt
    python benchmarks/molecule.py n2 > benchmarks/n2.txt

The integrals are PySCF's (pip install pennylane pyscf), but for LiH, whose are PennyLane's own.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import pennylane as qml

BOHR = 1.8897261246
"""An angstrom, in Bohr radii."""


@dataclass(frozen=True)
class Molecule:
    """Atoms and where they are, in Bohr radii; which electrons and orbitals are active, if not all."""

    symbols: list[str]
    coordinates: list[list[float]]
    method: str
    electrons: int | None = None
    orbitals: int | None = None


MOLECULES = {
    "lih": Molecule(["Li", "H"], [[0, 0, 0], [0, 0, 2.969280527]], "dhf"),
    # Without the 1s electrons of oxygen. Bonds of 0.9584 Å at 104.45°.
    "h2o": Molecule(
        ["O", "H", "H"],
        [[0, 0, 0], [0, 0.7575 * BOHR, 0.5871 * BOHR], [0, -0.7575 * BOHR, 0.5871 * BOHR]],
        "pyscf",
        electrons=8,
        orbitals=6,
    ),
    # Without the 1s electrons of both atoms. A bond of 1.0977 Å.
    "n2": Molecule(["N", "N"], [[0, 0, 0], [0, 0, 1.0977 * BOHR]], "pyscf", electrons=10, orbitals=8),
}


def main() -> None:
    wanted = MOLECULES[sys.argv[1]]
    molecule = qml.qchem.Molecule(wanted.symbols, np.array(wanted.coordinates, dtype=float))
    hamiltonian, wires = qml.qchem.molecular_hamiltonian(
        molecule, method=wanted.method, active_electrons=wanted.electrons, active_orbitals=wanted.orbitals
    )
    order = {w: w for w in range(wires)}
    for coefficient, word in zip(*hamiltonian.terms(), strict=True):
        if abs(coefficient) > 1e-10:
            print(f"{float(np.real(coefficient)):+.10f} {qml.pauli.pauli_word_to_string(word, order)}")


if __name__ == "__main__":
    main()
