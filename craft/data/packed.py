"""Files that may be packed by gzip or Zstandard, as streams of bytes in bounded memory."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from craft.data.errors import DataError

__all__ = ["opened", "plain_suffix"]

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SUFFIXES = (".gz", ".zst", ".zstd")


def plain_suffix(path: Path) -> str:
    """Return the suffix of a file without that of its packing, in small letters: `.jsonl` of `a.jsonl.gz`."""
    inner = path.with_suffix("") if path.suffix.lower() in _SUFFIXES else path
    return inner.suffix.lower()


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, unpacked where its first bytes say that it is packed.

    Raises
    ------
    DataError
        If it cannot be read, or its packing is broken: also later, while it is read.
    """
    try:
        with path.open("rb") as raw:
            yield cast(BinaryIO, _unpacked(raw))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} is a broken gzip file ({error}); get another copy") from error
    except OSError as error:
        raise DataError(
            f"could not read {path} ({error.strerror or error}); make it readable, or give another source"
        ) from error


def _unpacked(raw: BinaryIO) -> Any:
    first = raw.read(4)
    raw.seek(0)
    if first.startswith(_GZIP):
        return gzip.GzipFile(fileobj=raw)
    if first == _ZSTD:
        return io.BufferedReader(_zstandard().ZstdDecompressor().stream_reader(raw, read_across_frames=True))
    return raw


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise DataError("files packed by Zstandard need the package zstandard: pip install 'craft[data]'") from error
    return zstandard
