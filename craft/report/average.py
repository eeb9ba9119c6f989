"""One curve of several seeds."""

from __future__ import annotations

from typing import NamedTuple

from craft.report.comparison import Group
from craft.report.interval import interval

__all__ = ["Point", "average"]


class Point(NamedTuple):
    """A place on the x axis, the mean there, and half of its 95 % interval (0 for one run)."""

    x: float
    y: float
    half: float


def average(group: Group, axis: str, name: str) -> list[Point]:
    """Average the runs of a group step by step, at the steps where all that have the metric have a value.

    Parameters
    ----------
    group
        Runs that differ only in their seed.
    axis, name
        What is drawn against what, by the names in the runs' rows.

    Returns
    -------
    Points by step; x is the mean over the runs, too, since seeds take different times.
    """
    runs = [story for story in group.stories if story.column(name)]
    columns = [{row["step"]: (row[axis], row[name]) for row in story.rows if axis in row and name in row} for story in runs]
    steps = sorted(set[float]().union(*columns).intersection(*columns)) if columns else []
    found = []
    for step in steps:
        x = interval([column[step][0] for column in columns])
        y = interval([column[step][1] for column in columns])
        if y.mean == y.mean:
            found.append(Point(x.mean, y.mean, y.half or 0.0))
    return found
