"""What the adapters of libraries with a torch interface share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from workloads import Gate, Inputs, Workload

from .base import Answer, answer

Angles = dict[str, tuple[Tensor, ...]]
"""The parameters of gates: columns of the inputs, "data" (batch,) and "weights" ()."""


class TorchAdapter:
    """Loss by `loss`, gradients by torch."""

    def __init__(self, workload: Workload, dtype: torch.dtype = torch.float32) -> None:
        self.workload = workload
        self.dtype = dtype

    def prepare(self, inputs: Inputs) -> tuple[Tensor, ...]:
        """Data, weights and targets; leaves of autograd where gradients are wanted."""
        data, weights, targets = (
            torch.tensor(x, dtype=self.dtype) for x in (inputs.data, inputs.weights, inputs.targets)
        )
        return data.requires_grad_(), weights.requires_grad_(), targets

    def step(self, given: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Value and gradient."""
        data, weights, targets = given
        loss = self.loss(data, weights, targets)
        return loss, torch.autograd.grad(loss, [data, weights] if self.workload.batch else [weights])

    def read(self, found: tuple[Tensor, tuple[Tensor, ...]]) -> Answer:
        """As numpy."""
        loss, gradients = found
        return answer(self.workload, loss.item(), [g.numpy() for g in gradients])

    def loss(self, data: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """The workload's loss."""
        raise NotImplementedError


def angles(data: Tensor, weights: Tensor) -> Angles:
    """All parameters of gates, each tensor cut once."""
    return {"data": data.unbind(1), "weights": weights.unbind()}


def operations(library: Any, gates: tuple[Gate, ...], values: Angles) -> list[Any]:
    """The gates of a library that has PennyLane's names."""
    return [
        getattr(library, gate.name)(*(values[gate.slot[0]][gate.slot[1]],) if gate.slot else (), wires=gate.wires)
        for gate in gates
    ]


def squared_error(results: Any, targets: Tensor) -> Tensor:
    """The loss of ⟨Z⟩ on each wire, each (batch,)."""
    return ((torch.stack(tuple(results), dim=1) - targets) ** 2).mean()
