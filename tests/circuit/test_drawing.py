"""The text drawing of tapes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ketgrad as kg
from ketgrad.circuit.operations import OPERATIONS


def _draw(operations, measurements=None, **kwargs):
    return kg.Tape(operations, measurements or [kg.probs(wires=0)]).draw(**kwargs).split("\n")


def test_a_small_circuit():
    tape = kg.Tape(
        [kg.H(0), kg.CNOT([0, 2]), kg.RX(0.5, 1), kg.RY(torch.tensor(-1.234), 0)],
        [kg.expval(kg.Z(0) @ kg.X(2)), kg.var(kg.Y(1))],
    )
    # The gate on wire 1 comes after the CNOT that passes over it.
    expected = """
0: ──H──╭●──RY(-1.23)──┤ ╭⟨Z⟩
1: ─────│───RX(0.50)───┤ │     Var[Y]
2: ─────╰X─────────────┤ ╰⟨X⟩
"""
    assert str(tape) == expected.strip("\n")
    assert tape.draw() == str(tape)


def test_controls_values_and_adjoints():
    assert _draw([kg.ctrl(kg.adjoint(kg.S("t")), ["a", "b"], [1, 0])], [kg.probs("a")]) == [
        "a: ──╭●───┤ Probs",
        "b: ──├○───┤",
        "t: ──╰S†──┤",
    ]
    assert _draw([kg.adjoint(kg.RX(0.5, 0)), kg.CSWAP([1, 0, 2]), kg.Toffoli([0, 1, 2])]) == [
        "0: ──RX†(0.50)──╭×──╭●──┤ Probs",
        "1: ─────────────├●──├●──┤",
        "2: ─────────────╰×──╰X──┤",
    ]


def test_parameters_are_compact():
    drawn = _draw(
        [
            kg.Rot(0.1, torch.zeros(32), np.zeros(32), wires=0),
            kg.QubitUnitary(np.eye(2)[None].repeat(32, 0), 0),
            kg.QubitUnitary(np.eye(2), 0),
            kg.RX(torch.zeros((), device="meta"), 0),
        ]
    )
    assert drawn == ["0: ──Rot(0.10, [32], [32])──U([32])──U──RX(?)──┤ Probs"]
    assert _draw([kg.RX(0.123456, 0)], decimals=4) == ["0: ──RX(0.1235)──┤ Probs"]
    assert _draw([kg.RX(0.123456, 0)], decimals=None) == ["0: ──RX──┤ Probs"]
    assert _draw([kg.RX(float("nan"), 0)]) == ["0: ──RX(nan)──┤ Probs"]


def test_a_tensor_that_torch_transforms():
    drawn = []
    torch.vmap(lambda x: drawn.append(_draw([kg.RX(x, 0)])) or x)(torch.zeros(3))
    assert drawn == [["0: ──RX(?)──┤ Probs"]]


def test_gates_on_several_wires():
    assert _draw([kg.QubitUnitary(np.eye(4), [1, 0]), kg.IsingXX(0.5, [1, 0]), kg.PauliRot(0.5, "XIZ", [2, 1, 0])]) == [
        "0: ──╭U[1]──╭IsingXX(0.50)──╭R·Z(0.50)──┤ Probs",
        "1: ──╰U[0]──╰IsingXX────────├R·I────────┤",
        "2: ─────────────────────────╰R·X────────┤",
    ]
    assert _draw([kg.SWAP([0, 1]), kg.CRX(0.5, [1, 0]), kg.DoubleExcitation(0.5, [0, 1, 2, 3])])[0] == (
        "0: ──╭×──╭RX(0.50)──╭DoubleExcitation(0.50)──┤ Probs"
    )


def test_preparations_and_what_has_no_joint():
    assert _draw([kg.BasisState([1, 0], [0, 1]), kg.Identity([0, 1])]) == ["0: ──|1⟩──I──┤ Probs", "1: ──|0⟩──I──┤"]
    assert _draw([kg.StatePrep([1, 0, 0, 0], [0, 1])]) == ["0: ──╭|ψ⟩──┤ Probs", "1: ──╰|ψ⟩──┤"]


def test_phases_without_wires():
    assert _draw([kg.GlobalPhase(0.5), kg.ctrl(kg.GlobalPhase(0.25), 0)]) == [
        "0: ──GlobalPhase(0.50)──●GlobalPhase(0.25)──┤ Probs"
    ]


def test_measurements():
    tape = kg.Tape(
        [],
        [
            kg.probs(),
            kg.expval(kg.Hermitian(np.eye(2), 0) @ kg.Projector([1, 0], [1, 2])),
            kg.sample(kg.Z(0)),
            kg.counts(wires=[1, 2]),
        ],
        shots=10,
    )
    assert tape.draw().split("\n") == [
        "0: ──┤ ╭Probs  ╭⟨Hermitian⟩   Sample[Z]",
        "1: ──┤ ├Probs  ├⟨|10⟩⟨10|⟩   ╭Counts",
        "2: ──┤ ╰Probs  ╰⟨|10⟩⟨10|⟩   ╰Counts",
    ]
    assert _draw([kg.X(0)], [kg.state(), kg.density_matrix(0)]) == ["0: ──X──┤ State  DensityMatrix"]


def test_sums_get_a_name_and_a_legend():
    shared = kg.Hamiltonian([0.5, torch.tensor(1.0)], [kg.Z(0) @ kg.X(1), kg.Y(0)])
    drawn = _draw([kg.X(0), kg.X(1)], [kg.expval(shared), kg.var(shared), kg.expval(2 * kg.Z(0))])
    assert drawn == [
        "0: ──X──┤ ╭⟨O1⟩  ╭Var[O1]  ⟨O2⟩",
        "1: ──X──┤ ╰⟨O1⟩  ╰Var[O1]",
        "",
        "O1 = 0.5*Z(0) @ X(1) + c1*Y(0)",
        "O2 = 2*Z(0)",
    ]


def test_long_circuits_go_on_in_new_blocks():
    drawn = _draw([kg.RX(0.5, wire) for _ in range(3) for wire in (0, 1)], width=36)
    assert drawn == [
        "0: ──RX(0.50)──RX(0.50)── ···",
        "1: ──RX(0.50)──RX(0.50)── ···",
        "",
        "0: ···──RX(0.50)──┤ Probs",
        "1: ···──RX(0.50)──┤",
    ]


def test_wire_labels_are_aligned():
    assert _draw([kg.X("long"), kg.X(7)], [kg.probs(7)]) == ["long: ──X──┤", "7:    ──X──┤ Probs"]


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_every_operation_is_drawn_on_all_its_wires(name):
    cls = OPERATIONS[name]
    count = cls.num_wires or 2
    special = {"BasisState": 1, "StatePrep": np.eye(4)[0], "QubitUnitary": np.eye(4), "DiagonalQubitUnitary": [1] * 4}
    arguments = [special[name]] if name in special else [0.5] * len(cls.parameter_kinds)
    arguments[1:] = [[0.0] * 4] if name == "DiagonalEvolution" else arguments[1:]
    arguments += ["XY"] if name == "PauliRot" else []
    op = cls(*arguments, wires=range(count))
    lines = _draw([op if op.is_preparation else kg.ctrl(op, "c")], [kg.state()])
    assert len(lines) == count + (not op.is_preparation)
    assert all(line.split("──")[1].strip("─ ") for line in lines)
    assert len({line.index("┤") for line in lines}) == 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True), max_size=25),
    st.integers(1, 120),
)
def test_lines_are_aligned_and_within_the_width(gates, width):
    operations = [kg.MultiRZ(0.5, wires) for wires in gates]
    tape = kg.Tape(operations, [kg.expval(kg.Z(wire)) for wire in range(5)])
    blocks = [block.split("\n") for block in tape.draw(width=width).split("\n\n")]
    assert all(len(block) == 5 for block in blocks)
    for block in blocks:
        assert len({max(line.rfind("─"), line.rfind("┤")) for line in block}) == 1
        assert max(map(len, block)) <= max(width, 32)
    drawn = "".join(line for block in blocks for line in block)
    assert drawn.count("MultiRZ(0.50)") == len(gates)
    assert drawn.count("⟨Z⟩") == 5
