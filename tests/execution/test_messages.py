"""Mistakes that people make: each is an exception that says what to write, before anything runs."""

from __future__ import annotations

import re
from operator import attrgetter
from typing import Any

import numpy as np
import pytest
import torch

import ketgrad as kg
from ketgrad import _elsewhere

ANGLES = torch.rand(3)
TAPE = kg.Tape([kg.RX(0.3, wires=0)], [kg.expval(kg.Z(0))])
WEIGHTS = [torch.nn.Parameter(torch.rand(1))]
HUGE = 2**70


def circuit(weights: torch.Tensor) -> kg.Tape:
    return kg.Tape([kg.RX(weights[0], wires=0)], [kg.expval(kg.Z(0))])


def reads_four(inputs: torch.Tensor) -> kg.Tape:
    return kg.Tape([kg.RX(inputs[..., 3], wires=0)], [kg.expval(kg.Z(0))])


class Anything:
    """The package without types: these calls are wrong on purpose."""

    def __getattr__(self, name: str) -> Any:
        return getattr(kg, name)


any_kg: Any = Anything()
any_tape: Any = TAPE


@pytest.mark.parametrize(
    ("call", "exception", "message"),
    [
        (
            lambda: any_kg.CNOT(0, 1),
            TypeError,
            r"^CNOT takes its wires as one argument, such as wires=\[0, 1\]: CNOT\(wi",
        ),
        (lambda: any_kg.Toffoli(0, 1, 2), TypeError, r"^Toffoli takes its wires .*\[0, 1, 2\]: Toffoli\(wires\)$"),
        (lambda: any_kg.Identity("a", "b"), TypeError, r"^Identity takes its wires .*\['a', 'b'\]: Identity\(wires\)$"),
        (lambda: any_kg.CRX(0.3, 0, 1), TypeError, r"^CRX takes its wires as one argument, .*: CRX\(phi, wires\)$"),
        (lambda: any_kg.PauliRot(0.3, "XX", 0, 1), TypeError, r"PauliRot\(theta, pauli_word, wires\)$"),
        (lambda: any_kg.MultiRZ(0.3, 0, 1), TypeError, r"^MultiRZ takes its wires as one argument"),
        (lambda: any_kg.GlobalPhase(0.3, 0, 1), TypeError, r"^GlobalPhase takes its wires as one argument"),
        (lambda: any_kg.StatePrep([1.0, 0.0], 0, 1), TypeError, r"^StatePrep takes its wires as one argument"),
        (lambda: any_kg.QubitUnitary(np.eye(4), 0, 1), TypeError, r"^QubitUnitary takes its wires as one argument"),
        (lambda: any_kg.BasisState([0, 1], 0, 1), TypeError, r"^BasisState takes its wires as one argument"),
        (
            lambda: any_kg.Rot(ANGLES, wires=0),
            TypeError,
            r"^Rot takes each of its angles .*Rot\(\*angles, wires=…\): Rot\(",
        ),
        (lambda: any_kg.U3(ANGLES.tolist(), wires=0), TypeError, r"^U3 takes each of its angles as an argument"),
        (lambda: any_kg.U2(0.1, wires=0), TypeError, r"^U2 lacks an argument: U2\(phi, delta, wires\)$"),
        (lambda: any_kg.X(), TypeError, r"^X lacks an argument: X\(wires\)$"),
        (lambda: any_kg.RX(0.3), TypeError, r"^RX lacks an argument: RX\(phi, wires\)$"),
        (lambda: any_kg.RX(wires=0), TypeError, r"^RX on wire 0: the angle is missing$"),
        (lambda: any_kg.QubitUnitary(wires=0), TypeError, r"^QubitUnitary on wire 0: the matrix is missing$"),
        (lambda: any_kg.StatePrep([1, 0]), TypeError, r"^StatePrep lacks an argument: StatePrep\(state, wires\)$"),
        (
            lambda: kg.RX(10**400, wires=0),
            ValueError,
            "^RX on wire 0: the angle is beyond the largest number in double",
        ),
        (
            lambda: kg.RX([10**400], wires=0),
            ValueError,
            "^RX on wire 0: the angle is beyond the largest number in double",
        ),
        (lambda: 10**400 * kg.Z(0), ValueError, "the coefficient is beyond the largest number in double precision$"),
        (lambda: any_kg.Operation(0), TypeError, r"^Operation is a base class: build one of the gates, such as RX\("),
        (lambda: any_kg.Operation(), TypeError, r"^Operation is a base class"),
        (lambda: TAPE.draw(decimals=-1), TypeError, r"^decimals must be 0, 1, 2, … or None, not -1$"),
        (lambda: any_tape.draw(width=None), TypeError, r"^width must be an integer, not None$"),
        (lambda: any_kg.probs(0, 1), TypeError, r"^probs takes its wires as one argument: probs\(wires=\[0, 1\]\)$"),
        (lambda: any_kg.density_matrix(0, 1), TypeError, r"density_matrix\(wires=\[0, 1\]\)$"),
        (
            lambda: any_kg.state(0),
            TypeError,
            r"^state\(\) is the state of all wires; of \[0\], density_matrix\(wires=\[0",
        ),
        (
            lambda: any_kg.expval(kg.Z(0), kg.Z(1)),
            TypeError,
            r"^expval takes one observable: write \[expval\(a\), expval",
        ),
        (lambda: any_kg.var(kg.Z(0), kg.Z(1)), TypeError, r"^var takes one observable"),
        (lambda: any_kg.expval(kg.Z), TypeError, r"^expval: Z is no observable without wires: write Z\(wires=…\)$"),
        (
            lambda: any_kg.sample(0),
            TypeError,
            r"^sample takes an observable first; its wires have a name: sample\(wires=…",
        ),
        (lambda: any_kg.counts([0, 1]), TypeError, r"^counts takes an observable first"),
        (lambda: any_kg.Hamiltonian(1.0, kg.Z(0)), TypeError, "^Hamiltonian takes a list of coefficients and a list"),
        (lambda: any_kg.Hamiltonian([1.0], kg.Z(0)), TypeError, "^Hamiltonian takes a list of coefficients and a list"),
        (
            lambda: any_kg.Tape(kg.X(0), [kg.probs()]),
            TypeError,
            r"must be a list, not X; for one write \[X\(wires=\[0\]\)\]$",
        ),
        (lambda: any_kg.Tape([kg.X(0)], kg.probs()), TypeError, r"not Measurement; for one write \[probs\(\)\]$"),
        (lambda: any_kg.Tape([kg.X], [kg.probs()]), TypeError, r"it needs arguments, such as X\(wires=0\)$"),
        (lambda: any_kg.Tape([kg.X(0)], [kg.probs()], trainable_params=0), TypeError, r"for one write \[0\]$"),
        (lambda: kg.Tape([kg.X(0)], [kg.probs()], shots=HUGE), ValueError, "^shots must be at most 1099511627776"),
        (
            lambda: any_kg.execute([TAPE], shots=100),
            TypeError,
            r"no argument 'shots'; shots belong to a tape: kg\.Tape\(",
        ),
        (
            lambda: any_kg.execute([TAPE], seed=HUGE),
            TypeError,
            r"no argument 'seed'; give a generator: generator=torch",
        ),
        (lambda: any_kg.execute([TAPE], foo=1), TypeError, "^execute has no argument 'foo'$"),
        (
            lambda: any_kg.nn.CircuitLayer.from_blocks(kg.nn.AngleEmbedding(2)),
            TypeError,
            r"^from_blocks takes a list of bl",
        ),
        (
            lambda: any_kg.nn.CircuitLayer.from_blocks([kg.nn.AngleEmbedding(2)], kg.expval(kg.Z(0))),
            TypeError,
            r"^from_blocks takes a list of measurements; for one write \[expval\(Z\(0\)\)\]$",
        ),
        (
            lambda: any_kg.nn.CircuitLayer(circuit, 5),
            TypeError,
            r'^weights must be a dictionary, such as {"weights": \(3',
        ),
        (
            lambda: kg.nn.CircuitLayer(reads_four, {})(torch.rand(5, 3)),
            ValueError,
            r"^reads_four reads beyond its tensors \(.*\), which have the shapes: inputs \(5, 3\)$",
        ),
        (
            lambda: kg.nn.AngleEmbedding(HUGE),
            ValueError,
            "^AngleEmbedding: 1180591620717411303424 wires are more than any",
        ),
        (
            lambda: any_kg.optim.QNG(WEIGHTS, circuit, lr="0.1"),
            TypeError,
            "^lr must be a number, not '0.1' of type str$",
        ),
        (lambda: any_kg.optim.QNG(WEIGHTS, circuit, damping=None), TypeError, "^damping must be a number, not None"),
        (
            lambda: any_kg.optim.QNG(WEIGHTS[0], circuit),
            TypeError,
            r"^QNG takes a list of weights, \[weights\], not Param",
        ),
        (lambda: kg.ExecuteTapes.apply({"a": 1}), ValueError, 'and "jpc"; it lacks tapes, execute_fn, jpc$'),
    ],
)
def test_mistakes(call: Any, exception: type[Exception], message: str) -> None:
    with pytest.raises(exception, match=message):
        call()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_layer_on_a_gpu_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"^device='cuda': PyTorch finds no GPU here; leave the device out"):
        kg.nn.CircuitLayer(circuit, {"weights": 1}, device="cuda")


def test_large_wires_and_integers_are_no_mistake() -> None:
    (p,) = kg.execute([kg.Tape([kg.X(HUGE)], [kg.probs()])])
    assert p[1] == 1
    assert kg.RX([10**30], wires=0).batch_size == 1
    assert kg.optim.QNG(WEIGHTS, circuit, lr=1).param_groups[0]["lr"] == 1


@pytest.mark.parametrize("name", sorted(kg.operations.OPERATIONS))
def test_every_constructor_says_what_to_write(name: str) -> None:
    """Without arguments, and with the wires one by one."""
    gate: Any = kg.operations.OPERATIONS[name]
    if name != "Identity":
        with pytest.raises(TypeError, match=f"^{name}"):
            gate()
    values = [0.1] * len(gate.parameter_kinds) if name != "PauliRot" else [0.1, "X"]
    values = [0] if name == "BasisState" else values
    with pytest.raises(TypeError, match=rf"^{name} takes its wires as one argument, such as wires=\[0, 1\]: {name}\("):
        gate(*values, 0, 1)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("QFT", "kg.from_qiskit"),
        ("measure", r"kg\.sample\(\)"),
        ("grad", r"result\.backward\(\)"),
        ("device", r"kg\.execute"),
        ("qnode", r"@kg\.compile"),
        ("rx", r"no attribute 'rx'; did you mean 'RX'\?"),
        ("Toffolli", r"did you mean 'Toffoli'\?"),
        ("Foo", "module 'ketgrad' has no attribute 'Foo'$"),
    ],
)
def test_names_that_are_not_there(name: str, answer: str) -> None:
    with pytest.raises(AttributeError, match=answer):
        getattr(kg, name)
    assert not hasattr(kg, name)


def test_answers_name_what_there_is() -> None:
    for name, answer in _elsewhere._ELSEWHERE.items():
        assert name not in kg.__all__
        for path in re.findall(r"kg((?:\.[A-Za-z_]\w*)+)", answer):
            attrgetter(path[1:])(kg)


@pytest.mark.parametrize("module", [kg, kg.nn, kg.optim, kg.operations, kg.measurements, kg.observables, kg.interop])
def test_dir_lists_the_public_names(module: Any) -> None:
    assert dir(module) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in dir(module))
    assert not [name for name in dir(module) if name.startswith("_") and name != "__version__"]
