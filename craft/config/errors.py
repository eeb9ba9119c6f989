"""The error of a configuration that is not what its class or its file should be."""

from __future__ import annotations

__all__ = ["ConfigError"]


class ConfigError(ValueError):
    """A configuration is not what its class describes; the message has one line for each problem."""
