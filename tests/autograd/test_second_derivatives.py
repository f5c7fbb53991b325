"""Second derivatives and forward mode: against the oracle, by torch's own checks, and refused where there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.functional import hessian as oracle_hessian
from torch.autograd.functional import jacobian as oracle_jacobian
from torch.func import grad, hessian, jacfwd, jacrev, jvp, vjp, vmap

import hooks
import ketgrad as kg
import oracle
from angles import draw
from cases import CASES, MEASUREMENTS, OPERATIONS, Case, Leaves, contract, direction, inner, layer
from comparisons import assert_hessian_product, hessian_product, leaves_of
from ketgrad.execution import batching
from ketgrad.native import operators
from ketgrad.native.library import _C

F64 = torch.float64


@pytest.fixture
def no_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle raises: what is tested is native."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the oracle was used")

    monkeypatch.setattr(oracle, "execute", refuse)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_hessian_products_agree_with_the_oracle(case: Case) -> None:
    assert_hessian_product(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[::17], ids=str)
def test_hessian_products_on_every_level(level: str, case: Case) -> None:
    assert_hessian_product(case)


# --- large states, tiles and threads ----------------------------------------------------------------------------------


def entangled(weights: Tensor, wires: int) -> list[kg.Operation]:
    operations: list[kg.Operation] = []
    for of_layer in weights:
        operations += [kg.Rot(*of_layer[w], wires=w) for w in range(wires)]
        operations += [kg.CNOT(wires=[w, (w + 1) % wires]) for w in range(wires)]
        operations += [
            kg.IsingXX(of_layer[0, 0], wires=[0, wires - 1]),
            kg.DoubleExcitation(of_layer[1, 1], [0, 1, 2, 3]),
        ]
    return operations


@pytest.mark.parametrize("tile_bits", [0, 6, 9])
@pytest.mark.parametrize("wires", [8, 11])
def test_tiles(level: str, wires: int, tile_bits: int, seeds: list[int]) -> None:
    for seed in seeds:
        # Sums of huge angles are rounded by more than what is allowed here: they have the sweep.
        weights = draw(2, wires, 3, seed=seed, without=["huge", "powers of two"]).requires_grad_()
        measured = [kg.expval(kg.Z(0) @ kg.X(wires - 1) + 0.3 * kg.Y(2)), kg.probs(wires=[1, 3])]
        tape = kg.Tape(entangled(weights, wires), measured)
        with hooks.thresholds(tile_bits=tile_bits):
            found = hessian_product(kg.execute([tape])[0], [weights])
        expected = hessian_product(oracle.execute(tape), [weights])
        assert found is not None
        assert expected is not None
        torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-9)


def test_single_precision_is_that_of_its_numbers(seeds: list[int]) -> None:
    for seed in seeds:
        single = draw(3, 6, 3, seed=seed).float().requires_grad_()
        double = single.detach().double().requires_grad_()
        found = []
        for weights in (double, single):
            tape = kg.Tape(entangled(weights, 6), [kg.expval(kg.Z(0)), kg.var(kg.X(1) + kg.Z(2))])
            product = hessian_product(kg.execute([tape])[0], [weights])
            assert product is not None
            found.append(product[0])
        assert found[1].dtype is torch.float32
        torch.testing.assert_close(found[1].double(), found[0], rtol=1e-4, atol=1e-4)


# --- torch's own checks -----------------------------------------------------------------------------------------------

KINDS = ("expval", "var", "probs", "state")


def measured(kind: str) -> list[kg.Measurement]:
    observable = 0.5 * kg.Z(0) @ kg.X(1) + kg.Y(0)
    made = {"expval": kg.expval(observable), "var": kg.var(observable), "probs": kg.probs(wires=[1, 0])}
    return [made.get(kind, kg.state())]


@pytest.mark.usefixtures("no_oracle")
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_gradgradcheck(kind: str, batch: int | None) -> None:
    shape = () if batch is None else (batch,)
    x = torch.randn(shape, dtype=F64, requires_grad=True)
    w = torch.randn((), dtype=F64, requires_grad=True)

    def circuit(x: Tensor, w: Tensor) -> Tensor:
        operations = [kg.RX(x, wires=0), kg.RY(w, wires=1), kg.CNOT(wires=[0, 1]), kg.CRZ(w, wires=[1, 0]), kg.RY(x, 0)]
        return kg.execute([kg.Tape(operations, measured(kind))])[0]

    assert torch.autograd.gradgradcheck(circuit, (x, w), check_fwd_over_rev=True)
    assert torch.autograd.gradcheck(circuit, (x, w), check_forward_ad=True)
    compiled = kg.compile(
        lambda x, w: kg.Tape([kg.RX(x, wires=0), kg.RY(2 * w, wires=1), kg.CZ([0, 1])], measured(kind))
    )
    assert torch.autograd.gradgradcheck(compiled, (x, w), check_fwd_over_rev=True)
    assert torch.autograd.gradcheck(compiled, (x, w), check_forward_ad=True)


def has_angles(entry: Any) -> bool:
    """Matrices and states are tested along directions that keep them what they are."""
    kinds = entry.build(Leaves(), list(range(entry.num_wires))).parameter_kinds
    return bool(kinds) and set(kinds) == {"angle"}


@pytest.mark.usefixtures("no_oracle")
@pytest.mark.parametrize("entry", [entry for entry in OPERATIONS if has_angles(entry)], ids=str)
def test_gradgradcheck_of_every_operation(entry: Any) -> None:
    leaves = Leaves()
    wires = list(range(entry.num_wires))
    operation = entry.build(leaves, wires)
    parameters = [p for p in operation.parameters if isinstance(p, Tensor)]
    prepared = layer(Leaves(requires_grad=False), wires)

    def circuit(*angles: Tensor) -> Tensor:
        mine = entry.build(Replay(angles), wires)
        return kg.execute(
            [kg.Tape([*prepared, mine], [kg.expval(kg.Z(0) @ kg.Y(wires[-1]) if wires[1:] else kg.Y(0))])]
        )[0]

    angles = [p.detach().clone().requires_grad_() for p in parameters]
    assert torch.autograd.gradgradcheck(circuit, angles)


class Replay(Leaves):
    """Hands out given angles."""

    def __init__(self, angles: tuple[Tensor, ...]) -> None:
        super().__init__()
        object.__setattr__(self, "given", list(angles))

    def angle(self) -> Tensor:
        return self.given.pop(0)  # type: ignore[no-any-return, attr-defined]


def test_matrices_along_unitary_directions() -> None:
    generator = torch.randn(4, 4, dtype=torch.complex128, requires_grad=True)
    x = torch.randn((), dtype=F64, requires_grad=True)

    def circuit(generator: Tensor, x: Tensor) -> Tensor:
        unitary = torch.matrix_exp(generator - generator.mH)
        operations = [kg.RX(x, wires=0), kg.QubitUnitary(unitary, wires=[0, 1]), kg.RY(x, wires=1)]
        return kg.execute(
            [kg.Tape([*operations, kg.adjoint(kg.QubitUnitary(unitary, [1, 2]))], [kg.probs(wires=[0, 2])])]
        )[0]

    assert torch.autograd.gradgradcheck(circuit, (generator, x))


def test_hermitian_matrices_along_hermitian_directions() -> None:
    half = torch.randn(2, 2, dtype=torch.complex128, requires_grad=True)
    x = torch.randn((), dtype=F64, requires_grad=True)

    def circuit(half: Tensor, x: Tensor) -> Tensor:
        observable = kg.Hermitian(half + half.mH, wires=0) @ kg.Z(1)
        tape = kg.Tape(
            [kg.RX(x, wires=0), kg.RY(x, wires=1), kg.CNOT([0, 1])], [kg.expval(observable), kg.var(observable)]
        )
        return torch.stack(kg.execute([tape])[0])

    assert torch.autograd.gradgradcheck(circuit, (half, x))


@pytest.mark.parametrize("entry", MEASUREMENTS, ids=str)
def test_forward_mode_is_the_gradient_along_a_direction(entry: Any) -> None:
    leaves = Leaves()
    wires = list(range(entry.num_wires))
    angle = leaves.angle()
    operations = [*layer(leaves, wires), kg.RX(angle, wires=0)]
    tape = kg.Tape(operations, [entry.build(leaves, wires)])
    parameters = leaves_of(tape)
    tangents = [direction(p) for p in parameters]
    results = kg.execute([tape])[0]
    gradients = torch.autograd.grad(contract(results), parameters, allow_unused=True, materialize_grads=True)
    expected = torch.stack([inner(t, g) for t, g in zip(tangents, gradients, strict=True)]).sum()
    products = kg.AdjointProducts().execute_and_compute_jvp([tape], [tangents_of(tape, parameters, tangents)])[1][0]
    torch.testing.assert_close(contract(products), expected.detach(), rtol=1e-9, atol=1e-9)


def tangents_of(tape: kg.Tape, leaves: list[Tensor], tangents: list[Tensor]) -> list[Tensor]:
    return [
        next((t for p, t in zip(leaves, tangents, strict=True) if p is q), torch.zeros_like(q))
        for q in tape.get_parameters()
    ]


# --- transforms -------------------------------------------------------------------------------------------------------

X = torch.randn(5, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
W = torch.randn(5, 3, 3, dtype=F64, generator=torch.Generator().manual_seed(2))
C = torch.randn(6, dtype=F64, generator=torch.Generator().manual_seed(3))


def tape_of(x: Tensor, w: Tensor) -> kg.Tape:
    operations: list[kg.Operation] = [kg.RX(x[..., i], wires=i) for i in range(3)]
    operations += [kg.Rot(*w[i], wires=i) for i in range(3)]
    operations += [kg.CNOT(wires=[0, 1]), kg.CNOT(wires=[1, 2]), kg.RY(x[..., 0] * w[0, 0], wires=0)]
    return kg.Tape(operations, [kg.expval(kg.Z(0) @ kg.Z(1)), kg.probs(wires=[1, 2]), kg.var(kg.X(0) + kg.Y(2))])


def joined(results: Any) -> Tensor:
    return torch.cat([results[0].unsqueeze(-1), results[1], results[2].unsqueeze(-1)], -1)


def by_oracle(x: Tensor, w: Tensor) -> Tensor:
    return joined(oracle.execute(tape_of(x, w)))


compiled = kg.compile(tape_of)
ROUTES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "execute": lambda x, w: joined(kg.execute([tape_of(x, w)])[0]),
    "compiled": lambda x, w: joined(compiled(x, w)),
}


@pytest.fixture(params=ROUTES)
def f(request: pytest.FixtureRequest) -> Callable[[Tensor, Tensor], Tensor]:
    return ROUTES[request.param]


def loss(f: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, w: (f(x, w) * C).sum()


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def test_grad_vjp_and_jvp(f: Any) -> None:
    x, w = X[0], W[0]
    close(grad(loss(f), argnums=(0, 1))(x, w), grad(loss(by_oracle), argnums=(0, 1))(x, w))
    close(vjp(f, x, w)[1](C), vjp(by_oracle, x, w)[1](C))
    close(jvp(f, (x, w), (x.sin(), w.cos())), jvp(by_oracle, (x, w), (x.sin(), w.cos())))


def test_jacobians(f: Any) -> None:
    expected = oracle_jacobian(by_oracle, (X[0], W[0]))
    close(jacrev(f, argnums=(0, 1))(X[0], W[0]), expected)
    close(jacfwd(f, argnums=(0, 1))(X[0], W[0]), expected)
    close(jacrev(f, argnums=1)(X, W[0]), oracle_jacobian(lambda w: by_oracle(X, w), W[0]))


def test_hessians(f: Any) -> None:
    expected = oracle_hessian(lambda w: loss(by_oracle)(X, w), W[0])
    close(hessian(loss(f), argnums=1)(X, W[0]), expected)
    close(jacrev(jacrev(loss(f), argnums=1), argnums=1)(X, W[0]), expected)
    close(jacrev(jacfwd(loss(f), argnums=1), argnums=1)(X, W[0]), expected)
    close(oracle_hessian(lambda w: loss(f)(X, w), W[0]), expected)


def test_gradients_of_a_jvp(f: Any) -> None:
    """Reverse over forward: by the tangent it is the gradient, by the inputs the gradient's derivative along it."""

    def along(route: Any) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda w, v: jvp(lambda w: loss(route)(X[0], w), (w,), (v,))[1]

    found = grad(along(f), argnums=(0, 1))(W[0], W[1])
    close(found, grad(along(by_oracle), argnums=(0, 1))(W[0], W[1]))
    close(found[1], grad(loss(f), argnums=1)(X[0], W[0]))


def test_vmap(f: Any) -> None:
    close(vmap(f, (0, None))(X, W[0]), by_oracle(X, W[0]))
    close(vmap(f, (None, 0))(X[0], W), torch.stack([by_oracle(X[0], w) for w in W]))
    close(vmap(f, (None, 0))(X, W), torch.stack([by_oracle(X, w) for w in W]))
    close(
        vmap(vmap(f, (None, 0)), (0, None))(X, W), torch.stack([torch.stack([by_oracle(x, w) for w in W]) for x in X])
    )
    close(vmap(f, (0, None), out_dims=1)(X, W[0]), by_oracle(X, W[0]).T)


def test_vmap_with_gradients(f: Any) -> None:
    each = [grad(loss(by_oracle), argnums=(0, 1))(x, W[0]) for x in X]
    expected = tuple(torch.stack(parts) for parts in zip(*each, strict=True))
    close(vmap(grad(loss(f), argnums=(0, 1)), (0, None))(X, W[0]), expected)
    close(grad(lambda w: (vmap(f, (0, None))(X, w) * C).sum())(W[0]), expected[1].sum(0))
    hessians = [oracle_hessian(lambda x: loss(by_oracle)(x, W[0]), x) for x in X]
    close(vmap(hessian(loss(f)), (0, None))(X, W[0]), torch.stack(hessians))


@pytest.mark.parametrize("count", [2, 256])
def test_vmap_folds_into_the_native_batch(f: Any, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run, run_vjp = operators.run_execute, operators.run_execute_vjp
    monkeypatch.setattr(operators, "run_execute", lambda *a: calls.append("execute") or run(*a))
    monkeypatch.setattr(operators, "run_execute_vjp", lambda *a: calls.append("vjp") or run_vjp(*a))
    vmap(grad(loss(f)), (0, None))(torch.randn(count, 3, dtype=F64), W[0])
    assert calls == ["execute", "vjp"]


def test_jacobians_are_one_native_sweep(f: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run_vjp, run_jvp = operators.run_execute_vjp, operators.run_execute_jvp
    monkeypatch.setattr(operators, "run_execute_vjp", lambda *a: calls.append("vjp") or run_vjp(*a))
    monkeypatch.setattr(operators, "run_execute_jvp", lambda *a: calls.append("jvp") or run_jvp(*a))
    jacrev(f, argnums=1)(X[0], W[0])
    jacfwd(f, argnums=1)(X[0], W[0])
    assert calls == ["vjp", "jvp"]


def test_rows_repeat_neither_inputs_nor_kets(f: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = []
    run_vjp, run_jvp = operators.run_execute_vjp, operators.run_execute_jvp

    def vjp_of(program: int, inputs: Any, ket: Tensor, g_real: Tensor, *others: Any) -> Any:
        batches.append((operators.batch_size(_C.find_program(program), inputs), len(ket), *g_real.shape[:-1]))
        return run_vjp(program, inputs, ket, g_real, *others)

    def jvp_of(program: int, inputs: Any, tangents: Any, *others: Any) -> Any:
        batches.append((operators.batch_size(_C.find_program(program), inputs), len(tangents[0])))
        return run_jvp(program, inputs, tangents, *others)

    monkeypatch.setattr(operators, "run_execute_vjp", vjp_of)
    monkeypatch.setattr(operators, "run_execute_jvp", jvp_of)
    rows = jacrev(f, argnums=1)(X[0], W[0]).shape[0]
    jacfwd(f, argnums=1)(X[0], W[0])
    assert batches == [(1, 1, rows, 1), (1, W[0].numel())]


def test_transforms_leave_nothing_behind_that_later_ones_meet(f: Any) -> None:
    """Constants that a tape has packed are kept: those made below two levels of transforms were wrapped by both."""
    batching._kept_numbers.cache_clear()
    by_weights = grad(loss(f), argnums=1)
    found = [jvp(lambda w: by_weights(X[0], w), (W[0],), (W[0].cos(),)) for _ in range(2)]
    close(found[1], found[0])
    close(f(X[0], W[0]), by_oracle(X[0], W[0]))


@pytest.mark.parametrize("is_compiled", [False, True])
def test_tangents_of_scalars_in_single_precision(is_compiled: bool) -> None:
    """torch.func's tangent of a number times a float32 scalar is float64."""
    run = kg.compile(rotated) if is_compiled else lambda angle: kg.execute([rotated(angle)])[0]
    x, one = torch.tensor(0.3), torch.tensor(1.0)
    value, along = jvp(lambda x: 0.7 * run(2.5 * x), (x,), (one,))
    first, second = jvp(grad(lambda x: 0.7 * run(2.5 * x)), (x,), (one,))
    expected = [0.7 * (2.5 * x).cos(), -0.7 * 2.5 * (2.5 * x).sin(), -0.7 * 2.5**2 * (2.5 * x).cos()]
    for found, wanted in zip((value, along, second), expected, strict=True):
        torch.testing.assert_close(found.float(), wanted)
    torch.testing.assert_close(first, expected[1])


def rotated(angle: Tensor) -> kg.Tape:
    return kg.Tape([kg.RY(angle, wires=0)], [kg.expval(kg.Z(0))])


def test_forward_mode_outside_of_functions(f: Any) -> None:
    with forward_ad.dual_level():
        result = f(forward_ad.make_dual(X[0], X[0].sin()), W[0])
        tangent = forward_ad.unpack_dual(result).tangent
    close(tangent, jvp(lambda x: by_oracle(x, W[0]), (X[0],), (X[0].sin(),))[1])


# --- what there is none of --------------------------------------------------------------------------------------------


def test_third_derivatives_are_refused(f: Any) -> None:
    w = W[0].clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(f)(X[0], w), w, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), w, create_graph=True)
    with pytest.raises(NotImplementedError, match="first and second derivatives"):
        torch.autograd.grad(second.sum(), w)
    by_weights = lambda w: loss(f)(X[0], w)  # noqa: E731
    for third in (
        jacrev(hessian(by_weights)),
        jacfwd(hessian(by_weights)),
        grad(lambda w: hessian(by_weights)(w).sum()),
    ):
        with pytest.raises(NotImplementedError, match="ketgrad has"):
            third(W[0])


def test_forward_over_forward_is_refused(f: Any) -> None:
    with pytest.raises(NotImplementedError, match="take one of the two in reverse mode"):
        jacfwd(jacfwd(lambda w: loss(f)(X[0], w)))(W[0])


def test_a_changed_parameter_is_noticed_by_the_second_derivative() -> None:
    x = torch.tensor(0.3, dtype=F64, requires_grad=True)
    (z,) = kg.execute([kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))])])
    with torch.no_grad():
        x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(z, x, create_graph=True)


@pytest.mark.parametrize("name", ["execute", "execute_vjp", "execute_and_vjp", "execute_jvp", "execute_vjp_jvp"])
def test_raw_operators_never_give_zeros_in_silence(name: str) -> None:
    x = torch.tensor([0.3], dtype=F64, requires_grad=True)
    tape = kg.Tape([kg.RX(x[0], wires=0)], [kg.expval(kg.Z(0))])
    from ketgrad.execution.batching import group_tapes

    (group,) = group_tapes([tape])
    program, inputs = group.binding.id, [t.detach().requires_grad_() for t in group.inputs]
    real, complex_, ket = torch.ops.ketgrad.execute(program, inputs, True)
    moved = [torch.ones_like(inputs[1]).requires_grad_()]
    none = torch.zeros(0, dtype=F64)
    calls: dict[str, Callable[[], Any]] = {
        "execute": lambda: torch.autograd.grad(real.sum(), inputs[1], create_graph=True)[0],
        "execute_vjp": lambda: torch.ops.ketgrad.execute_vjp(program, inputs, ket, real, complex_, [1])[0],
        "execute_and_vjp": lambda: torch.ops.ketgrad.execute_and_vjp(program, inputs, real, complex_, 0, [1])[2][0],
        "execute_jvp": lambda: torch.ops.ketgrad.execute_jvp(program, inputs, moved, [1])[0],
        "execute_vjp_jvp": lambda: torch.ops.ketgrad.execute_vjp_jvp(
            program, inputs, moved, [1], real, complex_, none, none.to(torch.complex128), [1]
        )[2][0],
    }
    found = calls[name]()
    assert found.requires_grad
    with pytest.raises(NotImplementedError, match="second derivatives"):
        torch.autograd.grad(found.sum(), inputs[1])
