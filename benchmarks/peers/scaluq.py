"""scaluq, Qulacs' successor, in complex64: gradients by back propagation, one sample at a time, from batched states."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import scaluq
from scaluq import gate as G

from workloads import Circuit, Gate, Inputs, Workload

from .base import Answer, answer, outputs
from .excitations import LETTERS, WORDS

PRECISION = "f32"
FIXED = {"CNOT": "CX", "SWAP": "Swap"}


class Backprop:
    """Parametric circuits, made once; a parameter has the name of its slot: d0, w0."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.circuits = [parametric(circuit) for circuit in workload.circuits]
        self.slots = [{name_of(g): g.slot for g in circuit if g.slot} for circuit in workload.circuits]
        self.observables = [observable([(1.0, ((w, "Z"),))]) for w in workload.measured_wires]
        self.energy = observable(workload.hamiltonian)

    def prepare(self, inputs: Inputs) -> tuple[Any, ...]:
        """Arrays."""
        return inputs.data, inputs.weights, inputs.targets

    def step(self, given: tuple[Any, ...]) -> Any:
        """Value and gradient, or values."""
        data, weights, targets = given
        if self.workload.result == "values":
            values = {name: float(weights[column]) for name, (_, column) in self.slots[0].items()}
            return expectations(self.circuits[0], self.observables, self.workload.wires, values)
        return self.squared_error(data, weights, targets) if self.workload.batch else self.total_energy(weights)

    def read(self, found: Any) -> Answer:
        """As they are."""
        return answer(self.workload, *found) if self.workload.result == "gradient" else outputs(self.workload, found)

    def total_energy(self, weights: Any) -> tuple[float, list[Any]]:
        """⟨H⟩ of all circuits."""
        total, gradient = 0.0, np.zeros(weights.shape)
        for circuit, slots in zip(self.circuits, self.slots, strict=True):
            values = {name: float(weights[column]) for name, (_, column) in slots.items()}
            ket = scaluq.StateVector(self.workload.wires, PRECISION)
            circuit.update_quantum_state(ket, params=values)
            bra = ket.copy()
            self.energy.apply_to_state(bra)
            total += scaluq.StateVector.inner_product(ket, bra).real
            for name, g in circuit.compute_expectation_gradient_backprop(ket, bra, values).items():
                gradient[slots[name][1]] += g
        return total, [gradient]

    def squared_error(self, data: Any, weights: Any, targets: Any) -> tuple[float, list[Any]]:
        """The values of all samples at once, then for each the gradient of the observable Σ g_w Z_w."""
        (circuit,), (slots,), batch = self.circuits, self.slots, len(data)
        columns = {"data": data.T.tolist(), "weights": [[float(weight)] * batch for weight in weights]}
        values = {name: columns[source][column] for name, (source, column) in slots.items()}
        states = scaluq.StateVectorBatched(batch, self.workload.wires, PRECISION)
        states.set_zero_state()
        circuit.update_quantum_state(states, params=values)
        z = np.array([np.real(o.get_expectation_value(states)) for o in self.observables]).T
        error = z - targets
        by = {"data": np.zeros(data.shape), "weights": np.zeros(weights.shape)}
        for sample in range(batch):
            ket = states.get_state_vector_at(sample)
            bra = ket.copy()
            observable([(2 * e / error.size, ((w, "Z"),)) for w, e in enumerate(error[sample])]).apply_to_state(bra)
            own = {name: column[sample] for name, column in values.items()}
            into = {"data": by["data"][sample], "weights": by["weights"]}
            for name, g in circuit.compute_expectation_gradient_backprop(ket, bra, own).items():
                source, column = slots[name]
                into[source][column] += g
        return (error**2).mean(), [by["data"], by["weights"]]


class Fresh:
    """A circuit of its own in each call; scaluq counts wires from the least significant bit of the state."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.observables = [observable([(1.0, ((w, "Z"),))]) for w in workload.measured_wires]

    def prepare(self, inputs: Inputs) -> tuple[Any, ...]:
        """Numbers."""
        return inputs.circuit, inputs.weights.tolist(), inputs.targets.astype(np.float64)

    def step(self, given: tuple[Any, ...]) -> Any:
        """Value and gradient, values or the state."""
        gates, weights, targets = given
        if self.workload.result == "gradient":
            return self.gradient(gates, weights, targets)
        circuit = scaluq.Circuit(PRECISION)
        if self.workload.result == "values":
            for gate in gates:
                for made in applied(gate, weights):
                    circuit.add_gate(made)
            return expectations(circuit, self.observables, self.workload.wires, {})
        for gate in gates:
            wires = [self.workload.wires - 1 - w for w in reversed(gate.wires)]
            circuit.add_gate(G.DenseMatrix(wires, gate.matrix, is_unitary=True, precision=PRECISION))
        state = scaluq.StateVector(self.workload.wires, PRECISION)
        circuit.update_quantum_state(state)
        return state.get_amplitudes()

    def gradient(self, gates: Circuit, weights: list[float], targets: Any) -> tuple[float, list[Any]]:
        """The values first, then the gradient of the observable Σ g_w Z_w."""
        circuit = parametric(gates)
        values = {name_of(gate): weights[gate.slot[1]] for gate in gates if gate.slot}
        ket = scaluq.StateVector(self.workload.wires, PRECISION)
        circuit.update_quantum_state(ket, params=values)
        error = np.array([o.get_expectation_value(ket).real for o in self.observables]) - targets
        bra = ket.copy()
        observable([(2 * e / error.size, ((w, "Z"),)) for w, e in enumerate(error)]).apply_to_state(bra)
        gradient = np.zeros(len(weights))
        for name, g in circuit.compute_expectation_gradient_backprop(ket, bra, values).items():
            gradient[int(name[1:])] = g
        return (error**2).mean(), [gradient]

    def read(self, found: Any) -> Answer:
        """As they are."""
        return answer(self.workload, *found) if self.workload.result == "gradient" else outputs(self.workload, found)


def expectations(circuit: Any, observables: list[Any], wires: int, values: dict[str, float]) -> list[float]:
    """Of the state that a circuit leads to."""
    state = scaluq.StateVector(wires, PRECISION)
    circuit.update_quantum_state(state, params=values)
    return [o.get_expectation_value(state).real for o in observables]


def observable(terms: Any) -> Any:
    found = [(coefficient, " ".join(f"{letter} {w}" for w, letter in word)) for coefficient, word in terms]
    return scaluq.Operator([scaluq.PauliOperator(word, c, PRECISION) for c, word in found], PRECISION)


def name_of(gate: Gate) -> str:
    """Of a gate's parameter."""
    source, column = gate.slot or ("", 0)
    return f"{source[:1]}{column}"


def parametric(gates: Circuit) -> Any:
    """A circuit whose parameters have names."""
    circuit = scaluq.Circuit(PRECISION)
    for gate in gates:
        if gate.slot is None:
            circuit.add_gate(fixed(gate))
        elif gate.name in WORDS:
            for word, factor in WORDS[gate.name]:
                made = G.ParamPauliRotation(pauli(gate, word), factor, precision=PRECISION)
                circuit.add_param_gate(made, name_of(gate))
        else:
            made = getattr(G, f"Param{gate.name}")(gate.wires[0], precision=PRECISION)
            circuit.add_param_gate(made, name_of(gate))
    return circuit


def applied(gate: Gate, weights: list[float]) -> list[Any]:
    """A gate, with its parameter as a number."""
    if gate.slot is None:
        return [fixed(gate)]
    angle = weights[gate.slot[1]]
    if gate.name in WORDS:
        rotation: Callable[..., Any] = partial(G.PauliRotation, precision=PRECISION)
        return [rotation(pauli(gate, word), factor * angle) for word, factor in WORDS[gate.name]]
    return [getattr(G, gate.name)(gate.wires[0], angle, precision=PRECISION)]


def fixed(gate: Gate) -> Any:
    return getattr(G, FIXED.get(gate.name, gate.name))(*gate.wires, precision=PRECISION)


def pauli(gate: Gate, word: str) -> Any:
    letters = [LETTERS[letter] for letter in word]
    return scaluq.PauliOperator.from_targets_and_pauli_ids(list(gate.wires), letters, 1.0, PRECISION)
