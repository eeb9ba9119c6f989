"""Tables for people: every number where it belongs, and no line beyond 80 columns."""

from typing import Any

import pytest

from craft.cli import tables


def means(weight, loss=2.0, accuracy=0.25, confidence=0.5):
    known = {"loss": loss, "accuracy": accuracy, "confidence": confidence, "brier": 0.75}
    return {"weight": float(weight), **{name: value if weight else None for name, value in known.items()}}


def found(positions=9, frequencies=True):
    groups: list[dict[str, Any]] = [
        {"from": 0, "to": 0, "tokens": 3},
        {"from": 1, "to": 9, "tokens": 50_000},
        {"from": 10**12, "to": None, "tokens": 1},
    ]
    return {
        **means(10),
        "calibration_error": 0.125,
        "positions": [{"position": place, **means(10**9, loss=float(place))} for place in range(1, positions + 1)],
        "frequencies": [{**group, **means(n * 10**9)} for n, group in enumerate(groups)] if frequencies else [],
        "bins": [{"from": n / 15, "to": (n + 1) / 15, **means(n % 2)} for n in range(15)],
    }


def test_positions_are_put_together_by_powers_of_two():
    rows = tables.detail(found()).split("\n\n")[0].splitlines()
    assert [" ".join(row.split()) for row in rows[-5:]] == [
        "1 1,000,000,000 1.0000 0.2500",
        "2 1,000,000,000 2.0000 0.2500",
        "3 to 4 2,000,000,000 3.5000 0.2500",
        "5 to 8 4,000,000,000 6.5000 0.2500",
        "9 1,000,000,000 9.0000 0.2500",
    ]


def test_frequencies_and_bins():
    text = tables.detail(found())
    words = [" ".join(row.split()) for row in text.splitlines()]
    assert "never 0 - - 3" in words
    assert "1 to 9 1,000,000,000 2.0000 0.2500 50,000" in words
    assert "1,000,000,000,000 or more 2,000,000,000 2.0000 0.2500 1" in words
    assert "calibration: expected calibration error 0.1250, Brier score 0.7500" in words
    assert "0.067 to 0.133 1 0.5000 0.2500" in words
    assert sum("0.5000" in row for row in words) == 7
    assert "frequen" not in tables.detail(found(frequencies=False))
    assert "how often" not in tables.detail(found(frequencies=False))


@pytest.mark.parametrize("positions", [1, 2, 3, 4, 1024])
def test_nothing_is_wider_than_a_terminal(positions):
    assert max(map(len, tables.detail(found(positions)).splitlines())) <= 80


def test_a_mean_over_what_is_not_finite_is_a_dash():
    losses = ((1, 2.0), (1, 2.0), (1, None), (0, None))
    rows = [{"position": n, **means(weight), "loss": loss} for n, (weight, loss) in enumerate(losses, start=1)]
    words = [" ".join(row.split()) for row in tables.detail({**found(), "positions": rows}).splitlines()]
    assert "3 to 4 1 - 0.2500" in words


def test_answers():
    choice = {"choices": 3, "acc": 0.5, "acc_stderr": 0.1, "acc_bytes": 0.25, "acc_bytes_stderr": None, "chance": 0.5}
    text = tables.answers({"questions": 3, "skipped": 2, "truncated": 1, **choice})
    assert text.splitlines() == [
        "  3 choices, 1 truncated, 2 skipped",
        "  acc         0.5000 +- 0.1000  likeliest is right, guessing 0.5000",
        "  acc_bytes   0.2500  likeliest a byte is right",
    ]
    exact = {"prompts": 4, "exact_match": 1.0, "exact_match_stderr": 0.0}
    assert tables.answers({"questions": 4, "skipped": 0, "truncated": 0, **exact}).splitlines() == [
        "  4 prompts",
        "  exact_match 1.0000 +- 0.0000  written exactly",
    ]


def test_harness():
    metrics = {"acc,none": 0.5, "acc_stderr,none": 0.25, "perplexity,none": 3.0, "sample_len": 3}
    text = tables.harness({"tasks": {"tiny": metrics}, "truncated": 2})
    assert "truncated" not in tables.harness({"tasks": {"tiny": metrics}, "truncated": 0})
    assert [row.split() for row in text.splitlines()] == [
        ["2", "truncated"],
        ["tiny", "acc,none", "0.5000", "+-", "0.2500"],
        ["tiny", "perplexity,none", "3.0000"],
        ["tiny", "sample_len", "3"],
    ]


def test_values():
    assert tables.values({"loss": 1.0, "accuracy": 0.5}) == "  loss        1.0000\n  accuracy    0.5000\n"
    assert tables.values({"loss": 1.0, "bits_per_byte": 0.5}) == "  loss           1.0000\n  bits_per_byte  0.5000\n"
