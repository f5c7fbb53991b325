"""`ExecuteTapes`: the boundary between torch's autograd and tapes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Never

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from ..autograd import functions, interpreter_levels
from ..circuit.parsing import hide_rest
from ..circuit.tape import Tape
from ..native import operators
from ..native.torch_private import apply_of, pytree
from .given_tapes import as_aligned_tapes, as_tapes
from .jacobian_products import AdjointProducts, Run, TapeResult
from .nesting import Nesting, flatten

_DIFF_METHODS = ("adjoint", None)


@interpreter_levels.not_for_dynamo
class ExecuteTapes(torch.autograd.Function):
    """Executes tapes as an autograd function, so that torch can differentiate the results.

    `ExecuteTapes.apply(kwargs, *parameters)` has the contract of PennyLane's function of the same name: `kwargs`
    has "tapes" (of ketgrad or PennyLane), "execute_fn" (tapes → results) and "jpc" (with `compute_vjp(tapes, dy)`),
    `parameters` are the trainable ones, `[p for t in tapes for p in t.get_parameters()]`. Results have the nesting of
    `execute_fn`.

    With an `AdjointProducts` and its `execute`, tapes of equal structure take one native call forward and one backward.
    Their inputs are saved tensors of autograd: a parameter that is changed in place before the backward pass either
    raises or has no effect, `retain_graph` works, and gradients can be differentiated once more. Any other `execute_fn`
    and `jpc` are called as PennyLane calls them. Differentiating their gradients raises, unless the jpc's gradients are
    differentiable (PennyLane's with `max_diff=2`).

    Raises:
        TypeError: `kwargs` is no dictionary, or an entry is of a wrong type.
        ValueError: an entry is missing, the number of parameters is not that of the tapes' trainable ones, or devices
            or precisions are mixed.
        NotImplementedError: third derivatives; with another jpc than `AdjointProducts` also `torch.func`, forward-mode
            differentiation, and second derivatives that it does not support.

    Example:
        >>> import torch, ketgrad as kg
        >>> x = torch.tensor(0.5, requires_grad=True)
        >>> tapes = [kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))])]
        >>> jpc = kg.AdjointProducts()
        >>> parameters = [p for t in tapes for p in t.get_parameters()]
        >>> (z,) = kg.ExecuteTapes.apply({"tapes": tapes, "execute_fn": jpc.execute, "jpc": jpc}, *parameters)
        >>> z.backward()
        >>> x.grad
        tensor(-0.4794)
    """

    @classmethod
    def apply(cls, kwargs: dict[str, Any], *parameters: Any) -> Any:
        """The results of the tapes, with the nesting of `execute_fn`; see the class."""
        if torch.compiler.is_compiling():  # Dynamo cannot trace tapes: a graph break
            return torch.compiler.disable(interpreter_levels.run_behind_break)(cls._apply, kwargs, *parameters)
        return cls._apply(kwargs, *parameters)

    @classmethod
    def _apply(cls, kwargs: dict[str, Any], *parameters: Any) -> Any:
        _require_kwargs(kwargs)
        # `forward` does not see tangents and functorch wrappers, so all tensors of the tapes are checked for them here.
        # With AdjointProducts and no active transform, checking the inputs of the native calls is enough.
        if not _is_adjoint(kwargs):
            operators.refuse_transforms(_tensors_of(kwargs["tapes"]))
        elif operators.is_transforming():
            _require_count(kwargs["tapes"], parameters)
            tapes = as_aligned_tapes(kwargs["tapes"])
            _require_held(tapes, parameters)
            return kwargs["jpc"].run_transformed(tapes)
        elif not parameters:  # results without gradients need no node
            _require_count(kwargs["tapes"], parameters)
            return kwargs["jpc"].execute(as_aligned_tapes(kwargs["tapes"]))
        nestings: list[Nesting] = []  # that of the results, which `forward` adds
        # Not `Function.apply`, which checks each parameter for functorch transforms: those were refused above.
        flat = apply_of(cls)(nestings, kwargs, *parameters)
        return nestings[0].nest(flat)

    @staticmethod
    def forward(ctx: Any, nestings: list[Nesting], *inp: Any) -> tuple[Any, ...]:
        """Execute the tapes; `inp` is `(kwargs, *parameters)`."""
        kwargs, *parameters = inp
        tapes, execute_fn, jpc = kwargs["tapes"], kwargs["execute_fn"], kwargs["jpc"]
        ctx.set_materialize_grads(False)
        _require_count(tapes, parameters)
        if _is_adjoint(kwargs):
            ctx.tape_pass = _AdjointPass(ctx, tapes, jpc, parameters)
        else:
            ctx.tape_pass = _ExternalPass(ctx, tapes, execute_fn, jpc, parameters)
        flat, ctx.nesting = flatten(ctx.tape_pass.results)
        del ctx.tape_pass.results  # a reference cycle: results → graph → ctx → results
        nestings.append(ctx.nesting)
        integers = [r for r in flat if isinstance(r, Tensor) and not (r.is_floating_point() or r.is_complex())]
        ctx.mark_non_differentiable(*integers)
        return tuple(flat)

    @staticmethod
    def backward(ctx: Any, *flat_grad_outputs: Tensor | None) -> tuple[Any, ...]:
        """Gradients of the parameters; None for the two arguments before them."""
        needed = ctx.needs_input_grad[2:]
        # To pytree None is a node without leaves, so each cotangent is boxed in a tuple.
        cotangents = ctx.nesting.nest([(c,) for c in flat_grad_outputs])
        tape_pass = ctx.tape_pass
        found = tape_pass.gradients(ctx, cotangents, needed)
        if not torch.is_grad_enabled() or tape_pass.is_differentiable(found, flat_grad_outputs):
            return (None, None, *found)
        refused = functions.refuse_derivative(found, tape_pass.parameters(), functions.NO_SECOND_DERIVATIVE)
        return (None, None, *refused)


def _require_kwargs(kwargs: Any) -> None:
    if not isinstance(kwargs, dict):
        raise TypeError(
            'the first argument of ExecuteTapes.apply is a dictionary with "tapes", "execute_fn" and "jpc", '
            f"not {type(kwargs).__name__}"
        )
    missing = [name for name in ("tapes", "execute_fn", "jpc") if name not in kwargs]
    if missing:
        raise ValueError(
            'the first argument of ExecuteTapes.apply is a dictionary with "tapes", "execute_fn" and "jpc"; '
            f"it lacks {', '.join(missing)}"
        )
    if not callable(kwargs["execute_fn"]):
        raise TypeError(f"execute_fn must be callable, not {type(kwargs['execute_fn']).__name__}")
    if not hasattr(kwargs["jpc"], "compute_vjp"):
        raise TypeError(f"jpc must have compute_vjp(tapes, dy), which {type(kwargs['jpc']).__name__} has not")


def _is_adjoint(kwargs: dict[str, Any]) -> bool:
    """Whether `AdjointProducts` itself executes, not a subclass, which may override any method."""
    jpc = kwargs["jpc"]
    return type(jpc) is AdjointProducts and bool(kwargs["execute_fn"] == jpc.execute)


def _tensors_of(tapes: Sequence[Any]) -> list[Tensor]:
    """All tensors among the tapes' parameters, trainable or not."""
    return [p for tape in tapes for p in tape.get_parameters(trainable_only=False) if isinstance(p, Tensor)]


def _require_count(tapes: Sequence[Any], parameters: Sequence[Any]) -> None:
    expected = sum(len(tape.trainable_params) for tape in tapes)
    if len(parameters) != expected:
        raise ValueError(
            f"{len(parameters)} parameters for tapes with {expected} trainable ones; "
            "pass [p for t in tapes for p in t.get_parameters()]"
        )


def _are_held(tapes: Sequence[Tape], parameters: Sequence[Any]) -> bool:
    """Whether the parameters are the same objects as the tapes' trainable parameters."""
    return all(map(operator.is_, parameters, [p for tape in tapes for p in tape.get_parameters()]))


def _require_held(tapes: Sequence[Tape], parameters: Sequence[Any]) -> None:
    """Raise if a transform would differentiate by tensors that are in no tape: derivatives would silently be zero."""
    if not _are_held(tapes, parameters):
        raise NotImplementedError(
            "under torch.func transforms and forward mode, ExecuteTapes differentiates by the tensors that the tapes "
            "hold; pass [p for t in tapes for p in t.get_parameters()]"
        )


class _AdjointPass:
    """Forward and backward by `AdjointProducts`, whose inputs and kets are saved tensors of autograd."""

    def __init__(self, ctx: Any, tapes: Sequence[Any], jpc: AdjointProducts, parameters: Sequence[Any]) -> None:
        self.jpc = jpc
        self.tapes = as_aligned_tapes(tapes)
        trainable = any(ctx.needs_input_grad[2:])
        # If the parameters are the tapes' own tensors, autograd sums over the occurrences of each, so one sum will do.
        as_held = _are_held(self.tapes, parameters)
        self.results, run = jpc.run(
            self.tapes, lambda group: trainable and any(s.trainable for s in group.binding.inputs), as_held
        )
        self.groups = [group._replace(inputs=[]) for group in run.groups]
        self.as_held = as_held
        self.others = [] if as_held else [p for p in parameters if isinstance(p, Tensor)]
        if trainable:
            ctx.save_for_backward(*run.kets, *[tensor for group in run.groups for tensor in group.inputs])

    def parameters(self) -> list[Tensor]:
        """The tensors that the gradients depend on."""
        return [*_tensors_of(self.tapes), *self.others]

    def is_differentiable(self, gradients: Sequence[Tensor | None], cotangents: Sequence[Tensor | None]) -> bool:
        """Whether the gradients can be differentiated: if the parameters are the tapes' own tensors."""
        return self.as_held

    def gradients(self, ctx: Any, cotangents: Sequence[Any], needed: Sequence[bool]) -> list[Tensor | None]:
        """Gradients of the parameters, None for those that are not needed."""
        saved = iter(ctx.saved_tensors)
        kets = [next(saved) for _ in self.groups]
        groups = [group._replace(inputs=[next(saved) for _ in group.binding.inputs]) for group in self.groups]
        unboxed = [_unbox(c, tape) for c, tape in zip(cotangents, self.tapes, strict=True)]
        if torch.is_grad_enabled() and self.as_held:
            groups = self.jpc.pack_again(self.tapes, groups)
        return self.jpc.vjp(Run(self.tapes, groups, kets), unboxed, needed)


def _unbox(cotangents: Any, tape: Tape) -> list[Tensor | None]:
    """The cotangents of a tape's measurements, from boxes (see `ExecuteTapes.backward`)."""
    if tape.shots is not None:  # counts nest as dictionaries; it only matters whether there is any cotangent
        boxes = pytree.tree_leaves(cotangents)
        return [next((c for c in boxes if c is not None), None)]
    if len(tape.measurements) == 1:
        return [cotangents[0]]
    return [box[0] for box in cotangents]


class _ExternalPass:
    """Forward and backward through a caller's `execute_fn` and `jpc`, in PennyLane's convention."""

    def __init__(
        self, ctx: Any, tapes: Sequence[Any], execute_fn: Callable[[Any], Any], jpc: Any, parameters: Sequence[Any]
    ) -> None:
        self.jpc = jpc
        self.tapes = _as_known_to(jpc, tapes)
        self.devices = {p.device for p in parameters if isinstance(p, Tensor)}
        self.results = tuple([self._as_torch(result) for result in execute_fn(_as_known_to(execute_fn, tapes))])
        if len(self.results) != len(tapes):
            raise ValueError(f"execute_fn returned {len(self.results)} results for {len(tapes)} tapes")
        self.positions = [i for i, p in enumerate(parameters) if isinstance(p, Tensor)]
        # The jpc reads the tapes' tensors from the tapes. They are saved too, so that autograd raises if one was
        # changed in place before the backward pass.
        ctx.save_for_backward(*[parameters[i] for i in self.positions], *_tensors_of(tapes))
        self.zeros = [torch.zeros_like(r) if isinstance(r, Tensor) else r for r in pytree.tree_leaves(self.results)]
        self.saved: tuple[Tensor, ...] = ()

    def _as_torch(self, result: TapeResult) -> TapeResult:
        if isinstance(result, dict):  # counts
            return result
        if isinstance(result, (tuple, list)):
            return type(result)([self._as_torch(r) for r in result])
        return torch.as_tensor(result, device=next(iter(self.devices), None))

    def parameters(self) -> Sequence[Tensor]:
        """The tensors that the gradients depend on."""
        return self.saved

    def is_differentiable(self, gradients: Sequence[Tensor | None], cotangents: Sequence[Tensor | None]) -> bool:
        """Whether the gradients' graph leads to the parameters, as that of PennyLane's with `max_diff=2` does.

        A graph that leads only to the cotangents is not enough: a part of the second derivative would silently be
        missing.
        """
        parameters = {get_gradient_edge(p).node for p in self.saved if p.requires_grad}
        waiting = [get_gradient_edge(g).node for g in gradients if g is not None and g.requires_grad]
        seen = {get_gradient_edge(c).node for c in cotangents if c is not None and c.requires_grad}
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            if node in parameters:
                return True
            seen.add(node)
            waiting += [following for following, _ in node.next_functions if following is not None]
        return False

    def gradients(self, ctx: Any, cotangents: Sequence[Any], needed: Sequence[bool]) -> list[Tensor | None]:
        """Gradients of the parameters, None for those that are not needed; with a graph under `create_graph`."""
        self.saved = ctx.saved_tensors
        boxes = pytree.tree_leaves(cotangents, is_leaf=lambda c: c is None)
        filled = [zero if c is None else c.conj().resolve_conj() for c, zero in zip(boxes, self.zeros, strict=True)]
        found = self.jpc.compute_vjp(self.tapes, ctx.nesting.nest(filled))
        if len(found) != len(self.tapes):
            raise ValueError(f"the jpc returned gradients of {len(found)} tapes for {len(self.tapes)}")
        flat: list[Any] = []
        for of_tape, tape in zip(found, self.tapes, strict=True):
            flat += _gradient_list(of_tape, len(tape.trainable_params))
        parameters = dict(zip(self.positions, self.saved, strict=False))
        gradients: list[Tensor | None] = []
        for i, (gradient, requested) in enumerate(zip(flat, needed, strict=True)):
            given = gradient is not None and requested and i in parameters
            gradients.append(_like(gradient, parameters[i]) if given else None)
        return gradients


def _as_known_to(function: Any, tapes: Sequence[Any]) -> Sequence[Any]:
    """The tapes as an execute_fn or a jpc takes them: PennyLane's take PennyLane's tapes only."""
    modules = (getattr(function, "__module__", None) or "", type(function).__module__)
    if not any(module.startswith("pennylane") for module in modules):
        return tapes
    scripts = tuple([tape.to_pennylane() if isinstance(tape, Tape) else tape for tape in tapes])
    for script, tape in zip(scripts, tapes, strict=True):
        if len(script.trainable_params) != len(tape.trainable_params):
            raise ValueError(
                f"PennyLane counts {len(script.trainable_params)} trainable parameters where the tape has "
                f"{len(tape.trainable_params)} (a vector of coefficients is one here and many there): "
                "give a list of scalars, or use kg.AdjointProducts"
            )
    return scripts


def _gradient_list(of_tape: Any, count: int) -> list[Any]:
    """The gradients of one tape's parameters from what a jpc returned: a tuple, an array of rows, or None."""
    if of_tape is None or count == 0:
        return [None] * count
    found = list(of_tape) if getattr(of_tape, "ndim", 1) else [of_tape]
    if len(found) != count:
        raise ValueError(f"the jpc returned {len(found)} gradients for a tape with {count} trainable parameters")
    return found


def _like(gradient: Any, parameter: Tensor) -> Tensor:
    """A gradient with the parameter's device, dtype and shape, as autograd needs it."""
    tensor = torch.as_tensor(gradient, device=parameter.device)
    if tensor.numel() != parameter.numel():
        shapes = f"{tuple(tensor.shape)} for a parameter of shape {tuple(parameter.shape)}"
        raise ValueError(f"the jpc returned a gradient of shape {shapes}")
    if tensor.is_complex() and not parameter.is_complex():
        tensor = tensor.real
    return tensor.to(parameter.dtype).reshape(parameter.shape)


def _require_current(tape: Tape) -> None:
    """Raise if a parameter requires grad only since the tape was built: it would silently get no gradient."""
    if not tape.has_default_trainable or len(tape.trainable_params) == len(tape.parameters):
        return
    for index, p in [(index, p) for index, p in enumerate(tape.parameters) if type(p) is not float]:
        if isinstance(p, Tensor) and p.requires_grad and index not in tape.trainable_params:
            raise ValueError(
                f"parameter {index} of a tape requires grad since after the tape was built: build the tape anew, or "
                "give it trainable_params"
            )


# Hints for arguments that `execute` does not have.
_ELSEWHERE = {
    "shots": "; shots belong to a tape: kg.Tape(operations, measurements, shots=1000)",
    "seed": "; give a generator: generator=torch.Generator().manual_seed(0)",
    "device": "; a circuit runs where its tensors are: move them, as in x.to('cuda')",
    "trainable_params": "; they belong to a tape: kg.Tape(operations, measurements, trainable_params=[0])",
    "interface": "; results are always torch tensors",
}


@hide_rest
def execute(
    tapes: Sequence[Any],
    diff_method: str | None = "adjoint",
    *,
    dtype: torch.dtype | None = None,
    generator: torch.Generator | None = None,
    recompute: bool | None = None,
    ket_dtype: torch.dtype | None = None,
    **unknown: Never,
) -> tuple[TapeResult, ...]:
    """Executes tapes; a shorthand for `ExecuteTapes` with `AdjointProducts`.

    Args:
        tapes: of ketgrad or PennyLane; those of equal structure take one native call.
        diff_method: "adjoint" (the default), or None for results without gradients.
        dtype: torch.float32 or torch.float64, the precision to compute in; None (the default): that of the parameters,
            float64 without tensors.
        generator: of the random numbers for shots; None (the default): torch's default generator.
        recompute: whether the backward pass recomputes the final states (True) or they are kept for it (False); None
            (the default): they are kept if they take at most 64 MiB or a quarter of the free memory.
        ket_dtype: torch.complex64 keeps those of complex128 circuits in half the bytes, on the CPU; see `compile`.

    Returns:
        For each tape its result, or a tuple of results if it has several measurements; with a leading batch axis if the
        tape has one. Expectation values, variances and probabilities are real, states and density matrices complex.

    Raises:
        TypeError: `tapes` is no sequence of tapes, or `recompute` is not True, False or None.
        ValueError: diff_method is unknown, `ket_dtype` is not complex64 or None, devices are mixed, precisions are
            mixed without a dtype, or a parameter requires grad only since its tape was built.
        MemoryError: a state does not fit; the message has the bytes.

    Example:
        >>> import torch, ketgrad as kg
        >>> x = torch.tensor([0.1, 0.2], requires_grad=True)
        >>> tape = kg.Tape([kg.RY(x, wires=0), kg.CNOT(wires=[0, 1])], [kg.expval(kg.Z(1)), kg.probs(wires=0)])
        >>> ((z, p),) = kg.execute([tape])
        >>> z.shape, p.shape
        (torch.Size([2]), torch.Size([2, 2]))
    """
    for name in unknown:
        raise TypeError(f"execute has no argument {name!r}{_ELSEWHERE.get(name, '')}")
    if diff_method not in _DIFF_METHODS:
        raise ValueError(f"diff_method must be 'adjoint' or None, not {diff_method!r}")
    converted = as_tapes(tapes)
    jpc = AdjointProducts(dtype=dtype, generator=generator, recompute=recompute, ket_dtype=ket_dtype)
    if diff_method is None:
        return jpc.execute(converted)
    for tape in converted:
        _require_current(tape)
    parameters = [parameter for tape in converted for parameter in tape.get_parameters()]
    return ExecuteTapes.apply({"tapes": converted, "execute_fn": jpc.execute, "jpc": jpc}, *parameters)  # type: ignore[no-any-return]
