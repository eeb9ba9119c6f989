"""Sending leaves to different transforms, decided once from the spec."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from craft import tree
from craft.types import Context, Transform, Tree

__all__ = ["groups", "route", "route_by_path"]


def groups(spec: Tree, labels: Sequence[str]) -> dict[str, dict[str, Tree]]:
    """Group leaves by label: the trees that the transforms of `route` see, for masks and rates of their own.

    Parameters
    ----------
    spec
        Tree of `param.Param`, or of anything of the parameters' structure.
    labels
        One label for each leaf, in the order of `tree.leaves`.

    Returns
    -------
    For each label, its leaves by path.

    Raises
    ------
    ValueError
        If there are not as many labels as leaves.
    """
    table = tree.named(spec)
    if len(labels) != len(table):
        raise ValueError(f"got {len(labels)} labels for {len(table)} leaves; give one label to each leaf")
    found: dict[str, dict[str, Tree]] = {}
    for label, (path, leaf) in zip(labels, table.items(), strict=True):
        found.setdefault(label, {})[path] = leaf
    return found


def route(spec: Tree, labels: Sequence[str], transforms: Mapping[str, Transform]) -> Transform:
    """Send every leaf to the transform of its label; a transform sees its leaves as a dict by path.

    Parameters
    ----------
    spec
        Tree of `param.Param`: the structure of the parameters.
    labels
        One label for each leaf, in the order of `tree.leaves`.
    transforms
        A transform for each label. One with a mask or rates of its own takes them from `groups`.

    Returns
    -------
    Transform whose state is a dict of their states by label.

    Raises
    ------
    ValueError
        If the labels and the transforms do not match one to one, there are not as many labels as leaves, or (later) the
        parameters are not those of the spec.
    """
    members = {label: list(leaves) for label, leaves in groups(spec, labels).items()}
    if members.keys() != transforms.keys():
        raise ValueError(
            f"got transforms for {sorted(transforms)} and leaves labelled {sorted(members)}; give every label one transform"
        )
    names = tree.paths(spec)

    def split(whole: Tree) -> dict[str, dict[str, Tree]]:
        leaves = tree.leaves(whole)
        if len(leaves) != len(names):
            raise ValueError(f"got {len(leaves)} leaves for {len(names)} parameters: they differ from the spec of this route")
        table = dict(zip(names, leaves, strict=True))
        return {label: {path: table[path] for path in paths} for label, paths in members.items()}

    def init(params: Tree) -> dict[str, Tree]:
        parts = split(params)
        return {label: transforms[label].init(parts[label]) for label in members}

    def update(grads: Tree, state: dict[str, Tree], params: Tree, ctx: Context) -> tuple[Tree, dict[str, Tree]]:
        parts, now = split(grads), split(params)
        updates: dict[str, Tree] = {}
        states: dict[str, Tree] = {}
        for label in members:
            moved, states[label] = transforms[label].update(parts[label], state[label], now[label], ctx)
            updates.update(moved)
        return tree.unflatten(tree.flatten(grads)[1], [updates[path] for path in names]), states

    return Transform(init, update)


def route_by_path(spec: Tree, transforms: Mapping[str, Transform], default: Transform | None = None) -> Transform:
    """Send every leaf to the transform of the first pattern that its path matches.

    Parameters
    ----------
    spec
        Tree of `param.Param`: the structure of the parameters.
    transforms
        Regular expressions, found anywhere in a path, with a transform each; the first that matches counts.
    default
        Where leaves go that match none; None where there must be no such leaf.

    Returns
    -------
    Transform whose state is a dict by the number of the pattern, and `default`.

    Raises
    ------
    ValueError
        If a leaf matches nothing and there is no default, or a pattern or the default gets no leaf.
    """
    patterns = list(transforms)
    labels = [_label(path, patterns) for path in tree.paths(spec)]
    lost = [path for path, label in zip(tree.paths(spec), labels, strict=True) if label == "default"]
    if lost and default is None:
        raise ValueError(f"{', '.join(lost)} match none of {patterns}; add a pattern or give a default")
    if default is not None and not lost:
        raise ValueError("the default gets no leaf: every path matches a pattern; leave the default out")
    for number, pattern in enumerate(patterns):
        if str(number) not in labels:
            raise ValueError(
                f"pattern {pattern!r} gets no leaf of {tree.paths(spec)}; correct it, leave it out, or put it first"
            )
    table = {str(number): transform for number, transform in enumerate(transforms.values())}
    return route(spec, labels, table if default is None else {**table, "default": default})


def _label(path: str, patterns: Sequence[str]) -> str:
    return next((str(number) for number, pattern in enumerate(patterns) if re.search(pattern, path)), "default")
