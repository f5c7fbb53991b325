"""What the machine can do: bandwidth of copies, rate of matrix products; and what it is."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

COPIED = 1 << 29
"""Bytes of the array that is copied: beyond the caches."""
SIZE = 2048
"""Rows of the matrices."""
REPEATS = 7
DEFAULT_CACHE = 32 << 20


@dataclass(frozen=True)
class Machine:
    """What the limit is made of, and what belongs beside figures."""

    cpu: str
    threads: int
    cache: int
    """Bytes of the last-level cache."""
    memory: int
    copy_gb_s: float
    """Read and written."""
    matrix_gflop_s: float
    """float32."""
    matrix_double_gflop_s: float
    system: str
    torch: str

    def better(self, other: Machine) -> Machine:
        """The higher of two measurements."""
        rates = ("copy_gb_s", "matrix_gflop_s", "matrix_double_gflop_s")
        return Machine(**asdict(self) | {rate: max(getattr(self, rate), getattr(other, rate)) for rate in rates})


def busy_processors(seconds: float = 2.0) -> float:
    """How many processors work at present, by a look of so many seconds; 0 where it cannot be told."""
    before = _worked()
    time.sleep(seconds)
    return (_worked() - before) / seconds


def _worked() -> float:
    """Seconds that all processors have worked since the system started."""
    with suppress(OSError, IndexError, ValueError):
        user, nice, system = Path("/proc/stat").read_text(encoding="ascii").split()[1:4]
        return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")
    return 0.0


def measure(threads: int) -> Machine:
    """Measure, in a few seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return Machine(
            cpu=cpu_name(),
            threads=threads,
            cache=last_level_cache(),
            memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            copy_gb_s=copy_bandwidth(),
            matrix_gflop_s=matrix_rate(torch.float32),
            matrix_double_gflop_s=matrix_rate(torch.float64),
            system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            torch=torch.__version__,
        )
    finally:
        torch.set_num_threads(before)


def copy_bandwidth() -> float:
    """GB/s."""
    source, target = torch.ones(COPIED // 4), torch.empty(COPIED // 4)
    return 2e-9 * COPIED / fastest(lambda: target.copy_(source))


def matrix_rate(dtype: torch.dtype) -> float:
    """GFLOP/s, a multiply-add counted as two."""
    a, b = torch.rand(2, SIZE, SIZE, dtype=dtype)
    product = torch.empty(SIZE, SIZE, dtype=dtype)
    return 2e-9 * SIZE**3 / fastest(lambda: torch.mm(a, b, out=product))


def fastest(call: Callable[[], object]) -> float:
    """Seconds; one call goes before."""
    call()
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return min(times)


def cpu_name() -> str:
    """As the system calls it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return _sysctl("machdep.cpu.brand_string") or platform.processor() or "unknown"


def last_level_cache() -> int:
    """Bytes."""
    found = [int(_sysctl(name) or 0) for name in ("hw.l3cachesize", "hw.l2cachesize")]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        with suppress(OSError, ValueError):
            found.append(1024 * int(path.read_text(encoding="ascii").strip().removesuffix("K")))
    return max(found) or DEFAULT_CACHE


def _sysctl(name: str) -> str:
    if platform.system() != "Darwin":
        return ""
    return subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False).stdout.strip()
