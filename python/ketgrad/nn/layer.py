"""`CircuitLayer`: a circuit as a `torch.nn.Module`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..circuit.measurements import Measurement
from ..circuit.tape import Tape
from ..compilation.compiled import Compiled
from .block import Block
from .circuit import BlockCircuit, LayerCircuit

Weights: TypeAlias = Mapping[str, int | Sequence[int] | Tensor]
"""The weights of a layer: a shape or a tensor for each name."""

Init: TypeAlias = Callable[[Tensor], Any]
"""Fills a tensor in place; what it returns is ignored."""

_HALF = (torch.float16, torch.bfloat16)


class CircuitLayer(nn.Module):
    """A circuit as a layer: a function of inputs and weights that returns a `Tape`, compiled by `compile`.

    The weights are parameters of the layer, under their names. The layer takes inputs `(..., features)`; the function
    gets a sample `(features,)` or a batch `(B, features)`, and indexes it as `inputs[..., i]`. The output depends on
    the measurements:

    - expectation values and variances (one number each) and probabilities (2^k): real, concatenated along the last
      axis, `(..., total)`;
    - only `state()`: complex, `(..., 2^n)`; only `density_matrix`: complex, `(..., 2^k, 2^k)`.

    Results have the precision of weights and inputs, which must agree. float16 and bfloat16 inputs and weights are
    converted to float32, and under autocast everything is computed in float32; then results are float32.

    Args:
        function: returns a tape. Its parameters are the weights, by name, and at most one other without a default, the
            inputs; if there is none, the layer is called without inputs, `layer()`. It must be one that `compile` can
            trace.
        weights: for each name a shape, or a tensor with the initial values. A tensor is copied, a `torch.nn.Parameter`
            is used itself, so that layers can share it.
        init: a function that fills a weight given by its shape in place, such as `torch.nn.init.normal_`, or a
            dictionary of such functions by name. By default weights are uniform on [0, 2π).
        device, dtype: of the weights, as in torch's layers; by default torch's defaults, or those of a given tensor.
        recompute, ket_dtype: whether the backward pass recomputes the final states or they are kept for it, and in
            which precision; as for `compile`.

    Attributes:
        circuit: the compiled function, with `traces` and `explain`; it takes the inputs, then all weights.

    Raises:
        TypeError: the function is not callable, compiled already, or a QNode; a weight is neither a shape nor a
            floating-point tensor; `recompute` is not True, False or None. In a call: inputs are no floating-point
            tensor, missing or not expected.
        ValueError: weights and parameters of the function do not match, or `ket_dtype` is not complex64 or None. In a
            call: inputs have no axis of features, inputs and weights differ in precision or device, a state is measured
            beside other measurements, or the tape's batch size is not that of the inputs.

    >>> import torch, ketgrad as kg
    >>> def circuit(inputs, weights):
    ...     gates = [kg.RX(inputs[..., w], wires=w) for w in range(2)]
    ...     gates += [kg.RY(weights[w], wires=w) for w in range(2)] + [kg.CNOT(wires=[0, 1])]
    ...     return kg.Tape(gates, [kg.expval(kg.Z(0)), kg.probs(wires=1)])
    >>> layer = kg.nn.CircuitLayer(circuit, {"weights": 2})
    >>> layer
    CircuitLayer(circuit, weights=(2,), num_parameters=2)
    >>> layer(torch.rand(5, 7, 2)).shape
    torch.Size([5, 7, 3])
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 2), layer, torch.nn.Linear(3, 1))
    >>> model(torch.rand(8, 4)).sum().backward()
    >>> layer.weights.grad.shape
    torch.Size([2])
    """

    circuit: Compiled
    _circuit: LayerCircuit

    def __init__(
        self,
        function: Callable[..., Tape],
        weights: Weights,
        *,
        init: Init | Mapping[str, Init] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        recompute: bool | None = None,
        ket_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(weights, Mapping):
            raise TypeError(f'weights must be a dictionary, such as {{"weights": (3, 4)}}, not {weights!r}')
        _require_device(device)
        names = tuple(weights)
        self._circuit = LayerCircuit(function, names)
        self.circuit = Compiled(self._circuit, recompute=recompute, ket_dtype=ket_dtype)
        self._takes_inputs = self._circuit.takes_inputs
        self._names = names
        initial = _initialisers(init, weights)
        for name, given in weights.items():
            if hasattr(self, name):
                raise ValueError(f"weight {name!r}: the layer has an attribute of this name; choose another")
            self.register_parameter(name, _parameter(name, given, initial.get(name), device, dtype))

    @classmethod
    def from_blocks(
        cls,
        blocks: Sequence[Block],
        measurements: Sequence[Measurement] | None = None,
        *,
        init: Init | Mapping[str, Init] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        recompute: bool | None = None,
        ket_dtype: torch.dtype | None = None,
    ) -> CircuitLayer:
        """A layer of a sequence of blocks; all blocks that take inputs get the same.

        If one block has weights, they are named `weights`; if several have, `weights_i` for block i of the list.

        Args:
            blocks: at least one; those that take inputs take the same number of features.
            measurements: by default the expectation value of Z on each wire, in the order of the tape's wires.
            init, device, dtype, recompute, ket_dtype: as for the class.

        Raises:
            TypeError: a block is no `Block`.
            ValueError: there are no blocks, or blocks take different numbers of features.

        >>> import torch, ketgrad as kg
        >>> layer = kg.nn.CircuitLayer.from_blocks([kg.nn.AngleEmbedding(4), kg.nn.StronglyEntangling(4, layers=2)])
        >>> layer
        CircuitLayer(AngleEmbedding + StronglyEntangling, weights=(2, 4, 3), num_parameters=24)
        >>> layer(torch.rand(8, 4)).shape
        torch.Size([8, 4])
        """
        circuit = BlockCircuit(blocks, measurements)
        return cls(
            circuit,
            circuit.weight_shapes,
            init=init,
            device=device,
            dtype=dtype,
            recompute=recompute,
            ket_dtype=ket_dtype,
        )

    @property
    def num_parameters(self) -> int:
        """The number of elements of all weights."""
        return sum(getattr(self, name).numel() for name in self._names)

    def forward(self, inputs: Tensor | None = None) -> Tensor:
        """The results for inputs `(..., features)`, or without inputs; shapes and errors are those of the class."""
        if not self._takes_inputs:
            if inputs is not None:
                raise TypeError(f"{self._title} takes no inputs: call layer()")
            return self._run((), 0)
        if not isinstance(inputs, Tensor) or not inputs.is_floating_point() or not inputs.dim():
            raise _refused(inputs, self._title)
        if inputs.dim() < 3:
            return self._run((inputs,), inputs.dim() - 1)
        results = self._run((inputs.flatten(0, -2),), 1)
        return results.reshape(*inputs.shape[:-1], *results.shape[1:])

    def tape(self, inputs: Tensor | None = None) -> Tape:
        """The tape for a sample `(features,)` or a batch `(B, features)`, for `kg.explain` or `kg.execute`.

        Raises:
            TypeError: inputs are missing, not expected, or no tensor.
        """
        if self._takes_inputs != isinstance(inputs, Tensor):
            raise TypeError(f"{self._title} takes {'a tensor as' if self._takes_inputs else 'no'} inputs")
        taken = (inputs,) if isinstance(inputs, Tensor) else ()
        return self._circuit.tape((*taken, *[getattr(self, name) for name in self._names]))

    def draw(self, inputs: Tensor | None = None, decimals: int | None = 2, width: int = 100) -> str:
        """The circuit as text, as by `Tape.draw`.

        Args:
            inputs: a sample or a batch; optional for a layer of blocks, where missing features are shown as "?".
            decimals: the decimals of an angle; None shows no angles.
            width: the most characters of a line; longer circuits continue in a new block.

        >>> import ketgrad as kg
        >>> blocks = [kg.nn.AngleEmbedding(2), kg.nn.BasicEntangler(2)]
        >>> print(kg.nn.CircuitLayer.from_blocks(blocks).draw(decimals=None))
        0: ──RX──RX──╭●──┤ ⟨Z⟩
        1: ──RX──RX──╰X──┤ ⟨Z⟩
        """
        if inputs is None and self._takes_inputs and isinstance(self._circuit.function, BlockCircuit):
            inputs = torch.empty(self._circuit.function.num_features, device="meta")
        return self.tape(inputs).draw(decimals, width)

    def extra_repr(self) -> str:
        """The function, the weights with their shapes, and the number of parameters."""
        shapes = [f"{name}={tuple(getattr(self, name).shape)}" for name in self._names]
        return ", ".join([self._circuit.title, *shapes, f"num_parameters={self.num_parameters}"])

    @property
    def _title(self) -> str:
        return f"CircuitLayer of {self._circuit.title}"

    def _run(self, inputs: tuple[Tensor, ...], axes: int) -> Tensor:
        """The results for a sample (axes = 0) or a batch (axes = 1), joined along the last axis."""
        tensors = [_widened(t) for t in (*inputs, *[getattr(self, name) for name in self._names])]
        kind = tensors[0].device.type if tensors else "cpu"
        if kind != "meta" and torch.is_autocast_enabled(kind):  # it raises for "meta"
            with torch.autocast(kind, enabled=False):
                return _joined(self.circuit(*tensors), axes)
        return _joined(self.circuit(*tensors), axes)


def _require_device(device: Any) -> None:
    if device is not None and torch.device(device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={str(device)!r}: PyTorch finds no GPU here; leave the device out, or see python -m ketgrad info"
        )


def _widened(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in _HALF else tensor


def _joined(results: Any, axes: int) -> Tensor:
    """The results of all measurements, concatenated along the last axis, after `axes` batch axes."""
    if isinstance(results, Tensor):
        return results.unsqueeze(-1) if results.dim() == axes else results
    if all(r.dim() == axes for r in results):
        return torch.stack(results, -1)
    return torch.cat([r.unsqueeze(-1) if r.dim() == axes else r for r in results], -1)


def _refused(inputs: Any, title: str) -> Exception:
    """The error for invalid inputs."""
    what = f"{title}: inputs must be a floating-point tensor of shape (..., features)"
    if inputs is None:
        return TypeError(f"{what}; none are given")
    if not isinstance(inputs, Tensor):
        return TypeError(f"{what}, not {type(inputs).__name__}; use torch.as_tensor")
    if inputs.is_floating_point():
        return ValueError(f"{what}, not of shape ()")
    hint = "embed real and imaginary parts" if inputs.is_complex() else "use inputs.float()"
    return TypeError(f"{what}, not of {inputs.dtype}; {hint}")


# --- weights ----------------------------------------------------------------------------------------------------------


def _initialisers(init: Any, weights: Weights) -> dict[str, Init]:
    """For each weight that is given by its shape, the function that fills it."""
    shaped = [name for name, given in weights.items() if not isinstance(given, Tensor)]
    if isinstance(init, Mapping):
        for name in init:
            if name not in shaped:
                why = "is given as a tensor" if name in weights else "is no weight of the layer"
                raise ValueError(f"init has {name!r}, which {why}")
        chosen = {name: init.get(name, _uniform) for name in shaped}
    else:
        chosen = dict.fromkeys(shaped, _uniform if init is None else init)
    for fill in chosen.values():
        if not callable(fill):
            raise TypeError(f"init must be a function that fills a tensor, or a dictionary of such, not {init!r}")
    return chosen


def _uniform(tensor: Tensor) -> None:
    nn.init.uniform_(tensor, 0.0, 2 * math.pi)


def _parameter(name: str, given: Any, fill: Init | None, device: Any, dtype: torch.dtype | None) -> nn.Parameter:
    if isinstance(given, Tensor):
        return _adopted(name, given, device, dtype)
    sizes = (given,) if isinstance(given, int) else given
    is_shape = isinstance(sizes, (tuple, list)) and all(isinstance(n, int) and n >= 0 for n in sizes)
    if not is_shape or fill is None:
        raise TypeError(f"weight {name!r} must be a shape, such as (3, 4), or a tensor, not {given!r}")
    tensor = torch.empty(tuple(sizes), device=device, dtype=dtype)
    _require_real(name, tensor)
    with torch.no_grad():
        fill(tensor)
    return nn.Parameter(tensor)


def _adopted(name: str, given: Tensor, device: Any, dtype: torch.dtype | None) -> nn.Parameter:
    """A parameter with a tensor's values; a `Parameter` itself, unless device or dtype differ."""
    moved = given.to(device=device, dtype=dtype)
    _require_real(name, moved)
    if isinstance(given, nn.Parameter):
        return given if moved is given else nn.Parameter(moved.detach(), requires_grad=given.requires_grad)
    return nn.Parameter(moved.detach().clone())


def _require_real(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"weight {name!r} must be of floating-point numbers, not of {tensor.dtype}")
