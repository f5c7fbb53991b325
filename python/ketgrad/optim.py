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
    """Natural gradient descent: steps are measured by how far the circuit's state moves (arXiv:1909.02108).

    w ← w − lr · (G + damping · 1)⁻¹ ∂L/∂w, with the Fubini-Study metric G of the weights (`kg.metric_tensor`). A step s
    that would move the state further than `max_distance`, by √(sᵀ(G + damping · 1)s), is shortened to that: where the
    metric is nearly singular, the plain rule takes steps far beyond where it holds, and does not come back.

    Args:
        params: the circuit's weights, in the order in which `circuit` takes them. All in one group.
        circuit: weights → a tape without a batch; or a `CircuitLayer` without inputs.
        lr: the step size, in units of 1/loss.
        damping: what is added to the diagonal; the metric is singular where weights do the same. More is steadier, and
            slower towards the end.
        max_distance: the longest step, as an angle between states in radians; `math.inf` for steps of any length.

    Raises:
        TypeError: the circuit cannot be called, or is a layer that takes inputs; lr, damping or max_distance is no
            number; params is no list.
        ValueError: lr, damping or max_distance is negative, or max_distance is 0, or there is more than one group of
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
            raise ValueError("max_distance is 0, by which no step goes anywhere; math.inf lets steps be of any length")
        require_circuit(circuit)
        super().__init__(params, options)
        if len(self.param_groups) != 1:
            raise ValueError("QNG takes the weights of one circuit, in one group of parameters")
        self.circuit = circuit

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; weights without a gradient stay, as if theirs were zero.

        Args:
            closure: computes the loss and its gradients anew, as of torch's optimisers.

        Returns:
            What the closure returns, or None.
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
        # (G + damping) s = lr ∂L/∂w, so that sᵀ(G + damping)s is this product; rounding can take it below zero.
        distance = (group["lr"] * torch.dot(step, gradient)).clamp(min=0).sqrt()
        step *= torch.clamp(group["max_distance"] / distance, max=1)
        for weight, part in zip(weights, step.split([w.numel() for w in weights]), strict=True):
            if weight.grad is not None:
                weight.sub_(part.view_as(weight))
        return loss


def __dir__() -> list[str]:
    return sorted(__all__)
