"""Checks of an OpenQASM program before it is parsed: its version, included files and size.

One pass over its tokens, linear in the length of the text. It refuses what would crash the parsers or take them too
long: included files, huge numbers, a few lines that expand to billions of gates.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

__all__ = ["MAX_BITS", "prefixed", "read", "statement_ends"]

MAX_BITS = 1000
"""The most qubits of a program, and the most classical bits."""
MAX_NESTING = 100
"""The most levels of nested brackets, signs and definitions of gates."""
MAX_OPERATORS = 1000
"""The most operators of an expression."""
MAX_GATES = 4_000_000
"""The most gates that a program may expand to."""
MAX_EXPANSION = 100_000, 100
"""The most of them that may come from definitions: a constant, and a number per statement. Each takes some 0.2 ms."""

_TOKEN = re.compile(
    r"""
    (?P<blank> \s+ | //[^\n]* )
    | (?P<comment> /\*.*?\*/ )
    | (?P<open> /\* )
    | (?P<string> "[^"\n]*" | '[^'\n]*' )
    | (?P<number> 0[xXbBoO][\da-fA-F_]+ | (?:\d[\d_]*(?:\.[\d_]*)?|\.\d[\d_]*)(?:[eE][+-]?\d[\d_]*)? )
    | (?P<name> \$\d+ | [^\W\d]\w* )
    | (?P<symbol> [][(){}:;.,=+*/%|&^@~!<>#-] )
    """,
    re.VERBOSE | re.DOTALL,
)
_HEADERS = {"2": "qelib1.inc", "3": "stdgates.inc"}
_ONLY_2 = {"qreg", "creg", "opaque"}
_ONLY_3 = {"qubit", "bit", "input", "output", "const", "let", "ctrl", "negctrl", "inv", "pow", "gphase", "@", "def"}
_OPERATORS = set("+-*/%^~!&|<>")
_OPEN, _CLOSE = set("([{"), set(")]}")


class Token(NamedTuple):
    """A token and its position in the text."""

    kind: str
    text: str
    start: int


def prefixed(version: str, message: object) -> str:
    """A message with the prefix of errors of a program; `version` may be empty."""
    return f"OpenQASM {version}: {message}" if version else f"OpenQASM: {message}"


def read(source: str | Path) -> tuple[str, str]:
    """A program that passed the checks, and its version, "2" or "3".

    Raises:
        TypeError: the source is neither a string nor a path.
        ValueError: its version is missing and cannot be inferred, or is neither 2 nor 3; it includes another file than
            the header of its version; it exceeds the limits of size or nesting; a number is too large.
    """
    program = _Program(_text(source))
    version = program.version()
    program.check(version)
    return program.text, version


def _text(source: str | Path) -> str:
    """The program, without a byte-order mark."""
    if isinstance(source, Path):
        try:
            source = source.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(prefixed("", f"the file {str(source)!r} is no text in UTF-8: {error}")) from None
    if not isinstance(source, str):
        raise TypeError(f"an OpenQASM program is a string or the pathlib.Path of a file, not {type(source).__name__}")
    return source.removeprefix("\ufeff")


def statement_ends(text: str) -> list[int]:
    """The positions after each top-level statement."""
    ends, depth = [], 0
    for token in _tokens(text):
        depth += (token.text in _OPEN) - (token.text in _CLOSE)
        if depth == 0 and token.text in (";", "}"):
            ends.append(token.start + 1)
    return ends


def _tokens(text: str) -> Iterator[Token]:
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(prefixed("", f"{_where(text, position)}: unexpected {text[position]!r}"))
        kind = match.lastgroup or ""
        if kind == "open":
            raise ValueError(prefixed("", f"{_where(text, position)}: the comment has no end"))
        if kind != "blank":
            yield Token(kind, match[0], position)
        position = match.end()


def _where(text: str, position: int) -> str:
    """The line from 1 and the column from 0, as the parsers count them."""
    start = text.rfind("\n", 0, position) + 1
    return f"{text.count(chr(10), 0, position) + 1},{position - start}"


class _Program:
    def __init__(self, text: str) -> None:
        self.text = text
        pieces = list(_tokens(text))
        self.tokens = [token for token in pieces if token.kind != "comment"]
        self.block_comment = next((token.start for token in pieces if token.kind == "comment"), None)
        self.name = ""

    def refuse(self, token: Token, reason: str) -> NoReturn:
        raise ValueError(prefixed(self.name, f"{_where(self.text, token.start)}: {reason}"))

    # ---- version

    def version(self) -> str:
        """The version in the first statement, or else inferred from keywords, with a warning."""
        first = [token.text for token in self.tokens[:3]]
        if first[:1] == ["OPENQASM"]:
            major = re.fullmatch(r"(\d+)(\.\d+)?", first[1]) if first[2:] == [";"] else None
            if major is None:
                self.refuse(self.tokens[0], "the version must be a number, such as in OPENQASM 3.0;")
            if major[1] not in _HEADERS:
                self.refuse(self.tokens[0], f"version {first[1]} is not supported, only 2 and 3")
            return major[1]
        for version, words in (("3", _ONLY_3), ("2", _ONLY_2)):
            for token in self.tokens:
                if token.text in words or token.text[1:-1] == _HEADERS[version]:
                    said = f"the program names no version, and is read as OpenQASM {version} because of {token.text}"
                    warnings.warn(f"{said}; begin it with OPENQASM {version}.0;", stacklevel=4)
                    return version
        hint = "such as OPENQASM 3.0; (a file is given as a pathlib.Path)"
        raise ValueError(prefixed("", f"the program must begin with its version, {hint}"))

    # ---- limits

    def check(self, version: str) -> None:
        self.name = version
        if version == "2" and (start := self.block_comment) is not None:
            self.refuse(Token("blank", "", start), "version 2 has no comments in /* */, only those after //")
        for before, token in zip([Token("", "", 0), *self.tokens], self.tokens, strict=False):
            if before.text == "include" and token.text[1:-1] != _HEADERS[version]:
                header = f'only "{_HEADERS[version]}" is included, which is built in'
                self.refuse(token, f"{header}; put the text of other files into the program")
            if token.kind == "number":
                self._check_number(before, token)
            elif token.text.startswith("$") and len(token.text) > 4:
                self.refuse(token, f"the qubit {token.text} is beyond the limit of {MAX_BITS} qubits")
        self._check_nesting()
        self._check_size()

    def _check_number(self, before: Token, token: Token) -> None:
        value = _value(token.text.replace("_", ""))
        if value is None:
            self.refuse(token, f"{token.text} is no number")
        if not math.isfinite(value):
            self.refuse(token, f"the number {_short(token)} is too large")
        if before.text in ("[", "=") and value >= 2**31:
            self.refuse(token, f"{_short(token)} is too large for an index, a size or a value of bits")

    def _check_nesting(self) -> None:
        depth = signs = operators = 0
        for token in self.tokens:
            depth += (token.text in _OPEN) - (token.text in _CLOSE)
            signs = signs + 1 if token.text in _OPERATORS else 0
            operators = 0 if token.text == ";" else operators + (token.text in _OPERATORS)
            if max(depth, signs) > MAX_NESTING:
                self.refuse(token, f"brackets or signs are nested more than {MAX_NESTING} deep")
            if operators > MAX_OPERATORS:
                self.refuse(token, f"an expression has more than {MAX_OPERATORS} operators")

    def _check_size(self) -> None:
        """Check the number of declared bits, and of gates after all definitions are expanded."""
        sizes = self._registers()
        base, more = MAX_EXPANSION
        most_expanded = min(MAX_GATES, base + more * sum(token.text == ";" for token in self.tokens))
        written = expanded = 0
        defined: dict[str, _Definition] = {}
        for gate, statement in self._statements():
            used = [defined[token.text] for token in statement if token.text in defined and token.text != gate]
            count = sum(each.gates for each in used) or 1
            if gate:
                of_gate = defined.setdefault(gate, _Definition())
                of_gate.gates += count
                of_gate.depth = max(of_gate.depth, *(each.depth + 1 for each in used), 1)
                if of_gate.depth > MAX_NESTING:
                    self.refuse(statement[0], f"definitions of gates are nested more than {MAX_NESTING} deep")
                if of_gate.gates > most_expanded:
                    self.refuse(
                        statement[0], f"the gate {gate} stands for more than the limit of {most_expanded} gates"
                    )
            else:
                count *= _broadcast(statement, sizes)
                written, expanded = (written, expanded + count) if used else (written + count, expanded)
                if written + expanded > MAX_GATES or expanded > most_expanded:
                    most = most_expanded if used else MAX_GATES
                    self.refuse(statement[0], f"up to here these are more than the limit of {most} gates")

    def _registers(self) -> dict[str, int]:
        """The sizes of registers by name, if they are literals."""
        found: dict[str, int] = {}
        bits = {"qubits": 0, "classical bits": 0}
        texts = [token.text for token in self.tokens] + [""] * 5
        for index, token in enumerate(self.tokens):
            one, two, three, four = texts[index + 1 : index + 5]
            if token.text in ("qreg", "creg") and two == "[":
                name, size = one, three
            elif token.text in ("qubit", "bit") and (one, three) == ("[", "]"):
                name, size = four, two
            else:
                continue
            if size.isdecimal():
                kind = "qubits" if token.text.startswith("q") else "classical bits"
                found[name] = int(size)
                bits[kind] += int(size)
                if bits[kind] > MAX_BITS:
                    self.refuse(token, f"{bits[kind]} {kind} are beyond the limit of {MAX_BITS}")
        return found

    def _statements(self) -> Iterator[tuple[str, Sequence[Token]]]:
        """Each statement, with the name of the gate in whose definition it is, or ""."""
        statement: list[Token] = []
        gate, depth = "", 0
        for token in self.tokens:
            if token.text not in ("{", "}", ";"):
                statement.append(token)
                continue
            if token.text == "{":
                if statement and statement[0].text == "gate" and not gate:
                    gate, depth, statement = statement[1].text if len(statement) > 1 else "?", 0, []
                depth += 1
            if statement:
                yield gate, statement
            statement = []
            if token.text == "}":
                depth -= 1
                gate = gate if depth else ""


class _Definition:
    """The number of gates that a defined gate expands to, and the depth of its definitions."""

    gates = 0
    depth = 0


def _broadcast(statement: Sequence[Token], sizes: dict[str, int]) -> int:
    """How often a statement applies its gate, at most: the size of a register without an index, or with a range."""
    texts = [token.text for token in statement]
    ranged = ":" in texts
    return max(
        (sizes.get(one, 1) for one, other in zip(texts, [*texts[1:], ""], strict=True) if ranged or other != "[")
    )


def _value(digits: str) -> float | None:
    """The value of a literal, None if it is no number; beyond 200 characters one with a base prefix is infinite."""
    try:
        if digits[:1] != "0" or not digits[1:2].isalpha() or digits[1] in "eE":
            return float(digits)
        return float(int(digits, 0)) if len(digits) < 200 else math.inf
    except ValueError:
        return None


def _short(token: Token) -> str:
    return token.text if len(token.text) <= 20 else f"{token.text[:20]}… of {len(token.text)} digits"
