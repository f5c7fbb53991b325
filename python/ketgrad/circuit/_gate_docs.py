"""Docstrings of gates: adds arguments and an example to the formula, in one form for all gates."""

from __future__ import annotations

from inspect import cleandoc, signature
from typing import Any

__all__ = ["document"]

_DENSE = "a list, an array or a tensor"
# By the name of an argument, or `gate.argument`: the description, the value in the example, and the repr of that value.
_ARGUMENTS: dict[str, tuple[str, str, str]] = {
    "phi": ("An angle: a real number, or an array or tensor `()`, or `(B,)` for a batch.", "0.5", "0.5"),
    "theta": ("An angle: a real number, or an array or tensor `()`, or `(B,)` for a batch.", "0.25", "0.25"),
    "omega": ("An angle, like the others.", "0.125", "0.125"),
    "delta": ("An angle, like the others.", "0.125", "0.125"),
    "pauli_word": ("A letter I, X, Y or Z for each wire.", "'XZ'", "'XZ'"),
    "U": (f"The matrix, `(2^k, 2^k)` or `(B, 2^k, 2^k)`: {_DENSE}.", "[[0, 1], [1, 0]]", "array[2, 2]"),
    "D": (f"The diagonal, `(2^k,)` or `(B, 2^k)`: {_DENSE}.", "[1, -1]", "array[2]"),
    "t": ("A time: a real number, or an array or tensor `()`, or `(B,)` for a batch.", "0.5", "0.5"),
    "diagonal": (
        f"The diagonal of D, `(2^k,)` or `(B, 2^k)`, real: {_DENSE}; `tabulate` makes one of a function of bits.",
        "[0, 1]",
        "array[2]",
    ),
    "state": (f"The amplitudes, `(2^k,)` or `(B, 2^k)`: {_DENSE}.", "[0.6, 0.8]", "array[2]"),
    "BasisState.state": ("A bit for each wire, or an integer whose first bit is the first wire's.", "[1]", "[1]"),
}


def document(gate: Any) -> None:
    """Complete the docstring of a gate, which has the formula and, if there is anything special, what is raised."""
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
    return f"A list of {count} wires, in the order of the formula: integers, strings or other labels."
