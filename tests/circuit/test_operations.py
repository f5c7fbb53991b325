"""Operations: what they hold, what they refuse, adjoint and ctrl."""

import copy
import pickle
from collections.abc import Callable
from enum import Enum

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import ketgrad as kg
from ketgrad.circuit.operations import OPERATIONS

FIXED = {
    1: ["Identity", "X", "Y", "Z", "H", "S", "T", "SX"],
    2: ["CNOT", "CY", "CZ", "CH", "SWAP", "ISWAP"],
    3: ["Toffoli", "CCZ", "CSWAP"],
}
ANGLES = {
    (1, 1): ["RX", "RY", "RZ", "PhaseShift", "U1", "MultiRZ", "GlobalPhase"],
    (2, 1): ["U2"],
    (3, 1): ["Rot", "U3"],
    (1, 2): [
        *("CRX", "CRY", "CRZ", "ControlledPhaseShift", "IsingXX", "IsingYY", "IsingZZ", "IsingXY", "PSWAP"),
        *("SingleExcitation", "SingleExcitationPlus", "SingleExcitationMinus"),
    ],
    (3, 2): ["CRot"],
    (1, 4): ["DoubleExcitation", "DoubleExcitationPlus", "DoubleExcitationMinus"],
}
FIXED_CASES = [(name, count) for count, names in FIXED.items() for name in names]
ANGLE_CASES = [(name, angles, count) for (angles, count), names in ANGLES.items() for name in names]
SELF_INVERSE = {"Identity", "X", "Y", "Z", "H", "CNOT", "CY", "CZ", "CH", "SWAP", "Toffoli", "CCZ", "CSWAP"}


def test_every_operation_is_listed_under_its_own_name():
    listed = {name for name, *_ in FIXED_CASES + ANGLE_CASES} | {"PauliRot", "BasisState", "StatePrep"}
    assert set(OPERATIONS) == listed | {"QubitUnitary", "DiagonalQubitUnitary", "DiagonalEvolution"}
    for name, cls in OPERATIONS.items():
        assert cls.name == cls.__name__ == name
        assert getattr(kg, name) is cls


def test_aliases():
    assert kg.PauliX is kg.X
    assert kg.PauliY is kg.Y
    assert kg.PauliZ is kg.Z
    assert kg.Hadamard is kg.H
    assert kg.CPhase is kg.ControlledPhaseShift


@pytest.mark.parametrize(("name", "count"), FIXED_CASES)
def test_gate_without_parameters(name, count):
    op = getattr(kg, name)(wires=list(range(count)))
    assert op.wires == op.base_wires == tuple(range(count))
    assert (op.parameters, op.parameter_layout, op.batch_size) == ((), "", None)
    assert op.structure == (name, op.wires, (), (), False, "", (), "")
    assert op.is_self_inverse == (name in SELF_INVERSE)


@pytest.mark.parametrize(("name", "angles", "count"), ANGLE_CASES)
def test_gate_of_angles(name, angles, count):
    values = [torch.tensor(0.1 * i, requires_grad=True) for i in range(angles)]
    op = getattr(kg, name)(*values, wires=list(range(count)))
    assert all(stored is value for stored, value in zip(op.parameters, values, strict=True))
    assert op.parameter_kinds == ("angle",) * angles
    assert op.parameter_layout == "s" * angles
    assert op.wires == tuple(range(count))


@pytest.mark.parametrize(("name", "angles", "count"), ANGLE_CASES)
def test_names_and_numbers_are_those_of_pennylane(name, angles, count):
    qml = pytest.importorskip("pennylane")
    theirs = getattr(qml, name)
    assert theirs.num_params == angles
    assert getattr(kg, name).num_wires in (theirs.num_wires, None)


@pytest.mark.parametrize(
    ("value", "stored", "letter", "batch_size"),
    [
        (0.5, 0.5, "n", None),
        (1, 1.0, "n", None),
        (np.float32(0.5), 0.5, "n", None),
        (np.int64(2), 2.0, "n", None),
        (np.array(0.5), 0.5, "n", None),
        ([0.1, 0.2], np.array([0.1, 0.2]), "B", 2),
        ((1, 2, 3), np.array([1.0, 2.0, 3.0]), "B", 3),
        (np.zeros(0), np.zeros(0), "B", 0),
        (np.array([True]), np.array([1.0]), "B", 1),
    ],
)
def test_numbers_lists_and_arrays(value, stored, letter, batch_size):
    op = kg.RX(value, wires=0)
    assert type(op.parameters[0]) is type(stored)
    np.testing.assert_array_equal(op.parameters[0], stored)
    assert (op.parameter_layout, op.batch_size) == (letter, batch_size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_stay_as_they_came(dtype):
    scalar, batch = torch.ones((), dtype=dtype), torch.ones(3, dtype=dtype)
    op = kg.CRot(scalar, batch, 0.5, wires=[0, 1])
    assert op.parameters[0] is scalar
    assert op.parameters[1] is batch
    assert (op.parameter_layout, op.batch_size) == ("sbn", 3)


def test_a_batch_of_one_and_of_none_keep_their_axis():
    assert kg.RX(torch.zeros(1), wires=0).batch_size == 1
    assert kg.RX(torch.zeros(0), wires=0).batch_size == 0
    assert kg.RX(torch.nn.Parameter(torch.zeros(())), wires=0).batch_size is None


def test_arrays_are_copied():
    angles = np.array([0.1, 0.2])
    op = kg.RX(angles, wires=0)
    angles[0] = 5.0
    assert op.parameters[0][0] == 0.1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: kg.RX(1j, 0), "RX on wire 0: the angle must be real, not of dtype complex128"),
        (lambda: kg.RX(np.array([1j]), 0), "RX on wire 0: the angle must be real, not of dtype complex128"),
        (lambda: kg.RX(torch.tensor(1j), "a"), "RX on wire 'a': the angle must be real, not of dtype torch.complex64"),
        (lambda: kg.RX("0.5", 0), "must be a number, a list of numbers, an array or a tensor, not str"),
        (lambda: kg.RX(None, 0), "RX on wire 0: the angle must be a number, .* not NoneType"),
        (lambda: kg.RX(["x"], 0), "RX on wire 0: the angle must be .* not an array of dtype <U1"),
        (lambda: kg.RX([torch.tensor(0.5)], 0), "not a list of tensors; use torch.stack"),
        (lambda: kg.IsingXX({}, [0, 1]), r"IsingXX on wires \[0, 1\]: the angle must be a number, .* not dict"),
        (lambda: kg.PauliRot(0.1, 3, 0), "PauliRot on wire 0: the Pauli word must be a string, not int"),
        (lambda: kg.QubitUnitary("U", 0), "QubitUnitary on wire 0: the matrix must be .* not str"),
        (lambda: kg.QubitUnitary(torch.eye(2).to_sparse(), 0), "must be a dense tensor, not torch.sparse_coo"),
        (lambda: kg.BasisState([0.5], 0), "BasisState on wire 0: bits must be integers, not 0.5 of type float"),
        (lambda: kg.BasisState("01", [0, 1]), "the basis state must be a list of bits or an integer, not str"),
        (lambda: kg.X(0.5), "X: a wire is an integer, a string or another hashable label, not 0.5 of type float"),
        (lambda: kg.X(None), "X: a wire is an integer, .* not None of type NoneType"),
        (lambda: kg.X(True), "X: a wire is an integer, .* not True of type bool"),
        (lambda: kg.X(1 + 0j), "X: a wire is an integer, .* of type complex"),
        (lambda: kg.X([np.float64(1.0)]), "X: a wire is an integer, .* of type float64"),
        (lambda: kg.X([[0]]), r"X: a wire is an integer, .* not \[0\] of type list"),
        (lambda: kg.X(torch.tensor(0)), r"X: wires must be integers or strings, not a tensor; use wires.tolist\(\)"),
        (lambda: kg.CNOT([0, torch.tensor(1)]), "CNOT: a wire is an integer, .* of type Tensor"),
        (lambda: kg.CNOT({0, 1}), "CNOT: wires must come in an order, not as a set; use a list"),
        (lambda: kg.adjoint(kg.Hermitian(np.eye(2), 0)), "adjoint takes an operation, .*, not Hermitian"),
        (lambda: kg.adjoint(lambda: None)(), "adjoint takes an operation, .*, not NoneType"),
        (lambda: kg.ctrl("X", 0), "ctrl takes an operation, .*, not str"),
        (lambda: kg.ctrl(kg.Tape([kg.X(0)], [kg.probs()]), 1), "not Tape; give it the tape's operations"),
        (lambda: kg.ctrl(kg.X(0), 1.5), r"ctrl of X on wire 0: a wire is an integer, .* not 1.5"),
    ],
)
def test_wrong_types(build, message):
    with pytest.raises(TypeError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: kg.RX(torch.zeros(2, 3), 0), r"RX on wire 0: the angle must be a scalar \(\) or .* \(2, 3\)"),
        (lambda: kg.RX([[0.1]], 0), r"must be a scalar \(\) or a batch \(B,\), not of shape \(1, 1\)"),
        (lambda: kg.RX([[0.1], [0.1, 0.2]], 0), "RX on wire 0: the angle is a list of uneven length"),
        (lambda: kg.Rot(torch.zeros(2), 0.1, torch.zeros(3), 0), "Rot on wire 0: .* batches of 2 and of 3"),
        (lambda: kg.RX(0.1, [0, 1]), r"RX acts on 1 wire, not on 2: \[0, 1\]"),
        (lambda: kg.CNOT(0), r"CNOT acts on 2 wires, not on 1: \[0\]"),
        (lambda: kg.CNOT([1, 1]), r"CNOT: wire 1 is repeated in \[1, 1\]; wires must be distinct"),
        (lambda: kg.CNOT([np.int64(1), 1]), "CNOT: wire 1 is repeated"),
        (lambda: kg.MultiRZ(0.1, []), "MultiRZ needs at least one wire"),
        (lambda: kg.QubitUnitary([[1]], []), "QubitUnitary needs at least one wire"),
        (lambda: kg.PauliRot(0.1, "XA", [0, 1]), "the Pauli word must be of the letters I, X, Y, Z, not 'XA'"),
        (lambda: kg.PauliRot(0.1, "xy", [0, 1]), "the Pauli word must be of the letters I, X, Y, Z, not 'xy'"),
        (lambda: kg.PauliRot(0.1, "X", [0, 1]), r"PauliRot on wires \[0, 1\]: the word 'X' has 1 letters for 2 wires"),
        (lambda: kg.QubitUnitary(np.eye(2), [0, 1]), r"matrix must have shape \(4, 4\) or \(B, 4, 4\), not \(2, 2\)"),
        (lambda: kg.QubitUnitary(torch.eye(4)[0], [0, 1]), r"must have shape \(4, 4\) or \(B, 4, 4\), not \(4,\)"),
        (lambda: kg.DiagonalQubitUnitary([1, 1], [0, 1]), r"diagonal must have shape \(4,\) or \(B, 4\), not \(2,\)"),
        (lambda: kg.DiagonalEvolution(0.1, [1, 1], [0, 1]), r"diagonal must have shape \(4,\) or \(B, 4\), not \(2,\)"),
        (
            lambda: kg.DiagonalEvolution(torch.zeros(2), np.ones((3, 2)), 0),
            "DiagonalEvolution .* batches of 2 and of 3",
        ),
        (lambda: kg.DiagonalEvolution([[0.1]], [1, 1], 0), r"the time must be a scalar \(\) or a batch \(B,\)"),
        (lambda: kg.DiagonalEvolution(0.1, [1], []), "DiagonalEvolution needs at least one wire"),
        (lambda: kg.StatePrep(torch.ones(3), [0, 1]), r"the state must have shape \(4,\) or \(B, 4\), not \(3,\)"),
        (lambda: kg.BasisState([0, 1], [0]), "BasisState on wire 0: the basis state has 2 bits for 1 wires"),
        (lambda: kg.BasisState([0, 2], [0, 1]), "bits must be 0 or 1, not 2"),
        (lambda: kg.BasisState(8, [0, 1, 2]), "the basis state 8 is not in 0…7"),
        (lambda: kg.BasisState(torch.zeros(2, 1, dtype=torch.int64), [0]), "StatePrep takes batches"),
        (lambda: kg.adjoint(kg.BasisState([1, 0], [0, 1])), r"adjoint: BasisState .* write \[X\(wires=\[0\]\)\]"),
        (lambda: kg.adjoint([kg.X(0), kg.BasisState([0], 0)]), "adjoint: BasisState on wire 0 is .* write nothing"),
        (lambda: kg.ctrl(kg.StatePrep([1, 0], 0), 1), r"ctrl: StatePrep .*write QubitUnitary\(matrix, wires=\[0\]\)"),
        (lambda: kg.ctrl(kg.CNOT([0, 1]), 1), r"ctrl of CNOT on .*: control wire 1 is a wire of the operation"),
        (lambda: kg.ctrl(kg.X(0), [1, 1]), "ctrl of X on wire 0: wire 1 is repeated"),
        (lambda: kg.ctrl(kg.X(0), [1, 2], [1]), "ctrl of X on wire 0: 1 control values for 2 control wires"),
        (lambda: kg.ctrl(kg.X(0), 1, 2), "control values must be 0, 1, False or True, not 2"),
        (lambda: kg.ctrl(kg.X(0), [1, 2], "01"), "control values must be 0, 1, False or True, not '0'"),
    ],
)
def test_wrong_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()


class _Site(Enum):
    LEFT = 1
    RIGHT = 2


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ([np.int64(3), 1], (3, 1)),
        (np.array([2, 0]), (2, 0)),
        (range(2), (0, 1)),
        (("a", 0), ("a", 0)),
        ([(0, 1), (1, 0)], ((0, 1), (1, 0))),
        (list(_Site), tuple(_Site)),
    ],
)
def test_wires_of_many_kinds(given_, expected):
    found = kg.CNOT(wires=given_).wires
    assert found == expected
    assert [type(a) for a in found] == [type(b) for b in expected]


def test_one_wire_of_many_kinds():
    assert kg.X("ancilla").wires == ("ancilla",)
    assert kg.X(np.int32(2)).wires == (2,)
    assert kg.X(_Site.LEFT).wires == (_Site.LEFT,)
    assert kg.Identity().wires == ()
    assert kg.GlobalPhase(0.1).wires == ()


# ---------------------------------------------------------------------------------------------------------------------
# Matrices and states


def test_shapes_and_layouts_of_matrices():
    eye = torch.eye(4, dtype=torch.complex128)
    assert kg.QubitUnitary(eye, [0, 1]).parameter_layout == "s"
    assert kg.QubitUnitary(eye.repeat(3, 1, 1), [0, 1]).batch_size == 3
    assert kg.QubitUnitary(eye.expand(0, 4, 4), [0, 1]).batch_size == 0
    assert kg.QubitUnitary(eye.numpy(), [0, 1]).parameter_layout == "N"
    assert kg.QubitUnitary([[0, 1], [1, 0]], 0).parameters[0].dtype == np.float64
    assert kg.DiagonalQubitUnitary(np.ones((5, 2)), 0).parameter_layout == "B"
    assert kg.StatePrep(torch.tensor([0.6, 0.8j]), 0).parameter_kinds == ("state",)
    assert kg.StatePrep([[1, 0], [0, 1]], 0).batch_size == 2


@pytest.mark.parametrize("as_tensor", [torch.tensor, np.array])
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda f: kg.QubitUnitary(f([[1.0, 1.0], [0.0, 1.0]]), 0), "QubitUnitary on wire 0: the matrix must be"),
        (lambda f: kg.QubitUnitary(f([[[1.0, 0], [0, 1]], [[1, 0], [0, 0.9]]]), 0), "unitary; it is off by 0.19"),
        (lambda f: kg.DiagonalQubitUnitary(f([1.0, 0.5]), 0), "the entries of the diagonal must have modulus 1"),
        (lambda f: kg.StatePrep(f([1.0, 1.0]), 0), "StatePrep on wire 0: .* norm 1; it is off by 0.41"),
        (lambda f: kg.StatePrep(f([[1, 0], [1, 1]]), 0), "the state must have norm 1"),
        (lambda f: kg.StatePrep(f([[float("nan"), 0], [1, 1]]), 0), "the state must have norm 1"),
    ],
)
def test_values_are_checked(as_tensor, build, message):
    with pytest.raises(ValueError, match=message):
        build(as_tensor)


def test_rounding_to_the_dtype_passes_the_checks():
    exact = torch.linalg.qr(torch.randn(16, 16, dtype=torch.complex128)).Q
    for dtype in (torch.complex128, torch.complex64):
        kg.QubitUnitary(exact.to(dtype), range(4))
        kg.StatePrep(exact[0].to(dtype), range(4))
    state = torch.randn(16)
    for real in (torch.float32, torch.float16, torch.bfloat16):
        kg.StatePrep((state / state.norm()).to(real), range(4))


def test_values_that_cannot_be_read_are_not_checked():
    kg.QubitUnitary(torch.empty(2, 2, device="meta"), 0)
    kg.StatePrep(torch.full((2,), float("nan")), 0)
    for size in (2, 32):  # also where other entries are wrong
        matrix = 2 * torch.eye(size)
        matrix[0, 0] = float("nan")
        kg.QubitUnitary(matrix, range(size.bit_length() - 1))
        kg.DiagonalQubitUnitary(matrix.diagonal(), range(size.bit_length() - 1))
    kg.QubitUnitary(torch.full((2, 2), float("inf")), 0)
    wrong = torch.ones(3, 2, 2)
    assert torch.vmap(lambda matrix: kg.QubitUnitary(matrix, 0).parameters[0])(wrong).shape == (3, 2, 2)


def test_the_checks_build_no_graph_and_leave_the_gradient_alone():
    matrix = torch.eye(2, dtype=torch.complex128, requires_grad=True)
    kg.QubitUnitary(matrix, 0).parameters[0].real.sum().backward()
    torch.testing.assert_close(matrix.grad, torch.ones(2, 2, dtype=torch.complex128))


def test_gradcheck_moves_within_the_tolerance():
    matrix = torch.eye(4, dtype=torch.complex128, requires_grad=True)
    state = torch.full((4,), 0.5, dtype=torch.complex128, requires_grad=True)

    def through(u, s):
        return kg.QubitUnitary(u, [0, 1]).parameters[0] * 1, kg.StatePrep(s, [0, 1]).parameters[0] * 1

    assert torch.autograd.gradcheck(through, (matrix, state))


@pytest.mark.parametrize("given_", [[1, 0, 1], (True, False, True), np.array([1, 0, 1]), torch.tensor([1, 0, 1]), 5])
def test_basis_state(given_):
    op = kg.BasisState(given_, wires=[0, 1, 2])
    assert op.bits == (1, 0, 1)
    assert op.is_preparation
    assert op.parameters == ()


# ---------------------------------------------------------------------------------------------------------------------
# Adjoint and ctrl


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"BasisState", "StatePrep"}))
def test_adjoint_twice_is_the_operation(name):
    op = _any(name)
    once = kg.adjoint(op)
    assert once is op if name in SELF_INVERSE else once.inverse
    assert kg.adjoint(once).structure == op.structure
    assert once.parameters == op.parameters


def _any(name):
    special = {
        "PauliRot": lambda: kg.PauliRot(0.1, "XIZ", [0, 1, 2]),
        "QubitUnitary": lambda: kg.QubitUnitary(np.eye(4), [0, 1]),
        "DiagonalQubitUnitary": lambda: kg.DiagonalQubitUnitary(np.ones(4), [0, 1]),
        "DiagonalEvolution": lambda: kg.DiagonalEvolution(0.1, np.ones(4), [0, 1]),
    }
    if name in special:
        return special[name]()
    cls = OPERATIONS[name]
    return cls(*[0.1] * len(cls.parameter_kinds), wires=list(range(cls.num_wires or 2)))


@pytest.mark.parametrize("name", sorted(set(OPERATIONS) - {"BasisState", "StatePrep"}))
def test_nested_controls_merge(name):
    op = kg.ctrl(kg.ctrl(kg.adjoint(_any(name)), "a"), ["b", "c"], control_values=[0, True])
    assert op.control_wires == ("b", "c", "a")
    assert op.control_values == (False, True, True)
    assert op.wires == op.control_wires + op.base_wires
    assert op.inverse == (name not in SELF_INVERSE)
    assert type(op) is OPERATIONS[name]


def test_adjoint_and_control_commute():
    one, other = kg.adjoint(kg.ctrl(kg.S(0), 1, 0)), kg.ctrl(kg.adjoint(kg.S(0)), 1, 0)
    assert one.structure == other.structure


def test_adjoint_and_control_of_several():
    def circuit(phi, *, wire):
        return [kg.RX(phi, wire), [kg.S(wire), kg.CNOT([wire, 1])]]

    undone = [kg.CNOT([0, 1]), kg.adjoint(kg.S(0)), kg.adjoint(kg.RX(0.5, 0))]
    for found in (kg.adjoint(circuit)(0.5, wire=0), kg.adjoint(circuit(0.5, wire=0))):
        (*inner, last) = found
        assert repr([*inner[0], last]) == repr(undone)
    controlled = [kg.ctrl(op, "c", 0) for op in (kg.X(0), kg.S(0))]
    assert repr(kg.ctrl((kg.X(0), kg.S(0)), "c", 0)) == repr(controlled)
    assert repr(kg.ctrl(lambda: [kg.X(0), kg.S(0)], "c", 0)()) == repr(controlled)
    assert repr(kg.adjoint(kg.RX)(0.5, wires=0)) == repr(kg.adjoint(kg.RX(0.5, 0)))
    assert repr(kg.adjoint(kg.ctrl)(kg.S(0), 1)) == repr(kg.adjoint(kg.ctrl(kg.S(0), 1)))


def test_control_of_nothing_and_by_one_value():
    assert kg.ctrl(kg.X(0), []).control_wires == ()
    assert kg.ctrl(kg.X(0), 1, control_values=0).control_values == (False,)
    assert kg.ctrl(kg.X(0), 1, control_values=np.array([1])).control_values == (True,)


# ---------------------------------------------------------------------------------------------------------------------
# Objects


def test_operations_are_immutable():
    op = kg.RX(0.1, wires=0)
    for name in ("wires", "parameters", "inverse", "anything"):
        with pytest.raises(AttributeError, match=f"RX is immutable: '{name}' cannot be set"):
            setattr(op, name, 1)
    with pytest.raises(AttributeError, match="RX is immutable: 'wires' cannot be deleted"):
        del op.wires


def test_copy_and_pickle():
    op = kg.ctrl(kg.adjoint(kg.PauliRot(0.25, "XY", ["a", 1])), [5], [0])
    for again in (copy.copy(op), copy.deepcopy(op), pickle.loads(pickle.dumps(op))):
        assert type(again) is kg.PauliRot
        assert again.structure == op.structure
        assert again.parameters == op.parameters
        assert again.wires == op.wires


def test_repr():
    op = kg.ctrl(kg.adjoint(kg.RX(torch.zeros(3), wires=0)), [1, "a"], [1, 0])
    assert repr(op) == "ctrl(adjoint(RX(tensor[3], wires=[0])), control=[1, 'a'], control_values=[1, 0])"
    assert repr(kg.Rot(0.1, 0.2, np.zeros(2), 0)) == "Rot(0.1, 0.2, array[2], wires=[0])"
    assert repr(kg.PauliRot(0.5, "XY", [0, 1])) == "PauliRot(0.5, 'XY', wires=[0, 1])"
    assert repr(kg.BasisState(2, [0, 1])) == "BasisState([1, 0], wires=[0, 1])"


_WIRES = st.one_of(st.integers(), st.text(max_size=3))


@settings(deadline=None, max_examples=60)
@given(st.lists(_WIRES, min_size=4, max_size=7, unique=True), st.data())
def test_structure_says_everything_but_the_values(wires, data):
    def build(value):
        op = kg.DoubleExcitation(value, wires[:4])
        op = kg.adjoint(op) if inverse else op
        return kg.ctrl(op, wires[4:], values)

    inverse = data.draw(st.booleans())
    values = data.draw(st.lists(st.booleans(), min_size=len(wires) - 4, max_size=len(wires) - 4))
    op = build(0.5)
    assert op.structure == build(-3.0).structure
    assert hash(op.structure) == hash(build(1).structure)
    assert op.structure != build(torch.tensor(0.5)).structure
    assert build(torch.zeros(2)).structure == build(torch.ones(7)).structure
    assert op.wires == tuple(wires[4:] + wires[:4])
    if values:
        values[0] = not values[0]
        assert op.structure != build(0.5).structure


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 12), st.data())
def test_an_integer_prepares_its_bits_most_significant_first(count, data):
    number = data.draw(st.integers(0, 2**count - 1))
    bits = kg.BasisState(number, range(count)).bits
    assert int("".join(map(str, bits)), 2) == number
    assert bits == kg.BasisState(list(bits), range(count)).bits


@pytest.mark.parametrize("layout", ["sparse_coo", "_mkldnn"])
def test_an_angle_is_a_dense_tensor(layout: str) -> None:
    angles = torch.tensor([0.3, 0.4])
    other = angles.to_mkldnn() if layout == "_mkldnn" else angles.to_sparse()
    with pytest.raises(TypeError, match=rf"RX on wire 0: the angle must be a dense tensor, not torch\.{layout}"):
        kg.RX(other, wires=0)
    with pytest.raises(TypeError, match="Rot on wire 0: the angle must be a dense tensor"):
        kg.Rot(0.1, other, 0.2, wires=0)


def test_matrices_of_integers_are_checked_without_overflow() -> None:
    flip = torch.tensor([[0, 1], [1, 0]], dtype=torch.int8)
    kg.QubitUnitary(flip, wires=0)
    with pytest.raises(ValueError, match=r"the matrix must be unitary; it is off by 1\.6e"):
        kg.QubitUnitary(127 * flip, wires=0)  # 127² is 1 modulo 256


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda u: u.mT.contiguous().mT,
    "conjugated": lambda u: u.conj().resolve_conj().conj(),
    "strided": lambda u: torch.stack([u, torch.zeros_like(u)], -1).flatten(-2)[:, ::2],
    "batch": lambda u: torch.stack([u, u.mH]),
    "batch of columns": lambda u: torch.stack([u, u.mH]).mT.contiguous().mT,
    "expanded": lambda u: u.expand(3, *u.shape),
    "needs grad": lambda u: u.clone().requires_grad_(),
}


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("view", VIEWS)
def test_matrices_are_checked_as_they_lie_in_memory(view: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    u = torch.linalg.qr(torch.randn(4, 4, dtype=dtype, generator=generator))[0]
    matrix = VIEWS[view](u)
    torch.testing.assert_close(matrix.detach().reshape(-1, 4, 4)[0].resolve_conj(), u)
    kg.QubitUnitary(matrix, wires=[0, 1])
    wrong = u.clone()
    wrong[3, 1] += 0.5
    with pytest.raises(ValueError, match="the matrix must be unitary; it is off by 0"):
        kg.QubitUnitary(VIEWS[view](wrong), wires=[0, 1])


def test_a_part_of_a_unitary_matrix_is_not_unitary() -> None:
    u = torch.linalg.qr(torch.randn(8, 8, dtype=torch.complex128, generator=torch.Generator().manual_seed(4)))[0]
    with pytest.raises(ValueError, match="must be unitary"):
        kg.QubitUnitary(u.contiguous()[::2, ::2], wires=[0, 1])
