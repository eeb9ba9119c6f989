"""Text to token ids and back: one id for each character, or one for each byte.

A tokenizer is built of the training text alone, is shipped with the model as JSON, and never drops what it does not know:
unknown characters are an error, or the id 0 where that is asked for.
"""

from __future__ import annotations

import codecs
import operator
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import attrs
import torch

from craft.data.errors import DataError
from craft.types import Tensor

__all__ = ["ByteTokenizer", "Bytes", "CharacterTokenizer", "Characters", "Stream", "UnknownCharacters", "load_tokenizer"]

UNKNOWN = "\ufffd"
"""The replacement character: what the id 0 of a `CharacterTokenizer` stands for."""

_PIECE = 1 << 20
_SHOWN = 20
_UTF32 = "utf-32-le" if sys.byteorder == "little" else "utf-32-be"


class UnknownCharacters(DataError):  # noqa: N818 - says what was found
    """A text has characters that the vocabulary lacks.

    Parameters
    ----------
    counts
        How often each unknown character occurs.
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = dict(counts)
        often = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        shown = ", ".join(f"{character!r} ({count})" for character, count in often[:_SHOWN])
        more = f" and {len(often) - _SHOWN} more" if len(often) > _SHOWN else ""
        expected = "expected only characters of the training text; remove or replace them"
        super().__init__(f"got characters that the vocabulary lacks: {shown}{more}; {expected}")


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


def _code_points(text: str, offset: int = 0) -> Tensor:
    if not text:
        return torch.zeros(0, dtype=torch.int32)
    return torch.frombuffer(bytearray(_bytes(text, _UTF32, offset)), dtype=torch.int32)


def _bytes(text: str, encoding: str, offset: int = 0) -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        code, place = ord(text[error.start]), offset + error.start
        raise DataError(
            f"got the lone surrogate U+{code:04X} at character {place}, which is half a character; remove or replace it"
        ) from error


def _checked(ids: Iterable[int], size: int) -> Tensor:
    ids_N = ids.long() if isinstance(ids, Tensor) else torch.tensor([operator.index(i) for i in ids], dtype=torch.int64)
    wrong = (ids_N < 0) | (ids_N >= size)
    if wrong.any():
        place = int(wrong.nonzero()[0, 0])
        raise DataError(f"got token id {int(ids_N[place])} at position {place}; expected 0 to {size - 1}")
    return ids_N


@attrs.frozen
class CharacterTokenizer:
    """One id for each character of a vocabulary; the id 0 stands for U+FFFD and for whatever is unknown.

    Examples
    --------
    >>> tokenizer = Characters().build("hello")
    >>> tokenizer.characters, tokenizer.size
    ('ehlo', 5)
    >>> tokenizer.encode("hole").tolist()
    [2, 4, 3, 1]
    >>> tokenizer.decode([2, 1, 3, 3, 4])
    'hello'
    """

    unit: ClassVar[str] = "character"
    """What one token is called."""
    characters: str = attrs.field()
    """The vocabulary in the order of its ids, which begin at 1: sorted, each character once."""

    @characters.validator
    def _check(self, attribute: Any, value: str) -> None:
        if not isinstance(value, str) or list(value) != sorted(set(value)) or UNKNOWN in value:
            raise DataError(f"got the characters {value!r:.80}; expected a sorted string of different ones, without U+FFFD")
        _code_points(value)

    @property
    def size(self) -> int:
        """Number of different tokens."""
        return len(self.characters) + 1

    @cached_property
    def _codes(self) -> Tensor:
        return _code_points(UNKNOWN + self.characters)

    @cached_property
    def _ids(self) -> Tensor:
        table = torch.full((int(self._codes.max()) + 2,), -1)  # the last one is for all characters beyond
        table[self._codes.long()] = torch.arange(self.size)
        return table

    def encode(self, text: str, *, unknown: bool = False) -> Tensor:
        """Turn text into ids.

        Parameters
        ----------
        text
            Any text.
        unknown
            Whether a character that the vocabulary lacks becomes 0; else it is an error.

        Returns
        -------
        int64 of shape (N,), one id for each character.

        Raises
        ------
        UnknownCharacters
            If the vocabulary lacks a character.
        DataError
            If the text has a lone surrogate.
        """
        ids_N = torch.empty(len(text), dtype=torch.int64)
        for start in range(0, len(text), _PIECE):  # in pieces: a whole text would take five times its memory again
            codes_N = _code_points(text[start : start + _PIECE], start)
            ids_N[start : start + _PIECE] = self._ids.index_select(0, codes_N.clamp(max=len(self._ids) - 1))
        if not unknown and bool((ids_N < 0).any()):
            raise UnknownCharacters(self.unknown(text))
        return ids_N.clamp_(min=0)

    def unknown(self, text: str) -> dict[str, int]:
        """Count the characters of a text that the vocabulary lacks."""
        known = set(self.characters) | {UNKNOWN}
        return {character: count for character, count in Counter(text).items() if character not in known}

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids.

        Raises
        ------
        DataError
            If an id is not in [0, size).
        """
        return self._codes.index_select(0, _checked(ids, self.size)).numpy().tobytes().decode(_UTF32)

    def stream(self) -> Stream:
        """Start the text of ids that come a few at a time."""
        return Stream(self.decode, lambda: "")

    def to_json(self) -> dict[str, Any]:
        """Return what `load_tokenizer` makes the same tokenizer of."""
        return {"kind": "characters", "characters": self.characters}


@attrs.frozen
class ByteTokenizer:
    """One id for each byte of the text's UTF-8: nothing is unknown, and a character takes one to four ids.

    Examples
    --------
    >>> ByteTokenizer().encode("né").tolist()
    [110, 195, 169]
    """

    unit: ClassVar[str] = "byte"
    """What one token is called."""

    @property
    def size(self) -> int:
        """Number of different tokens."""
        return 256

    def encode(self, text: str, *, unknown: bool = False) -> Tensor:
        """Turn text into ids.

        Parameters
        ----------
        text
            Any text.
        unknown
            As for `CharacterTokenizer.encode`; no byte is unknown, so that both values do the same.

        Returns
        -------
        int64 of shape (N,), one id for each byte of the UTF-8.

        Raises
        ------
        DataError
            If the text has a lone surrogate.
        """
        content = _bytes(text, "utf-8")
        return torch.frombuffer(bytearray(content), dtype=torch.uint8).long() if content else torch.zeros(0, dtype=torch.int64)

    def unknown(self, text: str) -> dict[str, int]:
        """Count the characters of a text that the vocabulary lacks: there are none."""
        return {}

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD.

        Raises
        ------
        DataError
            If an id is not in [0, 256).
        """
        return self._content(ids).decode("utf-8", errors="replace")

    def stream(self) -> Stream:
        """Start the text of ids that come a few at a time: a character appears with its last byte."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        return Stream(lambda ids: decoder.decode(self._content(ids)), lambda: decoder.decode(b"", final=True))

    def to_json(self) -> dict[str, Any]:
        """Return what `load_tokenizer` makes the same tokenizer of."""
        return {"kind": "bytes"}

    def _content(self, ids: Iterable[int]) -> bytes:
        return _checked(ids, self.size).to(torch.uint8).numpy().tobytes()


@attrs.frozen
class Characters:
    """One token for each character; the vocabulary is that of the training text."""

    def build(self, text: str) -> CharacterTokenizer:
        """Make the tokenizer of a training text."""
        return CharacterTokenizer("".join(sorted(set(text) - {UNKNOWN})))


@attrs.frozen
class Bytes:
    """One token for each byte of the UTF-8; the vocabulary is the 256 bytes."""

    def build(self, text: str) -> ByteTokenizer:
        """Make the tokenizer, which is the same one for every text."""
        return ByteTokenizer()


def load_tokenizer(stored: Mapping[str, Any]) -> CharacterTokenizer | ByteTokenizer:
    """Make the tokenizer of which `to_json` gave the description.

    Parameters
    ----------
    stored
        The description, as it was read from JSON.

    Returns
    -------
    The tokenizer.

    Raises
    ------
    DataError
        If it describes no tokenizer.
    """
    match stored:
        case {"kind": "characters", "characters": str(characters), **rest} if not rest:
            return CharacterTokenizer(characters)
        case {"kind": "bytes", **rest} if not rest:
            return ByteTokenizer()
    expected = 'expected {"kind": "bytes"} or {"kind": "characters", "characters": "..."}'
    raise DataError(f"got the tokenizer {stored!r:.80}; {expected}")
