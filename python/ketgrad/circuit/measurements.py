"""Measurements: what a tape returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Never

from .observables import Observable, as_observable, describe
from .operations import Composable
from .parsing import Immutable, _set, hide_rest, parse_wires, restore
from .types import Parameter, Wire, Wires

__all__ = [
    "Measurement",
    "counts",
    "density_matrix",
    "expval",
    "probs",
    "sample",
    "state",
    "var",
]

KINDS = (
    "expval",
    "var",
    "probs",
    "state",
    "density_matrix",
    "sample",
    "counts",
)
"""The kinds of the native measurement table, which programs compute, then those that are sampled."""


class Measurement(Immutable):
    """A measurement of a tape; built by `expval`, `var`, `probs`, `state`, `density_matrix`, `sample` and `counts`.

    Attributes:
        kind: the name of the function that built it.
        observable: what is measured, None for a measurement of wires.
        wires: the measured wires; `()` without an observable means all wires of the tape.
    """

    __slots__ = ("_structure", "kind", "observable", "wires")

    _structure: tuple[Any, ...] | None
    kind: str
    observable: Observable | None
    wires: tuple[Wire, ...]

    def __init__(self, kind: str, observable: Any = None, wires: Wires = ()) -> None:
        if kind not in KINDS:
            raise ValueError(f"a measurement is one of {', '.join(KINDS)}, not {kind!r}")
        measured = None if observable is None else _hermitian(observable, kind)
        _set(self, "kind", kind)
        _set(self, "observable", measured)
        _set(self, "wires", parse_wires(wires, kind) if measured is None else measured.wires)
        _set(self, "_structure", None)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The observable's parameters, or `()`."""
        return () if self.observable is None else self.observable.parameters

    @property
    def batch_size(self) -> int | None:
        """B if a parameter of the observable has a leading batch axis, else None."""
        return None if self.observable is None else self.observable.batch_size

    @property
    def structure(self) -> tuple[Any, ...]:
        """Everything but the parameters' values: kind, wires, the observable's structure or None."""
        if self._structure is None:
            observable = None if self.observable is None else self.observable.structure
            _set(self, "_structure", (self.kind, self.wires, observable))
        return self._structure  # type: ignore[return-value]

    def __repr__(self) -> str:
        if self.observable is not None:
            return f"{self.kind}({describe(self.observable)})"
        return f"{self.kind}(wires={list(self.wires)})" if self.wires else f"{self.kind}()"

    def __reduce__(self) -> tuple[Any, ...]:
        values = {"kind": self.kind, "observable": self.observable, "wires": self.wires, "_structure": None}
        return restore, (Measurement, values)


def _hermitian(observable: Any, kind: str) -> Observable:
    try:
        found = as_observable(observable)
    except TypeError as error:
        raise TypeError(f"{kind}: {error}") from None
    found.terms  # noqa: B018  (raises if it is not Hermitian)
    return found


@hide_rest
def expval(op: Composable, *others: Never) -> Measurement:
    """The expectation value of an observable: real, `()` or `(B,)`.

    Raises:
        TypeError: the argument is no observable.
        ValueError: it is a product of Pauli letters that is not Hermitian.
    """
    return Measurement("expval", _given(op, others, "expval"))


@hide_rest
def var(op: Composable, *others: Never) -> Measurement:
    r"""The variance of an observable, $\langle O^2\rangle - \langle O\rangle^2$: real, `()` or `(B,)`.

    Raises:
        TypeError: the argument is no observable.
        ValueError: it is a product of Pauli letters that is not Hermitian.
    """
    return Measurement("var", _given(op, others, "var"))


@hide_rest
def probs(wires: Wires | None = None, *others: Never) -> Measurement:
    """The probabilities of the basis states of the given wires (default: all): real, `(2^k,)` or `(B, 2^k)`.

    Raises:
        TypeError: a wire is of a wrong type.
        ValueError: a wire is repeated, or the list is empty.
    """
    return Measurement("probs", wires=_some_or_all(wires, "probs", others))


@hide_rest
def state(*wires: Never) -> Measurement:
    """The state vector on all wires: complex, `(2^n,)` or `(B, 2^n)`. It takes no arguments."""
    if wires:
        raise TypeError(f"state() is the state of all wires; of {list(wires)}, density_matrix(wires={list(wires)!r})")
    return Measurement("state")


@hide_rest
def density_matrix(wires: Wires, *others: Never) -> Measurement:
    """The reduced density matrix of the given wires: complex, `(2^k, 2^k)` or `(B, 2^k, 2^k)`.

    Raises:
        TypeError: a wire is of a wrong type.
        ValueError: a wire is repeated, or the list is empty.
    """
    return Measurement("density_matrix", wires=_some_or_all(wires, "density_matrix", others))


def sample(op: Composable | None = None, wires: Wires | None = None) -> Measurement:
    """Samples of basis states of the given wires (default: all), or of the eigenvalues of an observable.

    Bits are int64, `(shots, k)` or `(B, shots, k)`; eigenvalues are real, `(shots,)` or `(B, shots)`. The tape must
    have shots.

    Raises:
        TypeError: the first argument is no observable, or a wire is of a wrong type.
        ValueError: both an observable and wires are given, or a wire is repeated.
    """
    return _sampled("sample", op, wires)


def counts(op: Composable | None = None, wires: Wires | None = None) -> Measurement:
    """The number of shots of each basis state of the given wires (default: all), or eigenvalue of an observable.

    The result is a dictionary from bit strings, or eigenvalues, to numbers of shots; with a batch, a list of B of them.
    The tape must have shots.

    Raises:
        TypeError: the first argument is no observable, or a wire is of a wrong type.
        ValueError: both an observable and wires are given, or a wire is repeated.
    """
    return _sampled("counts", op, wires)


def _sampled(kind: str, op: Any, wires: Wires | None) -> Measurement:
    if op is None:
        return Measurement(kind, wires=_some_or_all(wires, kind))
    if isinstance(op, (int, str, list, tuple, range)):
        raise TypeError(f"{kind} takes an observable first; its wires have a name: {kind}(wires=…)")
    if wires is not None:
        raise ValueError(f"{kind} takes an observable or wires, not both")
    return Measurement(kind, op)


def _some_or_all(wires: Wires | None, kind: str, others: Sequence[Any] = ()) -> tuple[Wire, ...]:
    if others:
        raise TypeError(f"{kind} takes its wires as one argument: {kind}(wires={[wires, *others]!r})")
    if wires is None:
        return ()
    found = parse_wires(wires, kind)
    if not found:
        raise ValueError(f"{kind} needs at least one wire; leave the wires out to measure all of them")
    return found


def _given(op: Any, others: Sequence[Any], kind: str) -> Any:
    if others:
        raise TypeError(f"{kind} takes one observable: write [{kind}(a), {kind}(b)], or {kind}(a @ b) for the product")
    if op is None:
        raise TypeError(f"{kind} takes an observable, not None")
    return op


def __dir__() -> list[str]:
    return sorted(__all__)
