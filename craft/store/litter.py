"""What a write puts beside its place and a killed process leaves there: its names, and the broom.

`.tmp-` is not finished, `.old-` was renamed out of the way of its successor, `.trash-` is being deleted.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from pathlib import Path

from craft.store import disk

__all__ = ["aside", "discard", "remove", "sweep_litter"]

_LITTER = re.compile(r"\.(?P<kind>tmp|trash|old)-(?P<name>.+)-[0-9a-f]{16}")


def aside(path: Path, kind: str) -> Path:
    """Return a new name beside a path, of a kind: `tmp`, `old` or `trash`."""
    return path.with_name(f".{kind}-{path.name}-{secrets.token_hex(8)}")


def discard(path: Path) -> None:
    """Clean up after an error, which must stay the one that is reported; `sweep_litter` gets what is left."""
    with contextlib.suppress(OSError):
        disk.delete(path)


def remove(directory: Path) -> None:
    """Delete a directory so that it is whole until it is gone.

    Raises
    ------
    OSError
        If it cannot be renamed or deleted; what is left of it is then swept by `sweep_litter`.
    """
    trash = aside(Path(directory), "trash")
    disk.rename(Path(directory), trash)
    disk.fsync_directory(trash.parent)  # else a power cut may keep the old name and lose the files
    disk.delete(trash)


def sweep_litter(parent: Path) -> list[Path]:
    """Clean up what killed processes left: call it under the directory's `lock`, before anything else is read.

    Parameters
    ----------
    parent
        Directory in which `write`, `publish` and `remove` worked. A directory whose replacement never came is put back.

    Returns
    -------
    What was deleted.
    """
    parent = Path(parent)
    swept = []
    for path in sorted(parent.iterdir()) if parent.is_dir() else []:
        match = _LITTER.fullmatch(path.name)
        if match is None:
            continue
        if match["kind"] == "old" and not (parent / match["name"]).exists():
            disk.rename(path, parent / match["name"])
            disk.fsync_directory(parent)
        else:
            disk.delete(path)
            swept.append(path)
    return swept
