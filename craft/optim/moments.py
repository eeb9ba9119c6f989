"""Running means: the arithmetic that Adam, Lion, Muon and the average of the parameters have in common."""

from __future__ import annotations

import math

import torch

from craft import tree
from craft.types import Tensor, Tree, Value

__all__ = ["blend", "check_complement", "correction", "start_count", "times"]


def times(leaf: Tensor, number: Tensor | float) -> Tensor:
    """Multiply a leaf by a number, in the leaf's own type.

    Parameters
    ----------
    leaf
        Tensor of any shape.
    number
        Constant or 0-d tensor.

    Returns
    -------
    Tensor of the leaf's shape and type: a 0-d leaf of low precision would take the number's type otherwise.
    """
    return (leaf * number).to(leaf.dtype)


def blend(old: Tree, new: Tree, c: Tensor | float) -> Tree:
    """Move `old` towards `new` by the fraction `c`, leaf by leaf.

    Parameters
    ----------
    old, new
        Trees of one structure.
    c
        Complement of the decay, 1 - beta: constant or 0-d tensor.

    Returns
    -------
    Tree: old + c * (new - old).
    """
    return tree.map(lambda o, n: torch.lerp(o, n, c.to(o.dtype) if isinstance(c, Tensor) else c), old, new)


def start_count(params: Tree) -> Tensor:
    """Make the counter of updates: 0-d int64 zero, where the parameters are.

    Parameters
    ----------
    params
        Tree of tensors; without leaves the counter is made on the CPU.

    Returns
    -------
    Tensor.
    """
    values = tree.leaves(params)
    return torch.zeros((), dtype=torch.int64, device=values[0].device if values else None)


def correction(count: Tensor, c: Tensor | float) -> Tensor:
    """Return the weight that a running mean started at zero has gathered: 1 - (1 - c)**count.

    Parameters
    ----------
    count
        Updates that the mean has seen, 0-d int64, at least 1.
    c
        Complement of the decay, 1 - beta: constant or 0-d tensor.

    Returns
    -------
    0-d float32 in (0, 1].
    """
    if isinstance(c, Tensor):
        return -torch.expm1(count * torch.log1p(-c))
    return -torch.expm1(count * (math.log1p(-c) if c < 1.0 else -math.inf))


def check_complement(name: str, value: Value) -> None:
    """Refuse a constant that is no complement of a decay.

    Parameters
    ----------
    name
        What the caller's argument is called.
    value
        What it was given.

    Raises
    ------
    ValueError
        If a constant is not in (0, 1].
    """
    if not callable(value) and not 0.0 < value <= 1.0:
        raise ValueError(f"got {name}={value}; expected 1 - beta, in (0, 1]: give 0.1 for a decay of 0.9")
