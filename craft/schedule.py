"""Learning rates over the run, as functions of its progress.

A schedule is a `types.Value`: it reads `ctx.progress`, the fraction of the run that is done before the update, 0 at the
first one. Warm-up climbs in a straight line from a hundredth of the peak, not from zero, so that the first update counts.
The last update is made at progress 1 - 1/steps: the floor is approached and reached only there where the next one would be.

References: Loshchilov and Hutter 2016, arXiv:1608.03983 (cosine); Hu et al. 2024, arXiv:2404.06395, and Haegele et al. 2024,
arXiv:2405.18392 (warm-up, stable, decay).
"""

from __future__ import annotations

import math
from typing import Literal

import attrs
import torch

from craft.types import Context, Tensor, Value, resolve

__all__ = ["Schedule", "constant", "cosine", "linear", "warmup_stable_decay"]

_START = 0.01


def constant(peak: Value, warmup: float = 0.0) -> Value:
    """Warm up, then stay at the peak.

    Parameters
    ----------
    peak
        Largest value.
    warmup
        Fraction of the run that warms up.

    Returns
    -------
    Value.

    Raises
    ------
    ValueError
        If the fraction is not in [0, 1).
    """
    _check(warmup, 0.0)
    return lambda ctx: resolve(peak, ctx) * _ramp(ctx.progress, warmup)


def cosine(peak: Value, warmup: float = 0.05, floor: float = 0.0) -> Value:
    """Warm up, then fall along half a cosine until the end.

    Parameters
    ----------
    peak
        Largest value.
    warmup
        Fraction of the run that warms up.
    floor
        Value at the end, as a fraction of the peak.

    Returns
    -------
    Value.

    Raises
    ------
    ValueError
        If a fraction is not in [0, 1), the floor not in [0, 1].

    References
    ----------
    Loshchilov and Hutter 2016, "SGDR: stochastic gradient descent with warm restarts", arXiv:1608.03983.
    """
    _check(warmup, floor)

    def read(ctx: Context) -> Tensor | float:
        angle = math.pi * _passed(ctx.progress, warmup, 1.0)
        wave = torch.cos(angle) if isinstance(angle, Tensor) else math.cos(angle)
        return resolve(peak, ctx) * (_ramp(ctx.progress, warmup) * (floor + (1.0 - floor) * 0.5 * (1.0 + wave)))

    return read


def linear(peak: Value, warmup: float = 0.05, floor: float = 0.0) -> Value:
    """Warm up, then fall in a straight line until the end.

    Parameters
    ----------
    peak
        Largest value.
    warmup
        Fraction of the run that warms up.
    floor
        Value at the end, as a fraction of the peak.

    Returns
    -------
    Value.

    Raises
    ------
    ValueError
        If a fraction is not in [0, 1), the floor not in [0, 1].
    """
    return warmup_stable_decay(peak, warmup, 1.0 - warmup, floor)


def warmup_stable_decay(peak: Value, warmup: float = 0.05, decay: float = 0.2, floor: float = 0.0) -> Value:
    """Warm up, stay at the peak, then fall in a straight line until the end.

    Parameters
    ----------
    peak
        Largest value.
    warmup
        Fraction of the run that warms up, at its start.
    decay
        Fraction of the run in which the value falls, at its end.
    floor
        Value at the end, as a fraction of the peak.

    Returns
    -------
    Value.

    Raises
    ------
    ValueError
        If a fraction is out of range, or warm-up and decay together are longer than the run.

    References
    ----------
    Hu et al. 2024, "MiniCPM", arXiv:2404.06395; Haegele et al. 2024, "Scaling laws and compute-optimal training beyond
    fixed training durations", arXiv:2405.18392.
    """
    _check(warmup, floor)
    if not 0.0 < decay <= 1.0:
        raise ValueError(f"got decay={decay}; expected a fraction of the run in (0, 1]")
    if warmup + decay > 1.0 + 1e-9:  # linear() gives 1 - warmup, rounded
        raise ValueError(f"got warmup={warmup} and decay={decay}; expected no more than the whole run together: shorten one")

    def read(ctx: Context) -> Tensor | float:
        fall = 1.0 - (1.0 - floor) * _passed(ctx.progress, 1.0 - decay, 1.0)
        return resolve(peak, ctx) * (_ramp(ctx.progress, warmup) * fall)

    return read


def _passed(progress: Tensor | float, first: float, last: float) -> Tensor | float:
    share = (progress - first) / (last - first)
    return share.clamp(0.0, 1.0) if isinstance(share, Tensor) else min(max(share, 0.0), 1.0)


def _ramp(progress: Tensor | float, warmup: float) -> Tensor | float:
    return _START + (1.0 - _START) * _passed(progress, 0.0, warmup) if warmup else 1.0


def _check(warmup: float, floor: float) -> None:
    if not 0.0 <= warmup < 1.0:
        raise ValueError(f"got warmup={warmup}; expected a fraction of the run in [0, 1)")
    if not 0.0 <= floor <= 1.0:
        raise ValueError(f"got floor={floor}; expected a fraction of the peak in [0, 1]")


@attrs.frozen
class Schedule:
    """How the learning rate moves over the run."""

    shape: Literal["linear", "cosine", "stable", "constant"] = "linear"
    """After the warm-up: linear or cosine, falling until the end; stable, falling only in the last `decay`; constant."""
    warmup: float = 0.05
    """Fraction of the run in which the rate climbs to its peak, from a hundredth of it."""
    decay: float = 0.0
    """Fraction of the run, at its end, in which a stable schedule falls; 0 for the other shapes."""
    floor: float = 0.0
    """Rate at the end, as a fraction of the peak."""

    def __attrs_post_init__(self) -> None:
        if self.shape not in ("linear", "cosine", "stable", "constant"):
            raise ValueError(f"got shape={self.shape!r}; expected linear, cosine, stable or constant")
        if (self.shape == "stable") != (self.decay != 0.0):
            raise ValueError(f"got shape={self.shape!r} with decay={self.decay}; a stable schedule needs one, no other has any")
        if self.shape == "constant" and self.floor:
            raise ValueError(f"got a constant schedule with floor={self.floor}; expected 0: it never falls")
        self.build(1.0)  # the shape's own checks

    def build(self, peak: Value) -> Value:
        """Make the schedule.

        Parameters
        ----------
        peak
            Largest learning rate.

        Returns
        -------
        Value.
        """
        if self.shape == "constant":
            return constant(peak, self.warmup)
        if self.shape == "stable":
            return warmup_stable_decay(peak, self.warmup, self.decay, self.floor)
        return (linear if self.shape == "linear" else cosine)(peak, self.warmup, self.floor)
