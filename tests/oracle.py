"""The oracle: what a circuit means, written as plainly as torch allows.

Mostly used as a reference when testing. Every gate is a dense matrix written as a formula, every observable is applied
term by term to a dense ket, and every step is an ordinary differentiable torch operation, so that torch's autograd
gives derivatives of any order. Of ketgrad it knows circuits only, not what runs them.

Values are computed on the CPU whatever the device of the parameters; gradients still arrive where the parameters live.
A batch leads every shape. Inside, a ket has shape (B, 2, ..., 2), one axis a wire; B = 1 for a tape without a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ketgrad.circuit.measurements import Measurement
from ketgrad.circuit.observables import Factor, Observable
from ketgrad.circuit.operations import Operation
from ketgrad.circuit.tape import Tape

__all__ = ["execute", "matrix", "state"]

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def execute(tapes: Tape | Sequence[Tape], dtype: torch.dtype | None = None) -> Any:
    """Run tapes and return their results, nested as PennyLane nests them.

    Args:
        tapes: tapes with analytic measurements, or one tape.
        dtype: real dtype of the results, ``torch.float32`` or ``torch.float64`` (the default, whatever the parameters).

    Returns:
        A tuple with one entry a tape; for one bare tape, its entry alone. An entry is the result of the tape's
        measurement, or a tuple of results where there are several. A batch of B circuits gives every result a leading
        axis of B. States and density matrices are complex, everything else is real.

    Raises:
        ValueError: a measurement needs shots.
        TypeError: ``dtype`` is neither of the two.
    """
    if isinstance(tapes, Tape):
        return _execute_tape(tapes, dtype)
    return tuple(_execute_tape(tape, dtype) for tape in tapes)


def state(tape: Tape, dtype: torch.dtype | None = None) -> Tensor:
    """The ket after a tape's operations, complex, (2^n,) or (B, 2^n); wire order is that of ``tape.wires``.

    Raises:
        TypeError: ``dtype`` is neither torch.float32 nor torch.float64.
    """
    return _drop_batch(_ket(tape, _complex_dtype(dtype)).flatten(1), tape)


def matrix(operation: Operation, dtype: torch.dtype | None = None) -> Tensor:
    """The unitary of an operation on ``operation.wires``, complex, (2^k, 2^k) or (B, 2^k, 2^k); first wire leading.

    Raises:
        TypeError: ``dtype`` is neither torch.float32 nor torch.float64.
        ValueError: the operation prepares a state, and so has no matrix.
    """
    if operation.is_preparation:
        raise ValueError(f"{operation.name} prepares a state: it has no matrix")
    base = _base_matrix(operation)
    if operation.inverse:
        base = base.mH
    return _controlled(base, operation.control_values).to(_complex_dtype(dtype))


# ---- from a tape to its results


def _execute_tape(tape: Tape, dtype: torch.dtype | None) -> Any:
    ket = _ket(tape, _complex_dtype(dtype))
    results = tuple(_drop_batch(_measure(measurement, ket, tape), tape) for measurement in tape.measurements)
    return results[0] if len(results) == 1 else results


def _complex_dtype(dtype: torch.dtype | None) -> torch.dtype:
    if dtype is None:
        return torch.complex128
    if dtype not in _COMPLEX:
        raise TypeError(f"dtype must be torch.float32 or torch.float64, not {dtype!r}")
    return _COMPLEX[dtype]


def _drop_batch(result: Tensor, tape: Tape) -> Tensor:
    return result[0] if tape.batch_size is None else result


def _ket(tape: Tape, dtype: torch.dtype) -> Tensor:
    batch = 1 if tape.batch_size is None else tape.batch_size
    ket = torch.zeros(batch, 2**tape.num_wires, dtype=dtype)
    ket[:, 0] = 1
    ket = ket.reshape(batch, *(2,) * tape.num_wires)
    for operation in tape.operations:
        axes = _axes(operation.wires, tape)
        if operation.is_preparation:
            ket = _prepare(operation, ket, axes)
        else:
            ket = _apply(matrix(operation).to(dtype), ket, axes)
    return ket


def _axes(wires: Sequence[Any], tape: Tape) -> list[int]:
    """The axes of a ket that belong to wires (axis 0 is the batch)."""
    return [1 + tape.wires.index(wire) for wire in wires]


def _apply(operator: Tensor, ket: Tensor, axes: Sequence[int]) -> Tensor:
    """A matrix, (2^k, 2^k) or (B, 2^k, 2^k), on k axes of a ket."""
    wires, targets = ket.dim() - 1, len(axes)
    last = list(range(1 + wires - targets, 1 + wires))
    moved = ket.movedim(list(axes), last)
    rows = moved.reshape(ket.shape[0], 2 ** (wires - targets), 2**targets)
    return (rows @ operator.mT).reshape(moved.shape).movedim(last, list(axes))


def _prepare(operation: Operation, ket: Tensor, axes: Sequence[int]) -> Tensor:
    """Replace |0...0> on some axes by a prepared state; ket is |0...0> throughout."""
    prepared = _basis_ket(operation.bits) if operation.name == "BasisState" else _values(operation)[0]
    # The matrix whose first column is the prepared state; nothing else of it meets a ket that is |0...0>.
    first_column = torch.zeros(prepared.shape[-1], dtype=torch.complex128)
    first_column[0] = 1
    return _apply((prepared[..., :, None] * first_column).to(ket.dtype), ket, axes)


# ---- measurements


def _measure(measurement: Measurement, ket: Tensor, tape: Tape) -> Tensor:
    kind, observable = measurement.kind, measurement.observable
    wires = measurement.wires or tape.wires
    if kind == "state":
        return ket.flatten(1)
    if kind == "probs":
        kept = _kept_first(ket, _axes(wires, tape))
        return (kept * kept.conj()).real.sum(2)
    if kind == "density_matrix":
        kept = _kept_first(ket, _axes(wires, tape))
        return kept @ kept.mH
    if observable is not None and kind in ("expval", "var"):
        image = _apply_observable(observable, ket, tape)
        mean = _overlap(ket, image)
        if kind == "expval":
            return mean
        return _overlap(ket, _apply_observable(observable, image, tape)) - mean.square()
    raise ValueError(f"{kind} needs shots: the reference is analytic")


def _kept_first(ket: Tensor, axes: Sequence[int]) -> Tensor:
    """A ket as (B, 2^kept, 2^rest), the kept axes in the order given."""
    moved = ket.movedim(list(axes), list(range(1, 1 + len(axes))))
    return moved.reshape(ket.shape[0], 2 ** len(axes), 2 ** (ket.dim() - 1 - len(axes)))


def _overlap(bra: Tensor, ket: Tensor) -> Tensor:
    """Re <bra|ket> of each sample, (B,)."""
    return (bra.conj() * ket).real.flatten(1).sum(1)


# ---- observables


def _apply_observable(observable: Observable, ket: Tensor, tape: Tape) -> Tensor:
    values = _values(observable)
    total = torch.zeros_like(ket)
    for term in observable.terms:
        image = ket
        for wire, letter in term.word:
            image = _apply(_PAULIS[letter].to(ket.dtype), image, _axes([wire], tape))
        for factor in term.factors:
            image = _apply(_factor_matrix(factor, values).to(ket.dtype), image, _axes(factor.wires, tape))
        weight = torch.tensor(term.scale, dtype=torch.float64)
        for index, column in term.coefficients:
            kind = observable.parameter_kinds[index]
            weight = weight * (values[index][..., column] if kind == "coefficients" else values[index])
        total = total + weight.to(ket.dtype).reshape(-1, *(1,) * (ket.dim() - 1)) * image
    return total


def _factor_matrix(factor: Factor, values: Sequence[Tensor]) -> Tensor:
    if factor.kind == "hermitian":
        return values[factor.parameter]
    if factor.kind == "sparse":
        return _dense(factor, values[factor.parameter])
    if factor.kind == "diagonal":
        return torch.diag_embed(values[factor.parameter])
    ket = _basis_ket(factor.bits) if factor.kind == "projector" else values[factor.parameter]
    return ket[..., :, None] * ket.conj()[..., None, :]


def _dense(factor: Factor, entries: Tensor) -> Tensor:
    """The sparse matrix of a factor as a dense one."""
    size = 2 ** len(factor.wires)
    rows, columns = (torch.tensor(np.frombuffer(index, np.int64)) for index in (factor.rows, factor.columns))
    flat = torch.zeros(*entries.shape[:-1], size * size, dtype=entries.dtype)
    return flat.index_add(-1, rows * size + columns, entries).reshape(*entries.shape[:-1], size, size)


# ---- parameters


def _values(owner: Operation | Observable) -> list[Tensor]:
    """Parameters as tensors in double precision: angles and coefficients real, everything else complex."""
    return [_value(parameter, kind) for parameter, kind in zip(owner.parameters, owner.parameter_kinds, strict=True)]


def _value(parameter: Any, kind: str) -> Tensor:
    real = kind in ("angle", "coefficient", "coefficients", "entries")
    return torch.as_tensor(parameter, dtype=torch.float64 if real else torch.complex128, device="cpu")


def _basis_ket(bits: Sequence[int]) -> Tensor:
    ket = torch.zeros(2 ** len(bits), dtype=torch.complex128)
    ket[sum(bit << position for position, bit in enumerate(reversed(bits)))] = 1
    return ket


# ---- gate matrices: an angle of shape (B,) gives a matrix of shape (B, 2^k, 2^k)


def _base_matrix(operation: Operation) -> Tensor:
    """The matrix of a gate on its own wires, before adjoint() and ctrl()."""
    name, values = operation.name, _values(operation)
    if name == "Identity":
        return _eye(len(operation.base_wires))
    if name == "QubitUnitary":
        return values[0]
    if name == "DiagonalQubitUnitary":
        return torch.diag_embed(values[0])
    if name == "DiagonalEvolution":
        return torch.diag_embed(torch.exp(-1j * values[0][..., None] * values[1]))
    if name == "GlobalPhase":
        return _scalar(_phase(-values[0])) * _eye(len(operation.base_wires))
    if name == "MultiRZ":
        return _rotation("Z" * len(operation.base_wires), values[0])
    if name == "PauliRot":
        return _rotation(operation.word, values[0])
    if name in _CONTROLLED:
        target, controls = _CONTROLLED[name]
        return _controlled(_named(target, *values), (True,) * controls)
    return _named(name, *values)


def _named(name: str, *angles: Tensor) -> Tensor:
    return _FORMULAS[name](*angles) if angles else _CONSTANTS[name]


def _controlled(target: Tensor, control_values: Sequence[bool]) -> Tensor:
    """The identity, but for the block in which the controls (most significant) hold their values."""
    size = target.shape[-1]
    block = sum(int(value) << position for position, value in enumerate(reversed(control_values)))
    whole = torch.eye(size << len(control_values), dtype=torch.complex128)
    whole = whole.expand(*target.shape[:-2], *whole.shape).clone()
    whole[..., block * size : (block + 1) * size, block * size : (block + 1) * size] = target
    return whole


def _eye(wires: int) -> Tensor:
    return torch.eye(2**wires, dtype=torch.complex128)


def _scalar(values: Tensor) -> Tensor:
    """() or (B,) numbers, shaped to multiply matrices."""
    return values[..., None, None]


def _phase(angle: Tensor) -> Tensor:
    return torch.exp(1j * angle)


def _rows(rows: Sequence[Sequence[Any]]) -> Tensor:
    """A matrix from its entries, which are numbers or tensors of shape () or (B,)."""
    entries = [torch.as_tensor(entry, dtype=torch.complex128) for row in rows for entry in row]
    batch = max((entry.shape for entry in entries), key=len)
    return torch.stack([entry.expand(batch) for entry in entries], -1).reshape(*batch, len(rows), len(rows))


def _dyad(wires: int, row: int, column: int) -> Tensor:
    """|row><column|."""
    dyad = torch.zeros(2**wires, 2**wires, dtype=torch.complex128)
    dyad[row, column] = 1
    return dyad


_PAULIS = {
    "I": _rows([[1, 0], [0, 1]]),
    "X": _rows([[0, 1], [1, 0]]),
    "Y": _rows([[0, -1j], [1j, 0]]),
    "Z": _rows([[1, 0], [0, -1]]),
}


def _rotation(word: str, angle: Tensor) -> Tensor:
    """exp(-i angle P / 2) for a word P of Pauli letters; P squares to the identity."""
    pauli = reduce(torch.kron, [_PAULIS[letter] for letter in word])
    return torch.cos(_scalar(angle) / 2) * _eye(len(word)) - 1j * torch.sin(_scalar(angle) / 2) * pauli


def _phase_shift(phi: Tensor) -> Tensor:
    return _rows([[1, 0], [0, _phase(phi)]])


def _rot(phi: Tensor, theta: Tensor, omega: Tensor) -> Tensor:
    return _rotation("Z", omega) @ _rotation("Y", theta) @ _rotation("Z", phi)


def _u3(theta: Tensor, phi: Tensor, delta: Tensor) -> Tensor:
    cos, sin = torch.cos(theta / 2), torch.sin(theta / 2)
    return _rows([[cos, -_phase(delta) * sin], [_phase(phi) * sin, _phase(phi + delta) * cos]])


def _u2(phi: Tensor, delta: Tensor) -> Tensor:
    return _rows([[1, -_phase(delta)], [_phase(phi), _phase(phi + delta)]]) / math.sqrt(2)


def _excitation(wires: int, sign: int) -> Callable[[Tensor], Tensor]:
    """A real rotation between |0..01..1> and |1..10..0>; every other basis state turns by sign * angle / 2."""
    low = 2 ** (wires // 2) - 1
    high = 2**wires - 1 - low

    def formula(angle: Tensor) -> Tensor:
        half = _scalar(angle) / 2
        pair = _dyad(wires, low, low) + _dyad(wires, high, high)
        turn = _dyad(wires, high, low) - _dyad(wires, low, high)
        return _phase(sign * half) * (_eye(wires) - pair) + torch.cos(half) * pair + torch.sin(half) * turn

    return formula


def _ising_xy(angle: Tensor) -> Tensor:
    half = _scalar(angle) / 2
    pair = _dyad(2, 1, 1) + _dyad(2, 2, 2)
    swap = _dyad(2, 1, 2) + _dyad(2, 2, 1)
    return _eye(2) - pair + torch.cos(half) * pair + 1j * torch.sin(half) * swap


def _pswap(phi: Tensor) -> Tensor:
    swap = _dyad(2, 1, 2) + _dyad(2, 2, 1)
    return _dyad(2, 0, 0) + _dyad(2, 3, 3) + _phase(_scalar(phi)) * swap


_CONSTANTS = {
    "X": _PAULIS["X"],
    "Y": _PAULIS["Y"],
    "Z": _PAULIS["Z"],
    "H": (_PAULIS["X"] + _PAULIS["Z"]) / math.sqrt(2),
    "S": _rows([[1, 0], [0, 1j]]),
    "T": _rows([[1, 0], [0, (1 + 1j) / math.sqrt(2)]]),
    "SX": _rows([[1 + 1j, 1 - 1j], [1 - 1j, 1 + 1j]]) / 2,
    "SWAP": _rows([[1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
    "ISWAP": _rows([[1, 0, 0, 0], [0, 0, 1j, 0], [0, 1j, 0, 0], [0, 0, 0, 1]]),
}

_FORMULAS: dict[str, Callable[..., Tensor]] = {
    "RX": lambda theta: _rotation("X", theta),
    "RY": lambda theta: _rotation("Y", theta),
    "RZ": lambda theta: _rotation("Z", theta),
    "IsingXX": lambda phi: _rotation("XX", phi),
    "IsingYY": lambda phi: _rotation("YY", phi),
    "IsingZZ": lambda phi: _rotation("ZZ", phi),
    "IsingXY": _ising_xy,
    "PhaseShift": _phase_shift,
    "U1": _phase_shift,
    "U2": _u2,
    "U3": _u3,
    "Rot": _rot,
    "PSWAP": _pswap,
    "SingleExcitation": _excitation(2, 0),
    "SingleExcitationPlus": _excitation(2, +1),
    "SingleExcitationMinus": _excitation(2, -1),
    "DoubleExcitation": _excitation(4, 0),
    "DoubleExcitationPlus": _excitation(4, +1),
    "DoubleExcitationMinus": _excitation(4, -1),
}

# Gates with controls built in: the gate on the target wires, and how many wires control it.
_CONTROLLED = {
    "CNOT": ("X", 1),
    "CY": ("Y", 1),
    "CZ": ("Z", 1),
    "CH": ("H", 1),
    "CSWAP": ("SWAP", 1),
    "Toffoli": ("X", 2),
    "CCZ": ("Z", 2),
    "CRX": ("RX", 1),
    "CRY": ("RY", 1),
    "CRZ": ("RZ", 1),
    "CRot": ("Rot", 1),
    "ControlledPhaseShift": ("PhaseShift", 1),
}
