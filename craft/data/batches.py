"""Prepared tokens as samples: windows of the stream, or rows of whole documents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from typing import Protocol

import torch

from craft import tree
from craft.data import windows
from craft.data.errors import DataError
from craft.data.index import Prepared
from craft.data.mixture import Mixture
from craft.data.packing import Rows
from craft.data.shards import Tokens
from craft.types import Batch

__all__ = ["Packed", "Stream", "Windows"]

_EVERY = 64
"""Batches between two looks whether a shard was changed."""


class Stream(Protocol):
    """Samples by their number, and the splits in order."""

    def batch(self, first: int, number: int) -> Batch:
        """Return training samples from a number on."""
        ...

    def cover(self, name: str, size: int) -> Iterator[Batch]:
        """Return the batches that cover a split."""
        ...

    def epochs(self, samples: int) -> float:
        """Return how often so many samples go through the training text."""
        ...


class _Sources(ABC):
    """What both have in common: several sources, and files that must not change."""

    def __init__(self, prepared: Prepared, context: int, seed: int) -> None:
        self.prepared, self.context, self.seed = prepared, context, seed
        self.mixture = Mixture(prepared.weights, seed)
        self._batches = 0

    @property
    def train(self) -> list[Tokens]:
        """Training tokens by source."""
        return self.prepared.tokens["train"]

    @abstractmethod
    def counts(self) -> list[int]:
        """Return the samples of an epoch, by source."""

    @abstractmethod
    def _covering(self, sources: list[Tokens], size: int) -> Iterator[Batch]:
        """Yield the batches that cover the tokens of all sources, one after the other."""

    def cover(self, name: str, size: int) -> Iterator[Batch]:
        """Return the batches that cover a split."""
        return self._covering(self._split(name), size)

    def epochs(self, samples: int) -> float:
        """Return how often so many samples go through the source that comes most often."""
        return max(self.mixture.samples(source, samples) / count for source, count in enumerate(self.counts()))

    def _refuse_short(self, size: int) -> None:
        found = sum(self.counts())
        if min(self.counts()) < 1:
            raise DataError(f"a source of {self.prepared.index['name']} has no sample of {self.context} tokens; give more text")
        if size > found:
            raise DataError(
                f"got a batch of {size} samples, but {self.prepared.index['name']} has {found} of {self.context} tokens to "
                f"train on; give a batch of at most {found}, or a longer text"
            )

    def _look(self, size: int) -> None:
        if self._batches == 0:
            self._refuse_short(size)
        if self._batches % _EVERY == 0:
            for tokens in self.train:
                tokens.check()
        self._batches += 1

    def _split(self, name: str) -> list[Tokens]:
        found = [tokens for tokens in self.prepared.tokens[name] if len(tokens) > 1]
        if not found:
            raise DataError(f"the {name} split of {self.prepared.index['name']} is empty; prepare the data with another split")
        for tokens in found:
            tokens.check()
        return found


class Windows(_Sources):
    """Windows of `context` inputs that lie side by side in the stream of all documents."""

    def counts(self) -> list[int]:
        """Return the samples of an epoch, by source."""
        return [windows.count(len(tokens), self.context) if len(tokens) > self.context else 0 for tokens in self.train]

    @cached_property
    def _starts(self) -> list[windows.Starts]:
        sizes = [len(tokens) for tokens in self.train]
        return [windows.shuffled(n, context=self.context, seed=self.seed, source=i) for i, n in enumerate(sizes)]

    def batch(self, first: int, number: int) -> Batch:
        """Return training samples from a number on."""
        self._look(number)
        sample_B = torch.arange(first, first + number)
        if len(self.train) == 1:
            inputs_BT, targets_BT = windows.take(self.train[0], self._starts[0](first, number), self.context)
            return Batch(inputs_BT, targets_BT, torch.ones(number, self.context), sample_B)
        inputs_BT, targets_BT = (torch.empty(number, self.context, dtype=torch.int64) for _ in range(2))
        source_B, number_B = self.mixture.draw(first, number)
        for place, (source, own) in enumerate(zip(source_B.tolist(), number_B.tolist(), strict=True)):
            start_1 = self._starts[source](own, 1)
            inputs_BT[place], targets_BT[place] = (x[0] for x in windows.take(self.train[source], start_1, self.context))
        return Batch(inputs_BT, targets_BT, torch.ones(number, self.context), sample_B)

    def _covering(self, sources: list[Tokens], size: int) -> Iterator[Batch]:
        for tokens in sources:
            for first in range(0, windows.covering(len(tokens), self.context), size):
                number_B = torch.arange(first, first + size)
                yield Batch(*windows.take_padded(tokens, number_B * self.context, self.context), number_B)


class Packed(_Sources):
    """Rows of whole documents that do not see each other."""

    @cached_property
    def _rows(self) -> list[Rows]:
        return [Rows(tokens, self.context) for tokens in self.train]

    @cached_property
    def _order(self) -> list[windows.Order]:
        return [windows.permuted(len(rows), seed=self.seed, source=i) for i, rows in enumerate(self._rows)]

    def counts(self) -> list[int]:
        """Return the samples of an epoch, by source."""
        return [len(rows) for rows in self._rows]

    def batch(self, first: int, number: int) -> Batch:
        """Return training samples from a number on."""
        self._look(number)
        source_B, number_B = self.mixture.draw(first, number)
        sample_B = torch.arange(first, first + number)
        parts, places = [], []
        for source, rows in enumerate(self._rows):
            place_N = (source_B == source).nonzero()[:, 0]
            row_N = self._order[source](number_B[place_N])
            parts.append(rows.take(row_N.tolist(), sample_B[place_N]))
            places.append(place_N)
        back_B = torch.cat(places).argsort()
        return parts[0] if len(parts) == 1 else tree.map(lambda *each: torch.cat(each)[back_B], *parts)

    def _covering(self, sources: list[Tokens], size: int) -> Iterator[Batch]:
        for tokens in sources:
            rows = Rows(tokens, self.context)
            for first in range(0, len(rows), size):
                number_B = torch.arange(first, first + size)
                yield rows.take(number_B.tolist(), number_B)
