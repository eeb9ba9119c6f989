"""What all tokenizers share: ids that are checked, text as code points and bytes, and text that comes a few ids at a time."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch

from craft.data.errors import DataError
from craft.types import Tensor

__all__ = ["UNKNOWN", "UTF32", "Stream", "checked", "code_points", "encoded"]

UNKNOWN = "\ufffd"
"""The replacement character: what the id 0 of a `CharacterTokenizer` stands for."""

UTF32 = "utf-32-le" if sys.byteorder == "little" else "utf-32-be"


class Stream(NamedTuple):
    """Text of ids that come a few at a time, without ever half a character.

    Attributes
    ----------
    push
        ids -> the text that is complete by now.
    finish
        () -> what is left: U+FFFD where the last character stayed incomplete, else nothing.
    """

    push: Callable[[Iterable[int]], str]
    finish: Callable[[], str]


def code_points(text: str, offset: int = 0) -> Tensor:
    """Return the code points of a text that begins at a character, int32 of shape (N,)."""
    if not text:
        return torch.zeros(0, dtype=torch.int32)
    return torch.frombuffer(bytearray(encoded(text, UTF32, offset)), dtype=torch.int32)


def encoded(text: str, encoding: str, offset: int = 0) -> bytes:
    """Return a text's bytes, or say where half a character stands in it."""
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        code, place = ord(text[error.start]), offset + error.start
        raise DataError(
            f"got the lone surrogate U+{code:04X} at character {place}, which is half a character; remove or replace it"
        ) from error


def checked(ids: Iterable[int], size: int) -> Tensor:
    """Return ids as int64 of shape (N,); one outside [0, size) is a `DataError`."""
    ids_N = ids.long() if isinstance(ids, Tensor) else torch.tensor([operator.index(i) for i in ids], dtype=torch.int64)
    wrong = (ids_N < 0) | (ids_N >= size)
    if wrong.any():
        place = int(wrong.nonzero()[0, 0])
        raise DataError(f"got token id {int(ids_N[place])} at position {place}; expected 0 to {size - 1}")
    return ids_N
