"""Preprocessing of PennyLane's scripts: what is not native is decomposed, or computed from native measurements.

All of it is PennyLane transforms outside of what is differentiated natively: the interface (torch, autograd, JAX)
differentiates decompositions and the arithmetic on results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pennylane as qml
from pennylane import measurements as mp
from pennylane.allocation import Allocate, Deallocate
from pennylane.devices import preprocess
from pennylane.exceptions import DeviceError
from pennylane.operation import StatePrepBase
from pennylane.ops.mid_measure import MidMeasure
from pennylane.ops.op_math import CompositeOp, Conditional, Evolution, Exp, SProd
from pennylane.ops.qubit.observables import BasisStateProjector
from pennylane.tape import QuantumScript
from pennylane.transforms.core import CompilePipeline, transform
from torch import Tensor

from .conversion import COMMON_OPERATIONS, is_supported, is_supported_measurement

Batch = tuple[Sequence[QuantumScript], Callable[[Any], Any]]
"""What a transform returns: scripts, and a function from their results to that of the original script."""

DrawSeed = Callable[[], int]
"""Draws a seed from a device's generator."""


class Request(NamedTuple):
    """How a measurement is computed.

    Attributes:
        gates: the gates to append to the circuit.
        measurement: a measurement that ketgrad has.
        finish: (its result, with `is_exact` also the number of shots) → the result; None: the identity.
        is_exact: whether the exact result is needed although the script has shots.
    """

    gates: tuple[Any, ...]
    measurement: Any
    finish: Callable[..., Any] | None = None
    is_exact: bool = False


_NAMES = [*[getattr(qml, name).__name__ for name in COMMON_OPERATIONS], "MultiControlledX"]
_GATES = {form.format(name) for name in _NAMES for form in ("{}", "C({})", "Adjoint({})")}
"""The target gates of PennyLane's graph-based decomposition, which users may enable."""


def add_native_transforms(
    pipeline: CompilePipeline, name: str, wires: Any, mcm_method: str | None, draw_seed: DrawSeed | None = None
) -> None:
    """Add transforms to scripts that ketgrad runs; mid-circuit measurements stay unless `mcm_method` defers them."""
    if mcm_method == "deferred":
        pipeline.add_transform(qml.defer_measurements, allow_postselect=True)
    pipeline.add_transform(
        preprocess.decompose,
        stopping_condition=is_runnable,
        skip_initial_state_prep=False,
        device_wires=wires,
        target_gates=_GATES,
        name=name,
    )
    pipeline.add_transform(preprocess.device_resolve_dynamic_wires, wires=wires, allow_resets=mcm_method != "deferred")
    pipeline.add_transform(with_matrices)
    pipeline.add_transform(preprocess.validate_device_wires, wires, name=name)
    pipeline.add_transform(
        preprocess.validate_measurements,
        analytic_measurements=_is_exact_measurement,
        sample_measurements=_is_sampled_measurement,
        name=name,
    )
    pipeline.add_transform(one_preparation)
    pipeline.add_transform(native_measurements, draw_seed=draw_seed)


def native_scripts(
    scripts: Sequence[QuantumScript], draw_seed: DrawSeed | None = None
) -> tuple[Sequence[QuantumScript], Callable[[Any], Any]]:
    """Scripts that ketgrad runs, from scripts that may not be preprocessed, and the function of their results."""
    if all(map(_is_native, scripts)):
        return scripts, lambda results: results
    pipeline = CompilePipeline()
    pipeline.add_transform(
        preprocess.decompose, stopping_condition=is_runnable, skip_initial_state_prep=False, name="ketgrad.qubit"
    )
    pipeline.add_transform(with_matrices)
    pipeline.add_transform(one_preparation)
    pipeline.add_transform(native_measurements, draw_seed=draw_seed)
    return pipeline(scripts)  # type: ignore[no-any-return]


def _is_native(script: QuantumScript) -> bool:
    if any(isinstance(op, MidMeasure) for op in script.operations):
        return True  # its branches are checked one by one
    for position, op in enumerate(script.operations):
        if not (is_supported(op) or is_collapse(op)) or (position and isinstance(op, StatePrepBase)):
            return False
    return all(map(is_supported_measurement, script.measurements))


# ---------------------------------------------------------------------------------------------------------------------
# Operations


def is_runnable(op: Any) -> bool:
    """Whether an operation is not decomposed: it is native, or has only a matrix."""
    if isinstance(op, (MidMeasure, Conditional, qml.Snapshot, Allocate, Deallocate)):
        return True
    if isinstance(op, Evolution) and op.base.pauli_rep is not None and len(op.base.pauli_rep) == 1:
        return True
    if isinstance(op, Exp) and isinstance(op.coeff, Tensor):  # its decompositions do not support torch tensors
        return bool(op.has_matrix)
    return is_supported(op) or is_collapse(op) or (not op.has_decomposition and op.has_matrix)


def is_collapse(op: Any) -> bool:
    """Whether an operation is a projection on a basis state, as for postselection."""
    return isinstance(op, BasisStateProjector)


def _null(results: Any) -> Any:
    return results[0]


@transform  # type: ignore[untyped-decorator]
def with_jax_arrays(script: QuantumScript) -> Batch:
    """Convert parameters that JAX traces to JAX arrays.

    `jax.grad(qnode)(0.4)` traces a Python number, which is still one inside custom derivatives, where PennyLane reads
    its dtype.
    """
    import jax

    parameters = script.get_parameters(trainable_only=False)
    traced = [i for i, parameter in enumerate(parameters) if isinstance(parameter, jax.core.Tracer)]
    if not traced:
        return (script,), _null
    arrays = [jax.lax.convert_element_type(parameters[i], parameters[i].dtype) for i in traced]
    return (script.bind_new_parameters(arrays, traced),), _null


@transform  # type: ignore[untyped-decorator]
def with_matrices(script: QuantumScript) -> Batch:
    """Replace operations that ketgrad applies by their matrix by `QubitUnitary`."""
    operations = [_as_unitary(op) for op in script.operations]
    if all(one is other for one, other in zip(operations, script.operations, strict=True)):
        return (script,), _null
    return (script.copy(operations=operations),), _null


def _as_unitary(op: Any) -> Any:
    if is_supported(op) or is_collapse(op) or isinstance(op, (MidMeasure, qml.Snapshot, Conditional)):
        return op
    with qml.QueuingManager.stop_recording():
        if isinstance(op, Evolution) and op.base.pauli_rep is not None and len(op.base.pauli_rep) == 1:
            return _as_rotation(op)
        found = qml.QubitUnitary(op.matrix(), wires=op.wires, unitary_check=False)
        found.hyperparameters["origin"] = _origin(op)
        return found


def _origin(op: Any) -> str:
    """The description of an operation, for the error if its matrix is not unitary."""
    if isinstance(op, qml.pulse.ParametrizedEvolution):
        return f"{op.name}, whose ODE is solved too roughly; give qml.evolve smaller atol and rtol"
    if isinstance(op, (CompositeOp, SProd, qml.Hermitian, qml.SparseHamiltonian)):
        return f"{op}, which acts as a gate where it is made and not measured; make it outside of the quantum function"
    return str(op)


def _as_rotation(op: Any) -> Any:
    """exp(−i t c P) of a Pauli word P is a rotation by 2ct."""
    ((pauli_word, coefficient),) = op.base.pauli_rep.items()
    angle = 2 * np.real(coefficient) * op.param
    return (
        qml.PauliRot(angle, "".join(pauli_word.values()), wires=list(pauli_word))
        if pauli_word
        else qml.GlobalPhase(angle / 2)
    )


@transform  # type: ignore[untyped-decorator]
def one_preparation(script: QuantumScript) -> Batch:
    """Decompose preparations after the first operation into gates."""
    rest = script.operations[1:]
    if not any(isinstance(op, StatePrepBase) for op in rest):
        return (script,), _null
    head = script.operations[:1]
    (tail,), _ = preprocess.decompose(
        script.copy(operations=rest),
        stopping_condition=lambda op: is_runnable(op) and not isinstance(op, StatePrepBase),
        skip_initial_state_prep=False,
    )
    return (script.copy(operations=head + tail.operations),), _null


# ---------------------------------------------------------------------------------------------------------------------
# Measurements


_OF_DENSITY_MATRICES = (mp.PurityMP, mp.VnEntropyMP, mp.MutualInfoMP)
_SHADOWS = (mp.ClassicalShadowMP, mp.ShadowExpvalMP)


def _is_exact_measurement(measurement: Any) -> bool:
    return isinstance(measurement, mp.StateMeasurement)


def _is_sampled_measurement(measurement: Any) -> bool:
    return isinstance(measurement, (mp.SampleMeasurement, *_SHADOWS))


@transform  # type: ignore[untyped-decorator]
def native_measurements(script: QuantumScript, draw_seed: DrawSeed | None = None) -> Batch:
    """Compute measurements that ketgrad does not have from the results of those that it has.

    Scripts with mid-circuit measurements keep theirs, which are replaced for each branch. PennyLane draws classical
    shadows, with seeds from `draw_seed`.
    """
    if any(isinstance(op, MidMeasure) for op in script.operations):
        return (script,), _null
    if all(is_supported_measurement(measurement) for measurement in script.measurements):
        return (script,), _null
    if any(isinstance(measurement, _SHADOWS) for measurement in script.measurements) and script.batch_size is not None:
        scripts, join = qml.transforms.broadcast_expand(script)
        parts = [native_measurements(each, draw_seed) for each in scripts]
        return _joined(parts, join)
    requests = [request(measurement, script, draw_seed) for measurement in script.measurements]
    places: dict[Any, list[Request]] = {}
    for each in requests:
        places.setdefault(_circuit_of(each), []).append(each)
    scripts = [_script_of(script, of_circuit) for of_circuit in places.values()]
    return scripts, partial(_finish, script, requests, list(places.values()))


def _joined(parts: Sequence[Batch], join: Callable[[Any], Any]) -> Batch:
    scripts = [script for found, _ in parts for script in found]

    def post(results: Any) -> Any:
        rest = list(results)
        return join([finish([rest.pop(0) for _ in found]) for found, finish in parts])

    return scripts, post


def _circuit_of(each: Request) -> Any:
    """A key that is equal for requests that one circuit can serve."""
    return each.is_exact, tuple([(gate.name, gate.wires, *map(id, gate.data)) for gate in each.gates])


def _script_of(script: QuantumScript, requests: Sequence[Request]) -> QuantumScript:
    """The script for requests with equal keys."""
    gates, is_exact = requests[0].gates, requests[0].is_exact
    changed: dict[str, Any] = {"measurements": [each.measurement for each in requests]}
    if gates:
        changed["operations"] = [*script.operations, *gates]
    if is_exact:
        changed["shots"] = None
    return script.copy(**changed)


def _finish(script: QuantumScript, requests: Sequence[Request], circuits: list[list[Request]], results: Any) -> Any:
    """The results of the script's own measurements."""
    by_request: dict[int, Any] = {}
    partitioned = script.shots.has_partitioned_shots
    for of_circuit, result in zip(circuits, results, strict=True):
        bins = result if partitioned and not of_circuit[0].is_exact else (result,)
        columns = [bin_ if len(of_circuit) > 1 else (bin_,) for bin_ in bins]
        for m, each in enumerate(of_circuit):
            by_request[id(each)] = [column[m] for column in columns]
    found = []
    for b, shots in enumerate(script.shots if script.shots else [0]):
        values = [_value(each, by_request[id(each)][0 if each.is_exact else b], shots) for each in requests]
        found.append(values[0] if len(values) == 1 else tuple(values))
    return tuple(found) if partitioned else found[0]


def _value(each: Request, value: Any, shots: int) -> Any:
    if each.finish is None:
        return value
    return each.finish(value, shots) if each.is_exact else each.finish(value)


def request(measurement: Any, script: QuantumScript, draw_seed: DrawSeed | None = None) -> Request:
    """The request for a measurement of a script."""
    if is_supported_measurement(measurement):
        return Request((), measurement)
    return _sampled(measurement, script, draw_seed) if script.shots else _exact(measurement, script)


def _exact(measurement: Any, script: QuantumScript) -> Request:
    if isinstance(measurement, _OF_DENSITY_MATRICES):
        wires = measurement.wires
        # PennyLane reads labels as positions in the matrix.
        placed = measurement.map_wires({wire: place for place, wire in enumerate(wires)})
        return Request((), qml.density_matrix(wires), partial(_from_density_matrix, placed))
    if _is_diagonal(measurement):
        with qml.QueuingManager.stop_recording():
            gates = tuple(runnable_gates(measurement.diagonalizing_gates()))
        return Request(gates, qml.probs(wires=measurement.wires), _of_probabilities(measurement))
    if isinstance(measurement, (mp.ExpectationMP, mp.VarianceMP)):
        return Request((), type(measurement)(obs=_as_matrix(measurement.obs)))
    wires = script.wires
    return Request((), mp.StateMP(wires=wires), partial(_from_state, measurement, wires))


def _is_diagonal(measurement: Any) -> bool:
    """Whether its result is a function of probabilities, after its diagonalising gates."""
    if not isinstance(measurement, (mp.ExpectationMP, mp.VarianceMP, mp.ProbabilityMP)):
        return False
    return isinstance(measurement, mp.ProbabilityMP) or measurement.obs is None


def runnable_gates(gates: Sequence[Any]) -> list[Any]:
    """The gates decomposed into those that ketgrad runs."""
    (script,), _ = preprocess.decompose(
        QuantumScript(gates), stopping_condition=is_runnable, skip_initial_state_prep=False
    )
    (script,), _ = with_matrices(script)
    return list(script.operations)


def _as_matrix(observable: Any) -> Any:
    """An observable that ketgrad does not have, as a `Hermitian`."""
    if not observable.has_matrix:
        raise DeviceError(f"Observable {observable} not supported on ketgrad.qubit: it has no matrix")
    with qml.QueuingManager.stop_recording():
        matrix = observable.matrix()
        if not qml.math.is_abstract(matrix) and not qml.math.allclose(matrix, qml.math.conj(matrix.T), atol=1e-5):
            raise DeviceError(f"Observable {observable} not supported on ketgrad.qubit: it is not Hermitian")
        return qml.Hermitian(matrix, wires=observable.wires)


def _of_probabilities(measurement: Any) -> Callable[[Any], Any] | None:
    if isinstance(measurement, mp.ProbabilityMP):
        return None
    return partial(_moment, np.real(measurement.eigvals()), isinstance(measurement, mp.VarianceMP))


def _moment(eigenvalues: Any, is_variance: bool, probabilities: Any) -> Any:
    values = qml.math.cast_like(qml.math.convert_like(eigenvalues, probabilities), probabilities)
    mean = qml.math.sum(probabilities * values, axis=-1)
    return qml.math.sum(probabilities * values**2, axis=-1) - mean**2 if is_variance else mean


def _from_density_matrix(measurement: Any, matrix: Any) -> Any:
    return measurement.process_density_matrix(matrix, wire_order=measurement.wires)


def _from_state(measurement: Any, wires: Any, state: Any) -> Any:
    return measurement.process_state(state, wire_order=wires)


def _sampled(measurement: Any, script: QuantumScript, draw_seed: DrawSeed | None) -> Request:
    wires = measurement.wires or script.wires
    if isinstance(measurement, _SHADOWS):
        process = partial(_from_shadow, measurement, script.wires, draw_seed)
        return Request((), mp.StateMP(wires=script.wires), process, is_exact=True)
    with qml.QueuingManager.stop_recording():
        gates = tuple(runnable_gates(measurement.diagonalizing_gates()))
    return Request(gates, mp.SampleMP(wires=wires), partial(_from_samples, measurement, wires))


def _from_samples(measurement: Any, wires: Any, samples: Any) -> Any:
    return measurement.process_samples(_as_numpy(samples), wire_order=wires)


def _from_shadow(measurement: Any, wires: Any, draw_seed: DrawSeed | None, state: Any, shots: int) -> Any:
    shaped = _as_numpy(state).reshape([2] * len(wires))
    return measurement.process_state_with_shots(shaped, wires, shots, rng=None if draw_seed is None else draw_seed())


def _as_numpy(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value
