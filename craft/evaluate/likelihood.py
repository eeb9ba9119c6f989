"""Log-likelihood of texts after other texts: tokens into windows of the model's context, windows into padded batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch

from craft.engine import Engine
from craft.errors import UsageError
from craft.evaluate.judge import judge
from craft.step import Task, Tokenizer
from craft.types import Context, Model, Tensor, Tree

__all__ = ["Likelihood", "Pair", "encode_pair", "likelihoods", "opening", "score"]


class Pair(NamedTuple):
    """Tokens that are scored, and what comes before them.

    Attributes
    ----------
    before_N
        At least one token id, int64; of more than fit, the last are read.
    scored_N
        Token ids, int64; of none the log-likelihood is 0.
    """

    before_N: Tensor
    scored_N: Tensor


class Likelihood(NamedTuple):
    """How likely the scored tokens are.

    Attributes
    ----------
    log
        Sum of their log-probabilities, nats.
    greedy
        Whether each of them is the likeliest.
    cut
        Whether the beginning of what comes before them did not fit into the model's context.
    """

    log: float
    greedy: bool
    cut: bool


class _Window(NamedTuple):
    owner: int
    ids_N: Tensor
    scored: int


def opening(tokenizer: Tokenizer) -> Tensor:
    """Return what a text with nothing before it is scored after: the token that ends a document, else those of a line end.

    Raises
    ------
    UsageError
        If the model knows neither.
    """
    end = tokenizer.end
    if end is not None:
        return torch.tensor([end])
    try:
        return tokenizer.encode("\n")
    except ValueError as error:
        raise UsageError("a text with nothing before it is scored after a line end, which this model does not know") from error


def encode_pair(tokenizer: Tokenizer, before: str, scored: str) -> Pair:
    """Turn a text and what comes before it into tokens, those of both together.

    Scored are those from the first that is not one of `before` alone: where a token reaches over the seam, it is scored whole.

    Parameters
    ----------
    tokenizer
        What makes tokens of text.
    before, scored
        The texts; for an empty `before` see `opening`.

    Raises
    ------
    ValueError
        If the tokenizer does not know a character.
    """
    if not before:
        return Pair(opening(tokenizer), tokenizer.encode(scored))
    whole_N, alone_N = tokenizer.encode(before + scored), tokenizer.encode(before)
    least = min(len(whole_N), len(alone_N))
    shared = int((whole_N[:least] == alone_N[:least]).long().cumprod(0).sum())
    return Pair(whole_N[:shared] if shared else opening(tokenizer), whole_N[shared:])


def score(model: Model) -> Callable[[Tree, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Make the function that scores a batch.

    Returns
    -------
    (params, inputs_BT, targets_BT, counts_BT) -> (log_B, missed_B), pure: the sum of the log-probabilities of the targets whose
    count is 1, nats, and how many of them are not the likeliest token.
    """

    def run(params: Tree, inputs_BT: Tensor, targets_BT: Tensor, counts_BT: Tensor) -> tuple[Tensor, Tensor]:
        judged = judge(model, params, inputs_BT, targets_BT, Context())
        return torch.where(counts_BT > 0, judged.log_BT, 0.0).sum(-1), (counts_BT * ~judged.hit_BT).sum(-1)

    return run


def likelihoods(
    task: Task, params: Tree, engine: Engine, pairs: Sequence[Pair], progress: Callable[[int], None] | None = None
) -> list[Likelihood]:
    """Score many pairs, in batches of at most as many tokens as the task trains on at once.

    More tokens than the model's context are scored in pieces of that length, each after as much as fits before its last token:
    every token is scored once, and the last piece has a whole context. So does the harness of EleutherAI.

    Parameters
    ----------
    task
        A task with a model of sequences; its `context` is the longest window.
    params
        The parameters, on the engine's device.
    engine
        Where it is computed.
    pairs
        What is scored, and after what.
    progress
        Called with the number of windows that are done.

    Returns
    -------
    One Likelihood a pair, in their order.

    Raises
    ------
    UsageError
        If the task has no model of text.
    """
    if task.model is None or not task.context:
        raise UsageError("this task has no model of text; scoring needs its model and context")
    run = engine.function(score(task.model))
    logs, missed, done = [0.0] * len(pairs), [0] * len(pairs), 0
    windows = [window for owner, pair in enumerate(pairs) for window in _windows(owner, pair, task.context)]
    for group in _batches(windows, task.data.tokens):
        log_B, missed_B = run(params, *engine.send(_padded(group)))
        for window, log, misses in zip(group, log_B.tolist(), missed_B.tolist(), strict=True):
            logs[window.owner] += log
            missed[window.owner] += misses
        done += len(group)
        if progress is not None:
            progress(done)
    cut = [len(pair.before_N) + min(len(pair.scored_N), task.context) - 1 > task.context for pair in pairs]
    return [Likelihood(log, not misses, short) for log, misses, short in zip(logs, missed, cut, strict=True)]


def _windows(owner: int, pair: Pair, context: int) -> Iterator[_Window]:
    ids_N = torch.cat(pair)
    for start in range(len(pair.before_N), len(ids_N), context):
        end = min(start + context, len(ids_N))
        yield _Window(owner, ids_N[max(0, end - 1 - context) : end], end - start)


def _batches(windows: list[_Window], tokens: int) -> Iterator[list[_Window]]:
    """Put windows of about the same length together, the longest first: what does not fit into memory shows at once."""
    ordered, start = sorted(windows, key=lambda window: -len(window.ids_N)), 0
    while start < len(ordered):
        number = max(1, tokens // len(ordered[start].ids_N))
        yield ordered[start : start + number]
        start += number


def _padded(group: Sequence[_Window]) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs, targets and counts; padding comes last, where a causal model does not see it."""
    longest = max(len(window.ids_N) for window in group)
    ids_BN = torch.zeros(len(group), longest, dtype=torch.int64)
    counts_BN = torch.zeros(len(group), longest, dtype=torch.int64)
    for row, window in enumerate(group):
        length = len(window.ids_N)
        ids_BN[row, :length] = window.ids_N
        counts_BN[row, length - window.scored : length] = 1
    return ids_BN[:, :-1], ids_BN[:, 1:], counts_BN[:, 1:]
