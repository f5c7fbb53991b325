"""`AdjointProducts`: results and products with the Jacobian by the native adjoint method.

It has the methods of PennyLane's `JacobianProductCalculator` and takes tapes of ketgrad and PennyLane. `ExecuteTapes`
uses it, and saves the kets of its forward pass for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..autograd import derivative_rule, functions
from ..circuit.tape import Tape
from ..native import operators
from ..native.profiling import span
from . import jacobian_rows
from .batching import (
    Group,
    group_tapes,
    join_cotangents,
    split_gradients,
    split_results,
)
from .given_tapes import as_aligned_tapes, as_tapes
from .jacobian_rows import is_complex, shape_of
from .programs import build_program
from .results import Result
from .sampling import draw, exact_tapes

TapeResult = Any
"""A tensor, or a tuple of tensors, one per measurement."""

_SHOTS = (
    "the gradient of a tape with shots was asked for; the adjoint method differentiates exact results: "
    "leave the shots out (samples and counts have no gradient at all)"
)


class Run(NamedTuple):
    """What a forward pass saves for the backward pass.

    Attributes:
        tapes: the tapes, as ketgrad's.
        groups: the groups of the tapes without shots, with their inputs.
        kets: the final states of each group, (B, 2^n), or (B, 0) if they are not kept.
    """

    tapes: tuple[Tape, ...]
    groups: list[Group]
    kets: list[Tensor]


class AdjointProducts:
    """Executes tapes and computes products with their Jacobians by the native adjoint method.

    Args:
        dtype: torch.float32 or torch.float64, the precision to compute in; None (the default): that of the parameters.
        generator: of the random numbers for shots; None (the default): torch's default generator.
        recompute: whether the backward pass recomputes the final states (True) or `ExecuteTapes` keeps them for it
            (False); None (the default): they are kept if they take at most 64 MiB or a quarter of the free memory.
        ket_dtype: torch.complex64 keeps those of complex128 circuits in half the bytes; see `compile`.

    Raises:
        TypeError: the generator is no `torch.Generator`, or `recompute` is not True, False or None.
        ValueError: a dtype is another.

    Example:
        >>> import torch, ketgrad as kg
        >>> x = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
        >>> tape = kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))])
        >>> jpc = kg.AdjointProducts()
        >>> jpc.compute_jacobian([tape])
        (tensor(-0.4794, dtype=torch.float64),)
    """

    def __init__(
        self,
        dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
        recompute: bool | None = None,
        ket_dtype: torch.dtype | None = None,
    ) -> None:
        if dtype not in (None, torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32, torch.float64 or None, not {dtype}")
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator must be a torch.Generator or None, not {type(generator).__name__}")
        self.dtype = dtype
        self.generator = generator
        self._kets = derivative_rule.KetPolicy.of_options(recompute, ket_dtype)

    @property
    def recompute(self) -> bool | None:
        """The option of that name."""
        return self._kets.recompute

    @property
    def ket_dtype(self) -> torch.dtype | None:
        """The option of that name."""
        return self._kets.dtype

    def __repr__(self) -> str:
        return f"AdjointProducts(dtype={self.dtype})"

    # --- the forward pass -------------------------------------------------------------------------------------------

    @torch.no_grad()
    def execute(self, tapes: Sequence[Any]) -> tuple[TapeResult, ...]:
        """The results of the tapes, without gradients.

        Args:
            tapes: of ketgrad or PennyLane.

        Returns:
            For each tape its result, or a tuple of results if it has several measurements; with a leading batch axis if
            the tape has one.

        Raises:
            TypeError: `tapes` is no sequence of tapes.
            ValueError: devices or precisions are mixed.
            MemoryError: a state does not fit.
        """
        return self.run(as_tapes(tapes), lambda group: False)[0]

    def run(
        self, tapes: tuple[Tape, ...], needs_ket: Callable[[Group], bool], share_trainable: bool = False
    ) -> tuple[tuple[TapeResult, ...], Run]:
        """Results, and what the backward pass needs, with kets of the groups for which `needs_ket(group)` is true.

        With `share_trainable`, the gradient of a tensor that several tapes have may be returned as a sum, for one of
        them: right if autograd accumulates it anyway, wrong for gradients per tape.
        """
        results: list[TapeResult] = [None] * len(tapes)
        exact = [position for position, tape in enumerate(tapes) if tape.shots is None]
        with span("pack"):
            groups = group_tapes([tapes[i] for i in exact], self.dtype, share_trainable)
        kets = []
        for group in groups:
            operators.refuse_transforms(group.inputs)
            operators.require_kernels(group.inputs[0].device)
            real, complex_, ket = derivative_rule.forward(
                group.binding.id, group.inputs, group.ket_bytes, self._kets, needs_ket(group)
            )
            kets.append(ket)
            with span("unpack"):
                for position, found in zip(group.positions, split_results(group, real, complex_), strict=True):
                    results[exact[position]] = found if len(found) > 1 else found[0]
        self._sample(tapes, results)
        if len(exact) < len(tapes):
            groups = [group._replace(positions=tuple(exact[i] for i in group.positions)) for group in groups]
        return tuple(results), Run(tapes, groups, kets)

    def run_transformed(self, tapes: tuple[Tape, ...]) -> tuple[TapeResult, ...]:
        """Results by operations that torch.func transforms and forward-mode differentiation support.

        Raises:
            NotImplementedError: a tape with shots.
        """
        if any(tape.shots is not None for tape in tapes):
            raise NotImplementedError("tapes with shots do not run under torch.func transforms; leave the shots out")
        results: list[TapeResult] = [None] * len(tapes)
        for group in group_tapes(tapes, self.dtype, share_trainable=True):
            operators.require_kernels(group.inputs[0].device)
            keep = self._kets.keep(group.ket_bytes, group.inputs[0])
            real, complex_ = functions.execute_program(group.binding.id, group.inputs, keep)
            for position, found in zip(group.positions, split_results(group, real, complex_, True), strict=True):
                results[position] = found if len(found) > 1 else found[0]
        return tuple(results)

    def pack_again(self, tapes: tuple[Tape, ...], groups: list[Group]) -> list[Group]:
        """The groups of a run with inputs packed again under autograd, as functions of the tapes' parameters.

        Raises:
            RuntimeError: a parameter was changed in place since the run.
        """
        again = []
        for group in groups:
            (packed,) = group_tapes([tapes[i] for i in group.positions], self.dtype, share_trainable=True)
            if not all(map(torch.equal, packed.inputs, group.inputs)):
                raise RuntimeError(
                    "a parameter of a circuit was modified by an inplace operation after the circuit was executed, "
                    "and its gradient is differentiated"
                )
            again.append(group._replace(inputs=packed.inputs))
        return again

    def _sample(self, tapes: tuple[Tape, ...], results: list[TapeResult]) -> None:
        """Fill in the results of the tapes with shots."""
        sampled = [position for position, tape in enumerate(tapes) if tape.shots is not None]
        if not sampled:
            return
        exact = [exact_tapes(tapes[position]) for position in sampled]
        found, _ = self.run(tuple(chain.from_iterable(exact)), lambda group: False)
        probabilities = iter(found)
        for position, of_tape in zip(sampled, exact, strict=True):
            results[position] = draw(tapes[position], [next(probabilities) for _ in of_tape], self.generator)

    # --- products with the Jacobian ---------------------------------------------------------------------------------

    def vjp(
        self, run: Run, cotangents: Sequence[Sequence[Tensor | None]], needed: Sequence[bool]
    ) -> list[Tensor | None]:
        """Gradients of the trainable parameters of a run, tape after tape.

        Args:
            run: of the forward pass.
            cotangents: for each tape one per measurement, in torch's convention; None if the result was not used.
            needed: for each trainable parameter, tape after tape, whether its gradient is needed.

        Returns:
            One gradient per trainable parameter; None if it is not needed, or no result with a cotangent depends on it.

        Raises:
            RuntimeError: a tape with shots has cotangents.
        """
        firsts = _first_parameters(run.tapes)
        found: list[Tensor | None] = [None] * len(needed)
        for position, tape in enumerate(run.tapes):
            if tape.shots is not None and any(c is not None for c in cotangents[position]):
                raise RuntimeError(_SHOTS)
        for group, ket in zip(run.groups, run.kets, strict=True):
            needed_inputs = _needed_inputs(group, run.tapes, firsts, needed)
            if not any(needed_inputs):
                continue
            with span("pack"):
                joined = join_cotangents(group, [cotangents[i] for i in group.positions])
            if joined is None:
                continue
            gradients = derivative_rule.gradients(group.binding.id, group.inputs, ket, joined, needed_inputs)
            with span("unpack"):
                for position, of_tape in zip(group.positions, split_gradients(group, gradients), strict=True):
                    indices, first = run.tapes[position].trainable_params, firsts[position]
                    found[first : first + len(indices)] = map(of_tape.get, indices)
        if not all(needed):
            return [gradient if is_needed else None for gradient, is_needed in zip(found, needed, strict=True)]
        return found

    @torch.no_grad()
    def compute_vjp(self, tapes: Sequence[Any], dy: Sequence[Any]) -> tuple[Any, ...]:
        """The product of cotangents with the Jacobians.

        Args:
            tapes: of ketgrad or PennyLane.
            dy: for each tape the cotangent of its result, nested as the results are; complex ones in PennyLane's
                convention, ∂L/∂Re z − i ∂L/∂Im z. Cotangents may have an additional leading axis, for several products
                with the same Jacobian in one native batch.

        Returns:
            For each tape the gradients of its trainable parameters: one tensor (P,) if all are scalars, otherwise a
            tuple of tensors in the shapes of the parameters. An additional axis of the cotangents comes first.

        Raises:
            ValueError: cotangents do not match the results.
            RuntimeError: a tape has shots.
        """
        converted = as_aligned_tapes(tapes)
        if len(dy) != len(converted):
            raise ValueError(f"cotangents of {len(dy)} tapes for {len(converted)} tapes")
        cotangents = [
            _cotangents(d, tape, position) for position, (d, tape) in enumerate(zip(dy, converted, strict=True))
        ]
        copies = [_copies(of_tape, tape) for of_tape, tape in zip(cotangents, converted, strict=True)]
        if any(count is not None for count in copies):
            return tuple([self._vjp_of_one(*each) for each in zip(converted, cotangents, copies, strict=True)])
        _, run = self.run(converted, lambda group: True)
        count = sum(len(tape.trainable_params) for tape in converted)
        flat = iter(self.vjp(run, cotangents, [True] * count))
        carriers = {position: group.inputs[0] for group in run.groups for position in group.positions}
        found: list[Any] = []
        for position, tape in enumerate(converted):
            carrier = carriers.get(position, torch.empty(0, dtype=torch.float64))
            gradients = [_or_zero(next(flat), tape, index, carrier) for index in tape.trainable_params]
            if all(g.dim() == 0 for g in gradients):
                found.append(torch.stack(gradients) if gradients else carrier.new_zeros(0))
            else:
                found.append(tuple(gradients))
        return tuple(found)

    @torch.no_grad()
    def compute_jacobian(self, tapes: Sequence[Any]) -> tuple[Any, ...]:
        """The Jacobians of the tapes, with all bras of a tape in one native call.

        Args:
            tapes: of ketgrad or PennyLane.

        Returns:
            For each tape the derivative of each result by each trainable parameter, of shape result.shape +
            parameter.shape: if there are several parameters a tuple over them, and if there are several measurements a
            tuple over these. For a complex parameter it is torch's gradient of each element of the result.

        Raises:
            RuntimeError: a tape has shots.
            NotImplementedError: a complex result depends on complex parameters.
            MemoryError: the rows, one for each number of a circuit's results, do not fit.
        """
        return self.execute_and_compute_jacobian(tapes)[1]

    @torch.no_grad()
    def execute_and_compute_jacobian(self, tapes: Sequence[Any]) -> tuple[tuple[TapeResult, ...], tuple[Any, ...]]:
        """The results of `execute` and the Jacobians of `compute_jacobian`, from one forward pass.

        Args:
            tapes: of ketgrad or PennyLane.

        Raises:
            RuntimeError: a tape has shots.
            NotImplementedError: a complex result depends on complex parameters.
            MemoryError: the rows, one for each number of a circuit's results, do not fit.
        """
        rows = [self._jacobian_rows(tape) for tape in as_aligned_tapes(tapes)]
        results = tuple([_results_of(of_tape) for of_tape in rows])
        return results, tuple([_nest([_nest(derivatives) for derivatives, _ in of_tape]) for of_tape in rows])

    @torch.no_grad()
    def execute_and_compute_jvp(
        self, tapes: Sequence[Any], tangents: Sequence[Sequence[Any]]
    ) -> tuple[tuple[TapeResult, ...], tuple[Any, ...]]:
        """The results and the product of the Jacobians with tangents.

        Args:
            tapes: of ketgrad or PennyLane.
            tangents: for each tape one per trainable parameter, in its shape.

        Returns:
            The results, and the products with the nesting and shapes of the results.

        Raises:
            RuntimeError: a tape has shots.
            ValueError: tangents differ from the trainable parameters in number or in shape.
            NotImplementedError: a complex result depends on complex parameters.
            MemoryError: the rows, one for each number of a circuit's results, do not fit.
        """
        converted = as_aligned_tapes(tapes)
        if len(tangents) != len(converted):
            raise ValueError(f"tangents of {len(tangents)} tapes for {len(converted)} tapes")
        for tape, of_tape in zip(converted, tangents, strict=True):
            _require_tangents(of_tape, tape)
        rows = [self._jacobian_rows(tape) for tape in converted]
        products = []
        for of_tape, directions in zip(rows, tangents, strict=True):
            products.append(
                _nest([jacobian_rows.along(derivatives, directions, like) for derivatives, like in of_tape])
            )
        return tuple([_results_of(of_tape) for of_tape in rows]), tuple(products)

    def _vjp_of_one(self, tape: Tape, cotangents: list[Tensor | None], copies: int | None) -> Any:
        """The gradients of one tape as `compute_vjp` returns them, for `copies` cotangents of each result."""
        _, run = self.run((tape,), lambda group: True)
        rows = _copied(cotangents, tape, copies)
        found = jacobian_rows.gradient_rows(tape, run.groups[0], run.kets[0], rows, copies or 1)
        gradients = [row if copies is not None else row.squeeze(0) for row in found]
        are_scalars = all(shape_of(tape, index) == () for index in tape.trainable_params)
        return torch.stack(gradients, -1) if are_scalars and gradients else tuple(gradients)

    def _jacobian_rows(self, tape: Tape) -> list[tuple[list[Tensor], Tensor]]:
        """For each measurement the derivatives by each trainable parameter, and its result."""
        if tape.shots is not None:
            raise RuntimeError(_SHOTS)
        result, run = self.run((tape,), lambda group: True)
        results = list(result[0]) if len(tape.measurements) > 1 else [result[0]]
        if any(r.is_complex() for r in results) and any(is_complex(p) for p in tape.get_parameters()):
            raise NotImplementedError(
                "the Jacobian of a complex result by a complex parameter is no single complex number: a state depends "
                "on the real and the imaginary part of a matrix independently; measure real results, or use compute_vjp"
            )
        derivatives = jacobian_rows.jacobians(tape, run.groups[0], run.kets[0])
        return list(zip(derivatives, results, strict=True))


# --- helpers ----------------------------------------------------------------------------------------------------------


def _first_parameters(tapes: Sequence[Tape]) -> list[int]:
    """The position of each tape's first trainable parameter among those of all tapes."""
    firsts, total = [], 0
    for tape in tapes:
        firsts.append(total)
        total += len(tape.trainable_params)
    return firsts


def _needed_inputs(group: Group, tapes: Sequence[Tape], firsts: Sequence[int], needed: Sequence[bool]) -> list[bool]:
    """For each input of a group, whether it has a parameter whose gradient is needed."""
    if all(needed):
        indices = set(group.tapes[0].trainable_params)  # equal for all tapes of the group
    else:
        indices = {
            index
            for position in group.positions
            for offset, index in enumerate(tapes[position].trainable_params)
            if needed[firsts[position] + offset]
        }
    return [bound.trainable and not indices.isdisjoint(bound.parameters) for bound in group.binding.inputs]


def _cotangents(value: Any, tape: Tape, position: int) -> list[Tensor | None]:
    """A tape's cotangents in torch's convention, one per measurement, from PennyLane's, nested like the results."""
    count = len(tape.measurements)
    single = count == 1 and not (isinstance(value, (tuple, list)) and len(value) == 1)
    items = [value] if single else list(value)
    if len(items) != count:
        raise ValueError(f"{len(items)} cotangents for the {count} measurements of tape {position}")
    if tape.shots is not None:
        return items
    device = next((p.device for p in tape.parameters if isinstance(p, Tensor)), None)
    found: list[Tensor | None] = []
    for result, item in zip(build_program(tape).result_layout.results, items, strict=True):
        cotangent = None if item is None else _as_double(item, device).conj().resolve_conj()
        if cotangent is not None:
            _require_cotangent(cotangent, result, tape, position)
        found.append(cotangent)
    return found


def _as_double(value: Any, device: torch.device | None) -> Tensor:
    """A tensor as it is; numbers in float64, whatever torch's default dtype."""
    return torch.as_tensor(value if isinstance(value, Tensor) else np.asarray(value), device=device)


def _require_cotangent(cotangent: Tensor, result: Result, tape: Tape, position: int) -> None:
    shape = result.batched_shape(tape.batch_size)
    what = f"a cotangent of tape {position}, of its {result.kind},"
    # Axes of length 1 are ignored: a scalar may come as an array of one element.
    fits = [n for n in cotangent.shape if n != 1] == [n for n in shape if n != 1]
    if not fits and cotangent.shape[1:] != shape:
        raise ValueError(f"{what} has shape {tuple(cotangent.shape)}, the result has {shape}")
    if cotangent.is_complex() and not result.is_complex:
        raise ValueError(f"{what} is complex, the result is real")


def _copies(cotangents: Sequence[Tensor | None], tape: Tape) -> int | None:
    """The length of the cotangents' additional axis; None if they have none."""
    if tape.shots is not None:
        return None
    counts = set()
    for cotangent, result in zip(cotangents, build_program(tape).result_layout.results, strict=True):
        if cotangent is not None:
            shape = result.batched_shape(tape.batch_size)
            has_axis = cotangent.dim() == len(shape) + 1 and cotangent.shape[1:] == shape
            counts.add(cotangent.shape[0] if has_axis else None)
    if len(counts) > 1:
        raise ValueError(f"the cotangents of a tape have different numbers of products, {counts}; they must agree")
    return counts.pop() if counts else None


def _copied(cotangents: Sequence[Tensor | None], tape: Tape, copies: int | None) -> list[Tensor | None]:
    """Cotangents with a leading axis of copies."""
    return [c if c is None or copies is not None else c[None] for c in cotangents]


def _require_tangents(tangents: Sequence[Any], tape: Tape) -> None:
    if len(tangents) != len(tape.trainable_params):
        raise ValueError(f"{len(tangents)} tangents for {len(tape.trainable_params)} trainable parameters")
    for tangent, index in zip(tangents, tape.trainable_params, strict=True):
        found, shape = tuple(torch.as_tensor(tangent).shape), shape_of(tape, index)
        if found != shape:
            raise ValueError(f"a tangent has shape {found}, parameter {index} has {shape}")


def _or_zero(gradient: Tensor | None, tape: Tape, index: int, carrier: Tensor) -> Tensor:
    """A gradient, or zeros in the parameter's shape; for a number with the carrier's dtype and device."""
    if gradient is not None:
        return gradient
    value = tape.parameters[index]
    return torch.zeros_like(value) if isinstance(value, Tensor) else carrier.new_zeros(shape_of(tape, index))


def _nest(items: list[Any]) -> Any:
    return items[0] if len(items) == 1 else tuple(items)


def _results_of(rows: list[tuple[list[Tensor], Tensor]]) -> TapeResult:
    """A tape's results, from the output of `_jacobian_rows`."""
    return _nest([result for _, result in rows])
