"""Runs PennyLane's and Lightning's own tests against ketgrad and prints the counts.

    python tests/upstream/run.py --pennylane CHECKOUT --lightning CHECKOUT [NAME ...]

The checkouts are of the versions that are installed (PennyLane v0.45.1, Lightning v0.45.0); nothing of them is part of
this repository. Their tests also need pytest-mock, pytest-rng and flaky. Each suite runs in a pytest of its own, with
the plugin `retarget`, and leaves its output in build/upstream. Whole suites take half an hour; names choose among them.
`docs/pennylane.md` has the counts and says of every failure why it is one.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parents[1] / "build" / "upstream"

TORCH = (
    "workflow/interfaces/execute/test_torch.py",
    "workflow/interfaces/qnode/test_torch_qnode.py",
    "workflow/interfaces/run/test_torch_run.py",
    "workflow/interfaces/test_jacobian_products.py",
    "qnn/test_qnn_torch.py",
)
SUITES = {
    "pennylane": [
        *[(name, mode) for name in TORCH for mode in ("boundary", "device")],
        ("devices/qubit/test_adjoint_jacobian.py", "device"),
    ],
    "lightning": [
        ("test_adjoint_jacobian.py", "device"),
        ("test_vjp.py", "device"),
        ("test_gates.py", "device"),
        ("test_measurements.py", "device"),
    ],
}
KINDS = ("passed", "failed", "skipped", "xfailed", "errors")


class Outcome(NamedTuple):
    """What became of a suite: how many tests of each kind, the names of those that failed, the reasons of skips."""

    counts: dict[str, int]
    failures: list[str]
    skips: Counter[str]


def run(project: str, checkout: Path, suite: str, mode: str) -> Outcome:
    """One suite in one mode."""
    environment = {
        **os.environ,
        "KETGRAD_UPSTREAM": mode,
        "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-rfs", "-p", "no:cacheprovider", "-p", "retarget", suite]
    log = OUTPUT / f"{project}-{Path(suite).stem}-{mode}.log"
    with log.open("w") as file:
        subprocess.run(command, cwd=checkout / "tests", env=environment, stdout=file, stderr=subprocess.STDOUT)
    return outcome_of(log.read_text())


def outcome_of(text: str) -> Outcome:
    """The counts in pytest's last line, and the failures that it lists."""
    last = text.strip().splitlines()[-1]
    counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (\w+)", last)}
    skips: Counter[str] = Counter()
    for number, reason in re.findall(r"^SKIPPED \[(\d+)\] \S+: ?(.*)$", text, re.MULTILINE):
        skips[reason] += int(number)
    return Outcome(counts, re.findall(r"^FAILED (\S+)", text, re.MULTILINE), skips)


def lines(outcomes: dict[tuple[str, str, str], Outcome]) -> Iterator[str]:
    """A table in Markdown, then the failures by the test function, and the skips by their reason."""
    yield f"| suite | in place of | {' | '.join(KINDS)} |"
    yield "|---|---|" + "---:|" * len(KINDS)
    for (project, suite, mode), outcome in outcomes.items():
        replaced = "`ExecuteTapes`" if mode == "boundary" else "the device"
        numbers = " | ".join(str(outcome.counts.get(kind, 0)) for kind in KINDS)
        yield f"| {project}: {suite} | {replaced} | {numbers} |"
    for (project, _, mode), outcome in outcomes.items():
        functions = [name.split("[")[0] for name in outcome.failures]
        for function in dict.fromkeys(functions):
            yield f"{project} {mode}: {functions.count(function)} × {function}"
    for (project, suite, mode), outcome in outcomes.items():
        for reason, number in outcome.skips.most_common():
            yield f"{project} {mode}, {suite}: skipped {number} × {reason}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for project in SUITES:
        parser.add_argument(f"--{project}", type=Path, metavar="CHECKOUT", help=f"of {project}, with its tests")
    parser.add_argument("names", nargs="*", metavar="NAME", help="run only suites whose path contains a name")
    options = parser.parse_args()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    outcomes = {}
    for project, suites in SUITES.items():
        checkout = getattr(options, project)
        for suite, mode in suites if checkout else []:
            if not options.names or any(name in suite for name in options.names):
                print(f"{project} {suite}, {mode} …", file=sys.stderr, flush=True)
                outcomes[project, suite, mode] = run(project, checkout.resolve(), suite, mode)
    if not outcomes:
        parser.error("nothing to run: give a checkout with --pennylane or --lightning")
    print(*lines(outcomes), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
