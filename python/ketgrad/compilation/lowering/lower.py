"""Lowering of the trace of a function that returns tapes to a `CompiledPlan`.

A scalar of a tape that is scale × an element of a tensor + offset becomes a slot of the native program, which reads it
from that tensor. Other arithmetic becomes Python code that makes the same torch calls. A call runs that code, and one
native call for each distinct structure among the tapes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ...autograd.derivative_rule import KetPolicy
from ...circuit.tape import Tape
from ...execution.batching import common_type
from ...execution.programs import Circuit, describe_circuit, require_room, write_program
from ...execution.results import Result, ResultLayout
from ..joint_call import units_of
from ..native_call import NativeCall
from ..plan import CompiledPlan, describe_tensor
from ..tracing.trace import Trace
from .code_writer import CodeWriter
from .parameters import ParameterReader, TracedParameter
from .program_inputs import ProgramInputs
from .shared_inputs import SharedInputs
from .varied_inputs import VariedInputs
from .vectorise import Vectoriser

_Member = tuple[Tape, list[TracedParameter]]


class Lowering:
    """Makes the plan of a trace: `calls_of` prepares the native calls, then `plan` adds the use of their results.

    Args:
        trace: of the function.
        number: a tensor → its number in the trace.
    """

    def __init__(self, trace: Trace, number: Callable[[Tensor], int]) -> None:
        self.trace = trace
        self.reader = ParameterReader(trace, number)
        self.writer = CodeWriter(trace, number)
        self.vectoriser = Vectoriser(trace, self.reader.uses, self.writer)
        self.calls: list[NativeCall] = []
        self.circuits: list[Circuit] = []
        self.passed: list[list[str]] = []
        self.results: list[int] = []
        self.batched: tuple[int, ...] = ()

    def calls_of(self, tapes: Sequence[Tape], dtype: torch.dtype | None, kets: KetPolicy) -> list[tuple[Tensor, ...]]:
        """Prepare the calls; returns stand-ins for the results of each tape."""
        groups: dict[Any, list[int]] = {}
        for position, tape in enumerate(tapes):
            groups.setdefault((tape.structure, *common_type(tape, dtype)), []).append(position)
        parameters = [self.reader.parameters(tape) for tape in tapes]
        results: list[tuple[Tensor, ...]] = [()] * len(tapes)
        for (_, real, device), positions in groups.items():
            inputs = self._inputs([(tapes[i], parameters[i]) for i in positions], real, device)
            call = _native_call(inputs, tuple(positions), kets)
            if device.type == "cpu":
                require_room(tapes[positions[0]], call.program, call.result_layout)
            self.calls.append(call)
            self.passed.append(inputs.views()[1])
            sizes = [tapes[i].batch_size for i in positions]
            batch = sum(1 if size is None else size for size in sizes)
            self.circuits.append(describe_circuit(tapes[positions[0]], batch, real))
            for i in positions:
                results[i] = tuple(
                    [self._stand_in(call, found, tapes[i], real) for found in call.result_layout.results]
                )
        self.batched = self.reader.batched_arguments(tapes, parameters)
        return results

    def _inputs(self, members: Sequence[_Member], real: torch.dtype, device: torch.device) -> ProgramInputs:
        """The inputs of a call."""
        inputs = ProgramInputs(self.writer, members, real, device)
        shared: list[int] = []
        varied: list[int] = []
        for index, found in enumerate(inputs.parameters[0]):
            same = all(found.same(others[index]) for others in inputs.parameters[1:])
            is_shared = len(members) == 1 or (same and not found.is_batched)
            (shared if is_shared else varied).append(index)
        outside = {*self.trace.arguments, *[captured.number for captured in self.trace.captured]}
        SharedInputs(inputs, self.vectoriser, outside).place(shared)
        if varied:
            VariedInputs(inputs).place(varied)
        # The same circuit several times: the input of numbers must have the batch axis, because no other input has it.
        inputs.close(len(members) if len(members) > 1 and not varied else None)
        return inputs

    def _stand_in(self, call: NativeCall, result: Result, tape: Tape, real: torch.dtype) -> Tensor:
        """A tensor with the shape and dtype of a result, expanded from one element."""
        dtype = real.to_complex() if result.is_complex else real
        tensor = torch.zeros((), dtype=dtype, device=call.device).expand(result.batched_shape(tape.batch_size))
        trained = [p for p in tape.get_parameters() if isinstance(p, Tensor) and p.requires_grad]
        tensor.requires_grad_(bool(trained))
        self.results.append(self.trace.add(tensor).number)
        return tensor

    def plan(self, returned: Any, boundary: int) -> CompiledPlan:
        """The plan.

        Args:
            returned: what the function returned for the stand-ins of the results.
            boundary: the number of nodes of the trace before the native calls.
        """
        ending = self.writer.ending(returned, boundary, self.results)
        source = self.writer.arithmetic(boundary, self.passed, ending.kept)
        namespace = dict(self.writer.objects)
        for text in (source, ending.source):
            exec(compile(text, "<ketgrad arithmetic>", "exec"), namespace)
        return CompiledPlan(
            arithmetic=namespace["arithmetic"],
            finish=namespace["finish"],
            source=source,
            ending=ending.source,
            objects=self.writer.objects,
            calls=tuple(self.calls),
            units=units_of(self.calls, self.passed),
            circuits=tuple(self.circuits),
            captured=tuple(self.trace.captured),
            containers=None,
            arguments="; ".join([describe_tensor(self.trace.values[number].tensor) for number in self.trace.arguments]),
            batched_arguments=self.batched,
            unread=self.writer.unread(self.batched),
        )


def _native_call(inputs: ProgramInputs, positions: tuple[int, ...], kets: KetPolicy) -> NativeCall:
    """The call with the given inputs, for the tapes at the given positions."""
    tape = inputs.tapes[0]
    given = list(inputs.all().values())
    program = write_program(tape, [(each.is_complex, each.shape) for each in given], inputs.places())
    layout = ResultLayout.of(tape.measurements, tape.num_wires)
    sizes = [1 if each.batch_size is None else each.batch_size for each in inputs.tapes]
    return NativeCall(
        program=program,
        id=program.id,
        device=inputs.device,
        real=inputs.real,
        views=inputs.views()[0],
        constants=tuple([each.constant for each in given]),
        batched=next((i for i, each in enumerate(given) if each.is_batched), -1),
        ket_bytes=2 * inputs.real.itemsize * program.ket_size,
        kets=kets,
        tapes=positions,
        result_layout=layout,
        has_numbers=(layout.real_size > 0, layout.complex_size > 0),
        has_batch=inputs.has_batch,
        rows=tuple(sizes) if len(set(sizes)) > 1 else None,
    )
