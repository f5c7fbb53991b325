"""Lowering: the trace of a function that returns tapes becomes a `Plan`, which is what is left of it in later calls.

A scalar of a tape that is scale × an element of a tensor + offset is a slot of the native program, which reads it from
that tensor itself. What else was computed becomes Python code that makes the same torch calls. So a call is that code
and one operator call for each distinct structure among the tapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..circuit.tape import Tape
from ..circuit.types import Array
from ..execution.batching import common_type
from ..execution.programs import (
    SCALAR_KINDS,
    VECTOR_KIND,
    Circuit,
    Result,
    Slot,
    describe_circuit,
    describe_parameters,
    require_room,
    write_program,
)
from ..native.library import _C
from .captures import Sizes
from .recorder import Captured, Node, Ref, Trace, name_of
from .vectorise import Use, Vectoriser

# --- what a plan is ---------------------------------------------------------------------------------------------------


class View(NamedTuple):
    """An input of an operator call that is a tensor of the call: in which shape and dtype it is read.

    Attributes:
        input: its position among the inputs of the program.
        shape: to reshape the tensor to, None where it has the program's shape already.
        dtype: of the input.
        is_real: a real tensor for a complex input.
    """

    input: int
    shape: tuple[int, ...] | None
    dtype: torch.dtype
    is_real: bool


class Call(NamedTuple):
    """One operator call, for tapes of one structure.

    Attributes:
        program: keeps the program alive; `id` names it.
        views: one for each tensor that the plan's code hands over.
        constants: the inputs of the program, None where a view goes.
        batched: an input with a batch axis, -1 where there is none.
        ket_bytes: of one final state.
        recompute: whether the backward pass computes final states again; None: by the memory that they take.
        tapes: the positions of its tapes among what the function returned.
        results: of one tape, one a measurement.
        shapes: of these results, without the batch axis.
        has_batch: whether the tapes are batches.
        are_scalars: there is one tape, and all its results are numbers.
        rows: circuits a tape stands for; None: all tapes have as many.
    """

    program: _C.Program
    id: int
    device: torch.device
    views: tuple[View, ...]
    constants: tuple[Tensor | None, ...]
    batched: int
    ket_bytes: int
    recompute: bool | None
    tapes: tuple[int, ...]
    results: tuple[Result, ...]
    shapes: tuple[tuple[int, ...], ...]
    real_results: int
    complex_results: int
    has_batch: bool
    are_scalars: bool
    rows: tuple[int, ...] | None


class Plan(NamedTuple):
    """What is left of a function for arguments of one structure.

    Attributes:
        arithmetic: (arguments, captured tensors) → for each call the tensors of its views, then what `finish` takes.
        finish: (tensors of `arithmetic`, then the results of the calls) → what the function returns.
        source, ending: the code of `arithmetic` and of `finish`, and `objects` what their names stand for.
        calls: the operator calls, and `circuits` what they ran while tracing.
        captured: the tensors that the function reads from outside.
        sizes: the containers outside it that the plan depends on.
        arguments: the tensors among the arguments, in words.
        batched_arguments: the arguments whose first axis is the tapes' batch axis, as far as one can see.
        unread: by the position of an argument, its elements (of a row, where it is batched) that nothing depends on.
    """

    arithmetic: Callable[..., tuple[tuple[Tensor, ...], ...]]
    finish: Callable[..., Any]
    source: str
    ending: str
    objects: dict[str, Any]
    calls: tuple[Call, ...]
    circuits: tuple[Circuit, ...]
    captured: tuple[Captured, ...]
    sizes: Sizes | None
    arguments: str
    batched_arguments: tuple[int, ...]
    unread: dict[int, tuple[int, ...]]

    @property
    def bytes(self) -> int:
        """About so much memory it takes, its programs and their plans so far included."""
        operations = sum(circuit.operations for circuit in self.circuits)
        return 4096 + 256 * operations + sum(call.program.bytes for call in self.calls)  # measured: a little less

    def describe(self, source: str) -> str:
        """Its code for people to read, empty where it computes nothing."""
        if source.count("\n") == 1:
            return ""
        return re.sub(r"\bk\d+\b", lambda found: _described(self.objects[found[0]]), source)


def _described(found: Any) -> str:
    """What stands for an object in code that is not run."""
    if isinstance(found, Tensor):
        return f"<{describe_tensor(found)}>"
    return name_of(found) or repr(found)


def describe_tensor(tensor: Tensor) -> str:
    """A tensor's structure in words."""
    grad = ", requires grad" if tensor.requires_grad else ""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}{grad}"


def same_plan(one: Plan, other: Plan) -> bool:
    """Whether two plans do the same."""
    if (one.source, one.ending) != (other.source, other.ending) or one.objects.keys() != other.objects.keys():
        return False
    if not all(_same(found, other.objects[name]) for name, found in one.objects.items()):
        return False
    if [c.location.names for c in one.captured] != [c.location.names for c in other.captured]:
        return False
    return len(one.calls) == len(other.calls) and all(map(_same_call, one.calls, other.calls))


def _same_call(one: Call, other: Call) -> bool:
    if not all(_same(a, b) for a, b in zip(one.constants, other.constants, strict=False)):
        return False
    return one._replace(program=other.program, constants=other.constants) == other


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype is other.dtype and not one.is_meta and torch.equal(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return one is other or (type(one) is type(other) and bool(one == other))


# --- where the parameters of a tape come from -------------------------------------------------------------------------


class _Parameter(NamedTuple):
    """A parameter of a tape in the traced run.

    Attributes:
        kind: see `Operation.parameter_kinds`.
        is_batched: whether it has a batch axis.
        value: the number of its value in the trace, or a number or an array where it is constant.
        uses: of a scalar or a vector of coefficients, one a column, where it can be read by slots; otherwise None.
    """

    kind: str
    is_batched: bool
    value: int | float | Array | Tensor
    uses: tuple[Use, ...] | None

    @property
    def is_constant(self) -> bool:
        """Whether it is the same in every call."""
        return type(self.value) is not int

    def same(self, other: _Parameter) -> bool:
        """Whether it is the same as another tape's parameter, in every call."""
        if self.uses is not None or other.uses is not None:
            return self.uses == other.uses
        return _same(self.value, other.value)


class _Input(NamedTuple):
    """An input of a program while it is being put together.

    Attributes:
        text: the expression that gives its tensor; None for a constant.
        constant: the tensor that it is.
        shape: without the batch axis.
        view: what the tensor is reshaped to, None where it is in shape.
        is_real: it is complex, but its tensor is real.
    """

    text: str | None
    constant: Tensor | None
    shape: tuple[int, ...]
    is_batched: bool
    is_complex: bool = False
    view: tuple[int, ...] | None = None
    is_real: bool = False


class Lowering:
    """Makes the plan of a trace: first the calls, `calls_of`, then what becomes of their results, `plan`."""

    def __init__(self, trace: Trace, number: Callable[[Tensor], int]) -> None:
        self.trace = trace
        self.number = number
        self.outer = {*trace.arguments}
        self.needed: set[int] = set()
        self.whole: set[int] = set()
        self.columns: dict[int, set[int]] = {}
        self.tail: list[str] = []
        self.objects: dict[str, Any] = {"torch": torch}
        self.vectoriser = Vectoriser(trace, self.uses, self)
        self.calls: list[Call] = []
        self.circuits: list[Circuit] = []
        self.handed: list[str] = []
        self.results: list[int] = []
        self.batched: tuple[int, ...] = ()

    def calls_of(
        self, tapes: Sequence[Tape], dtype: torch.dtype | None, recompute: bool | None
    ) -> list[tuple[Tensor, ...]]:
        """Prepare the calls; returns stand-ins for the results of each tape."""
        groups: dict[Any, list[int]] = {}
        for position, tape in enumerate(tapes):
            groups.setdefault((tape.structure, *common_type(tape, dtype)), []).append(position)
        parameters = [self.parameters(tape) for tape in tapes]
        self.outer.update(captured.number for captured in self.trace.captured)
        results: list[tuple[Tensor, ...]] = [()] * len(tapes)
        for (_, real, device), positions in groups.items():
            members = [(tapes[i], parameters[i]) for i in positions]
            call, handed = _CallBuilder(self, members, real, device).run(tuple(positions), recompute)
            self.calls.append(call)
            rows = [tapes[i].batch_size for i in positions]
            batch = sum(1 if row is None else row for row in rows)
            self.circuits.append(describe_circuit(tapes[positions[0]], batch, real))
            self.handed.append("(" + "".join(f"{text}, " for text in handed) + ")")
            for i in positions:
                results[i] = tuple([self.stand_in(call, m, tapes[i], real) for m in range(len(call.results))])
        self.batched = self.batched_arguments(tapes, parameters)
        return results

    def stand_in(self, call: Call, measurement: int, tape: Tape, real: torch.dtype) -> Tensor:
        """A tensor without memory of its own in place of a result."""
        dtype = real.to_complex() if call.results[measurement].is_complex else real
        batch = () if tape.batch_size is None else (tape.batch_size,)
        tensor = torch.zeros((), dtype=dtype, device=call.device).expand((*batch, *call.shapes[measurement]))
        trained = [p for p in tape.get_parameters() if isinstance(p, Tensor) and p.requires_grad]
        tensor.requires_grad_(bool(trained))
        self.results.append(self.trace.add(tensor).number)
        return tensor

    def plan(self, returned: Any, boundary: int) -> Plan:
        """The plan.

        Args:
            returned: what the function returns, made of stand-ins for the results.
            boundary: how many nodes the trace had before anything was done with them.
        """
        ending = self.ending(returned, boundary)
        source = self.code(boundary, ending.kept)
        namespace = dict(self.objects)
        for text in (source, ending.source):
            exec(compile(text, "<ketgrad arithmetic>", "exec"), namespace)
        return Plan(
            arithmetic=namespace["arithmetic"],
            finish=namespace["finish"],
            source=source,
            ending=ending.source,
            objects=self.objects,
            calls=tuple(self.calls),
            circuits=tuple(self.circuits),
            captured=tuple(self.trace.captured),
            sizes=None,
            arguments="; ".join([describe_tensor(self.trace.values[number].tensor) for number in self.trace.arguments]),
            batched_arguments=self.batched,
            unread=self.unread(),
        )

    # Parameters.

    def parameters(self, tape: Tape) -> list[_Parameter]:
        """What each parameter of a tape is."""
        kinds, layouts = describe_parameters(tape)
        trainable = frozenset(tape.trainable_params)
        found = []
        for index, (kind, letter, value) in enumerate(zip(kinds, layouts, tape.parameters, strict=True)):
            if isinstance(value, Tensor):
                found.append(self.parameter(kind, letter == "b", value, index in trainable))
            else:
                found.append(_Parameter(kind, letter == "B", value, None))
        return found

    def parameter(self, kind: str, is_batched: bool, tensor: Tensor, is_trainable: bool) -> _Parameter:
        """What a tensor is as a parameter."""
        number = self.number(tensor)
        value = self.trace.values[number]
        if value.is_constant and not self.trace.mutates:
            plain = tensor.detach().clone()
            is_number = kind in SCALAR_KINDS and not is_batched
            return _Parameter(kind, is_batched, float(plain) if is_number else plain, None)
        if tensor.requires_grad and not is_trainable:  # the tape's trainable_params leave it out
            detached = self.trace.add(tensor.detach())
            self.trace.nodes.append(Node(Tensor.detach, (Ref(number),), {}, [(detached.number, ())], True))
            number = detached.number
        is_real = kind in SCALAR_KINDS or kind == VECTOR_KIND
        return _Parameter(kind, is_batched, number, self.uses(number, is_batched) if is_real else None)

    def uses(self, number: int, is_batched: bool) -> tuple[Use, ...] | None:
        """How a scalar or a vector, behind a batch axis or not, is read by slots; None where it cannot be."""
        root, index, scale, offset = self.trace.affine(number)
        tensor = self.trace.values[root].tensor
        if not is_batched:
            return tuple([Use(root, False, column, scale, offset) for column in index.reshape(-1).tolist()])
        batch = index.shape[0]
        if not batch or not tensor.dim() or tensor.shape[0] != batch:
            return None
        row = tensor.numel() // batch
        rows = index.reshape(batch, -1)
        if int(rows[0].max()) >= row or not torch.equal(rows, rows[0] + row * torch.arange(batch)[:, None]):
            return None
        return tuple([Use(root, True, column, scale, offset) for column in rows[0].tolist()])

    def batched_arguments(self, tapes: Sequence[Tape], parameters: Sequence[list[_Parameter]]) -> tuple[int, ...]:
        """The arguments on which batched parameters depend and which have as many rows as the batch."""
        sizes = {tape.batch_size for tape in tapes}
        if len(sizes) != 1 or sizes == {None}:
            return ()
        batched = [p.value for of_tape in parameters for p in of_tape if p.is_batched and not p.is_constant]
        reached = self.reached({number for number in batched if isinstance(number, int)})
        (size,) = sizes
        found = []
        for position, number in enumerate(self.trace.arguments):
            shape = self.trace.values[number].tensor.shape
            if number in reached and len(shape) and shape[0] == size:
                found.append(position)
        return tuple(found)

    def reached(self, numbers: set[int]) -> set[int]:
        """The values on which some values depend, and they themselves."""
        found = set(numbers)
        for node in reversed(self.trace.nodes):
            if any(number in found for number, _ in node.outputs):
                found.update(node.inputs())
        return found

    # Code.

    def text(self, value: int | float | Array | Tensor, columns: Iterable[int] | None = None) -> str:
        """The expression for a parameter's tensor, of which these columns are read; None: all of it."""
        if not isinstance(value, int):
            return self.name(torch.as_tensor(value))
        self.needed.add(value)
        if columns is None:
            self.whole.add(value)
        else:
            self.columns.setdefault(value, set()).update(columns)
        return f"v{value}"

    def unread(self) -> dict[int, tuple[int, ...]]:
        """See `Plan`."""
        found = {}
        for position, number in enumerate(self.trace.arguments):
            tensor = self.trace.values[number].tensor
            if number not in self.whole:
                size = tensor.numel() // tensor.shape[0] if position in self.batched else tensor.numel()
                columns = set(range(size)).difference(self.columns.get(number, ()))
                found[position] = tuple(sorted(columns))
        return {position: columns for position, columns in found.items() if columns}

    def emit(self, expression: str) -> str:
        """Compute something after the function's own arithmetic; returns its name."""
        name = f"w{len(self.tail)}"
        self.tail.append(f"    {name} = {expression}")
        return name

    def name(self, found: Any) -> str:
        """A name that stands for an object."""
        name = f"k{len(self.objects)}"
        self.objects[name] = found
        return name

    def code(self, boundary: int, kept: Sequence[int]) -> str:
        """The function that computes what the calls take, and values that are kept for later."""
        numbers = [*self.trace.arguments, *[captured.number for captured in self.trace.captured]]
        self.needed.update(kept)
        self.whole.update(kept)
        lines = [f"def arithmetic({', '.join(f'v{number}' for number in numbers)}):"]
        lines += self.body(self.kept_nodes(self.trace.nodes[:boundary], self.needed))
        lines += self.tail
        texts = [*self.handed, "(" + "".join(f"v{number}, " for number in kept) + ")"]
        lines.append("    return (" + "".join(f"{text}, " for text in texts) + ")")
        return "\n".join(lines)

    def ending(self, returned: Any, boundary: int) -> _Ending:
        """The function that computes what is returned."""
        leaves: list[int] = []
        text = self.returned_text(returned, leaves)
        nodes = self.kept_nodes(self.trace.nodes[boundary:], set(leaves))
        own = {number for node in nodes for number, _ in node.outputs}.union(self.results)
        used = [*leaves, *[number for node in nodes for number in node.inputs()]]
        kept = tuple(dict.fromkeys(number for number in used if number not in own))
        lines = [f"def finish({', '.join(f'v{number}' for number in [*kept, *self.results])}):"]
        lines += [*self.body(nodes), f"    return {text}"]
        return _Ending("\n".join(lines), kept)

    def returned_text(self, item: Any, leaves: list[int]) -> str:
        """The expression of what the function returns; its tensors are added to the leaves."""
        if isinstance(item, Tensor):
            leaves.append(self.number(item))
            return f"v{leaves[-1]}"
        if type(item) is dict:
            parts = "".join(f"{self.literal(k)}: {self.returned_text(part, leaves)}, " for k, part in item.items())
            return f"{{{parts}}}"
        if type(item) is list:
            return "[" + "".join(f"{self.returned_text(part, leaves)}, " for part in item) + "]"
        if isinstance(item, tuple):
            parts = "".join(f"{self.returned_text(part, leaves)}, " for part in item)
            return f"{self.name(type(item))}({parts})" if hasattr(item, "_fields") else f"({parts})"
        if item is None or isinstance(item, (bool, int, float, complex, str, np.generic, np.ndarray)):
            return self.name(item)
        raise NotImplementedError(
            f"a compiled function returns tensors in lists, tuples and dictionaries, not in a {type(item).__name__}"
        )

    def kept_nodes(self, nodes: Sequence[Node], wanted: set[int]) -> Sequence[Node]:
        """The nodes on which the wanted values depend; all, where tensors are changed in place."""
        if self.trace.mutates:
            return nodes
        needed, kept = set(wanted), []
        for node in reversed(nodes):
            if not node.outputs or any(number in needed for number, _ in node.outputs):
                kept.append(node)
                needed.update(node.inputs())
        return kept[::-1]

    def body(self, nodes: Sequence[Node]) -> list[str]:
        """The code of nodes."""
        lines = []
        has_grad = True
        for node in nodes:
            self.whole.update(node.inputs())
            if node.has_grad != has_grad:
                has_grad = node.has_grad
                if not has_grad:
                    lines.append("    with torch.no_grad():")
            indent = "    " if has_grad else "        "
            lines += [indent + line for line in self.lines(node)]
        return lines

    def lines(self, node: Node) -> list[str]:
        """The code of a node."""
        arguments = [self.literal(a) for a in node.args]
        arguments += [f"{key}={self.literal(a)}" for key, a in node.kwargs.items()]
        call = f"{self.name(node.function)}({', '.join(arguments)})"
        if not node.outputs:
            return [call]
        if len(node.outputs) == 1 and not node.outputs[0][1]:
            return [f"v{node.outputs[0][0]} = {call}"]
        paths = [(number, "".join(f"[{step}]" for step in path)) for number, path in node.outputs]
        return [f"found = {call}", *[f"v{number} = found{path}" for number, path in paths]]

    def literal(self, item: Any) -> str:
        """An argument of a torch call as Python text."""
        if isinstance(item, Ref):
            return f"v{item.number}"
        if item is None or type(item) in (bool, int, str) or (type(item) is float and math.isfinite(item)):
            return repr(item)
        if item is Ellipsis:
            return "..."
        if isinstance(item, slice):
            return f"slice({', '.join(self.literal(part) for part in (item.start, item.stop, item.step))})"
        if isinstance(item, (tuple, list)):
            parts = "".join(f"{self.literal(part)}, " for part in item)
            return f"({parts})" if isinstance(item, tuple) else f"[{parts}]"
        if type(item) is dict:
            return "{" + ", ".join(f"{key!r}: {self.literal(part)}" for key, part in item.items()) + "}"
        return self.name(item)


class _Ending(NamedTuple):
    """The code of `Plan.finish`, and the values that it takes from before the calls."""

    source: str
    kept: tuple[int, ...]


class _CallBuilder:
    """Puts one operator call together: the inputs, and where in them each parameter is."""

    def __init__(
        self,
        lowering: Lowering,
        members: Sequence[tuple[Tape, list[_Parameter]]],
        real: torch.dtype,
        device: torch.device,
    ) -> None:
        self.lowering = lowering
        self.tapes = [tape for tape, _ in members]
        self.parameters = [found for _, found in members]
        self.real = real
        self.device = device
        self.has_batch = self.tapes[0].batch_size is not None
        self.reals: dict[Any, _Input] = {}
        self.denses: dict[Any, _Input] = {}
        self.numbers: list[float] = []
        self.slots: dict[tuple[int, int], tuple[Any, int, float, float]] = {}
        self.sources: dict[int, Any] = {}

    def run(self, positions: tuple[int, ...], recompute: bool | None) -> tuple[Call, list[str]]:
        """The call, and the expressions of the tensors that it takes."""
        tape = self.tapes[0]
        if self.device.type == "cpu":
            require_room(tape)
        self.place_all()
        inputs = {**self.reals, **self.denses}
        place = {key: position for position, key in enumerate(inputs)}

        def slot(parameter: int, column: int) -> Slot:
            key, at, scale, offset = self.slots[parameter, column]
            return place[key], at, scale, offset

        specs = [(given.is_complex, given.shape) for given in inputs.values()]
        written = write_program(tape, specs, slot, lambda parameter: place[self.sources[parameter]])
        handed = [(i, given) for i, given in enumerate(inputs.values()) if given.text is not None]
        views = tuple([View(i, given.view, self.dtype_of(given), given.is_real) for i, given in handed])
        batched = next((i for i, given in enumerate(inputs.values()) if given.is_batched), -1)
        call = Call(
            program=written.program,
            id=written.program.id,
            device=self.device,
            views=views,
            constants=tuple([given.constant for given in inputs.values()]),
            batched=batched,
            ket_bytes=2 * self.real.itemsize << tape.num_wires,
            recompute=recompute,
            tapes=positions,
            results=written.results,
            shapes=tuple([_result_shape(result) for result in written.results]),
            real_results=written.real_results,
            complex_results=written.complex_results,
            has_batch=self.has_batch,
            are_scalars=len(positions) == 1 and all(result.kind in ("expval", "var") for result in written.results),
            rows=self.rows(),
        )
        return call, [str(given.text) for _, given in handed]

    def rows(self) -> tuple[int, ...] | None:
        sizes = [1 if tape.batch_size is None else tape.batch_size for tape in self.tapes]
        return tuple(sizes) if len(set(sizes)) > 1 else None

    def dtype_of(self, given: _Input) -> torch.dtype:
        return self.real.to_complex() if given.is_complex else self.real

    def place_all(self) -> None:
        """Give each parameter its place. Real inputs come first, because input 0 settles the precision."""
        varied: list[int] = []
        shared: list[int] = []
        for index, found in enumerate(self.parameters[0]):
            same = all(found.same(others[index]) for others in self.parameters[1:])
            is_shared = len(self.tapes) == 1 or (same and not found.is_batched)
            (shared if is_shared else varied).append(index)
        self.place_scalars([i for i in shared if self.is_scalar(i)])
        for index in shared:
            if not self.is_scalar(index):
                self.place_whole(index)
        if varied:
            self.place_varied(varied)
        elif len(self.tapes) > 1:  # the same circuit several times: something has to carry the batch
            self.numbers_input(batch=len(self.tapes))
        if self.numbers:
            self.numbers_input(batch=None if varied or len(self.tapes) == 1 else len(self.tapes))
        if not self.reals:
            self.numbers_input(batch=None)

    def is_scalar(self, index: int) -> bool:
        return self.parameters[0][index].kind in SCALAR_KINDS

    def numbers_input(self, batch: int | None) -> None:
        values = torch.tensor(self.numbers, dtype=self.real, device=self.device)
        shaped = values if batch is None else values.expand(batch, -1).contiguous()
        self.reals["numbers"] = _Input(None, shaped, (len(self.numbers),), batch is not None)

    # Parameters that all tapes of the call share, or of the one tape.

    def place_scalars(self, indices: Sequence[int]) -> None:
        found = self.parameters[0]
        columns: dict[int, set[int]] = {}
        for index in indices:
            for use in found[index].uses or ():
                columns.setdefault(use.root, set()).add(use.column)
        loose: dict[bool, list[int]] = {False: [], True: []}
        for index in indices:
            parameter = found[index]
            if parameter.is_constant:
                self.place_constant(index)
            elif parameter.uses is not None and self.is_read_directly(parameter.uses[0].root, columns):
                self.place_use(index, 0, parameter.uses[0])
            else:
                loose[parameter.is_batched].append(index)
        for is_batched, together in loose.items():
            rest = self.place_alike(together, is_batched)
            if rest:
                self.place_loose(rest, is_batched)

    def is_read_directly(self, root: int, columns: dict[int, set[int]]) -> bool:
        """Arguments, and what several parameters read; the others are stacked, so that they are one input."""
        return root in self.lowering.outer or len(columns[root]) > 1

    def place_constant(self, index: int) -> None:
        value = self.parameters[0][index].value
        if isinstance(value, float):
            self.slots[index, 0] = ("numbers", len(self.numbers), 1.0, 0.0)
            self.numbers.append(value)
        else:  # a batch
            column = self.constant(value).reshape(-1, 1)
            self.reals["constant", index] = _Input(None, column, (1,), True)
            self.slots[index, 0] = (("constant", index), 0, 1.0, 0.0)

    def constant(self, value: Any, is_complex: bool = False) -> Tensor:
        dtype = self.real.to_complex() if is_complex else self.real
        given = value if isinstance(value, Tensor) else np.asarray(value)
        return torch.as_tensor(given, dtype=dtype, device=self.device).contiguous()

    def place_use(self, index: int, column: int, use: Use) -> None:
        key = ("root", use.root, use.is_batched)
        if key not in self.reals:
            self.reals[key] = self.root_input(use.root, use.is_batched)
        self.lowering.text(use.root, (use.column,))
        self.slots[index, column] = (key, use.column, use.scale, use.offset)

    def root_input(self, root: int, is_batched: bool) -> _Input:
        tensor = self.lowering.trace.values[root].tensor
        axes, text = tensor.dim(), self.lowering.text(root, ())
        if not is_batched:
            return _Input(text, None, (tensor.numel(),), False, view=None if axes == 1 else (-1,))
        row = tensor.numel() // tensor.shape[0]
        return _Input(text, None, (row,), True, view=None if axes == 2 else (-1, row))

    def place_alike(self, indices: Sequence[int], is_batched: bool) -> list[int]:
        """Compute those scalars together that are computed alike; returns the others."""
        batch = self.tapes[0].batch_size if is_batched else None
        numbers = [int(self.parameters[0][i].value) for i in indices]
        left = dict.fromkeys(indices)
        for group in self.lowering.vectoriser.groups(numbers, batch):
            text, columns = self.lowering.vectoriser.write([numbers[i] for i in group], batch)
            key = ("alike", text)
            self.reals[key] = _Input(text, None, (max(columns) + 1,), is_batched)
            for i, column in zip(group, columns, strict=True):
                self.slots[indices[i], 0] = (key, column, 1.0, 0.0)
                del left[indices[i]]
        return list(left)

    def place_loose(self, indices: Sequence[int], is_batched: bool) -> None:
        """Stack scalars of which each is a tensor of its own."""
        different = {parameter.value: parameter for parameter in [self.parameters[0][i] for i in indices]}
        texts = [self.real_text(parameter) for parameter in different.values()]
        if len(texts) == 1:
            text, view = texts[0], (-1, 1) if is_batched else (-1,)
        else:
            text, view = self.lowering.emit(f"torch.stack([{', '.join(texts)}], -1)"), None
        key = ("loose", is_batched)
        self.reals[key] = _Input(text, None, (len(texts),), is_batched, view=view)
        column = {value: position for position, value in enumerate(different)}
        for index in indices:
            self.slots[index, 0] = (key, column[self.parameters[0][index].value], 1.0, 0.0)

    def real_text(self, parameter: _Parameter) -> str:
        """A parameter's expression, in the call's precision."""
        value = parameter.value
        if not isinstance(value, int):
            return self.lowering.name(self.constant(value))
        text = self.lowering.text(value)
        if self.lowering.trace.values[value].tensor.dtype is self.real:
            return text
        return f"{text}.to({self.lowering.name(self.real)})"

    def place_whole(self, index: int) -> None:
        """A vector of coefficients, or what is dense."""
        parameter = self.parameters[0][index]
        is_vector = parameter.kind == VECTOR_KIND
        if parameter.uses is not None:
            for column, use in enumerate(parameter.uses):
                self.place_use(index, column, use)
            return
        shape = tuple(np.shape(self.tapes[0].parameters[index]))[1 if parameter.is_batched else 0 :]
        text, constant = None, None
        if parameter.is_constant:
            constant = self.constant(parameter.value, not is_vector)
        else:
            text = self.lowering.text(parameter.value)
        key = ("whole", index) if parameter.is_constant else ("whole", parameter.value, parameter.is_batched)
        is_real = not is_vector and not self.is_complex(parameter)
        given = _Input(text, constant, shape, parameter.is_batched, not is_vector, is_real=is_real)
        self.place_input(index, key, given)

    def is_complex(self, parameter: _Parameter) -> bool:
        value = parameter.value
        return isinstance(value, int) and self.lowering.trace.values[value].tensor.is_complex()

    def place_input(self, index: int, key: Any, given: _Input) -> None:
        if given.is_complex:
            self.denses[key] = given
            self.sources[index] = key
        else:
            self.reals[key] = given
            for column in range(given.shape[0]):
                self.slots[index, column] = (key, column, 1.0, 0.0)

    # Parameters that differ between the tapes of the call.

    def place_varied(self, indices: Sequence[int]) -> None:
        scalars = [i for i in indices if self.is_scalar(i)]
        constant = [i for i in scalars if all(isinstance(of_tape[i].value, float) for of_tape in self.parameters)]
        if constant and not self.has_batch:
            table = [[of_tape[i].value for i in constant] for of_tape in self.parameters]
            self.place_columns(constant, "varied numbers", _Input(None, self.constant(table), (len(constant),), True))
            scalars = [i for i in scalars if i not in constant]
        if scalars and not self.gather(scalars):
            rows = [self.row_text([of_tape[i] for i in scalars], t) for t, of_tape in enumerate(self.parameters)]
            text = self.lowering.emit(f"torch.cat([{', '.join(rows)}])")
            self.place_columns(scalars, "varied", _Input(text, None, (len(scalars),), True))
        for index in indices:
            if not self.is_scalar(index):
                self.place_varied_whole(index)

    def place_columns(self, indices: Sequence[int], key: Any, given: _Input) -> None:
        self.reals[key] = given
        for column, index in enumerate(indices):
            self.slots[index, 0] = (key, column, 1.0, 0.0)

    def row_text(self, parameters: Sequence[_Parameter], tape: int) -> str:
        """One tape's scalars, (B, k)."""
        texts = ", ".join([self.real_text(parameter) for parameter in parameters])
        if not any(parameter.is_batched for parameter in parameters):
            return f"torch.stack([{texts}]).expand({self.tapes[tape].batch_size or 1}, {len(parameters)})"
        return f"torch.stack(torch.broadcast_tensors({texts}), -1)"

    def gather(self, indices: Sequence[int]) -> bool:
        """Read scalars without a batch axis from their roots at once, if all can be."""
        table = [[of_tape[i].uses for i in indices] for of_tape in self.parameters]
        if self.has_batch or any(uses is None for row in table for uses in row):
            return False
        flat = [[uses[0] for uses in row if uses] for row in table]
        roots = list(dict.fromkeys(use.root for row in flat for use in row))
        values = self.lowering.trace.values
        sizes = [values[root].tensor.numel() for root in roots]
        first = dict(zip(roots, np.cumsum([0, *sizes]).tolist(), strict=False))
        index = torch.tensor([[first[use.root] + use.column for use in row] for row in flat])
        # A row's factors go into the slots where the tapes agree on them.
        scales = torch.tensor([[(use.scale, use.offset) for use in row] for row in flat], dtype=torch.float64)
        in_slots = bool((scales == scales[0]).all())
        for use in chain.from_iterable(flat):
            self.lowering.text(use.root, (use.column,))
        text = self.gathered(roots, index, None if in_slots else scales)
        self.reals["varied"] = _Input(text, None, (len(indices),), True, view=(-1, len(indices)))
        for column, (i, use) in enumerate(zip(indices, flat[0], strict=True)):
            factors = (use.scale, use.offset) if in_slots else (1.0, 0.0)
            self.slots[i, 0] = ("varied", column, *factors)
        return True

    def gathered(self, roots: Sequence[int], index: Tensor, scales: Tensor | None) -> str:
        """The elements of roots at flat indices (T, k), as (T k,); times a scale and plus an offset each."""
        emit, name = self.lowering.emit, self.lowering.name
        parts = [f"{self.lowering.text(root, ())}.reshape(-1)" for root in roots]
        flat = parts[0] if len(parts) == 1 else f"torch.cat([{', '.join(parts)}])"
        sizes = sum(self.lowering.trace.values[root].tensor.numel() for root in roots)
        whole = index.numel() == sizes and torch.equal(index.reshape(-1), torch.arange(sizes))
        if whole and len(roots) == 1 and scales is None:
            return self.lowering.text(roots[0], ())
        text = flat if whole else f"{flat}.index_select(0, {name(index.reshape(-1).to(self.device))})"
        if scales is not None:
            scale, offset = [s.reshape(-1).to(self.device, self.real) for s in scales.unbind(-1)]
            text = f"{text} * {name(scale)} + {name(offset)}"
        return emit(text)

    def place_varied_whole(self, index: int) -> None:
        """A vector or what is dense, along the batch axis."""
        is_vector = self.parameters[0][index].kind == VECTOR_KIND
        is_batched = self.parameters[0][index].is_batched
        shape = tuple(np.shape(self.tapes[0].parameters[index]))[1 if is_batched else 0 :]
        texts = []
        for tape, of_tape in zip(self.tapes, self.parameters, strict=True):
            parameter = of_tape[index]
            if isinstance(parameter.value, int):
                text = self.lowering.text(parameter.value)
            else:
                text = self.lowering.name(self.constant(parameter.value, not is_vector))
            if not is_batched:
                text += f".expand({', '.join(map(str, (tape.batch_size or 1, *shape)))})"
            texts.append(text)
        joined = self.lowering.emit(f"torch.cat([{', '.join(texts)}])")
        is_real = not is_vector and not any(self.is_complex(of_tape[index]) for of_tape in self.parameters)
        self.place_input(index, ("varied", index), _Input(joined, None, shape, True, not is_vector, is_real=is_real))


def _result_shape(result: Result) -> tuple[int, ...]:
    """The shape of a measurement's result without the batch axis."""
    if result.kind in ("expval", "var"):
        return ()
    if result.kind == "density_matrix":
        side = 1 << (result.size.bit_length() - 1) // 2
        return (side, side)
    return (result.size,)
