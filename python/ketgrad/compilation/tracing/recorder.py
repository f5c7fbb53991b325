"""Recording: what a function does with tensors, while it runs once.

A `Recorder` is a torch function mode: it sees every torch call of the function, before autograd and dispatch, and adds
it to a `Trace` as a `Node`. Properties of tensors that the function reads (shapes, dtypes) are logged, and reads of
values are refused, so that the same calls are right for other values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from types import EllipsisType, NoneType
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ...native.torch_private import DisableTorchFunction, is_functorch_wrapped_tensor
from ..modes import autocast_state
from .affine import Output, affines_of
from .callers import direct_caller, responsible_caller, users_line
from .captures import Captures
from .trace import Captured, Node, Ref, Trace, Value, guard_of, name_of, names, version

_PROPERTIES = names(
    "__len__ can_cast dense_dim device dim dtype element_size get_device is_coalesced is_complex is_conj is_cpu "
    "is_cuda is_floating_point is_meta is_neg is_nested is_quantized is_same_size is_signed is_sparse is_sparse_csr "
    "itemsize layout nbytes ndim ndimension nelement numel promote_types requires_grad result_type shape size "
    "sparse_dim"
)
"""Properties that a function may read of any tensor: the trace depends on them, and they do not depend on values."""

_PROPERTIES_FOR_TORCH = names(
    "_is_view grad_fn is_contiguous is_inference is_leaf names register_hook retains_grad storage_offset stride"
)
"""Properties that torch itself may read besides: they only affect how it computes a result."""

_PRINTING = frozenset({"__repr__", "__format__", "__hash__", "__dir__"})
"""Calls that print a tensor; they are not recorded."""

_FIXED = names(
    "arange as_tensor asarray eye full full_like linspace logspace ones ones_like scalar_tensor tensor "
    "zeros zeros_like tril_indices triu_indices"
)
"""Calls whose results are the same every time, given the same arguments."""

_VALUE_SHAPED = names("argwhere masked_select nonzero unique unique_consecutive bincount combinations")
"""Calls whose results have shapes that depend on values."""


_ATOMS = frozenset({NoneType, EllipsisType, float, str})
"""Classes of arguments that are no tensors, shapes or integers, and have none inside."""


class _LoggedShape(Sequence[int]):
    """A shape that logs reads. It is no tuple, because C code such as NumPy's would read one without its methods."""

    def __init__(self, sizes: torch.Size, log: list[Any]) -> None:
        self._sizes, self._log = sizes, log

    def whole(self) -> torch.Size:
        """The whole shape, logged."""
        self._log.append(tuple(self._sizes))
        return self._sizes

    def __getitem__(self, index: Any) -> Any:
        found = self._sizes[index]
        self._log.append(found)
        return found

    def __len__(self) -> int:
        return len(self._sizes)

    def __iter__(self) -> Iterator[int]:
        return iter(self.whole())

    def __eq__(self, other: object) -> bool:
        return self.whole() == (other.whole() if isinstance(other, _LoggedShape) else other)

    def __hash__(self) -> int:
        return hash(self.whole())

    def __add__(self, other: Any) -> Any:
        return self.whole() + tuple(other)

    def __radd__(self, other: Any) -> Any:
        return tuple(other) + self.whole()

    def __mul__(self, times: int) -> Any:
        return self.whole() * times

    def __repr__(self) -> str:
        return repr(self.whole())

    def numel(self) -> int:
        """The number of elements."""
        return self.whole().numel()


# --- recording --------------------------------------------------------------------------------------------------------


class Recorder(TorchFunctionMode):
    """Records what functions do while they run under this mode.

    Args:
        arguments: the tensors among the functions' arguments, each at one place only.
        captures: where to find other tensors.
    """

    def __init__(self, arguments: Sequence[Tensor], captures: Captures) -> None:
        super().__init__()
        self.captures = captures
        self.trace = Trace()
        self.trace.arguments = [self.trace.add(tensor).number for tensor in arguments]
        self.devices = [tensor.device for tensor in arguments if tensor.device.type == "cuda"]
        self.autocast = autocast_state()

    def run(self, function: Callable[[], Any]) -> Any:
        """Run a function and record it; returns its result."""
        with self._forked_random_state(), self:
            return function()

    def _forked_random_state(self) -> AbstractContextManager[None]:
        """Restores the random state after a trace, so that the plan draws the same numbers when it runs."""
        return torch.random.fork_rng(devices=list(set(self.devices)))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = name_of(func), kwargs or {}
        if name in _PROPERTIES and direct_caller().builds_circuits:  # most reads by far
            return func(*args, **kwargs)
        if name in _PROPERTIES or name in _PRINTING or (name in _PROPERTIES_FOR_TORCH and direct_caller().is_torch):
            return self._read_property(func, name, args, kwargs)
        node = self._node_of(func, args, kwargs)
        inputs = [self.trace.values[number] for number in dict.fromkeys(node.inputs)]
        result = func(*_plain(args), **_plain(kwargs))
        with DisableTorchFunction():  # other modes must not see the calls of the recorder
            return self._observe(node, name, inputs, result)

    def _node_of(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Node:
        """The node of a call, without its outputs."""
        inputs: list[int] = []
        refs = tuple([self._with_refs(item, inputs) for item in args])
        return Node(func, refs, self._with_refs(kwargs, inputs) if kwargs else {}, inputs, [], torch.is_grad_enabled())

    def _observe(self, node: Node, name: str, inputs: list[Value], result: Any) -> Any:
        changes = any(version(value.tensor) != value.version for value in inputs)
        if changes:
            self._refuse_outer_changes(name)
        outputs = list(_tensors(result, ()))
        if not outputs and not changes:
            return self._read_value(name, result, inputs)
        if name == "requires_grad_":
            self._refuse("requires_grad is set in a compiled function; ", "set it before the call")
        if name == "data":
            self._refuse("the data of a tensor is taken in a compiled function; ", "use detach()")
        self._require_fixed_shape(node, name)
        self._record(node, name, inputs, outputs, changes)
        return result

    # Reads.

    def _read_property(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*_plain(args), **_plain(kwargs))
        caller = responsible_caller()
        if name in _PRINTING:
            return self._text(args[0], result) if caller.is_library else result
        if caller.builds_circuits or caller.is_library:
            return result
        if caller.executes_circuits:
            self._refuse(
                "circuits are executed in a function that is being compiled; ",
                "return their tapes, or compile them by themselves",
            )
        if isinstance(result, torch.Size):
            return _LoggedShape(result, self.trace.log)
        self.trace.log.append(result)
        return result

    def _text(self, tensor: Tensor, text: Any) -> Any:
        """A text for a tensor without its values, for libraries that compare operations by their texts."""
        number = self.trace.number_of(tensor)
        unknown = number is not None and not self.trace.values[number].is_constant
        return f"<tensor {number}>" if unknown and isinstance(text, str) else text

    def _read_value(self, name: str, result: Any, inputs: list[Value]) -> Any:
        """The result of a call that returned no tensors: None, or values of tensors."""
        if all(value.is_constant for value in inputs):
            return result
        caller = responsible_caller()
        if name == "numpy" and caller.builds_circuits and not inputs[0].tensor.is_floating_point():
            self._guard_pattern(inputs[0])  # the pattern of a sparse matrix
            return result
        if caller.only_checks:
            return result
        substitute = caller.substitute(result)
        if substitute is not None:
            return substitute
        if result is None:
            self._refuse(f"torch's {name} is not supported in a compiled function; ", "do it before the call")
        self._refuse(
            f"the circuit depends on the value of a tensor (torch's {name}), but a compiled function is traced once; ",
            "pass that value as a Python argument (each value is traced), choose with torch.where, or use kg.execute",
        )

    def _guard_pattern(self, value: Value) -> None:
        expected = value.tensor.detach().clone()
        node = Node(_require_pattern, (Ref(value.number), expected), {}, [value.number], [], True)
        self.trace.nodes.append(node)

    def _require_fixed_shape(self, node: Node, name: str) -> None:
        masked = name == "__getitem__" and any(self._is_mask(number) for number in node.inputs[1:])
        lone_where = name == "where" and len(node.args) + len(node.kwargs) == 1
        counted = name == "repeat_interleave" and len(set(node.inputs)) > 1
        if name in _VALUE_SHAPED or masked or lone_where or counted:
            self._refuse(f"the shape of torch's {name} depends on the values of a tensor; ", "use torch.where")

    def _is_mask(self, number: int) -> bool:
        return self.trace.values[number].tensor.dtype in (torch.bool, torch.uint8)

    # Computation.

    def _record(self, node: Node, name: str, inputs: list[Value], outputs: list[Output], changes: bool) -> None:
        if autocast_state() != self.autocast:
            self._refuse("autocast is switched in a compiled function; ", "switch it around the call")
        known = [self.trace.number_of(tensor) for tensor, _ in outputs]
        if not changes and all(number is not None for number in known):
            return  # it returned its argument: contiguous(), to() of the same dtype
        is_constant = all(v.is_constant for v in inputs) and (bool(inputs) or name in _FIXED) and not changes
        if len(outputs) != 1 or outputs[0][1]:
            self.trace.log.append(len(outputs))
        affines = [None] * len(outputs) if changes else affines_of(self.trace, node, name, outputs)
        for (tensor, path), number, affine in zip(outputs, known, affines, strict=True):
            if number is None:
                number = self.trace.add(tensor, affine, is_constant).number
            node.outputs.append((number, path))
        node.args = _with_free_rows(name, node.args, inputs)
        self.trace.nodes.append(node)
        if changes:
            self._note_changes(inputs)

    def _refuse_outer_changes(self, name: str) -> None:
        """Refuse changes in place of arguments and captured tensors."""
        outside = [*self.trace.arguments, *[captured.number for captured in self.trace.captured]]
        for number in outside:
            value = self.trace.values[number]
            if version(value.tensor) != value.version:
                whose = "an argument" if number in self.trace.arguments else "a tensor from outside the function"
                self._refuse(f"torch's {name} changes {whose} in place; ", "a compiled function changes only its own")

    def _note_changes(self, inputs: list[Value]) -> None:
        self.trace.mutates = True
        for value in inputs:
            value.version, value.grad_fn = version(value.tensor), value.tensor.grad_fn
            value.is_constant = False

    # Arguments of torch calls.

    def _with_refs(self, item: Any, inputs: list[int]) -> Any:
        """The arguments of a torch call, with a `Ref` for each tensor; their numbers are appended to `inputs`."""
        if type(item) in _ATOMS:
            return item
        if isinstance(item, Tensor):
            inputs.append(self.number(item))
            return Ref(inputs[-1])
        if isinstance(item, int):
            self.trace.largest = max(self.trace.largest, abs(item))
            return item
        if type(item) is _LoggedShape:
            return tuple(item.whole())
        if isinstance(item, (tuple, list)):
            parts = [self._with_refs(part, inputs) for part in item]
            return tuple(parts) if isinstance(item, tuple) else parts
        if isinstance(item, dict):
            return {key: self._with_refs(part, inputs) for key, part in item.items()}
        if isinstance(item, slice):
            return slice(*[self._with_refs(part, inputs) for part in (item.start, item.stop, item.step)])
        return item

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor; an unknown tensor comes from outside the function and is captured."""
        number = self.trace.number_of(tensor)
        if number is None:
            return self._capture(tensor)
        value = self.trace.values[number]
        if version(tensor) != value.version:  # a view of a tensor that was changed in place
            value.version, value.grad_fn, value.is_constant = version(tensor), tensor.grad_fn, False
        elif tensor.grad_fn is not value.grad_fn:
            self._refuse(
                "the gradient of a tensor does not come from recorded torch calls (a torch.autograd.Function?); ",
                "do it before the call and pass its result",
            )
        return number

    def _capture(self, tensor: Tensor) -> int:
        if is_functorch_wrapped_tensor(tensor):
            self._refuse(
                "a tensor from outside the function is under a torch.func transform while the function is traced; ",
                "pass it as an argument, or call the function once before without the transform",
            )
        location = self.captures.locate(tensor)
        if location is None:
            self._refuse(
                f"kg.compile cannot tell where a tensor of shape {tuple(tensor.shape)} comes from (it is not an "
                "argument, not reachable from a closure or a global, and not the result of a recorded torch call); ",
                "pass it as an argument, or make it with torch.tensor or torch.as_tensor",
            )
        if tensor.layout is not torch.strided:
            self._refuse(f"a tensor of {tensor.layout} comes from outside the function; ", "pass it as an argument")
        value = self.trace.add(tensor)
        self.trace.captured.append(Captured(value.number, location, guard_of(tensor)))
        return value.number

    # Messages.

    def _refuse(self, what: str, instead: str) -> NoReturn:
        refuse(what, instead)


def refuse(what: str, instead: str) -> NoReturn:
    """Raise NotImplementedError with the line of the traced function."""
    raise NotImplementedError(f"{users_line()}{what}{instead}")


def _with_free_rows(name: str, args: tuple[Any, ...], inputs: list[Value]) -> tuple[Any, ...]:
    """The arguments of a reshape; if it keeps the first axis, with −1 in place of that axis' size while tracing."""
    if name not in ("reshape", "view") or len(args) < 2:
        return args
    source = inputs[0].tensor
    is_sequence = isinstance(args[1], (tuple, list))
    sizes = args[1] if is_sequence else args[1:]
    if not sizes or not source.dim() or sizes[0] != source.shape[0] or not all(type(n) is int and n > 0 for n in sizes):
        return args
    free_sizes = (-1, *sizes[1:])
    return (args[0], free_sizes) if is_sequence else (args[0], *free_sizes)


def _plain(item: Any) -> Any:
    """Arguments with torch's own shapes in place of logged ones."""
    if type(item) is _LoggedShape:
        return item._sizes
    if type(item) in (tuple, list):
        return type(item)([_plain(part) for part in item])
    if type(item) is dict:
        return {key: _plain(part) for key, part in item.items()}
    return item


def _tensors(result: Any, path: tuple[int, ...]) -> Iterator[Output]:
    """The tensors in the result of a torch call, and the indices that lead to each."""
    if isinstance(result, Tensor):
        yield result, path
    elif isinstance(result, (tuple, list)):
        for i, part in enumerate(result):
            yield from _tensors(part, (*path, i))


def _require_pattern(indices: Tensor, expected: Tensor) -> None:
    if not torch.equal(indices, expected):
        raise ValueError(
            "the pattern of a sparse matrix has changed since the function was traced; pass its values as a "
            "tensor and build the matrix from constant indices, or use kg.execute"
        )
