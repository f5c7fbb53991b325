"""`compile`: a function that returns tapes, or a QNode, becomes one native call, traced once per structure."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from types import FunctionType, MethodType
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.autograd.graph import saved_tensors_hooks

from ..autograd import derivative_rule, functions, interpreter_levels
from ..execution.explain import CompiledExplanation, StructureExplanation, explain_program
from ..execution.jacobian_products import as_tapes
from ..execution.programs import structure_cache
from ..native import operators
from ..native.profiling import span
from ..native.torch_private import (
    DeviceContext,
    DisableTorchFunction,
    EnableTorchFunction,
    FakeTensor,
    FunctionalTensor,
    apply_of,
    get_unwrapped,
    is_batchedtensor,
    is_functorch_wrapped_tensor,
    len_dispatch_stack,
    len_function_stack,
    maybe_get_bdim,
    pop_function_mode,
    push_function_mode,
    pytree,
    saved_tensors_hooks_enabled,
    temporarily_clear_interpreter_stack,
    without_dispatch_modes,
)
from .callers import call_traced
from .captures import Captures
from .front_ends import Circuits, front_end_of, front_ends, operators_front_end
from .handles import handle_of
from .lowering import Call, Lowering, Plan, same_plan
from .recorder import Recorder, autocast_state, guard_of, is_autocast

_LARGEST_TRIAL = 1 << 24
"""Numbers in an argument of the second trace, which is made to see whether the batch size matters."""

_Key = tuple[Any, ...]

_WITHOUT_VALUES = (FakeTensor, FunctionalTensor)
"""What torch.compile and torch.export trace with."""

# They are declared to return nothing.
_split_copy: Any = torch.split_with_sizes_copy
_unbind_copy: Any = torch.unbind_copy


# --- the operator call under autograd ---------------------------------------------------------------------------------


@interpreter_levels.not_for_dynamo
class _Execute(torch.autograd.Function):
    """One operator call; reshapes and splits inside, so that autograd records nothing else."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, ...]:
        with span("pack"):
            inputs = _pack(call, tensors)
        batch = _batch_of(call, inputs)
        keep = derivative_rule.keeps_state(batch * call.ket_bytes, call.device, call.recompute)
        real, complex_, ket = operators.run_execute(call.id, inputs, keep)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(ket, *tensors)
        # Results of no numbers are their own cotangents. Others must not be kept: they would keep themselves alive.
        ctx.rest = call, batch, real if not call.real_results else complex_ if not call.complex_results else None
        with span("unpack"):
            return _split(call, batch, real, complex_)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        call, batch, empty = ctx.rest
        ket, *tensors = ctx.saved_tensors
        if all(c is None for c in cotangents):
            return (None,) * len(ctx.needs_input_grad)
        needed = [False] * len(call.constants)
        for view, is_needed in zip(call.views, ctx.needs_input_grad[1:], strict=True):
            needed[view.input] = is_needed
        with span("pack"):
            inputs = _pack(call, tensors)
            joined = _join(call, batch, cotangents, inputs[0], empty)
        found = derivative_rule.gradients(call.id, inputs, ket, joined, needed)
        gradients: list[Tensor | None] = [None]
        for view, tensor in zip(call.views, tensors, strict=True):
            gradient = found[view.input]
            if gradient is not None and view.is_real:
                gradient = gradient.real
            # Autograd itself converts a gradient to its tensor's precision, but does not reshape it.
            gradients.append(gradient if gradient is None or view.shape is None else gradient.view(tensor.shape))
        return tuple(gradients)


_apply = apply_of(_Execute)  # transforms take another route


def _run(call: Call, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The results of a call's tapes, tape after tape."""
    if operators.is_transforming() or _is_watched():
        return _run_in_torch(call, tensors)
    operators.refuse_legacy_vmap(tensors)
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor.requires_grad:
                return _apply(call, *tensors)  # type: ignore[no-any-return]
    with torch.no_grad():
        with span("pack"):
            inputs = _pack(call, tensors)
        batch = _batch_of(call, inputs)
        real, complex_, _ = operators.run_execute(call.id, inputs, False)
        with span("unpack"):
            return _split(call, batch, real, complex_)


def _run_in_torch(call: Call, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """The same by operations that torch differentiates, transforms and puts into graphs."""
    inputs = _pack(call, tensors)
    batch = _batch_of(call, inputs)
    keep = derivative_rule.keeps_state(batch * call.ket_bytes, call.device, call.recompute)
    return _split_views(call, batch, *functions.execute_program(call.id, inputs, keep))


def _batch_of(call: Call, inputs: Sequence[Tensor]) -> int:
    """Circuits in a call."""
    return inputs[call.batched].shape[0] if call.batched >= 0 else 1


def _pack(call: Call, tensors: Sequence[Tensor]) -> list[Any]:
    """The inputs of the program."""
    inputs: list[Any] = list(call.constants)
    for (position, shape, dtype, _), tensor in zip(call.views, tensors, strict=True):
        if tensor.dtype is not dtype:
            tensor = tensor.to(dtype)
        inputs[position] = tensor if shape is None else tensor.reshape(shape)
    return inputs


def _split(call: Call, batch: int, real: Tensor, complex_: Tensor) -> tuple[Tensor, ...]:
    """The results of each tape: fresh tensors, no views, so that they may be changed in place."""
    results = call.results
    if len(call.tapes) == 1:
        if len(results) == 1:
            return (_shaped(call, 0, complex_ if results[0].is_complex else real),)
        if call.are_scalars:
            columns = _unbind_copy(real, 1)
            return columns if call.has_batch else tuple([column.squeeze_(0) for column in columns])
    columns = _columns(call, real, complex_)
    if len(call.tapes) == 1:
        return tuple([_shaped(call, m, column) for m, column in enumerate(columns)])
    rows = _rows(call, batch)
    blocks = [_split_copy(column, rows) for column in columns]
    return tuple([_shaped(call, m, block[t]) for t in range(len(rows)) for m, block in enumerate(blocks)])


def _split_views(call: Call, batch: int, real: Tensor, complex_: Tensor) -> tuple[Tensor, ...]:
    """The same by operations that torch differentiates and transforms."""
    if call.are_scalars and len(call.tapes) == 1:
        return real.unbind(1) if call.has_batch else real.squeeze(0).unbind(0)
    columns = []
    for result in call.results:
        numbers = complex_ if result.is_complex else real
        columns.append(numbers if len(call.results) == 1 else numbers.narrow(1, result.first, result.size))
    rows = _rows(call, batch)
    blocks = [(column,) if len(rows) == 1 else column.split(rows) for column in columns]
    pairs = [
        (t, count, block, shape)
        for t, count in enumerate(rows)
        for block, shape in zip(blocks, call.shapes, strict=True)
    ]
    return tuple([block[t].reshape((count, *shape) if call.has_batch else shape) for t, count, block, shape in pairs])


def _columns(call: Call, real: Tensor, complex_: Tensor) -> list[Tensor]:
    """The results of all tapes, one block (B, size) a measurement."""
    parts: dict[bool, list[Tensor]] = {}
    for is_complex, numbers in ((False, real), (True, complex_)):
        sizes = [result.size for result in call.results if result.is_complex == is_complex]
        several = len(sizes) > 1
        parts[is_complex] = list(_split_copy(numbers, sizes, 1)) if several else [numbers]
    return [parts[result.is_complex].pop(0) for result in call.results]


def _rows(call: Call, batch: int) -> list[int]:
    """How many circuits each tape stands for."""
    return [batch // len(call.tapes)] * len(call.tapes) if call.rows is None else list(call.rows)


def _shaped(call: Call, measurement: int, numbers: Tensor) -> Tensor:
    """A block of results (B, size) as the measurement has them; in place, because a view could not be changed later."""
    shape = call.shapes[measurement]
    if not call.has_batch:
        return numbers.resize_(shape)
    return numbers if len(shape) == 1 else numbers.resize_((numbers.shape[0], *shape))


def _join(
    call: Call, batch: int, cotangents: Sequence[Tensor | None], carrier: Tensor, empty: Any
) -> tuple[Tensor, Tensor]:
    """The cotangents of all results as the operator takes them, (B, R) and (B, C); `empty` where there are none."""
    if not call.complex_results:
        return _block(call, batch, cotangents, False, carrier), empty
    if not call.real_results:
        return empty, _block(call, batch, cotangents, True, carrier)
    return _block(call, batch, cotangents, False, carrier), _block(call, batch, cotangents, True, carrier)


def _block(call: Call, batch: int, cotangents: Sequence[Tensor | None], is_complex: bool, carrier: Tensor) -> Tensor:
    """The cotangents of the real or of the complex results, (B, size)."""
    size = call.complex_results if is_complex else call.real_results
    if len(cotangents) == 1 and cotangents[0] is not None:
        return cotangents[0].reshape(batch, size)
    if call.are_scalars and set(map(type, cotangents)) == {Tensor}:  # none is None
        stacked = torch.stack(cotangents, -1)  # type: ignore[arg-type]
        return stacked if call.has_batch else stacked.unsqueeze(0)
    dtype = carrier.dtype.to_complex() if is_complex else carrier.dtype
    chosen = [m for m, result in enumerate(call.results) if result.is_complex == is_complex]
    width = len(call.results)
    rows = enumerate(_rows(call, batch))
    lines = [_line(call, cotangents[t * width :], chosen, count, carrier, dtype) for t, count in rows]
    return lines[0] if len(lines) == 1 else torch.cat(lines)


def _line(
    call: Call, cotangents: Sequence[Tensor | None], chosen: list[int], rows: int, carrier: Tensor, dtype: torch.dtype
) -> Tensor:
    """The cotangents of one tape's chosen results, (rows, sum of their sizes)."""
    blocks = []
    for m in chosen:
        cotangent, size = cotangents[m], call.results[m].size
        if cotangent is None:
            blocks.append(carrier.new_zeros((rows, size), dtype=dtype))
        else:
            blocks.append(cotangent.reshape(rows, size))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks, 1)


# --- compiled functions -----------------------------------------------------------------------------------------------


class Compiled:
    """A function or QNode, compiled by `compile`; calling it returns results.

    Attributes:
        function: the function or QNode itself.
        dtype: the precision to compute in, or None for that of the parameters.
        recompute: whether the backward pass computes final states again, or None.
    """

    function: Callable[..., Any]
    dtype: torch.dtype | None
    recompute: bool | None

    def __init__(
        self, function: Callable[..., Any], dtype: torch.dtype | None = None, recompute: bool | None = None
    ) -> None:
        if not callable(function):
            raise TypeError(f"kg.compile takes a function that returns tapes, not {type(function).__name__}")
        if dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32, torch.float64 or None, not {dtype}")
        derivative_rule.require_recompute(recompute)
        if isinstance(function, Compiled):
            dtype = dtype or function.dtype
            recompute = function.recompute if recompute is None else recompute
            function = function.function
        front_end = front_end_of(function)
        if front_end is not None:
            front_end.require_compilable(function)
        self.function = function
        self.dtype = dtype
        self.recompute = recompute
        self._plans = _Plans()
        self._polymorphic = _Plans()
        self._modules: list[nn.Module] = []
        self._lock = threading.RLock()
        self._traces = 0
        self._handle = handle_of(self)
        self._reads_outside = False
        functools.update_wrapper(self, function, updated=())

    @property
    def traces(self) -> int:
        """How many structures have been traced."""
        return self._traces

    @property
    def _name(self) -> str:
        return str(getattr(self.function, "__qualname__", repr(self.function)))

    def __repr__(self) -> str:
        precision = "" if self.dtype is None else f", dtype={self.dtype}"
        return f"<compiled {self._name}{precision}: {self._traces} trace{'' if self._traces == 1 else 's'}>"

    def __getattr__(self, name: str) -> Any:
        """What is compiled of another library's circuit has its attributes: it goes where that went."""
        function = vars(self).get("function")
        if name.startswith("__") or front_end_of(function) is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(function, name)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """The method of an instance: compiled by itself and kept with the instance."""
        if instance is None or not isinstance(self.function, FunctionType):
            return self
        bound = self.function.__get__(instance, owner)
        kept: dict[str, Any] | None = getattr(instance, "__dict__", None)
        if not isinstance(kept, dict):  # nowhere to keep it: the instance is an argument like others
            return MethodType(self, instance)
        methods = kept.setdefault("_ketgrad_compiled", _Methods())
        found = methods.get(self.function)
        if found is not None and found.function.__self__ is not instance:  # of what the instance was copied from
            methods = kept["_ketgrad_compiled"] = _Methods()
            found = None
        if found is None:
            found = methods[self.function] = Compiled(bound, self.dtype, self.recompute)
        return found

    def __reduce__(self) -> Any:
        """Pickled and copied by name where it stands for its function (a decorator), otherwise without its traces."""
        if _by_name(self.function) is self:
            return self.function.__qualname__
        return Compiled, (self.function, self.dtype, self.recompute)

    # A call.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result of the tape that the function returns, a tuple for several, or what the QNode returns."""
        if torch.compiler.is_compiling():
            if self._reads_outside:  # what it reads is no argument of the graph, which breaks here and goes on behind
                return torch.compiler.disable(interpreter_levels.run_behind_break)(self._call, args, kwargs)
            from .in_graph import call_in_graph  # here, where Dynamo is: it takes as long to import as all of torch

            result = call_in_graph(self._handle, args, kwargs)
            for module in self._modules:  # known behind the call; what Dynamo sees asked, the graph is guarded by
                if module.training:
                    continue
            return result
        return self._call(args, kwargs)

    @interpreter_levels.not_for_dynamo
    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if _is_watched():
            return self._call_watched(args, kwargs)
        plan, tensors = self._plan(args, kwargs)
        return _execute(plan, tensors)

    @interpreter_levels.not_for_dynamo
    def _call_fake(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if operators.is_transforming():
            _, tensors = _flatten(args, kwargs)
            if not any(isinstance(interpreter_levels.innermost(tensor), _WITHOUT_VALUES) for tensor in tensors):
                return torch.compiler.disable(interpreter_levels.run_behind_break)(self._call, args, kwargs)
            raise NotImplementedError(
                "ketgrad has no torch.func transforms (grad, vmap, jvp, jacrev, hessian) inside torch.compile; take "
                "them in eager mode"
            )
        return self._call_watched(args, kwargs, may_read_outside=False)

    def _call_watched(self, args: tuple[Any, ...], kwargs: dict[str, Any], may_read_outside: bool = True) -> Any:
        """A call that modes see: with fake tensors, or on its way into a graph."""
        _, tensors = _flatten(args, kwargs)
        with _outside_of_modes():
            plan, known = self._plan(*_rebuilt((args, kwargs), map(_plain, tensors)))
        if plan.captured and not may_read_outside:
            raise NotImplementedError(
                f"inside torch.compile, {self._name} reads tensors from outside the function: pass them as arguments"
            )
        self._settle_sizes(plan, tensors)
        return _execute(_with_constants_seen(plan), (*tensors, *known[len(tensors) :]))

    def _settle_sizes(self, plan: Plan, tensors: Sequence[Tensor]) -> None:
        """Have the graph made for the present sizes, other than of a batch that the plan takes in any size."""
        is_polymorphic = self._polymorphic.has(plan)
        for i, tensor in enumerate(tensors):
            for axis, size in enumerate(tensor.shape):
                if not (is_polymorphic and axis == 0 and i in plan.batched_arguments):
                    int(size)  # of a symbol, this is a guard

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Plan, tuple[Tensor, ...]]:
        """The plan for some arguments, and what its arithmetic takes."""
        static: Hashable = None
        tensors, key = args, None if kwargs else _plain_key(args)
        if key is None:
            static, tensors = _flatten(args, kwargs)
            key = (static, _plain_key(tensors))
        key = self._with_modes(key)
        plan = self._plans.find(key)
        if plan is None:
            plan = self._find(_Given(args, kwargs, static, tensors), key)
        if plan.sizes is not None:
            outer = _read(plan)
            if outer is None:  # another tensor is there now, or more of them
                plan, outer = self._renew(_Given(args, kwargs, static, tensors), key)
            tensors = (*tensors, *outer)
        return plan, tensors

    def explain(self, *args: Any, **kwargs: Any) -> CompiledExplanation:
        """What a call does: native calls with the passes of each (see `explain`), and torch's arithmetic around them.

        With arguments, what a call with them does; without, what was traced so far.

        Raises:
            ValueError: there are no arguments, and nothing was traced.
        """
        if args or kwargs:
            plan, tensors = self._plan(args, kwargs)
            found = [self._explained(plan, _batches(plan, tensors))]
        elif len(self._plans):
            plans = self._plans.values()
            found = [self._explained(plan, [circuit.batch for circuit in plan.circuits]) for plan in plans]
        else:
            raise ValueError("nothing was traced: give explain the arguments of a call, or call the function first")
        return CompiledExplanation(self._name, tuple(found))

    def _explained(self, plan: Plan, batches: Sequence[int]) -> StructureExplanation:
        calls = [
            explain_program(call.program, circuit._replace(batch=batch), call.device)
            for call, circuit, batch in zip(plan.calls, plan.circuits, batches, strict=True)
        ]
        is_polymorphic = self._polymorphic.has(plan)
        arguments = plan.arguments + (" (any batch from 2 on)" if is_polymorphic else "")
        return StructureExplanation(arguments, plan.describe(plan.source), tuple(calls), plan.describe(plan.ending))

    # Traces.

    def _find(self, given: _Given, key: _Key) -> Plan:
        """The plan for arguments of a structure that is new, or that is known with another batch size."""
        with self._lock:
            known = self._plans.find(key)  # traced by another thread in the meantime
            if known is not None:
                return known
            for (batched, pattern), plan in self._polymorphic.items():
                if pattern == self._pattern(given, batched):
                    return self._plans.keep(key, plan)
            plan = self._trace(given)
            return self._plans.keep(self._key(given), plan)

    def _key(self, given: _Given) -> _Key:
        """The key of a call, with the modules that are known now."""
        plain = _plain_key(given.tensors)
        return self._with_modes(plain if given.static is None else (given.static, plain))

    def _with_modes(self, key: Any) -> _Key:
        """A key with what else a plan depends on: the modes of modules, and autocast where it is on."""
        if self._modules:
            key = (key, *[module.training for module in self._modules])
        return (key, autocast_state()) if is_autocast() else key

    def _pattern(self, given: _Given, batched: tuple[int, ...]) -> _Key | None:
        """A key without the size of the batch axis, which some arguments share; None where they do not."""
        sizes = {given.tensors[i].shape[:1] for i in batched if i < len(given.tensors)}
        if len(sizes) != 1 or (size := next(iter(sizes)).numel()) < 2:
            return None
        tensors = [t[0] if i in batched and t.dim() and size else t for i, t in enumerate(given.tensors)]
        return self._with_modes((given.static, _plain_key(tensors)))

    def _trace(self, given: _Given) -> Plan:
        """Trace the function for arguments of one structure, and see whether the batch size matters."""
        with span("trace"), _outside_of_modes():
            return self._trace_plain(given._replace(tensors=tuple(map(_plain, given.tensors))))

    def _trace_plain(self, given: _Given) -> Plan:
        captures = Captures((self.function, *given.others))
        plan, log, largest = self._lower(given, [_alias(tensor) for tensor in given.tensors], captures)
        self._traces += 1
        self._reads_outside |= bool(plan.captured)
        self._modules = captures.modules()
        batched = plan.batched_arguments
        is_polymorphic = bool(batched) and self._is_batch_polymorphic(given, plan, log, largest, captures)
        sizes = captures.sizes([captured.location for captured in plan.captured])
        if plan.captured or sizes.names:
            plan = plan._replace(sizes=sizes)
        if hasattr(self.function, "_on_plan"):
            self.function._on_plan(plan)
        pattern = self._pattern(given, batched) if is_polymorphic else None
        if pattern is not None:
            self._polymorphic.keep((batched, pattern), plan)
        return plan

    def _is_batch_polymorphic(
        self, given: _Given, plan: Plan, log: list[Any], largest: int, captures: Captures
    ) -> bool:
        """Whether the plan is batch-polymorphic: right for every batch size from 2 on.

        It is if the function, run with a batch larger than any integer that it uses, makes the same calls and reads the
        same of its tensors: then it cannot depend on the batch size.
        """
        size = given.tensors[plan.batched_arguments[0]].shape[0]
        trial = 2 * max(size, largest) + 1
        numbers = sum(given.tensors[i].numel() // max(size, 1) * trial for i in plan.batched_arguments)
        if size < 2 or numbers > _LARGEST_TRIAL:
            return False
        tensors = [_alias(t, trial if i in plan.batched_arguments else None) for i, t in enumerate(given.tensors)]
        try:
            other, other_log, _ = self._lower(given, tensors, captures)
        except Exception:  # whatever it is, it comes from the size
            return False
        return log == other_log and same_plan(plan, other)

    def _lower(self, given: _Given, tensors: list[Tensor], captures: Captures) -> tuple[Plan, list[Any], int]:
        """Run the function on tensors in place of the given ones; its plan, log and largest integer."""
        args, kwargs = _replaced(given, tensors)
        recorder = Recorder(tensors, captures)
        circuits = recorder.run(lambda: self._circuits(args, kwargs))
        lowering = Lowering(recorder.trace, recorder.number)
        with DisableTorchFunction():  # the default device is that of what the function makes
            results = lowering.calls_of(circuits.tapes, self.dtype or circuits.dtype, self.recompute)
        boundary = len(recorder.trace.nodes)
        returned = recorder.run(lambda: circuits.finish([r[0] if len(r) == 1 else r for r in results]))
        with DisableTorchFunction():
            plan = lowering.plan(returned, boundary)
        for call in plan.calls:
            operators.require_kernels(call.device)
        return plan, recorder.trace.log, recorder.trace.largest

    def _circuits(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Circuits:
        """Run the function; the circuits that it stands for."""
        own = front_end_of(self.function)
        function = self.function if own is None else own.function_of(self.function)
        with contextlib.ExitStack() as stack:
            queues = [(front_end, stack.enter_context(front_end.queue())) for front_end in front_ends()]
            returned = call_traced(function, args, kwargs)
        for front_end, queue in queues:
            if front_end.has_measurements(returned):
                return front_end.circuits_of(self.function, returned, queue)
        is_single = not isinstance(returned, (list, tuple))
        found = [returned] if is_single else returned
        for item in found:
            if not hasattr(item, "measurements"):
                raise TypeError(
                    "expected tapes or PennyLane's measurements from a compiled function, found "
                    f"{type(item).__name__}; a QNode is compiled by itself: kg.compile(qnode)"
                )
        tapes = as_tapes(found)
        if any(tape.shots is not None for tape in tapes):
            raise NotImplementedError("a compiled function returned a tape with shots; give it to kg.execute")
        return Circuits(tapes, (lambda results: results[0]) if is_single else tuple)

    def _renew(self, given: _Given, key: _Key) -> tuple[Plan, tuple[Tensor, ...]]:
        """Another plan where the tensors outside the function are others than before."""
        with self._lock:
            self._plans.drop(_is_stale)
            self._polymorphic.drop(_is_stale)
            plan = self._find(given, key)
            outer = _read(plan)
        if outer is None:
            raise RuntimeError(
                "the tensors that a compiled function reads from outside, or the containers that they are in, change "
                "while it is traced"
            )
        return plan, outer


class _Given(NamedTuple):
    """The arguments of a call, the tensors among them, and all else in a hashable form (None: there is nothing)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    static: Hashable
    tensors: tuple[Tensor, ...]

    @property
    def others(self) -> list[Any]:
        """The objects that are no tensors."""
        leaves = pytree.tree_leaves((self.args, self.kwargs))
        return [leaf for leaf in leaves if not isinstance(leaf, Tensor)]


class _Methods(dict[Any, Compiled]):
    """The compiled methods of an object, which its copies do not take over."""

    def __deepcopy__(self, memo: Any) -> _Methods:
        return _Methods()

    def __reduce__(self) -> Any:
        return _Methods, ()


def _by_name(function: Any) -> Any:
    """What is found under a function's name."""
    found: Any = sys.modules.get(getattr(function, "__module__", ""))
    for name in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, name, None)
    return found


class _Plans:
    """Plans by what they are for; where all take more than `structure_cache.limit`, those go that waited longest."""

    _OF_KEY = 1024
    """Bytes that a key takes, roughly."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Key, Plan] = OrderedDict()
        self._lock = threading.Lock()
        self._next_look = 0

    def __len__(self) -> int:
        return len(self._kept)

    def values(self) -> list[Plan]:
        """The plans, each once."""
        with self._lock:
            return self._plans()

    def has(self, plan: Plan) -> bool:
        """Whether a plan is kept, for whatever."""
        return any(plan is kept for kept in self.values())

    def find(self, key: _Key) -> Plan | None:
        """A plan that was kept."""
        with self._lock:
            plan = self._kept.get(key)
            if plan is not None:
                self._kept.move_to_end(key)
            return plan

    def items(self) -> list[tuple[_Key, Plan]]:
        """Plans and what they are for."""
        with self._lock:
            return list(self._kept.items())

    def keep(self, key: _Key, plan: Plan) -> Plan:
        """Keep a plan, as the latest one. Sizes are added up when there is an eighth more than before."""
        with self._lock:
            self._kept[key] = plan
            if len(self._kept) >= self._next_look:
                while len(self._kept) > 1 and self._bytes() > structure_cache.limit:
                    for _ in range(1 + len(self._kept) // 8):
                        self._kept.popitem(last=False)
                self._next_look = 1 + len(self._kept) + len(self._kept) // 8
        return plan

    def drop(self, is_dropped: Callable[[Plan], bool]) -> None:
        """Forget plans."""
        for key, plan in self.items():
            if is_dropped(plan):
                with self._lock:
                    self._kept.pop(key, None)

    def _plans(self) -> list[Plan]:
        return list({id(plan): plan for plan in self._kept.values()}.values())

    def _bytes(self) -> int:
        return self._OF_KEY * len(self._kept) + sum(plan.bytes for plan in self._plans())


def _plain(tensor: Tensor) -> Tensor:
    """A tensor that is real, without functorch's wrappers and without tangents, in the shape that a transform shows."""
    axes = []  # those of outer levels are counted among the axes that inner levels show
    while is_functorch_wrapped_tensor(tensor):
        if is_batchedtensor(tensor):
            axes.append(maybe_get_bdim(tensor))
        tensor = get_unwrapped(tensor)
    for axis in reversed(axes):
        tensor = tensor.select(axis, 0)
    if isinstance(tensor, _WITHOUT_VALUES):
        return _example(tensor)
    if not operators.is_transforming():
        return tensor
    primal: Tensor = forward_ad.unpack_dual(tensor).primal
    return primal.detach().requires_grad_(tensor.requires_grad)


def _example(tensor: Tensor) -> Tensor:
    """A tensor in the shape of a fake one, with its present size where that may change, and of values unknown: NaN."""
    sizes = [getattr(getattr(size, "node", None), "hint", size) for size in tensor.shape]  # of a symbol
    value = float("nan") if tensor.is_floating_point() or tensor.is_complex() else 0
    own = torch.full(sizes, value, dtype=tensor.dtype, device=tensor.device)
    return own.requires_grad_(tensor.requires_grad)


def _alias(tensor: Tensor, rows: int | None = None) -> Tensor:
    """A tensor for a trace: at one place only, so that it is known by itself; with so many rows."""
    with torch.no_grad():
        if rows is not None:
            own = tensor.index_select(0, torch.arange(rows, device=tensor.device) % tensor.shape[0])
        else:
            own = tensor.clone() if tensor.is_inference() else tensor.detach()
    return own.requires_grad_(tensor.requires_grad)


# --- keys -------------------------------------------------------------------------------------------------------------


def _plain_key(tensors: Sequence[Any]) -> _Key | None:
    """What a plan depends on in tensors; None where they are not tensors only."""
    try:
        return tuple([(t.shape, t.dtype, t.requires_grad, t.device, t.layout) for t in tensors])
    except AttributeError:
        return None


def _flatten(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Hashable, tuple[Tensor, ...]]:
    """The tensors among the arguments, and all else in a hashable form."""
    tensors: list[Tensor] = []
    return _described((args, kwargs), tensors), tuple(tensors)


def _described(item: Any, tensors: list[Tensor]) -> Hashable:
    if isinstance(item, Tensor):
        tensors.append(item)
        return Tensor
    if isinstance(item, (tuple, list)):
        return (type(item), *[_described(part, tensors) for part in item])
    if isinstance(item, dict):
        return (type(item), *[(key, _described(part, tensors)) for key, part in item.items()])
    front_end = operators_front_end(item)
    if front_end is not None and any(isinstance(parameter, Tensor) for parameter in item.data):
        raise TypeError(
            f"an argument of a compiled function is {item.name} of {front_end.title} with tensors as parameters; pass "
            "the tensors, and build the operator in the function"
        )
    try:
        if isinstance(item, np.ndarray):  # PennyLane's have a hash
            raise TypeError
        hash(item)
    except TypeError:
        raise TypeError(
            f"an argument of type {type(item).__name__} is neither a tensor nor hashable; a compiled function takes "
            "tensors (torch.as_tensor) and, as part of the circuit's structure, numbers, strings and the like"
        ) from None
    return type(item), item


def _replaced(given: _Given, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with other tensors in their places."""
    args, kwargs = _rebuilt((given.args, given.kwargs), iter(tensors))
    return args, kwargs


def _rebuilt(item: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(item, Tensor):
        return next(tensors)
    if isinstance(item, (tuple, list)):
        parts = [_rebuilt(part, tensors) for part in item]
        return type(item)(*parts) if hasattr(item, "_fields") else type(item)(parts)
    if isinstance(item, dict):
        return {key: _rebuilt(part, tensors) for key, part in item.items()}
    return item


# --- modes of torch ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _outside_of_modes() -> Iterator[None]:
    """Where a function is traced: as if it were called by itself, with real tensors.

    A plan serves later calls, which run under other modes: what those around the first one watch, count, record or
    put in place of tensors is no part of it. Two decide about what is computed, and stay: autocast and the default
    device.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(temporarily_clear_interpreter_stack())  # transforms
        stack.enter_context(without_dispatch_modes())  # fake tensors, graphs
        stack.enter_context(EnableTorchFunction())
        stack.enter_context(_without_function_modes())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        if saved_tensors_hooks_enabled():
            stack.enter_context(saved_tensors_hooks(_as_it_is, _as_it_is))  # those of a checkpoint count
        yield


@contextlib.contextmanager
def _without_function_modes() -> Iterator[None]:
    modes = [pop_function_mode() for _ in range(len_function_stack())]
    kept = [mode for mode in modes if isinstance(mode, DeviceContext)]
    for mode in reversed(kept):
        push_function_mode(mode)
    try:
        yield
    finally:
        for _ in kept:
            pop_function_mode()
        for mode in reversed(modes):
            push_function_mode(mode)


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _is_watched() -> bool:
    """Whether modes see what is done with tensors: fake tensors, graphs, counters."""
    return len_dispatch_stack() > 0


def _with_constants_seen(plan: Plan) -> Plan:
    """The plan with its constants as the modes have tensors: fake ones, constants of a graph."""
    lift = torch.ops.aten.lift_fresh_copy.default
    objects = {name: lift(found) if isinstance(found, Tensor) else found for name, found in plan.objects.items()}
    calls = [
        call._replace(constants=tuple([None if constant is None else lift(constant) for constant in call.constants]))
        for call in plan.calls
    ]

    def rebound(code: Any) -> FunctionType:
        return FunctionType(code.__code__, {**code.__globals__, **objects})

    arithmetic, finish = rebound(plan.arithmetic), rebound(plan.finish)
    return plan._replace(arithmetic=arithmetic, finish=finish, objects=objects, calls=tuple(calls))


# --- a call of a plan -------------------------------------------------------------------------------------------------


def _read(plan: Plan) -> tuple[Tensor, ...] | None:
    """The tensors outside the function as they are now, None where they are none that the plan is right for."""
    try:
        return _read_in_place(plan)
    except Exception:  # a place is gone, or what is there now is of another kind
        return None


def _is_stale(plan: Plan) -> bool:
    return plan.sizes is not None and _read(plan) is None


def _read_in_place(plan: Plan) -> tuple[Tensor, ...] | None:
    if plan.sizes is not None and plan.sizes.read() != plan.sizes.expected:
        return None
    found = []
    for captured in plan.captured:
        tensor, *others = captured.location.read()
        if not isinstance(tensor, Tensor) or captured.guard != guard_of(tensor):
            return None
        for other in others:
            if other is not tensor:
                return None
        found.append(tensor)
    return tuple(found)


@torch.no_grad()
def _batches(plan: Plan, tensors: Sequence[Tensor]) -> list[int]:
    """Circuits in each native call."""
    handed = plan.arithmetic(*tensors)
    inputs = [_pack(call, of_call) for call, of_call in zip(plan.calls, handed, strict=False)]
    pairs = zip(plan.calls, inputs, strict=True)
    return [_batch_of(call, of_call) for call, of_call in pairs]


def _execute(plan: Plan, tensors: Sequence[Tensor]) -> Any:
    """What the function returns, given its arguments and what it reads from outside."""
    handed = plan.arithmetic(*tensors)
    if len(plan.calls) == 1:
        return plan.finish(*handed[1], *_run(plan.calls[0], handed[0]))
    results = [result for call, tensors in zip(plan.calls, handed, strict=False) for result in _run(call, tensors)]
    return plan.finish(*handed[-1], *results)


# --- the public function ----------------------------------------------------------------------------------------------


@overload
def compile(
    function: Callable[..., Any], *, dtype: torch.dtype | None = None, recompute: bool | None = None
) -> Compiled: ...


@overload
def compile(
    function: None = None, *, dtype: torch.dtype | None = None, recompute: bool | None = None
) -> Callable[[Callable[..., Any]], Compiled]: ...


def compile(
    function: Callable[..., Any] | None = None, *, dtype: torch.dtype | None = None, recompute: bool | None = None
) -> Any:
    """Compile a function that returns tapes, or a QNode, into one that returns results without building tapes.

    The function is traced at the first call for arguments of a structure: what it does with its tensors is recorded
    while it runs. Slices of tensors, multiplied by and added to numbers (`2 * x[..., 0] + 1`), are read by the native
    program from the tensors themselves; other arithmetic (`torch.sin`, layers of torch.nn) is repeated at each call.
    Gradients go to the tensors as through `kg.execute`. Also a decorator: `@kg.compile` or `@kg.compile(dtype=…)`.

    A trace serves every call with tensors of the same shapes, dtypes, devices and requires_grad, and other arguments
    that are equal; batches of two and more share one trace where the function does not ask for their size. Tensors from
    outside the function (closures, globals, attributes of objects and classes, parameters of modules, also in lists,
    dictionaries and deques) are read anew at each call and get gradients; where a container of them grows, shrinks or
    gets other keys, the function is traced again. All else that the function reads from outside, such as numbers in
    attributes, is as it was when the function was traced. Matrices and states are checked for being unitary and
    normalised while tracing and, on the CPU, less closely in every call: to 2e-2 in single precision, 1e-4 in double.

    Args:
        function: takes tensors, also in tuples, lists and dictionaries, and hashable arguments; returns a `Tape`, or a
            list or tuple of tapes. It must have no side effects: it runs twice where there is a batch, and not at all
            once it has been traced. Also a QNode, whatever its device, or a quantum function, which queues PennyLane's
            operations and returns its measurements.
        dtype: torch.float32 or torch.float64, the precision to compute in; None: that of the parameters.
        recompute: whether the backward pass computes the final states again (True) or they are kept for it (False);
            None: they are kept while they take at most 64 MiB, or a quarter of the free memory, and always in the
            graphs of torch.compile.

    Returns:
        A callable with the function's signature. For a tape it returns its result, `kg.execute([tape])[0]`, for several
        a tuple of results; for a QNode what the QNode returns. Tapes of equal structure take one native call. `traces`
        counts the structures traced, `explain` shows what a call does.

    Raises:
        TypeError: `function` is not callable, `recompute` not True, False or None; at a call, an argument that is
            neither a tensor nor hashable.
        ValueError: another dtype, a QNode of another interface than torch's; at a call, mixed devices or precisions, a
            state or matrix that is not what it must be.
        NotImplementedError: a QNode with shots, or with a transform that makes more than circuits; at a call, a
            structure that depends on the values of tensors (the message has the line or the operation), a tape with
            shots, a tensor that the trace cannot follow; on the third derivative.
        MemoryError: a state does not fit.

    Example:
        >>> import torch, ketgrad as kg
        >>> @kg.compile
        ... def circuit(x, weights):
        ...     layers = [kg.RY(2 * x[..., 0] + 1, wires=0), kg.RX(x[..., 1], wires=1)]
        ...     for layer in weights:
        ...         layers += [kg.RZ(layer[0], wires=0), kg.RY(layer[1], wires=1), kg.CNOT(wires=[0, 1])]
        ...     return kg.Tape(layers, [kg.expval(kg.Z(0)), kg.expval(kg.Z(1))])
        >>> weights = torch.zeros(3, 2, requires_grad=True)
        >>> z0, z1 = circuit(torch.rand(5, 2), weights)
        >>> z1.shape
        torch.Size([5])
        >>> z1.sum().backward()
        >>> weights.grad.shape
        torch.Size([3, 2])
        >>> _ = circuit(torch.rand(8, 2), weights)
        >>> circuit.traces
        1
    """
    if function is None:
        return lambda decorated: Compiled(decorated, dtype, recompute)
    return Compiled(function, dtype, recompute)
