"""ketgrad, by `kg.compile` and by `kg.execute` with a tape built anew in every call."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

import ketgrad as kg
from workloads import Workload

from .base import NotSupportedError, hamiltonian
from .torch_like import TorchAdapter, angles, operations, squared_error


class Executed(TorchAdapter):
    """Fresh tapes through `kg.execute`."""

    def __init__(self, workload: Workload, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(workload, dtype)
        if workload.batch:
            self.measurements = [kg.expval(kg.Z(w)) for w in range(workload.wires)]
        else:
            self.measurements = [kg.expval(hamiltonian(kg, workload.hamiltonian))]

    def tapes(self, data: Tensor, weights: Tensor) -> list[kg.Tape]:
        """One tape a circuit."""
        values = angles(data, weights)
        return [kg.Tape(operations(kg, circuit, values), self.measurements) for circuit in self.workload.circuits]

    def loss(self, data: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """The workload's loss."""
        results = self.run(data, weights)
        return squared_error(results[0], targets) if self.workload.batch else sum(results[1:], start=results[0])

    def run(self, data: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """One result a tape."""
        return kg.execute(self.tapes(data, weights))


class Compiled(Executed):
    """The function from tensors to tapes through `kg.compile`, once."""

    def __init__(self, workload: Workload, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(workload, dtype)
        if not hasattr(kg, "compile"):
            raise NotSupportedError("this ketgrad has no kg.compile")
        self.compiled = kg.compile(self.tapes)

    def run(self, data: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
        """One result a tape."""
        return self.compiled(data, weights)


DOUBLE = partial(Compiled, dtype=torch.float64)
