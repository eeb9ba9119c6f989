"""A split's loss is the mean over its tokens, however it is cut into batches and padded."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from craft import evaluate, param, tree
from craft.engine import Engine
from craft.losses import cross_entropy
from craft.mixers import Attention, FeedForward
from craft.models import Sequence
from craft.step import Evaluation
from craft.types import Batch, Context, Tree

VOCABULARY, TIME, SAMPLES = 7, 5, 13
ENGINE = Engine(torch.device("cpu"), torch.float32, "none", 1)
MODEL = Sequence(width=4, depth=1, pattern=(Attention(heads=2), FeedForward()), dropout=0.5).build(VOCABULARY)
SOURCE = torch.Generator().manual_seed(0)
PARAMS = tree.map(lambda leaf: leaf + 0.5 * torch.randn(leaf.shape, generator=SOURCE), param.materialise(MODEL.spec, 0))
IDS = torch.randint(VOCABULARY, (SAMPLES, TIME + 1), generator=SOURCE)
WEIGHTS = (torch.rand(SAMPLES, TIME, generator=SOURCE) < 0.7).float()


def batches(size: int, empty: int = 0) -> Iterable[Tree]:
    """Cut the split into batches of equal size; what is missing in the last is padding that counts nothing."""
    spare = -SAMPLES % size + empty * size
    ids = torch.cat((IDS, torch.zeros(spare, TIME + 1, dtype=torch.int64)))
    weights = torch.cat((WEIGHTS, torch.zeros(spare, TIME)))
    for start in range(0, len(ids), size):
        part = slice(start, start + size)
        yield Batch(ids[part, :-1], ids[part, 1:], weights[part], torch.arange(start, start + size))


def evaluation(size: int, empty: int = 0) -> Evaluation:
    return evaluate.next_token_evaluation(MODEL, Held(size, empty), lambda state: state["params"])


class Held:
    """A split of two bytes a token."""

    def __init__(self, size: int, empty: int) -> None:
        self.size, self.empty = size, empty

    def split(self, name: str) -> Iterable[Tree]:
        assert name in ("validation", "test")
        return batches(self.size, self.empty)

    def bytes_per_token(self, name: str) -> float:
        return {"validation": 2.0, "test": 4.0}[name]


def one_pass(each: float = 2.0) -> dict[str, float]:
    logits = MODEL.apply(PARAMS, IDS[:, :-1], Context())[0]
    share = WEIGHTS / WEIGHTS.sum()
    loss = float((cross_entropy(logits, IDS[:, 1:]) * share).sum())
    bits = loss / math.log(2)
    told = {"loss": loss, "bits": bits, "bits_per_byte": bits / each, "perplexity": math.exp(loss)}
    return {**told, "accuracy": float(((logits.argmax(-1) == IDS[:, 1:]) * share).sum())}


def measure(evaluation: Evaluation, **more: Any) -> dict[str, float]:
    return evaluate.measure(evaluation, {"params": PARAMS}, ENGINE, **more)


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 20), empty=st.integers(0, 2))
def test_any_batch_size_and_any_padding_give_the_same_means(size: int, empty: int) -> None:
    assert measure(evaluation(size, empty)) == pytest.approx(one_pass(), rel=1e-5)


def test_means_of_batches_would_be_something_else() -> None:
    """The split is uneven enough for the test above to tell."""
    split = evaluation(4)
    means = []
    for batch in batches(4):
        total, weight = split.measure({"params": PARAMS}, batch)["loss"]
        means.append(float(total / weight))
    assert sum(means) / len(means) != pytest.approx(one_pass()["loss"], rel=1e-4)


def test_a_batch_that_counts_nothing_adds_nothing() -> None:
    empty = next(iter(batches(4)))._replace(weights_BT=torch.zeros(4, TIME))
    measured = evaluation(4).measure({"params": PARAMS}, empty)
    assert {name: (float(total), float(weight)) for name, (total, weight) in measured.items()} == {
        "loss": (0.0, 0.0),
        "accuracy": (0.0, 0.0),
    }


def test_a_split_that_counts_nothing_has_no_mean() -> None:
    nothing = Evaluation(evaluation(4).measure, lambda name: [next(iter(batches(4)))._replace(weights_BT=torch.zeros(4, TIME))])
    assert all(math.isnan(value) for value in measure(nothing).values())


def test_as_many_batches_as_asked_for_spread_over_the_split() -> None:
    done: list[int] = []
    some = measure(evaluation(2), batches=2, progress=done.append)
    assert done == [1, 2]
    every = list(batches(2))
    chosen = [every[0], every[len(every) // 2]]
    assert some == pytest.approx(measure(evaluation(2)._replace(batches=lambda name: chosen)), rel=1e-5)
    assert measure(evaluation(2), batches=1000) == measure(evaluation(2))


def test_nothing_is_dropped_and_no_gradient_is_kept() -> None:
    assert measure(evaluation(4)) == measure(evaluation(4))
    params = tree.map(lambda leaf: leaf.clone().requires_grad_(), PARAMS)
    program = ENGINE.function(evaluation(4).measure)
    measured = program({"params": params}, next(iter(batches(4))))
    assert not any(leaf.requires_grad for leaf in tree.leaves(measured))


def test_a_program_and_a_split_of_ones_own() -> None:
    asked: list[str] = []

    def split(name: str) -> Iterable[Tree]:
        asked.append(name)
        return batches(4)

    mine = evaluation(4)._replace(batches=split)
    measured = measure(mine, split="test", program=torch.compile(mine.measure, fullgraph=True, backend="aot_eager"))
    assert asked == ["test"]
    assert measured == pytest.approx(one_pass(4.0), rel=1e-5)


def test_a_pack_is_measured_at_once() -> None:
    pack = tree.stack([PARAMS, tree.map(torch.neg, PARAMS)])
    batch = next(iter(batches(4)))
    packed = torch.func.vmap(evaluation(4).measure, in_dims=(0, None))({"params": pack}, batch)
    for trial, params in enumerate(tree.unstack(pack)):
        alone = evaluation(4).measure({"params": params}, batch)
        torch.testing.assert_close(packed["loss"][0][trial], alone["loss"][0], rtol=1e-5, atol=1e-5)
