"""One QNode on several devices, and through `kg.compile`: qml(8, 4, 256), value and gradient.

The circuit takes a batch of data in RX on each wire, then layers of RZ RY RZ with shared weights and a ring of CNOT,
and measures Z on each wire; the loss is a mean squared error, differentiated by data and weights, in float32. Results
and gradients are compared with default.qubit's first; then the routes take turns, with new weights in every step.

    python benchmarks/bench_pennylane.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import pennylane as qml
import torch
from torch import Tensor
from tqdm import tqdm

import ketgrad as kg

Route = Callable[[Tensor, Tensor], Any]


def quantum_function(wires: int, layers: int) -> Route:
    """The circuit in PennyLane's operations."""

    def circuit(data: Tensor, weights: Tensor) -> Any:
        for wire in range(wires):
            qml.RX(data[:, wire], wires=wire)
        for layer in range(layers):
            for wire in range(wires):
                qml.RZ(weights[layer, wire, 0], wires=wire)
                qml.RY(weights[layer, wire, 1], wires=wire)
                qml.RZ(weights[layer, wire, 2], wires=wire)
            for wire in range(wires):
                qml.CNOT(wires=[wire, (wire + 1) % wires])
        return [qml.expval(qml.Z(wire)) for wire in range(wires)]

    return circuit


def tape_function(wires: int, layers: int) -> Callable[[Tensor, Tensor], kg.Tape]:
    """The same circuit in ketgrad's."""

    def circuit(data: Tensor, weights: Tensor) -> kg.Tape:
        operations: list[kg.Operation] = [kg.RX(data[:, wire], wires=wire) for wire in range(wires)]
        for layer in weights:
            for wire in range(wires):
                operations += [kg.RZ(layer[wire, 0], wire), kg.RY(layer[wire, 1], wire), kg.RZ(layer[wire, 2], wire)]
            operations += [kg.CNOT(wires=[wire, (wire + 1) % wires]) for wire in range(wires)]
        return kg.Tape(operations, [kg.expval(kg.Z(wire)) for wire in range(wires)])

    return circuit


def routes(wires: int, layers: int) -> dict[str, Route]:
    """What is timed, by its name."""
    function = quantum_function(wires, layers)

    def qnode(device: str, diff_method: str) -> Any:
        return qml.QNode(function, qml.device(device, wires=wires), diff_method=diff_method)

    return {
        "lightning.qubit, adjoint": qnode("lightning.qubit", "adjoint"),
        "default.qubit, backprop": qnode("default.qubit", "backprop"),
        "ketgrad.qubit": qnode("ketgrad.qubit", "best"),
        "kg.compile(qnode)": kg.compile(qnode("ketgrad.qubit", "best")),
        "kg.compile(function of a tape)": kg.compile(tape_function(wires, layers)),
    }


def step(route: Route, data: Tensor, weights: Tensor) -> tuple[Tensor, ...]:
    """The results and the gradients of the loss."""
    results = torch.stack(list(route(data, weights)), -1)
    loss = (results - 0.1).square().mean()
    return results.detach(), *torch.autograd.grad(loss, [data, weights])


def main() -> None:
    parser = argparse.ArgumentParser(description="One QNode on several devices, and compiled.")
    parser.add_argument("--wires", type=int, default=8, help="(8)")
    parser.add_argument("--layers", type=int, default=4, help="(4)")
    parser.add_argument("--batch", type=int, default=256, help="circuits in the batch (256)")
    parser.add_argument("--rounds", type=int, default=9, help="steps of each route; slow ones make a third (9)")
    options = parser.parse_args()
    torch.manual_seed(0)
    found = routes(options.wires, options.layers)
    data = torch.rand(options.batch, options.wires, requires_grad=True)

    def weights() -> Tensor:
        return torch.rand(options.layers, options.wires, 3, requires_grad=True)

    fixed = weights()
    expected = step(found["default.qubit, backprop"], data, fixed)
    for name, route in found.items():
        for one, other in zip(step(route, data, fixed), expected, strict=True):
            torch.testing.assert_close(one, other.to(one.dtype), atol=1e-5, rtol=1e-3, msg=f"{name} differs")
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in tqdm(range(options.rounds), leave=False):
        for name, route in found.items():
            if turn % 3 and ("lightning" in name or "default" in name):
                continue
            step(route, data, weights())  # whatever ran before had the caches
            new = weights()
            start = time.perf_counter()
            step(route, data, new)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(of_route) for name, of_route in times.items()}
    size = f"{options.wires}, {options.layers}, {options.batch}"
    print(f"qml({size}), value and gradient, {torch.get_num_threads()} threads")
    print(f"  {'':32} {'ms':>8}  × ketgrad.qubit")
    for name, median in medians.items():
        print(f"  {name:32} {median * 1e3:8.2f} {median / medians['ketgrad.qubit']:8.2f}")


if __name__ == "__main__":
    main()
