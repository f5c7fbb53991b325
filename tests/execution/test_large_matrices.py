"""Matrices on many wires of a single state, which go by products of matrices, against torch's from the state itself."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import ketgrad as kg

DTYPES = [torch.float32, torch.float64]
WIRES = [(9, 7), (10, 8), (9, 9)]
"""Of the state, and of the matrix: fewer groups than lanes, and more than are summed at a time, are among them."""


def tolerance(dtype: torch.dtype) -> dict[str, float]:
    return {"rtol": 0, "atol": 2e-5 if dtype is torch.float32 else 1e-12}


def layer(angles: Tensor, n: int) -> list[kg.Operation]:
    gates = [kg.RY(angles[w], wires=w) for w in range(n)] + [kg.RZ(angles[n + w], wires=w) for w in range(n)]
    return gates + [kg.CNOT(wires=[w, (w + 1) % n]) for w in range(n)]


def ket(operations: list[kg.Operation], n: int) -> Tensor:
    """With all wires in order."""
    (found,) = kg.execute([kg.Tape([kg.Identity(wires=w) for w in range(n)] + operations, [kg.state()])])
    return found


def over(state: Tensor, wires: list[int], n: int) -> Tensor:
    """Rows are basis states of the wires, columns those of the others."""
    others = [w for w in range(n) if w not in wires]
    return state.reshape([2] * n).permute(*wires, *others).reshape(2 ** len(wires), -1)


def some_wires(n: int, k: int) -> list[int]:
    return torch.randperm(n, generator=torch.Generator().manual_seed(n + k)).tolist()[:k]


def random_angles(n: int, dtype: torch.dtype) -> Tensor:
    return (6 * torch.rand(2 * n, dtype=dtype, generator=torch.Generator().manual_seed(n))).requires_grad_()


def random_matrix(side: int, dtype: torch.dtype) -> Tensor:
    parts = torch.randn(2, side, side, dtype=dtype, generator=torch.Generator().manual_seed(side))
    return torch.complex(parts[0], parts[1]) / side**0.5


def hermitian(matrix: Tensor) -> Tensor:
    return (matrix + matrix.mH) / 2


def compare(found: Tensor, right: Tensor, parameters: list[Tensor]) -> None:
    """Values, gradients, and the derivatives of the gradients along a direction."""
    close = tolerance(parameters[0].dtype)
    torch.testing.assert_close(found, right, **close)
    grown = [torch.autograd.grad(value, parameters, create_graph=True) for value in (found, right)]
    for one, other in zip(*grown, strict=True):
        torch.testing.assert_close(one, other, **close)
    direction = [torch.ones_like(p) for p in parameters]
    sums = [sum((g.conj() * d).real.sum() for g, d in zip(gs, direction, strict=True)) for gs in grown]
    again = [torch.autograd.grad(s, parameters) for s in sums]
    for one, other in zip(*again, strict=True):
        torch.testing.assert_close(one, other, **{**close, "atol": 30 * close["atol"]})


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize(("n", "k"), WIRES)
class TestLargeMatrices:
    def test_density_matrix(self, n: int, k: int, dtype: torch.dtype) -> None:
        angles, wires = random_angles(n, dtype), some_wires(n, k)
        weights = random_matrix(2**k, dtype)
        operations = layer(angles, n)
        (rho,) = kg.execute([kg.Tape(operations, [kg.density_matrix(wires=wires)])])
        rows = over(ket(operations, n), wires, n)
        right = rows @ rows.mH
        torch.testing.assert_close(rho, right, **tolerance(dtype))
        compare((rho * weights).sum().real, (right * weights).sum().real, [angles])

    def test_hermitian(self, n: int, k: int, dtype: torch.dtype) -> None:
        angles, wires = random_angles(n, dtype), some_wires(n, k)
        observable = hermitian(random_matrix(2**k, dtype)).requires_grad_()
        operations = layer(angles, n)
        (mean,) = kg.execute([kg.Tape(operations, [kg.expval(kg.Hermitian(observable, wires=wires))])])
        rows = over(ket(operations, n), wires, n)
        compare(mean, (rows.conj() * (observable @ rows)).sum().real, [angles, observable])

    def test_unitary(self, n: int, k: int, dtype: torch.dtype) -> None:
        angles, wires = random_angles(n, dtype), some_wires(n, k)
        start = torch.linalg.qr(random_matrix(2**k, dtype))[0].requires_grad_()
        first = layer(angles, n)
        gate = kg.QubitUnitary(start, wires=wires)
        (p,) = kg.execute([kg.Tape([*first, gate], [kg.probs(wires=wires)])])
        weights = torch.arange(2**k, dtype=dtype) / 2**k
        rows = start @ over(ket(first, n), wires, n)
        right = (rows.abs() ** 2).sum(1)
        torch.testing.assert_close(p, right, **tolerance(dtype))
        found = torch.autograd.grad((p * weights).sum(), [angles, start])
        expected = torch.autograd.grad((right * weights).sum(), [angles, start])
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, **tolerance(dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
def test_sums_do_not_depend_on_threads(dtype: torch.dtype) -> None:
    n, wires = 14, list(range(3, 11))
    angles = random_angles(n, dtype).detach()
    tape = kg.Tape(layer(angles, n), [kg.density_matrix(wires=wires)])
    threads = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(kg.execute([tape])[0])
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
