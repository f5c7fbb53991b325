"""TensorCircuit-NG on JAX: one jitted value_and_grad, vmapped over the samples."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorcircuit as tc

from workloads import Gate, Inputs, Workload

from .base import Answer, answer, outputs

tc.set_backend("jax")
tc.set_dtype("complex64")

MANY_TERMS = 100
"""From here on a Hamiltonian is a sparse matrix."""
METHODS = {"IsingXX": "rxx", "IsingZZ": "rzz"}


class Jitted:
    """The loss as one function of arrays."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.sparse = sparse(workload) if len(workload.hamiltonian) > MANY_TERMS else None
        by = (0, 1) if workload.batch else 1
        loss = self.squared_error if workload.batch else self.energy
        functions = {
            "gradient": jax.value_and_grad(loss, argnums=by),
            "values": self.values,
            "jacobian": jax.jacrev(self.probabilities, argnums=1),
        }
        self.function = jax.jit(functions[workload.result])

    def prepare(self, inputs: Inputs) -> tuple[Any, ...]:
        """Arrays of JAX."""
        return tuple(jnp.asarray(x) for x in (inputs.data, inputs.weights, inputs.targets))

    def step(self, given: tuple[Any, ...]) -> Any:
        """Value and gradient, values or a Jacobian."""
        return jax.block_until_ready(self.function(*given))

    def read(self, found: Any) -> Answer:
        """As numpy."""
        if self.workload.result != "gradient":
            return outputs(self.workload, found)
        loss, gradients = found
        return answer(self.workload, loss, gradients if self.workload.batch else [gradients])

    def squared_error(self, data: Any, weights: Any, targets: Any) -> Any:
        """The loss of a batch."""

        def results(sample: Any) -> Any:
            circuit = self.circuit(self.workload.circuit, {"data": sample, "weights": weights})
            return jnp.stack([circuit.expectation_ps(z=[w]).real for w in range(self.workload.wires)])

        return jnp.mean((jax.vmap(results)(data) - targets) ** 2)

    def values(self, data: Any, weights: Any, targets: Any) -> Any:
        """⟨Z⟩ on each measured wire."""
        circuit = self.circuit(self.workload.circuit, {"weights": weights})
        return jnp.stack([circuit.expectation_ps(z=[w]).real for w in self.workload.measured_wires])

    def probabilities(self, data: Any, weights: Any, targets: Any) -> Any:
        """Those of all wires."""
        return self.circuit(self.workload.circuit, {"weights": weights}).probability()

    def energy(self, data: Any, weights: Any, targets: Any) -> Any:
        """⟨H⟩ of all circuits."""
        return sum(self.expectation(self.circuit(gates, {"weights": weights})) for gates in self.workload.circuits)

    def expectation(self, circuit: Any) -> Any:
        """⟨H⟩ of one."""
        if self.sparse is not None:
            return tc.templates.measurements.operator_expectation(circuit, self.sparse)
        total = 0.0
        for coefficient, word in self.workload.hamiltonian:
            letters = {name: [w for w, letter in word if letter == name.upper()] for name in "xyz"}
            total += coefficient * circuit.expectation_ps(**letters).real
        return total

    def circuit(self, gates: tuple[Gate, ...], values: dict[str, Any]) -> Any:
        """The circuit of these values."""
        circuit = tc.Circuit(self.workload.wires)
        for gate in gates:
            value = None if gate.slot is None else values[gate.slot[0]][gate.slot[1]]
            if gate.name.endswith("Excitation"):
                circuit.any(*gate.wires, unitary=excitation(value, len(gate.wires)))
            else:
                given = {} if value is None else {"theta": value}
                getattr(circuit, METHODS.get(gate.name, gate.name.lower()))(*gate.wires, **given)
        return circuit


def sparse(workload: Workload) -> Any:
    codes = [[0] * workload.wires for _ in workload.hamiltonian]
    for code, (_, word) in zip(codes, workload.hamiltonian, strict=True):
        for w, letter in word:
            code[w] = "IXYZ".index(letter)
    return tc.quantum.PauliStringSum2COO(codes, [coefficient for coefficient, _ in workload.hamiltonian])


def excitation(angle: Any, size: int) -> Any:
    """The rotation between 0…01…1 and 1…10…0, as PennyLane has it."""
    low, high = 2 ** (size // 2) - 1, 2**size - 2 ** (size // 2)
    same, turn = np.zeros((2, 2**size, 2**size), dtype=np.float32)
    same[low, low] = same[high, high] = 1
    turn[low, high], turn[high, low] = -1, 1
    fixed = np.eye(2**size, dtype=np.float32) - same
    return (fixed + jnp.cos(angle / 2) * same + jnp.sin(angle / 2) * turn).astype(jnp.complex64)
