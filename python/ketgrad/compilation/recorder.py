"""Tracing: what a function does with tensors, recorded while it runs once.

A `Recorder` is a torch function mode: every torch call that the function makes is recorded as a `Node` before its
result goes on to the function. What is merely moved about (slices, views) or multiplied by and added to numbers is
known as an `Affine` of the tensor that it comes from. What the function learns about tensors (shapes, dtypes) is kept
in a log, and what it may not learn, their values, is refused: so the same calls are right for other values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..native.torch_private import DisableTorchFunction, is_functorch_wrapped_tensor, version_of
from .callers import direct_caller, responsible_caller, users_line
from .captures import Captures, Location

# --- what is recorded -------------------------------------------------------------------------------------------------


class Affine(NamedTuple):
    """A tensor whose elements are scale × an element of its root + offset.

    Attributes:
        root: the number of the value that it comes from.
        places: in the tensor's shape, the flat index of each element in the root (int64).
    """

    root: int
    places: Tensor
    scale: float
    offset: float


@dataclass(slots=True)
class Value:
    """A tensor of a trace.

    Attributes:
        number: its name in the trace.
        tensor: as it was while tracing.
        affine: where its elements come from; None: it is a root itself.
        is_constant: the same in every call: it depends on no argument, on nothing outside the function, on no chance.
        version, grad_fn: the tensor's own when it was recorded.
    """

    number: int
    tensor: Tensor
    affine: Affine | None
    is_constant: bool
    version: int
    grad_fn: Any


class Ref(NamedTuple):
    """A tensor among a node's arguments."""

    number: int


@dataclass(slots=True)
class Node:
    """A torch call. Each output is a value's number and the indices that lead to it in the call's result."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: list[tuple[int, tuple[int, ...]]]
    has_grad: bool

    def inputs(self) -> Iterator[int]:
        """The values that it reads."""
        return _refs((self.args, self.kwargs))


@dataclass(slots=True)
class Captured:
    """A captured tensor: it comes from outside the function, and is read anew from its places before each call.

    Attributes:
        guard: `guard_of` the tensor while tracing; another tensor is taken where it has the same.
    """

    number: int
    location: Location
    guard: tuple[Any, ...]


@dataclass(slots=True)
class Trace:
    """A function's run.

    Attributes:
        arguments: the values of its tensor arguments.
        captured: tensors that it reads from outside.
        mutates: some node changes a tensor in place.
        log: what the function learned about tensors, in order.
        largest: the largest integer among the arguments of its torch calls.
    """

    values: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    arguments: list[int] = field(default_factory=list)
    captured: list[Captured] = field(default_factory=list)
    mutates: bool = False
    log: list[Any] = field(default_factory=list)
    largest: int = 0
    _numbers: dict[int, int] = field(default_factory=dict)
    _indices: dict[int, Tensor] = field(default_factory=dict)

    def number_of(self, tensor: Tensor) -> int | None:
        """The number of a tensor that is known."""
        return self._numbers.get(id(tensor))

    def add(self, tensor: Tensor, affine: Affine | None = None, is_constant: bool = False) -> Value:
        """A new value."""
        value = Value(len(self.values), tensor, affine, is_constant, _version(tensor), tensor.grad_fn)
        self.values.append(value)
        self._numbers[id(tensor)] = value.number
        return value

    def affine(self, number: int) -> Affine:
        """Where the elements of a value come from; those of a root from itself."""
        value = self.values[number]
        if value.affine is not None and not self.mutates:
            return value.affine
        index = self._indices.get(number)
        if index is None:
            index = self._indices[number] = torch.arange(value.tensor.numel()).view(value.tensor.shape)
        return Affine(number, index, 1.0, 0.0)


def guard_of(tensor: Tensor) -> tuple[Any, ...]:
    """The guard of a tensor, in Dynamo's sense: all of it that a trace depends on."""
    return tensor.shape, tensor.dtype, tensor.requires_grad, tensor.device, tensor.layout


def _refs(item: Any) -> Iterator[int]:
    if isinstance(item, Ref):
        yield item.number
    elif isinstance(item, (tuple, list)):
        for part in item:
            yield from _refs(part)
    elif isinstance(item, dict):
        yield from _refs(list(item.values()))
    elif isinstance(item, slice):
        yield from _refs((item.start, item.stop, item.step))


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else version_of(tensor)


# --- kinds of torch calls ---------------------------------------------------------------------------------------------


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


_MOVES = names(
    "__getitem__ T mT broadcast_to chunk clone contiguous diagonal expand flatten flip hsplit moveaxis movedim narrow "
    "permute ravel repeat reshape roll select split split_with_sizes squeeze swapaxes swapdims t tensor_split tile "
    "transpose unbind unflatten unsqueeze view vsplit"
)
"""Their results hold elements of their one tensor."""

_SCALINGS: dict[str, Callable[[float, float, float, bool], tuple[float, float]]] = {
    "add": lambda s, o, c, _: (s, o + c),
    "sub": lambda s, o, c, first: (s, o - c) if first else (-s, c - o),
    "rsub": lambda s, o, c, _: (-s, c - o),
    "mul": lambda s, o, c, _: (s * c, o * c),
    "div": lambda s, o, c, first: (s / c, o / c) if first and c else (math.nan, math.nan),
    "neg": lambda s, o, c, _: (-s, -o),
}
"""The new scale and offset of a tensor by a number; `first`: the tensor is the left operand."""

_ALIASES = {
    "__add__": "add", "__radd__": "add", "__sub__": "sub", "__rsub__": "rsub", "__mul__": "mul", "__rmul__": "mul",
    "__truediv__": "div", "true_divide": "div", "divide": "div", "multiply": "mul", "subtract": "sub",
    "negative": "neg", "__neg__": "neg",
}  # fmt: skip

_HAS_CUDA = torch.version.cuda is not None

_LARGEST_ROOT = 1 << 24
"""Elements of a tensor whose slices are followed."""

_FACTS = names(
    "__len__ can_cast dense_dim device dim dtype element_size get_device is_coalesced is_complex is_conj is_cpu "
    "is_cuda is_floating_point is_meta is_neg is_nested is_quantized is_same_size is_signed is_sparse is_sparse_csr "
    "itemsize layout nbytes ndim ndimension nelement numel promote_types requires_grad result_type shape size "
    "sparse_dim"
)
"""What a function may ask of any tensor: a trace depends on all of it, and nothing of it on the values."""

_INNER_FACTS = names(
    "_is_view grad_fn is_contiguous is_inference is_leaf names register_hook retains_grad storage_offset stride"
)
"""What torch itself may ask besides: the answers change nothing but how a result is computed."""

_TEXTS = frozenset({"__repr__", "__format__", "__hash__", "__dir__"})
"""What prints a tensor, and is not looked at."""

_FIXED = names(
    "arange as_tensor asarray eye full full_like linspace logspace ones ones_like scalar_tensor tensor "
    "zeros zeros_like tril_indices triu_indices"
)
"""Their results are the same every time, given the same arguments."""

_VALUE_SHAPED = names("argwhere masked_select nonzero unique unique_consecutive bincount combinations")
"""The shapes of their results depend on values."""


def name_of(function: Any) -> str:
    """The name of what a torch function mode sees called; of a property's getter, the property's."""
    name: str = getattr(function, "__name__", "")
    if name == "__get__":
        return str(function.__self__.__name__)
    return f"assignment to {function.__self__.__name__}" if name == "__set__" else name


class _Shape(Sequence[int]):
    """A shape that logs what is read of it. No tuple, which NumPy and others would read unseen."""

    def __init__(self, sizes: torch.Size, log: list[Any]) -> None:
        self._sizes, self._log = sizes, log

    def whole(self) -> torch.Size:
        """All of it."""
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
        return self.whole() == (other.whole() if isinstance(other, _Shape) else other)

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
        """Run a function and record what it does; its result."""
        with self._untouched_chance(), self:
            return function()

    def _untouched_chance(self) -> AbstractContextManager[None]:
        """Random numbers that are drawn while tracing are drawn again when the trace is executed."""
        return torch.random.fork_rng(devices=list(set(self.devices)))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, kwargs = name_of(func), kwargs or {}
        if name in _FACTS or name in _TEXTS or (name in _INNER_FACTS and direct_caller().is_torch):
            return self._fact(func, name, args, kwargs)
        taken, given = self._take((args, kwargs)), _given((args, kwargs))
        inputs = [self.trace.values[number] for number in dict.fromkeys(_refs(taken))]
        result = func(*given[0], **given[1])
        with DisableTorchFunction():  # what is noted of it is none of a mode's business
            return self._note(func, name, taken, inputs, result)

    def _note(self, func: Any, name: str, taken: Any, inputs: list[Value], result: Any) -> Any:
        self._look_for_changes(inputs, name)
        outputs = list(_tensors(result, ()))
        if not outputs and not self._was_changed(inputs):
            return self._answer(name, result, inputs)
        if name == "requires_grad_":
            self._refuse("requires_grad is set in a compiled function; ", "set it before the call")
        if name == "data":
            self._refuse("the data of a tensor is taken in a compiled function; ", "use detach()")
        self._require_fixed_shape(name, inputs, taken)
        self._record(func, name, taken, inputs, outputs)
        return result

    # What a function learns.

    def _fact(self, func: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = func(*_given(args), **_given(kwargs))
        caller = responsible_caller()
        if name in _TEXTS:
            return self._text(args[0], result) if caller.is_library else result
        if caller.builds_circuits or caller.is_library:
            return result
        if caller.executes_circuits:
            self._refuse(
                "circuits are executed in a function that is being compiled; ",
                "return their tapes, or compile them by themselves",
            )
        if isinstance(result, torch.Size):
            return _Shape(result, self.trace.log)
        self.trace.log.append(result)
        return result

    def _text(self, tensor: Tensor, text: Any) -> Any:
        """What a library, which tells operations apart by it, is given for the text of a tensor."""
        number = self.trace.number_of(tensor)
        unknown = number is not None and not self.trace.values[number].is_constant
        return f"<tensor {number}>" if unknown and isinstance(text, str) else text

    def _answer(self, name: str, result: Any, inputs: list[Value]) -> Any:
        """A result without tensors: nothing, or values."""
        if all(value.is_constant for value in inputs):
            return result
        caller = responsible_caller()
        if name == "numpy" and caller.builds_circuits and not inputs[0].tensor.is_floating_point():
            self._expect(inputs[0])  # the pattern of a sparse matrix
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

    def _expect(self, value: Value) -> None:
        expected = value.tensor.detach().clone()
        node = Node(_require_pattern, (Ref(value.number), expected), {}, [], True)
        self.trace.nodes.append(node)

    def _require_fixed_shape(self, name: str, inputs: list[Value], taken: Any) -> None:
        masked = name == "__getitem__" and any(self._is_mask(number) for number in _refs(taken[0][1:]))
        lone_where = name == "where" and len(taken[0]) + len(taken[1]) == 1
        counted = name == "repeat_interleave" and len(inputs) > 1
        if name in _VALUE_SHAPED or masked or lone_where or counted:
            self._refuse(f"the shape of torch's {name} depends on the values of a tensor; ", "use torch.where")

    def _is_mask(self, number: int) -> bool:
        return self.trace.values[number].tensor.dtype in (torch.bool, torch.uint8)

    # What it does.

    def _record(self, func: Any, name: str, taken: Any, inputs: list[Value], outputs: list[Any]) -> None:
        if autocast_state() != self.autocast:
            self._refuse("autocast is switched in a compiled function; ", "switch it around the call")
        known = [self.trace.number_of(tensor) for tensor, _ in outputs]
        changes = self._was_changed(inputs)
        if not changes and all(number is not None for number in known):
            return  # it gave back what it was given: contiguous(), to() of the same dtype
        is_constant = all(v.is_constant for v in inputs) and (bool(inputs) or name in _FIXED) and not changes
        if len(outputs) != 1 or outputs[0][1]:
            self.trace.log.append(len(outputs))
        numbers = []
        for (tensor, path), number in zip(outputs, known, strict=True):
            if number is None:
                affine = None if changes else self._follow(func, name, taken, inputs, tensor, path)
                number = self.trace.add(tensor, affine, is_constant).number
            numbers.append((number, path))
        args = _with_free_rows(name, taken[0], inputs)
        self.trace.nodes.append(Node(func, args, taken[1], numbers, torch.is_grad_enabled()))
        if changes:
            self._settle_changes(inputs)

    def _follow(
        self, func: Any, name: str, taken: Any, inputs: list[Value], tensor: Tensor, path: tuple[int, ...]
    ) -> Affine | None:
        """The output as an affine of what its one input comes from, None where it is something else."""
        if len(inputs) != 1 or self.trace.mutates:
            return None
        value = inputs[0]
        own, (args, kwargs) = value.tensor, taken
        if own.layout is not torch.strided or own.is_complex() or own.numel() > _LARGEST_ROOT:
            return None
        if tensor.requires_grad != own.requires_grad or tensor.dtype is not own.dtype:
            return None  # detached, or converted
        if name in _MOVES and args and isinstance(args[0], Ref) and not _has_refs(args[1:], kwargs):
            start = self.trace.affine(value.number)
            found = func(start.places, *args[1:], **kwargs)
            for step in path:
                found = found[step]
            is_move = found.dtype is torch.int64 and found.shape == tensor.shape
            return start._replace(places=found) if is_move else None
        return self._scaled(name, taken, value)

    def _scaled(self, name: str, taken: Any, value: Value) -> Affine | None:
        change = _SCALINGS.get(_ALIASES.get(name, name))
        args, kwargs = taken
        if change is None or kwargs or value.tensor.dtype not in (torch.float32, torch.float64):
            return None
        numbers = [a for a in args if not isinstance(a, Ref)]
        if len(args) > 2 or len(numbers) != len(args) - 1 or any(type(n) is bool for n in numbers):
            return None
        if not all(isinstance(n, (int, float)) for n in numbers) or (len(args) == 1) != (change is _SCALINGS["neg"]):
            return None
        start = self.trace.affine(value.number)
        number = float(numbers[0]) if numbers else 0.0
        scale, offset = change(start.scale, start.offset, number, isinstance(args[0], Ref))
        finite = math.isfinite(scale) and math.isfinite(offset)
        return Affine(start.root, start.places, scale, offset) if finite else None

    def _was_changed(self, inputs: list[Value]) -> bool:
        return any(_version(value.tensor) != value.version for value in inputs)

    def _look_for_changes(self, inputs: list[Value], name: str) -> None:
        """Refuse a change in place of what does not belong to the function."""
        if not self._was_changed(inputs):
            return
        outer = [*self.trace.arguments, *[captured.number for captured in self.trace.captured]]
        for number in outer:
            value = self.trace.values[number]
            if _version(value.tensor) != value.version:
                whose = "an argument" if number in self.trace.arguments else "a tensor from outside the function"
                self._refuse(f"torch's {name} changes {whose} in place; ", "a compiled function changes only its own")

    def _settle_changes(self, inputs: list[Value]) -> None:
        self.trace.mutates = True
        for value in inputs:
            value.version, value.grad_fn = _version(value.tensor), value.tensor.grad_fn
            value.is_constant = False

    # Arguments of torch calls.

    def _take(self, item: Any) -> Any:
        """The arguments of a torch call, with a `Ref` for each tensor."""
        if isinstance(item, Tensor):
            return Ref(self.number(item))
        if isinstance(item, _Shape):
            return tuple(item.whole())
        if isinstance(item, (tuple, list)):
            parts = [self._take(part) for part in item]
            return tuple(parts) if isinstance(item, tuple) else parts
        if isinstance(item, dict):
            return {key: self._take(part) for key, part in item.items()}
        if isinstance(item, slice):
            return slice(self._take(item.start), self._take(item.stop), self._take(item.step))
        if isinstance(item, int):
            self.trace.largest = max(self.trace.largest, abs(item))
        return item

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor; one that is met for the first time comes from outside the function."""
        number = self.trace.number_of(tensor)
        if number is None:
            return self._capture(tensor)
        value = self.trace.values[number]
        if _version(tensor) != value.version:  # a view of something that was changed
            value.version, value.grad_fn, value.is_constant = _version(tensor), tensor.grad_fn, False
        elif tensor.grad_fn is not value.grad_fn:
            self._refuse(
                "a tensor has another derivative than torch's calls explain (a torch.autograd.Function?); ",
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
                f"a tensor of shape {tuple(tensor.shape)} comes from where kg.compile cannot follow it (not an "
                "argument, a closure, a global, or reached from one; or not made by a torch call that can be seen); ",
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


def is_autocast() -> bool:
    """Whether autocast is on, for any kind of device that there is."""
    return torch.is_autocast_enabled("cpu") or (_HAS_CUDA and torch.is_autocast_enabled("cuda"))


def autocast_state() -> tuple[Any, ...]:
    """What autocast does, for each kind of device that there is."""
    kinds = ("cpu", "cuda") if _HAS_CUDA else ("cpu",)
    return tuple([(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds])


def _with_free_rows(name: str, args: tuple[Any, ...], inputs: list[Value]) -> tuple[Any, ...]:
    """The arguments of a reshape that keeps the rows of its tensor, such that it keeps as many as there are."""
    if name not in ("reshape", "view") or len(args) < 2:
        return args
    own = inputs[0].tensor
    is_sequence = isinstance(args[1], (tuple, list))
    sizes = args[1] if is_sequence else args[1:]
    if not sizes or not own.dim() or sizes[0] != own.shape[0] or not all(type(n) is int and n > 0 for n in sizes):
        return args
    free = (-1, *sizes[1:])
    return (args[0], free) if is_sequence else (args[0], *free)


def _has_refs(*items: Any) -> bool:
    return next(_refs(list(items)), None) is not None


def _given(item: Any) -> Any:
    """Arguments as torch takes them."""
    if isinstance(item, _Shape):
        return item._sizes
    if type(item) in (tuple, list):
        return type(item)([_given(part) for part in item])
    if type(item) is dict:
        return {key: _given(part) for key, part in item.items()}
    return item


def _tensors(result: Any, path: tuple[int, ...]) -> Iterator[tuple[Tensor, tuple[int, ...]]]:
    """The tensors of a torch call's result, and where they are in it."""
    if isinstance(result, Tensor):
        yield result, path
    elif isinstance(result, (tuple, list)):
        for i, part in enumerate(result):
            yield from _tensors(part, (*path, i))


def _require_pattern(indices: Tensor, expected: Tensor) -> None:
    if not torch.equal(indices, expected):
        raise ValueError(
            "the pattern of a sparse matrix is another one than when the function was traced; pass its values as a "
            "tensor and build the matrix from constant indices, or use kg.execute"
        )
