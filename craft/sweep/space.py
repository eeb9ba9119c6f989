"""Spaces: which trials a sweep has, as lists of what each changes; grids, draws, and words that stand for them.

A trial's changes are a dict from configuration path to value. Lists of them are joined by plain functions:

>>> product({"lr": [0.1, 0.2]}, {"model.dropout": [0.0, 0.1]})[1]
{'lr': 0.1, 'model.dropout': 0.1}
>>> chain(product({"lr": [0.1]}), zipped({"lr": [0.2, 0.3], "batch": [8, 4]}))[2]
{'lr': 0.3, 'batch': 4}
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import attrs
import torch

from craft import config
from craft.errors import UsageError

__all__ = [
    "Changes", "Choice", "Distribution", "Range", "applied", "chain", "parse_values", "product", "sample", "seeded", "zipped",
]  # fmt: skip

Changes: TypeAlias = dict[str, Any]
"""Configuration path -> value: what a trial has that the experiment itself has not."""


@attrs.frozen
class Range:
    """Numbers between two."""

    low: float
    """Least."""
    high: float
    """Largest."""
    log: bool = False
    """Whether every factor is as likely as any other, as it should be for learning rates."""
    whole: bool = False
    """Whether they are whole numbers, both ends among them."""

    def __attrs_post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise UsageError(f"got the range {self.low:g}:{self.high:g}; expected two finite numbers, the smaller one first")
        if self.log and self.low <= 0:
            raise UsageError(f"got the range log:{self.low:g}:{self.high:g}; expected numbers above 0")

    def at(self, share: float) -> float | int:
        """Return the number at a share of the range, from 0 to below 1."""
        low, high = (self.low, self.high + 1) if self.whole else (self.low, self.high)
        if self.log:
            found = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            found = low + share * (high - low)
        return min(math.floor(found), int(self.high)) if self.whole else min(max(found, self.low), self.high)


@attrs.frozen
class Choice:
    """One of some values."""

    values: tuple[Any, ...] = attrs.field(validator=attrs.validators.min_len(1))
    """All of them."""

    def at(self, share: float) -> Any:
        """Return the value at a share of the list, from 0 to below 1."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]


Distribution: TypeAlias = Range | Choice
"""What values are drawn from."""


def product(*values: Mapping[str, Sequence[Any]]) -> list[Changes]:
    """Combine every value of each path with every value of the others; the last path changes fastest."""
    paths, lists = _columns(values)
    return [dict(zip(paths, row, strict=True)) for row in itertools.product(*lists)]


def zipped(*values: Mapping[str, Sequence[Any]]) -> list[Changes]:
    """Take the first values together, then the second ones, and so on.

    Raises
    ------
    UsageError
        If the lists are not of one length.
    """
    paths, lists = _columns(values)
    sizes = {path: len(found) for path, found in zip(paths, lists, strict=True)}
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{path} has {size}" for path, size in sizes.items())
        raise UsageError(f"got lists of several lengths ({shown}); expected one value of each for every trial")
    return [dict(zip(paths, row, strict=True)) for row in zip(*lists, strict=True)]


def _columns(values: Sequence[Mapping[str, Sequence[Any]]]) -> tuple[list[str], list[list[Any]]]:
    pairs = [pair for one in values for pair in one.items()]
    paths = [path for path, _ in pairs]
    if twice := sorted({path for path in paths if paths.count(path) > 1}):
        raise UsageError(f"got {twice[0]} twice in one space; give all its values together")
    if empty := [path for path, found in pairs if not list(found)]:
        raise UsageError(f"got no value for {empty[0]}; give at least one, such as {empty[0]}=1")
    return paths, [list(found) for _, found in pairs]


def chain(*lists: Sequence[Changes]) -> list[Changes]:
    """Put spaces one after the other; what comes twice stays once."""
    found: list[Changes] = []
    for one in itertools.chain(*lists):
        if one not in found:
            found.append(dict(one))
    return found


def sample(space: Mapping[str, Distribution], number: int, *, seed: int = 0, spread: bool = False) -> list[Changes]:
    """Draw trials.

    Parameters
    ----------
    space
        Path -> what its values are drawn from.
    number
        How many.
    seed
        Seed of the draws; the first of more draws of one seed are those of fewer.
    spread
        Whether the points fill the space evenly (Sobol's sequence, scrambled), instead of falling where they fall.

    Raises
    ------
    UsageError
        If the number is below 1, or the space is empty.

    References
    ----------
    Bergstra and Bengio 2012, "Random search for hyper-parameter optimization"; Sobol 1967; Owen 1998 for the scrambling.
    """
    if number < 1:
        raise UsageError(f"got {number} trials to draw; expected 1 or more")
    if not space:
        raise UsageError("got nothing to draw from; give ranges, such as lr=log:1e-4:1e-2")
    if spread:
        sobol = torch.quasirandom.SobolEngine(len(space), scramble=True, seed=seed)  # type: ignore[no-untyped-call]
        share_NP = sobol.draw(number, dtype=torch.float64)
    else:
        share_NP = torch.rand(number, len(space), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [{path: one.at(share) for (path, one), share in zip(space.items(), row, strict=True)} for row in share_NP.tolist()]


def seeded(trials: Sequence[Changes], number: int, first: int = 0) -> list[Changes]:
    """Repeat each trial with several seeds, the same ones for all: differences between trials are then paired.

    Raises
    ------
    UsageError
        If the number is below 1, or a trial has a seed already.
    """
    if number < 1:
        raise UsageError(f"got {number} seeds; expected 1 or more")
    if any("seed" in one for one in trials):
        raise UsageError("got seeds and a space with the path seed; give one of them")
    return [{**one, "seed": first + place} for one in trials for place in range(number)]


def parse_values(text: str, now: Any) -> list[Any] | Range:
    """Read what stands behind `PATH=` on the command line.

    Parameters
    ----------
    text
        Values with commas between (`1e-4,3e-4`), a range (`0:0.3`), or one whose factors are alike (`log:1e-4:1e-2`).
    now
        The experiment's own value: a range of whole numbers is one for whole numbers only.

    Raises
    ------
    UsageError
        If it is none of these.
    """
    log, body = text.startswith("log:"), text.removeprefix("log:")
    ends = body.split(":")
    if len(ends) == 2 and (log or not isinstance(now, str)):
        try:
            low, high = (float(end) for end in ends)
        except ValueError:
            raise UsageError(f"got the range {text!r}; expected two numbers, as in 0:0.3 or log:1e-4:1e-2") from None
        return Range(low, high, log, isinstance(now, int) and not isinstance(now, bool))
    if log or not text:
        raise UsageError(f"got {text!r}; expected values with commas between, or a range such as log:1e-4:1e-2")
    words = [text] if isinstance(now, str) and "," in now else text.split(",")
    return [word if isinstance(now, str) else config.parse_value(word) for word in words]


def applied(experiment: Any, trial: Changes) -> Any:
    """Return the experiment of a trial.

    Raises
    ------
    UsageError
        If it has no such path, or refuses the value.
    """
    try:
        return config.from_dict(type(experiment), config.change(config.to_dict(experiment), trial))
    except config.ConfigError as error:
        shown = ", ".join(f"{path}={value}" for path, value in trial.items())
        raise UsageError(f"got the trial {shown}, but {error}") from error
