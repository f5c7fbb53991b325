"""ketgrad, by `kg.compile` and by `kg.execute` with a tape built anew in every call."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import ketgrad as kg
from workloads import Circuit, Inputs, Workload

from .base import NotSupportedError, hamiltonian
from .torch_like import FreshAdapter, TorchAdapter, angles, operations, squared_error


class Executed(TorchAdapter):
    """Fresh tapes through `kg.execute`."""

    def __init__(self, workload: Workload, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(workload, dtype)
        if workload.result == "jacobian":
            self.measurements = [kg.probs(wires=range(workload.wires))]
        elif workload.hamiltonian:
            self.measurements = [kg.expval(hamiltonian(kg, workload.hamiltonian))]
        else:
            self.measurements = [kg.expval(kg.Z(w)) for w in workload.measured_wires]

    def tapes(self, data: Tensor, weights: Tensor) -> list[kg.Tape]:
        """One tape a circuit."""
        values = angles(data, weights)
        return [kg.Tape(operations(kg, circuit, values), self.measurements) for circuit in self.workload.circuits]

    def loss(self, data: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """The workload's loss."""
        results = self.run(data, weights)
        return squared_error(results[0], targets) if self.workload.batch else sum(results[1:], start=results[0])

    def results(self, data: Tensor, weights: Tensor) -> Any:
        """Those of the only tape."""
        return self.run(data, weights)[0]

    def run(self, data: Tensor, weights: Tensor) -> tuple[Any, ...]:
        """One result a tape."""
        return kg.execute(self.tapes(data, weights))


class Compiled(Executed):
    """The function from tensors to tapes through `kg.compile`, once."""

    def __init__(self, workload: Workload, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(workload, dtype)
        if not hasattr(kg, "compile"):
            raise NotSupportedError("this ketgrad has no kg.compile")
        self.compiled = kg.compile(self.tapes)

    def run(self, data: Tensor, weights: Tensor) -> tuple[Any, ...]:
        """One result a tape."""
        return self.compiled(data, weights)


class OneCall(Executed):
    """Value and gradient, or Jacobian, in one call of the compiled function."""

    def __init__(self, workload: Workload, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(workload, dtype)
        is_single = len(workload.circuits) == 1
        self.compiled = kg.compile((lambda *given: self.tapes(*given)[0]) if is_single else self.tapes)

    def step(self, given: tuple[Tensor, ...]) -> Any:
        """Value and gradient, or a Jacobian."""
        data, weights, targets = given
        if self.workload.result == "jacobian":
            return self.compiled.value_and_jacobian(data, weights, argnums=1)[1]
        if self.workload.batch:
            return self.compiled.value_and_grad(data, weights, argnums=(0, 1), loss=kg.MeanSquaredError(targets))
        loss = None if len(self.workload.circuits) == 1 else sum
        value, gradient = self.compiled.value_and_grad(data, weights, argnums=1, loss=loss)
        return value, (gradient,)


class BackwardCalls(Compiled):
    """A Jacobian row by row."""

    def jacobian(self, data: Tensor, weights: Tensor) -> Tensor:
        """A backward call for each result."""
        weights = weights.requires_grad_()
        found = self.results(data, weights)
        rows = [torch.autograd.grad(found[k], weights, retain_graph=True)[0] for k in range(len(found))]
        return torch.stack(rows)


class Fresh(FreshAdapter):
    """A tape of its own in each call; without gradients its parameters are numbers."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self.measurements = [kg.expval(kg.Z(w)) for w in workload.measured_wires]

    def prepare(self, inputs: Inputs) -> Any:
        """Gates, parameters and targets; matrices as tensors."""
        gates, weights, targets = super().prepare(inputs)
        if self.workload.result == "state":
            matrices = [torch.from_numpy(gate.matrix).to(torch.complex64) for gate in gates]
            return [(matrix, gate.wires) for matrix, gate in zip(matrices, gates, strict=True)], None, None
        return gates, weights if weights.requires_grad else weights.tolist(), targets

    def values(self, gates: Circuit, weights: Any) -> Any:
        """⟨Z⟩ on each measured wire."""
        parameters = weights.unbind() if isinstance(weights, Tensor) else weights
        tape = kg.Tape(operations(kg, gates, {"weights": parameters}), self.measurements)
        return kg.execute([tape], dtype=torch.float32)[0]

    def state(self, gates: Any) -> Tensor:
        """The amplitudes."""
        return kg.execute([kg.Tape([kg.QubitUnitary(u, wires=w) for u, w in gates], [kg.state()])])[0]


DOUBLE = partial(Compiled, dtype=torch.float64)
