"""PennyLane on its CPU devices, with torch."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pennylane as qml
import torch
from torch import Tensor

from workloads import Workload

from .base import hamiltonian
from .torch_like import TorchAdapter, angles, operations, squared_error


class QNode(TorchAdapter):
    """A QNode, or all tapes in one `qml.execute` where there are several circuits."""

    def __init__(self, workload: Workload, device: Any, diff_method: str, **options: Any) -> None:
        super().__init__(workload)
        self.device, self.diff_method, self.options = device(wires=workload.wires), diff_method, options
        self.hamiltonian = None if workload.batch else hamiltonian(qml, workload.hamiltonian)
        self.node = qml.QNode(self.circuit, self.device, interface="torch", diff_method=diff_method, **options)

    def circuit(self, data: Tensor, weights: Tensor) -> Any:
        """The function of a QNode."""
        operations(qml, self.workload.circuit, angles(data, weights))
        if self.workload.batch:
            return [qml.expval(qml.Z(w)) for w in range(self.workload.wires)]
        return qml.expval(self.hamiltonian)

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


_LIGHTNING = partial(qml.device, "lightning.qubit", c_dtype=np.complex64)

BACKPROP = partial(QNode, device=partial(qml.device, "default.qubit"), diff_method="backprop")
LIGHTNING = partial(QNode, device=_LIGHTNING, diff_method="adjoint")
LIGHTNING_VJP = partial(QNode, device=_LIGHTNING, diff_method="adjoint", device_vjp=True)
