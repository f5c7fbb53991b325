"""MindQuantum: `get_expectation_with_grad` of the mqvector simulator, data as encoder parameters."""

from __future__ import annotations

import os
from typing import Any

import mindquantum as mq
import numpy as np
from mindquantum.core import gates as G
from mindquantum.core.circuit import Circuit
from mindquantum.core.operators import Hamiltonian, QubitOperator
from mindquantum.simulator import Simulator

from workloads import Gate, Inputs, Workload

from .base import Answer, answer
from .excitations import pauli_rotations

PAIRS = {"IsingXX": G.Rxx, "IsingZZ": G.Rzz}
SIZES = {"SingleExcitation": 2, "DoubleExcitation": 4}


class ExpectationWithGrad:
    """One gradient operator a circuit."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        n = workload.wires
        if workload.batch:
            hams = [operator([(1.0, ((w, "Z"),))]) for w in range(n)]
        else:
            hams = [operator(workload.hamiltonian)]
        workers = os.cpu_count() if workload.batch else None
        self.operators, self.columns = [], []
        for gates in workload.circuits:
            circuit = built(gates)
            simulator = Simulator("mqvector", n, dtype=mq.complex64)
            self.operators.append(simulator.get_expectation_with_grad(hams, circuit, parallel_worker=workers))
            self.columns.append(
                {
                    "data": [int(name[1:]) for name in circuit.encoder_params_name],
                    "weights": [int(name[1:]) for name in circuit.ansatz_params_name],
                }
            )

    def prepare(self, inputs: Inputs) -> tuple[Any, ...]:
        """Arrays."""
        return inputs.data, inputs.weights, inputs.targets

    def step(self, given: tuple[Any, ...]) -> tuple[float, list[Any]]:
        """Value and gradient."""
        data, weights, targets = given
        by_weights = np.zeros(weights.shape)
        if self.workload.batch:
            (gradient,), (columns,) = self.operators, self.columns
            z, d_data, d_weights = gradient(data[:, columns["data"]], weights[columns["weights"]])
            error = z.real - targets
            cotangent = 2 * error / error.size
            by_data = np.empty(data.shape)
            by_data[:, columns["data"]] = np.einsum("bo,bod->bd", cotangent, d_data.real)
            by_weights[columns["weights"]] = np.einsum("bo,bow->w", cotangent, d_weights.real)
            return (error**2).mean(), [by_data, by_weights]
        total = 0.0
        for gradient, columns in zip(self.operators, self.columns, strict=True):
            value, found = gradient(weights[columns["weights"]])
            total += value[0, 0].real
            by_weights[columns["weights"]] += found[0, 0].real
        return total, [by_weights]

    def read(self, found: tuple[float, list[Any]]) -> Answer:
        """As they are."""
        return answer(self.workload, *found)


def built(gates: tuple[Gate, ...]) -> Circuit:
    """The circuit; parameters are named by their input and column: d0, w0."""
    circuit = Circuit()
    for gate in gates:
        source, index = gate.slot or ("", 0)
        part = Circuit(made(gate, f"{source[:1]}{index}"))
        circuit += part.as_encoder() if source == "data" else part
    return circuit


def made(gate: Gate, parameter: str) -> list[Any]:
    wires = list(gate.wires)
    if gate.name in SIZES:
        words = pauli_rotations(SIZES[gate.name])
        return [G.RotPauliString(word, {parameter: factor}).on(wires) for word, factor in words]
    if gate.name in PAIRS:
        return [PAIRS[gate.name](parameter).on(wires)]
    if gate.slot:
        return [getattr(G, gate.name)(parameter).on(wires)]
    if gate.name in {"CNOT", "CZ"}:
        return [(G.X if gate.name == "CNOT" else G.Z).on(wires[1], wires[0])]
    return [getattr(G, gate.name).on(wires)]


def operator(terms: Any) -> Hamiltonian:
    found = QubitOperator()
    for coefficient, word in terms:
        found += QubitOperator(" ".join(f"{letter}{w}" for w, letter in word), coefficient)
    return Hamiltonian(found, dtype=mq.complex64)
