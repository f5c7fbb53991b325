"""Messages for names that `ketgrad` does not have."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import NoReturn

# Names of PennyLane, Qiskit and others, and what ketgrad has instead.
_ELSEWHERE = {
    "QFT": "write its gates (H, ControlledPhaseShift and SWAP), or read the circuit: kg.from_qiskit",
    "measure": "a tape ends in its measurements: kg.Tape(operations, [kg.sample()], shots=100). "
    "Mid-circuit measurements are in the PennyLane device ketgrad.qubit",
    "cond": "classical control is in the PennyLane device ketgrad.qubit",
    "DepolarizingChannel": "there is no noise: states are pure",
    "AmplitudeDamping": "there is no noise: states are pure",
    "PhaseDamping": "there is no noise: states are pure",
    "BitFlip": "there is no noise: states are pure",
    "PhaseFlip": "there is no noise: states are pure",
    "grad": "results are torch tensors: result.backward(), torch.autograd.grad or torch.func.grad",
    "jacobian": "results are torch tensors: torch.func.jacrev or torch.autograd.functional.jacobian",
    "hessian": "results are torch tensors: torch.func.hessian",
    "device": "tapes need none, kg.execute([tape]) runs them; QNodes have qml.device('ketgrad.qubit')",
    "qnode": "write a function that returns a kg.Tape under @kg.compile, or a QNode on qml.device('ketgrad.qubit')",
    "QNode": "write a function that returns a kg.Tape under @kg.compile, or a QNode on qml.device('ketgrad.qubit')",
    "QuantumCircuit": "a circuit is a kg.Tape; kg.from_qiskit reads Qiskit's",
    "Circuit": "a circuit is a kg.Tape",
    "QuantumScript": "a circuit is a kg.Tape; kg.Tape.from_pennylane reads PennyLane's",
    "draw": "print(tape), or tape.draw()",
    "run": "kg.execute([tape])",
    "simulate": "kg.execute([tape])",
    "prod": "products of observables are written as a @ b",
    "sum": "sums of observables are written as a + b",
    "dot": "kg.Hamiltonian(coefficients, observables)",
    "AngleEmbedding": "kg.nn.AngleEmbedding",
    "AmplitudeEmbedding": "kg.StatePrep, or kg.nn.AmplitudeEmbedding in a layer",
    "IQPEmbedding": "kg.nn.IQPEmbedding",
    "StronglyEntanglingLayers": "kg.nn.StronglyEntangling",
    "BasicEntanglerLayers": "kg.nn.BasicEntangler",
    "TorchLayer": "kg.nn.CircuitLayer",
    "Linear": "kg.nn.CircuitLayer is a layer; torch.nn has the others",
    "GradientDescentOptimizer": "torch.optim.SGD",
    "AdamOptimizer": "torch.optim.Adam",
    "QNGOptimizer": "kg.optim.QNG",
    "StatePreparation": "kg.StatePrep",
    "QubitStateVector": "kg.StatePrep",
    "BasisEmbedding": "kg.BasisState",
    "CX": "kg.CNOT",
    "CCX": "kg.Toffoli",
    "CCNOT": "kg.Toffoli",
    "MultiControlledX": "kg.ctrl(kg.X(target), control)",
    "ControlledQubitUnitary": "kg.ctrl(kg.QubitUnitary(U, wires), control)",
    "controlled": "kg.ctrl",
    "inverse": "kg.adjoint",
    "CU1": "kg.ControlledPhaseShift",
    "CP": "kg.ControlledPhaseShift",
    "P": "kg.PhaseShift",
    "Phase": "kg.PhaseShift",
    "RXX": "kg.IsingXX",
    "RYY": "kg.IsingYY",
    "RZZ": "kg.IsingZZ",
    "U": "kg.U3",
    "Sdg": "kg.adjoint(kg.S(wires))",
    "Tdg": "kg.adjoint(kg.T(wires))",
    "purity": "of kg.density_matrix: torch.einsum('ij,ji', rho, rho)",
    "vn_entropy": "of the eigenvalues of kg.density_matrix: torch.linalg.eigvalsh(rho)",
    "shots": "shots belong to a tape: kg.Tape(operations, measurements, shots=1000)",
}


def refuse_name(name: str, known: Sequence[str]) -> NoReturn:
    """Raise AttributeError with what ketgrad has instead, or with a name of similar spelling."""
    if name in _ELSEWHERE:
        raise AttributeError(f"ketgrad has no {name!r}: {_ELSEWHERE[name]}")
    folded = {each.lower(): each for each in known}
    close = [] if name.startswith("_") else get_close_matches(name.lower(), folded, n=1, cutoff=0.75)
    hint = f"; did you mean {folded[close[0]]!r}?" if close else ""
    raise AttributeError(f"module 'ketgrad' has no attribute {name!r}{hint}")
