"""The geometry of a circuit's states: the Fubini-Study metric, and the quantum Fisher information, four times that."""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .circuit.measurements import state
from .circuit.tape import Tape
from .compilation.compiled import Compiled


@torch.no_grad()  # of what the function reads from outside; tangents go on
def metric_tensor(function: Callable[..., Tape], *weights: Tensor) -> Tensor:
    r"""The Fubini-Study metric of the states of a circuit, by its weights (arXiv:1909.02108).

    $$G_{ij} = \mathrm{Re}\left(\langle\partial_i\psi|\partial_j\psi\rangle -
    \langle\partial_i\psi|\psi\rangle\langle\psi|\partial_j\psi\rangle\right)$$

    All derivatives of the state are one native batch of tangents, which takes the memory of two states for each weight.

    Args:
        function: weights → a tape without a batch; its measurements do not matter. Or a `CircuitLayer` without inputs.
            It is compiled, as by `kg.compile`, and kept: a function made anew for each call is traced anew. What it
            reads from outside stands still.
        weights: real tensors of any shapes, with P elements in all.

    Returns:
        (P, P), symmetric and positive semidefinite, in the order of the flattened weights, one after the other; without
        a graph.

    Raises:
        TypeError: no weights, complex ones, a function that cannot be called or returns no tape, a layer with inputs.
        ValueError: the tape is a batch.

    Example:
        >>> import torch, ketgrad as kg
        >>> def circuit(w):
        ...     return kg.Tape([kg.RY(w[0], wires=0), kg.RZ(w[1], wires=0)], [kg.expval(kg.X(0))])
        >>> kg.metric_tensor(circuit, torch.tensor([0.0, 1.0], dtype=torch.float64))
        tensor([[0.2500, 0.0000],
                [0.0000, 0.0000]], dtype=torch.float64)
    """
    if not weights or not all(_is_real(w) for w in weights):
        raise TypeError("the metric is by weights that are real tensors; give at least one")
    require_circuit(function)
    detached = tuple(w.detach() for w in weights)
    state_of = _compiled(function)
    ket = state_of(*detached)
    if ket.dim() != 1:
        raise ValueError(f"the metric is that of one circuit, the function returned a batch of {ket.shape[0]}")
    flat = torch.cat([w.reshape(-1) for w in detached])

    def derivative(direction: Tensor) -> Tensor:
        parts = direction.split([w.numel() for w in detached])
        tangents = tuple(part.view_as(w) for part, w in zip(parts, detached, strict=True))
        return torch.func.jvp(state_of, detached, tangents)[1]  # type: ignore[no-any-return]

    rows = torch.func.vmap(derivative)(torch.eye(flat.numel(), dtype=flat.dtype, device=flat.device))
    reals = torch.view_as_real(rows).flatten(1)  # the real part of a product of rows is that of these
    overlap = rows.conj() @ ket
    return reals @ reals.T - torch.outer(overlap, overlap.conj()).real


def _is_real(weight: object) -> bool:
    return isinstance(weight, Tensor) and weight.is_floating_point()


def quantum_fisher(function: Callable[..., Tape], *weights: Tensor) -> Tensor:
    """The quantum Fisher information matrix of a circuit's states: four times their `metric_tensor`.

    Args:
        function: weights → a tape without a batch, or a `CircuitLayer` without inputs; as for `metric_tensor`.
        weights: real tensors of any shapes, with P elements in all.

    Returns:
        (P, P), symmetric and positive semidefinite, in the order of the flattened weights; without a graph.

    Raises:
        TypeError: no weights, complex ones, a function that cannot be called or returns no tape, a layer with inputs.
        ValueError: the tape is a batch.
    """
    return 4 * metric_tensor(function, *weights)


def require_circuit(function: Any) -> None:
    """Raise TypeError where a function is none of weights alone."""
    if not callable(function):
        raise TypeError(f"expected a function of weights that returns a tape, not {type(function).__name__}")
    if getattr(_plain(function), "takes_inputs", False):
        raise TypeError(
            "the metric is by the weights of one circuit, and this layer takes inputs: give a function of the weights "
            "that returns a tape for inputs of your choice"
        )


def _plain(function: Any) -> Callable[..., Tape]:
    """The function itself, of one that is compiled or of a `CircuitLayer`."""
    compiled = getattr(function, "circuit", function)
    return compiled.function if isinstance(compiled, Compiled) else function


_MOST_KEPT = 32
_kept: OrderedDict[Any, tuple[Any, Compiled]] = OrderedDict()
_lock = threading.Lock()


def _compiled(function: Any) -> Compiled:
    """Weights → the final state; kept, so that an optimiser's steps trace the circuit once.

    By identity: functions that are equal may hold tensors that are not.
    """
    owner = getattr(function, "__self__", None)  # a method is another object each time
    key = id(function) if owner is None else (id(owner), id(getattr(function, "__func__", function)))
    with _lock:
        if key not in _kept:
            _kept[key] = (function, _state_of(_plain(function)))  # which holds what the key names
        _kept.move_to_end(key)
        if len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
        return _kept[key][1]


def _state_of(plain: Callable[..., Tape]) -> Compiled:
    @functools.wraps(plain)  # so that what it reads from outside is found
    def state_tape(*weights: Tensor) -> Tape:
        tape = plain(*weights)
        if not isinstance(tape, Tape):
            raise TypeError(f"the function must return a tape, not {type(tape).__name__}")
        return Tape(tape.operations, [state()])

    return Compiled(state_tape)
