"""`torch.func.vmap` of a native call: the mapped axis is folded into the call, so it stays one call."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..native.library import _C


class VmapFold:
    """Folds an axis of N mapped calls of B circuits each into one call, with K copies of the circuits or without.

    If an input is mapped, the call has N · B circuits. Otherwise the calls differ in cotangents and tangents only: the
    call has N · K copies of its B circuits (see `operators.run_execute_vjp`), and inputs and kets stay as they are.

    Args:
        count: N, the size of the mapped axis.
        program: the id of the call's program.
        dims, inputs: the inputs of the call, and the axis of each that is mapped (None: not mapped).
        copies: K, if the call has copies already.

    Attributes:
        inputs: the inputs of the folded call, each (N · B, …), or unchanged.
    """

    def __init__(
        self,
        count: int,
        program: int,
        dims: Sequence[int | None],
        inputs: Sequence[Tensor],
        copies: int | None = None,
    ) -> None:
        self.count = count
        self.batch = 1
        self.copies = copies
        self.is_mapped = any(dim is not None for dim in dims)
        self.is_batched: list[bool] = []
        for tensor, dim, axes in zip(inputs, dims, _C.find_program(program).input_axes(), strict=True):
            is_batched = tensor.dim() - (dim is not None) > axes
            self.is_batched.append(is_batched)
            if is_batched:
                self.batch = tensor.shape[0] if dim is None else _to_front(tensor, dim).shape[1]
        self.inputs = list(inputs)
        if self.is_mapped:
            self.inputs = [self._fold_input(i, t, dim) for i, (t, dim) in enumerate(zip(inputs, dims, strict=True))]

    def _fold_input(self, index: int, tensor: Tensor, dim: int | None) -> Tensor:
        if dim is None and not self.is_batched[index]:
            return tensor
        tensor = _to_front(tensor, dim)
        return self._into_batch(tensor if self.is_batched[index] else tensor.unsqueeze(1))

    def fold_ket(self, ket: Tensor, dim: int | None) -> Tensor:
        """The ket of the folded call, (N · B, 2^n) or unchanged."""
        return self._into_batch(_to_front(ket, dim)) if self.is_mapped else ket

    def fold_tangent(self, index: int, tensor: Tensor, dim: int | None) -> Tensor:
        """A tangent of an input, with copies: (K, N · B, …) or (N · K, B, …)."""
        tensor = _to_front(tensor, dim)
        if self.copies is None and not self.is_batched[index]:
            tensor = tensor.unsqueeze(1).expand(-1, self.batch, *tensor.shape[1:])
        return self._with_copies(tensor)

    def fold_cotangent(self, tensor: Tensor, dim: int | None) -> Tensor:
        """A cotangent, or its tangent, with copies as those of inputs. A zero tangent, given as (0,), stays (0,)."""
        if tensor.dim() - (dim is not None) == 1:
            return tensor.new_empty(0)
        return self._with_copies(_to_front(tensor, dim))

    def _with_copies(self, tensor: Tensor) -> Tensor:
        if tensor.shape[0] != self.count:
            tensor = tensor.expand(self.count, *tensor.shape[1:])
        if self.copies is None:
            if not self.is_mapped:
                return tensor
            tensor = tensor.unsqueeze(1)
        return tensor.transpose(0, 1).flatten(1, 2) if self.is_mapped else tensor.flatten(0, 1)

    def _into_batch(self, tensor: Tensor) -> Tensor:
        return tensor.expand(self.count, self.batch, *tensor.shape[2:]).flatten(0, 1)

    def unfold_rows(self, tensor: Tensor) -> Tensor:
        """A result of a folded call without copies, (N · B, …), as (N, B, …)."""
        return tensor.reshape(self.count, self.batch, *tensor.shape[1:])

    def unfold(self, tensor: Tensor) -> Tensor:
        """A derivative of results, (K, N · B, …) or (N · K, B, …), as (N, K, B, …), or (N, B, …) without copies."""
        rest = tensor.shape[2:]
        if self.is_mapped:
            tensor = tensor.reshape(tensor.shape[0], self.count, self.batch, *rest).transpose(0, 1)
            return tensor.squeeze(1) if self.copies is None else tensor
        return tensor if self.copies is None else tensor.unflatten(0, (self.count, self.copies))

    def unfold_gradient(self, index: int, tensor: Tensor) -> Tensor:
        """The same of a gradient; without copies in the shape of its input, (N, …), and summed if that is shared."""
        tensor = self.unfold(tensor)
        if self.copies is not None or self.is_batched[index]:
            return tensor
        return tensor.sum(1) if tensor.shape[1] > 1 else tensor.reshape(self.count, *tensor.shape[2:])


def _to_front(tensor: Tensor, dim: int | None) -> Tensor:
    """The mapped axis first; of length 1 if there is none."""
    if dim is None:
        return tensor.unsqueeze(0)
    return tensor.movedim(dim, 0) if dim else tensor
