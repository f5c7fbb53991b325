"""PennyLane as a front end of `kg.compile`. The rest of this package is imported only when something is compiled."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pennylane as qml

from ...compilation.front_ends import Circuits
from ...native.torch_private import pytree


class PennyLane:
    """QNodes, quantum functions and operators; see `FrontEnd`. The names are those of PennyLane 0.45."""

    title = "PennyLane"
    libraries = frozenset({"pennylane", "autoray"})
    proxies = ("pennylane.math", "autoray")
    checks = frozenset(
        {
            "pennylane.ops.qubit.matrix_ops:QubitUnitary.__init__",
            "pennylane.ops.qubit.state_preparation:StatePrep._preprocess",
            "pennylane.templates.state_preparations.mottonen:MottonenStatePreparation.__init__",
        }
    )
    simplifications = {  # noqa: RUF012  (read only)
        "pennylane.ops.functions.dot:dot": False,
        "pennylane.ops.op_math.controlled:_is_single_qubit_special_unitary": False,
        "pennylane.ops.op_math.decompositions.controlled_decompositions:_not_zero": False,
        "pennylane.ops.qubit.parametric_ops_single_qubit:_can_replace": False,
        "pennylane.ops.qubit.state_preparation:StatePrep._preprocess": False,
        "pennylane.pauli.pauli_arithmetic:PauliSentence.operation": False,
        "pennylane.pauli.pauli_arithmetic:PauliSentence.prune": False,
        "pennylane.transforms.optimization.cancel_inverses:_check_equality": True,
        "pennylane.transforms.optimization.merge_rotations:merge_rotations": False,
        "pennylane.transforms.optimization.optimization_utils:_try_no_fuse": False,
        "pennylane.transforms.optimization.single_qubit_fusion:single_qubit_fusion": False,
        "pennylane.transforms.split_non_commuting:_sum_terms": False,
    }

    def is_circuit(self, function: Any) -> bool:
        """Whether this is a QNode."""
        return isinstance(function, qml.QNode)

    def require_compilable(self, circuit: Any) -> None:
        """See `qnodes.require_compilable`."""
        from .qnodes import require_compilable

        require_compilable(circuit)

    def function_of(self, circuit: Any) -> Callable[..., Any]:
        """The quantum function of a QNode."""
        return circuit.func  # type: ignore[no-any-return]

    def queue(self) -> AbstractContextManager[Any]:
        """A context that collects what a quantum function queues."""
        return qml.queuing.AnnotatedQueue()  # type: ignore[no-any-return]

    def has_measurements(self, returned: Any) -> bool:
        """Whether a function returned measurements of PennyLane."""
        return any(isinstance(leaf, qml.measurements.MeasurementProcess) for leaf in pytree.tree_leaves(returned))

    def circuits_of(self, function: Callable[..., Any], returned: Any, queue: Any) -> Circuits:
        """See `qnodes.circuits_of_script`."""
        from .qnodes import circuits_of_script

        return circuits_of_script(function, returned, queue)

    def is_operator(self, found: Any) -> bool:
        """Whether this is an operator."""
        return isinstance(found, qml.operation.Operator)


FRONT_END = PennyLane()
