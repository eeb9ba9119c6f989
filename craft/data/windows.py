"""Which window of a split each sample takes: functions of (seed, sample number), without a stored shuffle.

A split of N tokens has `count` windows an epoch; the windows lie side by side from an offset that is drawn anew for each
epoch, and come in an order that is drawn anew too. So each window comes once an epoch, and every token in some epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch

from craft import rng
from craft.data.shards import Tokens
from craft.types import Tensor

__all__ = ["Order", "Starts", "count", "covering", "permuted", "root", "shuffled", "take", "take_padded"]

Starts = Callable[[int, int], Tensor]
"""(first sample, number of samples) -> where their windows begin, int64 of shape (number,)."""
Order = Callable[[Tensor], Tensor]
"""Numbers of samples -> their rows, int64."""

_TAG = int.from_bytes(b"windows")  # keeps these keys apart from those of the steps, which fold in small numbers
_PLACES = 16384
"""Places that are permuted at once: the permutation of one index takes as long as that of a thousand."""


def count(size: int, context: int) -> int:
    """Return how many windows an epoch has."""
    return max(1, (size - context) // context)


def shuffled(size: int, *, context: int, seed: int, source: int = 0) -> Starts:
    """Make the order of the training windows.

    Parameters
    ----------
    size
        Tokens of the split, at least `context` + 1.
    context
        Inputs of a window, in tokens; the targets lie one token further.
    seed
        Seed of the order.
    source
        Number of the source in a mixture: each has an order of its own.

    Returns
    -------
    (first sample, number of samples) -> where their windows begin, int64 of shape (number,); a pure function.
    """
    windows = count(size, context)
    slack = size - 1 - windows * context
    root_2 = root(seed, source)

    @lru_cache(maxsize=4)  # a sequence of steps asks for each block once; pure all the same
    def block(epoch: int, index: int) -> Tensor:
        key_2 = rng.fold_in(root_2, epoch)
        offset = rng.integers(rng.fold_in(key_2, 0), slack + 1)
        place_N = torch.arange(index * _PLACES, min((index + 1) * _PLACES, windows))
        return offset + context * rng.permute(rng.fold_in(key_2, 1), place_N, windows)

    def starts(first: int, number: int) -> Tensor:
        pieces, end = [], first + number
        while first < end:
            epoch, place = divmod(first, windows)
            index, skipped = divmod(place, _PLACES)
            pieces.append(block(epoch, index)[skipped : skipped + end - first])
            first += len(pieces[-1])
        return torch.cat(pieces)

    return starts


def root(seed: int, source: int) -> Tensor:
    """Return the key of a source's order."""
    key_2 = rng.fold_in(rng.key(seed), _TAG)
    return rng.fold_in(key_2, -source) if source else key_2  # the numbers of epochs are not negative


def permuted(rows: int, *, seed: int, source: int = 0) -> Order:
    """Make the order of rows: the number of a sample -> its row; each row once an epoch, anew in each."""
    root_2 = root(seed, source)

    def order(number_B: Tensor) -> Tensor:
        epoch_B, place_B = number_B // rows, number_B % rows
        row_B = torch.empty_like(place_B)
        for epoch in sorted(set(epoch_B.tolist())):
            own_B = epoch_B == epoch
            row_B[own_B] = rng.permute(rng.fold_in(root_2, epoch), place_B[own_B], rows)
        return row_B

    return order


def covering(size: int, context: int) -> int:
    """Return how many windows side by side cover a split's targets; the last one may reach beyond its end."""
    return -(-(size - 1) // context)


def take(tokens: Tokens, start_B: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Cut windows out of a split.

    Parameters
    ----------
    tokens
        Token ids of the split.
    start_B
        Where the windows begin, int64.
    context
        Inputs of a window, in tokens; the targets lie one token further.

    Returns
    -------
    Inputs and targets, int64 of shape (B, context).
    """
    ids_BN = torch.from_numpy(tokens.rows(start_B.tolist(), context + 1))
    return ids_BN[:, :-1].contiguous(), ids_BN[:, 1:].contiguous()


def take_padded(tokens: Tokens, start_B: Tensor, context: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cut windows that may reach beyond the end of a split.

    Parameters
    ----------
    tokens, start_B, context
        As for `take`.

    Returns
    -------
    Inputs and targets as `take` gives them, with the split's last id beyond its end, and weights, float32 of shape
    (B, context): 0 for the targets beyond the end, else 1.
    """
    place_BT = start_B[:, None] + torch.arange(1, context + 1)
    return *take(tokens, start_B, context), (place_BT < len(tokens)).float()
