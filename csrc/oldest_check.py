"""Compiles everything that knows torch against the headers of the oldest torch that constraints-oldest.txt promises.

Development and most of CI use the newest torch, whose headers have names that the oldest ones lack. The oldest headers
are taken from the wheel of that version for macOS, which is much smaller than the one for Linux: the two differ in
the headers of ATen and of CPU libraries only, none of which the stable ABI lets anyone include. They are downloaded
once, into build/oldest. A file that is older than its last success is not compiled again.

    python csrc/oldest_check.py

It fails where a file does not compile or the headers cannot be had. The files of cuda/ are compiled with the CUDA
toolkit's headers, or where there is none with those of tests/cuda/host.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILT = ROOT / "build" / "oldest"
LISTINGS = (ROOT / "csrc" / "sources.txt", ROOT / "cuda" / "sources.txt")
FREE_OF_TORCH = ("csrc/runtime/", "csrc/program/", "csrc/plan/", "csrc/cpu/")
PLATFORMS = ("macosx_11_0_arm64", "macosx_14_0_arm64")
COMPILERS = 2
"""How many run at a time."""


def oldest_requirement() -> str:
    """The line of constraints-oldest.txt: torch==2.11.0."""
    text = (ROOT / "constraints-oldest.txt").read_text(encoding="utf-8")
    return re.findall(r"^torch==[\d.]+$", text, flags=re.MULTILINE)[0]


def headers_of(requirement: str) -> Path:
    """The include folder of that version, downloaded if it is not there yet."""
    folder = BUILT / requirement.replace("==", "-")
    include = folder / "torch" / "include"
    if include.is_dir():
        return include
    BUILT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILT) as temporary:
        wheels, unpacked = Path(temporary) / "wheels", Path(temporary) / "unpacked"
        platforms = [flag for platform in PLATFORMS for flag in ("--platform", platform)]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += [*platforms, "--only-binary=:all:", "--python-version", "3.11", "--dest", str(wheels), requirement]
        if code := subprocess.run(command, check=False).returncode:
            sys.exit(f"oldest-check: {requirement}, whose headers are compiled against, could not be had (pip: {code})")
        (wheel,) = wheels.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked, [name for name in archive.namelist() if name.startswith("torch/include/")])
        unpacked.rename(folder)
    return include


def sources() -> list[Path]:
    """Every listed C++ file outside of the folders that are free of torch."""
    lines = (line.split("#")[0].strip() for path in LISTINGS for line in path.read_text(encoding="utf-8").splitlines())
    return [ROOT / line for line in lines if line.endswith(".cpp") and not line.startswith(FREE_OF_TORCH)]


def of_setup(name: str) -> Any:
    """A constant of setup.py, which cannot be imported."""
    for node in ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            return ast.literal_eval(node.value)
    raise LookupError(f"setup.py has no {name}")


def cuda_flags() -> list[str]:
    """Where the CUDA runtime's headers are. Those of the tests say themselves what torch's say where CUDA is in use."""
    nvcc = shutil.which("nvcc")
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    homes.append(str(Path(nvcc).resolve().parents[1]) if nvcc else None)
    for home in filter(None, homes):
        if (Path(home) / "include" / "cuda_runtime.h").is_file():
            return ["-DUSE_CUDA", "-isystem", str(Path(home) / "include")]
    print("without the CUDA toolkit: cuda/ is compiled with the headers of tests/cuda/host")
    return ["-I", str(ROOT / "tests" / "cuda" / "host")]


def latest_header() -> float:
    """When any header of ours, or what decides about the flags, was last changed."""
    files = [path for folder in ("csrc", "cuda") for path in (ROOT / folder).rglob("*.h")]
    return max(path.stat().st_mtime for path in (*files, Path(__file__), ROOT / "setup.py"))


def compiles(command: list[str], source: Path, latest: float) -> bool:
    """Check one file and print how it went."""
    name = source.relative_to(ROOT).as_posix()
    stamp = BUILT / f"{name.replace('/', '-')}.passed"
    if stamp.exists() and stamp.stat().st_mtime > max(latest, source.stat().st_mtime):
        print(f"{name}: up to date", flush=True)
        return True
    stamp.unlink(missing_ok=True)
    begun = time.monotonic()
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
    print(f"{name}: {'FAILED' if done.returncode else f'{time.monotonic() - begun:.0f} s'}", flush=True)
    if done.returncode:
        print(done.stderr, file=sys.stderr, flush=True)
        return False
    stamp.touch()
    return True


def main() -> None:
    """Compile, and fail where a file does not."""
    requirement = oldest_requirement()
    include = headers_of(requirement)
    print(f"against the headers of {requirement}:")
    defined = [f"-D{name}" if value is None else f"-D{name}={value}" for name, value in of_setup("MACROS")]
    system = [include, include / "torch" / "csrc" / "api" / "include", sysconfig.get_path("include")]
    command = [*shlex.split(os.environ.get("CXX", "c++")), "-fsyntax-only", *of_setup("HOST_FLAGS"), *defined]
    command += ["-DTORCH_EXTENSION_NAME=_C", f"-I{ROOT}", f"-I{ROOT / 'csrc'}"]
    command += [flag for path in system for flag in ("-isystem", str(path))]
    for_cuda = [*command, *cuda_flags()]
    latest = latest_header()
    with ThreadPoolExecutor(COMPILERS) as pool:
        commands = ((for_cuda if source.is_relative_to(ROOT / "cuda") else command, source) for source in sources())
        passed = list(pool.map(lambda pair: compiles(*pair, latest), commands))
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
