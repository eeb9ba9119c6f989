"""Plain data: what JSON can say, and where in it a value stands.

A path joins keys and positions by dots: `model.pattern.0.dropout`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from craft.config.errors import ConfigError
from craft.config.words import short

__all__ = ["DEPTH", "check_plain", "is_number", "items", "join"]

DEPTH = 32
"""How many levels deep a configuration may be: more is a mistake or an attack."""


def is_number(value: Any) -> bool:
    """Return whether a value is an int or a float; a bool, which Python counts among the ints, is none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def items(value: Any) -> Iterable[tuple[Any, Any]]:
    """Return what a mapping or a sequence holds, each with its key or position."""
    return value.items() if isinstance(value, Mapping) else enumerate(value)


def join(*parts: Any) -> str:
    """Join the parts of a path; empty ones are left out."""
    return ".".join(str(part) for part in parts if part != "")


def check_plain(data: Any, path: str = "", depth: int = 0) -> None:
    """Refuse what JSON cannot say.

    Raises
    ------
    ConfigError
        If it is too deep, has a key that is no text, or holds anything else than text, finite numbers, booleans and None.
    """
    if depth > DEPTH:
        raise ConfigError(f"more than {DEPTH} levels deep at {path[:60]}; flatten it")
    if isinstance(data, dict | list):
        for key, value in items(data):
            if not isinstance(key, str | int) or (isinstance(data, dict) and not isinstance(key, str)):
                raise ConfigError(f"got the key {short(key)} at {path or 'the top'}; expected text")
            check_plain(value, join(path, key), depth + 1)
    elif not (data is None or isinstance(data, str | bool | int) or (isinstance(data, float) and math.isfinite(data))):
        raise ConfigError(f"got {short(data)} at {path or 'the top'}; expected text, a finite number, true, false or null")
