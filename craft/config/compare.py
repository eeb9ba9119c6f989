"""Plain data side by side: as flat paths, as differences, as a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from craft.config.plain import items, join

__all__ = ["ABSENT", "diff", "digest", "flatten"]


class _Absent:
    def __repr__(self) -> str:
        return "absent"


ABSENT: Final = _Absent()
"""What `diff` gives for the side that has no such path."""


def flatten(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data as path -> value; empty dicts and lists stand as values."""
    return dict(_flatten(data, ""))


def _flatten(data: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(data, Mapping | list | tuple) and (data or not path):
        for key, value in items(data):
            yield from _flatten(value, join(path, key))
    else:
        yield path, data


def diff(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Compare plain data.

    Parameters
    ----------
    a, b
        What `to_dict` or `load` returned.

    Returns
    -------
    Path -> (value in `a`, value in `b`) where they differ, sorted by path; `ABSENT` where there is none.
    """
    one, two = flatten(a), flatten(b)
    pairs = {path: (one.get(path, ABSENT), two.get(path, ABSENT)) for path in sorted(one.keys() | two.keys())}
    return {path: pair for path, pair in pairs.items() if not _same(*pair)}


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def digest(data: Any) -> str:
    """Return the SHA-256 of plain data, in hexadecimal; the order of keys does not matter."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
