"""One workload in all libraries: a process each, gradients compared first, then timed in turn."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import numpy as np

from peers import PEERS
from peers.base import Answer
from workloads import Workload

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-3
"""How far gradients may lie from the median of all libraries, relative to the largest: they compute in float32."""
EXACT_WIRES = 20
"""With more, sums of so many numbers lose more: the tolerance grows with the square root of their count."""
IMPORT_SECONDS = 300.0


@dataclass(frozen=True)
class Settings:
    """How to measure."""

    rounds: int = 9
    cap: float = 120.0
    """Seconds for each library at each workload, building and compiling included, importing not."""
    turn: float = 0.1
    """Seconds of timed calls in a turn; one call where it takes longer."""
    memory: int = 8 << 30
    """Bytes that a library may use."""
    threads: int = os.cpu_count() or 1
    clock: str = "wall"
    """"cpu" counts what the threads of a library run, not what they wait."""
    interpreters: dict[str, str] = field(default_factory=dict)
    """Which Python runs a library, by its name; "" for all others."""


class StoppedError(Exception):
    """A library was stopped; the argument says why."""


class Worker:
    """A library's process."""

    def __init__(self, peer: str, workload: Workload, settings: Settings, log: IO[str]) -> None:
        self.peer, self.settings = peer, settings
        self.spent, self.last = 0.0, 0.0
        self.times: list[float] = []
        self.anew: list[float] = []
        self.result: dict[str, Any] = {"status": "failed", "note": ""}
        self.answer: Answer | None = None
        ours, theirs = socket.socketpair()
        default = sys.executable if PEERS[peer].ours else settings.interpreters.get("", sys.executable)
        python = settings.interpreters.get(peer, default)
        threads = {name: str(settings.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "QULACS_NUM_THREADS")}
        path = os.pathsep.join(filter(None, [str(HERE.parent / "python"), os.environ.get("PYTHONPATH")]))
        with theirs:
            self.process = subprocess.Popen(
                [python, str(HERE / "worker.py"), str(theirs.fileno()), peer, workload.name, settings.clock],
                pass_fds=[theirs.fileno()],
                env=os.environ | threads | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.connection = Connection(ours.detach())

    def send(self, name: str, *arguments: Any) -> None:
        """Ask for something."""
        with suppress(OSError):
            self.connection.send((name, arguments))

    def receive(self, seconds: float) -> Any:
        """The reply.

        Raises:
            StoppedError: it did not come in time, the process took too much memory, or something went wrong.
        """
        begun, pause = time.monotonic(), 0.05
        while not self.connection.poll(pause):
            pause = 0.2
            if time.monotonic() - begun > seconds:
                raise self.stopped("over time")
            if used(self.process.pid) > self.settings.memory:
                raise self.stopped("over memory")
        try:
            status, payload = self.connection.recv()
        except (EOFError, OSError):
            raise self.stopped("failed", f"the process ended with {self.process.wait()}") from None
        if status != "ok":
            raise self.stopped(status, payload)
        return payload

    def stopped(self, status: str, note: str = "") -> StoppedError:
        """End the process; why."""
        self.close()
        self.result |= {"status": status, "note": note}
        return StoppedError(status)

    def load(self) -> None:
        """Wait until the library is imported."""
        self.result["versions"] = self.receive(IMPORT_SECONDS)

    def first(self) -> None:
        """The first call."""
        self.send("first", 0)
        found = self._within_cap()
        self.answer = found["answer"]
        self.last = found["seconds"]
        self.result |= {"status": "only one call", "first_s": found["seconds"], "memory": found["memory"]}

    def may_go_on(self) -> bool:
        """Whether another turn is likely to end before the cap; the first call may have been mostly compilation."""
        return self.is_open and (not self.times or self.spent + self.last < self.settings.cap)

    def turn(self, seed: int) -> None:
        """One turn; a library that is stopped after its first keeps what it has."""
        self.send("turn", seed, self.settings.turn)
        try:
            found = self._within_cap()
        except StoppedError:
            if self.times:
                self.result |= {"status": "timed", "note": f"stopped in turn {seed}: {self.result['status']}"}
            raise
        self.times += found["times"]
        self.anew += found["anew"]
        self.last = max(found["times"] + found["anew"])
        self.result |= {"status": "timed", "memory": found["memory"], **spread(self.times)}
        if self.anew:
            self.result["anew_ms"] = 1e3 * statistics.median(self.anew)

    def _within_cap(self) -> Any:
        begun = time.monotonic()
        found = self.receive(self.settings.cap - self.spent)
        self.spent += time.monotonic() - begun
        self.rest()
        return found

    def rest(self) -> None:
        """Wait until its threads sleep, half a second at most: they would slow down whoever comes next."""
        end, before = time.monotonic() + 0.5, busy(self.process.pid)
        while time.monotonic() < end:
            time.sleep(0.01)
            now = busy(self.process.pid)
            if now - before < 500_000:
                return
            before = now

    @property
    def is_open(self) -> bool:
        """Whether the process is there."""
        return not self.connection.closed

    def close(self) -> None:
        """End the process, and compilers that it may have started."""
        self.connection.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def used(pid: int) -> int:
    """Resident bytes of a process, 0 where they cannot be told."""
    with suppress(OSError, IndexError, ValueError):
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")
    return 0


def busy(pid: int) -> int:
    """Nanoseconds that the threads of a process have run, 0 where they cannot be told."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError, IndexError, ValueError):
            total += int(path.read_text(encoding="ascii").split()[0])
    return total


def spread(times: list[float]) -> dict[str, Any]:
    """Milliseconds: median, fastest, quartiles."""
    q1, _, q3 = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return {
        "median_ms": 1e3 * statistics.median(times),
        "min_ms": 1e3 * min(times),
        "q1_ms": 1e3 * q1,
        "q3_ms": 1e3 * q3,
        "calls": len(times),
    }


def differ(peer: str, other: str) -> bool:
    """Whether two are different libraries, not two ways of calling ketgrad."""
    return peer != other and not (PEERS[peer].ours and PEERS[other].ours)


def disagreements(answers: dict[str, Answer], wires: int) -> dict[str, float]:
    """How far each library is from the median of all, where that is too far; ketgrad's ways have one vote together."""
    ours = [peer for peer in answers if PEERS[peer].ours]
    voters = [answer for peer, answer in answers.items() if peer not in ours[1:]]
    found: dict[str, float] = {}
    for peer, answer in answers.items():
        pairs = [(answer.loss, [v.loss for v in voters])]
        pairs += [(answer.gradients[name], [v.gradients[name] for v in voters]) for name in answer.gradients]
        for value, all_values in pairs:
            middle = np.nanmedian(np.stack([np.asarray(v) for v in all_values]), axis=0)
            off = float(np.abs(value - middle).max() / max(np.abs(middle).max(), 1e-30))
            if not off <= TOLERANCE * max(1.0, 2.0 ** ((wires - EXACT_WIRES) / 2)):
                found[peer] = max(off, found.get(peer, 0.0)) if off == off else float("inf")
    return found


def compare(
    workload: Workload, peers: list[str], settings: Settings, log: Path, tell: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """A result for each library; `tell` hears of every step."""
    with log.open("w", encoding="utf-8") as stream:
        workers = [Worker(peer, workload, settings, stream) for peer in peers]
        try:
            _run(workers, workload.wires, settings, tell)
        finally:
            for worker in workers:
                worker.close()
    return {worker.peer: worker.result for worker in workers}


def _run(workers: list[Worker], wires: int, settings: Settings, tell: Callable[[str], None]) -> None:
    for worker in workers:
        worker.send("load")
    for worker in workers:
        tell(f"importing {worker.peer}")
        with suppress(StoppedError):
            worker.load()
    for worker in filter(lambda w: w.is_open, workers):
        tell(f"first call of {worker.peer}")
        with suppress(StoppedError):
            worker.first()
    answers = {worker.peer: worker.answer for worker in workers if worker.answer is not None}
    off = disagreements(answers, wires)
    for worker in workers:
        if worker.peer in off:
            worker.stopped("disagrees", f"gradients differ by {off[worker.peer]:.1e} of the largest")
        elif worker.answer is not None:
            worker.result["checked_against"] = [
                peer for peer in answers if peer not in off and differ(peer, worker.peer)
            ]
    for number in range(settings.rounds):
        for shift in range(len(workers)):
            worker = workers[(number + shift) % len(workers)]
            if worker.may_go_on():
                tell(f"round {number + 1}, {worker.peer}")
                with suppress(StoppedError):
                    worker.turn(number + 1)
