"""Figures for a paper: SVG and PNG, one column wide, in colours and dashes that every reader can tell apart."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from craft import store
from craft.errors import UsageError
from craft.report import picture
from craft.report.comparison import Comparison
from craft.report.curves import axes, panels, subjects

__all__ = ["check_figures", "write_figures"]


def check_figures(folder: Path) -> None:
    """Refuse a folder that figures cannot be written to, or a machine that cannot draw them.

    Raises
    ------
    UsageError
        If matplotlib is missing, or the folder cannot be made.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("got --figures, but matplotlib is not installed; install it: pip install 'craft[report]'")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"got {folder} for figures, which cannot be made ({error.strerror}); name another folder") from error


def write_figures(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw a comparison.

    Parameters
    ----------
    comparison
        The runs.
    folder
        Where NAME.svg and NAME.png go; files of these names are replaced.

    Returns
    -------
    The files: the measure to judge by against all that it can be drawn against, its last values with their intervals,
    and every other quantity against the updates.

    Raises
    ------
    UsageError
        If matplotlib is missing or a file cannot be written.
    """
    check_figures(folder)
    written: list[Path] = []
    for name, paint in _plans(comparison).items():
        for kind, data in picture.drawn(paint).items():
            path = folder / f"{name}.{kind}"
            try:
                store.write(path, data)
            except OSError as error:
                raise UsageError(f"got {folder} for figures, where {path.name} cannot be written ({error.strerror})") from error
            written.append(path)
    return written


def _plans(comparison: Comparison) -> dict[str, Callable[[Any], None]]:
    """Return what is drawn, by the names of the files."""
    plans: dict[str, Callable[[Any], None]] = {}
    for subject in subjects(comparison)[:1]:
        pair = [f"train/{subject}", f"eval/{subject}"]
        for axis, _ in axes(comparison.stories):
            plans[f"{_file(subject)}-by-{_file(axis)}"] = picture.curve(comparison, axis, pair, subject)
    if len(comparison.groups) > 1:
        plans["last-values"] = picture.last_values(comparison)
    for name, title in panels(comparison):
        plans[_file(name)] = picture.curve(comparison, "step", [name], title)
    return plans


def _file(name: str) -> str:
    short = name.removeprefix("train/").removeprefix("clock/")
    return "".join(letter if letter.isalnum() else "-" for letter in short).strip("-") or "metric"
