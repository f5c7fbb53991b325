"""What a layer compiles: its function, with tensors in a fixed order, or a function made of blocks."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

from torch import Tensor

from ..circuit.measurements import Measurement, expval, probs
from ..circuit.operations import Identity, Z
from ..circuit.tape import Tape
from ..compilation.compiled import Compiled
from ..compilation.front_ends import front_end_of
from ..compilation.plan import CompiledPlan
from ..execution.results import is_complex_kind
from ..native.torch_private import DisableTorchFunction
from .block import Block


class LayerCircuit:
    """A layer's function, called with tensors in order: the inputs, if it takes inputs, then the weights.

    A compiled function calls it only while tracing, so its checks are made once per trace.

    Attributes:
        function: the layer's function.
        title: its name in messages.
        takes_inputs: whether it takes inputs.

    Raises:
        TypeError: the function is not callable, is compiled already, or a QNode.
        ValueError: its parameters are not the weights and at most one for the inputs.
    """

    def __init__(self, function: Callable[..., Tape], weights: Sequence[str]) -> None:
        _require_plain(function)
        self.function = function
        self.title = str(getattr(function, "__qualname__", repr(function)))
        parameter = _input_parameter(function, self.title, weights)
        self.takes_inputs = parameter is not None
        self._names = (*([] if parameter is None else [parameter]), *weights)
        self.__wrapped__ = function  # captures are searched from here

    def __repr__(self) -> str:
        return self.title

    def __call__(self, *tensors: Tensor) -> Tape:
        """The tape of a sample or of a batch, checked."""
        if self.takes_inputs:
            self._require_alike(*tensors)
        tape = self.tape(tensors)
        self._require_joinable(tape)
        self._require_batch(tape, tensors)
        return tape

    def _on_plan(self, plan: CompiledPlan) -> None:
        """Warn of features that have no effect; called with the compiled plan of each trace."""
        unread = plan.unread.get(0) if self.takes_inputs else None
        if unread:
            shown = ", ".join(map(str, unread[:8])) + (", …" if len(unread) > 8 else "")
            which = f"feature {shown} has" if len(unread) == 1 else f"features {shown} have"
            warnings.warn(
                f"{self.title} does not read all of its inputs: {which} no effect on the results; give the layer "
                "those features that it reads",
                stacklevel=2,
            )

    def tape(self, tensors: Sequence[Tensor]) -> Tape:
        """The tape that the function returns.

        Raises:
            TypeError: it returns no tape.
            ValueError: it reads elements that inputs or weights do not have.
        """
        try:
            tape = self.function(**dict(zip(self._names, tensors, strict=True)))
        except IndexError as error:
            shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in zip(self._names, tensors, strict=True))
            raise ValueError(
                f"{self.title} reads beyond its tensors ({error}), which have the shapes: {shapes}"
            ) from error
        if not isinstance(tape, Tape):
            raise TypeError(f"{self.title} must return a kg.Tape for a CircuitLayer, not {type(tape).__name__}")
        return tape

    def _require_alike(self, inputs: Tensor, *weights: Tensor) -> None:
        for name, weight in zip(self._names[1:], weights, strict=True):
            if weight.dtype is not inputs.dtype:
                raise ValueError(
                    f"{self.title}: the inputs are of {inputs.dtype} and the weight {name!r} of {weight.dtype}; "
                    f"convert one of them, as in layer.to(inputs.dtype) or inputs.to({weight.dtype})"
                )
            if weight.device != inputs.device:
                raise ValueError(
                    f"{self.title}: the inputs are on {inputs.device} and the weight {name!r} on {weight.device}; move "
                    f"one of them, as in layer.to(inputs.device)"
                )

    def _require_joinable(self, tape: Tape) -> None:
        kinds = [measurement.kind for measurement in tape.measurements]
        for kind in kinds:
            if is_complex_kind(kind) and len(kinds) > 1:
                raise ValueError(
                    f"{self.title} measures {', '.join(kinds)}: {kind} is complex and must be a layer's only "
                    "measurement; make two layers that share their weights"
                )

    def _require_batch(self, tape: Tape, tensors: Sequence[Tensor]) -> None:
        expected = None
        if self.takes_inputs:
            # Not recorded: if the trace depended on the batch size, it would not be batch-polymorphic.
            with DisableTorchFunction():
                expected = tensors[0].shape[0] if tensors[0].dim() == 2 else None
        if tape.batch_size != expected:
            found = "one circuit" if tape.batch_size is None else f"a batch of {tape.batch_size} circuits"
            given = "a single sample" if expected is None else f"a batch of {expected} samples"
            hint = "; index features as inputs[..., i]" if self.takes_inputs else ""
            raise ValueError(f"{self.title} makes {found} of {given}{hint}")


def _require_plain(function: Any) -> None:
    if not callable(function):
        raise TypeError(f"CircuitLayer takes a function that returns a kg.Tape, not {type(function).__name__}")
    if isinstance(function, Compiled):
        raise TypeError("CircuitLayer compiles its function: give it the function itself, without kg.compile")
    if front_end_of(function) is not None:
        raise TypeError("CircuitLayer takes no QNode; use PennyLane's TorchLayer of kg.compile(qnode)")


def _input_parameter(function: Callable[..., Tape], title: str, weights: Sequence[str]) -> str | None:
    """The name of the function's parameter that takes the inputs, if it has one.

    Raises:
        ValueError: parameters and weights do not match.
    """
    parameters = inspect.signature(function).parameters
    kinds = {name: parameter.kind for name, parameter in parameters.items()}
    named = [
        n
        for n, kind in kinds.items()
        if kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    ]
    if inspect.Parameter.POSITIONAL_ONLY in kinds.values():
        raise ValueError(f"{title} has positional-only parameters; a CircuitLayer calls it by names")
    for name in weights:
        if name not in named and inspect.Parameter.VAR_KEYWORD not in kinds.values():
            raise ValueError(f"weight {name!r} is no parameter of {title}, which has {', '.join(named) or 'none'}")
    others = [n for n in named if n not in weights and parameters[n].default is inspect.Parameter.empty]
    if len(others) > 1:
        raise ValueError(
            f"{title} has the parameters {', '.join(others)} without a weight, of which only one can be the inputs; "
            "give shapes of the others in weights"
        )
    return others[0] if others else None


class BlockCircuit:
    """A sequence of blocks with measurements, as a function of inputs and weights that returns a tape.

    Attributes:
        num_features: the number of features; 0 if no block takes inputs.
        weight_shapes: the shape of each weight, by name.

    Raises:
        TypeError: a block is no `Block`.
        ValueError: there are no blocks, or blocks take different numbers of features.
    """

    def __init__(self, blocks: Iterable[Block], measurements: Iterable[Measurement] | None = None) -> None:
        for given, what in ((blocks, "blocks"), (measurements, "measurements")):
            if isinstance(given, (Block, Measurement)):
                raise TypeError(f"from_blocks takes a list of {what}; for one write [{given!r}]")
        self.blocks = tuple(blocks)
        self.num_features = _num_features(self.blocks)
        self._names = _names(self.blocks)
        wires = chain.from_iterable(block.wires for block in self.blocks)
        self.measurements = _z_of_each(wires) if measurements is None else tuple(measurements)
        self.__qualname__ = " + ".join(type(block).__name__ for block in self.blocks)
        self.__signature__ = _signature(self.num_features, self._names)
        self.__wrapped__ = self.measurements  # captures: tensors in their observables

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each weight."""
        shapes = [shape for block in self.blocks for shape in block.weight_shapes.values()]
        return dict(zip([name for name in self._names if name], shapes, strict=True))

    def __call__(self, inputs: Tensor | None = None, **weights: Tensor) -> Tape:
        """The tape for inputs `(num_features,)` or `(B, num_features)` and weights."""
        operations = []
        for block, name in zip(self.blocks, self._names, strict=True):
            taken = [*([inputs] if block.num_features else []), *([weights[name]] if name else [])]
            operations += block(*taken)
        return Tape(operations, self.measurements)


def _num_features(blocks: Sequence[Block]) -> int:
    if not blocks:
        raise ValueError("a layer needs at least one block")
    for block in blocks:
        if not isinstance(block, Block):
            raise TypeError(f"expected blocks, such as kg.nn.AngleEmbedding(4), found {block!r}")
    taking = [block for block in blocks if block.num_features]
    for block in taking:
        if block.num_features != taking[0].num_features:
            one, other = f"{taking[0]} takes {taking[0].num_features}", f"{block} takes {block.num_features}"
            raise ValueError(f"all blocks of a layer take the same inputs, but {one} features and {other}")
    return taking[0].num_features if taking else 0


def _names(blocks: Sequence[Block]) -> list[str]:
    """The name of each block's weight, "" for a block without weights."""
    has_weights = [bool(block.weight_shapes) for block in blocks]
    is_only = sum(has_weights) == 1
    return [("weights" if is_only else f"weights_{i}") if has else "" for i, has in enumerate(has_weights)]


def _z_of_each(wires: Iterable[Any]) -> tuple[Measurement, ...]:
    """⟨Z⟩ of each wire, in the order of `Tape.wires`."""
    tape = Tape([Identity(wires=list(dict.fromkeys(wires)))], [probs()])
    return tuple([expval(Z(wire)) for wire in tape.wires])


def _signature(num_features: int, names: Iterable[str]) -> inspect.Signature:
    taken = [*(["inputs"] if num_features else []), *filter(None, names)]
    return inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in taken])
