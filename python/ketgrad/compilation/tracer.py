"""Tracing a function for arguments of one structure: it is run, recorded and lowered; with a batch, twice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..autograd.derivative_rule import KetPolicy
from ..execution.given_tapes import as_tapes
from ..native import operators
from ..native.torch_private import DisableTorchFunction
from .arguments import Arguments, alias
from .front_ends import Circuits, front_end_of, front_ends
from .lowering.lower import Lowering
from .plan import CompiledPlan, are_same_plans
from .tracing.callers import call_traced
from .tracing.captures import Captures
from .tracing.recorder import Recorder

_LARGEST_TRIAL = 1 << 24
"""The most elements in the batched arguments of the second trace, which tests dependence on the batch size."""


class Traced(NamedTuple):
    """The outcome of tracing.

    Attributes:
        plan: the plan for the arguments.
        is_polymorphic: whether it is batch-polymorphic: right for all batch sizes from 2 on.
        modules: the modules that the function refers to, on whose training mode the plan may depend.
    """

    plan: CompiledPlan
    is_polymorphic: bool
    modules: list[nn.Module]


class Tracer(NamedTuple):
    """Traces a function.

    Attributes:
        function: returns tapes, or is a circuit of a front end.
        dtype: the precision to compute in; None: that of the parameters.
        kets: what is kept of the final states for the backward pass.
    """

    function: Callable[..., Any]
    dtype: torch.dtype | None
    kets: KetPolicy

    def trace(self, arguments: Arguments) -> Traced:
        """The plan for arguments with plain tensors, outside of all modes.

        Raises:
            TypeError: the function returned no tapes.
            NotImplementedError: the structure depends on values of tensors, or the trace cannot follow a tensor.
        """
        captures = Captures((self.function, *arguments.others))
        run = self._lower(arguments, [alias(tensor) for tensor in arguments.tensors], captures)
        is_polymorphic = bool(run.plan.batched_arguments) and self._is_batch_polymorphic(arguments, run, captures)
        guard = captures.container_guard([captured.location for captured in run.plan.captured])
        plan = run.plan._replace(containers=guard) if run.plan.captured or guard.names else run.plan
        return Traced(plan, is_polymorphic, captures.modules())

    def _is_batch_polymorphic(self, arguments: Arguments, run: _Run, captures: Captures) -> bool:
        """Whether the function does not depend on the batch size.

        It is run again with a batch larger than any integer that it used. If it makes the same calls and reads the same
        properties of tensors, it did not read the batch size.
        """
        batched = run.plan.batched_arguments
        size = arguments.tensors[batched[0]].shape[0]
        trial = 2 * max(size, run.largest) + 1
        numbers = sum(arguments.tensors[i].numel() // max(size, 1) * trial for i in batched)
        if size < 2 or numbers > _LARGEST_TRIAL:
            return False
        tensors = [alias(t, trial if i in batched else None) for i, t in enumerate(arguments.tensors)]
        try:
            other = self._lower(arguments, tensors, captures)
        except Exception:  # any error is due to the batch size
            return False
        return run.log == other.log and are_same_plans(run.plan, other.plan)

    def _lower(self, arguments: Arguments, tensors: list[Tensor], captures: Captures) -> _Run:
        """Run the function with the given tensors as arguments, and lower its trace."""
        args, kwargs = arguments.with_tensors(tensors)
        recorder = Recorder(tensors, captures)
        circuits = recorder.run(lambda: self._circuits(args, kwargs))
        lowering = Lowering(recorder.trace, recorder.number)
        with DisableTorchFunction():  # the default device applies to tensors of the function, not to those made here
            results = lowering.calls_of(circuits.tapes, self.dtype or circuits.dtype, self.kets)
        boundary = len(recorder.trace.nodes)
        returned = recorder.run(lambda: circuits.finish([r[0] if len(r) == 1 else r for r in results]))
        with DisableTorchFunction():
            plan = lowering.plan(returned, boundary)
        for call in plan.calls:
            operators.require_kernels(call.device)
        return _Run(plan, recorder.trace.log, recorder.trace.largest)

    def _circuits(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Circuits:
        """Run the function; the circuits that it returned or queued."""
        front_end = front_end_of(self.function)
        function = self.function if front_end is None else front_end.function_of(self.function)
        with contextlib.ExitStack() as stack:
            queues = [(each, stack.enter_context(each.queue())) for each in front_ends()]
            returned = call_traced(function, args, kwargs)
        for each, queue in queues:
            if each.has_measurements(returned):
                return each.circuits_of(self.function, returned, queue)
        is_single = not isinstance(returned, (list, tuple))
        return _circuits_of_tapes([returned] if is_single else returned, is_single)


class _Run(NamedTuple):
    """A run of the function: its plan, what it read of tensors, and the largest integer in its torch calls."""

    plan: CompiledPlan
    log: list[Any]
    largest: int


def _circuits_of_tapes(returned: Sequence[Any], is_single: bool) -> Circuits:
    for item in returned:
        if not hasattr(item, "measurements"):
            raise TypeError(
                "expected tapes or PennyLane's measurements from a compiled function, found "
                f"{type(item).__name__}; a QNode is compiled by itself: kg.compile(qnode)"
            )
    tapes = as_tapes(returned)
    if any(tape.shots is not None for tape in tapes):
        raise NotImplementedError("a compiled function returned a tape with shots; give it to kg.execute")
    return Circuits(tapes, (lambda results: results[0]) if is_single else tuple)
