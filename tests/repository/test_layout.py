"""The repository's shape: which file may know of which, and that what is said twice is said alike."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ketgrad

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "python" / "ketgrad"
CSRC = ROOT / "csrc"
CUDA = ROOT / "cuda"

CPP_FILES = sorted(p.relative_to(CSRC) for p in CSRC.rglob("*") if p.suffix in {".cpp", ".h"})
CUDA_FILES = sorted(p.relative_to(CUDA).as_posix() for p in CUDA.rglob("*") if p.suffix in {".cu", ".cpp", ".h"})

# Which folders of csrc/ a folder may include from.
REACH = {
    "math": {"math"},
    "runtime": {"math", "runtime"},
    "program": {"math", "program"},
    "plan": {"math", "program", "plan"},
    "cpu": {"math", "runtime", "program", "plan", "cpu"},
    "ops": {"math", "runtime", "program", "plan", "cpu", "ops"},
    "bindings": {"math", "runtime", "program", "plan", "bindings"},
}
# Which folders of cuda/, and of csrc/, a folder of cuda/ may include from.
CUDA_REACH = {
    "tables": {"tables", "math", "program", "plan"},
    "kernels": {"tables", "kernels", "emulation", "math", "program", "plan"},
    "emulation": {"emulation", "kernels", "math"},
    "engine": {"tables", "kernels", "engine", "math", "program", "plan", "runtime"},
    "ops": {"tables", "kernels", "engine", "ops", "math", "program", "plan", "runtime"},
}
# What a folder may include beyond its reach: the bindings report what the CPU can do, and set it.
EXCEPTIONS = {"bindings": {"cpu/execute.h", "cpu/simd_level.h", "cpu/profile.h", "cpu/thresholds.h"}}
# Folders that may know of a library, by the first part of the library's include path.
LIBRARY_OWNERS = {"torch": "ops", "ATen": "none", "c10": "none", "pybind11": "bindings", "Python.h": "bindings"}
# The folder of cuda/ that may know of these libraries, and of what csrc/ops makes of them.
CUDA_LIBRARY_OWNER = "ops"
# What of cuda/ is no part of the extension: a GPU for the tests.
CUDA_TEST_FOLDER = "emulation"


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def pyproject() -> dict:
    return tomllib.loads(read(ROOT / "pyproject.toml"))


def includes(path: Path) -> list[str]:
    return re.findall(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', read(path), flags=re.MULTILINE)


def listed_sources(listing: Path) -> list[str]:
    lines = (line.split("#")[0].strip() for line in read(listing).splitlines())
    return [line for line in lines if line]


def imported_modules(path: Path) -> set[str]:
    """Absolute names of everything that a module of the package imports, inside functions too."""
    package = ["ketgrad", *path.relative_to(PACKAGE).parent.parts] if path.is_relative_to(PACKAGE) else []
    found = set()
    for node in ast.walk(ast.parse(read(path))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # importlib.import_module takes a name as a string.
            found |= {f"ketgrad.{name}" for name in re.findall(r"^(?:ketgrad)?\.(\w+)$", node.value)}
    return found


def test_sources_txt_lists_every_source_once():
    there = [f"csrc/{path.as_posix()}" for path in CPP_FILES if path.suffix == ".cpp"]
    assert sorted(listed_sources(CSRC / "sources.txt")) == there


@pytest.mark.parametrize("path", CPP_FILES, ids=str)
def test_includes_point_one_way(path: Path):
    folder = path.parts[0]
    for name in includes(CSRC / path):
        head = name.split("/")[0]
        if head in LIBRARY_OWNERS:
            assert folder == LIBRARY_OWNERS[head], f"csrc/{path} includes {name}"
        elif head in REACH:
            allowed = head in REACH[folder] or name in EXCEPTIONS.get(folder, ())
            assert allowed, f"csrc/{path} includes {name}"
            assert (CSRC / name).is_file(), f"csrc/{path} includes {name}, which does not exist"
        else:
            # The standard library and the system: no file of ours goes by a path without its folder.
            assert not (CSRC / folder / name).exists(), f"csrc/{path}: write {folder}/{name}"


@pytest.mark.parametrize("folder", [CSRC, CUDA], ids=["csrc", "cuda"])
def test_files_and_classes_are_small(folder: Path):
    """Of tables of data alone may be more."""
    for path in sorted(p for p in folder.rglob("*") if p.suffix in {".h", ".cpp", ".cu"}):
        lines = read(path).splitlines()
        assert len(lines) <= 500 or path.stem.endswith("_table"), f"{path.relative_to(ROOT)} has {len(lines)} lines"
        begin = 0
        for number, line in enumerate(lines):
            begin = number if re.match(r"(class|struct) .*\{$", line) else begin
            assert line != "};" or number - begin < 300, f"{path.relative_to(ROOT)}:{begin + 1} has a long class"


def test_what_an_instruction_set_compiles_includes_no_other_header():
    """Functions of a header that is first read behind the choice of the set would be compiled for that set alone."""
    before = set(includes(CSRC / "cpu" / "headers.h"))
    for path in (CSRC / "cpu").rglob("*-inl.h"):
        others = {name for name in includes(path) if not name.endswith("-inl.h")}
        assert others <= before, f"csrc/cpu/headers.h lacks what {path.name} includes"


def test_what_returns_a_pair_cell_is_inlined():
    """Out of line, GCC 12 was seen to return it wrongly (csrc/cpu/kernels/phases-inl.h)."""
    found = [
        line
        for path in (CSRC / "cpu").rglob("*-inl.h")
        for line in read(path).splitlines()
        if re.match(r"\s*(\w+ )*(PairCell(<T>)?|Cell) \w+\(.*\{", line) and "LaneCell" not in line
    ]
    assert len(found) >= 7
    assert [line for line in found if "KETGRAD_ALWAYS_INLINE" not in line] == []


def test_cuda_sources_txt_lists_every_source_once():
    sources = [name for name in CUDA_FILES if Path(name).suffix in {".cu", ".cpp"}]
    there = [f"cuda/{name}" for name in sources if not name.startswith(f"{CUDA_TEST_FOLDER}/")]
    assert sorted(listed_sources(CUDA / "sources.txt")) == there
    # Objects go by the stem: those of execute.cu and execute.cpp would be one file.
    assert len({Path(name).stem for name in sources}) == len(sources)


@pytest.mark.parametrize("file", CUDA_FILES)
def test_includes_of_cuda_point_one_way(file: str):
    folder = file.split("/")[0]
    for name in includes(CUDA / file):
        head = name.split("/")[0]
        if head in LIBRARY_OWNERS:
            assert LIBRARY_OWNERS[head] != "none", f"cuda/{file} includes {name}"
            assert folder == CUDA_LIBRARY_OWNER, f"cuda/{file} includes {name}"
        elif head == "cuda":
            assert name.split("/")[1] in CUDA_REACH[folder], f"cuda/{file} includes {name}"
            assert (ROOT / name).is_file(), f"cuda/{file} includes {name}, which does not exist"
        elif (CSRC / head).is_dir():
            reach = CUDA_REACH[folder] - {"ops"} if folder != CUDA_LIBRARY_OWNER else CUDA_REACH[folder]
            assert head in reach, f"cuda/{file} includes {name}"
            assert (CSRC / name).is_file(), f"cuda/{file} includes {name}, which does not exist"
        else:
            assert not (CUDA / folder / name).exists(), f"cuda/{file}: write cuda/{folder}/{name}"


def test_the_cuda_module_has_what_python_calls():
    """Where torch is a CPU build nothing else would notice."""
    assert {"connect", "architectures"} <= set(re.findall(r'm\.def\(\s*"(\w+)"', read(CUDA / "ops" / "module.cpp")))


def test_the_compile_check_compiles_as_setup_does():
    setup, check = read(ROOT / "setup.py"), read(CUDA / "compile_check.py")
    flags = ast.literal_eval(re.search(r"^NVCC_FLAGS = (\[.*?\])", setup, flags=re.DOTALL | re.MULTILINE)[1])
    assert all(f'"{flag}"' in check for flag in flags)
    version = re.search(r'"TORCH_TARGET_VERSION", "(\w+)"', setup)[1]
    assert f'"-DTORCH_TARGET_VERSION={version}"' in check


def test_the_oldest_torch_is_compiled_against_by_all_that_knows_torch(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(CSRC))
    check = importlib.import_module("oldest_check")
    owners = {f"csrc/{path}" for path in CPP_FILES if path.parts[0] in set(LIBRARY_OWNERS.values())}
    owners |= {f"cuda/{name}" for name in CUDA_FILES if name.startswith(f"{CUDA_LIBRARY_OWNER}/")}
    expected = {name for name in owners if name.endswith(".cpp")}
    assert len(expected) > 5
    assert expected <= {path.relative_to(ROOT).as_posix() for path in check.sources()}
    assert ("TORCH_STABLE_ONLY", None) in check.of_setup("MACROS")
    assert check.oldest_requirement().startswith("torch==")


def test_the_oracle_shares_nothing_with_what_runs_circuits():
    found = {name for name in imported_modules(ROOT / "tests" / "oracle.py") if name.startswith("ketgrad")}
    assert found
    assert all(name.startswith("ketgrad.circuit") for name in found)


MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "torch_private.py"]
PRIVATE = "|".join(
    [
        r"\b(?:torch(?:\.\w+)*|forward_ad|functorch)\._(?!_)\w+",
        r"from torch\S* import .*\b_\w+",
        r"(?:from|import) torch\S*\._\w+",
    ]
)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_private_names_of_torch_are_in_one_file(path: Path):
    assert re.findall(PRIVATE, read(path)) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_pennylane_is_known_in_its_package_only(path: Path):
    if path.parent.name != "pennylane":
        assert not {name for name in imported_modules(path) if name.split(".")[0] == "pennylane"}
        assert re.findall(r'"pennylane\.\w+\.', read(path)) == []


def test_package_is_typed():
    assert (PACKAGE / "py.typed").is_file()
    assert (PACKAGE / "_C.pyi").is_file()
    assert {"py.typed", "*.pyi"} <= set(pyproject()["tool"]["setuptools"]["package-data"]["ketgrad"])


def test_version_is_said_alike():
    assert pyproject()["project"]["version"] == ketgrad.__version__


def test_oldest_torch_is_said_alike():
    requirement = next(d for d in pyproject()["project"]["dependencies"] if d.startswith("torch"))
    major, minor = map(int, re.fullmatch(r"torch>=(\d+)\.(\d+)", requirement).groups())
    setup = read(ROOT / "setup.py")
    assert f"OLDEST_TORCH = ({major}, {minor})" in setup
    assert f'("TORCH_TARGET_VERSION", "0x{major:02x}{minor:02x}{0:012x}")' in setup
    assert f"torch=={major}.{minor}.0" in read(ROOT / "constraints-oldest.txt")
    assert requirement in pyproject()["dependency-groups"]["build"]


def test_versions_of_optional_libraries_are_said_alike():
    for requirements in pyproject()["project"]["optional-dependencies"].values():
        assert set(requirements) <= set(pyproject()["dependency-groups"]["test"])


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_documented_commands_are_make_targets(document: str):
    targets = set(re.findall(r"^([a-z][a-z-]*):(?!=)", read(ROOT / "Makefile"), flags=re.MULTILINE))
    code = re.findall(r"```.*?```|`[^`\n]+`", read(ROOT / document), flags=re.DOTALL)
    named = {name for span in code for name in re.findall(r"\bmake ([a-z][a-z-]*)\b(?!=)", span)}
    assert named, f"{document} names no make target"
    assert named <= targets


@pytest.mark.parametrize(
    ("torch", "complaint"),
    [("None", "import torch"), ("types.SimpleNamespace(__version__='2.10.1+cpu')", "found 2.10.1")],
    ids=["missing", "old"],
)
def test_build_without_a_fitting_torch_says_so_in_three_lines(torch: str, complaint: str):
    script = f"import sys, types; sys.modules['torch'] = {torch}; import runpy; runpy.run_path('setup.py')"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert complaint in run.stderr
    assert "--no-build-isolation" in run.stderr
    assert len(run.stderr.strip().splitlines()) == 3


def run_setup(before: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """setup.py after some other lines, up to the extensions' names, which it prints."""
    show = "setuptools.setup = lambda ext_modules, **_: [print(e.name, e.extra_compile_args) for e in ext_modules]"
    script = f"import setuptools, torch; {show}\n{before}\nimport runpy; runpy.run_path('setup.py')"
    names = ("KETGRAD_CUDA", "CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST")
    kept = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=kept | environment)


CPU_TORCH = "torch.version.cuda = None"
CUDA_TORCH = (
    "torch.version.cuda, torch.cuda._is_compiled = '13.0', lambda: True; "
    "torch.cuda.is_available, torch.cuda.device_count = lambda: False, lambda: 0"
)
NO_TOOLKIT = "import pathlib; pathlib.Path.is_file = lambda self: False"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "complaint"),
    [(CPU_TORCH, "is a CPU build"), (f"{CUDA_TORCH}; {NO_TOOLKIT}", "no toolkit was found")],
    ids=["CPU torch", "no toolkit"],
)
def test_a_build_that_must_have_cuda_says_in_three_lines_what_is_missing(before: str, complaint: str):
    run = run_setup(before, KETGRAD_CUDA="1")
    assert run.returncode == 1
    assert complaint in run.stderr
    assert len(run.stderr.strip().splitlines()) == 3


@pytest.mark.slow
def test_a_wish_that_means_nothing_is_refused():
    run = run_setup(CPU_TORCH, KETGRAD_CUDA="yes")
    assert run.returncode == 1
    assert "KETGRAD_CUDA=yes means nothing" in run.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "environment"),
    [(CPU_TORCH, {}), (CUDA_TORCH, {"KETGRAD_CUDA": "0"}), (f"{CUDA_TORCH}; {NO_TOOLKIT}", {"KETGRAD_CUDA": "auto"})],
    ids=["CPU torch", "refused", "no toolkit"],
)
def test_a_build_without_cuda_has_one_extension(before: str, environment: dict[str, str]):
    run = run_setup(before, **environment)
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["ketgrad._C"]
    assert run.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("wish", ["auto", "1"])
def test_a_build_with_cuda_has_two_extensions(wish: str, tmp_path: Path):
    for name in ("bin/nvcc", "include/cuda_runtime.h"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    run = run_setup(CUDA_TORCH, KETGRAD_CUDA=wish, CUDA_HOME=str(tmp_path))
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["ketgrad._C", "ketgrad._C_cuda"], run.stderr
    assert str(tmp_path / "include") in run.stdout


def test_ketgrad_imports_no_other_library() -> None:
    """Nor what torch imports only when it is asked to compile: that takes as long as all the rest of torch."""
    libraries = "'qiskit', 'pennylane', 'openfermion', 'jax', 'scipy', 'sympy', 'torch._dynamo', 'torch._inductor'"
    script = (
        "import sys, torch; before = set(sys.modules); import ketgrad; "
        f"print([m for m in ({libraries}) if m in set(sys.modules) - before]); "
        "print(max(len(set(sys.modules) - before), 100))"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["[]", "100"]
