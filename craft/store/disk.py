"""The primitives of the disk, and the hook that sees each of them before it happens.

Call them by the module (`disk.rename`), so that a test that replaces one of them here replaces it everywhere.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["HOOK", "create", "delete", "fsync", "fsync_directory", "make_directory", "op", "rename", "sync_file"]

HOOK: Callable[[str, Path, Any], None] | None = None
"""Called before every primitive with its name, its path and its detail: the bytes of a write, the target of a rename.

Set it here, `disk.HOOK = ...`: a name that was imported from here would stay as it was.
"""


def op(name: str, path: Path, detail: Any = None) -> None:
    """Show an operation to the hook; every one comes by here, also those that other files of the store do themselves."""
    if HOOK is not None:
        HOOK(name, path, detail)


def create(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a new file and wait until its content is on the disk; a file that is there already is an error.

    Without `sync` it is the operating system's, and `sync_file` waits for it later.
    """
    op("open", path)
    with path.open("xb") as file:  # mode 0666 less the umask
        op("write", path, data)
        file.write(data)
        file.flush()
        if sync:
            fsync(file.fileno(), path)


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb+") as file:
        fsync(file.fileno(), path)


def fsync(descriptor: int, path: Path) -> None:
    """Wait until the content of an open file is on the disk."""
    op("fsync", path)
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync alone stops at the drive's cache there
    else:
        os.fsync(descriptor)


def fsync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk."""
    op("fsync_dir", path)
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot sync a directory
            raise
    finally:
        os.close(descriptor)


def rename(source: Path, target: Path) -> None:
    """Give a file or directory another name; a file of that name is replaced."""
    op("rename", source, target)
    os.replace(source, target)


def make_directory(path: Path) -> None:
    """Make a directory whose parent is there."""
    op("mkdir", path)
    path.mkdir()


def delete(path: Path) -> None:
    """Delete a file, or a directory with what is in it."""
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            delete(child)
        op("rmdir", path)
        path.rmdir()
    else:
        op("unlink", path)
        path.unlink()
