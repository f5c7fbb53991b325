"""The examples run as a reader would run them: as programs, in their quick settings."""

import math
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PNG = b"\x89PNG\r\n\x1a\n"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are in a checkout only"),
]
for module in ("matplotlib", "sklearn", "tqdm"):
    pytest.importorskip(module)


def run(name, *arguments):
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300, check=False)


def require_failure(code, message, name, *arguments):
    """1: it ran and did not reach its aim; 2: it refused its arguments."""
    done = run(name, *arguments)
    assert done.returncode == code
    assert message in done.stderr


def number(pattern, text):
    found = re.search(pattern, text)
    assert found, f"{pattern!r} not in\n{text}"
    return float(found[1])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Output and picture of one quick training run."""
    picture = tmp_path_factory.mktemp("digits") / "curves.png"
    done = run("digits.py", "--quick", "--device", "cpu", "--output", picture)
    assert done.returncode == 0, done.stderr
    return done, picture


class TestDigits:
    def test_learns_four_digits(self, digits):
        accuracy = number(r"test accuracy, trained\s+([\d.]+)%", digits[0].stdout)
        assert accuracy >= 90

    def test_says_what_random_quantum_weights_reach(self, digits):
        trained = number(r"test accuracy, trained\s+([\d.]+)%", digits[0].stdout)
        frozen = number(r"test accuracy, quantum weights frozen at random\s+([\d.]+)%", digits[0].stdout)
        assert frozen < trained

    def test_trains_only_the_readout_when_frozen(self, digits):
        all_weights = number(r"training: (\d+) trainable weights", digits[0].stdout)
        readout = number(r"quantum weights frozen: (\d+) trainable weights", digits[0].stdout)
        assert (all_weights - readout, readout) == (8 * 3 * 8 * 2, (16 + 1) * 4)

    def test_reports_device_epochs_and_times(self, digits):
        out = digits[0].stdout
        assert "device: CPU" in out
        epochs = re.findall(r"epoch +\d/4 +loss [\d.]+ +test accuracy +[\d.]+% +[\d.]+ ms a step \(forward", out)
        assert len(epochs) == 8

    def test_shows_a_progress_bar(self, digits):
        assert "step/s" in digits[0].stderr

    def test_draws_a_picture(self, digits):
        assert digits[1].read_bytes().startswith(PNG)

    def test_takes_any_number_of_qubits(self, tmp_path):
        picture = tmp_path / "curves.png"
        arguments = ("--classes", 2, "--epochs", 1, "--qubits", 6, "--layers", 1, "--batch-size", 100)
        done = run("digits.py", *arguments, "--output", picture)
        assert done.returncode == 0, done.stderr
        assert picture.exists()

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_refuses_cuda_in_one_line_where_there_is_none(self, tmp_path):
        done = run("digits.py", "--quick", "--device", "cuda", "--output", tmp_path / "curves.png")
        assert done.returncode == 1
        assert done.stderr.startswith("digits.py: --device cuda: ")
        assert done.stderr.count("\n") == 1

    def test_refuses_one_class(self):
        require_failure(2, "--classes goes from 2 to 10", "digits.py", "--classes", 1)


class TestHydrogen:
    def test_finds_the_ground_state(self, tmp_path):
        picture = tmp_path / "convergence.png"
        done = run("h2_vqe.py", "--output", picture)
        assert done.returncode == 0, done.stderr
        found = number(r"VQE +(-[\d.]+) Ha", done.stdout)
        exact = number(r"exact +(-[\d.]+) Ha", done.stdout)
        assert abs(found - exact) <= 1e-6
        # The full configuration interaction energy of H2 in STO-3G at 0.7414 Å, as electronic structure codes have it.
        assert exact == pytest.approx(-1.13727017, abs=1e-8)
        assert picture.read_bytes().startswith(PNG)

    def test_says_so_when_it_stops_too_early(self, tmp_path):
        require_failure(1, "take more --steps", "h2_vqe.py", "--steps", 2, "--output", tmp_path / "convergence.png")

    @pytest.mark.filterwarnings("default")  # PennyLane's and autograd's own
    def test_has_the_terms_that_its_docstring_tells_how_to_compute(self):
        qml = pytest.importorskip("pennylane")
        terms = runpy.run_path(str(EXAMPLES / "h2_vqe.py"))["TERMS"]
        geometry = qml.numpy.array([[0, 0, 0], [0, 0, 0.7414 / 0.529177210903]])
        hamiltonian, qubits = qml.qchem.molecular_hamiltonian(qml.qchem.Molecule(["H", "H"], geometry))
        assert qubits == 4
        computed = {
            "".join(word.get(wire, "I") for wire in range(4)): float(coefficient.real)
            for word, coefficient in qml.pauli.pauli_sentence(hamiltonian).items()
        }
        assert computed == pytest.approx(terms, abs=1e-10)


class TestPennyLaneClassifier:
    @pytest.mark.parametrize("arguments", [(), ("--compile",)], ids=["device", "compiled"])
    def test_learns_two_moons(self, arguments, tmp_path):
        pytest.importorskip("pennylane")
        picture = tmp_path / "moons.png"
        done = run("pennylane_classifier.py", *arguments, "--output", picture)
        assert done.returncode == 0, done.stderr
        assert number(r"accuracy on new points ([\d.]+)%", done.stdout) > 85
        assert "step/s" in done.stderr
        assert picture.read_bytes().startswith(PNG)

    def test_trains_alike_on_default_qubit(self, tmp_path):
        pytest.importorskip("pennylane")
        options = ("--steps", 5, "--output", tmp_path / "moons.png", "--device")
        losses = [run("pennylane_classifier.py", *options, d).stdout for d in ("ketgrad.qubit", "default.qubit")]
        one, other = [number(r"loss ([\d.]+)", text) for text in losses]
        assert one == pytest.approx(other, abs=2e-3)

    def test_refuses_no_steps(self):
        require_failure(2, "--steps goes from 1", "pennylane_classifier.py", "--steps", 0)


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory):
    """Output and picture of one quick run, eager and compiled."""
    picture = tmp_path_factory.mktemp("hybrid") / "curves.png"
    done = run("hybrid_classifier.py", "--quick", "--output", picture)
    assert done.returncode == 0, done.stderr
    return done, picture


class TestHybridClassifier:
    def test_learns_alike_eager_and_compiled(self, hybrid):
        out = hybrid[0].stdout
        assert number(r"losses differ by (\S+) at most, of 70 steps", out) <= 1e-3
        losses = [number(rf"{name} +loss [\d.]+ → ([\d.]+)", out) for name in ("eager", "compiled")]
        assert losses[0] == pytest.approx(losses[1], abs=2e-3)

    def test_compiles_once_for_both_sizes_of_a_batch(self, hybrid):
        assert "one graph for batches of 32 and of 10" in hybrid[0].stdout

    def test_reports_times_and_accuracies(self, hybrid):
        out = hybrid[0].stdout
        assert len(re.findall(r"[\d.]+ ms a step \(the first one \d+ ms\)", out)) == 2
        for name in ("eager", "compiled"):
            assert number(rf"test accuracy .*{name} ([\d.]+)%", out) >= 90
        assert number(r"logistic regression +([\d.]+)%", out) >= 90

    def test_shows_a_progress_bar_and_no_warning(self, hybrid):
        assert "step/s" in hybrid[0].stderr
        assert "Warning" not in hybrid[0].stderr

    def test_draws_a_picture(self, hybrid):
        assert hybrid[1].read_bytes().startswith(PNG)

    def test_may_leave_the_compiler_out(self, tmp_path):
        picture = tmp_path / "curves.png"
        done = run("hybrid_classifier.py", "--quick", "--eager", "--batch-size", 71, "--output", picture)
        assert done.returncode == 0, done.stderr
        assert "compiled" not in done.stdout
        assert picture.read_bytes().startswith(PNG)

    def test_refuses_batches_of_one(self):
        require_failure(2, "--epochs go from 1, --batch-size from 2", "hybrid_classifier.py", "--batch-size", 1)

    def test_refuses_a_last_batch_of_one(self):
        done = run("hybrid_classifier.py", "--batch-size", 17)
        assert done.returncode == 1
        assert done.stderr.startswith("hybrid_classifier.py: --batch-size 17 leaves one sample")
        assert done.stderr.count("\n") == 1


class TestMaxCut:
    def test_finds_the_largest_cut(self, tmp_path):
        picture = tmp_path / "cut.png"
        done = run("qaoa_maxcut.py", "--quick", "--output", picture)
        assert done.returncode == 0, done.stderr
        best = number(r"largest cut, of 1024 colourings +(\d+) edges", done.stdout)
        assert number(r"best of 1000 shots +(\d+) edges", done.stdout) == best
        # Of the bits drawn, from the edges that are printed.
        edges = re.findall(r"(\d+)-(\d+)", done.stdout.splitlines()[0])
        bits = re.search(r"times: ([01]{10})", done.stdout)[1]
        assert len(edges) == 15
        assert sum(bits[int(a)] != bits[int(b)] for a, b in edges) == best
        assert "step/s" in done.stderr
        assert picture.read_bytes().startswith(PNG)

    def test_has_the_same_ratio_by_pauli_words_and_by_probabilities(self, tmp_path):
        done = run("qaoa_maxcut.py", "--quick", "--starts", 1, "--output", tmp_path / "cut.png")
        words = number(r"from the ramp +([\d.]+)", done.stdout)
        assert number(r"best circuit +ratio ([\d.]+)", done.stdout) == pytest.approx(words, abs=1e-3)
        assert words > number(r"before: ([\d.]+)", done.stdout) > number(r"colours at random +([\d.]+)", done.stdout)

    def test_says_so_when_it_stops_too_early(self, tmp_path):
        options = ("--steps", 1, "--starts", 1, "--layers", 1, "--output", tmp_path / "cut.png")
        require_failure(1, "take more --steps or --layers", "qaoa_maxcut.py", *options)

    def test_refuses_odd_numbers_of_nodes(self):
        require_failure(2, "--nodes is even and goes from 4 to 18", "qaoa_maxcut.py", "--nodes", 7)


class TestNaturalGradient:
    def test_finds_the_ground_state(self, tmp_path):
        picture = tmp_path / "errors.png"
        done = run("vqe_natural_gradient.py", "--quick", "--output", picture)
        assert done.returncode == 0, done.stderr
        found = number(r"natural gradient +(-[\d.]+)", done.stdout)
        exact = number(r"exact +(-[\d.]+)", done.stdout)
        assert abs(found - exact) <= 1e-6
        # The critical ring by free fermions: P. Pfeuty, Ann. Phys. 57, 79 (1970).
        momenta = [(2 * m + 1) * math.pi / 8 for m in range(8)]
        assert exact == pytest.approx(-sum(math.sqrt(2 + 2 * math.cos(k)) for k in momenta), abs=1e-9)
        assert "step/s" in done.stderr
        assert picture.read_bytes().startswith(PNG)

    def test_reports_every_optimiser(self, tmp_path):
        options = ("--wires", 4, "--steps", 40, "--more", 2, "--output", tmp_path / "errors.png")
        done = run("vqe_natural_gradient.py", *options)
        rows = re.findall(r"^([A-Za-z ]+?) +(\d+) +[\d.]+ +(-?[\d.]+e[+-]\d+)", done.stdout, flags=re.MULTILINE)
        steps = {name: int(count) for name, count, _ in rows}
        assert steps == {"natural gradient": 40, "Adam": 80, "gradient descent": 80}
        assert all(float(error) < 2 for _, _, error in rows)

    def test_says_so_when_it_stops_too_early(self, tmp_path):
        options = ("--wires", 4, "--steps", 2, "--more", 1, "--output", tmp_path / "errors.png")
        require_failure(1, "take more --steps or --layers", "vqe_natural_gradient.py", *options)

    def test_refuses_no_layers(self):
        require_failure(2, "--layers, --steps and --more go from 1", "vqe_natural_gradient.py", "--layers", 0)


class TestQuantumKernel:
    @pytest.mark.parametrize("data", ["moons", "circles"])
    def test_trains_a_kernel(self, data, tmp_path):
        picture = tmp_path / "kernel.png"
        done = run("quantum_kernel.py", "--data", data, "--output", picture)
        assert done.returncode == 0, done.stderr
        rows = re.findall(r"quantum kernel .+? (0\.\d+) +([\d.]+)%", done.stdout)
        (before, untrained), (after, trained) = [(float(a), float(b)) for a, b in rows]
        assert after > before + 0.2
        assert trained > max(untrained, 88)
        assert number(r"RBF kernel, C = 1, γ = 1/2 +([\d.]+)%", done.stdout) > 80
        assert number(r"RBF kernel, C and γ by cross-validation +([\d.]+)%", done.stdout) > 85
        assert "step/s" in done.stderr
        assert picture.read_bytes().startswith(PNG)

    def test_says_so_when_it_stops_too_early(self, tmp_path):
        options = ("--scale", 4, "--steps", 1, "--output", tmp_path / "kernel.png")
        require_failure(1, "take more --steps or --samples", "quantum_kernel.py", *options)

    def test_refuses_few_samples(self):
        require_failure(2, "--samples from 20", "quantum_kernel.py", "--samples", 5)
