"""Quantum functions and QNodes for `kg.compile`: tapes of what they queue.

All of it runs only during a trace. The arithmetic of PennyLane's transforms on parameters and results is recorded, so
that later calls do not run PennyLane.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from traceback import walk_tb
from typing import Any

import pennylane as qml
from pennylane.math import Interface, get_trainable_indices
from pennylane.operation import Operator
from pennylane.tape import QuantumScript
from pennylane.transforms.core import CompilePipeline
from pennylane.workflow.qnode import _to_qfunc_output_type, _validate_qfunc_output

from ...circuit.parsing import place
from ...compilation.front_ends import Circuits
from .conversion import build_tape
from .device import KetgradQubit
from .execution import real_dtype
from .preprocessing import add_native_transforms, is_collapse

_NAME = "kg.compile"


def require_compilable(qnode: qml.QNode) -> None:
    """Check that a QNode's results are those of exact tapes with parameters of torch.

    Raises:
        NotImplementedError: it has shots, or a transform that does more than expand circuits.
        ValueError: its interface is neither "torch" nor "auto".
    """
    if qnode.shots:
        raise NotImplementedError(
            f"kg.compile takes no QNode with shots, but this has {qnode.shots.total_shots}; compile "
            "qml.set_shots(qnode, None), or call the QNode itself"
        )
    if Interface(qnode.interface) not in (Interface.AUTO, Interface.TORCH):
        raise ValueError(f"kg.compile takes QNodes of interface 'torch' or 'auto', not {qnode.interface!r}")
    for bound in qnode.compile_pipeline:
        if bound.is_informative or (bound.classical_cotransform is not None and bound.kwargs.get("hybrid", True)):
            raise NotImplementedError(
                f"kg.compile takes no QNode with the transform {bound.tape_transform.__name__}, which makes more than "
                "circuits; apply it to the QNode itself"
            )


def circuits_of_script(function: Callable[..., Any], returned: Any, queue: Any) -> Circuits:
    """The circuits of a quantum function or a QNode.

    Args:
        function: the quantum function or QNode.
        returned: what it returned, with measurements of PennyLane.
        queue: what it queued.
    """
    qnode = function if isinstance(function, qml.QNode) else None
    script = QuantumScript.from_queue(queue)
    script.trainable_params = get_trainable_indices(script.get_parameters(trainable_only=False))
    _validate_qfunc_output(returned, script.measurements)
    pipeline = CompilePipeline() if qnode is None else qnode.compile_pipeline
    device = None if qnode is None else qnode.device
    with _naming_what_refuses():
        scripts, finish_users = pipeline((script,))
        scripts, finish_own = _native_pipeline(None if device is None else device.wires)(scripts)
        scripts = [_require_exact(each) for each in scripts]
        trainable = () if qnode is not None and qnode.diff_method is None else None
        tapes = [build_tape(each, None, trainable) for each in scripts]

    def finish(results: Sequence[Any]) -> Any:
        with _naming_what_refuses():
            (result,) = finish_users(finish_own(tuple(results)))
        return _to_qfunc_output_type(result, returned, has_partitioned_shots=False)

    dtype = device._dtype if isinstance(device, KetgradQubit) else None
    return Circuits(tapes, finish, real_dtype(scripts, dtype))


def _native_pipeline(wires: Any) -> CompilePipeline:
    pipeline = CompilePipeline()
    add_native_transforms(pipeline, _NAME, wires, "deferred")
    return pipeline


def _require_exact(script: QuantumScript) -> QuantumScript:
    """The script without snapshots, which compiled functions do not record; shots and postselection are refused."""
    if script.shots:
        raise NotImplementedError(
            f"a compiled function stands for a circuit with {script.shots.total_shots} shots; use the QNode itself"
        )
    if any(is_collapse(op) for op in script.operations):
        raise NotImplementedError("postselection is not supported in a compiled function; use the QNode itself")
    operations = [op for op in script.operations if not isinstance(op, qml.Snapshot)]
    return script if len(operations) == len(script.operations) else script.copy(operations=operations)


@contextlib.contextmanager
def _naming_what_refuses() -> Iterator[None]:
    """Add to NotImplementedErrors the name of the PennyLane operation, or transform, in which they were raised."""
    try:
        yield
    except NotImplementedError as error:
        frames = [frame for frame, _ in walk_tb(error.__traceback__)]
        operators = [frame.f_locals["self"] for frame in frames if isinstance(frame.f_locals.get("self"), Operator)]
        names = [place(op.name, op.wires.labels) for op in operators] or [
            frame.f_code.co_name for frame in frames if _is_transform(str(frame.f_globals.get("__name__")))
        ]
        if not names:
            raise
        raise NotImplementedError(f"{names[-1] if operators else names[0]} of PennyLane: {error}") from error


def _is_transform(module: str) -> bool:
    return module.startswith("pennylane.transforms.") and not module.startswith("pennylane.transforms.core")
