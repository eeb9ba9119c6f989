"""Token shards: token ids of a split in files that are memory-mapped, and where its documents end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from craft import store
from craft.data.errors import DataError

__all__ = ["Tokens", "kind", "write_shard"]

_KINDS = ("<u1", "<u2", "<u4")


def kind(size: int) -> np.dtype[Any]:
    """Return the smallest type that holds the ids of a vocabulary.

    Raises
    ------
    DataError
        If there is none.
    """
    found = next((name for name in _KINDS if size - 1 <= np.iinfo(name).max), None)
    if found is None:
        raise DataError(f"got a vocabulary of {size} tokens; expected at most {2**32}")
    return np.dtype(found)


def write_shard(directory: Path, name: str, ids_N: NDArray[Any], end_N: Sequence[int]) -> dict[str, Any]:
    """Write the ids of a shard and the places behind the ends of its documents, durably.

    Parameters
    ----------
    directory
        Where it goes.
    name
        Its name; the files are NAME.tokens and NAME.ends, little-endian without a header.
    ids_N
        Ids, of the type of `kind`.
    end_N
        For each document that ends in it, how many ids of the shard come before its end.

    Returns
    -------
    Its entry in the index.
    """
    content, ends = ids_N.tobytes(), np.asarray(end_N, "<i8").tobytes()
    store.write(directory / f"{name}.ends", ends)
    store.write(directory / f"{name}.tokens", content)
    return {
        "name": name,
        "tokens": len(ids_N),
        "documents": len(end_N),
        "sha256": hashlib.sha256(content).hexdigest(),
        "ends_sha256": hashlib.sha256(ends).hexdigest(),
    }


class Tokens:
    """The ids of a split as one sequence, read from the disk as they are asked for.

    Parameters
    ----------
    directory, shards
        Where the shards are, and their entries in the index.
    dtype
        Type of the ids.
    """

    def __init__(self, directory: Path, shards: Sequence[Mapping[str, Any]], dtype: np.dtype[Any]) -> None:
        self._paths = [directory / f"{shard['name']}.tokens" for shard in shards if shard["tokens"]]
        self._ends = [(directory / f"{shard['name']}.ends", shard["tokens"]) for shard in shards]
        self._maps = [np.memmap(path, dtype, "r") for path in self._paths]
        self._first = np.cumsum([0, *(len(ids_N) for ids_N in self._maps)])
        self._stamps = [_stamp(path) for path in self._paths]

    def __len__(self) -> int:
        return int(self._first[-1])

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Places behind the ends of the documents, ascending; the last one is the end of the split."""
        offsets = np.cumsum([0, *(tokens for _, tokens in self._ends)])
        pieces = [np.fromfile(path, "<i8") + offset for (path, _), offset in zip(self._ends, offsets[:-1], strict=True)]
        found = np.concatenate([np.zeros(0, np.int64), *pieces])
        return found if len(found) and found[-1] == len(self) else np.append(found, len(self))

    def rows(self, start_B: Sequence[int] | NDArray[np.int64], length: int) -> NDArray[np.int64]:
        """Return the ids from each start on, int64 of shape (B, length); beyond the end the last id is repeated."""
        out = np.empty((len(start_B), length), np.int64)
        for row, start in zip(out, start_B, strict=True):
            self._fill(row, int(start))
        return out

    def _fill(self, row: NDArray[np.int64], start: int) -> None:
        done, shard = 0, int(np.searchsorted(self._first, start, "right")) - 1
        while done < len(row) and shard < len(self._maps):
            inside = start + done - int(self._first[shard])
            piece = self._maps[shard][inside : inside + len(row) - done]
            row[done : done + len(piece)] = piece
            done, shard = done + len(piece), shard + 1
        row[done:] = self._maps[-1][-1]

    def count(self, size: int) -> NDArray[np.int64]:
        """Return how often each id below `size` occurs, shape (V,)."""
        return sum((np.bincount(ids_N, minlength=size) for ids_N in self._maps), np.zeros(size, np.int64))

    def check(self) -> None:
        """Look whether the files are those that were opened.

        Raises
        ------
        DataError
            If one was changed.
        """
        for path, stamp in zip(self._paths, self._stamps, strict=True):
            if _stamp(path) != stamp:
                raise DataError(f"{path} was changed while it is read; prepare the data anew and go on with --resume")


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"{path} is gone ({error.strerror}); prepare the data anew") from error
    return found.st_size, found.st_mtime_ns, found.st_ino
