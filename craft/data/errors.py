"""What can be wrong with data."""

from __future__ import annotations

from craft.errors import UsageError

__all__ = ["DataError"]


class DataError(UsageError):
    """The data that was named cannot be read, or does not fit what is asked of it."""
