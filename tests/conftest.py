"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest
import torch

import hooks
from cases import FRESH_SEED
from ketgrad.native.library import NO_CUDA
from ketgrad.native.operators import has_kernels

pytest.register_assert_rewrite("comparisons")  # no test file, and its assertions are the tests'


# Processes that begin after midnight belong to the day of the first.
os.environ["KETGRAD_TEST_SEED"] = str(FRESH_SEED)
# Half of the time of tests with JAX is XLA's compiler.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")


def pytest_report_header() -> str:
    return f"ketgrad: random circuits of KETGRAD_TEST_SEED={FRESH_SEED} beside the fixed ones"


@pytest.fixture
def seeds() -> list[int]:
    """Of random circuits: one for ever, one of the day."""
    return [1, FRESH_SEED]


@pytest.fixture(params=hooks.LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine has, in use for the length of a test."""
    with hooks.level(request.param):
        yield request.param


@pytest.fixture(params=hooks.TILE_BITS, ids=["tiles of 16", "tiles of 32", "whole states"])
def tile_bits(request: pytest.FixtureRequest) -> Iterator[int]:
    """Each size of tiles, in use for the length of a test."""
    with hooks.thresholds(tile_bits=request.param):
        yield request.param


def why_no_cuda() -> str:
    """Why circuits do not run on a GPU here; "" where they do."""
    if NO_CUDA:
        return NO_CUDA
    if not torch.cuda.is_available():
        return "no GPU is visible"
    return "" if has_kernels("cuda") else "the extension has no operators for CUDA"


def needs_gpu() -> bool:
    """Whether the environment says that there must be a GPU: what is skipped without one is then a failure."""
    return os.environ.get("KETGRAD_REQUIRE_CUDA") == "1"


@pytest.fixture(scope="session")
def cuda() -> torch.device:
    """The first GPU. Tests that take it are skipped where there is none, or fail where KETGRAD_REQUIRE_CUDA is 1."""
    if reason := why_no_cuda():
        (pytest.fail if needs_gpu() else pytest.skip)(f"no CUDA: {reason}")
    return torch.device("cuda", 0)


# --- KETGRAD_REQUIRE_CUDA=1: a session in which nothing ran on a GPU has failed ---------------------------------------

RAN_ON_A_GPU = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "on_gpu: runs on a GPU; every test that takes the fixture `cuda` has it")
    config.stash[RAN_ON_A_GPU] = 0
    config.pluginmanager.register(Counter(config))


def pytest_collection_finish() -> None:
    """What the tests are and import lives as long as the run: no collection of garbage need walk through it."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "cuda" in getattr(item, "fixturenames", ()):
            item.add_marker("on_gpu")


class Counter:
    """Counts the tests that passed on a GPU, wherever they ran: reports of other processes come here too."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed and "on_gpu" in report.keywords:
            self.config.stash[RAN_ON_A_GPU] += 1


def nothing_ran(config: pytest.Config) -> bool:
    """Whether this session should have run something on a GPU and has not; a pytest-xdist worker has a share only."""
    is_whole = not hasattr(config, "workerinput") and not config.option.collectonly
    return needs_gpu() and is_whole and config.stash[RAN_ON_A_GPU] == 0


def pytest_sessionfinish(session: pytest.Session) -> None:
    if nothing_ran(session.config) and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if nothing_ran(terminalreporter.config):
        terminalreporter.write_line("KETGRAD_REQUIRE_CUDA=1, but no test passed on a GPU", red=True)
