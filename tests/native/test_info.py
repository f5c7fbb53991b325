"""`python -m ketgrad info`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

import ketgrad as kg
from ketgrad import __main__
from ketgrad.native import library

pytestmark = pytest.mark.slow


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ketgrad", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_info_says_what_a_bug_report_needs() -> None:
    lines = dict(line.split(maxsplit=1) for line in run("info").stdout.splitlines())
    assert lines["ketgrad"] == kg.__version__
    assert lines["torch"] == torch.__version__
    assert "stable ABI of torch 2.11" in lines["build"]
    assert {"Python", "CPU", "threads", "memory", "CUDA", "PennyLane"} <= lines.keys()


def test_a_level_is_forced_by_the_environment() -> None:
    assert "portable (available:" in run("info", KETGRAD_CPU_LEVEL="portable").stdout
    refused = run("info", KETGRAD_CPU_LEVEL="mmx")
    assert "CPU level 'mmx' is not available here" in refused.stderr


def test_an_unknown_command_is_refused() -> None:
    assert "choose from" in run("inform").stderr


# --- CUDA: what is said of it ----------------------------------------------------------------------------------------


def test_the_cuda_line_has_devices_or_a_reason() -> None:
    lines = dict(line.split(maxsplit=1) for line in run("info").stdout.splitlines())
    missing = library.NO_CUDA or ("" if torch.cuda.is_available() else "no GPU is visible")
    assert lines["CUDA"] == f"no: {missing}" if missing else f"CUDA {torch.version.cuda}" in lines["CUDA"]


def test_no_gpu_is_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(__main__, "NO_CUDA", "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert re.search(r"^CUDA +no: no GPU is visible$", __main__.info(), flags=re.MULTILINE)


def test_every_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    extension = SimpleNamespace(architectures=lambda: [80, 90])
    monkeypatch.setattr(__main__, "NO_CUDA", "")
    monkeypatch.setattr(__main__, "import_module", {"ketgrad._C_cuda": extension}.get)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", ["One", "Two"].__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_capability", [(9, 0), (8, 0)].__getitem__)
    expected = "One (compute capability 9.0), Two (compute capability 8.0); PyTorch's CUDA 13.0; built for sm_80, sm_90"
    assert expected in __main__.info()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModuleNotFoundError("No module named 'ketgrad._C_cuda'"), "built without CUDA (no nvcc was found, or KETGRAD"),
        (ImportError("libc10_cuda.so: undefined symbol"), "the extension does not load: libc10_cuda.so: undefined"),
    ],
    ids=["absent", "broken"],
)
def test_an_extension_that_does_not_load_leaves_a_reason(
    monkeypatch: pytest.MonkeyPatch, error: ImportError, reason: str
) -> None:
    def refuse(name: str) -> None:
        raise error

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(library, "import_module", refuse)
    assert library._load_cuda().startswith(reason)


def test_the_extension_is_handed_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    handed: list[int] = []
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(library, "import_module", lambda name: SimpleNamespace(connect=handed.append))
    assert library._load_cuda() == ""
    assert handed == [library._C.registry_address()]
    assert handed[0] > 0


def test_a_cpu_build_has_no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert library._load_cuda() == "PyTorch is a CPU build"
