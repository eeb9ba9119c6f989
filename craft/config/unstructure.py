"""Values to plain data: one function for each shape of annotation.

Each takes first the function that turns the inner values, called with a value and its annotation.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import attrs

from craft.config.annotation import fields, is_tuple

__all__ = ["from_attrs", "from_mapping", "from_sequence", "from_union"]

Unstructure = Callable[..., Any]
"""What turns a value, with its annotation or without, into plain data: `Converter.unstructure` of cattrs."""


def from_attrs(unstructure: Unstructure, cls: Any) -> Callable[[Any], dict[str, Any]]:
    """Return what makes a table of every field; it carries its `kind` where the class is not the annotated one."""

    def convert(value: Any) -> dict[str, Any]:
        own: Any = type(value)
        data = {name: unstructure(getattr(value, name), field.type) for name, field in fields(own).items()}
        return data if own is cls else {"kind": own.__name__, **data}

    return convert


def from_union(unstructure: Unstructure, value: Any) -> Any:
    """Return the data of a value as its own class says; an attrs value carries its `kind`."""
    data = unstructure(value)
    return {"kind": type(value).__name__, **data} if attrs.has(type(value)) else data


def from_sequence(unstructure: Unstructure, cls: Any) -> Callable[[Any], list[Any]]:
    """Return what makes a list."""
    inner = typing.get_args(cls)

    def convert(value: Any) -> list[Any]:
        fixed = is_tuple(cls) and inner and inner[-1] is not Ellipsis
        kinds = inner if fixed else [inner[0] if inner else None] * len(value)
        return [unstructure(item, kind) for item, kind in zip(value, kinds, strict=True)]

    return convert


def from_mapping(unstructure: Unstructure, cls: Any) -> Callable[[Any], dict[str, Any]]:
    """Return what makes a dict."""
    inner = (*typing.get_args(cls), None, None)[1]
    return lambda value: {key: unstructure(item, inner) for key, item in value.items()}
