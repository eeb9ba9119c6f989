"""Texts that need no file of one's own: Python's standard library, all installed Python, tiny Shakespeare."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from craft.cache import cache_directory
from craft.data.download import fetch
from craft.data.errors import DataError

__all__ = ["NAMES", "below", "files", "place", "texts"]

NAMES = ("stdlib", "python", "shakespeare")
_SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
_SHAKESPEARE_LIMIT = 4_000_000
_TESTS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})


def place(name: str) -> str:
    """Return what messages call a corpus."""
    return sysconfig.get_paths()["stdlib"] if name == "stdlib" else name


def files(name: str) -> list[Path]:
    """List the files of a corpus in their order; what is not there is downloaded.

    `stdlib` has the modules that `sys.stdlib_module_names` names, without tests; `python` has these, and then every Python
    file below the folders of installed packages, their tests too. The address of Shakespeare is that in
    `CRAFT_SHAKESPEARE_URL`, where that is set.
    """
    if name == "shakespeare":
        url = os.environ.get("CRAFT_SHAKESPEARE_URL") or _SHAKESPEARE_URL
        path = cache_directory("data") / "tinyshakespeare.txt"
        fetch(url, path, sha256=_SHAKESPEARE_SHA256, limit=_SHAKESPEARE_LIMIT)
        return [path]
    return _stdlib() if name == "stdlib" else [*_stdlib(), *_installed()]


def texts(paths: Iterable[Path]) -> Iterator[str]:
    """Read files of Python as they come: those that are empty or not ASCII are left out, to keep the alphabet small.

    Line ends are those of Unix on every system.
    """
    for path in paths:
        content = _bytes(path)
        if content and content.isascii() and b"\0" not in content:
            yield content.decode().replace("\r\n", "\n")


def _stdlib() -> list[Path]:
    root = Path(sysconfig.get_paths()["stdlib"])

    def module(path: Path) -> bool:
        # What a build or a distribution adds (config-*, _sysconfigdata*, sitecustomize) differs from machine to machine.
        return path.relative_to(root).parts[0].removesuffix(".py") in sys.stdlib_module_names and path.name not in _TESTS

    return [path for path in below(root, module) if path.suffix == ".py"]


def _installed() -> list[Path]:
    roots = dict.fromkeys(Path(sysconfig.get_paths()[name]) for name in ("purelib", "platlib"))
    found = [path for root in roots if root.is_dir() for path in below(root, lambda path: path.name != "__pycache__")]
    return [path for path in found if path.suffix == ".py"]


def below(root: Path, wanted: Callable[[Path], bool]) -> list[Path]:
    """List the files below a folder, by their POSIX paths; a folder that is not wanted is not entered."""
    found: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=_unreadable):
        here = Path(folder)
        folders[:] = [name for name in folders if wanted(here / name)]
        found += [path for name in names if wanted(path := here / name) and path.is_file()]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def _unreadable(error: OSError) -> None:
    raise DataError(f"could not read {error.filename} ({error.strerror}); make it readable, or give another source") from error


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"could not read {path} ({error.strerror}); make it readable, or give another source") from error
