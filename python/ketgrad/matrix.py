"""The matrix of a circuit."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .circuit.measurements import state
from .circuit.operations import Operation, StatePrep
from .circuit.parsing import parse_wires
from .circuit.tape import Tape
from .circuit.types import Wire
from .execution.execute_tapes import execute
from .native.library import _C


def matrix(
    circuit: Tape | Operation | Iterable[Operation],
    wire_order: Sequence[Wire] | None = None,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""The unitary matrix of a circuit, differentiable in all its parameters.

    Its entries are the amplitudes of one state on 2n wires, $(U \otimes 1) \sum_j |j\rangle|j\rangle =
    \sum_j U|j\rangle|j\rangle$ (the Choi–Jamiołkowski isomorphism). It takes the time and memory of 2ⁿ states on n
    wires.

    Args:
        circuit: a tape, whose measurements are ignored, an operation, or several in the order in which they act.
        wire_order: all wires of the circuit, the most significant bit first; it may have others, on which the circuit
            is the identity. By default `Tape.wires`.
        dtype: torch.float32 or torch.float64, the precision to compute in; None (the default): that of the parameters,
            float64 without tensors.

    Returns:
        Complex, (2ⁿ, 2ⁿ) on n wires, or (B, 2ⁿ, 2ⁿ) for a batch.

    Raises:
        TypeError: the circuit is no tape, operation or sequence of operations.
        ValueError: the circuit has a preparation or no wires, a wire is missing from `wire_order` or repeated, or
            devices or precisions are mixed.
        MemoryError: the matrix does not fit; the message has the bytes.

    Example:
        >>> import torch, ketgrad as kg
        >>> kg.matrix(kg.CNOT(wires=[0, 1]), dtype=torch.float32).real
        tensor([[1., 0., 0., 0.],
                [0., 1., 0., 0.],
                [0., 0., 0., 1.],
                [0., 0., 1., 0.]])
        >>> angles = torch.rand(5, requires_grad=True)
        >>> kg.matrix([kg.RX(angles, wires="a"), kg.H("b")], wire_order=["b", "a"]).shape
        torch.Size([5, 4, 4])
    """
    operations = _operations(circuit)
    order = _order(circuit if isinstance(circuit, Tape) else operations, wire_order)
    side = 2 ** len(order)
    _C.require_memory(side * side * (8.0 if dtype is torch.float32 else 16.0), f"a matrix on {len(order)} wires")
    # Rounded to float32, so that it is the same number in both precisions: divided by itself it is exactly 1.
    amplitude = np.float32(math.sqrt(1 / side))
    start = StatePrep(amplitude * np.eye(side, dtype=np.float32).reshape(-1), [*order, *[(matrix, w) for w in order]])
    (found,) = execute([Tape([start, *operations], [state()])], dtype=dtype)
    entries = torch.view_as_complex(torch.view_as_real(found) / float(amplitude))
    return entries.reshape(*found.shape[:-1], side, side)


def _operations(circuit: Any) -> tuple[Operation, ...]:
    given = circuit.operations if isinstance(circuit, Tape) else circuit
    try:
        operations = (given,) if isinstance(given, Operation) else tuple(given)
    except TypeError:
        operations = (given,)
    for operation in operations:
        if not isinstance(operation, Operation):
            raise TypeError(f"kg.matrix takes a tape or operations of ketgrad, not {type(operation).__name__}")
        if operation.is_preparation:
            raise ValueError(f"{operation.name} prepares a state and is no unitary: a circuit with it has no matrix")
    return operations


def _order(circuit: Tape | tuple[Operation, ...], wire_order: Sequence[Wire] | None) -> tuple[Wire, ...]:
    if wire_order is None:
        return circuit.wires if isinstance(circuit, Tape) else Tape(circuit, [state()]).wires
    wires = circuit.wires if isinstance(circuit, Tape) else [wire for operation in circuit for wire in operation.wires]
    order = parse_wires(wire_order, "wire_order")
    missing = [wire for wire in dict.fromkeys(wires) if wire not in order]
    if missing:
        raise ValueError(f"wire_order {list(order)} lacks the wires {missing} of the circuit")
    if not order:
        raise ValueError("wire_order is empty: a matrix needs at least one wire")
    return order
