"""Strict JSON: what it cannot say is refused, and the place is named."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["dump", "strict"]


def dump(obj: Any, *, sort: bool) -> bytes:
    """Return JSON as it stands in files: indented by 2, UTF-8, one line end at the end."""
    text = json.dumps(strict(obj), indent=2, sort_keys=sort, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode(errors="backslashreplace")  # a lone surrogate becomes the JSON escape of itself


def strict(obj: Any, place: str = "", lost: list[str] | None = None) -> Any:
    """Return plain JSON data; non-finite numbers become None where `lost` collects their places, else they are refused."""
    if obj is None or isinstance(obj, str | bool | int):
        return obj
    if isinstance(obj, float):
        return _finite(obj, place, lost)
    if isinstance(obj, list | tuple):
        return [strict(value, f"{place}.{index}".lstrip("."), lost) for index, value in enumerate(obj)]
    if isinstance(obj, Mapping) and all(isinstance(key, str) for key in obj):
        return {key: strict(value, f"{place}.{key}".lstrip("."), lost) for key, value in obj.items()}
    raise ValueError(f"got {obj!r:.80} at {place or 'the top'}; expected JSON data: dicts with text keys, lists, text, numbers")


def _finite(number: float, place: str, lost: list[str] | None) -> float | None:
    if math.isfinite(number):
        return float(number)
    if lost is None:
        raise ValueError(f"got {number} at {place or 'the top'}; JSON has no such number: store null or text instead")
    lost.append(place)
    return None
