"""Plain data to values: one function for each shape of annotation.

Each takes the data and the annotation and returns the value, or raises `Problems`. Those of shapes that hold others take
first the function that makes the inner values.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from craft.config.annotation import describe, is_tuple
from craft.config.build import build, family
from craft.config.plain import is_number
from craft.config.problems import Problems, Structure, fail, gather
from craft.config.words import meant, nearest

__all__ = ["to_attrs", "to_exact", "to_float", "to_literal", "to_mapping", "to_path", "to_sequence", "to_union"]


def to_exact(value: Any, cls: Any) -> Any:
    """Take a value of just this class: True is no whole number."""
    return value if type(value) is cls else fail(value, describe(cls))


def to_float(value: Any, cls: Any) -> float:
    """Take a number; a whole one becomes a float where it fits."""
    if not is_number(value) or (isinstance(value, int) and abs(value) > 10**308):
        fail(value, "a number")
    return float(value)


def to_path(value: Any, cls: Any) -> Path:
    """Take a path, or text."""
    return value if isinstance(value, Path) else Path(to_exact(value, str))


def to_literal(value: Any, cls: Any) -> Any:
    """Take one of the choices."""
    choices = typing.get_args(cls)
    for choice in choices:  # 1 == True, so that the type counts
        if type(value) is type(choice) and value == choice:
            return choice
    close = nearest(value, choices) if isinstance(value, str) else []
    return fail(value, describe(cls) + meant(close))


def to_sequence(structure: Structure, value: Any, cls: Any) -> Any:
    """Take a list or a tuple; a tuple of fixed length takes just that many."""
    if not isinstance(value, list | tuple):
        fail(value, "a list")
    inner = typing.get_args(cls)
    if is_tuple(cls) and inner and inner[-1] is not Ellipsis:
        if len(value) != len(inner):
            fail(value, f"a list of {len(inner)}")
        kinds = list(inner)
    else:
        kinds = [inner[0] if inner else Any] * len(value)
    made = gather(structure, zip(range(len(value)), value, kinds, strict=True))
    return made if (typing.get_origin(cls) or cls) is list else tuple(made)


def to_mapping(structure: Structure, value: Any, cls: Any) -> dict[str, Any]:
    """Take a table whose keys are text."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        fail(value, "a table")
    inner = (*typing.get_args(cls), Any, Any)[1]
    return dict(zip(value, gather(structure, ((key, item, inner) for key, item in value.items())), strict=True))


def to_union(structure: Structure, value: Any, cls: Any) -> Any:
    """Take what one of the members takes: a table by its `kind`, anything else by the member of its own type first."""
    members = [type(None) if member is None else member for member in typing.get_args(cls)]
    classes = [member for member in members if attrs.has(member)]
    if isinstance(value, Mapping) and classes:
        families = {name: found for member in reversed(classes) for name, found in family(member).items()}
        if "kind" not in value and len(classes) > 1:
            raise Problems([("kind", f"missing; expected one of {', '.join(sorted(families))}")])
        return build(structure, value, classes[0], families)
    others = [member for member in members if not attrs.has(member)]
    for member in sorted(others, key=lambda member: type(value) is not member):
        try:
            return structure(value, member)
        except Problems:
            continue
    return fail(value, " or ".join(describe(member) for member in members))


def to_attrs(structure: Structure, value: Any, cls: Any) -> Any:
    """Take a table of the class, or of one below it that `kind` names."""
    if not isinstance(value, Mapping):
        fail(value, describe(cls))
    return build(structure, value, cls, family(cls))
