"""Value and gradient, and Jacobians, in one call of a compiled function: against torch.autograd of the same function.

Tolerances. The same kernels run in the same precision, so that only sums over cotangents may be in another order: 1e-12
absolute in float64, 1e-5 in float32. Where the oracle is compared with, those of ``comparisons``.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map, tree_structure
from torch.utils.flop_counter import FlopCounterMode

import cases
import comparisons
import hooks
import ketgrad as kg
import oracle
from ketgrad.execution.batching import group_tapes
from ketgrad.native import many, operators

DOUBLE = 1e-12
SINGLE = 1e-5


def assert_close(found: Any, expected: Any) -> None:
    assert tree_structure(found) == tree_structure(expected)
    for one, other in zip(tree_leaves(found), tree_leaves(expected), strict=True):
        tolerance = SINGLE if other.dtype in (torch.float32, torch.complex64) else DOUBLE
        assert not one.requires_grad
        torch.testing.assert_close(one, other.detach(), atol=tolerance, rtol=tolerance)


def by_autograd(
    compiled: Callable[..., Any], *args: Any, argnums: int | tuple[int, ...] = 0, loss: Callable[..., Any] | None = None
) -> tuple[Tensor, Any]:
    """Value and gradient as autograd has them."""
    args = tuple(tree_map(lambda t: t.detach().requires_grad_(t.is_floating_point() or t.is_complex()), args))
    returned = compiled(*args)
    value = returned if loss is None else loss(returned)
    chosen = args[argnums] if isinstance(argnums, int) else tuple(args[i] for i in argnums)
    found = iter(torch.autograd.grad(value, tree_leaves(chosen), allow_unused=True, materialize_grads=True))
    return value, tree_map(lambda _: next(found), chosen)


def agree(compiled: Any, *args: Any, **options: Any) -> tuple[Tensor, Any]:
    found = compiled.value_and_grad(*args, **options)
    assert_close(found, by_autograd(compiled, *args, **options))
    return found


class Counts(NamedTuple):
    """How often each operator was called."""

    execute: list[int]
    execute_vjp: list[int]
    execute_and_vjp: list[int]
    execute_and_vjp_many: list[int]


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> Counts:
    found = Counts([], [], [], [])
    for name, calls in found._asdict().items():
        module = many if name.endswith("many") else operators
        original = getattr(module, f"run_{name}")

        def counted(*args: Any, original: Any = original, calls: list[int] = calls) -> Any:
            calls.append(1)
            return original(*args)

        monkeypatch.setattr(module, f"run_{name}", counted)
    return found


def angles(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def energy(weights: Tensor) -> kg.Tape:
    gates = [
        kg.RY(weights[0], wires=0),
        kg.RX(2 * weights[1] + 1, wires=1),
        kg.CNOT([0, 1]),
        kg.RZ(weights[0], wires=1),
    ]
    return kg.Tape([*gates, kg.RY(weights[2], wires=1)], [kg.expval(kg.Z(0) @ kg.X(1) + 0.5 * kg.Z(1))])


def classifier(x: Tensor, weights: Tensor) -> kg.Tape:
    gates = [kg.RX(x[:, w], wires=w) for w in range(3)]
    for layer in weights:
        gates += [kg.Rot(*layer[w], wires=w) for w in range(3)] + [kg.CNOT([w, (w + 1) % 3]) for w in range(3)]
    return kg.Tape(gates, [kg.expval(kg.Z(0)), kg.expval(kg.X(1) @ kg.Z(2))])


def squared(results: Any) -> Tensor:
    return sum((each.abs() ** 2).mean() for each in tree_leaves(results))


# --- every circuit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("case", [*cases.WORKLOAD_CASES, *cases.CASES[::12]], ids=str)
def test_every_circuit(case: cases.Case, dtype: torch.dtype) -> None:
    function, tensors = cases.as_function(case.tape(dtype=dtype))
    if tensors:
        agree(kg.compile(function), *tensors, argnums=tuple(range(len(tensors))), loss=cases.contract)


@pytest.mark.parametrize("case", cases.WORKLOAD_CASES[:6], ids=str)  # the others return states
def test_workloads_against_the_oracle(case: cases.Case) -> None:
    """Of the sum of squares, by the operator that goes forward and back."""
    tape = case.tape()
    function, tensors = cases.as_function(tape)
    results = tree_leaves(oracle.execute([tape]))
    targets = angles(*torch.stack(results, -1).shape)
    loss = kg.MeanSquaredError(targets if len(results) > 1 else targets.squeeze(-1))
    expected = ((torch.stack(results, -1) - targets) ** 2).mean()
    wanted = torch.autograd.grad(expected, tensors)
    for setting in (hooks.AS_IT_IS | hooks.IN_TILES_ON_EVERY_LEVEL).values():
        with setting():
            value, found = kg.compile(function).value_and_grad(*tensors, argnums=tuple(range(len(tensors))), loss=loss)
        comparisons.assert_same(value, expected, comparisons.DOUBLE, "value")
        for one, other in zip(found, wanted, strict=True):
            comparisons.assert_same(one, other, comparisons.DOUBLE, "gradient")


@pytest.mark.parametrize("regime", ["auto", "lanes", "single"])
@pytest.mark.parametrize("case", cases.TABLE[::6], ids=str)
def test_the_operator_does_what_two_do(case: cases.Case, regime: str) -> None:
    """With every measurement at once, complex ones too."""
    (group,) = group_tapes([case.tape()])
    inputs = [tensor.detach() for tensor in group.inputs]
    layout, program = group.binding.result_layout, group.binding.id
    g_real = angles(group.batch, layout.real_size)
    g_complex = torch.complex(*[angles(group.batch, layout.complex_size, seed=seed) for seed in (1, 2)])
    requested = list(range(1, len(inputs)))
    with hooks.thresholds(regime=regime):
        real, complex_, ket = operators.run_execute(program, inputs, operators.EXACT_KET)
        for curvature in (0.0, 0.7):
            found = operators.run_execute_and_vjp(program, inputs, g_real, g_complex, curvature, requested)
            gradients = operators.run_execute_vjp(program, inputs, ket, g_real + curvature * real, g_complex, requested)
            assert_close(found, (real, complex_, gradients))


def test_the_operator_checks_what_it_is_given() -> None:
    (group,) = group_tapes([energy(angles(3))])
    inputs = group.inputs
    one, none = torch.ones((1, 1), dtype=torch.float64), torch.empty((1, 0), dtype=torch.complex128)
    with pytest.raises(ValueError, match="the real cotangent has shape"):
        operators.run_execute_and_vjp(group.binding.id, inputs, one[0], none, 0.0, [0])
    with pytest.raises(ValueError, match="the complex cotangent has another dtype"):
        operators.run_execute_and_vjp(group.binding.id, inputs, one, none.real, 0.0, [0])
    with pytest.raises(ValueError, match="no input 7"):
        operators.run_execute_and_vjp(group.binding.id, inputs, one, none, 0.0, [7])


# --- one operator, and no graph ---------------------------------------------------------------------------------------


def test_one_operator_where_cotangents_are_known(counts: Counts) -> None:
    compiled = kg.compile(energy)
    value, gradient = compiled.value_and_grad(angles(3))
    assert not value.requires_grad
    assert not gradient.requires_grad
    batch = kg.compile(classifier)
    batch.value_and_grad(angles(5, 3), angles(2, 3, 3), argnums=(0, 1), loss=kg.MeanSquaredError(angles(5, 2)))
    assert [len(calls) for calls in counts] == [0, 0, 2, 0]
    compiled.value_and_grad(angles(3), loss=lambda z: z**2)
    assert [len(calls) for calls in counts] == [1, 1, 2, 0]
    assert compiled.traces == batch.traces == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_in_every_mode(dtype: torch.dtype, requires_grad: bool, mode: Any) -> None:
    def computed(weights: Tensor) -> kg.Tape:
        return energy(torch.sin(weights))

    for function in (energy, computed):
        compiled = kg.compile(function)
        expected = by_autograd(compiled, angles(3, dtype=dtype), loss=lambda z: z**3)
        with mode():
            weights = angles(3, dtype=dtype).requires_grad_(requires_grad)
            assert_close(compiled.value_and_grad(weights, loss=lambda z: z**3), expected)
        assert weights.grad is None


def test_a_call_in_another_precision() -> None:
    agree(kg.compile(energy, dtype=torch.float64), angles(3, dtype=torch.float32))


def test_recomputed_states() -> None:
    agree(kg.compile(classifier, recompute=True), angles(4, 3), angles(2, 3, 3), argnums=(0, 1), loss=squared)


# --- arguments --------------------------------------------------------------------------------------------------------


def nested(parameters: dict[str, Any], scale: float, /, *, extra: list[Tensor]) -> kg.Tape:
    gates = [kg.RX(scale * parameters["a"], wires=0), kg.RY(parameters["b"][0][1], wires=1), kg.CNOT([0, 1])]
    return kg.Tape([*gates, kg.RZ(extra[0], wires=0), kg.RX(extra[0] * extra[1], wires=0)], [kg.expval(kg.Z(0))])


def test_arguments_in_containers() -> None:
    parameters = {"a": angles(), "b": (angles(3), angles(2))}
    extra = [angles(seed=1), angles(seed=2)]
    compiled = kg.compile(nested)
    value, found = compiled.value_and_grad(parameters, 2.5, extra=extra)
    leaves = tree_map(lambda t: t.clone().requires_grad_(), parameters)
    expected = compiled(leaves, 2.5, extra=extra)
    expected.backward()
    assert_close(value, expected)
    assert_close(found, tree_map(lambda t: torch.zeros_like(t) if t.grad is None else t.grad, leaves))


def test_argnums() -> None:
    compiled, args = kg.compile(classifier), (angles(4, 3), angles(2, 3, 3))
    for argnums in (0, 1, (0,), (0, 1), (1, 0), -1):
        agree(compiled, *args, argnums=argnums, loss=squared)
    assert compiled.traces <= 3  # which tensors require grad is part of a structure


def test_a_tensor_given_twice() -> None:
    @kg.compile
    def compiled(a: Tensor, b: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(a[0], wires=0), kg.RY(b[0] + a[1], wires=0)], [kg.expval(kg.Z(0))])

    weights = angles(2)
    agree(compiled, weights, weights, argnums=(0, 1))
    agree(compiled, weights, weights, argnums=1)


def test_arguments_of_integers_choose_the_circuit() -> None:
    @kg.compile
    def compiled(weights: Tensor, wires: int, table: Tensor) -> kg.Tape:
        factors = table.to(weights.dtype)
        return kg.Tape([kg.RX(w * f, wires=wires) for w, f in zip(weights, factors, strict=True)], [kg.expval(kg.Z(0))])

    table = torch.tensor([1, 2, 3])
    value, gradient = compiled.value_and_grad(angles(3), 0, table)
    total = (angles(3) * table).sum()
    assert_close((value, gradient), (total.cos(), -total.sin() * table.double()))
    with pytest.raises(TypeError, match=r"argument 2 is differentiated and has a tensor of torch\.int64"):
        compiled.value_and_grad(angles(3), 0, table, argnums=2)
    with pytest.raises(TypeError, match="argument 1 is differentiated and has a int in it"):
        compiled.value_and_grad(angles(3), 0, table, argnums=(0, 1))


def test_matrices_and_states() -> None:
    leaves = cases.Leaves()

    @kg.compile
    def compiled(state: Tensor, unitary: Tensor, hermitian: Tensor) -> kg.Tape:
        gates = [kg.StatePrep(state, wires=[0, 1]), kg.QubitUnitary(unitary, wires=1), kg.CNOT([0, 1])]
        return kg.Tape(gates, [kg.expval(kg.Hermitian(hermitian, wires=0))])

    args = leaves.state(2), leaves.unitary(1), leaves.hermitian(1)
    agree(compiled, *args, argnums=(0, 1, 2))
    agree(compiled, leaves.real_state(2), leaves.orthogonal(1), leaves.symmetric(1), argnums=(0, 1, 2))


def test_nothing_flows_through_what_is_detached() -> None:
    @kg.compile
    def compiled(weights: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(weights[0], wires=0), kg.RX(weights.detach()[1], wires=0)], [kg.expval(kg.Z(0))])

    weights = angles(2)
    _, gradient = agree(compiled, weights)
    assert gradient[1] == 0
    assert gradient[0] != 0


def test_several_tapes() -> None:
    @kg.compile
    def compiled(weights: Tensor) -> list[kg.Tape]:
        other = kg.Tape([kg.RX(weights[0] * weights[1], wires=0)], [kg.probs(wires=0), kg.expval(kg.Y(0))])
        return [energy(weights), other, energy(weights.flip(0))]

    agree(compiled, angles(3), loss=squared)


def test_the_circuit_of_a_layer() -> None:
    blocks = [kg.nn.AngleEmbedding(2), kg.nn.StronglyEntangling(2, layers=2)]
    layer = kg.nn.CircuitLayer.from_blocks(blocks, measurements=[kg.expval(kg.Z(0)), kg.expval(kg.X(1))])
    inputs, loss = angles(5, 2, dtype=torch.float32), kg.MeanSquaredError(angles(5, 2, dtype=torch.float32))
    agree(layer.circuit, inputs, layer.weights, argnums=(0, 1), loss=loss)
    layer.circuit.value_and_backward(inputs, layer.weights, loss=loss)
    (expected,) = torch.autograd.grad(torch.nn.functional.mse_loss(layer(inputs), loss.targets), layer.weights)
    assert_close(layer.weights.grad, expected)


def test_batches_of_every_size() -> None:
    compiled = kg.compile(classifier)
    for size in (0, 1, 2, 7, 33):
        args = angles(size, 3), angles(1, 3, 3)
        agree(compiled, *args, argnums=(0, 1), loss=lambda results: sum((each**2).sum() for each in results))
        if size:
            agree(compiled, *args, argnums=(0, 1), loss=kg.MeanSquaredError(angles(size, 2)))


# --- losses -----------------------------------------------------------------------------------------------------------


def test_squared_errors() -> None:
    compiled = kg.compile(classifier)
    x, weights, targets = angles(4, 3), angles(2, 3, 3), angles(4, 2)
    loss = kg.MeanSquaredError(targets)
    found = agree(compiled, x, weights, argnums=(0, 1), loss=loss)
    plain = compiled.value_and_grad(
        x, weights, argnums=(0, 1), loss=lambda r: ((torch.stack(r, 1) - targets) ** 2).mean()
    )
    assert_close(found, plain)
    assert_close(loss(compiled(x, weights)), found[0])
    targets += 1  # read when they are needed
    agree(compiled, x, weights, argnums=(0, 1), loss=loss)
    probabilities = kg.compile(lambda x: kg.Tape([kg.RX(x, wires=0), kg.RY(x, wires=1)], [kg.probs()]))
    agree(probabilities, angles(5), loss=kg.MeanSquaredError(angles(5, 4)))
    agree(probabilities, angles(), loss=kg.MeanSquaredError(angles(4)))
    agree(kg.compile(energy), angles(3), loss=kg.MeanSquaredError(angles()))


def several(weights: Tensor) -> list[kg.Tape]:
    """Two structures, one of them twice, and one that no weight enters."""
    gates = [kg.RY(weights[0], wires=0), kg.CNOT([0, 1]), kg.RX(weights[1] * weights[2], wires=1)]
    other = [kg.RX(0.3, wires=0), kg.RX(0.2, wires=1)]
    return [
        energy(weights),
        kg.Tape(gates, [kg.expval(kg.Z(1)), kg.expval(kg.X(0))]),
        energy(weights.flip(0)),
        kg.Tape(other, [kg.expval(kg.Y(0)), kg.expval(kg.Y(1))]),
    ]


def test_sums_of_results(counts: Counts) -> None:
    weights = angles(3)
    singles = kg.compile(
        lambda w: [energy(w), energy(w.flip(0)), kg.Tape([kg.RX(w[1], wires=0)], [kg.expval(kg.Y(0))])]
    )
    agree(singles, weights, loss=sum)
    constant = kg.compile(lambda w: [energy(w), kg.Tape([kg.RX(0.3, wires=0)], [kg.expval(kg.Y(0))])])
    agree(constant, weights, loss=sum)
    agree(kg.compile(lambda w: several(w)[1]), weights, loss=sum)
    agree(kg.compile(lambda w: kg.Tape([kg.RX(w[0], wires=0)], [kg.probs()])), weights, loss=sum)
    agree(kg.compile(lambda w: [energy(w)]), weights, loss=sum)
    assert len(counts.execute_and_vjp) == 3
    assert len(counts.execute_and_vjp_many) == 2  # of three tapes of two structures, and of two
    value = singles.value_and_backward(weights := weights.requires_grad_(), loss=sum)
    torch.testing.assert_close(value, sum(singles(weights)).detach())
    torch.testing.assert_close(weights.grad, torch.autograd.grad(sum(singles(weights)), weights)[0])


def test_sums_that_are_not_of_all_numbers(counts: Counts) -> None:
    """Python's sum does there what it does with the results."""
    batch = kg.compile(lambda x: [kg.Tape([kg.RX(x, wires=w)], [kg.expval(kg.Z(w))]) for w in range(2)])
    with pytest.raises(ValueError, match="one real number"):
        batch.value_and_grad(angles(4), loss=sum)
    with pytest.raises(TypeError):
        kg.compile(energy).value_and_grad(angles(3), loss=sum)
    with pytest.raises(TypeError):
        kg.compile(several).value_and_grad(angles(3), loss=sum)
    assert not counts.execute_and_vjp
    assert not counts.execute_and_vjp_many


def test_squared_errors_that_torch_differentiates(counts: Counts) -> None:
    """Targets that require grad, or that are in another precision."""
    compiled, x, weights = kg.compile(classifier), angles(4, 3), angles(2, 3, 3)
    agree(compiled, x, weights, argnums=1, loss=kg.MeanSquaredError(angles(4, 2, dtype=torch.float32)))
    targets = angles(4, 2).requires_grad_()
    compiled.value_and_backward(x, weights, loss=kg.MeanSquaredError(targets))
    assert targets.grad is not None
    assert targets.grad.abs().min() > 0
    assert not counts.execute_and_vjp
    assert not counts.execute_and_vjp_many


def test_squared_errors_of_another_shape_are_refused() -> None:
    compiled = kg.compile(classifier)
    with pytest.raises(ValueError, match=r"results of shape \(4, 2\), targets of shape \(4,\)"):
        compiled.value_and_grad(angles(4, 3), angles(2, 3, 3), loss=kg.MeanSquaredError(angles(4)))
    with pytest.raises(TypeError, match="targets are a real tensor"):
        kg.MeanSquaredError(torch.zeros(3, dtype=torch.int64))


def test_what_is_no_real_number_is_refused() -> None:
    compiled, args = kg.compile(classifier), (angles(4, 3), angles(2, 3, 3))
    with pytest.raises(ValueError, match=r"not of a tuple; give a `loss`.*value_and_jacobian"):
        compiled.value_and_grad(*args)
    with pytest.raises(ValueError, match=r"not of torch\.float64 \(4,\)"):
        compiled.value_and_grad(*args, loss=lambda results: results[0])
    with pytest.raises(ValueError, match=r"not of torch\.complex128 \(\)"):
        compiled.value_and_backward(*args, loss=lambda results: results[0].sum() * 1j)
    with pytest.raises(ValueError, match="does not depend on the results"):
        compiled.value_and_grad(*args, loss=lambda results: torch.tensor(results[0].sum().item()))


@pytest.mark.parametrize("argnums", [2, -3, (), (0, 0)])
def test_positions_that_are_none(argnums: Any) -> None:
    with pytest.raises(
        ValueError, match="argnums are positions of different positional arguments, of which there are 2"
    ):
        kg.compile(classifier).value_and_grad(angles(4, 3), angles(2, 3, 3), argnums=argnums, loss=squared)


def test_an_argument_without_tensors() -> None:
    compiled = kg.compile(lambda w, more: energy(w))
    with pytest.raises(TypeError, match="argument 1 is differentiated and has no tensors in it"):
        compiled.value_and_grad(angles(3), [], argnums=1)


# --- what the function reads from outside -----------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(angles(3))
        self.scales = [angles(seed=3)]

    @kg.compile
    def forward(self, x: Tensor) -> kg.Tape:
        gates = [kg.RX(x * scale, wires=0) for scale in self.scales]
        return kg.Tape([*gates, kg.RY(self.weights[0], wires=0), kg.RX(self.weights[1], wires=0)], [kg.expval(kg.Z(0))])


def test_captured_tensors_stand_still_or_accumulate() -> None:
    model, x = Model(), angles(seed=1)
    for _ in range(2):
        agree(model.forward, x)
        model.scales[0] = angles(seed=4)
    assert model.weights.grad is None
    expected = torch.autograd.grad(model(x), model.weights)[0]
    model.forward.value_and_backward(x)
    model.forward.value_and_backward(x)
    assert_close(model.weights.grad, 2 * expected)
    model.scales.append(angles(seed=5))
    agree(model.forward, x)


def test_a_training_loop() -> None:
    def train(step: Callable[[Any, Any, Tensor], Any]) -> list[float]:
        head, weights = nn.Linear(2, 1).double(), angles(2, 3, 3).requires_grad_()
        nn.init.constant_(head.weight, 0.5)
        nn.init.zeros_(head.bias)
        x, y, compiled = angles(6, 3), angles(6, seed=2), kg.compile(classifier)
        optimizer, values = torch.optim.Adam([weights, *head.parameters()], lr=0.1), []

        def loss(results: Any) -> Tensor:
            regular = 0.01 * weights.square().sum()
            return ((head(torch.stack(results, -1)).squeeze(-1) - y) ** 2).mean() + regular

        for _ in range(5):
            optimizer.zero_grad()
            values.append(step(compiled, loss, (x * 0.5 + 0.1, weights)))
            optimizer.step()
        return [float(value) for value in values]

    def by_backward(compiled: Any, loss: Any, args: Any) -> Tensor:
        value = loss(compiled(*args))
        value.backward()
        return value.detach()

    found = train(lambda compiled, loss, args: compiled.value_and_backward(*args, loss=loss))
    assert found == pytest.approx(train(by_backward), abs=1e-10)
    assert found[-1] < found[0]


def test_backward_goes_on_into_what_arguments_were_computed_from() -> None:
    weights, unused = angles(3).requires_grad_(), angles(2).requires_grad_()
    seen: list[Tensor] = []
    weights.register_hook(seen.append)
    compiled = kg.compile(lambda w, unused: energy(torch.cos(w)))
    value = compiled.value_and_backward(torch.exp(weights), unused)
    plain = angles(3).requires_grad_()
    expected = compiled(torch.exp(plain), unused)
    expected.backward()
    assert_close((value, weights.grad), (expected, plain.grad))
    assert len(seen) == 1
    assert unused.grad is None


def test_backward_where_nothing_requires_grad() -> None:
    assert_close(kg.compile(energy).value_and_backward(angles(3)), kg.compile(energy)(angles(3)))


# --- transforms and graphs --------------------------------------------------------------------------------------------


def test_under_transforms() -> None:
    compiled, many = kg.compile(energy), angles(4, 3)
    values, gradients = torch.func.vmap(compiled.value_and_grad)(many)
    for row, value, gradient in zip(many, values, gradients, strict=True):
        assert_close((value, gradient), by_autograd(compiled, row))
    hessian = torch.func.jacfwd(lambda w: compiled.value_and_grad(w)[1])(many[0])
    assert_close(hessian, torch.func.hessian(compiled)(many[0]))
    with pytest.raises(NotImplementedError, match=r"value_and_backward changes \.grad"):
        torch.func.vmap(compiled.value_and_backward)(many)
    batch, weights = kg.compile(classifier), angles(1, 3, 3)
    with pytest.raises(ValueError, match="one real number"):
        torch.func.vmap(lambda x: batch.value_and_grad(x[None], weights))(many)


def test_under_modes() -> None:
    compiled = kg.compile(energy)
    with FlopCounterMode(display=False):
        agree(compiled, angles(3))
        weights = angles(3).requires_grad_()
        compiled.value_and_backward(weights)
    assert_close(weights.grad, by_autograd(compiled, angles(3))[1])
    with FakeTensorMode(allow_non_fake_inputs=True):
        value, gradient = compiled.value_and_grad(torch.rand(3))
        assert value.shape == ()
        assert gradient.shape == (3,)


@pytest.mark.slow
def test_a_graph_of_torch_compile_breaks_and_goes_on() -> None:
    compiled = kg.compile(energy)

    @torch.compile(backend="eager")
    def step(weights: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = compiled.value_and_grad(weights * 2.0)
        return value + 1, 2 * gradient

    value, gradient = step(angles(3))
    expected = by_autograd(lambda w: compiled(2 * w), angles(3))
    assert_close((value - 1, gradient), expected)


def collect(compiled: Any, found: list[Any]) -> None:
    found.append(compiled.value_and_grad(angles(3)))


def test_threads_and_the_garbage_collector() -> None:
    compiled = kg.compile(energy)
    expected = by_autograd(compiled, angles(3))
    found: list[Any] = []
    threads = [threading.Thread(target=collect, args=(compiled, found)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in found:
        assert_close(each, expected)
    gc.disable()
    try:
        gone = weakref.ref(compiled)
        del compiled
        assert gone() is None
    finally:
        gc.enable()


# --- Jacobians --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recompute", [None, True])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("measured", ["one", "several", "probabilities", "mixed"])
def test_jacobians(measured: str, size: int, recompute: bool | None) -> None:
    measurements = {
        "one": [kg.expval(kg.Z(0))],
        "several": [kg.expval(kg.Z(0)), kg.var(kg.X(1)), kg.expval(kg.Z(2))],
        "probabilities": [kg.probs(wires=[2, 0])],
        "mixed": [kg.probs(wires=1), kg.expval(kg.Y(0)), kg.probs()],
    }[measured]
    compiled = kg.compile(lambda x, w: kg.Tape(classifier(x, w).operations, measurements), recompute=recompute)
    args = angles(size, 3), angles(2, 3, 3)
    for argnums in (0, 1, (1, 0)):
        returned, jacobian = compiled.value_and_jacobian(*args, argnums=argnums)
        assert_close(returned, compiled(*args))
        assert_close(jacobian, torch.func.jacrev(compiled, argnums)(*args))


def test_jacobians_are_one_native_batch(counts: Counts) -> None:
    compiled = kg.compile(lambda w: kg.Tape(energy(w).operations, [kg.probs()]))
    compiled.value_and_jacobian(angles(3))
    assert [len(calls) for calls in counts] == [1, 1, 0, 0]


def test_jacobians_of_what_torch_computes() -> None:
    """Parameters that torch computes, several tapes, containers, matrices: through torch.func where it must be."""
    computed = kg.compile(lambda w: [energy(torch.sin(w)), energy(w.flip(0))])
    returned, jacobian = computed.value_and_jacobian(angles(3))
    assert_close(returned, computed(angles(3)))
    assert_close(jacobian, torch.func.jacrev(computed)(angles(3)))
    compiled = kg.compile(lambda p: kg.Tape([kg.RX(p["a"], 0), kg.RY(p["b"][0] * 2 + p["b"][1], 0)], [kg.probs()]))
    parameters = {"a": angles(), "b": angles(3)}
    returned, jacobian = compiled.value_and_jacobian(parameters)
    assert_close(jacobian, torch.func.jacrev(compiled)(parameters))
    real = kg.compile(lambda m: kg.Tape([kg.H(0), kg.QubitUnitary(m, wires=0)], [kg.probs()]))
    matrix = cases.Leaves().orthogonal(1).detach()
    assert_close(real.value_and_jacobian(matrix)[1], torch.func.jacrev(real)(matrix))
    many = angles(2, 3)
    rows = torch.func.vmap(lambda w: computed.value_and_jacobian(w)[1])(many)
    assert_close(rows, torch.func.vmap(torch.func.jacrev(computed))(many))
