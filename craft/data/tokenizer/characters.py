"""One id for each character of the training text.

The vocabulary is shipped with the model as JSON, and nothing that it lacks is ever dropped: unknown characters are an error,
or the id 0 where that is asked for.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, ClassVar

import attrs
import torch

from craft.data.errors import DataError
from craft.data.tokenizer.ids import UNKNOWN, UTF32, Stream, checked, code_points
from craft.types import Tensor

__all__ = ["CharacterTokenizer", "Characters", "UnknownCharacters"]

_PIECE = 1 << 20
_SHOWN = 20


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
        expected = "expected only those of the text that the tokenizer was made of; remove or replace them"
        super().__init__(f"got characters that the vocabulary lacks: {shown}{more}; {expected}")


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
    end: ClassVar[int | None] = None
    """Id that ends a document: there is none, a line's end does it."""
    exact: ClassVar[bool] = True
    """Whether text that is encoded without an error always comes back as it was."""
    characters: str = attrs.field()
    """The vocabulary in the order of its ids, which begin at 1: sorted, each character once."""

    @characters.validator
    def _check(self, attribute: Any, value: str) -> None:
        if not isinstance(value, str) or list(value) != sorted(set(value)) or UNKNOWN in value:
            raise DataError(f"got the characters {value!r:.80}; expected a sorted string of different ones, without U+FFFD")
        code_points(value)

    @property
    def size(self) -> int:
        """Number of different tokens."""
        return len(self.characters) + 1

    @cached_property
    def _codes(self) -> Tensor:
        return code_points(UNKNOWN + self.characters)

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
            codes_N = code_points(text[start : start + _PIECE], start)
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
        return self._codes.index_select(0, checked(ids, self.size)).numpy().tobytes().decode(UTF32)

    def stream(self) -> Stream:
        """Start the text of ids that come a few at a time."""
        return Stream(self.decode, lambda: "")

    def to_json(self) -> dict[str, Any]:
        """Return what `load_tokenizer` makes the same tokenizer of."""
        return {"kind": "characters", "characters": self.characters}


@attrs.frozen
class Characters:
    """One token for each character; the vocabulary is that of the training text."""

    def build(self, texts: Iterable[str]) -> CharacterTokenizer:
        """Make the tokenizer of a training text, or of its pieces."""
        seen = torch.zeros(sys.maxunicode + 1, dtype=torch.bool)  # ten times as fast as a set of characters
        for text in texts:
            seen[code_points(text).long()] = True
        seen[ord(UNKNOWN)] = False
        return CharacterTokenizer("".join(map(chr, seen.nonzero()[:, 0].tolist())))
