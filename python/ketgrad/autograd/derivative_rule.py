"""The derivative rule of circuits, stated once: what is saved, what is computed, and who differentiates when.

A native call computes the results r = E(x) of a program for inputs x. With the Jacobian J = ∂r/∂x, cotangents g of the
results and tangents v of the inputs, the extension has four operators that are differentiated. Each is an
`autograd.Function` here, and they are each other's derivatives:

| function        | computes               | reverse mode                     | forward mode                     |
|-----------------|------------------------|----------------------------------|----------------------------------|
| `Execute`       | r                      | by x: Jᵀ g                       | J dx                             |
| `ExecuteVjp`    | Jᵀ g                   | by g: J v; by x: ∂(Jᵀ g)/∂x · v  | Jᵀ dg + ∂(Jᵀ g)/∂x · dx          |
| `ExecuteJvp`    | J v                    | by v: Jᵀ g; by x: ∂(Jᵀ g)/∂x · v | refused (`FORWARD_OVER_FORWARD`) |
| `ExecuteVjpJvp` | J v and ∂(Jᵀ g)/∂x · v | refused (`THIRD_DERIVATIVE`)     | refused (`THIRD_DERIVATIVE`)     |

A fifth operator, `execute_and_vjp`, computes r and Jᵀ (g + c r) for a number c in one sweep. It has no derivatives, and
is called where autograd records nothing: by `value_and_grad` of compiled functions (`compilation/gradients`). Nor have
those for several programs (`native/many`): the gradients of a joint call that are differentiated again are those of
`ExecuteVjp`, program by program (`gradients_of_many`).

By x, `ExecuteVjp` needs ∂(v · Jᵀ g)/∂x, which is ∂(Jᵀ g)/∂x · v because second derivatives commute. Under `vmap` each
function stays one native call (`vmap_fold`): with more circuits if inputs are mapped, and otherwise with **copies** of
them, as for the rows of a Jacobian. Then all cotangents, tangents and their gradients are (K, B, …), those of inputs
that the batch shares too.

Who differentiates when:

| who                                      | applies the rule by                                | second derivatives   |
|------------------------------------------|----------------------------------------------------|----------------------|
| `kg.execute`, `kg.ExecuteTapes`, eager   | one node for all tapes (`execution/execute_tapes`) | `ExecuteVjp`         |
| compiled functions, eager                | a node for all native calls (`compilation/calls`)  | `ExecuteVjp`         |
| a program by its id, eager               | `Execute` as a node (`functions.execute_program`)  | `ExecuteVjp`         |
| backward with create_graph=True          | `ExecuteVjp` as a node (`program_vjp`)             | as in the table      |
| torch.func: grad, vjp, jvp, vmap, nested | the functions at each level (`interpreter_levels`) | as in the table      |
| forward mode: jacfwd, `forward_ad`       | `Execute.jvp`, `ExecuteVjp.jvp`                    | forward over reverse |
| torch.compile, AOTAutograd               | autograd of the operators (`torch_library`)        | refused              |
| torch.export                             | `execute_exported` (`torch_library`), without ket  | refused              |
| another library's `execute_fn` and `jpc` | not at all: its own functions (`_ExternalPass`)    | its own, or refused  |

The nodes of tapes and of compiled functions also pack inputs and split results, so that autograd records nothing else;
in between they call `forward` and `gradients`. For all of them:

- **Saved** are the program, which must live as long as the graph; the inputs, or the tensors that they are packed from,
  so that autograd notices changes in place; and the ket, the final states.
- **The ket is a cache**, (B, 2^n), or (B, 0) if it is not kept (see `KetPolicy`): then the backward pass recomputes
  it. It is never differentiated; second derivatives start from the inputs.
- **Gradients are requested per input**, for inputs that autograd needs; the backward sweep stops once no requested
  gradient is left. The gradient of an input that the batch shares is summed natively, in a fixed order.
- **No derivative is silently zero**: what is not differentiable raises when it is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from ..native import many, operators
from ..native.library import _C
from ..native.operators import KeepKet
from . import interpreter_levels
from .interpreter_levels import apply
from .vmap_fold import VmapFold

FORWARD_OVER_FORWARD = (
    "ketgrad has no forward-mode derivative of a forward-mode derivative (jacfwd of jacfwd, jvp of jvp): take one of "
    "the two in reverse mode, as torch.func.hessian does (jacfwd of jacrev)"
)

THIRD_DERIVATIVE = (
    "ketgrad has first and second derivatives: a second derivative of a circuit was differentiated again "
    "(create_graph=True twice, or three nested transforms)"
)

_KET_SHARE = 0.25
"""Kets are kept if they take at most this share of the free memory."""

_SMALL = 1 << 26
"""Kets of at most so many bytes are kept without a query of the free memory, which takes longer than a small call."""

_Dims = tuple[Any, ...]
_Vjp = Callable[[int, Sequence[Tensor], Tensor, Tensor, Tensor, Sequence[int]], Sequence[Tensor]]


# --- common to all paths ----------------------------------------------------------------------------------------------


class KetPolicy(NamedTuple):
    """What a forward pass keeps of the final states for the backward pass.

    Attributes:
        recompute: True: nothing, they are recomputed; False: all of them; None: all of them, if they take at most 64
            MiB or a quarter of the free memory.
        dtype: that they are kept in; None: that of the circuit. With complex64 those in complex128 are rounded, on the
            CPU.
    """

    recompute: bool | None = None
    dtype: torch.dtype | None = None

    @classmethod
    def of_options(cls, recompute: Any, ket_dtype: Any) -> KetPolicy:
        """From the options of that name.

        Raises:
            TypeError: `recompute` is not True, False or None.
            ValueError: `ket_dtype` is not torch.complex64 or None.
        """
        if recompute is not None and not isinstance(recompute, bool):
            raise TypeError(f"recompute must be True, False or None, not {recompute!r}")
        if ket_dtype not in (None, torch.complex64):
            raise ValueError(f"ket_dtype must be torch.complex64 or None (that of the circuit), not {ket_dtype!r}")
        return cls(recompute, ket_dtype)

    def keep(self, size: int, first: Tensor) -> KeepKet:
        """What a call keeps whose final states take `size` bytes in its own precision, that of its first input."""
        if self.recompute:
            return operators.NO_KET
        kept = operators.EXACT_KET
        if self.dtype is not None and first.dtype is torch.float64 and first.is_cpu:
            kept, size = operators.ROUNDED_KET, size // 2
        if self.recompute is False or torch.compiler.is_compiling():
            return kept  # a graph for all batch sizes cannot depend on the free memory
        is_small = size <= _SMALL or not first.is_cpu or size <= _KET_SHARE * _C.available_memory()
        return kept if is_small else operators.NO_KET


def forward(
    program: int, inputs: Sequence[Tensor], ket_bytes: int, kets: KetPolicy, is_differentiated: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The forward pass of a call, for nodes that call `gradients` in their backward pass.

    Args:
        program, inputs: as in `operators.run_execute`.
        ket_bytes: of the final states, in the precision of the call.
        kets: what is kept of them.
        is_differentiated: whether there will be a backward pass.

    Returns:
        Real results, complex results and the ket to save, as `operators.run_execute` returns them.
    """
    keep = kets.keep(ket_bytes, inputs[0]) if is_differentiated else operators.NO_KET
    return operators.run_execute(program, inputs, keep)


def program_vjp(
    program: int, inputs: Sequence[Tensor], ket: Tensor, g_real: Tensor, g_complex: Tensor, requested: Sequence[int]
) -> Sequence[Tensor]:
    """`operators.run_execute_vjp`, differentiable once more by inputs and cotangents."""
    operators.refuse_legacy_vmap((g_real, g_complex))
    return apply(ExecuteVjp, program, tuple(requested), ket, g_real, g_complex, *inputs)


def gradients(
    program: int,
    inputs: Sequence[Tensor],
    ket: Tensor,
    cotangents: tuple[Tensor, Tensor],
    needed: Sequence[bool],
    vjp: _Vjp = program_vjp,
) -> list[Tensor | None]:
    """The gradients of a call's inputs; None for those that are not needed.

    Args:
        program, inputs, ket, cotangents: as in `operators.run_execute_vjp`.
        needed: for each input, whether its gradient is needed.
        vjp: the function that computes them; by default one that is differentiable, in graphs the operator itself.
    """
    requested = _positions(needed)
    if not requested:
        return [None] * len(inputs)
    return _scatter(vjp(program, inputs, ket, *cotangents, requested), requested, len(inputs))


def forward_many(
    programs: many.Programs, inputs: Sequence[Tensor], ket_bytes: int, kets: KetPolicy, is_differentiated: bool
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """`forward` of several programs: results and kets as `many.run_execute_many` returns them."""
    keep = kets.keep(ket_bytes, inputs[0]) if is_differentiated else operators.NO_KET
    return many.run_execute_many(programs, inputs, keep)


def gradients_of_many(
    programs: many.Programs,
    inputs: Sequence[Tensor],
    kets: Sequence[Tensor],
    cotangents: tuple[Tensor, Tensor],
    chosen: Sequence[int],
    needed: Sequence[bool],
) -> list[Tensor | None]:
    """`gradients` of several programs, of which some are `chosen`; see `many.run_execute_vjp_many`."""
    requested = _positions(needed)
    if not requested:
        return [None] * len(inputs)
    operators.refuse_legacy_vmap(cotangents)
    if interpreter_levels.is_recorded((*inputs, *cotangents)):
        found = many.vjp_one_by_one(programs, inputs, None, cotangents, chosen, requested, program_vjp)
    else:
        found = many.run_execute_vjp_many(programs, inputs, kets, cotangents, chosen, requested)
    return _scatter(found, requested, len(inputs))


def _positions(flags: Sequence[bool]) -> tuple[int, ...]:
    return tuple([i for i, flag in enumerate(flags) if flag])


def _scatter(found: Sequence[Tensor], requested: Sequence[int], count: int) -> list[Tensor | None]:
    """The gradients of the requested inputs at their positions among all inputs, None at the others."""
    scattered: list[Tensor | None] = [None] * count
    for i, gradient in zip(requested, found, strict=True):
        scattered[i] = gradient
    return scattered


def _tangents_of(primals: Sequence[Tensor], tangents: Sequence[Tensor | None]) -> tuple[tuple[int, ...], list[Tensor]]:
    """The positions of the primals that have a tangent, and these tangents."""
    pairs = [(i, _like(t, primals[i])) for i, t in enumerate(tangents) if t is not None]
    return tuple([i for i, _ in pairs]), [tangent for _, tangent in pairs]


def _like(tangent: Tensor, primal: Tensor) -> Tensor:
    """A tangent in its primal's precision: torch.func's tangent of `2.5 * x` is float64 for a float32 scalar x."""
    return tangent if tangent.dtype is primal.dtype else tangent.to(primal.dtype)


def _copies_of(tensor: Tensor, dim: int | None, dims: int = 2) -> int | None:
    """The copies in a cotangent, or another tensor of `dims` axes without them; `dim` is an axis that is mapped."""
    return tensor.shape[int(dim == 0)] if tensor.dim() - (dim is not None) > dims else None


def _of_copies(tangents: list[Tensor], axes: Sequence[int], cotangent: Tensor) -> list[Tensor]:
    """Tangents of inputs, given in the inputs' shapes, as a call takes them whose cotangents have copies, or not."""
    if _copies_of(cotangent, None) is None:
        return tangents
    return [t.expand(*cotangent.shape[:2], *t.shape[t.dim() - a :]) for t, a in zip(tangents, axes, strict=True)]


def _sum_copies(gradients: Sequence[Tensor | None], inputs: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of inputs in the inputs' shapes, summed over copies, and over the batch if the input is shared."""
    pairs = zip(gradients, inputs, strict=True)
    return [g if g is None or g.dim() == x.dim() else g.sum_to_size(x.shape) for g, x in pairs]


def _no_tangent(tensor: Tensor) -> Tensor:
    """A tangent that is zero, as operators take it: (0,)."""
    return tensor.new_empty(0)


# --- the functions ----------------------------------------------------------------------------------------------------


@interpreter_levels.not_for_dynamo
class Execute(torch.autograd.Function):
    """(program, keep_ket, *inputs) → real results, complex results, ket."""

    @staticmethod
    def forward(program: int, keep_ket: KeepKet, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return operators.run_execute(program, inputs, keep_ket)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        program, _, *tensors = inputs
        ctx.program = _C.find_program(program)  # keeps it alive as long as the graph
        ctx.set_materialize_grads(False)  # zeros of a ket take as much memory as the ket
        ctx.sizes = [tuple(numbers.shape) for numbers in output[:2]]
        ctx.mark_non_differentiable(output[2])
        ctx.save_for_backward(output[2], *tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, g_real: Tensor | None, g_complex: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
        if g_real is None and g_complex is None:
            return (None,) * len(ctx.needs_input_grad)
        ket, *inputs = ctx.saved_tensors
        real, complex_ = ctx.sizes
        device = ket.device
        g_real = torch.zeros(real, dtype=inputs[0].dtype, device=device) if g_real is None else g_real
        g_complex = torch.zeros(complex_, dtype=ket.dtype, device=device) if g_complex is None else g_complex
        return (None, None, *gradients(ctx.program.id, inputs, ket, (g_real, g_complex), ctx.needs_input_grad[2:]))

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, *tangents: Tensor | None) -> tuple[Tensor, Tensor, None]:
        inputs = ctx.saved_tensors
        tangent_inputs, given = _tangents_of(inputs, tangents)
        real, complex_ = apply(ExecuteJvp, ctx.program.id, tangent_inputs, *inputs, *given)
        return real, complex_, None

    @staticmethod
    def vmap(info: Any, in_dims: _Dims, program: int, keep_ket: KeepKet, *inputs: Tensor) -> tuple[Any, Any]:
        fold = VmapFold(info.batch_size, program, in_dims[2:], inputs)
        results = apply(Execute, program, keep_ket, *fold.inputs)
        return tuple(map(fold.unfold_rows, results)), (0, 0, 0)


@interpreter_levels.not_for_dynamo
class ExecuteVjp(torch.autograd.Function):
    """(program, requested, ket, g_real, g_complex, *inputs) → gradients of the requested inputs.

    With copies or without. The ket has no derivative of its own: derivatives by the inputs include its dependence on
    them.
    """

    @staticmethod
    def forward(
        program: int, requested: tuple[int, ...], ket: Tensor, g_real: Tensor, g_complex: Tensor, *inputs: Tensor
    ) -> tuple[Tensor, ...]:
        return tuple(operators.run_execute_vjp(program, inputs, ket, g_real, g_complex, requested))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        program, requested, _, *tensors = inputs
        ctx.call = _C.find_program(program), requested
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        program, requested = ctx.call[0].id, ctx.call[1]
        pairs = [(i, v) for i, v in zip(requested, cotangents, strict=True) if v is not None]
        if not pairs:
            return (None,) * len(ctx.needs_input_grad)
        tangents = [v for _, v in pairs]
        operators.refuse_legacy_vmap(tangents)
        g_real, g_complex, *inputs = ctx.saved_tensors
        needed = _positions(ctx.needs_input_grad[5:])
        call = _TangentCall(program, tuple([i for i, _ in pairs]), needed, len(inputs))
        zeros = _no_tangent(g_real), _no_tangent(g_complex)
        found = apply(ExecuteVjpJvp, call, *inputs, *tangents, g_real, g_complex, *zeros)
        return (None, None, None, *found[:2], *_sum_copies(_scatter(found[2:], needed, len(inputs)), inputs))

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
        program, requested = ctx.call[0].id, ctx.call[1]
        g_real, g_complex, *inputs = ctx.saved_tensors
        tangent_inputs, given = _tangents_of(inputs, tangents)
        given = _of_copies(given, [ctx.call[0].input_axes()[i] for i in tangent_inputs], g_real)
        pairs = ((g_real, dg_real), (g_complex, dg_complex))
        cotangent_tangents = [_no_tangent(g) if dg is None else _like(dg, g) for g, dg in pairs]
        call = _TangentCall(program, tangent_inputs, requested, len(inputs))
        found = apply(ExecuteVjpJvp, call, *inputs, *given, g_real, g_complex, *cotangent_tangents)
        return tuple(found[2:])

    @staticmethod
    def vmap(
        info: Any,
        in_dims: _Dims,
        program: int,
        requested: tuple[int, ...],
        ket: Tensor,
        g_real: Tensor,
        g_complex: Tensor,
        *inputs: Tensor,
    ) -> tuple[Any, Any]:
        _, _, ket_dim, *g_dims = in_dims[:5]
        fold = VmapFold(info.batch_size, program, in_dims[5:], inputs, _copies_of(g_real, g_dims[0]))
        cotangents = map(fold.fold_cotangent, (g_real, g_complex), g_dims)
        found = apply(ExecuteVjp, program, requested, fold.fold_ket(ket, ket_dim), *cotangents, *fold.inputs)
        return tuple(map(fold.unfold_gradient, requested, found)), (0,) * len(requested)


@interpreter_levels.not_for_dynamo
class ExecuteJvp(torch.autograd.Function):
    """(program, tangent_inputs, *inputs, *tangents) → derivatives of real and complex results.

    With copies or without.
    """

    @staticmethod
    def forward(program: int, tangent_inputs: tuple[int, ...], *tensors: Tensor) -> tuple[Tensor, Tensor]:
        count = len(tensors) - len(tangent_inputs)
        return operators.run_execute_jvp(program, tensors[:count], tensors[count:], tangent_inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        program, tangent_inputs, *tensors = inputs
        ctx.call = _C.find_program(program), tangent_inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, g_real: Tensor, g_complex: Tensor) -> tuple[Tensor | None, ...]:
        program, tangent_inputs = ctx.call[0].id, ctx.call[1]
        tensors = ctx.saved_tensors
        count = len(tensors) - len(tangent_inputs)
        inputs = tensors[:count]
        needed = _positions(ctx.needs_input_grad[2 : 2 + count])
        by_inputs: Sequence[Tensor] = ()
        if needed:
            call = _TangentCall(program, tangent_inputs, needed, count)
            zeros = _no_tangent(g_real), _no_tangent(g_complex)
            by_inputs = apply(ExecuteVjpJvp, call, *tensors, g_real, g_complex, *zeros)[2:]
        no_ket = g_complex.new_empty((g_complex.shape[-2], 0))
        by_tangents = program_vjp(program, inputs, no_ket, g_real, g_complex, tangent_inputs)
        return (None, None, *_sum_copies(_scatter(by_inputs, needed, count), inputs), *by_tangents)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise NotImplementedError(FORWARD_OVER_FORWARD)

    @staticmethod
    def vmap(
        info: Any, in_dims: _Dims, program: int, tangent_inputs: tuple[int, ...], *tensors: Tensor
    ) -> tuple[Any, Any]:
        count, dims = len(tensors) - len(tangent_inputs), in_dims[2:]
        axes = _C.find_program(program).input_axes()[tangent_inputs[0]]
        copies = _copies_of(tensors[count], dims[count], axes + 1)
        fold = VmapFold(info.batch_size, program, dims[:count], tensors[:count], copies)
        tangents = map(fold.fold_tangent, tangent_inputs, tensors[count:], dims[count:])
        found = apply(ExecuteJvp, program, tangent_inputs, *fold.inputs, *tangents)
        return tuple(map(fold.unfold, found)), (0, 0)


class _TangentCall(NamedTuple):
    """A call of `ExecuteVjpJvp` without its tensors, which are inputs, tangents, cotangents and their tangents.

    Attributes:
        program: the id of the program.
        tangent_inputs: the inputs that have tangents.
        requested: the inputs whose gradients' derivatives are computed.
        inputs: the number of inputs.
    """

    program: int
    tangent_inputs: tuple[int, ...]
    requested: tuple[int, ...]
    inputs: int


@interpreter_levels.not_for_dynamo
class ExecuteVjpJvp(torch.autograd.Function):
    """(call, *inputs, *tangents, g_real, g_complex, dg_real, dg_complex) → derivatives of results and gradients.

    With copies or without.
    """

    @staticmethod
    def forward(call: _TangentCall, *tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, tangents = tensors[: call.inputs], tensors[call.inputs : -4]
        if not call.requested:
            return operators.run_execute_jvp(call.program, inputs, tangents, call.tangent_inputs)
        g_real, g_complex, dg_real, dg_complex = tensors[-4:]
        real, complex_, by_inputs = operators.run_execute_vjp_jvp(
            call.program,
            inputs,
            tangents,
            call.tangent_inputs,
            (g_real, g_complex),
            (dg_real, dg_complex),
            call.requested,
        )
        return (real, complex_, *by_inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Saves nothing, because this function is not differentiable."""

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> NoReturn:
        raise NotImplementedError(THIRD_DERIVATIVE)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> NoReturn:
        raise NotImplementedError(THIRD_DERIVATIVE)

    @staticmethod
    def vmap(info: Any, in_dims: _Dims, call: _TangentCall, *tensors: Tensor) -> tuple[Any, Any]:
        dims, count = in_dims[1:], call.inputs  # in_dims[0] is of the call, which has no axis
        copies = _copies_of(tensors[-4], dims[-4])
        fold = VmapFold(info.batch_size, call.program, dims[:count], tensors[:count], copies)
        tangents = map(fold.fold_tangent, call.tangent_inputs, tensors[count:-4], dims[count:-4])
        cotangents = map(fold.fold_cotangent, tensors[-4:], dims[-4:])
        found = apply(ExecuteVjpJvp, call, *fold.inputs, *tangents, *cotangents)
        results = (*map(fold.unfold, found[:2]), *map(fold.unfold_gradient, call.requested, found[2:]))
        return results, (0,) * len(results)
