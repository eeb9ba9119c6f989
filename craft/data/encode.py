"""Text to token ids over all cores, in an order that does not depend on them."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from craft.data import part
from craft.data.errors import DataError
from craft.data.part import Part
from craft.data.tokenizer import CharacterTokenizer
from craft.step import Tokenizer

__all__ = ["Block", "Encoded", "blocks", "encode", "in_order"]


class Block(NamedTuple):
    """Parts of one split that are encoded together; `number` counts the blocks of the split."""

    split: int
    number: int
    parts: list[Part]


class Encoded(NamedTuple):
    """Ids of a block, where documents end in them, and what is counted."""

    ids_N: NDArray[Any]
    ends: list[int]
    counts: dict[str, int]


def blocks(parts: Iterable[tuple[int, Part]], splits: int) -> Iterator[Block]:
    """Gather the parts of each split to blocks of about a million characters."""
    waiting: list[list[Part]] = [[] for _ in range(splits)]
    sizes, numbers = [0] * splits, [0] * splits
    for split, one in parts:
        waiting[split].append(one)
        sizes[split] += len(one.text) + 1
        if sizes[split] >= part.LIMIT:
            yield Block(split, numbers[split], waiting[split])
            waiting[split], sizes[split], numbers[split] = [], 0, numbers[split] + 1
    for split, rest in enumerate(waiting):
        if rest:
            yield Block(split, numbers[split], rest)


def encode(tokenizer: Tokenizer, parts: list[Part], dtype: np.dtype[Any], *, held_out: bool, lossy: bool) -> Encoded:
    """Encode parts one by one; each document that ends gets the tokenizer's end token, where it has one.

    Parameters
    ----------
    tokenizer, parts, dtype
        What is encoded, and the type of the ids.
    held_out
        Whether characters that a vocabulary of characters lacks are counted, instead of an error.
    lossy
        Whether text that does not come back as it was is counted, instead of an error.

    Raises
    ------
    DataError
        If an id does not fit the vocabulary, or a text does not come back.
    """
    pieces, ends, at = [], [], 0
    counts = dict.fromkeys(("bytes", "characters", "unknown", "lossy"), 0)
    end, exact = tokenizer.end, getattr(tokenizer, "exact", False)
    for one in parts:
        ids_N = _ids(tokenizer, one.text, held_out)
        if held_out and isinstance(tokenizer, CharacterTokenizer) and bool((ids_N == 0).any()):
            counts["unknown"] += sum(tokenizer.unknown(one.text).values())
        if not exact:
            counts["lossy"] += _lossy(tokenizer, one.text, ids_N, lossy)
        if one.ends and end is not None:
            ids_N = np.append(ids_N, end)
        at += len(ids_N)
        pieces.append(_fit(ids_N, tokenizer.size, dtype))
        ends += [at] if one.ends else []
        counts["bytes"] += len(one.text.encode()) - one.added
        counts["characters"] += len(one.text) - one.added
    return Encoded(np.concatenate([np.zeros(0, dtype), *pieces]), ends, counts)


def _ids(tokenizer: Tokenizer, text: str, held_out: bool) -> NDArray[np.int64]:
    if isinstance(tokenizer, CharacterTokenizer):
        return np.asarray(tokenizer.encode(text, unknown=held_out).numpy())
    return np.asarray(tokenizer.encode(text).numpy())


def _lossy(tokenizer: Tokenizer, text: str, ids_N: NDArray[np.int64], allowed: bool) -> int:
    back = tokenizer.decode(ids_N.tolist())
    if back == text:
        return 0
    if not allowed:
        at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), min(len(text), len(back)))
        shown = slice(max(0, at - 10), at + 20)
        raise DataError(
            f"the tokenizer is lossy: {text[shown]!r} comes back as {back[shown]!r}; take another tokenizer, "
            "or allow it with --allow-lossy"
        )
    return 1


def _fit(ids_N: NDArray[np.int64], size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    wrong = (ids_N < 0) | (ids_N >= size)
    if wrong.any():
        place = int(wrong.nonzero()[0][0])
        raise DataError(
            f"the tokenizer gave id {int(ids_N[place])} at token {place}; expected 0 to {size - 1}, as its size says"
        )
    return ids_N.astype(dtype)


def in_order(work: Iterable[Callable[[], Any]], threads: int = 0) -> Iterator[Any]:
    """Do work on all cores, a few pieces ahead, and yield the results in the order of the work."""
    threads = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[Any]] = deque()
        try:
            for one in work:
                running.append(pool.submit(one))
                if len(running) > 2 * threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for left in running:
                left.cancel()
