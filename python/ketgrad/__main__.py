"""`python -m ketgrad info`: versions and build, for bug reports."""

from __future__ import annotations

import argparse
import os
import platform
from importlib import import_module

import torch

from . import __version__
from .execution.programs import structure_cache
from .native.library import _C, NO_CUDA


def info() -> str:
    """Versions, processor, threads, CUDA and build, one per line."""
    levels = ", ".join(_C.available_simd_levels())
    gib = _C.available_memory() / 2**30
    rows = [
        ("ketgrad", __version__),
        ("torch", torch.__version__),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
        ("CPU level", f"{_C.current_simd_level()} (available: {levels}; KETGRAD_CPU_LEVEL forces one)"),
        ("threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors"),
        ("memory", f"{gib:.1f} GiB available"),
        ("structures", f"at most {structure_cache.limit / 2**20:.0f} MiB of them are kept (kg.structure_cache)"),
        ("build", _C.build_flags()),
        ("CUDA", _cuda()),
        ("PennyLane", _pennylane()),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _cuda() -> str:
    """The GPUs and the architectures that were built, or why circuits do not run on GPUs."""
    missing = NO_CUDA or ("" if torch.cuda.is_available() else "no GPU is visible")
    if missing:
        return f"no: {missing}"
    devices = [
        "{} (compute capability {}.{})".format(torch.cuda.get_device_name(i), *torch.cuda.get_device_capability(i))
        for i in range(torch.cuda.device_count())
    ]
    architectures = [f"sm_{number}" for number in import_module("ketgrad._C_cuda").architectures()]
    return f"{', '.join(devices)}; PyTorch's CUDA {torch.version.cuda}; built for {', '.join(architectures)}"


def _pennylane() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pennylane")
    except PackageNotFoundError:
        return "not installed"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m ketgrad", description="ketgrad: quantum circuits for PyTorch")
    parser.add_argument("command", choices=["info"], help="info: versions and build, for bug reports")
    parser.parse_args()
    print(info())


if __name__ == "__main__":
    main()
