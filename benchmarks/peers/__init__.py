"""The libraries that are timed: one adapter each, which only a worker imports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """Where an adapter is (`module:name`), what it is called, and what must be installed for it."""

    adapter: str
    label: str
    packages: tuple[str, ...]
    ours: bool = False
    double: bool = False
    """Whether it computes in complex128."""


PEERS: dict[str, Peer] = {
    "ketgrad": Peer("ketgrad:Compiled", "ketgrad, kg.compile", ("torch",), ours=True),
    "ketgrad-execute": Peer("ketgrad:Executed", "ketgrad, kg.execute", ("torch",), ours=True),
    "ketgrad-double": Peer("ketgrad:DOUBLE", "ketgrad, kg.compile, complex128", ("torch",), ours=True, double=True),
    "torch": Peer("plain_torch:Simulated", "plain torch", ("torch",)),
    "pennylane": Peer("pennylane:BACKPROP", "PennyLane, default.qubit, backprop", ("pennylane", "torch")),
    "lightning": Peer("pennylane:LIGHTNING", "Lightning, adjoint", ("pennylane-lightning", "torch")),
    "lightning-vjp": Peer(
        "pennylane:LIGHTNING_VJP", "Lightning, adjoint, device_vjp", ("pennylane-lightning", "torch")
    ),
    "qulacs": Peer("qulacs:Backprop", "Qulacs, backprop", ("qulacs",), double=True),
    "mindquantum": Peer("mindquantum:ExpectationWithGrad", "MindQuantum", ("mindquantum",)),
    "tensorcircuit": Peer("tensorcircuit:Jitted", "TensorCircuit-NG, JAX jit", ("tensorcircuit-ng", "jax")),
    "deepquantum": Peer("deepquantum:Module", "DeepQuantum", ("deepquantum", "torch")),
    "catalyst": Peer("catalyst:Compiled", "Catalyst, qjit", ("pennylane-catalyst", "jax"), double=True),
}
