"""What derivatives cost beside a gradient, transforms beside the native batch, and layers and graphs beside a call.

Each row is two ways of getting there, in turns, with their medians and the ratio; what is compared is compared for
equality first, where both give the same.

- Hessian-vector products: gradient (with its graph) and product together, beside a gradient;
- `value_and_grad` and `value_and_jacobian` of compiled functions, beside autograd and beside backward calls;
- the quantum Fisher information of 100 parameters on 12 wires, beside a gradient of one expectation value;
- torch.func: `vmap` over 256 circuits and of their gradients beside the native batch, `jacrev` of 64 probabilities
  beside 64 backward calls;
- a model with a `CircuitLayer` compiled by torch beside eager, and the layer beside the compiled function below it.

    python benchmarks/bench_derivatives.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

import ketgrad as kg

Function = Callable[[], Any]


class Row(NamedTuple):
    """Two ways, and what is asked of their ratio (or of their difference in µs) at most.

    Attributes:
        name: of the row.
        base, other: what is compared.
        asked: in words.
        are_equal: whether both return the same.
    """

    name: str
    base: Function
    other: Function
    asked: str
    are_equal: bool = True


# --- circuits ---------------------------------------------------------------------------------------------------------


def layers(weights: Tensor, wires: int) -> list[kg.Operation]:
    """RZ RY RZ on each wire and a ring of CNOT, for each layer of weights (L, wires, 3)."""
    operations: list[kg.Operation] = []
    for layer in weights:
        for wire in range(wires):
            operations += [kg.RZ(layer[wire, 0], wire), kg.RY(layer[wire, 1], wire), kg.RZ(layer[wire, 2], wire)]
        operations += [kg.CNOT(wires=[wire, (wire + 1) % wires]) for wire in range(wires)]
    return operations


def qml(wires: int) -> Any:
    """Data (…, wires) in RX, layers, and Z on each wire."""

    def circuit(data: Tensor, weights: Tensor) -> kg.Tape:
        embedding = [kg.RX(data[..., wire], wires=wire) for wire in range(wires)]
        return kg.Tape([*embedding, *layers(weights, wires)], [kg.expval(kg.Z(wire)) for wire in range(wires)])

    return kg.compile(circuit)


def vqe(wires: int) -> Any:
    """Layers and the energy of the transverse-field Ising ring."""
    words = [kg.Z(wire) @ kg.Z((wire + 1) % wires) for wire in range(wires)]
    energy = kg.Hamiltonian([-1.0] * wires + [-0.7] * wires, [*words, *[kg.X(wire) for wire in range(wires)]])
    return kg.compile(lambda weights: kg.Tape(layers(weights, wires), [kg.expval(energy)]))


# --- rows -------------------------------------------------------------------------------------------------------------


def products() -> list[Row]:
    rows = []
    for wires, depth, batch in ((4, 3, 64), (8, 4, 256), (10, 4, 256), (12, 4, 128)):
        circuit, data = qml(wires), torch.rand(batch, wires, requires_grad=True)
        weights = torch.rand(depth, wires, 3, requires_grad=True)

        def loss(circuit: Any = circuit, data: Tensor = data, weights: Tensor = weights) -> Tensor:
            return (torch.stack(circuit(data, weights), -1) - 0.1).square().mean()

        rows.append(product(f"HVP, qml({wires},{depth},{batch})", loss, [data, weights]))
    for wires, depth in ((6, 2), (12, 4), (16, 4), (20, 4)):
        energy, weights = vqe(wires), torch.rand(depth, wires, 3, requires_grad=True)
        rows.append(product(f"HVP, vqe({wires},{depth})", lambda e=energy, w=weights: e(w), [weights]))
    return rows


def one_call() -> list[Row]:
    rows = []
    for wires, depth, batch in ((4, 3, 64), (8, 4, 256)):
        circuit, data = qml(wires), torch.rand(batch, wires, requires_grad=True)
        weights, targets = torch.rand(depth, wires, 3, requires_grad=True), torch.rand(batch, wires)

        def by_autograd(c: Any = circuit, x: Tensor = data, w: Tensor = weights, y: Tensor = targets) -> Any:
            return torch.autograd.grad((torch.stack(c(x, w), -1) - y).square().mean(), [x, w])

        def together(c: Any = circuit, x: Tensor = data, w: Tensor = weights, y: Tensor = targets) -> Any:
            return c.value_and_grad(x, w, argnums=(0, 1), loss=kg.MeanSquaredError(y))[1]

        rows.append(Row(f"value_and_grad, qml({wires},{depth},{batch})", by_autograd, together, ""))
    for wires, depth in ((6, 2), (12, 4)):
        energy, weights = vqe(wires), torch.rand(depth, wires, 3, requires_grad=True)
        rows.append(
            Row(
                f"value_and_grad, vqe({wires},{depth})",
                lambda e=energy, w=weights: torch.autograd.grad(e(w), w)[0],
                lambda e=energy, w=weights: e.value_and_grad(w)[1],
                "",
            )
        )
    return rows


def product(name: str, loss: Callable[[], Tensor], parameters: list[Tensor]) -> Row:
    vectors = [torch.randn_like(p) for p in parameters]

    def gradient() -> Any:
        return torch.autograd.grad(loss(), parameters)

    def hessian_vector() -> Any:
        gradients = torch.autograd.grad(loss(), parameters, create_graph=True)
        return torch.autograd.grad(gradients, parameters, vectors)

    return Row(name, gradient, hessian_vector, "4 ×", are_equal=False)


def fisher() -> Row:
    def circuit(weights: Tensor) -> kg.Tape:
        operations: list[kg.Operation] = []
        for layer in weights:
            operations += [kg.RY(layer[wire, 0], wire) for wire in range(10)]
            operations += [kg.RZ(layer[wire, 1], wire) for wire in range(10)]
            operations += [kg.CNOT(wires=[wire, (wire + 1) % 12]) for wire in range(12)]
        return kg.Tape(operations, [kg.expval(kg.X(0))])

    weights = torch.rand(5, 10, 2, requires_grad=True)
    value = kg.compile(circuit)

    def gradient() -> Any:
        return torch.autograd.grad(value(weights), weights)

    def information() -> Any:
        return kg.quantum_fisher(circuit, weights)

    return Row("QFI, 100 parameters, 12 wires", gradient, information, "110 ×", are_equal=False)


def transforms() -> list[Row]:
    circuit, weights, data = qml(8), torch.rand(4, 8, 3), torch.rand(256, 8)
    leaf = data.clone().requires_grad_()

    def values(data: Tensor) -> Tensor:
        return torch.stack(circuit(data, weights), -1)

    probabilities = kg.compile(lambda weights: kg.Tape(layers(weights, 6), [kg.probs(wires=range(6))]))
    angles = torch.rand(4, 6, 3, requires_grad=True)

    def backward_calls() -> Tensor:
        found = probabilities(angles)
        return torch.stack([torch.autograd.grad(found[k], angles, retain_graph=True)[0] for k in range(len(found))])

    mapped = torch.func.vmap(values)
    mapped_gradient = torch.func.vmap(torch.func.grad(lambda x: values(x).sum()))
    return [
        Row("vmap, 256 circuits", lambda: values(data), lambda: mapped(data), "1.5 ×"),
        Row(
            "vmap of grad, 256 circuits",
            lambda: torch.autograd.grad(values(leaf).sum(), leaf)[0],
            lambda: mapped_gradient(data),
            "1.5 ×",
        ),
        Row(
            "jacrev, 64 probabilities",
            backward_calls,
            lambda: torch.func.jacrev(probabilities)(angles.detach()),
            "1/10 ×",
        ),
        Row(
            "value_and_jacobian, 64 probabilities",
            backward_calls,
            lambda: probabilities.value_and_jacobian(angles.detach())[1],
            "1/12 ×",
        ),
    ]


class Cosine(torch.nn.Module):
    """In place of a circuit."""

    def __init__(self, wires: int) -> None:
        super().__init__()
        self.weights = torch.nn.Parameter(torch.rand(wires))

    def forward(self, inputs: Tensor) -> Tensor:
        """The cosine of inputs plus weights."""
        return torch.cos(inputs + self.weights)


def graph(name: str, layer: torch.nn.Module, wires: int, batch: int, asked: str) -> Row:
    model = torch.nn.Sequential(torch.nn.Linear(5, wires), layer, torch.nn.Linear(wires, 2))
    compiled, data, first = torch.compile(model, fullgraph=True), torch.rand(batch, 5), model[0].weight

    def step(model: Any) -> Any:
        return torch.autograd.grad(model(data).sum(), first)

    return Row(f"torch.compile, {name}", lambda: step(model), lambda: step(compiled), asked)


def models() -> list[Row]:
    rows = [graph("no circuit at all", Cosine(8), 8, 256, "")]
    for wires, depth, batch, asked in ((2, 1, 8, "+100 µs"), (8, 4, 256, "1 ×")):
        blocks = [kg.nn.AngleEmbedding(wires), kg.nn.StronglyEntangling(wires, layers=depth)]
        layer = kg.nn.CircuitLayer.from_blocks(blocks)
        rows.append(graph(f"{wires} wires, batch {batch}", layer, wires, batch, asked))
        inputs = torch.rand(batch, wires)
        rows.append(
            Row(
                f"layer beside function, {wires} wires, batch {batch}",
                lambda i=inputs, c=layer.circuit, w=layer.weights: torch.stack(c(i, w), -1),
                lambda i=inputs, c=layer: c(i),
                "+60 µs",
            )
        )
    return rows


# --- measuring --------------------------------------------------------------------------------------------------------


def check(row: Row) -> None:
    first, second = row.base(), row.other()
    if row.are_equal:
        for one, other in zip(tree_leaves(first), tree_leaves(second), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3, msg=f"{row.name}: the two ways differ")


def measure(row: Row, rounds: int) -> tuple[float, float]:
    """Medians in seconds, of both ways in turns."""
    times: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        for function, found in zip((row.base, row.other), times, strict=True):
            function()  # whatever ran before had the caches
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
    return statistics.median(times[0]), statistics.median(times[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="What derivatives and transforms cost beside a gradient or a call.")
    parser.add_argument("--rounds", type=int, default=50, help="calls of each way (50)")
    parser.add_argument("--only", default="", help="rows whose names have this in them")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds goes from 1")
    torch.manual_seed(0)
    rows = [row for row in [*products(), *one_call(), fisher(), *transforms(), *models()] if options.only in row.name]
    if not rows:
        parser.error(f"--only {options.only!r}: no such row")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians in µs")
    print(f"  {'':38} {'one':>9} {'other':>9} {'ratio':>7} {'more':>8}   asked")
    for row in tqdm(rows, leave=False):
        check(row)
        one, other = measure(row, options.rounds)
        figures = f"{one * 1e6:9.0f} {other * 1e6:9.0f} {other / one:7.2f} {(other - one) * 1e6:8.0f}"
        tqdm.write(f"  {row.name:38} {figures}   {row.asked}")


if __name__ == "__main__":
    main()
