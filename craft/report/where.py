"""Where runs lose, as a part of the page: a table, the loss over the places of a sample, and accuracy over confidence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from craft.report import judged, markup, words
from craft.report.comparison import Comparison, Group
from craft.report.judged import Judged
from craft.report.story import Story

__all__ = ["where"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 380, 220, 46, 34
_STEPS = 4

Line = tuple[int, list[tuple[float, float]]]
"""Number of the group, and its points, each from 0 to 1 in both directions."""


def where(comparison: Comparison) -> str:
    """Return the table and the two charts; empty where no run was judged in detail."""
    seen = {index: _own(group) for index, group in enumerate(comparison.groups)}
    seen = {index: own for index, own in seen.items() if own}
    if not seen:
        return ""
    unit, scales = _unit(comparison)
    rows = {
        index: [[scales[story.directory] * value for value in one.positions] for story, one in own]
        for index, own in seen.items()
    }
    charts = _positions({index: _averaged(some) for index, some in rows.items()}, unit) + _calibration(seen)
    return _table(comparison, seen) + f'<div class="small">{charts}</div>'


def _own(group: Group) -> list[tuple[Story, Judged]]:
    return [(story, story.judged) for story in group.stories if story.judged is not None]


def _unit(comparison: Comparison) -> tuple[str, dict[Path, float]]:
    """Return the unit that all runs share, and what a nat a token of each is in it."""
    each = {story.directory: story.bytes_per_token for story in comparison.stories}
    known = {place: 1 / (size * math.log(2)) for place, size in each.items() if size}
    if len(known) == len(each):
        return "bits a byte", known
    return "nats a token", dict.fromkeys(each, 1.0)


def _averaged(rows: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(values) for values in zip(*rows, strict=False)]


def _table(comparison: Comparison, seen: dict[int, list[tuple[Story, Judged]]]) -> str:
    heads = ("loss", f"first {judged.EARLY} places", "second half", "rarest tokens", "accuracy", "calibration error")
    names = ("loss", "early", "late", "rare", "accuracy", "calibration_error")
    rows = [
        (index, comparison.groups[index].label, [words.number(_mean(own, name)) for name in names])
        for index, own in seen.items()
    ]
    caption = (
        "The validation split, in nats a token: the beginning of a sample, where there is little to go by, and its second "
        f"half; the rarest tokens that make up {judged.RARE:.0%} of it, or more; the expected calibration error."
    )
    return markup.numbers(caption, heads, rows)


def _mean(own: Iterable[tuple[Story, Judged]], name: str) -> float | None:
    found = [value for _, one in own if (value := getattr(one, name)) is not None]
    return statistics.fmean(found) if found else None


def _positions(lines: dict[int, list[float]], unit: str) -> str:
    longest = max(len(line) for line in lines.values())
    values = [value for line in lines.values() for value in line]
    low, high = min(values), max(values)
    room = (high - low) or 1.0
    across = math.log(longest) or 1.0
    drawn = [
        (index, [(math.log(place) / across, (value - low) / room) for place, value in enumerate(line, 1)])
        for index, line in lines.items()
    ]
    powers = [2**power for power in range(0, int(math.log2(longest)) + 1, 2)]
    x = [(math.log(place) / across, str(place)) for place in powers]
    y = [(part / _STEPS, f"{low + room * part / _STEPS:.2f}") for part in range(_STEPS + 1)]
    return _chart(f"Loss over the place in a sample, {unit}", drawn, x, y, "place")


def _calibration(seen: dict[int, list[tuple[Story, Judged]]]) -> str:
    drawn: list[Line] = [
        (index, [(one.confidence, one.accuracy) for one in own[0][1].bins if one.weight >= judged.SURE * _weight(own[0][1])])
        for index, own in seen.items()
    ]
    ticks = [(part / _STEPS, f"{part / _STEPS:g}") for part in range(_STEPS + 1)]
    return _chart("Share that is right over the model's confidence", drawn, ticks, ticks, "confidence", diagonal=True)


def _weight(one: Judged) -> float:
    return math.fsum(some.weight for some in one.bins)


def _chart(
    title: str,
    lines: Sequence[Line],
    x: Sequence[tuple[float, str]],
    y: Sequence[tuple[float, str]],
    name: str,
    *,
    diagonal: bool = False,
) -> str:
    """Draw lines over ticks, which stand at a share of the width or height."""
    parts = [f'<path class="grid" d="M{_LEFT} {_up(at)}H{_WIDTH - 12}"/>' for at, _ in y]
    parts += [f'<text x="{_LEFT - 6}" y="{_up(at)}" dy="0.32em" text-anchor="end">{text}</text>' for at, text in y]
    parts += [f'<text x="{_right(at)}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{text}</text>' for at, text in x]
    parts.append(f'<text x="{_WIDTH - 12}" y="{_HEIGHT - 3}" text-anchor="end">{name}</text>')
    if diagonal:
        parts.append(f'<path class="tick" stroke-dasharray="3 3" d="M{_right(0)} {_up(0)}L{_right(1)} {_up(1)}"/>')
    for index, points in lines:
        look = f"curve held k{index % markup.COLOURS} d{index % markup.DASHES}"
        path = "L".join(f"{_right(at)} {_up(height)}" for at, height in points)
        parts.append(f'<path class="{look}" d="M{path}"/>' if points else "")
    drawing = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{title}">{"".join(parts)}</svg>'
    return f'<figure class="chart"><figcaption>{title}</figcaption><div class="plot">{drawing}</div></figure>'


def _right(part: float) -> str:
    return f"{_LEFT + part * (_WIDTH - 12 - _LEFT):.1f}"


def _up(part: float) -> str:
    return f"{_HEIGHT - _BOTTOM - part * (_HEIGHT - _BOTTOM - 10):.1f}"
