"""What `craft evaluate` shows: tables for people, at most 80 columns wide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["answers", "detail", "harness", "values"]

_SHARES = (("acc", "likeliest is right"), ("acc_bytes", "likeliest a byte is right"), ("exact_match", "written exactly"))


def values(numbers: Mapping[str, float]) -> str:
    """Show numbers, one a line."""
    width = max(12, *(len(name) + 2 for name in numbers))
    return "".join(f"  {name:<{width}}{value:.4f}\n" for name, value in numbers.items())


def detail(found: Mapping[str, Any]) -> str:
    """Show what `evaluate.detail` found; positions are put together by powers of two."""
    parts = [_positions(found["positions"])]
    if found["frequencies"]:
        parts.append(_frequencies(found["frequencies"]))
    return "\n" + "\n".join([*parts, _bins(found)])


def answers(found: Mapping[str, Any]) -> str:
    """Show what `evaluate.answer_questions` found."""
    counts = [f"{found[name]} {name}" for name in ("choices", "prompts") if name in found]
    counts += [f"{found[name]} {name}" for name in ("truncated", "skipped") if found[name]]
    lines = [f"  {', '.join(counts)}"]
    for name, meaning in _SHARES:
        if name in found:
            guess = f", guessing {found['chance']:.4f}" if name == "acc" else ""
            lines.append(f"  {name:<12}{_with_error(found[name], found[f'{name}_stderr'])}  {meaning}{guess}")
    return "\n".join(lines) + "\n"


def harness(found: Mapping[str, Any]) -> str:
    """Show what the harness measured: a line a metric, with its standard error beside it."""
    lines = [f"  {found['truncated']} truncated"] if found["truncated"] else []
    for task, metrics in found["tasks"].items():
        for name, value in metrics.items():
            metric, _, way = name.partition(",")
            if metric.endswith("_stderr"):
                continue
            shown = _with_error(value, metrics.get(f"{metric}_stderr,{way}")) if way else f"{value:g}"
            lines.append(f"  {task:<28} {name:<24} {shown}")
    return "\n".join(lines) + "\n"


def _with_error(value: float, error: float | None) -> str:
    return f"{value:.4f}" + (f" +- {error:.4f}" if error is not None else "")


def _positions(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = ["loss by position in the context, nats", f"  {'position':<26}{'targets':>14}{'loss':>10}{'accuracy':>10}"]
    start = 1
    while start <= len(rows):
        end = min(start if start == 1 else 2 * (start - 1), len(rows))  # 1, 2, 3-4, 5-8, ...
        lines.append(_line(_span(start, end), rows[start - 1 : end]))
        start = end + 1
    return "\n".join(lines) + "\n"


def _frequencies(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        "loss by how often the target is in the training data, nats",
        f"  {'times':<26}{'targets':>14}{'loss':>10}{'accuracy':>10}{'different tokens':>18}",
    ]
    for row in rows:
        name = "never" if row["to"] == 0 else _span(row["from"], row["to"])
        lines.append(_line(name, [row]) + f"{row['tokens']:>18,}")
    return "\n".join(lines) + "\n"


def _bins(found: Mapping[str, Any]) -> str:
    error, brier = (_number(found[name]).strip() for name in ("calibration_error", "brier"))
    lines = [
        f"calibration: expected calibration error {error}, Brier score {brier}",
        f"  {'confidence':<26}{'targets':>14}{'mean':>10}{'accuracy':>10}",
    ]
    for row in found["bins"]:
        if row["weight"]:
            counted = f"{row['from']:.3f} to {row['to']:.3f}"
            numbers = f"{_number(row['confidence'])}{_number(row['accuracy'])}"
            lines.append(f"  {counted:<26}{row['weight']:>14,.0f}{numbers}")
    return "\n".join(lines) + "\n"


def _line(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    weight = sum(row["weight"] for row in rows)
    means = (_mean(rows, key, weight) for key in ("loss", "accuracy"))
    return f"  {name:<26}{weight:>14,.0f}" + "".join(map(_number, means))


def _mean(rows: Iterable[Mapping[str, Any]], key: str, weight: float) -> float | None:
    known = [(row[key], row["weight"]) for row in rows if row["weight"]]
    if not weight or any(value is None for value, _ in known):
        return None
    return float(sum(value * part for value, part in known) / weight)


def _number(value: float | None) -> str:
    return f"{'-':>10}" if value is None else f"{value:>10.4f}"


def _span(first: int, last: int | None) -> str:
    if last is None:
        return f"{first:,} or more"
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"
