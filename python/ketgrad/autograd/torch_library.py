"""The derivative rule in graphs: fake kernels and autograd of the operators, and an operator for `torch.export`."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..native import operators
from ..native.library import _C
from ..native.operators import KeepKet
from ..native.torch_private import Info, forward_mode_level, make_autograd_impl
from . import derivative_rule

COMPILED_SECOND_DERIVATIVE = (
    "ketgrad has no second derivatives inside torch.compile: the gradient of a circuit was differentiated again; "
    "take them in eager mode"
)


_execute = torch.ops.ketgrad.execute.default
_execute_vjp = torch.ops.ketgrad.execute_vjp.default


def execute_in_graph(program: int, inputs: Sequence[Tensor], keep_ket: KeepKet) -> tuple[Tensor, Tensor]:
    """Real and complex results (see `functions.execute_program`), by an operator that can be in a graph."""
    if torch.compiler.is_exporting():
        return _execute_exported(_content(program), list(inputs))  # type: ignore[no-any-return]
    real, complex_, _ = _execute(program, list(inputs), keep_ket)
    return real, complex_


# --- under torch.compile ----------------------------------------------------------------------------------------------


@torch.library.register_fake("ketgrad::execute")  # type: ignore[untyped-decorator]
def _execute_fake(program: int, inputs: list[Tensor], keep_ket: KeepKet) -> tuple[Tensor, Tensor, Tensor]:
    _C.pin_program(program)  # the graph holds the id as a constant, which does not keep the program alive
    _require_one_device(inputs)
    found = _C.find_program(program)
    shape = found.describe()
    batch = operators.batch_size(found, inputs)
    complex_dtype = inputs[0].dtype.to_complex()
    real = inputs[0].new_empty((batch, shape["real_results"]))
    complex_ = inputs[0].new_empty((batch, shape["complex_results"]), dtype=complex_dtype)
    is_rounded = keep_ket == operators.ROUNDED_KET and inputs[0].device.type == "cpu"
    ket_dtype = torch.complex64 if is_rounded else complex_dtype
    ket = inputs[0].new_empty((batch, found.ket_size if keep_ket else 0), dtype=ket_dtype)
    return real, complex_, ket


def _require_one_device(tensors: Sequence[Tensor]) -> None:
    """Raise for meta tensors beside others, which torch dispatches to fake kernels; real kernels check the rest."""
    devices = {tensor.device for tensor in tensors}
    if len(devices) > 1:
        raise ValueError(f"ketgrad: inputs are on {', '.join(sorted(map(str, devices)))}; all must be on one device")


@torch.library.register_fake("ketgrad::execute_vjp")  # type: ignore[untyped-decorator]
def _execute_vjp_fake(
    program: int, inputs: list[Tensor], ket: Tensor, g_real: Tensor, g_complex: Tensor, requested: list[int]
) -> list[Tensor]:
    _require_one_device([*inputs, ket, g_real, g_complex])
    return _fake_gradients(program, inputs, g_real.shape[:-2], requested)


def _fake_gradients(
    program: int, inputs: Sequence[Tensor], copies: Sequence[int], requested: Sequence[int]
) -> list[Tensor]:
    if not copies:
        return [torch.empty_like(inputs[i], memory_format=torch.contiguous_format) for i in requested]
    found = _C.find_program(program)
    batch, axes = operators.batch_size(found, inputs), found.input_axes()
    return [inputs[i].new_empty((*copies, batch, *inputs[i].shape[inputs[i].dim() - axes[i] :])) for i in requested]


@torch.library.register_fake("ketgrad::execute_and_vjp")  # type: ignore[untyped-decorator]
def _execute_and_vjp_fake(
    program: int, inputs: list[Tensor], g_real: Tensor, g_complex: Tensor, curvature: float, requested: list[int]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    real, complex_, _ = _execute_fake(program, inputs, operators.NO_KET)
    return real, complex_, [torch.empty_like(inputs[i], memory_format=torch.contiguous_format) for i in requested]


def _setup_execute(ctx: Any, inputs: tuple[int, list[Tensor], KeepKet], output: tuple[Tensor, Tensor, Tensor]) -> None:
    program, tensors, _ = inputs
    ket = output[2]
    ctx.program = program
    ctx.mark_non_differentiable(ket)
    ctx.save_for_backward(ket, *tensors)


def _backward_execute(
    ctx: Any, g_real: Tensor, g_complex: Tensor, _: Tensor | None
) -> tuple[None, list[Tensor | None], None]:
    ket, *inputs = ctx.saved_tensors
    return None, _gradients(ctx, ctx.program, inputs, ket, (g_real, g_complex)), None


def _gradients(
    ctx: Any, program: int, inputs: Sequence[Tensor], ket: Tensor, cotangents: tuple[Tensor, Tensor]
) -> list[Tensor | None]:
    """The gradients of the inputs, which are an operator's second argument."""
    return derivative_rule.gradients(program, inputs, ket, cotangents, ctx.needs_input_grad[1], _execute_vjp)


def _refuse_compiled(ctx: Any, *cotangents: Any) -> None:
    raise NotImplementedError(COMPILED_SECOND_DERIVATIVE)


def _refuse_many(ctx: Any, *cotangents: Any) -> None:
    raise NotImplementedError(
        "the raw operators for several programs have no derivatives; use kg.execute, or what kg.compile returns"
    )


def _no_context(ctx: Any, inputs: Any, output: Any) -> None:
    """Saves nothing, because the backward pass raises."""


@torch.library.register_fake("ketgrad::execute_jvp")  # type: ignore[untyped-decorator]
def _execute_jvp_fake(
    program: int, inputs: list[Tensor], tangents: list[Tensor], tangent_inputs: list[int]
) -> tuple[Tensor, Tensor]:
    real, complex_, _ = _execute_fake(program, inputs, operators.NO_KET)
    if not tangents:
        return real, complex_
    axes = _C.find_program(program).input_axes()[tangent_inputs[0]]
    copies = tangents[0].shape[: tangents[0].dim() - axes - 1] if tangents[0].dim() > axes + 1 else ()
    return real.new_empty((*copies, *real.shape)), complex_.new_empty((*copies, *complex_.shape))


@torch.library.register_fake("ketgrad::execute_vjp_jvp")  # type: ignore[untyped-decorator]
def _execute_vjp_jvp_fake(
    program: int,
    inputs: list[Tensor],
    tangents: list[Tensor],
    tangent_inputs: list[int],
    g_real: Tensor,
    g_complex: Tensor,
    dg_real: Tensor,
    dg_complex: Tensor,
    requested: list[int],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    gradients = _fake_gradients(program, inputs, g_real.shape[:-2], requested)
    return torch.empty_like(g_real), torch.empty_like(g_complex), gradients


# --- under torch.export -----------------------------------------------------------------------------------------------

# An exported graph runs in other processes, where the registry does not have the program: the graph holds its content.

_FORMAT = "ketgrad1:"

torch.library.define("ketgrad::execute_exported", "(str program, Tensor[] inputs) -> (Tensor real, Tensor complex)")
_execute_exported = torch.ops.ketgrad.execute_exported.default


def _content(program: int) -> str:
    return _FORMAT + base64.b64encode(_C.find_program(program).serialise()).decode()


@functools.lru_cache(maxsize=1024)
def _program_of(content: str) -> _C.Program:
    if not content.startswith(_FORMAT):
        raise ValueError(
            "a circuit of an exported program was written by another version of ketgrad, in a format that this one "
            "cannot read"
        )
    return _C.load_program(base64.b64decode(content.removeprefix(_FORMAT)))


@torch.library.impl("ketgrad::execute_exported", "CompositeExplicitAutograd")
def _run_exported(program: str, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    real, complex_, _ = operators.run_execute(_program_of(program).id, inputs, operators.NO_KET)
    return real, complex_


@torch.library.register_fake("ketgrad::execute_exported")  # type: ignore[untyped-decorator]
def _execute_exported_fake(program: str, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
    real, complex_, _ = _execute_fake(_program_of(program).id, inputs, operators.NO_KET)
    return real, complex_


def _setup_exported(ctx: Any, inputs: tuple[str, list[Tensor]], output: tuple[Tensor, Tensor]) -> None:
    ctx.program = _program_of(inputs[0])
    ctx.save_for_backward(*inputs[1])


def _backward_exported(ctx: Any, g_real: Tensor, g_complex: Tensor) -> tuple[None, list[Tensor | None]]:
    no_ket = g_complex.new_empty((g_complex.shape[0], 0))
    return None, _gradients(ctx, ctx.program.id, ctx.saved_tensors, no_ket, (g_real, g_complex))


# --- autograd of the operators ----------------------------------------------------------------------------------------

_autograd_kernels = torch.library.Library("ketgrad", "FRAGMENT")


def _register_autograd(name: str, backward: Callable[..., Any], setup_context: Callable[..., Any]) -> None:
    """`torch.library.register_autograd`, with a kernel that refuses tangents, which torch's would silently drop."""
    operator = getattr(torch.ops.ketgrad, name).default
    kernel = make_autograd_impl(operator, Info(backward, setup_context))

    def run(keyset: Any, *args: Any) -> Any:
        if forward_mode_level() >= 0:
            _refuse_tangents(name, args)
        return kernel(keyset, *args)

    _autograd_kernels.impl(name, run, "Autograd", with_keyset=True)


def _refuse_tangents(name: str, args: Sequence[Any]) -> None:
    tensors = [t for arg in args for t in (arg if isinstance(arg, (list, tuple)) else (arg,)) if isinstance(t, Tensor)]
    if any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors):
        raise NotImplementedError(
            f"torch.ops.ketgrad.{name} has no forward-mode derivatives; use kg.execute, or what kg.compile returns"
        )


_register_autograd("execute_exported", _backward_exported, _setup_exported)
_register_autograd("execute", _backward_execute, _setup_execute)
for _name in ("execute_vjp", "execute_and_vjp", "execute_jvp", "execute_vjp_jvp"):
    _register_autograd(_name, _refuse_compiled, _no_context)
for _name in ("execute_many", "execute_vjp_many", "execute_and_vjp_many"):
    _register_autograd(_name, _refuse_many, _no_context)
