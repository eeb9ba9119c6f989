"""Attrs values to plain data and back: cattrs picks the function for each annotation, here it is told which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import cattrs

from craft.config.annotation import is_literal, is_mapping, is_sequence, is_union
from craft.config.errors import ConfigError
from craft.config.plain import check_plain, join
from craft.config.problems import Problems
from craft.config.structure import to_attrs, to_exact, to_float, to_literal, to_mapping, to_path, to_sequence, to_union
from craft.config.unstructure import from_attrs, from_mapping, from_sequence, from_union

__all__ = ["from_dict", "to_dict"]

T = TypeVar("T")


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter()
    for primitive in (int, str, bool, type(None)):
        converter.register_structure_hook(primitive, to_exact)
    converter.register_structure_hook(float, to_float)
    converter.register_structure_hook(Path, to_path)
    hooks: list[tuple[Callable[[Any], bool], Callable[[Any, Any], Any]]] = [
        (is_literal, to_literal),
        (is_sequence, partial(to_sequence, converter.structure)),
        (is_mapping, partial(to_mapping, converter.structure)),
        (attrs.has, partial(to_attrs, converter.structure)),
        (is_union, partial(to_union, converter.structure)),
    ]
    for predicate, hook in hooks:
        converter.register_structure_hook_func(predicate, hook)
    converter.register_unstructure_hook(Path, str)
    converter.register_unstructure_hook(float, float)
    converter.register_unstructure_hook_factory(is_sequence, partial(from_sequence, converter.unstructure))
    converter.register_unstructure_hook_factory(is_mapping, partial(from_mapping, converter.unstructure))
    converter.register_unstructure_hook_factory(attrs.has, partial(from_attrs, converter.unstructure))
    converter.register_unstructure_hook_func(is_union, partial(from_union, converter.unstructure))
    return converter


_converter = _make_converter()


def to_dict(config: Any) -> dict[str, Any]:
    """Turn an attrs value into plain JSON data: `from_dict` of it is an equal value.

    Parameters
    ----------
    config
        An attrs value.

    Returns
    -------
    Dicts, lists, text, numbers, booleans and None; every field is there, also those at their default.

    Raises
    ------
    ConfigError
        If a field holds something that JSON cannot say; its path is named.
    """
    data: dict[str, Any] = _converter.unstructure(config)
    check_plain(data)
    return data


def from_dict(cls: type[T], data: Mapping[str, Any], *, path: str = "") -> T:
    """Make an attrs value of plain data, strictly.

    An int is taken where a float is expected; nothing else is converted. Missing keys take their defaults.

    Parameters
    ----------
    cls
        The attrs class.
    data
        What `to_dict` or `load` returned.
    path
        What the paths in messages start with.

    Returns
    -------
    A value of the class, or of one below it that `kind` names.

    Raises
    ------
    ConfigError
        If keys are unknown, values have a wrong type, or validators refuse; all problems, each with its path.
    """
    try:
        return _converter.structure(data, cls)
    except Problems as error:
        lines = [f"{place}: {text}" if place else text for place, text in ((join(path, p), text) for p, text in error.found)]
        raise ConfigError("\n".join(lines)) from None
