"""Results and derivatives of a tape compared with those of the oracle.

Tolerances, for each entry relative to max(1, |value|). float64: 1e-10; the circuits have at most a few hundred gates
and numbers of order 1, so that rounding adds up to 1e-13 or so, and anything beyond 1e-10 is a mistake. float32: 1e-4,
a hundred times its own rounding. Circuits of huge angles are allowed what their sums are rounded by
(``cases.angle_rounding``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

import hooks
import ketgrad as kg
import oracle
from cases import Case, angle_rounding, contract, direction, inner, is_hermitian
from hooks import Setting
from ketgrad.execution.batching import Group, group_tapes
from ketgrad.native import operators

DOUBLE = 1e-10
SINGLE = 1e-4


def gradients(tape: kg.Tape, results: Any) -> list[Tensor]:
    """Gradients of a random loss by every trainable parameter; zero where there is none."""
    parameters = tape.get_parameters()
    if not parameters:
        return []
    found = torch.autograd.grad(contract(results), parameters, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]


def assert_same(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    assert found.shape == expected.shape, what
    if found.numel() == 0:
        return
    assert ((found - expected).abs() / expected.abs().clamp(min=1)).max().item() <= tolerance, what


def check(
    tape: kg.Tape,
    tolerance: float = DOUBLE,
    expected: kg.Tape | None = None,
    under: Mapping[str, Setting] = hooks.AS_IT_IS,
) -> None:
    """Compare a tape's results and gradients with those of the oracle, on the same tape or on its twin in double
    precision; under each of some settings, for which the oracle runs once."""
    twin = expected or tape
    tolerance += angle_rounding(twin)
    (wanted,) = oracle.execute([twin])
    wanted_gradients = gradients(twin, wanted)
    for name, setting in under.items():
        with setting():
            (found,) = kg.execute([tape])
            found_gradients = gradients(tape, found)
        for i, (a, b) in enumerate(zip(tree_leaves(found), tree_leaves(wanted), strict=True)):
            assert_same(a.detach(), b.detach(), tolerance, f"result {i} {name}")
        for i, (a, b) in enumerate(zip(found_gradients, wanted_gradients, strict=True)):
            assert_same(a, b, tolerance, f"gradient {i} {name}")


# --- second derivatives ---


def leaves_of(tape: kg.Tape) -> list[Tensor]:
    found: list[Tensor] = []
    for p in tape.get_parameters():
        if isinstance(p, Tensor) and p.requires_grad and p.is_leaf and not any(p is known for known in found):
            found.append(p)
    return found


def hessian_product(results: Any, leaves: list[Tensor]) -> list[Tensor] | None:
    """That of a loss that is no linear function of the results."""
    loss = contract(results)
    if not loss.requires_grad:
        return None
    loss = loss + 0.3 * loss**2
    gradients = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
    known = [(g, direction(p)) for g, p in zip(gradients, leaves, strict=True) if g is not None and g.requires_grad]
    if not known:
        return None
    total = torch.stack([inner(v, g) for g, v in known]).sum()
    found = torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)
    return [(h + h.mH) / 2 if is_hermitian(p) else h for h, p in zip(found, leaves, strict=True)]


def assert_hessian_product(case: Case, device: str = "cpu") -> None:
    tape, twin = case.tape(dtype=torch.float64, device=device), case.tape(dtype=torch.float64)
    leaves = leaves_of(tape)
    if not leaves:
        return
    found = hessian_product(kg.execute([tape])[0], leaves)
    expected = hessian_product(oracle.execute(twin), leaves_of(twin))
    assert (found is None) == (expected is None)
    for a, b in zip(found or [], expected or [], strict=True):
        torch.testing.assert_close(a, b.to(device), rtol=1e-9, atol=1e-9)


# --- copies ---


class Calls:
    """The operators with copies of a tape's circuits, and what they are to be: a call for each copy of each circuit."""

    copies = 3

    def __init__(self, case: Case) -> None:
        (group,) = group_tapes([case.tape(dtype=torch.float64)])
        self.group: Group = group._replace(inputs=[t.detach() for t in group.inputs])
        self.program, self.axes = group.binding.id, group.binding.program.input_axes()
        random = torch.Generator().manual_seed(1)
        sizes = group.binding.result_layout.real_size, group.binding.result_layout.complex_size

        def normal(*shape: int, is_complex: bool) -> Tensor:
            dtype = torch.complex128 if is_complex else torch.float64
            return torch.randn(self.copies, group.batch, *shape, dtype=dtype, generator=random)

        self.pairs = [[normal(size, is_complex=k == 1) for k, size in enumerate(sizes)] for _ in range(2)]
        self.asked = [i for i, bound in enumerate(group.binding.inputs) if bound.trainable]
        shapes = [t.shape[t.dim() - a :] for t, a in zip(self.group.inputs, self.axes, strict=True)]
        self.tangents = [normal(*shapes[i], is_complex=self.group.inputs[i].is_complex()) for i in self.asked]

    def one(self, k: int, b: int) -> tuple[list[Tensor], list[Tensor], list[list[Tensor]]]:
        """Inputs, tangents, and cotangents with their tangents, of copy k of circuit b alone."""
        rows = [t[b] if t.dim() > a else t for t, a in zip(self.group.inputs, self.axes, strict=True)]
        return rows, [t[k, b] for t in self.tangents], [[g[k, b : b + 1] for g in pair] for pair in self.pairs]

    def stacked(self, call: Any) -> list[Tensor]:
        """What `call` gives of each copy of each circuit."""
        found = [[tree_leaves(call(*self.one(k, b))) for b in range(self.group.batch)] for k in range(self.copies)]
        each = zip(*[zip(*of_copy, strict=True) for of_copy in found], strict=True)
        return [torch.stack([torch.stack([t.reshape(-1) for t in of_copy]) for of_copy in copies]) for copies in each]


def assert_copies(case: Case) -> None:
    """A call of copies gives what calls of each of them give, with the ket of the forward pass and without."""
    calls = Calls(case)
    group, asked = calls.group, calls.asked
    if not asked or not group.batch:
        return
    kept = operators.run_execute(calls.program, group.inputs, operators.EXACT_KET)[2]
    none = kept.new_empty((1, 0))
    (g, dg), program, tangents = calls.pairs, calls.program, calls.tangents
    expected = calls.stacked(lambda x, _, c: operators.run_execute_vjp(program, x, none, *c[0], asked))
    for ket in (kept, kept.new_empty((group.batch, 0))):
        found = operators.run_execute_vjp(program, group.inputs, ket, *g, asked)
        _assert_rows(found, expected, "gradient")
    expected = calls.stacked(lambda x, v, _: operators.run_execute_jvp(program, x, v, asked))
    _assert_rows(operators.run_execute_jvp(program, group.inputs, tangents, asked), expected, "derivative")
    expected = calls.stacked(lambda x, v, c: operators.run_execute_vjp_jvp(program, x, v, asked, *c, asked))
    found = operators.run_execute_vjp_jvp(program, group.inputs, tangents, asked, g, dg, asked)
    _assert_rows(found, expected, "second derivative")


def _assert_rows(found: Any, expected: list[Tensor], what: str) -> None:
    for i, (a, b) in enumerate(zip(tree_leaves(found), expected, strict=True)):
        assert a.shape[:2] == b.shape[:2], f"{what} {i}"
        assert_same(a.reshape(b.shape), b, DOUBLE, f"{what} {i}")
