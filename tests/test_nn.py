"""Circuits as layers: shapes, torch's ways to train, copy and compile a module, and blocks against PennyLane's."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pennylane as qml
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils.checkpoint import checkpoint

import ketgrad as kg

F64 = torch.float64


def circuit(inputs: Tensor, weights: Tensor, bias: Tensor) -> kg.Tape:
    operations: list[kg.Operation] = [kg.RX(inputs[..., w], wires=w) for w in range(3)]
    for layer in weights:
        operations += [kg.Rot(*layer[w], wires=w) for w in range(3)]
        operations += [kg.CNOT(wires=[w, (w + 1) % 3]) for w in range(3)]
    operations.append(kg.RY(bias, wires=0))
    return kg.Tape(operations, [kg.expval(kg.Z(0)), kg.probs(wires=[1, 2]), kg.var(kg.X(1))])


SHAPES = {"weights": (2, 3, 3), "bias": ()}


def make(**kwargs: Any) -> kg.nn.CircuitLayer:
    torch.manual_seed(0)
    return kg.nn.CircuitLayer(circuit, SHAPES, **kwargs)


def by_hand(layer: kg.nn.CircuitLayer, inputs: Tensor) -> Tensor:
    z, p, v = kg.execute([circuit(inputs, layer.weights, layer.bias)])[0]  # type: ignore[arg-type]
    return torch.cat([z.unsqueeze(-1), p, v.unsqueeze(-1)], -1)


# --- the layer --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [(), (1,), (5,), (0,), (2, 3), (2, 1, 3, 2), (0, 4)], ids=str)
def test_leading_axes(lead: tuple[int, ...]) -> None:
    layer = make(dtype=F64)
    inputs = torch.randn(*lead, 3, dtype=F64, requires_grad=True)
    found = layer(inputs)
    assert found.shape == (*lead, 6)
    flat = inputs if not lead else inputs.reshape(-1, 3)
    torch.testing.assert_close(found.reshape(by_hand(layer, flat).shape), by_hand(layer, flat))
    gradients = torch.autograd.grad(found.sum(), [inputs, *layer.parameters()])
    expected = torch.autograd.grad(by_hand(layer, flat).sum(), [inputs, *layer.parameters()])
    torch.testing.assert_close(gradients, expected)


def test_initialisers() -> None:
    assert ((make().weights >= 0) & (make().weights <= 2 * torch.pi)).all()
    assert (make(init=nn.init.zeros_).weights == 0).all()
    layer = make(init={"bias": lambda t: nn.init.constant_(t, 3)})
    assert layer.bias == 3
    assert (layer.weights != 0).any()
    given = nn.Parameter(torch.randn(2, 3, 3))
    layer = kg.nn.CircuitLayer(circuit, {"weights": given, "bias": torch.tensor(0.5)})
    assert layer.weights is given
    assert layer.bias == 0.5
    layer.reset_parameters()
    assert layer.bias == 0.5


def test_state_dict_copies_and_pickles() -> None:
    layer, inputs = make(), torch.randn(4, 3)
    assert set(layer.state_dict()) == {"weights", "bias"}
    other = make(init=nn.init.zeros_)
    other.load_state_dict(layer.state_dict())
    expected = layer(inputs)
    for same in (other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        torch.testing.assert_close(same(inputs), expected)
        assert same.weights is not layer.weights


def test_a_layer_goes_to_a_fresh_process(tmp_path: Path) -> None:
    layer = kg.nn.CircuitLayer.of(kg.nn.AngleEmbedding(3), kg.nn.StronglyEntangling(3, layers=2))
    inputs = torch.randn(4, 3)
    torch.save((layer, inputs, layer(inputs).detach()), tmp_path / "layer.pt")
    code = (
        "import sys, torch; layer, inputs, expected = torch.load(sys.argv[1], weights_only=False); "
        "torch.testing.assert_close(layer(inputs), expected)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "layer.pt")], check=True, timeout=120)


def test_precision_and_device() -> None:
    layer = make().to("cpu", F64)
    assert layer(torch.randn(2, 3, dtype=F64)).dtype is F64
    assert make()(torch.randn(2, 3)).dtype is torch.float32
    for half in (torch.float16, torch.bfloat16):
        found = make()(torch.randn(2, 3).to(half))
        assert found.dtype is torch.float32
        assert make().to(half)(torch.randn(2, 3).to(half)).dtype is torch.float32
    with pytest.raises(ValueError, match="different precision"):
        make()(torch.randn(2, 3, dtype=F64))


def test_autocast() -> None:
    model = nn.Sequential(nn.Linear(5, 3), make(), nn.Linear(6, 2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model[0](torch.randn(4, 5))
        assert hidden.dtype is torch.bfloat16
        assert model[1](hidden).dtype is torch.float32
        loss = model(torch.randn(4, 5)).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def gradients_of(model: nn.Module) -> list[Tensor]:
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


def test_accumulation_and_checkpointing() -> None:
    model, inputs = nn.Sequential(nn.Linear(5, 3, dtype=F64), make(dtype=F64)), torch.randn(8, 5, dtype=F64)
    model(inputs).square().sum().backward()
    expected = gradients_of(model)
    for part in inputs.split(3):
        model(part).square().sum().backward()
    torch.testing.assert_close(gradients_of(model), expected)
    checkpoint(model, inputs, use_reentrant=False).square().sum().backward()
    torch.testing.assert_close(gradients_of(model), expected)


DDP = """
import os, sys, torch, torch.distributed as dist
import ketgrad as kg
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
torch.manual_seed(0)
layer = kg.nn.CircuitLayer.of(kg.nn.AngleEmbedding(3), kg.nn.StronglyEntangling(3, layers=2), dtype=torch.float64)
inputs = torch.randn(8, 3, dtype=torch.float64)
layer(inputs).square().mean().backward()
expected = layer.weights1.grad.clone()
layer.zero_grad()
parallel = torch.nn.parallel.DistributedDataParallel(layer)
parallel(inputs[4 * rank : 4 * rank + 4]).square().mean().backward()
torch.testing.assert_close(layer.weights1.grad, expected)
dist.destroy_process_group()
os._exit(0)  # gloo's threads sometimes abort a process that ends by itself, with any model
"""


def test_distributed_data_parallel(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", DDP]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path / "store")]) for rank in range(2)]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


def test_complex_results_and_layers_without_inputs() -> None:
    def state(weights: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(weights[0], wires=0), kg.RY(weights[1], wires=1)], [kg.state()])

    def density(inputs: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(inputs[..., 0], wires=0), kg.CNOT(wires=[0, 1])], [kg.density_matrix(wires=[0])])

    found = kg.nn.CircuitLayer(state, {"weights": (2,)})()
    assert found.shape == (4,)
    assert found.is_complex()
    assert kg.nn.CircuitLayer(density, {})(torch.rand(2, 3, 1)).shape == (2, 3, 2, 2)


def test_repr_and_drawing() -> None:
    assert repr(make()) == "CircuitLayer(circuit, weights=(2, 3, 3), bias=(), parameters=19)"
    assert make().num_parameters == 19
    assert make().draw(torch.zeros(3)).startswith("0: ──RX(0.00)──Rot(")


def ignores(inputs: Tensor, weights: Tensor) -> kg.Tape:
    return kg.Tape([kg.RX(weights[0], wires=0)], [kg.expval(kg.Z(0))])


def mixed(inputs: Tensor) -> kg.Tape:
    return kg.Tape([kg.RX(inputs[..., 0], wires=0)], [kg.state(), kg.expval(kg.Z(0))])


@pytest.mark.parametrize(
    ("make_and_call", "error", "message"),
    [
        (lambda: kg.nn.CircuitLayer(3, {}), TypeError, "function"),  # type: ignore[arg-type]
        (lambda: kg.nn.CircuitLayer(circuit, {"weight": (2,)}), ValueError, "takes no parameter 'weight'"),
        (lambda: kg.nn.CircuitLayer(circuit, {"weights": (2, 3, 3)}), ValueError, "inputs, bias have no weights"),
        (lambda: make()([1.0, 2.0, 3.0]), TypeError, "floating-point tensor .* not list"),
        (lambda: make()(torch.zeros(3, dtype=torch.int64)), TypeError, r"not a tensor of torch\.int64"),
        (lambda: make()(torch.tensor(1.0)), ValueError, "no axes"),
        (lambda: make()(torch.zeros(2, 2)), IndexError, "out of"),
        (lambda: make().draw(), ValueError, "needs inputs"),
        (lambda: kg.nn.CircuitLayer(ignores, {"weights": (1,)})(torch.zeros(2, 2)), ValueError, "must use its inputs"),
        (lambda: kg.nn.CircuitLayer(mixed, {})(torch.zeros(2, 2)), ValueError, "can only be measured alone"),
        (lambda: kg.nn.CircuitLayer(lambda w: ignores(w, w), {"w": (1,)})(torch.zeros(1)), TypeError, "no inputs"),
        (lambda: kg.nn.CircuitLayer.of(), TypeError, "made of blocks"),
        (lambda: kg.nn.StronglyEntangling(0), ValueError, "wires of StronglyEntangling must be an integer from 1"),
        (lambda: kg.nn.BasicEntangler(2, layers=0), ValueError, "layers of BasicEntangler"),
        (lambda: kg.nn.AngleEmbedding(2, axis="W"), ValueError, "'X', 'Y' or 'Z'"),  # type: ignore[arg-type]
        (lambda: kg.nn.AmplitudeEmbedding(2, size=5), ValueError, "5 amplitudes for 2 wires"),
    ],
)
def test_bad_input(make_and_call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_and_call()


# --- torch.compile and torch.export -----------------------------------------------------------------------------------


def hybrid() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 3, dtype=F64), nn.Tanh(), make(dtype=F64), nn.Linear(6, 2, dtype=F64))


def test_one_graph_for_every_batch_and_every_weight() -> None:
    model = hybrid()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counter)
    for size in (32, 32, 7, 64):
        inputs = torch.randn(size, 5, dtype=F64)
        expected = model(inputs)
        expected.square().sum().backward()
        gradients = gradients_of(model)
        found = compiled(inputs)
        found.square().sum().backward()
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradients_of(model), gradients)
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.1
    assert counter.frame_count == 1


def test_a_circuit_that_asks_for_the_batch_size_gets_a_graph_for_each() -> None:
    asking = kg.compile(lambda x: kg.Tape([kg.RX(x[:, 0] / x.shape[0], wires=0)], [kg.expval(kg.Z(0))]))
    compiled = torch.compile(lambda x: 2 * asking(x), fullgraph=True, dynamic=True, backend="aot_eager")
    for size in (4, 7, 3):
        x = torch.rand(size, 1, dtype=F64)
        torch.testing.assert_close(compiled(x), 2 * torch.cos(x[:, 0] / size))


@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
def test_inductor() -> None:
    model = hybrid().float()
    inputs = torch.randn(6, 5)
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(inputs), model(inputs), rtol=1e-4, atol=1e-5)


def test_export() -> None:
    model, inputs = hybrid(), torch.randn(4, 5, dtype=F64)
    exported = torch.export.export(model, (inputs,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for size in (4, 9):
        inputs = torch.randn(size, 5, dtype=F64)
        torch.testing.assert_close(exported.module()(inputs), model(inputs))


def test_an_exported_model_runs_in_a_fresh_process(tmp_path: Path) -> None:
    model, inputs = hybrid(), torch.randn(7, 5, dtype=F64)
    exported = torch.export.export(model, (torch.randn(4, 5, dtype=F64),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(exported, tmp_path / "model.pt2")
    torch.save((inputs, model(inputs).detach()), tmp_path / "data.pt")
    code = (
        "import sys, torch, ketgrad; inputs, expected = torch.load(sys.argv[2]); "
        "model = torch.export.load(sys.argv[1]).module(); found = model(inputs); found.sum().backward(); "
        "torch.testing.assert_close(found, expected); assert model.get_parameter('2.weights').grad is not None"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.pt2"), str(tmp_path / "data.pt")], check=True, timeout=120
    )


def test_what_compiled_code_has_not_is_refused() -> None:
    model, inputs = hybrid(), torch.randn(4, 5, dtype=F64, requires_grad=True)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")

    def differentiate_twice() -> None:
        (gradient,) = torch.autograd.grad(compiled(inputs).sum(), inputs, create_graph=True)
        torch.autograd.grad(gradient.sum(), inputs)

    with pytest.raises(RuntimeError, match=r"double backward|donated_buffer"):
        differentiate_twice()
    transforms = {
        "grad": lambda x: torch.func.grad(lambda x: model(x).sum())(x),
        "vmap": lambda x: torch.func.vmap(model)(x),
        "jvp": lambda x: torch.func.jvp(model, (x,), (x,))[1],
    }
    for transform in transforms.values():
        torch._dynamo.reset()
        with pytest.raises((NotImplementedError, torch._dynamo.exc.Unsupported)):
            torch.compile(transform, fullgraph=True, backend="aot_eager")(inputs.detach())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_circuit_that_reads_tensors_from_outside_breaks_the_graph() -> None:
    weight = torch.tensor(0.3, requires_grad=True)
    closed = kg.compile(lambda x: kg.Tape([kg.RX(x * weight, wires=0)], [kg.expval(kg.Z(0))]))
    x = torch.tensor(0.2)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.compile(lambda x: 2 * closed(x), fullgraph=True, backend="aot_eager")(x)
    expected = torch.autograd.grad(2 * closed(x), weight)
    found = torch.compile(lambda x: 2 * closed(x), backend="aot_eager")(x)
    torch.testing.assert_close(torch.autograd.grad(found, weight), expected)


# --- blocks, against PennyLane's templates ----------------------------------------------------------------------------

BLOCKS: dict[str, tuple[kg.nn.Block, Any]] = {}
for n in (1, 2, 3, 4):
    BLOCKS |= {
        f"angle-{n}": (
            kg.nn.AngleEmbedding(n, axis="Y"),
            lambda x, w, n=n: qml.AngleEmbedding(x, range(n), rotation="Y"),
        ),
        f"amplitude-{n}": (
            kg.nn.AmplitudeEmbedding(n, size=2**n - 1, pad_with=0.5),
            lambda x, w, n=n: qml.AmplitudeEmbedding(x, range(n), pad_with=0.5, normalize=True),
        ),
        f"basic-{n}": (kg.nn.BasicEntangler(n, layers=2), lambda x, w, n=n: qml.BasicEntanglerLayers(w, range(n))),
        f"strong-{n}": (
            kg.nn.StronglyEntangling(n, layers=4),
            lambda x, w, n=n: qml.StronglyEntanglingLayers(w, range(n)),
        ),
        f"qaoa-{n}": (kg.nn.QAOAEmbedding(n, layers=2), lambda x, w, n=n: qml.QAOAEmbedding(x, w, range(n))),
        f"iqp-{n}": (kg.nn.IQPEmbedding(n, repeats=2), lambda x, w, n=n: qml.IQPEmbedding(x, range(n), n_repeats=2)),
    }


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_pennylanes_templates(name: str) -> None:
    block, template = BLOCKS[name]
    n = block.wires
    layer = kg.nn.CircuitLayer.of(block, measurements=[kg.probs(wires=range(n))], dtype=F64)
    inputs = torch.rand(block.features or 1, dtype=F64, requires_grad=True)
    weight = next(layer.parameters(), torch.zeros(0, dtype=F64))

    @qml.qnode(qml.device("default.qubit", wires=n), interface="torch", diff_method="backprop")
    def expected(x: Tensor, w: Tensor) -> Any:
        template(x, w)
        return qml.probs(wires=range(n))

    found = layer(inputs) if layer.has_inputs else layer()
    leaves = [*([inputs] if layer.has_inputs else []), *layer.parameters()]
    other = expected(inputs, weight)
    torch.testing.assert_close(found, other, rtol=1e-10, atol=1e-10)
    c = torch.randn(2**n, dtype=F64)
    gradients = torch.autograd.grad((found * c).sum(), leaves)
    torch.testing.assert_close(gradients, torch.autograd.grad((other * c).sum(), leaves), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", [kg.nn.HardwareEfficient, kg.nn.DataReuploading, kg.nn.QAOAEmbedding])
def test_blocks_have_counts_and_drawings(kind: Any) -> None:
    block = kind(3, layers=2)
    layer = kg.nn.CircuitLayer.of(kg.nn.AngleEmbedding(3), block)
    assert layer.num_parameters == block.num_parameters > 0
    assert len(block.draw().splitlines()) >= 3
    assert layer(torch.rand(5, 3)).shape == (5, 3)
