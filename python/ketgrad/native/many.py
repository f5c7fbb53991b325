"""Several programs in one call, without autograd: one operator on the CPU, elsewhere a call for each program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import operators
from .library import _C
from .profiling import is_profiling
from .torch_private import BelowAutograd

_execute = torch.ops.ketgrad.execute_many.default
_execute_vjp = torch.ops.ketgrad.execute_vjp_many.default
_execute_and_vjp = torch.ops.ketgrad.execute_and_vjp_many.default


class Programs(NamedTuple):
    """Programs that are called together.

    Attributes:
        ids: of the programs.
        places: for each input of each program, program after program, which of the inputs of all it is.
        sizes: for each program the number of its inputs, of its real results (R) and of its complex results (C).
    """

    ids: tuple[int, ...]
    places: tuple[int, ...]
    sizes: tuple[tuple[int, int, int], ...]


def run_execute_many(
    programs: Programs, inputs: Sequence[Tensor], keep_ket: operators.KeepKet
) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
    """Run a batch of circuits of each program.

    Args:
        programs: the programs.
        inputs: what they read, on one device and in one precision; the first is real. Otherwise as in `run_execute`.
        keep_ket: what to return of the final states.

    Returns:
        Real results (N,) and complex results (M,), those of `run_execute` program after program, and the kets as
        `run_execute_vjp_many` takes them.

    Raises:
        ValueError, MemoryError, IndexError: as in `run_execute`; a ValueError names the program by its position.
    """
    if _has_operators(inputs):
        real, complex_, ket = _native(_execute, programs, inputs, keep_ket)
        return real, complex_, (ket,)
    found = [operators.run_execute(each.id, each.inputs, keep_ket) for each in _calls(programs, inputs)]
    real, complex_ = (torch.cat([each[side].reshape(-1) for each in found]) for side in (0, 1))
    return real, complex_, tuple([ket for _, _, ket in found])


def run_execute_vjp_many(
    programs: Programs,
    inputs: Sequence[Tensor],
    kets: Sequence[Tensor],
    cotangents: tuple[Tensor, Tensor],
    chosen: Sequence[int],
    requested: Sequence[int],
) -> list[Tensor]:
    """Gradients of a real loss of the results of several programs, by the adjoint method.

    Args:
        programs, inputs: as in `run_execute_many`.
        kets: those of `run_execute_many`, not modified.
        cotangents: (N,) of the real results and (M,) of the complex results.
        chosen: the positions of the programs whose results the loss depends on; the others do not run.
        requested: the inputs whose gradients are computed.

    Returns:
        The gradients of the requested inputs, each in its input's shape: the sum of those that `run_execute_vjp`
        returns, in the order of the programs.

    Raises:
        ValueError, MemoryError, IndexError: as in `run_execute_many`.
    """
    if _has_operators(inputs):
        (ket,) = kets
        return _native(_execute_vjp, programs, inputs, ket, *cotangents, chosen, requested)  # type: ignore[no-any-return]
    return vjp_one_by_one(programs, inputs, kets, cotangents, chosen, requested)


def vjp_one_by_one(
    programs: Programs,
    inputs: Sequence[Tensor],
    kets: Sequence[Tensor] | None,
    cotangents: tuple[Tensor, Tensor],
    chosen: Sequence[int],
    requested: Sequence[int],
    vjp: Callable[..., Sequence[Tensor]] = operators.run_execute_vjp,
) -> list[Tensor]:
    """`run_execute_vjp_many` by a call of `vjp` for each program.

    Args:
        programs, inputs, cotangents, chosen, requested: as there.
        kets: one for each program; None: they are recomputed.
        vjp: with the arguments of `run_execute_vjp`.
    """
    calls = list(_calls(programs, inputs))

    def run(position: int, requested: list[int]) -> Sequence[Tensor]:
        each = calls[position]
        g_real, g_complex = each.rows(cotangents)
        ket = g_complex.new_empty((each.shapes[0][0], 0)) if kets is None else kets[position]
        return vjp(each.id, each.inputs, ket, g_real, g_complex, requested)

    return _sums(calls, chosen, inputs, requested, run)


def run_execute_and_vjp_many(
    programs: Programs, inputs: Sequence[Tensor], cotangents: tuple[Tensor, Tensor], requested: Sequence[int]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Results and gradients in one call, of a loss that is linear in the results.

    Args:
        programs, inputs, cotangents, requested: as in `run_execute_vjp_many`.

    Returns:
        Real results (N,), complex results (M,), and what `run_execute_vjp_many` returns.

    Raises:
        ValueError, MemoryError, IndexError: as in `run_execute_many`.
    """
    if _has_operators(inputs):
        return _native(_execute_and_vjp, programs, inputs, *cotangents, requested)  # type: ignore[no-any-return]
    calls = list(_calls(programs, inputs))
    found = []

    def run(position: int, requested: list[int]) -> list[Tensor]:
        each = calls[position]
        real, complex_, gradients = operators.run_execute_and_vjp(
            each.id, each.inputs, *each.rows(cotangents), 0.0, requested
        )
        found.append((real.reshape(-1), complex_.reshape(-1)))
        return gradients

    gradients = _sums(calls, range(len(calls)), inputs, requested, run)
    real, complex_ = map(torch.cat, zip(*found, strict=True))
    return real, complex_, gradients


def _has_operators(inputs: Sequence[Tensor]) -> bool:
    """Whether one operator calls all programs."""
    return inputs[0].is_cpu


def _native(operator: Any, programs: Programs, inputs: Sequence[Tensor], *others: Any) -> Any:
    """Call an operator below autograd."""
    if is_profiling():
        for each in _calls(programs, inputs):
            operators.plan_by_name(each.id, each.inputs)
    with BelowAutograd():
        return operator(programs.ids, inputs, programs.places, *others)


class _Call(NamedTuple):
    """The call of one program.

    Attributes:
        places: of its inputs among those of all.
        firsts: where its real results and its complex ones begin among those of all.
        shapes: of its real results (B, R) and of its complex ones (B, C).
    """

    id: int
    places: Sequence[int]
    inputs: list[Tensor]
    firsts: tuple[int, int]
    shapes: tuple[tuple[int, int], tuple[int, int]]

    def rows(self, numbers: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Its own of the real and the complex numbers of all."""
        parts = zip(numbers, self.firsts, self.shapes, strict=True)
        real, complex_ = (each[first : first + shape[0] * shape[1]].view(shape) for each, first, shape in parts)
        return real, complex_


def _calls(programs: Programs, inputs: Sequence[Tensor]) -> Iterator[_Call]:
    place = real = complex_ = 0
    for id_, (count, real_size, complex_size) in zip(programs.ids, programs.sizes, strict=True):
        places = programs.places[place : place + count]
        own = [inputs[each] for each in places]
        batch = operators.batch_size(_C.find_program(id_), own)
        yield _Call(id_, places, own, (real, complex_), ((batch, real_size), (batch, complex_size)))
        place, real, complex_ = place + count, real + batch * real_size, complex_ + batch * complex_size


def _sums(
    calls: Sequence[_Call],
    chosen: Sequence[int],
    inputs: Sequence[Tensor],
    requested: Sequence[int],
    run: Callable[[int, list[int]], Sequence[Tensor]],
) -> list[Tensor]:
    """The gradients of the requested inputs, of `run(position of a program, its requested inputs)`."""
    sums: dict[int, Tensor | None] = dict.fromkeys(requested)
    for position in chosen:
        places = calls[position].places
        own = [i for i, place in enumerate(places) if place in sums]
        for i, gradient in zip(own, run(position, own), strict=True):
            before = sums[places[i]]
            sums[places[i]] = gradient if before is None else before + gradient
    return [torch.zeros_like(inputs[place]) if found is None else found for place, found in sums.items()]
