"""Losses whose derivatives the native call computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_mse_loss = torch.ops.aten.mse_loss.default
"""Without what torch.nn.functional adds for shapes that differ, which takes longer than the operator."""


class MeanSquaredError:
    """The mean of (results − targets)², as a loss for `value_and_grad` and `value_and_backward`.

    The native call differentiates it before it goes back, without torch's autograd, which takes longer than a circuit
    of a few wires. It is also a function: results → the mean.

    Args:
        targets: a real tensor in the shape of the result; of several results in the shape of their stack along a last
            axis, (B, M) for M expectation values of B circuits.

    Attributes:
        targets: the same.

    Raises:
        TypeError: no real tensor.

    Example:
        >>> import torch, ketgrad as kg
        >>> @kg.compile
        ... def circuit(x, weights):
        ...     gates = [kg.RX(x, wires=0), kg.RY(weights[0], wires=0), kg.RX(weights[1], wires=0)]
        ...     return kg.Tape(gates, [kg.expval(kg.Z(0)), kg.expval(kg.X(0))])
        >>> x, weights, targets = torch.rand(5), torch.rand(2), torch.rand(5, 2)
        >>> value, gradient = circuit.value_and_grad(x, weights, argnums=1, loss=kg.MeanSquaredError(targets))
        >>> gradient.shape
        torch.Size([2])
    """

    targets: Tensor

    def __init__(self, targets: Tensor) -> None:
        given: Any = targets
        if not isinstance(given, Tensor) or not given.is_floating_point():
            raise TypeError(f"targets are a real tensor, not {getattr(given, 'dtype', type(given).__name__)}")
        self.targets = targets

    def __call__(self, results: Tensor | Sequence[Tensor]) -> Tensor:
        """The mean.

        Raises:
            ValueError: results of another shape than the targets.
        """
        stacked = results if isinstance(results, Tensor) else torch.stack(tuple(results), -1)
        if stacked.shape != self.targets.shape:
            raise ValueError(f"results of shape {tuple(stacked.shape)}, targets of shape {tuple(self.targets.shape)}")
        return _mse_loss(stacked, self.targets)  # type: ignore[no-any-return]
