"""The PennyLane device under JAX's transformations, against default.qubit, which JAX differentiates by itself.

What is tried of each circuit: batches of its first argument, of its second, of both, in and around derivatives, eager
and compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pytest

jax = pytest.importorskip("jax")
qml = pytest.importorskip("pennylane")

from jax import numpy as jnp  # noqa: E402

pytestmark = pytest.mark.slow

pytest.importorskip("ketgrad.interop.pennylane.device")

TOLERANCE = 1e-9


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(0.1, 1.1, shape)


def nodes(function: Callable[..., Any]) -> list[Any]:
    """The circuit on the device, and what is right."""
    return [_as_real(qml.QNode(function, qml.device(name, wires=3))) for name in ("ketgrad.qubit", "default.qubit")]


def _as_real(qnode: Any) -> Callable[..., Any]:
    """JAX has Jacobians of real numbers only."""

    def parts(leaf: Any) -> Any:
        return jnp.stack([leaf.real, leaf.imag]) if jnp.iscomplexobj(leaf) else leaf

    return lambda *args: jax.tree_util.tree_map(parts, qnode(*args))


def assert_alike(found: Any, expected: Any) -> None:
    assert jax.tree_util.tree_structure(found) == jax.tree_util.tree_structure(expected)
    for one, other in zip(jax.tree_util.tree_leaves(found), jax.tree_util.tree_leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, atol=TOLERANCE)


# --- circuits of two vectors of two numbers --------------------------------------------------------------------------


def rotate(p: Any, x: Any) -> None:
    qml.RX(x[0], 0)
    qml.RY(p[0], 0)
    qml.CNOT([0, 1])
    qml.RX(x[1], 1)
    qml.RY(p[1], 0)


def angles(p: Any, x: Any) -> Any:
    rotate(p, x)
    return qml.expval(qml.Z(0) @ qml.X(1))


def probabilities(p: Any, x: Any) -> Any:
    rotate(p, x)
    return qml.probs(wires=[0, 1]), qml.expval(qml.X(0))


def density(p: Any, x: Any) -> Any:
    rotate(p, x)
    return qml.density_matrix([1]), qml.state()


def coefficients(p: Any, x: Any) -> Any:
    qml.RX(x[0], 0)
    qml.RY(x[1], 0)
    return qml.expval(qml.dot(p, [qml.Z(0), qml.X(0)]))


def hermitian(p: Any, x: Any) -> Any:
    qml.RX(x[0], 0)
    qml.RY(x[1], 0)
    return qml.expval(qml.Hermitian(jnp.array([[p[0], p[1] * (1 - 1j)], [p[1] * (1 + 1j), 0]]), 0))


def unitary(p: Any, x: Any) -> Any:
    qml.RX(x[0], 0)
    qml.QubitUnitary(jnp.array([[jnp.cos(p[0]), -jnp.sin(p[0])], [jnp.sin(p[0]), jnp.cos(p[0])]]), 0)
    qml.RZ(p[1] + x[1], 0)
    return qml.expval(qml.X(0))


def amplitudes(p: Any, x: Any) -> Any:
    qml.StatePrep(x / jnp.linalg.norm(x), 0)
    qml.Rot(p[0], p[1], 0.3, 0)
    return qml.expval(qml.Z(0))


def halfway(p: Any, x: Any) -> Any:
    qml.RX(x[0], 0)
    qml.cond(qml.measure(0), qml.RY)(p[0], 1)
    qml.RX(x[1] + p[1], 1)
    return qml.expval(qml.Z(1))


CIRCUITS = (angles, probabilities, density, coefficients, hermitian, unitary, amplitudes, halfway)
ONE, OTHER, ROWS, MORE = numbers(2), numbers(2, seed=1), numbers(3, 2, seed=2), numbers(4, 2, seed=3)
BROADCAST = numbers(2, 3, seed=4)


class Inputs(NamedTuple):
    """What circuits are called with."""

    one: Any = ONE
    other: Any = OTHER
    rows: Any = ROWS
    more: Any = MORE
    broadcast: Any = BROADCAST
    batches: Any = numbers(4, 2, 3)


Way: TypeAlias = Callable[[Callable[..., Any], Inputs], Any]


def right(way: Way, theirs: Callable[..., Any]) -> Any:
    """What JAX makes of default.qubit, compiled as a whole: one by one, XLA would compile each of its operations.

    The inputs are arguments: with constants the gradients of a batch of `amplitudes` come out wrong.
    """
    return jax.jit(lambda inputs: way(theirs, inputs))(Inputs())


def scalar(results: Any) -> Any:
    """A real number of every entry."""
    leaves = jax.tree_util.tree_leaves(results)
    weights = [jnp.cos(1.0 + jnp.arange(leaf.size)).reshape(leaf.shape) for leaf in leaves]
    return sum(jnp.sum(w * v) for w, v in zip(weights, leaves, strict=True))


WAYS: dict[str, Way] = {
    "vmap of one, the other along its last axis": lambda f, v: (
        jax.vmap(f, (0, None))(v.more, v.other),
        jax.vmap(f, (None, 1))(v.one, v.rows.T),
    ),
    "nested vmap": lambda f, v: jax.vmap(lambda p: jax.vmap(lambda x: f(p, x))(v.rows))(v.more),
    "gradient of vmap": lambda f, v: jax.grad(lambda p, x: scalar(jax.vmap(f, (None, 0))(p, x)), (0, 1))(v.one, v.rows),
    "gradient of nested vmap": lambda f, v: jax.grad(
        lambda p: scalar(jax.vmap(lambda q: jax.vmap(lambda x: f(q, x))(v.rows))(p))
    )(v.more),
    "vmap of gradient": lambda f, v: jax.vmap(jax.grad(lambda p, x: scalar(f(p, x)), (0, 1)), (None, 0))(v.one, v.rows),
    "jacrev of vmap": lambda f, v: jax.jacrev(lambda p: jax.vmap(f, (None, 0))(p, v.rows))(v.one),
    "vmap of jacfwd": lambda f, v: jax.vmap(jax.jacfwd(f, (0, 1)), (None, 0))(v.one, v.rows),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("circuit", CIRCUITS)
def test_batches_and_derivatives(circuit: Callable[..., Any], way: str) -> None:
    ours, theirs = nodes(circuit)
    assert_alike(WAYS[way](ours, Inputs()), right(WAYS[way], theirs))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("circuit", [probabilities, coefficients])
def test_batches_and_derivatives_compiled(circuit: Callable[..., Any], way: str) -> None:
    ours, theirs = nodes(circuit)
    assert_alike(jax.jit(lambda: WAYS[way](ours, Inputs()))(), right(WAYS[way], theirs))


OF_BATCHES: dict[str, Way] = {
    "vmap of the batch": lambda f, v: jax.vmap(f, (None, 0))(v.one, v.batches),
    "vmap beside the batch": lambda f, v: jax.vmap(f, (0, None))(v.more, v.broadcast),
    "gradient": lambda f, v: jax.grad(lambda p, x: scalar(jax.vmap(f, (0, None))(p, x)), (0, 1))(v.more, v.broadcast),
    "vmap of gradient": lambda f, v: jax.vmap(jax.grad(lambda p, x: scalar(f(p, x)), (0, 1)), (0, None))(
        v.more, v.broadcast
    ),
    "jacrev": lambda f, v: jax.jacrev(f, (0, 1))(v.one, v.broadcast),
    "jacfwd": lambda f, v: jax.jacfwd(f, (0, 1))(v.one, v.broadcast),
}


@pytest.mark.parametrize("way", OF_BATCHES)
@pytest.mark.parametrize("circuit", [probabilities, density])
def test_a_vmap_of_parameter_broadcasting(circuit: Callable[..., Any], way: str) -> None:
    ours, theirs = nodes(circuit)
    assert_alike(OF_BATCHES[way](ours, Inputs()), right(OF_BATCHES[way], theirs))


def test_a_batch_that_jax_does_not_see() -> None:
    def circuit(p: Any) -> Any:
        return angles(p, BROADCAST)

    ours, theirs = nodes(circuit)
    for way in (jax.vmap, lambda f: jax.vmap(jax.jacrev(f))):
        assert_alike(way(ours)(MORE), right(lambda f, v, way=way: way(f)(v.more), theirs))


def test_a_vmap_is_one_native_call(monkeypatch: pytest.MonkeyPatch) -> None:
    from ketgrad.native import operators

    calls = []
    for name in ("run_execute", "run_execute_vjp"):
        native = getattr(operators, name)
        monkeypatch.setattr(operators, name, lambda *a, n=name, f=native, **kw: (calls.append(n), f(*a, **kw))[1])
    ours, _ = nodes(angles)
    jax.vmap(lambda p: jax.vmap(lambda x: ours(p, x))(ROWS))(MORE)
    assert calls == ["run_execute"]
    calls.clear()
    jax.grad(lambda p: jax.vmap(ours, (None, 0))(p, ROWS).sum())(ONE)
    assert calls == ["run_execute", "run_execute", "run_execute_vjp"]


def test_eager_calls_compile_nothing_and_keep_nothing() -> None:
    import jax.monitoring as monitoring

    compiled: list[str] = []
    ours, _ = nodes(lambda x: (qml.RX(x, 0), qml.expval(qml.Z(0)))[1])
    angle, others = jnp.array(0.1), [jnp.array(0.2), jnp.array(0.3)]
    monitoring.register_event_duration_secs_listener(lambda name, *_, **__: compiled.append(name))
    for way in (ours, jax.grad(ours), jax.jacfwd(ours)):
        way(angle)
        compiled.clear()
        assert all(np.isfinite(way(other)) for other in others)
        assert [name for name in compiled if "compile" in name] == []


def test_postselection_is_differentiable() -> None:
    def circuit(p: Any, x: Any) -> Any:
        qml.RX(x[0], 0)
        qml.CRY(p[0], [0, 1])
        qml.measure(1, postselect=1)
        qml.RX(x[1] + p[1], 0)
        return qml.expval(qml.Z(0))

    ours, theirs = nodes(circuit)
    for way in ("vmap of gradient", "jacrev of vmap"):
        assert_alike(WAYS[way](ours, Inputs()), right(WAYS[way], theirs))


def test_hessians_compiled_and_mapped() -> None:
    ours, theirs = (qml.QNode(angles, qml.device(name), max_diff=2) for name in ("ketgrad.qubit", "default.qubit"))
    expected = right(lambda f, v: jax.hessian(f)(v.one, v.other), theirs)
    assert_alike(jax.jit(jax.hessian(ours))(ONE, OTHER), expected)
    several = jax.vmap(jax.hessian(ours), (None, 0))(ONE, jnp.stack([OTHER, ONE]))
    assert_alike(several[0], expected)


def test_single_precision() -> None:
    ours, theirs = nodes(probabilities)
    ways: tuple[Way, ...] = (
        lambda f, v: f(jnp.array(v.one), v.other),
        lambda f, v: jax.jit(f)(v.one, v.other),
        WAYS["vmap of gradient"],
    )
    expected = [jax.tree_util.tree_leaves(right(way, theirs)) for way in ways]
    jax.config.update("jax_enable_x64", False)
    for way, of_way in zip(ways, expected, strict=True):
        for one, other in zip(jax.tree_util.tree_leaves(way(ours, Inputs())), of_way, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, atol=1e-5)
