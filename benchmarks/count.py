"""Counts the instructions of fixed workloads under callgrind and compares them with those on file.

Times on shared machines vary by tens of per cent; instruction counts of the same compiler do not. `make count` builds
the driver and runs this.

    python benchmarks/count.py build/cmake/driver            compares; fails where a count has changed by more than 3 %
    python benchmarks/count.py build/cmake/driver --update   writes the file anew
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

COUNTS = Path(__file__).with_name("counts.json")
TOLERANCE = 0.03

# (workload of the driver, instruction set). Valgrind knows nothing of AVX-512.
WORKLOADS = [
    ("qml_8_4_32", "avx2"),
    ("qml_8_4_32_second", "avx2"),
    ("vqe_2_1", "avx2"),
    ("vqe_4_300", "avx2"),  # deep: here planning that is not linear shows,
    ("tfim_4_500", "avx2"),  # with and without Pauli words that commute with all of a circuit
    ("vqe_12_4", "avx2"),
    ("vqe_16_4_brick", "avx2"),
    ("tfim_14_4", "avx2"),
    ("molecule_10", "avx2"),
    ("controlled_12_4", "avx2"),
    ("qml_8_4_32", "portable"),
    ("vqe_12_4", "portable"),
]


def compiler() -> str:
    """The first line of the compiler's version: counts of another one mean nothing."""
    command = os.environ.get("CXX", "c++")
    return subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def count(driver: str, workload: str, level: str) -> int:
    """Instructions of one run, the start of the process included."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", driver, workload]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "KETGRAD_CPU_LEVEL": level})
    found = re.search(r"Collected : (\d+)", run.stderr)
    if run.returncode != 0 or found is None:
        raise SystemExit(f"{workload} on {level} failed under callgrind:\n{run.stdout}{run.stderr}")
    return int(found[1])


def compare(found: dict[str, int], known: dict[str, int]) -> list[str]:
    """A line for each workload, and of those that fail the names."""
    failed = []
    for name, now in found.items():
        before = known.get(name)
        change = None if before is None else now / before - 1
        verdict = "new" if change is None else f"{change:+.1%}"
        if change is None or abs(change) > TOLERANCE:
            failed.append(f"{name} ({verdict})")
            verdict += "  <-- "
        print(f"{name:24} {now:14,} {verdict}")
    return failed


def main() -> int:
    """Count, and compare or update."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("driver", help="the compiled driver")
    parser.add_argument("--update", action="store_true", help="write the counts to the file instead of comparing")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("counting instructions needs valgrind, which is not installed", file=sys.stderr)
        return 1
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = {f"{w} {level}": pool.submit(count, arguments.driver, w, level) for w, level in WORKLOADS}
        found = {name: job.result() for name, job in jobs.items()}
    if arguments.update:
        text = json.dumps({"compiler": compiler(), "instructions": found}, indent=2)
        COUNTS.write_text(text + "\n", encoding="utf-8")
        print(f"wrote {COUNTS}")
        return 0
    known = json.loads(COUNTS.read_text(encoding="utf-8"))
    if known["compiler"] != compiler():
        print(f"not compared: the counts on file are of {known['compiler']}, this is {compiler()}")
        return 0
    failed = compare(found, known["instructions"])
    if failed:
        print(f"instruction counts have changed by more than {TOLERANCE:.0%}: {', '.join(failed)}", file=sys.stderr)
        print("where that is meant: make count ARGS=--update, and say why in the commit", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
