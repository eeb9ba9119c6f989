"""Trees of tensors: the one door to the tree library.

Leaves are named by their path, joined by dots (`blocks.0.attention.query`). Dict keys come sorted, whatever order they
were made in, so that two trees of the same content have the same leaves in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import optree
import torch

from craft.types import Tensor, Tree

__all__ = [
    "cast",
    "flatten",
    "leaves",
    "map",
    "named",
    "norm",
    "partition",
    "paths",
    "select",
    "size",
    "stack",
    "to",
    "unflatten",
    "unstack",
    "where",
    "zeros_like",
]


def map(function: Callable[..., Any], *trees: Tree) -> Tree:
    """Apply `function` to the leaves of trees of one structure.

    Raises
    ------
    ValueError
        If the structures differ.
    """
    return optree.tree_map(function, *trees)


def leaves(tree: Tree) -> list[Any]:
    """Return the leaves in their fixed order."""
    return optree.tree_leaves(tree)


def flatten(tree: Tree) -> tuple[list[Any], Any]:
    """Return the leaves and what `unflatten` needs to put them back."""
    return optree.tree_flatten(tree)


def unflatten(structure: Any, values: Sequence[Any]) -> Tree:
    """Put leaves back into the structure that `flatten` returned."""
    return optree.tree_unflatten(structure, list(values))


def paths(tree: Tree) -> list[str]:
    """Return each leaf's name, in the order of `leaves`; a lone leaf's name is empty."""
    return [".".join(_key(entry) for entry in accessor) for accessor in optree.tree_accessors(tree)]


def _key(entry: Any) -> str:
    return str(entry.field if isinstance(entry, optree.NamedTupleEntry) else entry.entry)


def named(tree: Tree) -> dict[str, Any]:
    """Return the leaves by name.

    Raises
    ------
    ValueError
        If two leaves have one name (a key with a dot in it).
    """
    names, values = paths(tree), leaves(tree)
    table = dict(zip(names, values, strict=True))
    if len(table) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"two leaves are named {', '.join(twice)}: keys of a tree must not contain dots")
    return table


def select(tree: Tree, pattern: str) -> Tree:
    """Return a tree of booleans: whether the leaf's path matches the regular expression (anywhere in it)."""
    _, structure = flatten(tree)
    return unflatten(structure, [re.search(pattern, path) is not None for path in paths(tree)])


def partition(tree: Tree, labels: Sequence[str]) -> dict[str, list[Any]]:
    """Group the leaves by a label each, in order.

    Raises
    ------
    ValueError
        If there are not as many labels as leaves.
    """
    values = leaves(tree)
    if len(values) != len(labels):
        raise ValueError(f"got {len(labels)} labels for {len(values)} leaves; give one label to each leaf")
    groups: dict[str, list[Any]] = {}
    for label, value in zip(labels, values, strict=True):
        groups.setdefault(label, []).append(value)
    return groups


def norm(tree: Tree) -> Tensor:
    """Return the Euclidean norm over all leaves, 0-d float32; squares are summed in float32 at least."""
    squares = [_wide(leaf).square().sum() for leaf in leaves(tree)]
    return torch.stack(squares).sum().sqrt() if squares else torch.zeros(())


def _wide(leaf: Tensor) -> Tensor:
    return leaf if leaf.dtype == torch.float64 else leaf.float()


def cast(tree: Tree, dtype: torch.dtype) -> Tree:
    """Convert the floating leaves to `dtype`; integers and booleans stay."""
    return map(lambda leaf: leaf.to(dtype) if leaf.is_floating_point() else leaf, tree)


def to(tree: Tree, device: torch.device | str) -> Tree:
    """Move every leaf to a device."""
    return map(lambda leaf: leaf.to(device), tree)


def zeros_like(tree: Tree) -> Tree:
    """Return a tree of zeros of the same shapes and types."""
    return map(torch.zeros_like, tree)


def where(condition: Tensor, first: Tree, second: Tree) -> Tree:
    """Choose one of two trees as a whole by a 0-d boolean, inside the graph."""
    return map(lambda a, b: torch.where(condition, a, b), first, second)


def stack(trees: Sequence[Tree]) -> Tree:
    """Stack trees of one structure: every leaf gets a leading axis of their number."""
    if not trees:
        raise ValueError("got no trees to stack; give at least one")
    return map(lambda *parts: torch.stack(parts), *trees)


def unstack(tree: Tree) -> list[Tree]:
    """Undo `stack`: one tree for each index of the leading axis."""
    values, structure = flatten(tree)
    if not values:
        raise ValueError("got a tree without leaves; its leading axis is unknown")
    # not leaf[i]: the derivative of `unbind` stacks the parts, that of an index adds up as many arrays of zeros
    return [unflatten(structure, parts) for parts in zip(*(torch.unbind(leaf) for leaf in values), strict=True)]


def size(tree: Tree) -> int:
    """Count the numbers in all leaves."""
    return sum(leaf.numel() for leaf in leaves(tree))
