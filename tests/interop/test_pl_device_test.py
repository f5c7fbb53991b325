"""PennyLane's own tests of a device, which `pl-device-test` runs too."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

pytest.importorskip("pennylane")
pytest.importorskip("flaky")
pytest.importorskip("pytest_mock")

from pennylane.devices.tests import get_device_tests

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("shots", ["None", "10000"])
def test_pennylanes_tests_of_a_device(shots: str) -> None:
    command = [
        "pytest",
        get_device_tests(),
        "--device=ketgrad.qubit",
        f"--shots={shots}",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    passed = re.search(r"(\d+) passed", done.stdout.splitlines()[-1])
    assert passed is not None
    assert int(passed[1]) > 380
