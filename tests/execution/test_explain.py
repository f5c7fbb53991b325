"""`kg.explain`: what it says of each regime, and that measured times are there when they are asked for."""

from __future__ import annotations

import pytest
import torch

import hooks
import ketgrad as kg
from ketgrad.native.library import _C


def layers(num_wires: int, count: int, dtype: torch.dtype = torch.float32) -> kg.Tape:
    weights = torch.rand(count, num_wires, 3, dtype=dtype)
    operations = []
    for layer in weights:
        for w in range(num_wires):
            operations.append(kg.Rot(*layer[w], wires=w))
        operations += [kg.CNOT(wires=[w, (w + 1) % num_wires]) for w in range(num_wires)]
    return kg.Tape(operations, [kg.expval(kg.Z(0) @ kg.Z(1)), kg.expval(kg.X(0))])


def test_a_state_beyond_the_caches() -> None:
    found = kg.explain(layers(16, 2))
    assert found.tile_bits == 13
    assert "tiles of 2^13 amplitudes" in found.regime
    assert found.dtype is torch.complex64
    passes, observables = found.passes[:-1], found.passes[-1]
    assert sum(p.rotations for p in passes) == 32
    assert passes[0].active_tiles == 1  # all but the first tile are zero still
    assert all(p.bytes[0] > 0 for p in passes)
    assert "2 Pauli words" in observables.what
    assert found.multiply_adds[1] > found.multiply_adds[0] > 2**16 * 32


def test_double_precision_takes_wider_tiles_where_they_save_passes() -> None:
    tape = layers(17, 4, torch.float64)
    found = kg.explain(tape)
    with hooks.thresholds(tile_bits=13):
        other = kg.explain(tape)
        results = kg.execute([tape])[0]
    assert found.tile_bits == 14
    assert 6 * (len(found.passes) - 1) <= 5 * (len(other.passes) - 1)
    for one, two in zip(kg.execute([tape])[0], results, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)
    assert kg.explain(layers(17, 8, torch.float64)).tile_bits == 13


def test_a_state_within_the_caches_moves_nothing() -> None:
    found = kg.explain(layers(8, 2))
    assert found.bytes == (0, 0)
    assert all(p.tiles == 1 for p in found.passes)


def test_a_batch_goes_by_lanes() -> None:
    found = kg.explain(kg.Tape([kg.RX(torch.rand(64), wires=0)], [kg.probs()]))
    assert found.batch == 64
    assert "lane" in found.regime
    assert str(found).startswith("64 circuits, 1 wire, 1 gate, complex64: a circuit in each lane")


def test_a_controlled_rotation_is_a_turn_of_half_the_amplitudes() -> None:
    """In full, it takes twice as much an amplitude: as much as a rotation of all. In vectors none are left out."""
    layer = [kg.RY(0.1 + w, wires=w) for w in range(8)]

    def work(gate: kg.Operation) -> float:
        found = kg.explain(kg.Tape([*layer, gate], [kg.state()]))
        assert sum(p.rotations for p in found.passes) == 9
        return found.multiply_adds[0]

    assert work(kg.CRY(0.3, wires=[1, 0])) == work(kg.RY(0.3, wires=0))
    assert work(kg.CRY(0.3, wires=[7, 0])) == work(kg.RY(0.3, wires=0)) + 2 * 2**8


def test_gates_that_stay_alone_are_named() -> None:
    operations = [kg.BasisState([1, 1], wires=["a", "b"]), kg.RX(0.3, wires="c"), kg.Toffoli(wires=["a", "b", "c"])]
    text = str(kg.explain(kg.Tape(operations, [kg.probs()])))
    assert "Toffoli on a, b, c by itself" in text
    assert "complex128" in text


def test_controlled_phases_share_a_pass_with_rotations() -> None:
    layer = [kg.RY(0.1 + w, wires=w) for w in range(8)]

    def work(controls: int) -> float:
        phase = kg.ctrl(kg.PhaseShift(0.3, wires=7), range(controls))
        (found,) = kg.explain(kg.Tape([*layer, phase, *layer], [kg.state()])).passes
        assert found.coset_phases == 1
        assert "1 phase on a coset" in found.what
        return found.multiply_adds[0]

    assert work(2) > work(3) > work(5)


def test_matrices_share_a_pass_with_rotations() -> None:
    layer = [kg.RY(0.1 + w, wires=w) for w in range(8)]
    swap = torch.eye(4, dtype=torch.complex128)[[0, 2, 1, 3]]
    matrices = [kg.QubitUnitary(swap, wires=[w, w + 1]) for w in range(0, 8, 2)]
    tape = kg.Tape([*layer, *matrices, *layer], [kg.state()])
    (found,) = kg.explain(tape).passes
    assert found.matrices == 4
    assert "4 matrices" in found.what
    on_gpu = kg.explain(tape, device="cuda").passes
    assert sum("QubitUnitary" in p.what for p in on_gpu) == 4


def test_permutations_take_no_pass() -> None:
    found = kg.explain(kg.Tape([kg.CNOT(wires=[0, 1]), kg.SWAP(wires=[0, 1]), kg.X(0)], [kg.probs()]))
    assert found.passes == ()


def test_the_basis_is_the_one_with_fewer_turns() -> None:
    gates = [
        getattr(kg, name)(0.1 + wire, wires=wire) for _ in range(3) for wire in range(4) for name in ("RX", "RZ", "RX")
    ]
    found = kg.explain(kg.Tape(gates, [kg.expval(kg.Z(0) @ kg.Z(1) @ kg.Z(2) @ kg.Z(3))]))
    assert found.basis == "X"
    assert ", in the basis of X\n" in str(found)
    assert sum(p.rotations for p in found.passes) == 12
    everything = kg.explain(kg.Tape(gates, [kg.state()]))
    assert everything.basis == "Z"
    assert "basis" not in str(everything)


def test_operations_outside_the_light_cone_are_not_run() -> None:
    x = torch.tensor([0.4, float("nan"), 0.3, 0.2], requires_grad=True)
    operations = [
        kg.RY(x[0], wires=0),
        kg.RZ(x[1], wires=1),  # no measured wire hears of it
        kg.CNOT(wires=[1, 0]),
        kg.RX(x[2], wires=0),
        kg.RZ(x[3], wires=0),  # a phase before a diagonal measurement
    ]
    seen = kg.Tape(operations, [kg.probs(wires=0)])
    found = kg.explain(seen)
    assert found.dropped == 2
    assert "5 gates (2 outside the light cone)" in str(found)
    (probabilities,) = kg.execute([seen])
    probabilities[0].backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert (x.grad == 0).tolist() == [False, True, False, True]
    everything = kg.Tape(operations, [kg.state()])
    assert kg.explain(everything).dropped == 0
    assert kg.execute([everything])[0].isnan().any()


def test_measured_times() -> None:
    found = kg.explain(layers(12, 2), measure=True)
    assert all(p.seconds is not None and min(p.seconds) >= 0 for p in found.passes)
    assert sum(p.seconds[0] + p.seconds[1] for p in found.passes if p.seconds) > 0
    assert " ms" in str(found).splitlines()[2]
    assert kg.explain(layers(12, 2)).passes[0].seconds is None
    assert _C.take_profile(0)["forward"] == []


def test_the_precision_can_be_chosen() -> None:
    tape = layers(16, 1)
    assert kg.explain(tape, dtype=torch.float64).dtype is torch.complex128
    assert kg.explain(tape, dtype=torch.float64).bytes[0] == 2 * kg.explain(tape).bytes[0]


def test_what_cannot_be_explained() -> None:
    with pytest.raises(TypeError, match="takes a tape of ketgrad, not list"):
        kg.explain([])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="without shots"):
        kg.explain(kg.Tape([kg.RX(0.1, wires=0)], [kg.expval(kg.Z(0))], shots=10))


# --- for a GPU, with or without one ----------------------------------------------------------------------------------


def test_a_layer_on_twenty_wires_takes_few_passes_on_a_gpu() -> None:
    tape = kg.Tape([kg.RX(0.1 * w, wires=w) for w in range(20)], [kg.probs()])
    plan = kg.explain(tape, dtype=torch.float32, device="cuda")
    assert 1 <= sum(p.rotations > 0 for p in plan.passes) <= 3
    assert sum(p.rotations for p in plan.passes) == 20
    assert "tiles" in plan.regime
    assert "launch" in plan.regime


@pytest.mark.parametrize(("dtype", "wires"), [(torch.float32, 13), (torch.float64, 12)], ids=str)
def test_a_state_that_fits_shared_memory_is_one_tile(dtype: torch.dtype, wires: int) -> None:
    """Ket and bra in the 227 KiB of a block of an H100."""
    if torch.cuda.is_available():
        pytest.skip("a visible GPU may have other limits")
    for n, whole in ((wires, True), (wires + 1, False)):
        tape = kg.Tape([kg.RY(0.1, wires=w) for w in range(n)], [kg.state()])
        plan = kg.explain(tape, dtype=dtype, device="cuda:0")
        assert (plan.passes[0].tiles == 1) is whole
        assert "shared memory" in plan.regime
        assert ("a block of threads for each circuit" in plan.regime) is whole


def test_what_cannot_be_explained_for_a_device() -> None:
    tape = kg.Tape([kg.RX(0.1, wires=0)], [kg.expval(kg.Z(0))])
    with pytest.raises(ValueError, match="'cpu' or 'cuda', not for 'mps'"):
        kg.explain(tape, device="mps")
    with pytest.raises(NotImplementedError, match=r"torch\.profiler"):
        kg.explain(tape, device="cuda", measure=True)
