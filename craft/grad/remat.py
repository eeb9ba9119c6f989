"""Rematerialisation: compute a function again in the backward pass instead of keeping what it computed.

Chen et al. 2016, arXiv:1604.06174. Works under torch.func (`torch.utils.checkpoint` does not) and under vmap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from craft import tree
from craft.types import Tensor, Tree

__all__ = ["remat"]


class _Remat(torch.autograd.Function):
    """Keeps a function's inputs only; `plan` is the function, of tensors to a tuple of tensors."""

    generate_vmap_rule = True

    @staticmethod
    def forward(plan: Any, *leaves: Tensor) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = plan(*leaves)
        return outputs

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.plan = inputs[0]
        ctx.save_for_backward(*inputs[1:])
        ctx.mark_non_differentiable(*(leaf for leaf in output if not leaf.is_floating_point()))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        leaves, plan = ctx.saved_tensors, ctx.plan
        moving = [i for i, leaf in enumerate(leaves) if leaf.is_floating_point()]
        flows = [grad for grad in grads if grad.is_floating_point()]

        def again(*values: Tensor) -> tuple[Tensor, ...]:
            def of_moving(*moved: Tensor) -> tuple[Tensor, ...]:
                full = list(values[: len(leaves)])
                for i, value in zip(moving, moved, strict=True):
                    full[i] = value
                return tuple(out for out in plan(*full) if out.is_floating_point())

            pull = torch.func.vjp(of_moving, *(values[i] for i in moving))[1]
            return tuple(pull(values[len(leaves) :]))

        # torch.func records its backward pass too; what is computed again must not be kept for that either
        found = iter(_Remat.apply(again, *leaves, *flows))  # type: ignore[no-untyped-call]
        return None, *(next(found) if i in moving else None for i in range(len(leaves)))


def remat(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function, that keeps its arguments only until its gradient is taken.

    Parameters
    ----------
    function
        Pure function of trees of tensors that returns a tree of tensors.

    Returns
    -------
    A function with the same values and gradients, and a lower peak of memory.
    """

    def call(*args: Tree) -> Tree:
        leaves, structure = tree.flatten(args)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]  # plain numbers stay where they are
        shape: list[Any] = []

        def plan(*values: Tensor) -> tuple[Tensor, ...]:
            full = list(leaves)
            for i, value in zip(places, values, strict=True):
                full[i] = value
            outputs, made = tree.flatten(function(*tree.unflatten(structure, full)))
            shape[:] = [made]
            return tuple(outputs)

        outputs = _Remat.apply(plan, *(leaves[i] for i in places))  # type: ignore[no-untyped-call]
        return tree.unflatten(shape[0], outputs)

    return call
