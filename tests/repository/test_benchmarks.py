"""The harness of benchmarks/: workloads mean what ketgrad computes, limits are the stated ones, and a run reports."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    """Imports a module of the harness, which is no package."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)

    def find(name: str) -> ModuleType:
        return importlib.import_module(name)

    yield find
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


SMALL = [
    *("churn(4,20)", "churn(9,20)-values", "volume(5)", "deep(3,50)", "jacobian(3,2)"),
    *("qml(3,2,4)", "qml(4,2,3)-xzx", "qml(4,2,3)-brickwork", "qml(4,2,3)-shuffled", "vqe(4,2)", "vqe(4,2)-brickwork"),
    *("reuploading(3,2,3)", "entangling(4,3,3)", "tapes(4,20,3)", "qaoa(6,2)", "tfim(4,2)"),
]


@pytest.mark.parametrize("name", SMALL)
def test_libraries_agree(module, name: str):
    """Plain torch, ketgrad, and what else is installed where the tests run."""
    workload = module("workloads").find(name)
    given = module("workloads").inputs(workload, seed=1)
    peers = module("peers").PEERS
    ways = {peer: found.adapters[workload.kind] for peer, found in peers.items() if workload.kind in found.adapters}
    answers = {}
    for peer in filter(lambda peer: is_installed(peers[peer].packages), ways):
        where, what = ways[peer].split(":")
        found = getattr(module(f"peers.{where}"), what)(workload)
        answers[peer] = found.read(found.step(found.prepare(given)))
    theirs = answers.pop("torch")
    assert any(peers[peer].ours for peer in answers)
    for ours in answers.values():
        if workload.result == "gradient":
            assert set(ours.gradients) == ({"data", "weights"} if workload.batch else {"weights"})
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
        for key, gradient in ours.gradients.items():
            np.testing.assert_allclose(gradient, theirs.gradients[key], atol=1e-5 * np.abs(gradient).max())


def is_installed(packages: tuple[str, ...]) -> bool:
    """Whether all of them are."""
    try:
        return all(importlib.metadata.version(package) for package in packages)
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.parametrize("name", ["churn(4,20)", "churn(4,20)-values", "volume(5)"])
def test_a_call_of_a_fresh_workload_has_a_circuit_of_its_own(module, name: str):
    workloads = module("workloads")
    workload = workloads.find(name)
    one, again, other = (workloads.inputs(workload, seed) for seed in (1, 1, 2))
    assert one.circuit == again.circuit
    assert one.circuit != other.circuit
    for gate in one.circuit:
        if gate.matrix is not None:
            np.testing.assert_allclose(gate.matrix @ gate.matrix.conj().T, np.eye(4), atol=1e-6)


def test_every_workload_is_what_its_name_says(module):
    workloads = module("workloads")
    names = {name for group in workloads.GROUPS.values() for name in group}
    found = {name: workloads.find(name) for name in names}
    assert all(name == workload.name for name, workload in found.items())
    for workload in found.values():
        used = {gate.slot for circuit in workload.circuits for gate in circuit if gate.slot}
        assert {index for source, index in used if source == "weights"} == set(range(workload.weights))
        assert bool(workload.batch) == any(source == "data" for source, _ in used)
        if workload.kind == "gradient":
            assert bool(workload.batch) != bool(workload.hamiltonian)
    with pytest.raises(ValueError, match="no workload"):
        workloads.find("qml[3]")


@pytest.mark.parametrize(("name", "energy"), [("uccsd()", -7.8627), ("uccsd()-h2o", -74.963), ("uccsd()-n2", -107.496)])
def test_molecules_have_the_energy_of_hartree_and_fock(module, name: str, energy: float):
    """That of the state in which the lowest orbitals are occupied, where all excitations begin."""
    workload = module("workloads").find(name)
    occupied = {gate.wires[0] for gate in workload.circuit if gate.name == "X"}
    diagonal = [(c, {w for w, _ in word}) for c, word in workload.hamiltonian if all(x == "Z" for _, x in word)]
    found = sum(c * (-1) ** len(occupied & wires) for c, wires in diagonal)
    assert found == pytest.approx(energy, abs=1e-3)
    assert workload.weights == sum(gate.slot is not None for gate in workload.circuit)


def test_pauli_rotations_make_an_excitation(module):
    """Conserved: the number of ones. So |0…01…1⟩ goes to |1…10…0⟩ alone, as PennyLane has it."""
    paulis = {"X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]])}
    for size in (2, 4):
        total = np.eye(2**size)
        for word, factor in module("peers.excitations").pauli_rotations(size):
            matrix = np.eye(1)
            for letter in word:
                matrix = np.kron(matrix, paulis[letter])
            total = total @ (math.cos(0.35 * factor) * np.eye(2**size) - 1j * math.sin(0.35 * factor) * matrix)
        low, high = 2 ** (size // 2) - 1, 2**size - 2 ** (size // 2)
        expected = np.eye(2**size)
        expected[[low, high], [low, high]] = math.cos(0.35)
        expected[low, high], expected[high, low] = -math.sin(0.35), math.sin(0.35)
        np.testing.assert_allclose(total, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "per_amplitude", "states"),
    [
        # 14 for each rotation and each product of diagonals; the bra: 2 for each flip and for the value.
        ("vqe(24,2)", 14 * (48 + 2) + 2 * 25 + 2, 17),
        ("vqe(20,4)", 14 * (80 + 4) + 2 * 21 + 2, 0),
        ("vqe(20,4)-xzx", 14 * (80 + 4) + 2 * 21 + 2, 0),
        ("qml(8,4,256)", 14 * (32 + 4) + 4, 0),
        ("reuploading(8,10,32)", 14 * (80 + 10) + 4, 0),
        # Rotations, a diagonal on both sides of each layer of IsingXX (CZ among them) but after the last, IsingXX.
        ("vqe(12,4)-brickwork", 14 * (48 + 7 + 24) + 2 * 13 + 2, 0),
        # H before all has no parameters, and a lone RX no diagonals of its own.
        ("qaoa(20,8)", 12 * 20 + 14 * (8 * 20 + 8) + 4, 0),
    ],
)
def test_limits(module, name: str, per_amplitude: float, states: int):
    machine = module("machine").Machine("", 2, 32 << 20, 0, 29.0, 143.0, 70.0, "", "")
    workload = module("workloads").find(name)
    found = module("limits").limit(workload, machine)
    amplitudes = max(1, workload.batch) * 2**workload.wires
    assert found.multiply_adds == pytest.approx(amplitudes * per_amplitude)
    assert found.bytes == states * 8 * 2**workload.wires
    assert found.ms == pytest.approx(max(2e-6 * found.multiply_adds / 143, 1e-6 * found.bytes / 29))


@pytest.mark.parametrize("name", ["churn(8,60)", "volume(8)", "deep(4,100)", "jacobian(6,4)"])
def test_no_limit_where_there_is_no_formula(module, name: str):
    machine = module("machine").Machine("", 2, 32 << 20, 0, 29.0, 143.0, 70.0, "", "")
    assert module("limits").limit(module("workloads").find(name), machine) is None


def test_a_library_that_is_wrong_is_found(module):
    rounds, answer = module("rounds"), module("peers.base").Answer
    right = {"weights": np.array([1.0, -2.0])}
    answers = {
        "ketgrad": answer(0.5, right),
        "ketgrad-execute": answer(0.5, right),
        "torch": answer(0.5, right),
        "qulacs": answer(0.5, {"weights": np.array([1.0, 2.0])}),
        "lightning": answer(0.5, {"weights": np.array([1.0, np.nan])}),
    }
    answers["pennylane"] = answer(0.5, right)
    assert set(rounds.disagreements(answers, wires=4)) == {"qulacs", "lightning"}


def test_a_run_writes_its_files(tmp_path: Path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    # How fast the machine is takes seconds to measure, and is of no interest here.
    small = "import machine, run; machine.COPIED, machine.SIZE = 1 << 20, 64; run.main()"
    command = [sys.executable, "-c", small, "--workloads", "qml(3,1,4)", "churn(3,8)", "deep(3,9)", "--rounds", "2"]
    command += ["--peers", "ketgrad-execute", "torch", "qulacs", "--out", str(tmp_path)]
    subprocess.run(command, cwd=BENCHMARKS, check=True, capture_output=True, timeout=300)
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    for peer in ("ketgrad-execute", "torch"):
        result = found["results"]["qml(3,1,4)"][peer]
        assert result["status"] == "timed"
        assert result["calls"] >= 2
        assert result["min_ms"] <= result["median_ms"]
        assert result["memory"] > 0
        assert result["checked_against"]
    for peer in ("ketgrad-execute", "torch"):
        assert found["results"]["churn(3,8)"][peer]["checked_against"]
        assert found["results"]["deep(3,9)"][peer]["anew_ms"] > 0
    written = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert written.count("`qml(3,1,4)`") == 4
    assert written.count("`deep(3,9)`") == 5  # the first calls of new circuits too
    assert (tmp_path / "performance.png").stat().st_size > 1000


def test_errors_are_measured(tmp_path: Path):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    command = [sys.executable, str(BENCHMARKS / "accuracy.py"), "--gates", "10", "--wires", "3", "5"]
    command += ["--families", "random angles", "one angle", "--threads", "1", "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert {case["gates"] for case in found["gates"]} == {10}
    assert {case["wires"] for case in found["wires"]} == {3, 5}
    for case in found["gates"] + found["wires"]:
        assert 0 < case["value"] < 1000
        assert 0 < case["gradient"] < 1000
    assert "one angle" in (tmp_path / "results.md").read_text(encoding="utf-8")
    assert (tmp_path / "accuracy.png").stat().st_size > 1000


# --- on a GPU --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_check_says_so_before_it_starts():
    done = subprocess.run([sys.executable, BENCHMARKS / "gpu_check.py"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("gpu-check: this machine lacks\n")
    assert "a CUDA build of PyTorch" in done.stderr or "a visible GPU" in done.stderr


def test_the_check_names_everything_that_is_missing_at_once(module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    needs = module("needs")
    monkeypatch.setattr(needs, "version_of", {"setuptools": (65, 5, 0)}.get)
    monkeypatch.setattr(needs.sysconfig, "get_path", lambda _: str(tmp_path))
    for name in ("PATH", "CUDA_HOME", "CUDA_PATH"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(needs.Path, "is_file", lambda _: False)
    found = needs.message(needs.missing(module("gpu_check").STEPS))
    packages = "numpy 'setuptools>=77.0.3' pytest hypothesis scipy ninja"
    assert f"{sys.executable} -m pip install {packages}\n" in found
    for what in ("no-such-compiler is none", "Python's C headers", "the CUDA toolkit", "nvcc"):
        assert what in found
    assert not torch.version.cuda or "of PyTorch" not in found
    # A step alone needs no more than it uses.
    assert "scipy" not in needs.message(needs.missing(["cuda-tests"]))
    assert "the CUDA toolkit" not in needs.message(needs.missing(["cuda-tests"]))


def test_a_toolkit_of_another_version_is_named(module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    needs = module("needs")
    for name in ("bin/nvcc", "include/cuda_runtime.h"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("#!/bin/sh\necho release 12.4, V12.4.1\n", encoding="utf-8")
    (tmp_path / "bin/nvcc").chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(needs, "cuda_of_torch", lambda: "13.0")
    assert "has 12" in needs.missing_toolkit().what
    monkeypatch.setattr(needs, "cuda_of_torch", lambda: "12.8")
    assert needs.missing_toolkit() is None


def test_the_check_tells_what_failed_from_what_could_not_run(module, tmp_path: Path):
    files = {
        "test_a.py": "def test_right(): pass\ndef test_wrong(): assert 1 == 2",
        "test_b.py": "import a_package_that_is_not_there\ndef test_it(): pass",
        "test_c.py": "import pytest\ndef test_one(): pytest.importorskip('another')\ndef test_two(): pytest.skip('no')",
        "test_d.py": "syntax error",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--continue-on-collection-errors",
        "--junitxml=report.xml",
        "-c",
        "/dev/null",
    ]
    subprocess.run([*command, "--rootdir", "."], cwd=tmp_path, capture_output=True, check=False)
    found = module("gpu_check").counted(ElementTree.parse(tmp_path / "report.xml"))
    assert (found["tests"], found["passed"]) == (6, 1)
    assert [line.split(":")[0] for line in found["failed"]] == ["test_d", "test_a"]
    assert found["not run for"] == {"a_package_that_is_not_there": ["test_b"], "another": ["test_c::test_one"]}
    assert found["skipped"] == {"no": 1}


TESTS_OF_CUDA = {
    "all pass": ("def test_it(): pass", True, "passed: 1 of 1"),
    "none is there": ("", False, "failed: no test passed"),
    "all are skipped": ("import pytest\ndef test_it(): pytest.skip('no')", False, "failed: no test passed"),
    "one fails": ("def test_a(): pass\ndef test_b(): assert False", False, "failed: 1 of 2"),
    "a package is missing": (
        "import a_package_that_is_not_there\ndef test_it(): pass",
        False,
        "failed: no test passed; not installed: a_package_that_is_not_there",
    ),
}


@pytest.mark.parametrize(("text", "succeeds", "verdict"), TESTS_OF_CUDA.values(), ids=TESTS_OF_CUDA)
def test_no_success_without_a_test_that_passed(module, tmp_path: Path, text: str, succeeds: bool, verdict: str):
    check = module("gpu_check")
    (tmp_path / "test_it.py").write_text(text, encoding="utf-8")
    arguments = [str(tmp_path / "test_it.py"), "-c", "/dev/null", "--rootdir", str(tmp_path)]
    found = check.check_tests(arguments, check.NO_PLUGINS, 60)
    assert found["verdict"] == verdict
    assert (check.what_failed({"steps": {"tests of CUDA": found}}, ["cuda-tests"]) == []) is succeeds


@pytest.mark.parametrize(("required", "code"), [("1", 1), ("0", 5)])
def test_a_required_gpu_makes_an_error_of_no_tests(required: str, code: int):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/native/test_cuda.py",
        "-k",
        "no_such_test",
    ]
    environment = os.environ | {"KETGRAD_REQUIRE_CUDA": required}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert ("no test passed on a GPU" in done.stdout) is (required == "1")


def test_the_check_fails_where_a_step_that_must_pass_did_not_run(module):
    check = module("gpu_check")
    steps = {"build": {"verdict": "passed"}, "tests of CUDA": {"verdict": "skipped: no time was left"}}
    assert check.what_failed({"steps": steps}, ["build", "cuda-tests"]) == ["tests of CUDA"]
    assert check.what_failed({"steps": {"build": steps["build"]}}, ["build"]) == []
    assert check.what_failed({"steps": {}}, ["build", "cuda-tests"]) == ["build", "tests of CUDA"]


def test_a_build_that_is_stopped_is_a_failure(module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    check = module("gpu_check")
    monkeypatch.setattr(check, "run", lambda *_, **__: check.Done(None, "compiling"))
    run = check.Check(False, tmp_path / "report.json", {"steps": {}})
    check.go(run, ["build", "cuda-tests"], build_seconds=7)
    assert run.report["steps"]["build"]["verdict"].startswith("failed: stopped after 7 s")
    assert check.what_failed(run.report, ["build", "cuda-tests"]) == ["build", "tests of CUDA"]


def test_the_check_stops_what_takes_too_long(module):
    check = module("gpu_check")
    check.GRACE = 0.2
    begun = time.monotonic()
    stubborn = (
        "import signal, time; signal.signal(signal.SIGINT, lambda *_: None); print('here', flush=True); time.sleep(60)"
    )
    done = check.run([sys.executable, "-c", stubborn], 1.0)
    assert (done.code, done.tail()) == (None, ["here"])
    assert time.monotonic() - begun < 20


def test_how_far_an_answer_is_off(module):
    worker, answer = module("gpu_worker"), module("peers.base").Answer
    right = answer(2.0, {"weights": np.array([1.0, -4.0])})
    assert worker.deviation(right, right) == 0
    assert worker.deviation(answer(2.0, {"weights": np.array([1.0, -3.0])}), right) == 0.25
    assert math.isnan(worker.deviation(answer(2.0, {"weights": np.array([math.nan, -4.0])}), right))
    assert math.isnan(worker.deviation(answer(math.nan, right.gradients), right))


def test_derivatives_are_timed():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "bench_derivatives.py"), "--rounds", "1", "--only", "vmap"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.strip() for line in done.stdout.splitlines() if line.strip().endswith("1.5 ×")]
    assert [row.split(",")[0] for row in rows] == ["vmap", "vmap of grad"]
