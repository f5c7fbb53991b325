"""A pytest plugin that points other projects' tests at ketgrad; `run.py` loads it.

KETGRAD_UPSTREAM says how: "device" puts the device `ketgrad.qubit` in the place of `default.qubit` and
`lightning.qubit`, "boundary" puts `ketgrad.ExecuteTapes` in the place of PennyLane's function of that name.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import Any

import pennylane as qml
from pennylane.devices import default_qubit, device_constructor
from pennylane.workflow.interfaces import torch as boundary
from pennylane_lightning import lightning_qubit

import ketgrad as kg
from ketgrad.interop.pennylane_device import KetgradQubit

_REPLACED = ("default.qubit", "lightning.qubit")


class _EntryPoint:
    """Stands for the entry point of a device."""

    def load(self) -> type[KetgradQubit]:
        return KetgradQubit


def pytest_configure(config: Any) -> None:
    sys.path.insert(0, str(config.rootpath))
    if os.environ["KETGRAD_UPSTREAM"] == "boundary":
        boundary.ExecuteTapes = kg.ExecuteTapes
        return
    # Devices of the tests' own that derive from default.qubit stay what they are.
    if importlib.util.find_spec("param_shift_dev"):
        importlib.import_module("param_shift_dev")
    qml.devices.DefaultQubit = default_qubit.DefaultQubit = KetgradQubit
    lightning_qubit.LightningQubit = KetgradQubit
    for name in _REPLACED:
        device_constructor.plugin_devices[name] = _EntryPoint()
