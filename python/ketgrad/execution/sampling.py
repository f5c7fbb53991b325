"""Finite shots: results are sampled from exact probabilities.

`exact_tapes` makes tapes of the probabilities that are needed, and `draw` samples from them. Both partition the
measurements of a tape into groups that share their shots, one group per measurement basis: measurements of wires,
qubit-wise commuting Pauli words, and matrices that are the same object on the same wires.

- `sample`, `counts` and `probs` of wires read bits; with an observable, `sample` and `counts` read its eigenvalues.
  `expval` and `var` are the mean and the variance of eigenvalues.
- An observable whose terms are diagonal in one product basis is measured in it. The `expval` of any other is the sum of
  its terms, each from the shots of its group. `sample`, `counts` and `var` of such a sum, and all measurements of a sum
  on a single wire, such as `H`, are sampled in its eigenbasis, which is computed on few wires only.
- Eigenvalues that differ only by rounding errors count as one.

Shapes are PennyLane's, with a leading batch axis for a batch, even if B = 1: samples of wires `(shots, k)` in int64, of
observables `(shots,)`, probabilities `(2^k,)`, means and variances `()`. Counts are a dictionary, sorted by its keys:
bit strings or eigenvalues; for a batch, a list of B dictionaries.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial, reduce
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..circuit.measurements import Measurement, probs
from ..circuit.observables import Factor, Observable, Term
from ..circuit.operations import GlobalPhase, H, Operation, QubitUnitary, S, adjoint
from ..circuit.parsing import place
from ..circuit.tape import Tape
from ..circuit.types import Parameter, Wire

_MOST_WIRES = 10
"""The most wires on which a dense matrix (then 16 MiB) is formed to compute its eigenvectors."""

# Eigenbases of matrices with at most so many entries (64 KiB) are cached.
_MOST_KEPT_ENTRIES = 4096

# Rounding errors of matrix entries and sums of coefficients, relative to the largest eigenvalue.
_ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-12}

# Matrices are on the CPU, whatever torch's default device.
_CPU = torch.device("cpu")

# Rows, columns and values of the nonzero entries.
_Entries = tuple[Tensor, Tensor, Tensor]
_BITS = torch.tensor([0, 1], device=_CPU)
_LETTERS: dict[str, _Entries] = {
    "I": (_BITS, _BITS, torch.tensor([1, 1], dtype=torch.complex128, device=_CPU)),
    "X": (_BITS, 1 - _BITS, torch.tensor([1, 1], dtype=torch.complex128, device=_CPU)),
    "Y": (_BITS, 1 - _BITS, torch.tensor([-1j, 1j], dtype=torch.complex128, device=_CPU)),
    "Z": (_BITS, _BITS, torch.tensor([1, -1], dtype=torch.complex128, device=_CPU)),
}


@torch.no_grad()
def exact_tapes(tape: Tape) -> tuple[Tape, ...]:
    """Tapes with exact results from which those of a tape with shots are sampled, one per measurement basis.

    Each has the tape's operations and the gates that change its basis to the computational one, and measures the
    probabilities of the wires of its group. None has trainable parameters.

    Raises:
        NotImplementedError: the eigenbasis of an observable on more than 10 wires is needed.
        ValueError: a matrix whose eigenbasis is needed has NaN or infinite entries.
    """
    shared = _SharedShots(tape)
    operations = [*tape.operations, *_carriers(tape)]
    found = []
    for group in shared.groups:
        changes = [gate for basis in dict.fromkeys(group.values()) for gate in shared.change(basis)]
        found.append(Tape([*operations, *changes], [probs(_read_wires(group, tape))], trainable_params=()))
    return tuple(found)


@torch.no_grad()
def draw(
    tape: Tape, probabilities: Sequence[Tensor], generator: torch.Generator | None, copies: int | None = None
) -> Any:
    """The results of a tape with shots.

    Args:
        tape: one with shots.
        probabilities: the results of its `exact_tapes`, `(2^k,)` or `(B, 2^k)`; results have their dtype and device.
        generator: of the random numbers, on any device; None: the default one of the probabilities' device.
        copies: how many times to draw the shots of a tape without a batch; the results are those of a batch of so many.

    Returns:
        The result of the one measurement, or a tuple of results.

    Raises:
        ValueError: the probabilities are NaN, infinite or all zero.
    """
    shared = _SharedShots(tape)
    shots = [
        _Shots(_outcomes(of_group, tape, copies, generator), _read_wires(group, tape))
        for of_group, group in zip(probabilities, shared.groups, strict=True)
    ]
    results = []
    for measurement, parts in zip(tape.measurements, shared.parts, strict=True):
        read = [(part, shots[number]) for part, number in parts]
        results.append(_ShotReader(shared, measurement, probabilities[0].dtype).result(read))
    return results[0] if len(results) == 1 else tuple(results)


# ---------------------------------------------------------------------------------------------------------------------
# Measurement bases


@dataclass(frozen=True, slots=True)
class _Basis:
    """A measurement basis of some wires: the eigenbasis of a Pauli letter on one wire, or of a matrix.

    Attributes:
        wires: the wires that are measured in it.
        name: the letter, or a key that identifies the matrix.
        matrix: computes the matrix, `(2^k, 2^k)` or `(B, 2^k, 2^k)`, complex128 on the CPU; None for a letter.
    """

    wires: tuple[Wire, ...]
    name: Hashable
    matrix: Callable[[], Tensor] | None = field(default=None, compare=False)


_Group = dict[Wire, _Basis]
"""The basis of each wire that is measured in a group."""


class _Part(NamedTuple):
    """What is read from the shots of one group: a measurement, or one term of its observable.

    Attributes:
        bases: the bases of the wires that are read.
        terms: the terms whose sum is read; `()`: the bits of wires, or the eigenvalues of the single basis.
    """

    bases: tuple[_Basis, ...]
    terms: tuple[Term, ...] = ()


class _SharedShots:
    """The partition of a tape's measurements into groups that share their shots; deterministic.

    Attributes:
        parts: for each measurement its parts, each with the number of its group.
        groups: the bases of each group.
    """

    def __init__(self, tape: Tape) -> None:
        parts = [(m, part) for m, measurement in enumerate(tape.measurements) for part in _parts(measurement, tape)]
        self.groups: list[_Group] = []
        self.parts: list[list[tuple[_Part, int]]] = [[] for _ in tape.measurements]
        self._solved: dict[_Basis, _Eigenbasis] = {}
        # Wires first, so that they are always in one group. Then long Pauli words first, which needs fewer groups.
        parts.sort(key=lambda each: (tape.measurements[each[0]].observable is not None, -len(each[1].bases)))
        for m, part in parts:
            self.parts[m].append((part, self._group(part)))

    def _group(self, part: _Part) -> int:
        """Add a part to the first group that it is compatible with, or to a new one; its number."""
        for number, group in enumerate(self.groups):
            if _join(group, part.bases):
                return number
        self.groups.append({})
        _join(self.groups[-1], part.bases)
        return len(self.groups) - 1

    def solve(self, basis: _Basis) -> _Eigenbasis:
        """The eigenbasis of the matrix of a basis, computed once."""
        if basis not in self._solved:
            assert basis.matrix is not None
            self._solved[basis] = _eigenbasis(basis.matrix(), basis.wires)
        return self._solved[basis]

    def change(self, basis: _Basis) -> list[Operation]:
        """The gates that change a basis to the computational one."""
        if basis.matrix is not None:
            return [self.solve(basis).change]
        if basis.name == "X":
            return [H(basis.wires)]
        return [adjoint(S(basis.wires)), H(basis.wires)] if basis.name == "Y" else []


class _Eigenbasis(NamedTuple):
    """The eigenbasis of a matrix.

    Attributes:
        values: the eigenvalues in ascending order, `(2^k,)` or `(B, 2^k)`, float64 on the CPU.
        change: the gate that changes it to the computational basis. Its matrix is an array, because arrays do not
            determine precision and device of a tape.
    """

    values: Tensor
    change: QubitUnitary


def _eigenbasis(matrix: Tensor, wires: tuple[Wire, ...]) -> _Eigenbasis:
    """The eigenbasis of a matrix; cached by the entries of small ones, because circuits use the same few again."""
    if matrix.numel() > _MOST_KEPT_ENTRIES:
        return _new_eigenbasis(matrix, wires)
    return _kept_eigenbasis(matrix.numpy().tobytes(), matrix.shape, wires)


@lru_cache(maxsize=32)
def _kept_eigenbasis(entries: bytes, shape: torch.Size, wires: tuple[Wire, ...]) -> _Eigenbasis:
    return _new_eigenbasis(torch.frombuffer(bytearray(entries), dtype=torch.complex128).view(shape), wires)


def _new_eigenbasis(matrix: Tensor, wires: tuple[Wire, ...]) -> _Eigenbasis:
    if not torch.isfinite(matrix).all():
        where = place("an observable", wires)
        raise ValueError(f"{where} has NaN or infinite entries: there is no eigenbasis to sample in")
    values, vectors = torch.linalg.eigh(matrix)
    return _Eigenbasis(values, QubitUnitary(vectors.mH.resolve_conj().numpy(), wires=wires))


def _join(group: _Group, bases: Iterable[_Basis]) -> bool:
    """Add bases to a group if each of their wires is free in it or measured in the same basis; whether they were."""
    added = {wire: basis for basis in bases for wire in basis.wires}
    if any(group.get(wire, basis) != basis for wire, basis in added.items()):
        return False
    group.update(added)
    return True


def _read_wires(group: _Group, tape: Tape) -> tuple[Wire, ...]:
    """The wires whose probabilities a group needs; the tape's first wire if it reads only constants."""
    return tuple([wire for wire in tape.wires if wire in group]) or tape.wires[:1]


def _parts(measurement: Measurement, tape: Tape) -> list[_Part]:
    observable = measurement.observable
    if observable is None:
        return [_Part(_letters((wire, "Z") for wire in measurement.wires or tape.wires))]
    bases = [_term_bases(term, observable) for term in observable.terms]
    joint: _Group = {}
    if all(_join(joint, of_term) for of_term in bases):
        return [_Part(tuple(dict.fromkeys(joint.values())), observable.terms)]
    wires = tuple(dict.fromkeys(wire for of_term in bases for basis in of_term for wire in basis.wires))
    if measurement.kind == "expval" and len(wires) > 1:
        return [_Part(of_term, (term,)) for of_term, term in zip(bases, observable.terms, strict=True)]
    name = (observable.structure, *map(_identity, observable.parameters))
    return [_Part((_Basis(wires, name, partial(_whole_matrix, observable, wires)),))]


def _letters(pauli_word: Iterable[tuple[Wire, str]]) -> tuple[_Basis, ...]:
    return tuple([_Basis((wire,), letter) for wire, letter in pauli_word])


def _term_bases(term: Term, observable: Observable) -> tuple[_Basis, ...]:
    found = _letters(term.word)
    for factor in term.factors:
        if _is_diagonal(factor):
            found += _letters((wire, "Z") for wire in factor.wires)
        else:
            found += (_factor_basis(factor, observable),)
    return found


def _is_diagonal(factor: Factor) -> bool:
    return factor.kind in ("projector", "diagonal") or (factor.kind == "sparse" and factor.rows == factor.columns)


def _factor_basis(factor: Factor, observable: Observable) -> _Basis:
    name = (factor.kind, factor.rows, factor.columns, _identity(observable.parameters[factor.parameter]))
    return _Basis(factor.wires, name, partial(_factor_matrix, factor, observable))


def _identity(value: Parameter) -> Hashable:
    return value if isinstance(value, float) else id(value)


def _carriers(tape: Tape) -> list[Operation]:
    """Global phases of angle 0 with the dtypes and devices of the observables' tensors, which exact tapes lack.

    With them, precision and device are determined by all tensors of the tape, and mixed devices or precisions raise the
    same error as without shots.
    """
    known = {_kind(value) for op in tape.operations for value in op.parameters if isinstance(value, Tensor)}
    found = {_kind(value): value for m in tape.measurements for value in m.parameters if isinstance(value, Tensor)}
    return [GlobalPhase(value.new_zeros((), dtype=kind[1])) for kind, value in found.items() if kind not in known]


def _kind(value: Tensor) -> tuple[torch.device, torch.dtype]:
    return value.device, value.dtype.to_real()


# ---------------------------------------------------------------------------------------------------------------------
# Matrices of observables, complex128 on the CPU


def _factor_matrix(factor: Factor, observable: Observable) -> Tensor:
    """The matrix of a factor, `(2^k, 2^k)` or `(B, 2^k, 2^k)`."""
    if factor.kind == "hermitian":
        dense = torch.as_tensor(observable.parameters[factor.parameter], dtype=torch.complex128, device=_CPU)
        return dense.detach().resolve_conj()
    _require_few("SparseHamiltonian" if factor.kind == "sparse" else "Projector", factor.wires)
    return _matrix((Term(1.0, (), (), (factor,)),), observable, factor.wires)


def _whole_matrix(observable: Observable, wires: tuple[Wire, ...]) -> Tensor:
    """The matrix of an observable on the given wires, `(2^k, 2^k)` or `(B, 2^k, 2^k)`."""
    _require_few("a sum of observables that do not fit into one measurement basis", wires)
    return _matrix(observable.terms, observable, wires)


def _matrix(terms: Iterable[Term], observable: Observable, wires: tuple[Wire, ...]) -> Tensor:
    entries = [_entries(term, observable, wires) for term in terms]
    batch = torch.broadcast_shapes(*[values.shape[:-1] for _, values in entries])
    size = 1 << len(wires)
    found = torch.zeros(*batch, size * size, dtype=torch.complex128, device=_CPU)
    for cells, values in entries:
        found.index_add_(-1, cells, values.expand(*batch, -1))
    return found.view(*batch, size, size)


def _entries(term: Term, observable: Observable, wires: tuple[Wire, ...]) -> tuple[Tensor, Tensor]:
    """The nonzero entries of a term's matrix: positions in the flattened matrix `(nnz,)`, and values `(…, nnz)`."""
    operators: list[tuple[tuple[Wire, ...], _Entries]] = [((wire,), _LETTERS[letter]) for wire, letter in term.word]
    operators += [(factor.wires, _factor_entries(factor, observable)) for factor in term.factors]
    acted = {wire for factor_wires, _ in operators for wire in factor_wires}
    operators += [((wire,), _LETTERS["I"]) for wire in wires if wire not in acted]
    cells = torch.zeros(1, dtype=torch.int64, device=_CPU)
    total = _weight(term, observable, _CPU).to(torch.complex128)[..., None]
    for factor_wires, (rows, columns, values) in operators:
        placed = (_spread(rows, factor_wires, wires) << len(wires)) + _spread(columns, factor_wires, wires)
        cells = (cells[:, None] + placed).flatten()
        total = (total[..., :, None] * values[..., None, :]).flatten(-2)
    return cells, total


def _factor_entries(factor: Factor, observable: Observable) -> _Entries:
    if factor.kind == "projector":
        number = torch.tensor([_number(factor.bits)], device=_CPU)
        return number, number, torch.ones(1, dtype=torch.complex128, device=_CPU)
    values = torch.as_tensor(observable.parameters[factor.parameter], dtype=torch.complex128, device=_CPU)
    if factor.kind == "sparse":
        return _indices(factor.rows), _indices(factor.columns), values
    every = torch.arange(values.shape[-1], device=_CPU)
    if factor.kind == "diagonal":
        return every, every, values
    if factor.kind == "state_projector":
        values = values[..., :, None] * values[..., None, :].conj()
    return every.repeat_interleave(len(every)), every.repeat(len(every)), values.flatten(-2)


def _indices(data: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, np.int64).copy())


def _spread(states: Tensor, factor_wires: tuple[Wire, ...], wires: tuple[Wire, ...]) -> Tensor:
    """Basis states of some wires as basis states of all, with the other wires 0."""
    found = torch.zeros_like(states)
    for shift, wire in enumerate(reversed(factor_wires)):
        found |= (states >> shift & 1) << (len(wires) - 1 - wires.index(wire))
    return found


def _require_few(what: str, wires: tuple[Wire, ...]) -> None:
    if len(wires) > _MOST_WIRES:
        raise NotImplementedError(
            f"{place(what, wires)}: shots are drawn in its eigenbasis, which is found on at most {_MOST_WIRES} wires; "
            "take the expectation value of a sum of Pauli words, or leave the shots out"
        )


def _weight(term: Term, observable: Observable, device: torch.device) -> Tensor:
    """The coefficient of a term in double precision, `()` or `(B,)`."""
    weight = torch.tensor(term.scale, dtype=torch.float64, device=device)
    for index, column in term.coefficients:
        value = torch.as_tensor(observable.parameters[index], dtype=torch.float64, device=device)
        weight = weight * (value[..., column] if observable.parameter_kinds[index] == "coefficients" else value)
    return weight


def _number(bits: Iterable[int]) -> int:
    return reduce(lambda number, bit: 2 * number + bit, bits, 0)


# ---------------------------------------------------------------------------------------------------------------------
# Shots


def _outcomes(probabilities: Tensor, tape: Tape, copies: int | None, generator: torch.Generator | None) -> Tensor:
    """Basis states sampled with probabilities `(2^k,)` or `(B, 2^k)`: int64, `(shots,)` or `(B, shots)`.

    By inverting the cumulative distribution: torch.multinomial is slower and limited to 2^24 basis states.
    """
    assert tape.shots is not None
    batch = tape.batch_size if copies is None else copies
    shape = (tape.shots,) if batch is None else (batch, tape.shots)
    cumulative = probabilities.to(torch.float64).cumsum(-1)
    total = cumulative[..., -1:]
    wrong = total[~(torch.isfinite(total) & (total > 0))]
    if len(wrong):
        found = f"its probabilities add up to {wrong[0].item()}"
        raise ValueError(f"no samples can be drawn from the tape: {found}; look for NaN among its parameters")
    source = probabilities.device if generator is None else generator.device
    uniform = torch.rand(shape, generator=generator, device=source, dtype=torch.float64)
    # With right=True, a basis state of probability 0 is never drawn.
    return torch.searchsorted(cumulative, uniform.to(probabilities.device) * total, right=True)


class _Shots:
    """The shots of a group.

    Attributes:
        bits: the bits of each wire of the group, bool, `(shots,)` or `(B, shots)`.
    """

    def __init__(self, outcomes: Tensor, wires: tuple[Wire, ...]) -> None:
        self.bits = {wire: (outcomes >> shift & 1).bool() for shift, wire in enumerate(reversed(wires))}
        self._none = torch.zeros_like(outcomes, dtype=torch.bool)

    @property
    def device(self) -> torch.device:
        """The device of the shots."""
        return self._none.device

    def basis_state(self, wires: Iterable[Wire]) -> Tensor:
        """The index of the basis state of some wires, int64."""
        found = self._none.to(torch.int64)
        for wire in wires:
            found = 2 * found + self.bits[wire]
        return found

    def sign(self, wires: Iterable[Wire]) -> Tensor:
        """−1 if an odd number of the wires is 1, otherwise 1; float64."""
        is_odd = self._none
        for wire in wires:
            is_odd = is_odd ^ self.bits[wire]
        return 1 - 2 * is_odd.to(torch.float64)


# ---------------------------------------------------------------------------------------------------------------------
# Results


class _ShotReader:
    """Computes the result of one measurement from shots; real results have the given dtype."""

    def __init__(self, shared: _SharedShots, measurement: Measurement, dtype: torch.dtype) -> None:
        self.shared = shared
        self.kind = measurement.kind
        self.observable = measurement.observable
        self.dtype = dtype

    def result(self, parts: list[tuple[_Part, _Shots]]) -> Any:
        """The result: a tensor, a dictionary or a list of dictionaries."""
        part, shots = parts[0]
        if self.observable is None:
            return self._of_wires([basis.wires[0] for basis in part.bases], shots)
        if self.kind == "expval":
            return torch.stack([self._values(*each).mean(-1) for each in parts]).sum(0).to(self.dtype)
        values = self._values(part, shots)
        if self.kind == "var":
            return values.var(-1, correction=0).to(self.dtype)
        merged = _merged(values, _ROUNDING[self.dtype])
        return merged.to(self.dtype) if self.kind == "sample" else _counted(merged, lambda value: value)

    def _of_wires(self, wires: list[Wire], shots: _Shots) -> Any:
        """Bits, counts or relative frequencies."""
        if self.kind == "sample":
            return torch.stack([shots.bits[wire] for wire in wires], -1).to(torch.int64)
        found = shots.basis_state(wires)
        if self.kind == "counts":
            return _counted(found, lambda number: f"{number:0{len(wires)}b}")
        return _frequencies(found, 1 << len(wires)).to(self.dtype)

    def _values(self, part: _Part, shots: _Shots) -> Tensor:
        """The value of a part of the observable in each shot: float64, `(shots,)` or `(B, shots)`."""
        if not part.terms:
            return self._eigenvalues(part.bases[0], shots)
        return reduce(torch.add, (self._term_values(term, shots) for term in part.terms))

    def _term_values(self, term: Term, shots: _Shots) -> Tensor:
        assert self.observable is not None
        values = shots.sign(wire for wire, _ in term.word)
        for factor in term.factors:
            values = values * self._factor_values(factor, self.observable, shots)
        return values * _weight(term, self.observable, shots.device)[..., None]

    def _factor_values(self, factor: Factor, observable: Observable, shots: _Shots) -> Tensor:
        if factor.kind == "projector":
            return (shots.basis_state(factor.wires) == _number(factor.bits)).to(torch.float64)
        if _is_diagonal(factor):
            return _at(_diagonal(factor, observable), shots.basis_state(factor.wires))
        return self._eigenvalues(_factor_basis(factor, observable), shots)

    def _eigenvalues(self, basis: _Basis, shots: _Shots) -> Tensor:
        return _at(self.shared.solve(basis).values, shots.basis_state(basis.wires))


def _at(table: Tensor, found: Tensor) -> Tensor:
    """The entries of a table `(2^k,)` or `(B, 2^k)` at basis states."""
    table = table.to(found.device)
    return table.gather(-1, found) if table.dim() == 2 else table[found]


def _diagonal(factor: Factor, observable: Observable) -> Tensor:
    """The diagonal of a diagonal factor, `(2^k,)` or `(B, 2^k)`, in double precision."""
    if factor.kind == "diagonal":
        return torch.as_tensor(observable.parameters[factor.parameter], dtype=torch.float64, device=_CPU).detach()
    rows, _, values = _factor_entries(factor, observable)
    found = torch.zeros(1 << len(factor.wires), dtype=torch.float64, device=_CPU)
    found[rows] = values.real
    return found


def _merged(values: Tensor, tolerance: float) -> Tensor:
    """The values with those that differ only by rounding made equal, and rounded to integers if within rounding."""
    distinct, position = values.unique(return_inverse=True)
    if not len(distinct):
        return values
    gap = tolerance * distinct.nan_to_num(0, 0, 0).abs().max()
    # `~(… <= gap)`, not `> gap`, so that NaN stays a value of its own.
    is_new = ~(distinct.diff(prepend=distinct[:1] - 2 * gap - 1) <= gap)
    kept = distinct[is_new]
    kept = torch.where((kept - kept.round()).abs() <= gap, kept.round(), kept)
    return kept[is_new.cumsum(0) - 1][position]


def _counted(values: Tensor, name: Callable[[Any], Any]) -> Any:
    """The number of occurrences of each value, by its name: a dictionary, or for `(B, shots)` a list of B of them."""
    if values.dim() == 2:
        return [_counted(row, name) for row in values]
    distinct, counts = values.unique(return_counts=True)
    return {name(value): count for value, count in zip(distinct.tolist(), counts.tolist(), strict=True)}


def _frequencies(found: Tensor, size: int) -> Tensor:
    """The relative frequency of each of `size` basis states among the shots: `(size,)` or `(B, size)`."""
    total = torch.zeros(*found.shape[:-1], size, dtype=torch.float64, device=found.device)
    return total.scatter_add_(-1, found, torch.ones_like(found, dtype=torch.float64)) / found.shape[-1]
