"""PennyLane: tapes from and to its scripts, the device `ketgrad.qubit`, and its QNodes for `kg.compile`.

Nothing outside this package imports PennyLane, and this module does only when a name below is accessed.
"""

from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from .conversion import is_supported, observable_from_pennylane, tape_from_pennylane, tape_to_pennylane

__all__ = ["is_supported", "observable_from_pennylane", "tape_from_pennylane", "tape_to_pennylane"]


def __getattr__(name: str) -> _Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import conversion

    return getattr(conversion, name)
