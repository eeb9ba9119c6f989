"""Which source each sample comes from: a function of (seed, sample number), with exact shares."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch

from craft import rng
from craft.types import Tensor

__all__ = ["BLOCK", "Mixture"]

BLOCK = 4096
"""Samples in which every source has its share, rounded to a sample."""
_TAG = int.from_bytes(b"mixture")


class Mixture:
    """The sources of all samples.

    Parameters
    ----------
    weights
        Share of each source; they add up to 1.
    seed
        Seed of the order.

    Examples
    --------
    >>> source_B, number_B = Mixture([0.75, 0.25], seed=0).draw(0, BLOCK)
    >>> source_B.bincount().tolist(), number_B.max().item()
    ([3072, 1024], 3071)
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        self._quota = _quotas(weights)
        self._bounds = torch.tensor([0, *self._quota]).cumsum(0)
        root_2 = rng.fold_in(rng.key(seed), _TAG)

        @lru_cache(maxsize=4)
        def block(index: int) -> Tensor:
            return rng.permute(rng.fold_in(root_2, index), torch.arange(BLOCK), BLOCK)

        self._block = block

    def draw(self, first: int, number: int) -> tuple[Tensor, Tensor]:
        """Return for each sample its source, and the how manieth sample of that source it is; int64 of shape (number,)."""
        if len(self._quota) == 1:
            return torch.zeros(number, dtype=torch.int64), torch.arange(first, first + number)
        sample_B = torch.arange(first, first + number)
        index_B, inside_B = sample_B // BLOCK, sample_B % BLOCK
        place_B = torch.empty_like(sample_B)
        for index in sorted(set(index_B.tolist())):
            own_B = index_B == index
            place_B[own_B] = self._block(index)[inside_B[own_B]]
        source_B = torch.bucketize(place_B, self._bounds[1:], right=True)
        quota = torch.tensor(self._quota)
        return source_B, index_B * quota[source_B] + place_B - self._bounds[source_B]

    def samples(self, source: int, steps: int) -> float:
        """Return how many of the first samples come from a source, on the whole."""
        return steps * self._quota[source] / sum(self._quota)


def _quotas(weights: Sequence[float]) -> list[int]:
    """Round shares to whole samples of a block by their largest remainders; every source has one at least."""
    if len(weights) == 1:
        return [BLOCK]
    exact = [BLOCK * weight / sum(weights) for weight in weights]
    quotas = [max(1, int(share)) for share in exact]
    order = sorted(range(len(weights)), key=lambda i: (int(exact[i]) - exact[i], i))
    for i in range(BLOCK - sum(quotas)):
        quotas[order[i % len(order)]] += 1
    while sum(quotas) > BLOCK:
        quotas[quotas.index(max(quotas))] -= 1
    return quotas
