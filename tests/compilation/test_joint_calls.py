"""Functions that return tapes of different structure: their native calls are one operator call.

No tolerance between that and a call for each structure: values and gradients are equal bit by bit. Beside the oracle,
1e-10 in double precision and 1e-4 in single, as in `comparisons`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import comparisons
import hooks
import ketgrad as kg
import oracle
from ketgrad.compilation.joint_call import JointCall, Unit
from ketgrad.compilation.lowering import lower
from ketgrad.compilation.native_call import NativeCall
from ketgrad.native.library import _C

Function = Callable[..., Any]
DTYPES = [torch.float32, torch.float64]


def angles(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def chain(weights: Any, wires: int) -> list[kg.Operation]:
    return [gate for w in range(wires) for gate in (kg.RY(weights[w], w), kg.CNOT([w, (w + 1) % wires]))]


def numbers(weights: Tensor) -> list[kg.Tape]:
    """Tapes of four structures, one of them twice; all results are numbers."""
    tapes = [kg.Tape(chain(weights[k:], k), [kg.expval(kg.Z(w)) for w in range(k)]) for k in (2, 3, 4)]
    tapes.append(kg.Tape(chain(weights[1:], 3), [kg.expval(kg.Z(w)) for w in range(3)]))
    return [*tapes, kg.Tape([kg.RX(2 * weights[0] + 1, 0)], [kg.expval(0.5 * kg.Z(0) + kg.Y(0))])]


def one_number_each(weights: Tensor) -> list[kg.Tape]:
    """As a sum of energies."""
    return [
        *[kg.Tape(chain(weights[k:], k), [kg.expval(kg.Z(0) @ kg.Z(1) + 0.3 * kg.X(0))]) for k in (2, 3, 4)],
        kg.Tape([kg.RX(0.3, 0), kg.RY(weights[0], 0)], [kg.expval(kg.Z(0))]),
    ]


def everything(weights: Tensor, x: Tensor, matrix: Tensor) -> list[kg.Tape]:
    """Batches and none, complex results and none, a matrix, arithmetic of torch, tapes of one structure."""
    computed = torch.sin(weights)
    return [
        kg.Tape([kg.RX(x[:, 0], 0), kg.RY(weights[0], 1), kg.CNOT([0, 1])], [kg.expval(kg.Z(1)), kg.probs(wires=0)]),
        kg.Tape([kg.QubitUnitary(matrix, [0]), *chain(weights, 3)], [kg.state(), kg.expval(kg.Z(2))]),
        kg.Tape([kg.QubitUnitary(matrix, [1]), kg.RX(computed[0], 0)], [kg.density_matrix(wires=0)]),
        kg.Tape([kg.RX(weights[1], 0)], [kg.probs()]),
        kg.Tape([kg.RX(weights[2], 0)], [kg.probs()]),
        kg.Tape([kg.RX(x[:, 1] * computed[1], 0), kg.RZ(x[:, 2], 0)], [kg.var(kg.X(0)), kg.state()]),
    ]


def arguments_of_everything(dtype: torch.dtype) -> tuple[Tensor, ...]:
    matrix = torch.linalg.qr(torch.complex(angles(2, 2), angles(2, 2, seed=1)))[0].to(dtype.to_complex())
    return angles(6, dtype=dtype), angles(3, 3, dtype=dtype, seed=2), matrix


def squared(results: Any) -> Tensor:
    return sum((each.abs() ** 2).sum() for each in tree_leaves(results))


FUNCTIONS: dict[str, tuple[Function, Callable[[torch.dtype], tuple[Tensor, ...]]]] = {
    "numbers": (numbers, lambda dtype: (angles(8, dtype=dtype),)),
    "one number each": (one_number_each, lambda dtype: (angles(8, dtype=dtype),)),
    "everything": (everything, arguments_of_everything),
}


@contextmanager
def calls_one_by_one() -> Iterator[None]:
    """For functions that are traced here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lower, "units_of", lambda calls, _: tuple(calls))
        yield


def units(compiled: Any) -> list[Unit]:
    """Of all plans traced so far."""
    return [unit for plan in compiled._plans.values() for unit in plan.units]


def by_autograd(compiled: Function, args: tuple[Tensor, ...]) -> list[Tensor]:
    leaves = [each.clone().requires_grad_() for each in args]
    results = compiled(*leaves)
    gradients = torch.autograd.grad(squared(results), leaves)
    return [*[each.detach() for each in tree_leaves(results)], *gradients]


def in_one_call(compiled: Any, args: tuple[Tensor, ...], loss: Function) -> list[Tensor]:
    value, gradients = compiled.value_and_grad(*args, argnums=tuple(range(len(args))), loss=loss)
    return [value, *gradients]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_equal_to_one_call_for_each_structure(name: str, dtype: torch.dtype, threads: int) -> None:
    function, arguments = FUNCTIONS[name]
    args = arguments(dtype)
    joint, single = kg.compile(function), kg.compile(function)
    losses = [squared, sum] if name == "one number each" else [squared]
    with hooks.threads(threads), hooks.thresholds(spread=threads > 1):
        found = [tree_leaves(joint(*args)), by_autograd(joint, args)]
        found += [in_one_call(joint, args, loss) for loss in losses]
        with calls_one_by_one():
            expected = [tree_leaves(single(*args)), by_autograd(single, args)]
            expected += [in_one_call(single, args, loss) for loss in losses]
    assert {type(unit) for unit in units(joint)} == {JointCall}
    assert {type(unit) for unit in units(single)} == {NativeCall}
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_against_the_oracle(name: str, dtype: torch.dtype) -> None:
    function, arguments = FUNCTIONS[name]
    tolerance = comparisons.SINGLE if dtype is torch.float32 else comparisons.DOUBLE
    args = arguments(dtype)
    exact = [each.to(torch.complex128 if each.is_complex() else torch.float64).requires_grad_() for each in args]
    results = oracle.execute(function(*exact))
    wanted = [*tree_leaves(results), *torch.autograd.grad(squared(results), exact)]
    compiled = kg.compile(function)
    for one, other in zip(by_autograd(compiled, args), wanted, strict=True):
        comparisons.assert_same(one, other, tolerance, name)
    value, *gradients = in_one_call(compiled, args, squared)
    comparisons.assert_same(value, squared(results), tolerance, name)
    for one, other in zip(gradients, wanted[-len(args) :], strict=True):
        comparisons.assert_same(one, other, tolerance, name)


def test_a_tensor_that_many_programs_read() -> None:
    """Of 20000 numbers, so that more gradients than wait at once are added up."""
    weights = angles(20000, dtype=torch.float32)

    def function(weights: Tensor) -> list[kg.Tape]:
        return [
            kg.Tape([*chain(weights[600 * k :], 4), *chain(weights[k:], 2 + k % 3), kg.RX(0.1, k % 4)], [z])
            for k in range(32)
            for z in [kg.expval(kg.Z(k % 4) @ kg.X((k // 4) % 4) if k % 4 != k // 4 % 4 else kg.Y(k % 4))]
        ]

    joint, single = kg.compile(function), kg.compile(function)
    found = in_one_call(joint, (weights,), sum)
    (joined,) = units(joint)
    assert isinstance(joined, JointCall)
    assert len(joined.calls) * weights.numel() > 2 * 2**18
    assert len(joined.views) == 1
    with calls_one_by_one():
        expected = in_one_call(single, (weights,), sum)
    assert_equal(found, expected)


def test_what_several_programs_read_is_an_input_once() -> None:
    compiled = kg.compile(one_number_each)
    compiled(angles(8))
    (joint,) = units(compiled)
    assert isinstance(joint, JointCall)
    assert len(joint.views) == 1
    assert len(joint.constants) == 2  # the weights, and 0.3, a coefficient of three structures and an angle of one


def test_the_same_tensor_as_two_arguments() -> None:
    """Each argument has its own gradient."""
    compiled = kg.compile(lambda a, b: [kg.Tape([kg.RX(a[0], 0)], [kg.expval(kg.Z(0))]), *one_number_each(b)])
    weights = angles(8)
    _, (by_a, by_b) = compiled.value_and_grad(weights, weights, argnums=(0, 1), loss=sum)
    _, (other_a, other_b) = compiled.value_and_grad(weights, weights.clone(), argnums=(0, 1), loss=sum)
    assert_equal([by_a, by_b], [other_a, other_b])
    leaf = weights.clone().requires_grad_()
    (total,) = torch.autograd.grad(sum(compiled(leaf, leaf)), leaf)
    torch.testing.assert_close(total, by_a + by_b)


def test_only_structures_that_were_used_run_back() -> None:
    compiled = kg.compile(numbers)
    weights = angles(8).requires_grad_()
    for used, sweeps in (((0,), 1), ((0, 4), 2), ((1, 3), 1)):
        results = compiled(weights)
        before = _C.sweep_count()
        (found,) = torch.autograd.grad(sum(squared(results[i]) for i in used), weights)
        assert _C.sweep_count() - before == sweeps
        expected = oracle.execute(numbers(weights))
        (wanted,) = torch.autograd.grad(sum(squared(expected[i]) for i in used), weights)
        comparisons.assert_same(found, wanted, comparisons.DOUBLE, "gradient")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_second_derivatives(name: str) -> None:
    function, arguments = FUNCTIONS[name]
    weights, *others = arguments(torch.float64)

    def product(run: Function) -> Tensor:
        leaf = weights.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(squared(run(leaf, *others)), leaf, create_graph=True)
        return torch.autograd.grad(gradient @ angles(len(leaf), seed=5), leaf)[0]

    wanted = product(lambda *args: oracle.execute(function(*args)))
    comparisons.assert_same(product(kg.compile(function)), wanted, comparisons.DOUBLE, "product with the Hessian")


@pytest.mark.parametrize("recompute", [True, False])
def test_backward_twice_and_changes_in_place(recompute: bool) -> None:
    compiled = kg.compile(numbers, recompute=recompute)
    weights = angles(8).requires_grad_()
    loss = squared(compiled(weights))
    first = torch.autograd.grad(loss, weights, retain_graph=True)
    assert_equal(list(first), list(torch.autograd.grad(loss, weights)))
    loss = squared(compiled(weights))
    with torch.no_grad():
        weights += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_results_may_be_changed_in_place() -> None:
    compiled = kg.compile(everything)
    args = arguments_of_everything(torch.float64)
    expected = [each.clone() for each in tree_leaves(compiled(*args))]
    results = tree_leaves(compiled(*args))
    for position, each in enumerate(results):
        each += 1
        for other, wanted in zip(results[position + 1 :], expected[position + 1 :], strict=True):
            assert torch.equal(other, wanted)


def test_a_batch_of_none() -> None:
    compiled = kg.compile(
        lambda x: [kg.Tape([kg.RX(x, 0)], [kg.expval(kg.Z(0))]), kg.Tape([kg.RY(x, 0)], [kg.state()])]
    )
    x = torch.zeros(0, dtype=torch.float64)
    z, state = compiled(x)
    assert z.shape == (0,)
    assert state.shape == (0, 2)
    value, gradient = compiled.value_and_grad(x, loss=squared)
    assert value == 0
    assert gradient.shape == (0,)


def test_other_precisions_are_calls_of_their_own() -> None:
    compiled = kg.compile(
        lambda a, b: [kg.Tape([kg.RX(a, 0)], [kg.expval(kg.Z(0))]), kg.Tape([kg.RY(b, 0)], [kg.expval(kg.X(0))])]
    )
    a, b = torch.tensor(0.3, requires_grad=True), torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    results = compiled(a, b)
    assert [type(unit) for unit in units(compiled)] == [NativeCall, NativeCall]
    assert [each.dtype for each in results] == DTYPES
    value, gradients = compiled.value_and_grad(a, b, argnums=(0, 1), loss=sum)
    torch.testing.assert_close(value, sum(results).detach())
    torch.testing.assert_close(gradients, torch.autograd.grad(sum(results), (a, b)))


def test_a_wrong_matrix_is_named_by_its_structure() -> None:
    def function(matrices: Tensor) -> list[kg.Tape]:
        return [
            kg.Tape([kg.X(0)] * k + [kg.QubitUnitary(matrices[k], wires=0)], [kg.expval(kg.Z(0))]) for k in range(4)
        ]

    compiled = kg.compile(function)
    matrices = torch.eye(2, dtype=torch.complex128).repeat(4, 1, 1)
    compiled(matrices)
    matrices[2] *= 3
    with pytest.raises(ValueError, match="program 2: the matrix of the QubitUnitary at place 2 must be unitary"):
        compiled(matrices)


def test_transforms_and_graphs() -> None:
    """They take the calls one by one, by operations that torch can transform."""
    compiled = kg.compile(one_number_each)
    weights = angles(8)
    loss = lambda w: squared(compiled(w))  # noqa: E731
    expected = torch.autograd.functional.jacobian(lambda w: squared(oracle.execute(one_number_each(w))), weights)
    comparisons.assert_same(torch.func.grad(loss)(weights), expected, comparisons.DOUBLE, "torch.func.grad")
    comparisons.assert_same(torch.func.jacfwd(loss)(weights), expected, comparisons.DOUBLE, "torch.func.jacfwd")
    leaf = weights.clone().requires_grad_()
    in_graph = torch.compile(loss, backend="aot_eager", fullgraph=True)
    comparisons.assert_same(torch.autograd.grad(in_graph(leaf), leaf)[0], expected, comparisons.DOUBLE, "torch.compile")
