"""The operators: schemas, fake kernels, autograd routes, checks of what they are handed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.library import opcheck

import cases
import ketgrad as kg
from ketgrad.autograd.functions import execute_program
from ketgrad.execution.batching import Group, group_tapes
from ketgrad.execution.programs import build_program
from ketgrad.native import operators
from ketgrad.native.library import _C

EXECUTE = torch.ops.ketgrad.execute.default
EXECUTE_VJP = torch.ops.ketgrad.execute_vjp.default
EXECUTE_AND_VJP = torch.ops.ketgrad.execute_and_vjp.default


def group_of(batch: int | None = None, dtype: torch.dtype = torch.float64) -> Group:
    leaves = cases.Leaves(batch=batch, dtype=dtype)
    shared = leaves.with_batch(None)
    tape = kg.Tape(
        [
            kg.RX(leaves.angle(), wires=0),
            kg.RY(0.2, wires=1),
            kg.QubitUnitary(shared.unitary(1), wires=1),
            kg.CRZ(shared.angle(), wires=[0, 1]),
        ],
        [kg.expval(kg.Z(0)), kg.probs(wires=1), kg.state()],
    )
    (group,) = group_tapes([tape])
    return group._replace(inputs=[t.detach() for t in group.inputs])


def cotangents(group: Group) -> tuple[Tensor, Tensor]:
    real = group.inputs[0].dtype
    g_real = torch.randn(group.batch, group.binding.result_layout.real_size, dtype=real)
    return g_real, torch.randn(group.batch, group.binding.result_layout.complex_size, dtype=real.to_complex())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_opcheck_execute(batch: int | None, dtype: torch.dtype, requires_grad: bool) -> None:
    group = group_of(batch, dtype)
    inputs = [t.requires_grad_(requires_grad) for t in group.inputs]
    for keep_ket in (True, False):
        opcheck(EXECUTE, (group.binding.id, inputs, keep_ket))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [None, 3])
def test_opcheck_execute_vjp(batch: int | None, dtype: torch.dtype) -> None:
    group = group_of(batch, dtype)
    _, _, ket = EXECUTE(group.binding.id, group.inputs, True)
    wanted = list(range(1, len(group.inputs)))
    opcheck(EXECUTE_VJP, (group.binding.id, group.inputs, ket, *cotangents(group), wanted))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("batch", [None, 3])
def test_opcheck_execute_and_vjp(batch: int | None, dtype: torch.dtype) -> None:
    group = group_of(batch, dtype)
    for curvature in (0.0, 0.5):
        opcheck(EXECUTE_AND_VJP, (group.binding.id, group.inputs, *cotangents(group), curvature, [0, 1]))


def results_and_gradients(function: object, group: Group) -> list[Tensor]:
    inputs = [t.clone().requires_grad_() for t in group.inputs]
    real, complex_ = function(group.binding.id, inputs)  # type: ignore[operator]
    torch.manual_seed(0)
    g_real, g_complex = cotangents(group)
    gradients = torch.autograd.grad([real, complex_], inputs[1:], [g_real, g_complex])
    return [real.detach(), complex_.detach(), *gradients]


@pytest.mark.parametrize("batch", [None, 3])
def test_every_route_gives_the_same_gradients(batch: int | None) -> None:
    group = group_of(batch)
    eager = results_and_gradients(execute_program, group)
    recomputed = results_and_gradients(lambda program, inputs: execute_program(program, inputs, keep_ket=False), group)
    raw = results_and_gradients(lambda program, inputs: EXECUTE(program, inputs, True)[:2], group)
    compiled = results_and_gradients(torch.compile(execute_program, fullgraph=True, backend="aot_eager"), group)
    for other in (recomputed, raw, compiled):
        torch.testing.assert_close(other, eager)


def test_compiled_by_inductor() -> None:
    group = group_of(3)

    def loss(inputs: list[Tensor]) -> Tensor:
        doubled = [-t if t.is_complex() else 2 * t for t in inputs[1:]]  # a matrix stays unitary
        real, _ = execute_program(group.binding.id, [inputs[0], *doubled])
        return (real**2).sum()

    found = []
    for function in (loss, torch.compile(loss, fullgraph=True)):
        inputs = [t.clone().requires_grad_() for t in group.inputs]
        value = function(inputs)
        found.append([value.detach(), *torch.autograd.grad(value, inputs[1:])])
    torch.testing.assert_close(*found)


def test_conjugate_views_are_resolved() -> None:
    group = group_of()
    position = next(i for i, t in enumerate(group.inputs) if t.is_complex())
    lazy, real = list(group.inputs), list(group.inputs)
    lazy[position] = group.inputs[position].conj()
    real[position] = lazy[position].resolve_conj()
    assert lazy[position].is_conj()
    torch.testing.assert_close(execute_program(group.binding.id, lazy), execute_program(group.binding.id, real))


# --- refusals --------------------------------------------------------------------------------------------------------


def test_second_derivatives_of_the_raw_operator_raise() -> None:
    group = group_of()
    inputs = [t.clone().requires_grad_() for t in group.inputs]
    real = EXECUTE(group.binding.id, inputs, True)[0]
    (gradient,) = torch.autograd.grad(real.sum(), inputs[1], create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives"):
        gradient.sum().backward()


def bad_inputs(group: Group) -> dict[str, tuple[list[Tensor], str]]:
    first, *others = group.inputs
    return {
        "too few": ([first], "inputs, the program needs"),
        "none": ([], "needs its first input|Tensor"),
        "integers": ([first.long(), *others], "float32 or float64"),
        "precision": ([first.float(), *others], "another dtype"),
        "axes": ([first, others[0][None, None], *others[1:]], r"has shape \(1, 1, "),
        "size": ([first, torch.cat([others[0], others[0]], -1), *others[1:]], r"the program needs"),
        "batches": ([first.expand(2, -1), others[0].expand(3, -1), *others[1:]], "batch size 3, another input has 2"),
    }


@pytest.mark.parametrize("kind", ["too few", "none", "integers", "precision", "axes", "size", "batches"])
def test_bad_inputs(kind: str) -> None:
    inputs, message = bad_inputs(group_of())[kind]
    with pytest.raises((ValueError, RuntimeError, NotImplementedError), match=message):
        operators.run_execute(group_of().binding.id, inputs, operators.EXACT_KET)


def test_bad_arguments_of_vjp() -> None:
    group = group_of()
    _, _, ket = operators.run_execute(group.binding.id, group.inputs, operators.EXACT_KET)
    real, complex_ = cotangents(group)

    def vjp(**changed: object) -> None:
        arguments = {"ket": ket, "g_real": real, "g_complex": complex_, "wanted": [1]} | changed
        operators.run_execute_vjp(group.binding.id, group.inputs, *arguments.values())  # type: ignore[arg-type]

    vjp()
    for changed, message in [
        ({"ket": ket[:, :2]}, "the ket has shape"),
        ({"ket": ket.real}, "the ket has another dtype"),
        ({"g_real": real[:, :1]}, "the real cotangent has shape"),
        ({"g_complex": complex_.real}, "the complex cotangent has another dtype"),
        ({"wanted": [99]}, "no input 99"),
        ({"wanted": [1, 1]}, "requested twice"),
    ]:
        with pytest.raises(ValueError, match=message):
            vjp(**changed)


def test_a_device_without_kernels_is_named() -> None:
    assert operators.has_kernels("cpu")
    if not operators.has_kernels("cuda"):
        with pytest.raises(NotImplementedError, match=r"parameters are on cuda:1, .* no kernels"):
            operators.require_kernels(torch.device("cuda:1"))


def test_unknown_program() -> None:
    with pytest.raises(IndexError, match="no program has the id 12345"):
        operators.run_execute(12345, [torch.zeros(0)], operators.EXACT_KET)


# --- malformed programs ----------------------------------------------------------------------------------------------


INPUTS = [(False, (1,)), (True, (2, 2))]
SLOT = (0, 0)


def write(
    operations: Sequence[tuple[Any, ...]] = (),
    measurements: Sequence[tuple[Any, ...]] = (),
    places: Sequence[Any] = (),
    num_wires: int = 2,
    inputs: Sequence[tuple[bool, tuple[int, ...]]] = INPUTS,
) -> _C.Program:
    """The program of a structure that no tape has."""
    structure = (tuple(operations), tuple(measurements), tuple(range(num_wires)), True, ())
    return _C.write_program(structure, list(inputs), list(places))


def gate(name: str, wires: Sequence[int], layout: str = "", **others: Any) -> tuple[Any, ...]:
    """The structure of an operation."""
    found = {"controls": (), "values": (), "inverse": False, "word": "", "bits": (), **others}
    return (name, tuple(wires), *found.values(), layout)


def expval(*factors: tuple[Any, ...], word: tuple[tuple[int, str], ...] = ()) -> tuple[Any, ...]:
    """The structure of an expectation value of one term, whose factors' parameters are "s"."""
    return ("expval", (), (((1.0, (), word, factors),), (), (), "s"))


@pytest.mark.parametrize(
    ("operation", "places", "error", "message"),
    [
        (gate("NoGate", [0]), [], ValueError, "unknown gate 'NoGate'"),
        (gate("RX", [2], "s"), [SLOT], KeyError, "2"),
        (gate("RX", [0], "s", controls=(0,), values=(True,)), [SLOT], ValueError, "wire 0 appears twice"),
        (gate("CNOT", [0]), [], ValueError, "targets"),
        (gate("CNOT", []), [], ValueError, "too few wires"),
        (gate("RX", [0]), [], ValueError, "has 0 parameters, needs 1"),
        (gate("RX", [0], "s"), [], IndexError, "parameter 0 is out of range"),
        (gate("RX", [0], "s"), [(7, 0)], IndexError, "no input 7"),
        (gate("RX", [0], "s"), [(0, 5)], IndexError, "no column 5"),
        (gate("RX", [0], "s"), [(1, 0)], ValueError, "not a real vector"),
        (gate("RX", [0], "s", controls=(1,)), [SLOT], ValueError, "control value"),
        (gate("QubitUnitary", [0, 1], "s"), [(1, 0)], ValueError, "shape"),
        (gate("QubitUnitary", [0], "s"), [(-1, 0)], IndexError, "no input -1"),
        (gate("PauliRot", [0, 1], "s", word="XQ"), [SLOT], ValueError, "Pauli word 'XQ'"),
        (gate("PauliRot", [0, 1], "s", word="X"), [SLOT], ValueError, "2 letters"),
        (gate("BasisState", [0, 1], bits=(0,)), [], ValueError, "one bit per wire"),
        (gate("BasisState", [0], bits=(2,)), [], ValueError, "bits are 0 or 1"),
        (gate("StatePrep", [0], "s"), [SLOT], ValueError, "shape"),
    ],
)
def test_malformed_operations(
    operation: tuple[Any, ...], places: list[Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        write([operation], places=places)


@pytest.mark.parametrize(
    ("measurement", "error", "message"),
    [
        (("mean", (), None), ValueError, "unknown measurement 'mean'"),
        (("probs", (5,), None), KeyError, "5"),
        (("probs", (0, 0), None), ValueError, "appears twice"),
        (expval(word=((0, "XX"),)), ValueError, "1 letters"),
        (expval(("odd", (0,), 0, (), b"", b"")), ValueError, "unknown factor 'odd'"),
        (expval(("hermitian", (0, 1), 0, (), b"", b"")), ValueError, "shape"),
        (expval(("sparse", (0,), 0, (), bytes([9, *bytes(7)]), bytes(8))), IndexError, "sparse"),
        (expval(("projector", (0,), 0, (1,), b"", b"")), ValueError, "of no use here"),
    ],
)
def test_malformed_measurements(measurement: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        write(measurements=[measurement], places=[(1, 0)])


def test_malformed_structures() -> None:
    with pytest.raises(MemoryError, match="at most"):
        write(num_wires=63)
    with pytest.raises(ValueError, match="input 0 must be real"):
        write(inputs=[])
    with pytest.raises(IndexError):
        write([("X", (0,))])


def one_angle() -> int:
    """A program that takes the numbers and one angle."""
    angle = torch.tensor(0.3)
    return build_program(kg.Tape([kg.RX(angle, wires=0), kg.RX(0.1, wires=0)], [kg.expval(kg.Z(0))])).id


def test_meta_tensors_beside_others_are_refused() -> None:
    program, numbers, meta = one_angle(), torch.zeros(1), torch.zeros(1, device="meta")
    with pytest.raises(ValueError, match="inputs are on cpu, meta"):
        torch.ops.ketgrad.execute(program, [numbers, meta], False)
    ket, real, none = (
        torch.zeros(1, 0, dtype=torch.complex64),
        torch.ones(1, 1),
        torch.zeros(1, 0, dtype=torch.complex64),
    )
    with pytest.raises(ValueError, match="all must be on one device"):
        torch.ops.ketgrad.execute_vjp(program, [numbers, numbers], ket, real.to("meta"), none, [1])
    assert torch.ops.ketgrad.execute(program, [numbers.to("meta"), meta], False)[0].shape == (1, 1)


def test_forward_mode_over_an_operator_is_refused() -> None:
    program = one_angle()

    def value(angle: torch.Tensor) -> torch.Tensor:
        return torch.ops.ketgrad.execute(program, [torch.zeros(1), angle], False)[0]

    x = torch.ones(1)
    with pytest.raises(NotImplementedError, match="no forward-mode derivatives; use kg"):
        torch.func.jvp(value, (x,), (x,))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="no forward-mode derivatives"):
        value(forward_ad.make_dual(x, x))
    with forward_ad.dual_level():
        torch.testing.assert_close(value(x), (x + 0.0).cos()[None])
    (gradient,) = torch.autograd.grad(value(x.requires_grad_()).sum(), x)
    torch.testing.assert_close(gradient, -x.sin())


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------

LONG_CALLS = {
    "execute": "kg.execute([deep()])",
    "torch.compile": "compiled(torch.rand(40, 22))",
    "operator": "torch.ops.ketgrad.execute(build_program(deep()).id, [torch.zeros(22 * 200), torch.zeros(1)], False)",
    "gradient": "kg.execute([deep()])[0].backward()",
    "density matrix": "kg.execute([kg.Tape(layer(23), [kg.density_matrix(wires=range(12))])])",
    "unitary": "kg.execute([kg.Tape([*layer(22), kg.QubitUnitary(np.eye(2**11), wires=range(11))], [kg.probs(0)])])",
    "hermitian": "kg.execute([kg.Tape(layer(22), [kg.var(kg.Hermitian(np.eye(2**11), wires=range(11)))])])",
    "matrix": "kg.matrix(layer(11), dtype=torch.float32)",
    "programs that are tasks": "tasks()",
    "programs in turn": "in_turn()",
}

# A process that makes the calls that it is told, each until it is interrupted. What follows an interrupt must not find
# it again, nor must the next call.
CALLER = """
import signal, sys, warnings
import numpy as np, torch, ketgrad as kg
from ketgrad.execution.batching import group_tapes
from ketgrad.execution.programs import build_program
from ketgrad.native.many import Programs, run_execute_many
warnings.filterwarnings("ignore")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

def layer(n):
    return [gate for w in range(n) for gate in (kg.RY(0.1 * w, wires=w), kg.CNOT(wires=[w, (w + 1) % n]))]

def deep():
    return kg.Tape([kg.RX(x, wires=0), *(200 * layer(22))], [kg.expval(kg.Z(0))])

circuit = kg.compile(lambda w: kg.Tape(
    [g for l in range(40) for q in range(22) for g in (kg.RX(w[l, q], q), kg.CNOT([q, (q + 1) % 22]))],
    [kg.expval(kg.Z(0))]))
compiled = torch.compile(lambda w: circuit(w) * 2, backend="aot_eager")

def many_times(n, depth, count):
    (group,) = group_tapes([kg.Tape([kg.RX(torch.tensor(0.1), wires=0), *(depth * layer(n))], [kg.expval(kg.Z(0))])])
    size = len(group.inputs)
    programs = Programs((group.binding.id,) * count, tuple(range(size)) * count, ((size, 1, 0),) * count)
    return lambda: run_execute_many(programs, group.inputs, False)

tasks, in_turn = many_times(12, 40, 20000), many_times(18, 20, 200)
for line in sys.stdin:
    name, call = line.rstrip().split(": ", 1)
    x = torch.tensor(0.1, requires_grad=name == "gradient")
    if name == "torch.compile":
        compiled(torch.rand(40, 22))
    try:
        print("ready", flush=True)
        while True:
            exec(call)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    try:
        torch.ops.ketgrad.execute(12345, [torch.zeros(0)], False)
    except IndexError:
        print("nothing left", flush=True)
"""


@pytest.fixture(scope="module")
def caller() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", CALLER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG_CALLS)
def test_ctrl_c_ends_a_long_call(caller: subprocess.Popen[str], name: str) -> None:
    assert caller.stdin is not None
    assert caller.stdout is not None
    print(f"{name}: {LONG_CALLS[name]}", file=caller.stdin, flush=True)
    assert caller.stdout.readline().strip() == "ready"
    time.sleep(1.5)
    caller.send_signal(signal.SIGINT)
    begun = time.monotonic()
    assert caller.stdout.readline().strip() == "interrupted"
    assert time.monotonic() - begun < 5  # within a second, on a machine that does nothing else
    assert caller.stdout.readline().strip() == "nothing left"


def test_the_gil_is_released() -> None:
    """Another Python thread counts while a call runs."""
    n = 18
    tape = kg.Tape(
        [kg.RY(0.1, wires=w % n) if w % 2 else kg.CNOT(wires=[w % n, (w + 1) % n]) for w in range(300)],
        [kg.expval(kg.Z(0))],
    )
    ticks, done = [0], threading.Event()

    def count() -> None:
        while not done.is_set():
            ticks[0] += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    begun = time.monotonic()
    kg.execute([tape])
    elapsed = time.monotonic() - begun
    seen = ticks[0]
    done.set()
    thread.join()
    assert seen > elapsed / 0.001 * 0.1, (seen, elapsed)
