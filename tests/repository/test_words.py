"""One concept, one word: the glossary defines each once, retired ones stay away, a type name has one definition."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
HEADING = "## Retired words"

# The interpreter of PTX has the words of that language.
NATIVE = ["csrc", "cuda", "tests/csrc", "tests/cuda"]
NATIVE_ENDINGS = {".h", ".inl", ".cpp", ".cu"}
NOT_NATIVE = "tests/cuda/ptx"

# Type names of which two definitions are no two concepts.
MIRRORS = {
    "Shared": "what nvcc's word means in device.h, and what it means to the emulation",
}


# --- the table of the glossary ----------------------------------------------------------------------------------------


class Retired(NamedTuple):
    pattern: str
    where: str
    instead: str


def rows_of(text: str) -> Iterator[list[str]]:
    """The cells of each row of each table; a `\\|` is no border."""
    for line in re.findall(r"^\|.*\|$", text, flags=re.MULTILINE):
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not set("".join(cells)) <= set("-: "):
            yield cells


@cache
def retired() -> list[Retired]:
    table = GLOSSARY.read_text(encoding="utf-8").split(HEADING)[1]
    found = []
    for patterns, where, instead in rows_of(table):
        found += [Retired(p.replace("\\|", "|"), where, instead) for p in re.findall(r"`([^`]+)`", patterns)]
    return found


def compiled(pattern: str) -> re.Pattern[str]:
    """Whole words; a space of the pattern is any white space, also where a comment goes on in the next line."""
    return re.compile(r"(?<!\w)(?:" + pattern.replace(" ", r"(?:\s|//|#)+") + r")(?!\w)")


# --- files ------------------------------------------------------------------------------------------------------------


def files_of(folder: str, endings: set[str]) -> list[Path]:
    found = sorted(path for path in (ROOT / folder).rglob("*") if path.suffix in endings)
    return [path for path in found if NOT_NATIVE not in path.as_posix()]


@cache
def files() -> dict[str, list[Path]]:
    """Those that each name in the table's second column stands for."""
    documents = list(ROOT.glob("*.md"))
    for folder in ("docs", "csrc", "cuda", "python", "tests", "examples", "benchmarks"):
        documents += files_of(folder, {".md", ".rst"})
    return {
        "native": [path for folder in NATIVE for path in files_of(folder, NATIVE_ENDINGS)],
        "Python": files_of("python", {".py", ".pyi"}),
        "documents": [path for path in documents if path != GLOSSARY],
    }


@cache
def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


# --- tests ------------------------------------------------------------------------------------------------------------


def test_the_table_is_read() -> None:
    assert len(retired()) > 40
    assert {name for word in retired() for name in word.where.split(", ")} == set(files())
    assert all(len(found) > 10 for found in files().values())


def test_patterns_find_what_they_are_to_find() -> None:
    fast = next(word for word in retired() if word.pattern == "fast turns?")
    assert compiled(fast.pattern).search("// the fast\n  // turns of a block")
    assert not compiled(fast.pattern).search("a breakfast turns up")


@pytest.mark.parametrize("word", retired(), ids=lambda word: word.pattern)
def test_retired_words_stay_away(word: Retired) -> None:
    pattern = compiled(word.pattern)
    found = []
    for path in {path for name in word.where.split(", ") for path in files()[name]}:
        for match in pattern.finditer(text_of(path)):
            line = text_of(path).count("\n", 0, match.start()) + 1
            found.append(f"{path.relative_to(ROOT).as_posix()}:{line}: {match[0]!r} is retired: say {word.instead}")
    assert not found, "\n".join(sorted(found))


def test_the_glossary_defines_each_word_once() -> None:
    definitions = GLOSSARY.read_text(encoding="utf-8").split(HEADING)[0]
    words = Counter(word for row in rows_of(definitions) for word in re.findall(r"\*\*([^*]+)\*\*", " ".join(row)))
    assert len(words) > 60
    assert [word for word, count in words.items() if count > 1] == []


# Code is formatted so that what belongs to a namespace, and no class or function, begins a line.
CPP_TYPE = re.compile(
    r"^(?:template <[^\n]*>\n)?"
    r"(?:(?:struct|class|enum class) (?:alignas\((?:[^()]|\([^()]*\))*\) )?(\w+)(?=[ \n:{])(?![^{;\n]*;)"
    r"|using (\w+) =)",
    flags=re.MULTILINE,
)


def definitions_of_types() -> dict[str, list[str]]:
    """Where C++ and Python define each type, apart from forward declarations, specialisations and stubs."""
    found: dict[str, list[str]] = defaultdict(list)
    for folder in ("csrc", "cuda"):
        for path in files_of(folder, NATIVE_ENDINGS):
            for match in CPP_TYPE.finditer(text_of(path)):
                found[f"C++ {match[1] or match[2]}"].append(path.relative_to(ROOT).as_posix())
    for path in files_of("python", {".py"}):
        for name in re.findall(r"^class (\w+)", text_of(path), flags=re.MULTILINE):
            found[f"Python {name}"].append(path.relative_to(ROOT).as_posix())
    return found


def test_a_type_name_has_one_definition() -> None:
    found = definitions_of_types()
    assert len(found) > 300
    twice = {name: places for name, places in found.items() if len(places) > 1}
    assert [f"{name}: {', '.join(p)}" for name, p in twice.items() if name.split()[1] not in MIRRORS] == []
    assert set(MIRRORS) <= {name.split()[1] for name in twice}, "no longer defined twice"
