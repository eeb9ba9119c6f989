"""The numbers that the charts of the page draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from craft.report.comparison import Comparison
from craft.report.interval import quantile
from craft.report.story import CLOCK, FLOPS, MEMORY, SPEED, Story

__all__ = ["ZERO", "axes", "curves", "panels", "subjects"]

_POINTS = 2000
"""Most reports of a run that are drawn; of more, every n-th is, and all that hold a held-out value."""

_AXES = (("step", "updates"), ("tokens", "tokens"), (FLOPS, "FLOPs"), (CLOCK, "wall time"))
_PANELS = (
    ("train/lr", "learning rate"),
    ("train/grad_norm", "gradient norm"),
    (SPEED, "tokens a second"),
    (MEMORY, "peak memory, MB"),
)
ZERO = (SPEED, MEMORY)
"""Quantities whose axis begins at zero."""


def axes(stories: Sequence[Story]) -> list[tuple[str, str]]:
    """Return what the curves can be drawn against, as (name, title): what at least one run knows."""
    return [(name, title) for name, title in _AXES if any(value > 0 for story in stories for value in story.column(name))]


def subjects(comparison: Comparison) -> list[str]:
    """Return what is measured in training or held out (`loss` of train/loss and eval/loss), the one to judge by first."""
    names = {name for story in comparison.stories for name in story.names}
    held = [name.removeprefix("eval/") for name in comparison.metrics if name.startswith("eval/")]
    trained = [name for name in ("loss", "accuracy") if f"train/{name}" in names]
    return list(dict.fromkeys((*held, *trained)))


def panels(comparison: Comparison) -> list[tuple[str, str]]:
    """Return the small charts as (name, title): everything that is no subject."""
    names = dict.fromkeys(name for story in comparison.stories for name in story.names)
    known = dict(_PANELS)
    drawn = {f"{prefix}/{subject}" for prefix in ("train", "eval") for subject in subjects(comparison)}
    there = {name for story in comparison.stories for row in story.rows for name in row}
    return [
        *((name, title) for name, title in _PANELS if name in there),
        *((name, name) for name in names if name not in drawn and name not in known),
    ]


def curves(comparison: Comparison) -> dict[str, Any]:
    """Return plain JSON data: the runs' columns, and which charts are drawn of them."""
    sizes = {len(group.stories) for group in comparison.groups}
    return {
        "axes": axes(comparison.stories),
        "subjects": subjects(comparison),
        "panels": [{"name": name, "title": title, "zero": name in ZERO} for name, title in panels(comparison)],
        "t": {size: quantile(size - 1) for size in sorted(sizes) if size > 1},
        "groups": [
            {
                "label": group.label,
                "runs": [
                    {"label": name, "columns": _columns(story)} for name, story in zip(group.names, group.stories, strict=True)
                ],
            }
            for group in comparison.groups
        ],
    }


def _columns(story: Story) -> dict[str, list[float | None]]:
    rows = _thinned(story.rows)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_plain(row.get(name)) for row in rows] for name in names}


def _thinned(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    stride = math.ceil(len(rows) / _POINTS)
    last = len(rows) - 1
    return [
        row
        for index, row in enumerate(rows)
        if index % stride == 0 or index == last or any(name.startswith("eval/") for name in row)
    ]


def _plain(value: float | None) -> float | None:
    """Return a number with six digits, which is more than a chart shows; None where it has none to show."""
    if value is None or not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.6g}")
