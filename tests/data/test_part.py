"""Documents are cut by what they are, never by how they arrive."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.data import part
from craft.data.part import Part, documents

WORDS = st.text(st.sampled_from("ab \n|"), max_size=200)


def chunked(text: str, sizes: list[int]) -> list[str]:
    found, at = [], 0
    for size in [*sizes, len(text)]:
        found.append(text[at : at + size])
        at += size
    return found


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(part, "LIMIT", 8)


@given(WORDS, st.lists(st.integers(0, 30), max_size=8), st.sampled_from(["", "|", "a|"]))
def test_how_a_text_arrives_does_not_matter(text, sizes, separator):
    assert list(documents(chunked(text, sizes), separator)) == list(documents([text], separator))


@given(WORDS)
def test_one_document_comes_back_in_parts_of_bounded_size(text):
    found = list(documents([text]))
    assert "".join(one.text for one in found) == text
    assert all(len(one.text) <= 2 * part.LIMIT + 1 for one in found)
    assert [one.ends for one in found] == [False] * (len(found) - 1) + [True] * bool(found)


@given(WORDS)
def test_a_separator_divides_as_a_split_by_lines_does(text):
    whole, documents_, current = list(documents([text], "|")), list[str](), ""
    for one in whole:
        current += one.text
        if one.ends:
            documents_, current = [*documents_, current], ""
    assert current == ""
    expected = re.split(r"(?m)^\|(?:\n|\Z)", text)
    assert documents_ == [piece for piece in expected if piece]


def test_parts_end_at_lines_where_they_can():
    text = "one two\nthree four\nfive\n"
    assert next(documents([text * 3])).text.endswith("\n")
    assert not next(documents(["x" * 40])).ends
    assert list(documents(["x"])) == [Part("x", ends=True)]
