"""A library in a process of its own, started by `rounds.py`: it answers once and times calls when its parent asks.

What libraries print goes to the error stream. Messages go both ways through one inherited socket.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from peers import PEERS
from peers.base import NotSupportedError
from workloads import Workload, find, inputs

MOST_CALLS = 200
"""In one turn."""
SERIES = 16
"""Calls whose inputs are made before the first of them: making circuits and numbers is no part of what is timed, and
takes the caches from what is."""
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def resident(field: str) -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" at most."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(field):
                return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Session:
    """One library at one workload."""

    def __init__(self, peer: str, workload: Workload, clock: str) -> None:
        self.peer = PEERS[peer]
        self.workload = workload
        self.adapter: Any = None
        self.now = CLOCKS[clock]
        self.last = 0.0
        self.idle_memory = 0

    def load(self) -> dict[str, str]:
        """Import; the versions of what was imported.

        Raises:
            NotSupportedError: the library cannot do what the workload asks for.
            ModuleNotFoundError: it is not installed.
        """
        if self.workload.kind not in self.peer.adapters:
            raise NotSupportedError(f"no adapter for {self.workload.kind}")
        versions = {"python": platform.python_version()}
        for package in self.peer.packages:
            try:
                versions[package] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                raise ModuleNotFoundError(f"{package} is not installed") from None
        module, name = self.peer.adapters[self.workload.kind].split(":")
        self.make = getattr(importlib.import_module(f"peers.{module}"), name)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # start the high-water mark anew
        self.idle_memory = resident("VmRSS")
        return versions

    def first(self, seed: int) -> dict[str, Any]:
        """Build, and call once."""
        found = self.built(seed)
        return {"seconds": self.last, "answer": self.adapter.read(found), "memory": self.memory()}

    def built(self, seed: int) -> Any:
        """What the first call of a new adapter gives."""
        given = inputs(self.workload, seed)
        begun = self.now()
        self.adapter = self.make(self.workload)
        found = self.adapter.step(self.adapter.prepare(given))
        self.last = self.now() - begun
        return found

    def turn(self, seed: int, seconds: float) -> dict[str, Any]:
        """Timed calls for about so long, one at least; short ones after one that is not timed, to warm the caches.

        Where structures are what is measured, and calls have none of their own, new circuits come first.
        """
        times: list[float] = []
        anew: list[float] = []
        seeds = iter(range(MOST_CALLS * seed, MOST_CALLS * (seed + 1)))
        if self.workload.draw and not self.workload.is_fresh:
            self.workload = self.workload.draw(seed)
            self.built(next(seeds))
            anew = [self.last]
        if self.last < seconds:
            self.calls(seeds, 1)
        while not times or (sum(times) < seconds and len(times) < MOST_CALLS - SERIES):
            left = (seconds - sum(times)) / self.last
            times += self.calls(seeds, max(1, min(SERIES, int(left))))
        return {"times": times, "anew": anew, "memory": self.memory()}

    def calls(self, seeds: Iterator[int], count: int) -> list[float]:
        """The times of calls one after the other, each with new parameters, which are made beforehand."""
        ready = [self.adapter.prepare(inputs(self.workload, seed)) for seed in islice(seeds, count)]
        return [self.call(given) for given in ready]

    def call(self, given: Any) -> float:
        """The time of one call."""
        begun = self.now()
        self.adapter.step(given)
        self.last = self.now() - begun
        return self.last

    def memory(self) -> int:
        """The most bytes that were in use at once, above those of the interpreter with the library imported."""
        return resident("VmHWM") - self.idle_memory


def main() -> None:
    """Serve until the parent hangs up."""
    connection = Connection(int(sys.argv[1]))
    os.dup2(2, 1)
    with suppress(OSError):  # should memory end, let it be this process that is ended
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    session = Session(sys.argv[2], find(sys.argv[3]), sys.argv[4])
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        try:
            reply = ("ok", getattr(session, name)(*arguments))
        except ModuleNotFoundError as error:
            reply = ("not installed", str(error))
        except NotSupportedError as error:
            reply = ("not supported", str(error))
        except MemoryError:
            reply = ("out of memory", "")
        except Exception as error:
            traceback.print_exc()  # whole into the log; compilers write pages, with the paths of this machine
            reply = ("failed", f"{type(error).__name__}: {error}".splitlines()[0][:200])
        connection.send(reply)


if __name__ == "__main__":
    main()
