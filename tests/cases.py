"""One registry of circuits, shared by parity, gradient, operator and speed tests.

- ``OPERATIONS``: every gate and preparation, plain, adjoint and controlled, each a factory of one operation.
- ``MEASUREMENTS``: every analytic measurement and every kind of observable, each a factory of one measurement.
- ``CASES``: whole tapes made of the two, each operation and each measurement with and without batches, and ``CIRCUITS``
  that are there for what they are as a whole. ``TABLE`` has one tape an operation, with every measurement at once.
- ``WORKLOADS``: the circuits that people train, of any size.
- ``random_tape``: valid tapes of up to 8 wires, of each of ``CIRCUIT_KINDS``.
- ``as_function``: a tape as a function of its tensors, for transforms and compiled functions.

A factory takes its tensors from a ``Leaves``, which decides about seed, batch, dtype and device, so that the same case
serves float32, float64 and another device. Angles are normal, so that a case is about what its name says, or come from
``angles.py``, as those of random tapes always do:

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_it(case):
        tape = case.tape(dtype=torch.float64)
        results = execute(tape)
        found = gradients(tape, results)
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import pairwise
from random import Random
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

import ketgrad as kg
from angles import Angles
from ketgrad.circuit.parsing import restore

# What random circuits that no list names are drawn from: other ones each day, or those that are asked for.
FRESH_SEED = int(os.environ.get("KETGRAD_TEST_SEED") or f"{datetime.now(UTC):%Y%m%d}")

# ---- tensors


@dataclass(frozen=True)
class Leaves:
    """Makes the tensors of one circuit: leaves that require grad, drawn from one generator.

    Values are drawn in double precision and rounded to ``dtype``, so a seed means the same circuit in every precision.
    ``batch`` is None for tensors without a batch axis. With ``reuse``, an angle is sometimes one that was made before:
    parameters that several gates share. Angles come from ``source``, or are normal without one; ``rounded`` rounds them
    to a precision before they become ``dtype``: half a unit in the last place of 10⁶ is 0.03 in single precision, so
    that what single precision is compared with must have its very angles.
    """

    generator: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))
    batch: int | None = None
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    requires_grad: bool = True
    reuse: float = 0.0
    source: Angles | None = None
    rounded: torch.dtype | None = None
    made: list[Tensor] = field(default_factory=list)

    def with_batch(self, batch: int | None) -> Leaves:
        """The same source of numbers, making tensors with this batch."""
        return replace(self, batch=batch)

    def angle(self) -> Tensor:
        """() or (B,), real."""
        if self.made and self.uniform() < self.reuse:
            return self.made[int(self.uniform() * len(self.made))]
        self.made.append(self.angles())
        return self.made[-1]

    def coefficient(self) -> Tensor:
        """() or (B,), real, of order 1; with ``reuse`` sometimes an angle that was made before and is no larger."""
        small = [angle for angle in self.made if angle.detach().abs().max() < 2] if self.uniform() < self.reuse else []
        return small[int(self.uniform() * len(small))] if small else self._leaf(self._normal())

    def angles(self, *shape: int) -> Tensor:
        """One tensor of angles, (*shape) or (B, *shape), real."""
        found = self._normal(*shape) if self.source is None else self.source.draw(*self._shape(shape))
        return self._leaf(found if self.rounded is None else found.to(self.rounded).double())

    def coefficients(self, count: int) -> Tensor:
        """(T,) or (B, T), real."""
        return self._leaf(self._normal(count))

    def state(self, wires: int) -> Tensor:
        """(2^k,) or (B, 2^k), complex, normalised."""
        ket = self._complex_normal(2**wires)
        return self._leaf(ket / ket.norm(dim=-1, keepdim=True))

    def real_state(self, wires: int) -> Tensor:
        ket = self._normal(2**wires)
        return self._leaf(ket / ket.norm(dim=-1, keepdim=True))

    def unitary(self, wires: int) -> Tensor:
        """(2^k, 2^k) or (B, 2^k, 2^k), complex."""
        return self._leaf(torch.linalg.qr(self._complex_normal(2**wires, 2**wires))[0])

    def orthogonal(self, wires: int) -> Tensor:
        """A real unitary."""
        return self._leaf(torch.linalg.qr(self._normal(2**wires, 2**wires))[0])

    def diagonal(self, wires: int) -> Tensor:
        """(2^k,) or (B, 2^k), complex, of modulus 1."""
        return self._leaf(torch.exp(1j * 3 * self._normal(2**wires)))

    def energies(self, wires: int) -> Tensor:
        """A real diagonal, (2^k,) or (B, 2^k)."""
        return self._leaf(self._normal(2**wires))

    def hermitian(self, wires: int) -> Tensor:
        """(2^k, 2^k) or (B, 2^k, 2^k), complex."""
        matrix = self._complex_normal(2**wires, 2**wires)
        return self._leaf((matrix + matrix.mH) / 2)

    def symmetric(self, wires: int) -> Tensor:
        """A real Hermitian matrix."""
        matrix = self._normal(2**wires, 2**wires)
        return self._leaf((matrix + matrix.mT) / 2)

    def sparse(self, wires: int) -> Tensor:
        """A Hermitian (2^k, 2^k) in sparse COO layout; its values, complex, come from a leaf. Never batched."""
        whole = replace(self, batch=None, requires_grad=False).hermitian(wires)
        distance = (torch.arange(2**wires)[:, None] - torch.arange(2**wires)).abs()
        indices = ((distance == 0) | (distance == 2 ** (wires - 1))).nonzero().T
        values = whole.cpu()[indices[0], indices[1]]
        leaf = values.to(self.device).requires_grad_(self.requires_grad)
        return torch.sparse_coo_tensor(indices.to(self.device), leaf, whole.shape, check_invariants=True)

    def order(self, count: int) -> list[int]:
        """0...count-1, shuffled."""
        return torch.randperm(count, generator=self.generator).tolist()

    def bits(self, count: int) -> list[int]:
        return torch.randint(2, (count,), generator=self.generator).tolist()

    def uniform(self) -> float:
        return float(torch.rand((), generator=self.generator, dtype=torch.float64))

    def _shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.batch is None else (self.batch, *shape)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(self._shape(shape), generator=self.generator, dtype=torch.float64)

    def _complex_normal(self, *shape: int) -> Tensor:
        return torch.randn(self._shape(shape), generator=self.generator, dtype=torch.complex128)

    def _leaf(self, value: Tensor) -> Tensor:
        dtype = self.dtype.to_complex() if value.is_complex() else self.dtype
        return value.to(self.device, dtype).requires_grad_(self.requires_grad)


# ---- what is in the registry


@dataclass(frozen=True)
class OperationEntry:
    """A factory of one operation on ``num_wires`` wires; its circuit should have at least ``spare`` wires more."""

    name: str
    num_wires: int
    build: Callable[[Leaves, Sequence[Any]], kg.Operation]
    has_parameters: bool = True
    is_preparation: bool = False
    spare: int = 1

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class MeasurementEntry:
    """A factory of one measurement of a circuit with at least ``num_wires`` wires; it is given all, in any order."""

    name: str
    num_wires: int
    build: Callable[[Leaves, Sequence[Any]], kg.Measurement]
    has_parameters: bool = True

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Case:
    """A tape by name. ``build`` takes all its randomness from the leaves that it is given."""

    name: str
    build: Callable[[Leaves], kg.Tape]

    def __str__(self) -> str:
        return self.name

    def tape(
        self,
        dtype: torch.dtype = torch.float64,
        device: str = "cpu",
        seed: int = 0,
        mixture: str | None = None,
    ) -> kg.Tape:
        """The tape, with new leaves: the same values each time for the same seed.

        ``mixture`` is one of ``angles.MIXTURES``, None for normal angles.
        """
        generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()) + seed)
        source = None if mixture is None else Angles(generator, mixture)
        return self.build(Leaves(generator, dtype=dtype, device=device, source=source))


def contract(results: Any, seed: int = 0) -> Tensor:
    """A real number made of every entry of (nested) results, with fixed random weights: a loss without symmetries.

    Its cotangents are the weights, complex ones for complex results.
    """
    generator = torch.Generator().manual_seed(seed)
    total: Tensor | float = 0.0
    for result in _flatten(results):
        dtype = torch.complex128 if result.is_complex() else torch.float64
        weights = torch.randn(result.shape, generator=generator, dtype=dtype).to(result.device, result.dtype)
        total = total + (weights.conj() * result).real.sum()
    return torch.as_tensor(total)


def gradients(tape: kg.Tape, results: Any, seed: int = 0) -> list[Tensor]:
    """The gradient of ``contract(results)`` by every trainable parameter of a tape, zeros where there is none.

    The graph is kept: parameters that are computed from common tensors share some of it, and results can be used again.
    """
    parameters = [parameter for parameter in tape.get_parameters() if isinstance(parameter, Tensor)]
    loss = contract(results, seed)
    if not parameters or not loss.requires_grad:
        return [torch.zeros_like(parameter) for parameter in parameters]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
    return list(found)


def is_hermitian(tensor: Tensor) -> bool:
    is_square = tensor.dim() >= 2 and tensor.shape[-1] == tensor.shape[-2]
    return is_square and torch.allclose(tensor, tensor.mH)


def direction(tensor: Tensor) -> Tensor:
    """Gradients of Hermitian matrices are right along Hermitian directions (docs/concepts.md)."""
    double = torch.complex128 if tensor.is_complex() else torch.float64
    v = torch.randn(tensor.shape, dtype=double, generator=torch.Generator().manual_seed(tensor.numel())).to(tensor)
    return (v + v.mH) / 2 if is_hermitian(tensor) else v


def inner(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).real.sum() if a.is_complex() else (a * b).sum()


def _flatten(results: Any) -> Iterator[Tensor]:
    if isinstance(results, Tensor):
        yield results
    else:
        for result in results:
            yield from _flatten(result)


_Entry = TypeVar("_Entry", OperationEntry, MeasurementEntry)

# ---- operations

# Gates whose parameters are angles: how many wires, how many angles.
_GATES = {
    "Identity": (1, 0),
    "X": (1, 0),
    "Y": (1, 0),
    "Z": (1, 0),
    "H": (1, 0),
    "S": (1, 0),
    "T": (1, 0),
    "SX": (1, 0),
    "RX": (1, 1),
    "RY": (1, 1),
    "RZ": (1, 1),
    "PhaseShift": (1, 1),
    "U1": (1, 1),
    "U2": (1, 2),
    "U3": (1, 3),
    "Rot": (1, 3),
    "CNOT": (2, 0),
    "CY": (2, 0),
    "CZ": (2, 0),
    "CH": (2, 0),
    "SWAP": (2, 0),
    "ISWAP": (2, 0),
    "Toffoli": (3, 0),
    "CCZ": (3, 0),
    "CSWAP": (3, 0),
    "CRX": (2, 1),
    "CRY": (2, 1),
    "CRZ": (2, 1),
    "CRot": (2, 3),
    "ControlledPhaseShift": (2, 1),
    "IsingXX": (2, 1),
    "IsingYY": (2, 1),
    "IsingZZ": (2, 1),
    "IsingXY": (2, 1),
    "PSWAP": (2, 1),
    "SingleExcitation": (2, 1),
    "SingleExcitationPlus": (2, 1),
    "SingleExcitationMinus": (2, 1),
    "DoubleExcitation": (4, 1),
    "DoubleExcitationPlus": (4, 1),
    "DoubleExcitationMinus": (4, 1),
}
_WORDS = ("X", "IY", "ZZ", "ZXY", "YIXZ", "XYZIY", "II")


def _gate(name: str, num_wires: int, angles: int) -> OperationEntry:
    gate = getattr(kg, name)
    return OperationEntry(
        name, num_wires, lambda leaves, wires: gate(*(leaves.angle() for _ in range(angles)), wires=wires), angles > 0
    )


def _multi_rz(num_wires: int) -> OperationEntry:
    return OperationEntry(
        f"MultiRZ-{num_wires}", num_wires, lambda leaves, wires: kg.MultiRZ(leaves.angle(), wires=wires)
    )


def _pauli_rot(word: str) -> OperationEntry:
    return OperationEntry(
        f"PauliRot-{word}", len(word), lambda leaves, wires: kg.PauliRot(leaves.angle(), word, wires=wires)
    )


def _qubit_unitary(num_wires: int) -> OperationEntry:
    return OperationEntry(
        f"QubitUnitary-{num_wires}",
        num_wires,
        lambda leaves, wires: kg.QubitUnitary(leaves.unitary(num_wires), wires=wires),
    )


def _diagonal(num_wires: int) -> OperationEntry:
    return OperationEntry(
        f"DiagonalQubitUnitary-{num_wires}",
        num_wires,
        lambda leaves, wires: kg.DiagonalQubitUnitary(leaves.diagonal(num_wires), wires=wires),
    )


def _evolution(num_wires: int) -> OperationEntry:
    return OperationEntry(
        f"DiagonalEvolution-{num_wires}",
        num_wires,
        lambda leaves, wires: kg.DiagonalEvolution(leaves.coefficient(), leaves.energies(num_wires), wires=wires),
    )


def _state_prep(num_wires: int, spare: int) -> OperationEntry:
    return OperationEntry(
        f"StatePrep-{num_wires}{'-of-more' if spare else ''}",
        num_wires,
        lambda leaves, wires: kg.StatePrep(leaves.state(num_wires), wires=wires),
        is_preparation=True,
        spare=spare,
    )


def _basis_state(num_wires: int, spare: int) -> OperationEntry:
    return OperationEntry(
        f"BasisState-{num_wires}{'-of-more' if spare else ''}",
        num_wires,
        lambda leaves, wires: kg.BasisState(leaves.bits(num_wires), wires=wires),
        has_parameters=False,
        is_preparation=True,
        spare=spare,
    )


def _adjoint(entry: OperationEntry) -> OperationEntry:
    return replace(
        entry, name=f"adjoint({entry.name})", build=lambda leaves, wires: kg.adjoint(entry.build(leaves, wires))
    )


def _ctrl(entry: OperationEntry, values: str = "1") -> OperationEntry:
    """Controlled by one wire a character of values, "1" or "0"; the controls are the first of the wires."""
    count = len(values)

    def build(leaves: Leaves, wires: Sequence[Any]) -> kg.Operation:
        return kg.ctrl(entry.build(leaves, wires[count:]), wires[:count], [value == "1" for value in values])

    return replace(entry, name=f"ctrl-{values}({entry.name})", num_wires=entry.num_wires + count, build=build)


_UNITARIES = [
    *(_gate(name, wires, angles) for name, (wires, angles) in _GATES.items()),
    replace(_gate("Identity", 2, 0), name="Identity-2"),
    *(_multi_rz(wires) for wires in (1, 2, 3, 4)),
    *(_pauli_rot(word) for word in _WORDS),
    *(_qubit_unitary(wires) for wires in (1, 2, 3, 4)),
    OperationEntry("QubitUnitary-real", 2, lambda leaves, wires: kg.QubitUnitary(leaves.orthogonal(2), wires=wires)),
    *(_diagonal(wires) for wires in (1, 2, 3)),
    *(_evolution(wires) for wires in (1, 2, 3)),
    OperationEntry("GlobalPhase", 0, lambda leaves, wires: kg.GlobalPhase(leaves.angle())),
    OperationEntry("GlobalPhase-2", 2, lambda leaves, wires: kg.GlobalPhase(leaves.angle(), wires=wires)),
]
_BY_NAME = {entry.name: entry for entry in _UNITARIES}
# Gates of every sort (rotation, phase, permutation, word, dense, diagonal, built-in control), where a few are enough.
_VARIED = [
    _BY_NAME[name]
    for name in (
        "X",
        "RX",
        "RZ",
        "Rot",
        "U2",
        "PhaseShift",
        "SWAP",
        "CRY",
        "GlobalPhase",
        "MultiRZ-2",
        "PauliRot-ZXY",
        "QubitUnitary-2",
        "DiagonalQubitUnitary-2",
        "DiagonalEvolution-2",
        "SingleExcitation",
    )
]
_PREPARATIONS = [
    _state_prep(1, 1),
    _state_prep(2, 1),
    _state_prep(3, 0),
    OperationEntry(
        "StatePrep-real", 2, lambda leaves, wires: kg.StatePrep(leaves.real_state(2), wires=wires), is_preparation=True
    ),
    _basis_state(2, 1),
    _basis_state(3, 0),
]

OPERATIONS: list[OperationEntry] = [
    *_UNITARIES,
    *(_adjoint(entry) for entry in _UNITARIES),
    *(_ctrl(entry) for entry in _UNITARIES),
    *(_ctrl(entry, "0") for entry in _VARIED),
    *(_ctrl(entry, "10") for entry in _VARIED),
    *(_ctrl(entry, "011") for entry in _VARIED),
    *(_ctrl(_adjoint(entry)) for entry in _VARIED),
    *(_adjoint(_ctrl(entry)) for entry in _VARIED),
    *(_ctrl(_ctrl(entry, "0")) for entry in _VARIED),
    *_PREPARATIONS,
]


# ---- measurements


def _word(wires: Sequence[Any], letters: str) -> Any:
    """A product of Pauli letters, one a wire."""
    factors = [getattr(kg, letter)(wire) for letter, wire in zip(letters, wires, strict=False)]
    product = factors[0]
    for factor in factors[1:]:
        product = product @ factor
    return product


def _pauli_sum(wires: Sequence[Any]) -> list[Any]:
    """Words with a few different flip masks, some of them shared."""
    a, b, c = wires[:3]
    return [kg.Z(a), kg.X(a) @ kg.Y(b), kg.Y(a) @ kg.X(b), kg.Z(b) @ kg.Z(c), kg.X(c), kg.Identity(a)]


def _hamiltonian_of_scalars(leaves: Leaves, wires: Sequence[Any]) -> Any:
    words = _pauli_sum(wires)
    return kg.Hamiltonian([leaves.coefficients(1)[..., 0] for _ in words], words)


def _hamiltonian_of_a_vector(leaves: Leaves, wires: Sequence[Any]) -> Any:
    words = _pauli_sum(wires)
    return kg.Hamiltonian(leaves.coefficients(len(words)), words)


def _hamiltonian_with_matrices(leaves: Leaves, wires: Sequence[Any]) -> Any:
    a, b, c = wires[:3]
    terms = [kg.Hermitian(leaves.hermitian(1), a) @ kg.X(b), kg.Projector([1, 0], [c, a]), kg.Y(b), kg.H(c) @ kg.Z(a)]
    return kg.Hamiltonian(leaves.coefficients(len(terms)), terms)


def _nested_sum(leaves: Leaves, wires: Sequence[Any]) -> Any:
    inner = _hamiltonian_of_a_vector(leaves, wires)
    return leaves.coefficient() * (inner - 0.3 * kg.Y(wires[1])) + kg.Z(wires[0]) / 2


def _scipy_sparse(wires: int) -> Any:
    """A constant Hermitian matrix."""
    sparse = pytest.importorskip("scipy.sparse")  # a GPU machine may lack it
    side = 2**wires
    upper = sparse.random(side, side, density=0.3, random_state=1) * (1 + 0.5j)
    return (upper + upper.getH() + sparse.identity(side)).tocsr()


# Observables: name, least number of wires, has parameters, factory.
_OBSERVABLES: list[tuple[str, int, bool, Callable[[Leaves, Sequence[Any]], Any]]] = [
    ("X", 1, False, lambda leaves, w: kg.X(w[0])),
    ("Y", 1, False, lambda leaves, w: kg.Y(w[0])),
    ("Z", 1, False, lambda leaves, w: kg.Z(w[0])),
    ("H", 1, False, lambda leaves, w: kg.H(w[0])),
    ("Identity", 1, False, lambda leaves, w: kg.Identity(w[0])),
    ("XY", 2, False, lambda leaves, w: kg.X(w[0]) @ kg.Y(w[1])),
    ("ZZZ", 3, False, lambda leaves, w: _word(w, "ZZZ")),
    ("word-everywhere", 1, False, lambda leaves, w: _word(w, "YZXXZYZX")),
    ("H@Z", 2, False, lambda leaves, w: kg.H(w[0]) @ kg.Z(w[1])),
    ("scaled", 2, False, lambda leaves, w: -2.5 * kg.Z(w[0]) @ kg.X(w[1])),
    ("coefficient", 2, True, lambda leaves, w: leaves.coefficient() * (kg.Z(w[0]) @ kg.Y(w[1]))),
    (
        "coefficients-multiplied",
        2,
        True,
        lambda leaves, w: (leaves.coefficient() * kg.X(w[0])) @ (kg.Y(w[1]) * leaves.coefficient()),
    ),
    ("difference", 2, False, lambda leaves, w: kg.Z(w[0]) - 0.3 * (kg.X(w[0]) @ kg.Y(w[1])) + 0.25 * kg.Identity(w[1])),
    ("hamiltonian-numbers", 3, False, lambda leaves, w: kg.Hamiltonian([0.5, -1, 2, 0.1, 0.7, 3], _pauli_sum(w))),
    ("hamiltonian-scalars", 3, True, _hamiltonian_of_scalars),
    ("hamiltonian-vector", 3, True, _hamiltonian_of_a_vector),
    ("hamiltonian-matrices", 3, True, _hamiltonian_with_matrices),
    ("nested", 3, True, _nested_sum),
    ("hermitian-1", 1, True, lambda leaves, w: kg.Hermitian(leaves.hermitian(1), w[0])),
    ("hermitian-2", 2, True, lambda leaves, w: kg.Hermitian(leaves.hermitian(2), w[:2])),
    ("hermitian-3", 3, True, lambda leaves, w: kg.Hermitian(leaves.hermitian(3), w[:3])),
    ("hermitian-real", 2, True, lambda leaves, w: kg.Hermitian(leaves.symmetric(2), w[:2])),
    ("hermitian@Y", 3, True, lambda leaves, w: kg.Hermitian(leaves.hermitian(2), w[:2]) @ kg.Y(w[2])),
    (
        "hermitian@hermitian",
        3,
        True,
        lambda leaves, w: kg.Hermitian(leaves.hermitian(1), w[0]) @ kg.Hermitian(leaves.hermitian(2), w[1:3]),
    ),
    ("diagonal-1", 1, True, lambda leaves, w: kg.Diagonal(leaves.energies(1), w[0])),
    ("diagonal-3", 3, True, lambda leaves, w: kg.Diagonal(leaves.energies(3), w[:3])),
    (
        "diagonal-sum",
        3,
        True,
        lambda leaves, w: leaves.coefficient() * kg.Diagonal(leaves.energies(2), w[:2]) - kg.X(w[2]) @ kg.Y(w[0]),
    ),
    (
        "diagonal@hermitian",
        3,
        True,
        lambda leaves, w: kg.Diagonal(leaves.energies(2), w[:2]) @ kg.Hermitian(leaves.hermitian(1), w[2]),
    ),
    (
        "diagonal@Y",
        3,
        True,
        lambda leaves, w: leaves.coefficient() * kg.Diagonal(leaves.energies(2), w[:2]) @ kg.Y(w[2]),
    ),
    ("projector-1", 1, False, lambda leaves, w: kg.Projector([1], w[:1])),
    ("projector-2", 2, False, lambda leaves, w: kg.Projector([0, 1], w[:2])),
    ("projector@X", 3, False, lambda leaves, w: kg.Projector([1, 0], w[:2]) @ kg.X(w[2])),
    ("state-projector-1", 1, True, lambda leaves, w: kg.Projector(leaves.state(1), w[:1])),
    ("state-projector-2", 2, True, lambda leaves, w: kg.Projector(leaves.state(2), w[:2])),
    (
        "state-projector-sum",
        3,
        True,
        lambda leaves, w: leaves.coefficient() * kg.Projector(leaves.state(1), w[:1]) @ kg.Y(w[1]) + kg.Z(w[2]),
    ),
    ("sparse", 2, True, lambda leaves, w: kg.SparseHamiltonian(leaves.sparse(2), w[:2])),
    ("sparse-scipy", 3, False, lambda leaves, w: kg.SparseHamiltonian(_scipy_sparse(3), w[:3])),
    (
        "sparse@Z",
        3,
        True,
        lambda leaves, w: leaves.coefficient() * kg.SparseHamiltonian(leaves.sparse(2), w[:2]) @ kg.Z(w[2]),
    ),
]


def _of_observable(
    measure: Callable[[Any], kg.Measurement],
    name: str,
    wires: int,
    has_parameters: bool,
    build: Callable[[Leaves, Sequence[Any]], Any],
) -> MeasurementEntry:
    return MeasurementEntry(
        f"{measure.__name__}-{name}", wires, lambda leaves, w: measure(build(leaves, w)), has_parameters
    )


def _without_parameters(name: str, wires: int, build: Callable[[Sequence[Any]], kg.Measurement]) -> MeasurementEntry:
    return MeasurementEntry(name, wires, lambda leaves, w: build(w), has_parameters=False)


MEASUREMENTS: list[MeasurementEntry] = [
    *(_of_observable(kg.expval, *observable) for observable in _OBSERVABLES),
    *(_of_observable(kg.var, *observable) for observable in _OBSERVABLES),
    _without_parameters("probs-1", 1, lambda w: kg.probs(wires=w[0])),
    _without_parameters("probs-2", 2, lambda w: kg.probs(wires=w[:2])),
    _without_parameters("probs-3", 3, lambda w: kg.probs(wires=w[:3])),
    _without_parameters("probs-all", 1, lambda w: kg.probs()),
    _without_parameters("probs-all-permuted", 1, lambda w: kg.probs(wires=w)),
    _without_parameters("state", 1, lambda w: kg.state()),
    _without_parameters("density-matrix-1", 1, lambda w: kg.density_matrix(wires=w[0])),
    _without_parameters("density-matrix-2", 2, lambda w: kg.density_matrix(wires=w[:2])),
    _without_parameters("density-matrix-all", 1, lambda w: kg.density_matrix(wires=w)),
]

# ---- whole tapes

BATCH = 3
# Batch of the circuit around what is tested, and of what is tested.
_BATCHES: dict[str, tuple[int | None, int | None]] = {
    "": (None, None),
    "batch": (BATCH, BATCH),
    "shared-in-batch": (BATCH, None),
    "batch-in-shared": (None, BATCH),
}


def layer(leaves: Leaves, wires: Sequence[Any]) -> list[kg.Operation]:
    """Trainable rotations about two axes on every wire, and a chain of CNOT."""
    rotations: list[kg.Operation] = []
    for wire in wires:
        rotations += [kg.RY(leaves.angle(), wires=wire), kg.RZ(leaves.angle(), wires=wire)]
    return [*rotations, *(kg.CNOT(wires=[a, b]) for a, b in pairwise(wires))]


def _around(entry: OperationEntry, leaves: Leaves, circuit: Leaves, num_wires: int) -> list[kg.Operation]:
    """An operation, on wires in any order, between two layers (a preparation before one)."""
    wires = leaves.order(num_wires)
    operation = entry.build(leaves, wires[: entry.num_wires])
    before = [] if entry.is_preparation else layer(circuit, range(num_wires))
    return [*before, operation, *layer(circuit, range(num_wires))]


def _operation_case(entry: OperationEntry, batches: str) -> Case:
    around, own = _BATCHES[batches]

    def build(leaves: Leaves) -> kg.Tape:
        num_wires = max(entry.num_wires + entry.spare, 2)
        operations = _around(entry, leaves.with_batch(own), leaves.with_batch(around), num_wires)
        return kg.Tape(operations, [kg.expval(kg.Z(0) @ kg.X(num_wires - 1)), kg.state()])

    return Case(_joined(entry.name, batches), build)


def _measurement_case(entry: MeasurementEntry, batches: str) -> Case:
    around, own = _BATCHES[batches]

    def build(leaves: Leaves) -> kg.Tape:
        num_wires = entry.num_wires + 1
        circuit = leaves.with_batch(around)
        operations = [*layer(circuit, range(num_wires)), *layer(circuit, range(num_wires))]
        return kg.Tape(operations, [entry.build(leaves.with_batch(own), leaves.order(num_wires))])

    return Case(_joined(entry.name, batches), build)


def _table_case(entry: OperationEntry) -> Case:
    def build(leaves: Leaves) -> kg.Tape:
        num_wires = max(entry.num_wires + entry.spare, 3)
        operations = _around(entry, leaves, leaves, num_wires)
        return kg.Tape(operations, [each.build(leaves, leaves.order(num_wires)) for each in MEASUREMENTS])

    return Case(f"{entry.name}-by-every-measurement", build)


def _joined(name: str, batches: str) -> str:
    return f"{name}-{batches}" if batches else name


def _with_batches(entries: Iterable[_Entry]) -> Iterator[tuple[_Entry, str]]:
    """Each entry with each kind of batch; what has no parameters is tried without and within a batch."""
    for entry in entries:
        for batches in _BATCHES if entry.has_parameters else ("", "shared-in-batch"):
            yield entry, batches


# ---- tapes that are there for what they are as a whole


def _circuit(build: Callable[[Leaves], kg.Tape]) -> Case:
    return Case(build.__name__.strip("_").replace("_", "-"), build)


def _constant(leaves: Leaves) -> Leaves:
    """The same source, making tensors that do not require grad."""
    return replace(leaves, requires_grad=False)


def _parameter_used_by_two_gates(leaves: Leaves) -> kg.Tape:
    x, w = leaves.with_batch(BATCH).angle(), leaves.angle()
    gates = [kg.RX(x, wires=0), kg.RY(w, wires=1), kg.CNOT(wires=[0, 1]), kg.RY(w, wires=0), kg.CRZ(x, wires=[1, 0])]
    return kg.Tape([*gates, kg.Rot(w, x, w, wires=1)], [kg.expval(kg.X(0) @ kg.Y(1)), kg.probs(wires=1)])


def _parameter_of_gate_and_coefficient(leaves: Leaves) -> kg.Tape:
    w = leaves.angle()
    observables = [w * kg.Z(0) + w * kg.X(1), kg.Z(1) * w]
    return kg.Tape([kg.RX(w, wires=0), kg.CRY(w, wires=[0, 1])], [kg.expval(each) for each in observables])


def _matrix_used_twice(leaves: Leaves) -> kg.Tape:
    unitary = leaves.unitary(1)
    gates = [kg.QubitUnitary(unitary, wires=0), kg.CNOT(wires=[0, 1]), kg.adjoint(kg.QubitUnitary(unitary, wires=1))]
    return kg.Tape([*gates, kg.ctrl(kg.QubitUnitary(unitary, wires=0), 1)], [kg.state()])


def _columns_of_one_tensor(leaves: Leaves) -> kg.Tape:
    data, weights = leaves.with_batch(BATCH).angles(3), leaves.angles(6).reshape(3, 2)
    gates: list[kg.Operation] = []
    for wire in range(3):
        gates += [kg.RX(2 * data[:, wire] + 1, wires=wire), kg.RZ(weights[wire, 0], wires=wire)]
        gates += [kg.CNOT(wires=[wire, (wire + 1) % 3]), kg.RY(weights[wire, 1] * data[:, 0], wires=wire)]
    return kg.Tape(gates, [kg.expval(kg.Z(wire)) for wire in range(3)])


def _numbers_beside_tensors(leaves: Leaves) -> kg.Tape:
    matrix = leaves.unitary(2).detach().cpu().numpy()
    gates = [kg.Rot(0.1, leaves.angle(), -2, wires=0), kg.QubitUnitary(matrix, wires=[1, 0])]
    gates += [
        kg.RX(np.float64(0.4), wires=1),
        kg.RY(np.array([0.1, 0.2, 0.3]), wires=1),
        kg.RZ(leaves.angle(), wires=0),
    ]
    return kg.Tape(gates, [kg.expval(np.float64(0.3) * kg.X(0) @ kg.X(1)), kg.state()])


def _constant_tensors(leaves: Leaves) -> kg.Tape:
    frozen = _constant(leaves)
    gates: list[kg.Operation] = [
        kg.RX(frozen.angle(), wires=0),
        kg.RY(leaves.angle(), wires=1),
        kg.CRX(frozen.angle(), wires=[1, 0]),
    ]
    gates += [kg.Rot(frozen.angle(), leaves.angle(), frozen.angle(), wires=1)]
    return kg.Tape(gates, [kg.expval(kg.Hermitian(frozen.hermitian(2), [1, 0])), kg.probs(wires=[1, 0])])


def _nothing_trainable(leaves: Leaves) -> kg.Tape:
    return kg.Tape([kg.RX(0.3, wires=0), kg.CNOT(wires=[0, 1])], [kg.expval(kg.Z(1)), kg.state()])


def _only_the_last_gate_trainable(leaves: Leaves) -> kg.Tape:
    gates = [*layer(_constant(leaves), range(3)), kg.SWAP(wires=[0, 2]), kg.RX(leaves.angle(), wires=1)]
    return kg.Tape(gates, [kg.expval(_word([0, 1, 2], "XYZ"))])


def _only_the_first_gate_trainable(leaves: Leaves) -> kg.Tape:
    gates = [kg.RX(leaves.angle(), wires=1), *layer(_constant(leaves), range(3))]
    return kg.Tape(gates, [kg.expval(_word([0, 1, 2], "XYZ"))])


def _only_a_coefficient_trainable(leaves: Leaves) -> kg.Tape:
    return kg.Tape(layer(_constant(leaves), range(3)), [kg.expval(_hamiltonian_of_a_vector(leaves, [2, 0, 1]))])


def _only_a_prepared_state_trainable(leaves: Leaves) -> kg.Tape:
    gates = [kg.StatePrep(leaves.state(2), wires=[2, 0]), *layer(_constant(leaves), range(3))]
    return kg.Tape(gates, [kg.expval(kg.Z(0) @ kg.X(1)), kg.density_matrix(wires=[1])])


def _strings_as_wires(leaves: Leaves) -> kg.Tape:
    return kg.Tape(layer(leaves, ["b", "aux", 7]), [kg.state(), kg.probs(wires=["aux", "b"]), kg.expval(kg.Y("b"))])


def _integers_with_gaps_as_wires(leaves: Leaves) -> kg.Tape:
    return kg.Tape(layer(leaves, [9, 2, 5]), [kg.state(), kg.probs()])


def _integers_out_of_order_as_wires(leaves: Leaves) -> kg.Tape:
    return kg.Tape(layer(leaves, [2, 0, 1]), [kg.state(), kg.probs()])


def _batch_of_one(leaves: Leaves) -> kg.Tape:
    gates = [*layer(leaves.with_batch(1), range(2)), kg.RX(leaves.angle(), wires=0)]
    return kg.Tape(gates, [kg.expval(kg.Z(0)), kg.probs(wires=[1, 0]), kg.state()])


def _empty_batch(leaves: Leaves) -> kg.Tape:
    gates = [*layer(leaves.with_batch(0), range(2)), kg.RX(leaves.angle(), wires=0)]
    return kg.Tape(gates, [kg.expval(kg.Z(0)), kg.probs(wires=[1, 0]), kg.state(), kg.density_matrix(wires=[1])])


def _batch_of_coefficients_only(leaves: Leaves) -> kg.Tape:
    observable = _hamiltonian_of_a_vector(leaves.with_batch(BATCH), [0, 1, 2])
    return kg.Tape(layer(leaves, range(3)), [kg.expval(observable), kg.probs(wires=[2]), kg.expval(kg.Z(0))])


def _large_batch(leaves: Leaves) -> kg.Tape:
    gates = [*layer(leaves.with_batch(37), range(3)), *layer(leaves, range(3))]
    return kg.Tape(gates, [kg.expval(kg.Z(0)), kg.expval(kg.X(1) @ kg.Y(2)), kg.var(kg.Z(0) + kg.X(1))])


def _no_gates(leaves: Leaves) -> kg.Tape:
    return kg.Tape([], [kg.expval(leaves.angle() * kg.Z(0) + kg.X(1)), kg.probs(wires=[1, 0])])


def _run_in_the_basis_of_x(leaves: Leaves) -> kg.Tape:
    gates: list[kg.Operation] = [kg.BasisState([1, 0, 1], wires=range(3))]
    for batch in (None, BATCH, None):
        angles = leaves.with_batch(batch)
        gates += [
            getattr(kg, name)(angles.angle(), wires=wire)
            for wire in range(3)
            for name in ("RX", "RZ", "RX", "RY", "RX")
        ]
        gates += [kg.CNOT(wires=[wire, (wire + 1) % 3]) for wire in range(3)]
    return kg.Tape(gates, [kg.expval(_hamiltonian_of_scalars(leaves, range(3))), kg.expval(kg.Y(1) @ kg.Z(2))])


def _wires_that_are_only_measured(leaves: Leaves) -> kg.Tape:
    return kg.Tape([kg.RY(leaves.angle(), wires=1)], [kg.probs(wires=[2, 1]), kg.expval(kg.Z(0) @ kg.X(1))])


def _a_measurement_repeated(leaves: Leaves) -> kg.Tape:
    return kg.Tape(
        layer(leaves, range(2)), [kg.expval(kg.Z(0)), kg.expval(kg.Z(0)), kg.probs(wires=0), kg.probs(wires=0)]
    )


def _overlapping_measurements(leaves: Leaves) -> kg.Tape:
    observables = [kg.Z(0) @ kg.X(1), kg.X(0), kg.Hermitian(leaves.hermitian(2), [2, 1]), kg.Z(0) + 0.5 * kg.Y(2)]
    measurements = [*(kg.expval(each) for each in observables), *(kg.var(each) for each in observables)]
    return kg.Tape(layer(leaves, range(3)), [*measurements, kg.density_matrix(wires=[2, 0]), kg.state()])


def _gates_that_undo_each_other(leaves: Leaves) -> kg.Tape:
    gates = layer(leaves, range(3))
    return kg.Tape([*gates, *(kg.adjoint(gate) for gate in reversed(gates[1:]))], [kg.state()])


def _many_gates_on_one_wire(leaves: Leaves) -> kg.Tape:
    names = ["RX", "RY", "RZ", "PhaseShift"] * 5
    return kg.Tape([getattr(kg, name)(leaves.angle(), wires=0) for name in names], [kg.state(), kg.expval(kg.Y(0))])


def _many_wires(leaves: Leaves) -> kg.Tape:
    wires = range(12)
    gates = [*layer(leaves, wires), kg.MultiRZ(leaves.angle(), wires=range(2, 10)), *layer(leaves, leaves.order(12))]
    gates += [kg.QubitUnitary(leaves.unitary(3), wires=[0, 11, 5]), kg.ctrl(kg.RX(leaves.angle(), wires=3), [11, 0, 7])]
    return kg.Tape(gates, [kg.expval(_word(wires, "XYZXYZXYZXYZ")), kg.probs(wires=[11, 0, 6])])


def _phases_with_many_controls(leaves: Leaves) -> kg.Tape:
    wires = range(9)
    gates = [
        *layer(leaves, wires),
        kg.ctrl(kg.Z(8), range(8), [wire % 3 > 0 for wire in range(8)]),
        kg.CNOT(wires=[7, 2]),
        kg.ctrl(kg.PhaseShift(leaves.angle(), wires=2), [8, 7]),
        kg.RY(leaves.angle(), wires=0),
        kg.ctrl(kg.RZ(leaves.angle(), wires=0), [3, 8, 1]),
        kg.ctrl(kg.MultiRZ(leaves.angle(), wires=[5, 8, 6]), [7, 4], [False, True]),
        *layer(leaves, leaves.order(9)),
    ]
    return kg.Tape(gates, [kg.expval(_word(wires, "XYZXYZXYZ")), kg.probs(wires=[8, 0])])


CIRCUITS: list[Case] = [
    _circuit(build)
    for build in (
        _phases_with_many_controls,
        _parameter_used_by_two_gates,
        _parameter_of_gate_and_coefficient,
        _matrix_used_twice,
        _columns_of_one_tensor,
        _numbers_beside_tensors,
        _constant_tensors,
        _nothing_trainable,
        _only_the_last_gate_trainable,
        _only_the_first_gate_trainable,
        _only_a_coefficient_trainable,
        _only_a_prepared_state_trainable,
        _strings_as_wires,
        _integers_with_gaps_as_wires,
        _integers_out_of_order_as_wires,
        _batch_of_one,
        _empty_batch,
        _batch_of_coefficients_only,
        _large_batch,
        _no_gates,
        _run_in_the_basis_of_x,
        _wires_that_are_only_measured,
        _a_measurement_repeated,
        _overlapping_measurements,
        _gates_that_undo_each_other,
        _many_gates_on_one_wire,
        _many_wires,
    )
]

# ---- what people train


@dataclass(frozen=True)
class Workload:
    """One step of a training: ``loss(results of build(*inputs))``, differentiated by every input that requires grad."""

    name: str
    inputs: tuple[Tensor, ...]
    build: Callable[..., kg.Tape]
    loss: Callable[[Any], Tensor]

    def __str__(self) -> str:
        return self.name

    def tape(self) -> kg.Tape:
        return self.build(*self.inputs)


def _ring(count: int) -> list[tuple[int, int]]:
    """Neighbours on a ring: none for one wire, a pair for two."""
    return [(wire, (wire + 1) % count) for wire in range(count if count > 2 else count - 1)]


def _zyz_layers(weights: Tensor) -> list[kg.Operation]:
    """Layers of RZ RY RZ on each wire and a ring of CNOT; weights (layers, wires, 3)."""
    layers, num_wires, _ = weights.shape
    angles = weights.reshape(-1).unbind()
    gates: list[kg.Operation] = []
    for depth in range(layers):
        for wire in range(num_wires):
            a, b, c = angles[3 * (depth * num_wires + wire) :][:3]
            gates += [kg.RZ(a, wires=wire), kg.RY(b, wires=wire), kg.RZ(c, wires=wire)]
        gates += [kg.CNOT(wires=pair) for pair in _ring(num_wires)]
    return gates


def _each_z(num_wires: int) -> list[kg.Measurement]:
    return [kg.expval(kg.Z(wire)) for wire in range(num_wires)]


def _squared_error(targets: Tensor) -> Callable[[Any], Tensor]:
    def loss(results: Any) -> Tensor:
        found = results if isinstance(results, Tensor) else torch.stack(results, -1)
        return (found.reshape(targets.shape) - targets).square().mean()

    return loss


def _itself(results: Any) -> Tensor:
    """The loss of a workload with one expectation value."""
    return torch.as_tensor(results)


def _data_and_weights(leaves: Leaves, batch: int, num_wires: int, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Data (B, n), weights of a shape, targets (B, n)."""
    data = leaves.with_batch(batch).angles(num_wires)
    weights = leaves.with_batch(None).angles(math.prod(shape)).detach().reshape(shape)
    targets = _constant(leaves).with_batch(batch).coefficients(num_wires)
    return data, weights.requires_grad_(leaves.requires_grad), targets


def qml(num_wires: int, layers: int, batch: int, leaves: Leaves | None = None) -> Workload:
    """A quantum layer: RX(data) on each wire, layers of RZ RY RZ and a ring of CNOT, <Z> of each wire, squared error.

    Inputs: data (B, n), weights (layers, n, 3).
    """
    data, weights, targets = _data_and_weights(leaves or Leaves(), batch, num_wires, layers, num_wires, 3)

    def build(data: Tensor, weights: Tensor) -> kg.Tape:
        encoding = [kg.RX(column, wires=wire) for wire, column in enumerate(data.unbind(1))]
        return kg.Tape([*encoding, *_zyz_layers(weights)], _each_z(num_wires))

    return Workload(f"qml({num_wires},{layers},{batch})", (data, weights), build, _squared_error(targets))


def reuploading(num_wires: int, layers: int, batch: int, leaves: Leaves | None = None) -> Workload:
    """Data re-uploading: the data scaled by trainable factors before every layer of Rot and a ring of CZ.

    Inputs: data (B, n), weights (layers, n, 4), of which the last scales the data.
    """
    data, weights, targets = _data_and_weights(leaves or Leaves(), batch, num_wires, layers, num_wires, 4)

    def build(data: Tensor, weights: Tensor) -> kg.Tape:
        gates: list[kg.Operation] = []
        for depth in range(layers):
            for wire in range(num_wires):
                a, b, c, scale = weights[depth, wire]
                gates += [kg.RX(scale * data[:, wire], wires=wire), kg.Rot(a, b, c, wires=wire)]
            gates += [kg.CZ(wires=pair) for pair in _ring(num_wires)]
        return kg.Tape(gates, _each_z(num_wires))

    return Workload(f"reuploading({num_wires},{layers},{batch})", (data, weights), build, _squared_error(targets))


def vqe(num_wires: int, layers: int, leaves: Leaves | None = None) -> Workload:
    """Layers as in ``qml``; the energy of H = -sum Z_i Z_i+1 - 0.7 sum X_i on a ring.

    Inputs: weights (layers, n, 3).
    """
    leaves = leaves or Leaves()
    words = [*(kg.Z(a) @ kg.Z(b) for a, b in _ring(num_wires)), *(kg.X(wire) for wire in range(num_wires))]
    coefficients = [-1.0] * len(_ring(num_wires)) + [-0.7] * num_wires
    _, weights, _ = _data_and_weights(leaves, 1, 1, layers, num_wires, 3)

    def build(weights: Tensor) -> kg.Tape:
        return kg.Tape(_zyz_layers(weights), [kg.expval(kg.Hamiltonian(coefficients, words))])

    return Workload(f"vqe({num_wires},{layers})", (weights,), build, _itself)


def qaoa(num_wires: int, layers: int, leaves: Leaves | None = None) -> Workload:
    """QAOA of a weighted MaxCut on a ring with chords: one cost and one mixer angle a layer, each used by many gates.

    Inputs: angles (layers, 2).
    """
    leaves = leaves or Leaves()
    edges = [*_ring(num_wires), *((wire, wire + num_wires // 2) for wire in range(num_wires // 2) if num_wires > 3)]
    costs = [1.0 + 0.1 * index for index in range(len(edges))]
    _, angles, _ = _data_and_weights(leaves, 1, 1, layers, 2)

    def build(angles: Tensor) -> kg.Tape:
        gates: list[kg.Operation] = [kg.H(wire) for wire in range(num_wires)]
        for gamma, beta in angles:
            gates += [kg.IsingZZ(cost * gamma, wires=edge) for cost, edge in zip(costs, edges, strict=True)]
            gates += [kg.RX(beta, wires=wire) for wire in range(num_wires)]
        return kg.Tape(gates, [kg.expval(kg.Hamiltonian(costs, [kg.Z(a) @ kg.Z(b) for a, b in edges]))])

    return Workload(f"qaoa({num_wires},{layers})", (angles,), build, _itself)


def strongly_entangling(num_wires: int, layers: int, leaves: Leaves | None = None) -> Workload:
    """Rot on each wire, CNOT with a range that grows by layer; a Pauli word and the probabilities of one wire.

    Inputs: weights (layers, n, 3).
    """
    leaves = leaves or Leaves()
    _, weights, _ = _data_and_weights(leaves, 1, 1, layers, num_wires, 3)

    def build(weights: Tensor) -> kg.Tape:
        gates: list[kg.Operation] = []
        for depth in range(layers):
            for wire in range(num_wires):
                phi, theta, omega = weights[depth, wire]
                gates.append(kg.Rot(phi, theta, omega, wires=wire))
            step = depth % max(num_wires - 1, 1) + 1
            gates += [kg.CNOT(wires=[wire, (wire + step) % num_wires]) for wire in range(num_wires) if num_wires > 1]
        return kg.Tape(gates, [kg.expval(_word(range(num_wires), "XYZ")), kg.probs(wires=0)])

    return Workload(f"strongly_entangling({num_wires},{layers})", (weights,), build, contract)


def hardware_efficient(num_wires: int, layers: int, leaves: Leaves | None = None) -> Workload:
    """Layers of RY RZ on each wire and a chain of CZ; the squared overlap of the state with a random one.

    Inputs: weights (layers, n, 2).
    """
    leaves = leaves or Leaves()
    _, weights, _ = _data_and_weights(leaves, 1, 1, layers, num_wires, 2)
    target = _constant(leaves).with_batch(None).state(num_wires)

    def build(weights: Tensor) -> kg.Tape:
        gates: list[kg.Operation] = []
        for depth in range(layers):
            for wire in range(num_wires):
                y, z = weights[depth, wire]
                gates += [kg.RY(y, wires=wire), kg.RZ(z, wires=wire)]
            gates += [kg.CZ(wires=[wire, wire + 1]) for wire in range(num_wires - 1)]
        return kg.Tape(gates, [kg.state()])

    def loss(results: Any) -> Tensor:
        return -torch.vdot(target.to(results.dtype), results).abs().square()

    return Workload(f"hardware_efficient({num_wires},{layers})", (weights,), build, loss)


WORKLOADS: dict[str, Callable[..., Workload]] = {
    function.__name__: function for function in (qml, reuploading, vqe, qaoa, strongly_entangling, hardware_efficient)
}

_SMALL_WORKLOADS: list[tuple[Callable[..., Workload], tuple[int, ...]]] = [
    (qml, (1, 2, 2)),
    (qml, (4, 2, 5)),
    (reuploading, (3, 2, 4)),
    (vqe, (2, 2)),
    (vqe, (6, 2)),
    (qaoa, (5, 2)),
    (strongly_entangling, (4, 3)),
    (hardware_efficient, (5, 2)),
]


def _workload_case(workload: Callable[..., Workload], sizes: tuple[int, ...]) -> Case:
    name = f"{workload.__name__}({','.join(map(str, sizes))})"
    return Case(name, lambda leaves: workload(*sizes, leaves=leaves).tape())


WORKLOAD_CASES: list[Case] = [_workload_case(*each) for each in _SMALL_WORKLOADS]

# ---- the lists that tests run over

OPERATION_CASES: list[Case] = [_operation_case(*each) for each in _with_batches(OPERATIONS)]
MEASUREMENT_CASES: list[Case] = [_measurement_case(*each) for each in _with_batches(MEASUREMENTS)]
CASES: list[Case] = [*OPERATION_CASES, *MEASUREMENT_CASES, *CIRCUITS, *WORKLOAD_CASES]
TABLE: list[Case] = [_table_case(entry) for entry in OPERATIONS]

# ---- random tapes

# What random circuits are made of. ``any`` is everything there is; the others are of one sort throughout, since what a
# planner does with a long run of like gates it hardly ever does with all sorts of them.
CIRCUIT_KINDS = ("any", "layers", "no diagonal", "no mixing", "deep", "one kind", "shared data")

_GATE_ENTRIES = [entry for entry in OPERATIONS if not entry.is_preparation]
_SIMPLE = [_BY_NAME[name] for name in ("RX", "RY", "RZ", "Rot", "CNOT", "CZ", "H", "CRX", "IsingZZ")]
_NO_DIAGONAL = [
    _BY_NAME[name]
    for name in (
        "RX",
        "RX",
        "RY",
        "RY",
        "IsingXX",
        "IsingYY",
        "PauliRot-X",
        "PauliRot-IY",
        "CRX",
        "CRY",
        "CNOT",
        "SWAP",
    )
]
_NO_MIXING = [
    _BY_NAME[name]
    for name in ("RZ", "PhaseShift", "IsingZZ", "MultiRZ-3", "PauliRot-ZZ", "CRZ", "CZ", "T", "X", "CNOT", "SWAP")
]
_ONE_KIND = [entry for entry in _UNITARIES if entry.has_parameters and entry.num_wires > 0]


def _layers(leaves: Leaves, random: Random, wires: Sequence[Any], depth: int) -> list[kg.Operation]:
    """Phases on |0...0>, then layers of rotations and entangling gates: what is trained most."""
    first = random.choice([kg.RZ, kg.RZ, kg.PhaseShift, kg.Rot])
    gates: list[kg.Operation] = [
        first(*(leaves.angle() for _ in range(3 if first is kg.Rot else 1)), wires=wire) for wire in wires
    ]
    if random.random() < 0.3:
        gates += [kg.IsingZZ(leaves.angle(), wires=pair) for pair in pairwise(wires)]
    rotations = random.choice([[kg.RY], [kg.RX], [kg.RX, kg.RY], [kg.RY, kg.RZ]])
    entangle = random.choice([kg.CNOT, kg.CNOT, kg.CZ, None])
    for _ in range(depth):
        gates += [rotation(leaves.angle(), wires=wire) for rotation in rotations for wire in wires]
        gates += [entangle(wires=pair) for pair in pairwise(wires)] if entangle else []
    return gates


def _shared_data(leaves: Leaves, random: Random, wires: Sequence[Any], depth: int) -> list[kg.Operation]:
    """A few features that every layer reads anew, about one axis and about another, between trained rotations."""
    features = [leaves.angle() for _ in range(random.randint(1, len(wires)))]
    shared = leaves.with_batch(None)
    gates: list[kg.Operation] = []
    for _ in range(depth):
        embeddings = random.sample([kg.RZ, kg.RX, kg.RY], random.randint(1, 2))
        gates += [
            embedding(features[i % len(features)], wires=wire)
            for embedding in embeddings
            for i, wire in enumerate(wires)
        ]
        gates += [kg.RY(shared.angle(), wires=wire) for wire in wires]
        gates += [kg.CNOT(wires=pair) for pair in pairwise(wires)]
    return gates


def random_tape(
    random: Random,
    seed: int = 0,
    *,
    kind: str = "any",
    num_wires: int | None = None,
    num_gates: int | None = None,
    max_wires: int = 8,
    max_gates: int = 12,
    batches: Sequence[int | None] = (None, None, 1, 2, 3),
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    mixture: str | None = None,
    without: Sequence[str] = (),
    rounded: torch.dtype | None = None,
) -> kg.Tape:
    """A valid tape of random gates, preparations and measurements; tensors shared and batched, some used repeatedly.

    Args:
        random: chooses the structure.
        seed: chooses the values.
        kind: one of ``CIRCUIT_KINDS``.
        num_wires: how many wires there are to act on; random up to ``max_wires`` where None.
        num_gates: about how many gates; random up to ``max_gates`` where None.
        max_wires: see ``num_wires``.
        max_gates: see ``num_gates``.
        batches: the batch of the tape is one of these; None is a tape without. Its tensors have it, or not, at random.
        dtype: real dtype of the tensors.
        device: where the tensors live.
        mixture: one of ``angles.MIXTURES``, drawn where None.
        without: kinds of angles that are left out, see ``angles.Angles``.
        rounded: see ``Leaves``.
    """
    if num_wires is None:
        num_wires = random.randint(1, min(3, max_wires) if kind == "deep" else max_wires)
    num_gates = random.randint(1, max_gates) if num_gates is None else num_gates
    batch = random.choice(batches)
    integers = range(num_wires)
    labels: list[Any] = random.choice([[*integers], [2 * wire + 3 for wire in integers], [f"q{w}" for w in integers]])
    wires = random.sample(labels, num_wires)
    generator = torch.Generator().manual_seed(seed)
    source = Angles(generator, mixture, without)
    leaves = Leaves(generator, dtype=dtype, device=device, reuse=0.25, source=source, rounded=rounded)

    def some_batch() -> Leaves:
        return leaves.with_batch(random.choice([None, batch]))

    def of(entry: OperationEntry) -> kg.Operation:
        return entry.build(some_batch(), random.sample(wires, entry.num_wires))

    def pick(entries: Sequence[OperationEntry]) -> kg.Operation:
        return of(random.choice([entry for entry in entries if entry.num_wires <= num_wires]))

    def gates() -> list[kg.Operation]:
        if kind == "layers":
            return _layers(some_batch(), random, wires, max(1, num_gates // (2 * num_wires)))
        if kind == "shared data":
            return _shared_data(leaves.with_batch(batch), random, wires, max(1, num_gates // (3 * num_wires)))
        # A first gate with a wire of its own: a tape of global phases alone has none.
        first = (kg.RZ if kind == "no mixing" else kg.RY)(some_batch().angle(), wires=wires[0])
        if kind == "no diagonal":
            return [first, *(pick(_NO_DIAGONAL) for _ in range(num_gates))]
        if kind == "no mixing":
            spread = [kg.H(wire) for wire in wires] if random.random() < 0.5 else []
            return [first, *spread, *(pick(_NO_MIXING) for _ in range(num_gates))]
        if kind == "one kind":
            entry = random.choice([entry for entry in _ONE_KIND if entry.num_wires <= num_wires])
            return [first, *(of(entry) for _ in range(num_gates))]
        return [first, *(pick(_SIMPLE if random.random() < 0.5 else _GATE_ENTRIES) for _ in range(num_gates))]

    operations = [pick(_PREPARATIONS)] if random.random() < (0.1 if kind == "layers" else 0.3) else []
    operations += gates()
    possible = [entry for entry in MEASUREMENTS if entry.num_wires <= num_wires]
    chosen = [random.choice(possible) for _ in range(random.randint(1, 3))]
    measurements = [entry.build(some_batch(), random.sample(wires, num_wires)) for entry in chosen]
    if kind in ("layers", "shared data") and random.random() < 0.7:
        measurements = [kg.expval(kg.Z(wire)) for wire in wires]
    return kg.Tape(operations, measurements)


# ---- a tape as a function of its tensors


def substituted(tape: kg.Tape, parameters: Sequence[Any]) -> kg.Tape:
    """The tape with other parameters of the same kinds."""
    left = iter(parameters)

    def taken(found: Any) -> Any:
        values = {name: getattr(found, name) for cls in type(found).__mro__ for name in getattr(cls, "__slots__", ())}
        return restore(type(found), {**values, "parameters": tuple([next(left) for _ in found.parameters])})

    operations = [taken(operation) for operation in tape.operations]
    measurements = []
    for m in tape.measurements:
        observable = None if m.observable is None else taken(m.observable)
        measurements.append(kg.Measurement(m.kind, observable, () if observable is not None else m.wires))
    trainable = None if tape.has_default_trainable else tape.trainable_params
    return kg.Tape(operations, measurements, trainable_params=trainable)


def in_double(tape: kg.Tape) -> kg.Tape:
    """The tape with the very numbers of its tensors in double precision, as leaves.

    A tape that is built in double precision is another one where its angles are computed: 2 x + 1 is rounded.
    """
    tensors = {id(p): p.detach() for p in tape.parameters if isinstance(p, Tensor)}
    wide = {key: p.to(torch.complex128 if p.is_complex() else torch.float64) for key, p in tensors.items()}
    trained = {id(p) for p in tape.parameters if isinstance(p, Tensor) and p.requires_grad}
    leaves = {key: p.requires_grad_(key in trained) for key, p in wide.items()}
    return substituted(tape, [leaves.get(id(p), p) for p in tape.parameters])


def parameter_kinds(tape: kg.Tape) -> list[str]:
    kinds = [kind for operation in tape.operations for kind in operation.parameter_kinds]
    return kinds + [
        kind for m in tape.measurements if m.observable is not None for kind in m.observable.parameter_kinds
    ]


def angle_rounding(tape: kg.Tape) -> float:
    """What results may differ by because angles of gates that commute are added up, and their sum rounded.

    That is in double precision, whatever that of the state: its epsilon times the sum of all |angles|, and as many
    times that as any other rounding may make (``sweep.py``).
    """
    of_kinds = zip(tape.parameters, parameter_kinds(tape), strict=True)
    all_angles = [torch.as_tensor(p).detach() for p, kind in of_kinds if kind == "angle"]
    angles = [angle.abs().max() for angle in all_angles if angle.numel()]
    return 16 * torch.finfo(torch.float64).eps * float(sum(angles))


def as_function(tape: kg.Tape, without: Sequence[str] = ()) -> tuple[Callable[..., kg.Tape], list[Tensor]]:
    """A function whose arguments are the tape's tensors, each once, and these; other kinds of parameters stay fixed."""
    of_kinds = zip(tape.parameters, parameter_kinds(tape), strict=True)
    tensors = list({id(p): p for p, kind in of_kinds if isinstance(p, Tensor) and kind not in without}.values())
    places = [next((i for i, t in enumerate(tensors) if t is p), None) for p in tape.parameters]

    def function(*given: Tensor) -> kg.Tape:
        chosen = [p if i is None else given[i] for p, i in zip(tape.parameters, places, strict=True)]
        return substituted(tape, chosen)

    return function, tensors


# ---- circuits of any size, and on spare wires


def on_more_wires(tape: kg.Tape, num_wires: int) -> kg.Tape:
    """The same circuit beside wires that are only there: small circuits run by lanes, larger ones by single states."""
    spare = [("spare", i) for i in range(num_wires - tape.num_wires)]
    if not spare:
        return tape
    return kg.Tape([*tape.operations, kg.Identity(wires=spare)], tape.measurements)


def mixed_tape(
    num_wires: int,
    batch: int | None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    mixture: str | None = None,
) -> kg.Tape:
    """Every kind of kernel on low, middle and high wires; batched and shared parameters mixed.

    With a mixture of ``angles.MIXTURES`` angles are numbers of single precision, the same in either.
    """
    generator = torch.Generator().manual_seed(seed)
    source = Angles(generator, mixture) if mixture else None
    leaves = Leaves(generator, batch=batch, dtype=dtype, source=source, rounded=torch.float32 if mixture else None)
    shared = leaves.with_batch(None)
    n = num_wires
    wires = [0, n // 2, n - 1, 1, n - 2]
    gates = [
        *[kg.RX(leaves.angle(), wires=w) for w in range(n)],
        *[kg.Rot(shared.angle(), shared.angle(), shared.angle(), wires=w) for w in range(n)],
        *[kg.CNOT(wires=[w, (w + 1) % n]) for w in range(n)],
        kg.IsingXX(leaves.angle(), wires=[0, n - 1]),
        kg.PauliRot(shared.angle(), "XYZY", wires=wires[:4]),
        kg.MultiRZ(leaves.angle(), wires=wires),
        kg.ctrl(kg.RY(shared.angle(), wires=n - 1), 0, control_values=[0]),
        kg.SingleExcitation(shared.angle(), wires=[n - 1, 0]),
        kg.DoubleExcitation(leaves.angle(), wires=wires[:4]),
        kg.QubitUnitary(shared.unitary(2), wires=[n - 1, n // 2]),
        kg.QubitUnitary(leaves.unitary(3), wires=wires[:3]),
        kg.DiagonalQubitUnitary(shared.diagonal(2), wires=[0, n - 1]),
        kg.DiagonalEvolution(leaves.coefficient(), shared.energies(3), wires=wires[1:4]),
        kg.SWAP(wires=[0, n - 2]),
        kg.ISWAP(wires=[1, n - 1]),
        kg.T(wires=0),
        kg.GlobalPhase(leaves.angle()),
        *[kg.RY(shared.angle(), wires=w) for w in range(n)],
    ]
    observable = kg.Hamiltonian(
        leaves.coefficients(4),
        [
            kg.Z(0) @ kg.Z(n - 1),
            kg.X(0) @ kg.Y(n - 1),
            kg.Hermitian(shared.hermitian(2), wires=[n - 1, 1]) @ kg.Z(0),
            kg.Z(2),
        ],
    )
    measurements = [
        kg.expval(observable),
        kg.var(observable),
        kg.probs(wires=[n - 1, 0, 2]),
        kg.density_matrix(wires=[1, n - 1]),
        kg.expval(kg.Projector([0, 1], wires=[0, n - 1])),
    ]
    return kg.Tape(gates, measurements)
