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
    "stack",
    "steady_rates",
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
    growth: float = 1.0
    """Inputs of a matrix as a multiple of those that the learning rate was chosen at; see `steady_rates`."""
    layers: int = 0
    """Number of layers along the first axis, each initialised by itself; 0: no such axis."""

    @property
    def rank(self) -> int:
        """Number of axes within one layer: 2 for a matrix."""
        return len(self.shape) - (self.layers > 0)

    def __attrs_post_init__(self) -> None:
        if len(self.axes) != len(self.shape):
            raise ValueError(f"got {len(self.axes)} axis names {self.axes} for shape {self.shape}; give one to each axis")


def scaled(fan_in: int, gain: float = 1.0) -> Normal:
    """Make the initialiser that keeps the variance of a product: std = gain / sqrt(fan_in) (LeCun et al. 1998)."""
    return Normal(gain / math.sqrt(fan_in))


def stack(spec: Tree, layers: int) -> Tree:
    """Repeat a spec over layers: every leaf gets a first axis L of their number.

    One leaf a kind of weight, not one a layer: optimisers, checkpoints and packs handle as many leaves at any depth.

    Raises
    ------
    ValueError
        If `layers` is not positive, or a leaf is stacked already.
    """
    if layers < 1:
        raise ValueError(f"got {layers} layers; expected at least 1")

    def repeat(one: Param) -> Param:
        if one.layers:
            raise ValueError(f"got a leaf that is stacked over {one.layers} layers already; stack a spec once")
        return attrs.evolve(one, shape=(layers, *one.shape), axes=("L", *one.axes), layers=layers)

    return tree.map(repeat, spec)


def materialise(spec: Tree, seed: int) -> Tree:
    """Make the tensors, on the CPU in float32.

    Each leaf, and each layer of a stacked one, has a generator of its own, seeded by (seed, path): a leaf or a layer that
    is added or removed changes no other.
    """
    values, structure = tree.flatten(spec)
    made = []
    for path, param in zip(tree.paths(spec), values, strict=True):
        value = torch.empty(param.shape)
        parts = {f"{path}.{i}": value[i] for i in range(param.layers)} if param.layers else {path: value}
        for name, part in parts.items():
            param.init(part, torch.Generator().manual_seed(rng.name_seed(seed, name)))
        made.append(value)
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


def steady_rates(spec: Tree) -> Tree:
    """Return the multipliers for steps whose size does not depend on the gradient's, as Adam's and Lion's: rate / growth.

    So a step changes what a matrix gives by as much at every width, and the best learning rate stays where it is (muP, Yang et
    al. 2022, arXiv:2203.03466). Muon's steps scale by themselves.
    """
    return tree.map(lambda param: param.rate / param.growth, spec)


def decayed(spec: Tree) -> Tree:
    """Return the tree of booleans that says which parameters decay: those with two axes or more in a layer."""
    return tree.map(lambda param: param.rank > 1, spec)
