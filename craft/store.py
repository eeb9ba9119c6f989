"""Every durable write of the program: files that are replaced whole, directories with a manifest, journals and locks.

A file or directory is written beside its place under a `.tmp-` name, synced, renamed, and its parent is synced: whoever
looks, at any moment and after any crash, sees the old content or the new one. Every primitive passes through `HOOK`, so
that a test can fail it or kill the process before it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import secrets
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = [
    "HOOK",
    "Busy",
    "Corrupt",
    "Journal",
    "lock",
    "publish",
    "read_journal",
    "remove",
    "sweep_litter",
    "verify",
    "write",
    "write_json",
]

HOOK: Callable[[str, Path, Any], None] | None = None
"""Called before every primitive with its name, its path and its detail: the bytes of a write, the target of a rename."""

MANIFEST = "MANIFEST.json"
_LOCK = ".lock"
_LITTER = re.compile(r"\.(?P<kind>tmp|trash|old)-(?P<name>.+)-[0-9a-f]{16}")
_PIECE = 1 << 20


class Corrupt(ValueError):  # noqa: N818 - reads as `store.Corrupt`
    """A file is not what was written."""


class Busy(ValueError):  # noqa: N818
    """Another process works in the directory."""


def _op(name: str, path: Path, detail: Any = None) -> None:
    if HOOK is not None:
        HOOK(name, path, detail)


def _create(path: Path, data: bytes) -> None:
    _op("open", path)
    with path.open("xb") as file:  # mode 0666 less the umask
        _op("write", path, data)
        file.write(data)
        file.flush()
        _fsync(file.fileno(), path)


def _fsync(descriptor: int, path: Path) -> None:
    _op("fsync", path)
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)  # fsync alone stops at the drive's cache there
    else:
        os.fsync(descriptor)


def _fsync_directory(path: Path) -> None:
    _op("fsync_dir", path)
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


def _rename(source: Path, target: Path) -> None:
    _op("rename", source, target)
    os.replace(source, target)


def _make_directory(path: Path) -> None:
    _op("mkdir", path)
    path.mkdir()


def _delete(path: Path) -> None:
    """Delete a file, or a directory with what is in it."""
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            _delete(child)
        _op("rmdir", path)
        path.rmdir()
    else:
        _op("unlink", path)
        path.unlink()


def _aside(path: Path, kind: str) -> Path:
    return path.with_name(f".{kind}-{path.name}-{secrets.token_hex(8)}")


def _discard(path: Path) -> None:
    """Clean up after an error, which must stay the one that is reported; `sweep_litter` gets what is left."""
    with contextlib.suppress(OSError):
        _delete(path)


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
    temporary = _aside(path, "tmp")
    try:
        _create(temporary, data.encode() if isinstance(data, str) else data)
        _rename(temporary, path)
    except BaseException:
        _discard(temporary)
        raise
    _fsync_directory(path.parent)


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
    write(path, _dump(obj, sort=sort))


def _dump(obj: Any, *, sort: bool) -> bytes:
    text = json.dumps(_strict(obj), indent=2, sort_keys=sort, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode(errors="backslashreplace")  # a lone surrogate becomes the JSON escape of itself


def _strict(obj: Any, place: str = "", lost: list[str] | None = None) -> Any:
    """Return plain JSON data; non-finite numbers become None where `lost` collects their places, else they are refused."""
    if obj is None or isinstance(obj, str | bool | int):
        return obj
    if isinstance(obj, float):
        return _finite(obj, place, lost)
    if isinstance(obj, list | tuple):
        return [_strict(value, f"{place}.{index}".lstrip("."), lost) for index, value in enumerate(obj)]
    if isinstance(obj, Mapping) and all(isinstance(key, str) for key in obj):
        return {key: _strict(value, f"{place}.{key}".lstrip("."), lost) for key, value in obj.items()}
    raise ValueError(f"got {obj!r:.80} at {place or 'the top'}; expected JSON data: dicts with text keys, lists, text, numbers")


def _finite(number: float, place: str, lost: list[str] | None) -> float | None:
    if math.isfinite(number):
        return float(number)
    if lost is None:
        raise ValueError(f"got {number} at {place or 'the top'}; JSON has no such number: store null or text instead")
    lost.append(place)
    return None


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
        if not _plain(name):
            raise ValueError(f"got the file name {name!r}; expected letters, digits, '_', '-' and '.', and not {MANIFEST}")
    if not {"files", "seal"}.isdisjoint(manifest):
        raise ValueError("got 'files' or 'seal' in a manifest; these are filled in here: choose another key")
    directory.parent.mkdir(parents=True, exist_ok=True)
    temporary = _aside(directory, "tmp")
    try:
        _fill(temporary, files, manifest)
        former = _replace(temporary, directory)
    except BaseException:
        _discard(temporary)
        raise
    _fsync_directory(directory.parent)
    verify(directory, hashes=False)
    if former is not None:
        _discard(former)
    return directory


def _plain(name: str) -> bool:
    return bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name)) and name != MANIFEST


def _fill(directory: Path, files: Mapping[str, bytes | Callable[[Path], None]], manifest: dict[str, Any]) -> None:
    _make_directory(directory)
    table = {}
    for name, content in sorted(files.items()):
        path = directory / name
        if callable(content):
            _adopt(path, content)
            table[name] = {"size": path.stat().st_size, "sha256": _sha256(path)}
        else:
            _create(path, content)
            table[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    _create(directory / MANIFEST, _sealed({**manifest, "files": table}))
    _fsync_directory(directory)


def _adopt(path: Path, fill: Callable[[Path], None]) -> None:
    """Let someone else write the file, then make it durable; libraries may create it private: the umask decides."""
    _op("fill", path)
    fill(path)
    path.chmod(path.parent.stat().st_mode & 0o666)
    with path.open("rb+") as file:
        _fsync(file.fileno(), path)


def _replace(source: Path, target: Path) -> Path | None:
    """Rename a directory over another one, which goes aside and comes back by `sweep_litter` if this stops half way."""
    if not target.exists():
        _rename(source, target)
        return None
    former = _aside(target, "old")
    _rename(target, former)
    try:
        _rename(source, target)
    except BaseException:
        with contextlib.suppress(OSError):
            _rename(former, target)
        raise
    return former


def _sealed(manifest: dict[str, Any]) -> bytes:
    return _dump({**manifest, "seal": hashlib.sha256(_dump(manifest, sort=True)).hexdigest()}, sort=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(directory: Path, *, hashes: bool = True) -> dict[str, Any]:
    """Check a published directory.

    Parameters
    ----------
    directory
        What `publish` wrote.
    hashes
        Whether the files are read and hashed; without it only their sizes are compared.

    Returns
    -------
    The manifest.

    Raises
    ------
    Corrupt
        If the manifest or a file is missing or was changed; the file and the fault are named.
    """
    directory = Path(directory)
    manifest = _manifest(directory / MANIFEST)
    for name, entry in manifest["files"].items():
        path = directory / name
        try:
            size = path.stat().st_size
            if size != entry["size"]:
                raise Corrupt(f"{path} has {size} bytes; its manifest says {entry['size']}: use another copy")
            if hashes and _sha256(path) != entry["sha256"]:
                raise Corrupt(f"{path} has another sha256 than its manifest says: use another copy")
        except OSError as error:
            raise Corrupt(f"{path} is missing or cannot be read ({error.strerror}): use another copy") from error
    return manifest


def _manifest(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
        manifest = json.loads(content)
    except OSError as error:
        raise Corrupt(f"{path} is missing or cannot be read ({error.strerror}): use another copy") from error
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"{path} is broken JSON ({error}): use another copy") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise Corrupt(f"{path} is no manifest: expected an object with 'files'")
    if not all(_plain(name) and _entry(entry) for name, entry in manifest["files"].items()):
        raise Corrupt(f"{path} names a file that publish never writes: use another copy")
    if not _matches(manifest, content):
        raise Corrupt(f"{path} was changed after it was written: its seal does not match")
    return manifest


def _entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("size"), int) and isinstance(entry.get("sha256"), str)


def _matches(manifest: dict[str, Any], content: bytes) -> bool:
    try:
        return _sealed({key: value for key, value in manifest.items() if key != "seal"}) == content
    except (ValueError, RecursionError):
        return False


def remove(directory: Path) -> None:
    """Delete a directory so that it is whole until it is gone.

    Raises
    ------
    OSError
        If it cannot be renamed or deleted; what is left of it is then swept by `sweep_litter`.
    """
    trash = _aside(Path(directory), "trash")
    _rename(Path(directory), trash)
    _fsync_directory(trash.parent)  # else a power cut may keep the old name and lose the files
    _delete(trash)


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
            _rename(path, parent / match["name"])
            _fsync_directory(parent)
        else:
            _delete(path)
            swept.append(path)
    return swept


class Journal:
    """Objects in a file, one line of JSON each, appended only.

    Parameters
    ----------
    path
        The file; it is made where there is none, and loses the torn last line that a crash may have left.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._open()

    def _open(self) -> None:
        _op("open", self.path)
        new = not self.path.exists()
        self._end = 0 if new else sum(len(line) for line, _ in _lines(self.path))
        self._file = self.path.open("ab", buffering=0)
        self._trim()
        if new:
            _fsync_directory(self.path.parent)

    def _trim(self) -> None:
        if os.fstat(self._file.fileno()).st_size != self._end:
            _op("truncate", self.path, self._end)
            self._file.truncate(self._end)

    def append(self, obj: Mapping[str, Any]) -> None:
        """Add one object; it is the operating system's at once and on the disk after `sync`.

        Parameters
        ----------
        obj
            JSON data. Numbers that are not finite become null, and their places are listed under `nonfinite`.

        Raises
        ------
        ValueError
            If `obj` is not a dict of JSON data.
        """
        lost = list(obj.get("nonfinite", ())) if isinstance(obj, Mapping) else []
        plain = _strict(obj, lost=lost)
        if not isinstance(plain, dict):
            raise ValueError(f"got {obj!r:.80}; expected a dict for a line of {self.path}")
        if lost:
            plain["nonfinite"] = sorted(set(lost))
        self._trim()  # a write that failed half way must not join this one
        line = (json.dumps(plain, allow_nan=False) + "\n").encode()
        _op("write", self.path, line)
        if self._file.write(line) != len(line):
            raise OSError(errno.ENOSPC, "only a part of a line could be written: free space", str(self.path))
        self._end += len(line)

    def sync(self) -> None:
        """Wait until everything is on the disk."""
        _fsync(self._file.fileno(), self.path)

    def cut(self, keep: Callable[[dict[str, Any]], bool]) -> None:
        """Keep only the objects for which `keep` is true, durably; their lines stay as they were."""
        kept = [line for line, obj in _lines(self.path) if keep(obj)]
        self._file.close()
        try:
            write(self.path, b"".join(kept))
        finally:
            self._open()

    def close(self) -> None:
        """Sync and close; closing twice is closing once."""
        if not self._file.closed:
            try:
                self.sync()
            finally:
                self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a journal, without the torn last line that a crash may have left.

    Raises
    ------
    Corrupt
        If another line is broken; it is named by its number.
    """
    return [obj for _, obj in _lines(Path(path))]


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    with path.open("rb") as file:
        broken = 0
        for number, line in enumerate(file, 1):
            if broken:
                raise Corrupt(f"{path} is broken at line {broken}, which is not its last: mend or delete that line")
            obj = _object(line)
            if obj is None:
                broken = number
            else:
                yield line, obj


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        obj = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return obj if isinstance(obj, dict) and line.endswith(b"\n") else None


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
    path = directory / _LOCK
    _op("open", path)
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
