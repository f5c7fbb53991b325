"""All private names of torch that ketgrad uses; no other module may use one.

Checked with torch 2.11, 2.12 and 2.13. `tests/native/test_torch_private.py` tests what each must do; the workflows run
it with the oldest and the newest torch.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CodeType
from typing import Any

import torch
from torch import Tensor
from torch._C import DisableTorchFunction
from torch._C import _AutoDispatchBelowAutograd as BelowAutograd
from torch._C import _DisableFuncTorch as DisableFunctorch
from torch._C import _dispatch_has_kernel_for_dispatch_key as has_kernel_for_dispatch_key
from torch._C import _EnableTorchFunction as EnableTorchFunction
from torch._C import _len_torch_dispatch_stack as len_dispatch_stack
from torch._C import _len_torch_function_stack as len_function_stack
from torch._C._autograd import _profiler_enabled as profiler_enabled
from torch._C._autograd import _saved_tensors_hooks_is_enabled as saved_tensors_hooks_enabled  # type: ignore[attr-defined]
from torch._C._dynamo import eval_frame
from torch._C._functorch import (
    CGradInterpreterPtr,
    CJvpInterpreterPtr,
    CVmapInterpreterPtr,
    TransformType,
    get_interpreter_stack,
    get_unwrapped,
    is_batchedtensor,
    is_functorch_wrapped_tensor,
    is_legacy_batchedtensor,
    maybe_current_level,
    maybe_get_bdim,
    peek_interpreter_stack,
    pop_dynamic_layer_stack,
    push_dynamic_layer_stack,
    unwrap_if_dead,
)
from torch._C._functorch import _add_batch_dim as add_batch_dim
from torch._C._functorch import _unwrap_batched as unwrap_batched
from torch._C._functorch import _unwrap_for_grad as unwrap_for_grad
from torch._C._functorch import _wrap_for_grad as wrap_for_grad
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch._functorch.utils import enable_single_level_autograd_function
from torch._library.autograd import Info, make_autograd_impl
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.autograd import forward_ad
from torch.autograd.forward_ad import _set_fwd_grad_enabled as set_forward_mode_enabled
from torch.autograd.function import _SingleLevelFunction as SingleLevelFunction
from torch.overrides import _pop_mode as pop_function_mode
from torch.overrides import _push_mode as push_function_mode
from torch.utils import _pytree as pytree
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _disable_current_modes as without_dispatch_modes

__all__ = [
    "BelowAutograd",
    "CGradInterpreterPtr",
    "CJvpInterpreterPtr",
    "CVmapInterpreterPtr",
    "DeviceContext",
    "DisableFunctorch",
    "DisableTorchFunction",
    "EnableTorchFunction",
    "FakeTensor",
    "FunctionalTensor",
    "Info",
    "SingleLevelFunction",
    "TransformType",
    "add_batch_dim",
    "apply_of",
    "enable_single_level_autograd_function",
    "forward_mode_level",
    "get_interpreter_stack",
    "get_unwrapped",
    "has_kernel_for_dispatch_key",
    "is_batchedtensor",
    "is_functorch_wrapped_tensor",
    "is_legacy_batchedtensor",
    "len_dispatch_stack",
    "len_function_stack",
    "make_autograd_impl",
    "maybe_current_level",
    "maybe_get_bdim",
    "nonstrict_trace",
    "peek_interpreter_stack",
    "pop_dynamic_layer_stack",
    "pop_function_mode",
    "profiler_enabled",
    "push_dynamic_layer_stack",
    "push_function_mode",
    "pytree",
    "saved_tensors_hooks_enabled",
    "set_forward_mode_enabled",
    "skip_in_dynamo",
    "temporarily_clear_interpreter_stack",
    "unwrap_batched",
    "unwrap_for_grad",
    "unwrap_if_dead",
    "version_of",
    "without_dispatch_modes",
    "wrap_for_grad",
]

_SKIP = eval_frame._FrameExecStrategy(eval_frame._FrameAction.SKIP, eval_frame._FrameAction.SKIP)


def skip_in_dynamo(code: CodeType) -> None:
    """Make torch.compile skip frames of this code and what they call.

    `torch.compiler.disable` would add a wrapper, and import Dynamo.
    """
    eval_frame.set_code_exec_strategy(code, _SKIP)


def nonstrict_trace(function: Callable[..., Any]) -> Any:
    """`torch._dynamo.nonstrict_trace`; imports Dynamo, which takes as long as the rest of torch."""
    import torch._dynamo

    return torch._dynamo.nonstrict_trace(function)


def apply_of(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """`function.apply` without its support for transforms: faster if none is active."""
    return torch._C._FunctionBase.__dict__["apply"].__get__(None, function)  # type: ignore[no-any-return]


def forward_mode_level() -> int:
    """The level of forward-mode differentiation, −1 outside of it."""
    return forward_ad._current_level


def version_of(tensor: Tensor) -> int:
    """The version counter of a tensor, which changes in place increment; inference tensors have none."""
    return tensor._version
