"""SentencePiece models, as Llama 2 and T5 ship them. Kudo and Richardson 2018, arXiv:1808.06226."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from functools import cached_property
from typing import Any, ClassVar

import attrs
import torch

from craft.data.errors import DataError
from craft.data.tokenizer.ids import Stream, checked, encoded
from craft.types import Tensor

__all__ = ["SentencePieceTokenizer"]


@attrs.frozen
class SentencePieceTokenizer:
    """The tokenizer of a SentencePiece model; needs the extra `data`."""

    unit: ClassVar[str] = "token"
    """What one token is called."""
    exact: ClassVar[bool] = False
    """Whether every text comes back as it was: most models change spaces or normalise."""
    content: bytes = attrs.field(repr=False)
    """The model's file."""

    @cached_property
    def _model(self) -> Any:
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise DataError("SentencePiece models need the package sentencepiece: pip install 'craft[data]'") from error
        try:
            return SentencePieceProcessor(model_proto=self.content)
        except RuntimeError as error:
            raise DataError(f"got a SentencePiece model that cannot be read ({error}); give another file") from error

    @property
    def size(self) -> int:
        """Number of different tokens."""
        return int(self._model.get_piece_size())

    @property
    def end(self) -> int | None:
        """Id of the token that ends a document; None where the model has none."""
        token = int(self._model.eos_id())
        return token if token >= 0 else None

    def encode(self, text: str, *, unknown: bool = False) -> Tensor:
        """Turn text into ids, int64 of shape (N,); what the model lacks becomes its own unknown token."""
        encoded(text, "utf-8")
        return torch.tensor(self._model.encode(text), dtype=torch.int64)

    def unknown(self, text: str) -> dict[str, int]:
        """Count the characters of a text that the vocabulary lacks: a lossy model is found by its round trip instead."""
        return {}

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids.

        Raises
        ------
        DataError
            If an id is not in [0, size).
        """
        return str(self._model.decode(checked(ids, self.size).tolist()))

    def stream(self) -> Stream:
        """Start the text of ids that come a few at a time; spaces depend on what came before, so that all is kept."""
        kept: list[int] = []
        shown = [0]

        def push(ids: Iterable[int]) -> str:
            kept.extend(int(i) for i in ids)
            text = self.decode(kept)
            return "" if text.endswith("\ufffd") else show(text)

        def show(text: str) -> str:
            new = text[shown[0] :]
            shown[0] = len(text)
            return new

        return Stream(push, lambda: show(self.decode(kept)))

    def to_json(self) -> dict[str, Any]:
        """Return what `load_tokenizer` makes the same tokenizer of."""
        return {"kind": "sentencepiece", "model": base64.b64encode(self.content).decode()}
