"""Qulacs: adjoint gradients by `backprop`, one sample at a time; it computes in complex128."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import qulacs

from workloads import Circuit, Inputs, Workload

from .base import Answer, answer, outputs
from .excitations import LETTERS, WORDS


class Backprop:
    """A parametric circuit, and where its parameters come from; Qulacs rotates the other way round."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.circuits = [parametric(workload.wires, circuit) for circuit in workload.circuits]
        self.state = qulacs.QuantumState(workload.wires)
        self.observables = [observable(workload.wires, [(1.0, ((w, "Z"),))]) for w in workload.measured_wires]
        self.energy = observable(workload.wires, workload.hamiltonian)

    def prepare(self, inputs: Inputs) -> tuple[Any, ...]:
        """Arrays in double precision."""
        return tuple(x.astype(np.float64) for x in (inputs.data, inputs.weights, inputs.targets))

    def step(self, given: tuple[Any, ...]) -> Any:
        """Value and gradient, or values."""
        if self.workload.result == "values":
            self.run(*self.circuits[0], {"weights": given[1]})
            return [z.get_expectation_value(self.state) for z in self.observables]
        return self.squared_error(*given) if self.workload.batch else self.total_energy(given[1])

    def read(self, found: Any) -> Answer:
        """As they are."""
        return answer(self.workload, *found) if self.workload.result == "gradient" else outputs(self.workload, found)

    def total_energy(self, weights: Any) -> tuple[float, list[Any]]:
        """⟨H⟩ of all circuits."""
        total, gradient = 0.0, np.zeros_like(weights)
        for circuit, slots in self.circuits:
            self.run(circuit, slots, {"weights": weights})
            total += self.energy.get_expectation_value(self.state)
            for (_, index, factor), g in zip(slots, circuit.backprop(self.energy), strict=True):
                gradient[index] += factor * g
        return total, [gradient]

    def squared_error(self, data: Any, weights: Any, targets: Any) -> tuple[float, list[Any]]:
        """Sample by sample: the values first, then the gradient of the observable Σ g_w Z_w."""
        ((circuit, slots),) = self.circuits
        loss, by_data, by_weights = 0.0, np.zeros_like(data), np.zeros_like(weights)
        for sample, target, row in zip(data, targets, by_data, strict=True):
            self.run(circuit, slots, {"data": sample, "weights": weights})
            error = np.array([z.get_expectation_value(self.state) for z in self.observables]) - target
            loss += (error**2).sum() / data.size
            terms = [(2 * e / data.size, ((w, "Z"),)) for w, e in enumerate(error)]
            gradients = {"data": row, "weights": by_weights}
            for (source, index, factor), g in zip(slots, circuit.backprop(observable(len(target), terms)), strict=True):
                gradients[source][index] += factor * g
        return loss, [by_data, by_weights]

    def run(self, circuit: Any, slots: list[tuple[str, int, float]], values: dict[str, Any]) -> None:
        """Sets the parameters and computes the state."""
        for position, (source, index, factor) in enumerate(slots):
            circuit.set_parameter(position, factor * values[source][index])
        self.state.set_zero_state()
        circuit.update_quantum_state(self.state)


class Fresh:
    """A circuit of its own in each call; Qulacs counts wires from the least significant bit of the state."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.state = qulacs.QuantumState(workload.wires)
        self.observables = [observable(workload.wires, [(1.0, ((w, "Z"),))]) for w in workload.measured_wires]

    def prepare(self, inputs: Inputs) -> tuple[Any, ...]:
        """Numbers."""
        return inputs.circuit, inputs.weights.tolist(), inputs.targets.astype(np.float64)

    def step(self, given: tuple[Any, ...]) -> Any:
        """Value and gradient, values or the state."""
        gates, weights, targets = given
        self.state.set_zero_state()
        if self.workload.result == "gradient":
            return self.gradient(gates, weights, targets)
        circuit = qulacs.QuantumCircuit(self.workload.wires)
        if self.workload.result == "state":
            for gate in gates:
                wires = [self.workload.wires - 1 - w for w in reversed(gate.wires)]
                circuit.add_dense_matrix_gate(wires, gate.matrix)
            circuit.update_quantum_state(self.state)
            return self.state.get_vector()
        for gate in gates:
            if gate.slot is None:
                getattr(circuit, f"add_{gate.name}_gate")(*gate.wires)
            elif gate.name in WORDS:
                for word, factor in WORDS[gate.name]:
                    letters = [LETTERS[letter] for letter in word]
                    angle = -factor * weights[gate.slot[1]]
                    circuit.add_multi_Pauli_rotation_gate(list(gate.wires), letters, angle)
            else:
                getattr(circuit, f"add_{gate.name}_gate")(gate.wires[0], -weights[gate.slot[1]])
        circuit.update_quantum_state(self.state)
        return [z.get_expectation_value(self.state) for z in self.observables]

    def gradient(self, gates: Circuit, weights: list[float], targets: Any) -> tuple[float, list[Any]]:
        """The values first, then the gradient of the observable Σ g_w Z_w."""
        circuit, slots = parametric(self.workload.wires, gates, weights)
        circuit.update_quantum_state(self.state)
        error = np.array([z.get_expectation_value(self.state) for z in self.observables]) - targets
        terms = [(2 * e / error.size, ((w, "Z"),)) for w, e in enumerate(error)]
        gradient = np.zeros(len(weights))
        found = circuit.backprop(observable(self.workload.wires, terms))
        for (_, index, factor), g in zip(slots, found, strict=True):
            gradient[index] += factor * g
        return (error**2).mean(), [gradient]

    def read(self, found: Any) -> Answer:
        """As they are."""
        return answer(self.workload, *found) if self.workload.result == "gradient" else outputs(self.workload, found)


def observable(n: int, terms: Any) -> Any:
    found = qulacs.Observable(n)
    for coefficient, word in terms:
        found.add_operator(coefficient, " ".join(f"{letter} {w}" for w, letter in word))
    return found


def parametric(n: int, gates: Circuit, weights: Sequence[float] = ()) -> tuple[Any, list[tuple[str, int, float]]]:
    """The circuit, and for each of its parameters (input, column, factor); they are set where there are weights."""
    circuit, slots = qulacs.ParametricQuantumCircuit(n), []
    for gate in gates:
        if gate.slot is None:
            getattr(circuit, f"add_{gate.name}_gate")(*gate.wires)
            continue
        for word, factor in WORDS.get(gate.name, [("", 1.0)]):
            slots.append((*gate.slot, -factor))
            angle = -factor * weights[gate.slot[1]] if weights else 0.0
            if word:
                letters = [LETTERS[letter] for letter in word]
                circuit.add_parametric_multi_Pauli_rotation_gate(list(gate.wires), letters, angle)
            else:
                getattr(circuit, f"add_parametric_{gate.name}_gate")(gate.wires[0], angle)
    return circuit, slots
