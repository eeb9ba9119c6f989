"""How a model answers questions: the choice it finds likeliest, or what it writes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from craft.engine import Engine
from craft.errors import UsageError
from craft.evaluate.greedy import continued, fitting
from craft.evaluate.likelihood import likelihoods
from craft.evaluate.questions import Choice, Exact, Questions
from craft.step import Task
from craft.types import Tree

__all__ = ["answer_questions", "rate"]


def answer_questions(
    task: Task, params: Tree, engine: Engine, questions: Questions, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Let a model answer, and count what is right.

    `acc` is the share of choices whose right text has the highest log-likelihood after the context, summed over its tokens;
    `acc_bytes` divides each sum by the bytes of the choice, so that short ones are not preferred. The first
    of equal ones counts. The harness of EleutherAI (github.com/EleutherAI/lm-evaluation-harness) defines both alike; its
    `acc_norm` divides by characters, which is the same for ASCII. It puts a space before each choice, which here is written in
    the file.

    `exact_match` is the share of prompts after which the likeliest tokens, one after another up to a line end or the end of a
    document (at most `MARGIN` more than the answer has), are the answer, but for space around it.

    Parameters
    ----------
    task
        A task with a model of text and its tokenizer.
    params
        The parameters, on the engine's device.
    engine
        Where it is computed.
    questions
        What is asked; see `read_questions`.
    progress
        Told what is being done.

    Returns
    -------
    JSON: `questions`, `skipped`, `truncated` (how many had a context or prompt too long for the model, whose end was read),
    and for each kind that occurs its number, its shares and their standard errors, `*_stderr`; `chance` is what guessing
    would get of the choices.

    Raises
    ------
    UsageError
        If the task has no model of text.
    """
    tell = progress or (lambda text: None)
    choices = [item for item in questions.items if isinstance(item, Choice)]
    prompts = [item for item in questions.items if isinstance(item, Exact)]
    found: dict[str, Any] = {"questions": len(questions.items), "skipped": len(questions.skipped), "truncated": 0}
    if choices:
        values, cut = _chosen(task, params, engine, choices, tell)
        found |= {**values, "truncated": found["truncated"] + cut}
    if prompts:
        values, cut = _written(task, params, engine, prompts, tell)
        found |= {**values, "truncated": found["truncated"] + cut}
    return found


def rate(name: str, hits: Sequence[bool]) -> dict[str, float | None]:
    """Return a share and the standard error of it as a mean; of one alone there is none."""
    number, mean = len(hits), sum(hits) / len(hits)
    return {name: mean, f"{name}_stderr": math.sqrt(mean * (1 - mean) / (number - 1)) if number > 1 else None}


def _chosen(
    task: Task, params: Tree, engine: Engine, items: Sequence[Choice], tell: Callable[[str], None]
) -> tuple[dict[str, Any], int]:
    pairs = [pair for item in items for pair in item.pairs]
    judged = iter(likelihoods(task, params, engine, pairs, lambda done: tell(f"{done} of {len(pairs)} choices scored")))
    plain, by_bytes, cut = [], [], 0
    for item in items:
        own = [next(judged) for _ in item.pairs]
        plain.append(_best([one.log for one in own]) == item.answer)
        by_bytes.append(_best([one.log / size for one, size in zip(own, item.sizes, strict=True)]) == item.answer)
        cut += any(one.cut for one in own)
    chance = sum(1 / len(item.pairs) for item in items) / len(items)
    return {"choices": len(items), **rate("acc", plain), **rate("acc_bytes", by_bytes), "chance": chance}, cut


def _best(values: Sequence[float]) -> int:
    return max(range(len(values)), key=lambda place: values[place])


def _written(
    task: Task, params: Tree, engine: Engine, items: Sequence[Exact], tell: Callable[[str], None]
) -> tuple[dict[str, Any], int]:
    tokenizer = task.tokenizer
    if tokenizer is None:
        raise UsageError("this task has no tokenizer; writing answers needs one")
    prompts = [item.prompt for item in items]
    ids = continued(
        task,
        params,
        engine,
        prompts,
        lambda row, written: "\n" in tokenizer.decode(written),
        lambda done: tell(f"{done} of {len(prompts)} answers written"),
    )
    answers = [tokenizer.decode(written).split("\n")[0].strip() for written in ids]
    cut = sum(len(fitting(prompt, task.context)) < len(prompt.ids_N) for prompt in prompts)
    hits = [answer == item.answer for answer, item in zip(answers, items, strict=True)]
    return {"prompts": len(items), **rate("exact_match", hits)}, cut
