"""Numbers and settings as tables show them."""

from __future__ import annotations

import json
import math
from typing import Any

from craft import config
from craft.report.interval import Interval
from craft.track.text import count, duration, oneline

__all__ = ["large", "megabytes", "number", "plain", "rate", "setting", "spread", "time"]

_LONG = 40


def number(value: float | None) -> str:
    """Return a metric with four decimals, or three digits where it is very small or large; empty where there is none."""
    if value is None:
        return ""
    if not math.isfinite(value):
        return "not finite"
    size = abs(value)
    if size and not 1e-3 <= size < 1e4:
        return f"{value:.3g}"
    return f"{value:.4f}" if size < 100 else f"{value:.1f}"


def spread(found: Interval | None) -> tuple[str, str]:
    """Return a mean and the half width of its interval, each empty where there is none."""
    if found is None:
        return "", ""
    return number(found.mean), "" if found.half is None else f"±{number(found.half)}"


def large(value: float | None) -> str:
    """Return a count in few characters: 950, 12.3k, 1.2e+15."""
    if value is None:
        return ""
    return count(value) if abs(value) < 1e12 else f"{value:.3g}"


def rate(value: float | None) -> str:
    """Return tokens a second."""
    return "" if value is None else count(value)


def megabytes(value: float | None) -> str:
    """Return a size in MB."""
    return "" if value is None else f"{value:.0f}"


def time(seconds: float | None) -> str:
    """Return seconds as people say them."""
    return "" if seconds is None else duration(seconds)


def setting(value: Any) -> str:
    """Return a value of a configuration: text as it is, the rest as JSON, cut to 40 characters."""
    if value is config.ABSENT:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."


def plain(text: str) -> str:
    """Return text that matplotlib takes as it is: a dollar sign begins no formula."""
    return oneline(text).replace("$", r"\$")
