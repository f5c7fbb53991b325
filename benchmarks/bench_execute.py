"""Value and gradient of qml(n, L, B): ketgrad beside PennyLane's backpropagation, interleaved in one run.

qml(n, L, B) is RX(data) on each wire, L times (RZ RY RZ on each wire with shared weights, a ring of CNOT), the
expectation of Z on each wire, the mean squared error, and its gradients by data and weights, in complex64. Gradients
are compared before anything is timed; every timed call has new parameters.

    python benchmarks/bench_execute.py --workload 8 4 256 --repeats 15
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import pennylane as qml
import torch
from torch import Tensor
from tqdm import tqdm

import ketgrad as kg

Step = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def ring(n: int) -> list[tuple[int, int]]:
    """Neighbours on a ring."""
    return [(w, (w + 1) % n) for w in range(n)]


def circuit(library: Any, data: Tensor, weights: Tensor) -> list[Any]:
    """The operations, in the names that both libraries have."""
    n = data.shape[1]
    found = [library.RX(data[:, w], wires=w) for w in range(n)]
    for layer in weights:
        for w in range(n):
            found += [
                library.RZ(layer[w, 0], wires=w),
                library.RY(layer[w, 1], wires=w),
                library.RZ(layer[w, 2], wires=w),
            ]
        found += [library.CNOT(wires=pair) for pair in ring(n)]
    return found


def squared_error(results: Any, targets: Tensor) -> Tensor:
    """The loss."""
    return ((torch.stack(tuple(results), dim=1) - targets) ** 2).mean()


def ketgrad_step(data: Tensor, weights: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """One value and gradient through `kg.execute`, the tape built anew."""
    tape = kg.Tape(circuit(kg, data, weights), [kg.expval(kg.Z(w)) for w in range(data.shape[1])])
    (results,) = kg.execute([tape])
    return torch.autograd.grad(squared_error(results, targets), [data, weights])


def pennylane_step(n: int) -> Step:
    """One value and gradient through a QNode on default.qubit with backpropagation."""

    @qml.qnode(qml.device("default.qubit", wires=n), interface="torch", diff_method="backprop")
    def node(data: Tensor, weights: Tensor) -> Any:
        circuit(qml, data, weights)
        return [qml.expval(qml.Z(w)) for w in range(n)]

    return lambda data, weights, targets: torch.autograd.grad(
        squared_error(node(data, weights), targets), [data, weights]
    )


def inputs(n: int, layers: int, batch: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Data, weights and targets of one step."""
    g = torch.Generator().manual_seed(seed)
    data = torch.rand(batch, n, generator=g).requires_grad_()
    weights = torch.rand(layers, n, 3, generator=g).requires_grad_()
    return data, weights, torch.rand(batch, n, generator=g)


def compare(n: int, layers: int, batch: int, repeats: int) -> dict[str, Any]:
    """Median times, their spread and ratio."""
    steps: dict[str, Step] = {"ketgrad": ketgrad_step, "PennyLane backprop": pennylane_step(n)}
    first = {name: step(*inputs(n, layers, batch, 0)) for name, step in steps.items()}
    for a, b in zip(*first.values(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in tqdm(range(repeats), desc=f"qml({n},{layers},{batch})", unit="round"):
        for name, step in steps.items():
            given = inputs(n, layers, batch, repeat + 1)
            begun = time.perf_counter()
            step(*given)
            times[name].append(1e3 * (time.perf_counter() - begun))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "workload": f"qml({n},{layers},{batch})",
        "median_ms": medians,
        "fastest_ms": {name: min(values) for name, values in times.items()},
        "ratio": medians["PennyLane backprop"] / medians["ketgrad"],
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", nargs=3, type=int, default=[8, 4, 256], metavar=("WIRES", "LAYERS", "BATCH"))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", help="write the figures to this file")
    arguments = parser.parse_args()
    found = compare(*arguments.workload, arguments.repeats)
    for name, median in found["median_ms"].items():
        print(f"{name:<20} {median:9.2f} ms (fastest {found['fastest_ms'][name]:.2f})")
    print(f"ketgrad is {found['ratio']:.0f} times as fast at {found['workload']} on {torch.get_num_threads()} threads")
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=2)


if __name__ == "__main__":
    main()
