"""The boundary to torch: the contract of `ExecuteTapes`, its saved tensors, its refusals, other people's JPCs."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import cases
import ketgrad as kg
import oracle
from ketgrad.execution import batching, programs
from ketgrad.native import operators


def leaf(value: Any, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(value, dtype=dtype, requires_grad=True)


def apply(tapes: Any, jpc: Any = None, execute_fn: Any = None) -> Any:
    jpc = jpc or kg.AdjointProducts()
    parameters = [p for t in tapes for p in t.get_parameters()]
    kwargs = {"tapes": tapes, "execute_fn": execute_fn or jpc.execute, "jpc": jpc}
    return kg.ExecuteTapes.apply(kwargs, *parameters)


def rotation(x: Any, *measurements: kg.Measurement) -> kg.Tape:
    return kg.Tape([kg.RX(x, wires=0), kg.CNOT(wires=[0, 1])], measurements or [kg.expval(kg.Z(0))])


# --- the contract ----------------------------------------------------------------------------------------------------


def test_seed_usage() -> None:
    x, w = leaf(0.3), leaf(0.7)
    tape = kg.Tape(
        [kg.RX(x, wires=0), kg.RY(w, wires=1), kg.CNOT(wires=[0, 1])],
        [kg.expval(kg.Z(0) @ kg.Z(1)), kg.probs(wires=[0, 1])],
    )
    tapes = [tape, rotation(x)]
    parameters = [p for t in tapes for p in t.get_parameters()]
    jpc = kg.AdjointProducts()
    results = kg.ExecuteTapes.apply({"tapes": tapes, "execute_fn": jpc.execute, "jpc": jpc}, *parameters)
    assert [type(r) for r in results] == [tuple, Tensor]
    assert [r.shape for r in results[0]] == [(), (4,)]
    expected = oracle.execute(tapes)
    for a, b in zip(tree_leaves(results), tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, b)
    found = torch.autograd.grad(results[0][1][2] + results[1], [x, w])
    wanted = torch.autograd.grad(expected[0][1][2] + expected[1], [x, w])
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("batch", [None, 1, 3, 0])
def test_nesting_and_shapes(batch: int | None) -> None:
    x = torch.full((() if batch is None else (batch,)), 0.3, requires_grad=True)
    axis = () if batch is None else (batch,)
    measurements = [kg.expval(kg.Z(0)), kg.var(kg.X(1)), kg.probs(wires=1), kg.state(), kg.density_matrix(wires=[1, 0])]
    ((z, v, p, s, d),) = kg.execute([rotation(x, *measurements)])
    assert [r.shape for r in (z, v, p, s, d)] == [axis, axis, (*axis, 2), (*axis, 4), (*axis, 4, 4)]
    assert [r.dtype for r in (z, v, p)] == [torch.float32] * 3
    assert [r.dtype for r in (s, d)] == [torch.complex64] * 2
    (z.sum() + s.abs().sum()).backward()
    assert x.grad is not None
    assert x.grad.shape == axis


def test_parameters_that_do_not_fit_the_tapes_are_refused() -> None:
    tape = rotation(leaf(0.3))
    jpc = kg.AdjointProducts()
    kwargs = {"tapes": [tape], "execute_fn": jpc.execute, "jpc": jpc}
    with pytest.raises(ValueError, match="0 parameters for tapes with 1 trainable"):
        kg.ExecuteTapes.apply(kwargs)
    with pytest.raises(ValueError, match="lacks jpc"):
        kg.ExecuteTapes.apply({"tapes": [tape], "execute_fn": jpc.execute}, *tape.get_parameters())


def test_tapes_of_different_structure_in_one_batch() -> None:
    x = leaf([0.1, 0.2, 0.3])
    tapes = [
        rotation(x[0]),
        kg.Tape([kg.RY(x[1], wires="a")], [kg.probs(), kg.expval(kg.X("a"))]),
        rotation(x[2]),
        rotation(x),
    ]
    found, expected = kg.execute(tapes), oracle.execute(tapes)
    for a, b in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, b)
    (a,), (b,) = (torch.autograd.grad(cases.contract(r), x) for r in (found, expected))
    torch.testing.assert_close(a, b)


def test_tapes_of_equal_structure_take_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = operators.run_execute
    monkeypatch.setattr(operators, "run_execute", lambda *a: (calls.append(1), run(*a))[1])
    x, w, data = leaf(torch.linspace(0, 1, 12).tolist()), leaf(0.4), leaf([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    tapes = [
        kg.Tape([kg.RX(a, wires=0), kg.RY(w, wires=0), kg.RZ(0.1 * i, wires=0)], [kg.expval(kg.X(0))])
        for i, a in enumerate(x)
    ]
    tapes += [kg.Tape([kg.RX(d, wires=0), kg.RY(w, wires=0)], [kg.expval(kg.X(0))]) for d in data]
    found, expected = kg.execute(tapes), oracle.execute(tapes)
    assert len(calls) == 2
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    a, b = (torch.autograd.grad(sum((r**2).sum() for r in results), [x, w, data]) for results in (found, expected))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("value", [0.3, leaf(0.3), leaf([0.3, 0.4])], ids=["number", "tensor", "batch"])
def test_the_same_circuit_several_times(value: Any) -> None:
    tape = rotation(value, kg.expval(kg.Z(0)), kg.probs())
    found, expected = kg.execute([tape, tape, rotation(value, *tape.measurements)]), oracle.execute([tape] * 3)
    for a, b in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, b)
    if isinstance(value, Tensor):
        a, b = (torch.autograd.grad(cases.contract(results), value) for results in (found, expected))
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_scalars_of_many_tapes(dtype: torch.dtype) -> None:
    numbers = torch.linspace(-1, 1, 40, dtype=torch.float64).to(dtype)
    parameters = [number.clone().requires_grad_() for number in numbers]
    tapes = []
    for a, b in zip(parameters[::2], parameters[1::2], strict=True):
        tapes.append(kg.Tape([kg.RX(a, wires=0), kg.RY(0.3, wires=0), kg.RZ(b, wires=0)], [kg.expval(kg.X(0))]))
    loss = torch.stack(kg.execute(tapes)).square().sum()
    found = torch.autograd.grad(loss, parameters, retain_graph=True)
    stacked = numbers.reshape(20, 2).double().requires_grad_()
    gates = [kg.RX(stacked[:, 0], wires=0), kg.RY(0.3, wires=0), kg.RZ(stacked[:, 1], wires=0)]
    (expected,) = oracle.execute([kg.Tape(gates, [kg.expval(kg.X(0))])])
    (wanted,) = torch.autograd.grad(expected.square().sum(), stacked)
    assert all(gradient.dtype is dtype for gradient in found)
    tolerance = 1e-10 if dtype is torch.float64 else 2e-3
    torch.testing.assert_close(torch.stack(found).double(), wanted.flatten(), atol=tolerance, rtol=tolerance)
    some = torch.autograd.grad(loss, parameters[3:7])
    assert torch.equal(torch.stack(some), torch.stack(found[3:7]))


def test_a_lone_expectation_value_may_be_changed_in_place() -> None:
    for x in (leaf(0.3), leaf([0.3, 0.4])):
        (z,) = kg.execute([rotation(x)])
        z.mul_(2)
        torch.testing.assert_close(torch.autograd.grad(z.sum(), x)[0], -2 * torch.sin(x.detach()))


def test_the_program_of_a_structure_is_built_once() -> None:
    def build(value: float) -> kg.Tape:
        x = leaf([value, value + 1])
        return kg.Tape([kg.RX(x, wires="once"), kg.RY(value, wires="once")], [kg.expval(value * kg.Z("once"))])

    kg.execute([build(0.1)])
    before = programs.statistics.built
    for value in (0.2, 0.3):
        kg.execute([build(value), build(value + 0.5)])
    assert programs.statistics.built == before


def test_a_parameter_used_by_several_gates_sums_its_gradients() -> None:
    x = leaf(0.3)
    tape = kg.Tape(
        [kg.RX(x, wires=0), kg.RX(x, wires=0), kg.RZ(0.2, wires=0), kg.RX(2 * x, wires=0)], [kg.expval(kg.Z(0))]
    )
    found, expected = (
        torch.autograd.grad(run([tape])[0], x, retain_graph=True) for run in (kg.execute, oracle.execute)
    )
    torch.testing.assert_close(found, expected)


# --- saved tensors ---------------------------------------------------------------------------------------------------


def test_retain_graph_gives_the_same_gradient_twice() -> None:
    x = leaf([0.3, 0.4])
    (z,) = kg.execute([rotation(x)])
    first = torch.autograd.grad(z.sum(), x, retain_graph=True)
    assert torch.equal(first[0], torch.autograd.grad(z.sum(), x)[0])
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(z.sum(), x)


@pytest.mark.parametrize("native", [True, False], ids=["native", "foreign"])
@pytest.mark.parametrize("kind", ["angle", "batch", "matrix", "state", "coefficients"])
def test_a_parameter_changed_in_place_is_an_error_or_harmless(kind: str, native: bool) -> None:
    leaves = cases.Leaves()
    parameter = {
        "angle": lambda: leaf(0.3),
        "batch": lambda: leaf([0.3, 0.4]),
        "matrix": lambda: leaves.unitary(1),
        "state": lambda: leaves.state(1),
        "coefficients": lambda: leaf([0.5, 0.2]),
    }[kind]()
    gates: list[kg.Operation] = [kg.RY(0.4, wires=0)]
    observable: Any = kg.Z(0)
    if kind in ("angle", "batch"):
        gates.append(kg.RX(parameter, wires=0))
    elif kind == "matrix":
        gates.append(kg.QubitUnitary(parameter, wires=0))
    elif kind == "state":
        gates.insert(0, kg.StatePrep(parameter, wires=0))
    else:
        observable = kg.Hamiltonian(parameter, [kg.Z(0), kg.X(0)])
    tape = kg.Tape(gates, [kg.expval(observable)])
    own = kg.AdjointProducts()
    jpc = own if native else Wrapped(own)
    (z,) = apply([tape], jpc)
    (expected,) = torch.autograd.grad(oracle.execute([tape])[0].sum(), parameter)
    with torch.no_grad():
        parameter.mul_(0.7)
    if native and kind in ("angle", "batch"):  # copied when they were stacked
        (found,) = torch.autograd.grad(z.sum(), parameter)
        torch.testing.assert_close(found, expected)
    else:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(z.sum(), parameter)


def test_results_may_be_changed_in_place() -> None:
    x = leaf(0.3)
    ((z, p),) = kg.execute([rotation(x, kg.expval(kg.Z(0)), kg.probs())])
    (s,) = kg.execute([rotation(x, kg.state())])
    z *= 2
    p[0] = 0
    s += 1
    (z + p.sum() + s.real.sum()).backward()
    ((z, p),), (s,) = (
        oracle.execute([rotation(x, kg.expval(kg.Z(0)), kg.probs())]),
        oracle.execute([rotation(x, kg.state())]),
    )
    expected = torch.autograd.grad(2 * z + p[1:].sum() + s.real.sum(), x)
    torch.testing.assert_close(x.grad, expected[0])


def test_memory_goes_when_the_results_go() -> None:
    x = leaf(torch.zeros(64).tolist())
    (z,) = kg.execute([rotation(x)])
    held = weakref.ref(z.grad_fn)
    del z
    gc.collect()
    assert held() is None


def test_only_what_needs_a_gradient_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[Any] = []
    run = operators.run_execute_vjp
    monkeypatch.setattr(operators, "run_execute_vjp", lambda *a: (wanted.append(a[-1]), run(*a))[1])
    x, data = leaf(0.3), torch.tensor([0.1, 0.2], dtype=torch.float64)
    (z,), (unused,) = (
        kg.execute([kg.Tape([kg.RX(data, wires=0), kg.RY(x, wires=0)], [kg.expval(kg.Z(0))])]),
        kg.execute([rotation(x, kg.state())]),
    )
    z.sum().backward()
    assert [len(inputs) for inputs in wanted] == [1]
    assert unused.requires_grad
    without = kg.execute([kg.Tape([kg.RX(data, wires=0)], [kg.expval(kg.Z(0))])])[0]
    assert not without.requires_grad
    assert not kg.execute([rotation(x)], diff_method=None)[0].requires_grad


def test_parameters_that_apply_is_given_detached_get_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[Any] = []
    run = operators.run_execute_vjp
    monkeypatch.setattr(operators, "run_execute_vjp", lambda *a: (requested.append(a[-1]), run(*a))[1])
    x, unitary = leaf(0.3), torch.eye(2, dtype=torch.complex128, requires_grad=True)
    tape = kg.Tape([kg.QubitUnitary(unitary, wires=0), kg.RX(x, wires=0)], [kg.expval(kg.Z(0))])
    jpc = kg.AdjointProducts()
    (z,) = kg.ExecuteTapes.apply({"tapes": [tape], "execute_fn": jpc.execute, "jpc": jpc}, unitary.detach(), x)
    z.backward()
    assert [len(inputs) for inputs in requested] == [1]
    torch.testing.assert_close(x.grad, -torch.sin(x.detach()))
    assert unitary.grad is None


def test_a_group_whose_results_are_not_used_is_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = operators.run_execute_vjp
    monkeypatch.setattr(operators, "run_execute_vjp", lambda *a: (calls.append(1), run(*a))[1])
    x, w = leaf(0.3), leaf(0.4)
    used, _ = kg.execute([rotation(x), kg.Tape([kg.RY(w, wires=0)], [kg.probs()])])
    used.backward()
    assert calls == [1]
    assert w.grad is None


# --- second derivatives that are not there are refused, never zero ---------------------------------------------------


@pytest.mark.parametrize("nonlinear", [True, False])
def test_second_derivatives_of_a_foreign_jpc_are_refused(nonlinear: bool) -> None:
    x = leaf(0.3)
    (z,) = apply([rotation(x)], Wrapped(kg.AdjointProducts()))
    loss = z**2 if nonlinear else z
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    torch.testing.assert_close(gradient, -(2 * z.detach() if nonlinear else 1) * torch.sin(x.detach()))
    with pytest.raises(NotImplementedError, match="second derivatives"):
        torch.autograd.grad(gradient, x)


def test_second_derivatives_by_other_tensors_than_the_tapes_hold_are_refused() -> None:
    jpc = kg.AdjointProducts()
    x = leaf(0.3)
    tapes = [rotation(x.detach().clone().requires_grad_())]
    (z,) = kg.ExecuteTapes.apply({"tapes": tapes, "execute_fn": jpc.execute, "jpc": jpc}, x)
    (gradient,) = torch.autograd.grad(z, x, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        torch.autograd.grad(gradient, x)


def test_transforms_by_other_tensors_than_the_tapes_hold_are_refused() -> None:
    jpc = kg.AdjointProducts()
    tape = kg.Tape([kg.RX(torch.tensor(0.3), wires=0)], [kg.expval(kg.Z(0))], trainable_params=[0])

    def circuit(x: Tensor) -> Tensor:
        return kg.ExecuteTapes.apply({"tapes": [tape], "execute_fn": jpc.execute, "jpc": jpc}, x)[0]  # type: ignore[no-any-return]

    for transform in (torch.func.grad(circuit), torch.func.jacfwd(circuit)):
        with pytest.raises(NotImplementedError, match="tensors that the tapes hold"):
            transform(torch.tensor(0.3))


def test_transforms_of_a_foreign_jpc_are_refused() -> None:
    def circuit(x: Tensor) -> Tensor:
        tape = kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))], trainable_params=[0])
        return apply([tape], Wrapped(kg.AdjointProducts()))[0]  # type: ignore[no-any-return]

    x = torch.tensor(0.3)
    for transform in (torch.func.grad(circuit), torch.func.jacrev(circuit), torch.func.hessian(circuit)):
        with pytest.raises(NotImplementedError, match=r"torch\.func"):
            transform(x)
    with pytest.raises(NotImplementedError, match=r"torch\.func"):
        torch.func.vmap(circuit)(torch.rand(3))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        circuit(torch.autograd.forward_ad.make_dual(x, torch.ones(())))


def test_compiled_code_breaks_at_tapes_and_goes_on() -> None:
    def function(x: Tensor) -> Tensor:
        return 2 * kg.execute([kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))])])[0]

    x = leaf(0.3)
    z = torch.compile(function, backend="eager")(x)
    torch.testing.assert_close(z, 2 * torch.cos(x))
    torch.testing.assert_close(torch.autograd.grad(z, x)[0], -2 * torch.sin(x.detach()))


# --- other people's functions ----------------------------------------------------------------------------------------


class Wrapped:
    """A JPC that is not ours, in PennyLane's manner."""

    def __init__(self, jpc: kg.AdjointProducts) -> None:
        self.jpc = jpc

    def execute(self, tapes: Any) -> Any:
        return self.jpc.execute(tapes)

    def compute_vjp(self, tapes: Any, dy: Any) -> Any:
        return self.jpc.compute_vjp(tapes, dy)


@pytest.mark.parametrize("case", cases.CIRCUITS, ids=str)
def test_a_foreign_jpc_gives_the_same_gradients(case: cases.Case) -> None:
    tape = case.tape()
    parameters = tape.get_parameters()
    own = kg.AdjointProducts()
    found, expected = (apply([tape], jpc) for jpc in (Wrapped(own), own))
    if not parameters:
        return
    a, b = (
        torch.autograd.grad(
            cases.contract(results), parameters, allow_unused=True, retain_graph=True, materialize_grads=True
        )
        for results in (found, expected)
    )
    torch.testing.assert_close(a, b)


def test_a_plain_python_function_executes() -> None:
    x = leaf(0.3)
    tape = rotation(x)
    (z,) = apply([tape], execute_fn=lambda tapes: [float(torch.cos(t.get_parameters()[0])) for t in tapes])
    torch.testing.assert_close(z, torch.cos(x), check_dtype=False)
    torch.testing.assert_close(torch.autograd.grad(z, x)[0], -torch.sin(x.detach()))


def test_integer_results_are_not_differentiable() -> None:
    x = leaf(0.3)
    results = apply([rotation(x)], execute_fn=lambda tapes: [(torch.tensor([1, 0]), torch.tensor(0.5))])
    assert [r.requires_grad for r in results[0]] == [False, True]


def test_a_jpc_with_the_wrong_number_of_gradients_is_refused() -> None:
    class Short(Wrapped):
        def compute_vjp(self, tapes: Any, dy: Any) -> Any:
            return (torch.zeros(3),)

    (z,) = apply([rotation(leaf(0.3))], Short(kg.AdjointProducts()))
    with pytest.raises(ValueError, match="3 gradients for a tape with 1"):
        z.backward()


def test_a_constant_that_is_changed_in_place_is_seen_on_the_foreign_route() -> None:
    """The jpc reads every tensor of the tapes in the backward pass, not only the trainable ones."""
    constant, x = torch.tensor(0.7, dtype=torch.float64), leaf(0.3)
    (z,) = apply(
        [kg.Tape([kg.RX(constant, wires=0), kg.RY(x, wires=0)], [kg.expval(kg.X(0))])], Wrapped(kg.AdjointProducts())
    )
    constant.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.backward()


def test_a_subclass_of_our_jpc_is_called() -> None:
    calls = []

    class Counting(kg.AdjointProducts):
        def compute_vjp(self, tapes: Any, dy: Any) -> Any:
            calls.append(len(tapes))
            return super().compute_vjp(tapes, dy)

    x = leaf(0.3)
    (z,) = apply([rotation(x)], Counting())
    z.backward()
    assert calls == [1]
    torch.testing.assert_close(x.grad, -torch.sin(x.detach()))


def test_what_foreign_functions_return_is_checked() -> None:
    def short(tapes: Any) -> Any:
        return []

    with pytest.raises(ValueError, match="execute_fn returned 0 results for 1 tapes"):
        apply([rotation(leaf(0.3))], execute_fn=short)
    for gradients, message in [
        ((), "gradients of 0 tapes for 1"),
        ((torch.ones(1, 3),), r"shape \(3,\) for a parameter"),
    ]:
        jpc = Wrapped(kg.AdjointProducts())
        jpc.compute_vjp = lambda tapes, dy, found=gradients: found  # type: ignore[method-assign]
        (z,) = apply([rotation(leaf(0.3))], jpc)
        with pytest.raises(ValueError, match=message):
            z.backward()


def test_bad_arguments_of_apply() -> None:
    tape, jpc = rotation(leaf(0.3)), kg.AdjointProducts()
    good = {"tapes": [tape], "execute_fn": jpc.execute, "jpc": jpc}
    with pytest.raises(TypeError, match="is a dictionary"):
        kg.ExecuteTapes.apply(*tape.get_parameters())
    for change, message in [
        ({"jpc": None}, "jpc must have compute_vjp"),
        ({"execute_fn": 3}, "execute_fn must be callable"),
    ]:
        with pytest.raises(TypeError, match=message):
            kg.ExecuteTapes.apply({**good, **change}, *tape.get_parameters())


def test_cotangents_and_tangents_that_do_not_fit_are_refused() -> None:
    tape, jpc = rotation(leaf(0.3), kg.probs(), kg.expval(kg.Z(0))), kg.AdjointProducts()
    one = torch.ones(())
    for dy, message in [
        ([], "cotangents of 0 tapes for 1"),
        ([(torch.ones(4),)], "1 cotangents for the 2 measurements"),
        ([(torch.ones(2, 2), one)], r"has shape \(2, 2\), the result has \(4,\)"),
        ([(torch.ones(4), one + 1j)], "is complex, the result is real"),
    ]:
        with pytest.raises(ValueError, match=message):
            jpc.compute_vjp([tape], dy)
    with pytest.raises(ValueError, match=r"a tangent has shape \(4,\), parameter 0 has \(\)"):
        jpc.execute_and_compute_jvp([tape], [[torch.ones(4)]])
    with pytest.raises(ValueError, match="tangents of 2 tapes for 1"):
        jpc.execute_and_compute_jvp([tape], [[one], [one]])


def test_tangents_without_a_diff_method_are_refused() -> None:
    forward_ad = torch.autograd.forward_ad
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.tensor(0.3), torch.tensor(1.0))
        with pytest.raises(NotImplementedError, match="forward-mode"):
            kg.execute([rotation(dual)], diff_method=None)


def test_vectorised_cotangents_are_refused() -> None:
    (z,) = kg.execute([rotation(x := leaf(0.3), kg.probs())])
    with pytest.raises(NotImplementedError, match=r"torch\.func"):
        torch.autograd.grad(z, x, torch.eye(4, dtype=torch.float64), is_grads_batched=True)


def test_a_parameter_that_requires_grad_too_late_is_refused() -> None:
    late, x = torch.tensor(0.3), leaf(0.2, torch.float32)
    tape = kg.Tape([kg.RX(late, wires=0), kg.RY(x, wires=0)], [kg.expval(kg.Z(0))])
    late.requires_grad_()
    with pytest.raises(ValueError, match=r"parameter 0 .* requires grad since after"):
        kg.execute([tape])
    chosen = kg.Tape(tape.operations, tape.measurements, trainable_params=[1])
    kg.execute([chosen])[0].backward()
    assert late.grad is None


# --- dtype and device ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "real"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
    ids=str,
)
def test_precision_follows_the_parameters(dtype: torch.dtype, real: torch.dtype) -> None:
    x = leaf(0.5, dtype)
    ((z, s),) = kg.execute([rotation(x, kg.expval(0.5 * kg.Z(0)), kg.state())])
    assert (z.dtype, s.dtype) == (real, real.to_complex())
    z.backward()
    assert x.grad is not None
    assert x.grad.dtype is dtype
    torch.testing.assert_close(x.grad.double(), -0.5 * torch.sin(x.detach().double()), atol=5e-3, rtol=0)


def test_numbers_and_arrays_never_raise_the_precision() -> None:
    x = leaf(0.5, torch.float32)
    import numpy as np

    tape = kg.Tape(
        [
            kg.RX(x, wires=0),
            kg.RY(0.1, wires=0),
            kg.RY(np.float64(0.1), wires=0),
            kg.RZ(np.array([0.1, 0.2]), wires=0),
            kg.RX(torch.tensor(1), wires=0),
        ],
        [kg.expval(kg.Z(0))],
    )
    assert kg.execute([tape])[0].dtype is torch.float32
    assert kg.execute([kg.Tape([kg.RX(0.1, wires=0)], [kg.state()])])[0].dtype is torch.complex128


def test_mixed_precisions_need_a_dtype() -> None:
    x, w = leaf(0.5, torch.float32), leaf(0.5, torch.float64)
    tape = kg.Tape([kg.RX(x, wires=0), kg.RY(w, wires=0)], [kg.expval(kg.Z(0))])
    with pytest.raises(
        ValueError, match=r"torch.float32 and torch.float64.*dtype=torch.float32 or dtype=torch.float64"
    ):
        kg.execute([tape])
    (z,) = kg.execute([tape], dtype=torch.float32)
    assert z.dtype is torch.float32
    z.backward()
    assert x.grad is not None
    assert w.grad is not None
    assert (x.grad.dtype, w.grad.dtype) == (torch.float32, torch.float64)
    with pytest.raises(ValueError, match="dtype must be"):
        kg.execute([tape], dtype=torch.float16)


def test_mixed_devices_are_named() -> None:
    tape = kg.Tape(
        [kg.RX(torch.tensor(0.1), wires=0), kg.RY(torch.tensor(0.1, device="meta"), wires=0)], [kg.expval(kg.Z(0))]
    )
    with pytest.raises(ValueError, match="different devices, cpu and meta"):
        kg.execute([tape])


# --- bad input -------------------------------------------------------------------------------------------------------


def test_bad_arguments_of_execute() -> None:
    tape = rotation(0.1)
    with pytest.raises(TypeError, match=r"\[tape\]"):
        kg.execute(tape)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected tapes"):
        kg.execute([3])
    with pytest.raises(ValueError, match="diff_method"):
        kg.execute([tape], diff_method="parameter-shift")
    with pytest.raises(TypeError, match="sequence of tapes, not NoneType"):
        kg.execute(None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="generator must be"):
        kg.execute([tape], generator=3)  # type: ignore[arg-type]
    assert kg.execute([]) == ()


@pytest.mark.parametrize("num_wires", [300, 1100])
def test_a_state_beyond_all_numbers_has_an_error_too(num_wires: int) -> None:
    tape = kg.Tape([kg.RX(0.1, wires=w) for w in range(num_wires)], [kg.state()])
    with pytest.raises(MemoryError, match=rf"a state on {num_wires} wires needs \d\.\de\+\d+ bytes"):
        kg.execute([tape])


def test_a_result_that_does_not_fit_says_how_many_bytes() -> None:
    tape = kg.Tape([kg.RX(0.1, wires=0)], [kg.density_matrix(wires=range(24))])
    with pytest.raises(MemoryError, match=r"the result of density_matrix.* needs 2251799813685248 bytes"):
        kg.execute([tape])


@pytest.mark.parametrize("num_wires", [40, 60])
def test_a_state_that_does_not_fit_says_how_many_bytes(num_wires: int) -> None:
    tape = kg.Tape([kg.RX(torch.tensor(0.1), wires=w) for w in range(num_wires)], [kg.state()])
    with pytest.raises(MemoryError, match=rf"on {num_wires} wires needs \d{{13,}} bytes \(.*iB\).*available"):
        kg.execute([tape])


def test_a_jacobian_that_does_not_fit_says_how_many_bytes() -> None:
    x = torch.tensor(0.1, requires_grad=True)
    tape = kg.Tape([kg.RX(x, wires=w) for w in range(20)], [kg.probs(wires=range(20))])
    for product in (
        lambda: kg.AdjointProducts().compute_jacobian([tape]),
        lambda: kg.AdjointProducts().execute_and_compute_jvp([tape], [[torch.tensor(1.0)] * 20]),
    ):
        with pytest.raises(MemoryError, match=r"a Jacobian of 1048576 rows needs \d{13} bytes \(4\.0 TiB\)"):
            product()


# --- products with the Jacobian --------------------------------------------------------------------------------------


def gradient_of(number: Tensor, parameter: Tensor) -> Tensor:
    if not number.requires_grad:
        return torch.zeros_like(parameter)
    return torch.autograd.grad(number, parameter, retain_graph=True, allow_unused=True, materialize_grads=True)[0]


def is_small(case: cases.Case) -> bool:
    """Few real parameters and results, so that one backward pass per result is quick."""
    tape = case.tape()
    rows = (tape.batch_size or 1) * len(tape.measurements)
    return tape.batch_size != 0 and rows <= 30 and not any(p.is_complex() for p in tape.get_parameters())


@pytest.mark.parametrize("case", [case for case in cases.CIRCUITS if is_small(case)], ids=str)
def test_jacobian_is_what_autograd_gives_row_by_row(case: cases.Case) -> None:
    tape = case.tape()
    parameters = tape.get_parameters()
    (jacobian,) = kg.AdjointProducts().compute_jacobian([tape])
    if not parameters:
        assert not tree_leaves(jacobian)
        return
    (results,) = oracle.execute([tape])
    results = results if len(tape.measurements) > 1 else (results,)
    jacobian = jacobian if len(tape.measurements) > 1 else (jacobian,)
    for result, rows in zip(results, jacobian, strict=True):
        rows = rows if len(parameters) != 1 else (rows,)
        for parameter in {id(p): p for p in parameters}.values():
            # One derivative per occurrence of a parameter; autograd has their sum.
            found = sum(row for row, p in zip(rows, parameters, strict=True) if p is parameter)
            assert found.shape == (*result.shape, *parameter.shape)
            expected = torch.zeros_like(found)
            for index in range(result.numel()):
                parts = (
                    torch.view_as_real(result).reshape(-1, 2)[index]
                    if result.is_complex()
                    else result.reshape(-1)[index : index + 1]
                )
                gradient = [gradient_of(part, parameter) for part in parts]
                expected.view(result.numel(), -1)[index] = (
                    gradient[0] + 1j * gradient[1] if len(gradient) > 1 else gradient[0]
                ).reshape(-1)
            torch.testing.assert_close(found, expected)


def test_jvp_is_the_jacobian_along_the_tangents() -> None:
    x, w = leaf(0.3), leaf(0.7)
    tape = kg.Tape([kg.RX(x, wires=0), kg.RY(w, wires=0)], [kg.expval(kg.Z(0)), kg.state()])
    jpc = kg.AdjointProducts()
    (results,), (products,) = jpc.execute_and_compute_jvp([tape], [(1.5, -0.5)])
    (_, ((zx, zw), (sx, sw))) = jpc.execute_and_compute_jacobian([tape])[0], jpc.compute_jacobian([tape])[0]
    torch.testing.assert_close(products[0], 1.5 * zx - 0.5 * zw)
    torch.testing.assert_close(products[1], 1.5 * sx - 0.5 * sw)
    torch.testing.assert_close(results[0], jpc.execute([tape])[0][0])
    with pytest.raises(ValueError, match="1 tangents for 2"):
        jpc.execute_and_compute_jvp([tape], [(1.0,)])


def test_jvp_along_a_unitary_matrix() -> None:
    """The derivative along M + i eps H M, H Hermitian, against that of the angle of the rotation it is."""
    theta = leaf(0.4)
    y = torch.tensor([[0, -1j], [1j, 0]], dtype=torch.complex128)
    matrix = torch.matrix_exp(-0.5j * theta.detach() * y).requires_grad_()
    rotated, multiplied = (
        kg.Tape([kg.RX(0.3, wires=0), gate, kg.RX(0.7, wires=0)], [kg.expval(kg.Z(0)), kg.probs()])
        for gate in (kg.RY(theta, wires=0), kg.QubitUnitary(matrix, wires=0))
    )
    jpc = kg.AdjointProducts()
    _, (expected,) = jpc.execute_and_compute_jvp([rotated], [[torch.ones((), dtype=torch.float64)]])
    _, (found,) = jpc.execute_and_compute_jvp([multiplied], [[-0.5j * y @ matrix.detach()]])
    torch.testing.assert_close(found, expected)


def test_jacobians_of_complex_results_by_complex_parameters_are_refused() -> None:
    tape = kg.Tape([kg.QubitUnitary(cases.Leaves().unitary(1), wires=0)], [kg.state()])
    with pytest.raises(NotImplementedError, match="complex result by a complex parameter"):
        kg.AdjointProducts().compute_jacobian([tape])


def test_jacobians_and_results_take_one_forward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    run = operators.run_execute
    monkeypatch.setattr(operators, "run_execute", lambda *a: (calls.append(1), run(*a))[1])
    tape = rotation(leaf(0.3), kg.probs(), kg.expval(kg.Z(0)))
    (results,), _ = kg.AdjointProducts().execute_and_compute_jacobian([tape])
    assert calls == [1]
    torch.testing.assert_close(results, kg.AdjointProducts().execute([tape])[0])


def test_compute_vjp_takes_pennylanes_convention() -> None:
    """PennyLane's cotangent of a complex result is the conjugate of torch's."""
    x = leaf(0.3)
    tape = rotation(x, kg.state())
    (s,) = kg.execute([tape])
    c = torch.tensor([0.1 + 0.2j, 0.3, -0.4j, 0.5], dtype=s.dtype)
    (expected,) = torch.autograd.grad(s, x, c)
    ((found,),) = kg.AdjointProducts().compute_vjp([tape], [c.conj()])
    torch.testing.assert_close(found, expected)


def test_gradients_of_tapes_that_share_a_tensor_are_told_apart() -> None:
    x = leaf(0.3)
    found = kg.AdjointProducts().compute_vjp([rotation(x), rotation(x)], [1.0, 2.0])
    torch.testing.assert_close(
        torch.stack(found)[:, 0], -torch.tensor([1.0, 2.0]) * torch.sin(x.detach()).float(), check_dtype=False
    )


def test_a_tensor_that_is_detached_at_some_of_its_places() -> None:
    """Parameters may be given other than as the tapes hold them; the gradient belongs to the places that need it."""
    y, matrix = leaf(0.4), cases.Leaves().unitary(1)
    x = leaf(0.3)
    tapes = [kg.Tape([kg.RX(a, wires=0), kg.QubitUnitary(matrix, wires=0)], [kg.expval(kg.Z(0))]) for a in (x, y)]
    jpc = kg.AdjointProducts()
    given = [x.detach(), matrix.detach(), y, matrix]
    results = kg.ExecuteTapes.apply({"tapes": tapes, "execute_fn": jpc.execute, "jpc": jpc}, *given)
    found = torch.autograd.grad(results[0] + results[1], [y, matrix])
    torch.testing.assert_close(found, torch.autograd.grad(oracle.execute(tapes)[1], [y, matrix]))


def test_tapes_of_different_precision_in_one_batch() -> None:
    tapes = [rotation(leaf(0.3, dtype)) for dtype in (torch.float32, torch.float64)]
    assert [r.dtype for r in kg.execute(tapes)] == [torch.float32, torch.float64]


def test_groups_know_their_rows() -> None:
    tapes = [rotation(leaf([0.1, 0.2])), rotation(leaf([0.3]))]
    (group,) = batching.group_tapes(tapes)
    assert (group.rows, group.batch, group.positions) == ((2, 1), 3, (0, 1))
