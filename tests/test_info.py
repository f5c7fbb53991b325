"""`python -m ketgrad info`."""

from __future__ import annotations

import os
import subprocess
import sys

import torch

import ketgrad as kg


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ketgrad", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def test_info_says_what_a_bug_report_needs() -> None:
    lines = dict(line.split(maxsplit=1) for line in run("info").stdout.splitlines())
    assert lines["ketgrad"] == kg.__version__
    assert lines["torch"] == torch.__version__
    assert "stable ABI of torch 2.11" in lines["build"]
    assert {"Python", "CPU", "threads", "memory", "CUDA", "PennyLane"} <= lines.keys()


def test_a_level_is_forced_by_the_environment() -> None:
    assert "portable (available:" in run("info", KETGRAD_CPU_LEVEL="portable").stdout
    refused = run("info", KETGRAD_CPU_LEVEL="mmx")
    assert "CPU level 'mmx' is not available here" in refused.stderr


def test_an_unknown_command_is_refused() -> None:
    assert "choose from" in run("inform").stderr
