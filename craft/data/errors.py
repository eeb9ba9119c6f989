"""What can be wrong with data."""

from __future__ import annotations

__all__ = ["DataError"]


class DataError(ValueError):
    """Data cannot be read, or does not fit what is asked of it."""
