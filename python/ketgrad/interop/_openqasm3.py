"""Qiskit's importer of OpenQASM 3, with fixes.

The importer binds parameters of defined gates in alphabetical order, raises errors of many types for wrong programs,
mostly without a position, and does not limit the sizes of registers and numbers of controls.

Importing this module imports qiskit_qasm3_import.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn

from openqasm3 import ast
from openqasm3 import parse as parse_to_tree
from openqasm3.parser import QASM3ParsingError
from qiskit import QuantumCircuit
from qiskit_qasm3_import.converter import ConvertVisitor, GateBuilder

from ._openqasm_scan import MAX_BITS

__all__ = ["parse"]


def parse(text: str) -> QuantumCircuit:
    """The circuit of a program.

    Raises:
        ValueError: the program has an error; the message has line and column.
        NotImplementedError: it has a loop.
    """
    try:
        tree = parse_to_tree(text)
    except QASM3ParsingError as error:
        raise ValueError(str(error) or _unexpected(error)) from error
    return _Converter().convert(tree).circuit


def _unexpected(error: Exception) -> str:
    """The message of a parser's error without one: the position and the unexpected token."""
    causes = error.__cause__.args if error.__cause__ else ()
    token = getattr(causes[0], "offendingToken", None) if causes else None
    return "the syntax is wrong" if token is None else f"{token.line},{token.column}: unexpected {token.text!r}"


class _WrongProgramError(ValueError):
    """An error with line and column."""


class _Converter(ConvertVisitor):  # type: ignore[misc]
    def visit(self, node: Any, context: Any = None) -> Any:
        try:
            return super().visit(node, context)
        except (_WrongProgramError, NotImplementedError):
            raise
        except Exception as error:
            raise _WrongProgramError(_placed(node, str(error) or type(error).__name__)) from error

    def visit_ForInLoop(self, node: Any, context: Any) -> NoReturn:
        raise NotImplementedError(_placed(node, "loops are not supported; write their statements out"))

    visit_WhileLoop = visit_ForInLoop

    def visit_QuantumGate(self, node: Any, context: Any) -> Any:
        symbol = context.symbol_table.get(node.name.name, node)
        expected = getattr(getattr(symbol, "type", None), "n_classical", None)
        if isinstance(expected, int) and len(node.arguments) != expected:  # for U it is a list of types
            raise ValueError(f"the gate {node.name.name} takes {expected} angles, not {len(node.arguments)}")
        return super().visit_QuantumGate(node, context)

    def _define_gate(self, name: str, definition: Any, *rest: Any) -> Any:
        definer = rest[-2]
        if isinstance(definer, ast.QuantumGateDefinition):
            definition = _in_order(definition, [argument.name for argument in definer.arguments])
        return super()._define_gate(name, definition, *rest)

    def _resolve_constant_int(self, node: Any, context: Any) -> int:
        value: int = super()._resolve_constant_int(node, context)
        if value > MAX_BITS:
            raise _WrongProgramError(_placed(node, f"{value} is beyond the limit of {MAX_BITS}"))
        return value


def _placed(node: Any, message: str) -> str:
    if re.match(r"\d+,\d+: ", message) or node.span is None:
        return message
    return f"{node.span.start_line},{node.span.start_column}: {message}"


def _in_order(build: GateBuilder, names: list[str]) -> Callable[..., Any]:
    """The gate with its parameters in the order of declaration."""

    def gate(*values: Any) -> Any:
        given = dict(zip(names, values, strict=True))
        return build(*[given[each.name] for each in build._order])

    return gate
