"""`compile`: a function that returns tapes, or a QNode, is traced once per structure and replaced by native calls."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import Any, overload

import torch
from torch import Tensor, nn

from ..autograd import interpreter_levels
from ..autograd.derivative_rule import KetPolicy
from ..execution.explain import CompiledExplanation, StructureExplanation, explain_program
from ..native import operators
from ..native.profiling import span
from .arguments import WITHOUT_VALUES, Arguments, Key, flatten, key_of, plain_tensor, replace_tensors, tensors_key
from .calls import batch_sizes, run_plan, with_visible_constants
from .derivatives import Derivatives
from .front_ends import front_end_of
from .handles import handle_of
from .modes import autocast_state, is_autocast, is_watched, outside_of_modes
from .plan import CompiledPlan
from .plan_cache import PlanCache
from .tracer import Tracer


class Compiled(Derivatives):
    """A function or QNode, compiled by `compile`; calling it returns results.

    Attributes:
        function: the function or QNode itself.
        dtype: the precision to compute in, or None for that of the parameters.
    """

    function: Callable[..., Any]
    dtype: torch.dtype | None

    def __init__(
        self,
        function: Callable[..., Any],
        dtype: torch.dtype | None = None,
        recompute: bool | None = None,
        ket_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"kg.compile takes a function that returns tapes, not {type(function).__name__}")
        if dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32, torch.float64 or None, not {dtype}")
        if isinstance(function, Compiled):
            dtype = dtype or function.dtype
            recompute = function.recompute if recompute is None else recompute
            ket_dtype = ket_dtype or function.ket_dtype
            function = function.function
        front_end = front_end_of(function)
        if front_end is not None:
            front_end.require_compilable(function)
        self.function = function
        self.dtype = dtype
        self._kets = KetPolicy.of_options(recompute, ket_dtype)
        self._plans: PlanCache[CompiledPlan] = PlanCache()
        self._polymorphic: PlanCache[CompiledPlan] = PlanCache()
        self._modules: list[nn.Module] = []
        self._lock = threading.RLock()
        self._traces = 0
        self._handle = handle_of(self)
        self._has_captures = False
        functools.update_wrapper(self, function, updated=())

    @property
    def recompute(self) -> bool | None:
        """Whether the backward pass recomputes the final states; None: decided by their size."""
        return self._kets.recompute

    @property
    def ket_dtype(self) -> torch.dtype | None:
        """The dtype that they are kept in for it; None: that of the circuit."""
        return self._kets.dtype

    @property
    def traces(self) -> int:
        """The number of structures traced."""
        return self._traces

    @property
    def _name(self) -> str:
        return str(getattr(self.function, "__qualname__", repr(self.function)))

    def __repr__(self) -> str:
        precision = "" if self.dtype is None else f", dtype={self.dtype}"
        return f"<compiled {self._name}{precision}: {self._traces} trace{'' if self._traces == 1 else 's'}>"

    def __getattr__(self, name: str) -> Any:
        """Attributes of a wrapped circuit of another library, so that code for such circuits also takes this object."""
        function = vars(self).get("function")
        if name.startswith("__") or front_end_of(function) is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(function, name)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """The method of an instance: compiled for it, and stored in its `__dict__`."""
        if instance is None or not isinstance(self.function, FunctionType):
            return self
        bound = self.function.__get__(instance, owner)
        kept: dict[str, Any] | None = getattr(instance, "__dict__", None)
        if not isinstance(kept, dict):  # without a `__dict__`, the instance is an argument like others
            return MethodType(self, instance)
        methods = kept.setdefault("_ketgrad_compiled", _Methods())
        found = methods.get(self.function)
        if found is not None and found.function.__self__ is not instance:  # from a shallow copy of another instance
            methods = kept["_ketgrad_compiled"] = _Methods()
            found = None
        if found is None:
            found = methods[self.function] = Compiled(bound, self.dtype, *self._kets)
        return found

    def __reduce__(self) -> Any:
        """By its qualified name if it replaced its function there (as a decorator), otherwise without its traces."""
        if _by_name(self.function) is self:
            return self.function.__qualname__
        return Compiled, (self.function, self.dtype, *self._kets)

    # Calls.

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result of the tape that the function returns, a tuple for several tapes, or what the QNode returns."""
        if torch.compiler.is_compiling():
            if self._has_captures:  # captures are no inputs of the graph: a graph break
                return torch.compiler.disable(interpreter_levels.run_behind_break)(self._call, args, kwargs)
            from .in_graph import call_in_graph  # not at the top: it imports Dynamo

            result = call_in_graph(self._handle, args, kwargs)
            for module in self._modules:  # known after the call; Dynamo guards on what it sees read here
                if module.training:
                    continue
            return result
        return self._call(args, kwargs)

    @interpreter_levels.not_for_dynamo
    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if is_watched():
            return self._call_watched(args, kwargs)
        plan, tensors = self._plan(args, kwargs)
        return run_plan(plan, tensors)

    @interpreter_levels.not_for_dynamo
    def _call_fake(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A call that torch.compile traces, with fake tensors."""
        if operators.is_transforming():
            _, tensors = flatten(args, kwargs)
            if not any(isinstance(interpreter_levels.innermost(tensor), WITHOUT_VALUES) for tensor in tensors):
                return torch.compiler.disable(interpreter_levels.run_behind_break)(self._call, args, kwargs)
            raise NotImplementedError(
                "ketgrad has no torch.func transforms (grad, vmap, jvp, jacrev, hessian) inside torch.compile; take "
                "them in eager mode"
            )
        return self._call_watched(args, kwargs, may_capture=False)

    def _call_watched(self, args: tuple[Any, ...], kwargs: dict[str, Any], may_capture: bool = True) -> Any:
        """A call under dispatch modes: with fake tensors, or while a graph is traced."""
        _, tensors = flatten(args, kwargs)
        with outside_of_modes():
            plan, known = self._plan(*replace_tensors((args, kwargs), map(plain_tensor, tensors)))
        if plan.captured and not may_capture:
            raise NotImplementedError(
                f"inside torch.compile, {self._name} reads tensors from outside the function: pass them as arguments"
            )
        self._guard_sizes(plan, tensors)
        return run_plan(with_visible_constants(plan), (*tensors, *known[len(tensors) :]))

    def _guard_sizes(self, plan: CompiledPlan, tensors: Sequence[Tensor]) -> None:
        """Specialise the graph to the present sizes, except for the batch size of a batch-polymorphic plan."""
        is_polymorphic = self._polymorphic.has(plan)
        for i, tensor in enumerate(tensors):
            for axis, size in enumerate(tensor.shape):
                if not (is_polymorphic and axis == 0 and i in plan.batched_arguments):
                    int(size)  # adds a guard if it is symbolic

    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[CompiledPlan, tuple[Tensor, ...]]:
        """The plan for some arguments, and the tensors that it takes: the arguments', then the captured ones."""
        static, tensors, key = key_of(args, kwargs)
        key = self._with_modes(key)
        plan = self._plans.find(key)
        if plan is None:
            plan = self._find(Arguments(args, kwargs, static, tensors), key)
        if plan.containers is not None:
            captured = plan.captured_now()
            if captured is None:  # other tensors are there now, or more of them
                plan, captured = self._renew(Arguments(args, kwargs, static, tensors), key)
            tensors = (*tensors, *captured)
        return plan, tensors

    def explain(self, *args: Any, **kwargs: Any) -> CompiledExplanation:
        """The compiled plan: native calls with the passes of each (see `kg.explain`), and torch's arithmetic.

        With arguments, the plan of a call with them; without, all plans traced so far.

        Raises:
            ValueError: there are no arguments, and nothing was traced.
        """
        if args or kwargs:
            plan, tensors = self._plan(args, kwargs)
            found = [self._explained(plan, batch_sizes(plan, tensors))]
        elif len(self._plans):
            plans = self._plans.values()
            found = [self._explained(plan, [circuit.batch for circuit in plan.circuits]) for plan in plans]
        else:
            raise ValueError("nothing was traced: give explain the arguments of a call, or call the function first")
        return CompiledExplanation(self._name, tuple(found))

    def _explained(self, plan: CompiledPlan, batches: Sequence[int]) -> StructureExplanation:
        calls = [
            explain_program(call.program, circuit._replace(batch=batch), call.device)
            for call, circuit, batch in zip(plan.calls, plan.circuits, batches, strict=True)
        ]
        arguments = plan.arguments + (" (any batch from 2 on)" if self._polymorphic.has(plan) else "")
        return StructureExplanation(arguments, plan.describe(plan.source), tuple(calls), plan.describe(plan.ending))

    # Plans.

    def _find(self, arguments: Arguments, key: Key) -> CompiledPlan:
        """The plan for a key that is not cached: a batch-polymorphic one, or that of a new trace."""
        with self._lock:
            known = self._plans.find(key)  # another thread may have traced it
            if known is not None:
                return known
            for (batched, pattern), plan in self._polymorphic.items():
                if pattern == self._pattern(arguments, batched):
                    return self._plans.keep(key, plan)
            plan = self._trace(arguments)
            return self._plans.keep(self._key(arguments), plan)

    def _trace(self, arguments: Arguments) -> CompiledPlan:
        with span("trace"), outside_of_modes():
            plain = arguments._replace(tensors=tuple(map(plain_tensor, arguments.tensors)))
            plan, is_polymorphic, modules = Tracer(self.function, self.dtype, self._kets).trace(plain)
            self._traces += 1
            self._has_captures |= bool(plan.captured)
            self._modules = modules
            if hasattr(self.function, "_on_plan"):
                self.function._on_plan(plan)
            pattern = self._pattern(plain, plan.batched_arguments) if is_polymorphic else None
            if pattern is not None:
                self._polymorphic.keep((plan.batched_arguments, pattern), plan)
        return plan

    def _key(self, arguments: Arguments) -> Key:
        """The key of a call after its trace, with the modules found by it."""
        key = tensors_key(arguments.tensors)
        return self._with_modes(key if arguments.static is None else (arguments.static, key))

    def _with_modes(self, key: Any) -> Key:
        """A key with the other state that a plan depends on: the training mode of modules, and autocast if it is on."""
        if self._modules:
            key = (key, *[module.training for module in self._modules])
        return (key, autocast_state()) if is_autocast() else key

    def _pattern(self, arguments: Arguments, batched: tuple[int, ...]) -> Key | None:
        """A key without the batch size; None if the batched arguments do not have a common one of at least 2."""
        sizes = {arguments.tensors[i].shape[:1] for i in batched if i < len(arguments.tensors)}
        if len(sizes) != 1 or (size := next(iter(sizes)).numel()) < 2:
            return None
        tensors = [t[0] if i in batched and t.dim() and size else t for i, t in enumerate(arguments.tensors)]
        return self._with_modes((arguments.static, tensors_key(tensors)))

    def _renew(self, arguments: Arguments, key: Key) -> tuple[CompiledPlan, tuple[Tensor, ...]]:
        """A new plan after a guard of captured tensors or containers failed; stale plans are dropped."""
        with self._lock:
            self._plans.drop(lambda plan: plan.is_stale)
            self._polymorphic.drop(lambda plan: plan.is_stale)
            plan = self._find(arguments, key)
            captured = plan.captured_now()
        if captured is None:
            raise RuntimeError(
                "the tensors that a compiled function reads from outside, or the containers that they are in, change "
                "while it is traced"
            )
        return plan, captured


class _Methods(dict[Any, Compiled]):
    """The compiled methods of an object; copies of the object start with none."""

    def __deepcopy__(self, memo: Any) -> _Methods:
        return _Methods()

    def __reduce__(self) -> Any:
        return _Methods, ()


def _by_name(function: Any) -> Any:
    """The object with a function's qualified name in its module."""
    found: Any = sys.modules.get(getattr(function, "__module__", ""))
    for name in getattr(function, "__qualname__", "").split("."):
        found = getattr(found, name, None)
    return found


@overload
def compile(
    function: Callable[..., Any],
    *,
    dtype: torch.dtype | None = None,
    recompute: bool | None = None,
    ket_dtype: torch.dtype | None = None,
) -> Compiled: ...


@overload
def compile(
    function: None = None,
    *,
    dtype: torch.dtype | None = None,
    recompute: bool | None = None,
    ket_dtype: torch.dtype | None = None,
) -> Callable[[Callable[..., Any]], Compiled]: ...


def compile(
    function: Callable[..., Any] | None = None,
    *,
    dtype: torch.dtype | None = None,
    recompute: bool | None = None,
    ket_dtype: torch.dtype | None = None,
) -> Any:
    """Compile a function that returns tapes, or a QNode, into one that returns results without building tapes.

    The function is traced in the first call with arguments of a structure: what it does with tensors is recorded while
    it runs. Slices of tensors, multiplied by and added to numbers (`2 * x[..., 0] + 1`), are read by the native program
    from the tensors themselves; other arithmetic (`torch.sin`, layers of torch.nn) is repeated in each call. Gradients
    reach the tensors as with `kg.execute`. Also a decorator: `@kg.compile` or `@kg.compile(dtype=…)`.

    A trace is used again for tensors of the same shapes, dtypes, devices and requires_grad, and other arguments that
    are equal. All batch sizes from two on share one trace, if the function does not read them. Tensors from outside the
    function (closures, globals, attributes of objects and classes, parameters of modules, also in lists, dictionaries
    and deques) are read anew in each call and get gradients; if a container of them grows, shrinks or gets other keys,
    the function is traced again. Everything else that the function reads from outside, such as numbers in attributes,
    is a constant of the trace. Matrices and states are checked for being unitary and normalised while tracing and, on
    the CPU, with larger tolerances in every call: 2e-2 in single precision, 1e-4 in double.

    Args:
        function: takes tensors, also in tuples, lists and dictionaries, and hashable arguments; returns a `Tape`, or a
            list or tuple of tapes. It must have no side effects: with a batch it runs twice, and once traced it does
            not run again. Or a QNode, whatever its device, or a quantum function, which queues PennyLane's operations
            and returns its measurements.
        dtype: torch.float32 or torch.float64, the precision to compute in; None (the default): that of the parameters.
        recompute: whether the backward pass recomputes the final states (True) or they are kept for it (False); None
            (the default): they are kept if they take at most 64 MiB or a quarter of the free memory, and always in
            graphs of torch.compile.
        ket_dtype: torch.complex64 keeps the final states of complex128 circuits in half the bytes, on the CPU: the
            derivative by a rotation's angle is off by at most 1.2e-7 ‖O‖ then, O being the observable. None (the
            default): that of the circuit.

    Returns:
        A callable with the function's signature. For a tape it returns the result, `kg.execute([tape])[0]`, for several
        tapes a tuple of results, and for a QNode what the QNode returns. Tapes of equal structure take one native call.
        `traces` is the number of structures traced, `explain` shows the compiled plans.

    Raises:
        TypeError: `function` is not callable, or `recompute` is not True, False or None. In a call: an argument is
            neither a tensor nor hashable.
        ValueError: a dtype is another, or the interface of a QNode is not torch's. In a call: devices or precisions
            are mixed, or a matrix or state is not unitary, Hermitian or normalised.
        NotImplementedError: a QNode has shots, or a transform that does more than expand circuits. In a call: the
            structure depends on values of tensors (the message has the line or the operation), a tape has shots, or the
            trace cannot follow a tensor. In derivatives: the third.
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
        return lambda decorated: Compiled(decorated, dtype, recompute, ket_dtype)
    return Compiled(function, dtype, recompute, ket_dtype)
