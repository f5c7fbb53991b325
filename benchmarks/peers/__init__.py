"""The libraries that are timed: one adapter each, which only a worker imports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """Where its adapters are, what it is called, and what must be installed for it."""

    adapters: dict[str, str]
    """For each kind of workload that it can do (`Workload.kind`), `module:name`."""
    label: str
    packages: tuple[str, ...]
    ours: bool = False
    double: bool = False
    """Whether it computes in complex128."""


def _all(adapter: str, *kinds: str) -> dict[str, str]:
    return dict.fromkeys(kinds, adapter)


_FRESH = ("fresh values", "fresh gradient", "fresh state")

PEERS: dict[str, Peer] = {
    "ketgrad": Peer(
        _all("ketgrad:Compiled", "gradient", "values", "jacobian"), "ketgrad, kg.compile", ("torch",), ours=True
    ),
    "ketgrad-one-call": Peer(
        _all("ketgrad:OneCall", "gradient", "jacobian"), "ketgrad, value_and_grad", ("torch",), ours=True
    ),
    "ketgrad-execute": Peer(
        _all("ketgrad:Executed", "gradient", "values") | _all("ketgrad:Fresh", *_FRESH),
        "ketgrad, kg.execute",
        ("torch",),
        ours=True,
    ),
    "ketgrad-double": Peer(
        _all("ketgrad:DOUBLE", "gradient"), "ketgrad, kg.compile, complex128", ("torch",), ours=True, double=True
    ),
    "ketgrad-backward": Peer(
        _all("ketgrad:BackwardCalls", "jacobian"), "ketgrad, a backward call for each row", ("torch",), ours=True
    ),
    "torch": Peer(
        _all("plain_torch:Simulated", "gradient", "values", "jacobian") | _all("plain_torch:Fresh", *_FRESH),
        "plain torch",
        ("torch",),
    ),
    "fastqml": Peer(_all("fastqml:Fused", "gradient"), "fastQML", ("fastqml", "torch")),
    "pennylane": Peer(
        _all("pennylane:BACKPROP", "gradient", "jacobian"),
        "PennyLane, default.qubit, backprop",
        ("pennylane", "torch"),
    ),
    "lightning": Peer(
        _all("pennylane:LIGHTNING", "gradient", "values") | _all("pennylane:Fresh", *_FRESH),
        "Lightning, adjoint",
        ("pennylane-lightning", "torch"),
    ),
    "lightning-vjp": Peer(
        _all("pennylane:LIGHTNING_VJP", "gradient") | _all("pennylane:FRESH_VJP", "fresh gradient"),
        "Lightning, adjoint, device_vjp",
        ("pennylane-lightning", "torch"),
    ),
    "qulacs": Peer(
        _all("qulacs:Backprop", "gradient", "values") | _all("qulacs:Fresh", *_FRESH),
        "Qulacs, backprop",
        ("qulacs",),
        double=True,
    ),
    "scaluq": Peer(
        _all("scaluq:Backprop", "gradient", "values") | _all("scaluq:Fresh", *_FRESH), "scaluq, backprop", ("scaluq",)
    ),
    "aer": Peer(
        _all("aer:Saved", "values") | _all("aer:Fresh", "fresh values", "fresh state"),
        "Qiskit Aer",
        ("qiskit-aer",),
    ),
    "mindquantum": Peer(
        _all("mindquantum:ExpectationWithGrad", "gradient", "values") | _all("mindquantum:Fresh", *_FRESH),
        "MindQuantum",
        ("mindquantum",),
    ),
    "tensorcircuit": Peer(
        _all("tensorcircuit:Jitted", "gradient", "values", "jacobian"),
        "TensorCircuit-NG, JAX jit",
        ("tensorcircuit-ng", "jax"),
    ),
    "deepquantum": Peer(_all("deepquantum:Module", "gradient"), "DeepQuantum", ("deepquantum", "torch")),
    "catalyst": Peer(
        _all("catalyst:Compiled", "gradient"), "Catalyst, qjit", ("pennylane-catalyst", "jax"), double=True
    ),
}
