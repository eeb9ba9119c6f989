"""Annotations of fields: which shape of data each asks for, and how a message names it."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union

import attrs

__all__ = ["describe", "fields", "is_literal", "is_mapping", "is_sequence", "is_tuple", "is_union"]

_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "null", Path: "a path"}


def is_union(cls: Any) -> bool:
    """Return whether it is `A | B`."""
    return typing.get_origin(cls) in (Union, types.UnionType)


def is_tuple(cls: Any) -> bool:
    """Return whether it is a tuple."""
    return (typing.get_origin(cls) or cls) is tuple


def is_sequence(cls: Any) -> bool:
    """Return whether it is a tuple or a list."""
    return (typing.get_origin(cls) or cls) in (tuple, list, Sequence)


def is_mapping(cls: Any) -> bool:
    """Return whether it is a dict."""
    return (typing.get_origin(cls) or cls) in (dict, Mapping)


def is_literal(cls: Any) -> bool:
    """Return whether it is a choice of values."""
    return typing.get_origin(cls) is Literal


def describe(cls: Any) -> str:
    """Return what a message says is expected."""
    if is_literal(cls):
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(cls))
    if attrs.has(cls):
        return f"a table of {cls.__name__}"
    return "a list" if is_sequence(cls) else "a table" if is_mapping(cls) else _WORDS.get(cls, str(cls))


@functools.cache
def fields(cls: Any) -> dict[str, Any]:
    """Return the fields that an attrs class is made of, by name, their annotations resolved."""
    return {field.name: field for field in attrs.fields(attrs.resolve_types(cls)) if field.init}
