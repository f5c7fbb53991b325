"""What a call costs outside the kernels, beside what torch itself takes for it.

Three measurements, each the best of several rounds:

- many tapes: 256 tapes of equal structure with 100 parameters each, forward and backward, beside an empty
  `torch.autograd.Function` with the same 25,600 inputs, in turns;
- a fresh tape: two wires and ten gates, through `kg.execute`;
- a compiled function: the same circuit through `kg.compile`.

    python benchmarks/bench_overhead.py
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import ketgrad as kg


class Empty(torch.autograd.Function):
    """Takes tensors, gives one number, and zeros as their gradients."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> Tensor:
        """Count."""
        ctx.count = len(tensors)
        return torch.zeros(())

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        """Zeros."""
        return torch.zeros(ctx.count).unbind()


def many_tapes(parameters: list[Tensor], gates: int) -> list[kg.Tape]:
    """Tapes of equal structure on two wires, with so many gates each."""
    tapes = []
    for first in range(0, len(parameters), gates):
        operations = []
        for i, parameter in enumerate(parameters[first : first + gates]):
            operations.append((kg.RX if i % 2 else kg.RY)(parameter, wires=i // 2 % 2))
        tapes.append(kg.Tape(operations, [kg.expval(kg.Z(0) @ kg.Z(1))]))
    return tapes


def small_tape(weights: Tensor) -> kg.Tape:
    """Two wires, ten gates."""
    gates = [kg.RX(weights[0], 0), kg.RY(weights[1], 1), kg.CNOT([0, 1]), kg.RZ(weights[2], 0), kg.RY(weights[3], 1)]
    gates += [kg.CNOT([1, 0]), kg.RX(weights[4], 0), kg.RY(weights[5], 1), kg.CNOT([0, 1]), kg.RZ(weights[6], 0)]
    return kg.Tape(gates, [kg.expval(kg.Z(0))])


def best(function: Callable[[], Any], rounds: int, calls: int) -> float:
    """Seconds of a call, in the fastest round."""
    function()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        found.append((time.perf_counter() - start) / calls)
    return min(found)


def total(results: Any) -> Tensor:
    return results if isinstance(results, Tensor) else torch.stack(results).sum()


def measure_many(rounds: int, count: int, gates: int) -> None:
    parameters = [number.requires_grad_() for number in map(torch.tensor, torch.rand(count * gates).tolist())]
    jpc = kg.AdjointProducts()

    def apply(tapes: list[kg.Tape]) -> Any:
        return kg.ExecuteTapes.apply({"tapes": tapes, "execute_fn": jpc.execute, "jpc": jpc}, *parameters)

    routes: dict[str, Callable[[list[kg.Tape]], Any]] = {
        "empty Function": lambda tapes: Empty.apply(*parameters),
        "ExecuteTapes.apply": apply,
        "kg.execute": kg.execute,
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in routes}
    for _ in range(rounds):
        for name, route in routes.items():
            tapes = many_tapes(parameters, gates)  # what builds tapes is not measured here
            start = time.perf_counter()
            results = route(tapes)
            middle = time.perf_counter()
            total(results).backward()
            times[name].append((middle - start, time.perf_counter() - middle))
            for parameter in parameters:
                parameter.grad = None
    print(f"{count} tapes × {gates} parameters, ms      forward  backward  together  beside empty")
    floor = min(sum(pair) for pair in times["empty Function"])
    for name, pairs in times.items():
        forward, back = min(pair[0] for pair in pairs), min(pair[1] for pair in pairs)
        whole = min(sum(pair) for pair in pairs)
        print(f"  {name:30} {forward * 1e3:9.1f} {back * 1e3:9.1f} {whole * 1e3:9.1f} {whole / floor:12.2f}")
    print(f"  of which kernels: {kernels(many_tapes(parameters, gates)) * 1e3:.1f}")


def kernels(tapes: list[kg.Tape]) -> float:
    """Seconds that the same circuits take as one batch, gradients included: the kernels, and next to nothing else."""
    weights = torch.tensor([[p.item() for p in tape.get_parameters()] for tape in tapes], requires_grad=True)

    def batch(weights: Tensor) -> kg.Tape:
        columns = weights.unbind(1)
        operations = [(kg.RX if i % 2 else kg.RY)(c, wires=i // 2 % 2) for i, c in enumerate(columns)]
        return kg.Tape(operations, [kg.expval(kg.Z(0) @ kg.Z(1))])

    compiled = kg.compile(batch)
    return best(lambda: torch.autograd.grad(compiled(weights).sum(), weights), 5, 5)


def measure_small(rounds: int) -> None:
    weights = torch.rand(7, requires_grad=True)
    plain = weights.detach()
    compiled = kg.compile(small_tape)
    routes: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "kg.execute, a fresh tape": (
            lambda: kg.execute([small_tape(weights)]),
            lambda: kg.execute([small_tape(weights)]),
        ),
        "kg.compile": (lambda: compiled(weights), lambda: (compiled(weights),)),
        "kg.compile, no gradient": (lambda: compiled(plain), lambda: None),
    }
    print("2 wires, 10 gates, µs                    forward  with gradient")
    for name, (forward, graph) in routes.items():
        line = f"  {name:36} {best(forward, 20 * rounds, 50) * 1e6:9.1f}"
        if graph() is not None:

            def step(graph: Callable[[], Any] = graph) -> None:
                graph()[0].backward()
                weights.grad = None

            line += f" {best(step, 20 * rounds, 50) * 1e6:14.1f}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a call costs outside the kernels.")
    parser.add_argument("--rounds", type=int, default=7, help="rounds, of which the fastest counts (7)")
    parser.add_argument("--tapes", type=int, default=256, help="tapes of equal structure (256)")
    parser.add_argument("--parameters", type=int, default=100, help="parameters of each (100)")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    measure_small(arguments.rounds)
    measure_many(arguments.rounds, arguments.tapes, arguments.parameters)


if __name__ == "__main__":
    main()
