"""Spaces: what is asked for is what is tried."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.errors import UsageError
from craft.sweep.space import Choice, Range, applied, chain, parse_values, product, sample, seeded, zipped
from experiments.char_1m import Char1M


def test_a_grid_has_every_combination_once():
    found = product({"lr": [1, 2, 3], "model.dropout": [0, 0.1]}, {"batch": [4, 8]})
    assert len(found) == 12
    assert len({tuple(one.items()) for one in found}) == 12
    assert found[0] == {"lr": 1, "model.dropout": 0, "batch": 4}
    assert found[1] == {"lr": 1, "model.dropout": 0, "batch": 8}


def test_lists_are_zipped_and_spaces_are_chained():
    found = zipped({"lr": [1, 2]}, {"batch": [4, 8]})
    assert found == [{"lr": 1, "batch": 4}, {"lr": 2, "batch": 8}]
    assert chain(found, [{"lr": 1, "batch": 4}], product({"lr": [3]})) == [*found, {"lr": 3}]


def test_seeds_are_the_same_for_all():
    assert seeded([{"lr": 1}, {"lr": 2}], 2, first=5) == [
        {"lr": 1, "seed": 5}, {"lr": 1, "seed": 6}, {"lr": 2, "seed": 5}, {"lr": 2, "seed": 6},
    ]  # fmt: skip


SPACE: dict[str, Range | Choice] = {
    "lr": Range(1e-4, 1e-2, log=True),
    "dropout": Range(0, 0.3),
    "depth": Range(2, 4, whole=True),
    "k": Choice(("a", "b")),
}


@pytest.mark.parametrize("spread", [False, True])
def test_draws_fill_the_space(spread):
    found = sample(SPACE, 256, seed=3, spread=spread)
    assert len(found) == 256
    assert all(1e-4 <= one["lr"] <= 1e-2 and 0 <= one["dropout"] <= 0.3 for one in found)
    assert {one["depth"] for one in found} == {2, 3, 4}
    assert {one["k"] for one in found} == {"a", "b"}
    small = sum(one["lr"] < 1e-3 for one in found)
    assert small == pytest.approx(128, abs=1 if spread else 30)  # half of the factors
    assert found == sample(SPACE, 256, seed=3, spread=spread)
    assert found[:16] == sample(SPACE, 16, seed=3, spread=spread)
    assert found != sample(SPACE, 256, seed=4, spread=spread)


@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e3), st.floats(0, 1, exclude_max=True), st.booleans())
def test_a_range_is_kept(low, factor, share, log):
    one = Range(low, low * factor, log)
    assert one.low <= one.at(share) <= one.high


@given(st.integers(-50, 50), st.integers(1, 9))
def test_whole_numbers_are_equally_likely(low, more):
    one = Range(low, low + more, whole=True)
    assert [one.at((place + 0.5) / (more + 1)) for place in range(more + 1)] == list(range(low, low + more + 1))


@pytest.mark.parametrize(
    ("text", "now", "found"),
    [
        ("1e-4,3e-4", 0.1, [1e-4, 3e-4]),
        ("8", 4, [8]),
        ("true,false", False, [True, False]),
        ("0:0.3", 0.0, Range(0, 0.3)),
        ("2:8", 4, Range(2, 8, whole=True)),
        ("log:1e-4:1e-2", 0.1, Range(1e-4, 1e-2, log=True)),
        ("char,bpe:512", "char", ["char", "bpe:512"]),
        ("bpe:512", "char", ["bpe:512"]),
        ("0.8,0.1,0.1", "0.9,0.05,0.05", ["0.8,0.1,0.1"]),
    ],
)
def test_words_are_read_as_the_field_is(text, now, found):
    assert parse_values(text, now) == found


@pytest.mark.parametrize(
    ("act", "problem"),
    [
        (lambda: product({"lr": []}), "got no value for lr; give at least one, such as lr=1"),
        (lambda: product({"lr": [1]}, {"lr": [2]}), "got lr twice"),
        (lambda: zipped({"lr": [1, 2], "batch": [4]}), r"got lists of several lengths \(lr has 2, batch has 1\)"),
        (lambda: sample(SPACE, 0), "got 0 trials to draw"),
        (lambda: sample({}, 4), "got nothing to draw from"),
        (lambda: seeded([{}], 0), "got 0 seeds"),
        (lambda: seeded([{"seed": 1}], 2), "got seeds and a space with the path seed"),
        (lambda: Range(2, 1), "got the range 2:1; expected two finite numbers"),
        (lambda: Range(0, math.inf), "got the range 0:inf"),
        (lambda: Range(0, 1, log=True), "got the range log:0:1; expected numbers above 0"),
        (lambda: parse_values("log:1", 0.1), "got 'log:1'; expected values"),
        (lambda: parse_values("a:b", 0.1), "got the range 'a:b'; expected two numbers"),
        (lambda: parse_values("", 0.1), "got ''; expected values"),
        (lambda: applied(Char1M(), {"lrr": 1}), r"got the trial lrr=1, but there is no 'lrr' \(did you mean lr"),
        (lambda: applied(Char1M(), {"lr": -1.0}), "got the trial lr=-1.0, but .*expected a finite number above 0"),
        (lambda: applied(Char1M(), {"batch": 1.5}), "got the trial batch=1.5, but batch: "),
    ],
)
def test_what_cannot_be_is_one_sentence(act, problem):
    with pytest.raises(UsageError, match=problem) as error:
        act()
    assert "\n" not in str(error.value)


def test_a_trial_is_the_experiment_with_its_changes():
    found = applied(Char1M(), {"lr": 0.5, "model.width": 64, "model.pattern.0.heads": 2})
    assert (found.lr, found.model.width, found.model.pattern[0].heads) == (0.5, 64, 2)
    assert found.batch == Char1M().batch
