"""`torch.func.vmap` of a native call: the mapped axis is folded into the call's batch axis, so it stays one call."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..native.library import _C


class VmapFold:
    """Folds an axis of N mapped calls into the batch axis of B circuits: one call of N · B circuits.

    Args:
        count: N, the size of the mapped axis.
        program: the id of the call's program.
        dims, inputs: the inputs of the call, and the axis of each that is mapped (None: not mapped).
        per_sample: inputs that need a row per circuit even if neither mapped nor batched: those with mapped tangents,
            and those whose gradients are requested, since the gradient of a shared input is summed over the batch.

    Attributes:
        inputs: the inputs of the folded call, each (N · B, …), or unchanged if it stays shared.
    """

    def __init__(
        self, count: int, program: int, dims: Sequence[int | None], inputs: Sequence[Tensor], per_sample: Sequence[int]
    ) -> None:
        self.count = count
        self.batch = 1
        self.is_batched: list[bool] = []
        for tensor, dim, axes in zip(inputs, dims, _C.find_program(program).input_axes(), strict=True):
            is_batched = tensor.dim() - (dim is not None) > axes
            self.is_batched.append(is_batched)
            if is_batched:
                self.batch = tensor.shape[0] if dim is None else _to_front(tensor, dim).shape[1]
        self.has_rows = [dim is not None or b for dim, b in zip(dims, self.is_batched, strict=True)]
        for i in per_sample:
            self.has_rows[i] = True
        self.inputs = [self.fold_input(i, t, dim) for i, (t, dim) in enumerate(zip(inputs, dims, strict=True))]

    def fold_input(self, index: int, tensor: Tensor, dim: int | None) -> Tensor:
        """An input of the call, or a tangent of that input: (N · B, …), or unchanged if the input stays shared."""
        if not self.has_rows[index]:
            return tensor
        tensor = _to_front(tensor, dim)
        if dim is None:
            tensor = tensor.unsqueeze(0)
        if not self.is_batched[index]:
            tensor = tensor.unsqueeze(1)
        return self._rows(tensor)

    def fold_rows(self, tensor: Tensor, dim: int | None) -> Tensor:
        """Kets or cotangents, which have a row per circuit: (N · B, …). A zero tangent, given as (0,), stays (0,)."""
        if tensor.dim() - (dim is not None) == 1:
            return tensor.new_empty(0)
        return self._rows(_to_front(tensor, dim) if dim is not None else tensor.unsqueeze(0))

    def _rows(self, tensor: Tensor) -> Tensor:
        whole = (self.count, self.batch, *tensor.shape[2:])
        return (tensor if tensor.shape == whole else tensor.expand(whole)).flatten(0, 1)

    def unfold(self, tensor: Tensor) -> Tensor:
        """A result of the folded call, (N · B, …), as (N, B, …)."""
        return tensor.reshape(self.count, self.batch, *tensor.shape[1:])

    def unfold_gradient(self, index: int, tensor: Tensor) -> Tensor:
        """A gradient of the folded call, (N · B, …), as (N, …) in the shape of the input; shared ones are summed."""
        tensor = self.unfold(tensor)
        return tensor if self.is_batched[index] else tensor.sum(1)


def _to_front(tensor: Tensor, dim: int | None) -> Tensor:
    return tensor if not dim else tensor.movedim(dim, 0)
