"""Qiskit Aer's statevector simulator in complex64: values and states, for it has no gradients of its own."""

from __future__ import annotations

from typing import Any

import numpy as np
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import Pauli
from qiskit_aer import AerSimulator

from workloads import Circuit, Inputs, Workload

from .base import Answer, outputs

METHODS = {"IsingXX": "rxx", "IsingZZ": "rzz", "CNOT": "cx"}


class Saved:
    """A circuit with parameters, made once; Aer binds their values."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.simulator = simulator()
        self.parameters = ParameterVector("w", workload.weights)
        self.circuit = measured(workload, workload.circuit, list(self.parameters))

    def prepare(self, inputs: Inputs) -> Any:
        """The values of all parameters."""
        return inputs.weights.tolist()

    def step(self, given: Any) -> list[float]:
        """The expectation values."""
        binds = {parameter: [value] for parameter, value in zip(self.parameters, given, strict=True)}
        data = self.simulator.run(self.circuit, parameter_binds=[binds]).result().data()
        return [data[f"z{w}"] for w in self.workload.measured_wires]

    def read(self, found: Any) -> Answer:
        """As they are."""
        return outputs(self.workload, found)


class Fresh:
    """A circuit of its own in each call; Qiskit counts wires from the least significant bit of the state."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.simulator = simulator()

    def prepare(self, inputs: Inputs) -> tuple[Circuit, list[float]]:
        """Numbers."""
        return inputs.circuit, inputs.weights.tolist()

    def step(self, given: tuple[Circuit, list[float]]) -> Any:
        """Values or the state."""
        gates, weights = given
        if self.workload.result == "values":
            data = self.simulator.run(measured(self.workload, gates, weights)).result().data()
            return [data[f"z{w}"] for w in self.workload.measured_wires]
        circuit = QuantumCircuit(self.workload.wires)
        for gate in gates:
            circuit.unitary(gate.matrix, [self.workload.wires - 1 - w for w in reversed(gate.wires)])
        circuit.save_statevector()
        return np.asarray(self.simulator.run(circuit).result().data()["statevector"])

    def read(self, found: Any) -> Answer:
        """As they are."""
        return outputs(self.workload, found)


def simulator() -> AerSimulator:
    return AerSimulator(method="statevector", precision="single")


def measured(workload: Workload, gates: Circuit, parameters: list[Any]) -> QuantumCircuit:
    """The gates, and ⟨Z⟩ on each measured wire."""
    circuit = QuantumCircuit(workload.wires)
    for gate in gates:
        given = [parameters[gate.slot[1]]] if gate.slot else []
        getattr(circuit, METHODS.get(gate.name, gate.name.lower()))(*given, *gate.wires)
    for w in workload.measured_wires:
        circuit.save_expectation_value(Pauli("Z"), [w], label=f"z{w}")
    return circuit
