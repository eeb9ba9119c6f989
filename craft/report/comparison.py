"""Runs side by side: grouped by what differs beside the seed, with the fields that differ and what to beware of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import attrs

from craft import config
from craft.report import differ, fairness
from craft.report.interval import Interval, interval
from craft.report.story import Story

__all__ = ["Comparison", "Group", "compare"]

_FIRST = ("eval/loss", fairness.FAIR, "eval/accuracy", "eval/perplexity", "eval/bits")
_LAST = "eval/best"


@attrs.frozen
class Group:
    """Runs that differ only in their seed."""

    label: str
    """What tells it from the other groups."""
    stories: tuple[Story, ...]
    """Its runs, by seed."""
    names: tuple[str, ...]
    """Names of its runs: the group's, with the seed where there are several."""

    def final(self, name: str) -> Interval | None:
        """Return the mean of the last reported values of a metric; None where no run has it."""
        return self.over(story.last(name) for story in self.stories)

    def over(self, values: Iterable[float | None]) -> Interval | None:
        """Return the mean and the interval of one number a run, without the runs that lack it."""
        there = [value for value in values if value is not None]
        return interval(there) if there else None

    def mean(self, name: str) -> float | None:
        """Return the mean of what its runs took, by the name of a property of theirs, such as `seconds`; None: unknown."""
        found = self.over(getattr(story, name) for story in self.stories)
        return None if found is None else found.mean

    @property
    def progress(self) -> str:
        """The step that its runs stand at, and of how many where one of them is not finished."""
        steps = sorted({story.step for story in self.stories})
        shown = "-".join(str(step) for step in dict.fromkeys((steps[0], steps[-1])))
        return shown if all(story.finished for story in self.stories) else f"{shown}/{self.stories[0].steps}"


@attrs.frozen
class Comparison:
    """Everything that a table, a page or a figure says of some runs."""

    groups: tuple[Group, ...]
    """Groups of runs, in the order of their first."""
    differences: dict[str, tuple[Any, ...]]
    """Field -> its value in each group, where they are not all the same; `config.ABSENT` where a group has no such field."""
    shared: dict[str, Any]
    """Fields that are the same in all runs but the seed."""
    metrics: tuple[str, ...]
    """Metrics of the tables; the first is the one to judge by."""
    comparable: bool
    """Whether losses per token mean the same in all runs."""
    notes: tuple[str, ...]
    """What to beware of, a sentence each."""

    @property
    def stories(self) -> tuple[Story, ...]:
        """All runs, group by group."""
        return tuple(story for group in self.groups for story in group.stories)

    @property
    def title(self) -> str:
        """The experiment's name, or the names of several."""
        return ", ".join(dict.fromkeys(str(story.config["experiment"].get("name", "run")) for story in self.stories))

    @property
    def repeated(self) -> bool:
        """Whether any group has several seeds."""
        return any(len(group.stories) > 1 for group in self.groups)

    def best(self, name: str) -> frozenset[int]:
        """Return the groups with the best mean of a metric: several where they are equal, none where all are."""
        wanted = fairness.better(name)
        if len(self.groups) < 2 or wanted is None or not (self.comparable or name == fairness.FAIR):
            return frozenset()
        finals = [group.final(name) for group in self.groups]
        means = {index: found.mean for index, found in enumerate(finals) if found is not None and math.isfinite(found.mean)}
        if len(set(means.values())) < 2:
            return frozenset()
        target = wanted(list(means.values()))
        return frozenset(index for index, mean in means.items() if mean == target)


def compare(stories: Sequence[Story]) -> Comparison:
    """Group runs and find what differs.

    Parameters
    ----------
    stories
        At least one run.
    """
    groups, fields = _grouped(stories)
    paths = differ.varying(fields)
    fair = fairness.comparable(stories)
    return Comparison(
        groups=groups,
        differences={path: tuple(row.get(path, config.ABSENT) for row in fields) for path in paths},
        shared={path: value for path, value in fields[0].items() if path not in paths},
        metrics=_metrics(stories, fair),
        comparable=fair,
        notes=tuple(fairness.notes(stories) + _repeats(groups)),
    )


def _grouped(stories: Sequence[Story]) -> tuple[tuple[Group, ...], list[dict[str, Any]]]:
    """Gather runs that differ only in the seed; a seed that comes again is no second sample and begins another group."""
    members: dict[tuple[str, int], list[Story]] = {}
    seen: dict[tuple[str, str], int] = {}
    for story in stories:
        digest, seed = config.digest(_without_seed(story)), repr(_seed(story))
        again = seen[digest, seed] = seen.get((digest, seed), -1) + 1
        members.setdefault((digest, again), []).append(story)
    fields = [_without_seed(some[0]) for some in members.values()]
    places = differ.tails([some[0].directory for some in members.values()])
    labels = differ.labels(fields, places)
    return tuple(_group(label, some) for label, some in zip(labels, members.values(), strict=True)), fields


def _group(label: str, stories: list[Story]) -> Group:
    ordered = sorted(stories, key=lambda story: (not isinstance(_seed(story), int), _seed(story) or 0, str(story.directory)))
    several = len(ordered) > 1
    return Group(label, tuple(ordered), tuple(f"{label}, seed={_seed(story)}" if several else label for story in ordered))


def _without_seed(story: Story) -> dict[str, Any]:
    return {path: value for path, value in differ.fields(story.config).items() if path != "seed"}


def _seed(story: Story) -> Any:
    return differ.fields(story.config)["seed"]


def _metrics(stories: Sequence[Story], fair: bool) -> tuple[str, ...]:
    """Order the held-out metrics and the training loss; where there is neither, all that there is."""
    names = list(dict.fromkeys(name for story in stories for name in story.names))
    held = {name for name in names if name.startswith("eval/")}
    chosen = [name for name in _FIRST if name in held]
    chosen += sorted(held - {*_FIRST, _LAST}) + [name for name in (_LAST, "train/loss") if name in names]
    if not fair and fairness.FAIR in chosen:
        chosen = [fairness.FAIR, *(name for name in chosen if name != fairness.FAIR)]
    return tuple(chosen or names)


def _repeats(groups: Sequence[Group]) -> list[str]:
    rows: dict[str, list[str]] = {}
    for group in groups:
        for story in group.stories:
            key = config.digest({**_without_seed(story), "seed": _seed(story)})
            rows.setdefault(key, []).append(str(story.directory))
    return [
        f"{' and '.join(places)} have the same configuration and seed: a run repeated is no second sample, so they stand apart."
        for places in rows.values()
        if len(places) > 1
    ]
