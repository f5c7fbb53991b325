"""Random circuits through the public Python API against the oracle, for as many circuits as it is told.

    make sweep CIRCUITS=20000 SEED=1

Circuit number i has seed SEED + i, and the seed says everything: the kind of circuit, angles (``angles.py``), batch,
measurements, thresholds and threads (``hooks.py``), and by which route derivatives are taken. Each runs on every
instruction set of the machine, in double precision, and in single precision too where its angles are numbers of single
precision. A failure is printed with the command that runs its circuit alone.

Bounds. Every entry of a result, gradient, tangent or Hessian-vector product is judged by itself, by its error over
max(1, |entry|). A circuit of G gates and M measured terms has about G + M roundings on the way to any number, forward
and again backward, of numbers that are at most of order 1: losses are means, and tangents are of unit length. That many
epsilons of the precision, times ``FACTOR``, are allowed: for sums over a state, for gates that are several rotations,
for the largest entry of many. Where coefficients times norms of the terms of an observable add up to S > 1, numbers are
of order S, and of order S² for a variance, which is a difference of two such: that many times as much.

An angle is a number that both sides read alike, and so 10^6 is as good an angle as any. But angles of commuting gates
are added up, in double precision whatever that of the state, and the sum is rounded (``cases.angle_rounding``).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import combinations
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import cases
import hooks
import ketgrad as kg
import oracle
from angles import MIXTURES, random_mixture

DTYPES = {"float64": torch.float64, "float32": torch.float32}
FACTOR = 16
BATCHES = (None, None, None, None, 1, 2, 3, 17, 33)

Function = Callable[..., list[Tensor]]


def bound(dtype: torch.dtype, tape: kg.Tape) -> float:
    terms = sum(1 if m.observable is None else len(m.observable.terms) for m in tape.measurements)
    size = max(map(size_of, tape.measurements))
    return size * (FACTOR * (len(tape.operations) + terms) * torch.finfo(dtype).eps + cases.angle_rounding(tape))


def size_of(measurement: kg.Measurement) -> float:
    """Of which order its result may be, at least 1."""
    observable = measurement.observable
    if observable is None:
        return 1.0
    values = [torch.as_tensor(parameter).detach().abs() for parameter in observable.parameters]
    kinds = observable.parameter_kinds
    total = 0.0
    for term in observable.terms:
        weight = abs(term.scale)
        for index, column in term.coefficients:
            of_term = values[index][..., column] if kinds[index] == "coefficients" else values[index]
            weight *= float(of_term.max())
        for factor in term.factors:
            if factor.kind in ("hermitian", "sparse"):
                axes = (-2, -1) if factor.kind == "hermitian" else -1
                weight *= float(torch.linalg.vector_norm(values[factor.parameter], dim=axes).max())
        total += weight
    return max(1.0, total) ** (2 if measurement.kind == "var" else 1)


# ---- derivatives, by any route


def mean(results: Iterable[Tensor]) -> Tensor:
    """A number of order 1 made of every entry of some results; no linear function, so that second derivatives have
    cotangents that move."""
    results = list(results)
    linear = sum(cases.contract([result], seed) / max(result.numel(), 1) ** 0.5 for seed, result in enumerate(results))
    linear = torch.as_tensor(linear) / len(results)
    return linear + 0.3 * linear**2


def tangents_of(tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """Of unit length together."""
    count = sum(tensor.numel() for tensor in tensors)
    return tuple(cases.direction(tensor.detach()) / max(count, 1) ** 0.5 for tensor in tensors)


def hermitian_part(derivatives: Iterable[Tensor], tensors: list[Tensor]) -> list[Tensor]:
    return [(d + d.mH) / 2 if cases.is_hermitian(tensor) else d for d, tensor in zip(derivatives, tensors, strict=True)]


def gradient(function: Function, tensors: list[Tensor]) -> list[Tensor]:
    loss = mean(function(*tensors))
    return list(torch.autograd.grad(loss, tensors, materialize_grads=True, allow_unused=True))


def gradient_by_jacobian(function: Function, tensors: list[Tensor]) -> list[Tensor]:
    """By torch.func.jacrev of up to 16 sums of the results' entries, which add up to the loss's first order."""
    results = [result.detach().requires_grad_() for result in function(*tensors)]
    cotangents = torch.autograd.grad(mean(results), results)

    def sums(*given: Tensor) -> Tensor:
        pairs = zip(cotangents, function(*given), strict=True)
        flat = torch.cat([(c.conj() * r).real.flatten() for c, r in pairs])
        return torch.stack([flat[k::16].sum() for k in range(min(16, len(flat)))])

    jacobians = torch.func.jacrev(sums, argnums=tuple(range(len(tensors))))(*tensors)
    return [jacobian.detach().sum(0) for jacobian in jacobians]


def gradient_by_vjp(function: Function, tensors: list[Tensor]) -> list[Tensor]:
    loss, pull = torch.func.vjp(lambda *given: mean(function(*given)), *tensors)
    return list(pull(torch.ones_like(loss)))


def tangents(function: Function, tensors: list[Tensor]) -> list[Tensor]:
    return list(torch.func.jvp(lambda *given: tuple(function(*given)), tuple(tensors), tangents_of(tensors))[1])


def product(function: Function, tensors: list[Tensor]) -> list[Tensor]:
    """The Hessian times a vector, by double backward."""
    loss = mean(function(*tensors))
    first = torch.autograd.grad(loss, tensors, create_graph=True, materialize_grads=True, allow_unused=True)
    along = [cases.inner(v, g) for v, g in zip(tangents_of(tensors), first, strict=True)]
    second = torch.autograd.grad(torch.stack(along).sum(), tensors, materialize_grads=True, allow_unused=True)
    return hermitian_part(second, tensors)


def product_by_jvp(function: Function, tensors: list[Tensor]) -> list[Tensor]:
    """Forward over reverse."""
    gradients = torch.func.grad(lambda *given: mean(function(*given)), argnums=tuple(range(len(tensors))))
    return hermitian_part(torch.func.jvp(gradients, tuple(tensors), tangents_of(tensors))[1], tensors)


def product_by_vjp(function: Function, tensors: list[Tensor]) -> list[Tensor]:
    """Reverse over forward."""

    def along(*given: Tensor) -> Tensor:
        return torch.func.jvp(lambda *x: mean(function(*x)), given, tangents_of(tensors))[1]

    return hermitian_part(torch.func.grad(along, argnums=tuple(range(len(tensors))))(*tensors), tensors)


def outputs(results: Any) -> list[Tensor]:
    return tree_leaves(results)  # type: ignore[no-any-return]


def by_execute(build: Callable[..., kg.Tape]) -> Function:
    return lambda *given: outputs(kg.execute([build(*given)]))


def by_recomputing(build: Callable[..., kg.Tape]) -> Function:
    return lambda *given: outputs(kg.execute([build(*given)], recompute=True))


def by_compile(build: Callable[..., kg.Tape]) -> Function:
    compiled = kg.compile(build)
    return lambda *given: outputs(compiled(*given))


# A route: how the circuit runs, what is taken of it, and by which function the oracle takes the same; and which kinds
# of parameters it leaves alone. Second derivatives by matrices are right along Hermitian directions, and the values of
# a sparse one do not show which those are; torch.func.jacrev is for real arguments.
_Derivative = Callable[[Function, list[Tensor]], list[Tensor]]
_SPARSE = ("values",)
_COMPLEX = ("matrix", "state", "diagonal", "values")


@dataclass(frozen=True)
class Route:
    run: Callable[[Callable[..., kg.Tape]], Function]
    derivative: _Derivative
    of_oracle: _Derivative
    without: tuple[str, ...] = ()


ROUTES = {
    "backward": Route(by_execute, gradient, gradient),
    "recompute": Route(by_recomputing, gradient, gradient),
    "compile": Route(by_compile, gradient, gradient),
    "vjp": Route(by_execute, gradient_by_vjp, gradient),
    "jacrev": Route(by_execute, gradient_by_jacobian, gradient, _COMPLEX),
    "jvp": Route(by_execute, tangents, tangents, _SPARSE),
    "double backward": Route(by_execute, product, product, _SPARSE),
    "compile, twice": Route(by_compile, product, product, _SPARSE),
    "forward over reverse": Route(by_execute, product_by_jvp, product, _SPARSE),
    "reverse over forward": Route(by_execute, product_by_vjp, product, _SPARSE),
}
_WEIGHTS = {"backward": 6, "double backward": 3}


# ---- one circuit

_SIZES = {"1-3": 3, "4-5": 5, "6-8": 8, "9-10": 10}


@dataclass(frozen=True)
class Draw:
    """What a seed stands for, but for the circuit itself."""

    seed: int
    kind: str
    mixture: str
    route: str
    batch: int | None
    num_wires: int
    num_gates: int
    single: bool
    threads: int
    thresholds: dict[str, Any] = field(default_factory=dict)

    def tape(self, dtype: torch.dtype) -> kg.Tape:
        return cases.random_tape(
            Random(self.seed),
            self.seed,
            kind=self.kind,
            num_wires=self.num_wires,
            num_gates=self.num_gates,
            batches=[self.batch],
            mixture=self.mixture,
            dtype=dtype,
            rounded=torch.float32 if self.single else None,
        )

    def precisions(self) -> list[str]:
        return ["float64", "float32"] if self.single else ["float64"]

    def regimes(self, level: str, precision: str) -> dict[str, str]:
        """A value on each axis of the table."""
        return {
            "precision": precision,
            "level": level,
            "batch": {None: "none", 1: "1"}.get(self.batch, "2-3" if (self.batch or 0) < 4 else "17-33"),
            "wires": next(name for name, last in _SIZES.items() if self.num_wires <= last),
            "circuit": self.kind,
            "angles": self.mixture,
            "route": self.route,
            "threads": str(self.threads),
            **{name: str(value) for name, value in self.thresholds.items()},
        }


def draw(seed: int) -> Draw:
    random = Random(f"circuit {seed}")
    kind = random.choices(cases.CIRCUIT_KINDS, [3 if kind == "layers" else 1 for kind in cases.CIRCUIT_KINDS])[0]
    batch = random.choice(BATCHES)
    # From 6 wires on, single circuits are not run in lanes: as often as the smaller ones, which are.
    sizes = (
        [1, 2, 3]
        if kind == "deep"
        else [1, 2, 3, 4, 5, 6, 6, 6, 7, 7, 8, 8, 9, 10]
        if (batch or 0) < 4
        else [1, 2, 3, 4, 6]
    )
    num_wires = random.choice(sizes)
    num_gates = random.randint(1, 80 if kind == "deep" else random.choice([8, 20, 50]))
    return Draw(
        seed=seed,
        kind=kind,
        mixture=random_mixture(random),
        route=random.choices(list(ROUTES), [_WEIGHTS.get(name, 1) for name in ROUTES])[0],
        batch=batch,
        num_wires=num_wires,
        num_gates=num_gates,
        single=random.random() < 0.6,
        threads=random.randint(1, 2),
        thresholds=hooks.random_thresholds(random),
    )


def taken(tape: kg.Tape, run: Any, derivative: _Derivative, without: tuple[str, ...]) -> list[Tensor]:
    """Results, then derivatives by the tape's tensors but for those of some kinds."""
    build, found = cases.as_function(tape, without)
    tensors = [tensor.detach().requires_grad_() for tensor in found]
    function, results = run(build), []

    def recorded(*given: Tensor) -> list[Tensor]:
        found = function(*given)
        results.append(found)
        return found

    if derivative in (gradient, product) and tensors:
        derivatives = derivative(recorded, tensors)
        return [each.detach() for each in (*results[0], *derivatives)]
    # Below transforms results are wrapped: they are computed once more outside.
    derivatives = derivative(function, tensors) if tensors else []
    return [each.detach() for each in (*function(*tensors), *derivatives)]


def by_oracle(build: Callable[..., kg.Tape]) -> Function:
    return lambda *given: outputs(oracle.execute(build(*given)))


def error(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest error of an entry, over max(1, |entry|); infinite for NaN and for other shapes."""
    worst = 0.0
    for a, b in zip(found, expected, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.numel():
            difference = (a.detach().to(b.dtype) - b.detach()).abs() / b.abs().clamp(min=1)
            worst = max(worst, float(difference.nan_to_num(nan=float("inf")).max()))
    return worst


def errors(chosen: Draw) -> Iterator[tuple[str, str, float]]:
    """(level, precision, error over its bound) of a circuit, on every instruction set and in the precisions it has."""
    tapes = {precision: chosen.tape(DTYPES[precision]) for precision in chosen.precisions()}
    route = ROUTES[chosen.route]
    expected = taken(tapes["float64"], by_oracle, route.of_oracle, route.without)
    for precision, tape in tapes.items():
        for level in hooks.LEVELS:
            with hooks.level(level), hooks.threads(chosen.threads), hooks.thresholds(**chosen.thresholds):
                found = taken(tape, route.run, route.derivative, route.without)
            yield level, precision, error(found, expected) / bound(DTYPES[precision], tape)


# ---- many circuits


@dataclass
class Report:
    """How many circuits ran in each regime, the worst errors there, and what failed."""

    circuits: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    worst: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    pairs: Counter[tuple[tuple[str, str], tuple[str, str]]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, regimes: dict[str, str], error: float) -> None:
        cells = list(regimes.items())
        for axis, value in cells:
            self.counts[axis][value] += 1
            self.worst[axis, value] = max(self.worst[axis, value], error)
        self.pairs.update(combinations(cells, 2))

    def empty(self) -> list[str]:
        """Values of an axis that no circuit had."""
        return [f"{axis} {value}" for axis, values in AXES.items() for value in values if not self.counts[axis][value]]

    def empty_pairs(self) -> list[str]:
        """Pairs of values of two axes that no circuit had."""
        cells = [[(axis, value) for value in values] for axis, values in AXES.items()]
        both = [(a, b) for one, other in combinations(cells, 2) for a in one for b in other]
        return [f"{' '.join(a)}, {' '.join(b)}" for a, b in both if not self.pairs[a, b] and not _impossible(a, b)]

    def table(self) -> str:
        lines = [f"{'regime':<12}{'':<24}{'runs':>9}  worst error over its bound"]
        for axis, values in AXES.items():
            for value in values:
                lines.append(f"{axis:<12}{value:<24}{self.counts[axis][value]:>9}  {self.worst[axis, value]:.3f}")
        return "\n".join(lines)


AXES: dict[str, list[str]] = {
    "precision": list(DTYPES),
    "level": hooks.LEVELS,
    "batch": ["none", "1", "2-3", "17-33"],
    "wires": list(_SIZES),
    "circuit": list(cases.CIRCUIT_KINDS),
    "angles": list(MIXTURES),
    "route": list(ROUTES),
    "threads": ["1", "2"],
    **{name: [str(value) for value in values] for name, values in hooks.THRESHOLDS.items()},
}


def _impossible(a: tuple[str, str], b: tuple[str, str]) -> bool:
    """Deep circuits are of few wires, and large batches of few enough."""
    cells = {a, b}
    return (("circuit", "deep") in cells and any(axis == "wires" and value != "1-3" for axis, value in cells)) or (
        cells == {("batch", "17-33"), ("wires", "9-10")}
    )


def sweep(circuits: int, seed: int, progress: Callable[[Iterable[int]], Iterable[int]] = iter) -> Report:
    report = Report()
    for each in progress(range(seed, seed + circuits)):
        chosen = draw(each)
        report.circuits += 1
        try:
            for level, precision, found in errors(chosen):
                report.add(chosen.regimes(level, precision), found)
                if not found <= 1:
                    report.failures.append(f"{level}, {precision}: {found:.3g} times its bound: {chosen}")
        except Exception as error:
            report.failures.append(f"{type(error).__name__}: {error}: {chosen}")
    return report


def _progress(values: Iterable[int]) -> Iterable[int]:
    try:
        from tqdm import tqdm
    except ImportError:
        return values
    return tqdm(values, unit=" circuits", disable=not sys.stderr.isatty())  # type: ignore[no-any-return]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Random circuits against the oracle.")
    parser.add_argument("--circuits", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the first circuit (default: the time)")
    options = parser.parse_args(arguments)
    start = time.perf_counter()
    report = sweep(options.circuits, options.seed, _progress)
    print(report.table())
    pairs = report.empty_pairs()
    print(f"pairs of regimes without a circuit: {len(pairs)}{': ' if pairs else ''}{'; '.join(pairs[:20])}")
    for failure in report.failures:
        print(failure)
        print("  make sweep CIRCUITS=1 SEED=" + failure.split("seed=")[1].split(",")[0])
    print(
        f"{report.circuits} circuits from seed {options.seed} on, {len(report.failures)} failures, "
        f"{time.perf_counter() - start:.0f} s"
    )
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
