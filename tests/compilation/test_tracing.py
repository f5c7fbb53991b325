"""Parts of tracing by themselves, where what they cost shows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import ketgrad as kg
from ketgrad.compilation.tracing.affine import affines_of
from ketgrad.compilation.tracing.captures import Captures
from ketgrad.compilation.tracing.trace import Ref, Trace


def test_a_call_with_many_results_is_repeated_once_on_places() -> None:
    weights = torch.rand(500)
    trace = Trace()
    value = trace.add(weights)
    calls = []

    def unbind(tensor: Tensor) -> tuple[Tensor, ...]:
        calls.append(tensor)
        return tensor.unbind()

    outputs = [(tensor, (i,)) for i, tensor in enumerate(weights.unbind())]
    found = affines_of(trace, unbind, "unbind", ((Ref(0),), {}), [value], outputs)
    assert len(calls) == 1
    assert [(a.root, int(a.places), a.scale, a.offset) for a in found if a] == [(0, i, 1.0, 0.0) for i in range(500)]


class Gate:
    """As a user's code has thousands of."""

    kind = "rotation"

    def __init__(self, name: str, wires: tuple[int, ...]) -> None:
        self.name, self.wires, self.weight = name, wires, None

    def other(self) -> str:
        return self.name

    def another(self) -> tuple[int, ...]:
        return self.wires


def test_methods_numbers_and_tuples_of_numbers_are_searched_once_a_class() -> None:
    holder = {"gates": [Gate("RX", (i, i + 1)) for i in range(1000)]}
    places = Captures((holder,))._places()
    assert len(places) < 2.2 * 1000  # a gate and its empty weight
    holder["gates"][700].weight = tensor = torch.rand(3)
    location = Captures((holder,)).locate(tensor)
    assert location is not None
    assert location.read() == (tensor,)


def test_building_circuits_reads_nothing_that_a_trace_sees() -> None:
    seen: list[Any] = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    angles = torch.rand(3, requires_grad=True).unbind()
    with Watch():
        tape = kg.Tape([kg.RX(angle, wires=w) for w, angle in enumerate(angles)], [kg.expval(kg.Z(0))])
    assert tape.trainable_params == (0, 1, 2)
    assert not seen
