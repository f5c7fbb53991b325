"""Tapes: parameters, wires, batches, structure, and what they refuse."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ketgrad as kg


def _leaf(value=0.5):
    return torch.tensor(value, requires_grad=True)


def test_what_a_tape_holds():
    ops = [kg.RX(0.5, wires=0), kg.CNOT(wires=[0, 1])]
    measurements = [kg.expval(kg.Z(0)), kg.probs(wires=1)]
    tape = kg.Tape(iter(ops), (m for m in measurements))
    assert tape.operations == tuple(ops)
    assert tape.measurements == tuple(measurements)
    assert (tape.shots, tape.wires, tape.num_wires, tape.batch_size) == (None, (0, 1), 2, None)
    assert kg.Tape([], [kg.sample(wires=0)], shots=np.int64(10)).shots == 10


def test_parameters_in_order_and_trainable_ones_by_default():
    x, w, fixed, matrix = _leaf(0.1), _leaf(0.2), torch.tensor(0.3), torch.eye(2, dtype=torch.cdouble).requires_grad_()
    tape = kg.Tape(
        [kg.Rot(x, 0.7, fixed, wires=0), kg.QubitUnitary(matrix, wires=1), kg.X(0)],
        [kg.probs(), kg.expval(w * kg.Z(0) + 2 * kg.Hermitian(np.eye(2), 1)), kg.var(x * kg.X(0))],
    )
    everything = tape.get_parameters(trainable_only=False)
    assert len(everything) == 8
    assert [p for p in everything if isinstance(p, float)] == [0.7, 2.0]
    assert tape.trainable_params == (0, 3, 4, 7)
    assert all(one is other for one, other in zip(tape.get_parameters(), [x, matrix, w, x], strict=True))
    assert isinstance(everything[6], np.ndarray)


def test_trainable_parameters_by_choice():
    ops = [kg.RX(_leaf(), 0), kg.RY(0.2, 0), kg.RZ(np.ones(3), 0)]
    tape = kg.Tape(ops, [kg.expval(kg.Z(0))], trainable_params=[2, np.int64(1), 2])
    assert tape.trainable_params == (1, 2)
    assert tape.get_parameters()[0] == 0.2
    assert kg.Tape(ops, [kg.expval(kg.Z(0))], trainable_params=[]).get_parameters() == []


@pytest.mark.parametrize(
    ("wires", "expected"),
    [
        ([2, 0, 1], (0, 1, 2)),
        ([1, 0], (0, 1)),
        ([0, 2], (0, 2)),
        ([2, 1], (2, 1)),
        ([3, 1, 2], (3, 1, 2)),
        (["b", "a"], ("b", "a")),
        ([1, "a", 0], (1, "a", 0)),
        ([-1, 0], (-1, 0)),
    ],
)
def test_wires_go_by_value_or_by_first_appearance(wires, expected):
    tape = kg.Tape([kg.X(wire) for wire in wires], [kg.probs()])
    assert tape.wires == expected


def test_controls_and_measurements_count_as_wires():
    tape = kg.Tape([kg.ctrl(kg.X("t"), ["c"])], [kg.expval(kg.Z("m") @ kg.Z("t")), kg.probs("p")])
    assert tape.wires == ("c", "t", "m", "p")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-1, 5) | st.sampled_from("ab"), min_size=1, max_size=7))
def test_wire_order(labels):
    tape = kg.Tape([kg.X(label) for label in labels], [kg.state()])
    distinct = list(dict.fromkeys(labels))
    consecutive = set(distinct) == set(range(len(distinct)))
    assert tape.wires == tuple(sorted(distinct) if consecutive else distinct)


def test_wire_order_is_pennylanes():
    qml = pytest.importorskip("pennylane")
    for labels in ([1, 0, 2], [2, 0], ["b", 0, "a"], [3, 1]):
        script = qml.tape.QuantumScript([qml.X(label) for label in labels], [qml.state()])
        mapped = script.map_to_standard_wires()
        position = {label: op.wires[0] for label, op in zip(labels, mapped.operations, strict=True)}
        tape = kg.Tape([kg.X(label) for label in labels], [kg.state()])
        assert {wire: i for i, wire in enumerate(tape.wires)} == position


def test_batch_size():
    observable = kg.Hamiltonian(torch.ones(3, 1), [kg.Z(0)])
    assert kg.Tape([kg.RX(torch.zeros(3), 0)], [kg.expval(observable)]).batch_size == 3
    assert kg.Tape([kg.RX(0.1, 0)], [kg.expval(observable)]).batch_size == 3
    assert kg.Tape([kg.RX(torch.zeros(0), 0)], [kg.probs()]).batch_size == 0
    assert kg.Tape([kg.RX(torch.zeros(1), 0)], [kg.probs()]).batch_size == 1


def test_structure_is_all_but_the_values():
    def tape(x=0.1, gate=kg.RX, wire=0, measured=None, **kwargs):
        x = torch.as_tensor(x).requires_grad_()
        return kg.Tape([gate(x, wires=wire), kg.CNOT([0, 1])], [measured or kg.expval(0.5 * kg.Z(0))], **kwargs)

    base = tape().structure
    assert base == tape(0.2).structure == tape(measured=kg.expval(0.9 * kg.Z(0))).structure
    assert hash(base) == hash(tape(0.2).structure)
    assert tape([0.1, 0.2]).structure == tape([0.3] * 5).structure != base
    different = [
        tape(gate=kg.RY),
        tape(wire=1),
        tape(measured=kg.var(0.5 * kg.Z(0))),
        tape(measured=kg.expval(_leaf() * kg.Z(0))),
        tape(trainable_params=[]),
        tape(shots=10),
        kg.Tape([kg.adjoint(kg.RX(_leaf(), 0)), kg.CNOT([0, 1])], [kg.expval(0.5 * kg.Z(0))]),
    ]
    assert all(other.structure != base for other in different)
    assert tape(shots=10).structure == tape(shots=20).structure


def test_structure_is_made_once():
    tape = kg.Tape([kg.RX(0.1, 0)], [kg.expval(kg.Z(0))])
    assert tape.structure is tape.structure


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: kg.Tape([kg.Z], [kg.probs(0)]), "operation 0 of the tape is .* not an operation of ketgrad"),
        (
            lambda: kg.Tape([kg.X(0), kg.probs(0)], [kg.probs(0)]),
            "operation 1 of the tape is probs.* of type Measurement",
        ),
        (lambda: kg.Tape([], [kg.Z(0)]), r"measurement 0 of the tape is Z.* of type Z, .*; measure it, as in expval"),
        (lambda: kg.Tape([], [kg.probs(0), 3]), "measurement 1 of the tape is 3 of type int, .* ketgrad$"),
        (lambda: kg.Tape(kg.X(0), [kg.probs(0)]), "the operations of a tape must be a list, not X"),
        (lambda: kg.Tape([], kg.probs(0)), "the measurements of a tape must be a list, not Measurement"),
        (lambda: kg.Tape([], [kg.probs(0)], shots=1.5), "shots must be a positive integer or None, not 1.5 of"),
        (lambda: kg.Tape([], [kg.probs(0)], shots=True), "shots must be a positive integer or None, not True of"),
        (lambda: kg.Tape([kg.RX(0.1, 0)], [kg.probs(0)], None, [0.0]), "trainable_params must be integers, not 0.0"),
    ],
)
def test_wrong_types(build, message):
    with pytest.raises(TypeError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: kg.Tape([kg.X(0)], []), r"a tape needs at least one measurement, such as expval\(Z\(0\)\)"),
        (lambda: kg.Tape([kg.GlobalPhase(0.1)], [kg.state()]), "the tape has no wires"),
        (lambda: kg.Tape([kg.X(0), kg.BasisState([1], 1)], [kg.probs()]), "BasisState on wire 1 is operation 1 of"),
        (lambda: kg.Tape([kg.StatePrep([1, 0], 0)] * 2, [kg.probs()]), "a preparation is only allowed as the first"),
        (
            lambda: kg.Tape([kg.RX(torch.zeros(2), 0), kg.CRY(torch.zeros(3), [0, 1])], [kg.probs()]),
            r"RX on wire 0 has a batch of 2, CRY on wires \[0, 1\] a batch of 3; they must agree",
        ),
        (
            lambda: kg.Tape([kg.RX(torch.zeros(2), 0)], [kg.expval(torch.ones(1) * kg.Z(0))]),
            "RX on wire 0 has a batch of 2, expval on wire 0 a batch of 1; they must agree",
        ),
        (lambda: kg.Tape([], [kg.sample(wires=0)]), "sample needs shots: give the tape shots=1000"),
        (lambda: kg.Tape([], [kg.counts(kg.Z(0))]), "counts needs shots"),
        (lambda: kg.Tape([kg.X(0)], [kg.state()], shots=5), "state is exact: leave the shots out"),
        (lambda: kg.Tape([], [kg.density_matrix(0)], shots=5), "density_matrix is exact: leave the shots out"),
        (lambda: kg.Tape([], [kg.probs(0)], shots=0), "shots must be a positive integer or None, not 0"),
        (
            lambda: kg.Tape([kg.RX(0.1, 0)], [kg.probs(0)], trainable_params=[1]),
            "trainable_params: 1 is no index into the 1 parameters of the tape",
        ),
    ],
)
def test_wrong_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_immutable():
    tape = kg.Tape([kg.X(0)], [kg.probs()])
    for name in ("operations", "trainable_params", "anything"):
        with pytest.raises(AttributeError, match=f"Tape is immutable: '{name}' cannot be set"):
            setattr(tape, name, ())


def test_copy_and_pickle():
    tape = kg.Tape([kg.RX(_leaf(), "a"), kg.S(1)], [kg.expval(0.5 * kg.Z("a")), kg.sample()], shots=5)
    hash(tape.structure)
    for again in (copy.copy(tape), copy.deepcopy(tape), pickle.loads(pickle.dumps(tape))):
        assert again.structure == tape.structure
        assert hash(again.structure) == hash(tape.structure)
        assert (again.shots, again.wires, again.trainable_params) == (5, ("a", 1), (0,))


def test_nothing_is_read_from_the_values():
    """Tapes of tensors without values, as they are while torch traces or transforms."""
    meta = torch.zeros((), device="meta")
    assert kg.Tape([kg.RX(meta, 0)], [kg.expval(meta * kg.Z(0))]).get_parameters(trainable_only=False)[1] is meta

    def parameter(x):
        return kg.Tape([kg.RX(x, 0)], [kg.expval(x * kg.Z(0))]).get_parameters(trainable_only=False)[1]

    assert torch.vmap(parameter)(torch.ones(3)).shape == (3,)
    assert torch.func.grad(parameter)(torch.tensor(0.5)) == 1


_ONE_WIRE = [kg.RX, kg.RY, kg.RZ, kg.PhaseShift]


@st.composite
def _circuits(draw):
    """A recipe of a circuit: gates with wires, and which of their angles are trainable."""
    step = st.tuples(st.integers(0, len(_ONE_WIRE)), st.permutations(range(4)), st.sampled_from(["n", "s", "t", "b"]))
    return draw(st.lists(step, min_size=1, max_size=12))


def _built(recipe, value):
    angles = {"n": value, "s": torch.tensor(value), "t": _leaf(value), "b": torch.full((3,), value)}
    ops = []
    for gate, wires, letter in recipe:
        if gate == len(_ONE_WIRE):
            ops.append(kg.ctrl(kg.PauliRot(angles[letter], "XZ", wires[:2]), wires[2], [wires[3] % 2]))
        else:
            ops.append(_ONE_WIRE[gate](angles[letter], wires[0]))
    return kg.Tape(ops, [kg.expval(angles[recipe[0][2]] * kg.Z(0))])


@settings(deadline=None, max_examples=60)
@given(_circuits(), _circuits())
def test_structures_are_equal_exactly_where_the_circuits_are(one, other):
    assert _built(one, 0.25).structure == _built(one, -1.5).structure
    tape = _built(one, 0.25)
    assert tape.trainable_params == tuple(i for i, step in enumerate([*one, one[0]]) if step[2] == "t")
    assert len(tape.get_parameters(trainable_only=False)) == len(one) + 1
    assert tape.batch_size == (3 if "b" in {step[2] for step in one} else None)
    described = [
        [
            (gate, (*wires[:3], wires[3] % 2) if gate == len(_ONE_WIRE) else wires[0], kind)
            for gate, wires, kind in recipe
        ]
        for recipe in (one, other)
    ]
    assert (_built(one, 0.5).structure == _built(other, 0.5).structure) == (described[0] == described[1])


def test_building_circuits_reads_tensors_unseen_by_modes():
    seen = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(func)
            return func(*args, **(kwargs or {}))

    angles = torch.rand(3, requires_grad=True).unbind()
    with Watch():
        tape = kg.Tape([kg.RX(angle, wires=w) for w, angle in enumerate(angles)], [kg.expval(kg.Z(0))])
    assert tape.trainable_params == (0, 1, 2)
    assert not seen
