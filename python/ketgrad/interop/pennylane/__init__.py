"""PennyLane: tapes from and to its scripts, the device `ketgrad.qubit`, and its QNodes for `kg.compile`.

Importing this package imports PennyLane. Outside of it nothing does.
"""

from .conversion import is_supported, observable_from_pennylane, tape_from_pennylane, tape_to_pennylane

__all__ = ["is_supported", "observable_from_pennylane", "tape_from_pennylane", "tape_to_pennylane"]
