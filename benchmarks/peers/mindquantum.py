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

from workloads import Circuit as Gates
from workloads import Gate, Inputs, Workload

from .base import Answer, answer, outputs
from .excitations import pauli_rotations

PAIRS = {"IsingXX": G.Rxx, "IsingZZ": G.Rzz}
SIZES = {"SingleExcitation": 2, "DoubleExcitation": 4}


class ExpectationWithGrad:
    """One gradient operator a circuit."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        n = workload.wires
        if workload.hamiltonian:
            self.hams = [operator(workload.hamiltonian)]
        else:
            self.hams = [operator([(1.0, ((w, "Z"),))]) for w in workload.measured_wires]
        workers = os.cpu_count() if workload.batch else None
        self.operators, self.columns, self.circuits = [], [], []
        for gates in workload.circuits:
            circuit = built(gates)
            self.circuits.append(circuit)
            simulator = Simulator("mqvector", n, dtype=mq.complex64)
            self.operators.append(simulator.get_expectation_with_grad(self.hams, circuit, parallel_worker=workers))
            self.columns.append(
                {
                    "data": [int(name[1:]) for name in circuit.encoder_params_name],
                    "weights": [int(name[1:]) for name in circuit.ansatz_params_name],
                }
            )

    def prepare(self, inputs: Inputs) -> tuple[Any, ...]:
        """Arrays."""
        return inputs.data, inputs.weights, inputs.targets

    def step(self, given: tuple[Any, ...]) -> Any:
        """Value and gradient, or values."""
        data, weights, targets = given
        if self.workload.result == "values":
            return self.values(weights)
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

    def values(self, weights: Any) -> list[float]:
        """The expectation values of the only circuit."""
        circuit = self.circuits[0]
        simulator = Simulator("mqvector", self.workload.wires, dtype=mq.complex64)
        simulator.apply_circuit(circuit, weights[self.columns[0]["weights"]])
        return [simulator.get_expectation(ham).real for ham in self.hams]

    def read(self, found: Any) -> Answer:
        """As they are."""
        return answer(self.workload, *found) if self.workload.result == "gradient" else outputs(self.workload, found)


class Fresh:
    """A circuit of its own in each call; MindQuantum counts wires from the least significant bit of the state."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.simulator = Simulator("mqvector", workload.wires, dtype=mq.complex64)
        self.hams = [operator([(1.0, ((w, "Z"),))]) for w in workload.measured_wires]

    def prepare(self, inputs: Inputs) -> tuple[Any, ...]:
        """Numbers; an array where there are gradients."""
        weights = inputs.weights if self.workload.result == "gradient" else inputs.weights.tolist()
        return inputs.circuit, weights, inputs.targets

    def step(self, given: tuple[Any, ...]) -> Any:
        """Value and gradient, values or the state."""
        gates, weights, targets = given
        self.simulator.reset()
        if self.workload.result == "gradient":
            return self.gradient(gates, weights, targets)
        if self.workload.result == "state":
            last = self.workload.wires - 1
            unitaries = [G.UnivMathGate("U", g.matrix).on([last - w for w in reversed(g.wires)]) for g in gates]
            self.simulator.apply_circuit(Circuit(unitaries))
            return self.simulator.get_qs()
        parts = [part for gate in gates for part in made(gate, weights[gate.slot[1]] if gate.slot else "")]
        self.simulator.apply_circuit(Circuit(parts))
        return [self.simulator.get_expectation(ham).real for ham in self.hams]

    def gradient(self, gates: Gates, weights: Any, targets: Any) -> tuple[float, list[Any]]:
        """Value and gradient."""
        circuit = Circuit([part for gate in gates for part in made(gate, f"w{gate.slot[1]}" if gate.slot else "")])
        columns = [int(name[1:]) for name in circuit.params_name]
        z, rows = self.simulator.get_expectation_with_grad(self.hams, circuit)(weights[columns])
        error = z[0].real - targets
        by_weights = np.zeros(weights.shape)
        by_weights[columns] = (2 * error / error.size) @ rows[0].real
        return (error**2).mean(), [by_weights]

    def read(self, found: Any) -> Answer:
        """As they are."""
        return answer(self.workload, *found) if self.workload.result == "gradient" else outputs(self.workload, found)


def built(gates: Gates) -> Circuit:
    """The circuit; parameters are named by their input and column: d0, w0."""
    circuit = Circuit()
    for gate in gates:
        source, index = gate.slot or ("", 0)
        part = Circuit(made(gate, f"{source[:1]}{index}"))
        circuit += part.as_encoder() if source == "data" else part
    return circuit


def made(gate: Gate, parameter: str | float) -> list[Any]:
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
