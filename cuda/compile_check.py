"""Compiles the CUDA sources where there is no GPU and no CUDA build of torch, and says what each kernel takes.

Every file of cuda/sources.txt goes through nvcc as setup.py builds it, for two architectures and with warnings as
errors; a file whose object is newer than it and than all headers is not compiled again. One table has the registers,
stack, spills and static shared memory of every kernel. Objects and PTX stay in build/cuda, for cuda/ptx_check.py.

    python cuda/compile_check.py

It fails on a warning, an error, and a kernel that spills much, has a large stack, or has shared memory beside what its
launch asks for. Where there is no nvcc it says so and succeeds.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from torch.utils.cpp_extension import include_paths

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ROOT / "cuda" / "sources.txt"
BUILT = ROOT / "build" / "cuda"

ARCHITECTURES = (80, 90)
MOST_SPILLED = 1024
"""Bytes of spill stores and loads together, of one kernel for one architecture. Tile kernels need all registers that
they are given for the rows of ket and bra; what lives as long as a tile may be put aside meanwhile."""
MOST_STACK = 1024
"""Bytes of a thread's stack, spills included: local memory, of which the driver keeps as much as all threads that a GPU
can hold would take, out of the sight of torch's allocator. On an H100, of 132 times 2,048 threads, these are 277 MB."""
COMPILERS = 2
"""How many run at a time."""

FLAGS = [
    # As in setup.py.
    *("-std=c++20", "-O3", "--expt-relaxed-constexpr", "-lineinfo", "-Xcompiler", "-fvisibility=hidden"),
    *("-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020b000000000000", "-DTORCH_STABLE_ONLY"),
    *("-DTORCH_EXTENSION_NAME=_C_cuda", f"-I{ROOT}", f"-I{ROOT / 'csrc'}"),
    # Ours: position-independent as any extension is, every warning an error, and a report of each kernel.
    *("-Xcompiler", "-fPIC", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra,-Werror,-Wno-psabi"),
    *("-Xptxas", "-v"),
]


@dataclass
class Kernel:
    """What ptxas reports of one function for one architecture."""

    name: str
    architecture: str
    registers: int = 0
    stack: int = 0
    spilled: int = 0
    shared: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Compilation:
    """One source file; `problem` is what the compiler said where it failed."""

    source: Path
    report: str
    problem: str
    seconds: float


def find_nvcc() -> str | None:
    """The compiler: that on the PATH, or where CUDA_HOME, CUDA_PATH or an ordinary installation have it."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    candidates = [shutil.which("nvcc"), *(shutil.which("nvcc", path=f"{home}/bin") for home in homes if home)]
    return next(filter(None, candidates), None)


def listed(listing: Path) -> list[Path]:
    """The paths in a file, one a line, relative to the repository root; '#' starts a comment."""
    lines = (line.split("#")[0].strip() for line in listing.read_text(encoding="utf-8").splitlines())
    return [ROOT / line for line in lines if line]


def headers() -> Iterator[Path]:
    """What any source may include, and this file, which has the flags."""
    yield Path(__file__)
    for folder in (ROOT / "cuda", *(ROOT / "csrc" / name for name in ("math", "runtime", "program", "plan", "ops"))):
        yield from folder.rglob("*.h")


def compile_all(nvcc: str, sources: list[Path]) -> Iterator[Compilation]:
    """Compile what is not up to date; the largest first, so that no long one is left alone at the end."""
    BUILT.mkdir(parents=True, exist_ok=True)
    latest_header = max(path.stat().st_mtime for path in headers())
    ordered = sorted(sources, key=lambda path: path.stat().st_size, reverse=True)
    with ThreadPoolExecutor(COMPILERS) as pool:
        yield from pool.map(lambda source: compiled(nvcc, source, latest_header), ordered)


def compiled(nvcc: str, source: Path, latest_header: float) -> Compilation:
    """Compile a file, unless its object is up to date; the report is kept beside the object."""
    target, report = BUILT / f"{source.name}.o", BUILT / f"{source.name}.txt"
    ptx = [ptx_of(source, number) for number in ARCHITECTURES] if source.suffix == ".cu" else []
    newest = max(latest_header, source.stat().st_mtime)
    if all(path.exists() for path in (target, report, *ptx)) and target.stat().st_mtime > newest:
        return Compilation(source, report.read_text(encoding="utf-8"), "", 0.0)
    begun = time.monotonic()
    with TemporaryDirectory(dir=BUILT) as kept:
        command = [nvcc, *flags(source), "--keep", "--keep-dir", kept, "-c", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if not done.returncode:
            for number, path in zip(ARCHITECTURES, ptx, strict=False):
                (Path(kept) / f"{source.stem}.compute_{number}.ptx").replace(path)
    seconds = time.monotonic() - begun
    if done.returncode:
        target.unlink(missing_ok=True)
        return Compilation(source, "", done.stdout + done.stderr, seconds)
    report.write_text(done.stderr, encoding="utf-8")
    return Compilation(source, done.stderr, "", seconds)


def ptx_of(source: Path, architecture: int) -> Path:
    """Where the PTX of a kernel file is, once it is compiled."""
    return BUILT / f"{source.stem}.sm_{architecture}.ptx"


def flags(source: Path) -> list[str]:
    """Flags for a kernel file, or for one that nvcc only hands to the host's compiler."""
    system = [*include_paths(), sysconfig.get_path("include")]
    found = [*FLAGS, *(flag for path in system for flag in ("-isystem", path))]
    if source.suffix == ".cu":
        found += [f"-gencode=arch=compute_{number},code=sm_{number}" for number in ARCHITECTURES]
    return found


# --- the report ------------------------------------------------------------------------------------------------------


def kernels(report: str) -> list[Kernel]:
    """What `-Xptxas -v` printed of kernels, and of functions that are not inlined into them if they spill."""
    found: list[Kernel] = []
    entry = part = Kernel("", "")
    for line in report.splitlines():
        if match := re.search(r"Compiling entry function '(.+)' for '(.+)'", line):
            entry = Kernel(match[1], match[2])
            found.append(entry)
        elif match := re.search(r"Function properties for (\S+)", line):
            part = entry if match[1] == entry.name else Kernel(match[1], entry.architecture)
        elif match := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
            part.stack, part.spilled = int(match[1]), int(match[2]) + int(match[3])
            found += [part] if part is not entry and part.spilled else []
        elif match := re.search(r"Used (\d+) registers", line):
            entry.registers = int(match[1])
            entry.shared = int(shared[1]) if (shared := re.search(r"(\d+) bytes smem", line)) else 0
        elif match := re.search(r"Compile time = ([\d.]+) ms", line):
            entry.seconds = 1e-3 * float(match[1])
    return found


def demangled(names: Iterable[str]) -> dict[str, str]:
    """Names as people write them, without parameters and without the namespaces that all share."""
    unique = sorted(set(names))
    if shutil.which("c++filt") is None or not unique:
        return {name: name for name in unique}
    done = subprocess.run(["c++filt", "-p"], input="\n".join(unique), capture_output=True, text=True, check=True)
    lines = [re.sub(r"\bketgrad::(cuda::)?|\(anonymous namespace\)::", "", line) for line in done.stdout.splitlines()]
    return dict(zip(unique, lines, strict=True))


def table(found: list[Kernel]) -> str:
    """One line a kernel and architecture."""
    names = demangled(kernel.name for kernel in found)
    rows = [["kernel", "arch", "registers", "stack", "spilled", "shared", "seconds"]]
    for k in sorted(found, key=lambda k: (names[k.name], k.architecture)):
        numbers = map(str, (k.registers, k.stack, k.spilled, k.shared))
        rows.append([names[k.name], k.architecture, *numbers, f"{k.seconds:.2f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main() -> None:
    """Compile, report, and fail where something is wrong."""
    parser = argparse.ArgumentParser(description="Compile the CUDA sources and report what each kernel takes.")
    parser.add_argument("--sources", type=Path, default=SOURCES, help="a list of files (default: cuda/sources.txt)")
    options = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("cuda-check: skipped, because nvcc is not installed")
        return
    done = [told(compilation) for compilation in compile_all(nvcc, listed(options.sources))]
    found = [kernel for compilation in done for kernel in kernels(compilation.report)]
    if found:
        print(f"\n{table(found)}\n")
    complaints = [(kernel, complaint) for kernel in found for complaint in complaints_about(kernel)]
    names = demangled(kernel.name for kernel, _ in complaints)
    for kernel, complaint in complaints:
        print(f"{names[kernel.name]} {complaint} for {kernel.architecture}", file=sys.stderr)
    sys.exit(1 if complaints or any(compilation.problem for compilation in done) else 0)


def complaints_about(kernel: Kernel) -> Iterator[str]:
    """What is too much of a kernel."""
    if kernel.spilled > MOST_SPILLED:
        yield f"spills {kernel.spilled} bytes"
    if kernel.stack > MOST_STACK:
        yield f"has a stack of {kernel.stack} bytes"
    if kernel.shared:  # launches ask for all that a block can have
        yield f"has {kernel.shared} bytes of static shared memory"


def told(done: Compilation) -> Compilation:
    """Print how it went."""
    state = "FAILED" if done.problem else f"{done.seconds:.0f} s" if done.seconds else "up to date"
    print(f"{os.path.relpath(done.source, ROOT)}: {state}", flush=True)
    if done.problem:
        print(done.problem, file=sys.stderr, flush=True)
    return done


if __name__ == "__main__":
    main()
