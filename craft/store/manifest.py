"""The manifest of a directory: the size and SHA-256 of each file, and a seal over itself."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from craft.store.errors import Corrupt
from craft.store.strict import dump

__all__ = ["MANIFEST", "plain_name", "sealed", "sha256", "verify"]

MANIFEST = "MANIFEST.json"


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
            if hashes and sha256(path) != entry["sha256"]:
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
    if not all(plain_name(name) and _entry(entry) for name, entry in manifest["files"].items()):
        raise Corrupt(f"{path} names a file that publish never writes: use another copy")
    if not _matches(manifest, content):
        raise Corrupt(f"{path} was changed after it was written: its seal does not match")
    return manifest


def _entry(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("size"), int) and isinstance(entry.get("sha256"), str)


def _matches(manifest: dict[str, Any], content: bytes) -> bool:
    try:
        return sealed({key: value for key, value in manifest.items() if key != "seal"}) == content
    except (ValueError, RecursionError):
        return False


def plain_name(name: str) -> bool:
    """Return whether a file of a published directory may be called so."""
    return bool(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name)) and name != MANIFEST


def sealed(manifest: dict[str, Any]) -> bytes:
    """Return the bytes of a manifest with the seal that shows any later change."""
    return dump({**manifest, "seal": hashlib.sha256(dump(manifest, sort=True)).hexdigest()}, sort=True)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
