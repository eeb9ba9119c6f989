"""Decoding: greedy text equals the whole model read again for every token, whatever family; and it never ends."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from craft import models, param, tree
from craft.generate import Sampling, decode
from craft.mixers import Attention, FeedForward, Recurrence
from craft.models import Sequence
from craft.types import Context, Model, Tensor, Tree

VOCABULARY = 11
CONTEXT = 12
GREEDY = Sampling(temperature=0.0)

PATTERNS = {
    "attention": (Attention(heads=2), FeedForward()),
    "attention grouped": (Attention(heads=4, groups=2), FeedForward()),
    "attention no rotary": (Attention(heads=2, rotary=False),),
    "recurrent": (Recurrence(), FeedForward()),
    "hybrid": (Recurrence(), Attention(heads=2), FeedForward(activation="swiglu")),
}
FAMILIES = {name: Sequence(width=8, depth=2, pattern=pattern) for name, pattern in PATTERNS.items()}
FAMILIES["learned positions"] = models.gpt2(width=8, depth=2, heads=2, context=CONTEXT)
families = pytest.mark.parametrize("family", list(FAMILIES))


def build(family: str) -> tuple[Model, Tree]:
    model = FAMILIES[family].build(VOCABULARY)
    params = param.materialise(model.spec, 0)
    source = torch.Generator().manual_seed(2)
    return model, tree.map(lambda leaf: leaf + 0.7 * torch.randn(leaf.shape, generator=source), params)


def prompt(batch: int = 3, time: int = 4) -> Tensor:
    return torch.randint(VOCABULARY, (batch, time), generator=torch.Generator().manual_seed(time))


def write(family: str, prompt_BT: Tensor, number: int, sampling: Sampling = GREEDY, **more: Any) -> Tensor:
    model, params = build(family)
    options: dict[str, Any] = {"vocabulary": VOCABULARY, "context": CONTEXT, **more}
    return torch.stack(list(islice(decode(model, params, prompt_BT, sampling=sampling, **options), number)), 1)


def naive(family: str, prompt_BT: Tensor, number: int) -> Tensor:
    """Read everything again for each token; when the context is full, the second half of it and what came since."""
    model, params = build(family)
    text, start = prompt_BT, max(0, prompt_BT.shape[1] - CONTEXT)
    for _ in range(number):
        if text.shape[1] - start > CONTEXT:
            start = text.shape[1] - CONTEXT // 2
        logits = model.apply(params, text[:, start:], Context())[0]
        text = torch.cat((text, logits[:, -1:].argmax(-1)), 1)
    return text[:, prompt_BT.shape[1] :]


@families
@pytest.mark.parametrize("time", [1, 4, 11, 12])
def test_greedy_text_equals_the_likeliest_token_of_the_whole_model(family: str, time: int) -> None:
    assert torch.equal(
        write(family, prompt(time=time), CONTEXT - time + 1), naive(family, prompt(time=time), CONTEXT - time + 1)
    )


@families
def test_it_goes_on_beyond_the_context(family: str) -> None:
    text = write(family, prompt(), 5 * CONTEXT)
    assert text.shape == (3, 5 * CONTEXT)
    assert torch.equal(text, naive(family, prompt(), 5 * CONTEXT))
    assert len(set(text.flatten().tolist())) > 1


@families
def test_of_a_long_prompt_the_last_part_is_read(family: str) -> None:
    long = prompt(time=3 * CONTEXT)
    assert torch.equal(write(family, long, 2 * CONTEXT), write(family, long[:, -CONTEXT:], 2 * CONTEXT))
    assert torch.equal(write(family, long, 20), naive(family, long, 20))


@families
@pytest.mark.parametrize("context", [1, 2, 3])
def test_the_smallest_contexts(family: str, context: int) -> None:
    assert write(family, prompt(time=1), 9, context=context).shape == (3, 9)


@families
def test_rows_of_a_batch_do_not_see_each_other(family: str) -> None:
    together = write(family, prompt(), 3 * CONTEXT)
    for row in range(3):
        assert torch.equal(write(family, prompt()[row : row + 1], 3 * CONTEXT)[0], together[row])


def test_the_seed_says_what_is_drawn() -> None:
    def text(seed: int) -> Tensor:
        return write("attention", prompt(), 20, Sampling(temperature=2.0, seed=seed))

    assert torch.equal(text(0), text(0))
    assert not torch.equal(text(0), text(1))


def test_positions_draw_apart() -> None:
    """With even logits a draw that repeated its key would write one token for ever."""
    model = Sequence(width=8, depth=1).build(VOCABULARY)
    params = param.materialise(model.spec, 0)  # a new head is zero
    drawn = decode(model, params, prompt(1), vocabulary=VOCABULARY, context=CONTEXT, sampling=Sampling())
    assert len({int(token) for token in islice(drawn, 40)}) > VOCABULARY // 2


def test_a_penalty_counts_the_prompt_and_what_was_written() -> None:
    """With a penalty that is strong enough every token comes once before any comes again."""
    model = Sequence(width=8, depth=1).build(VOCABULARY)
    params = {**param.materialise(model.spec, 0)}
    params["head"] = params["head"] - 1.0
    params["embed"] = params["embed"].abs() + 1.0  # logits are equal and negative
    drawn = decode(
        model,
        params,
        torch.tensor([[2, 5, 5]]),
        vocabulary=VOCABULARY,
        context=CONTEXT,
        sampling=Sampling(repetition_penalty=50.0),
    )
    first = [int(token) for token in islice(drawn, VOCABULARY - 2)]
    assert sorted([*first, 2, 5]) == list(range(VOCABULARY))


def test_a_program_of_ones_own_is_used() -> None:
    torch._dynamo.reset()
    model, _ = build("recurrent")
    compiled = torch.compile(model.advance, fullgraph=True, backend="aot_eager", dynamic=False)
    assert torch.equal(write("recurrent", prompt(), 5, advance=compiled), write("recurrent", prompt(), 5))


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    model, params = build("attention")
    calls: list[int] = []

    def watch(params: Tree, ids_BT: Tensor, memory: Tree, ctx: Context) -> Any:
        calls.append(ids_BT.shape[1])
        assert ctx.key is None
        return model.advance(params, ids_BT, memory, ctx)

    drawn = decode(model, params, prompt(), vocabulary=VOCABULARY, context=CONTEXT, sampling=GREEDY, advance=watch)
    assert calls == []
    next(drawn)
    next(drawn)
    assert calls == [4, 1]  # the prompt at once, then one at a time


def test_a_memory_in_half_precision() -> None:
    assert write("attention", prompt(), 20, dtype=torch.bfloat16).shape == (3, 20)
