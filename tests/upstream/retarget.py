"""A pytest plugin that points other projects' tests at ketgrad; `run.py` loads it.

KETGRAD_UPSTREAM says how: "device" puts the device `ketgrad.qubit` in the place of `default.qubit` and
`lightning.qubit`, "boundary" puts `ketgrad.ExecuteTapes` in the place of PennyLane's function of that name.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import replace
from typing import Any

import pennylane as qml
from pennylane.devices import default_qubit, device_constructor
from pennylane.math import Interface
from pennylane.workflow.interfaces import torch as boundary
from pennylane_lightning import lightning_qubit

import ketgrad as kg
from ketgrad.interop.pennylane.device import KetgradQubit


class AsLightning(KetgradQubit):
    """The device in Lightning's place: it takes Lightning's options, which mean nothing to it.

    Where a test does not ask for products with the Jacobian, autograd gets whole Jacobians, computed on execution, as
    it does from Lightning. So its tests see these methods too.
    """

    def __init__(self, wires: Any = None, *, batch_obs: Any = False, mcmc: Any = False, **options: Any) -> None:
        for name in ("kernel_name", "num_burnin"):
            options.pop(name, None)
        super().__init__(wires, **options)

    def setup_execution_config(self, config: Any = None, circuit: Any = None) -> Any:
        products = config is not None and config.use_device_jacobian_product
        found = super().setup_execution_config(config, circuit)
        if products or found.interface != Interface.AUTOGRAD or found.gradient_method != "backprop":
            return found
        return replace(found, gradient_method="adjoint", grad_on_execution=True, convert_to_numpy=True)


class _EntryPoint:
    """Stands for the entry point of a device."""

    def __init__(self, device: type[KetgradQubit]) -> None:
        self.device = device

    def load(self) -> type[KetgradQubit]:
        return self.device


def pytest_configure(config: Any) -> None:
    sys.path.insert(0, str(config.rootpath))
    if os.environ["KETGRAD_UPSTREAM"] == "boundary":
        boundary.ExecuteTapes = kg.ExecuteTapes
        return
    # Devices of the tests' own that derive from default.qubit stay what they are.
    if importlib.util.find_spec("param_shift_dev"):
        importlib.import_module("param_shift_dev")
    qml.devices.DefaultQubit = default_qubit.DefaultQubit = KetgradQubit
    lightning_qubit.LightningQubit = AsLightning
    device_constructor.plugin_devices["default.qubit"] = _EntryPoint(KetgradQubit)
    device_constructor.plugin_devices["lightning.qubit"] = _EntryPoint(AsLightning)
