"""`kg.compile` against `kg.execute` of the same function: values, gradients, and when it traces.

Tolerances. Both compute the same in the same precision; slots are evaluated in double where torch rounds each step:
1e-12 absolute in float64, 1e-5 in float32.
"""

from __future__ import annotations

import collections
import copy
import dataclasses
import functools
import gc
import math
import pickle
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import cases
import ketgrad as kg
from ketgrad.native import operators
from ketgrad.native.library import _C

DOUBLE = 1e-12
SINGLE = 1e-5


def leaf(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def executed(function: Callable[..., Any], *args: Any, dtype: torch.dtype | None = None, **kwargs: Any) -> Any:
    """What `kg.execute` gives."""
    tapes = function(*args, **kwargs)
    if isinstance(tapes, kg.Tape):
        return kg.execute([tapes], dtype=dtype)[0]
    return kg.execute(tapes, dtype=dtype)


def assert_close(found: Any, expected: Any, tolerance: float) -> None:
    if isinstance(expected, tuple):
        assert isinstance(found, tuple)
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_close(one, other, tolerance)
        return
    assert found.shape == expected.shape
    assert found.dtype is expected.dtype
    assert found.device == expected.device
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def gradients(results: Any, tensors: list[Tensor]) -> list[Tensor]:
    loss = cases.contract(results)
    if not loss.requires_grad or not tensors:
        return [torch.zeros_like(t) for t in tensors]
    return list(torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True, retain_graph=True))


def agree(
    compiled: Callable[..., Any],
    function: Callable[..., Any],
    *args: Any,
    others: tuple[Tensor, ...] = (),
    **kwargs: Any,
) -> Any:
    """Compare values and gradients, by the arguments and by other tensors."""
    tensors = [t for t in (*tree_leaves((args, kwargs)), *others) if isinstance(t, Tensor) and t.requires_grad]
    found, expected = compiled(*args, **kwargs), executed(function, *args, **kwargs)
    single = any(t.dtype in (torch.float32, torch.complex64) for t in tree_leaves(expected))
    tolerance = SINGLE if single else DOUBLE
    assert_close(found, expected, tolerance)
    for one, other in zip(gradients(found, tensors), gradients(expected, tensors), strict=True):
        assert_close(one, other, 10 * tolerance)
    return found


def compare(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Compile a function and compare it twice: as it is traced, and by its trace."""
    compiled = kg.compile(function)
    agree(compiled, function, *args, **kwargs)
    agree(compiled, function, *args, **kwargs)
    assert compiled.traces == 1
    return compiled


# --- every case -------------------------------------------------------------------------------------------------------


def by_slots(tape: kg.Tape) -> tuple[Callable[..., kg.Tape], list[Tensor]]:
    """A function in which scalars are twice a column minus one: of a vector, or of a matrix with a batch axis."""
    scalars = [i for i, p in enumerate(tape.parameters) if isinstance(p, Tensor) and p.dim() == 0]
    batches = [
        i for i, p in enumerate(tape.parameters) if isinstance(p, Tensor) and p.dim() == 1 and _is_scalar(tape, i)
    ]
    chosen = {*scalars, *batches}
    rest = [i for i, p in enumerate(tape.parameters) if isinstance(p, Tensor) and i not in chosen]
    values = [(tape.parameters[i].detach() + 1) / 2 for i in [*scalars, *batches]]  # type: ignore[union-attr, operator]
    tensors = [tape.parameters[i] for i in rest]
    if scalars:
        tensors.append(torch.stack(values[: len(scalars)]).requires_grad_())
    if batches:
        tensors.append(torch.stack(values[len(scalars) :], -1).requires_grad_())

    def function(*given: Tensor) -> kg.Tape:
        parameters: list[Any] = list(tape.parameters)
        for i, tensor in zip(rest, given, strict=False):
            parameters[i] = tensor
        left = iter(given[len(rest) :])
        if scalars:
            for i, element in zip(scalars, next(left), strict=True):
                parameters[i] = 2 * element - 1
        if batches:
            x = next(left)
            for column, i in enumerate(batches):
                parameters[i] = -(1 - x[:, column] * 2)
        return cases.substituted(tape, parameters)

    return function, tensors  # type: ignore[return-value]


def _is_scalar(tape: kg.Tape, index: int) -> bool:
    return cases.parameter_kinds(tape)[index] in ("angle", "coefficient")


@pytest.mark.slow
@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_case_by_arguments(case: cases.Case) -> None:
    function, tensors = cases.as_function(case.tape())
    compare(function, *tensors)


@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_case_by_slots(case: cases.Case) -> None:
    tape = case.tape()
    if tape.has_default_trainable:
        function, tensors = by_slots(tape)
        compare(function, *tensors)


@pytest.mark.parametrize("case", [*cases.CIRCUITS, *cases.WORKLOAD_CASES], ids=str)
def test_case_in_single(case: cases.Case) -> None:
    function, tensors = cases.as_function(case.tape(dtype=torch.float32))
    compare(function, *tensors)


WORKLOADS = [
    cases.qml(4, 2, 5),
    cases.reuploading(3, 2, 4),
    cases.vqe(6, 2),
    cases.qaoa(5, 2),
    cases.strongly_entangling(4, 3),
    cases.hardware_efficient(5, 2),
]


@pytest.mark.parametrize("workload", WORKLOADS, ids=str)
def test_workload(workload: cases.Workload) -> None:
    compare(workload.build, *workload.inputs)


# --- where slots point ------------------------------------------------------------------------------------------------


def inputs_of(compiled: Any) -> list[tuple[int, ...]]:
    """The shapes of the program's inputs that are tensors of the call."""
    (plan,) = set(compiled._plans.values())
    (call,) = plan.calls
    return [call.views[k].shape for k in range(len(call.views))]


def has_arithmetic(compiled: Any) -> bool:
    """Whether a call computes anything but the program."""
    return any(len(plan.source.splitlines()) > 2 for plan in compiled._plans.values())


AFFINE: dict[str, Callable[[Tensor, Tensor], tuple[Any, Any]]] = {
    "slices": lambda x, w: (2 * x[..., 0] + 1, w[1, 2]),
    "negated": lambda x, w: (-x[:, 1], 1 - w[0, 0]),
    "divided": lambda x, w: (x[:, 1] / 2 - 0.5, w[0][1] * math.pi),
    "unbound": lambda x, w: (x.unbind(1)[2], w.reshape(-1)[3]),
    "transposed": lambda x, w: (x.T[1], w.mT[2, 0] + np.float64(0.1)),
    "flattened": lambda x, w: (x.unsqueeze(1).squeeze(1).select(1, 0), w.flatten()[-1]),
    "permuted": lambda x, w: (x.permute(1, 0)[2], w.view(3, 2)[1, 1]),
    "stepped": lambda x, w: (x[:, ::2][:, 1].sub(3), w[:, 1:].clone()[1, 0].mul(2).neg()),
    "chunked": lambda x, w: (torch.chunk(x, 3, dim=-1)[1].squeeze(-1), w.split(1)[1][0, 0]),
    "reversed": lambda x, w: (x.flip(1)[:, 0], torch.add(w[0, 0], 2)),
    "expanded": lambda x, w: (x[:, 0], w[0].expand(4, 3)[2, 1]),
    "listed": lambda x, w: (x[:, [2, 0]][:, 0], list(w)[1][0]),
}


@pytest.mark.parametrize("name", AFFINE)
def test_affine_scalars_are_read_from_the_arguments(name: str) -> None:
    def function(x: Tensor, w: Tensor) -> kg.Tape:
        a, b = AFFINE[name](x, w)
        gates = [
            kg.RX(a, wires=0),
            kg.RY(b, wires=1),
            kg.CNOT(wires=[0, 1]),
            kg.RZ(b, wires=0),
            kg.CRY(a, wires=[1, 0]),
        ]
        return kg.Tape(gates, [kg.expval(kg.Z(0) @ kg.X(1)), kg.expval(kg.Y(1))])

    compiled = compare(function, leaf(4, 3), leaf(2, 3, seed=1))
    assert not has_arithmetic(compiled)
    # Another size of the batch, the same trace.
    agree(compiled, function, leaf(7, 3, seed=2), leaf(2, 3, seed=3))
    agree(compiled, function, leaf(2, 3, seed=2), leaf(2, 3, seed=3))
    assert compiled.traces == 1


MANY_OUTPUTS: dict[str, Callable[[Tensor], Any]] = {
    "unbind": lambda w: w.unbind(),
    "split": lambda w: [part[0] for part in w.split(1)],
    "chunk": lambda w: [part[0] for part in w.chunk(len(w))],
    "indices": lambda w: [w[i] for i in range(len(w))],
}


@pytest.mark.parametrize("name", MANY_OUTPUTS)
def test_tracing_is_linear_in_the_number_of_scalars(name: str) -> None:
    def function(w: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(angle, wires=0) for angle in MANY_OUTPUTS[name](w)], [kg.expval(kg.Z(0))])

    def calls(size: int) -> int:
        """The calls of torch in a first call, with those that they make."""
        compiled = kg.compile(function)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            compiled(torch.rand(size))
        return len(profile.events())

    assert calls(200) < 2.2 * calls(100)


CLASSICAL: dict[str, Callable[[Tensor, Tensor], tuple[Any, Any]]] = {
    "products": lambda x, w: (w[0, 0] * x[:, 0], w[0, 1] * w[1, 1]),
    "sums": lambda x, w: (w[0, 0] + 2 * x[:, 1], w.sum()),
    "functions": lambda x, w: (torch.sin(x[:, 0]), torch.atan(w[1, 0])),
    "matrices": lambda x, w: ((x @ w.T)[:, 1], (w @ w.T)[0, 1]),
    "reciprocals": lambda x, w: (1 / (x[:, 2] ** 2 + 1), 2 / (w[0, 0].exp() + 1)),
    "sorted": lambda x, w: (x.sort(dim=1).values[:, 0], w.max(dim=1).values[1]),
    "in place": lambda x, w: (x.clone().mul_(2)[:, 0], torch.zeros(3, dtype=w.dtype).add_(w[0])[1]),
    "assigned": lambda x, w: (x[:, 0], assigned(w)[1]),
    "chosen": lambda x, w: (torch.where(x[:, 0] > 0, x[:, 0], x[:, 1]), w.clamp(min=0)[0, 1]),
    "detached": lambda x, w: (x.detach()[:, 0] * 2, w.detach()[0, 0] + w[0, 1]),
    "without gradient": lambda x, w: (x[:, 0], without_gradient(w)),
    "batch of a matrix": lambda x, w: ((x[:, :, None] * w).sum((1, 2)) if w.shape[1] == 1 else x.mean(1), w.mean()),
    "stacked": lambda x, w: (torch.stack([x[:, 0], x[:, 1]])[1], torch.cat([w[0], w[1]])[4]),
}


def assigned(w: Tensor) -> Tensor:
    found = torch.zeros(2, dtype=w.dtype)
    view = found[1:]
    found[0] = w[0, 0]
    view[0] = w[0, 1]
    return found


def without_gradient(w: Tensor) -> Tensor:
    with torch.no_grad():
        frozen = w[0, 0] * 2
    return frozen * w[1, 1]


@pytest.mark.parametrize("name", CLASSICAL)
def test_other_arithmetic_is_repeated(name: str) -> None:
    def function(x: Tensor, w: Tensor) -> kg.Tape:
        a, b = CLASSICAL[name](x, w)
        gates = [kg.RX(a, wires=0), kg.RY(b, wires=1), kg.CNOT(wires=[0, 1]), kg.RZ(x[:, 2], wires=0)]
        return kg.Tape([*gates, kg.RY(w[1, 2], wires=0)], [kg.expval(kg.Z(0) @ kg.X(1))])

    compiled = compare(function, leaf(4, 3), leaf(2, 3, seed=1))
    assert has_arithmetic(compiled)
    agree(compiled, function, leaf(6, 3, seed=2), leaf(2, 3, seed=3))
    if name != "batch of a matrix":
        assert compiled.traces == 1


ALIKE: dict[str, Callable[[Tensor, Tensor, int], Any]] = {
    "products": lambda x, w, i: w[i, 0] * x[:, i],
    "products of scaled data": lambda x, w, i: (math.pi - x[:, i]) * (math.pi - x[:, (i + 1) % 4]),
    "scales and shifts": lambda x, w, i: (2 * w[i, 1] - i) * x[:, 0] + w[0, 0],
    "functions": lambda x, w, i: torch.atan(x[:, i]) + torch.sin(w[i, 0]) ** 2 / (i // 2 + 1),
    "of scalars": lambda x, w, i: w[i, 0] * w[i, 1] - w[0, 0] / 3,
    "of computed scalars": lambda x, w, i: w.sum() * x[:, i] + x.mean(1) * w[i].prod(),
    "the same twice": lambda x, w, i: w[i // 2, 0] * x[:, i // 2],
    "squares of squares": lambda x, w, i: squared(w[i, 0] * x[:, i], 6),
    "a long sum": lambda x, w, i: sum([w[i, 0] * x[:, k % 4] for k in range(60)]) / 60,
    "reversed": lambda x, w, i: 1 - w[i, 0] * (1 / (x[:, i] ** 2 + 1)),
    "bounded": lambda x, w, i: torch.clamp(w[i, 0] * x[:, i], min=-0.5, max=0.5),
}


def squared(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = torch.tanh(x * x + 1)
    return x


@pytest.mark.parametrize("name", ALIKE)
def test_scalars_that_are_computed_alike_are_computed_together(name: str) -> None:
    def function(x: Tensor, w: Tensor) -> kg.Tape:
        gates = [kg.RX(ALIKE[name](x, w, i), wires=i) for i in range(4)]
        gates += [kg.CRY(ALIKE[name](x, w, i), wires=[i, (i + 1) % 4]) for i in range(4)]
        return kg.Tape(gates, [kg.expval(kg.Z(i)) for i in range(4)])

    compiled = compare(function, leaf(5, 4), leaf(4, 2, seed=1))
    agree(compiled, function, leaf(7, 4, seed=2), leaf(4, 2, seed=3))
    assert compiled.traces == (2 if name == "of scalars" else 1)  # there the data are not used
    if name not in ("of computed scalars", "a long sum", "squares of squares"):
        assert len(compiled._plans.values()[-1].source.splitlines()) <= 4


def test_one_tensor_is_read_as_a_batch_and_as_scalars() -> None:
    def function(x: Tensor) -> kg.Tape:
        return kg.Tape(
            [kg.RX(x[:, 0], wires=0), kg.RY(x[1, 1], wires=0), kg.RZ(x[:, 1], wires=0)], [kg.expval(kg.X(0))]
        )

    compiled = compare(function, leaf(3, 2))
    agree(compiled, function, leaf(5, 2))


def test_batch_axis_that_is_not_the_first() -> None:
    def function(x: Tensor) -> kg.Tape:
        gates = [kg.RX(x[0], wires=0), kg.RY(x[1], wires=1), kg.CNOT(wires=[0, 1]), kg.RX(x[1], wires=0)]
        return kg.Tape(gates, [kg.expval(kg.Y(1)), kg.probs(wires=0)])

    compiled = compare(function, leaf(2, 5))
    agree(compiled, function, leaf(2, 2))
    agree(compiled, function, leaf(2, 4))


def test_vectors_of_coefficients() -> None:
    def function(c: Tensor, d: Tensor, w: Tensor) -> kg.Tape:
        one = kg.Hamiltonian(2 * c[1:], [kg.Z(0), kg.X(1)])
        other = kg.Hamiltonian(d[:, ::2], [kg.X(0) @ kg.Y(1), kg.Z(1)])
        third = kg.Hamiltonian(c.sin(), [kg.Z(0), kg.Y(1), kg.X(0)]) + w[0] * kg.Z(1)
        gates = [kg.RX(w[0], wires=0), kg.CRY(w[1], wires=[0, 1])]
        return kg.Tape(gates, [kg.expval(one), kg.var(other), kg.expval(third)])

    compiled = compare(function, leaf(3), leaf(4, 3, seed=1), leaf(2, seed=2))
    agree(compiled, function, leaf(3), leaf(6, 3, seed=1), leaf(2, seed=2))
    assert compiled.traces == 1


def test_matrices_and_states_are_computed() -> None:
    def function(a: Tensor, v: Tensor, w: Tensor) -> kg.Tape:
        unitary = torch.linalg.matrix_exp(1j * (a + a.mT))
        state = torch.nn.functional.normalize(v, dim=-1)
        gates = [
            kg.StatePrep(state, wires=[0, 1]),
            kg.QubitUnitary(unitary, wires=1),
            kg.DiagonalQubitUnitary(torch.exp(1j * w), wires=0),
            kg.ctrl(kg.QubitUnitary(unitary, wires=0), 1),
        ]
        observables = [kg.Hermitian(a + a.mT, 0), kg.Projector(state, wires=[0, 1])]
        return kg.Tape(gates, [kg.expval(each) for each in observables] + [kg.density_matrix(wires=[1])])

    compiled = compare(function, leaf(2, 2), leaf(3, 4, seed=1), leaf(2, seed=2))
    agree(compiled, function, leaf(2, 2, seed=3), leaf(5, 4, seed=4), leaf(2, seed=5))
    assert compiled.traces == 1


def test_values_of_a_sparse_matrix() -> None:
    indices = torch.tensor([[0, 1, 1, 0], [0, 1, 0, 1]])

    def function(values: Tensor, w: Tensor) -> kg.Tape:
        matrix = torch.sparse_coo_tensor(indices, torch.cat([values, values[2:]]), (2, 2), check_invariants=True)
        return kg.Tape([kg.RX(w, wires=0), kg.RY(w, wires=1)], [kg.expval(kg.SparseHamiltonian(matrix, wires=1))])

    compare(function, leaf(3), leaf(seed=1))


Z = [kg.expval(kg.Z(0))]
CHECKED: dict[str, tuple[Callable[[Tensor], kg.Tape], Tensor, Tensor, str]] = {
    # what takes a tensor, one that is right, a change that makes it wrong, and what is said
    "state": (
        lambda x: kg.Tape([kg.StatePrep(x, wires=[0, 1])], Z),
        torch.tensor([0.6, 0, 0, 0.8]),
        torch.tensor([0.2, 0, 0, 0]),
        "the prepared state must have norm 1; it is off by 0.13",
    ),
    "batch of states": (
        lambda x: kg.Tape([kg.StatePrep(x, wires=[0])], Z),
        torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]),
        torch.tensor([[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]),
        "the prepared state of circuit 1 of the batch must have norm 1; it is off by 1",
    ),
    "large state": (
        lambda x: kg.Tape([kg.StatePrep(x, wires=range(18))], Z),
        torch.full((1 << 18,), 2.0**-9),
        torch.full((1 << 18,), 1e-4),
        "have norm 1; it is off by 0.051",
    ),
    "length of a matrix": (
        lambda x: kg.Tape([kg.RX(0.1, 0), kg.QubitUnitary(x, wires=0)], Z),
        torch.tensor([[0.0, 1.0], [1.0, 0.0]]),
        torch.tensor([[0.0, 0.3], [0.3, 0.0]]),
        "the matrix of the QubitUnitary at place 1 must be unitary",
    ),
    "angles of a matrix": (
        lambda x: kg.Tape([kg.QubitUnitary(x, wires=0)], Z),
        torch.tensor([[0.6, -0.8], [0.8, 0.6]]),
        torch.tensor([[0.0, 1.6], [0.0, 0.0]]),
        "the matrix of the QubitUnitary at place 0 must be unitary",
    ),
    "matrices that are controlled and backwards": (
        lambda x: kg.Tape([kg.ctrl(kg.adjoint(kg.QubitUnitary(x, wires=0)), 1)], Z),
        torch.eye(2).repeat(3, 1, 1),
        torch.tensor([0.0, 0.0, 0.3])[:, None, None] * torch.ones(2, 2),
        "QubitUnitary at place 0 of circuit 2 of the batch must be unitary",
    ),
    "diagonal": (
        lambda x: kg.Tape([kg.DiagonalQubitUnitary(x, wires=[0])], Z),
        torch.tensor([1.0, -1.0]),
        torch.tensor([0.0, 0.1]),
        "must have entries of modulus 1",
    ),
    "observable": (
        lambda x: kg.Tape([], [kg.expval(kg.Hermitian(x, wires=0))]),
        torch.tensor([[1.0, 2.0], [2.0, 1.0]]),
        torch.tensor([[0.0, 0.1], [0.0, 0.0]]),
        "an observable's matrix must be Hermitian",
    ),
    "projector": (
        lambda x: kg.Tape([], [kg.expval(kg.Projector(x, wires=[0, 1]))]),
        torch.tensor([0.6, 0, 0, 0.8]),
        torch.tensor([0.2, 0, 0, 0]),
        "a projector's state must have norm 1",
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CHECKED)
def test_values_are_checked_in_every_call(name: str, dtype: torch.dtype) -> None:
    circuit, right, change, message = CHECKED[name]
    right, wrong = right.to(dtype), (right + change).to(dtype)
    compiled = kg.compile(circuit)
    with pytest.raises(ValueError, match=r"it is off by"):
        compiled(wrong)
    compiled(right)
    for transform in (compiled, lambda x: torch.func.vmap(compiled)(x[None]), lambda x: compiled(x.requires_grad_())):
        transform(right.clone())
        transform(torch.full_like(right, math.nan))
        with pytest.raises(ValueError, match=message.replace("prepared state must", "prepared state.* must")):
            transform(wrong.clone())
    assert compiled(right).isfinite().all()


@pytest.mark.parametrize("name", CHECKED)
def test_values_in_a_coarser_precision_pass(name: str) -> None:
    """Rounded entries are off by 2^-9 in bfloat16, by 2^-25 in float32."""
    circuit, right, _, _ = CHECKED[name]
    for dtype, computed in ((torch.bfloat16, torch.float32), (torch.float16, None), (torch.float32, torch.float64)):
        compiled = kg.compile(circuit, dtype=computed)
        for _ in range(2):
            compiled(right.to(dtype))


def test_pattern_of_a_sparse_matrix_must_stay() -> None:
    def function(matrix: Tensor, w: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(w, wires=0)], [kg.expval(kg.SparseHamiltonian(matrix, wires=0))])

    def diagonal(*entries: float) -> Tensor:
        return torch.diag(torch.tensor(entries, dtype=torch.float64)).to_sparse()

    compiled = compare(function, diagonal(1, 2), leaf())
    agree(compiled, function, diagonal(3, -1), leaf())
    with pytest.raises(ValueError, match="pattern of a sparse matrix"):
        compiled(torch.tensor([[0, 1.0], [1.0, 0]], dtype=torch.float64).to_sparse(), leaf())


def test_trainable_parameters_that_the_tape_names() -> None:
    def function(w: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(w[0], wires=0), kg.RY(w[1], wires=0)], [kg.expval(kg.Z(0))], trainable_params=[1])

    compiled = kg.compile(function)
    w = leaf(2)
    (gradient,) = torch.autograd.grad(compiled(w), w)
    (expected,) = torch.autograd.grad(executed(function, w), w)
    torch.testing.assert_close(gradient, expected)
    assert gradient[0] == 0


# --- arguments --------------------------------------------------------------------------------------------------------


def ansatz(x: Tensor, w: Tensor) -> kg.Tape:
    gates: list[kg.Operation] = [kg.RX(column, wires=wire) for wire, column in enumerate(x.unbind(-1))]
    for layer in w:
        gates += [kg.RY(angle, wires=wire) for wire, angle in enumerate(layer)]
        gates += [kg.CNOT(wires=[0, 1]), kg.CNOT(wires=[1, 2])]
    return kg.Tape(gates, [kg.expval(kg.Z(0)), kg.probs(wires=[2, 1])])


def test_batch_sizes_share_a_trace() -> None:
    compiled = kg.compile(ansatz)
    w = leaf(2, 3)
    for batch in (4, 5, 2, 64, 4, 3):
        agree(compiled, ansatz, leaf(batch, 3, seed=batch), w)
    assert compiled.traces == 1
    agree(compiled, ansatz, leaf(3), w)  # no batch
    agree(compiled, ansatz, leaf(1, 3), w)
    agree(compiled, ansatz, leaf(0, 3), w)
    assert compiled.traces == 4


def test_batch_as_large_as_another_axis() -> None:
    compiled = kg.compile(ansatz)
    for batch, layers in ((3, 3), (2, 2), (5, 2), (2, 5), (3, 2), (4, 3)):
        agree(compiled, ansatz, leaf(batch, 3), leaf(layers, 3))


def test_function_that_asks_for_the_batch_size() -> None:
    asked = []

    def function(x: Tensor) -> kg.Tape:
        asked.append(len(x))
        angle = x[:, 0] if len(x) < 10 else x[:, 1]
        return kg.Tape([kg.RX(angle / x.shape[0], wires=0)], [kg.expval(kg.Z(0))])

    compiled = kg.compile(function)
    for batch in (4, 12, 4, 5, 12):
        agree(compiled, function, leaf(batch, 2))
    assert compiled.traces == 3


READS_THE_BATCH: dict[str, Callable[[Tensor], Tensor]] = {
    "shape": lambda x: x[:, 0] * x.shape[0],
    "unpacked": lambda x: x[:, 0] * next(iter(x.shape)),
    "size": lambda x: x[:, 0] * x.size(0),
    "numel": lambda x: x[:, 0] * x.numel(),
    "numpy": lambda x: x[:, 0] * float(np.prod(x.shape)),
    "ratio": lambda x: x[:, 0] * (x.T.shape[-1] % 4),
    "rows": lambda x: torch.stack(list(x))[:, 0],
    "limited slice": lambda x: x[:9].sum() * x[:, 0],
    "flat slice": lambda x: x.flatten()[0:20:2][: len(x)],
    "iterated": lambda x: sum(row[0] for row in x) * x[:, 0],
    "length": lambda x: x[:, 0] * len(x),
}


@pytest.mark.parametrize("name", READS_THE_BATCH)
def test_results_are_right_whatever_is_done_with_the_batch(name: str) -> None:
    def function(x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(READS_THE_BATCH[name](x), wires=0)], [kg.expval(kg.Z(0))])

    compiled = kg.compile(function)
    for batch in (4, 5, 12, 2, 30, 3):
        agree(compiled, function, leaf(batch, 2))


def test_flat_slice_that_ends_with_the_batch() -> None:
    def function(x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x.flatten()[0:10:2], wires=0), kg.RY(0.3, wires=0)], [kg.expval(kg.X(0))])

    compiled = kg.compile(function)
    for batch in (5, 4, 6, 3, 12):
        agree(compiled, function, leaf(batch, 2))


def test_nested_arguments_and_keywords() -> None:
    def function(
        data: dict[str, Any], layers: list[tuple[Tensor, str]], *, scale: float = 1.0, wire: int = 0
    ) -> kg.Tape:
        gates = [kg.RX(scale * data["x"][:, 0], wires=wire)]
        gates += [getattr(kg, name)(angle, wires=0) for angle, name in layers]
        return kg.Tape(gates, [kg.expval(kg.Z(0))])

    compiled = kg.compile(function)
    data, layers = {"x": leaf(3, 2)}, [(leaf(seed=1), "RY"), (leaf(seed=2), "RX")]
    agree(compiled, function, data, layers)
    agree(compiled, function, data, layers, scale=2.0)
    agree(compiled, function, data, layers, scale=2.0, wire=1)
    assert compiled.traces == 3
    agree(compiled, function, {"x": leaf(9, 2)}, layers, scale=2.0, wire=1)
    assert compiled.traces == 3
    agree(compiled, function, data, [(leaf(seed=1), "RZ"), (leaf(seed=2), "RX")])
    assert compiled.traces == 4


def test_equal_numbers_of_different_types_are_different_arguments() -> None:
    def function(x: Tensor, flag: Any) -> kg.Tape:
        return kg.Tape([kg.RX(x, wires=0), kg.RY(1.0 if flag is True else 2.0, wires=0)], [kg.expval(kg.Z(0))])

    compiled = kg.compile(function)
    for flag in (1, True, 1.0):
        agree(compiled, function, leaf(), flag)


def test_argument_that_is_not_hashable() -> None:
    compiled = kg.compile(lambda x, y: kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))]))
    with pytest.raises(TypeError, match="ndarray is neither a tensor nor hashable"):
        compiled(leaf(), np.zeros(2))


def test_one_tensor_in_two_places() -> None:
    def function(x: Tensor, y: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x[0], wires=0), kg.RY(y[1], wires=0), kg.RZ(x[1] * y[0], wires=0)], [kg.expval(kg.X(0))])

    compiled = kg.compile(function)
    w = leaf(2)
    agree(compiled, function, w, w)
    agree(compiled, function, w, leaf(2, seed=1))
    assert compiled.traces == 1


def test_requires_grad_is_part_of_the_structure() -> None:
    compiled = kg.compile(ansatz)
    x, w = leaf(4, 3), leaf(2, 3)
    for x_needs, w_needs in ((True, True), (False, True), (True, False), (False, False)):
        results = agree(compiled, ansatz, x.detach().requires_grad_(x_needs), w.detach().requires_grad_(w_needs))
        assert results[0].requires_grad is (x_needs or w_needs)
    with torch.no_grad():
        assert not compiled(x, w)[0].requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x, w)[0], executed(ansatz, x, w)[0])
        compiled(torch.rand(4, 3, dtype=torch.float64), torch.rand(1, 3, dtype=torch.float64))


def test_tensors_that_are_not_contiguous() -> None:
    compiled = kg.compile(ansatz)
    agree(compiled, ansatz, leaf(3, 4).T, leaf(3, 2).T)
    agree(compiled, ansatz, leaf(4, 6)[:, ::2], leaf(3, 2, 3).transpose(0, 1)[0])
    agree(compiled, ansatz, leaf(1, 3).expand(4, 3), leaf(2, 3))


def test_parameters_and_intermediate_tensors() -> None:
    compiled = kg.compile(ansatz)
    w = nn.Parameter(leaf(2, 3).detach())
    agree(compiled, ansatz, torch.tanh(leaf(4, 3)), w)


# --- dtypes -----------------------------------------------------------------------------------------------------------


def test_precision_of_the_parameters() -> None:
    compiled = kg.compile(ansatz)
    assert compiled(leaf(4, 3), leaf(2, 3))[0].dtype is torch.float64
    assert (
        agree(compiled, ansatz, leaf(4, 3, dtype=torch.float32), leaf(2, 3, dtype=torch.float32))[0].dtype
        is torch.float32
    )
    with pytest.raises(ValueError, match="different precision"):
        compiled(leaf(4, 3), leaf(2, 3, dtype=torch.float32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_that_is_asked_for(dtype: torch.dtype) -> None:
    compiled = kg.compile(ansatz, dtype=dtype)
    x, w = leaf(4, 3), leaf(2, 3, dtype=torch.float32)
    found, expected = compiled(x, w), executed(ansatz, x, w, dtype=dtype)
    assert_close(found, expected, SINGLE)
    for one, other in zip(gradients(found, [x, w]), gradients(expected, [x, w]), strict=True):
        assert_close(one, other, SINGLE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_computes_in_single(dtype: torch.dtype) -> None:
    compiled = kg.compile(ansatz)
    x, w = leaf(4, 3, dtype=dtype), leaf(2, 3, dtype=dtype)
    found, expected = compiled(x, w), executed(ansatz, x, w)
    assert_close(found, expected, SINGLE)
    for one, other in zip(gradients(found, [x, w]), gradients(expected, [x, w]), strict=True):
        assert_close(one, other, 1e-2)


def test_autocast() -> None:
    linear = nn.Linear(3, 3)

    def function(x: Tensor) -> kg.Tape:
        h = linear(x)
        return kg.Tape([kg.RX(h[:, i], wires=i) for i in range(3)], [kg.expval(kg.Z(i)) for i in range(3)])

    compiled = kg.compile(function)
    x = leaf(4, 3, dtype=torch.float32)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = compiled(x), executed(function, x)
        assert_close(found, expected, SINGLE)
        assert_close(compiled(x), executed(function, x), SINGLE)


def test_integers_and_numbers_have_no_say() -> None:
    def function(x: Tensor, n: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x[0], wires=0), kg.RY(n[1], wires=0), kg.RZ(0.3, wires=0)], [kg.state()])

    compare(function, leaf(2, dtype=torch.float32), torch.tensor([1, 2]))


def test_meta_tensors() -> None:
    compiled = kg.compile(ansatz)
    x, w = torch.empty(4, 3, device="meta"), torch.empty(2, 3, device="meta")
    for _ in range(2):
        z, p = compiled(x, w)
        assert z.shape == (4,)
        assert p.shape == (4, 4)
        assert p.is_meta


def test_no_tensor_at_all() -> None:
    compiled = kg.compile(lambda: kg.Tape([kg.RX(0.3, wires=0)], [kg.expval(kg.Z(0))]))
    torch.testing.assert_close(compiled(), torch.tensor(math.cos(0.3), dtype=torch.float64))


# --- what is outside of the function ----------------------------------------------------------------------------------

WEIGHTS = leaf(3, dtype=torch.float64, seed=9)
TABLE = {"scale": torch.tensor([2.0, 3.0], dtype=torch.float64)}


def test_closure_is_read_anew() -> None:
    w = leaf(2)

    def function(x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x, wires=0), kg.RY(2 * w[0], wires=0), kg.RZ(w[1] * x, wires=0)], [kg.expval(kg.X(0))])

    compiled = compare(function, leaf(), others=(w,))
    with torch.no_grad():
        w += 1  # as an optimiser does
    agree(compiled, function, leaf(), others=(w,))
    assert compiled.traces == 1
    w = leaf(2, seed=5)  # another tensor
    agree(compiled, function, leaf(), others=(w,))
    assert compiled.traces == 1
    w = leaf(2, dtype=torch.float64, seed=5).detach()
    agree(compiled, function, leaf())
    assert compiled.traces == 2


def test_globals_are_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x * TABLE["scale"][0], wires=0), helper()], [kg.expval(kg.X(0))])

    def helper() -> kg.Operation:
        return kg.RY(WEIGHTS[1], wires=0)

    compiled = compare(function, leaf(), others=(WEIGHTS,))
    monkeypatch.setitem(TABLE, "scale", torch.tensor([5.0], dtype=torch.float64))
    agree(compiled, function, leaf(), others=(WEIGHTS,))
    other = leaf(3, seed=12)
    monkeypatch.setitem(globals(), "WEIGHTS", other)
    agree(compiled, function, leaf(), others=(other,))


class Config:
    table = torch.tensor([0.1, 0.2], dtype=torch.float64)

    @staticmethod
    def angle() -> Tensor:
        return Config.table[1]


class Places:
    """Tensors in places of many kinds."""

    shared = torch.tensor(0.3, dtype=torch.float64)
    kinds = (torch.tensor(0.4, dtype=torch.float64),)

    def __init__(self) -> None:
        self.queue = collections.deque([leaf(seed=3)])
        self.mapping = types.MappingProxyType({"a": leaf(seed=4)})
        self.space = types.SimpleNamespace(inner=leaf(seed=5))
        self.pair = Pair(leaf(seed=6), [leaf(seed=7)])

    @property
    def computed(self) -> Tensor:
        return 2 * WEIGHTS[0]

    @functools.cached_property
    def cached(self) -> Tensor:
        return 3 * WEIGHTS[0]

    def angles(self) -> list[Tensor]:
        found = [self.shared, self.kinds[0], self.queue[0], self.mapping["a"], self.space.inner, self.computed]
        return [*found, self.pair.one, self.pair.others[0], Config.table[0], Config.angle(), self.cached]

    def tape(self, x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x, wires=0), *[kg.RX(a, wires=0) for a in self.angles()]], [kg.expval(kg.Z(0))])


class Hostile(type):
    """A class whose attributes, looked at from outside, run code."""

    def __getattribute__(cls, name: str) -> Any:
        if name.startswith("forbidden"):
            raise AssertionError(name)
        return super().__getattribute__(name)


class Callable_(metaclass=Hostile):
    forbidden = 3

    def __init__(self) -> None:
        self.weight = leaf(seed=8)

    @property
    def forbidden_too(self) -> Tensor:
        raise AssertionError("a property was computed")

    def __call__(self, x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x * self.weight, 0), kg.RY(WEIGHTS[1], 0)], [kg.expval(kg.X(0))])


def test_what_is_looked_at_runs_no_code() -> None:
    function = Callable_()
    compare(function, leaf(), others=(function.weight, WEIGHTS))


@dataclasses.dataclass(slots=True)
class Pair:
    one: Tensor
    others: list[Tensor]


def test_tensors_are_found_in_places_of_many_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    places = Places()
    trained = (places.queue[0], places.mapping["a"], places.space.inner, places.pair.one, places.pair.others[0])
    compiled = compare(places.tape, leaf(), others=(*trained, WEIGHTS))
    changes = {
        "an attribute hides that of the class": lambda: setattr(places, "shared", leaf(seed=20)),
        "of the class": lambda: monkeypatch.setattr(Places, "kinds", (leaf(seed=21),)),
        "of a class by name": lambda: monkeypatch.setattr(Config, "table", leaf(2, seed=22)),
        "a slot": lambda: setattr(places.pair, "one", leaf(seed=23)),
        "a queue turns": lambda: places.queue.appendleft(leaf(seed=24)),
        "a namespace": lambda: setattr(places.space, "inner", leaf(seed=25)),
    }
    for change in changes.values():
        change()
        agree(compiled, places.tape, leaf(), others=(WEIGHTS,))


def test_objects_of_one_class_may_hide_its_attributes() -> None:
    class Holder:
        angle = leaf(seed=3)

    first, second = Holder(), Holder()
    first.angle = leaf(seed=4)

    def function(x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x + first.angle, 0), kg.RY(second.angle, 0)], [kg.expval(kg.Z(0))])

    compiled = compare(function, leaf(), others=(first.angle, second.angle))
    Holder.angle = leaf(seed=5)
    agree(compiled, function, leaf(), others=(first.angle, second.angle))
    assert compiled.traces == 1


@dataclasses.dataclass(slots=True)
class Row:
    numbers: list[float]
    angle: Tensor | None = None


def test_a_tensor_behind_many_numbers() -> None:
    rows = [Row([i + j / 100 for j in range(30)]) for i in range(1000)]
    rows[-1].angle = leaf(seed=3)

    def function(x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x + rows[-1].angle, 0)], [kg.expval(kg.Z(0))])

    compare(function, leaf(), others=(rows[-1].angle,))


GROWING: dict[str, Callable[[], tuple[Any, Callable[[], None]]]] = {
    "list": lambda: (found := [leaf()], lambda: found.append(leaf(seed=2))),
    "list that is empty": lambda: (found := [], lambda: found.append(leaf(seed=2))),
    "list that shrinks": lambda: (found := [leaf(), leaf(seed=2)], lambda: found.pop()),
    "deque": lambda: (found := collections.deque([leaf()]), lambda: found.append(leaf(seed=2))),
    "dictionary": lambda: (found := {"a": leaf()}, lambda: found.update(b=leaf(seed=2))),
    "another order": lambda: (
        found := {"a": leaf(), "b": leaf(seed=2)},
        lambda: found.update(a=found.pop("a")),
    ),
    "list of lists": lambda: (found := [[leaf()]], lambda: found.append([leaf(seed=2)])),
    "list in a list": lambda: (found := [[leaf()]], lambda: found[0].append(leaf(seed=2))),
    "list in an object": lambda: (
        found := [types.SimpleNamespace(angles=[leaf()])],
        lambda: found[0].angles.append(leaf(seed=2)),
    ),
    "parameters": lambda: (found := nn.ParameterList([leaf()]), lambda: found.append(leaf(seed=2))),
    "parameters that are none yet": lambda: (found := nn.ParameterList(), lambda: found.append(leaf(seed=2))),
    "nothing yet": lambda: (
        found := types.SimpleNamespace(angles=None),
        lambda: setattr(found, "angles", [leaf(seed=2)]),
    ),
    "longer tuple": lambda: (
        found := types.SimpleNamespace(angles=(leaf(),)),
        lambda: setattr(found, "angles", (found.angles[0], leaf(seed=2))),
    ),
    "view of a dictionary": lambda: (
        types.MappingProxyType(inner := {"a": leaf()}),
        lambda: inner.update(b=leaf(seed=2)),
    ),
}


def all_angles(found: Any) -> list[Tensor]:
    if isinstance(found, Tensor):
        return [found]
    if isinstance(found, types.SimpleNamespace):
        return [] if found.angles is None else all_angles(found.angles)
    has_values = isinstance(found, (dict, types.MappingProxyType))
    return [angle for part in (found.values() if has_values else found) for angle in all_angles(part)]


@pytest.mark.parametrize("name", GROWING)
def test_containers_that_change(name: str) -> None:
    found, change = GROWING[name]()

    def function(x: Tensor) -> kg.Tape:
        gates = [kg.Rot(angle, 0.1 * i, 0.3, wires=0) for i, angle in enumerate(all_angles(found))]
        return kg.Tape([kg.RX(x, wires=0), *gates], [kg.expval(kg.Z(0))])

    compiled = compare(function, leaf(), others=tuple(all_angles(found)))
    change()
    agree(compiled, function, leaf(), others=tuple(all_angles(found)))
    assert compiled.traces == 2
    agree(compiled, function, leaf(seed=1), others=tuple(all_angles(found)))
    assert compiled.traces == 2


def test_a_module_in_the_place_of_another() -> None:
    """Its weights, its mode and what it is made of."""
    holder = types.SimpleNamespace(net=nn.Dropout(0.999).train())

    def function(x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(holder.net(x), 0)], [kg.expval(kg.Z(0))])

    compiled = kg.compile(function)
    compiled(leaf())
    for other in (nn.Dropout(0.999).eval(), nn.Sequential(nn.Tanh()), nn.Linear(1, 1, dtype=torch.float64)):
        holder.net = other
        agree(compiled, function, leaf(1))


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_of_modules_in_graphs(backend: str, mode: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.9999)
            self.circuit = kg.compile(self.tape)

        def tape(self, x: Tensor) -> kg.Tape:
            return kg.Tape([kg.RX(self.drop(x), 0)], [kg.expval(kg.Z(0))])

        def forward(self, x: Tensor) -> Any:
            return self.circuit(x)

    net, x = Net().train(mode), leaf().detach()
    graph = torch.compile(net, backend=backend)
    torch._dynamo.reset()
    for now in (mode, not mode, mode):
        net.train(now)
        assert_close(graph(x), torch.cos(0 * x if now else x), DOUBLE)


def test_autocast_is_part_of_the_structure() -> None:
    linear = nn.Linear(2, 2)

    def function(x: Tensor) -> kg.Tape:
        h = linear(x)
        return kg.Tape([kg.RX(torch.sin(h.float()[0]), 0), kg.RY(0.3 if h.dtype is torch.float32 else 0.9, 0)], Z)

    compiled, x = kg.compile(function), torch.rand(2)
    for _ in range(2):
        assert_close(compiled(x), executed(function, x), SINGLE)
        with torch.autocast("cpu", torch.bfloat16):
            assert_close(compiled(x), executed(function, x), SINGLE)
    assert compiled.traces == 2


@pytest.mark.parametrize("inner", [0, 1])
@pytest.mark.parametrize("outer", [0, 1, 2])
def test_first_call_under_nested_vmap(outer: int, inner: int) -> None:
    def function(x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x[0], 0), kg.RY(torch.sin(x[1]), 0)], Z)

    def nested(f: Callable[[Tensor], Any]) -> Any:
        return torch.func.vmap(torch.func.vmap(f, inner), outer)(leaf(2, 2, 2).detach())

    assert_close(nested(kg.compile(function)), nested(lambda x: kg.execute([function(x)])[0]), DOUBLE)


def test_objects_that_do_not_let_themselves_be_looked_at() -> None:
    class Forbidden:
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("not for you")

    class Longest(list[Any]):
        def __len__(self) -> int:
            raise RuntimeError("endless")

    near = types.SimpleNamespace(one=Forbidden(), two=Longest(), angle=leaf(), three=weakref.proxy(Places()))
    setattr(near, "no name", leaf(seed=3))

    def function(x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x + near.angle, 0), kg.RY(getattr(near, "no name"), 0)], Z)

    compare(function, leaf(), others=(near.angle,))


def test_function_that_keeps_a_record() -> None:
    seen: list[Any] = []

    def function(x: Tensor) -> kg.Tape:
        seen.append(x.shape)
        return kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))])

    compiled = kg.compile(function)
    for _ in range(3):
        assert_close(compiled(leaf(4)), leaf(4).cos(), DOUBLE)
    assert compiled.traces == 1


def test_observable_from_outside() -> None:
    coefficients = leaf(2)
    energy = kg.Hamiltonian(coefficients, [kg.Z(0), kg.X(0)])

    def function(x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x, wires=0), kg.RY(0.3, wires=0)], [kg.expval(energy)])

    compare(function, leaf(), others=(coefficients,))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 2))
        self.weights = nn.Parameter(torch.rand(2))
        self.circuit = kg.compile(self.tape)

    def tape(self, x: Tensor) -> kg.Tape:
        h = self.before(x)
        gates = [kg.RX(h[:, 0], wires=0), kg.RX(math.pi * h[:, 1], wires=1), kg.CNOT(wires=[0, 1])]
        return kg.Tape([*gates, kg.RY(self.weights[0], wires=0)], [kg.expval(kg.Z(0)), kg.expval(kg.Z(1))])

    @kg.compile
    def decorated(self, x: Tensor) -> kg.Tape:
        return self.tape(x)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack(self.circuit(x), -1)


def test_parameters_of_a_module() -> None:
    torch.manual_seed(0)
    model = Model().eval()
    x = torch.rand(5, 4)
    agree(model.circuit, model.tape, x, others=tuple(model.parameters()))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        model(x).square().sum().backward()
        optimiser.step()
        agree(model.circuit, model.tape, torch.rand(7, 4), others=tuple(model.parameters()))
    assert model.circuit.traces == 1
    model.double()
    agree(model.circuit, model.tape, x.double(), others=tuple(model.parameters()))
    model.weights = nn.Parameter(torch.rand(2, dtype=torch.float64))
    agree(model.circuit, model.tape, x.double(), others=tuple(model.parameters()))


def test_training_mode_is_part_of_the_structure() -> None:
    model = Model().train()
    x = torch.rand(64, 4)
    one, other = model(x), model(x)
    assert not torch.equal(one, other)  # dropout draws anew
    model.eval()
    assert torch.equal(model(x), model(x))
    agree(model.circuit, model.tape, x)
    torch.manual_seed(3)
    found = model.train()(x)
    torch.manual_seed(3)
    torch.testing.assert_close(found, torch.stack(executed(model.tape, x), -1))


def test_decorated_method() -> None:
    one, other = Model().eval(), Model().eval()
    x = torch.rand(5, 4)
    for model in (one, other):
        assert_close(model.decorated(x), executed(model.tape, x), SINGLE)
    assert one.decorated is one.decorated
    copied = copy.deepcopy(one)
    with torch.no_grad():
        copied.weights += 1
    assert_close(copied.decorated(x), executed(copied.tape, x), SINGLE)
    assert_close(copied.circuit(x), executed(copied.tape, x), SINGLE)
    shallow = copy.copy(one)
    assert shallow.decorated.function.__self__ is shallow


class Slotted:
    __slots__ = ("angle",)

    def __init__(self) -> None:
        self.angle = 0.3

    @kg.compile
    def method(self, x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x, wires=0), kg.RY(self.angle, wires=0)], [kg.expval(kg.Z(0))])

    @classmethod
    @kg.compile
    def of_class(cls, x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))])


def test_methods_of_what_has_no_dictionary() -> None:
    found = Slotted()
    for _ in range(2):
        torch.testing.assert_close(found.method(leaf()), executed(Slotted.method.function, found, leaf()))
        torch.testing.assert_close(Slotted.of_class(leaf()), torch.cos(leaf()))
    assert Slotted.method.traces == 1


@kg.compile
def at_module_level(x: Tensor) -> kg.Tape:
    """A circuit."""
    return kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))])


def test_pickle_and_copy() -> None:
    assert pickle.loads(pickle.dumps(at_module_level)) is at_module_level
    model = pickle.loads(pickle.dumps(Model().eval()))
    x = torch.rand(3, 4)
    assert_close(model.circuit(x), executed(model.tape, x), SINGLE)
    again = copy.deepcopy(kg.compile(ansatz, dtype=torch.float32))
    assert again.dtype is torch.float32
    assert again.traces == 0


def test_wraps_its_function() -> None:
    assert at_module_level.__name__ == "at_module_level"
    assert at_module_level.__doc__ == "A circuit."
    assert repr(kg.compile(ansatz)) == "<compiled ansatz: 0 traces>"

    @kg.compile(dtype=torch.float32)
    def single(x: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))])

    assert single(leaf()).dtype is torch.float32
    assert "dtype=torch.float32: 1 trace>" in repr(single)


# --- what is refused --------------------------------------------------------------------------------------------------


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        return 2 * g


def _branch(x: Tensor) -> Tensor:
    return x if x > 0 else 2 * x


REFUSED: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "branch": (_branch, r"test_compile.py, line \d+, `return x if x > 0 else 2 \* x`: .*value of a tensor"),
    "item": (lambda x: x.item() * x, "value of a tensor"),
    "float": (lambda x: float(x), "value of a tensor"),
    "list": (lambda x: x.tolist(), "value of a tensor"),
    "array": (lambda x: x.detach().numpy(), "value of a tensor"),
    "equal": (lambda x: x * torch.equal(x, x), "value of a tensor"),
    "chance": (lambda x: x * float(torch.rand(())), "value of a tensor"),
    "strides": (lambda x: x * x.stride()[0], "value of a tensor"),
    "leaf": (lambda x: x if x.is_leaf else 2 * x, "value of a tensor"),
    "data": (lambda x: x.data, "use detach"),
    "mask": (lambda x: x.reshape(1)[x.reshape(1) > -100].sum(), "shape of torch's __getitem__ depends on the values"),
    "nonzero": (lambda x: x * x.nonzero().sum(), "shape of torch's nonzero depends on the values"),
    "in place": (lambda x: x.detach().mul_(2), "changes an argument in place"),
    "function": (lambda x: Doubled.apply(x), "does not come from recorded torch calls"),
    "unseen": (lambda x: x * torch.Tensor([2.0])[0], "cannot tell where a tensor of shape .* comes from"),
    "vmap": (lambda x: torch.func.vmap(lambda y: y * x)(x.reshape(1))[0], "torch.func"),
    "autocast": (lambda x: autocast(x), "autocast is switched"),
    "requires_grad": (lambda x: x.detach().requires_grad_() * 2, "requires_grad is set"),
    "executed": (
        lambda x: kg.execute([kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))])])[0],
        "executed in a function",
    ),
    "compiled": (lambda x: at_module_level(x), "executed in a function"),
}


def autocast(x: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return x * 2


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad=True to a scalar")
def test_what_cannot_be_compiled_is_refused(name: str) -> None:
    angle, message = REFUSED[name]
    compiled = kg.compile(lambda x: kg.Tape([kg.RX(angle(x), wires=0)], [kg.expval(kg.Z(0))]))
    with pytest.raises(NotImplementedError, match=message):
        compiled(leaf())
    assert compiled.traces == 0


def test_scripts_of_pennylane() -> None:
    qml = pytest.importorskip("pennylane")

    def function(x: Tensor, w: Tensor) -> Any:
        gates = [qml.RX(x[:, 0], wires=0), qml.RY(2 * w[0], wires=1), qml.CNOT(wires=[0, 1]), qml.RX(x[:, 1], wires=1)]
        return qml.tape.QuantumScript(gates, [qml.expval(qml.Z(0) @ qml.Z(1)), qml.probs(wires=0)])

    compiled = kg.compile(function)
    for batch in (3, 4):
        x, w = leaf(batch, 2), leaf(2, seed=1)
        found, (expected,) = compiled(x, w), kg.execute([function(x, w)])
        assert_close(found, expected, DOUBLE)
        for one, other in zip(gradients(found, [x, w]), gradients(expected, [x, w]), strict=True):
            assert_close(one, other, DOUBLE)


def test_tape_with_shots_is_refused() -> None:
    compiled = kg.compile(lambda x: kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))], shots=10))
    with pytest.raises(NotImplementedError, match="shots"):
        compiled(leaf())


def test_what_is_no_tape_is_refused() -> None:
    with pytest.raises(TypeError, match="expected tapes"):
        kg.compile(lambda x: x)(leaf())
    with pytest.raises(TypeError, match="takes a function"):
        kg.compile(3)  # type: ignore[call-overload]
    with pytest.raises(ValueError, match="dtype must be"):
        kg.compile(ansatz, dtype=torch.float16)


def test_errors_of_the_function_go_through() -> None:
    compiled = kg.compile(ansatz)
    with pytest.raises(ValueError, match="batch of 3"):
        kg.compile(lambda x, y: kg.Tape([kg.RX(x, wires=0), kg.RY(y, wires=0)], [kg.expval(kg.Z(0))]))(leaf(3), leaf(2))
    with pytest.raises(ValueError, match="unitary"):
        kg.compile(lambda u: kg.Tape([kg.QubitUnitary(u, wires=0)], [kg.expval(kg.Z(0))]))(leaf(2, 2))
    agree(compiled, ansatz, leaf(4, 3), leaf(2, 3))


def test_values_of_constants_may_be_used() -> None:
    def function(x: Tensor) -> kg.Tape:
        gates = [kg.CNOT(wires=[int(i), 3]) for i in torch.arange(2)]
        gates += [kg.RX(angle.item(), wires=0) for angle in torch.linspace(0, 1, 3)]
        gates += [kg.RY(torch.tensor(0.3, dtype=torch.float64), wires=1), kg.RX(x, wires=0)]
        return kg.Tape(gates, [kg.expval(kg.Z(0) @ kg.Y(3)), kg.expval(kg.Projector(torch.tensor([0]), wires=1))])

    assert not has_arithmetic(compare(function, leaf()))


# --- several tapes ----------------------------------------------------------------------------------------------------


def calls_of(compiled: Callable[..., Any], *args: Any) -> int:
    compiled(*args)
    before = _C.sweep_count()
    compiled(*args)
    return _C.sweep_count() - before


def test_tapes_of_one_structure_are_one_call() -> None:
    def function(x: Tensor, w: Tensor) -> list[kg.Tape]:
        return [
            kg.Tape(
                [kg.RX(x[i, 0], wires=0), kg.RY(w[0], wires=1), kg.CNOT(wires=[0, 1]), kg.RZ(2 * x[i, 1] - i, wires=1)],
                [kg.expval(kg.Z(0)), kg.probs(wires=1)],
            )
            for i in range(4)
        ]

    compiled = compare(function, leaf(4, 2), leaf(2, seed=1))
    assert calls_of(compiled, leaf(4, 2), leaf(2)) == 1


def test_parameters_that_tapes_gather() -> None:
    def function(w: Tensor, v: Tensor) -> tuple[kg.Tape, ...]:
        angles = [w[0], v[2], w[1] * v[0], torch.tensor(0.3, dtype=w.dtype), w[0]]
        return tuple([kg.Tape([kg.RX(a, wires=0), kg.RY(w[2], wires=0)], [kg.state()]) for a in angles])

    compare(function, leaf(3), leaf(3, seed=1))

    def shifted(w: Tensor) -> list[kg.Tape]:
        tapes = []
        for i in range(3):
            for sign in (1, -1):
                angles = [w[j] + (sign * math.pi / 2 if i == j else 0) for j in range(3)]
                tapes.append(kg.Tape([kg.RX(a, wires=j) for j, a in enumerate(angles)], [kg.expval(kg.Y(1))]))
        return tapes

    compiled = compare(shifted, leaf(3))
    assert calls_of(compiled, leaf(3)) == 1


def test_whole_tensor_over_tapes_is_read_directly() -> None:
    def function(x: Tensor) -> list[kg.Tape]:
        return [kg.Tape([kg.RX(a, wires=0), kg.RY(b, wires=0)], [kg.expval(kg.Z(0))]) for a, b in x]

    assert not has_arithmetic(compare(function, leaf(5, 2)))


def test_batches_of_one_structure() -> None:
    def function(x: Tensor, y: Tensor, w: Tensor) -> list[kg.Tape]:
        tapes = []
        for data, angle in ((x, w[0]), (y, w[1])):
            gates = [kg.RX(data[:, 0], wires=0), kg.RY(angle, wires=1), kg.CNOT(wires=[0, 1]), kg.RX(0.2, wires=1)]
            tapes.append(kg.Tape(gates, [kg.expval(kg.Z(1)), kg.density_matrix(wires=1), kg.probs(wires=0)]))
        return tapes

    compiled = kg.compile(function)
    for sizes in ((3, 3), (5, 5), (2, 4), (4, 2), (7, 7), (1, 1)):
        agree(compiled, function, leaf(sizes[0], 1), leaf(sizes[1], 1, seed=1), leaf(2))
    assert calls_of(compiled, leaf(3, 1), leaf(3, 1), leaf(2)) == 1


def test_matrices_that_differ_between_tapes() -> None:
    def function(w: Tensor, c: Tensor) -> list[kg.Tape]:
        tapes = []
        for k in range(3):
            unitary = torch.linalg.matrix_exp(1j * w[k] * torch.tensor([[0, 1], [1, 0]], dtype=torch.complex128))
            observable = kg.Hamiltonian(c[k], [kg.Z(0), kg.X(0)])
            tapes.append(kg.Tape([kg.QubitUnitary(unitary, wires=0), kg.RX(0.1 * k, wires=0)], [kg.expval(observable)]))
        return tapes

    compare(function, leaf(3), leaf(3, 2))


def test_same_circuit_several_times() -> None:
    def function(w: Tensor) -> list[kg.Tape]:
        return [kg.Tape([kg.RX(w[0], wires=0), kg.RY(0.3, wires=0)], [kg.expval(kg.Z(0)), kg.state()])] * 3

    compiled = compare(function, leaf(2))
    assert calls_of(compiled, leaf(2)) == 1


def test_different_structures_are_different_calls() -> None:
    def function(x: Tensor, w: Tensor) -> list[kg.Tape]:
        return [
            kg.Tape([kg.RX(w[0], wires=0)], [kg.expval(kg.Z(0))]),
            kg.Tape([kg.RX(x[:, 0], wires=0)], [kg.probs(wires=0), kg.expval(kg.Z(0))]),
            kg.Tape([kg.RX(w[1], wires=0)], [kg.expval(kg.Z(0))]),
        ]

    compiled = compare(function, leaf(3, 1), leaf(2))
    assert calls_of(compiled, leaf(3, 1), leaf(2)) == 2
    assert kg.compile(list)() == ()


# --- under autograd ---------------------------------------------------------------------------------------------------


def test_gradcheck() -> None:
    compiled = kg.compile(ansatz)
    torch.autograd.gradcheck(compiled, (leaf(2, 3), leaf(1, 3)))


def test_backward_twice() -> None:
    compiled = kg.compile(ansatz)
    x, w = leaf(4, 3), leaf(2, 3)
    loss = cases.contract(compiled(x, w))
    first = torch.autograd.grad(loss, (x, w), retain_graph=True)
    second = torch.autograd.grad(loss, (x, w))
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, (x, w))


def test_change_in_place_before_the_backward_pass() -> None:
    compiled = kg.compile(ansatz)
    x, w = leaf(4, 3), leaf(2, 3)
    loss = cases.contract(compiled(x, w))
    with torch.no_grad():
        w.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_batched_cotangents_are_refused() -> None:
    x, w = leaf(4, 3), leaf(2, 3)
    z = kg.compile(ansatz)(x, w)[0]
    with pytest.raises(NotImplementedError, match=r"torch\.func"):
        torch.autograd.grad(z, w, torch.eye(4, dtype=torch.float64), is_grads_batched=True)


def test_results_may_be_changed_in_place() -> None:
    compiled = kg.compile(ansatz)
    z, p = compiled(leaf(4, 3), leaf(2, 3))
    z.mul_(2)
    p[:, 0] += 1
    (z.sum() + p.sum()).backward()


@pytest.mark.parametrize("measured", ["expval", "state", "both"])
def test_memory_goes_when_the_results_go(measured: str) -> None:
    measurements = [kg.expval(kg.Z(0))] if measured != "state" else []
    measurements += [kg.state()] if measured != "expval" else []
    compiled = kg.compile(lambda x: kg.Tape([kg.RX(x, wires=0)], measurements))
    results = compiled(leaf())
    references = [weakref.ref(result) for result in tree_leaves(results)]
    gc.disable()
    try:
        del results
        assert [reference() for reference in references] == [None] * len(references)
    finally:
        gc.enable()


def test_results_that_are_not_used() -> None:
    compiled = kg.compile(ansatz)
    x, w = leaf(4, 3), leaf(2, 3)
    for i in range(2):
        found = torch.autograd.grad(compiled(x, w)[i].sum(), (x, w))
        expected = torch.autograd.grad(executed(ansatz, x, w)[i].sum(), (x, w))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)


def test_gradients_of_inputs_that_need_none_are_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[tuple[int, ...]] = []
    run = operators.run_execute_vjp
    monkeypatch.setattr(operators, "run_execute_vjp", lambda *a: requested.append(a[-1]) or run(*a))
    compiled = kg.compile(lambda x, w: kg.Tape([kg.RX(x, wires=0), kg.RY(w, wires=0)], [kg.expval(kg.Z(0))]))
    x, w = (torch.tensor(angle, requires_grad=True) for angle in (0.3, 0.4))
    compiled(x.detach(), w).backward()
    compiled(x, w.detach()).backward()
    compiled(x, w).backward()
    assert requested == [(1,), (0,), (0, 1)]


def test_only_what_needs_gradients_is_walked() -> None:
    compiled = kg.compile(ansatz)
    x, w = leaf(4, 3), leaf(2, 3)
    (gradient,) = torch.autograd.grad(compiled(x, w)[0].sum(), x)
    torch.testing.assert_close(gradient, torch.autograd.grad(executed(ansatz, x, w)[0].sum(), x)[0])


# torch.compile itself looks at .grad of the results, as it goes on behind the call.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_call_inside_torch_compile() -> None:
    compiled = kg.compile(ansatz)
    x, w = leaf(4, 3), leaf(2, 3)
    wrapped = torch.compile(lambda x, w: compiled(x, w)[0] * 2, backend="eager")
    torch.testing.assert_close(wrapped(x, w), executed(ansatz, x, w)[0] * 2)


def test_threads() -> None:
    compiled = kg.compile(ansatz)
    expected = {batch: executed(ansatz, leaf(batch, 3), leaf(2, 3))[0] for batch in (2, 3, 4)}
    failures: list[Any] = []

    def work() -> None:
        try:
            for batch in (2, 3, 4) * 5:
                torch.testing.assert_close(compiled(leaf(batch, 3), leaf(2, 3))[0], expected[batch])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert compiled.traces == 1


def test_cache_is_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def function(x: Tensor, n: int) -> kg.Tape:
        return kg.Tape([kg.RX(x, wires=0)] * (200 + n), [kg.expval(kg.Z(0))])

    compiled = kg.compile(function)
    agree(compiled, function, leaf(), 0)
    each = next(iter(compiled._plans.values())).bytes
    monkeypatch.setattr(kg.structure_cache, "limit", 6 * each)
    for n in range(1, 20):
        agree(compiled, function, leaf(), n)
        agree(compiled, function, leaf(), 1)  # and is not forgotten, for it is used
    assert 3 <= len(compiled._plans) <= 7
    assert compiled.traces == 20
    for n in (19, 1):
        agree(compiled, function, leaf(), n)
    assert compiled.traces == 20
    agree(compiled, function, leaf(), 0)
    assert compiled.traces == 21


def test_a_trace_that_serves_many_batches_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = kg.compile(lambda x: kg.Tape([kg.RX(x, wires=0)] * 200, [kg.expval(kg.Z(0))]))
    compiled(leaf(2))
    plan = next(iter(compiled._plans.values()))
    monkeypatch.setattr(kg.structure_cache, "limit", 2 * plan.bytes + (1 << 16))
    for size in range(3, 50):
        compiled(leaf(size))
    assert (compiled.traces, len(compiled._plans)) == (1, 48)


@pytest.mark.parametrize("is_layer", [False, True], ids=["compiled", "layer"])
@pytest.mark.parametrize("transform", ["checkpoint", "hooks", "func.grad in hooks"])
def test_a_first_call_among_hooks_of_saved_tensors(transform: str, is_layer: bool) -> None:
    """Hooks see what the call saves, not what tracing did."""

    def circuit(inputs: Tensor, p: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(inputs[..., i] * p, i) for i in range(2)], [kg.expval(kg.Z(0))])

    def make() -> Any:
        if is_layer:
            torch.manual_seed(0)
            layer = kg.nn.CircuitLayer(circuit, {"p": ()})
            return lambda x: layer(x).sum()
        p = torch.tensor(0.7, requires_grad=True)
        compiled = kg.compile(circuit)
        return lambda x: compiled(x, p).sum()

    def gradient(f: Any, x: Tensor) -> Tensor:
        if transform == "checkpoint":
            return torch.autograd.grad(torch.utils.checkpoint.checkpoint(f, x, use_reentrant=False), x)[0]
        if transform == "func.grad in hooks":
            return torch.func.grad(f)(x.detach())
        seen: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t.numel()) or t, lambda t: t):
            first = f(x)
            after_first = list(seen)
            f(x)
        assert seen == 2 * after_first
        return torch.autograd.grad(first, x)[0]

    x = torch.rand(4, 2, requires_grad=True)
    f = make()
    f(x)
    (right,) = torch.autograd.grad(f(x), x)
    torch.testing.assert_close(gradient(make(), x), right)
