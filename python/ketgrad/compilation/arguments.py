"""The arguments of a compiled function: the tensors among them, and the key of their compiled plan."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..native import operators
from ..native.torch_private import (
    FakeTensor,
    FunctionalTensor,
    get_unwrapped,
    is_batchedtensor,
    is_functorch_wrapped_tensor,
    maybe_get_bdim,
    pytree,
)
from .front_ends import operators_front_end

WITHOUT_VALUES = (FakeTensor, FunctionalTensor)
"""The tensor subclasses with which torch.compile and torch.export trace."""

Key = tuple[Any, ...]


class Arguments(NamedTuple):
    """The arguments of a call.

    Attributes:
        args, kwargs: as they were passed.
        static: everything but the tensors, in a hashable form; None: there are only tensors, not nested.
        tensors: the tensors among them, in order.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    static: Hashable
    tensors: tuple[Tensor, ...]

    @property
    def others(self) -> list[Any]:
        """The leaves that are no tensors."""
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if not isinstance(leaf, Tensor)]

    def with_tensors(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Args and kwargs with these tensors replaced by others, in order."""
        args, kwargs = replace_tensors((self.args, self.kwargs), iter(tensors))
        return args, kwargs


def tensors_key(tensors: Sequence[Any]) -> Key | None:
    """The guards of tensors; None if an item is no tensor."""
    try:
        return tuple([(t.shape, t.dtype, t.requires_grad, t.device, t.layout) for t in tensors])
    except AttributeError:
        return None


def key_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Hashable, tuple[Tensor, ...], Key]:
    """What is static of the arguments (None: there are only tensors, not nested), the tensors, and the guards of both.

    Raises:
        TypeError: as `flatten`.
    """
    key = None if kwargs else tensors_key(args)
    if key is not None:
        return None, args, key
    static, tensors = flatten(args, kwargs)
    return static, tensors, (static, tensors_key(tensors))


def flatten(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Hashable, tuple[Tensor, ...]]:
    """The arguments without their tensors in a hashable form, and the tensors.

    Raises:
        TypeError: an argument is neither a tensor nor hashable, or is an operator of a library with tensors as
            parameters.
    """
    tensors: list[Tensor] = []
    return _static_part((args, kwargs), tensors), tuple(tensors)


def _static_part(item: Any, tensors: list[Tensor]) -> Hashable:
    if isinstance(item, Tensor):
        tensors.append(item)
        return Tensor
    if isinstance(item, (tuple, list)):
        return (type(item), *[_static_part(part, tensors) for part in item])
    if isinstance(item, dict):
        return (type(item), *[(key, _static_part(part, tensors)) for key, part in item.items()])
    front_end = operators_front_end(item)
    if front_end is not None and any(isinstance(parameter, Tensor) for parameter in item.data):
        raise TypeError(
            f"an argument of a compiled function is {item.name} of {front_end.title} with tensors as parameters; pass "
            "the tensors, and build the operator in the function"
        )
    try:
        if isinstance(item, np.ndarray):  # PennyLane's are hashable
            raise TypeError
        hash(item)
    except TypeError:
        raise TypeError(
            f"an argument of type {type(item).__name__} is neither a tensor nor hashable; a compiled function takes "
            "tensors (torch.as_tensor) and, as part of the circuit's structure, numbers, strings and the like"
        ) from None
    return type(item), item


def replace_tensors(item: Any, tensors: Iterator[Tensor]) -> Any:
    """Nested arguments with their tensors replaced by others, in order."""
    if isinstance(item, Tensor):
        return next(tensors)
    if isinstance(item, (tuple, list)):
        parts = [replace_tensors(part, tensors) for part in item]
        return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
    if isinstance(item, dict):
        return {key: replace_tensors(part, tensors) for key, part in item.items()}
    return item


# --- stand-ins for tensors while tracing ------------------------------------------------------------------------------


def plain_tensor(tensor: Tensor) -> Tensor:
    """A tensor without functorch's wrappers and tangents, of the wrapper's shape; fake tensors become real ones."""
    axes = []  # each is an axis of what its wrapper wraps, where axes of deeper wrappers do not show: those go first
    while is_functorch_wrapped_tensor(tensor):
        if is_batchedtensor(tensor):
            axes.append(maybe_get_bdim(tensor))
        tensor = get_unwrapped(tensor)
    for axis in reversed(axes):
        tensor = tensor.select(axis, 0)
    if isinstance(tensor, WITHOUT_VALUES):
        return _real_example(tensor)
    if not operators.is_transforming():
        return tensor
    primal: Tensor = forward_ad.unpack_dual(tensor).primal
    return primal.detach().requires_grad_(tensor.requires_grad)


def _real_example(tensor: Tensor) -> Tensor:
    """A real tensor of NaN like a fake one; of a symbolic size the hint is taken."""
    sizes = [getattr(getattr(size, "node", None), "hint", size) for size in tensor.shape]
    value = float("nan") if tensor.is_floating_point() or tensor.is_complex() else 0
    example = torch.full(sizes, value, dtype=tensor.dtype, device=tensor.device)
    return example.requires_grad_(tensor.requires_grad)


def alias(tensor: Tensor, rows: int | None = None) -> Tensor:
    """A new tensor object for an argument of a trace, with the same values; with `rows`, rows repeated to so many."""
    with torch.no_grad():
        if rows is not None:
            made = tensor.index_select(0, torch.arange(rows, device=tensor.device) % tensor.shape[0])
        else:
            made = tensor.clone() if tensor.is_inference() else tensor.detach()
    return made.requires_grad_(tensor.requires_grad)
