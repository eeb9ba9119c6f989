"""Packed rows: nothing is lost, nothing is twice, and nothing sees another document."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from craft.data.packing import Rows, best_fit
from craft.data.shards import Tokens, write_shard


def naive(sizes: list[int], room: int) -> list[int]:
    """Best fit by falling size, looking at every row."""
    left: list[int] = []
    rows = [0] * len(sizes)
    for piece in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        fitting = [(space, row) for row, space in enumerate(left) if space >= sizes[piece]]
        least = min((space for space, _ in fitting), default=None)
        row = max(row for space, row in fitting if space == least) if fitting else len(left)
        left = left if fitting else [*left, room]
        left[row] -= sizes[piece]
        rows[piece] = row
    return rows


@given(st.integers(1, 20).flatmap(lambda room: st.tuples(st.lists(st.integers(1, room), max_size=50), st.just(room))))
def test_rows_are_as_full_as_those_of_a_naive_best_fit(case):
    sizes, room = case
    row_N = best_fit(np.array(sizes, np.int64), room)
    filled = np.bincount(row_N, weights=sizes).astype(int).tolist() if sizes else []
    other = np.bincount(naive(sizes, room), weights=sizes).astype(int).tolist() if sizes else []
    assert all(0 < size <= room for size in filled)
    assert sorted(filled) == sorted(other)


def split(folder, documents: list[list[int]]) -> Tokens:
    ids = np.array([i for document in documents for i in document], "<u2")
    ends = np.cumsum([len(document) for document in documents]).tolist()
    return Tokens(folder, [write_shard(folder, "train-0-00000", ids, ends)], np.dtype("<u2"))


@settings(max_examples=30, deadline=None)
@given(sizes=st.lists(st.integers(1, 25), min_size=1, max_size=12), context=st.integers(2, 9))
def test_each_token_but_a_documents_first_is_a_target_once(tmp_path_factory, sizes, context):
    first = np.cumsum([0, *sizes[:-1]])
    documents = [list(range(start, start + size)) for start, size in zip(first.tolist(), sizes, strict=True)]
    rows = Rows(split(tmp_path_factory.mktemp("rows"), documents), context)
    batch = rows.take(list(range(len(rows) + 1)), torch.arange(len(rows) + 1))
    on = batch.weights_BT > 0
    assert sorted(batch.targets_BT[on].tolist()) == sorted(i for document in documents for i in document[1:])
    assert torch.equal(batch.targets_BT[on], batch.inputs_BT[on] + 1)
    assert not on[-1].any()
    places = {i: (number, place) for number, document in enumerate(documents) for place, i in enumerate(document)}
    for row, weights, position, document in zip(batch.inputs_BT, on, *batch.layout, strict=True):
        for piece in document[weights].unique().tolist():
            inside = (document == piece) & weights
            owners = {places[i][0] for i in row[inside].tolist()}
            assert len(owners) == 1
            assert position[inside].tolist() == list(range(int(inside.sum())))
        assert not (document[~weights] >= 0).any()
