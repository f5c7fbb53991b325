"""One measurement on the GPU, in a process of its own, so that a crash ends nothing else. `gpu_check.py` starts it.

    python benchmarks/gpu_worker.py FILE machine
    python benchmarks/gpu_worker.py FILE workload ketgrad 'qml(8,4,1024)'

The result goes to FILE, as JSON.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from machine import SIZE, Machine
from peers import PEERS
from peers.base import Answer
from rounds import spread
from workloads import Workload, find, inputs

COPIED = 1 << 30
"""Bytes of what is copied, far beyond the caches."""
MOST_CALLS = 200
FEWEST_CALLS = 5
SECONDS = 2.0
"""Of timed calls, where FEWEST_CALLS do not take longer."""
INPUTS = 8
"""Sets of inputs that calls take in turns."""
ASLEEP = 100_000
"""Clock cycles: longer than the launch of a graph takes the CPU, which is therefore not timed."""


def main() -> None:
    """Measure one thing."""
    target, what, *names = sys.argv[1:]
    try:
        found = {"machine": machine, "workload": workload}[what](*names)
        found["status"] = "measured"
    except ModuleNotFoundError as error:
        found = {"status": "not installed", "note": str(error)}
    except torch.OutOfMemoryError:
        found = {"status": "out of memory"}
    Path(target).write_text(json.dumps(found), encoding="utf-8")


# --- the machine -----------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """What the limit of a workload is made of, for this GPU."""
    properties = torch.cuda.get_device_properties(0)
    source = torch.rand(COPIED // 4, device="cuda")
    target = torch.empty_like(source)
    copy_ms = timed(lambda: target.copy_(source))["median_ms"]
    found = Machine(
        cpu=properties.name,
        threads=properties.multi_processor_count,
        cache=properties.L2_cache_size,
        memory=properties.total_memory,
        copy_gb_s=2e-6 * COPIED / copy_ms,
        matrix_gflop_s=matrix_rate(torch.float32),
        matrix_double_gflop_s=matrix_rate(torch.float64),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        torch=torch.__version__,
    )
    return asdict(found)


def matrix_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of a product of matrices, without tensor cores in float32."""
    a, b = torch.rand(2, 2 * SIZE, 2 * SIZE, dtype=dtype, device="cuda")
    product = torch.empty_like(a)
    return 2e-6 * (2 * SIZE) ** 3 / timed(lambda: torch.mm(a, b, out=product))["median_ms"]


# --- a workload ------------------------------------------------------------------------------------------------------


def workload(peer: str, name: str) -> dict[str, Any]:
    """Times of a library at a workload, and how far its answers are from those of the CPU in double precision."""
    for package in PEERS[peer].packages:
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise ModuleNotFoundError(f"{package} is not installed") from None
    wanted = find(name)
    return {"tensorcircuit": with_jax}.get(peer, with_torch)(peer, wanted)


def with_torch(peer: str, wanted: Workload) -> dict[str, Any]:
    """Eager; ours and plain torch as a graph too (no other library can be captured)."""
    adapter = OnGpu(peer, wanted)
    given = [adapter.prepare(seed) for seed in range(INPUTS)]
    held = adapter.prepare(0)
    begun = time.perf_counter()
    found = adapter.step(held)
    torch.cuda.synchronize()
    result: dict[str, Any] = {"first_s": time.perf_counter() - begun}
    right = expected(wanted)
    result["error"] = deviation(adapter.read(found), right)
    result["eager"] = timed(lambda: adapter.step(held), lambda i: put(held, given[i % INPUTS]))
    if peer in ("ketgrad", "torch"):
        result |= as_a_graph(adapter, held, given, right)
    if peer == "ketgrad":
        (tape,) = adapter.adapter.tapes(*held[:2])
        plan = importlib.import_module("ketgrad").explain(tape)
        result |= {"passes": len(plan.passes), "bytes": sum(plan.bytes) * plan.batch}
    result["memory"] = torch.cuda.max_memory_allocated()
    return result | (second_derivatives(adapter, held, given) if peer == "ketgrad" else {})


def as_a_graph(
    adapter: OnGpu, held: tuple[Tensor, ...], given: list[tuple[Tensor, ...]], right: Answer
) -> dict[str, Any]:
    """Times of the replayed call; or why it cannot be captured."""
    try:
        graph, found = captured(lambda: adapter.step(held))
    except RuntimeError as error:
        return {"graph_note": str(error)[:300]}
    times = timed(graph.replay, lambda i: put(held, given[i % INPUTS]), asleep=True)
    put(held, given[0])
    graph.replay()
    return {"graph": times, "graph_error": deviation(adapter.read(found), right)}


def second_derivatives(adapter: OnGpu, held: tuple[Tensor, ...], given: list[tuple[Tensor, ...]]) -> dict[str, Any]:
    """Times of value, gradient and a Hessian-vector product, eager; or why there is none."""
    try:
        times = timed(lambda: adapter.hessian_product(held), lambda i: put(held, given[i % INPUTS]))
    except RuntimeError as error:
        return {"second_note": str(error)[:300]}
    return {"second": times}


def with_jax(peer: str, wanted: Workload) -> dict[str, Any]:
    """Jitted, timed by the clock: a call returns when it is done."""
    adapter = make(peer)(wanted)
    given = [adapter.prepare(inputs(wanted, seed)) for seed in range(INPUTS)]
    begun = time.perf_counter()
    found = adapter.step(given[0])
    result: dict[str, Any] = {"first_s": time.perf_counter() - begun}
    result["error"] = deviation(adapter.read(found), expected(wanted))
    times: list[float] = []
    while len(times) < FEWEST_CALLS or (len(times) < MOST_CALLS and sum(times) < SECONDS):
        begun = time.perf_counter()
        adapter.step(given[len(times) % INPUTS])
        times.append(time.perf_counter() - begun)
    return result | {"eager": spread(times)}


class OnGpu:
    """The adapter of a torch library, with inputs on the GPU."""

    def __init__(self, peer: str, wanted: Workload) -> None:
        options = {"device": "cuda"} if peer == "torch" else {}
        self.workload, self.adapter = wanted, make(peer)(wanted, **options)
        self.step = self.adapter.step

    def prepare(self, seed: int) -> tuple[Tensor, ...]:
        """Leaves of autograd where the adapter's are."""
        there = self.adapter.prepare(inputs(self.workload, seed))
        return tuple([t.detach().cuda().requires_grad_(t.requires_grad) for t in there])

    def hessian_product(self, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The Hessian times a vector of ones."""
        wanted = given[:2] if self.workload.batch else given[1:2]
        gradients = torch.autograd.grad(self.adapter.loss(*given), wanted, create_graph=True)
        return torch.autograd.grad(sum(g.sum() for g in gradients), wanted)

    def read(self, found: tuple[Tensor, tuple[Tensor, ...]]) -> Answer:
        """As numpy."""
        loss, gradients = found
        return self.adapter.read((loss.detach().cpu(), tuple([g.cpu() for g in gradients])))


def make(peer: str) -> Callable[..., Any]:
    """What makes a library's adapter."""
    module, name = PEERS[peer].adapter.split(":")
    return getattr(importlib.import_module(f"peers.{module}"), name)


def expected(wanted: Workload) -> Answer:
    """By ketgrad on the CPU, in double precision."""
    adapter = make("ketgrad-double")(wanted)
    return adapter.read(adapter.step(adapter.prepare(inputs(wanted, 0))))


def deviation(found: Answer, right: Answer) -> float:
    """The largest difference, relative to the largest number of the loss or of a gradient; NaN where one is."""
    pairs = [(found.loss, right.loss), *((found.gradients[key], value) for key, value in right.gradients.items())]
    return float(np.max([np.abs(a - b).max() / max(np.abs(b).max(), 1e-30) for a, b in pairs]))


@torch.no_grad()
def put(held: tuple[Tensor, ...], given: tuple[Tensor, ...]) -> None:
    """Other values, in the same place."""
    for target, source in zip(held, given, strict=True):
        target.copy_(source)


def captured(call: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """A call as a graph, and what it writes its results to."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = call()
    return graph, found


def timed(
    call: Callable[[], object], before: Callable[[int], object] = lambda i: None, asleep: bool = False
) -> dict[str, Any]:
    """Milliseconds of calls, each between two events.

    Args:
        call: what is timed.
        before: hears the number of a call, outside what is timed.
        asleep: keep the GPU busy until the call is launched, so that it alone is timed and not the launch.
    """
    for number in range(3):
        before(number)
        call()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times: list[float] = []
    while len(times) < FEWEST_CALLS or (len(times) < MOST_CALLS and sum(times) < SECONDS):
        before(len(times))
        torch.cuda.synchronize()
        if asleep:
            torch.cuda._sleep(ASLEEP)
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(1e-3 * start.elapsed_time(end))
    return spread(times)


if __name__ == "__main__":
    main()
