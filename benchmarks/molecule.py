"""Writes lih.txt: the qubit Hamiltonian of lithium hydride in STO-3G, by PennyLane's own Hartree-Fock.

python benchmarks/molecule.py > benchmarks/lih.txt
"""

from __future__ import annotations

import numpy as np
import pennylane as qml

BOND = 2.969280527
"""The distance of the two nuclei, in Bohr radii."""


def main() -> None:
    molecule = qml.qchem.Molecule(["Li", "H"], np.array([[0.0, 0.0, 0.0], [0.0, 0.0, BOND]]))
    hamiltonian, wires = qml.qchem.molecular_hamiltonian(molecule)
    order = {w: w for w in range(wires)}
    for coefficient, word in zip(*hamiltonian.terms(), strict=True):
        print(f"{float(coefficient):+.10f} {qml.pauli.pauli_word_to_string(word, order)}")


if __name__ == "__main__":
    main()
