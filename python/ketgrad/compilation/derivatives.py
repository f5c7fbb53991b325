"""`Derivatives`: derivatives of a compiled function in one call, without autograd around it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from ..autograd import interpreter_levels
from ..native import operators
from ..native.torch_private import pytree
from .arguments import flatten, key_of, replace_tensors
from .gradients import GradientPlan, Loss, as_leaves, gradient_plan, require_number, value_and_gradients
from .jacobians import has_rows, value_and_rows
from .modes import is_watched
from .plan import CompiledPlan
from .plan_cache import PlanCache


class Derivatives(ABC):
    """The methods of a compiled function that compute derivatives together with the value; the base of `Compiled`."""

    def __init__(self) -> None:
        self._gradient_plans: PlanCache[GradientPlan] = PlanCache()

    @abstractmethod
    def _call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The result of a call."""

    @abstractmethod
    def _plan(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[CompiledPlan, tuple[Tensor, ...]]:
        """The plan for some arguments, and the tensors that it takes: those of the arguments and the captured ones."""

    @abstractmethod
    def _with_modes(self, key: Any) -> tuple[Any, ...]:
        """A key with what else a plan depends on."""

    def value_and_grad(
        self, *args: Any, argnums: int | tuple[int, ...] = 0, loss: Loss | None = None, **kwargs: Any
    ) -> tuple[Tensor, Any]:
        """The result of a call and its gradient, as by `torch.func.grad_and_value`, faster than by autograd.

        If the value is the function's only result, a `MeanSquaredError`, or Python's `sum` of its results, one native
        call goes through each circuit and back; otherwise there are two, and torch differentiates the loss. Autograd
        records no circuit. Arguments need not require grad. Whatever else the function and the loss read is constant.

        Args:
            args, kwargs: of the call. (The function's own arguments `argnums` and `loss` are passed by position.)
            argnums: the positional argument to differentiate by, or several: real or complex tensors, also in tuples,
                lists and dictionaries.
            loss: a function of the call's result that returns a real tensor of shape (); None: the result is one.

        Returns:
            The value, and its gradient in the structure of the argument; for a tuple of `argnums` a tuple of those.
            Without graphs.

        Raises:
            ValueError: the value is not one real number; `argnums` are not positions of arguments.
            TypeError: an argument to differentiate by has anything but real and complex tensors in it.

        Example:
            >>> import torch, ketgrad as kg
            >>> @kg.compile
            ... def energy(weights):
            ...     return kg.Tape([kg.RY(weights[0], wires=0), kg.RX(weights[1], wires=0)], [kg.expval(kg.Z(0))])
            >>> energy.value_and_grad(torch.tensor([0.0, torch.pi / 2]))
            (tensor(...), tensor([ 0.0000, -1.0000]))
            >>> energy.value_and_grad(torch.tensor([0.0, torch.pi / 2]), loss=lambda z: (z - 1) ** 2)
            (tensor(1...), tensor([..., 2.0000]))
        """
        if torch.compiler.is_compiling():
            run = torch.compiler.disable(interpreter_levels.run_behind_break)  # the graph breaks here
            return run(self._value_and_grad, args, kwargs, argnums, loss)  # type: ignore[no-any-return]
        return self._value_and_grad(args, kwargs, argnums, loss)

    def value_and_jacobian(self, *args: Any, argnums: int | tuple[int, ...] = 0, **kwargs: Any) -> tuple[Any, Any]:
        """The results of a call and their Jacobian, as by `torch.func.jacrev`, and faster.

        If the function returns one tape with real results, and torch computes none of its parameters, all rows are one
        native batch; a batch of circuits has as many rows as one of them. Otherwise this is `torch.func.jacrev`.

        Args:
            args, kwargs: of the call. (The function's own argument `argnums` is passed by position.)
            argnums: as in `value_and_grad`.

        Returns:
            What the call returns, and in place of each result its derivatives in the structure of the argument, each
            `(*shape of the result, *shape of the argument)`; for a tuple of `argnums` a tuple of those. Without
            graphs.

        Raises:
            ValueError, TypeError: about `argnums`, as in `value_and_grad`.
            RuntimeError: complex results, or complex arguments, which torch.func.jacrev refuses.
            MemoryError: the rows do not fit.

        Example:
            >>> import torch, ketgrad as kg
            >>> @kg.compile
            ... def circuit(weights):
            ...     return kg.Tape([kg.RY(weights[0], wires=0), kg.RZ(weights[1], wires=0)], [kg.probs(wires=0)])
            >>> probabilities, jacobian = circuit.value_and_jacobian(torch.tensor([torch.pi / 2, 0.0]))
            >>> jacobian
            tensor([[-0.5000,  0.0000],
                    [ 0.5000,  0.0000]])
        """
        if torch.compiler.is_compiling():
            run = torch.compiler.disable(interpreter_levels.run_behind_break)
            return run(self._value_and_jacobian, args, kwargs, argnums)  # type: ignore[no-any-return]
        return self._value_and_jacobian(args, kwargs, argnums)

    def value_and_backward(self, *args: Any, loss: Loss | None = None, **kwargs: Any) -> Tensor:
        """`loss(compiled(*args, **kwargs)).backward()` in one call, and faster; for training loops.

        Gradients are added to `.grad` of all tensors that require grad: arguments, tensors that the function reads from
        outside, tensors that either was computed from, and parameters of the loss.

        Args:
            args, kwargs: of the call.
            loss: as in `value_and_grad`.

        Returns:
            The value, without a graph.

        Raises:
            ValueError: the value is not one real number.
            NotImplementedError: under transforms of torch.func.
        """
        if torch.compiler.is_compiling():
            run = torch.compiler.disable(interpreter_levels.run_behind_break)
            return run(self._value_and_backward, args, kwargs, loss)  # type: ignore[no-any-return]
        return self._value_and_backward(args, kwargs, loss)

    @interpreter_levels.not_for_dynamo
    def _value_and_grad(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], argnums: int | tuple[int, ...], loss: Loss | None
    ) -> tuple[Tensor, Any]:
        if operators.is_transforming() or is_watched():
            gradient, value = torch.func.grad_and_value(lambda *args: self._value(args, kwargs, loss), argnums)(*args)
            return value, gradient
        found, tensors = self._find_gradient_plan(args, kwargs, argnums)
        value, gradients = value_and_gradients(found, tensors, loss, False)
        pairs = zip(gradients, found.leaves, strict=True)
        filled = [torch.zeros_like(tensors[position]) if g is None else g for g, position in pairs]
        return value, _packed(filled, args, argnums)

    @interpreter_levels.not_for_dynamo
    def _value_and_backward(self, args: tuple[Any, ...], kwargs: dict[str, Any], loss: Loss | None) -> Tensor:
        if operators.is_transforming():
            raise NotImplementedError("value_and_backward changes .grad; under torch.func, use value_and_grad")
        if is_watched():
            value = self._value(args, kwargs, loss)
            value.backward()
            return value.detach()
        found, tensors = self._find_gradient_plan(args, kwargs, None)
        value, gradients = value_and_gradients(found, tensors, loss, True)
        given = [(tensors[position], g) for position, g in zip(found.leaves, gradients, strict=True) if g is not None]
        if given:
            torch.autograd.backward([tensor for tensor, _ in given], [gradient for _, gradient in given])
        return value

    @interpreter_levels.not_for_dynamo
    def _value_and_jacobian(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], argnums: int | tuple[int, ...]
    ) -> tuple[Any, Any]:
        if not operators.is_transforming() and not is_watched():
            found, tensors = self._find_gradient_plan(args, kwargs, argnums)
            if has_rows(found, tensors):
                returned, rows = value_and_rows(found, tensors)
                parts = [_packed(of_result, args, argnums) for of_result in rows]
                return returned, type(returned)(parts) if found.plan.returns_tuple else parts[0]

        def twice(*args: Any) -> tuple[Any, Any]:
            returned = self._call(args, kwargs)
            return returned, returned

        jacobian, returned = torch.func.jacrev(twice, argnums, has_aux=True)(*args)
        return returned, jacobian

    def _value(self, args: tuple[Any, ...], kwargs: dict[str, Any], loss: Loss | None) -> Tensor:
        returned = self._call(args, kwargs)
        value = returned if loss is None else loss(returned)
        require_number(value)
        return value

    def _find_gradient_plan(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], argnums: int | tuple[int, ...] | None
    ) -> tuple[GradientPlan, tuple[Tensor, ...]]:
        """The plan for some arguments, and the tensors that it takes.

        Args:
            args, kwargs: of the call.
            argnums: the positional arguments that are differentiated; None: all tensors that require grad, the captured
                ones too.
        """
        _, tensors, key = key_of(args, kwargs)
        found = self._gradient_plans.find(self._with_modes((argnums, key)))
        if found is not None:
            if found.plan.containers is None:
                return found, tensors
            captured = found.plan.captured_now()
            if captured is not None:
                return found, (*tensors, *captured)
            self._gradient_plans.drop(lambda each: each.plan.is_stale)
        found, captured = self._make_gradient_plan(args, kwargs, tensors, argnums)
        return self._gradient_plans.keep(self._with_modes((argnums, key)), found), (*tensors, *captured)

    def _make_gradient_plan(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        tensors: tuple[Tensor, ...],
        argnums: int | tuple[int, ...] | None,
    ) -> tuple[GradientPlan, tuple[Tensor, ...]]:
        """A new plan, and the captured tensors."""
        if argnums is None:
            plan, known = self._plan(args, kwargs)
            leaves = tuple([i for i, tensor in enumerate(known) if tensor.requires_grad])
        else:
            leaves = _positions(args, argnums)
            trained = as_leaves([tensors[position] for position in leaves], range(len(leaves)))
            replaced = dict(zip(leaves, trained, strict=True))  # what is detached in the function is known by grad
            given = iter([replaced.get(position, tensor) for position, tensor in enumerate(tensors)])
            plan, known = self._plan(*replace_tensors((args, kwargs), given))
        return gradient_plan(plan, known, leaves), known[len(tensors) :]


def _positions(args: tuple[Any, ...], argnums: int | tuple[int, ...]) -> tuple[int, ...]:
    """The positions of the differentiated arguments' tensors among those of all arguments."""
    chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    numbers = [n + len(args) if n < 0 else n for n in chosen]
    if not numbers or len(set(numbers)) < len(numbers) or any(n not in range(len(args)) for n in numbers):
        raise ValueError(
            f"argnums are positions of different positional arguments, of which there are {len(args)}, not {argnums!r}"
        )
    first, found = 0, {}
    for number, argument in enumerate(args):
        tensors = flatten((argument,), {})[1]
        found[number] = range(first, first + len(tensors))
        first += len(tensors)
        if number in numbers:
            _require_differentiable(number, argument)
    return tuple([position for number in numbers for position in found[number]])


def _require_differentiable(number: int, argument: Any) -> None:
    leaves = pytree.tree_leaves(argument)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise TypeError(f"argument {number} is differentiated and has a {type(leaf).__name__} in it, not a tensor")
        if not leaf.is_floating_point() and not leaf.is_complex():
            raise TypeError(f"argument {number} is differentiated and has a tensor of {leaf.dtype} in it")
    if not leaves:
        raise TypeError(f"argument {number} is differentiated and has no tensors in it")


def _packed(gradients: list[Tensor], args: tuple[Any, ...], argnums: int | tuple[int, ...]) -> Any:
    """Gradients as the differentiated arguments are made of tensors."""
    if isinstance(argnums, int):
        argument = args[argnums]
        return gradients[0] if isinstance(argument, Tensor) else replace_tensors(argument, iter(gradients))
    left = iter(gradients)
    return tuple([replace_tensors(args[number], left) for number in argnums])
