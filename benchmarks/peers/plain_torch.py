"""Plain torch as a user would write it: the state as a tensor, gate by gate, gradients by autograd."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from workloads import Circuit, Gate, Term, Workload

from .torch_like import Angles, FreshAdapter, TorchAdapter, angles


class Simulated(TorchAdapter):
    """States are (batch, 2^n); batch 1 stands for none. What is constant is on the device that the inputs come from."""

    def __init__(self, workload: Workload, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        super().__init__(workload, dtype)
        n = workload.wires
        self.index = torch.arange(2**n, device=device)
        self.bit = [(self.index >> (n - 1 - w)) & 1 for w in range(n)]
        self.sign = torch.stack([1.0 - 2.0 * bit for bit in self.bit])
        self.masks = [(mask, factor.to(device)) for mask, factor in flip_masks(workload.hamiltonian, n)]
        self.relabelled = cache(self._relabelled)
        self.constant = cache(lambda name: MATRICES[name]().to(device))

    def loss(self, data: Tensor, weights: Tensor, targets: Tensor) -> Tensor:
        """The workload's loss."""
        values = angles(data, weights)
        states = [self.state(circuit, values, max(1, len(data))) for circuit in self.workload.circuits]
        if self.workload.batch:
            return (((states[0].abs() ** 2) @ self.sign.T - targets) ** 2).mean()
        return torch.stack([self.energy(state) for state in states]).sum()

    def results(self, data: Tensor, weights: Tensor) -> Tensor:
        """All probabilities, or the expectation values."""
        probabilities = self.state(self.workload.circuit, angles(data, weights), 1)[0].abs() ** 2
        if self.workload.result == "jacobian":
            return probabilities
        return self.sign[: len(self.workload.measured_wires)] @ probabilities

    def state(self, circuit: Circuit, values: Angles, batch: int) -> Tensor:
        """The final state."""
        state = torch.zeros(batch, 2**self.workload.wires, dtype=torch.complex64, device=self.index.device)
        state[:, 0] = 1
        for gate in circuit:
            if gate.name in {"CNOT", "SWAP"}:
                state = state[:, self.relabelled(gate)]
            elif gate.name == "CZ":
                state = state * (1.0 - 2.0 * (self.bit[gate.wires[0]] & self.bit[gate.wires[1]]))
            elif gate.name == "IsingZZ":
                angle = values[gate.slot[0]][gate.slot[1]] / 2 if gate.slot else 0
                state = state * torch.exp(-1j * angle * (self.sign[gate.wires[0]] * self.sign[gate.wires[1]]))
            else:
                angle = values[gate.slot[0]][gate.slot[1]] if gate.slot else None
                if gate.matrix is not None:
                    matrix = torch.from_numpy(gate.matrix).to(torch.complex64)
                else:
                    matrix = self.constant(gate.name) if angle is None else MATRICES[gate.name](angle)
                state = self.applied(state, matrix, gate.wires)
        return state

    def applied(self, state: Tensor, matrix: Tensor, wires: tuple[int, ...]) -> Tensor:
        """A matrix (2^k, 2^k) or (batch, 2^k, 2^k) on k wires."""
        if len(wires) == 1:
            split = state.reshape(len(state), 2 ** wires[0], 2, -1)
            spec = "bij,bljr->blir" if matrix.ndim == 3 else "ij,bljr->blir"
            return torch.einsum(spec, matrix, split).reshape(state.shape)
        axes = [1 + w for w in wires]
        split = state.reshape(len(state), *[2] * self.workload.wires)
        small = matrix.reshape([2] * (2 * len(wires)))
        moved = torch.tensordot(small, split, dims=(list(range(len(wires), 2 * len(wires))), axes))
        return moved.movedim(list(range(len(wires))), axes).reshape(state.shape)

    def energy(self, state: Tensor) -> Tensor:
        """⟨H⟩, one gather for all terms that flip the same bits."""
        psi = state[0]
        parts = [torch.vdot(psi, factor * (psi[self.index ^ mask] if mask else psi)) for mask, factor in self.masks]
        return torch.stack(parts).sum().real

    def _relabelled(self, gate: Gate) -> Tensor:
        n, (a, b) = self.workload.wires, gate.wires
        if gate.name == "CNOT":
            return self.index ^ (self.bit[a] << (n - 1 - b))
        different = self.bit[a] ^ self.bit[b]
        return self.index ^ (different << (n - 1 - a)) ^ (different << (n - 1 - b))


class Fresh(FreshAdapter):
    """The same, with a circuit that is new in each call."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload)
        self.simulated = Simulated(workload)

    def values(self, gates: Circuit, weights: Tensor) -> Tensor:
        """⟨Z⟩ on each measured wire."""
        state = self.simulated.state(gates, {"weights": weights.unbind()}, 1)[0]
        return self.simulated.sign[: len(self.workload.measured_wires)] @ (state.abs() ** 2)

    def state(self, gates: Circuit) -> Tensor:
        """The amplitudes."""
        return self.simulated.state(gates, {}, 1)[0]


def flip_masks(terms: tuple[Term, ...], n: int) -> list[tuple[int, Tensor]]:
    """H as pairs (mask, factor): (Hψ)_i = Σ factor_i ψ_(i ^ mask)."""
    index, found = np.arange(2**n), {}
    for coefficient, word in terms:
        flip = sum(1 << (n - 1 - w) for w, letter in word if letter != "Z")
        factor = np.full(2**n, coefficient, dtype=np.complex64)
        for w, letter in word:
            sign = 1 - 2 * ((index >> (n - 1 - w)) & 1)
            factor *= {"X": 1, "Y": -1j * sign, "Z": sign}[letter]
        found[flip] = found[flip] + factor if flip in found else factor
    return [(flip, torch.from_numpy(factor)) for flip, factor in found.items()]


# --- matrices --------------------------------------------------------------------------------------------------------


def rx(angle: Tensor) -> Tensor:
    c, s = torch.cos(angle / 2), -1j * torch.sin(angle / 2)
    return _square([[c + 0j, s], [s, c + 0j]])


def ry(angle: Tensor) -> Tensor:
    c, s = torch.cos(angle / 2), torch.sin(angle / 2)
    return _square([[c, -s], [s, c]]).to(torch.complex64)


def rz(angle: Tensor) -> Tensor:
    phase = torch.exp(-0.5j * angle)
    return torch.diag_embed(torch.stack([phase, phase.conj()], dim=-1))


def ising_xx(angle: Tensor) -> Tensor:
    same = torch.eye(4, dtype=torch.complex64, device=angle.device)
    return torch.cos(angle / 2) * same - 1j * torch.sin(angle / 2) * same.flip(0)


def excitation(angle: Tensor, size: int) -> Tensor:
    """The rotation between 0…01…1 and 1…10…0, as PennyLane has it."""
    low, high = 2 ** (size // 2) - 1, 2**size - 2 ** (size // 2)
    same, turn = torch.zeros(2, 2**size, 2**size, device=angle.device)
    same[low, low] = same[high, high] = 1
    turn[low, high], turn[high, low] = -1, 1
    fixed = torch.eye(2**size, device=angle.device) - same
    return (fixed + torch.cos(angle / 2) * same + torch.sin(angle / 2) * turn).to(torch.complex64)


def _square(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


MATRICES: dict[str, Callable[..., Tensor]] = {
    "H": lambda: torch.tensor([[1, 1], [1, -1]], dtype=torch.complex64) / 2**0.5,
    "X": lambda: torch.tensor([[0, 1], [1, 0]], dtype=torch.complex64),
    "RX": rx,
    "RY": ry,
    "RZ": rz,
    "IsingXX": ising_xx,
    "SingleExcitation": lambda angle: excitation(angle, 2),
    "DoubleExcitation": lambda angle: excitation(angle, 4),
}
