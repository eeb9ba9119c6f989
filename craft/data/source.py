"""Text to learn from: Python's own standard library, tiny Shakespeare, or files of one's own."""

from __future__ import annotations

import codecs
import difflib
import hashlib
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs

from craft.cache import cache_directory
from craft.data.download import fetch
from craft.data.errors import DataError

__all__ = ["Corpus", "read"]

_SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_SHAKESPEARE_LIMIT = 4_000_000
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TESTS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})


@attrs.frozen
class Corpus:
    """A text and where it came from."""

    text: str = attrs.field(repr=False)
    """All of it."""
    fingerprint: str
    """SHA-256 of the UTF-8 bytes, in hex."""
    name: str
    """`stdlib`, `shakespeare`, or the name of the file or folder."""
    files: int
    """How many files it was read from."""


def read(source: str) -> Corpus:
    """Read a text.

    `stdlib` is the source code of the running Python's standard library without its tests: about 10 MB of ASCII, other
    for each version of Python; its lines end alike on every system. `shakespeare` is tiny Shakespeare, 1,115,394
    characters, downloaded once into the user's cache (from the address in `CRAFT_SHAKESPEARE_URL`, where that is set).
    Anything else is the path of a file or a folder; write `./stdlib` for a file of that name. Of a folder, every text
    file below it is read, in the order of their POSIX paths: hidden files and folders, and binary files (those with a
    NUL byte), are left out. A byte-order mark is stripped and a last line without an end gets one before the next file;
    all else, CRLF too, stays as it is.

    Parameters
    ----------
    source
        `stdlib`, `shakespeare`, or a path.

    Returns
    -------
    The text, with its fingerprint.

    Raises
    ------
    DataError
        If there is no such file, it is empty, binary, or not UTF-8, or the download failed.
    """
    if source == "stdlib":
        return _corpus("stdlib", sysconfig.get_paths()["stdlib"], list(_stdlib()))
    if source == "shakespeare":
        return _corpus("shakespeare", "shakespeare", [_shakespeare()])
    return _from_path(source)


def _corpus(name: str, place: str, texts: list[str]) -> Corpus:
    text = texts[0] if len(texts) == 1 else "".join(part if part.endswith("\n") else f"{part}\n" for part in texts if part)
    if not text.strip():
        state = f"only whitespace ({len(text)} characters)" if text else "no text"
        raise DataError(f"found {state} in {place}; give a source with text in it")
    return Corpus(text, hashlib.sha256(text.encode()).hexdigest(), name, len(texts))


def _shakespeare() -> str:
    url = os.environ.get("CRAFT_SHAKESPEARE_URL") or _SHAKESPEARE_URL
    path = cache_directory("data") / "tinyshakespeare.txt"
    return fetch(url, path, sha256=_SHAKESPEARE_SHA256, limit=_SHAKESPEARE_LIMIT).decode()


def _stdlib() -> Iterator[str]:
    root = Path(sysconfig.get_paths()["stdlib"])

    def module(path: Path) -> bool:
        # What a build or a distribution adds (config-*, _sysconfigdata*, sitecustomize) differs from machine to machine.
        return path.relative_to(root).parts[0].removesuffix(".py") in sys.stdlib_module_names and path.name not in _TESTS

    for path in _below(root, module):
        content = _bytes(path) if path.suffix == ".py" else b""
        if content and content.isascii():
            yield content.decode().replace("\r\n", "\n")


def _from_path(source: str) -> Corpus:
    if not source.strip():
        raise DataError(f"got the source {source!r}; give stdlib, shakespeare, or the path of a file or folder")
    path = Path(os.path.expanduser(source))
    # The functions of os.path answer where those of Path raise: for a name too long, or with a NUL in it.
    if os.path.isfile(path):
        return _corpus(path.name, source, [_decode(path, _bytes(path))])
    if not os.path.isdir(path):
        raise DataError(_missing(source, path))
    contents = ((file, _bytes(file)) for file in _below(path, lambda entry: not entry.name.startswith(".")))
    return _corpus(path.resolve().name, source, [_decode(file, content) for file, content in contents if not _binary(content)])


def _below(root: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """List the files below a folder; a folder that is not wanted is not entered."""
    found: list[Path] = []
    for folder, folders, files in os.walk(root, onerror=_unreadable):
        here = Path(folder)
        folders[:] = [name for name in folders if wanted(here / name)]
        found += [path for name in files if wanted(path := here / name) and path.is_file()]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _unreadable(error: OSError) -> None:
    raise DataError(f"could not read {error.filename} ({error.strerror}); make it readable, or give another source") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"could not read {path} ({error.strerror}); make it readable, or give another source") from error


def _binary(content: bytes) -> bool:
    return b"\0" in content and not content.startswith(_UTF16)


def _decode(path: Path, content: bytes) -> str:
    if content.startswith(_UTF16):
        raise DataError(f"{path} begins with the mark of UTF-16, byte 0x{content[0]:02x} at offset 0; convert it to UTF-8")
    zero = content.find(b"\0")
    if zero >= 0:
        raise DataError(f"{path} has a NUL byte at {_place(content, zero)}: it is binary; give a text file in UTF-8")
    try:
        return content.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        bad = f"byte 0x{content[error.start]:02x} at {_place(content, error.start)}"
        raise DataError(f"{path} is not UTF-8: {bad} ({error.reason}); convert it to UTF-8") from error


def _place(content: bytes, offset: int) -> str:
    line = content.count(b"\n", 0, offset) + 1
    return f"offset {offset} (line {line})"


def _missing(source: str, path: Path) -> str:
    if os.path.exists(path):
        return f"{source} is neither a file nor a folder; give a text file"
    first = next((place for place in (path, *path.parents) if os.path.isdir(place.parent)), path)
    try:
        names = sorted(entry.name for entry in first.parent.iterdir())
    except OSError:
        names = []  # a folder that may be entered but not listed: there is nothing to suggest
    near = [str(first.parent / name) for name in difflib.get_close_matches(first.name, names)]
    near = difflib.get_close_matches(source, ["stdlib", "shakespeare"], 1) + near
    hint = f"did you mean {' or '.join(near)}?" if near else "give one of these"
    return f"got source {source[:200]!r}, which is neither stdlib, shakespeare, nor the path of a file or folder; {hint}"
