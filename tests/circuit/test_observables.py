"""Observables: composition, their normal form against dense matrices, and what they refuse; measurements."""

import copy
import pickle
from functools import reduce

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ketgrad as kg
from ketgrad.circuit.observables import Term, as_observable

PAULIS = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
    "H": np.array([[1, 1], [1, -1]]) / np.sqrt(2),
}
A = np.array([[1.0, 2 - 1j], [2 + 1j, -0.5]])


def dense(observable, count):
    """The matrix that the terms stand for, on wires 0…count−1; factors must be on one wire."""
    observable = as_observable(observable)
    total = np.zeros((2**count, 2**count), complex)
    for term in observable.terms:
        matrices = [PAULIS["I"]] * count
        for wire, letter in term.word:
            matrices[wire] = PAULIS[letter]
        for factor in term.factors:
            matrices[factor.wires[0]] = _matrix(factor, observable)
        scale = term.scale
        for index, column in term.coefficients:
            scale = scale * np.asarray(observable.parameters[index]).reshape(-1)[column]
        total += scale * reduce(np.kron, matrices)
    return total


def _matrix(factor, observable):
    if factor.kind == "projector":
        return np.diag(np.eye(2)[factor.bits[0]])
    value = np.asarray(observable.parameters[factor.parameter])
    return value if factor.kind == "hermitian" else np.outer(value, value.conj())


def test_gates_are_observables():
    for name in "XYZ":
        assert as_observable(getattr(kg, name)(3)).terms == (Term(1.0, (), ((3, name),), ()),)
    assert as_observable(kg.Identity([1, 2])).terms == (Term(1.0, (), (), ()),)
    assert as_observable(kg.Identity([1, 2])).wires == (1, 2)
    half = np.sqrt(0.5)
    assert as_observable(kg.H(0)).terms == (Term(half, (), ((0, "X"),), ()), Term(half, (), ((0, "Z"),), ()))
    observable = kg.X(0) @ kg.Z(1)
    assert as_observable(observable) is observable
    assert as_observable(kg.adjoint(kg.X(0))).terms == as_observable(kg.X(0)).terms


def test_parameters_come_in_pennylanes_order():
    a, b, c = (torch.tensor(float(i)) for i in range(3))
    observable = a * kg.Hermitian(A, 0) @ (b * kg.X(1)) + c * (kg.Z(0) - 2 * kg.Y(1))
    kinds = ("coefficient", "matrix", "coefficient", "coefficient", "coefficient", "coefficient")
    assert observable.parameter_kinds == kinds
    assert observable.parameter_layout == "sNssnn"
    assert [observable.parameters[i] for i in (0, 2, 3)] == [a, b, c]
    assert observable.parameters[4:] == (-1.0, 2.0)
    assert [term.coefficients for term in observable.terms] == [((0, 0), (2, 0)), ((3, 0),), ((3, 0), (4, 0), (5, 0))]
    assert observable.terms[0].factors[0].parameter == 1


def test_parameters_are_pennylanes_data():
    qml = pytest.importorskip("pennylane")
    for q in (qml, kg):
        q.built = 0.1 * q.Hermitian(A, 0) + 0.3 * q.Z(1) @ (0.2 * q.X(2)) - q.Y(3) / 2
        q.listed = q.Hamiltonian([0.5, 0.25], [q.Hermitian(A, 0), q.X(0) @ q.Z(1)])
    for name in ("built", "listed"):
        ours, theirs = getattr(kg, name).parameters, getattr(qml, name).data
        delattr(kg, name)
        delattr(qml, name)
        if name == "built":  # PennyLane folds −1 and 1/2 into one number
            assert ours[-2] * ours[-1] == theirs[-1]
            ours, theirs = ours[:-2], theirs[:-1]
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_scalars_of_every_kind_on_both_sides():
    z = kg.Z(0)
    assert (2 * z).parameters == (z * 2).parameters == (np.float64(2) * z).parameters == (2.0,)
    assert (z / 4).parameters == (0.25,)
    assert (-z).parameters == (-1.0,)
    tensor, batch = torch.tensor(0.5, requires_grad=True), torch.ones(3)
    assert (tensor * z).parameters[0] is (z * tensor).parameters[0] is tensor
    assert (batch * z).batch_size == (z * batch).batch_size == 3
    assert (np.ones(4) * z).parameter_layout == (z * np.ones(4)).parameter_layout == "B"
    assert (z / tensor).parameters[0].requires_grad
    assert (torch.nn.Parameter(torch.ones(())) * z).parameter_layout == "s"


def test_sums_with_numbers():
    assert sum([kg.X(0), kg.Z(1)]).terms == (kg.X(0) + kg.Z(1)).terms
    assert (0 + kg.X(0)).terms == (kg.X(0) + 0).terms == as_observable(kg.X(0)).terms
    np.testing.assert_allclose(dense(kg.X(0) + 3, 1), PAULIS["X"] + 3 * PAULIS["I"])
    np.testing.assert_allclose(dense(3 - kg.X(0), 1), 3 * PAULIS["I"] - PAULIS["X"])
    np.testing.assert_allclose(dense(kg.X(0) - 0.5, 1), PAULIS["X"] - 0.5 * PAULIS["I"])
    shift = torch.tensor(2.0)
    np.testing.assert_allclose(dense(shift + kg.X(0), 1), 2 * PAULIS["I"] + PAULIS["X"])
    assert (kg.X(0) + torch.tensor(0.0)).parameter_layout == "s"  # a tensor stays a parameter, whatever its value


def test_wires_by_first_appearance():
    assert (kg.Z(3) @ kg.X("a") + kg.Y(0) @ kg.Z(3)).wires == (3, "a", 0)
    assert (kg.X(0) @ kg.X(0)).wires == (0,)


def test_like_products_merge():
    assert (kg.X(0) @ kg.Z(1) + kg.Z(1) @ kg.X(0)).terms == (Term(2.0, (), ((0, "X"), (1, "Z")), ()),)
    (square,) = (kg.H(0) @ kg.H(0)).terms
    assert square.word == ()
    assert square.scale == pytest.approx(1)


def test_phases_may_cancel_in_the_end():
    assert (kg.X(0) @ kg.Y(0) @ (kg.X(1) @ kg.Y(1))).terms == (Term(-1.0, (), ((0, "Z"), (1, "Z")), ()),)
    x = torch.tensor(0.3)
    mixed = x * kg.X(0) + 0.5 * kg.Y(0) + kg.Z(0)
    np.testing.assert_allclose(dense(mixed @ mixed, 1), dense(mixed, 1) @ dense(mixed, 1), atol=1e-12)
    weights = np.array([0.2, 0.7])
    both = kg.Hamiltonian(weights, [kg.X(0), kg.Y(0)])
    np.testing.assert_allclose(dense(both @ both, 1), dense(both, 1) @ dense(both, 1), atol=1e-12)
    vanishing = kg.X(0) @ kg.Y(0) + kg.Y(0) @ kg.X(0)
    assert vanishing.terms == (Term(0.0, (), (), ()),)


@pytest.mark.parametrize(
    "build",
    [
        lambda: kg.X(0) @ kg.Y(0),
        lambda: torch.tensor(0.5) * kg.X(0) @ kg.Y(0),
        lambda: (torch.tensor(0.5) * kg.X(0) + kg.Y(0)) @ (torch.tensor(0.5) * kg.X(0) + kg.Y(0)),
        lambda: kg.X(0) @ kg.Y(0) @ kg.Hermitian(A, 1),
    ],
)
def test_products_that_are_not_hermitian(build):
    observable = build()
    with pytest.raises(ValueError, match=r"observables is not Hermitian: Z\(0\) has an imaginary"):
        kg.expval(observable)


# ---------------------------------------------------------------------------------------------------------------------
# Leaves


def test_hermitian():
    observable = kg.Hermitian(torch.tensor(A), 2)
    assert (observable.parameter_kinds, observable.parameter_layout) == (("matrix",), "s")
    (factor,) = observable.terms[0].factors
    assert (factor.kind, factor.wires, factor.parameter) == ("hermitian", (2,), 0)
    assert kg.Hermitian(np.eye(4)[None].repeat(3, 0), [0, 1]).batch_size == 3
    moved = torch.eye(2, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m: kg.Hermitian(m, 0).parameters[0] * 1, (moved,))


def test_diagonal():
    observable = kg.Diagonal(torch.arange(4.0), ["a", 1])
    assert (observable.parameter_kinds, observable.parameter_layout) == (("entries",), "s")
    (factor,) = observable.terms[0].factors
    assert (factor.kind, factor.wires, factor.parameter) == ("diagonal", ("a", 1), 0)
    assert kg.Diagonal(np.ones((3, 2)), 0).batch_size == 3
    assert kg.Diagonal([1, 2], 0).parameters[0].dtype == np.float64
    assert str(observable @ kg.X(0)) == "<observable X(0) @ Diagonal('a', 1)>"


def test_projector_on_bits_and_on_a_state():
    bits = kg.Projector([1, 0], wires=[0, "a"])
    (factor,) = bits.terms[0].factors
    assert (factor.kind, factor.wires, factor.parameter, factor.bits) == ("projector", (0, "a"), -1, (1, 0))
    assert bits.parameters == ()
    assert kg.Projector(torch.tensor([1]), 0).parameters == ()
    state = kg.Projector(torch.tensor([0.6, 0.8j]), wires=0)
    assert state.parameter_kinds == ("state",)
    assert state.terms[0].factors[0].kind == "state_projector"
    assert kg.Projector(np.array([[1, 0], [0, 1]]), wires=0).batch_size == 2


def _entries(observable):
    (factor,) = observable.terms[0].factors
    rows, columns = (np.frombuffer(part, np.int64) for part in (factor.rows, factor.columns))
    values = observable.parameters[0]
    found = np.zeros((2 ** len(factor.wires),) * 2, complex)
    np.add.at(found, (rows, columns), values.detach().numpy() if isinstance(values, torch.Tensor) else values)
    assert (np.diff(rows * len(found) + columns) > 0).all()  # row-major, without duplicates
    return found


@pytest.mark.parametrize("form", ["csr_matrix", "csc_matrix", "coo_array", "lil_matrix", "dia_array"])
def test_sparse_from_scipy(form):
    sparse = pytest.importorskip("scipy.sparse")
    matrix = np.kron(A, PAULIS["Z"])
    observable = kg.SparseHamiltonian(getattr(sparse, form)(matrix), wires=[0, 1])
    np.testing.assert_allclose(_entries(observable), matrix)
    assert (observable.parameter_kinds, observable.parameter_layout) == (("values",), "N")


def test_sparse_sums_duplicates():
    sparse = pytest.importorskip("scipy.sparse")
    matrix = sparse.coo_matrix(([1.0, 2.0, 3.0, 3.0], ([0, 0, 1, 0], [0, 0, 0, 1])), shape=(2, 2))
    np.testing.assert_allclose(_entries(kg.SparseHamiltonian(matrix, 0)), [[3, 3], [3, 0]])
    tensor = torch.sparse_coo_tensor([[0, 0, 1, 0], [0, 0, 0, 1]], [1.0, 2.0, 3.0, 3.0], (2, 2), check_invariants=True)
    np.testing.assert_allclose(_entries(kg.SparseHamiltonian(tensor, 0)), [[3, 3], [3, 0]])


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr])
def test_sparse_from_torch_carries_gradients(layout, dtype):
    entries = torch.tensor(A if dtype.is_complex else A.real, dtype=dtype)
    matrix = entries.to_sparse(layout=layout).requires_grad_()
    observable = kg.SparseHamiltonian(matrix, wires=0)
    np.testing.assert_allclose(_entries(observable), entries)
    assert (observable.parameter_kinds, observable.parameter_layout) == (("values",), "s")
    observable.parameters[0].abs().square().sum().backward()
    torch.testing.assert_close(matrix.grad.to_dense(), 2 * entries)


def test_sparse_without_entries():
    empty = torch.sparse_coo_tensor(torch.empty(2, 0), [], (2, 2), check_invariants=True)
    np.testing.assert_allclose(_entries(kg.SparseHamiltonian(empty, wires=0)), np.zeros((2, 2)))


def test_hamiltonian_of_a_list():
    a, b = torch.tensor(0.5, requires_grad=True), torch.ones(4)
    observable = kg.Hamiltonian([0.1, a, b], [kg.Z(0), kg.Hermitian(A, 1), kg.H(2)])
    assert observable.parameter_kinds == ("coefficient", "coefficient", "matrix", "coefficient")
    assert (observable.parameter_layout, observable.batch_size) == ("nsNb", 4)
    assert [term.coefficients for term in observable.terms] == [((0, 0),), ((1, 0),), ((3, 0),), ((3, 0),)]
    assert observable.terms[1].factors[0].parameter == 2


@pytest.mark.parametrize(("shape", "batch_size", "letter"), [((2,), None, "s"), ((3, 2), 3, "b")])
def test_hamiltonian_of_a_tensor(shape, batch_size, letter):
    coefficients = torch.ones(shape, requires_grad=True)
    observable = kg.Hamiltonian(coefficients, [kg.X(0) + 0.5 * kg.Y(0), kg.Hermitian(A, 1)])
    assert observable.parameters[0] is coefficients
    assert observable.parameter_kinds == ("coefficients", "coefficient", "matrix")
    assert (observable.parameter_layout, observable.batch_size) == (letter + "nN", batch_size)
    assert [term.coefficients for term in observable.terms] == [((0, 0),), ((0, 0), (1, 0)), ((0, 1),)]
    array = kg.Hamiltonian(np.ones(shape), [kg.X(0), kg.Z(0)])
    assert array.parameter_layout == {"s": "N", "b": "B"}[letter]


# ---------------------------------------------------------------------------------------------------------------------
# Errors

ALLOWED = "observables are X, Y, Z, H, Identity, Hermitian, Diagonal, Projector, SparseHamiltonian, Hamiltonian"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: kg.expval(kg.RX(0.1, 0)), f"expval: the gate RX on wire 0 is no observable; {ALLOWED}"),
        (lambda: kg.var(kg.ctrl(kg.X(0), 1)), "var: the controlled gate .* is no observable"),
        (lambda: kg.expval(0), f"expval: 0 of type int is no observable; {ALLOWED}"),
        (lambda: kg.expval(None), "expval takes an observable, not None"),
        (lambda: kg.sample("Z"), "sample takes an observable first; its wires have a name"),
        (lambda: kg.X(0) @ kg.S(1), "the gate S on wire 1 is no observable"),
        (lambda: kg.X(0) @ 2, "@ is not defined between X and int"),
        (lambda: kg.X(0) + "Z", r"\+ is not defined between str and X"),
        (lambda: kg.X(0) * kg.Z(1), "by a number or a tensor; of two observables, form a @ b"),
        (lambda: kg.X(0) / kg.Z(1), "an observable is divided by a number or a tensor"),
        (lambda: kg.X(0) / torch.tensor(2), "divided by a number or a floating-point tensor, not by torch.int64"),
        (lambda: 1j * kg.X(0), "the coefficient of an observable must be real, not 1j"),
        (lambda: torch.tensor(1j) * kg.X(0), "the coefficient must be real, not of dtype torch.complex64"),
        (lambda: "a" * kg.X(0), "the coefficient must be a number, a list of numbers, an array or a tensor, not str"),
        (lambda: kg.Hamiltonian([1.0], [kg.T(0)]), "the gate T on wire 0 is no observable"),
        (lambda: kg.Hamiltonian(np.array([1j]), [kg.X(0)]), "the coefficients must be real, not of dtype complex128"),
        (lambda: kg.Hermitian("A", 0), "Hermitian on wire 0: the matrix must be a number, .* not str"),
        (lambda: kg.Hermitian(A, 0.5), "Hermitian: a wire is an integer, .* not 0.5 of type float"),
        (lambda: kg.Diagonal([1j, 0], 0), "Diagonal on wire 0: the diagonal must be real, not of dtype complex128"),
        (lambda: kg.Diagonal(torch.ones(2) * 1j, 0), "the diagonal must be real, not of dtype torch.complex64"),
        (lambda: kg.Diagonal("A", 0), "Diagonal on wire 0: the diagonal must be a number, .* not str"),
        (lambda: kg.Projector(1, 0), "Projector on wire 0: the state must be bits, an array or a tensor, not int"),
        (lambda: kg.Projector([0.5], 0), "Projector on wire 0: bits must be integers, not 0.5"),
        (lambda: kg.SparseHamiltonian(A, 0), "must be a SciPy sparse matrix or a torch COO or CSR tensor, not ndarray"),
        (lambda: kg.SparseHamiltonian(torch.eye(2), 0), "or a torch COO or CSR tensor, not torch.strided"),
    ],
)
def test_wrong_types(build, message):
    with pytest.raises(TypeError, match=message):
        build()


def _sparse(entries):
    return torch.tensor(entries).to_sparse()


def _csr(starts, columns):
    return torch.sparse_csr_tensor(starts, columns, [1.0] * len(columns), (2, 2), check_invariants=False)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: kg.Hermitian([[0, 1], [0, 0]], 0), "Hermitian on wire 0: the matrix must be Hermitian; it is off"),
        (lambda: kg.Hermitian(1j * torch.eye(2), 0), "the matrix must be Hermitian"),
        (lambda: kg.Hermitian(np.eye(2), [0, 1]), r"Hermitian on wires \[0, 1\]: the matrix must have shape \(4, 4\)"),
        (lambda: kg.Hermitian(np.eye(1), []), "Hermitian needs at least one wire"),
        (lambda: kg.Diagonal([1, 2, 3], [0, 1]), r"the diagonal must have shape \(4,\) or \(B, 4\), not \(3,\)"),
        (lambda: kg.Diagonal([1], []), "Diagonal needs at least one wire"),
        (lambda: kg.Diagonal([1, 2], 0) @ kg.X(0), "Diagonal on wire 0 cannot be multiplied .* on wire 0; mult"),
        (lambda: kg.Hermitian(A, 0) @ kg.X(0), "Hermitian on wire 0 cannot be multiplied .* on wire 0; mult"),
        (lambda: kg.X(1) @ kg.Projector([0, 1], [0, 1]), r"\|01⟩⟨01\| on wires \[0, 1\] cannot be .* on wire 1"),
        (lambda: kg.Hermitian(A, 0) @ kg.Hermitian(A, 0), "and give the product as one Hermitian"),
        (lambda: kg.Projector([0, 1, 1], [0, 1]), r"the state must have shape \(4,\) or \(B, 4\), not \(3,\)"),
        (lambda: kg.Projector([0, 2], [0, 1]), "bits must be 0 or 1, not 2"),
        (lambda: kg.Projector(np.ones(2), 0), "Projector on wire 0: the state must have norm 1"),
        (lambda: kg.SparseHamiltonian(_sparse([[0.0, 1.0], [0.0, 0.0]]), 0), "must be Hermitian; it is off by 1"),
        (lambda: kg.SparseHamiltonian(_sparse([[1.0, 1.0], [0.5, 0.0]]), 0), "must be Hermitian; it is off by 0.5"),
        (lambda: kg.SparseHamiltonian(_sparse([[1.0]]), 0), r"the matrix must have shape \(2, 2\), not \(1, 1\)"),
        (lambda: kg.SparseHamiltonian(_csr([0, 2, 2], [1, 0]), 0), "the columns of a CSR tensor must be in order"),
        (lambda: kg.SparseHamiltonian(_csr([0, 2, 2], [0, 0]), 0), "must be in order in each row, without duplicates"),
        (lambda: kg.SparseHamiltonian(_csr([0, 0, 1], [2]), 0), r"the matrix has an entry outside its shape \(2, 2\)"),
        (lambda: kg.Hamiltonian([], []), "Hamiltonian needs at least one observable"),
        (lambda: kg.Hamiltonian([1.0], [kg.X(0), kg.Z(0)]), "Hamiltonian: 1 coefficients for 2 observables"),
        (lambda: kg.Hamiltonian(torch.ones(3), [kg.X(0)]), "Hamiltonian: 3 coefficients for 1 observables"),
        (lambda: kg.Hamiltonian(torch.ones(()), [kg.X(0)]), r"must be of shape \(T,\) or \(B, T\), not \(\)"),
        (lambda: torch.ones(2) * kg.X(0) + torch.ones(3) * kg.Z(1), r"on wires \[0, 1\]: .* batches of 2 and of 3"),
        (lambda: kg.probs([0, 0]), r"probs: wire 0 is repeated in \[0, 0\]"),
        (lambda: kg.probs([]), "probs needs at least one wire; leave the wires out to measure all of them"),
        (lambda: kg.density_matrix(()), "density_matrix needs at least one wire"),
        (lambda: kg.sample(kg.Z(0), wires=[0]), "sample takes an observable or wires, not both"),
    ],
)
def test_wrong_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_products_of_factors_on_different_wires():
    observable = kg.Hermitian(A, 0) @ kg.Projector([1], 1) @ kg.X(2) + kg.Z(0)
    np.testing.assert_allclose(
        dense(observable, 3),
        reduce(np.kron, [A, np.diag([0, 1]), PAULIS["X"]]) + reduce(np.kron, [PAULIS["Z"], np.eye(2), np.eye(2)]),
    )


def test_observables_have_no_constructor_of_their_own():
    with pytest.raises(TypeError, match="Observable has no public constructor: compose observables of X, Y, Z, H"):
        kg.Observable()


# ---------------------------------------------------------------------------------------------------------------------
# Measurements


def test_measurements():
    measured = kg.expval(kg.Z(0) @ kg.X("a"))
    assert (measured.kind, measured.wires, measured.parameters) == ("expval", (0, "a"), ())
    assert kg.var(0.5 * kg.Z(0)).parameters == (0.5,)
    assert kg.probs(wires=2).wires == (2,)
    assert kg.probs().wires == kg.state().wires == kg.sample().wires == ()
    assert kg.density_matrix([1, 0]).wires == (1, 0)
    assert kg.sample(kg.Z(1)).observable.wires == (1,)
    assert kg.counts(wires=[0, 1]).observable is None
    assert kg.counts(op=kg.Z(0)).wires == (0,)


def test_measurement_structure():
    assert kg.expval(0.5 * kg.Z(0)).structure == kg.expval(0.7 * kg.Z(0)).structure
    assert kg.expval(0.5 * kg.Z(0)).structure != kg.var(0.5 * kg.Z(0)).structure
    assert kg.expval(0.5 * kg.Z(0)).structure != kg.expval(torch.tensor(0.5) * kg.Z(0)).structure
    assert kg.probs([0, 1]).structure != kg.probs([1, 0]).structure
    one, other = (kg.SparseHamiltonian(_sparse(m), 0) for m in ([[1.0, 0], [0, 0]], [[0, 0], [0, 1.0]]))
    assert kg.expval(one).structure != kg.expval(other).structure


def test_repr():
    assert repr(kg.expval(0.5 * kg.X(0) @ kg.Z("a"))) == "expval(0.5*X(0) @ Z('a'))"
    assert repr(kg.probs([0, 1])) == "probs(wires=[0, 1])"
    assert repr(kg.state()) == "state()"
    many = kg.Hamiltonian(torch.ones(8), [kg.Z(i) for i in range(8)])
    assert repr(many).endswith("c0[5]*Z(5) + … (2 more)>")
    assert repr(kg.Projector([0, 1], [0, 1]) + kg.Identity(0)) == "<observable |01⟩⟨01|(0, 1) + I>"


def test_copy_pickle_and_immutability():
    measured = kg.var(kg.Hermitian(A, 0) @ kg.Z(1) + 0.5)
    for again in (copy.deepcopy(measured), pickle.loads(pickle.dumps(measured))):
        assert again.structure == measured.structure
        assert hash(again.structure) == hash(measured.structure)
        np.testing.assert_array_equal(again.parameters[0], A)
    with pytest.raises(AttributeError, match="Measurement is immutable"):
        measured.kind = "expval"
    with pytest.raises(AttributeError, match="Observable is immutable"):
        measured.observable.wires = ()


# ---------------------------------------------------------------------------------------------------------------------
# The algebra against matrices

_leaf = st.builds(lambda letter, wire: (getattr(kg, letter), letter, wire), st.sampled_from("XYZH"), st.integers(0, 2))


@st.composite
def _expressions(draw):
    """A random expression and its matrix on three wires, Hermitian or not."""
    gate, letter, wire = draw(_leaf)
    observable, matrix = as_observable(gate(wire)), _embedded(letter, wire)
    for _ in range(draw(st.integers(0, 6))):
        gate, letter, wire = draw(_leaf)
        step = draw(st.sampled_from(["@", "+", "-", "*", "square"]))
        if step == "@":
            observable, matrix = observable @ gate(wire), matrix @ _embedded(letter, wire)
        elif step == "+":
            observable, matrix = observable + gate(wire), matrix + _embedded(letter, wire)
        elif step == "-":
            observable, matrix = gate(wire) - observable, _embedded(letter, wire) - matrix
        elif step == "*":
            scale = draw(st.sampled_from([0.5, -2.0, 3.0]))
            observable, matrix = scale * observable, scale * matrix
        elif len(observable._products) < 10:  # a square of a square of a square… has no end of terms
            observable, matrix = observable @ observable, matrix @ matrix
    return observable, matrix


def _embedded(letter, wire):
    return reduce(np.kron, [PAULIS[letter] if i == wire else PAULIS["I"] for i in range(3)])


@settings(deadline=None, max_examples=150)
@given(_expressions())
def test_terms_stand_for_the_matrix(expression):
    observable, matrix = expression
    scale = max(1.0, np.abs(matrix).max())
    if np.abs(matrix - matrix.conj().T).max() > 1e-9 * scale:
        with pytest.raises(ValueError, match="not Hermitian"):
            _ = observable.terms
    else:
        np.testing.assert_allclose(dense(observable, 3), matrix, atol=1e-9 * scale)
        for term in observable.terms:
            assert len({wire for wire, _ in term.word}) == len(term.word)
