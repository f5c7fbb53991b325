"""What `gpu_check.py` needs, and what of it a machine lacks. Imports nothing that may be missing itself."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

ALL = frozenset({"build", "cuda-tests", "machine", "workloads", "sanitizer", "tests", "peers"})
PACKAGES = (
    # Package, oldest version, steps.
    ("numpy", "", ALL),
    ("setuptools", "77.0.3", {"build"}),
    ("pytest", "", {"cuda-tests", "sanitizer", "tests"}),
    ("hypothesis", "", {"tests"}),
    ("scipy", "", {"tests"}),
)
PROGRAM = "#include <concepts>\n#include <span>\ntemplate <std::integral T> T f(T x) { return x; }\nint x = f(0);\n"


@dataclass(frozen=True)
class Need:
    """Something that is missing, and what to do about it."""

    what: str
    remedy: str


def search_path() -> str:
    """Where programs are looked for: beside this Python too, even if its environment is not the active one."""
    return os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])


def missing(steps: Collection[str]) -> list[Need]:
    """Everything that these steps of the check need and this machine lacks."""
    found = [missing_packages(steps), missing_torch()]
    if "build" in steps:
        found += [missing_compiler(), missing_headers(), missing_toolkit()]
    return [need for need in found if need]


def message(needs: list[Need]) -> str:
    """All of them, each with its remedy."""
    return "\n".join(["gpu-check: this machine lacks", *(f"  {need.what}\n      {need.remedy}" for need in needs)])


def version_of(package: str) -> tuple[int, ...] | None:
    """The version's numbers, as far as they go; None where the package is not installed."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    return tuple(map(int, re.findall(r"\d+", re.match(r"[\d.]*", version)[0])))


def missing_packages(steps: Collection[str]) -> Need | None:
    """Packages of Python, in one command. Without ninja the files compile one after the other."""
    lacking = []
    for package, oldest, users in PACKAGES:
        enough = tuple(map(int, oldest.split("."))) if oldest else ()
        found = version_of(package)
        if users & set(steps) and (found is None or found < enough):
            lacking.append(f"{package}>={oldest}" if oldest else package)
    if "build" in steps and shutil.which("ninja", path=search_path()) is None:
        lacking.append("ninja")
    if not lacking:
        return None
    return Need(", ".join(lacking), shlex.join([sys.executable, "-m", "pip", "install", *lacking]))


def missing_torch() -> Need | None:
    """A CUDA build of PyTorch, and a GPU that it sees."""
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        found = f"`import torch` said {error}"
    else:
        if torch.version.cuda is not None:
            if torch.cuda.is_available():
                return None
            return Need("a visible GPU", "`nvidia-smi` and CUDA_VISIBLE_DEVICES say which there are")
        found = f"PyTorch {torch.__version__} is a CPU build"
    install = shlex.join([sys.executable, "-m", "pip", "install", "torch"])
    return Need(f"a CUDA build of PyTorch ({found})", f"{install}, or PYTHON=... names a Python that has one")


def missing_compiler() -> Need | None:
    """A C++20 compiler."""
    compiler = os.environ.get("CXX", "c++")
    command = [*shlex.split(compiler), "-std=c++20", "-x", "c++", "-fsyntax-only", "-"]
    try:
        if subprocess.run(command, input=PROGRAM, text=True, capture_output=True, check=False).returncode == 0:
            return None
    except OSError:
        pass
    return Need(f"a C++20 compiler ({compiler} is none)", "apt-get install g++ (12 or newer), or CXX=... names one")


def missing_headers() -> Need | None:
    """Python's C headers."""
    if (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return None
    return Need("Python's C headers", "apt-get install python3-dev, or what brings them for this Python")


def missing_toolkit() -> Need | None:
    """CUDA's compiler and headers, of torch's own major version."""
    wanted = cuda_of_torch()
    what = f"the CUDA toolkit{f', version {wanted}' if wanted else ''}"
    remedy = "install it from https://developer.nvidia.com/cuda-downloads; CUDA_HOME names it where it is not found"
    on_path = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    homes += [str(Path(on_path).resolve().parents[1]) if on_path else None, "/usr/local/cuda"]
    for home in map(Path, filter(None, homes)):
        if (home / "bin" / "nvcc").is_file() and (home / "include" / "cuda_runtime.h").is_file():
            done = subprocess.run([home / "bin" / "nvcc", "--version"], capture_output=True, text=True, check=False)
            release = re.search(r"release (\d+)\.", done.stdout)
            if release is None or not wanted or release[1] == wanted.split(".")[0]:
                return None
            return Need(f"{what} ({home} has {release[1]})", remedy)
    return Need(f"{what} (bin/nvcc and include/cuda_runtime.h)", remedy)


def cuda_of_torch() -> str | None:
    """The version that torch was built with."""
    try:
        return importlib.import_module("torch").version.cuda
    except ImportError:
        return None
