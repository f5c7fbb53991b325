"""Modes of torch around calls, and routes to derivatives through them: what is right without a mode is right under it.

A compiled function is traced in its first call and runs in all others, so a mode may be around the first call, around a
later one, or around the first and gone in the next: in each case values and derivatives are those of `kg.execute` by
itself. float64, 1e-10; under autocast what torch computes before the circuit is in bfloat16, 5e-2.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.autograd import forward_ad, graph
from torch.fx.experimental.proxy_tensor import make_fx
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import ketgrad as kg
from hooks import setting

pytestmark = pytest.mark.slow

F64 = torch.float64
X = torch.rand(4, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
W = torch.tensor([0.5, 0.6, 0.7], dtype=F64)

Function = Callable[[Tensor, Tensor], Tensor]

# --- functions --------------------------------------------------------------------------------------------------------


def arithmetic(x: Tensor, w: Tensor) -> kg.Tape:
    """Slots, a scalar in two products, torch's functions, and constants that the trace makes."""
    s = w[0] * w[1]
    first = [kg.RX(x[..., 0] * s, 0), kg.RY(torch.sin(x[..., 1]) * s, 1), kg.CNOT([0, 1]), kg.RY(2 * w[0] + 1, 0)]
    second = [kg.RZ(w[2] * w[1] + torch.ones(3, dtype=F64, device=w.device)[1], 1), kg.RX(x[..., 0] * w[0], 1)]
    return kg.Tape([*first, *second, kg.RX(x[..., 1] * w[0], 1)], [kg.expval(kg.Z(0) @ kg.X(1)), kg.expval(kg.X(0))])


class Module(nn.Module):
    """The same with tensors from outside, a layer of torch and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2, dtype=F64)
        with torch.no_grad():
            self.linear.weight.copy_(torch.tensor([[0.9, 0.1], [0.2, 1.1]]))
            self.linear.bias.zero_()
        self.order = torch.tensor([1, 0])
        self.gate = torch.eye(2, dtype=torch.complex128)

    def forward(self, x: Tensor, w: Tensor) -> kg.Tape:
        tape = arithmetic(self.linear(x)[..., self.order], w)
        return kg.Tape([kg.QubitUnitary(self.gate, 0), *tape.operations], tape.measurements)


def executed(function: Callable[[Tensor, Tensor], kg.Tape]) -> Function:
    return lambda x, w: torch.stack(kg.execute([function(x, w)])[0], -1)


def compiled(function: Callable[[Tensor, Tensor], kg.Tape]) -> Function:
    traced = kg.compile(function)
    return lambda x, w: torch.stack(traced(x, w), -1)


def layered(function: Callable[[Tensor, Tensor], kg.Tape]) -> Function:
    layer = kg.nn.CircuitLayer(lambda inputs, w: function(inputs, w), {"w": 3}).double()
    return lambda x, w: torch.func.functional_call(layer, {"w": w}, (x,))  # type: ignore[no-any-return]


MADE: dict[str, Callable[[], Function]] = {
    "execute": lambda: executed(Module()),
    "compile": lambda: compiled(Module()),
    "compiled arithmetic": lambda: compiled(arithmetic),
    "layer": lambda: layered(Module()),
}

# --- modes ------------------------------------------------------------------------------------------------------------


class Watching(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Dispatching(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


MODES: dict[str, Callable[[], Any]] = {
    "none": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "saved tensors hooks": lambda: graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t),
    "save_on_cpu": graph.save_on_cpu,
    "no saved tensors hooks": lambda: graph.disable_saved_tensors_hooks("disabled"),
    "saved tensors may change": graph.allow_mutation_on_saved_tensors,
    "deterministic": lambda: setting(
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
    ),
    "anomaly": torch.autograd.detect_anomaly,
    "default device": lambda: torch.device("cpu"),
    "default dtype": lambda: setting(torch.get_default_dtype, torch.set_default_dtype, F64),
    "function mode": Watching,
    "dispatch mode": Dispatching,
    "no torch function": torch._C.DisableTorchFunction,
    "no torch function of subclasses": torch._C.DisableTorchFunctionSubclass,
    "forward mode": forward_ad.dual_level,
}

# --- routes -----------------------------------------------------------------------------------------------------------


def gradient(f: Function, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    w = W.clone().requires_grad_()
    return torch.autograd.grad(f(X, w).sum(), w, create_graph=create_graph)[0], w


def second_derivative(f: Function) -> Tensor:
    first, w = gradient(f, create_graph=True)
    return torch.autograd.grad(first.sum(), w)[0]


def through_checkpoint(f: Function) -> Tensor:
    return gradient(lambda x, w: checkpoint(f, x, w, use_reentrant=False))[0]  # type: ignore[no-any-return]


def forward_mode(f: Function) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(f(X, forward_ad.make_dual(W, torch.ones_like(W)))).tangent


ROUTES: dict[str, Callable[[Function], Tensor]] = {
    "value": lambda f: f(X, W),
    "gradient": lambda f: gradient(f)[0],
    "second derivative": second_derivative,
    "checkpoint": through_checkpoint,
    "forward mode": forward_mode,
    "func.grad": lambda f: torch.func.grad(lambda w: f(X, w).sum())(W),
    "func.jvp": lambda f: torch.func.jvp(lambda w: f(X, w), (W,), (torch.ones_like(W),))[1],
    "func.vmap": lambda f: torch.func.vmap(lambda w: f(X, w))(torch.stack([W, 2 * W])),
    "func.hessian": lambda f: torch.func.hessian(lambda w: f(X, w).sum())(W),
}

# What torch itself has not, whatever the function: it raises (or, in inference mode, has no tangents).
NONE_IN_TORCH = {
    ("gradient", "second derivative", "checkpoint"): ("no_grad", "inference"),
    ("func.grad", "func.hessian"): ("saved tensors hooks", "save_on_cpu", "saved tensors may change"),
    ("checkpoint",): ("no saved tensors hooks",),
    ("forward mode", "func.jvp", "func.hessian"): ("forward mode",),
    ("forward mode",): ("inference",),
}


def is_in_torch(mode: str, route: str) -> bool:
    return not any(route in routes and mode in modes for routes, modes in NONE_IN_TORCH.items())


def right(f: str, route: str) -> Tensor:
    function = executed(arithmetic) if f == "compiled arithmetic" else MADE["execute"]()
    return ROUTES[route](function).detach()


def require(found: Tensor, expected: Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(found.detach().to(F64), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("route", ROUTES)
def test_modes_and_routes(mode: str, route: str) -> None:
    tolerance = 5e-2 if mode == "autocast" else 1e-10
    for name, make in MADE.items():
        expected = right(name, route)
        around_the_first, around_a_later = make(), make()
        around_a_later(X, W)
        gradient(around_a_later)
        if is_in_torch(mode, route):
            with MODES[mode]():
                require(ROUTES[route](around_the_first), expected, tolerance)
                require(ROUTES[route](around_a_later), expected, tolerance)
        else:
            with MODES[mode]():
                around_the_first(X, W)
                around_a_later(X, W)
        require(ROUTES[route](around_the_first), expected)
        require(ROUTES[route](around_a_later), expected)


@pytest.mark.parametrize("is_first", [True, False])
def test_flops_are_counted(is_first: bool) -> None:
    """Its hooks of modules ask about tensors; it fails on torch.autograd.grad of leaves, whatever the function."""
    module = Module()
    function, f = executed(module), compiled(module)
    if not is_first:
        gradient(f)
    counters = [FlopCounterMode(display=False) for _ in range(2)]
    for counter, counted in zip(counters, (function, f), strict=True):
        module.zero_grad()
        with counter:
            counted(X, W).sum().backward()
        require(module.linear.weight.grad, right_weights())
    assert counters[0].get_total_flops() == counters[1].get_total_flops() > 0


def right_weights() -> Tensor:
    module = Module()
    executed(module)(X, W).sum().backward()
    assert module.linear.weight.grad is not None
    return module.linear.weight.grad


# --- graphs and tensors without values --------------------------------------------------------------------------------


@pytest.mark.parametrize("is_first", [True, False])
def test_fake_tensors(is_first: bool) -> None:
    f = compiled(arithmetic)
    if not is_first:
        f(X, W)
        gradient(f)
    with FakeTensorMode() as mode:
        x, w = mode.from_tensor(X), mode.from_tensor(W).requires_grad_()
        z = f(x, w)
        assert (z.shape, z.dtype, z.requires_grad) == ((4, 2), F64, True)
        (found,) = torch.autograd.grad(z.sum(), w)
        assert isinstance(found, FakeTensor)
        assert found.shape == W.shape
    require(f(X, W), right("compiled arithmetic", "value"))


def test_layers_made_of_fake_tensors() -> None:
    with FakeTensorMode():
        layer = kg.nn.CircuitLayer.from_blocks([kg.nn.AmplitudeEmbedding(2), kg.nn.StronglyEntangling(2)])
        assert layer(torch.rand(3, 4)).shape == (3, 2)
    with torch.device("meta"):
        layer = kg.nn.CircuitLayer.from_blocks([kg.nn.AngleEmbedding(2), kg.nn.StronglyEntangling(2)])
        assert layer(torch.rand(3, 2)).is_meta


@pytest.mark.parametrize("tracing_mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize("is_first", [True, False])
def test_make_fx(tracing_mode: str, is_first: bool) -> None:
    f = compiled(arithmetic)
    if not is_first:
        gradient(f)

    def slope(x: Tensor, w: Tensor) -> Tensor:
        w = w.detach().requires_grad_()
        return torch.autograd.grad(f(x, w).sum(), w)[0]

    other = X.flip(0) + 0.1
    w = W.clone().requires_grad_()
    expected = executed(arithmetic)(other, w)
    require(make_fx(f, tracing_mode=tracing_mode)(X, W)(other, W), expected.detach())
    found = make_fx(slope, tracing_mode=tracing_mode)(X, W)(other, W)
    require(found, torch.autograd.grad(expected.sum(), w)[0])


REPEATED: dict[str, Callable[[Tensor, Tensor], list[Any]]] = {
    "a scalar": lambda x, w: [x[..., 0] * w.sum(), x[..., 1] * w.sum()],
    "an element": lambda x, w: [x[..., 0] * w[0], x[..., 1] * w[0]],
    "elements out of order": lambda x, w: [x[..., 0] * w[2], x[..., 1] * w[0], x[..., 0] * w[2]],
    "neighbours": lambda x, w: [x[..., 0] * w[1], x[..., 1] * w[2]],
    "products": lambda x, w: [w[0] * w[1], x[..., 0] + w[1] * w[2]],
    "one feature": lambda x, w: [torch.sin(x[..., 1]) * w[0], torch.sin(x[..., 1]) * w[1]],
    "a constant": lambda x, w: [x[..., 0] * torch.tensor([0.2, 0.3], dtype=F64)[1], x[..., 1] * w[0]],
}


@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_what_stands_in_several_products_in_a_graph(backend: str) -> None:
    for angles in REPEATED.values():
        torch._dynamo.reset()

        def circuit(x: Tensor, w: Tensor, angles: Any = angles) -> kg.Tape:
            return kg.Tape([kg.RX(a, i % 2) for i, a in enumerate(angles(x, w))], [kg.expval(kg.Z(0) @ kg.Z(1))])

        f = kg.compile(circuit)
        found = gradient(torch.compile(f, backend=backend, fullgraph=True))[0]
        require(found, gradient(lambda x, w, circuit=circuit: kg.execute([circuit(x, w)])[0])[0])


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("name", ["execute", "compiled arithmetic", "layer"])
def test_transforms_inside_torch_compile(name: str) -> None:
    """Right, or refused: torch fails an assertion behind a break of the graph under a level that takes gradients."""
    f = MADE[name]()
    transforms: dict[str, Callable[[Tensor], Tensor]] = {
        "func.grad": lambda w: torch.func.grad(lambda w: f(X, w).sum())(w),
        "func.jvp": lambda w: torch.func.jvp(lambda w: f(X, w), (w,), (torch.ones_like(w),))[1],
        "func.vmap": lambda w: torch.func.vmap(lambda w: f(X, w))(torch.stack([w, 2 * w])),
    }
    for route, transform in transforms.items():
        torch._dynamo.reset()
        require(torch.compile(transform, backend="aot_eager")(W), right(name, route))
        torch._dynamo.reset()
        if route == "func.grad":
            # Where gates are made, which is ours to refuse nowhere, the assertion comes first.
            refusal, text = (NotImplementedError, "use another backend, or transforms without torch.compile")
            with pytest.raises(
                (refusal, AssertionError) if name == "execute" else refusal, match=rf"{text}|False != True"
            ):
                torch.compile(transform, backend="eager")(W)
        else:
            require(torch.compile(transform, backend="eager")(W), right(name, route))
