"""Programs: the gate table is the single source, a program is structure only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

import ketgrad as kg
from ketgrad.circuit import measurements, operations
from ketgrad.execution import programs, results
from ketgrad.native.library import _C

TABLE = {name: (wires, controls, parameters) for name, wires, controls, parameters in _C.gate_table()}


def test_python_and_native_gates_are_the_same() -> None:
    gates = {name: gate for name, gate in operations.OPERATIONS.items() if not gate.is_preparation}
    assert set(gates) == set(TABLE)
    for name, gate in gates.items():
        wires, _, parameters = TABLE[name]
        assert gate.num_wires == (None if wires < 0 else wires), name
        assert sum(kind == "angle" for kind in gate.parameter_kinds) == parameters, name


def test_python_and_native_measurements_are_the_same() -> None:
    drawn = {"sample", "counts"}
    assert [kind for kind in measurements.KINDS if kind not in drawn] == [row[0] for row in _C.measurement_table()]
    assert drawn <= set(measurements.KINDS)


def test_what_a_result_is_comes_from_the_table() -> None:
    measured = [kg.probs(wires=[0, 2]), kg.state(), kg.var(kg.Z(1)), kg.density_matrix(wires=[1])]
    layout = results.ResultLayout.of(measured, 3)
    assert [result.shape for result in layout.results] == [(4,), (8,), (), (2, 2)]
    assert [(result.is_complex, result.first) for result in layout.results] == [
        (False, 0),
        (True, 0),
        (False, 4),
        (True, 8),
    ]
    assert (layout.real_size, layout.complex_size, layout.are_numbers) == (5, 12, False)
    program = programs.build_program(kg.Tape([kg.RX(0.1, wires=[w]) for w in range(3)], measured)).program.describe()
    assert (program["real_results"], program["complex_results"]) == (layout.real_size, layout.complex_size)
    with pytest.raises(ValueError, match="drawn from probabilities"):
        results.kind_of(kg.sample())


def test_gates_reach_the_program_under_their_own_opcode() -> None:
    gates = [kg.Toffoli(wires=[0, 1, 2]), kg.Rot(0.1, 0.2, 0.3, wires=0), kg.DoubleExcitation(0.4, wires=[0, 1, 2, 3])]
    program = programs.build_program(kg.Tape(gates, [kg.probs()])).program
    assert program.describe()["num_gates"] == len(gates)


def test_values_are_no_part_of_a_program() -> None:
    def program(x: float, c: float, matrix: torch.Tensor) -> int:
        gates = [kg.RX(x, wires=0), kg.QubitUnitary(matrix, wires=1)]
        return programs.build_program(kg.Tape(gates, [kg.expval(c * kg.Z(0))])).id

    flip = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert program(0.1, 0.2, flip) == program(0.5, -0.7, torch.eye(2))


def test_structure_is_what_a_program_is() -> None:
    def program(gate: kg.Operation) -> int:
        return programs.build_program(kg.Tape([gate], [kg.expval(kg.Z(0)), kg.probs(wires=[0, 1])])).id

    x = torch.tensor(0.1)
    different = [
        kg.RX(x, wires=0),
        kg.RX(x, wires=1),
        kg.RY(x, wires=0),
        kg.adjoint(kg.RX(x, wires=0)),
        kg.ctrl(kg.RX(x, wires=0), 1),
        kg.ctrl(kg.RX(x, wires=0), 1, control_values=[0]),
        kg.PauliRot(x, "XX", wires=[0, 1]),
        kg.PauliRot(x, "XY", wires=[0, 1]),
    ]
    assert len({program(gate) for gate in different}) == len(different)


def test_labels_of_wires_are_no_part_of_a_program() -> None:
    def program(a: object, b: object) -> int:
        return programs.build_program(kg.Tape([kg.RX(0.1, wires=a), kg.CNOT(wires=[a, b])], [kg.expval(kg.Z(b))])).id

    assert program("x", "y") == program("u", "v") == program(5, 3)
    assert program(0, 1) != program(1, 0)


NAME = (
    "import ketgrad as kg; from ketgrad.execution.programs import build_program; "
    "print(build_program(kg.Tape([kg.RX(0.1, wires=0), kg.CNOT(wires=[0, 1])], [kg.expval(kg.Z(0) + kg.X(1))])).id)"
)


@pytest.mark.slow
def test_a_program_has_the_same_name_in_every_process() -> None:
    names = {
        subprocess.run(
            [sys.executable, "-c", NAME],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(names) == 1


@pytest.fixture
def cache() -> Iterator[programs.StructureCache]:
    """The cache, empty; its limit is put back."""
    limit = kg.structure_cache.limit
    kg.structure_cache.clear()
    yield kg.structure_cache
    kg.structure_cache.limit = limit


def numbered(number: int) -> kg.Tape:
    word = "".join("XYZ"[(number // 3**j) % 3] for j in range(8))
    return kg.Tape([kg.PauliRot(0.1, word, wires=range(8))], [kg.probs(wires=[0])])


def test_a_program_that_nothing_refers_to_goes_and_one_in_use_stays(cache: programs.StructureCache) -> None:
    kept = programs.build_program(numbered(1))
    dropped = programs.build_program(numbered(2)).id
    cache.clear()
    assert _C.find_program(kept.id).id == kept.id
    with pytest.raises(IndexError, match="no program"):
        _C.find_program(dropped)


def test_structures_are_kept_by_bytes_and_the_oldest_go_first(cache: programs.StructureCache) -> None:
    kg.execute([numbered(number) for number in range(20)])
    assert len(cache) == 20
    full = cache.bytes
    assert full > 20 * 1000
    cache.limit = full // 2
    assert 5 < len(cache) < 15
    assert cache.bytes <= full // 2
    before = programs.statistics.built
    kg.execute([numbered(19)])
    assert programs.statistics.built == before
    kg.execute([numbered(0)])
    assert programs.statistics.built == before + 1
    cache.limit = 0
    assert len(cache) == 1
    kg.execute([numbered(3)])
    assert len(cache) == 1
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)


def test_plans_that_are_made_later_count(cache: programs.StructureCache) -> None:
    program = programs.build_program(numbered(1)).program
    before, without_plan = cache.bytes, program.bytes
    kg.execute([numbered(1)])
    assert program.bytes > without_plan
    assert cache.bytes == before + program.bytes - without_plan
    assert str(cache).startswith("<1 structures in 0.0 MiB of at most")


@pytest.mark.parametrize("route", ["execute", "func.grad", "create_graph"])
def test_a_graph_keeps_its_program(cache: programs.StructureCache, route: str) -> None:
    cache.limit = 0
    x = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def value(x: torch.Tensor) -> torch.Tensor:
        (found,) = kg.execute([kg.Tape([kg.RX(x, wires=0)], [kg.expval(kg.Z(0))])])
        kg.execute([numbered(4)])  # takes the one place there is
        return found

    if route == "func.grad":
        gradient = torch.func.grad(value)(x)
    else:
        (gradient,) = torch.autograd.grad(value(x), x, create_graph=route == "create_graph")
    torch.testing.assert_close(gradient, -x.sin())
    if route == "create_graph":
        kg.execute([numbered(5)])
        torch.testing.assert_close(torch.autograd.grad(gradient, x)[0], -x.cos())


@pytest.mark.parametrize("limit", [-1, 1.5, "1 GiB", True, None])
def test_a_limit_is_a_number_of_bytes(cache: programs.StructureCache, limit: object) -> None:
    with pytest.raises(ValueError, match="number of bytes"):
        cache.limit = limit  # type: ignore[assignment]


def test_level_must_be_one_of_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"CPU level 'mmx' is not available here; available: portable"):
        _C.set_simd_level("mmx")
