"""What each private name of torch that ketgrad uses must do, so that a new torch says which one changed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import ketgrad as kg  # noqa: F401  (registers the operators)
from ketgrad.native import torch_private as private


class Watching(TorchFunctionMode):
    """A function mode that counts."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += 1
        return func(*args, **(kwargs or {}))


class Dispatching(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return g * x.cos()


def test_every_name_is_there_and_tested() -> None:
    with open(__file__, encoding="utf-8") as file:
        text = file.read()
    for name in private.__all__:
        assert hasattr(private, name)
        assert f"private.{name}" in text, name


def test_function_modes() -> None:
    with Watching() as mode:
        assert private.len_function_stack() == 1
        torch.ones(1)
        assert mode.seen == 1
        with private.DisableTorchFunction():
            torch.ones(1)
            assert mode.seen == 1
            with private.EnableTorchFunction():
                torch.ones(1)
        assert mode.seen == 2
        assert private.pop_function_mode() is mode
        assert private.len_function_stack() == 0
        private.push_function_mode(mode)
        torch.ones(1)
        assert mode.seen == 3
    with torch.device("meta"):
        found = private.pop_function_mode()
        private.push_function_mode(found)
    assert isinstance(found, private.DeviceContext)


def test_dispatch_modes() -> None:
    assert private.len_dispatch_stack() == 0
    with Dispatching():
        assert private.len_dispatch_stack() == 1
        with private.without_dispatch_modes():
            assert private.len_dispatch_stack() == 0
        assert private.len_dispatch_stack() == 1


def test_fake_tensors() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        assert isinstance(torch.ones(2), private.FakeTensor)
    assert not isinstance(torch.ones(2), private.FakeTensor)
    assert issubclass(private.FunctionalTensor, Tensor)


def test_levels_of_functorch() -> None:
    assert private.maybe_current_level() is None
    assert private.peek_interpreter_stack() is None
    assert not private.get_interpreter_stack()

    def seen(x: Tensor) -> Tensor:
        top = private.peek_interpreter_stack()
        assert top is not None
        assert private.maybe_current_level() == top.level() == 1
        assert [level.key() for level in private.get_interpreter_stack()] == [private.TransformType.Vmap]
        assert private.is_functorch_wrapped_tensor(x)
        assert private.is_batchedtensor(x)
        assert private.maybe_get_bdim(x) == 1
        assert private.get_unwrapped(x).shape == (2, 3)
        assert private.CVmapInterpreterPtr(top).batchSize() == 3
        value, axis = private.unwrap_batched(x, 1)
        with private.temporarily_clear_interpreter_stack():
            assert private.maybe_current_level() is None
        level = private.pop_dynamic_layer_stack()
        assert private.maybe_current_level() is None
        doubled = 2 * value
        private.push_dynamic_layer_stack(level)
        result: Tensor = private.add_batch_dim(doubled, axis, 1)
        return result

    x = torch.arange(6.0).view(2, 3)
    assert torch.equal(torch.func.vmap(seen, in_dims=1, out_dims=1)(x), 2 * x)


@pytest.mark.parametrize("is_grad", [True, False])
def test_levels_that_differentiate(is_grad: bool) -> None:
    kind = private.TransformType.Grad if is_grad else private.TransformType.Jvp

    def seen(x: Tensor) -> Tensor:
        top = private.peek_interpreter_stack()
        assert top.key() == kind
        pointer = (private.CGradInterpreterPtr if is_grad else private.CJvpInterpreterPtr)(top)
        assert (pointer.prevGradMode() if is_grad else pointer.prevFwdGradMode()) is True
        lifted = pointer.lift(x)
        inner = private.unwrap_for_grad(lifted, top.level())
        assert not private.is_functorch_wrapped_tensor(inner)
        assert private.is_functorch_wrapped_tensor(private.wrap_for_grad(inner, top.level()))
        with private.enable_single_level_autograd_function():
            assert issubclass(private.SingleLevelFunction, torch.autograd.Function.__mro__[1])
        escaped.append(x)
        return x.sin()

    escaped: list[Tensor] = []
    x = torch.tensor(0.3)
    slope = torch.func.grad(seen)(x) if is_grad else torch.func.jvp(seen, (x,), (torch.ones(()),))[1]
    torch.testing.assert_close(slope, x.cos())
    assert not private.is_functorch_wrapped_tensor(private.unwrap_if_dead(escaped[0]))


def test_without_functorch() -> None:
    def seen(x: Tensor) -> Tensor:
        with private.DisableFunctorch():
            assert not private.is_functorch_wrapped_tensor(torch.ones(2) + 1)
        return x

    torch.func.grad(lambda x: seen(x).sum())(torch.ones(2))


def test_the_vmap_of_autograd_itself() -> None:
    found = []

    def hook(g: Tensor) -> None:
        found.append(private.is_legacy_batchedtensor(g))

    x = torch.ones(2, requires_grad=True)
    y = x.sin()
    y.register_hook(hook)
    torch.autograd.grad(y, x, torch.eye(2), is_grads_batched=True)
    assert found == [True]
    assert not private.is_legacy_batchedtensor(x)


def test_autograd() -> None:
    x = torch.tensor(0.3, requires_grad=True)
    private.apply_of(Sine)(x).backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, torch.tensor(0.3).cos())
    with private.BelowAutograd():
        assert not x.sin().requires_grad
    assert private.saved_tensors_hooks_enabled()
    with disable_saved_tensors_hooks("no"):
        assert not private.saved_tensors_hooks_enabled()
    changed = torch.zeros(2)
    before = private.version_of(changed)
    changed.add_(1)
    assert private.version_of(changed) == before + 1


def test_forward_mode() -> None:
    assert private.forward_mode_level() == -1
    with forward_ad.dual_level():
        assert private.forward_mode_level() == 0
        dual = forward_ad.make_dual(torch.ones(()), torch.ones(()))
        with private.set_forward_mode_enabled(False):
            assert forward_ad.unpack_dual(2 * dual).tangent is None
        assert forward_ad.unpack_dual(2 * dual).tangent == 2


def test_operators() -> None:
    assert private.has_kernel_for_dispatch_key("ketgrad::execute", "CPU")
    assert not private.has_kernel_for_dispatch_key("ketgrad::execute", "MPS")

    def refuse(ctx: Any, *cotangents: Any) -> None:
        raise NotImplementedError

    info = private.Info(refuse, lambda ctx, inputs, output: None)
    assert callable(private.make_autograd_impl(torch.ops.ketgrad.execute.default, info))


def test_profiler() -> None:
    assert not private.profiler_enabled()
    with torch.profiler.profile():
        assert private.profiler_enabled()


def test_trees() -> None:
    leaves, spec = private.pytree.tree_flatten(({"a": 1}, [2]))
    assert leaves == [1, 2]
    assert private.pytree.tree_unflatten(leaves, spec) == ({"a": 1}, [2])


DYNAMO = """
import torch
from ketgrad.native import torch_private as private

seen = []

def skipped(x):
    seen.append(torch.compiler.is_compiling())
    return x.sin()

private.skip_in_dynamo(skipped.__code__)

@private.nonstrict_trace
def traced(x):
    seen.append(type(x).__name__)
    return 2 * x

x = torch.ones(2)
assert torch.equal(torch.compile(skipped, backend="eager")(x), x.sin()) and seen == [False], seen
seen.clear()
assert torch.equal(torch.compile(lambda x: traced(x) + 1, fullgraph=True, backend="aot_eager")(x), 2 * x + 1)
assert seen and "Tensor" not in seen, seen
"""


@pytest.mark.slow
def test_dynamo() -> None:
    """`private.skip_in_dynamo` and `private.nonstrict_trace`, where Dynamo is new."""
    run = subprocess.run([sys.executable, "-c", DYNAMO], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
