"""Results and gradients of the native kernels against the oracle, over every case, regime and instruction set.

Tolerances, for each entry relative to max(1, |value|). float64: 1e-10; the circuits have at most a few hundred gates
and numbers of order 1, so that rounding adds up to 1e-13 or so, and anything beyond 1e-10 is a mistake. float32: 1e-4,
a hundred times its own rounding. Circuits of huge angles are allowed what their sums are rounded by
(``cases.angle_rounding``).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import cases
import hooks
import ketgrad as kg
import oracle
from angles import Angles
from conftest import FRESH_SEED
from ketgrad.native.library import _C

DOUBLE = 1e-10
SINGLE = 1e-4


def gradients(tape: kg.Tape, results: Any) -> list[Tensor]:
    """Gradients of a random loss by every trainable parameter; zero where there is none."""
    parameters = tape.get_parameters()
    if not parameters:
        return []
    found = torch.autograd.grad(cases.contract(results), parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def assert_same(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    assert found.shape == expected.shape, what
    if found.numel() == 0:
        return
    assert ((found - expected).abs() / expected.abs().clamp(min=1)).max().item() <= tolerance, what


def check(tape: kg.Tape, tolerance: float = DOUBLE, expected: kg.Tape | None = None) -> None:
    """Compare a tape's results and gradients with those of the oracle, on the same tape or on its twin in double
    precision."""
    twin = expected or tape
    tolerance += cases.angle_rounding(twin)
    (found,), (wanted,) = kg.execute([tape]), oracle.execute([twin])
    for i, (a, b) in enumerate(zip(tree_leaves(found), tree_leaves(wanted), strict=True)):
        assert_same(a.detach(), b.detach(), tolerance, f"result {i}")
    for i, (a, b) in enumerate(zip(gradients(tape, found), gradients(twin, wanted), strict=True)):
        assert_same(a, b, tolerance, f"gradient {i}")


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_case_in_double(case: cases.Case) -> None:
    check(case.tape())


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_case_in_single(case: cases.Case) -> None:
    check(case.tape(dtype=torch.float32), SINGLE, case.tape(dtype=torch.float64))


# A third of the cases, another one each day.
@pytest.mark.parametrize("case", cases.CASES[FRESH_SEED % 3 :: 3], ids=str)
def test_case_at_angles_of_every_kind(case: cases.Case) -> None:
    check(case.tape(seed=FRESH_SEED, mixture="mixed"))
    single = case.tape(dtype=torch.float32, seed=FRESH_SEED, mixture="mixed")
    check(single, SINGLE, cases.in_double(single))


@pytest.mark.parametrize("case", cases.TABLE, ids=str)
def test_operation_with_every_measurement(case: cases.Case) -> None:
    check(case.tape())


def test_every_level_agrees_with_the_oracle(level: str) -> None:
    for case in cases.CASES:
        check(case.tape())
    for case in cases.CASES[::7]:
        check(case.tape(dtype=torch.float32), SINGLE, case.tape(dtype=torch.float64))


# --- regimes: a sample per lane, one after the other whole or in tiles, one pass spread over the pool ----------------


def on_more_wires(tape: kg.Tape, num_wires: int) -> kg.Tape:
    """The same circuit beside wires that are only there: small circuits run by lanes, larger ones by single states."""
    spare = [("spare", i) for i in range(num_wires - tape.num_wires)]
    if not spare:
        return tape
    return kg.Tape([*tape.operations, kg.Identity(wires=spare)], tape.measurements)


def test_cases_as_single_states(tile_bits: int, level: str) -> None:
    for case in cases.CASES:
        if case.tape().batch_size is None:
            check(on_more_wires(case.tape(), 6))
    for case in cases.CASES[::5]:
        if case.tape().batch_size is None:
            single, double = case.tape(dtype=torch.float32), case.tape(dtype=torch.float64)
            check(on_more_wires(single, 6), SINGLE, on_more_wires(double, 6))


@pytest.mark.parametrize("batch", [None, 3])
def test_mixed_circuit_in_tiles(batch: int | None, tile_bits: int, level: str) -> None:
    check(mixed_tape(8, batch))
    check(mixed_tape(8, batch, torch.float32), SINGLE, mixed_tape(8, batch))


def test_tiles_of_impossible_sizes() -> None:
    with pytest.raises(ValueError, match="0 to 48 bits are possible"):
        _C.set_thresholds(tile_bits=-1)
    with pytest.raises(ValueError, match="0 to 48 bits are possible"):
        _C.set_thresholds(tile_bits=49)


def mixed_tape(
    num_wires: int,
    batch: int | None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    mixture: str | None = None,
) -> kg.Tape:
    """Every kind of kernel on low, middle and high wires; batched and shared parameters mixed.

    With a mixture of ``angles.MIXTURES`` angles are numbers of single precision, the same in either.
    """
    generator = torch.Generator().manual_seed(seed)
    source = Angles(generator, mixture) if mixture else None
    leaves = cases.Leaves(
        generator, batch=batch, dtype=dtype, source=source, rounded=torch.float32 if mixture else None
    )
    shared = leaves.with_batch(None)
    n = num_wires
    wires = [0, n // 2, n - 1, 1, n - 2]
    gates = [
        *[kg.RX(leaves.angle(), wires=w) for w in range(n)],
        *[kg.Rot(shared.angle(), shared.angle(), shared.angle(), wires=w) for w in range(n)],
        *[kg.CNOT(wires=[w, (w + 1) % n]) for w in range(n)],
        kg.IsingXX(leaves.angle(), wires=[0, n - 1]),
        kg.PauliRot(shared.angle(), "XYZY", wires=wires[:4]),
        kg.MultiRZ(leaves.angle(), wires=wires),
        kg.ctrl(kg.RY(shared.angle(), wires=n - 1), 0, control_values=[0]),
        kg.SingleExcitation(shared.angle(), wires=[n - 1, 0]),
        kg.DoubleExcitation(leaves.angle(), wires=wires[:4]),
        kg.QubitUnitary(shared.unitary(2), wires=[n - 1, n // 2]),
        kg.QubitUnitary(leaves.unitary(3), wires=wires[:3]),
        kg.DiagonalQubitUnitary(shared.diagonal(2), wires=[0, n - 1]),
        kg.SWAP(wires=[0, n - 2]),
        kg.ISWAP(wires=[1, n - 1]),
        kg.T(wires=0),
        kg.GlobalPhase(leaves.angle()),
        *[kg.RY(shared.angle(), wires=w) for w in range(n)],
    ]
    observable = kg.Hamiltonian(
        leaves.coefficients(4),
        [
            kg.Z(0) @ kg.Z(n - 1),
            kg.X(0) @ kg.Y(n - 1),
            kg.Hermitian(shared.hermitian(2), wires=[n - 1, 1]) @ kg.Z(0),
            kg.Z(2),
        ],
    )
    measurements = [
        kg.expval(observable),
        kg.var(observable),
        kg.probs(wires=[n - 1, 0, 2]),
        kg.density_matrix(wires=[1, n - 1]),
        kg.expval(kg.Projector([0, 1], wires=[0, n - 1])),
    ]
    return kg.Tape(gates, measurements)


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


def test_a_batch_is_one_walk_whatever_its_size() -> None:
    counts = []
    for batch in (1, 16, 300):
        tape = mixed_tape(5, batch)
        before = _C.walk_count()
        (found,) = kg.execute([tape])
        forward = _C.walk_count() - before
        cases.contract(found).backward()
        counts.append((forward, _C.walk_count() - before - forward))
    assert counts == [(1, 1)] * 3


def test_kets_that_are_not_kept_are_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose kets would take too much memory: gradients are the same."""
    expected, found = mixed_tape(6, 40), mixed_tape(6, 40)
    (results,) = kg.execute([expected])
    wanted = gradients(expected, results)
    monkeypatch.setattr("ketgrad.execution.jacobian_products.keeps_ket", lambda group, recompute: False)
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
