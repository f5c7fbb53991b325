"""What `help` says of a gate beyond its formula: its arguments and an example, alike for all of them."""

from __future__ import annotations

from inspect import cleandoc, signature
from typing import Any

__all__ = ["document"]

_DENSE = "a list, an array or a tensor"
# By the name of an argument, or of the gate and the argument: what it is, its value in the example, how that is shown.
_ARGUMENTS: dict[str, tuple[str, str, str]] = {
    "phi": ("An angle: a real number, or an array or a tensor `()` or `(B,)`, a batch.", "0.5", "0.5"),
    "theta": ("An angle: a real number, or an array or a tensor `()` or `(B,)`, a batch.", "0.25", "0.25"),
    "omega": ("An angle, like the others.", "0.125", "0.125"),
    "delta": ("An angle, like the others.", "0.125", "0.125"),
    "pauli_word": ("A letter I, X, Y or Z for each wire.", "'XZ'", "'XZ'"),
    "U": (f"The matrix, `(2^k, 2^k)` or `(B, 2^k, 2^k)`: {_DENSE}.", "[[0, 1], [1, 0]]", "array[2, 2]"),
    "D": (f"The diagonal, `(2^k,)` or `(B, 2^k)`: {_DENSE}.", "[1, -1]", "array[2]"),
    "state": (f"The amplitudes, `(2^k,)` or `(B, 2^k)`: {_DENSE}.", "[0.6, 0.8]", "array[2]"),
    "BasisState.state": ("A bit for each wire, or an integer whose first bit is the first wire's.", "[1]", "[1]"),
}


def document(gate: Any) -> None:
    """Complete the docstring of a gate, which says what it is, and what it raises where that is not the usual."""
    if gate.__doc__ is None:  # under python -OO
        return
    formula, _, raises = cleandoc(gate.__doc__).partition("\n\nRaises:")
    wires = "[0, 1]" if gate.name == "PauliRot" else _wires(gate.num_wires)
    lines, values, shown = [], [], []
    for name in signature(gate).parameters:
        if name != "wires":
            text, value, printed = _ARGUMENTS.get(f"{gate.name}.{name}") or _ARGUMENTS[name]
            lines.append(f"    {name}: {text}")
            values.append(value)
            shown.append(printed)
    lines.append(f"    wires: {_described(gate.num_wires)}")
    call = ", ".join([*values, f"wires={wires}"])
    printed = ", ".join([*shown, f"wires={wires if '[' in wires else f'[{wires}]'}"])
    example = f">>> import ketgrad as kg\n>>> kg.{gate.name}({call})\n{gate.name}({printed})"
    parts = [formula, "Args:\n" + "\n".join(lines), *([f"Raises:{raises}"] if raises else []), example]
    gate.__doc__ = "\n\n".join(parts)


def _wires(count: int | None) -> str:
    return "0" if count in (1, None) else str(list(range(count or 1)))


def _described(count: int | None) -> str:
    """The wires that a gate takes."""
    if count is None:
        return "A wire, or a list of wires: integers, strings or other labels."
    if count == 1:
        return "A wire: an integer, a string or another label."
    return f"A list of {count} wires, in the order that is meant above: integers, strings or other labels."
