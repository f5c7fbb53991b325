"""The PennyLane device `ketgrad.qubit`.

With torch tensors the device executes under torch's autograd: to PennyLane the differentiation method is "backprop",
but the gradients come from the native adjoint method. For other interfaces it computes products with the Jacobian on
NumPy arrays.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pennylane as qml
import torch
from autograd.tracer import Box
from pennylane.devices import Device, ExecutionConfig, MCMConfig
from pennylane.devices.capabilities import DeviceCapabilities, parse_toml_document, update_device_capabilities
from pennylane.devices.modifiers import simulator_tracking, single_tape_support
from pennylane.devices.preprocess import no_sampling
from pennylane.exceptions import DeviceError, QuantumFunctionError
from pennylane.math import Interface
from pennylane.measurements import StateMP
from pennylane.ops.mid_measure import MidMeasure
from pennylane.tape import QuantumScript
from pennylane.transforms import convert_to_numpy_parameters
from pennylane.transforms.core import CompilePipeline
from pennylane.workflow.interfaces.autograd import autograd_execute
from torch import Tensor

from ...circuit.tape import Tape
from ...execution.jacobian_products import AdjointProducts
from ...native.torch_private import pytree
from .conversion import build_tape, has_gradient
from .execution import Executor, as_arrays, as_numpy, real_dtype
from .preprocessing import add_native_transforms, is_collapse, native_scripts, with_jax_arrays

_NATIVE_METHODS = ("adjoint", "backprop", "best", "device")
_MCM_METHODS = ("deferred", "one-shot")
_JAX = (Interface.JAX, Interface.JAX_JIT)
_PRECISIONS = {
    np.dtype(np.complex64): torch.float32,
    np.dtype(np.complex128): torch.float64,
    torch.complex64: torch.float32,
    torch.complex128: torch.float64,
}


def _capabilities(path: str) -> DeviceCapabilities:
    """The capabilities in a device's TOML file."""
    with open(path, "rb") as file:
        document = tomllib.load(file)
    found = parse_toml_document(document)
    update_device_capabilities(found, document, "pennylane")
    return found


@simulator_tracking
@single_tape_support
class KetgradQubit(Device):  # type: ignore[misc]
    """Statevector simulation with ketgrad, and adjoint gradients of all results: `qml.device("ketgrad.qubit")`.

    Parameter broadcasting is native, and scripts of equal structure take one native call.

    Args:
        wires: their number, or labels; None (the default): those of each circuit.
        shots: the default number of shots (deprecated by PennyLane in favour of `qml.set_shots`).
        c_dtype: complex64 or complex128 (NumPy's or torch's), the precision to compute in. None (the default): that of
            torch tensors, double precision if they are mixed; complex128 for other parameters.
        seed: of the samples. "global" (the default): drawn from NumPy's global generator; None: from the operating
            system; a key of `jax.random`: its data; others: as for `numpy.random.default_rng`.

    Raises:
        ValueError: c_dtype is another.

    Example:
        >>> import pennylane as qml, torch
        >>> dev = qml.device("ketgrad.qubit", wires=2)
        >>> @qml.qnode(dev)
        ... def circuit(x):
        ...     qml.RX(x, wires=0)
        ...     qml.CNOT(wires=[0, 1])
        ...     return qml.expval(qml.Z(1))
        >>> x = torch.tensor([0.1, 0.2], requires_grad=True)
        >>> circuit(x).sum().backward()
        >>> x.grad
        tensor([-0.0998, -0.1987])
    """

    # PennyLane sets this attribute on devices that have it, to record snapshots.
    _debugger: Any = None

    def __init__(self, wires: Any = None, shots: Any = None, *, c_dtype: Any = None, seed: Any = "global") -> None:
        super().__init__(wires=wires, shots=shots)
        self.c_dtype = c_dtype
        self._dtype = None if c_dtype is None else _precision(c_dtype)
        if isinstance(seed, str) and seed == "global":
            seed = np.random.randint(2**31 - 1)  # noqa: NPY002
        entropy = np.random.default_rng(_without_jax(seed))
        self._generator = torch.Generator().manual_seed(int(entropy.integers(2**63 - 1)))

    @property
    def name(self) -> str:
        """The name of the device in `qml.device`."""
        return "ketgrad.qubit"

    # --- configuration ------------------------------------------------------------------------------------------------

    def supports_derivatives(
        self, execution_config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> bool:
        """Whether the device differentiates a circuit: if its results are exact."""
        if execution_config is None:
            return True
        if execution_config.gradient_method not in _NATIVE_METHODS:
            return False
        if circuit is None:
            return True
        is_transparent = execution_config.interface in (Interface.TORCH, Interface.NUMPY, *_JAX)
        return not circuit.shots and (is_transparent or not _is_postselected(circuit))

    def supports_vjp(
        self, execution_config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> bool:
        """As `supports_derivatives`."""
        return self.supports_derivatives(execution_config, circuit)

    def supports_jvp(
        self, execution_config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> bool:
        """As `supports_derivatives`."""
        return self.supports_derivatives(execution_config, circuit)

    def setup_execution_config(
        self, config: ExecutionConfig | None = None, circuit: QuantumScript | None = None
    ) -> ExecutionConfig:
        """The configuration with all open choices made.

        The device's own methods become "backprop": to PennyLane, that is a device through which the interface
        differentiates; here it does so by the adjoint method. With `max_diff` above 1, all derivatives are by parameter
        shifts.
        """
        config = config or ExecutionConfig()
        if config.device_options:
            raise DeviceError(f"{self.name} has no device options, but was given {dict(config.device_options)}")
        is_first = config.derivative_order == 1
        # For higher derivatives PennyLane caches results by the values of parameters, so those must be NumPy arrays.
        takes_tensors = config.interface == Interface.TORCH and is_first
        takes_tracers = config.interface in _JAX and circuit is not None and not circuit.shots
        changes: dict[str, Any] = {
            "mcm_config": _mcm_config(config.mcm_config, circuit),
            "convert_to_numpy": not (takes_tensors or takes_tracers),
        }
        if config.gradient_method in _NATIVE_METHODS:
            is_transparent = config.interface in (Interface.TORCH, Interface.AUTOGRAD, *_JAX)
            method = "backprop" if is_transparent else "adjoint"
            changes |= {
                "gradient_method": method if is_first else qml.gradients.param_shift,
                "use_device_gradient": is_first,
                "use_device_jacobian_product": is_first and not is_transparent,
                "grad_on_execution": False,
            }
        return replace(config, **changes)

    def preprocess_transforms(self, execution_config: ExecutionConfig | None = None) -> CompilePipeline:
        """The transforms that scripts need before execution; the interface differentiates them, not the device."""
        config = execution_config or ExecutionConfig()
        pipeline = CompilePipeline()
        add_native_transforms(
            pipeline, self.name, self.wires, config.mcm_config.mcm_method, self._executor(config, None).draw_seed
        )
        if config.mcm_config.mcm_method == "one-shot":
            pipeline.add_transform(qml.dynamic_one_shot, postselect_mode=config.mcm_config.postselect_mode)
        if config.interface in _JAX:
            pipeline.add_transform(with_jax_arrays)
        if config.gradient_method in _NATIVE_METHODS:
            pipeline.add_transform(no_sampling, name=f"{config.gradient_method} + {self.name}")
        return pipeline

    # --- execution ----------------------------------------------------------------------------------------------------

    def execute(self, circuits: Sequence[QuantumScript], execution_config: ExecutionConfig | None = None) -> Any:
        """The results of preprocessed circuits: torch tensors for torch parameters, otherwise NumPy arrays."""
        config = execution_config or ExecutionConfig()
        if config.interface == Interface.AUTOGRAD and config.gradient_method == "backprop":
            return autograd_execute(circuits, partial(self._run, config=config), _AutogradProducts(self))
        if config.interface in _JAX:
            return self._under_jax(circuits, config)
        return self._run(circuits, config)

    def _under_jax(self, circuits: Sequence[QuantumScript], config: ExecutionConfig) -> Any:
        from .jax import as_jax, execute_under_jax, is_traced  # imports JAX

        if not any(map(is_traced, circuits)):
            numpy_circuits, _ = convert_to_numpy_parameters(circuits)
            return as_jax(self._run(numpy_circuits, config))
        if any(circuit.shots for circuit in circuits):
            raise NotImplementedError("ketgrad.qubit draws no samples where JAX traces parameters")
        executor = self._executor(config, self._dtype or torch.float64)
        scripts, finish = native_scripts(
            [self._without_snapshots(script, executor) for script in circuits], executor.draw_seed
        )
        return finish(execute_under_jax(scripts, executor.run, self._dtype))

    def _run(self, circuits: Sequence[QuantumScript], config: ExecutionConfig) -> Any:
        if config.interface == Interface.AUTOGRAD:
            circuits, _ = convert_to_numpy_parameters(circuits)
        executor = self._executor(config, self._dtype)
        scripts, finish = native_scripts(
            [self._without_snapshots(script, executor) for script in circuits], executor.draw_seed
        )
        results = finish(executor.run(scripts))
        if config.interface == Interface.TORCH or any(map(_has_tensors, circuits)):
            return results
        return as_numpy(results)

    def _executor(self, config: ExecutionConfig, dtype: torch.dtype | None) -> Executor:
        return Executor(dtype, self._generator, config.mcm_config.postselect_mode)

    def _without_snapshots(self, script: QuantumScript, executor: Executor) -> QuantumScript:
        """The script without its snapshots, which are recorded if PennyLane's debugger is active."""
        if not any(isinstance(op, qml.Snapshot) for op in script.operations):
            return script
        kept: list[Any] = []
        for op in script.operations:
            if not isinstance(op, qml.Snapshot):
                kept.append(op)
            elif self._debugger is not None and self._debugger.active:
                if any(isinstance(each, MidMeasure) for each in script.operations):
                    raise DeviceError("snapshots are recorded with mcm_method='deferred' only")
                self._debugger.snapshots[op.tag] = _recorded(op, kept, script, executor)
        return script.copy(operations=kept)

    # --- products with the Jacobian -----------------------------------------------------------------------------------

    def compute_vjp(
        self, circuits: Sequence[QuantumScript], cotangents: Any, execution_config: ExecutionConfig | None = None
    ) -> Any:
        """The products of cotangents, nested like the results, with the Jacobians.

        Cotangents may have an additional leading axis, for several products.
        """
        tapes, products = self._differentiable(circuits)
        found = products.compute_vjp(tapes, cotangents)
        return tuple([_aligned(of, circuit) for of, circuit in zip(found, circuits, strict=True)])

    def compute_derivatives(
        self, circuits: Sequence[QuantumScript], execution_config: ExecutionConfig | None = None
    ) -> Any:
        """The Jacobians, nested as PennyLane nests them."""
        return self._jacobians(circuits)[1]

    def execute_and_compute_derivatives(
        self, circuits: Sequence[QuantumScript], execution_config: ExecutionConfig | None = None
    ) -> Any:
        """The results and the Jacobians, from one forward pass."""
        return self._jacobians(circuits)

    def _jacobians(self, circuits: Sequence[QuantumScript]) -> tuple[Any, Any]:
        tapes, products = self._differentiable(circuits)
        results, jacobians = products.execute_and_compute_jacobian(tapes)
        return _like(circuits, results), _derivatives_like(circuits, jacobians)

    def compute_jvp(
        self, circuits: Sequence[QuantumScript], tangents: Any, execution_config: ExecutionConfig | None = None
    ) -> Any:
        """The products of the Jacobians with tangents, one for each trainable parameter."""
        return self._jvps(circuits, tangents)[1]

    def execute_and_compute_jvp(
        self, circuits: Sequence[QuantumScript], tangents: Any, execution_config: ExecutionConfig | None = None
    ) -> Any:
        """The results and the products of the Jacobians with tangents, from one forward pass."""
        return self._jvps(circuits, tangents)

    def _jvps(self, circuits: Sequence[QuantumScript], tangents: Any) -> tuple[Any, Any]:
        tapes, products = self._differentiable(circuits)
        own = [_of_own(of, circuit) for of, circuit in zip(tangents, circuits, strict=True)]
        results, found = products.execute_and_compute_jvp(tapes, own)
        return _like(circuits, results), _derivatives_like(circuits, found)

    def execute_and_compute_vjp(
        self, circuits: Sequence[QuantumScript], cotangents: Any, execution_config: ExecutionConfig | None = None
    ) -> Any:
        """The results and the products of cotangents with the Jacobians."""
        return self.execute(circuits, execution_config), self.compute_vjp(circuits, cotangents, execution_config)

    def _differentiable(self, circuits: Sequence[QuantumScript]) -> tuple[list[Tape], AdjointProducts]:
        if any(circuit.shots for circuit in circuits):
            raise QuantumFunctionError(f"{self.name} differentiates exact results; leave the shots out")
        tapes = [build_tape(circuit, None, circuit.trainable_params) for circuit in circuits]
        return tapes, AdjointProducts(real_dtype(circuits, self._dtype))


# Set after the class: PennyLane would read the file when the class is created, twenty times as slowly.
KetgradQubit.config_filepath = os.path.join(os.path.dirname(__file__), "ketgrad_qubit.toml")
KetgradQubit.capabilities = _capabilities(KetgradQubit.config_filepath)


class _AutogradProducts:
    """Products with the Jacobian for PennyLane's autograd interface, which raise when they are differentiated.

    To autograd the products are constants: without the check of its boxes, second derivatives would silently be zero.
    """

    def __init__(self, device: KetgradQubit) -> None:
        self.device = device

    def compute_vjp(self, tapes: Sequence[QuantumScript], dy: Any) -> Any:
        """The gradients of the tapes' trainable parameters, tape after tape."""
        boxes = [p for tape in tapes for p in tape.get_parameters() if isinstance(p, Box)]
        inner = [*[box._value for box in boxes], *pytree.tree_leaves(dy)]
        # In a first derivative all boxes are of one trace. Several traces, nested or not, mean that this gradient is
        # differentiated again, by another variable of the circuit or of the cost function.
        if len({box._trace for box in boxes}) > 1 or any(isinstance(each, Box) for each in inner):
            raise NotImplementedError(
                "ketgrad.qubit has no second derivatives by the adjoint method; give the QNode max_diff=2, for "
                "derivatives by parameter shifts"
            )
        numpy_tapes, _ = convert_to_numpy_parameters(tapes)
        return self.device.compute_vjp(numpy_tapes, qml.math.unwrap(dy))


def _without_jax(seed: Any) -> Any:
    """A seed for NumPy's generators; a JAX key is replaced by its data."""
    if qml.math.get_interface(seed) != "jax":
        return seed
    import jax

    if isinstance(seed, jax.core.Tracer):
        raise TypeError("the seed of ketgrad.qubit must be a JAX key with a value; make the device outside of jax.jit")
    return np.asarray(jax.random.key_data(seed))


def _precision(c_dtype: Any) -> torch.dtype:
    key = c_dtype if isinstance(c_dtype, torch.dtype) else np.dtype(c_dtype)
    if key not in _PRECISIONS:
        raise ValueError(f"c_dtype must be complex64 or complex128, not {c_dtype}")
    return _PRECISIONS[key]


def _mcm_config(config: MCMConfig, circuit: QuantumScript | None) -> MCMConfig:
    method = config.mcm_method
    if method is None:
        method = "one-shot" if circuit is not None and circuit.shots else "deferred"
    elif method == "device":
        method = "deferred"
    if method not in _MCM_METHODS:
        raise DeviceError(f"mcm_method {method} is not supported by ketgrad.qubit; it has {_MCM_METHODS}")
    if method == "one-shot" and config.postselect_mode == "fill-shots":
        # Forcing an outcome would leave earlier outcomes with probabilities that are not conditioned on it.
        raise DeviceError("postselect_mode='fill-shots' is supported with mcm_method='deferred' only")
    return replace(config, mcm_method=method)


def _is_postselected(circuit: QuantumScript) -> bool:
    return any(is_collapse(op) or getattr(op, "postselect", None) is not None for op in circuit.operations)


def _recorded(op: Any, before: Sequence[Any], script: QuantumScript, executor: Executor) -> Any:
    """The record of a snapshot after some operations of a script."""
    measurement, shots = op.hyperparameters["measurement"], op.hyperparameters["shots"]
    if measurement.obs is None and not measurement.wires:
        measurement = copy(measurement)
        measurement._wires = script.wires
    if shots == "workflow":
        shots = None if isinstance(measurement, StateMP) else script.shots
    snapshot = QuantumScript(list(before), [measurement], shots=shots)
    scripts, finish = native_scripts([snapshot], executor.draw_seed)
    return _like([script], finish(executor.run(scripts))[0])


def _has_tensors(script: QuantumScript) -> bool:
    return any(isinstance(p, Tensor) for p in script.get_parameters(trainable_only=False))


def _like(scripts: Sequence[QuantumScript], results: Any) -> Any:
    """Results as torch tensors if the scripts have any, otherwise as NumPy arrays."""
    return results if any(map(_has_tensors, scripts)) else as_numpy(results)


def _derivatives_like(scripts: Sequence[QuantumScript], derivatives: Any) -> Any:
    return derivatives if any(map(_has_tensors, scripts)) else as_arrays(derivatives)


# Bits are parameters in PennyLane, but have no gradient.


def _of_own(values: Sequence[Any], script: QuantumScript) -> list[Any]:
    """The values of a script's trainable parameters that are parameters of the tape."""
    kept = has_gradient(script)
    return [value for value, index in zip(values, script.trainable_params, strict=True) if kept[index]]


def _aligned(gradients: Any, script: QuantumScript) -> tuple[Any, ...]:
    """The gradients of a tape, as one for each trainable parameter of its script, in the parameter's dtype."""
    kept = has_gradient(script)
    rest = iter(gradients.unbind(-1) if isinstance(gradients, Tensor) else gradients)
    parameters = script.get_parameters(trainable_only=False)
    if _has_tensors(script):
        return tuple([next(rest) if kept[i] else torch.zeros_like(parameters[i]) for i in script.trainable_params])
    found = []
    for index in script.trainable_params:
        like = np.asarray(parameters[index])
        # Gradients in autograd and JAX are the conjugates of torch's.
        gradient = as_arrays(next(rest)).conj() if kept[index] else np.zeros(like.shape)
        found.append((gradient if np.iscomplexobj(like) else gradient.real).astype(like.dtype))
    return tuple(found)
