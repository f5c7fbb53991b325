"""Parsing of the wires and parameters that constructors of operations and observables are given.

A wire becomes a label, a parameter a value with a layout. Invalid ones raise an error that names the operation. Values
are checked if that needs no synchronisation (see `check_values`).
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..native.library import _C
from ..native.torch_private import (
    DisableFunctorch,
    DisableTorchFunction,
    is_functorch_wrapped_tensor,
    len_dispatch_stack,
)
from .types import Array, Parameter, ParameterLayout, Wire, Wires

_set = object.__setattr__
_Immutable = TypeVar("_Immutable", bound="Immutable")


class Immutable:
    """A base class whose attributes are set only by the constructor."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be set, build a new one")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: {name!r} cannot be deleted")


def restore(cls: type[_Immutable], values: dict[str, Any]) -> _Immutable:
    """An object with the given attributes, without calling the constructor: for pickle, copy and `ctrl`."""
    found = cls.__new__(cls)
    for name, value in values.items():
        _set(found, name, value)
    return found


class Missing:
    """The type of `MISSING`, the default of required arguments, so that constructors raise their own message."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Any = Missing()


_Function = TypeVar("_Function", bound=Callable[..., Any])


def hide_rest(function: _Function) -> _Function:
    """Hide `*args` and `**kwargs`, which only catch surplus arguments, from the signature that `help` shows."""
    written = signature(function)
    shown = [each for each in written.parameters.values() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    function.__signature__ = written.replace(parameters=shown)  # type: ignore[attr-defined]
    return function


# ---------------------------------------------------------------------------------------------------------------------
# Wires


def parse_wires(wires: Wires, what: str) -> tuple[Wire, ...]:
    """The wires as a tuple of distinct labels.

    Raises:
        TypeError: a label is a float, a bool, None, a tensor or anything else that cannot name a wire.
        ValueError: a wire is repeated.
    """
    if type(wires) is int:
        return (wires,)
    if type(wires) in (list, tuple):
        plain: tuple[Any, ...] = tuple(wires)  # type: ignore[arg-type]
        if len(plain) == 1 and type(plain[0]) is int:
            return plain
        if len(plain) == 2 and type(plain[0]) is type(plain[1]) is int and plain[0] != plain[1]:
            return plain
        if _INTEGERS.issuperset(map(type, plain)) and len(set(plain)) == len(plain):
            return plain
    if isinstance(wires, (str, bytes)):
        return (wires,)
    found = tuple(_label(wire, what) for wire in _listed(wires, what))
    if len(set(found)) != len(found):
        repeated = next(wire for wire in found if found.count(wire) > 1)
        raise ValueError(f"{what}: wire {repeated!r} is repeated in {list(found)}; wires must be distinct")
    return found


_INTEGERS = frozenset({int})


def _listed(wires: Any, what: str) -> Iterable[Any]:
    if isinstance(wires, Tensor):
        raise TypeError(f"{what}: wires must be integers or strings, not a tensor; use wires.tolist()")
    if isinstance(wires, np.ndarray):
        return wires.reshape(-1) if wires.ndim < 2 else (wires,)
    if isinstance(wires, (Sequence, range)) or (isinstance(wires, Iterable) and hasattr(wires, "__len__")):
        if not isinstance(wires, (set, frozenset, dict)):
            return wires
        raise TypeError(f"{what}: wires must come in an order, not as a {type(wires).__name__}; use a list")
    return (wires,)


def _label(wire: Any, what: str) -> Wire:
    if type(wire) is int or isinstance(wire, str):
        return wire
    if not isinstance(wire, (bool, np.bool_)):
        if isinstance(wire, (int, np.integer)):
            return int(wire)
        if not isinstance(wire, _NO_LABELS) and _hashable(wire):
            return wire  # type: ignore[no-any-return]
    allowed = "a wire is an integer, a string or another hashable label"
    raise TypeError(f"{what}: {allowed}, not {wire!r} of type {type(wire).__name__}")


_NO_LABELS = (type(None), numbers.Number, Tensor, np.ndarray)


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def place(name: str, wires: tuple[Wire, ...]) -> str:
    """The name of an operation in messages: 'RX on wire 0', 'CNOT on wires [0, 1]'."""
    if len(wires) == 1:
        return f"{name} on wire {wires[0]!r}"
    return f"{name} on wires {list(wires)}" if wires else name


# ---------------------------------------------------------------------------------------------------------------------
# Parameters as (value, layout, batch size or None)

Parsed = tuple[Parameter, ParameterLayout, "int | None"]


def scalar_parameter(value: Any, name: str, wires: tuple[Wire, ...], noun: str = "angle") -> Parsed:
    """A real scalar `()` or a batch `(B,)` of them.

    Raises:
        TypeError: the value is complex, or no number, array or dense tensor.
        ValueError: the value has two axes or more.
    """
    if type(value) is float:
        return value, ParameterLayout.NUMBER, None
    if isinstance(value, Tensor):
        with DisableTorchFunction():  # a trace of kg.compile need not see what is read here
            if value.is_complex():
                raise TypeError(f"{place(name, wires)}: the {noun} must be real, not of dtype {value.dtype}")
            if value.layout is not torch.strided:
                raise TypeError(f"{place(name, wires)}: the {noun} must be a dense tensor, not {value.layout}")
            axes = value.dim()
            if axes == 0:
                return value, ParameterLayout.TENSOR, None
            if axes == 1:
                return value, ParameterLayout.BATCHED_TENSOR, value.shape[0]
    elif isinstance(value, numbers.Real):
        return _as_float(value, name, wires, noun), ParameterLayout.NUMBER, None
    else:
        value = to_array(value, name, wires, noun)
        if value.dtype.kind == "c":
            raise TypeError(f"{place(name, wires)}: the {noun} must be real, not of dtype {value.dtype}")
        if value.ndim == 0:
            return float(value), ParameterLayout.NUMBER, None
        if value.ndim == 1:
            return value, ParameterLayout.BATCHED_ARRAY, value.shape[0]
    shape = tuple(value.shape)
    raise ValueError(f"{place(name, wires)}: the {noun} must be a scalar () or a batch (B,), not of shape {shape}")


def _as_float(value: Any, name: str, wires: tuple[Wire, ...], noun: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{place(name, wires)}: the {noun} is beyond the largest number in double precision") from None


def to_array(value: Any, name: str, wires: tuple[Wire, ...], noun: str) -> Array:
    """A copy of a list or an array in a dtype that torch has; integers become float64.

    It is a copy so that the caller may change the array later.

    Raises:
        TypeError: the value is missing, or no number, list of numbers or array.
        ValueError: a list is ragged, or an integer is larger than the largest float64.
    """
    if value is MISSING:
        raise TypeError(f"{place(name, wires)}: the {noun} is missing")
    expected = f"a number, a list of numbers, an array or a tensor, not {type(value).__name__}"
    if isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
        expected = "one tensor, not a list of tensors; use torch.stack"
    elif isinstance(value, (list, tuple, np.ndarray, np.generic, numbers.Number)):
        try:
            array = np.asarray(value)
        except ValueError:
            raise ValueError(f"{place(name, wires)}: the {noun} is a list of uneven length") from None
        if array.dtype.kind == "O" and all(isinstance(item, int) for item in array.flat):
            array = np.array([_as_float(item, name, wires, noun) for item in array.flat]).reshape(array.shape)
        if array.dtype.kind in "biufc":
            return np.array(array, dtype=_torch_dtype(array.dtype))
        expected = f"a number, a list of numbers, an array or a tensor, not an array of dtype {array.dtype}"
    raise TypeError(f"{place(name, wires)}: the {noun} must be {expected}")


def _torch_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind in "biu":
        return np.dtype(np.float64)
    widest = 16 if dtype.kind == "c" else 8
    return np.dtype(f"{dtype.kind}{min(dtype.itemsize, widest)}")


def dense_parameter(value: Any, kind: str, name: str, wires: tuple[Wire, ...]) -> Parsed:
    """A matrix `(2^k, 2^k)`, or a diagonal or state `(2^k,)`, on the k given wires, with or without a batch axis.

    Raises:
        TypeError: the value is no dense array or tensor of numbers.
        ValueError: the shape does not match the wires.
    """
    if isinstance(value, Tensor):
        if value.layout is not torch.strided:
            raise TypeError(f"{place(name, wires)}: the {kind} must be a dense tensor, not {value.layout}")
    else:
        value = to_array(value, name, wires, kind)
    size = 1 << len(wires)
    single = (size, size) if kind == "matrix" else (size,)
    shape = value.shape
    if shape == single:
        return value, ParameterLayout.of(value, False), None
    if len(shape) == len(single) + 1 and shape[1:] == single:
        return value, ParameterLayout.of(value, True), shape[0]
    batched = "(B, " + ", ".join(map(str, single)) + ")"
    raise ValueError(f"{place(name, wires)}: the {kind} must have shape {single} or {batched}, not {tuple(shape)}")


def real_diagonal(value: Any, name: str, wires: tuple[Wire, ...]) -> Parsed:
    """A real diagonal `(2^k,)` or `(B, 2^k)` on the k given wires.

    Raises:
        TypeError: the value is complex, or no dense array or tensor of numbers.
        ValueError: the shape does not match the wires.
    """
    found = dense_parameter(value, "diagonal", name, wires)
    diagonal = found[0]
    if diagonal.is_complex() if isinstance(diagonal, Tensor) else np.iscomplexobj(diagonal):
        raise TypeError(f"{place(name, wires)}: the diagonal must be real, not of dtype {diagonal.dtype}")  # type: ignore[union-attr]
    return found


def join_batches(sizes: Iterable[int | None], name: str, wires: tuple[Wire, ...]) -> int | None:
    """The batch size that all batched parameters have; None if no parameter is batched.

    Raises:
        ValueError: two batch sizes differ.
    """
    found: int | None = None
    for size in sizes:
        if size is not None:
            if found is not None and size != found:
                message = f"its parameters have batches of {found} and of {size}; they must agree"
                raise ValueError(f"{place(name, wires)}: {message}")
            found = size
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Checks of values

# Large enough for gradcheck, which perturbs entries by 1e-6 in float64, and for matrices rounded to their dtype.
_TOLERANCES = {
    torch.float16: 2e-2,
    torch.bfloat16: 1e-1,
    torch.complex32: 2e-2,
    torch.float32: 1e-4,
    torch.complex64: 1e-4,
}
_HALF = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.complex32: torch.complex64}


def check_values(
    value: Parameter, deviation: Callable[[Array], float], must: str, name: str, wires: tuple[Wire, ...]
) -> None:
    """Raise ValueError if the deviation of a readable value, the largest of a batch, exceeds its dtype's tolerance.

    Values on other devices than the CPU, and under tracing or transforms of torch, are not read and not checked. NaN
    and infinities pass, so that they propagate as they do in torch. The deviation is that of an array: neither autograd
    nor a trace of kg.compile records it.
    """
    if _readable(value):
        _require_small(deviation(_as_array(value)), value, must, name, wires)


def _require_small(found: float, value: Parameter, must: str, name: str, wires: tuple[Wire, ...]) -> None:
    tolerance = _TOLERANCES.get(value.dtype, 1e-5) if isinstance(value, Tensor) else 1e-5
    if found > tolerance:
        off = f"it is off by {found:.2g} (the tolerance is {tolerance:.0e})"
        raise ValueError(f"{place(name, wires)}: {must}; {off}")


def largest(deviations: Array) -> float:
    """The largest of some deviations; NaN and infinities count as none."""
    return float(np.max(deviations, initial=0.0, where=np.isfinite(deviations)))


def _as_array(value: Parameter) -> Array:
    if not isinstance(value, Tensor):
        return np.asarray(value)
    with DisableTorchFunction(), DisableFunctorch():  # transforms would wrap what is detached
        if value.dtype in _HALF:
            value = value.detach().to(_HALF[value.dtype])
        elif not (value.is_floating_point() or value.is_complex()):
            value = value.to(torch.float64)  # products of small integers overflow
        return value.numpy(force=True)


def _readable(value: Parameter) -> bool:
    if not isinstance(value, Tensor):
        return True
    if torch.compiler.is_compiling() or not value.is_cpu:
        return False
    if type(value) is not Tensor and not isinstance(value, torch.nn.Parameter):
        return False
    return not is_functorch_wrapped_tensor(value) and len_dispatch_stack() == 0


_LARGEST_SMALL = 16
"""Products of larger matrices than this are NumPy's."""


def check_unitary(value: Parameter, name: str, wires: tuple[Wire, ...]) -> None:
    """Raise ValueError if a readable matrix is not unitary."""
    if _readable(value):
        _require_small(_unitary_deviation(value), value, "the matrix must be unitary", name, wires)


def _unitary_deviation(value: Parameter) -> float:
    size = value.shape[-1]  # type: ignore[union-attr]
    if size <= _LARGEST_SMALL:
        return _small_deviation(value, size)
    matrix = _as_array(value)
    with np.errstate(all="ignore"):
        product = matrix @ matrix.conj().swapaxes(-1, -2)
        return largest(np.abs(product - np.eye(size)).max((-1, -2)))


def _small_deviation(value: Parameter, size: int) -> float:
    """By address: to make an array of a tensor takes as long as to read a small matrix ten times."""
    if isinstance(value, Tensor):
        with DisableTorchFunction():
            is_dense = (value.dim() == 2 or value.is_contiguous()) and not (value.is_conj() or value.is_neg())
            if is_dense and value.dtype in _COMPLEX:
                count, is_double = value.numel() // (size * size), value.dtype is torch.complex128
                return _C.unitary_deviation(value.data_ptr(), is_double, count, size, *value.stride()[-2:])
    array = np.ascontiguousarray(_as_array(value), np.complex128)
    return _C.unitary_deviation(array.ctypes.data, True, array.size // (size * size), size, size, 1)


_COMPLEX = frozenset({torch.complex64, torch.complex128})


def check_unit_modulus(value: Parameter, name: str, wires: tuple[Wire, ...]) -> None:
    """Raise ValueError if an entry of a readable diagonal does not have modulus 1."""

    def deviation(diagonal: Array) -> float:
        with np.errstate(all="ignore"):
            return largest(np.abs(np.abs(diagonal) - 1).max(-1))

    check_values(value, deviation, "the entries of the diagonal must have modulus 1", name, wires)


def check_normalised(value: Parameter, name: str, wires: tuple[Wire, ...]) -> None:
    """Raise ValueError if a readable state does not have norm 1."""

    def deviation(state: Array) -> float:
        with np.errstate(all="ignore"):
            return largest(np.abs(np.linalg.norm(state, axis=-1) - 1))

    check_values(value, deviation, "the state must have norm 1", name, wires)
