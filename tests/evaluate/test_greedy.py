"""Prompts that are continued together end as each of them does alone, for every family and beyond the context."""

from __future__ import annotations

from itertools import islice
from types import SimpleNamespace

import attrs
import pytest
import torch

from craft import generate
from craft.errors import UsageError
from craft.evaluate.greedy import Prompt, continued, fitting

CONTEXT, FAMILIES = 12, ("attention", "recurrent", "hybrid")


def prompts_of(task, sizes):
    source = torch.Generator().manual_seed(1)
    return [Prompt(torch.randint(task.tokenizer.size, (length,), generator=source), tokens) for length, tokens in sizes]


def alone(task, params, prompt):
    """Write on from one prompt with the decoder of `craft generate`."""
    sampling = generate.Sampling(temperature=0.0)
    ids = fitting(prompt, task.context)[None]
    drawn = generate.decode(task.model, params, ids, vocabulary=task.tokenizer.size, context=task.context, sampling=sampling)
    return [int(row) for row in islice(drawn, prompt.tokens)]


@pytest.mark.parametrize("family", FAMILIES)
def test_together_equals_alone(make_task, engine, family):
    task, params = make_task(family)
    sizes = [(3, 5), (3, 1), (CONTEXT, 2), (CONTEXT + 9, 4), (1, 30), (5, 30), (CONTEXT, 30), (2, 0), (4, CONTEXT - 3)]
    prompts = prompts_of(task, sizes)
    done: list[int] = []
    written = continued(task, params, engine, prompts, lambda row, ids: False, done.append)
    with torch.no_grad():
        assert written == [alone(task, params, prompt) for prompt in prompts]
    assert done[-1] == len(prompts)
    assert done == sorted(done)


def test_each_row_ends_when_it_is_told_to(make_task, engine):
    task, params = make_task()
    prompts = prompts_of(task, [(3, 20), (3, 20), (6, 20)])
    asked: list[int] = []

    def ended(row, ids):
        asked.append(row)
        return len(ids) == row + 1

    written = continued(task, params, engine, prompts, ended)
    assert [len(ids) for ids in written] == [1, 2, 3]
    assert sorted(asked) == [0, 1, 1, 2, 2, 2]
    assert written == [
        ids[: row + 1] for row, ids in enumerate(continued(task, params, engine, prompts, lambda row, ids: False))
    ]


def test_the_end_of_a_document_ends_the_text(make_task, engine):
    task, params = make_task()
    prompts = prompts_of(task, [(3, 9), (5, 9)])
    free = continued(task, params, engine, prompts, lambda row, ids: False)
    end = free[0][3]

    tokenizer = SimpleNamespace(end=end, size=task.tokenizer.size)
    written = continued(attrs.evolve(task, tokenizer=tokenizer), params, engine, prompts, lambda row, ids: False)
    assert written == [ids[: ids.index(end)] if end in ids else ids for ids in free]
    assert end not in written[0]


@pytest.mark.parametrize(
    ("length", "tokens", "kept"), [(5, 3, 5), (12, 1, 12), (12, 2, 11), (20, 5, 8), (20, 50, 6), (4, 50, 4)]
)
def test_a_long_prompt_leaves_room(length, tokens, kept):
    ids = torch.arange(length)
    assert fitting(Prompt(ids, tokens), CONTEXT).tolist() == ids[length - kept :].tolist()


def test_a_context_of_one_token(make_task, engine):
    task, params = make_task(context=1)
    prompts = prompts_of(task, [(3, 4), (1, 2)])
    with torch.no_grad():
        assert continued(task, params, engine, prompts, lambda row, ids: False) == [
            alone(task, params, prompt) for prompt in prompts
        ]


def test_no_model_of_text(make_task, engine):
    task, params = make_task()
    with pytest.raises(UsageError, match="has no model of text"):
        continued(attrs.evolve(task, context=0), params, engine, [], lambda row, ids: True)
