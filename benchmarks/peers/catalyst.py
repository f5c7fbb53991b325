"""PennyLane's Catalyst: value and gradient compiled ahead of time for lightning.qubit; it computes in complex128."""

from __future__ import annotations

from typing import Any

import catalyst
import jax
import jax.numpy as jnp
import pennylane as qml

from workloads import Gate, Inputs, Workload

from .base import Answer, answer, hamiltonian

jax.config.update("jax_enable_x64", True)


class Compiled:
    """The loss as one compiled function."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.hamiltonian = None if workload.batch else hamiltonian(qml, workload.hamiltonian)
        self.device = qml.device("lightning.qubit", wires=workload.wires)
        self.nodes = [self.node(gates) for gates in workload.circuits]
        if workload.batch:
            self.function = qml.qjit(self.squared_error)
        else:  # a QNode by itself where there is one: wrapped, some circuits do not compile
            energy = self.nodes[0] if len(self.nodes) == 1 else lambda weights: sum(n(weights) for n in self.nodes)
            self.function = qml.qjit(catalyst.value_and_grad(energy))

    def node(self, gates: tuple[Gate, ...]) -> Any:
        """A QNode of weights, and of data before them where there are data."""

        def circuit(*given: Any) -> Any:
            values = dict(zip(("weights", "data"), reversed(given), strict=False))
            for gate in gates:
                value = () if gate.slot is None else (values[gate.slot[0]][gate.slot[1]],)
                getattr(qml, gate.name)(*value, wires=gate.wires)
            if self.workload.batch:
                return [qml.expval(qml.Z(w)) for w in range(self.workload.wires)]
            return qml.expval(self.hamiltonian)

        return qml.QNode(circuit, self.device, diff_method="adjoint")

    def squared_error(self, data: Any, weights: Any, targets: Any) -> Any:
        """Loss and gradients of a batch: those of each sample, vmapped; the gradient of a vmap does not compile."""
        (node,) = self.nodes

        def error(sample: Any, weights: Any, target: Any) -> Any:
            return jnp.sum((jnp.stack(node(sample, weights)) - target) ** 2) / targets.size

        of_one = catalyst.value_and_grad(error, argnums=(0, 1))
        losses, (by_data, by_weights) = catalyst.vmap(of_one, in_axes=(0, None, 0))(data, weights, targets)
        return losses.sum(), (by_data, by_weights.sum(axis=0))

    def prepare(self, inputs: Inputs) -> tuple[Any, ...]:
        """Arrays of JAX, in double precision."""
        arrays = (inputs.data, inputs.weights, inputs.targets) if self.workload.batch else (inputs.weights,)
        return tuple(jnp.asarray(x, dtype=jnp.float64) for x in arrays)

    def step(self, given: tuple[Any, ...]) -> Any:
        """Value and gradient."""
        return jax.block_until_ready(self.function(*given))

    def read(self, found: Any) -> Answer:
        """As numpy."""
        loss, gradients = found
        return answer(self.workload, loss, gradients if self.workload.batch else [gradients])
