"""Directories that are written all or nothing, with a manifest."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from craft.store import disk
from craft.store.litter import aside, discard
from craft.store.manifest import MANIFEST, plain_name, sealed, sha256, verify

__all__ = ["publish"]


def publish(directory: Path, files: Mapping[str, bytes | Callable[[Path], None]], manifest: dict[str, Any]) -> Path:
    """Write a directory of files with MANIFEST.json, all or nothing.

    The manifest gets the size and SHA-256 of each file and a seal over itself. The same content gives the same bytes.
    A directory that is there already is replaced.

    Parameters
    ----------
    directory
        Where it shall be; parents are made.
    files
        Name -> the content, or a function that writes it to the path it is given.
    manifest
        JSON data of one's own; `files` and `seal` are taken.

    Returns
    -------
    `directory`.

    Raises
    ------
    ValueError
        If a name is not a plain file name, or the manifest is not JSON.
    OSError
        If the disk is full or fails; the former directory is then still there.
    """
    directory = Path(directory)
    for name in files:
        if not plain_name(name):
            raise ValueError(f"got the file name {name!r}; expected letters, digits, '_', '-' and '.', and not {MANIFEST}")
    if not {"files", "seal"}.isdisjoint(manifest):
        raise ValueError("got 'files' or 'seal' in a manifest; these are filled in here: choose another key")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = aside(directory, "tmp")
    try:
        _fill(temporary, files, manifest)
        former = _replace(temporary, directory)
    except BaseException:
        discard(temporary)
        raise
    disk.fsync_directory(directory.parent)
    verify(directory, hashes=False)
    if former is not None:
        discard(former)
    return directory


def _fill(directory: Path, files: Mapping[str, bytes | Callable[[Path], None]], manifest: dict[str, Any]) -> None:
    disk.make_directory(directory)
    table = {}
    for name, content in sorted(files.items()):
        path = directory / name
        if callable(content):
            _adopt(path, content)
            table[name] = {"size": path.stat().st_size, "sha256": sha256(path)}
        else:
            disk.create(path, content)
            table[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    disk.create(directory / MANIFEST, sealed({**manifest, "files": table}))
    disk.fsync_directory(directory)


def _adopt(path: Path, fill: Callable[[Path], None]) -> None:
    """Let someone else write the file, then make it durable; libraries may create it private: the umask decides."""
    disk.op("fill", path)
    fill(path)
    path.chmod(path.parent.stat().st_mode & 0o666)
    with path.open("rb+") as file:
        disk.fsync(file.fileno(), path)


def _replace(source: Path, target: Path) -> Path | None:
    """Rename a directory over another one, which goes aside and comes back by `sweep_litter` if this stops half way."""
    if not target.exists():
        disk.rename(source, target)
        return None
    former = aside(target, "old")
    disk.rename(target, former)
    try:
        disk.rename(source, target)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.rename(former, target)
        raise
    return former
