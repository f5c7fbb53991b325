"""A variational classifier of two moons, written in PennyLane; one line says on which device it trains.

Two features are embedded again and again, between layers with weights; the expectation value of one wire is the answer.

    python examples/pennylane_classifier.py
    python examples/pennylane_classifier.py --device default.qubit     # the same, for comparison

`--compile` puts `kg.compile` around the QNode, which takes PennyLane's own work out of every step.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pennylane as qml
import torch
from sklearn.datasets import make_moons
from torch import Tensor
from tqdm import trange

import ketgrad as kg

mpl.use("Agg")  # draws into files, needs no screen
import matplotlib.pyplot as plt

WIRES, LAYERS = 4, 3


def classifier(device: str) -> qml.QNode:
    dev = qml.device(device, wires=WIRES)  # the one line

    @qml.qnode(dev)
    def circuit(points: Tensor, weights: Tensor) -> Any:
        for layer in weights:
            qml.AngleEmbedding(points.repeat(1, WIRES // 2), wires=range(WIRES))
            qml.StronglyEntanglingLayers(layer[None], wires=range(WIRES))
        return qml.expval(qml.Z(0))

    return circuit


def data(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Points (samples, 2) and their classes −1 and 1."""
    points, classes = make_moons(samples, noise=0.15, random_state=seed)
    return torch.tensor(points, dtype=torch.float32), torch.tensor(2 * classes - 1, dtype=torch.float32)


def train(circuit: Any, points: Tensor, classes: Tensor, steps: int) -> tuple[Tensor, list[float], float]:
    """The weights, the losses, and the seconds of a step."""
    weights = (0.3 * torch.randn(LAYERS, WIRES, 3)).requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=0.05)
    losses, seconds = [], []
    for _ in trange(steps, unit="step"):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = (circuit(points, weights) - classes).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
    return weights.detach(), losses, float(np.median(seconds))


def accuracy(circuit: Any, weights: Tensor, points: Tensor, classes: Tensor) -> float:
    with torch.no_grad():
        return (circuit(points, weights).sign() == classes).float().mean().item()


def draw(circuit: Any, weights: Tensor, points: Tensor, classes: Tensor, losses: list[float], path: Path) -> None:
    """The answer over the plane with the points that are asked for, and the loss."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), width_ratios=(3, 2), layout="constrained")
    x, y = np.meshgrid(np.linspace(-1.6, 2.6, 80), np.linspace(-1.2, 1.7, 60))
    grid = torch.tensor(np.stack([x.ravel(), y.ravel()], -1), dtype=torch.float32)
    with torch.no_grad():
        answers = circuit(grid, weights).reshape(x.shape)
    shades = left.contourf(x, y, answers, levels=np.linspace(-1, 1, 21), cmap="RdBu_r", alpha=0.8)
    left.contour(x, y, answers, levels=[0], colors="black", linewidths=1)
    for each, marker in ((-1, "o"), (1, "s")):
        chosen = points[classes == each]
        color = "tab:blue" if each < 0 else "tab:red"
        left.scatter(*chosen.T, s=18, c=color, marker=marker, edgecolors="white", linewidths=0.6, label=f"class {each}")
    left.set(xlabel="first feature", ylabel="second feature", title="test points and answer")
    left.legend(loc="lower left")
    figure.colorbar(shades, ax=left, label="⟨Z⟩ of wire 0", ticks=[-1, -0.5, 0, 0.5, 1])
    right.plot(losses)
    right.set(xlabel="step", ylabel="mean squared error", title="training", ylim=(0, None))
    right.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a variational classifier, written in PennyLane, on a device.")
    parser.add_argument("--device", default="ketgrad.qubit", help="a PennyLane device (ketgrad.qubit)")
    parser.add_argument("--compile", action="store_true", help="put kg.compile around the QNode")
    parser.add_argument("--steps", type=int, default=150, help="(150)")
    parser.add_argument("--samples", type=int, default=200, help="points to train with (200)")
    parser.add_argument("--seed", type=int, default=0, help="(0)")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".png"), help="the picture")
    options = parser.parse_args()
    if options.steps < 1 or options.samples < 2:
        parser.error("--steps goes from 1, --samples from 2")
    torch.manual_seed(options.seed)
    circuit: Any = classifier(options.device)
    if options.compile:
        circuit = kg.compile(circuit)
    weights, losses, seconds = train(circuit, *data(options.samples, options.seed), options.steps)
    test = data(200, options.seed + 1)
    print(f"{options.device}{', compiled' if options.compile else ''}: {seconds * 1e3:.1f} ms a step")
    print(f"loss {losses[-1]:.3f}, accuracy on new points {accuracy(circuit, weights, *test):.1%}")
    draw(circuit, weights, *test, losses, options.output)
    print(f"picture: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
