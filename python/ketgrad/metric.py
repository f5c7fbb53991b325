"""The Fubini-Study metric of a circuit's states, and their quantum Fisher information, which is four times that."""

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


@torch.no_grad()  # no graph through captures of the function; tangents are not affected
def metric_tensor(function: Callable[..., Tape], *weights: Tensor) -> Tensor:
    r"""The Fubini-Study metric of a circuit's states with respect to its weights (arXiv:1909.02108).

    $$G_{ij} = \mathrm{Re}\left(\langle\partial_i\psi|\partial_j\psi\rangle -
    \langle\partial_i\psi|\psi\rangle\langle\psi|\partial_j\psi\rangle\right)$$

    The derivatives of the state are computed in one native call, for which the circuit is not repeated in memory; they
    take that of two states per element of the weights.

    Args:
        function: weights → a tape without a batch, whose measurements are ignored; or a `CircuitLayer` without inputs.
            It is compiled as by `kg.compile`, and cached by its identity: a new function object is traced anew. Its
            captures are constants.
        weights: real tensors of any shapes, with P elements in all.

    Returns:
        (P, P), symmetric and positive semidefinite, in the order of the flattened weights, concatenated; no graph.

    Raises:
        TypeError: there are no weights, a weight is no real tensor, the function is not callable or returns no tape, or
            it is a layer with inputs.
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
    reals = torch.view_as_real(rows).flatten(1)  # Re⟨a|b⟩ is the inner product of these real vectors
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
        (P, P), symmetric and positive semidefinite, in the order of the flattened weights, concatenated; no graph.

    Raises:
        TypeError, ValueError: as for `metric_tensor`.
    """
    return 4 * metric_tensor(function, *weights)


def require_circuit(function: Any) -> None:
    """Raise TypeError if a function is not callable, or takes inputs beside weights."""
    if not callable(function):
        raise TypeError(f"expected a function of weights that returns a tape, not {type(function).__name__}")
    if getattr(_plain(function), "takes_inputs", False):
        raise TypeError(
            "the metric is by the weights of one circuit, and this layer takes inputs: give a function of the weights "
            "that returns a tape for inputs of your choice"
        )


def _plain(function: Any) -> Callable[..., Tape]:
    """The function itself, if this is a compiled function or a `CircuitLayer`."""
    compiled = getattr(function, "circuit", function)
    return compiled.function if isinstance(compiled, Compiled) else function


_MOST_KEPT = 32
_kept: OrderedDict[Any, tuple[Any, Compiled]] = OrderedDict()
_lock = threading.Lock()


def _compiled(function: Any) -> Compiled:
    """The compiled function weights → final state; cached, so that the steps of an optimiser trace the circuit once.

    By identity, because functions that compare equal may have different captures.
    """
    owner = getattr(function, "__self__", None)  # each access makes a new bound method
    key = id(function) if owner is None else (id(owner), id(getattr(function, "__func__", function)))
    with _lock:
        if key not in _kept:
            _kept[key] = (function, _state_of(_plain(function)))  # keeps the objects alive whose ids are the key
        _kept.move_to_end(key)
        if len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
        return _kept[key][1]


def _state_of(plain: Callable[..., Tape]) -> Compiled:
    @functools.wraps(plain)  # captures are found through __wrapped__
    def state_tape(*weights: Tensor) -> Tape:
        tape = plain(*weights)
        if not isinstance(tape, Tape):
            raise TypeError(f"the function must return a tape, not {type(tape).__name__}")
        return Tape(tape.operations, [state()])

    return Compiled(state_tape)
