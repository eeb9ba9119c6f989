"""The comparison for a terminal: plain text, aligned, as wide as the terminal is."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from craft.report import words
from craft.report.comparison import Comparison
from craft.track.text import oneline

__all__ = ["table"]

_GAP = 2
_NAME = 20
"""Least width of the names, in characters."""
_BESIDE = 8
"""Groups whose fields stand beside each other; of more, only the fields are named."""
_FIELDS = 24
"""Fields that differ which are listed; the page lists all."""


class _Column(NamedTuple):
    head: str
    cells: list[str]

    @property
    def width(self) -> int:
        return max(map(len, (self.head, *self.cells)))


def table(comparison: Comparison, width: int = 80) -> str:
    """Lay out a comparison.

    Parameters
    ----------
    comparison
        The runs.
    width
        Longest line, in characters.

    Returns
    -------
    Lines that end with a newline: the final values, what differs, and what to beware of.
    """
    parts = [*_wrapped(_head(comparison), width), "", *_finals(comparison, width)]
    if comparison.differences:
        parts += ["", *_differences(comparison, width)]
    if comparison.notes:
        parts += ["", *(line for note in comparison.notes for line in _wrapped(f"Note: {oneline(note)}", width))]
    return "\n".join(line.rstrip() for line in parts) + "\n"


def _head(comparison: Comparison) -> str:
    runs, groups = len(comparison.stories), len(comparison.groups)
    text = f"{comparison.title}: {runs} run{'s' * (runs > 1)}"
    if comparison.repeated:
        text += f" of {groups} configuration{'s' * (groups > 1)}; mean ± half the 95 % interval, n seeds"
    return oneline(text)


def _finals(comparison: Comparison, width: int) -> list[str]:
    first = [_Column("#", [str(index + 1) for index in range(len(comparison.groups))])]
    if comparison.repeated:
        first.append(_Column("n", [str(len(group.stories)) for group in comparison.groups]))
    first.append(_Column("step", [group.progress for group in comparison.groups]))
    metrics = [_metric(comparison, name) for name in comparison.metrics]
    lead, *others = [column for column in metrics if any(column.cells)]
    names = [oneline(group.label) for group in comparison.groups]
    room = width - min(_NAME, max(map(len, names))) - sum(column.width + _GAP for column in (*first, lead))
    chosen: list[_Column] = []
    costs = _costs(comparison)
    for column in (*costs[:1], *others[:1], *costs[1:], *others[1:]):
        if column.width + _GAP <= room:
            room -= column.width + _GAP
            chosen.append(column)
    columns = [lead, *(column for column in (*others, *costs) if column in chosen)]
    name_width = min(max(map(len, names)), min(_NAME, max(map(len, names))) + room)
    lines = _grid(first, names, columns, name_width)
    missing = [oneline(column.head) for column in (*others, *costs) if column not in chosen]
    return lines + (_wrapped(f"no room for {', '.join(missing)}: --json or --html has them", width) if missing else [])


def _metric(comparison: Comparison, name: str) -> _Column:
    best = comparison.best(name)
    pairs = [words.spread(group.final(name)) for group in comparison.groups]
    half = max(len(pair[1]) for pair in pairs)
    marks = ["*" if index in best else " " * bool(best) for index in range(len(pairs))]
    cells = [f"{mean}{mark}{f' {spread:<{half}}' if half else ''}" for (mean, spread), mark in zip(pairs, marks, strict=True)]
    return _Column(oneline(name), cells if any(mean for mean, _ in pairs) else [""] * len(pairs))


def _costs(comparison: Comparison) -> list[_Column]:
    """Return what the runs took; columns without a value are left out."""
    groups = comparison.groups
    every = [
        _Column("tok/s", [words.rate(group.mean("speed")) for group in groups]),
        _Column("time", [words.time(group.mean("seconds")) for group in groups]),
        _Column("MB", [words.megabytes(group.mean("memory")) for group in groups]),
        _Column("params", [words.large(group.mean("parameters")) for group in groups]),
    ]
    return [column for column in every if any(column.cells)]


def _grid(first: Sequence[_Column], names: Sequence[str], columns: Sequence[_Column], width: int) -> list[str]:
    number, *rest = first
    right = [*rest, *columns]
    gap = " " * _GAP
    rows = [(number.head, ["run"], [column.head for column in right])]
    for index, name in enumerate(names):
        rows.append((number.cells[index], textwrap.wrap(name, width) or [""], [column.cells[index] for column in right]))
    lines = []
    for head, parts, cells in rows:
        shown = [f"{cell:>{column.width}}" for cell, column in zip(cells, right, strict=True)]
        lines.append(gap.join((f"{head:>{number.width}}", f"{parts[0]:<{width}}", *shown)))
        lines += [" " * (number.width + _GAP) + part for part in parts[1:]]
    return lines


def _differences(comparison: Comparison, width: int) -> list[str]:
    """Lay out the fields that differ, as many groups beside each other as fit."""
    if len(comparison.groups) > _BESIDE:
        paths = ", ".join(oneline(path) for path in comparison.differences)
        return _wrapped(f"what differs: {paths}; --json or --html has the values", width)
    fields = list(comparison.differences.items())
    names = [oneline(path) for path, _ in fields[:_FIELDS]]
    cells = [[_cut(oneline(words.setting(value))) for value in values] for _, values in fields[:_FIELDS]]
    groups = range(len(comparison.groups))
    sizes = [max(len(str(group + 1)), *(len(row[group]) for row in cells)) for group in groups]
    left = min(max(map(len, ("what differs", *names))), 32)
    lines: list[str] = []
    start = 0
    while start < len(sizes):
        stop, room = start + 1, width - left - _GAP - sizes[start]
        while stop < len(sizes) and room >= sizes[stop] + _GAP:
            room -= sizes[stop] + _GAP
            stop += 1
        some = range(start, stop)
        lines.append(_line("what differs", [str(group + 1) for group in some], [sizes[group] for group in some], left))
        lines += [
            _line(name, [row[group] for group in some], [sizes[group] for group in some], left)
            for name, row in zip(names, cells, strict=True)
        ]
        start = stop
    more = len(fields) - len(names)
    return lines + ([f"and {more} fields more: --json or --html has them"] if more else [])


def _line(name: str, cells: Sequence[str], sizes: Sequence[int], left: int) -> str:
    shown = name if len(name) <= left else f"...{name[-(left - 3) :]}"
    return (" " * _GAP).join((f"{shown:<{left}}", *(f"{cell:>{size}}" for cell, size in zip(cells, sizes, strict=True))))


def _cut(text: str) -> str:
    return text if len(text) <= 24 else f"{text[:21]}..."


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ")
