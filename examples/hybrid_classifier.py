"""A classical network with a quantum layer in its middle, compiled as a whole by `torch.compile`.

The data are 569 tumours, each described by 30 measured features, which scikit-learn ships (W. N. Street,
W. H. Wolberg, O. L. Mangasarian, Proc. SPIE 1905, 861 (1993)): are they malignant or benign? The model is

    x (30) → Linear → angles a = π/2 tanh(…), one a qubit → circuit → ⟨Z⟩ of every qubit → Linear → two logits.

The circuit brings the angles in anew before each of its layers (A. Pérez-Salinas et al., Quantum 4, 226 (2020)):
|ψ(a)⟩ = V(w_L) R(a) … V(w_1) R(a) |0…0⟩, where R(a) turns qubit i by RY(aᵢ) and V is a layer of rotations with weights
w and of CNOTs. By M. Schuld, R. Sweke, J. J. Meyer, Phys. Rev. A 103, 032430 (2021), each ⟨Zⱼ⟩ is a Fourier series of
degree L in every angle; the circuit and its weights decide which.

The model is trained twice, from the same start and on the same batches: once as it is, and once compiled, loss
included, into one graph without a break (`fullgraph=True`) for all batch sizes (`dynamic=True`). In the graph the
circuit stays one native call forward and one back; what torch compiles is the arithmetic around it. Here there is
so little of it that a compiled step takes rather longer than an eager one; larger networks gain what they gain without
a circuit.

    python examples/hybrid_classifier.py            # compiling takes some seconds; --eager leaves it out
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import confusion_matrix
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import ketgrad as kg

mpl.use("Agg")  # draws into files, needs no screen
import matplotlib.pyplot as plt

CLASSES = ("malignant", "benign")
WANTED_ACCURACY = 0.9
LARGEST_DIFFERENCE = 1e-3  # of losses: float32 is rounded in another order when it is compiled
BLUE, ORANGE = "#2563eb", "#f59e0b"

Loss = Callable[[Tensor, Tensor], Tensor]


class Hybrid(nn.Module):
    """Features (B, 30) → logits (B, 2), through the expectation values of a circuit."""

    def __init__(self, features: int, qubits: int, layers: int) -> None:
        super().__init__()
        self.before = nn.Linear(features, qubits)
        self.circuit = kg.nn.CircuitLayer.from_blocks([kg.nn.DataReuploading(qubits, layers, rotation="Y")])
        self.after = nn.Linear(qubits, len(CLASSES))

    def forward(self, features: Tensor) -> Tensor:
        """The logits."""
        return self.after(self.circuit(math.pi / 2 * torch.tanh(self.before(features))))


class Data(NamedTuple):
    """Standardised features (N, 30) in float32 and classes (N,)."""

    train_features: Tensor
    train_classes: Tensor
    test_features: Tensor
    test_classes: Tensor


class Run(NamedTuple):
    """What one training gave: the loss and the seconds of each step, the accuracy on the test data after each epoch."""

    model: Hybrid
    losses: list[float]
    seconds: list[float]
    accuracies: list[float]

    @property
    def step_ms(self) -> float:
        """A step's time, the median."""
        return 1000 * statistics.median(self.seconds)


def load_data(seed: int) -> Data:
    """A quarter of the data is kept for the test; mean and spread of the features are those of the rest."""
    features, classes = load_breast_cancer(return_X_y=True)
    split = train_test_split(features, classes, test_size=0.25, stratify=classes, random_state=seed)
    scaler = StandardScaler().fit(split[0])
    train_features, test_features = (torch.tensor(scaler.transform(part), dtype=torch.float32) for part in split[:2])
    return Data(train_features, torch.tensor(split[2]), test_features, torch.tensor(split[3]))


def train(args: argparse.Namespace, data: Data, compiled: bool) -> Run:
    """Trains the model, from the same start and on the same batches whether it is compiled or not."""
    torch.manual_seed(args.seed)
    model = Hybrid(data.train_features.shape[1], args.qubits, args.layers)

    def loss_of(features: Tensor, classes: Tensor) -> Tensor:
        return cross_entropy(model(features), classes)

    loss = torch.compile(loss_of, fullgraph=True, dynamic=True) if compiled else loss_of
    run = Run(model, [], [], [])
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)
    shuffle = torch.Generator().manual_seed(args.seed)
    name = "compiled" if compiled else "eager"
    steps = args.epochs * math.ceil(len(data.train_classes) / args.batch_size)
    with tqdm(total=steps, desc=name, unit="step", leave=False) as bar:
        for _ in range(args.epochs):
            batches = torch.randperm(len(data.train_classes), generator=shuffle).split(args.batch_size)
            train_epoch(run, loss, optimizer, data, batches, bar)
            run.accuracies.append(accuracy(model, data))
    return run


def train_epoch(
    run: Run, loss: Loss, optimizer: torch.optim.Optimizer, data: Data, batches: Sequence[Tensor], bar: tqdm
) -> None:
    for chosen in batches:
        # After the first step, a batch for which torch had to compile again would raise RuntimeError.
        with torch.compiler.set_stance("fail_on_recompile" if run.losses else "default"):
            start = time.perf_counter()
            optimizer.zero_grad()
            value = loss(data.train_features[chosen], data.train_classes[chosen])
            value.backward()
            optimizer.step()
            run.losses.append(value.item())
            run.seconds.append(time.perf_counter() - start)
        bar.update()
        bar.set_postfix(loss=f"{run.losses[-1]:.3f}", refresh=False)


@torch.no_grad()
def predict(model: Hybrid, features: Tensor) -> Tensor:
    return model(features).argmax(dim=1)


def accuracy(model: Hybrid, data: Data) -> float:
    return (predict(model, data.test_features) == data.test_classes).float().mean().item()


def logistic_regression(data: Data) -> float:
    """The accuracy of the simplest classical model on the same data."""
    model = LogisticRegression(max_iter=1000).fit(data.train_features.numpy(), data.train_classes.numpy())
    return float(model.score(data.test_features.numpy(), data.test_classes.numpy()))


def report(run: Run, name: str) -> None:
    steps = f"{run.step_ms:.2f} ms a step (the first one {1000 * run.seconds[0]:.0f} ms)"
    print(f"{name:<10}loss {run.losses[0]:.4f} → {run.losses[-1]:.4f}   {steps}")


def compare(eager: Run, compiled: Run, sizes: list[int]) -> float:
    """Prints how the two differ; the largest difference of their losses."""
    print(f"one graph for batches of {' and of '.join(map(str, sizes))}: torch compiled once, in the first step")
    difference = max(abs(one - other) for one, other in zip(eager.losses, compiled.losses, strict=True))
    print(f"losses differ by {difference:.1e} at most, of {len(eager.losses)} steps")
    print(f"a compiled step takes {compiled.step_ms / eager.step_ms:.2f} times as long as an eager one")
    return difference


def draw(path: Path, runs: dict[str, Run], data: Data, classical: float) -> None:
    style = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
    with plt.rc_context(style):
        figure, panels = plt.subplots(1, 3, figsize=(13, 4.2), width_ratios=(1.2, 1.2, 1), layout="constrained")
        model = next(iter(runs.values())).model
        qubits, weights = model.before.out_features, sum(p.numel() for p in model.parameters())
        figure.suptitle(
            f"A hybrid network: {qubits} qubits between two linear layers, {weights} weights", weight="bold"
        )
        draw_curves(panels[0], panels[1], runs, classical)
        draw_confusion(panels[2], model, data)
        figure.savefig(path, dpi=150, pad_inches=0.15, bbox_inches="tight")
        plt.close(figure)


def draw_curves(left: Axes, right: Axes, runs: dict[str, Run], classical: float) -> None:
    # The second curve lies on the first one: a thin dashed line on a wide one shows both.
    looks = ({"color": BLUE, "lw": 3.5, "alpha": 0.55}, {"color": ORANGE, "lw": 1.3, "ls": "--"})
    for (name, run), look in zip(runs.items(), looks, strict=False):
        left.plot(run.losses, label=f"{name}, {run.step_ms:.2f} ms a step", **look)
        right.plot(range(1, len(run.accuracies) + 1), [100 * a for a in run.accuracies], label=name, **look)
    right.axhline(100 * classical, color="black", lw=1, ls=":", label="logistic regression")
    left.set(xlabel="step", ylabel="training loss of the batch (cross entropy)", ylim=(0, None))
    lowest = min(min(run.accuracies) for run in runs.values())
    right.set(xlabel="epoch", ylabel="test accuracy (%)", ylim=(min(80, 100 * lowest - 3), 101))
    right.xaxis.get_major_locator().set_params(integer=True)
    left.legend(frameon=False, loc="upper right")
    right.legend(frameon=False, loc="lower right")


def draw_confusion(axes: Axes, model: Hybrid, data: Data) -> None:
    counts = confusion_matrix(data.test_classes, predict(model, data.test_features))
    axes.imshow(counts, cmap="Blues", vmin=0)
    for row in range(len(CLASSES)):
        for column in range(len(CLASSES)):
            dark = counts[row, column] > counts.max() / 2
            color = "white" if dark else "black"
            axes.text(column, row, counts[row, column], color=color, ha="center", va="center", fontsize="x-large")
    axes.set_xticks(range(len(CLASSES)), CLASSES)
    axes.set_yticks(range(len(CLASSES)), CLASSES, rotation=90, va="center")
    axes.set(xlabel="what the model says", ylabel="what the tumour is", title="test data")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a hybrid network, eager and compiled by torch.compile.")
    add = parser.add_argument
    add("--eager", action="store_true", help="do not compile")
    add("--qubits", type=int, default=6, help="default 6")
    add("--layers", type=int, default=2, help="how often the circuit reads its angles (default 2)")
    add("--epochs", type=int, default=20, help="default 20")
    add("--batch-size", type=int, default=32, help="at least 2 (default 32)")
    add("--learning-rate", type=float, default=0.01, help="Adam's (default 0.01)")
    add("--seed", type=int, default=0, help="of the split, the weights and the batches (default 0)")
    add("--output", type=Path, default=Path(__file__).with_suffix(".png"), help="picture (default: beside this file)")
    add("--quick", action="store_true", help="five epochs")
    args = parser.parse_args()
    if args.quick:
        args.epochs = 5
    if min(args.qubits, args.layers, args.epochs) < 1 or args.batch_size < 2:
        parser.error("--qubits, --layers and --epochs go from 1, --batch-size from 2")
    if not args.learning_rate > 0:
        parser.error("--learning-rate is above 0")
    return args


def batch_sizes(args: argparse.Namespace, samples: int) -> list[int]:
    """The sizes of the batches of an epoch, without repetition; ends the program where the last one is a single one."""
    last = samples % args.batch_size
    if last == 1:
        sys.exit(
            f"hybrid_classifier.py: --batch-size {args.batch_size} leaves one sample, which torch would compile "
            "a graph of its own for; choose another"
        )
    return [args.batch_size, last] if last and samples > args.batch_size else [min(samples, args.batch_size)]


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)  # a step takes less than a millisecond: waking a second thread costs more than it gains
    # The states are complex. They go through the graph from one native call to the next, and torch computes nothing
    # with them.
    warnings.filterwarnings("ignore", message="Torchinductor does not support code generation for complex operators")
    data = load_data(args.seed)
    print(f"{len(data.train_classes)} tumours to train on, {len(data.test_classes)} to test")
    sizes = batch_sizes(args, len(data.train_classes))

    runs = {"eager": train(args, data, compiled=False)}
    print(f"\n{runs['eager'].model}\n")
    report(runs["eager"], "eager")
    difference = 0.0
    if not args.eager:
        runs["compiled"] = train(args, data, compiled=True)
        report(runs["compiled"], "compiled")
        difference = compare(runs["eager"], runs["compiled"], sizes)

    classical = logistic_regression(data)
    print(f"\ntest accuracy        {'   '.join(f'{name} {run.accuracies[-1]:.1%}' for name, run in runs.items())}")
    print(f"logistic regression  {classical:.1%}")
    draw(args.output, runs, data, classical)
    print(f"picture: {args.output}")
    if difference > LARGEST_DIFFERENCE:
        sys.exit(f"hybrid_classifier.py: eager and compiled losses differ by more than {LARGEST_DIFFERENCE:.0e}")
    if min(run.accuracies[-1] for run in runs.values()) < WANTED_ACCURACY:
        sys.exit(f"hybrid_classifier.py: the test accuracy is below {WANTED_ACCURACY:.0%}; take more --epochs")


if __name__ == "__main__":
    main()
