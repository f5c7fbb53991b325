"""DeepQuantum: data are encoded and vmapped over, weights of batched circuits are parameters of the module."""

from __future__ import annotations

from typing import Any

import deepquantum as dq
import torch
from torch import Tensor

from workloads import Gate, Inputs, Workload

from .base import Answer, NotSupportedError, answer
from .torch_like import TorchAdapter

METHODS = {"IsingXX": "rxx", "IsingZZ": "rzz"}


class Module(TorchAdapter):
    """A `QubitCircuit` a circuit."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self.parameters: list[torch.nn.Parameter] = []
        self.circuits = [self.built(circuit) for circuit in workload.circuits]
        encoded = [[g.slot for g in c if g.slot and self.is_encoded(g)] for c in workload.circuits]
        self.columns = [torch.tensor([index for _, index in slots]) for slots in encoded]
        self.coefficients = torch.tensor([coefficient for coefficient, _ in workload.hamiltonian])

    def is_encoded(self, gate: Gate) -> bool:
        """Whether a gate's parameter comes with the call: all do where there are no data to tell apart."""
        return not self.workload.batch or (gate.slot is not None and gate.slot[0] == "data")

    def built(self, gates: tuple[Gate, ...]) -> Any:
        """The circuit and what it measures."""
        circuit = dq.QubitCircuit(self.workload.wires)
        for gate in gates:
            method = getattr(circuit, METHODS.get(gate.name, gate.name.lower()), None)
            if method is None:
                raise NotSupportedError(f"no gate {gate.name}")
            wires = list(gate.wires) if gate.name in {*METHODS, "SWAP"} else gate.wires
            if gate.slot is None:
                method(wires) if isinstance(wires, list) else method(*wires)
                continue
            encode = self.is_encoded(gate)
            method(wires if isinstance(wires, list) else wires[0], encode=encode)
            if not encode:
                self.parameters.append(circuit.operators[-1].theta)
        if self.workload.batch:
            for w in range(self.workload.wires):
                circuit.observable(w)
        for _, word in self.workload.hamiltonian:
            if not word:
                raise NotSupportedError("no observable that is the identity")
            circuit.observable([w for w, _ in word], "".join(letter.lower() for _, letter in word))
        return circuit

    def prepare(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Weights of a module are set; others are tensors."""
        given = super().prepare(inputs)
        for parameter, value in zip(self.parameters, given[1].detach(), strict=False):
            parameter.data = value.reshape(parameter.shape).clone()
        return given

    def step(self, given: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Value and gradient."""
        data, _, targets = given
        if not self.workload.batch:
            return super().step(given)
        (circuit,), (columns,) = self.circuits, self.columns
        circuit(data=data[:, columns])
        loss = ((circuit.expectation() - targets) ** 2).mean()
        return loss, torch.autograd.grad(loss, [data, *self.parameters])

    def loss(self, data: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """The energy."""
        total = torch.zeros(())
        for circuit, columns in zip(self.circuits, self.columns, strict=True):
            circuit(data=weights[columns])
            total = total + circuit.expectation().reshape(-1) @ self.coefficients
        return total

    def read(self, found: tuple[Tensor, tuple[Tensor, ...]]) -> Answer:
        """As numpy."""
        loss, gradients = found
        if self.workload.batch:
            gradients = (gradients[0], torch.stack([g.reshape(()) for g in gradients[1:]]))
        return answer(self.workload, loss.item(), [g.numpy() for g in gradients])
