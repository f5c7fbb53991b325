"""Runs the tests of the CUDA engine on the PTX that nvcc makes of its kernels, where there is no GPU.

The objects and the PTX are those of cuda/compile_check.py. Linked with an interpreter of PTX in place of the CUDA
runtime (tests/cuda/ptx/), the host code launches the very kernels that a GPU would get. The interpreter ends with the
kernel and the source line where one goes wrong: a race, a barrier or a shuffle that a thread does not reach, memory
that was never allocated or written, a misaligned access, an instruction that it does not know. Every test runs in
several orders of blocks, warps and threads.

    python cuda/ptx_check.py
    python cuda/ptx_check.py --barriers    # takes out each barrier in turn, which the tests must notice

It fails where a test does, and says how much of the kernels no test has reached. Where there is no nvcc it says so and
succeeds.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from compile_check import ARCHITECTURES, BUILT, ROOT, SOURCES, compile_all, find_nvcc, listed, ptx_of, told

BUILD = ROOT / "build" / "cmake"
RUNS = BUILT / "runs"
PROCESSES = 2
"""How many run at a time."""

OWN_TEST = "ptx_test_ptx"
"""What the interpreter can do: not run on the kernels, but first."""


@dataclass(frozen=True)
class Order:
    """In which order blocks, warps and threads go on; a quantum of 0 interrupts none."""

    seed: int
    quantum: int


ORDERS = [Order(1, 50), Order(2, 1000)]


@dataclass(frozen=True)
class Run:
    """A test program on the PTX of an architecture, maybe without some barrier (kernel, place)."""

    program: str
    architecture: int
    order: Order
    without: tuple[str, str] | None = None

    @property
    def name(self) -> str:
        """For people to read."""
        return f"{self.program.removeprefix('ptx_')} sm_{self.architecture} seed {self.order.seed}"

    @property
    def coverage(self) -> Path:
        """The file in which the interpreter says what was reached."""
        return RUNS / f"{self.program}.{self.architecture}.{self.order.seed}.txt"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its last line, or the complaint with which it failed."""

    run: Run
    passed: bool
    last_line: str
    seconds: float


@dataclass
class Reached:
    """Of one function: which of its instructions were reached, and where its barriers are."""

    source_name: str
    instructions: list[bool]
    barriers: set[str] = field(default_factory=set)


# --- building --------------------------------------------------------------------------------------------------------


def build() -> None:
    """The test programs, with CMake, from the objects that nvcc made."""
    configure = ["cmake", "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=RelWithDebInfo"]
    for command in (
        [*configure, f"-DKETGRAD_CUDA_OBJECTS={BUILT}"],
        ["cmake", "--build", str(BUILD), "--target", "ptx_tests"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stdout + done.stderr)


def programs() -> list[str]:
    """The tests that launch kernels."""
    return sorted(path.name for path in (BUILD / "ptx").glob("ptx_test_*") if path.name != OWN_TEST)


def distinct_architectures() -> Iterator[int]:
    """The architectures, without those whose PTX is that of an earlier one but for the target."""
    seen: dict[tuple[str, ...], int] = {}
    for architecture in ARCHITECTURES:
        texts = tuple(re.sub(r"^\.target.*$", "", path.read_text(), flags=re.MULTILINE) for path in ptx(architecture))
        if texts in seen:
            print(f"sm_{architecture}: the PTX is that of sm_{seen[texts]} but for the target")
        else:
            seen[texts] = architecture
            yield architecture


def ptx(architecture: int) -> list[Path]:
    """The files of all kernels."""
    return [ptx_of(source, architecture) for source in kernel_sources()]


def kernel_sources() -> list[Path]:
    """What nvcc makes PTX of."""
    return [source for source in listed(SOURCES) if source.suffix == ".cu"]


# --- running ---------------------------------------------------------------------------------------------------------


def run(run: Run) -> Outcome:
    """Run a test to its end, or to the first complaint of the interpreter."""
    environment = os.environ | {
        "KETGRAD_PTX_FILES": ":".join(map(str, ptx(run.architecture))),
        "KETGRAD_PTX_SEED": str(run.order.seed),
        "KETGRAD_PTX_QUANTUM": str(run.order.quantum),
        "KETGRAD_PTX_COVERAGE": "" if run.without else str(run.coverage),
        "KETGRAD_PTX_WITHOUT": " ".join(run.without or ()),
        # Of its allocator only the fences are wanted, and memory that comes back soon.
        "ASAN_OPTIONS": "detect_leaks=0:malloc_context_size=0:quarantine_size_mb=16",
    }
    command = [str(BUILD / "ptx" / run.program)]
    if run.program == "ptx_test_random":
        command += ["0", str(run.order.seed)]
    begun = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    seconds = time.monotonic() - begun
    if done.returncode == 0:
        return Outcome(run, True, done.stdout.splitlines()[-1], seconds)
    return Outcome(run, False, complaint(done), seconds)


def complaint(done: subprocess.CompletedProcess[str]) -> str:
    """What the interpreter said, or the first check that failed."""
    lines = done.stderr.splitlines()
    found = [line for line in lines if line.startswith("ptx: ")] or lines
    return found[0] if found else f"ended with status {done.returncode}"


def run_all(runs: Iterable[Run]) -> Iterator[Outcome]:
    """Some at a time; the outcomes come in the order of the runs."""
    with ThreadPoolExecutor(PROCESSES) as pool:
        yield from pool.map(run, runs)


def check_own() -> bool:
    """The interpreter's own test."""
    done = subprocess.run([str(BUILD / "ptx" / OWN_TEST)], capture_output=True, text=True, check=False)
    print(f"the interpreter itself: {done.stdout.splitlines()[-1] if done.stdout else done.stderr}", flush=True)
    return done.returncode == 0


def check_all(architectures: Iterable[int]) -> tuple[bool, dict[str, Reached]]:
    """All tests in all orders; of a second architecture in one."""
    runs = [
        Run(program, architecture, order)
        for number, architecture in enumerate(architectures)
        for order in (ORDERS if number == 0 else ORDERS[:1])
        for program in programs()
    ]
    passed = True
    reached: dict[str, Reached] = {}
    for outcome in run_all(runs):
        print(f"{outcome.run.name}: {outcome.last_line} ({outcome.seconds:.0f} s)", flush=True)
        passed &= outcome.passed
        if outcome.passed:
            add_coverage(reached, outcome.run.coverage)
    return passed, reached


# --- coverage --------------------------------------------------------------------------------------------------------


def add_coverage(reached: dict[str, Reached], path: Path) -> None:
    """Add what one run has reached."""
    for line in path.read_text(encoding="utf-8").splitlines():
        source_name, name, bits, barriers = line.split("\t")
        instructions = [bit == "1" for bit in bits]
        known = reached.setdefault(name, Reached(source_name, [False] * len(bits)))
        known.instructions = [a or b for a, b in zip(known.instructions, instructions, strict=True)]
        known.barriers |= set(barriers.split())


def report(reached: dict[str, Reached]) -> None:
    """Print what no test has reached: in numbers, and the functions by name."""
    by_source: dict[str, list[Reached]] = {}
    for function in reached.values():
        by_source.setdefault(function.source_name, []).append(function)
    print("\ninstructions reached, of all instances of a kernel:")
    for source_name, functions in sorted(by_source.items()):
        print(f"  {source_name}: {share([bit for function in functions for bit in function.instructions])}")
    idle = sorted(name for name, function in reached.items() if not any(function.instructions))
    print(f"functions: {len(reached) - len(idle):,} of {len(reached):,} reached")
    print(f"instructions: {share([bit for function in reached.values() for bit in function.instructions])}")
    for name in idle:
        print(f"no test launches {name}")


def share(bits: list[bool]) -> str:
    """How many are true, of how many."""
    return f"{sum(bits):,} of {len(bits):,} ({100 * sum(bits) / max(len(bits), 1):.1f}%)"


# --- barriers --------------------------------------------------------------------------------------------------------


def check_barriers(reached: dict[str, Reached], architecture: int) -> bool:
    """Take each barrier out of each kernel that has it, all its instances, and see whether some test fails.

    A function that several kernels call may have a barrier that not all of them need: one that does is enough.
    """
    barriers = sorted({(f.source_name, place) for f in reached.values() for place in f.barriers})
    print(f"\n{len(barriers)} barriers of kernels, each taken out:")
    seen: set[str] = set()
    unseen: set[str] = set()
    with ThreadPoolExecutor(PROCESSES) as pool:
        outcomes = pool.map(lambda barrier: missed(barrier, architecture), barriers)
        for (kernel, place), outcome in zip(barriers, outcomes, strict=True):
            noticed = f"{outcome.run.name}: {outcome.last_line}" if outcome else "no test misses it"
            print(f"  {place} in {kernel}: {noticed}", flush=True)
            (seen if outcome else unseen).add(place)
    for place in sorted(unseen - seen):
        print(f"no test misses the barrier at {place}: it is superfluous, or a test is missing")
    return unseen <= seen


def missed(barrier: tuple[str, str], architecture: int) -> Outcome | None:
    """The first run that fails without the barrier, if one does. Races do not depend on the order."""
    for program in programs():
        outcome = run(Run(program, architecture, ORDERS[0], barrier))
        if not outcome.passed:
            return outcome
    return None


def main() -> None:
    """Compile, build, run and report, and fail where something is wrong."""
    parser = argparse.ArgumentParser(description="Run the tests of the CUDA engine on the PTX of its kernels.")
    parser.add_argument("--barriers", action="store_true", help="also take each barrier out of the PTX in turn")
    options = parser.parse_args()
    nvcc = find_nvcc()
    if nvcc is None:
        print("ptx-check: skipped, because nvcc is not installed")
        return
    compilations = [told(compilation) for compilation in compile_all(nvcc, kernel_sources())]
    if any(compilation.problem for compilation in compilations):
        sys.exit(1)
    build()
    RUNS.mkdir(exist_ok=True)
    architectures = list(distinct_architectures())
    passed = check_own()
    all_passed, reached = check_all(architectures)
    passed &= all_passed
    report(reached)
    if options.barriers and passed:
        passed = check_barriers(reached, architectures[0])
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
