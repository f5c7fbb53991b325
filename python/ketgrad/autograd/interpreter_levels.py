"""`Function.apply` under functorch's transforms, for functions with tensors in and a tuple of tensors out.

The active transforms form functorch's interpreter stack. The interpreter at the top level handles a function first, and
the levels below handle what it calls: vmap applies the function's `vmap` rule, grad and jvp record it as a node in that
level's graph. torch's `Function.apply` does the same for functions of any kind; it makes a class for each call and
flattens nested arguments several times, which costs more than a small circuit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ..native.operators import is_transforming
from ..native.torch_private import (
    CGradInterpreterPtr,
    CJvpInterpreterPtr,
    CVmapInterpreterPtr,
    SingleLevelFunction,
    TransformType,
    add_batch_dim,
    apply_of,
    enable_single_level_autograd_function,
    get_interpreter_stack,
    get_unwrapped,
    is_functorch_wrapped_tensor,
    peek_interpreter_stack,
    pop_dynamic_layer_stack,
    push_dynamic_layer_stack,
    set_forward_mode_enabled,
    skip_in_dynamo,
    unwrap_batched,
    unwrap_for_grad,
    unwrap_if_dead,
    wrap_for_grad,
)

_Function = type[torch.autograd.Function]
_T = TypeVar("_T")


def not_for_dynamo(decorated: _T) -> _T:
    """Make torch.compile skip a function, or all functions of a class, and what they call."""
    functions = vars(decorated).values() if isinstance(decorated, type) else (decorated,)
    for function in functions:
        code = getattr(getattr(function, "__func__", function), "__code__", None)
        if code is not None:
            skip_in_dynamo(code)
    return decorated


class VmapInfo(NamedTuple):
    """The `info` argument of a `vmap` rule.

    Attributes:
        batch_size: the size of the axis that is mapped over.
    """

    batch_size: int


def apply(function: _Function, *args: Any) -> tuple[Tensor, ...]:
    """`function.apply(*args)`; the function has `setup_context` and a rule for each transform it may meet.

    Where nobody records or transforms it, that is `function.forward(*args)`.
    """
    if not is_recorded(args):
        return function.forward(*args)  # type: ignore[no-any-return]
    args = tuple([unwrap_if_dead(a) if isinstance(a, Tensor) else a for a in args])
    top: Any = peek_interpreter_stack()
    if top is None:
        return apply_of(function)(*args)  # type: ignore[no-any-return]
    key = top.key()
    if key == TransformType.Vmap:
        return _through_vmap(CVmapInterpreterPtr(top), function, args)
    if key in (TransformType.Grad, TransformType.Jvp):
        lift = (CGradInterpreterPtr if key == TransformType.Grad else CJvpInterpreterPtr)(top).lift
        lifted = [lift(a) if isinstance(a, Tensor) else a for a in args]
        with enable_single_level_autograd_function():
            return _node(function).apply(*lifted)  # type: ignore[no-any-return]
    return function.apply(*args)  # type: ignore[no-any-return]


def is_recorded(args: Iterable[Any]) -> bool:
    """Whether transforms or autograd record a function of these arguments."""
    return is_transforming() or (torch.is_grad_enabled() and any(_requires_grad(a) for a in args))


def _requires_grad(arg: Any) -> bool:
    return isinstance(arg, Tensor) and arg.requires_grad


def are_differentiated(tensors: Iterable[Tensor]) -> bool:
    """Whether a grad level is on the interpreter stack, or torch's autograd below all levels records gradients."""
    if any(level.key() == TransformType.Grad for level in get_interpreter_stack() or ()):
        return True
    return torch.is_grad_enabled() and any(innermost(tensor).requires_grad for tensor in tensors)


def innermost(tensor: Tensor) -> Tensor:
    """The tensor inside all of functorch's wrappers."""
    while is_functorch_wrapped_tensor(tensor):
        tensor = get_unwrapped(tensor)
    return tensor


def run_behind_break(function: Callable[..., Any], *args: Any) -> Any:
    """Run a function in eager mode at a graph break of torch.compile; wrap this in `torch.compiler.disable`.

    Raises:
        NotImplementedError: a grad level is active. torch cannot compile what follows: it fails an assertion about
            leaves (pytorch #136662), and only backend="eager" breaks the graph there at all.
    """
    if any(level.key() == TransformType.Grad for level in get_interpreter_stack() or ()):
        raise NotImplementedError(
            "ketgrad does not run under torch.func's grad, vjp, jacrev and hessian together with "
            'torch.compile(backend="eager"), which does not go on behind a graph break there; use another backend, or '
            "transforms without torch.compile"
        )
    return function(*args)


class _Below:
    """Run without the top interpreter level."""

    def __enter__(self) -> None:
        self._level: Any = pop_dynamic_layer_stack()

    def __exit__(self, *_: object) -> None:
        push_dynamic_layer_stack(self._level)


def _through_vmap(top: CVmapInterpreterPtr, function: Any, args: tuple[Any, ...]) -> tuple[Tensor, ...]:
    level = top.level()
    pairs = [unwrap_batched(a, level) if isinstance(a, Tensor) else (a, None) for a in args]
    dims = tuple([dim for _, dim in pairs])
    with _Below():
        if not any(dim is not None for dim in dims):
            return apply(function, *args)
        results, axes = function.vmap(VmapInfo(top.batchSize()), dims, *[value for value, _ in pairs])
    mapped = zip(results, axes, strict=True)
    return tuple([r if axis is None else add_batch_dim(r, axis, level) for r, axis in mapped])


@lru_cache(maxsize=32)
def _node(function: Any) -> Any:
    """The function as a node in the graph of the top interpreter level."""

    def forward(*args: Any) -> tuple[Tensor, ...]:
        top = peek_interpreter_stack()
        level = top.level()
        is_grad = top.key() == TransformType.Grad
        backward = CGradInterpreterPtr(top).prevGradMode() if is_grad else True
        forward_mode = True if is_grad else CJvpInterpreterPtr(top).prevFwdGradMode()
        unwrapped = [unwrap_for_grad(a, level) if isinstance(a, Tensor) else a for a in args]
        # A node's forward runs with both modes off; the levels below need them as they were before this one.
        with torch.set_grad_enabled(backward), set_forward_mode_enabled(forward_mode), _Below():
            results = apply(function, *unwrapped)
        return tuple([wrap_for_grad(r, level) for r in results])

    rules = {"setup_context": function.setup_context, "backward": function.backward, "jvp": function.jvp}
    methods = {name: staticmethod(rule) for name, rule in {"forward": forward, **rules}.items()}
    return type(function.__name__, (SingleLevelFunction,), methods)
