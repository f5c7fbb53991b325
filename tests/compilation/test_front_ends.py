"""A library of circuits that nobody has heard of, as a front end of `kg.compile`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import ketgrad as kg
from ketgrad.compilation import front_ends
from ketgrad.compilation.front_ends import Circuits


class Circuit:
    """Of the library: a function that rotates wire 0 by what it queues, and returns "z"."""

    label = "mine"

    def __init__(self, function: Callable[..., Any], shots: int | None = None) -> None:
        self.function = function
        self.shots = shots

    def __call__(self, *args: Any) -> Any:
        raise AssertionError("the library runs its circuit itself")


class Operator:
    name = "Turn"

    def __init__(self, angle: Any) -> None:
        self.data = (angle,)
        queues[-1].append(angle)


queues: list[list[Any]] = []


class Mine:
    """The front end."""

    title = "Mine"
    libraries = frozenset({"mine"})
    proxies = ()
    checks = frozenset[str]()
    simplifications: dict[str, bool] = {}  # noqa: RUF012

    def is_circuit(self, function: Any) -> bool:
        return isinstance(function, Circuit)

    def require_compilable(self, circuit: Any) -> None:
        if circuit.shots:
            raise NotImplementedError("Mine has shots")

    def function_of(self, circuit: Any) -> Callable[..., Any]:
        return circuit.function

    @contextlib.contextmanager
    def queue(self) -> Iterator[list[Any]]:
        queues.append([])
        yield queues[-1]
        queues.pop()

    def has_measurements(self, returned: Any) -> bool:
        return returned == "z"

    def circuits_of(self, function: Callable[..., Any], returned: Any, queue: Any) -> Circuits:
        tape = kg.Tape([kg.RX(angle, 0) for angle in queue], [kg.expval(kg.Z(0))])
        return Circuits([tape], lambda results: {"z": results[0]})

    def is_operator(self, found: Any) -> bool:
        return isinstance(found, Operator)


@pytest.fixture(autouse=True)
def mine(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("mine.front_end")
    module.FRONT_END = Mine()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mine.front_end", module)
    monkeypatch.setattr(front_ends, "_modules", dict(front_ends._modules))
    monkeypatch.setattr(front_ends, "_loaded", dict(front_ends._loaded))
    front_ends.register("mine", "mine.front_end")


def test_a_front_end_is_there_once_its_library_is(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = Circuit(lambda x: "z")
    assert front_ends.front_end_of(circuit) is None
    monkeypatch.setitem(sys.modules, "mine", ModuleType("mine"))
    assert isinstance(front_ends.front_end_of(circuit), Mine)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mine", ModuleType("mine"))


def turns(x: Tensor) -> str:
    for angle in x:
        Operator(2 * angle)
    return "z"


@pytest.mark.usefixtures("loaded")
def test_its_circuits_and_functions_are_compiled() -> None:
    x = torch.rand(3, dtype=torch.float64, requires_grad=True)
    for function in (turns, Circuit(turns)):
        compiled = kg.compile(function)
        for _ in range(2):
            z = compiled(x)["z"]
            torch.testing.assert_close(z, torch.cos(2 * x.sum()))
            (slope,) = torch.autograd.grad(z, x)
            torch.testing.assert_close(slope, (-2 * torch.sin(2 * x.sum())).expand(3))
        assert compiled.traces == 1
    assert kg.compile(Circuit(turns)).label == "mine"


@pytest.mark.usefixtures("loaded")
def test_its_refusals() -> None:
    with pytest.raises(NotImplementedError, match="Mine has shots"):
        kg.compile(Circuit(turns, shots=3))
    queues.append([])
    operator = Operator(torch.ones(()))
    with pytest.raises(TypeError, match="is Turn of Mine with tensors as parameters"):
        kg.compile(lambda x, op: kg.Tape([kg.RX(x, 0)], [kg.expval(kg.Z(0))]))(torch.ones(()), operator)
    with pytest.raises(TypeError, match="takes no QNode"):
        kg.nn.CircuitLayer(Circuit(turns), {})


@pytest.mark.usefixtures("loaded")
def test_tensors_of_its_operators_are_found() -> None:
    queues.append([])
    holder = SimpleNamespace(operator=Operator(torch.tensor(0.3, dtype=torch.float64, requires_grad=True)))

    def function(x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x, 0), kg.RX(holder.operator.data[0], 0)], [kg.expval(kg.Z(0))])

    x = torch.tensor(0.2, dtype=torch.float64)
    compiled = kg.compile(function)
    torch.testing.assert_close(compiled(x), torch.cos(x + holder.operator.data[0]))
