"""Builds the extensions ``ketgrad._C`` and, for a CUDA build of torch, ``ketgrad._C_cuda``.

All static metadata is in pyproject.toml. The environment variable KETGRAD_CUDA decides about the second one: ``auto``
(the default) builds it where torch is a CUDA build and CUDA's compiler is there, ``0`` never, ``1`` or not at all.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 11)

# torch is not in [build-system] requires: an isolated build would compile against another torch than the one in use.
NO_TORCH = """ketgrad compiles against the PyTorch that it will run with, and needs PyTorch {oldest} or newer: {found}.
Install it first:    python -m pip install "torch>={oldest}" setuptools ninja numpy
and then ketgrad:    python -m pip install --no-build-isolation ."""

NO_CUDA = """KETGRAD_CUDA=1 asks for the CUDA kernels, but {found}.
They need a CUDA build of PyTorch and the CUDA toolkit, which CUDA_HOME names where it is not on the PATH.
Without them:    KETGRAD_CUDA=0 python -m pip install --no-build-isolation ."""

# Without a GPU to ask, torch's own choice of architectures fails. PTX serves the GPUs that come later.
DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"

MACROS = [
    # The stable ABI as of torch 2.11: one build serves every later torch, and any ATen include is an error.
    ("TORCH_TARGET_VERSION", "0x020b000000000000"),
    ("TORCH_STABLE_ONLY", None),
]
HOST_FLAGS = [
    "-std=c++20",
    "-O3",
    "-g0",
    "-Wall",
    "-Wextra",
    "-fvisibility=hidden",
    # Fast where nobody can tell, but not -ffast-math: NaN must propagate. Not -march=native: wheels travel.
    "-fno-math-errno",
    "-ffp-contract=fast",
    # Vector types wider than the base instruction set are passed only between functions of one file.
    "-Wno-psabi",
]
NVCC_FLAGS = ["-std=c++20", "-O3", "--expt-relaxed-constexpr", "-lineinfo", "-Xcompiler", "-fvisibility=hidden"]


def require_torch() -> None:
    """End the build with three readable lines where there is no torch, or one that is too old."""
    oldest = ".".join(map(str, OLDEST_TORCH))
    try:
        import torch
    except ImportError as error:
        raise SystemExit(NO_TORCH.format(oldest=oldest, found=f"`import torch` said {error}")) from None
    found = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if found < OLDEST_TORCH:
        raise SystemExit(NO_TORCH.format(oldest=oldest, found=f"found {torch.__version__}"))


def find_toolkit() -> Path | None:
    """Return the folder of the CUDA toolkit, None where there is none.

    torch looks in the same places, but takes the folder above any ``nvcc`` on the PATH, which may be a script that only
    calls the compiler elsewhere: without headers it is no toolkit.
    """
    on_path = shutil.which("nvcc")
    folders = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")]
    folders += [str(Path(on_path).resolve().parents[1]) if on_path else None, "/usr/local/cuda"]
    for folder in map(Path, filter(None, folders)):
        if (folder / "bin" / "nvcc").is_file() and (folder / "include" / "cuda_runtime.h").is_file():
            return folder
    return None


def wanted_toolkit() -> Path | None:
    """Return the toolkit to build ``ketgrad._C_cuda`` with, None where it is not to be built.

    Raises:
        SystemExit: KETGRAD_CUDA is 1 and there is no CUDA to build with, or it is none of its three values.
    """
    import torch

    wish = os.environ.get("KETGRAD_CUDA") or "auto"
    if wish not in ("auto", "0", "1"):
        raise SystemExit(
            f"KETGRAD_CUDA={wish} means nothing: it is auto, 0 (without CUDA) or 1 (with CUDA or not at all)"
        )
    if wish == "0":
        return None
    toolkit = find_toolkit()
    if wish == "1" and torch.version.cuda is None:
        raise SystemExit(NO_CUDA.format(found=f"PyTorch {torch.__version__} is a CPU build"))
    if wish == "1" and toolkit is None:
        raise SystemExit(NO_CUDA.format(found="no toolkit was found (bin/nvcc and include/cuda_runtime.h)"))
    return None if torch.version.cuda is None else toolkit


require_torch()
TOOLKIT = wanted_toolkit()
if TOOLKIT is not None:
    os.environ["CUDA_HOME"] = str(TOOLKIT)  # torch reads it when the next line runs

from torch.utils.cpp_extension import (  # noqa: E402
    BuildExtension,
    CppExtension,
    CUDAExtension,
    get_cxx_compiler,
    include_paths,
)


class BuildKetgrad(BuildExtension):
    """torch's build command, with one place for object files."""

    def finalize_options(self) -> None:
        """Keep object files between builds.

        ``pip install -e`` hands over a fresh temporary folder each time, and every source would be compiled again.
        """
        super().finalize_options()
        self.build_temp = str(ROOT / "build" / f"ext-{sys.implementation.cache_tag}")

    def build_extension(self, extension: Extension) -> None:
        """Keep the object files of the extensions apart: they share sources and compile them with different flags."""
        whole = self.build_temp
        if extension.name == "ketgrad._C_cuda":
            self.build_temp = f"{whole}-cuda"
        super().build_extension(extension)
        self.build_temp = whole


def listed_sources(listing: str) -> list[str]:
    """Return the paths in ``listing`` (one a line, relative to the repository root, '#' starts a comment)."""
    lines = (line.split("#")[0].strip() for line in (ROOT / listing).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def is_gcc() -> bool:
    """Tell whether the compiler that torch will call is GCC."""
    command = [*shlex.split(get_cxx_compiler()), "-dM", "-E", "-x", "c++", "-"]
    try:
        macros = subprocess.run(command, input="", capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return False
    return "__GNUC__" in macros and "__clang__" not in macros


def system_headers(paths: list[str]) -> list[str]:
    """Return flags that make headers the system's: warnings are about our code."""
    return [flag for path in paths for flag in ("-isystem", path)]


def cpu_extension() -> Extension:
    """Describe ``ketgrad._C``: kernels and operators for the CPU, and the pybind11 module for what is not a tensor."""
    # clang would link a second OpenMP runtime beside torch's own; the threads come from torch's pool either way.
    openmp = ["-fopenmp"] if sys.platform == "linux" and is_gcc() else []
    return CppExtension(
        name="ketgrad._C",
        sources=listed_sources("csrc/sources.txt"),
        include_dirs=[str(ROOT / "csrc")],
        define_macros=MACROS,
        extra_compile_args=[*HOST_FLAGS, *openmp, *system_headers(include_paths())],
        extra_link_args=openmp,
    )


def cuda_extension() -> Extension:
    """Describe ``ketgrad._C_cuda``: the same operators for CUDA, and its own copy of what it needs of the core."""
    import torch

    if not os.environ.get("TORCH_CUDA_ARCH_LIST") and torch.cuda.device_count() == 0:
        os.environ["TORCH_CUDA_ARCH_LIST"] = DEFAULT_ARCHITECTURES
    core = [
        path
        for path in listed_sources("csrc/sources.txt")
        if path.startswith(("csrc/runtime/", "csrc/program/", "csrc/plan/"))
    ]
    return CUDAExtension(
        name="ketgrad._C_cuda",
        sources=[*listed_sources("cuda/sources.txt"), *core],
        include_dirs=[str(ROOT), str(ROOT / "csrc")],
        define_macros=[*MACROS, ("USE_CUDA", None)],
        extra_compile_args={
            "cxx": [*HOST_FLAGS, *system_headers(include_paths("cuda"))],
            # No paths among these: torch takes any flag with "arch" in it for a choice of architectures.
            "nvcc": NVCC_FLAGS,
        },
    )


extensions = [cpu_extension()] + ([cuda_extension()] if TOOLKIT is not None else [])
setup(ext_modules=extensions, cmdclass={"build_ext": BuildKetgrad})
