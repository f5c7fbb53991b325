"""What the adapters of libraries with a torch interface share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from workloads import Circuit, Inputs, Workload

from .base import Answer, answer, outputs

Angles = Mapping[str, Sequence[Any]]
"""The parameters of gates: columns of the inputs, "data" (batch,) and "weights" (), or numbers."""


class TorchAdapter:
    """Loss by `loss`, gradients by torch; values and Jacobians by `results`."""

    def __init__(self, workload: Workload, dtype: torch.dtype = torch.float32) -> None:
        self.workload = workload
        self.dtype = dtype

    def prepare(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Data, weights and targets; leaves of autograd where gradients are wanted."""
        given = (torch.tensor(x, dtype=self.dtype) for x in (inputs.data, inputs.weights, inputs.targets))
        data, weights, targets = given
        if self.workload.result == "gradient":
            return data.requires_grad_(), weights.requires_grad_(), targets
        return data, weights, targets

    def step(self, given: tuple[Tensor, ...]) -> Any:
        """Value and gradient, values or a Jacobian."""
        data, weights, targets = given
        if self.workload.result == "values":
            return self.results(data, weights)
        if self.workload.result == "jacobian":
            return self.jacobian(data, weights)
        loss = self.loss(data, weights, targets)
        return loss, torch.autograd.grad(loss, [data, weights] if self.workload.batch else [weights])

    def read(self, found: Any) -> Answer:
        """As numpy."""
        if self.workload.result != "gradient":
            return outputs(self.workload, torch.stack(tuple(found)).numpy())
        loss, gradients = found
        return answer(self.workload, loss.item(), [g.numpy() for g in gradients])

    def jacobian(self, data: Tensor, weights: Tensor) -> Tensor:
        """Of what `results` gives, by the weights."""
        return torch.func.jacrev(lambda w: self.results(data, w))(weights)

    def loss(self, data: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """The workload's loss."""
        raise NotImplementedError

    def results(self, data: Tensor, weights: Tensor) -> Any:
        """What the only circuit measures: tensors, or one with an axis for them."""
        raise NotImplementedError


class FreshAdapter:
    """A circuit that is new in each call: `values` and `state` of its gates and their parameters."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload

    def prepare(self, inputs: Inputs) -> tuple[Circuit, Tensor, Tensor]:
        """Gates, weights and targets."""
        weights = torch.tensor(inputs.weights, requires_grad=self.workload.result == "gradient")
        return inputs.circuit, weights, torch.tensor(inputs.targets)

    def step(self, given: Any) -> Any:
        """Value and gradient, values or the state."""
        gates, weights, targets = given
        if self.workload.result == "state":
            return self.state(gates)
        values = self.values(gates, weights)
        if self.workload.result == "values":
            return values
        loss = (torch.stack(tuple(values)) - targets).square().mean()
        return loss, torch.autograd.grad(loss, [weights])

    def read(self, found: Any) -> Answer:
        """As numpy."""
        if self.workload.result == "gradient":
            loss, gradients = found
            return answer(self.workload, loss.item(), [g.numpy() for g in gradients])
        return outputs(self.workload, found.numpy() if isinstance(found, Tensor) else [float(value) for value in found])

    def values(self, gates: Circuit, weights: Any) -> Any:
        """⟨Z⟩ on each measured wire."""
        raise NotImplementedError

    def state(self, gates: Circuit) -> Tensor:
        """The amplitudes."""
        raise NotImplementedError


def angles(data: Tensor, weights: Tensor) -> Angles:
    """All parameters of gates, each tensor cut once."""
    return {"data": data.unbind(1), "weights": weights.unbind()}


def operations(library: Any, gates: Circuit, values: Angles) -> list[Any]:
    """The gates of a library that has PennyLane's names."""
    return [
        getattr(library, gate.name)(*(values[gate.slot[0]][gate.slot[1]],) if gate.slot else (), wires=gate.wires)
        for gate in gates
    ]


def squared_error(results: Any, targets: Tensor) -> Tensor:
    """The loss of ⟨Z⟩ on each wire, each (batch,)."""
    return ((torch.stack(tuple(results), dim=1) - targets) ** 2).mean()
