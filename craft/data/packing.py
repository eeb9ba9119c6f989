"""Whole documents in rows of one length, by best fit. Ding et al. 2024, arXiv:2404.10830.

A document that is longer than a row is cut into rows; what is left of it, and the shorter ones, fill rows as tightly as best
fit by falling length does. Each token but a document's first is a target once, and no position sees another document.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from craft.data.shards import Tokens
from craft.types import Batch, Layout, Tensor

__all__ = ["Rows", "best_fit"]


def best_fit(size_N: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Put pieces into as few rows as best fit by falling size finds.

    Parameters
    ----------
    size_N
        Sizes from 1 to `room`.
    room
        Size of a row.

    Returns
    -------
    The row of each piece, from 0 without gaps, shape (N,).

    Examples
    --------
    >>> best_fit(np.array([3, 5, 2, 1]), 5).tolist()
    [1, 0, 1, 2]
    """
    row_N = np.empty(len(size_N), np.int64)
    free: list[list[int]] = [[] for _ in range(room + 1)]  # rows by the room that is left in them
    some, rows = 0, 0  # bit r: there is a row with room r
    for piece in np.argsort(-size_N, kind="stable").tolist():
        size = int(size_N[piece])
        fitting = some >> size
        if fitting:
            left = size + (fitting & -fitting).bit_length() - 1
            row = free[left].pop()
            some &= ~(1 << left) if not free[left] else -1
        else:
            left, row, rows = room, rows, rows + 1
        row_N[piece] = row
        if left > size:
            free[left - size].append(row)
            some |= 1 << (left - size)
    return row_N


class Rows:
    """The documents of a split as rows of `context` inputs.

    Parameters
    ----------
    tokens
        The split.
    context
        Inputs of a row, in tokens.
    """

    def __init__(self, tokens: Tokens, context: int) -> None:
        self._tokens, self._context = tokens, context

    @cached_property
    def _packed(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Where pieces start and their targets, in the order of their rows, and where the rows begin among them."""
        end_N = self._tokens.ends
        first_N = np.concatenate([[0], end_N[:-1]])
        target_N = end_N - first_N - 1
        long = target_N > 0
        first_N, target_N = first_N[long], target_N[long]
        cuts_N = -(-target_N // self._context)
        document_P = np.repeat(np.arange(len(first_N)), cuts_N)
        place_P = np.arange(len(document_P)) - np.repeat(np.cumsum(cuts_N) - cuts_N, cuts_N)
        start_P = first_N[document_P] + place_P * self._context
        size_P = np.minimum(self._context, target_N[document_P] - place_P * self._context)
        row_P = best_fit(size_P, self._context)
        order = np.argsort(row_P, kind="stable")
        begins = np.searchsorted(row_P[order], np.arange((row_P.max() if len(row_P) else -1) + 2))
        return start_P[order], size_P[order], begins

    def __len__(self) -> int:
        return len(self._packed[2]) - 1

    def take(self, row_B: Sequence[int], sample_B: Tensor) -> Batch:
        """Return rows as a batch with its layout; a row beyond the last one is empty: its weights are 0."""
        shape = (len(row_B), self._context)
        inputs_BT, targets_BT, position_BT = (np.zeros(shape, np.int64) for _ in range(3))
        weights_BT, document_BT = np.zeros(shape, np.float32), np.full(shape, -1, np.int64)
        start_P, size_P, begins = self._packed
        for place, row in enumerate(row_B):
            at = 0
            pieces = range(int(begins[row]), int(begins[row + 1])) if row < len(self) else ()
            for number, piece in enumerate(pieces):
                size = int(size_P[piece])
                ids = self._tokens.rows([int(start_P[piece])], size + 1)[0]
                inside = slice(at, at + size)
                inputs_BT[place, inside], targets_BT[place, inside] = ids[:-1], ids[1:]
                weights_BT[place, inside], document_BT[place, inside] = 1, number
                position_BT[place, inside] = np.arange(size)
                at += size
            position_BT[place, at:] = np.arange(self._context - at)
        layout = Layout(torch.from_numpy(position_BT), torch.from_numpy(document_BT))
        ids_BT = torch.from_numpy(inputs_BT), torch.from_numpy(targets_BT)
        return Batch(*ids_BT, torch.from_numpy(weights_BT), sample_B, layout)
