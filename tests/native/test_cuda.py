"""Circuits on a GPU: results and gradients are those on the CPU; devices, streams and graphs.

Tolerances are those of comparisons.py: the CPU computes in double precision what both precisions are compared with.
Every test is skipped where there is no GPU, see the fixture `cuda`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

import cases
import ketgrad as kg
from cases import mixed_tape, substituted
from comparisons import DOUBLE, SINGLE, assert_hessian_product, assert_same

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def moved(tape: kg.Tape, device: torch.device) -> kg.Tape:
    """The same circuit with its tensors on a device, as leaves."""
    tensors = {id(p): p for p in tape.parameters if isinstance(p, Tensor)}
    there = {key: p.detach().to(device).requires_grad_(p.requires_grad) for key, p in tensors.items()}
    return substituted(tape, [there.get(id(p), p) for p in tape.parameters])


def check(tape: kg.Tape, expected: kg.Tape, tolerance: float) -> None:
    """Compare results and gradients of a tape with those of its twin on the CPU; they are where its tensors are."""
    (found,), (wanted,) = kg.execute([tape]), kg.execute([expected])
    devices = {p.device for p in tape.parameters if isinstance(p, Tensor)} or {torch.device("cpu")}
    for i, (a, b) in enumerate(zip(tree_leaves(found), tree_leaves(wanted), strict=True)):
        assert {a.device} == devices
        assert_same(a.detach().cpu(), b.detach(), tolerance, f"result {i}")
    pairs = zip(cases.gradients(tape, found), cases.gradients(expected, wanted), strict=True)
    for i, (a, b) in enumerate(pairs):
        assert {a.device} == devices
        assert_same(a.cpu(), b, tolerance, f"gradient {i}")


def check_case(case: cases.Case, dtype: torch.dtype, device: torch.device) -> None:
    tolerance = SINGLE if dtype is torch.float32 else DOUBLE
    check(case.tape(dtype, str(device)), case.tape(), tolerance)


def check_mixed(num_wires: int, batch: int | None, dtype: torch.dtype, device: torch.device) -> None:
    tolerance = SINGLE if dtype is torch.float32 else DOUBLE
    check(moved(mixed_tape(num_wires, batch, dtype), device), mixed_tape(num_wires, batch), tolerance)


# --- the same as on the CPU ------------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("case", cases.CASES, ids=str)
def test_case(case: cases.Case, dtype: torch.dtype, cuda: torch.device) -> None:
    check_case(case, dtype, cuda)


@pytest.mark.parametrize("case", cases.TABLE, ids=str)
def test_operation_with_every_measurement(case: cases.Case, cuda: torch.device) -> None:
    check_case(case, torch.float64, cuda)


@DTYPES
@pytest.mark.parametrize("batch", [None, 1, 2, 33])
@pytest.mark.parametrize("num_wires", [5, 6, 8, 9, 10, 11, 12, 13, 14, 15])
def test_every_size_of_state(num_wires: int, batch: int | None, dtype: torch.dtype, cuda: torch.device) -> None:
    check_mixed(num_wires, batch, dtype, cuda)


@DTYPES
def test_a_large_state(dtype: torch.dtype, cuda: torch.device) -> None:
    check_mixed(20, None, dtype, cuda)


def test_a_large_batch(cuda: torch.device) -> None:
    check_mixed(5, 1000, torch.float32, cuda)


@pytest.mark.parametrize("seed", range(60))
def test_random_tape(seed: int, cuda: torch.device) -> None:
    twins = [cases.random_tape(Random(seed), seed, max_gates=40, device=device) for device in (str(cuda), "cpu")]
    check(*twins, DOUBLE)


@pytest.mark.parametrize("case", cases.CASES[::3], ids=str)
def test_hessian_products(case: cases.Case, cuda: torch.device) -> None:
    assert_hessian_product(case, str(cuda))


@DTYPES
@pytest.mark.parametrize("num_wires", [6, 11, 13, 15])
def test_hessian_products_of_every_size_of_state(num_wires: int, dtype: torch.dtype, cuda: torch.device) -> None:
    """Whole states and tiles, which are half as large where numbers have a derivative."""

    def product(device: torch.device, dtype: torch.dtype) -> Tensor:
        workload = cases.vqe(num_wires, 2, leaves=cases.Leaves(dtype=dtype, device=str(device)))
        loss = workload.loss(kg.execute([workload.tape()])[0])
        gradients = torch.autograd.grad(loss, workload.inputs, create_graph=True)
        return torch.cat([p.flatten() for p in torch.autograd.grad(sum(g.sum() for g in gradients), workload.inputs)])

    expected = product(torch.device("cpu"), torch.float64)
    assert_same(product(cuda, dtype).cpu(), expected, SINGLE if dtype is torch.float32 else DOUBLE, "product")


def test_a_few_of_everything(cuda: torch.device) -> None:
    """Short enough for tools that slow kernels down a hundredfold."""
    for case in cases.CASES[::60]:
        check_case(case, torch.float32, cuda)
        assert_hessian_product(case, str(cuda))
    for num_wires, batch in ((6, 3), (11, 2), (13, None), (15, None)):
        check_mixed(num_wires, batch, torch.float32, cuda)


WORKLOADS: list[tuple[Callable[..., cases.Workload], tuple[int, ...]]] = [
    (cases.qml, (4, 2, 5)),
    (cases.qml, (8, 2, 64)),
    (cases.qml, (12, 2, 16)),
    (cases.reuploading, (5, 2, 7)),
    (cases.vqe, (6, 2)),
    (cases.vqe, (16, 2)),
    (cases.qaoa, (9, 2)),
    (cases.strongly_entangling, (7, 3)),
    (cases.hardware_efficient, (14, 2)),
]


@DTYPES
@pytest.mark.parametrize(("workload", "sizes"), WORKLOADS, ids=lambda p: getattr(p, "__name__", str(p)))
def test_compiled_workload(
    workload: Callable[..., cases.Workload], sizes: tuple[int, ...], dtype: torch.dtype, cuda: torch.device
) -> None:
    here = workload(*sizes, leaves=cases.Leaves(dtype=dtype, device=str(cuda)))
    there = workload(*sizes)
    compiled = kg.compile(here.build)
    loss = there.loss(kg.execute([there.tape()])[0])
    expected = [loss, *torch.autograd.grad(loss, there.inputs)]
    for _ in range(2):  # as it is traced, and by its trace
        loss = here.loss(compiled(*here.inputs))
        found = [loss, *torch.autograd.grad(loss, here.inputs)]
        for i, (a, b) in enumerate(zip(found, expected, strict=True)):
            assert a.device == cuda
            assert_same(a.detach().cpu(), b.detach(), SINGLE if dtype is torch.float32 else DOUBLE, f"number {i}")


def test_views_that_are_not_contiguous(cuda: torch.device) -> None:
    angles = torch.linspace(0.1, 2, 12, dtype=torch.float64).view(4, 3)
    unitary = cases.Leaves().unitary(2).detach()

    def tape(device: torch.device) -> kg.Tape:
        x, u = angles.to(device).T.requires_grad_(), unitary.to(device).mH.requires_grad_()
        gates = [kg.RY(x[w], wires=w) for w in range(3)] + [kg.QubitUnitary(u, wires=[2, 0])]
        return kg.Tape(gates, [kg.expval(kg.Z(0) @ kg.X(2)), kg.probs(wires=[1, 0])])

    check(tape(cuda), tape(torch.device("cpu")), DOUBLE)


def test_several_tapes_at_once(cuda: torch.device) -> None:
    """Of equal and of different structure, with a parameter that two of them share."""
    shared = [torch.tensor(0.3, dtype=torch.float64, device=d, requires_grad=True) for d in (cuda, "cpu")]
    results, gradients = [], []
    for x in shared:
        own = torch.tensor(0.8, dtype=torch.float64, device=x.device, requires_grad=True)
        tapes = [kg.Tape([kg.RX(a, wires=0), kg.RY(x, wires=1)], [kg.expval(kg.Z(0) @ kg.Z(1))]) for a in (x, own)]
        tapes.append(kg.Tape([kg.RY(own, wires=0)], [kg.probs(), kg.state()]))
        found = kg.execute(tapes)
        results.append([t.detach().cpu() for t in tree_leaves(found)])
        gradients.append([g.cpu() for g in torch.autograd.grad(cases.contract(found), [x, own])])
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*gradients)


def test_shots(cuda: torch.device) -> None:
    tape = kg.Tape(
        [kg.RX(torch.tensor(torch.pi, device=cuda), wires=0), kg.CNOT(wires=[0, 1])],
        [kg.sample(wires=[0, 1]), kg.counts(), kg.expval(kg.Z(0))],
        shots=20,
    )
    ((samples, counts, z),) = kg.execute([tape])
    assert samples.device == z.device == cuda
    assert torch.equal(samples.cpu(), torch.ones(20, 2, dtype=torch.int64))
    assert counts == {"11": 20}
    assert z.item() == -1


# --- devices ---------------------------------------------------------------------------------------------------------


def test_another_gpu_than_the_current_one(cuda: torch.device) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("there is one GPU only")
    second = torch.device("cuda", 1)
    for batch in (None, 3):
        check_mixed(6, batch, torch.float64, second)
        check_mixed(14, batch, torch.float64, second)
    assert torch.cuda.current_device() == cuda.index


@pytest.mark.parametrize("compiled", [False, True], ids=["execute", "compile"])
def test_mixed_devices_are_named(compiled: bool, cuda: torch.device) -> None:
    def tape(x: Tensor, y: Tensor) -> kg.Tape:
        return kg.Tape([kg.RX(x, wires=0), kg.RY(y, wires=0)], [kg.expval(kg.Z(0))])

    x, y = torch.tensor(0.1), torch.tensor(0.1, device=cuda)
    with pytest.raises(ValueError, match=r"cpu and cuda:0"):
        kg.compile(tape)(x, y) if compiled else kg.execute([tape(x, y)])
    with pytest.raises(ValueError, match=r"cuda:0 and cpu"):
        kg.compile(tape)(y, x) if compiled else kg.execute([tape(y, x)])


def test_what_does_not_fit_is_what_torch_raises(cuda: torch.device) -> None:
    x = torch.zeros(1 << 20, device=cuda)
    gates = [kg.RX(x, wires=0), kg.Identity(wires=range(20))]
    with pytest.raises(torch.OutOfMemoryError, match=r"bytes"):
        kg.execute([kg.Tape(gates, [kg.state()])])  # 8 TiB
    check_mixed(6, None, torch.float64, cuda)  # and all goes on


# --- order and repetition --------------------------------------------------------------------------------------------


def numbers(tape: kg.Tape) -> list[Tensor]:
    """Results and gradients."""
    (results,) = kg.execute([tape])
    return [*(t.detach() for t in tree_leaves(results)), *cases.gradients(tape, results)]


@DTYPES
@pytest.mark.parametrize(("num_wires", "batch"), [(6, 100), (10, 20), (13, 5), (16, None)])
def test_two_runs_give_the_same_bits(num_wires: int, batch: int | None, dtype: torch.dtype, cuda: torch.device) -> None:
    tape = moved(mixed_tape(num_wires, batch, dtype), cuda)
    first, second = numbers(tape), numbers(tape)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("num_wires", [6, 14])
def test_work_is_done_on_the_current_stream(num_wires: int, cuda: torch.device) -> None:
    """The parameters are not there before the stream has slept: work on any other stream would read zeros."""
    tape = mixed_tape(num_wires, None)
    values = {id(p): p.detach().to(cuda) for p in tape.parameters if isinstance(p, Tensor)}
    late = {key: torch.zeros_like(value) for key, value in values.items()}
    twin = substituted(tape, [late[id(p)].requires_grad_() if id(p) in late else p for p in tape.parameters])
    numbers(twin)  # what happens once only does not count
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        with torch.no_grad():
            for key, value in values.items():
                late[key].copy_(value)
        found = numbers(twin)
    stream.synchronize()
    for a, b in zip(found, numbers(tape), strict=True):
        assert_same(a.cpu(), b, DOUBLE, "late parameters")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype feature")
@pytest.mark.parametrize("compiled", [False, True], ids=["execute", "compile"])
def test_nothing_waits_for_the_gpu(compiled: bool, cuda: torch.device) -> None:
    training = Training(cuda, compiled)
    training.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        training.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


# --- graphs ----------------------------------------------------------------------------------------------------------


def classifier(data: Tensor, weights: Tensor) -> kg.Tape:
    """Data (B, 3), weights (layers, 3, 2)."""
    gates: list[kg.Operation] = []
    for layer in weights:
        gates += [kg.RX(data[:, w], wires=w) for w in range(3)]
        gates += [gate for w in range(3) for gate in (kg.RZ(layer[w, 0], wires=w), kg.RY(layer[w, 1], wires=w))]
        gates += [kg.CNOT(wires=[w, (w + 1) % 3]) for w in range(3)]
    return kg.Tape(gates, [kg.expval(kg.Z(0) @ kg.Z(1))])


class Training:
    """A model, its optimiser, and where its data lie."""

    def __init__(self, device: torch.device, compiled: bool) -> None:
        generator = torch.Generator().manual_seed(7)
        self.weights = nn.Parameter(torch.randn(2, 3, 2, generator=generator).to(device))
        self.data, self.targets = torch.zeros(16, 3, device=device), torch.zeros(16, device=device)
        self.optimizer = torch.optim.Adam([self.weights], lr=0.05, capturable=True)
        self.model: Callable[..., Any] = kg.compile(classifier) if compiled else executed
        self.renew(0)

    def renew(self, seed: int) -> None:
        """Other data, in the same place."""
        generator = torch.Generator().manual_seed(seed)
        self.data.copy_(torch.randn(16, 3, generator=generator))
        self.targets.copy_(torch.rand(16, generator=generator))

    def step(self) -> Tensor:
        """Forward, loss, backward, optimiser; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = (self.model(self.data, self.weights) - self.targets).square().mean()
        loss.backward()
        self.optimizer.step()
        return loss.detach()


def executed(data: Tensor, weights: Tensor) -> Tensor:
    return kg.execute([classifier(data, weights)])[0]


@pytest.mark.parametrize("compiled", [False, True], ids=["execute", "compile"])
def test_a_whole_training_step_is_captured(compiled: bool, cuda: torch.device) -> None:
    eager, captured = Training(cuda, compiled), Training(cuda, compiled)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            captured.step()
    torch.cuda.current_stream().wait_stream(stream)
    for _ in range(3):
        eager.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = captured.step()
    for seed in (1, 2, 3):
        for training in (eager, captured):
            training.renew(seed)
        expected = eager.step()
        graph.replay()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(captured.weights, eager.weights)


def test_the_first_use_of_a_program_is_refused_in_a_capture(cuda: torch.device) -> None:
    """It is planned, and its plan copied, at the first call; a later call in the same place is captured."""
    x = torch.rand((), device=cuda)

    def tape() -> kg.Tape:
        # A structure that no other test has.
        gates = [kg.RX(x, wires=0), kg.RY(x, wires=1), kg.CNOT(wires=[1, 0]), kg.RZ(x, wires=0), kg.RX(x, wires=1)]
        return kg.Tape(gates, [kg.expval(kg.Y(0) @ kg.X(1))])

    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        x.mul(2)  # a capture of nothing at all would warn
        with pytest.raises(RuntimeError, match=r"run it once before the capture"):
            kg.execute([tape()])
    (expected,) = kg.execute([tape()])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        (found,) = kg.execute([tape()])
    graph.replay()
    torch.testing.assert_close(found, expected)


# --- in a process of its own: what happens once only -----------------------------------------------------------------

FRESH = """
import torch
import ketgrad as kg

x = torch.tensor([0.3, 0.7, 1.1, 0.2], dtype=torch.float64, device="cuda", requires_grad=True)

def circuit(x):
    gates = [kg.RX(x[0], wires=0), kg.RY(x[1], wires=1), kg.DoubleExcitationPlus(x[2], wires=[0, 1, 2, 3])]
    return kg.execute([kg.Tape([*gates, kg.RY(x[3], wires=2)], [kg.expval(kg.Z(0) @ kg.Z(2))])])[0]
"""


def run_fresh(script: str) -> str:
    """What the script prints in a new process, which has loaded no kernel yet."""
    done = subprocess.run([sys.executable, "-c", FRESH + script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_way_back_that_is_first_run_in_a_capture(cuda: torch.device) -> None:
    """Kernels are loaded when they are first launched: those of the way back while it is captured."""
    run_fresh("""
stream = torch.cuda.Stream()
with torch.cuda.stream(stream):
    circuit(x)
torch.cuda.synchronize()
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    (found,) = torch.autograd.grad(circuit(x), x)
graph.replay()
(expected,) = torch.autograd.grad(circuit(x), x)
torch.testing.assert_close(found, expected)
""")


def test_kernels_reserve_little_memory(cuda: torch.device) -> None:
    """Stacks of kernels are memory that torch's allocator does not see; `make cuda-check` limits them."""
    hidden = run_fresh("""
def hidden():
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return total - free - torch.cuda.memory_reserved()

circuit(x.detach())
before = hidden()
(gradient,) = torch.autograd.grad(circuit(x), x, create_graph=True)
torch.autograd.grad(gradient.sum(), x)
print(hidden() - before)
""")
    assert int(hidden) < 512 << 20
