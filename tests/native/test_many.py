"""Several programs in one call: bit by bit what calls of one program each give, and what is refused.

No tolerances: results and gradients are equal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import cases
import hooks
import ketgrad as kg
from ketgrad.autograd.derivative_rule import program_vjp
from ketgrad.execution.batching import group_tapes
from ketgrad.native import many, operators
from ketgrad.native.many import Programs

DTYPES = [torch.float32, torch.float64]


def angles(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Many(NamedTuple):
    """Programs, all that they read, and cotangents of all results."""

    programs: Programs
    inputs: list[Tensor]
    cotangents: tuple[Tensor, Tensor]
    handles: list[object]

    def singles(self) -> Iterator[tuple[int, list[int], list[Tensor]]]:
        """Of each program its id, the places of its inputs and the inputs."""
        first = 0
        for id_, (count, _, _) in zip(self.programs.ids, self.programs.sizes, strict=True):
            places = list(self.programs.places[first : first + count])
            yield id_, places, [self.inputs[place] for place in places]
            first += count


def many_of(tapes: Sequence[kg.Tape], repeats: int = 1) -> Many:
    """The programs of tapes, again and again; each time with the inputs of the tape, so that these are shared."""
    ids, places, sizes, inputs, handles = [], [], [], [], []
    counts = [0, 0]
    found: dict[int, int] = {}
    for group in [group_tapes([tape])[0] for tape in tapes] * repeats:
        layout = group.binding.result_layout
        ids.append(group.binding.id)
        handles.append(group.binding.program)
        sizes.append((len(group.inputs), layout.real_size, layout.complex_size))
        for tensor in group.inputs:
            if id(tensor) not in found:
                found[id(tensor)] = len(inputs)
                inputs.append(tensor.detach())
            places.append(found[id(tensor)])
        counts[0] += group.batch * layout.real_size
        counts[1] += group.batch * layout.complex_size
        handles.append(group)
    real = inputs[0].dtype
    g_real = angles(counts[0], dtype=real)
    g_complex = torch.complex(*[angles(counts[1], dtype=real, seed=seed) for seed in (1, 2)])
    return Many(Programs(tuple(ids), tuple(places), tuple(sizes)), inputs, (g_real, g_complex), handles)


def case_tapes(dtype: torch.dtype, step: int = 4) -> list[kg.Tape]:
    return [case.tape(dtype=dtype) for case in [*cases.WORKLOAD_CASES, *cases.CASES[::step]]]


class Expected(NamedTuple):
    real: Tensor
    complex: Tensor
    gradients: list[Tensor]


def one_by_one(given: Many, chosen: Sequence[int], requested: Sequence[int]) -> Expected:
    reals, complexes = [], []
    sums: dict[int, Tensor] = {}
    first = [0, 0]
    for position, (id_, places, inputs) in enumerate(given.singles()):
        real, complex_, ket = operators.run_execute(id_, inputs, operators.EXACT_KET)
        rows = []
        for side, numbers in enumerate((real, complex_)):
            rows.append(given.cotangents[side][first[side] : first[side] + numbers.numel()].view(numbers.shape))
            first[side] += numbers.numel()
        reals.append(real.reshape(-1))
        complexes.append(complex_.reshape(-1))
        if position in chosen:
            own = [i for i, place in enumerate(places) if place in requested]
            for i, found in zip(own, operators.run_execute_vjp(id_, inputs, ket, *rows, own), strict=True):
                sums[places[i]] = sums[places[i]] + found if places[i] in sums else found
    zeros = [torch.zeros_like(tensor) for tensor in given.inputs]
    return Expected(torch.cat(reals), torch.cat(complexes), [sums.get(place, zeros[place]) for place in requested])


def assert_equal(found: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert torch.equal(one.nan_to_num(), other.nan_to_num())
        assert torch.equal(one.isnan(), other.isnan())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("spread", [False, True], ids=["as it is", "spread"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_equal_to_single_calls(dtype: torch.dtype, spread: bool, threads: int) -> None:
    """Every kind of circuit, batches, complex results; enough of them that they are spread over the threads."""
    given = many_of(case_tapes(dtype), 3)
    everything = range(len(given.programs.ids))
    with hooks.threads(threads), hooks.thresholds(spread=spread):
        for chosen, requested in ((everything, range(len(given.inputs))), (everything[::3], range(0, 20, 2))):
            expected = one_by_one(given, chosen, requested)
            for keep in (True, False):
                real, complex_, kets = many.run_execute_many(given.programs, given.inputs, keep)
                assert_equal([real, complex_], expected[:2])
                found = many.run_execute_vjp_many(
                    given.programs, given.inputs, kets, given.cotangents, chosen, requested
                )
                assert_equal(found, expected.gradients)
        expected = one_by_one(given, everything, range(len(given.inputs)))
        found = many.run_execute_and_vjp_many(given.programs, given.inputs, given.cotangents, range(len(given.inputs)))
        assert_equal([*found[:2], *found[2]], [*expected[:2], *expected.gradients])


def test_programs_in_parts() -> None:
    with hooks.parts_of_any_size(), hooks.threads(2):
        given = many_of(case_tapes(torch.float64, 16), 8)
        everything, inputs = range(len(given.programs.ids)), range(len(given.inputs))
        expected = one_by_one(given, everything, inputs)
        found = many.run_execute_and_vjp_many(given.programs, given.inputs, given.cotangents, inputs)
        assert_equal([*found[:2], *found[2]], [*expected[:2], *expected.gradients])


def chain(weights: Sequence[Tensor], wires: int) -> kg.Tape:
    """Reads as many weights as there are wires."""
    gates = [gate for w in range(wires) for gate in (kg.RY(weights[w], w), kg.CNOT([w, (w + 1) % wires]))]
    return kg.Tape(gates, [kg.expval(kg.Z(w)) for w in range(wires)])


@pytest.mark.parametrize("threads", [1, 2])
def test_large_states_among_small_ones(threads: int) -> None:
    """They are spread over the threads themselves, and gradients are still added up in the order of the programs."""
    weights = [*angles(15, dtype=torch.float32).requires_grad_().unbind()]
    with hooks.threads(threads):
        given = many_of([chain(weights, wires) for wires in (9, 14, 10, 15, 8)], 4)
        everything, inputs = range(len(given.programs.ids)), range(len(given.inputs))
        expected = one_by_one(given, everything, inputs)
        found = many.run_execute_and_vjp_many(given.programs, given.inputs, given.cotangents, inputs)
    assert_equal([*found[:2], *found[2]], [*expected[:2], *expected.gradients])


def test_one_by_one_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other devices do, and derivatives that will be differentiated again."""
    given = many_of(case_tapes(torch.float64, 16), 2)
    everything, inputs = range(len(given.programs.ids)), range(len(given.inputs))
    monkeypatch.setattr(many, "_has_operators", lambda _: False)
    expected = one_by_one(given, everything[::2], inputs)
    real, complex_, kets = many.run_execute_many(given.programs, given.inputs, operators.EXACT_KET)
    assert_equal([real, complex_], expected[:2])
    found = many.run_execute_vjp_many(given.programs, given.inputs, kets, given.cotangents, everything[::2], inputs)
    assert_equal(found, expected.gradients)
    expected = one_by_one(given, everything, inputs)
    results = many.run_execute_and_vjp_many(given.programs, given.inputs, given.cotangents, inputs)
    assert_equal([*results[:2], *results[2]], [*expected[:2], *expected.gradients])
    found = many.vjp_one_by_one(given.programs, given.inputs, None, given.cotangents, everything, inputs, program_vjp)
    assert_equal(found, expected.gradients)


# --- refusals ---------------------------------------------------------------------------------------------------------


def matrix_tape(matrix: Tensor) -> kg.Tape:
    return kg.Tape([kg.QubitUnitary(matrix, wires=0)], [kg.expval(kg.Z(0))])


def test_a_program_with_a_wrong_value_is_named() -> None:
    tapes = [matrix_tape(torch.eye(2, dtype=torch.complex128).requires_grad_()) for _ in range(5)]
    given = many_of(tapes)
    place = given.programs.places[2 * 3 + 1]
    given.inputs[place] = 2 * given.inputs[place]
    wrong = "program 3: the matrix of the QubitUnitary at place 0 must be unitary"
    with pytest.raises(ValueError, match=wrong):
        many.run_execute_many(given.programs, given.inputs, operators.NO_KET)
    with pytest.raises(ValueError, match=wrong):
        many.run_execute_and_vjp_many(given.programs, given.inputs, given.cotangents, [place])
    given.inputs[place] = given.inputs[place][:1]
    with pytest.raises(ValueError, match=r"program 3: input 1 has shape \(1, 2\), the program needs \(2, 2\)"):
        many.run_execute_many(given.programs, given.inputs, operators.NO_KET)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"places": (0,)}, "program 0: no places for its 2 inputs"),
        ({"places": (0, 1, 0, 1, 0)}, "5 places, the programs have 4 inputs"),
        ({"places": (0, 1, 0, 7)}, "program 1: there is no input 7"),
        ({"places": (0, 1, 0, -1)}, "program 1: there is no input -1"),
        ({"requested": [7]}, "no input 7 to differentiate"),
        ({"requested": [1, 1]}, "input 1 is requested twice"),
        ({"chosen": [2]}, "there is no program 2"),
        ({"chosen": [-1]}, "there is no program -1"),
        ({"cotangents": (torch.ones(3, dtype=torch.float64),) * 2}, r"the real cotangent has shape \(3,\)"),
        ({"kets": (torch.ones(1, 3, dtype=torch.complex128),)}, r"the ket has shape \(1, 3\)"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    given = many_of([matrix_tape(torch.eye(2, dtype=torch.complex128).requires_grad_())], 2)
    programs = given.programs._replace(places=change.get("places", given.programs.places))
    _, _, kets = many.run_execute_many(given.programs, given.inputs, operators.EXACT_KET)
    others = {"kets": kets, "cotangents": given.cotangents, "chosen": [0, 1], "requested": [1]} | change
    others.pop("places", None)
    with pytest.raises(ValueError, match=message):
        many.run_execute_vjp_many(programs, given.inputs, **others)


def test_another_precision_is_refused() -> None:
    given = many_of([matrix_tape(torch.eye(2, dtype=torch.complex128).requires_grad_())])
    single = given._replace(inputs=[*given.inputs, torch.ones(2)])
    with pytest.raises(ValueError, match="input 2 has another precision than the first one"):
        many.run_execute_and_vjp_many(single.programs, single.inputs, single.cotangents, [2])


def test_what_no_program_reads_has_a_gradient_of_zeros() -> None:
    given = many_of([matrix_tape(torch.eye(2, dtype=torch.complex128).requires_grad_())])
    inputs = [*given.inputs, torch.ones(2, dtype=torch.float64)]
    _, _, (found,) = many.run_execute_and_vjp_many(given.programs, inputs, given.cotangents, [2])
    assert_equal([found], [torch.zeros(2, dtype=torch.float64)])


def test_nan_stays_in_its_program() -> None:
    values = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, float("nan"), 0.5)]
    tapes = [kg.Tape([kg.RX(v, 0)], [kg.expval(kg.Z(0))]) for v in values]
    given = many_of(tapes)
    expected = one_by_one(given, range(3), range(len(given.inputs)))
    found = many.run_execute_and_vjp_many(given.programs, given.inputs, given.cotangents, range(len(given.inputs)))
    assert found[0].isnan().tolist() == [False, True, False]
    assert_equal([found[0], *found[2]], [expected.real, *expected.gradients])


def test_more_than_fits_is_refused_before_anything_runs() -> None:
    tape = kg.Tape([kg.RX(torch.tensor(0.1, requires_grad=True), w) for w in range(24)], [kg.state()])
    given = many_of([tape])
    programs = Programs(given.programs.ids * 2000, given.programs.places * 2000, given.programs.sizes * 2000)
    with pytest.raises(MemoryError, match=r"2000 programs needs .* of memory"):
        many.run_execute_many(programs, given.inputs, operators.NO_KET)


@pytest.mark.parametrize("name", ["execute_many", "execute_vjp_many", "execute_and_vjp_many"])
def test_raw_operators_never_give_zeros_in_silence(name: str) -> None:
    given = many_of([kg.Tape([kg.RX(torch.tensor(0.3, requires_grad=True), 0)], [kg.expval(kg.Z(0))])])
    inputs = [tensor.requires_grad_() for tensor in given.inputs]
    ids, places, _ = given.programs
    no_ket = torch.empty((1, 0), dtype=torch.complex128 if inputs[0].dtype is torch.float64 else torch.complex64)
    others = {
        "execute_many": (False,),
        "execute_vjp_many": (no_ket, *given.cotangents, [0], [0]),
        "execute_and_vjp_many": (*given.cotangents, [0]),
    }
    found = getattr(torch.ops.ketgrad, name)(ids, inputs, places, *others[name])
    first = found[0]
    assert first.requires_grad
    with pytest.raises(NotImplementedError, match="no derivatives"):
        torch.autograd.grad(first.sum(), inputs[0])
