"""The first look at a source: how much text it has, and its fingerprint."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from craft import store
from craft.cache import cache_directory
from craft.config import ConfigError, from_dict, load, to_dict
from craft.data.errors import DataError
from craft.data.source import Source

__all__ = ["Survey", "remembered", "survey"]

_RECENT = 60 * 10**9


@attrs.frozen
class Survey:
    """What a source holds."""

    corpus: str
    """SHA-256 in hex of the UTF-8 bytes, with a byte 0xff between documents: of one document that of its text."""
    documents: int
    """Documents."""
    bytes: int
    """Bytes of UTF-8."""
    characters: int
    """Characters."""
    unended: int
    """Documents whose last line has no end."""
    skipped: int
    """Broken rows that were left out."""


def survey(source: Source, progress: Callable[[int], None] | None = None) -> Survey:
    """Read a source to its end.

    Parameters
    ----------
    source
        What is read.
    progress
        Called with the number of bytes that were read.

    Raises
    ------
    DataError
        If it cannot be read, or has no text.
    """
    digest, documents, size, characters, unended = hashlib.sha256(), 0, 0, 0, 0
    begins, last, blank = True, "", True
    source.reading.skipped = 0
    for part in source.parts():
        content = _encoded(part.text, source.place)
        if begins and documents:
            digest.update(b"\xff")
        digest.update(content)
        size, characters = size + len(content), characters + len(part.text)
        last, begins, blank = part.text[-1:] or last, part.ends, blank and not part.text.strip()
        documents, unended = documents + part.ends, unended + (part.ends and last != "\n")
        if progress is not None:
            progress(size)
    if blank:
        state = f"only whitespace ({characters} characters)" if characters else "no text"
        raise DataError(f"found {state} in {source.place}; give a source with text in it")
    return Survey(digest.hexdigest(), documents, size, characters, unended, source.reading.skipped)


def remembered(source: Source, progress: Callable[[int], None] | None = None) -> Survey:
    """Survey a source, or remember what was found in the same files: of the same names, sizes and times of change.

    Files that were changed within the last minute are always read: their next change may bear the same time.
    """
    place = _place(source)
    if place is None:
        return survey(source, progress)
    try:
        return from_dict(Survey, load(place)) if place.is_file() else _keep(place, survey(source, progress))
    except ConfigError:
        return _keep(place, survey(source, progress))


def _place(source: Source) -> Path | None:
    """Name a survey by the state of its files; None where that would not be safe."""
    try:
        states = [(str(path), state.st_size, state.st_mtime_ns) for path in source.paths for state in [path.stat()]]
    except OSError:
        return None
    reading = source.reading
    if not states or max(changed for *_, changed in states) > time.time_ns() - _RECENT:
        return None
    said = repr([states, source.name, reading.field, reading.separator, reading.skip_bad])
    return cache_directory("surveys") / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.json"


def _keep(place: Path, found: Survey) -> Survey:
    store.write_json(place, to_dict(found))
    return found


def _encoded(text: str, place: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        raise DataError(
            f"{place} has the lone surrogate U+{code:04X}, which is half a character; remove or replace it"
        ) from error
