"""Builds the extension ``ketgrad._C``. All static metadata is in pyproject.toml."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).resolve().parent
OLDEST_TORCH = (2, 11)

# torch is not in [build-system] requires: an isolated build would compile against another torch than the one in use.
NO_TORCH = """ketgrad compiles against the PyTorch that it will run with, and needs PyTorch {oldest} or newer: {found}.
Install it first:    python -m pip install "torch>={oldest}" setuptools ninja numpy
and then ketgrad:    python -m pip install --no-build-isolation ."""


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


require_torch()

from torch.utils.cpp_extension import BuildExtension, CppExtension, get_cxx_compiler, include_paths  # noqa: E402


class BuildKetgrad(BuildExtension):
    """torch's build command, with one place for object files."""

    def finalize_options(self) -> None:
        """Keep object files between builds.

        ``pip install -e`` hands over a fresh temporary folder each time, and every source would be compiled again.
        """
        super().finalize_options()
        self.build_temp = str(ROOT / "build" / f"ext-{sys.implementation.cache_tag}")


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


def cpu_extension() -> CppExtension:
    """Describe ``ketgrad._C``: kernels and operators for the CPU, and the pybind11 module for what is not a tensor."""
    # clang would link a second OpenMP runtime beside torch's own; the threads come from torch's pool either way.
    openmp = ["-fopenmp"] if sys.platform == "linux" and is_gcc() else []
    return CppExtension(
        name="ketgrad._C",
        sources=listed_sources("csrc/sources.txt"),
        include_dirs=[str(ROOT / "csrc")],
        define_macros=[
            # The stable ABI as of torch 2.11: one build serves every later torch, and any ATen include is an error.
            ("TORCH_TARGET_VERSION", "0x020b000000000000"),
            ("TORCH_STABLE_ONLY", None),
        ],
        extra_compile_args=[
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
            *openmp,
            # Warnings are about our code: torch's headers count as the system's.
            *(flag for path in include_paths() for flag in ("-isystem", path)),
        ],
        extra_link_args=openmp,
    )


setup(ext_modules=[cpu_extension()], cmdclass={"build_ext": BuildKetgrad})
