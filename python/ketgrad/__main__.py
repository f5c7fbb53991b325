"""`python -m ketgrad info`: what a bug report should say."""

from __future__ import annotations

import argparse
import os
import platform

import torch

from . import __version__
from ._library import _C


def info() -> str:
    """Versions, processor, threads, CUDA and build, one a line."""
    levels = ", ".join(_C.available_levels())
    gib = _C.available_memory() / 2**30
    rows = [
        ("ketgrad", __version__),
        ("torch", torch.__version__),
        ("Python", f"{platform.python_version()} on {platform.platform()}"),
        ("CPU level", f"{_C.current_level()} (available: {levels}; KETGRAD_CPU_LEVEL forces one)"),
        ("threads", f"{torch.get_num_threads()} of {os.cpu_count()} processors"),
        ("memory", f"{gib:.1f} GiB available"),
        ("build", _C.build_flags()),
        ("CUDA", f"no: this build of ketgrad is for the CPU ({_torch_cuda()})"),
        ("PennyLane", _pennylane()),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _torch_cuda() -> str:
    if torch.version.cuda is None:
        return "torch has no CUDA either"
    return f"torch has CUDA {torch.version.cuda}, {torch.cuda.device_count()} devices"


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
