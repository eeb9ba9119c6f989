"""Prepared data on the disk: its index, its tokenizer and its shards, checked before they are used."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from craft import store
from craft.config import LARGE, load
from craft.data.division import SPLITS
from craft.data.errors import DataError
from craft.data.shards import Tokens
from craft.data.tokenizer import load_tokenizer
from craft.step import Tokenizer

__all__ = ["FORMAT", "INDEX", "JOURNAL", "TOKENIZER", "Prepared", "fingerprint", "open_prepared"]

FORMAT = 1
INDEX, JOURNAL, TOKENIZER = "index.json", "prepare.jsonl", "tokenizer.json"
_STAMPS = "verified.json"


class Prepared:
    """A directory of `craft data prepare`.

    Parameters
    ----------
    directory
        Where it lies.
    index
        What index.json says.
    """

    def __init__(self, directory: Path, index: dict[str, Any]) -> None:
        self.directory, self.index = directory, index

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """What made the tokens."""
        return load_tokenizer(load(self.directory / TOKENIZER, limit=LARGE))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the tokenizer, the ids of every split, and where documents end, in hex."""
        return str(self.index["fingerprint"])

    @property
    def weights(self) -> list[float]:
        """Share of the training samples that comes from each source."""
        return [float(source["weight"]) for source in self.index["sources"]]

    def total(self, split: str, what: str) -> int:
        """Add up `tokens`, `documents`, `bytes`, `characters`, `unknown` or `lossy` of a split over the sources."""
        return sum(int(source["splits"][split][what]) for source in self.index["sources"])

    @cached_property
    def tokens(self) -> dict[str, list[Tokens]]:
        """The ids of each split, by source."""
        dtype = np.dtype(self.index["dtype"])
        return {
            split: [Tokens(self.directory, source["splits"][split]["shards"], dtype) for source in self.index["sources"]]
            for split in SPLITS
        }

    def verify(self, *, always: bool = False) -> None:
        """Compare the files with the index: by size and time of change where these were compared by content before.

        Parameters
        ----------
        always
            Whether everything is read and hashed.

        Raises
        ------
        DataError
            If a file is missing or another one.
        """
        stamps = {} if always else _stamps(self.directory / _STAMPS)
        found = {}
        for name, (size, digest) in self._files().items():
            path = self.directory / name
            try:
                state = path.stat()
                found[name] = [state.st_size, state.st_mtime_ns]
                known = stamps.get(name) == found[name]
                right = state.st_size == size and (known or store.sha256(path) == digest)
            except OSError as error:
                raise DataError(f"{path} is missing or cannot be read ({error.strerror}); prepare the data anew") from error
            if not right:
                raise DataError(
                    f"{path} is not what its index says: it was changed; prepare the data anew, or get another copy"
                )
        if found != stamps:
            _remember(self.directory / _STAMPS, found)

    def _files(self) -> dict[str, tuple[int, str]]:
        width = np.dtype(self.index["dtype"]).itemsize
        files: dict[str, tuple[int, str]] = {}
        for shard in (one for source in self.index["sources"] for split in SPLITS for one in source["splits"][split]["shards"]):
            files[f"{shard['name']}.tokens"] = (shard["tokens"] * width, shard["sha256"])
            files[f"{shard['name']}.ends"] = (shard["documents"] * 8, shard["ends_sha256"])
        described = self.index["tokenizer"]
        return files | {TOKENIZER: (described["bytes"], described["sha256"])}


def open_prepared(directory: Path) -> Prepared:
    """Open prepared data.

    Raises
    ------
    DataError
        If it is not prepared data, not finished, of a newer Craft, or was changed.
    """
    path = directory / INDEX
    if not path.is_file():
        raise DataError(f"got {directory} as prepared data, but it has no {INDEX}; run craft data prepare --out {directory}")
    index = load(path)
    if index.get("format") != FORMAT:
        raise DataError(f"got {path} of format {index.get('format')!r}; this Craft reads format {FORMAT}: upgrade Craft")
    prepared = Prepared(directory, index)
    prepared.verify()
    return prepared


def fingerprint(tokenizer: Mapping[str, Any], sources: list[dict[str, Any]]) -> str:
    """Hash what batches depend on: the tokenizer, and of each source the weight and the content of its splits."""

    def content(source: dict[str, Any]) -> list[Any]:
        shards = [[[s["sha256"], s["ends_sha256"]] for s in source["splits"][split]["shards"]] for split in SPLITS]
        return [source["weight"], shards]

    said = json.dumps([tokenizer, [content(source) for source in sources]], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def _stamps(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _remember(path: Path, found: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # a place that cannot be written is hashed again each time
        store.write_json(path, found)
