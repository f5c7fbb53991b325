"""Observables, in one normal form: a real linear combination of products of Pauli letters and matrix factors."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from .operations import Composable, H, Identity, Operation, X, Y, Z, parse_bits
from .parsing import (
    Parsed,
    _set,
    check_normalised,
    check_values,
    dense_parameter,
    join_batches,
    largest,
    parse_wires,
    place,
    real_diagonal,
    restore,
    scalar_parameter,
    to_array,
)
from .types import Array, Parameter, ParameterLayout, ParameterLike, Structure, Wire, Wires

__all__ = [
    "Diagonal",
    "Factor",
    "Hamiltonian",
    "Hermitian",
    "Observable",
    "Projector",
    "SparseHamiltonian",
    "Term",
]


class Factor(NamedTuple):
    """A factor of a term that is no Pauli word.

    Attributes:
        kind: "hermitian", "projector" (on a basis state), "state_projector", "sparse" or "diagonal".
        wires: the wires it acts on.
        parameter: the index of its matrix, state, values or diagonal among the observable's parameters; −1 for a
            "projector".
        bits: the basis state of a "projector".
        rows: the row of each value of a "sparse" matrix, in row-major order, as the bytes of an int64 array
            (`numpy.frombuffer(rows, numpy.int64)`): bytes cache their hash and compare fast.
        columns: the column of each value, likewise.
    """

    kind: str
    wires: tuple[Wire, ...]
    parameter: int = -1
    bits: tuple[int, ...] = ()
    rows: bytes = b""
    columns: bytes = b""


class Term(NamedTuple):
    """A product with its coefficient: scale × coefficients × Pauli word × factors.

    Attributes:
        scale: a constant.
        coefficients: the parameters that multiply it, as (index of the parameter, column); column 0 for a scalar.
        word: the Pauli word, as (wire, "X" | "Y" | "Z") on distinct wires.
        factors: on wires disjoint from those of the Pauli word and of each other.
    """

    scale: float
    coefficients: tuple[tuple[int, int], ...]
    word: tuple[tuple[Wire, str], ...]
    factors: tuple[Factor, ...]


class _Product(NamedTuple):
    """A term with a complex scale, while products are formed: X·Y = iZ is no observable, (X·Y)⊗(X·Y) = −Z⊗Z is one."""

    scale: complex
    coefficients: tuple[tuple[int, int], ...]
    word: tuple[tuple[Wire, str], ...]
    factors: tuple[Factor, ...]


_ALLOWED = (
    "X, Y, Z, H, Identity, Hermitian, Diagonal, Projector, SparseHamiltonian, Hamiltonian and their products and sums"
)
_ONE = _Product(1.0, (), (), ())

# The product of two different Pauli letters, with its phase.
_PAULI_PRODUCTS = {
    "XY": (1j, "Z"),
    "YZ": (1j, "X"),
    "ZX": (1j, "Y"),
    "YX": (-1j, "Z"),
    "ZY": (-1j, "X"),
    "XZ": (-1j, "Y"),
}


class Observable(Composable):
    """A real linear combination of products of Pauli letters and matrix factors; built by composition.

    Attributes:
        parameters: all coefficients (numbers too), matrices, states and sparse values, from left to right; the
            coefficient of a scaled observable comes before the observable's own parameters.
        parameter_kinds: of each parameter "coefficient" `()` or `(B,)`, "coefficients" `(T,)` or `(B, T)`, "matrix",
            "state", "values" `(nnz,)` or "entries" `(2^k,)`.
        parameter_layout: a letter for each parameter, as for operations.
        batch_size: B if a parameter has a leading batch axis, else None.
        wires: all wires, in order of first appearance.
    """

    __slots__ = (
        "_products",
        "_structure",
        "_terms",
        "batch_size",
        "parameter_kinds",
        "parameter_layout",
        "parameters",
        "wires",
    )

    batch_size: int | None
    parameter_kinds: tuple[str, ...]
    parameter_layout: str
    parameters: tuple[Parameter, ...]
    wires: tuple[Wire, ...]
    _products: tuple[_Product, ...]
    _structure: Structure | None
    _terms: tuple[Term, ...] | None

    def __init__(self, *arguments: object) -> None:
        raise TypeError(f"Observable has no public constructor: compose observables of {_ALLOWED}")

    @property
    def terms(self) -> tuple[Term, ...]:
        """The linear combination, with like products merged.

        Raises:
            ValueError: a product of Pauli letters has an imaginary coefficient: the observable is not Hermitian.
        """
        if self._terms is None:
            _set(self, "_terms", _real_terms(self))
        return self._terms  # type: ignore[return-value]

    @property
    def structure(self) -> Structure:
        """Everything but the parameters' values: terms, wires, parameter kinds and layout."""
        if self._structure is None:
            found = Structure((self.terms, self.wires, self.parameter_kinds, self.parameter_layout))
            _set(self, "_structure", found)
        return self._structure  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"<observable {describe(self)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        values = {name: getattr(self, name) for name in Observable.__slots__}
        return restore, (type(self), {**values, "_structure": None, "_terms": None})


def _observable(*attributes: Any) -> Observable:
    found = Observable.__new__(Observable)
    _fill(found, *attributes)
    return found


def _fill(
    observable: Observable,
    parameters: tuple[Parameter, ...],
    kinds: tuple[str, ...],
    layout: str,
    batch_size: int | None,
    wires: tuple[Wire, ...],
    products: tuple[_Product, ...],
) -> None:
    _set(observable, "parameters", parameters)
    _set(observable, "parameter_kinds", kinds)
    _set(observable, "parameter_layout", str(layout))
    _set(observable, "batch_size", batch_size)
    _set(observable, "wires", wires)
    _set(observable, "_products", products)
    _set(observable, "_terms", None)
    _set(observable, "_structure", None)


# ---------------------------------------------------------------------------------------------------------------------
# Leaves


class Hermitian(Observable):
    """A Hermitian matrix `(2^k, 2^k)` or `(B, 2^k, 2^k)`, real or complex, on k wires.

    Raises:
        TypeError: the matrix is no dense array or tensor of numbers.
        ValueError: its shape does not match the wires, or it is not Hermitian (checked on the CPU, outside tracing).
    """

    __slots__ = ()

    def __init__(self, A: ParameterLike, wires: Wires) -> None:
        own_wires = _some_wires(wires, "Hermitian")
        value, layout, batch_size = dense_parameter(A, "matrix", "Hermitian", own_wires)
        check_values(value, _skewness, "the matrix must be Hermitian", "Hermitian", own_wires)
        products = (_ONE._replace(factors=(Factor("hermitian", own_wires, 0),)),)
        _fill(self, (value,), ("matrix",), layout, batch_size, own_wires, products)


def _skewness(matrix: Array) -> float:
    with np.errstate(all="ignore"):
        size = np.abs(matrix).max((-1, -2)).clip(min=1)
        return largest(np.abs(matrix - matrix.conj().swapaxes(-1, -2)).max((-1, -2)) / size)


class Diagonal(Observable):
    """A real diagonal matrix on k wires, given by its diagonal `(2^k,)` or `(B, 2^k)`.

    For Hamiltonians of many products of Z, on any number of wires: the cost of a QAOA, a potential on a grid. On all
    wires an expectation value is one pass over the state. `DiagonalEvolution` is its exponential, and `tabulate` makes
    a diagonal of a function of bits.

    Raises:
        TypeError: the diagonal is complex, or no dense array or tensor of numbers.
        ValueError: its shape does not match the wires.

    Example:
        >>> import torch, ketgrad as kg
        >>> energies = torch.tensor([0.0, 1.0, 1.0, 3.0])
        >>> tape = kg.Tape([kg.H(0), kg.X(1)], [kg.expval(kg.Diagonal(energies, wires=[0, 1]))])
        >>> kg.execute([tape])[0]
        tensor(2.0000)
    """

    __slots__ = ()

    def __init__(self, diagonal: ParameterLike, wires: Wires) -> None:
        own_wires = _some_wires(wires, "Diagonal")
        value, layout, batch_size = real_diagonal(diagonal, "Diagonal", own_wires)
        products = (_ONE._replace(factors=(Factor("diagonal", own_wires, 0),)),)
        _fill(self, (value,), ("entries",), layout, batch_size, own_wires, products)


class Projector(Observable):
    r"""$|s\rangle\langle s|$ for a basis state (one bit per wire) or for a state vector.

    On k wires, a list, array or tensor of k entries is read as bits, one of shape `(2^k,)` or `(B, 2^k)` as a state
    vector, which is a parameter.

    Raises:
        TypeError: the bits are no integers, or the state is no dense array or tensor of numbers.
        ValueError: the shape does not match the wires, a bit is neither 0 nor 1, or the norm of the state is not 1
            (checked on the CPU, outside tracing).
    """

    __slots__ = ()

    def __init__(self, state: ParameterLike | Sequence[int], wires: Wires) -> None:
        own_wires = _some_wires(wires, "Projector")
        if not isinstance(state, (Tensor, np.ndarray, list, tuple)):
            found = type(state).__name__
            raise TypeError(
                f"{place('Projector', own_wires)}: the state must be bits, an array or a tensor, not {found}"
            )
        if len(state) == len(own_wires) and (not isinstance(state, (Tensor, np.ndarray)) or state.ndim == 1):
            factor = Factor("projector", own_wires, bits=parse_bits(state, "Projector", own_wires))
            _fill(self, (), (), "", None, own_wires, (_ONE._replace(factors=(factor,)),))
            return
        value, layout, batch_size = dense_parameter(state, "state", "Projector", own_wires)
        check_normalised(value, "Projector", own_wires)
        products = (_ONE._replace(factors=(Factor("state_projector", own_wires, 0),)),)
        _fill(self, (value,), ("state",), layout, batch_size, own_wires, products)


class SparseHamiltonian(Observable):
    """A sparse Hermitian matrix `(2^k, 2^k)` on k wires, from SciPy (any sparse format) or torch (COO or CSR).

    Duplicate entries are summed, except in CSR tensors, whose columns must be sorted and without duplicates. The values
    `(nnz,)`, in row-major order, are a parameter: a constant for SciPy, a tensor through which gradients reach the
    matrix for torch.

    Raises:
        TypeError: the matrix is not sparse.
        ValueError: its shape does not match the wires, the columns of a CSR tensor are not sorted or not distinct, or
            it is not Hermitian (checked on the CPU, outside tracing).
    """

    __slots__ = ()

    def __init__(self, matrix: Any, wires: Wires) -> None:
        own_wires = _some_wires(wires, "SparseHamiltonian")
        where, size = place("SparseHamiltonian", own_wires), 1 << len(own_wires)
        parts = _torch_coordinates(matrix, where) if isinstance(matrix, Tensor) else _scipy_coordinates(matrix, where)
        if tuple(matrix.shape) != (size, size):
            raise ValueError(f"{where}: the matrix must have shape {(size, size)}, not {tuple(matrix.shape)}")
        if any(len(indices) and not 0 <= indices.min() <= indices.max() < size for indices in parts[:2]):
            raise ValueError(f"{where}: the matrix has an entry outside its shape {(size, size)}")
        rows, columns, values = parts
        mirror = _Mirror(rows, columns, size)
        check_values(values, mirror.skewness, "the matrix must be Hermitian", "SparseHamiltonian", own_wires)
        factor = Factor("sparse", own_wires, 0, (), rows.tobytes(), columns.tobytes())
        layout = ParameterLayout.of(values, False)
        _fill(self, (values,), ("values",), layout, None, own_wires, (_ONE._replace(factors=(factor,)),))


_SPARSE = "the matrix must be a SciPy sparse matrix or a torch COO or CSR tensor"


def _torch_coordinates(matrix: Tensor, where: str) -> tuple[Array, Array, Tensor]:
    if matrix.dim() == 2 and matrix.layout is torch.sparse_csr:
        return _csr_coordinates(matrix, where)
    if matrix.dim() == 2 and matrix.layout is torch.sparse_coo and not matrix.dense_dim():
        matrix = matrix.coalesce()
        rows, columns = matrix.indices().detach().cpu().numpy().astype(np.int64)
        return rows, columns, matrix.values()
    raise TypeError(f"{where}: {_SPARSE}, not {matrix.layout} of shape {tuple(matrix.shape)}")


def _csr_coordinates(matrix: Tensor, where: str) -> tuple[Array, Array, Tensor]:
    # Not through COO: torch has no gradient for the conversion of complex CSR tensors.
    starts, columns = (part.detach().cpu().numpy() for part in (matrix.crow_indices(), matrix.col_indices()))
    rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    if (np.diff(rows * matrix.shape[1] + columns) <= 0).any():
        raise ValueError(f"{where}: the columns of a CSR tensor must be in order in each row, without duplicates")
    return rows, columns.astype(np.int64), matrix.values()


def _scipy_coordinates(matrix: Any, where: str) -> tuple[Array, Array, Array]:
    if not hasattr(matrix, "tocsr") or not hasattr(matrix, "nnz"):
        raise TypeError(f"{where}: {_SPARSE}, not {type(matrix).__name__}")
    compressed = matrix.tocsr(copy=True)
    compressed.sum_duplicates()
    entries = compressed.tocoo()
    values = to_array(entries.data, "SparseHamiltonian", (), "matrix")
    return entries.row.astype(np.int64), entries.col.astype(np.int64), values


class _Mirror:
    """The position of the transposed entry of each entry of a sparse matrix."""

    def __init__(self, rows: Array, columns: Array, size: int) -> None:
        keys, mirrored = rows * size + columns, columns * size + rows
        found = np.minimum(np.searchsorted(keys, mirrored), max(len(keys) - 1, 0))
        self.position = found
        self.missing = keys[found] != mirrored

    def skewness(self, values: Array) -> float:
        if not len(values):
            return 0.0
        mirrored = np.where(self.missing, 0, values[self.position].conj())
        with np.errstate(all="ignore"):
            return largest(np.abs(values - mirrored).max() / np.abs(values).max().clip(min=1))


def _some_wires(wires: Wires, name: str) -> tuple[Wire, ...]:
    found = parse_wires(wires, name)
    if not found:
        raise ValueError(f"{name} needs at least one wire")
    return found


@lru_cache(maxsize=1024)
def _of_gate(name: str, wires: tuple[Wire, ...]) -> Observable:
    """A gate as an observable. Kept, with its terms: circuits measure the same few again and again."""
    return _observable((), (), "", None, wires, _pauli(name, wires))


def _pauli(name: str, wires: tuple[Wire, ...]) -> tuple[_Product, ...]:
    if name == "Identity":
        return (_ONE,)
    if name == "H":
        return tuple(_Product(math.sqrt(0.5), (), ((wires[0], letter),), ()) for letter in "XZ")
    return (_Product(1.0, (), ((wires[0], name),), ()),)


def pauli_word(letters: tuple[tuple[Wire, str], ...]) -> Observable:
    """The product of Pauli letters on distinct wires; a faster `X(0) @ Z(2)` is ((0, "X"), (2, "Z"))."""
    return _observable((), (), "", None, tuple(wire for wire, _ in letters), (_Product(1.0, (), letters, ()),))


def as_observable(value: Any) -> Observable:
    """A gate X, Y, Z, H or Identity as an observable; observables are returned as they are.

    Raises:
        TypeError: the value is no observable: another gate, a controlled gate or something else.
    """
    if isinstance(value, Observable):
        return value
    if isinstance(value, (X, Y, Z, H, Identity)):
        if not value.control_wires:
            return _of_gate(value.name, value.wires)
        found = f"the controlled gate {value!r}"
    elif isinstance(value, Operation):
        found = f"the gate {place(value.name, value.wires)}"
    elif isinstance(value, type) and issubclass(value, Composable):
        raise TypeError(f"{value.__name__} is no observable without wires: write {value.__name__}(wires=…)")
    else:
        found = f"{value!r} of type {type(value).__name__}"
    raise TypeError(f"{found} is no observable; observables are {_ALLOWED}")


# ---------------------------------------------------------------------------------------------------------------------
# Composition


def _shifted(product: _Product, offset: int, prefix: tuple[tuple[int, int], ...] = ()) -> _Product:
    """The product with the indices of its parameters shifted by `offset`, and `prefix` before its coefficients."""
    if not offset and not prefix:
        return product
    coefficients = prefix + tuple((index + offset, column) for index, column in product.coefficients)
    factors = tuple(f if f.parameter < 0 else f._replace(parameter=f.parameter + offset) for f in product.factors)
    return _Product(product.scale, coefficients, product.word, factors)


def _multiplied(left: _Product, right: _Product) -> _Product:
    scale = left.scale * right.scale
    letters = dict(left.word)
    for wire, letter in right.word:
        before = letters.get(wire)
        if before is None:
            letters[wire] = letter
        elif before == letter:
            del letters[wire]
        else:
            phase, letters[wire] = _PAULI_PRODUCTS[before + letter]
            scale *= phase
    return _Product(scale, left.coefficients + right.coefficients, tuple(letters.items()), left.factors + right.factors)


def _require_disjoint(left: Observable, right: Observable) -> None:
    """Raise ValueError if a factor of one has a wire on which the other acts: factors are not multiplied."""
    common = set(left.wires) & set(right.wires)
    if not common:
        return
    for one, other in ((left, right), (right, left)):
        for factor in {factor for product in one._products for factor in product.factors}:
            used = {wire for product in other._products for wire in _used_wires(product)}
            for wire in factor.wires:
                if wire in used:
                    name = place(factor_label(factor), factor.wires)
                    raise ValueError(
                        f"{name} cannot be multiplied with another observable on wire {wire!r}; "
                        "multiply the two matrices and give the product as one Hermitian"
                    )


def _used_wires(product: _Product) -> Iterable[Wire]:
    yield from (wire for wire, _ in product.word)
    for factor in product.factors:
        yield from factor.wires


def _joined(left: Observable, right: Observable, products: tuple[_Product, ...]) -> Observable:
    """An observable of the given products, with the parameters of both."""
    wires = tuple(dict.fromkeys(left.wires + right.wires))
    return _observable(
        left.parameters + right.parameters,
        left.parameter_kinds + right.parameter_kinds,
        left.parameter_layout + right.parameter_layout,
        join_batches((left.batch_size, right.batch_size), "observable", wires),
        wires,
        products,
    )


def _scalar(value: Any) -> Parsed:
    if isinstance(value, (complex, np.complexfloating)):
        raise TypeError(f"the coefficient of an observable must be real, not {value!r}")
    return scalar_parameter(value, "observable", (), "coefficient")


class Algebra:
    """The operators of `Composable`."""

    @staticmethod
    def product(left: Any, right: Any) -> Observable:
        """The product `left @ right`."""
        if not isinstance(right, (Composable, Operation)):
            _refuse("@", left, right)
        left, right = as_observable(left), as_observable(right)
        _require_disjoint(left, right)
        moved = [_shifted(product, len(left.parameters)) for product in right._products]
        return _joined(left, right, tuple(_multiplied(one, other) for one in left._products for other in moved))

    @staticmethod
    def scaled(scalar: Any, observable: Any) -> Observable:
        """The observable times a real scalar, which becomes its first parameter."""
        if isinstance(scalar, (Composable, Operation)):
            raise TypeError("* multiplies an observable by a number or a tensor; of two observables, form a @ b")
        value, layout, batch_size = _scalar(scalar)
        base = as_observable(observable)
        return _observable(
            (value, *base.parameters),
            ("coefficient", *base.parameter_kinds),
            layout + base.parameter_layout,
            join_batches((batch_size, base.batch_size), "observable", base.wires),
            base.wires,
            tuple(_shifted(product, 1, ((0, 0),)) for product in base._products),
        )

    @staticmethod
    def divided(observable: Any, scalar: Any) -> Observable:
        """The observable times the reciprocal of a real scalar."""
        if isinstance(scalar, (Composable, Operation)):
            raise TypeError("an observable is divided by a number or a tensor, not by an observable")
        value, _, _ = _scalar(scalar)
        if isinstance(value, Tensor) and not value.is_floating_point():
            raise TypeError(f"an observable is divided by a number or a floating-point tensor, not by {value.dtype}")
        return Algebra.scaled(1.0 / value, observable)

    @staticmethod
    def difference(left: Any, right: Any) -> Observable:
        """`left - right`: the coefficient −1 becomes a parameter, as in PennyLane."""
        negative = Algebra.scaled(-1.0, right) if isinstance(right, (Composable, Operation)) else -right
        return Algebra.total(left, negative)

    @staticmethod
    def total(left: Any, right: Any) -> Observable:
        """`left + right`; a number is that multiple of the identity."""
        left, right = _summand(left, right), _summand(right, left)
        if left is None or right is None:
            return as_observable(right if left is None else left)
        moved = tuple(_shifted(product, len(left.parameters)) for product in right._products)
        return _joined(left, right, left._products + moved)


def _summand(value: Any, other: Any) -> Observable | None:
    """The value as an observable: a number is that multiple of the identity; None for a plain 0."""
    if isinstance(value, (Composable, Operation)):
        return as_observable(value)
    if isinstance(value, (str, bytes)) or value is None:
        _refuse("+", value, other)
    if not isinstance(value, (Tensor, np.ndarray)) and isinstance(value, (int, float)) and value == 0:
        return None
    return Algebra.scaled(value, Identity(other.wires))


def _refuse(operator: str, left: Any, right: Any) -> NoReturn:
    raise TypeError(f"{operator} is not defined between {type(left).__name__} and {type(right).__name__}")


Composable._algebra = Algebra


class Hamiltonian(Observable):
    """The linear combination of T observables with the given coefficients.

    Each entry of a list of coefficients (a number, a 0-d tensor, a batch `(B,)`) is a parameter of its own; an array or
    tensor `(T,)` or `(B, T)` is one parameter.

    Raises:
        TypeError: a coefficient is not real, or one of the observables is no observable.
        ValueError: coefficients and observables differ in number, or there are none.
    """

    __slots__ = ()

    def __init__(self, coefficients: Sequence[Any] | Array | Tensor, observables: Sequence[Composable]) -> None:
        if isinstance(observables, Composable) or not isinstance(coefficients, (Iterable, Tensor, np.ndarray)):
            raise TypeError("Hamiltonian takes a list of coefficients and a list of observables, even for one term")
        parts = [as_observable(observable) for observable in observables]
        if not parts:
            raise ValueError("Hamiltonian needs at least one observable")
        prefixes: list[tuple[tuple[int, int], ...]] = [()] * len(parts)
        head: tuple[Parsed, ...] = ()
        if isinstance(coefficients, (Tensor, np.ndarray)):
            head = (_coefficient_vector(coefficients, len(parts)),)
            prefixes = [((0, column),) for column in range(len(parts))]
        else:
            scalars = list(coefficients)
            _require_as_many(len(scalars), len(parts))
            parts = [Algebra.scaled(scalar, part) for scalar, part in zip(scalars, parts, strict=True)]
        wires = tuple(dict.fromkeys(wire for part in parts for wire in part.wires))
        sizes = [batch_size for _, _, batch_size in head] + [part.batch_size for part in parts]
        offsets = accumulate((len(part.parameters) for part in parts), initial=len(head))
        _fill(
            self,
            tuple(value for value, _, _ in head) + tuple(value for part in parts for value in part.parameters),
            ("coefficients",) * len(head) + tuple(kind for part in parts for kind in part.parameter_kinds),
            "".join([layout for _, layout, _ in head] + [part.parameter_layout for part in parts]),
            join_batches(sizes, "Hamiltonian", wires),
            wires,
            tuple(
                _shifted(product, offset, prefix)
                for part, offset, prefix in zip(parts, offsets, prefixes, strict=False)
                for product in part._products
            ),
        )

    @staticmethod
    def from_pennylane(op: Any) -> Observable:
        """The observable of a PennyLane operator: Pauli operators, matrices, projectors, and their products and sums.

        In a sum of Pauli words, equal words are merged and the coefficients are one parameter; coefficients that are
        tensors are a parameter each and keep their gradients.

        Raises:
            ImportError: PennyLane is not installed.
            TypeError: the argument is no operator of PennyLane, or a tensor is not real.
            ValueError: a coefficient is not real.
            NotImplementedError: ketgrad has no such observable.

        >>> import ketgrad as kg, pennylane as qml
        >>> kg.Hamiltonian.from_pennylane(0.5 * qml.Z(0) @ qml.Z(1) - qml.X(0))
        <observable c0[0]*Z(0) @ Z(1) + c0[1]*X(0)>
        """
        from ..interop.pennylane import observable_from_pennylane

        return observable_from_pennylane(op)

    @staticmethod
    def from_qiskit(op: Any, coefficients: Sequence[Any] | Array | Tensor | None = None) -> Hamiltonian:
        """The Hamiltonian of a Qiskit `SparsePauliOp`, with qubit i, the i-th letter from the right, as wire i.

        Args:
            op: with T terms and real coefficients.
            coefficients: used instead of the operator's own, in the order of its terms, as for the constructor: with a
                tensor `(T,)` or `(B, T)` that requires grad they are trainable.

        Raises:
            ImportError: Qiskit is not installed.
            TypeError: the argument is no `SparsePauliOp`, or has symbolic coefficients.
            ValueError: a coefficient is not real, or coefficients and terms differ in number.

        >>> import ketgrad as kg
        >>> from qiskit.quantum_info import SparsePauliOp
        >>> kg.Hamiltonian.from_qiskit(SparsePauliOp(["IZ", "XY"], [0.5, 2.0])).terms[1].word
        ((0, 'Y'), (1, 'X'))
        """
        from ..interop.qiskit import hamiltonian_from_qiskit

        return hamiltonian_from_qiskit(op, coefficients)

    @staticmethod
    def from_openfermion(op: Any, coefficients: Sequence[Any] | Array | Tensor | None = None) -> Hamiltonian:
        """The Hamiltonian of an OpenFermion `QubitOperator`, with qubit i as wire i.

        Args:
            op: with T terms and real coefficients.
            coefficients: as in `from_qiskit`, in the order of `op.terms`.

        Raises:
            TypeError: the argument is no `QubitOperator` (map fermionic operators to qubits first), or has symbolic
                coefficients.
            ValueError: a coefficient is not real, or coefficients and terms differ in number.
        """
        from ..interop.openfermion import hamiltonian_from_openfermion

        return hamiltonian_from_openfermion(op, coefficients)


def _coefficient_vector(value: Array | Tensor, count: int) -> Parsed:
    vector = value if isinstance(value, Tensor) else to_array(value, "Hamiltonian", (), "coefficients")
    if vector.is_complex() if isinstance(vector, Tensor) else vector.dtype.kind == "c":
        raise TypeError(f"Hamiltonian: the coefficients must be real, not of dtype {vector.dtype}")
    if vector.ndim not in (1, 2):
        shape = tuple(vector.shape)
        raise ValueError(f"Hamiltonian: the coefficients must be of shape (T,) or (B, T), not {shape}")
    _require_as_many(vector.shape[-1], count)
    is_batched = vector.ndim == 2
    return vector, ParameterLayout.of(vector, is_batched), vector.shape[0] if is_batched else None


def _require_as_many(coefficients: int, observables: int) -> None:
    if coefficients != observables:
        raise ValueError(f"Hamiltonian: {coefficients} coefficients for {observables} observables")


# ---------------------------------------------------------------------------------------------------------------------
# Normal form


def _real_terms(observable: Observable) -> tuple[Term, ...]:
    """The products with like ones merged; imaginary parts of the scales must cancel and are dropped."""
    if len(observable._products) == 1 and isinstance(observable._products[0].scale, float):
        return (_real(observable._products[0]),)
    # Before merging, because the tolerance is relative to the summands.
    _require_hermitian(observable, [product for product in observable._products if complex(product.scale).imag])
    merged: dict[Any, _Product] = {}
    for product in observable._products:
        key = frozenset(product.word), frozenset(product.factors), product.coefficients
        before = merged.get(key)
        merged[key] = product if before is None else before._replace(scale=before.scale + product.scale)
    found = [_real(product) for product in merged.values() if complex(product.scale).real]
    return tuple(found) or (Term(0.0, (), (), ()),)


def _real(product: _Product) -> Term:
    return Term(complex(product.scale).real, product.coefficients, product.word, product.factors)


def _require_hermitian(observable: Observable, products: list[_Product]) -> None:
    """Raise ValueError unless imaginary parts cancel for all values of the parameters that are not constants."""
    sums: dict[Any, complex] = {}
    largest = 0.0
    for product in products:
        weight, names = complex(product.scale).imag, []
        for index, column in product.coefficients:
            value = observable.parameters[index]
            if isinstance(value, float):
                weight *= value
            elif observable.parameter_layout[index] == ParameterLayout.ARRAY:
                weight *= float(value[column])
            else:
                names.append((id(value), column))
        factors = frozenset(f._replace(parameter=id(observable.parameters[f.parameter])) for f in product.factors)
        key = frozenset(product.word), factors, tuple(sorted(names))
        sums[key] = sums.get(key, 0.0) + weight
        largest = max(largest, abs(weight))
    for (letters, _, _), total in sums.items():
        if abs(total) > 1e-12 * largest:
            shown = " ".join(f"{letter}({wire!r})" for wire, letter in letters) or "the identity"
            raise ValueError(f"the product of observables is not Hermitian: {shown} has an imaginary coefficient")


# ---------------------------------------------------------------------------------------------------------------------
# Text


def describe(observable: Observable, most: int = 6) -> str:
    """The linear combination in one line, truncated to `most` terms."""
    shown = [_described(product, observable) for product in observable._products[:most]]
    left_out = len(observable._products) - len(shown)
    return " + ".join([*shown, f"… ({left_out} more)"] if left_out else shown).replace("+ -", "- ")


def _described(product: _Product, observable: Observable) -> str:
    scalars = [] if product.scale == 1 else [f"{product.scale:.6g}"]
    for index, column in product.coefficients:
        value = observable.parameters[index]
        name = f"{value:.6g}" if isinstance(value, float) else f"c{index}"
        scalars.append(name if observable.parameter_kinds[index] == "coefficient" else f"{name}[{column}]")
    operators = [f"{letter}({wire!r})" for wire, letter in product.word]
    operators += [factor_label(factor) + f"({', '.join(map(repr, factor.wires))})" for factor in product.factors]
    return "*".join([*scalars, " @ ".join(operators) or "I"])


def factor_label(factor: Factor) -> str:
    """A short name of a factor: 'Hermitian', '|01⟩⟨01|', '|ψ⟩⟨ψ|', 'Sparse' or 'Diagonal'."""
    if factor.kind == "projector":
        bits = "".join(map(str, factor.bits))
        return f"|{bits}⟩⟨{bits}|"
    labels = {"hermitian": "Hermitian", "state_projector": "|ψ⟩⟨ψ|", "sparse": "Sparse", "diagonal": "Diagonal"}
    return labels[factor.kind]


def __dir__() -> list[str]:
    return sorted(__all__)
