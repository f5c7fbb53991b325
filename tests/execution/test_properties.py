"""What must hold whatever a circuit computes: no oracle is asked.

Circuits, angles and shapes are random, drawn from seeds: one that is fixed, and one of the day on which the tests run.
`KETGRAD_TEST_SEED=123` stands in for the day, to draw anew or to see a failure again: its message names the seed.

Bounds are those of ``sweep.py``, for each entry by itself, and doubled where two results of the library are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import hooks
import ketgrad as kg
from angles import Angles
from sweep import bound, error, gradient, gradient_by_jacobian, mean, product, product_by_jvp, tangents, tangents_of

pytestmark = pytest.mark.slow

DTYPES = [torch.float64, torch.float32]
SIZES = (4, 5, 6, 6, 7, 8, 9, 10, 6, 7, 8, 13)
BATCHES = (None, None, None, 1, 2, 17, 33)


@pytest.fixture(params=DTYPES, ids=str)
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param  # type: ignore[no-any-return]


# --- circuits as lists, to be taken apart -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Gate:
    """A gate by name, with the numbers of its wires and of its parameters."""

    name: str
    wires: tuple[int, ...]
    parameters: tuple[int, ...] = ()
    inverse: bool = False

    def operation(self, angles: Sequence[Tensor], labels: Sequence[int]) -> kg.Operation:
        wires = [labels[wire] for wire in self.wires]
        gate = getattr(kg, self.name)(*(angles[index] for index in self.parameters), wires=wires)
        return kg.adjoint(gate) if self.inverse else gate  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Circuit:
    """Gates, and for each parameter its values: one, or one a sample."""

    seed: int
    num_wires: int
    gates: tuple[Gate, ...]
    values: tuple[Tensor, ...]

    def angles(self, dtype: torch.dtype) -> list[Tensor]:
        return [value.to(dtype, copy=True).requires_grad_() for value in self.values]

    def operations(self, angles: Sequence[Tensor], labels: Sequence[int] | None = None) -> list[kg.Operation]:
        labels = labels or range(self.num_wires)
        return [gate.operation(angles, labels) for gate in self.gates]

    def build(self, measurements: Sequence[kg.Measurement]) -> Callable[..., kg.Tape]:
        return lambda *angles: kg.Tape(self.operations(angles), measurements)

    def with_gates(self, position: int, gates: Sequence[Gate], values: Sequence[Tensor]) -> Circuit:
        """With other gates inserted, whose parameters count from 0."""
        count = len(self.values)
        own = [replace(gate, parameters=tuple(count + index for index in gate.parameters)) for gate in gates]
        all_gates = (*self.gates[:position], *own, *self.gates[position:])
        return replace(self, gates=all_gates, values=(*self.values, *values))


MIXED = {"RX": (1, 1), "RY": (1, 1), "RZ": (1, 1), "Rot": (1, 3), "U3": (1, 3), "PhaseShift": (1, 1), "H": (1, 0)}
MIXED |= {"CNOT": (2, 0), "CZ": (2, 0), "SWAP": (2, 0), "CRX": (2, 1), "CRZ": (2, 1), "IsingZZ": (2, 1), "S": (1, 0)}
MIXED |= {"IsingXX": (2, 1), "IsingXY": (2, 1), "SingleExcitation": (2, 1), "MultiRZ": (3, 1), "CSWAP": (3, 0)}
NO_DIAGONAL = {name: MIXED[name] for name in ("RX", "IsingXX", "CNOT", "SWAP")} | {"RY": (1, 1), "IsingYY": (2, 1)}
PHASES = {"RZ": (1, 1), "PhaseShift": (1, 1), "IsingZZ": (2, 1), "MultiRZ": (3, 1), "CRZ": (2, 1)}
PHASES |= {"ControlledPhaseShift": (2, 1)}


class Drawing:
    """Gates on random wires and the values of their parameters."""

    def __init__(self, random: Random, num_wires: int, batch: int | None, mixture: str | None = None) -> None:
        self.random, self.num_wires, self.batch = random, num_wires, batch
        self.source = Angles(np.random.default_rng(random.getrandbits(62)), mixture)
        self.gates: list[Gate] = []
        self.values: list[Tensor] = []

    def add(self, name: str, wires: Sequence[int], parameters: int = 1) -> None:
        first = len(self.values)
        for _ in range(parameters):
            is_batched = self.batch is not None and self.random.random() < 0.6
            # Numbers of single precision, so that either precision computes the same circuit.
            self.values.append(self.source.draw(*([self.batch] if is_batched else [])).float().double())
        self.gates.append(Gate(name, tuple(wires), tuple(range(first, len(self.values)))))

    def some(self, names: dict[str, tuple[int, int]], count: int) -> None:
        for _ in range(count):
            name = self.random.choice(list(names))
            num_wires, parameters = names[name]
            self.add(name, self.random.sample(range(self.num_wires), num_wires), parameters)

    def layers(self, depth: int) -> None:
        rotations = self.random.choice([["RY"], ["RX"], ["RX", "RY"]])
        for _ in range(depth):
            for name in rotations:
                for wire in range(self.num_wires):
                    self.add(name, [wire])
            for pair in pairwise(range(self.num_wires)):
                self.add("CNOT", pair, 0)

    def anything(self) -> None:
        kind = self.random.choice(["layers", "layers", "layers", "mixed", "no diagonal"])
        if kind == "layers":
            self.layers(self.random.randint(1, 5))
        else:
            self.some(MIXED if kind == "mixed" else NO_DIAGONAL, self.random.randint(5, 60))

    def circuit(self, seed: int) -> Circuit:
        return Circuit(seed, self.num_wires, tuple(self.gates), tuple(self.values))


def drawn(seed: int, what: str, batches: Sequence[int | None] = BATCHES) -> Drawing:
    """Different circuits for different tests of one seed."""
    random = Random(f"{what} {seed}")
    return Drawing(random, random.choice(SIZES), random.choice(batches))


def circuits(seeds: Sequence[int], what: str, count: int, batches: Sequence[int | None] = BATCHES) -> Iterator[Circuit]:
    for seed in seeds:
        for number in range(count):
            drawing = drawn(seed, f"{what} {number}", batches)
            drawing.some(PHASES, drawing.random.randint(0, 4))
            drawing.anything()
            yield drawing.circuit(seed)


def expectations(num_wires: int, labels: Sequence[int] | None = None) -> list[kg.Measurement]:
    """One of each wire, and two words that are not diagonal."""
    labels = labels or range(num_wires)
    words = [kg.X(labels[0]) @ kg.Y(labels[1]), kg.X(labels[-1]) @ kg.Z(labels[1]) @ kg.X(labels[0])]
    return [kg.expval(observable) for observable in (*(kg.Z(label) for label in labels), *words)]


def run(build: Callable[..., kg.Tape]) -> Callable[..., list[Tensor]]:
    def function(*angles: Tensor) -> list[Tensor]:
        results = kg.execute([build(*angles)])[0]
        return [results] if isinstance(results, Tensor) else list(results)

    return function


def everything(build: Callable[..., kg.Tape], angles: list[Tensor]) -> list[Tensor]:
    """Results, gradients of a loss, and its Hessian times a vector."""
    function = run(build)
    return [*(r.detach() for r in function(*angles)), *gradient(function, angles), *product(function, angles)]


def assert_alike(found: Sequence[Tensor], expected: Sequence[Tensor], circuit: Circuit, dtype: torch.dtype) -> None:
    allowed = 2 * bound(dtype, circuit.build(expectations(circuit.num_wires))(*circuit.angles(dtype)))
    worst = error(list(found), list(expected))
    assert worst <= allowed, f"{worst:.2g} is more than {allowed:.2g}: {describe(circuit)}"


def describe(circuit: Circuit) -> str:
    batch = {value.shape[0] for value in circuit.values if value.dim()}
    return (
        f"KETGRAD_TEST_SEED={circuit.seed}: {circuit.num_wires} wires, {len(circuit.gates)} gates, "
        f"batch of {batch or None}, {hooks.current()}"
    )


# --- derivatives that vanish ------------------------------------------------------------------------------------------


def assert_vanish(
    circuit: Circuit, build: Callable[..., kg.Tape], own: range, dtype: torch.dtype, twice: bool = True
) -> None:
    """First derivatives by some of the parameters, and theirs by all."""
    angles = circuit.angles(dtype)
    function = run(build)
    found = [gradient(function, angles), *([product(function, angles)] if twice else [])]
    of_own = [derivatives[index] for derivatives in found for index in own]
    assert_alike(of_own, [torch.zeros_like(each) for each in of_own], circuit, dtype)


def test_phases_of_the_first_state(level: str, dtype: torch.dtype, seeds: list[int]) -> None:
    """On |0...0> a diagonal gate is a global phase."""
    for seed in seeds:
        for number in range(40):
            drawing = drawn(seed, f"first {number}", batches=(None, None, None, 1, 2, 17))
            for wire in range(drawing.num_wires):
                drawing.add("RZ", [wire])
            drawing.some(PHASES, drawing.random.randint(0, 4))
            own = range(len(drawing.values))
            drawing.anything()
            circuit = drawing.circuit(seed)
            build = circuit.build(expectations(circuit.num_wires))
            assert_vanish(circuit, build, own, dtype, twice=number % 4 == 0)


def test_phases_before_a_diagonal_observable(level: str, dtype: torch.dtype, seeds: list[int]) -> None:
    for seed in seeds:
        for number in range(3):
            drawing = drawn(seed, f"last {number}")
            drawing.anything()
            first = len(drawing.values)
            drawing.some(PHASES, drawing.num_wires)
            circuit = drawing.circuit(seed)
            measured = [kg.probs(wires=[0, 1]), kg.expval(kg.Z(0) @ kg.Z(2) + 0.5 * kg.Z(1))]
            assert_vanish(circuit, circuit.build(measured), range(first, len(circuit.values)), dtype)


def test_gates_outside_of_the_light_cone(level: str, dtype: torch.dtype, seeds: list[int]) -> None:
    """Gates on wires that nothing measured depends on any more."""
    for seed in seeds:
        for number in range(3):
            drawing = drawn(seed, f"cone {number}")
            drawing.anything()
            first = len(drawing.values)
            for wire in range(2, drawing.num_wires):
                drawing.add("Rot", [wire], 3)
            circuit = drawing.circuit(seed)
            # Probabilities of a reduced state are sums over the other wires, which the gates do change.
            measured = [kg.density_matrix(wires=[1, 0]), kg.expval(kg.X(0) @ kg.Y(1))]
            assert_vanish(circuit, circuit.build(measured), range(first, len(circuit.values)), dtype)


def test_global_phases(level: str, dtype: torch.dtype, seeds: list[int]) -> None:
    for circuit in circuits(seeds, "global", 3):
        phase = circuit.values[0]
        position = len(circuit.gates) // 2
        changed = circuit.with_gates(position, [Gate("GlobalPhase", (), (0,))], [phase])
        count = len(circuit.values)
        measured = expectations(circuit.num_wires)
        assert_vanish(changed, changed.build(measured), range(count, count + 1), dtype)


# --- the same circuit in other words ----------------------------------------------------------------------------------


def test_either_precision(level: str, seeds: list[int]) -> None:
    for circuit in circuits(seeds, "precision", 8):
        build = circuit.build(expectations(circuit.num_wires))
        single, double = (everything(build, circuit.angles(dtype)) for dtype in (torch.float32, torch.float64))
        assert_alike(single, double, circuit, torch.float32)


@pytest.mark.parametrize(
    "settings",
    [
        {"support": False},
        {"scale_bits": 0},
        {"scale_bits": 2},
        {"scale_bits": 40},
        {"tile_bits": 4},
        {"tile_bits": 5, "support": False},
        {"tile_bits": 4, "scale_bits": 1},
        {"regime": "lanes"},
        {"regime": "single"},
        {"spread": True, "tile_bits": 4},
        {"regime": "single", "tile_bits": 4, "support": False, "scale_bits": 3},
    ],
    ids=lambda settings: ", ".join(f"{name} {value}" for name, value in settings.items()),
)
def test_thresholds(settings: dict[str, Any], level: str, dtype: torch.dtype, seeds: list[int]) -> None:
    """Where the library changes its ways makes no difference."""
    for circuit in circuits(seeds, f"{settings}", 2):
        build = circuit.build(expectations(circuit.num_wires))
        expected = everything(build, circuit.angles(dtype))
        with hooks.thresholds(**settings):
            assert_alike(everything(build, circuit.angles(dtype)), expected, circuit, dtype)


def test_relabelled_wires(level: str, dtype: torch.dtype, seeds: list[int]) -> None:
    for circuit in circuits(seeds, "labels", 3):
        labels = list(range(circuit.num_wires))
        Random(circuit.seed).shuffle(labels)

        def relabelled(*angles: Tensor, circuit: Circuit = circuit, labels: list[int] = labels) -> kg.Tape:
            return kg.Tape(circuit.operations(angles, labels), expectations(circuit.num_wires, labels))

        expected = everything(circuit.build(expectations(circuit.num_wires)), circuit.angles(dtype))
        assert_alike(everything(relabelled, circuit.angles(dtype)), expected, circuit, dtype)


def test_a_gate_and_its_inverse(level: str, dtype: torch.dtype, seeds: list[int]) -> None:
    """Nothing changes, and by the angle that both have all derivatives vanish."""
    for circuit in circuits(seeds, "inverse", 4):
        random = Random(circuit.seed)
        name = random.choice([name for name in MIXED if MIXED[name][1]])
        num_wires, parameters = MIXED[name]
        gate = Gate(name, tuple(random.sample(range(circuit.num_wires), num_wires)), tuple(range(parameters)))
        values = random.choices(circuit.values, k=parameters)
        position = random.randint(0, len(circuit.gates))
        changed = circuit.with_gates(position, [gate, replace(gate, inverse=True)], values)
        measured = expectations(circuit.num_wires)
        plain, angles = run(circuit.build(measured)), circuit.angles(dtype)
        expected = [*plain(*angles), *gradient(plain, angles)]
        wide, angles = run(changed.build(measured)), changed.angles(dtype)
        found = [*wide(*angles), *gradient(wide, angles)]
        expected += [torch.zeros_like(each) for each in found[len(expected) :]]
        assert_alike([f.detach() for f in found], [e.detach() for e in expected], changed, dtype)


def test_cut_and_continued(level: str, dtype: torch.dtype, seeds: list[int]) -> None:
    """The state halfway, prepared anew."""
    for circuit in circuits(seeds, "cut", 4):
        position = Random(circuit.seed).randint(1, len(circuit.gates) - 1)
        measured = expectations(circuit.num_wires)
        first, last = replace(circuit, gates=circuit.gates[:position]), circuit.gates[position:]
        wires = list(range(circuit.num_wires))

        def continued(
            *angles: Tensor,
            first: Circuit = first,
            last: Any = last,
            wires: list[int] = wires,
            measured: Any = measured,
        ) -> list[Tensor]:
            # All wires are named, in their order: a first part may lack some.
            begin = [*first.operations(angles), kg.Identity(wires=wires)]
            (ket,) = kg.execute([kg.Tape(begin, [kg.state()])])
            end = [gate.operation(angles, wires) for gate in last]
            return list(kg.execute([kg.Tape([kg.StatePrep(ket, wires=wires), *end], measured)])[0])

        plain = run(circuit.build(measured))
        angles = circuit.angles(dtype)
        expected = [*plain(*angles), *gradient(plain, angles)]
        found = [*continued(*angles), *gradient(continued, angles)]
        assert_alike([f.detach() for f in found], [e.detach() for e in expected], circuit, dtype)


def test_a_shared_parameter(level: str, dtype: torch.dtype, seeds: list[int]) -> None:
    """Its gradient is the sum of those of the gates that have it."""
    for circuit in circuits(seeds, "shared", 4):
        value = circuit.values[0]
        places = [i for i, other in enumerate(circuit.values) if other.shape == value.shape]
        equal = replace(circuit, values=tuple(value if i in places else v for i, v in enumerate(circuit.values)))
        plain = run(equal.build(expectations(circuit.num_wires)))

        def shared(one: Tensor, *rest: Tensor, places: list[int] = places, plain: Any = plain) -> list[Tensor]:
            left = iter(rest)
            count = len(places) + len(rest)
            return plain(*(one if i in places else next(left) for i in range(count)))  # type: ignore[no-any-return]

        angles = equal.angles(dtype)
        each = gradient(plain, angles)
        rest = [angle for i, angle in enumerate(angles) if i not in places]
        total = torch.stack([each[i].double() for i in places]).sum(0).to(dtype)
        expected = [total, *(g for i, g in enumerate(each) if i not in places)]
        assert_alike(gradient(shared, [angles[0].detach().requires_grad_(), *rest]), expected, equal, dtype)


def test_a_batch_is_its_circuits(level: str, dtype: torch.dtype, seeds: list[int]) -> None:
    """Values and gradients of each sample; those of what samples share are sums."""
    for circuit in circuits(seeds, "batch", 4, batches=(1, 2, 17, 33)):
        (batch,) = {value.shape[0] for value in circuit.values if value.dim()} or {None}
        if batch is None:
            continue
        build, angles = circuit.build(expectations(circuit.num_wires)), circuit.angles(dtype)
        weights = torch.randn(batch, circuit.num_wires + 2, generator=torch.Generator().manual_seed(0)).to(dtype)
        results = torch.stack(run(build)(*angles), -1)
        found = torch.autograd.grad((results * weights).mean(), angles)
        values, derivatives = [], []
        for sample in range(batch):
            own = [(a[sample] if a.dim() else a).detach().requires_grad_() for a in angles]
            result = torch.stack(run(build)(*own))
            values.append(result.detach())
            derivatives.append(torch.autograd.grad((result * weights[sample]).mean() / batch, own))
        of_angles = [torch.stack(each).double() for each in zip(*derivatives, strict=True)]
        expected = [d if a.dim() else d.sum(0) for a, d in zip(angles, of_angles, strict=True)]
        assert_alike([results.detach(), *found], [torch.stack(values), *expected], circuit, dtype)


# --- derivatives by other means ---------------------------------------------------------------------------------------


def test_routes_of_derivatives_agree(level: str, dtype: torch.dtype, seeds: list[int]) -> None:
    """Backward, torch.func.jacrev and jvp; double backward and forward over reverse."""
    for circuit in circuits(seeds, "routes", 3):
        function, angles = run(circuit.build(expectations(circuit.num_wires))), circuit.angles(dtype)
        first, second = gradient(function, angles), product(function, angles)
        assert_alike(gradient_by_jacobian(function, angles), first, circuit, dtype)
        assert_alike(product_by_jvp(function, angles), second, circuit, dtype)
        results = [r.detach().requires_grad_() for r in function(*angles)]
        cotangents = torch.autograd.grad(mean(results), results)
        moved = sum((c * t).double().sum() for c, t in zip(cotangents, tangents(function, angles), strict=True))
        along = sum((g * v).double().sum() for g, v in zip(first, tangents_of(angles), strict=True))
        assert_alike([torch.as_tensor(moved).detach()], [torch.as_tensor(along)], circuit, dtype)


def test_hessians_are_symmetric(level: str, dtype: torch.dtype, seeds: list[int]) -> None:
    for circuit in circuits(seeds, "hessian", 2, batches=(None,)):
        function = run(circuit.build(expectations(circuit.num_wires)))
        few = circuit.angles(dtype)[:6]
        fixed = [value.to(dtype) for value in circuit.values[6:]]
        weights = torch.linspace(0.2, 1, circuit.num_wires + 2, dtype=dtype) / circuit.num_wires

        def loss(x: Tensor, fixed: Any = fixed, function: Any = function, weights: Tensor = weights) -> Tensor:
            value = (torch.stack(function(*x.unbind(), *fixed)) * weights).sum()
            return value + value**2

        hessian = torch.func.hessian(loss)(torch.stack(few).detach())
        assert_alike([hessian], [hessian.T], circuit, dtype)


SHIFTED = ("RX", "RY", "RZ", "PhaseShift", "IsingZZ", "IsingXX", "MultiRZ")


def test_parameter_shifts(level: str, seeds: list[int]) -> None:
    """(f(θ + π/2) − f(θ − π/2)) / 2: gradients by values alone.

    In double precision, and without huge angles, whose sum with π/2 is rounded.
    """
    for seed in seeds:
        for number in range(4):
            random = Random(f"shift {number} {seed}")
            drawing = Drawing(random, random.choice(SIZES), None, random.choice(["uniform", "near quarters", "equal"]))
            for wire in range(drawing.num_wires):
                drawing.add("RZ", [wire])
            drawing.anything()
            circuit = drawing.circuit(seed)
            build, angles = circuit.build(expectations(circuit.num_wires)), circuit.angles(torch.float64)
            results = torch.stack(run(build)(*angles))
            weights = torch.linspace(0.2, 1, len(results), dtype=torch.float64) / len(results)
            found = torch.autograd.grad((results * weights).sum(), angles)
            of_rotations = [gate.parameters[0] for gate in circuit.gates if gate.name in SHIFTED]
            for index in random.sample(of_rotations, min(4, len(of_rotations))):
                values = []
                for shift in (torch.pi / 2, -torch.pi / 2):
                    moved = [a.detach() + shift if i == index else a.detach() for i, a in enumerate(angles)]
                    values.append((torch.stack(run(build)(*moved)) * weights).sum())
                assert_alike([found[index]], [(values[0] - values[1]) / 2], circuit, torch.float64)
