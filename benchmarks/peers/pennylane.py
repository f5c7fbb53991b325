"""PennyLane on its CPU devices, with torch."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pennylane as qml
import torch
from pennylane.devices import ExecutionConfig
from pennylane.tape import QuantumScript
from torch import Tensor

from workloads import Circuit, Inputs, Workload

from .base import Answer, answer, hamiltonian, outputs
from .torch_like import TorchAdapter, angles, operations, squared_error


class QNode(TorchAdapter):
    """A QNode, or all tapes in one `qml.execute` where there are several circuits."""

    def __init__(self, workload: Workload, device: Any, diff_method: str, **options: Any) -> None:
        super().__init__(workload)
        self.device, self.diff_method, self.options = device(wires=workload.wires), diff_method, options
        self.hamiltonian = hamiltonian(qml, workload.hamiltonian) if workload.hamiltonian else None
        self.node = qml.QNode(self.circuit, self.device, interface="torch", diff_method=diff_method, **options)

    def circuit(self, data: Tensor, weights: Tensor) -> Any:
        """The function of a QNode."""
        operations(qml, self.workload.circuit, angles(data, weights))
        if self.workload.result == "jacobian":
            return qml.probs(wires=range(self.workload.wires))
        if self.hamiltonian is None:
            return [qml.expval(qml.Z(w)) for w in self.workload.measured_wires]
        return qml.expval(self.hamiltonian)

    def results(self, data: Tensor, weights: Tensor) -> Any:
        """What the circuit measures."""
        return self.node(data, weights)

    def loss(self, data: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """The workload's loss."""
        if self.workload.batch:
            return squared_error(self.node(data, weights), targets)
        if len(self.workload.circuits) == 1:
            return self.node(data, weights)
        values = angles(data, weights)
        tapes = [
            qml.tape.QuantumScript(operations(qml, circuit, values), [qml.expval(self.hamiltonian)])
            for circuit in self.workload.circuits
        ]
        results = qml.execute(
            tapes,
            self.device,
            diff_method=self.diff_method,
            interface="torch",
            grad_on_execution="best",
            device_vjp=self.options.get("device_vjp", False),
        )
        return torch.stack(tuple(results)).sum()


class Fresh:
    """A tape of its own in each call, through the functions of the device, without torch.

    Args:
        workload: what to compute.
        by_vjp: whether gradients take a second call, of the product with the cotangent, in place of the Jacobian.
    """

    def __init__(self, workload: Workload, by_vjp: bool = False) -> None:
        self.workload, self.by_vjp = workload, by_vjp
        self.device = _LIGHTNING(wires=workload.wires)
        self.measurements = [qml.expval(qml.Z(w)) for w in workload.measured_wires]
        method = "adjoint" if workload.result == "gradient" else None
        self.config = ExecutionConfig(gradient_method=method, use_device_gradient=method is not None)

    def prepare(self, inputs: Inputs) -> tuple[Circuit, list[float], Any]:
        """Numbers."""
        return inputs.circuit, inputs.weights.tolist(), inputs.targets.astype(np.float64)

    def step(self, given: Any) -> Any:
        """Value and gradient, values or the state."""
        gates, weights, targets = given
        if self.workload.result == "state":
            tape = QuantumScript([qml.QubitUnitary(g.matrix, wires=g.wires) for g in gates], [qml.state()])
            return self.device.execute([tape], self.config)[0]
        tape = QuantumScript(operations(qml, gates, {"weights": weights}), self.measurements)
        if self.workload.result == "values":
            return self.device.execute([tape], self.config)[0]
        if self.by_vjp:
            error = np.array(self.device.execute([tape], self.config)[0]) - targets
            (gradient,) = self.device.compute_vjp([tape], [tuple(2 * error / error.size)], self.config)
            return (error**2).mean(), [np.array(gradient)]
        (values,), (rows,) = self.device.execute_and_compute_derivatives([tape], self.config)
        error = np.array(values) - targets
        return (error**2).mean(), [(2 * error / error.size) @ np.array(rows)]

    def read(self, found: Any) -> Answer:
        """As they are."""
        if self.workload.result == "gradient":
            return answer(self.workload, *found)
        return outputs(self.workload, found)


_LIGHTNING = partial(qml.device, "lightning.qubit", c_dtype=np.complex64)

BACKPROP = partial(QNode, device=partial(qml.device, "default.qubit"), diff_method="backprop")
LIGHTNING = partial(QNode, device=_LIGHTNING, diff_method="adjoint")
FRESH_VJP = partial(Fresh, by_vjp=True)
LIGHTNING_VJP = partial(QNode, device=_LIGHTNING, diff_method="adjoint", device_vjp=True)
