"""Builds ketgrad on a machine with a GPU, runs every test there and times circuits; needs no network, installs nothing.

The Python that runs this must have a CUDA build of PyTorch, and nvcc must be there. What is missing is said before
anything starts, all of it at once (`needs.py`). Steps, each with its time and a verdict: the build; the tests of CUDA;
the GPU's own limits; workloads with stated goals; compute-sanitizer; the other tests; other libraries, where they are
installed. The build may take half an hour (`--build-seconds`), what comes after it nine minutes (`--seconds`, of which
each step has its share): what there is no time for is named. A build that was stopped goes on from there the next time.
The results go to benchmarks/results/gpu-<device>-<date>.json after every step.

It fails where a step fails, and where the build or the tests of CUDA were asked for and did not pass: a run in which no
test passed on the GPU is no success.

    python benchmarks/gpu_check.py
    python benchmarks/gpu_check.py --quick
    python benchmarks/gpu_check.py --steps build workloads
    python benchmarks/gpu_check.py --build-seconds 3600 --seconds 1800
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

# numpy and torch, and what imports them, are imported where they are used: `needs` says so where they are not there.
from needs import message, missing, search_path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

GOALS: dict[str, float | None] = {
    "qml(8,4,1024)": 0.3,
    "qml(12,4,1024)": 3.0,
    "tfim(20,10)": 1.0,
    "vqe(24,2)": 5.0,
    "vqe(28,2)": None,
}
"""Milliseconds of one value and gradient, as a replayed graph."""
PEERS = ("torch", "pennylane", "tensorcircuit")
BUILD_SECONDS = 1800.0
"""For the build, of which nvcc takes most: many times what it takes on a machine with a few cores."""
SECONDS = 520.0
"""For what comes after it: less than nine minutes, with what is told to stop and takes its time."""
GRACE = 15.0
"""Seconds that a command has to end by itself once it is told to: pytest writes its report."""
QUICK_TESTS = "not test_case and not with_every_measurement and not every_size"
NO_PLUGINS = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
ON_A_GPU = {**NO_PLUGINS, "KETGRAD_REQUIRE_CUDA": "1"}
MUST_PASS = {"build": "build", "cuda-tests": "tests of CUDA"}
"""Steps without which nothing is known of ketgrad on the GPU, by what the report calls them."""
KEPT = 40
"""Lines of output, or failures, that are kept."""
LONGEST = 300
"""Characters of a failure's line."""
SANITIZED = "tests/native/test_cuda.py::test_a_few_of_everything"
SUMMARIES = {
    "memcheck": r"ERROR SUMMARY: (\d+) error",
    "racecheck": r"RACECHECK SUMMARY: (\d+) hazard",
}


@dataclass(frozen=True)
class Done:
    """A command that has ended; `code` is None where it was stopped."""

    code: int | None
    output: str

    def tail(self) -> list[str]:
        """The end of what it printed."""
        return self.output.splitlines()[-KEPT:]


@dataclass
class Check:
    """The run: its options, its clock and its report."""

    quick: bool
    path: Path
    report: dict[str, Any]
    seconds: float = SECONDS
    end: float = math.inf

    def start_clock(self) -> None:
        """From here on there are so many seconds."""
        self.end = time.monotonic() + self.seconds

    def left(self) -> float:
        """Seconds until the end."""
        return self.end - time.monotonic()

    def step(self, name: str, share: float, action: Callable[[float], dict[str, Any]]) -> None:
        """Run a step for at most `share` of the default seconds, in proportion where there are more or fewer."""
        self.run(name, share * self.seconds / SECONDS, action)

    def run(self, name: str, cap: float, action: Callable[[float], dict[str, Any]]) -> None:
        """Run a step for at most `cap` seconds; it returns what belongs into the report, a verdict at least."""
        begun = time.monotonic()
        seconds = min(cap, self.left() - GRACE)
        found = action(seconds) if seconds > 0.1 * cap else {"verdict": "skipped: no time was left"}
        self.report["steps"][name] = {"seconds": round(time.monotonic() - begun, 1), **found}
        self.path.write_text(json.dumps(self.report, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {found['verdict']} ({time.monotonic() - begun:.0f} s)", flush=True)


def run(command: list[str], seconds: float, **environment: str) -> Done:
    """Run a command in the repository, with the package on the path; stop it, and what it started, when time is up."""
    path = os.pathsep.join(filter(None, [str(ROOT / "python"), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": path, "PATH": search_path()} | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        code = wait(process, seconds)
        log.seek(0)
        return Done(code, log.read())


def wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """The exit code; None where the process had to be told, or made, to end."""
    with suppress(subprocess.TimeoutExpired):
        return process.wait(seconds)
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return None


# --- build and tests -------------------------------------------------------------------------------------------------


def check_build(seconds: float) -> dict[str, Any]:
    """Compile both extensions, and say what they say of themselves."""
    done = run([sys.executable, "setup.py", "build_ext", "--inplace"], seconds, KETGRAD_CUDA="1")
    if done.code is None:
        verdict = f"failed: stopped after {seconds:.0f} s; run it again to go on, or with a longer --build-seconds"
        return {"verdict": verdict, "output": done.tail()}
    if done.code:
        return {"verdict": "failed", "output": done.tail()}
    info = run([sys.executable, "-m", "ketgrad", "info"], 60)
    loaded = info.code == 0 and not re.search(r"^CUDA +no:", info.output, flags=re.MULTILINE)
    return {"verdict": "passed" if loaded else "failed: there are no operators for CUDA", "info": info.tail()}


def check_tests(arguments: list[str], environment: dict[str, str], seconds: float) -> dict[str, Any]:
    """Run tests, some of which must pass; several at a time where pytest-xdist is installed, with no other plugin."""
    if importlib.util.find_spec("xdist"):
        arguments = [*arguments, "-p", "xdist", "-n", str(min(8, os.cpu_count() or 1))]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "--continue-on-collection-errors", f"--junitxml={report}"]
        done = run([*command, *arguments], seconds, OMP_NUM_THREADS="2", **environment)
        if not report.exists():
            return {"verdict": "failed" if done.code else "failed: stopped before it began", "output": done.tail()}
        found = counted(ElementTree.parse(report))
    verdict = verdict_of(done.code, found)
    output = {} if found["passed"] and not verdict.startswith("failed") else {"output": done.tail()}
    return {"verdict": verdict, **found, "failed": found["failed"][:KEPT], **output}


def verdict_of(code: int | None, found: dict[str, Any]) -> str:
    """What pytest's exit code and report mean together. Without a test that passed there is no success."""
    lacking = found["not run for"]
    if found["failed"]:
        return f"failed: {len(found['failed'])} of {found['tests']}"
    if not found["passed"]:
        return "failed: no test passed" + (f"; not installed: {', '.join(lacking)}" if lacking else "")
    if code is None:
        return f"stopped: {found['passed']} passed until then"
    # 1: files that need what is not installed are errors to pytest, not to us
    if code and not (code == 1 and lacking):
        return f"failed: pytest ended with {code}"
    return f"passed: {found['passed']} of {found['tests']}"


def counted(report: ElementTree.ElementTree) -> dict[str, Any]:
    """What pytest's report says: how many passed, what failed, and what did not run, by the package that is missing."""
    failed: list[str] = []
    missing: dict[str, list[str]] = {}
    skipped: Counter[str] = Counter()
    passed = 0
    cases = list(report.iter("testcase"))
    for case in cases:
        name = "::".join(filter(None, [case.get("classname"), case.get("name")]))
        result = next((r for r in case if r.tag in ("failure", "error", "skipped")), None)
        if result is None:
            passed += 1
            continue
        text = f"{result.get('message', '')}\n{result.text or ''}".strip()
        if package := missing_package(result.tag, text):
            missing.setdefault(package, []).append(name)
        elif result.tag == "skipped":
            skipped[result.get("message", "")] += 1
        else:
            failed.append(f"{name}: {text.splitlines()[0] if text else result.tag}"[:LONGEST])
    return {"tests": len(cases), "passed": passed, "failed": failed, "not run for": missing, "skipped": skipped}


def missing_package(tag: str, text: str) -> str | None:
    """The package for want of which a test was skipped or its file could not be read."""
    found = re.search(r"No module named '(\w+)", text)
    return found[1] if found and (tag == "skipped" or text.startswith("collection")) else None


def check_sanitizer(tool: str, seconds: float) -> dict[str, Any]:
    """A few of everything under a tool of compute-sanitizer; where it cannot run, that is no failure."""
    homes = [os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH"), "/usr/local/cuda"]
    path = os.pathsep.join([os.environ.get("PATH", ""), *(f"{home}/bin" for home in homes if home)])
    program = shutil.which("compute-sanitizer", path=path)
    if program is None:
        return {"verdict": "not run: compute-sanitizer is not installed"}
    # Probing for what a GPU can do is allowed to fail, as torch does it.
    options = ["--report-api-errors", "no"] if tool == "memcheck" else []
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", SANITIZED]
    # torch's allocator hands out pieces of large blocks, whose ends the tool does not know.
    environment = {**ON_A_GPU, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    done = run([program, "--tool", tool, *options, *pytest], seconds, **environment)
    summary = re.search(SUMMARIES[tool], done.output)
    if done.code is None:
        return {"verdict": "stopped: it took too long", "output": done.tail()}
    if summary is None or "Device not supported" in done.output:
        return {"verdict": "not run: the tool does not work here", "output": done.tail()}
    if int(summary[1]) or done.code:
        verdict = f"failed: {summary[0]}, pytest ended with {done.code}"
        return {"verdict": verdict, "output": done.output.splitlines()[:KEPT] + done.tail()}
    return {"verdict": "passed"}


# --- times -----------------------------------------------------------------------------------------------------------


def worker(seconds: float, *arguments: str) -> dict[str, Any]:
    """What `gpu_worker.py` found."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "result.json"
        command = [sys.executable, str(HERE / "gpu_worker.py"), str(target), *arguments]
        done = run(command, seconds, XLA_PYTHON_CLIENT_PREALLOCATE="false")
        if done.code == 0:
            return json.loads(target.read_text(encoding="utf-8"))
    if done.code is None:
        return {"status": f"over {seconds:.0f} s"}
    return {"status": "failed", "output": done.tail()}


def check_machine(seconds: float) -> dict[str, Any]:
    """What the GPU can do."""
    found = worker(seconds, "machine")
    if found["status"] != "measured":
        return {"verdict": found["status"], **found}
    return {"verdict": f"copies {found['copy_gb_s']:.0f} GB/s", **found}


def check_workload(name: str, measured: dict[str, Any], seconds: float) -> dict[str, Any]:
    """A workload of ours: whether it is right, whether it reaches its goal, and its share of the GPU's limit."""
    from limits import limit
    from machine import Machine
    from report import number
    from rounds import EXACT_WIRES, TOLERANCE
    from workloads import find

    found = worker(seconds, "workload", "ketgrad", name)
    if found["status"] != "measured":
        return {"verdict": found["status"], **found}
    if "graph" not in found:
        return {"verdict": f"failed: it is not captured, {found['graph_note']}", **found}
    tolerance = TOLERANCE * max(1.0, 2.0 ** ((find(name).wires - EXACT_WIRES) / 2))
    if not (found["error"] <= tolerance and found["graph_error"] <= tolerance):
        return {"verdict": f"failed: off by {found['error']:.1e}, as a graph {found['graph_error']:.1e}", **found}
    ms, goal = found["graph"]["median_ms"], GOALS[name]
    verdict = f"{number(ms)} ms" + ("" if goal is None else f", goal {goal} ms {'reached' if ms <= goal else 'missed'}")
    if "copy_gb_s" in measured:
        bound = limit(find(name), Machine(**{key: measured[key] for key in Machine.__annotations__}))
        share = 1e-6 * found["bytes"] / (ms * measured["copy_gb_s"])
        found |= {"limit_ms": bound.ms, "share_of_limit": bound.ms / ms, "share_of_bandwidth": share}
        verdict += f"; {share:.0%} of the copy bandwidth, {bound.ms / ms:.0%} of the GPU's limit"
    return {"verdict": verdict, "goal_ms": goal, **found}


def check_peer(library: str, name: str, seconds: float) -> dict[str, Any]:
    """A workload of another library, by its fastest way."""
    from report import number

    found = worker(seconds, "workload", library, name)
    if found["status"] != "measured":
        return {"verdict": found["status"], **found}
    best = min(found[way]["median_ms"] for way in ("eager", "graph") if way in found)
    return {"verdict": f"{number(best)} ms", **found}


# --- all of it -------------------------------------------------------------------------------------------------------

STEPS = ("build", "cuda-tests", "machine", "workloads", "sanitizer", "tests", "peers")
QUICK_STEPS = ("build", "cuda-tests", "machine", "workloads")


def go(check: Check, steps: list[str], build_seconds: float) -> None:
    """Take the steps in order, the most telling first."""
    step, report = check.step, check.report["steps"]
    if "build" in steps:
        check.run("build", build_seconds, check_build)
        if report["build"]["verdict"] != "passed":
            return  # or an older build would be tested
    check.start_clock()
    if "cuda-tests" in steps:
        chosen = ["tests/native/test_cuda.py", *(["-k", QUICK_TESTS] if check.quick else [])]
        step("tests of CUDA", 180, partial(check_tests, chosen, ON_A_GPU))
    if "machine" in steps:
        step("machine", 60, check_machine)
    names = [name for name, goal in GOALS.items() if goal or not check.quick]
    for name in names if "workloads" in steps else ():
        step(name, 60, partial(check_workload, name, report.get("machine", {})))
    for tool in SUMMARIES if "sanitizer" in steps else ():
        step(tool, 75, partial(check_sanitizer, tool))
    if "tests" in steps:
        step("other tests", 180, partial(check_tests, ["--ignore=tests/native/test_cuda.py"], NO_PLUGINS))
    for library in PEERS if "peers" in steps else ():
        for name in names:
            step(f"{name}, {library}", 40, partial(check_peer, library, name))
            if report[f"{name}, {library}"].get("status") == "not installed":
                break


def summary(report: dict[str, Any]) -> str:
    """The verdicts as a table."""
    from report import table

    rows = [[name, found["verdict"], str(found["seconds"])] for name, found in report["steps"].items()]
    return table(["step", "verdict", "seconds"], rows)


def what_failed(report: dict[str, Any], steps: list[str]) -> list[str]:
    """The steps that failed, and those that had to pass and did not."""
    verdicts = {name: found["verdict"] for name, found in report["steps"].items()}
    failed = [name for name, verdict in verdicts.items() if verdict.startswith("failed")]
    must_pass = [MUST_PASS[step] for step in steps if step in MUST_PASS]
    missed = [name for name in must_pass if not verdicts.get(name, "").startswith("passed")]
    return [*failed, *(name for name in missed if name not in failed)]


def main() -> None:
    """Check and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--quick", action="store_true", help="fewer tests and workloads, neither sanitizer nor other libraries")
    add("--steps", nargs="+", choices=STEPS, metavar="STEP", help=f"only these: {', '.join(STEPS)}")
    add("--out", type=Path, default=HERE / "results", metavar="FOLDER")
    add("--build-seconds", type=float, default=BUILD_SECONDS, metavar="N", help="for the build (default: %(default)g)")
    add("--seconds", type=float, default=SECONDS, metavar="N", help="for what comes after it (default: %(default)g)")
    options = parser.parse_args()
    steps = options.steps or list(QUICK_STEPS if options.quick else STEPS)
    if needs := missing(steps):
        sys.exit(message(needs))
    import torch

    device, now = torch.cuda.get_device_name(0), datetime.now(UTC)
    slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")
    options.out.mkdir(parents=True, exist_ok=True)
    header = {"device": device, "date": f"{now:%d %B %Y}", "torch": torch.__version__, "python": sys.version.split()[0]}
    path = options.out / f"gpu-{slug}-{now:%Y-%m-%d}.json"
    check = Check(options.quick, path, {**header, "steps": {}}, options.seconds)
    go(check, steps, options.build_seconds)
    failed = what_failed(check.report, steps)
    print(f"\n{summary(check.report)}\nwritten to {check.path}")
    print(f"gpu-check failed: {', '.join(failed)}" if failed else "gpu-check passed")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
