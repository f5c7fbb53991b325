"""Parts: wires that leave the state, measurements and terms with states of their own, cuts; and what stays whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import hooks
import ketgrad as kg
import oracle
from cases import CASES, Case
from comparisons import assert_hessian_product, check, hessian_product, leaves_of
from ketgrad.execution.programs import build_program
from ketgrad.native.library import _C
from strategies import tapes

DOUBLE = torch.float64


def program_of(tape: kg.Tape) -> Any:
    return build_program(tape).program


def run_in_the_end(program: Any) -> list[Any]:
    parts = program.parts()
    return [leaf for part, _ in parts for leaf in run_in_the_end(part)] if parts else [program]


def sizes_of(tape: kg.Tape) -> list[int]:
    return sorted(leaf.describe()["num_wires"] for leaf in run_in_the_end(program_of(tape)))


# --- against the oracle: every circuit that can be split is ---


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(tapes(max_wires=6, max_gates=14))
def test_random_tapes_in_parts(tape: kg.Tape) -> None:
    with hooks.parts_of_any_size():
        check(tape)


def local_circuit(seed: int, wires: int, layers: int, keep: float, batch: int | None) -> kg.Tape:
    """Few gates between neighbours, of all kinds of letters; a sum of terms, a variance and probabilities."""
    random = torch.Generator().manual_seed(seed)

    def number() -> Tensor:
        shape = () if batch is None or torch.rand((), generator=random) < 0.5 else (batch,)
        value = torch.randn(shape, generator=random, dtype=DOUBLE)
        return value.requires_grad_()

    def chosen(options: list[Any]) -> Any:
        return options[int(torch.randint(len(options), (), generator=random))]

    operations: list[Any] = []
    for _ in range(layers):
        for w in range(wires):
            operations.append(chosen([kg.RX, kg.RY, kg.RZ, kg.PhaseShift])(number(), wires=w))
        for w in range(wires - 1):
            if torch.rand((), generator=random) < keep:
                pair = [w, w + 1] if torch.rand((), generator=random) < 0.5 else [w + 1, w]
                two = [kg.IsingXX, kg.IsingYY, kg.IsingZZ, kg.CRX, kg.CRZ, kg.CNOT, kg.CZ, kg.SWAP, kg.IsingXY]
                gate = chosen(two)
                operations.append(gate(wires=pair) if gate in (kg.CNOT, kg.CZ, kg.SWAP) else gate(number(), wires=pair))
    letters = [kg.X, kg.Y, kg.Z]
    terms = [number() * (chosen(letters)(w) @ chosen(letters)(w + 1)) for w in range(0, wires - 1, 3)]
    measured = [kg.expval(sum(terms[1:], terms[0])), kg.expval(chosen(letters)(0))]
    if seed % 2:
        measured += [kg.probs(wires=[wires - 1, wires - 2]), kg.var(kg.Z(0) @ kg.X(1))]
    return kg.Tape(operations, measured)


@pytest.mark.parametrize("seed", range(24))
def test_local_circuits_in_parts(seed: int) -> None:
    with hooks.parts_of_any_size():
        tape = local_circuit(seed, 7, 3, 0.35, None if seed % 3 else 3)
        check(tape)


@pytest.mark.parametrize("seed", range(6))
def test_local_circuits_fall_into_parts_by_themselves(seed: int) -> None:
    tape = local_circuit(2 * seed, 15, 2, 0.3, None if seed % 2 else 2)
    assert max(sizes_of(tape)) < 15
    check(tape)


@pytest.mark.parametrize("case", CASES[::7], ids=str)
def test_second_derivatives_of_cases_in_parts(case: Case) -> None:
    with hooks.parts_of_any_size():
        assert_hessian_product(case)


@pytest.mark.parametrize("seed", range(8))
def test_second_derivatives_of_local_circuits_in_parts(seed: int) -> None:
    with hooks.parts_of_any_size():
        tape = local_circuit(2 * seed, 6, 2, 0.4, None if seed % 3 else 2)
        parameters = leaves_of(tape)
        found = hessian_product(kg.execute([tape])[0], parameters)
        expected = hessian_product(oracle.execute(tape), parameters)
        for a, b in zip(found or [], expected or [], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("word", ["IXI", "IIY", "XIZ", "III", "YXI"])
def test_a_pauli_rotation_acts_on_no_wire_of_letter_i(word: str) -> None:
    """Such wires need not be in the light cone."""
    angles = torch.tensor([0.3, 0.7, -1.1, 0.4], dtype=DOUBLE, requires_grad=True)
    operations = [
        kg.RY(angles[0], wires=1),
        kg.PauliRot(angles[1], word, wires=[11, 1, 5]),
        kg.ctrl(kg.PauliRot(angles[2], word, wires=[7, 1, 3]), 9),
        kg.RX(angles[3], wires=1),
    ]
    measured = [kg.expval(kg.Z(1)), kg.probs(wires=[1])]
    check(kg.Tape(operations, measured))
    with hooks.parts_of_any_size():
        check(kg.Tape([*operations, kg.RX(0.2, wires=0)], [*measured, kg.expval(kg.X(0))]))


# --- many wires ---


def test_five_hundred_wires_have_local_observables() -> None:
    x = torch.linspace(0.1, 1.4, 512, dtype=DOUBLE, requires_grad=True)
    operations: list[Any] = [kg.RX(x[w], wires=w) for w in range(512)]
    operations += [kg.CNOT(wires=[w, w + 1]) for w in range(0, 511, 2)]
    tape = kg.Tape(operations, [kg.expval(kg.Z(w)) for w in range(512)])
    found = torch.stack(kg.execute([tape])[0])
    cosines = torch.cos(x)
    expected = torch.stack([cosines[w] * cosines[w - 1] if w % 2 else cosines[w] for w in range(512)])
    torch.testing.assert_close(found, expected)
    weights = torch.arange(512, dtype=DOUBLE)
    (a,), (b,) = (torch.autograd.grad((weights * r).sum(), x) for r in (found, expected))
    torch.testing.assert_close(a, b)


def chain(theta: Tensor, wires: range, layers: int, terms: range) -> kg.Tape:
    """QAOA of a chain: each layer has two parameters that all gates share."""
    operations: list[Any] = [kg.H(wires=w) for w in wires]
    for layer in range(layers):
        operations += [kg.IsingZZ(theta[layer, 0], wires=[w, w + 1]) for w in wires[:-1]]
        operations += [kg.RX(theta[layer, 1], wires=w) for w in wires]
    words = [kg.Z(w) @ kg.Z(w + 1) for w in terms]
    return kg.Tape(operations, [kg.expval(sum(words[1:], 1.0 * words[0]))])


def test_equal_cones_are_one_batch() -> None:
    theta = torch.tensor([[0.4, 0.9], [1.1, -0.3]], dtype=DOUBLE, requires_grad=True)
    tape = chain(theta, range(300), 2, range(299))
    (energy,) = kg.execute([tape])
    # Far from the ends all terms are alike; one of them, on as many wires as it depends on, and the ends themselves.
    (inner,) = kg.execute([chain(theta, range(12), 2, range(5, 6))])
    (ends,) = kg.execute([chain(theta, range(14), 2, range(4))])
    expected = 291 * inner + 2 * ends
    torch.testing.assert_close(energy, expected)
    (a,), (b,) = (torch.autograd.grad(r, theta) for r in (energy, expected))
    torch.testing.assert_close(a, b)
    parts = program_of(tape).parts()
    assert len(parts) <= 12
    assert max(copies for _, copies in parts) >= 40


def test_wires_that_nothing_depends_on_leave_the_state() -> None:
    x = torch.tensor(0.3, dtype=DOUBLE, requires_grad=True)
    operations: list[Any] = [kg.RY(0.1 * w, wires=w) for w in range(40)] + [
        kg.CNOT(wires=[w, w + 1]) for w in range(39)
    ]
    tape = kg.Tape([*operations, kg.RX(x, wires=0)], [kg.density_matrix(wires=[0, 1])])
    assert sizes_of(tape) == [3]
    check(kg.Tape([*operations[:6], *operations[40:45], kg.RX(x, wires=0)], [kg.density_matrix(wires=[0, 1])]))
    assert kg.execute([tape])[0].shape == (4, 4)


def test_a_cut_leaves_less_than_the_cone() -> None:
    """A chain that is entangled from both ends to the middle: each half is a number for the rest."""
    wires = 17
    x = torch.linspace(0.2, 1.2, wires, dtype=DOUBLE, requires_grad=True)
    operations: list[Any] = []
    for w in range(8):
        for at, to in ((w, w + 1), (wires - 1 - w, wires - 2 - w)):
            operations += [kg.RY(x[at], wires=at), kg.IsingXX(x[to], wires=[at, to])]
    tape = kg.Tape([*operations, kg.RZ(x[8], wires=8)], [kg.expval(kg.Y(8)), kg.expval(kg.Z(8))])
    assert max(sizes_of(tape)) <= 11
    check(tape)


# --- what stays whole ---


@pytest.mark.parametrize(
    "measured",
    [
        [kg.state()],
        [kg.probs(wires=range(6))],
        [kg.expval(kg.Z(0) @ kg.Z(5))],
        [kg.expval(kg.Z(w)) for w in range(6)],
    ],
)
def test_circuits_of_few_wires_have_no_parts(measured: list[Any]) -> None:
    ring = [kg.CNOT(wires=[w, (w + 1) % 6]) for w in range(6)]
    program = program_of(kg.Tape([kg.RX(0.1, wires=w) for w in range(6)] + 2 * ring, measured))
    assert not program.parts()
    assert program.describe()["num_wires"] == 6


def test_matrices_keep_their_gradient_outside_of_the_cone() -> None:
    """That of directions that leave the unitary matrices."""
    u = torch.eye(2, dtype=torch.complex128, requires_grad=True)
    rest = [kg.RX(0.1 * w, wires=w) for w in range(6)]
    with hooks.parts_of_any_size():
        check(kg.Tape([*rest, kg.QubitUnitary(u, wires=5)], [kg.expval(kg.Z(0)), kg.expval(kg.Z(1))]))


# --- every way to run it ---


def pairs_of(theta: Tensor) -> kg.Tape:
    """Six pairs of 60 wires, four in one observable."""
    operations = [kg.RY(theta[..., w], wires=w) for w in range(60)]
    operations += [kg.IsingZZ(theta[..., w], wires=[w, w + 1]) for w in range(59)]
    words = [kg.X(w) @ kg.X(w + 1) for w in range(5, 60, 10)]
    return kg.Tape(
        operations, [kg.expval(words[0] + 0.5 * words[1] - words[2] + 2.0 * words[3]), *map(kg.expval, words[4:])]
    )


def closed(theta: Tensor) -> Tensor:
    """The sum of the results of `pairs_of`, from circuits on the few wires that matter."""
    total = torch.zeros(theta.shape[:-1], dtype=theta.dtype)
    for first, weight in zip(range(5, 60, 10), (1.0, 0.5, -1.0, 2.0, 1.0, 1.0), strict=True):
        operations: list[Any] = [kg.RY(theta[..., w], wires=w) for w in range(first - 1, first + 3)]
        operations += [kg.IsingZZ(theta[..., w], wires=[w, w + 1]) for w in range(first - 1, first + 2)]
        total = total + weight * kg.execute([kg.Tape(operations, [kg.expval(kg.X(first) @ kg.X(first + 1))])])[0]
    return total


def total(function: Callable[[Tensor], Any]) -> Callable[[Tensor], Tensor]:
    def summed(theta: Tensor) -> Tensor:
        return sum(function(theta))  # type: ignore[return-value]

    return summed


ROUTES: dict[str, Callable[[Tensor], Tensor]] = {
    "execute": total(lambda theta: kg.execute([pairs_of(theta)])[0]),
    "compile": total(kg.compile(pairs_of)),
    "recompute": total(kg.compile(pairs_of, recompute=True)),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("batch", [(), (3,)])
def test_parts_by_every_route(route: str, batch: tuple[int, ...]) -> None:
    theta = torch.rand((*batch, 60), dtype=DOUBLE, requires_grad=True)
    found, expected = ROUTES[route](theta), closed(theta)
    torch.testing.assert_close(found, expected)
    a, b = (torch.autograd.grad(r.square().sum(), theta)[0] for r in (found, expected))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("route", ["execute", "compile"])
def test_transforms_of_parts(route: str) -> None:
    theta = torch.rand(2, 60, dtype=DOUBLE)
    direction = torch.rand(2, 60, dtype=DOUBLE)
    for transform in (
        lambda f: torch.func.vmap(f)(theta),
        lambda f: torch.func.vmap(torch.func.grad(f))(theta),
        lambda f: torch.func.jacrev(f)(theta[0]),
        lambda f: torch.func.jvp(f, (theta[0],), (direction[0],))[1],
        lambda f: torch.func.jvp(torch.func.grad(f), (theta[0],), (direction[0],))[1],
    ):
        torch.testing.assert_close(transform(ROUTES[route]), transform(closed))


def test_value_and_gradient_of_parts_in_one_call() -> None:
    energy = kg.compile(lambda t: kg.Tape(pairs_of(t).operations, pairs_of(t).measurements[:1]))
    theta = torch.rand((3, 60), dtype=DOUBLE, requires_grad=True)
    losses: list[Any] = [torch.Tensor.sum, kg.MeanSquaredError(torch.tensor([0.1, 0.2, 0.3], dtype=DOUBLE))]
    for point, loss in [(theta[0].detach().requires_grad_(), None), *[(theta, loss) for loss in losses]]:
        value, gradient = energy.value_and_grad(point, loss=loss)
        expected = energy(point) if loss is None else loss(energy(point))
        torch.testing.assert_close(value, expected.detach())
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, point)[0])


def test_parts_in_single_precision() -> None:
    theta = torch.rand(5, 60, requires_grad=True)
    found = ROUTES["execute"](theta)
    torch.testing.assert_close(found.double(), closed(theta.double()), rtol=1e-5, atol=1e-5)


def test_parts_under_torch_compile() -> None:
    theta = torch.rand(60, dtype=DOUBLE, requires_grad=True)
    inner = kg.compile(pairs_of)
    inner(theta)
    compiled = torch.compile(lambda t: total(inner)(t).sin(), fullgraph=True, backend="aot_eager")
    found, expected = compiled(theta), closed(theta).sin()
    torch.testing.assert_close(found, expected)
    a, b = (torch.autograd.grad(r, theta)[0] for r in (found, expected))
    torch.testing.assert_close(a, b)


# --- errors and reports ---


def staircases(wires: int, count: int) -> list[Any]:
    stairs = [kg.RX(0.1, wires=w) for w in range(wires)] + [kg.CNOT(wires=[w, w + 1]) for w in range(wires - 1)]
    return count * stairs


@pytest.mark.parametrize("wires", [45, 60, 1100])
def test_a_state_that_does_not_fit_names_its_measurement(wires: int) -> None:
    operations = [*staircases(wires, 2), *[kg.RX(0.1, wires=-1 - w) for w in range(20)]]
    others = [kg.expval(kg.Z(-1 - w)) for w in range(20)]
    tape = kg.Tape(operations, [*others, kg.expval(kg.Z(wires - 1))])
    message = rf"expval\(Z\({wires - 1}\)\) depends on {wires} of {wires + 20} wires: a state on {wires} wires needs \d"
    with pytest.raises(MemoryError, match=message):
        kg.execute([tape])
    with pytest.raises(MemoryError, match=message):
        kg.compile(lambda: tape)()
    with pytest.raises(MemoryError, match=f"a state on {wires} wires needs"):
        kg.execute([kg.Tape(operations, [kg.expval(kg.Z(wires - 1))])])


def test_a_staircase_is_cut_at_every_step() -> None:
    x = torch.rand(1100, dtype=DOUBLE, requires_grad=True)
    operations: list[Any] = [kg.RX(x[w], wires=w) for w in range(1100)]
    operations += [kg.CNOT(wires=[w, w + 1]) for w in range(1099)]
    found = kg.execute([kg.Tape(operations, [kg.expval(kg.Z(1099))])])[0]
    expected = torch.cos(x).prod()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, x), torch.autograd.grad(expected, x))


def test_ids_and_bytes_of_programs_with_parts_are_kept() -> None:
    program = program_of(pairs_of(torch.rand(60, dtype=DOUBLE)))
    again = _C.load_program(program.serialise())
    assert again.id == program.id
    assert len(again.parts()) == len(program.parts()) > 1
    assert program.bytes > sum(part.bytes for part, _ in program.parts())


def test_gradients_by_shared_parameters_are_sums_of_all_parts() -> None:
    angle = torch.tensor(0.4, dtype=DOUBLE, requires_grad=True)
    tape = kg.Tape([kg.RX(angle, wires=w) for w in range(100)], [kg.expval(kg.Z(w)) for w in range(100)])
    sum(kg.execute([tape])[0]).backward()
    assert angle.grad is not None
    assert angle.grad.item() == pytest.approx(-100 * math.sin(0.4))
