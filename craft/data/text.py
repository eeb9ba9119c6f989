"""Text as batches: a configuration, and the lazy source of batches that it opens.

The text is cut into three pieces, training, validation and test, before anything else happens: the vocabulary is that of
the training piece, and no window reaches from one piece into the next.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import attrs
import torch

from craft.data import source, windows
from craft.data.errors import DataError
from craft.data.tokenizer import Bytes, Characters, CharacterTokenizer
from craft.step import Tokenizer
from craft.types import Batch, Tensor

__all__ = ["Text", "TextData"]

_STORAGE = (torch.uint8, torch.int16, torch.int32)


def _fraction(instance: Any, attribute: Any, value: float) -> None:
    if not 0 < value < 0.5:
        raise DataError(f"got {attribute.name}={value}; expected a fraction above 0 and below 0.5")


@attrs.frozen
class Text:
    """A text and how it becomes tokens.

    Examples
    --------
    >>> data = Text(source="stdlib").open(context=64, batch=4, seed=0)
    >>> data.batch(0).inputs_BT.shape
    torch.Size([4, 64])
    """

    source: str = "stdlib"
    """`stdlib` (the source code of Python's standard library), `shakespeare` (downloaded once), or a text file or folder."""
    tokenizer: Characters | Bytes = attrs.field(factory=Characters)
    """What a token is: a character of the training text, or a byte."""
    holdout: float = attrs.field(default=0.05, validator=_fraction)
    """Fraction of the text that is kept for validation, and again for the test; the training text is what comes before."""

    def open(self, *, context: int, batch: int, seed: int, tokenizer: Tokenizer | None = None) -> TextData:
        """Make the source of batches; the text is not read yet.

        Parameters
        ----------
        context
            Inputs of one sample, in tokens.
        batch
            Samples of one batch.
        seed
            Seed of the order of the samples.
        tokenizer
            The tokenizer of a stored run, to be used in place of one made of the training text.

        Returns
        -------
        The source.

        Raises
        ------
        DataError
            If `context` or `batch` is not positive.
        """
        return TextData(self, context, batch, seed, tokenizer)


@attrs.frozen
class _Loaded:
    name: str
    files: int
    corpus: str
    tokenizer: Tokenizer
    splits: dict[str, Tensor]
    characters: dict[str, int]
    unknown: dict[str, int]


class TextData:
    """Batches of a text: the training windows in a keyed order, and every split in its own order.

    The text is read when a batch, the fingerprint, or a tokenizer that was not given is first asked for; all the checks
    are made then.

    Parameters
    ----------
    config
        The text.
    context, batch, seed, tokenizer
        As for `Text.open`.
    """

    def __init__(self, config: Text, context: int, batch: int, seed: int, tokenizer: Tokenizer | None = None) -> None:
        for name, value in (("context", context), ("batch", batch)):
            if value < 1:
                raise DataError(f"got {name}={value}; expected at least 1")
        self.config, self.context, self.size, self.seed = config, context, batch, seed
        self._given = tokenizer

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer: the given one, else that of the training text."""
        return self._given or self._loaded.tokenizer

    @property
    def tokens(self) -> int:
        """Tokens in one batch."""
        return self.size * self.context

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the tokens are: the text, where it is split, and the tokenizer; in hex."""
        loaded = self._loaded
        content = [loaded.corpus, loaded.characters, loaded.tokenizer.to_json()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def batch(self, step: int) -> Batch:
        """Return the training batch of a step, a pure function of (seed, step).

        Sample number n = step * batch + i is the same one whatever the size of the batch; `sample_B` holds n.

        Parameters
        ----------
        step
            Number of the step, from 0.

        Returns
        -------
        Samples of shape (batch, context), each with weight 1.

        Raises
        ------
        DataError
            If `step` is negative, or the text cannot be read or is too short.
        """
        if step < 0:
            raise DataError(f"got step={step}; expected 0 or more")
        first = step * self.size
        start_B = self._starts(first, self.size)
        inputs_BT, targets_BT = windows.take(self._loaded.splits["train"], start_B, self.context)
        number_B = torch.arange(first, first + self.size)
        return Batch(inputs_BT, targets_BT, torch.ones(self.size, self.context), number_B)

    def split(self, name: str) -> Iterator[Batch]:
        """Return the batches that cover a split: each of its tokens but the first is a target once, in order.

        Parameters
        ----------
        name
            `train`, `validation` or `test`.

        Returns
        -------
        Samples of shape (batch, context) each time; at the end, what is beyond the split has weight 0.

        Raises
        ------
        DataError
            If there is no such split, or the text cannot be read or is too short.
        """
        splits = self._loaded.splits
        if name not in splits:
            raise DataError(f"got the split {name!r}; expected {', '.join(splits)}")
        return self._covering(splits[name])

    def describe(self) -> dict[str, Any]:
        """Return what the text is: its name, files, characters, vocabulary, tokens of each split and fingerprints."""
        loaded = self._loaded
        return {
            "name": loaded.name,
            "files": loaded.files,
            "characters": sum(loaded.characters.values()),
            "vocabulary": loaded.tokenizer.size,
            "tokens": {name: len(tokens_N) for name, tokens_N in loaded.splits.items()},
            "unknown": loaded.unknown,
            "corpus": loaded.corpus,
            "fingerprint": self.fingerprint,
        }

    def _covering(self, tokens_N: Tensor) -> Iterator[Batch]:
        for first in range(0, windows.covering(len(tokens_N), self.context), self.size):
            number_B = torch.arange(first, first + self.size)
            yield Batch(*windows.take_padded(tokens_N, number_B * self.context, self.context), number_B)

    @cached_property
    def _starts(self) -> Callable[[int, int], Tensor]:
        found = windows.count(len(self._loaded.splits["train"]), self.context)
        if self.size > found:
            raise DataError(
                f"got a batch of {self.size} samples, but {self._loaded.name} has {found} of {self.context} tokens to train "
                f"on; give a batch of at most {found}, or a longer text"
            )
        return windows.shuffled(len(self._loaded.splits["train"]), context=self.context, seed=self.seed)

    @cached_property
    def _loaded(self) -> _Loaded:
        corpus = source.read(self.config.source)
        texts = _divide(corpus.text, self.config.holdout)
        tokenizer = self._given or self.config.tokenizer.build(texts["train"])
        splits = {name: _encode(tokenizer, text, held_out=name != "train") for name, text in texts.items()}
        _check_sizes(corpus.name, {name: len(tokens_N) for name, tokens_N in splits.items()}, self.context)
        characters = {name: len(text) for name, text in texts.items()}
        unknown = {name: _unknown(tokenizer, texts[name]) for name in ("validation", "test")}
        return _Loaded(corpus.name, corpus.files, corpus.fingerprint, tokenizer, splits, characters, unknown)


def _divide(text: str, holdout: float) -> dict[str, str]:
    held = round(len(text) * holdout)
    first, second = len(text) - 2 * held, len(text) - held
    return {"train": text[:first], "validation": text[first:second], "test": text[second:]}


def _encode(tokenizer: Tokenizer, text: str, *, held_out: bool) -> Tensor:
    if held_out and isinstance(tokenizer, CharacterTokenizer):  # what is unknown there is counted by `describe`
        return _compact(tokenizer.encode(text, unknown=True), tokenizer.size)
    return _compact(tokenizer.encode(text), tokenizer.size)


def _compact(ids_N: Tensor, size: int) -> Tensor:
    """Store ids in the smallest type that holds them all."""
    fitting = [dtype for dtype in _STORAGE if size - 1 <= torch.iinfo(dtype).max]
    if not fitting:
        raise DataError(f"got a vocabulary of {size} tokens; expected at most {torch.iinfo(_STORAGE[-1]).max + 1}")
    wrong = (ids_N < 0) | (ids_N >= size)
    if wrong.any():
        place = int(wrong.nonzero()[0, 0])
        raise DataError(
            f"the tokenizer gave id {int(ids_N[place])} at token {place}; expected 0 to {size - 1}, as its size says"
        )
    return ids_N.to(fitting[0])


def _unknown(tokenizer: Tokenizer, text: str) -> int:
    return sum(tokenizer.unknown(text).values()) if isinstance(tokenizer, CharacterTokenizer) else 0


def _check_sizes(name: str, sizes: dict[str, int], context: int) -> None:
    least = min(sizes.values())
    if least >= context + 1:
        return
    found = ", ".join(f"{size} for {split}" for split, size in sizes.items())
    remedy = f"the largest context that fits is {least - 1}" if least > 1 else "no context fits"
    raise DataError(
        f"{name} has {sum(sizes.values())} tokens ({found}), but a context of {context} needs {context + 1} in each; "
        f"{remedy}: give a longer text, a smaller context or another holdout"
    )
