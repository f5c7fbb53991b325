"""Optimisers for circuits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor

from .circuit.tape import Tape
from .metric import metric_tensor, require_circuit

__all__ = ["QNG"]


class QNG(torch.optim.Optimizer):
    """Quantum natural gradient descent (arXiv:1909.02108), with a bound on the distance that a step moves the state.

    w ← w − lr · (G + damping · 1)⁻¹ ∂L/∂w, with the Fubini-Study metric G of the weights (`kg.metric_tensor`). A step s
    with a distance √(sᵀ(G + damping · 1)s) above `max_distance` is scaled down to it: near singularities of the metric,
    the unbounded rule takes steps far beyond its range of validity.

    Args:
        params: the circuit's weights, in the order in which `circuit` takes them, in one group.
        circuit: weights → a tape without a batch; or a `CircuitLayer` without inputs.
        lr: the step size, in units of 1/loss; by default 0.1.
        damping: added to the diagonal of the metric, which is singular if weights are redundant; by default 1e-3. More
            damping is more stable, and slower near the minimum.
        max_distance: the longest step, as an angle between states in radians, by default 0.1; `math.inf` for no bound.

    Raises:
        TypeError: the circuit is not callable, or a layer that takes inputs; lr, damping or max_distance is no number;
            params is None or a tensor.
        ValueError: lr, damping or max_distance is negative, max_distance is 0, or there is more than one group of
            parameters.

    Example:
        >>> import torch, ketgrad as kg
        >>> def circuit(w):
        ...     return kg.Tape([kg.RX(w[0], wires=0), kg.RY(w[1], wires=0)], [kg.expval(kg.Z(0))])
        >>> w = torch.nn.Parameter(torch.tensor([0.3, 0.5]))
        >>> optimizer = kg.optim.QNG([w], circuit, lr=0.3)
        >>> for _ in range(30):
        ...     energy = kg.execute([circuit(w)])[0]
        ...     optimizer.zero_grad()
        ...     energy.backward()
        ...     _ = optimizer.step()
        >>> bool(energy < -0.99)
        True
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        circuit: Callable[..., Tape],
        lr: float = 0.1,
        damping: float = 1e-3,
        max_distance: float = 0.1,
    ) -> None:
        options: dict[str, Any] = {"lr": lr, "damping": damping, "max_distance": max_distance}
        given: Any = params
        if given is None or isinstance(given, Tensor):
            raise TypeError(f"QNG takes a list of weights, [weights], not {type(params).__name__}")
        for name, value in options.items():
            is_number = value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, Real)
            if not is_number:
                raise TypeError(f"{name} must be a number, not {value!r} of type {type(value).__name__}")
            if not value >= 0:
                raise ValueError(f"{name} must not be negative, and is {value}")
        if max_distance == 0:
            raise ValueError("max_distance must be positive, not 0; math.inf sets no bound on a step")
        require_circuit(circuit)
        super().__init__(params, options)
        if len(self.param_groups) != 1:
            raise ValueError("QNG takes the weights of one circuit, in one group of parameters")
        self.circuit = circuit

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; weights without a gradient are not changed, and their gradient counts as zero.

        Args:
            closure: recomputes the loss and its gradients, as for torch's optimisers.

        Returns:
            What the closure returns, or None without a closure.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        (group,) = self.param_groups
        weights = cast("list[Tensor]", group["params"])
        gradients = [torch.zeros_like(w) if w.grad is None else w.grad for w in weights]
        gradient = torch.cat([g.reshape(-1) for g in gradients])
        metric = metric_tensor(self.circuit, *weights).to(gradient.dtype)
        metric.diagonal().add_(group["damping"])
        step = group["lr"] * torch.linalg.solve(metric, gradient)
        # (G + damping) s = lr ∂L/∂w, so sᵀ(G + damping)s is lr sᵀ ∂L/∂w; rounding can make it negative.
        distance = (group["lr"] * torch.dot(step, gradient)).clamp(min=0).sqrt()
        step *= torch.clamp(group["max_distance"] / distance, max=1)
        for weight, part in zip(weights, step.split([w.numel() for w in weights]), strict=True):
            if weight.grad is not None:
                weight.sub_(part.view_as(weight))
        return loss


def __dir__() -> list[str]:
    return sorted(__all__)
