"""Files as documents: text, lines of JSON, Parquet. Strict: what cannot be read is named by file and line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from craft.data.errors import DataError
from craft.data.packed import opened, plain_suffix
from craft.data.part import Part, documents

__all__ = ["Reading", "binary", "read_file"]

_PIECE = 1 << 20
_LINE = 1 << 28
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@attrs.define
class Reading:
    """How files are read, and what was left out."""

    field: str = "text"
    """Field of a JSON object or column of a table that holds the text."""
    separator: str = ""
    """Line between two documents of a text file; empty: a file is one document."""
    skip_bad: bool = False
    """Whether a broken line of JSON, or one without the field, is left out and counted instead of an error."""
    skipped: int = 0
    """How many were left out."""


def read_file(path: Path, reading: Reading) -> Iterator[Part]:
    """Read the documents of a file: `.jsonl` and `.ndjson`, `.parquet`, else text; packed by gzip or Zstandard or not.

    Raises
    ------
    DataError
        If it cannot be read; the place is named.
    """
    suffix = plain_suffix(path)
    if suffix == ".parquet":
        yield from _rows(path, reading)
    elif suffix in (".jsonl", ".ndjson"):
        yield from _lines(path, reading)
    else:
        yield from documents(_text(path), reading.separator)


def binary(path: Path) -> bool:
    """Tell whether a file is no text, by its first megabyte: it has a NUL byte; UTF-16, which has many, is an error later."""
    with opened(path) as file:
        start = file.read(_PIECE)
    return b"\0" in start and not start.startswith(_UTF16)


def _text(path: Path) -> Iterator[str]:
    """Decode UTF-8 strictly; a byte-order mark is stripped, all else stays as it is."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    offset, lines, first, held = 0, 1, True, 0
    with opened(path) as file:
        while True:
            content = file.read(_PIECE)
            _refuse(path, content, offset, lines, first)
            try:
                text = decoder.decode(content, final=not content)
            except UnicodeDecodeError as error:
                seen = content[: max(0, error.start - held)]
                place = offset - held + error.start
                bad = f"byte 0x{error.object[error.start]:02x} at offset {place} (line {lines + seen.count(10)})"
                raise DataError(f"{path} is not UTF-8: {bad} ({error.reason}); convert it to UTF-8") from error
            held = len(decoder.getstate()[0])
            yield text.removeprefix("\ufeff") if first else text
            if not content:
                return
            offset, lines, first = offset + len(content), lines + content.count(10), False


def _refuse(path: Path, content: bytes, offset: int, lines: int, first: bool) -> None:
    if first and content.startswith(_UTF16):
        raise DataError(f"{path} begins with the mark of UTF-16, byte 0x{content[0]:02x} at offset 0; convert it to UTF-8")
    zero = content.find(b"\0")
    if zero >= 0:
        place = f"offset {offset + zero} (line {lines + content.count(10, 0, zero)})"
        raise DataError(f"{path} has a NUL byte at {place}: it is binary; give a text file in UTF-8")


def _lines(path: Path, reading: Reading) -> Iterator[Part]:
    with opened(path) as file:
        number = 0
        while line := file.readline(_LINE):
            number += 1
            if len(line) == _LINE:
                raise DataError(f"{path}, line {number}, is longer than {_LINE} bytes; give one JSON object a line")
            if not line.strip():
                continue
            text = _field(line.rstrip(b"\r\n"), reading.field)
            if isinstance(text, DataError):
                _skip(reading, f"{path}, line {number}, {text}")
            elif text:
                yield from documents([text])


def _field(line: bytes, field: str) -> str | DataError:
    try:
        row = json.loads(line)
    except ValueError as error:
        return DataError(f"is broken: {error}")
    if not isinstance(row, dict) or field not in row:
        known = f"it has {', '.join(list(row)[:8]) or 'none'}" if isinstance(row, dict) else f"it is a {type(row).__name__}"
        return DataError(f"lacks the field {field!r} ({known})")
    return (
        row[field] if isinstance(row[field], str) else DataError(f"has a field {field!r} that is no text: {row[field]!r:.40}")
    )


def _skip(reading: Reading, problem: str) -> None:
    if not reading.skip_bad:
        raise DataError(f"{problem}; mend it, name another --field, or leave such lines out with --skip-bad")
    reading.skipped += 1


def _rows(path: Path, reading: Reading) -> Iterator[Part]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise DataError("Parquet files need the package pyarrow: pip install 'craft[data]'") from error
    try:
        table = parquet.ParquetFile(path)
        names = table.schema_arrow.names
        if reading.field not in names:
            raise DataError(f"{path} lacks the column {reading.field!r}; it has {', '.join(names)}: name one with --field")
        for batch in table.iter_batches(batch_size=256, columns=[reading.field]):
            yield from _texts(batch.column(0).to_pylist(), path, reading)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path} is no Parquet file that can be read ({error}); get another copy") from error


def _texts(values: list[Any], path: Path, reading: Reading) -> Iterator[Part]:
    for value in values:
        if not isinstance(value, str):
            _skip(reading, f"{path} has a row whose {reading.field!r} is no text ({value!r:.40})")
        elif value:
            yield from documents([value])
