"""Files that are replaced whole."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from craft.store import disk
from craft.store.litter import aside, discard
from craft.store.strict import dump

__all__ = ["append", "sync", "write", "write_json"]


def write(path: Path, data: bytes | str) -> None:
    """Replace a file durably and as a whole.

    Parameters
    ----------
    path
        The file; its parent must exist.
    data
        The content; text is written as UTF-8, its line ends as they are.

    Raises
    ------
    OSError
        If the disk is full or fails; the former content is then still there.
    """
    path = Path(path)
    temporary = aside(path, "tmp")
    try:
        disk.create(temporary, data.encode() if isinstance(data, str) else data)
        disk.rename(temporary, path)
    except BaseException:
        discard(temporary)
        raise
    disk.fsync_directory(path.parent)


def append(path: Path, text: str) -> None:
    """Add to the end of a file, which is made where there is none; it is the operating system's at once, see `sync`."""
    data = text.encode(errors="backslashreplace")
    disk.op("open", path)
    with path.open("ab", buffering=0) as file:
        disk.op("write", path, data)
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, "only a part of a text could be written: free space", str(path))


def sync(path: Path) -> None:
    """Wait until a file that was appended to is on the disk, with its name."""
    disk.sync_file(path)
    disk.fsync_directory(path.parent)


def write_json(path: Path, obj: Any, *, sort: bool = False) -> None:
    """Replace a file by strict JSON, indented by 2.

    Parameters
    ----------
    path
        The file; its parent must exist.
    obj
        Dicts with text keys, lists, tuples, text, finite numbers, booleans and None.
    sort
        Whether keys are sorted.

    Raises
    ------
    ValueError
        If `obj` holds anything else; the place is named.
    """
    write(path, dump(obj, sort=sort))
