"""ketgrad beside other libraries: variational circuits, and what they are asked for, in one run.

Each library runs in a process of its own. At each workload all make a first call, whose results are compared; those
that agree take turns, with new parameters in every call. After every workload the folder --out gets results.json,
results.md and performance.png (what docs/performance_full.md shows), and what the libraries printed.

    python benchmarks/run.py --quick
    python benchmarks/run.py --workloads table more --keep
    python benchmarks/run.py --workloads 'qml(6,3,100)' 'vqe(20,4)-xzx' --peers ketgrad lightning torch
    python benchmarks/run.py --workloads 'churn*' 'volume(8)' --clock cpu --threads 1    # on a busy machine
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tqdm import tqdm

from limits import limit
from machine import Machine, busy_processors, measure
from peers import PEERS
from report import PICTURE, Results, cell, fastest_peer, markdown, picture
from rounds import Settings, compare
from workloads import GROUPS, find

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = ["table", "more", "structures", "molecules"]
"""Groups of workloads."""
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
"""Made by `make peers`."""


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--workloads",
        nargs="+",
        default=DEFAULT,
        metavar="NAME",
        help=f"names, patterns or groups: {', '.join(GROUPS)}, all (default: {', '.join(DEFAULT)}); "
        + "; ".join(f"`{group}` has {', '.join(GROUPS[group])}" for group in DEFAULT),
    )
    add("--peers", nargs="+", default=list(PEERS), choices=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    add("--without", nargs="+", default=[], choices=list(PEERS), metavar="NAME", help="peers to leave out")
    add("--rounds", type=int, default=Settings.rounds)
    add(
        "--time-cap",
        type=float,
        default=Settings.cap,
        metavar="SECONDS",
        help="for each library at each workload, compiling included (default: %(default)s)",
    )
    add(
        "--memory-cap",
        type=float,
        default=0.7 * available_memory() / 2**30,
        metavar="GIB",
        help="for each library (default: 70%% of what is free)",
    )
    add("--threads", type=int, default=Settings.threads)
    add(
        "--clock",
        choices=["wall", "cpu"],
        default=Settings.clock,
        help="cpu: what a library's threads run, not what they wait; with --threads 1, for a machine that others use",
    )
    add(
        "--python-for",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the Python that runs a library; without a name, all of them but ketgrad (default: that of `make peers`)",
    )
    add("--quick", action="store_true", help="small workloads, few rounds, short caps: a few minutes")
    add("--keep", action="store_true", help="keep what the folder has, measure only what it lacks")
    add("--out", type=Path, default=ROOT / "build" / "benchmarks", metavar="FOLDER")
    options = parser.parse_args(arguments)
    if options.quick:
        options.workloads = ["quick"] if options.workloads == DEFAULT else options.workloads
        options.rounds, options.time_cap = min(options.rounds, 5), min(options.time_cap, 60.0)
    return options


def selected(names: list[str]) -> list[str]:
    """Names of workloads, of groups and patterns.

    Raises:
        ValueError: a name means nothing.
    """
    known = [name for group in GROUPS.values() for name in group]
    found: list[str] = []
    for name in names:
        matching = known if name == "all" else list(GROUPS.get(name, ())) or [k for k in known if fnmatchcase(k, name)]
        found += matching or [find(name).name]
    return list(dict.fromkeys(found))


def available_memory() -> int:
    """Bytes, free or nearly so."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def interpreters(given: list[str]) -> dict[str, str]:
    """Which Python for which library, "" for all but ours."""
    found = {"": str(PEERS_PYTHON)} if PEERS_PYTHON.exists() else {}
    for item in given:
        name, equals, path = item.rpartition("=")
        if equals and name not in PEERS:
            raise ValueError(f"--python-for {item}: no library {name!r}, only {', '.join(PEERS)}")
        found[name] = path
    return found


def write(folder: Path, results: Results, machine: Machine, header: dict[str, Any]) -> None:
    """The figures, the tables, the picture."""
    limits = {}
    for name, found in results.items():
        bounds = {kind: limit(find(name), machine, kind == "complex128") for kind in ("complex64", "complex128")}
        limits[name] = {kind: asdict(bound) for kind, bound in bounds.items() if bound}
        rated(found, limits[name])
    everything = {"header": header, "machine": asdict(machine), "limits": limits, "results": results}
    (folder / "results.json").write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    (folder / "results.md").write_text(markdown(results, machine, header), encoding="utf-8")
    picture(results, machine, folder / PICTURE)


def rated(found: dict[str, dict[str, Any]], limits: dict[str, dict[str, float]]) -> None:
    """Adds how many times as fast as the fastest peer each library is, and its share of the machine's limit."""
    peer = fastest_peer(found)
    for name, result in found.items():
        if "median_ms" in result:
            if bound := limits.get("complex128" if PEERS[name].double else "complex64"):
                result["share"] = max(bound["arithmetic_ms"], bound["bytes_ms"]) / result["median_ms"]
            result["ratio"] = found[peer]["median_ms"] / result["median_ms"] if peer else None


def in_order(found: dict[str, dict[str, Any]], key: str) -> str:
    """The libraries from the fastest on, in milliseconds; "" where there is none."""
    times = sorted((result[key], peer) for peer, result in found.items() if key in result)
    return f"{', '.join(f'{peer} {cell(found[peer], key)}' for _, peer in times)} ms" if times else ""


def main(arguments: list[str] | None = None) -> None:
    """Measure and write."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # not without ending the libraries' processes
    options = parsed(arguments)
    try:
        workloads, pythons = selected(options.workloads), interpreters(options.python_for)
    except ValueError as error:
        sys.exit(str(error))
    peers = [peer for peer in options.peers if peer not in options.without]
    options.out.mkdir(parents=True, exist_ok=True)
    settings = Settings(
        rounds=options.rounds,
        cap=options.time_cap,
        memory=int(options.memory_cap * 2**30),
        threads=options.threads,
        clock=options.clock,
        interpreters=pythons,
    )
    header = {"date": f"{datetime.now(UTC):%d %B %Y}", "rounds": settings.rounds, "cap": settings.cap}
    if (others := busy_processors()) > 0.1 * settings.threads:
        header["warning"] = f"The machine was busy with other work: it took {others:.1f} processors at the start."
        print(header["warning"])
    machine, results = measure(settings.threads), {}
    before = options.out / "results.json"
    if options.keep and before.exists():
        known = json.loads(before.read_text(encoding="utf-8"))
        results, machine = known["results"], machine.better(Machine(**known["machine"]))
    missing = [name for name in workloads if name not in results]
    bar = tqdm(missing, unit="workload", disable=None)  # on a terminal only
    for name in bar:
        bar.set_description(name)
        log = options.out / f"{name}.log"
        results[name] = compare(find(name), peers, settings, log, lambda step: bar.set_postfix_str(step))
        write(options.out, results, machine, header)
        found = results[name]
        bar.write(f"{name:<24} {in_order(found, 'median_ms')}")
        if anew := in_order(found, "anew_ms"):
            bar.write(f"{'  first call':<24} {anew}")
    write(options.out, results, machine.better(measure(settings.threads)), header)
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
