"""Operations: every gate and preparation, `adjoint` and `ctrl`.

Operations are immutable and cheap to build: a tape of a hundred gates is built anew in every training step. What the
native program depends on is gathered in `Operation.structure`; the values of the parameters are kept apart from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import signature
from types import FunctionType
from typing import TYPE_CHECKING, Any, ClassVar, Never, NoReturn, ParamSpec, Protocol, overload

import numpy as np
from torch import Tensor

from ._gate_docs import document
from .parsing import (
    MISSING,
    Immutable,
    _set,
    check_normalised,
    check_unit_modulus,
    check_unitary,
    dense_parameter,
    hide_rest,
    join_batches,
    parse_wires,
    place,
    real_diagonal,
    restore,
    scalar_parameter,
)
from .types import Array, Parameter, ParameterLayout, ParameterLike, Wire, Wires

if TYPE_CHECKING:
    from .observables import Algebra, Observable

__all__ = [
    "BasisState",
    "CCZ",
    "CH",
    "CNOT",
    "CPhase",
    "CRX",
    "CRY",
    "CRZ",
    "CRot",
    "CSWAP",
    "CY",
    "CZ",
    "ControlledPhaseShift",
    "DiagonalEvolution",
    "DiagonalQubitUnitary",
    "DoubleExcitation",
    "DoubleExcitationMinus",
    "DoubleExcitationPlus",
    "GlobalPhase",
    "H",
    "Hadamard",
    "ISWAP",
    "Identity",
    "IsingXX",
    "IsingXY",
    "IsingYY",
    "IsingZZ",
    "MultiRZ",
    "OPERATIONS",
    "Operation",
    "PSWAP",
    "PauliRot",
    "PauliX",
    "PauliY",
    "PauliZ",
    "PhaseShift",
    "QubitUnitary",
    "RX",
    "RY",
    "RZ",
    "Rot",
    "S",
    "SWAP",
    "SX",
    "SingleExcitation",
    "SingleExcitationMinus",
    "SingleExcitationPlus",
    "StatePrep",
    "T",
    "Toffoli",
    "U1",
    "U2",
    "U3",
    "X",
    "Y",
    "Z",
    "adjoint",
    "ctrl",
]

_Args = ParamSpec("_Args")

# ---------------------------------------------------------------------------------------------------------------------
# Bases


class Watcher(Protocol):
    """Is notified of gates and tapes: the conversion from PennyLane refuses gates of ketgrad that a QNode ignores."""

    def on_gate(self, gate: Operation) -> None:
        """A gate was constructed."""

    def on_tape(self) -> None:
        """A tape was constructed."""


_watchers: list[Watcher] = []


def tell_watchers_of_a_tape() -> None:
    """Notify the watchers that a tape was constructed."""
    for watcher in _watchers:
        watcher.on_tape()


class Composable(Immutable):
    """The base class of what can be measured: the gates X, Y, Z, H, Identity, and every `Observable`.

    `a @ b` is a product, `a + b` and `a - b` are sums, `c * a`, `a * c` and `a / c` scale by a number, a 0-d tensor or
    a batch `(B,)`. A number added to an observable is that multiple of the identity.

    Raises:
        TypeError: the other operand is no observable (`@`), no real number or tensor (`*`, `/`), or neither (`+`, `-`).
        ValueError: a scalar has another shape, batch sizes differ, or a matrix factor is multiplied with something that
            acts on one of its wires.
    """

    __slots__ = ()
    __array_ufunc__ = None  # so that NumPy leaves `array * observable` to __rmul__

    # Implements the operators; set by `observables`, which imports this module.
    _algebra: ClassVar[type[Algebra]]

    def __matmul__(self, other: Composable) -> Observable:
        return self._algebra.product(self, other)

    def __mul__(self, scalar: ParameterLike) -> Observable:
        return self._algebra.scaled(scalar, self)

    __rmul__ = __mul__

    def __truediv__(self, scalar: ParameterLike) -> Observable:
        return self._algebra.divided(self, scalar)

    def __add__(self, other: Composable | ParameterLike) -> Observable:
        return self._algebra.total(self, other)

    def __radd__(self, other: ParameterLike) -> Observable:
        return self._algebra.total(other, self)

    def __neg__(self) -> Observable:
        return self._algebra.scaled(-1.0, self)

    def __sub__(self, other: Composable | ParameterLike) -> Observable:
        return self._algebra.difference(self, other)

    def __rsub__(self, other: ParameterLike) -> Observable:
        return self._algebra.difference(other, self)


def _own_constructor(cls: type[Operation]) -> Any:
    """A copy of a class's `__init__`, qualified by the class's name, with MISSING as default of required arguments.

    So `__init__` itself refuses missing arguments, with a message that says what to write. Python's own message does
    not, and catching it would slow down every call. `help` and type checkers see the signature as written.
    """
    function: Any = cls.__init__
    optional = function.__defaults__ or ()
    required = function.__code__.co_argcount - 1 - len(optional)
    copied = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        (MISSING,) * required + optional,
        function.__closure__,
    )
    copied.__annotations__, copied.__doc__ = function.__annotations__, function.__doc__
    copied.__qualname__ = f"{cls.__name__}.__init__"
    copied.__signature__ = signature(hide_rest(function))  # type: ignore[attr-defined]
    return copied


def _refuse_call(
    op: Operation, wires: Any = MISSING, others: Sequence[Any] = (), angles: Sequence[Any] = ()
) -> NoReturn:
    """Raise TypeError for arguments that are missing or too many, with what to write."""
    usage = f"{op.name}({', '.join(signature(type(op)).parameters)})"
    if others:
        raise TypeError(f"{op.name} takes its wires as one argument, such as wires={[wires, *others]!r}: {usage}")
    if any(isinstance(each, (Sequence, np.ndarray, Tensor)) for each in angles):
        raise TypeError(f"{op.name} takes each of its angles as an argument, {op.name}(*angles, wires=…): {usage}")
    raise TypeError(f"{op.name} lacks an argument: {usage}")


class Operation(Immutable):
    """A gate or a preparation on wires, with its parameters.

    Attributes:
        parameters: the values, in the order of the constructor; `parameter_kinds` has the kind of each.
        structure: everything else that a program depends on: name, own wires, added controls, their values, inverse,
            Pauli word, bits and parameter layout.
        batch_size: B if a parameter has a leading batch axis, else None.
        wires: the added control wires, then the operation's own.

    Raises:
        TypeError: a wire is no valid label, or an angle is complex, or no number, array or tensor.
        ValueError: the number of wires is wrong, a wire is repeated, an angle is neither `()` nor `(B,)`, or batch
            sizes differ.
    """

    __slots__ = ("batch_size", "parameters", "structure", "wires")

    name: ClassVar[str]
    """The name of the class."""
    num_wires: ClassVar[int | None] = None
    """The number of the operation's own wires, built-in controls included; None for any number."""
    parameter_kinds: ClassVar[tuple[str, ...]] = ()
    """For each parameter "angle", "matrix", "diagonal", "entries" (of a real diagonal) or "state"."""
    is_preparation: ClassVar[bool] = False
    """Whether it prepares a state, which only the first operation of a tape may do."""
    is_self_inverse: ClassVar[bool] = False
    """Whether the gate is its own inverse."""

    batch_size: int | None
    parameters: tuple[Parameter, ...]
    structure: tuple[Any, ...]
    wires: tuple[Wire, ...]

    def __init__(self, *arguments: Any) -> None:
        raise TypeError(f"{type(self).__name__} is a base class: build one of the gates, such as RX(0.5, wires=0)")

    def __init_subclass__(cls) -> None:
        cls.name = cls.__name__
        if cls.__init__ is not Operation.__init__:
            cls.__init__ = _own_constructor(cls)  # type: ignore[method-assign]

    @property
    def base_wires(self) -> tuple[Wire, ...]:
        """The operation's own wires, without the controls that `ctrl` added."""
        return self.structure[1]  # type: ignore[no-any-return]

    @property
    def control_wires(self) -> tuple[Wire, ...]:
        """The wires that `ctrl` added, outermost first."""
        return self.structure[2]  # type: ignore[no-any-return]

    @property
    def control_values(self) -> tuple[bool, ...]:
        """The value of each added control wire at which the gate acts."""
        return self.structure[3]  # type: ignore[no-any-return]

    @property
    def inverse(self) -> bool:
        """Whether this is the inverse of the named gate."""
        return self.structure[4]  # type: ignore[no-any-return]

    @property
    def word(self) -> str:
        """The Pauli word of a `PauliRot`, otherwise empty."""
        return self.structure[5]  # type: ignore[no-any-return]

    @property
    def bits(self) -> tuple[int, ...]:
        """The bits of a `BasisState`, otherwise empty."""
        return self.structure[6]  # type: ignore[no-any-return]

    @property
    def parameter_layout(self) -> str:
        """One letter per parameter.

        "n": a number; "s", "b": a tensor without and with a batch axis; "N", "B": an array without and with one.
        """
        return str(self.structure[7])

    def __repr__(self) -> str:
        shown = [_shown(value) for value in self.parameters]
        shown += [repr(self.word)] if self.word else []
        shown += [str(list(self.bits))] if self.bits else []
        text = f"{self.name}({', '.join([*shown, f'wires={list(self.base_wires)}'])})"
        text = f"adjoint({text})" if self.inverse else text
        if not self.control_wires:
            return text
        values = "" if all(self.control_values) else f", control_values={[int(v) for v in self.control_values]}"
        return f"ctrl({text}, control={list(self.control_wires)}{values})"

    def __reduce__(self) -> tuple[Any, ...]:
        return restore, (type(self), {name: getattr(self, name) for name in Operation.__slots__})


def _shown(value: Parameter) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{'tensor' if isinstance(value, Tensor) else 'array'}{list(value.shape)}"


def _own_wires(op: Operation, wires: Wires, others: Sequence[Any] = ()) -> tuple[Wire, ...]:
    if others or wires is MISSING:
        _refuse_call(op, wires, others)
    found = (wires,) if type(wires) is int else parse_wires(wires, op.name)
    count = op.num_wires
    if count is not None and len(found) != count:
        needs = "1 wire" if count == 1 else f"{count} wires"
        raise ValueError(f"{op.name} acts on {needs}, not on {len(found)}: {list(found)}")
    return found


def _some_wires(op: Operation, wires: Wires, others: Sequence[Any]) -> tuple[Wire, ...]:
    found = _own_wires(op, wires, others)
    if not found:
        raise ValueError(f"{op.name} needs at least one wire")
    return found


def _fill(
    op: Operation,
    wires: tuple[Wire, ...],
    parameters: tuple[Parameter, ...] = (),
    layout: str = "",
    batch_size: int | None = None,
    word: str = "",
    bits: tuple[int, ...] = (),
) -> None:
    _set(op, "parameters", parameters)
    _set(op, "batch_size", batch_size)
    _set(op, "wires", wires)
    _set(op, "structure", (op.name, wires, (), (), False, word, bits, _LETTERS.get(layout, layout)))
    if _watchers:
        for watcher in _watchers:
            watcher.on_gate(op)


# Members of an enumeration are tracked by Python's garbage collector. Tuples of plain strings and integers are not: so
# it does not go through the structures of all gates that caches keep, time and again.
_LETTERS: dict[str, str] = {layout: layout.value for layout in ParameterLayout}


class _Fixed(Operation):
    """A gate without parameters."""

    __slots__ = ()
    num_wires: ClassVar[int | None] = 1

    def __init__(self, wires: Wires, *others: Never) -> None:
        _fill(self, _own_wires(self, wires, others))


class _OneAngle(Operation):
    """A gate with one angle, `()` or `(B,)`."""

    __slots__ = ()
    num_wires = 1
    parameter_kinds = ("angle",)

    def __init__(self, phi: ParameterLike, wires: Wires, *others: Never) -> None:
        own_wires = _own_wires(self, wires, others)
        value, layout, batch_size = scalar_parameter(phi, self.name, own_wires)
        _fill(self, own_wires, (value,), layout, batch_size)


def _fill_angles(op: Operation, angles: tuple[ParameterLike, ...], wires: Wires, others: Sequence[Any]) -> None:
    own_wires = _own_wires(op, wires, others)
    try:
        values, layouts, sizes = zip(*[scalar_parameter(angle, op.name, own_wires) for angle in angles], strict=True)
    except TypeError:
        if any(angle is MISSING for angle in angles):
            _refuse_call(op, angles=angles)
        raise
    _fill(op, own_wires, values, "".join(layouts), join_batches(sizes, op.name, own_wires))


# ---------------------------------------------------------------------------------------------------------------------
# Gates without parameters


class Identity(_Fixed, Composable):
    """The identity on any number of wires, including none. A gate and an observable."""

    __slots__ = ()
    num_wires = None
    is_self_inverse = True

    def __init__(self, wires: Wires = (), *others: Never) -> None:
        super().__init__(wires, *others)


class X(_Fixed, Composable):
    """Pauli X, [[0, 1], [1, 0]]: exchanges |0⟩ and |1⟩. A gate and an observable."""

    __slots__ = ()
    is_self_inverse = True


class Y(_Fixed, Composable):
    """Pauli Y, [[0, −i], [i, 0]]. A gate and an observable."""

    __slots__ = ()
    is_self_inverse = True


class Z(_Fixed, Composable):
    """Pauli Z, diag(1, −1). A gate and an observable."""

    __slots__ = ()
    is_self_inverse = True


class H(_Fixed, Composable):
    """Hadamard, (X + Z)/√2 = [[1, 1], [1, −1]]/√2. A gate and an observable."""

    __slots__ = ()
    is_self_inverse = True


class S(_Fixed):
    """diag(1, i)."""

    __slots__ = ()


class T(_Fixed):
    """diag(1, exp(iπ/4))."""

    __slots__ = ()


class SX(_Fixed):
    """The square root of X, ½[[1+i, 1−i], [1−i, 1+i]]."""

    __slots__ = ()


class CNOT(_Fixed):
    """X on the second wire where the first is 1."""

    __slots__ = ()
    num_wires = 2
    is_self_inverse = True


class CY(_Fixed):
    """Y on the second wire where the first is 1."""

    __slots__ = ()
    num_wires = 2
    is_self_inverse = True


class CZ(_Fixed):
    """Z on the second wire where the first is 1: diag(1, 1, 1, −1)."""

    __slots__ = ()
    num_wires = 2
    is_self_inverse = True


class CH(_Fixed):
    """H on the second wire where the first is 1."""

    __slots__ = ()
    num_wires = 2
    is_self_inverse = True


class SWAP(_Fixed):
    """Exchanges two wires: |ab⟩ → |ba⟩."""

    __slots__ = ()
    num_wires = 2
    is_self_inverse = True


class ISWAP(_Fixed):
    """Exchanges two wires, with a factor i on |01⟩ and |10⟩."""

    __slots__ = ()
    num_wires = 2


class Toffoli(_Fixed):
    """X on the third wire where the first two are 1."""

    __slots__ = ()
    num_wires = 3
    is_self_inverse = True


class CCZ(_Fixed):
    """Z on the third wire where the first two are 1."""

    __slots__ = ()
    num_wires = 3
    is_self_inverse = True


class CSWAP(_Fixed):
    """Exchanges the last two wires where the first is 1."""

    __slots__ = ()
    num_wires = 3
    is_self_inverse = True


# ---------------------------------------------------------------------------------------------------------------------
# Gates with angles. Every angle is () or (B,).


class RX(_OneAngle):
    """exp(−iφX/2) = [[cos φ/2, −i sin φ/2], [−i sin φ/2, cos φ/2]]."""

    __slots__ = ()


class RY(_OneAngle):
    """exp(−iφY/2) = [[cos φ/2, −sin φ/2], [sin φ/2, cos φ/2]]."""

    __slots__ = ()


class RZ(_OneAngle):
    """exp(−iφZ/2) = diag(exp(−iφ/2), exp(iφ/2))."""

    __slots__ = ()


class PhaseShift(_OneAngle):
    """diag(1, exp(iφ))."""

    __slots__ = ()


class U1(_OneAngle):
    """diag(1, exp(iφ)), the same as `PhaseShift`."""

    __slots__ = ()


class U2(Operation):
    """[[1, −exp(iδ)], [exp(iφ), exp(i(φ+δ))]]/√2."""

    __slots__ = ()
    num_wires = 1
    parameter_kinds = ("angle",) * 2

    def __init__(self, phi: ParameterLike, delta: ParameterLike, wires: Wires, *others: Never) -> None:
        _fill_angles(self, (phi, delta), wires, others)


class U3(Operation):
    """The general gate on one wire, up to a phase.

    [[cos θ/2, −exp(iδ) sin θ/2], [exp(iφ) sin θ/2, exp(i(φ+δ)) cos θ/2]].
    """

    __slots__ = ()
    num_wires = 1
    parameter_kinds = ("angle",) * 3

    def __init__(
        self, theta: ParameterLike, phi: ParameterLike, delta: ParameterLike, wires: Wires, *others: Never
    ) -> None:
        _fill_angles(self, (theta, phi, delta), wires, others)


class Rot(Operation):
    """RZ(ω) RY(θ) RZ(φ): φ acts first."""

    __slots__ = ()
    num_wires = 1
    parameter_kinds = ("angle",) * 3

    def __init__(
        self, phi: ParameterLike, theta: ParameterLike, omega: ParameterLike, wires: Wires, *others: Never
    ) -> None:
        _fill_angles(self, (phi, theta, omega), wires, others)


class CRX(_OneAngle):
    """RX on the second wire where the first is 1."""

    __slots__ = ()
    num_wires = 2


class CRY(_OneAngle):
    """RY on the second wire where the first is 1."""

    __slots__ = ()
    num_wires = 2


class CRZ(_OneAngle):
    """RZ on the second wire where the first is 1."""

    __slots__ = ()
    num_wires = 2


class CRot(Operation):
    """`Rot` on the second wire where the first is 1."""

    __slots__ = ()
    num_wires = 2
    parameter_kinds = ("angle",) * 3

    def __init__(
        self, phi: ParameterLike, theta: ParameterLike, omega: ParameterLike, wires: Wires, *others: Never
    ) -> None:
        _fill_angles(self, (phi, theta, omega), wires, others)


class ControlledPhaseShift(_OneAngle):
    """diag(1, 1, 1, exp(iφ))."""

    __slots__ = ()
    num_wires = 2


class IsingXX(_OneAngle):
    """exp(−iφ X⊗X/2)."""

    __slots__ = ()
    num_wires = 2


class IsingYY(_OneAngle):
    """exp(−iφ Y⊗Y/2)."""

    __slots__ = ()
    num_wires = 2


class IsingZZ(_OneAngle):
    """exp(−iφ Z⊗Z/2) = diag(exp(−iφ/2), exp(iφ/2), exp(iφ/2), exp(−iφ/2))."""

    __slots__ = ()
    num_wires = 2


class IsingXY(_OneAngle):
    """exp(iφ(X⊗X + Y⊗Y)/4): cos(φ/2) on |01⟩ and |10⟩, i sin(φ/2) between them."""

    __slots__ = ()
    num_wires = 2


class PSWAP(_OneAngle):
    """Exchanges two wires, with a factor exp(iφ) on |01⟩ and |10⟩."""

    __slots__ = ()
    num_wires = 2


class SingleExcitation(_OneAngle):
    """RY(φ) between |01⟩ and |10⟩, the identity on the rest."""

    __slots__ = ()
    num_wires = 2


class SingleExcitationPlus(_OneAngle):
    """RY(φ) between |01⟩ and |10⟩, a factor exp(iφ/2) on the rest."""

    __slots__ = ()
    num_wires = 2


class SingleExcitationMinus(_OneAngle):
    """RY(φ) between |01⟩ and |10⟩, a factor exp(−iφ/2) on the rest."""

    __slots__ = ()
    num_wires = 2


class DoubleExcitation(_OneAngle):
    """RY(φ) between |0011⟩ and |1100⟩, the identity on the rest."""

    __slots__ = ()
    num_wires = 4


class DoubleExcitationPlus(_OneAngle):
    """RY(φ) between |0011⟩ and |1100⟩, a factor exp(iφ/2) on the rest."""

    __slots__ = ()
    num_wires = 4


class DoubleExcitationMinus(_OneAngle):
    """RY(φ) between |0011⟩ and |1100⟩, a factor exp(−iφ/2) on the rest."""

    __slots__ = ()
    num_wires = 4


class MultiRZ(Operation):
    """exp(−iθ Z⊗…⊗Z/2) on one or more wires."""

    __slots__ = ()
    parameter_kinds = ("angle",)

    def __init__(self, theta: ParameterLike, wires: Wires, *others: Never) -> None:
        own_wires = _some_wires(self, wires, others)
        value, layout, batch_size = scalar_parameter(theta, self.name, own_wires)
        _fill(self, own_wires, (value,), layout, batch_size)


class PauliRot(Operation):
    """exp(−iθP/2) for a Pauli word P such as "XIZ", with one letter I, X, Y or Z per wire.

    Raises:
        TypeError: the Pauli word is no string.
        ValueError: the Pauli word has other letters, or more or fewer letters than there are wires.
    """

    __slots__ = ()
    parameter_kinds = ("angle",)

    def __init__(self, theta: ParameterLike, pauli_word: str, wires: Wires, *others: Never) -> None:
        own_wires = _some_wires(self, wires, others)
        where = place(self.name, own_wires)
        if not isinstance(pauli_word, str):
            raise TypeError(f"{where}: the Pauli word must be a string, not {type(pauli_word).__name__}")
        if not set(pauli_word) <= set("IXYZ"):
            raise ValueError(f"{where}: the Pauli word must be of the letters I, X, Y, Z, not {pauli_word!r}")
        if len(pauli_word) != len(own_wires):
            raise ValueError(
                f"{where}: the word {pauli_word!r} has {len(pauli_word)} letters for {len(own_wires)} wires"
            )
        value, layout, batch_size = scalar_parameter(theta, self.name, own_wires)
        _fill(self, own_wires, (value,), layout, batch_size, word=pauli_word)


class GlobalPhase(Operation):
    """exp(−iφ) times the identity; wires are optional."""

    __slots__ = ()
    parameter_kinds = ("angle",)

    def __init__(self, phi: ParameterLike, wires: Wires | None = None, *others: Never) -> None:
        own_wires = () if wires is None and not others else _own_wires(self, wires, others)
        value, layout, batch_size = scalar_parameter(phi, self.name, own_wires)
        _fill(self, own_wires, (value,), layout, batch_size)


# ---------------------------------------------------------------------------------------------------------------------
# Matrices


class QubitUnitary(Operation):
    """A unitary matrix `(2^k, 2^k)` or `(B, 2^k, 2^k)`, real or complex, on k wires.

    Raises:
        TypeError: the matrix is no dense array or tensor of numbers.
        ValueError: its shape does not match the wires, or it is not unitary (checked on the CPU, outside tracing).
    """

    __slots__ = ()
    parameter_kinds = ("matrix",)

    def __init__(self, U: ParameterLike, wires: Wires, *others: Never) -> None:
        own_wires = _some_wires(self, wires, others)
        value, layout, batch_size = dense_parameter(U, "matrix", self.name, own_wires)
        check_unitary(value, self.name, own_wires)
        _fill(self, own_wires, (value,), layout, batch_size)


class DiagonalQubitUnitary(Operation):
    """The diagonal `(2^k,)` or `(B, 2^k)` of a unitary matrix on k wires: entries of modulus 1.

    Raises:
        TypeError: the diagonal is no dense array or tensor of numbers.
        ValueError: its shape does not match the wires, or a modulus is not 1 (checked on the CPU, outside tracing).
    """

    __slots__ = ()
    parameter_kinds = ("diagonal",)

    def __init__(self, D: ParameterLike, wires: Wires, *others: Never) -> None:
        own_wires = _some_wires(self, wires, others)
        value, layout, batch_size = dense_parameter(D, "diagonal", self.name, own_wires)
        check_unit_modulus(value, self.name, own_wires)
        _fill(self, own_wires, (value,), layout, batch_size)


class DiagonalEvolution(Operation):
    """exp(−itD) for a diagonal Hamiltonian D, such as the cost of a QAOA, in one pass over the state.

    On all wires it takes about as long as a layer of rotations, however many terms the Hamiltonian has as a sum of
    products of Z. Derivatives by t and by D are native.

    Raises:
        TypeError: the time or the diagonal is complex, or no number, dense array or tensor.
        ValueError: the shape of the diagonal does not match the wires, or batch sizes differ.
    """

    __slots__ = ()
    parameter_kinds = ("angle", "entries")

    def __init__(self, t: ParameterLike, diagonal: ParameterLike, wires: Wires, *others: Never) -> None:
        own_wires = _some_wires(self, wires, others)
        time, time_layout, time_batch = scalar_parameter(t, self.name, own_wires, "time")
        value, layout, batch_size = real_diagonal(diagonal, self.name, own_wires)
        sizes = join_batches((time_batch, batch_size), self.name, own_wires)
        _fill(self, own_wires, (time, value), time_layout + layout, sizes)


# ---------------------------------------------------------------------------------------------------------------------
# Preparations


def parse_bits(state: Any, name: str, wires: tuple[Wire, ...]) -> tuple[int, ...]:
    """One bit per wire, from a list, an integer array or tensor `(k,)`, or an integer in big-endian order.

    Raises:
        TypeError: the state is neither an integer nor a list of integers.
        ValueError: the number of bits is not that of the wires, or a bit is neither 0 nor 1.
    """
    where, count = place(name, wires), len(wires)
    if isinstance(state, (Tensor, np.ndarray)):
        state = state.tolist()
    if isinstance(state, (int, np.integer)) and not isinstance(state, bool):
        number = int(state)
        if not 0 <= number < 1 << count:
            raise ValueError(f"{where}: the basis state {number} is not in 0…{(1 << count) - 1}")
        return tuple(number >> (count - 1 - place_) & 1 for place_ in range(count))
    if not isinstance(state, (list, tuple)):
        raise TypeError(f"{where}: the basis state must be a list of bits or an integer, not {type(state).__name__}")
    for bit in state:
        if isinstance(bit, (list, tuple)) or (isinstance(bit, (np.ndarray, Tensor)) and bit.ndim):
            raise ValueError(f"{where}: the basis state must be {count} bits without a batch; StatePrep takes batches")
        if isinstance(bit, (float, complex, np.inexact, str)) or bit is None:
            raise TypeError(f"{where}: bits must be integers, not {bit!r} of type {type(bit).__name__}")
        if bit not in (0, 1):
            raise ValueError(f"{where}: bits must be 0 or 1, not {bit!r}")
    if len(state) != count:
        raise ValueError(f"{where}: the basis state has {len(state)} bits for {count} wires")
    return tuple(int(bit) for bit in state)


class BasisState(Operation):
    r"""Prepares a basis state: one bit per wire, or an integer in big-endian order. Only as a tape's first operation.

    Raises:
        TypeError: the bits are no integers.
        ValueError: a bit is neither 0 nor 1, or there are more or fewer bits than wires.
    """

    __slots__ = ()
    is_preparation = True

    def __init__(self, state: int | Sequence[int] | Array | Tensor, wires: Wires, *others: Never) -> None:
        own_wires = _some_wires(self, wires, others)
        _fill(self, own_wires, bits=parse_bits(state, self.name, own_wires))


class StatePrep(Operation):
    """Prepares a state vector `(2^k,)` or `(B, 2^k)` of norm 1 on k wires. Only as a tape's first operation.

    Raises:
        TypeError: the state is no dense array or tensor of numbers.
        ValueError: its shape does not match the wires, or its norm is not 1 (checked on the CPU, outside tracing).
    """

    __slots__ = ()
    is_preparation = True
    parameter_kinds = ("state",)

    def __init__(self, state: ParameterLike, wires: Wires, *others: Never) -> None:
        own_wires = _some_wires(self, wires, others)
        value, layout, batch_size = dense_parameter(state, "state", self.name, own_wires)
        check_normalised(value, self.name, own_wires)
        _fill(self, own_wires, (value,), layout, batch_size)


PauliX, PauliY, PauliZ, Hadamard, CPhase = X, Y, Z, H, ControlledPhaseShift

_GATES: tuple[type[Operation], ...] = (
    *(Identity, X, Y, Z, H, S, T, SX, CNOT, CY, CZ, CH, SWAP, ISWAP, Toffoli, CCZ, CSWAP),
    *(RX, RY, RZ, PhaseShift, U1, U2, U3, Rot, CRX, CRY, CRZ, CRot, ControlledPhaseShift),
    *(IsingXX, IsingYY, IsingZZ, IsingXY, PSWAP, SingleExcitation, SingleExcitationPlus, SingleExcitationMinus),
    *(DoubleExcitation, DoubleExcitationPlus, DoubleExcitationMinus, MultiRZ, PauliRot, GlobalPhase),
    *(QubitUnitary, DiagonalQubitUnitary, DiagonalEvolution, BasisState, StatePrep),
)
OPERATIONS: dict[str, type[Operation]] = {gate.name: gate for gate in _GATES}
"""Every operation by its name."""
for _gate in _GATES:
    document(_gate)


# ---------------------------------------------------------------------------------------------------------------------
# Adjoint and control


@overload
def adjoint(operation: Operation) -> Operation: ...
@overload
def adjoint(operation: Sequence[Operation]) -> list[Operation]: ...
@overload
def adjoint(operation: Callable[_Args, Any]) -> Callable[_Args, Any]: ...


def adjoint(operation: Any) -> Any:
    """The inverse of a unitary operation; gates that are their own inverse are returned as they are.

    For a list of operations, the list of their inverses in reverse order. For a function that returns operations (such
    as a gate's class), the function that returns the inverse of its result.

    Raises:
        TypeError: the argument is none of these.
        ValueError: an operation is a preparation.

    >>> import ketgrad as kg
    >>> kg.adjoint([kg.RX(0.5, wires=0), kg.S(0)])
    [adjoint(S(wires=[0])), adjoint(RX(0.5, wires=[0]))]
    """
    if isinstance(operation, (list, tuple)):
        return [adjoint(each) for each in reversed(operation)]
    if _is_function(operation):
        return _after(operation, adjoint)
    _require_unitary(operation, "adjoint")
    if operation.is_self_inverse:
        return operation
    name, own_wires, controls, values, inverse, *rest = operation.structure
    return _derived(operation, (name, own_wires, controls, values, not inverse, *rest))


@overload
def ctrl(operation: Operation, control: Wires, control_values: int | Sequence[int] | None = None) -> Operation: ...
@overload
def ctrl(
    operation: Sequence[Operation], control: Wires, control_values: int | Sequence[int] | None = None
) -> list[Operation]: ...
@overload
def ctrl(
    operation: Callable[_Args, Any], control: Wires, control_values: int | Sequence[int] | None = None
) -> Callable[_Args, Any]: ...


def ctrl(operation: Any, control: Wires, control_values: int | Sequence[int] | None = None) -> Any:
    """The operation if every control wire has its control value (default: 1), else the identity.

    The controls of a controlled operation are merged, the new ones first. For a list of operations, the list of the
    controlled ones. For a function that returns operations, the function that returns its result, controlled.

    Raises:
        TypeError: the first argument is none of these, or a control is no wire.
        ValueError: an operation is a preparation, a wire is repeated, or values and control wires differ in number.
    """
    if isinstance(operation, (list, tuple)):
        return [ctrl(each, control, control_values) for each in operation]
    if _is_function(operation):
        return _after(operation, lambda found: ctrl(found, control, control_values))
    _require_unitary(operation, "ctrl")
    where = f"ctrl of {place(operation.name, operation.wires)}"
    new = parse_wires(control, where)
    for wire in new:
        if wire in operation.wires:
            raise ValueError(f"{where}: control wire {wire!r} is a wire of the operation already")
    name, own_wires, controls, values, *rest = operation.structure
    added = _control_values(control_values, len(new), where)
    return _derived(operation, (name, own_wires, new + controls, added + values, *rest))


def _is_function(given: Any) -> bool:
    return callable(given) and not isinstance(given, Immutable)


def _after(function: Callable[_Args, Any], change: Callable[[Any], Any]) -> Callable[_Args, Any]:
    @wraps(function)
    def changed(*args: _Args.args, **kwargs: _Args.kwargs) -> Any:
        return change(function(*args, **kwargs))

    return changed


def _control_values(values: Any, count: int, where: str) -> tuple[bool, ...]:
    if values is None:
        return (True,) * count
    found = tuple(values) if isinstance(values, (Sequence, np.ndarray)) else (values,)
    for value in found:
        if not isinstance(value, (bool, int, np.bool_, np.integer)) or value not in (0, 1):
            raise ValueError(f"{where}: control values must be 0, 1, False or True, not {value!r}")
    if len(found) != count:
        raise ValueError(f"{where}: {len(found)} control values for {count} control wires")
    return tuple(bool(value) for value in found)


def _require_unitary(operation: Any, function: str) -> None:
    if not isinstance(operation, Operation):
        hint = "; give it the tape's operations" if hasattr(operation, "operations") else ""
        raise TypeError(
            f"{function} takes an operation, a list of operations, or a function that returns them, not "
            f"{type(operation).__name__}{hint}"
        )
    if operation.is_preparation:
        raise ValueError(
            f"{function}: {place(operation.name, operation.wires)} is a preparation, not a unitary gate; "
            f"{gates_instead(operation)}"
        )


def gates_instead(preparation: Operation) -> str:
    """A hint for messages: the gates to write instead of a preparation."""
    if isinstance(preparation, BasisState):
        found = [X(wire) for wire, bit in zip(preparation.wires, preparation.bits, strict=True) if bit]
        return f"write {found or 'nothing'}"
    return f"write QubitUnitary(matrix, wires={list(preparation.wires)}) of a matrix whose first column is the state"


def _derived(operation: Operation, structure: tuple[Any, ...]) -> Operation:
    values = {
        "parameters": operation.parameters,
        "batch_size": operation.batch_size,
        "wires": structure[2] + structure[1],
        "structure": structure,
    }
    return restore(type(operation), values)


def __dir__() -> list[str]:
    return sorted(__all__)
