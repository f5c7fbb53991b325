"""A quantum circuit learns to read handwritten digits.

The data are the 1,797 images of 8×8 pixels that scikit-learn ships. No classical network stands before the circuit: it
reads an image row by row, one pixel a qubit, each row as rotations by the pixels' darkness with trainable layers after
it. Behind it is a linear read-out, which sees expectation values only: all that reaches the logits has gone through the
quantum layer.

To show that the circuit itself learns, the same model is trained a second time, as long and on the same batches, with
the quantum weights frozen at their random initial values: then only the linear read-out learns.

    python examples/digits.py            # all ten digits; see --help
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import torch
from matplotlib.figure import SubFigure
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

import ketgrad as kg

mpl.use("Agg")  # draws into files, needs no screen
import matplotlib.pyplot as plt

PIXELS = 64
BLUE, GREY, RED = "#2563eb", "#8a8f98", "#dc2626"


class QuantumLayer(nn.Module):
    """A variational circuit: angles (B, 64) in, expectation values (B, 2 * qubits) out.

    The pixels go in `qubits` at a time (with 8 qubits: a row of the image), each time followed by `layers` trainable
    layers of RY and RZ on every wire and a ring of CNOTs. Measured are ⟨Zᵢ⟩ and ⟨ZᵢZᵢ₊₁⟩.
    """

    def __init__(self, qubits: int, layers: int) -> None:
        super().__init__()
        self.qubits, self.layers = qubits, layers
        self.ring = [(wire, (wire + 1) % qubits) for wire in range(qubits)]
        self.weights = nn.Parameter(2 * math.pi * torch.rand(math.ceil(PIXELS / qubits), layers, qubits, 2))

    def tape(self, angles: Tensor) -> kg.Tape:
        """One tape for the whole batch: each pixel's angle is (B,), each weight () and shared by all B circuits."""
        pixels = angles.unbind(dim=1)
        weights = iter(self.weights.flatten().unbind())
        operations = []
        for first in range(0, PIXELS, self.qubits):
            row = pixels[first : first + self.qubits]
            operations += [kg.RX(pixel, wires=wire) for wire, pixel in enumerate(row)]
            for _ in range(self.layers):
                for wire in range(self.qubits):
                    operations += [kg.RY(next(weights), wires=wire), kg.RZ(next(weights), wires=wire)]
                operations += [kg.CNOT(wires=pair) for pair in self.ring]
        singles = [kg.expval(kg.Z(wire)) for wire in range(self.qubits)]
        pairs = [kg.expval(kg.Z(a) @ kg.Z(b)) for a, b in self.ring]
        return kg.Tape(operations, singles + pairs)

    def forward(self, angles: Tensor) -> Tensor:
        """The batch in one native call; the backward pass is another."""
        # Spelled out, to show the parts; `(values,) = kg.execute(tapes)` does the same.
        tapes = [self.tape(angles)]
        jpc = kg.AdjointProducts()
        parameters = [p for t in tapes for p in t.get_parameters()]
        (values,) = kg.ExecuteTapes.apply({"tapes": tapes, "execute_fn": jpc.execute, "jpc": jpc}, *parameters)
        return torch.stack(values, dim=-1)


class Classifier(nn.Module):
    """Images (B, 64) with values in [0, 1] → quantum layer → linear read-out → logits (B, classes)."""

    def __init__(self, qubits: int, layers: int, classes: int) -> None:
        super().__init__()
        self.quantum = QuantumLayer(qubits, layers)
        self.readout = nn.Linear(2 * qubits, classes)

    def forward(self, images: Tensor) -> Tensor:
        """The logits; a black pixel turns its qubit by one radian."""
        return self.readout(self.quantum(images))


class Data(NamedTuple):
    """Images (N, 64) in float32 and labels (N,) on the device."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


class Epoch(NamedTuple):
    """What one epoch gave; times are medians over its steps, in milliseconds."""

    loss: float
    accuracy: float
    forward_ms: float
    backward_ms: float
    step_ms: float


def load_data(classes: int, seed: int, device: torch.device) -> Data:
    """The digits 0 … classes - 1, a quarter of each kept for the test."""
    images, labels = load_digits(n_class=classes, return_X_y=True)
    split = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=seed)
    train_images, test_images = (torch.tensor(part, dtype=torch.float32, device=device) for part in split[:2])
    train_labels, test_labels = (torch.tensor(part, device=device) for part in split[2:])
    return Data(train_images, train_labels, test_images, test_labels)


def train(args: argparse.Namespace, data: Data, freeze: bool) -> tuple[Classifier, list[Epoch]]:
    """Trains a classifier; with or without `freeze`, from the same start and on the same batches."""
    torch.manual_seed(args.seed)
    model = Classifier(args.qubits, args.layers, args.classes).to(data.train_images.device)
    model.quantum.requires_grad_(not freeze)
    trainable = [p for p in model.parameters() if p.requires_grad]
    name = "quantum weights frozen" if freeze else "training"
    print(f"{name}: {sum(p.numel() for p in trainable)} trainable weights")

    steps = args.epochs * math.ceil(len(data.train_labels) / args.batch_size)
    optimizer = torch.optim.Adam(trainable, lr=args.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    history = []
    with tqdm(total=steps, desc=name, unit="step", leave=False) as bar:
        for number in range(1, args.epochs + 1):
            history.append(train_epoch(model, optimizer, schedule, data, args.batch_size, bar))
            tqdm.write(describe(history[-1], number, args.epochs))
    return model, history


def train_epoch(
    model: Classifier,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    data: Data,
    batch_size: int,
    bar: tqdm,
) -> Epoch:
    """One pass over the training images, then the accuracy on the test images."""
    losses, times = [], []
    device = data.train_images.device
    for chosen in torch.randperm(len(data.train_labels)).to(device).split(batch_size):
        start = now(device)
        loss = cross_entropy(model(data.train_images[chosen]), data.train_labels[chosen])
        middle = now(device)
        optimizer.zero_grad()
        loss.backward()
        end = now(device)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        times.append((middle - start, end - middle, now(device) - start))
        bar.update()
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    milliseconds = (1000 * torch.tensor(times)).median(dim=0).values.tolist()
    accuracy = (predict(model, data.test_images) == data.test_labels).float().mean().item()
    return Epoch(sum(losses) / len(losses), accuracy, *milliseconds)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # kernels run on after the call that launched them
    return time.perf_counter()


@torch.no_grad()
def predict(model: Classifier, images: Tensor) -> Tensor:
    return model(images).argmax(dim=1)


def describe(epoch: Epoch, number: int, of: int) -> str:
    times = f"{epoch.step_ms:.1f} ms a step (forward {epoch.forward_ms:.1f}, backward {epoch.backward_ms:.1f})"
    return f"  epoch {number:>2}/{of}   loss {epoch.loss:.3f}   test accuracy {epoch.accuracy:6.1%}   {times}"


def choose_device(wanted: str) -> torch.device:
    """The device to train on, printed; ends the program where CUDA was asked for and cannot be had."""
    reason = "" if wanted == "cpu" else why_no_cuda()
    if wanted == "cuda" and reason:
        sys.exit(f"digits.py: --device cuda: {reason}; use --device cpu")
    on_cuda = wanted != "cpu" and not reason
    name = torch.cuda.get_device_name() if on_cuda else f"CPU, {torch.get_num_threads()} threads"
    print(f"device: {name}" + (f" (no CUDA: {reason})" if reason else ""))
    return torch.device("cuda" if on_cuda else "cpu")


def why_no_cuda() -> str:
    """Empty where circuits run on the GPU, else what is missing."""
    if not torch.cuda.is_available():
        return "PyTorch finds no GPU" if torch.version.cuda else "this PyTorch is built for the CPU only"
    try:
        kg.execute([kg.Tape([kg.RX(torch.zeros(1, device="cuda"), wires=0)], [kg.expval(kg.Z(0))])])
    except NotImplementedError:
        return "this ketgrad is built without CUDA"
    return ""


def draw(path: Path, model: Classifier, data: Data, trained: list[Epoch], frozen: list[Epoch]) -> None:
    """Loss and accuracy of both runs, and test images with what the trained model reads in them."""
    style = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
    with plt.rc_context(style):
        figure = plt.figure(figsize=(11, 6.8), layout="constrained")
        curves, images = figure.subfigures(2, 1, height_ratios=(1.75, 1))
        draw_curves(curves, trained, frozen)
        draw_images(images, model, data)
        digits, rotations = model.readout.out_features, model.quantum.weights.numel()
        title = f"{digits} digits, {model.quantum.qubits} qubits, {rotations} trained rotations"
        curves.suptitle(title, weight="bold")
        figure.savefig(path, dpi=150, pad_inches=0.15, bbox_inches="tight")
        plt.close(figure)


def draw_curves(figure: SubFigure, trained: list[Epoch], frozen: list[Epoch]) -> None:
    left, right = figure.subplots(1, 2)
    epochs = range(1, len(trained) + 1)
    for history, colour, label in ((trained, BLUE, "trained"), (frozen, GREY, "quantum weights frozen at random")):
        percent = [100 * e.accuracy for e in history]
        left.plot(epochs, [e.loss for e in history], color=colour, marker="o", ms=3, label=label)
        right.plot(epochs, percent, color=colour, marker="o", ms=3)
        end = {"color": colour, "weight": "bold", "va": "center", "annotation_clip": False}
        right.annotate(f"{percent[-1]:.1f}%", (epochs[-1], percent[-1]), (6, 0), textcoords="offset points", **end)
    left.set(xlabel="epoch", ylabel="training loss (cross entropy)", ylim=(0, None))
    right.set(xlabel="epoch", ylabel="test accuracy (%)", ylim=(0, 101))
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
    left.legend(frameon=False)


def draw_images(figure: SubFigure, model: Classifier, data: Data, rows: int = 2, columns: int = 10) -> None:
    figure.suptitle("test images and what the trained model reads: mistakes first, in red", fontsize="medium")
    panels = figure.subplots(rows, columns).ravel()
    shown = choose_images(model, data, rows * columns)
    for axes in panels:
        axes.set_axis_off()
    for axes, (image, read, label) in zip(panels, shown, strict=False):
        axes.imshow(image.reshape(8, 8), cmap="gray_r")
        correct = read == label
        title = f"{read}" if correct else f"{read} (is {label})"
        axes.set_title(title, color="black" if correct else RED, fontsize="medium", pad=3)


def choose_images(model: Classifier, data: Data, count: int) -> list[tuple[Tensor, int, int]]:
    """Test images as (image, read, label): mistakes first, at most half of them."""
    read = predict(model, data.test_images)
    items = list(zip(data.test_images.cpu(), read.tolist(), data.test_labels.tolist(), strict=True))
    mistakes = [item for item in items if item[1] != item[2]][: count // 2]
    return (mistakes + [item for item in items if item[1] == item[2]])[:count]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a quantum classifier on handwritten digits.")
    add = parser.add_argument
    add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA where torch and ketgrad have it")
    add("--classes", type=int, default=10, help="how many digits, from 0 on: 2 to 10 (default 10)")
    add("--qubits", type=int, default=8, help="at least 2; default 8, which reads a row of the image at a time")
    add("--layers", type=int, default=3, help="trainable layers after each row of pixels (default 3)")
    add("--epochs", type=int, default=30, help="default 30")
    add("--batch-size", type=int, default=32, help="default 32")
    add("--learning-rate", type=float, default=0.03, help="Adam's, at the start of a cosine (default 0.03)")
    add("--seed", type=int, default=0, help="of the split, the weights and the batches (default 0)")
    add("--output", type=Path, default=Path(__file__).with_suffix(".png"), help="picture (default: beside this file)")
    add("--quick", action="store_true", help="four digits and four epochs")
    args = parser.parse_args()
    if args.quick:
        args.classes, args.epochs = 4, 4
    if not 2 <= args.classes <= 10 or args.qubits < 2 or min(args.layers, args.epochs, args.batch_size) < 1:
        parser.error("--classes goes from 2 to 10, --qubits from 2, --layers, --epochs and --batch-size from 1")
    return args


def main() -> None:
    args = parse_arguments()
    print(f"ketgrad {kg.__version__}, PyTorch {torch.__version__}, Python {platform.python_version()}")
    data = load_data(args.classes, args.seed, choose_device(args.device))
    print(f"{args.classes} digits: {len(data.train_labels)} images to train on, {len(data.test_labels)} to test\n")

    start = time.perf_counter()
    model, trained = train(args, data, freeze=False)
    seconds = time.perf_counter() - start
    print()
    _, frozen = train(args, data, freeze=True)

    print(f"\ntest accuracy, trained                           {trained[-1].accuracy:6.1%}   in {seconds:.1f} s")
    print(f"test accuracy, quantum weights frozen at random  {frozen[-1].accuracy:6.1%}   only the read-out learned")
    draw(args.output, model, data, trained, frozen)
    print(f"picture: {args.output}")


if __name__ == "__main__":
    main()
