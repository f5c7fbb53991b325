"""What docs/recipes.md adds, by every route of Python, beside the same in other words; run by test_recipes.py.

`DoubleRX(x)` is `RX(2 x)`, and `all_zero(wires)` the first of `probs(wires)`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import ketgrad as kg

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}


def tape(x: Tensor, y: Tensor, is_new: bool, shots: int | None = None) -> kg.Tape:
    """A circuit with the gate as it is, inverted and controlled, and the measurement of some wires and of all."""

    def gate(angle: Tensor, wire: int) -> kg.Operation:
        return kg.DoubleRX(angle, wires=wire) if is_new else kg.RX(2 * angle, wires=wire)

    gates = [
        *[kg.RY(0.3 + 0.1 * wire, wires=wire) for wire in range(3)],
        gate(x, 0),
        kg.CNOT(wires=[0, 1]),
        kg.ctrl(gate(y, 2), [0, 1], control_values=[1, 0]),
        kg.adjoint(kg.ctrl(gate(x, 1), 0)),
        kg.adjoint(gate(y, 2)),
        kg.X(0),
        kg.SWAP(wires=[0, 2]),
    ]
    found = [kg.all_zero(wires=[2, 0]), kg.all_zero()] if is_new else [kg.probs(wires=[2, 0]), kg.probs()]
    return kg.Tape(gates, [kg.expval(kg.Z(2)), *found], shots=shots)


def results(x: Tensor, y: Tensor, is_new: bool, run: Callable[..., Any] | None = None) -> Tensor:
    """All results in one tensor, (3,) or (3, B)."""
    (found,) = kg.execute([tape(x, y, is_new)]) if run is None else (run(x, y),)
    return torch.stack([found[0], *[each if is_new else each[..., 0] for each in found[1:]]])


def derivatives(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> list[Tensor]:
    """Values, gradients and second derivatives."""
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    values = function(x, y)
    weights = torch.arange(1, values.numel() + 1, dtype=values.dtype).reshape(values.shape)
    first = torch.autograd.grad((weights * values.sin()).sum(), (x, y), create_graph=True)
    second = torch.autograd.grad((first[0] * first[1].cos()).sum(), (x, y))
    return [values, *first, *second]


def compare(name: str, found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    """Raise where two routes differ."""
    for one, other in zip(found, expected, strict=True):
        tolerance = TOLERANCE[other.dtype]
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance, msg=lambda text: f"{name}: {text}")


def layer_of(is_new: bool) -> kg.nn.CircuitLayer:
    """A layer of the circuit."""

    def circuit(inputs: Tensor, weights: Tensor) -> kg.Tape:
        return tape(inputs[..., 0], weights[0], is_new)

    layer = kg.nn.CircuitLayer(circuit, {"weights": (1,)})
    with torch.no_grad():
        layer.weights.fill_(0.4)
    return layer


def check(dtype: torch.dtype, batch: int | None) -> None:
    """Every route with parameters of one kind."""
    torch.manual_seed(1)
    shape = () if batch is None else (batch,)
    x, y = torch.rand(shape, dtype=dtype), torch.rand((), dtype=dtype)
    compiled = {is_new: kg.compile(lambda x, y, new=is_new: tape(x, y, new)) for is_new in (True, False)}
    expected = derivatives(lambda x, y: results(x, y, False), x, y)
    compare("execute", derivatives(lambda x, y: results(x, y, True), x, y), expected)
    compare("compile", derivatives(lambda x, y: results(x, y, True, compiled[True]), x, y), expected)
    for run in (None, compiled[True]):

        def total(x: Tensor, y: Tensor, is_new: bool = True, run: Any = run) -> Tensor:
            return results(x, y, is_new, run).sin().sum()

        def other(x: Tensor, y: Tensor) -> Tensor:
            return total(x, y, False, None)

        for transform in (torch.func.grad, torch.func.hessian):
            compare(transform.__name__, [transform(total)(x, y)], [transform(other)(x, y)])
        directions = (torch.ones_like(x), torch.ones_like(y))
        compare("jvp", torch.func.jvp(total, (x, y), directions), torch.func.jvp(other, (x, y), directions))
        many = torch.rand(4, dtype=dtype)
        compare("vmap", [torch.func.vmap(total, (None, 0))(x, many)], [torch.func.vmap(other, (None, 0))(x, many)])


def check_layer() -> None:
    """In a layer: as it is, in a graph of torch.compile and in an exported one."""
    inputs = torch.rand(5, 1, requires_grad=True)
    new, old = layer_of(True), layer_of(False)
    expected = torch.cat([old(inputs)[:, :2], old(inputs)[:, 5:6]], 1)
    of_inputs = torch.autograd.grad(expected.square().sum(), (inputs, old.weights))
    routes: dict[str, Callable[[Tensor], Tensor]] = {
        "layer": new,
        "torch.compile": torch.compile(new, fullgraph=True, backend="aot_eager"),
        "torch.export": torch.export.export(new, (torch.rand(5, 1),)).module(),
    }
    for name, route in routes.items():
        found = route(inputs)
        weights = new.weights if name != "torch.export" else route.get_parameter("weights")
        compare(name, [found], [expected])
        compare(name, torch.autograd.grad(found.square().sum(), (inputs, weights)), of_inputs)


def main() -> None:
    """All of it."""
    for dtype in (torch.float32, torch.float64):
        for batch in (None, 3):
            check(dtype, batch)
    check_layer()
    one = tape(torch.tensor(0.2), torch.tensor(0.4), True)
    assert "AllZero" in str(one)
    assert "DoubleRX" in str(one)
    assert copy.deepcopy(one).structure == one.structure
    assert "multiply-adds" in str(kg.explain(one))
    (sampled,) = kg.execute([tape(torch.tensor(0.2), torch.tensor(0.4), True, shots=20_000)])
    (exact,) = kg.execute([one])
    assert all(abs(a - b) < 0.02 for a, b in zip(sampled, exact, strict=True))


if __name__ == "__main__":
    main()
