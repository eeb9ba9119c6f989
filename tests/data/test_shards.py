"""Shards: ids over several files read as one sequence, and a changed file is seen."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from craft.data import DataError
from craft.data.shards import Tokens, kind, write_shard


def opened(folder, sizes: list[int]) -> Tokens:
    at, shards = 0, []
    for number, size in enumerate(sizes):
        shards.append(write_shard(folder, f"s{number}", np.arange(at, at + size, dtype="<u2"), [size] if size else []))
        at += size
    return Tokens(folder, shards, np.dtype("<u2"))


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any),
    starts=st.lists(st.integers(0, 60), max_size=5),
    length=st.integers(1, 30),
)
def test_rows_equal_slices_of_the_sequence(tmp_path_factory, sizes, starts, length):
    tokens, total = opened(tmp_path_factory.mktemp("shards"), sizes), sum(sizes)
    starts = [start % total for start in starts]
    expected = [[min(start + place, total - 1) for place in range(length)] for start in starts]
    assert len(tokens) == total
    assert tokens.rows(starts, length).tolist() == expected
    assert tokens.ends.tolist() == [end for size, end in zip(sizes, np.cumsum(sizes).tolist(), strict=True) if size]
    assert tokens.count(total + 1).tolist() == [1] * total + [0]


@pytest.mark.parametrize(("size", "name"), [(1, "<u1"), (256, "<u1"), (257, "<u2"), (65536, "<u2"), (65537, "<u4")])
def test_ids_are_stored_in_the_smallest_type(size, name):
    assert kind(size) == np.dtype(name)
    assert np.iinfo(kind(size)).max >= size - 1


def test_a_vocabulary_too_large_to_store_is_refused():
    with pytest.raises(DataError, match="expected at most 4294967296"):
        kind(2**32 + 1)


def test_a_changed_shard_is_seen(tmp_path):
    tokens = opened(tmp_path, [5, 5])
    tokens.check()
    with (tmp_path / "s1.tokens").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"s1\.tokens was changed while it is read"):
        tokens.check()
    (tmp_path / "s1.tokens").unlink()
    with pytest.raises(DataError, match=r"s1\.tokens is gone"):
        tokens.check()
