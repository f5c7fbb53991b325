"""fastQML: layers of gates as one matrix product each; gradients by autograd.

Eager: `torch.compile`, which its documentation also has, compiles for longer than the cap on time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from fastqml import gate_fusion as gf
from torch import Tensor

from workloads import Circuit, Gate, Workload

from .base import NotSupportedError
from .plain_torch import Simulated

Layer = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From data, weights and a state, as its real and imaginary parts, to the next state."""

ROTATIONS = {"RX": gf.build_rx_gates, "RY": gf.build_ry_gates, "RZ": gf.build_rz_gates}
BATCHED = {"RX": gf.build_rx_per_batch, "RY": gf.build_ry_per_batch, "RZ": gf.build_rz_per_batch}
CONSTANT = {"H": gf.build_h_gates, "X": gf.build_x_gates}
PAIRS = {"IsingXX": gf.build_ising_xx_4x4, "IsingZZ": gf.build_ising_zz_4x4}
CONSTANT_PAIRS = {"CNOT": gf.build_cnot_4x4, "CZ": gf.build_cz_4x4}
CPU = torch.device("cpu")


class Fused(Simulated):
    """The state by fastQML; its energy, of which fastQML has none, as plain torch computes it."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        if len(workload.circuits) > 1:
            raise NotSupportedError("one circuit at a time")
        self.layers = list(layers(workload.circuit, workload.wires))

    def loss(self, data: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """The workload's loss."""
        re, im = self.evolved(data, weights)
        if self.workload.batch:
            return (((re**2 + im**2) @ self.sign.T - targets) ** 2).mean()
        return self.energy(torch.complex(re, im))

    def evolved(self, data: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The final states, (batch, 2^n)."""
        shape = (max(1, len(data)), *[2] * self.workload.wires)
        re = torch.zeros(shape)
        re[(slice(None), *[0] * self.workload.wires)] = 1
        im = torch.zeros(shape)
        for layer in self.layers:
            re, im = layer(data, weights, re, im)
        return re.reshape(len(re), -1), im.reshape(len(im), -1)


def layers(circuit: Circuit, n: int) -> Iterator[Layer]:
    """The circuit as what fastQML has: the same gates on all wires, or one kind of gate on many pairs."""
    for size, run in itertools.groupby(circuit, key=lambda gate: len(gate.wires)):
        if size == 1:
            yield from layers_of_wires(list(run), n)
        elif size == 2:
            for name, pairs in itertools.groupby(run, key=lambda gate: gate.name):
                yield from layers_of_pairs(name, list(pairs), n)
        else:
            raise NotSupportedError("gates of more than two wires")


def layers_of_wires(gates: list[Gate], n: int) -> Iterator[Layer]:
    """Of gates on one wire each: the first on each wire, the second, and so on; RZ RY RZ is one layer."""
    on_wire: list[list[Gate]] = [[] for _ in range(n)]
    for gate in gates:
        on_wire[gate.wires[0]].append(gate)
    try:
        moments = list(zip(*on_wire, strict=True))
    except ValueError:
        raise NotSupportedError("layers on some of the wires") from None
    kinds = [{(gate.name, gate.slot and gate.slot[0]) for gate in moment} for moment in moments]
    if any(len(kind) > 1 for kind in kinds):
        raise NotSupportedError("layers of different gates")
    while moments:
        if [kind for (kind,) in kinds[:3]] == [("RZ", "weights"), ("RY", "weights"), ("RZ", "weights")]:
            yield euler(*[columns(moment) for moment in moments[:3]])
            moments, kinds = moments[3:], kinds[3:]
            continue
        ((name, source),) = kinds[0]
        yield one_layer(name, source, columns(moments[0]) if source else None, n)
        moments, kinds = moments[1:], kinds[1:]


def euler(phi: Tensor, theta: Tensor, omega: Tensor) -> Layer:
    """RZ RY RZ on each wire."""

    def layer(data: Tensor, weights: Tensor, re: Tensor, im: Tensor) -> tuple[Tensor, Tensor]:
        return gf.apply_su2_layer(re, im, *gf.build_rot_gates(weights[phi], weights[theta], weights[omega]))

    return layer


def one_layer(name: str, source: str | None, slots: Any, n: int) -> Layer:
    """One gate on each wire."""
    if (source is None and name not in CONSTANT) or (source and name not in ROTATIONS):
        raise NotSupportedError(f"no gate {name}")
    fixed = CONSTANT[name](n, CPU, torch.float32) if source is None else None

    def layer(data: Tensor, weights: Tensor, re: Tensor, im: Tensor) -> tuple[Tensor, Tensor]:
        if source == "data":
            return gf.apply_per_batch_su2_chain(re, im, *BATCHED[name](data[:, slots]))
        return gf.apply_su2_layer(re, im, *(fixed or ROTATIONS[name](weights[slots])))

    return layer


def layers_of_pairs(name: str, gates: list[Gate], n: int) -> Iterator[Layer]:
    """Of one kind of gate, in as few disjoint sets of pairs as their order allows."""
    if name not in PAIRS and name not in CONSTANT_PAIRS:
        raise NotSupportedError(f"no gate {name}")
    commute = gf.cry_commute if name == "CNOT" else gf.diagonal_commute  # the other kinds commute whatever their pairs
    for plan in gf.compute_two_qubit_plans([gate.wires for gate in gates], n, CPU, torch.float32, commute):
        yield pair_layer(name, plan, columns([gates[k] for k in plan["k_idx"].tolist()]) if name in PAIRS else None)


def pair_layer(name: str, plan: dict[str, Any], slots: Any) -> Layer:
    """Disjoint pairs."""
    fixed = None if name in PAIRS else CONSTANT_PAIRS[name](plan["n_pairs"], CPU, torch.float32)

    def layer(data: Tensor, weights: Tensor, re: Tensor, im: Tensor) -> tuple[Tensor, Tensor]:
        return gf.apply_disjoint_two_qubit_layer(re, im, plan, *(fixed or PAIRS[name](weights[slots])))

    return layer


def columns(gates: Any) -> Tensor:
    """Which columns of their source gates take."""
    return torch.tensor([gate.slot[1] for gate in gates])
