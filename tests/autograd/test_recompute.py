"""The option `recompute`: final states that are computed again by the backward pass, or kept for it."""

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


def by_execute(x: Tensor, w: Tensor, recompute: bool | None) -> Tensor:
    return kg.execute([tape(x, w)], recompute=recompute)[0]  # type: ignore[no-any-return]


def by_products(x: Tensor, w: Tensor, recompute: bool | None) -> Tensor:
    one = tape(x, w)
    jpc = kg.AdjointProducts(recompute=recompute)
    kwargs = {"tapes": [one], "execute_fn": jpc.execute, "jpc": jpc}
    return kg.ExecuteTapes.apply(kwargs, *one.get_parameters())[0]  # type: ignore[no-any-return]


def by_compile(x: Tensor, w: Tensor, recompute: bool | None) -> Tensor:
    return kg.compile(tape, recompute=recompute)(x, w)  # type: ignore[no-any-return]


def by_decorator(x: Tensor, w: Tensor, recompute: bool | None) -> Tensor:
    return kg.compile(recompute=recompute)(tape)(x, w)  # type: ignore[no-any-return]


def by_layer(x: Tensor, w: Tensor, recompute: bool | None) -> Tensor:
    layer = kg.nn.CircuitLayer(tape, {"w": w.detach()}, recompute=recompute)
    layer.w.register_hook(lambda gradient: setattr(w, "grad", gradient))
    return layer(x)[:, 0]  # type: ignore[no-any-return]


def by_graph(x: Tensor, w: Tensor, recompute: bool | None) -> Tensor:
    compiled = kg.compile(tape, recompute=recompute)
    return torch.compile(compiled, fullgraph=True, backend="aot_eager")(x, w)  # type: ignore[no-any-return]


def kept(function: Callable[..., Any], *arguments: Any) -> tuple[int, Any]:
    """How many complex numbers the graph of a call keeps, and what the call returns."""
    numbers = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal numbers
        numbers += tensor.numel() if tensor.is_complex() else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        found = function(*arguments)
    return numbers, found


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
    return execute_program(group.binding.id, group.inputs, keep_ket=recompute is False)[0][:, 0]


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


@pytest.mark.parametrize(
    "build",
    [
        lambda given: kg.execute([], recompute=given),
        lambda given: kg.AdjointProducts(recompute=given),
        lambda given: kg.compile(tape, recompute=given),
        lambda given: kg.nn.CircuitLayer(tape, {"w": (WIRES, 3)}, recompute=given),
    ],
    ids=["execute", "AdjointProducts", "compile", "CircuitLayer"],
)
def test_other_values_are_refused(build: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="recompute must be True, False or None, not 'yes'"):
        build("yes")
