"""`interpreter_levels.apply` does what torch's own `Function.apply` does, under each transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

from ketgrad.autograd import interpreter_levels


def make(apply: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
    """(x, y) → x sin(y) + 0 · (a second result), as a function that calls itself and another through `apply`."""

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(scale: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return scale * x * y.sin(), x.detach() + 1

        @staticmethod
        def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
            ctx.scale, *tensors = inputs
            ctx.mark_non_differentiable(output[1])
            ctx.save_for_backward(*tensors)
            ctx.save_for_forward(*tensors)

        @staticmethod
        def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[None, Tensor, Tensor]:
            x, y = ctx.saved_tensors
            by_x, _ = apply(Product, ctx.scale, g, y)
            return None, by_x, ctx.scale * g * x * y.cos()

        @staticmethod
        def jvp(ctx: Any, _: None, dx: Tensor, dy: Tensor) -> tuple[Tensor, None]:
            x, y = ctx.saved_tensors
            along, _ = apply(Product, ctx.scale, dx, y)
            return along + ctx.scale * x * y.cos() * dy, None

        @staticmethod
        def vmap(info: Any, dims: tuple[Any, ...], scale: int, x: Tensor, y: Tensor) -> tuple[Any, Any]:
            rows = [
                t.expand(info.batch_size, *t.shape) if d is None else t.movedim(d, 0)
                for t, d in zip((x, y), dims[1:], strict=True)
            ]
            wide = max(row.dim() for row in rows)
            rows = [row.reshape(row.shape[0], *[1] * (wide - row.dim()), *row.shape[1:]) for row in rows]
            return apply(Product, scale, *rows), (0, 0)

    return lambda x, y: apply(Product, 2, x, y)[0]


ours = make(interpreter_levels.apply)
theirs = make(lambda function, *args: function.apply(*args))

X = torch.linspace(0.1, 1.2, 3, dtype=torch.float64)
Y = torch.linspace(-0.7, 0.9, 3, dtype=torch.float64)


def summed(f: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, y: f(x, y).sum()


def under_no_grad(f: Callable[..., Tensor]) -> Any:
    with torch.no_grad():
        return grad(summed(f))(X, Y)


def with_a_dead_wrapper(f: Callable[..., Tensor]) -> Any:
    """What vjp saved for its backward pass outlives its level."""
    _, back = vjp(f, X, Y)
    leaf = torch.ones_like(X).requires_grad_()
    found = back(leaf)
    return *found, torch.autograd.grad(found[0].sum(), leaf)[0]


def through_an_outer_graph(f: Callable[..., Tensor]) -> Any:
    x = X.clone().requires_grad_()
    found = vmap(grad(lambda a, b: f(a, b) ** 2))(x, Y)
    return found, torch.autograd.grad(found.sum(), x)[0]


def inside_a_module(f: Callable[..., Tensor]) -> Any:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(Y.clone())

        def forward(self, x: Tensor) -> Tensor:
            return f(x, self.w).sum()

    layer = Layer()
    weights = {name: p.detach() for name, p in layer.named_parameters()}
    return vmap(grad(lambda w, x: functional_call(layer, w, (x,))), (None, 0))(weights, torch.stack([X, Y]))["w"]


TRANSFORMS: dict[str, Callable[[Callable[..., Tensor]], Any]] = {
    "plain": lambda f: f(X, Y),
    "vmap": lambda f: vmap(f)(X, Y),
    "vmap-of-the-last-axis": lambda f: vmap(f, (1, 0), 1)(torch.outer(X, Y), Y),
    "vmap-of-one": lambda f: vmap(f, (None, 0))(X, Y),
    "vmap-of-what-does-not-matter": lambda f: vmap(lambda z: f(X, Y) + z)(X),
    "vmap-of-vmap": lambda f: vmap(vmap(f, (0, None)), (None, 0))(X, Y),
    "grad": lambda f: grad(summed(f), (0, 1))(X, Y),
    "grad-of-grad": lambda f: grad(lambda x, y: grad(summed(f), 1)(x, y).sum())(X, Y),
    "jvp": lambda f: jvp(f, (X, Y), (Y, X)),
    "vmap-of-grad": lambda f: vmap(grad(f, (0, 1)))(X, Y),
    "grad-of-vmap": lambda f: grad(lambda x: vmap(f)(x, Y).sum())(X),
    "jacrev": lambda f: jacrev(f, (0, 1))(X, Y),
    "jacfwd": lambda f: jacfwd(f, (0, 1))(X, Y),
    "hessian": lambda f: hessian(summed(f), (0, 1))(X, Y),
    "jacrev-of-jacfwd": lambda f: jacrev(jacfwd(f))(X, Y),
    "under-no-grad": under_no_grad,
    "dead-wrapper": with_a_dead_wrapper,
    "outer-graph": through_an_outer_graph,
    "module": inside_a_module,
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_is_what_torch_does(name: str) -> None:
    transform = TRANSFORMS[name]
    expected = transform(lambda x, y: 2 * x * y.sin())
    torch.testing.assert_close(transform(ours), expected)
    torch.testing.assert_close(transform(theirs), expected)
