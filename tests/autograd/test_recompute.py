"""The options `recompute` and `ket_dtype`: final states that are kept for the backward pass, or computed again."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import ketgrad as kg
from ketgrad.autograd import derivative_rule
from ketgrad.autograd.functions import execute_program
from ketgrad.execution.batching import group_tapes
from ketgrad.native import operators

WIRES, BATCH = 5, 6


def tape(x: Tensor, w: Tensor) -> kg.Tape:
    gates = [kg.RX(x[..., i], wires=i) for i in range(WIRES)]
    gates += [kg.Rot(w[i, 0], w[i, 1], w[i, 2], wires=i) for i in range(WIRES)]
    gates += [kg.CNOT(wires=[i, (i + 1) % WIRES]) for i in range(WIRES)]
    return kg.Tape(gates, [kg.expval(kg.X(0) @ kg.Z(2))])


KetDtype = torch.dtype | None


def by_execute(x: Tensor, w: Tensor, recompute: bool | None, ket_dtype: KetDtype = None) -> Tensor:
    return kg.execute([tape(x, w)], recompute=recompute, ket_dtype=ket_dtype)[0]  # type: ignore[no-any-return]


def by_products(x: Tensor, w: Tensor, recompute: bool | None, ket_dtype: KetDtype = None) -> Tensor:
    one = tape(x, w)
    jpc = kg.AdjointProducts(recompute=recompute, ket_dtype=ket_dtype)
    kwargs = {"tapes": [one], "execute_fn": jpc.execute, "jpc": jpc}
    return kg.ExecuteTapes.apply(kwargs, *one.get_parameters())[0]  # type: ignore[no-any-return]


def by_compile(x: Tensor, w: Tensor, recompute: bool | None, ket_dtype: KetDtype = None) -> Tensor:
    return kg.compile(tape, recompute=recompute, ket_dtype=ket_dtype)(x, w)  # type: ignore[no-any-return]


def by_decorator(x: Tensor, w: Tensor, recompute: bool | None, ket_dtype: KetDtype = None) -> Tensor:
    return kg.compile(recompute=recompute, ket_dtype=ket_dtype)(tape)(x, w)  # type: ignore[no-any-return]


def by_layer(x: Tensor, w: Tensor, recompute: bool | None, ket_dtype: KetDtype = None) -> Tensor:
    layer = kg.nn.CircuitLayer(tape, {"w": w.detach()}, recompute=recompute, ket_dtype=ket_dtype)
    layer.w.register_hook(lambda gradient: setattr(w, "grad", gradient))
    return layer(x)[:, 0]  # type: ignore[no-any-return]


def by_graph(x: Tensor, w: Tensor, recompute: bool | None, ket_dtype: KetDtype = None) -> Tensor:
    torch._dynamo.reset()  # it gives up on code that it has compiled eight times
    compiled = kg.compile(tape, recompute=recompute, ket_dtype=ket_dtype)
    return torch.compile(compiled, fullgraph=True, backend="aot_eager")(x, w)  # type: ignore[no-any-return]


def kept_bytes(function: Callable[..., Any], *arguments: Any) -> tuple[int, Any]:
    """The bytes of complex numbers that the graph of a call keeps, and what the call returns."""
    size = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal size
        size += tensor.nbytes if tensor.is_complex() else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        found = function(*arguments)
    return size, found


def kept(function: Callable[..., Any], x: Tensor, *arguments: Any) -> tuple[int, Any]:
    """How many complex numbers the graph of a call keeps in the precision of `x`, and what the call returns."""
    size, found = kept_bytes(function, x, *arguments)
    return size // (2 * x.itemsize), found


ROUTES = [by_execute, by_products, by_compile, by_decorator, by_layer, by_graph]


@pytest.mark.parametrize("route", ROUTES, ids=lambda f: f.__name__)
def test_states_are_kept_or_computed_again(route: Callable[..., Tensor]) -> None:
    generator = torch.Generator().manual_seed(4)
    leaves = [torch.rand(shape, dtype=torch.float64, generator=generator) for shape in ((BATCH, WIRES), (WIRES, 3))]
    found = {}
    for recompute, expected in ((True, 0), (False, BATCH << WIRES), (None, BATCH << WIRES)):
        x, w = (leaf.clone().requires_grad_() for leaf in leaves)
        numbers, result = kept(route, x, w, recompute)
        assert numbers == expected
        result.square().sum().backward()
        found[recompute] = (result.detach(), x.grad, w.grad)
    for other in (False, None):
        for one, two in zip(found[True], found[other], strict=True):
            assert one is not None
            assert two is not None
            torch.testing.assert_close(one, two, rtol=0, atol=1e-14)


def many(x: Tensor, w: Tensor, recompute: bool | None, ket_dtype: KetDtype = None) -> Tensor:
    """Two structures in one native call."""

    def both(x: Tensor, w: Tensor) -> list[kg.Tape]:
        one = tape(x, w)
        return [one, kg.Tape([*one.operations, kg.SX(0)], one.measurements)]

    first, second = kg.compile(both, recompute=recompute, ket_dtype=ket_dtype)(x, w)
    return first + second  # type: ignore[no-any-return]


@pytest.mark.parametrize("route", [*ROUTES, many], ids=lambda f: f.__name__)
@pytest.mark.parametrize("batch", [1, BATCH, 3 * BATCH])  # single states, and lanes that they fill in part
def test_states_are_kept_in_half_the_bytes(route: Callable[..., Tensor], batch: int) -> None:
    generator = torch.Generator().manual_seed(4)
    leaves = [torch.rand(shape, dtype=torch.float64, generator=generator) for shape in ((batch, WIRES), (WIRES, 3))]
    found = {}
    for ket_dtype in (None, torch.complex64):
        x, w = (leaf.clone().requires_grad_() for leaf in leaves)
        size, result = kept_bytes(route, x, w, False, ket_dtype)
        assert size == (16 if ket_dtype is None else 8) * (2 if route is many else 1) * batch << WIRES
        result.sum().backward()
        found[ket_dtype] = (result.detach(), x.grad, w.grad)
    exact, rounded = found.values()
    assert torch.equal(exact[0], rounded[0])
    bound = 2**-23 * (2 if route is many else 1)  # of a derivative by one angle, the observables being Pauli words
    assert 1e-12 < (exact[1] - rounded[1]).abs().max() < bound
    assert 1e-12 < (exact[2] - rounded[2]).abs().max() < batch * bound


@pytest.mark.parametrize("wires", [2, 12, 18])
def test_large_and_small_states_in_half_the_bytes(wires: int) -> None:
    x = torch.rand(wires, dtype=torch.float64, requires_grad=True)
    layer = [kg.RY(x[w], w) for w in range(wires)]
    ring = [kg.IsingXX(0.3, [w, (w + 1) % wires]) for w in range(wires)]
    one = kg.Tape([*layer, *ring, *layer, *ring], [kg.expval(kg.Z(0))])
    gradients = []
    for ket_dtype in (None, torch.complex64):
        (result,) = kg.execute([one], recompute=False, ket_dtype=ket_dtype)
        gradients.append(torch.autograd.grad(result, x)[0])
    torch.testing.assert_close(*gradients, rtol=0, atol=2**-22)
    assert not torch.equal(*gradients)


def test_jacobians_of_rounded_states() -> None:
    """Rows share one ket."""
    w = torch.rand(WIRES, 3, dtype=torch.float64)
    x = torch.rand(WIRES, dtype=torch.float64)

    def function(w: Tensor) -> kg.Tape:
        return kg.Tape(tape(x, w).operations, [kg.probs(range(3))])

    value, jacobian = kg.compile(function, ket_dtype=torch.complex64).value_and_jacobian(w)
    exact = kg.compile(function).value_and_jacobian(w)
    assert torch.equal(value, exact[0])
    torch.testing.assert_close(jacobian, exact[1], rtol=0, atol=2**-23)
    assert not torch.equal(jacobian, exact[1])


def test_single_precision_is_kept_as_it_is() -> None:
    x, w = torch.rand(BATCH, WIRES, requires_grad=True), torch.rand(WIRES, 3)
    assert kept_bytes(by_execute, x, w, False, torch.complex64)[0] == 8 * BATCH << WIRES


def test_half_the_bytes_count_as_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derivative_rule, "_SMALL", 8 * BATCH << WIRES)
    monkeypatch.setattr(derivative_rule, "_KET_SHARE", 0)
    x, w = (torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in ((BATCH, WIRES), (WIRES, 3)))
    assert kept_bytes(by_execute, x, w, None, None)[0] == 0
    assert kept_bytes(by_execute, x, w, None, torch.complex64)[0] == 8 * BATCH << WIRES


def test_large_states_are_kept_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derivative_rule, "_SMALL", 0)
    monkeypatch.setattr(derivative_rule, "_KET_SHARE", 0)
    x, w = torch.rand(BATCH, WIRES, requires_grad=True), torch.rand(WIRES, 3)
    assert kept(by_execute, x, w, None)[0] == 0
    assert kept(by_execute, x, w, False)[0] == BATCH << WIRES
    # A graph is made once for all sizes of a batch, whatever memory is free then.
    assert kept(by_graph, x, w, None)[0] == BATCH << WIRES


def by_id(x: Tensor, w: Tensor, recompute: bool | None) -> Tensor:
    (group,) = group_tapes([tape(x, w)])
    keep = operators.NO_KET if recompute else operators.EXACT_KET
    return execute_program(group.binding.id, group.inputs, keep)[0][:, 0]


@pytest.mark.parametrize("route", [by_execute, by_products, by_compile, by_id], ids=lambda f: f.__name__)
@pytest.mark.parametrize("is_mapped", [False, True])
def test_states_are_not_kept_where_nothing_is_differentiated(
    route: Callable[..., Tensor], is_mapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    run = operators.run_execute

    def watched(*arguments: Any) -> Any:
        found = run(*arguments)
        sizes.append(found[2].numel())
        return found

    monkeypatch.setattr(operators, "run_execute", watched)
    x, w = torch.rand(BATCH, WIRES), torch.rand(WIRES, 3)
    function = torch.func.vmap(lambda x: route(x[None], w, False)) if is_mapped else lambda x: route(x, w, False)
    function(x)
    assert sizes == [0]


def test_second_derivatives_come_out_alike() -> None:
    x, w = torch.rand(2, WIRES, dtype=torch.float64), torch.rand(WIRES, 3, dtype=torch.float64)
    v = torch.rand(WIRES, 3, dtype=torch.float64)
    products = []
    for recompute in (True, False):
        leaf = w.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(by_compile(x, leaf, recompute).sum(), leaf, create_graph=True)
        products.append(torch.autograd.grad(gradient, leaf, v)[0])
    torch.testing.assert_close(*products, rtol=0, atol=1e-14)


def test_copies_keep_the_option() -> None:
    compiled = kg.compile(tape, recompute=True)
    assert pickle.loads(pickle.dumps(compiled)).recompute is True
    assert kg.compile(compiled).recompute is True
    assert kg.compile(compiled, recompute=False).recompute is False
    layer = kg.nn.CircuitLayer(tape, {"w": (WIRES, 3)}, recompute=True)
    assert copy.deepcopy(layer).circuit.recompute is True
    rounding = kg.compile(tape, ket_dtype=torch.complex64)
    products = kg.AdjointProducts(recompute=False, ket_dtype=torch.complex64)
    assert products.recompute is False
    for other in (pickle.loads(pickle.dumps(rounding)), kg.compile(rounding), products):
        assert other.ket_dtype is torch.complex64


TAKERS: dict[str, Callable[..., Any]] = {
    "execute": lambda **options: kg.execute([], **options),
    "AdjointProducts": kg.AdjointProducts,
    "compile": lambda **options: kg.compile(tape, **options),
    "CircuitLayer": lambda **options: kg.nn.CircuitLayer(tape, {"w": (WIRES, 3)}, **options),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_other_values_are_refused(taker: str) -> None:
    with pytest.raises(TypeError, match="recompute must be True, False or None, not 'yes'"):
        TAKERS[taker](recompute="yes")


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize("given", [torch.float32, torch.complex128, "complex64"])
def test_other_dtypes_of_kets_are_refused(taker: str, given: Any) -> None:
    with pytest.raises(ValueError, match=r"ket_dtype must be torch.complex64 or None \(that of the circuit\), not "):
        TAKERS[taker](ket_dtype=given)


def test_raw_operators_take_both() -> None:
    (group,) = group_tapes([tape(torch.rand(WIRES, dtype=torch.float64), torch.rand(WIRES, 3, dtype=torch.float64))])
    with pytest.raises(ValueError, match="keep_ket is 0, 1 or 2"):
        torch.ops.ketgrad.execute(group.binding.id, group.inputs, 3)
    real, complex_, ket = torch.ops.ketgrad.execute(group.binding.id, group.inputs, 2)
    assert ket.dtype is torch.complex64
    assert torch.equal(ket, torch.ops.ketgrad.execute(group.binding.id, group.inputs, 1)[2].to(torch.complex64))
    cotangents = torch.ones_like(real), torch.zeros_like(complex_)
    with pytest.raises(ValueError, match="the ket has another dtype"):
        torch.ops.ketgrad.execute_vjp(group.binding.id, group.inputs, ket.real.contiguous(), *cotangents, [0])
