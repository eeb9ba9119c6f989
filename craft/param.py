"""Parameters, declared once: shape, initialisation, names of the axes and learning-rate multiplier.

Counts, masks, multipliers and the tensors themselves are functions of a tree of `Param`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import attrs
import torch

from craft import rng, tree
from craft.types import Tensor, Tree

__all__ = [
    "Constant",
    "Initializer",
    "Normal",
    "Param",
    "Spread",
    "abstract",
    "count",
    "decayed",
    "materialise",
    "rates",
    "scaled",
]


class Initializer(Protocol):
    """Fills a new float32 tensor from a private generator."""

    def __call__(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """Fill `value` in place and return it."""
        ...


@attrs.frozen
class Normal:
    """Normal numbers around zero."""

    std: float
    """Standard deviation."""

    def __call__(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """Fill `value` in place and return it."""
        return value.normal_(0.0, self.std, generator=generator)


@attrs.frozen
class Constant:
    """One number everywhere."""

    number: float = 0.0
    """The number."""

    def __call__(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """Fill `value` in place and return it."""
        return value.fill_(self.number)


@attrs.frozen
class Spread:
    """Numbers evenly spaced over the elements, first to last."""

    low: float
    """First number."""
    high: float
    """Last number."""

    def __call__(self, value: Tensor, generator: torch.Generator) -> Tensor:
        """Fill `value` in place and return it."""
        return value.copy_(torch.linspace(self.low, self.high, value.numel()).view(value.shape))


def _lengths(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(shape)


def _letters(axes: Sequence[str]) -> tuple[str, ...]:
    return tuple(axes)


@attrs.frozen
class Param:
    """One parameter of a model, before it is a tensor."""

    shape: tuple[int, ...] = attrs.field(converter=_lengths)
    """Length of each axis."""
    init: Initializer
    """What fills it."""
    axes: tuple[str, ...] = attrs.field(converter=_letters)
    """A shape letter for each axis, for placing and importing weights."""
    rate: float = 1.0
    """Multiplier of the learning rate."""

    def __attrs_post_init__(self) -> None:
        if len(self.axes) != len(self.shape):
            raise ValueError(f"got {len(self.axes)} axis names {self.axes} for shape {self.shape}; give one to each axis")


def scaled(fan_in: int, gain: float = 1.0) -> Normal:
    """Make the initialiser that keeps the variance of a product: std = gain / sqrt(fan_in) (LeCun et al. 1998)."""
    return Normal(gain / math.sqrt(fan_in))


def materialise(spec: Tree, seed: int) -> Tree:
    """Make the tensors, on the CPU in float32.

    Each leaf has a generator of its own, seeded by (seed, path): a leaf that is added or removed changes no other.
    """
    values, structure = tree.flatten(spec)
    made = []
    for path, param in zip(tree.paths(spec), values, strict=True):
        generator = torch.Generator().manual_seed(rng.name_seed(seed, path))
        made.append(param.init(torch.empty(param.shape), generator))
    return tree.unflatten(structure, made)


def abstract(spec: Tree) -> Tree:
    """Make tensors that have shape and type but no storage (device `meta`)."""
    return tree.map(lambda param: torch.empty(param.shape, device="meta"), spec)


def count(spec: Tree, without: Sequence[str] = ()) -> int:
    """Count the numbers in all parameters, leaving out those whose path starts with one of `without`."""
    return sum(
        math.prod(param.shape) for path, param in tree.named(spec).items() if not path.startswith(tuple(without) or ("\0",))
    )


def rates(spec: Tree) -> Tree:
    """Return the tree of learning-rate multipliers."""
    return tree.map(lambda param: param.rate, spec)


def decayed(spec: Tree) -> Tree:
    """Return the tree of booleans that says which parameters decay: those with two axes or more."""
    return tree.map(lambda param: len(param.shape) > 1, spec)
