"""What `craft evaluate --detail` found of a run: where it loses, and whether its confidence can be believed."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

__all__ = ["EARLY", "RARE", "SURE", "Bin", "Judged", "read"]

EARLY = 16
"""Places that count as the beginning of a sample."""

RARE = 0.1
"""Share of the held-out targets that the rarest tokens make up, at least."""

SURE = 1e-3
"""Share of the targets that a bin of confidence holds, at least, for its accuracy to be drawn."""


@attrs.frozen
class Bin:
    """Targets of which the model was about as sure."""

    weight: float
    """How many."""
    confidence: float
    """Mean probability of the likeliest token."""
    accuracy: float
    """Share of them that the likeliest token was."""


@attrs.frozen
class Judged:
    """Losses of the validation split in nats a token, and the confidence behind them."""

    loss: float
    """Mean over all targets."""
    early: float
    """Mean over the first `EARLY` places of a sample."""
    late: float
    """Mean over the second half of a sample."""
    rare: float | None
    """Mean over the rarest tokens; None where frequencies are not known."""
    accuracy: float
    """Share of the targets that the likeliest token was."""
    calibration_error: float
    """Expected calibration error."""
    positions: tuple[float, ...]
    """Loss at each place of a sample."""
    bins: tuple[Bin, ...]
    """By confidence, those that hold targets."""


def read(path: Path, step: int) -> Judged | None:
    """Read a run's evaluation.json.

    Parameters
    ----------
    path
        The file.
    step
        The last step that the run has reported: what was found of an earlier state says nothing of this one.

    Returns
    -------
    None where there is no file, it is of another step, it has no detail, or a loss in it is not finite.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["validation"]
        return _judged(found["detail"]) if found["step"] == step else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _judged(detail: Mapping[str, Any]) -> Judged:
    places, rare = detail["positions"], _rarest(detail["frequencies"], detail["weight"])
    return Judged(
        loss=float(detail["loss"]),
        early=_mean(places[:EARLY]),
        late=_mean(places[len(places) // 2 :]),
        rare=_mean(rare) if rare else None,
        accuracy=float(detail["accuracy"]),
        calibration_error=float(detail["calibration_error"]),
        positions=tuple(float(one["loss"]) for one in places if one["weight"]),
        bins=tuple(Bin(*(float(one[field.name]) for field in attrs.fields(Bin))) for one in detail["bins"] if one["weight"]),
    )


def _rarest(groups: Sequence[Mapping[str, Any]], weight: float) -> list[Mapping[str, Any]]:
    """Return the groups of the rarest tokens that make up enough of the text."""
    before = itertools.accumulate((one["weight"] for one in groups), initial=0.0)
    return [one for one, so_far in zip(groups, before, strict=False) if so_far < RARE * weight]


def _mean(groups: Sequence[Mapping[str, Any]]) -> float:
    used = [one for one in groups if one["weight"]]
    return math.fsum(one["loss"] * one["weight"] for one in used) / math.fsum(one["weight"] for one in used)
