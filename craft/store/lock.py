"""The lock of a directory: one process at a time works there, and the kernel knows which."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from craft.store import disk
from craft.store.errors import Busy

__all__ = ["LOCK", "lock"]

LOCK = ".lock"
"""The file in a directory that says who works there."""

_held: set[int] = set()


def _drop_held() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):  # a forked worker that outlives its parent must not keep the lock
    os.register_at_fork(after_in_child=_drop_held)


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Keep every other process out of a directory while the block runs; the kernel lets go when this process dies.

    Parameters
    ----------
    directory
        It is made where there is none, with a file `.lock` that says who works there.

    Raises
    ------
    Busy
        If another process (or this one, a second time) works there; it is named.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / LOCK
    disk.op("open", path)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if not _seize(descriptor):
        os.close(descriptor)
        raise Busy(f"{directory} is in use by {_owner(path)}; wait for it, stop it, or choose another directory")
    _held.add(descriptor)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode())
        yield
    finally:
        if descriptor in _held:  # not so in a forked child, where the number may stand for another file by now
            _held.remove(descriptor)
            os.close(descriptor)


def _owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_bytes())
        return f"process {owner['pid']} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


if sys.platform == "win32":
    import msvcrt

    def _seize(descriptor: int) -> bool:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)  # beyond the text, which others read
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:
    import fcntl

    def _seize(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
