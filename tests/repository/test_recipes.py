"""`docs/recipes.md` adds a gate and a measurement, word for word, to a copy of the sources; they then work everywhere.

Each edit of a recipe is a line "`file`, after (or before) `a line of it`:" and a block of code. The copy is compiled
without optimisation and for the portable instruction set alone, which takes about a minute of one core: the extension
for Python's routes (`recipe_routes.py`), and the engine of CUDA under the emulation (`recipe_check.cpp`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
RECIPES = ROOT / "docs" / "recipes.md"
COMPILER = os.environ.get("CXX", "c++")
FLAGS = ["-std=c++20", "-O0", "-g0", "-fPIC", "-fvisibility=hidden", "-Werror=switch", "-Wno-psabi"]
FLAGS += ["-DKETGRAD_PORTABLE", "-DNDEBUG", "-Icsrc", "-I."]
OF_TORCH = ["-DTORCH_TARGET_VERSION=0x020b000000000000", "-DTORCH_STABLE_ONLY", "-DTORCH_EXTENSION_NAME=_C"]
TIMEOUT = 600
"""Seconds that a compiler or a check may take on a busy machine."""

_EDIT = re.compile(r"^`([^`\n]+)`, (after|before) `([^`\n]+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Edit(NamedTuple):
    """Lines that go into a file, beside the one line that the anchor names."""

    file: str
    side: str
    anchor: str
    text: str


def edits() -> list[Edit]:
    return [Edit(*found) for found in _EDIT.findall(RECIPES.read_text(encoding="utf-8"))]


def position(lines: list[str], edit: Edit) -> int:
    """Where the line of an edit is: the only one that is the anchor, or else the only one that has it."""
    whole = [i for i, line in enumerate(lines) if line.strip() == edit.anchor]
    found = whole or [i for i, line in enumerate(lines) if edit.anchor in line]
    assert len(found) == 1, f"{edit.file}: {len(found)} lines are {edit.anchor!r}"
    return found[0]


def apply(edit: Edit, root: Path) -> None:
    path = root / edit.file
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    at = position(lines, edit) + (edit.side == "after")
    path.write_text("".join([*lines[:at], edit.text, *lines[at:]]), encoding="utf-8")


def listed(listing: str) -> list[str]:
    lines = (line.split("#")[0].strip() for line in (ROOT / listing).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]


def run(command: list[str], root: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=root, env={**os.environ, **environment}, capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-4000:]}{done.stderr[-8000:]}"
    return done.stdout


def compiled(root: Path, sources: dict[str, list[str]]) -> dict[str, str]:
    """The object files of sources, each with flags of its own; as many compilers at a time as there are cores."""

    def one(source: str) -> str:
        target = root / "objects" / (source.replace("/", "_") + ".o")
        run([COMPILER, *FLAGS, *sources[source], "-x", "c++", "-c", source, "-o", str(target)], root)
        return str(target)

    (root / "objects").mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(sources, pool.map(one, sources), strict=True))


class Tree(NamedTuple):
    """The copy, with what was compiled of it."""

    root: Path
    objects: dict[str, str]


def tree_of(root: Path) -> Tree:
    """The sources after the recipes, compiled."""
    for folder in ("csrc", "cuda", "python/ketgrad", "tests/csrc", "tests/cuda", "tests/repository"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for file in ("oracle.py", "cases.py"):
        shutil.copy(ROOT / "tests" / file, root / "tests" / file)
    for edit in edits():
        apply(edit, root)
    headers = [
        *cpp_extension.include_paths(),
        sysconfig.get_path("include"),
    ]
    of_torch = [*OF_TORCH, *(flag for path in headers for flag in ("-isystem", path))]
    own = [source for source in listed("csrc/sources.txt") if "avx" not in source]
    needs_torch = ("csrc/ops/", "csrc/bindings/")
    sources = {source: of_torch if source.startswith(needs_torch) else [] for source in own}
    without = {"cuda/ops/module.cpp", "cuda/ops/operators.cpp", "cuda/ops/registration.cpp"}
    sources |= {source: ["-w"] for source in listed("cuda/sources.txt") if source not in without}
    sources |= {
        "cuda/emulation/emulation.cpp": ["-w"],
        "tests/repository/recipe_check.cpp": ["-Itests/csrc", "-Itests/cuda"],
    }
    return Tree(root, compiled(root, sources))


def test_recipes_have_edits_of_every_part() -> None:
    files = {edit.file for edit in edits()}
    parts = (
        "csrc/program/",
        "csrc/plan/",
        "csrc/cpu/",
        "cuda/engine/",
        "cuda/kernels/",
        "python/ketgrad/",
        "tests/csrc/",
    )
    assert [part for part in parts if not any(file.startswith(part) for file in files)] == []
    assert len(edits()) > 30
    text = RECIPES.read_text(encoding="utf-8")
    count = text.count("```cpp\n") + text.count("```py\n")
    assert len(edits()) == count  # none is written in a way that `edits` does not see


def test_files_that_recipes_name_exist() -> None:
    spans = set(re.findall(r"`([^`\n]+)`", RECIPES.read_text(encoding="utf-8")))
    files = [span for span in spans if re.fullmatch(r"[\w./-]+\.(py|pyi|cpp|cu|h|md|rst)", span)]
    assert len(files) > 20
    bases = [ROOT, ROOT / "csrc", ROOT / "python" / "ketgrad", ROOT / "cuda" / "kernels"]
    assert [file for file in files if not any((base / file).is_file() for base in bases)] == []


@pytest.mark.parametrize("edit", edits(), ids=lambda edit: f"{edit.file} {edit.side} {edit.anchor[:30]}")
def test_the_line_of_each_edit_is_there_once(edit: Edit) -> None:
    position((ROOT / edit.file).read_text(encoding="utf-8").splitlines(), edit)


def check_engines(tree: Tree) -> None:
    """Run what is native, on the CPU and on the emulated GPU."""
    program = str(tree.root / "recipe_check")
    objects = [o for source, o in tree.objects.items() if not source.startswith(("csrc/ops/", "csrc/bindings/"))]
    run([COMPILER, *objects, "-pthread", "-o", program], tree.root)
    run([program], tree.root)


def check_routes(tree: Tree) -> None:
    """Run every route of Python with an extension of the copy."""
    target = tree.root / "python" / "ketgrad" / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    objects = [o for source, o in tree.objects.items() if source.startswith("csrc/")]
    libraries = [f"-L{Path(torch.__file__).parent / 'lib'}", "-lc10", "-ltorch", "-ltorch_cpu", "-ltorch_python"]
    run([COMPILER, "-shared", *objects, *libraries, "-o", str(target)], tree.root)
    paths = os.pathsep.join([str(tree.root / "python"), str(tree.root / "tests")])
    run([sys.executable, str(HERE / "recipe_routes.py")], tree.root, PYTHONPATH=paths)


# One test: what it compiles is not to be compiled once for each process that runs tests.
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="linked, and emulated, as Linux does")
def test_every_backend_and_route_runs_what_recipes_add(tmp_path: Path) -> None:
    tree = tree_of(tmp_path)
    check_engines(tree)
    check_routes(tree)
