"""The one error that is the caller's: what was typed cannot be run. The command line exits with 2 for it, else with 1."""

from __future__ import annotations

__all__ = ["UsageError"]


class UsageError(ValueError):
    """What was asked for cannot be done as it was asked."""
