"""Flags of a command as a typed value."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TypeVar

import tyro

__all__ = ["parse_flags"]

_Flags = TypeVar("_Flags")


def parse_flags(cls: type[_Flags], argv: Sequence[str], prog: str) -> _Flags:
    """Parse the flags of a command into its attrs class, whose docstrings are the help."""
    about = inspect.cleandoc(cls.__doc__ or "")
    return tyro.cli(cls, args=list(argv), prog=prog, description=about, config=(tyro.conf.FlagCreatePairsOff,))
