"""The operators under functorch transforms and forward-mode differentiation.

Four functions that know each other's derivatives: `Execute` (results r), `ExecuteVjp` (gradients J^T g), `ExecuteJvp`
(J v), and `ExecuteVjpJvp` (J v and the derivative of J^T g along v), which has none. Under `vmap` each folds what is
mapped over into the native batch, so that it stays one operator call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from ..native import operators
from ..native.library import _C
from . import interpreter_levels

_Dims = tuple[Any, ...]

FORWARD_OVER_FORWARD = (
    "ketgrad has no forward-mode derivative of a forward-mode derivative (jacfwd of jacfwd, jvp of jvp): take one of "
    "the two in reverse mode, as torch.func.hessian does (jacfwd of jacrev)"
)


def _apply(function: Any, *args: Any) -> Any:
    """A function under the transforms that are left; without a node where nothing is left to differentiate it."""
    if not operators.is_transforming() and not any(isinstance(a, Tensor) and a.requires_grad for a in args):
        return function.forward(*args)
    return interpreter_levels.apply(function, *args)


# --- vmap: into the native batch --------------------------------------------------------------------------------------


class _Fold:
    """Takes the axis of vmap into the batch axis of a call: N times B circuits.

    Args:
        info, program: of the call.
        dims, inputs: the inputs, and their axes for vmap.
        own: inputs that must have a row for each circuit: whose tangents are mapped, or whose gradients are wanted,
            since those of shared inputs are summed over the batch.
    """

    def __init__(self, info: Any, program: int, dims: _Dims, inputs: Sequence[Tensor], own: Sequence[int]) -> None:
        self.count = info.batch_size
        self.batch = 1
        self.is_batched = []
        for tensor, dim, axes in zip(inputs, dims, _C.find_program(program).input_axes(), strict=True):
            is_batched = tensor.dim() - (dim is not None) > axes
            self.is_batched.append(is_batched)
            if is_batched:
                self.batch = tensor.shape[0] if dim is None else _front(tensor, dim).shape[1]
        self.has_rows = [dim is not None or b for dim, b in zip(dims, self.is_batched, strict=True)]
        for i in own:
            self.has_rows[i] = True
        self.inputs = [self.input(i, tensor, dim) for i, (tensor, dim) in enumerate(zip(inputs, dims, strict=True))]

    def input(self, index: int, tensor: Tensor, dim: int | None) -> Tensor:
        """An input, or a tangent of it: (N B, …), or as it is."""
        if not self.has_rows[index]:
            return tensor
        tensor = _front(tensor, dim)
        if dim is None:
            tensor = tensor.unsqueeze(0)
        if not self.is_batched[index]:
            tensor = tensor.unsqueeze(1)
        return self._rows(tensor)

    def rows(self, tensor: Tensor, dim: int | None) -> Tensor:
        """What always has a row a circuit: kets, cotangents. Nothing stays nothing."""
        if tensor.dim() - (dim is not None) == 1:  # of a cotangent that stands still
            return tensor.new_empty(0)
        return self._rows(_front(tensor, dim) if dim is not None else tensor.unsqueeze(0))

    def _rows(self, tensor: Tensor) -> Tensor:
        whole = (self.count, self.batch, *tensor.shape[2:])
        return (tensor if tensor.shape == whole else tensor.expand(whole)).flatten(0, 1)

    def apart(self, tensor: Tensor) -> Tensor:
        """(N, B, …) of a result."""
        return tensor.reshape(self.count, self.batch, *tensor.shape[1:])

    def gradient(self, index: int, tensor: Tensor) -> Tensor:
        """(N, …) in the shape of an input."""
        tensor = self.apart(tensor)
        return tensor if self.is_batched[index] else tensor.sum(1)


def _front(tensor: Tensor, dim: int | None) -> Tensor:
    return tensor if not dim else tensor.movedim(dim, 0)


def _tangent_of(tensor: Tensor, tangent: Tensor) -> Tensor:
    """A tangent in the precision of what it is of: torch.func's of `2.5 * x` is float64 for a float32 scalar x."""
    return tangent if tangent.dtype is tensor.dtype else tangent.to(tensor.dtype)


# --- the functions ----------------------------------------------------------------------------------------------------


@interpreter_levels.not_for_dynamo
class Execute(torch.autograd.Function):
    """(program, keep_ket, *inputs) → real, complex, ket."""

    @staticmethod
    def forward(program: int, keep_ket: bool, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return operators.run_execute(program, inputs, keep_ket)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        program, _, *tensors = inputs
        ctx.program = _C.find_program(program)  # which lives as long as the graph
        ctx.set_materialize_grads(True)
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(output[2], *tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, g_real: Tensor, g_complex: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        ket, *inputs = ctx.saved_tensors
        wanted = tuple(i for i, needed in enumerate(ctx.needs_input_grad[2:]) if needed)
        found = _apply(ExecuteVjp, ctx.program.id, wanted, ket, g_real, g_complex, *inputs)
        return (None, None, *operators.spread(found, wanted, len(inputs)))

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, *tangents: Tensor | None) -> tuple[Tensor, Tensor, None]:
        inputs = ctx.saved_tensors
        moving = tuple(i for i, tangent in enumerate(tangents) if tangent is not None)
        given = [_tangent_of(t, tangent) for t, tangent in zip(inputs, tangents, strict=True) if tangent is not None]
        real, complex_ = _apply(ExecuteJvp, ctx.program.id, moving, *inputs, *given)
        return real, complex_, None

    @staticmethod
    def vmap(info: Any, in_dims: _Dims, program: int, keep_ket: bool, *inputs: Tensor) -> tuple[Any, Any]:
        fold = _Fold(info, program, in_dims[2:], inputs, ())
        results = _apply(Execute, program, keep_ket, *fold.inputs)
        return tuple(map(fold.apart, results)), (0, 0, 0)


@interpreter_levels.not_for_dynamo
class ExecuteVjp(torch.autograd.Function):
    """(program, wanted, ket, g_real, g_complex, *inputs) → gradients of the wanted inputs.

    The ket is a cache: derivatives by the inputs include what changes through it.
    """

    @staticmethod
    def forward(
        program: int, wanted: tuple[int, ...], ket: Tensor, g_real: Tensor, g_complex: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(operators.run_execute_vjp(program, inputs, ket, g_real, g_complex, wanted))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        program, wanted, _, *tensors = inputs
        ctx.call = _C.find_program(program), wanted
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        program, wanted = ctx.call[0].id, ctx.call[1]
        g_real, g_complex, *inputs = ctx.saved_tensors
        needed = tuple(i for i, is_needed in enumerate(ctx.needs_input_grad[5:]) if is_needed)
        shape = _Shape(program, wanted, needed, len(inputs))
        still = (g_real.new_empty(0), g_complex.new_empty(0))
        found = _apply(ExecuteVjpJvp, shape, *inputs, *directions, g_real, g_complex, *still)
        return (None, None, None, *found[:2], *operators.spread(found[2:], needed, len(inputs)))

    @staticmethod
    def jvp(
        ctx: Any,
        _: None,
        __: None,
        ___: Any,
        dg_real: Tensor | None,
        dg_complex: Tensor | None,
        *tangents: Tensor | None,
    ) -> tuple[Tensor, ...]:
        program, wanted = ctx.call[0].id, ctx.call[1]
        g_real, g_complex, *inputs = ctx.saved_tensors
        moving = tuple(i for i, tangent in enumerate(tangents) if tangent is not None)
        given = [_tangent_of(t, tangent) for t, tangent in zip(inputs, tangents, strict=True) if tangent is not None]
        pairs = ((g_real, dg_real), (g_complex, dg_complex))
        slopes = [g.new_empty(0) if d is None else _tangent_of(g, d) for g, d in pairs]
        shape = _Shape(program, moving, wanted, len(inputs))
        found = _apply(ExecuteVjpJvp, shape, *inputs, *given, g_real, g_complex, *slopes)
        return tuple(found[2:])

    @staticmethod
    def vmap(
        info: Any,
        in_dims: _Dims,
        program: int,
        wanted: tuple[int, ...],
        ket: Tensor,
        g_real: Tensor,
        g_complex: Tensor,
        *inputs: Tensor,
    ) -> tuple[Any, Any]:
        fold = _Fold(info, program, in_dims[5:], inputs, wanted)
        rows = [fold.rows(t, d) for t, d in zip((ket, g_real, g_complex), in_dims[2:5], strict=True)]
        found = _apply(ExecuteVjp, program, wanted, *rows, *fold.inputs)
        return tuple(map(fold.gradient, wanted, found)), (0,) * len(wanted)


@interpreter_levels.not_for_dynamo
class ExecuteJvp(torch.autograd.Function):
    """(program, moving, *inputs, *tangents) → derivatives of the real and of the complex results."""

    @staticmethod
    def forward(program: int, moving: tuple[int, ...], *tensors: Tensor) -> tuple[Tensor, Tensor]:
        count = len(tensors) - len(moving)
        return operators.run_execute_jvp(program, tensors[:count], tensors[count:], moving)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        program, moving, *tensors = inputs
        ctx.call = _C.find_program(program), moving
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, g_real: Tensor, g_complex: Tensor) -> tuple[Tensor | None, ...]:
        # <g, J v>: by v it is J^T g, by the inputs the derivative of J^T g along v.
        program, moving = ctx.call[0].id, ctx.call[1]
        tensors = ctx.saved_tensors
        count = len(tensors) - len(moving)
        inputs = tensors[:count]
        needed = tuple(i for i, is_needed in enumerate(ctx.needs_input_grad[2 : 2 + count]) if is_needed)
        by_inputs: Sequence[Tensor] = ()
        if needed:
            shape = _Shape(program, moving, needed, count)
            still = (g_real.new_empty(0), g_complex.new_empty(0))
            by_inputs = _apply(ExecuteVjpJvp, shape, *tensors, g_real, g_complex, *still)[2:]
        no_ket = g_complex.new_empty((g_complex.shape[0], 0))
        by_tangents = _apply(ExecuteVjp, program, moving, no_ket, g_real, g_complex, *inputs)
        return (None, None, *operators.spread(by_inputs, needed, count), *by_tangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise NotImplementedError(FORWARD_OVER_FORWARD)

    @staticmethod
    def vmap(info: Any, in_dims: _Dims, program: int, moving: tuple[int, ...], *tensors: Tensor) -> tuple[Any, Any]:
        count, dims = len(tensors) - len(moving), in_dims[2:]
        mapped = [i for i, dim in zip(moving, dims[count:], strict=True) if dim is not None]
        fold = _Fold(info, program, dims[:count], tensors[:count], mapped)
        tangents = map(fold.input, moving, tensors[count:], dims[count:])
        found = _apply(ExecuteJvp, program, moving, *fold.inputs, *tangents)
        return tuple(map(fold.apart, found)), (0, 0)


class _Shape(NamedTuple):
    """What a call of `ExecuteVjpJvp` is, beside its tensors: inputs, their tangents, cotangents, their tangents."""

    program: int
    moving: tuple[int, ...]
    wanted: tuple[int, ...]
    inputs: int


@interpreter_levels.not_for_dynamo
class ExecuteVjpJvp(torch.autograd.Function):
    """(shape, *inputs, *tangents, g_real, g_complex, dg_real, dg_complex) → derivatives of results and gradients."""

    @staticmethod
    def forward(shape: _Shape, *tensors: Tensor) -> tuple[Tensor, ...]:
        g_real, g_complex, dg_real, dg_complex = tensors[-4:]
        real, complex_, gradients = operators.run_execute_vjp_jvp(
            shape.program,
            tensors[: shape.inputs],
            tensors[shape.inputs : -4],
            shape.moving,
            (g_real, g_complex),
            (dg_real, dg_complex),
            shape.wanted,
        )
        return (real, complex_, *gradients)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing is kept: it is not differentiated."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> NoReturn:
        raise NotImplementedError(operators.THIRD_DERIVATIVE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise NotImplementedError(operators.THIRD_DERIVATIVE)

    @staticmethod
    def vmap(info: Any, in_dims: _Dims, shape: _Shape, *tensors: Tensor) -> tuple[Any, Any]:
        # vmap looks for axes inside a tuple too, and a shape has none.
        dims, count = in_dims[1:], shape.inputs
        mapped = [i for i, dim in zip(shape.moving, dims[count:-4], strict=True) if dim is not None]
        fold = _Fold(info, shape.program, dims[:count], tensors[:count], (*mapped, *shape.wanted))
        tangents = map(fold.input, shape.moving, tensors[count:-4], dims[count:-4])
        rows = map(fold.rows, tensors[-4:], dims[-4:])
        found = _apply(ExecuteVjpJvp, shape, *fold.inputs, *tangents, *rows)
        results = (*map(fold.apart, found[:2]), *map(fold.gradient, shape.wanted, found[2:]))
        return results, (0,) * len(results)
