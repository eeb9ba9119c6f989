"""The comparison for machines: one object of strict JSON."""

from __future__ import annotations

from typing import Any

from craft import config
from craft.report.comparison import Comparison, Group
from craft.report.story import Story
from craft.store.strict import strict

__all__ = ["facts"]

_TOOK = ("parameters", "tokens", "flops", "seconds", "speed", "memory")
_UNITS = {"speed": "tokens_per_second", "memory": "memory_mb"}


def facts(comparison: Comparison) -> dict[str, Any]:
    """Return what a comparison says.

    Returns
    -------
    `groups` of runs that differ only in the seed, each with `metrics` (mean, half of the 95 % interval, n) and its `runs`;
    `differences`, field -> value in each group (null where it has no such field); `notes`. A number that is not finite is
    null.
    """
    found = {
        "title": comparison.title,
        "comparable_per_token": comparison.comparable,
        "judge_by": comparison.metrics[0],
        "groups": [_group(group) for group in comparison.groups],
        "differences": {
            path: [None if value is config.ABSENT else value for value in values]
            for path, values in comparison.differences.items()
        },
        "notes": list(comparison.notes),
    }
    plain = strict(found, lost=[])
    assert isinstance(plain, dict)
    return plain


def _group(group: Group) -> dict[str, Any]:
    names = dict.fromkeys(name for story in group.stories for name in story.names)
    finals = {name: group.final(name) for name in names}
    return {
        "label": group.label,
        "n": len(group.stories),
        "metrics": {name: found._asdict() for name, found in finals.items() if found is not None},
        "runs": [_run(story) for story in group.stories],
    }


def _run(story: Story) -> dict[str, Any]:
    return {
        "directory": str(story.directory),
        "step": story.step,
        "steps": story.steps,
        "finished": story.finished,
        **{_UNITS.get(name, name): getattr(story, name) for name in _TOOK},
        "final": {name: story.last(name) for name in story.names},
    }
