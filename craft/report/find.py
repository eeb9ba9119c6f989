"""The runs that are meant by what was typed: each a run's directory, or a folder that holds runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from craft import config
from craft.errors import UsageError
from craft.store import MANIFEST

__all__ = ["Found", "find"]

_CONFIG, _METRICS = "config.json", "metrics.jsonl"


class Found(NamedTuple):
    """Directories of runs, and those in folders that have reported nothing yet."""

    directories: tuple[Path, ...]
    silent: tuple[Path, ...]


def find(places: Sequence[Path]) -> Found:
    """Find runs.

    Parameters
    ----------
    places
        Directories of runs, or folders that are searched for them, all the way down.

    Returns
    -------
    The runs in the order given, those of a folder by their path. A run in a folder that has reported nothing is not
    compared, but told; one that was named itself is returned, and refused where it is read.

    Raises
    ------
    UsageError
        If a place does not exist or holds no run, or a run is meant twice.
    """
    if not places:
        raise UsageError("got no run; name directories of runs, or a folder that holds runs: craft compare outputs/char_1m")
    directories: list[Path] = []
    silent: list[Path] = []
    for place in places:
        if _is_run(place):
            directories.append(place)
            continue
        inside = list(_runs(place)) if place.is_dir() else []
        if not inside:
            what = "holds no run" if place.is_dir() else "is a file" if place.exists() else "does not exist"
            raise UsageError(f"got {place}, which {what}; give the directory of a run, or a folder that holds runs")
        directories += [run for run in inside if _reports(run)]
        silent += [run for run in inside if not _reports(run)]
    _once(directories)
    if not directories:
        raise UsageError(f"got {_words(places)}, where no run has metrics yet; wait for the first report")
    return Found(tuple(directories), tuple(silent))


def _runs(folder: Path) -> Iterator[Path]:
    for root, names, files in os.walk(folder):
        here = Path(root)
        if _CONFIG in files and _is_run(here):
            names.clear()
            yield here
        elif MANIFEST in files:  # a checkpoint
            names.clear()
        names[:] = sorted(name for name in names if not name.startswith("."))


def _is_run(directory: Path) -> bool:
    """Tell a run's config.json from those that other programs write."""
    try:
        data = config.load(directory / _CONFIG)
    except config.ConfigError:
        return False
    return "experiment" in data and "format" in data


def _reports(directory: Path) -> bool:
    path = directory / _METRICS
    return path.is_file() and path.stat().st_size > 0


def _once(directories: Sequence[Path]) -> None:
    seen: dict[Path, Path] = {}
    for directory in directories:
        place = directory.resolve()
        if place in seen:
            raise UsageError(f"got the run {seen[place]} twice (again as {directory}); name each run once")
        seen[place] = directory


def _words(places: Sequence[Path]) -> str:
    return ", ".join(str(place) for place in places)
