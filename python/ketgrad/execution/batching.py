"""Batching: tapes of equal structure are executed in one native call.

A `Group` is such tapes with the inputs of their call. A parameter that is the same tensor in all of them stays shared,
so that its gradient is summed natively; others are stacked along the batch axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..circuit.tape import Tape
from ..circuit.types import Parameter, ParameterLayout
from ..native.torch_private import DisableFunctorch
from .programs import InputBinding, ProgramBinding, build_program

# Dtypes that compute in complex64 and return float32 (autocast).
_HALF = (torch.float16, torch.bfloat16, torch.complex32)
_DOUBLE = (torch.float64, torch.complex128)

# Batches of tapes have tens of thousands of parameters, so their attributes are read by `map`, not in a Python loop.
_dtype_of = attrgetter("dtype")
_device_of = attrgetter("device")


class Group(NamedTuple):
    """A tape group: tapes of equal structure, dtype and device, and the inputs of their one native call.

    Attributes:
        binding: of their common structure.
        positions: of the tapes in the executed sequence.
        tapes: the tapes.
        inputs: the inputs of the call.
        shared: for each input, whether all tapes share it.
        rows: the batch size of each tape, 1 without a batch.
    """

    binding: ProgramBinding
    positions: tuple[int, ...]
    tapes: tuple[Tape, ...]
    inputs: list[Tensor]
    shared: tuple[bool, ...]
    rows: tuple[int, ...]

    @property
    def ket_bytes(self) -> int:
        """Bytes of the final states of the call."""
        return self.batch * 2 * self.inputs[0].element_size() * self.binding.ket_size

    @property
    def batch(self) -> int:
        """The number of circuits in the call."""
        return sum(self.rows)

    @property
    def has_batch(self) -> bool:
        """Whether the tapes have a batch axis."""
        return self.tapes[0].batch_size is not None


def group_tapes(tapes: Sequence[Tape], dtype: torch.dtype | None = None, share_trainable: bool = False) -> list[Group]:
    """The groups of tapes of equal structure, precision and device, in order of first appearance.

    Args:
        tapes: the tapes to execute.
        dtype: torch.float32 or torch.float64, the precision to compute in; None: that of each tape's parameters.
        share_trainable: whether a trainable tensor that all tapes of a group have stays shared. Its gradient is then
            the sum over the tapes and is returned for the first of them.

    Raises:
        ValueError: tensors of a tape are on different devices, or of different precisions without a dtype.
        MemoryError: a state does not fit.
    """
    found: dict[Any, list[int]] = {}
    for position, tape in enumerate(tapes):
        found.setdefault((tape.structure, *common_type(tape, dtype)), []).append(position)
    groups = []
    for (_, real, device), positions in found.items():
        groups.append(_group([tapes[i] for i in positions], positions, real, device, share_trainable))
    return groups


def _group(
    tapes: list[Tape], positions: list[int], real: torch.dtype, device: torch.device, share_trainable: bool
) -> Group:
    binding = build_program(tapes[0], device.type)
    rows = tuple(1 if tape.batch_size is None else tape.batch_size for tape in tapes)
    inputs, shared = [], []
    for bound in binding.inputs:
        may_share = share_trainable or not bound.trainable
        packed, is_shared = _input_tensor(bound, tapes, rows, real, device, may_share)
        inputs.append(packed)
        shared.append(is_shared)
    if len(tapes) > 1 and all(shared):  # the same circuit several times: one input must have the batch axis
        inputs[0] = inputs[0].expand(sum(rows), -1)
        shared[0] = False
    return Group(binding, tuple(positions), tuple(tapes), inputs, tuple(shared), rows)


# --- dtype and device -------------------------------------------------------------------------------------------------


def common_type(tape: Tape, dtype: torch.dtype | None) -> tuple[torch.dtype, torch.device]:
    """The real dtype and the device of a tape's computation.

    They are those of the tensors: float64 and complex128 compute in double precision, other floating dtypes in single.
    Numbers and NumPy arrays have no influence, and of integer tensors only the device has. The default is float64 on
    the CPU.

    Raises:
        ValueError: tensors are on different devices, single and double precision are mixed without a dtype, or dtype
            is neither float32, float64 nor None.
    """
    if dtype not in (None, torch.float32, torch.float64):
        raise ValueError(f"dtype must be torch.float32, torch.float64 or None, not {dtype}")
    try:
        (found,), (device,) = set(map(_dtype_of, tape.parameters)), set(map(_device_of, tape.parameters))
        if found in (torch.float32, torch.float64) and isinstance(device, torch.device):
            return dtype or found, device
    except (AttributeError, ValueError):  # not only tensors, or of several dtypes or devices
        pass
    return _common_type(tape, dtype)


def _common_type(tape: Tape, dtype: torch.dtype | None) -> tuple[torch.dtype, torch.device]:
    """The general case: parameter by parameter."""
    real, device = dtype, None
    decided: torch.dtype | None = None
    for parameter in [p for p in tape.parameters if type(p) is not float and isinstance(p, Tensor)]:
        if device is None:
            device = parameter.device
        elif parameter.device != device:
            raise ValueError(f"parameters are on different devices, {device} and {parameter.device}; move them to one")
        found = parameter.dtype
        if found is decided or dtype is not None or not (found.is_floating_point or found.is_complex):
            continue
        precision = torch.float64 if found in _DOUBLE else torch.float32
        if real is not None and precision is not real:
            raise ValueError(
                f"parameters of different precision, {decided} and {found}: convert one, or say which to compute in "
                "with dtype=torch.float32 or dtype=torch.float64"
            )
        real, decided = precision, found
    return real or torch.float64, device or torch.device("cpu")


# --- packing ----------------------------------------------------------------------------------------------------------


def _input_tensor(
    bound: InputBinding,
    tapes: list[Tape],
    rows: tuple[int, ...],
    real: torch.dtype,
    device: torch.device,
    may_share: bool,
) -> tuple[Tensor, bool]:
    """One input of a group's call, and whether the tapes share it."""
    dtype = real.to_complex() if bound.is_complex else real
    if len(tapes) == 1 or (may_share and _is_shared(bound, tapes)):
        return _tensor_of_tape(bound, tapes[0], dtype, device), True
    if bound.is_column and not bound.layout.is_batched:
        return _tensor_of_scalars(bound, tapes, rows, dtype, device), False
    packed = []
    for tape, count in zip(tapes, rows, strict=True):
        one = _tensor_of_tape(bound, tape, dtype, device)
        packed.append(one if bound.layout.is_batched else one.expand(count, *one.shape))
    return torch.cat(packed), False


def _is_shared(bound: InputBinding, tapes: list[Tape]) -> bool:
    if bound.layout.is_batched:
        return False
    first = [tapes[0].parameters[i] for i in bound.parameters]
    for tape in tapes[1:]:
        parameters = tape.parameters
        for i, value in zip(bound.parameters, first, strict=True):
            other = parameters[i]
            if other is not value and not (bound.layout is ParameterLayout.NUMBER and other == value):
                return False
    return True


def _tensor_of_tape(bound: InputBinding, tape: Tape, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One tape's parameters of an input: scalars stacked to (k,) or (B, k), or the single parameter."""
    parameters = tape.parameters
    if not bound.is_column:
        return _tensor(parameters[bound.parameters[0]], dtype, device)
    values = [parameters[i] for i in bound.parameters]
    if bound.layout is ParameterLayout.NUMBER:
        return _numbers(values, dtype, device)
    return torch.stack(_tensors(values, dtype, device), dim=-1)


def _numbers(values: list[Parameter], dtype: torch.dtype, device: torch.device) -> Tensor:
    if values and device.type == "cpu":
        return torch.tensor(values, dtype=dtype, device=device)
    return _kept_numbers(tuple(values), dtype, device)


# A copy of numbers to another device synchronises with it, and CUDA graphs cannot capture it.
@lru_cache(maxsize=1024)
def _kept_numbers(values: tuple[Parameter, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    # The cached tensor outlives active functorch transforms, so it must not be wrapped by them, nor be an inference
    # tensor, which autograd cannot save.
    with DisableFunctorch(), torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def _tensor_of_scalars(
    bound: InputBinding, tapes: list[Tape], rows: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Scalars of several tapes, (B, k), by one call of stack."""
    values = [tape.parameters[i] for tape in tapes for i in bound.parameters]
    if bound.layout is ParameterLayout.NUMBER:
        stacked = torch.tensor(values, dtype=dtype, device=device)
    else:
        stacked = torch.stack(_tensors(values, dtype, device))
    stacked = stacked.view(len(tapes), len(bound.parameters))
    if all(count == 1 for count in rows):
        return stacked
    counts = _numbers(list(rows), torch.int64, device)
    return stacked.repeat_interleave(counts, dim=0, output_size=sum(rows))  # without output_size a GPU synchronises


def _tensors(values: list[Parameter], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    if set(map(type, values)) == {Tensor} and set(map(_dtype_of, values)) == {dtype}:
        return values  # type: ignore[return-value]
    return [_tensor(value, dtype, device) for value in values]


def _tensor(value: Parameter, dtype: torch.dtype, device: torch.device) -> Tensor:
    if isinstance(value, Tensor):
        return value if value.dtype is dtype else value.to(dtype)
    return torch.as_tensor(np.asarray(value), dtype=dtype, device=device)


# --- unpacking --------------------------------------------------------------------------------------------------------


def split_results(group: Group, real: Tensor, complex_: Tensor, as_views: bool = False) -> list[tuple[Tensor, ...]]:
    """The results of each tape of a group, one per measurement, with a leading batch axis if the tape has one.

    Views are differentiable. Otherwise each result has memory of its own, which may be that of `real` or `complex_`.
    """
    layout = group.binding.result_layout
    split = layout.split_views if as_views else layout.split
    found = split(real, complex_, group.rows, group.has_batch)
    width = len(layout.results)
    return [found[first : first + width] for first in range(0, len(found), width)]


def join_cotangents(group: Group, cotangents: Sequence[Sequence[Tensor | None]]) -> tuple[Tensor, Tensor] | None:
    """Cotangents of a group's results, one list per tape, as the operator takes them: (B, R) and (B, C).

    None if no result of the group was used.
    """
    flat = [c for of_tape in cotangents for c in of_tape]
    if all(c is None for c in flat):
        return None
    return group.binding.result_layout.join(flat, group.rows, group.has_batch, group.inputs[0])


def split_gradients(group: Group, gradients: Sequence[Tensor | None]) -> list[dict[int, Tensor]]:
    """Gradients of a group's inputs (None if not requested), split into those of each tape's parameters, by index.

    The gradient of a parameter that the tapes share (see `group_tapes`) is with the first of them.
    """
    found: list[dict[int, Tensor]] = [{} for _ in group.tapes]
    for bound, is_shared, gradient in zip(group.binding.inputs, group.shared, gradients, strict=True):
        if gradient is None:
            continue
        if is_shared:
            _assign(bound, group.tapes[0], gradient, found[0])
        else:
            _assign_rows(bound, group, gradient, found)
    return found


def _assign(bound: InputBinding, tape: Tape, gradient: Tensor, found: dict[int, Tensor]) -> None:
    """Store the gradients of one tape's parameters, from one in the shape of `_tensor_of_tape`."""
    columns = gradient.unbind(-1) if bound.is_column else (gradient,)
    for index, column in zip(bound.parameters, columns, strict=True):
        found[index] = like_parameter(column, tape.parameters[index])


def _assign_rows(bound: InputBinding, group: Group, gradient: Tensor, found: list[dict[int, Tensor]]) -> None:
    if bound.is_column and not bound.layout.is_batched and len(group.tapes) == gradient.shape[0]:
        _assign_scalars(bound, group, gradient, found)
        return
    per_tape = gradient.split(list(group.rows))
    for tape, rows, into in zip(group.tapes, per_tape, found, strict=True):
        _assign(bound, tape, rows if bound.layout.is_batched else rows.sum(0), into)


def _assign_scalars(bound: InputBinding, group: Group, gradient: Tensor, found: list[dict[int, Tensor]]) -> None:
    """Store the gradients of scalars of many tapes, one row (k,) per tape, by one call of unbind."""
    indices = bound.parameters
    columns, width = gradient.reshape(-1).unbind(), len(indices)
    for first, tape, into in zip(range(0, len(columns) or 1, width or 1), group.tapes, found, strict=True):
        of_tape = columns[first : first + width]
        if set(map(_dtype_of, [tape.parameters[i] for i in indices])) != {gradient.dtype}:
            of_tape = tuple([like_parameter(g, tape.parameters[i]) for i, g in zip(indices, of_tape, strict=True)])
        into.update(zip(indices, of_tape, strict=True))


def like_parameter(gradient: Tensor, parameter: Parameter) -> Tensor:
    """A gradient in its parameter's dtype; its real part if the parameter is real."""
    if not isinstance(parameter, Tensor) or gradient.dtype is parameter.dtype:
        return gradient
    if gradient.is_complex() and not parameter.is_complex():
        gradient = gradient.real
    if not (parameter.is_floating_point() or parameter.is_complex()):
        return gradient
    return gradient.to(parameter.dtype)
