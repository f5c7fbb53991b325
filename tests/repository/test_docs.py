"""The documents: their code runs, their links lead somewhere, their tables and names are those of the code."""

from __future__ import annotations

import inspect
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import ketgrad as kg
from ketgrad.circuit import measurements, operations

ROOT = Path(__file__).resolve().parents[2]
GUIDES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RECIPES = ROOT / "docs" / "recipes.md"  # its code is applied by test_recipes.py
INTERNALS = sorted((ROOT / "docs" / "internals").glob("*.md"))
READMES = sorted(p for top in ("csrc", "cuda", "python", "tests", "examples") for p in (ROOT / top).rglob("README.md"))
DOCUMENTS = [*GUIDES, *INTERNALS, *READMES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
CONCEPTS = ROOT / "docs" / "concepts.md"
ARCHITECTURE = ROOT / "docs" / "architecture.md"
GLOSSARY = ROOT / "docs" / "glossary.md"

# What a first version was to have, by the names that users know.
PROMISED_OPERATIONS = """
    Identity X Y Z H S T SX RX RY RZ PhaseShift Rot U1 U2 U3 CNOT CY CZ CH SWAP ISWAP Toffoli CCZ CSWAP CRX CRY CRZ CRot
    ControlledPhaseShift IsingXX IsingYY IsingZZ IsingXY SingleExcitation SingleExcitationPlus SingleExcitationMinus
    DoubleExcitation DoubleExcitationPlus DoubleExcitationMinus MultiRZ PauliRot PSWAP GlobalPhase QubitUnitary
    DiagonalQubitUnitary DiagonalEvolution BasisState StatePrep
"""
PROMISED_OBSERVABLES = "X Y Z H Identity Hermitian Diagonal Projector SparseHamiltonian Hamiltonian"
PROMISED_MEASUREMENTS = "expval var probs state density_matrix sample counts"


def name_of(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


@cache
def text_of(document: Path) -> str:
    return document.read_text(encoding="utf-8")


def prose_of(document: Path) -> str:
    """The text without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", text_of(document), flags=re.DOTALL | re.MULTILINE)


# --- code ------------------------------------------------------------------------------------------------------------


def python_blocks(document: Path) -> list[str]:
    if document == RECIPES:
        return []
    return re.findall(r"^```python\n(.*?)^```$", text_of(document), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("document", [d for d in GUIDES if python_blocks(d)], ids=name_of)
def test_code_runs(document: Path) -> None:
    """The blocks of a document run one after the other in one namespace, as far as the libraries are installed."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, block in enumerate(python_blocks(document)):
        for library in re.findall(r"^(?:import|from) (pennylane|qiskit)\b", block, flags=re.MULTILINE):
            pytest.importorskip(library)
        exec(compile(block, f"{name_of(document)}, block {number}", "exec"), namespace)


def test_the_guides_have_code() -> None:
    names = [
        "README.md",
        "docs/accuracy.md",
        "docs/concepts.md",
        "docs/index.md",
        "docs/interchange.md",
        "docs/nn.md",
        "docs/pennylane.md",
    ]
    assert [name_of(d) for d in GUIDES if python_blocks(d)] == names


def test_the_tests_that_the_guide_to_pennylane_names() -> None:
    table = text_of(ROOT / "docs" / "pennylane.md").split("## What is supported")[1].split("##")[0]
    tests = (ROOT / "tests" / "interop" / "test_pennylane_device.py").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", table)
    assert len(set(named)) > 20
    assert [name for name in named if f"def {name}(" not in tests] == []


# --- links -----------------------------------------------------------------------------------------------------------


def anchors_of(document: Path) -> set[str]:
    """The fragments that GitHub gives to the headings."""
    headings = re.findall(r"^#+ +(.+?) *$", prose_of(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(document)):
        if re.match(r"https?:", target):
            continue
        path, _, fragment = target.partition("#")
        there = (document.parent / path).resolve() if path else document
        assert there.is_relative_to(ROOT), target
        assert there.exists(), f"{name_of(document)} links to {target}, which does not exist"
        if fragment:
            assert fragment in anchors_of(there), f"{name_of(document)} links to {target}: no such heading"


# --- names -----------------------------------------------------------------------------------------------------------


PUBLIC = [name for name in kg.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_have_docstrings(name: str) -> None:
    found = getattr(kg, name)
    # A class's own: what it inherits is about its parent.
    docstring = vars(found).get("__doc__") if inspect.isclass(found) else found.__doc__
    assert docstring
    assert docstring.strip()


@pytest.mark.parametrize("name", [name for name in PUBLIC if not inspect.ismodule(getattr(kg, name))])
def test_public_names_are_in_the_guides(name: str) -> None:
    assert any(re.search(rf"\b{name}\b", text_of(guide)) for guide in GUIDES)


def tables_of(document: Path) -> dict[str, list[list[str]]]:
    """The rows of each table, by the head of its first column."""
    tables: dict[str, list[list[str]]] = {}
    for block in re.findall(r"(?:^\|.*\|\n)+", text_of(document), flags=re.MULTILINE):
        lines = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block.splitlines()]
        head, _, *rows = [[cell.strip() for cell in line] for line in lines]
        assert all(len(row) == len(head) for row in rows), f"{name_of(document)}: a row of the table of {head}"
        tables[head[0]] = rows
    return tables


def signatures(rows: list[list[str]]) -> dict[str, list[str]]:
    """`RX(phi, wires)` in a first column as {"RX": ["phi", "wires"]}."""
    found = re.findall(r"`(\w+)\(([^)]*)\)`", " ".join(row[0] for row in rows))
    return {name: [part.strip() for part in parameters.split(",") if part.strip()] for name, parameters in found}


def parameters_of(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_table_of_gates() -> None:
    rows = tables_of(CONCEPTS)["gate"]
    listed = signatures(rows)
    assert set(listed) == set(operations.OPERATIONS)
    assert len(rows) == len(listed)
    for (name, parameters), (_, wires, _, inverse) in zip(listed.items(), rows, strict=True):
        gate = operations.OPERATIONS[name]
        assert parameters == parameters_of(gate), name
        assert wires == str(gate.num_wires) or (gate.num_wires is None and wires.endswith(" or more")), name
        expected = "none" if gate.is_preparation else "itself" if gate.is_self_inverse else "`adjoint`"
        assert inverse == expected, name


@pytest.mark.parametrize("name", PROMISED_OPERATIONS.split())
def test_help_of_gates_is_plain_and_complete(name: str) -> None:
    """The examples in it run as all docstrings do."""
    gate = operations.OPERATIONS[name]
    text = inspect.getdoc(gate) or ""
    assert "$" not in text
    assert "\\" not in text
    assert f">>> kg.{name}(" in text
    arguments = re.search(r"^Args:\n((?:    .*\n)+)", text, re.MULTILINE)
    assert arguments is not None
    assert re.findall(r"^    (\w+): ", arguments[1], re.MULTILINE) == list(parameters_of(gate))


def test_table_of_observables() -> None:
    listed = signatures(tables_of(CONCEPTS)["observable"])
    assert set(listed) == set(PROMISED_OBSERVABLES.split())
    for name, parameters in listed.items():
        assert parameters == parameters_of(getattr(kg, name)), name


def test_table_of_measurements() -> None:
    listed = signatures(tables_of(CONCEPTS)["measurement"])
    assert set(listed) == set(measurements.KINDS) == set(PROMISED_MEASUREMENTS.split())
    for name, parameters in listed.items():
        assert parameters == parameters_of(getattr(kg, name)), name


@pytest.mark.parametrize("name", PROMISED_OPERATIONS.split())
def test_promised_operations_are_documented(name: str) -> None:
    assert name in signatures(tables_of(CONCEPTS)["gate"])
    assert name in kg.__all__


# --- the reference ----------------------------------------------------------------------------------------------------


def test_the_reference_has_every_public_name_once() -> None:
    pages = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "reference").glob("*.rst"))]
    found = re.findall(r"^\.\. auto(?:class|function):: ketgrad\.(\S+)$", "\n".join(pages), flags=re.MULTILINE)
    assert len(found) == len(set(found))
    named = [name for name in PUBLIC if not inspect.ismodule(getattr(kg, name))]
    aliases = {name for name in named if getattr(getattr(kg, name), "__name__", None) != name}  # and objects
    expected = {*named, *[f"nn.{name}" for name in kg.nn.__all__], "optim.QNG"} - aliases
    assert expected <= set(found)
    assert all(f"``{name}``" in "\n".join(pages) for name in aliases)


def test_every_page_is_on_the_site() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    pages += [path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.rst")]
    assert [page for page in pages if page != "index" and f"\n{page}\n" not in index] == []
    examples = (ROOT / "docs" / "examples.rst").read_text(encoding="utf-8")
    assert [f.name for f in (ROOT / "examples").glob("*.py") if f"../examples/{f.name}" not in examples] == []


# --- documents about the code name what is there ----------------------------------------------------------------------


ABOUT_CODE = [ARCHITECTURE, *INTERNALS]
FILE = r"[\w./-]+\.(?:py|pyi|cpp|cu|h|inl|txt|toml|md)"
NAME = r"\w+(?:(?:::|\.)\w+)*"


def spans_of(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


@cache
def sources() -> frozenset[str]:
    """Every word in the code."""
    files = [path for folder in ("csrc", "cuda", "python", "tests") for path in (ROOT / folder).rglob("*")]
    files += [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "setup.py"]
    texts = [f.read_text(encoding="utf-8") for f in files if f.suffix in {".py", ".pyi", ".cpp", ".cu", ".h"}]
    texts += [f.read_text(encoding="utf-8") for f in files[-3:]]
    return frozenset(word for text in texts for word in re.findall(r"\w+", text))


def missing_files(text: str, bases: list[Path]) -> list[str]:
    paths = [s for s in spans_of(text) if re.fullmatch(FILE, s)]
    return sorted(p for p in paths if not any((base / p).is_file() for base in bases))


def missing_names(text: str) -> list[str]:
    names = [s for s in spans_of(text) if re.fullmatch(NAME, s) and not re.fullmatch(FILE, s)]
    return sorted(n for n in names if not set(re.split(r"::|\.", n)) <= sources())


def test_the_architecture_is_short_and_has_names_to_check() -> None:
    assert len(text_of(ARCHITECTURE).splitlines()) <= 200
    spans = [span for document in ABOUT_CODE for span in spans_of(prose_of(document))]
    assert len([s for s in spans if re.fullmatch(FILE, s)]) > 80
    assert len([s for s in spans if re.fullmatch(NAME, s)]) > 200


@pytest.mark.parametrize("document", ABOUT_CODE, ids=name_of)
def test_documents_about_the_code_name_what_is_there(document: Path) -> None:
    package = ROOT / "python" / "ketgrad"
    here = {"cpu.md": ROOT / "csrc" / "cpu" / "kernels", "compilation.md": package / "compilation"}
    bases = [ROOT, ROOT / "csrc", package, *([here[document.name]] if document.name in here else [])]
    assert missing_files(prose_of(document), bases) == []
    assert missing_names(prose_of(document)) == []


def test_the_glossary_names_what_is_there() -> None:
    """In its definitions; not what other libraries call it, nor what was retired."""
    definitions = text_of(GLOSSARY).split("## Retired words")[0]
    cells = [re.split(r"(?<!\\)\|", line)[1:3] for line in re.findall(r"^\|.*\|$", definitions, flags=re.MULTILINE)]
    ours = "\n".join(" ".join(row) for row in cells)
    assert missing_files(ours, [ROOT / "csrc", ROOT / "python" / "ketgrad"]) == []
    assert missing_names(ours) == []


@pytest.mark.parametrize("document", READMES, ids=name_of)
def test_readmes_of_folders_name_what_is_there(document: Path) -> None:
    parents = [p for p in document.parents if p.is_relative_to(ROOT)]
    bases = [*parents, ROOT / "csrc", ROOT / "python" / "ketgrad", ROOT / "tests"]
    assert missing_files(prose_of(document), bases) == []
    if "examples" not in document.parts:  # which names what other libraries have
        assert missing_names(prose_of(document)) == []


CODE_FOLDERS = [
    *(f"csrc/{name}" for name in ("math", "runtime", "program", "plan", "cpu", "cpu/engine", "cpu/kernels", "ops")),
    "csrc/bindings",
    "cuda",
    *(f"cuda/{name}" for name in ("ops", "engine", "kernels", "tables", "emulation")),
    *(f"python/ketgrad/{name}" for name in ("circuit", "native", "autograd", "execution", "compilation", "nn")),
    *(f"python/ketgrad/{name}" for name in ("compilation/tracing", "compilation/lowering", "interop")),
    "python/ketgrad/interop/pennylane",
    *(f"tests/{name}" for name in ("circuit", "native", "autograd", "execution", "compilation", "nn", "interop")),
    *(f"tests/{name}" for name in ("csrc", "cuda", "repository", "upstream")),
]


@pytest.mark.parametrize("folder", CODE_FOLDERS)
def test_folders_say_what_belongs_there(folder: str) -> None:
    lines = text_of(ROOT / folder / "README.md").splitlines()
    assert 5 <= len(lines) <= 20
