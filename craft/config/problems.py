"""Problems of data that is being read: they are gathered, so that the user hears all of them at once."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from typing import Any

from craft.config.plain import join
from craft.config.words import short

__all__ = ["Problems", "Structure", "fail", "gather"]

Structure = Callable[[Any, Any], Any]
"""What makes a value of plain data and an annotation: `Converter.structure` of cattrs."""


class Problems(Exception):  # noqa: N818 - never leaves this folder
    """Problems of one value, each with its path below that value."""

    def __init__(self, found: list[tuple[str, str]]) -> None:
        super().__init__(found)
        self.found = found


def fail(value: Any, expected: str) -> typing.NoReturn:
    """Raise the one problem of a value that is not what is expected."""
    raise Problems([("", f"got {short(value)}; expected {expected}")])


def gather(structure: Structure, parts: Iterable[tuple[Any, Any, Any]]) -> list[Any]:
    """Structure (key, value, annotation) each; the problems of all come in one exception."""
    made, problems = [], []
    for key, value, kind in parts:
        try:
            made.append(structure(value, kind))
        except Problems as error:
            problems += [(join(key, path), text) for path, text in error.found]
    if problems:
        raise Problems(problems)
    return made
