"""The errors of the store: what is not as it was written, and what someone else works in."""

from __future__ import annotations

__all__ = ["Busy", "Corrupt"]


class Corrupt(ValueError):  # noqa: N818 - reads as `store.Corrupt`
    """A file is not what was written."""


class Busy(ValueError):  # noqa: N818
    """Another process works in the directory."""
