"""Words of messages: a value in short, and the names that were perhaps meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = ["meant", "nearest", "short"]


def short(value: Any) -> str:
    """Return the repr of a value, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def nearest(word: str, words: Iterable[Any]) -> list[str]:
    """Return up to three of the words that look most like `word`, best first."""
    return difflib.get_close_matches(word[:100], [str(other) for other in words], n=3, cutoff=0.5)


def meant(close: list[str]) -> str:
    """Return what a message ends with where `nearest` found something."""
    return f" (did you mean {' or '.join(close)}?)" if close else ""
