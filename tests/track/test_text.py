"""Text that people read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.track.text import block, blocks, count, duration, parse, visible


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7.25, "7.25"),
        (950, "950"),
        (12345, "12.3k"),
        (999.6, "1k"),
        (999_600, "1M"),
        (4.56e6, "4.56M"),
        (2e12, "2000G"),
    ],
)
def test_count(number, text):
    assert count(number) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (185, "3m05s"), (7620, "2h07m"), (356_400, "4d03h"), (-1, "0s")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_visible_keeps_letters_and_escapes_controls():
    assert visible("né\t日\n\x1b[2J\r\x9b\u202e\ud800") == "né\t日\n\\x1b[2J\\r\\x9b\\u202e\\ud800"


@given(st.lists(st.tuples(st.integers(0, 10**9), st.text(), st.text())))
def test_samples_are_found_again_whatever_was_written(samples):
    laid = [block(*sample) for sample in samples]
    found = blocks("".join(f"{text}\n" for text in laid))
    assert [step for step, _ in found] == [step for step, _, _ in samples]
    assert [parse(text) for _, text in found] == [parse(text) for text in laid]


def test_a_sample_is_read_as_people_see_it():
    assert parse(block(3, "def \n", "x\n\n    y\x1b ")) == ('"def \\n"', "x\n\n    y\\x1b")
