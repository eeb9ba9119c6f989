"""Text as batches: a configuration, and the lazy source of batches that it opens.

The text is divided into training, validation and test before anything else happens: the vocabulary is that of the training
text, and no window reaches from one split into the next.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import attrs

from craft.cache import cache_directory
from craft.config import choice
from craft.data import index
from craft.data.batches import Packed, Stream, Windows
from craft.data.division import SPLITS, Division
from craft.data.errors import DataError
from craft.data.formats import Reading
from craft.data.meter import Meter
from craft.data.preparation import Settings, key, prepare
from craft.data.source import find
from craft.data.survey import remembered
from craft.data.tokenizer import named_tokenizer
from craft.step import Tokenizer
from craft.types import Batch

__all__ = ["Text", "TextData"]


def _known(instance: Any, attribute: Any, value: str) -> None:
    named_tokenizer(value)


def _division(instance: Any, attribute: Any, value: str) -> None:
    Division(split=instance.split, by=value)


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
    """`stdlib`, `python`, `shakespeare`, `hf:DATASET`, a file or folder, or what `craft data prepare` made (its --help says
    more)."""
    tokenizer: str = attrs.field(default="char", validator=_known)
    """What a token is: `char`, `byte`, `bpe:8192` (so many subwords, learned from the training text), or the path of a
    tokenizer.json or SentencePiece model; prepared data has its own."""
    split: str = "0.9,0.05,0.05"
    """Shares of the text for training, validation and test."""
    division: Literal["contiguous", "hash"] = attrs.field(default="contiguous", validator=_division)
    """How the text is divided: one stretch after the other, or each document by its hash."""
    packing: Literal["stream", "documents"] = choice("stream", "stream", "documents")
    """What a sample is: a stretch of the stream of all documents, or whole documents that do not see each other."""
    field: str = "text"
    """Field of JSON lines, or column of a table, that holds the text."""
    separator: str = ""
    """Line between two documents of a text file; none: a file is a document."""

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


class TextData:
    """Batches of a text: the training samples in a keyed order, and every split in its own order.

    The text is read when a batch, the fingerprint, or a tokenizer that was not given is first asked for; all the checks
    are made then. It is prepared once, as `craft data prepare` does, in the user's cache, by its content.

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
        return self._given or self.prepared.tokenizer

    @property
    def tokens(self) -> int:
        """Tokens in one batch."""
        return self.size * self.context

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the tokens are: the ids of each split, where documents end, and the tokenizer; in hex."""
        return self.prepared.fingerprint

    @property
    def order(self) -> tuple[Any, ...]:
        """What two sources share that give the same batches at every step."""
        return (self.fingerprint, self.config.packing, self.context, self.size, self.seed)

    def batch(self, step: int) -> Batch:
        """Return the training batch of a step, a pure function of (seed, step).

        Sample number n = step * batch + i is the same one whatever the size of the batch; `sample_B` holds n.

        Parameters
        ----------
        step
            Number of the step, from 0.

        Returns
        -------
        Samples of shape (batch, context).

        Raises
        ------
        DataError
            If `step` is negative, or the text cannot be read, is too short, or was changed.
        """
        if step < 0:
            raise DataError(f"got step={step}; expected 0 or more")
        return self._stream.batch(step * self.size, self.size)

    def epochs(self, steps: int) -> float:
        """Return how often so many steps go through the training text; of a mixture, its most frequent source."""
        return self._stream.epochs(steps * self.size)

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
            If there is no such split, it is empty, or the text cannot be read or is too short.
        """
        if name not in SPLITS:
            raise DataError(f"got the split {name!r}; expected {', '.join(SPLITS)}")
        return self._stream.cover(name, self.size)

    def bytes_per_token(self, name: str) -> float:
        """Return how many bytes of UTF-8 a token of a split stands for, in the mean."""
        return self.prepared.total(name, "bytes") / self.prepared.total(name, "tokens")

    def describe(self) -> dict[str, Any]:
        """Return what the text is: its name, files, documents, size, vocabulary, tokens of each split and fingerprints."""
        found, sources = self.prepared, self.prepared.index["sources"]
        by_split = {what: {name: found.total(name, what) for name in SPLITS} for what in ("tokens", "bytes", "unknown")}
        return {
            "name": found.index["name"],
            "files": sum(source["files"] for source in sources),
            "documents": sum(source["documents"] for source in sources),
            "characters": sum(source["characters"] for source in sources),
            "tokenizer": found.index["tokenizer"]["name"],
            "vocabulary": self.tokenizer.size,
            **by_split,
            "corpus": "+".join(source["corpus"] for source in sources),
            "fingerprint": self.fingerprint,
        }

    @cached_property
    def prepared(self) -> index.Prepared:
        """The tokens on the disk."""
        found = _find(self.config, self._given)
        self._check(found)
        return found

    @cached_property
    def _stream(self) -> Stream:
        kind = Packed if self.config.packing == "documents" else Windows
        return kind(self.prepared, self.context, self.seed)

    def _check(self, found: index.Prepared) -> None:
        name, sizes = found.index["name"], {split: found.total(split, "tokens") for split in SPLITS}
        sizes = {split: size for split, size in sizes.items() if size}
        least = min(sizes.values())
        if least >= self.context + 1 or self.config.packing == "documents":
            return
        shown = ", ".join(f"{size} for {split}" for split, size in sizes.items())
        remedy = f"the largest context that fits is {least - 1}" if least > 1 else "no context fits"
        raise DataError(
            f"{name} has {sum(sizes.values())} tokens ({shown}), but a context of {self.context} needs {self.context + 1} in "
            f"each; {remedy}: give a longer text, a smaller context or another split"
        )


def _find(config: Text, given: Tokenizer | None) -> index.Prepared:
    """Open what was prepared, or prepare it in the cache."""
    directory = os.path.expanduser(config.source)
    if any(os.path.isfile(os.path.join(directory, name)) for name in (index.INDEX, index.JOURNAL)):
        return _opened(config, Path(directory), given)
    settings = Settings(config.tokenizer, Division(config.split, config.division))
    source = find(config.source, Reading(config.field, config.separator))
    with Meter() as meter:
        looked = remembered(source, lambda size: meter(f"reading {source.name}", size, 0))
        places = cache_directory("data")
        place = places / key(settings, looked, None)
        if given is not None and not (_same(place, given)):
            place = places / key(settings, looked, given)
            return prepare([source], settings, place, tokenizer=given, surveys=[looked], progress=meter)
        return prepare([source], settings, place, surveys=[looked], progress=meter)


def _same(place: Path, given: Tokenizer) -> bool:
    """Tell whether what the cache holds was made by this tokenizer."""
    if not (place / index.INDEX).is_file():
        return False
    return bool(index.open_prepared(place).tokenizer.to_json() == given.to_json())


def _opened(config: Text, directory: Path, given: Tokenizer | None) -> index.Prepared:
    found = index.open_prepared(directory)
    plain = Text()
    # not the tokenizer, of which every experiment has its own: what prepared the data is what counts, and is recorded
    asked = {name: getattr(config, name) for name in ("split", "division", "field", "separator")}
    without = {name: value for name, value in asked.items() if value != getattr(plain, name)}
    if without:
        shown = ", ".join(f"{name} {value!r}" for name, value in without.items())
        raise DataError(f"got {shown} for {directory}, which is prepared already; leave it out, or prepare the data anew")
    if given is not None and given.to_json() != found.tokenizer.to_json():
        raise DataError(
            f"the tokens in {directory} were made by another tokenizer ({found.tokenizer.size} tokens) than the model's "
            f"({given.size}); prepare the data with the run's tokenizer: --tokenizer RUN/tokenizer.json"
        )
    return found
