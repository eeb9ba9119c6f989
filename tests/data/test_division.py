"""Every document is in one split, and always in the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from craft.data import DataError, Division, part
from craft.data.division import SPLITS, divide, joined, shares
from craft.data.part import Part, documents

DOCUMENTS = st.lists(st.text(st.sampled_from("aé☃\n"), min_size=1, max_size=60), min_size=1, max_size=12)
SHARES = st.sampled_from(["0.9,0.05,0.05", "0.5,0.3,0.2", "0.7,0.3,0", "0.34,0.33,0.33"])


def parts_of(texts: list[str]) -> list[Part]:
    return [one for text in texts for one in documents([text])]


def gathered(pairs) -> dict[str, list[str]]:
    found = {name: [""] for name in SPLITS}
    for split, one in pairs:
        found[SPLITS[split]][-1] += one.text
        if one.ends:
            found[SPLITS[split]].append("")
    return {name: [text for text in texts if text] for name, texts in found.items()}


@given(DOCUMENTS, SHARES, st.sampled_from(["contiguous", "hash"]), st.sampled_from([4, 1000]))
def test_splits_hold_everything_once_and_in_order(texts, split, by, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(part, "LIMIT", limit)
        found = gathered(divide(parts_of(texts), Division(split, by), len("".join(texts).encode())))
    if by == "contiguous":
        assert "".join(text for name in SPLITS for text in found[name]) == "".join(texts)
    else:
        assert sorted(text for name in SPLITS for text in found[name]) == sorted(texts)
    if split.endswith(",0"):
        assert found["test"] == []


@given(st.text(st.sampled_from("aé☃"), min_size=1, max_size=300), SHARES)
def test_one_document_is_cut_at_the_very_character(text, split):
    size, share = len(text.encode()), shares(split)
    found = gathered(divide(parts_of([text]), Division(split), size))
    last, middle = round(size * share[2]), round(size * share[1])
    sizes = {"train": size - middle - last, "validation": middle, "test": last}
    for name in SPLITS:
        assert abs(len("".join(found[name]).encode()) - sizes[name]) < 3  # a character has up to three bytes here


def test_a_small_document_is_never_cut():
    texts = [f"{number:03d} some words\n" for number in range(200)]
    found = gathered(divide(parts_of(texts), Division("0.8,0.1,0.1"), len("".join(texts))))
    assert [text for name in SPLITS for text in found[name]] == texts
    assert [len(found[name]) for name in SPLITS] == [160, 20, 20]


def test_equal_documents_are_in_the_same_split_and_shares_are_kept():
    texts = [f"document {number % 3000}" for number in range(6000)]
    found = gathered(divide(parts_of(texts), Division("0.8,0.1,0.1", "hash"), 0))
    for other in ("validation", "test"):
        assert not set(found["train"]) & set(found[other])
    assert 4600 < len(found["train"]) < 5000
    assert 450 < len(found["validation"]) < 750


def test_a_line_end_is_added_where_nothing_else_ends_a_document():
    parts = [Part("a"), Part("b", ends=False), Part("c\n"), Part("d", ends=False), Part("")]
    assert "".join(one.text for one in joined(parts, lines=True)) == "a\nbc\nd\n"
    assert list(joined(parts, lines=False)) == parts


@pytest.mark.parametrize("by", ["", "random"])
def test_another_division_is_refused(by):
    with pytest.raises(DataError, match="expected contiguous or hash"):
        Division(by=by)
