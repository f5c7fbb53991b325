"""The CUDA operators as torch calls them, on the host: all of `cuda/` under the emulation, with a runtime of its own.

The kernels alone are tested in `tests/cuda/`; here it is what lies between them and torch (checks, memory, tables,
gradients), through the public API, against the oracle. The emulation is slow: a part of the cases.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
import torch
from torch.utils import cpp_extension

import cases
import ketgrad as kg
from comparisons import DOUBLE, SINGLE, assert_copies, assert_hessian_product, check, gradients
from ketgrad.native import operators
from ketgrad.native.library import _C

ROOT = Path(__file__).resolve().parents[2]
HOST = ROOT / "tests" / "cuda" / "host"
BUILD = ROOT / "build" / "emulated"
OF_THE_EXTENSION = ROOT / "build" / f"ext-{sys.implementation.cache_tag}"
"""Where setup.py's objects are."""
COMPILED = ROOT / "build" / ".compiled"
"""The Makefile touches it when they are up to date."""
# Registered by `HOST / "registration.cpp"` instead.
NOT_HERE = {"cuda/ops/registration.cpp"}
CORE = ("csrc/runtime/", "csrc/program/", "csrc/plan/")
TIMEOUT = 60
"""Seconds that a thread may take for a small circuit."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the emulation switches between threads as Linux does")


def listed(listing: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / listing).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def as_cpp(source: str) -> str:
    """A file of its own that includes `source`: torch would hand a .cu file to nvcc."""
    wrapper = BUILD / f"{Path(source).stem}_cu.cpp"
    text = f'#include "{source}"\n'
    if not wrapper.exists() or wrapper.read_text(encoding="utf-8") != text:
        wrapper.write_text(text, encoding="utf-8")
    return str(wrapper)


def objects(sources: list[str]) -> list[str]:
    """Those of the extension, where `make build` came after the last change of the core; else []."""
    newest = max(file.stat().st_mtime for folder in CORE for file in (ROOT / folder).iterdir())
    found = [OF_THE_EXTENSION / Path(source).with_suffix(".o") for source in sources]
    is_current = COMPILED.is_file() and COMPILED.stat().st_mtime > newest and all(file.is_file() for file in found)
    return [str(file) for file in found] if is_current else []


def stamp(files: list[str]) -> list[str]:
    """A flag that changes with the files, which ninja does not know: it links again."""
    times = str([Path(file).stat().st_mtime_ns for file in files])
    return [f"-Wl,--build-id=0x{hashlib.sha256(times.encode()).hexdigest()}"] if files else []


@pytest.fixture(scope="session")
def extension() -> ModuleType:
    """Built once, into `build/emulated`; from then on what has changed."""
    BUILD.mkdir(parents=True, exist_ok=True)
    core = [source for source in listed("csrc/sources.txt") if source.startswith(CORE)]
    linked = objects(core)
    cuda = [source for source in listed("cuda/sources.txt") if source not in NOT_HERE]
    kernels = [as_cpp(source) for source in cuda if source.endswith(".cu")]
    others = [
        *([] if linked else core),
        *(source for source in cuda if source.endswith(".cpp")),
        "cuda/emulation/emulation.cpp",
    ]
    flags = ["-std=c++20", "-O1", "-w", "-fvisibility=hidden", "-DTORCH_STABLE_ONLY"]
    found: ModuleType = cpp_extension.load(
        name="ketgrad_emulated",
        sources=[*kernels, *(str(ROOT / source) for source in others), *map(str, sorted(HOST.glob("*.cpp")))],
        extra_cflags=[*flags, "-DTORCH_TARGET_VERSION=0x020b000000000000"],
        extra_include_paths=[str(HOST), str(ROOT), str(ROOT / "csrc")],
        extra_ldflags=[*linked, *stamp(linked)],
        build_directory=str(BUILD),
        with_cuda=False,
    )
    found.connect(_C.registry_address())
    return found


@pytest.fixture
def emulated(extension: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of ketgrad go to the emulated engine."""
    assert extension.architectures() == []
    for name in ("execute", "execute_vjp", "execute_and_vjp", "execute_jvp", "execute_vjp_jvp"):
        monkeypatch.setattr(operators, f"_{name}", getattr(torch.ops.ketgrad_emulated, name).default)


pytestmark = [pytestmark, pytest.mark.slow, pytest.mark.usefixtures("emulated")]


@pytest.mark.parametrize("case", cases.CASES[::20], ids=str)
def test_case_in_double(case: cases.Case) -> None:
    check(case.tape())


@pytest.mark.parametrize("case", cases.CASES[10::20], ids=str)
def test_case_in_single(case: cases.Case) -> None:
    check(case.tape(dtype=torch.float32), SINGLE, case.tape(dtype=torch.float64))


@pytest.mark.parametrize("case", cases.TABLE[::6], ids=str)
def test_operation_with_every_measurement(case: cases.Case) -> None:
    check(case.tape())


@pytest.mark.parametrize("seed", range(10))
def test_random_tape(seed: int) -> None:
    check(cases.random_tape(Random(seed), seed, max_gates=20), DOUBLE)


@pytest.mark.parametrize("case", cases.CASES[5::15], ids=str)
def test_hessian_products(case: cases.Case) -> None:
    assert_hessian_product(case)


@pytest.mark.parametrize("case", cases.CASES[7::30], ids=str)
def test_copies(case: cases.Case) -> None:
    assert_copies(case)


def test_forward_mode_and_hessians() -> None:
    """Transforms over the native operators: `jvp` alone, and forward over reverse."""

    def circuit(x: torch.Tensor) -> torch.Tensor:
        gates = [kg.RX(x[0], wires=0), kg.CRY(x[1], wires=[0, 1]), kg.RZ(x[0] * x[1], wires=1), kg.RX(0.3, wires=1)]
        (found,) = kg.execute([kg.Tape(gates, [kg.expval(kg.Z(0) @ kg.Y(1))])])
        return found  # type: ignore[no-any-return]

    x = torch.tensor([0.3, 0.7], dtype=torch.float64)
    gradient = torch.func.grad(circuit)(x)
    for k in range(2):
        _, slope = torch.func.jvp(circuit, (x,), (torch.eye(2, dtype=x.dtype)[k],))
        torch.testing.assert_close(slope, gradient[k])
    step = 1e-6 * torch.eye(2, dtype=x.dtype)
    differences = [torch.func.grad(circuit)(x + s) - torch.func.grad(circuit)(x - s) for s in step]
    torch.testing.assert_close(torch.func.hessian(circuit)(x), torch.stack(differences) / 2e-6, atol=1e-8, rtol=1e-8)


def test_many_inputs() -> None:
    """More than one launch hands over; matrices cannot share an input."""
    unitaries = [torch.linalg.matrix_exp(1j * (k + 1) * 0.1 * torch.ones(2, 2)) for k in range(70)]
    check(
        kg.Tape([kg.QubitUnitary(u.to(torch.complex128), wires=k % 3) for k, u in enumerate(unitaries)], [kg.probs()])
    )


def test_a_compiled_function() -> None:
    @kg.compile
    def compiled(x: torch.Tensor, w: torch.Tensor) -> kg.Tape:
        return tape(x, w)

    def tape(x: torch.Tensor, w: torch.Tensor) -> kg.Tape:
        gates = [kg.RX(x[..., 0], wires=0), kg.RY(w[0], wires=1), kg.CNOT(wires=[0, 1]), kg.RZ(2 * w[1], wires=1)]
        return kg.Tape(gates, [kg.expval(kg.X(1)), kg.probs(wires=0)])

    w = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    for batch in (2, 5):
        x = torch.linspace(0, 1, batch, dtype=torch.float64)[:, None].requires_grad_()
        results = compiled(x, w)
        found = [*results, *torch.autograd.grad(sum(r.square().sum() for r in results), (x, w))]
        (results,) = kg.execute([tape(x, w)])
        expected = [*results, *torch.autograd.grad(sum(r.square().sum() for r in results), (x, w))]
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b)


def test_value_and_gradient_in_one_call() -> None:
    @kg.compile
    def compiled(x: torch.Tensor, w: torch.Tensor) -> kg.Tape:
        gates = [kg.RX(x, wires=0), kg.RY(w[0], wires=1), kg.CNOT(wires=[0, 1]), kg.RX(2 * w[1], wires=1)]
        return kg.Tape(gates, [kg.expval(kg.Z(1)), kg.expval(kg.X(0) @ kg.Y(1))])

    x, w = torch.linspace(0, 1, 3, dtype=torch.float64), torch.tensor([0.3, 0.7], dtype=torch.float64)
    targets = torch.linspace(-1, 1, 6, dtype=torch.float64).view(3, 2)
    value, found = compiled.value_and_grad(x, w, argnums=(0, 1), loss=kg.MeanSquaredError(targets))
    loss = (torch.stack(compiled(x.requires_grad_(), w.requires_grad_()), -1) - targets).square().mean()
    torch.testing.assert_close(value, loss.detach())
    torch.testing.assert_close(found, torch.autograd.grad(loss, (x, w)))


def test_an_empty_batch() -> None:
    x = torch.zeros(0, dtype=torch.float64, requires_grad=True)
    tape = kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0)), kg.state()])
    ((z, state),) = kg.execute([tape])
    assert z.shape == (0,)
    assert state.shape == (0, 2)
    assert gradients(tape, (z, state))[0].shape == (0,)


def test_a_matrix_larger_than_shared_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulated device has 64 KiB a block: 2^12 amplitudes in double precision."""
    # Whether a matrix of this size is unitary takes a minute to say.
    monkeypatch.setattr("ketgrad.circuit.operations.check_unitary", lambda *_: None)
    matrix = torch.eye(1 << 13, dtype=torch.complex128)
    with pytest.raises(ValueError, match=r"8192 rows is more than this GPU's shared memory holds, 4096 rows"):
        kg.execute([kg.Tape([kg.QubitUnitary(matrix, wires=range(13))], [kg.expval(kg.Z(0))])])


# --- tables, streams and threads --------------------------------------------------------------------------------------


class Runtime:
    """The CUDA runtime of `HOST`. Streams are numbers; a test's threads begin on the default one, 0."""

    def __init__(self, extension: ModuleType) -> None:
        self._library = ctypes.CDLL(extension.__file__)
        self._library.host_end_capture.restype = ctypes.c_bool
        self._library.host_is_relaxed.restype = ctypes.c_bool
        self.before = 0

    @contextmanager
    def on(self, stream: int) -> Iterator[None]:
        """This thread's calls go to a stream."""
        self._library.host_use_stream(ctypes.c_ssize_t(stream))
        try:
            yield
        finally:
            self._library.host_use_stream(ctypes.c_ssize_t(0))

    @contextmanager
    def held(self, stream: int) -> Iterator[None]:
        """The work of a stream does not end."""
        self._library.host_hold(ctypes.c_ssize_t(stream))
        try:
            yield
        finally:
            self._library.host_release(ctypes.c_ssize_t(stream))

    @contextmanager
    def captured(self, stream: int) -> Iterator[None]:
        """A CUDA graph is captured on a stream, in the mode that forbids most, and must be valid in the end."""
        self._library.host_begin_capture(ctypes.c_ssize_t(stream))
        try:
            yield
        finally:
            is_valid = self._library.host_end_capture(ctypes.c_ssize_t(stream))
        assert is_valid, "a capture was made invalid"

    def is_relaxed(self) -> bool:
        """Whether this thread may do what is forbidden while others capture."""
        return bool(self._library.host_is_relaxed())

    def waiting(self) -> int:
        """Threads that wait for a stream."""
        return int(self._library.host_waiting())

    def blocks(self) -> int:
        """Of memory that are not given back: as many as tables, where no call runs."""
        return int(self._library.host_blocks())

    def new_blocks(self) -> int:
        """Those since the test began."""
        return self.blocks() - self.before


@pytest.fixture
def runtime(extension: ModuleType) -> Runtime:
    """Without the tables of other tests, but for those that a capture keeps."""
    kg.structure_cache.clear()
    run(0)  # finds the others gone, and stays until a test's next one
    kg.structure_cache.clear()
    found = Runtime(extension)
    found.before = found.blocks() - 1
    return found


def rotations(count: int, x: torch.Tensor) -> torch.Tensor:
    """The result of a circuit: each count has its own structure, and so its own tables."""
    (z,) = kg.execute([kg.Tape([kg.RX(x, wires=0) for _ in range(count)], [kg.expval(kg.Z(0))])])
    return z


def run(count: int) -> None:
    """A forward pass."""
    x = torch.tensor(0.1, dtype=torch.float64)
    torch.testing.assert_close(rotations(count, x), torch.cos(count * x))


def run_for_others(count: int) -> None:
    """A first call, which finds all programs gone but this one."""
    kg.structure_cache.clear()
    run(count)


def started(runtime: Runtime, stream: int, count: int) -> Future[None]:
    """A thread that runs a circuit on a stream. It may wait for ever, which must not keep the process."""
    done: Future[None] = Future()

    def call() -> None:
        try:
            with runtime.on(stream):
                run(count)
            done.set_result(None)
        except BaseException as failure:
            done.set_exception(failure)

    threading.Thread(target=call, daemon=True).start()
    return done


def test_tables_of_programs_that_are_gone_go_while_the_device_works(runtime: Runtime) -> None:
    """Their own stream gets them back in its order: nothing waits for it, nor for the device."""
    run(1)
    run(2)
    assert runtime.new_blocks() == 2
    with runtime.held(0):
        run(1)
        kg.structure_cache.clear()
        started(runtime, 1, 3).result(TIMEOUT)
        assert runtime.new_blocks() == 1


def test_tables_stay_until_every_stream_has_read_them(runtime: Runtime) -> None:
    run(1)
    with runtime.held(2):
        with runtime.held(1):
            for stream in (1, 2, 1):
                with runtime.on(stream):
                    run(1)
            run_for_others(2)
            assert runtime.new_blocks() == 2
        run_for_others(3)
        assert runtime.new_blocks() == 2
    run_for_others(4)
    assert runtime.new_blocks() == 1


def test_a_later_use_on_the_same_stream_counts(runtime: Runtime) -> None:
    run(1)
    with runtime.on(1):
        run(1)
    with runtime.held(1):
        with runtime.on(1):
            run(1)
        run_for_others(2)
        assert runtime.new_blocks() == 2
    run_for_others(3)
    assert runtime.new_blocks() == 1


def test_gradients_and_tangents_read_tables_too(runtime: Runtime) -> None:
    """Both kinds of tables, one of which is of plans for dual numbers."""
    x = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)

    def slope() -> None:
        torch.func.jvp(lambda x: rotations(1, x), (x.detach(),), (torch.ones_like(x.detach()),))

    slope()
    z = rotations(1, x)
    assert runtime.new_blocks() == 2
    with runtime.held(1):
        with runtime.on(1):
            z.backward()
            slope()
        del z
        run_for_others(2)
        assert runtime.new_blocks() == 3
    run_for_others(3)
    assert runtime.new_blocks() == 1


def test_a_program_comes_back_while_its_old_tables_are_read(runtime: Runtime) -> None:
    run(1)
    with runtime.held(1):
        with runtime.on(1):
            run(1)
        run_for_others(1)
        assert runtime.new_blocks() == 2
    run_for_others(2)
    assert runtime.new_blocks() == 1


def test_programs_are_planned_side_by_side(runtime: Runtime) -> None:
    """A thread that makes tables keeps those waiting that want the same ones, and no others."""
    with runtime.held(1):
        first = started(runtime, 1, 1)
        begun = time.monotonic()
        while not runtime.waiting():
            assert time.monotonic() < begun + TIMEOUT
            time.sleep(0.001)
        same = started(runtime, 0, 1)
        started(runtime, 0, 2).result(TIMEOUT)
        assert not first.done()
        assert not same.done()
    first.result(TIMEOUT)
    same.result(TIMEOUT)
    assert runtime.new_blocks() == 2


def test_a_capture_is_valid_whatever_other_threads_do(runtime: Runtime) -> None:
    """Tables are made, read on a second stream and given back meanwhile."""
    with runtime.captured(3):
        run(1)
        with runtime.on(1):
            run(1)
        run_for_others(2)
        assert runtime.new_blocks() == 1
    assert not runtime.is_relaxed()


def test_tables_that_a_capture_reads_stay(runtime: Runtime) -> None:
    """The graph may be replayed when the program has gone."""
    with runtime.captured(3), runtime.on(3), pytest.raises(RuntimeError, match=r"run it once before the capture"):
        run(1)
    assert runtime.new_blocks() == 0
    run(1)
    with runtime.captured(3), runtime.on(3):
        run(1)
    run_for_others(2)
    run_for_others(3)
    assert runtime.new_blocks() == 2
