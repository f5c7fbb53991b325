"""Execution of PennyLane's scripts: exact results with torch gradients, shots, and mid-circuit measurements.

A mid-circuit measurement makes a branch for each outcome that occurs among the shots, with the projected and normalised
state. So the cost depends on the number of different histories of outcomes, and hardly on the number of shots.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple

import numpy as np
import pennylane as qml
import torch
from pennylane import measurements as mp
from pennylane.ops.mid_measure import MidMeasure
from pennylane.ops.op_math import Conditional
from pennylane.tape import QuantumScript
from torch import Tensor

from ...circuit.tape import Tape
from ...execution.execute_tapes import ExecuteTapes
from ...execution.jacobian_products import AdjointProducts
from ...execution.sampling import draw, exact_tapes
from .conversion import build_tape
from .preprocessing import is_collapse, native_measurements, runnable_gates


class Executor:
    """Executes scripts; results are torch tensors, nested as PennyLane nests them.

    Args:
        dtype: torch.float32 or torch.float64, the precision to compute in; None: that of the parameters.
        generator: of the random numbers for shots.
        postselect_mode: "fill-shots" keeps the number of shots when a state is projected; otherwise the remaining
            number is sampled.
    """

    def __init__(
        self, dtype: torch.dtype | None, generator: torch.Generator, postselect_mode: str | None = None
    ) -> None:
        self.dtype = dtype
        self.generator = generator
        self.fill_shots = postselect_mode == "fill-shots"

    def run(self, scripts: Sequence[QuantumScript]) -> tuple[Any, ...]:
        """The results of scripts; differentiable by torch if they are exact."""
        kinds = [_kind(script) for script in scripts]
        results: list[Any] = [None] * len(scripts)
        for kind in dict.fromkeys(kinds):  # in order, so that samples are reproducible with a seed
            positions = [i for i, each in enumerate(kinds) if each is kind]
            found = kind(self, [scripts[i] for i in positions])
            for i, result in zip(positions, found, strict=True):
                results[i] = result
        return tuple(results)

    def exact(self, scripts: Sequence[QuantumScript]) -> Sequence[Any]:
        """Results without shots."""
        tapes = tuple([build_tape(script, None, None) for script in scripts])
        jpc = AdjointProducts(real_dtype(scripts, self.dtype))
        parameters = [parameter for tape in tapes for parameter in tape.get_parameters()]
        return ExecuteTapes.apply({"tapes": tapes, "execute_fn": jpc.execute, "jpc": jpc}, *parameters)  # type: ignore[no-any-return]

    def nothing(self, scripts: Sequence[QuantumScript]) -> Sequence[Any]:
        """Results of scripts that measure nothing."""
        return [()] * len(scripts)

    # --- shots ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def sampled(self, scripts: Sequence[QuantumScript]) -> list[Any]:
        """Results with shots; for a shot vector, a tuple over its entries."""
        # The number of shots does not matter here: `_draw` replaces it.
        tapes = [build_tape(script, 1, ()) for script in scripts]
        exact = [exact_tapes(tape) for tape in tapes]
        jpc = AdjointProducts(real_dtype(scripts, self.dtype))
        found = iter(jpc.execute([each for of_tape in exact for each in of_tape]))
        results = []
        for script, tape, of_tape in zip(scripts, tapes, exact, strict=True):
            probabilities = [next(found) for _ in of_tape]
            bins = [result for each in script.shots.shot_vector for result in self._draw(tape, probabilities, *each)]
            results.append(tuple(bins) if script.shots.has_partitioned_shots else bins[0])
        return results

    def _draw(self, tape: Tape, probabilities: Sequence[Tensor], shots: int, copies: int) -> list[Any]:
        """The results of `shots` shots, `copies` times."""
        with_shots = Tape(tape.operations, tape.measurements, shots, ())
        if copies == 1 or tape.batch_size is not None:
            return [draw(with_shots, probabilities, self.generator) for _ in range(copies)]
        drawn = draw(with_shots, probabilities, self.generator, copies)
        several = len(tape.measurements) > 1
        rows = zip(*drawn, strict=True) if several else iter(drawn)
        return list(rows)

    # --- mid-circuit measurements ---------------------------------------------------------------------------------

    def postselected(self, scripts: Sequence[QuantumScript]) -> list[Any]:
        """Results of circuits with postselection."""
        return [self._with_dtype_of(script)._postselected(script) for script in scripts]

    def _postselected(self, script: QuantumScript) -> Any:
        branch, shots = _Branch(None, [], {}, None), list(script.shots)
        for op in script.operations:
            if not is_collapse(op):
                branch.gates.append(op)
                continue
            (state,) = self._states([branch], script.wires)
            state, probability = _projected(state, op.wires, op.data[0], script.wires)
            if shots and self.fill_shots and not float(probability) > 0:
                outcome = dict(zip(op.wires, [int(bit) for bit in op.data[0]], strict=True))
                raise ValueError(
                    f"the postselected outcome {outcome} has probability 0, so that postselect_mode='fill-shots' has "
                    "nothing to fill shots with; postselect another outcome, or use postselect_mode='hw-like'"
                )
            branch = _Branch(state, [], {}, None)
            if shots and not self.fill_shots:
                shots = [int(self._uniform(each).lt(float(probability)).sum()) for each in shots]
        operations = branch.operations(script.wires)
        if not script.shots:
            return self.exact([script.copy(operations=operations)])[0]
        found = iter(self.sampled([script.copy(operations=operations, shots=each) for each in shots if each]))
        bins = [next(found) if each else _without_shots(script) for each in shots]
        return tuple(bins) if script.shots.has_partitioned_shots else bins[0]

    @torch.no_grad()
    def single_shots(self, scripts: Sequence[QuantumScript]) -> list[Any]:
        """Results of circuits with mid-circuit measurements, as NumPy arrays, one shot each."""
        return [self._with_dtype_of(script)._single_shots(script) for script in scripts]

    def _single_shots(self, script: QuantumScript) -> Any:
        branches = [_Branch(None, [], {}, np.arange(script.shots.total_shots))]
        for op in script.operations:
            if isinstance(op, MidMeasure):
                branches = self._measured(branches, op, script.wires)
            elif is_collapse(op):
                states = self._states(branches, script.wires)
                after = [_projected(state, op.wires, op.data[0], script.wires)[0] for state in states]
                branches = [b._replace(state=state, gates=[]) for b, state in zip(branches, after, strict=True)]
            else:
                for branch in branches:
                    branch.gates.extend(branch.chosen(op) if isinstance(op, Conditional) else [op])
        results: list[Any] = [None] * script.shots.total_shots
        for branch, of_shots in zip(branches, self._leaves(branches, script), strict=True):
            for shot, measured in zip(branch.shots, of_shots, strict=True):
                results[shot] = branch.result(script, measured)
        return tuple(results) if script.shots.has_partitioned_shots else results[0]

    def _measured(self, branches: Sequence[_Branch], op: Any, wires: Any) -> list[_Branch]:
        """The branches after a measurement: one or two of each, for the outcomes of its shots."""
        found = []
        for branch, state in zip(branches, self._states(branches, wires), strict=True):
            ones, probability = _projected(state, op.wires, [1], wires)
            is_one = self._uniform(len(branch.shots)).lt(float(probability)).numpy()
            for outcome in (0, 1):
                shots = branch.shots[is_one == outcome]
                if len(shots):
                    after = ones if outcome else _projected(state, op.wires, [0], wires)[0]
                    gates = [qml.X(op.wires)] if outcome and op.reset else []
                    found.append(_Branch(after, gates, {**branch.outcomes, op: outcome}, shots))
        return found

    def _leaves(self, branches: Sequence[_Branch], script: QuantumScript) -> Sequence[Any]:
        """For each branch and each of its shots, the tuple of results of the final measurements."""
        measurements = [m for m in script.measurements if m.mv is None]
        if not measurements:
            return [[()] * len(branch.shots) for branch in branches]
        leaves = [
            QuantumScript(branch.operations(script.wires), measurements, shots=[1] * len(branch.shots))
            for branch in branches
        ]
        scripts, finish = native_measurements(leaves, draw_seed=self.draw_seed)
        found = as_numpy(finish(as_numpy(self.run(scripts))))
        bins = [r if leaf.shots.has_partitioned_shots else (r,) for r, leaf in zip(found, leaves, strict=True)]
        return bins if len(measurements) > 1 else [[(each,) for each in of_branch] for of_branch in bins]

    def _states(self, branches: Sequence[_Branch], wires: Any) -> Sequence[Tensor]:
        measurement = mp.StateMP(wires=wires)
        return self.exact([QuantumScript(branch.operations(wires), [measurement]) for branch in branches])

    def _with_dtype_of(self, script: QuantumScript) -> Executor:
        """The executor with the script's precision, for all parts of the script."""
        found = copy(self)
        if self.dtype is None:
            found.dtype = torch.float32 if _precisions(script) == {torch.float32} else torch.float64
        return found

    def draw_seed(self) -> int:
        """A seed for NumPy's generators, drawn from this executor's generator."""
        return int(torch.randint(2**63 - 1, (), generator=self.generator))

    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator, dtype=torch.float64)


class _Branch(NamedTuple):
    """The shots with one history of outcomes.

    Attributes:
        state: the state after the last outcome, `(2^n,)`; None: the initial one.
        gates: the gates since then.
        outcomes: the outcomes of the measurements so far.
        shots: the indices of the shots.
    """

    state: Tensor | None
    gates: list[Any]
    outcomes: dict[Any, int]
    shots: Any

    def operations(self, wires: Any) -> list[Any]:
        """The operations that prepare the branch's present state."""
        if self.state is None:
            return self.gates
        return [qml.StatePrep(self.state, wires=wires, validate_norm=False), *self.gates]

    def chosen(self, op: Any) -> list[Any]:
        """The gates of a conditional operation in the branch."""
        return runnable_gates([op.base]) if op.meas_val.concretize(self.outcomes) else []

    def result(self, script: QuantumScript, measured: Sequence[Any]) -> Any:
        """A shot's result, from the results of its final measurements."""
        rest = iter(measured)
        found = [
            next(rest) if m.mv is None else np.array([m.mv.concretize(self.outcomes)]) for m in script.measurements
        ]
        return tuple(found) if len(found) > 1 else found[0]


def _kind(script: QuantumScript) -> Callable[[Executor, Sequence[QuantumScript]], Sequence[Any]]:
    """The method that executes a script."""
    if any(isinstance(op, MidMeasure) for op in script.operations):
        return Executor.single_shots
    if not script.measurements:
        return Executor.nothing
    if any(map(is_collapse, script.operations)):
        return Executor.postselected
    return Executor.sampled if script.shots else Executor.exact


def _projected(state: Tensor, measured: Any, bits: Sequence[Any], wires: Any) -> tuple[Tensor, Tensor]:
    """A state `(2^n,)` projected on bits of some wires and normalised, and their probability."""
    kept = torch.zeros([2] * len(wires), dtype=torch.bool, device=state.device)
    outcome = dict(zip(measured, bits, strict=True))
    kept[tuple([int(outcome[wire]) if wire in outcome else slice(None) for wire in wires])] = True
    projected = state * kept.reshape(-1)
    probability = (projected.abs() ** 2).sum()
    return projected / probability.sqrt(), probability


def _without_shots(script: QuantumScript) -> Any:
    """The result of a script if no shot is left after postselection."""
    found = [_of_no_shots(measurement) for measurement in script.measurements]
    return found[0] if len(found) == 1 else tuple(found)


def _of_no_shots(measurement: Any) -> Any:
    if isinstance(measurement, mp.CountsMP):
        return {}
    if isinstance(measurement, mp.SampleMP):
        return torch.empty((0,) if measurement.obs is not None else (0, len(measurement.wires)), dtype=torch.int64)
    return torch.full(measurement.shape(shots=1), torch.nan, dtype=torch.float64)


# ---------------------------------------------------------------------------------------------------------------------
# Numbers


def real_dtype(scripts: Sequence[QuantumScript], dtype: torch.dtype | None) -> torch.dtype | None:
    """The precision to compute in: `dtype` if given, float64 if a script mixes precisions, else None: that of each."""
    if dtype is None and any(len(_precisions(script)) > 1 for script in scripts):
        return torch.float64
    return dtype


def _precisions(script: QuantumScript) -> set[torch.dtype]:
    """The precisions of torch tensors among the parameters; half precision counts as single."""
    parameters = script.get_parameters(trainable_only=False)
    tensors = [p for p in parameters if isinstance(p, Tensor) and (p.is_floating_point() or p.is_complex())]
    return {torch.float64 if p.dtype in (torch.float64, torch.complex128) else torch.float32 for p in tensors}


def as_arrays(result: Any) -> Any:
    """A result with torch tensors replaced by NumPy arrays."""
    if isinstance(result, Tensor):
        return result.detach().cpu().resolve_conj().numpy()
    if isinstance(result, (tuple, list)):
        return type(result)([as_arrays(each) for each in result])
    return result


def as_numpy(result: Any) -> Any:
    """A result with torch tensors replaced by NumPy arrays, or NumPy scalars if they have no axes."""
    if isinstance(result, (tuple, list)):
        return type(result)([as_numpy(each) for each in result])
    return as_arrays(result)[()] if isinstance(result, Tensor) else result
