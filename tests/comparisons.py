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
