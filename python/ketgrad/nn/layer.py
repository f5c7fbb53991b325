"""`CircuitLayer`: a function of inputs and weights that returns a tape, as a torch.nn.Module."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..compiling import compile
from ..measurements import Measurement, expval
from ..observables import Observable
from ..operations import Z
from ..tape import Tape
from .blocks import Block

Initialiser = Callable[[Tensor], Any]

_HALF = (torch.float16, torch.bfloat16)


class CircuitLayer(nn.Module):
    """A layer whose output is what a quantum circuit measures.

    The circuit is compiled (`kg.compile`): it is traced at the first call for inputs of a structure, and a batch is one
    native call. Under `torch.compile` its operators become part of the graph, without a break.

    Args:
        circuit: takes tensors by position and returns a `Tape`: the inputs, unless all its parameters are weights, and
            the weights, by the names of its parameters. Inputs arrive as (features,) or (B, features), so that
            `inputs[..., i]` is right for both.
        weights: for each name the shape of the weight, or a tensor to start from (a Parameter is shared).
        init: fills a weight in place, as the functions of torch.nn.init do; or such functions by name. Weights that are
            given as tensors stay as they are. None: uniform in [0, 2π).
        dtype, device: of the weights; None: torch's defaults.

    Shape:
        - Input: (…, features), with any number of leading axes, none included. Half precision (autocast) is computed
          in float32.
        - Output: (…, outputs), the results of all measurements one after the other, real; a single `kg.state()` gives
          (…, 2^n), a single `kg.density_matrix` (…, 2^k, 2^k), complex. A layer without inputs: without leading axes.

    Raises:
        TypeError: `circuit` cannot be called, or inputs are no real floating-point tensor.
        ValueError: names of weights that the circuit does not take, or parameters that are no weights; inputs of no
            axes; results that are not one for each of the inputs; complex beside real results.

    Example:
        >>> import torch, ketgrad as kg
        >>> def circuit(inputs, weights):
        ...     operations = [kg.RX(inputs[..., w], wires=w) for w in range(2)]
        ...     operations += [kg.Rot(*weights[w], wires=w) for w in range(2)] + [kg.CNOT(wires=[0, 1])]
        ...     return kg.Tape(operations, [kg.expval(kg.Z(0)), kg.expval(kg.Z(1))])
        >>> layer = kg.nn.CircuitLayer(circuit, {"weights": (2, 3)})
        >>> layer
        CircuitLayer(circuit, weights=(2, 3), parameters=6)
        >>> layer(torch.rand(5, 4, 2)).shape
        torch.Size([5, 4, 2])
    """

    def __init__(
        self,
        circuit: Callable[..., Any],
        weights: Mapping[str, Sequence[int] | Tensor],
        *,
        init: Initialiser | Mapping[str, Initialiser] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.circuit = compile(circuit)
        self.order = _order(circuit, weights)
        self.has_inputs = None in self.order
        self._init = init
        self._given = frozenset(name for name, weight in weights.items() if isinstance(weight, Tensor))
        for name, weight in weights.items():
            self.register_parameter(name, _parameter(weight, dtype, device))
        self.reset_parameters()

    @classmethod
    def of(
        cls,
        *blocks: Block,
        measurements: Sequence[Measurement] | None = None,
        init: Initialiser | Mapping[str, Initialiser] | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> CircuitLayer:
        """A layer of blocks, one after the other; its weights are `weights0`, `weights1` and so on, by block.

        Args:
            blocks: all those with features get the same inputs.
            measurements: None: ⟨Z⟩ on each wire.
            init, dtype, device: as of the layer itself.

        Example:
            >>> import torch, ketgrad as kg
            >>> layer = kg.nn.CircuitLayer.of(kg.nn.AngleEmbedding(4), kg.nn.StronglyEntangling(4, layers=2))
            >>> layer(torch.rand(32, 4)).shape
            torch.Size([32, 4])
        """
        circuit = BlockCircuit(blocks, measurements)
        return cls(circuit, circuit.weight_shapes, init=init, dtype=dtype, device=device)

    def reset_parameters(self) -> None:
        """Draw the weights anew, other than those that were given as tensors."""
        for name, weight in self.named_parameters(recurse=False):
            if name in self._given:
                continue
            init = self._init.get(name) if isinstance(self._init, Mapping) else self._init
            if init is None:
                nn.init.uniform_(weight, 0, 2 * math.pi)
            else:
                init(weight)

    @property
    def num_parameters(self) -> int:
        """How many numbers there are in the weights."""
        return sum(weight.numel() for weight in self.parameters(recurse=False))

    def draw(self, inputs: Tensor | None = None) -> str:
        """The circuit as `print(tape)` draws it, for inputs (features,) where it takes some."""
        if self.has_inputs and inputs is None:
            raise ValueError("draw needs inputs (features,): the circuit takes some")
        with torch.no_grad():
            return str(self.circuit.function(*self._arguments(inputs)))

    def extra_repr(self) -> str:
        name = getattr(self.circuit.function, "__qualname__", repr(self.circuit.function))
        shapes = [f"{n}={tuple(w.shape)}" for n, w in self.named_parameters(recurse=False)]
        return ", ".join([name, *shapes, f"parameters={self.num_parameters}"])

    def forward(self, inputs: Tensor | None = None) -> Tensor:
        """The results; see the class."""
        if not self.has_inputs:
            if inputs is not None:
                raise TypeError("the circuit takes no inputs; call the layer without any")
            return _joined(self.circuit(*self._arguments(None)), None)
        _require_inputs(inputs)
        assert inputs is not None
        if inputs.dim() <= 2:
            return _joined(self.circuit(*self._arguments(inputs)), inputs)
        flat = inputs.reshape(-1, inputs.shape[-1])
        results = _joined(self.circuit(*self._arguments(flat)), flat)
        return results.reshape(*inputs.shape[:-1], *results.shape[1:])

    def _arguments(self, inputs: Tensor | None) -> list[Any]:
        tensors = [inputs if name is None else self._parameters[name] for name in self.order]
        return [t.float() if t is not None and t.dtype in _HALF else t for t in tensors]


class BlockCircuit:
    """The function of a layer of blocks: (inputs, *weights) → tape."""

    def __init__(self, blocks: Sequence[Block], measurements: Sequence[Measurement] | None) -> None:
        if not blocks or not all(isinstance(block, Block) for block in blocks):
            raise TypeError(f"a layer is made of blocks of kg.nn, not of {blocks!r}")
        self.blocks = tuple(blocks)
        wires = max(block.wires for block in blocks)
        self.measurements = tuple(measurements or [expval(_z(wire)) for wire in range(wires)])
        self.weight_shapes = {
            f"weights{i}": block.weight_shape for i, block in enumerate(blocks) if block.weight_shape is not None
        }
        names = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_ONLY) for n in self.weight_shapes]
        if any(block.features for block in blocks):
            names.insert(0, inspect.Parameter("inputs", inspect.Parameter.POSITIONAL_ONLY))
        self.__signature__ = inspect.Signature(names)
        self.__qualname__ = ", ".join(map(repr, self.blocks))

    def __call__(self, *tensors: Tensor) -> Tape:
        given = dict(zip(self.__signature__.parameters, tensors, strict=True))
        operations = []
        for i, block in enumerate(self.blocks):
            operations += block.operations(given.get("inputs"), given.get(f"weights{i}"))
        return Tape(operations, self.measurements)

    def __repr__(self) -> str:
        return self.__qualname__


def _z(wire: int) -> Observable:
    return Z(wire)  # type: ignore[return-value]


def _order(circuit: Callable[..., Any], weights: Mapping[str, Any]) -> list[str | None]:
    """The names of the weights in the order of the circuit's parameters, None where the inputs go."""
    if not callable(circuit):
        raise TypeError(f"the circuit must be a function that returns a tape, not {type(circuit).__name__}")
    known = inspect.signature(circuit).parameters
    for name in weights:
        if name not in known:
            raise ValueError(f"the circuit takes no parameter {name!r}; it takes {', '.join(known) or 'none'}")
    others = [name for name in known if name not in weights]
    if len(others) > 1:
        raise ValueError(
            f"the circuit's parameters {', '.join(others)} have no weights; one of them can be the inputs, give shapes "
            "for the others"
        )
    return [name if name in weights else None for name in known]


def _parameter(
    weight: Sequence[int] | Tensor, dtype: torch.dtype | None, device: torch.device | str | None
) -> nn.Parameter:
    if isinstance(weight, nn.Parameter):
        return weight
    if isinstance(weight, Tensor):
        return nn.Parameter(weight.detach().clone().to(dtype=dtype, device=device))
    shape = (weight,) if isinstance(weight, int) else tuple(weight)
    return nn.Parameter(torch.empty(shape, dtype=dtype, device=device))


def _require_inputs(inputs: Any) -> None:
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        found = f"a tensor of {inputs.dtype}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise TypeError(f"the inputs of a circuit must be a real floating-point tensor (…, features), not {found}")
    if inputs.dim() == 0:
        raise ValueError("the inputs of a circuit are a tensor (…, features), this one has no axes")


def _joined(results: Any, inputs: Tensor | None) -> Tensor:
    """The results of all measurements along the last axis; `inputs` are (features,) or (B, features)."""
    found = list(results) if isinstance(results, (tuple, list)) else [results]
    axes = 0 if inputs is None else inputs.dim() - 1
    if axes and inputs is not None and any(r.dim() == 0 or r.shape[0] != inputs.shape[0] for r in found):
        raise ValueError(
            f"the circuit gave results of shape {tuple(found[0].shape)} for inputs of shape {tuple(inputs.shape)}: it "
            "must use its inputs, as inputs[..., i]"
        )
    if len(found) == 1:
        return found[0].unsqueeze(-1) if found[0].dim() == axes else found[0]  # type: ignore[no-any-return]
    if any(r.is_complex() for r in found):
        raise ValueError("a state or a density matrix can only be measured alone in a layer: it is complex")
    if all(r.dim() == axes for r in found):
        return torch.stack(found, -1)
    return torch.cat([r.unsqueeze(-1) if r.dim() == axes else r for r in found], -1)
