"""Numbers as tables show them."""

import math

import pytest

from craft import config
from craft.report import words
from craft.report.interval import Interval


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (1.23456, "1.2346"),
        (0.0, "0.0000"),
        (123.456, "123.5"),
        (1e-5, "1e-05"),
        (5e7, "5e+07"),
        (math.inf, "not finite"),
    ],
)
def test_numbers(value, shown):
    assert words.number(value) == shown


def test_means_with_intervals():
    assert words.spread(Interval(1.5, 0.25, 3)) == ("1.5000", "±0.2500")
    assert words.spread(Interval(1.5, None, 1)) == ("1.5000", "")
    assert words.spread(None) == ("", "")


def test_settings():
    assert [words.setting(value) for value in ("adam", 0.1, None, True, config.ABSENT)] == ["adam", "0.1", "null", "true", "-"]
    assert len(words.setting("x" * 99)) == 40


def test_what_runs_took():
    assert (words.large(12_345_678), words.large(3e15), words.large(None)) == ("12.3M", "3e+15", "")
    assert (words.rate(35_000.0), words.megabytes(512.4), words.time(3725)) == ("35k", "512", "1h02m")
    assert (words.rate(None), words.megabytes(None), words.time(None)) == ("", "", "")
