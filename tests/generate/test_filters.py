"""From logits to the next token: every filter against a naive form, and the draws against the softmax."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from craft import rng
from craft.errors import UsageError
from craft.generate import Sampling, choose
from craft.types import Tensor

V = 8


def plain(**changes: Any) -> Sampling:
    return Sampling(**{"temperature": 1.0, **changes})


def unseen(logits_BV: Tensor) -> Tensor:
    return torch.zeros_like(logits_BV, dtype=torch.bool)


def draws(logits_V: Tensor, config: Sampling, number: int = 4000, seed: int = 0) -> list[int]:
    rows = logits_V.expand(number, -1)
    return choose(rows, unseen(rows), config, rng.key(seed)).tolist()


def allowed(logits: list[float], config: Sampling) -> set[int]:
    """Return what may be drawn, token by token, in the words of the papers; ties count as equally likely."""
    weights = [math.exp(x - max(logits)) for x in logits]
    shares = [w / sum(weights) for w in weights]
    order = sorted(shares, reverse=True)
    kept = set(range(len(logits)))
    if config.top_k:
        kept &= {i for i in kept if shares[i] >= order[min(config.top_k, len(order)) - 1]}
    if config.top_p < 1:
        total, least = 0.0, order[0]
        for share in order:
            if total >= config.top_p and total > 0:
                break
            total, least = total + share, share
        kept &= {i for i in kept if shares[i] >= least}
    return kept & {i for i in kept if shares[i] >= config.min_p * order[0]}


SPACED = torch.tensor([0.0, 3.0, 1.0, 2.5, -1.0, 2.0, -40.0, 0.5])
"""No two shares sum to a round number, so that no filter is decided by a rounding."""

EDGES: list[dict[str, Any]] = [
    {},
    {"top_k": 1},
    {"top_k": 3},
    {"top_k": V},
    {"top_k": 10 * V},
    {"top_p": 0.0},
    {"top_p": 0.3},
    {"top_p": 0.6},
    {"top_p": 0.97},
    {"top_p": 1.0},
    {"min_p": 0.0},
    {"min_p": 0.2},
    {"min_p": 1.0},
    {"top_k": 4, "top_p": 0.6},
    {"top_k": 2, "top_p": 0.97, "min_p": 0.1},
    {"top_k": 5, "top_p": 0.97, "min_p": 0.3},
]


@pytest.mark.parametrize("edge", EDGES, ids=str)
def test_what_is_drawn_is_what_may_be_drawn(edge: dict[str, Any]) -> None:
    config = plain(**edge)
    found = set(draws(SPACED, config, 20_000))
    expected = allowed(SPACED.tolist(), config)
    assert found <= expected
    weights = SPACED.exp()
    likely = {i for i in expected if float(weights[i]) > 0.003 * float(weights.sum())}
    assert likely <= found


@settings(max_examples=60, deadline=None)
@given(
    logits=st.lists(st.floats(-8, 8, width=16), min_size=1, max_size=12),
    top_k=st.integers(0, 14),
    top_p=st.floats(0.0, 1.0),
    min_p=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**40),
)
def test_nothing_is_drawn_that_may_not_be(logits: list[float], top_k: int, top_p: float, min_p: float, seed: int) -> None:
    config = plain(top_k=top_k, top_p=top_p, min_p=min_p)
    # a token at the very edge of top-p may fall on either side by a rounding
    loose = plain(top_k=top_k, top_p=min(1.0, top_p + 1e-5), min_p=max(0.0, min_p - 1e-5))
    assert set(draws(torch.tensor(logits), config, 200, seed)) <= allowed(logits, loose)


def test_tokens_that_tie_are_all_kept() -> None:
    ties = torch.tensor([1.0, 1.0, 1.0, 0.0])
    assert set(draws(ties, plain(top_k=2))) == {0, 1, 2}
    assert set(draws(ties, plain(top_p=0.0))) == {0, 1, 2}
    assert set(draws(ties, plain(min_p=1.0))) == {0, 1, 2}
    assert set(draws(torch.zeros(5), plain(top_k=1))) == set(range(5))


def test_temperature_zero_takes_the_likeliest() -> None:
    rows = torch.randn(50, V, generator=torch.Generator().manual_seed(0))
    for config in (Sampling(temperature=0.0), Sampling(temperature=0.0, top_k=3, top_p=0.1, min_p=0.5)):
        assert torch.equal(choose(rows, unseen(rows), config, rng.key(0)), rows.argmax(-1))


@pytest.mark.parametrize("temperature", [5e-324, 1e-38, 1e-6, 1e-3])
def test_a_temperature_near_zero_does_too(temperature: float) -> None:
    rows = 20 * torch.randn(50, V, generator=torch.Generator().manual_seed(0))
    assert torch.equal(choose(rows, unseen(rows), plain(temperature=temperature), rng.key(0)), rows.argmax(-1))


@pytest.mark.parametrize("extra", [{}, {"top_k": 1}, {"top_p": 0.0}, {"min_p": 1.0}], ids=str)
def test_a_vocabulary_of_one(extra: dict[str, Any]) -> None:
    assert set(draws(torch.zeros(1), plain(**extra), 10)) == {0}


def chi_square(found: list[int], shares: Tensor) -> float:
    counts = torch.bincount(torch.tensor(found), minlength=len(shares)).double()
    expected = shares.double() * len(found)
    return float(((counts - expected).square() / expected)[expected > 0].sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax(temperature: float) -> None:
    """Chi-square with 7 degrees of freedom: 29.9 is its 99.99 % quantile."""
    logits = torch.tensor([0.0, 1.0, 0.5, -0.5, 0.2, 1.5, -1.0, 0.7])
    found = draws(logits, plain(temperature=temperature), 40_000, seed=1)
    shares = (logits.double() / temperature).softmax(-1)
    assert chi_square(found, shares) < 29.9
    assert chi_square(found, (logits.double() / (1.2 * temperature)).softmax(-1)) > 29.9  # the test can tell


def test_draws_after_a_truncation_follow_what_is_left() -> None:
    """Three tokens: 18.4 is the 99.99 % quantile with 2 degrees of freedom."""
    logits = torch.tensor([0.0, 1.0, 0.5, -0.5, 0.2, 1.5, -1.0, 0.3])
    found = draws(logits, plain(top_k=3), 20_000, seed=2)
    kept = torch.zeros(V)
    kept[[1, 2, 5]] = logits[[1, 2, 5]].exp()
    assert set(found) == {1, 2, 5}
    assert chi_square(found, kept / kept.sum()) < 18.4


def test_draws_of_one_position_follow_the_softmax_over_keys() -> None:
    """The other way to draw many: one row, many keys, as decoding does."""
    logits = torch.tensor([[0.0, 1.0, 0.5, -0.5]])
    config = plain()
    keys = rng.split(rng.key(0), 4000)
    found = torch.func.vmap(lambda key: choose(logits, unseen(logits), config, key))(keys).flatten().tolist()
    assert chi_square(found, logits[0].softmax(-1)) < 21.1  # 99.99 % with 3 degrees of freedom


def test_keys_reproduce_and_rows_draw_apart() -> None:
    rows = torch.zeros(64, 50)
    first, again, other = (choose(rows, unseen(rows), plain(), rng.key(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(set(first.tolist())) > 20


def naive_penalty(logits: list[float], seen: list[bool], penalty: float) -> list[float]:
    return [(x / penalty if x > 0 else x * penalty) if s else x for x, s in zip(logits, seen, strict=True)]


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(st.floats(-5, 5, width=32), st.booleans()), min_size=2, max_size=9), penalty=st.floats(0.5, 4.0))
def test_the_repetition_penalty_equals_its_definition(rows: list[tuple[float, bool]], penalty: float) -> None:
    logits, seen = [x for x, _ in rows], [s for _, s in rows]
    expected = torch.tensor(naive_penalty(logits, seen, penalty), dtype=torch.float64)
    config = Sampling(temperature=0.0, repetition_penalty=penalty)
    found = int(choose(torch.tensor([logits]), torch.tensor([seen]), config, rng.key(0)))
    assert float(expected[found]) >= float(expected.max()) - 1e-5


def test_a_penalty_is_taken_before_the_truncation() -> None:
    logits, seen = torch.tensor([[3.0, 2.9, -5.0]]), torch.tensor([[True, False, False]])
    for config in (plain(top_k=1, repetition_penalty=1.5), plain(min_p=0.99, repetition_penalty=1.5)):
        assert int(choose(logits, seen, config, rng.key(0))) == 1


def test_logits_are_not_written() -> None:
    logits, seen = torch.randn(3, V), torch.rand(3, V) < 0.5
    before = logits.clone(), seen.clone()
    choose(logits, seen, Sampling(top_k=2, top_p=0.5, min_p=0.1, repetition_penalty=2.0), rng.key(0))
    assert torch.equal(before[0], logits)
    assert torch.equal(before[1], seen)


@pytest.mark.parametrize(
    "change",
    [{"temperature": -0.1}, {"top_k": -1}, {"top_p": 1.1}, {"top_p": -0.1}, {"min_p": 2.0}, {"repetition_penalty": 0.0}],
)
def test_numbers_out_of_range_are_the_users_error(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(UsageError, match=name):
        Sampling(**change)
