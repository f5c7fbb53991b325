"""Circuits inside `torch.compile` and `torch.export`: one graph, right gradients, and errors where there is nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

import ketgrad as kg

pytestmark = pytest.mark.slow

F64 = torch.float64


def circuit(inputs: Tensor, weights: Tensor, bias: Tensor) -> kg.Tape:
    operations: list[kg.Operation] = [kg.RX(inputs[..., w], wires=w) for w in range(3)]
    for layer in weights:
        operations += [kg.Rot(*layer[w], wires=w) for w in range(3)]
        operations += [kg.CNOT(wires=[w, (w + 1) % 3]) for w in range(3)]
    operations.append(kg.RY(bias, wires=0))
    return kg.Tape(operations, [kg.expval(kg.Z(0)), kg.probs(wires=[1, 2]), kg.var(kg.X(1))])


SHAPES = {"weights": (2, 3, 3), "bias": ()}


def gradients_of(model: nn.Module) -> list[Tensor]:
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


def hybrid() -> nn.Module:
    return nn.Sequential(
        nn.Linear(5, 3, dtype=F64),
        nn.Tanh(),
        kg.nn.CircuitLayer(circuit, SHAPES, dtype=F64),
        nn.Linear(6, 2, dtype=F64),
    )


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
