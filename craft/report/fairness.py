"""Whether numbers of different runs may be compared, and what a reader must be told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from craft.report.story import Story

__all__ = ["FAIR", "better", "comparable", "notes"]

FAIR = "eval/bits_per_byte"
"""The one measure of a text model that does not depend on how the text was cut into tokens."""

_LOWER = ("loss", "bits", "bits_per_byte", "perplexity", "best", "error")
_HIGHER = ("accuracy",)


def better(name: str) -> Callable[[Sequence[float]], float] | None:
    """Return `min` or `max`, whichever is good for a metric; None where that is not known."""
    end = name.rpartition("/")[2]
    return min if end in _LOWER else max if end in _HIGHER else None


def comparable(stories: Sequence[Story]) -> bool:
    """Tell whether losses per token mean the same in all runs: the same data in the same tokens."""
    return len({(story.fingerprint, story.tokenizer) for story in stories}) == 1


def notes(stories: Sequence[Story]) -> list[str]:
    """Return what to beware of in a comparison, one sentence each."""
    return [*_tokens(stories), *_unfinished(stories), *_lengths(stories)]


def _tokens(stories: Sequence[Story]) -> list[str]:
    if comparable(stories):
        return []
    other = len({story.tokenizer for story in stories}) > 1
    why = "cut text into different tokens" if other else "were trained and measured on different data"
    text = f"The runs {why}: losses, bits, accuracies and perplexities per token are not comparable between them"
    having = sum(story.last(FAIR) is not None for story in stories)
    if having == len(stories):
        text += f"; {FAIR} is."
    elif having:
        text += f"; {FAIR} is, but {len(stories) - having} of {len(stories)} runs have none."
    else:
        text += f", and none has {FAIR}, which would be."
    found = [text]
    corpora = {story.corpus or story.fingerprint for story in stories}
    if having and len(corpora) > 1:
        found.append(f"They were also measured on different texts, so even {FAIR} compares them only roughly.")
    return found


def _unfinished(stories: Sequence[Story]) -> list[str]:
    some = [story for story in stories if not story.finished]
    if not some:
        return []
    if len(stories) == 1:
        return [f"The run stands at step {some[0].step} of {some[0].steps}; its held-out numbers are of a few batches."]
    return [
        f"{len(some)} of {len(stories)} runs have not reached their last step: their values are the latest, "
        "and their held-out numbers are of fewer batches."
    ]


def _lengths(stories: Sequence[Story]) -> list[str]:
    finished = {story.step for story in stories if story.finished}
    if len(finished) < 2:
        return []
    return [
        f"The runs have different lengths ({min(finished)} to {max(finished)} steps): compare the curves at equal cost, too."
    ]
