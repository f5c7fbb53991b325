"""Results and gradients of the native kernels against the oracle, over every case, regime and instruction set."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import cases
import hooks
import ketgrad as kg
from cases import FRESH_SEED, mixed_tape, on_more_wires
from comparisons import DOUBLE, SINGLE, assert_same, check, gradients
from ketgrad.autograd import derivative_rule
from ketgrad.native import operators
from ketgrad.native.library import _C


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_case_in_double(case: cases.Case) -> None:
    check(case.tape(), under=hooks.EVERY_LEVEL)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_case_in_single(case: cases.Case) -> None:
    levels = hooks.EVERY_LEVEL if case in cases.CASES[::7] else hooks.AS_IT_IS
    check(case.tape(dtype=torch.float32), SINGLE, case.tape(dtype=torch.float64), levels)


# A third of the cases, another one each day.
@pytest.mark.parametrize("case", cases.CASES[FRESH_SEED % 3 :: 3], ids=str)
@pytest.mark.slow
def test_case_at_angles_of_every_kind(case: cases.Case) -> None:
    check(case.tape(seed=FRESH_SEED, mixture="mixed"))
    single = case.tape(dtype=torch.float32, seed=FRESH_SEED, mixture="mixed")
    check(single, SINGLE, cases.in_double(single))


@pytest.mark.slow
@pytest.mark.parametrize("case", cases.TABLE, ids=str)
def test_operation_with_every_measurement(case: cases.Case) -> None:
    check(case.tape())


# --- regimes: a sample per lane, one after the other whole or in tiles, one pass spread over the pool ----------------


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_cases_as_single_states(part: int) -> None:
    for case in cases.CASES[part::4]:
        if case.tape().batch_size is None:
            check(on_more_wires(case.tape(), 6), under=hooks.IN_TILES_ON_EVERY_LEVEL)
    for case in cases.CASES[5 * part :: 20]:
        if case.tape().batch_size is None:
            single, double = case.tape(dtype=torch.float32), case.tape(dtype=torch.float64)
            check(on_more_wires(single, 6), SINGLE, on_more_wires(double, 6), hooks.IN_TILES_ON_EVERY_LEVEL)


@pytest.mark.parametrize("batch", [None, 3])
def test_mixed_circuit_in_tiles(batch: int | None, tile_bits: int, level: str) -> None:
    check(mixed_tape(8, batch))
    check(mixed_tape(8, batch, torch.float32), SINGLE, mixed_tape(8, batch))


def test_tiles_of_impossible_sizes() -> None:
    with pytest.raises(ValueError, match="0 to 48 bits are possible"):
        _C.set_thresholds(tile_bits=-1)
    with pytest.raises(ValueError, match="0 to 48 bits are possible"):
        _C.set_thresholds(tile_bits=49)


@pytest.mark.parametrize("num_wires", [5, 6, 9])
@pytest.mark.parametrize("batch", [None, 1, 2, 3, 5, 8, 17, 33])
def test_regimes_of_small_states(num_wires: int, batch: int | None, level: str) -> None:
    check(mixed_tape(num_wires, batch))
    check(mixed_tape(num_wires, batch, torch.float32), SINGLE, mixed_tape(num_wires, batch))


@pytest.mark.parametrize("num_wires", [5, 6, 9])
@pytest.mark.parametrize("batch", [None, 1, 3, 17])
def test_regimes_at_angles_of_every_kind(num_wires: int, batch: int | None, level: str, seeds: list[int]) -> None:
    for seed in seeds:
        double = mixed_tape(num_wires, batch, seed=seed, mixture="mixed")
        check(double)
        check(mixed_tape(num_wires, batch, torch.float32, seed, "mixed"), SINGLE, double)


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_regimes_of_large_states(batch: int | None, level: str) -> None:
    """2^14 amplitudes: passes are spread over the pool and their sums are cut into chunks."""
    check(mixed_tape(14, batch))
    check(mixed_tape(14, batch, torch.float32), SINGLE, mixed_tape(14, batch))


@pytest.mark.parametrize(
    "measurement", [kg.probs(), kg.state(), kg.probs(wires=range(13, 0, -1)), kg.var(kg.X(0) @ kg.Y(13))], ids=str
)
def test_measurements_of_a_large_state(measurement: kg.Measurement) -> None:
    x = torch.linspace(0.1, 2, 14, dtype=torch.float64, requires_grad=True)
    gates = [kg.RY(x[w], wires=w) for w in range(14)] + [kg.CNOT(wires=[w, w + 1]) for w in range(13)]
    tape = kg.Tape(gates, [measurement])
    check(tape)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_large_states_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    results = []
    for count in (threads, 2):
        with hooks.threads(count):
            tape = mixed_tape(14, None)
            (found,) = kg.execute([tape])
            results.append([*(r.detach() for r in tree_leaves(found)), *gradients(tape, found)])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b) if threads > 1 else torch.allclose(a, b, atol=1e-12)


def test_a_batch_is_one_sweep_whatever_its_size() -> None:
    counts = []
    for batch in (1, 16, 300):
        tape = mixed_tape(5, batch)
        before = _C.sweep_count()
        (found,) = kg.execute([tape])
        forward = _C.sweep_count() - before
        cases.contract(found).backward()
        counts.append((forward, _C.sweep_count() - before - forward))
    assert counts == [(1, 1)] * 3


def test_kets_that_are_not_kept_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose kets would take too much memory: gradients are the same."""
    expected, found = mixed_tape(6, 40), mixed_tape(6, 40)
    (results,) = kg.execute([expected])
    wanted = gradients(expected, results)
    monkeypatch.setattr(derivative_rule.KetPolicy, "keep", lambda kets, size, first: operators.NO_KET)
    (results,) = kg.execute([found])
    for a, b in zip(gradients(found, results), wanted, strict=True):
        assert_same(a, b, DOUBLE, "gradient")


def test_nan_and_infinity_propagate() -> None:
    x = torch.tensor([0.1, float("nan"), float("inf")], dtype=torch.float64, requires_grad=True)
    w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    tape = kg.Tape(
        [kg.RX(x, wires=0), kg.RY(w, wires=0), kg.CNOT(wires=[0, 1])], [kg.expval(kg.Z(0)), kg.probs(wires=[0, 1])]
    )
    ((z, p),) = kg.execute([tape])
    assert z.isnan().tolist() == [False, True, True]
    assert p.isnan().all(dim=1).tolist() == [False, True, True]
    gx, gw = torch.autograd.grad(z.sum(), [x, w])
    assert gx.isnan().tolist() == [False, True, True]
    assert gw.isnan()


# --- gradcheck: torch's own finite differences through ExecuteTapes --------------------------------------------------


def checked(build: Any, *leaves: Tensor) -> None:
    def function(*values: Tensor) -> Any:
        tapes = [build(*values)]
        jpc = kg.AdjointProducts()
        parameters = [p for t in tapes for p in t.get_parameters()]
        return tree_leaves(kg.ExecuteTapes.apply({"tapes": tapes, "execute_fn": jpc.execute, "jpc": jpc}, *parameters))

    assert torch.autograd.gradcheck(lambda *v: tuple(function(*v)), leaves)


def ansatz(x: Tensor, w: Tensor) -> list[kg.Operation]:
    return [
        kg.RX(x, wires=0),
        kg.RY(w[0], wires=1),
        kg.CNOT(wires=[0, 1]),
        kg.CRot(w[1], w[2], x, wires=[1, 2]),
        kg.IsingYY(2 * w[0], wires=[2, 0]),
    ]


def angles(*shape: int) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()


@pytest.mark.parametrize("batch", [(), (3,)], ids=["single", "batch"])
@pytest.mark.parametrize(
    "measurement",
    [
        kg.expval(kg.Z(0) @ kg.X(2)),
        kg.var(kg.Z(1) + 0.5 * kg.Y(2)),
        kg.probs(wires=[2, 0]),
        kg.state(),
        kg.density_matrix(wires=[1, 2]),
    ],
    ids=str,
)
def test_gradcheck_of_measurements(measurement: kg.Measurement, batch: tuple[int, ...]) -> None:
    checked(lambda x, w: kg.Tape(ansatz(x, w), [measurement]), angles(*batch), angles(3))


def test_gradcheck_of_a_prepared_state() -> None:
    state = torch.tensor([0.5, 0.5j, -0.5, 0.5], dtype=torch.complex128, requires_grad=True)
    checked(
        lambda s, x, w: kg.Tape(
            [kg.StatePrep(s, wires=[1, 0]), *ansatz(x, w)], [kg.expval(kg.Z(0)), kg.probs(wires=2)]
        ),
        state,
        angles(),
        angles(3),
    )


def test_gradcheck_of_a_unitary_matrix() -> None:
    """Along every direction of the matrix, those that leave the unitaries included."""
    matrix = cases.Leaves().unitary(2)
    checked(
        lambda m, x: kg.Tape([kg.RX(x, wires=1), kg.QubitUnitary(m, wires=[2, 0])], [kg.expval(kg.Z(0)), kg.state()]),
        matrix,
        angles(),
    )


def test_gradcheck_of_coefficients_and_matrices_of_observables() -> None:
    leaves = cases.Leaves()
    matrix = leaves.hermitian(1)

    def build(c: Tensor, m: Tensor, x: Tensor, w: Tensor) -> kg.Tape:
        hermitian = (m + m.mH) / 2
        observable = kg.Hamiltonian(c, [kg.Z(0), kg.X(1) @ kg.Y(2), kg.Hermitian(hermitian, wires=1)])
        return kg.Tape(ansatz(x, w), [kg.expval(observable), kg.var(observable)])

    checked(build, angles(3), matrix, angles(), angles(3))
