"""Directories that are written all or nothing, with a manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from craft.store import disk
from craft.store.litter import aside, discard
from craft.store.manifest import MANIFEST, plain_name, sealed, sha256, verify

__all__ = ["Staged", "publish", "stage"]

Files = Mapping[str, bytes | Callable[[Path], None]]
"""Name -> the content, or a function that writes it to the path it is given."""


def publish(directory: Path, files: Files, manifest: dict[str, Any]) -> Path:
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
    staged = stage(directory, files, manifest)
    staged.commit()
    return staged.directory


def stage(directory: Path, files: Files, manifest: dict[str, Any]) -> Staged:
    """Do the first half of `publish`: hand the content to the operating system, which is as quick as a copy in memory.

    Nothing is visible before `Staged.commit`, which waits for the disk and may be called from another thread. The arguments
    and errors are those of `publish`.
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
        _fill(temporary, files)
    except BaseException:
        discard(temporary)
        raise
    return Staged(directory, temporary, sorted(files), manifest)


class Staged(NamedTuple):
    """A directory that is written and not yet durable, beside its place."""

    directory: Path
    temporary: Path
    names: list[str]
    manifest: dict[str, Any]

    def commit(self) -> str:
        """Do the second half of `publish`: sync the files, hash them, write the manifest, and give the directory its name.

        Returns
        -------
        The seal of its manifest.

        Raises
        ------
        OSError
            If the disk is full or fails; the former directory is then still there.
        """
        try:
            _seal(self.temporary, self.names, self.manifest)
            former = _replace(self.temporary, self.directory)
        except BaseException:
            discard(self.temporary)
            raise
        disk.fsync_directory(self.directory.parent)
        seal: str = verify(self.directory, hashes=False)["seal"]
        if former is not None:
            discard(former)
        return seal


def _fill(directory: Path, files: Files) -> None:
    disk.make_directory(directory)
    for name, content in sorted(files.items()):
        path = directory / name
        if callable(content):
            disk.op("fill", path)
            content(path)
            path.chmod(directory.stat().st_mode & 0o666)  # libraries may create it private: the umask decides
        else:
            disk.create(path, content, sync=False)


def _seal(directory: Path, names: Sequence[str], manifest: dict[str, Any]) -> None:
    table = {}
    for name in names:
        path = directory / name
        disk.sync_file(path)
        table[name] = {"size": path.stat().st_size, "sha256": sha256(path)}
    disk.create(directory / MANIFEST, sealed({**manifest, "files": table}))
    disk.fsync_directory(directory)


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
