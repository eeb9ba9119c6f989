"""What a sweep has found, as text: its trials with the best one first, and its settings over their seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from craft.report.interval import interval
from craft.sweep.journal import Row

__all__ = ["order", "settings", "table"]


def order(rows: Sequence[Row], metric: str) -> list[Row]:
    """Sort trials: the best first, those without a finite number last. Less is better, but of an accuracy."""
    return sorted(rows, key=lambda row: (_badness(row.result.get(metric, math.nan), metric), row.number))


def _badness(value: float, metric: str) -> float:
    if not math.isfinite(value):
        return math.inf
    return -value if "accuracy" in metric else value


def table(rows: Sequence[Row], metric: str, width: int = 80) -> str:
    """Return a line for each trial: its number, status, steps, measure and what it changes."""
    lines = [f"{'trial':>5}  {'status':<9}{'step':>8}  {metric:>12}  changes"]
    for row in order(rows, metric):
        value = row.result.get(metric, math.nan)
        shown = f"{value:.4f}" if math.isfinite(value) else "-"
        lines.append(f"{row.number:>5}  {row.status:<9}{row.step:>8}  {shown:>12}  {_changes(row.changes)}")
    return "\n".join(line if len(line) <= width else f"{line[: width - 3]}..." for line in lines)


def settings(rows: Sequence[Row], metric: str, width: int = 80) -> str:
    """Return a line for each setting that was tried with several seeds: the mean and its 95 % interval, the best first."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(_changes({path: value for path, value in row.changes.items() if path != "seed"}), []).append(row)
    if all(len(group) == 1 for group in groups.values()):
        return ""
    found = []
    for name, group in groups.items():
        values = [row.result[metric] for row in group if math.isfinite(row.result.get(metric, math.nan))]
        found.append((name, interval(values) if values else None, len(group)))
    found.sort(key=lambda one: math.inf if one[1] is None else _badness(one[1].mean, metric))
    lines = [f"{metric:>12}  {'+-':>8}  {'seeds':>5}  setting"]
    for name, one, number in found:
        mean, half = ("-", "-") if one is None else (f"{one.mean:.4f}", "-" if one.half is None else f"{one.half:.4f}")
        seeds = str(number) if one is None or one.n == number else f"{one.n}/{number}"
        lines.append(f"{mean:>12}  {half:>8}  {seeds:>5}  {name or '(nothing changed)'}")
    return "\n".join(line if len(line) <= width else f"{line[: width - 3]}..." for line in lines)


def _changes(changes: dict[str, Any]) -> str:
    return " ".join(f"{path}={value:g}" if isinstance(value, float) else f"{path}={value}" for path, value in changes.items())
