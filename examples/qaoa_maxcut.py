"""The largest cut of a random graph by the quantum approximate optimisation algorithm (QAOA).

MaxCut: colour the n nodes of a graph with two colours such that as many edges as possible join different ones. Node i
is qubit i, its colour the bit zᵢ; an edge ij is cut where ZᵢZⱼ = −1, so that the number of edges cut is

    C = Σ_ij (1 − ZᵢZⱼ) / 2,

a diagonal observable whose largest entry is the answer. QAOA (E. Farhi, J. Goldstone, S. Gutmann, arXiv:1411.4028)
prepares, with 2p angles,

    |γ, β⟩ = exp(−iβ_p B) exp(−iγ_p C) … exp(−iβ_1 B) exp(−iγ_1 C) |+…+⟩,    B = Σᵢ Xᵢ,

and raises ⟨C⟩ by gradient ascent; then it draws bits and keeps the best cut. Measured is the approximation ratio
⟨C⟩ / max C. Colours at random reach |E| / 2 max C; the polynomial algorithm of M. X. Goemans and D. P. Williamson
(J. ACM 42, 1115 (1995)) has 0.878 on any graph, and a graph like this one is solved by trying all 2ⁿ colourings, as the
program does for comparison: the example is about training, not about an advantage.

The landscape has poor maxima. So several starts climb at the same time, as one batch of circuits: a slow ramp, γ
rising and β falling as in an annealing (S. H. Sack, M. Serbyn, Quantum 5, 491 (2021)), and others at random. The
program says how far each kind comes.

    python examples/qaoa_maxcut.py
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor
from tqdm import trange

import ketgrad as kg

mpl.use("Agg")  # draws into files, needs no screen
import matplotlib.pyplot as plt

SHOTS = 1000
WANTED_RATIO = 0.88
BLUE, ORANGE, GREY = "#2563eb", "#f59e0b", "#8a8f98"


class Graph(NamedTuple):
    """Nodes 0 … nodes − 1, and edges between two of them."""

    nodes: int
    edges: list[tuple[int, int]]


class Run(NamedTuple):
    """What the ascent gave: expected cuts (steps + 1, starts), the final angles (starts, 2, p), seconds of a step."""

    cuts: Tensor
    angles: Tensor
    seconds: float


def random_graph(nodes: int, generator: np.random.Generator) -> Graph:
    """A connected 3-regular graph: each node has three ends, and they are paired at random until the pairing is one."""
    while True:
        ends = generator.permutation(np.repeat(np.arange(nodes), 3)).reshape(-1, 2)
        edges = {(min(a, b), max(a, b)) for a, b in ends.tolist() if a != b}
        graph = Graph(nodes, sorted(edges))
        # Fewer edges than pairs: some edge was there twice, or joined a node with itself.
        if len(edges) == len(ends) and torch.isfinite(distances(graph)).all():
            return graph


def distances(graph: Graph) -> Tensor:
    """Edges on the shortest path between any two nodes (Floyd and Warshall), infinite where there is none."""
    steps = torch.full((graph.nodes, graph.nodes), math.inf, dtype=torch.float64).fill_diagonal_(0)
    for a, b in graph.edges:
        steps[a, b] = steps[b, a] = 1
    for via in range(graph.nodes):
        steps = torch.minimum(steps, steps[:, via, None] + steps[via])
    return steps


def cut_sizes(graph: Graph) -> Tensor:
    """The diagonal of C (2ⁿ,): the number of edges that each colouring cuts. Node 0 is the most significant bit."""
    colouring = torch.arange(1 << graph.nodes)
    bits = [colouring >> (graph.nodes - 1 - node) & 1 for node in range(graph.nodes)]
    return torch.stack([bits[a] ^ bits[b] for a, b in graph.edges]).sum(0)


def cost(graph: Graph) -> kg.Observable:
    """C as a sum of Pauli words."""
    words = [kg.Z(a) @ kg.Z(b) for a, b in graph.edges]
    return kg.Hamiltonian([len(words) / 2, *[-0.5] * len(words)], [kg.Identity(0), *words])


def circuit(graph: Graph, angles: Tensor) -> list[kg.Operation]:
    """The operations for angles (..., 2, p): γ and β of each layer, of a circuit or of a batch.

    exp(−iγC) is a global phase and exp(iγ ZᵢZⱼ / 2) for each edge, which is IsingZZ(−γ); exp(−iβX) is RX(2β).
    """
    operations: list[kg.Operation] = [kg.H(node) for node in range(graph.nodes)]
    gammas, betas = angles.unbind(-2)
    for gamma, beta in zip(gammas.unbind(-1), betas.unbind(-1), strict=True):
        operations += [kg.IsingZZ(-gamma, wires=edge) for edge in graph.edges]
        operations += [kg.RX(2 * beta, wires=node) for node in range(graph.nodes)]
    return operations


def starting_angles(starts: int, layers: int) -> Tensor:
    """The ramp first, and the others at random (starts, 2, p)."""
    ramp = (torch.arange(layers) + 0.5) / layers
    angles = torch.pi * torch.rand(starts, 2, layers)
    angles[0] = 0.75 * torch.stack([ramp, 1 - ramp])
    return angles


def maximise(graph: Graph, angles: Tensor, steps: int, learning_rate: float) -> Run:
    """All starts climb together: a batch of circuits in one native call, whose cuts do not depend on each other."""
    angles = angles.clone().requires_grad_()
    observable = cost(graph)
    expected_cut = kg.compile(lambda angles: kg.Tape(circuit(graph, angles), [kg.expval(observable)]))
    optimizer = torch.optim.Adam([angles], lr=learning_rate, maximize=True)
    cuts = []
    begin = time.perf_counter()
    progress = trange(steps, desc="gradient ascent", unit="step", leave=False)
    for _ in progress:
        cut = expected_cut(angles)
        cuts.append(cut.detach())
        progress.set_postfix(cut=f"{cut.max():.3f}", refresh=False)
        optimizer.zero_grad()
        cut.sum().backward()
        optimizer.step()
    seconds = (time.perf_counter() - begin) / steps
    with torch.no_grad():
        cuts.append(expected_cut(angles))
    return Run(torch.stack(cuts), angles.detach(), seconds)


def probabilities(graph: Graph, angles: Tensor) -> Tensor:
    (found,) = kg.execute([kg.Tape(circuit(graph, angles), [kg.probs()])])
    return found.double()


def drawn_colourings(graph: Graph, angles: Tensor, shots: int, generator: torch.Generator) -> Tensor:
    """Bits (shots, n), as a quantum computer would give them."""
    (bits,) = kg.execute([kg.Tape(circuit(graph, angles), [kg.sample()], shots=shots)], generator=generator)
    return bits


def cut_of(graph: Graph, bits: Tensor) -> Tensor:
    """The edges that colourings (..., n) cut."""
    return torch.stack([bits[..., a] ^ bits[..., b] for a, b in graph.edges]).sum(0)


def layout(graph: Graph, steps: int = 400) -> Tensor:
    """Places (n, 2) whose distances are those in the graph as well as they can be, by descent from a circle."""
    wanted = distances(graph) + torch.eye(graph.nodes)  # the diagonal has no say, but must not be divided by
    turn = 2 * math.pi * torch.arange(graph.nodes, dtype=torch.float64) / graph.nodes
    places = torch.stack([turn.cos(), turn.sin()], -1).requires_grad_()
    optimizer = torch.optim.Adam([places], lr=0.05)
    for _ in range(steps):
        apart = (places[:, None] - places + 1e-9).norm(dim=-1)
        optimizer.zero_grad()
        ((apart / wanted - 1).square().triu(1)).sum().backward()
        optimizer.step()
    return places.detach()


def draw(path: Path, graph: Graph, run: Run, bits: Tensor, sizes: Tensor, found: Tensor) -> None:
    style = {"axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        figure, panels = plt.subplots(1, 3, figsize=(14, 4.4), width_ratios=(1, 1.2, 1.2), layout="constrained")
        layers = run.angles.shape[-1]
        title = f"QAOA for MaxCut: {graph.nodes} nodes, {len(graph.edges)} edges, {layers} layers"
        figure.suptitle(title, weight="bold")
        draw_graph(panels[0], graph, bits)
        draw_ascent(panels[1], run.cuts / sizes.max(), len(graph.edges) / 2 / sizes.max().item())
        draw_distribution(panels[2], sizes, found)
        figure.savefig(path, dpi=150, pad_inches=0.15, bbox_inches="tight")
        plt.close(figure)


def draw_graph(axes: Axes, graph: Graph, bits: Tensor) -> None:
    places, colours = layout(graph).numpy(), bits.tolist()
    for a, b in graph.edges:
        look = {"color": "black", "lw": 1.8} if colours[a] != colours[b] else {"color": GREY, "lw": 1.2, "ls": ":"}
        axes.plot(*places[[a, b]].T, zorder=1, **look)
    axes.scatter(*places.T, s=260, c=[(BLUE, ORANGE)[colour] for colour in colours], edgecolors="black", zorder=2)
    for node, place in enumerate(places):
        axes.text(
            *place, str(node), color=("white", "black")[colours[node]], ha="center", va="center", fontsize="small"
        )
    axes.set_aspect("equal")
    axes.margins(0.12)
    axes.set_axis_off()
    axes.set_title(f"best cut drawn: {int(cut_of(graph, bits))} edges (solid)")


def draw_ascent(axes: Axes, ratios: Tensor, at_random: float) -> None:
    others = axes.plot(ratios[:, 1:], color=GREY, lw=0.8, alpha=0.6)
    if others:
        others[0].set_label("random angles to start with")
    axes.plot(ratios[:, 0], color=BLUE, lw=2, label="a ramp to start with")
    axes.axhline(1, color="black", lw=1, ls="--")
    axes.axhline(at_random, color=ORANGE, lw=1.5, ls="--", label="colours at random")
    axes.set(xlabel="step", ylabel="approximation ratio ⟨C⟩ / max C", ylim=(None, 1.02), title="gradient ascent")
    axes.legend(frameon=False, loc="lower right")
    axes.grid(alpha=0.25)


def draw_distribution(axes: Axes, sizes: Tensor, found: Tensor) -> None:
    uniform = torch.full_like(found, 1 / len(found))
    for name, p, colour, shift in (("colours at random", uniform, ORANGE, -0.2), ("best circuit", found, BLUE, 0.2)):
        percent = 100 * torch.bincount(sizes, weights=p)
        axes.bar(torch.arange(len(percent)) + shift, percent, width=0.4, color=colour, label=name)
    axes.axvline(int(sizes.max()), color="black", lw=1, ls="--", zorder=0, label="largest cut")
    axes.set(xlabel="edges cut", ylabel="probability (%)", title="what is drawn")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(frameon=False, loc="upper left")


def report(graph: Graph, run: Run, sizes: Tensor) -> None:
    best = sizes.max().item()
    ratios = run.cuts[-1] / best
    print(f"\ncircuits at once: {len(ratios)}, of {graph.nodes} qubits, {1000 * run.seconds:.1f} ms a step")
    print(f"largest cut, of {len(sizes)} colourings   {best} edges, in {(sizes == best).sum().item()} colourings")
    print("approximation ratio")
    print(f"  colours at random     {len(graph.edges) / 2 / best:.3f}")
    print(f"  from the ramp         {ratios[0]:.3f}   (before: {run.cuts[0, 0] / best:.3f})")
    if len(ratios) > 1:
        others = ratios[1:]
        print(f"  from random angles    {others.min():.3f} … {others.max():.3f}   median {others.median():.3f}")
        print(f"  better than the ramp  {(others > ratios[0]).sum().item()} of {len(others)} random starts")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="MaxCut of a random 3-regular graph by QAOA.")
    add = parser.add_argument
    add("--nodes", type=int, default=14, help="even, 4 to 18 (default 14)")
    add("--layers", type=int, default=5, help="p (default 5)")
    add("--starts", type=int, default=12, help="circuits that are trained at the same time (default 12)")
    add("--steps", type=int, default=150, help="of gradient ascent (default 150)")
    add("--learning-rate", type=float, default=0.03, help="Adam's (default 0.03)")
    add("--seed", type=int, default=0, help="of the graph, the starts and the shots (default 0)")
    add("--output", type=Path, default=Path(__file__).with_suffix(".png"), help="picture (default: beside this file)")
    add("--quick", action="store_true", help="ten nodes, four starts and 60 steps")
    args = parser.parse_args()
    if args.quick:
        args.nodes, args.starts, args.steps = 10, 4, 60
    if args.nodes % 2 or not 4 <= args.nodes <= 18:
        parser.error("--nodes is even and goes from 4 to 18")
    if min(args.layers, args.starts, args.steps) < 1:
        parser.error("--layers, --starts and --steps go from 1")
    if not args.learning_rate > 0:
        parser.error("--learning-rate is above 0")
    return args


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(args.seed)
    graph = random_graph(args.nodes, np.random.default_rng(args.seed))
    sizes = cut_sizes(graph)
    print(f"{graph.nodes} nodes, edges {' '.join(f'{a}-{b}' for a, b in graph.edges)}")

    run = maximise(graph, starting_angles(args.starts, args.layers), args.steps, args.learning_rate)
    report(graph, run, sizes)
    chosen = run.angles[run.cuts[-1].argmax()]
    found, best = probabilities(graph, chosen), sizes.max().item()
    ratio = (found @ sizes.double()).item() / best
    print(f"\nbest circuit         ratio {ratio:.3f}, a largest cut with probability {found[sizes == best].sum():.1%}")

    bits = drawn_colourings(graph, chosen, SHOTS, torch.Generator().manual_seed(args.seed))
    cuts = cut_of(graph, bits)
    drawn, first = cuts.max().item(), bits[cuts.argmax()]
    print(f"best of {SHOTS} shots   {drawn} edges, {(cuts == drawn).sum()} times: {''.join(map(str, first.tolist()))}")
    draw(args.output, graph, run, first, sizes, found)
    print(f"picture: {args.output}")
    if ratio < WANTED_RATIO or drawn < best:
        sys.exit(
            f"qaoa_maxcut.py: a ratio below {WANTED_RATIO}, or no largest cut was drawn; take more --steps or --layers"
        )


if __name__ == "__main__":
    main()
