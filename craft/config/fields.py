"""Fields of configurations: validators of numbers, and numbers that may change without a new program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs

from craft.config.plain import is_number, items, join

__all__ = ["at_least", "finite_positive", "fraction", "positive", "tunable", "tunables"]


def _refuse(attribute: Any, value: Any, expected: str) -> None:
    raise ValueError(f"got {attribute.name}={value!r}; expected {expected}")


def positive(instance: Any, attribute: Any, value: Any) -> None:
    """Validate a field: a number above 0."""
    if not (is_number(value) and value > 0):
        _refuse(attribute, value, "a number above 0")


def finite_positive(instance: Any, attribute: Any, value: Any) -> None:
    """Validate a field: a finite number above 0."""
    if not (is_number(value) and 0 < value < math.inf):
        _refuse(attribute, value, "a finite number above 0")


def fraction(instance: Any, attribute: Any, value: Any) -> None:
    """Validate a field: a number from 0 to below 1."""
    if not (is_number(value) and 0 <= value < 1):
        _refuse(attribute, value, "a number from 0 to below 1")


def at_least(least: float) -> Callable[[Any, Any, Any], None]:
    """Make a validator of a field: a number that is not below `least`."""

    def check(instance: Any, attribute: Any, value: Any) -> None:
        if not (is_number(value) and value >= least):
            _refuse(attribute, value, f"{least} or more")

    return check


def choice(default: str, *words: str) -> Any:
    """Make a field that takes one of some words.

    Parameters
    ----------
    default
        The word where none is given.
    words
        All words, also for callers that no type checker sees.
    """

    def check(instance: Any, attribute: Any, value: Any) -> None:
        if value not in words:
            raise ValueError(f"got {attribute.name}={value!r}; expected {', '.join(words[:-1])} or {words[-1]}")

    return attrs.field(default=default, validator=check)


def tunable(default: float, *, complement: bool = False, validator: Any = None) -> Any:
    """Declare a float field that may change without a new program: it lives in the state under its path.

    Parameters
    ----------
    default
        Its default.
    complement
        Whether the state holds 1 - value: float32 keeps more of a number near 1 that way.
    validator
        As of `attrs.field`.

    Returns
    -------
    What stands to the right of the annotation in an attrs class.
    """
    return attrs.field(default=default, validator=validator, metadata={"tunable": "complement" if complement else "value"})


def tunables(config: Any) -> dict[str, float]:
    """Collect the tunable numbers of an attrs value and of all that it holds.

    Parameters
    ----------
    config
        An attrs value; others in its fields, tuples, lists and dicts are searched too.

    Returns
    -------
    Path (`model.pattern.0.dropout`) -> value, or 1 - value where the field says so.
    """
    return dict(_tunables(config, ""))


def _tunables(value: Any, path: str) -> Iterator[tuple[str, float]]:
    if attrs.has(type(value)):
        for field in attrs.fields(type(value)):
            inner, place = getattr(value, field.name), join(path, field.name)
            role = field.metadata.get("tunable")
            if role is None:
                yield from _tunables(inner, place)
            else:
                yield place, float(1 - inner if role == "complement" else inner)
    elif isinstance(value, Mapping | list | tuple):
        for key, inner in items(value):
            yield from _tunables(inner, join(path, key))
