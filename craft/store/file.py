"""Files that are replaced whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from craft.store import disk
from craft.store.litter import aside, discard
from craft.store.strict import dump

__all__ = ["write", "write_json"]


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
