"""One id for each byte of the text's UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any, ClassVar

import attrs
import torch

from craft.data.tokenizer.ids import Stream, checked, encoded
from craft.types import Tensor

__all__ = ["ByteTokenizer", "Bytes"]


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
    end: ClassVar[int | None] = None
    """Id that ends a document: there is none, a line's end does it."""
    exact: ClassVar[bool] = True
    """Whether text that is encoded without an error always comes back as it was."""

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
        content = encoded(text, "utf-8")
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
        return checked(ids, self.size).to(torch.uint8).numpy().tobytes()


@attrs.frozen
class Bytes:
    """One token for each byte of the UTF-8; the vocabulary is the 256 bytes."""

    def build(self, texts: Iterable[str]) -> ByteTokenizer:
        """Make the tokenizer, which is the same one for every text."""
        return ByteTokenizer()
