"""Where downloads and compiled programs are kept: the user's own cache directory."""

from __future__ import annotations

import os
from pathlib import Path

from craft.errors import UsageError

__all__ = ["cache_directory"]


def cache_directory(name: str) -> Path:
    r"""Return a directory of Craft in the user's cache, made private to the user (mode 0700) where it does not exist.

    It lies in `$XDG_CACHE_HOME/craft` where that is an absolute path, in `%LOCALAPPDATA%\craft` on Windows, else in
    `~/.cache/craft`.

    Parameters
    ----------
    name
        Name of the directory, such as `data`.

    Returns
    -------
    The directory's path, absolute.

    Raises
    ------
    UsageError
        If there is no such place, or it cannot be made.
    """
    root = _root() / "craft"
    place = root / name
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"could not make the cache directory {place} ({error.strerror}); set XDG_CACHE_HOME to another"
        ) from error
    return place


def _root() -> Path:
    chosen = os.environ.get("XDG_CACHE_HOME", "") or (os.environ.get("LOCALAPPDATA", "") if os.name == "nt" else "")
    if chosen and Path(chosen).is_absolute():  # the XDG standard says to ignore relative ones
        return Path(chosen)
    try:
        return Path.home() / ".cache"
    except RuntimeError as error:
        raise UsageError("found no home directory for the cache; set XDG_CACHE_HOME to an absolute path") from error
