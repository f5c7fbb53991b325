"""`kg.nn`: layers of circuits, and blocks against PennyLane's templates.

Tolerances. Blocks in float64 against PennyLane's default.qubit: 1e-10 absolute, for results and gradients. A layer
against `kg.execute` of the same tape: 1e-12 in float64, 1e-5 in float32.
"""

from __future__ import annotations

import copy
import functools
import math
import pickle
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import ketgrad as kg

DOUBLE = 1e-12
SINGLE = 1e-5


def circuit(inputs: Tensor, weights: Tensor, bias: Tensor) -> kg.Tape:
    gates = [kg.RX(inputs[..., w], wires=w) for w in range(2)]
    gates += [kg.Rot(*weights[w], wires=w) for w in range(2)]
    gates += [kg.CNOT(wires=[0, 1]), kg.RY(2 * bias + inputs[..., 1], wires=1)]
    return kg.Tape(gates, [kg.expval(kg.Z(0)), kg.probs(wires=[0, 1]), kg.var(kg.X(1))])


def measuring(*measurements: kg.Measurement) -> Callable[..., kg.Tape]:
    """A circuit of two features and two weights that measures this."""

    def measured(inputs: Tensor, weights: Tensor) -> kg.Tape:
        gates = [kg.RX(inputs[..., w], wires=w) for w in range(2)]
        return kg.Tape([*gates, kg.RY(weights[0], wires=0), kg.CRX(weights[1], wires=[0, 1])], measurements)

    return measured


def ground(weights: Tensor) -> kg.Tape:
    return kg.Tape([kg.RY(weights, wires=0)], [kg.expval(kg.Z(0)), kg.expval(kg.X(0))])


def layer_of(**options: Any) -> kg.nn.CircuitLayer:
    torch.manual_seed(0)
    options.setdefault("dtype", torch.float64)
    return kg.nn.CircuitLayer(circuit, {"weights": (2, 3), "bias": ()}, **options)


def rows(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def executed(layer: kg.nn.CircuitLayer, inputs: Tensor) -> Tensor:
    """The results of `circuit` by `kg.execute`, for a sample or a batch."""
    ((z, p, v),) = kg.execute([layer.tape(inputs)])
    return torch.cat([z.unsqueeze(-1), p, v.unsqueeze(-1)], -1)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = DOUBLE) -> None:
    assert found.dtype is expected.dtype
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (2, 3), (3, 1, 2), (2, 0, 3), (1, 2, 1, 2)], ids=str)
def test_any_batch_dimensions(shape: tuple[int, ...]) -> None:
    layer = layer_of()
    inputs = rows(*shape, 2).requires_grad_()
    found = layer(inputs)
    assert found.shape == (*shape, 6)
    assert found.dtype is torch.float64
    flat = inputs if not shape else inputs.reshape(math.prod(shape), 2)
    expected = executed(layer, flat).reshape(found.shape)
    assert_close(found, expected)
    tensors = [inputs, *layer.parameters()]
    ours = torch.autograd.grad((found * rows(6)).sum(), tensors)
    theirs = torch.autograd.grad((expected * rows(6)).sum(), tensors)
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other)


def test_inputs_that_are_not_contiguous() -> None:
    layer, inputs = layer_of(), rows(2, 4, 3).transpose(0, 2)
    assert_close(layer(inputs), layer(inputs.contiguous()))


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)], ids=str)
@pytest.mark.parametrize(
    ("measurements", "size", "dtype"),
    [
        ([kg.expval(kg.Z(0))], (1,), torch.float64),
        ([kg.expval(kg.Z(0)), kg.expval(kg.Z(1))], (2,), torch.float64),
        ([kg.var(kg.Z(0) @ kg.X(1))], (1,), torch.float64),
        ([kg.probs(wires=0)], (2,), torch.float64),
        ([kg.probs()], (4,), torch.float64),
        ([kg.probs(wires=1), kg.expval(kg.X(0)), kg.probs()], (7,), torch.float64),
        ([kg.state()], (4,), torch.complex128),
        ([kg.density_matrix(wires=0)], (2, 2), torch.complex128),
        ([kg.density_matrix(wires=[1, 0])], (4, 4), torch.complex128),
    ],
    ids=str,
)
def test_what_each_measurement_returns(
    measurements: list[kg.Measurement], size: tuple[int, ...], dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    layer = kg.nn.CircuitLayer(measuring(*measurements), {"weights": 2}, dtype=torch.float64)
    inputs = rows(*shape, 2)
    found = layer(inputs)
    assert found.shape == (*shape, *size)
    assert found.dtype is dtype
    (results,) = kg.execute([layer.tape(inputs.reshape(-1, 2))])
    parts = [results] if isinstance(results, Tensor) else results
    count = math.prod(shape)
    assert_close(found.reshape(count, -1), torch.cat([part.reshape(count, -1) for part in parts], -1))
    found.abs().sum().backward()
    assert layer.weights.grad is not None


def test_a_circuit_without_inputs() -> None:
    layer = kg.nn.CircuitLayer(ground, {"weights": ()}, dtype=torch.float64)
    angle = layer.weights.detach()
    assert_close(layer(), torch.stack([angle.cos(), angle.sin()]).reshape(2))
    assert "weights=()" in repr(layer)
    with pytest.raises(TypeError, match=r"CircuitLayer of ground takes no inputs: call layer\(\)"):
        layer(rows(2))


def test_the_inputs_are_the_parameter_without_a_weight() -> None:
    def any_order(weights: Tensor, *, x: Tensor, wire: int = 0) -> kg.Tape:
        return kg.Tape([kg.RX(x[..., 0], wires=wire), kg.RX(weights, wires=wire)], [kg.expval(kg.Z(wire))])

    layer = kg.nn.CircuitLayer(any_order, {"weights": ()}, dtype=torch.float64)
    x = rows(4, 1)
    assert_close(layer(x), (x + layer.weights).cos())
    assert_close(layer(inputs=x), layer(x))


def test_weights_by_any_names() -> None:
    def named(inputs: Tensor, **angles: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(inputs[..., 0] + angles["a"] + angles["b"], wires=0)], [kg.expval(kg.Z(0))])

    layer = kg.nn.CircuitLayer(named, {"a": (), "b": torch.tensor(0.5, dtype=torch.float64)}, dtype=torch.float64)
    assert_close(layer(rows(3, 1)), (rows(3, 1) + layer.a + 0.5).cos())


def test_tensors_from_outside_get_gradients() -> None:
    shift = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def shifted(inputs: Tensor, weights: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(inputs[..., 0] * weights + shift, wires=0)], [kg.expval(kg.Z(0))])

    layer = kg.nn.CircuitLayer(shifted, {"weights": ()}, dtype=torch.float64)
    layer(rows(3, 1)).sum().backward()
    assert shift.grad is not None

    coefficients = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    observable = kg.Hamiltonian(coefficients, [kg.Z(0), kg.X(0)])
    blocks = kg.nn.CircuitLayer.from_blocks([kg.nn.AngleEmbedding(1)], [kg.expval(observable)])
    blocks(rows(3, 1)).sum().backward()
    assert_close(coefficients.grad, torch.stack([rows(3, 1).cos().sum(), torch.zeros((), dtype=torch.float64)]))


def test_one_trace_serves_all_batches() -> None:
    layer = layer_of()
    for shape in [(4, 2), (5, 2), (2, 3, 2)]:
        layer(rows(*shape))
    assert layer.circuit.traces == 1
    layer.eval()
    layer(rows(4, 2))
    assert layer.circuit.traces == 1


def test_gradcheck() -> None:
    layer = layer_of()
    assert torch.autograd.gradcheck(layer, rows(2, 2).requires_grad_())


# --- dtypes, devices --------------------------------------------------------------------------------------------------


def test_precisions() -> None:
    layer = layer_of(dtype=None)
    assert layer(rows(3, 2, dtype=torch.float32)).dtype is torch.float32
    expected = layer.double()(rows(3, 2))
    assert expected.dtype is torch.float64
    assert_close(layer.to(torch.float32)(rows(3, 2, dtype=torch.float32)).double(), expected, SINGLE)


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(half: torch.dtype) -> None:
    layer = layer_of(dtype=torch.float32)
    inputs = rows(3, 2, dtype=half).requires_grad_()
    found = layer(inputs)
    assert_close(found, layer(inputs.float()), 0)
    layer.to(half)
    found = layer(inputs)
    assert found.dtype is torch.float32
    found.sum().backward()
    assert inputs.grad.dtype is half
    assert layer.weights.grad.dtype is half
    widened = layer_of(dtype=torch.float32)
    widened.load_state_dict(layer.state_dict())
    assert_close(found, widened(inputs.float()), 0)


def test_autocast() -> None:
    """Behind a linear layer that autocast runs in bfloat16, the circuit and its arithmetic run in single precision."""

    def mixed(inputs: Tensor, weights: Tensor) -> kg.Tape:
        angles = inputs @ weights  # a matrix product, which autocast would run in bfloat16
        return kg.Tape([kg.RX(angles[..., w], wires=w) for w in range(2)], [kg.expval(kg.Z(w)) for w in range(2)])

    torch.manual_seed(0)
    linear, layer = nn.Linear(3, 2), kg.nn.CircuitLayer(mixed, {"weights": (2, 2)})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = linear(torch.rand(4, 3))
        assert hidden.dtype is torch.bfloat16
        found = layer(hidden)
    assert_close(found, layer(hidden.float()), 0)
    found.sum().backward()
    assert linear.weight.grad is not None
    assert layer.weights.grad.dtype is torch.float32


def test_factory_options() -> None:
    assert layer_of(dtype=torch.float64).bias.dtype is torch.float64
    layer = layer_of(dtype=None, device="meta")
    assert layer.weights.is_meta
    assert layer(torch.empty(5, 2, device="meta")).shape == (5, 6)


def test_cuda(cuda: torch.device) -> None:
    layer = layer_of(device=cuda)
    found = layer(rows(2, 3, 2).to(cuda))
    assert found.device == cuda
    found.sum().backward()
    assert layer.weights.grad.device == cuda
    assert_close(found.cpu(), layer.cpu()(rows(2, 3, 2)))


# --- weights ----------------------------------------------------------------------------------------------------------


def test_default_initialisation_is_uniform() -> None:
    torch.manual_seed(0)
    layer = kg.nn.CircuitLayer(ground, {"weights": 4000})
    assert 0 <= layer.weights.min() < 0.05
    assert 2 * math.pi - 0.05 < layer.weights.max() < 2 * math.pi
    assert layer.weights.mean().item() == pytest.approx(math.pi, abs=0.15)
    assert layer.weights.requires_grad


def test_initialisers() -> None:
    layer = layer_of(init=nn.init.zeros_)
    assert all((p == 0).all() for p in layer.parameters())
    layer = layer_of(init={"bias": nn.init.ones_})
    assert layer.bias == 1
    assert layer.weights.unique().numel() == 6
    layer = layer_of(init=functools.partial(nn.init.normal_, std=1e-6))
    assert layer.weights.abs().max() < 1e-4


def test_weights_from_tensors() -> None:
    values, shared = rows(2, 3), nn.Parameter(rows())
    layer = kg.nn.CircuitLayer(circuit, {"weights": values, "bias": shared})
    assert layer.bias is shared
    assert_close(layer.weights.detach(), values)
    values.zero_()
    assert layer.weights.abs().sum() > 0
    single = kg.nn.CircuitLayer(circuit, {"weights": values, "bias": shared}, dtype=torch.float32)
    assert {p.dtype for p in single.parameters()} == {torch.float32}
    frozen = nn.Parameter(rows(), requires_grad=False)
    layer = kg.nn.CircuitLayer(circuit, {"weights": (2, 3), "bias": frozen}, dtype=torch.float64)
    layer(rows(4, 2)).sum().backward()
    assert frozen.grad is None
    assert layer.weights.grad is not None


def test_parameters_and_text() -> None:
    layer = layer_of()
    assert layer.num_parameters == 7
    assert list(layer.state_dict()) == ["weights", "bias"]
    assert repr(layer) == "CircuitLayer(circuit, weights=(2, 3), bias=(), num_parameters=7)"
    assert repr(layer.circuit) == "<compiled circuit: 0 traces>"


def test_drawing() -> None:
    layer = layer_of(init=nn.init.zeros_)
    expected = """
        0: ──RX(0.10)──Rot(0.00, 0.00, 0.00)──╭●────────────┤ ⟨Z⟩  ╭Probs
        1: ──RX(0.20)──Rot(0.00, 0.00, 0.00)──╰X──RY(0.20)──┤      ╰Probs  Var[X]
    """
    lines = [line.strip() for line in expected.strip().splitlines()]
    assert layer.draw(torch.tensor([0.1, 0.2], dtype=torch.float64)).splitlines() == lines
    assert "RX([5])" in layer.draw(rows(5, 2))
    assert "RX──Rot──" in layer.draw(rows(2), decimals=None)
    assert str(layer.tape(rows(2))) == layer.draw(rows(2))
    with pytest.raises(TypeError, match="takes a tensor as inputs"):
        layer.draw()
    blocks = kg.nn.CircuitLayer.from_blocks([kg.nn.AngleEmbedding(1), kg.nn.BasicEntangler(1)], init=nn.init.zeros_)
    assert blocks.draw() == "0: ──RX(?)──RX(0.00)──┤ ⟨Z⟩"
    assert "0: ──RY(" in kg.nn.CircuitLayer(ground, {"weights": ()}).draw()


# --- copies, files, training ------------------------------------------------------------------------------------------


def test_state_dict() -> None:
    layer, other = layer_of(), layer_of(init=nn.init.zeros_)
    other.load_state_dict(layer.state_dict())
    assert_close(other(rows(3, 2)), layer(rows(3, 2)), 0)
    with pytest.raises(RuntimeError, match="size mismatch for weights"):
        other.load_state_dict({"weights": rows(2), "bias": rows()})


def test_deepcopy() -> None:
    layer = layer_of()
    before = layer(rows(3, 2))
    other = copy.deepcopy(layer)
    assert other.circuit.function is other._circuit
    assert_close(other(rows(3, 2)), before, 0)
    with torch.no_grad():
        other.weights.add_(1.0)
    assert_close(layer(rows(3, 2)), before, 0)
    assert (other(rows(3, 2)) - before).abs().max() > 1e-3
    other(rows(3, 2)).sum().backward()
    assert layer.weights.grad is None


FRESH = """
import sys
import torch
saved = torch.load(sys.argv[1], weights_only=False)
found = [layer(saved["inputs"]) for layer in saved["layers"]]
assert [(a - b).abs().max() for a, b in zip(found, saved["results"])] == [0, 0]
sum(f.sum() for f in found).backward()
print(saved["layers"][1])
"""


def run(code: str, *arguments: Any) -> subprocess.Popen[str]:
    """A fresh Python that finds this file and the package."""
    setting = f"import sys; sys.path[:0] = {[str(Path(kg.__file__).parents[1]), str(Path(__file__).parent)]!r}\n"
    command = [sys.executable, "-c", setting + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(processes: list[subprocess.Popen[str]], seconds: float = 100) -> list[str]:
    """What they print; none outlives this."""
    try:
        printed = [process.communicate(timeout=seconds)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, text in zip(processes, printed, strict=True):
        assert process.returncode == 0, text
    return printed


def blocks_layer() -> kg.nn.CircuitLayer:
    blocks = [kg.nn.IQPEmbedding(2), kg.nn.StronglyEntangling(2, imprimitive=kg.CZ), kg.nn.HardwareEfficient(2)]
    return kg.nn.CircuitLayer.from_blocks(blocks, dtype=torch.float64)


@pytest.mark.slow
def test_pickle_into_a_fresh_process(tmp_path: Path) -> None:
    layers, inputs = [layer_of(), blocks_layer()], rows(2, 3, 2)
    saved = {"layers": layers, "inputs": inputs, "results": [layer(inputs) for layer in layers]}
    torch.save(saved, tmp_path / "layers.pt")
    (printed,) = finish([run(FRESH, tmp_path / "layers.pt")])
    assert "weights_1=(1, 2, 3), weights_2=(2, 2, 2), num_parameters=14" in printed


def test_a_local_function_does_not_pickle() -> None:
    with pytest.raises((pickle.PicklingError, AttributeError), match="measured"):
        pickle.dumps(kg.nn.CircuitLayer(measuring(kg.state()), {"weights": 2}))


def train(layer: nn.Module, run_: Callable[[Tensor], Tensor]) -> list[Tensor]:
    layer.zero_grad()
    (run_(rows(6, 2)) * rows(6, 6, seed=2)).sum().backward()
    return [p.grad.clone() for p in layer.parameters()]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpoint(reentrant: bool) -> None:
    layer = layer_of()
    inputs = rows(6, 2).requires_grad_()
    plain = train(layer, layer)
    found = train(layer, lambda x: checkpoint(layer, inputs, use_reentrant=reentrant))
    for one, other in zip(found, plain, strict=True):
        assert_close(one, other)
    assert inputs.grad is not None


def test_accumulation() -> None:
    layer = layer_of()
    plain = train(layer, layer)
    layer.zero_grad()
    for inputs, weight in zip(rows(6, 2).split(2), rows(6, 6, seed=2).split(2), strict=True):
        (layer(inputs) * weight).sum().backward()
    for p, other in zip(layer.parameters(), plain, strict=True):
        assert_close(p.grad, other)


def test_training() -> None:
    torch.manual_seed(0)
    blocks = [kg.nn.DataReuploading(1, layers=3)]
    model = nn.Sequential(nn.Linear(1, 1), kg.nn.CircuitLayer.from_blocks(blocks))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    x = torch.linspace(-1, 1, 32).unsqueeze(-1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (model(x) - (3 * x).sin()).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_functional_call_and_parametrisations() -> None:
    layer = layer_of()
    found = torch.func.functional_call(layer, {"weights": torch.zeros_like(layer.weights)}, rows(3, 2))
    parametrize.register_parametrization(layer, "weights", nn.Threshold(100.0, 0.0))
    assert_close(layer(rows(3, 2)), found)


# It leaves without Python's way out, on which torch's gloo threads sometimes abort (of any module: nn.Linear as well).
DISTRIBUTED = """
import os
import sys
import torch
import torch.distributed as dist
from test_nn import layer_of, rows
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
model = torch.nn.parallel.DistributedDataParallel(layer_of())
(model(rows(6, 2)[rank * 3:][:3]) * rows(6, 6, seed=2)[rank * 3:][:3]).sum().backward()
torch.save([2 * p.grad for p in model.parameters()], f"{folder}/{rank}.pt")
dist.destroy_process_group()
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="no gloo")
def test_distributed_data_parallel(tmp_path: Path) -> None:
    """Each of two processes has half of the batch; gradients are averaged."""
    finish([run(DISTRIBUTED, rank, tmp_path) for rank in range(2)])
    layer = layer_of()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt")
        for one, other in zip(found, train(layer, layer), strict=True):
            assert_close(one, other)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (None, TypeError, "must be a floating-point tensor of shape (..., features); none are given"),
        ([0.1, 0.2], TypeError, "not list; use torch.as_tensor"),
        (0.1, TypeError, "not float; use torch.as_tensor"),
        (torch.zeros(2, dtype=torch.int64), TypeError, "not of torch.int64; use inputs.float()"),
        (torch.zeros(2, dtype=torch.bool), TypeError, "not of torch.bool; use inputs.float()"),
        (torch.zeros(2, dtype=torch.complex64), TypeError, "not of torch.complex64; embed real and imaginary parts"),
        (torch.tensor(0.1), ValueError, "not of shape ()"),
        (torch.zeros(3, 2), ValueError, "the inputs are of torch.float32 and the weight 'weights' of torch.float64"),
        (
            torch.zeros(3, 2, device="meta").double(),
            ValueError,
            "the inputs are on meta and the weight 'weights' on cpu",
        ),
    ],
    ids=repr,
)
def test_refused_inputs(inputs: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        layer_of()(inputs)
    assert "circuit: " in str(caught.value)


READ: dict[str, tuple[Callable[[Tensor, Tensor], kg.Tape], str]] = {
    # what a function of four features and a weight does with them, and what it is warned of
    "some": (
        lambda x, w: kg.Tape([kg.RX(x[..., 0], 0), kg.RX(2 * x[..., 2] + 1, 1), kg.RY(w[0], 0)], Z0),
        "features 1, 3",
    ),
    "all but one": (lambda x, w: kg.Tape([kg.RX(x[..., i], i) for i in range(3)], Z0), "feature 3 has"),
    "all": (lambda x, w: kg.Tape([kg.RX(x[..., i % 4], 0) for i in range(9)], Z0), ""),
    "of functions": (lambda x, w: kg.Tape([kg.RX(torch.sin(x)[..., 0] * w[0], 0)], Z0), ""),
    "a state": (lambda x, w: kg.Tape([kg.StatePrep(nn.functional.normalize(x, dim=-1), [0, 1])], Z0), ""),
    "coefficients": (
        lambda x, w: kg.Tape([kg.RX(x[..., 0], 0)], [kg.expval(kg.Hamiltonian(x[..., 1:3], [kg.Z(0), kg.X(0)]))]),
        "feature 3 has",
    ),
}
Z0 = [kg.expval(kg.Z(0))]


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_features_without_effect(name: str, shape: tuple[int, ...]) -> None:
    function, expected = READ[name]
    layer = kg.nn.CircuitLayer(function, {"w": 1})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer(torch.rand(shape))
    found = [str(warning.message) for warning in caught]
    assert len(found) == bool(expected)
    assert all(expected in text and "no effect on the results" in text for text in found)


def test_too_few_features() -> None:
    with pytest.raises(ValueError, match=r"reads beyond its tensors .*, which have the shapes: inputs \(3, 1\)"):
        layer_of()(rows(3, 1))
    layer = kg.nn.CircuitLayer.from_blocks([kg.nn.AngleEmbedding(3)])
    with pytest.raises(
        ValueError, match=re.escape("AngleEmbedding on 3 wires: inputs must have shape (3,) or (B, 3), not (5, 4)")
    ):
        layer(rows(5, 4))


def test_batches_that_do_not_fit() -> None:
    def wrong_axis(inputs: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(inputs[0], wires=0)], [kg.expval(kg.Z(0))])

    layer = kg.nn.CircuitLayer(wrong_axis, {})
    hint = re.escape("index features as inputs[..., i]")
    with pytest.raises(ValueError, match=f"makes a batch of 2 circuits of a batch of 3 samples; {hint}"):
        layer(rows(3, 2))
    assert layer(rows(2, 2)).shape == (2, 1)  # as far as one can see
    with pytest.raises(ValueError, match=f"a batch of 2 circuits of a batch of 5 samples; {hint}"):
        layer(rows(5, 2))

    def constant(inputs: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(inputs.sum(), wires=0)], [kg.probs()])

    with pytest.raises(ValueError, match=f"makes one circuit of a batch of 2 samples; {hint}"):
        kg.nn.CircuitLayer(constant, {})(rows(2, 2))

    def batch_of_features(inputs: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(inputs, wires=0)], [kg.probs()])

    with pytest.raises(ValueError, match=f"makes a batch of 2 circuits of a single sample; {hint}"):
        kg.nn.CircuitLayer(batch_of_features, {})(rows(2))
    with pytest.raises(ValueError, match=r"ground makes a batch of 3 circuits of a single sample$"):
        kg.nn.CircuitLayer(ground, {"weights": 3})()


@pytest.mark.parametrize("others", [[kg.expval(kg.Z(0))], [kg.density_matrix(wires=0)]], ids=str)
def test_states_beside_other_measurements(others: list[kg.Measurement]) -> None:
    layer = kg.nn.CircuitLayer(measuring(kg.state(), *others), {"weights": 2}, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"state is complex and must be a layer's only measurement"):
        layer(rows(3, 2))


def test_functions_that_return_something_else() -> None:
    layer = kg.nn.CircuitLayer(lambda inputs: [ground(inputs[..., 0])], {})
    with pytest.raises(TypeError, match=r"<lambda> must return a kg.Tape for a CircuitLayer, not list"):
        layer(rows(3, 2))
    sampled = kg.nn.CircuitLayer(lambda x: kg.Tape([kg.RX(x[..., 0], wires=0)], [kg.sample()], shots=5), {})
    with pytest.raises(NotImplementedError, match="shots"):
        sampled(rows(3, 2))


def positional(inputs: Tensor, weights: Tensor, /) -> kg.Tape:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "weights", "error", "message"),
    [
        (3, {}, TypeError, "takes a function that returns a kg.Tape, not int"),
        (kg.compile(circuit), {}, TypeError, "give it the function itself, without kg.compile"),
        (circuit, {"weights": (2, 3)}, ValueError, "circuit has the parameters inputs, bias without a weight"),
        (circuit, {"weight": 2}, ValueError, "'weight' is no parameter of circuit, which has inputs, weights, bias"),
        (positional, {"weights": 2}, ValueError, "positional has positional-only parameters"),
        (ground, {"weights": 2.5}, TypeError, "weight 'weights' must be a shape, such as (3, 4), or a tensor, not 2.5"),
        (ground, {"weights": (2, -1)}, TypeError, "must be a shape"),
        (ground, {"weights": "ab"}, TypeError, "must be a shape"),
        (ground, {"weights": torch.arange(3)}, TypeError, "must be of floating-point numbers, not of torch.int64"),
        (ground, {"weights": torch.zeros(3, dtype=torch.complex64)}, TypeError, "not of torch.complex64"),
        (lambda tape: None, {"tape": 3}, ValueError, "weight 'tape': the layer has an attribute of this name"),
        (lambda half: None, {"half": 3}, ValueError, "weight 'half': the layer has an attribute of this name"),
    ],
    ids=lambda value: getattr(value, "__qualname__", str(value)),
)
def test_refused_functions_and_weights(function: Any, weights: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        kg.nn.CircuitLayer(function, weights)


def test_refused_options() -> None:
    with pytest.raises(ValueError, match="init has 'gain', which is no weight of the layer"):
        layer_of(init={"gain": nn.init.zeros_})
    with pytest.raises(ValueError, match="init has 'weights', which is given as a tensor"):
        kg.nn.CircuitLayer(ground, {"weights": rows(2)}, init={"weights": nn.init.zeros_})
    with pytest.raises(TypeError, match="init must be a function that fills a tensor"):
        layer_of(init=0.1)
    with pytest.raises(TypeError, match=r"must be of floating-point numbers, not of torch\.int64"):
        layer_of(dtype=torch.int64)


def test_a_qnode_is_refused() -> None:
    qml = pytest.importorskip("pennylane")
    qnode = qml.QNode(lambda inputs: qml.expval(qml.Z(0)), qml.device("default.qubit"))
    with pytest.raises(TypeError, match=r"use PennyLane's TorchLayer of kg.compile\(qnode\)"):
        kg.nn.CircuitLayer(qnode, {})


# --- blocks -----------------------------------------------------------------------------------------------------------


def templates() -> dict[str, tuple[kg.nn.Block, Callable[..., Any]]]:
    """Blocks, each with what queues the same in PennyLane."""
    qml = pytest.importorskip("pennylane")
    nn_, wires = kg.nn, range(3)
    cases = {
        f"angle {axis}": (
            nn_.AngleEmbedding(3, rotation=axis),
            lambda x, axis=axis: qml.AngleEmbedding(x, wires=wires, rotation=axis),
        )
        for axis in "XYZ"
    }
    cases |= {
        "angle, labels": (
            nn_.AngleEmbedding([2, 0], rotation="Y"),
            lambda x: qml.AngleEmbedding(x, wires=[2, 0], rotation="Y"),
        ),
        "amplitude": (
            nn_.AmplitudeEmbedding(3, normalize=True),
            lambda x: qml.AmplitudeEmbedding(x, wires=wires, normalize=True),
        ),
        # A value without rounding error: PennyLane pads in torch's default dtype.
        "amplitude, padded": (
            nn_.AmplitudeEmbedding(3, features=5, pad_with=0.25, normalize=True),
            lambda x: qml.AmplitudeEmbedding(x, wires=wires, pad_with=0.25, normalize=True),
        ),
        "iqp": (nn_.IQPEmbedding(3, repeats=2), lambda x: qml.IQPEmbedding(x, wires=wires, n_repeats=2)),
        "iqp, pattern": (
            nn_.IQPEmbedding(3, pattern=[(2, 0), (0, 1)]),
            lambda x: qml.IQPEmbedding(x, wires=wires, pattern=[(2, 0), (0, 1)]),
        ),
    }
    for n in (1, 2, 3, 4):
        cases[f"basic {n}"] = (
            nn_.BasicEntangler(n, layers=2),
            lambda w, n=n: qml.BasicEntanglerLayers(w, wires=range(n)),
        )
        cases[f"strong {n}"] = (
            nn_.StronglyEntangling(n, layers=4),
            lambda w, n=n: qml.StronglyEntanglingLayers(w, wires=range(n)),
        )
        cases[f"qaoa {n}"] = (nn_.QAOA(n, layers=2), lambda x, w, n=n: qml.QAOAEmbedding(x, w, wires=range(n)))

    def reuploading(x: Any, w: Any) -> None:
        for layer in range(3):
            qml.AngleEmbedding(x, wires=wires, rotation="Y")
            qml.StronglyEntanglingLayers(w[layer : layer + 1], wires=wires, ranges=[layer % 2 + 1])

    def efficient(w: Any) -> None:
        for layer in range(3):
            for axis, gate in enumerate((qml.RY, qml.RZ)):
                for wire in wires:
                    gate(w[layer, axis, wire], wires=wire)
            for pair in [[1, 2], [0, 1]] if layer < 2 else []:
                qml.CNOT(wires=pair)

    cases |= {
        "basic Z": (
            nn_.BasicEntangler(3, rotation="Z"),
            lambda w: qml.BasicEntanglerLayers(w, wires=wires, rotation=qml.RZ),
        ),
        "strong, options": (
            nn_.StronglyEntangling(4, layers=2, ranges=[3, 2], imprimitive=kg.CZ),
            lambda w: qml.StronglyEntanglingLayers(w, wires=range(4), ranges=[3, 2], imprimitive=qml.CZ),
        ),
        "qaoa, options": (
            nn_.QAOA(3, features=2, local_field="X"),
            lambda x, w: qml.QAOAEmbedding(x, w, wires=wires, local_field="X"),
        ),
        "reuploading": (nn_.DataReuploading(3, layers=3, rotation="Y"), reuploading),
        "efficient": (nn_.HardwareEfficient(3, layers=2), efficient),
    }
    return cases


NAMES = [
    *("angle X", "angle Y", "angle Z", "angle, labels", "amplitude", "amplitude, padded", "iqp", "iqp, pattern"),
    *(f"{kind} {n}" for kind in ("basic", "strong", "qaoa") for n in (1, 2, 3, 4)),
    *("basic Z", "strong, options", "qaoa, options", "reuploading", "efficient"),
]


def test_all_templates_are_named() -> None:
    assert sorted(templates()) == sorted(NAMES)
    assert {type(block).__name__ for block, _ in templates().values()} == set(kg.nn.__all__) - {"Block", "CircuitLayer"}


@pytest.mark.parametrize("batch", [(), (3,)], ids=["sample", "batch"])
@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_pennylanes_templates(name: str, batch: tuple[int, ...]) -> None:
    """Results and gradients, of the block by itself with `kg.execute` and in a layer."""
    qml = pytest.importorskip("pennylane")
    block, template = templates()[name]
    if batch and not block.num_features:
        batch = ()
    tensors = [rows(*batch, block.num_features)] if block.num_features else []
    tensors += [6 * rows(*shape) for shape in block.weight_shapes.values()]
    tensors = [tensor.requires_grad_() for tensor in tensors]
    spread = list(block.wires)
    measured = [kg.probs(wires=spread), kg.expval(kg.X(spread[0])), kg.expval(kg.Y(spread[-1]))]

    @qml.qnode(qml.device("default.qubit", wires=sorted(spread)), interface="torch", diff_method="backprop")
    def node(*given: Tensor) -> Any:
        template(*given)
        return qml.probs(wires=spread), qml.expval(qml.X(spread[0])), qml.expval(qml.Y(spread[-1]))

    def joined(parts: Any) -> Tensor:
        p, *numbers = parts
        return torch.cat([p, *[n.unsqueeze(-1) for n in numbers]], -1)

    layer = kg.nn.CircuitLayer.from_blocks([block], measured, dtype=torch.float64)
    layer.load_state_dict(dict(zip(layer.state_dict(), tensors[bool(block.num_features) :], strict=True)))
    expected = joined(node(*tensors))
    by_hand = joined(kg.execute([kg.Tape(block(*tensors), measured)])[0])
    by_layer = layer(*tensors[: bool(block.num_features)])
    direction = rows(expected.shape[-1], seed=3)
    wanted = torch.autograd.grad((expected * direction).sum(), tensors)
    for found, of in ((by_hand, tensors), (by_layer, [*tensors[: bool(block.num_features)], *layer.parameters()])):
        torch.testing.assert_close(found, expected.to(torch.float64), atol=1e-10, rtol=0)
        for one, other in zip(torch.autograd.grad((found * direction).sum(), of), wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


def test_hardware_efficient_is_qiskits() -> None:
    library = pytest.importorskip("qiskit.circuit.library")
    block = kg.nn.HardwareEfficient(4, layers=2)
    theirs = library.efficient_su2(4, reps=2)
    weights = rows(*block.weight_shapes["weights"])
    tape = kg.Tape(block(weights), [kg.probs()])
    bound = kg.from_qiskit(theirs.assign_parameters(weights.flatten().tolist()), [kg.probs(wires=range(4))])
    assert_close(kg.execute([tape])[0], kg.execute([bound])[0])


def test_weights_with_a_batch_axis() -> None:
    block = kg.nn.StronglyEntangling(2, layers=2)
    weights = rows(3, 2, 2, 3)
    (found,) = kg.execute([kg.Tape(block(weights), [kg.probs()])])
    for one, other in zip(found, weights, strict=True):
        assert_close(one, kg.execute([kg.Tape(block(other), [kg.probs()])])[0])


def test_what_blocks_say_of_themselves() -> None:
    block = kg.nn.QAOA(["a", "b", "c"], layers=2, features=2)
    assert block.wires == ("a", "b", "c")
    assert (block.num_features, block.weight_shapes, block.num_parameters) == (2, {"weights": (2, 6)}, 12)
    assert repr(block) == "QAOA(wires=('a', 'b', 'c'), num_features=2, layers=2, local_field='Y')"
    embedding = kg.nn.AmplitudeEmbedding(2)
    assert (embedding.num_features, embedding.weight_shapes, embedding.num_parameters) == (4, {}, 0)
    assert embedding.draw() == "0: ──╭|ψ⟩──\n1: ──╰|ψ⟩──"
    assert "imprimitive=CZ" in repr(kg.nn.StronglyEntangling(2, imprimitive=kg.CZ))
    with pytest.raises(AttributeError, match="immutable"):
        block.layers = 3
    same = pickle.loads(pickle.dumps(block))
    assert repr(same) == repr(copy.deepcopy(block)) == repr(block)
    assert same.draw() == block.draw()


def test_layers_of_blocks() -> None:
    layer = kg.nn.CircuitLayer.from_blocks([kg.nn.AngleEmbedding([1, 0]), kg.nn.BasicEntangler([2, 1])])
    assert list(layer.state_dict()) == ["weights"]
    assert [str(m) for m in layer.tape(rows(2, dtype=torch.float32)).measurements] == [
        f"expval(Z({w}))" for w in range(3)
    ]
    assert layer(rows(4, 2, dtype=torch.float32)).shape == (4, 3)
    repeated = [kg.nn.AngleEmbedding(2), kg.nn.BasicEntangler(2)] * 2
    layer = kg.nn.CircuitLayer.from_blocks(repeated, [kg.expval(kg.Z(1))], init={"weights_3": nn.init.zeros_})
    assert list(layer.state_dict()) == ["weights_1", "weights_3"]
    assert layer.weights_3.abs().sum() == 0
    assert repr(layer).startswith("CircuitLayer(AngleEmbedding + BasicEntangler + AngleEmbedding + BasicEntangler, ")
    assert kg.nn.CircuitLayer.from_blocks([kg.nn.BasicEntangler(["a", "b"])])().shape == (2,)


def test_blocks_in_a_function() -> None:
    embedding, entangler = kg.nn.AngleEmbedding(2), kg.nn.StronglyEntangling(2)

    def composed(inputs: Tensor, weights: Tensor, scale: Tensor) -> kg.Tape:
        return kg.Tape(embedding(scale * inputs) + entangler(weights), [kg.expval(kg.Z(0))])

    layer = kg.nn.CircuitLayer(composed, {**entangler.weight_shapes, "scale": 2}, dtype=torch.float64)
    assert layer(rows(3, 4, 2)).shape == (3, 4, 1)
    assert layer.num_parameters == entangler.num_parameters + 2


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda n: n.AngleEmbedding(0), ValueError, "AngleEmbedding needs at least one wire, not wires=0"),
        (lambda n: n.AngleEmbedding([0, 0]), ValueError, "wire 0 is repeated"),
        (lambda n: n.AngleEmbedding(2.5), TypeError, "a wire is an integer"),
        (lambda n: n.AngleEmbedding(2, rotation="W"), ValueError, 'AngleEmbedding: rotation must be "X", "Y" or "Z"'),
        (lambda n: n.AmplitudeEmbedding(2, features=5), ValueError, "2 wires hold 4 features, not 5"),
        (lambda n: n.AmplitudeEmbedding(2, features=3), ValueError, "give pad_with=0.0 for the rest"),
        (lambda n: n.IQPEmbedding(3, pattern=[(0, 3)]), ValueError, "the pattern has (0, 3), which is no pair"),
        (lambda n: n.IQPEmbedding(3, repeats=0), ValueError, "repeats must be a positive integer, not 0"),
        (lambda n: n.BasicEntangler(3, layers=1.5), ValueError, "layers must be a positive integer, not 1.5"),
        (lambda n: n.StronglyEntangling(3, layers=2, ranges=[1]), ValueError, "1 ranges for 2 layers"),
        (lambda n: n.StronglyEntangling(3, ranges=[3]), ValueError, "no multiple of 3, not 3"),
        (lambda n: n.StronglyEntangling(3, imprimitive=kg.CRX), TypeError, "a gate such as kg.CNOT or kg.CZ"),
        (lambda n: n.StronglyEntangling(3, imprimitive="CZ"), TypeError, "a gate such as kg.CNOT or kg.CZ"),
        (lambda n: n.HardwareEfficient(3, rotations=""), ValueError, "at least one axis"),
        (lambda n: n.HardwareEfficient(3, rotations="YW"), ValueError, "an axis of the rotations must be"),
        (lambda n: n.QAOA(2, features=3), ValueError, "2 wires take 2 features or fewer, not 3"),
        (lambda n: n.QAOA(2, local_field="H"), ValueError, "local_field must be"),
        (lambda n: n.CircuitLayer.from_blocks([]), ValueError, "at least one block"),
        (
            lambda n: n.CircuitLayer.from_blocks([kg.H(0)]),
            TypeError,
            "expected blocks, such as kg.nn.AngleEmbedding(4)",
        ),
        (
            lambda n: n.CircuitLayer.from_blocks([n.AngleEmbedding(2), n.AngleEmbedding(3)]),
            ValueError,
            "all blocks of a layer take the same inputs",
        ),
        (lambda n: n.BasicEntangler(3)(torch.zeros(2, 3)), ValueError, "weights must have shape (1, 3), not (2, 3)"),
        (lambda n: n.BasicEntangler(3)([[1, 2, 3]]), TypeError, "weights must be a tensor, not list"),
        (lambda n: n.AngleEmbedding(3)(torch.zeros(2, 2, 3)), ValueError, "shape (3,) or (B, 3), not (2, 2, 3)"),
        (
            lambda n: n.AngleEmbedding(3)(0.5),
            TypeError,
            "AngleEmbedding on 3 wires: inputs must be a tensor, not float",
        ),
        (lambda n: n.AmplitudeEmbedding(1)(torch.ones(2)), ValueError, "the state must have norm 1"),
    ],
)
def test_refused_blocks(build: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        build(kg.nn)
