import numpy as np

from tools.bench.material import make, weights


def test_the_same_seed_gives_the_same_weights(tiny):
    first, second = weights(tiny), weights(tiny)
    assert sum(array.size for array in first.values()) == tiny.parameters
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_batches_are_windows_of_the_text(tiny, tmp_path):
    text = "abcdefghijk" * 9
    ids = make(tiny, tmp_path, text).batches()
    assert ids.shape[1:] == (tiny.batch, tiny.context + 1)
    assert all("".join("abcdefghijk"[i] for i in row) in text for row in ids[0])


def test_a_text_of_too_many_characters_is_replaced_by_random_ids(tiny, tmp_path):
    ids = make(tiny, tmp_path, "abcdefghijklmnopqrstuvwxyz" * 9).batches()
    assert 0 <= ids.min() <= ids.max() < tiny.vocabulary
