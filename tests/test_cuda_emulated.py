"""The CUDA operators as torch calls them, on the host: all of `cuda/` under the emulation, with a runtime of its own.

The kernels alone are tested in `tests/cuda/`; here it is what lies between them and torch (checks, memory, tables,
gradients), through the public API, against the oracle. The emulation is slow: a part of the cases.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from types import ModuleType

import pytest
import torch
from torch.utils import cpp_extension

import cases
import ketgrad as kg
from ketgrad import ops
from ketgrad._library import _C
from test_execute import DOUBLE, SINGLE, check, gradients
from test_second_derivatives import assert_hessian_product

ROOT = Path(__file__).resolve().parents[1]
HOST = ROOT / "tests" / "cuda" / "host"
BUILD = ROOT / "build" / "emulated"
# Registered by `HOST / "registration.cpp"` instead.
NOT_HERE = {"cuda/registration.cpp"}

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


@pytest.fixture(scope="session")
def extension() -> ModuleType:
    """Built once, into `build/emulated`; from then on what has changed."""
    BUILD.mkdir(parents=True, exist_ok=True)
    core = [source for source in listed("csrc/sources.txt") if source.startswith("csrc/core/")]
    cuda = [source for source in listed("cuda/sources.txt") if source not in NOT_HERE]
    kernels = [as_cpp(source) for source in cuda if source.endswith(".cu")]
    others = [*core, *(source for source in cuda if source.endswith(".cpp")), "cuda/emulation.cpp"]
    flags = ["-std=c++20", "-O1", "-w", "-fvisibility=hidden", "-DTORCH_STABLE_ONLY"]
    found: ModuleType = cpp_extension.load(
        name="ketgrad_emulated",
        sources=[*kernels, *(str(ROOT / source) for source in others), str(HOST / "registration.cpp")],
        extra_cflags=[*flags, "-DTORCH_TARGET_VERSION=0x020b000000000000"],
        extra_include_paths=[str(HOST), str(ROOT), str(ROOT / "csrc")],
        build_directory=str(BUILD),
        with_cuda=False,
    )
    found.connect(_C.registry_address())
    return found


@pytest.fixture
def emulated(extension: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of ketgrad go to the emulated engine."""
    assert extension.architectures() == []
    for name in ("execute", "execute_vjp", "execute_jvp", "execute_vjp_jvp"):
        monkeypatch.setattr(ops, f"_{name}", getattr(torch.ops.ketgrad_emulated, name).default)


pytestmark = [pytestmark, pytest.mark.usefixtures("emulated")]


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


def test_an_empty_batch() -> None:
    x = torch.zeros(0, dtype=torch.float64, requires_grad=True)
    tape = kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0)), kg.state()])
    ((z, state),) = kg.execute([tape])
    assert z.shape == (0,)
    assert state.shape == (0, 2)
    assert gradients(tape, (z, state))[0].shape == (0,)


def test_a_matrix_larger_than_shared_memory_is_refused() -> None:
    """The emulated device has 64 KiB a block: 2^12 amplitudes in double precision."""
    matrix = torch.eye(1 << 13, dtype=torch.complex128)
    with pytest.raises(ValueError, match=r"8192 rows is more than this GPU's shared memory holds, 4096 rows"):
        kg.execute([kg.Tape([kg.QubitUnitary(matrix, wires=range(13))], [kg.expval(kg.Z(0))])])


def test_programs_that_are_gone_leave_room_for_others() -> None:
    """Tables of a program go with the first call of another one after it."""
    for k in range(5):
        check(kg.Tape([kg.RX(torch.tensor(0.1 * k), wires=0) for _ in range(k + 1)], [kg.expval(kg.Z(0))]), SINGLE)
