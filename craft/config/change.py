"""Plain data with some of its values changed, by their paths."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from craft.config.compare import flatten
from craft.config.errors import ConfigError
from craft.config.words import meant, nearest

__all__ = ["change", "parse_value"]


def change(data: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data with other values at some paths.

    Parameters
    ----------
    data
        What `to_dict` returned.
    values
        Path (`model.pattern.0.heads`) -> value.

    Raises
    ------
    ConfigError
        If there is nothing at a path; the nearest ones are named.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(data))
    for path, value in values.items():
        *parents, last = path.split(".")
        try:
            place: Any = changed
            for part in parents:
                place = place[_step(place, part)]
            place[_step(place, last)] = value
        except (KeyError, IndexError, ValueError, TypeError):
            known = flatten(data)
            close = nearest(path, known) or [name for name in known if name.rpartition(".")[2] == last][:3]
            raise ConfigError(f"there is no {path!r}{meant(close) or f'; there are {_some(known)}'}") from None
    return changed


def _step(place: Any, part: str) -> Any:
    """Return the key or position of a part of a path that is there."""
    if isinstance(place, dict):
        place[part]
        return part
    if isinstance(place, list):
        place[int(part)]
        return int(part)
    raise TypeError


def _some(known: Mapping[str, Any]) -> str:
    return ", ".join(list(known)[:8]) + (" ..." if len(known) > 8 else "")


def parse_value(text: str) -> Any:
    """Return what a word of the command line stands for: a number, true, false, null, JSON; else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
