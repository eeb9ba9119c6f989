"""How a figure is drawn: one column wide, in colours and dashes that every reader can tell apart."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable
from typing import Any

from craft.report.average import Point, average
from craft.report.comparison import Comparison, Group
from craft.report.curves import ZERO, axes
from craft.report.story import CLOCK
from craft.report.words import plain

__all__ = ["curve", "drawn", "last_values"]

_SIZE = (3.4, 2.4)
"""Inches: one column of a two-column paper."""
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito 2008, without the yellow that white paper swallows."""
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.2, 1.5)), (0, (6, 2, 1.5, 2)), (0, (10, 3)))
_STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "svg.fonttype": "none",
    "svg.hashsalt": "craft",
}
_UNITS = {"loss": "loss (nats per token)", "bits": "bits per token", "bits_per_byte": "bits per byte"}


def drawn(paint: Callable[[Any], None]) -> dict[str, bytes]:
    """Return a figure as SVG and PNG, by these endings; `paint` is given matplotlib's empty figure."""
    import matplotlib
    from matplotlib.figure import Figure

    found = {}
    with matplotlib.rc_context(_STYLE):
        picture = Figure(figsize=_SIZE, layout="constrained")
        paint(picture)
        for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
            stream = io.BytesIO()
            picture.savefig(stream, format=kind, dpi=300, metadata=metadata)
            found[kind] = stream.getvalue()
    return found


def curve(comparison: Comparison, axis: str, names: list[str], title: str) -> Callable[[Any], None]:
    """Draw metrics against steps, tokens, FLOPs or time: a line a group, with a band where it has several seeds.

    Of a pair, the training's lines are thin, the held-out ones have dots, and the first tenth does not choose the height.
    """
    pair = len(names) > 1

    def paint(picture: Any) -> None:
        place = picture.add_subplot()
        unit, size = _unit(comparison) if axis == CLOCK else ("", 1.0)
        heights: list[float] = []
        for index, group in enumerate(comparison.groups):
            for name in names:
                points = average(group, axis, name)
                _line(place, points, index, size, held=name.startswith("eval/"), faint=pair and not name.startswith("eval/"))
                heights += _heights(points, late=pair)
            if len(comparison.groups) > 1:
                place.plot([], [], label=_wrapped(group, 50), **_look(index))
        if all(any(story.column(name) for story in comparison.stories) for name in names) and pair:
            place.plot([], [], color="gray", linewidth=0.7, label="training")
            place.plot([], [], color="gray", linewidth=1.0, marker="o", markersize=2.5, label="held out")
        _dressed(place, f"wall time ({unit})" if unit else dict(axes(comparison.stories)).get(axis, axis), title)
        _limits(place, heights, zero=names[0] in ZERO)
        _legend(picture, place, [_wrapped(group, 50) for group in comparison.groups])

    return paint


def _wrapped(group: Group, width: int) -> str:
    """Return a group's label in lines of so many characters."""
    return "\n".join(textwrap.wrap(plain(group.label), width) or [""])


def _look(index: int) -> dict[str, Any]:
    return {"color": _COLOURS[index % len(_COLOURS)], "linestyle": _DASHES[index % len(_DASHES)]}


def _line(place: Any, points: list[Point], index: int, size: float, *, held: bool, faint: bool) -> None:
    x, y = [point.x / size for point in points], [point.y for point in points]
    mark = {"marker": "o", "markersize": 2.5} if held else {}
    place.plot(x, y, alpha=0.55 if faint else 1.0, linewidth=0.7 if faint else 1.0, **mark, **_look(index))
    low, high = [point.y - point.half for point in points], [point.y + point.half for point in points]
    place.fill_between(x, low, high, color=_look(index)["color"], alpha=0.15, linewidth=0)


def _heights(points: list[Point], *, late: bool) -> list[float]:
    last = max((point.x for point in points), default=0.0)
    return [point.y for point in points if not late or point.x >= last / 10]


def _dressed(place: Any, x: str, y: str) -> None:
    place.set_xlabel(x)
    place.set_ylabel(_UNITS.get(y, y.replace("_", " ")))
    place.ticklabel_format(axis="x", style="sci", scilimits=(-3, 5), useMathText=True)


def _limits(place: Any, heights: list[float], *, zero: bool) -> None:
    """Let the lines choose the height: the band of two seeds would press them flat."""
    if zero:
        place.set_ylim(0, 1.1 * max(heights, default=1.0))
    elif heights and max(heights) > min(heights):
        room = 0.05 * (max(heights) - min(heights))
        place.set_ylim(min(heights) - room, max(heights) + room)


def _legend(picture: Any, place: Any, labels: list[str]) -> None:
    lines = "\n".join(labels).count("\n") + 1
    if lines > 5:  # below the axes, which keep their size
        picture.set_size_inches(_SIZE[0], _SIZE[1] + 0.16 * lines)
        picture.legend(*place.get_legend_handles_labels(), loc="outside lower left", ncols=1)
    elif place.get_legend_handles_labels()[0]:
        place.legend()


def last_values(comparison: Comparison) -> Callable[[Any], None]:
    """Draw the last values of the measure to judge by: a faint dot a seed, and the mean with its interval."""
    name = comparison.metrics[0]

    def paint(picture: Any) -> None:
        labels = [_wrapped(group, 24) for group in comparison.groups]
        tallest = max(label.count("\n") + 1 for label in labels)
        picture.set_size_inches(_SIZE[0], 0.7 + 0.24 * max(1.0, 0.6 * tallest) * len(labels))
        place = picture.add_subplot()
        for index, group in enumerate(comparison.groups):
            _dots(place, group, index, name)
        place.set_yticks(range(len(labels)), labels)
        place.set_ylim(len(comparison.groups) - 0.5, -0.5)
        place.grid(axis="y", visible=False)
        subject = name.removeprefix("eval/")
        place.set_xlabel(("held-out " if name.startswith("eval/") else "") + _UNITS.get(subject, subject.replace("_", " ")))

    return paint


def _dots(place: Any, group: Group, index: int, name: str) -> None:
    found = group.final(name)
    if found is None:
        return
    colour = _look(index)["color"]
    values = [value for value in (story.last(name) for story in group.stories) if value is not None]
    place.plot(values, [index + 0.22] * len(values), "o", markersize=2.5, color=colour, alpha=0.45, markeredgewidth=0)
    place.errorbar(found.mean, index, xerr=found.half, fmt="o", markersize=4, color=colour, capsize=2.5, elinewidth=1.0)


def _unit(comparison: Comparison) -> tuple[str, float]:
    longest = max(story.seconds or 0.0 for story in comparison.stories)
    return ("seconds", 1.0) if longest < 240 else ("minutes", 60.0) if longest < 4 * 3600 else ("hours", 3600.0)
