"""Diagonals on many wires, beyond what `cases.py` draws: `Diagonal`, `DiagonalEvolution`, `tabulate`."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import hooks
import ketgrad as kg
import oracle

DOUBLE = torch.float64


def layers(times: Tensor, angles: Tensor, energies: Tensor, wires: list[int]) -> list[kg.Operation]:
    """Layers of a QAOA whose wires are entangled by CNOT too, so that amplitudes lie in another order."""
    gates: list[kg.Operation] = [kg.H(wire) for wire in wires]
    for time, angle in zip(times, angles, strict=True):
        gates.append(kg.DiagonalEvolution(time, energies, wires=wires))
        gates += [kg.CNOT(wires=[wires[0], wires[-1]]), kg.CNOT(wires=[wires[2], wires[1]])]
        gates += [kg.RX(angle * (1 + 0.1 * wire), wires=wire) for wire in wires]
    return gates


def inputs(num_wires: int, dtype: torch.dtype, batch: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(num_wires)
    shape = (2,) if batch is None else (2, batch)
    times, angles = (torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for _ in range(2))
    energies = (3 * torch.randn(2**num_wires, generator=generator, dtype=dtype)).requires_grad_()
    return times, angles, energies


def tape_of(times: Tensor, angles: Tensor, energies: Tensor, num_wires: int) -> kg.Tape:
    wires = [(5 * wire) % num_wires for wire in range(num_wires)]
    cost = kg.Diagonal(energies, wires)
    measurements = [kg.expval(cost), kg.var(cost), kg.expval(0.3 * cost + kg.X(0) @ kg.Y(2))]
    return kg.Tape(layers(times, angles, energies, wires), measurements)


def gradients(results: tuple[Tensor, ...], leaves: tuple[Tensor, ...]) -> list[Tensor]:
    loss = sum(weight * result.sum() for weight, result in zip((1.0, 0.1, -0.7), results, strict=True))
    return list(torch.autograd.grad(loss, leaves, retain_graph=True))


@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("num_wires", [6, 8, 9])
@pytest.mark.parametrize("settings", [{}, {"regime": "single", "tile_bits": 5, "spread": True}, {"regime": "lanes"}])
def test_values_and_gradients(settings, num_wires, batch):
    leaves = inputs(num_wires, DOUBLE, batch)
    tape = tape_of(*leaves, num_wires)
    with hooks.thresholds(**settings):
        (found,) = kg.execute([tape])
        of_found = gradients(found, leaves)
    (expected,) = oracle.execute([tape])
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(of_found, gradients(expected, leaves), atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("num_wires", [8, 11])
def test_single_precision(num_wires):
    double = inputs(num_wires, DOUBLE)
    single = tuple([leaf.detach().float().requires_grad_() for leaf in double])
    rounded = tuple([leaf.detach().double().requires_grad_() for leaf in single])
    (found,), (expected,) = kg.execute([tape_of(*single, num_wires)]), kg.execute([tape_of(*rounded, num_wires)])
    pairs = zip(gradients(found, single), gradients(expected, rounded), strict=True)
    for of_found, of_expected in pairs:
        torch.testing.assert_close(of_found.double(), of_expected, atol=2e-5 * of_expected.abs().max(), rtol=1e-4)


def test_large_phases_keep_their_digits():
    """Angles are products in double precision, whatever that of the state."""
    energies = torch.tensor([0.0, 2.0**20 + 1], dtype=torch.float32)
    time = torch.tensor(1.5, dtype=torch.float32)
    tape = kg.Tape([kg.H(0), kg.DiagonalEvolution(time, energies, wires=0)], [kg.expval(kg.X(0))])
    expected = math.cos(1.5 * (2**20 + 1))
    assert float(kg.execute([tape])[0]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("num_wires", [3, 9])
def test_second_derivatives(num_wires):
    times, angles, energies = inputs(num_wires, DOUBLE)
    direction = torch.randn(2**num_wires, dtype=DOUBLE, generator=torch.Generator().manual_seed(1))

    def value(times: Tensor, energies: Tensor) -> Tensor:
        return kg.execute([tape_of(times, angles, energies, num_wires)])[0][1]

    def expected(times: Tensor, energies: Tensor) -> Tensor:
        return oracle.execute([tape_of(times, angles, energies, num_wires)])[0][1]

    for function in (value, expected):
        first = torch.autograd.grad(function(times, energies), (times, energies), create_graph=True)
        second = torch.autograd.grad(first[0].sum() + (first[1] * direction).sum(), (times, energies))
        if function is value:
            found = second
    torch.testing.assert_close(found, second, atol=1e-8, rtol=1e-8)
    tangents = (torch.ones_like(times), direction)
    along = [torch.func.jvp(f, (times.detach(), energies.detach()), tangents)[1] for f in (value, expected)]
    torch.testing.assert_close(*along, atol=1e-9, rtol=1e-9)


def test_compiled():
    times, angles, energies = inputs(7, DOUBLE)

    @kg.compile
    def circuit(times: Tensor, angles: Tensor) -> kg.Tape:
        return tape_of(times, angles, energies, 7)

    (expected,) = kg.execute([tape_of(times, angles, energies, 7)])
    leaves = (times, angles, energies)
    for _ in range(2):
        found = circuit(times, angles)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradients(found, leaves), gradients(kg.execute([tape_of(*leaves, 7)])[0], leaves))
    value, gradient = circuit.value_and_grad(times, angles, loss=lambda results: results[0] + 0.1 * results[1])
    reference = torch.autograd.grad(expected[0] + 0.1 * expected[1], times)[0]
    torch.testing.assert_close((value, gradient), ((expected[0] + 0.1 * expected[1]).detach(), reference))


def test_several_tapes_with_diagonals_of_their_own():
    tapes = [tape_of(*inputs(6, DOUBLE)[:2], torch.arange(64, dtype=DOUBLE) * scale, 6) for scale in (0.1, 0.2)]
    computed = kg.compile(
        lambda x: [kg.Tape([kg.DiagonalEvolution(x[0], x * s, wires=0)], [kg.state()]) for s in (1, 2)]
    )
    for found, expected in zip(kg.execute(tapes), oracle.execute(tapes), strict=True):
        torch.testing.assert_close(found, expected)
    x = torch.tensor([0.3, 0.7], dtype=DOUBLE)
    for found, scale in zip(computed(x), (1, 2), strict=True):
        torch.testing.assert_close(found[0], torch.exp(-1j * x[0] * x[0] * scale))


@pytest.mark.parametrize("shape", [(), (3,)])
def test_shots(shape):
    energies = torch.tensor([0.5, -1.0, 2.0, 4.0]).expand(*shape, 4)
    tape = kg.Tape(
        [kg.X(1)], [kg.expval(kg.Diagonal(energies, [0, 1])), kg.sample(kg.Diagonal(energies, [1, 0]))], shots=5
    )
    (mean, sample) = kg.execute([tape])[0]
    assert mean.shape == shape
    assert sample.shape == (*shape, 5)
    assert (mean == -1.0).all()
    assert (sample == 2.0).all()


def test_what_a_diagonal_does_not_reach_is_not_run():
    tape = kg.Tape([kg.H(0), kg.RZ(0.3, wires=0), kg.RX(0.2, wires=1)], [kg.expval(kg.Diagonal([0.0, 1.0], wires=0))])
    assert kg.explain(tape).dropped == 2


# ---- tabulate


def test_tabulate():
    numbers = kg.tabulate(lambda bits: bits @ torch.tensor([4, 2, 1]), 3, dtype=DOUBLE)
    torch.testing.assert_close(numbers, torch.arange(8, dtype=DOUBLE))
    calls = []

    def parity(bits: Tensor) -> Tensor:
        calls.append(bits.shape)
        return bits.sum(1) % 2

    found = kg.tabulate(parity, 18)
    assert found.dtype is torch.float32
    assert found.shape == (2**18,)
    assert set(calls) == {(65_536, 18)}
    assert len(calls) == 4
    assert found[0b111] == 1
    assert found[0b11 << 16] == 0


def test_tabulate_keeps_gradients():
    weight = torch.tensor(2.0, requires_grad=True)
    kg.tabulate(lambda bits: weight * bits[:, 0], 2).sum().backward()
    assert weight.grad == 2


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: kg.tabulate(torch.zeros(4), 2), TypeError, "tabulate takes a function of bits, not Tensor"),
        (lambda: kg.tabulate(lambda bits: bits, 0), ValueError, "a number of wires, at least 1, not 0"),
        (lambda: kg.tabulate(lambda bits: bits, True), ValueError, "at least 1, not True"),
        (lambda: kg.tabulate(lambda bits: bits, 2), ValueError, r"for M = 4, not of shape \(4, 2\)"),
        (lambda: kg.tabulate(lambda bits: 1.0, 2), TypeError, r"must return a real tensor \(M,\).*, not float"),
        (lambda: kg.tabulate(lambda bits: bits[:, 0] * 1j, 2), TypeError, "not of dtype torch.complex64"),
        (lambda: kg.tabulate(lambda bits: bits[:, 0], 60), MemoryError, "a diagonal on 60 wires"),
    ],
)
def test_tabulate_refuses(build, error, message):
    with pytest.raises(error, match=message):
        build()
