"""ketgrad: batches of quantum circuits on native statevector kernels, differentiated by the adjoint method.

A circuit is a `Tape` of operations and measurements; `execute` runs tapes and torch differentiates the results.
Below it are `ExecuteTapes`, a `torch.autograd.Function`, and `AdjointProducts`, its Jacobian products, both with the
contracts of their counterparts in PennyLane.
"""

from __future__ import annotations

from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import nn, optim
from .circuit import measurements, observables, operations
from .circuit.measurements import Measurement, counts, density_matrix, expval, probs, sample, state, var
from .circuit.observables import Diagonal, Hamiltonian, Hermitian, Observable, Projector, SparseHamiltonian
from .circuit.operations import (
    CCZ,
    CH,
    CNOT,
    CRX,
    CRY,
    CRZ,
    CSWAP,
    CY,
    CZ,
    ISWAP,
    PSWAP,
    RX,
    RY,
    RZ,
    SWAP,
    SX,
    U1,
    U2,
    U3,
    BasisState,
    ControlledPhaseShift,
    CPhase,
    CRot,
    DiagonalEvolution,
    DiagonalQubitUnitary,
    DoubleExcitation,
    DoubleExcitationMinus,
    DoubleExcitationPlus,
    GlobalPhase,
    H,
    Hadamard,
    Identity,
    IsingXX,
    IsingXY,
    IsingYY,
    IsingZZ,
    MultiRZ,
    Operation,
    PauliRot,
    PauliX,
    PauliY,
    PauliZ,
    PhaseShift,
    QubitUnitary,
    Rot,
    S,
    SingleExcitation,
    SingleExcitationMinus,
    SingleExcitationPlus,
    StatePrep,
    T,
    Toffoli,
    X,
    Y,
    Z,
    adjoint,
    ctrl,
)
from .circuit.tabulate import tabulate
from .circuit.tape import Tape
from .compilation.compiled import compile
from .compilation.losses import MeanSquaredError
from .execution.execute_tapes import ExecuteTapes, execute
from .execution.explain import Explanation, explain
from .execution.jacobian_products import AdjointProducts
from .execution.programs import structure_cache
from .interop import from_openqasm, from_qiskit
from .matrix import matrix
from .metric import metric_tensor, quantum_fisher

__version__ = "0.1.0"

__all__ = [
    "CCZ",
    "CH",
    "CNOT",
    "CRX",
    "CRY",
    "CRZ",
    "CSWAP",
    "CY",
    "CZ",
    "ISWAP",
    "PSWAP",
    "RX",
    "RY",
    "RZ",
    "SWAP",
    "SX",
    "U1",
    "U2",
    "U3",
    "AdjointProducts",
    "BasisState",
    "CPhase",
    "CRot",
    "ControlledPhaseShift",
    "Diagonal",
    "DiagonalEvolution",
    "DiagonalQubitUnitary",
    "DoubleExcitation",
    "DoubleExcitationMinus",
    "DoubleExcitationPlus",
    "ExecuteTapes",
    "Explanation",
    "GlobalPhase",
    "H",
    "Hadamard",
    "Hamiltonian",
    "Hermitian",
    "Identity",
    "IsingXX",
    "IsingXY",
    "IsingYY",
    "IsingZZ",
    "MeanSquaredError",
    "Measurement",
    "MultiRZ",
    "Observable",
    "Operation",
    "PauliRot",
    "PauliX",
    "PauliY",
    "PauliZ",
    "PhaseShift",
    "Projector",
    "QubitUnitary",
    "Rot",
    "S",
    "SingleExcitation",
    "SingleExcitationMinus",
    "SingleExcitationPlus",
    "SparseHamiltonian",
    "StatePrep",
    "T",
    "Tape",
    "Toffoli",
    "X",
    "Y",
    "Z",
    "__version__",
    "adjoint",
    "compile",
    "counts",
    "ctrl",
    "density_matrix",
    "execute",
    "explain",
    "expval",
    "from_openqasm",
    "from_qiskit",
    "matrix",
    "measurements",
    "metric_tensor",
    "nn",
    "observables",
    "operations",
    "optim",
    "probs",
    "quantum_fisher",
    "sample",
    "state",
    "structure_cache",
    "tabulate",
    "var",
]


def __dir__() -> list[str]:
    return sorted(__all__)


if not _TYPE_CHECKING:  # type checkers would accept any name

    def __getattr__(name: str) -> object:
        from ._elsewhere import refuse_name

        refuse_name(name, __all__)
