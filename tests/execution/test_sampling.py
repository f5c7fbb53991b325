"""Finite shots: against exact results within the spread of the estimator, against PennyLane in shapes and types."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.sparse
import torch
from torch import Tensor

import ketgrad as kg
from ketgrad.execution.sampling import draw, exact_tapes

try:
    import pennylane as qml
except ImportError:  # optional
    qml = None
needs_pennylane = pytest.mark.skipif(qml is None, reason="PennyLane is not installed")

SHOTS = 40_000
# In standard deviations of an estimator: one draw in two million is beyond, and the seeds are fixed.
SPREAD = 5.0
DOUBLE = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run(
    operations: Sequence[kg.Operation], *measurements: kg.Measurement, shots: int | None = SHOTS, seed: int = 0
) -> Any:
    (found,) = kg.execute([kg.Tape(operations, measurements, shots=shots)], generator=seeded(seed))
    return found


def circuit(batch: int | None = None, dtype: torch.dtype = DOUBLE) -> list[kg.Operation]:
    """A state on three wires without any symmetry."""
    shape = () if batch is None else (batch,)
    angles = [torch.randn(shape, generator=seeded(index), dtype=DOUBLE).to(dtype) for index in range(6)]
    layers = [kg.RY(angles[0], 0), kg.RX(angles[1], 1), kg.Rot(angles[2], 0.8, angles[3], 2), kg.CNOT([0, 1])]
    return [*layers, kg.RZ(angles[4], 1), kg.CRX(0.9, [1, 2]), kg.RX(angles[5], 0), kg.IsingXY(1.1, [2, 0])]


def random_hermitian(wires: int, seed: int = 0) -> Tensor:
    matrix = torch.randn(2**wires, 2**wires, generator=seeded(seed), dtype=torch.complex128)
    return matrix + matrix.mH


def with_spectrum(values: Sequence[float]) -> Tensor:
    """A matrix with these eigenvalues and random eigenvectors."""
    vectors = torch.linalg.eigh(random_hermitian(len(values).bit_length() - 1))[1]
    matrix = vectors @ torch.diag(torch.tensor(values, dtype=torch.complex128)) @ vectors.mH
    return (matrix + matrix.mH) / 2


def random_state(wires: int) -> Tensor:
    state = torch.randn(2**wires, generator=seeded(7), dtype=torch.complex128)
    return state / state.norm()


# ---- distributions


def test_frequencies_follow_the_exact_probabilities() -> None:
    exact = run(circuit(), kg.probs(), shots=None)
    found = run(circuit(), kg.probs())
    assert found.dtype is DOUBLE
    assert bool(((found - exact).abs() <= SPREAD * (exact * (1 - exact) / SHOTS).sqrt() + 1e-12).all())


@pytest.mark.parametrize("batch", [None, 3])
def test_samples_counts_and_probs_read_the_same_shots(batch: int | None) -> None:
    samples, counts, probs, reordered = run(
        circuit(batch), kg.sample(), kg.counts(wires=[2, 0]), kg.probs(wires=[2, 0]), kg.sample(wires=[2, 0]), shots=500
    )
    assert samples.dtype is torch.int64
    assert torch.equal(reordered, samples[..., [2, 0]])
    index = 2 * reordered[..., 0] + reordered[..., 1]
    tallies = torch.stack([(index == number).sum(-1) for number in range(4)], -1)
    torch.testing.assert_close(probs, tallies / 500, check_dtype=False)
    rows = [counts] if batch is None else counts
    for row, tally in zip(rows, tallies.reshape(-1, 4).tolist(), strict=True):
        assert row == {f"{number:02b}": count for number, count in enumerate(tally) if count}


def test_a_bell_pair_agrees() -> None:
    bell = [kg.H(0), kg.CNOT([0, 1])]
    first, second, z, x, product = run(
        bell,
        kg.sample(wires=0),
        kg.sample(wires=1),
        kg.sample(kg.Z(1)),
        kg.sample(kg.X(0) @ kg.X(1)),
        kg.expval(kg.Z(0)),
        shots=200,
    )
    assert torch.equal(first, second)
    assert 0 < first.sum() < 200
    assert torch.equal(z, 1.0 - 2.0 * first[:, 0])
    assert bool((x == 1).all())
    assert product == z.mean()


def test_words_of_one_basis_share_their_shots() -> None:
    first, second, both = run(
        circuit(), kg.sample(kg.X(0)), kg.sample(kg.Y(2)), kg.sample(kg.X(0) @ kg.Y(2)), shots=200
    )
    assert torch.equal(first * second, both)


def test_measurements_of_wires_share_their_shots_whatever_comes_first() -> None:
    _, first, _, both = run(
        circuit(), kg.expval(kg.X(0)), kg.sample(wires=1), kg.expval(kg.Y(1)), kg.sample(wires=[0, 1]), shots=200
    )
    assert torch.equal(first[:, 0], both[:, 1])


def test_an_outcome_of_probability_zero_is_never_drawn() -> None:
    counts = run([kg.H(0), kg.CNOT([0, 1]), kg.CNOT([1, 2]), kg.X(3)], kg.counts())
    assert sorted(counts) == ["0001", "1111"]


def test_more_outcomes_than_multinomial_takes() -> None:
    wires = 25
    tape = kg.Tape([kg.Identity(range(wires))], [kg.counts()], shots=1000)
    probabilities = torch.zeros(2**wires, dtype=torch.float32)
    probabilities[[5, 2**wires - 1]] = torch.tensor([0.25, 0.75])
    counts = draw(tape, [probabilities], seeded())
    assert sorted(counts) == [f"{5:025b}", "1" * wires]
    assert abs(counts["1" * wires] - 750) < SPREAD * math.sqrt(1000 * 0.25 * 0.75)


def test_batch_entries_are_drawn_from_their_own_distribution() -> None:
    angles = torch.tensor([0.0, math.pi, math.pi / 2], dtype=DOUBLE)
    zero, one, half = run([kg.RX(angles, wires="a")], kg.counts(wires="a"), shots=1000)
    assert (zero, one) == ({"0": 1000}, {"1": 1000})
    assert abs(half["0"] - 500) < SPREAD * math.sqrt(250)


def test_a_batch_in_the_observable_alone() -> None:
    scales = torch.tensor([1.0, 2.0, -3.0], dtype=DOUBLE)
    values, mean, bits = run([kg.RX(0.4, 0)], kg.sample(scales * kg.Z(0)), kg.expval(scales * kg.Z(0)), kg.sample())
    assert values.shape == (3, SHOTS)
    assert bits.shape == (3, SHOTS, 1)
    assert torch.equal(values, scales[:, None] * (1 - 2 * bits[..., 0]))
    assert not torch.equal(bits[0], bits[1])
    torch.testing.assert_close(mean, values.mean(-1))


def test_an_empty_batch() -> None:
    angle = torch.zeros(0, dtype=DOUBLE)
    samples, counts, mean, probs, values = run(
        [kg.RX(angle, 0)], kg.sample(), kg.counts(), kg.expval(kg.X(0)), kg.probs(), kg.sample(kg.Y(0)), shots=10
    )
    assert samples.shape == (0, 10, 1)
    assert values.shape == (0, 10)
    assert counts == []
    assert mean.shape == (0,)
    assert probs.shape == (0, 2)


# ---- observables


class ObservableCase(NamedTuple):
    """An observable on three wires, a bound of its values in any term-by-term sum, and its eigenvalues where short."""

    name: str
    build: Callable[[], Any]
    largest: float
    eigenvalues: tuple[float, ...] | None = None

    def __str__(self) -> str:
        return self.name


ROOT = math.sqrt(2)
OBSERVABLES = [
    ObservableCase("X", lambda: kg.X(0), 1, (-1, 1)),
    ObservableCase("Y", lambda: kg.Y(1), 1, (-1, 1)),
    ObservableCase("Z", lambda: kg.Z(2), 1, (-1, 1)),
    ObservableCase("H", lambda: kg.H(0), 1, (-1, 1)),
    ObservableCase("H-H", lambda: kg.H(2) @ kg.H(0), 2, (-1, 1)),
    ObservableCase("identity", lambda: 2.5 * kg.Identity(1), 2.5, (2.5,)),
    ObservableCase("word", lambda: kg.Y(2) @ kg.X(0) @ kg.Z(1), 1, (-1, 1)),
    ObservableCase("scaled", lambda: 0.5 * kg.X(0) @ kg.Y(1), 0.5, (-0.5, 0.5)),
    ObservableCase("one basis", lambda: 0.3 * kg.X(0) + 0.2 * kg.Y(1) - 0.1 * kg.X(0) @ kg.Y(1), 0.6),
    ObservableCase("X+Z", lambda: kg.X(0) + kg.Z(0), 2, (-ROOT, ROOT)),
    ObservableCase("XX+ZI", lambda: kg.X(0) @ kg.X(2) + kg.Z(2), 2, (-ROOT, ROOT)),
    ObservableCase("Heisenberg", lambda: kg.X(2) @ kg.X(0) + kg.Y(2) @ kg.Y(0) + kg.Z(2) @ kg.Z(0), 3, (-3, 1)),
    ObservableCase(
        "Hamiltonian",
        lambda: kg.Hamiltonian(
            torch.tensor([0.5, -0.7, 0.2, 0.4], dtype=DOUBLE),
            [kg.X(0) @ kg.Y(1), kg.Z(1) @ kg.Z(2), kg.Identity(0), kg.Y(0) @ kg.Z(2)],
        ),
        1.8,
    ),
    ObservableCase("Hermitian-1", lambda: kg.Hermitian(random_hermitian(1), 1), 4),
    ObservableCase("Hermitian-2", lambda: kg.Hermitian(random_hermitian(2), [2, 0]), 8),
    ObservableCase("Hermitian-3", lambda: kg.Hermitian(random_hermitian(3).numpy(), [1, 2, 0]), 12),
    ObservableCase(
        "Hermitian-Pauli", lambda: kg.X(1) @ kg.Hermitian(with_spectrum([1, 2, 3, 4]), [2, 0]), 4, tuple(range(-4, 5))
    ),
    ObservableCase("Hermitian-sum", lambda: kg.Hermitian(random_hermitian(2), [0, 2]) + 0.5 * kg.X(0), 8.5),
    ObservableCase("Projector", lambda: kg.Projector([1, 0], [2, 0]), 1, (0, 1)),
    ObservableCase("Projector-Pauli", lambda: kg.Projector([1], [2]) @ kg.Y(0), 1, (-1, 0, 1)),
    ObservableCase("Projector-sum", lambda: kg.Projector([0, 1], [0, 1]) + kg.X(1), 2),
    ObservableCase("Projector-state", lambda: kg.Projector(random_state(2), [2, 1]), 1, (0, 1)),
    ObservableCase("Projector-state-sum", lambda: kg.Projector(random_state(1), 0) - kg.Y(0) @ kg.Z(2), 2),
    ObservableCase(
        "Sparse", lambda: kg.SparseHamiltonian(scipy.sparse.csr_matrix(random_hermitian(2).numpy()), [1, 0]), 8
    ),
    ObservableCase(
        "Sparse-diagonal",
        lambda: kg.SparseHamiltonian(scipy.sparse.diags([1.0, -2.0, 0.0, 4.0]), [2, 0]),
        4,
        (-2, 0, 1, 4),
    ),
    ObservableCase(
        "Sparse-torch", lambda: kg.SparseHamiltonian(random_hermitian(2, 1).to_sparse_coo(), [0, 2]) @ kg.Y(1), 8
    ),
]


def allowance(largest: float, shots: int = SHOTS) -> float:
    return SPREAD * largest / math.sqrt(shots)


@pytest.mark.parametrize("batch", [None, 2], ids=["single", "batch"])
@pytest.mark.parametrize("case", OBSERVABLES, ids=str)
def test_mean_and_variance(case: ObservableCase, batch: int | None) -> None:
    measurements = [kg.expval(case.build()), kg.var(case.build())]
    mean, variance = run(circuit(batch), *measurements, shots=None)
    found_mean, found_variance = run(circuit(batch), *measurements)
    torch.testing.assert_close(found_mean, mean, atol=allowance(case.largest), rtol=0)
    torch.testing.assert_close(found_variance, variance, atol=2 * allowance(case.largest**2), rtol=0)


@pytest.mark.parametrize("case", OBSERVABLES, ids=str)
def test_samples_and_counts_are_eigenvalues(case: ObservableCase) -> None:
    observable = case.build()
    samples, counts, mean = run(
        circuit(), kg.sample(observable), kg.counts(observable), kg.expval(observable), shots=2000
    )
    assert samples.shape == (2000,)
    assert samples.dtype is DOUBLE
    distinct, tallies = samples.unique(return_counts=True)
    assert counts == dict(zip(distinct.tolist(), tallies.tolist(), strict=True))
    assert list(counts) == sorted(counts)
    if case.eigenvalues is not None:
        for value in counts:
            assert min(abs(value - expected) for expected in case.eigenvalues) < 1e-12 * case.largest
    if len(exact_tapes(kg.Tape(circuit(), [kg.expval(observable)], shots=1))) == 1:
        torch.testing.assert_close(mean, samples.mean())


@pytest.mark.parametrize(
    ("operations", "observable"),
    [
        ([kg.H(0)], kg.X(0)),
        ([kg.RX(-math.pi / 2, 0)], kg.Y(0)),
        ([], kg.Z(0)),
        ([kg.RY(math.pi / 4, 0)], kg.H(0)),
        ([kg.H(1), kg.RX(math.pi / 2, 0)], -(kg.Y(0) @ kg.X(1))),
        ([kg.StatePrep(random_state(2), [1, 0])], kg.Projector(random_state(2), [1, 0])),
    ],
    ids=["X", "Y", "Z", "H", "-YX", "projector"],
)
def test_an_eigenstate_gives_its_eigenvalue(operations: list[kg.Operation], observable: Any) -> None:
    samples, variance = run([*operations, kg.Identity([0, 1])], kg.sample(observable), kg.var(observable), shots=300)
    assert bool((samples == 1).all())
    assert variance == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("number", range(8))
def test_an_eigenvector_of_a_matrix_gives_its_eigenvalue(number: int) -> None:
    matrix = random_hermitian(3)
    values, vectors = torch.linalg.eigh(matrix)
    wires = ["b", 3, "a"]
    counts = run([kg.StatePrep(vectors[:, number], wires)], kg.counts(kg.Hermitian(matrix, wires)), shots=100)
    assert list(counts) == pytest.approx([values[number].item()])


def test_batched_matrices() -> None:
    matrices = torch.stack([with_spectrum([1.0, 2.0]), with_spectrum([3.0, 5.0])])
    first, second = run([kg.RX(0.7, 0)], kg.counts(kg.Hermitian(matrices, 0)), shots=300)
    assert set(first) <= {1.0, 2.0}
    assert set(second) <= {3.0, 5.0}
    exact = run([kg.RX(0.7, 0)], kg.expval(kg.Hermitian(matrices, 0)), shots=None)
    torch.testing.assert_close(
        run([kg.RX(0.7, 0)], kg.expval(kg.Hermitian(matrices, 0))), exact, atol=allowance(1), rtol=0
    )


def test_eigenvalues_that_differ_by_rounding_are_one() -> None:
    degenerate = kg.Hermitian(with_spectrum([2.0] * 5 + [-0.3] * 3), [0, 1, 2])
    counts = run(circuit(), kg.counts(degenerate))
    assert list(counts) == pytest.approx([-0.3, 2])
    cancelling = 0.1 * kg.Z(0) + 0.2 * kg.Z(1) + 0.3 * kg.Z(2)
    assert list(run(circuit(), kg.counts(cancelling))) == pytest.approx([-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6])
    assert 0.0 in run(circuit(), kg.counts(cancelling))
    single = kg.Hermitian(degenerate.parameters[0].to(torch.complex64), [0, 1, 2])  # type: ignore[union-attr]
    assert list(run(circuit(dtype=torch.float32), kg.counts(single))) == pytest.approx([-0.3, 2], abs=1e-5)


def test_counts_are_plain_python() -> None:
    bits, values = run(circuit(), kg.counts(), kg.counts(kg.Z(0)), shots=100)
    assert {type(key) for key in bits} == {str}
    assert {type(key) for key in values} == {float}
    assert {type(count) for count in [*bits.values(), *values.values()]} == {int}
    assert sum(bits.values()) == sum(values.values()) == 100


# ---- PennyLane


MEASURED: dict[str, Callable[[Any], Any]] = {
    "sample all": lambda lib: lib.sample(),
    "sample one wire": lambda lib: lib.sample(wires=1),
    "sample wires": lambda lib: lib.sample(wires=[2, 0]),
    "sample Z": lambda lib: lib.sample(lib.Z(0)),
    "sample word": lambda lib: lib.sample(lib.X(0) @ lib.Y(1)),
    "sample Hermitian": lambda lib: lib.sample(lib.Hermitian(np.array([[1, 0.5], [0.5, 2]]), 0)),
    "sample sum": lambda lib: lib.sample(lib.Z(0) + lib.X(0)),
    "counts all": lambda lib: lib.counts(),
    "counts one wire": lambda lib: lib.counts(wires=1),
    "counts wires": lambda lib: lib.counts(wires=[2, 0]),
    "counts Z": lambda lib: lib.counts(lib.Z(0)),
    "counts Projector": lambda lib: lib.counts(lib.Projector([1, 0], [0, 1])),
    "probs all": lambda lib: lib.probs(wires=[0, 1, 2]),
    "probs": lambda lib: lib.probs(wires=[1]),
    "expval": lambda lib: lib.expval(lib.Z(0)),
    "expval sum": lambda lib: lib.expval(lib.Hamiltonian([0.5, 2.0], [lib.Z(0), lib.X(0)])),
    "var": lambda lib: lib.var(lib.Y(2)),
    "var sum": lambda lib: lib.var(lib.Z(0) + lib.Z(1)),
}


def form(result: Any) -> Any:
    """What a result is without its values: nesting, shapes, integer or float, the type and length of keys."""
    if isinstance(result, (tuple, list)):
        return type(result), [form(item) for item in result]
    if isinstance(result, dict):
        keys = {len(key) if isinstance(key, str) else "value" for key in result}
        return dict, keys, sum(result.values())
    array = np.asarray(result)
    return array.shape, array.dtype.kind


@needs_pennylane
@pytest.mark.parametrize("shots", [1, 50])
@pytest.mark.parametrize("batch", [None, 3], ids=["single", "batch"])
@pytest.mark.parametrize(
    "names", [[name] for name in MEASURED] + [list(MEASURED)], ids=lambda names: ", ".join(names[:2])
)
def test_the_form_is_that_of_pennylane(names: list[str], batch: int | None, shots: int) -> None:
    angle = np.full(() if batch is None else batch, 0.4)
    own = run([kg.RX(torch.tensor(angle), 0), kg.CNOT([0, 2])], *[MEASURED[name](kg) for name in names], shots=shots)
    script = qml.tape.QuantumScript(
        [qml.RX(angle, 0), qml.CNOT([0, 2])], [MEASURED[name](qml) for name in names], shots=shots
    )
    expected = qml.device("default.qubit", seed=1).execute(script)
    assert form(own) == form(expected)


def test_a_batch_of_one_keeps_its_axis() -> None:
    angle = torch.tensor([0.4], dtype=DOUBLE)
    bits, values, counts, probs, mean = run(
        [kg.RX(angle, 0)], kg.sample(), kg.sample(kg.X(0)), kg.counts(), kg.probs(), kg.expval(kg.Z(0)), shots=10
    )
    assert [bits.shape, values.shape, probs.shape, mean.shape] == [(1, 10, 1), (1, 10), (1, 2), (1,)]
    assert len(counts) == 1


# ---- reproducible


MIXED = [kg.sample(), kg.sample(kg.X(1)), kg.expval(kg.Y(0) + kg.Z(2)), kg.probs(wires=0)]


def test_the_same_seed_gives_the_same_shots() -> None:
    first, again, other = (run(circuit(3), *MIXED, shots=50, seed=seed) for seed in (4, 4, 5))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_without_a_generator_torch_is_asked() -> None:
    tape = kg.Tape(circuit(), [kg.sample()], shots=50)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(kg.execute([tape])[0])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_generator_moves_on() -> None:
    jpc = kg.AdjointProducts(generator=seeded())
    tape = kg.Tape(circuit(), [kg.sample()], shots=50)
    (first,), (second,) = jpc.execute([tape]), jpc.execute([tape])
    assert not torch.equal(first, second)


def test_tapes_of_one_batch_are_drawn_one_by_one() -> None:
    tapes = [kg.Tape([kg.RX(angle, 0)], [kg.sample()], shots=shots) for angle, shots in ((0.0, 5), (math.pi, 7))]
    zeros, ones = kg.execute(tapes, generator=seeded())
    assert torch.equal(zeros, torch.zeros(5, 1, dtype=torch.int64))
    assert torch.equal(ones, torch.ones(7, 1, dtype=torch.int64))


# ---- autograd


def trainable(*measurements: kg.Measurement, shots: int | None = 100) -> tuple[Tensor, kg.Tape]:
    x = torch.tensor(0.3, dtype=DOUBLE, requires_grad=True)
    return x, kg.Tape([kg.RX(x, 0), kg.CNOT([0, 1])], measurements, shots=shots)


@pytest.mark.parametrize(
    "measurement",
    [kg.expval(kg.Z(0)), kg.var(kg.X(0)), kg.probs(), kg.sample(kg.Z(1))],
    ids=["expval", "var", "probs", "sample"],
)
def test_gradients_of_shots_are_refused(measurement: kg.Measurement) -> None:
    _, tape = trainable(measurement, kg.counts())
    result, _ = kg.execute([tape])[0]
    with pytest.raises(RuntimeError, match="shots"):
        result.sum().backward()


def test_integer_results_have_no_gradient() -> None:
    _, tape = trainable(kg.sample(), kg.counts(), kg.counts(kg.X(0)))
    samples, bits, values = kg.execute([tape])[0]
    assert samples.dtype is torch.int64
    assert not samples.requires_grad
    assert sum(bits.values()) == sum(values.values()) == 100


def test_exact_tapes_beside_it_keep_their_gradient() -> None:
    x, tape = trainable(kg.sample(), kg.expval(kg.Z(0)))
    y, exact = trainable(kg.expval(kg.Z(0)), shots=None)
    _, z = kg.execute([tape, exact])
    z.backward()
    assert y.grad == pytest.approx(-math.sin(0.3))
    assert x.grad is None


def test_without_gradients() -> None:
    _, tape = trainable(kg.expval(kg.Z(0)), kg.sample())
    mean, _ = kg.execute([tape], diff_method=None)[0]
    assert not mean.requires_grad
    for exact in exact_tapes(tape):
        assert exact.trainable_params == ()


def test_observables_that_require_grad() -> None:
    matrix = random_hermitian(1).requires_grad_()
    weight = torch.tensor(0.5, dtype=DOUBLE, requires_grad=True)
    mean, values = run(circuit(), kg.expval(weight * kg.X(0) + kg.Z(0)), kg.sample(kg.Hermitian(matrix, 1)), shots=50)
    assert mean.requires_grad
    with pytest.raises(RuntimeError, match="shots"):
        (mean + values.sum()).backward()


# ---- precision, devices


@pytest.mark.parametrize(
    ("given", "expected"), [(torch.float32, torch.float32), (torch.float16, torch.float32), (DOUBLE, DOUBLE)]
)
def test_precision_is_that_of_the_parameters(given: torch.dtype, expected: torch.dtype) -> None:
    observables = [kg.Z(0), kg.X(0) + kg.Z(1), kg.Hermitian(random_hermitian(2).numpy(), [0, 1])]
    measurements = [kg.probs(), *[kg.expval(o) for o in observables], *[kg.sample(o) for o in observables]]
    for result in run(circuit(dtype=given), *measurements, kg.var(kg.X(0)), shots=10):
        assert result.dtype is expected


def test_precision_is_that_of_the_observables_too() -> None:
    weight = torch.tensor(0.5, dtype=torch.float32)
    assert run([kg.RX(0.3, 0)], kg.expval(weight * kg.X(0)), shots=10).dtype is torch.float32
    matrix = random_hermitian(1).to(torch.complex64)
    values, bits = run([kg.RX(0.3, 0)], kg.sample(kg.Hermitian(matrix, 0)), kg.sample(), shots=10)
    assert values.dtype is torch.float32
    assert bits.dtype is torch.int64


def test_mixed_precision_is_an_error_as_without_shots() -> None:
    tape = kg.Tape(circuit(), [kg.expval(torch.tensor(0.5, dtype=torch.float32) * kg.X(0))], shots=10)
    with pytest.raises(ValueError, match="precision"):
        kg.execute([tape])
    assert kg.execute([tape], dtype=torch.float32)[0].dtype is torch.float32


def test_mixed_devices_are_an_error_as_without_shots() -> None:
    tape = kg.Tape(circuit(), [kg.expval(torch.empty((), dtype=DOUBLE, device="meta") * kg.X(0))], shots=10)
    with pytest.raises(ValueError, match=r"cpu.*meta|meta.*cpu"):
        kg.execute([tape])


def test_the_default_device_has_no_say() -> None:
    tape = kg.Tape(circuit(), [kg.counts(case.build()) for case in OBSERVABLES], shots=10)
    probabilities = kg.execute(exact_tapes(tape))
    expected = draw(tape, probabilities, seeded())
    with torch.device("meta"):
        found = draw(tape, probabilities, seeded())
    assert found == expected


# ---- the exact tapes


def bases(*measurements: kg.Measurement) -> int:
    return len(exact_tapes(kg.Tape(circuit(), measurements, shots=1)))


def test_as_few_bases_as_fit() -> None:
    assert bases(kg.sample(), kg.counts(wires=1), kg.probs(wires=[0, 2]), kg.expval(kg.Z(0) @ kg.Z(2))) == 1
    assert bases(kg.expval(kg.X(0)), kg.expval(kg.Y(1)), kg.expval(kg.X(0) @ kg.Y(1) @ kg.Z(2))) == 1
    assert bases(kg.expval(kg.X(0)), kg.expval(kg.Z(0))) == 2
    assert bases(kg.expval(kg.X(0) + kg.Z(1) + kg.Z(0) @ kg.Z(1) + 3)) == 2
    assert bases(kg.sample(kg.H(0)), kg.expval(kg.H(0)), kg.counts(kg.H(0))) == 1
    hermitian = kg.Hermitian(random_hermitian(2), [0, 1])
    assert bases(kg.sample(hermitian), kg.expval(hermitian), kg.expval(2 * hermitian @ kg.X(2))) == 1
    assert bases(kg.sample(hermitian), kg.sample(kg.Hermitian(random_hermitian(2), [0, 1]))) == 2


def test_only_what_is_read_is_computed() -> None:
    tape = kg.Tape([kg.RX(0.2, wire) for wire in "abcdef"], [kg.expval(kg.X("c") + kg.Z("e"))], shots=10)
    (exact,) = exact_tapes(tape)
    (measurement,) = exact.measurements
    assert measurement.kind == "probs"
    assert measurement.wires == ("c", "e")
    assert exact.operations[: len(tape.operations)] == tape.operations
    (constant,) = exact_tapes(kg.Tape([kg.X(0), kg.X(1)], [kg.expval(kg.Identity(1))], shots=10))
    assert constant.measurements[0].wires == (0,)


def test_a_diagonal_of_many_wires_needs_no_matrix() -> None:
    wires = 14
    diagonal = np.random.default_rng(0).normal(size=2**wires)
    sparse = kg.SparseHamiltonian(scipy.sparse.diags(diagonal), range(wires))
    everywhere = kg.Projector([1] * wires, range(wires))
    bits, values, hits = run(
        [kg.RY(0.5, w) for w in range(wires)], kg.sample(), kg.sample(sparse), kg.sample(everywhere), shots=50
    )
    index = (bits * 2 ** torch.arange(wires - 1, -1, -1)).sum(-1)
    torch.testing.assert_close(values, torch.from_numpy(diagonal)[index])
    assert bool((hits == 0).all())


# ---- bad input


@pytest.mark.parametrize(
    "measurement",
    [
        kg.var(sum(kg.X(w) @ kg.X(w + 1) + kg.Z(w) for w in range(10))),
        kg.sample(kg.SparseHamiltonian(scipy.sparse.eye(2**11).tocsr()[::-1], range(11))),
        kg.counts(kg.Projector(np.full(2**11, 2**-5.5), range(11))),
    ],
    ids=["sum", "sparse", "projector"],
)
def test_eigenvectors_on_many_wires_are_refused(measurement: kg.Measurement) -> None:
    with pytest.raises(NotImplementedError, match="at most 10 wires"):
        run([kg.H(w) for w in range(11)], measurement, shots=10)


def test_sums_on_many_wires_have_means() -> None:
    chain: Any = sum(kg.X(w) @ kg.X(w + 1) + kg.Z(w) for w in range(11))
    operations = [kg.RY(0.3 * w, w) for w in range(12)]
    exact = run(operations, kg.expval(chain), shots=None)
    torch.testing.assert_close(run(operations, kg.expval(chain)), exact, atol=allowance(22), rtol=0)


def test_nan() -> None:
    nan = torch.tensor(math.nan, dtype=DOUBLE)
    with pytest.raises(ValueError, match="add up to nan"):
        run([kg.RX(nan, 0)], kg.sample(), shots=10)
    with pytest.raises(ValueError, match="on wire 0 has NaN"):
        run([kg.RX(0.1, 0)], kg.sample(kg.Hermitian(nan * torch.eye(2), 0)), shots=10)
    mean, values = run([kg.RX(0.1, 0)], kg.expval(nan * kg.Z(0)), kg.sample(nan * kg.Z(0)), shots=10)
    assert mean.isnan()
    assert bool(values.isnan().all())


def test_the_eigenbasis_of_a_matrix_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its values: a matrix that was changed in place has another one, and wires have their own."""
    solved = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda matrix: (solved.append(1), eigh(matrix))[1])
    matrix = torch.tensor([[0.3, 0.9 - 0.41j], [0.9 + 0.41j, -0.7]], dtype=torch.complex128)

    def mean(matrix: torch.Tensor, wire: int = 0) -> float:
        gates = [kg.RX(0.4, 0), kg.RY(1.1, 1)]
        measured = kg.expval(kg.Hermitian(matrix, wire))
        (exact,) = kg.execute([kg.Tape(gates, [measured])])
        (found,) = kg.execute([kg.Tape(gates, [measured], shots=4000)], generator=torch.Generator().manual_seed(1))
        assert abs(found.detach() - exact.detach()) < 0.1
        return float(found.detach())

    assert mean(matrix) == mean(matrix.clone().requires_grad_())
    assert len(solved) == 1
    assert mean(matrix.mH) == mean(matrix)  # conjugated lazily, with other signs of zero
    solved.clear()
    first = mean(matrix)
    matrix.mul_(-1)
    assert mean(matrix) != first
    mean(matrix, wire=1)
    assert len(solved) == 2
