"""Where the angles of random circuits come from.

Numerical faults sit at borders: a cosine that is zero or nearly so, a sine that is denormal, an argument of thousands
of turns. Angles drawn from one smooth distribution meet none of them, however many circuits there are. So every random
circuit draws from a mixture of ``KINDS``:

- ``uniform``: within two turns either way, the period of a spinor;
- ``quarters``: multiples of π/2, as near as a double comes, where sines and cosines of halves are 0, 1 or √½;
- ``near quarters``: the same and ±10⁻¹ … 10⁻¹², where cosines are small but not zero;
- ``near half turns``: odd multiples of π and ±10⁻¹ … 10⁻⁵, of which a handful multiply to less than 2⁻²⁴;
- ``zero``; ``tiny``: ±10⁻³ … 10⁻³⁰⁰, of which many are 0 in single precision and their squares in double;
- ``huge``: about 10⁶;
- ``powers of two``: ±2⁻⁶⁰ … 2²⁰, exact in either precision.

A circuit has one ``Angles``, which either mixes the kinds angle by angle, or keeps to one of them, or repeats one angle
for all gates: products of many small cosines need the former two, cancellations the latter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
import torch

_Shape = tuple[int, ...]


def _signs(generator: np.random.Generator, shape: _Shape) -> np.ndarray:
    return generator.choice([-1.0, 1.0], shape)


def _quarters(generator: np.random.Generator, shape: _Shape) -> np.ndarray:
    return generator.integers(-8, 9, shape) * (math.pi / 2)


KINDS: dict[str, Callable[[np.random.Generator, _Shape], np.ndarray]] = {
    "uniform": lambda generator, shape: generator.uniform(-4 * math.pi, 4 * math.pi, shape),
    "quarters": _quarters,
    "near quarters": lambda generator, shape: (
        _quarters(generator, shape) + _signs(generator, shape) * 10.0 ** -generator.integers(1, 13, shape)
    ),
    "near half turns": lambda generator, shape: (
        (2 * generator.integers(-2, 2, shape) + 1) * math.pi
        + _signs(generator, shape) * 10.0 ** -generator.uniform(1, 5, shape)
    ),
    "zero": lambda generator, shape: np.zeros(shape),
    "tiny": lambda generator, shape: (
        _signs(generator, shape) * 10.0 ** -generator.choice([3, 6, 9, 16, 30, 42, 100, 200, 300], shape)
    ),
    "huge": lambda generator, shape: _signs(generator, shape) * generator.uniform(0.5e6, 2e6, shape),
    "powers of two": lambda generator, shape: _signs(generator, shape) * 2.0 ** generator.integers(-60, 21, shape),
}

# How the angles of one circuit go together, and how often.
_MIXED = "mixed"
_EQUAL = "equal"
_WEIGHTS = {_MIXED: 6, _EQUAL: 2, "uniform": 4, "quarters": 1, "near quarters": 3, "near half turns": 2}
_WEIGHTS |= {"tiny": 1, "huge": 1, "powers of two": 1}
MIXTURES = tuple(_WEIGHTS)


def random_mixture(random: Random) -> str:
    return random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]


class Angles:
    """The angles of one circuit, drawn in double precision.

    Args:
        generator: of NumPy or torch; one number is taken from torch's.
        mixture: one of ``MIXTURES``, drawn where None.
        without: kinds that are left out. Finite differences with a step of 10⁻⁶ cannot have ``huge`` angles, whose
            neighbours are 10⁻¹⁰ apart.
    """

    def __init__(
        self,
        generator: np.random.Generator | torch.Generator,
        mixture: str | None = None,
        without: Sequence[str] = (),
    ) -> None:
        if isinstance(generator, torch.Generator):
            generator = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        self._generator = generator
        self._kinds = [kind for kind in KINDS if kind not in without]
        weights = {name: weight for name, weight in _WEIGHTS.items() if name not in without}
        drawn = generator.choice(list(weights), p=np.array(list(weights.values())) / sum(weights.values()))
        self.mixture = str(drawn) if mixture is None else mixture
        self._equal = float(self._mixed(()))

    def draw(self, *shape: int) -> torch.Tensor:
        """Angles of this shape, float64."""
        if self.mixture == _EQUAL:
            return torch.full(shape, self._equal, dtype=torch.float64)
        found = self._mixed(shape) if self.mixture == _MIXED else KINDS[self.mixture](self._generator, shape)
        return torch.from_numpy(np.asarray(found, np.float64))

    def _mixed(self, shape: _Shape) -> np.ndarray:
        candidates = np.stack([KINDS[kind](self._generator, shape) for kind in self._kinds])
        chosen = self._generator.integers(len(self._kinds), size=shape)
        return np.take_along_axis(candidates, chosen[None], 0)[0]


def draw(*shape: int, seed: int, mixture: str | None = None, without: Sequence[str] = ()) -> torch.Tensor:
    """Angles of this shape from a seed, float64."""
    return Angles(np.random.default_rng(seed), mixture, without).draw(*shape)
