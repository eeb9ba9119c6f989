"""Subwords: byte-pair encoding trained here, or the `tokenizer.json` of others. Sennrich et al. 2016, arXiv:1508.07909.

The vocabulary trained here is over bytes, as GPT-2's is: all 256 are in it, so that any text can be written and comes back.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from typing import Any, ClassVar

import attrs
import torch

from craft.data.errors import DataError
from craft.data.tokenizer.ids import Stream, checked, encoded
from craft.types import Tensor

__all__ = ["BPE", "END", "SubwordTokenizer"]

END = "<|endoftext|>"
"""The token that ends a document in vocabularies trained here."""
_ENDS = (END, "<|end_of_text|>", "</s>", "<eos>", "[SEP]", "<|im_end|>")
"""What published vocabularies call that token; the first that is there is taken."""
_BYTES = 256


@attrs.frozen
class SubwordTokenizer:
    """The tokenizer that a `tokenizer.json` of the library `tokenizers` describes.

    What such a file adds around a text (a first or last token) is left out: ids are those of the text alone. A special token
    that is spelt out in a text is text.

    Examples
    --------
    >>> tokenizer = BPE(262).build(["the cat sat on the mat"] * 9)
    >>> tokenizer.decode(tokenizer.encode("the hat"))
    'the hat'
    """

    unit: ClassVar[str] = "token"
    """What one token is called."""
    description: str = attrs.field(repr=False)
    """The file's content: JSON."""

    @cached_property
    def _model(self) -> Any:
        from tokenizers import Tokenizer

        try:
            model = Tokenizer.from_str(self.description)
        except Exception as error:  # the library raises bare exceptions
            raise DataError(
                f"got a tokenizer.json that cannot be read ({error}); give one of the library tokenizers"
            ) from error
        model.encode_special_tokens = True
        model.no_truncation()
        model.no_padding()
        return model

    @property
    def size(self) -> int:
        """Number of different tokens."""
        return 1 + int(max(self._model.get_vocab(with_added_tokens=True).values()))

    @cached_property
    def end(self) -> int | None:
        """Id of the token that ends a document; None where the vocabulary has no such token."""
        found = (self._model.token_to_id(name) for name in _ENDS)
        return next((token for token in found if token is not None), None)

    @property
    def exact(self) -> bool:
        """Whether every text comes back as it was: not known before it was tried."""
        return False

    def encode(self, text: str, *, unknown: bool = False) -> Tensor:
        """Turn text into ids.

        Parameters
        ----------
        text
            Any text.
        unknown
            As for `CharacterTokenizer.encode`; what the vocabulary lacks becomes its own unknown token, if it has one.

        Returns
        -------
        int64 of shape (N,).

        Raises
        ------
        DataError
            If the text has a lone surrogate.
        """
        encoded(text, "utf-8")
        # the call for many texts lets other threads run, and leaves out the offsets: three times as fast
        (found,) = self._model.encode_batch_fast([text], add_special_tokens=False)
        return torch.tensor(found.ids, dtype=torch.int64)

    def unknown(self, text: str) -> dict[str, int]:
        """Count the characters of a text that the vocabulary lacks: a lossy vocabulary is found by its round trip instead."""
        return {}

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids; bytes that are not UTF-8 become U+FFFD.

        Raises
        ------
        DataError
            If an id is not in [0, size).
        """
        return str(self._model.decode(checked(ids, self.size).tolist(), skip_special_tokens=False))

    def stream(self) -> Stream:
        """Start the text of ids that come a few at a time."""
        kept: list[int] = []  # the last id that was shown, for what a decoder makes of the beginning, and what came after
        shown = [""]  # the text of that id

        def push(ids: Iterable[int]) -> str:
            kept.extend(int(i) for i in ids)
            text = self.decode(kept)
            return "" if text.endswith("\ufffd") else show(text)  # half a character, or U+FFFD itself: wait for what follows

        def show(text: str) -> str:
            new = text[len(shown[0]) :]
            del kept[:-1]
            shown[0] = self.decode(kept)
            return new

        def finish() -> str:
            return show(self.decode(kept))

        return Stream(push, finish)

    def to_json(self) -> dict[str, Any]:
        """Return what `load_tokenizer` makes the same tokenizer of: the tokenizer.json itself, which other tools read too."""
        return dict(json.loads(self.description))


@attrs.frozen
class BPE:
    """Byte-pair encoding that is trained on the training text."""

    vocabulary: int = attrs.field(default=8192)
    """Number of different tokens, with the 256 bytes and the token that ends a document."""

    @vocabulary.validator
    def _check(self, attribute: Any, value: int) -> None:
        if value < _BYTES + 1:
            raise DataError(
                f"got a vocabulary of {value} tokens; byte-pair encoding needs {_BYTES + 1} for the bytes and an end"
            )

    def build(self, texts: Iterable[str]) -> SubwordTokenizer:
        """Train on the pieces of a text; the same pieces give the same vocabulary.

        Raises
        ------
        DataError
            If the text is too small for so many tokens.
        """
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        model = Tokenizer(models.BPE())
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocabulary,
            special_tokens=[END],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        model.train_from_iterator(texts, trainer)
        found = model.get_vocab_size()
        if found < self.vocabulary:
            raise DataError(
                f"got a vocabulary of {self.vocabulary} tokens, but the training text has {found} at most: take bpe:{found}"
            )
        return SubwordTokenizer(model.to_str())
