"""Copies of circuits, the rows of Jacobians: against a call for each copy of each circuit."""

from __future__ import annotations

import pytest
import torch
from torch.library import opcheck

import hooks
import ketgrad as kg
from cases import CASES, Case, Leaves
from comparisons import assert_copies
from ketgrad.execution.batching import Group, group_tapes
from ketgrad.native import operators


@pytest.mark.parametrize("case", CASES[::5], ids=str)
def test_cases(case: Case) -> None:
    assert_copies(case)


@pytest.mark.slow
@pytest.mark.parametrize("regime", ["lanes", "single"])
@pytest.mark.parametrize("case", CASES[2::25], ids=str)
def test_regimes(level: str, regime: str, case: Case) -> None:
    with hooks.thresholds(regime=regime):
        assert_copies(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES[3::10], ids=str)
def test_parts(case: Case) -> None:
    with hooks.parts_of_any_size():
        assert_copies(case)


def test_threads() -> None:
    """The copies of a batch are cut into tasks anywhere."""
    leaves = Leaves(batch=5)
    shared = leaves.with_batch(None)
    gates = [kg.RX(leaves.angle(), 0), kg.Rot(*[shared.angle() for _ in range(3)], 1), kg.CNOT([0, 1])]
    gates += [kg.QubitUnitary(shared.unitary(2), wires=[0, 1]), kg.RY(leaves.angle(), 1)]
    for count in (1, 2, 3):
        with hooks.threads(count), hooks.thresholds(spread=True):
            assert_copies(Case("batch", lambda _: kg.Tape(gates, [kg.probs(), kg.expval(kg.Z(0) @ kg.X(1))])))


def group_of(batch: int | None) -> Group:
    leaves = Leaves(batch=batch)
    shared = leaves.with_batch(None)
    gates = [kg.RX(leaves.angle(), 0), kg.RY(shared.angle(), 1), kg.QubitUnitary(shared.unitary(1), wires=1)]
    (group,) = group_tapes([kg.Tape(gates, [kg.probs(), kg.state()])])
    return group._replace(inputs=[t.detach() for t in group.inputs])


@pytest.mark.parametrize("batch", [None, 3])
def test_opcheck(batch: int | None) -> None:
    group, ops = group_of(batch), torch.ops.ketgrad
    program, inputs = group.binding.id, group.inputs
    wanted = list(range(1, len(inputs)))
    axes = group.binding.program.input_axes()
    shapes = [inputs[i].shape[inputs[i].dim() - axes[i] :] for i in wanted]
    tangents = [torch.rand(2, group.batch, *s, dtype=inputs[i].dtype) for i, s in zip(wanted, shapes, strict=True)]
    g = torch.rand(2, group.batch, 4, dtype=torch.float64), torch.rand(2, group.batch, 4, dtype=torch.complex128)
    ket = operators.run_execute(program, inputs, operators.EXACT_KET)[2]
    opcheck(ops.execute_vjp.default, (program, inputs, ket, *g, wanted))
    opcheck(ops.execute_jvp.default, (program, inputs, tangents, wanted))
    opcheck(ops.execute_vjp_jvp.default, (program, inputs, tangents, wanted, *g, *g, wanted))


def test_no_copies() -> None:
    group = group_of(3)
    g = torch.rand(0, 3, 4, dtype=torch.float64), torch.rand(0, 3, 4, dtype=torch.complex128)
    found = operators.run_execute_vjp(group.binding.id, group.inputs, torch.empty(3, 0), *g, [0])
    assert [t.shape for t in found] == [(0, 3, *group.inputs[0].shape[group.inputs[0].dim() - 1 :])]


def test_copies_that_differ_are_refused() -> None:
    group = group_of(3)
    program, inputs, ket = group.binding.id, group.inputs, torch.empty(3, 0, dtype=torch.complex128)
    real, complex_ = torch.rand(2, 3, 4, dtype=torch.float64), torch.rand(2, 3, 4, dtype=torch.complex128)
    with pytest.raises(ValueError, match=r"the complex cotangent has shape \(3, 3, 4\), its result has \(2, 3, 4\)"):
        operators.run_execute_vjp(program, inputs, ket, real, torch.cat([complex_, complex_[:1]]), [0])
    with pytest.raises(ValueError, match=r"the real cotangent has shape \(2, 2, 4\), its result has \(2, 3, 4\)"):
        operators.run_execute_vjp(program, inputs, ket, real[:, :2], complex_, [0])
    with pytest.raises(ValueError, match=r"a tangent has shape"):
        operators.run_execute_vjp_jvp(program, inputs, [inputs[0]], [0], (real, complex_), (real, complex_), [0])
