"""What every adapter is: a workload in a library's own terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from workloads import Inputs, Term, Workload


class NotSupportedError(Exception):
    """The library, or its adapter, cannot do this workload."""


@dataclass(frozen=True)
class Answer:
    """A loss and its gradients, by "data" (if there are data) and "weights"; or no loss, and an array by its name."""

    loss: float
    gradients: dict[str, NDArray[np.float64]]


class Adapter(Protocol):
    """One workload in one library; `step` alone is timed."""

    def prepare(self, inputs: Inputs) -> Any:
        """The inputs as what a user of the library would hold."""

    def step(self, given: Any) -> Any:
        """What the workload asks for, computed when this returns, in the library's own types."""

    def read(self, found: Any) -> Answer:
        """What `step` returned, for the comparison with others."""


def answer(workload: Workload, loss: Any, gradients: Any) -> Answer:
    """An answer from a number and arrays, data's first where there are data."""
    names = ["data", "weights"] if workload.batch else ["weights"]
    arrays = [np.asarray(g, dtype=np.float64) for g in gradients]
    return Answer(float(loss), dict(zip(names, arrays, strict=True)))


def outputs(workload: Workload, array: Any) -> Answer:
    """An answer of values, a state or a Jacobian."""
    found = np.asarray(array)
    if np.iscomplexobj(found):
        found = np.stack([found.real, found.imag])
    return Answer(0.0, {workload.result: found.astype(np.float64)})


def hamiltonian(library: Any, terms: tuple[Term, ...]) -> Any:
    """The Hamiltonian of a library that has PennyLane's names."""
    observables = []
    for _, word in terms:
        letters = [getattr(library, letter)(w) for w, letter in word] or [library.Identity(0)]
        product = letters[0]
        for letter in letters[1:]:
            product = product @ letter
        observables.append(product)
    return library.Hamiltonian([coefficient for coefficient, _ in terms], observables)
